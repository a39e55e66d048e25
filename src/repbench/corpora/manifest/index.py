"""The index of a manifest: a file beside its lines from which a corpus is opened without parsing them.

The lines stay the source: an index is used if it was made of lines with the same SHA-256, under a header that lists the
same labels, features and sounds, by this version of the reader. Otherwise, and if it is damaged, it is made again.
Where the folder of the manifest may not be written to, the index lies in the cache folder; without that, in a temporary
file.

Every check of the lines is a function of the lines and the header, and held when the index was made. The paths of the
sounds depend on the disk, and are checked at each opening.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from repbench.corpora.manifest.fingerprint import fingerprint_start, portable_bytes
from repbench.corpora.manifest.index_file import MAGIC, DamagedIndexError, IndexFile, IndexWriter
from repbench.corpora.manifest.indexed import Columns, Texts
from repbench.corpora.manifest.indexing import IndexBuilder, hashes_digest, repeated_hashes
from repbench.corpora.manifest.lines import parse_line
from repbench.corpora.manifest.opening_checks import (
    refuse_leaks,
    refuse_no_lines,
    refuse_other_sounds,
    refuse_same_ids,
    refuse_undeclared_features,
    refuse_unlisted_labels,
)
from repbench.corpora.safe_paths import RootFolder
from repbench.errors import DataError, EnvironmentFault
from repbench.files import atomic_write, cache_dir, canonical_json, remove_abandoned

INDEX_FILE = "manifest.index"

SMALLEST_BYTES = 1 << 20
"""Lines of fewer bytes are parsed in a tenth of a second, and get no index."""

VERSION = 1
"""To be raised when a line is parsed to another utterance, is refused where it was not, or is stored otherwise."""

Say = Callable[[str], None]


class UnindexableError(Exception):
    """A number in the lines is larger than those of an index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestSource:
    """What a corpus is opened from.

    Attributes:
        lines: The file of the lines.
        header: The checked content of `corpus.json`.
        root: The folder of the sounds.
        say: Receives the note that an index was damaged.
    """

    lines: Path
    header: Mapping[str, Any]
    root: RootFolder
    say: Say

    @property
    def label_sets(self) -> dict[str, tuple[str, ...]]:
        """The label sets of the header."""
        return {kind: tuple(labels) for kind, labels in self.header["label_sets"].items()}

    @property
    def prefix(self) -> str:
        """The root, before the place of a sound."""
        return os.fspath(self.root.folder).rstrip("/") + "/"

    def facts(self, lines_sha256: str) -> dict[str, Any]:
        """What an index has to be made of."""
        read = {"label_sets": self.header["label_sets"], "samples_sha256": self.header["samples_sha256"]}
        header = canonical_json({**read, "features": self.header.get("features")})
        return {"version": VERSION, "lines_sha256": lines_sha256, "header_sha256": hashlib.sha256(header).hexdigest()}


def gets_index(source: ManifestSource) -> bool:
    """Whether the lines are many enough for an index.

    Raises:
        FileNotFoundError: There are no lines.
    """
    return source.lines.stat().st_size >= SMALLEST_BYTES


def open_columns(source: ManifestSource) -> tuple[Columns, str]:
    """The columns of a manifest and its fingerprint, from its index or, if there is none that fits, a new one.

    Raises:
        DataError: As `manifest.read`.
        FileNotFoundError: There are no lines.
        UnindexableError: No index can be made.
    """
    with source.lines.open("rb") as stream:
        wanted = source.facts(hashlib.file_digest(stream, "sha256").hexdigest())
    places = (source.lines.with_name(INDEX_FILE), cache_dir() / "manifests" / f"{wanted['lines_sha256']}.index")
    for place in places:
        try:
            file = IndexFile.open(place) if _is_ours(place) else None
            if file is not None and file.facts.items() >= wanted.items():
                fingerprint = file.text_fact("fingerprint")
                columns = Columns(file, source.prefix, lambda: _made_again(source, places, wanted))
                _refuse_outside(columns, source)
                return columns, fingerprint
        except OSError:
            continue  # one that may not be read is as good as none
        except (DamagedIndexError, ValueError) as error:  # the latter of bytes that are no UTF-8 or JSON
            source.say(f"note: the index {place} is damaged ({error}); it is not used, and made again")
            with contextlib.suppress(OSError):  # where it cannot be removed, another is made beside it
                place.unlink()
    return _made(source, places)


def remove_index(folder: Path) -> None:
    """Remove the index of the lines that a folder held before."""
    place = folder / INDEX_FILE
    if _is_ours(place):
        place.unlink(missing_ok=True)


