"""Frames in a corpus are probed as if they had just been computed."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from repbench.audio.sound import read_sound
from repbench.benchmark.features.export import ExportOptions, extract_files
from repbench.benchmark.features.extraction import ExtractionOptions, run_sounds
from repbench.benchmark.features.source import features_of
from repbench.benchmark.loading.upstreams import load_upstream
from repbench.benchmark.protocol import ProbeSettings, Protocol
from repbench.benchmark.run import RunRequest, run
from repbench.corpora import manifest
from repbench.corpora.contract import Corpus, Draft, DraftFeatures, DraftUtterance, FeatureDeclaration
from repbench.errors import DataError, IntegrityError, UsageError
from repbench.testing import tone_corpus
from repbench.upstream.adapters.corpus_features import FrameReader, Precomputed, PrecomputedFrames
from tests.commands import repbench

QUICK = Protocol(probe=ProbeSettings(steps=40, batch_frames=256, hidden_units=32, selection_points=4))
CPU = torch.device("cpu")


def with_mel(folder: Path, *, ending: str = "npy", sample_rate_hz: int = 16_000, salt: str = "") -> Corpus:
    """The corpus of tones, with a file of the frames of `mel` next to each sound."""
    tones = tone_corpus(folder, sample_rate_hz=sample_rate_hz, salt=salt)
    upstream = load_upstream("mel")
    if ending == "safetensors":
        options = ExportOptions(resample=True, device=CPU)
        extract_files(upstream, [each.audio for each in tones.utterances], folder, options)
    else:
        for each in tones.utterances:
            samples = torch.from_numpy(read_sound(each.audio)[0])
            states = run_sounds(upstream, [samples], device=CPU, names=[each.id])
            np.save(folder / f"{each.id}.npy", states.layers[0, 0].numpy())
    drafts = [
        DraftUtterance(
            id=each.id, audio=each.audio, speaker=each.speaker, phones=each.phones, attributes=each.attributes,
            group=each.group, features=folder / f"{each.id}.{ending}",
        )
        for each in tones.utterances
    ]  # fmt: skip
    labels = tones.label_sets["phones"]
    draft = Draft(
        name="tones", licence="CC0-1.0", root=folder, utterances=drafts, phone_set=labels,
        phone_map={label: label for label in labels}, features=DraftFeatures(name="mel", hop_seconds=0.0125),
    )  # fmt: skip
    return manifest.write(draft, folder)


def request(corpus: Path, out: Path, **changes: Any) -> RunRequest:
    return RunRequest(**{"upstream": "precomputed", "downstream": "phone", "corpus": str(corpus), "out": out,
                         "protocol": QUICK, **changes})  # fmt: skip


@pytest.mark.parametrize("ending", ["npy", "safetensors"])
def test_mel_from_files_is_the_same_frames_as_mel(tmp_path: Path, ending: str) -> None:
    corpus = with_mel(tmp_path, ending=ending)
    options = ExtractionOptions(batch_seconds=1e-3, device=CPU)
    heard = features_of(load_upstream("mel"), corpus.utterances, [0], options)
    read = features_of(Precomputed().bound_to(corpus), corpus.utterances, [0], options)
    assert (read.counts, read.ids) == (heard.counts, heard.ids)
    assert torch.equal(read.frames, heard.frames)


@pytest.mark.parametrize("downstream", ["phone", "speaker"])
def test_mel_from_files_scores_exactly_as_mel(tmp_path: Path, downstream: str) -> None:
    corpus = with_mel(tmp_path / "c")
    alone = QUICK.model_copy(update={"extraction": QUICK.extraction.model_copy(update={"batch_seconds": 1e-3})})
    (heard,) = run(request(tmp_path / "c", tmp_path, upstream="mel", downstream=downstream, protocol=alone))
    (read,) = run(request(tmp_path / "c", tmp_path, downstream=downstream, protocol=alone))
    assert read.record.metrics == heard.record.metrics
    assert read.record.selection == heard.record.selection
    assert read.record.n_scored == heard.record.n_scored
    assert read.record.upstream.name == "precomputed"
    assert tuple(read.record.upstream.layer_names) == ("mel",)
    assert read.record.corpus.fingerprint == corpus.fingerprint
    assert any("precomputed features `mel`, every 0.0125 s" in note for note in read.record.corpus.warnings)
    assert (read.record.cost.macs_per_second, read.record.cost.parameters) == (0, 0)


def test_sound_of_any_rate_is_not_resampled_for_frames(tmp_path: Path) -> None:
    with_mel(tmp_path / "c", ending="safetensors", sample_rate_hz=8_000)
    (written,) = run(request(tmp_path / "c", tmp_path))
    assert not any("resampled" in note for note in written.record.corpus.warnings)


def test_a_saved_probe_scores_the_features_of_another_corpus(tmp_path: Path) -> None:
    with_mel(tmp_path / "c")
    (source,) = run(request(tmp_path / "c", tmp_path, downstream="sentiment"))
    with_mel(tmp_path / "other", salt="other")
    probe = {"probe": source.path.parent, "protocol": Protocol()}
    (scored,) = run(request(tmp_path / "other", tmp_path, downstream="sentiment", **probe))
    assert scored.record.n_scored == 48
    with pytest.raises(DataError, match="trained or selected this probe"):
        run(request(tmp_path / "c", tmp_path, downstream="sentiment", **probe))


def test_frames_that_changed_are_refused(tmp_path: Path) -> None:
    corpus = with_mel(tmp_path / "c")
    frames = corpus.utterances[0].features
    assert frames is not None
    np.save(frames, np.load(frames) * 2)
    with pytest.raises(IntegrityError, match=r"the manifest has.*utterance s0-00"):
        run(request(tmp_path / "c", tmp_path, downstream="sentiment"))


def test_an_utterance_without_features_is_an_exclusion(tmp_path: Path) -> None:
    corpus = with_mel(tmp_path / "c")
    reader = Precomputed().bound_to(corpus)
    assert isinstance(reader, FrameReader)
    bare = tone_corpus(tmp_path / "bare").utterances[0]
    assert reader.why_excluded(bare) == "no precomputed features"
    assert reader.why_excluded(corpus.utterances[0]) is None


def test_a_corpus_without_features_cannot_be_asked(tmp_path: Path) -> None:
    tone_corpus(tmp_path / "c")
    with pytest.raises(DataError, match="tones has no precomputed features"):
        run(request(tmp_path / "c", tmp_path))


def test_it_hears_no_sound() -> None:
    with pytest.raises(UsageError, match="there is no corpus here"):
        load_upstream("precomputed")
    with pytest.raises(UsageError, match="no weights"):
        load_upstream("precomputed", checkpoint="random")
    declared = FeatureDeclaration(name="x", hop_seconds=0.01, first_center_seconds=0.0, width=3, format="npy")
    with pytest.raises(UsageError, match="computes nothing from sound"):
        PrecomputedFrames(declared)(torch.zeros(1, 400), torch.tensor([400]))


@pytest.mark.parametrize(
    ("hop_seconds", "first_center_seconds", "clock"),
    [(0.01, 0.0, (16_000, 160, 0)), (0.02, 0.0125, (16_000, 320, 200)), (0.011, 0.00011, (1_000_000, 11_000, 110))],
)
def test_the_clock_counts_the_hop_in_whole_samples(
    hop_seconds: float, first_center_seconds: float, clock: tuple[int, int, int]
) -> None:
    declared = FeatureDeclaration(
        name="x", hop_seconds=hop_seconds, first_center_seconds=first_center_seconds, width=3, format="npy"
    )
    info = PrecomputedFrames(declared).info
    assert (info.sample_rate_hz, info.hop_samples, info.first_center_samples) == clock


def test_a_hop_that_no_clock_counts_is_refused() -> None:
    declared = FeatureDeclaration(name="x", hop_seconds=1 / 3, first_center_seconds=0.0, width=3, format="npy")
    with pytest.raises(DataError, match="must be whole microseconds"):
        PrecomputedFrames(declared)


@pytest.mark.slow
def test_the_whole_way_on_the_command_line(tmp_path: Path) -> None:
    tones = tone_corpus(tmp_path / "t", num_speakers=3)
    sounds = [each.audio for each in tones.utterances]
    extracted = repbench("extract", "--upstream", "mel", "--out", tmp_path / "t" / "mel", *sounds)
    assert extracted.code == 0, extracted.err
    with (tmp_path / "t" / "tones.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(("path", "features", "speaker", "group", "sentiment"))
        for each in tones.utterances:
            mood = each.attributes["sentiment"]
            place = f"mel/{each.id}.safetensors"
            assert load_file(tmp_path / "t" / place)["hidden_states"].shape[0] == 1
            rows.writerow((f"sounds/{each.id}.wav", place, each.speaker, each.group, mood))
    prepared = repbench(
        "corpus", "prepare", "csv", "--root", tmp_path / "t", "--out", tmp_path / "c", "--features-hop", "0.0125",
        "--features-name", "mel",
    )  # fmt: skip
    assert prepared.code == 0, prepared.err
    finished = repbench(
        "run", "--upstream", "precomputed", "--downstream", "speaker", "--corpus", tmp_path / "c", "--out", tmp_path,
        "--set", "probe.steps=20", "--set", "probe.selection_points=2", "--json",
    )  # fmt: skip
    assert finished.code == 0, finished.err
    assert finished.json["results"][0]["upstream"]["layer_names"] == ["mel"]
    refused = repbench("extract", "--upstream", "precomputed", "--out", tmp_path / "x", sounds[0])
    assert (refused.code, "there is no corpus here" in refused.err) == (2, True)
