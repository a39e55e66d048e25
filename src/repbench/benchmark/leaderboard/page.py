"""The page of a leaderboard, written from its folder.

The accepted records are written next to the page in the layout of runs, so that readers can verify them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from repbench.benchmark.leaderboard.board import Leaderboard
from repbench.benchmark.leaderboard.submission import Submission
from repbench.benchmark.records.predictions_file import PREDICTIONS_FILE
from repbench.benchmark.records.record import RECORD_FILE, write_fields
from repbench.benchmark.report import FORMATS, Heading, ReportRequest, write_report
from repbench.benchmark.scoring.grouping import LEAST_SPEAKERS
from repbench.errors import DataError, RepbenchError
from repbench.files import ensure_writable
from repbench.progress import Reporter, Silence

RECORDS_FOLDER = "records"


@dataclass(frozen=True, slots=True)
class Built:
    """A page and its sources.

    Attributes:
        files: Files of the page.
        accepted: Files of the submissions on it.
        refused: From the file of each other submission to its error.
    """

    files: tuple[Path, ...]
    accepted: tuple[Path, ...]
    refused: Mapping[Path, RepbenchError]


@dataclass(frozen=True, slots=True)
class PageGroups:
    """The groups of a page, as in `ReportRequest`."""

    by: tuple[str, ...] = ()
    corpora: tuple[str, ...] = ()
    least_speakers: int = LEAST_SPEAKERS


def build(board: Leaderboard, out: Path, reporter: Reporter | None = None, groups: PageGroups | None = None) -> Built:
    """Check every submission, and write the page of those that pass.

    Args:
        board: The leaderboard.
        out: Folder of the page; files of an earlier page are replaced.
        reporter: Receives notes.
        groups: By which attributes the page has groups; None: by none.

    Raises:
        UsageError: An attribute of the groups cannot be read.
        DataError: No submission passes.
        EnvironmentFault: The place may not be written to.
    """
    reporter = reporter or Silence()
    ensure_writable(out)
    accepted: dict[Path, Submission] = {}
    refused: dict[Path, RepbenchError] = {}
    for path, found in board.submissions():
        if isinstance(found, RepbenchError):
            refused[path] = found
        else:
            accepted[path] = found
    if not accepted:
        first = next(iter(refused.values()), None)
        raise first or DataError("There is no submission", file=board.folder, do="See `repbench leaderboard add`")
    places = _lay_out(accepted.values(), out / RECORDS_FOLDER)
    heading = Heading(
        title=board.head.title,
        text=board.head.rules,
        refused={path.relative_to(board.folder): error.what for path, error in refused.items()},
        root=out,
    )
    groups = groups or PageGroups()
    request = ReportRequest(
        runs=places,
        out=out,
        formats=FORMATS,
        heading=heading,
        by=groups.by,
        corpora=groups.corpora,
        least_speakers=groups.least_speakers,
    )
    written = write_report(request, reporter)
    return Built(written.files, tuple(accepted), refused)


def _lay_out(submissions: Iterable[Submission], folder: Path) -> tuple[Path, ...]:
    """Write each record and its predictions into a folder named after its id; remove those of earlier pages."""
    several = {submission.record.id: submission for submission in submissions}
    for earlier in folder.glob("*"):
        # A folder with any other file was not written by an earlier page.
        if earlier.name not in several and _is_ours(earlier):
            shutil.rmtree(earlier)
    return tuple(write_fields(folder / id_, several[id_].fields, several[id_].predictions) for id_ in sorted(several))


def _is_ours(folder: Path) -> bool:
    """Whether a folder holds nothing but a record and its predictions."""
    return (
        folder.is_dir()
        and not folder.is_symlink()
        and {path.name for path in folder.iterdir()} <= {RECORD_FILE, PREDICTIONS_FILE}
    )
