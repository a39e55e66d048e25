"""Which utterances train, which select, which are scored, and what is true of them.

Divisions, classes and subsets are functions of the corpus, the task and the seeds alone; what an upstream cannot take
is left out last, and said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeGuard, cast

import numpy as np

from repbench.benchmark.data.scoring_grid import UNLABELLED, instants_s, labels_at, num_instants
from repbench.benchmark.data.seeded_shuffle import digest, grouped, shuffled, uniform
from repbench.benchmark.data.splits import divide
from repbench.benchmark.protocol import SplitSettings
from repbench.corpora.contract import Corpus, Phone, Utterance
from repbench.corpora.faults import warnings_of
from repbench.downstream.contract import Downstream, Labels, label_names
from repbench.errors import DataError, PluginError, Unlabelled, UsageError, plugin_faults

_CHECK = "Correct the task; `repbench check downstream` names every promise that it breaks"

Excludes = Callable[[Utterance], str | None]
"""Why an upstream cannot take an utterance ("shorter than 401 samples"); None if it can."""


@dataclass(frozen=True, slots=True)
class LabelledUtterance:
    """An utterance and what is true of it."""

    utterance: Utterance
    labels: Labels

    @property
    def id(self) -> str:
        """The utterance's id."""
        return self.utterance.id

    def answers(self, index: Mapping[str, int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """The right class at each instant, `UNLABELLED` where none is known; one class for a whole utterance.

        Of a sequence, its classes in order.
        """
        if not self.is_timed:
            names = label_names(self.labels)
            return np.array([index.get(name, UNLABELLED) for name in names], dtype=np.int64)
        count = num_instants(self.utterance.num_samples, self.utterance.sample_rate_hz)
        return labels_at(instants_s(count), self.segments, index)

    @property
    def is_timed(self) -> bool:
        """Whether it is known when each label is true."""
        return not isinstance(self.labels, str) and not any(isinstance(each, str) for each in self.labels)

    @property
    def segments(self) -> tuple[Phone, ...]:
        """The labels of a frame task."""
        assert self.is_timed
        return cast(tuple[Phone, ...], self.labels)


LabelledUtterances = tuple[LabelledUtterance, ...]


@dataclass(slots=True)
class HeldOutTest:
    """The test split, behind a seal that counts how often it was broken.

    Attributes:
        num_listed: Utterances of the test split of which something is asked.
        excluded: From utterance id to why it cannot be scored.
        accesses: How often the questions were handed out.
    """

    num_listed: int
    excluded: dict[str, str]
    _questions: LabelledUtterances = field(repr=False)
    accesses: int = 0

    def open(self) -> LabelledUtterances:
        """Hand the questions out. To be called once, when nothing is left to select."""
        self.accesses += 1
        if self.accesses > 1:
            raise RuntimeError("the test split was opened twice")
        return self._questions


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledSplits:
    """A corpus divided for a task.

    Attributes:
        train: Learns; includes what the upstream cannot take.
        dev: Selects; includes what the upstream cannot take.
        test: Scores, once.
        unusable: From the id of a train or dev utterance to why the upstream cannot take it.
        classes: What can be answered, sorted.
        policy: How the division was made, in words.
        warnings: What a reader of the score should know of it.
    """

    train: LabelledUtterances
    dev: LabelledUtterances
    test: HeldOutTest
    unusable: Mapping[str, str]
    classes: tuple[str, ...]
    policy: str
    warnings: tuple[str, ...]

    def usable(self, examples: LabelledUtterances) -> LabelledUtterances:
        """Those that the upstream can take."""
        return tuple(example for example in examples if example.id not in self.unusable)


def label_splits(corpus: Corpus, task: Downstream, settings: SplitSettings, *, excludes: Excludes) -> LabelledSplits:
    """Divide the corpus, attach the labels, seal the test.

    Args:
        corpus: What is there.
        task: What is asked.
        settings: Seed and shares of a division of our own.
        excludes: Why the upstream cannot take an utterance.

    Raises:
        DataError: A split is empty, one class is all there is, or the test holds a class that training cannot know.
    """
    division = divide(corpus, task.info.split, settings)
    train, unlabelled_train = _questions(division.train, task)
    dev, unlabelled_dev = _questions(division.dev, task)
    test, excluded = _questions(division.test, task)
    unasked = len(division.test) - len(test) - len(excluded)
    if not train:
        raise DataError(
            f"No utterance of {corpus.name} can train `{task.info.name}`{_first_reason(unlabelled_train)}",
            do="Choose another task or corpus",
        )
    classes = _classes(task, corpus, train)
    unusable = _reasons((*train, *dev), excludes)
    excluded |= _reasons(test, excludes)
    splits = LabelledSplits(
        train=train,
        dev=dev,
        test=HeldOutTest(
            len(test) + len(excluded.keys() - {example.id for example in test}),
            excluded,
            tuple(example for example in test if example.id not in excluded),
        ),
        unusable=unusable,
        classes=classes,
        policy=division.policy,
        warnings=(
            *division.warnings,
            *_of_test(unasked, len(division.test), task, classes_of(test)),
            *_lost("train", unlabelled_train | {each.id: unusable[each.id] for each in train if each.id in unusable}),
            *_lost("dev", unlabelled_dev | {each.id: unusable[each.id] for each in dev if each.id in unusable}),
        ),
    )
    _check_classes(corpus, task, splits, test)
    return splits


def splits_for_probe(
    corpus: Corpus, task: Downstream, classes: Sequence[str], source: str, *, excludes: Excludes
) -> LabelledSplits:
    """A plan that only scores: the official test split or, without one, every utterance.

    Raises:
        DataError: The corpus has nothing to score, or classes that the probe does not know.
    """
    official = [each for each in corpus.utterances if each.split == "test"]
    examples, excluded = _questions(official or corpus.utterances, task)
    if not examples:
        raise DataError(
            f"{corpus.name} holds no utterance that `{task.info.name}` can score{_first_reason(excluded)}",
            do="Choose another corpus",
        )
    unknown = sorted(classes_of(examples) - set(classes))
    if unknown:
        raise DataError(
            f"{corpus.name} has classes that the probe does not know: {', '.join(unknown)}",
            do="Train a probe on this corpus",
        )
    listed = len(examples) + len(excluded)
    excluded |= _reasons(examples, excludes)
    scored = tuple(example for example in examples if example.id not in excluded)
    policy = f"{'official test split' if official else 'every utterance'}, scored by the probe of {source}"
    return LabelledSplits(
        train=(),
        dev=(),
        test=HeldOutTest(listed, excluded, scored),
        unusable={},
        classes=tuple(classes),
        policy=policy,
        warnings=warnings_of(corpus),
    )


def _classes(task: Downstream, corpus: Corpus, train: LabelledUtterances) -> tuple[str, ...]:
    with plugin_faults(task.info.name):
        classes = tuple(task.classes(corpus.label_sets, (example.labels for example in train)))
    strange = [each for each in classes if not isinstance(each, str)]
    if strange:
        what = f"`classes` must give names, but gives {strange[0]!r}"
        raise PluginError(what, key=task.info.name, do=_CHECK)
    return classes


def _questions(utterances: Iterable[Utterance], task: Downstream) -> tuple[LabelledUtterances, dict[str, str]]:
    """What is asked of the utterances, and why some that should be asked cannot."""
    examples, unlabelled = [], {}
    for utterance in utterances:
        try:
            with plugin_faults(task.info.name, utterance=utterance.id):
                said: object = task.labels(utterance)
        except Unlabelled as reason:
            unlabelled[utterance.id] = reason.what
            continue
        if said is None:
            continue
        labels = tuple(said) if isinstance(said, list) else said
        if not _are_labels(labels):
            what = "`labels` must give a name, names, or timed segments of Phone"
            raise PluginError(what, key=task.info.name, utterance=utterance.id, do=_CHECK)
        example = LabelledUtterance(utterance, labels)
        if _has_an_answer(example):
            examples.append(example)
        else:
            unlabelled[utterance.id] = "no instant of it is labelled"
    return tuple(examples), unlabelled


def _are_labels(labels: object) -> TypeGuard[Labels]:
    if isinstance(labels, str):
        return True
    return isinstance(labels, tuple) and any(all(isinstance(each, kind) for each in labels) for kind in (str, Phone))


def _has_an_answer(example: LabelledUtterance) -> bool:
    if isinstance(example.labels, str):
        return True
    index = dict.fromkeys(label_names(example.labels), 0)
    return bool((example.answers(index) != UNLABELLED).any())


def _reasons(examples: Iterable[LabelledUtterance], excludes: Excludes) -> dict[str, str]:
    reasons = ((example.id, excludes(example.utterance)) for example in examples)
    return {id_: reason for id_, reason in reasons if reason is not None}


def _of_test(unasked: int, num_test: int, task: Downstream, found: set[str]) -> tuple[str, ...]:
    warnings = []
    if unasked:
        warnings.append(f"{unasked} of {num_test} test utterances are not asked, by the rule of `{task.info.name}`")
    if len(found) == 1:
        warnings.append(f"the test split holds only the class {min(found)}: its score says little")
    return tuple(warnings)


def _lost(name: str, lost: Mapping[str, str]) -> tuple[str, ...]:
    if not lost:
        return ()
    example, reason = min(lost.items())
    return (f"{len(lost)} utterances of {name} cannot be used, such as {example}: {reason}",)


def _check_classes(corpus: Corpus, task: Downstream, splits: LabelledSplits, test: LabelledUtterances) -> None:
    for name, examples in (("train", splits.usable(splits.train)), ("dev", splits.usable(splits.dev)), ("test", test)):
        if not examples:
            raise DataError(
                f"The {name} split of {corpus.name} holds no utterance that `{task.info.name}` can use",
                do="Add utterances or labels to the corpus",
            )
    if len(splits.classes) < 2:
        raise DataError(
            f"`{task.info.name}` on {corpus.name} has only the class {', '.join(splits.classes)}",
            do="Choose a corpus with at least two classes",
        )
    for name, examples in (("train", splits.train), ("dev", splits.dev), ("test", test)):
        unknown = sorted(classes_of(examples) - set(splits.classes))
        if unknown:
            raise DataError(
                f"The {name} split of {corpus.name} has classes that training cannot know: {', '.join(unknown)}",
                do="Correct the corpus's labels or splits",
            )
    trained = classes_of(splits.usable(splits.train))
    if len(trained) < 2:
        raise DataError(
            f"The train split of {corpus.name} holds only the class {', '.join(trained)}",
            do="Choose a corpus with at least two classes",
        )


def classes_of(examples: Iterable[LabelledUtterance]) -> set[str]:
    """Every class that occurs."""
    found: set[str] = set()
    for example in examples:
        found.update(label_names(example.labels))
    return found


def subset(examples: LabelledUtterances, fraction: float, *, seed: int, salt: str) -> LabelledUtterances:
    """A nested, stratified subset: a smaller fraction is part of every larger one of the same seed.

    Within each stratum (class and speaker; speaker alone where classes vary within an utterance) the utterances are
    shuffled and spread evenly over (0, 1]; the subset is what lies first. At least one utterance is kept.

    Args:
        questions: The whole split.
        fraction: Share of the utterances to keep, in (0, 1].
        seed: Of the shuffle.
        salt: What else the shuffle depends on (corpus and task).
    """
    count = max(1, round(fraction * len(examples)))
    if count == len(examples):
        return examples
    place: dict[str, tuple[float, str]] = {}
    for name, members in grouped(examples, _stratum).items():
        order = shuffled([example.id for example in members], seed, f"{salt} {name}")
        offset = uniform(f"{seed} {salt} {name} offset")
        for rank, id_ in enumerate(order):
            place[id_] = ((rank + offset) / len(order), digest(f"{seed} {salt} {id_}"))
    kept = set(sorted(place, key=place.__getitem__)[:count])
    return tuple(example for example in examples if example.id in kept)


def missing_classes(
    task: Downstream, classes: Sequence[str], train: LabelledUtterances, fraction: float
) -> tuple[str, ...]:
    """What a subset says of the classes that it lost.

    Returns:
        A warning for a frame task or a sequence; nothing where no class is lost.

    Raises:
        UsageError: An utterance task lost a class.
        DataError: Nothing is left to train on.
    """
    if not train:
        raise DataError(
            f"The fraction {fraction:g} leaves no training utterance that the upstream can take",
            key="--label-fraction",
            do="Take a larger fraction",
        )
    missing = sorted(set(classes) - classes_of(train))
    if not missing or (fraction == 1.0 and task.info.problem != "utterance-classification"):
        return ()
    named = f"{', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}"
    what = (
        f"The fraction {fraction:g} leaves {len(train)} training utterances, none of the "
        f"class{'es' if len(missing) > 1 else ''} {named}"
    )
    if task.info.problem == "utterance-classification":
        raise UsageError(what, key="--label-fraction", do="Take a larger fraction")
    return (what,)


def seconds_of(examples: Iterable[LabelledUtterance]) -> float:
    """Duration of the labelled sound."""
    return math.fsum(example.utterance.seconds for example in examples)


def _first_reason(lost: Mapping[str, str]) -> str:
    if not lost:
        return ""
    id_, reason = min(lost.items())
    return f" (such as {id_}: {reason})"


def _stratum(example: LabelledUtterance) -> str:
    label = example.labels if isinstance(example.labels, str) else ""
    return f"{label}\0{example.utterance.speaker}"
