"""Each promise of an upstream: broken plugins that fail its check and no other, and built-ins that fail none."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from repbench.benchmark.loading.certificates import CheckResult
from repbench.benchmark.loading.upstreams import build_upstream
from repbench.registry import registry
from repbench.testing.fakes import Envelope
from repbench.testing.upstreams import UPSTREAM_CHECKS, UpstreamSubject
from repbench.testing.upstreams import subject as upstream_subject
from repbench.upstream.contract import HiddenStates, fingerprint_of


class Sound(Envelope):
    """An upstream without fault, of which each below spoils one thing."""

    def declare(self, **changes: Any) -> None:
        self.info = dataclasses.replace(self.info, **changes)


def changed(states: HiddenStates, amount: Tensor | float) -> HiddenStates:
    """The states with an amount (B,) added to every valid frame."""
    frames = torch.arange(states.layers.shape[2]) < states.lengths[:, None]  # (B, F)
    added = torch.as_tensor(amount).reshape(-1, 1, 1) * torch.ones(1, *states.layers.shape[2:])  # (B, F, D)
    return HiddenStates(states.layers + added.masked_fill(~frames[..., None], 0.0), states.lengths)


def valid_samples(waveforms: Tensor, lengths: Tensor) -> Tensor:
    return waveforms.masked_fill(torch.arange(waveforms.shape[1]) >= lengths[:, None], 0.0)


class LayersVary(Sound):
    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        states = super().forward(waveforms, lengths)
        return HiddenStates(states.layers[: 1 if int(lengths.max()) > 20_000 else 2], states.lengths)


class ReturnsTuple(Sound):
    def forward(self, waveforms: Tensor, lengths: Tensor) -> Any:
        states = super().forward(waveforms, lengths)
        return states.layers, states.lengths


class WrongWidth(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.real = self.info.width

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        states = super().forward(waveforms, lengths)
        return HiddenStates(states.layers[..., :3], states.lengths)


class PromisesOneFrameMore(Sound):
    def num_frames(self, num_samples: int) -> int:
        return super().num_frames(num_samples) + (num_samples == 16_001)


class NormalisesOneFrame(Sound):
    """The unbiased deviation of a single frame is NaN."""

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        states = super().forward(waveforms, lengths)
        return changed(states, torch.where(states.lengths > 1, 0.0, torch.nan))


class Noisy(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        return changed(super().forward(waveforms, lengths), float(torch.rand((), generator=self.generator)))


class Drifts(Sound):
    """What was heard before is heard again."""

    heard = 0

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        self.heard += len(waveforms)
        return changed(super().forward(waveforms, lengths), 0.01 * self.heard)


class HearsNeighbours(Sound):
    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        return changed(super().forward(waveforms, lengths), 0.01 * (len(waveforms) - 1))


class AveragesOverPadding(Sound):
    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        return changed(super().forward(waveforms, lengths), waveforms.abs().mean(dim=1))


class SortsAndForgets(Sound):
    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        order = torch.argsort(lengths, descending=True, stable=True)
        return super().forward(waveforms[order], lengths[order])


class LeavesPadding(Sound):
    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        states = super().forward(waveforms, lengths)
        frames = torch.arange(states.layers.shape[2]) < states.lengths[:, None]
        return HiddenStates(states.layers.masked_fill(~frames[..., None], 1.0), states.lengths)


class OtherHop(Sound):
    """Declares 20 ms, computes 25 ms."""

    def __init__(self) -> None:
        super().__init__(hop_samples=400)
        self.real = self.info
        self.declare(hop_samples=320)

    def num_frames(self, num_samples: int) -> int:
        return num_samples // 400

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        declared, self.info = self.info, self.real
        try:
            return super().forward(waveforms, lengths)
        finally:
            self.info = declared


class OtherCentre(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.declare(first_center_samples=160 + 400)


class SaysNormalised(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.declare(utterance_normalised=True)


class IsNormalisedUnsaid(Sound):
    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        states = super().forward(waveforms, lengths)
        layers = torch.zeros_like(states.layers)
        for row, count in enumerate(states.lengths.tolist()):
            frames = states.layers[:, row, :count]
            layers[:, row, :count] = frames - frames.mean(dim=1, keepdim=True)
        return HiddenStates(layers, states.lengths)


class DividesByPeak(Sound):
    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        peak = valid_samples(waveforms, lengths).abs().amax(dim=1, keepdim=True)
        return super().forward(waveforms / peak, lengths)


class LimitsAtFullScale(Sound):
    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        return super().forward(torch.atanh(valid_samples(waveforms, lengths)), lengths)


class DividesByMovement(Sound):
    """Silence was thought of, a constant was not."""

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        sound = valid_samples(waveforms, lengths)
        largest, smallest = sound.amax(dim=1), torch.stack([row[:n].min() for row, n in zip(sound, lengths)])  # noqa: B905
        movement = torch.where(largest == 0, 1.0, largest - smallest)
        return super().forward(waveforms / movement[:, None], lengths)


class RemembersNan(Sound):
    memory = 0.0

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        states = changed(super().forward(waveforms, lengths), 0.0 * self.memory)
        self.memory = float(waveforms.sum())
        return states


class HidesNan(Sound):
    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        return super().forward(waveforms.nan_to_num(), lengths)


class FingerprintOfHearings(Sound):
    heard = 0

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        self.heard += 1
        return super().forward(waveforms, lengths)

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.heard}".encode()).hexdigest()


class FingerprintOfSettings(Sound):
    def fingerprint(self) -> str:
        return hashlib.sha256(b"hop 320").hexdigest()


class FingerprintOfPath(Sound):
    path: str | None = None

    def fingerprint(self) -> str:
        return fingerprint_of(self, {"path": self.path}, 1)


class LosesPrecision(Sound):
    """Makes its weights anew whenever they come back from another dtype."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        before = self.projection.dtype
        applied = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.projection.dtype == torch.float32 != before:
            self.projection.data *= 1.01
        return applied


