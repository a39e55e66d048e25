"""From records on disk to a report on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from repbench.benchmark.report import render_csv, render_html, render_json, render_md, render_tex
from repbench.benchmark.report.assemble import Heading, PublishedName, Report, assemble
from repbench.benchmark.report.figures import layers_figure
from repbench.errors import DataError
from repbench.files import ensure_writable, write_text
from repbench.progress import Reporter, Silence

Format = Literal["md", "html", "tex", "csv", "json"]


def _json(report: Report) -> str:
    return json.dumps(render_json.results(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


_WRITERS: dict[Format, tuple[str, Callable[[Report], str]]] = {
    "md": ("report.md", render_md.results),
    "html": ("index.html", render_html.results),
    "tex": ("report.tex", render_tex.results),
    "csv": ("results.csv", render_csv.results),
    "json": ("results.json", _json),
}

FORMATS = tuple(_WRITERS)
"""What a report can be written as."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRequest:
    """What `repbench report` is asked for.

    Attributes:
        runs: Records, and folders that hold some at any depth.
        out: Folder to write into.
        formats: Any of `FORMATS`.
        published: Published tables to show beside, set apart.
        heading: What stands above it.
        processes: Among which the check of many records is divided.
    """

    runs: tuple[Path, ...]
    out: Path
    formats: tuple[Format, ...] = FORMATS
    published: tuple[PublishedName, ...] = ()
    heading: Heading = field(default_factory=Heading)
    processes: int = 1


@dataclass(frozen=True, slots=True)
class WrittenReport:
    """A report and where it lies."""

    files: tuple[Path, ...]
    report: Report


def write_report(request: ReportRequest, reporter: Reporter | None = None) -> WrittenReport:
    """Draw a report from records alone.

    Args:
        request: Of what, where to, and how.
        reporter: Told of what is not believed.

    Raises:
        DataError: A place does not exist, or there is no record.
        IntegrityError: No record can be believed.
        EnvironmentFault: The place may not be written to.
    """
    reporter = reporter or Silence()
    ensure_writable(request.out)
    report = assemble(request.runs, request.published, request.heading, processes=request.processes)
    for run in report.gathered.failed:
        reporter.say(f"not believed: {run.path}: {run.fault}")
    for path, reason in report.gathered.unreadable.items():
        reporter.say(f"not believed: {path}: {reason}")
    for note in report.notes:
        reporter.say(f"note: {note}")
    files = []
    for format_ in request.formats:
        name, rendered = _WRITERS[format_]
        write_text(request.out / name, rendered(report))
        files.append(request.out / name)
        if format_ == "csv" and report.published:
            write_text(request.out / "published.csv", render_csv.published(report))
            files.append(request.out / "published.csv")
    return WrittenReport(tuple(files), report)


def write_layer_figures(runs: Sequence[Path], out: Path) -> list[Path]:
    """Draw `OUT/layers-QUESTION.svg` for each question that some system was asked layer by layer.

    Args:
        runs: Records, and folders that hold some at any depth.
        out: Folder to write into.

    Raises:
        DataError: A place does not exist, or no system was asked at two layers.
        IntegrityError: No record can be believed.
        EnvironmentFault: The place may not be written to.
    """
    ensure_writable(out)
    profiles = assemble(runs).profiles
    if not profiles:
        names = ", ".join(map(str, runs))
        raise DataError("No system was asked at two layers or more", file=names, do="Run one with --layer all")
    files: list[Path] = []
    for each in profiles:
        figure = layers_figure(each)
        write_text(out / f"{figure.key}.svg", figure.as_file())
        files.append(out / f"{figure.key}.svg")
    return files
