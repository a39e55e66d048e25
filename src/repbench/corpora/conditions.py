"""Utterances under a condition: noise, rooms, codecs, on the way from the file to the model.

A disturbed utterance is an utterance whose samples are computed from those of another one when it is read. What
happens to them follows from the sound, the condition and, for babble, the voices alone, and so does its
`samples_sha256`: equal values mean equal samples, as of a sound in a file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from repbench.audio.disturbances.condition import Condition
from repbench.audio.resample import to_rate
from repbench.audio.sound import read_sound
from repbench.corpora.contract import Phone, Turn, Utterance
from repbench.errors import DataError

NUM_VOICES = 8
"""Other utterances that babble is made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DisturbedUtterance(Utterance):
    """An utterance under a condition; times of its phones and turns are those of the disturbed sound.

    Attributes:
        source: The utterance as it is in the corpus.
        condition: What happens to its samples.
        voices: The utterances that babble is made of; none where the condition needs none.
    """

    source: Utterance
    condition: Condition
    voices: tuple[Utterance, ...] = ()


def original(utterance: Utterance) -> Utterance:
    """The utterance as it is in the corpus."""
    return utterance.source if isinstance(utterance, DisturbedUtterance) else utterance


def disturbed(utterance: Utterance, condition: Condition, voices: Sequence[Utterance] = ()) -> Utterance:
    """The utterance under a condition; the utterance itself if the condition changes nothing.

    Args:
        utterance: As it is in the corpus.
        condition: What happens to its samples.
        voices: As `voices_for` chooses them, if the condition needs any.
    """
    if condition.is_identity:
        return utterance
    kept = {each.name: getattr(utterance, each.name) for each in fields(Utterance)}
    phones, turns, seconds = kept["phones"], kept["turns"], utterance.seconds

    def moved(instant: float) -> float:
        return condition.moved(instant, seconds)

    if phones is not None:
        kept["phones"] = tuple(Phone(moved(each.start_s), moved(each.end_s), each.label) for each in phones)
    if turns is not None:
        kept["turns"] = tuple(Turn(moved(each.start_s), moved(each.end_s), each.speaker) for each in turns)
    heard = " ".join(f"{each.samples_sha256}@{each.sample_rate_hz}" for each in voices)
    content = f"{utterance.samples_sha256}@{utterance.sample_rate_hz} {condition.key()} {heard}"
    kept |= {
        "num_samples": condition.num_samples(utterance.num_samples, utterance.sample_rate_hz),
        "samples_sha256": hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest(),
        # of the sound as it is in the corpus
        "features": None,
        "features_sha256": None,
    }
    return DisturbedUtterance(**kept, source=utterance, condition=condition, voices=tuple(voices))


def voices_for(utterance: Utterance, pool: Sequence[Utterance], condition: Condition) -> tuple[Utterance, ...]:
    """The utterances of other speakers that its babble is made of, drawn by its sound and the condition.

    Args:
        utterance: Which is disturbed.
        pool: Utterances to choose from, in any order.
        condition: Draws nothing if it needs no voices.

    Raises:
        DataError: The pool has no utterance of another speaker.
    """
    if not condition.needs_voices or condition.is_identity:
        return ()
    source = original(utterance)
    others = sorted(
        (each for each in pool if each.id != source.id and (each.speaker is None or each.speaker != source.speaker)),
        key=lambda each: each.id,
    )
    if not others:
        raise DataError(
            "The corpus has no utterance of another speaker that babble could be made of",
            utterance=source.id,
            do="Take another noise, such as noise:pink:10",
        )
    random = _generator(source, f"voices {condition.key()}")
    chosen = random.choice(len(others), size=min(NUM_VOICES, len(others)), replace=False)
    return tuple(others[number] for number in sorted(chosen.tolist()))


def samples_under(utterance: DisturbedUtterance, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The samples (T',) float32 of a disturbed utterance.

    Args:
        utterance: The utterance.
        samples: (T,) float32, those of its source at its own rate.

    Raises:
        DataError: A voice cannot be read.
        PluginError: The condition gives another number of samples than it declared.
    """
    rate_hz = utterance.sample_rate_hz

    def voices() -> Iterator[NDArray[np.float32]]:
        for voice in utterance.voices:
            heard, voice_hz = read_sound(
                voice.audio, start=voice.start, end=voice.end, utterance=voice.id, channel=voice.channel
            )
            yield to_rate(heard, voice_hz, rate_hz).numpy()

    random = _generator(utterance.source, utterance.condition.key())
    given = utterance.condition.apply(samples, rate_hz, random, voices)
    if len(given) != utterance.num_samples:
        raise DataError(
            f"The condition {utterance.condition.name} gives {len(given)} samples in place of {utterance.num_samples}",
            file=utterance.audio,
            utterance=utterance.id,
            do="Leave the condition out, and report this",
        )
    return given


def _generator(utterance: Utterance, key: str) -> np.random.Generator:
    """A generator that follows from the sound and a key alone."""
    digest = hashlib.sha256(f"{utterance.samples_sha256} {key}".encode("utf-8", "surrogatepass")).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))
