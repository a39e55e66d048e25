"""How well discrete units agree with phones, and how many bits they cost.

Conventions: `joint` (P, K) counts the frames of each phone and unit, over all utterances; `counts` (K,) counts symbols.
Counts are pooled and divided once. An undefined metric is None, never 0. Entropies are in bits.

Metrics:
    phone_normalised_mutual_information: PNMI, I(phone; unit) / H(phone). In [0, 1], higher is better: the share of the
        uncertainty about the phone that the unit removes. None without frames, and where there is one phone.
    phone_purity: sum over units of the frames of their most frequent phone, over all frames: the accuracy of the best
        map from unit to phone. In [0, 1], higher is better. It grows with the number of units.
    cluster_purity: the same with phones and units exchanged: it falls where a phone is spread over many units.
    conditional_entropy: H(phone | unit) = H(phone, unit) - H(unit), in bits. From 0, lower is better.
    bitrate: (n / seconds) H(symbol) of n symbols in bits per second, the entropy that of their frequencies: the rate of
        a code for each symbol alone, without memory. Lower is better. None without symbols or seconds.

References:
    Hsu et al., HuBERT: Self-supervised speech representation learning by masked prediction of hidden units, 2021.
    Dunbar et al., The Zero Resource Speech Challenge 2019: TTS without T, 2019 (bitrate).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Counts = NDArray[np.int64]


def validate(counts: ArrayLike, num_axes: int) -> Counts:
    """Counts as an array of int64 with `num_axes` axes.

    Raises:
        ValueError: They have other axes, are negative or no whole numbers.
    """
    given = np.asarray(counts)
    if given.ndim != num_axes:
        raise ValueError(f"counts must have {num_axes} axes, but have the shape {given.shape}")
    whole: Counts = given.astype(np.int64)
    if (whole != given).any() or (whole < 0).any():
        raise ValueError("counts must be whole numbers from 0 on")
    return whole


def entropy(counts: ArrayLike) -> float | None:
    """The entropy, in bits, of the frequencies of counts of any shape; None without any."""
    flat = np.asarray(counts, dtype=np.float64).ravel()
    total = float(flat.sum())
    if not total:
        return None
    shares = flat[flat > 0] / total
    # + 0.0: of a single symbol it is 0, not -0
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def phone_normalised_mutual_information(joint: ArrayLike) -> float | None:
    """PNMI of (P, K) frames."""
    counts = validate(joint, 2)
    of_phones, of_units, of_both = (entropy(each) for each in (counts.sum(axis=1), counts.sum(axis=0), counts))
    if not of_phones or of_units is None or of_both is None:
        return None
    # Rounding can leave it a few 1e-17 outside of its range.
    return min(1.0, max(0.0, (of_phones + of_units - of_both) / of_phones))


def phone_purity(joint: ArrayLike) -> float | None:
    """Share of the frames (P, K) whose phone is the most frequent one of their unit."""
    counts = validate(joint, 2)
    total = int(counts.sum())
    return float(counts.max(axis=0).sum()) / total if total else None


def cluster_purity(joint: ArrayLike) -> float | None:
    """Share of the frames (P, K) whose unit is the most frequent one of their phone."""
    return phone_purity(validate(joint, 2).T)  # (P, K) -> (K, P)


def conditional_entropy(joint: ArrayLike) -> float | None:
    """H(phone | unit) of (P, K) frames, in bits."""
    counts = validate(joint, 2)
    of_units, of_both = entropy(counts.sum(axis=0)), entropy(counts)
    return None if of_units is None or of_both is None else max(0.0, of_both - of_units)


def bitrate(counts: ArrayLike, seconds: float) -> float | None:
    """Bits per second of symbols with (K,) counts, in so many seconds."""
    symbols = validate(counts, 1)
    each = entropy(symbols)
    return None if each is None or seconds <= 0 else int(symbols.sum()) / seconds * each
