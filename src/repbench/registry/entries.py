"""Entries: one plugin each, as its metadata describes it, and the import of its target."""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from repbench.errors import OF_OTHERS, PluginError
from repbench.globalstate import preserved_global_state
from repbench.registry.distributions import entry_points_of, field_of, label_of, name_of
from repbench.registry.files import executed
from repbench.registry.names import (
    BUILTIN_DISTRIBUTION,
    GROUPS,
    PLURALS,
    DistributionFault,
    Kind,
    last_line,
    normalised,
    unfit_name,
)


class Door(NamedTuple):
    """A prefix for upstreams without an entry point.

    Attributes:
        target: `module:attribute`, called with the text after the prefix; returns a factory.
        takes: Form of the text after the prefix, for an error.
    """

    target: str
    takes: str


DOORS: Mapping[str, Door] = {
    "hf": Door("repbench.upstream.adapters.huggingface:door", "DIR_OR_REPO"),
    "torchaudio": Door("repbench.upstream.adapters.torchaudio_bundles:door", "BUNDLE"),
    "features": Door("repbench.upstream.adapters.feature_folder:door", "DIR"),
    "units": Door("repbench.upstream.adapters.units:door", "RUN_OR_DIR"),
    "onnx": Door("repbench.upstream.adapters.onnx_graph:door", "FILE"),
    "hear": Door("repbench.upstream.adapters.hear:door", "MODULE"),
    "xares": Door("repbench.upstream.adapters.xares:door", "MODULE:CLASS"),
}
"""The reserved prefixes that lead to adapters of repbench."""

TARGET = re.compile(r"(?P<module>\w+(?:\.\w+)*)\s*:\s*(?P<attribute>\w+(?:\.\w+)*)\s*(?:\[[^\]]*\])?\s*")
"""The form `module:attribute`, with the extras that entry points may name."""


class LoadedEntry(NamedTuple):
    """The object that an entry point names, and the global state that its import changed and that was restored."""

    value: object
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One registered plugin, as its metadata describes it.

    Attributes:
        name: Name in its group.
        kind: Its kind.
        target: `module:attribute`.
        distribution: The one that registers it; `py` for `py:module:attribute`.
        version: Version of the distribution; empty if unknown.
        builtin: Whether it comes with repbench.
        argument: The text after the prefix of a `Door`; None for every other plugin.
        file: The file of `--plugin`, whose version is the start of its SHA-256; None for an installed plugin.
    """

    name: str
    kind: Kind
    target: str
    distribution: str
    version: str
    builtin: bool
    argument: str | None = None
    file: str | None = None

    @property
    def qualified(self) -> str:
        """`DIST:NAME`, which is unique; the bare name for a plugin of a file."""
        if self.file is not None:
            return self.name
        if self.distribution == "py":
            return f"py:{self.target}"
        if self.argument is not None:
            return self.name
        return f"{normalised(self.distribution)}:{self.name}"

    def load(self) -> object:
        """Import the target, and restore the global state of the process.

        Raises:
            PluginError: The import or the attribute fails in any way; only `OF_OTHERS` passes unchanged.
        """
        return self.load_observed().value

    def load_observed(self) -> LoadedEntry:
        """As `load`, with the global state that the import changed."""
        try:
            with preserved_global_state() as changed:
                value = self._import()
        except OF_OTHERS:
            raise
        # Also SystemExit, which would end the process with the plugin's exit code.
        except BaseException as error:
            raise self._failure(error) from error
        return LoadedEntry(value, tuple(changed))

    def file_sha256(self) -> str | None:
        """SHA-256 of the file of the target's module, after `load`; None without such a file."""
        if self.file is not None:
            return executed(self.file).sha256
        source = getattr(sys.modules.get(split_target(self.target)[0]), "__file__", None)
        if source is None or not Path(source).is_file():
            return None
        return hashlib.sha256(Path(source).read_bytes()).hexdigest()

    def _import(self) -> object:
        if self.file is not None:
            declared: object = getattr(executed(self.file).module, PLURALS[self.kind])[self.name]
            return declared
        module, attribute = split_target(self.target)
        found: object = importlib.import_module(module)
        for name in attribute.split("."):
            try:
                found = getattr(found, name)
            except AttributeError as error:
                raise AttributeError(f"{error}{_members(found)}") from error
        if self.argument is None:
            return found
        assert callable(found)
        return found(self.argument)

    def _failure(self, error: BaseException) -> PluginError:
        owner = f"distribution `{self.distribution}`{f' {self.version}' if self.version else ''}"
        what = f"The {self.kind} `{self.name}` (`{self.target}`) of {owner} cannot be loaded: {last_line(error)}"
        return PluginError(what, key=self.qualified, do=self._cure(error))

    def _cure(self, error: BaseException) -> str:
        if self.file is not None:
            return f"Correct {self.file}"
        module, _ = split_target(self.target)
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        its_own = missing is not None and f"{module}.".startswith(f"{missing}.")
        if self.distribution == "py":
            return f"Is `{missing or module}` spelt right, its folder on PYTHONPATH, and does `import {module}` work?"
        reinstall, remove = f"pip install --force-reinstall {self.distribution}", f"pip uninstall {self.distribution}"
        if self.builtin:
            return f"Reinstall repbench: {reinstall}"
        if missing is not None and not its_own:
            return f"Install what provides the module `{missing}`, or remove the plugin: {remove}"
        return f"Reinstall it: {reinstall}; should that not help, tell its authors and remove it: {remove}"


