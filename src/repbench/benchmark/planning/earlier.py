"""The spread of a task in records that were made before: its deviations and the correlation of two systems."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repbench.benchmark.records.record import Record, record_paths
from repbench.benchmark.report.data.columns import Column, columns_of
from repbench.benchmark.report.data.evidence import Evidence, classes_of, predictions_of
from repbench.benchmark.report.data.gather import ReportRow, rows_of
from repbench.benchmark.report.data.reading import Run, read_run
from repbench.benchmark.scoring.metrics import Measured
from repbench.benchmark.scoring.spreads import utterance_error
from repbench.benchmark.scoring.statistics import Sizes, Spread, cluster_part, seed_share, spread_of
from repbench.downstream.contract import Downstream
from repbench.errors import IntegrityError, RepbenchError

MOST_RECORDS = 60
"""Records that are recomputed, the newest ones: each takes about a tenth of a second."""


@dataclass(frozen=True, slots=True)
class EarlierSpread:
    """The spread of a task in earlier records.

    Attributes:
        cluster: Deviation between speakers (or groups).
        utterance: Deviation between utterances of one speaker.
        correlation: Of two systems; None where there is one.
        seed: Deviation between seeds; None where each setting has one.
        interaction: Part of the squared error of one run that differs between seeds; None likewise.
        value: Mean of the values.
        num_records: Number of records.
        num_systems: Number of systems.
        corpora: Names of their corpora.
    """

    cluster: float
    utterance: float
    correlation: float | None
    seed: float | None
    interaction: float | None
    value: float
    num_records: int
    num_systems: int
    corpora: tuple[str, ...]

    def completed(self, other: Spread | None) -> Spread | None:
        """With what is not known here from another spread; None where neither knows the correlation."""
        correlation, seed, interaction = self.correlation, self.seed, self.interaction
        if other is not None:
            correlation = other.correlation if correlation is None else correlation
            seed = other.seed if seed is None else seed
            interaction = other.interaction if interaction is None else interaction
        if correlation is None:
            return None
        return Spread(self.cluster, self.utterance, correlation, seed, interaction or 0.0)


@dataclass(frozen=True, slots=True)
class _Known:
    """A record and its recomputed metrics."""

    run: Run
    row: ReportRow
    column: Column
    measured: Measured


def spread_below(
    folder: Path, task: Downstream, options: Mapping[str, Any], fingerprint: str | None
) -> EarlierSpread | None:
    """The spread of a task in the records below a folder.

    Args:
        folder: Searched at any depth; it need not exist.
        task: The task; records of others, or with other options, do not count, nor those of few labels, shuffled labels
            or disturbed sound.
        options: Its options.
        fingerprint: Of the corpus; records of it are taken alone where there are any. None: all.

    Returns:
        The spread; None where no record tells it.
    """
    runs = [run for path in record_paths(folder) if isinstance(run := read_run(path), Run)]
    of_task = [run for run in runs if run.fault is None and _is_of(run.record, task, options)]
    own = [run for run in of_task if run.record.corpus.fingerprint == fingerprint]
    return spread_in(own or of_task, task)


def spread_in(runs: Iterable[Run], task: Downstream) -> EarlierSpread | None:
    """The spread of a task in some of its records, the newest `MOST_RECORDS`; None where they do not tell it."""
    newest = sorted(runs, key=lambda run: (run.record.created, run.record.id), reverse=True)[:MOST_RECORDS]
    known, errors, sizes = [], [], []
    metric = task.info.primary_metric
    for each in _recomputed(newest):
        found = _errors_of(each, task, metric)
        if found is not None:
            known.append(each)
            errors.append(found[:2])
            sizes.append(found[2])
    if not errors or all(by_clusters == by_utterances == 0 for by_clusters, by_utterances in errors):
        return None
    by_clusters, by_utterances = (math.fsum(each) / len(each) for each in zip(*errors, strict=True))
    cluster, utterance = spread_of(by_clusters, by_utterances, sizes)
    values = [value for each in known if (value := each.measured.values.whole[metric]) is not None]
    return EarlierSpread(
        cluster=cluster,
        utterance=utterance,
        correlation=_correlation(known, metric),
        seed=_deviation_of_seeds(known, metric),
        interaction=_interaction(known, metric),
        value=math.fsum(values) / len(values),
        num_records=len(known),
        num_systems=len({each.row.system.name for each in known}),
        corpora=tuple(dict.fromkeys(each.column.corpus for each in known)),
    )


def _is_of(record: Record, task: Downstream, options: Mapping[str, Any]) -> bool:
    return (
        record.downstream.name == task.info.name
        and record.primary_metric == task.info.primary_metric
        and record.protocol.get("task", {}) == dict(options)
        and record.protocol.get("labels", "given") == "given"
        and record.label_fraction == 1.0
        and record.condition is None
    )


def _recomputed(runs: Sequence[Run]) -> list[_Known]:
    """Those that hold, with their metrics."""
    evidence, known = Evidence(), []
    records = [run.record for run in runs]
    column_of, row_of = columns_of(records), rows_of(records)
    for run in runs:
        checked = evidence.checked(run)
        found = evidence.taken(run.path)
        if checked.fault is None and found is not None:
            known.append(_Known(run, row_of[run.record.id], column_of[run.record.id], found.measured))
    return known


def _errors_of(each: _Known, task: Downstream, metric: str) -> tuple[float, float, Sizes] | None:
    """The squared errors over clusters and over utterances, and the size of the test set; None where undefined."""
    error = cluster_part([[each.measured.values]], metric)
    if error is None:
        return None
    try:
        predictions, classes = predictions_of(each.run), classes_of(each.run)
    except (IntegrityError, RepbenchError):
        return None
    if isinstance(predictions, str) or isinstance(classes, str):
        return None
    within = utterance_error(task, classes, predictions, metric)
    # Where utterances cannot be told from clusters, all of it is of the clusters.
    return error.size**2, 0.0 if within is None else within, Sizes(tuple(len(ids) for ids in each.measured.ids))


def _correlation(known: Sequence[_Known], metric: str) -> float | None:
    """1 - Σ D / Σ (C_a + C_b) over the pairs of two systems, with D the squared error of their paired difference."""
    apart: list[float] = []
    paired: list[float] = []
    groups: dict[tuple[str, str, str, float, int], list[_Known]] = defaultdict(list)
    for each in known:
        groups[each.column.key, each.row.mode, each.row.layer, each.row.fraction, each.run.record.seed].append(each)
    for group in groups.values():
        for a, b in itertools.combinations(group, 2):
            if a.row.system.name == b.row.system.name or a.measured.ids != b.measured.ids:
                continue
            alone = [cluster_part([[one.measured.values]], metric) for one in (a, b)]
            difference = cluster_part([[a.measured.values], [b.measured.values]], metric)
            if difference is not None and alone[0] is not None and alone[1] is not None:
                apart.append(alone[0].size ** 2 + alone[1].size ** 2)
                paired.append(difference.size**2)
    total = math.fsum(apart)
    return max(1 - math.fsum(paired) / total, 0.0) if total else None


def _settings(known: Sequence[_Known]) -> list[list[_Known]]:
    """The records of each setting that has several seeds, one a seed."""
    settings: dict[tuple[str, str], dict[int, _Known]] = defaultdict(dict)
    for each in known:
        settings[each.column.key, each.row.key].setdefault(each.run.record.seed, each)
    return [list(each.values()) for each in settings.values() if len(each) > 1]


def _deviation_of_seeds(known: Sequence[_Known], metric: str) -> float | None:
    """The root of the mean variance between the seeds of a setting."""
    variances = []
    for several in _settings(known):
        values = [value for each in several if (value := each.measured.values.whole[metric]) is not None]
        if len(values) > 1:
            mean = math.fsum(values) / len(values)
            variances.append(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return math.sqrt(math.fsum(variances) / len(variances)) if variances else None


def _interaction(known: Sequence[_Known], metric: str) -> float | None:
    """The part of the squared error of one run that differs between the seeds of a setting."""
    parts, wholes = [], []
    for several in _settings(known):
        if len({each.measured.ids for each in several}) == 1:
            share = seed_share([each.measured.values for each in several], metric)
            if share is not None:
                # `interaction` is of the mean over the seeds, and as many times larger in one of them.
                parts.append(share.interaction * share.num_seeds)
                wholes.append(share.clusters + parts[-1])
    total = math.fsum(wholes)
    return math.fsum(parts) / total if total else None
