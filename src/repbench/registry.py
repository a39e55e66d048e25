"""Which upstreams, downstreams and corpora are installed, found by name and loaded only when used.

Everything comes in through entry points, repbench's own included. Listing reads metadata alone; no plugin is imported
before it is asked for, and one that cannot be loaded disturbs no other.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Literal, NamedTuple

from repbench.errors import OF_OTHERS, PluginError, UsageError
from repbench.globalstate import preserved_global_state

Kind = Literal["upstream", "downstream", "corpus"]

PLURALS: Mapping[Kind, str] = {"upstream": "upstreams", "downstream": "downstreams", "corpus": "corpora"}
"""How many of a kind are called, in this order."""

GROUPS: Mapping[Kind, str] = {kind: f"repbench.{plural}" for kind, plural in PLURALS.items()}
"""The entry-point group of each kind."""

BUILTIN_DISTRIBUTION = "repbench"
"""The distribution whose plugins keep their bare names."""

RESERVED_PREFIXES = ("hf", "torchaudio", "py", "features")
"""What no plugin may be called: `hf:…`, `torchaudio:…`, `py:module:attribute`, `features:…`."""


UNPACKAGED = " (unpackaged)"
"""What follows the name of a file that is given by `--plugin` where others have a distribution."""


def is_packaged(distribution: str) -> bool:
    """Whether it is a distribution, which answers for its plugins' code by version and `code_version`.

    A file of `--plugin` and what `py:` names are none: they are edited from one run to the next.
    """
    return distribution != "py" and not distribution.endswith(UNPACKAGED)


class Door(NamedTuple):
    """A way to upstreams that nobody registered: `target`, called with what follows the prefix, gives a factory."""

    target: str
    takes: str


DOORS: Mapping[str, Door] = {
    "hf": Door("repbench.upstream.adapters.huggingface:door", "DIR_OR_REPO"),
    "torchaudio": Door("repbench.upstream.adapters.torchaudio_bundles:door", "BUNDLE"),
    "features": Door("repbench.upstream.adapters.feature_folder:door", "DIR"),
}
"""The reserved prefixes behind which repbench itself stands."""

_TARGET = re.compile(r"(?P<module>\w+(?:\.\w+)*)\s*:\s*(?P<attribute>\w+(?:\.\w+)*)\s*(?:\[[^\]]*\])?\s*")


class Problem(NamedTuple):
    """Something about an installed distribution that is not as it should be, and was worked around."""

    distribution: str
    reason: str
    cure: str


class LoadedEntry(NamedTuple):
    """What an entry point led to, and the names of the global state that its import changed and that was put back."""

    value: object
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One registered plugin, as its metadata describes it.

    Attributes:
        name: Name in its group.
        kind: What it is.
        target: `module:attribute`.
        distribution: Who registered it; `py` for one named on the command line by `py:module:attribute`.
        version: Version of the distribution; empty if unknown.
        builtin: Whether it comes with repbench.
        argument: What follows the prefix of a door, which `target` is called with; None for every other plugin.
        file: The file given by `--plugin`, for one that is not packaged; its version is the start of its SHA-256.
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
        """`DIST:NAME`, which names this entry and no other; the bare name of one that a file declares."""
        if self.file is not None:
            return self.name
        if self.distribution == "py":
            return f"py:{self.target}"
        if self.argument is not None:
            return self.name
        return f"{normalised(self.distribution)}:{self.name}"

    def load(self) -> object:
        """Import the target, with the global state of the process put back afterwards.

        Raises:
            PluginError: The import or the attribute fails, in whatever way; `OF_OTHERS` alone passes.
        """
        return self.load_observed().value

    def load_observed(self) -> LoadedEntry:
        """As `load`, and say what global state the import changed."""
        try:
            with preserved_global_state() as changed:
                value = self._import()
        except OF_OTHERS:
            raise
        except BaseException as error:
            raise self._failure(error) from error
        return LoadedEntry(value, tuple(changed))

    def file_sha256(self) -> str | None:
        """SHA-256 of the file that the target stands in, once it is loaded; None where there is no such file."""
        if self.file is not None:
            return _executed(self.file).sha256
        source = getattr(sys.modules.get(_split_target(self.target)[0]), "__file__", None)
        if source is None or not Path(source).is_file():
            return None
        return hashlib.sha256(Path(source).read_bytes()).hexdigest()

    def _import(self) -> object:
        if self.file is not None:
            declared: object = getattr(_executed(self.file).module, PLURALS[self.kind])[self.name]
            return declared
        module, attribute = _split_target(self.target)
        found: object = importlib.import_module(module)
        for name in attribute.split("."):
            found = getattr(found, name)
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
            return f"Mend {self.file}"
        module, _ = _split_target(self.target)
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


class FoundEntry(NamedTuple):
    """An entry and the words that follow its name: `synthetic:noisy:small` has the options `("noisy", "small")`."""

    entry: Entry
    options: tuple[str, ...]


class Registry:
    """The plugins of a set of distributions.

    Args:
        distributions: Where to look; by default all that are installed. Of two with one name the first counts, as for
            Python itself.
    """

    def __init__(self, distributions: Iterable[metadata.Distribution] | None = None) -> None:
        self._problems: list[Problem] = []
        found = metadata.distributions() if distributions is None else distributions
        entries = [entry for distribution in _first_of_each_name(found) for entry in self._read(distribution)]
        self._entries: dict[Kind, tuple[Entry, ...]] = {
            kind: tuple(sorted((entry for entry in entries if entry.kind == kind), key=_order)) for kind in GROUPS
        }

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was found wrong with distributions and worked around, so far."""
        return tuple(self._problems)

    def entries(self, kind: Kind) -> tuple[Entry, ...]:
        """All plugins of a kind by name, a built-in before others of its name; those hidden by a clash included."""
        return self._entries[kind]

    def find(self, kind: Kind, spec: str) -> FoundEntry:
        """The plugin that `spec` names: `NAME`, `DIST:NAME`, either with `:OPTION…` after it, or behind a prefix.

        A bare name is a built-in's or, if there is exactly one, a third party's. `DIST:NAME` is understood before
        `NAME:OPTION`, except that nobody can take an option away from a built-in: there NAME must be a built-in's too.

        Raises:
            UsageError: There is no such plugin, or nothing fitting follows the prefix.
            PluginError: Two third parties share the bare name.
        """
        head, *rest = spec.split(":")
        if head in RESERVED_PREFIXES:
            return self._reserved(kind, head, rest)
        owners = [entry for entry in self.entries(kind) if entry.name == head]
        qualified = self._qualified(kind, head, rest)
        if qualified is not None and not self._is_option_of_builtin(owners, kind, rest[0]):
            return FoundEntry(qualified, tuple(rest[1:]))
        if not owners:
            raise self._unknown(kind, spec)
        if len(owners) > 1 and not owners[0].builtin:
            raise _clash(owners)
        return FoundEntry(owners[0], tuple(rest))

    def load(self, kind: Kind, spec: str) -> object:
        """Find a plugin and import it; global state that the import changed is put back and noted in `problems`.

        Raises:
            UsageError: As for `find`.
            PluginError: As for `find`, or the import fails.
        """
        entry = self.find(kind, spec).entry
        loaded = entry.load_observed()
        if loaded.changed:
            self._note(side_effects(entry, loaded.changed))
        return loaded.value

    def add_file(self, path: Path) -> tuple[Entry, ...]:
        """Take in what a file declares, for a trial without packaging, and say what that is.

        The file is Python and declares `upstreams` or `downstreams` or both: mappings from names to factories. A name
        of the file goes before one of a third party; that of a built-in or of another file is refused.

        Raises:
            UsageError: There is no such file, or a name of it is taken.
            PluginError: It cannot be executed, or declares nothing.
        """
        added, changed = _entries_of_file(path)
        for entry in added:
            owner = next((other for other in self.entries(entry.kind) if other.name == entry.name), None)
            if owner is not None and (owner.builtin or owner.file not in {None, entry.file}):
                whose = f"a built-in {entry.kind}" if owner.builtin else f"another in {owner.file}"
                what = f"`{entry.name}` is the name of {whose}"
                raise UsageError(what, file=path, key=entry.name, do="Give it another name")
        if changed:
            self._note(side_effects(added[0], changed))
        for entry in added:
            others = [other for other in self.entries(entry.kind) if other.name != entry.name]
            self._entries[entry.kind] = tuple(sorted([*others, entry], key=_order))
        return added

    def clashes(self) -> tuple[Problem, ...]:
        """The plugins that their bare names do not lead to, each with its owner and how to name it."""
        noted = [(entry, self._note_on(entry)) for kind in GROUPS for entry in self.entries(kind)]
        return tuple(
            Problem(entry.distribution, f"the {entry.kind} `{entry.name}`: {why}", f"Name it `{entry.qualified}`")
            for entry, note in noted
            if (why := note.partition("; use ")[0])
        )

    def rows(self, kind: Kind | None = None) -> list[dict[str, str]]:
        """What `repbench list` shows, of one kind or of all: name, kind, version, origin, target, note."""
        kinds = GROUPS if kind is None else (kind,)
        return [self._row(entry) for each in kinds for entry in self.entries(each)]

    def _row(self, entry: Entry) -> dict[str, str]:
        return {
            "name": entry.name,
            "kind": entry.kind,
            "version": entry.version,
            "origin": entry.distribution,
            "target": entry.target,
            "note": self._note_on(entry),
        }

    def _note_on(self, entry: Entry) -> str:
        others = [other for other in self.entries(entry.kind) if other.name == entry.name and other != entry]
        if entry.builtin or not others:
            return ""
        if any(other.builtin for other in others):
            return f"hidden by the built-in; use {entry.qualified}"
        rivals = ", ".join(f"`{other.distribution}`" for other in others)
        return f"name shared with {rivals}; use {entry.qualified}"

    def _reserved(self, kind: Kind, prefix: str, rest: list[str]) -> FoundEntry:
        if prefix in DOORS:
            return FoundEntry(self._behind(DOORS[prefix], kind, prefix, ":".join(rest)), ())
        target = ":".join(rest[:2])
        if _TARGET.fullmatch(target) is None:
            spec = ":".join([prefix, *rest])
            raise UsageError(f"`{spec}` does not name an object", do="Write `py:module:attribute`")
        return FoundEntry(Entry(target, kind, target, "py", "", builtin=False), tuple(rest[2:]))

    def _behind(self, door: Door, kind: Kind, prefix: str, argument: str) -> Entry:
        if kind != "upstream":
            do = f"Name an installed {kind}; `repbench list {PLURALS[kind]}` shows them"
            raise UsageError(f"The prefix `{prefix}:` leads to upstreams, not to a {kind}", do=do)
        if not argument:
            raise UsageError(f"Nothing follows the prefix `{prefix}:`", do=f"Write `{prefix}:{door.takes}`")
        version = next((entry.version for entry in self.entries(kind) if entry.builtin), "")
        return Entry(f"{prefix}:{argument}", kind, door.target, BUILTIN_DISTRIBUTION, version, True, argument)

    def _qualified(self, kind: Kind, head: str, rest: list[str]) -> Entry | None:
        """The entry that `head:rest[0]` names when read as `DIST:NAME`."""
        return next(
            (
                entry
                for entry in self.entries(kind)
                if rest and entry.name == rest[0] and normalised(entry.distribution) == normalised(head)
            ),
            None,
        )

    def _is_option_of_builtin(self, owners: list[Entry], kind: Kind, word: str) -> bool:
        if not owners or not owners[0].builtin:
            return False
        return not any(entry.builtin and entry.name == word for entry in self.entries(kind))

    def _unknown(self, kind: Kind, spec: str) -> UsageError:
        names = [_spec_of(entry, self._note_on(entry)) for entry in self.entries(kind)]
        close = difflib.get_close_matches(spec, names, n=1) or difflib.get_close_matches(spec.split(":")[0], names, n=1)
        question = f"Did you mean `{close[0]}`? " if close else ""
        listed = ", ".join(f"`{name}`" for name in names) or "none"
        return UsageError(f"There is no {kind} `{spec}`", do=f"{question}There are: {listed}")

    def _read(self, distribution: metadata.Distribution) -> list[Entry]:
        """The plugins of one distribution; whatever is wrong with it is noted and ends here."""
        label = _label(distribution)
        try:
            points = [point for point in _entry_points(distribution) if point.group in GROUPS.values()]
        except Exception as error:
            reason = f"its entry_points.txt cannot be read, so its plugins are ignored: {last_line(error)}"
            self._note(Problem(label, reason, f"Reinstall or remove it: pip install --force-reinstall {label}"))
            return []
        if points and _name(distribution) is None:
            reason = "its metadata holds no name, so its plugins are ignored"
            self._note(Problem(label, reason, "Remove this folder and install the distribution again"))
            return []
        version = _field(distribution, "Version") if points else ""
        found = [self._entry(point, label, version, points) for point in points]
        return [entry for entry in found if entry is not None]

    def _entry(
        self, point: metadata.EntryPoint, owner: str, version: str, siblings: list[metadata.EntryPoint]
    ) -> Entry | None:
        fault = _fault_of(point, siblings)
        if fault is not None:
            cure = f"Ask the authors of {owner} to mend this line of its entry points"
            self._note(Problem(owner, f"`{point.name} = {point.value}` in [{point.group}] is ignored: {fault}", cure))
            return None
        kind = next(kind for kind, group in GROUPS.items() if group == point.group)
        return Entry(point.name, kind, point.value, owner, version, normalised(owner) == BUILTIN_DISTRIBUTION)

    def _note(self, problem: Problem) -> None:
        if problem not in self._problems:
            self._problems.append(problem)


