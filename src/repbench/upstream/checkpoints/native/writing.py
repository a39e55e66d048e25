"""Writing checkpoints: a checkpoint appears under its name complete and in one step, or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from repbench.errors import IntegrityError, NonFiniteError, UsageError
from repbench.files import TEMPORARY_PREFIX, environment_faults
from repbench.upstream.checkpoints.native.listing import delete_surplus, discard, ending_of, remove_temporaries
from repbench.upstream.checkpoints.native.reading import (
    CHECKPOINTS_FOLDER,
    MANIFEST_FILE,
    OWN_DIGEST,
    SCHEMA,
    TRAINING_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    digest_of,
    first_non_finite,
    is_plain_name,
    read_manifest,
    verify,
)

_OWN_FIELDS = frozenset({"schema", "step", "files", OWN_DIGEST})
_OWN_FILES = frozenset({MANIFEST_FILE, WEIGHTS_FILE, TRAINING_FILE})
_CHUNK_BYTES = 8 << 20


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

    A checkpoint of the same step is replaced. Later steps exist where a run resumed from an older checkpoint: they are
    neither counted nor deleted before the run has passed them.

    Args:
        run: The run folder; made if missing. The caller holds its lock.
        step: Optimiser steps taken, at least 0.
        weights: The model, by parameter name; any device, finite.
        training: The state of optimiser and generators; None leaves it out.
        fields: Further fields of the manifest, JSON-able; the best checkpoint has the lowest finite `dev_loss`, the
            earlier of equals.
        texts: From the names of small text files in the folder to their content.
        keep_last: Number of last checkpoints to keep, at least 1.

    Raises:
        NonFiniteError: A weight or a field is NaN or infinite; nothing was written.
        EnvironmentFault: The disk is full or the folder cannot be written; the previous checkpoints are untouched.
    """
    if keep_last < 1:
        raise ValueError(f"`keep_last` must be at least 1, but is {keep_last}")
    folder = run / CHECKPOINTS_FOLDER / f"step-{step:08d}"
    saved = _save(folder, step, weights=weights, training=training, fields=fields, texts=texts)
    # Only now that the new checkpoint is in place: a full disk must not cost an old one.
    with environment_faults(run):
        delete_surplus(run, saved, keep_last)
    return saved


def save_weights(
    folder: Path,
    *,
    weights: Mapping[str, Tensor],
    fields: Mapping[str, Any],
    texts: Mapping[str, str] = {},
    step: int = 0,
) -> Checkpoint:
    """Save one checkpoint outside any run, without training state, as `repbench convert --out DIR` does.

    Args:
        folder: A new or empty folder, or an earlier checkpoint with nothing else in it, which is replaced.
        weights: The model, by parameter name; any device, finite.
        fields: Further fields of the manifest, JSON-able.
        texts: From the names of small text files in the folder to their content.
        step: Optimiser steps taken, where known.

    Raises:
        UsageError: The folder holds other files, or is not a folder.
        NonFiniteError: A weight or a field is NaN or infinite; nothing was written.
        EnvironmentFault: The disk is full or the folder cannot be written.
    """
    folder = folder.resolve()
    _refuse_foreign(folder)
    with environment_faults(folder):
        if folder.parent.is_dir():
            remove_temporaries(folder.parent, ending=ending_of(folder))
    return _save(folder, step, weights=weights, training=None, fields=fields, texts=texts)


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
    # In the same folder, because a rename is one step only within a file system.
    temporary = folder.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}{ending_of(folder)}")
    with environment_faults(folder):
        _make_folder(folder.parent)
        try:
            temporary.mkdir()
            # Files, then the manifest with their digests, then a flush, then the name: a crash at any point leaves
            # either no folder of that name or a whole one.
            files = _write_files(temporary, weights, training, texts)
            manifest = _write_manifest(temporary, {"schema": SCHEMA, "step": step, **fields, "files": files})
            _sync_folder(temporary)
            if _holds_already(folder, manifest):
                shutil.rmtree(temporary)
            else:
                _put_in_place(temporary, folder)
        # Also of KeyboardInterrupt: a half-written folder is large.
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
        raise ValueError(f"`fields` may not hold {', '.join(sorted(taken))}: the checkpoint sets them itself")
    if unfit := [name for name in texts if name in _OWN_FILES or not is_plain_name(name)]:
        raise ValueError(f"`texts` may not hold a file named {', '.join(map(repr, unfit))}")
    name = first_non_finite(weights)
    if name is not None:
        raise NonFiniteError(
            "The weights are not finite, and were not saved",
            file=folder,
            key=name,
            do="The last checkpoint of a run is finite: resume from it with a lower learning rate",
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

    safetensors does not write the file itself, because its errors keep only the text of an OSError.
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
        while rest:  # `os.write` may write less than it is given
            rest = rest[os.write(descriptor, rest[:_CHUNK_BYTES]) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def _write_manifest(folder: Path, fields: dict[str, Any]) -> dict[str, Any]:
    """Write the manifest with its own digest.

    Returns:
        The manifest as it will be read, with lists for tuples.
    """
    manifest: dict[str, Any] = json.loads(json.dumps(fields))
    manifest[OWN_DIGEST] = digest_of(manifest)
    # ASCII with escapes: a path that is not valid UTF-8 must not end a run.
    _write_file(folder / MANIFEST_FILE, (json.dumps(manifest, indent=2) + "\n").encode("ascii"))
    return manifest


def _holds_already(folder: Path, manifest: Mapping[str, Any]) -> bool:
    try:
        checkpoint = read_manifest(folder)
        verify(checkpoint)
    except IntegrityError:
        return False
    return checkpoint.fields == manifest


def _put_in_place(temporary: Path, final: Path) -> None:
    """Give a finished folder its final name.

    A folder cannot replace one with content in one step. So the old one moves to a name under which it is still listed
    until the new one has the final name.
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
    discard(aside)


def _is_occupied(path: Path) -> bool:
    return os.path.lexists(path) and (path.is_symlink() or not path.is_dir() or any(path.iterdir()))


def _make_folder(folder: Path) -> None:
    """Make a folder and its parents and flush each: a checkpoint survives a power cut only if its folders do."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    # A rename is durable once the folder that holds the name is flushed.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_foreign(folder: Path) -> None:
    """Refuse to replace a folder that holds anything but a checkpoint."""
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise UsageError("The output is not a folder", file=folder, do="Name a new folder")
    if folder.is_mount():
        raise UsageError("A mount point cannot be replaced", file=folder, do="Name a new folder in it")
    names = {path.name for path in folder.iterdir()}
    try:
        own = {MANIFEST_FILE, *read_manifest(folder).fields["files"]} if names else names
    except IntegrityError:
        own = set()
    if names - own:
        raise UsageError(
            f"The folder is not empty and {min(names - own)!r} in it does not belong to a checkpoint",
            file=folder,
            do="Name a new folder",
        )


def _is_finite_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True
