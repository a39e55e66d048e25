"""Opening a manifest: every claim that can be checked without decoding sound is checked."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator
from pathlib import Path

from repbench.corpora.contract import Corpus, Utterance
from repbench.corpora.manifest.fingerprint import corpus_of, on_scales, samples_digest, scales_of
from repbench.corpora.manifest.header import MANIFEST_FILE, open_root, read_header
from repbench.corpora.manifest.index import ManifestSource, Say, UnindexableError, gets_index, open_columns
from repbench.corpora.manifest.lines import parse_line
from repbench.corpora.manifest.opening_checks import (
    refuse_leaks,
    refuse_no_lines,
    refuse_other_sounds,
    refuse_same_ids,
    refuse_undeclared_features,
    refuse_unlisted_labels,
)
from repbench.errors import DataError


def read(folder: Path, *, root: Path | None = None, say: Say = lambda line: None) -> Corpus:
    """Open a manifest. No sound is decoded; a missing sound is refused where it is used.

    Args:
        folder: The folder of the manifest.
        root: The folder of the sounds, if they were moved; None for the one in `corpus.json`.
        say: Receives a note if the index of the manifest was damaged.

    Raises:
        DataError: The folder is not a manifest, a line is wrong (names file, line and utterance), a place leads out of
            the root, an id or a sound occurs twice, or the root is gone.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - collapses `..` as text, keeps links
    header = read_header(folder)
    sounds = open_root(folder / header["root"] if root is None else root, follow_links="links" in header)
    source = ManifestSource(lines=folder / MANIFEST_FILE, header=header, root=sounds, say=say)
    try:
        if gets_index(source):
            with contextlib.suppress(UnindexableError):
                return _read_index(source)
        return _read_lines(source)
    except FileNotFoundError as error:
        do = "Make one with `repbench corpus prepare`"
        what = f"The folder is not a manifest: it has no `{MANIFEST_FILE}`"
        raise DataError(what, file=source.lines, do=do) from error


def _read_index(source: ManifestSource) -> Corpus:
    columns, fingerprint = open_columns(source)
    with _collector_paused():
        utterances = columns.utterances()
    columns.scales = scales_of(source.header, utterances[0])
    return corpus_of(source.header, utterances, source.label_sets, fingerprint)


def _read_lines(source: ManifestSource) -> Corpus:
    path, header = source.lines, source.header
    content = path.read_bytes()
    with _collector_paused():
        # bytes at "\n" alone: `str.splitlines` would also split at the separators that a text in JSON may hold
        numbered = [(number, line) for number, line in enumerate(content.split(b"\n"), start=1) if line.strip()]
        parsed = [parse_line(line, source.root, f"{path}:{number}").utterance for number, line in numbered]
    refuse_no_lines(len(parsed), path)
    refuse_same_ids([utterance.id for utterance in parsed], [number for number, _ in numbered], path)
    # by id, in the order of code points, on which the fingerprint depends
    utterances: tuple[Utterance, ...] = tuple(sorted(parsed, key=lambda utterance: utterance.id))
    refuse_leaks(utterances, path)
    refuse_other_sounds(samples_digest(utterances), header, path)
    refuse_unlisted_labels(utterances, source.label_sets, path)
    refuse_undeclared_features(utterances, header, path)
    return corpus_of(header, on_scales(utterances, header), source.label_sets)


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
