"""Train a probe on frozen features; let it answer.

A probe standardises its input with the statistics of the training split, mixes the layers if there are several, and
ends in a head. It is trained for a fixed number of steps, scored on dev at fixed points, and the best point is kept
(the earliest of equals).

Axes: L layers, N frames, D width, U utterances, C classes.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repbench.benchmark.features import FeatureTable
from repbench.benchmark.instants import UNLABELLED, instants_s, labels_at, nearest_frames, num_instants
from repbench.benchmark.plan import Question, Questions
from repbench.benchmark.protocol import ProbeSettings
from repbench.downstream.contract import Downstream, FrameDownstream, FramePrediction, Prediction, UtterancePrediction
from repbench.downstream.heads import Head, build_head
from repbench.downstream.metrics.edits import count_edits
from repbench.errors import DataError, IntegrityError, NonFiniteError, plugin_faults
from repbench.files import atomic_write
from repbench.upstream.contract import UpstreamInfo

STD_FLOOR = 1e-3
"""Least standard deviation, as a share of the median one: a nearly constant dimension is not blown up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeShape:
    """What a probe is built from, and saved with.

    Attributes:
        head: Name of the head.
        pools: Whether it answers once an utterance.
        num_layers: L, layers mixed.
        width: D.
        hidden_units: Of the head.
        classes: What can be answered.
        mix: "mean" or "weighted"; of one layer both are that layer.
    """

    head: str
    pools: bool
    num_layers: int
    width: int
    hidden_units: int
    classes: tuple[str, ...]
    mix: str


class Probe(nn.Module):
    """Standardise, mix the layers, answer."""

    mean: Tensor
    std: Tensor

    def __init__(self, shape: ProbeShape, generator: torch.Generator) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("mean", torch.zeros(shape.num_layers, 1, shape.width))
        self.register_buffer("std", torch.ones(shape.num_layers, 1, shape.width))
        self.layer_logits = nn.Parameter(torch.zeros(shape.num_layers), requires_grad=shape.mix == "weighted")
        self.head: Head = build_head(
            shape.head,
            width=shape.width,
            num_classes=len(shape.classes),
            hidden_units=shape.hidden_units,
            pools=shape.pools,
            generator=generator,
        )

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Take (L, 1, D) statistics of the training split."""
        self.mean.copy_(mean)
        self.std.copy_(std)

    def forward(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        """(L, N, D) -> (N, C), or with `counts` (U,) frames of each utterance in turn, (U, C)."""
        scores: Tensor = self.head(self.mixed(frames), counts)
        return scores

    def mixed(self, frames: Tensor) -> Tensor:
        """What the head sees: the weighted sum of the standardised layers, (L, N, D) -> (N, D)."""
        standard = (frames - self.mean) / self.std
        if len(standard) == 1:
            return standard[0]
        return torch.einsum("l,lnd->nd", self.layer_weights(), standard)

    def layer_weights(self) -> Tensor:
        """(L,), adding up to 1."""
        return torch.softmax(self.layer_logits, dim=0)


def statistics_of(table: FeatureTable) -> tuple[Tensor, Tensor]:
    """Mean and floored standard deviation of each layer's dimensions over all frames: two (L, 1, D), from float64."""
    means, deviations = [], []
    for layer in table.frames:
        exact = layer.to(torch.float64)
        mean = exact.mean(dim=0, keepdim=True)
        deviation = (exact - mean).square().mean(dim=0, keepdim=True).sqrt()
        moving = deviation[deviation > 0]
        floor = STD_FLOOR * float(moving.median()) if len(moving) else 1.0
        means.append(mean)
        deviations.append(deviation.clamp_min(floor))
    return torch.stack(means).float(), torch.stack(deviations).float()


@dataclass(frozen=True, slots=True)
class Examples:
    """Questions with their features.

    Attributes:
        table: The features.
        questions: What is asked, each with features in the table.
    """

    table: FeatureTable
    questions: Questions


@dataclass(frozen=True, slots=True)
class Selection:
    """What was chosen on dev, among what."""

    grid: tuple[dict[str, float | int], ...]
    chosen: dict[str, float | int]
    dev_value: float | None


@dataclass(frozen=True, slots=True)
class TrainedProbe:
    """The selected probe and how it was selected."""

    probe: Probe
    selection: Selection


