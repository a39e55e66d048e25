"""Global state of the process: changes by a block of code are detected and undone."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

_SET_BY_SCIKIT_LEARN = frozenset({"KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK"})
"""Environment variables that `import sklearn` sets for its OpenMP, and that must stay set."""

_FRESH_TORCH: dict[str, Any] = {
    "gradient mode": True,
    "deterministic algorithms": False,
    "cudnn.benchmark": False,
    "cudnn.deterministic": False,
    "cudnn.enabled": True,
    "cudnn.allow_tf32": True,
    "precision of float32 products": "highest",
    "precision of float32 in backends": "none",
}
"""Values of torch right after its import, except default device and dtype; its generator is then seeded at random."""

_CPU = "cpu"
"""The default device of a fresh torch."""


@dataclass(frozen=True, slots=True)
class _GlobalValue:
    """One value of the global state: its name, its value before, and functions that read and write it."""

    name: str
    before: Any
    read: Callable[[], Any]
    write: Callable[[Any], object]
    same: Callable[[Any, Any], bool] = lambda one, other: bool(one == other)

    def put_back(self) -> bool:
        """Restore the value; returns whether it was changed."""
        if self.same(self.before, self.read()):
            return False
        self.write(self.before)
        return True


@contextlib.contextmanager
def preserved_global_state() -> Iterator[list[str]]:
    """Restore global state that the block changed, however the block ends.

    That is the working directory, the environment, signal handlers, the random generators of Python, numpy and torch,
    and torch's default device and dtype, number of threads, gradient mode, determinism, cuDNN flags and float32
    precision. numpy and torch are read only if they are loaded. Where the block itself loads torch, torch is held to
    the values it has when fresh, but for its generator (which is then seeded at random) and its number of threads
    (which the machine decides).

    Yields:
        A list that is empty inside the block and holds the names of the changed values after it.

    Example:
        >>> with preserved_global_state() as changed:
        ...     os.environ["COLOUR"] = "red"
        >>> changed
        ['environment variable COLOUR']
    """
    changed: list[str] = []
    environment = dict(os.environ)
    torch_before = _loaded("torch")
    settings = [*_process_settings(), *_signal_settings(), *_numpy_settings(), *_torch_settings(torch_before)]
    try:
        yield changed
    finally:
        if torch_before is None:
            settings += _fresh_torch_settings(_loaded("torch"))
        changed += [setting.name for setting in settings if setting.put_back()]
        changed += _restore_environment(environment)  # last: torch's writers may set variables too


def _loaded(name: str) -> Any | None:
    """The module, if its import has been completed."""
    module = sys.modules.get(name)
    # During its import a module is in `sys.modules`, but may lack what is read here.
    half_way = getattr(getattr(module, "__spec__", None), "_initializing", False)
    return None if half_way else module


def _restore_environment(before: dict[str, str]) -> list[str]:
    after = dict(os.environ)
    names = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    for name in names - _SET_BY_SCIKIT_LEARN:
        if name in before:
            os.environ[name] = before[name]
        else:
            del os.environ[name]
    return [f"environment variable {name}" for name in sorted(names - _SET_BY_SCIKIT_LEARN)]


def _process_settings() -> list[_GlobalValue]:
    settings = [_GlobalValue("random generator of Python", random.getstate(), random.getstate, random.setstate)]
    folder = _working_directory()
    if folder is not None:
        settings.append(_GlobalValue("working directory", folder, _working_directory, os.chdir))
    return settings


def _working_directory() -> str | None:
    """The working directory; None where it has been removed."""
    try:
        return os.getcwd()  # noqa: PTH109 - a plain string, as `os.chdir` takes it back
    except FileNotFoundError:
        return None


def _signal_settings() -> list[_GlobalValue]:
    """The signal handlers of Python; none in threads other than the main one, which may not set them."""
    if threading.current_thread() is not threading.main_thread():
        return []
    handlers = {number: signal.getsignal(number) for number in signal.Signals}
    return [
        _GlobalValue(
            f"signal handler {number.name}", handler, partial(signal.getsignal, number), partial(signal.signal, number)
        )
        for number, handler in handlers.items()
        # None is a handler that was not set from Python, which `signal.signal` cannot restore.
        if handler is not None
    ]


def _numpy_settings() -> list[_GlobalValue]:
    numpy = _loaded("numpy")
    if numpy is None:
        return []
    read, write = numpy.random.get_state, numpy.random.set_state
    return [_GlobalValue("random generator of numpy", read(), read, write, _same_numpy_state)]


def _same_numpy_state(one: Any, other: Any) -> bool:
    return bool((one[1] == other[1]).all() and one[2:] == other[2:])


def _torch_settings(torch: Any | None) -> list[_GlobalValue]:
    """The current values of a torch that was loaded before the block."""
    if torch is None:
        return []
    generator, threads = torch.get_rng_state(), torch.get_num_threads()
    # Reading the generators would otherwise start CUDA, which takes seconds and memory of the device.
    cuda = [_cuda_generators(torch)] if torch.cuda.is_initialized() else []
    return [
        _default_device(torch, _read_device(torch)),  # first, as writing the others makes tensors
        _GlobalValue("default dtype", torch.get_default_dtype(), torch.get_default_dtype, torch.set_default_dtype),
        _GlobalValue("random generator of torch", generator, torch.get_rng_state, torch.set_rng_state, torch.equal),
        _GlobalValue("number of threads", threads, torch.get_num_threads, torch.set_num_threads),
        *cuda,
        *(_GlobalValue(name, read(), read, write) for name, read, write in _torch_switches(torch)),
    ]


def _cuda_generators(torch: Any) -> _GlobalValue:
    read, write = torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all
    return _GlobalValue("random generators of CUDA", read(), read, write, lambda a, b: all(map(torch.equal, a, b)))


def _default_device(torch: Any, before: str | None) -> _GlobalValue:
    return _GlobalValue("default device", before, partial(_read_device, torch), partial(_write_device, torch))


def _read_device(torch: Any) -> str | None:
    """The default device; None if it does not exist, as reading it makes a tensor there."""
    try:
        return str(torch.get_default_device())
    except (AssertionError, RuntimeError):
        return None


def _write_device(torch: Any, device: str | None) -> None:
    torch.set_default_device(None if device == _CPU else device)


def _read_precision(torch: Any) -> str | None:
    """The precision of float32 products; None where switches of torch contradict each other, so that reading fails."""
    try:
        return str(torch.get_float32_matmul_precision())
    except RuntimeError:
        return None


def _write_precision(torch: Any, precision: str | None) -> None:
    if precision is not None:
        torch.set_float32_matmul_precision(precision)


def _fresh_torch_settings(torch: Any | None) -> list[_GlobalValue]:
    """The values right after the import of a torch that the block loaded."""
    if torch is None:
        return []
    return [
        _default_device(torch, _CPU),
        _GlobalValue("default dtype", torch.float32, torch.get_default_dtype, torch.set_default_dtype),
        *(_GlobalValue(name, _FRESH_TORCH[name], read, write) for name, read, write in _torch_switches(torch)),
    ]


def _torch_switches(torch: Any) -> list[tuple[str, Callable[[], Any], Callable[[Any], object]]]:
    """Name, reader and writer of each switch of torch."""
    cudnn = torch.backends.cudnn
    flags = ("benchmark", "deterministic", "enabled", "allow_tf32")
    return [
        ("gradient mode", torch.is_grad_enabled, torch.set_grad_enabled),
        (
            "deterministic algorithms",
            torch.are_deterministic_algorithms_enabled,
            torch.use_deterministic_algorithms,
        ),
        (
            "precision of float32 in backends",
            partial(getattr, torch.backends, "fp32_precision"),
            partial(setattr, torch.backends, "fp32_precision"),
        ),
        ("precision of float32 products", partial(_read_precision, torch), partial(_write_precision, torch)),
        *((f"cudnn.{flag}", partial(getattr, cudnn, flag), partial(setattr, cudnn, flag)) for flag in flags),
    ]
