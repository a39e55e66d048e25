"""Puts a task's questions to probes, and tells what they answer.

Axes: L layers, N frames, D width, U utterances, C classes, R probes side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from repbench.benchmark.data.dataset import LabelledUtterance, LabelledUtterances
from repbench.benchmark.data.scoring_grid import (
    UNLABELLED,
    Integers,
    instants_s,
    labels_at,
    nearest_frames,
    num_instants,
)
from repbench.benchmark.features.extraction import FeatureTable
from repbench.benchmark.probing.probe import Probe
from repbench.benchmark.probing.sequences import best_path
from repbench.downstream.contract import (
    Downstream,
    FrameDownstream,
    FramePrediction,
    MeasuredByConfusion,
    Prediction,
    SequencePrediction,
    UtterancePrediction,
    label_names,
)
from repbench.downstream.metrics.edits import count_edits
from repbench.errors import DataError, NonFiniteError, plugin_faults
from repbench.upstream.contract import UpstreamInfo

Scorer = Callable[[Tensor, Tensor], Tensor]
"""From the frames (L, N, D) of some utterances, with the number (U,) of each, to scores (R, N, C) or (R, U, C)."""

BLOCK_FRAMES = 4_096
"""Frames that are scored at once where many utterances select: as many as a processor's cache may hold."""


@dataclass(frozen=True, slots=True)
class LabelledFeatures:
    """Questions with their features.

    Attributes:
        table: The features.
        questions: What is asked, each with features in the table.
    """

    table: FeatureTable
    examples: LabelledUtterances


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringBlock:
    """Questions whose frames are scored at once.

    Attributes:
        questions: U of them.
        spans: First frame in the table and number of frames of each.
        counts: (U,) the numbers of frames.
        reference: (M,) what is right at each instant, or for each utterance; empty where sequences are asked.
        places: (M,) which frame of the block, or which utterance, answers there; likewise.
    """

    examples: LabelledUtterances
    spans: tuple[tuple[int, int], ...]
    counts: Tensor
    reference: Tensor
    places: Tensor


@dataclass(frozen=True, slots=True)
class DevSet:
    """Features and the questions put to them, in blocks, and the device on which they are answered."""

    table: FeatureTable
    blocks: tuple[ScoringBlock, ...]
    device: torch.device

    def frames(self, block: ScoringBlock) -> Tensor:
        """(L, N, D), the frames of a block: those of the table itself where they lie side by side."""
        (first, _), last = block.spans[0], sum(block.spans[-1])
        follows = all(sum(one) == other for one, (other, _) in pairwise(block.spans))
        if follows:
            return self.table.frames[:, first:last].to(self.device)
        spans = [self.table.frames[:, start : start + count] for start, count in block.spans]
        return torch.cat(spans, dim=1).to(self.device)


