"""Pre-training of any upstream that has an objective.

The order of batches, the stretches, the masks and the dropout of a step are functions of the seed and the number of
the batch alone.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import tee
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from repbench.corpora.contract import Utterance
from repbench.errors import PluginError, UsageError, plugin_faults
from repbench.training.batching import BatchOrder, Stretch, derived_seed
from repbench.training.bfloat16 import note_on_bfloat16
from repbench.training.loop import Microbatch, StepResult, SummedLoss, TrainingLoop
from repbench.training.optimizers import build_optimizer
from repbench.training.rng_and_signals import heeding_signals
from repbench.upstream.checkpoints.native import Checkpoint, save_checkpoint
from repbench.upstream.contract import Batch, Loss, Objective, Pretrainable
from repbench.upstream.pretraining.inputs import TrainingInputs, gather, unit_lengths
from repbench.upstream.pretraining.log import Pace, TrainingLog
from repbench.upstream.pretraining.saved_state import optimizer_tensors, restore
from repbench.upstream.pretraining.settings import TrainingSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingStage:
    """A part of the training with one order of batches.

    Attributes:
        first: The first step.
        end: The step after the last.
        order: Of the batches.
    """

    first: int
    end: int
    order: BatchOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class Describe:
    """Contents of a checkpoint that come from outside of the trainer.

    Attributes:
        fields: Of the manifest: upstream, config, corpus, …
        texts: From the manifest's fields, dev loss included, to small files: the model card, the list of sounds.
    """

    fields: Mapping[str, Any]
    texts: Callable[[Mapping[str, Any]], Mapping[str, str]] = lambda fields: {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """Result of a training.

    Attributes:
        checkpoint: The last one; None on processes that do not lead.
        step: Steps taken.
        dev_loss: Of the last checkpoint; None where it was not computed.
        signal: The signal that ended the training early; None otherwise.
    """

    checkpoint: Checkpoint | None
    step: int
    dev_loss: float | None
    signal: int | None = None


@dataclass(slots=True, kw_only=True)
class Trainer(TrainingLoop):
    """Pre-trains a model.

    Attributes:
        model: On `device`.
        settings: Of the training.
        train: Utterances to learn from.
        dev: Held-out utterances.
        run: Folder of checkpoints and logs; this process holds its lock.
        describe: Contents of the checkpoints that come from outside of the trainer.
        history: Earlier trainings of the weights, oldest first, as checkpoints state them; a run that is resumed with
            more steps than planned adds an event.
    """

    unit = "frames"
    less_memory = "Lower training.batch_frames or training.crop_frames"
    more_terms = "Raise training.min_frames"
    rate_key = "training.optimizer.learning_rate"

    model: Pretrainable
    settings: TrainingSettings
    train: Sequence[Utterance]
    dev: Sequence[Utterance]
    run: Path
    describe: Describe
    history: tuple[Mapping[str, Any], ...] = ()
    _multiplier: Callable[[int], float] = field(init=False)
    _sounds: TrainingInputs = field(init=False)
    _held_out: TrainingInputs = field(init=False)
    _log: TrainingLog | None = field(init=False, default=None)
    _pace: Pace = field(init=False)
    _dev_loss: float | None = field(init=False, default=None)
    _saved: Checkpoint | None = field(init=False, default=None)

    def fit(self) -> Trained:
        """Train from the newest intact checkpoint of the run, or from the start.

        Raises:
            NonFiniteError: A loss or gradient is NaN or infinite; the weights of the last checkpoint are finite.
            EnvironmentFault: The disk or the memory is full.
            UsageError: The model cannot recompute activations.
        """
        self._choose_recomputing()
        self._build_optimizer()
        self._restore()
        if self.settings.precision == "bf16" and self.processes.leads:
            note = note_on_bfloat16(self.device, "training.precision=fp32")
            if note is not None:
                self.reporter.say(f"note: {note}")
        self._sounds, self._held_out = self._gathered("train", self.train), self._gathered("dev", self._followed())
        with heeding_signals() as signals, self._opened_log() as self._log:
            self._pace = Pace(self.step)
            stop = self.take_steps(f"pre-training {self.plugin}", signals)
        return Trained(checkpoint=self._saved, step=self.step, dev_loss=self._dev_loss, signal=stop)

    def _choose_recomputing(self) -> None:
        recompute = getattr(self.model, "recompute_activations", None)
        if callable(recompute):
            with plugin_faults(self.plugin):
                recompute(self.settings.recompute_activations)
        elif self.settings.recompute_activations:
            what = f"{self.plugin} has no `recompute_activations`: it keeps all activations"
            raise UsageError(what, key="training.recompute_activations", do="Leave it false")

    # the parts of `TrainingLoop` that are specific to pre-training

    @property
    def module(self) -> nn.Module:
        """The model."""
        assert isinstance(self.model, nn.Module)
        return self.model

    @property
    def plugin(self) -> str:
        """Name of the model."""
        return self.model.info.name

    @property
    def accumulate(self) -> int:
        """Batches that this process adds up for one update."""
        return self.settings.accumulate

    def set_learning_rate(self) -> float:
        """Set the scheduled rate; the optimizers of the older codes schedule it themselves."""
        rate = self.settings.optimizer.learning_rate * self._multiplier(self.step)
        if self.settings.optimizer.name in {"adamw", "adam"}:
            for group in self.optimizer.param_groups:
                group["lr"] = rate
        return rate

    def is_save_point(self) -> bool:
        """Every `save_every` steps, and after the last one."""
        return self.step == self.settings.steps or self.step % self.settings.save_every == 0

    def after_step(self, result: StepResult) -> None:
        """Compute the dev loss, and write the log."""
        self._pace.add(result.length)
        validates = self.is_save_point() or self.step % self.settings.dev_every == 0
        # None between two validations: a checkpoint never states the dev loss of another step.
        self._dev_loss = self._loss_on_dev() if validates else None
        if self._log is None:
            return
        if validates or self.step % self.settings.log_every == 0:
            self._write(self._log, result)
        if validates:
            self._log.figures(self.step, self._figures())

    def save(self) -> None:
        """Save a checkpoint of the run; only the leading process does."""
        if not self.processes.leads:
            return
        if self._log is not None:
            self._log.flush()
        # The manifest takes no NaN, and a checkpoint without a dev loss is never the best one.
        dev_loss = self._dev_loss if self._dev_loss is not None and math.isfinite(self._dev_loss) else None
        fields = {**self.describe.fields, "dev_loss": dev_loss}
        if self.history:
            fields["history"] = [dict(event) for event in self.history]
        self._saved = save_checkpoint(
            self.run,
            self.step,
            weights=self.module.state_dict(),
            training=optimizer_tensors(self.optimizer),
            fields=fields,
            texts=self.describe.texts({**fields, "step": self.step}),
            keep_last=self.settings.keep_last,
        )

    # the loss

    def _loss(self, batch: Batch, number: int, ids: Sequence[str]) -> SummedLoss:
        generator = torch.Generator(self.device).manual_seed(derived_seed(self.seed, "objective", number))
        with plugin_faults(self.plugin, utterance=ids[0]), self._autocast():
            loss: object = self.model.objective.loss(batch, generator)
        if not isinstance(loss, Loss):
            what = f"An objective's `loss` must return a Loss, but returned a {type(loss).__name__}"
            raise PluginError(what, key=self.plugin, do="See Objective in repbench.upstream.contract")
        with plugin_faults(self.plugin, utterance=ids[0]):
            # Mean times terms is the sum, whose gradients add over microbatches and processes. With weight 0 the value
            # may be NaN, which a product with 0 would keep.
            total = loss.value * loss.weight if loss.weight else None
        return SummedLoss(total=total, terms=loss.weight, logs=loss.logs, evidence=batch.values)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16")

    # validation

    def _loss_on_dev(self) -> float | None:
        """Mean loss over held-out utterances, whole, with masks of a fixed seed; the leading process computes it."""
        if not self.processes.leads or not self._held_out.lengths:
            return None
        self.module.eval()
        total = terms = 0.0
        order, followed = self._dev_order(), self._followed()
        parts = [order.batch(number) for number in range(order.batches_per_epoch)]
        with torch.inference_mode():
            for number, (stretches, batch) in enumerate(zip(parts, self._held_out.batches(parts), strict=True)):
                # Not the seed of the run: every checkpoint, of any run, is scored on the same masks.
                generator = torch.Generator(self.device).manual_seed(derived_seed(0, "dev", number))
                ids, lengths = [followed[each.index].id for each in stretches], [each.length for each in stretches]
                with (
                    self.enough_memory(ids, lengths),
                    plugin_faults(self.plugin, utterance=ids[0]),
                    self._autocast(),
                ):
                    loss = self.model.objective.loss(batch, generator)
                if loss.weight:
                    total += float(loss.value) * loss.weight  # value is a mean, so this is the sum over terms
                    terms += loss.weight
        return total / terms if terms else None

    def _figures(self) -> Mapping[str, Tensor]:
        if not self._held_out.lengths:
            return {}
        self.module.eval()
        batch = next(self._held_out.batches([self._dev_order().batch(0)]))
        with torch.inference_mode(), plugin_faults(self.plugin), self._autocast():
            return self.model.objective.figures(batch)

    def _dev_order(self) -> BatchOrder:
        return BatchOrder(self._held_out.lengths, None, self.settings.batch_frames, 0)

    def _followed(self) -> list[Utterance]:
        """Held-out utterances of `dev_seconds` together, spread over the whole list."""
        seconds = sum(each.seconds for each in self.dev)
        # Every n-th, not the first: a corpus lists the utterances of one speaker together.
        every = max(1, math.ceil(seconds / self.settings.dev_seconds))
        return list(self.dev[::every])

    # batches

    def _gathered(self, split: str, utterances: Sequence[Utterance]) -> TrainingInputs:
        with self.reporter.stage(f"frames of {split}") as advance:
            return gather(
                utterances,
                self.model.objective,
                rate_hz=self.model.info.sample_rate_hz,
                keep_bytes=self.settings.keep_features_gib * 2**30,
                device=self.device,
                progress=advance,
            )

    def _stages(self, lengths: Sequence[int]) -> list[TrainingStage]:
        settings, stages, first = self.settings, list[TrainingStage](), 0
        parts = [(stage.until, stage.crop_frames, stage.batch_frames) for stage in settings.curriculum]
        for number, (until, crop, budget) in enumerate(parts or [(1.0, None, None)]):
            end = round(until * settings.steps)
            order = BatchOrder(
                lengths,
                crop or settings.crop_frames,
                budget or settings.batch_frames,
                derived_seed(self.seed, "order", number),
            )
            stages.append(TrainingStage(first=first, end=end, order=order))
            first = end
        return stages

    def microbatches(self) -> Iterator[Microbatch]:
        """The batches of this process, their sounds read ahead."""
        # Inputs reads some batches ahead of the one that it yields; `tee` keeps their numbers until then.
        numbered, ahead = tee(self._numbered(self._stages(self._sounds.lengths), self.step))
        batches = self._sounds.batches(stretches for _, stretches in ahead)
        for (number, stretches), batch in zip(numbered, batches, strict=True):
            ids = [self.train[stretch.index].id for stretch in stretches]
            yield Microbatch(
                ids=ids,
                lengths=[stretch.length for stretch in stretches],
                dropout_seed=derived_seed(self.seed, "dropout", number),
                loss=partial(self._loss, batch, number, ids),
            )

    def _numbered(self, stages: Sequence[TrainingStage], step: int) -> Iterator[tuple[int, Sequence[Stretch]]]:
        """Number and stretches of each batch of this process, from a step on."""
        parts = self.settings.accumulate * self.processes.count
        for stage in stages:
            for each in range(max(step, stage.first), stage.end):
                for part in range(self.settings.accumulate):
                    # Batches of a step alternate between the processes: two processes with one batch each take the
                    # batches that one process accumulates.
                    place = part * self.processes.count + self.processes.rank
                    yield each * parts + place, stage.order.batch((each - stage.first) * parts + place)

    # state

    def _build_optimizer(self) -> None:
        settings = self.settings.optimizer
        self.optimizer, self._multiplier = build_optimizer(
            settings.name,
            self.module.named_parameters(),
            learning_rate=settings.learning_rate,
            betas=settings.betas,
            epsilon=settings.epsilon,
            weight_decay=settings.weight_decay,
            warmup=settings.warmup,
            total_steps=self.settings.steps,
        )

    def _restore(self) -> None:
        """Load the newest intact checkpoint of the run, its step and its history."""
        restored = restore(self.run, self.module, self.optimizer, self.reporter, what="checkpoint of the run")
        if restored is None:
            return
        checkpoint, _ = restored
        self.step, self.history = checkpoint.step, tuple(checkpoint.fields.get("history", ()))
        planned, steps = checkpoint.fields.get("training", {}).get("steps"), self.settings.steps
        if planned in {None, steps}:
            return
        event = {"event": "more steps", "step": self.step, "steps_before": planned, "steps": steps}
        self.history = (*self.history, event)
        rate = self.settings.optimizer.learning_rate * self._multiplier(self.step)
        self.reporter.say(
            f"note: the run was planned for {planned} steps and goes on from step {self.step} to {steps}, with "
            f"the schedule of {steps} steps: the learning rate goes on at {rate:.3g}"
        )

    # log

    def _opened_log(self) -> contextlib.AbstractContextManager[TrainingLog | None]:
        return TrainingLog(self.run, self.step) if self.processes.leads else contextlib.nullcontext()

    def _write(self, log: TrainingLog, result: StepResult) -> None:
        numbers = {
            "loss": result.loss,
            "learning_rate": result.learning_rate,
            "gradient_norm": result.gradient_norm,
            **result.logs,
        }
        speed = self._pace.per_second
        if self._dev_loss is not None:
            numbers["dev_loss"] = self._dev_loss
            self.reporter.say(
                f"step {self.step} of {self.settings.steps}: loss {result.loss:.4f}, dev loss {self._dev_loss:.4f}, "
                f"{speed:,.0f} frames/s, {self._pace.left(self.step, self.settings.steps)} left"
            )
        log.numbers(self.step, numbers, timed={"frames_per_second": speed})


def long_enough(
    utterances: Sequence[Utterance], min_frames: int, objective: Objective, rate_hz: int
) -> list[Utterance]:
    """The utterances of at least `min_frames` frames (or samples)."""
    lengths = unit_lengths(utterances, objective, rate_hz)
    return [each for each, length in zip(utterances, lengths, strict=True) if length >= min_frames]
