"""Rules that hold for every head."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from repbench.downstream.heads import (
    HEADS,
    Head,
    SeededDropout,
    build_head,
    head_info,
    restart_dropout,
)
from repbench.downstream.heads.builtin import ContextHead, Mlp1, RecurrentHead

EVERY_HEAD = sorted({name for names in HEADS.values() for name in names})


def head(name: str, seed: int = 1, *, pools: bool = True, dropout: float = 0.0) -> Head:
    return build_head(
        name, width=6, num_classes=3, hidden_units=5, pools=pools, dropout=dropout,
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip


def test_which_heads_answer_what() -> None:
    expected = {
        "frame-classification": ("linear", "mlp1", "mlp2", "concat9", "conv", "blstm"),
        "utterance-classification": (
            "linear", "mlp1", "mlp2", "gru", "project_mean", "attentive_mean", "statistics_mean", "conv", "blstm",
            "xvector",
        ),
        "text": ("ctc", "project_ctc", "blstm_ctc"),
        "sequence": ("ctc", "project_ctc", "blstm_ctc"),
    }  # fmt: skip
    assert HEADS.items() >= expected.items()
    assert HEADS["utterance-regression"] == HEADS["multi-attribute"] == HEADS["utterance-classification"]


@pytest.mark.parametrize("name", EVERY_HEAD)
def test_every_weight_is_drawn_from_the_heads_generator_within_its_bound(name: str) -> None:
    torch.manual_seed(0)
    first, other = head(name), head(name, seed=2)
    torch.manual_seed(3)
    again = head(name)
    for part in first.modules():
        if not isinstance(part, nn.Linear | nn.GRU | nn.LSTM | nn.Conv1d):
            continue
        if isinstance(part, nn.Conv1d):
            inputs = part.in_channels * part.kernel_size[0]
        else:
            inputs = part.in_features if isinstance(part, nn.Linear) else part.hidden_size
        for parameter in part.parameters():
            drawn = parameter.detach().flatten()
            assert float(drawn.abs().max()) <= inputs**-0.5 * (1 + 1e-7), "the bound, rounded to float32"
            assert float(drawn.abs().max()) > 0.8 * inputs**-0.5 or len(drawn) < 15, "no other scale"
            # Of the first ones: among some 10,000 numbers of 24 bits two are equal by chance.
            assert len(set(drawn[:1_000].tolist())) == min(len(drawn), 1_000)
    for key, weights in first.state_dict().items():
        assert torch.equal(weights, again.state_dict()[key]), key
        assert not torch.equal(weights, other.state_dict()[key]), key


def test_a_recurrent_head_with_layers_before_and_after_is_drawn_too() -> None:
    def built() -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(1)
        asked = RecurrentHead(width=6, num_outputs=3, before=(4, 5), units=7, after=(8, 9), generator=generator)
        return asked.state_dict()

    first, again = built(), built()
    assert {key: tuple(weights.shape) for key, weights in first.items() if key.endswith("weight")} == {
        "pre_linears.0.weight": (4, 6), "pre_linears.1.weight": (5, 4), "post_linears.0.weight": (8, 7),
        "post_linears.1.weight": (9, 8), "output.weight": (3, 9),
    }  # fmt: skip
    assert all(torch.equal(weights, again[key]) for key, weights in first.items())


@pytest.mark.parametrize("name", EVERY_HEAD)
def test_which_heads_learn_one_matrix(name: str) -> None:
    one = head(name).is_one_matrix
    assert one == (name in {"linear", "ctc", "concat9"})
    assert one == (len(list(head(name).parameters())) == 2)


@pytest.mark.parametrize("name", EVERY_HEAD)
def test_a_head_without_context_answers_frames_without_counts(name: str) -> None:
    asked = head(name, pools=False)
    assert asked.context_frames == (4 if name == "concat9" else 0)
    if "frames" in head_info(name).gives and name != "concat9" and not head_info(name).whole_utterances:
        assert len(asked(torch.randn(7, 6))) == 7


@pytest.mark.parametrize("name", HEADS["utterance-classification"])
def test_linear_on_the_mean_is_just_that(name: str) -> None:
    frames = torch.randn(9, 6, generator=torch.Generator().manual_seed(0))
    asked = head(name).eval()
    mean = frames.mean(dim=0, keepdim=True)
    of_frames, of_mean = asked(frames, torch.tensor([9])), asked(mean, torch.tensor([1]))
    assert torch.allclose(of_frames, of_mean, atol=1e-6) == head_info(name).linear_on_mean


def test_the_middle_of_nine_frames_is_answered_with_and_without_counts() -> None:
    frames = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    asked = head("concat9", pools=False)
    rows = [min(max(frame + offset, 0), 4) for frame in range(5) for offset in range(4, -5, -1)]
    assert isinstance(asked, ContextHead)
    torch.testing.assert_close(asked(frames[rows]), asked(frames, torch.tensor([5])))
    first, second = asked(frames, torch.tensor([2, 3])), asked(frames[2:], torch.tensor([3]))
    torch.testing.assert_close(first[2:], second)


@pytest.mark.parametrize(("name", "share"), [("linear", 0.0), ("mlp1", 0.4), ("mlp2", 0.4), ("gru", 0.5)])
def test_what_is_dropped_is_the_share_asked_for_and_half_in_a_gru(name: str, share: float) -> None:
    asked = head(name, dropout=share)
    assert [part.share for part in asked.modules() if isinstance(part, SeededDropout)] == [share]
    plain = Mlp1(width=6, num_outputs=3, hidden_units=5, pools=False, generator=torch.Generator().manual_seed(1))
    assert plain.drop.share == 0.0, "nothing, unless it is asked for"


def test_a_gru_has_the_sizes_and_the_masks_of_before() -> None:
    asked = [head("gru", seed) for seed in range(12)]
    assert (asked[0].rnn.hidden_size, asked[0].output.in_features) == (32, 32)  # type: ignore[union-attr]
    assert [each.drop._seed for each in asked] == SEEDS  # type: ignore[union-attr]


SEEDS = [
    822791237,
    1474978075,
    1804247412,
    594012560,
    1531447747,
    1943979525,
    989423279,
    875906301,
    575744896,
    916005230,
    441656876,
    861456762,
]
"""Of the masks that the seeds from 0 on give: a score of today is one of the same masks in ten years."""


def test_masks_differ_with_the_seed_and_begin_anew_when_restarted() -> None:
    values, counts = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)), torch.tensor([40])
    asked = head("mlp1", pools=False, dropout=0.5).train()
    seeds = {head("mlp1", seed, dropout=0.5).drop._seed for seed in range(200)}  # type: ignore[union-attr]
    assert len(seeds) == 200, "of 2 ** 31"
    first, second = asked(values, counts), asked(values, counts)
    assert not torch.equal(first, second)
    restart_dropout(asked, 5)
    third = asked(values, counts)
    restart_dropout(asked, 5)
    assert torch.equal(asked(values, counts), third)
    assert not torch.equal(third, first)


def test_a_head_that_drops_nothing_draws_no_seed() -> None:
    """So that its weights, and what is drawn after them, are those of versions before there was dropout."""
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    build_head("mlp1", width=6, num_classes=3, hidden_units=5, pools=True, generator=generators[0])
    for shape in ((5, 6), (5,), (3, 5), (3,)):
        bound = shape[-1] ** -0.5
        torch.empty(shape).uniform_(-bound, bound, generator=generators[1])
    assert torch.equal(generators[0].get_state(), generators[1].get_state())
