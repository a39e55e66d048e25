"""Scoring a corpus with the probe or fine-tuned network of an earlier run.

Nothing is trained, and no utterance that the probe was trained or selected on is scored.
"""

from __future__ import annotations

import functools
from dataclasses import replace

from repbench.benchmark.data.dataset import (
    LabelledUtterances,
    splits_for_probe,
)
from repbench.benchmark.features.invariance_check import check_invariance
from repbench.benchmark.features.source import exclusions, notes_of
from repbench.benchmark.finetuning.network import SavedNetwork, load_network
from repbench.benchmark.pipeline.run_data import HEARD_DIGITS, RunData, open_test, refuse_unknown_attributes
from repbench.benchmark.pipeline.run_features import extract
from repbench.benchmark.pipeline.setup import (
    FinetunedWeights,
    RunRequest,
    RunSetting,
    TrainedResult,
    WrittenRecord,
    open_corpus_of,
    prepare,
)
from repbench.benchmark.pipeline.write_record import score
from repbench.benchmark.probing.prediction import LabelledFeatures, Predictor
from repbench.benchmark.probing.probe import load_probe
from repbench.benchmark.probing.training import Selection, TrainedProbe
from repbench.benchmark.protocol import Protocol
from repbench.benchmark.records.record import NETWORK_FILE, PROBE_FILE, RECORD_FILE, Record, read_record
from repbench.corpora.contract import Corpus
from repbench.downstream.heads import NO_HEAD
from repbench.errors import DataError, IntegrityError, UsageError
from repbench.files import read_checked
from repbench.progress import Reporter
from repbench.registry import registry
from repbench.upstream.contract import Upstream


def score_with_probe(request: RunRequest, reporter: Reporter) -> list[WrittenRecord]:
    """Score the corpus with the probe of an earlier run: its official test split or, without one, all of it.

    Raises:
        UsageError: The request names another pair, or an option of training.
        IntegrityError: The probe is damaged, or was trained on another upstream than this one.
        DataError: The corpus has nothing to score, or an utterance that trained or selected the probe.
    """
    assert request.probe is not None
    folder = request.probe.parent if request.probe.name == RECORD_FILE else request.probe
    source = read_record(folder / RECORD_FILE)
    if source.head == NO_HEAD:
        what = f"`{source.downstream.name}` trains nothing, so the run has no probe"
        raise UsageError(what, file=folder, key="--probe", do="Leave --probe out, and run the task on this corpus")
    if source.folds is not None:
        raise UsageError(
            f"The run has a probe for each of {len(source.folds)} folds, and none of all of its corpus",
            file=folder,
            key="--probe",
            do="Train one without split.folds, and give that run",
        )
    network = load_network(folder / NETWORK_FILE) if source.mode == "finetune" else None
    file = folder / (PROBE_FILE if network is None else NETWORK_FILE)
    probe, facts = load_probe(file) if network is None else (network.probe, dict(network.facts))
    missing = sorted({"upstream_fingerprint", "heard", "speakers"} - facts.keys())
    if missing:
        raise IntegrityError(f"The file of the probe lacks {', '.join(missing)}", file=file, do="Run it again")
    _refuse_other_pair(request, source)
    _refuse_training_options(request)
    upstream = None if network is None else _finetuned(network, request, source)
    request = replace(
        request,
        checkpoint=request.checkpoint or source.upstream.checkpoint,
        layer=source.layer,
        head=source.head,
        label_fractions=(source.label_fraction,),
        seeds=(source.seed,),
        protocol=Protocol.model_validate(source.protocol),
    )
    opened = functools.cache(lambda: open_corpus_of(request, reporter))
    context = prepare(request, reporter, opened, upstream=upstream)
    if network is not None:
        # The record names the initial weights, as that of the fine-tuning did; `prepare` computed that of the tuned
        # ones.
        context.fingerprint = facts["upstream_fingerprint"]
    elif context.fingerprint != facts["upstream_fingerprint"]:
        raise IntegrityError(
            f"The probe was trained on another `{request.upstream}` than this one",
            file=file,
            do="Give the --checkpoint that it was trained on, or run it again",
        )
    check_invariance(context.upstream, context.upstream_entry, context.fingerprint, context.device)
    corpus = opened()
    refuse_unknown_attributes(corpus, request.by)
    rates = notes_of(corpus, context.upstream)
    splits = splits_for_probe(
        corpus, context.task, probe.shape.classes, source.id, excludes=exclusions(context.upstream)
    )
    # Checked before they are copied: the new record states their digests too.
    splits = replace(
        splits, files={name: read_checked(folder / name, sha256) for name, sha256 in source.downstream.files.items()}
    )
    _refuse_training_utterances(splits.test.listed(), frozenset(facts["heard"]), corpus)
    data = RunData.of(context, corpus, splits, rates)
    selection = Selection(source.selection.grid, source.selection.chosen, source.selection.dev_value)
    setting = RunSetting(layer=source.layer, fraction=source.label_fraction, seed=source.seed)
    result = TrainedResult(
        setting=setting,
        trained=TrainedProbe(probe, selection),
        label_seconds=source.label_seconds.model_dump(),
        warnings=_shared_speakers(splits.test.listed(), frozenset(facts["speakers"])),
        mode=source.mode,
        weights=None if network is None else _weights_of(network, source),
    )
    for warning in (*splits.warnings, *rates, *result.warnings):
        reporter.say(f"note: {warning}")
    predictor = Predictor(context.task, splits.classes, context.upstream.info).decided(selection.chosen)
    written = []
    for condition in data.tests:
        test = replace(open_test(context, data, condition), trained_on={None: facts})
        table = extract(context, test.title, test.examples)
        predictions = predictor.predict(probe.to(context.device), LabelledFeatures(table, test.examples))
        scored = replace(result, setting=replace(setting, condition=condition))
        written.append(score(context, data, test, scored, predictions))
    return written


