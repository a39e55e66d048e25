"""Train a whole network, upstream and head, on labels.

The batches and the dropout of a step are functions of the seed and the number of the step alone, so a training that was
stopped goes on bit for bit from weights, optimiser and step. The batch of a step is the same however many processes
share it, and the gradient is that of the mean over all its labels: several processes do what one does.

Axes: L layers, B batch, T samples, N frames, D width, U utterances, C classes.
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from repbench.benchmark.data.dataset import LabelledUtterances
from repbench.benchmark.features.extraction import (
    FeatureTable,
    batch_samples,
    extract,
    length_batches,
    num_frames,
    outline,
    run_batches,
)
from repbench.benchmark.finetuning.network import Network
from repbench.benchmark.probing.prediction import LabelledFeatures, Predictor
from repbench.benchmark.probing.probe import statistics_of
from repbench.benchmark.probing.training import Selection, selection_steps
from repbench.benchmark.protocol import ExtractionSettings, FinetuneSettings
from repbench.corpora.read import read_utterance, samples_at
from repbench.downstream.contract import LabelledUtterance, Prediction
from repbench.downstream.heads import restart_dropout
from repbench.errors import (
    DataError,
    EnvironmentFault,
    NonFiniteError,
    Terminated,
    is_out_of_memory,
    plugin_faults,
)
from repbench.progress import Reporter, Silence
from repbench.training.batching import BatchOrder, derived_seed, padded
from repbench.training.distributed import Processes
from repbench.training.optimizers import warmup_linear_from_first
from repbench.training.rng_and_signals import drawing_from, heeding_signals
from repbench.upstream.checkpoints.foreign import hold_to_keys
from repbench.upstream.checkpoints.native import (
    Checkpoint,
    list_checkpoints,
    newest_intact,
    read_training,
    read_weights,
    remove_leftovers,
    save_checkpoint,
)
from repbench.upstream.contract import Upstream
from repbench.upstream.pretraining.trainer import load_optimizer, optimizer_tensors

_BEST = "best."
_OPTIMIZER = "optimizer."
_IDS_SHOWN = 8
_KEPT = 2
"""States on the disk: the last one, and one to fall back to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finetuned:
    """How a fine-tuning ended.

    Attributes:
        selection: What was chosen on dev, among what.
        seconds: That it took, in all processes that worked on it one after the other.
        best: The weights at the chosen point, on the CPU; empty on processes that do not lead.
    """

    selection: Selection
    seconds: float
    best: dict[str, Tensor]


@dataclass(slots=True)
class _FinetuneState:
    """How far a training has come.

    Attributes:
        step: Steps taken.
        grid: Step and value on dev of each point that has a value.
        stale: Points since the best one.
        seconds: That training took before this process began.
        best: Weights of the best point.
        ended: Whether nothing is left to do.
    """

    step: int = 0
    grid: list[dict[str, float | int]] = field(default_factory=list)
    stale: int = 0
    seconds: float = 0.0
    best: dict[str, Tensor] = field(default_factory=dict)
    ended: bool = False


