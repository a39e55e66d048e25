"""Train probes on frozen features, many in one pass.

A probe is trained for a fixed number of steps, scored on dev at fixed points, and the best point is kept (the earliest
of equals). Lessons of one batch size, and all learning rates of a lesson, are trained side by side; each probe gives
what it would give alone, to the rounding of a matrix product.

Axes: G lessons, R rates, L layers, N frames, D width, U utterances, C classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from repbench.benchmark.batches import Batch, frame_batches, labelled_frames, together, utterance_batches
from repbench.benchmark.examiner import Exam, Examiner, Examples
from repbench.benchmark.features import FeatureTable
from repbench.benchmark.plan import Questions
from repbench.benchmark.probe import Probe, ProbeShape
from repbench.benchmark.protocol import ProbeSettings
from repbench.benchmark.sequences import sequence_losses
from repbench.benchmark.stack import Separate, Stack, can_stand_together, side_by_side
from repbench.errors import NonFiniteError

OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}

STACK_BYTES = 8 * 2**20
"""Most bytes of features that the lessons of one stack may see in a step: more would leave the processor's cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What one probe is trained and selected on.

    Attributes:
        train: Learns.
        dev: Selects.
        layers: Which layers of the tables it reads.
        seed: Of the initial weights and the order of the batches.
    """

    train: Questions
    dev: Questions
    layers: slice = field(default_factory=lambda: slice(None))
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Selection:
    """What was chosen on dev, among what."""

    grid: tuple[dict[str, float | int], ...]
    chosen: dict[str, float | int]
    dev_value: float | None


@dataclass(frozen=True, slots=True)
class TrainedProbe:
    """The selected probe, how it was selected, and its share of the time that training took."""

    probe: Probe
    selection: Selection
    seconds: float = 0.0


def train_probes(
    examiner: Examiner,
    shape: ProbeShape,
    train: FeatureTable,
    dev: FeatureTable,
    lessons: Sequence[Lesson],
    settings: ProbeSettings,
    *,
    statistics: tuple[Tensor, Tensor],
    learning_rates: Sequence[float] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[TrainedProbe]]:
    """Train a probe for each lesson and learning rate, and keep the point of each that is best on dev.

    Args:
        examiner: Puts the questions.
        shape: Of all probes.
        train: Features of the training split.
        dev: Features of the dev split.
        lessons: What is trained on what.
        settings: The budget.
        statistics: (L, 1, D) mean and deviation of all layers of `train`, labelled or not.
        learning_rates: R of them; None: that of the settings.
        progress: Told of the steps done.

    Returns:
        For each lesson a probe for each learning rate that did not end in NaN.

    Raises:
        NonFiniteError: No learning rate of a lesson has a finite loss; names the step.
    """
    rates = tuple(learning_rates or (settings.learning_rate,))
    pupils = [_Pupil(examiner, shape, train, dev, lesson, settings, statistics) for lesson in lessons]
    trained: dict[int, list[TrainedProbe]] = {}
    done = 0
    for group in _stacks(pupils, shape):
        stack = side_by_side([pupils[number].probe for number in group], len(rates))
        training = _Training(examiner, stack, [pupils[number] for number in group], settings, rates)
        for _ in training.steps():
            done += len(group)
            if progress is not None:
                progress(done, settings.steps * len(lessons))
        trained |= dict(zip(group, training.trained(), strict=True))
    return [trained[number] for number in range(len(lessons))]


def train_probe(
    examiner: Examiner,
    shape: ProbeShape,
    train: Examples,
    dev: Examples,
    settings: ProbeSettings,
    *,
    seed: int,
    statistics: tuple[Tensor, Tensor],
    progress: Callable[[int, int], None] | None = None,
) -> TrainedProbe:
    """Train one probe alone; arguments and errors as `train_probes`."""
    lesson = Lesson(train=train.questions, dev=dev.questions, seed=seed)
    ((trained,),) = train_probes(
        examiner, shape, train.table, dev.table, [lesson], settings, statistics=statistics, progress=progress
    )
    return trained


def selection_steps(steps: int, points: int) -> tuple[int, ...]:
    """The steps after which dev is scored: `points` of them, evenly spread, the last among them."""
    return tuple(sorted({max(1, round(steps * (point + 1) / points)) for point in range(points)}))


class _Pupil:
    """One lesson: its untrained probe, its batches, its exam."""

    def __init__(
        self,
        examiner: Examiner,
        shape: ProbeShape,
        train: FeatureTable,
        dev: FeatureTable,
        lesson: Lesson,
        settings: ProbeSettings,
        statistics: tuple[Tensor, Tensor],
    ) -> None:
        generator = torch.Generator().manual_seed(lesson.seed)
        self.lesson = lesson
        self.probe = Probe(shape, generator)
        if settings.standardise:
            self.probe.set_statistics(*(each[lesson.layers] for each in statistics))
        self.exam: Exam = examiner.exam(Examples(dev.of_layers(lesson.layers), lesson.dev))
        seen = train.of_layers(lesson.layers)
        if examiner.asks_frames:
            rows, classes = labelled_frames(examiner, seen, lesson.train)
            self.size = min(settings.batch_frames, len(rows))
            context = self.probe.head.context_frames
            self.batches = frame_batches(seen, rows, classes, self.size, generator, context=context)
        else:
            self.size = min(settings.batch_utterances, len(lesson.train))
            self.batches = utterance_batches(examiner, Examples(seen, lesson.train), self.size, generator)


def _stacks(pupils: Sequence[_Pupil], shape: ProbeShape) -> list[list[int]]:
    """Which lessons are trained side by side: those with batches of one size, as many as the cache holds.

    Lessons on whole utterances have batches of different lengths, and stand alone; so do heads that are no stack.
    """
    by_size: dict[int, list[list[int]]] = {}
    for number, pupil in enumerate(pupils):
        batch_bytes = 4 * pupil.size * shape.width * shape.num_layers
        alone = shape.pools or not can_stand_together(shape)
        most = 1 if alone else max(1, STACK_BYTES // batch_bytes)
        groups = by_size.setdefault(pupil.size, [[]])
        if len(groups[-1]) == most:
            groups.append([])
        groups[-1].append(number)
    return [group for groups in by_size.values() for group in groups]


class _Training:
    """Some lessons, side by side at all learning rates."""

    def __init__(
        self,
        examiner: Examiner,
        stack: Stack | Separate,
        pupils: Sequence[_Pupil],
        settings: ProbeSettings,
        rates: Sequence[float],
    ) -> None:
        self._examiner = examiner
        self._stack = stack
        self._pupils = pupils
        self._settings = settings
        self._optimizer = OPTIMIZERS[settings.optimizer](
            stack.parameter_groups(rates), weight_decay=settings.weight_decay, fused=True
        )
        self._best = [[_Best(rate) for rate in rates] for _ in pupils]
        self._alive = torch.ones(len(pupils), len(rates), dtype=torch.bool)
        self._seconds = 0.0

    def steps(self) -> Iterator[int]:
        """Train; gives the number of each step after it."""
        started = time.monotonic()
        points = selection_steps(self._settings.steps, self._settings.selection_points)
        for step in range(1, self._settings.steps + 1):
            self._step(step)
            if step in points:
                self._select(step)
            yield step
        self._seconds = time.monotonic() - started

    def trained(self) -> list[list[TrainedProbe]]:
        """The best probe of each lesson and rate."""
        share = self._seconds / max(1, sum(best.state is not None for row in self._best for best in row))
        return [
            [best.trained(pupil.probe, share) for best in row if best.state is not None]
            for pupil, row in zip(self._pupils, self._best, strict=True)
        ]

    def _step(self, step: int) -> None:
        batch = together([next(pupil.batches) for pupil in self._pupils])
        losses = _losses(self._stack.train()(batch.frames, batch.counts), batch)  # (G, R)
        self._alive &= torch.isfinite(losses)
        if not bool(self._alive.any(dim=1).all()):
            lost = losses[~self._alive.any(dim=1)].flatten()[0]
            raise NonFiniteError(
                f"The probe's loss is {lost.item()} at step {step}",
                key="probe.learning_rate",
                do="Take a smaller learning rate",
            )
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(torch.where(self._alive, losses, 0.0).sum())
        if self._settings.clip_norm is not None:
            self._stack.clip(self._settings.clip_norm)
        self._optimizer.step()

    def _select(self, step: int) -> None:
        self._stack.eval()
        for number, (pupil, row) in enumerate(zip(self._pupils, self._best, strict=True)):
            values = self._examiner.primaries(partial(self._scores, number), pupil.exam)
            for rate, (value, best) in enumerate(zip(values, row, strict=True)):
                if value is None or not bool(self._alive[number, rate]):
                    continue
                best.grid.append({"learning_rate": best.learning_rate, "step": step, "dev_value": value})
                if self._examiner.better(value, best.value):
                    best.value, best.step, best.state = value, step, self._stack.state(number, rate)

    def _scores(self, number: int, frames: Tensor, counts: Tensor) -> Tensor:
        """The scores of one lesson's probes: (L, N, D) -> (R, N, C) or (R, U, C)."""
        scores: Tensor = self._stack(frames[None], counts, slice(number, number + 1))[0]
        return scores.movedim(1, 0)


