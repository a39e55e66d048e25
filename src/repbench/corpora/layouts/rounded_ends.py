"""Ends of utterances a little past the end of their file, because tables round times."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from repbench.audio.sound import SoundInfo, inspect
from repbench.corpora.contract import DraftUtterance
from repbench.errors import DataError

OVERSHOOT_S = 0.5
"""The most by which the `end` of an utterance may exceed its file, in seconds.

Tables round to 10 ms or to 100 ms, and cut recordings lose the samples after the last whole block. Kaldi's
`extract-segments` cuts such ends at the file up to the same bound (its default of `--max-overshoot`), so a data folder
gives the same utterances here as there.
"""


def cut_at_sounds(utterances: Iterable[DraftUtterance]) -> tuple[list[DraftUtterance], tuple[str, ...]]:
    """The utterances; ends at most `OVERSHOOT_S` past the end of their file are cut there.

    An end further out, or an utterance that starts past its file, stays as it is and is refused where its sound is
    read.

    Args:
        utterances: With `start` and `end` as their table states them. The header of each file is read once.

    Returns:
        The utterances in the same order, and a note that counts what was cut; no note where nothing was.
    """
    headers: dict[Path, SoundInfo | None] = {}
    cut, overshoots = [], []
    for utterance in utterances:
        info = None if utterance.end is None else _header(utterance.audio, headers)
        over_s = _overshoot(utterance, info)
        if info is None or over_s is None:
            cut.append(utterance)
            continue
        # the exact duration: `sample_range` rounds it to the last sample
        cut.append(replace(utterance, end=info.seconds))
        overshoots.append((over_s, utterance.id))
    if not overshoots:
        return cut, ()
    largest_s, identifier = max(overshoots, key=lambda each: each[0])
    note = (
        f"{len(overshoots)} of {len(cut)} utterances end past their sound and are cut there, "
        f"by at most {largest_s:.4f} s (`{identifier}`)"
    )
    return cut, (note,)


def _header(audio: Path, headers: dict[Path, SoundInfo | None]) -> SoundInfo | None:
    """The header of a file, read once; None where it is broken."""
    if audio not in headers:
        try:
            headers[audio] = inspect(audio, any_channels=True)
        except DataError:  # raised again, with every other fault of the corpus, where the sound itself is read
            headers[audio] = None
    return headers[audio]


def _overshoot(utterance: DraftUtterance, info: SoundInfo | None) -> float | None:
    """The time from the end of the file to `end`, in seconds; None if it is not to be cut."""
    if info is None or utterance.end is None or round(utterance.end * info.sample_rate_hz) <= info.num_samples:
        return None
    over_s = utterance.end - info.seconds
    starts_inside = round((utterance.start or 0.0) * info.sample_rate_hz) < info.num_samples
    # a decimal such as 10.5 - 10.0 may exceed the bound by a rounding error
    return over_s if starts_inside and over_s <= OVERSHOOT_S + 1e-9 else None
