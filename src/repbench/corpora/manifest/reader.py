"""Opening a manifest: every claim that can be checked without decoding sound is checked."""

from __future__ import annotations

import contextlib
import gc
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from repbench.corpora.contract import Corpus, Utterance
from repbench.corpora.faults import leaks
from repbench.corpora.manifest.fingerprint import corpus_of, samples_digest
from repbench.corpora.manifest.header import HEADER_FILE, MANIFEST_FILE, open_root, read_header
from repbench.corpora.manifest.lines import ManifestLine, parse_line
from repbench.corpora.safe_paths import RootFolder
from repbench.errors import DataError


def read(folder: Path, *, root: Path | None = None) -> Corpus:
    """Open a manifest. No sound is decoded; a missing sound is refused where it is used.

    Args:
        folder: The folder of the manifest.
        root: The folder of the sounds, if they were moved; None for the one in `corpus.json`.

    Raises:
        DataError: The folder is not a manifest, a line is wrong (names file, line and utterance), a place leads out of
            the root, an id or a sound occurs twice, or the root is gone.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - collapses `..` as text, keeps links
    header = read_header(folder)
    sounds = open_root(folder / header["root"] if root is None else root, follow_links="links" in header)
    utterances = _read_lines(folder / MANIFEST_FILE, sounds)
    if samples_digest(utterances) != header["samples_sha256"]:
        what = f"`{MANIFEST_FILE}` does not list the sounds of `{HEADER_FILE}`"
        raise DataError(what, file=folder / MANIFEST_FILE, key="samples_sha256", do="Prepare the corpus again")
    label_sets = {kind: tuple(labels) for kind, labels in header["label_sets"].items()}
    _refuse_unlisted_labels(utterances, label_sets, folder / MANIFEST_FILE)
    _refuse_undeclared_features(utterances, header, folder / MANIFEST_FILE)
    return corpus_of(header, utterances, label_sets)


def _read_lines(path: Path, root: RootFolder) -> tuple[Utterance, ...]:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        do = "Make one with `repbench corpus prepare`"
        raise DataError(f"The folder is not a manifest: it has no `{MANIFEST_FILE}`", file=path, do=do) from error
    with _collector_paused():
        parsed = [
            parse_line(line, root, f"{path}:{number}")
            # bytes at "\n" alone: `str.splitlines` would also split at the separators that a text in JSON may hold
            for number, line in enumerate(content.split(b"\n"), start=1)
            if line.strip()
        ]
    if not parsed:
        raise DataError("The manifest lists no utterance", file=path, do="Prepare the corpus again")
    _refuse_same_ids(parsed)
    # by id, in the order of code points, on which the fingerprint depends
    utterances = tuple(sorted((line.utterance for line in parsed), key=lambda utterance: utterance.id))
    for leak in leaks(utterances):
        raise DataError(leak.what, file=path, utterance=leak.utterance, do="Prepare the corpus again")
    return utterances


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """A block without garbage collection: it makes millions of objects without a cycle."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _refuse_same_ids(lines: Sequence[ManifestLine]) -> None:
    counts = Counter(line.utterance.id for line in lines)
    for line in lines:
        if counts[line.utterance.id] > 1:
            places = ", ".join(other.where for other in lines if other.utterance.id == line.utterance.id)
            what = f"The id `{line.utterance.id}` occurs {counts[line.utterance.id]} times: {places}"
            do = "Give every utterance a unique id; ids that differ only in Unicode form are one"
            raise DataError(what, file=line.where, utterance=line.utterance.id, do=do)


def _refuse_unlisted_labels(
    utterances: Iterable[Utterance], label_sets: Mapping[str, tuple[str, ...]], file: Path
) -> None:
    phones, speakers = set(label_sets.get("phones", ())), set(label_sets.get("speakers", ()))
    for utterance in utterances:
        unknown = sorted({phone.label for phone in utterance.phones or ()} - phones)
        if utterance.speaker is not None and utterance.speaker not in speakers:
            unknown.append(utterance.speaker)
        if unknown:
            what = f"Labels that `label_sets` of `{HEADER_FILE}` does not list: {', '.join(unknown)}"
            raise DataError(what, file=file, utterance=utterance.id, do="Prepare the corpus again")


def _refuse_undeclared_features(utterances: Iterable[Utterance], header: Mapping[str, Any], file: Path) -> None:
    having = next((utterance for utterance in utterances if utterance.features is not None), None)
    if having is not None and "features" not in header:
        what = f"The utterance has features, but `{HEADER_FILE}` does not declare them"
        raise DataError(what, file=file, utterance=having.id, key="features", do="Prepare the corpus again")
