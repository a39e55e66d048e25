"""Features of which only a window is kept give the rows, spans and blocks of the whole table."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from repbench.benchmark.features.table import FeatureTable, rows_of
from repbench.benchmark.features.windows import FrameSource, Room, WindowedFeatures
from repbench.errors import EnvironmentFault

COUNTS = (5, 0, 7, 3, 9, 1)
NUM_LAYERS, WIDTH = 3, 4
ROW_BYTES = NUM_LAYERS * WIDTH * 4


def whole() -> FeatureTable:
    frames = torch.randn(NUM_LAYERS, sum(COUNTS), WIDTH, generator=torch.Generator().manual_seed(0))
    return FeatureTable(frames, COUNTS, tuple("abcdef"))


class Computed(FrameSource):
    """Gives frames of a table, and keeps which utterances were computed."""

    def __init__(self, table: FeatureTable, chunk_bytes: int) -> None:
        super().__init__(table.counts, (NUM_LAYERS, WIDTH), chunk_bytes)
        self.table = table
        self.calls: list[list[int]] = []

    def frames(self, numbers: Sequence[int]) -> Tensor:
        self.calls.append(list(numbers))
        spans = [*self.table.starts().values()]
        return self.table.gather_spans([spans[number] for number in numbers])


def windowed(
    rows: int, *, folder: Path | None = None, chunk_rows: int = 8, dtype: torch.dtype = torch.float32
) -> tuple[WindowedFeatures, Computed]:
    row_bytes = NUM_LAYERS * WIDTH * dtype.itemsize
    room = Room(window_bytes=rows * row_bytes, chunk_bytes=chunk_rows * ROW_BYTES, folder=folder, dtype=dtype)
    computed = Computed(whole(), room.chunk_bytes)
    return WindowedFeatures(computed, tuple("abcdef"), room), computed


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("rows", [4, 9, 1000])
def test_the_rows_of_every_batch_are_those_of_the_whole_table(rows: int, on_disk: bool, tmp_path: Path) -> None:
    features, _ = windowed(rows, folder=tmp_path if on_disk else None)
    batches = torch.randperm(24, generator=torch.Generator().manual_seed(1)).view(6, 4)

    for number, batch in enumerate(batches):
        gathered = features.gather(
            batch, functools.partial(iter, batches[number + 1 :]), finish=lambda each: each.mul_(2)
        )
        assert torch.equal(gathered, 2 * whole().gather(batch))

    assert features.num_fills == {4: 6, 9: 3, 1000: 1}[rows]
    assert not [*tmp_path.iterdir()], "the file of a window has no name"


def test_rows_that_were_not_announced_are_computed_too() -> None:
    features, _ = windowed(8)

    features.gather(torch.tensor([0, 1]))

    assert torch.equal(features.gather(torch.tensor([20, 20, 3])), whole().gather(torch.tensor([20, 20, 3])))


def test_only_utterances_with_a_wanted_row_are_computed() -> None:
    features, compute = windowed(8)

    features.gather(torch.tensor([0, 23]))

    assert sorted(number for call in compute.calls for number in call) == [0, 4]


def test_chunks_bound_what_is_computed_at_once() -> None:
    features, compute = windowed(1000, chunk_rows=8)

    features.gather(rows_of([(0, sum(COUNTS))]))

    assert compute.calls == [[0], [2], [3], [4], [5]], "5 and 7, 7 and 3, 9 and 1 frames are more than 8"


def test_spans_come_in_order_and_blocks_are_all_rows_once() -> None:
    features, _ = windowed(4)
    places = [*whole().starts().values()]
    groups = [[places[4]], [places[0], places[2]], [places[1]], [places[5], places[3]]]

    for mine, other in zip(features.spans(groups), whole().spans(groups), strict=True):
        assert torch.equal(mine, other)
    assert torch.equal(torch.cat([*features.of_blocks(torch.clone)], dim=1), whole().frames)


def test_some_layers_are_a_window_of_their_own() -> None:
    features, _ = windowed(9)
    rows = torch.tensor([3, 14, 15])

    some = features.of_layers(slice(1, 3))

    assert torch.equal(some.gather(rows), whole().of_layers(slice(1, 3)).gather(rows))
    assert torch.equal(some.of_layers(slice(1, 2)).gather(rows), whole().of_layers(slice(2, 3)).gather(rows))
    assert torch.equal(torch.cat([*some.of_blocks(torch.clone)], dim=1), whole().frames[1:])


def test_a_window_keeps_the_rounding_of_the_features(tmp_path: Path) -> None:
    features, compute = windowed(9, dtype=torch.float16, folder=tmp_path)
    compute.table = FeatureTable(whole().frames.half().float(), COUNTS, whole().ids)
    rows = torch.tensor([3, 14, 15])

    assert torch.equal(features.gather(rows), compute.table.gather(rows))


def test_a_batch_that_does_not_fit_is_refused() -> None:
    features, _ = windowed(2)

    with pytest.raises(EnvironmentFault, match=r"3 frames does not fit the 2 .* resources.memory_gib"):
        features.gather(torch.tensor([1, 2, 3]))


def test_the_batches_ahead_are_read_lazily() -> None:
    """An epoch may have thousands of batches: no more are drawn than fit the window."""
    features, _ = windowed(6)
    drawn = []

    def ahead() -> Iterator[Tensor]:
        for start in range(2, 20, 2):
            drawn.append(start)
            yield torch.tensor([start, start + 1])

    features.gather(torch.tensor([0, 1]), ahead)

    assert drawn == [2, 4, 6], "and one more, which is one too many"


def test_rows_that_are_drawn_twice_are_kept_once() -> None:
    features, _ = windowed(25)
    everything = torch.arange(25)

    for batch in (torch.arange(4), everything, torch.tensor([24, 0])):
        features.gather(batch, lambda: iter([everything]))

    assert features.num_fills == 1
