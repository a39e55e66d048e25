"""`repbench report`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from repbench.cli.options import By, GroupCorpora, Json, LeastSpeakers, Out, least_speakers_of
from repbench.cli.output import print_json
from repbench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from repbench.benchmark.report import Format, PublishedName


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUNS", help="Records, or folders that hold some.")],
    out: Out,
    format_: Annotated[
        str, typer.Option("--format", metavar="md,html,tex,csv,json", help="One or more; default: all.")
    ] = "md,html,tex,csv,json",
    with_published: Annotated[
        list[str] | None,
        typer.Option(metavar="mockingjay2020|superb", help="Published numbers, set apart; may be repeated."),
    ] = None,
    by: By = None,
    corpus: GroupCorpora = None,
    least_speakers: LeastSpeakers = None,
    as_json: Json = False,
) -> None:
    """Draw tables, curves and a page from records alone.

    Every record is verified against its id and its predictions; those that fail are named and left out.
    """
    from repbench.benchmark.report import FORMATS, PUBLISHED, ReportRequest, write_report
    from repbench.console import ConsoleReporter

    request = ReportRequest(
        runs=tuple(runs),
        out=out,
        formats=cast("tuple[Format, ...]", _chosen(format_.split(","), FORMATS, "--format")),
        published=cast("tuple[PublishedName, ...]", _chosen(with_published or [], PUBLISHED, "--with-published")),
        processes=_available_cores(),
        by=tuple(by or ()),
        corpora=tuple(corpus or ()),
        least_speakers=least_speakers_of(least_speakers),
    )
    written = write_report(request, ConsoleReporter())
    if as_json:
        gathered = written.report.gathered
        print_json(
            {
                "files": [str(path) for path in written.files],
                "records": written.report.num_records,
                "columns": [column.title for column in gathered.columns],
                "failed": {str(run.path): run.fault for run in gathered.failed}
                | {str(path): reason for path, reason in gathered.unreadable.items()},
                "notes": list(written.report.notes),
            }
        )
        return
    for verdict in written.report.verdict_lines():
        typer.echo(verdict.sentence)
    for path in written.files:
        typer.echo(path)


def _available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _chosen(given: Iterable[str], offered: Iterable[str], option: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in given))
    known = list(offered)
    for name in names:
        if name not in known:
            raise UsageError(f"There is no `{name}`", key=option, do=f"Choose of {', '.join(known)}")
    return names
