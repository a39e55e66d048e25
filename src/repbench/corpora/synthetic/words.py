"""Single words: ten commands, and ten words that are none, as in Speech Commands."""

from __future__ import annotations

from repbench.corpora.contract import Split
from repbench.corpora.synthetic.conditions import CorpusSize, generator_for
from repbench.corpora.synthetic.content import Content

COMMANDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")

OTHERS = ("bed", "bird", "cat", "dog", "happy", "house", "marvin", "sheila", "tree", "wow")
"""Words that are no command: half of the utterances, the unknown class of keyword spotting."""


class Words:
    """The words of one split: each speaker says all twenty in an order of its own, again and again."""

    def __init__(self, split: Split, size: CorpusSize) -> None:
        del split, size

    def draw(self, speaker: str, number: int) -> Content:
        """The word of utterance `number`; errors as `ContentSource`."""
        words = COMMANDS + OTHERS
        turn, place = divmod(number, len(words))
        order = generator_for("words", speaker, f"{turn}").permutation(len(words))
        word = words[int(order[place])]
        return Content(word, word, {"word": word})
