"""Files given by `--plugin`: executed once in a process, and the plugins that they declare."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from repbench.errors import OF_OTHERS, PluginError, UsageError
from repbench.globalstate import preserved_global_state
from repbench.registry.names import PLURALS, Kind, last_line, unfit_name

KINDS: tuple[Kind, ...] = ("upstream", "downstream", "head")
"""The kinds of plugins that a file can declare, each by a mapping called as the plural."""


class ExecutedFile(NamedTuple):
    """The module that a file made, and the SHA-256 of the bytes that were executed."""

    module: ModuleType
    sha256: str


class DeclaredPlugin(NamedTuple):
    """A plugin that a file declares."""

    kind: Kind
    name: str
    sha256: str


class DeclaredPlugins(NamedTuple):
    """The plugins of a file, and the global state that executing it changed and that was restored."""

    plugins: tuple[DeclaredPlugin, ...]
    changed: tuple[str, ...]


def declared_in(path: Path) -> DeclaredPlugins:
    """Execute a file and read its declarations.

    Raises:
        UsageError: There is no such file.
        PluginError: It cannot be executed, or declares nothing.
    """
    place = path.resolve()
    if not place.is_file():
        raise UsageError("There is no such file", file=path, key="--plugin", do="Give a file of Python")
    try:
        with preserved_global_state() as changed:
            module, sha256 = executed(str(place))
    except OF_OTHERS:
        raise
    except BaseException as error:
        what = f"The plugin cannot be executed: {last_line(error)}"
        raise PluginError(what, file=path, do="Correct it; `python FILE.py` shows where it fails") from error
    found = [DeclaredPlugin(kind, name, sha256) for kind in KINDS for name in _names(module, kind, place)]
    if not found:
        what = "The file declares no `upstreams`, `downstreams` or `heads`"
        raise PluginError(what, file=path, do="Write upstreams = {'NAME': factory}, or the same with another of these")
    return DeclaredPlugins(tuple(found), tuple(changed))


def _names(module: ModuleType, kind: Kind, place: Path) -> Iterator[str]:
    """The names of the plugins of a kind that the module of a file declares."""
    factories = getattr(module, PLURALS[kind], {})
    if kind == "head" and isinstance(factories, (int, ModuleType)):
        return  # a number of attention heads, or an imported module: files older than plugin heads have such names
    named = isinstance(factories, Mapping) and all(isinstance(name, str) for name in factories)
    unfit = [] if not named else [name for name in factories if unfit_name(name)]
    if not named or unfit or not all(callable(each) for each in factories.values()):
        reason = f": {unfit[0]!r}: {unfit_name(unfit[0])}" if unfit else ""
        what = f"`{PLURALS[kind]}` must map names to factories{reason}"
        raise PluginError(what, file=place, do=f"Write {PLURALS[kind]} = {{'NAME': factory}}")
    yield from factories


@functools.cache
def executed(place: str) -> ExecutedFile:
    """Execute a file once in a process, as a module that `sys.modules` holds like any other."""
    source = Path(place).read_bytes()
    # Of the bytes that are executed, not of a second reading: the file may be edited in between.
    sha256 = hashlib.sha256(source).hexdigest()
    name = f"repbench_plugin_{sha256[:12]}"
    spec = importlib.util.spec_from_loader(name, loader=None, origin=place)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = place
    # Before it is executed: dataclasses and pickles look their module up there.
    sys.modules[name] = module
    try:
        exec(compile(source, place, "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return ExecutedFile(module, sha256)
