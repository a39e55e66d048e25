"""Mutual information of the clusters of features with labels, as a share of the entropy of the labels.

    I(K; Y) / H(Y) from the contingency table of clusters and labels: 0 for clusters that are independent of the labels,
    1 for clusters that determine them.

It is the plug-in estimate, which is above 0 for unrelated labels by about (K - 1)(C - 1) / (2 N H(Y)) (nats): compare
with permuted labels. Logarithms cancel in the ratio.

Axes: N frames, D width, K clusters, C classes.

Reference:
    Pasad, Chou and Livescu, Layer-wise Analysis of a Self-supervised Speech Representation Model, ASRU 2021; Miller,
    Note on the Bias of Information Estimates, 1955.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from repbench.benchmark.similarity.cka import Floats, Frames

Integers = NDArray[np.int64]


def normalised_information(table: NDArray[np.int64] | Floats) -> float | None:
    """I(K; Y) / H(Y) of a (K, C) table of counts, in [0, 1]; None where the labels have one class.

    Example:
        >>> normalised_information(np.array([[4, 0], [0, 4]]))
        1.0
    """
    joint = table / max(table.sum(), 1)
    clusters, classes = joint.sum(axis=1), joint.sum(axis=0)
    entropy = _entropy(classes)
    if entropy <= 0.0:
        return None
    information = _entropy(clusters) + entropy - _entropy(joint.ravel())
    return float(max(information, 0.0) / entropy)


def _entropy(shares: Floats) -> float:
    """Entropy in nats; 0 log 0 is 0."""
    positive = shares[shares > 0]
    return float(-(positive * np.log(positive)).sum())


def contingency(clusters: Integers, labels: Integers, shape: tuple[int, int]) -> Integers:
    """(K, C) counts of (N,) clusters with (N,) labels."""
    # one number k C + c a frame -> (K C,) -> (K, C)
    counts = np.bincount(clusters * shape[1] + labels, minlength=shape[0] * shape[1])
    return counts.reshape(shape).astype(np.int64)


def clusters_of_frames(x: Frames, num_clusters: int, seed: int) -> Integers:
    """(N,) clusters of (N, D) features by minibatch k-means; no label is read.

    Args:
        x: (N, D).
        num_clusters: K; with fewer frames, as many as there are frames.
        seed: Of the initial centres and the batches.
    """
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    model = MiniBatchKMeans(min(num_clusters, len(x)), random_state=seed, batch_size=4096, n_init=1, max_iter=50)
    with warnings.catch_warnings():
        # Fewer different frames than clusters, as of constant features: some clusters stay empty, which the
        # information allows for.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = model.fit_predict(x.astype(np.float32))
    return np.asarray(found, dtype=np.int64)
