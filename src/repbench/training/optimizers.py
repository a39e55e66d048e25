"""The optimizers with which Mockingjay and its descendants were trained, and their warm-up.

BertAdam (legacy Mockingjay), S3PRL's AdamW with schedule, and torch's Adam and AdamW behind one builder.
All settings are in the groups and all state is tensors and integers, so a saved `state_dict` continues bit for bit.

Symbols: p parameter, g gradient, m and v its moving mean and mean square, s updates made so far.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from numbers import Integral, Real
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.adamw import adamw
from torch.optim.optimizer import ParamsT

OptimizerName = Literal["adamw", "bertadam", "adamw-with-schedule", "adam"]

PUBLISHED_EPSILON: dict[str, float] = {"adamw": 1e-8, "bertadam": 1e-6, "adamw-with-schedule": 1e-8, "adam": 1e-8}
"""Published epsilon of each optimizer; S3PRL's downstream AdamW takes 1e-7."""

NO_CORRECTION = 1e9
"""A counter so large that 1 - beta^counter is 1, which turns off the bias correction of torch's fused AdamW."""

BATCH_ELEMENTS = 2**20
"""Elements that are updated at once, or one larger tensor: small copies of gradients for clipping are twice as fast."""


def warmup_linear(step: int, total_steps: int, warmup: float) -> float:
    """Multiplier of the learning rate in the original schedule.

    With x = step / total_steps: x / warmup below the warm-up, (1 - x) / (1 - warmup) after it, 0 from x = 1 on.
    With a warm-up it is 0 at step 0; BertAdam, which counts after the update, spends its first update on that.

    Args:
        step: Updates counted.
        total_steps: Updates planned; below 1: the multiplier is 1 (the original divides by 0 updates).
        warmup: Share of `total_steps`, in [0, 1); 0 and -1 both mean none.

    Raises:
        ValueError: If `warmup` is out of range.

    Example:
        >>> [warmup_linear(step, 10, 0.2) for step in (0, 1, 2, 6, 10)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    share = _warmup_share(warmup)
    if total_steps < 1:
        return 1.0
    progress = step / total_steps
    if progress < share:
        return progress / share
    return max(0.0, (progress - 1) / (share - 1))  # (1 - x) / (1 - warmup), as the original writes it


def warmup_linear_from_first(step: int, total_steps: int, warmup: float) -> float:
    """As `warmup_linear`, but neither the first update nor the last has the multiplier 0.

    min((step + 1) / warmup_steps, (total_steps - step) / (total_steps - warmup_steps)) in [0, 1].

    Args:
        step: Updates made before this one.
        total_steps: Updates planned; below 1: the multiplier is 1.
        warmup: As in `warmup_linear`; rounded to whole updates.

    Raises:
        ValueError: If `warmup` is out of range.

    Example:
        >>> [warmup_linear_from_first(step, 6, 1 / 3) for step in range(7)]
        [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    share = _warmup_share(warmup)
    if total_steps < 1:
        return 1.0
    warmup_steps = round(share * total_steps)
    rise = (step + 1) / max(1, warmup_steps)
    fall = (total_steps - step) / max(1, total_steps - warmup_steps)
    return min(1.0, max(0.0, min(rise, fall)))


def parameter_groups(
    named_parameters: Iterable[tuple[str, Tensor]], weight_decay: float = 0.01
) -> list[dict[str, Any]]:
    """Matrices and kernels with weight decay; biases, norm gains and other vectors without.

    The original looked for "bias" and "LayerNorm" in the names; here the number of dimensions decides, which holds for
    any module. Unlike there, the layer-weight vector of a classifier is not decayed, nor are norm gains of other names.

    Args:
        named_parameters: As `module.named_parameters()` returns them; frozen ones too, which cost nothing.
        weight_decay: Of parameters of two or more dimensions.

    Returns:
        Always two groups, the decayed one first; one of them may be empty.

    Raises:
        ValueError: If there is no parameter at all.
    """
    named = list(named_parameters) if isinstance(named_parameters, Iterable) else [named_parameters]
    if not all(isinstance(each, tuple) and len(each) == 2 for each in named):
        raise ValueError("`named_parameters` must be pairs of name and parameter; take `module.named_parameters()`.")
    parameters = [parameter for _, parameter in named]
    if not parameters:
        raise ValueError("`named_parameters` must name at least one parameter, but is empty.")
    return [
        {"params": [parameter for parameter in parameters if parameter.ndim >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim < 2], "weight_decay": 0.0},
    ]


@dataclass(frozen=True, slots=True)
class _TensorGroup:
    """Parameters of one group with the same counter and device, hence the same rate; their gradients and moments."""

    counter: int
    parameters: list[Tensor] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)
    exp_avg: list[Tensor] = field(default_factory=list)
    exp_avg_sq: list[Tensor] = field(default_factory=list)


