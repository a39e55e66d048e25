"""Scoring a corpus with the probe or fine-tuned network of an earlier run.

Nothing is trained, and nothing heard in training is scored.
"""

from __future__ import annotations

import functools
from dataclasses import replace

from repbench.benchmark.baselines import baselines
from repbench.benchmark.examiner import Examiner, Examples
from repbench.benchmark.network import SavedNetwork, load_network
from repbench.benchmark.plan import (
    Plan,
    Questions,
    plan_for_probe,
)
from repbench.benchmark.precomputed import exclusions, notes_of
from repbench.benchmark.probe import load_probe
from repbench.benchmark.protocol import Protocol
from repbench.benchmark.record import NETWORK_FILE, PROBE_FILE, RECORD_FILE, Record, read_record
from repbench.benchmark.result import score
from repbench.benchmark.stage import Answered, RunRequest, Setting, Written, open_corpus_of, prepare, refuse_exclusions
from repbench.benchmark.training import Selection, TrainedProbe
from repbench.benchmark.trial import try_together
from repbench.corpora.contract import Corpus
from repbench.errors import DataError, IntegrityError, UsageError
from repbench.progress import Reporter
from repbench.registry import registry
from repbench.upstream.contract import Upstream

HEARD_DIGITS = 16
"""Hexadecimal digits by which a probe remembers the sounds it was trained and selected on."""


def score_with_probe(request: RunRequest, reporter: Reporter) -> list[Written]:
    """Score the corpus with the probe of an earlier run: its official test split or, without one, all of it."""
    assert request.probe is not None
    folder = request.probe.parent if request.probe.name == RECORD_FILE else request.probe
    source = read_record(folder / RECORD_FILE)
    network = load_network(folder / NETWORK_FILE) if source.mode == "finetune" else None
    file = folder / (PROBE_FILE if network is None else NETWORK_FILE)
    probe, facts = load_probe(file) if network is None else (network.probe, dict(network.facts))
    missing = sorted({"upstream_fingerprint", "heard", "speakers"} - facts.keys())
    if missing:
        raise IntegrityError(f"The probe does not say its {', '.join(missing)}", file=file, do="Run it again")
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
    stage = prepare(request, reporter, opened, upstream=upstream)
    if network is not None:
        stage.fingerprint = facts["upstream_fingerprint"]
    elif stage.fingerprint != facts["upstream_fingerprint"]:
        raise IntegrityError(
            f"The probe was trained on another `{request.upstream}` than this one",
            file=file,
            do="Give the --checkpoint that it was trained on, or run it again",
        )
    try_together(stage.upstream, stage.upstream_entry, stage.fingerprint, stage.device)
    corpus = opened()
    rates = notes_of(corpus, stage.upstream)
    plan = plan_for_probe(corpus, stage.task, probe.shape.classes, source.id, excludes=exclusions(stage.upstream))
    refuse_exclusions(plan.test, request.allow_excluded)
    questions = plan.test.open()
    _refuse_heard(questions, frozenset(facts["heard"]), corpus)
    table = stage.extract("features of test", questions)
    selection = Selection(source.selection.grid, source.selection.chosen, source.selection.dev_value)
    setting = Setting(layer=source.layer, fraction=source.label_fraction, seed=source.seed)
    answered = Answered(
        setting=setting,
        trained=TrainedProbe(probe, selection),
        label_seconds=source.label_seconds.model_dump(),
        warnings=_shared_speakers(questions, frozenset(facts["speakers"])),
        mode=source.mode,
    )
    for warning in (*plan.warnings, *rates, *answered.warnings):
        reporter.say(f"note: {warning}")
    examiner = Examiner(stage.task, plan.classes, stage.upstream.info)
    predictions = examiner.predict(probe.to(stage.device), Examples(table, questions))
    known = baselines(stage.task, plan.classes, plan.train, questions)
    return [score(stage, corpus, plan, answered, predictions, questions, known, rates, facts)]


def _finetuned(network: SavedNetwork, request: RunRequest, source: Record) -> Upstream:
    entry = registry().find("upstream", request.upstream).entry
    return network.build(entry, request.checkpoint, source.upstream.checkpoint, source.seed)


def heard_by(plan: Plan) -> dict[str, list[str]]:
    """The sounds and speakers that train and select, whatever the label fraction."""
    utterances = [question.utterance for question in (*plan.train, *plan.dev)]
    return {
        "heard": sorted(utterance.samples_sha256[:HEARD_DIGITS] for utterance in utterances),
        "speakers": sorted({utterance.speaker for utterance in utterances if utterance.speaker is not None}),
    }


def _refuse_training_options(request: RunRequest) -> None:
    """A probe that is already trained takes no option of training."""
    defaults = RunRequest(upstream=request.upstream, downstream=request.downstream)
    options = {
        "--layer": "layer",
        "--label-fraction": "label_fractions",
        "--seed": "seeds",
        "--head": "head",
        "--set": "protocol",
        "--finetune": "finetune",
    }
    for option, name in options.items():
        if getattr(request, name) != getattr(defaults, name):
            raise UsageError("The probe is already trained", key=option, do=f"Leave {option} out, or leave --probe out")


def _refuse_heard(questions: Questions, heard: frozenset[str], corpus: Corpus) -> None:
    again = [question for question in questions if question.utterance.samples_sha256[:HEARD_DIGITS] in heard]
    if again:
        raise DataError(
            f"{len(again)} of {len(questions)} utterances of {corpus.name} trained or selected this probe",
            utterance=again[0].id,
            do="Score a corpus that it has not heard",
        )


def _shared_speakers(questions: Questions, speakers: frozenset[str]) -> tuple[str, ...]:
    own = {question.utterance.speaker for question in questions} - {None}
    common = own & speakers
    if not common:
        return ()
    return (f"{len(common)} of {len(own)} speakers have the name of one that the probe was trained on",)


def _refuse_other_pair(request: RunRequest, source: Record) -> None:
    asked, trained = (request.upstream, request.downstream), (source.upstream.name, source.downstream.name)
    if asked != trained:
        raise UsageError(
            f"The probe answers {trained[1]} on {trained[0]}, not {asked[1]} on {asked[0]}",
            key="--probe",
            do=f"Say --upstream {trained[0]} --downstream {trained[1]}",
        )
