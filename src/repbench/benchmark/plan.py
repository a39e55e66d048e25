"""Which utterances train, which select, which are scored.

Everything here is a function of the corpus, the task and the seeds alone: never of the upstream, of the order on disk
or of the features.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from repbench.benchmark.protocol import SplitSettings
from repbench.corpora.contract import Corpus, Utterance
from repbench.downstream.contract import Downstream, Labels, SplitPolicy
from repbench.errors import DataError, Unlabelled, UsageError


@dataclass(frozen=True, slots=True)
class Question:
    """An utterance and what is true of it."""

    utterance: Utterance
    labels: Labels

    @property
    def id(self) -> str:
        """The utterance's id."""
        return self.utterance.id


Questions = tuple[Question, ...]
Item = TypeVar("Item")


@dataclass(slots=True)
class SealedTest:
    """The test split, behind a seal that counts how often it was broken.

    Attributes:
        num_listed: Utterances of the test split of which something is asked.
        excluded: From utterance id to why it cannot be scored.
        accesses: How often the questions were handed out.
    """

    num_listed: int
    excluded: dict[str, str]
    _questions: Questions = field(repr=False)
    accesses: int = 0

    def open(self) -> Questions:
        """Hand the questions out. To be called once, when nothing is left to select."""
        self.accesses += 1
        if self.accesses > 1:
            raise RuntimeError("the test split was opened twice")
        return self._questions


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A corpus divided for a task.

    Attributes:
        train: Learns.
        dev: Selects.
        test: Scores, once.
        classes: What can be answered, sorted.
        policy: How the division was made, in words.
        warnings: What a reader of the score should know of it.
    """

    train: Questions
    dev: Questions
    test: SealedTest
    classes: tuple[str, ...]
    policy: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Division:
    train: list[Utterance]
    dev: list[Utterance]
    test: list[Utterance]
    policy: str
    warnings: tuple[str, ...] = ()


def make_plan(
    corpus: Corpus, task: Downstream, settings: SplitSettings, *, excludes: Callable[[Utterance], str | None]
) -> Plan:
    """Divide the corpus, attach the labels, seal the test.

    Args:
        corpus: What is there.
        task: What is asked.
        settings: Seed and shares of a division of our own.
        excludes: Why the upstream cannot take an utterance ("shorter than 401 samples"); None if it can.

    Raises:
        DataError: A split is empty, one class is all there is, or the test holds a class that training cannot know.
    """
    division = divide(corpus, task.info.split, settings)
    warnings = list(division.warnings) + shared_between(division, task.info.split)
    train, lost_train = _questions(division.train, task, excludes)
    dev, lost_dev = _questions(division.dev, task, excludes)
    for name, lost in (("train", lost_train), ("dev", lost_dev)):
        if lost:
            example, reason = next(iter(sorted(lost.items())))
            warnings.append(f"{len(lost)} utterances of {name} cannot be used, such as {example}: {reason}")
    if not train:
        raise DataError(
            f"No utterance of {corpus.name} can train `{task.info.name}`{_first_reason(lost_train)}",
            do="Choose another task or corpus",
        )
    classes = task.classes(corpus.label_sets, (question.labels for question in train))
    test_questions, excluded = _questions(division.test, task, excludes)
    test = SealedTest(len(test_questions) + len(excluded), excluded, test_questions)
    _check_classes(corpus, task, classes, train, dev, test_questions)
    return Plan(train=train, dev=dev, test=test, classes=classes, policy=division.policy, warnings=tuple(warnings))


def plan_for_probe(
    corpus: Corpus,
    task: Downstream,
    classes: Sequence[str],
    source: str,
    *,
    excludes: Callable[[Utterance], str | None],
) -> Plan:
    """A plan that only scores: the official test split or, without one, every utterance.

    Raises:
        DataError: The corpus has nothing to score, or classes that the probe does not know.
    """
    official = [each for each in corpus.utterances if each.split == "test"]
    questions, excluded = _questions(official or corpus.utterances, task, excludes)
    if not questions:
        raise DataError(
            f"{corpus.name} holds no utterance that `{task.info.name}` can score{_first_reason(excluded)}",
            do="Choose another corpus",
        )
    unknown = sorted(classes_of(questions) - set(classes))
    if unknown:
        raise DataError(
            f"{corpus.name} has classes that the probe does not know: {', '.join(unknown)}",
            do="Train a probe on this corpus",
        )
    policy = f"{'official test split' if official else 'every utterance'}, scored by the probe of {source}"
    test = SealedTest(len(questions) + len(excluded), excluded, questions)
    return Plan(train=(), dev=(), test=test, classes=tuple(classes), policy=policy, warnings=())


def _questions(
    utterances: Iterable[Utterance], task: Downstream, excludes: Callable[[Utterance], str | None]
) -> tuple[Questions, dict[str, str]]:
    """What is asked of the utterances, and why some that should be asked cannot."""
    questions, lost = [], {}
    for utterance in utterances:
        try:
            labels = task.labels(utterance)
        except Unlabelled as unlabelled:
            lost[utterance.id] = unlabelled.what
            continue
        if labels is None:
            continue
        reason = excludes(utterance)
        if reason is None:
            questions.append(Question(utterance, labels))
        else:
            lost[utterance.id] = reason
    return tuple(questions), lost


def _check_classes(
    corpus: Corpus, task: Downstream, classes: Sequence[str], train: Questions, dev: Questions, test: Questions
) -> None:
    for name, questions in (("dev", dev), ("test", test)):
        if not questions:
            raise DataError(
                f"The {name} split of {corpus.name} holds no utterance that `{task.info.name}` can score",
                do="Add utterances or labels to the corpus",
            )
    if len(classes) < 2:
        raise DataError(
            f"`{task.info.name}` on {corpus.name} has only the class {', '.join(classes)}",
            do="Choose a corpus with at least two classes",
        )
    for name, questions in (("train", train), ("dev", dev), ("test", test)):
        unknown = sorted(classes_of(questions) - set(classes))
        if unknown:
            raise DataError(
                f"The {name} split of {corpus.name} has classes that training cannot know: {', '.join(unknown)}",
                do="Correct the corpus's labels or splits",
            )
    if len(classes_of(train)) < 2:
        raise DataError(
            f"The train split of {corpus.name} holds only the class {', '.join(classes_of(train))}",
            do="Choose a corpus with at least two classes",
        )


def classes_of(questions: Iterable[Question]) -> set[str]:
    """Every class that occurs."""
    found: set[str] = set()
    for question in questions:
        if isinstance(question.labels, str):
            found.add(question.labels)
        else:
            found.update(phone.label for phone in question.labels)
    return found


def divide(corpus: Corpus, policy: SplitPolicy, settings: SplitSettings) -> _Division:
    """The official splits where they satisfy the policy, else a seeded division of all listed utterances.

    Raises:
        DataError: There are too few utterances to divide.
    """
    official = _official(corpus, policy)
    if official is not None:
        division = official
    elif policy == "speaker-disjoint":
        division = _speaker_disjoint(corpus, settings)
    else:
        division = _within_speaker(corpus, settings)
    if not division.dev:
        division = _cut_dev(division, settings)
    for name in ("train", "dev", "test"):
        if not getattr(division, name):
            raise DataError(
                f"{corpus.name} has too few utterances ({len(corpus.utterances)}) for a {name} split",
                do="Choose a larger corpus",
            )
    return division


def _official(corpus: Corpus, policy: SplitPolicy) -> _Division | None:
    parts = {name: [each for each in corpus.utterances if each.split == name] for name in ("train", "dev", "test")}
    if not parts["train"] or not parts["test"]:
        return None
    speakers = {name: {each.speaker for each in part} for name, part in parts.items()}
    heldout = speakers["dev"] | speakers["test"]
    if None in heldout | speakers["train"]:
        return None
    satisfied = heldout.isdisjoint(speakers["train"]) if policy == "speaker-disjoint" else heldout <= speakers["train"]
    if not satisfied:
        return None
    unassigned = len(corpus.utterances) - sum(len(part) for part in parts.values())
    warnings = (f"{unassigned} utterances belong to no official split and are not used",) if unassigned else ()
    return _Division(parts["train"], parts["dev"], parts["test"], "official splits", warnings)


def _speaker_disjoint(corpus: Corpus, settings: SplitSettings) -> _Division:
    """By speaker, or by group, or, with one speaker and no group, by utterance."""
    for unit in ("speaker", "group"):
        names = {getattr(each, unit) for each in corpus.utterances}
        if None not in names and len(names) >= 2:
            warnings = () if unit == "speaker" else (_BY_GROUP,)
            return _by_unit(corpus, unit, sorted(names), settings, warnings)
    parts = _deal(corpus.utterances, settings, "utterance")
    return _Division(
        *parts,
        f"seeded by utterance (seed {settings.seed})",
        (
            "divided by utterance, because the corpus has one speaker and no groups: the test speaker was heard in "
            "training",
        ),
    )


_BY_GROUP = (
    "divided by group, because the corpus has one speaker or does not say who speaks: the test speakers may have been "
    "heard in training"
)


def _by_unit(
    corpus: Corpus, unit: str, names: Sequence[str], settings: SplitSettings, warnings: tuple[str, ...]
) -> _Division:
    order = _shuffled(names, settings.seed, unit)
    num_test = _share(len(order), settings.test_share)
    num_dev = _share(len(order), settings.dev_share) if len(order) >= 3 else 0
    test, dev = set(order[:num_test]), set(order[num_test : num_test + num_dev])
    parts: tuple[list[Utterance], list[Utterance], list[Utterance]] = ([], [], [])
    for utterance in corpus.utterances:
        name = getattr(utterance, unit)
        parts[2 if name in test else 1 if name in dev else 0].append(utterance)
    return _Division(*parts, f"seeded by {unit} (seed {settings.seed})", warnings)


def _within_speaker(corpus: Corpus, settings: SplitSettings) -> _Division:
    """By session where each speaker has two or more, else by utterance; every speaker stands on both sides."""
    by_speaker = _grouped(corpus.utterances, lambda each: each.speaker or "")
    sessions = {name: _grouped(own, lambda each: each.group or "") for name, own in by_speaker.items()}
    grouped = all(len(own) >= 2 and "" not in own for own in sessions.values())
    train: list[Utterance] = []
    dev: list[Utterance] = []
    test: list[Utterance] = []
    for name, own in by_speaker.items():
        if grouped:
            parts = _deal_sessions(sessions[name], settings, name)
        else:
            parts = _deal(own, settings, name)
        for part, more in zip((train, dev, test), parts, strict=True):
            part.extend(more)
    unit = "session" if grouped else "utterance"
    warnings = (
        ()
        if grouped
        else ("divided by utterance, because not every speaker has two sessions: the score also hears the session",)
    )
    return _Division(train, dev, test, f"seeded by {unit} within each speaker (seed {settings.seed})", warnings)


def _deal(
    utterances: Sequence[Utterance], settings: SplitSettings, salt: str
) -> tuple[list[Utterance], list[Utterance], list[Utterance]]:
    """Deal utterances into train, dev and test; with fewer than three, train is served first, then test."""
    order = _shuffled([each.id for each in utterances], settings.seed, salt)
    by_id = {each.id: each for each in utterances}
    num_test = _share(len(order), settings.test_share) if len(order) >= 2 else 0
    num_dev = _share(len(order), settings.dev_share) if len(order) >= 3 else 0
    parts = (order[num_test + num_dev :], order[num_test : num_test + num_dev], order[:num_test])
    train, dev, test = ([by_id[id_] for id_ in sorted(part)] for part in parts)
    return train, dev, test


def _deal_sessions(
    sessions: Mapping[str, Sequence[Utterance]], settings: SplitSettings, salt: str
) -> tuple[list[Utterance], list[Utterance], list[Utterance]]:
    """Deal one speaker's sessions; with only two, dev is cut from the training session."""
    order = _shuffled(sorted(sessions), settings.seed, salt)
    num_test = _share(len(order), settings.test_share)
    test = [each for name in order[:num_test] for each in sessions[name]]
    if len(order) >= 3:
        num_dev = _share(len(order), settings.dev_share)
        dev = [each for name in order[num_test : num_test + num_dev] for each in sessions[name]]
        return [each for name in order[num_test + num_dev :] for each in sessions[name]], dev, test
    rest = [each for name in order[num_test:] for each in sessions[name]]
    train, dev = _cut(rest, settings, salt)
    return train, dev, test


