"""The loop of every training: accumulate, clip, refuse non-finite numbers, react to signals, save.

Pre-training and fine-tuning subclass `TrainingLoop` and define the differences: the batches and the loss of a step, the
schedule, the validation and the checkpoints. All that is drawn in a step is a function of the seed and of the number of
the step, so a training resumed from weights, optimizer state and step continues bit for bit. The gradient is that of
the mean over the terms of all microbatches in all processes: two processes do what one does that accumulates twice.
"""

from __future__ import annotations

import math
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from repbench.errors import DataError, EnvironmentFault, NonFiniteError, is_out_of_memory, plugin_faults
from repbench.progress import Reporter, Silence
from repbench.training.distributed import Processes
from repbench.training.gradient_sums import GradientSum
from repbench.training.rng_and_signals import drawing_from

_IDS_SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SummedLoss:
    """The loss of a microbatch.

    Attributes:
        total: Scalar with gradient, the sum over the terms; None where there is nothing to score.
        terms: Number of frames, labels or sequences that the sum is over.
        logs: Further numbers for the log.
        evidence: One tensor for each utterance; the utterances whose tensor is not finite are named in the error.
    """

    total: Tensor | None
    terms: float
    logs: Mapping[str, float] = field(default_factory=dict)
    evidence: Sequence[Tensor] | Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Microbatch:
    """Utterances that go through the model at once.

    Attributes:
        ids: Of the utterances.
        lengths: Of the utterances, in `TrainingLoop.unit`.
        dropout_seed: Seed of torch's own generators, which dropout draws from.
        loss: Runs the model and computes the loss.
    """

    ids: Sequence[str]
    lengths: Sequence[float]
    dropout_seed: int
    loss: Callable[[], SummedLoss]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """Numbers of one optimizer step, over all processes.

    Attributes:
        loss: Mean over all terms.
        learning_rate: Of the update.
        gradient_norm: Before clipping.
        length: Sum of the lengths of the utterances, in `TrainingLoop.unit`.
        logs: As the last microbatch of this process gives them.
    """

    loss: float
    learning_rate: float
    gradient_norm: float
    length: float
    logs: Mapping[str, float]


class LoopSettings(Protocol):
    """The settings that the loop reads."""

    @property
    def steps(self) -> int:
        """Optimizer steps at most."""
        ...

    @property
    def clip_norm(self) -> float:
        """Largest norm of the gradient."""
        ...


