"""Hidden states, predictions and losses of APC, held to what the original, the Mockingjay code and S3PRL computed.

Not held to are the losses over padding by default, and rows that come back in another order than they were given.
"""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

from repbench.audio.frames import valid_mask
from repbench.configs.loader import build
from repbench.upstream.apc.config import ApcConfig, ApcFeatureSettings
from repbench.upstream.apc.interop import read_foreign
from repbench.upstream.apc.upstream import Apc
from repbench.upstream.checkpoints.foreign import hold_to_keys
from repbench.upstream.contract import Batch
from tests.upstream.goldens import GOLDEN, Arrays, deviation, holds, reads, unread, waveform

TOLERANCE = 2e-5
LOSS = 1e-5
IN_LOSS = ("stack.grus.0.bias_ih_l0", "stack.postnet.weight", "stack.postnet.bias")
FROM_WAVEFORMS = 5e-4

ORIGINAL = "apc/apc_original_noprenet_io.npz"
MOCKINGJAY = "apc/apc_mockingjay_legacy_noprenet_io.npz"
S3PRL = "apc/apc_s3prl_io.npz"

NOT_MATCHED: dict[str, dict[str, str]] = {}


@functools.cache
def model_of(name: str, loss_on: str = "valid", time_shift: int | None = None) -> Apc:
    path = GOLDEN / "apc" / name
    settings = {"loss_on": loss_on} | ({} if time_shift is None else {"time_shift": time_shift})
    foreign = read_foreign(path, settings)
    model = Apc(build(ApcConfig, foreign.config, path)).eval()
    hold_to_keys(model, foreign.weights, file=path)
    model.load_state_dict(foreign.weights)
    return model


def valid_deviation(ours: Tensor, golden: Tensor, lengths: Tensor) -> float:
    """Over (..., B, F, D), the largest difference within the lengths; ours is zero past them."""
    padding = ~valid_mask(lengths, ours.shape[-2])[..., None]
    assert not bool(ours.masked_select(padding).any()), "zero past each length"
    return deviation(ours, golden.masked_fill(padding, 0.0))


def loss(model: Apc, arrays: Arrays) -> float:
    batch = Batch(arrays["feat"], arrays["lengths"])
    return float(model.objective.loss(batch, torch.Generator()).value)


def losses_hold(name: str, shift: int, arrays: Arrays) -> None:
    """Over valid frames by default; over padding too, as the originals do, if that is asked for."""
    valid, padded = model_of(name, time_shift=shift), model_of(name, "padded", shift)
    right, historic = arrays[f"shift{shift}_loss_masked_derived"], arrays[f"shift{shift}_loss_reference_unmasked"]
    assert abs(float(right) - float(historic)) > 0.01
    holds(valid, lambda: abs(loss(valid, arrays) - float(right)), LOSS, *IN_LOSS, step=0.5)
    holds(padded, lambda: abs(loss(padded, arrays) - float(historic)), LOSS, *IN_LOSS, step=0.5)


def test_no_golden_array_is_left_unread() -> None:
    assert unread("apc", NOT_MATCHED) == []


@reads(ORIGINAL, "feat", "lengths", "predicted_mel", "internal_reps")
def test_the_original(arrays: Arrays) -> None:
    _states_and_prediction("apc_original_noprenet.pt", arrays)


@reads(MOCKINGJAY, "feat", "lengths", "predicted_mel", "internal_reps")
def test_the_mockingjay_code(arrays: Arrays) -> None:
    _states_and_prediction("apc_mockingjay_legacy_noprenet.ckpt", arrays)


def _states_and_prediction(name: str, arrays: Arrays) -> None:
    model, spec, lengths = model_of(name), arrays["feat"], arrays["lengths"]

    def layers() -> float:
        ours = model.hidden_states(spec, lengths).transpose(0, 1)
        return valid_deviation(ours, arrays["internal_reps"], lengths)

    def predicted() -> float:
        return valid_deviation(model.prediction(spec, lengths), arrays["predicted_mel"], lengths)

    holds(model, layers, TOLERANCE, "stack.grus")
    holds(model, predicted, TOLERANCE, "stack.grus", "stack.postnet")


@reads(ORIGINAL, "feat", "lengths", "shift1_loss_masked_derived", "shift1_loss_reference_unmasked",
       "shift3_loss_masked_derived", "shift3_loss_reference_unmasked")  # fmt: skip
def test_losses_of_the_original(arrays: Arrays) -> None:
    losses_hold("apc_original_noprenet.pt", 1, arrays)
    losses_hold("apc_original_noprenet.pt", 3, arrays)


@reads(MOCKINGJAY, "feat", "lengths", "shift3_loss_masked_derived", "shift3_loss_reference_unmasked")
def test_losses_of_the_mockingjay_code(arrays: Arrays) -> None:
    losses_hold("apc_mockingjay_legacy_noprenet.ckpt", 3, arrays)


@reads(S3PRL, "feat", "lengths", "shift5_loss_masked_derived", "shift5_loss_reference_unmasked")
def test_losses_of_s3prl(arrays: Arrays) -> None:
    assert model_of("apc_s3prl_full.ckpt").settings.time_shift == 5
    losses_hold("apc_s3prl_full.ckpt", 5, arrays)


