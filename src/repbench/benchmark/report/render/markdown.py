"""`report.md`: the report as Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from repbench.benchmark.report.data.assemble import Report
from repbench.benchmark.report.data.gather import Cell
from repbench.benchmark.report.render import robustness, similarity
from repbench.benchmark.report.render.commands import commands_of, shown_command
from repbench.benchmark.report.render.escaping import LONGEST_TEXT, LONGEST_TITLE, markdown, shown
from repbench.benchmark.report.render.tables import PlainCell, PlainTable, published_table, tables_of

LEFT_OUT = "Records left out: they failed verification"
TOO_LONG = "The command is too long to show here; results.json has it."
ELSEWHERE = "Published elsewhere: other data, heads and budgets, not ranked with the rows above"


def results(report: Report) -> str:
    """The whole report."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield f"# {markdown(shown(report.heading.title, LONGEST_TITLE))}\n"
    yield from (f"{markdown(shown(paragraph, LONGEST_TEXT))}\n" for paragraph in report.heading.paragraphs)
    yield from (f"* {markdown(verdict.sentence)}" for verdict in report.verdict_lines())
    yield from (f"* {markdown(f'{each.title}: {each.sentence}')}" for each in report.heads if each.reversals)
    for table in (
        *tables_of(report),
        *robustness.tables_in(report.robustness),
        *similarity.tables_in(report.similarities),
    ):
        yield from _table(table, "##")
    if report.published:
        yield f"\n## {ELSEWHERE}"
        for each in report.published:
            yield from _table(published_table(each), "###")
    if report.notes:
        yield "\n## Notes\n"
        yield from (f"* {markdown(note)}" for note in report.notes)
    yield from _failures(report)
    yield "\n## Records\n"
    for cell in (cell for column in report.gathered.all_columns for cell in report.gathered.column_cells(column)):
        yield f"* {markdown(record_line(cell))}"
        brought = "; ".join(cell.origins)
        yield f"  from {markdown(shown(brought, 600))}"
        for command in commands_of([run.record for run in cell.runs]):
            line = shown_command(command)
            yield f"  {TOO_LONG}" if line is None else f"  {_code(line)}"


def record_line(cell: Cell) -> str:
    """A number and the ids of its records, on one line."""
    ids = " ".join(run.record.id for run in cell.runs)
    return f"{cell.row.title}, {cell.row.labels}, {cell.row.mode}, {cell.column.title}: {ids}"


def _table(table: PlainTable, level: str) -> Iterator[str]:
    yield f"\n{level} {markdown(table.title)}\n"
    yield _row(markdown(heading) for heading in table.headings)
    yield _row(":--" if place < table.num_names else "--:" for place in range(len(table.headings)))
    for row in table.rows:
        yield _row(_value(value) for value in row)
    for note in table.notes:
        yield f"\n{markdown(note)}"


def _row(cells: Iterator[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _value(value: PlainCell) -> str:
    text = markdown(value.text)
    if value.mark == "best":
        text = f"**{text}**"
    elif value.mark == "tied":
        text = f"{text} ≈"
    elif value.mark == "untested":
        text = f"{text} ?"
    return f"{text} {markdown(f'[{value.interval}]')}" if value.interval else text


def _failures(report: Report) -> Iterator[str]:
    lines = failures(report)
    if lines:
        yield f"\n## {LEFT_OUT}\n"
        yield from (f"* {markdown(line)}" for line in lines)


def failures(report: Report) -> list[str]:
    """A line for each record that failed verification."""
    gathered = report.gathered
    named = [
        f"{run.record.id}, {shown(run.record.upstream.name)} on {shown(run.record.downstream.name)}: {run.fault}"
        for run in gathered.failed
    ]
    return [shown(line, 400) for line in (*named, *(f"{path}: {why}" for path, why in gathered.unreadable.items()))]


def _code(text: str) -> str:
    """Inline code with a fence longer than any run of backticks in the text."""
    fence = "`"
    # A fence of code ends at the first run of as many backticks (CommonMark 6.1).
    while fence in text:
        fence += "`"
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}"
