"""Atomic writes, bounded reads of files of others, and the folder of caches."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any

from repbench.errors import EnvironmentFault, IntegrityError, UsageError

TEMPORARY_PREFIX = ".tmp-"
"""Prefix of unfinished files and folders, which may be removed when no process writes."""

MAX_DEPTH = 32
"""Deepest nesting of JSON of others that is parsed."""

_ENVIRONMENT_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.ENOTDIR, errno.EEXIST,
    errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP, errno.EIO, errno.EISDIR,
}  # fmt: skip


@contextlib.contextmanager
def environment_faults(path: Path) -> Iterator[None]:
    """Turn a full disk, a read-only folder or a missing permission into an `EnvironmentFault` that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _ENVIRONMENT_ERRORS:
            raise
        full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        what = "No space left" if full else f"Cannot write here: {os.strerror(error.errno or 0)}"
        raise EnvironmentFault(what, file=path, do="Free space or choose another place") from error


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that is renamed to `path` when the block ends without an exception.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and take the name in one step; the
    folder is flushed too. After a kill or a power cut `path` holds the old bytes or the new, never a mixture.

    Raises:
        EnvironmentFault: The disk is full or the place may not be written to.
    """
    with environment_faults(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _temporary_beside(path) as (temporary, stream):
            yield stream
            _finish(stream, temporary)
            # After `_finish`: a name on the disk before its bytes could be an empty file after a power cut.
            temporary.replace(path)
        # The rename is an entry of the folder, which has its own place on the disk.
        _sync_folder(path.parent)


@contextlib.contextmanager
def _temporary_beside(path: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """An unfinished file in the folder of `path`, removed at the end of the block unless it was renamed."""
    # In the same folder, because a rename is atomic only within one file system. Process and host are in the name, so
    # that `remove_abandoned` can tell whether the writer is alive.
    owner = f"{TEMPORARY_PREFIX}{os.getpid()}@{socket.gethostname()[:64]}-"
    descriptor, name = tempfile.mkstemp(prefix=owner, suffix=f"-{path.name[-40:]}", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield Path(name), stream
    finally:
        Path(name).unlink(missing_ok=True)


def write_beside(
    path: Path,
    content: bytes,
    *,
    overwrite: bool = False,
    same: Callable[[bytes, bytes], bool] = bytes.__eq__,
    do: str = "Choose another --out, or give --overwrite",
) -> None:
    """Write a file atomically, unless it would replace one of other content.

    Args:
        path: Of the file.
        content: All of it.
        overwrite: Whether another file may be lost.
        same: Whether two contents are equivalent.
        do: The remedy in the error.

    Raises:
        UsageError: There is a file of other content, which stays as it is.
        EnvironmentFault: The disk is full or the place may not be written to.
    """
    if not overwrite and os.path.lexists(path) and not (path.is_file() and same(path.read_bytes(), content)):
        what = "There is a file of other content here, which would be lost"
        raise UsageError(what, file=path, key="--out", do=do)
    with atomic_write(path) as stream:
        stream.write(content)


def replaced_ours(path: Path, signature: bytes, content: bytes, *, made_by: str) -> bool:
    """Write a file that a command makes from its sources, atomically; a file that it did not make is not replaced.

    Args:
        path: Of the file.
        signature: Bytes within the first 64 KiB of each file that the command makes.
        content: All of it.
        made_by: The command that makes such files.

    Returns:
        Whether a file of other content was replaced.

    Raises:
        UsageError: There is a file that the command did not make, which stays as it is.
        EnvironmentFault: The disk is full or the place may not be written to.
    """
    refuse_of_others(path, signature, made_by=made_by)
    differs = path.exists() and path.read_bytes() != content
    with atomic_write(path) as stream:
        stream.write(content)
    return differs


def refuse_of_others(path: Path, signature: bytes, *, made_by: str) -> None:
    """Refuse to replace a file that a command did not make.

    Raises:
        UsageError: It lacks the signature.
    """
    if not os.path.lexists(path):
        return
    with environment_faults(path):
        head = b""
        if path.is_file():
            with path.open("rb") as stream:
                head = stream.read(1 << 16)
    if signature not in head:
        what = f"`{made_by}` did not make this file, and would replace it"
        raise UsageError(what, file=path, key="--out", do="Choose another --out, or move the file")


def _finish(stream: IO[bytes], temporary: Path) -> None:
    """Flush a file to the disk and give it the permissions of a file from `open`."""
    stream.flush()
    os.fsync(stream.fileno())
    # `mkstemp` makes files for their owner alone; the umask can only be read by setting it.
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)


def remove_abandoned(folder: Path) -> None:
    """Remove the unfinished files that `atomic_write` left in a folder when its process was killed.

    A file whose process runs on this machine, or ran on another one, stays. Should the process only seem to be gone
    (machines that share a name), its rename fails with an error, and nothing is lost: no lock is needed.
    """
    # The eight characters are those that `mkstemp` draws.
    own = rf"{re.escape(TEMPORARY_PREFIX)}(\d+)@{re.escape(socket.gethostname()[:64])}-[a-z0-9_]{{8}}-"
    for path in folder.glob(f"{TEMPORARY_PREFIX}*"):
        owner = re.match(own, path.name)
        if owner is not None and not is_alive(int(owner[1])):
            with contextlib.suppress(OSError):
                path.unlink()


def is_alive(process: int) -> bool:
    """Whether a process of this number runs on this machine."""
    try:
        # Signal 0 is not sent; the call only checks that the process exists, and fails with EPERM for one of another
        # user.
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def create(path: Path, text: str) -> bool:
    """Write a file that must not exist, atomically: of several processes at once, one succeeds.

    Returns:
        Whether it was written; False where there is one already, which is left as it is.

    Raises:
        EnvironmentFault: The disk is full, or the place may not be written to or knows no hard links.
    """
    with environment_faults(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _temporary_beside(path) as (temporary, stream):
            stream.write(text.encode("utf-8"))
            _finish(stream, temporary)
            try:
                # A link fails where the name is taken, as one step; a rename would replace the file, and a test before
                # it is a race.
                path.hardlink_to(temporary)
            except FileExistsError:
                return False
        _sync_folder(path.parent)
    return True


def ensure_writable(folder: Path) -> None:
    """Make a folder and test that files can be written into it, before long work whose results go there.

    Raises:
        EnvironmentFault: They cannot.
    """
    with environment_faults(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def refuse_unwritable(folder: Path) -> None:
    """Test that a folder can be made and written into, before long work whose results go there, and make nothing.

    Raises:
        EnvironmentFault: It cannot.
    """
    place = folder.absolute()
    with environment_faults(folder):
        with contextlib.suppress(FileNotFoundError):
            place.stat()  # fails for a name that is too long, of which `exists` says nothing from Python 3.14 on
        while not place.exists() and place != place.parent:
            place = place.parent
        with tempfile.TemporaryFile(dir=place):
            pass


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """The content of a file of others; a ValueError, without reading on, if it is larger than `most_bytes`."""
    with path.open("rb") as stream:
        # One byte more than allowed shows that it is too large; the size in the file system could change or be 0 (a
        # pipe).
        content = stream.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ValueError(f"it is larger than {most_bytes / (1 << 20):g} MiB")
    return content


def read_checked(path: Path, sha256: str) -> bytes:
    """The content of a file, if it has the digest that it was written with.

    Raises:
        IntegrityError: It cannot be read, or has another digest: a part of it is missing or was changed.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise IntegrityError(f"The file cannot be read: {error.strerror}", file=path, do="Run it again") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        what = f"The file has the SHA-256 {found[:16]}…, but was written with {sha256[:16]}…"
        raise IntegrityError(what, file=path, do="Copy it again, or run it again")
    return content