@functools.cache
def registry() -> Registry:
    """The registry of this environment, read once in a process."""
    return Registry()


def normalised(distribution: str) -> str:
    """The name of a distribution as PEP 503 compares it: `My.Speech_Models` is `my-speech-models`."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def last_line(error: BaseException) -> str:
    """The last line of the error's traceback, by which people know it."""
    return traceback.format_exception_only(error)[-1].strip()


def side_effects(entry: Entry, changed: tuple[str, ...]) -> Problem:
    """What to say of a plugin whose import changed global state."""
    reason = f"importing the {entry.kind} `{entry.name}` changed global state, which was put back: {', '.join(changed)}"
    return Problem(entry.distribution, reason, "Ask its authors to do this where it is needed, not on import")


def _order(entry: Entry) -> tuple[str, bool, str]:
    return entry.name, not entry.builtin, normalised(entry.distribution)


def _split_target(target: str) -> tuple[str, str]:
    match = _TARGET.fullmatch(target)
    if match is None:
        raise ValueError(f"`{target}` is not of the form `module:attribute`")
    return match["module"], match["attribute"]


def _first_of_each_name(distributions: Iterable[metadata.Distribution]) -> Iterator[metadata.Distribution]:
    """Leave out a distribution whose name an earlier one has; those without a name all pass."""
    seen: set[str] = set()
    for distribution in distributions:
        name = _name(distribution)
        if name is None:
            yield distribution
        elif normalised(name) not in seen:
            seen.add(normalised(name))
            yield distribution


