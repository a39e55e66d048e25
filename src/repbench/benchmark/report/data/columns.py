"""Columns of a report: the sets of records whose numbers can be compared.

The records of a column share the task (name, package and release) with its options and classes, the corpus (by
fingerprint) and its split, the head, and every setting that can change a number. Records that differ in one of them are
in different columns, and the heading names the difference.

Settings of fine-tuning cannot change the number of a frozen model, nor settings of a probe that of a fine-tuned one, so
they do not separate records of that mode. A column can hold both modes: probe settings and fine-tuning settings that
some record has together, or the only ones of each mode.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from repbench.audio.resample import RESAMPLER
from repbench.benchmark.protocol import HEAD_SETTINGS, NOT_OF_A_MODE, FinetuneSettings, Protocol, unread_settings
from repbench.benchmark.records.record import Record
from repbench.benchmark.report.render.commands import PROBE_SOURCE
from repbench.benchmark.report.render.escaping import shown
from repbench.configs.settings import flat
from repbench.files import canonical_json
from repbench.registry import BUILTIN_DISTRIBUTION, registry

WITHOUT_EFFECT = frozenset({"extraction.batch_seconds", "extraction.store_gib", "head", "layer", "tasks"})
"""Settings that cannot change a number (batch size and store size), and those that a record has as separate fields
(head and layer)."""

_OF_ONE_MODE = NOT_OF_A_MODE["frozen"] | NOT_OF_A_MODE["finetune"]

UNKNOWN = "unknown"
"""The value of facts that older records do not have."""

CLEAN = "clean"
"""The fact `condition` of records whose test sound is as it is in the corpus (`Record.condition_shown`)."""

Digest = str
"""SHA-256 of the facts that the records of a column share."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column: numbers that can be compared.

    Attributes:
        key: Its id in pages and files.
        task: Name of the downstream.
        corpus: Name of the corpus.
        metric: The primary metric.
        unit: Of the metric.
        higher_is_better: Direction of the metric.
        differs: Facts that distinguish it from other columns of its task and corpus, as "name = value".
        facts: From the name of each fact that its records share to its value.
        chance: Primary metric of guessing; None where it is undefined or differs between records.
        majority: Primary metric of predicting the most frequent class; None likewise.
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
        """Task and corpus fingerprint; columns that share them count once in aggregates over tasks."""
        return self.task, self.facts["corpus"]

    @property
    def shuffled(self) -> bool:
        """Whether the labels were shuffled, which makes it a control."""
        return self.facts["labels"] == "shuffled"

    @property
    def is_clean(self) -> bool:
        """Whether the test sound is as it is in the corpus."""
        return self.facts["condition"] == CLEAN

    @property
    def tuned(self) -> bool:
        """Whether the learning rate was chosen on dev."""
        return self.facts["probe.tune"] == str(True)

    @property
    def title(self) -> str:
        """Task, corpus and differences, on one line."""
        return " · ".join(shown(part) for part in (self.task, self.corpus, *self.differs))

    @property
    def direction(self) -> str:
        """An arrow in the direction of better numbers."""
        return "↑" if self.higher_is_better else "↓"

    @property
    def best_possible(self) -> float | None:
        """The score of a perfect system; None where the unit does not imply one."""
        if not self.unit.startswith("proportion"):
            return None if self.higher_is_better else 0.0
        return 1.0 if self.higher_is_better else 0.0

    @property
    def is_trivial(self) -> bool:
        """Whether always predicting the most frequent class is perfect: a test split of one class."""
        return self.majority is not None and self.majority == self.best_possible

    def signed(self, value: float) -> float:
        """The value, negated where lower is better, so that the largest is the best."""
        return value if self.higher_is_better else -value


def columns_of(records: Sequence[Record]) -> dict[str, Column]:
    """The column of each record, by the record's id; columns are numbered by task, corpus and difference."""
    by_id = {record.id: record for record in records}
    known = {record.id: _facts(record, by_id) for record in records}
    groups: dict[Digest, list[Record]] = defaultdict(list)
    facts: dict[Digest, dict[str, str]] = {}
    for several in _alike(records, known).values():
        for record_ids in _of_both_modes(several):
            together = {name: value for id_ in record_ids for name, value in known[id_].read.items()}
            digest = _digest([by_id[record_ids[0]].downstream.name, together])
            groups[digest] = [by_id[id_] for id_ in record_ids]
            facts[digest] = together
    of_record: dict[str, Column] = {}
    for number, (digest, differs) in enumerate(_distinguished(groups, facts), start=1):
        column = _column(f"c{number}", groups[digest], facts[digest], differs)
        of_record |= {record.id: column for record in groups[digest]}
    return of_record


