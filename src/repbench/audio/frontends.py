"""All front ends, by the names that configurations use."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from repbench.audio import kaldi, legacy, online
from repbench.audio.frames import FrontEnd, scale_to_level
from repbench.errors import UsageError

FRONT_ENDS = {
    "mel160": legacy.MEL160,
    "mel160_no_cmvn": legacy.MEL160_NO_CMVN,
    "fbank160": legacy.FBANK160,
    "mfcc52": legacy.MFCC52,
    "linear1025": legacy.LINEAR1025,
    "fbank240": kaldi.FBANK,
    "fbank240_no_cmvn": kaldi.FBANK_NO_CMVN,
    "mfcc39": kaldi.MFCC,
    "spectrogram257": kaldi.SPECTROGRAM,
    "fbank80": kaldi.FBANK80,
    "mel80": online.MEL80,
    "linear201": online.LINEAR,
}
"""From name to front end; the number in a name is the width."""


def front_end(name: str, *, level_db: float | None = None) -> FrontEnd:
    """The front end called `name`.

    Args:
        name: One of `FRONT_ENDS`.
        level_db: Root mean square to which each waveform is scaled first, in dB relative to full scale; None: none.

    Raises:
        UsageError: There is no front end of that name.
    """
    if name not in FRONT_ENDS:
        raise UsageError(f"There is no front end `{name}`", do=f"Choose one of {', '.join(FRONT_ENDS)}")
    plain = FRONT_ENDS[name]
    if level_db is None:
        return plain
    level = level_db

    def levelled(waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return plain.compute(scale_to_level(waveforms, lengths, level), lengths)

    return replace(plain, name=f"{plain.name} at {level:g} dB", compute=levelled)
