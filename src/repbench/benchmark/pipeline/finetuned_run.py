"""Fine-tuned runs: train a network for each setting, one after the other, then open the test split, once.

The checkpoints of an unfinished training are in `OUT/.finetuning/ID`, where the id is a digest of all that its numbers
depend on, so the same command finds them and resumes. They are removed when the record is written.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from repbench.benchmark import environment
from repbench.benchmark.data.dataset import LabelledSplits
from repbench.benchmark.features.extraction import layer_indices
from repbench.benchmark.finetuning.lora import adapters
from repbench.benchmark.finetuning.network import UPSTREAM, Network, adapted, saves_what_moved
from repbench.benchmark.finetuning.prediction import predictions_of
from repbench.benchmark.finetuning.trainable import TrainablePlan, moved_weights
from repbench.benchmark.finetuning.trainer import Finetuned, Finetuner
from repbench.benchmark.loading.upstreams import code_of
from repbench.benchmark.pipeline.conditioned_run import conditions_in
from repbench.benchmark.pipeline.run_data import RunData, open_test
from repbench.benchmark.pipeline.setup import (
    FinetunedWeights,
    LabelledSubset,
    RunContext,
    RunSetting,
    TrainedResult,
    WrittenRecord,
    module_of,
)
from repbench.benchmark.pipeline.write_record import score
from repbench.benchmark.probing.prediction import Predictor
from repbench.benchmark.probing.probe import Probe
from repbench.benchmark.probing.training import TrainedProbe
from repbench.benchmark.protocol import ALL_WEIGHTS, FinetuneSettings
from repbench.benchmark.records.parts import FinetunedPart
from repbench.corpora.contract import Corpus
from repbench.errors import UsageError
from repbench.files import canonical_json, environment_faults
from repbench.training.distributed import Processes, locked_run_folder

STATES = ".finetuning"
"""Folder, below that of the records, for the checkpoints of unfinished trainings."""


class _FinetunedNetwork(NamedTuple):
    network: Network
    result: Finetuned
    weights: FinetunedWeights
    folder: Path


def finetuned(
    context: RunContext,
    data: RunData,
    subsets: Mapping[RunSetting, LabelledSubset],
    settings: Sequence[RunSetting],
    processes: Processes,
) -> list[WrittenRecord]:
    """Fine-tune a network for each training, and write the record of each setting.

    Args:
        context: What all settings share.
        data: The corpus and its splits.
        subsets: The labelled utterances of each training.
        settings: Of the records.
        processes: The processes that train together.

    Returns:
        The records, in the order of `subsets` and for each in that of the conditions; none on processes that do not
        lead.
    """
    splits, protocol = data.splits, context.request.protocol
    predictor = Predictor(context.task, splits.classes, context.upstream.info)
    initial = {name: tensor.detach().clone() for name, tensor in module_of(context.upstream).state_dict().items()}
    trained: dict[RunSetting, _FinetunedNetwork] = {}
    for labelled in subsets.values():
        _refuse_weighted(predictor, labelled)
    with ExitStack() as locks:
        for setting, labelled in subsets.items():
            folder = folder_of_training(context, data.corpus, setting)
            # Held until the records are written, because the folders are read and removed until then.
            locks.enter_context(locked_run_folder(folder, processes))
            # All settings train the same module, so each begins with a copy of the initial weights.
            module_of(context.upstream).load_state_dict(initial)
            network = _network(context, splits, setting)
            learning = predictor.for_training(labelled.train)
            network.probe.set_target_statistics(learning.context.target_statistics)
            with adapted(module_of(context.upstream), protocol.finetune, setting.seed):
                before = _trained_weights(context, protocol.finetune, initial)
                result = Finetuner(
                    network=network,
                    predictor=learning,
                    settings=protocol.finetune,
                    standardise=protocol.probe.standardise,
                    extraction=protocol.extraction,
                    seed=setting.seed,
                    standardised_on=splits.usable(splits.train),
                    train=labelled.train,
                    dev=labelled.dev,
                    folder=folder,
                    device=context.device,
                    title=_title(context, setting),
                    processes=processes,
                    reporter=context.reporter,
                ).fit()
                weights = _weights(context, protocol.finetune, before, result) if processes.leads else None
            if weights is not None:
                trained[setting] = _FinetunedNetwork(network, result, weights, folder)
        processes.wait()
        if not processes.leads:
            return []
        return _scored(context, data, subsets, settings, predictor, trained, initial)


def _trained_weights(
    context: RunContext, settings: FinetuneSettings, initial: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The weights that the plan trains at some step, before it does, by name; `initial` has those without LoRA."""
    trained = {each for group, _ in TrainablePlan(context.upstream, settings).parameter_groups for each in group}
    named = {name: each for name, each in module_of(context.upstream).named_parameters() if each in trained}
    return {name: initial[name] if name in initial else each.detach().clone() for name, each in named.items()}


