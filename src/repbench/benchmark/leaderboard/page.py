"""The page of a leaderboard, made again from its folder.

The accepted records are laid out beside the page as runs are, so that whoever reads it can take them and verify them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from repbench.benchmark.leaderboard.board import Leaderboard
from repbench.benchmark.leaderboard.submission import Submission
from repbench.benchmark.records.record import PREDICTIONS_FILE, RECORD_FILE, write_fields
from repbench.benchmark.report import FORMATS, Heading, ReportRequest, write_report
from repbench.errors import DataError, RepbenchError
from repbench.files import ensure_writable
from repbench.progress import Reporter, Silence

RECORDS_FOLDER = "records"


@dataclass(frozen=True, slots=True)
class Built:
    """A page and what it was made of.

    Attributes:
        files: The page and its tables.
        accepted: Files of the submissions that stand on it.
        refused: From the file of each other one to why.
    """

    files: tuple[Path, ...]
    accepted: tuple[Path, ...]
    refused: Mapping[Path, RepbenchError]


def build(board: Leaderboard, out: Path, reporter: Reporter | None = None) -> Built:
    """Check every submission, and write the page of those that hold.

    Args:
        board: The leaderboard.
        out: Folder of the page; what it holds of an earlier one is replaced.
        reporter: Told how far it has come.

    Raises:
        DataError: There is no submission that holds.
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
    request = ReportRequest(runs=places, out=out, formats=FORMATS, heading=heading)
    written = write_report(request, reporter)
    return Built(written.files, tuple(accepted), refused)


def _lay_out(submissions: Iterable[Submission], folder: Path) -> tuple[Path, ...]:
    """Write each record and its predictions into a folder named by its id, and remove those of earlier pages."""
    several = {submission.record.id: submission for submission in submissions}
    for earlier in folder.glob("*"):
        if earlier.name not in several and _is_ours(earlier):
            shutil.rmtree(earlier)
    return tuple(write_fields(folder / id_, several[id_].fields, several[id_].predictions) for id_ in sorted(several))


def _is_ours(folder: Path) -> bool:
    """Whether a folder holds a record and its predictions, and nothing else that removing it would lose."""
    return (
        folder.is_dir()
        and not folder.is_symlink()
        and {path.name for path in folder.iterdir()} <= {RECORD_FILE, PREDICTIONS_FILE}
    )
