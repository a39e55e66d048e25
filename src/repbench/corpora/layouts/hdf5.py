"""A check of HDF5 files before any library reads their data.

HDF5 is a file system in a file. It can point at other files (external links, external storage, virtual datasets), name
one object twice, and declare arrays far larger than itself. A file of labels needs none of that, so `check_hdf5`
refuses it. The walk opens an object only after the link to it has been judged.

Labels are distributed packed: CMU's own writer passes them through gzip. libhdf5 unpacks a chunk to whatever its stream
holds, not to what the dataset declares, so that the declared shape alone bounds nothing. The sizes are therefore
compared first, and then each chunk is unpacked here, up to its declared size and no further.

libhdf5 itself is trusted to parse the structure of a file, but for one part: its reader of the heap that holds strings
of variable length (2.0.0 was tried) never returns from an object whose size is wrong, so the heap is walked here first.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
import zlib
from collections.abc import Sequence
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

MAX_UNPACKED_BYTES = 1 << 28
"""The most bytes of all arrays of a file once unpacked: over 200 times the labels of CMU-MOSEI's 23,259 segments."""

MAX_RATIO = 100
"""The most times its stored bytes that a packed array may declare: the labels of CMU-MOSI reach 2, zeros 1,000."""

SMALL_BYTES = 1 << 16
"""Up to this size an array may be packed at any ratio: a few equal numbers in a chunk of HDF5's own choice are."""

MAX_CHUNKS = 500_000
"""Packed chunks of a file: each is unpacked on its own, and libhdf5 takes some microseconds for even an empty one."""

INSTALL = "Run: pip install 'repbench[mosi]'"

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HEAP_SIGNATURE = b"GCOL"
_HEAP_HEAD = struct.Struct("<4sB3xQ")  # signature, version, bytes of the collection
_HEAP_OBJECT = struct.Struct("<HxxxxxxQ")  # index, bytes of the object
_GZIP, _SHUFFLE, _FLETCHER32 = 1, 2, 3
_FILTERS = {_GZIP: "gzip", _SHUFFLE: "shuffle", _FLETCHER32: "fletcher32"}
"""The filters that every HDF5 brings, by their numbers in the format; szip, nbit and scaleoffset are not among them."""

_CHECKSUM_BYTES = 4  # of fletcher32
_SHOWN_CHARACTERS = 120
_WRITE_AGAIN = "Fetch the file again from its source, or write it again as plain arrays"
_UNPACK = "Write it again as plain arrays: h5repack -f NONE IN.csd OUT.csd"


