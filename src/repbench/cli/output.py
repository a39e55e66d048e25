"""Output of commands: plain lines on stderr; columns, tables or one JSON object on stdout."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import typer

from repbench.errors import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from repbench.benchmark.records.record import Record
    from repbench.benchmark.run import WrittenRecord


def say(line: str) -> None:
    """Print a plain line to stderr, neither wrapped nor coloured."""
    sys.stderr.write(f"{printable(line)}\n")
    sys.stderr.flush()


def print_json(value: Any) -> None:
    """Print one JSON object to stdout; in ASCII escapes where the encoding of stdout lacks a character."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    try:
        # A JSON parser undoes the escapes of JSON, but not the replacements that the stream would write.
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        text = json.dumps(value, allow_nan=False, default=str)
    sys.stdout.write(f"{text}\n")


def print_columns(headings: Sequence[str], rows: Sequence[dict[str, str]]) -> None:
    """Print left-aligned columns of plain text, without columns that are empty throughout."""
    cells = [[printable(row.get(heading, "")) for heading in headings] for row in rows]
    shown = [index for index in range(len(headings)) if any(row[index] for row in cells)]
    widths = [max(len(text) for text in (headings[index], *(row[index] for row in cells))) for index in shown]
    for row in (list(headings), *cells):
        typer.echo("  ".join(row[index].ljust(width) for index, width in zip(shown, widths, strict=True)).rstrip())


def print_results(results: Sequence[WrittenRecord], as_json: bool) -> None:
    """Print the records of a run: a table and their paths, or JSON."""
    if as_json:
        print_json(
            {
                "records": [str(written.path) for written in results],
                "results": [written.record.as_dict() for written in results],
            }
        )
        return
    from repbench.benchmark.records.table import results_table
    from repbench.console import print_table

    print_table(results_table([written.record for written in results]))
    for note in dict.fromkeys(filter(None, (_heard_before(written.record) for written in results))):
        say(f"note: {note}")
    for written in results:
        typer.echo(written.path)


def _heard_before(record: Record) -> str | None:
    """Whether a model was trained on the test utterances before; None where it was trained on nothing."""
    heard = record.heard
    if heard is None or (heard.declared == () and heard.verdict == "not heard"):
        return None
    basis = "; ".join(heard.basis)
    return f"{record.upstream.name} on {record.corpus.name}: {_WORDS[heard.verdict]}: {basis}"


_WORDS = {
    "heard": "test utterances were heard before",
    "not heard": "test utterances were not heard before",
    "unknown": "whether test utterances were heard before is unknown",
}


def print_matrix(records: Sequence[Record]) -> None:
    """Print one table of many records."""
    from repbench.benchmark.report.render.terminal_table import matrix_table
    from repbench.console import print_table

    print_table(matrix_table(records))


def print_files(files: Sequence[Path], as_json: bool) -> None:
    """Print the paths of files, one a line, or JSON."""
    if as_json:
        print_json({"files": [str(path) for path in files]})
        return
    for path in files:
        typer.echo(path)


def help_if_alone(context: typer.Context) -> None:
    """Print the help of a group that is called without a command."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
