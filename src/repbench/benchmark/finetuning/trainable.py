"""Which weights of an upstream each step of a fine-tuning trains, at which rate, and what stays frozen.

The parts of an upstream are its layers from the last one down, and then everything before the first. A rule
(`finetune.trainable`) chooses weights, and a schedule opens parts: until its part is open, a weight is frozen like one
that the rule leaves out.

What is frozen has no gradient, and no graph is built below the lowest weight that has one. Its modules are in eval
mode: no dropout, and batch normalisation neither uses nor changes statistics of the batch. Modules train

* with `all` and `last:K`: those of the open layers; all of them, the containers of layers included, where everything is
  open;
* with `norms` and `lora:R`, whose weights are spread over frozen ones: those in open layers that hold a trained weight,
  and their dropout; batch normalisation keeps the statistics it came with.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from repbench.benchmark.finetuning.lora import KEY, adapters, refuse_rank
from repbench.benchmark.protocol import FinetuneSettings
from repbench.errors import UsageError
from repbench.upstream.contract import Upstream, UpstreamInfo, layer_modules_of

Value = TypeVar("Value")

_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, _BatchNorm)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A part of an upstream.

    Attributes:
        modules: That train when it is open.
        parameters: That the rule trains; without those of parts before this one.
        rate_factor: On the learning rate of the upstream.
    """

    modules: tuple[nn.Module, ...]
    parameters: tuple[nn.Parameter, ...]
    rate_factor: float


