"""Every batch is checked against the contract, and an error names the upstream and the utterance."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from repbench.benchmark.features.export import ExportOptions, extract_files
from repbench.benchmark.features.extraction import ExtractionOptions, extract
from repbench.benchmark.features.store import GIB, FeatureStore, origin_for
from repbench.corpora.contract import Corpus
from repbench.errors import EnvironmentFault, PluginError
from repbench.testing import Envelope, tone_corpus
from repbench.upstream.contract import HiddenStates

Spoil = Callable[[HiddenStates], object]


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return tone_corpus(tmp_path_factory.mktemp("features") / "tones", num_speakers=2, per_session=2)


class Spoilt(Envelope):
    """An upstream that spoils its output from its second batch on."""

    def __init__(self, spoil: Spoil) -> None:
        super().__init__()
        self.spoil = spoil
        self.sizes: list[int] = []

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        states = super().forward(waveforms, lengths)
        self.sizes.append(len(waveforms))
        return states if len(self.sizes) == 1 else self.spoil(states)  # type: ignore[return-value]


def run(upstream: Envelope, corpus: Corpus, *, batch_seconds: float = 3.0) -> None:
    options = ExtractionOptions(batch_seconds=batch_seconds, device=torch.device("cpu"))
    extract(upstream, corpus.utterances, [0, 1], options)


def one_nan(states: HiddenStates) -> HiddenStates:
    states.layers[1, 0, 3, 2] = torch.nan
    return states


def ends_the_loop(states: HiddenStates) -> HiddenStates:
    raise StopIteration


SPOILT: dict[str, tuple[Spoil, str]] = {
    "nothing": (lambda states: None, "returned a NoneType"),
    "tuple": (lambda states: (states.layers, states.lengths), "returned a tuple"),
    "layers": (lambda states: HiddenStates(states.layers[:1], states.lengths), r"must have the shape \(L, B, F, D\)"),
    "width": (lambda states: HiddenStates(states.layers[..., :2], states.lengths), r"must have the shape"),
    "batch": (lambda states: HiddenStates(states.layers[:, :1], states.lengths), r"must have the shape"),
    "dimensions": (lambda states: HiddenStates(states.layers[0], states.lengths), r"must have the shape"),
    "stride": (lambda states: HiddenStates(states.layers[:, :, ::2], states.lengths // 2), r"must have the shape"),
    "lengths": (lambda states: HiddenStates(states.layers, states.lengths - 1), r"promises \d+ frames.*gives \d+"),
    "lengths-shape": (lambda states: HiddenStates(states.layers, states.lengths[:1]), r"`lengths` must have the shape"),
    "dtype": (
        lambda states: HiddenStates(states.layers.long(), states.lengths),
        "floating point on cpu, but are torch",
    ),
    "device": (lambda states: HiddenStates(states.layers.to("meta"), states.lengths), "float32 on meta"),
    "nan": (one_nan, "hold NaN or infinity"),
    "infinite": (lambda states: HiddenStates(states.layers / 0, states.lengths), "hold NaN or infinity"),
    "stop-iteration": (ends_the_loop, "The plugin failed: StopIteration"),
}
"""What the second batch comes back as, and what is said of it."""


@pytest.mark.parametrize("case", SPOILT)
def test_fault_37_what_breaks_the_contract_in_any_batch_is_refused(tones: Corpus, case: str) -> None:
    spoil, message = SPOILT[case]
    upstream = Spoilt(spoil)

    with pytest.raises(PluginError, match=message) as caught:
        run(upstream, tones)

    assert caught.value.exit_code == 5
    assert caught.value.key == "envelope"
    assert len(upstream.sizes) == 2
    assert upstream.sizes[1] > 1


def test_fault_37_the_utterance_that_is_nan_is_named(tones: Corpus) -> None:
    def spoil_row_1(states: HiddenStates) -> HiddenStates:
        states.layers[0, 1] = torch.nan
        return states

    with pytest.raises(PluginError, match="hold NaN") as caught:
        run(Spoilt(spoil_row_1), tones)

    lengths = {each.id: each.num_samples for each in tones.utterances}
    in_order = sorted(lengths, key=lambda id_: (lengths[id_], id_))
    first = Spoilt(lambda states: states)
    run(first, tones)
    assert caught.value.utterance == in_order[first.sizes[0] + 1]


class CountsTheBatch(Envelope):
    """An upstream that records the sizes of its batches."""

    def __init__(self, *, batch_invariant: bool) -> None:
        super().__init__()
        self.info = dataclasses.replace(self.info, batch_invariant=batch_invariant)
        self.sizes: list[int] = []

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        self.sizes.append(len(waveforms))
        return super().forward(waveforms, lengths)


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_fault_49_extract_names_the_file_for_which_the_memory_does_not_suffice(
    tones: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    upstream, files = Envelope(), [each.audio for each in tones.utterances[:2]]

    def forward(waveforms: torch.Tensor, lengths: torch.Tensor) -> Any:
        raise error

    monkeypatch.setattr(upstream, "forward", forward)
    with pytest.raises(
        EnvironmentFault, match=rf"does not suffice for this sound \(file {files[0]}\)\. Give --window-seconds 30"
    ) as fault:
        extract_files(upstream, files, tmp_path / "out", ExportOptions(resample=False, device=torch.device("cpu")))
    assert fault.value.exit_code == 7


def test_fault_49_what_is_no_lack_of_memory_is_not_called_one(
    tones: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = Envelope()

    def forward(waveforms: torch.Tensor, lengths: torch.Tensor) -> Any:
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(upstream, "forward", forward)
    options = ExportOptions(resample=False, device=torch.device("cpu"))
    with pytest.raises(PluginError, match="shapes cannot be multiplied"):
        extract_files(upstream, [tones.utterances[0].audio], tmp_path, options)


def test_fault_37_one_that_declares_to_depend_on_its_batch_is_run_alone(tones: Corpus, tmp_path: Path) -> None:
    together, alone, stored = (CountsTheBatch(batch_invariant=promised) for promised in (True, False, False))
    origin = origin_for(stored, "f", "float32")
    store = FeatureStore(tmp_path, stored, origin, name="x", quota_bytes=GIB, say=lambda line: None)

    run(together, tones, batch_seconds=60)
    run(alone, tones, batch_seconds=60)
    store.extract(tones.utterances, [0], ExtractionOptions(batch_seconds=60, device=torch.device("cpu")))

    assert max(together.sizes) > 1
    assert alone.sizes == stored.sizes == [1] * len(tones.utterances)
