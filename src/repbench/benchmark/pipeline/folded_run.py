"""Probes in folds: one extraction of the corpus, a probe for each setting and fold, one record for each setting.

Each probe is standardised with the statistics of its own train, and scores the utterances of its own fold alone
(docs/design/0028-folds.md).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from torch import Tensor

from repbench.benchmark.features.allocation import tables_on
from repbench.benchmark.features.table import Features
from repbench.benchmark.pipeline.conditioned_run import by_condition, trainings_in
from repbench.benchmark.pipeline.fold_results import pooled
from repbench.benchmark.pipeline.run_data import RunData, open_test
from repbench.benchmark.pipeline.run_features import extract, road_of, trainings_of
from repbench.benchmark.pipeline.setup import RunContext, RunSetting, TrainedResult, WrittenRecord
from repbench.benchmark.pipeline.write_record import score
from repbench.benchmark.probing.prediction import LabelledFeatures, Predictor
from repbench.benchmark.probing.probe import statistics_of_parts
from repbench.downstream.contract import Prediction

StatisticsOfFolds = Mapping[str | None, tuple[Tensor, Tensor]]
"""From the name of a fold to the mean and deviation (L, 1, D) of its train."""

_PROBES_AT_ONCE = 8
"""Probes whose predictions of the test split are in memory at once."""


class Train(Protocol):
    """The training of the probes of some settings, with folds one setting for each fold."""

    def __call__(
        self, tables: tuple[Features, Features], settings: Sequence[RunSetting], statistics: StatisticsOfFolds
    ) -> list[TrainedResult]:
        """The result of each setting, from the features of train and dev and the statistics of each fold."""
        ...


def probed_in_folds(
    context: RunContext, data: RunData, settings: Sequence[RunSetting], train: Train
) -> list[WrittenRecord]:
    """Train a probe for each setting and fold from one extraction of the corpus, and write a record for each setting.

    Args:
        context: What all settings share.
        data: The corpus and its folds.
        settings: The setting of each record.
        train: Trains the probes, all side by side.
    """
    splits = data.splits
    every = splits.every()
    trainings = trainings_in(settings)
    in_folds = [replace(setting, fold=fold.name) for setting in trainings for fold in splits.folds]
    road = road_of(context, every, trainings=trainings_of(context, in_folds))
    (table,) = tables_on(context.device, extract(context, "features of all folds", every, road))
    of_trains = statistics_of_parts(
        table, [[example.id for example in splits.usable(fold.train)] for fold in splits.folds]
    )
    statistics: StatisticsOfFolds = {fold.name: own for fold, own in zip(splits.folds, of_trains, strict=True)}
    by_setting = {result.setting: result for result in train((table, table), in_folds, statistics)}
    results = [pooled([by_setting[replace(setting, fold=fold.name)] for fold in splits.folds]) for setting in trainings]
    predictor = Predictor(context.task, splits.classes, context.upstream.info)
    written = []
    for condition, wanted in by_condition(settings, results):
        test = open_test(context, data, condition)
        # The test utterances as they were trained on are in the table already.
        as_trained = test.split is splits.test
        tested = table if as_trained else extract(context, test.title, test.examples)
        for some in in_batches(wanted):
            view = context.view(tested, some[0].setting.layer)
            predicted: list[list[Prediction]] = [[] for _ in some]
            for number, fold in enumerate(splits.folds):
                labelled = LabelledFeatures(view, tuple(each for each in test.examples if each.id in fold.test))
                trained = [each.folds[number].trained for each in some]
                probes, chosen = [each.probe for each in trained], [each.selection.chosen for each in trained]
                for own, of_fold in zip(predicted, predictor.predict_each(probes, labelled, chosen), strict=True):
                    own += [replace(each, fold=fold.name) for each in of_fold]
            written += [score(context, data, test, *each) for each in zip(some, predicted, strict=True)]
    return written


def in_batches(results: Sequence[TrainedResult]) -> Iterator[tuple[TrainedResult, ...]]:
    """The results that read the same layer together, at most `_PROBES_AT_ONCE` at a time."""
    # `groupby` joins neighbours alone; the layer is the outer loop of `settings_of`.
    for _, of_layer in itertools.groupby(results, key=lambda each: each.setting.layer):
        while some := tuple(itertools.islice(of_layer, _PROBES_AT_ONCE)):
            yield some