class _ScheduledOptimizer(Optimizer):
    """Adam's moments and a counter for each parameter; a subclass defines the rate and the update.

    The state of a parameter is `exp_avg`, `exp_avg_sq` (of its shape and dtype) and `step` (int); it begins with the
    parameter's first gradient. Gradients are read, never written.
    """

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient.

        Args:
            closure: Computes the loss again, and the gradients; optional.

        Returns:
            The loss of `closure`.

        Raises:
            RuntimeError: If a gradient is sparse.
        """
        loss = None if closure is None else torch.enable_grad()(closure)()
        with torch.no_grad():
            for group in self.param_groups:
                for batch in self._batches(group):
                    self._update(batch, group)
                    for parameter in batch.parameters:
                        self.state[parameter]["step"] += 1
        return loss

    def learning_rates(self) -> list[float]:
        """Scheduled rate of the next update, one for each group, of the group's most advanced parameter.

        Bias correction comes on top. The rate is right from the start, unlike the original's `get_lr`, which is [0]
        until every parameter has had a gradient.
        """
        return [self._rate(group, max(self._counters(group), default=0)) for group in self.param_groups]

    def _counters(self, group: dict[str, Any]) -> Iterator[int]:
        # `self.state` is a defaultdict: a look-up of a parameter without state would add an empty one.
        return (self.state[parameter]["step"] for parameter in group["params"] if parameter in self.state)

    def _batches(self, group: dict[str, Any]) -> Iterable[_TensorGroup]:
        batches: dict[tuple[int, torch.device, int], _TensorGroup] = {}
        elements = 0
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            if parameter.grad.is_sparse:
                raise RuntimeError(f"{type(self).__name__} takes dense gradients, but one is sparse.")
            state = self._state_of(parameter)
            # One counter, hence one rate, a batch; the quotient starts a new one after about `BATCH_ELEMENTS`.
            key = (state["step"], parameter.device, elements // BATCH_ELEMENTS)
            batch = batches.setdefault(key, _TensorGroup(state["step"]))
            elements += parameter.numel()
            batch.parameters.append(parameter)
            batch.gradients.append(parameter.grad)
            batch.exp_avg.append(state["exp_avg"])
            batch.exp_avg_sq.append(state["exp_avg_sq"])
        return batches.values()

    def _state_of(self, parameter: Tensor) -> dict[str, Any]:
        state: dict[str, Any] = self.state[parameter]
        if not state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state

    def _rate(self, group: dict[str, Any], counter: int) -> float:
        """Scheduled learning rate of the update after `counter` updates."""
        raise NotImplementedError

    def _update(self, batch: _TensorGroup, group: dict[str, Any]) -> None:
        """Advance the moments and the parameters of `batch`."""
        raise NotImplementedError


class BertAdam(_ScheduledOptimizer):
    """The Adam of BERT: no bias correction, decoupled weight decay, and each gradient clipped on its own.

    g <- g min(1, max_grad_norm / (|g| + 1e-6)); m <- beta1 m + (1 - beta1) g; v <- beta2 v + (1 - beta2) g^2;
    p <- p - lr warmup_linear(s) (m / (sqrt(v) + eps) + weight_decay p); s <- s + 1.

    With a warm-up the first update moves the moments only. Unlike the original it leaves `p.grad` as it is: there the
    clipping wrote into it.

    Args:
        params: Parameters, or groups of them that override the settings.
        lr: Peak learning rate.
        betas: Decay of mean and mean square.
        eps: Added to the root, above 0.
        weight_decay: Of the parameters, at the rate of the update.
        max_grad_norm: Largest norm of one tensor's gradient; 0 or less: not clipped.
        total_steps: Updates planned; -1: constant rate.
        warmup: Share of them for the warm-up, in [0, 1); -1: none.

    Raises:
        ValueError: If a setting is out of range; all such are named.

    Reference:
        Devlin et al., "BERT", NAACL 2019; `optimization.py` of Mockingjay.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        max_grad_norm: float = 1.0,
        total_steps: int = -1,
        warmup: float = -1,
    ) -> None:
        settings = _settings(lr, betas, eps, weight_decay, total_steps, warmup)
        super().__init__(params, settings | {"max_grad_norm": max_grad_norm})

    def _rate(self, group: dict[str, Any], counter: int) -> float:
        multiplier = warmup_linear(counter, group["total_steps"], group["warmup"])
        return float(group["lr"] * multiplier)

    def _update(self, batch: _TensorGroup, group: dict[str, Any]) -> None:
        gradients = batch.gradients
        if group["max_grad_norm"] > 0:
            gradients = _clipped(gradients, group["max_grad_norm"])
        _descend(batch, gradients, self._rate(group, batch.counter), group)


