"""A guard before HDF5: what a file holds is judged before any library reads it.

HDF5 is a file system in a file. It can point at other files (external links, external storage, virtual datasets), name
one object twice, and declare arrays far larger than itself. None of that stands in a file of labels, so `check_hdf5`
refuses it. The walk opens an object only after the link to it has been judged, and reads no value of any dataset.

libhdf5 itself is trusted to parse the structure of a file, but for one part: its reader of the heap that holds strings
of variable length (2.0.0 was tried) never returns from an object whose size is wrong, so the heap is walked here first.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from pathlib import Path
from typing import Any, NoReturn

from repbench.errors import DataError, EnvironmentFault, IntegrityError
from repbench.other_files import other_file

MAX_FILE_BYTES = 1 << 30
"""A file larger than this is refused: the labels of the largest known corpus take some megabytes."""

MAX_LINKS = 500_000
"""Links of a file, which is also the most objects it can hold."""

MAX_DEPTH = 16
"""Groups within groups; a computational sequence has three."""

INSTALL = "Run: pip install 'repbench[mosi]'"

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HEAP_SIGNATURE = b"GCOL"
_HEAP_HEAD = struct.Struct("<4sB3xQ")  # signature, version, bytes of the collection
_HEAP_OBJECT = struct.Struct("<HxxxxxxQ")  # index, bytes of the object
_SHOWN_CHARACTERS = 120
_WRITE_AGAIN = "Fetch the file again from its source, or write it again as plain arrays"


def check_hdf5(path: Path) -> None:
    """Refuse a HDF5 file that is not plain groups and plain arrays, each once, all of them in the file itself.

    Accepted are hard links, groups, and datasets and attributes of integers, floats and strings. Data must be
    unfiltered, as mmsdk writes it, so that all arrays together declare no more bytes than the file has. A string of
    variable length may be as long as the file: the number of them in one array, times the size of the file, is held
    to `MAX_FILE_BYTES`.

    Args:
        path: The file.

    Raises:
        IntegrityError: The file is not HDF5, is broken, or holds an external, soft or user-defined link, external
            storage, a virtual dataset, a filter, a type other than those above, more bytes than it has, an object
            under two names (a cycle included), or too many or too deeply nested objects. Names file and object.
        DataError: There is no such file.
        EnvironmentFault: h5py is not installed, or the file may not be read.
    """
    h5py = _import_h5py()
    size = _plain_size(path)
    _check_string_heaps(path)
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fapl_sec2()  # never a driver that reads several files
    inspection = _Inspection(h5py, path, size)
    try:
        file = h5py.h5f.open(os.fsencode(path), h5py.h5f.ACC_RDONLY, fapl=access)
        try:
            if file.get_create_plist().get_sizes() != (8, 8):
                raise IntegrityError("The HDF5 file has addresses of another size than 64 bits", file=path)
            inspection.judge(h5py.h5o.open(file, b"/"), "/", depth=0)
        finally:
            file.close()
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError) as error:
        what = f"The HDF5 file is broken: libhdf5 cannot read `{inspection.current}`"
        raise IntegrityError(what, file=path, do=_WRITE_AGAIN) from error


class _Inspection:
    """One walk through a file of `size` bytes. `current` is the object that is being judged."""

    def __init__(self, h5py: Any, path: Path, size: int) -> None:
        self._h5py = h5py
        self._path = path
        self._size = size
        self._declared_bytes = 0
        self._num_links = 0
        self._seen: set[tuple[int, int]] = set()
        self.current = "/"

    def judge(self, item: Any, name: str, *, depth: int) -> None:
        """Judge an opened object and all that hangs from it."""
        h5py = self._h5py
        self.current = _shown(name)
        info = h5py.h5o.get_info(item)
        place = (info.fileno, info.addr)
        if place in self._seen:
            self._refuse("stands there under two names, or holds itself")
        self._seen.add(place)
        for index in range(info.num_attrs):
            self._judge_attribute(h5py.h5a.open(item, index=index))
        if isinstance(item, h5py.h5d.DatasetID):
            self._judge_dataset(item)
        elif isinstance(item, h5py.h5g.GroupID):
            self._judge_members(item, name, depth + 1)
        else:
            self._refuse("is neither a group nor a dataset")

    def _judge_members(self, group: Any, name: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            self._refuse(f"is nested more than {MAX_DEPTH} groups deep")
        for member, link_type in self._links(group):
            path = f"{name.rstrip('/')}/{member.decode('utf-8', 'surrogateescape')}"
            self.current = _shown(path)
            if link_type == self._h5py.h5l.TYPE_EXTERNAL:
                self._refuse("is an external link: it leads to another file")
            if link_type == self._h5py.h5l.TYPE_SOFT:
                self._refuse("is a soft link")
            if link_type != self._h5py.h5l.TYPE_HARD:
                self._refuse("is a link of an unknown kind")
            self.judge(self._h5py.h5o.open(group, member), path, depth=depth)

    def _links(self, group: Any) -> list[tuple[bytes, int]]:
        """The names and kinds of a group's links, none of them followed."""
        links: list[tuple[bytes, int]] = []

        def note(name: bytes, info: Any) -> bool:
            links.append((name, info.type))
            return self._num_links + len(links) > MAX_LINKS

        group.links.iterate(note, info=True)
        self._num_links += len(links)
        if self._num_links > MAX_LINKS:
            self._refuse(f"brings the file to more than {MAX_LINKS} links")
        return links

    def _judge_dataset(self, dataset: Any) -> None:
        creation = dataset.get_create_plist()
        layout = creation.get_layout()
        # Both before the extent is asked for: that of a virtual dataset is found by opening its sources.
        if layout == self._h5py.h5d.VIRTUAL:
            self._refuse("is a virtual dataset: its values lie in other datasets")
        if creation.get_external_count():
            self._refuse("is stored externally: its values lie in another file")
        if creation.get_nfilters():
            self._refuse("is compressed or filtered, and could unpack to any size")
        num_items = dataset.get_space().get_simple_extent_npoints()
        if layout == self._h5py.h5d.CHUNKED and num_items:
            num_items = max(num_items, math.prod(creation.get_chunk()))
        self._judge_values(dataset.get_type(), num_items)

    def _judge_attribute(self, attribute: Any) -> None:
        self._judge_values(attribute.get_type(), attribute.get_space().get_simple_extent_npoints())

    def _judge_values(self, kind: Any, num_items: int) -> None:
        h5t = self._h5py.h5t
        if kind.get_class() not in (h5t.INTEGER, h5t.FLOAT, h5t.STRING):
            self._refuse("is, or has an attribute, of a type other than integers, floats and strings")
        if kind.get_class() == h5t.STRING and kind.is_variable_str() and num_items * self._size > MAX_FILE_BYTES:
            self._refuse(f"holds {num_items} strings of unbounded length")
        self._declared_bytes += num_items * kind.get_size()
        if self._declared_bytes > self._size:
            self._refuse(f"brings what the file declares to {self._declared_bytes} bytes, but it has {self._size}")

    def _refuse(self, what: str) -> NoReturn:
        raise IntegrityError(f"The object `{self.current}` {what}", file=self._path, do=_WRITE_AGAIN)


