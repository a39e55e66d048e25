"""The registry: from a name to its entry.

Every plugin comes through an entry point, repbench's own included. Listing reads metadata alone: a plugin is imported
when it is first used, and one that cannot be loaded does not affect the others.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from repbench.errors import PluginError, UsageError, did_you_mean
from repbench.registry.distributions import first_of_each_name
from repbench.registry.entries import DOORS, TARGET, Door, Entry, entries_of, side_effects
from repbench.registry.files import declared_in
from repbench.registry.names import (
    BUILTIN_DISTRIBUTION,
    GROUPS,
    PLURALS,
    PREFIXED_UPSTREAMS,
    RESERVED_PREFIXES,
    UNPACKAGED,
    DistributionFault,
    Kind,
    normalised,
)


class FoundEntry(NamedTuple):
    """An entry and the words after its name: `synthetic:noisy:small` has the options `("noisy", "small")`."""

    entry: Entry
    options: tuple[str, ...]


class Registry:
    """The plugins of a set of distributions.

    Args:
        distributions: Those to read; by default all that are installed. Of two with one name the first counts, as for
            Python itself.
    """

    def __init__(self, distributions: Iterable[metadata.Distribution] | None = None) -> None:
        self._problems: list[DistributionFault] = []
        found = metadata.distributions() if distributions is None else distributions
        entries = [
            entry for distribution in first_of_each_name(found) for entry in entries_of(distribution, self._note)
        ]
        self._entries: dict[Kind, tuple[Entry, ...]] = {
            kind: tuple(sorted((entry for entry in entries if entry.kind == kind), key=_order)) for kind in GROUPS
        }

    @property
    def problems(self) -> tuple[DistributionFault, ...]:
        """The faults of distributions that were worked around so far."""
        return tuple(self._problems)

    def entries(self, kind: Kind) -> tuple[Entry, ...]:
        """All plugins of a kind, sorted, a built-in before others of its name; those hidden by a clash included."""
        return self._entries[kind]

    def find(self, kind: Kind, spec: str) -> FoundEntry:
        """The plugin that `spec` names: `NAME`, `DIST:NAME`, either with `:OPTION…` after it, or `PREFIX:…`.

        A bare name is that of a built-in or of exactly one third party. `DIST:NAME` is tried before `NAME:OPTION`,
        except where DIST is a built-in's name: a third party cannot take an option away from a built-in.

        Raises:
            UsageError: There is no such plugin, or the text after the prefix does not fit.
            PluginError: Two third parties share the bare name.
        """
        head, *rest = spec.split(":")
        owners = [entry for entry in self.entries(kind) if entry.name == head]
        # `units` is a task of repbench; `units:RUN` leads to an upstream. No plugin of others has such a name.
        if head in RESERVED_PREFIXES and (rest or not owners):
            return self._reserved(kind, head, rest)
        # `A:B` can be plugin B of distribution A, or plugin A with the option B.
        qualified = self._qualified(kind, head, rest)
        if qualified is not None and not self._is_option_of_builtin(owners, kind, rest[0]):
            return FoundEntry(qualified, tuple(rest[1:]))
        if not owners:
            raise self._unknown(kind, spec)
        if len(owners) > 1 and not owners[0].builtin:
            raise _clash(owners)
        return FoundEntry(owners[0], tuple(rest))

    def load(self, kind: Kind, spec: str) -> object:
        """Find a plugin and import it; global state that the import changed is restored and noted in `problems`.

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
        """Add the plugins that a file declares, and return their entries.

        The file is Python and declares one or more of `upstreams`, `downstreams` and `heads`: mappings from names to
        factories. A name of the file goes before one of a third party; that of a built-in or of another file is
        refused.

        Raises:
            UsageError: There is no such file, or one of its names is taken.
            PluginError: It cannot be executed, or declares nothing.
        """
        declared = declared_in(path)
        place, owner = str(path.resolve()), f"{path.resolve().name}{UNPACKAGED}"
        added = tuple(
            Entry(name, kind, f"{path.resolve().name}:{name}", owner, sha256[:12], builtin=False, file=place)
            for kind, name, sha256 in declared.plugins
        )
        for entry in added:
            other = next((other for other in self.entries(entry.kind) if other.name == entry.name), None)
            if other is not None and (other.builtin or other.file not in {None, entry.file}):
                whose = f"a built-in {entry.kind}" if other.builtin else f"another in {other.file}"
                what = f"`{entry.name}` is the name of {whose}"
                raise UsageError(what, file=path, key=entry.name, do="Give it another name")
        if declared.changed:
            self._note(side_effects(added[0], declared.changed))
        for entry in added:
            others = [other for other in self.entries(entry.kind) if other.name != entry.name]
            self._entries[entry.kind] = tuple(sorted([*others, entry], key=_order))
        return added

    def clashes(self) -> tuple[DistributionFault, ...]:
        """The plugins that their bare names do not reach, each with its owner and the name that does."""
        noted = [(entry, self._note_on(entry)) for kind in GROUPS for entry in self.entries(kind)]
        return tuple(
            DistributionFault(
                entry.distribution, f"the {entry.kind} `{entry.name}`: {why}", f"Name it `{entry.qualified}`"
            )
            for entry, note in noted
            if (why := note.partition("; use ")[0])
        )

    def rows(self, kind: Kind | None = None) -> list[dict[str, str]]:
        """The rows of `repbench list`, for one kind or all: name, kind, version, origin, target, note."""
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
        if TARGET.fullmatch(target) is None:
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
        head, colon, rest = spec.partition(":")
        # A prefix in other letters: what follows it stays as it is. Of names the whole one comes first.
        if colon and kind == "upstream" and (prefix := _nearest_prefix(head)):
            suggestion = f"Did you mean `{prefix}:{rest}`? "
        else:
            suggestion = did_you_mean(spec, names) or did_you_mean(head, names)
        listed = ", ".join(f"`{name}`" for name in names) or "none"
        others = f", and {PREFIXED_UPSTREAMS}" if kind == "upstream" else ""
        return UsageError(f"There is no {kind} `{spec}`", do=f"{suggestion}There are: {listed}{others}")

    def _note(self, problem: DistributionFault) -> None:
        if problem not in self._problems:
            self._problems.append(problem)


@functools.cache
def registry() -> Registry:
    """The registry of this environment, read once in a process."""
    return Registry()


def _nearest_prefix(head: str) -> str | None:
    near = difflib.get_close_matches(head.lower(), RESERVED_PREFIXES, n=1, cutoff=0.75)
    return near[0] if near else None


def _order(entry: Entry) -> tuple[str, bool, str]:
    return entry.name, not entry.builtin, normalised(entry.distribution)


def _clash(owners: list[Entry]) -> PluginError:
    names = " and ".join(f"`{entry.distribution}`" for entry in owners)
    choices = " or ".join(f"`{entry.qualified}`" for entry in owners)
    what = f"The {owners[0].kind} `{owners[0].name}` is registered by the distributions {names}"
    return PluginError(what, key=owners[0].name, do=f"Write DIST:NAME: {choices}")


def _spec_of(entry: Entry, note: str) -> str:
    """The name that reaches an entry: the bare one where possible."""
    return entry.qualified if note else entry.name
