"""The features of a run: where they are kept, and how they are computed.

Axes: L layers, N frames of all utterances together, D width.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import torch
from torch import Tensor

from repbench.benchmark.data.dataset import LabelledUtterances
from repbench.benchmark.features.batch_work import Kept, Take
from repbench.benchmark.features.budget import Budget, budget_of
from repbench.benchmark.features.extraction import ExtractionOptions, table_index, take_each
from repbench.benchmark.features.forward import rounded
from repbench.benchmark.features.roads import Need, Road, choose_road, forecast
from repbench.benchmark.features.shards import store_folder
from repbench.benchmark.features.source import features_of
from repbench.benchmark.features.table import Features, FeatureTable
from repbench.benchmark.features.windows import FrameSource, Room, WindowedFeatures
from repbench.benchmark.pipeline.setup import RunContext, RunSetting
from repbench.benchmark.probing.batches import utterances_at_once
from repbench.corpora.contract import Progress, Utterance
from repbench.downstream.contract import problem_of
from repbench.downstream.heads import head_info, is_fitted
from repbench.progress import Advance
from repbench.upstream.adapters.corpus_features import FrameReader


def road_of(context: RunContext, *parts: LabelledUtterances, trainings: int = 0) -> Road:
    """Choose where the features of some examples are, and report a choice other than memory.

    Args:
        context: Of the run.
        parts: Examples whose features are needed at the same time; the first are trained on.
        trainings: How many trainings draw from the first; 0: all are read in order.

    Raises:
        EnvironmentFault: The features do not fit the memory and disk that may be used.
    """
    if isinstance(context.upstream, FrameReader):
        return Road(name="memory")  # the corpus holds the frames, and how many there are is known when they are read
    need, budget, road = forecast_of(context, *parts, trainings=trainings)
    if road.room is not None:
        context.reporter.say(f"note: {forecast(need, budget, road)}")
    return road


def forecast_of(
    context: RunContext, *parts: LabelledUtterances, trainings: int = 0, counts_missing: bool = False
) -> tuple[Need, Budget, Road]:
    """What the features of some examples would take, what there is, and the choice; arguments as `road_of`.

    Args:
        context: Of a run whose upstream computes its frames.
        parts: As `road_of`.
        trainings: As `road_of`.
        counts_missing: Whether to look up what the store lacks where the choice does not depend on it too.

    Raises:
        EnvironmentFault: The features do not fit the memory and disk that may be used.
    """
    protocol = context.request.protocol
    utterances = [example.utterance for part in parts for example in part]
    index = table_index(context.upstream, utterances)
    batch = _batch_frames(context, index.counts[: len(parts[0])]) if trainings else 0
    need = Need(
        num_frames=sum(index.counts),
        num_layers=len(context.layers),
        width=context.upstream.info.width,
        dtype=getattr(torch, protocol.extraction.dtype),
        missing_frames=sum(index.counts),
        drawn_frames=protocol.probe.steps * batch,
        batch_frames=batch,
        trainings=trainings,
    )
    budget, wanted = budget_of(protocol.resources, store_folder()), protocol.resources.road
    if context.store is None:
        room: float = 0
    else:
        room = context.store.room_bytes
        depends = wanted != "memory" and need.table_bytes > budget.free_memory_bytes // 2
        if counts_missing or depends:
            lacking = {each.id for each in context.store.lacking(utterances, context.layers)}
            counted = zip(utterances, index.counts, strict=True)
            need = replace(need, missing_frames=sum(count for each, count in counted if each.id in lacking))
    road = choose_road(need, budget, store_room_bytes=room, folder=store_folder(), wanted=wanted)
    return need, budget, road


def trainings_of(context: RunContext, settings: Iterable[RunSetting]) -> int:
    """How many trainings draw batches from the features; 0 for a head that is fitted, which reads them in order."""
    if is_fitted(context.head):
        return 0
    return len({replace(setting, tuned=False) for setting in settings})


def _batch_frames(context: RunContext, counts: Sequence[int]) -> int:
    """Most frames of a batch of training utterances with so many frames each."""
    probe = context.request.protocol.probe
    head = head_info(context.head)
    if problem_of(context.task).batches == "frames" and head.whole_utterances:
        return sum(sorted(counts)[-utterances_at_once(counts, probe.batch_frames) :])
    if problem_of(context.task).batches == "frames":
        each = 2 * head.context_frames + 1
        return min(probe.batch_frames, sum(counts)) * each
    return sum(sorted(counts)[-probe.batch_utterances :])


def extract(context: RunContext, title: str, examples: LabelledUtterances, road: Road | None = None) -> Features:
    """Features of all examples, at the layers of the run.

    Args:
        context: Of the run.
        title: Of the stage of the reporter.
        examples: In the order of the table.
        road: Where the features are; None: as fits these examples, which are read in order.
    """
    road = road or road_of(context, examples)
    utterances = [example.utterance for example in examples]
    if road.room is not None:
        return _windowed(context, title, utterances, road)
    with context.reporter.stage(title) as advance:
        return _computed(context, utterances, progress=advance)


def _computed(
    context: RunContext, utterances: Sequence[Utterance], progress: Progress | None = None, *, room: Room | None = None
) -> FeatureTable:
    started = time.monotonic()
    options = _options(context, room)
    table = features_of(
        context.upstream,
        utterances,
        context.layers,
        options,
        store=context.store,
        progress=progress,
        pageable=room is None,
    )
    context.extract_seconds += time.monotonic() - started
    return table


def _options(context: RunContext, room: Room | None) -> ExtractionOptions:
    settings = context.request.protocol.extraction
    return ExtractionOptions(
        batch_seconds=settings.batch_seconds,
        device=context.device,
        dtype=settings.dtype,
        precision=settings.precision,
        ahead_bytes=None if room is None else room.chunk_bytes,
    )


def _windowed(context: RunContext, title: str, utterances: Sequence[Utterance], road: Road) -> WindowedFeatures:
    assert road.room is not None
    if context.store is not None and road.name == "recompute":
        context.store.read_only()
    source = _Recomputed(context, title, utterances, road.room)
    return WindowedFeatures(source, tuple(each.id for each in utterances), road.room)


class _Recomputed(FrameSource):
    """Frames that the store holds, or that the upstream computes each time.

    Args:
        context: Of the run.
        title: Of what the utterances are, for the reporter.
        utterances: Utterances.
        room: For what is computed at once.
    """

    def __init__(self, context: RunContext, title: str, utterances: Sequence[Utterance], room: Room) -> None:
        index = table_index(context.upstream, utterances)
        super().__init__(index.counts, (len(context.layers), context.upstream.info.width), room.chunk_bytes)
        self._context, self._title = context, title
        self._utterances = utterances
        self._room = room

    def stage(self, purpose: str) -> AbstractContextManager[Advance]:
        return self._context.reporter.stage(f"{self._title}, {purpose}")

    def frames(self, numbers: Sequence[int]) -> Tensor:
        return _computed(self._context, [self._utterances[number] for number in numbers], room=self._room).frames

    def take_each(
        self, numbers: Sequence[int], take: Take[Kept], rows: Mapping[int, Tensor] | None = None
    ) -> Iterator[tuple[int, Kept]]:
        """As of the base; what no store takes is computed in one pass, and dropped without a copy."""
        passing = self._passing(numbers)
        stored = [number for number in numbers if number not in passing]
        if stored:
            yield from super().take_each(stored, take, rows)
        if not passing:
            return
        context, options = self._context, _options(self._context, self._room)
        order = sorted(passing)
        utterances = [self._utterances[number] for number in order]

        def take_rounded(place: int, frames: Tensor) -> Kept:
            number = order[place]
            wanted = frames if rows is None else frames.index_select(1, rows[number])  # (L, F, D) -> (L, R, D)
            return take(number, rounded(wanted, options.dtype, utterances[place].id))

        started = time.monotonic()
        for place, kept in take_each(context.upstream, utterances, context.layers, options, take_rounded):
            yield order[place], kept
        context.extract_seconds += time.monotonic() - started

    def _passing(self, numbers: Sequence[int]) -> set[int]:
        """The utterances whose features are neither in the store nor written to it."""
        store = self._context.store
        if store is None:
            return set(numbers)
        if not store.is_closed:
            return set()
        lacking = {
            each.id for each in store.lacking([self._utterances[number] for number in numbers], self._context.layers)
        }
        return {number for number in numbers if self._utterances[number].id in lacking}