def _weights(
    context: RunContext, settings: FinetuneSettings, before: Mapping[str, Tensor], result: Finetuned
) -> FinetunedWeights:
    """What was trained: its numbers for the record, and what the file of the network holds if that is not all."""
    own = {name.removeprefix(UPSTREAM): each for name, each in result.best.items() if name.startswith(UPSTREAM)}
    upstream = module_of(context.upstream)
    added = sum(each.numel() for each in adapters(upstream))
    part = FinetunedPart(
        rule=settings.trainable,
        total=environment.count_parameters(upstream) - added,
        trainable=TrainablePlan(context.upstream, settings).num_trainable,
        moved=moved_weights(before, own),
    )
    return FinetunedWeights(
        part=part,
        moving=own if saves_what_moved(context.upstream, settings) else None,
        settings=settings.model_dump(mode="json"),
    )


def _scored(
    context: RunContext,
    data: RunData,
    subsets: Mapping[RunSetting, LabelledSubset],
    settings: Sequence[RunSetting],
    predictor: Predictor,
    trained: Mapping[RunSetting, _FinetunedNetwork],
    initial: Mapping[str, Tensor],
) -> list[WrittenRecord]:
    """Open the test split, and write the record of each setting at the best point of its training."""
    tests = {condition: open_test(context, data, condition) for condition in conditions_in(settings)}
    written = []
    partial = context.request.protocol.finetune.trainable != ALL_WEIGHTS
    for setting, (network, finetuned, weights, folder) in trained.items():
        # Weights that the best point does not hold are those that the training began with.
        module_of(context.upstream).load_state_dict(initial)
        with adapted(module_of(context.upstream), context.request.protocol.finetune, setting.seed):
            network.load_state_dict(finetuned.best, strict=not partial)
        for condition, test in tests.items():
            scored = replace(setting, condition=condition)
            if scored not in settings:
                continue
            started = time.monotonic()
            with context.reporter.stage(test.title.replace("features", "predictions")) as advance:
                predictions = predictions_of(
                    network,
                    predictor.decided(finetuned.selection.chosen),
                    test.examples,
                    context.request.protocol.extraction,
                    device=context.device,
                    progress=advance,
                )
            context.extract_seconds = time.monotonic() - started  # of this network and condition alone
            result = TrainedResult(
                setting=scored,
                trained=TrainedProbe(network.probe, finetuned.selection, finetuned.seconds),
                label_seconds=subsets[setting].seconds,
                warnings=subsets[setting].warnings,
                mode="finetune",
                weights=weights,
            )
            written.append(score(context, data, test, result, predictions))
        with environment_faults(folder):
            # Only now: an interruption before the record is written would lose the training.
            shutil.rmtree(folder)
    return written


def _refuse_weighted(predictor: Predictor, labelled: LabelledSubset) -> None:
    if predictor.sampling_weights(labelled.train) is not None:
        raise UsageError(
            "The task draws some utterances more often than others, and fine-tuning draws all equally often",
            key="--finetune",
            do="Leave --finetune out, or the option of the task (task.balanced)",
        )


def _network(context: RunContext, splits: LabelledSplits, setting: RunSetting) -> Network:
    """The initial network of a setting."""
    generator = torch.Generator().manual_seed(setting.seed)
    probe = Probe(context.probe_shape(splits.classes, setting.layer), generator).to(context.device)
    return Network(context.upstream, probe, layer_indices(context.upstream.info, setting.layer))


def folder_of_training(context: RunContext, corpus: Corpus, setting: RunSetting) -> Path:
    """The folder of a setting's checkpoints: a function of all that its numbers depend on."""
    code = code_of(context.upstream_entry)
    identity: dict[str, Any] = {
        "upstream": [
            each for each in (context.upstream_entry.qualified, context.fingerprint, code) if each is not None
        ],
        "downstream": [context.task_entry.qualified, context.task_entry.version],
        "corpus": corpus.fingerprint,
        "layer": setting.layer,
        "head": context.head,
        "label_fraction": setting.fraction,
        "seed": setting.seed,
        "labels": setting.labels,
        "protocol": setting.protocol(context.request.protocol).model_dump(mode="json", exclude={"resources"}),
    }
    if context.request.matched:
        identity["condition"] = [each.key() for each in context.conditions.values()]
    return context.request.out / STATES / hashlib.sha256(canonical_json(identity)).hexdigest()[:16]


def _title(context: RunContext, setting: RunSetting) -> str:
    shuffled = ", shuffled labels" if setting.labels == "shuffled" else ""
    part = f", {setting.fraction:.4g} of the labels" if setting.fraction < 1 else ""
    return f"fine-tuning {context.request.upstream}, seed {setting.seed}{part}{shuffled}"
