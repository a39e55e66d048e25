"""Conditions: disturbances one after another, parsed from a text such as `noise:babble:10` or `reverb:3+telephone`.

The grammar is `KIND[:VARIANT][:AMOUNT]`, several joined by `+` in the order in which they are applied. AMOUNT is

* `sN` or N: severity N, from 0 (undisturbed) to 5; for `noise` a number without `s` is the ratio in dB;
* `name=value`, several joined by a comma: the parameters themselves;
* another number, for kinds whose first parameter cannot be taken for a severity (`rate:8000`, `codec:opus:16`).

Axes: T samples.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from repbench.audio.disturbances.base import SEVERITIES, Disturbance, Samples, Voices, number
from repbench.audio.disturbances.channel import Gsm, Mp3, MuLaw, Opus, Rate, Telephone
from repbench.audio.disturbances.level import Clip, Gain, Loss
from repbench.audio.disturbances.noise import Babble, FolderNoise, Pink, White
from repbench.audio.disturbances.rooms import FolderReverb, Reverb
from repbench.audio.disturbances.severities import values_of
from repbench.audio.disturbances.tempo import Shift, Silence, Speed, Tempo
from repbench.errors import UsageError, did_you_mean

KINDS: tuple[type[Disturbance], ...] = (
    White, Pink, Babble, FolderNoise, Reverb, FolderReverb, Telephone, Rate, Gsm, MuLaw, Opus, Mp3, Clip, Gain, Loss,
    Speed, Tempo, Silence, Shift,
)  # fmt: skip
"""Every disturbance, in the order of the manual."""

PRESETS: Mapping[str, tuple[str, ...]] = {
    "robust": (
        *(f"{kind}:s{severity}" for kind in ("noise:white", "noise:babble", "reverb") for severity in (1, 3, 5)),
        "noise:pink:s3",
        "telephone:s3",
        "codec:gsm:s1",
        "codec:opus:s3",
        "codec:mp3:s3",
        "clip:s3",
        "gain:s3",
        "loss:s3",
        "speed:s3",
        "tempo:s3",
        "shift:s5",
    ),
}
"""Conditions of `--conditions NAME`."""

_NAMES = tuple(dict.fromkeys(each.kind for each in KINDS))
_FOLDERS: Mapping[str, type[Disturbance]] = {"noise": FolderNoise, "reverb": FolderReverb}
# A `+` joins only where a kind follows, so that a folder may have one in its name.
_JOINT = re.compile(rf"\+(?=(?:{'|'.join(_NAMES)})(?:[:+]|$))")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_SEVERITY = re.compile(r"s(\d+)")


@dataclass(frozen=True, slots=True)
class Condition:
    """Disturbances that are applied one after another.

    Attributes:
        steps: At least one.
    """

    steps: tuple[Disturbance, ...]

    @property
    def name(self) -> str:
        """Canonical text: `parse_condition(name)` equals the condition."""
        return "+".join(step.text() for step in self.steps)

    @property
    def kind(self) -> str:
        """Text without amounts: what severities are compared within (`noise:white`)."""
        return "+".join(":".join(part for part in (step.kind, step.place) if part) for step in self.steps)

    @property
    def severity(self) -> int | None:
        """Severity of the only step; None where there are several, or values were given."""
        return self.steps[0].severity if len(self.steps) == 1 else None

    @property
    def parameters(self) -> Mapping[str, float | int | str]:
        """Values by name; of several steps each with the number of its step (`2.snr`)."""
        if len(self.steps) == 1:
            return self.steps[0].parameters
        return {
            f"{place}.{name}": value
            for place, step in enumerate(self.steps, 1)
            for name, value in step.parameters.items()
        }

    @property
    def needs_voices(self) -> bool:
        """Whether a step needs sounds of other speakers."""
        return any(step.needs_voices and step.severity != 0 for step in self.steps)

    @property
    def is_identity(self) -> bool:
        """Whether every step has severity 0, so that samples stay as they are to the last bit."""
        return all(step.severity == 0 for step in self.steps)

    def key(self) -> str:
        """What the samples depend on: texts, versions of the code, and digests of folders in the place of their paths.

        Raises:
            DataError: A folder is missing or holds no sound.
        """
        return "+".join(step.key() for step in self.steps)

    def folders(self) -> tuple[Path, ...]:
        """Folders of noises and impulse responses that it reads."""
        return tuple(folder for step in self.steps if (folder := step.folder()) is not None)

    def num_samples(self, num_samples: int, rate_hz: int) -> int:
        """Number of samples after all steps, of a sound of `num_samples` at `rate_hz`."""
        for step in self.steps:
            num_samples = step.num_samples(num_samples, rate_hz)
        return num_samples

    def moved(self, seconds: float, duration: float) -> float:
        """Where an instant of a sound that lasts `duration` seconds lies after all steps, in seconds."""
        for step in self.steps:
            seconds, duration = step.moved(seconds, duration), step.lasting(duration)
        return seconds

    @property
    def moves_time(self) -> bool:
        """Whether an instant of a sound lies elsewhere after all steps."""
        return self.moved(0.5, 1.0) != 0.5

    def lasting(self, duration: float) -> float:
        """Seconds that a sound of `duration` seconds lasts after all steps, before it is rounded to samples."""
        for step in self.steps:
            duration = step.lasting(duration)
        return duration

    def apply(self, samples: Samples, rate_hz: int, random: np.random.Generator, voices: Voices) -> Samples:
        """Disturb (T,) samples by all steps.

        Args:
            samples: (T,), T at least 1; not changed.
            rate_hz: Samples per second.
            random: Everything that is drawn is drawn from it.
            voices: Gives sounds of other speakers at `rate_hz`; called only if `needs_voices`.

        Returns:
            (T',) float32 with T' = `num_samples(T, rate_hz)`; `samples` itself if `is_identity`.

        Raises:
            DataError: A folder or `voices` gives no sound that can be used, or a file of a folder cannot be read.
            EnvironmentFault: libsndfile lacks a codec.
        """
        for step in self.steps:
            samples = step.apply(samples, rate_hz, random, voices)
        return samples


def parse_condition(text: str) -> Condition:
    """Read the text of a condition. No folder is opened.

    Raises:
        UsageError: Names the kinds, variants, parameters or ranges of which the text has none.
    """
    return Condition(tuple(_step(part, text) for part in _JOINT.split(text.strip())))


def _step(part: str, text: str) -> Disturbance:
    kind, *words = part.split(":")
    if kind not in _NAMES:
        raise UsageError(
            f"There is no disturbance `{kind}`",
            key=text,
            do=f"{did_you_mean(kind, _NAMES)}The kinds: {_listed(_NAMES)}",
        )
    variants = {each.variant: each for each in KINDS if each.kind == kind}
    if words and words[0] in variants and words[0] != "FOLDER":
        return _filled(variants[words[0]], {}, ":".join(words[1:]), text)
    if "" in variants and len(words) <= 1 and not _is_folder("".join(words)):
        return _filled(variants[""], {}, "".join(words), text)
    if kind in _FOLDERS and words:
        # a folder may have a colon in its name; of a noise the last word is the amount, if it is no part of a path
        has_amount = bool(_FOLDERS[kind].ranges) and not _is_folder(words[-1])
        place, amount = (":".join(words[:-1]), words[-1]) if has_amount else (":".join(words), "")
        if _is_folder(place):
            return _filled(_FOLDERS[kind], {"path": place}, amount, text)
    names = [name for name in variants if name]
    raise UsageError(
        f"`{kind}` has no variant `{words[0] if words else ''}`",
        key=text,
        do=f"{did_you_mean(words[0] if words else '', names)}The variants: {_listed(names)}"
        + (" (a path with a slash, such as ./noises)" if kind in _FOLDERS else ""),
    )


def _is_folder(place: str) -> bool:
    # A slash tells a folder from a misspelt variant.
    return "/" in place or "\\" in place


def _filled(made: type[Disturbance], given: Mapping[str, str], amount: str, text: str) -> Disturbance:
    """The disturbance of an amount as text."""
    severity = _SEVERITY.fullmatch(amount)
    is_whole = re.fullmatch(r"\d+", amount) is not None and int(amount) in SEVERITIES
    if severity or (is_whole and made.kind != "noise") or (not amount and made.usual is not None):
        level = int(severity.group(1)) if severity else int(amount) if amount else int(made.usual or 0)
        return _at_severity(made, given, level, text)
    amount = ",".join(f"{name}={number(value)}" for name, value in made.names.get(amount, {}).items()) or amount
    if amount and "=" not in amount and made.bare is not None and _NUMBER.fullmatch(amount):
        amount = f"{made.bare}={amount}"
    values: dict[str, float] = {}
    for part in amount.split(",") if amount else []:
        name, _, value = part.partition("=")
        values[name] = _value(made, name, value, text)
    missing = [name for name, each in made.ranges.items() if each.default is None and name not in values]
    if missing:
        raise UsageError(f"`{text}` does not give `{missing[0]}`", key=text, do=_usage(made))
    if made.ranges and not values:
        raise UsageError(f"`{text}` does not say how much", key=text, do=_usage(made))
    return made(**given, **values)  # type: ignore[arg-type]  # the fields of the subclass are those of `ranges`


def _at_severity(made: type[Disturbance], given: Mapping[str, str], severity: int, text: str) -> Disturbance:
    values = {} if severity == 0 else values_of(made.kind, made.variant, severity) if severity in SEVERITIES else None
    if values is None:
        raise UsageError(f"`{text}` has no severity {severity}", key=text, do=_usage(made))
    # as the text's own values: a record of a severity and one of its values agree on types
    typed = {name: int(each) if made.ranges[name].whole else float(each) for name, each in values.items()}
    return made(**given, **typed, severity=severity)


def _value(made: type[Disturbance], name: str, value: str, text: str) -> float:
    parameter = made.ranges.get(name)
    if parameter is None:
        raise UsageError(
            f"`{_usual_text(made)}` has no parameter `{name}`",
            key=text,
            do=f"{did_you_mean(name, made.ranges)}{_usage(made)}",
        )
    if not _NUMBER.fullmatch(value):
        raise UsageError(f"`{name}` must be a number, but is `{value}`", key=text, do=_usage(made))
    wanted = float(value)
    if not parameter.low <= wanted <= parameter.high or (
        wanted not in parameter.choices if parameter.choices else parameter.whole and not wanted.is_integer()
    ):
        raise UsageError(f"`{name}` is {value}", key=text, do=_usage(made))
    return int(wanted) if parameter.whole else wanted


def _usual_text(made: type[Disturbance]) -> str:
    return f"{made.kind}:{made.variant}" if made.variant else made.kind


def _usage(made: type[Disturbance]) -> str:
    """What the amount of a kind may be, as a sentence."""
    head = _usual_text(made)
    ways = [f"{head}:s0 to {head}:s5"] if values_of(made.kind, made.variant, 1) is not None else []
    ways += [f"{head}:{name}" for name in made.names]
    for name, each in made.ranges.items():
        values = _listed([str(choice) for choice in each.choices]) or f"{number(each.low)} to {number(each.high)}"
        ways.append(f"{name}={values}{f' {each.unit}' if each.unit else ''} ({each.what})")
    return f"Write {'; or '.join(ways)}" if ways else f"Write {head}"


def _listed(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names)
