"""The plan of a synthetic corpus: speaker, session, split and text of every utterance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from repbench.corpora.contract import Split
from repbench.corpora.synthetic.conditions import CorpusSize, SyntheticSpec, generator_for
from repbench.corpora.synthetic.sentences import SENTIMENTS, Polarity, SentencePool
from repbench.corpora.synthetic.voices import VOICE_NAME_FORMAT


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedUtterance:
    """One utterance to be synthesised.

    Attributes:
        id: Unique in the corpus: `s003-b-007` is the eighth utterance of the second session of speaker `s003`.
        speaker: Id of the speaker, and name of the voice.
        session: Recording session; its utterances share one channel.
        split: The official split.
        text: The sentence.
        sentiment: Sentiment of its words.
    """

    id: str
    speaker: str
    session: str
    split: Split
    text: str
    sentiment: Polarity


def speakers(size: CorpusSize) -> dict[str, Split]:
    """Every speaker and the split it belongs to."""
    splits = [split for split in get_args(Split) for _ in range(size.num_speakers[split])]
    return {VOICE_NAME_FORMAT.format(number): split for number, split in enumerate(splits)}


def plan(spec: SyntheticSpec) -> list[PlannedUtterance]:
    """Every utterance of the corpus, in the order of their ids; the condition changes none of them."""
    # One pool a split, shared by its speakers in the order below: no sentence occurs twice in a split.
    pools = {split: SentencePool(split, generator_for("sentences", spec.size.name, split)) for split in get_args(Split)}
    return [
        utterance
        for speaker, split in speakers(spec.size).items()
        for session in _sessions(speaker, spec.size)
        for utterance in _session_utterances(speaker, session, split, pools[split], spec.size.num_per_session)
    ]


def _sessions(speaker: str, size: CorpusSize) -> list[str]:
    return [f"{speaker}-{chr(ord('a') + number)}" for number in range(size.num_sessions)]


def _session_utterances(
    speaker: str, session: str, split: Split, pool: SentencePool, num_utterances: int
) -> Iterator[PlannedUtterance]:
    for number in range(num_utterances):
        # in turn, so that sentiment is independent of speaker and session
        sentence = pool.draw(SENTIMENTS[number % len(SENTIMENTS)])
        yield PlannedUtterance(
            id=f"{session}-{number:03d}",
            speaker=speaker,
            session=session,
            split=split,
            text=sentence.text,
            sentiment=sentence.sentiment,
        )
