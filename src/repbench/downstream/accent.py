"""The task `accent`: the accent or dialect of a speaker who is not in training."""

from __future__ import annotations

from repbench.downstream.attribute import AttributeTask, Classes, class_info
from repbench.downstream.attribute_values import attributes_to_read, class_rule

ATTRIBUTES = ("accent", "accents", "dialect", "dialect_region")
"""Attributes looked for, in this order, where none is named."""


class Accent(AttributeTask):
    """Classification of the accent or dialect.

    Metrics: `accuracy` (primary), `balanced_accuracy`, `macro_f1`.

    Args:
        attribute: The attribute to read; None: the first of `accent`, `accents`, `dialect`, `dialect_region` that an
            utterance has.
        classes: As of `attribute`.
        balanced: Whether training draws all classes equally often.
    """

    info = class_info("accent")

    def __init__(self, *, attribute: str | None = None, classes: Classes | None = None, balanced: bool = False) -> None:
        super().__init__(attributes_to_read(attribute, ATTRIBUTES), class_rule(classes), balanced=balanced)
