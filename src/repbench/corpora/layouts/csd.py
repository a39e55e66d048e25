"""Computational sequences (`.csd`), read by mmsdk after `check_hdf5` has accepted the file.

A computational sequence is a HDF5 file with, for each video, `intervals` (N, 2) in seconds and `features` (N, C).

mmsdk (on the registry: `cmu-multimodal-sdk`; 0.0.6 was tried) reads and writes them on Python 3.11 and NumPy 2, but:
it does not declare what it imports (the extra `mosi` does); it prints to the standard output, which is suppressed here;
it takes a name without ".csd" for a new, empty sequence and one that is a URL for something to download, so that only
absolute paths that end in `.csd` are given to it; it leaves the file open; and compiling it warns of `is` with a
literal.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from repbench.corpora.contract import Split
from repbench.corpora.layouts.hdf5 import INSTALL, check_hdf5
from repbench.errors import DataError, EnvironmentFault

SUFFIX = ".csd"


class SequenceRow(NamedTuple):
    """One row of a computational sequence: its values from `start_s` to `end_s` of its video."""

    start_s: float
    end_s: float
    values: tuple[float, ...]


def read_csd(path: Path) -> dict[str, tuple[SequenceRow, ...]]:
    """The intervals of each video, in the order of the file; numbers are the shortest decimals that name them.

    Raises:
        IntegrityError: The guard refuses the file; see `check_hdf5`.
        DataError: mmsdk cannot read it, or the arrays of a video are not (N, 2) and (N, C) of finite numbers.
        EnvironmentFault: mmsdk or h5py is not installed.
    """
    if path.suffix != SUFFIX:
        do = "Give the file of labels that mmsdk wrote"
        raise DataError(f"A computational sequence ends in {SUFFIX}", file=path, do=do)
    # before mmsdk opens the file, which follows every link in it
    check_hdf5(path)
    mmdatasdk = _import_mmdatasdk()
    with _translated_faults(path):
        sequence = _opened(mmdatasdk, path)
        try:
            return {video: _intervals(arrays, video, path) for video, arrays in sequence.data.items()}
        finally:
            # mmsdk leaves it open
            sequence.h5handle.close()


def standard_folds(dataset: Literal["cmu_mosi", "cmu_mosei"]) -> dict[str, Split]:
    """From each video that mmsdk's standard folds list to its split; mmsdk calls dev "valid".

    Raises:
        EnvironmentFault: mmsdk is not installed.
    """
    folds = getattr(_import_mmdatasdk(), dataset).standard_folds
    named: tuple[tuple[Split, list[str]], ...] = (
        ("train", folds.standard_train_fold),
        ("dev", folds.standard_valid_fold),
        ("test", folds.standard_test_fold),
    )
    return {video: split for split, videos in named for video in videos}


def _opened(mmdatasdk: Any, path: Path) -> Any:
    """mmsdk's own object, its handle still open."""
    absolute = os.path.abspath(path)  # noqa: PTH100 - mmsdk takes text
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return mmdatasdk.computational_sequence(absolute)


@contextlib.contextmanager
def _translated_faults(path: Path) -> Iterator[None]:
    """A block in which errors of mmsdk and h5py at a file of another form become errors that name the file."""
    try:
        yield
    except (RuntimeError, KeyError, IndexError, ValueError, TypeError, AttributeError, OSError) as error:
        what = f"mmsdk cannot read the computational sequence ({type(error).__name__}: {error})"
        do = "It must hold ROOT/data/VIDEO/{intervals,features} and ROOT/metadata"
        raise DataError(what, file=path, do=do) from error


def _intervals(arrays: Any, video: str, path: Path) -> tuple[SequenceRow, ...]:
    times, values = (_numbers(arrays, name, video, path) for name in ("intervals", "features"))
    # times (N, 2), values (N, C)
    if times.shape != (len(values), 2):
        what = f"`intervals` of the video `{video}` is {times.shape}, but `features` is {values.shape}"
        raise DataError(what, file=path, key=video, do="They must be (N, 2) and (N, C)")
    return tuple(
        SequenceRow(_decimal(start), _decimal(end), tuple(_decimal(value) for value in row))
        for (start, end), row in zip(times, values, strict=True)
    )


def _numbers(arrays: Any, name: str, video: str, path: Path) -> np.ndarray[tuple[int, ...], Any]:
    """The array (N, C) called `name`."""
    dataset = arrays[name]
    if dataset.dtype.kind not in "fiu" or len(dataset.shape) != 2:
        what = f"`{name}` of the video `{video}` is no table of numbers, but {dataset.dtype} of shape {dataset.shape}"
        raise DataError(what, file=path, key=video, do="It must have two axes")
    numbers = np.asarray(dataset)
    if not np.isfinite(numbers).all():
        do = "Write it again from its source"
        raise DataError(f"`{name}` of the video `{video}` is NaN or infinite somewhere", file=path, key=video, do=do)
    return numbers


def _decimal(number: Any) -> float:
    """1.4 from the float32 1.4, whose nearest double is 1.39999998."""
    # NumPy prints the shortest decimal that gives the same float32 back
    return float(str(number))


def _import_mmdatasdk() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message='"is" with', category=SyntaxWarning)
            from mmsdk import mmdatasdk
    except ImportError as error:
        raise EnvironmentFault(f"mmsdk cannot be imported: {error}", do=INSTALL) from error
    return mmdatasdk
