"""Long sounds in windows: every frame once, at its time, and equal to the whole where that is possible."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from safetensors import safe_open
from torch import Tensor, nn

from repbench.audio import legacy
from repbench.benchmark.features.export import ExportOptions, extract_files
from repbench.benchmark.features.extraction import run_sounds
from repbench.benchmark.features.shards import current_entries, read_index
from repbench.benchmark.loading.upstreams import load_upstream
from repbench.benchmark.protocol import load_protocol
from repbench.benchmark.run import RunRequest, run
from repbench.configs.settings import Settings
from repbench.corpora.contract import Corpus
from repbench.errors import DataError, PluginError, UsageError
from repbench.testing import tone_corpus
from repbench.upstream.contract import HiddenStates, UpstreamInfo, check_lengths
from repbench.upstream.spectrograms import SpectrogramNetwork
from repbench.upstream.windowed import WindowedUpstream, in_windows, windows_for

CPU = torch.device("cpu")
HOP, KERNEL, BESIDE = 160, 400, 5
"""Samples between frames and under a frame, and the frames on each side that the second layer sees."""
REACH_SECONDS = (BESIDE * HOP + KERNEL // 2) / 16_000


class Convolutions(nn.Module):
    """Two convolutions, each with whole numbers as weights, so that sums of whole numbers are exact."""

    def __init__(self, *, max_samples: int | None = None, centred: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        first = torch.randint(-2, 3, (4, 1, KERNEL), generator=generator).float()
        second = torch.randint(-2, 3, (4, 4, 2 * BESIDE + 1), generator=generator).float()
        self.first, self.second = nn.Parameter(first), nn.Parameter(second)
        self._padding = KERNEL // 2 if centred else 0
        self.longest_seen = 0
        self.info = UpstreamInfo(
            name="convolutions",
            sample_rate_hz=16_000,
            hop_samples=HOP,
            first_center_samples=0 if centred else KERNEL // 2,
            min_samples=KERNEL,
            max_samples=max_samples,
            layer_names=("first", "second"),
            width=4,
            utterance_normalised=False,
            trainable=True,
            citation="none",
            licence="MIT",
        )
        self.eval().requires_grad_(False)

    def num_frames(self, num_samples: int) -> int:
        return (num_samples + 2 * self._padding - KERNEL) // HOP + 1

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        check_lengths(self.info, lengths)
        self.longest_seen = max(self.longest_seen, int(lengths.max()))
        counts = (lengths + 2 * self._padding - KERNEL) // HOP + 1
        inside = torch.arange(waveforms.shape[1]) < lengths[:, None]
        states = nn.functional.conv1d((waveforms * inside)[:, None], self.first, stride=HOP, padding=self._padding)
        states = states[..., : int(counts.max())]
        valid = torch.arange(states.shape[2]) < counts[:, None]
        first = states * valid[:, None]
        second = nn.functional.conv1d(first, self.second, padding=BESIDE) * valid[:, None]
        return HiddenStates(torch.stack([first, second]).transpose(2, 3), counts)

    def fingerprint(self) -> str:
        return "convolutions"


def sound(num_samples: int) -> Tensor:
    """Small whole numbers."""
    generator = torch.Generator().manual_seed(num_samples)
    return torch.randint(-3, 4, (num_samples,), generator=generator).float()


def states_of(upstream: Any, *sounds: Tensor) -> list[Tensor]:
    """The (L, F, D) of each sound, in one batch that is held to the contract."""
    states = run_sounds(upstream, sounds, device=CPU, names=[str(len(each)) for each in sounds])
    return [states.layers[:, row, :count] for row, count in enumerate(states.lengths.tolist())]


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("num_samples", [16_000, 16_001, 16_100, 23_457, 47_999, 160_003])
def test_a_finite_receptive_field_within_the_context_gives_the_frames_of_the_whole(
    num_samples: int, centred: bool
) -> None:
    whole = Convolutions(centred=centred)
    windowed = in_windows(Convolutions(centred=centred), 1.0, REACH_SECONDS)
    assert windowed.num_frames(num_samples) == whole.num_frames(num_samples)
    (expected,), (found,) = states_of(whole, sound(num_samples)), states_of(windowed, sound(num_samples))

    assert torch.equal(found, expected)
    assert isinstance(windowed, WindowedUpstream)
    assert windowed.inner.longest_seen <= 16_000
    (near,) = states_of(in_windows(Convolutions(centred=centred), 1.0, 0.0), sound(num_samples))
    assert near.shape == expected.shape
    if num_samples > 20_000:
        assert not torch.equal(near, expected), "without context, what is cut differs"


def test_short_and_long_sounds_of_a_batch_are_those_that_they_are_alone() -> None:
    sounds = [sound(length) for length in (50_000, 400, 16_000, 16_160, 9_000)]
    windowed = in_windows(Convolutions(max_samples=16_000), None, REACH_SECONDS)
    together = states_of(windowed, *sounds)

    for each, found in zip(sounds, together, strict=True):
        (expected,) = states_of(Convolutions(), each)
        assert torch.equal(found, expected)
    assert windowed.info == dataclasses.replace(Convolutions().info, max_samples=None)
    with pytest.raises(DataError, match="takes at most 16000 samples"):
        states_of(Convolutions(max_samples=16_000), sounds[0])


class Stacked(SpectrogramNetwork[Settings]):
    """Pairs of frames of a front end that normalises over the utterance, as they are."""

    def __init__(self) -> None:
        names = ("input",)
        width = 2 * legacy.MEL160.width
        super().__init__(
            "stacked", Settings(), legacy.MEL160, frames_per_state=2, layer_names=names, width=width, citation="none"
        )
        self.longest_seen = 0

    def encode(self, frames: Tensor, lengths: Tensor) -> HiddenStates:
        self.longest_seen = max(self.longest_seen, frames.shape[1])
        pairs = frames[:, : frames.shape[1] // 2 * 2].reshape(len(frames), -1, self.info.width)
        return HiddenStates(pairs[None], lengths // 2)


def test_a_network_on_spectrograms_gets_windows_of_a_spectrogram_normalised_over_the_whole_sound() -> None:
    windowed = in_windows(Stacked().eval(), 1.0, 0.1)
    noise = torch.randn(70_000, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    noise *= torch.linspace(0, 0.9, 70_000)
    (expected,), (found,) = states_of(Stacked().eval(), noise), states_of(windowed, noise)

    assert torch.equal(found, expected)
    assert isinstance(windowed, WindowedUpstream)
    assert windowed.inner.longest_seen == legacy.MEL160.num_frames(16_000)


def test_windows_of_a_network_with_attention_are_near_the_whole_and_named() -> None:
    network = load_upstream("mockingjay", checkpoint="random:tiny")
    windowed = in_windows(network, 2.0, 0.5)
    (whole,), (near,) = states_of(network, sound(60_000) / 8), states_of(windowed, sound(60_000) / 8)

    assert near.shape == whole.shape
    assert not torch.equal(near, whole)
    assert windowed.fingerprint() == network.fingerprint()
    assert isinstance(windowed, WindowedUpstream)
    assert windowed.windows.line() == "windows of 2 s with 0.5 s of context on each side (an overlap of 1 s)"


def test_what_cannot_be_cut_is_refused_or_left_as_it_is() -> None:
    with pytest.raises(UsageError, match=r"mel normalises over the whole utterance.*key extraction.window_seconds"):
        in_windows(load_upstream("mel"), 5.0, 1.0)
    mel = load_upstream("mel")
    assert in_windows(mel, None, 1.0) is mel
    with pytest.raises(UsageError, match=r"must be at least 2\.035 s, but is 2 s"):
        in_windows(Convolutions(), 2.0, 1.0)
    whisper = Convolutions()
    whisper.cuts_long_sounds = True  # type: ignore[assignment]
    assert in_windows(whisper, 1.0, 0.1) is whisper
    shorter = windows_for(Convolutions(max_samples=8_000), 1.0, 0.1)
    assert shorter is not None
    assert shorter.num_samples == 8_000


class Odd(Convolutions):
    def num_frames(self, num_samples: int) -> int:
        return super().num_frames(num_samples) - num_samples // 100_000


def test_frames_that_do_not_move_with_the_sound_are_refused() -> None:
    with pytest.raises(PluginError, match="frames do not move with the sound"):
        states_of(in_windows(Odd(), 1.0, 0.1), sound(200_000))


# in a file, in a run


def test_an_extracted_file_names_its_windows(tmp_path: Path) -> None:
    for name, length in (("short", 8_000), ("long", 40_000)):
        soundfile.write(tmp_path / f"{name}.wav", sound(length).numpy() / 8, 16_000)
    windowed = in_windows(Convolutions(max_samples=16_000), None, 0.1)
    files = [tmp_path / "short.wav", tmp_path / "long.wav"]
    paths = extract_files(windowed, files, tmp_path, ExportOptions(device=CPU, resample=False))

    notes = []
    for path in paths:
        with safe_open(path, framework="pt") as stored:
            notes.append(stored.metadata().get("windows"))
            assert stored.get_slice("hidden_states").get_shape()[1] == windowed.num_frames(
                (8_000, 40_000)[len(notes) - 1]
            )
    assert notes == [None, "windows of 1 s with 0.1 s of context on each side (an overlap of 0.2 s)"]


PLUGIN = """
import dataclasses
from repbench.testing.fakes import Envelope

