"""Equal error rate, detection cost and calibration of scored trials.

Conventions: a trial is a score and whether both sides are of one speaker (a target). It is accepted where its score is
at least the threshold: P_miss is the share of targets that are not accepted, P_fa the share of the other trials that
are. Trials of equal scores are accepted together, so that n distinct scores have n + 1 operating points, from accepting
none (P_miss 1, P_fa 0) to accepting all. Every metric is undefined, None, without a target or without another trial.

Metrics:
    eer: the rate at which P_miss = P_fa on the curve that joins neighbouring operating points with straight lines: the
        root that brentq finds on a linear interpolation of the ROC curve. A tie of targets with others is a line, so
        that scores that are all equal have 0.5. In [0, 1], lower is better.
    min_dcf: least normalised detection cost over all operating points, [p P_miss + (1 - p) P_fa] / min(p, 1 - p), with
        the prior p of a target and costs of 1. In [0, 1], lower is better: accepting none, or all, costs 1 at most.
    cllr: [mean of log2(1 + exp(-s)) over targets + mean of log2(1 + exp(s)) over the others] / 2 for scores that are
        natural logarithms of likelihood ratios. In bits; from 0, 1 is the cost of scores that are all 0; lower is
        better.
    min_cllr: cllr after the best rising map of scores to likelihood ratios (pool adjacent violators). In [0, 1].

Axes: n trials, k distinct scores.

Reference:
    Martin et al., The DET curve in assessment of detection task performance, Eurospeech 1997; Brümmer and du Preez,
    Application-independent evaluation of speaker detection, Computer Speech and Language 20, 2006; the NIST speaker
    recognition evaluations for the cost.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]


class RankedTrials(NamedTuple):
    """Trials by falling score.

    Attributes:
        scores: (n,) from the highest to the lowest.
        targets: (n,) whether both sides are of one speaker.
    """

    scores: Floats
    targets: Booleans

    @classmethod
    def of(cls, scores: ArrayLike, targets: ArrayLike) -> Self:
        """Sort trials that come in any order; errors as `validate`."""
        given, is_target = validate(scores, targets)
        order = np.argsort(-given, kind="stable")
        return cls(given[order], is_target[order])

    def where(self, kept: Booleans) -> RankedTrials:
        """Some of the trials, (n,) in this order."""
        return RankedTrials(self.scores[kept], self.targets[kept])


class ErrorRates(NamedTuple):
    """The k + 1 operating points, from accepting none to accepting all.

    Attributes:
        miss: (k + 1,) P_miss, which falls from 1 to 0.
        false_alarm: (k + 1,) P_fa, which rises from 0 to 1.
    """

    miss: Floats
    false_alarm: Floats


def validate(scores: ArrayLike, targets: ArrayLike) -> tuple[Floats, Booleans]:
    """Both as (n,) arrays.

    Raises:
        ValueError: They are not as many, a score is NaN or infinite, or a target is not true or false (1 or 0).
    """
    given, is_target = np.asarray(scores, dtype=np.float64), np.asarray(targets)
    if given.ndim != 1 or given.shape != is_target.shape:
        raise ValueError(f"scores and targets must be lists of one length, but are {given.shape} and {is_target.shape}")
    if not np.isfinite(given).all():
        raise ValueError("scores must be finite numbers")
    if not np.isin(is_target, (0, 1)).all():
        raise ValueError(f"targets must be true or false, but one is {is_target[~np.isin(is_target, (0, 1))][0]!r}")
    return given, is_target.astype(bool)


def error_rates(trials: RankedTrials) -> ErrorRates | None:
    """P_miss and P_fa at each operating point; None without a target or without another trial."""
    hits, alarms = _accepted(trials)
    if not len(hits) or not hits[-1] or not alarms[-1]:
        return None
    # (k,) -> (k + 1,): before the first score is accepted, none is
    return ErrorRates(
        miss=np.concatenate([[1.0], (hits[-1] - hits) / hits[-1]]),
        false_alarm=np.concatenate([[0.0], alarms / alarms[-1]]),
    )


def eer(rates: ErrorRates) -> float:
    """The equal error rate."""
    gap = rates.miss - rates.false_alarm  # (k + 1,) falls from 1 to -1, at every point
    right = int(np.argmax(gap <= 0))
    # On the line from `left` to `right` the gap is 0 after a share of the way that follows from its ends.
    left = right - 1
    share = gap[left] / (gap[left] - gap[right])
    return float(rates.false_alarm[left] + share * (rates.false_alarm[right] - rates.false_alarm[left]))


def min_dcf(rates: ErrorRates, target_prior: float) -> float:
    """The least normalised detection cost.

    Raises:
        ValueError: The prior is not between 0 and 1.
    """
    if not 0 < target_prior < 1:
        raise ValueError(f"`target_prior` must lie between 0 and 1, but is {target_prior:g}")
    cost = target_prior * rates.miss + (1 - target_prior) * rates.false_alarm
    return float(cost.min() / min(target_prior, 1 - target_prior))


def cllr(trials: RankedTrials) -> float | None:
    """The cost of scores that are natural logarithms of likelihood ratios, in bits."""
    targets, others = trials.scores[trials.targets], trials.scores[~trials.targets]
    if not len(targets) or not len(others):
        return None
    # logaddexp(0, x) is log(1 + exp(x)) without overflow
    cost = np.logaddexp(0.0, -targets).mean() + np.logaddexp(0.0, others).mean()
    return float(cost) / (2 * math.log(2))


def min_cllr(trials: RankedTrials) -> float | None:
    """`cllr` after the best rising map of the scores, in bits."""
    from scipy.optimize import isotonic_regression

    hits, alarms = _accepted(trials)
    if not len(hits) or not hits[-1] or not alarms[-1]:
        return None
    # (k,) targets and others of each distinct score, from the lowest up
    targets = np.diff(hits, prepend=0)[::-1].astype(np.float64)
    others = np.diff(alarms, prepend=0)[::-1].astype(np.float64)
    counts = targets + others
    share = isotonic_regression(targets / counts, weights=counts).x  # (k,) share of targets, which rises
    # The likelihood ratio of a score is the odds of its share over the odds of all, T to N.
    all_targets, all_others = targets.sum(), others.sum()
    odds = all_targets / all_others
    known_targets, known_others = targets > 0, others > 0
    ratio = (1 - share[known_targets]) / share[known_targets] * odds  # of targets, inverted: their share is above 0
    cost = float(targets[known_targets] @ np.log1p(ratio)) / all_targets
    ratio = share[known_others] / (1 - share[known_others]) / odds  # of others, whose share of targets is below 1
    cost += float(others[known_others] @ np.log1p(ratio)) / all_others
    return float(cost) / (2 * math.log(2))


def _accepted(trials: RankedTrials) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(k,) targets and (k,) other trials whose score is at least each of the distinct scores, from the highest down."""
    if not len(trials.scores):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    # (n,) -> (k,) places of the last trial of each score
    last = np.flatnonzero(np.append(np.diff(trials.scores) != 0, True))
    hits = np.cumsum(trials.targets, dtype=np.int64)[last]
    return hits, last + 1 - hits
