"""A look at a job before it starts: which records are there, and how much sound has still to be heard.

It loads upstreams, which may break, so it runs in a process of its own: `python -m
repbench.benchmark.sweep.inventory` reads a job from stdin and prints what it saw. What it says is a forecast; `repbench
run --missing-only` decides itself.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from repbench.benchmark.pipeline.existing_records import answers_in, identity_to_be
from repbench.benchmark.pipeline.setup import RunContext, RunRequest, open_corpus_of, prepare
from repbench.benchmark.pipeline.write_record import pair_folder
from repbench.benchmark.protocol import load_protocol
from repbench.benchmark.records.record import Record
from repbench.benchmark.run import settings_of
from repbench.benchmark.sweep.jobs import Job, RunCall
from repbench.corpora.contract import Corpus, Utterance
from repbench.errors import RepbenchError, Unlabelled
from repbench.progress import Silence
from repbench.registry import registry

_SIDE = 768
"""Of the square matrices by whose product the machine is measured: the width of a BASE network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What there is of a pair.

    Attributes:
        asked: Records that it is to have; None where the upstream could not be loaded.
        records: Paths of those that are there.
        train_seconds: What training the probe took in each record of the same task that is there.
        error: Why nothing can be said; "" if something can.
        hung: Whether that is because the look took too long.
    """

    asked: int | None = None
    records: tuple[str, ...] = ()
    train_seconds: tuple[float, ...] = ()
    error: str = ""
    hung: bool = False

    @property
    def complete(self) -> bool:
        """Whether every record is there."""
        return self.asked is not None and len(self.records) >= self.asked


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What there is of a job.

    Attributes:
        pairs: In the order of the job.
        extract_seconds: Sound that has to go through the upstream, in seconds; each pass counts.
        extract_macs: Multiply-accumulates of that, Fourier transforms not counted.
        macs_per_second: What this machine does; 0 where nothing has to be extracted.
        start_seconds: What starting and loading took: every pair will take that again.
    """

    pairs: tuple[Seen, ...]
    extract_seconds: float = 0.0
    extract_macs: float = 0.0
    macs_per_second: float = 0.0
    start_seconds: float = 0.0

    @classmethod
    def of_json(cls, text: str) -> View:
        """What a look printed."""
        fields = json.loads(text)
        pairs = tuple(Seen(**{key: _frozen(value) for key, value in each.items()}) for each in fields["pairs"])
        return cls(**{**fields, "pairs": pairs})


@dataclass(slots=True)
class _Hours:
    """The sound that is missing, so that no pair counts what another one stores."""

    counted: set[tuple[str, str, int]] = field(default_factory=set)
    seconds: float = 0.0
    macs: float = 0.0

    def add(self, stage: RunContext, utterances: list[Utterance]) -> None:
        kept = stage.store is not None
        lacking = utterances if stage.store is None else stage.store.lacking(utterances, stage.layers)
        for utterance in lacking:
            place = (stage.fingerprint, utterance.samples_sha256, utterance.sample_rate_hz)
            if kept and place in self.counted:
                continue
            self.counted.add(place)
            self.seconds += utterance.seconds
            self.macs += utterance.seconds * stage.cost.macs_per_second


def look(job: Job) -> View:
    """What there is of a job."""
    imported, started = time.process_time(), time.monotonic()
    hours = _Hours()
    opened = functools.cache(lambda: open_corpus_of(_request(job.pairs[0]), Silence()))
    seen = tuple(_see(pair, opened, hours) for pair in job.pairs)
    start_seconds = imported + (time.monotonic() - started) / len(job.pairs)
    speed = _macs_per_second() if hours.macs else 0.0
    return View(
        pairs=seen,
        extract_seconds=hours.seconds,
        extract_macs=hours.macs,
        macs_per_second=speed,
        start_seconds=start_seconds,
    )


def _see(pair: RunCall, opened: Callable[[], Corpus], hours: _Hours) -> Seen:
    try:
        return _seen(pair, opened, hours)
    except RepbenchError as error:
        return Seen(error=error.line())
    except (Exception, SystemExit) as error:  # whatever it is, the run will meet it again and say more
        return Seen(error=f"{type(error).__name__}: {error}")


def _seen(pair: RunCall, opened: Callable[[], Corpus], hours: _Hours) -> Seen:
    for file in pair.plugins:
        registry().add_file(Path(file))
    asked, paths, train_seconds = 0, [], []
    for request in _requests(pair):
        stage = prepare(request, Silence(), opened)
        settings, corpus = settings_of(stage.request, stage.upstream), opened()
        folder = pair_folder(request.out, corpus.name, request.downstream, request.upstream)
        answers = answers_in(folder, _unsaid)
        wanted = [identity_to_be(stage, corpus, each) for each in settings]
        there = [answers[each] for each in wanted if each in answers]
        asked += len(wanted)
        paths += [str(each.path) for each in there]
        train_seconds += [each.record.cost.train_seconds for each in answers.values() if _alike(each.record, stage)]
        if len(there) < len(wanted) and pair.mode == "frozen":
            hours.add(stage, _asked_of(stage, corpus))
    return Seen(asked=asked, records=tuple(paths), train_seconds=tuple(train_seconds))


def _requests(pair: RunCall) -> Iterator[RunRequest]:
    """The request of a pair; of an untrained upstream one for each seed, because each seed is another network."""
    request = _request(pair)
    if pair.checkpoint is not None and pair.checkpoint.partition(":")[0] == "random":
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
        out=Path(pair.out),
    )


def _asked_of(stage: RunContext, corpus: Corpus) -> list[Utterance]:
    return [utterance for utterance in corpus.utterances if _is_asked(stage, utterance)]


def _is_asked(stage: RunContext, utterance: Utterance) -> bool:
    try:
        return stage.task.labels(utterance) is not None
    except Unlabelled:
        return False


def _alike(record: Record, stage: RunContext) -> bool:
    probe = stage.request.protocol.probe.model_dump(mode="json")
    return record.head == stage.head and record.mode == "frozen" and record.protocol.get("probe") == probe


def _macs_per_second() -> float:
    """Of a product of matrices, here and now, with as many threads as a run would take."""
    matrix = torch.ones(_SIDE, _SIDE)
    matrix @ matrix  # the first one warms up
    started, products = time.monotonic(), 0
    while time.monotonic() - started < 0.2:
        matrix @ matrix
        products += 1
    return products * _SIDE**3 / (time.monotonic() - started)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _unsaid(line: str) -> None:
    """The run itself will say it."""


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(look(Job.of_json(sys.stdin.read()))), allow_nan=False) + "\n")
