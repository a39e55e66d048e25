"""Checkpoints that `torch.save` wrote elsewhere, read without running any code that stands in them.

A checkpoint holds a pickle, and a pickle is a program: it may call what it likes and ask for any amount of memory. So
the program is first followed by `_Machine`, which builds a sketch of the content, calls nothing and allocates no
tensor. The sketch is judged and compared with the bytes that are in the file; only what passes goes to torch's own
reader of weights, which again knows no more than the few harmless names below.

The container is either a zip, which has a CRC for every member, or the older form without one, in which only lengths
can be checked. For that one, a file `NAME.sha256` beside it is the proof that no bit has changed.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import math
import mmap
import os
import pickletools
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeGuard

import torch
from torch import Tensor

from repbench.errors import EnvironmentFault, IntegrityError, UsageError
from repbench.other_files import other_file

MAX_INSTRUCTIONS: Final = 1_000_000
"""Instructions of a pickle. A tensor takes about forty, so this is a model of 8,000 tensors with its Adam state."""

MAX_MEMBERS: Final = 100_000
"""Members of a zip: one for each tensor and a few more."""

MAX_DEPTH: Final = 64
"""Containers within containers."""

_MAX_ALIASES = 4
"""How often, on average, the values of a checkpoint may appear in it under another name (tied weights are two)."""

_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # what the older form starts with: a pickled number
_VERSION = 1001
_ZIP_MAGIC = b"PK\x03\x04"
_DIRECTORY_ENTRY = b"PK\x01\x02"
_END = struct.Struct("<4s12xIH")  # signature, offset of the directory, length of the comment
_LOCATOR64 = struct.Struct("<4s4xQ4x")  # signature, offset of the record below
_END64 = struct.Struct("<4s44xQ")  # signature, offset of the directory
_ZIP_FAULTS = (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError, OSError, struct.error)
_CHUNK_BYTES = 1 << 20
_SHOWN_CHARACTERS = 120

_STORAGES = {
    f"torch {name}Storage": itemsize
    for name, itemsize in {
        "Half": 2, "BFloat16": 2, "Float": 4, "Double": 8, "Char": 1, "Byte": 1, "Bool": 1, "Short": 2, "Int": 4,
        "Long": 8, "ComplexFloat": 8, "ComplexDouble": 16,
    }.items()
}  # fmt: skip
_ORDERED = "collections OrderedDict"
_NAMESPACE = "argparse Namespace"
_INERT = (
    "mockingjay.optimization WarmupLinearSchedule",
    "utility.timer Timer",
    "optimizers WarmupLinearSchedule",
)
_KINDS_OF_TENSOR = {
    "torch._utils _rebuild_sparse_tensor": "sparse",
    "torch._utils _rebuild_qtensor": "quantized",
    "torch._utils _rebuild_meta_tensor_no_storage": "meta",
    "torch._utils _rebuild_nested_tensor": "nested",
}
_SCALARS = (type(None), bool, int, float, str)
_WEIGHTS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

_FETCH = "Fetch the file again from its source, or use an older copy"
_RIGHT_FILE = "Give the checkpoint itself, or fetch it again: what was saved in its place may say why"
_PLAIN_ONLY = "Save the weights as a plain state dict of tensors where the file was made; only plain values are read"


class _RefusedError(Exception):
    """A fault whose file is named where it is caught."""

    def __init__(self, what: str, do: str) -> None:
        super().__init__(what)
        self.what = what
        self.do = do


def read_pickle(path: Path) -> dict[str, Any]:
    """What `torch.save` wrote, in its zip or its older form, read without running any code in it.

    An `argparse.Namespace` becomes a dict of its attributes, and so do the timer and the schedules that Mockingjay and
    s3prl left in their checkpoints. If a file `NAME.sha256` lies beside it, the bytes must have that digest.

    Args:
        path: The file.

    Returns:
        The outermost dict: None, bool, int, float, str, list, tuple, dict and strided tensors on the CPU, nothing else.

    Raises:
        UsageError: There is no such file.
        IntegrityError: The file is empty, cut, damaged or something else; needs code to be read; holds a value other
            than those above; or declares more than it holds. Names the file and the place in it.
        EnvironmentFault: The file cannot be read, or does not fit into memory.
    """
    try:
        with _opened(path) as stream:
            size = stream.seek(0, io.SEEK_END)
            zipped = _is_zip(_read_at(stream, 0, 1024))
            _check_digest(path, stream)
            (_check_zip if zipped else _check_older_form)(stream, size)
            stream.seek(0)
            content: dict[str, Any] = _plain(_load(stream))
    except _RefusedError as refusal:
        raise IntegrityError(refusal.what, file=path, do=refusal.do) from refusal
    except MemoryError as error:
        do = "Free memory, or use a machine that has more"
        raise EnvironmentFault("The checkpoint does not fit into memory", file=path, do=do) from error
    except OSError as error:
        what = f"The checkpoint cannot be read: {os.strerror(error.errno or 0)}"
        raise EnvironmentFault(what, file=path, do="Check its permissions and the disk") from error
    return content


def check_weights(state: Mapping[str, object], *, file: Path) -> dict[str, Tensor]:
    """The weights of a state dict, after torch would have cast or accepted what is none.

    Args:
        state: Tensors of any shape by their names; float16, bfloat16, float32 or float64, strided.
        file: Where they come from, for the error.

    Returns:
        Contiguous float32 copies, in the same order.

    Raises:
        IntegrityError: A value is no tensor, a tensor of another kind, or not finite in float32. Names file and key.
    """
    weights = {}
    for key, value in state.items():
        fault = _fault_of_weight(key, value)
        if fault is None:
            assert isinstance(value, Tensor)
            weights[key] = value.detach().to(torch.float32, copy=True).contiguous()
            if not bool(weights[key].isfinite().all()):
                fault = "holds NaN or infinity, or what float32 cannot hold"
        if fault is not None:
            do = "Use a checkpoint from before the weights were lost, or one that holds weights only"
            raise IntegrityError(f"The weight `{_shown(key)}` {fault}", file=file, key=_shown(key), do=do)
    return weights


def _fault_of_weight(key: object, value: object) -> str | None:
    if not isinstance(key, str):
        return f"must be named by a str, but is named by a {type(key).__name__}"
    if not isinstance(value, Tensor):
        return f"must be a tensor, but is a {type(value).__name__}"
    if value.layout != torch.strided or value.is_quantized or value.is_meta:
        return "must be a strided tensor that holds its values"
    if value.dtype not in _WEIGHTS:
        return f"must be of floating point, but is {str(value.dtype).removeprefix('torch.')}"
    return None


# The file and what it is.


def _opened(path: Path) -> io.BufferedReader:
    if not path.exists():
        raise UsageError("There is no such checkpoint", file=path, key="--checkpoint", do="Check the path")
    if not path.is_file():
        what = "folder" if path.is_dir() else "special file"
        raise _RefusedError(f"The checkpoint is a {what}, not a file", "Give the file itself")
    return path.open("rb")


def _is_zip(head: bytes) -> bool:
    """Whether the file is a zip rather than of the older form; refused if it is neither."""
    if not head:
        raise _corrupt("it is empty")
    if not head.strip(b"\0"):
        raise _corrupt("it starts with zeros")
    # A pickle may be made to look like a tar as well, and torch would try the tar first.
    if (head.startswith(_MAGIC) or head.startswith(_ZIP_MAGIC)) and not _is_tar(head):
        return head.startswith(_ZIP_MAGIC)
    if _MAGIC.startswith(head) or _ZIP_MAGIC.startswith(head):
        raise _corrupt(f"it ends after {len(head)} bytes")
    raise _RefusedError(f"The checkpoint is {_other_file(head)}", _RIGHT_FILE)


def _other_file(head: bytes) -> str:
    if _is_tar(head):
        return "a tar file"
    if head[8:10] == b'{"':
        return "a safetensors file, which this reader does not know"
    if head.startswith(b"\x80"):
        return "a pickle that torch.save did not write"
    found = other_file(head)
    if found is not None:
        return found.name
    is_text = not any(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in head)
    return "a text file" if is_text else "no file that torch.save wrote"


def _is_tar(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _check_digest(path: Path, stream: io.BufferedReader) -> None:
    """Compare the bytes with `NAME.sha256` beside the file, if there is one."""
    sidecar = path.with_name(f"{path.name}.sha256")
    if not sidecar.is_file():
        return
    with sidecar.open("rb") as lines:
        words = lines.read(1024).decode("ascii", "replace").split()
    expected = words[0].lower() if words else ""
    if len(expected) != 64 or set(expected) - set("0123456789abcdef"):
        raise _RefusedError(f"{sidecar.name} beside the checkpoint holds no SHA-256", "Write it again with sha256sum")
    stream.seek(0)
    found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != expected:
        raise _corrupt(f"SHA-256 mismatch: {sidecar.name} says {expected[:12]}…, but the file has {found[:12]}…")


# The zip form.


def _check_zip(stream: io.BufferedReader, size: int) -> None:
    """Judge every byte that torch would read of a zip, and what its pickle declares."""
    if _count(stream, _DIRECTORY_ENTRY) > MAX_MEMBERS:
        raise _corrupt(f"it declares more than {MAX_MEMBERS} members")
    try:
        with zipfile.ZipFile(stream) as archive:
            members = _sound_members(archive, size)
            _check_directory(stream, size, archive.start_dir)
            _check_crcs(archive)
            pickle = archive.read(members["data.pkl"])
    except _ZIP_FAULTS as error:
        raise _corrupt(f"it is no whole zip ({_shown(error)})") from error
    machine = _Machine(io.BytesIO(pickle))
    content = machine.run()
    machine.judge(content, len(pickle), size)
    for key, storage in machine.storages.items():
        member = members.get(f"data/{key}")
        if member is None or member.file_size != storage.num_bytes:
            held = "is missing" if member is None else f"has {member.file_size} bytes"
            raise _corrupt(f"storage {_shown(key)} declares {storage.num_bytes} bytes, but its member {held}")


def _sound_members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The members of the one folder in the archive, by their names in it.

    torch finds a member without regard to case, so two that differ in it only are the same to it.
    """
    infos = archive.infolist()
    root = infos[0].filename.partition("/")[0] + "/" if infos else ""
    members = {info.filename.removeprefix(root): info for info in infos}
    if "constants.pkl" in members:
        raise _RefusedError("The checkpoint is a TorchScript program, not weights", _PLAIN_ONLY)
    if "data.pkl" not in members:
        raise _RefusedError("The checkpoint is a zip that torch.save did not write: it has no data.pkl", _RIGHT_FILE)
    if len({info.filename.lower() for info in infos}) != len(infos):
        raise _corrupt("it holds two members of the same name")
    for info in infos:
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.compress_size != info.file_size:
            raise _corrupt(f"member {_shown(info.filename)} is compressed or encrypted, which torch.save never does")
        if not info.filename.startswith(root) or info.filename != info.orig_filename:
            raise _corrupt(f"member {_shown(info.filename)} lies outside of the folder {_shown(root)}")
    declared = sum(info.file_size for info in infos)
    if declared > size:
        raise _corrupt(f"its members declare {declared} bytes, but the file has {size}")
    return members


