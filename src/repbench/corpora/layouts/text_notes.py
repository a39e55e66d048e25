"""Notes on the transcripts of a corpus, the same for every layout that has them."""

from __future__ import annotations

from collections.abc import Sequence

from repbench.corpora.contract import DraftUtterance


def text_notes(utterances: Sequence[DraftUtterance], num_texts: int = 0) -> tuple[str, ...]:
    """Notes on utterances without a text and texts without a sound.

    Args:
        utterances: The utterances of the corpus.
        num_texts: Number of texts in separate files; 0 where each text comes with its utterance.
    """
    num_with_text = sum(utterance.text is not None for utterance in utterances)
    notes = []
    if num_texts > num_with_text:
        notes.append(f"{num_texts - num_with_text} of {num_texts} transcripts have no sound file")
    if num_with_text < len(utterances):
        notes.append(f"{len(utterances) - num_with_text} of {len(utterances)} utterances have no transcript")
    return tuple(notes)
