"""`results.json`: everything the report shows, at full precision, with the records behind each number."""

from __future__ import annotations

from typing import Any

from repbench.benchmark.report.data.assemble import Report
from repbench.benchmark.report.data.compare import Overall, Together
from repbench.benchmark.report.data.confusion import Confusion
from repbench.benchmark.report.data.controls import Controlled, Controls, Gain
from repbench.benchmark.report.data.cost import RowCost
from repbench.benchmark.report.data.efficiency import Efficiency
from repbench.benchmark.report.data.gather import Cell
from repbench.benchmark.report.data.reading import Run
from repbench.benchmark.report.render.commands import command_of
from repbench.benchmark.scoring.statistics import Interval

SCHEMA = "repbench.report/1"


def results(report: Report) -> dict[str, Any]:
    """The report as JSON knows it; a number that nobody asked for has no entry."""
    gathered = report.gathered
    return {
        "schema": SCHEMA,
        "columns": [
            {
                "key": column.key,
                "task": column.task,
                "corpus": column.corpus,
                "metric": column.metric,
                "unit": column.unit,
                "higher_is_better": column.higher_is_better,
                "differs": list(column.differs),
                "shuffled_labels": column.shuffled,
                "facts": dict(column.facts),
                "chance": column.chance,
                "majority": column.majority,
            }
            for column in gathered.all_columns
        ],
        "rows": [
            {
                "key": row.key,
                "system": row.system.name,
                "upstream": row.system.upstream,
                "checkpoint": row.system.checkpoint,
                "fingerprint": row.system.fingerprint,
                "untrained": row.system.untrained,
                "baseline": row.system.is_baseline,
                "origin": row.system.origin,
                "citation": row.system.citation,
                "licence": row.system.licence,
                "mode": row.mode,
                "layer": row.layer,
                "label_fraction": row.fraction,
                "covered": gathered.covered(row),
                "columns": len(gathered.columns),
                "cost": _cost(report.costs[row.key]),
            }
            for row in gathered.rows
        ],
        "cells": [_cell(report, cell) for column in gathered.all_columns for cell in gathered.column_cells(column)],
        "smallest_differences": [
            {"mode": mode, "label_fraction": fraction, "column": key, "value": value}
            for (mode, fraction, key), value in report.verdicts.resolution.items()
        ],
        "overall": [_overall(together, each) for together in report.overall.values() for each in together.rows],
        "controls": [_controls(each) for each in report.controls],
        "label_efficiency": [_efficiency(each) for each in report.efficiencies],
        "layers": [
            {
                "column": each.column.key,
                "profiles": [
                    {"name": profile.name, "cells": {str(n): cell.key for n, cell in profile.cells.items()}}
                    for profile in each.profiles
                ],
            }
            for each in report.profiles
        ],
        "confusions": [_confusion(each) for each in report.confusions],
        "cost_fronts": [
            {
                "column": each.column.key,
                "mode": each.mode,
                "front": [cell.key for _, cell in each.points if cell.key in each.front],
            }
            for each in report.fronts
        ],
        "learning_rates": [
            {
                "column": each.column.key,
                "cells": {
                    tried.cell.key: {
                        "dev_values": {f"{rate:g}": value for rate, value in tried.dev_values.items()},
                        "chosen": sorted(tried.chosen),
                    }
                    for tried in each.tried
                },
            }
            for each in report.sensitivities
        ],
        "published": [
            {
                "title": table.title,
                "source": table.source,
                "date": table.date,
                "notes": list(table.notes),
                "values": {model: dict(values) for model, values in table.values.items()},
            }
            for table in report.published
        ],
        "failed": [{**_run(run), "fault": run.fault} for run in gathered.failed],
        "unreadable": {str(path): reason for path, reason in gathered.unreadable.items()},
        "notes": list(report.notes),
    }


def _cell(report: Report, cell: Cell) -> dict[str, Any]:
    return {
        "key": cell.key,
        "row": cell.row.key,
        "column": cell.column.key,
        "value": cell.value,
        "ci95": _interval(cell.interval),
        "ci_unit": cell.interval_unit,
        "best": report.mark(cell) == "best",
        "tied_with_best": report.mark(cell) == "tied",
        "not_compared_with_best": report.mark(cell) == "untested",
        "p_value": report.verdicts.p_values.get(cell.key),
        "test": report.verdicts.tests.get(cell.key),
        "num_seeds": len(cell.runs),
        "unchecked": cell.unchecked,
        "label_seconds": cell.label_seconds,
        "excluded": cell.excluded,
        "origins": list(cell.origins),
        "records": [
            {**_run(run), "seed": run.record.seed, "value": run.record.primary.value, "unchecked": run.unchecked}
            for run in cell.runs
        ],
    }


def _cost(cost: RowCost) -> dict[str, Any]:
    return {
        "parameters": cost.parameters,
        "macs_per_second": cost.macs_per_second,
        "real_time_factors": [
            {"measured_on": place, "value": value} for place, value in cost.real_time_factors.items()
        ],
        "train_seconds": [
            {"column": key, "measured_on": place, "value": value} for (key, place), value in cost.train_seconds.items()
        ],
    }


def _run(run: Run) -> dict[str, Any]:
    return {"id": run.record.id, "path": run.place, "command": command_of(run.record)}


def _interval(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]


def _overall(together: Together, each: Overall) -> dict[str, Any]:
    return {
        "row": each.row.key,
        "columns": [column.key for column in together.columns],
        "answered": [column.key for column in together.columns if column.key in each.answered],
        "mean_normalised": each.mean.value,
        "borda": each.borda.value,
        "scored": each.mean.scored,
        "tasks": each.mean.tasks,
    }


def _controls(controls: Controls) -> dict[str, Any]:
    return {"column": controls.column.key, "cells": [_controlled(each) for each in controls.controlled]}


def _controlled(each: Controlled) -> dict[str, Any]:
    return {"cell": each.cell.key, "selectivity": _gain(each.selectivity), "gained_by_training": _gain(each.training)}


def _gain(gain: Gain | None) -> dict[str, Any] | None:
    return None if gain is None else {"over": gain.control.key, "value": gain.value, "ci95": _interval(gain.interval)}


def _efficiency(efficiency: Efficiency) -> dict[str, Any]:
    return {
        "column": efficiency.column.key,
        "target": efficiency.target,
        "same_range": efficiency.same_range,
        "curves": [
            {
                "name": curve.name,
                "label_seconds": list(curve.seconds),
                "values": list(curve.values),
                "area": curve.area,
                "seconds_to_reach_target": curve.to_reach,
            }
            for curve in efficiency.curves
        ],
    }


def _confusion(confusion: Confusion) -> dict[str, Any]:
    return {
        "cell": confusion.cell.key,
        "classes": list(confusion.classes),
        "shares": [None if row is None else list(row) for row in confusion.shares],
        "most_confused": [
            {"reference": pair.reference, "estimated": pair.estimated, "count": pair.count, "share": pair.share}
            for pair in confusion.pairs
        ],
    }