def _finetuned(network: SavedNetwork, request: RunRequest, source: Record) -> Upstream:
    entry = registry().find("upstream", request.upstream).entry
    return network.build(entry, request.checkpoint, source.upstream.checkpoint, source.seed)


def _weights_of(network: SavedNetwork, source: Record) -> FinetunedWeights:
    """As they are in the file of the network: the record of another corpus gets the same."""
    moving = network.upstream if network.is_partial else None
    return FinetunedWeights(part=source.finetuned, moving=moving, settings=network.facts.get("partial", {}))


def _refuse_training_options(request: RunRequest) -> None:
    """Refuse options of training: the probe is already trained."""
    defaults = RunRequest(upstream=request.upstream, downstream=request.downstream)
    options = {
        "--layer": "layer",
        "--label-fraction": "label_fractions",
        "--seed": "seeds",
        "--head": "head",
        "--set": "protocol",
        "--finetune": "finetune",
        "--matched": "matched",
    }
    for option, name in options.items():
        if getattr(request, name) != getattr(defaults, name):
            raise UsageError("The probe is already trained", key=option, do=f"Leave {option} out, or leave --probe out")


def _refuse_training_utterances(examples: LabelledUtterances, heard: frozenset[str], corpus: Corpus) -> None:
    """Refuse to score an utterance that trained or selected the probe."""
    # By sound, not by id: the same file may have another id in another corpus.
    again = [example for example in examples if example.utterance.samples_sha256[:HEARD_DIGITS] in heard]
    if again:
        raise DataError(
            f"{len(again)} of {len(examples)} utterances of {corpus.name} trained or selected this probe",
            utterance=again[0].id,
            do="Score a corpus without them",
        )


def _shared_speakers(examples: LabelledUtterances, speakers: frozenset[str]) -> tuple[str, ...]:
    own = {example.utterance.speaker for example in examples} - {None}
    common = own & speakers
    if not common:
        return ()
    return (f"{len(common)} of {len(own)} speakers have the name of one that the probe was trained on",)


def _refuse_other_pair(request: RunRequest, source: Record) -> None:
    given, trained = (request.upstream, request.downstream), (source.upstream.name, source.downstream.name)
    if given != trained:
        raise UsageError(
            f"The probe was trained for {trained[1]} on {trained[0]}, not for {given[1]} on {given[0]}",
            key="--probe",
            do=f"Give --upstream {trained[0]} --downstream {trained[1]}",
        )