def _cut_dev(division: _Division, settings: SplitSettings) -> _Division:
    """A missing dev is cut from train, evenly over the speakers."""
    train: list[Utterance] = []
    dev: list[Utterance] = []
    for name, own in _grouped(division.train, lambda each: each.speaker or "").items():
        kept, cut = _cut(own, settings, name)
        train.extend(kept)
        dev.extend(cut)
    return replace(division, train=train, dev=dev, policy=f"{division.policy}, dev cut from train by utterance")


def _cut(
    utterances: Sequence[Utterance], settings: SplitSettings, salt: str
) -> tuple[list[Utterance], list[Utterance]]:
    order = _shuffled([each.id for each in utterances], settings.seed, f"dev {salt}")
    chosen = set(order[: _share(len(order), settings.dev_share) if len(order) >= 2 else 0])
    return [each for each in utterances if each.id not in chosen], [each for each in utterances if each.id in chosen]


def shared_between(division: _Division, policy: SplitPolicy) -> list[str]:
    """What train and test have in common beyond what the task asks for, in words."""
    warnings = []
    for unit in ("speaker", "group") if policy == "speaker-disjoint" else ("group",):
        heard = {getattr(each, unit) for each in division.train} - {None}
        scored = {getattr(each, unit) for each in division.test} - {None}
        common = heard & scored
        if common:
            warnings.append(f"{len(common)} of {len(scored)} test {unit}s are also in train")
    return warnings


