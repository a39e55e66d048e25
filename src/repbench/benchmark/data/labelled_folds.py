"""The labelled utterances of a run, divided once or in folds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from repbench.benchmark.data.dataset import (
    Excludes,
    HeldOutTest,
    LabelledFold,
    LabelledSplits,
    LabelledUtterances,
    classes_known,
    label_splits,
    labelled,
    notes_on_test,
    reasons_of,
    splits_without_training,
)
from repbench.benchmark.data.folds import Fold, folds_of, where
from repbench.benchmark.data.subsets import without_classes_of
from repbench.benchmark.protocol import SplitSettings
from repbench.corpora.contract import Corpus, Utterance
from repbench.downstream.contract import Downstream, LabelledUtterance, problem_of, splits_read
from repbench.errors import DataError, UsageError, plugin_faults


def label_corpus(corpus: Corpus, task: Downstream, settings: SplitSettings, *, excludes: Excludes) -> LabelledSplits:
    """The corpus divided as the settings and the task have it, with labels; arguments and errors as `label_splits`."""
    if splits_read(task) == ():
        return splits_without_training(corpus, task, excludes=excludes)
    divided = label_splits if settings.folds is None else label_folds
    return divided(corpus, task, settings, excludes=excludes)


def label_folds(corpus: Corpus, task: Downstream, settings: SplitSettings, *, excludes: Excludes) -> LabelledSplits:
    """The corpus in folds, with labels: each listed utterance of the task is test in one of them.

    The classes are those of the train splits of all folds. A class that one fold's train lacks is a warning.

    Args:
        corpus: The corpus.
        task: Gives labels, classes and the split policy.
        settings: Number or kind of the folds, and their unit and seed.
        excludes: The reason why the upstream cannot take an utterance.

    Raises:
        UsageError: The unit of the folds contradicts the task.
        DataError: A split of a fold is empty, or its train has one class.
        PluginError: The task gives classes or labels that its contract forbids.
    """
    divided = folds_of(corpus, task.info.split, settings)
    listed = sorted((each for fold in divided.folds for each in fold.division.test), key=lambda each: each.id)
    examples, unlabelled, found = labelled(listed, task)
    by_id = {example.id: example for example in examples}
    unusable = reasons_of(examples, excludes)
    scored = tuple(example for example in examples if example.id not in unusable)
    train = _of_all(by_id, (fold.division.train for fold in divided.folds))
    if not train:
        reason = "".join(f" (such as {id_}: {why})" for id_, why in sorted(unlabelled.items())[:1])
        raise DataError(
            f"No utterance of {corpus.name} can train `{task.info.name}`{reason}", do="Choose another task or corpus"
        )
    _refuse_encoder(task, train)
    classes = classes_known(task, corpus, train)
    unknown = sorted(found - set(classes))
    if unknown:
        raise DataError(
            f"{corpus.name} has classes that no fold's train knows: {', '.join(unknown)}",
            do="Correct the labels of the corpus, or take fewer folds",
        )
    folds = tuple(_labelled_fold(fold, by_id, unusable, classes, corpus, task) for fold in divided.folds)
    num_out = len(listed) - len(examples) - len(unlabelled)
    return LabelledSplits(
        train=train,
        dev=_of_all(by_id, (fold.division.dev for fold in divided.folds)),
        test=HeldOutTest(len(examples) + len(unlabelled), {**unlabelled, **unusable}, scored),
        unusable=unusable,
        classes=classes,
        policy=divided.policy,
        warnings=(
            *divided.warnings,
            *notes_on_test(num_out, len(listed), task, found),
            *_without_classes(folds, [each for each in classes if each in found]),
            *problem_of(task).warnings(classes, (example.labels for example in examples)),
        ),
        folds=folds,
    )


def _refuse_encoder(task: Downstream, train: Sequence[LabelledUtterance]) -> None:
    """Refuse targets that follow from the labels of train: each fold has another, and so would have other classes."""
    with plugin_faults(task.info.name):
        encoder = problem_of(task).encoder(task, [example.labels for example in train])
    if encoder is not None:
        raise UsageError(
            f"The targets of `{task.info.name}` follow from the text of train, of which each fold has another",
            key="split.folds",
            do="Leave it out",
        )


def _labelled_fold(
    fold: Fold,
    by_id: Mapping[str, LabelledUtterance],
    unusable: Mapping[str, str],
    classes: Sequence[str],
    corpus: Corpus,
    task: Downstream,
) -> LabelledFold:
    parts = {name: _of_all(by_id, [getattr(fold.division, name)]) for name in ("train", "dev", "test")}
    usable = {name: [each for each in part if each.id not in unusable] for name, part in parts.items()}
    for name, part in usable.items():
        if not part:
            raise DataError(
                f"The {name} split of fold {fold.name} of {corpus.name} holds no utterance that `{task.info.name}` can "
                "use",
                key="split.folds",
                do="Take fewer folds, or add utterances or labels to the corpus",
            )
    problem = problem_of(task)
    missing = set(without_classes_of(usable["train"], set(classes), problem))
    known = tuple(each for each in classes if each not in missing)
    if len(known) < problem.min_classes:
        raise DataError(
            f"The train split of fold {fold.name} of {corpus.name} holds only the class {', '.join(known)}",
            key="split.folds",
            do="Take other folds, or a corpus with at least two classes",
        )
    return LabelledFold(
        name=fold.name,
        train=parts["train"],
        dev=parts["dev"],
        test=frozenset(each.id for each in usable["test"]),
        classes=known,
    )


def _of_all(by_id: Mapping[str, LabelledUtterance], parts: Iterable[Iterable[Utterance]]) -> LabelledUtterances:
    """The labelled utterances of some parts, each once, by id."""
    ids = {utterance.id for part in parts for utterance in part}
    return tuple(by_id[id_] for id_ in sorted(ids & by_id.keys()))


def _without_classes(folds: Sequence[LabelledFold], classes: Sequence[str]) -> tuple[str, ...]:
    """A warning for each set of classes that the train of some folds lacks."""
    lacking: dict[tuple[str, ...], list[str]] = {}
    for fold in folds:
        if missing := tuple(each for each in classes if each not in set(fold.classes)):
            lacking.setdefault(missing, []).append(fold.name)
    return tuple(
        f"{where(names, len(folds))} train has no utterance of the class{'es' * (len(missing) > 1)} "
        f"{', '.join(missing[:5])}{' …' * (len(missing) > 5)}"
        for missing, names in lacking.items()
    )
