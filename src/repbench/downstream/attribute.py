"""The task `attribute`, a class for each utterance from any attribute of the corpus, and the base of those like it.

A task on an attribute is a subclass of `AttributeTask` with its `info`, its options and its default attributes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from repbench.corpora.contract import AttributeValue, Utterance
from repbench.downstream.attribute_values import ClassRule, attribute_of, attributes_to_read, class_rule
from repbench.downstream.contract import (
    DownstreamInfo,
    Labels,
    LabelSets,
    MeasuredByTallies,
    Measurement,
    Prediction,
    SplitPolicy,
)
from repbench.downstream.metrics import classification
from repbench.downstream.problems.contract import SPLIT_POLICIES
from repbench.downstream.utterances import (
    AUC,
    BALANCED_ACCURACY,
    METRICS,
    confusion_of,
    measure_confusion,
    utterance_predictions,
)
from repbench.errors import UsageError, did_you_mean

Classes = Mapping[str, AttributeValue | None] | Sequence[AttributeValue]
"""The option `task.classes`: see `repbench.downstream.attribute_values.class_rule`."""

CLASS_METRICS = {**METRICS, "balanced_accuracy": BALANCED_ACCURACY}
"""Of tasks with any number of classes."""

BINARY_METRICS = {**CLASS_METRICS, "auc": replace(AUC, num_classes=2)}
"""Of tasks that may have two classes: with another number `auc` is undefined."""


@dataclass(frozen=True, slots=True)
class ClassTally:
    """The counts of some predictions and, of two classes, the margins that rank them.

    Attributes:
        confusion: (C, C) counts, reference by estimated class.
        positive: Whether the reference is the second class; empty unless there are two.
        margins: Score of the second class minus that of the first; likewise.
    """

    confusion: classification.Confusion
    positive: list[bool]
    margins: list[float]


class AttributeTask(MeasuredByTallies):
    """One class an utterance, from an attribute of the corpus.

    Of the metrics in `METRICS`, `BALANCED_ACCURACY` and `AUC` those are measured that `info` declares. The classes are
    those that the training utterances have.

    Args:
        attributes: The attributes to read: the first that an utterance has. The fields `speaker`, `group` and `text`
            are read like attributes.
        rule: From a value to its class.
        balanced: Whether training draws all classes equally often, whatever their number of utterances; dev and test
            stay as they are.
    """

    info: DownstreamInfo

    def __init__(self, attributes: Sequence[str], rule: ClassRule, *, balanced: bool = False) -> None:
        if not isinstance(balanced, bool):
            raise UsageError(f"`task.balanced` must be true or false, but is {balanced!r}", key="task.balanced")
        self._attributes = tuple(attributes)
        self._rule = rule
        self._balanced = balanced

    def labels(self, utterance: Utterance) -> Labels | None:
        """The class; None where the utterance is left out."""
        name, value = attribute_of(utterance, self._attributes)
        return self.class_of(value, name, utterance)

    def class_of(self, value: AttributeValue, name: str, utterance: Utterance) -> str | None:
        """The class of a value of the attribute `name`; None where its utterances are left out."""
        return self._rule.class_of(value, name, utterance.id)

    def classes(self, label_sets: LabelSets, train: Iterable[Labels]) -> tuple[str, ...]:
        """The classes of training."""
        return tuple(sorted({label for label in train if isinstance(label, str)}))

    def sampling_weights(self, labels: Sequence[Labels]) -> list[float] | None:
        """One over the number of utterances of its class, for each training utterance, if draws are balanced."""
        if not self._balanced:
            return None
        counts = Counter(labels)
        return [1 / counts[label] for label in labels]

    def primary_of(self, confusion: classification.Confusion) -> float | None:
        """Accuracy."""
        return classification.accuracy(confusion)

    def tally(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> ClassTally:
        """The confusion matrix and, of two classes, the margin of the second for each utterance."""
        confusion = confusion_of(predictions, len(classes))
        if len(classes) != 2:
            return ClassTally(confusion, [], [])
        given = utterance_predictions(predictions)
        return ClassTally(
            confusion=confusion,
            positive=[each.reference == 1 for each in given],
            margins=[each.scores[1] - each.scores[0] for each in given],
        )

    def measure_tallies(self, tallies: Sequence[ClassTally], classes: Sequence[str]) -> dict[str, Measurement]:
        """The declared metrics of all tallies together."""
        confusion = classification.summed([tally.confusion for tally in tallies], len(classes))
        measured = measure_confusion(confusion)
        measured["balanced_accuracy"] = Measurement(value=classification.balanced_accuracy(confusion))
        if "auc" in self.info.metrics:
            area = classification.auc(
                [each for tally in tallies for each in tally.positive],
                [each for tally in tallies for each in tally.margins],
            )
            measured["auc"] = Measurement(value=area)
        return {name: measured[name] for name in self.info.metrics}


class Attribute(AttributeTask):
    """A class for each utterance, from an attribute that is named.

    Metrics: `accuracy` (primary), `balanced_accuracy` (unweighted average recall), `macro_f1`, `auc` of two classes.

    Args:
        attribute: The attribute to read, or one of the fields `speaker`, `group`, `text`.
        classes: None: each value is a class. A list of the values that are; others are left out. A mapping from values
            to classes or null; `*` stands for all others.
        balanced: Whether training draws all classes equally often.
        split: speaker-disjoint or within-speaker.
    """

    def __init__(
        self,
        *,
        attribute: str | None = None,
        classes: Classes | None = None,
        balanced: bool = False,
        split: SplitPolicy = "speaker-disjoint",
    ) -> None:
        attributes = attributes_to_read(attribute)
        if not attributes:
            what = "The task `attribute` reads an attribute that is named"
            raise UsageError(what, key="task.attribute", do="Name it with --set task.attribute=NAME")
        if split not in SPLIT_POLICIES:
            what = f"`task.split` must be {' or '.join(SPLIT_POLICIES)}, but is {split!r}"
            raise UsageError(what, key="task.split", do=did_you_mean(split, SPLIT_POLICIES).strip() or None)
        super().__init__(attributes, class_rule(classes), balanced=balanced)
        self.info = class_info("attribute", split=split, binary=True)


def class_info(
    name: str, *, split: SplitPolicy = "speaker-disjoint", binary: bool = False, default_head: str = "mlp1"
) -> DownstreamInfo:
    """The declaration of a task on an attribute; `binary`: whether it may have two classes, and so an `auc`."""
    return DownstreamInfo(
        name=name,
        problem="utterance-classification",
        split=split,
        default_head=default_head,
        metrics=BINARY_METRICS if binary else CLASS_METRICS,
        primary_metric="accuracy",
    )
