"""Activations that are computed again in the backward pass: the bits of a training that keeps them, in less memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from repbench.errors import UsageError
from repbench.testing import tone_corpus
from repbench.upstream.apc.config import ApcConfig
from repbench.upstream.apc.upstream import Apc
from repbench.upstream.contract import Batch
from repbench.upstream.mockingjay.config import MockingjayConfig
from repbench.upstream.mockingjay.model import LayerNormPlace, initialise
from repbench.upstream.mockingjay.upstream import Mockingjay
from tests.upstream.small_training import trainer

SMALL: dict[str, Any] = {"hidden_size": 24, "num_heads": 2, "feed_forward_size": 48, "num_layers": 3}


def model(place: LayerNormPlace = "post", *, recomputes: bool = False) -> Mockingjay:
    """A small network with dropout, in training."""
    network = Mockingjay(MockingjayConfig(**SMALL, layer_norm=place))
    initialise(network, 0.2, torch.Generator().manual_seed(0))
    network.recompute_activations(recomputes)
    return network.train()


def learned(network: Mockingjay, dtype: torch.dtype) -> tuple[Tensor, dict[str, Tensor], int]:
    """Loss, gradients, and bytes that the forward pass keeps for the backward pass."""
    generator = torch.Generator().manual_seed(1)
    batch = Batch(torch.randn(3, 60, 160, generator=generator), torch.tensor([60, 51, 33]))
    kept = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    with torch.random.fork_rng():
        torch.manual_seed(2)
        hooks = torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor)
        with hooks, torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = network.objective.loss(batch, torch.Generator().manual_seed(3)).value
        num_bytes = kept
        torch.autograd.backward(loss)
    gradients = {name: each.grad for name, each in network.named_parameters() if each.grad is not None}
    return loss.detach(), gradients, num_bytes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("place", ["post", "pre"])
def test_losses_and_gradients_keep_their_bits_and_less_is_kept(place: LayerNormPlace, dtype: torch.dtype) -> None:
    loss, gradients, num_bytes = learned(model(place), dtype)
    again, others, fewer_bytes = learned(model(place, recomputes=True), dtype)

    assert torch.equal(again, loss)
    assert others.keys() == gradients.keys() != set()
    assert all(torch.equal(others[name], gradients[name]) for name in gradients)
    assert fewer_bytes < num_bytes / 3


def test_a_training_that_recomputes_ends_in_the_same_weights(tmp_path: Path) -> None:
    utterances = tone_corpus(tmp_path / "tones", num_speakers=2).utterances
    weights = []
    for recomputes in (False, True):
        network = model()
        training = trainer(network, utterances, tmp_path / str(recomputes), recompute_activations=recomputes)
        training.fit()
        assert network.encoder.recomputes == recomputes
        weights.append(network.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_model_that_keeps_all_activations_says_so(tmp_path: Path) -> None:
    utterances = tone_corpus(tmp_path / "tones", num_speakers=2).utterances
    training = trainer(Apc(ApcConfig(hidden_size=8)), utterances, tmp_path / "run", recompute_activations=True)
    with pytest.raises(UsageError, match=r"keeps all activations \(key training.recompute_activations\)"):
        training.fit()