def check_hdf5(path: Path) -> None:
    """Refuse a HDF5 file that is not plain groups and plain arrays, each once, all of them in the file itself.

    Accepted are hard links, groups, and datasets and attributes of integers, floats and strings. All arrays without a
    filter together declare no more bytes than the file has. A string of variable length may be as long as the file:
    the number of them in one array, times the size of the file, is held to `MAX_FILE_BYTES`.

    Of filters, those that come with every HDF5 are accepted, each at most once in a dataset: gzip, shuffle and
    fletcher32. Together these datasets unpack to at most `MAX_UNPACKED_BYTES`, and one larger than `SMALL_BYTES` to at
    most `MAX_RATIO` times the bytes that it takes in the file. Nothing is unpacked before that is known, and then every
    chunk must unpack to exactly the size that its dataset declares.

    Args:
        path: The file.

    Raises:
        IntegrityError: The file is not HDF5, is broken, or holds an external, soft or user-defined link, external
            storage, a virtual dataset, another filter, a type other than those above, more bytes than it has or may
            unpack to, a chunk that contradicts itself, an object under two names (a cycle included), or too many or
            too deeply nested objects. Names file and object.
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
        self._unpacked_bytes = 0
        self._num_chunks = 0
        self._num_links = 0
        self._seen: set[tuple[int, int]] = set()
        self.current = "/"

    def judge(self, item: Any, name: str, *, depth: int) -> None:
        """Judge an opened object and all that hangs from it."""
        h5py = self._h5py
        self.current = _shown(name)
        info = h5py.h5o.get_info(item)
        place = (info.fileno, info.addr)
        # file and address are the identity of an object: two names of one are hard links, and a cycle is one of these
        if place in self._seen:
            self._refuse("has two names, or holds itself")
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
        # Names and kinds first: opening an external or soft link would already follow it.
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
        # Both before the extent is read: libhdf5 opens the sources of a virtual dataset to find it.
        if layout == self._h5py.h5d.VIRTUAL:
            self._refuse("is a virtual dataset: its values are in other datasets")
        if creation.get_external_count():
            self._refuse("is stored externally: its values are in another file")
        filters = self._filters(creation)
        num_items = dataset.get_space().get_simple_extent_npoints()
        if filters and layout != self._h5py.h5d.CHUNKED:
            self._refuse("is packed, but not in chunks")
        if layout == self._h5py.h5d.CHUNKED and num_items:
            # libhdf5 allocates whole chunks, even for an array that fills a part of one
            num_items = max(num_items, math.prod(creation.get_chunk()))
        self._judge_type(dataset.get_type(), num_items)
        if filters:
            self._judge_packed(dataset, filters, num_items)
        else:
            self._judge_size(dataset.get_type(), num_items)

    def _filters(self, creation: Any) -> tuple[int, ...]:
        """The filters that a dataset's chunks have passed, in the order in which they packed; each of them is known."""
        filters: list[int] = []
        for index in range(creation.get_nfilters()):
            code, _, _, name = creation.get_filter(index)
            if code not in _FILTERS:
                called = f"`{_shown(name.decode('utf-8', 'replace'))}`, number {code}" if name else f"number {code}"
                self._refuse(f"is packed by the filter {called}; gzip, shuffle and fletcher32 alone are read", _UNPACK)
            if code in filters:
                self._refuse(f"passes the filter {_FILTERS[code]} twice", _UNPACK)
            filters.append(code)
        return tuple(filters)

    def _judge_packed(self, dataset: Any, filters: tuple[int, ...], num_items: int) -> None:
        """Compare what a packed dataset declares with what it stores; only then unpack it, chunk by chunk."""
        item_bytes = dataset.get_type().get_size()
        chunk_bytes = math.prod(dataset.get_create_plist().get_chunk()) * item_bytes
        stored = dataset.get_storage_size()
        if stored > self._size:
            self._refuse(f"stores {stored} bytes, but the file has {self._size}")
        num_chunks = dataset.get_num_chunks()
        self._num_chunks += num_chunks
        if self._num_chunks > MAX_CHUNKS:
            self._refuse(f"brings the file to more than {MAX_CHUNKS} packed chunks", _UNPACK)
        # by its extent, or by the chunks that are there, which may lie outside the extent
        unpacked = max(num_items * item_bytes, num_chunks * chunk_bytes)
        if unpacked > SMALL_BYTES and unpacked > MAX_RATIO * stored:
            self._refuse(
                f"is packed: it declares {unpacked} bytes, but stores {stored}, and at most {MAX_RATIO} times as many "
                "are unpacked",
                _UNPACK,
            )
        self._unpacked_bytes += unpacked
        if self._unpacked_bytes > MAX_UNPACKED_BYTES:
            self._refuse(
                f"is packed: it brings what the file unpacks to to {self._unpacked_bytes} bytes, but at most "
                f"{MAX_UNPACKED_BYTES} are unpacked",
                _UNPACK,
            )
        self._judge_chunks(dataset, filters, chunk_bytes)

    def _judge_chunks(self, dataset: Any, filters: tuple[int, ...], chunk_bytes: int) -> None:
        places: list[tuple[int, ...]] = []
        dataset.chunk_iter(lambda chunk: places.append(chunk.chunk_offset))
        for place in places:
            filter_mask, chunk = dataset.read_direct_chunk(place)  # the bits of the filters that it has not passed
            applied = [code for bit, code in enumerate(filters) if not filter_mask >> bit & 1]
            if _unpacked_size(chunk, applied, chunk_bytes) != chunk_bytes:
                self._refuse("is broken: a chunk does not unpack to the size that is declared")
        if _FLETCHER32 in filters:
            self._h5py.Dataset(dataset)[()]  # libhdf5 compares the checksums

    def _judge_attribute(self, attribute: Any) -> None:
        kind, num_items = attribute.get_type(), attribute.get_space().get_simple_extent_npoints()
        self._judge_type(kind, num_items)
        self._judge_size(kind, num_items)

    def _judge_type(self, kind: Any, num_items: int) -> None:
        h5t = self._h5py.h5t
        if kind.get_class() not in (h5t.INTEGER, h5t.FLOAT, h5t.STRING):
            self._refuse("is, or has an attribute, of a type other than integers, floats and strings")
        if kind.get_class() == h5t.STRING and kind.is_variable_str() and num_items * self._size > MAX_FILE_BYTES:
            self._refuse(f"holds {num_items} strings of unbounded length")

    def _judge_size(self, kind: Any, num_items: int) -> None:
        self._declared_bytes += num_items * kind.get_size()
        if self._declared_bytes > self._size:
            self._refuse(f"brings what the file declares to {self._declared_bytes} bytes, but it has {self._size}")

    def _refuse(self, what: str, do: str = _WRITE_AGAIN) -> NoReturn:
        raise IntegrityError(f"The object `{self.current}` {what}", file=self._path, do=do)


def _unpacked_size(chunk: bytes, filters: Sequence[int], most_bytes: int) -> int:
    """To how many bytes a chunk that has passed `filters` unpacks: not `most_bytes` where it is broken or too large."""
    size = len(chunk)
    # The filter that packed last unpacks first; shuffle moves bytes and changes no size.
    for code in reversed(filters):
        if code == _FLETCHER32:
            size -= _CHECKSUM_BYTES  # the checksum follows the data
        elif code == _GZIP:
            size = _inflated_size(chunk[: max(size, 0)], most_bytes + _CHECKSUM_BYTES)
    return size


def _inflated_size(packed: bytes, most_bytes: int) -> int:
    """To how many bytes a zlib stream inflates, `most_bytes` + 1 if to more; -1 where it is broken or does not end."""
    stream = zlib.decompressobj()
    try:
        # one more than allowed is enough to know that it is too large
        size = len(stream.decompress(packed, most_bytes + 1))
    except zlib.error:
        return -1
    return size if size > most_bytes or stream.eof else -1


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
        # an object is padded to 8 bytes; the size of the free space includes its head
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