def short(*, checkpoint=None, seed=0):
    upstream = Envelope().eval()
    upstream.info = dataclasses.replace(upstream.info, max_samples=19_200)
    return upstream
"""


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return tone_corpus(tmp_path_factory.mktemp("windowed") / "tones", num_speakers=4)


def go(corpus: Corpus, out: Path, upstream: str, *assignments: str) -> Any:
    protocol = load_protocol(assignments=["probe.steps=10", "extraction.context_seconds=0.1", *assignments])
    place = str(corpus.utterances[0].audio.parents[1])
    request = RunRequest(upstream=upstream, downstream="phone", corpus=place, out=out, protocol=protocol)
    (written,) = run(request)
    return written.record


def sound_keys(cache: Path) -> set[str]:
    shards = [read_index(path) for path in (cache / "features").glob("*/*.shard")]
    return {sound for sound, _ in current_entries(shards)}


def test_a_run_scores_utterances_that_are_too_long_and_its_record_and_store_name_the_windows(
    tones: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "short_upstream.py").write_text(PLUGIN, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("REPBENCH_CACHE", str(tmp_path / "cache"))
    longer = [each for each in tones.utterances if each.num_samples > 19_200]
    assert 0 < len(longer) < len(tones.utterances)
    record = go(tones, tmp_path / "a", "py:short_upstream:short")

    assert (record.excluded, record.n_scored) == ({}, record.n_listed)
    note = (
        f"{len(longer)} of {len(tones.utterances)} utterances are longer and are read in windows of 1.2 s with 0.1 s "
        "of context on each side (an overlap of 0.2 s)"
    )
    assert any(note in each for each in record.corpus.warnings)
    keys = sound_keys(tmp_path / "cache")
    assert {key for key in keys if key.endswith(" windows 19200+5")} == {
        f"{each.samples_sha256}@16000 windows 19200+5" for each in longer
    }
    whole = go(tones, tmp_path / "b", "py:repbench.testing.fakes:envelope")
    assert whole.metrics == record.metrics, "an envelope sees its own block alone"


def test_the_setting_cuts_what_an_upstream_would_take_whole_and_is_part_of_the_key(
    tones: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPBENCH_CACHE", str(tmp_path / "cache"))
    envelope = "py:repbench.testing.fakes:envelope"
    go(tones, tmp_path / "a", envelope)
    before = sound_keys(tmp_path / "cache")
    record = go(tones, tmp_path / "b", envelope, "extraction.window_seconds=1.2")

    longer = {each.samples_sha256 for each in tones.utterances if each.num_samples > 19_200}
    new = sound_keys(tmp_path / "cache") - before
    assert new == {f"{each}@16000 windows 19200+5" for each in longer}
    assert record.protocol["extraction"]["window_seconds"] == 1.2
