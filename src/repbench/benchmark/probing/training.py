"""Train probes on frozen features, all learning rates of a lesson in one pass over the features.

A probe is trained for a fixed number of steps, scored on dev at fixed points, and the best point is kept (the earliest
of equals). Rates share what they see: each batch is read and standardised once, dev is read once for all, and probes of
one matrix answer in one product. What a probe becomes does not depend on who stands beside it: its weights are those it
would have alone, to 1e-5 or, where it has hidden layers, to the last bit (docs/design/0010-probes-side-by-side.md).

Axes: L layers, N frames, D width, U utterances, C classes, R learning rates.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from repbench.benchmark.data.dataset import LabelledUtterances
from repbench.benchmark.features.extraction import FeatureTable
from repbench.benchmark.probing.batches import batches
from repbench.benchmark.probing.fused_adam import FusedAdam
from repbench.benchmark.probing.prediction import LabelledFeatures, Predictor
from repbench.benchmark.probing.probe import Probe, ProbeShape, scores_side_by_side
from repbench.benchmark.protocol import ProbeSettings
from repbench.errors import EnvironmentFault, NonFiniteError, is_out_of_memory

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeJob:
    """What one probe is trained and selected on.

    Attributes:
        train: Learns.
        dev: Selects.
        layers: Which layers of the tables it reads.
        seed: Of the initial weights and the order of the batches.
    """

    train: LabelledUtterances
    dev: LabelledUtterances
    layers: slice = field(default_factory=lambda: slice(None))
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Selection:
    """What was chosen on dev, among what; no `dev_value` for a training that ended in NaN at the chosen step."""

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
    predictor: Predictor,
    shape: ProbeShape,
    train: FeatureTable,
    dev: FeatureTable,
    jobs: Sequence[ProbeJob],
    settings: ProbeSettings,
    *,
    statistics: tuple[Tensor, Tensor],
    learning_rates: Sequence[float] | None = None,
    device: torch.device = CPU,
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
        device: Where the probes lie and learn; the tables may lie elsewhere.
        progress: Told of the steps done.

    Returns:
        For each lesson a probe for each learning rate; at least one of them has a dev value.

    Raises:
        NonFiniteError: No learning rate of a lesson has a finite loss; names the step.
    """
    rates = tuple(learning_rates or (settings.learning_rate,))
    total = settings.steps * len(jobs)
    trained = []
    for number, job in enumerate(jobs):
        own = train.of_layers(job.layers), dev.of_layers(job.layers)
        of_layers = statistics[0][job.layers], statistics[1][job.layers]
        with _room_for(settings, shape):
            group = _ProbeGroup(predictor, shape, *own, job, settings, of_layers, rates, device)
            for step in group.steps():
                if progress is not None:
                    progress(number * settings.steps + step, total)
        trained.append(group.trained())
    return trained


def train_probe(
    predictor: Predictor,
    shape: ProbeShape,
    train: LabelledFeatures,
    dev: LabelledFeatures,
    settings: ProbeSettings,
    *,
    seed: int,
    statistics: tuple[Tensor, Tensor],
    progress: Callable[[int, int], None] | None = None,
) -> TrainedProbe:
    """Train one probe alone; arguments and errors as `train_probes`."""
    job = ProbeJob(train=train.examples, dev=dev.examples, seed=seed)
    ((trained,),) = train_probes(
        predictor, shape, train.table, dev.table, [job], settings, statistics=statistics, progress=progress
    )
    return trained


def selection_steps(steps: int, points: int) -> tuple[int, ...]:
    """The steps after which dev is scored: `points` of them, evenly spread, the last among them."""
    return tuple(sorted({max(1, round(steps * (point + 1) / points)) for point in range(points)}))


