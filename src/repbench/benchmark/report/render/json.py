"""`results.json`: the dataclasses of the report, at full precision, with the records behind each number.

A table of fields lists for each class the attributes that are written, and their names. A column, row or cell that
another object refers to is written as its key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any

from repbench.benchmark.records.parts import HeardPart
from repbench.benchmark.report.data.assemble import Report
from repbench.benchmark.report.data.citations import Citation
from repbench.benchmark.report.data.columns import Column
from repbench.benchmark.report.data.compare import RowAggregates
from repbench.benchmark.report.data.confusion import ConfusedPair, Confusion
from repbench.benchmark.report.data.controls import Controlled, Controls, Gain
from repbench.benchmark.report.data.cost import Front
from repbench.benchmark.report.data.det import DetCurve, DetCurves
from repbench.benchmark.report.data.efficiency import Curve, Efficiency
from repbench.benchmark.report.data.fold_scores import CellFolds, FoldScores
from repbench.benchmark.report.data.gather import Cell, ReportRow
from repbench.benchmark.report.data.groups import CellGroups, ColumnGroups, GroupScore
from repbench.benchmark.report.data.heads import HeadComparison, Margin, Reversal
from repbench.benchmark.report.data.layers import LayerProfiles, Profile
from repbench.benchmark.report.data.reading import Run
from repbench.benchmark.report.data.robustness import (
    Condition,
    Crossing,
    Disturbed,
    Estimate,
    Robustness,
    RobustRow,
    SeverityCurve,
)
from repbench.benchmark.report.data.seed_shares import CellSeeds, SeedShares
from repbench.benchmark.report.data.sensitivity import Sensitivity
from repbench.benchmark.report.data.transcripts import AlignedUtterance, WorstUtterances
from repbench.benchmark.report.published import Published
from repbench.benchmark.report.render.commands import command_of
from repbench.benchmark.report.render.cost_columns import COST_COLUMNS
from repbench.benchmark.scoring.statistics import Interval
from repbench.benchmark.scoring.statistics.gaps import Gap

SCHEMA = "repbench.report/1"

Fields = Mapping[str, Callable[[Any], Any]]


def _fields(names: str, **computed: Callable[[Any], Any]) -> Fields:
    """From names to fields: `name` or `name=attribute.path`, or computed ones, in the order of `names`."""
    pairs = [name.partition("=") for name in names.split()]
    return {name: computed.get(name) or attrgetter(path or name) for name, _, path in pairs}


_OF_RUN = _fields("id=record.id path=place command", command=lambda run: command_of(run.record))

_COLUMN = _fields("key task corpus metric unit higher_is_better differs shuffled_labels=shuffled facts chance majority")
_OF_RECORD: Fields = {**_OF_RUN, **_fields("seed=record.seed value=record.primary.value unchecked")}
_FAILED: Fields = {**_OF_RUN, **_fields("fault")}

_OF_CLASS: dict[type, Fields] = {
    FoldScores: _fields("column cells"),
    CellFolds: _fields("cell folds=values mean_over_folds=mean deviation"),
    SeedShares: _fields("column cells"),
    CellSeeds: _fields(
        "cell num_seeds share_of_seeds=share deviation width_with_one_more=with_one_more "
        "width_with_any_number=with_any_number"
    ),
    Controls: _fields("column cells=controlled"),
    Controlled: _fields("cell selectivity gained_by_training=training"),
    Gain: _fields("over=control value ci95=interval"),
    Efficiency: _fields("column target same_range curves"),
    Curve: _fields("name label_seconds=seconds values area seconds_to_reach_target=to_reach"),
    LayerProfiles: _fields("column profiles"),
    Profile: _fields("name cells"),
    Confusion: _fields("cell classes shares most_confused=pairs"),
    ConfusedPair: _fields("reference estimated count share"),
    DetCurves: _fields("column systems=num_systems curves"),
    DetCurve: _fields("cell seed eer false_alarm miss"),
    Front: _fields(
        "column mode front", front=lambda front: [cell for _, cell in front.points if cell.key in front.front]
    ),
    Sensitivity: _fields(
        "column cells",
        cells=lambda each: {
            tried.cell.key: {
                "dev_values": {f"{rate:g}": value for rate, value in tried.dev_values.items()},
                "chosen": sorted(tried.chosen),
            }
            for tried in each.tried
        },
    ),
    HeadComparison: _fields(
        "mode label_fraction heads models=num_models pairs=num_pairs sentence reversals",
        mode=lambda each: each.group[0],
        label_fraction=lambda each: each.group[1],
    ),
    Reversal: _fields("first second separated=is_separated margins"),
    Margin: _fields("column value ci95=interval separated=is_separated"),
    Robustness: _fields(
        "column mode label_fraction matched conditions averaged rows curves crossings pairs=num_pairs",
        mode=lambda each: each.group[0],
        label_fraction=lambda each: each.group[1],
        averaged=lambda each: [condition.name for condition in each.averaged],
    ),
    Condition: _fields("name kind severity column"),
    RobustRow: _fields(
        "row clean clean_rank=rank conditions=disturbed mean_drop worst",
        worst=lambda each: None if each.worst is None else each.worst.condition.name,
    ),
    Disturbed: _fields("cell drop rank"),
    Estimate: _fields("value ci95=interval"),
    SeverityCurve: _fields("row severities cells drops area"),
    Crossing: _fields(
        "first second condition=condition.name margin_on_clean=clean margin_under_condition=disturbed "
        "separated=is_separated"
    ),
    WorstUtterances: _fields("column=cell.column row=cell.row seed utterances num_wrong num_scored"),
    AlignedUtterance: _fields("id words edits=num_edits reference_words=num_words"),
    Citation: _fields("kind name publication licence"),
    Published: _fields("title source date notes values"),
    HeardPart: _fields("verdict basis declared n_overlapping n_test"),
    ColumnGroups: _fields(
        "column task=column.task corpus=column.corpus metric=column.metric by=grouping.text least_speakers cells"
    ),
    CellGroups: _fields("cell system=cell.row.title value=cell.value groups gap mixed"),
    GroupScore: _fields("name utterances=num_utterances speakers=num_speakers shown=is_shown value ci95=interval"),
    Gap: _fields("best worst value ci95=interval by_chance"),
    Run: _OF_RECORD,
}
"""Of each class the fields that are written."""


def results(report: Report) -> dict[str, Any]:
    """The report as JSON; a number that was not measured has no entry."""
    gathered, verdicts = report.gathered, report.verdicts
    row = _fields(
        "key system=system.name upstream=system.upstream checkpoint=system.checkpoint fingerprint=system.fingerprint "
        "untrained=system.untrained baseline=system.is_baseline origin=system.origin citation=system.citation "
        "licence=system.licence mode layer label_fraction=fraction covered columns cost heard_before",
        heard_before=lambda row: gathered.heard(row).verdict,
        covered=gathered.covered,
        columns=lambda row: len(gathered.columns),
        cost=lambda row: {each.in_json: each.of_json(report.costs[row.key]) for each in COST_COLUMNS if each.in_json},
    )
    cell = _fields(
        "key row column value ci95=interval ci_unit=interval_unit best tied_with_best not_compared_with_best p_value "
        "test num_seeds unchecked label_seconds excluded origins heard records=runs",
        best=lambda cell: report.mark(cell) == "best",
        tied_with_best=lambda cell: report.mark(cell) == "tied",
        not_compared_with_best=lambda cell: report.mark(cell) == "untested",
        p_value=lambda cell: verdicts.p_values.get(cell.key),
        test=lambda cell: verdicts.tests.get(cell.key),
        num_seeds=lambda cell: len(cell.runs),
    )
    cells = [cell for column in gathered.every_column for cell in gathered.column_cells(column)]
    return {
        "schema": SCHEMA,
        "columns": _several(gathered.every_column, _COLUMN),
        "rows": [{**_written(each, row), **_declared(each)} for each in gathered.rows],
        "cells": _several(cells, cell),
        "smallest_differences": [
            {"mode": mode, "label_fraction": fraction, "column": key, "value": value}
            for (mode, fraction, key), value in verdicts.resolution.items()
        ],
        "overall": [
            _overall(aggregates.columns, each) for aggregates in report.overall.values() for each in aggregates.rows
        ],
        "folds": _plain(report.folds),
        "seeds": _plain(report.seed_shares),
        "controls": _plain(report.controls),
        "label_efficiency": _plain(report.efficiencies),
        "layers": _plain(report.profiles),
        "confusions": _plain(report.confusions),
        "det": _plain(report.det),
        "worst_utterances": _plain(report.worst),
        "cost_fronts": _plain(report.fronts),
        "learning_rates": _plain(report.sensitivities),
        "heads": _plain(report.heads),
        "published": _plain(report.published),
        "failed": _several(gathered.failed, _FAILED),
        "unreadable": _plain(gathered.unreadable),
        "notes": _plain(report.notes),
        # reports without conditions have no such field
        **({"robustness": _plain(report.robustness)} if report.robustness else {}),
        "citations": _plain(report.citations),
        **_similarities(report),
        **groups_part(report),
        **_invariances(report),
    }


def _declared(row: ReportRow) -> dict[str, Any]:
    """What the folder of features or units declares; rows of other systems have no such field."""
    declared = row.system.declared
    return {} if declared is None else {"declared": declared.model_dump(mode="json")}


def _similarities(report: Report) -> dict[str, Any]:
    """Comparisons of layers, as in their files; reports without any have no such field."""
    found = [{"path": each.place, **each.similarity.as_dict()} for each in report.similarities]
    return {"similarities": found} if found else {}


def groups_part(report: Report) -> dict[str, Any]:
    """Scores by group; reports without any have no such field."""
    return {"groups": _plain(report.groups)} if report.groups else {}


def _invariances(report: Report) -> dict[str, Any]:
    """Measurements of invariance, as in their files; reports without any have no such field."""
    found = [{"path": each.place, **each.invariance.as_dict()} for each in report.invariances]
    return {"invariances": found} if found else {}


def _overall(columns: Iterable[Column], each: RowAggregates) -> dict[str, Any]:
    return _written(
        each,
        _fields(
            "row columns answered mean_normalised=mean.value borda=borda.value scored=mean.scored tasks=mean.tasks",
            columns=lambda each: tuple(columns),
            answered=lambda each: [column for column in columns if column.key in each.answered],
        ),
    )


def _several(values: Iterable[Any], fields: Fields) -> list[Any]:
    return [_written(value, fields) for value in values]


def _written(value: Any, fields: Fields) -> dict[str, Any]:
    return {name: _plain(get(value)) for name, get in fields.items()}


def _plain(value: Any) -> Any:
    """A value as JSON holds it: references as keys, intervals as both ends."""
    if isinstance(value, Column | ReportRow | Cell):
        return value.key
    if isinstance(value, Interval):
        return [value.low, value.high]
    if type(value) in _OF_CLASS:
        return _written(value, _OF_CLASS[type(value)])
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
