"""The task `intent`: several attributes of an utterance at once, of speakers that are not in training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from repbench.corpora.contract import Utterance
from repbench.downstream.attribute import Classes
from repbench.downstream.attribute_values import attribute_of, class_rule
from repbench.downstream.contract import (
    DownstreamInfo,
    LabelSets,
    MeasuredByTallies,
    Measurement,
    MetricInfo,
    Prediction,
)
from repbench.downstream.problems.attributes import SEPARATOR, AttributesPrediction, class_blocks
from repbench.downstream.problems.scoring_grid import Integers
from repbench.errors import DataError, UsageError, did_you_mean

ATTRIBUTES = ("action", "object", "location")
"""The slots of Fluent Speech Commands."""

ACCURACY = MetricInfo(unit="proportion of utterances", higher_is_better=True)


@dataclass(frozen=True, slots=True)
class IntentTally:
    """Counts of some predictions.

    Attributes:
        total: Utterances.
        all_right: Those whose attributes are all right.
        right: (K,) those in which each attribute is right, in the order of the sorted attributes.
    """

    total: int
    all_right: int
    right: Integers


class Intent(MeasuredByTallies):
    """An intent of several slots: one class of each attribute, one linear output an attribute, losses summed.

    Metrics: `accuracy` (primary), the share of utterances with every attribute right, and for each attribute
    `accuracy_ATTRIBUTE`, the share in which it is.

    Args:
        attributes: The attributes to read. An utterance that lacks one is not labelled.
        classes: From attributes to rules as `task.classes` of `attribute`, where values are merged or left out; an
            utterance is left out if one of its values is.

    Reference:
        Lugosch et al., Speech model pre-training for end-to-end spoken language understanding, Interspeech 2019; Yang
        et al., SUPERB, Interspeech 2021.
    """

    def __init__(self, *, attributes: Sequence[str] = ATTRIBUTES, classes: Mapping[str, Classes] | None = None) -> None:
        _refuse_no_attributes(attributes)
        _refuse_other_attributes(classes, attributes)
        given = classes or {}
        self._rules = {name: class_rule(given.get(name), f"task.classes.{name}") for name in attributes}
        self._attributes = tuple(sorted(attributes, key=lambda name: f"{name}{SEPARATOR}"))
        self.info = DownstreamInfo(
            name="intent",
            problem="multi-attribute",
            split="speaker-disjoint",
            default_head="mlp1",
            metrics={"accuracy": ACCURACY, **{f"accuracy_{name}": ACCURACY for name in attributes}},
            primary_metric="accuracy",
        )

    def labels(self, utterance: Utterance) -> tuple[str, ...] | None:
        """`ATTRIBUTE=CLASS` of each attribute, sorted; None where the utterance is left out."""
        names = []
        for attribute in self._attributes:
            _, value = attribute_of(utterance, (attribute,), option="task.attributes")
            found = self._rules[attribute].class_of(value, attribute, utterance.id)
            names.append(None if found is None else f"{attribute}{SEPARATOR}{found}")
        known = tuple(name for name in names if name is not None)
        return known if len(known) == len(names) else None

    def classes(self, label_sets: LabelSets, train: Iterable[Any]) -> tuple[str, ...]:
        """The classes of all attributes in training.

        Raises:
            DataError: An attribute has a single value there: nothing could be learned of it.
        """
        classes = tuple(sorted({name for labels in train for name in labels}))
        for attribute, first, end in class_blocks(classes):
            if end - first == 1:
                raise DataError(
                    f"All training utterances have {classes[first]}",
                    key="task.attributes",
                    do=f"Leave {attribute} out of task.attributes",
                )
        return classes

    def tally(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> IntentTally:
        """How many attributes are right."""
        given = cast(Sequence[AttributesPrediction], predictions)
        # (utterances, K) of whether each attribute is right
        right = np.array([np.equal(each.reference, each.estimated_classes) for each in given], dtype=np.bool_).reshape(
            -1, len(self._attributes)
        )
        return IntentTally(len(given), int(right.all(axis=1).sum()), right.sum(axis=0, dtype=np.int64))

    def measure_tallies(self, tallies: Sequence[IntentTally], classes: Sequence[str]) -> dict[str, Measurement]:
        """The shares over all tallies."""
        total = sum(tally.total for tally in tallies)
        right = sum((tally.right for tally in tallies), np.zeros(len(self._attributes), dtype=np.int64))
        correct = {"accuracy": sum(tally.all_right for tally in tallies)}
        correct |= {f"accuracy_{name}": int(count) for name, count in zip(self._attributes, right, strict=True)}
        return {
            name: Measurement(value=count / total if total else None, counts={"correct": count, "total": total})
            for name, count in correct.items()
        }


def _refuse_other_attributes(classes: object, attributes: Sequence[str]) -> None:
    if classes is None:
        return
    if not isinstance(classes, Mapping):
        what = f"`task.classes` must be a mapping from attributes to rules, but is {classes!r}"
        raise UsageError(what, key="task.classes", do="See the task `attribute` for the form of a rule")
    for name in classes:
        if name not in attributes:
            what = f"`task.classes` has a rule for `{name}`, which is not in task.attributes"
            raise UsageError(what, key="task.classes", do=did_you_mean(name, attributes).strip() or None)


def _refuse_no_attributes(attributes: object) -> None:
    is_list = isinstance(attributes, Sequence) and not isinstance(attributes, str)
    names = list(attributes) if is_list else []  # type: ignore[call-overload]
    if not names or not all(isinstance(name, str) and name and SEPARATOR not in name for name in names):
        raise UsageError(
            f"`task.attributes` must be a list of names of attributes, but is {attributes!r}",
            key="task.attributes",
            do="Write --set 'task.attributes=[action, object, location]'",
        )
    if len(set(names)) < len(names):
        raise UsageError("`task.attributes` names an attribute twice", key="task.attributes", do="Name it once")
