"""`index.html`: the report as one page that loads nothing and runs only its own script.

Names of systems, tasks and corpora are untrusted text: jinja2 escapes them in the page, `ElementTree` in the figures,
and the content security policy allows only the script and the style of the page.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from repbench.benchmark.records.formatting import interval, number
from repbench.benchmark.report.data.assemble import Report
from repbench.benchmark.report.data.columns import Column
from repbench.benchmark.report.data.efficiency import as_time
from repbench.benchmark.report.data.gather import Cell, ReportRow
from repbench.benchmark.report.data.heard import declared_in_words, in_words
from repbench.benchmark.report.render import figures, invariance, robustness, similarity, tables
from repbench.benchmark.report.render.commands import commands_of, shown_command
from repbench.benchmark.report.render.cost_columns import COST_COLUMNS
from repbench.benchmark.report.render.escaping import LONGEST_TEXT, LONGEST_TITLE, shown
from repbench.benchmark.report.render.markdown import failures
from repbench.benchmark.report.render.svg import Figure
from repbench.benchmark.report.render.tables import PlainTable
from repbench.errors import printable

_TEMPLATES = Path(__file__).parent / "templates"
_MODES = {"frozen": "frozen", "finetune": "fine-tuned"}
VERDICTS = ("not heard", "heard", "unknown")
"""The choices of the filter by what was heard before."""

_LONGEST = 2000
"""Most characters of a path."""

MOST_FIGURES = 12
"""Most figures of one kind; results.json has the numbers of all."""

MOST_SIMILARITIES = 48
"""Most figures of comparisons, of which each has one for every measure."""

Subject = TypeVar("Subject")


class Filter(NamedTuple):
    """A selector of rows or columns."""

    key: str
    label: str
    choices: tuple[tuple[str, str], ...]
    start: str = ""


class Section(NamedTuple):
    """The figures of one kind, each with its table, or tables alone.

    Attributes:
        key: Its id in the page.
        title: Its heading.
        text: A sentence below it.
        figures: Drawn side by side.
        more: A sentence on what is left out.
        before: Tables above the figures, as wide as the page.
        after: Tables below them, folded.
    """

    key: str
    title: str
    text: str
    figures: list[tuple[Figure | None, PlainTable]]
    more: str
    before: Sequence[PlainTable] = ()
    after: Sequence[PlainTable] = ()


def results(report: Report) -> str:
    """The page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=False,
        keep_trailing_newline=True,
    )
    style, script = (f"\n{(_TEMPLATES / name).read_text(encoding='utf-8')}" for name in ("report.css", "report.js"))
    sections = list(_sections(report))
    model = _model(report, sections)
    return environment.get_template("report.html.jinja").render(
        **model,
        sections=sections,
        number=number,
        markup=Markup,
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _hash(text: str) -> str:
    # The form of a hash in a content security policy: base64 of the digest of exactly the element's text.
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}"


def _shown(value: Any) -> Any:
    """A value made printable; markup is left as it is."""
    # `type`, not `isinstance`: Markup is a subclass of str, and must keep its line breaks.
    return printable(value) if type(value) is str else value