def _losses(scores: Tensor, batch: Batch) -> Tensor:
    """The loss of each probe: (G, N or U, R, C) -> (G, R)."""
    if batch.num_classes is not None:
        assert batch.counts is not None
        return sequence_losses(scores[0], batch.counts, batch.classes[0], batch.num_classes)[None]
    classes = batch.classes[..., None].expand(scores.shape[:-1])
    losses = F.cross_entropy(scores.flatten(0, 2), classes.flatten(), reduction="none").view(classes.shape)
    return losses.mean(dim=1)


class _Best:
    """The best point of one probe so far."""

    def __init__(self, learning_rate: float) -> None:
        self.learning_rate = learning_rate
        self.value: float | None = None
        self.step = 0
        self.state: dict[str, Tensor] | None = None
        self.grid: list[dict[str, float | int]] = []

    def trained(self, untrained: Probe, seconds: float) -> TrainedProbe:
        """The probe at its best point."""
        assert self.state is not None
        probe = Probe(untrained.shape, torch.Generator().manual_seed(0))
        probe.load_state_dict(self.state)
        chosen: dict[str, float | int] = {"learning_rate": self.learning_rate, "step": self.step}
        return TrainedProbe(probe.eval(), Selection(tuple(self.grid), chosen, self.value), seconds)
