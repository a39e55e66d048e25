"""The tables of a report as plain text; Markdown, LaTeX and the page add their own markup.

Longer than others: one short function for each table of the report, in their order.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from repbench.benchmark.records.formatting import UNDEFINED, interval, number
from repbench.benchmark.records.parts import HeardPart
from repbench.benchmark.report.data.assemble import Report
from repbench.benchmark.report.data.citations import Citation
from repbench.benchmark.report.data.columns import Column
from repbench.benchmark.report.data.compare import GroupAggregates, RowAggregates
from repbench.benchmark.report.data.confusion import ConfusedPair, Confusion
from repbench.benchmark.report.data.controls import Controlled, Controls, Gain
from repbench.benchmark.report.data.cost import Front, as_count
from repbench.benchmark.report.data.det import ALARMS, DetCurve, DetCurves
from repbench.benchmark.report.data.efficiency import Curve, Efficiency, as_time
from repbench.benchmark.report.data.fold_scores import CellFolds, FoldScores
from repbench.benchmark.report.data.gather import Cell, ReportRow
from repbench.benchmark.report.data.groups import CellGroups, ColumnGroups, GroupScore
from repbench.benchmark.report.data.heads import HeadComparison, Reversal
from repbench.benchmark.report.data.heard import declared_in_words, in_words, overlap_in_words, together
from repbench.benchmark.report.data.layers import LayerProfiles, Profile
from repbench.benchmark.report.data.seed_shares import CellSeeds, SeedShares, uncertainty
from repbench.benchmark.report.data.sensitivity import Sensitivity, TriedRates
from repbench.benchmark.report.data.systems import System
from repbench.benchmark.report.data.transcripts import AlignedUtterance, WorstUtterances, alignment_in_words
from repbench.benchmark.report.published import Published
from repbench.benchmark.report.render.cost_columns import COST_COLUMNS
from repbench.benchmark.report.render.escaping import shown
from repbench.benchmark.scoring.grouping import UNKNOWN_GROUP

Mark = Literal["best", "tied", "untested", ""]

Subject = TypeVar("Subject")
"""What a row of a table is about."""


def legend(report: Report) -> str:
    """The legend of the tables of scores."""
    sentences = (
        "The best number of each column is bold; ≈: no significant difference from it (test paired over the same "
        "utterances, Holm adjustment over all comparisons with a best number, 5 %).",
        *untested_sentence(report),
        f"In brackets: 95 % interval over {varied(report)}.",
        *seeds_and_checks(report),
        *worst_sentence(report),
        "↑: higher is better, ↓: lower is better. Empty cells were not measured.",
    )
    return " ".join(sentences)


def seeds_and_checks(report: Report) -> Iterator[str]:
    """Sentences on the seeds of a number and on numbers that were not verified."""
    yield seeds_sentence(report)
    if any(cell.unchecked is not None for cell in report.gathered.cells.values()):
        yield "“unchecked”: could not be recomputed from predictions, and is left out of every comparison."


def worst_sentence(report: Report) -> Iterator[str]:
    """The meaning of the worst groups in the tables of scores, where they have any."""
    if report.groups:
        yield "“worst”: the group with the worst score; “Groups” has all groups, with intervals."


def untested_sentence(report: Report) -> Iterator[str]:
    """The meaning of `?`, where a table has one."""
    if report.verdicts.untested:
        yield (
            "?: not tested against it (only one speaker or group, or the same difference in each); whether they differ "
            "is not known."
        )


def varied(report: Report) -> str:
    """The units that the intervals of the table are over."""
    cells = report.gathered.cells.values()
    units = sorted({str(cell.interval_unit) for cell in cells if cell.interval_unit is not None})
    names = " or ".join(f"{shown(unit)}s" for unit in units) or "speakers"
    return f"{names} and seeds" if any(len(cell.runs) > 1 for cell in cells) else names


def seeds_sentence(report: Report) -> str:
    """A sentence on the number of seeds."""
    counts = {len(cell.runs) for column in report.gathered.columns for cell in report.gathered.column_cells(column)}
    each = f"the mean over {report.seeds} seeds" if report.seeds > 1 else "from one seed"
    unless = " unless marked otherwise" if len(counts) > 1 else ""
    alone = " Intervals of one seed do not include the variance between seeds." if 1 in counts else ""
    return f"Each number is {each}{unless}.{alone}"


@dataclass(frozen=True, slots=True)
class PlainCell:
    """A cell: a text, an interval that may follow it, and its mark in the column."""

    text: str
    interval: str = ""
    mark: Mark = ""


@dataclass(frozen=True, slots=True)
class PlainTable:
    """A table of plain text.

    Attributes:
        title: Heading of the table.
        headings: Of its columns; the first `num_names` hold names, the others numbers.
        rows: As long as the headings.
        num_names: Number of columns that hold names.
        notes: Sentences below it.
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[PlainCell, ...], ...]
    num_names: int = 1
    notes: tuple[str, ...] = field(default=())


