"""Heads are what their names say."""

from __future__ import annotations

import pytest
import torch

from repbench.downstream.heads import HEADS, Head, SeededDropout, build_head, mean_of_each, refuse_head, windows
from repbench.downstream.problems import FRAMES, SEQUENCES
from repbench.errors import UsageError


def head(name: str, *, pools: bool) -> Head:
    return build_head(
        name, width=6, num_classes=3, hidden_units=5, pools=pools, generator=torch.Generator().manual_seed(1)
    )


@pytest.mark.parametrize(("name", "parameters"), [("linear", 6 * 3 + 3), ("mlp1", 6 * 5 + 5 + 5 * 3 + 3),
                                                  ("mlp2", 6 * 5 + 5 + 5 * 5 + 5 + 5 * 3 + 3)])  # fmt: skip
def test_a_head_has_the_parameters_of_its_name(name: str, parameters: int) -> None:
    assert sum(each.numel() for each in head(name, pools=False).parameters()) == parameters


def test_a_pooling_head_is_the_same_alone_and_beside_others() -> None:
    frames, counts = torch.randn(10, 6), torch.tensor([3, 7])
    scores = head("mlp1", pools=True)(frames, counts)
    alone = head("mlp1", pools=True)(frames[3:], torch.tensor([7]))
    torch.testing.assert_close(scores[1:], alone)


def test_the_mean_is_over_each_utterances_own_frames() -> None:
    means = mean_of_each(torch.tensor([[1.0], [3.0], [10.0]]), torch.tensor([2, 1]))
    assert means.tolist() == [[2.0], [10.0]]


def test_the_seed_alone_decides_the_weights() -> None:
    torch.manual_seed(0)
    first = head("mlp2", pools=True).state_dict()
    torch.manual_seed(1)
    assert all(torch.equal(first[name], tensor) for name, tensor in head("mlp2", pools=True).state_dict().items())


@pytest.mark.parametrize(("problem", "name"), [(problem, name) for problem, names in HEADS.items() for name in names])
def test_initial_weights_are_uniform_within_one_over_the_root_of_the_inputs(problem: str, name: str) -> None:
    """As torch draws them for linear layers and GRUs; a GRU's bound is that of its units."""
    drawn = build_head(
        name, width=40, num_classes=30, hidden_units=50, pools=problem == "utterance-classification",
        generator=torch.Generator().manual_seed(1),
    )  # fmt: skip
    layers = [each for each in drawn.modules() if isinstance(each, (torch.nn.Linear, torch.nn.GRU, torch.nn.LSTM))]
    assert layers
    for layer in layers:
        inputs = layer.in_features if isinstance(layer, torch.nn.Linear) else layer.hidden_size
        bound = inputs**-0.5
        for parameter in layer.parameters():
            assert float(parameter.detach().abs().max()) <= bound * (1 + 1e-7), "rounded to float32"
            assert float(parameter.detach().abs().max()) > 0.8 * bound
            if parameter.ndim == 2:
                assert float(parameter.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.1)


def test_an_unknown_head_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"no head `mlp3`.*`gru`, .*`linear`, .*`mlp1`, `mlp2`"):
        head("mlp3", pools=True)


EVERY_HEAD = [(problem, name) for problem, names in HEADS.items() for name in names]


@pytest.mark.parametrize(("problem", "name"), EVERY_HEAD)
def test_every_head_is_the_same_alone_beside_others_and_in_another_order(problem: str, name: str) -> None:
    asked = head(name, pools=problem == "utterance-classification").eval()
    several = [torch.randn(count, 6) for count in (3, 12, 7)]
    with torch.no_grad():
        alone = [asked(each, torch.tensor([len(each)])) for each in several]
        for order in ((0, 1, 2), (2, 0, 1)):
            frames = torch.cat([several[number] for number in order])
            together = asked(frames, torch.tensor([len(several[number]) for number in order]))
            torch.testing.assert_close(together, torch.cat([alone[number] for number in order]))


def test_heads_for_sequences_have_a_blank_more() -> None:
    assert head("ctc", pools=False).output.out_features == head("project_ctc", pools=False).output.out_features == 4


def test_a_window_ends_with_its_utterance() -> None:
    seen = windows(torch.tensor([0, 2, 3, 4]), torch.tensor([3, 5]), 1)
    assert seen.tolist() == [[1, 0, 0], [2, 2, 1], [4, 3, 3], [4, 4, 3]]


def test_a_gru_hears_every_fifth_frame_and_no_other() -> None:
    asked, counts = head("gru", pools=True).eval(), torch.tensor([8])
    frames = torch.randn(8, 6)
    changed = frames.clone()
    changed[[1, 2, 3, 4, 6, 7]] += 1.0
    assert torch.equal(asked(frames, counts), asked(changed, counts))
    changed[5] += 1.0
    assert not torch.equal(asked(frames, counts), asked(changed, counts))


def test_dropout_follows_from_its_seed_alone_and_is_left_out_when_scoring() -> None:
    values = torch.ones(1000)

    def dropped(seed: int) -> torch.Tensor:
        torch.manual_seed(torch.seed())
        after: torch.Tensor = SeededDropout(0.2, torch.Generator().manual_seed(seed))(values)
        return after

    assert torch.equal(dropped(1), dropped(1))
    assert not torch.equal(dropped(1), dropped(2))
    assert 0.15 < float((dropped(1) == 0).float().mean()) < 0.25
    assert float(dropped(1).max()) == 1.25
    assert torch.equal(SeededDropout(0.2, torch.Generator()).eval()(values), values)


def test_a_head_that_cannot_answer_is_refused_with_those_that_can() -> None:
    with pytest.raises(UsageError, match=r"no head `gru` for frame-classification.*linear, mlp1, mlp2, concat9"):
        refuse_head("gru", FRAMES)
    with pytest.raises(UsageError, match=r"no head `mlp-1` .*Did you mean `mlp1`\? Choose one of linear, mlp1"):
        refuse_head("mlp-1", FRAMES)
    with pytest.raises(UsageError, match=r"no head `linear` for sequence.*ctc, project_ctc"):
        refuse_head("linear", SEQUENCES)