class Examiner:
    """Puts a task's questions to probes on one upstream's frames.

    Args:
        task: The question.
        classes: What can be answered.
        info: Tells where the frames lie in time.
    """

    def __init__(self, task: Downstream, classes: Sequence[str], info: UpstreamInfo) -> None:
        self.task = task
        self.classes = tuple(classes)
        self.info = info
        self._index = {label: number for number, label in enumerate(self.classes)}

    @property
    def asks_frames(self) -> bool:
        """Whether the task is asked at instants."""
        return self.task.info.problem == "frame-classification"

    def frame_classes(self, question: Question, num_frames: int) -> Tensor:
        """(F,) class at each frame's centre; `UNLABELLED` where there is none."""
        assert not isinstance(question.labels, str)
        centres = self.info.first_center_samples + self.info.hop_samples * np.arange(num_frames)
        return torch.from_numpy(labels_at(centres / self.info.sample_rate_hz, question.labels, self._index))

    def utterance_class(self, question: Question) -> int:
        """The class of an utterance."""
        assert isinstance(question.labels, str)
        return self._index[question.labels]

    def predict(self, probe: Probe, examples: Examples) -> list[Prediction]:
        """The probe's answer to every question, each utterance on its own: no batch, order or padding plays a part."""
        places = examples.table.starts()
        probe.eval()
        answers: list[Prediction] = []
        with torch.inference_mode():
            for question in examples.questions:
                start, count = places[question.id]
                frames = examples.table.frames[:, start : start + count]
                scores = probe(frames, torch.tensor([count])) if not self.asks_frames else probe(frames)
                if not bool(torch.isfinite(scores).all()):
                    raise NonFiniteError("The probe's scores hold NaN or infinity", utterance=question.id)
                answers.append(self._answer(question, scores))
        return answers

    def primary(self, predictions: Sequence[Prediction]) -> float:
        """The primary metric.

        Raises:
            DataError: It is undefined on these predictions.
        """
        with plugin_faults(self.task.info.name):
            value = self.task.measure(predictions, self.classes)[self.task.info.primary_metric].value
        if value is None:
            raise DataError(
                f"{self.task.info.primary_metric} is undefined on the {len(predictions)} dev utterances",
                do="Take a larger label fraction or corpus",
            )
        return value

    def better(self, value: float, than: float | None) -> bool:
        """Whether a value of the primary metric beats another; equal does not."""
        if than is None:
            return True
        up = self.task.info.metrics[self.task.info.primary_metric].higher_is_better
        return value > than if up else value < than

    def _answer(self, question: Question, scores: Tensor) -> Prediction:
        utterance = question.utterance
        if not self.asks_frames:
            return UtterancePrediction(
                id=utterance.id,
                speaker=utterance.speaker,
                group=utterance.group,
                reference=self.utterance_class(question),
                scores=tuple(scores[0].tolist()),
            )
        return self._frame_answer(question, scores.argmax(dim=-1).numpy())

    def _frame_answer(self, question: Question, path: np.ndarray[Any, Any]) -> FramePrediction:
        assert isinstance(self.task, FrameDownstream)
        assert not isinstance(question.labels, str)
        utterance = question.utterance
        count = num_instants(utterance.num_samples, utterance.sample_rate_hz)
        reference = labels_at(instants_s(count), question.labels, self._index)
        nearest = nearest_frames(
            count,
            len(path),
            sample_rate_hz=self.info.sample_rate_hz,
            hop=self.info.hop_samples,
            first_center=self.info.first_center_samples,
        )
        asked, estimated = reference != UNLABELLED, path[nearest]
        both = np.stack([reference, estimated], axis=1)
        pairs, counts = np.unique(both[asked], axis=0, return_counts=True)
        true_events, found_events = self._events(reference, asked), self._events(estimated, asked)
        return FramePrediction(
            id=utterance.id,
            speaker=utterance.speaker,
            group=utterance.group,
            confusion=tuple((int(r), int(e), int(n)) for (r, e), n in zip(pairs, counts, strict=True)),
            edits=count_edits(true_events, found_events),
            reference_length=len(true_events),
        )

    def _events(self, path: np.ndarray[Any, Any], asked: np.ndarray[Any, Any]) -> list[int]:
        """The events of a path; a gap in the labels parts them."""
        assert isinstance(self.task, FrameDownstream)
        stretches = np.split(np.arange(len(path)), np.flatnonzero(np.diff(asked)) + 1)
        events: list[int] = []
        with plugin_faults(self.task.info.name):
            for stretch in stretches:
                if len(stretch) and asked[stretch[0]]:
                    events += self.task.collapse(path[stretch].tolist(), self.classes)
        return events


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
    """Train one probe and keep the point that is best on dev.

    Args:
        examiner: Puts the questions.
        shape: Of the probe.
        train: Learns.
        dev: Selects.
        settings: The budget.
        seed: Of the initial weights and the order of the batches.
        statistics: (L, 1, D) mean and deviation of the whole training split, labelled or not.
        progress: Told of the steps done.

    Raises:
        NonFiniteError: The loss is NaN or infinite; names the step.
    """
    generator = torch.Generator().manual_seed(seed)
    probe = Probe(shape, generator)
    probe.set_statistics(*statistics)
    parameters = [each for each in probe.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    batches = _batches(examiner, train, settings, generator)
    points = selection_steps(settings.steps, settings.selection_points)
    best_value: float | None = None
    best_step, best_state = points[0], copy.deepcopy(probe.state_dict())
    grid: list[dict[str, float | int]] = []
    for step in range(1, settings.steps + 1):
        probe.train()
        frames, counts, classes = next(batches)
        loss = F.cross_entropy(probe(frames, counts), classes)
        if not bool(torch.isfinite(loss)):
            raise NonFiniteError(
                f"The probe's loss is {loss.item()} at step {step}",
                key="probe.learning_rate",
                do="Take a smaller learning rate",
            )
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        if step in points:
            value = examiner.primary(examiner.predict(probe, dev))
            grid.append({"learning_rate": settings.learning_rate, "step": step, "dev_value": value})
            if examiner.better(value, best_value):
                best_value, best_step, best_state = value, step, copy.deepcopy(probe.state_dict())
        if progress is not None:
            progress(step, settings.steps)
    probe.load_state_dict(best_state)
    chosen: dict[str, float | int] = {"learning_rate": settings.learning_rate, "step": best_step}
    return TrainedProbe(probe.eval(), Selection(tuple(grid), chosen, best_value))


def selection_steps(steps: int, points: int) -> tuple[int, ...]:
    """The steps after which dev is scored: `points` of them, evenly spread, the last among them."""
    return tuple(sorted({max(1, round(steps * (point + 1) / points)) for point in range(points)}))


Batch = tuple[Tensor, Tensor | None, Tensor]


def _batches(
    examiner: Examiner, train: Examples, settings: ProbeSettings, generator: torch.Generator
) -> Iterator[Batch]:
    if examiner.asks_frames:
        return _frame_batches(examiner, train, settings.batch_frames, generator)
    return _utterance_batches(examiner, train, settings.batch_utterances, generator)


def _frame_batches(examiner: Examiner, train: Examples, size: int, generator: torch.Generator) -> Iterator[Batch]:
    """Endless batches of labelled frames: (L, N, D), None, (N,)."""
    places = train.table.starts()
    rows, classes = [], []
    for question in train.questions:
        start, count = places[question.id]
        labels = examiner.frame_classes(question, count)
        labelled = (labels != UNLABELLED).nonzero().flatten()
        rows.append(start + labelled)
        classes.append(labels[labelled])
    all_rows, all_classes = torch.cat(rows), torch.cat(classes)
    if not len(all_rows):
        raise DataError(
            f"No frame of the {len(train.questions)} training utterances is labelled",
            do="Take a larger label fraction or corpus",
        )
    for chosen in _endless_order(len(all_rows), size, generator):
        yield train.table.frames[:, all_rows[chosen]], None, all_classes[chosen]


def _utterance_batches(examiner: Examiner, train: Examples, size: int, generator: torch.Generator) -> Iterator[Batch]:
    """Endless batches of whole utterances: (L, N, D), (U,) frames of each, (U,) classes."""
    places = train.table.starts()
    classes = torch.tensor([examiner.utterance_class(question) for question in train.questions])
    for chosen in _endless_order(len(classes), size, generator):
        spans = [places[train.questions[index].id] for index in chosen.tolist()]
        frames = torch.cat([train.table.frames[:, start : start + count] for start, count in spans], dim=1)
        yield frames, torch.tensor([count for _, count in spans]), classes[chosen]


def _endless_order(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices in batches of `size` (or `count`, if smaller), each index once before any comes again."""
    size = min(size, count)
    order = torch.empty(0, dtype=torch.int64)
    while True:
        while len(order) < size:
            order = torch.cat([order, torch.randperm(count, generator=generator)])
        yield order[:size]
        order = order[size:]


def save_probe(path: Path, probe: Probe, facts: dict[str, Any]) -> None:
    """Write the probe as safetensors; its shape and `facts` (task, upstream, layer) stand in the metadata."""
    from safetensors.torch import save

    shape = {name: getattr(probe.shape, name) for name in ProbeShape.__dataclass_fields__}
    metadata = {"format": "repbench.probe/1", "shape": json.dumps(shape), "facts": json.dumps(facts)}
    tensors = {name: tensor.contiguous() for name, tensor in probe.state_dict().items()}
    with atomic_write(path) as stream:
        stream.write(save(tensors, metadata=metadata))


def load_probe(path: Path) -> tuple[Probe, dict[str, Any]]:
    """Read a probe and the facts it was saved with.

    Raises:
        IntegrityError: The file is not a whole probe.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a mapping
        shape = json.loads(metadata["shape"])
        facts: dict[str, Any] = json.loads(metadata["facts"])
        probe = Probe(ProbeShape(**{**shape, "classes": tuple(shape["classes"])}), torch.Generator().manual_seed(0))
        probe.load_state_dict(tensors, strict=True)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise IntegrityError(
            f"This is not a whole probe: {error}", file=path, do="Give the folder of a frozen run"
        ) from error
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise IntegrityError("The probe's weights hold NaN or infinity", file=path, do="Run it again")
    return probe.eval(), facts
