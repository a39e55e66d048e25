"""The worker process that synthesises speech.

    python -m repbench.corpora.synthetic.worker JOBS RESULTS PARENT SOUND HOME CONDITION

It reads utterances from JOBS (one JSON object a line), writes each as a WAV file into SOUND, and adds a JSON object
as a line to RESULTS; the first line names espeak-ng's version. A fault ends it with a traceback on stderr. Its
output for an utterance depends on that utterance alone.
"""

from __future__ import annotations

import json
import os
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from repbench.corpora.contract import SILENCE
from repbench.corpora.synthetic import arpabet, channel, espeak
from repbench.corpora.synthetic.conditions import CONDITIONS, SAMPLE_RATE_HZ, RecordingCondition, generator_for
from repbench.corpora.synthetic.content import Prosody, SpokenTurn
from repbench.corpora.synthetic.voices import draw_voice, voice_name

_SILENCE_SECONDS = (0.06, 0.16)
_SILENCE_OF_MIXTURES = (0.2, 0.8)
_STAGGER = SAMPLE_RATE_HZ // 5
_OWN_PAUSE = SAMPLE_RATE_HZ // 10
"""Of a mixture, in samples: the least time between two starts, and between two turns of one voice."""
_PACE_DEVIATION = 0.06
_PITCH_DEVIATION = 8.0


def main(arguments: list[str]) -> None:
    """Synthesise every utterance of a list; stops early if the process PARENT has ended."""
    jobs, results, sound, home = (Path(arguments[index]).absolute() for index in (0, 1, 3, 4))
    parent, condition = int(arguments[2]), CONDITIONS[arguments[5]]
    os.chdir(home)  # espeak-ng cuts the name of its data folder at about 160 bytes, and then exits: let it be short
    # line by line: the parent counts complete lines to see that the worker is alive
    with results.open("w", encoding="utf-8", buffering=1) as results_file:
        print(json.dumps({"espeak_ng": espeak.version()}), file=results_file)
        for line in jobs.read_text(encoding="utf-8").splitlines():
            # an orphan is adopted by another process
            if os.getppid() != parent:
                return
            print(json.dumps(speak(json.loads(line), condition, sound)), file=results_file)


def speak(job: dict[str, Any], condition: RecordingCondition, sound: Path) -> dict[str, object]:
    """Synthesise one utterance into `sound`; the working folder holds `espeak-ng-data` with the speaker's voice.

    Args:
        job: Its `id`, `speaker`, `session`, `spoken`, `language`, `has_phones`, the fields of `Prosody` as a list, and
            of a mixture its `turns`, each the fields of `SpokenTurn` as a list.
        condition: The recording condition.
        sound: The folder for the WAV file.

    Returns:
        Its `id`, its `phones`, each (first sample, sample after the last, label) at 16 kHz, or None without phones, and
        its `turns`, each (first sample, sample after the last, voice), or None where one voice speaks.
    """
    if job["turns"]:
        return _mix(job, condition, sound)
    draws = generator_for("delivery", job["id"])
    prosody = Prosody(*job["prosody"])
    speech = espeak.speak(
        job["spoken"],
        voice_name(job["speaker"], job["language"]),
        words_per_minute=round(_pace(job["speaker"], condition, draws) * prosody.rate),
        pitch=_pitch(draws, prosody),
        pitch_range=prosody.pitch_range,
        seed=int(draws.integers(1, 2**31)),
        home=Path(),
    )
    # drawn after pace, pitch and seed: the order of the draws is part of the corpus
    lead, trail = (int(seconds * SAMPLE_RATE_HZ) for seconds in draws.uniform(*_SILENCE_SECONDS, size=2))
    # (T at espeak-ng's rate,) -> (lead + T at 16 kHz + trail,)
    padded = np.pad(channel.resample(speech.samples, speech.sample_rate_hz), (lead, trail))
    recorded = channel.record(padded, condition, session=job["session"], utterance=job["id"], gain_db=prosody.gain_db)
    _write_wav(sound / f"{job['id']}.wav", recorded)
    phones = _placed(speech, lead, recorded.size) if job["has_phones"] else None
    return {"id": job["id"], "phones": phones, "turns": None}