@dataclass(slots=True, kw_only=True)
class TrainingLoop(ABC):
    """A training; subclasses define the differences between trainings.

    Attributes:
        settings: Number of steps, clipping, and the settings of the subclass.
        seed: Of all random draws.
        device: Where the model computes.
        processes: The processes that train together.
        reporter: Receives progress, notes and warnings.
        step: Optimizer steps taken so far.
        optimizer: Over the parameters of `module`.
    """

    unit: ClassVar[str]
    """Unit of the lengths of a microbatch, as errors print it."""
    less_memory: ClassVar[str]
    """Advice for errors where the memory does not suffice."""
    more_terms: ClassVar[str]
    """Advice for errors where a step has nothing to score."""
    rate_key: ClassVar[str]
    """Setting of the learning rate, to be lowered where the loss diverges."""

    settings: LoopSettings
    seed: int
    device: torch.device
    processes: Processes = field(default_factory=Processes)
    reporter: Reporter = field(default_factory=Silence)
    step: int = field(init=False, default=0)
    optimizer: torch.optim.Optimizer = field(init=False)

    @property
    @abstractmethod
    def module(self) -> nn.Module:
        """All that is trained, on `device`."""

    @property
    @abstractmethod
    def plugin(self) -> str:
        """Name of the upstream, which the errors of its code carry."""

    @property
    def accumulate(self) -> int:
        """Microbatches of this process in one step."""
        return 1

    def set_modes(self) -> None:
        """Set what trains in the next step; here all of the module."""
        self.module.train()

    @abstractmethod
    def microbatches(self) -> Iterator[Microbatch]:
        """The microbatches of this process from `step` on, `accumulate` for each step."""

    @abstractmethod
    def set_learning_rate(self) -> float:
        """Set the rate of the next update in the optimizer and return it."""

    def is_done(self) -> bool:
        """Whether no step is left."""
        return self.step >= self.settings.steps

    @abstractmethod
    def after_step(self, result: StepResult) -> None:
        """Validate and log, where that is due at `step`."""

    @abstractmethod
    def is_save_point(self) -> bool:
        """Whether a checkpoint is due at `step`."""

    @abstractmethod
    def save(self) -> None:
        """Save a checkpoint of `step`, and delete those that are no longer needed."""

    def take_steps(self, title: str, signals: Sequence[int]) -> int | None:
        """Take the steps that are left.

        Args:
            title: Of the stage of the reporter.
            signals: Signals received so far, from `heeding_signals`; the first one ends the training after the current
                step, with a checkpoint.

        Returns:
            The signal that ended the training, in any of the processes; None if no step is left.

        Raises:
            NonFiniteError: A loss or gradient is NaN or infinite; the weights are those before the step.
            DataError: No term is left to score in a step.
            EnvironmentFault: The disk or the memory is full.
        """
        batches = self.microbatches()
        with self.reporter.stage(title) as advance:
            while not self.is_done():
                result, stop = self._step(batches, signals)
                self.step += 1
                # Validated as without a signal: the log is that of an uninterrupted run.
                self.after_step(result)
                if stop is not None or self.is_save_point():
                    self.save()
                advance(self.step, self.settings.steps)
                if stop is not None:
                    return stop
        return None

    def _step(self, batches: Iterator[Microbatch], signals: Sequence[int]) -> tuple[StepResult, int | None]:
        """Take one step; returns its numbers, and the signal that any process received."""
        self.set_modes()
        # None, not zeros: the optimizers skip a parameter without a gradient, so its moments and counter stay.
        self.optimizer.zero_grad(set_to_none=True)
        done: list[tuple[Microbatch, SummedLoss]] = []
        # (4,) loss, terms, length, signal: one sum over the processes in each step
        totals = torch.zeros(4, dtype=torch.float64, device=self.device)
        with GradientSum(self.module.named_parameters(), self.processes) as gradients:
            for number, batch in enumerate(islice(batches, self.accumulate), start=1):
                if number == self.accumulate:
                    gradients.listen()
                loss = self._backward(batch)
                done.append((batch, loss))
                # In float64 on the device: no synchronisation before all microbatches are done.
                if loss.total is not None:
                    totals[0] += loss.total.detach().to(torch.float64)
                    totals[1] += loss.terms
                # A microbatch without terms still counts its length: the speed in the log is that of the data read.
                totals[2] += sum(batch.lengths)
            gradients.begin_rest()
        totals[3] = float(signals[0]) if signals else 0.0
        self.processes.sum(totals)
        gradients.take()
        norm = self._clipped_gradient(totals[1])
        # The only copy to the CPU, which waits for the device, in each step.
        numbers = torch.cat([totals, norm.to(totals)[None]]).tolist()
        total, terms, length, stops, gradient_norm = numbers
        # Every check below uses numbers that all processes share, so all of them stop at the same step, or none.
        self._refuse_non_finite(total, done)
        if terms == 0:
            what = f"Nothing was scored in step {self.step + 1}: all its utterances are too short for the objective"
            raise DataError(what, utterance=done[-1][0].ids[0], do=self.more_terms)
        self._refuse_non_finite(gradient_norm, done)
        rate = self.set_learning_rate()
        self.optimizer.step()
        logs = {name: value for _, loss in done for name, value in loss.logs.items()}
        result = StepResult(
            loss=total / terms, learning_rate=rate, gradient_norm=gradient_norm, length=length, logs=logs
        )
        # Another process received the signal: its number is lost in the sum.
        stop = None if stops == 0 else int(signals[0] if signals else signal.SIGTERM)
        return result, stop

    def _backward(self, batch: Microbatch) -> SummedLoss:
        """Add the gradient of the sum over the terms of a microbatch."""
        with self.enough_memory(batch.ids, batch.lengths), drawing_from(batch.dropout_seed, self.device):
            loss = batch.loss()
            if loss.total is not None:
                with plugin_faults(self.plugin, utterance=batch.ids[0]):
                    torch.autograd.backward(loss.total)
        return loss

    def _clipped_gradient(self, terms: Tensor) -> Tensor:
        """Make the gradient that of the mean over the terms of all processes, clip it, and return its norm before."""
        # d(sum over terms) / terms = d(mean over terms), whichever process a term is in
        for parameter in self.module.parameters():
            if parameter.grad is not None:
                parameter.grad.div_(terms)
        # The norm of the mean gradient of all processes, hence after the division and equal everywhere.
        return nn.utils.clip_grad_norm_(self.module.parameters(), self.settings.clip_norm)

    def _refuse_non_finite(self, value: float, done: Sequence[tuple[Microbatch, SummedLoss]]) -> None:
        """Stop before the weights change; name the utterances whose evidence is not finite, or all if none is."""
        if math.isfinite(value):
            return
        pairs = [pair for batch, loss in done for pair in zip(batch.ids, loss.evidence, strict=True)]
        # Only here, after a fault, are the inputs looked through: each `bool` waits for the device.
        broken = [id_ for id_, tensor in pairs if not bool(torch.isfinite(tensor).all())]
        named = broken or [id_ for id_, _ in pairs]
        others = len(named) - _IDS_SHOWN
        shown = ", ".join(named[:_IDS_SHOWN]) + (f" and {others} more" if others > 0 else "")
        raise NonFiniteError(
            f"The loss or its gradient is {value} in step {self.step + 1}, over {shown}",
            utterance=named[0],
            do=f"Check these sounds, or lower {self.rate_key}; the last checkpoint is finite",
        )

    @contextmanager
    def enough_memory(self, ids: Sequence[str], lengths: Sequence[float]) -> Iterator[None]:
        """Name the longest utterance and the settings that save memory, where memory does not suffice.

        Raises:
            EnvironmentFault: The memory of the device or of the machine does not suffice.
        """
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            # Padding makes the longest utterance decide the memory of the batch.
            longest = max(range(len(ids)), key=lengths.__getitem__)
            raise EnvironmentFault(
                f"Out of memory with {len(ids)} utterances of up to {lengths[longest]} {self.unit}",
                utterance=ids[longest],
                do=self.less_memory,
            ) from error