def _check_directory(stream: io.BufferedReader, size: int, start: int) -> None:
    """Python finds the directory of a zip from its end, torch by its offset: both must be at the same place.

    Else each could be shown another file. torch writes the records for 64 bits (zip64) whatever the size.
    """
    end = size - _END.size
    signature, offset, comment = _END.unpack(_read_at(stream, end, _END.size))
    is_sound = signature == b"PK\x05\x06" and comment == 0
    if is_sound and end >= _LOCATOR64.size + _END64.size:
        locator64, place64 = _LOCATOR64.unpack(_read_at(stream, end - _LOCATOR64.size, _LOCATOR64.size))
        if locator64 == b"PK\x06\x07":
            end64 = end - _LOCATOR64.size - _END64.size
            signature64, offset = _END64.unpack(_read_at(stream, end64, _END64.size))
            is_sound = signature64 == b"PK\x06\x06" and place64 == end64
    if not is_sound or offset != start:
        raise _corrupt("the directory of the zip is not where it says")


def _check_crcs(archive: zipfile.ZipFile) -> None:
    for info in archive.infolist():
        try:
            with archive.open(info) as member:
                while member.read(_CHUNK_BYTES):
                    pass
        except zipfile.BadZipFile as error:
            if "CRC" not in str(error):
                raise
            raise _corrupt(f"CRC mismatch in {_shown(info.filename)}") from error


