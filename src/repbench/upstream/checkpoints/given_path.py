"""Paths that a user gives: a fault of the path is the user's or the system's, never the model's."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from repbench.errors import EnvironmentFault, UsageError

_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EBADF}
_SHOWN_CHARACTERS = 60


def given_path(path: str | Path, key: str) -> Path:
    """`path` as a `Path`, which may be absent.

    Args:
        path: A path or name, as it was given.
        key: The option that gave it, such as `--checkpoint`.

    Raises:
        UsageError: No file system can hold such a name: it is too long or has a zero byte.
        EnvironmentFault: The path cannot be read, for example without permission.
    """
    name = str(path)
    try:
        Path(name).stat()
    except ValueError as error:
        raise UsageError("A path cannot hold a zero byte", key=key, do="Check the path") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            what = f"The name `{name[:_SHOWN_CHARACTERS]}…` is too long for a file: {len(name)} characters"
            raise UsageError(what, key=key, do="Check the path") from error
        if error.errno not in _ABSENT:
            what = f"This cannot be read: {os.strerror(error.errno or 0)}"
            raise EnvironmentFault(what, file=name, key=key, do="Check its permissions") from error
    return Path(name)
