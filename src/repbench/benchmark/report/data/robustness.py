"""Robustness: scores under conditions of the test sound, and how far they are below those of the same probe on clean.

A column of a condition is compared with its column of clean sound, row by row. One probe is scored on both, on the same
utterances of the same speakers: seeds and speakers are paired, and what they do to both scores cancels in the drop. A
drop is positive where the score under the condition is worse, whatever the direction of the metric.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from repbench.benchmark.records.parts import ConditionPart
from repbench.benchmark.report.data.columns import Column
from repbench.benchmark.report.data.evidence import Evidence
from repbench.benchmark.report.data.gather import Cell, Gathered, ReportRow, clean_twin
from repbench.benchmark.report.data.heads import Margin, margin_of
from repbench.benchmark.report.render.escaping import shown
from repbench.benchmark.scoring.statistics import Interval

FEWEST_SEVERITIES = 2
"""Severities of one kind that make a curve, beside clean sound."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval.

    Attributes:
        value: The value.
        interval: 95 %, over speakers or groups and over seeds; None where it is undefined.
    """

    value: float
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition of the test sound, as a column.

    Attributes:
        name: Its canonical text, as `--condition` takes it.
        kind: Its text without amounts.
        severity: 1 to 5; None where the text gives values.
        column: The column of its scores.
    """

    name: str
    kind: str
    severity: int | None
    column: Column

    @property
    def title(self) -> str:
        """The name, safe to show."""
        return shown(self.name, 60)


@dataclass(frozen=True, slots=True)
class Disturbed:
    """The score of a row under one condition.

    Attributes:
        condition: The condition.
        cell: The score.
        drop: How far it is below that on clean sound, paired; None where either is undefined or unchecked.
        rank: Its rank among the rows of the table, 1 the best; equal scores share the better rank. None where it does
            not take part in comparisons.
    """

    condition: Condition
    cell: Cell
    drop: Estimate | None
    rank: int | None


@dataclass(frozen=True, slots=True)
class SeverityCurve:
    """Score of a row against the severity of one kind; severity 0 is clean sound.

    Attributes:
        row: The row.
        kind: Kind of the conditions.
        severities: From 0 on.
        cells: One for each severity.
        drops: From clean sound, paired; None at severity 0.
        area: Mean height of the curve: its trapezoid area divided by its width.
    """

    row: ReportRow
    kind: str
    severities: tuple[int, ...]
    cells: tuple[Cell, ...]
    drops: tuple[Estimate | None, ...]
    area: Estimate

    @property
    def bands(self) -> tuple[Interval | None, ...]:
        """The paired interval of the drop around each score; of no width on clean sound, None where there is none."""
        found: list[Interval | None] = []
        for severity, cell, drop in zip(self.severities, self.cells, self.drops, strict=True):
            value = cell.value or 0.0
            if severity == 0:
                found.append(Interval(value, value))
            elif drop is None or drop.interval is None:
                found.append(None)
            else:
                # the interval is Student's: as far up as down
                reach = drop.interval.high - drop.value
                found.append(_within_range(Interval(value - reach, value + reach), cell.column))
        return tuple(found)


def _within_range(band: Interval, column: Column) -> Interval:
    """A band without what no score can be: below 0 of a proportion, above 1 where 1 is perfect."""
    if not column.unit.startswith("proportion"):
        return band
    return Interval(max(band.low, 0.0), min(band.high, 1.0) if column.higher_is_better else band.high)


@dataclass(frozen=True, slots=True)
class RobustRow:
    """A row of the table under its conditions.

    Attributes:
        row: The row.
        clean: Its score on clean sound; None where it was not measured.
        rank: Of that score, as in `Disturbed`.
        disturbed: By the name of the condition.
        mean_drop: Mean of the drops over `Robustness.averaged`; None where one of them is missing.
        worst: The largest drop of the same; None with `mean_drop`.
    """

    row: ReportRow
    clean: Cell | None
    rank: int | None
    disturbed: Mapping[str, Disturbed]
    mean_drop: Estimate | None
    worst: Disturbed | None


