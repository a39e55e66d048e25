"""The plan of a synthetic corpus: speaker, session, split and content of every utterance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import get_args

from repbench.corpora.contract import Split
from repbench.corpora.synthetic.commands import Commands
from repbench.corpora.synthetic.conditions import SENTENCES, CorpusSize, SyntheticSpec, generator_for
from repbench.corpora.synthetic.content import Content, ContentSource
from repbench.corpora.synthetic.emotions import Emotions
from repbench.corpora.synthetic.languages import Languages
from repbench.corpora.synthetic.mixtures import Mixtures
from repbench.corpora.synthetic.searches import Searches
from repbench.corpora.synthetic.sentences import SENTIMENTS, SentencePool
from repbench.corpora.synthetic.voices import VOICE_NAME_FORMAT
from repbench.corpora.synthetic.words import Words


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedUtterance:
    """One utterance to be synthesised.

    Attributes:
        id: Unique in the corpus: `s003-b-007` is the eighth utterance of the second session of speaker `s003`.
        speaker: Id of the speaker, and name of the voice.
        session: Recording session; its utterances share one channel.
        split: The official split.
        content: Its words, labels, language and prosody.
    """

    id: str
    speaker: str
    session: str
    split: Split
    content: Content


class Sentences:
    """The sentences of one split, in turn negative and positive, so that sentiment is independent of the speaker."""

    def __init__(self, split: Split, size: CorpusSize) -> None:
        # One pool a split, shared by its speakers in their order: no sentence occurs twice in a split.
        self._pool = SentencePool(split, generator_for("sentences", size.name, split))

    def draw(self, speaker: str, number: int) -> Content:
        """The next sentence of the pool."""
        sentence = self._pool.draw(SENTIMENTS[number % len(SENTIMENTS)])
        return Content(sentence.text, sentence.text, {"sentiment": sentence.sentiment})


CONTENT_SOURCES: Mapping[str, Callable[[Split, CorpusSize], ContentSource]] = {
    SENTENCES: Sentences,
    "words": Words,
    "commands": Commands,
    "emotions": Emotions,
    "languages": Languages,
    "searches": Searches,
    "mixtures": Mixtures,
}
"""From each of `KINDS` to the contents of a split."""


def speakers(size: CorpusSize) -> dict[str, Split]:
    """Every speaker and the split it belongs to."""
    splits = [split for split in get_args(Split) for _ in range(size.num_speakers[split])]
    return {VOICE_NAME_FORMAT.format(number): split for number, split in enumerate(splits)}


def plan(spec: SyntheticSpec) -> list[PlannedUtterance]:
    """Every utterance of the corpus, in the order of their ids; the condition changes none of them."""
    sources = {split: CONTENT_SOURCES[spec.kind](split, spec.size) for split in get_args(Split)}
    return [
        utterance
        for speaker, split in speakers(spec.size).items()
        for utterance in _utterances(speaker, split, sources[split], spec.size)
    ]


def _utterances(speaker: str, split: Split, source: ContentSource, size: CorpusSize) -> Iterator[PlannedUtterance]:
    for number in range(size.num_sessions * size.num_per_session):
        number_of_session, place = divmod(number, size.num_per_session)
        session = f"{speaker}-{chr(ord('a') + number_of_session)}"
        yield PlannedUtterance(
            id=f"{session}-{place:03d}",
            speaker=speaker,
            session=session,
            split=split,
            content=source.draw(speaker, number),
        )
