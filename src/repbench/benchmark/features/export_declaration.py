"""The declaration of what `repbench extract` writes: `features.yaml`, so that the folder can be given as `features:`.

It has the name of the model and its fingerprint, by which the features of one model on several corpora are one system.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from repbench.errors import UsageError
from repbench.files import write_beside
from repbench.registry import short_name
from repbench.upstream.adapters.feature_folder import (
    DECLARATION_FILE,
    FolderDeclaration,
    VectorFolderDeclaration,
    read_folder_declaration,
)
from repbench.upstream.checkpoints.untrained import is_untrained
from repbench.upstream.contract import Upstream, UpstreamInfo, provenance_of
from repbench.upstream.training_data import UNKNOWN_DATA, TrainingData
from repbench.upstream.windowed import WindowedUpstream

_HEAD = "# Written by `repbench extract`; --upstream features:DIR reads the files of this folder.\n"


def name_of(upstream: Upstream, given: str | None, checkpoint: str | None) -> str:
    """The name that a declaration gives a model: as tables show it.

    Args:
        upstream: The model.
        given: Its name as it was given; None: that of its declaration.
        checkpoint: As it was given.
    """
    title = upstream.info.name if given is None else short_name(given)
    return f"{title} (untrained)" if _is_untrained(upstream, checkpoint) else title


def model_of(upstream: Upstream) -> str:
    """What identifies the model in a declaration: its fingerprint, and the windows that long sounds are read in."""
    windows = f", {upstream.windows.key()}" if isinstance(upstream, WindowedUpstream) else ""
    return f"{upstream.fingerprint()}{windows}"


def is_declared(upstream: Upstream, folder: Path, *, overwrite: bool) -> bool:
    """Whether a folder has a declaration that fits an upstream, and stays as it is: somebody may have added to it.

    Args:
        upstream: The model whose features are to be in the folder.
        folder: The folder, which may not be there.
        overwrite: Whether a declaration that does not fit may be replaced.

    Raises:
        UsageError: There is one of another model, other layers or other times, or one that is not valid; names the key.
    """
    file = folder / DECLARATION_FILE
    if not file.is_file():
        return False
    try:
        _refuse_other_features(upstream, read_folder_declaration(file), file)
    except UsageError:
        if not overwrite:
            raise
        return False
    return True


def _refuse_other_features(
    upstream: Upstream, declared: FolderDeclaration | VectorFolderDeclaration, file: Path
) -> None:
    own = {**_times(upstream.info), "layer_names": upstream.info.layer_names, "model": model_of(upstream)}
    found = {**_times(declared), "layer_names": declared.layer_names, "model": declared.model}
    for key, value in found.items():
        if value != own[key] and not (value is None and key in {"layer_names", "model"}):
            what = f"The files of this folder are declared with another `{key}` than {upstream.info.name} has"
            raise UsageError(what, file=file, key=key, do="Choose another --out, or give --overwrite")


def write_declaration(
    upstream: Upstream, folder: Path, *, given: str | None, checkpoint: str | None, overwrite: bool
) -> None:
    """Write the declaration of a folder, with a file for each list of speakers or digests of the training data.

    Args:
        upstream: That gave the features.
        folder: With the features.
        given: Name of the upstream as it was given; None: that of its declaration.
        checkpoint: As it was given.
        overwrite: Whether a file of other content may be replaced.

    Raises:
        UsageError: There is a file of other content.
    """
    info = upstream.info
    trained_on, lists = _training_data(upstream, checkpoint)
    keys: dict[str, Any] = {
        **({"kind": info.kind} if info.one_vector else {}),
        "name": name_of(upstream, given, checkpoint),
        "model": model_of(upstream),
        "sample_rate_hz": info.sample_rate_hz,
        **({} if info.one_vector else {name: getattr(info, name) for name in ("hop_samples", "first_center_samples")}),
        "layer_names": info.layer_names,
        **({"utterance_normalised": True} if info.utterance_normalised else {}),
        "citation": info.citation,
        "licence": info.licence,
        "trained_on": trained_on,
    }
    # JSON is YAML too, and quotes every text, so that no fingerprint is read as a number.
    text = _HEAD + "".join(f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in keys.items())
    for name, content in {**lists, DECLARATION_FILE: text}.items():
        write_beside(folder / name, content.encode("utf-8"), overwrite=overwrite)


def _times(declared: UpstreamInfo | FolderDeclaration | VectorFolderDeclaration) -> dict[str, Any]:
    """Kind and times, in seconds; those of other sample rates may be the same."""
    if isinstance(declared, VectorFolderDeclaration) or declared.kind == "utterance":
        return {"kind": "utterance", "hop_samples": None, "first_center_samples": None}
    rate_hz = declared.sample_rate_hz
    return {
        "kind": declared.kind,
        "hop_samples": declared.hop_samples / rate_hz,
        "first_center_samples": declared.first_center_samples / rate_hz,
    }


def _is_untrained(upstream: Upstream, checkpoint: str | None) -> bool:
    return is_untrained(checkpoint) or is_untrained(provenance_of(upstream).checkpoint)


def _training_data(upstream: Upstream, checkpoint: str | None) -> tuple[list[dict[str, Any]] | None, Mapping[str, str]]:
    """The key `trained_on`, and the contents of the files that it names."""
    provenance = provenance_of(upstream)
    declared = () if _is_untrained(upstream, checkpoint) else provenance.trained_on
    if declared is None and provenance.digests:  # hashes without names: what else there was is not known
        declared = (TrainingData(name="its checkpoint"), UNKNOWN_DATA)
        hashed = {0}
    else:
        hashed = {place for place, each in enumerate(declared or ()) if each.samples_sha256 is not None}
    if declared is None:
        return None, {}
    lists: dict[str, str] = {}

    def kept(name: str, lines: frozenset[str]) -> str:
        lists[name] = "".join(f"{line}\n" for line in sorted(lines))
        return name

    def entry(place: int, data: TrainingData) -> Iterator[tuple[str, Any]]:
        yield "name", data.name
        if data.splits:
            yield "splits", list(data.splits)
        if data.speakers is not None:
            yield "speakers", kept(f"features.speakers-{place + 1}.txt", data.speakers)
        if place in hashed:
            # An upstream knows the digests of all entries together.
            yield "samples_sha256", kept("features.heard.txt", provenance.digests)
        if data.source is not None:
            yield "source", data.source

    return [dict(entry(place, data)) for place, data in enumerate(declared)], lists
