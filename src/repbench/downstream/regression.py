"""The task `regression`: a number of an utterance, such as an age or an opinion score, of speakers not in training."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from repbench.corpora.contract import Utterance
from repbench.downstream.attribute_values import attribute_of, attributes_to_read, is_number
from repbench.downstream.contract import (
    DownstreamInfo,
    LabelSets,
    MeasuredByTallies,
    Measurement,
    MetricInfo,
    Prediction,
)
from repbench.downstream.metrics import regression
from repbench.downstream.problems.regression import ValuePrediction
from repbench.errors import DataError, UsageError, did_you_mean

Primary = Literal["ccc", "pearson", "spearman", "rmse"]

METRICS = {
    "ccc": MetricInfo(unit="concordance correlation", higher_is_better=True, lower=-1.0),
    "pearson": MetricInfo(unit="linear correlation", higher_is_better=True, lower=-1.0),
    "spearman": MetricInfo(unit="rank correlation", higher_is_better=True, lower=-1.0),
    "rmse": MetricInfo(unit="unit of the attribute", higher_is_better=False, upper=None),
}

_DECIMAL = re.compile(r"[+-]?([0-9]{1,18}(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,2})?")


@dataclass(frozen=True, slots=True)
class ValueTally:
    """References and estimates, (n,) each."""

    reference: NDArray[np.float64]
    estimated: NDArray[np.float64]


class Regression(MeasuredByTallies):
    """A number for each utterance, from an attribute that is named.

    The loss is the mean squared error of targets that are standardised with the training labels. The baseline
    `majority` is the mean of training for every utterance: its `ccc` is 0, its correlations are undefined.

    Metrics: `ccc` (primary), `pearson`, `spearman`, `rmse`; see `repbench.downstream.metrics.regression` for what is
    undefined.

    Args:
        attribute: The attribute to read. Its values are numbers, or words that are written like one.
        primary_metric: The metric that selects and ranks.
    """

    def __init__(self, *, attribute: str | None = None, primary_metric: Primary = "ccc") -> None:
        self._attributes = attributes_to_read(attribute)
        if not self._attributes:
            what = "The task `regression` reads an attribute that is named"
            raise UsageError(what, key="task.attribute", do="Name it with --set task.attribute=NAME")
        if primary_metric not in get_args(Primary):
            what = f"`task.primary_metric` must be one of {', '.join(get_args(Primary))}, but is {primary_metric!r}"
            do = did_you_mean(primary_metric, get_args(Primary)).strip() or None
            raise UsageError(what, key="task.primary_metric", do=do)
        self.info = DownstreamInfo(
            name="regression",
            problem="utterance-regression",
            split="speaker-disjoint",
            default_head="mlp1",
            metrics=METRICS,
            primary_metric=primary_metric,
        )

    def labels(self, utterance: Utterance) -> float:
        """The number."""
        name, value = attribute_of(utterance, self._attributes)
        if isinstance(value, str) and _DECIMAL.fullmatch(value.strip()):
            return float(value)
        if isinstance(value, str) or not is_number(value):
            what = f"`{value}` of the attribute `{name}` is no number"
            raise DataError(what, utterance=utterance.id, do="Leave the cell empty where the number is not known")
        return float(value)

    def classes(self, label_sets: LabelSets, train: Iterable[Any]) -> tuple[str, ...]:
        """None."""
        return ()

    def tally(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> ValueTally:
        """References and estimates in the order of the utterances."""
        given = cast(Sequence[ValuePrediction], predictions)
        return ValueTally(np.array([each.reference for each in given]), np.array([each.estimated for each in given]))

    def measure_tallies(self, tallies: Sequence[ValueTally], classes: Sequence[str]) -> dict[str, Measurement]:
        """The four metrics of all pairs."""
        # First an empty array, for no tallies: (n,) of each tally -> (n,) of all
        reference = np.concatenate([np.empty(0), *(tally.reference for tally in tallies)])
        estimated = np.concatenate([np.empty(0), *(tally.estimated for tally in tallies)])
        measures = {
            "ccc": regression.ccc,
            "pearson": regression.pearson,
            "spearman": regression.spearman,
            "rmse": regression.rmse,
        }
        counts = {"utterances": len(reference)}
        return {name: Measurement(value=of(reference, estimated), counts=counts) for name, of in measures.items()}
