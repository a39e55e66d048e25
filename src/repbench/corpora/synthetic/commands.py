"""Commands of a small grammar with three slots: action, object and location.

The words of a slot are shared by all splits, so that they can be learned; a frame belongs to one split, so that no
command of one split occurs in another. `activate` and `deactivate` may differ in one short word (on, off).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from repbench.corpora.contract import Split
from repbench.corpora.synthetic.conditions import CorpusSize, generator_for
from repbench.corpora.synthetic.content import Content

NONE = "none"
"""The value of a slot that a command does not fill."""

SLOTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "action": {
        "activate": ("turn on", "switch on", "start"),
        "deactivate": ("turn off", "switch off", "stop"),
        "increase": ("turn up", "raise", "increase"),
        "decrease": ("turn down", "lower", "decrease"),
    },
    "object": {
        "lights": ("lights", "lamps"),
        "heat": ("heating", "heat"),
        "music": ("music", "radio"),
    },
    "location": {
        "kitchen": ("in the kitchen",),
        "bedroom": ("in the bedroom",),
        "garden": ("in the garden",),
        NONE: ("",),
    },
}
"""From each slot to its values, and from a value to its words."""

FRAMES: Mapping[Split, tuple[str, ...]] = {
    "train": (
        "{action} the {object} {location}",
        "please {action} the {object} {location}",
        "can you {action} the {object} {location}",
        "{location} {action} all the {object}",
        "i want you to {action} the {object} {location}",
        "{action} our {object} {location} again",
    ),
    "dev": ("now {action} the {object} {location}", "{location} kindly {action} the {object}"),
    "test": (
        "{action} the {object} {location} please",
        "could you {action} my {object} {location}",
        "{location} you should {action} the {object}",
    ),
}

_SLOT = re.compile(r"\{(\w+)\}")
_IN = "in the "


class Commands:
    """The commands of one split; each is drawn by itself, so that some occur twice."""

    def __init__(self, split: Split, size: CorpusSize) -> None:
        del size
        self._frames = FRAMES[split]

    def draw(self, speaker: str, number: int) -> Content:
        """The command of utterance `number`, with the attributes of its slots and `slots`, its text with tags."""
        draws = generator_for("commands", speaker, f"{number}")
        frame = self._frames[int(draws.integers(len(self._frames)))]
        values, words = {}, {}
        for slot, meanings in SLOTS.items():
            values[slot] = list(meanings)[int(draws.integers(len(meanings)))]
            words[slot] = _pick(meanings[values[slot]], draws)
        text = " ".join(_SLOT.sub(lambda slot: words[slot[1]], frame).split())
        marked = " ".join(_SLOT.sub(lambda slot: _marked(slot[1], words[slot[1]]), frame).split())
        return Content(text, text, {**values, "slots": marked})


def _pick(choices: tuple[str, ...], draws: np.random.Generator) -> str:
    return choices[int(draws.integers(len(choices)))]


def _marked(slot: str, words: str) -> str:
    """The words of a slot between its tags; nothing where there are none. `in the` is outside."""
    if not words:
        return ""
    before = _IN if words.startswith(_IN) else ""
    return f"{before}<{slot}> {words.removeprefix(_IN)} </{slot}>"
