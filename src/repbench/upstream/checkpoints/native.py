"""Checkpoints on disk: written whole or not at all, verified before they are read, deleted only when others stand.

A run folder holds `checkpoints/step-00000040/` with the weights, the training state (optional), small texts and
`checkpoint.json`, the manifest, which gives the step, whatever the trainer says of the run, and the size and SHA-256 of
every other file. A checkpoint appears under its name in one step, so a kill at any moment leaves the old or the new.
What a checkpoint means to a model is not known here.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from repbench.errors import EnvironmentFault, IntegrityError, NonFiniteError, UsageError
from repbench.files import TEMPORARY_PREFIX, environment_faults

SCHEMA = "repbench.checkpoint/1"
CHECKPOINTS_FOLDER = "checkpoints"
MANIFEST_FILE = "checkpoint.json"
WEIGHTS_FILE = "model.safetensors"
TRAINING_FILE = "training.safetensors"

_OWN_DIGEST = "manifest_sha256"
_OWN_FIELDS = frozenset({"schema", "step", "files", _OWN_DIGEST})
_OWN_FILES = frozenset({MANIFEST_FILE, WEIGHTS_FILE, TRAINING_FILE})
_STEP_FOLDER = re.compile(r"(?P<name>step-\d+)(?P<aside>\.old-[0-9a-f]+)?")
_MAX_DEPTH = 3
_CHUNK_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint folder whose manifest was read; its other files are verified whenever they are.

    Attributes:
        path: The folder.
        step: Optimiser steps taken.
        fields: The manifest.
    """

    path: Path
    step: int
    fields: Mapping[str, Any]


def save_checkpoint(
    run: Path,
    step: int,
    *,
    weights: Mapping[str, Tensor],
    training: Mapping[str, Tensor] | None,
    fields: Mapping[str, Any],
    texts: Mapping[str, str] = {},
    keep_last: int = 3,
) -> Checkpoint:
    """Save a checkpoint into a run, then delete those that are neither among the last nor the best.

    A checkpoint of the same step is replaced. Those of later steps, left by a run that fell back to this one's past,
    are not counted and not deleted before the run has passed them.

    Args:
        run: The run folder; made if missing. The caller holds its lock.
        step: Optimiser steps taken, at least 0.
        weights: The model, by parameter name; any device, finite.
        training: The state of optimiser and generators; None leaves it out.
        fields: What else the manifest says, as JSON; the best is the lowest finite `dev_loss`, the earlier of equals.
        texts: Small files to lie beside the weights, by name.
        keep_last: How many of the last checkpoints stay, at least 1.

    Raises:
        NonFiniteError: A weight or a field is NaN or infinite; nothing was written.
        EnvironmentFault: The disk is full or the place may not be written to; the previous checkpoints are as before.
    """
    if keep_last < 1:
        raise ValueError(f"`keep_last` must be at least 1, but is {keep_last}")
    folder = run / CHECKPOINTS_FOLDER / f"step-{step:08d}"
    saved = _save(folder, step, weights=weights, training=training, fields=fields, texts=texts)
    with environment_faults(run):
        _delete_surplus(run, saved, keep_last)
    return saved


def save_weights(
    folder: Path,
    *,
    weights: Mapping[str, Tensor],
    fields: Mapping[str, Any],
    texts: Mapping[str, str] = {},
    step: int = 0,
) -> Checkpoint:
    """Save one checkpoint that is in no run, without training state, as `repbench convert --out DIR` does.

    Args:
        folder: Where; new, empty, or an earlier checkpoint with nothing else in it, which is replaced.
        weights: The model, by parameter name; any device, finite.
        fields: What else the manifest says, as JSON.
        texts: Small files to lie beside the weights, by name.
        step: Optimiser steps taken, where known.

    Raises:
        UsageError: The folder holds something else, or is no folder.
        NonFiniteError: A weight or a field is NaN or infinite; nothing was written.
        EnvironmentFault: The disk is full or the place may not be written to.
    """
    folder = folder.resolve()
    _refuse_foreign(folder)
    with environment_faults(folder):
        if folder.parent.is_dir():
            _remove_temporaries(folder.parent, ending=_ending(folder))
    return _save(folder, step, weights=weights, training=None, fields=fields, texts=texts)


