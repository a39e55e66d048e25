"""The two file formats of `torch.save`, checked byte by byte before torch reads them.

A zip has a CRC for every member. In the older form only lengths can be checked; a file `NAME.sha256` next to it proves
that no bit has changed.
"""

from __future__ import annotations

import hashlib
import io
import mmap
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeGuard

from repbench.errors import UsageError
from repbench.other_files import other_file
from repbench.upstream.checkpoints.safe_unpickle.judge import (
    PLAIN_ONLY,
    RefusedError,
    StorageSketch,
    corrupt,
    shown,
)
from repbench.upstream.checkpoints.safe_unpickle.machine import PickleMachine

MAX_MEMBERS: Final = 100_000
"""Most members of a zip: one for each storage and a few more."""

_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the older form starts with this pickled number
_VERSION = 1001
_ZIP_MAGIC = b"PK\x03\x04"
_DIRECTORY_ENTRY = b"PK\x01\x02"
_END = struct.Struct("<4s12xIH")  # signature, offset of the directory, length of the comment
_LOCATOR64 = struct.Struct("<4s4xQ4x")  # signature, offset of the record below
_END64 = struct.Struct("<4s44xQ")  # signature, offset of the directory
_ZIP_FAULTS = (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError, OSError, struct.error)
_CHUNK_BYTES = 1 << 20

_RIGHT_FILE = "Give the checkpoint itself, or fetch it again: the file in its place may hold the reason"


def opened(path: Path) -> io.BufferedReader:
    if not path.exists():
        raise UsageError("There is no such checkpoint", file=path, key="--checkpoint", do="Check the path")
    if not path.is_file():
        what = "folder" if path.is_dir() else "special file"
        raise RefusedError(f"The checkpoint is a {what}, not a file", "Give the file itself")
    return path.open("rb")


def is_zip(head: bytes) -> bool:
    """Whether a file with these first bytes is a zip (True) or of the older form (False).

    Raises:
        RefusedError: It is neither.
    """
    if not head:
        raise corrupt("it is empty")
    if not head.strip(b"\0"):
        raise corrupt("it starts with zeros")
    # A pickle can be crafted to pass as a tar too, and torch tries the tar first.
    if (head.startswith(_MAGIC) or head.startswith(_ZIP_MAGIC)) and not _is_tar(head):
        return head.startswith(_ZIP_MAGIC)
    if _MAGIC.startswith(head) or _ZIP_MAGIC.startswith(head):
        raise corrupt(f"it ends after {len(head)} bytes")
    raise RefusedError(f"The checkpoint is {_other_file(head)}", _RIGHT_FILE)


def _other_file(head: bytes) -> str:
    if _is_tar(head):
        return "a tar file"
    if head[8:10] == b'{"':
        return "a safetensors file, which this reader does not read"
    if head.startswith(b"\x80"):
        return "a pickle that torch.save did not write"
    found = other_file(head)
    if found is not None:
        return found.name
    is_text = not any(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in head)
    return "a text file" if is_text else "not a file that torch.save wrote"


