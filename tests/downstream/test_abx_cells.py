"""Cells of ABX and their errors: published vectors, loops over triples, and draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from repbench.corpora.contract import Phone
from repbench.downstream.discrimination.alignment import segments_of
from repbench.downstream.discrimination.cells import (
    Condition,
    FoundCell,
    On,
    Speakers,
    blocks_of,
    restricted,
    tables_of,
)
from repbench.downstream.discrimination.tokens import Token, tokens_of
from repbench.downstream.metrics.abx import Cell, error_rate, summed_over_contexts, validate
from repbench.downstream.metrics.dtw import TableRequest, tables
from repbench.downstream.metrics.frame_distances import FRAME_DISTANCES

Array = NDArray[np.float32]
WITHIN = Condition(on="phone", speakers="within", in_context=False, max_size_group=None, max_x_across=None)
ACROSS = replace(WITHIN, speakers="across")


def cells_of(
    frames: Sequence[Array], tokens: Sequence[Token], condition: Condition, distance: str = "euclidean", seed: int = 0
) -> list[FoundCell]:
    chosen = FRAME_DISTANCES[distance]
    segments = segments_of(
        [torch.from_numpy(each) for each in frames],
        chosen,
        pooling="dtw",
        device=torch.device("cpu"),
        memory_bytes=10**9,
    )
    wanted = tables_of(blocks_of(tokens, range(len(tokens)), condition, seed), condition, seed)
    places = {number: number for number in range(len(tokens))}
    found = tables(segments, [each.request(places) for each in wanted], chosen.between, 10**8)
    return [cell for table, distances in zip(wanted, found, strict=True) for cell in table.cells(distances)]


def rate(cells: Sequence[FoundCell], tokens: Sequence[Token]) -> float | None:
    of_speaker: dict[str, list[Cell]] = {}
    for each in cells:
        counted = Cell(each.a, each.b, each.group, each.context, each.twice_errors, each.triples)
        of_speaker.setdefault(tokens[each.first_x].speaker, []).append(counted)
    return error_rate(line for several in of_speaker.values() for line in summed_over_contexts(several))


@pytest.mark.parametrize(
    ("distance", "expected"),
    [("euclidean", 0.4913194353), ("cosine", 0.4809027786), ("kl", 0.4340277736), ("identical", 0.5)],
)
def test_the_rates_of_fastabx_on_made_up_vectors(distance: str, expected: float) -> None:
    """fastabx `tests/test_regression.py`: 36 vectors of width 6, phone across speaker in two contexts."""
    vectors: NDArray[Any] = np.random.default_rng(2026).standard_normal((36, 6)).astype(np.float32)
    if distance == "kl":
        vectors = np.abs(vectors) + 0.1
        vectors /= vectors.sum(axis=1, keepdims=True)
    if distance == "identical":
        vectors = (np.arange(36) % 4).reshape(-1, 1).astype(np.float32)
    tokens = [Token(0, 1, "abc"[number % 3], f"c{number % 2}", f"s{number // 12}") for number in range(36)]
    cells = cells_of([each[None] for each in vectors], tokens, replace(ACROSS, in_context=True), distance)
    assert rate(cells, tokens) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(("mean", "expected"), list(enumerate([0.49642, 0.35362, 0.12935, 0.02792, 0.00336])))
def test_two_gaussians(mean: int, expected: float) -> None:
    random = np.random.default_rng(1)
    vectors = np.concatenate([random.normal(0, 1, (50, 2)), random.normal(mean, 1, (50, 2))]).astype(np.float32)
    tokens = [Token(0, 1, "ab"[number // 50], "", "s") for number in range(100)]
    found = rate(cells_of([each[None] for each in vectors], tokens, WITHIN), tokens)
    assert found == pytest.approx(expected, abs=5e-6)


def test_tokens_that_are_all_equal_have_half_of_the_triples_wrong() -> None:
    """A token X is at distance 0 from itself and from all B here: as an A it would add half an error to each."""
    tokens = [Token(0, 1, label, "", "s") for label in "aaabb"]
    cells = cells_of([np.ones((1, 1), dtype=np.float32)] * 5, tokens, WITHIN, "identical")
    assert [(each.a, each.twice_errors, each.triples) for each in cells] == [("a", 12, 12), ("b", 6, 6)]


def some_tokens(count: int = 60, *, seed: int = 0) -> tuple[list[Token], list[Array]]:
    random = np.random.default_rng(seed)
    tokens = [
        Token(0, 1, "abc"[random.integers(3)], ["x-y", "y-z"][random.integers(2)], f"s{random.integers(3)}")
        for _ in range(count)
    ]
    return tokens, [random.standard_normal((random.integers(1, 5), 3)).astype(np.float32) for _ in tokens]


def looped(
    tokens: Sequence[Token], condition: Condition, distances: NDArray[np.float32]
) -> dict[tuple[str, str, str, str, str], list[float]]:
    """From classes, group, context and speaker of X to the errors of all triples."""
    found: dict[tuple[str, str, str, str, str], list[float]] = {}
    numbers = range(len(tokens))
    of_class = [condition.class_of(each) for each in tokens]
    shared = [(condition.context_of(each), condition.group_of(each)) for each in tokens]
    for x, a, b in product(numbers, numbers, numbers):
        same_speaker = shared[x] == shared[a]
        if x == a or of_class[x] != of_class[a] or of_class[b] == of_class[a] or shared[a] != shared[b]:
            continue
        if condition.is_across:
            if shared[x][0] != shared[a][0] or same_speaker:
                continue
        elif not same_speaker:
            continue
        gap = distances[x, a] - distances[x, b]
        key = (of_class[a], of_class[b], shared[a][1], shared[a][0], tokens[x].speaker)
        found.setdefault(key, []).append(0.5 * (1 + np.sign(gap)))
    return found


@pytest.mark.parametrize("on", ["phone", "speaker"])
@pytest.mark.parametrize("speakers", ["within", "across"])
@pytest.mark.parametrize("in_context", [False, True])
def test_cells_are_those_of_a_loop_over_triples(on: On, speakers: Speakers, in_context: bool) -> None:
    tokens, frames = some_tokens()
    condition = replace(WITHIN, on=on, speakers=speakers, in_context=in_context)
    segments = segments_of(
        [torch.from_numpy(each) for each in frames],
        FRAME_DISTANCES["euclidean"],
        pooling="dtw",
        device=torch.device("cpu"),
        memory_bytes=10**9,
    )
    every = np.arange(len(tokens))
    (distances,) = tables(
        segments, [TableRequest(every, every.copy())], FRAME_DISTANCES["euclidean"].between, memory_bytes=10**8
    )
    expected = looped(tokens, condition, distances)
    cells = cells_of(frames, tokens, condition)
    found = {(each.a, each.b, each.group, each.context, tokens[each.first_x].speaker): each for each in cells}
    assert len(found) == len(cells)
    assert found.keys() == expected.keys()
    for key, errors in expected.items():
        assert (found[key].twice_errors, found[key].triples) == (2 * sum(errors), len(errors))


def test_at_most_so_many_tokens_and_speakers_are_drawn_and_each_seed_draws_its_own() -> None:
    tokens, frames = some_tokens(200)
    capped = replace(ACROSS, max_size_group=3, max_x_across=1)
    cells = cells_of(frames, tokens, capped)
    assert max(each.triples for each in cells) == 27
    of_pair = Counter((each.a, each.b, each.group, each.context) for each in cells)
    assert set(of_pair.values()) == {1}  # one speaker of X
    assert cells == cells_of(frames, tokens, capped)
    assert cells != cells_of(frames, tokens, capped, seed=1)
    # A draw does not depend on the rest of the corpus.
    more = [*tokens, *(replace(each, speaker="s9") for each in tokens)]
    within = replace(WITHIN, max_size_group=3)
    again = [each for each in cells_of([*frames, *frames], more, within) if each.group != "s9"]
    assert again == cells_of(frames, tokens, within)


def test_tokens_without_frames_leave_their_cells() -> None:
    tokens, _ = some_tokens()
    blocks = blocks_of(tokens, range(len(tokens)), WITHIN, 0)
    everything = {number for block in blocks.values() for of_class in block.values() for number in of_class}
    gone = {min(everything), *(number for number in everything if tokens[number].label == "a")}
    kept = restricted(blocks, everything - gone)
    assert {
        number for block in kept.values() for of_class in block.values() for number in of_class
    } == everything - gone
    assert {name for block in kept.values() for name in block} == {"b", "c"}
    assert restricted(blocks, everything) == blocks


UNEQUAL = {
    "angular": [0.33848754, 0.35331018, 0.35401749, 0.37005960, 0.51921457],
    "euclidean": [0.28247462, 0.28616095, 0.29949803, 0.31201763, 0.49339955],
}
"""The error rates of fastabx 0.9.0 on 150 segments of 1 to 11 frames: within, within in context, across, across in
context, and of speakers in context."""


@pytest.mark.parametrize("distance", list(UNEQUAL))
@pytest.mark.parametrize(
    ("number", "condition"),
    list(
        enumerate(
            [
                WITHIN,
                replace(WITHIN, in_context=True),
                ACROSS,
                replace(ACROSS, in_context=True),
                replace(WITHIN, on="speaker", in_context=True),
            ]
        )
    ),
)
def test_segments_of_unequal_lengths_have_the_rates_of_fastabx(
    distance: str, number: int, condition: Condition
) -> None:
    random = np.random.default_rng(0)
    phones, speakers, contexts = (random.integers(0, most, 150) for most in (4, 4, 3))
    lengths = random.integers(1, 12, 150)
    frames = random.standard_normal((lengths.sum(), 8)).astype(np.float32)
    frames += np.repeat(phones, lengths)[:, None] * 0.3
    tokens = [
        Token(0, 1, "abcd"[phone], ["x-y", "y-z", "q-q"][context], f"s{speaker}")
        for phone, speaker, context in zip(phones, speakers, contexts, strict=True)
    ]
    cells = cells_of(np.split(frames, lengths.cumsum()[:-1]), tokens, condition, distance)
    assert rate(cells, tokens) == pytest.approx(UNEQUAL[distance][number], abs=1e-7)


def test_contexts_speakers_and_pairs_are_averaged_in_turn_without_weights() -> None:
    cells = [
        Cell("a", "b", "s1", "x", 0, 1),  # a context without errors
        Cell("a", "b", "s1", "y", 200, 100),  # and one with all, however many triples it has: 1/2
        Cell("a", "b", "s2", "x", 1, 1),  # 1/2 -> pair (a, b): 1/2
        Cell("b", "a", "s1", "x", 2, 1),  # pair (b, a): 1
    ]
    assert error_rate(summed_over_contexts(cells)) == pytest.approx(0.75)
    assert error_rate(summed_over_contexts(cells[::-1])) == error_rate(summed_over_contexts(cells))
    assert error_rate([]) is None


@pytest.mark.parametrize("wrong", [(3, 1), (0, 0), (-1, 2)])
def test_a_cell_cannot_have_more_errors_than_triples(wrong: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="half errors in"):
        validate([Cell("a", "b", "s", "", *wrong)])


def test_a_token_has_the_frames_whose_centres_lie_in_it() -> None:
    def frames(start_s: float, end_s: float, *, is_closed: bool = False) -> range:
        token = Token(start_s, end_s, "a", "", "s", is_closed)
        return token.frames(sample_rate_hz=16_000, hop=160, first_center=200)  # at 12.5 ms, 22.5 ms, ...

    assert frames(0.0125, 0.0325) == range(2)  # up to but not including the end
    assert frames(0.0125, 0.0325, is_closed=True) == range(3)
    assert len(frames(0.013, 0.022)) == 0  # between two centres
    assert frames(0, 0.04) == range(3)


def test_neighbours_are_the_context_and_silence_is_no_token() -> None:
    phones = (Phone(0, 1, "sil"), Phone(1, 2, "a"), Phone(2, 3, "b"), Phone(3.5, 4, "a"))
    tokens = tokens_of(phones, "s", frozenset({"sil"}))
    assert [(each.label, each.context) for each in tokens] == [("a", "sil-b"), ("b", "a-#"), ("a", "#-#")]