class TableColumn(NamedTuple, Generic[Subject]):
    """A column of a table: one entry adds it to Markdown, LaTeX and, except in the table of scores, the page.

    The page draws its own table of scores.

    Attributes:
        heading: Its heading.
        value: Of the subject of a row: a value to be formatted, or a cell with interval and mark; None: an empty cell.
        format: From a value to its text.
        is_name: Whether it holds names, which are aligned to the left; such columns come first.
    """

    heading: str
    value: Callable[[Subject], Any]
    format: Callable[[Any], str] = str
    is_name: bool = False

    def cell(self, subject: Subject) -> PlainCell:
        """Its cell in the row of a subject."""
        value = self.value(subject)
        if isinstance(value, PlainCell):
            return value
        return PlainCell("" if value is None else self.format(value))


def table(
    title: str, columns: Sequence[TableColumn[Subject]], subjects: Iterable[Subject], notes: Sequence[str] = ()
) -> PlainTable:
    """A table with a row for each subject."""
    rows = tuple(tuple(column.cell(subject) for column in columns) for subject in subjects)
    headings = tuple(column.heading for column in columns)
    return PlainTable(title, headings, rows, sum(column.is_name for column in columns), tuple(notes))


def tables_of(report: Report) -> Iterator[PlainTable]:
    """Every table of the report, in its order."""
    for group in report.gathered.groups:
        yield scores(report, group)
        yield heard(report, group)
        if group in report.overall:
            yield from overall(report.overall[group], group)
    yield from groups(report.groups)
    yield from (folds(each) for each in report.folds)
    yield from (seeds(each) for each in report.seed_shares)
    yield from (heads(each) for each in report.heads if each.reversals)
    yield from (controls(each) for each in report.controls)
    yield from (efficiency(each) for each in report.efficiencies)
    yield from (layers(each) for each in report.profiles)
    yield from (front(each) for each in report.fronts)
    yield from (most_confused(each) for each in report.confusions)
    yield from (det(each) for each in report.det)
    yield from (worst(each) for each in report.worst)
    yield from (learning_rates(each) for each in report.sensitivities)
    yield from sources(report)
    yield to_cite(report)


def sources(report: Report) -> Iterator[PlainTable]:
    """Citation and licence of the systems whose records name them; no table where none does."""
    systems = dict.fromkeys(row.system for row in report.gathered.rows)
    known = [system for system in systems if system.citation is not None or system.licence is not None]
    columns: tuple[TableColumn[System], ...] = (
        TableColumn("system", lambda each: each.name, is_name=True),
        TableColumn("published in", lambda each: shown(each.citation or "", 200), is_name=True),
        TableColumn("licence", lambda each: shown(each.licence or "", 80), is_name=True),
    )
    note = "As the models declare; licences of initial checkpoints and of training data may add conditions."
    if known:
        yield table("Models", columns, known, (note,))