class _ProbeGroup:
    """The probes of one lesson, one for each learning rate."""

    def __init__(
        self,
        predictor: Predictor,
        shape: ProbeShape,
        train: FeatureTable,
        dev: FeatureTable,
        job: ProbeJob,
        settings: ProbeSettings,
        statistics: tuple[Tensor, Tensor],
        rates: Sequence[float],
        device: torch.device,
    ) -> None:
        self._examiner = predictor
        self._settings = settings
        self._device = device
        generator = torch.Generator().manual_seed(job.seed)
        untrained = Probe(shape, generator)
        if settings.standardise:
            untrained.set_statistics(*statistics)
        untrained.to(device)
        self._pupils = [_ProbeRun(copy.deepcopy(untrained), rate, settings) for rate in rates]
        context = untrained.head.context_frames
        self._batches = batches(predictor, LabelledFeatures(train, job.train), settings, generator, context=context)
        self._exam = predictor.dev_set(LabelledFeatures(dev, job.dev), device)
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
        return [run.trained(self._seconds / len(self._pupils)) for run in self._pupils]

    def _step(self, step: int) -> None:
        batch = next(self._batches).to(self._device)
        standard = self._pupils[0].probe.standardise_(batch.frames)
        scores = scores_side_by_side([run.probe.train() for run in self._pupils], standard, batch.counts)
        losses = self._examiner.losses(scores, batch.classes, batch.counts, batch.num_classes)
        finite = torch.isfinite(losses).tolist()
        alive = [run.is_finite(known, step) for run, known in zip(self._pupils, finite, strict=True)]
        if not any(alive):
            raise _all_ended(f"loss is {losses[0].item()}", step)
        for run in self._pupils:
            run.descent.zero_grad()
        torch.autograd.backward(losses, torch.tensor(alive, dtype=losses.dtype, device=losses.device))
        for run in self._pupils:
            if self._settings.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(run.probe.parameters(), self._settings.clip_norm)
            run.descent.step()

    def _select(self, step: int) -> None:
        values = self._examiner.primaries(self._scores, self._exam)
        for run, value in zip(self._pupils, values, strict=True):
            if not run.is_finite(value is not None, step) or value is None:
                continue
            run.grid.append({"learning_rate": run.learning_rate, "step": step, "dev_value": value})
            if self._examiner.better(value, run.value):
                run.value, run.step, run.best = value, step, copy.deepcopy(run.probe.state_dict())
        if all(run.ended_at is not None for run in self._pupils):
            raise _all_ended("scores on dev are NaN or infinite", step)

    def _scores(self, frames: Tensor, counts: Tensor) -> Tensor:
        """Frames (L, N, D) to the scores of all pupils, (R, N, C) or (R, U, C)."""
        standard = self._pupils[0].probe.standardised(frames)
        return scores_side_by_side([run.probe.eval() for run in self._pupils], standard, counts)


@contextmanager
def _room_for(settings: ProbeSettings, shape: ProbeShape) -> Iterator[None]:
    """Say which settings ask for less memory where there is too little."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        batch = f"{settings.batch_frames} frames or {settings.batch_utterances} utterances"
        raise EnvironmentFault(
            f"The memory does not suffice for probes on {shape.num_layers} layers of {shape.width}, {batch} at once",
            key="probe.batch_frames",
            do="Lower probe.batch_frames or probe.batch_utterances, or take fewer layers",
        ) from error


def _all_ended(what: str, step: int) -> NonFiniteError:
    said = f"The probe's {what} at step {step}"
    return NonFiniteError(said, key="probe.learning_rate", do="Take a smaller learning rate")


class _ProbeRun:
    """A probe at one learning rate, and its best point so far; a loss or score that is not finite ends it."""

    def __init__(self, probe: Probe, learning_rate: float, settings: ProbeSettings) -> None:
        self.probe = probe
        self.learning_rate = learning_rate
        learnt = (each for each in probe.parameters() if each.requires_grad)
        self.descent = FusedAdam(
            settings.optimizer, learnt, learning_rate=learning_rate, weight_decay=settings.weight_decay
        )
        self.ended_at: int | None = None
        self.value: float | None = None
        self.step = 0
        self.best: dict[str, Tensor] = {}
        self.grid: list[dict[str, float | int]] = []

    def is_finite(self, finite: bool, step: int) -> bool:
        """Whether it goes on after a step that gave something finite, or did not."""
        if not finite and self.ended_at is None:
            self.ended_at = step
        return self.ended_at is None

    def trained(self, seconds: float) -> TrainedProbe:
        """The probe at its best point, or as it ended."""
        if self.ended_at is not None:
            ended: dict[str, float | int] = {"learning_rate": self.learning_rate, "step": self.ended_at}
            return TrainedProbe(self.probe.eval(), Selection(tuple(self.grid), ended, None), seconds)
        self.probe.load_state_dict(self.best)
        chosen: dict[str, float | int] = {"learning_rate": self.learning_rate, "step": self.step}
        return TrainedProbe(self.probe.eval(), Selection(tuple(self.grid), chosen, self.value), seconds)