class TrainablePlan:
    """The weights of an upstream that are trained, step by step.

    Args:
        upstream: With its LoRA, where the rule is `lora:R`.
        settings: Rule and schedule.

    Raises:
        UsageError: The upstream lacks what the rule needs; names the key.
    """

    def __init__(self, upstream: Upstream, settings: FinetuneSettings) -> None:
        assert isinstance(upstream, nn.Module)
        self._upstream = upstream
        self._settings = settings
        self._chosen = _chosen(upstream, settings)
        layers = declared_layers(upstream.info, upstream, settings) if settings.needs_layers else []
        self._parts = _parts(upstream, self._chosen, layers, settings)
        self._every = settings.unfreeze_every

    @property
    def parameter_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """The weights that any step trains, each group with the factor on its learning rate."""
        groups: dict[float, list[nn.Parameter]] = {}
        for part in self._parts:
            groups.setdefault(part.rate_factor, []).extend(part.parameters)
        return [(parameters, factor) for factor, parameters in groups.items() if parameters]

    @property
    def complete_at(self) -> int:
        """The first step, from 0 on, that trains all weights of the rule."""
        later = (len(self._parts) - 1) * self._every if self._every is not None else 0
        return self._settings.freeze_steps + later

    @property
    def num_trainable(self) -> int:
        """Number of weights that some step trains."""
        reached = self._parts[: self._num_open(self._settings.steps - 1)]
        return sum(each.numel() for part in reached for each in part.parameters)

    def apply(self, step: int) -> None:
        """Set modes and gradients of the upstream for the step with this number, from 0 on."""
        open_parts = self._parts[: self._num_open(step)]
        trained = {parameter for part in open_parts for parameter in part.parameters}
        for parameter in self._upstream.parameters():
            parameter.requires_grad_(parameter in trained)
        self._upstream.eval()
        for part in open_parts:
            for module in part.modules:
                module.train()
        if self._settings.rule.kind in {"norms", "lora"}:
            _freeze(module for part in open_parts for module in part.modules)

    def unsaved(self) -> frozenset[str]:
        """Names in the state dict of the upstream of weights that no step trains: those of its checkpoint stay."""
        if self._settings.rule.kind == "all":
            return frozenset()
        trained = {parameter for part in self._parts for parameter in part.parameters}
        named = self._upstream.named_parameters(remove_duplicate=False)  # of tied weights every name
        return frozenset(name for name, parameter in named if parameter not in trained)

    def _num_open(self, step: int) -> int:
        since = step - self._settings.freeze_steps
        if since < 0:
            return 0
        return len(self._parts) if self._every is None else min(len(self._parts), 1 + since // self._every)


def declared_layers(info: UpstreamInfo, upstream: Upstream, settings: FinetuneSettings) -> list[list[nn.Module]]:
    """The layers of an upstream, checked against the settings that read them.

    Raises:
        UsageError: It does not declare them, or has fewer than K.
    """
    needed = [
        name
        for name, is_set in (
            ("trainable", settings.rule.kind == "last"),
            ("unfreeze_every", settings.unfreeze_every is not None),
            ("layer_decay", settings.layer_decay != 1),
        )
        if is_set
    ]
    layers = layer_modules_of(upstream)
    if layers is None:
        raise UsageError(
            f"`{info.name}` does not declare which of its modules are its layers",
            key=f"finetune.{needed[0]}",
            do="Declare `layer_modules`: of a plugin as an attribute (repbench.upstream.contract), of a py: module in "
            "its YAML file; or take all, norms or lora:R without unfreeze_every and layer_decay",
        )
    rule = settings.rule
    if rule.kind == "last" and rule.number is not None and rule.number > len(layers):
        what = f"`{KEY}` is {settings.trainable}, but `{info.name}` has {len(layers)} layers"
        raise UsageError(what, key=KEY, do=f"Take at most last:{len(layers)}, or all")
    return layers


def refuse_rule(upstream: Upstream, read: Collection[int], settings: FinetuneSettings) -> None:
    """Refuse a rule that the upstream has no weights for, before it is trained.

    Args:
        upstream: Without LoRA.
        read: Indices of the hidden states that the head reads.
        settings: Of the fine-tuning.

    Raises:
        UsageError: It lacks what the rule needs, or every layer of `last:K` is above what is read; names the key.
    """
    assert isinstance(upstream, nn.Module)
    rule = settings.rule
    layers = declared_layers(upstream.info, upstream, settings) if settings.needs_layers else []
    if rule.number is None:
        _chosen(upstream, settings)
    elif rule.kind == "lora":
        refuse_rank(upstream, rule.number)
    else:
        _refuse_unread(upstream.info, len(layers), max(read), settings)


def _refuse_unread(info: UpstreamInfo, num_layers: int, read: int, settings: FinetuneSettings) -> None:
    # The last layer computes the last hidden state, so the first of K layers computes that of index L - K.
    below = len(info.layer_names) - 1 - read
    if settings.rule.number is None or below < settings.rule.number:
        return
    enough = f"last:{below + 1}" if below < num_layers else "all"
    raise UsageError(
        f"`{KEY}` is {settings.trainable}, but the head reads layer `{info.layer_names[read]}`, which does not depend "
        "on what that trains",
        key=KEY,
        do=f"Take a later --layer, or {enough}",
    )


def _chosen(upstream: nn.Module, settings: FinetuneSettings) -> set[nn.Parameter]:
    """The weights of the rule, wherever they are; with `last:K` the parts choose among all."""
    # torch refuses gradients for whole numbers and booleans.
    real = [parameter for parameter in upstream.parameters() if parameter.is_floating_point()]
    kind = settings.rule.kind
    if kind == "lora":
        return set(adapters(upstream))
    if kind != "norms":
        return set(real)
    norms = (module for module in upstream.modules() if isinstance(module, _NORMS))
    found = {parameter for module in norms for parameter in module.parameters(recurse=False)}
    if not found:
        what = "The upstream has no layer, group or batch normalisation with weights"
        raise UsageError(what, key=KEY, do="Take all, last:K or lora:R")
    return found & set(real)


def _parts(
    upstream: nn.Module, chosen: set[nn.Parameter], layers: Sequence[Sequence[nn.Module]], settings: FinetuneSettings
) -> list[_Part]:
    """The parts that are trained, from the last layer down."""
    rule = settings.rule
    from_above = [tuple(layer) for layer in reversed(layers)]
    modules = from_above[: rule.number] if rule.kind == "last" else [*from_above, (upstream,)]
    seen: set[nn.Parameter] = set()
    parts = []
    for depth, part in enumerate(modules):
        own = [each for module in part for each in module.parameters() if each in chosen and each not in seen]
        own = list(dict.fromkeys(own))
        seen.update(own)
        parts.append(_Part(modules=part, parameters=tuple(own), rate_factor=settings.layer_decay**depth))
    return parts


def _freeze(modules: Iterable[nn.Module]) -> None:
    """Eval mode for the largest parts of modules whose weights are all frozen, and for batch normalisation."""
    for module in modules:
        weights = list(module.parameters())
        frozen = bool(weights) and not any(each.requires_grad for each in weights)
        # cuDNN computes the gradient through a recurrent layer in training mode only.
        if isinstance(module, _BatchNorm) or (frozen and not _holds_recurrence(module)):
            module.eval()
        else:
            _freeze(module.children())


def _holds_recurrence(module: nn.Module) -> bool:
    return any(isinstance(each, nn.RNNBase) for each in module.modules())


def without(names: Collection[str], values: Mapping[str, Value]) -> dict[str, Value]:
    """The values of all other names."""
    return {name: value for name, value in values.items() if name not in names}


def moved_weights(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> int:
    """Number of weights in those tensors that are not what they were before."""
    return sum(each.numel() for name, each in before.items() if not torch.equal(after[name].cpu(), each.cpu()))
