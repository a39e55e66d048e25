"""Train a whole network, upstream and head, on labels.

The batch of a step is the same however many processes share it, and the gradient is that of the mean over all its
labels: several processes do what one does.

Axes: L layers, B batch, T samples, N frames of a batch, U utterances, C classes.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from repbench.benchmark.data.dataset import LabelledUtterances
from repbench.benchmark.features.extraction import ExtractionOptions, extract, num_frames
from repbench.benchmark.finetuning.network import UPSTREAM, Network, upstream_of
from repbench.benchmark.finetuning.prediction import cost_of, scores_of
from repbench.benchmark.finetuning.trainable import TrainablePlan, without
from repbench.benchmark.probing.prediction import DevSet, LabelledFeatures, Predictor
from repbench.benchmark.probing.probe import statistics_of
from repbench.benchmark.probing.training import Selection, selection_steps
from repbench.benchmark.protocol import ExtractionSettings, FinetuneSettings
from repbench.corpora.read import read_utterance, samples_at
from repbench.downstream.contract import LabelledUtterance
from repbench.downstream.heads import restart_dropout
from repbench.errors import DataError, NonFiniteError, Terminated, plugin_faults
from repbench.training.batching import BatchOrder, derived_seed, padded
from repbench.training.loop import Microbatch, StepResult, SummedLoss, TrainingLoop
from repbench.training.optimizers import warmup_linear_from_first
from repbench.training.rng_and_signals import heeding_signals
from repbench.upstream.checkpoints.native import remove_leftovers, save_checkpoint
from repbench.upstream.contract import Upstream
from repbench.upstream.pretraining.saved_state import optimizer_tensors, restore

_BEST = "best."
_KEPT = 2
"""Checkpoints on the disk: the last one, and one to fall back to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finetuned:
    """Result of a fine-tuning.

    Attributes:
        selection: The chosen point of dev, and all points.
        seconds: Training time, of all processes that worked on it one after the other.
        best: Weights at the chosen point, on the CPU, without those of `TrainablePlan.unsaved`; empty on processes that
            do not lead.
    """

    selection: Selection
    seconds: float
    best: dict[str, Tensor]


