"""The checkpoint format, and reading: every byte is verified before it is parsed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from repbench.errors import EnvironmentFault, IntegrityError, UsageError
from repbench.files import TEMPORARY_PREFIX

SCHEMA = "repbench.checkpoint/1"
CHECKPOINTS_FOLDER = "checkpoints"
MANIFEST_FILE = "checkpoint.json"
WEIGHTS_FILE = "model.safetensors"
TRAINING_FILE = "training.safetensors"

OWN_DIGEST = "manifest_sha256"
"""Field of the manifest: SHA-256 of its other fields."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint folder whose manifest was read; its other files are verified when they are read.

    Attributes:
        path: The folder.
        step: Optimiser steps taken.
        fields: The manifest.
    """

    path: Path
    step: int
    fields: Mapping[str, Any]


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a named checkpoint and verify it; no other checkpoint takes its place.

    Args:
        path: The checkpoint folder.

    Raises:
        UsageError: There is no such folder.
        IntegrityError: It is corrupt, or is not a checkpoint.
        EnvironmentFault: A file cannot be read.
    """
    with reading(path):
        there = path.is_dir()
    if not there:
        raise UsageError("There is no such checkpoint folder", file=path, do=f"Name a folder with a {MANIFEST_FILE}")
    checkpoint = read_manifest(path)
    verify(checkpoint)
    return checkpoint


def read_weights(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """From parameter names to weights on the CPU, of bytes that are verified before they are parsed.

    Raises:
        IntegrityError: They are corrupt, or not finite.
        EnvironmentFault: They cannot be read.
    """
    weights = _read_tensors(checkpoint, WEIGHTS_FILE)
    name = first_non_finite(weights)
    if name is not None:
        raise corrupt(f"the tensor `{name}` is not finite", checkpoint.path / WEIGHTS_FILE)
    return weights


def read_training(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """From names to the tensors of the training state on the CPU, verified as the weights are.

    Raises:
        IntegrityError: It is corrupt, or the checkpoint has none.
        EnvironmentFault: It cannot be read.
    """
    if TRAINING_FILE not in checkpoint.fields["files"]:
        raise IntegrityError(
            "The checkpoint holds weights only, so training cannot go on from it",
            file=checkpoint.path,
            do=f"Name one with a {TRAINING_FILE}",
        )
    return _read_tensors(checkpoint, TRAINING_FILE)


def read_manifest(folder: Path) -> Checkpoint:
    """Read and check the manifest of a checkpoint; the other files are not read.

    Raises:
        IntegrityError: It is missing or corrupt.
        EnvironmentFault: It cannot be read.
    """
    path = folder / MANIFEST_FILE
    _refuse_missing(path)
    with reading(path):
        content = path.read_bytes()
    try:
        manifest = json.loads(content)
        fault = _fault_of(manifest)
    except (ValueError, RecursionError) as error:
        raise corrupt(f"not readable as JSON: {error}", path) from error
    if fault is not None:
        raise corrupt(fault, path)
    return Checkpoint(path=folder, step=manifest["step"], fields=manifest)


def _fault_of(manifest: Any) -> str | None:
    """The first fault of a manifest; None if it has none."""
    if not isinstance(manifest, dict):
        return "it must hold a JSON object"
    if manifest.get("schema") != SCHEMA:
        return f"`schema` must be {SCHEMA!r}, but is {manifest.get('schema')!r}"
    if manifest.get(OWN_DIGEST) != digest_of(manifest):
        return f"it was changed after it was written: `{OWN_DIGEST}` does not fit it"
    if not _is_count(manifest.get("step")):
        return f"`step` must be a whole number of at least 0, but is {manifest.get('step')!r}"
    files = manifest.get("files")
    if not isinstance(files, dict) or WEIGHTS_FILE not in files:
        return f"`files` must name {WEIGHTS_FILE}"
    return next((fault for name, entry in files.items() if (fault := _fault_of_entry(name, entry))), None)


def _fault_of_entry(name: str, entry: Any) -> str | None:
    if not is_plain_name(name) or name == MANIFEST_FILE:
        return f"`files` may name only files of this folder, but names {name!r}"
    if not isinstance(entry, dict) or not isinstance(entry.get("sha256"), str) or not _is_count(entry.get("bytes")):
        return f"`files` must give `sha256` and `bytes` of {name!r}"
    return None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_plain_name(name: str) -> bool:
    """Whether a name stays within its own folder, on any system."""
    # By the rules of both systems: `a\\b` and `C:a` are plain names on Linux and paths on Windows.
    plain = PurePosixPath(name).name == name == PureWindowsPath(name).name
    return plain and name not in {"", ".", ".."} and "\0" not in name and not name.startswith(TEMPORARY_PREFIX)


def digest_of(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest without its own digest."""
    # Sorted and without spaces: the digest is of the content, not of how a writer lays the JSON out.
    covered = {name: value for name, value in manifest.items() if name != OWN_DIGEST}
    return hashlib.sha256(json.dumps(covered, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


def first_non_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The first name, in sorted order, of a tensor (any shape) with NaN or infinity; None if all are finite."""
    return next((name for name in sorted(tensors) if not torch.isfinite(tensors[name]).all()), None)


def verify(checkpoint: Checkpoint) -> None:
    """Compare every file of a checkpoint with the size and digest in its manifest.

    Raises:
        IntegrityError: A file is missing or differs.
        EnvironmentFault: A file cannot be read.
    """
    for name, entry in checkpoint.fields["files"].items():
        path = checkpoint.path / name
        _refuse_other_size(path, entry)  # a file that was cut off is found without reading it
        with reading(path), path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        _refuse_other_digest(path, entry, digest)


def _read_tensors(checkpoint: Checkpoint, name: str) -> dict[str, Tensor]:
    path, entry = checkpoint.path / name, checkpoint.fields["files"][name]
    _refuse_other_size(path, entry)
    # One read for digest and parser: a file that is read twice could change in between.
    with reading(path):
        content = path.read_bytes()
    _refuse_other_digest(path, entry, hashlib.sha256(content).hexdigest())
    try:
        return safetensors.torch.load(content)
    except (SafetensorError, KeyError, ValueError) as error:
        raise corrupt(f"not a safetensors file: {error}", path) from error


def _refuse_missing(path: Path) -> None:
    with reading(path):
        there = path.is_file()
    if not there:
        raise corrupt("the file is missing", path)


def _refuse_other_size(path: Path, entry: Mapping[str, Any]) -> None:
    _refuse_missing(path)
    with reading(path):
        size = path.stat().st_size
    if size != entry["bytes"]:
        raise corrupt(f"the file holds {size} bytes, but the manifest gives {entry['bytes']}", path)


def _refuse_other_digest(path: Path, entry: Mapping[str, Any], digest: str) -> None:
    if digest != entry["sha256"]:
        raise corrupt("the SHA-256 of the file is not the one in the manifest", path)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an OSError while reading `path` into an error of repbench; a failing disk counts as corruption.

    Raises:
        IntegrityError: The file is missing, is a folder, or the disk fails.
        EnvironmentFault: Any other OSError, such as a missing permission.
    """
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        if error.errno in {errno.EIO, errno.ENOENT, errno.EISDIR, errno.ENOTDIR}:
            raise corrupt(reason, path) from error
        raise EnvironmentFault(f"Cannot read this: {reason}", file=path, do="Check its permissions") from error


def corrupt(reason: str, path: Path) -> IntegrityError:
    """The error for a corrupt file of a checkpoint."""
    return IntegrityError(f"corrupt: {reason}", file=path, do="Use another checkpoint, or make this one again")
