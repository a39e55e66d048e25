"""The inventory of a job: which of its records exist, how much sound is missing, and the times of earlier records.

It loads upstreams, which may crash, so it runs in a separate process: `python -m repbench.benchmark.sweep.inventory`
reads jobs from stdin, one a line, and prints the inventory of each as a line of JSON. `inventory_process` asks it. It
serves the forecast alone; `repbench run --missing-only` decides again which records are missing.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

from repbench.benchmark.pipeline.existing_records import answers_in, identity_to_be
from repbench.benchmark.pipeline.setup import RunContext, RunRequest, open_corpus_of, prepare
from repbench.benchmark.pipeline.write_record import pair_folder
from repbench.benchmark.protocol import load_protocol
from repbench.benchmark.records.record import Record
from repbench.benchmark.run import settings_of
from repbench.benchmark.sweep.jobs import Job, RunCall
from repbench.benchmark.sweep.pair_inventory import PairInventory
from repbench.corpora.contract import Corpus, Utterance
from repbench.errors import RepbenchError, Unlabelled
from repbench.progress import Silence
from repbench.registry import registry
from repbench.upstream.checkpoints.untrained import is_untrained

CountedSounds = set[tuple[str, str, int]]
"""Sounds already counted for an earlier pair, which stores their features: (upstream, sound, rate)."""


def inventories_of(job: Job) -> list[PairInventory]:
    """The inventory of each pair of a job."""
    counted: CountedSounds = set()
    opened = functools.cache(lambda: open_corpus_of(_request(job.pairs[0]), Silence()))
    return [_inventory_or_error(pair, opened, counted) for pair in job.pairs]


def _inventory_or_error(pair: RunCall, opened: Callable[[], Corpus], counted: CountedSounds) -> PairInventory:
    try:
        return _inventory(pair, opened, counted)
    except RepbenchError as error:
        return PairInventory(error=error.line())
    except (Exception, SystemExit) as error:  # a plugin may raise anything; the run meets it again and reports it
        return PairInventory(error=f"{type(error).__name__}: {error}")


def _inventory(pair: RunCall, opened: Callable[[], Corpus], counted: CountedSounds) -> PairInventory:
    for file in pair.plugins:
        registry().add_file(Path(file))
    num_records, paths, train_seconds, sound_seconds = 0, [], [], 0.0
    known: list[Record] = []
    for request in _requests(pair):
        context = prepare(request, Silence(), opened)
        settings, corpus = settings_of(context.request, context.upstream, tuple(context.conditions)), opened()
        folder = pair_folder(request.out, corpus.name, request.downstream, request.upstream)
        existing = answers_in(folder, lambda line: None)  # the run itself reports records that do not count
        wanted = [identity_to_be(context, corpus, each) for each in settings]
        there = [existing[each] for each in wanted if each in existing]
        num_records += len(wanted)
        paths += [str(each.path) for each in there]
        known += [each.record for each in existing.values()]
        train_seconds += [each.record.cost.train_seconds for each in existing.values() if _alike(each.record, context)]
        if len(there) < len(wanted) and pair.mode == "frozen":
            sound_seconds += _missing_sound_seconds(context, corpus, counted)
    newest = max(known, key=lambda record: record.created, default=None)
    return PairInventory(
        num_records=num_records,
        records=tuple(paths),
        missing_sound_seconds=sound_seconds,
        real_time_factor=None if newest is None else newest.cost.real_time_factor,
        train_seconds=tuple(train_seconds),
    )


def _missing_sound_seconds(context: RunContext, corpus: Corpus, counted: CountedSounds) -> float:
    """Seconds of labelled sound that the store lacks; without a store, of all labelled sound."""
    labelled = [utterance for utterance in corpus.utterances if _is_labelled(context, utterance)]
    if context.store is None:
        return sum(utterance.seconds for utterance in labelled)
    missing = 0.0
    for utterance in context.store.lacking(labelled, context.layers):
        sound = (context.fingerprint, utterance.samples_sha256, utterance.sample_rate_hz)
        if sound not in counted:
            counted.add(sound)
            missing += utterance.seconds
    return missing


def _requests(pair: RunCall) -> Iterator[RunRequest]:
    """The request of a pair; of an untrained upstream one for each seed, because each seed is another network."""
    request = _request(pair)
    if is_untrained(pair.checkpoint):
        yield from (replace(request, seeds=(seed,)) for seed in pair.seeds)
    else:
        yield request


def _request(pair: RunCall) -> RunRequest:
    return RunRequest(
        upstream=pair.upstream,
        downstream=pair.downstream,
        checkpoint=pair.checkpoint,
        corpus=pair.corpus,
        layer=pair.layer,
        label_fractions=pair.label_fractions,
        seeds=pair.seeds,
        head=pair.head,
        protocol=load_protocol(pair.preset, assignments=pair.assignments),
        device=pair.device,
        finetune=pair.mode == "finetune",
        tune=pair.tune,
        controls=pair.controls,
        conditions=pair.conditions,
        matched=pair.matched,
        out=Path(pair.out),
    )


def _is_labelled(context: RunContext, utterance: Utterance) -> bool:
    try:
        return context.task.labels(utterance) is not None
    except Unlabelled:
        return False


def _alike(record: Record, context: RunContext) -> bool:
    probe = context.request.protocol.probe.model_dump(mode="json")
    return record.head == context.head and record.mode == "frozen" and record.protocol.get("probe") == probe


def main() -> None:
    """Answer each job of stdin."""
    # Of its own: a model that prints, also from C, must not write between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        found = [asdict(each) for each in inventories_of(Job.of_json(line))]
        answers.write(json.dumps(found, allow_nan=False) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