def _is_tar(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def check_digest(path: Path, stream: io.BufferedReader) -> None:
    """Compare the file with the digest in `NAME.sha256` in the same folder, if that exists.

    Raises:
        RefusedError: They differ, or the second file holds no SHA-256.
    """
    sidecar = path.with_name(f"{path.name}.sha256")
    if not sidecar.is_file():
        return
    with sidecar.open("rb") as lines:
        words = lines.read(1024).decode("ascii", "replace").split()
    expected = words[0].lower() if words else ""
    if len(expected) != 64 or set(expected) - set("0123456789abcdef"):
        raise RefusedError(f"{sidecar.name}, next to the checkpoint, holds no SHA-256", "Write it again with sha256sum")
    stream.seek(0)
    found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != expected:
        raise corrupt(f"SHA-256 mismatch: {sidecar.name} gives {expected[:12]}…, but the file has {found[:12]}…")


# The zip form.


def check_zip(stream: io.BufferedReader, size: int) -> None:
    """Check every byte that torch would read from a zip, and the sizes that its pickle declares.

    Args:
        stream: The file.
        size: Its bytes.

    Raises:
        RefusedError: It is damaged, needs code, or declares more than it holds.
    """
    # Counted in the raw bytes, because zipfile makes an object for each declared member before anything can be checked.
    if _count(stream, _DIRECTORY_ENTRY) > MAX_MEMBERS:
        raise corrupt(f"it declares more than {MAX_MEMBERS} members")
    try:
        with zipfile.ZipFile(stream) as archive:
            members = _sound_members(archive, size)
            _check_directory(stream, size, archive.start_dir)
            _check_crcs(archive)
            pickle = archive.read(members["data.pkl"])
    except _ZIP_FAULTS as error:
        raise corrupt(f"it is not a whole zip ({shown(error)})") from error
    # Sizes after content: the machine lists the storages that the pickle declares, without allocating one.
    machine = PickleMachine(io.BytesIO(pickle))
    content = machine.run()
    machine.judge(content, len(pickle), size)
    for key, storage in machine.storages.items():
        member = members.get(f"data/{key}")
        if member is None or member.file_size != storage.num_bytes:
            held = "is missing" if member is None else f"has {member.file_size} bytes"
            raise corrupt(f"storage {shown(key)} declares {storage.num_bytes} bytes, but its member {held}")


def _sound_members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The members of the one folder in the archive, by their names in it.

    torch ignores case when it finds a member, so names that differ only in case count as the same.
    """
    infos = archive.infolist()
    root = infos[0].filename.partition("/")[0] + "/" if infos else ""
    members = {info.filename.removeprefix(root): info for info in infos}
    if "constants.pkl" in members:
        raise RefusedError("The checkpoint is a TorchScript program, not weights", PLAIN_ONLY)
    if "data.pkl" not in members:
        raise RefusedError("The checkpoint is a zip that torch.save did not write: it has no data.pkl", _RIGHT_FILE)
    if len({info.filename.lower() for info in infos}) != len(infos):
        raise corrupt("it holds two members of the same name")
    for info in infos:
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.compress_size != info.file_size:
            raise corrupt(f"member {shown(info.filename)} is compressed or encrypted, which torch.save never does")
        if not info.filename.startswith(root) or info.filename != info.orig_filename:
            raise corrupt(f"member {shown(info.filename)} is outside of the folder {shown(root)}")
    declared = sum(info.file_size for info in infos)
    if declared > size:
        raise corrupt(f"its members declare {declared} bytes, but the file has {size}")
    return members


def _check_directory(stream: io.BufferedReader, size: int, start: int) -> None:
    """Check that Python and torch read the same directory of the zip.

    Python finds it from the end of the file, torch by its offset: a crafted file could show each another one. torch
    writes zip64 records whatever the size.

    Args:
        stream: The file.
        size: Its bytes.
        start: Offset of the directory that Python found.
    """
    end = size - _END.size
    signature, offset, comment = _END.unpack(read_at(stream, end, _END.size))
    is_sound = signature == b"PK\x05\x06" and comment == 0
    if is_sound and end >= _LOCATOR64.size + _END64.size:
        locator64, place64 = _LOCATOR64.unpack(read_at(stream, end - _LOCATOR64.size, _LOCATOR64.size))
        if locator64 == b"PK\x06\x07":
            end64 = end - _LOCATOR64.size - _END64.size
            signature64, offset = _END64.unpack(read_at(stream, end64, _END64.size))
            is_sound = signature64 == b"PK\x06\x06" and place64 == end64
    if not is_sound or offset != start:
        raise corrupt("the directory of the zip is not at its declared offset")


def _check_crcs(archive: zipfile.ZipFile) -> None:
    for info in archive.infolist():
        try:
            with archive.open(info) as member:
                while member.read(_CHUNK_BYTES):
                    pass
        except zipfile.BadZipFile as error:
            if "CRC" not in str(error):
                raise
            raise corrupt(f"CRC mismatch in {shown(info.filename)}") from error


# The older form: four pickles, a list of storages, and their bytes one after the other.


def check_older_form(stream: io.BufferedReader, size: int) -> None:
    """Check the declarations of the pickles, and compare them to the byte with the storages that follow.

    Args:
        stream: The file.
        size: Its bytes.

    Raises:
        RefusedError: It is cut or too long, needs code, or its parts do not fit each other.
    """
    with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        data.seek(len(_MAGIC))
        version, system = PickleMachine(data).run(), PickleMachine(data).run()
        if version != _VERSION or not isinstance(system, dict):
            raise corrupt("its header is not one that torch.save writes")
        if not system.get("little_endian"):
            raise RefusedError("The checkpoint was written on a big-endian machine", PLAIN_ONLY)
        start = data.tell()
        machine = PickleMachine(data)
        content = machine.run()
        machine.judge(content, data.tell() - start, size)
        keys = PickleMachine(data).run()
        if not _names_each_once(keys, machine.storages):
            raise corrupt("its list of storages differs from those of its tensors")
        end = data.tell()
        for key in keys:
            storage = machine.storages[key]
            # Each storage: its number of values in 8 bytes, then the values.
            if int.from_bytes(data[end : end + 8], "little") != storage.numel:
                raise corrupt(f"storage {shown(key)} should have {storage.numel} values, but is missing or another")
            end += 8 + storage.num_bytes
    if end != size:
        raise corrupt(f"its storages need {end} bytes, but the file has {size}")


def _names_each_once(keys: object, storages: Mapping[str, StorageSketch]) -> TypeGuard[list[str]]:
    return (
        isinstance(keys, list)
        and len(keys) == len(storages)
        and all(isinstance(key, str) for key in keys)
        and set(keys) == set(storages)
    )


def read_at(stream: io.BufferedReader, offset: int, num_bytes: int) -> bytes:
    stream.seek(offset)
    return stream.read(num_bytes)


def _count(stream: io.BufferedReader, needle: bytes) -> int:
    """Occurrences of `needle` in the file, read in chunks."""
    stream.seek(0)
    total, tail = 0, b""
    while chunk := stream.read(_CHUNK_BYTES):
        total += (tail + chunk).count(needle)
        # One byte fewer than the needle: a match across two chunks counts, and none counts twice.
        tail = chunk[1 - len(needle) :]
    return total
