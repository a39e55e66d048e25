"""Writing a manifest: each sound is read once, broken data are refused, and the folder appears whole or not at all."""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from repbench.audio.sound import inspect, sample_range
from repbench.corpora.contract import Corpus, Draft, Progress, Resample, Utterance
from repbench.corpora.faults import refuse_faults
from repbench.corpora.manifest.draft_checker import DraftChecker
from repbench.corpora.manifest.fingerprint import corpus_of, on_scales, samples_digest
from repbench.corpora.manifest.header import (
    HEADER_FILE,
    MANIFEST_FILE,
    SCHEMA,
    manifest_header,
    open_root,
    read_header,
    written_root,
)
from repbench.corpora.manifest.index import INDEX_FILE, remove_index
from repbench.corpora.manifest.lines import format_line
from repbench.corpora.manifest.reader import read
from repbench.corpora.safe_paths import RootFolder
from repbench.errors import DataError, UsageError
from repbench.files import TEMPORARY_PREFIX, atomic_write, environment_faults, write_json

_CHUNK = 1 << 20
"""Characters of the lines that are encoded at once."""


def write(
    draft: Draft,
    out: Path,
    *,
    resample: Resample = "allowed",
    progress: Progress | None = None,
    drop_faulty: int = 0,
    overwrite: bool = False,
) -> Corpus:
    """Read every sound of a draft, check its labels, and write the manifest folder `out`.

    A new folder appears whole or not at all; in one that is a manifest already, each file is replaced whole. Every
    utterance is checked before a fault is raised, so that all faults are reported together.

    Args:
        draft: The corpus as a layout describes it.
        out: The folder of the manifest. It may be an older manifest of the same corpus, empty, or hold the root of the
            corpus.
        resample: Whether the sound may be resampled to the rate of an upstream.
        progress: Called with (utterances read, all utterances).
        drop_faulty: The most faulty utterances that may be left out; `corpus.json` names each with the reason.
        overwrite: Whether the manifest of another corpus may be replaced.

    Returns:
        The corpus, as `read` would open it.

    Raises:
        UsageError: `out` holds other files, or the manifest of another corpus.
        DataError: A sound is missing or broken, an id occurs twice, the same sound is in two splits, an alignment
            contradicts its sound, a label is unknown, or a path leaves the root. Several faults are one error
            that counts them by kind and holds each in `faults`.
        IntegrityError: Features are truncated, have another size than their header states, or need code to load.
        EnvironmentFault: The disk is full or the folder may not be written to.
    """
    out = Path(os.path.abspath(out))  # noqa: PTH100 - collapses `..` as text, keeps links
    root = open_root(draft.root, follow_links=draft.follow_links)
    _refuse_other_folder(out, root.folder, draft.name, overwrite=overwrite)
    checker = DraftChecker(draft, root)
    utterances, features = checker.utterances(progress)
    # After every sound was read, so that all faults are reported together; before anything is written.
    refuse_faults(
        checker.faults, name=draft.name, num_utterances=checker.num_listed, root=draft.root, allowed=drop_faulty
    )
    label_sets = _label_sets(draft, utterances)
    header: dict[str, Any] = {
        "schema": SCHEMA,
        "name": draft.name,
        "licence": draft.licence,
        "root": written_root(root.folder, out),
        "label_sets": {kind: list(labels) for kind, labels in label_sets.items()},
        "phone_map": None if draft.phone_map is None else dict(sorted(draft.phone_map.items())),
        "resample": resample,
        "samples_sha256": samples_digest(utterances),
        # once each: an exported corpus brings notes on its sounds along
        "notes": list(dict.fromkeys([*draft.notes, *checker.notes(utterances)])),
        "tools": _tools(),
    }
    if features is not None:
        header["features"] = asdict(features)
    if draft.follow_links:
        header["links"] = "followed"
    if dropped := checker.dropped():
        header["dropped"] = dropped
    if draft.scales:
        header["scales"] = {name: float(middle) for name, middle in sorted(draft.scales.items())}
    _write_folder(out, "".join(_written_line(item, root) for item in utterances), header)
    return corpus_of(header, on_scales(utterances, header), label_sets)