class Detaches(Sound):
    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        states = super().forward(waveforms, lengths)
        return HiddenStates(states.layers.detach(), states.lengths)


class DetachesOne(Sound):
    """Its second weight is left out of training, though every frame is scaled by it."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor([2.0]))
        self.unused = torch.nn.Parameter(torch.ones(3))

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        states = super().forward(waveforms, lengths)
        return HiddenStates(states.layers * self.gain.detach(), states.lengths)

    def fingerprint(self) -> str:
        return fingerprint_of(self, {}, 1)


class HidesAWeight(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = [torch.tensor(1.0, requires_grad=True)]

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        states = super().forward(waveforms, lengths)
        return HiddenStates(states.layers * self.hidden[0], states.lengths)


class Seeds(Sound):
    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        torch.manual_seed(7)
        return super().forward(waveforms, lengths)


class TakesThreads(Sound):
    def __init__(self) -> None:
        super().__init__()
        torch.set_num_threads(torch.get_num_threads() + 1)


CONFIGURED = {"gain": 0.0}
"""What the process that runs the tests sets, and no other knows."""


class ConfiguredElsewhere(Sound):
    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        return changed(super().forward(waveforms, lengths), CONFIGURED["gain"])


BROKEN = {
    LayersVary: "layers-and-width",
    ReturnsTuple: "layers-and-width",
    WrongWidth: "layers-and-width",
    PromisesOneFrameMore: "num-frames",
    NormalisesOneFrame: "finite",
    Noisy: "deterministic",
    Drifts: "deterministic",
    HearsNeighbours: "batch-invariant",
    AveragesOverPadding: "padding-invariant",
    SortsAndForgets: "order-invariant",
    LeavesPadding: "zero-past-length",
    OtherHop: "hop-and-first-centre",
    OtherCentre: "hop-and-first-centre",
    SaysNormalised: "utterance-normalised",
    IsNormalisedUnsaid: "utterance-normalised",
    DividesByPeak: "silence",
    LimitsAtFullScale: "square-wave",
    DividesByMovement: "dc",
    RemembersNan: "nan-refused-or-contained",
    HidesNan: "nan-refused-or-contained",
    FingerprintOfHearings: "fingerprint-stable",
    FingerprintOfSettings: "fingerprint-of-weights",
    FingerprintOfPath: "fingerprint-not-of-path",
    LosesPrecision: "dtype-and-device-round-trip",
    Detaches: "gradient-when-training",
    DetachesOne: "gradient-when-training",
    HidesAWeight: "frozen-leaves-no-gradient",
    Seeds: "global-state",
    TakesThreads: "global-state",
    ConfiguredElsewhere: "works-in-a-worker",
}


def factory_of(upstream: type[Sound]) -> Callable[..., Sound]:
    def build(*, checkpoint: str | None = None, seed: int = 0) -> Sound:
        built = upstream()
        if isinstance(built, FingerprintOfPath):
            built.path = checkpoint
        return built

    return build


for _broken in (Sound, *BROKEN):
    globals()[f"make_{_broken.__name__}"] = factory_of(_broken)


def examined(name: str, checkpoint: str | None = None) -> dict[str, CheckResult]:
    entry = registry().find("upstream", name).entry
    subject = UpstreamSubject(lambda place: build_upstream(entry, place, 0), checkpoint=checkpoint, entry=entry)
    return {result.id: result for result in UPSTREAM_CHECKS.results(subject)}


def failed(results: dict[str, CheckResult]) -> dict[str, str]:
    return {id_: result.detail for id_, result in results.items() if result.status == "failed"}


def test_every_check_has_a_plugin_that_breaks_it() -> None:
    assert set(BROKEN.values()) == {check.id for check in UPSTREAM_CHECKS}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: f"{broken.__name__}-{BROKEN[broken]}")
def test_a_broken_upstream_fails_its_check_and_no_other(
    broken: type[Sound], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CONFIGURED, "gain", 1.0)
    monkeypatch.setattr(upstream_subject, "LONGEST_SECONDS", 6.0)
    weights = tmp_path / "weights"
    weights.write_bytes(b"weights")

    results = examined(f"py:{__name__}:make_{broken.__name__}", str(weights))

    assert list(failed(results)) == [BROKEN[broken]], failed(results)


def test_an_upstream_without_fault_passes_every_check(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(b"weights")

    results = examined(f"py:{__name__}:make_Sound", str(weights))

    assert {id_: each.detail for id_, each in results.items() if each.status != "passed"} == {}


def test_what_stands_on_a_broken_promise_is_not_measured() -> None:
    results = examined(f"py:{__name__}:make_Noisy")

    assert results["batch-invariant"].status == "not measurable"
    assert results["batch-invariant"].detail == "deterministic failed, and this check depends on it"


def test_a_failure_says_what_was_measured_and_what_is_allowed() -> None:
    result = examined(f"py:{__name__}:make_OtherHop")["hop-and-first-centre"]

    assert "`hop_samples` is 320, but an impulse moves as if it were 400" in result.detail
    assert result.measured == pytest.approx(80, abs=3)
    assert result.allowed == pytest.approx(6.4)


class RunAlone(HearsNeighbours):
    def __init__(self) -> None:
        super().__init__()
        self.declare(batch_invariant=False)


make_RunAlone = factory_of(RunAlone)  # noqa: N816


def test_one_that_cannot_promise_batches_says_so_and_is_held_to_the_rest() -> None:
    results = examined(f"py:{__name__}:make_RunAlone")

    unpromised = {id_ for id_, each in results.items() if "batch_invariant=False" in each.detail}
    assert unpromised == {"batch-invariant", "padding-invariant", "order-invariant", "zero-past-length"}
    assert failed(results) == {}


class WithHead(Sound):
    """It keeps a head of its pre-training, on which no hidden state depends."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(4, 4)
        self.steps = torch.nn.Parameter(torch.tensor([3]), requires_grad=False)


