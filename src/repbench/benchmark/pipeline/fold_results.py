"""The results of all folds of a setting: what they are together, and the part of a record that has each."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from repbench.benchmark.data.dataset import LabelledSplits
from repbench.benchmark.pipeline.setup import TrainedResult
from repbench.benchmark.probing.training import Selection, TrainedProbe
from repbench.benchmark.scoring.metrics import mean_over_folds, metrics_of_folds
from repbench.downstream.contract import Downstream, Prediction


def pooled(folds: Sequence[TrainedResult]) -> TrainedResult:
    """The results of all folds of a setting as one: the time of all, and the mean of their seconds of labels."""
    first = folds[0]
    seconds = math.fsum(fold.trained.seconds for fold in folds)
    names = {name: None for fold in folds for name in fold.label_seconds}
    return replace(
        first,
        setting=replace(first.setting, fold=None),
        trained=TrainedProbe(
            first.trained.probe, selected_together([each.trained.selection for each in folds]), seconds
        ),
        label_seconds={name: math.fsum(fold.label_seconds[name] for fold in folds) / len(folds) for name in names},
        warnings=_warnings(folds),
        folds=tuple(folds),
    )


def _warnings(folds: Sequence[TrainedResult]) -> tuple[str, ...]:
    """The warnings of all folds, with the fold of each that not all have."""
    common = [each for each in folds[0].warnings if all(each in fold.warnings for fold in folds)]
    own = [
        f"in fold {fold.setting.fold}: {warning}"
        for fold in folds
        for warning in fold.warnings
        if warning not in common
    ]
    return (*common, *own)


def selected_together(selections: Sequence[Selection]) -> Selection:
    """What several folds selected: the mean on dev of each point that all of them have, and what they all chose."""
    values: dict[tuple[tuple[str, float], ...], list[float]] = {}
    for selection in selections:
        for point in selection.grid:
            where = tuple((name, value) for name, value in point.items() if name != "dev_value")
            values.setdefault(where, []).append(point["dev_value"])
    grid: tuple[dict[str, float | int], ...] = tuple(
        {**dict(where), "dev_value": math.fsum(several) / len(several)}
        for where, several in values.items()
        if len(several) == len(selections)
    )
    first = selections[0].chosen
    chosen = {
        name: value for name, value in first.items() if all(each.chosen.get(name) == value for each in selections)
    }
    on_dev = [each.dev_value for each in selections if each.dev_value is not None]
    # `_chosen` refuses a fold whose probe diverged, so each has a value.
    assert len(on_dev) == len(selections)
    return Selection(grid, chosen, math.fsum(on_dev) / len(on_dev))


def selection_part(selection: Selection) -> dict[str, Any]:
    """The selection as a record has it."""
    return {"grid": selection.grid, "chosen": selection.chosen, "dev_value": selection.dev_value}


def folds_part(
    task: Downstream,
    splits: LabelledSplits,
    result: TrainedResult,
    predictions: Sequence[Prediction],
    weights: Mapping[str, bytes],
) -> dict[str, Any]:
    """The fields of a record about its folds; none where there are none.

    Args:
        task: The task.
        splits: With the folds.
        result: Of all folds together.
        predictions: Of all folds, each with the name of its own.
        weights: The files of weights, in the order of the folds.
    """
    if not result.folds:
        return {}
    measured = metrics_of_folds(task, splits.classes, predictions)
    folds = [
        {
            "name": fold.name,
            "n_train": len(fold.train),
            "n_dev": len(fold.dev),
            "selection": selection_part(own.trained.selection),
            "probe_sha256": hashlib.sha256(content).hexdigest(),
            **measured[fold.name],
        }
        for fold, own, content in zip(splits.folds, result.folds, weights.values(), strict=True)
    ]
    return {"folds": folds, "mean_over_folds": mean_over_folds(folds)}
