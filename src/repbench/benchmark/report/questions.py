"""Which numbers may share a column: those that answer one question.

A question is a task (by name, package and release) with its options and classes, a corpus (by fingerprint), a division
of it, a head, and every setting that can change a number. Whatever differs makes another column, and the column says
what.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from repbench.audio.resample import RESAMPLER
from repbench.benchmark.protocol import Protocol
from repbench.benchmark.record import Record
from repbench.benchmark.report.commands import PROBE_SOURCE, flat
from repbench.benchmark.report.naming import shown
from repbench.files import canonical_json
from repbench.registry import BUILTIN_DISTRIBUTION, registry

WITHOUT_EFFECT = frozenset({"extraction.batch_seconds", "extraction.store_gib", "head", "layer", "tasks"})
"""Settings that cannot change a number (how much is computed at once, how much is kept), and those that a record has
settled: its head and layer stand in fields of their own."""

UNKNOWN = "unknown"
"""What older records do not say."""

Question = str
"""A digest of all that the numbers of a column have in common."""


@dataclass(frozen=True, slots=True)
class Column:
    """One question, asked of every system alike.

    Attributes:
        key: Names it in pages and files.
        task: Name of the downstream.
        corpus: Name of the corpus.
        metric: The primary metric.
        unit: Of the metric.
        higher_is_better: Which way is up.
        differs: What parts it from the other columns of its task and corpus, "name = value".
        facts: All that its numbers have in common, by name.
        chance: Primary metric of guessing; None where undefined or not one number.
        majority: Of always answering the most frequent class.
    """

    key: str
    task: str
    corpus: str
    metric: str
    unit: str
    higher_is_better: bool
    differs: tuple[str, ...]
    facts: Mapping[str, str]
    chance: float | None
    majority: float | None

    @property
    def subject(self) -> tuple[str, str]:
        """Task and corpus, by fingerprint: what counts once where many tasks are taken together."""
        return self.task, self.facts["corpus"]

    @property
    def shuffled(self) -> bool:
        """Whether the labels were dealt anew: a control, and no score."""
        return self.facts["labels"] == "shuffled"

    @property
    def tuned(self) -> bool:
        """Whether the step size was chosen on dev."""
        return self.facts["probe.tune"] == str(True)

    @property
    def title(self) -> str:
        """Task, corpus and what differs, on one line."""
        return " · ".join(shown(part) for part in (self.task, self.corpus, *self.differs))

    @property
    def direction(self) -> str:
        """An arrow that points to where numbers are better."""
        return "↑" if self.higher_is_better else "↓"

    @property
    def best_possible(self) -> float | None:
        """What a perfect system scores, where the unit says so."""
        if not self.unit.startswith("proportion"):
            return None if self.higher_is_better else 0.0
        return 1.0 if self.higher_is_better else 0.0

    def better(self, a: float, b: float) -> bool:
        """Whether `a` is better than `b`."""
        return a > b if self.higher_is_better else a < b


def columns_of(records: Sequence[Record]) -> dict[str, Column]:
    """The column of each record, by the record's id; columns are made in the order of task, corpus, difference."""
    by_id = {record.id: record for record in records}
    questions: dict[Question, list[Record]] = defaultdict(list)
    facts: dict[Question, dict[str, str]] = {}
    for record in records:
        known = _facts(record, by_id)
        question = _digest([record.downstream.name, known])
        questions[question].append(record)
        facts[question] = known
    of_record: dict[str, Column] = {}
    for number, (question, differs) in enumerate(_told_apart(questions, facts), start=1):
        column = _column(f"c{number}", questions[question], facts[question], differs)
        of_record |= {record.id: column for record in questions[question]}
    return of_record


