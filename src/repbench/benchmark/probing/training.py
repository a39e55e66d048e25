"""Train probes on frozen features, all learning rates of a job in one pass over the features, jobs side by side.

A probe is trained for a fixed number of steps and scored on dev at fixed points, and its best point is kept (the
earliest of equals). The probes of a job share their input: each batch is read and standardised once, dev is read once,
and one product computes the scores of all probes that are one matrix. A probe does not depend on those that share its
pass: its weights are those that it has alone, to 1e-5 or, with hidden layers, to the last bit
(docs/design/0010-probes-side-by-side.md).

Axes: L layers, N frames, D width, U utterances, C classes, R learning rates.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from repbench.benchmark.data.dataset import LabelledUtterances
from repbench.benchmark.features.table import Features, as_they_are
from repbench.benchmark.probing.batches import batches
from repbench.benchmark.probing.fused_adam import FusedAdam
from repbench.benchmark.probing.job_threads import CountedSteps, in_threads, jobs_at_once
from repbench.benchmark.probing.means import UtteranceMeans, reads_means
from repbench.benchmark.probing.prediction import LabelledFeatures, Predictor, Scorer
from repbench.benchmark.probing.probe import Probe, ProbeShape, scores_side_by_side
from repbench.benchmark.probing.spec_augment import SpecAugment
from repbench.benchmark.protocol import ProbeSettings
from repbench.downstream.heads import worker_threads
from repbench.errors import EnvironmentFault, NonFiniteError, is_out_of_memory
from repbench.progress import Advance

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeTraining:
    """What all probes of a run share.

    Attributes:
        predictor: Of the task, for its classes.
        shape: Of every probe.
        train: Features of the training split.
        dev: Features of the dev split.
        statistics: (L, 1, D) mean and deviation of all layers of `train`, over all frames, labelled or not; None where
            each job has its own.
        settings: The budget.
        learning_rates: R of them; empty: that of the settings.
        device: Where the probes are and learn; the tables may be elsewhere.
    """

    predictor: Predictor
    shape: ProbeShape
    train: Features
    dev: Features
    statistics: tuple[Tensor, Tensor] | None
    settings: ProbeSettings
    learning_rates: tuple[float, ...] = ()
    device: torch.device = CPU


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeJob:
    """One probe for each learning rate, trained and selected on the same utterances.

    Attributes:
        train: Utterances to learn from.
        dev: Utterances to select on.
        layers: Layers of the tables that are read.
        seed: Of the initial weights and the order of the batches.
        statistics: As in `ProbeTraining`, of the utterances that this job may know, as those of a fold's train; None:
            the shared ones.
    """

    train: LabelledUtterances
    dev: LabelledUtterances
    layers: slice = field(default_factory=lambda: slice(None))
    seed: int = 0
    statistics: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """The choice on dev.

    Attributes:
        grid: Every scored point, with its `dev_value`.
        chosen: The point that was chosen or, of a diverged training, at which it diverged.
        dev_value: At the chosen point; None of a diverged training.
    """

    grid: tuple[dict[str, float | int], ...]
    chosen: dict[str, float | int]
    dev_value: float | None


@dataclass(frozen=True, slots=True)
class TrainedProbe:
    """The selected probe, its selection, its share of the training time in seconds, and warnings about it."""

    probe: Probe
    selection: Selection
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()


def train_probes(
    shared: ProbeTraining, jobs: Sequence[ProbeJob], progress: Advance = lambda done, total: None
) -> list[list[TrainedProbe]]:
    """Train a probe for each job and learning rate, and keep the point of each that is best on dev.

    Args:
        shared: What all probes share.
        jobs: The utterances, layers and seed of each probe.
        progress: Called with the steps done and all steps.

    Returns:
        For each job a probe for each learning rate; at least one of them has a dev value.

    Raises:
        NonFiniteError: No learning rate of a job has a finite loss; names the step.
        EnvironmentFault: The memory does not suffice.
    """
    counted = CountedSteps(progress, len(jobs) * shared.settings.steps)
    standardised = all(job.statistics is None for job in jobs)
    means_of_train = UtteranceMeans(shared.train, standardised=standardised)
    # Folds read train and dev in one table, and each mean once.
    same = shared.dev is shared.train
    means = means_of_train, means_of_train if same else UtteranceMeans(shared.dev, standardised=standardised)
    threads = torch.get_num_threads()
    at_once = min(jobs_at_once(shared.predictor, shared.shape, shared.device, _batch_bytes(shared)), len(jobs))
    if not (shared.train.is_at_hand and shared.dev.is_at_hand):
        at_once = 1  # each would have a window, and the budget has room for one

    def trained(job: ProbeJob, beside: int = at_once) -> list[TrainedProbe]:
        with _enough_memory(shared.settings, shared.shape):
            group = _ProbeGroup(shared, job, *means)
            for _ in group.steps():
                counted.step()
        return group.trained(beside)

    # Jobs that are left when each thread has had as many share the threads step by step.
    side_by_side = len(jobs) - len(jobs) % at_once if at_once > 1 else 0
    probes = in_threads(trained, jobs[:side_by_side], at_once, counted.stopped)
    with worker_threads(threads):
        return probes + [trained(job, 1) for job in jobs[side_by_side:]]


def _batch_bytes(shared: ProbeTraining) -> int:
    """Bytes of the features of a step, and as many again for what is computed of them."""
    settings, table = shared.settings, shared.train
    if shared.predictor.problem.batches == "frames":
        # Whole utterances of a frame task have about as many frames.
        num_frames = settings.batch_frames
    else:
        each = min(max(table.counts, default=0), settings.frames_per_utterance or max(table.counts, default=0))
        num_frames = settings.batch_utterances * each
    return 2 * 4 * shared.shape.num_layers * num_frames * max(shared.shape.width, shared.shape.hidden_units)


def selection_steps(steps: int, points: int) -> tuple[int, ...]:
    """The steps after which dev is scored: `points` of them, evenly spread, the last among them."""
    return tuple(sorted({max(1, round(steps * (point + 1) / points)) for point in range(points)}))


class _ProbeGroup:
    """The probes of one job, one for each learning rate."""

    def __init__(
        self, shared: ProbeTraining, job: ProbeJob, train_means: UtteranceMeans, dev_means: UtteranceMeans
    ) -> None:
        self._predictor = shared.predictor.for_training(job.train)
        self._settings, self._device = shared.settings, shared.device
        generator = torch.Generator().manual_seed(job.seed)
        # The generator draws the weights, then the order of the batches: both follow from the seed of the job.
        untrained = Probe(shared.shape, generator)
        if self._settings.standardise:
            statistics = job.statistics or shared.statistics
            assert statistics is not None
            mean, std = statistics
            untrained.set_statistics(mean[job.layers], std[job.layers])
        untrained.set_target_statistics(self._predictor.context.target_statistics)
        untrained.to(self._device)
        rates = shared.learning_rates or (self._settings.learning_rate,)
        # Copies of one probe: all learning rates start at the same weights.
        self._runs = [_ProbeRun(copy.deepcopy(untrained), rate, self._settings) for rate in rates]
        # A mask hides a part of the frames, and the mean of the others is not that of all. Statistics of a fold would
        # be applied to the mean, which is not possible for frames that are each normalised after them.
        normalised_after = job.statistics is not None and shared.shape.layer_norm
        self._reads_means = reads_means(untrained) and not self._settings.spec_augment and not normalised_after
        if self._reads_means:
            train = train_means.of(job.train, job.layers, untrained)
            dev = dev_means.of(job.dev, job.layers, untrained)
        else:
            train = LabelledFeatures(shared.train.of_layers(job.layers), job.train)
            dev = LabelledFeatures(shared.dev.of_layers(job.layers), job.dev)
        head = untrained.head
        # Rows are standardised in the cache, as they are gathered, or on the GPU; means are already.
        on_cpu = self._device.type == "cpu"
        self._standardises_batches = not self._reads_means and not on_cpu
        self._batches = batches(
            self._predictor,
            train,
            self._settings,
            generator,
            context=head.context_frames,
            whole=head.info.whole_utterances,
            finish=untrained.standardise_ if on_cpu and not self._reads_means else as_they_are,
        )
        self._dev_set = self._predictor.dev_set(dev, self._device)
        times = shared.predictor.context.times
        self._masks = SpecAugment(self._settings, times, job.seed) if self._settings.spec_augment and times else None
        self._snapshots: list[tuple[int, list[dict[str, Tensor]]]] = []
        self._seconds = 0.0

    def steps(self) -> Iterator[int]:
        """Train; yields the number of each step after it."""
        started = time.monotonic()
        points = selection_steps(self._settings.steps, self._settings.selection_points)
        for step in range(1, self._settings.steps + 1):
            self._step(step)
            if step in points and self._dev_set.table.is_at_hand:
                probes = [run.probe for run in self._runs]
                self._select(step, self._primaries(probes), [probe.state_dict() for probe in probes])
            elif step in points:
                self._snapshots.append((step, [copy.deepcopy(run.probe.state_dict()) for run in self._runs]))
            yield step
        if self._snapshots:
            self._select_among_snapshots()
        if self._predictor.problem.decisions:
            self._decide()
        self._seconds = time.monotonic() - started

    def trained(self, beside: int) -> list[TrainedProbe]:
        """The best probe of each rate; each took its share of the time, in which so many jobs were trained."""
        return [run.trained(self._seconds / len(self._runs) / beside) for run in self._runs]

    def _step(self, step: int) -> None:
        batch = next(self._batches).to(self._device)
        standard = batch.frames  # (L, N, D)
        if self._standardises_batches:
            # In place: a batch is a copy of rows of the table. All runs have the same statistics.
            self._runs[0].probe.standardise_(standard)
        if self._masks is not None and batch.counts is not None:
            standard = self._masks.mask_(standard, batch.counts)
        scores = scores_side_by_side([run.probe.train() for run in self._runs], standard, batch.counts)
        if batch.rows is not None:
            scores = scores.index_select(1, batch.rows)  # (R, N, C) -> (R, S, C)
        losses = self._predictor.losses(scores, batch.classes, batch.counts, batch.num_classes)  # (R,)
        known = torch.isfinite(losses).tolist()
        finite = [run.is_finite(each, step) for run, each in zip(self._runs, known, strict=True)]
        if not any(finite):
            raise _all_diverged(f"loss is {losses[0].item()}", step)
        for run in self._runs:
            run.optimizer.zero_grad()
        # A weight of 0 keeps the loss of a diverged probe out of the others' gradients. As a sum, because torch imports
        # sympy, a second or more, to check the shape of a gradient that it is given.
        weights = torch.tensor(finite, dtype=losses.dtype, device=losses.device)
        torch.autograd.backward((losses * weights).sum())
        for run in self._runs:
            if self._settings.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(run.probe.parameters(), self._settings.clip_norm)
            run.optimizer.step()

    def _select(self, step: int, values: Sequence[float | None], states: Sequence[Mapping[str, Tensor]]) -> None:
        """Keep the state of each run that is better on dev than all before it; values are those of the states."""
        for run, value, state in zip(self._runs, values, states, strict=True):
            if not run.is_finite(value is not None, step) or value is None:
                continue
            run.grid.append({"learning_rate": run.learning_rate, "step": step, "dev_value": value})
            if self._predictor.better(value, run.value):
                # A copy: training goes on in the tensors of the state dict.
                run.value, run.step, run.best = value, step, copy.deepcopy(dict(state))
        if all(run.diverged_at is not None for run in self._runs):
            raise _all_diverged("scores on dev are NaN or infinite", step)

    def _select_among_snapshots(self) -> None:
        """Score all points in one pass over dev, whose features are computed or read for each pass."""
        probes = [copy.deepcopy(run.probe) for _, states in self._snapshots for run in self._runs[: len(states)]]
        for probe, state in zip(probes, (state for _, states in self._snapshots for state in states), strict=True):
            probe.load_state_dict(state)
        values = iter(self._primaries(probes))
        for step, states in self._snapshots:
            self._select(step, [next(values) for _ in states], states)
        self._snapshots = []

    def _decide(self) -> None:
        """Choose the settings of the predictions of each run, at its best point."""
        known = [run for run in self._runs if run.diverged_at is None]
        probes = [copy.deepcopy(run.probe) for run in known]
        for probe, run in zip(probes, known, strict=True):
            probe.load_state_dict(run.best)
        for run, points in zip(known, self._predictor.decisions(self._scorer(probes), self._dev_set), strict=True):
            run.decide(points, self._predictor.better)

    def _primaries(self, probes: Sequence[Probe]) -> list[float | None]:
        """The dev value of each probe, or None where its scores are not finite."""
        return self._predictor.primaries(self._scorer(probes), self._dev_set)

    def _scorer(self, probes: Sequence[Probe]) -> Scorer:
        """The scores of the probes side by side."""

        def scores_of(frames: Tensor, counts: Tensor) -> Tensor:
            """Scores (R, N, C) or (R, U, C) of all probes for frames (L, N, D)."""
            standard = frames if self._reads_means else probes[0].standardised(frames)
            # All probes of a job learned the same labels.
            return probes[0].in_units(scores_side_by_side([probe.eval() for probe in probes], standard, counts))

        return scores_of


@contextmanager
def _enough_memory(settings: ProbeSettings, shape: ProbeShape) -> Iterator[None]:
    """Name the settings that save memory, where memory does not suffice."""
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


def _all_diverged(what: str, step: int) -> NonFiniteError:
    return NonFiniteError(
        f"The probe's {what} at step {step}", key="probe.learning_rate", do="Take a smaller learning rate"
    )


class _ProbeRun:
    """A probe at one learning rate, and its best point so far; a loss or score that is not finite ends its training."""

    def __init__(self, probe: Probe, learning_rate: float, settings: ProbeSettings) -> None:
        self.probe = probe
        self.learning_rate = learning_rate
        learnt = (each for each in probe.parameters() if each.requires_grad)
        self.optimizer = FusedAdam(
            settings.optimizer, learnt, learning_rate=learning_rate, weight_decay=settings.weight_decay
        )
        self.diverged_at: int | None = None
        self.value: float | None = None
        self.step = 0
        self.best: dict[str, Tensor] = {}
        self.grid: list[dict[str, float | int]] = []
        self._decision: Mapping[str, float] = {}

    def decide(
        self, points: Sequence[tuple[Mapping[str, float], float]], better: Callable[[float, float | None], bool]
    ) -> None:
        """Take the decision with the best value on dev, the first of equals."""
        self.value = None
        for decision, value in points:
            self.grid.append({"learning_rate": self.learning_rate, "step": self.step, **decision, "dev_value": value})
            if better(value, self.value):
                self.value, self._decision = value, decision

    def is_finite(self, finite: bool, step: int) -> bool:
        """Whether everything so far is finite, after a step whose loss or scores are finite, or are not."""
        if not finite and (self.diverged_at is None or step < self.diverged_at):
            self.diverged_at = step
        return self.diverged_at is None or step < self.diverged_at

    def trained(self, seconds: float) -> TrainedProbe:
        """The probe at its best point or, where it diverged, as it is."""
        if self.diverged_at is not None:
            diverged: dict[str, float | int] = {"learning_rate": self.learning_rate, "step": self.diverged_at}
            return TrainedProbe(self.probe.eval(), Selection(tuple(self.grid), diverged, None), seconds)
        self.probe.load_state_dict(self.best)
        chosen: dict[str, float | int] = {
            "learning_rate": self.learning_rate,
            "step": self.step,
            **self._decision,
        }
        return TrainedProbe(self.probe.eval(), Selection(tuple(self.grid), chosen, self.value), seconds)