def _plain_size(path: Path) -> int:
    """The size of a file that starts like HDF5."""
    if not path.is_file():
        raise DataError("The HDF5 file is missing, or is no file", file=path, do="Check its place")
    try:
        with path.open("rb") as stream:
            head = stream.read(64)
    except PermissionError as error:
        raise EnvironmentFault("The HDF5 file may not be read", file=path, do="Check its permissions") from error
    if not head.startswith(_SIGNATURE):
        found = other_file(head)
        if found is not None and not head.startswith(_SIGNATURE[:4]):  # one that a transfer as text has damaged
            raise IntegrityError(f"This is {found.name}, where HDF5 is expected", file=path, do=found.do)
        what = "The file is empty" if not head else "The file is not HDF5: it does not start with HDF5's signature"
        raise IntegrityError(what, file=path, do=_WRITE_AGAIN)
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        what = f"The HDF5 file has {size} bytes, but at most {MAX_FILE_BYTES} are read"
        raise IntegrityError(what, file=path, do="Give the file that holds labels only")
    return size


def _check_string_heaps(path: Path) -> None:
    """Walk everything in the file that could be a global heap collection (HDF5 File Format Specification, III.E)."""
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        place = data.find(_HEAP_SIGNATURE)
        while place >= 0:
            if not _is_sound_heap(data, place):
                what = f"The HDF5 file is broken: the heap of strings at byte {place} contradicts itself"
                raise IntegrityError(what, file=path, do=_WRITE_AGAIN)
            place = data.find(_HEAP_SIGNATURE, place + 1)


def _is_sound_heap(data: mmap.mmap, start: int) -> bool:
    """Whether the objects of a collection follow one another to its end; the object 0 is its free space.

    What has no room for a head, or another version, is none: libhdf5 does not read it as one.
    """
    if start + _HEAP_HEAD.size > len(data):
        return True
    _, version, num_bytes = _HEAP_HEAD.unpack_from(data, start)
    if version != 1:
        return True
    position, end = start + _HEAP_HEAD.size, start + num_bytes
    if end > len(data):
        return False
    while end - position >= _HEAP_OBJECT.size:
        index, size = _HEAP_OBJECT.unpack_from(data, position)
        taken = size if index == 0 else _HEAP_OBJECT.size + (size + 7) // 8 * 8
        if not _HEAP_OBJECT.size <= taken <= end - position:
            return False
        position += taken
    return True


def _shown(name: str) -> str:
    return name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}…"


def _import_h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise EnvironmentFault(f"h5py cannot be imported: {error}", do=INSTALL) from error
    return h5py