def _members(owner: object) -> str:
    """The public classes and functions of a module or class itself, for the error that it lacks one."""
    module = owner.__name__ if isinstance(owner, ModuleType) else getattr(owner, "__module__", None)
    own = [
        name
        for name, value in getattr(owner, "__dict__", {}).items()
        if not name.startswith("_") and callable(value) and getattr(value, "__module__", None) == module
    ]
    return f"; it has {', '.join(own[:12])}{', …' if len(own) > 12 else ''}" if own else ""


def side_effects(entry: Entry, changed: tuple[str, ...]) -> DistributionFault:
    """The report on a plugin whose import changed global state."""
    reason = f"importing the {entry.kind} `{entry.name}` changed global state, which was put back: {', '.join(changed)}"
    return DistributionFault(entry.distribution, reason, "Ask its authors to do this where it is needed, not on import")


def split_target(target: str) -> tuple[str, str]:
    """Module and attribute of `module:attribute`; a ValueError for another form."""
    match = TARGET.fullmatch(target)
    if match is None:
        raise ValueError(f"`{target}` is not of the form `module:attribute`")
    return match["module"], match["attribute"]


def _fault_of(point: metadata.EntryPoint, siblings: list[metadata.EntryPoint], *, builtin: bool) -> str | None:
    """The reason why an entry point is no plugin; None if it is one."""
    unfit = unfit_name(point.name)
    # A task of repbench's own may have the name of a prefix, which leads to upstreams alone.
    if unfit is not None and not (builtin and point.name in DOORS and point.group == GROUPS["downstream"]):
        return unfit
    if TARGET.fullmatch(point.value) is None:
        return "what it names is not of the form `module:attribute`"
    first = next(sibling for sibling in siblings if (sibling.group, sibling.name) == (point.group, point.name))
    return None if first is point else f"the same distribution has named `{first.value}` so before"


def entries_of(distribution: metadata.Distribution, report: Callable[[DistributionFault], None]) -> list[Entry]:
    """The plugins of a distribution.

    Args:
        distribution: An installed one; its metadata may be damaged.
        report: Receives each fault of the metadata. None is raised: other distributions must stay usable.
    """
    label = label_of(distribution)
    try:
        points = [point for point in entry_points_of(distribution) if point.group in GROUPS.values()]
    except Exception as error:
        reason = f"its entry_points.txt cannot be read, so its plugins are ignored: {last_line(error)}"
        report(DistributionFault(label, reason, f"Reinstall or remove it: pip install --force-reinstall {label}"))
        return []
    if points and name_of(distribution) is None:
        reason = "its metadata holds no name, so its plugins are ignored"
        report(DistributionFault(label, reason, "Remove this folder and install the distribution again"))
        return []
    version = field_of(distribution, "Version") if points else ""
    found = []
    builtin = normalised(label) == BUILTIN_DISTRIBUTION
    for point in points:
        fault = _fault_of(point, points, builtin=builtin)
        if fault is None:
            kind = next(kind for kind, group in GROUPS.items() if group == point.group)
            found.append(Entry(point.name, kind, point.value, label, version, builtin))
        else:
            cure = f"Ask the authors of {label} to correct this line of its entry points"
            report(
                DistributionFault(label, f"`{point.name} = {point.value}` in [{point.group}] is ignored: {fault}", cure)
            )
    return found