def _facts(record: Record, by_id: Mapping[str, Record]) -> dict[str, str]:
    settings = {**flat(Protocol().model_dump(mode="json")), **flat(record.protocol)}
    without = WITHOUT_EFFECT | ({"probe.hidden_units"} if record.head == "linear" else set())
    corpus = record.corpus
    distribution = _distribution(record)
    return {
        "task origin": distribution,
        "task version": _release(distribution, record.downstream.version),
        "classes": _classes(record.downstream.classes),
        "corpus": corpus.fingerprint[:16],
        "split": _policy(record, by_id),
        "utterances": f"{corpus.n_train} train, {corpus.n_dev} dev, {corpus.n_test} test",
        "metric": record.primary_metric,
        "head": record.head,
        # A model at the rate of the corpus needs none: it belongs beside those that are resampled as it is done today.
        "resampler": corpus.resampled_by or RESAMPLER,
        **{name: _value(value) for name, value in sorted(settings.items()) if name not in without},
    }


def _distribution(record: Record) -> str:
    """The package that brought the task; what older records leave unsaid is known of built-ins by their names."""
    if record.downstream.origin is not None:
        return record.downstream.origin.distribution
    builtin = {entry.name for entry in registry().entries("downstream") if entry.builtin}
    return BUILTIN_DISTRIBUTION if record.downstream.name in builtin else UNKNOWN


def _release(distribution: str, version: str) -> str:
    """The version that may change what a task asks: of another's package any, of repbench no patch release."""
    return ".".join(version.split(".")[:2]) if distribution == BUILTIN_DISTRIBUTION else version or UNKNOWN


def _classes(classes: Sequence[str] | None) -> str:
    """How many there are, and the beginning of a digest of them in their order."""
    return UNKNOWN if classes is None else f"{len(classes)} ({_digest(classes)[:8]})"


def _policy(record: Record, by_id: Mapping[str, Record]) -> str:
    """How the corpus was divided; a probe that was trained elsewhere is known by the question it was trained on."""
    policy = record.corpus.split_policy
    found = PROBE_SOURCE.search(policy)
    source = by_id.get(found[1]) if found else None
    if found is None or source is None or source is record:
        return policy
    trained_on = f"{source.corpus.name} {_digest(_facts(source, {}))[:8]}"
    return f"{policy[: found.start(1)]}{source.downstream.name} on {trained_on}"


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _digest(value: Any) -> Question:
    return hashlib.sha256(canonical_json(value)).hexdigest()


def _told_apart(
    questions: Mapping[Question, Sequence[Record]], facts: Mapping[Question, Mapping[str, str]]
) -> Iterable[tuple[Question, tuple[str, ...]]]:
    """Each question with what parts it from others of its task and corpus, in the order of columns.

    Questions of shuffled labels are told apart among themselves, and each says that it is one.
    """
    families: dict[tuple[str, str, str], list[Question]] = defaultdict(list)
    for question, records in questions.items():
        labels = facts[question]["labels"]
        families[records[0].downstream.name, records[0].corpus.name, labels].append(question)
    for (*_, labels), family in sorted(families.items()):
        names = dict.fromkeys(name for question in family for name in facts[question])
        varying = [name for name in names if len({facts[question].get(name) for question in family}) > 1]
        varying += ["labels"] * (labels != "given")
        labelled = [(tuple(f"{name} = {facts[one].get(name, '–')}" for name in varying), one) for one in family]
        yield from ((question, label) for label, question in sorted(labelled))


def _column(key: str, records: Sequence[Record], facts: Mapping[str, str], differs: tuple[str, ...]) -> Column:
    first = records[0]
    return Column(
        key=key,
        task=first.downstream.name,
        corpus=first.corpus.name,
        metric=first.primary_metric,
        unit=first.primary.unit,
        higher_is_better=first.primary.higher_is_better,
        differs=differs,
        facts=facts,
        chance=_common(record.baselines.chance for record in records),
        majority=_common(record.baselines.majority for record in records),
    )


def _common(values: Iterable[float | None]) -> float | None:
    """The one value that all have; None if they differ."""
    several = set(values)
    return several.pop() if len(several) == 1 else None
