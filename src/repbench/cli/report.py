"""`repbench report`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from repbench.cli.options import By, GroupCorpora, Json, LeastSpeakers, Out, Quiet, least_speakers_of
from repbench.cli.output import print_json, reporter_for, say
from repbench.errors import EnvironmentFault, UsageError, printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from repbench.benchmark.report import Format, PictureFormat, PublishedName


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
    figures: Annotated[
        str | None,
        typer.Option("--figures", metavar="png,pdf,svg", help="Also write every figure, to OUT/figures."),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Show the page in the browser when it is written.")] = False,
    by: By = None,
    corpus: GroupCorpora = None,
    least_speakers: LeastSpeakers = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Draw tables, curves and a page from records alone.

    Every record is verified against its id and its predictions; those that fail are named and left out.
    """
    from repbench.benchmark.report import (
        FORMATS,
        PICTURE_FORMATS,
        PUBLISHED,
        ReportRequest,
        left_out_lines,
        write_report,
    )

    formats = _chosen(format_.split(","), FORMATS, "--format")
    if open_ and "html" not in formats:
        raise UsageError("There is no page to open", key="--open", do="Add html to --format")
    request = ReportRequest(
        runs=tuple(runs),
        out=out,
        formats=cast("tuple[Format, ...]", formats),
        published=cast("tuple[PublishedName, ...]", _chosen(with_published or [], PUBLISHED, "--with-published")),
        processes=_available_cores(),
        figures=cast("tuple[PictureFormat, ...]", _chosen(figures.split(","), PICTURE_FORMATS, "--figures"))
        if figures is not None
        else (),
        by=tuple(by or ()),
        corpora=tuple(corpus or ()),
        least_speakers=least_speakers_of(least_speakers),
    )
    written = write_report(request, reporter_for(quiet))
    if quiet:  # which leaves out notes, but a record that fails is an error
        for line in left_out_lines(written.report):
            say(line)
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
                "citations": [each.line for each in written.report.citations],
            }
        )
        if open_:
            _open(written.files)
        return
    for verdict in written.report.verdict_lines():
        typer.echo(verdict.sentence)
    typer.echo("CITATION")
    for each in written.report.citations:
        typer.echo(f"  {printable(each.line)}")
    for path in written.files:
        typer.echo(path)
    if open_:
        _open(written.files)


def _open(files: Iterable[Path]) -> None:
    """Show the page in the browser.

    Raises:
        EnvironmentFault: There is none that can be started.
    """
    import webbrowser

    (page,) = (path for path in files if path.suffix == ".html")
    if not webbrowser.open(page.resolve().as_uri()):
        raise EnvironmentFault("No browser can be started here", file=page, do="Open this file where there is one")


def _available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _chosen(given: Iterable[str], offered: Iterable[str], option: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in given))
    known = list(offered)
    for name in names:
        if name not in known:
            raise UsageError(f"There is no `{name}`", key=option, do=f"Choose of {', '.join(known)}")
    return names
