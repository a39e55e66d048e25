"""What a probe sees in a step: batches of labelled frames, of utterances, and of utterances with their sequences.

Axes: G lessons, L layers, N frames, D width, U utterances, W frames of a window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from repbench.benchmark.examiner import Examiner, Examples
from repbench.benchmark.features import FeatureTable
from repbench.benchmark.instants import UNLABELLED
from repbench.benchmark.plan import Questions
from repbench.downstream.heads import windows
from repbench.errors import DataError


@dataclass(frozen=True, slots=True)
class Batch:
    """What the lessons of a stack see in a step.

    Attributes:
        frames: (G, L, N, D); for a head with context G is 1 and N counts the frames of all windows.
        counts: (U,) frames of each utterance in turn; None where frames are asked.
        classes: (G, N), (1, U), or (1, S) the classes of the U sequences, one after the other.
        num_classes: (U,) classes of each sequence; None where none are asked.
    """

    frames: Tensor
    counts: Tensor | None
    classes: Tensor
    num_classes: Tensor | None = None


def together(batches: Sequence[Batch]) -> Batch:
    """One batch of several lessons."""
    if len(batches) == 1:
        return batches[0]
    frames = torch.cat([batch.frames for batch in batches])
    return Batch(frames, None, torch.cat([batch.classes for batch in batches]))


def labelled_frames(examiner: Examiner, table: FeatureTable, questions: Questions) -> tuple[Tensor, Tensor]:
    """Which rows of the table are labelled, and their classes: each (N,)."""
    places = table.starts()
    rows, classes = [], []
    for question in questions:
        start, count = places[question.id]
        labels = examiner.frame_classes(question, count)
        labelled = (labels != UNLABELLED).nonzero().flatten()
        rows.append(start + labelled)
        classes.append(labels[labelled])
    all_rows, all_classes = torch.cat(rows), torch.cat(classes)
    if not len(all_rows):
        raise DataError(
            f"No frame of the {len(questions)} training utterances is labelled",
            do="Take a larger label fraction or corpus",
        )
    return all_rows, all_classes


def frame_batches(
    table: FeatureTable, rows: Tensor, classes: Tensor, size: int, generator: torch.Generator, *, context: int = 0
) -> Iterator[Batch]:
    """Endless batches of labelled frames; with `context`, each frame is a window of 2 context + 1."""
    ends = torch.tensor(table.counts).cumsum(dim=0)
    for chosen in _endless_order(len(rows), size, generator):
        seen = windows(rows[chosen], ends, context).flatten() if context else rows[chosen]
        yield Batch(table.frames[:, seen][None], None, classes[chosen][None])


def utterance_batches(examiner: Examiner, train: Examples, size: int, generator: torch.Generator) -> Iterator[Batch]:
    """Endless batches of whole utterances."""
    places = train.table.starts()
    classes = [examiner.classes_in(question) for question in train.questions]
    for chosen in _endless_order(len(classes), size, generator):
        spans = [places[train.questions[index].id] for index in chosen.tolist()]
        frames = torch.cat([train.table.frames[:, start : start + count] for start, count in spans], dim=1)
        wanted = [classes[index] for index in chosen.tolist()]
        num_classes = torch.tensor([len(each) for each in wanted]) if examiner.asks_sequences else None
        yield Batch(frames[None], torch.tensor([count for _, count in spans]), torch.cat(wanted)[None], num_classes)


def _endless_order(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices in batches of `size`, each index once before any comes again."""
    order = torch.empty(0, dtype=torch.int64)
    while True:
        while len(order) < size:
            order = torch.cat([order, torch.randperm(count, generator=generator)])
        yield order[:size]
        order = order[size:]
