"""The orders that batches are drawn in, and what is done to their frames, by examples of a few numbers."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from torch import Tensor

from repbench.benchmark.probing.batches import (
    SeededOrder,
    WeightedOrder,
    _chunks,
    batches,
    some_rows,
    utterances_at_once,
)
from repbench.benchmark.probing.prediction import LabelledFeatures, Predictor
from repbench.benchmark.protocol import ProbeSettings
from repbench.corpora.contract import Phone as Segment
from repbench.downstream.contract import LabelledUtterance
from repbench.downstream.phone import Phone
from repbench.downstream.speaker import Speaker
from repbench.testing import Envelope
from tests.benchmark.test_probe_rules import generator, table, utterance

PHONE = Predictor(Phone(), ("AA", "IY"), Envelope().info)
SPEAKER = Predictor(Speaker(), ("a", "b"), Envelope().info)


def labelled(predictor: Predictor) -> LabelledFeatures:
    """Three utterances of four frames, whose values are the numbers of their rows from 1 on."""
    frames = torch.arange(1.0, 13.0)[None, :, None].expand(1, 12, 2).contiguous()
    labels = (Segment(0.0, 9.0, "IY"),) if predictor is PHONE else "a"
    examples = tuple(LabelledUtterance(utterance(number, 4), labels) for number in range(3))
    return LabelledFeatures(table(frames, [4, 4, 4]), examples)


@pytest.mark.parametrize(
    ("predictor", "whole", "settings"),
    [
        (PHONE, False, ProbeSettings(batch_frames=6)),
        (PHONE, True, ProbeSettings(batch_frames=8)),
        (SPEAKER, False, ProbeSettings(batch_utterances=2)),
        (SPEAKER, False, ProbeSettings(batch_utterances=2, frames_per_utterance=3)),
    ],
    ids=["frames", "whole utterances of frames", "utterances", "some frames of utterances"],
)
def test_frames_are_finished_once_and_those_of_the_table_stay(
    predictor: Predictor, whole: bool, settings: ProbeSettings
) -> None:
    def drawn(finishes: bool) -> list[Tensor]:
        data, options = labelled(predictor), {"finish": Tensor.neg_} if finishes else {}
        made = [
            batch.frames.clone()
            for batch in islice(batches(predictor, data, settings, generator(), context=0, whole=whole, **options), 4)
        ]
        assert torch.equal(data.table.gather(torch.arange(12)), labelled(predictor).table.gather(torch.arange(12)))
        return made

    as_they_are = drawn(finishes=False)
    assert all(bool((each > 0).all()) for each in as_they_are)
    assert all(torch.equal(mine, -theirs) for mine, theirs in zip(drawn(finishes=True), as_they_are, strict=True))


def test_a_head_of_whole_utterances_changes_nothing_where_each_has_one_answer() -> None:
    settings = ProbeSettings(batch_utterances=2)
    (batch,) = islice(batches(SPEAKER, labelled(SPEAKER), settings, generator(), context=0, whole=True), 1)
    assert batch.rows is None
    assert batch.counts is not None
    assert batch.counts.tolist() == [4, 4]


@pytest.mark.parametrize(("counts", "frames", "expected"), [([1, 2, 3], 4, 2), ([1], 4, 4), ([], 4, 1), ([9], 4, 1)])
def test_so_many_utterances_have_the_frames_of_a_batch(counts: list[int], frames: int, expected: int) -> None:
    assert utterances_at_once(counts, frames) == expected


def test_an_order_is_drawn_when_the_one_before_is_used_up_and_not_earlier() -> None:
    own, other = generator(), generator()
    order = iter(SeededOrder(4, 4, own, batches=3))
    first = torch.randperm(4, generator=other)
    assert torch.equal(next(order), first)
    assert torch.equal(own.get_state(), other.get_state())
    assert torch.equal(next(order), torch.randperm(4, generator=other))
    assert torch.equal(own.get_state(), other.get_state())


@pytest.mark.parametrize(("total", "expected"), [(1, []), (2, [2]), (3, [2, 4]), (9, [2, 4])])
def test_what_follows_is_what_is_drawn_then_everything_once(total: int, expected: list[int]) -> None:
    order = SeededOrder(4, 2, generator(), batches=total)
    next(iter(order))
    # Of an order of four the second half is drawn; where more batches follow, any of the four may.
    assert [len(each) for each in order.ahead()] == expected


def test_weighted_draws_are_of_each_place_anew_and_follow_from_the_generator() -> None:
    weights = torch.tensor([1.0, 0.0, 3.0])
    draws = torch.cat([*islice(WeightedOrder(weights, 3, generator(), batches=2_000), 2_000)])
    shares = torch.bincount(draws, minlength=3) / len(draws)
    torch.testing.assert_close(shares, torch.tensor([0.25, 0.0, 0.75]), atol=0.03, rtol=0)
    first = next(iter(WeightedOrder(torch.ones(50), 50, generator(), batches=1)))
    assert torch.equal(first, torch.multinomial(torch.ones(50), 50, replacement=True, generator=generator()))
    order = WeightedOrder(weights, 3, generator(), batches=1)
    next(iter(order))
    assert [*order.ahead()] == [], "the last batch is drawn"


@pytest.mark.parametrize(("count", "most"), [(3, 3), (2, 3), (1, 1)])
def test_of_few_frames_all_are_drawn(count: int, most: int) -> None:
    own = generator()
    assert some_rows((7, count), most, own).tolist() == [*range(7, 7 + count)]
    assert torch.equal(own.get_state(), generator().get_state()), "nothing is drawn"


def test_frames_are_drawn_in_double_precision() -> None:
    share = torch.rand(500, generator=generator(), dtype=torch.float64)
    expected = ((torch.arange(500) + share) * (2_000_003 / 500)).floor().long()
    assert torch.equal(some_rows((0, 2_000_003), 500, generator()), expected)


def test_an_utterance_of_one_frame_keeps_all_its_targets() -> None:
    spans, (targets,) = _chunks([(3, 1)], [torch.tensor([1, 0])], 4)
    assert (spans, targets.tolist()) == ([(3, 1)], [1, 0])


@pytest.mark.parametrize(("count", "most"), [(10, 5), (7, 5), (100, 1), (11, 10)])
def test_each_frame_is_drawn_with_the_same_odds_and_one_of_each_part(count: int, most: int) -> None:
    draws, own = torch.zeros(count), generator()
    for _ in range(4_000):
        rows = some_rows((50, count), most, own) - 50
        parts = torch.arange(most) * count / most
        assert bool((rows >= parts.floor()).all())
        assert bool((rows <= (parts + count / most).floor()).all())
        draws += torch.bincount(rows, minlength=count)
    torch.testing.assert_close(draws / 4_000, torch.full((count,), most / count), atol=0.05, rtol=0)


def test_a_task_with_weights_draws_by_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Predictor, "sampling_weights", lambda self, examples: torch.tensor([0.0, 1.0, 0.0]))
    settings = ProbeSettings(batch_utterances=2)
    for batch in islice(batches(SPEAKER, labelled(SPEAKER), settings, generator(), context=0), 3):
        assert batch.frames[0, :, 0].tolist() == [5, 6, 7, 8] * 2