@dataclass(slots=True, kw_only=True)
class Finetuner:
    """Fine-tunes a network.

    Attributes:
        network: With its initial weights, on `device`.
        examiner: Puts the questions.
        settings: How.
        extraction: How dev is scored.
        seed: Of everything that is drawn.
        heard: Sounds of which the initial features standardise the head's input.
        train: Learns.
        dev: Selects.
        folder: Of the state, if it is to go on after an interruption; this process holds its lock.
        device: Where it is computed.
        standardise: Whether the head's input is standardised.
        title: What the reporter is told.
        processes: That train together.
        reporter: Looks on.
    """

    network: Network
    predictor: Predictor
    settings: FinetuneSettings
    extraction: ExtractionSettings
    seed: int
    heard: LabelledUtterances
    train: LabelledUtterances
    dev: LabelledUtterances
    folder: Path
    device: torch.device
    standardise: bool = True
    title: str = "fine-tuning"
    processes: Processes = field(default_factory=Processes)
    reporter: Reporter = field(default_factory=Silence)

    def fit(self) -> Finetuned:
        """Train from the newest intact state in the folder, or from the start.

        A signal ends it after the current step, once its state is saved, and is then passed on to whoever heeded it
        before: the command line ends with 143 or 130.

        Raises:
            NonFiniteError: A loss or gradient is NaN or infinite; the weights of the last state are finite.
            EnvironmentFault: The disk or the memory is full.
        """
        examples = self._teachable()
        order = BatchOrder(
            [samples_at(example.utterance, self._rate_hz) for example in examples],
            None,
            math.ceil(self.settings.batch_seconds * self._rate_hz),
            derived_seed(self.seed, "order"),
        )
        self._unfreeze()
        optimizer = self._optimizer()
        if self.processes.leads:
            remove_leftovers(self.folder)
        self.processes.wait()
        course = self._restored(optimizer)
        stop = self._train(course, order, examples, optimizer)
        if stop is not None:
            self.reporter.say(f"note: stopped after step {course.step}; the same command goes on from {self.folder}")
            signal.raise_signal(stop)
            raise Terminated(128 + stop)
        return Finetuned(selection=self._selection(course), seconds=course.seconds, best=course.best)

    def _train(
        self, course: _FinetuneState, order: BatchOrder, examples: LabelledUtterances, optimizer: torch.optim.Optimizer
    ) -> int | None:
        """Take the steps that are left; returns the signal that ended them early, if one did."""
        points = selection_steps(self.settings.steps, self.settings.selection_points)
        before, started = course.seconds, time.monotonic()
        with heeding_signals() as asked, self.reporter.stage(self.title) as advance:
            while not course.ended:
                batch = [examples[stretch.index] for stretch in order.batch(course.step)]
                loss, stop = self._step(course.step, batch, optimizer, asked)
                course.step += 1
                if course.step in points:
                    self._select(course, loss)
                course.seconds = before + time.monotonic() - started
                if course.step in points or stop is not None:
                    self._save(course, optimizer)
                advance(course.step, self.settings.steps)
                if stop is not None:
                    return stop
        return None

    # one step

    def _step(
        self, step: int, batch: Sequence[LabelledUtterance], optimizer: torch.optim.Optimizer, asked: Sequence[int]
    ) -> tuple[float, int | None]:
        """Take one step; returns its loss and the signal that any process was sent."""
        self.network.train()
        optimizer.zero_grad(set_to_none=True)
        own = batch[self.processes.rank :: self.processes.count]
        # A process without a share computes for nothing, so that it has gradients to be summed into.
        share, weight = (own, 1.0) if own else (batch[:1], 0.0)
        restart_dropout(self.network.probe, derived_seed(self.seed, "head", step, self.processes.rank))
        totals = torch.zeros(3, dtype=torch.float64, device=self.device)  # loss sum, terms, signal
        with (
            self._memory(share),
            drawing_from(derived_seed(self.seed, "dropout", step, self.processes.rank), self.device),
        ):
            with plugin_faults(self._upstream.info.name, utterance=share[0].id):
                scores, counts = self.network(*self._sounds(share))
            cost, terms = cost_of(self.predictor, scores, share, counts.tolist())
            with plugin_faults(self._upstream.info.name, utterance=share[0].id):
                torch.autograd.backward(cost * weight)
        totals[0] = cost.detach().to(torch.float64) * weight
        totals[1] = terms * weight
        totals[2] = float(asked[0]) if asked else 0.0
        total, terms_of_all, signals = self.processes.sum(totals).tolist()
        parts = torch.split(scores.detach(), 1 if self.network.probe.shape.pools else counts.tolist())
        _refuse_non_finite(total, step, share, parts)
        self.processes.sum_gradients(self.network.parameters())
        norm = self._clipped_gradient(terms_of_all)
        _refuse_non_finite(norm, step, share, parts)
        multiplier = warmup_linear_from_first(step, self.settings.steps, self.settings.warmup)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * multiplier
        optimizer.step()
        stop = None if signals == 0 else int(asked[0] if asked else signal.SIGTERM)
        return total / terms_of_all, stop

    def _sounds(self, examples: Sequence[LabelledUtterance]) -> tuple[Tensor, Tensor]:
        sounds = [read_utterance(example.utterance, self._rate_hz, whole=True) for example in examples]
        waveforms, lengths = padded(sounds)
        return waveforms.to(self.device), lengths.to(self.device)

    def _clipped_gradient(self, terms: float) -> float:
        """Make the gradient of the sum that of the mean, clip it, and return its norm before."""
        for parameter in self.network.parameters():
            if parameter.grad is not None:
                parameter.grad.div_(terms)
        return float(nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip_norm))

    @contextlib.contextmanager
    def _memory(self, examples: Sequence[LabelledUtterance]) -> Iterator[None]:
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            longest = max(examples, key=lambda example: example.utterance.seconds)
            raise EnvironmentFault(
                f"Out of memory with {len(examples)} utterances of up to {longest.utterance.seconds:.1f} s",
                utterance=longest.id,
                do="Lower finetune.batch_seconds, or take another device",
            ) from error

    # selection

    def _select(self, course: _FinetuneState, loss: float) -> None:
        """Score dev, keep the weights if they are the best so far, and see whether it is time to end."""
        if self.processes.leads:
            value = self._dev_value()
            best = max if self._higher_is_better else min
            before = best((point["dev_value"] for point in course.grid), default=None)
            if value is not None:
                course.grid.append({"step": course.step, "dev_value": value})
            if value is not None and self.predictor.better(value, before):
                course.best = {name: each.detach().cpu().clone() for name, each in self.network.state_dict().items()}
                course.stale = 0
            else:
                course.stale += 1
            said = "not finite" if value is None else f"{value:.4f}"
            self.reporter.say(
                f"step {course.step} of {self.settings.steps}: loss {loss:.4f}, {self._measure} on dev {said}"
            )
        stale = torch.tensor(float(course.stale) if self.processes.leads else 0.0, device=self.device)
        course.stale = int(self.processes.sum(stale))
        course.ended = self._has_ended(course)

    def _dev_value(self) -> float | None:
        table = scores_of(self.network, self.dev, self.extraction, device=self.device)
        dev_set = self.predictor.dev_set(LabelledFeatures(table, self.dev), table.frames.device)
        (value,) = self.predictor.primaries(lambda scores, counts: scores, dev_set)
        return value

    def _selection(self, course: _FinetuneState) -> Selection:
        if not course.grid:
            if self.processes.leads:
                raise NonFiniteError(
                    "The scores on dev are NaN or infinite at every point",
                    key="finetune.learning_rate",
                    do="Take a smaller learning rate",
                )
            return Selection((), {}, None)
        best = max if self._higher_is_better else min  # both take the first of equals
        chosen = best(course.grid, key=lambda point: point["dev_value"])
        return Selection(tuple(course.grid), {"step": chosen["step"]}, chosen["dev_value"])

    @property
    def _measure(self) -> str:
        return self.predictor.task.info.primary_metric

    @property
    def _higher_is_better(self) -> bool:
        return self.predictor.task.info.metrics[self._measure].higher_is_better

    def _has_ended(self, course: _FinetuneState) -> bool:
        return course.step >= self.settings.steps or course.stale >= self.settings.patience

    # state

    @property
    def _upstream(self) -> Upstream:
        return upstream_of(self.network)

    @property
    def _rate_hz(self) -> int:
        return self._upstream.info.sample_rate_hz

    def _teachable(self) -> LabelledUtterances:
        """The questions that have an answer where the upstream has frames."""
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

    def _unfreeze(self) -> None:
        """Let gradients into all of the upstream; what of the probe learns is the probe's to say."""
        for parameter in self.network.upstream.parameters():
            parameter.requires_grad_(parameter.is_floating_point())

    def _optimizer(self) -> torch.optim.Optimizer:
        settings = self.settings
        groups = [
            {"params": [each for each in part.parameters() if each.requires_grad], "lr": rate, "peak": rate}
            for part, rate in (
                (self.network.upstream, settings.learning_rate),
                (self.network.probe, settings.head_learning_rate),
            )
        ]
        return torch.optim.AdamW(groups, weight_decay=settings.weight_decay, fused=True)

    def _restored(self, optimizer: torch.optim.Optimizer) -> _FinetuneState:
        """Take up the newest intact state of the folder, or begin: standardise what the head reads."""
        checkpoint = newest_intact(self.folder, lambda line: self.reporter.say(f"warning: {line}"))
        if checkpoint is None:
            if list_checkpoints(self.folder):
                self.reporter.say("warning: no state of the fine-tuning is intact: it starts again")
            if self.standardise:
                self._standardise()
            return _FinetuneState()
        weights = read_weights(checkpoint)
        hold_to_keys(self.network, weights, file=checkpoint.path)
        self.network.load_state_dict(weights)
        training = read_training(checkpoint)
        load_optimizer(optimizer, {name: each for name, each in training.items() if name.startswith(_OPTIMIZER)})
        course = _FinetuneState(
            step=checkpoint.step,
            grid=list(checkpoint.fields["grid"]),
            stale=checkpoint.fields["stale"],
            seconds=checkpoint.fields["seconds"],
            best={name.removeprefix(_BEST): each for name, each in training.items() if name.startswith(_BEST)},
        )
        course.ended = self._has_ended(course)
        self.reporter.say(f"note: going on after step {course.step}, from {checkpoint.path}")
        return course

    def _standardise(self) -> None:
        """Give the probe the statistics of the initial features of some sounds, spread over all."""
        every = math.ceil(len(self.heard) / self.settings.statistics_utterances)
        self.network.eval()
        table = extract(
            self._upstream,
            [example.utterance for example in self.heard[::every]],
            self.network.layers,
            batch_seconds=self.extraction.batch_seconds,
            device=self.device,
        )
        self.network.probe.set_statistics(*statistics_of(table))

    def _save(self, course: _FinetuneState, optimizer: torch.optim.Optimizer) -> Checkpoint | None:
        if not self.processes.leads:
            return None
        return save_checkpoint(
            self.folder,
            course.step,
            weights=self.network.state_dict(),
            training=optimizer_tensors(optimizer) | {f"{_BEST}{name}": each for name, each in course.best.items()},
            fields={
                "upstream": self._upstream.info.name,
                "fine-tuning": self.title,
                "grid": course.grid,
                "stale": course.stale,
                "seconds": course.seconds,
            },
            keep_last=_KEPT,
        )


