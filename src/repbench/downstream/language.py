"""The task `language`: the language of an utterance, of speakers that are not in training."""

from __future__ import annotations

from repbench.downstream.attribute import AttributeTask, Classes, class_info
from repbench.downstream.attribute_values import attributes_to_read, class_rule

ATTRIBUTES = ("language", "lang", "locale")
"""Attributes looked for, in this order, where none is named."""


class Language(AttributeTask):
    """Identification of the language among those of training.

    Metrics: `accuracy` (primary), `balanced_accuracy`, `macro_f1`.

    Args:
        attribute: The attribute to read; None: the first of `language`, `lang`, `locale` that an utterance has.
        classes: As of `attribute`.
        balanced: Whether training draws all classes equally often.
    """

    info = class_info("language")

    def __init__(self, *, attribute: str | None = None, classes: Classes | None = None, balanced: bool = False) -> None:
        super().__init__(attributes_to_read(attribute, ATTRIBUTES), class_rule(classes), balanced=balanced)
