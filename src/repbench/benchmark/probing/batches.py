"""What a probe sees in a step: batches of labelled frames, of utterances, and of utterances with their sequences.

Axes: L layers, N frames, D width, U utterances, W frames of a window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from repbench.benchmark.data.dataset import LabelledUtterances
from repbench.benchmark.data.scoring_grid import UNLABELLED
from repbench.benchmark.features.extraction import FeatureTable
from repbench.benchmark.probing.prediction import LabelledFeatures, Predictor
from repbench.benchmark.protocol import ProbeSettings
from repbench.downstream.heads import windows
from repbench.errors import DataError


@dataclass(frozen=True, slots=True)
class ProbeBatch:
    """What the probes of a lesson see in a step.

    Attributes:
        frames: (L, N, D), the batch's own until the next one is asked for; for a head with context N counts the frames
            of all windows.
        counts: (U,) frames of each utterance in turn; None where frames are asked.
        classes: (N,), (U,), or (S,) the classes of the U sequences, one after the other.
        num_classes: (U,) classes of each sequence; None where none are asked.
    """

    frames: Tensor
    counts: Tensor | None
    classes: Tensor
    num_classes: Tensor | None = None

    def to(self, device: torch.device) -> ProbeBatch:
        """The same batch on a device."""
        moved = (
            None if each is None else each.to(device)
            for each in (self.frames, self.counts, self.classes, self.num_classes)
        )
        return ProbeBatch(*moved)  # type: ignore[arg-type]


def batches(
    predictor: Predictor, train: LabelledFeatures, settings: ProbeSettings, generator: torch.Generator, *, context: int
) -> Iterator[ProbeBatch]:
    """Endless batches of what a task asks of; `context` is that of the head."""
    if predictor.asks_frames:
        return _frame_batches(predictor, train, settings.batch_frames, generator, context)
    return _utterance_batches(predictor, train, settings.batch_utterances, generator)


def labelled_frames(predictor: Predictor, table: FeatureTable, examples: LabelledUtterances) -> tuple[Tensor, Tensor]:
    """Which rows of the table are labelled, and their classes: each (N,)."""
    places = table.starts()
    rows, classes = [], []
    for example in examples:
        start, count = places[example.id]
        labels = predictor.frame_classes(example, count)
        labelled = (labels != UNLABELLED).nonzero().flatten()
        rows.append(start + labelled)
        classes.append(labels[labelled])
    all_rows, all_classes = torch.cat(rows), torch.cat(classes)
    if not len(all_rows):
        raise DataError(
            f"No frame of the {len(examples)} training utterances is labelled",
            do="Take a larger label fraction or corpus",
        )
    return all_rows, all_classes


def _frame_batches(
    predictor: Predictor, train: LabelledFeatures, size: int, generator: torch.Generator, context: int
) -> Iterator[ProbeBatch]:
    """Endless batches of labelled frames; with `context`, each frame is a window of 2 context + 1."""
    frames = train.table.frames
    rows, classes = (each.to(frames.device) for each in labelled_frames(predictor, train.table, train.examples))
    ends = torch.tensor(train.table.counts, device=frames.device).cumsum(dim=0)
    room: Tensor | None = None  # of every batch: pages that are new each time would cost as much as the gathering
    for drawn in _endless_order(len(rows), size, generator):
        chosen = drawn.to(frames.device)
        seen = windows(rows[chosen], ends, context).flatten() if context else rows[chosen]
        if room is None:
            room = frames.new_empty(len(frames), len(seen), frames.shape[-1])
        for layer, chosen_of_layer in zip(frames, room, strict=True):  # two axes go twice as fast as three
            torch.index_select(layer, 0, seen, out=chosen_of_layer)
        yield ProbeBatch(room, None, classes[chosen])


def _utterance_batches(
    predictor: Predictor, train: LabelledFeatures, size: int, generator: torch.Generator
) -> Iterator[ProbeBatch]:
    """Endless batches of whole utterances."""
    places = train.table.starts()
    classes = [predictor.classes_in(example) for example in train.examples]
    for chosen in _endless_order(len(classes), size, generator):
        spans = [places[train.examples[index].id] for index in chosen.tolist()]
        frames = torch.cat([train.table.frames[:, start : start + count] for start, count in spans], dim=1)
        wanted = [classes[index] for index in chosen.tolist()]
        num_classes = torch.tensor([len(each) for each in wanted]) if predictor.asks_sequences else None
        yield ProbeBatch(frames, torch.tensor([count for _, count in spans]), torch.cat(wanted), num_classes)


def _endless_order(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices in batches of `size` (or `count`, if smaller), each index once before any comes again."""
    size = min(size, count)
    order = torch.empty(0, dtype=torch.int64)
    while True:
        while len(order) < size:
            order = torch.cat([order, torch.randperm(count, generator=generator)])
        yield order[:size]
        order = order[size:]
