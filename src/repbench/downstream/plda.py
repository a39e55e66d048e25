"""Probabilistic linear discriminant analysis: log-likelihood ratios of one speaker against two.

The two-covariance model: a vector is x = m + y + e, with y ~ N(0, B) of its speaker and e ~ N(0, W) of itself. It is
trained by expectation and maximisation on vectors that are centred, whitened and brought to one length, and scored in
the coordinates in which W is the identity and B diagonal. There the ratio is a sum over dimensions in closed form.

Axes: N training vectors, S training speakers, D width of a vector, P dimensions that are kept.

Reference:
    Brümmer and de Villiers, The speaker partitioning problem, Odyssey 2010 (the model); Garcia-Romero and Espy-Wilson,
    Analysis of i-vector length normalization in speaker recognition systems, Interspeech 2011 (the length).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from repbench.errors import DataError

Floats = NDArray[np.float64]

ITERATIONS = 20
"""Of expectation and maximisation."""

_LEAST_VARIANCE = 1e-8
"""Of a direction that is kept, as a share of the greatest: what is less is rounding."""

_RIDGE = 1e-6
"""Added to the variances within speakers, in units of the whitened total: a direction may not vary within any."""


@dataclass(frozen=True, slots=True)
class Whitening:
    """From vectors to ones that are centred, white on train, and of length √P.

    Attributes:
        mean: (D,) of train.
        directions: (D, P).
    """

    mean: Floats
    directions: Floats

    @classmethod
    def fitted(cls, vectors: Floats, most: int) -> Self:
        """The directions of train with the greatest variance, at most so many.

        Args:
            vectors: (N, D).
            most: P at most.

        Raises:
            DataError: All vectors are equal.
        """
        mean = vectors.mean(axis=0)
        # (N, D) = U diag(s) V: the squares of s over N are the variances along the rows of V
        _, sizes, rows = np.linalg.svd(vectors - mean, full_matrices=False)
        variances = sizes**2 / len(vectors)
        # Equal vectors differ from their mean by rounding alone.
        if variances[0] <= (1e-12 * np.abs(vectors).max()) ** 2:
            what = "PLDA cannot be trained: the vectors of all training utterances are equal"
            raise DataError(what, key="task.score", do="Choose another layer, or task.score=cosine")
        kept = min(most, int((variances > _LEAST_VARIANCE * variances[0]).sum()))
        return cls(mean, rows[:kept].T / np.sqrt(variances[:kept]))

    def __call__(self, vectors: Floats) -> Floats:
        """(N, D) -> (N, P)."""
        white = (vectors - self.mean) @ self.directions
        lengths = np.linalg.norm(white, axis=1, keepdims=True)
        # A vector that is the mean has no direction: it stays 0.
        scaled: Floats = white * math.sqrt(white.shape[1]) / np.where(lengths > 0, lengths, 1.0)
        return scaled


@dataclass(frozen=True, slots=True)
class TwoCovariances:
    """A trained model, in coordinates in which the covariance within speakers is the identity.

    Attributes:
        mean: (P,) of train.
        coordinates: (P, P) from centred vectors to these coordinates.
        between: (P,) variances between speakers.
    """

    mean: Floats
    coordinates: Floats
    between: Floats

    @classmethod
    def fitted(cls, vectors: Floats, speakers: Sequence[str], *, iterations: int = ITERATIONS) -> Self:
        """Maximise the likelihood of (N, P) vectors by expectation and maximisation.

        It starts from the covariance of the means of speakers and the pooled covariance within them. The mean is that
        of all vectors.

        Raises:
            DataError: There is one speaker, or no speaker has two vectors.
        """
        names, place = np.unique(np.asarray(speakers), return_inverse=True)
        counts = np.bincount(place).astype(np.float64)  # (S,)
        if len(names) < 2 or counts.max() < 2:
            found = "there is one speaker" if len(names) < 2 else "no speaker has two utterances"
            what = f"PLDA cannot be trained: in train {found}"
            raise DataError(what, key="task.score", do="Choose a corpus with more, or task.score=cosine")
        mean = vectors.mean(axis=0)
        centred = vectors - mean
        means = np.zeros((len(names), vectors.shape[1]))
        np.add.at(means, place, centred)
        means /= counts[:, None]  # (S, P)
        inner = centred - means[place]
        scatter = inner.T @ inner  # (P, P) within speakers, summed
        ridge = _RIDGE * np.eye(vectors.shape[1])
        within = scatter / max(len(vectors) - len(names), 1) + ridge
        between = means.T @ means / len(names)
        for _ in range(iterations):
            between, within = _step(means, counts, scatter, between, within)
            within = within + ridge
        variances, coordinates = _diagonal(between, within)
        return cls(mean, coordinates, np.maximum(variances, 0.0))

    def project(self, vectors: Floats) -> Floats:
        """(N, P) vectors in the coordinates of the model."""
        projected: Floats = (vectors - self.mean) @ self.coordinates
        return projected

    def ratios(self, enrolled: Floats, counts: NDArray[np.int64], tested: Floats) -> Floats:
        """(N,) natural logarithms of the likelihood ratio of one speaker against two.

        With n enrolled vectors of mean u, the speaker's posterior has in each dimension of variance b the mean
        n b / (1 + n b) u and the variance b / (1 + n b); the test vector t then is normal with this mean and that
        variance + 1, against N(0, b + 1) of another speaker.

        Args:
            enrolled: (N, P) means of the enrolled vectors, projected.
            counts: (N,) numbers of them.
            tested: (N, P) test vectors, projected.
        """
        several = counts[:, None] * self.between  # (N, 1), (P,) -> (N, P)
        expected = several / (1 + several) * enrolled
        same = self.between / (1 + several) + 1
        other = self.between + 1
        logs = (tested**2 / other - (tested - expected) ** 2 / same + np.log(other) - np.log(same)) / 2
        ratios: Floats = logs.sum(axis=1)  # (N, P) -> (N,)
        return ratios


def _diagonal(between: Floats, within: Floats) -> tuple[Floats, Floats]:
    """(P,) variances between and (P, P) coordinates V: Vᵀ W V is the identity and Vᵀ B V diagonal."""
    from scipy.linalg import eigh

    variances, coordinates = eigh(between, within)
    return variances, coordinates


def _step(means: Floats, counts: Floats, scatter: Floats, between: Floats, within: Floats) -> tuple[Floats, Floats]:
    """One step: the next covariances between and within.

    Args:
        means: (S, P) of the speakers' vectors, centred.
        counts: (S,) numbers of these vectors.
        scatter: (P, P) of all vectors around the means of their speakers, summed.
        between: (P, P).
        within: (P, P).
    """
    variances, coordinates = _diagonal(between, within)
    variances = np.maximum(variances, 0.0)
    own = means @ coordinates  # (S, P) in coordinates in which the posteriors of y are independent
    several = counts[:, None] * variances  # (S, P)
    expected = several / (1 + several) * own
    spread = variances / (1 + several)
    error = own - expected
    # Sums over speakers of E[y yᵀ] and of the n E[(mean - y)(mean - y)ᵀ]
    of_speakers = expected.T @ expected + np.diag(spread.sum(axis=0))
    of_vectors = (error * counts[:, None]).T @ error + np.diag((counts[:, None] * spread).sum(axis=0))
    # Back: V is not orthogonal, so a covariance C of the coordinates is V⁻ᵀ C V⁻¹.
    back = np.linalg.inv(coordinates)
    new_between = back.T @ of_speakers @ back / len(counts)
    new_within = (scatter + back.T @ of_vectors @ back) / counts.sum()
    return _symmetric(new_between), _symmetric(new_within)


def _symmetric(matrix: Floats) -> Floats:
    """Without the rounding by which both halves differ."""
    halved: Floats = (matrix + matrix.T) / 2
    return halved