class Predictor:
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
        self._truth: _Targets | None = None

    @property
    def asks_frames(self) -> bool:
        """Whether the task is asked at instants."""
        return self.task.info.problem == "frame-classification"

    @property
    def asks_sequences(self) -> bool:
        """Whether the task asks for classes in order."""
        return self.task.info.problem == "sequence"

    @property
    def pools(self) -> bool:
        """Whether a head answers once an utterance rather than once a frame."""
        return self.task.info.problem == "utterance-classification"

    def classes_in(self, example: LabelledUtterance) -> Tensor:
        """(S,) the classes of a sequence, or (1,) that of an utterance."""
        return torch.tensor([self._index[name] for name in label_names(example.labels)])

    def frame_classes(self, example: LabelledUtterance, num_frames: int) -> Tensor:
        """(F,) class at each frame's centre; `UNLABELLED` where there is none."""
        centres = self.info.first_center_samples + self.info.hop_samples * np.arange(num_frames)
        return torch.from_numpy(labels_at(centres / self.info.sample_rate_hz, example.segments, self._index))

    def utterance_class(self, example: LabelledUtterance) -> int:
        """The class of an utterance."""
        assert isinstance(example.labels, str)
        return self._index[example.labels]

    def predict(self, probe: Probe, labelled: LabelledFeatures) -> list[Prediction]:
        """The probe's answer to every question, each utterance on its own: no batch, order or padding plays a part."""
        (answers,) = self.predict_each([probe], labelled)
        return answers

    def predict_each(self, probes: Sequence[Probe], labelled: LabelledFeatures) -> list[list[Prediction]]:
        """The answers of several probes that standardise alike: each as `predict` gives them."""
        places = labelled.table.starts()
        first = probes[0]
        device = first.mean.device
        for probe in probes:
            assert torch.equal(probe.mean, first.mean)
            assert torch.equal(probe.std, first.std)
            probe.eval()
        answers: list[list[Prediction]] = [[] for _ in probes]
        with torch.inference_mode():
            for example in labelled.examples:
                start, count = places[example.id]
                standard = first.standardised(labelled.table.frames[:, start : start + count].to(device))
                counts = torch.tensor([count], device=device)
                for probe, own in zip(probes, answers, strict=True):
                    scores = probe.scores(standard, counts).cpu()
                    if not bool(torch.isfinite(scores).all()):
                        raise NonFiniteError("The probe's scores hold NaN or infinity", utterance=example.id)
                    own.append(self.answer(example, scores))
        return answers

    def dev_set(self, labelled: LabelledFeatures, device: torch.device) -> DevSet:
        """What is asked of probes on a device again and again while they are selected, laid out once."""
        places = labelled.table.starts()
        blocks: list[ScoringBlock] = []
        examples: list[LabelledUtterance] = []
        size = 0
        for example in (*labelled.examples, None):
            count = 0 if example is None else places[example.id][1]
            if examples and (example is None or size + count > BLOCK_FRAMES):
                blocks.append(self._block(tuple(examples), [places[each.id] for each in examples], device))
                examples, size = [], 0
            if example is not None:
                examples.append(example)
                size += count
        return DevSet(labelled.table, tuple(blocks), device)

    def primaries(self, scores_of: Scorer, dev_set: DevSet) -> list[float | None]:
        """The primary metric of several probes side by side, as it selects.

        Args:
            scores_of: The probes' scores.
            exam: What is asked of them.

        Returns:
            One value for each probe; None where its scores are NaN or infinite.

        Raises:
            DataError: It is undefined on these predictions.
        """
        quick = isinstance(self.task, MeasuredByConfusion) and not self.asks_sequences
        gathered, finite = [], []
        with torch.inference_mode():
            for block in dev_set.blocks:
                scores = scores_of(dev_set.frames(block), block.counts)
                finite.append(torch.isfinite(scores).flatten(1).all(dim=1))
                gathered.append(self._confusions(block, scores) if quick else self._answers(block, scores))
        num_utterances = sum(len(block.examples) for block in dev_set.blocks)
        known = torch.stack(finite).all(dim=0).tolist()
        return [
            self._defined(self._value(parts), num_utterances) if known[number] else None
            for number, parts in enumerate(zip(*gathered, strict=True))
        ]

    def _confusions(self, block: ScoringBlock, scores: Tensor) -> list[Any]:
        """Of each probe the counts (C, C), reference by estimated class."""
        num_classes = len(self.classes)
        cells = block.reference * num_classes + scores.argmax(dim=-1).index_select(1, block.places)  # (R, M)
        counts = (torch.bincount(row, minlength=num_classes**2) for row in cells)
        return [row.view(num_classes, num_classes).cpu().numpy() for row in counts]

    def _answers(self, block: ScoringBlock, scores: Tensor) -> list[Any]:
        """Of each probe the predictions."""
        sizes = [1] * len(block.examples) if self.pools else block.counts.tolist()
        parts = torch.split(scores.cpu(), sizes, dim=1)
        return [
            [self.answer(example, part[row]) for example, part in zip(block.examples, parts, strict=True)]
            for row in range(len(scores))
        ]

    def _value(self, parts: Sequence[Any]) -> float | None:
        """The primary metric of one probe from what was gathered of each block."""
        with plugin_faults(self.task.info.name):
            if isinstance(self.task, MeasuredByConfusion) and not self.asks_sequences:
                return self.task.primary_of(sum(parts))
            answers = [answer for part in parts for answer in part]
            return self.task.measure(answers, self.classes)[self.task.info.primary_metric].value

    def _block(
        self, examples: LabelledUtterances, spans: Sequence[tuple[int, int]], device: torch.device
    ) -> ScoringBlock:
        references, places, first = [], [], 0
        for example, (_, num_frames) in zip(examples, spans, strict=True):
            if self.asks_frames:
                reference, nearest = self._instants(example, num_frames)
                asked = reference != UNLABELLED
                references.append(reference[asked])
                places.append(first + nearest[asked])
                first += num_frames
            elif self.asks_sequences:
                references.append(np.empty(0, dtype=np.int64))
                places.append(np.empty(0, dtype=np.int64))
            else:
                references.append(np.array([self.utterance_class(example)]))
                places.append(np.array([len(places)]))
        return ScoringBlock(
            examples=examples,
            spans=tuple(spans),
            counts=torch.tensor([count for _, count in spans], device=device),
            reference=torch.from_numpy(np.concatenate(references)).to(device),
            places=torch.from_numpy(np.concatenate(places)).to(device),
        )

    def _defined(self, value: float | None, count: int) -> float:
        if value is None:
            raise DataError(
                f"{self.task.info.primary_metric} is undefined on the {count} dev utterances",
                do="Take a larger label fraction or corpus",
            )
        return value

    def better(self, value: float, than: float | None) -> bool:
        """Whether a value of the primary metric beats another; equal does not."""
        if than is None:
            return True
        up = self.task.info.metrics[self.task.info.primary_metric].higher_is_better
        return value > than if up else value < than

    def answer(self, example: LabelledUtterance, scores: Tensor) -> Prediction:
        """What scores of an utterance's frames, (N, C) or with the blank (N, C + 1), or (1, C) of itself, answer."""
        utterance = example.utterance
        if self.asks_sequences:
            return self._sequence_answer(example, best_path(scores))
        if self.pools:
            return UtterancePrediction(
                id=utterance.id,
                speaker=utterance.speaker,
                group=utterance.group,
                reference=self.utterance_class(example),
                scores=tuple(scores[0].tolist()),
            )
        return self._frame_answer(example, scores.argmax(dim=-1).numpy())

    def _sequence_answer(self, example: LabelledUtterance, hypothesis: tuple[int, ...]) -> SequencePrediction:
        utterance = example.utterance
        reference = tuple(self.classes_in(example).tolist())
        return SequencePrediction(
            id=utterance.id,
            speaker=utterance.speaker,
            group=utterance.group,
            reference=reference,
            hypothesis=hypothesis,
            edits=count_edits(reference, hypothesis),
        )

    def _instants(self, example: LabelledUtterance, num_frames: int) -> tuple[Integers, Integers]:
        """The class at each instant, `UNLABELLED` where there is none, and the frame that answers there."""
        utterance = example.utterance
        count = num_instants(utterance.num_samples, utterance.sample_rate_hz)
        nearest = nearest_frames(
            count,
            num_frames,
            sample_rate_hz=self.info.sample_rate_hz,
            hop=self.info.hop_samples,
            first_center=self.info.first_center_samples,
        )
        return labels_at(instants_s(count), example.segments, self._index), nearest

    def _frame_answer(self, example: LabelledUtterance, path: np.ndarray[Any, Any]) -> FramePrediction:
        utterance = example.utterance
        truth = self._truth_of(example, len(path))
        estimated = path[truth.nearest]
        num_classes = len(self.classes)
        cells, counts = np.unique((truth.reference * num_classes + estimated)[truth.asked], return_counts=True)
        pairs = zip(*np.divmod(cells, num_classes), counts, strict=True)
        found_events = events_of(self.task, estimated, truth.asked, self.classes)
        return FramePrediction(
            id=utterance.id,
            speaker=utterance.speaker,
            group=utterance.group,
            confusion=tuple((int(true), int(found), int(count)) for true, found, count in pairs),
            edits=count_edits(truth.events, found_events),
            reference_length=len(truth.events),
        )

    def _truth_of(self, example: LabelledUtterance, num_frames: int) -> _Targets:
        """What an answer is held against, kept for the next probe that answers the same question."""
        kept = self._truth
        if kept is None or kept.example is not example or kept.num_frames != num_frames:
            reference, nearest = self._instants(example, num_frames)
            asked = reference != UNLABELLED
            events = events_of(self.task, reference, asked, self.classes)
            kept = self._truth = _Targets(example, num_frames, reference, asked, nearest, events)
        return kept


@dataclass(frozen=True, slots=True)
class _Targets:
    """What is right at each instant of an utterance, where something is asked, and which frame answers there."""

    example: LabelledUtterance
    num_frames: int
    reference: Integers
    asked: np.ndarray[Any, Any]
    nearest: Integers
    events: list[int]


def events_of(
    task: Downstream, path: np.ndarray[Any, Any], asked: np.ndarray[Any, Any], classes: Sequence[str]
) -> list[int]:
    """The events of a path of classes over instants, where something is asked; a gap in the labels parts them."""
    collapse = cast(FrameDownstream, task).collapse  # to ask whether it is one takes longer than the rest
    bounds = [0, *(np.flatnonzero(np.diff(asked)) + 1).tolist(), len(path)]
    events: list[int] = []
    with plugin_faults(task.info.name):
        for start, end in pairwise(bounds):
            if start < end and asked[start]:
                events += collapse(path[start:end].tolist(), classes)
    return events