def _model(report: Report, sections: Sequence[Section]) -> dict[str, Any]:
    gathered = report.gathered
    # all tables of the first group, and those of the others behind their titles
    overall = [
        (each, place == 0)
        for place, (group, together) in enumerate(report.overall.items())
        for each in tables.overall(together, group)
    ]
    groups = list(tables.groups(report.groups))
    folds = [tables.folds(each) for each in report.folds]
    heard = [tables.heard(report, group) for group in gathered.groups]
    seeds = [tables.seeds(each) for each in report.seed_shares]
    controls = [tables.controls(each) for each in report.controls]
    heads = [tables.heads(each) for each in report.heads if each.reversals]
    published = [tables.published_table(each) for each in report.published]
    not_believed = failures(report)
    contents = [
        ("scores", "Scores"),
        ("heard", "Heard before"),
        *([("overall", "All tasks together")] if overall else []),
        *([("groups", "Groups")] if groups else []),
        *([("folds", "Folds")] if folds else []),
        *([("seeds", "Speakers and seeds")] if seeds else []),
        *([("heads", "Order of models by head")] if heads else []),
        *([("controls-title", "Controls")] if controls else []),
        *((section.key, section.title) for section in sections),
        *([("published", "Published elsewhere")] if published else []),
        *([("failures", "Records left out")] if not_believed else []),
        *([("notes", "Notes")] if report.notes else []),
        ("cite", "To cite"),
        ("questions", "Columns"),
        ("records", "Records"),
    ]
    filters = _filters(report)
    return {
        "title": shown(report.heading.title, LONGEST_TITLE),
        "text": [shown(paragraph, LONGEST_TEXT) for paragraph in report.heading.paragraphs],
        "summary": _summary(report),
        "contents": contents,
        "verdicts": sorted(report.verdict_lines(), key=lambda verdict: verdict.others == 0),
        "filters": [each for each in filters if len(each.choices) > 1],
        "headings": list(_headings(report, filters)),
        "rows": [_row(report, row, filters) for row in gathered.rows],
        "one_mode": _one_mode(filters),
        "known": _known(gathered.columns),
        "num_costs": len(COST_COLUMNS),
        "cost_legend": [(each.heading, each.legend) for each in COST_COLUMNS],
        "varied": tables.varied(report),
        "untested": " ".join(tables.untested_sentence(report)),
        "seeds": " ".join((*tables.seeds_and_checks(report), *tables.worst_sentence(report))),
        "heard_tables": heard,
        "overall": overall,
        "group_tables": groups,
        "fold_tables": folds,
        "seed_tables": seeds,
        "head_tables": heads,
        "control_tables": controls,
        "published": published,
        "failures": not_believed,
        "notes": report.notes,
        "to_cite": tables.to_cite(report),
        "column_facts": [
            (column.key, column.title, [(shown(name), shown(value, 400)) for name, value in column.facts.items()])
            for column in gathered.all_columns
        ],
        "records": [_entry(cell) for column in gathered.all_columns for cell in gathered.column_cells(column)],
    }


def _summary(report: Report) -> str:
    gathered = report.gathered
    systems = {row.system.name for row in gathered.rows}
    newest = max(run.record.created for cell in gathered.cells.values() for run in cell.runs)
    parts = (
        _count(report.num_records, "record"),
        _count(len(systems), "system"),
        _count(len(gathered.columns), "column"),
    )
    return f"{', '.join(parts)}; newest record of {shown(newest[:10])}. Made from the records alone."


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _filters(report: Report) -> list[Filter]:
    columns, rows = report.gathered.columns, report.gathered.rows
    fractions = sorted({row.fraction for row in rows}, reverse=True)
    verdicts = {cell.heard.verdict for cell in report.gathered.cells.values()}
    return [
        Filter("task", "Task", _choices(column.task for column in columns)),
        Filter("corpus", "Corpus", _choices(column.corpus for column in columns)),
        Filter("mode", "Mode", _choices(_MODES[row.mode] for row in rows)),
        Filter("layer", "Layer", _choices(row.layer for row in rows)),
        Filter(
            "fraction", "Labels", tuple((f"{each!r}", f"{100 * each:g} %") for each in fractions), f"{fractions[0]!r}"
        ),
        # By the word itself: the script computes it again for the columns that are shown.
        Filter("heard", "Heard before", tuple((each, each) for each in VERDICTS if each in verdicts)),
    ]


def _one_mode(filters: Sequence[Filter]) -> str:
    """The class that hides the column of modes where there is one mode."""
    return "" if any(each.key == "mode" and len(each.choices) > 1 for each in filters) else " single"