@dataclass(slots=True)
class _Progress:
    """Contents of a checkpoint other than weights, optimizer and step.

    Attributes:
        grid: Step and dev value of each point that has a value.
        stale: Points since the best one.
        seconds: Training time so far, of all processes that worked on it one after the other.
        best: Weights of the best point.
    """

    grid: list[dict[str, float | int]] = field(default_factory=list)
    stale: int = 0
    seconds: float = 0.0
    best: dict[str, Tensor] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Finetuner(TrainingLoop):
    """Fine-tunes a network.

    Attributes:
        network: With its initial weights, on `device`.
        predictor: Of the task, for the network's classes.
        settings: Of the fine-tuning.
        extraction: Settings for scoring dev.
        train: Utterances to learn from.
        dev: Utterances to select on.
        folder: Of the checkpoints, by which an interrupted training resumes; this process holds its lock.
        standardise: Whether the input of the head is standardised.
        standardised_on: Utterances whose initial features give the statistics for that.
        title: Of the training, for the reporter.
    """

    unit = "s"
    less_memory = "Lower finetune.batch_seconds, or take another device"
    more_terms = "Take a larger label fraction or corpus"
    rate_key = "finetune.learning_rate"

    network: Network
    predictor: Predictor
    settings: FinetuneSettings
    extraction: ExtractionSettings
    train: LabelledUtterances
    dev: LabelledUtterances
    folder: Path
    standardise: bool = True
    standardised_on: LabelledUtterances = ()
    title: str = "fine-tuning"
    _examples: LabelledUtterances = field(init=False)
    _plan: TrainablePlan = field(init=False)
    _unsaved: frozenset[str] = field(init=False)
    _progress: _Progress = field(init=False, default_factory=_Progress)
    _started: float = field(init=False, default_factory=time.monotonic)

    def fit(self) -> Finetuned:
        """Train from the newest intact checkpoint in the folder, or from the start.

        A signal ends the training after the current step, once its checkpoint is saved, and is then raised again for
        the handler that was there before: the command line ends with 143 or 130.

        Raises:
            NonFiniteError: A loss or gradient is NaN or infinite; the weights of the last checkpoint are finite.
            EnvironmentFault: The disk or the memory is full.
        """
        self._examples = self._labelled()
        self._plan = TrainablePlan(self._upstream, self.settings)
        self._plan.apply(self.step)
        self._unsaved = frozenset(f"{UPSTREAM}{name}" for name in self._plan.unsaved())
        self._build_optimizer()
        if self.processes.leads:
            remove_leftovers(self.folder)
        # Others may read the folder only after the leftovers are gone.
        self.processes.wait()
        self._restore()
        self._started = time.monotonic() - self._progress.seconds
        with heeding_signals() as signals:
            stop = self.take_steps(self.title, signals)
        if stop is not None:
            self.reporter.say(f"note: stopped after step {self.step}; the same command goes on from {self.folder}")
            signal.raise_signal(stop)
            raise Terminated(128 + stop)
        return Finetuned(selection=self._selection(), seconds=self._progress.seconds, best=self._progress.best)

    # what differs from other trainings

    @property
    def module(self) -> nn.Module:
        """The network."""
        return self.network

    @property
    def plugin(self) -> str:
        """Name of the upstream."""
        return self._upstream.info.name

    def microbatches(self) -> Iterator[Microbatch]:
        """The share of this process in the batch of each step."""
        order = BatchOrder(
            [samples_at(example.utterance, self._rate_hz) for example in self._examples],
            None,
            math.ceil(self.settings.batch_seconds * self._rate_hz),
            derived_seed(self.seed, "order"),
        )
        while True:
            step = self.step
            batch = [self._examples[stretch.index] for stretch in order.batch(step)]
            own = batch[self.processes.rank :: self.processes.count]  # lengths are sorted: shares are alike
            # A process without a share computes the loss of one utterance with weight 0, so that all its parameters
            # have gradients for the sum over processes.
            share, weight = (own, 1) if own else (batch[:1], 0)
            yield Microbatch(
                ids=[example.id for example in share],
                lengths=[round(example.utterance.seconds, 1) for example in share],
                dropout_seed=derived_seed(self.seed, "dropout", step, self.processes.rank),
                loss=partial(self._loss, share, weight),
            )

    def set_modes(self) -> None:
        """Train the head, and of the upstream what the plan opens in the next step."""
        self.network.train()
        self._plan.apply(self.step)

    def set_learning_rate(self) -> float:
        """Set the scheduled rates of upstream and head; returns that of the upstream."""
        multiplier = warmup_linear_from_first(self.step, self.settings.steps, self.settings.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * multiplier
        return self.settings.learning_rate * multiplier

    def is_done(self) -> bool:
        """Whether all steps are taken, or `patience` points in a row were no better than the best."""
        return self.step >= self.settings.steps or self._progress.stale >= self.settings.patience

    def is_save_point(self) -> bool:
        """Whether dev is scored at this step."""
        return self.step in selection_steps(self.settings.steps, self.settings.selection_points)

    def after_step(self, result: StepResult) -> None:
        """Score dev where that is due."""
        if self.is_save_point():
            self._select(result.loss)
        self._progress.seconds = time.monotonic() - self._started

    def save(self) -> None:
        """Save a checkpoint; only the leading process does."""
        if not self.processes.leads:
            return
        best = {f"{_BEST}{name}": tensor for name, tensor in self._progress.best.items()}
        save_checkpoint(
            self.folder,
            self.step,
            weights=self._moving_weights(),
            training=optimizer_tensors(self.optimizer) | best,
            fields={
                "upstream": self.plugin,
                "fine-tuning": self.title,
                "grid": self._progress.grid,
                "stale": self._progress.stale,
                "seconds": self._progress.seconds,
            },
            keep_last=_KEPT,
        )

    # the loss

    def _loss(self, share: Sequence[LabelledUtterance], weight: int) -> SummedLoss:
        # Seeded by step and rank alone, so a resumed training drops the same units.
        restart_dropout(self.network.probe, derived_seed(self.seed, "head", self.step, self.processes.rank))
        with plugin_faults(self.plugin, utterance=share[0].id):
            scores, counts = self.network(*self._waveforms(share))  # (N, C) or (U, C), and (U,)
        cost, terms = cost_of(self.predictor, scores, share, counts.tolist())
        # (N, C) -> U of (F, C), or (U, C) -> U of (1, C): the evidence of each utterance, to name one that is not
        # finite
        parts = torch.split(scores.detach(), 1 if self.network.probe.shape.pools else counts.tolist())
        return SummedLoss(total=cost * weight, terms=terms * weight, evidence=parts)

    def _waveforms(self, examples: Sequence[LabelledUtterance]) -> tuple[Tensor, Tensor]:
        """(B, T) waveforms on the device, and (B,) samples of each."""
        waveforms, lengths = padded([read_utterance(each.utterance, self._rate_hz, whole=True) for each in examples])
        return waveforms.to(self.device), lengths.to(self.device)

    # selection

    def _select(self, loss: float) -> None:
        """Score dev, and keep the weights if they are the best so far; all processes learn whether they are."""
        progress = self._progress
        if self.processes.leads:
            value = self._dev_value()
            best = max if self._higher_is_better else min
            before = best((point["dev_value"] for point in progress.grid), default=None)
            if value is not None:
                progress.grid.append({"step": self.step, "dev_value": value})
            if value is not None and self.predictor.better(value, before):
                # A copy: `state_dict` shares memory with weights that the next step changes.
                progress.best = {name: each.detach().cpu().clone() for name, each in self._moving_weights().items()}
                progress.stale = 0
            elif self.step > self._plan.complete_at:  # before that, dev does not rise by weights that are still frozen
                progress.stale += 1
            shown = "not finite" if value is None else f"{value:.4f}"
            self.reporter.say(
                f"step {self.step} of {self.settings.steps}: loss {loss:.4f}, {self._measure} on dev {shown}"
            )
        # Only the leading process scores dev; the sum passes its count on to the others, which add 0.
        stale = torch.tensor(float(progress.stale) if self.processes.leads else 0.0, device=self.device)
        progress.stale = int(self.processes.sum(stale))

    def _dev_value(self) -> float | None:
        """Primary metric of the network on dev; None where its scores are not finite."""
        (value,) = self.predictor.primaries(lambda scores, counts: scores, self._dev_set())
        return value

    def _dev_set(self) -> DevSet:
        """The scores of the network on dev, in the place of features."""
        table = scores_of(self.network, self.dev, self.extraction, device=self.device)
        return self.predictor.dev_set(LabelledFeatures(table, self.dev), table.frames.device)

    def _selection(self) -> Selection:
        grid = self._progress.grid
        if not grid:
            if self.processes.leads:
                raise NonFiniteError(
                    "The scores on dev are NaN or infinite at every point",
                    key="finetune.learning_rate",
                    do="Take a smaller learning rate",
                )
            return Selection((), {}, None)
        best = max if self._higher_is_better else min  # both take the first of equals
        chosen = best(grid, key=lambda point: point["dev_value"])
        where, value = {"step": chosen["step"]}, chosen["dev_value"]
        if not self.predictor.problem.decisions or not self.processes.leads:
            return Selection(tuple(grid), where, value)
        # At the best point alone, as for a probe; the network is not trained any further.
        self.network.load_state_dict(self._progress.best, strict=not self._unsaved)
        (points,) = self.predictor.decisions(lambda scores, counts: scores, self._dev_set())
        decision, value = best(points, key=lambda point: point[1])
        decided = tuple({**where, **each, "dev_value": own} for each, own in points)
        return Selection((*grid, *decided), {**where, **decision}, value)

    @property
    def _measure(self) -> str:
        return self.predictor.task.info.primary_metric

    @property
    def _higher_is_better(self) -> bool:
        return self.predictor.task.info.metrics[self._measure].higher_is_better

    # state

    @property
    def _upstream(self) -> Upstream:
        return upstream_of(self.network)

    @property
    def _rate_hz(self) -> int:
        return self._upstream.info.sample_rate_hz

    def _labelled(self) -> LabelledUtterances:
        """The training utterances that have a label where the upstream has a frame."""
        kept = tuple(each for each in self.train if self._num_labels(each))
        if not kept:
            raise DataError(
                f"No frame of the {len(self.train)} training utterances is labelled",
                do="Take a larger label fraction or corpus",
            )
        return kept

    def _num_labels(self, example: LabelledUtterance) -> int:
        count = num_frames(self._upstream, samples_at(example.utterance, self._rate_hz), example.id)
        return self.predictor.problem.num_targets(self.predictor.targets(example, count).numpy())

    def _moving_weights(self) -> dict[str, Tensor]:
        """The state dict of the network without weights that no step trains, which are those that it began with."""
        return without(self._unsaved, self.network.state_dict())

    def _build_optimizer(self) -> None:
        settings = self.settings
        # The probe itself defines which of its parameters learn.
        head = [each for each in self.network.probe.parameters() if each.requires_grad]
        rates = [(group, settings.learning_rate * factor) for group, factor in self._plan.parameter_groups]
        groups = [
            {"params": parameters, "lr": rate, "peak": rate}
            for parameters, rate in (*rates, (head, settings.head_learning_rate))
        ]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay, fused=True)

    def _restore(self) -> None:
        """Load the newest intact checkpoint of the folder; without one, standardise the input of the head."""
        restored = restore(
            self.folder,
            self.network,
            self.optimizer,
            self.reporter,
            what="state of the fine-tuning",
            unsaved=self._unsaved,
        )
        if restored is None:
            if self.standardise:
                self._standardise()
            return
        checkpoint, tensors = restored
        self.step = checkpoint.step
        self._progress = _Progress(
            grid=list(checkpoint.fields["grid"]),
            stale=checkpoint.fields["stale"],
            seconds=checkpoint.fields["seconds"],
            best={name.removeprefix(_BEST): each for name, each in tensors.items() if name.startswith(_BEST)},
        )
        self.reporter.say(f"note: going on after step {self.step}, from {checkpoint.path}")

    def _standardise(self) -> None:
        """Give the probe the statistics of the initial features of some utterances, spread over all."""
        # Every k-th, not the first ones: utterances of one speaker follow one another.
        every = math.ceil(len(self.standardised_on) / self.settings.statistics_utterances)
        self.network.eval()
        table = extract(
            self._upstream,
            [example.utterance for example in self.standardised_on[::every]],
            self.network.layers,
            ExtractionOptions(batch_seconds=self.extraction.batch_seconds, device=self.device),
        )
        self.network.probe.set_statistics(*statistics_of(table))
