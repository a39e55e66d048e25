"""Distances between frames, for tasks that align frames without training.

Conventions: frames are rows of float32. A distance is a pair of functions: `prepare` is applied once to all frames that
are compared, and `between` gives the distances of prepared frames. 0 is equal; no distance is negative.

Distances of x and y:
    angular: arccos of the cosine of x and y, divided by pi. In [0, 1]. A frame of zeros has no direction: it is at
        distance 0 from another frame of zeros and at 1/2 from every other frame. In float32 two equal frames can be at
        up to about 3e-4, so that ties of repeated frames (centroids of discrete units) are not kept: see `identical`.
    cosine: another name of `angular`, as in the ZeroSpeech challenges and in fastabx.
    cosine_exp: exp(1 - cosine) - 1, as in SUPERB's query by example. In [0, e^2 - 1].
    euclidean: the length of x - y.
    kl: the symmetric Kullback-Leibler divergence of two distributions, half the sum over classes of
        (x - y)(log(x + 1e-6) - log(y + 1e-6)).
    identical: 0 if all values are equal, else 1; for discrete units.

Axes: F frames, D width, E width of a prepared frame, M and N frames that are compared.

Reference:
    Schatz, ABX-Discriminability Measures and Applications, PhD thesis, 2016; Poli et al., fastabx, arXiv 2505.02692.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from repbench.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

_LOG_FLOOR = 1e-6
"""Added to a probability before its logarithm is taken, as fastabx does."""

_SUM_TOLERANCE = 1e-3
"""How far the sum of a distribution may be from 1."""


@dataclass(frozen=True, slots=True)
class FrameDistance:
    """A distance between frames.

    Attributes:
        prepare: (F, D) float32 -> (F, E), for all frames together; no input is changed.
        between: (..., M, E) and (..., N, E) -> (..., M, N).
    """

    prepare: Callable[[Tensor], Tensor]
    between: Callable[[Tensor, Tensor], Tensor]


def directions(frames: Tensor) -> Tensor:
    """(F, D) -> (F, D + 1): frames of length 1; the last value is 1 for a frame of zeros, whose others stay 0."""
    import torch

    norms = frames.norm(dim=-1, keepdim=True)  # (F, D) -> (F, 1)
    is_zero = (norms == 0).to(frames.dtype)
    return torch.cat([frames / (norms + is_zero), is_zero], dim=-1)


def _angles(first: Tensor, second: Tensor) -> Tensor:
    # (..., M, E) (..., N, E) -> (..., M, N); in place, because this is the largest tensor of an alignment
    return (first @ second.transpose(-1, -2)).clamp_(-1, 1).acos_().div_(math.pi)


def _cosine_exp(first: Tensor, second: Tensor) -> Tensor:
    # exp(1 - c) - 1 = expm1(1 - c); (..., M, E) (..., N, E) -> (..., M, N)
    return (first @ second.transpose(-1, -2)).clamp_(-1, 1).neg_().add_(1).expm1_()


def _euclidean(first: Tensor, second: Tensor) -> Tensor:
    import torch

    # Not by products, which lose the digits of small distances: |x|^2 + |y|^2 - 2xy cancels.
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")


def distributions(frames: Tensor) -> Tensor:
    """(F, D) -> (F, 2 D + 1): probabilities, their logarithms less the mean of these, and the sum of the products.

    The mean cancels in the divergence of two distributions, and without it products of float32 keep more digits.

    Raises:
        DataError: A frame is no distribution.
    """
    import torch

    is_one = ((frames.sum(dim=-1) - 1).abs() <= _SUM_TOLERANCE) & (frames >= 0).all(dim=-1)  # (F, D) -> (F,)
    if not bool(is_one.all()):
        number = int((~is_one).nonzero()[0])
        what = f"The distance `kl` compares probabilities, but frame {number} of those compared is no distribution"
        do = "Take layers whose values are positive with the sum 1, or another `task.distance`"
        raise DataError(what, key="task.distance", do=do)
    logs = (frames + _LOG_FLOOR).log()
    logs = logs - logs.mean(dim=-1, keepdim=True)
    return torch.cat([frames, logs, (frames * logs).sum(dim=-1, keepdim=True)], dim=-1)


def _divergences(first: Tensor, second: Tensor) -> Tensor:
    import torch

    width = first.shape[-1] // 2
    # (p - q)(log p - log q) = p log p + q log q - p log q - q log p: one product of (p, log p) with (log q, q)
    turned = torch.cat([second[..., width : 2 * width], second[..., :width]], dim=-1)
    crossed = first[..., : 2 * width] @ turned.transpose(-1, -2)  # (..., M, 2D) (..., N, 2D) -> (..., M, N)
    own = first[..., -1:] + second[..., -1:].transpose(-1, -2)  # (..., M, 1) (..., 1, N) -> (..., M, N)
    return own.sub_(crossed).mul_(0.5).clamp_min_(0)


def _kinds(frames: Tensor) -> Tensor:
    """(F, D) -> (F, 1): the number of each distinct frame."""
    import torch

    _, kinds = torch.unique(frames, dim=0, return_inverse=True)
    numbers: Tensor = kinds.unsqueeze(-1)  # (F,) -> (F, 1)
    return numbers


def _differ(first: Tensor, second: Tensor) -> Tensor:
    import torch

    # (..., M, 1) (..., 1, N) -> (..., M, N)
    return (first != second.transpose(-1, -2)).to(torch.float32)


def _unchanged(frames: Tensor) -> Tensor:
    return frames


_ANGULAR = FrameDistance(prepare=directions, between=_angles)

FRAME_DISTANCES = {
    "angular": _ANGULAR,
    "cosine": _ANGULAR,
    "cosine_exp": FrameDistance(prepare=directions, between=_cosine_exp),
    "euclidean": FrameDistance(prepare=_unchanged, between=_euclidean),
    "kl": FrameDistance(prepare=distributions, between=_divergences),
    "identical": FrameDistance(prepare=_kinds, between=_differ),
}
"""From the name of a distance to its functions."""
