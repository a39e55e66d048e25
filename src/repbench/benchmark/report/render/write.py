"""Writing a report from records to files."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from repbench.benchmark.report.data.assemble import Heading, PublishedName, Report, assemble
from repbench.benchmark.report.data.columns import Column
from repbench.benchmark.report.data.groups import GroupRequest
from repbench.benchmark.report.render import csv, html, latex, markdown
from repbench.benchmark.report.render import json as json_form
from repbench.benchmark.report.render.figure_files import PictureFormat, write_figures
from repbench.benchmark.report.render.figures import MOST_LINES, layers_figure
from repbench.benchmark.scoring.grouping import LEAST_SPEAKERS, groupings_of
from repbench.corpora.open import open_corpus
from repbench.errors import DataError, UsageError
from repbench.files import canonical_json, ensure_writable, refuse_of_others, replaced_ours, write_beside
from repbench.progress import Reporter, Silence

Format = Literal["md", "html", "tex", "csv", "json"]


def _json(report: Report) -> str:
    return json.dumps(json_form.results(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


_WRITERS: dict[Format, tuple[str, Callable[[Report], str], bytes]] = {
    "md": ("report.md", markdown.results, b"\n## Scores: "),
    "html": ("index.html", html.results, b"content=\"default-src 'none'; style-src 'sha256-"),
    "tex": ("report.tex", latex.results, rb"\newcommand{\tied}{\ensuremath"),
    "csv": ("results.csv", csv.results, b"kind,task,corpus,differs,metric,"),
    "json": ("results.json", _json, b'"schema": "repbench.report/'),
}
"""Of each format the name of the file, its writer, and bytes that identify a file of an earlier report."""

_PUBLISHED = ("published.csv", csv.published, b"title,source,date,model,quantity,value")

_GROUPS = ("groups.csv", csv.groups, b"by,group,task,corpus,metric,")

_COMMAND = "repbench report"

DO_BY = "Name them with --by, as --by gender"

FORMATS = tuple(_WRITERS)
"""The formats of a report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRequest:
    """The arguments of `repbench report`.

    Attributes:
        runs: Records, and folders that hold some at any depth.
        out: Folder to write into.
        formats: Any of `FORMATS`.
        published: Published tables to include.
        heading: Title and text above the report.
        processes: Number of processes that verify many records.
        figures: Formats in which every figure is written, of `PICTURE_FORMATS`.
        by: Attributes by which it has groups, as `repbench.benchmark.scoring.grouping` reads them.
        corpora: Corpora whose attributes are read in place of those in the predictions.
        least_speakers: Fewest speakers of a group that is shown.
    """

    runs: tuple[Path, ...]
    out: Path
    formats: tuple[Format, ...] = FORMATS
    published: tuple[PublishedName, ...] = ()
    heading: Heading = field(default_factory=Heading)
    processes: int = 1
    figures: tuple[PictureFormat, ...] = ()
    by: tuple[str, ...] = ()
    corpora: tuple[str, ...] = ()
    least_speakers: int = LEAST_SPEAKERS


@dataclass(frozen=True, slots=True)
class WrittenReport:
    """A report and its files."""

    files: tuple[Path, ...]
    report: Report


def write_report(request: ReportRequest, reporter: Reporter | None = None) -> WrittenReport:
    """Write a report from records alone.

    Args:
        request: The arguments.
        reporter: Receives a line for each record that is left out.

    Raises:
        UsageError: A file that is not of an earlier report has the name of one to be written.
        DataError: A place does not exist, or there is no record.
        IntegrityError: No record passes verification.
        EnvironmentFault: The place may not be written to.
    """
    reporter = reporter or Silence()
    writers = [
        writer
        for format_ in request.formats
        for writer in (_WRITERS[format_], *(_beside_csv(request) if format_ == "csv" else []))
    ]
    groups = _group_request(request, reporter)
    for name, _, signature in writers:
        # Before the records are read, which can take minutes.
        refuse_of_others(request.out / name, signature, made_by=_COMMAND)
    ensure_writable(request.out)
    with reporter.stage("records verified") as advance:
        report = assemble(
            request.runs,
            request.published,
            request.heading,
            processes=request.processes,
            progress=advance,
            groups=groups,
        )
    for line in (*left_out_lines(report), *(f"note: {note}" for note in report.notes)):
        reporter.say(line)
    replaced = [
        replaced_ours(request.out / name, signature, rendered(report).encode("utf-8"), made_by=_COMMAND)
        for name, rendered, signature in writers
    ]
    for (name, _, signature), given, what in (
        (_PUBLISHED, request.published, "published numbers"),
        (_GROUPS, request.by, "groups"),
    ):
        if "csv" in request.formats and not given and _removed(request.out / name, signature):
            reporter.say(f"note: {name} of an earlier report was removed: this one has no {what}")
    if any(replaced):
        reporter.say(f"note: {sum(replaced)} files of an earlier report in {request.out} were replaced")
    drawn = write_figures(report, request.out, request.figures)
    return WrittenReport((*(request.out / name for name, *_ in writers), *drawn), report)


