"""An interpreter of pickles that calls nothing: it builds a sketch of the content instead.

It knows the instructions that torch.save writes, and a few more, in order to name the function of a malicious pickle.
"""

from __future__ import annotations

import io
import math
import mmap
import pickletools
import warnings
from collections.abc import Callable
from typing import Any, Final

from repbench.upstream.checkpoints.safe_unpickle.judge import (
    FETCH,
    INERT,
    MAX_ALIASES,
    NAMESPACE,
    ORDERED,
    PARAMETER,
    PLAIN_ONLY,
    SCALARS,
    STORAGES,
    TENSOR,
    AttributesSketch,
    Global,
    Judge,
    OrderedSketch,
    RefusedError,
    StorageSketch,
    TensorSketch,
    UnknownObject,
    corrupt,
    needs_code,
    shown,
    type_name,
)

MAX_INSTRUCTIONS: Final = 1_000_000
"""Most instructions of a pickle. A tensor takes about 40: enough for 8,000 tensors with their Adam state."""


class PickleMachine:
    """Executes one pickle as torch's reader would, with sketches in the place of tensors and objects.

    It refuses every program that the two could read differently.

    Args:
        stream: In-memory bytes, positioned at the start of the pickle; `run` leaves it after the end. Not a file: its
            `read(n)` would allocate as many bytes as the pickle declares.
    """

    def __init__(self, stream: io.BytesIO | mmap.mmap) -> None:
        self.storages: dict[str, StorageSketch] = {}
        self._stream = stream
        self._stack: list[Any] = []
        self._outer_stacks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._foreign: list[str] = []
        self._unusual: str | None = None

    def run(self) -> object:
        """The sketch of the value that the pickle builds.

        Raises:
            RefusedError: The pickle is cut, malformed, too long, or uses an instruction that torch.save does not write.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # `genops` warns about a name with a backslash
                self._follow()
            (result,) = self._stack
        except (ValueError, IndexError, KeyError, TypeError, OverflowError, Warning) as error:
            raise self._refused_or(corrupt(f"its pickle is malformed ({shown(error)})")) from error
        if self._outer_stacks:
            raise corrupt("its pickle ends within a mark")
        if self._unusual is not None and not self._foreign:
            raise self._refused_instruction(self._unusual)
        return result

    def judge(self, content: object, pickle_bytes: int, file_bytes: int) -> None:
        """Check that a sketch is a dict of plain values and fitting tensors.

        Args:
            content: The sketch that `run` returned.
            pickle_bytes: Size of the pickle.
            file_bytes: Size of the file, the limit of all tensors together.

        Raises:
            RefusedError: It is not, or needs code.
        """
        declared = sum(storage.num_bytes for storage in self.storages.values())
        if declared > file_bytes:
            raise corrupt(f"its tensors declare {declared} bytes, but the file has {file_bytes}")
        Judge(MAX_ALIASES * pickle_bytes, MAX_ALIASES * file_bytes).visit(content, ())
        if self._foreign:
            raise needs_code(self._foreign[0], ())
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
            what = f"The outermost value must be a dict with names as keys, but is a {type_name(content)}"
            raise RefusedError(what, PLAIN_ONLY)

    def _follow(self) -> None:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(self._stream)):  # type: ignore[arg-type]
            if count >= MAX_INSTRUCTIONS:
                raise corrupt(f"its pickle has more than {MAX_INSTRUCTIONS} instructions")
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

    def _refused_instruction(self, name: str) -> RefusedError:
        what = f"The checkpoint uses the pickle instruction {name}, which torch.save never does"
        return self._refused_or(RefusedError(what, FETCH))

    def _refused_or(self, otherwise: RefusedError) -> RefusedError:
        """The refusal of code, if the pickle names any, which matters more than any other fault."""
        return needs_code(self._foreign[0], ()) if self._foreign else otherwise

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
            raise TypeError("an item for a value that is not a list")
        self._stack[-1].extend(items)

    def _set_item(self, _: None) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._update_dict([key], [value])

    def _set_items(self, _: None) -> None:
        items = self._pop_mark()
        # key, value, key, value, …
        self._update_dict(items[::2], items[1::2])

    def _update_dict(self, keys: list[Any], values: list[Any]) -> None:
        if type(self._stack[-1]) not in (dict, OrderedSketch):
            raise TypeError("an item for a value that is not a dict")
        for key, value in zip(keys, values, strict=True):
            # Hashing a tuple nested ten thousand levels deep would overflow the interpreter's stack.
            if not isinstance(key, SCALARS):
                raise TypeError(f"a dict key of type {type_name(key)}")
            self._stack[-1][key] = value

    def _put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def _memoize(self, _: None) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def _ignore(self, _: object) -> None:
        """PROTO needs no action: `_step` checks its number."""

    def _global(self, name: str) -> None:
        found = Global(name)
        if not found.known:
            self._foreign.append(name)
        self._stack.append(found)

    def _inst(self, name: str) -> None:
        self._global(name)
        raise self._refused_instruction("INST")

    def _stack_global(self, _: None) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError("a name that is not a str")
        self._global(f"{module} {name}")

    def _reduce(self, _: None) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if isinstance(function, Global) and not function.known:
            self._stack.append(UnknownObject(function.name))
        elif isinstance(function, Global) and function.name in _CALLS and isinstance(arguments, tuple):
            self._stack.append(_CALLS[function.name](*arguments))
        else:
            raise TypeError("a call of a value that is not a function")

    def _new_object(self, _: None) -> None:
        arguments, cls = self._stack.pop(), self._stack.pop()
        if isinstance(cls, Global) and not cls.known:
            self._stack.append(UnknownObject(cls.name))
        elif isinstance(cls, Global) and cls.name in (NAMESPACE, *INERT) and arguments == ():
            self._stack.append(AttributesSketch())
        else:
            raise TypeError("an object of a value that is not a class")

    def _build(self, _: None) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, UnknownObject):
            return
        if not isinstance(target, (AttributesSketch, OrderedSketch)) or type(state) is not dict:
            raise TypeError("a state that is not a dict, or for an object without one")
        # The next BUILD would call an attribute such as `__setstate__`.
        if not all(isinstance(key, str) and not key.startswith("__") for key in state):
            raise TypeError("a state that is not of attributes")
        if isinstance(target, AttributesSketch):
            target.update(state)

    def _persistent(self, _: None) -> None:
        # ("storage", class, key, device, number of values), and in the older form the metadata of a view: None.
        label, kind, key, _location, numel, *view = self._stack.pop()
        if isinstance(kind, Global) and not kind.known:
            self._stack.append(UnknownObject(kind.name))
            return
        if label != "storage" or not isinstance(kind, Global) or kind.name not in STORAGES or view not in ([], [None]):
            raise ValueError("a reference to a value that is not a storage")
        if type(key) is not str or not (key.isascii() and key.isdigit()) or type(numel) is not int or numel < 0:
            raise ValueError("a storage without a proper name or length")
        storage = StorageSketch(kind.name, numel)
        # Tensors that share a storage name it again; with another class or length, torch would read other values.
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {key} is declared twice")
        self._stack.append(storage)


def _sketch_tensor(
    storage: StorageSketch, offset: int, size: tuple[int, ...], stride: tuple[int, ...], requires_grad: bool, hooks: Any
) -> TensorSketch:
    """The sketch of `torch._utils._rebuild_tensor_v2(...)`: lengths are checked, nothing is allocated."""
    numbers = (offset, *size, *stride)
    if (
        not isinstance(storage, StorageSketch)
        or hooks
        or any(type(number) is not int or number < 0 for number in numbers)
    ):
        raise ValueError("a tensor with invalid arguments")
    numel = math.prod(size)
    # index in the storage of the last value: offset + sum_i (size_i - 1) * stride_i
    last = offset + sum((extent - 1) * step for extent, step in zip(size, stride, strict=True))
    fault = None
    if numel > storage.numel:
        fault = f"declares {numel} values, but its storage holds {storage.numel}"
    elif numel and last >= storage.numel:
        fault = f"reaches to value {last} of a storage that holds {storage.numel}"
    return TensorSketch(numel * STORAGES[storage.kind], fault)


def _sketch_parameter(tensor: TensorSketch, requires_grad: bool, hooks: Any) -> TensorSketch:
    """The sketch of `torch._utils._rebuild_parameter(...)`."""
    if not isinstance(tensor, TensorSketch):
        raise ValueError("a parameter that is not a tensor")
    return tensor


def _sketch_ordered() -> OrderedSketch:
    return OrderedSketch()


_CALLS: dict[str, Callable[..., object]] = {
    ORDERED: _sketch_ordered,
    TENSOR: _sketch_tensor,
    PARAMETER: _sketch_parameter,
}

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
_STEPS: dict[str, Callable[[PickleMachine, Any], None]] = {
    "PROTO": PickleMachine._ignore,
    "MARK": PickleMachine._mark,
    "TUPLE": PickleMachine._tuple,
    "APPEND": PickleMachine._append,
    "APPENDS": PickleMachine._appends,
    "SETITEM": PickleMachine._set_item,
    "SETITEMS": PickleMachine._set_items,
    "BINPUT": PickleMachine._put,
    "LONG_BINPUT": PickleMachine._put,
    "PUT": PickleMachine._put,
    "MEMOIZE": PickleMachine._memoize,
    "BINGET": PickleMachine._get,
    "LONG_BINGET": PickleMachine._get,
    "GLOBAL": PickleMachine._global,
    "STACK_GLOBAL": PickleMachine._stack_global,
    "INST": PickleMachine._inst,
    "REDUCE": PickleMachine._reduce,
    "NEWOBJ": PickleMachine._new_object,
    "BUILD": PickleMachine._build,
    "BINPERSID": PickleMachine._persistent,
}
_UNUSUAL = {"SHORT_BINUNICODE", "UNICODE", "FRAME", "PUT", "MEMOIZE", "STACK_GLOBAL"}
"""Executed only to find which function a malicious pickle names; torch.save writes none of them."""