def _choices(names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """A number and a shown name for each different name."""
    return tuple((str(place), shown(name, 40)) for place, name in enumerate(dict.fromkeys(names)))


def _key(name: str, names: Iterable[str]) -> str:
    return str(list(dict.fromkeys(names)).index(name))


def _headings(report: Report, filters: Sequence[Filter]) -> Iterator[dict[str, Any]]:
    columns = report.gathered.columns
    empty = {"lines": (), "task": None, "corpus": None, "style": "text", "kind": "text", "first": "ascending"}
    yield {**empty, "label": "system"}
    yield {**empty, "label": "mode", "style": f"text meta{_one_mode(filters)}"}
    yield {**empty, "label": "layer", "style": "text meta"}
    yield {**empty, "label": "labels", "style": "meta", "kind": "number", "first": "descending"}
    for column in columns:
        yield {
            "label": shown(column.task),
            "lines": (shown(column.corpus), f"{shown(column.metric)} {column.direction}", *map(shown, column.differs)),
            "task": _key(column.task, (each.task for each in columns)),
            "corpus": _key(column.corpus, (each.corpus for each in columns)),
            "style": "q",
            "kind": "number",
            "first": "descending" if column.higher_is_better else "ascending",
        }
    yield {**empty, "label": "covered", "style": "", "kind": "number", "first": "descending"}
    yield {**empty, "label": "heard before", "style": "text"}
    for each in COST_COLUMNS:
        kind = {} if each.is_text else {"style": "", "kind": "number"}
        yield {**empty, **kind, "label": each.heading, "first": each.first}


def _row(report: Report, row: ReportRow, filters: Sequence[Filter]) -> dict[str, Any]:
    gathered = report.gathered
    one_machine = len({machine for each in report.costs.values() for machine in each.machines}) == 1
    costs = [
        {
            "text": (text := each.text(report, row)),
            "short": each.short(report.costs[row.key]) if each.short is not None and ";" in text else "",
            "value": each.of_row(report.costs[row.key]) if one_machine or not each.is_timed else None,
            "is_text": each.is_text,
        }
        for each in COST_COLUMNS
    ]
    return {
        "name": row.system.name,
        # `hear:my_models.encoder#scene` is one long word, which may be broken after its colon and before its `#`
        "name_parts": re.split(r"(?<=:)(?=\S)|(?<=\S)(?=#)", row.system.name),
        "setting": ("" if _one_mode(filters) else f"{_MODES[row.mode]}, ")
        + f"layer {shown(row.layer, 20)}, {row.labels}",
        "tags": ["reference"] if row.system.is_baseline else [],
        "mode": _MODES[row.mode],
        "mode_key": _key(_MODES[row.mode], (_MODES[each.mode] for each in gathered.rows)),
        "layer": shown(row.layer, 20),
        "layer_key": _key(row.layer, (each.layer for each in gathered.rows)),
        "fraction": f"{row.fraction!r}",
        "fraction_key": f"{row.fraction!r}",
        "labels": row.labels,
        "cells": [_cell(report, gathered.cell(row, column)) for column in gathered.columns],
        "covered": gathered.covered(row),
        "num_columns": len(gathered.columns),
        "heard": gathered.heard(row).verdict,
        "heard_basis": shown(in_words(gathered.heard(row)), LONGEST_TEXT),
        "costs": costs,
    }


def _cell(report: Report, cell: Cell | None) -> dict[str, Any] | None:
    if cell is None:
        return None
    return {
        "anchor": f"n-{cell.key}",
        "value": cell.value,
        "mark": report.mark(cell),
        "interval": interval(cell.interval),
        "flag": ", ".join(report.flags(cell)),
        "heard": cell.heard.verdict,
        "worst": report.worst_groups(cell),
        "bar": _bar(report, cell),
    }


def _bar(report: Report, cell: Cell) -> dict[str, float | None] | None:
    """Positions of value and interval between the smallest and the largest number of the column, in percent."""
    cells = [each for each in report.gathered.column_cells(cell.column) if each.value is not None]
    ends = [value for each in cells for value in _ends(each)]
    low, high = min(ends), max(ends)
    if cell.value is None or low == high:
        return None

    def place(value: float) -> float:
        # 98, because the mark is 2 % wide and must end inside the cell.
        return round(98 * (value - low) / (high - low), 1)

    known = cell.interval
    return {
        "at": place(cell.value),
        "low": None if known is None else place(known.low),
        "high": None if known is None else place(known.high) + 2,
    }


def _ends(cell: Cell) -> tuple[float, ...]:
    value = cell.value or 0.0
    return (value,) if cell.interval is None else (value, cell.interval.low, cell.interval.high)


def _known(columns: Sequence[Column]) -> list[tuple[str, list[str]]]:
    lines = (("chance", [column.chance for column in columns]), ("majority", [column.majority for column in columns]))
    return [(name, ["" if value is None else number(value) for value in values]) for name, values in lines]


def _entry(cell: Cell) -> dict[str, Any]:
    row, first = cell.row, cell.runs[0].record
    facts = [
        ("column", cell.column.title),
        ("setting", f"{_MODES[row.mode]}, {row.labels} of the labels ({as_time(cell.label_seconds)})"),
        ("95 %", f"{interval(cell.interval)} over {cell.interval_unit}s" if cell.interval else "no interval"),
        ("scored", f"{first.n_scored:,} of {first.n_listed:,} test utterances"),
        ("weights", shown(row.system.checkpoint or "none", 200)),
        *([("declared as", shown(row.system.declared.words(), 200))] if row.system.declared is not None else []),
        ("trained on", shown(declared_in_words(cell.heard.declared), 400)),
        ("heard before", f"{cell.heard.verdict}: {shown(in_words(cell.heard), LONGEST_TEXT)}"),
        *(("from", shown(origin, 200)) for origin in cell.origins),
        *(
            (name, shown(value, 200))
            for name, value in (("published in", row.system.citation), ("licence", row.system.licence))
            if value is not None
        ),
        (
            "checked",
            "; ".join(dict.fromkeys(run.unchecked or "recomputed from its predictions" for run in cell.runs)),
        ),
        *(
            ("warning", shown(warning, 400))
            for warning in dict.fromkeys(w for r in cell.runs for w in r.record.corpus.warnings)
        ),
    ]
    return {
        "anchor": f"n-{cell.key}",
        "title": f"{row.title}, {row.labels} of the labels, {_MODES[row.mode]}: {cell.column.title}",
        "value": cell.value,
        "facts": facts,
        "runs": [
            {
                "id": run.record.id,
                "seed": run.record.seed,
                "value": run.record.primary.value,
                "path": shown(run.place, _LONGEST),
            }
            for run in cell.runs
        ],
        "commands": [shown_command(command) for command in commands_of([run.record for run in cell.runs])],
    }


def _sections(report: Report) -> Iterator[Section]:
    if report.robustness:
        yield Section(
            "robustness",
            "Robustness",
            "Scores of the same probes on disturbed test sound, and how far they are below those on clean sound. Bars "
            "and bands are 95 % intervals of the drop from clean sound, paired over the same utterances.",
            robustness.drawings_of(report.robustness),
            "",
            before=[robustness.summary(each) for each in report.robustness],
            after=[each for one in report.robustness for each in robustness.tables_of_order(one)],
        )
    yield from _section(
        "labels", "Label efficiency", "Metric over seconds of labelled sound; the bands are 95 % intervals.",
        report.efficiencies, lambda each: (figures.efficiency_figure(each), tables.efficiency(each)),
    )  # fmt: skip
    yield from _section(
        "layers", "Layer by layer", "Score of each layer of a model; the bands are 95 % intervals.",
        report.profiles, lambda each: (figures.layers_figure(each), tables.layers(each)),
    )  # fmt: skip
    yield from _section(
        "cost", "Accuracy and cost", "Metric over multiply-accumulates; the green steps are the Pareto front.",
        report.fronts, lambda each: (figures.cost_figure(each), tables.front(each)),
    )  # fmt: skip
    yield from _section(
        "confusions", "Confusions", "Confusion matrix of the best system of a frame task, pooled over its seeds.",
        report.confusions, lambda each: (figures.confusion_figure(each), tables.most_confused(each)),
    )  # fmt: skip
    yield from _section(
        "det", "Detection error trade-off",
        "Misses over false alarms on the scale of normal deviates; the points have equal error rates.",
        report.det, lambda each: (figures.det_figure(each), tables.det(each)),
    )  # fmt: skip
    yield from _section(
        "worst", "Worst utterances", "Words of the best system aligned with the references; edits are in brackets.",
        report.worst, lambda each: (None, tables.worst(each, 1000)),
    )  # fmt: skip
    yield from _section(
        "rates", "Learning rates", "Best dev value at each learning rate of the grid.",
        report.sensitivities, lambda each: (figures.sensitivity_figure(each), tables.learning_rates(each)),
    )  # fmt: skip
    yield from _section(
        "similarity", "Similarity of layers",
        "Layers with each other, with mel, phones and words (repbench compare); the bands are 95 % intervals.",
        similarity.drawings_of(report.similarities), lambda each: each, MOST_SIMILARITIES,
    )  # fmt: skip
    before = list(invariance.summary_of(report.invariances))
    yield from (
        each._replace(before=before)
        for each in _section(
            "invariance", "Invariance without labels",
            "Distance of disturbed states from clean ones, over that between utterances (repbench invariance).",
            invariance.drawings_of(report.invariances), lambda drawing: drawing, MOST_SIMILARITIES,
        )
    )  # fmt: skip


def _section(
    key: str,
    title: str,
    text: str,
    subjects: Sequence[Subject],
    draw: Callable[[Subject], tuple[Figure | None, PlainTable]],
    most: int = MOST_FIGURES,
) -> Iterator[Section]:
    if subjects:
        left_out = len(subjects) - most
        more = f"{left_out} more are not drawn; results.json has their numbers." if left_out > 0 else ""
        yield Section(key, title, text, [draw(each) for each in subjects[:most]], more)
