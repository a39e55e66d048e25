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
from repbench.downstream.discrimination.cells import Condition, FoundCell, On, Speakers, tables_of
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
    wanted = tables_of(tokens, condition, seed)
    places = {number: number for number in range(len(tokens))}
    found = tables(segments, [each.request(places) for each in wanted], chosen.between, 10**8)
    return [cell for table, distances in zip(wanted, found, strict=True) for cell in table.cells(distances)]


def rate(cells: Sequence[FoundCell], tokens: Sequence[Token]) -> float | None:
    names = sorted({cell.a for cell in cells} | {cell.b for cell in cells})
    of_speaker: dict[str, list[Cell]] = {}
    for each in cells:
        counted = Cell(
            names.index(each.a), names.index(each.b), each.group, each.context, each.twice_errors, each.triples
        )
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


def test_contexts_speakers_and_pairs_are_averaged_in_turn_without_weights() -> None:
    cells = [
        Cell(0, 1, "s1", "x", 0, 1),  # a context without errors
        Cell(0, 1, "s1", "y", 200, 100),  # and one with all, however many triples it has: 1/2
        Cell(0, 1, "s2", "x", 1, 1),  # 1/2 -> pair (0, 1): 1/2
        Cell(1, 0, "s1", "x", 2, 1),  # pair (1, 0): 1
    ]
    assert error_rate(summed_over_contexts(cells)) == pytest.approx(0.75)
    assert error_rate(summed_over_contexts(cells[::-1])) == error_rate(summed_over_contexts(cells))
    assert error_rate([]) is None


@pytest.mark.parametrize("wrong", [Cell(0, 1, "s", "", 3, 1), Cell(0, 1, "s", "", 0, 0), Cell(0, 1, "s", "", -1, 2)])
def test_a_cell_cannot_have_more_errors_than_triples(wrong: Cell) -> None:
    with pytest.raises(ValueError, match="half errors in"):
        validate([wrong])


class Times:
    """Frames every 10 ms, the first centred at 12.5 ms."""

    sample_rate_hz, hop_samples, first_center_samples = 16_000, 160, 200


def test_a_token_has_the_frames_whose_centres_lie_in_it() -> None:
    times = Times()
    assert Token(0.0125, 0.0325, "a", "", "s").frames(times, 100) == range(0, 2)  # up to but not including the end
    assert Token(0.0125, 0.0325, "a", "", "s", is_closed=True).frames(times, 100) == range(0, 3)
    assert Token(0.013, 0.022, "a", "", "s").frames(times, 100) == range(1, 1)  # between two centres
    assert Token(0.0, 9.0, "a", "", "s").frames(times, 7) == range(0, 7)  # the utterance has no more
    assert len(Token(1.0, 2.0, "a", "", "s").frames(times, 7)) == 0


def test_neighbours_are_the_context_and_silence_is_no_token() -> None:
    phones = (Phone(0, 1, "sil"), Phone(1, 2, "a"), Phone(2, 3, "b"), Phone(3.5, 4, "a"))
    tokens = tokens_of(phones, "s", frozenset({"sil"}))
    assert [(each.label, each.context) for each in tokens] == [("a", "sil-b"), ("b", "a-#"), ("a", "#-#")]
