"""The task `keyword`: the word of a short utterance, of speakers that are not in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from repbench.corpora.contract import AttributeValue
from repbench.downstream.attribute import AttributeTask, class_info
from repbench.downstream.attribute_values import EACH, ClassRule, attributes_to_read, class_name, is_number, meant
from repbench.errors import UsageError

ATTRIBUTES = ("word", "keyword", "command", "digit")
"""Attributes looked for, in this order, where none is named."""

UNKNOWN = "_unknown_"
SILENCE = "_silence_"
"""The value of utterances without speech, which the corpus names so, and their class."""

TWELVE = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
"""The words of the task of twelve classes, which has `_unknown_` and `_silence_` in addition."""


class Keyword(AttributeTask):
    """Keyword spotting: the word among those of training.

    By default each word is a class, and utterances of `_silence_` and `_unknown_`, which are no words, are left out.
    With words that are named, these are classes, every other word is `_unknown_`, and `_silence_` is a class where the
    corpus has such utterances; `twelve` names the ten words of Speech Commands' task of twelve classes.

    Metrics: `accuracy` (primary), `balanced_accuracy`, `macro_f1`.

    Args:
        attribute: The attribute to read; None: the first of `word`, `keyword`, `command`, `digit` that an utterance
            has.
        words: `all`, `twelve`, or a list of words.
        balanced: Whether training draws all classes equally often: Speech Commands has a dozen times as many utterances
            of other words as of each of the ten.

    Reference:
        Warden, Speech Commands: A dataset for limited-vocabulary speech recognition, 2018.
    """

    info = class_info("keyword")

    def __init__(
        self,
        *,
        attribute: str | None = None,
        words: Literal["all", "twelve"] | Sequence[AttributeValue] = "all",
        balanced: bool = False,
    ) -> None:
        super().__init__(attributes_to_read(attribute, ATTRIBUTES), word_rule(words), balanced=balanced)


def word_rule(words: object) -> ClassRule:
    """The rule that the option `task.words` gives.

    Raises:
        UsageError: It is neither `all`, `twelve` nor a list of words.
    """
    if words == "all":
        return ClassRule({UNKNOWN: None, SILENCE: None}, others=EACH)
    named = TWELVE if words == "twelve" else words
    if (
        not isinstance(named, Sequence)
        or isinstance(named, str)
        or not named
        or not all(isinstance(each, str) or is_number(each) for each in named)
    ):
        raise UsageError(
            f"`task.words` must be all, twelve or a list of words, but is {words!r}",
            key="task.words",
            do="Write --set 'task.words=[yes, no]'",
        )
    return ClassRule(
        {**{meant(each): class_name(each) for each in named}, SILENCE: SILENCE, UNKNOWN: UNKNOWN}, others=UNKNOWN
    )
