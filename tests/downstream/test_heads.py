"""Heads are what their names say."""

from __future__ import annotations

import pytest
import torch

from repbench.downstream.heads import Head, build_head, mean_of_each
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


def test_an_unknown_head_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"no head `mlp3`.*linear, mlp1, mlp2"):
        head("mlp3", pools=True)