# The older form: four pickles, a list of storages, and their bytes one after the other.


def _check_older_form(stream: io.BufferedReader, size: int) -> None:
    """Judge what the pickles declare, and compare it to the byte with what follows them."""
    with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        data.seek(len(_MAGIC))
        version, system = _Machine(data).run(), _Machine(data).run()
        if version != _VERSION or not isinstance(system, dict):
            raise _corrupt("its header is not one that torch.save writes")
        if not system.get("little_endian"):
            raise _RefusedError("The checkpoint was written on a big-endian machine", _PLAIN_ONLY)
        start = data.tell()
        machine = _Machine(data)
        content = machine.run()
        machine.judge(content, data.tell() - start, size)
        keys = _Machine(data).run()
        if not _names_each_once(keys, machine.storages):
            raise _corrupt("its list of storages is not that of its tensors")
        end = data.tell()
        for key in keys:
            storage = machine.storages[key]
            if int.from_bytes(data[end : end + 8], "little") != storage.numel:
                raise _corrupt(f"storage {_shown(key)} should have {storage.numel} values, but is missing or another")
            end += 8 + storage.num_bytes
    if end != size:
        raise _corrupt(f"its storages need {end} bytes, but the file has {size}")


def _names_each_once(keys: object, storages: Mapping[str, _Storage]) -> TypeGuard[list[str]]:
    return (
        isinstance(keys, list)
        and len(keys) == len(storages)
        and all(isinstance(key, str) for key in keys)
        and set(keys) == set(storages)
    )