def move(folder: Path, root: Path) -> Corpus:
    """Write the new root of the sounds into `corpus.json`, after every file has been found there.

    Args:
        folder: The folder of the manifest.
        root: The folder of the sounds now.

    Returns:
        The corpus; its fingerprint is unchanged.

    Raises:
        DataError: The folder is not a manifest; or a sound is missing under the new root, or has another rate or
            length than in the manifest. Nothing was written.
        EnvironmentFault: The manifest may not be written to.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - collapses `..` as text, keeps links
    header = read_header(folder)
    # `read` and the loop find every fault before the header is written
    corpus = read(folder, root=root)
    for utterance in corpus.utterances:
        _refuse_other_files(utterance)
    header["root"] = written_root(open_root(root).folder, folder)
    write_json(folder / HEADER_FILE, header)
    return corpus


def lines_digest(folder: Path) -> str | None:
    """SHA-256 of the lines of the manifest in a folder; None where it holds none."""
    path = folder / MANIFEST_FILE
    if manifest_header(folder) is None or not path.is_file():
        return None
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _label_sets(draft: Draft, utterances: Sequence[Utterance]) -> dict[str, tuple[str, ...]]:
    label_sets: dict[str, tuple[str, ...]] = {}
    met = {phone.label for utterance in utterances for phone in utterance.phones or ()}
    known = draft.phone_set
    if known is None and draft.phone_map is not None:
        # in any order; the set is sorted below
        known = tuple({label for label in draft.phone_map.values() if label is not None})
    if known is not None and met - set(known):
        what = f"The alignments have phones that the phone set does not know: {', '.join(sorted(met - set(known)))}"
        raise DataError(what, key="phone_set", do="Add them to the set")
    if known or met:
        label_sets["phones"] = tuple(sorted(set(known or met)))
    speakers = {utterance.speaker for utterance in utterances if utterance.speaker is not None}
    if speakers:
        label_sets["speakers"] = tuple(sorted(speakers))
    return label_sets


def _written_line(utterance: Utterance, root: RootFolder) -> str:
    features = None if utterance.features is None else root.relative(utterance.features, utterance=utterance.id)
    return format_line(utterance, root.relative(utterance.audio, utterance=utterance.id), features) + "\n"


def _tools() -> dict[str, str]:
    import soundfile

    return {
        "repbench": metadata.version("repbench"),
        "python": platform.python_version(),
        "soundfile": soundfile.__version__,
        "libsndfile": soundfile.__libsndfile_version__,
    }


def _refuse_other_folder(out: Path, root: Path, name: str, *, overwrite: bool) -> None:
    """Refuse a folder that holds anything but an older manifest of the corpus, or the corpus itself."""
    if not os.path.lexists(out):
        return
    if not out.is_dir():
        raise UsageError("The manifest is a folder, but this is not", file=out, key="--out", do="Choose another place")
    # unfinished files of a process that was killed do not count
    names = {path.name for path in out.iterdir() if not path.name.startswith(TEMPORARY_PREFIX)} - {INDEX_FILE}
    header = manifest_header(out)
    if header is not None:
        _refuse_other_corpus(header, out, root, name, overwrite=overwrite)
    elif root.is_relative_to(out):
        _refuse_foreign_files(names & {MANIFEST_FILE, HEADER_FILE}, out)
    elif names:
        what = "The folder is not empty and is not a manifest"
        raise UsageError(what, file=out, key="--out", do="Choose another place, or empty the folder")


def _refuse_other_corpus(header: Mapping[str, Any], out: Path, root: Path, name: str, *, overwrite: bool) -> None:
    """Refuse to replace the manifest of another corpus: one of another name, or of another root."""
    # by real paths, because one folder may be given by several names
    lies = Path(os.path.abspath(out / header["root"]))  # noqa: PTH100 - as above
    if overwrite or (header["name"] == name and os.path.realpath(lies) == os.path.realpath(root)):
        return
    what = f"The folder holds the manifest of another corpus, {header['name']} of {lies}"
    do = "Choose another --out, or replace it with --overwrite"
    raise UsageError(what, file=out, key="--out", do=do)


def _refuse_foreign_files(names: set[str], out: Path) -> None:
    """Refuse to replace a file of the corpus that has the name of a file of a manifest."""
    for name in sorted(names):
        what = f"The folder of the corpus has a file `{name}`, which the manifest would replace"
        raise UsageError(what, file=out / name, key="--out", do="Choose another place")


def _write_folder(out: Path, lines: str, header: Mapping[str, Any]) -> None:
    if out.exists():
        _fill(out, lines, header)
        return
    with environment_faults(out):
        # next to its place, because renaming is atomic within one file system only
        temporary = out.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
        temporary.mkdir(parents=True)
    try:
        _fill(temporary, lines, header)
        with environment_faults(out):
            temporary.rename(out)
    # an interrupt from the keyboard too
    except BaseException:
        shutil.rmtree(temporary)
        raise


def _fill(folder: Path, lines: str, header: Mapping[str, Any]) -> None:
    """Write the two files; the header comes last, because a folder that has one is a manifest."""
    # Over an older manifest, a reader between the two writes finds new lines under the old header, which
    # `samples_sha256` refuses where the sounds differ.
    with atomic_write(folder / MANIFEST_FILE) as stream:
        for start in range(0, len(lines), _CHUNK):  # not all of them a second time, as bytes
            stream.write(lines[start : start + _CHUNK].encode("utf-8"))
    remove_index(folder)
    write_json(folder / HEADER_FILE, header)


def _refuse_other_files(utterance: Utterance) -> None:
    """Refuse a sound whose header differs from the manifest, and missing features."""
    info = inspect(utterance.audio, utterance=utterance.id, channel=utterance.channel)
    first, last = sample_range(info, utterance.start, utterance.end, path=utterance.audio, utterance=utterance.id)
    found, expected = (last - first, info.sample_rate_hz), (utterance.num_samples, utterance.sample_rate_hz)
    do = "Give the folder that holds the same sounds, or prepare the corpus again"
    if found != expected:
        what = (
            f"The sound has {found[0]} samples at {found[1]} Hz, but the manifest has {expected[0]} at {expected[1]} Hz"
        )
        raise DataError(what, file=utterance.audio, utterance=utterance.id, do=do)
    if utterance.features is not None and not utterance.features.is_file():
        raise DataError("The file of features is missing", file=utterance.features, utterance=utterance.id, do=do)
