"""Whether an utterance can be scored: the short way agrees with the grid."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from repbench.corpora.contract import Phone, Utterance
from repbench.downstream.contract import LabelledUtterance
from repbench.downstream.problems import PROBLEMS
from repbench.downstream.problems.scoring_grid import UNLABELLED, instants_s, is_first_labelled, labels_at, num_instants


def drawn(draw: Random) -> tuple[Phone, ...]:
    """Up to four phones, some with edges at instants, some between two of them."""
    edges = sorted(draw.choice([draw.randrange(12) / 200, draw.uniform(0, 0.06)]) for _ in range(2 * draw.randrange(5)))
    return tuple(Phone(start, end, "x") for start, end in zip(edges[::2], edges[1::2], strict=True) if start < end)


@pytest.mark.parametrize("seed", range(300))
def test_an_utterance_is_scored_if_an_instant_is_labelled(seed: int) -> None:
    draw = Random(seed)
    phones, num_samples = drawn(draw), draw.randrange(1, 500)
    utterance = Utterance(id="u", audio=Path("/u"), sample_rate_hz=8_000, num_samples=num_samples, samples_sha256="0")
    count = num_instants(num_samples, 8_000)
    labels = labels_at(instants_s(count), phones, {"x": 0})
    problem = PROBLEMS["frame-classification"]
    assert problem.is_scored(LabelledUtterance(utterance, phones)) == bool((labels != UNLABELLED).any())
    if phones and is_first_labelled(count, phones):
        assert (
            labels_at(instants_s(count), phones, {"x": 0}) == labels_at(instants_s(count), phones[:1], {"x": 0})
        ).any()


def test_the_first_phone_has_no_instant_that_the_next_one_takes() -> None:
    phones = (Phone(0.0, 0.004, "a"), Phone(0.004, 0.02, "b"))
    assert not is_first_labelled(2, phones)
    assert not is_first_labelled(2, (Phone(0.0, 0.02, "a"), Phone(0.001, 0.02, "b")))
    assert is_first_labelled(1, (Phone(0.0, 0.02, "a"),))
    assert not is_first_labelled(0, (Phone(0.0, 0.02, "a"),))