# The machine that follows a pickle, and what it sketches.


@dataclass(frozen=True)
class _Global:
    """A class or function, by its module and name as they stand in the pickle."""

    name: str

    @property
    def known(self) -> bool:
        return self.name in _KNOWN


@dataclass(frozen=True)
class _UnknownObject:
    """Whatever an unknown class or function would have made."""

    name: str


@dataclass(frozen=True)
class _Storage:
    """The values that tensors view."""

    kind: str
    numel: int

    @property
    def num_bytes(self) -> int:
        return self.numel * _STORAGES[self.kind]


@dataclass(frozen=True)
class _TensorSketch:
    """A strided tensor of `num_bytes`, if it were laid out; `fault` says why it does not fit its storage."""

    num_bytes: int
    fault: str | None


class _Ordered(dict[Any, Any]):
    """An `OrderedDict`."""


class _Attributes(dict[str, Any]):
    """An instance of a known inert class."""


class _Machine:
    """Follows one pickle as torch's reader would, with sketches in the place of tensors and foreign objects.

    Wherever the two could see a program differently, this one refuses it.

    Args:
        stream: Bytes, placed at the start of the pickle; left behind its end. Not a file, which would allocate as
            much as a length in the pickle declares.
    """

    def __init__(self, stream: io.BytesIO | mmap.mmap) -> None:
        self.storages: dict[str, _Storage] = {}
        self._stream = stream
        self._stack: list[Any] = []
        self._outer_stacks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._foreign: list[str] = []
        self._unusual: str | None = None

    def run(self) -> object:
        """What the pickle would build.

        Raises:
            _RefusedError: It is cut, malformed, too long, or uses an instruction that torch.save does not write.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # `genops` warns of a name with a backslash
                self._follow()
            (result,) = self._stack
        except (ValueError, IndexError, KeyError, TypeError, OverflowError, Warning) as error:
            raise self._refused_or(_corrupt(f"its pickle is malformed ({_shown(error)})")) from error
        if self._outer_stacks:
            raise _corrupt("its pickle ends within a mark")
        if self._unusual is not None and not self._foreign:
            raise self._refused_instruction(self._unusual)
        return result

    def judge(self, content: object, pickle_bytes: int, file_bytes: int) -> None:
        """Refuse what is not a dict of plain values and fitting tensors, or needs code."""
        declared = sum(storage.num_bytes for storage in self.storages.values())
        if declared > file_bytes:
            raise _corrupt(f"its tensors declare {declared} bytes, but the file has {file_bytes}")
        _Judge(_MAX_ALIASES * pickle_bytes, _MAX_ALIASES * file_bytes).visit(content, ())
        if self._foreign:
            raise _needs_code(self._foreign[0], ())
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
            what = f"The outermost value must be a dict with names as keys, but is a {_type_name(content)}"
            raise _RefusedError(what, _PLAIN_ONLY)

    def _follow(self) -> None:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(self._stream)):  # type: ignore[arg-type]
            if count >= MAX_INSTRUCTIONS:
                raise _corrupt(f"its pickle has more than {MAX_INSTRUCTIONS} instructions")
            self._step(opcode.name, argument)

    def _step(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self._stack.append(argument)
        elif name in _FRESH:
            self._stack.append(_FRESH[name]())
        elif name in _TUPLES:
            items = [self._stack.pop() for _ in range(_TUPLES[name])]
            self._stack.append(tuple(reversed(items)))
        elif name in _STEPS:
            _STEPS[name](self, argument)
        elif name not in {"STOP", "FRAME"}:
            raise self._refused_instruction(name)
        if name in _UNUSUAL or (name == "PROTO" and argument != 2):
            self._unusual = name

    def _refused_instruction(self, name: str) -> _RefusedError:
        what = f"The checkpoint uses the pickle instruction {name}, which torch.save never does"
        return self._refused_or(_RefusedError(what, _FETCH))

    def _refused_or(self, otherwise: _RefusedError) -> _RefusedError:
        """That the pickle needs code is said before what else is wrong with it."""
        return _needs_code(self._foreign[0], ()) if self._foreign else otherwise

    def _mark(self, _: None) -> None:
        self._outer_stacks.append(self._stack)
        self._stack = []

    def _pop_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._outer_stacks.pop()
        return items

    def _tuple(self, _: None) -> None:
        items = self._pop_mark()
        self._stack.append(tuple(items))

    def _append(self, _: None) -> None:
        self._extend_list([self._stack.pop()])

    def _appends(self, _: None) -> None:
        self._extend_list(self._pop_mark())

    def _extend_list(self, items: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise TypeError("an item for what is no list")
        self._stack[-1].extend(items)

    def _set_item(self, _: None) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._update_dict([key], [value])

    def _set_items(self, _: None) -> None:
        items = self._pop_mark()
        self._update_dict(items[::2], items[1::2])

    def _update_dict(self, keys: list[Any], values: list[Any]) -> None:
        if type(self._stack[-1]) not in (dict, _Ordered):
            raise TypeError("an item for what is no dict")
        for key, value in zip(keys, values, strict=True):
            # To hash a tuple of ten thousand levels overflows the stack of the interpreter.
            if not isinstance(key, _SCALARS):
                raise TypeError(f"a dict key of type {_type_name(key)}")
            self._stack[-1][key] = value

    def _put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def _memoize(self, _: None) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def _ignore(self, _: object) -> None:
        """The number of the protocol."""

    def _global(self, name: str) -> None:
        found = _Global(name)
        if not found.known:
            self._foreign.append(name)
        self._stack.append(found)

    def _inst(self, name: str) -> None:
        self._global(name)
        raise self._refused_instruction("INST")

    def _stack_global(self, _: None) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError("a name that is no str")
        self._global(f"{module} {name}")

    def _reduce(self, _: None) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if isinstance(function, _Global) and not function.known:
            self._stack.append(_UnknownObject(function.name))
        elif isinstance(function, _Global) and function.name in _CALLS and isinstance(arguments, tuple):
            self._stack.append(_CALLS[function.name](*arguments))
        else:
            raise TypeError("a call of what is no function")

    def _new_object(self, _: None) -> None:
        arguments, cls = self._stack.pop(), self._stack.pop()
        if isinstance(cls, _Global) and not cls.known:
            self._stack.append(_UnknownObject(cls.name))
        elif isinstance(cls, _Global) and cls.name in (_NAMESPACE, *_INERT) and arguments == ():
            self._stack.append(_Attributes())
        else:
            raise TypeError("an object of what is no class")

    def _build(self, _: None) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, _UnknownObject):
            return
        if not isinstance(target, (_Attributes, _Ordered)) or type(state) is not dict:
            raise TypeError("a state that is no dict, or for what has none")
        # An attribute such as `__setstate__` would be called by the next BUILD.
        if not all(isinstance(key, str) and not key.startswith("__") for key in state):
            raise TypeError("a state that is not of attributes")
        if isinstance(target, _Attributes):
            target.update(state)

    def _persistent(self, _: None) -> None:
        label, kind, key, _location, numel, *view = self._stack.pop()
        if isinstance(kind, _Global) and not kind.known:
            self._stack.append(_UnknownObject(kind.name))
            return
        if (
            label != "storage"
            or not isinstance(kind, _Global)
            or kind.name not in _STORAGES
            or view not in ([], [None])
        ):
            raise ValueError("a reference to what is no storage")
        if type(key) is not str or not (key.isascii() and key.isdigit()) or type(numel) is not int or numel < 0:
            raise ValueError("a storage without a proper name or length")
        storage = _Storage(kind.name, numel)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {key} is declared twice")
        self._stack.append(storage)


def _sketch_tensor(
    storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], requires_grad: bool, hooks: Any
) -> _TensorSketch:
    """The sketch of a call of `torch._utils._rebuild_tensor_v2`."""
    numbers = (offset, *size, *stride)
    if not isinstance(storage, _Storage) or hooks or any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError("a tensor of strange parts")
    numel = math.prod(size)
    last = offset + sum((extent - 1) * step for extent, step in zip(size, stride, strict=True))
    fault = None
    if numel > storage.numel:
        fault = f"declares {numel} values, but its storage holds {storage.numel}"
    elif numel and last >= storage.numel:
        fault = f"reaches to value {last} of a storage that holds {storage.numel}"
    return _TensorSketch(numel * _STORAGES[storage.kind], fault)


def _sketch_parameter(tensor: _TensorSketch, requires_grad: bool, hooks: Any) -> _TensorSketch:
    """The sketch of a call of `torch._utils._rebuild_parameter`."""
    if not isinstance(tensor, _TensorSketch):
        raise ValueError("a parameter of what is no tensor")
    return tensor


def _sketch_ordered() -> _Ordered:
    return _Ordered()


_CALLS: dict[str, Callable[..., object]] = {
    _ORDERED: _sketch_ordered,
    "torch._utils _rebuild_tensor_v2": _sketch_tensor,
    "torch._utils _rebuild_parameter": _sketch_parameter,
}
_KNOWN = {*_CALLS, *_STORAGES, _NAMESPACE, *_INERT}

_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "UNICODE"}
_FRESH: dict[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _Machine._ignore,
    "MARK": _Machine._mark,
    "TUPLE": _Machine._tuple,
    "APPEND": _Machine._append,
    "APPENDS": _Machine._appends,
    "SETITEM": _Machine._set_item,
    "SETITEMS": _Machine._set_items,
    "BINPUT": _Machine._put,
    "LONG_BINPUT": _Machine._put,
    "PUT": _Machine._put,
    "MEMOIZE": _Machine._memoize,
    "BINGET": _Machine._get,
    "LONG_BINGET": _Machine._get,
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    "INST": _Machine._inst,
    "REDUCE": _Machine._reduce,
    "NEWOBJ": _Machine._new_object,
    "BUILD": _Machine._build,
    "BINPERSID": _Machine._persistent,
}
_UNUSUAL = {"SHORT_BINUNICODE", "UNICODE", "FRAME", "PUT", "MEMOIZE", "STACK_GLOBAL"}
"""Followed only to learn which function a malicious pickle names."""


class _Judge:
    """One walk over a sketch.

    A container may appear in many places, and even in itself. Each appearance is counted, for it becomes a copy.

    Args:
        max_values: How many values all containers together may hold.
        max_bytes: How many bytes all tensors together may have.
    """

    def __init__(self, max_values: int, max_bytes: int) -> None:
        self._max_values = max_values
        self._max_bytes = max_bytes
        self._num_values = 0
        self._num_bytes = 0

    def visit(self, value: object, place: tuple[object, ...]) -> None:
        """Refuse `value` or what it holds; `place` is the way to it."""
        self._num_values += 1
        if self._num_values > self._max_values or len(place) > MAX_DEPTH:
            raise _RefusedError(f"{_at(place)} nests too deeply or repeats without end", _PLAIN_ONLY)
        if isinstance(value, dict):
            for key, item in value.items():
                self.visit(item, (*place, key))
        elif isinstance(value, (list, tuple)):
            for index, item in enumerate(value):
                self.visit(item, (*place, index))
        elif isinstance(value, _TensorSketch):
            self._visit_tensor(value, place)
        elif not isinstance(value, _SCALARS):
            raise _refused_value(value, place)

    def _visit_tensor(self, tensor: _TensorSketch, place: tuple[object, ...]) -> None:
        if tensor.fault is not None:
            raise _corrupt(f"{_at(place)} {tensor.fault}")
        self._num_bytes += tensor.num_bytes
        if self._num_bytes > self._max_bytes:
            raise _corrupt(f"its tensors up to {_at(place)} view the same values again and again")


def _refused_value(value: object, place: tuple[object, ...]) -> _RefusedError:
    if isinstance(value, (_Global, _UnknownObject)):
        return _needs_code(value.name, place)
    return _RefusedError(f"{_at(place)} is a {_type_name(value)}, which is no plain value", _PLAIN_ONLY)


def _needs_code(name: str, place: tuple[object, ...]) -> _RefusedError:
    if name in _KINDS_OF_TENSOR:
        return _RefusedError(
            f"{_at(place)} is a {_KINDS_OF_TENSOR[name]} tensor; only strided ones are read", _PLAIN_ONLY
        )
    dotted = name.replace(" ", ".").replace("__builtin__.", "builtins.")
    return _RefusedError(f"{_at(place)} needs code to load: {_shown(dotted)}", _PLAIN_ONLY)


# What torch does, once nothing is left to refuse.


class _Inert:
    """Stands for the classes of other toolkits that have nothing to say about the weights."""


def _load(stream: io.BufferedReader) -> object:
    inert = [(_Inert, name.replace(" ", ".")) for name in _INERT]
    with torch.serialization.safe_globals([argparse.Namespace, *inert]):
        try:
            return torch.load(stream, map_location="cpu", weights_only=True, mmap=False)
        except Exception as error:
            if isinstance(error, MemoryError) or "allocate memory" in str(error):
                raise MemoryError from error
            # torch's own words advise to run the pickle, so they are not repeated.
            raise _corrupt(f"torch cannot read it ({type(error).__name__})") from error


def _plain(value: Any) -> Any:
    """A copy without classes; by now it is known to be shallow and small."""
    if isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu":
        return value.detach()
    if isinstance(value, (argparse.Namespace, _Inert)):
        return _plain(vars(value))
    if isinstance(value, dict):
        # Not `value.items()`: an OrderedDict may have been given an attribute of that name.
        return {key: _plain(item) for key, item in dict.items(value)}
    if type(value) in (list, tuple):
        return type(value)(_plain(item) for item in value)
    if type(value) not in _SCALARS:
        raise _RefusedError(f"The checkpoint holds a {type(value).__name__}, which is no plain value", _PLAIN_ONLY)
    return value


# Small things.


def _corrupt(reason: str) -> _RefusedError:
    return _RefusedError(f"The checkpoint is corrupt: {reason}", _FETCH)


def _at(place: tuple[object, ...]) -> str:
    return f"`{_shown('.'.join(map(str, place)))}`" if place else "The checkpoint"


def _type_name(value: object) -> str:
    if isinstance(value, (_Global, _UnknownObject)):
        return value.name.replace(" ", ".")
    return {_Storage: "bare storage", _TensorSketch: "tensor", _Attributes: "Namespace"}.get(
        type(value), type(value).__name__
    )


def _shown(text: object) -> str:
    whole = str(text)
    return whole if len(whole) <= _SHOWN_CHARACTERS else f"{whole[:_SHOWN_CHARACTERS]}…"


def _read_at(stream: io.BufferedReader, offset: int, num_bytes: int) -> bytes:
    stream.seek(offset)
    return stream.read(num_bytes)


def _count(stream: io.BufferedReader, needle: bytes) -> int:
    """How often `needle` occurs, without holding the file."""
    stream.seek(0)
    total, tail = 0, b""
    while chunk := stream.read(_CHUNK_BYTES):
        total += (tail + chunk).count(needle)
        tail = chunk[1 - len(needle) :]
    return total