def groups_of_records(paths: Sequence[Path], by: Sequence[str], least_speakers: int = LEAST_SPEAKERS) -> Report:
    """The report of records that keep attributes in their predictions, with groups by these.

    Args:
        paths: Of the records.
        by: As in `ReportRequest`.
        least_speakers: As there.
    """
    request = GroupRequest(by=groupings_of(tuple(by)), least_speakers=least_speakers)
    return assemble(paths, groups=request)


def _beside_csv(request: ReportRequest) -> list[tuple[str, Callable[[Report], str], bytes]]:
    """The further files in CSV that a request calls for."""
    return [*([_PUBLISHED] if request.published else []), *([_GROUPS] if request.by else [])]


def _group_request(request: ReportRequest, reporter: Reporter) -> GroupRequest:
    """The groups of a request, with its corpora opened.

    Raises:
        UsageError: A grouping cannot be read, or corpora are given without any.
        DataError: A corpus cannot be opened.
    """
    by = groupings_of(request.by)
    if request.corpora and not by:
        raise UsageError("A corpus is read for the attributes of groups, and none is given", key="--corpus", do=DO_BY)
    opened = []
    for spec in request.corpora:
        with reporter.stage(f"corpus {spec}") as advance:
            opened.append(open_corpus(spec, progress=advance))
    return GroupRequest(
        by=by, corpora={each.fingerprint: each for each in opened}, least_speakers=request.least_speakers
    )


def _removed(path: Path, signature: bytes) -> bool:
    """Remove a file of an earlier report; any other file of that name stays."""
    if path.is_symlink() or not path.is_file() or not path.read_bytes().startswith(signature):
        return False
    path.unlink()
    return True


def left_out_lines(report: Report) -> Iterator[str]:
    """A line for each record that is left out."""
    for run in report.gathered.failed:
        yield f"left out: {run.path}: {run.fault}"
    for path, reason in report.gathered.unreadable.items():
        yield f"left out: {path}: {reason}"


def write_layer_figures(
    runs: Sequence[Path], out: Path, *, overwrite: bool = False, reporter: Reporter | None = None
) -> list[Path]:
    """Draw `OUT/layers-TASK-CORPUS.svg` for each column in which a system has numbers for several layers.

    Where several columns share task and corpus, the file names include their differences.

    Args:
        runs: Records, and folders that hold some at any depth.
        out: Folder to write into.
        overwrite: Whether figures of other content may be replaced.
        reporter: Receives a line for each record or system that is left out.

    Raises:
        UsageError: Another figure has the name of one that is to be written.
        DataError: A place does not exist, or no system has two layers.
        IntegrityError: No record passes verification.
        EnvironmentFault: The place may not be written to.
    """
    reporter = reporter or Silence()
    ensure_writable(out)
    report = assemble(runs)
    for line in (*left_out_lines(report), *(f"note: {note}" for note in report.gathered.notes)):
        reporter.say(line)
    profiles = report.profiles
    if not profiles:
        names = ", ".join(map(str, runs))
        raise DataError("No system has numbers for two layers or more", file=names, do="Run one with --layer all")
    files: list[Path] = []
    for name, each in zip(_figure_names([each.column for each in profiles]), profiles, strict=True):
        path = out / f"layers-{name}.svg"
        write_beside(path, layers_figure(each).as_file().encode("utf-8"), overwrite=overwrite)
        files.append(path)
        left_out = [profile.name for profile in each.profiles[MOST_LINES:]]
        if left_out:
            reporter.say(f"note: {path.name} has room for {MOST_LINES} lines; left out: {', '.join(left_out)}")
    return files


def _figure_names(columns: Sequence[Column]) -> list[str]:
    """A unique name for each column that every file system accepts."""
    short = [_file_name(column.task, column.corpus) for column in columns]
    whole = [_file_name(column.task, column.corpus, *column.differs) for column in columns]
    names = [long if short.count(name) > 1 else name for name, long in zip(short, whole, strict=True)]
    return [
        f"{name}-{_digest(column)}" if names.count(name) > 1 else name
        for name, column in zip(names, columns, strict=True)
    ]


def _file_name(*parts: str) -> str:
    text = "-".join(parts).casefold()
    return re.sub(r"[^a-z0-9._]+", "-", text).strip("-.")[:100] or "unnamed"


def _digest(column: Column) -> str:
    return hashlib.sha256(canonical_json(dict(column.facts))).hexdigest()[:8]
