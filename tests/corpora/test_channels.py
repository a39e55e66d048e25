"""Sounds of several channels in a corpus: refused, or read by a channel that the manifest and records name."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from repbench.audio.sound import Channel, read_sound
from repbench.corpora import manifest
from repbench.corpora.audit.check import check
from repbench.corpora.contract import Draft, DraftUtterance, PrepareOptions
from repbench.corpora.layouts.pattern import PATTERN
from repbench.corpora.manifest.prepare import prepare
from repbench.corpora.read import check_rates, read_utterance
from repbench.errors import DataError
from tests.commands import repbench
from tests.corpora.sounds import RATE_HZ, noise_draft, write_noise


def write_stereo(path: Path, *, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, (RATE_HZ // 2, 2))
    soundfile.write(path, noise, RATE_HZ, subtype="PCM_16")
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A stereo sound between two mono ones, as in RAVDESS."""
    write_noise(tmp_path / "sounds" / "s1_a.wav", seed=1)
    write_stereo(tmp_path / "sounds" / "s2_b.wav", seed=2)
    write_noise(tmp_path / "sounds" / "s3_c.wav", seed=3)
    return tmp_path / "sounds"


def drafted(root: Path, channel: Channel | None) -> Draft:
    return prepare(PATTERN, root, PrepareOptions(pattern="{speaker}_{take}.wav", channel=channel))


def test_a_sound_of_two_channels_is_refused_by_default(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has 2 channels.*s2_b.*`--channel N` or `--channel mix`"):
        manifest.write(drafted(root, None), tmp_path / "out")


@pytest.mark.parametrize(
    ("channel", "read"), [(1, "channel 1 is read"), (2, "channel 2 is read"), ("mix", "their mean is read")]
)
def test_the_channel_stands_in_the_manifest_where_there_are_several(
    root: Path, tmp_path: Path, channel: Channel, read: str
) -> None:
    for each in ("s1_a.wav", "s3_c.wav") if channel == 2 else ():
        (root / each).unlink()
    made = manifest.write(drafted(root, channel), tmp_path / "out")
    opened = manifest.read(tmp_path / "out")
    assert opened == made
    of = {each.id: each.channel for each in opened.utterances}
    assert of == ({"s2_b": 2} if channel == 2 else {"s1_a": None, "s2_b": channel, "s3_c": None})
    note = f"1 of {len(of)} sounds have several channels: {read}"
    assert opened.notes == (note,)
    assert check_rates(opened, "mel", RATE_HZ) == (note,)
    stereo = next(each for each in opened.utterances if each.channel is not None)
    heard = read_utterance(stereo, RATE_HZ, whole=True).numpy()
    np.testing.assert_array_equal(heard, read_sound(root / "s2_b.wav", channel=channel)[0])
    assert check(opened).problems == ()
    assert manifest.move(tmp_path / "out", root).fingerprint == made.fingerprint


def test_a_channel_that_a_sound_does_not_have_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Channel 2 is selected, but the sound has 1 channel.*utterance s1_a"):
        manifest.write(drafted(root, 2), tmp_path / "out")


def test_a_layout_may_cut_both_sides_of_a_call_out_of_one_file(tmp_path: Path) -> None:
    call = write_stereo(tmp_path / "call.wav", seed=5)
    sides = [DraftUtterance(id=f"side-{side}", audio=call, end=0.25, channel=side) for side in (1, 2)]
    made = manifest.write(replace(noise_draft(tmp_path, []), utterances=sides), tmp_path / "out")
    assert [each.channel for each in manifest.read(tmp_path / "out").utterances] == [1, 2]
    assert check(made).problems == ()  # the two do not overlap


def test_the_fingerprint_is_that_of_the_samples(root: Path, tmp_path: Path) -> None:
    """A corpus of one channel has the fingerprint of the same samples in mono files."""
    chosen = manifest.write(drafted(root, 1), tmp_path / "out")
    samples = soundfile.read(root / "s2_b.wav", dtype="int16")[0]
    soundfile.write(root / "s2_b.wav", samples[:, 0], RATE_HZ)
    assert manifest.write(drafted(root, None), tmp_path / "mono").fingerprint == chosen.fingerprint


@pytest.mark.parametrize(
    ("channel", "what"), [(0, "whole number of at least 1"), ("left", "whole number"), (True, "whole number")]
)
def test_a_line_with_another_channel_is_refused(root: Path, tmp_path: Path, channel: object, what: str) -> None:
    manifest.write(drafted(root, 1), tmp_path / "out")
    path = tmp_path / "out" / manifest.MANIFEST_FILE
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line | {"channel": channel}) + "\n" for line in lines))
    with pytest.raises(DataError, match=f"`channel` must be a {what}"):
        manifest.read(tmp_path / "out")


def test_the_record_of_a_run_names_the_channel(root: Path, tmp_path: Path) -> None:
    for seed in range(10, 22):
        write_stereo(root / f"s{seed % 4}_{seed}.wav", seed=seed)
    prepared = repbench(
        *("corpus", "prepare", "pattern", "--root", root, "--out", tmp_path / "out", "--json"),
        *("--pattern", "{speaker}_{take}.wav", "--channel", "mix"),
    )
    assert prepared.code == 0, prepared.err
    note = "13 of 15 sounds have several channels: their mean is read"
    assert prepared.json["notes"] == [note]
    ran = repbench(
        *("run", "--upstream", "mel_no_cmvn", "--downstream", "speaker", "--corpus", tmp_path / "out", "--json"),
        *("--set", "probe.steps=2", "--out", tmp_path / "runs"),
    )
    assert ran.code == 0, ran.err
    assert note in ran.json["results"][0]["corpus"]["warnings"]


@pytest.mark.parametrize("channel", ["0", "left", "-1", "1.5"])
def test_the_option_takes_a_number_or_mix(root: Path, tmp_path: Path, channel: str) -> None:
    refused = repbench(
        *("corpus", "prepare", "pattern", "--root", root, "--out", tmp_path / "out"),
        *("--pattern", "{speaker}_{take}.wav", "--channel", channel),
    )
    assert refused.code == 2
    assert f"`--channel` must be a number from 1 on or `mix`, but is `{channel}`" in refused.err


def test_the_manifest_names_the_decoder_of_lossy_sounds_and_the_sounds_of_unknown_length(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (3, RATE_HZ // 2))
    for name, samples in zip(("a.mp3", "b.ogg", "c.mp3"), noise, strict=True):
        soundfile.write(tmp_path / name, samples, RATE_HZ)
    stream = io.BytesIO()
    soundfile.write(stream, noise[0][::-1], RATE_HZ, format="WAV")
    content = stream.getvalue()
    (tmp_path / "d.wav").write_bytes(content[:4] + b"\xff" * 4 + content[8:40] + b"\xff" * 4 + content[44:])
    files = [DraftUtterance(id=path.stem, audio=path) for path in sorted(tmp_path.iterdir())]
    made = manifest.write(replace(noise_draft(tmp_path, []), utterances=files), tmp_path / "out")
    assert made.notes == (
        f"3 of 4 sounds are lossy (2 MP3, 1 Ogg Vorbis): their samples are those that libsndfile "
        f"{soundfile.__libsndfile_version__} decodes, clipped to [-1, 1]",
        "1 of 4 sounds do not say how long they are: one cut short would look whole",
    )
    assert check(manifest.read(tmp_path / "out")).problems == ()
