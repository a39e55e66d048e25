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

from repbench.benchmark.baselines import baselines
from repbench.benchmark.examiner import Examiner
from repbench.benchmark.features import layer_indices
from repbench.benchmark.finetuning import Finetuned, Finetuner, predictions_of
from repbench.benchmark.loading import code_of
from repbench.benchmark.network import Network
from repbench.benchmark.owning import locked
from repbench.benchmark.plan import Plan
from repbench.benchmark.probe import Probe
from repbench.benchmark.result import score
from repbench.benchmark.saved_probe import heard_by
from repbench.benchmark.stage import Answered, Labelled, Setting, Stage, Written, module_of
from repbench.benchmark.training import TrainedProbe
from repbench.corpora.contract import Corpus
from repbench.files import canonical_json, environment_faults
from repbench.upstream.parallel import Processes

STATES = ".finetuning"
"""Below the folder of the records: the states of trainings that are not finished."""


def finetuned(
    stage: Stage,
    corpus: Corpus,
    plan: Plan,
    subsets: Mapping[Setting, Labelled],
    rates: tuple[str, ...],
    processes: Processes,
) -> list[Written]:
    """Fine-tune a network for each setting, and write its record; nothing on processes that do not lead.

    Args:
        stage: What all settings share.
        corpus: Of the questions.
        plan: How it was divided.
        subsets: The labels of each setting.
        rates: What is to be said of the way from the sound to the frames.
        processes: That train together.
    """
    examiner = Examiner(stage.task, plan.classes, stage.upstream.info)
    initial = {name: tensor.detach().clone() for name, tensor in module_of(stage.upstream).state_dict().items()}
    folders = {setting: _folder(stage, corpus, setting) for setting in subsets}
    trained: dict[Setting, tuple[Network, Finetuned]] = {}
    with ExitStack() as locks:
        for setting, labelled in subsets.items():
            locks.enter_context(locked(folders[setting], processes))
            module_of(stage.upstream).load_state_dict(initial)
            network = _network(stage, plan, setting)
            done = Finetuner(
                network=network,
                examiner=examiner,
                settings=stage.request.protocol.finetune,
                standardise=stage.request.protocol.probe.standardise,
                extraction=stage.request.protocol.extraction,
                seed=setting.seed,
                heard=plan.usable(plan.train),
                train=labelled.train,
                dev=labelled.dev,
                folder=folders[setting],
                device=stage.device,
                title=_title(stage, setting),
                processes=processes,
                reporter=stage.reporter,
            ).fit()
            trained[setting] = network, done
        processes.wait()
        if not processes.leads:
            return []
        return _scored(stage, corpus, plan, subsets, rates, examiner, trained, folders)


def _scored(
    stage: Stage,
    corpus: Corpus,
    plan: Plan,
    subsets: Mapping[Setting, Labelled],
    rates: tuple[str, ...],
    examiner: Examiner,
    trained: Mapping[Setting, tuple[Network, Finetuned]],
    folders: Mapping[Setting, Path],
) -> list[Written]:
    """Open the test split, and write the record of each setting at its best point."""
    heard = heard_by(plan)
    questions = plan.test.open()
    known = baselines(stage.task, plan.classes, plan.train, questions)
    written = []
    for setting, (network, done) in trained.items():
        network.load_state_dict(done.best)
        started = time.monotonic()
        with stage.reporter.stage("answers of test") as advance:
            predictions = predictions_of(
                network, examiner, questions, stage.request.protocol.extraction, device=stage.device
            )
            advance(len(questions), len(questions))
        stage.extract_seconds = time.monotonic() - started  # of this network alone
        answered = Answered(
            setting=setting,
            trained=TrainedProbe(network.probe, done.selection, done.seconds),
            label_seconds=subsets[setting].seconds,
            warnings=subsets[setting].warnings,
            mode="finetune",
        )
        written.append(score(stage, corpus, plan, answered, predictions, questions, known, rates, heard))
        with environment_faults(folders[setting]):
            shutil.rmtree(folders[setting])
    return written


def _network(stage: Stage, plan: Plan, setting: Setting) -> Network:
    """The initial network of a setting."""
    generator = torch.Generator().manual_seed(setting.seed)
    probe = Probe(stage.probe_shape(plan.classes, setting.layer), generator).to(stage.device)
    return Network(stage.upstream, probe, layer_indices(stage.upstream.info, setting.layer))


def _folder(stage: Stage, corpus: Corpus, setting: Setting) -> Path:
    """Where the state of a setting's training lies: a function of all that its numbers depend on."""
    code = code_of(stage.upstream_entry)
    identity = {
        "upstream": [each for each in (stage.upstream_entry.qualified, stage.fingerprint, code) if each is not None],
        "downstream": [stage.task_entry.qualified, stage.task_entry.version],
        "corpus": corpus.fingerprint,
        "layer": setting.layer,
        "head": stage.head,
        "label_fraction": setting.fraction,
        "seed": setting.seed,
        "labels": setting.labels,
        "protocol": setting.protocol(stage.request.protocol).model_dump(mode="json"),
    }
    return stage.request.out / STATES / hashlib.sha256(canonical_json(identity)).hexdigest()[:16]


def _title(stage: Stage, setting: Setting) -> str:
    shuffled = ", shuffled labels" if setting.labels == "shuffled" else ""
    part = f", {setting.fraction:.4g} of the labels" if setting.fraction < 1 else ""
    return f"fine-tuning {stage.request.upstream}, seed {setting.seed}{part}{shuffled}"
