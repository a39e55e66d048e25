"""What pre-training scores, by small examples: which frames, against which, and how much they weigh."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from repbench.upstream.apc.config import ApcConfig
from repbench.upstream.apc.objective import shifted_distance
from repbench.upstream.apc.upstream import Apc
from repbench.upstream.contract import Batch
from repbench.upstream.mockingjay.config import MockingjayConfig
from repbench.upstream.mockingjay.masking import mask, masked_distance, scored
from repbench.upstream.mockingjay.upstream import Mockingjay


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def column(*values: float) -> Tensor:
    return torch.tensor(values)[None, :, None]


def padded(frames: Tensor, lengths: Sequence[int]) -> Tensor:
    for row, length in zip(frames, lengths, strict=True):
        row[length:] = 0.0
    return frames


def test_the_distance_is_to_the_frame_n_ahead_of_each_that_has_one() -> None:
    frames = torch.cat([column(1.0, 2.0, 4.0, 8.0), column(1.0, 1.0, 0.0, 0.0)])
    told = torch.zeros(2, 4, 1)
    loss = shifted_distance(told, frames, torch.tensor([4, 2]), 1)
    assert (float(loss.value), loss.weight) == ((2 + 4 + 8 + 1) / 4, 4.0)
    two = shifted_distance(told, frames, torch.tensor([4, 2]), 2)
    assert (float(two.value), two.weight) == ((4 + 8) / 2, 2.0)
    released = shifted_distance(told, frames, torch.tensor([4, 2]), 1, padded=True)
    assert (float(released.value), released.weight) == ((2 + 4 + 8 + 1) / 6, 6.0)


def test_what_is_told_stands_where_it_was_told_from() -> None:
    frames = column(1.0, 2.0, 4.0, 8.0)
    assert float(shifted_distance(column(2.0, 4.0, 8.0, 99.0), frames, torch.tensor([4]), 1).value) == 0.0
    assert float(shifted_distance(column(2.0, 4.0, 8.0), frames, torch.tensor([4]), 1).value) == 0.0


@pytest.mark.parametrize("shift", [4, 5, 9])
def test_utterances_that_are_too_short_weigh_nothing(shift: int) -> None:
    for released in (False, True):
        loss = shifted_distance(
            torch.ones(1, 4, 1), column(1.0, 2.0, 4.0, 8.0), torch.tensor([4]), shift, padded=released
        )
        assert (float(loss.value), loss.weight) == (0.0, 0.0)
    one = shifted_distance(torch.zeros(1, 4, 1), column(3.0, 5.0, 7.0, 8.0), torch.tensor([4]), 3)
    assert (float(one.value), one.weight) == (8.0, 1.0)


def apc(**settings: object) -> Apc:
    torch.manual_seed(0)
    return Apc(ApcConfig.model_validate({"hidden_size": 4, "num_layers": 1, "time_shift": 2} | settings)).eval()


def test_apc_tells_the_frame_n_ahead_and_hears_no_padding() -> None:
    model = apc()
    lengths = torch.tensor([6, 4])
    values = torch.randn(2, 6, 80, generator=generator())
    loss = model.objective.loss(Batch(values, lengths), generator())
    apart = []
    for row, length in enumerate(lengths.tolist()):
        told = model.stack.postnet(model.stack(values[row : row + 1, :length])[-1])[0]
        apart.append((told[: length - 2] - values[row, 2:length]).abs())
    assert float(loss.value.detach()) == pytest.approx(float(torch.cat(apart).mean().detach()), rel=1e-5)
    assert loss.weight == (4 + 2) * 80
    assert loss.value.requires_grad
    assert model.objective.min_frames == 3


def test_apc_scores_padding_where_the_released_code_did() -> None:
    model = apc(loss_on="padded")
    lengths = torch.tensor([6, 2])
    values = padded(torch.randn(2, 6, 80, generator=generator()), [6, 2])
    loss = model.objective.loss(Batch(values, lengths), generator())
    states = padded(model.stack(values)[-1].detach().clone(), [4, 0])
    told = model.stack.postnet(states)[:, :4]
    assert float(loss.value.detach()) == pytest.approx(float((told - values[:, 2:]).abs().mean().detach()), rel=1e-5)
    assert loss.weight == 2 * 4 * 80


def test_apc_shows_what_was_told_at_the_time_of_what_is_true() -> None:
    model, values = apc(), torch.randn(2, 6, 80, generator=generator())
    figures = model.objective.figures(Batch(values, torch.tensor([5, 6])))
    assert torch.equal(figures["true"], values[0, 2:5])
    told = model.stack.postnet(model.stack(values[:1])[-1])[0]
    torch.testing.assert_close(figures["predicted"], told[:3])
    short = model.objective.figures(Batch(values[:, :1], torch.tensor([1, 1])))
    assert [len(each) for each in short.values()] == [0, 0]


def mockingjay(**settings: object) -> Mockingjay:
    torch.manual_seed(0)
    sizes = {"hidden_size": 12, "num_layers": 1, "num_heads": 2, "feed_forward_size": 8, "downsample_rate": 2}
    return Mockingjay(MockingjayConfig.model_validate(sizes | settings)).eval()


LINEAR = {"features": {"input": "mel160", "target": "linear1025"}}


@pytest.mark.parametrize("settings", [{}, {"loss": "mse"}, {"masking": {"frequency": 0.3}}, LINEAR])
def test_mockingjay_is_scored_where_it_was_masked(settings: dict[str, object]) -> None:
    model = mockingjay(**settings)
    width = 160 + 1025 * (settings == LINEAR)
    batch = Batch(torch.randn(2, 20, width, generator=generator(1)), torch.tensor([20, 13]))
    loss = model.objective.loss(batch, generator(2))
    given = batch.values[..., :160].reshape(2, 10, 320)
    target = batch.values[..., 160:].reshape(2, 10, 2050) if settings == LINEAR else given
    counts = torch.tensor([10, 6])
    masked = mask(given, counts, model.settings.masking, generator(2))
    where = scored(masked, counts, model.settings.masking)
    restored = model.require_head()(model.encoder.last(masked.frames, counts))
    expected = masked_distance(restored, target, where, model.settings.loss)
    assert float(loss.value.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert loss.weight == float(where.sum()) * (target.shape[-1] if where.ndim == 2 else 1)
    assert model.objective.min_frames == 4


def test_mockingjay_sees_input_and_target_side_by_side() -> None:
    waveforms, lengths = 0.1 * torch.randn(2, 8000, generator=generator()), torch.tensor([8000, 6000])
    plain, linear = mockingjay(), mockingjay(**LINEAR)
    one, both = (model.objective.frames(waveforms, lengths) for model in (plain, linear))
    assert torch.equal(one.values, plain.front_end(waveforms, lengths)[0])
    assert linear.target_front_end is not None
    assert torch.equal(both.values[..., :160], one.values)
    assert torch.equal(both.values[..., 160:], linear.target_front_end(waveforms, lengths)[0])
    assert one.lengths.tolist() == both.lengths.tolist() == [plain.objective.num_frames(each) for each in (8000, 6000)]


def test_mockingjay_shows_its_first_utterance_unstacked_and_masked_alike_each_time() -> None:
    model = mockingjay(**LINEAR, masking={"zeroed": 0.0, "replaced": 1.0, "proportion": 0.5, "consecutive": 2})
    batch = Batch(torch.randn(2, 20, 1185, generator=generator(1)), torch.tensor([13, 20]))
    figures = model.objective.figures(batch)
    assert {name: tuple(each.shape) for name, each in figures.items()} == {
        "masked": (12, 160), "predicted": (12, 1025), "true": (12, 1025)
    }  # fmt: skip
    assert torch.equal(figures["true"], batch.values[0, :12, 160:])
    masked = mask(
        batch.values[:1, :12, :160].reshape(1, 6, 320), torch.tensor([6]), model.settings.masking, generator(0)
    )
    assert torch.equal(figures["masked"], masked.frames.reshape(12, 160))
    restored = model.require_head()(model.encoder.last(masked.frames, torch.tensor([6])))
    torch.testing.assert_close(figures["predicted"], restored.reshape(12, 1025))


def test_under_bfloat16_what_is_scored_and_shown_is_float32() -> None:
    model, batch = mockingjay(), Batch(torch.randn(2, 20, 160, generator=generator(1)), torch.tensor([20, 13]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, figures = model.objective.loss(batch, generator()), model.objective.figures(batch)
    assert loss.value.dtype == torch.float32
    assert {each.dtype for each in figures.values()} == {torch.float32}


def test_positions_begin_anywhere_up_to_the_offset_and_at_the_first_without() -> None:
    counts = torch.full((2000,), 5)
    assert mockingjay().objective._offsets(counts, generator()) is None
    drawn = mockingjay(position_offset=3).objective._offsets(counts, generator())
    assert drawn is not None
    assert drawn.dtype == torch.int64
    model = mockingjay(position_offset=3)
    other, again = (model.objective._offsets(counts, generator(seed)) for seed in (1, 0))
    assert again is not None
    assert other is not None
    assert torch.equal(drawn, again), "the generator draws them"
    assert not torch.equal(drawn, other)
    shares = torch.bincount(drawn, minlength=4) / 2000
    assert shares.tolist() == pytest.approx([0.25] * 4, abs=0.04)
