"""Predictions of probes, and their scores on dev.

Axes: L layers, N frames, D width, U utterances, C classes, R probes side by side, M scored items.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repbench.benchmark.data.dataset import LabelledUtterances
from repbench.benchmark.features.table import Features, Span
from repbench.benchmark.probing.probe import Probe
from repbench.downstream.contract import (
    Downstream,
    LabelledUtterance,
    Prediction,
    TaskContext,
    WeighsDraws,
    problem_of,
    tallied,
)
from repbench.downstream.heads import worker_threads
from repbench.errors import DataError, NonFiniteError, PluginError, plugin_faults
from repbench.upstream.contract import UpstreamInfo

Scorer = Callable[[Tensor, Tensor], Tensor]
"""From the frames (L, N, D) of some utterances, with the number (U,) of each, to scores (R, N, C) or (R, U, C)."""

BLOCK_FRAMES = 4_096
"""Frames that are scored at once where many utterances select: as many as a processor's cache may hold."""


@dataclass(frozen=True, slots=True)
class LabelledFeatures:
    """Labelled utterances with their features.

    Attributes:
        table: The features.
        examples: Utterances that all have features in the table.
    """

    table: Features
    examples: LabelledUtterances


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringBlock:
    """Utterances whose frames are scored at once.

    Attributes:
        examples: U of them.
        spans: First frame in the table and number of frames of each.
        counts: (U,) the numbers of frames.
        reference: (M,) reference classes; empty where no confusion matrix selects.
        places: (M,) for each the row of the block's scores that is taken; likewise.
    """

    examples: LabelledUtterances
    spans: tuple[Span, ...]
    counts: Tensor
    reference: Tensor
    places: Tensor


@dataclass(frozen=True, slots=True)
class DevSet:
    """Features and labels of dev, in blocks, and the device on which they are scored."""

    table: Features
    blocks: tuple[ScoringBlock, ...]
    device: torch.device

    def each(self) -> Iterator[tuple[ScoringBlock, Tensor]]:
        """Each block with its frames (L, N, D)."""
        frames = self.table.spans(block.spans for block in self.blocks)
        return ((block, each.to(self.device)) for block, each in zip(self.blocks, frames, strict=True))