def parse_json(content: bytes | str) -> Any:
    """Parse JSON of others; a ValueError if it is not UTF-8 or JSON, or is nested deeper than `MAX_DEPTH`."""
    try:
        value = json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if is_surely_flat(content):
        return value
    level: list[Any] = [value] if isinstance(value, _NESTING) else []
    for _ in range(MAX_DEPTH):
        level = [inner for inner in chain.from_iterable(map(_inside, level)) if isinstance(inner, _NESTING)]
        if not level:
            return value
    raise ValueError("it is nested too deeply")


def is_surely_flat(content: bytes | str) -> bool:
    """Whether the number of brackets shows that JSON is not nested too deeply; much faster than parsing."""
    text = content.encode("utf-8") if isinstance(content, str) else content
    # An escaped quote would end a string too early in the pattern below.
    if b"\\" in text:
        return False
    brackets = re.sub(rb'"[^"]*"', b"", text).translate(None, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        # Each round removes the innermost pairs of both kinds at once: without the mark, `{[]}` would go in one round.
        brackets = brackets.replace(b"[]", b"x").replace(b"{}", b"x").replace(b"x", b"")
    return not brackets


_NESTING = (dict, list)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def _inside(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic_write(path) as stream:
        stream.write(text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; NaN and infinity are refused with a ValueError."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def canonical_json(value: Any) -> bytes:
    """`value` as JSON with sorted keys and no spaces: the same value has the same bytes, so it can be hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode("utf-8")


def cache_dir() -> Path:
    """The folder of caches: `REPBENCH_CACHE`, or the user's cache folder."""
    import platformdirs

    override = os.environ.get("REPBENCH_CACHE")
    return Path(override).expanduser() if override else Path(platformdirs.user_cache_dir("repbench"))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
