"""What is told apart: tests of two systems, and what remains of them when many are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from repbench.benchmark.scoring.statistics.intervals import ROUNDING

Item = TypeVar("Item")


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """McNemar's exact test: the two-sided binomial p-value of the utterances that only one system has right.

    For independent utterances only: never for frames, and for utterances of few speakers `paired_differences` or
    `randomisation_p` is the honest one. 1.0 where the systems err alike.

    Args:
        only_a: Utterances that A has right and B wrong.
        only_b: Utterances that B has right and A wrong.

    Reference:
        McNemar, Note on the sampling error of the difference between correlated proportions, Psychometrika 12, 1947.
    """
    if only_a < 0 or only_b < 0:
        raise ValueError(f"`only_a` and `only_b` must be counts, but are {only_a} and {only_b}")
    if only_a + only_b == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue)


def randomisation_p(
    clusters_a: Sequence[Sequence[Item]],
    clusters_b: Sequence[Sequence[Item]],
    measure: Callable[[list[Item]], Mapping[str, float | None]],
    name: str,
    *,
    rounds: int = 10_000,
    seed: int = 0,
) -> float:
    """Two-sided approximate randomisation: is |A - B| more than what swapping whole clusters at random brings?

    In each round every cluster changes sides with probability one half. With c rounds whose difference is at least as
    large as the one seen, p = (c + 1) / (rounds + 1). A round in which the measure is undefined counts among the c.

    Args:
        clusters_a: The items of each cluster, as A answered them.
        clusters_b: The same clusters in the same order, as B answered them.
        measure: From items to named values.
        name: Of the value to compare.
        rounds: Random exchanges; the smallest p is 1 / (rounds + 1).
        seed: Of the exchanges.

    Raises:
        ValueError: The numbers of clusters differ, or the value is undefined for A or B.

    Reference:
        Noreen, Computer-Intensive Methods for Testing Hypotheses, 1989.
    """
    import numpy as np

    if len(clusters_a) != len(clusters_b):
        raise ValueError(f"A has {len(clusters_a)} clusters, but B has {len(clusters_b)}")

    def difference(swapped: Sequence[bool]) -> float | None:
        sides: tuple[list[Item], list[Item]] = ([], [])
        for swap, a, b in zip(swapped, clusters_a, clusters_b, strict=True):
            sides[0].extend(b if swap else a)
            sides[1].extend(a if swap else b)
        first, second = (measure(side)[name] for side in sides)
        return None if first is None or second is None else abs(first - second)

    seen = difference([False] * len(clusters_a))
    if seen is None:
        raise ValueError(f"`{name}` is undefined for one of the systems")
    generator = np.random.default_rng(seed)
    swaps = generator.integers(0, 2, size=(rounds, len(clusters_a))).astype(bool)
    drawn = (difference(swapped) for swapped in swaps.tolist())
    reached = sum(each is None or each >= seen - ROUNDING for each in drawn)
    return (reached + 1) / (rounds + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for the family that they form, in the order given.

    The k-th smallest of n is multiplied by n - k + 1, never falls below the one before it, and never exceeds 1. What is
    then at most α can be called a difference, with at most α for one false call among all.

    Reference:
        Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979.
    """
    adjusted = [0.0] * len(p_values)
    floor = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = floor
    return adjusted


def tie_group(
    best: str, p_values: Mapping[str, float | None], *, beside: Sequence[float] = (), level: float = 0.95
) -> frozenset[str]:
    """The systems that cannot be told from the best, the best among them.

    The family is what is shown: the comparisons of the best with each other system and those in `beside`, adjusted by
    `holm`. A comparison that is undefined (one cluster, or systems that agree everywhere) tells nothing apart.

    Args:
        best: The system with the best value.
        p_values: Of the difference between the best and each other system.
        beside: p-values of the other comparisons shown with these, such as those in other columns of the table.
        level: 1 minus the chance of telling equals apart anywhere in the family.
    """
    known = {name: p_value for name, p_value in p_values.items() if p_value is not None and name != best}
    adjusted = dict(zip(known, holm([*known.values(), *beside]), strict=False))
    return frozenset({best, *(name for name in p_values if adjusted.get(name, 1.0) > 1 - level)})