class Predictor:
    """Predictions and dev values of probes for a task on one upstream's frames.

    Args:
        task: The task.
        classes: Its classes, sorted.
        info: Gives the times of the frames.
    """

    def __init__(self, task: Downstream, classes: Sequence[str], info: UpstreamInfo) -> None:
        self.task = task
        self.classes = tuple(classes)
        self.problem = problem_of(task)
        self.context = TaskContext(task, self.classes, info)
        self._primary_of = self.problem.primary_of(task)
        self._last: tuple[LabelledUtterance, int, Any] | None = None

    def for_training(self, examples: LabelledUtterances) -> Predictor:
        """A copy that standardises targets, where they are numbers, by those of the utterances that are trained on."""
        own = copy.copy(self)  # which keeps the last reference between its calls
        with plugin_faults(self.task.info.name):
            statistics = self.problem.target_statistics(example.labels for example in examples)
        own.context = replace(self.context, target_statistics=statistics)
        return own

    def decided(self, chosen: Mapping[str, float]) -> Predictor:
        """The predictor with the settings of predictions that were chosen on dev, where its problem has any."""
        problem = self.problem.decided(chosen)
        if problem is self.problem:
            return self
        own = copy.copy(self)
        own.problem = problem
        return own

    @property
    def pools(self) -> bool:
        """Whether a head gives one row of scores an utterance rather than one a frame."""
        return self.problem.pools

    def targets(self, example: LabelledUtterance, num_frames: int) -> Tensor:
        """(S,) the targets of an utterance; (F,) of frames, `UNLABELLED` where there is none."""
        with plugin_faults(self.task.info.name, utterance=example.id):
            return torch.from_numpy(self.problem.targets(self.context, example, num_frames))

    def sampling_weights(self, examples: LabelledUtterances) -> Tensor | None:
        """(U,) weights with which training draws its utterances; None: each once before any is drawn again.

        Raises:
            PluginError: The task gives weights that are not positive numbers, one an utterance.
        """
        if not isinstance(self.task, WeighsDraws):
            return None
        with plugin_faults(self.task.info.name):
            given = self.task.sampling_weights([example.labels for example in examples])
            weights = None if given is None else torch.tensor(list(given), dtype=torch.float64)
        if weights is None:
            return None
        if weights.shape != (len(examples),) or not bool((weights.isfinite() & (weights > 0)).all()):
            what = f"`sampling_weights` must give a positive number for each of {len(examples)} utterances"
            raise PluginError(what, key=self.task.info.name, do="See WeighsDraws in repbench.downstream.contract")
        return weights

    def losses(
        self, scores: Tensor, targets: Tensor, counts: Tensor | None = None, num_targets: Tensor | None = None
    ) -> Tensor:
        """(R,) the mean losses on a batch; arguments as `Problem.losses`."""
        with plugin_faults(self.task.info.name):
            return self.problem.losses(scores, targets, counts, num_targets)

    def total_loss(
        self, scores: Tensor, examples: Sequence[LabelledUtterance], counts: Sequence[int]
    ) -> tuple[Tensor, int]:
        """The loss of U utterances as a sum, and its number of terms: see `Problem.total_loss`.

        Args:
            scores: (N, C) of all frames, (N, C + 1) with a blank, or (U, C) where the head pools.
            examples: U of them.
            counts: Frames of each.
        """
        targets = [self.targets(example, count) for example, count in zip(examples, counts, strict=True)]
        sizes = torch.tensor([len(each) for each in targets], device=scores.device)
        with plugin_faults(self.task.info.name):
            whole = torch.cat(targets).to(scores.device)
            return self.problem.total_loss(scores, whole, torch.tensor(list(counts)), sizes)

    def predict(self, probe: Probe, labelled: LabelledFeatures) -> list[Prediction]:
        """The probe's predictions, each utterance on its own: no batch, order or padding plays a part."""
        (predictions,) = self.predict_each([probe], labelled)
        return predictions

    def predict_each(
        self, probes: Sequence[Probe], labelled: LabelledFeatures, chosen: Sequence[Mapping[str, float]] = ()
    ) -> list[list[Prediction]]:
        """The predictions of several probes that standardise alike: each as `predict` gives them.

        Args:
            probes: Any number.
            labelled: The utterances.
            chosen: For each probe the point that was chosen on dev; none: each predicts as the problem does by itself.
        """
        deciding = [self.decided(each) for each in chosen] or [self] * len(probes)
        places = labelled.table.starts()
        first = probes[0]
        device = first.mean.device
        for probe in probes:
            assert torch.equal(probe.mean, first.mean)
            assert torch.equal(probe.std, first.std)
            probe.eval()
        predictions: list[list[Prediction]] = [[] for _ in probes]
        # The products of one utterance are small: two threads of one of them wait for each other longer than they
        # multiply. Not where frames have yet to be computed by the upstream, which has threads of its own.
        at_hand = labelled.table.is_at_hand
        alone = worker_threads(torch.get_num_threads()) if at_hand else contextlib.nullcontext()
        with alone, torch.inference_mode():
            each = labelled.table.spans([places[example.id]] for example in labelled.examples)
            for example, frames in zip(labelled.examples, each, strict=True):  # frames: (L, F, D)
                # Once for all probes, and out of place: it may be a view of the table.
                standard = first.standardised(frames.to(device))
                counts = torch.tensor([frames.shape[1]], device=device)
                for probe, predictor, own in zip(probes, deciding, predictions, strict=True):
                    scores = probe.in_units(probe.scores(standard, counts)).cpu()
                    if not bool(torch.isfinite(scores).all()):
                        raise NonFiniteError("The probe's scores hold NaN or infinity", utterance=example.id)
                    own.append(predictor.prediction(example, scores))
        return [
            predictor.completed(own, labelled.examples) for predictor, own in zip(deciding, predictions, strict=True)
        ]

    def completed(self, predictions: Sequence[Prediction], examples: LabelledUtterances) -> list[Prediction]:
        """The predictions of test, after what depends on all of them: see `Problem.completed`."""
        with plugin_faults(self.task.info.name):
            return list(self.problem.completed(self.context, predictions, examples, is_test=True))

    def prediction(self, example: LabelledUtterance, scores: Tensor) -> Prediction:
        """The prediction of an utterance's scores on the CPU: (F, C), (F, C + 1) with the blank, or (1, C) pooled."""
        with plugin_faults(self.task.info.name, utterance=example.id):
            return self.problem.predict(example, self._reference_of(example, len(scores)), scores)

    def dev_set(self, labelled: LabelledFeatures, device: torch.device) -> DevSet:
        """Dev on a device, laid out once for the many times that probes are scored on it."""
        places = labelled.table.starts()
        blocks: list[ScoringBlock] = []
        examples: list[LabelledUtterance] = []
        size = 0
        # None after the last utterance closes the last block.
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
        """The primary metric on dev of several probes side by side.

        Args:
            scores_of: The probes' scores.
            dev_set: Features and labels of dev.

        Returns:
            One value for each probe; None where its scores are NaN or infinite.

        Raises:
            DataError: It is undefined on these predictions.
        """
        gathered: list[list[Any]] = []
        finite: list[Tensor] = []
        confusions: Tensor | None = None
        with torch.inference_mode():
            for block, frames in dev_set.each():
                scores = scores_of(frames, block.counts)
                finite.append(torch.isfinite(scores).flatten(1).all(dim=1))  # (R, N, C) -> (R, N C) -> (R,)
                if self._primary_of is None:
                    gathered.append(self._predictions(block, scores))
                else:
                    confusions = self._add_confusions(confusions, block, scores)
        if confusions is not None:
            gathered.append(list(confusions.cpu().numpy()))
        examples = tuple(example for block in dev_set.blocks for example in block.examples)
        known = torch.stack(finite).all(dim=0).tolist()  # (blocks, R) -> (R,)
        return [
            self._defined(self._value(parts, examples), len(examples)) if known[number] else None
            for number, parts in enumerate(zip(*gathered, strict=True))
        ]

    def decisions(self, scores_of: Scorer, dev_set: DevSet) -> list[list[tuple[Mapping[str, float], float]]]:
        """For each probe every decision of the problem with the primary metric that it has on dev.

        Arguments and errors are those of `primaries`; the scores are known to be finite.
        """
        deciding = [(each, self.decided(each)) for each in self.problem.decisions]
        gathered: list[list[Any]] = [[] for _ in deciding]
        with torch.inference_mode():
            for block, frames in dev_set.each():
                scores = scores_of(frames, block.counts)
                for parts, (_, predictor) in zip(gathered, deciding, strict=True):
                    parts.append(predictor._predictions(block, scores))
        examples = tuple(example for block in dev_set.blocks for example in block.examples)
        # D decisions of R values -> R probes of D values
        values = [
            [self._defined(self._value(own, examples), len(examples)) for own in zip(*parts, strict=True)]
            for parts in gathered
        ]
        names = [each for each, _ in deciding]
        return [list(zip(names, own, strict=True)) for own in zip(*values, strict=True)]

    def better(self, value: float, than: float | None) -> bool:
        """Whether a value of the primary metric is better than another; equal is not."""
        if than is None:
            return True
        up = self.task.info.metrics[self.task.info.primary_metric].higher_is_better
        return value > than if up else value < than

    def _add_confusions(self, counts: Tensor | None, block: ScoringBlock, scores: Tensor) -> Tensor:
        """Add a block to the counts (R, C, C), reference by estimated class, of each probe; None: it is the first."""
        num_classes = len(self.classes)
        if counts is None:
            counts = torch.zeros(len(scores), num_classes, num_classes, dtype=torch.int64, device=scores.device)
        # (R, N, C) -> (R, N) -> (R, M): reference * C + estimate, the number of a cell of the confusion matrix
        cells = block.reference * num_classes + scores.argmax(dim=-1).index_select(1, block.places)
        # In place: a matrix for each block would take as much memory as there are utterances.
        counts.view(len(scores), -1).scatter_add_(1, cells, torch.ones_like(cells))
        return counts

    def _predictions(self, block: ScoringBlock, scores: Tensor) -> list[Any]:
        """Of each probe the predictions."""
        sizes = [1] * len(block.examples) if self.pools else block.counts.tolist()
        parts = torch.split(scores.cpu(), sizes, dim=1)  # (R, N, C) -> U of (R, rows, C)
        return [
            [self.prediction(example, part[row]) for example, part in zip(block.examples, parts, strict=True)]
            for row in range(len(scores))
        ]

    def _value(self, parts: Sequence[Any], examples: LabelledUtterances) -> float | None:
        """The primary metric of one probe from what was gathered of each block of dev."""
        with plugin_faults(self.task.info.name):
            if self._primary_of is not None:
                (confusion,) = parts
                return self._primary_of(confusion)
            task = tallied(self.task)
            given = [prediction for part in parts for prediction in part]
            completed = self.problem.completed(self.context, given, examples, is_test=False)
            tally = task.tally(completed, self.classes)
            return task.measure_tallies([tally], self.classes)[self.task.info.primary_metric].value

    def _block(
        self, examples: LabelledUtterances, spans: Sequence[tuple[int, int]], device: torch.device
    ) -> ScoringBlock:
        # An empty array first: `concatenate` refuses no arrays, which is the case where no confusion matrix selects.
        references, places, first = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)], 0
        for example, (_, num_frames) in zip(examples, spans, strict=True):
            num_rows = 1 if self.pools else num_frames
            if self._primary_of is not None:
                reference, rows = self.problem.counted(self._reference_of(example, num_rows))
                references.append(reference)
                places.append(first + rows)  # rows of the utterance -> rows of the block
            first += num_rows
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

    def _reference_of(self, example: LabelledUtterance, num_rows: int) -> Any:
        """The reference of an utterance's predictions, kept for the next probe that is scored on the same one."""
        if self._last is None or self._last[0] is not example or self._last[1] != num_rows:
            self._last = example, num_rows, self.problem.reference(self.context, example, num_rows)
        return self._last[2]