def _is_ours(place: Path) -> bool:
    """Whether there is no file, or one that was written as an index."""
    try:
        with place.open("rb") as stream:
            return stream.read(len(MAGIC)) == MAGIC
    except FileNotFoundError:
        return not os.path.islink(place)  # noqa: PTH114 - as below
    except OSError:
        return False


def _made(source: ManifestSource, places: tuple[Path, ...]) -> tuple[Columns, str]:
    """A new index, at the first place that can be written to."""
    for place in filter(_is_ours, places):
        try:
            remove_abandoned(place.parent)
            with atomic_write(place) as stream:
                return _build(source, stream)
        except EnvironmentFault:
            continue
    with tempfile.TemporaryFile() as stream:
        return _build(source, stream)


def _made_again(source: ManifestSource, places: tuple[Path, ...], wanted: Mapping[str, Any]) -> IndexFile:
    """A new index in place of one of which a part that is read later turned out to be damaged."""
    source.say(f"note: the index of {source.lines} is damaged and is made again")
    file = _made(source, places)[0].file
    if not file.facts.items() >= wanted.items():
        do = "Start again"
        raise DataError("The manifest was changed after it had been opened", file=source.lines, do=do)
    return file


def _build(source: ManifestSource, stream: IO[bytes]) -> tuple[Columns, str]:
    """Parse and check all lines, and write the index."""
    writer = IndexWriter(stream)
    builder = IndexBuilder(writer, fingerprint_start(source.header))
    digest = hashlib.sha256()
    with source.lines.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            digest.update(line)
            if line.strip():
                parsed = parse_line(line.removesuffix(b"\n"), source.root, f"{source.lines}:{number}")
                try:
                    builder.add(number, parsed)
                except OverflowError as error:
                    raise UnindexableError from error
    refuse_no_lines(len(builder.ids), source.lines)
    refuse_same_ids(builder.ids, builder.numbers, source.lines)
    fingerprint = builder.write()
    del builder
    columns = Columns(writer.arrays(), source.prefix)
    _refuse_faults(columns, source)
    if fingerprint is None:
        hashed = fingerprint_start(source.header)
        for utterance in columns.utterances():
            hashed.update(portable_bytes(utterance))
        fingerprint = hashed.hexdigest()
    columns.file.facts = {**source.facts(digest.hexdigest()), "fingerprint": fingerprint}
    writer.finish(columns.file.facts)
    stream.flush()
    return columns, fingerprint


def _refuse_faults(columns: Columns, source: ManifestSource) -> None:
    """Refuse what `reader` refuses: looked for in whole columns, and named by the same functions."""

    repeated = repeated_hashes(columns.hashes)
    if len(repeated):
        refuse_leaks(columns.utterances_at(repeated.tolist()), source.lines)
    refuse_other_sounds(hashes_digest(columns.hashes), source.header, source.lines)
    listed = source.label_sets
    met = {"phones": columns.phone_labels, "speakers": columns.speakers}
    if any(set(labels).difference(listed.get(kind, ())) for kind, labels in met.items()):
        refuse_unlisted_labels(columns.utterances(), listed, source.lines)
    if columns.features is not None:
        refuse_undeclared_features(columns.utterances(), source.header, source.lines)


def _refuse_outside(columns: Columns, source: ManifestSource) -> None:
    """Refuse the first path that is not one under the root, or leaves the root by a link."""
    kinds = [columns.places, *([columns.features] if columns.features is not None else [])]
    doubtful = {(columns.line(row), row, kind) for kind, texts in enumerate(kinds) for row in _doubtful(texts, source)}
    for line, row, kind in sorted(doubtful):
        place = kinds[kind][row]
        if place or not kind:
            source.root.join(place, file=f"{source.lines}:{line}", utterance=columns.ids[row])


def _doubtful(texts: Texts, source: ManifestSource) -> Iterator[int]:
    """The rows of the places that need a look of their own; of most manifests there are none."""
    if any(sign in texts.content for sign in (b"..", b":", b"\0")):
        yield from range(len(texts))
        return
    yield from (texts.is_empty() | texts.starting_with(ord("/"))).nonzero()[0].tolist()
    counts = Counter(texts[row].rpartition("/")[0] for row in range(len(texts)))
    linked = {folder for folder, count in counts.items() if source.root.may_lead_out(folder, count)}
    if linked:
        yield from (row for row in range(len(texts)) if texts[row].rpartition("/")[0] in linked)
