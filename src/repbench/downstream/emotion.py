"""The task `emotion`: the emotion of an utterance, of speakers that are not in training."""

from __future__ import annotations

from repbench.downstream.attribute import AttributeTask, Classes, class_info
from repbench.downstream.attribute_values import attributes_to_read, class_rule


class Emotion(AttributeTask):
    """Classification of the emotion, of any number of classes.

    Metrics: `accuracy` (primary, as publications on IEMOCAP report it), `balanced_accuracy` (unweighted average
    recall), `macro_f1`.

    Args:
        attribute: The attribute to read; None: `emotion`.
        classes: As of `attribute`: IEMOCAP's four classes are `{neu: neutral, hap: happy, exc: happy, sad: sad,
            ang: angry, "*": null}`.
        balanced: Whether training draws all classes equally often.
    """

    info = class_info("emotion")

    def __init__(self, *, attribute: str | None = None, classes: Classes | None = None, balanced: bool = False) -> None:
        super().__init__(attributes_to_read(attribute, ("emotion",)), class_rule(classes), balanced=balanced)
