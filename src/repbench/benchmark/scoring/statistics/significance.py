"""Tests of two systems, and their adjustment for many comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """McNemar's exact test: the two-sided binomial p-value of the utterances that only one system predicts correctly.

    It assumes independent items: frames never are, and utterances of few speakers call for `paired_differences`. The
    p-value is 1.0 where both systems make the same errors.

    Args:
        only_a: Number of utterances that A predicts correctly and B does not.
        only_b: Number of utterances that B predicts correctly and A does not.

    Raises:
        ValueError: A count is negative.

    Reference:
        McNemar, Note on the sampling error of the difference between correlated proportions, Psychometrika 12, 1947.
    """
    if only_a < 0 or only_b < 0:
        raise ValueError(f"`only_a` and `only_b` must be counts, but are {only_a} and {only_b}")
    # Without discordant pairs the binomial has no trials.
    if only_a + only_b == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjustment of a family of p-values, in the order given.

    The k-th smallest of n is multiplied by n - k + 1, and is at least the one before it and at most 1. The probability
    of a false difference anywhere in the family is at most α if adjusted values up to α count as differences.

    Reference:
        Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979.
    """
    adjusted = [0.0] * len(p_values)
    floor = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        # `rank` counts from 0, so n - rank is n - k + 1. The running maximum keeps adjusted values in the order of the
        # raw ones.
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = floor
    return adjusted


def tie_group(
    best: str, p_values: Mapping[str, float | None], *, beside: Sequence[float] = (), level: float = 0.95
) -> frozenset[str]:
    """The systems that do not differ significantly from the best, with the best itself.

    The family is the comparisons of the best with each other system and those in `beside`, adjusted by `holm`. An
    undefined comparison (one cluster, or systems with equal numbers in each) is no significant difference.

    Args:
        best: The system with the best value.
        p_values: Of the difference between the best and each other system.
        beside: p-values of the other comparisons in the family, such as those in other columns of a table.
        level: 1 minus the probability of a false difference anywhere in the family.
    """
    known = {name: p_value for name, p_value in p_values.items() if p_value is not None and name != best}
    # `holm` keeps the order: the first values are those of `known`; those of `beside` only enlarge the family.
    adjusted = dict(zip(known, holm([*known.values(), *beside]), strict=False))
    return frozenset({best, *(name for name in p_values if adjusted.get(name, 1.0) > 1 - level)})