def _mix(job: dict[str, Any], condition: RecordingCondition, sound: Path) -> dict[str, object]:
    """Synthesise a mixture: the sum of its turns, recorded as one utterance of its session."""
    draws = generator_for("mixing", job["id"])
    lead, trail = (int(seconds * SAMPLE_RATE_HZ) for seconds in draws.uniform(*_SILENCE_OF_MIXTURES, size=2))
    parts: list[tuple[int, channel.Signal]] = []
    turns: list[tuple[int, int, str]] = []
    previous, end, ends = -_STAGGER, lead, dict[str, int]()
    for number, fields in enumerate(job["turns"]):
        turn = SpokenTurn(*fields)
        speech, spoken = _turn(f"{job['id']}/{number}", turn, job["language"], condition)
        gap = int(turn.gap_seconds * SAMPLE_RATE_HZ) if turns else 0
        # Nobody begins with the turn before or speaks into a turn of their own.
        start = max(end + gap, previous + _STAGGER, ends.get(turn.voice, 0) + _OWN_PAUSE)
        # Sample 0 of the turn is that of its first phone: the speech may begin earlier.
        parts.append((start - spoken[0], speech))
        turns.append((start, start + spoken[1] - spoken[0], turn.voice))
        previous, ends[turn.voice] = start, turns[-1][1]
        end = max(end, turns[-1][1])
    num_samples = end + trail
    mixture = np.zeros(num_samples)
    for first, speech in parts:
        inside = speech[max(-first, 0) : num_samples - first]
        mixture[max(first, 0) : max(first, 0) + inside.size] += inside
    recorded = channel.record(mixture, condition, session=job["session"], utterance=job["id"])
    _write_wav(sound / f"{job['id']}.wav", recorded)
    return {"id": job["id"], "phones": None, "turns": turns}


def _turn(
    name: str, turn: SpokenTurn, language: str, condition: RecordingCondition
) -> tuple[channel.Signal, tuple[int, int]]:
    """The speech (T,) of a turn at 16 kHz at its level, with its first spoken sample and the one after the last."""
    draws = generator_for("delivery", name)
    speech = espeak.speak(
        turn.spoken,
        voice_name(turn.voice, language),
        words_per_minute=_pace(turn.voice, condition, draws),
        pitch=_pitch(draws, Prosody()),
        pitch_range=None,
        seed=int(draws.integers(1, 2**31)),
        home=Path(),
    )
    scale = SAMPLE_RATE_HZ / speech.sample_rate_hz
    phones = arpabet.segments(speech.marks, speech.samples, speech.sample_rate_hz)
    spoken = [each for each in phones if each.label != SILENCE]
    samples = channel.resample(speech.samples, speech.sample_rate_hz)
    first, last = round(spoken[0].start * scale), round(spoken[-1].end * scale)
    # (T,): the voices of espeak-ng differ in level by more than the turns should
    level = 10.0 ** (turn.gain_db / 20.0) / float(np.sqrt(np.mean(np.square(samples[first:last]))))
    return samples * level, (first, last)


def _pace(speaker: str, condition: RecordingCondition, draws: np.random.Generator) -> int:
    habit = draw_voice(speaker, condition.voice_spread).words_per_minute
    return round(habit * (1.0 + _PACE_DEVIATION * float(np.clip(draws.normal(), -2.5, 2.5))))


def _pitch(draws: np.random.Generator, prosody: Prosody) -> int:
    own = round(50.0 + _PITCH_DEVIATION * float(np.clip(draws.normal(), -2.5, 2.5)))
    return min(max(own + prosody.pitch_shift, 0), 100)


def _placed(speech: espeak.Speech, lead: int, num_samples: int) -> list[arpabet.PhoneSegment]:
    """The phones on the samples of the recording, with the silence around the speech."""
    # sample k of the speech is at k * scale after resampling, `lead` later in the recording
    scale = SAMPLE_RATE_HZ / speech.sample_rate_hz
    spoken = arpabet.segments(speech.marks, speech.samples, speech.sample_rate_hz)
    moved = [
        arpabet.PhoneSegment(lead + round(start * scale), lead + round(end * scale), label)
        for start, end, label in spoken
    ]
    around = [
        arpabet.PhoneSegment(0, moved[0].start, SILENCE),
        *moved,
        arpabet.PhoneSegment(moved[-1].end, num_samples, SILENCE),
    ]
    return arpabet.joined(around)


def _write_wav(path: Path, samples: NDArray[np.int16]) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        # WAV is little-endian
        file.writeframes(samples.astype("<i2").tobytes())


if __name__ == "__main__":
    main(sys.argv[1:])