class ScheduledAdamW(_ScheduledOptimizer):
    """S3PRL's "AdamW with schedule", which trained its Mockingjay.

    With t = s + 1: p <- p - lr warmup_linear(t) c u, u = m / (sqrt(v) + eps) + weight_decay p, where
    c = sqrt(1 - beta2^t) / (1 - beta1^t). It counts before the update, so the first update is not lost; the update
    number `total_steps` is. Unlike AdamW, c scales the decay too, and eps is not corrected.

    Args:
        params: Parameters, or groups of them that override the settings.
        lr: Peak learning rate.
        betas: Decay of mean and mean square.
        eps: Added to the root, above 0.
        weight_decay: Of the parameters, at the rate of the update.
        total_steps: Updates planned; -1: constant rate.
        warmup: Share of them for the warm-up, in [0, 1); -1: none.

    Raises:
        ValueError: If a setting is out of range; all such are named.

    Reference:
        `AdamW_with_schedule` in `optimizers.py` of S3PRL.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        total_steps: int = -1,
        warmup: float = -1,
    ) -> None:
        super().__init__(params, _settings(lr, betas, eps, weight_decay, total_steps, warmup))

    def _rate(self, group: dict[str, Any], counter: int) -> float:
        return float(group["lr"] * warmup_linear(counter + 1, group["total_steps"], group["warmup"]))

    def _update(self, batch: _TensorGroup, group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        count = batch.counter + 1
        # Adam's m_hat / sqrt(v_hat) = (m / sqrt(v)) c; eps stays uncorrected, and c reaches the decay through the rate.
        correction = math.sqrt(1 - beta2**count) / (1 - beta1**count)
        _descend(batch, batch.gradients, self._rate(group, batch.counter) * correction, group)


def pretraining_optimizer(
    named_parameters: Iterable[tuple[str, Tensor]], lr: float, warmup_proportion: float, training_steps: int
) -> BertAdam:
    """The optimizer of Mockingjay's pre-training: BertAdam, with weight decay 0.01 by `parameter_groups`.

    Args:
        named_parameters: As `module.named_parameters()` gives them.
        lr: Peak learning rate; published: 4e-4.
        warmup_proportion: Share of the updates for the warm-up; published: 0.07.
        training_steps: Updates planned; published: 500,000.

    Raises:
        ValueError: If there is no parameter or a setting is out of range.
    """
    return BertAdam(parameter_groups(named_parameters), lr=lr, warmup=warmup_proportion, total_steps=training_steps)


def build_optimizer(
    name: OptimizerName,
    named_parameters: Iterable[tuple[str, Tensor]],
    *,
    learning_rate: float,
    betas: tuple[float, float],
    epsilon: float | None,
    weight_decay: float,
    warmup: float,
    total_steps: int,
) -> tuple[Optimizer, Callable[[int], float]]:
    """An optimizer over `parameter_groups`, and its multiplier of the learning rate.

    "bertadam" and "adamw-with-schedule" apply the multiplier themselves. For "adam" and "adamw", which are torch's, set
    `group["lr"] = learning_rate * multiplier(step)` before each update.

    Args:
        name: Which one; "adam" adds its weight decay to the gradient, the others decouple it.
        named_parameters: As `module.named_parameters()` gives them.
        learning_rate: Peak.
        betas: Decay of mean and mean square.
        epsilon: None: the published one of `name`.
        weight_decay: Of parameters of two or more dimensions.
        warmup: Share of the updates for the warm-up, in [0, 1); -1: none.
        total_steps: Updates planned; below 1: constant rate.

    Returns:
        The optimizer, and a function from the number of updates made to the multiplier of the next one.

    Raises:
        ValueError: If the name is unknown, there is no parameter, or a setting is out of range.
    """
    if name not in get_args(OptimizerName):
        raise ValueError(f"`name` must be one of {', '.join(get_args(OptimizerName))}, but is {name!r}.")
    groups = parameter_groups(named_parameters, weight_decay)
    eps = PUBLISHED_EPSILON[name] if epsilon is None else epsilon
    # Also for torch's optimizers, which have no warm-up and check some settings less strictly.
    _settings(learning_rate, betas, eps, weight_decay, total_steps, warmup)
    if name == "bertadam":
        bert = BertAdam(groups, learning_rate, betas, eps, total_steps=total_steps, warmup=warmup)
        return bert, partial(warmup_linear, total_steps=total_steps, warmup=warmup)
    if name == "adamw-with-schedule":
        scheduled = ScheduledAdamW(groups, learning_rate, betas, eps, total_steps=total_steps, warmup=warmup)
        return scheduled, lambda step: warmup_linear(step + 1, total_steps, warmup)
    kind = AdamW if name == "adamw" else Adam
    optimizer = kind(groups, lr=learning_rate, betas=betas, eps=eps, fused=_fusable(groups))
    return optimizer, partial(warmup_linear_from_first, total_steps=total_steps, warmup=warmup)


def _warmup_share(warmup: float) -> float:
    if not (0 <= warmup < 1 or warmup == -1):
        raise ValueError(f"`warmup` must be in [0, 1) or -1, but is {warmup}. A number of updates?")
    return max(warmup, 0.0)


def _settings(
    lr: float, betas: tuple[float, float], eps: float, weight_decay: float, total_steps: int, warmup: float
) -> dict[str, Any]:
    """The settings that all optimizers share, checked."""
    numbers: dict[str, object] = {"lr": lr, "eps": eps, "weight_decay": weight_decay, "warmup": warmup}
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, Real):
            raise ValueError(f"`{name}` must be a number, but is {value!r}.")
    steps: object = total_steps
    if isinstance(steps, bool) or not isinstance(steps, Integral):
        raise ValueError(f"`total_steps` must be a whole number, but is {steps!r}.")
    faults = [
        f"`{name}` must be {bound}, but is {value}"
        for name, value, bound, holds in (
            ("lr", lr, "at least 0", 0 <= lr < math.inf),
            ("betas[0]", betas[0], "in [0, 1)", 0 <= betas[0] < 1),
            ("betas[1]", betas[1], "in [0, 1)", 0 <= betas[1] < 1),
            # With 0, a parameter whose gradient has been zero so far becomes 0 / 0.
            ("eps", eps, "above 0", 0 < eps < math.inf),
            ("weight_decay", weight_decay, "at least 0", 0 <= weight_decay < math.inf),
            ("warmup", warmup, "in [0, 1) or -1", 0 <= warmup < 1 or warmup == -1),
        )
        if not holds
    ]
    if faults:
        raise ValueError(f"{'; '.join(faults)}.")
    return {
        "lr": lr,
        "betas": betas,
        "eps": eps,
        "weight_decay": weight_decay,
        "total_steps": total_steps,
        "warmup": warmup,
    }


def _clipped(gradients: list[Tensor], max_norm: float) -> list[Tensor]:
    """Copies of the gradients, each scaled down to a norm of at most `max_norm`."""
    # min(1, max_norm / (|g| + 1e-6)) of each tensor, in place on scalars (); the gradients themselves are only read.
    factors = torch._foreach_norm(gradients)
    torch._foreach_add_(factors, 1e-6)
    torch._foreach_reciprocal_(factors)
    torch._foreach_mul_(factors, max_norm)
    torch._foreach_clamp_max_(factors, 1.0)
    return list(torch._foreach_mul(gradients, factors))


def _descend(batch: _TensorGroup, gradients: list[Tensor], rate: float, group: dict[str, Any]) -> None:
    """p <- p - rate (m / (sqrt(v) + eps) + weight_decay p), by AdamW in one pass: five times as fast as by parts."""
    beta1, beta2 = group["betas"]
    # AdamW: p <- p (1 - rate weight_decay) - rate m_hat / (sqrt(v_hat) + eps), which is the formula above where
    # m_hat = m and v_hat = v. torch adds 1 to the counter for each parameter; float32 rounds that away at 1e9.
    counter = torch.full((), NO_CORRECTION, device=batch.parameters[0].device)
    adamw(
        batch.parameters,
        gradients,
        batch.exp_avg,
        batch.exp_avg_sq,
        [],
        [counter] * len(gradients),
        fused=True,
        amsgrad=False,
        beta1=beta1,
        beta2=beta2,
        lr=rate,
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )


def _fusable(groups: list[dict[str, Any]]) -> bool:
    """Whether torch's one-pass kernels take all parameters."""
    parameters: list[Tensor] = [parameter for group in groups for parameter in group["params"]]
    return all(parameter.is_floating_point() and parameter.device.type in {"cpu", "cuda"} for parameter in parameters)