@reads(MOCKINGJAY, "feat", "lengths", "internal_reps", "solver_forward_unsorted", "unsorted_perm")
def test_rows_come_back_in_the_order_they_were_given(arrays: Arrays) -> None:
    """The original sorted them by length and never back, so row 0 spoke of another utterance."""
    model, order = model_of("apc_mockingjay_legacy_noprenet.ckpt"), arrays["unsorted_perm"]
    with torch.no_grad():
        ours = model.hidden_states(arrays["feat"][order], arrays["lengths"][order], all_layers=False)
    last = arrays["internal_reps"][-1]
    assert valid_deviation(ours, last[order], arrays["lengths"][order]) <= TOLERANCE
    assert deviation(arrays["solver_forward_unsorted"], last) <= TOLERANCE, "sorted by length, as `feat` is"
    assert deviation(arrays["solver_forward_unsorted"], last[order]) > 0.1


@reads(S3PRL, "feat", "lengths", "hidden_states", "last_feature", "predicted")
def test_s3prl(arrays: Arrays) -> None:
    """Lengths 37, 50 and 13 in this order."""
    model, spec, lengths = model_of("apc_s3prl_full.ckpt"), arrays["feat"], arrays["lengths"]
    assert lengths.tolist() == [37, 50, 13]

    def layers() -> float:
        ours = model.hidden_states(spec, lengths).transpose(0, 1)
        return valid_deviation(ours, arrays["hidden_states"], lengths)

    def last() -> float:
        ours = model.hidden_states(spec, lengths, all_layers=False)
        return valid_deviation(ours, arrays["last_feature"], lengths)

    def predicted() -> float:
        return valid_deviation(model.prediction(spec, lengths), arrays["predicted"], lengths)

    holds(model, layers, TOLERANCE, "stack.grus")
    holds(model, last, TOLERANCE, "stack.grus")
    holds(model, predicted, TOLERANCE, "stack.grus", "stack.postnet")


@reads(S3PRL, "wav_batch_hidden_states", "wav2_alone_hidden_states")
def test_s3prl_from_waveforms(arrays: Arrays) -> None:
    model, lengths = model_of("apc_s3prl_full.ckpt"), torch.tensor([20801, 11377])
    waveforms = torch.zeros(2, 20801)
    waveforms[0], waveforms[1, :11377] = waveform("wav1"), waveform("wav2")
    counts = torch.tensor([128, 69])

    def together() -> float:
        states = model(waveforms, lengths)
        assert torch.equal(states.lengths, counts)
        return valid_deviation(states.layers, arrays["wav_batch_hidden_states"], counts)

    def alone() -> float:
        return deviation(model(waveforms[1:, :11377], lengths[1:]).layers, arrays["wav2_alone_hidden_states"])

    holds(model, together, FROM_WAVEFORMS, "stack.grus")
    holds(model, alone, FROM_WAVEFORMS, "stack.grus")


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        pytest.param(ApcConfig(), 4_105_296, id="original"),
        pytest.param(
            ApcConfig(hidden_size=768, features=ApcFeatureSettings(input="mel160")), 9_352_864, id="Mockingjay code"
        ),
        pytest.param(ApcConfig(residual_on_first=False, dropout_on_last=True), 4_105_296, id="S3PRL"),
    ],
)
def test_published_sizes(settings: ApcConfig, size: int) -> None:
    with torch.device("meta"):
        model = Apc(settings)
    assert sum(each.numel() for each in model.parameters()) == size


def alike(together: Tensor, alone: Tensor) -> None:
    assert deviation(together, alone) <= 1e-4 * float(alone.abs().max())


@pytest.mark.parametrize("prenet_layers", [0, 2])
def test_alone_equals_batched(prenet_layers: int) -> None:
    """From one frame to 30 s, one utterance silent in its middle, padding full of noise."""
    torch.manual_seed(0)
    model = Apc(ApcConfig(hidden_size=16, prenet_layers=prenet_layers)).eval()
    lengths = [801, 1, 2400, 40]
    spec = torch.randn(4, 2400, 80, generator=torch.Generator().manual_seed(1))
    spec[0, 200:600] = 0.0
    with torch.no_grad():
        together = model.hidden_states(spec, lengths)
        for row, length in enumerate(lengths):
            alone = model.hidden_states(spec[row, :length])[0]
            alike(together[row, :, :length], alone)
            assert not together[row, :, length:].any()


def test_alone_equals_batched_through_waveforms() -> None:
    torch.manual_seed(0)
    model = Apc(ApcConfig(hidden_size=16)).eval()
    lengths = torch.tensor([5001, model.info.min_samples, 16000])
    waveforms = 0.1 * torch.randn(3, 16000, generator=torch.Generator().manual_seed(1))
    waveforms[2, 5000:9000] = 0.0
    with torch.no_grad():
        together = model(waveforms, lengths)
        for row, length in enumerate(lengths.tolist()):
            alone = model(waveforms[row : row + 1, :length], lengths[row : row + 1])
            count = model.num_frames(length)
            assert int(together.lengths[row]) == count == alone.layers.shape[2]
            alike(together.layers[:, row, :count], alone.layers[:, 0])
