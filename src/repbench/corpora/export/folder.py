"""The folder of an export: files written where they are not yet visible, and the sounds that must be written again."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from repbench.audio.sound import ENDINGS, Samples, measure, read_sound
from repbench.audio.table_files import place_of_cell, read_cell
from repbench.corpora.contract import Utterance
from repbench.errors import DataError, IntegrityError

SOUNDS = "audio"


@dataclass(frozen=True, slots=True)
class ExportFolder:
    """The folder of an export.

    Attributes:
        now: Where its files are written.
        later: Where they are once the export is whole.
    """

    now: Path
    later: Path

    def write_text(self, name: str, text: str) -> None:
        """Write a file in UTF-8."""
        path = self.now / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8"))

    @contextlib.contextmanager
    def json_lines(self, name: str) -> Iterator[_JsonLines]:
        """A packed file of JSON lines, the same bytes for the same lines."""
        with (
            (self.now / name).open("wb") as plain,
            # neither name nor time in its header
            gzip.GzipFile(filename="", mode="wb", fileobj=plain, mtime=0) as packed,
        ):
            yield _JsonLines(packed)

    def sound(self, utterance: Utterance, number: int) -> Path:
        """Write the sound of an utterance into the folder, and return its later place."""
        content, ending = sound_file(utterance)
        # by number, since an id may be no name of a file
        name = f"{SOUNDS}/{number:06d}{ending}"
        path = self.now / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return self.later / name


class _JsonLines:
    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream = stream

    def add(self, fields: Mapping[str, Any]) -> None:
        """Write one object."""
        self._stream.write(json.dumps(fields, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n")


def is_whole_file(utterance: Utterance) -> bool:
    """Whether the utterance is the only channel of a file from its start to its end."""
    return utterance.start is None and utterance.end is None and utterance.channel is None


def needs_writing(utterance: Utterance) -> bool:
    """Whether no file can stand for the sound: a cell of a table, or a mean of channels."""
    return utterance.channel == "mix" or place_of_cell(utterance.audio) is not None


def sound_file(utterance: Utterance) -> tuple[bytes, str]:
    """A sound file that decodes to exactly the samples of the utterance, and the ending of its name.

    A file that the utterance is as a whole is copied, byte for byte; else its samples are written as FLAC of 16 or 24
    bits if these hold them, or as WAV of floats.

    Raises:
        DataError: The sound is not that of which the manifest was made.
    """
    if is_whole_file(utterance):
        found = measure(utterance.audio, utterance=utterance.id)
        _refuse_other_samples(found.samples_sha256, utterance)
        cell = place_of_cell(utterance.audio)
        content = utterance.audio.read_bytes() if cell is None else read_cell(cell, utterance=utterance.id)
        ending = utterance.audio.suffix.lower()
        return content, ending if ending in ENDINGS else f".{found.kind.lower().partition(' ')[0]}"
    samples, rate_hz = read_sound(
        utterance.audio,
        start=utterance.start,
        end=utterance.end,
        utterance=utterance.id,
        channel=utterance.channel,
    )
    _refuse_other_samples(_digest(samples), utterance)
    return encoded(samples, rate_hz, utterance=utterance.id)


def encoded(samples: Samples, rate_hz: int, *, utterance: str | None = None) -> tuple[bytes, str]:
    """A file that decodes to exactly the given samples (T,), and the ending of its name; errors as `sound_file`."""
    import soundfile

    stream = io.BytesIO()
    for bits, subtype in ((16, "PCM_16"), (24, "PCM_24")):
        # (T,) float32 -> whole numbers, where 1.0 would be one too many
        scaled = samples.astype(np.float64) * 2 ** (bits - 1)
        if np.array_equal(scaled, np.round(scaled)) and scaled.max() < 2 ** (bits - 1):
            # libsndfile takes the upper bits of 32
            whole = scaled.astype(np.int32) << (32 - bits)
            soundfile.write(stream, whole, rate_hz, format="FLAC", subtype=subtype)
            ending = ".flac"
            break
    else:
        soundfile.write(stream, samples, rate_hz, format="WAV", subtype="FLOAT")
        ending = ".wav"
    stream.seek(0)
    again, _ = soundfile.read(stream, dtype="float32")
    if _digest(again) != _digest(samples):
        what = f"libsndfile {soundfile.__libsndfile_version__} does not give back the samples that it wrote"
        raise IntegrityError(what, utterance=utterance, do="Use another version of soundfile")
    return stream.getvalue(), ending


def _digest(samples: Samples) -> str:
    return hashlib.sha256(np.ascontiguousarray(samples, dtype="<f4").data).hexdigest()


def _refuse_other_samples(found: str, utterance: Utterance) -> None:
    if found != utterance.samples_sha256:
        what = "The sound is not the one that the manifest was made of"
        raise DataError(what, file=utterance.audio, utterance=utterance.id, do="Prepare the corpus again")


def recording_ids(utterances: tuple[Utterance, ...]) -> dict[Path, str]:
    """A name for each sound file: the id of its only utterance, or the stem of the file, all different."""
    by_file: dict[Path, list[str]] = {}
    for utterance in utterances:
        by_file.setdefault(utterance.audio, []).append(utterance.id)
    taken = {ids[0] for ids in by_file.values() if len(ids) == 1}
    names: dict[Path, str] = {}
    for file, ids in by_file.items():
        if len(ids) == 1:
            names[file] = ids[0]
            continue
        name, number = file.stem, 2
        while name in taken:
            name, number = f"{file.stem}-{number}", number + 1
        taken.add(name)
        names[file] = name
    return names