@dataclass(frozen=True, slots=True)
class Crossing:
    """Two rows whose order under a condition is not that on clean sound.

    Attributes:
        first: Better on clean sound.
        second: Better under the condition.
        condition: The condition.
        clean: By how much the first is better on clean sound.
        disturbed: By how much the first is better under the condition: below 0.
    """

    first: ReportRow
    second: ReportRow
    condition: Condition
    clean: Margin
    disturbed: Margin

    @property
    def is_separated(self) -> bool:
        """Whether both intervals leave out 0."""
        return self.clean.is_separated and self.disturbed.is_separated


@dataclass(frozen=True, slots=True)
class Robustness:
    """The rows of one column of clean sound, mode and label fraction, under the conditions of its test sound.

    Attributes:
        column: The column of clean sound.
        group: Mode and label fraction.
        matched: Whether the probes of the conditions were trained under them, so that seeds are not paired.
        conditions: By kind and severity.
        averaged: Those that more than half of the rows have: `mean_drop` and `worst` are over these.
        rows: In ascending order of the mean drop.
        curves: Of each kind with several severities, the rows in the order of `rows`.
        crossings: The separated ones first, then by the smaller of the two margins.
        num_pairs: Pairs of a condition and two systems that both have scores on it and on clean sound.
    """

    column: Column
    group: tuple[str, float]
    matched: bool
    conditions: tuple[Condition, ...]
    averaged: tuple[Condition, ...]
    rows: tuple[RobustRow, ...]
    curves: Mapping[str, tuple[SeverityCurve, ...]]
    crossings: tuple[Crossing, ...]
    num_pairs: int

    @property
    def key(self) -> str:
        """Its id in pages and files."""
        mode, fraction = self.group
        trained = "-matched" if self.matched else ""
        return f"{self.column.key}-{mode}-{f'{fraction:g}'.replace('.', '_')}{trained}"

    @property
    def title(self) -> str:
        """Its column, and how the probes were trained if not on clean sound."""
        return f"{self.column.title}{' · trained under each condition' if self.matched else ''}"


def robustness(gathered: Gathered, evidence: Evidence) -> list[Robustness]:
    """One for each column of clean sound, mode, label fraction and training with scores under conditions."""
    families: dict[tuple[str, bool], list[Condition]] = defaultdict(list)
    for column in gathered.conditions:
        part = _part_of(gathered, column)
        clean = clean_twin(column, gathered.columns)
        if clean is not None:
            condition = Condition(part.name, part.kind, part.severity, column)
            families[clean.key, part.training == "matched"].append(condition)
    found = []
    for column in gathered.columns:
        for matched in (False, True):
            # by severity as a number, with values last; text alone would have gain:db=-12 before gain:db=-6
            conditions = sorted(
                families[column.key, matched],
                key=lambda each: (each.kind, each.severity is None, each.severity or 0, each.name),
            )
            each_group = (
                _Table(gathered, evidence, column, group, matched, conditions).laid_out() for group in gathered.groups
            )
            found += [each for each in each_group if each is not None]
    return found


def _part_of(gathered: Gathered, column: Column) -> ConditionPart:
    """The condition of a column, which all of its records share."""
    part = gathered.column_cells(column)[0].runs[0].record.condition
    assert part is not None
    return part


