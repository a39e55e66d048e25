"""Small sound files and TextGrids for tests of corpora."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from repbench.corpora.contract import Draft, DraftUtterance

RATE_HZ = 16_000


def write_noise(path: Path, *, seed: int, seconds: float = 0.5, rate_hz: int = RATE_HZ) -> Path:
    """A WAV or FLAC of quiet noise; another seed is another sound."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * rate_hz))
    with path.open("wb") as stream:  # libsndfile itself refuses names that are not UTF-8
        soundfile.write(stream, noise, rate_hz, format=path.suffix[1:].upper(), subtype="PCM_16")
    return path


def noise_draft(root: Path, names: Sequence[str] = ("a", "b", "c")) -> Draft:
    """A draft of half-second sounds `NAME.wav` under `root`, one speaker each."""
    utterances = [
        DraftUtterance(id=name, audio=write_noise(root / f"{name}.wav", seed=seed), speaker=f"speaker-{name}")
        for seed, name in enumerate(names)
    ]
    return Draft(name="noise", licence="none", root=root, utterances=utterances)


def long_textgrid(
    intervals: Sequence[tuple[float, float, str]], *, end_s: float | None = None, tier: str = "phones"
) -> str:
    """A TextGrid in long form with an empty tier of words and one tier of `intervals`."""
    end_s = intervals[-1][1] if end_s is None else end_s
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        f"xmax = {end_s}",
        "tiers? <exists>",
        "size = 2",
        "item []:",
        *_long_tier(1, "words", [(0.0, end_s, "")], end_s),
        *_long_tier(2, tier, intervals, end_s),
    ]
    return "\n".join(lines) + "\n"


def short_textgrid(
    intervals: Sequence[tuple[float, float, str]], *, end_s: float | None = None, tier: str = "phones"
) -> str:
    """The same as `long_textgrid` in short form."""
    end_s = intervals[-1][1] if end_s is None else end_s
    lines = ['File type = "ooTextFile"', '"TextGrid"', "", "0", f"{end_s}", "<exists>", "2"]
    lines += ['"IntervalTier"', '"words"', "0", f"{end_s}", "1", "0", f"{end_s}", '""']
    lines += ['"IntervalTier"', f'"{tier}"', "0", f"{end_s}", f"{len(intervals)}"]
    for start, end, label in intervals:
        lines += [f"{start}", f"{end}", _quoted(label)]
    return "\n".join(lines) + "\n"


def _long_tier(number: int, name: str, intervals: Sequence[tuple[float, float, str]], end_s: float) -> list[str]:
    lines = [f"    item [{number}]:", '        class = "IntervalTier"', f'        name = "{name}"']
    lines += ["        xmin = 0", f"        xmax = {end_s}", f"        intervals: size = {len(intervals)}"]
    for index, (start, end, label) in enumerate(intervals, start=1):
        lines += [f"        intervals [{index}]:", f"            xmin = {start}", f"            xmax = {end}"]
        lines += [f"            text = {_quoted(label)}"]
    return lines


def _quoted(label: str) -> str:
    return '"' + label.replace('"', '""') + '"'


def sphere_bytes(samples: npt.NDArray[Any], **changes: int | str) -> bytes:
    """A NIST SPHERE file of 16-bit samples (T,) or (T, C), written byte by byte; `changes` are fields of its header."""
    fields: dict[str, int | str] = {
        "database_id": "TIMIT",
        "database_version": "1.0",
        "channel_count": 1 if samples.ndim == 1 else samples.shape[1],
        "sample_count": len(samples),
        "sample_rate": RATE_HZ,
        "sample_n_bytes": 2,
        "sample_byte_format": "01",
        "sample_sig_bits": 16,
        **changes,
    }
    lines = ["NIST_1A", "   1024"]
    for name, value in fields.items():
        lines.append(f"{name} -i {value}" if isinstance(value, int) else f"{name} -s{len(value)} {value}")
    header = "\n".join([*lines, "end_head", ""]).encode("ascii")
    return header.ljust(1024, b" ") + samples.astype(">i2" if fields["sample_byte_format"] == "10" else "<i2").tobytes()


def write_sphere(path: Path, *, seed: int, seconds: float = 0.5) -> Path:
    """A SPHERE file of quiet noise, whatever its name; another seed is another sound."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-16_000, 16_000, round(seconds * RATE_HZ))
    path.write_bytes(sphere_bytes(noise))
    return path


def write_text(path: Path, *lines: str) -> Path:
    """A text file of `lines`, in a folder that is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path
