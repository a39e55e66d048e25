"""The check of a plugin's upstream before a run: a broken promise ends it before any sound of the corpus is read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from repbench.benchmark.features import invariance_check
from repbench.benchmark.features.invariance_check import check_invariance
from repbench.benchmark.protocol import ProbeSettings, Protocol
from repbench.benchmark.run import RunRequest, run
from repbench.errors import PluginError
from repbench.registry import Entry, registry
from repbench.testing import Envelope, tone_corpus
from repbench.testing.certify import certify_upstream
from repbench.upstream.contract import HiddenStates, Upstream

CPU = torch.device("cpu")
STRANGER = Entry("stranger", "upstream", "a:b", "py", "", builtin=False)


class Moved(Envelope):
    """An upstream that adds to every row an amount that should not be there."""

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        states = super().forward(waveforms, lengths)
        frames = torch.arange(states.layers.shape[2]) < states.lengths[:, None]  # (B, F)
        return HiddenStates(states.layers + (self.amount(waveforms)[:, None] * frames)[..., None], states.lengths)

    def amount(self, waveforms: Tensor) -> Tensor:
        raise NotImplementedError


class HearsNeighbours(Moved):
    def amount(self, waveforms: Tensor) -> Tensor:
        return torch.full((len(waveforms),), 0.01 * (len(waveforms) - 1))


class HearsPadding(Moved):
    def amount(self, waveforms: Tensor) -> Tensor:
        return waveforms.abs().mean(dim=1)


class Drifts(Moved):
    heard = 0

    def amount(self, waveforms: Tensor) -> Tensor:
        self.heard += 1
        return torch.full((len(waveforms),), 0.01 * self.heard)


def hears_padding(*, checkpoint: str | None = None, seed: int = 0) -> HearsPadding:
    return HearsPadding()


def tried(upstream: Upstream, entry: Entry = STRANGER) -> None:
    check_invariance(upstream, entry, upstream.fingerprint(), CPU)


@pytest.mark.parametrize(
    ("upstream", "promise"),
    [(HearsNeighbours, "batch-invariant"), (HearsPadding, "padding-invariant"), (Drifts, "deterministic")],
)
def test_a_broken_promise_is_named(upstream: type[Moved], promise: str) -> None:
    with pytest.raises(PluginError, match=f"The promise `{promise}` is broken: .* 0.0001 is allowed"):
        tried(upstream().eval())


def test_what_keeps_its_promises_or_makes_none_is_let_through() -> None:
    tried(Envelope())
    alone = HearsPadding()
    object.__setattr__(alone.info, "batch_invariant", False)
    tried(alone)


def test_repbench_own_upstreams_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invariance_check, "_differences", None)
    tried(Envelope(), registry().find("upstream", "mel").entry)
    with pytest.raises(TypeError):
        tried(Envelope())


@pytest.mark.slow
def test_one_with_a_certificate_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPBENCH_CACHE", str(tmp_path))
    assert certify_upstream("py:repbench.testing.fakes:envelope").passed
    monkeypatch.setattr(invariance_check, "_differences", None)
    tried(Envelope(), registry().find("upstream", "py:repbench.testing.fakes:envelope").entry)


@pytest.mark.parametrize("finetune", [False, True])
def test_fault_37_it_ends_the_run_before_any_sound_is_read(tmp_path: Path, finetune: bool) -> None:
    corpus = tone_corpus(tmp_path / "c", num_speakers=3)
    for utterance in corpus.utterances:
        utterance.audio.unlink()
    asked = RunRequest(
        upstream=f"py:{__name__}:hears_padding", downstream="sentiment", corpus=str(tmp_path / "c"), device="cpu",
        out=tmp_path / "runs", finetune=finetune, protocol=Protocol(probe=ProbeSettings(steps=10)),
    )  # fmt: skip
    with pytest.raises(PluginError, match="The promise `padding-invariant` is broken"):
        run(asked)
    assert not list((tmp_path / "runs").rglob("record.json"))
