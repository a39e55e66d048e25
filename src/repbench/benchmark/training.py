"""Train probes on frozen features, all learning rates of a lesson in one pass over the features.

A probe is trained for a fixed number of steps, scored on dev at fixed points, and the best point is kept (the earliest
of equals). Rates share what they see: each batch is read and standardised once, and dev is read once for all. Each
probe keeps its own matrix products, of the sizes it would have alone, so that what it becomes does not depend on who
stands beside it, to the last bit (docs/design/0010-probes-side-by-side.md).

Axes: L layers, N frames, D width, U utterances, C classes, R learning rates.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from repbench.benchmark.batches import Batch, batches
from repbench.benchmark.examiner import Examiner, Examples
from repbench.benchmark.features import FeatureTable
from repbench.benchmark.plan import Questions
from repbench.benchmark.probe import Probe, ProbeShape
from repbench.benchmark.protocol import ProbeSettings
from repbench.benchmark.sequences import sequence_loss
from repbench.errors import NonFiniteError

OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


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
    total = settings.steps * len(lessons)
    trained = []
    for number, lesson in enumerate(lessons):
        own = train.of_layers(lesson.layers), dev.of_layers(lesson.layers)
        of_layers = statistics[0][lesson.layers], statistics[1][lesson.layers]
        pupils = _Pupils(examiner, shape, *own, lesson, settings, of_layers, rates)
        for step in pupils.steps():
            if progress is not None:
                progress(number * settings.steps + step, total)
        trained.append(pupils.trained())
    return trained


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


class _Pupils:
    """The probes of one lesson, one for each learning rate."""

    def __init__(
        self,
        examiner: Examiner,
        shape: ProbeShape,
        train: FeatureTable,
        dev: FeatureTable,
        lesson: Lesson,
        settings: ProbeSettings,
        statistics: tuple[Tensor, Tensor],
        rates: Sequence[float],
    ) -> None:
        self._examiner = examiner
        self._settings = settings
        generator = torch.Generator().manual_seed(lesson.seed)
        untrained = Probe(shape, generator)
        if settings.standardise:
            untrained.set_statistics(*statistics)
        self._pupils = [_Pupil(copy.deepcopy(untrained), rate) for rate in rates]
        context = untrained.head.context_frames
        self._batches = batches(examiner, Examples(train, lesson.train), settings, generator, context=context)
        self._exam = examiner.exam(Examples(dev, lesson.dev))
        self._optimizer = OPTIMIZERS[settings.optimizer](
            [pupil.parameter_group() for pupil in self._pupils], weight_decay=settings.weight_decay, fused=True
        )
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

    def trained(self) -> list[TrainedProbe]:
        """The best probe of each rate; each took its share of the time."""
        ended = [pupil for pupil in self._pupils if pupil.alive]
        return [pupil.trained(self._seconds / len(ended)) for pupil in ended]

    def _step(self, step: int) -> None:
        batch = next(self._batches)
        standard = self._pupils[0].probe.standardised(batch.frames)
        losses = [_loss(pupil.probe.train().scores(standard, batch.counts), batch) for pupil in self._pupils]
        for pupil, loss in zip(self._pupils, losses, strict=True):
            pupil.alive = pupil.alive and bool(torch.isfinite(loss))
        alive = [loss for pupil, loss in zip(self._pupils, losses, strict=True) if pupil.alive]
        if not alive:
            raise NonFiniteError(
                f"The probe's loss is {losses[0].item()} at step {step}",
                key="probe.learning_rate",
                do="Take a smaller learning rate",
            )
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(alive)
        if self._settings.clip_norm is not None:
            for pupil in self._pupils:
                torch.nn.utils.clip_grad_norm_(pupil.probe.parameters(), self._settings.clip_norm)
        self._optimizer.step()

    def _select(self, step: int) -> None:
        values = self._examiner.primaries(self._scores, self._exam)
        for pupil, value in zip(self._pupils, values, strict=True):
            if not pupil.alive or value is None:
                pupil.alive = False
                continue
            pupil.grid.append({"learning_rate": pupil.learning_rate, "step": step, "dev_value": value})
            if self._examiner.better(value, pupil.value):
                pupil.value, pupil.step, pupil.best = value, step, copy.deepcopy(pupil.probe.state_dict())

    def _scores(self, frames: Tensor, counts: Tensor) -> Tensor:
        """Frames (L, N, D) to the scores of all pupils, (R, N, C) or (R, U, C)."""
        standard = self._pupils[0].probe.standardised(frames)
        return torch.stack([pupil.probe.eval().scores(standard, counts) for pupil in self._pupils])


def _loss(scores: Tensor, batch: Batch) -> Tensor:
    """What scores (N, C), (U, C) or, with the blank, (N, C + 1) cost: the mean over frames or utterances."""
    if batch.num_classes is None:
        return F.cross_entropy(scores, batch.classes)
    assert batch.counts is not None
    return sequence_loss(scores, batch.counts, batch.classes, batch.num_classes)


class _Pupil:
    """A probe at one learning rate, and its best point so far; not `alive` once a loss or score was not finite."""

    def __init__(self, probe: Probe, learning_rate: float) -> None:
        self.probe = probe
        self.learning_rate = learning_rate
        self.alive = True
        self.value: float | None = None
        self.step = 0
        self.best: dict[str, Tensor] = {}
        self.grid: list[dict[str, float | int]] = []

    def parameter_group(self) -> dict[str, Any]:
        """What an optimiser is to train at which rate."""
        learnt = [each for each in self.probe.parameters() if each.requires_grad]
        return {"params": learnt, "lr": self.learning_rate}

    def trained(self, seconds: float) -> TrainedProbe:
        """The probe at its best point."""
        self.probe.load_state_dict(self.best)
        chosen: dict[str, float | int] = {"learning_rate": self.learning_rate, "step": self.step}
        return TrainedProbe(self.probe.eval(), Selection(tuple(self.grid), chosen, self.value), seconds)