def _name(distribution: metadata.Distribution) -> str | None:
    """Name of a distribution; None where its metadata is missing, unreadable or nameless."""
    try:
        return _field(distribution, "Name") or None
    except Exception:
        return None


@functools.lru_cache(maxsize=4096)
def _headers(distribution: metadata.Distribution) -> Mapping[str, str]:
    """The one-line fields before the description; importlib would parse it all, 0.1 s for 100 distributions."""
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    headers: dict[str, str] = {}
    for line in text.splitlines():
        if not line:
            break
        key, colon, value = line.partition(":")
        if colon and not line[0].isspace():
            headers.setdefault(key.lower(), value.strip())
    return headers


def _field(distribution: metadata.Distribution, name: str) -> str:
    """A field of the metadata; empty if it is not there."""
    return _headers(distribution).get(name.lower(), "")


def _entry_points(distribution: metadata.Distribution) -> metadata.EntryPoints:
    """The entry points of a distribution; importlib itself would drop lines before the first section in silence."""
    lines = map(str.strip, (distribution.read_text("entry_points.txt") or "").splitlines())
    first = next((line for line in lines if line and not line.startswith("#")), "[]")
    if not (first.startswith("[") and first.endswith("]")):
        raise ValueError(f"`{first}` stands outside any section")
    return distribution.entry_points


