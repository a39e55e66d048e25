"""Attentive, statistics, convolutional, BLSTM and x-vector heads equal slow forms that take one utterance at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repbench.downstream.heads import Head, HeadInfo, build_head, head_info
from repbench.downstream.heads.frames import convolved, with_repeated_ends
from repbench.downstream.heads.statistics_mean import VARIANCE_FLOOR
from repbench.downstream.problems import PROBLEMS
from repbench.errors import PluginError

WIDTH, UNITS, CLASSES = 6, 5, 3
COUNTS = (7, 1, 23, 14, 15)
"""Frames of each utterance: one frame, and fewer, as many and more than the fifteen that `xvector` reads."""

FORMS = [
    ("attentive_mean", True),
    ("statistics_mean", True),
    ("conv", True),
    ("conv", False),
    ("blstm", True),
    ("blstm", False),
    ("xvector", True),
]


def head(name: str, *, pools: bool, seed: int = 1, dropout: float = 0.0) -> Head:
    return build_head(
        name, width=WIDTH, num_classes=CLASSES, hidden_units=UNITS, pools=pools, dropout=dropout,
        generator=torch.Generator().manual_seed(seed),
    ).double()  # fmt: skip


def utterances(counts: tuple[int, ...] = COUNTS) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(count, WIDTH, generator=generator, dtype=torch.float64) for count in counts]


# slow forms: (F, D) of one utterance -> (O,), or (F, O) of its frames


def slow_attentive_mean(one: Head, frames: Tensor) -> Tensor:
    vector = one.get_parameter("attention.weight")[0]
    powers = [torch.exp(torch.dot(vector, frame)) for frame in frames]
    pooled = sum(power * frame for power, frame in zip(powers, frames, strict=True)) / sum(powers)
    scores: Tensor = one.output(pooled)
    return scores


def slow_statistics(frames: Tensor) -> Tensor:
    variance = frames.var(dim=0, unbiased=False)
    return torch.cat([frames.mean(dim=0), torch.where(variance > VARIANCE_FLOOR, variance, VARIANCE_FLOOR).sqrt()])


def slow_statistics_mean(one: Head, frames: Tensor) -> Tensor:
    scores: Tensor = one.output(one.hidden(slow_statistics(frames)).relu())  # type: ignore[operator]
    return scores


def slow_blstm(one: Head, frames: Tensor) -> Tensor:
    """Each direction by its own LSTM, frame by frame."""
    both = []
    directions = (one.lstm.forward_lstm, frames), (one.lstm.backward_lstm, frames.flip(0))  # type: ignore[union-attr]
    for direction, ordered in directions:
        cell = nn.LSTMCell(WIDTH, UNITS).double()
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(cell, name).data = getattr(direction, f"{name}_l0").data
        state = (torch.zeros(1, UNITS, dtype=torch.float64),) * 2
        outputs = []
        for frame in ordered:
            state = cell(frame[None], state)
            outputs.append(state[0][0])
        both.append(torch.stack(outputs))
    states = torch.cat([both[0], both[1].flip(0)], dim=1)  # F of (units,) in two directions -> (F, 2 units)
    scores: Tensor = one.output(states.mean(dim=0) if one.pools else states)
    return scores


def slow_conv(one: Head, frames: Tensor) -> Tensor:
    sequence = F.pad(frames.t()[None], (4, 4), mode="replicate")
    units = one.second(one.first(sequence).relu()).relu()[0].t()  # type: ignore[operator]
    scores: Tensor = one.output(units.mean(dim=0) if one.pools else units)
    return scores


def slow_xvector(one: Head, frames: Tensor) -> Tensor:
    """The published table: layer after layer, frame after frame."""
    lacking = max(0, 15 - len(frames))
    rows = [frames[0]] * (lacking // 2) + list(frames) + [frames[-1]] * (lacking - lacking // 2)
    contexts = [(-2, -1, 0, 1, 2), (-2, 0, 2), (-3, 0, 3), (0,), (0,)]
    for layer, context in zip(one.frame_layers, contexts, strict=True):  # type: ignore[arg-type]
        first, last = -context[0], len(rows) - context[-1]
        rows = [
            (sum(layer.weight[:, :, k] @ rows[t + offset] for k, offset in enumerate(context)) + layer.bias).relu()
            for t in range(first, last)
        ]
    one_row: Tensor = one.output(
        one.segment7(one.segment6(slow_statistics(torch.stack(rows))).relu()).relu()  # type: ignore[operator]
    )
    return one_row


SLOW: dict[str, Callable[[Head, Tensor], Tensor]] = {
    "attentive_mean": slow_attentive_mean,
    "statistics_mean": slow_statistics_mean,
    "blstm": slow_blstm,
    "conv": slow_conv,
    "xvector": slow_xvector,
}


@pytest.mark.parametrize(("name", "pools"), FORMS)
def test_a_head_equals_its_slow_form_on_each_utterance_of_a_batch(name: str, pools: bool) -> None:
    one, several = head(name, pools=pools).eval(), utterances()
    with torch.no_grad():
        scores = one(torch.cat(several), torch.tensor(COUNTS))
        parts = list(scores) if pools else list(scores.split(list(COUNTS)))
        for part, frames in zip(parts, several, strict=True):
            torch.testing.assert_close(part, SLOW[name](one, frames), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("name", "pools"), FORMS)
def test_neither_padding_nor_the_others_of_a_batch_nor_their_order_change_an_utterance(name: str, pools: bool) -> None:
    one, several = head(name, pools=pools).eval(), utterances()
    with torch.no_grad():
        alone = [one(each, torch.tensor([len(each)])) for each in several]
        for order in ((4, 3, 2, 1, 0), (1, 2), (2, 1, 0)):
            counts = [COUNTS[number] for number in order]
            together = one(torch.cat([several[number] for number in order]), torch.tensor(counts))
            for number, part in zip(order, together.split(1 if pools else counts), strict=True):
                torch.testing.assert_close(part, alone[number], rtol=1e-10, atol=1e-12)
        # A neighbour of enormous or missing values reaches no score but its own.
        spoilt = torch.full((9, WIDTH), float("nan"), dtype=torch.float64)
        beside = one(torch.cat([several[0], spoilt, several[2]]), torch.tensor([7, 9, 23]))
        first, _, last = beside.split(1 if pools else [7, 9, 23])
        torch.testing.assert_close(first, alone[0], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(last, alone[2], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("name", "pools"), FORMS)
def test_gradients_are_finite_and_those_of_the_slow_form(name: str, pools: bool) -> None:
    one, several = head(name, pools=pools).train(), utterances()
    several[3][:] = several[3][:1].clone()  # frames that do not vary: the slope of a square root at 0 is infinite
    inputs = torch.cat(several).requires_grad_()
    scores = one(inputs, torch.tensor(COUNTS))
    torch.autograd.backward(scores.square().sum())
    found = {key: weight.grad.clone() for key, weight in one.named_parameters() if weight.grad is not None}
    assert found.keys() == dict(one.named_parameters()).keys()
    assert inputs.grad is not None
    assert all(bool(each.isfinite().all()) for each in (*found.values(), inputs.grad))
    if name == "blstm":  # the slow form has copies of its weights; its inputs are held instead
        found = {}
    one.zero_grad()
    slow_inputs = torch.cat(several).requires_grad_()
    parts = [SLOW[name](one, each) for each in torch.split(slow_inputs, list(COUNTS))]
    torch.autograd.backward(sum((each.square().sum() for each in parts), torch.zeros(())))
    for key, gradient in found.items():
        torch.testing.assert_close(one.get_parameter(key).grad, gradient, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(slow_inputs.grad, inputs.grad, rtol=1e-8, atol=1e-10)


def test_attention_adds_up_to_one_within_each_utterance_whatever_the_logits() -> None:
    one = head("attentive_mean", pools=True)
    one.attention.weight.data.mul_(1e4)  # type: ignore[union-attr, operator]
    weights = one.weights(torch.cat(utterances()), torch.tensor(COUNTS))  # type: ignore[operator]
    totals = [float(each.sum()) for each in weights.detach().split(list(COUNTS))]
    assert totals == pytest.approx([1.0] * len(COUNTS))
    assert bool((weights >= 0).all())


def test_equal_attention_is_the_linear_head_on_the_mean() -> None:
    one, linear = head("attentive_mean", pools=True), head("linear", pools=True)
    one.attention.weight.data.zero_()  # type: ignore[union-attr, operator]
    linear.output.load_state_dict(one.output.state_dict())
    frames, counts = torch.cat(utterances()), torch.tensor(COUNTS)
    torch.testing.assert_close(one(frames, counts), linear(frames, counts))


def test_the_deviation_is_biased_and_has_a_floor() -> None:
    from repbench.downstream.heads.statistics_mean import statistics_of_each

    frames = torch.tensor([[1.0], [3.0], [5.0], [8.0]], dtype=torch.float64)
    found = statistics_of_each(frames, torch.tensor([3, 1]))
    expected = [[3.0, (8 / 3) ** 0.5], [8.0, VARIANCE_FLOOR**0.5]]  # sum of squares 8, over 3 frames and not over 2
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_ends_are_repeated_within_each_utterance() -> None:
    frames = torch.tensor([[1.0], [2.0], [10.0]])
    longer = with_repeated_ends(frames, torch.tensor([2, 1]), torch.tensor([1, 0]), torch.tensor([2, 3]))
    assert longer.flatten().tolist() == [1, 1, 2, 2, 2, 10, 10, 10, 10]


def test_a_convolution_mixes_no_two_utterances() -> None:
    layer = nn.Conv1d(1, 1, 2)
    layer.weight.data = torch.tensor([[[1.0, 100.0]]])
    layer.bias.data.zero_()  # type: ignore[union-attr]
    frames = torch.tensor([[1.0], [2.0], [3.0], [7.0], [8.0]])
    units, left = convolved(frames, torch.tensor([3, 2]), [layer], nn.Identity())
    assert (units.flatten().tolist(), left.tolist()) == ([201.0, 302.0, 807.0], [2, 1])


@pytest.mark.parametrize("name", ["statistics_mean", "conv", "blstm"])
def test_dropout_is_read_in_training_alone(name: str) -> None:
    frames, counts = torch.cat(utterances()), torch.tensor(COUNTS)
    plain, dropped = head(name, pools=True).eval(), head(name, pools=True, dropout=0.5)
    with torch.no_grad():
        assert not torch.equal(dropped.train()(frames, counts), plain(frames, counts))
        assert torch.equal(dropped.eval()(frames, counts), plain(frames, counts))


def test_a_head_of_whole_utterances_has_no_context_of_single_frames() -> None:
    with pytest.raises(PluginError, match=r"`whole_utterances` has no `context_frames`"):
        HeadInfo(name="both", gives=("frames",), context_frames=2, whole_utterances=True)


def test_only_heads_that_mix_frames_without_bound_read_whole_utterances() -> None:
    frames_heads = PROBLEMS["frame-classification"].heads
    assert {name for name in frames_heads if head_info(name).whole_utterances} == {"blstm", "conv"}


def test_the_sizes_of_the_x_vector_are_the_published_ones() -> None:
    one = build_head(
        "xvector", width=24, num_classes=10, hidden_units=5, pools=True, generator=torch.Generator().manual_seed(1)
    )
    shapes = {key: tuple(weights.shape) for key, weights in one.state_dict().items() if key.endswith("weight")}
    assert list(shapes.values()) == [
        (512, 24, 5), (512, 512, 3), (512, 512, 3), (512, 512, 1), (1500, 512, 1), (512, 3000), (512, 512), (10, 512),
    ]  # fmt: skip
