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

from repbench.benchmark.features import FeatureTable
from repbench.benchmark.instants import UNLABELLED, Integers, instants_s, labels_at, nearest_frames, num_instants
from repbench.benchmark.plan import Question, Questions
from repbench.benchmark.probe import Probe
from repbench.benchmark.sequences import best_path
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
class Examples:
    """Questions with their features.

    Attributes:
        table: The features.
        questions: What is asked, each with features in the table.
    """

    table: FeatureTable
    questions: Questions


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Questions whose frames are scored at once.

    Attributes:
        questions: U of them.
        spans: First frame in the table and number of frames of each.
        counts: (U,) the numbers of frames.
        reference: (M,) what is right at each instant, or for each utterance; empty where sequences are asked.
        places: (M,) which frame of the block, or which utterance, answers there; likewise.
    """

    questions: Questions
    spans: tuple[tuple[int, int], ...]
    counts: Tensor
    reference: Tensor
    places: Tensor


@dataclass(frozen=True, slots=True)
class Exam:
    """Features and the questions put to them, in blocks, and the device on which they are answered."""

    table: FeatureTable
    blocks: tuple[Block, ...]
    device: torch.device

    def frames(self, block: Block) -> Tensor:
        """(L, N, D), the frames of a block: those of the table itself where they lie side by side."""
        (first, _), last = block.spans[0], sum(block.spans[-1])
        follows = all(sum(one) == other for one, (other, _) in pairwise(block.spans))
        if follows:
            return self.table.frames[:, first:last].to(self.device)
        spans = [self.table.frames[:, start : start + count] for start, count in block.spans]
        return torch.cat(spans, dim=1).to(self.device)


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
        self._truth: _Truth | None = None

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

    def classes_in(self, question: Question) -> Tensor:
        """(S,) the classes of a sequence, or (1,) that of an utterance."""
        return torch.tensor([self._index[name] for name in label_names(question.labels)])

    def frame_classes(self, question: Question, num_frames: int) -> Tensor:
        """(F,) class at each frame's centre; `UNLABELLED` where there is none."""
        centres = self.info.first_center_samples + self.info.hop_samples * np.arange(num_frames)
        return torch.from_numpy(labels_at(centres / self.info.sample_rate_hz, question.segments, self._index))

    def utterance_class(self, question: Question) -> int:
        """The class of an utterance."""
        assert isinstance(question.labels, str)
        return self._index[question.labels]

    def predict(self, probe: Probe, examples: Examples) -> list[Prediction]:
        """The probe's answer to every question, each utterance on its own: no batch, order or padding plays a part."""
        (answers,) = self.predict_each([probe], examples)
        return answers

    def predict_each(self, probes: Sequence[Probe], examples: Examples) -> list[list[Prediction]]:
        """The answers of several probes that standardise alike: each as `predict` gives them."""
        places = examples.table.starts()
        first = probes[0]
        device = first.mean.device
        for probe in probes:
            assert torch.equal(probe.mean, first.mean)
            assert torch.equal(probe.std, first.std)
            probe.eval()
        answers: list[list[Prediction]] = [[] for _ in probes]
        with torch.inference_mode():
            for question in examples.questions:
                start, count = places[question.id]
                standard = first.standardised(examples.table.frames[:, start : start + count].to(device))
                counts = torch.tensor([count], device=device)
                for probe, own in zip(probes, answers, strict=True):
                    scores = probe.scores(standard, counts).cpu()
                    if not bool(torch.isfinite(scores).all()):
                        raise NonFiniteError("The probe's scores hold NaN or infinity", utterance=question.id)
                    own.append(self.answer(question, scores))
        return answers

    def exam(self, examples: Examples, device: torch.device) -> Exam:
        """What is asked of probes on a device again and again while they are selected, laid out once."""
        places = examples.table.starts()
        blocks: list[Block] = []
        questions: list[Question] = []
        size = 0
        for question in (*examples.questions, None):
            count = 0 if question is None else places[question.id][1]
            if questions and (question is None or size + count > BLOCK_FRAMES):
                blocks.append(self._block(tuple(questions), [places[each.id] for each in questions], device))
                questions, size = [], 0
            if question is not None:
                questions.append(question)
                size += count
        return Exam(examples.table, tuple(blocks), device)

    def primaries(self, scores_of: Scorer, exam: Exam) -> list[float | None]:
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
            for block in exam.blocks:
                scores = scores_of(exam.frames(block), block.counts)
                finite.append(torch.isfinite(scores).flatten(1).all(dim=1))
                gathered.append(self._confusions(block, scores) if quick else self._answers(block, scores))
        num_utterances = sum(len(block.questions) for block in exam.blocks)
        known = torch.stack(finite).all(dim=0).tolist()
        return [
            self._defined(self._value(parts), num_utterances) if known[number] else None
            for number, parts in enumerate(zip(*gathered, strict=True))
        ]

    def _confusions(self, block: Block, scores: Tensor) -> list[Any]:
        """Of each probe the counts (C, C), reference by estimated class."""
        num_classes = len(self.classes)
        cells = block.reference * num_classes + scores.argmax(dim=-1).index_select(1, block.places)  # (R, M)
        counts = (torch.bincount(row, minlength=num_classes**2) for row in cells)
        return [row.view(num_classes, num_classes).cpu().numpy() for row in counts]

    def _answers(self, block: Block, scores: Tensor) -> list[Any]:
        """Of each probe the predictions."""
        sizes = [1] * len(block.questions) if self.pools else block.counts.tolist()
        parts = torch.split(scores.cpu(), sizes, dim=1)
        return [
            [self.answer(question, part[row]) for question, part in zip(block.questions, parts, strict=True)]
            for row in range(len(scores))
        ]

    def _value(self, parts: Sequence[Any]) -> float | None:
        """The primary metric of one probe from what was gathered of each block."""
        with plugin_faults(self.task.info.name):
            if isinstance(self.task, MeasuredByConfusion) and not self.asks_sequences:
                return self.task.primary_of(sum(parts))
            answers = [answer for part in parts for answer in part]
            return self.task.measure(answers, self.classes)[self.task.info.primary_metric].value

    def _block(self, questions: Questions, spans: Sequence[tuple[int, int]], device: torch.device) -> Block:
        references, places, first = [], [], 0
        for question, (_, num_frames) in zip(questions, spans, strict=True):
            if self.asks_frames:
                reference, nearest = self._instants(question, num_frames)
                asked = reference != UNLABELLED
                references.append(reference[asked])
                places.append(first + nearest[asked])
                first += num_frames
            elif self.asks_sequences:
                references.append(np.empty(0, dtype=np.int64))
                places.append(np.empty(0, dtype=np.int64))
            else:
                references.append(np.array([self.utterance_class(question)]))
                places.append(np.array([len(places)]))
        return Block(
            questions=questions,
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

    def answer(self, question: Question, scores: Tensor) -> Prediction:
        """What scores of an utterance's frames, (N, C) or with the blank (N, C + 1), or (1, C) of itself, answer."""
        utterance = question.utterance
        if self.asks_sequences:
            return self._sequence_answer(question, best_path(scores))
        if self.pools:
            return UtterancePrediction(
                id=utterance.id,
                speaker=utterance.speaker,
                group=utterance.group,
                reference=self.utterance_class(question),
                scores=tuple(scores[0].tolist()),
            )
        return self._frame_answer(question, scores.argmax(dim=-1).numpy())

    def _sequence_answer(self, question: Question, hypothesis: tuple[int, ...]) -> SequencePrediction:
        utterance = question.utterance
        reference = tuple(self.classes_in(question).tolist())
        return SequencePrediction(
            id=utterance.id,
            speaker=utterance.speaker,
            group=utterance.group,
            reference=reference,
            hypothesis=hypothesis,
            edits=count_edits(reference, hypothesis),
        )

    def _instants(self, question: Question, num_frames: int) -> tuple[Integers, Integers]:
        """The class at each instant, `UNLABELLED` where there is none, and the frame that answers there."""
        utterance = question.utterance
        count = num_instants(utterance.num_samples, utterance.sample_rate_hz)
        nearest = nearest_frames(
            count,
            num_frames,
            sample_rate_hz=self.info.sample_rate_hz,
            hop=self.info.hop_samples,
            first_center=self.info.first_center_samples,
        )
        return labels_at(instants_s(count), question.segments, self._index), nearest

    def _frame_answer(self, question: Question, path: np.ndarray[Any, Any]) -> FramePrediction:
        utterance = question.utterance
        truth = self._truth_of(question, len(path))
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

    def _truth_of(self, question: Question, num_frames: int) -> _Truth:
        """What an answer is held against, kept for the next probe that answers the same question."""
        kept = self._truth
        if kept is None or kept.question is not question or kept.num_frames != num_frames:
            reference, nearest = self._instants(question, num_frames)
            asked = reference != UNLABELLED
            events = events_of(self.task, reference, asked, self.classes)
            kept = self._truth = _Truth(question, num_frames, reference, asked, nearest, events)
        return kept


@dataclass(frozen=True, slots=True)
class _Truth:
    """What is right at each instant of an utterance, where something is asked, and which frame answers there."""

    question: Question
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
