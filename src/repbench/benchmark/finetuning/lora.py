"""Low-rank adaptation (LoRA) of the matrices of any upstream.

An adapted matrix is W + (alpha / R) B A, where W is frozen and B (O, R) and A (R, I) are trained. B begins at zero, so
an adapted network begins with the hidden states of the frozen one, to the last bit.

The sum replaces the weight itself, as a parametrisation of torch, and not the call of a layer: code that reads
`layer.weight`, as WavLM and torch's attention do, and recurrent layers are adapted too, and merging changes no bit.

Axes: O outputs of a matrix, I inputs, R rank.

Reference:
    Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, section 4.1, arXiv:2106.09685.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from repbench.errors import UsageError

KEY = "finetune.trainable"


class LowRank(nn.Module):
    """The parametrisation of one matrix: W -> W + scale B A.

    Args:
        weight: W (O, I); gives shape, type and device.
        rank: R.
        scale: alpha / R.
        generator: Of the CPU; draws A.
    """

    def __init__(self, weight: Tensor, rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        outputs, inputs = weight.shape
        self.scale = scale
        drawn = torch.empty(rank, inputs)
        # U(-1/sqrt(I), 1/sqrt(I)), as nn.Linear draws its weights; drawn on the CPU, so that every device has the same
        nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
        self.lora_a = nn.Parameter(drawn.to(weight))
        self.lora_b = nn.Parameter(weight.new_zeros(outputs, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """(O, I) -> (O, I)."""
        # (O, R) @ (R, I) -> (O, I)
        return torch.addmm(weight, self.lora_b, self.lora_a, alpha=self.scale)


def matrices(module: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """The matrices that LoRA adapts: those of linear and recurrent layers and of torch's attention.

    A weight that the network parametrises itself, as by weight normalisation, or that two layers share is left out.

    Yields:
        The name of each in the state dict, its layer, and its name in the layer.
    """
    uses = Counter(each for _, each in module.named_parameters(remove_duplicate=False))
    for prefix, layer in module.named_modules():
        for name in _matrices_of(layer):
            if not parametrize.is_parametrized(layer, name) and uses[getattr(layer, name)] == 1:
                yield f"{prefix}.{name}".lstrip("."), layer, name


def _matrices_of(layer: nn.Module) -> list[str]:
    if isinstance(layer, nn.Linear):
        return ["weight"]
    if isinstance(layer, nn.RNNBase | nn.MultiheadAttention):
        # of attention the layers below are found by themselves; these are its own: in_proj_weight, or one for each part
        own = dict(layer.named_parameters(recurse=False))
        return [name for name, weight in own.items() if weight.ndim == 2]
    return []


def refuse_rank(module: nn.Module, rank: int) -> None:
    """Refuse a rank that is not below what each matrix of a module could have.

    Raises:
        UsageError: There is no matrix, or the rank of one cannot be higher than R.
    """
    found = list(matrices(module))
    if not found:
        what = "The upstream has no matrix for LoRA: no linear or recurrent layer, no attention"
        raise UsageError(what, key=KEY, do="Take all, last:K or norms")
    sizes = {full_name: tuple(getattr(layer, name).shape) for full_name, layer, name in found}
    smallest = min(sizes, key=lambda name: min(sizes[name]))
    if rank > min(sizes[smallest]):
        outputs, inputs = sizes[smallest]
        what = f"`{KEY}` is lora:{rank}, but `{smallest}` is a matrix of {outputs} x {inputs}"
        raise UsageError(what, key=KEY, do=f"Take a rank of at most {min(sizes[smallest])}")


def add_lora(module: nn.Module, rank: int, alpha: float, generator: torch.Generator) -> None:
    """Adapt every matrix of a module; its own weights are then named `parametrizations.NAME.original`.

    Args:
        module: Has no LoRA yet.
        rank: R.
        alpha: The update is alpha / R times B A.
        generator: Of the CPU; draws all A in the order of the modules.

    Raises:
        UsageError: As `refuse_rank`.
    """
    refuse_rank(module, rank)
    # A list, because each layer is changed.
    for _, layer, name in list(matrices(module)):
        low_rank = LowRank(getattr(layer, name), rank, alpha / rank, generator)
        parametrize.register_parametrization(layer, name, low_rank)


def merge_lora(module: nn.Module) -> None:
    """Make W + (alpha / R) B A the plain weight, to the last bit as it was used; without LoRA nothing happens."""
    for layer in list(module.modules()):
        for name in _adapted_in(layer):
            parametrize.remove_parametrizations(layer, name, leave_parametrized=True)


def _adapted_in(layer: nn.Module) -> list[str]:
    found = getattr(layer, "parametrizations", None)
    if not isinstance(found, nn.ModuleDict):
        return []
    return [name for name, each in found.items() if any(isinstance(one, LowRank) for one in each.children())]


def adapters(module: nn.Module) -> list[nn.Parameter]:
    """All A and B of a module."""
    low_ranks = (each for each in module.modules() if isinstance(each, LowRank))
    return [parameter for each in low_ranks for parameter in each.parameters()]