def _label(distribution: metadata.Distribution) -> str:
    """Name of a distribution or, failing that, the folder its metadata lies in."""
    return _name(distribution) or str(getattr(distribution, "_path", distribution.locate_file("")))


def _fault_of(point: metadata.EntryPoint, siblings: list[metadata.EntryPoint]) -> str | None:
    """What keeps an entry point from being a plugin."""
    unfit = _unfit_name(point.name)
    if unfit is not None:
        return unfit
    if _TARGET.fullmatch(point.value) is None:
        return "what it names is not of the form `module:attribute`"
    first = next(sibling for sibling in siblings if (sibling.group, sibling.name) == (point.group, point.name))
    return None if first is point else f"the same distribution has named `{first.value}` so before"


def _unfit_name(name: str) -> str | None:
    """Why a plugin cannot be called so; None if it can."""
    if name in RESERVED_PREFIXES:
        return f"`{name}` is a reserved prefix"
    if not name or re.search(r"[:\s]", name):
        return "a name may hold neither a colon nor a space"
    return None


def _clash(owners: list[Entry]) -> PluginError:
    names = " and ".join(f"`{entry.distribution}`" for entry in owners)
    choices = " or ".join(f"`{entry.qualified}`" for entry in owners)
    what = f"The {owners[0].kind} `{owners[0].name}` is registered by the distributions {names}"
    return PluginError(what, key=owners[0].name, do=f"Say which is meant with DIST:NAME: {choices}")