def cost_of(
    predictor: Predictor, scores: Tensor, examples: Sequence[LabelledUtterance], counts: Sequence[int]
) -> tuple[Tensor, int]:
    """The loss of a batch as a sum, and its number of terms.

    Args:
        predictor: Gives the targets.
        scores: (N, C) of all frames of the batch, (N, C + 1) with a blank, or (U, C) where the head pools.
        examples: U of them.
        counts: Frames of each.
    """
    return predictor.total_loss(scores, examples, counts)


def scores_of(
    network: Network, examples: LabelledUtterances, extraction: ExtractionSettings, *, device: torch.device
) -> FeatureTable:
    """What a network answers, as a table of scores: (1, N, C) of all frames, or (1, U, C).

    Args:
        network: On `device`; in eval mode after.
        questions: In the order of the table.
        extraction: How much goes through the upstream at once, and what its features are rounded to.
        device: Where it is computed.

    Raises:
        EnvironmentFault: The memory does not suffice for a single utterance.
    """
    network.eval()
    upstream = upstream_of(network)
    splits = outline(upstream, [example.utterance for example in examples])
    batches = length_batches(splits.lengths, batch_samples(upstream, extraction.batch_seconds))
    scores: dict[int, Tensor] = {}
    results = run_batches(upstream, splits, network.layers, batches, device=device, dtype=extraction.dtype)
    with torch.inference_mode():
        for batch, features in results:
            for index, frames in zip(batch, features, strict=True):
                counts = torch.tensor([splits.counts[index]], device=device)
                scores[index] = network.scores(frames.float().to(device), counts).cpu()
    rows = [scores[index] for index in range(len(examples))]
    counts_of_rows = tuple(len(each) for each in rows)
    return FeatureTable(torch.cat(rows)[None], counts_of_rows, tuple(example.id for example in examples))


