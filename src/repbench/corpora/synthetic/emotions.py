"""Four emotions in the voice alone: pitch, range of pitch, rate and level.

The words are those of `repbench.corpora.synthetic.sentences`; their sentiment is drawn apart from the emotion, so that
no word tells it. A speaker expresses all emotions more or less strongly, and rate and pitch vary from one utterance to
the next, as in every synthetic corpus: the emotions overlap.
"""

from __future__ import annotations

from collections.abc import Mapping

from repbench.corpora.contract import Split
from repbench.corpora.synthetic.conditions import CorpusSize, generator_for
from repbench.corpora.synthetic.content import Content, Prosody
from repbench.corpora.synthetic.sentences import SENTIMENTS, draw_sentence, normalised

EMOTIONS: Mapping[str, Prosody] = {
    "neutral": Prosody(pitch_range=50),
    "happiness": Prosody(rate=1.08, pitch_shift=16, pitch_range=80, gain_db=2.0),
    "sadness": Prosody(rate=0.86, pitch_shift=-12, pitch_range=25, gain_db=-3.0),
    "anger": Prosody(rate=1.14, pitch_shift=6, pitch_range=65, gain_db=4.0),
}
"""From the emotion to its prosody at full strength."""

_STRENGTH = (0.5, 1.2)
_VOICE_RANGE = 50


class Emotions:
    """The sentences of one split, each speaker with the four emotions in turn."""

    def __init__(self, split: Split, size: CorpusSize) -> None:
        del size
        self._split = split

    def draw(self, speaker: str, number: int) -> Content:
        """The sentence and the emotion of utterance `number`."""
        draws = generator_for("emotions", speaker, f"{number}")
        sentiment = SENTIMENTS[int(draws.integers(len(SENTIMENTS)))]
        sentence = draw_sentence(self._split, sentiment, draws)
        emotion = list(EMOTIONS)[number % len(EMOTIONS)]
        strength = float(generator_for("strength", speaker).uniform(*_STRENGTH))
        return Content(
            normalised(sentence), sentence, {"emotion": emotion}, prosody=_expressed(EMOTIONS[emotion], strength)
        )


def _expressed(full: Prosody, strength: float) -> Prosody:
    """A prosody whose distances from the voice's own are `strength` times those of `full`."""
    pitch_range = _VOICE_RANGE if full.pitch_range is None else full.pitch_range
    return Prosody(
        rate=1.0 + strength * (full.rate - 1.0),
        pitch_shift=round(strength * full.pitch_shift),
        pitch_range=min(max(round(_VOICE_RANGE + strength * (pitch_range - _VOICE_RANGE)), 0), 100),
        gain_db=strength * full.gain_db,
    )