_KINDS_OF_FILES: tuple[Kind, ...] = ("upstream", "downstream")
"""What a file given by `--plugin` can declare."""


class _Executed(NamedTuple):
    """The module that a file made, and the SHA-256 of the bytes that were executed."""

    module: ModuleType
    sha256: str


def _entries_of_file(path: Path) -> tuple[tuple[Entry, ...], tuple[str, ...]]:
    """What a file declares, and the names of the global state that it changed and that was put back."""
    place = path.resolve()
    if not place.is_file():
        raise UsageError("There is no such file", file=path, key="--plugin", do="Give a file of Python")
    try:
        with preserved_global_state() as changed:
            module, sha256 = _executed(str(place))
    except OF_OTHERS:
        raise
    except BaseException as error:
        what = f"The plugin cannot be executed: {last_line(error)}"
        raise PluginError(what, file=path, do="Mend it; `python FILE.py` shows where it fails") from error
    found = [entry for kind in _KINDS_OF_FILES for entry in _declared(module, kind, place, sha256)]
    if not found:
        what = "The file declares neither `upstreams` nor `downstreams`"
        raise PluginError(what, file=path, do="Write upstreams = {'NAME': factory} or downstreams = {'NAME': factory}")
    return tuple(found), tuple(changed)


def _declared(module: ModuleType, kind: Kind, place: Path, sha256: str) -> Iterator[Entry]:
    """The plugins of a kind that the module of a file declares."""
    factories = getattr(module, PLURALS[kind], {})
    named = isinstance(factories, Mapping) and all(isinstance(name, str) for name in factories)
    unfit = [] if not named else [name for name in factories if _unfit_name(name)]
    if not named or unfit or not all(callable(each) for each in factories.values()):
        reason = f": {unfit[0]!r}: {_unfit_name(unfit[0])}" if unfit else ""
        what = f"`{PLURALS[kind]}` must map names to factories{reason}"
        raise PluginError(what, file=place, do=f"Write {PLURALS[kind]} = {{'NAME': factory}}")
    for name in factories:
        owner = f"{place.name}{UNPACKAGED}"
        yield Entry(name, kind, f"{place.name}:{name}", owner, sha256[:12], builtin=False, file=str(place))


@functools.cache
def _executed(place: str) -> _Executed:
    """Execute a file once in a process, as a module of its own that is found by its name as any other."""
    source = Path(place).read_bytes()
    sha256 = hashlib.sha256(source).hexdigest()
    name = f"repbench_plugin_{sha256[:12]}"
    spec = importlib.util.spec_from_loader(name, loader=None, origin=place)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = place
    sys.modules[name] = module
    try:
        exec(compile(source, place, "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return _Executed(module, sha256)


def _spec_of(entry: Entry, note: str) -> str:
    """How to name an entry: bare if that reaches it."""
    return entry.qualified if note else entry.name
