"""Spoken queries and the documents that are searched for them: single words, and sentences that hold three of them."""

from __future__ import annotations

from repbench.corpora.contract import Split
from repbench.corpora.synthetic.conditions import CorpusSize, generator_for
from repbench.corpora.synthetic.content import Content

TERMS = ("marvin", "sheila", "happy", "seven", "garden", "kitchen", "radio", "window", "paper", "doctor")
"""What queries say: words of two syllables or more, because a short one sounds like parts of others."""

CARRIERS = ("say {} and {} and {}", "we saw {} then {} or {}", "first {} with {} but not {}")
"""The sentences of documents."""

UTTERANCES_A_QUERY = 4
"""One utterance in so many is a query."""


class Searches:
    """The queries and documents of one split: every speaker says both, in an order of its own."""

    def __init__(self, split: Split, size: CorpusSize) -> None:
        del split, size

    def draw(self, speaker: str, number: int) -> Content:
        """Utterance `number`, with the attribute `role`."""
        turn, place = divmod(number, UTTERANCES_A_QUERY)
        if place == 0:
            # All terms in turn, before any is said again.
            again, which = divmod(turn, len(TERMS))
            order = generator_for("queries", speaker, f"{again}").permutation(len(TERMS))
            term = TERMS[int(order[which])]
            return Content(term, term, {"role": "query"})
        draws = generator_for("documents", speaker, f"{number}")
        terms = [TERMS[int(each)] for each in draws.choice(len(TERMS), 3, replace=False)]
        text = CARRIERS[int(draws.integers(len(CARRIERS)))].format(*terms)
        return Content(text, text, {"role": "document"})