def to_cite(report: Report) -> PlainTable:
    """What to cite for the numbers: repbench, models, tasks and corpora."""
    columns: tuple[TableColumn[Citation], ...] = (
        TableColumn("name", lambda each: shown(each.name), is_name=True),
        TableColumn("is", lambda each: each.kind, is_name=True),
        TableColumn("publication", lambda each: shown(each.publication or "", 200), is_name=True),
        TableColumn("licence", lambda each: shown(each.licence or "", 80), is_name=True),
    )
    note = "As models and corpora declare; a corpus that is known by another name than that of its layout has no entry."
    return table("To cite", columns, report.citations, (note,))


def scores(report: Report, group: tuple[str, float]) -> PlainTable:
    """The numbers of one mode and label fraction with their costs; then chance, majority and smallest difference."""
    gathered = report.gathered
    rows = gathered.group_rows(group)
    shown_columns = [column for column in gathered.columns if any(gathered.cell(row, column) for row in rows)]
    columns: tuple[TableColumn[ReportRow], ...] = (
        TableColumn("system", lambda row: row.system.name, is_name=True),
        TableColumn("layer", lambda row: shown(row.layer), is_name=True),
        *(TableColumn(heading(column), partial(_score, report, column=column)) for column in shown_columns),
        TableColumn("covered", lambda row: f"{gathered.covered(row)}/{len(shown_columns)}"),
        TableColumn("heard before", lambda row: gathered.heard(row).verdict),
        *(TableColumn(each.heading, partial(each.text, report)) for each in COST_COLUMNS),
    )
    scored = table(f"Scores: {group_title(group)}", columns, rows, (legend(report),))
    references = (
        ("chance", [column.chance for column in shown_columns]),
        ("majority", [column.majority for column in shown_columns]),
        (
            "smallest detectable difference",
            [report.verdicts.resolution.get((*group, column.key)) for column in shown_columns],
        ),
    )
    more = tuple(
        (PlainCell(name), PlainCell(""), *(PlainCell("" if value is None else number(value)) for value in values))
        for name, values in references
    )
    return replace(scored, rows=scored.rows + tuple(_filled(row, len(scored.headings)) for row in more))


HEARD_NOTE = (
    "Heard: the model was trained on test utterances before. Not heard: all its training data is declared, and none of "
    "it is of the test. Unknown: neither follows from what is declared. Neither order nor marks depend on it."
)


def heard(report: Report, group: tuple[str, float]) -> PlainTable:
    """Of each system and corpus whether the system was trained on the test utterances before, and the reasons."""
    found: dict[tuple[str, str], list[HeardPart]] = {}
    for row in report.gathered.group_rows(group):
        for cell in report.gathered.row_cells(row):
            found.setdefault((row.system.name, cell.column.corpus), []).append(cell.heard)
    columns: tuple[TableColumn[tuple[tuple[str, str], HeardPart]], ...] = (
        TableColumn("system", lambda each: each[0][0], is_name=True),
        TableColumn("corpus", lambda each: shown(each[0][1]), is_name=True),
        TableColumn("heard before", lambda each: each[1].verdict, is_name=True),
        TableColumn("test utterances heard", lambda each: overlap_in_words(each[1])),
        TableColumn("trained on", lambda each: shown(declared_in_words(each[1].declared), MOST_OF_BASIS)),
        TableColumn("this rests on", lambda each: shown(in_words(each[1]), MOST_OF_BASIS)),
    )
    subjects = [(names, together(parts)) for names, parts in found.items()]
    return table(f"Heard before: {group_title(group)}", columns, subjects, (HEARD_NOTE,))


MOST_OF_BASIS = 600
"""Most characters of the reasons for a verdict, in tables; results.json has them whole."""


def _filled(row: tuple[PlainCell, ...], length: int) -> tuple[PlainCell, ...]:
    """A row with empty cells up to the length of a table's rows."""
    return (*row, *[PlainCell("")] * (length - len(row)))