def list_checkpoints(run: Path, warn: Callable[[str], None] | None = None) -> list[Checkpoint]:
    """The checkpoints of a run by the step in their manifests, ascending; neither times nor names of files count.

    Only manifests are read: `newest_intact` and `open_checkpoint` verify the rest.

    Args:
        run: The run folder.
        warn: Told of each checkpoint that is left out because its manifest is corrupt.

    Raises:
        EnvironmentFault: A manifest may not be read.
    """
    folder = run / CHECKPOINTS_FOLDER
    found = []
    with _reading(folder):
        entries = sorted(folder.iterdir()) if folder.is_dir() else []
    for entry in entries:
        if not _STEP_FOLDER.fullmatch(entry.name):
            continue
        try:
            found.append(_read_manifest(entry))
        except IntegrityError as error:
            if warn is not None:
                warn(f"{error.line()} It is left out.")
    return sorted(found, key=lambda checkpoint: (checkpoint.step, not _is_aside(checkpoint.path), checkpoint.path.name))


def newest_intact(run: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint of a run whose every byte is as it was written; None if there is none.

    Args:
        run: The run folder.
        warn: Told of each newer checkpoint that is passed over, and of what is corrupt in it.

    Raises:
        EnvironmentFault: A file may not be read.
    """
    for checkpoint in reversed(list_checkpoints(run, warn)):
        try:
            _verify(checkpoint)
        except IntegrityError as error:
            warn(f"{error.line()} The checkpoint of step {checkpoint.step} is passed over.")
        else:
            return checkpoint
    return None


def newest_under(folder: Path, warn: Callable[[str], None] | None = None) -> Checkpoint | None:
    """The newest checkpoint of all runs in or below a folder; None if there is none.

    Runs are ordered by the time in the manifest field `started` (ISO 8601, UTC where it names no zone), those without
    come first; within a run the step decides. Only manifests are read.

    Args:
        folder: Where to look, three folders deep.
        warn: Told of each checkpoint that is left out because its manifest is corrupt.

    Raises:
        EnvironmentFault: A manifest may not be read.
    """
    last = [checkpoints[-1] for run in _runs_under(folder) if (checkpoints := list_checkpoints(run, warn))]
    return max(last, key=lambda checkpoint: (_started(checkpoint), checkpoint.step, str(checkpoint.path)), default=None)


def open_checkpoint(path: Path) -> Checkpoint:
    """Open the checkpoint that someone named, and verify it; there is no falling back to another.

    Args:
        path: The checkpoint folder.

    Raises:
        UsageError: It is no folder.
        IntegrityError: It is corrupt, or no checkpoint.
        EnvironmentFault: A file may not be read.
    """
    with _reading(path):
        there = path.is_dir()
    if not there:
        raise UsageError("There is no such checkpoint folder", file=path, do=f"Name a folder with a {MANIFEST_FILE}")
    checkpoint = _read_manifest(path)
    _verify(checkpoint)
    return checkpoint


def read_weights(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The weights of a checkpoint on the CPU, by name, from bytes that were verified before they were parsed.

    Raises:
        IntegrityError: They are corrupt, or not finite.
        EnvironmentFault: They may not be read.
    """
    weights = _read_tensors(checkpoint, WEIGHTS_FILE)
    name = _first_non_finite(weights)
    if name is not None:
        raise _corrupt(f"the tensor `{name}` is not finite", checkpoint.path / WEIGHTS_FILE)
    return weights


def read_training(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The training state of a checkpoint on the CPU, by name, verified as the weights are.

    Raises:
        IntegrityError: It is corrupt, or the checkpoint has none.
        EnvironmentFault: It may not be read.
    """
    if TRAINING_FILE not in checkpoint.fields["files"]:
        raise IntegrityError(
            "The checkpoint holds weights only, so training cannot go on from it",
            file=checkpoint.path,
            do=f"Name one with a {TRAINING_FILE}",
        )
    return _read_tensors(checkpoint, TRAINING_FILE)


def remove_leftovers(run: Path) -> None:
    """Remove what killed writers left in a run; only for who holds the lock of the run.

    Raises:
        EnvironmentFault: It may not be removed.
    """
    folder = run / CHECKPOINTS_FOLDER
    with environment_faults(run):
        for place in (run, folder):
            if place.is_dir():
                _remove_temporaries(place)
        for aside in sorted(folder.glob("step-*.old-*")):
            match = _STEP_FOLDER.fullmatch(aside.name)
            if match is None:
                continue
            final = folder / match["name"]
            if os.path.lexists(final):
                _discard(aside)
            else:
                aside.rename(final)


def _save(
    folder: Path,
    step: int,
    *,
    weights: Mapping[str, Tensor],
    training: Mapping[str, Tensor] | None,
    fields: Mapping[str, Any],
    texts: Mapping[str, str],
) -> Checkpoint:
    _refuse_what_cannot_be_saved(folder, step, weights, fields, texts)
    temporary = folder.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}{_ending(folder)}")
    with environment_faults(folder):
        _make_folder(folder.parent)
        try:
            temporary.mkdir()
            files = _write_files(temporary, weights, training, texts)
            manifest = _write_manifest(temporary, {"schema": SCHEMA, "step": step, **fields, "files": files})
            _sync_folder(temporary)
            if _holds_already(folder, manifest):
                shutil.rmtree(temporary)
            else:
                _put_in_place(temporary, folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return Checkpoint(path=folder, step=step, fields=manifest)


def _refuse_what_cannot_be_saved(
    folder: Path, step: int, weights: Mapping[str, Tensor], fields: Mapping[str, Any], texts: Mapping[str, str]
) -> None:
    if step < 0:
        raise ValueError(f"`step` must be at least 0, but is {step}")
    if taken := _OWN_FIELDS & fields.keys():
        raise ValueError(f"`fields` may not say {', '.join(sorted(taken))}: the checkpoint says so itself")
    if unfit := [name for name in texts if name in _OWN_FILES or not _is_plain(name)]:
        raise ValueError(f"`texts` may not hold a file named {', '.join(map(repr, unfit))}")
    name = _first_non_finite(weights)
    if name is not None:
        raise NonFiniteError(
            "The weights are not finite, and were not saved",
            file=folder,
            key=name,
            do="The last checkpoint of a run is finite: go on from it with a lower learning rate",
        )
    for name, value in fields.items():
        if not _is_finite_json(value):
            raise NonFiniteError("The manifest cannot hold NaN or infinity", file=folder, key=name, do="Give None")


def _write_files(
    folder: Path, weights: Mapping[str, Tensor], training: Mapping[str, Tensor] | None, texts: Mapping[str, str]
) -> dict[str, dict[str, str | int]]:
    files = {WEIGHTS_FILE: _write_file(folder / WEIGHTS_FILE, _packed(weights))}
    if training is not None:
        files[TRAINING_FILE] = _write_file(folder / TRAINING_FILE, _packed(training))
    for name, text in texts.items():
        files[name] = _write_file(folder / name, text.encode("utf-8", "backslashreplace"))
    return files


def _packed(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as the bytes of a safetensors file; the same tensors, in any order, give the same bytes.

    The file is not written by safetensors itself because its errors keep only the text of an OSError.
    """
    alone: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        # Tied weights share memory, which safetensors refuses.
        if tensor.untyped_storage().data_ptr() in storages:
            tensor = tensor.clone()
        storages.add(tensor.untyped_storage().data_ptr())
        alone[name] = tensor
    return safetensors.torch.save(alone)


def _write_file(path: Path, content: bytes) -> dict[str, str | int]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest[:_CHUNK_BYTES]) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def _write_manifest(folder: Path, fields: dict[str, Any]) -> dict[str, Any]:
    """Write the manifest with its own digest; returns it as it will be read, with lists for tuples."""
    manifest: dict[str, Any] = json.loads(json.dumps(fields))
    manifest[_OWN_DIGEST] = _digest_of(manifest)
    # Escaped, not UTF-8: a path that is no UTF-8 must not end a run.
    _write_file(folder / MANIFEST_FILE, (json.dumps(manifest, indent=2) + "\n").encode("ascii"))
    return manifest


def _digest_of(manifest: Mapping[str, Any]) -> str:
    said = {name: value for name, value in manifest.items() if name != _OWN_DIGEST}
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


def _holds_already(folder: Path, manifest: Mapping[str, Any]) -> bool:
    try:
        checkpoint = _read_manifest(folder)
        _verify(checkpoint)
    except IntegrityError:
        return False
    return checkpoint.fields == manifest


def _put_in_place(temporary: Path, final: Path) -> None:
    """Give a finished folder its name.

    A folder cannot replace a full one in one step. So the old one keeps a name under which it is still listed until
    the new one has its own.
    """
    if not _is_occupied(final):
        temporary.rename(final)
        _sync_folder(final.parent)
        return
    aside = final.with_name(f"{final.name}.old-{secrets.token_hex(4)}")
    final.rename(aside)
    try:
        temporary.rename(final)
    except BaseException:
        aside.rename(final)
        raise
    _sync_folder(final.parent)
    _discard(aside)


def _is_occupied(path: Path) -> bool:
    return os.path.lexists(path) and (path.is_symlink() or not path.is_dir() or any(path.iterdir()))


def _is_aside(path: Path) -> bool:
    match = _STEP_FOLDER.fullmatch(path.name)
    return match is not None and match["aside"] is not None


def _discard(path: Path) -> None:
    """Remove a checkpoint; its name goes first, so that no kill leaves half of it under a name that counts."""
    doomed = path.with_name(f"{TEMPORARY_PREFIX}old-{secrets.token_hex(4)}{_ending(path)}")
    path.rename(doomed)
    _remove(doomed)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _remove_temporaries(folder: Path, *, ending: str = "") -> None:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(TEMPORARY_PREFIX) and path.name.endswith(ending):
            _remove(path)


def _ending(folder: Path) -> str:
    return f"-{folder.name[-40:]}"


def _make_folder(folder: Path) -> None:
    """Make a folder and its parents, each flushed: a checkpoint outlives a power cut only if its folders do."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _delete_surplus(run: Path, saved: Checkpoint, keep_last: int) -> None:
    past = [checkpoint for checkpoint in list_checkpoints(run) if checkpoint.step <= saved.step]
    kept = {saved.path, *(checkpoint.path for checkpoint in past[-keep_last:])}
    # Ascending, and min takes the first: the earlier of equals.
    scored = [checkpoint for checkpoint in past if math.isfinite(_dev_loss(checkpoint))]
    if scored:
        kept.add(min(scored, key=_dev_loss).path)
    for checkpoint in past:
        if checkpoint.path not in kept:
            _discard(checkpoint.path)


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


def _refuse_foreign(folder: Path) -> None:
    """Refuse to replace a folder that holds anything but a checkpoint."""
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise UsageError("The output is no folder", file=folder, do="Name a new folder")
    if folder.is_mount():
        raise UsageError("A mount point cannot be replaced", file=folder, do="Name a new folder in it")
    names = {path.name for path in folder.iterdir()}
    try:
        own = {MANIFEST_FILE, *_read_manifest(folder).fields["files"]} if names else names
    except IntegrityError:
        own = set()
    if names - own:
        raise UsageError(
            f"The folder is not empty and {min(names - own)!r} in it is of no checkpoint",
            file=folder,
            do="Name a new folder",
        )


def _read_manifest(folder: Path) -> Checkpoint:
    path = folder / MANIFEST_FILE
    _refuse_missing(path)
    with _reading(path):
        content = path.read_bytes()
    try:
        manifest = json.loads(content)
        fault = _fault_of(manifest)
    except (ValueError, RecursionError) as error:
        raise _corrupt(f"no JSON that can be read: {error}", path) from error
    if fault is not None:
        raise _corrupt(fault, path)
    return Checkpoint(path=folder, step=manifest["step"], fields=manifest)


def _fault_of(manifest: Any) -> str | None:
    """What is wrong with a manifest; None if nothing is."""
    if not isinstance(manifest, dict):
        return "it must hold a JSON object"
    if manifest.get("schema") != SCHEMA:
        return f"`schema` must be {SCHEMA!r}, but is {manifest.get('schema')!r}"
    if manifest.get(_OWN_DIGEST) != _digest_of(manifest):
        return f"it is not what it was when it was written: `{_OWN_DIGEST}` says so"
    if not _is_count(manifest.get("step")):
        return f"`step` must be a whole number of at least 0, but is {manifest.get('step')!r}"
    files = manifest.get("files")
    if not isinstance(files, dict) or WEIGHTS_FILE not in files:
        return f"`files` must name {WEIGHTS_FILE}"
    return next((fault for name, entry in files.items() if (fault := _fault_of_entry(name, entry))), None)


def _fault_of_entry(name: str, entry: Any) -> str | None:
    if not _is_plain(name) or name == MANIFEST_FILE:
        return f"`files` may name only files of this folder, but names {name!r}"
    if not isinstance(entry, dict) or not isinstance(entry.get("sha256"), str) or not _is_count(entry.get("bytes")):
        return f"`files` must give `sha256` and `bytes` of {name!r}"
    return None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_plain(name: str) -> bool:
    """Whether a name means a file of its own folder, on any system."""
    plain = PurePosixPath(name).name == name == PureWindowsPath(name).name
    return plain and name not in {"", ".", ".."} and "\0" not in name and not name.startswith(TEMPORARY_PREFIX)


def _is_finite_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


def _first_non_finite(tensors: Mapping[str, Tensor]) -> str | None:
    return next((name for name in sorted(tensors) if not torch.isfinite(tensors[name]).all()), None)


def _verify(checkpoint: Checkpoint) -> None:
    for name, entry in checkpoint.fields["files"].items():
        path = checkpoint.path / name
        _refuse_other_size(path, entry)
        with _reading(path), path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        _refuse_other_digest(path, entry, digest)


def _read_tensors(checkpoint: Checkpoint, name: str) -> dict[str, Tensor]:
    path, entry = checkpoint.path / name, checkpoint.fields["files"][name]
    _refuse_other_size(path, entry)
    with _reading(path):
        content = path.read_bytes()
    _refuse_other_digest(path, entry, hashlib.sha256(content).hexdigest())
    try:
        return safetensors.torch.load(content)
    except (SafetensorError, KeyError, ValueError) as error:
        raise _corrupt(f"no safetensors file: {error}", path) from error


def _refuse_missing(path: Path) -> None:
    with _reading(path):
        there = path.is_file()
    if not there:
        raise _corrupt("the file is missing", path)


def _refuse_other_size(path: Path, entry: Mapping[str, Any]) -> None:
    _refuse_missing(path)
    with _reading(path):
        size = path.stat().st_size
    if size != entry["bytes"]:
        raise _corrupt(f"the file holds {size} bytes, but the manifest says {entry['bytes']}", path)


def _refuse_other_digest(path: Path, entry: Mapping[str, Any], digest: str) -> None:
    if digest != entry["sha256"]:
        raise _corrupt("the SHA-256 of the file is not the one in the manifest", path)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what may go wrong in reading `path` into the error that it is; a disk that fails is corruption."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        if error.errno in {errno.EIO, errno.ENOENT, errno.EISDIR, errno.ENOTDIR}:
            raise _corrupt(reason, path) from error
        raise EnvironmentFault(f"Cannot read this: {reason}", file=path, do="See to its permissions") from error


def _corrupt(reason: str, path: Path) -> IntegrityError:
    return IntegrityError(f"corrupt: {reason}", file=path, do="Use another checkpoint, or make this one again")
