"""Pairs of torch and torchaudio that were tested, and the error where torchaudio cannot be imported.

torchaudio serves `torchaudio:` alone. A release of it may not fit the torch that is installed: 2.11.1 declares torch
2.11 and later, and cannot be loaded with 2.11. The advice here follows from pairs that were installed and used
(docs/design/0001-torch-pair.md), and not from version numbers.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from importlib import metadata
from types import ModuleType

from repbench.errors import EnvironmentFault

TRIED = {
    "2.11": {"2.11.0": True, "2.11.1": False},
    "2.12": {"2.11.0": True, "2.11.1": False},
    "2.13": {"2.11.0": True, "2.11.1": True},
    "2.14": {"2.11.0": True, "2.11.1": True},
    "2.15": {"2.11.0": False, "2.11.1": True},
}
"""For each minor version of torch, in its order: the releases of torchaudio, in theirs, and whether the pair works."""

OLDEST, NEWEST = next(iter(TRIED)), next(reversed(TRIED))
"""The oldest torch that is supported, and the newest that was tried."""


def minor(version: str) -> str:
    """`2.11` of `2.11.0+cu130`."""
    return ".".join(version.split(".")[:2])


def version_of(distribution: str) -> str | None:
    """The installed version of a distribution, from metadata; None if it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def fitting(torch: str) -> str | None:
    """The newest torchaudio that works with this torch; None if none was tried with it."""
    working = [release for release, works in TRIED.get(minor(torch), {}).items() if works]
    return working[-1] if working else None


def torchaudio_cure(torch: str) -> str:
    """The remedy for a torchaudio that does not work.

    Args:
        torch: The version that is installed.
    """
    if torch.endswith("+cpu"):
        return "It has to be a CPU build as torch is: take it from the index that this torch came from"
    if release := fitting(torch):
        return f"pip install 'torchaudio=={release}'"
    return f"None was tried with torch {minor(torch)}: pip install 'torch=={NEWEST}.*' 'torchaudio=={fitting(NEWEST)}'"


def import_torchaudio(module: str = "torchaudio") -> ModuleType:
    """torchaudio, or a module of it.

    Raises:
        EnvironmentFault: It is not installed, or does not fit the torch that is; names both versions and the cure.
    """
    torch, torchaudio = version_of("torch") or "unknown", version_of("torchaudio")
    try:
        return importlib.import_module(module)
    except Exception as error:  # an OSError, a RuntimeError or an ImportError, by where the two do not fit
        what = f"`torchaudio:` needs torchaudio, which is not installed (torch is {torch})"
        if torchaudio is not None:
            cause = error.__cause__ or error  # torch wraps the linker's message into "Could not load this library"
            reason = f"{type(cause).__name__}: {' '.join(str(cause).split())}"
            what = f"torchaudio {torchaudio} cannot be imported with torch {torch}: {reason}"
        raise EnvironmentFault(what[:400], key="torchaudio", do=torchaudio_cure(torch)) from error


@contextlib.contextmanager
def without_broken_torchaudio() -> Iterator[None]:
    """Hide torchaudio from packages that the block imports, if the installed one cannot be imported.

    transformers imports it wherever it is installed, and cannot be imported where that fails; no model here needs it.
    """
    if version_of("torchaudio") is None or "torchaudio" in sys.modules:
        yield
        return
    try:
        import_torchaudio()
    except EnvironmentFault:
        sys.modules["torchaudio"] = None  # type: ignore[assignment]  # `find_spec` then finds none
        try:
            yield
        finally:
            del sys.modules["torchaudio"]
    else:
        yield
