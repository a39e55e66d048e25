"""The tables of a report as rows of plain text, which Markdown, LaTeX and the page dress each in their way."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from repbench.benchmark.report.data.assemble import Report
from repbench.benchmark.report.data.columns import Column
from repbench.benchmark.report.data.compare import Together
from repbench.benchmark.report.data.confusion import Confusion
from repbench.benchmark.report.data.controls import Controlled, Controls, Gain
from repbench.benchmark.report.data.cost import COST_HEADINGS, Front, as_count, as_factor
from repbench.benchmark.report.data.efficiency import Efficiency, as_time
from repbench.benchmark.report.data.gather import Cell, ReportRow
from repbench.benchmark.report.data.layers import LayerProfiles
from repbench.benchmark.report.data.sensitivity import Sensitivity
from repbench.benchmark.report.published import Published
from repbench.benchmark.report.render.escaping import shown
from repbench.benchmark.report.render.formatting import interval, number

Mark = Literal["best", "tied", "untested", ""]


def legend(report: Report) -> str:
    """How the tables of scores are to be read."""
    sentences = (
        "Best of each column in bold; ≈: not told apart from it (paired over the same utterances, Holm over all "
        "comparisons with a best number of this report, 5 %).",
        *untested_sentence(report),
        f"In brackets the 95 % interval over {varied(report)}.",
        *numbers_say(report),
        "↑ higher is better, ↓ lower. An empty cell was not asked.",
    )
    return " ".join(sentences)


def numbers_say(report: Report) -> Iterator[str]:
    """How many seeds a number has, and what is said beside it."""
    yield seeds_sentence(report)
    if any(cell.unchecked is not None for cell in report.gathered.cells.values()):
        yield "“unchecked”: could not be computed again from predictions, and is neither best nor compared."


def untested_sentence(report: Report) -> Iterator[str]:
    """What the sign of a comparison that could not be made means, where there is one."""
    if report.verdicts.untested:
        yield (
            "?: could not be compared with it (one speaker or group alone, or a difference that is the same in each), "
            "which says nothing of whether they differ."
        )


def varied(report: Report) -> str:
    """What the intervals of the table are over."""
    cells = report.gathered.cells.values()
    units = sorted({str(cell.interval_unit) for cell in cells if cell.interval_unit is not None})
    names = " or ".join(f"{shown(unit)}s" for unit in units) or "speakers"
    return f"{names} and seeds" if any(len(cell.runs) > 1 for cell in cells) else names


def seeds_sentence(report: Report) -> str:
    """How many seeds a number of the table has."""
    counts = {len(cell.runs) for column in report.gathered.columns for cell in report.gathered.column_cells(column)}
    each = f"the mean over {report.seeds} seeds" if report.seeds > 1 else "of one seed"
    unless = " unless it says otherwise" if len(counts) > 1 else ""
    alone = " A number of one seed says nothing of other seeds." if 1 in counts else ""
    return f"Each number is {each}{unless}.{alone}"


@dataclass(frozen=True, slots=True)
class Value:
    """A cell: a text, an interval that may follow it, and what it is in its column."""

    text: str
    interval: str = ""
    mark: Mark = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        title: What it shows.
        headings: Of its columns; the first `num_names` hold names, the others numbers.
        rows: As long as the headings.
        num_names: How many columns hold names.
        notes: What stands below it.
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    num_names: int = 1
    notes: tuple[str, ...] = field(default=())


def tables_of(report: Report) -> Iterator[Table]:
    """Every table of the report, in its order."""
    for group in report.gathered.groups:
        yield scores(report, group)
        if group in report.overall:
            yield overall(report.overall[group], group)
    yield from (controls(each) for each in report.controls)
    yield from (efficiency(each) for each in report.efficiencies)
    yield from (layers(each) for each in report.profiles)
    yield from (front(each) for each in report.fronts)
    yield from (most_confused(each) for each in report.confusions)
    yield from (learning_rates(each) for each in report.sensitivities)
    yield from sources(report)


def sources(report: Report) -> Iterator[Table]:
    """Where the systems were published and under which licence; nothing where no record says so."""
    systems = dict.fromkeys(row.system for row in report.gathered.rows)
    told = [system for system in systems if system.citation is not None or system.licence is not None]
    if told:
        rows = tuple(
            (Value(each.name), Value(shown(each.citation or "", 200)), Value(shown(each.licence or "", 80)))
            for each in told
        )
        note = "As each model declares of itself; what a training started from or learned from may ask for more."
        yield Table("Models", ("system", "published in", "licence"), rows, 3, (note,))


def scores(report: Report, group: tuple[str, float]) -> Table:
    """The numbers of one mode and share of labels, with what they cost."""
    gathered = report.gathered
    rows = gathered.group_rows(group)
    columns = [column for column in gathered.columns if any(gathered.cell(row, column) for row in rows)]
    body = [
        (
            Value(row.system.name),
            Value(shown(row.layer)),
            *(cell_value(report, gathered.cell(row, column)) for column in columns),
            Value(f"{gathered.covered(row)}/{len(columns)}"),
            *costs(report, row),
        )
        for row in rows
    ]
    for name, values in (
        ("chance", [c.chance for c in columns]),
        ("majority", [c.majority for c in columns]),
        ("smallest detectable difference", [report.verdicts.resolution.get((*group, c.key)) for c in columns]),
    ):
        texts = [Value("" if value is None else number(value)) for value in values]
        body.append((Value(name), Value(""), *texts, *[Value("")] * (1 + len(COST_HEADINGS))))
    headings = ("system", "layer", *(heading(column) for column in columns), "covered", *COST_HEADINGS)
    return Table(f"Scores: {group_title(group)}", headings, tuple(body), 2, (legend(report),))


def heading(column: Column) -> str:
    """Of a column: the question, the metric, and which way is up."""
    return f"{column.title}: {shown(column.metric)} {column.direction}"


def group_title(group: tuple[str, float]) -> str:
    """The mode and share of labels in words."""
    mode, fraction = group
    words = {"frozen": "frozen", "finetune": "fine-tuned"}[mode]
    return f"{words}, {'all labels' if fraction == 1.0 else f'{100 * fraction:g} % of the labels'}"


def cell_value(report: Report, cell: Cell | None) -> Value:
    """A number as the tables show it; nothing where nobody asked."""
    if cell is None:
        return Value("")
    return Value(_flagged(number(cell.value), report.flags(cell)), interval(cell.interval), report.mark(cell))


def _flagged(text: str, flags: Sequence[str]) -> str:
    return f"{text} ({', '.join(flags)})" if flags else text


def costs(report: Report, row: ReportRow) -> tuple[Value, ...]:
    """Under `COST_HEADINGS`: parameters, work a second of sound, speed, seconds of training, and where measured."""
    cost = report.costs[row.key]
    macs = "" if cost.macs_per_second is None else as_count(cost.macs_per_second)
    on = {place: f" [{number}]" if len(cost.places) > 1 else "" for number, place in enumerate(cost.places, start=1)}
    speeds = [f"{as_factor(factor)}{on[place]}" for place, factor in cost.real_time_factors.items()]
    several = Counter(column.task for column in report.gathered.all_columns)
    tasks = {
        column.key: shown(column.task) if several[column.task] == 1 else column.title
        for column in report.gathered.all_columns
    }
    alone = len({key for key, _ in cost.train_seconds}) == 1
    trained = [
        f"{as_time(seconds)}{on[place]}{'' if alone else f' {tasks.get(key, key)}'}"
        for (key, place), seconds in cost.train_seconds.items()
    ]
    places = [f"{on[place].strip()} {place}".strip() for place in cost.places]
    texts = (as_count(cost.parameters), macs, "; ".join(speeds), "; ".join(trained), "; ".join(places))
    return tuple(map(Value, texts))


def overall(together: Together, group: tuple[str, float]) -> Table:
    """Two numbers over all tasks and the coverage; who answered most stands first, who answered the same together."""
    sets = list(dict.fromkeys(each.answered for each in sorted(together.rows, key=lambda each: -each.mean.scored)))
    letters = dict(zip(sets, _letters(), strict=False)) if len(sets) > 1 else {}
    ordered = sorted(together.rows, key=lambda each: (sets.index(each.answered), -(each.borda.value or 0.0)))
    rows = tuple(
        (
            Value(each.row.system.name),
            Value(shown(each.row.layer)),
            Value(number(each.mean.value)),
            Value("–" if each.borda.value is None else f"{each.borda.value:.1f}"),
            Value(" ".join([f"{each.mean.scored}/{each.mean.tasks}", *([letters[each.answered]] if letters else [])])),
        )
        for each in ordered
    )
    return Table(
        f"All tasks together: {group_title(group)}",
        ("system", "layer", "mean", "Borda", "covered"),
        rows,
        2,
        tuple(_notes_together(together, letters)),
    )


def _notes_together(together: Together, letters: Mapping[frozenset[str], str]) -> Iterator[str]:
    relative = ", ".join(column.title for column in together.relative)
    if len(together.relative) == len(together.columns):
        scores = "on which the worst row of a column is 0 and the best 1: of this table alone"
    elif relative:
        scores = (
            f"on which guessing is 0 and a perfect system 1; in {relative}, where guessing or perfection has no "
            "number, the worst row shown is 0 and the best 1"
        )
    else:
        scores = "on which guessing is 0 and a perfect system 1"
    yield f"Mean: of scores {scores}. Borda: points for systems left behind, summed over tasks."
    yield (
        "Each task and corpus counts once, by the column that most rows answered (of equals the tuned one): "
        f"{'; '.join(column.title for column in together.columns)}."
    )
    if letters:
        several = "; ".join(
            f"{letter}: {', '.join(column.title for column in together.columns if column.key in keys) or 'nothing'}"
            for keys, letter in letters.items()
        )
        yield f"Only rows that answered the same can be compared. {several}."


def _letters() -> Iterator[str]:
    """A, B, …, Z, A2, B2, …"""
    for turn in itertools.count(1):
        yield from (f"{letter}{turn if turn > 1 else ''}" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def controls(each: Controls) -> Table:
    """Of each number what it has over shuffled labels and over the same network untrained."""
    shuffled = any(one.selectivity is not None for one in each.controlled)
    untrained = any(one.training is not None for one in each.controlled)
    rows = tuple(_controlled(one, shuffled, untrained) for one in each.controlled)
    headings = (
        "system", "asked", shown(each.column.metric),
        *(["shuffled labels", "selectivity"] if shuffled else []),
        *(["untrained", "gained by training"] if untrained else []),
    )  # fmt: skip
    notes = [
        *(["Selectivity: how much better than on shuffled labels, which say nothing."] if shuffled else []),
        *(["Gained by training: how much better than the same network untrained."] if untrained else []),
        "In brackets 95 % intervals, paired over the same utterances.",
    ]
    return Table(f"Controls: {each.column.title}", headings, rows, 2, (" ".join(notes),))


def _controlled(one: Controlled, shuffled: bool, untrained: bool) -> tuple[Value, ...]:
    row = one.cell.row
    return (
        Value(row.system.name),
        Value(f"{group_title(row.group)}, layer {shown(row.layer)}"),
        _of_layer(one.cell),
        *(_gained(one.selectivity) if shuffled else ()),
        *(_gained(one.training) if untrained else ()),
    )


def _gained(gain: Gain | None) -> tuple[Value, Value]:
    if gain is None:
        return Value(""), Value("")
    return _of_layer(gain.control), Value(number(gain.value), interval(gain.interval))


def efficiency(each: Efficiency) -> Table:
    """Area under each curve, and the labels it needs to reach mel."""
    target = "mel with all labels" if each.target is None else f"mel with all labels ({number(each.target)})"
    rows = tuple(
        (
            Value(curve.name),
            Value(number(curve.area)),
            Value("" if each.target is None else "never" if curve.to_reach is None else as_time(curve.to_reach)),
            Value(", ".join(f"{number(v)} at {as_time(s)}" for s, v in zip(curve.seconds, curve.values, strict=True))),
        )
        for curve in each.curves
    )
    notes = () if each.same_range else ("The curves span different budgets: their areas cannot be compared.",)
    headings = ("system", "area", f"labels to reach {target}", "measured")
    return Table(f"Few labels: {each.column.title}", headings, rows, 1, notes)


def layers(each: LayerProfiles) -> Table:
    """A row for each system, a column for each layer."""
    numbers = sorted({layer for profile in each.profiles for layer in profile.cells})
    mixed = any(profile.weighted for profile in each.profiles)
    rows = tuple(
        (
            Value(profile.name),
            *(_of_layer(profile.cells.get(layer)) for layer in numbers),
            *([_of_layer(profile.weighted)] if mixed else []),
        )
        for profile in each.profiles
    )
    headings = ("system", *(str(layer) for layer in numbers), *(["learned mix"] if mixed else []))
    return Table(f"Layer by layer: {each.column.title}", headings, rows)


def _of_layer(cell: Cell | None) -> Value:
    return Value("") if cell is None else Value(_flagged(number(cell.value), cell.flags), interval(cell.interval))


def learning_rates(each: Sensitivity) -> Table:
    """A row for each system, a column for each rate; what was chosen in bold."""
    rates = sorted({rate for tried in each.tried for rate in tried.dev_values})
    rows = tuple(
        (
            Value(tried.cell.row.title),
            *(
                Value(number(tried.dev_values.get(rate)) if rate in tried.dev_values else "", mark=chosen)
                for rate in rates
                for chosen in ("best" if rate in tried.chosen else "",)
            ),
        )
        for tried in each.tried
    )
    headings = ("system", *(f"{rate:g}" for rate in rates))
    return Table(f"Learning rates, on dev: {each.column.title}", headings, rows, 1, ("Chosen in bold.",))


def front(each: Front) -> Table:
    """Value and work of each row, by rising work; what is on the front in bold."""
    rows = tuple(
        (
            Value(cell.row.title),
            Value(as_count(macs)),
            Value(as_count(cell.runs[0].record.cost.parameters)),
            Value(
                _flagged(number(cell.value), cell.flags),
                interval(cell.interval),
                "best" if cell.key in each.front else "",
            ),
        )
        for macs, cell in each.points
    )
    headings = ("system", "MACs/s", "parameters", shown(each.column.metric))
    return Table(each.title, headings, rows, 1, ("The front in bold.",))


def most_confused(each: Confusion) -> Table:
    """The most frequent confusions."""
    rows = tuple(
        (Value(pair.reference), Value(pair.estimated), Value(str(pair.count)), Value(number(pair.share)))
        for pair in each.pairs
    )
    title = f"Most confused: {each.cell.column.title}, {each.cell.row.title}"
    return Table(title, ("said", "heard", "instants", "share of what was said"), rows, 2)


def published_table(table: Published) -> Table:
    """A published table as it was published; nothing in it is ranked with ours."""
    quantities = list(dict.fromkeys(name for values in table.values.values() for name in values))
    rows = tuple(
        (Value(model), *(Value(f"{values[name]:g}" if name in values else "") for name in quantities))
        for model, values in table.values.items()
    )
    notes = (f"Source: {table.source}, {table.date}.", *(f"{note[0].upper()}{note[1:]}." for note in table.notes))
    return Table(table.title, ("model", *quantities), rows, 1, notes)
