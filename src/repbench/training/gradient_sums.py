"""Gradients summed over processes, while the backward pass still computes others.

Reference:
    Li et al., PyTorch Distributed: Experiences on Accelerating Data Parallel Training. PVLDB 13(12), 2020 (buckets, and
    sums that begin during the backward pass).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from repbench.errors import PluginError
from repbench.training.distributed import Processes

BUCKET_BYTES = 25 * 2**20
"""Size from which a message costs its bytes and not its beginning, on the networks that the reference measured."""

Named = tuple[str, nn.Parameter]


class GradientSum:
    """The gradients of one step, and their sums over all processes; alone, they stay as they are.

    Parameters are divided into buckets from the last to the first, which is about the order in which the backward pass
    reaches them. Once all gradients of a bucket are there, its sum begins, in a thread or on a stream of its own.
    Sums pair by the order of the calls, so every process begins the buckets in one order, whatever order its gradients
    come in; a bucket with a gradient that never comes begins when the backward pass is over.
    """

    def __init__(self, parameters: Iterable[Named], processes: Processes) -> None:
        """
        Args:
            parameters: Names and parameters of the model, the same in every process; frozen ones are left out.
            processes: The processes that train together.
        """
        trained = [(name, each) for name, each in parameters if each.requires_grad] if processes.count > 1 else []
        self._buckets = _divided(trained[::-1])
        self._waited_for = [{name for name, _ in bucket} for bucket in self._buckets]
        self._begun: list[tuple[Tensor, torch.distributed.Work]] = []
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_listening()

    def listen(self) -> None:
        """Begin sums as soon as their gradients are there: the next backward pass is the last one of the step."""
        for number, bucket in enumerate(self._buckets):
            for name, parameter in bucket:
                register: Any = parameter.register_post_accumulate_grad_hook  # untyped
                self._hooks.append(register(partial(self._add, number, name)))

    def begin_rest(self) -> None:
        """Begin the sums that have not begun: the backward pass is over."""
        self._stop_listening()
        while len(self._begun) < len(self._buckets):
            self._begin_next()

    def take(self) -> None:
        """Wait for the sums, and make them the gradients, also of parameters that this process did not reach.

        A parameter that no process reached keeps None, so that the optimizer leaves it alone.
        """
        for bucket, (sums, work) in zip(self._buckets, self._begun, strict=True):
            work.wait()
            # The last numbers count the processes that reached each parameter. A copy to the CPU, which waits for the
            # device, only where this one did not reach all.
            lacking = any(parameter.grad is None for _, parameter in bucket)
            reached = sums[-len(bucket) :].tolist() if lacking else [1.0] * len(bucket)
            start = 0
            for (_, parameter), count in zip(bucket, reached, strict=True):
                # (numel,) -> the shape of the parameter
                part = sums[start : start + parameter.numel()].view_as(parameter)
                start += parameter.numel()
                if parameter.grad is not None:
                    parameter.grad.copy_(part)
                elif count:
                    parameter.grad = part.clone()
        # A sum keeps its process group alive, and with it a thread.
        self._buckets, self._begun = [], []

    def _add(self, number: int, name: str, _: Tensor) -> None:
        if number < len(self._begun):
            raise PluginError(
                f"The gradient of {name} came in two parts in one backward pass, the second after its sum had begun",
                key=name,
                do="Recompute activations with use_reentrant=False, or train in one process",
            )
        self._waited_for[number].discard(name)
        while len(self._begun) < len(self._buckets) and not self._waited_for[len(self._begun)]:
            self._begin_next()

    def _begin_next(self) -> None:
        bucket = self._buckets[len(self._begun)]
        # Zeros in the place of a gradient that is not there: the messages of the processes must not differ in length.
        parts = [
            (torch.zeros_like(parameter) if parameter.grad is None else parameter.grad).flatten()
            for _, parameter in bucket
        ]
        reached = [float(parameter.grad is not None) for _, parameter in bucket]
        # All shapes -> one (P + parameters,): one message in place of many
        sums = torch.cat([*parts, parts[0].new_tensor(reached)])
        self._begun.append((sums, torch.distributed.all_reduce(sums, async_op=True)))

    def _stop_listening(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()


def _divided(parameters: Sequence[Named]) -> list[list[Named]]:
    """Neighbours of one type and device together, up to `BUCKET_BYTES`."""
    buckets: list[list[Named]] = []
    size = 0
    for name, parameter in parameters:
        own = parameter.numel() * parameter.element_size()
        before = buckets[-1][-1][1] if buckets else None
        alike = before is not None and (before.dtype, before.device) == (parameter.dtype, parameter.device)
        if not alike or size + own > BUCKET_BYTES:
            buckets.append([])
            size = 0
        buckets[-1].append((name, parameter))
        size += own
    return buckets
