"""The task `gender`: the gender of a speaker who is not in training."""

from __future__ import annotations

from repbench.downstream.attribute import AttributeTask, Classes, class_info
from repbench.downstream.attribute_values import attributes_to_read, class_rule

ATTRIBUTES = ("gender", "sex")
"""Attributes looked for, in this order, where none is named."""

SYNONYMS = {
    **dict.fromkeys(("female", "f", "woman", "female_feminine"), "female"),
    **dict.fromkeys(("male", "m", "man", "male_masculine"), "male"),
    **dict.fromkeys(("other", "o", "unknown", "u", "do_not_wish_to_say"), None),
}
"""Words of corpora, and the class of each; None: left out."""


class Gender(AttributeTask):
    """Classification of the speaker's gender as the corpus states it, by default as female or male.

    Metrics: `accuracy` (primary), `balanced_accuracy`, `macro_f1`, `auc`.

    Args:
        attribute: The attribute to read; None: the first of `gender`, `sex` that an utterance has.
        classes: As of `attribute`. None: the words of `SYNONYMS`; another word is an error that names it.
        balanced: Whether training draws both classes equally often.
    """

    info = class_info("gender", binary=True)

    def __init__(self, *, attribute: str | None = None, classes: Classes | None = None, balanced: bool = False) -> None:
        rule = class_rule(SYNONYMS if classes is None else classes)
        super().__init__(attributes_to_read(attribute, ATTRIBUTES), rule, balanced=balanced)
