"""The layout `lhotse`, on manifests written by hand as lhotse writes them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from repbench.corpora import manifest
from repbench.corpora.contract import CorpusLayout, DraftUtterance, Phone, PrepareOptions, Turn
from repbench.corpora.layouts.lhotse import LHOTSE
from repbench.corpora.manifest.prepare import prepare
from repbench.errors import DataError, UsageError
from tests.corpora.scored import prepared
from tests.corpora.sounds import write_noise


def write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def recording(root: Path, name: str, *, seed: int = 0, channels: int = 1, seconds: float = 2.0) -> dict[str, Any]:
    """A recording of noise under the root, and its line."""
    path = root / "wav" / f"{name}.wav"
    if channels == 1:
        write_noise(path, seed=seed, seconds=seconds)
    else:
        path.parent.mkdir(exist_ok=True)
        noise = np.random.default_rng(seed).uniform(-0.5, 0.5, (round(16_000 * seconds), channels))
        soundfile.write(path, noise, 16_000)
    numbers = list(range(channels))
    return {
        "id": name,
        "sources": [{"type": "file", "channels": numbers, "source": f"wav/{name}.wav"}],
        "sampling_rate": 16_000,
        "num_samples": round(16_000 * seconds),
        "duration": seconds,
        "channel_ids": numbers,
    }


def supervision(name: str, of: str, start: float = 0.0, duration: float = 2.0, **fields: Any) -> dict[str, Any]:
    return {"id": name, "recording_id": of, "start": start, "duration": duration, "channel": 0, **fields}


def cut(name: str, of: dict[str, Any], start: float = 0.0, duration: float = 2.0, **fields: Any) -> dict[str, Any]:
    line = {"id": name, "start": start, "duration": duration, "channel": 0, "recording": of, "type": "MonoCut"}
    return {"supervisions": [], **line, **fields}


def described(root: Path, options: PrepareOptions | None = None) -> dict[str, DraftUtterance]:
    return {each.id: each for each in prepare(LHOTSE, root, options or PrepareOptions()).utterances}


def test_it_is_a_layout() -> None:
    assert isinstance(LHOTSE, CorpusLayout)


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz"])
def test_supervisions_are_utterances(tmp_path: Path, ending: str) -> None:
    write_lines(
        tmp_path / f"recordings{ending}", [recording(tmp_path, "r1"), recording(tmp_path, "r2", seed=1, seconds=1.0)]
    )
    phones = [["AA1", 0.5, 0.25], {"symbol": "B", "start": 0.75, "duration": 0.75}, ["SIL", 1.5, 0.5, 0.9]]
    lines = [
        supervision(
            "u1", "r1", 0.5, 1.5, text="hello", speaker="s1", gender="F", language="en",
            custom={"snr": 12.5, "good": True, "more": {"a": 1}},
            alignment={"phone": phones, "word": [["HELLO", 0.5, 1.5]]},
        ),
        supervision("u0", "r1", 0.0, 0.5, speaker="s2"),
        supervision("u2", "r2", 0.0, 1.0, text=None),
    ]  # fmt: skip
    path = write_lines(tmp_path / f"supervisions{ending}", lines)
    found = described(tmp_path)
    assert found["u1"] == DraftUtterance(
        id="u1",
        audio=tmp_path / "wav" / "r1.wav",
        start=0.5,
        end=2.0,
        text="hello",
        speaker="s1",
        group="r1",
        phones=(Phone(0.0, 0.25, "AA1"), Phone(0.25, 1.0, "B"), Phone(1.0, 1.5, "SIL")),
        attributes={"gender": "F", "language": "en", "snr": 12.5, "good": "true"},
        where=f"{path}:1",
    )
    assert (found["u2"].start, found["u2"].end, found["u2"].group) == (None, None, None)
    draft = LHOTSE.prepare(tmp_path, PrepareOptions())
    assert draft.notes[:2] == (
        "1 alignments `word` are not read",
        "`custom` of 1 lines holds `more`, a list or an object, which is not read",
    )
    corpus = prepared(LHOTSE, tmp_path, tmp_path / "manifest")
    assert [[phone.label for phone in each.phones or ()] for each in corpus.utterances] == [[], ["AA", "B", "sil"], []]


def test_cuts_are_utterances_with_start_duration_and_channel(tmp_path: Path) -> None:
    stereo = recording(tmp_path, "call", channels=2)
    label = supervision("s", "call", 0.25, 0.5, speaker="ann", text="yes", alignment={"phones": [["Y", 0.25, 0.5]]})
    lines = [
        cut("left", stereo, 0.5, 1.0, supervisions=[label], custom={"split": "test", "group": "g", "take": 3}),
        cut("right", stereo, channel=1),
    ]
    write_lines(tmp_path / "cuts.jsonl.gz", lines)
    # the supervisions beside them are not read a second time
    write_lines(tmp_path / "recordings.jsonl.gz", [stereo])
    write_lines(tmp_path / "supervisions.jsonl.gz", [label])
    found = described(tmp_path)
    left, right = found["left"], found["right"]
    assert (left.start, left.end, left.channel, left.speaker, left.text) == (0.5, 1.5, 1, "ann", "yes")
    assert (left.split, left.group, left.attributes, left.phones) == (
        "test",
        "g",
        {"take": 3},
        (Phone(0.25, 0.75, "Y"),),
    )
    assert (right.start, right.end, right.channel, right.speaker) == (None, None, 2, None)
    sound, _ = soundfile.read(tmp_path / "wav" / "call.wav", dtype="float32")
    corpus = manifest.write(prepare(LHOTSE, tmp_path, PrepareOptions(keep_labels=True)), tmp_path / "manifest")
    from repbench.corpora.read import read_utterance

    np.testing.assert_array_equal(read_utterance(corpus.utterances[0], 16_000).numpy(), sound[8_000:24_000, 0])
    np.testing.assert_array_equal(read_utterance(corpus.utterances[1], 16_000).numpy(), sound[:, 1])


def test_several_channels_are_refused_or_chosen(tmp_path: Path) -> None:
    stereo = recording(tmp_path, "call", channels=2)
    write_lines(tmp_path / "cuts.jsonl", [cut("both", stereo, channel=[0, 1], type="MultiCut")])
    with pytest.raises(DataError, match=r"has 2 channels, but one is read.*--channel"):
        manifest.write(prepare(LHOTSE, tmp_path, PrepareOptions()), tmp_path / "manifest")
    corpus = manifest.write(prepare(LHOTSE, tmp_path, PrepareOptions(channel="mix")), tmp_path / "manifest")
    assert corpus.utterances[0].channel == "mix"


def test_a_channel_may_be_a_file_of_its_own(tmp_path: Path) -> None:
    one, two = recording(tmp_path, "one"), recording(tmp_path, "two", seed=1)
    both = {**one, "id": "both", "sources": [*one["sources"], {**two["sources"][0], "channels": [1]}]}
    write_lines(tmp_path / "cuts.jsonl", [cut("a", both), cut("b", both, channel=1)])
    found = described(tmp_path)
    assert [(each.audio.name, each.channel) for each in found.values()] == [("one.wav", None), ("two.wav", None)]


def test_a_cut_of_several_speakers_has_turns(tmp_path: Path) -> None:
    whole = recording(tmp_path, "r")
    lines = [supervision("1", "r", -0.5, 1.0, speaker="a", text="x"), supervision("2", "r", 0.25, 5.0, speaker="b")]
    nameless = [lines[0], supervision("3", "r", 1.0, 0.5)]
    write_lines(tmp_path / "cuts.jsonl", [cut("c", whole, supervisions=lines), cut("d", whole, supervisions=nameless)])
    found = described(tmp_path)
    assert found["c"].turns == (Turn(0.0, 0.5, "a"), Turn(0.25, 2.0, "b"))
    assert (found["c"].speaker, found["c"].text, found["d"].turns) == (None, None, None)
    assert "1 cuts of several supervisions have no turns" in LHOTSE.prepare(tmp_path, PrepareOptions()).notes[0]


def test_parts_are_splits(tmp_path: Path) -> None:
    for seed, part in enumerate(("train-clean-100", "dev-other", "test")):
        write_lines(tmp_path / f"libri_recordings_{part}.jsonl", [recording(tmp_path, part, seed=seed)])
        write_lines(tmp_path / f"libri_supervisions_{part}.jsonl", [supervision(part, part)])
    assert {name: each.split for name, each in described(tmp_path).items()} == {
        "train-clean-100": "train", "dev-other": "dev", "test": "test",
    }  # fmt: skip


def test_another_alignment_is_named(tmp_path: Path) -> None:
    whole = recording(tmp_path, "r")
    write_lines(tmp_path / "recordings.jsonl", [whole])
    line = supervision("u", "r", alignment={"subword": [["_a", 0.0, 2.0]], "word": [["a", 0.0, 2.0]]})
    write_lines(tmp_path / "supervisions.jsonl", [line])
    found = described(tmp_path, PrepareOptions(tier="subword"))
    assert found["u"].phones == (Phone(0.0, 2.0, "_a"),)
    with pytest.raises(UsageError, match=r"No supervision has an alignment `phon` \(there are: subword, word\)"):
        described(tmp_path, PrepareOptions(tier="phon"))


def test_recordings_alone_are_a_corpus_without_labels(tmp_path: Path) -> None:
    write_lines(tmp_path / "recordings.jsonl", [recording(tmp_path, "r")])
    (found,) = described(tmp_path).values()
    assert (found.id, found.start, found.end, found.text) == ("r", None, None, None)


def test_rounded_durations_are_the_whole_sound_or_are_cut(tmp_path: Path) -> None:
    one = recording(tmp_path, "a", seconds=2.0)
    write_lines(tmp_path / "cuts.jsonl", [cut("a", one, 0.0, 2.00001), cut("b", one, 1.0, 1.3)])
    found = described(tmp_path)
    assert (found["a"].end, found["b"].end) == (None, 2.0)
    assert "1 of 2 utterances end past their sound and are cut" in LHOTSE.prepare(tmp_path, PrepareOptions()).notes[0]


BROKEN: dict[str, tuple[dict[str, Any], dict[str, Any], str | None]] = {
    "sampling_rate": ({"sampling_rate": 8_000}, {}, r"states a sampling rate of 8000 Hz, but .*r.wav has 16000 Hz"),
    "num_samples": ({"num_samples": 31_000}, {}, r"states 31000 samples, but .*r.wav has 32000"),
    "gone": ({"sources": [{"type": "file", "channels": [0], "source": "x.wav"}]}, {}, "The sound file is missing"),
    "outside": ({"sources": [{"type": "file", "channels": [0], "source": "/x/y.wav"}]}, {}, "--root /x --table"),
    "command": ({"sources": [{"type": "command", "channels": [0], "source": "cat"}]}, {}, "a source of type `command`"),
    "sources": ({"sources": "x.wav"}, {}, "`sources` must be a list of sound files"),
    "transforms": ({"transforms": [{"name": "Speed"}]}, {}, "transformed as it is read"),
    "mixed": ({}, {"type": "MixedCut"}, "must be a MonoCut or MultiCut of a recording, but is a MixedCut"),
    "padding": ({}, {"recording": None}, "but is a MonoCut without one"),
    "start": ({}, {"start": -1.0}, r"`start` must be seconds from 0, but is -1.0"),
    "duration": ({}, {"duration": "1"}, r"`duration` must be seconds from 0, but is '1'"),
    "channel": ({}, {"channel": "left"}, "`channel` must be a number from 0"),
    "id": ({}, {"id": ""}, "`id` must be a text that is not empty"),
    "far": ({}, {"start": 1.0, "duration": 9.0}, "does not lie in the file, which lasts 2 s"),
    "supervisions": ({}, {"supervisions": ["x"]}, "`supervisions` must be a list of objects"),
    "custom": ({}, {"custom": [1]}, "`custom` must be an object"),
    "text": ({}, {"supervisions": [supervision("s", "r", text=3)]}, "`text` must be a text, but is 3"),
    "alignment": ({}, {"supervisions": [supervision("s", "r", alignment=[])]}, None),
    "items": (
        {},
        {"supervisions": [supervision("s", "r", alignment={"phone": [["AA", 0.0]]})]},
        r"Item 1 of the alignment `phone` must be symbol, start and duration, but is \['AA', 0.0\]",
    ),
    "past the end": (
        {},
        {"supervisions": [supervision("s", "r", alignment={"phone": [["AA", 0.0, 1.0], ["B", 1.0, 1.5]]})]},
        r"Interval 2 ends at 2.5 s, but the sound lasts 2 s",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_line_names_file_and_line(tmp_path: Path, name: str) -> None:
    in_recording, in_cut, message = BROKEN[name]
    good = cut("good", recording(tmp_path, "q", seed=7))
    bad = {**cut("u", {**recording(tmp_path, "r"), **in_recording}), **in_cut}
    write_lines(tmp_path / "cuts.jsonl.gz", [good, bad])
    draft = prepare(LHOTSE, tmp_path, PrepareOptions())
    if message is None:
        assert len(manifest.write(draft, tmp_path / "manifest").utterances) == 2
        return
    # of a sound itself the error names the sound
    where = r"wav" if name in ("gone", "far") else r"cuts\.jsonl\.gz:2"
    with pytest.raises(DataError, match=rf"{message}.*{where}|{message}"):
        manifest.write(draft, tmp_path / "manifest")
    with pytest.raises(DataError) as caught:
        manifest.write(draft, tmp_path / "manifest")
    error = caught.value.faults[0] if caught.value.faults else caught.value
    assert (error.file or "").endswith(("cuts.jsonl.gz:2", ".wav"))
    assert [each.id for each in manifest.write(draft, tmp_path / "m", drop_faulty=1).utterances] == ["good"]


def test_a_supervision_of_no_recording_is_refused(tmp_path: Path) -> None:
    write_lines(tmp_path / "recordings.jsonl", [recording(tmp_path, "r")])
    write_lines(tmp_path / "supervisions.jsonl", [supervision("u", "r"), supervision("v", "gone")])
    with pytest.raises(DataError, match=r"`gone` of the supervision is not in recordings.jsonl .*supervisions.jsonl:2"):
        LHOTSE.prepare(tmp_path, PrepareOptions())
    write_lines(tmp_path / "supervisions.jsonl", [supervision("u", "r"), supervision("u", "r", 1.0, 0.5)])
    with pytest.raises(DataError, match=r"`u` occurs twice: for .*supervisions.jsonl:1 and for .*supervisions.jsonl:2"):
        manifest.write(prepare(LHOTSE, tmp_path, PrepareOptions()), tmp_path / "manifest")
    write_lines(tmp_path / "recordings.jsonl", [recording(tmp_path, "r"), recording(tmp_path, "r")])
    with pytest.raises(DataError, match=r"The recording `r` occurs twice, first in .*recordings.jsonl:1.*jsonl:2"):
        LHOTSE.prepare(tmp_path, PrepareOptions())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b'{"id": "a"}\n' * 500)[:-20], "cut short or broken after line"),
        (gzip.compress(b"{}\n")[:-8] + bytes(8), "cut short or broken after line"),
        (b'{"id": "a"\n', r"not valid JSON.*cuts.jsonl.gz:1"),
        (b'\n{"id": NaN}\n', r"NaN is not a number.*cuts.jsonl.gz:2"),
        (b'{"id": "a", "id": "b"}\n', r"a key occurs twice.*cuts.jsonl.gz:1"),
        (b'["a"]\n', r"not a JSON object.*cuts.jsonl.gz:1"),
        (b'{"id": "\xff"}\n', r"not valid JSON.*cuts.jsonl.gz:1"),
        (b"[" * 100_000, r"not valid JSON: it is nested too deeply|not valid JSON"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-LFS|Git LFS|git LFS"),
    ],
    ids=["cut", "checksum", "syntax", "nan", "twice", "list", "latin", "deep", "pointer"],
)  # fmt: skip
def test_a_broken_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "cuts.jsonl.gz").write_bytes(content)
    with pytest.raises(DataError, match=message):
        LHOTSE.prepare(tmp_path, PrepareOptions(gather_faults=True))


def test_a_line_is_read_up_to_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repbench.corpora.layouts.json_lines.MAX_LINE_BYTES", 1_000)
    (tmp_path / "cuts.jsonl.gz").write_bytes(gzip.compress(b'{"id": "' + b"a" * 1_000_000 + b'"}'))
    with pytest.raises(DataError, match="The line has more than 1000 bytes"):
        LHOTSE.prepare(tmp_path, PrepareOptions())


def test_a_folder_without_manifests_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There must be cuts\*.jsonl, or recordings.*but there are: none"):
        LHOTSE.prepare(tmp_path, PrepareOptions())
    write_lines(tmp_path / "supervisions.jsonl", [supervision("u", "r")])
    with pytest.raises(DataError, match=r"but there are: supervisions\.jsonl"):
        LHOTSE.prepare(tmp_path, PrepareOptions())
    write_lines(tmp_path / "cuts.jsonl", [])
    write_lines(tmp_path / "cuts.jsonl.gz", [])
    with pytest.raises(DataError, match="Two files are the cuts of one part"):
        LHOTSE.prepare(tmp_path, PrepareOptions())


def test_a_file_of_cuts_may_have_any_name(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "my.jsonl", [cut("u", recording(tmp_path, "r"))])
    assert list(described(tmp_path, PrepareOptions(table=path))) == ["u"]
