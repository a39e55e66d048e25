"""Batches of labelled frames or of whole utterances, and the utterances that can be trained on.

Axes: L layers, N frames, D width, U utterances, W frames of a window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from repbench.benchmark.data.dataset import LabelledUtterances
from repbench.benchmark.features.extraction import FeatureTable, num_frames
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
    """Endless batches of frames or utterances, as the problem has them; `context` is that of the head."""
    if predictor.problem.batches == "frames":
        return _frame_batches(predictor, train, settings.batch_frames, generator, context)
    return _utterance_batches(predictor, train, settings.batch_utterances, generator)


def labelled_frames(predictor: Predictor, table: FeatureTable, examples: LabelledUtterances) -> tuple[Tensor, Tensor]:
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
    # (utterances of the table,): the row after the last of each
    ends = torch.tensor(train.table.counts, device=frames.device).cumsum(dim=0)
    memory: Tensor | None = None  # one for all batches: new pages for each would cost as much as the gathering
    for drawn in _endless_order(len(rows), size, generator):
        chosen = drawn.to(frames.device)
        # (size,) -> (size, 2 context + 1) -> (N,) rows of the table; without context N = size
        seen = windows(rows[chosen], ends, context).flatten() if context else rows[chosen]
        if memory is None:  # (L, N, D); every batch has `size` frames, so its shape never changes
            memory = frames.new_empty(len(frames), len(seen), frames.shape[-1])
        for layer, chosen_of_layer in zip(frames, memory, strict=True):  # two axes go twice as fast as three
            torch.index_select(layer, 0, seen, out=chosen_of_layer)
        yield ProbeBatch(memory, None, classes[chosen])


def _utterance_batches(
    predictor: Predictor, train: LabelledFeatures, size: int, generator: torch.Generator
) -> Iterator[ProbeBatch]:
    """Endless batches of whole utterances."""
    places = train.table.starts()
    classes = [predictor.targets(example, places[example.id][1]) for example in train.examples]
    for chosen in _endless_order(len(classes), size, generator):
        spans = [places[train.examples[index].id] for index in chosen.tolist()]
        # U of (L, F, D) -> (L, N, D), a copy: the caller standardises it in place, and the table must stay as it is
        frames = torch.cat([train.table.frames[:, start : start + count] for start, count in spans], dim=1)
        wanted = [classes[index] for index in chosen.tolist()]
        num_classes = torch.tensor([len(each) for each in wanted]) if predictor.problem.counts_targets else None
        yield ProbeBatch(frames, torch.tensor([count for _, count in spans]), torch.cat(wanted), num_classes)


def _endless_order(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices in batches of `size` (or `count`, if smaller), each index once before any comes again."""
    size = min(size, count)
    order = torch.empty(0, dtype=torch.int64)
    while True:
        while len(order) < size:
            # A batch may span two permutations: none is smaller than the others at the end of an epoch.
            order = torch.cat([order, torch.randperm(count, generator=generator)])
        yield order[:size]
        order = order[size:]


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
