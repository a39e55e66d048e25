"""Heads that are fitted and not trained: neighbours, and a logistic regression, on the means of utterances.

`knn` and `nearest` keep the mean of each training utterance and compare directions; `logistic` is the linear head at
the optimum of a convex problem. None of them draws a number.

Axes: B training utterances, U utterances, D width, O outputs, k neighbours.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repbench.downstream.heads.contract import FitSettings, FittedHead, HeadInfo
from repbench.downstream.heads.frames import mean_of_each

LEAST_SCORE = -100.0
"""The score of `knn` for a class without a vote: log shares below it, which no share of a sum of ten weights reaches
with the usual temperature, are raised to it."""

_NO_UTTERANCE = -2.0
"""The score of `nearest` for a class without a training utterance: below every cosine."""

_NO_CLASS = -1e4
"""The logit of `logistic` for a class without a training utterance."""

_LONGEST_FIT = 1_000
"""Iterations of the logistic regression at most."""


class NeighbourHead(FittedHead):
    """The base of heads that compare a mean with those of the training utterances; arguments as `HeadFactory`.

    Attributes:
        bank: (B, D) float32, the mean of each training utterance, of length 1; a mean of zeros stays zero.
        labels: (B,) int64, the class of each.
    """

    bank: Tensor
    labels: Tensor

    def __init__(self, *, width: int, num_outputs: int, **unread: Any) -> None:
        super().__init__()
        self.num_outputs = num_outputs
        self.register_buffer("bank", torch.zeros(0, width))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.int64))

    def fit(self, means: Tensor, classes: Tensor, settings: FitSettings) -> tuple[str, ...]:
        """Keep the directions of (B, D) means and their (B,) classes."""
        self.bank, self.labels = F.normalize(means, dim=-1), classes.clone()
        return ()

    def cosines(self, means: Tensor) -> Tensor:
        """(U, B) cosines of means (U, D) with the training utterances."""
        return F.normalize(means, dim=-1) @ self.bank.t()  # (U, D) @ (D, B) -> (U, B)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: Any, *given: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *given)
        fits = self.labels.ndim == 1 and len(self.labels) == len(self.bank)
        if not fits or bool(((self.labels < 0) | (self.labels >= self.num_outputs)).any()):
            errors: list[str] = given[-1]
            errors.append(f"{len(self.bank)} means do not have a class each, of {self.num_outputs}")


class Knn(NeighbourHead):
    """`knn`: the k nearest training utterances vote for their classes, each with the weight exp(cosine / temperature).

    The score of a class is the logarithm of its share of all votes, at least `LEAST_SCORE`. Of utterances that are
    equally near the first in the order of train are taken.

    Reference:
        Wu et al., Unsupervised feature learning via non-parametric instance discrimination, 2018; with k = 10 and a
        temperature of 0.07 in X-ARES.
    """

    info = HeadInfo(name="knn", gives=("utterances",), linear_on_mean=True, fitted=True)
    neighbours: Tensor
    temperature: Tensor

    def __init__(self, *, width: int, num_outputs: int, **unread: Any) -> None:
        super().__init__(width=width, num_outputs=num_outputs)
        # In the file of the probe, which knows no settings.
        self.register_buffer("neighbours", torch.tensor(1))
        self.register_buffer("temperature", torch.tensor(1.0, dtype=torch.float64))

    def fit(self, means: Tensor, classes: Tensor, settings: FitSettings) -> tuple[str, ...]:
        """As the base, and keep both settings."""
        self.neighbours.fill_(settings.neighbours)
        self.temperature.fill_(settings.temperature)
        few = (f"there are {len(means)} training utterances, and all are neighbours",)
        return super().fit(means, classes, settings) + (few if len(means) < settings.neighbours else ())

    def scores_of_means(self, means: Tensor) -> Tensor:
        """Log shares of the votes."""
        every = self.cosines(means)
        count = min(int(self.neighbours), len(self.bank))
        scores = means.new_full((len(means), self.num_outputs), LEAST_SCORE)
        for row, cosines in zip(scores, every, strict=True):  # (O,), (B,)
            nearest = _largest(cosines, count)  # (k,)
            # float64 and less the largest: exp(1 / 0.07) is 1.6e6, and a lower temperature would overflow float32.
            logits = cosines[nearest].double() / self.temperature
            weights = torch.exp(logits - logits.max())
            votes = weights.new_zeros(self.num_outputs).index_add(0, self.labels[nearest], weights)  # (k,) -> (O,)
            row.copy_((votes / weights.sum()).log().clamp_min(LEAST_SCORE))
        return scores


class Nearest(NeighbourHead):
    """`nearest`: the class of the nearest training utterance.

    The score of a class is the largest cosine with any of its training utterances.
    """

    info = HeadInfo(name="nearest", gives=("utterances",), linear_on_mean=True, fitted=True)

    def scores_of_means(self, means: Tensor) -> Tensor:
        """The largest cosine with each class."""
        cosines = self.cosines(means)
        scores = means.new_full((len(means), self.num_outputs), _NO_UTTERANCE)
        # (U, B) -> (U, O): the largest over the utterances of each class
        return scores.scatter_reduce(1, self.labels.expand_as(cosines), cosines, "amax")


class Logistic(FittedHead):
    """`logistic`: multinomial logistic regression with a squared penalty; arguments as `HeadFactory`.

    Minimises C sum_b cross-entropy_b + ||W||² / 2 over the weights W and an unpenalised bias, with C the setting
    `probe.inverse_penalty`; of two classes W is the one row of a binary regression. Scores are the logits. A class that
    no training utterance has gets `_NO_CLASS`.

    Reference:
        The few-shot classification of MTEB (Muennighoff et al., 2023), which fits scikit-learn's with C = 1.
    """

    info = HeadInfo(name="logistic", gives=("utterances",), one_matrix=True, linear_on_mean=True, fitted=True)

    def __init__(self, *, width: int, num_outputs: int, **unread: Any) -> None:
        super().__init__()
        self.output = nn.Linear(width, num_outputs).requires_grad_(False)
        for parameter in self.output.parameters():
            nn.init.zeros_(parameter)

    def fit(self, means: Tensor, classes: Tensor, settings: FitSettings) -> tuple[str, ...]:
        """Fit the weights to (B, D) means of (B,) classes."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        present = torch.unique(classes).tolist()
        weight, bias = torch.zeros_like(self.output.weight), torch.full_like(self.output.bias, _NO_CLASS)
        bias[present] = 0.0
        steps = 0
        if len(present) > 1:  # else every logit is constant, and so is the estimated class
            model = LogisticRegression(C=settings.inverse_penalty, max_iter=_LONGEST_FIT)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # it is in the record
                model.fit(means.double().cpu().numpy(), classes.cpu().numpy())
            steps = int(model.n_iter_.max())
            rows, offsets = torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_)
            if len(present) == 2:
                # (1, D) of the second class against the first -> (2, D): the same difference of logits
                rows, offsets = torch.cat([-rows, rows]) / 2, torch.cat([-offsets, offsets]) / 2
            weight[present], bias[present] = rows.to(weight), offsets.to(bias)
        self.output.weight.copy_(weight)
        self.output.bias.copy_(bias)
        return (f"the logistic regression stopped after {steps} iterations",) if steps >= _LONGEST_FIT else ()

    def before_output(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        """(N, D) with `counts` (U,) -> (U, D)."""
        assert counts is not None
        return mean_of_each(frames, counts)

    def scores_of_means(self, means: Tensor) -> Tensor:
        """Logits."""
        scores: Tensor = self.output(means)
        return scores


def _largest(values: Tensor, count: int) -> Tensor:
    """(count,) places of the largest of (B,) values; of equal ones the first. `topk` takes any of them."""
    least = values.topk(count).values[-1]
    above = (values > least).nonzero()[:, 0]  # (A, 1) -> (A,)
    return torch.cat([above, (values == least).nonzero()[: count - len(above), 0]])
