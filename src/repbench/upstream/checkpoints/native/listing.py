"""The checkpoints of a run: listing them, and deleting those that are no longer needed."""

from __future__ import annotations

import math
import os
import re
import secrets
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from repbench.errors import IntegrityError
from repbench.files import TEMPORARY_PREFIX, environment_faults
from repbench.upstream.checkpoints.native.reading import CHECKPOINTS_FOLDER, Checkpoint, read_manifest, reading, verify

_STEP_FOLDER = re.compile(r"(?P<name>step-\d+)(?P<aside>\.old-[0-9a-f]+)?")
_MAX_DEPTH = 3


def list_checkpoints(run: Path, warn: Callable[[str], None] | None = None) -> list[Checkpoint]:
    """The checkpoints of a run in ascending order of the step in their manifests; file times and names do not count.

    Only manifests are read; `newest_intact` and `open_checkpoint` verify the other files.

    Args:
        run: The run folder.
        warn: Called with a line about each checkpoint that is left out because its manifest is corrupt.

    Raises:
        EnvironmentFault: A manifest cannot be read.
    """
    folder = run / CHECKPOINTS_FOLDER
    found = []
    with reading(folder):
        entries = sorted(folder.iterdir()) if folder.is_dir() else []
    for entry in entries:
        if not _STEP_FOLDER.fullmatch(entry.name):
            continue
        try:
            found.append(read_manifest(entry))
        except IntegrityError as error:
            if warn is not None:
                warn(f"{error.line()} It is left out.")
    # Two of one step exist where a writer was killed while it replaced one: the old, set aside, sorts before the new.
    return sorted(found, key=lambda checkpoint: (checkpoint.step, not _is_aside(checkpoint.path), checkpoint.path.name))


def newest_intact(run: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint of a run that verifies completely; None if there is none.

    Args:
        run: The run folder.
        warn: Called with a line about each newer checkpoint that is skipped, and its fault.

    Raises:
        EnvironmentFault: A file cannot be read.
    """
    for checkpoint in reversed(list_checkpoints(run, warn)):
        try:
            verify(checkpoint)
        except IntegrityError as error:
            warn(f"{error.line()} The checkpoint of step {checkpoint.step} is skipped.")
        else:
            return checkpoint
    return None


def newest_under(folder: Path, warn: Callable[[str], None] | None = None) -> Checkpoint | None:
    """The newest checkpoint of all runs in or below a folder; None if there is none.

    Runs are ordered by the manifest field `started` (ISO 8601, UTC without a zone); runs without it come first. Within
    a run the step decides. Only manifests are read.

    Args:
        folder: The folder, searched three levels deep.
        warn: Called with a line about each checkpoint that is left out because its manifest is corrupt.

    Raises:
        EnvironmentFault: A manifest cannot be read.
    """
    # The last of each run, by step; then the newest run, by `started`: file times change when a run is copied.
    last = [checkpoints[-1] for run in _runs_under(folder) if (checkpoints := list_checkpoints(run, warn))]
    return max(last, key=lambda checkpoint: (_started(checkpoint), checkpoint.step, str(checkpoint.path)), default=None)


def remove_leftovers(run: Path) -> None:
    """Remove the unfinished files of killed writers from a run. The caller holds the lock of the run.

    Raises:
        EnvironmentFault: A file cannot be removed.
    """
    folder = run / CHECKPOINTS_FOLDER
    with environment_faults(run):
        # Under the lock of the run no other writer lives, so every temporary name is of a dead one.
        for place in (run, folder):
            if place.is_dir():
                remove_temporaries(place)
        for aside in sorted(folder.glob("step-*.old-*")):
            match = _STEP_FOLDER.fullmatch(aside.name)
            if match is None:
                continue
            final = folder / match["name"]
            # Killed after the new folder had the name: the old one goes. Killed before: it gets its name back.
            if os.path.lexists(final):
                discard(aside)
            else:
                aside.rename(final)


def delete_surplus(run: Path, saved: Checkpoint, keep_last: int) -> None:
    """Delete the checkpoints up to `saved` except it, the last `keep_last` and the one of the lowest dev loss."""
    past = [checkpoint for checkpoint in list_checkpoints(run) if checkpoint.step <= saved.step]
    kept = {saved.path, *(checkpoint.path for checkpoint in past[-keep_last:])}
    # `past` ascends and min takes the first: the earlier of equals.
    scored = [checkpoint for checkpoint in past if math.isfinite(_dev_loss(checkpoint))]
    if scored:
        kept.add(min(scored, key=_dev_loss).path)
    for checkpoint in past:
        if checkpoint.path not in kept:
            discard(checkpoint.path)


def discard(path: Path) -> None:
    """Remove a checkpoint. It loses its name first, so that a kill leaves no half of it under a name that counts."""
    doomed = path.with_name(f"{TEMPORARY_PREFIX}old-{secrets.token_hex(4)}{ending_of(path)}")
    path.rename(doomed)
    _remove(doomed)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_temporaries(folder: Path, *, ending: str = "") -> None:
    """Remove the unfinished files and folders in `folder` whose names end in `ending`."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(TEMPORARY_PREFIX) and path.name.endswith(ending):
            _remove(path)


def ending_of(folder: Path) -> str:
    """The end of the names of temporary folders that become `folder`."""
    return f"-{folder.name[-40:]}"


def _is_aside(path: Path) -> bool:
    match = _STEP_FOLDER.fullmatch(path.name)
    return match is not None and match["aside"] is not None


def _dev_loss(checkpoint: Checkpoint) -> float:
    value = checkpoint.fields.get("dev_loss")
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.inf


def _started(checkpoint: Checkpoint) -> datetime:
    try:
        started = datetime.fromisoformat(checkpoint.fields.get("started", ""))
    except (TypeError, ValueError):
        return datetime.min.replace(tzinfo=UTC)
    return started if started.tzinfo else started.replace(tzinfo=UTC)


def _runs_under(folder: Path) -> list[Path]:
    patterns = ("*/" * depth + CHECKPOINTS_FOLDER for depth in range(_MAX_DEPTH + 1))
    return sorted(found.parent for pattern in patterns for found in folder.glob(pattern))
