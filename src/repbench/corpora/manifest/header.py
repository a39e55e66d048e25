"""`corpus.json`, the header of a manifest, and the root folder it names.

A manifest is a folder with `corpus.json` (name, licence, root, label sets, versions of tools) and `manifest.jsonl` (one
utterance a line, its sound by a path relative to the root).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from repbench.corpora.manifest.feature_column import fault_of_declaration
from repbench.corpora.manifest.lines import is_attribute, strict_json
from repbench.corpora.safe_paths import RootFolder, is_encodable
from repbench.errors import DataError

SCHEMA = "repbench.corpus/1"
MANIFEST_FILE = "manifest.jsonl"
HEADER_FILE = "corpus.json"

_HEADER_TYPES: dict[str, type | tuple[type, ...]] = {
    "schema": str,
    "name": str,
    "licence": str,
    "root": str,
    "label_sets": dict,
    "phone_map": (dict, type(None)),
    "resample": str,
    "samples_sha256": str,
    "notes": list,
    "tools": dict,
    "features": dict,
    "links": str,
    "dropped": dict,
    "scales": dict,
}
_OPTIONAL = {"features", "links", "dropped", "scales"}


def manifest_header(folder: Path) -> dict[str, Any] | None:
    """The content of the `corpus.json` of a folder; None where the folder holds no manifest."""
    try:
        return read_header(folder)
    except DataError:
        return None


def read_header(folder: Path) -> dict[str, Any]:
    """The content of the `corpus.json` of a folder.

    Raises:
        DataError: The file is missing, not JSON, or has an unknown, missing or wrong key; names the key.
    """
    path = folder / HEADER_FILE
    try:
        header = strict_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        do = "Make one with `repbench corpus prepare`"
        raise DataError(f"The folder is not a manifest: it has no `{HEADER_FILE}`", file=folder, do=do) from error
    except ValueError as error:
        raise DataError(f"This is not valid JSON: {error}", file=path, do="Prepare the corpus again") from error
    _refuse_header(header, path)
    checked: dict[str, Any] = header
    return checked


def _refuse_header(header: Any, path: Path) -> None:
    def fault(what: str, key: str) -> DataError:
        return DataError(what, file=path, key=key, do="Prepare the corpus again")

    # The schema first: of another version, no other message would mean anything.
    if not isinstance(header, dict) or header.get("schema") != SCHEMA:
        raise fault(f"`schema` must be `{SCHEMA}`", "schema")
    # unknown keys, and known ones that are missing and not optional
    for key in sorted((set(header) ^ set(_HEADER_TYPES)) - (_OPTIONAL - set(header))):
        raise fault(f"Unknown key `{key}`" if key in header else f"`{key}` is missing", key)
    for key, kind in _HEADER_TYPES.items():
        if key in header and not isinstance(header[key], kind):
            raise fault(f"`{key}` has the wrong type, {type(header[key]).__name__}", key)
    if header["resample"] not in ("allowed", "refused"):
        raise fault("`resample` must be `allowed` or `refused`", "resample")
    if "features" in header and (wrong := fault_of_declaration(header["features"])) is not None:
        raise fault(f"`features`: {wrong}", "features")
    for name, middle in header.get("scales", {}).items():
        if not is_attribute(name, middle) or isinstance(middle, str):
            raise fault(f"`scales.{name}` must be the finite number in the middle of the scale", "scales")
    if not all(isinstance(note, str) for note in header["notes"]):
        raise fault("`notes` must be a list of strings", "notes")
    if header.get("links", "followed") != "followed":
        raise fault("`links` must be `followed`, or left out", "links")
    if not all(isinstance(reason, str) for reason in header.get("dropped", {}).values()):
        raise fault("`dropped` must give a reason for each utterance", "dropped")
    for kind, labels in header["label_sets"].items():
        is_text = isinstance(labels, list) and all(isinstance(label, str) for label in labels)
        if not is_text or labels != sorted(set(labels)):
            raise fault(f"`label_sets.{kind}` must be a sorted list of strings, each of them once", "label_sets")


def open_root(folder: Path, *, follow_links: bool = False) -> RootFolder:
    """The root folder of the sounds.

    Raises:
        DataError: There is no such folder.
    """
    if not os.path.isdir(folder):  # noqa: PTH112 - `Path.is_dir` raises at names that no file system takes
        do = "Give the folder of the sounds as `root`, or prepare the corpus again"
        raise DataError("The root folder of the corpus does not exist", file=folder, do=do)
    return RootFolder(folder, follow_links=follow_links)


def written_root(root: Path, out: Path) -> str:
    """The root as written in `corpus.json`: relative if it is inside the folder of the manifest, so that both move.

    Raises:
        DataError: The name of the folder is not valid UTF-8.
    """
    text = root.relative_to(out).as_posix() if root.is_relative_to(out) else str(root)
    if not is_encodable(text):
        raise DataError("The name of the root folder is not valid UTF-8", file=root, do="Rename it")
    return text