def predictions_of(
    network: Network,
    predictor: Predictor,
    examples: LabelledUtterances,
    extraction: ExtractionSettings,
    *,
    device: torch.device,
) -> list[Prediction]:
    """The network's answer to every question; arguments as `scores_of`.

    Raises:
        NonFiniteError: A score is NaN or infinite; names the utterance.
    """
    table = scores_of(network, examples, extraction, device=device)
    places = table.starts()
    answers = []
    for example in examples:
        start, count = places[example.id]
        scores = table.frames[0, start : start + count]
        if not bool(torch.isfinite(scores).all()):
            raise NonFiniteError("The network's scores hold NaN or infinity", utterance=example.id)
        answers.append(predictor.prediction(example, scores))
    return answers


def upstream_of(network: Network) -> Upstream:
    """The network's upstream, as one."""
    upstream: object = network.upstream
    assert isinstance(upstream, Upstream)
    return upstream


def _refuse_non_finite(
    value: float, step: int, examples: Sequence[LabelledUtterance], scores: Sequence[Tensor]
) -> None:
    """Stop before the weights change; name the utterances whose own scores are not finite or, where all are, all.

    Raises:
        NonFiniteError: `value` is NaN or infinite.
    """
    if math.isfinite(value):
        return
    every = [example.id for example in examples]
    pairs = zip(every, scores, strict=True)
    ids = [id_ for id_, part in pairs if not bool(torch.isfinite(part).all())] or every
    others = len(ids) - _IDS_SHOWN
    shown = ", ".join(ids[:_IDS_SHOWN]) + (f" and {others} more" if others > 0 else "")
    raise NonFiniteError(
        f"The loss or its gradient is {value} in step {step + 1}, over {shown}",
        utterance=ids[0],
        do="Check these sounds, or lower finetune.learning_rate",
    )
