"""Fine-tuning on the way of the data: a network for each setting, one after the other, then the test split, once.

The state of an unfinished training lies in `OUT/.finetuning/ID`, where the id is a digest of all that its numbers
depend on; so the same command finds it and goes on. It is removed when the record is written.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import torch

from repbench.benchmark.data.dataset import LabelledSplits
from repbench.benchmark.features.extraction import layer_indices
from repbench.benchmark.finetuning.network import Network
from repbench.benchmark.finetuning.prediction import predictions_of
from repbench.benchmark.finetuning.trainer import Finetuned, Finetuner
from repbench.benchmark.loading.upstreams import code_of
from repbench.benchmark.pipeline.saved_probe_run import heard_by
from repbench.benchmark.pipeline.setup import Labelled, RunContext, RunSetting, TrainedResult, WrittenRecord, module_of
from repbench.benchmark.pipeline.write_record import score
from repbench.benchmark.probing.prediction import Predictor
from repbench.benchmark.probing.probe import Probe
from repbench.benchmark.probing.training import TrainedProbe
from repbench.benchmark.scoring.baselines import baselines
from repbench.corpora.contract import Corpus
from repbench.files import canonical_json, environment_faults
from repbench.training.distributed import Processes, locked_run_folder

STATES = ".finetuning"
"""Below the folder of the records: the states of trainings that are not finished."""


def finetuned(
    context: RunContext,
    corpus: Corpus,
    splits: LabelledSplits,
    subsets: Mapping[RunSetting, Labelled],
    rates: tuple[str, ...],
    processes: Processes,
) -> list[WrittenRecord]:
    """Fine-tune a network for each setting, and write its record; nothing on processes that do not lead.

    Args:
        stage: What all settings share.
        corpus: Of the questions.
        plan: How it was divided.
        subsets: The labels of each setting.
        rates: What is to be said of the way from the sound to the frames.
        processes: That train together.
    """
    predictor = Predictor(context.task, splits.classes, context.upstream.info)
    initial = {name: tensor.detach().clone() for name, tensor in module_of(context.upstream).state_dict().items()}
    folders = {setting: _folder(context, corpus, setting) for setting in subsets}
    trained: dict[RunSetting, tuple[Network, Finetuned]] = {}
    with ExitStack() as locks:
        for setting, labelled in subsets.items():
            locks.enter_context(locked_run_folder(folders[setting], processes))
            module_of(context.upstream).load_state_dict(initial)
            network = _network(context, splits, setting)
            done = Finetuner(
                network=network,
                predictor=predictor,
                settings=context.request.protocol.finetune,
                standardise=context.request.protocol.probe.standardise,
                extraction=context.request.protocol.extraction,
                seed=setting.seed,
                heard=splits.usable(splits.train),
                train=labelled.train,
                dev=labelled.dev,
                folder=folders[setting],
                device=context.device,
                title=_title(context, setting),
                processes=processes,
                reporter=context.reporter,
            ).fit()
            trained[setting] = network, done
        processes.wait()
        if not processes.leads:
            return []
        return _scored(context, corpus, splits, subsets, rates, predictor, trained, folders)


def _scored(
    context: RunContext,
    corpus: Corpus,
    splits: LabelledSplits,
    subsets: Mapping[RunSetting, Labelled],
    rates: tuple[str, ...],
    predictor: Predictor,
    trained: Mapping[RunSetting, tuple[Network, Finetuned]],
    folders: Mapping[RunSetting, Path],
) -> list[WrittenRecord]:
    """Open the test split, and write the record of each setting at its best point."""
    heard = heard_by(splits)
    examples = splits.test.open()
    known = baselines(context.task, splits.classes, splits.train, examples)
    written = []
    for setting, (network, done) in trained.items():
        network.load_state_dict(done.best)
        started = time.monotonic()
        with context.reporter.stage("answers of test") as advance:
            predictions = predictions_of(
                network, predictor, examples, context.request.protocol.extraction, device=context.device
            )
            advance(len(examples), len(examples))
        context.extract_seconds = time.monotonic() - started  # of this network alone
        results = TrainedResult(
            setting=setting,
            trained=TrainedProbe(network.probe, done.selection, done.seconds),
            label_seconds=subsets[setting].seconds,
            warnings=subsets[setting].warnings,
            mode="finetune",
        )
        written.append(score(context, corpus, splits, results, predictions, examples, known, rates, heard))
        with environment_faults(folders[setting]):
            shutil.rmtree(folders[setting])
    return written


def _network(context: RunContext, splits: LabelledSplits, setting: RunSetting) -> Network:
    """The initial network of a setting."""
    generator = torch.Generator().manual_seed(setting.seed)
    probe = Probe(context.probe_shape(splits.classes, setting.layer), generator).to(context.device)
    return Network(context.upstream, probe, layer_indices(context.upstream.info, setting.layer))


def _folder(context: RunContext, corpus: Corpus, setting: RunSetting) -> Path:
    """Where the state of a setting's training lies: a function of all that its numbers depend on."""
    code = code_of(context.upstream_entry)
    identity = {
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
        "protocol": setting.protocol(context.request.protocol).model_dump(mode="json"),
    }
    return context.request.out / STATES / hashlib.sha256(canonical_json(identity)).hexdigest()[:16]


def _title(context: RunContext, setting: RunSetting) -> str:
    shuffled = ", shuffled labels" if setting.labels == "shuffled" else ""
    part = f", {setting.fraction:.4g} of the labels" if setting.fraction < 1 else ""
    return f"fine-tuning {context.request.upstream}, seed {setting.seed}{part}{shuffled}"
