"""Which stretches make which batch: properties of the order."""

from __future__ import annotations

import random
from itertools import chain

import pytest
import torch

from repbench.training.batching import BatchOrder, Stretch, derived_seed, padded

BUDGET = 1000
CROP = 80


def some_lengths(num: int = 60, longest: int = 400) -> list[int]:
    random_ = random.Random(num)
    return [random_.randint(2, longest) for _ in range(num)]


def an_order(lengths: list[int], *, crop: int | None = CROP, budget: int = BUDGET, seed: int = 3) -> BatchOrder:
    return BatchOrder(lengths, crop, budget, seed)


def epoch_of(order: BatchOrder, number: int) -> list[list[Stretch]]:
    first = number * order.batches_per_epoch
    return [order.batch(first + place) for place in range(order.batches_per_epoch)]


@pytest.mark.parametrize("crop", [CROP, None])
def test_each_epoch_hears_each_utterance_exactly_once(crop: int | None) -> None:
    order = an_order(some_lengths(), crop=crop)
    for number in range(4):
        heard = [each.index for each in chain.from_iterable(epoch_of(order, number))]
        assert sorted(heard) == list(range(60))


@pytest.mark.parametrize("crop", [CROP, 1000, None])
def test_a_batch_with_its_padding_keeps_to_the_budget(crop: int | None) -> None:
    order = an_order(some_lengths(), crop=crop)
    for batch in chain.from_iterable(epoch_of(order, number) for number in range(4)):
        assert len(batch) * max(each.length for each in batch) <= BUDGET


def test_an_utterance_longer_than_the_budget_stands_alone() -> None:
    order = an_order([50, 60, 2000, 70], crop=None)
    assert [each.index for batch in epoch_of(order, 0) if len(batch) == 1 for each in batch] == [2]
    assert [batch[0].length for batch in epoch_of(order, 0) if len(batch) == 1] == [2000]


def test_every_epoch_has_as_many_batches() -> None:
    order = an_order(some_lengths())
    sizes = [sorted(len(batch) for batch in epoch_of(order, number)) for number in range(5)]
    assert all(each == sizes[0] for each in sizes)
    assert len(sizes[0]) == order.batches_per_epoch > 1


def test_stretches_lie_within_their_utterances_and_move() -> None:
    lengths = some_lengths()
    order = an_order(lengths)
    starts = dict[int, set[int]]()
    for each in chain.from_iterable(chain.from_iterable(epoch_of(order, number) for number in range(30))):
        assert each.length == min(lengths[each.index], CROP)
        assert 0 <= each.start <= lengths[each.index] - each.length
        starts.setdefault(each.index, set()).add(each.start)
    longest = max(range(60), key=lengths.__getitem__)
    assert len(starts[longest]) > 20, "the stretch is drawn anew each epoch"
    assert all(starts[index] == {0} for index, length in enumerate(lengths) if length <= CROP)


def test_the_first_and_the_last_stretch_are_both_drawn() -> None:
    order = an_order([CROP + 3])
    assert {order.batch(number)[0].start for number in range(200)} == {0, 1, 2, 3}


def test_without_a_crop_utterances_are_whole() -> None:
    lengths = some_lengths()
    for each in chain.from_iterable(epoch_of(an_order(lengths, crop=None), 2)):
        assert (each.start, each.length) == (0, lengths[each.index])


def test_a_batch_is_a_function_of_its_number_alone() -> None:
    numbers = list(range(3 * an_order(some_lengths()).batches_per_epoch))
    in_order = {number: an_order(some_lengths()).batch(number) for number in numbers}
    shuffled = random.Random(0).sample(numbers, len(numbers))
    other = an_order(some_lengths())
    assert {number: other.batch(number) for number in shuffled} == in_order


def test_another_seed_and_another_epoch_are_another_order() -> None:
    one, other = an_order(some_lengths()), an_order(some_lengths(), seed=4)
    assert epoch_of(one, 0) != epoch_of(one, 1)
    assert epoch_of(one, 0) != epoch_of(other, 0)


def test_drawing_leaves_the_global_generator_as_it_is() -> None:
    before = torch.get_rng_state()
    an_order(some_lengths()).batch(5)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_is_of_like_lengths() -> None:
    lengths = [length for length in range(20, 400, 7) for _ in range(40)]
    order = an_order(lengths, crop=None, budget=2000)
    waste = [
        1 - sum(each.length for each in batch) / (len(batch) * max(each.length for each in batch))
        for batch in epoch_of(order, 1)
    ]
    assert sum(waste) / len(waste) < 0.1


def test_utterances_of_about_one_length_meet_others_each_epoch() -> None:
    order = an_order([200 + index % 3 for index in range(40)], crop=None)
    met = {frozenset(each.index for each in batch) for number in range(5) for batch in epoch_of(order, number)}
    assert len(met) > 4 * order.batches_per_epoch, "200, 201 and 202 frames count as the same length"


def test_seeds_of_different_purposes_differ() -> None:
    seeds = {derived_seed(seed, name, number) for seed in (0, 1) for name in ("order", "mask") for number in (0, 1, 11)}
    assert len(seeds) == 12
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derived_seed(1, 11) != derived_seed(11, 1)


def test_padding_is_zero_and_behind() -> None:
    values, lengths = padded([torch.ones(2, 3), torch.ones(4, 3)])
    assert lengths.tolist() == [2, 4]
    assert values[0].sum(dim=1).tolist() == [3, 3, 0, 0]