def _score(report: Report, row: ReportRow, column: Column) -> PlainCell | None:
    cell = report.gathered.cell(row, column)
    if cell is None:
        return None
    remarks = [*report.flags(cell), *report.worst_groups(cell)]
    return PlainCell(_flagged(number(cell.value), remarks), interval(cell.interval), report.mark(cell))


def heading(column: Column) -> str:
    """Of a column of scores: its title, the metric, and an arrow to where it is better."""
    return f"{column.title}: {shown(column.metric)} {column.direction}"


def group_title(group: tuple[str, float]) -> str:
    """Mode and label fraction in words."""
    mode, fraction = group
    words = {"frozen": "frozen", "finetune": "fine-tuned"}[mode]
    return f"{words}, {'all labels' if fraction == 1.0 else f'{100 * fraction:g} % of the labels'}"


def _flagged(text: str, flags: Sequence[str]) -> str:
    return f"{text} ({', '.join(flags)})" if flags else text


def overall(aggregates: GroupAggregates, group: tuple[str, float]) -> Iterator[PlainTable]:
    """Two aggregates over all tasks and the coverage: a table for each set of columns, the largest set first.

    Rows with numbers in different columns cannot be compared, so they are in different tables.
    """
    # Sorting is stable, so sets of equal size keep the order of rows.
    sets = list(dict.fromkeys(each.answered for each in sorted(aggregates.rows, key=lambda each: -each.mean.scored)))
    letters = dict(zip(sets, _letters(), strict=False)) if len(sets) > 1 else {}
    columns: tuple[TableColumn[RowAggregates], ...] = (
        TableColumn("system", lambda each: each.row.system.name, is_name=True),
        TableColumn("layer", lambda each: shown(each.row.layer), is_name=True),
        TableColumn("mean", lambda each: number(each.mean.value)),
        TableColumn("Borda", lambda each: UNDEFINED if each.borda.value is None else f"{each.borda.value:.1f}"),
        TableColumn("covered", lambda each: f"{each.mean.scored}/{each.mean.tasks}"),
    )
    for answered in sets:
        rows = [each for each in aggregates.rows if each.answered == answered]
        ordered = sorted(rows, key=lambda each: -(each.borda.value or 0.0))
        which = f", columns {letters[answered]}" if letters else ""
        notes = tuple(_notes(aggregates, letters)) if answered == sets[-1] else ()
        yield table(f"All tasks together{which}: {group_title(group)}", columns, ordered, notes)


def _notes(aggregates: GroupAggregates, letters: Mapping[frozenset[str], str]) -> Iterator[str]:
    relative = ", ".join(column.title for column in aggregates.relative)
    if len(aggregates.relative) == len(aggregates.columns):
        scores = "scaled so that the worst row of a column is 0 and the best 1, which holds for this table alone"
    elif relative:
        scores = (
            f"scaled so that chance is 0 and a perfect system 1; in {relative}, where chance or perfection has no "
            "number, the worst row shown is 0 and the best 1"
        )
    else:
        scores = "scaled so that chance is 0 and a perfect system 1"
    yield f"Mean: mean of scores {scores}. Borda: number of systems outranked, summed over tasks."
    yield (
        "Each task and corpus counts once, by the column with the most rows (of equals the tuned one): "
        f"{'; '.join(column.title for column in aggregates.columns)}."
    )
    if aggregates.trivial:
        titles = "; ".join(column.title for column in aggregates.trivial)
        yield f"Left out, because always predicting the most frequent class is perfect there: {titles}."
    if letters:
        several = "; ".join(
            f"{letter}: {', '.join(column.title for column in aggregates.columns if column.key in keys) or 'nothing'}"
            for keys, letter in letters.items()
        )
        yield f"Only rows of one table, which have numbers in the same columns, can be compared. {several}."


