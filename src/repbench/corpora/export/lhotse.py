"""A corpus as manifests of lhotse: cuts, and the same as recordings and supervisions.

The cuts hold everything: one an utterance, with its labels in a supervision of the same id. Of an utterance with turns
each turn is a supervision. lhotse has no field for splits and groups; they are in `custom`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from repbench.audio.sound import inspect
from repbench.corpora.contract import Corpus, Progress, Utterance
from repbench.corpora.durations import duration_to
from repbench.corpora.export.folder import ExportFolder, needs_writing, recording_ids
from repbench.corpora.exported_facts import FACTS_FILE, facts_of

CUTS, RECORDINGS, SUPERVISIONS = "cuts.jsonl.gz", "recordings.jsonl.gz", "supervisions.jsonl.gz"

_NATIVE = ("gender", "language")


def write(corpus: Corpus, folder: ExportFolder, progress: Progress | None) -> tuple[str, ...]:
    """Write the manifests; errors as `repbench.corpora.export.export`."""
    ids = recording_ids(corpus.utterances)
    recordings: dict[Path, dict[str, Any]] = {}
    num_written = 0
    with folder.json_lines(CUTS) as cuts, folder.json_lines(SUPERVISIONS) as supervisions:
        for number, utterance in enumerate(corpus.utterances):
            start_s, channel = utterance.start or 0.0, 0
            if needs_writing(utterance):
                audio, start_s = folder.sound(utterance, number), 0.0
                recording = _written(utterance, audio)
                recordings[audio] = recording
                num_written += 1
            else:
                audio = utterance.audio
                if audio not in recordings:
                    recordings[audio] = _recording(utterance, ids[audio])
                recording = recordings[audio]
                channel = utterance.channel - 1 if isinstance(utterance.channel, int) else 0
            found = list(_supervisions(utterance, recording["id"], channel))
            cuts.add(_cut(utterance, recording, start_s, channel, found))
            for each in found:
                supervisions.add(_in_recording(each, start_s))
            if progress is not None:
                progress(number + 1, len(corpus.utterances))
    with folder.json_lines(RECORDINGS) as lines:
        for recording in recordings.values():
            lines.add(recording)
    folder.write_text(FACTS_FILE, facts_of(corpus).decode("utf-8"))
    return tuple(_notes(corpus, num_written))


def _recording(utterance: Utterance, identifier: str) -> dict[str, Any]:
    info = inspect(utterance.audio, utterance=utterance.id, any_channels=True)
    channels = list(range(info.num_channels))
    return {
        "id": identifier,
        "sources": [{"type": "file", "channels": channels, "source": str(utterance.audio)}],
        "sampling_rate": info.sample_rate_hz,
        "num_samples": info.num_samples,
        "duration": info.seconds,
        "channel_ids": channels,
    }


def _written(utterance: Utterance, audio: Path) -> dict[str, Any]:
    return {
        "id": utterance.id,
        "sources": [{"type": "file", "channels": [0], "source": str(audio)}],
        "sampling_rate": utterance.sample_rate_hz,
        "num_samples": utterance.num_samples,
        "duration": utterance.seconds,
        "channel_ids": [0],
    }


def _cut(
    utterance: Utterance, recording: Mapping[str, Any], start_s: float, channel: int, supervisions: Iterable[Any]
) -> dict[str, Any]:
    custom = {
        "split": utterance.split,
        "group": utterance.group,
        # told apart from an utterance whose turns are not known
        "turns": None if utterance.turns is None else len(utterance.turns),
    }
    return {
        "id": utterance.id,
        "start": start_s,
        "duration": utterance.seconds,
        "channel": channel,
        "supervisions": list(supervisions),
        "recording": recording,
        "custom": _known(custom),
        "type": "MonoCut",
    }


def _supervisions(utterance: Utterance, recording: str, channel: int) -> Iterator[dict[str, Any]]:
    """Those of an utterance, their times from its start."""
    place = {"recording_id": recording, "channel": channel}
    native = {name: value for name in _NATIVE if isinstance(value := utterance.attributes.get(name), str)}
    labels = {
        "text": utterance.text,
        "speaker": utterance.speaker,
        **native,
        "custom": {name: value for name, value in utterance.attributes.items() if name not in native} or None,
        "alignment": _alignment(utterance),
    }
    if utterance.turns is None or _known(labels):
        yield {"id": utterance.id, **place, "start": 0.0, "duration": utterance.seconds, **_known(labels)}
    for number, turn in enumerate(utterance.turns or (), start=1):
        yield {
            "id": f"{utterance.id}-turn-{number}",
            **place,
            "start": turn.start_s,
            "duration": duration_to(turn.start_s, turn.end_s),
            "speaker": turn.speaker,
        }


def _alignment(utterance: Utterance) -> dict[str, Any] | None:
    if utterance.phones is None:
        return None
    return {
        "phone": [[phone.label, phone.start_s, duration_to(phone.start_s, phone.end_s)] for phone in utterance.phones]
    }


def _in_recording(supervision: Mapping[str, Any], start_s: float) -> dict[str, Any]:
    """A supervision with its times from the start of the recording."""
    if not start_s:
        return dict(supervision)
    moved = {**supervision, "start": supervision["start"] + start_s}
    if "alignment" in supervision:
        phones = supervision["alignment"]["phone"]
        moved["alignment"] = {"phone": [[label, start + start_s, duration] for label, start, duration in phones]}
    return moved


def _known(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _notes(corpus: Corpus, num_written: int) -> Iterator[str]:
    num_referred = len(corpus.utterances) - num_written
    if num_referred:
        yield f"the sounds of {num_referred} utterances stay where they are; the manifests have their absolute paths"
    if num_written:
        yield f"the sounds of {num_written} utterances are written into audio/: they are no file, or a mean of channels"
    if corpus.features is not None:
        yield f"left out: the precomputed features `{corpus.features.name}`"