@dataclass(frozen=True, slots=True)
class _Facts:
    """The facts that the number of a record depends on, from name to value.

    Attributes:
        common: Facts of both modes.
        frozen: Settings that only frozen runs read.
        finetune: Settings that only fine-tuning reads.
        mode: Mode of the record, which decides which of the two it reads.
    """

    common: dict[str, str]
    frozen: dict[str, str]
    finetune: dict[str, str]
    mode: str

    @property
    def read(self) -> dict[str, str]:
        """The facts of both modes and of the record's mode."""
        return self.common | (self.frozen if self.mode == "frozen" else self.finetune)


def _alike(records: Iterable[Record], known: Mapping[str, _Facts]) -> dict[Digest, dict[str, _Facts]]:
    """The facts of records, grouped by the facts of both modes."""
    alike: dict[Digest, dict[str, _Facts]] = defaultdict(dict)
    for record in records:
        alike[_digest([record.downstream.name, known[record.id].common])][record.id] = known[record.id]
    return alike


def _of_both_modes(alike: Mapping[str, _Facts]) -> list[list[str]]:
    """The ids of the records of each column: those with the same settings, paired with a set of the other mode.

    Probe settings and fine-tuning settings are paired where a record states both, preferably records of both modes, and
    where there is only one set of each.
    """
    frozen: dict[Digest, list[str]] = defaultdict(list)
    finetune: dict[Digest, list[str]] = defaultdict(list)
    stated: dict[tuple[Digest, Digest], list[str]] = defaultdict(list)
    for id_, facts in alike.items():
        pair = _digest(facts.frozen), _digest(facts.finetune)
        (frozen[pair[0]] if facts.mode == "frozen" else finetune[pair[1]]).append(id_)
        stated[pair].append(facts.mode)
    # With one set of each mode there is nothing to confuse, even if no record states both.
    if len(frozen) == len(finetune) == 1:
        stated = {(next(iter(frozen)), next(iter(finetune))): []}
    partner: dict[Digest, Digest] = {}
    # Pairs that records of both modes state come first, then those that more records state; the digests make the order
    # of equals the same every time.
    for one, other in sorted(stated, key=lambda pair: (-len(set(stated[pair])), -len(stated[pair]), pair)):
        if one in frozen and other in finetune and one not in partner and other not in partner.values():
            partner[one] = other
    alone = [ids for other, ids in finetune.items() if other not in partner.values()]
    return [*([*ids, *(finetune[partner[one]] if one in partner else [])] for one, ids in frozen.items()), *alone]


def has_effect(name: str, record: Record) -> bool:
    """Whether a setting, by dotted key, can change the record's number."""
    tuned = bool(record.protocol.get("probe", {}).get("tune"))
    return name not in WITHOUT_EFFECT | unread_settings(record.mode, record.head, tuned=tuned)


_UNCHANGED_SINCE = {"0.2": "0.1"}
"""From a release of repbench to the earlier one whose built-in tasks are the same: their numbers share columns."""


def _facts(record: Record, by_id: Mapping[str, Record]) -> _Facts:
    # Defaults first: a record made before a setting existed was made with what is now its default.
    settings = {**flat(Protocol().model_dump(mode="json")), **flat(record.protocol)}
    tuned = bool(settings.get("probe.tune"))
    unread = unread_settings(record.mode, record.head, tuned=tuned)
    without = WITHOUT_EFFECT | (unread - (_OF_ONE_MODE - set(HEAD_SETTINGS)))
    effective = {name: _value(value) for name, value in sorted(settings.items()) if name not in without}
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
        # A model at the rate of the corpus needs none: it shares the column of those that today's filter resamples.
        "resampler": corpus.resampled_by or RESAMPLER,
        "condition": record.condition_shown,
        **{name: value for name, value in effective.items() if name not in _OF_ONE_MODE},
    }
    frozen, finetune = (
        {name: value for name, value in effective.items() if name in NOT_OF_A_MODE[other]}
        for other in ("finetune", "frozen")
    )
    if not tuned:
        frozen.pop("probe.learning_rates", None)
    return _Facts(common, frozen, finetune, record.mode)


