r"""`report.tex`: the report as a LaTeX document with booktabs tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from repbench.benchmark.report.data.assemble import Report
from repbench.benchmark.report.data.gather import Cell
from repbench.benchmark.report.render import robustness, similarity
from repbench.benchmark.report.render.escaping import LONGEST_TEXT, LONGEST_TITLE, latex, shown
from repbench.benchmark.report.render.markdown import ELSEWHERE, LEFT_OUT, failures, record_line
from repbench.benchmark.report.render.tables import PlainCell, PlainTable, published_table, tables_of

MOST_NUMBERS = 6
"""Columns of numbers that a page is wide enough for; the others follow in another table."""

_BEFORE = r"""\documentclass[10pt]{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage{textcomp}
\usepackage[a4paper,landscape,margin=15mm]{geometry}
\usepackage{array}
\usepackage{longtable}
\usepackage{booktabs}
\newcolumntype{N}{>{\raggedleft\arraybackslash}p{32mm}}
\newcommand{\interval}[1]{{\scriptsize\,[#1]}}
\newcommand{\tied}{\ensuremath{^{\approx}}}
\newcommand{\untested}{\ensuremath{^{?}}}
\setlength{\parindent}{0pt}
\begin{document}
\footnotesize
"""


def results(report: Report) -> str:
    """The whole document."""
    title = rf"\section*{{{latex(shown(report.heading.title, LONGEST_TITLE))}}}"
    text = [f"{latex(shown(paragraph, LONGEST_TEXT))}\n" for paragraph in report.heading.paragraphs]
    return "\n".join([_BEFORE + title, *text, *_lines(report), r"\end{document}"]) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield from _listed("In short", (verdict.sentence for verdict in report.verdict_lines()))
    for table in (
        *tables_of(report),
        *robustness.tables_in(report.robustness),
        *similarity.tables_in(report.similarities),
    ):
        yield from _table(table)
    if report.published:
        yield rf"\section*{{{latex(ELSEWHERE)}}}"
        for each in report.published:
            yield from _table(published_table(each))
    yield from _listed("Notes", report.notes)
    yield from _listed(LEFT_OUT, failures(report))
    yield from _listed("Records", (record_line(cell) for cell in _cells(report)))


def _cells(report: Report) -> Iterator[Cell]:
    for column in report.gathered.all_columns:
        yield from report.gathered.column_cells(column)


def _listed(title: str, lines: Iterable[str]) -> Iterator[str]:
    several = list(lines)
    if several:
        yield rf"\section*{{{latex(title)}}}"
        yield r"\begin{itemize}"
        yield from (rf"\item {latex(line)}" for line in several)
        yield r"\end{itemize}"


def _table(table: PlainTable) -> Iterator[str]:
    names = range(table.num_names)
    numbers = range(table.num_names, len(table.headings))
    # A table of names alone is one page wide: it has one start.
    for start in range(numbers.start, max(numbers.stop, numbers.start + 1), MOST_NUMBERS):
        places = [*names, *range(start, min(start + MOST_NUMBERS, numbers.stop))]
        continued = " (continued)" if start > numbers.start else ""
        yield rf"\subsection*{{{latex(table.title)}{continued}}}"
        yield rf"\begin{{longtable}}[l]{{@{{}}{'l' * table.num_names}{'N' * (len(places) - table.num_names)}@{{}}}}"
        yield r"\toprule"
        yield _row(latex(table.headings[place]) for place in places)
        yield r"\midrule\endhead"
        yield from (_row(_value(row[place]) for place in places) for row in table.rows)
        yield r"\bottomrule"
        yield r"\end{longtable}"
    for note in table.notes:
        yield rf"\par\smallskip {{\footnotesize {latex(note)}}}"
    yield r"\par\bigskip"


def _row(cells: Iterator[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _value(value: PlainCell) -> str:
    text = latex(value.text)
    if value.mark == "best":
        text = rf"\textbf{{{text}}}"
    elif value.mark == "tied":
        text += r"\tied"
    elif value.mark == "untested":
        text += r"\untested"
    return rf"{text}\interval{{{latex(value.interval)}}}" if value.interval else text
