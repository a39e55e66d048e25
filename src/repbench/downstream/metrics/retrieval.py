"""Average precision of pairs, and the term-weighted value of detections.

Conventions: a higher score is a better match. What is undefined is None.

Metrics:
    average_precision: mean over the positive pairs of the precision of all pairs that score at least as high. In
        [0, 1], higher is better; the chance is about the share of positives. Undefined without a positive pair.
    term_weighted_value: 1 - mean over terms of (P_miss + beta P_fa), with P_miss the share of the term's occurrences
        that are not detected, P_fa the share of other documents that are, and beta = (C_fa / C_miss)(1 / P_target - 1).
        At most 1, higher is better; 0 where nothing is detected. Terms that occur nowhere, or everywhere, are left out.
    most_term_weighted_value: its maximum over one threshold for all terms, that of no detection included.

The costs are those of the scorer of QUESST 2014 and 2015: P_target = 0.0008, C_fa = 1, C_miss = 100, so beta = 12.49.

Reference:
    Carlin et al., Rapid evaluation of speech representations for spoken term discovery, Interspeech 2011; Anguera et
    al., Query by Example Search on Speech at MediaEval 2014; Fiscus et al., Results of the 2006 Spoken Term Detection
    Evaluation, 2007.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

TARGET_PRIOR = 0.0008
FALSE_ALARM_COST = 1.0
MISS_COST = 100.0

BETA = FALSE_ALARM_COST / MISS_COST * (1 / TARGET_PRIOR - 1)
"""The weight of false alarms against misses in the term-weighted value."""

Floats = NDArray[np.floating[Any]]
Truths = NDArray[np.bool_]


def average_precision(scores: Floats, is_positive: Truths) -> float | None:
    """The average precision of (P,) pairs; those with equal scores are retrieved together."""
    num_positive = int(is_positive.sum())
    if not num_positive:
        return None
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    hits = np.cumsum(is_positive[order])
    # (P,) -> (G,): the last place of each group of equal scores
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    new_hits = np.diff(hits[ends], prepend=0)
    return float((new_hits * hits[ends] / (ends + 1)).sum() / num_positive)


def term_weighted_value(detected: Sequence[Truths], occurs: Sequence[Truths]) -> float | None:
    """The term-weighted value of decisions.

    Args:
        detected: For each term (D,), in which documents it is detected.
        occurs: For each term (D,), in which documents it occurs.
    """
    values = [
        1 - float((~found)[there].mean()) - BETA * float(found[~there].mean())
        for found, there in zip(detected, occurs, strict=True)
        if there.any() and not there.all()
    ]
    return math.fsum(values) / len(values) if values else None


def most_term_weighted_value(scores: Sequence[Floats], occurs: Sequence[Truths]) -> tuple[float, float] | None:
    """The greatest term-weighted value over thresholds, and the threshold: what scores as high is detected.

    Args:
        scores: For each term (D,), one score a document.
        occurs: For each term (D,), in which documents it occurs.

    Returns:
        None without a term; the threshold is infinite where no detection is best.
    """
    kept = [(own, there) for own, there in zip(scores, occurs, strict=True) if there.any() and not there.all()]
    if not kept:
        return None
    # What a detection adds to the value of its term: 1 / occurrences, or -beta / other documents. (trials,)
    gains = np.concatenate([np.where(there, 1 / there.sum(), -BETA / (~there).sum()) for _, there in kept])
    every = np.concatenate([own for own, _ in kept])
    order = np.argsort(-every, kind="stable")
    ranked = every[order]
    totals = np.cumsum(gains[order]) / len(kept)
    # A threshold takes all trials of a score or none. (trials,) -> (thresholds,)
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    best = int(totals[ends].argmax())
    value = float(totals[ends][best])
    return (value, float(ranked[ends][best])) if value > 0 else (0.0, math.inf)