@dataclass(frozen=True, slots=True)
class _Table:
    """What the parts of one `Robustness` are computed from. Attributes as there."""

    gathered: Gathered
    evidence: Evidence
    column: Column
    group: tuple[str, float]
    matched: bool
    conditions: Sequence[Condition]

    def laid_out(self) -> Robustness | None:
        """The table; None where no row of the group has a score under a condition."""
        rows = [row for row in self.gathered.group_rows(self.group) if any(map(self._cells(row).get, self._names()))]
        if not rows:
            return None
        counts = Counter(each.name for row in rows for each in self.conditions if self._drop(row, each) is not None)
        averaged = tuple(each for each in self.conditions if 2 * counts[each.name] > len(rows))
        ranks = {name: _ranks([self._cells(row).get(name) for row in rows]) for name in ("", *self._names())}
        robust = [self._row(row, place, ranks, averaged) for place, row in enumerate(rows)]
        robust.sort(key=lambda each: math.inf if each.mean_drop is None else each.mean_drop.value)
        crossings, num_pairs = self._crossings([each.row for each in robust])
        return Robustness(
            column=self.column,
            group=self.group,
            matched=self.matched,
            conditions=tuple(each for each in self.conditions if any(each.name in one.disturbed for one in robust)),
            averaged=averaged,
            rows=tuple(robust),
            curves=self._curves([each.row for each in robust]),
            crossings=crossings,
            num_pairs=num_pairs,
        )

    def _names(self) -> list[str]:
        return [each.name for each in self.conditions]

    def _cells(self, row: ReportRow) -> dict[str, Cell]:
        """The scores of a row by the name of the condition; that on clean sound by the empty name."""
        of_row = {"": self.column} | {each.name: each.column for each in self.conditions}
        found = {name: self.gathered.cell(row, column) for name, column in of_row.items()}
        return {name: cell for name, cell in found.items() if cell is not None}

    def _row(
        self,
        row: ReportRow,
        place: int,
        ranks: Mapping[str, Sequence[int | None]],
        averaged: Sequence[Condition],
    ) -> RobustRow:
        cells = self._cells(row)
        disturbed = {
            each.name: Disturbed(each, cells[each.name], self._drop(row, each), ranks[each.name][place])
            for each in self.conditions
            if each.name in cells
        }
        of_mean = [disturbed[each.name] for each in averaged if each.name in disturbed]
        drops = [each.drop.value for each in of_mean if each.drop is not None]
        is_whole = bool(averaged) and len(drops) == len(averaged)
        mean = math.fsum(drops) / len(drops) if is_whole else None
        share = 1.0 / len(averaged) if averaged else 0.0
        weights = {"": 1.0} | {each.name: -share for each in averaged}
        return RobustRow(
            row=row,
            clean=cells.get(""),
            rank=ranks[""][place],
            disturbed=disturbed,
            mean_drop=None if mean is None else self._estimate(cells, weights, mean),
            # of equal drops the first
            worst=max(of_mean, key=lambda each: each.drop.value if each.drop else -math.inf) if is_whole else None,
        )

    def _drop(self, row: ReportRow, condition: Condition) -> Estimate | None:
        cells = self._cells(row)
        clean, under = cells.get(""), cells.get(condition.name)
        if clean is None or under is None or not (clean.compared and under.compared):
            return None
        return self._estimate(cells, {"": 1.0, condition.name: -1.0}, clean.signed_value - under.signed_value)

    def _estimate(self, cells: Mapping[str, Cell], weights: Mapping[str, float], value: float) -> Estimate:
        """A weighted sum of scores, signed so that more is better, with its interval.

        Args:
            cells: Of the row, by the name of the condition.
            weights: By the same names.
            value: The sum of the scores as they are shown, which stands where the paired one is undefined.
        """
        runs = [cells[name].runs for name in weights]
        metric, signed = self.column.metric, self.column.signed
        if not self.matched:
            difference = self.evidence.combination(runs, list(weights.values()), metric)
        elif list(weights.values()) == [1.0, -1.0]:
            # Probes that were trained under the condition share nothing with those of clean sound but the test split.
            difference = self.evidence.difference(runs[0], runs[1], metric)
        else:
            difference = None
        if difference is None or difference.value is None:
            return Estimate(value, None)
        known = difference.interval
        ends = None if known is None else sorted((signed(known.low), signed(known.high)))
        return Estimate(signed(difference.value), None if ends is None else Interval(*ends))

    def _curves(self, rows: Sequence[ReportRow]) -> dict[str, tuple[SeverityCurve, ...]]:
        kinds: dict[str, list[Condition]] = defaultdict(list)
        for each in self.conditions:
            if each.severity is not None:
                kinds[each.kind].append(each)
        found: dict[str, tuple[SeverityCurve, ...]] = {}
        for kind, several in kinds.items():
            curves = [curve for row in rows if (curve := self._curve(row, kind, several)) is not None]
            # Curves of other severities have other areas: those of the most rows are kept.
            usual = Counter(curve.severities for curve in curves).most_common(1)
            if usual:
                found[kind] = tuple(curve for curve in curves if curve.severities == usual[0][0])
        return found

    def _curve(self, row: ReportRow, kind: str, conditions: Sequence[Condition]) -> SeverityCurve | None:
        cells = {name: cell for name, cell in self._cells(row).items() if cell.compared}
        of_severity = {each.severity or 0: each for each in conditions if each.name in cells}
        names = {0: ""} | {severity: each.name for severity, each in of_severity.items()}
        if "" not in cells or len(names) <= FEWEST_SEVERITIES:
            return None
        severities = tuple(sorted(names))
        # trapezoids: half of the widths on both sides of a point, over the whole width
        weights = [
            (right - left) / 2 / severities[-1]
            for left, right in zip((0, *severities), (*severities[1:], severities[-1]), strict=False)
        ]
        several = [cells[names[severity]] for severity in severities]
        value = math.fsum(weight * (cell.value or 0.0) for weight, cell in zip(weights, several, strict=True))
        by_name = {names[severity]: weight for severity, weight in zip(severities, weights, strict=True)}
        area = self._estimate(cells, by_name, self.column.signed(value))
        drops = tuple(self._drop(row, of_severity[each]) if each else None for each in severities)
        return SeverityCurve(row, kind, severities, tuple(several), drops, self._unsigned(area))

    def _unsigned(self, estimate: Estimate) -> Estimate:
        """In the direction of the metric again: an area is a score."""
        if self.column.higher_is_better:
            return estimate
        interval = estimate.interval
        turned = None if interval is None else Interval(-interval.high, -interval.low)
        return Estimate(-estimate.value, turned)

    def _crossings(self, rows: Sequence[ReportRow]) -> tuple[tuple[Crossing, ...], int]:
        found: list[Crossing] = []
        num_pairs = 0
        cells = {row: {name: cell for name, cell in self._cells(row).items() if cell.compared} for row in rows}
        for one, other in itertools.combinations(rows, 2):
            # Layers of one system are no systems of their own.
            if one.system == other.system or "" not in cells[one] or "" not in cells[other]:
                continue
            for condition in self.conditions:
                if condition.name in cells[one] and condition.name in cells[other]:
                    num_pairs += 1
                    found += self._crossing(condition, cells[one], cells[other])
        found.sort(key=lambda each: (not each.is_separated, -min(each.clean.value, -each.disturbed.value)))
        return tuple(found), num_pairs

    def _crossing(self, condition: Condition, one: Mapping[str, Cell], other: Mapping[str, Cell]) -> Iterator[Crossing]:
        first, second = (one, other) if one[""].signed_value > other[""].signed_value else (other, one)
        # By the numbers first: intervals are computed only for pairs that cross.
        if not first[""].signed_value > second[""].signed_value:
            return
        if not first[condition.name].signed_value < second[condition.name].signed_value:
            return
        clean, under = (margin_of(self.evidence, first[name], second[name]) for name in ("", condition.name))
        if clean.value > 0 > under.value:
            yield Crossing(first[""].row, second[""].row, condition, clean, under)


def _ranks(cells: Sequence[Cell | None]) -> list[int | None]:
    """The rank of each score that takes part in comparisons; equal scores share the better rank."""
    values = [cell.signed_value if cell is not None and cell.compared else None for cell in cells]
    known = [value for value in values if value is not None]
    return [None if value is None else 1 + sum(other > value for other in known) for value in values]
