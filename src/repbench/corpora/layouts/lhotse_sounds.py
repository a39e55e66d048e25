"""Recordings of lhotse's manifests: the sound file and the channel of one, compared with what its line states."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from repbench.audio.sound import Channel, SoundInfo, inspect
from repbench.corpora.layouts.json_lines import JsonLine
from repbench.corpora.safe_paths import RootFolder, common_folder
from repbench.errors import DataError, quoted

DURATION_TOLERANCE_S = 0.025
"""By how much a sound may differ from its line, in seconds; lhotse's own bound."""

_SAVE = "Write the sounds to files first, as lhotse's `CutSet.save_audios(DIR)` does"


class LhotseSound(NamedTuple):
    """The file of a channel of a recording, the channel in the file (None: the only one), and its header."""

    audio: Path
    channel: Channel | None
    info: SoundInfo


class Recordings:
    """The sounds of recordings, each file opened once.

    Args:
        folder: The root of the paths.
        manifest: The file or folder of the manifests, for errors.
    """

    def __init__(self, folder: RootFolder, manifest: Path) -> None:
        self._folder = folder
        self._manifest = manifest
        self._infos: dict[Path, SoundInfo] = {}

    def sound(self, line: JsonLine, channel: int | None, utterance: str) -> LhotseSound:
        """The sound of one channel of a recording.

        Args:
            line: The recording.
            channel: From 0 on; None: the only one, or it is left to the user.
            utterance: Id of the utterance, for errors.

        Raises:
            DataError: The recording has no file, is transformed, differs from its file, or has no such channel.
        """
        fields, where = line
        if fields.get("transforms"):
            what = "The recording is transformed as it is read (`transforms`), which is not done here"
            raise DataError(what, file=where, utterance=utterance, key="transforms", do=_SAVE)
        source = _source(fields, channel, where, utterance)
        audio = self._path(source, where, utterance)
        if audio not in self._infos:
            self._infos[audio] = inspect(audio, utterance=utterance, any_channels=True)
        info = self._infos[audio]
        _refuse_other_sound(fields, info, audio, where, utterance)
        if info.num_channels == 1 or channel is None:
            return LhotseSound(audio, None, info)
        # the place of the channel in its own file
        channels = source.get("channels")
        number = channels.index(channel) + 1 if isinstance(channels, list) and channel in channels else channel + 1
        return LhotseSound(audio, number, info)

    def _path(self, source: Mapping[str, Any], where: str, utterance: str) -> Path:
        kind, place = source.get("type"), source.get("source")
        if kind != "file" or not isinstance(place, str):
            what = f"A sound must be a file, but is a source of type `{kind}`"
            raise DataError(what, file=where, utterance=utterance, key="sources", do=_SAVE)
        try:
            return self._folder.locate(place, file=where, utterance=utterance)
        except DataError as error:
            if not place.startswith("/") or self._folder.holds(place):
                raise
            above = quoted(common_folder([place]) or "/")
            do = f"Give the folder of all sounds and that of the manifests: --root {above} --table {self._manifest}"
            raise DataError(error.what, file=where, utterance=utterance, key="sources", do=do) from error


def _source(fields: Mapping[str, Any], channel: int | None, where: str, utterance: str) -> Mapping[str, Any]:
    """The source that holds a channel: a recording has one file for all, or several."""
    sources = fields.get("sources")
    if not isinstance(sources, list) or not sources or not all(isinstance(each, dict) for each in sources):
        what = "`sources` must be a list of sound files"
        raise DataError(what, file=where, utterance=utterance, key="sources", do="Write the recording again")
    if len(sources) == 1:
        return dict(sources[0])
    found = [each for each in sources if channel in _whole_numbers(each.get("channels"))]
    if channel is None or len(found) != 1:
        what = f"The recording has {len(sources)} files, and {len(found)} of them hold channel {channel}"
        raise DataError(what, file=where, utterance=utterance, key="sources", do="Give the channel in the manifest")
    return dict(found[0])


def _whole_numbers(value: Any) -> list[int]:
    return [each for each in value if type(each) is int] if isinstance(value, list) else []


def _refuse_other_sound(fields: Mapping[str, Any], info: SoundInfo, audio: Path, where: str, utterance: str) -> None:
    """Refuse a file that is not the one that the line of its recording was written of."""
    rate = fields.get("sampling_rate")
    if rate != info.sample_rate_hz:
        what = f"The line states a sampling rate of {rate} Hz, but {audio} has {info.sample_rate_hz} Hz"
        do = "Make the recording again: Recording.from_file(PATH)"
        raise DataError(what, file=where, utterance=utterance, key="sampling_rate", do=do)
    stated = fields.get("num_samples")
    if type(stated) is not int or abs(stated - info.num_samples) > DURATION_TOLERANCE_S * info.sample_rate_hz:
        what = f"The line states {stated} samples, but {audio} has {info.num_samples}"
        do = "Make the recording again: Recording.from_file(PATH)"
        raise DataError(what, file=where, utterance=utterance, key="num_samples", do=do)
