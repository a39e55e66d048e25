"""Reads checkpoints that `torch.save` wrote elsewhere, without running any code in them.

A checkpoint holds a pickle, and a pickle is a program: it can call any function and request any amount of memory.

    file ─► containers: compares every byte of the zip, or of the older form, with its declaration
         ─► machine: executes the pickle into a sketch; calls nothing, allocates no tensor
         ─► judge: compares the sketch with the allow-list and with the size of the file
         ─► torch's reader of weights, which knows the same few harmless names
"""

from __future__ import annotations

import argparse
import io
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repbench.errors import EnvironmentFault, IntegrityError
from repbench.upstream.checkpoints.safe_unpickle.containers import (
    MAX_MEMBERS,
    check_digest,
    check_older_form,
    check_zip,
    is_zip,
    opened,
    read_at,
)
from repbench.upstream.checkpoints.safe_unpickle.judge import (
    INERT,
    MAX_DEPTH,
    PLAIN_ONLY,
    SCALARS,
    RefusedError,
    check_weights,
    corrupt,
)
from repbench.upstream.checkpoints.safe_unpickle.machine import MAX_INSTRUCTIONS

__all__ = ["MAX_DEPTH", "MAX_INSTRUCTIONS", "MAX_MEMBERS", "check_weights", "read_pickle"]


def read_pickle(path: Path) -> dict[str, Any]:
    """Read a file of `torch.save`, in its zip or its older form, without running any code in it.

    An `argparse.Namespace` becomes a dict of its attributes, and so do the timer and the schedules in checkpoints of
    Mockingjay and S3PRL. If a file `NAME.sha256` is in the same folder, the bytes must have that digest.

    Args:
        path: The file.

    Returns:
        The outermost dict: None, bool, int, float, str, list, tuple, dict and strided tensors on the CPU, nothing else.

    Raises:
        UsageError: There is no such file.
        IntegrityError: The file is empty, cut, damaged or of another kind; needs code to be read; holds a value of
            another type; or declares more than it holds. Names the file and the place in it.
        EnvironmentFault: The file cannot be read, or does not fit into memory.
    """
    try:
        with opened(path) as stream:
            size = stream.seek(0, io.SEEK_END)
            zipped = is_zip(read_at(stream, 0, 1024))
            check_digest(path, stream)
            (check_zip if zipped else check_older_form)(stream, size)
            stream.seek(0)
            content: dict[str, Any] = _plain(_load(stream))
    except RefusedError as refusal:
        raise IntegrityError(refusal.what, file=path, do=refusal.do) from refusal
    except MemoryError as error:
        do = "Free memory, or use a machine that has more"
        raise EnvironmentFault("The checkpoint does not fit into memory", file=path, do=do) from error
    except OSError as error:
        what = f"The checkpoint cannot be read: {os.strerror(error.errno or 0)}"
        raise EnvironmentFault(what, file=path, do="Check its permissions and the disk") from error
    return content


class _Inert:
    """Takes the place of classes of other toolkits whose instances hold no weights."""


def _load(stream: io.BufferedReader) -> object:
    inert = [(_Inert, name.replace(" ", ".")) for name in INERT]
    with torch.serialization.safe_globals([argparse.Namespace, *inert]):
        try:
            # `weights_only` is torch's own allow-list, the second after `Judge`: both have to accept the file.
            return torch.load(stream, map_location="cpu", weights_only=True, mmap=False)
        except Exception as error:
            if isinstance(error, MemoryError) or "allocate memory" in str(error):
                raise MemoryError from error
            # torch's own message advises to run the pickle, so it is not repeated.
            raise corrupt(f"torch cannot read it ({type(error).__name__})") from error


def _plain(value: Any) -> Any:
    """A copy without classes; `Judge` has bounded its depth and size."""
    if isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu":
        return value.detach()
    if isinstance(value, (argparse.Namespace, _Inert)):
        return _plain(vars(value))
    if isinstance(value, dict):
        # Not `value.items()`: an OrderedDict may have been given an attribute of that name.
        return {key: _plain(item) for key, item in dict.items(value)}
    if type(value) in (list, tuple):
        return type(value)(_plain(item) for item in value)
    if type(value) not in SCALARS:
        raise RefusedError(f"The checkpoint holds a {type(value).__name__}, which is not a plain value", PLAIN_ONLY)
    return value
