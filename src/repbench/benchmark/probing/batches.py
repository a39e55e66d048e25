"""Batches of labelled frames or of whole utterances, and the utterances that can be trained on.

Axes: L layers, N frames, D width, U utterances, W frames of a window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from repbench.benchmark.data.dataset import LabelledUtterances
from repbench.benchmark.features.extraction import num_frames
from repbench.benchmark.features.table import Features, Finish, Span, as_they_are, rows_of
from repbench.benchmark.probing.prediction import LabelledFeatures, Predictor
from repbench.benchmark.protocol import ProbeSettings
from repbench.corpora.read import samples_at
from repbench.downstream.heads import windows
from repbench.downstream.problems import Problem
from repbench.downstream.problems.scoring_grid import UNLABELLED
from repbench.errors import DataError
from repbench.upstream.contract import Upstream


@dataclass(frozen=True, slots=True)
class ProbeBatch:
    """The frames and targets of one step.

    Attributes:
        frames: (L, N, D), valid until the next batch is drawn; for a head with context N counts the frames of all
            windows.
        counts: (U,) frames of each utterance in turn; None in a batch of frames.
        classes: (S,) targets: one a frame, or those of the U utterances one after the other.
        num_classes: (U,) targets of each utterance; None where each has one.
        rows: (S,) rows of the scores that have a target; None where all have.
    """

    frames: Tensor
    counts: Tensor | None
    classes: Tensor
    num_classes: Tensor | None = None
    rows: Tensor | None = None

    def to(self, device: torch.device) -> ProbeBatch:
        """The same batch on a device."""
        moved = (
            None if each is None else each.to(device)
            for each in (self.frames, self.counts, self.classes, self.num_classes, self.rows)
        )
        return ProbeBatch(*moved)  # type: ignore[arg-type]


def batches(
    predictor: Predictor,
    train: LabelledFeatures,
    settings: ProbeSettings,
    generator: torch.Generator,
    *,
    context: int,
    whole: bool = False,
    finish: Finish = as_they_are,
) -> Iterator[ProbeBatch]:
    """Endless batches of frames or utterances, as the problem has them.

    Args:
        predictor: Of the task.
        train: What is drawn from.
        settings: Sizes of a batch and number of steps.
        generator: Draws the order, and the frames of an utterance.
        context: Of the head.
        whole: Whether the head reads whole utterances.
        finish: Done to the frames of each batch, a copy of those of the table.
    """
    if predictor.problem.batches == "frames" and whole:
        return _whole_utterance_batches(predictor, train, settings, generator, finish)
    if predictor.problem.batches == "frames":
        return _frame_batches(predictor, train, settings, generator, context, finish)
    return _utterance_batches(predictor, train, settings, generator, finish)


def labelled_frames(predictor: Predictor, table: Features, examples: LabelledUtterances) -> tuple[Tensor, Tensor]:
    """(N,) the rows of the table that have a label, and (N,) their classes."""
    places = table.starts()
    rows, classes = [], []
    for example in examples:
        start, count = places[example.id]
        labels = predictor.targets(example, count)
        labelled = (labels != UNLABELLED).nonzero().flatten()  # (F,) bool -> (labelled frames, 1) -> (labelled frames,)
        rows.append(start + labelled)
        classes.append(labels[labelled])
    all_rows, all_classes = torch.cat(rows), torch.cat(classes)
    if not len(all_rows):
        raise _none_labelled(len(examples))
    return all_rows, all_classes


def _none_labelled(num_utterances: int) -> DataError:
    return DataError(
        f"No frame of the {num_utterances} training utterances is labelled",
        do="Take a larger label fraction or corpus",
    )


def _frame_batches(
    predictor: Predictor,
    train: LabelledFeatures,
    settings: ProbeSettings,
    generator: torch.Generator,
    context: int,
    finish: Finish,
) -> Iterator[ProbeBatch]:
    """Endless batches of labelled frames; with `context`, each frame is a window of 2 context + 1."""
    rows, classes = labelled_frames(predictor, train.table, train.examples)
    ends = torch.tensor(train.table.counts).cumsum(dim=0)  # (utterances of the table,): the row after the last of each
    order = SeededOrder(len(rows), settings.batch_frames, generator, batches=settings.steps)

    def seen(chosen: Tensor) -> Tensor:
        # (size,) -> (size, 2 context + 1) -> (N,) rows of the table; without context N = size
        return windows(rows[chosen], ends, context).flatten() if context else rows[chosen]

    memory: Tensor | None = None  # one for all batches: new pages for each would cost as much as the gathering
    for chosen in order:
        memory = train.table.gather(seen(chosen), lambda: map(seen, order.ahead()), memory, finish)
        yield ProbeBatch(memory, None, classes[chosen])


def utterances_at_once(counts: Sequence[int], batch_frames: int) -> int:
    """Utterances of a batch of whole utterances of a frame task: as many as have `batch_frames` frames on average.

    So a head that reads whole utterances learns from about as many frames a step as one that reads single frames.

    Args:
        counts: Frames of each training utterance.
        batch_frames: Frames of one step.
    """
    return max(1, round(batch_frames * len(counts) / max(sum(counts), 1)))


def _whole_utterance_batches(
    predictor: Predictor,
    train: LabelledFeatures,
    settings: ProbeSettings,
    generator: torch.Generator,
    finish: Finish,
) -> Iterator[ProbeBatch]:
    """Endless batches of the whole utterances that have a labelled frame, with targets for labelled frames alone."""
    places = train.table.starts()
    spans, labels = [], []
    for example in train.examples:
        span = places[example.id]
        targets = predictor.targets(example, span[1])  # (F,)
        # A batch of utterances without a labelled frame would have no loss.
        if bool((targets != UNLABELLED).any()):
            spans.append(span)
            labels.append(targets)
    if not labels:
        raise _none_labelled(len(train.examples))
    size = utterances_at_once([count for _, count in spans], settings.batch_frames)
    order = SeededOrder(len(labels), size, generator, batches=settings.steps)

    def rows_ahead() -> Iterator[Tensor]:
        return (rows_of([spans[index] for index in chosen.tolist()]) for chosen in order.ahead())

    for chosen in order:
        drawn = chosen.tolist()
        # U spans of F frames -> (L, N, D)
        frames = train.table.gather_spans([spans[index] for index in drawn], rows_ahead, finish)
        targets = torch.cat([labels[index] for index in drawn])  # (N,)
        rows = (targets != UNLABELLED).nonzero().flatten()  # (N,) -> (S, 1) -> (S,)
        counts = torch.tensor([spans[index][1] for index in drawn])
        yield ProbeBatch(frames, counts, targets[rows], rows=rows)


def _utterance_batches(
    predictor: Predictor,
    train: LabelledFeatures,
    settings: ProbeSettings,
    generator: torch.Generator,
    finish: Finish,
) -> Iterator[ProbeBatch]:
    """Endless batches of whole utterances, or of `frames_per_utterance` frames of each."""
    places = train.table.starts()
    spans = [places[example.id] for example in train.examples]
    classes = [predictor.targets(example, count) for example, (_, count) in zip(train.examples, spans, strict=True)]
    weights = predictor.sampling_weights(train.examples)
    if predictor.problem.chunk_frames is not None:
        assert weights is None  # the weights are those of utterances
        spans, classes = _chunks(spans, classes, predictor.problem.chunk_frames)
    if weights is None:
        order = SeededOrder(len(classes), settings.batch_utterances, generator, batches=settings.steps)
    else:
        order = WeightedOrder(weights, settings.batch_utterances, generator, batches=settings.steps)

    def rows_ahead() -> Iterator[Tensor]:
        return (rows_of([spans[index] for index in chosen.tolist()]) for chosen in order.ahead())

    most = settings.frames_per_utterance
    for chosen in order:
        drawn = chosen.tolist()
        wanted = [classes[index] for index in drawn]
        num_classes = torch.tensor([len(each) for each in wanted]) if predictor.problem.counts_targets else None
        if most is None:
            # U spans of F frames -> (L, N, D)
            frames = train.table.gather_spans([spans[index] for index in drawn], rows_ahead, finish)
            counts = torch.tensor([spans[index][1] for index in drawn])
        else:
            some = [some_rows(spans[index], most, generator) for index in drawn]
            # Which frames later steps draw is not known yet, so all of their utterances are announced.
            frames = train.table.gather(torch.cat(some), rows_ahead, finish=finish)
            counts = torch.tensor([len(each) for each in some])
        yield ProbeBatch(frames, counts, torch.cat(wanted), num_classes)


def _chunks(spans: Sequence[Span], targets: Sequence[Tensor], most: int) -> tuple[list[Span], list[Tensor]]:
    """Utterances of at most `most` frames, with the targets of their frames: longer ones are cut, the rest included."""
    cut, parts = [], []
    for (start, count), own in zip(spans, targets, strict=True):
        each = len(own) // max(count, 1)  # targets of a frame
        for first in range(0, count, most):
            size = min(most, count - first)
            cut.append((start + first, size))
            parts.append(own[first * each : (first + size) * each])
    return cut, parts


def some_rows(span: Span, most: int, generator: torch.Generator) -> Tensor:
    """(R,) ascending rows of a span: one of each of `most` parts of equal length, or all if it has no more.

    Each frame is drawn with the same odds, so that the mean over those that are drawn is, over many draws, the mean
    over all; frames of all parts make it vary less than frames drawn anywhere.
    """
    start, count = span
    if count <= most:
        return torch.arange(start, start + count)
    places = (torch.arange(most) + torch.rand(most, generator=generator, dtype=torch.float64)) * (count / most)
    # Two parts may share the frame that their border cuts.
    return start + places.long().clamp_max_(count - 1)


class SeededOrder:
    """Endless batches of indices, each index once before any comes again.

    Args:
        count: Number of indices.
        size: Indices of a batch, or `count`, if that is smaller.
        generator: Draws an order of all indices whenever one is used up.
        batches: How many batches will be drawn; bounds `ahead` alone.
    """

    def __init__(self, count: int, size: int, generator: torch.Generator, *, batches: int) -> None:
        self._count, self._size, self._generator = count, min(size, count), generator
        self._order = torch.empty(0, dtype=torch.int64)
        self._left = batches

    def __iter__(self) -> Iterator[Tensor]:
        while True:
            while len(self._order) < self._size:
                # A batch may span two permutations: none is smaller than the others at the end of an epoch.
                self._order = torch.cat([self._order, self._drawn()])
            chosen, self._order = self._order[: self._size], self._order[self._size :]
            self._left -= 1
            yield chosen

    def _drawn(self) -> Tensor:
        """(count,) further indices."""
        return torch.randperm(self._count, generator=self._generator)

    def ahead(self) -> Iterator[Tensor]:
        """The batches that follow, as far as they are drawn; then, if there are more, all indices at once.

        An order is drawn when the one before is used up: a head with dropout draws from the same generator in between,
        so what follows cannot be drawn any earlier.
        """
        num_drawn = len(self._order) // self._size
        for number in range(min(num_drawn, self._left)):
            yield self._order[number * self._size : (number + 1) * self._size]
        if num_drawn < self._left:
            yield torch.arange(self._count)


class WeightedOrder(SeededOrder):
    """Endless batches of indices, each place drawn anew with odds in proportion to weights.

    Args:
        weights: (count,) a positive weight of each index.
        size: As of `SeededOrder`, like the other two.
    """

    def __init__(self, weights: Tensor, size: int, generator: torch.Generator, *, batches: int) -> None:
        super().__init__(len(weights), size, generator, batches=batches)
        self._weights = weights

    def _drawn(self) -> Tensor:
        """(count,) further indices, with replacement."""
        return torch.multinomial(self._weights, self._count, replacement=True, generator=self._generator)


def trainable(
    examples: LabelledUtterances, upstream: Upstream, problem: Problem
) -> tuple[LabelledUtterances, tuple[str, ...]]:
    """The utterances that have as many of the upstream's frames as their labels need, and a warning for the others.

    Raises:
        DataError: None has.
    """
    needed = [problem.frames_needed(example.labels) for example in examples]
    if not any(needed):
        return examples, ()
    kept = tuple(
        example
        for example, least in zip(examples, needed, strict=True)
        if least <= num_frames(upstream, samples_at(example.utterance, upstream.info.sample_rate_hz), example.id)
    )
    num_lost = len(examples) - len(kept)
    if not kept and examples:
        raise DataError(
            f"None of {len(examples)} training utterances has as many frames as its labels need",
            utterance=examples[0].id,
            do="Take an upstream with a shorter hop",
        )
    if not num_lost:
        return kept, ()
    return kept, (f"{num_lost} of {len(examples)} training utterances have fewer frames than labels: not trained on",)