make_WithHead = factory_of(WithHead)  # noqa: N816


def test_weights_that_no_hidden_state_depends_on_are_named_and_no_fault() -> None:
    result = examined(f"py:{__name__}:make_WithHead")["gradient-when-training"]

    assert result.status == "passed", result.detail
    assert result.detail == "1 of 3 tensors are reached; nothing depends on head.weight, head.bias"


def test_a_declaration_is_moved_with_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "moving.py").write_text(
        "import torch\n"
        "class Blocks(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.scale = torch.nn.Parameter(torch.ones(4))\n"
        "    def forward(self, waveforms, lengths):\n"
        "        usable = waveforms[:, : waveforms.shape[1] // 320 * 320]\n"
        "        return usable.reshape(len(usable), -1, 4, 80).square().mean(-1) * self.scale\n"
    )
    (tmp_path / "moving_Blocks.info.yaml").write_text(
        "name: blocks\nhop_samples: 320\nfirst_center_samples: 160\nwindow_samples: 320\nlayer_names: [one]\n"
        "width: 4\nweights: far/away.safetensors\n"
    )
    (tmp_path / "far").mkdir()
    save_file({"scale": torch.tensor([1.0, 2.0, 3.0, 4.0])}, tmp_path / "far" / "away.safetensors")
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = registry().find("upstream", "py:moving:Blocks").entry
    subject = UpstreamSubject(lambda place: build_upstream(entry, place, 0), entry=entry)

    assert UPSTREAM_CHECKS.result("fingerprint-not-of-path", subject).detail == "loaded from another folder"


class Short(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.declare(max_samples=4_000)


make_Short = factory_of(Short)  # noqa: N816


def test_no_sound_is_longer_than_the_upstream_takes() -> None:
    results = examined(f"py:{__name__}:make_Short")

    assert failed(results) == {}
    assert results["hop-and-first-centre"].status == "not measurable"
    assert "320 to 4000 samples" in results["num-frames"].detail


@pytest.mark.parametrize("name", ["mel", "fbank"])
def test_the_front_ends_keep_their_promises(name: str) -> None:
    results = examined(name)

    assert failed(results) == {}
    assert results["hop-and-first-centre"].status == "passed"
    assert results["fingerprint-of-weights"].status == "not applicable"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mockingjay", "apc"])
def test_the_networks_keep_their_promises(name: str) -> None:
    results = examined(name, "random:tiny")

    assert failed(results) == {}
    assert results["gradient-when-training"].status == "passed"


ELSEWHERE = {"precomputed", "mockingjay", "apc"}
"""Not an upstream without a corpus; and those of the test above."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [entry.name for entry in registry().entries("upstream") if entry.builtin and entry.name not in ELSEWHERE]
)
def test_every_front_end_keeps_its_promises(name: str) -> None:
    assert failed(examined(name)) == {}
