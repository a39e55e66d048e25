"""Mixtures: two voices that take turns and often overlap, as diarization needs them.

Each turn is a command of `repbench.corpora.synthetic.commands`, in the frames of the split. Every speaker of the plan
has a partner voice of its own. In train each mixture draws its second voice among all voices of train, so that no
voice always has the same place; in dev and test the second voice is the partner, so that no voice is in the mixtures of
two speakers, and these are independent of each other.
"""

from __future__ import annotations

from repbench.corpora.contract import Split
from repbench.corpora.synthetic.commands import Commands
from repbench.corpora.synthetic.conditions import CorpusSize, generator_for
from repbench.corpora.synthetic.content import Content, SpokenTurn
from repbench.corpora.synthetic.voices import VOICE_NAME_FORMAT

_NUM_TURNS = (2, 4)
_OVERLAP_SHARE = 0.5
_OVERLAP_SECONDS = (0.3, 1.5)
_PAUSE_SECONDS = (0.05, 0.6)
_LEVEL_DEVIATION_DB = 2.0


def partner_of(speaker: str) -> str:
    """The voice that belongs to a speaker of the plan: `p003` to `s003`."""
    return f"p{speaker[1:]}"


class Mixtures:
    """The mixtures of one split; the first voice is that of the speaker, the one that begins is drawn."""

    def __init__(self, split: Split, size: CorpusSize) -> None:
        self._commands = Commands(split, size)
        # Speakers of train come first in the plan.
        own = [VOICE_NAME_FORMAT.format(number) for number in range(size.num_speakers["train"])]
        self._voices = [*own, *map(partner_of, own)] if split == "train" else []

    def draw(self, speaker: str, number: int) -> Content:
        """The turns of mixture `number`; errors as `ContentSource`."""
        draws = generator_for("mixtures", speaker, f"{number}")
        others = [voice for voice in self._voices if voice != speaker] or [partner_of(speaker)]
        voices = [speaker, others[int(draws.integers(len(others)))]]
        levels_db = draws.normal(scale=_LEVEL_DEVIATION_DB, size=len(voices)).clip(-4.0, 4.0)
        first = int(draws.integers(len(voices)))
        turns = []
        for place in range(int(draws.integers(_NUM_TURNS[0], _NUM_TURNS[1] + 1))):
            overlaps = bool(draws.random() < _OVERLAP_SHARE)
            seconds = float(draws.uniform(*(_OVERLAP_SECONDS if overlaps else _PAUSE_SECONDS)))
            voice = (first + place) % len(voices)
            spoken = self._commands.draw(f"{speaker}/{number}", place).spoken
            turns.append(SpokenTurn(voices[voice], spoken, -seconds if overlaps else seconds, float(levels_db[voice])))
        return Content("", "", {}, turns=tuple(turns))