def subset(questions: Questions, fraction: float, *, seed: int, salt: str) -> Questions:
    """A nested, stratified subset: a smaller fraction is part of every larger one of the same seed.

    Within each stratum (class and speaker; speaker alone where classes vary within an utterance) the utterances are
    shuffled and spread evenly over (0, 1]; the subset is what lies first. At least one utterance is kept.

    Args:
        questions: The whole split.
        fraction: Share of the utterances to keep, in (0, 1].
        seed: Of the shuffle.
        salt: What else the shuffle depends on (corpus and task).
    """
    count = max(1, round(fraction * len(questions)))
    if count == len(questions):
        return questions
    strata = _grouped(questions, _stratum)
    place: dict[str, tuple[float, str]] = {}
    for name, members in strata.items():
        order = _shuffled([question.id for question in members], seed, f"{salt} {name}")
        offset = _uniform(f"{seed} {salt} {name} offset")
        for rank, id_ in enumerate(order):
            place[id_] = ((rank + offset) / len(order), _digest(f"{seed} {salt} {id_}"))
    kept = set(sorted(place, key=place.__getitem__)[:count])
    return tuple(question for question in questions if question.id in kept)


def check_every_class(task: Downstream, classes: Sequence[str], train: Questions, fraction: float) -> None:
    """Refuse a subset in which an utterance class has no utterance left.

    Raises:
        UsageError: A class is missing; the message gives the smallest fraction that could hold them all.
    """
    if task.info.problem != "utterance-classification":
        return
    missing = sorted(set(classes) - classes_of(train))
    if missing:
        raise UsageError(
            f"The fraction {fraction:g} leaves {len(train)} training utterances, none of the class"
            f"{'es' if len(missing) > 1 else ''} {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}",
            key="--label-fraction",
            do="Take a larger fraction",
        )


def seconds_of(questions: Iterable[Question]) -> float:
    """Duration of the labelled sound."""
    return math.fsum(question.utterance.seconds for question in questions)


def _first_reason(lost: Mapping[str, str]) -> str:
    if not lost:
        return ""
    id_, reason = min(lost.items())
    return f" (such as {id_}: {reason})"


def _stratum(question: Question) -> str:
    label = question.labels if isinstance(question.labels, str) else ""
    return f"{label}\0{question.utterance.speaker}"


def _grouped(items: Iterable[Item], key: Callable[[Item], str]) -> dict[str, list[Item]]:
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(sorted(groups.items()))


def _share(count: int, share: float) -> int:
    return max(1, round(share * count))


def _shuffled(names: Sequence[str], seed: int, salt: str) -> list[str]:
    """A shuffle that depends on the names alone, not on their order, the machine or the library's version."""
    return sorted(names, key=lambda name: _digest(f"{seed}\0{salt}\0{name}"))


def _uniform(text: str) -> float:
    return int(_digest(text)[:13], 16) / 16**13


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
