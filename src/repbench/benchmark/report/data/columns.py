"""Which numbers may share a column: those that answer one question.

A question is a task (by name, package and release) with its options and classes, a corpus (by fingerprint), a division
of it, a head, and every setting that can change a number. Whatever differs makes another column, and the column says
what.

Settings of fine-tuning cannot change a number of a frozen model, nor settings of a probe one of a fine-tuned model, so
they part no numbers of that mode. A column may hold both modes: the settings of a probe that stand beside those of a
fine-tuning in some record, or the only ones that there are of each.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from repbench.audio.resample import RESAMPLER
from repbench.benchmark.protocol import NOT_OF_A_MODE, Protocol, unread_settings
from repbench.benchmark.records.record import Record
from repbench.benchmark.report.render.commands import PROBE_SOURCE
from repbench.benchmark.report.render.escaping import shown
from repbench.configs.settings import flat
from repbench.files import canonical_json
from repbench.registry import BUILTIN_DISTRIBUTION, registry

WITHOUT_EFFECT = frozenset({"extraction.batch_seconds", "extraction.store_gib", "head", "layer", "tasks"})
"""Settings that cannot change a number (how much is computed at once, how much is kept), and those that a record has
settled: its head and layer stand in fields of their own."""

_OF_ONE_MODE = NOT_OF_A_MODE["frozen"] | NOT_OF_A_MODE["finetune"]

UNKNOWN = "unknown"
"""What older records do not say."""

Digest = str
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

    def signed(self, value: float) -> float:
        """The value, negated where lower is better, so that the largest is the best."""
        return value if self.higher_is_better else -value


def columns_of(records: Sequence[Record]) -> dict[str, Column]:
    """The column of each record, by the record's id; columns are made in the order of task, corpus, difference."""
    by_id = {record.id: record for record in records}
    known = {record.id: _facts(record, by_id) for record in records}
    questions: dict[Digest, list[Record]] = defaultdict(list)
    facts: dict[Digest, dict[str, str]] = {}
    for several in _alike(records, known).values():
        for record_ids in _of_both_modes(several):
            together = {name: value for id_ in record_ids for name, value in known[id_].read.items()}
            question = _digest([by_id[record_ids[0]].downstream.name, together])
            questions[question] = [by_id[id_] for id_ in record_ids]
            facts[question] = together
    of_record: dict[str, Column] = {}
    for number, (question, differs) in enumerate(_told_apart(questions, facts), start=1):
        column = _column(f"c{number}", questions[question], facts[question], differs)
        of_record |= {record.id: column for record in questions[question]}
    return of_record


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a record's number depends on, by name.

    Attributes:
        common: What both modes read.
        frozen: Settings that a frozen model alone reads, as the record says them.
        finetune: Settings that a fine-tuned one alone reads.
        mode: Of the record: which of the two it reads.
    """

    common: dict[str, str]
    frozen: dict[str, str]
    finetune: dict[str, str]
    mode: str

    @property
    def read(self) -> dict[str, str]:
        """All that its number depends on."""
        return self.common | (self.frozen if self.mode == "frozen" else self.finetune)


def _alike(records: Iterable[Record], known: Mapping[str, _Facts]) -> dict[Digest, dict[str, _Facts]]:
    """The facts of records that are alike in all that both modes read."""
    alike: dict[Digest, dict[str, _Facts]] = defaultdict(dict)
    for record in records:
        alike[_digest([record.downstream.name, known[record.id].common])][record.id] = known[record.id]
    return alike


def _of_both_modes(alike: Mapping[str, _Facts]) -> list[list[str]]:
    """The ids of the records of each column: those that read the same settings, and the other mode's beside them.

    Settings of a probe and settings of a fine-tuning go together where a record states both, best a record of each
    mode, and where there is one of each.
    """
    frozen: dict[Digest, list[str]] = defaultdict(list)
    finetune: dict[Digest, list[str]] = defaultdict(list)
    stated: dict[tuple[Digest, Digest], list[str]] = defaultdict(list)
    for id_, facts in alike.items():
        pair = _digest(facts.frozen), _digest(facts.finetune)
        (frozen[pair[0]] if facts.mode == "frozen" else finetune[pair[1]]).append(id_)
        stated[pair].append(facts.mode)
    if len(frozen) == len(finetune) == 1:
        stated = {(next(iter(frozen)), next(iter(finetune))): []}
    beside: dict[Digest, Digest] = {}
    for one, other in sorted(stated, key=lambda pair: (-len(set(stated[pair])), -len(stated[pair]), pair)):
        if one in frozen and other in finetune and one not in beside and other not in beside.values():
            beside[one] = other
    alone = [ids for other, ids in finetune.items() if other not in beside.values()]
    return [*([*ids, *(finetune[beside[one]] if one in beside else [])] for one, ids in frozen.items()), *alone]


def has_effect(name: str, record: Record) -> bool:
    """Whether a setting, by dotted key, can change the record's number."""
    tuned = bool(record.protocol.get("probe", {}).get("tune"))
    return name not in WITHOUT_EFFECT | unread_settings(record.mode, record.head, tuned=tuned)