def _distribution(record: Record) -> str:
    """The package of the task; older records do not name it, but the names of built-in tasks are known."""
    if record.downstream.origin is not None:
        return record.downstream.origin.distribution
    builtin = {entry.name for entry in registry().entries("downstream") if entry.builtin}
    return BUILTIN_DISTRIBUTION if record.downstream.name in builtin else UNKNOWN


def _release(distribution: str, version: str) -> str:
    """The version of a task: of a plugin the whole, of a built-in task the release that last changed any of them."""
    if distribution != BUILTIN_DISTRIBUTION:
        return version or UNKNOWN
    release = ".".join(version.split(".")[:2])
    return _UNCHANGED_SINCE.get(release, release)


def _classes(classes: Sequence[str] | None) -> str:
    """Number of classes, and the first digits of the digest of their names in order."""
    return UNKNOWN if classes is None else f"{len(classes)} ({_digest(classes)[:8]})"


def _policy(record: Record, by_id: Mapping[str, Record]) -> str:
    """The split; a probe trained on another corpus is described by the column that it was trained in."""
    policy = record.corpus.split_policy
    found = PROBE_SOURCE.search(policy)
    source = by_id.get(found[1]) if found else None
    if found is None or source is None or source is record:
        return policy
    # Without other records (`{}`) the recursion ends here: a policy within a policy stays as it is.
    trained_on = f"{source.corpus.name} {_digest(_facts(source, {}).read)[:8]}"
    return f"{policy[: found.start(1)]}{source.downstream.name} on {trained_on}"


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _digest(value: Any) -> Digest:
    return hashlib.sha256(canonical_json(value)).hexdigest()


def _distinguished(
    groups: Mapping[Digest, Sequence[Record]], facts: Mapping[Digest, Mapping[str, str]]
) -> Iterable[tuple[Digest, tuple[str, ...]]]:
    """Each group with the facts that distinguish it from others of its task and corpus, in the order of columns.

    Groups with shuffled labels, and those of each condition, are compared among themselves, and each is named as such.
    """
    families: dict[tuple[bool, str, str, str, str], list[Digest]] = defaultdict(list)
    for digest, records in groups.items():
        labels, condition = facts[digest]["labels"], facts[digest]["condition"]
        name = records[0].downstream.name, records[0].corpus.name
        # those of clean sound first, so that conditions do not change their keys
        families[condition != CLEAN, *name, labels, condition].append(digest)
    for (is_disturbed, *_, labels, _), family in sorted(families.items()):
        names = dict.fromkeys(name for digest in family for name in facts[digest])
        varying = [name for name in names if len({facts[one][name] for one in family if name in facts[one]}) > 1]
        # Facts that only one mode has are left out at first, as a column of one mode lacks those of the other; they
        # count where the rest does not tell columns apart.
        if len({tuple(facts[one].get(name) for name in varying) for one in family}) < len(family):
            varying = [name for name in names if len({facts[one].get(name) for one in family}) > 1]
        varying += ["labels"] * (labels != "given") + ["condition"] * is_disturbed
        labelled = [(tuple(f"{name} = {_value_in(facts[one], name)}" for name in varying), one) for one in family]
        yield from ((digest, tuple(map(_with_default, label))) for label, digest in sorted(labelled))


def _value_in(facts: Mapping[str, str], name: str) -> str:
    """The value of a fact; of a setting of fine-tuning that records leave out at its default, the default."""
    group, _, setting = name.partition(".")
    if name not in facts and group == "finetune" and "finetune.steps" in facts:
        return _value(FinetuneSettings.model_fields[setting].default)
    return facts.get(name, "–")


def _with_default(difference: str) -> str:
    """An option that a record does not have was the task's default; any other fact was not there."""
    name, _, value = difference.partition(" = ")
    return f"{name} = default" if name.startswith("task.") and value == "–" else difference


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
    """The value that all have; None if they differ."""
    several = set(values)
    return several.pop() if len(several) == 1 else None
