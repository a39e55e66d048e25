"""Text as a target: its normalisation, the units that it is spelt in, and slots marked in it."""

from repbench.downstream.text.encoders import (
    SUBWORDS_FILE,
    WORD_START,
    Characters,
    Subwords,
    TextEncoder,
    joined,
    read_subwords,
    train_subwords,
)
from repbench.downstream.text.normalisation import RULES, rule_named
from repbench.downstream.text.slots import marked_by_columns, marker_of, plain_words, read_marked, slots_in
from repbench.downstream.text.transcript import Transcript

__all__ = [
    "RULES",
    "SUBWORDS_FILE",
    "WORD_START",
    "Characters",
    "Subwords",
    "TextEncoder",
    "Transcript",
    "joined",
    "marked_by_columns",
    "marker_of",
    "plain_words",
    "read_marked",
    "read_subwords",
    "rule_named",
    "slots_in",
    "train_subwords",
]
