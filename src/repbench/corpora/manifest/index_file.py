"""The index of a manifest as a file: named arrays, each with its SHA-256, and a table of them at the end.

    magic | bytes of the arrays, one after the other | table as JSON | its size, 8 bytes | its SHA-256, 32 bytes

The table also holds facts about what the index was made of. Digests show damage; they do not show who wrote the file:
whoever reads an index decides by the facts whether it fits, and checks what would be dangerous if it were forged.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import weakref
from collections.abc import Mapping
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from repbench.files import canonical_json

MAGIC = b"repbench.manifest-index\n"
DTYPES = ("u1", "i1", "<i4", "<i8", "<f8")
_MOST_TABLE_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 20


class DamagedIndexError(Exception):
    """The file is cut, changed or no index."""


class IndexSection(NamedTuple):
    """The place of an array in the file."""

    dtype: str
    offset: int
    num_bytes: int
    sha256: str


class IndexWriter:
    """Writes arrays into a new file.

    Args:
        stream: Of the file, at its start.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.sections: dict[str, IndexSection] = {}
        self._stream = stream
        self._offset = stream.write(MAGIC)
        self._open = (self._offset, hashlib.sha256())

    def append(self, content: bytes) -> None:
        """Write bytes of an array that grows; `close_section` gives it its name."""
        self._open[1].update(content)
        self._offset += self._stream.write(content)

    def close_section(self, name: str, dtype: str) -> None:
        """End the array that was appended to."""
        offset, digest = self._open
        self.sections[name] = IndexSection(dtype, offset, self._offset - offset, digest.hexdigest())
        self._open = (self._offset, hashlib.sha256())

    def add(self, name: str, values: NDArray[Any] | bytes, dtype: str) -> None:
        """Write a whole array."""
        self.append(values if isinstance(values, bytes) else values.astype(dtype, copy=False).tobytes())
        self.close_section(name, dtype)

    def arrays(self) -> IndexFile:
        """What has been written, to be read."""
        self._stream.flush()
        return IndexFile(os.dup(self._stream.fileno()), self.sections, {})

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Write the table; without it the file is no index."""
        table = canonical_json({"facts": facts, "sections": self.sections})
        self._stream.write(table + struct.pack("<Q", len(table)) + hashlib.sha256(table).digest())


class IndexFile:
    """An open index. It stays readable when another file takes its name.

    Args:
        descriptor: Of the file; it is closed with the object.
        sections: The arrays.
        facts: What `IndexWriter.finish` was given.
    """

    def __init__(self, descriptor: int, sections: Mapping[str, IndexSection], facts: Mapping[str, Any]) -> None:
        self.facts = facts
        self._descriptor = descriptor
        self._sections = sections
        weakref.finalize(self, os.close, descriptor)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> IndexFile:
        """Open a file and check its table.

        Raises:
            OSError: There is none, or it may not be read.
            DamagedIndexError: It is no index, or its table is damaged.
        """
        descriptor = os.open(path, os.O_RDONLY)
        try:
            table = _table(descriptor)
            sections = _sections(table)
            facts: dict[str, Any] = table["facts"]
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor, sections, facts)

    def text_fact(self, name: str) -> str:
        """A fact that is a text.

        Raises:
            DamagedIndexError: It is not there.
        """
        fact = self.facts.get(name)
        if not isinstance(fact, str):
            raise DamagedIndexError(f"it has no `{name}`")
        return fact

    def __contains__(self, name: str) -> bool:
        return name in self._sections

    def section(self, name: str, dtype: str) -> IndexSection:
        """The place of an array.

        Raises:
            DamagedIndexError: There is none of that name and type.
        """
        section = self._sections.get(name)
        if section is None or section.dtype != dtype:
            raise DamagedIndexError(f"it has no `{name}` of {dtype}")
        return section

    def array(self, name: str, dtype: str) -> NDArray[Any]:
        """A whole array, its digest checked.

        Raises:
            DamagedIndexError: It is not there, is of another type, or has another digest.
        """
        section = self.section(name, dtype)
        content = self.read(section.offset, section.num_bytes)
        if hashlib.sha256(content).hexdigest() != section.sha256:
            raise DamagedIndexError(f"`{name}` has another SHA-256")
        return np.frombuffer(content, dtype=section.dtype)

    def check(self, name: str) -> IndexSection:
        """Check the digest of an array that is too large to be kept, and give its place.

        Raises:
            DamagedIndexError: The digest differs.
        """
        section, digest = self.section(name, "u1"), hashlib.sha256()
        for start in range(0, section.num_bytes, _CHUNK_BYTES):
            digest.update(self.read(section.offset + start, min(_CHUNK_BYTES, section.num_bytes - start)))
        if digest.hexdigest() != section.sha256:
            raise DamagedIndexError(f"`{name}` has another SHA-256")
        return section

    def read(self, offset: int, num_bytes: int) -> bytes:
        """Bytes of the file.

        Raises:
            DamagedIndexError: The file ends before.
        """
        content = os.pread(self._descriptor, num_bytes, offset)
        while content and len(content) < num_bytes:  # one call reads 2 GiB at most
            more = os.pread(self._descriptor, num_bytes - len(content), offset + len(content))
            if not more:
                break
            content += more
        if len(content) < num_bytes:
            raise DamagedIndexError("it is cut")
        return content


def _table(descriptor: int) -> dict[str, Any]:
    """The checked table at the end of a file, with `end`: where it begins."""
    size = os.fstat(descriptor).st_size
    if os.pread(descriptor, len(MAGIC), 0) != MAGIC:
        raise DamagedIndexError("it does not begin like an index")
    end = os.pread(descriptor, 40, max(0, size - 40))
    table_bytes = struct.unpack("<Q", end[:8])[0] if len(end) == 40 else size
    if table_bytes > min(size - len(MAGIC) - 40, _MOST_TABLE_BYTES):
        raise DamagedIndexError("it is cut")
    content = os.pread(descriptor, table_bytes, size - 40 - table_bytes)
    if hashlib.sha256(content).digest() != end[8:]:
        raise DamagedIndexError("its table has another SHA-256")
    try:
        table: object = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedIndexError("its table is no JSON") from error
    if not isinstance(table, dict) or not isinstance(table.get("facts"), dict):
        raise DamagedIndexError("its table is of another form")
    return {**table, "end": size - 40 - table_bytes}


def _sections(table: dict[str, Any]) -> dict[str, IndexSection]:
    """The sections of a table, one after the other and without a gap: none is larger than the file."""
    listed = table.get("sections")
    if not isinstance(listed, dict):
        raise DamagedIndexError("its table is of another form")
    sections, reach = {}, len(MAGIC)
    for name, fields in listed.items():
        is_section = isinstance(fields, list) and [type(each) for each in fields] == [str, int, int, str]
        if not is_section or fields[0] not in DTYPES or fields[2] < 0 or fields[2] % np.dtype(fields[0]).itemsize:
            raise DamagedIndexError("its table is of another form")
        sections[name] = IndexSection(*fields)
    for section in sorted(sections.values(), key=lambda each: (each.offset, each.num_bytes)):
        if section.offset != reach:
            raise DamagedIndexError("its sections leave a gap")
        reach += section.num_bytes
    if reach != table["end"]:
        raise DamagedIndexError("its sections leave a gap")
    return sections
