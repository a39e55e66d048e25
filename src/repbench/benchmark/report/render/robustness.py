"""Robustness as tables and figures: scores under conditions, drops from clean, ranks, and curves over severities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from repbench.benchmark.records.formatting import interval, number
from repbench.benchmark.report.data.heads import Margin
from repbench.benchmark.report.data.robustness import (
    Condition,
    Crossing,
    Disturbed,
    Estimate,
    Robustness,
    RobustRow,
    SeverityCurve,
)
from repbench.benchmark.report.render.escaping import shown
from repbench.benchmark.report.render.figures import MOST_LINES, draw_line, finish, left_out, size_for
from repbench.benchmark.report.render.svg import INK, MARKERS, SERIES, Figure, draw
from repbench.benchmark.report.render.tables import PlainCell, PlainTable, TableColumn, group_title, table
from repbench.benchmark.scoring.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_CROSSINGS = 20
"""Crossings in one table; results.json has all."""

_LINE_OF_CONDITIONS = 0.27


def drawings_of(found: Sequence[Robustness]) -> list[tuple[Figure | None, PlainTable]]:
    """The figures of every table, each with its numbers."""
    drawn: list[tuple[Figure | None, PlainTable]] = []
    for each in found:
        drawn.append((drops_figure(each), scores(each)))
        drawn += [(curves_figure(each, kind), areas(each, kind)) for kind in each.curves]
    return drawn


def tables_in(found: Sequence[Robustness]) -> Iterator[PlainTable]:
    """Every table, in the order of reading: what is lost, the scores, ranks, where they cross, and areas."""
    for each in found:
        yield summary(each)
        yield scores(each)
        yield from tables_of_order(each)
        yield from (areas(each, kind) for kind in each.curves)


def tables_of_order(each: Robustness) -> Iterator[PlainTable]:
    """Ranks under each condition, and where they cross."""
    yield from ranks(each)
    yield from crossings(each)


def summary(each: Robustness) -> PlainTable:
    """A row for each system: its score on clean sound, mean drop and worst condition."""
    columns: tuple[TableColumn[RobustRow], ...] = (
        *_names(),
        TableColumn(f"clean {_metric(each)}", lambda one: one.clean and _score(one.clean.value, one.clean.interval)),
        TableColumn("mean drop", lambda one: _drop(one.mean_drop)),
        TableColumn("worst condition", lambda one: one.worst and one.worst.condition.title),
        TableColumn("drop there", lambda one: one.worst and _drop(one.worst.drop)),
    )
    count = len(each.averaged)
    names = ", ".join(condition.title for condition in each.averaged)
    notes = [
        "Drop: how far a score is below that on clean sound, positive where it is worse; in brackets the 95 % interval "
        f"{_pairing(each)}.",
        f"Mean drop and worst condition are over the {count} condition{'s' * (count != 1)} that more than half of the "
        f"rows have ({names}); a row that lacks one has neither.",
    ]
    return table(_title("Robustness", each), columns, each.rows, notes)


def scores(each: Robustness) -> PlainTable:
    """A row for each condition, clean sound first: the score of each system, and its drop."""
    columns: list[TableColumn[Condition | None]] = [
        TableColumn("condition", lambda condition: "clean" if condition is None else condition.title, is_name=True)
    ]
    for one in each.rows:
        columns += [
            TableColumn(one.row.title, partial(_of_condition, one)),
            TableColumn("drop", partial(_drop_of_condition, one)),
        ]
    note = f"Each drop is of the column to its left; the numbers are {_metric(each)}. Empty cells were not measured."
    return table(_title("Scores under conditions", each), columns, (None, *each.conditions), (note,))


def ranks(each: Robustness) -> Iterator[PlainTable]:
    """A row for each condition: the rank of each system; nothing for a single one."""
    if len(each.rows) < 2:
        return
    columns: list[TableColumn[Condition | None]] = [
        TableColumn("condition", lambda condition: "clean" if condition is None else condition.title, is_name=True),
        *(TableColumn(one.row.title, partial(_rank, one)) for one in each.rows),
    ]
    note = "1 is the best score. Ranks have no interval: the table of changes of order says which are separated."
    yield table(_title("Ranks under conditions", each), columns, (None, *each.conditions), (note,))


def crossings(each: Robustness) -> Iterator[PlainTable]:
    """The pairs of systems whose order under a condition is not that on clean sound; nothing without any."""
    if not each.crossings:
        return
    columns: tuple[TableColumn[Crossing], ...] = (
        TableColumn("better on clean sound", lambda pair: pair.first.title, is_name=True),
        TableColumn("better under the condition", lambda pair: pair.second.title, is_name=True),
        TableColumn("condition", lambda pair: pair.condition.title, is_name=True),
        TableColumn("clean", lambda pair: _margin(pair.clean)),
        TableColumn("under the condition", lambda pair: _margin(pair.disturbed)),
        TableColumn("separated", lambda pair: "yes" if pair.is_separated else "no"),
    )
    separated = sum(pair.is_separated for pair in each.crossings)
    more = len(each.crossings) - MOST_CROSSINGS
    notes = (
        f"{len(each.crossings)} of {each.num_pairs} pairs of two systems and a condition change their order, "
        f"{separated} of them separated.",
        "Numbers are margins of the first system over the second, with 95 % intervals paired over the same utterances "
        "and not adjusted for the number of pairs. Separated: both intervals leave out 0.",
        *([f"{more} more are in results.json."] if more > 0 else []),
    )
    yield table(_title("Changes of order", each), columns, each.crossings[:MOST_CROSSINGS], notes)


def areas(each: Robustness, kind: str) -> PlainTable:
    """The score of each system at each severity of a kind, and the area under the curve."""
    curves = each.curves[kind]
    columns: tuple[TableColumn[SeverityCurve], ...] = (
        TableColumn("system", lambda curve: curve.row.title, is_name=True),
        *(
            TableColumn("clean" if severity == 0 else f"severity {severity}", partial(_at, place=place))
            for place, severity in enumerate(curves[0].severities)
        ),
        TableColumn("area", lambda curve: _score(curve.area.value, curve.area.interval)),
    )
    note = (
        "Area: mean height of the curve from clean sound to the highest severity; a system that loses nothing has its "
        "score on clean sound."
    )
    return table(_title(f"Severities of {shown(kind, 60)}", each), columns, curves, (note,))


def drops_figure(each: Robustness) -> Figure:
    """The drop of each system under each condition, with 95 % intervals."""
    rows = each.rows[:MOST_LINES]
    conditions = each.conditions
    words = [
        f"{one.row.title}: "
        + ", ".join(
            f"{of.condition.title} {of.drop.value:+.3f}" for of in one.disturbed.values() if of.drop is not None
        )
        for one in rows
    ]

    def paint(axes: Axes) -> None:
        axes.axvline(0.0, color=INK, linewidth=0.9)
        for place, one in enumerate(rows):
            # side by side within the line of a condition, in the order of the legend
            shift = 0.7 * ((place + 0.5) / len(rows) - 0.5)
            known = [
                (line + shift, drop)
                for line, condition in enumerate(conditions)
                if (of := one.disturbed.get(condition.name)) is not None and (drop := of.drop) is not None
            ]
            for height, drop in known:
                if drop.interval is not None:
                    axes.plot([drop.interval.low, drop.interval.high], [height] * 2, color=SERIES[place], linewidth=1)
            axes.plot(
                [drop.value for _, drop in known],
                [height for height, _ in known],
                color=SERIES[place],
                marker=MARKERS[place],
                markersize=3.5,
                linestyle="none",
                label=shown(one.row.title, 38),
            )
        axes.set_yticks(range(len(conditions)), [shown(condition.name, 24) for condition in conditions], fontsize=9)
        # downwards, as the table is read
        axes.set_ylim(len(conditions) - 0.5, -0.5)
        axes.grid(axis="x")
        axes.set_xlabel(f"drop of {shown(each.column.metric, 24)} from clean sound")
        axes.figure.legend(loc="outside lower left", ncols=1, labelcolor=INK)

    width, height = size_for(len(rows))
    size = (width, max(height - 1.9, 0.7) + _LINE_OF_CONDITIONS * max(len(conditions), 3))
    text = "; ".join([*words, left_out(len(each.rows))])
    return draw(f"drops-{each.key}", _title("Drop from clean sound", each), text, size, paint)


def curves_figure(each: Robustness, kind: str) -> Figure:
    """Score against the severities of a kind; the bands are the 95 % intervals of the drop from severity 0, clean."""
    curves = each.curves[kind][:MOST_LINES]
    words = [
        f"{curve.row.title}: "
        + ", ".join(
            f"{number(cell.value)} at {severity}" for severity, cell in zip(curve.severities, curve.cells, strict=True)
        )
        for curve in curves
    ]

    def paint(axes: Axes) -> None:
        for place, curve in enumerate(curves):
            draw_line(axes, place, curve.row.title, curve.severities, curve.cells, curve.bands)
        axes.set_xticks(curves[0].severities)
        axes.set_xlabel(f"severity of {shown(kind, 40)} (0: clean)")
        finish(axes, each.column, len(curves))

    text = "; ".join([*words, left_out(len(each.curves[kind]))])
    # The kind can hold a path, which no id may.
    key = f"severity-{each.key}-{list(each.curves).index(kind)}"
    title = _title(f"Severities of {shown(kind, 60)}", each)
    return draw(key, title, text, size_for(len(curves)), paint)


def _title(what: str, each: Robustness) -> str:
    return f"{what}: {each.title}, {group_title(each.group)}"


def _metric(each: Robustness) -> str:
    return f"{shown(each.column.metric)} {each.column.direction}"


def _names() -> tuple[TableColumn[RobustRow], ...]:
    return (
        TableColumn("system", lambda one: one.row.system.name, is_name=True),
        TableColumn("layer", lambda one: shown(one.row.layer), is_name=True),
    )


def _pairing(each: Robustness) -> str:
    if each.matched:
        return "paired over the same utterances, not over seeds; means have none"
    return "of the same probe on the same utterances, over speakers or groups and seeds"


def _score(value: float | None, known: Interval | None) -> PlainCell:
    return PlainCell(number(value), interval(known))


def _drop(drop: Estimate | None) -> PlainCell | None:
    return None if drop is None else PlainCell(signed(drop.value), interval(drop.interval))


def signed(value: float) -> str:
    """Three decimals with a sign."""
    # 0.0 takes the sign off a value that is rounded to 0
    return f"{round(value, 3) + 0.0:+.3f}"


def _margin(margin: Margin) -> PlainCell:
    return PlainCell(signed(margin.value), interval(margin.interval))


def _disturbed(one: RobustRow, condition: Condition) -> Disturbed | None:
    return one.disturbed.get(condition.name)


def _of_condition(one: RobustRow, condition: Condition | None) -> PlainCell | None:
    if condition is None:
        cell = one.clean
    else:
        found = _disturbed(one, condition)
        cell = None if found is None else found.cell
    if cell is None:
        return None
    flags = f" ({', '.join(cell.flags)})" if cell.flags else ""
    return PlainCell(f"{number(cell.value)}{flags}", interval(cell.interval))


def _drop_of_condition(one: RobustRow, condition: Condition | None) -> PlainCell | None:
    found = None if condition is None else _disturbed(one, condition)
    return None if found is None else _drop(found.drop)


def _rank(one: RobustRow, condition: Condition | None) -> str | None:
    found = None if condition is None else _disturbed(one, condition)
    rank = one.rank if condition is None else None if found is None else found.rank
    return None if rank is None else str(rank)


def _at(curve: SeverityCurve, place: int) -> PlainCell:
    cell = curve.cells[place]
    return _score(cell.value, cell.interval)