def _letters() -> Iterator[str]:
    """A, B, …, Z, A2, B2, …"""
    for turn in itertools.count(1):
        yield from (f"{letter}{turn if turn > 1 else ''}" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def folds(each: FoldScores) -> PlainTable:
    """A row for each number, a column for each fold; then the mean over folds."""
    columns: tuple[TableColumn[CellFolds], ...] = (
        TableColumn("system", lambda one: one.cell.row.system.name, is_name=True),
        TableColumn("setting", lambda one: _setting(one.cell.row), is_name=True),
        *(TableColumn(f"fold {shown(name)}", partial(_of_fold, name=name)) for name in each.names),
        TableColumn("mean over folds", lambda one: one.mean, number),
        TableColumn("deviation", lambda one: one.deviation, number),
        TableColumn(f"pooled {shown(each.column.metric)}", lambda one: _unmarked(one.cell)),
    )
    note = (
        "In the mean over folds each fold counts alike, as in published results; the pooled number counts each item "
        "alike, and is the one that is ranked and has an interval. Deviation: standard deviation of the folds."
    )
    return table(f"Folds: {each.column.title}", columns, each.cells, (note,))


def _of_fold(one: CellFolds, name: str) -> str | None:
    return number(one.values[name]) if name in one.values else None


def groups(several: Sequence[ColumnGroups]) -> Iterator[PlainTable]:
    """The tables of groups; the notes of the first explain the columns of all."""
    for place, each in enumerate(several):
        plain = _groups(each)
        yield replace(plain, notes=(GAP_SENTENCES, *plain.notes)) if place == 0 else plain


GAP_SENTENCES = (
    "Gap: distance between the best and the worst group. These two are found after a look at all groups, so the gap is "
    "above 0 even where groups are equal: “gap by chance” is its mean for equal groups with these errors. Its 95 % "
    "interval allows for the look at all pairs of groups; where it holds 0, the groups are not told apart. The "
    "intervals of single groups are of each alone."
)


def _groups(each: ColumnGroups) -> PlainTable:
    """A row for each number: that of all utterances, that of each group, the worst group, and the gap."""
    columns: tuple[TableColumn[CellGroups], ...] = (
        TableColumn("system", lambda one: one.cell.row.system.name, is_name=True),
        TableColumn("setting", lambda one: _setting(one.cell.row), is_name=True),
        TableColumn(f"all: {shown(each.column.metric)} {each.column.direction}", lambda one: _unmarked(one.cell)),
        *(TableColumn(_group_heading(each, name), partial(_of_group, name=name)) for name in each.names),
        TableColumn("worst", lambda one: None if one.gap is None else shown(one.gap.worst)),
        TableColumn("gap", _gap),
        TableColumn("gap by chance", lambda one: one.gap and one.gap.by_chance, number),
    )
    title = f"Groups by {shown(each.grouping.attribute)}: {each.column.title}"
    return table(title, columns, each.cells, tuple(_notes_on_groups(each)))


def _group_heading(each: ColumnGroups, name: str) -> str:
    """A group with its numbers of speakers and utterances; the largest where those of the column differ."""
    sizes = [one for cell in each.cells if (one := cell.group(name)) is not None]
    return _group_size(max(sizes, key=lambda one: one.num_utterances))


def _group_size(group: GroupScore) -> str:
    speakers, utterances = _counted(group.num_speakers, "speaker"), _counted(group.num_utterances, "utterance")
    return f"{shown(group.name)} ({speakers}, {utterances})"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _of_group(one: CellGroups, name: str) -> PlainCell | None:
    group = one.group(name)
    return None if group is None or not group.is_shown else PlainCell(number(group.value), interval(group.interval))


def _gap(one: CellGroups) -> PlainCell | None:
    return None if one.gap is None else PlainCell(number(one.gap.value), interval(one.gap.interval))


def _notes_on_groups(each: ColumnGroups) -> Iterator[str]:
    if UNKNOWN_GROUP in each.names:
        yield f"“{UNKNOWN_GROUP}”, the utterances without the attribute, is in no gap."
    if each.hidden:
        hidden = "; ".join(map(_group_size, each.hidden))
        yield f"Counted and not shown, with fewer than {each.least_speakers} speakers: {hidden}."
    names = sorted({name for cell in each.cells for name in cell.mixed})
    if names:
        counts = ", ".join(
            f"{max(cell.mixed.get(name, 0) for cell in each.cells):,} {name.replace('_', ' ')}" for name in names
        )
        yield f"In no group, because their utterances are of several groups: {counts}."


def seeds(each: SeedShares) -> PlainTable:
    """How much of each interval comes of seeds, and its width with more of them."""
    columns: tuple[TableColumn[CellSeeds], ...] = (
        TableColumn("system", lambda one: one.cell.row.system.name, is_name=True),
        TableColumn("setting", lambda one: _setting(one.cell.row), is_name=True),
        TableColumn(shown(each.column.metric), lambda one: _unmarked(one.cell)),
        TableColumn("seeds", lambda one: one.num_seeds),
        TableColumn("deviation of seeds", lambda one: _of_seeds(one, one.deviation, number)),
        TableColumn("share of seeds", lambda one: _of_seeds(one, one.share, _percent)),
        TableColumn("width with one seed more", lambda one: _of_seeds(one, one.with_one_more, _percent)),
        TableColumn("with any number", lambda one: _of_seeds(one, one.with_any_number, _percent)),
    )
    low, high = uncertainty(each.fewest)
    notes = (
        "Share of seeds: the part of the squared error that falls with the number of seeds; the rest comes of the "
        "speakers (or groups) of the test set and stays. The last columns are the width of the interval with one seed "
        "more and with any number of them, in percent of its width now, if the deviations are what they seem to be.",
        f"A deviation of {each.fewest} seeds is uncertain: the true one is between {low:.2g} and {high:.2g} times as "
        "large (95 %).",
        *(
            ["From one seed nothing is known about other seeds."]
            if any(one.num_seeds == 1 for one in each.cells)
            else []
        ),
    )
    return table(f"Speakers and seeds: {each.column.title}", columns, each.cells, notes)


def _of_seeds(one: CellSeeds, value: float | None, form: Callable[[float], str]) -> str:
    if value is not None:
        return form(value)
    return "not known" if one.num_seeds == 1 else UNDEFINED


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def controls(each: Controls) -> PlainTable:
    """Each number with that of the same setting with shuffled labels and that of the same network untrained."""
    shuffled = any(one.selectivity is not None for one in each.controlled)
    untrained = any(one.training is not None for one in each.controlled)
    columns: list[TableColumn[Controlled]] = [
        TableColumn("system", lambda one: one.cell.row.system.name, is_name=True),
        TableColumn("setting", lambda one: _setting(one.cell.row), is_name=True),
        TableColumn(shown(each.column.metric), lambda one: _unmarked(one.cell)),
    ]
    notes = []
    if shuffled:
        columns += [
            TableColumn("shuffled labels", lambda one: one.selectivity and _unmarked(one.selectivity.control)),
            TableColumn("selectivity", lambda one: _gained(one.selectivity)),
        ]
        notes.append("Selectivity: improvement over the same setting with shuffled labels.")
    if untrained:
        columns += [
            TableColumn("untrained", lambda one: one.training and _unmarked(one.training.control)),
            TableColumn("gained by training", lambda one: _gained(one.training)),
        ]
        notes.append("Gained by training: improvement over the same network untrained.")
    notes.append("The intervals are of 95 %, paired over the same utterances.")
    return table(f"Controls: {each.column.title}", columns, each.controlled, (" ".join(notes),))


def _setting(row: ReportRow) -> str:
    return f"{group_title(row.group)}, layer {shown(row.layer)}"


def _gained(gain: Gain | None) -> PlainCell | None:
    return None if gain is None else PlainCell(number(gain.value), interval(gain.interval))


MOST_REVERSALS = 20
"""Reversals in one table; results.json has all."""


def heads(each: HeadComparison) -> PlainTable:
    """The pairs of models whose order depends on the head, with the margin of the first over the second."""
    columns: list[TableColumn[Reversal]] = [
        TableColumn("better with one head", lambda pair: pair.first.title, is_name=True),
        TableColumn("better with another", lambda pair: pair.second.title, is_name=True),
    ]
    columns += [TableColumn(head, partial(_margin_at, key=key)) for key, head in each.heads.items()]
    columns.append(TableColumn("separated", lambda pair: "yes" if pair.is_separated else "no"))
    left_out = len(each.reversals) - MOST_REVERSALS
    notes = (
        f"{each.sentence[0].upper()}{each.sentence[1:]}.",
        "Numbers are margins of the first model over the second, positive where it is better, with 95 % intervals "
        "paired over the same utterances and not adjusted for the number of pairs. Separated: with one head the "
        "interval is above 0, with another below. Not separated: it includes 0; not tested: it is not known.",
        *([f"{left_out} more are in results.json."] if left_out > 0 else []),
    )
    title = f"Order of models by head: {each.title}, {group_title(each.group)}"
    return table(title, columns, each.reversals[:MOST_REVERSALS], notes)


def _margin_at(pair: Reversal, key: str) -> PlainCell | None:
    margin = next((each for each in pair.margins if each.column.key == key), None)
    return None if margin is None else PlainCell(f"{margin.value:+.3f}", interval(margin.interval))


def efficiency(each: Efficiency) -> PlainTable:
    """Area under each curve, and the labels it needs to reach mel."""
    target = "mel with all labels" if each.target is None else f"mel with all labels ({number(each.target)})"

    def to_reach(curve: Curve) -> str | None:
        if each.target is None:
            return None
        return "never" if curve.to_reach is None else as_time(curve.to_reach)

    def measured(curve: Curve) -> str:
        return ", ".join(f"{number(v)} at {as_time(s)}" for s, v in zip(curve.seconds, curve.values, strict=True))

    columns: tuple[TableColumn[Curve], ...] = (
        TableColumn("system", lambda curve: curve.name, is_name=True),
        TableColumn("area", lambda curve: number(curve.area)),
        TableColumn(f"labels to reach {target}", to_reach),
        TableColumn("measured", measured),
    )
    notes = () if each.same_range else ("The curves span different label budgets: their areas cannot be compared.",)
    return table(f"Label efficiency: {each.column.title}", columns, each.curves, notes)


def layers(each: LayerProfiles) -> PlainTable:
    """A row for each system, a column for each layer."""
    numbers = sorted({layer for profile in each.profiles for layer in profile.cells})
    columns: list[TableColumn[Profile]] = [TableColumn("system", lambda profile: profile.name, is_name=True)]
    columns += [TableColumn(str(layer), partial(_of_layer, layer=layer)) for layer in numbers]
    if any(profile.weighted for profile in each.profiles):
        columns.append(TableColumn("learned mix", lambda profile: _unmarked(profile.weighted)))
    return table(f"Layer by layer: {each.column.title}", columns, each.profiles)


def _of_layer(profile: Profile, layer: int) -> PlainCell | None:
    return _unmarked(profile.cells.get(layer))


def _unmarked(cell: Cell | None) -> PlainCell | None:
    """A number with its flags and interval, without a mark."""
    return None if cell is None else PlainCell(_flagged(number(cell.value), cell.flags), interval(cell.interval))


def learning_rates(each: Sensitivity) -> PlainTable:
    """A row for each system, a column for each rate; chosen rates in bold."""
    rates = sorted({rate for tried in each.tried for rate in tried.dev_values})
    columns: list[TableColumn[TriedRates]] = [TableColumn("system", lambda tried: tried.cell.row.title, is_name=True)]
    columns += [TableColumn(f"{rate:g}", partial(_at_rate, rate=rate)) for rate in rates]
    return table(f"Learning rates, on dev: {each.column.title}", columns, each.tried, ("Chosen rates are bold.",))


def _at_rate(tried: TriedRates, rate: float) -> PlainCell:
    text = number(tried.dev_values[rate]) if rate in tried.dev_values else ""
    return PlainCell(text, mark="best" if rate in tried.chosen else "")


def front(each: Front) -> PlainTable:
    """Metric and cost of each row, in ascending order of cost; the front in bold."""

    def score(point: tuple[int, Cell]) -> PlainCell:
        cell = point[1]
        mark: Mark = "best" if cell.key in each.front else ""
        return PlainCell(_flagged(number(cell.value), cell.flags), interval(cell.interval), mark)

    columns: tuple[TableColumn[tuple[int, Cell]], ...] = (
        TableColumn("system", lambda point: point[1].row.title, is_name=True),
        TableColumn("MACs/s", lambda point: point[0], as_count),
        TableColumn("parameters", lambda point: point[1].runs[0].record.cost.parameters, as_count),
        TableColumn(shown(each.column.metric), score),
    )
    return table(each.title, columns, each.points, ("Points of the Pareto front are bold.",))


def most_confused(each: Confusion) -> PlainTable:
    """The most frequent confusions."""
    columns: tuple[TableColumn[ConfusedPair], ...] = (
        TableColumn("reference", lambda pair: pair.reference, is_name=True),
        TableColumn("predicted", lambda pair: pair.estimated, is_name=True),
        TableColumn(each.items, lambda pair: pair.count),
        TableColumn("share of reference", lambda pair: pair.share, number),
    )
    return table(f"Most confused: {each.cell.column.title}, {each.cell.row.title}", columns, each.pairs)


def det(each: DetCurves) -> PlainTable:
    """The equal error rate of each curve, and its miss rates at some false-alarm rates."""
    columns: tuple[TableColumn[DetCurve], ...] = (
        TableColumn("system", lambda curve: curve.cell.row.title, is_name=True),
        TableColumn("seed", lambda curve: curve.seed),
        TableColumn("equal error rate", lambda curve: curve.eer, number),
        *(
            TableColumn(f"misses at {alarm:g} false alarms", partial(_miss, place=place), number)
            for place, alarm in enumerate(ALARMS)
        ),
    )
    notes = ["Of one seed each: scores of different seeds have different scales."]
    if each.num_systems > len(each.curves):
        notes.append(f"{each.num_systems - len(each.curves)} systems with a higher rate are left out.")
    return table(f"Detection error trade-off: {each.column.title}", columns, each.curves, notes)


def _miss(curve: DetCurve, place: int) -> float:
    return curve.misses[place]


def worst(each: WorstUtterances, longest: int = 100) -> PlainTable:
    """The utterances with the most edits, aligned with their references.

    Args:
        each: The utterances.
        longest: Most characters of an alignment; in LaTeX a cell is one line.
    """
    columns: tuple[TableColumn[AlignedUtterance], ...] = (
        TableColumn("utterance", lambda one: one.id, shown, is_name=True),
        TableColumn(
            "reference → recognised", lambda one: alignment_in_words(one.words), lambda text: shown(text, longest), True
        ),
        TableColumn("edits", lambda one: one.num_edits),
        TableColumn("words", lambda one: one.num_words),
    )
    more = "" if each.num_wrong <= len(each.utterances) else f", of which {len(each.utterances)} are shown"
    note = f"Seed {each.seed}: {each.num_wrong} of {each.num_scored} utterances have edits{more}."
    title = f"Worst utterances: {each.cell.column.title}, {each.cell.row.title}"
    return table(title, columns, each.utterances, (note,))


def published_table(each: Published) -> PlainTable:
    """A published table as it was published; none of it is ranked with our rows."""
    quantities = dict.fromkeys(name for values in each.values.values() for name in values)
    columns: list[TableColumn[str]] = [TableColumn("model", lambda model: model, is_name=True)]
    columns += [TableColumn(name, partial(_published, each, name=name)) for name in quantities]
    notes = (f"Source: {each.source}, {each.date}.", *(f"{note[0].upper()}{note[1:]}." for note in each.notes))
    return table(each.title, columns, each.values, notes)


def _published(each: Published, model: str, name: str) -> str | None:
    value = each.values[model].get(name)
    return None if value is None else f"{value:g}"
