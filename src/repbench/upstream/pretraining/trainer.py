"""Pre-training of any upstream that has an objective.

The order of batches, the stretches, the masks and the dropout of a step are functions of the seed and the number of
the batch alone. So a resumed run continues bit for bit from weights, optimiser and step; and one process that
accumulates two batches does what two processes do with one each.
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from repbench.corpora.contract import Utterance
from repbench.errors import (
    DataError,
    EnvironmentFault,
    NonFiniteError,
    PluginError,
    is_out_of_memory,
    plugin_faults,
)
from repbench.progress import Reporter, Silence
from repbench.training.batching import BatchOrder, Stretch, derived_seed
from repbench.training.distributed import Processes
from repbench.training.optimizers import build_optimizer
from repbench.training.rng_and_signals import drawing_from, heeding_signals
from repbench.upstream.checkpoints.foreign import hold_to_keys
from repbench.upstream.checkpoints.native import (
    Checkpoint,
    list_checkpoints,
    newest_intact,
    read_training,
    read_weights,
    save_checkpoint,
)
from repbench.upstream.contract import Batch, Loss, Objective, Pretrainable
from repbench.upstream.pretraining.inputs import Sounds, gather, unit_lengths
from repbench.upstream.pretraining.log import TrainingLog
from repbench.upstream.pretraining.settings import TrainingSettings

_IDS_SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A part of the training in which batches are made the same way.

    Attributes:
        first: Its first step.
        end: The step after its last.
        order: Its batches.
    """

    first: int
    end: int
    order: BatchOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class Describe:
    """What the trainer does not know and every checkpoint says.

    Attributes:
        fields: Of the manifest: upstream, config, corpus, …
        texts: From the manifest's fields, dev loss included, to small files: the model card, what was heard.
    """

    fields: Mapping[str, Any]
    texts: Callable[[Mapping[str, Any]], Mapping[str, str]] = lambda fields: {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """How a training ended.

    Attributes:
        checkpoint: The last one; None on processes that do not lead.
        step: Steps taken.
        dev_loss: Of the last checkpoint, if it was asked.
        signal: The signal that ended it early, if one did.
    """

    checkpoint: Checkpoint | None
    step: int
    dev_loss: float | None
    signal: int | None = None


@dataclass(slots=True, kw_only=True)
class Trainer:
    """Pre-trains a model.

    Attributes:
        model: On `device`.
        settings: How.
        seed: Of everything that is drawn.
        train: Utterances that are learned from.
        dev: Held-out utterances.
        run: Folder of checkpoints and logs; this process holds its lock.
        describe: What checkpoints say of it.
        device: Where it is computed.
        processes: That train together.
        reporter: Looks on.
        history: What the weights went through before this run, oldest first; its checkpoints have it, and what the run
            itself adds to it.
    """

    model: Pretrainable
    settings: TrainingSettings
    seed: int
    train: Sequence[Utterance]
    dev: Sequence[Utterance]
    run: Path
    describe: Describe
    device: torch.device
    processes: Processes = field(default_factory=Processes)
    reporter: Reporter = field(default_factory=Silence)
    history: tuple[Mapping[str, Any], ...] = ()

    def fit(self) -> Trained:
        """Train from the newest intact checkpoint of the run, or from the start.

        Raises:
            NonFiniteError: A loss or gradient is NaN or infinite; the weights of the last checkpoint are finite.
            EnvironmentFault: The disk or the memory is full.
        """
        optimizer, multiplier = self._optimizer()
        step = self._restore(optimizer, multiplier)
        sounds, dev_sounds = self._sounds("train", self.train), self._sounds("dev", self._followed())
        stages = self._stages(sounds.lengths)
        dev_order = BatchOrder(dev_sounds.lengths, None, self.settings.batch_frames, 0)
        saved: Checkpoint | None = None
        dev_loss: float | None = None
        with (
            heeding_signals() as asked,
            self._log(step) as log,
            self.reporter.stage(f"pre-training {self.model.info.name}") as advance,
        ):
            pace = _Pace(step)
            batches = self._batches(sounds, stages, step)
            while step < self.settings.steps:
                values, stop = self._step(step, batches, optimizer, multiplier, asked)
                step += 1
                pace.add(step, values.pop("frames"))
                last = step == self.settings.steps
                due = last or step % self.settings.save_every == 0
                saving = due or stop is not None
                # A signal changes nothing of what is looked at: the log is that of an uninterrupted run.
                looking = due or step % self.settings.dev_every == 0
                dev_loss = self._dev_loss(dev_sounds, dev_order) if looking else None
                if looking or step % self.settings.log_every == 0:
                    self._write(log, step, values, dev_loss, pace)
                if looking and log is not None:
                    log.figures(step, self._figures(dev_sounds, dev_order))
                if saving:
                    saved = self._save(step, optimizer, dev_loss, log)
                advance(step, self.settings.steps)
                if stop is not None:
                    return Trained(checkpoint=saved, step=step, dev_loss=dev_loss, signal=stop)
        return Trained(checkpoint=saved, step=step, dev_loss=dev_loss)

    # one step

    def _step(
        self,
        step: int,
        batches: Iterator[tuple[int, Sequence[Stretch], Batch]],
        optimizer: torch.optim.Optimizer,
        multiplier: Callable[[int], float],
        asked: Sequence[int],
    ) -> tuple[dict[str, float], int | None]:
        """Take one step; returns its numbers and the signal that any process was sent."""
        self._module.train()
        optimizer.zero_grad(set_to_none=True)
        heard = _StepUtterances()
        totals = torch.zeros(4, dtype=torch.float64, device=self.device)  # loss sum, terms, frames, signal
        logs: dict[str, float] = {}
        for _ in range(self.settings.accumulate):
            number, stretches, batch = next(batches)
            heard.add([self.train[stretch.index].id for stretch in stretches], batch)
            loss = self._backward(number, batch, heard.last)
            if loss.weight:
                totals[0] += (loss.value.detach() * loss.weight).to(torch.float64)
                totals[1] += loss.weight
            totals[2] += batch.lengths.sum()
            logs |= loss.logs
        totals[3] = float(asked[0]) if asked else 0.0
        total, terms, frames, signals = self.processes.sum(totals).tolist()
        heard.refuse_non_finite(total, step)
        if terms == 0:
            what = f"Nothing was scored in step {step + 1}: all its utterances are too short for the objective"
            raise DataError(what, utterance=heard.last[0], do="Raise training.min_frames")
        norm = self._clipped_gradient(terms)
        heard.refuse_non_finite(norm, step)
        rate = self.settings.optimizer.learning_rate * multiplier(step)
        if self.settings.optimizer.name in {"adamw", "adam"}:
            for group in optimizer.param_groups:
                group["lr"] = rate
        optimizer.step()
        numbers = {"loss": total / terms, "learning_rate": rate, "gradient_norm": norm, **logs, "frames": frames}
        stop = None if signals == 0 else int(asked[0] if asked else signal.SIGTERM)
        return numbers, stop

    def _backward(self, number: int, batch: Batch, ids: Sequence[str]) -> Loss:
        """Add the gradient of the *sum* over a batch's terms."""
        with self._memory(batch, ids), drawing_from(derived_seed(self.seed, "dropout", number), self.device):
            loss = self._loss(batch, number, ids)
            if loss.weight:  # with nothing to score there is nothing to learn
                with plugin_faults(self.model.info.name, utterance=ids[0]):
                    torch.autograd.backward(loss.value * loss.weight)
        return loss

    def _clipped_gradient(self, terms: float) -> float:
        """Make the gradient that of the mean over all processes' terms, clip it, and return its norm before."""
        self.processes.sum_gradients(self._module.parameters())
        for parameter in self._module.parameters():
            if parameter.grad is not None:
                parameter.grad.div_(terms)
        return float(nn.utils.clip_grad_norm_(self._module.parameters(), self.settings.clip_norm))

    def _loss(self, batch: Batch, number: int, ids: Sequence[str]) -> Loss:
        generator = torch.Generator(self.device).manual_seed(derived_seed(self.seed, "objective", number))
        with plugin_faults(self.model.info.name, utterance=ids[0]), self._autocast():
            loss: object = self.model.objective.loss(batch, generator)
        if not isinstance(loss, Loss):
            what = f"An objective's `loss` must return a Loss, but returned a {type(loss).__name__}"
            raise PluginError(what, key=self.model.info.name, do="See Objective in repbench.upstream.contract")
        return loss

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16")

    @contextlib.contextmanager
    def _memory(self, batch: Batch, ids: Sequence[str]) -> Iterator[None]:
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            longest = int(batch.lengths.argmax())
            raise EnvironmentFault(
                f"Out of memory with {len(batch.lengths)} utterances of up to {int(batch.lengths.max())} frames",
                utterance=ids[longest],
                do="Lower training.batch_frames or training.crop_frames",
            ) from error

    # what is held out

    def _dev_loss(self, sounds: Sounds, order: BatchOrder) -> float | None:
        """Mean loss over held-out utterances, whole, with masks of a fixed seed; the leading process computes it."""
        if not self.processes.leads or not sounds.lengths:
            return None
        self._module.eval()
        total = terms = 0.0
        numbers, followed = range(order.batches_per_epoch), self._followed()
        with torch.inference_mode():
            for number, batch in enumerate(sounds.batches(order.batch(number) for number in numbers)):
                generator = torch.Generator(self.device).manual_seed(derived_seed(0, "dev", number))
                ids = [followed[stretch.index].id for stretch in order.batch(number)]
                name = self.model.info.name
                with self._memory(batch, ids), plugin_faults(name, utterance=ids[0]), self._autocast():
                    loss = self.model.objective.loss(batch, generator)
                if loss.weight:
                    total += float(loss.value) * loss.weight
                    terms += loss.weight
        return total / terms if terms else None

    def _figures(self, sounds: Sounds, order: BatchOrder) -> Mapping[str, Tensor]:
        if not sounds.lengths:
            return {}
        self._module.eval()
        batch = next(sounds.batches([order.batch(0)]))
        with torch.inference_mode(), plugin_faults(self.model.info.name), self._autocast():
            return self.model.objective.figures(batch)

    def _followed(self) -> list[Utterance]:
        """Held-out utterances of `dev_seconds` together, spread over the whole list."""
        seconds = sum(each.seconds for each in self.dev)
        every = max(1, math.ceil(seconds / self.settings.dev_seconds))
        return list(self.dev[::every])

    # batches

    def _sounds(self, split: str, utterances: Sequence[Utterance]) -> Sounds:
        with self.reporter.stage(f"frames of {split}") as advance:
            return gather(
                utterances,
                self.model.objective,
                rate_hz=self.model.info.sample_rate_hz,
                keep_bytes=self.settings.keep_features_gib * 2**30,
                device=self.device,
                progress=advance,
            )

    def _stages(self, lengths: Sequence[int]) -> list[Stage]:
        settings, stages, first = self.settings, list[Stage](), 0
        parts = [(stage.until, stage.crop_frames, stage.batch_frames) for stage in settings.curriculum]
        for number, (until, crop, budget) in enumerate(parts or [(1.0, None, None)]):
            end = round(until * settings.steps)
            order = BatchOrder(
                lengths,
                crop or settings.crop_frames,
                budget or settings.batch_frames,
                derived_seed(self.seed, "order", number),
            )
            stages.append(Stage(first=first, end=end, order=order))
            first = end
        return stages

    def _batches(
        self, sounds: Sounds, stages: Sequence[Stage], step: int
    ) -> Iterator[tuple[int, Sequence[Stretch], Batch]]:
        """(number, stretches, batch) of this process, from a step on."""
        wanted = list[tuple[int, Sequence[Stretch]]]()

        def stretches() -> Iterator[Sequence[Stretch]]:
            for number, each in self._numbered(stages, step):
                wanted.append((number, each))
                yield each

        for batch in sounds.batches(stretches()):
            number, each = wanted.pop(0)
            yield number, each, batch

    def _numbered(self, stages: Sequence[Stage], step: int) -> Iterator[tuple[int, Sequence[Stretch]]]:
        parts = self.settings.accumulate * self.processes.count
        for stage in stages:
            for each in range(max(step, stage.first), stage.end):
                for part in range(self.settings.accumulate):
                    place = part * self.processes.count + self.processes.rank
                    yield each * parts + place, stage.order.batch((each - stage.first) * parts + place)

    # state

    @property
    def _module(self) -> nn.Module:
        assert isinstance(self.model, nn.Module)
        return self.model

    def _optimizer(self) -> tuple[torch.optim.Optimizer, Callable[[int], float]]:
        settings = self.settings.optimizer
        return build_optimizer(
            settings.name,
            self._module.named_parameters(),
            learning_rate=settings.learning_rate,
            betas=settings.betas,
            epsilon=settings.epsilon,
            weight_decay=settings.weight_decay,
            warmup=settings.warmup,
            total_steps=self.settings.steps,
        )

    def _restore(self, optimizer: torch.optim.Optimizer, multiplier: Callable[[int], float]) -> int:
        """Take up the newest intact checkpoint of the run; returns the steps it has behind it."""
        checkpoint = newest_intact(self.run, lambda line: self.reporter.say(f"warning: {line}"))
        if checkpoint is None:
            if list_checkpoints(self.run):
                self.reporter.say("warning: no checkpoint of the run is intact: it starts again")
            return 0
        weights = read_weights(checkpoint)
        hold_to_keys(self._module, weights, file=checkpoint.path)
        self._module.load_state_dict(weights)
        load_optimizer(optimizer, read_training(checkpoint))
        self._take_up_history(checkpoint, multiplier)
        return checkpoint.step

    def _take_up_history(self, checkpoint: Checkpoint, multiplier: Callable[[int], float]) -> None:
        """Go on with the history of a checkpoint, to which a run of more steps than it was planned for is added."""
        self.history = tuple(checkpoint.fields.get("history", ()))
        planned, steps = checkpoint.fields.get("training", {}).get("steps"), self.settings.steps
        if planned in {None, steps}:
            return
        event = {"event": "more steps", "step": checkpoint.step, "steps_before": planned, "steps": steps}
        self.history = (*self.history, event)
        rate = self.settings.optimizer.learning_rate * multiplier(checkpoint.step)
        self.reporter.say(
            f"note: the run was planned for {planned} steps and goes on from step {checkpoint.step} to {steps}, with "
            f"the schedule of {steps} steps: the learning rate goes on at {rate:.3g}"
        )

    def _save(
        self, step: int, optimizer: torch.optim.Optimizer, dev_loss: float | None, log: TrainingLog | None
    ) -> Checkpoint | None:
        if not self.processes.leads:
            return None
        if log is not None:
            log.flush()
        finite = dev_loss if dev_loss is not None and math.isfinite(dev_loss) else None
        fields = {**self.describe.fields, "dev_loss": finite}
        if self.history:
            fields["history"] = [dict(event) for event in self.history]
        return save_checkpoint(
            self.run,
            step,
            weights=self._module.state_dict(),
            training=optimizer_tensors(optimizer),
            fields=fields,
            texts=self.describe.texts({**fields, "step": step}),
            keep_last=self.settings.keep_last,
        )

    # telling

    def _log(self, step: int) -> contextlib.AbstractContextManager[TrainingLog | None]:
        return TrainingLog(self.run, step) if self.processes.leads else contextlib.nullcontext()

    def _write(
        self, log: TrainingLog | None, step: int, values: Mapping[str, float], dev_loss: float | None, pace: _Pace
    ) -> None:
        if log is None:
            return
        numbers = {**values, **({} if dev_loss is None else {"dev_loss": dev_loss})}
        log.numbers(step, numbers, timed={"frames_per_second": pace.frames_per_second})
        if dev_loss is not None:
            self.reporter.say(
                f"step {step} of {self.settings.steps}: loss {values['loss']:.4f}, dev loss {dev_loss:.4f}, "
                f"{pace.frames_per_second:,.0f} frames/s, {pace.left(step, self.settings.steps)} left"
            )


class _StepUtterances:
    """The utterances of a step, so that a fault can name them."""

    def __init__(self) -> None:
        self._batches: list[tuple[Sequence[str], Batch]] = []

    def add(self, ids: Sequence[str], batch: Batch) -> None:
        self._batches.append((ids, batch))

    @property
    def last(self) -> Sequence[str]:
        return self._batches[-1][0]

    def refuse_non_finite(self, value: float, step: int) -> None:
        """Name those whose own frames are not finite; where all are, all.

        Raises:
            NonFiniteError: `value` is NaN or infinite.
        """
        if math.isfinite(value):
            return
        every = [name for ids, _ in self._batches for name in ids]
        broken = [
            name
            for ids, batch in self._batches
            for name, values in zip(ids, batch.values, strict=True)
            if not bool(torch.isfinite(values).all())
        ]
        named = broken or every
        others = len(named) - _IDS_SHOWN
        shown = ", ".join(named[:_IDS_SHOWN]) + (f" and {others} more" if others > 0 else "")
        raise NonFiniteError(
            f"The loss or its gradient is {value} in step {step + 1}, over {shown}",
            utterance=named[0],
            do="Check these sounds, or lower training.optimizer.learning_rate; the last checkpoint is finite",
        )


class _Pace:
    """How fast it goes, since this process began."""

    def __init__(self, step: int) -> None:
        self._first = step
        self._frames = 0.0
        self._started = time.monotonic()

    def add(self, step: int, frames: float) -> None:
        self._frames += frames
        self._seconds = time.monotonic() - self._started

    @property
    def frames_per_second(self) -> float:
        return self._frames / max(self._seconds, 1e-9)

    def left(self, step: int, steps: int) -> str:
        seconds = round((steps - step) * self._seconds / max(step - self._first, 1))
        minutes, seconds = divmod(seconds, 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def long_enough(
    utterances: Sequence[Utterance], min_frames: int, objective: Objective, rate_hz: int
) -> list[Utterance]:
    """The utterances that have enough frames to learn from."""
    lengths = unit_lengths(utterances, objective, rate_hz)
    return [each for each, length in zip(utterances, lengths, strict=True) if length >= min_frames]


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimiser as tensors named `optimizer.PARAMETER.NAME`; whole numbers become int64 scalars."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{parameter}.{name}": value if isinstance(value, Tensor) else torch.tensor(value)
        for parameter, values in state.items()
        for name, value in values.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Take up what `optimizer_tensors` gave."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        _, parameter, name = key.split(".", 2)
        whole = value.dtype == torch.int64 and value.ndim == 0
        state.setdefault(int(parameter), {})[name] = int(value) if whole else value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
