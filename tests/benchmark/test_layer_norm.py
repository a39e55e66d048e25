"""`probe.layer_norm` normalises each frame of each layer before the layers are mixed, and changes nothing when off."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from repbench.benchmark.finetuning.network import load_network
from repbench.benchmark.pipeline.existing_records import identity_of
from repbench.benchmark.probing.probe import Probe, ProbeShape, encoded_probe, load_probe
from repbench.benchmark.protocol import ProbeSettings, Protocol
from repbench.benchmark.records.record import read_record
from repbench.benchmark.report.data.columns import columns_of
from repbench.benchmark.run import RunRequest, run
from repbench.testing import tone_corpus
from tests.benchmark import small_finetuning

ENVELOPE = "py:repbench.testing.fakes:envelope"
EPSILON = 1e-5
"""Of `torch.nn.functional.layer_norm`."""


def probe(*, layer_norm: bool = True, num_layers: int = 3, mix: str = "weighted", head: str = "linear") -> Probe:
    shape = ProbeShape(
        head=head, pools=True, num_layers=num_layers, width=6, hidden_units=5, classes=("a", "b"), mix=mix,
        layer_norm=layer_norm,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    made = Probe(shape, generator)
    made.layer_logits.data.copy_(torch.randn(num_layers, generator=generator))
    made.set_statistics(torch.randn(num_layers, 1, 6, generator=generator), 0.5 + torch.rand(num_layers, 1, 6))
    return made


def frames_of(num_layers: int = 3, num_frames: int = 600) -> Tensor:
    return torch.randn(num_layers, num_frames, 6, generator=torch.Generator().manual_seed(0))


def slow(one: Probe, frames: Tensor) -> Tensor:
    """The input of the head, (L, N, D) -> (N, D): frame after frame, in float64."""
    weights = torch.softmax(one.layer_logits.double(), dim=0)
    rows = []
    for number in range(frames.shape[1]):
        row = torch.zeros(frames.shape[2], dtype=torch.float64)
        for layer, weight in enumerate(weights):
            frame = (frames[layer, number].double() - one.mean[layer, 0].double()) / one.std[layer, 0].double()
            centred = frame - frame.sum() / len(frame)
            row = row + weight * centred / (centred.square().sum() / len(frame) + EPSILON).sqrt()
        rows.append(row)
    return torch.stack(rows)


def test_the_weighted_sum_is_of_normalised_frames() -> None:
    one, frames = probe(), frames_of()
    expected = slow(one, frames)
    torch.testing.assert_close(one.mixed(one.standardised(frames)).double(), expected, rtol=1e-5, atol=1e-6)
    in_place = frames.clone()
    one.standardise_(in_place)
    assert torch.equal(in_place, one.standardised(frames))
    plain = probe(layer_norm=False)
    difference = plain.mixed(plain.standardised(frames)).double() - expected
    assert float(difference.detach().abs().max()) > 0.1


def test_the_gradients_of_weights_and_frames_are_those_of_the_slow_form() -> None:
    one = probe()
    frames, again = frames_of(num_frames=5).requires_grad_(), frames_of(num_frames=5).requires_grad_()
    direction = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    torch.autograd.backward((one.mixed(one.standardised(frames)).double() * direction).sum())
    logits = one.layer_logits.grad
    one.zero_grad()
    torch.autograd.backward((slow(one, again) * direction).sum())
    torch.testing.assert_close(logits, one.layer_logits.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(frames.grad, again.grad, rtol=1e-4, atol=1e-5)


def test_a_constant_frame_becomes_zero_and_not_nan() -> None:
    one = probe()
    one.set_statistics(torch.zeros(3, 1, 6), torch.ones(3, 1, 6))
    assert torch.equal(one.standardised(torch.full((3, 2, 6), 7.0)), torch.zeros(3, 2, 6))


def test_the_file_of_a_probe_has_the_field_only_where_it_is_on(tmp_path: Path) -> None:
    for layer_norm in (False, True):
        one = probe(layer_norm=layer_norm)
        (tmp_path / "probe").write_bytes(encoded_probe(one, {}))
        assert (b"layer_norm" in (tmp_path / "probe").read_bytes()) == layer_norm
        again, _ = load_probe(tmp_path / "probe")
        frames, counts = frames_of(num_frames=9), torch.tensor([4, 5])
        assert torch.equal(again(frames, counts), one.eval()(frames, counts))


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("layer_norm") / "tones"
    tone_corpus(folder, num_speakers=5, per_session=2)
    return folder


def request(tones: Path, out: Path, *, layer_norm: bool, **changes: object) -> RunRequest:
    settings = ProbeSettings(steps=20, batch_utterances=4, hidden_units=8, selection_points=2, layer_norm=layer_norm)
    made = RunRequest(
        upstream=ENVELOPE, downstream="speaker", corpus=str(tones), layer="weighted", head="linear", out=out,
        protocol=Protocol(probe=settings),
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def test_off_is_the_identity_of_records_of_before_and_on_is_another(tones: Path, tmp_path: Path) -> None:
    (off,), (on,) = (run(request(tones, tmp_path, layer_norm=each)) for each in (False, True))
    fields = json.loads(off.path.read_text(encoding="utf-8"))
    del fields["protocol"]["probe"]["layer_norm"]
    old = tmp_path / "old.json"
    old.write_text(json.dumps(fields), encoding="utf-8")
    assert identity_of(read_record(old)) == identity_of(off.record)
    assert identity_of(on.record) != identity_of(off.record)
    assert len({column.key for column in columns_of([on.record, off.record]).values()}) == 2
    weights = [load_probe(each.path.parent / "probe.safetensors")[0].head.output.weight for each in (off, on)]
    assert not torch.equal(*weights)


def test_a_saved_probe_scores_with_it(tones: Path, tmp_path: Path) -> None:
    (source,) = run(request(tones, tmp_path / "a", layer_norm=True, downstream="sentiment"))
    tone_corpus(tmp_path / "other", num_speakers=3, per_session=5, salt="other")
    (scored,) = run(
        RunRequest(
            upstream=ENVELOPE, downstream="sentiment", corpus=str(tmp_path / "other"), out=tmp_path / "b",
            probe=source.path.parent,
        )
    )  # fmt: skip
    assert scored.record.protocol["probe"]["layer_norm"] is True
    assert load_probe(scored.path.parent / "probe.safetensors")[0].shape.layer_norm


def test_a_network_is_fine_tuned_with_it(tones: Path, tmp_path: Path) -> None:
    plain = small_finetuning.request(ENVELOPE, tones, tmp_path / "off")
    probe = plain.protocol.probe.model_copy(update={"layer_norm": True})
    normalised = replace(plain, out=tmp_path / "on", protocol=plain.protocol.model_copy(update={"probe": probe}))
    (off,), (on,) = run(plain), run(normalised)
    assert identity_of(on.record) != identity_of(off.record)
    one, other = (load_network(each.path.parent / "network.safetensors") for each in (off, on))
    assert (one.probe.shape.layer_norm, other.probe.shape.layer_norm) == (False, True)
    # The gradient that reaches the upstream is another.
    assert any(not torch.equal(weights, other.upstream[name]) for name, weights in one.upstream.items())