def _facts(record: Record, by_id: Mapping[str, Record]) -> _Facts:
    settings = {**flat(Protocol().model_dump(mode="json")), **flat(record.protocol)}
    tuned = bool(settings.get("probe.tune"))
    without = WITHOUT_EFFECT | (unread_settings(record.mode, record.head, tuned=tuned) - _OF_ONE_MODE)
    told = {name: _value(value) for name, value in sorted(settings.items()) if name not in without}
    corpus = record.corpus
    distribution = _distribution(record)
    common = {
        "task origin": distribution,
        "task version": _release(distribution, record.downstream.version),
        "classes": _classes(record.downstream.classes),
        "corpus": corpus.fingerprint[:16],
        "split": _policy(record, by_id),
        "utterances": f"{corpus.n_train} train, {corpus.n_dev} dev, {corpus.n_test} test",
        "metric": record.primary_metric,
        "head": record.head if record.head_origin is None else f"{record.head} of {record.head_origin.identity}",
        # A model at the rate of the corpus needs none: it belongs beside those that are resampled as it is done today.
        "resampler": corpus.resampled_by or RESAMPLER,
        **{name: value for name, value in told.items() if name not in _OF_ONE_MODE},
    }
    frozen, finetune = (
        {name: value for name, value in told.items() if name in NOT_OF_A_MODE[other]}
        for other in ("finetune", "frozen")
    )
    if not tuned:
        frozen.pop("probe.learning_rates", None)
    return _Facts(common, frozen, finetune, record.mode)


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
    trained_on = f"{source.corpus.name} {_digest(_facts(source, {}).read)[:8]}"
    return f"{policy[: found.start(1)]}{source.downstream.name} on {trained_on}"


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _digest(value: Any) -> Digest:
    return hashlib.sha256(canonical_json(value)).hexdigest()


def _told_apart(
    questions: Mapping[Digest, Sequence[Record]], facts: Mapping[Digest, Mapping[str, str]]
) -> Iterable[tuple[Digest, tuple[str, ...]]]:
    """Each question with what parts it from others of its task and corpus, in the order of columns.

    Questions of shuffled labels are told apart among themselves, and each says that it is one.
    """
    families: dict[tuple[str, str, str], list[Digest]] = defaultdict(list)
    for question, records in questions.items():
        labels = facts[question]["labels"]
        families[records[0].downstream.name, records[0].corpus.name, labels].append(question)
    for (*_, labels), family in sorted(families.items()):
        names = dict.fromkeys(name for question in family for name in facts[question])
        varying = [name for name in names if len({facts[one][name] for one in family if name in facts[one]}) > 1]
        if len({tuple(facts[one].get(name) for name in varying) for one in family}) < len(family):
            varying = [name for name in names if len({facts[one].get(name) for one in family}) > 1]
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
