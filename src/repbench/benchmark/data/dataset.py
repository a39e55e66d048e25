"""The labelled utterances of a run: those that train, those that select, and those that are scored.

Divisions and classes are functions of the corpus, the task and the seeds alone; utterances that the upstream
cannot take are left out last, with a warning.

Longer than others: every refusal of a division is here, in the order in which they are met.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from repbench.benchmark.data.splits import divide
from repbench.benchmark.protocol import SplitSettings
from repbench.corpora.contract import Corpus, Utterance
from repbench.corpora.faults import warnings_of
from repbench.downstream.contract import Downstream, LabelledUtterance, Problem, problem_of
from repbench.downstream.problems.contract import ENCODER_FILES
from repbench.errors import DataError, PluginError, Unlabelled, plugin_faults

_CHECK = "Correct the task; `repbench check downstream` names every promise that it breaks"

Excludes = Callable[[Utterance], str | None]
"""The reason why an upstream cannot take an utterance ("shorter than 401 samples"); None if it can."""

LabelledUtterances = tuple[LabelledUtterance, ...]


@dataclass(slots=True)
class HeldOutTest:
    """The test split, which can be opened once.

    Attributes:
        num_listed: Utterances of the test split that are in the task.
        excluded: From the id of one that cannot be scored to the reason.
        accesses: Number of calls of `open`.
    """

    num_listed: int
    excluded: dict[str, str]
    _examples: LabelledUtterances = field(repr=False)
    accesses: int = 0

    def listed(self) -> LabelledUtterances:
        """The labelled utterances for what needs no sound of theirs: a copy under a condition, one of their number."""
        return self._examples

    def open(self) -> LabelledUtterances:
        """The labelled utterances, after all selection.

        Raises:
            RuntimeError: It was opened before.
        """
        self.accesses += 1
        if self.accesses > 1:
            raise RuntimeError("the test split was opened twice")
        return self._examples

    @property
    def utterances(self) -> tuple[Utterance, ...]:
        """The utterances that are scored, for their number and speakers; no access, as no label is given."""
        return tuple(example.utterance for example in self._examples)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledFold:
    """One fold of a corpus.

    Attributes:
        name: As `data.folds.Fold` has it.
        train: The utterances that are trained on, with those that the upstream cannot take.
        dev: The utterances that select, with those that the upstream cannot take.
        test: Ids of the utterances that are scored; `LabelledSplits.test` has their labels.
        classes: The classes of the task that `train` has, sorted.
    """

    name: str
    train: LabelledUtterances
    dev: LabelledUtterances
    test: frozenset[str]
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledSplits:
    """A corpus divided for a task.

    With folds, train, dev and test are those of all folds together, each utterance once.

    Attributes:
        train: The utterances that are trained on, with those that the upstream cannot take.
        dev: The utterances that select, with those that the upstream cannot take.
        test: The utterances that are scored.
        unusable: From the id of a train or dev utterance that the upstream cannot take to the reason.
        classes: The task's classes, sorted.
        policy: The way of the division, in words.
        warnings: Facts that a reader of the score needs, in words.
        folds: Each with its own train, dev and test; none of a corpus that is divided once.
        files: From the name of each file that the targets were encoded with to its content; most tasks have none.
    """

    train: LabelledUtterances
    dev: LabelledUtterances
    test: HeldOutTest
    unusable: Mapping[str, str]
    classes: tuple[str, ...]
    policy: str
    warnings: tuple[str, ...]
    folds: tuple[LabelledFold, ...] = ()

    def every(self) -> LabelledUtterances:
        """Each utterance that can be used once, by id: one extraction serves all folds."""
        parts = self.usable(self.train), self.usable(self.dev), self.test.listed()
        by_id = {example.id: example for part in parts for example in part}
        return tuple(by_id[id_] for id_ in sorted(by_id))

    files: Mapping[str, bytes] = field(default_factory=dict)

    def usable(self, examples: LabelledUtterances) -> LabelledUtterances:
        """The examples that the upstream can take."""
        if not self.unusable:
            return examples
        return tuple(example for example in examples if example.id not in self.unusable)


def label_splits(corpus: Corpus, task: Downstream, settings: SplitSettings, *, excludes: Excludes) -> LabelledSplits:
    """The corpus divided, with labels.

    Args:
        corpus: The corpus.
        task: Gives labels, classes and the split policy.
        settings: Seed and shares of a seeded division.
        excludes: The reason why the upstream cannot take an utterance.

    Raises:
        DataError: A split is empty, one class is all there is, or the test holds a class that training cannot know.
        PluginError: The task gives classes or labels that its contract forbids.
    """
    division = divide(corpus, task.info.split, settings)
    problem, names = problem_of(task), {}
    train, unlabelled_train, names["train"] = labelled(division.train, task)
    dev, unlabelled_dev, names["dev"] = labelled(division.dev, task)
    test, excluded, names["test"] = labelled(division.test, task)
    num_out = len(division.test) - len(test) - len(excluded)
    if not train:
        raise DataError(
            f"No utterance of {corpus.name} can train `{task.info.name}`{_first_reason(unlabelled_train)}",
            do="Choose another task or corpus",
        )
    classes = classes_known(task, corpus, train)
    train, files = _encoded(task, train)
    if files is not None:
        names["train"] = classes_of(train, problem)
    # The upstream's exclusions come after division and classes, which are therefore the same for every upstream.
    unusable = reasons_of((*train, *dev), excludes)
    excluded |= reasons_of(test, excludes)
    splits = LabelledSplits(
        train=train,
        dev=dev,
        test=HeldOutTest(
            # `excluded` has utterances that were never labelled (not in `test`) and those that the upstream cannot take
            # (in `test`).
            len(test) + len(excluded.keys() - {example.id for example in test}),
            excluded,
            tuple(example for example in test if example.id not in excluded),
        ),
        unusable=unusable,
        classes=classes,
        policy=division.policy,
        warnings=(
            *division.warnings,
            *notes_on_test(num_out, len(division.test), task, names["test"]),
            *problem.warnings(classes, (example.labels for example in test)),
            *_lost("train", unlabelled_train | {each.id: unusable[each.id] for each in train if each.id in unusable}),
            *_lost("dev", unlabelled_dev | {each.id: unusable[each.id] for each in dev if each.id in unusable}),
        ),
        files=files or {},
    )
    _check_classes(corpus, task, splits, test, names)
    with plugin_faults(task.info.name):
        problem.refuse_splits(task, train, dev, test)
    trained = splits.usable(train)
    classes_trained = names["train"] if len(trained) == len(train) else classes_of(trained, problem)
    if len(classes_trained) < problem.min_classes:
        raise DataError(
            f"The train split of {corpus.name} holds only the class {', '.join(classes_trained)}",
            do="Choose a corpus with at least two classes",
        )
    return splits


def splits_for_probe(
    corpus: Corpus, task: Downstream, classes: Sequence[str], source: str, *, excludes: Excludes
) -> LabelledSplits:
    """Splits for scoring alone by the probe of a record: the official test split or, without one, every utterance.

    Raises:
        DataError: The corpus has nothing to score, or classes that the probe does not know.
    """
    return _test_alone(corpus, task, classes, f"scored by the probe of {source}", excludes=excludes)


def splits_without_training(corpus: Corpus, task: Downstream, *, excludes: Excludes) -> LabelledSplits:
    """Splits of a task that reads test alone: the official test split or, without one, every utterance.

    Raises:
        DataError: The corpus has nothing to score.
        PluginError: The task gives classes or labels that its contract forbids.
    """
    classes = classes_known(task, corpus, ())
    return _test_alone(corpus, task, classes, "as nothing is trained", excludes=excludes)


def _test_alone(
    corpus: Corpus, task: Downstream, classes: Sequence[str], reason: str, *, excludes: Excludes
) -> LabelledSplits:
    official = [each for each in corpus.utterances if each.split == "test"]
    listed = official or corpus.utterances
    examples, unlabelled, names = labelled(listed, task)
    if not examples:
        raise DataError(
            f"{corpus.name} holds no utterance that `{task.info.name}` can score{_first_reason(unlabelled)}",
            do="Choose another corpus",
        )
    unknown = sorted(names - set(classes))
    if unknown:
        raise DataError(
            f"{corpus.name} has classes that the probe does not know: {', '.join(unknown)}",
            do="Train a probe on this corpus",
        )
    excluded = unlabelled | reasons_of(examples, excludes)
    scored = tuple(example for example in examples if example.id not in excluded)
    return LabelledSplits(
        train=(),
        dev=(),
        test=HeldOutTest(len(examples) + len(unlabelled), excluded, scored),
        unusable={},
        classes=tuple(classes),
        policy=f"{'official test split' if official else 'every utterance'}, {reason}",
        warnings=(*warnings_of(corpus), *problem_of(task).warnings(classes, (each.labels for each in examples))),
    )


def _encoded(task: Downstream, train: LabelledUtterances) -> tuple[LabelledUtterances, Mapping[str, bytes] | None]:
    """The training utterances with their targets, and the files of their encoder; None where they need none.

    Dev and test are left as they are: an encoder follows from training labels alone, and predictions hold none of its
    targets.
    """
    with plugin_faults(task.info.name):
        encoder = problem_of(task).encoder(task, [example.labels for example in train])
    if encoder is None:
        return train, None
    with plugin_faults(task.info.name):
        encoded = tuple(replace(example, labels=encoder.encoded(example.labels)) for example in train)
        files = dict(encoder.files)
    for name in files:
        if re.match(ENCODER_FILES, name) is None:
            what = f"The files of an encoder are named NAME.model, NAME.txt or NAME.rttm, but one is `{name}`"
            raise PluginError(what, key=task.info.name, do="Use letters, digits, - and _")
    return encoded, files


def classes_known(task: Downstream, corpus: Corpus, train: LabelledUtterances) -> tuple[str, ...]:
    """The classes of the task, from the declared labels and those of train."""
    with plugin_faults(task.info.name):
        classes = tuple(task.classes(corpus.label_sets, (example.labels for example in train)))
    strange = [each for each in classes if not isinstance(each, str)]
    if strange:
        what = f"`classes` must give names, but gives {strange[0]!r}"
        raise PluginError(what, key=task.info.name, do=_CHECK)
    return classes


def labelled(utterances: Iterable[Utterance], task: Downstream) -> tuple[LabelledUtterances, dict[str, str], set[str]]:
    """The labelled utterances of the task, from the id of one without a label to the reason, and all classes met."""
    examples, unlabelled, classes, problem = [], {}, set[str](), problem_of(task)
    for utterance in utterances:
        try:
            given: object = task.labels(utterance)
            labels = tuple(given) if isinstance(given, list) else given
            fits = labels is None or problem.is_label(labels)
        except Unlabelled as reason:
            unlabelled[utterance.id] = reason.what
            continue
        except BaseException:
            with plugin_faults(task.info.name, utterance=utterance.id):
                raise
        if labels is None:
            continue
        if not fits:
            what = f"`labels` must give {problem.labels_are}"
            raise PluginError(what, key=task.info.name, utterance=utterance.id, do=_CHECK)
        example = _example(utterance, labels)
        if problem.min_classes == 0 or problem.is_scored(example):
            examples.append(example)
            classes.update(problem.names(labels))
        else:
            unlabelled[utterance.id] = "no instant of it is labelled"
    return tuple(examples), unlabelled, classes


class PhonesAsLabels(LabelledUtterance):
    """An utterance whose labels are its phones: they are read from it when they are asked for, and not kept.

    To call the class as `LabelledUtterance` is called gives one that keeps its labels.
    """

    __slots__ = ()

    def __new__(cls, utterance: Utterance, labels: Any) -> LabelledUtterance:  # type: ignore[misc]
        return LabelledUtterance(utterance, labels)

    @classmethod
    def of(cls, utterance: Utterance) -> PhonesAsLabels:
        """The utterance with its phones as labels."""
        made: PhonesAsLabels = object.__new__(cls)
        object.__setattr__(made, "utterance", utterance)
        return made

    def __getattr__(self, name: str) -> Any:
        """`labels` has no value of its own, and Python asks for it here."""
        if name != "labels":
            raise AttributeError(f"'LabelledUtterance' object has no attribute '{name}'", name=name, obj=self)
        return self.utterance.phones

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LabelledUtterance):
            return NotImplemented
        return (self.utterance, self.labels) == (other.utterance, other.labels)

    def __hash__(self) -> int:
        return hash((self.utterance, self.labels))

    def __repr__(self) -> str:
        return repr(LabelledUtterance(self.utterance, self.labels))

    def __reduce__(self) -> tuple[Any, ...]:
        return LabelledUtterance, (self.utterance, self.labels)


def _example(utterance: Utterance, labels: Any) -> LabelledUtterance:
    if isinstance(labels, tuple) and labels is utterance.phones:
        return PhonesAsLabels.of(utterance)
    return LabelledUtterance(utterance, labels)


def reasons_of(examples: Iterable[LabelledUtterance], excludes: Excludes) -> dict[str, str]:
    """From the id of each utterance that the upstream cannot take to the reason."""
    reasons = ((example.id, excludes(example.utterance)) for example in examples)
    return {id_: reason for id_, reason in reasons if reason is not None}


def notes_on_test(num_out: int, num_test: int, task: Downstream, found: set[str]) -> tuple[str, ...]:
    """Warnings about test utterances that the task leaves out, and about a single class."""
    warnings = []
    if num_out:
        warnings.append(f"{num_out} of {num_test} test utterances are left out by the rule of `{task.info.name}`")
    if len(found) == 1:
        warnings.append(f"the test split holds only the class {min(found)}: its score means little")
    return tuple(warnings)


def _lost(name: str, lost: Mapping[str, str]) -> tuple[str, ...]:
    if not lost:
        return ()
    example, reason = min(lost.items())
    return (f"{len(lost)} utterances of {name} cannot be used, such as {example}: {reason}",)


def _check_classes(
    corpus: Corpus, task: Downstream, splits: LabelledSplits, test: LabelledUtterances, names: Mapping[str, set[str]]
) -> None:
    for name, examples in (("train", splits.usable(splits.train)), ("dev", splits.usable(splits.dev)), ("test", test)):
        if not examples:
            raise DataError(
                f"The {name} split of {corpus.name} holds no utterance that `{task.info.name}` can use",
                do="Add utterances or labels to the corpus",
            )
    problem = problem_of(task)
    if len(splits.classes) < problem.min_classes:
        raise DataError(
            f"`{task.info.name}` on {corpus.name} has only the class {', '.join(splits.classes)}",
            do="Choose a corpus with at least two classes",
        )
    for name, found in names.items():
        unknown = sorted(found - set(splits.classes))
        if unknown and name == "train":
            what = (
                f"`classes` of the task `{task.info.name}` returned {_first(splits.classes)}, but its `labels` gave "
                f"{_first(unknown)} for the train split of {corpus.name}"
            )
            raise DataError(what, do="Correct one of them, or the labels of the corpus")
        if unknown:
            raise DataError(
                f"The {name} split of {corpus.name} has classes that training cannot know: {', '.join(unknown)}",
                do="Correct the corpus's labels or splits",
            )


def _first(names: Sequence[str], most: int = 6) -> str:
    """The first names, in brackets, and how many there are beyond them."""
    more = f", … {len(names)} in all" if len(names) > most else ""
    return f"({', '.join(names[:most])}{more})"


def classes_of(examples: Iterable[LabelledUtterance], problem: Problem) -> set[str]:
    """Every class in the labels."""
    found: set[str] = set()
    for example in examples:
        found.update(problem.names(example.labels))
    return found


def unit_counts(utterances: Sequence[Utterance], problem: Problem) -> tuple[str | None, tuple[int, ...]]:
    """The unit that intervals over some utterances leave out, and how many utterances each has, ascending.

    As `scoring.metrics.clusters_of` finds it in predictions: the first of the problem's with two or more known names.
    A mixture is of all its speakers, and units of the same utterances are one. Without such a unit: None, and the
    number of all utterances.
    """
    for unit in problem.resampled:
        members: dict[str | None, list[str]] = {}
        for utterance in utterances:
            for name in _names_of(utterance, unit, problem):
                members.setdefault(name, []).append(utterance.id)
        apart = {tuple(ids) for ids in members.values()} if problem.crosses_units else list(members.values())
        if None not in members and len(apart) >= 2:
            return unit, tuple(sorted(map(len, apart)))
    return None, (len(utterances),)


def _names_of(utterance: Utterance, unit: str, problem: Problem) -> Iterable[str | None]:
    """The speakers, or the group, of an utterance."""
    if unit == "speaker" and problem.crosses_units and utterance.turns:
        return sorted({turn.speaker for turn in utterance.turns})
    name: str | None = getattr(utterance, unit)
    return (name,)


def seconds_of(examples: Iterable[LabelledUtterance]) -> float:
    """Duration of the labelled sound."""
    return math.fsum(example.utterance.seconds for example in examples)


def _first_reason(lost: Mapping[str, str]) -> str:
    if not lost:
        return ""
    id_, reason = min(lost.items())
    return f" (such as {id_}: {reason})"
