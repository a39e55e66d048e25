"""Systems, the models of a report with their weights: what makes records one system, and what tells two apart.

The weights of most upstreams are told by their fingerprint. That of features and units from files covers every file, so
it differs from corpus to corpus: they are told by what their folder declares, where it declares a name.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from repbench.benchmark.records.parts import DeclaredModelPart, UpstreamPart
from repbench.benchmark.records.record import Record
from repbench.benchmark.report.render.escaping import shown
from repbench.upstream.checkpoints.untrained import is_untrained

BASELINE = "mel"
"""The upstream that others are compared with."""

Identity = tuple[str, str | None, str | None]
"""Identity of a system: upstream, its checkpoint if untrained, its fingerprint if not.

Of features and units with a declared name: this name, None, and a digest of what is declared.
"""

Counted = TypeVar("Counted")


@dataclass(frozen=True, slots=True)
class System:
    """A model with its weights.

    Attributes:
        name: Unique name in the report.
        upstream: Name of the upstream; of features and units the one that their folder declares, if it does.
        checkpoint: Source of the weights; of a declared name the folders.
        fingerprint: Fingerprint of the weights; None where there are several: of random weights that differ by seed,
            and of features of several corpora.
        origin: The package of the upstream.
        title: Name of the upstream in tables, which other systems may share.
        untrained: Whether the weights are random.
        citation: Its publication, from its records; None where no record has one.
        licence: Licence of its weights or code, likewise.
        declared: What the folder of features or units declares; None without a name, and of other upstreams.
    """

    name: str
    upstream: str
    checkpoint: str | None
    fingerprint: str | None
    origin: str
    title: str
    untrained: bool
    citation: str | None = None
    licence: str | None = None
    declared: DeclaredModelPart | None = None

    @property
    def is_baseline(self) -> bool:
        """Whether it is the baseline."""
        return self.upstream == BASELINE


def systems_of(records: Iterable[Record]) -> dict[str, System]:
    """The system of each record, by the record's id."""
    members: dict[Identity, list[Record]] = defaultdict(list)
    for record in records:
        members[_identity(record)].append(record)
    names = _names({identity: each[0] for identity, each in members.items()})
    return {
        record.id: System(
            name=names[identity],
            upstream=identity[0],
            checkpoint=_checkpoint(each),
            fingerprint=_fingerprint(identity, each),
            origin=each[0].upstream.origin.shown(),
            title=each[0].upstream.title,
            untrained=identity[2] is None,
            declared=each[0].upstream.declared,
            citation=_joined(other.upstream.citation for other in each),
            licence=_joined(other.upstream.licence for other in each),
        )
        for identity, each in members.items()
        for record in each
    }


def _identity(record: Record) -> Identity:
    upstream = record.upstream
    if upstream.declared is not None:
        return upstream.title, None, upstream.declared_digest
    random = is_untrained(upstream.checkpoint)
    # Random weights differ with the seed, and their fingerprint too: the checkpoint (`random:base`) keeps the seeds in
    # one row.
    return upstream.name, upstream.checkpoint if random else None, None if random else upstream.fingerprint


def _checkpoint(records: Sequence[Record]) -> str | None:
    """The checkpoint of a system; of a declared name all folders."""
    if records[0].upstream.declared is None:
        return records[0].upstream.checkpoint
    return _joined(record.upstream.checkpoint for record in records)


def _fingerprint(identity: Identity, records: Sequence[Record]) -> str | None:
    """The one fingerprint of a system; None where it has several, and of random weights."""
    if records[0].upstream.declared is None:
        return identity[2]
    found = {record.upstream.fingerprint for record in records}
    return found.pop() if len(found) == 1 else None


def _joined(values: Iterable[str | None]) -> str | None:
    """The different values of a system's records, sorted; None where no record has one."""
    return "; ".join(sorted({value for value in values if value})) or None


def _names(
    firsts: Mapping[Identity, Record],
) -> dict[Identity, str]:
    """A unique name for each system: the upstream's short one, with checkpoint and fingerprint as far as necessary."""
    wholes: dict[str, set[str]] = defaultdict(set)
    declared: dict[str, list[UpstreamPart]] = defaultdict(list)
    for (whole, _, _), record in firsts.items():
        wholes[record.upstream.title].add(whole)
        if record.upstream.declared is not None:
            declared[record.upstream.title].append(record.upstream)
    candidates = {
        identity: (
            shown(name) if random is None else f"{shown(name)} (untrained)",
            # Of models in two places the checkpoints are these paths, which the short name leaves out.
            f"{shown(name)} ({shown(_of_checkpoint(record, random), 40)})"
            if len(wholes[name]) == 1
            else f"{shown(name)} ({'untrained, ' if random is not None else ''}{record.upstream.fingerprint[:8]})",
            f"{shown(name)} ({shown(record.upstream.checkpoint or '–', 24)}, {record.upstream.fingerprint[:8]})",
        )
        for identity, record in firsts.items()
        for name, random in [(record.upstream.title, identity[1])]
    }
    for identity, record in firsts.items():
        if (digest := record.upstream.declared_digest) is not None:  # whose checkpoint is one of its folders
            name = record.upstream.title
            apart = told_apart(record.upstream, declared[name])
            candidates[identity] = shown(name), f"{shown(name)} ({apart})", f"{shown(name)} ({apart}, {digest[:8]})"
    names: dict[Identity, str] = {}
    for identity, options in candidates.items():
        # From the shortest name to the longest: the first one that no other system would have.
        others = [other for each, other in candidates.items() if each != identity]
        names[identity] = next(
            (name for place, name in enumerate(options) if all(other[place] != name for other in others)), options[-1]
        )
    return names


def told_apart(upstream: UpstreamPart, others: Sequence[UpstreamPart]) -> str:
    """What a declaration has that others of its name have not, in words; the model where they differ in nothing.

    Args:
        upstream: With a declared name.
        others: All of the same name.
    """
    every = [_words(each) for each in others]
    own = _words(upstream)
    differing = [words for place, words in enumerate(own) if len({each[place] for each in every}) > 1]
    return ", ".join(differing) or own[0]


def _words(upstream: UpstreamPart) -> tuple[str, ...]:
    declared = upstream.declared
    assert declared is not None
    times = "one vector an utterance"
    if declared.hop_seconds is not None and declared.first_center_seconds is not None:
        times = f"every {1000 * declared.hop_seconds:g} ms from {1000 * declared.first_center_seconds:g} ms"
    model = declared.model or "no model"
    layers = upstream.layer_names
    return (
        model[:8] if re.fullmatch("[0-9a-f]{16,}", model) else shown(model, 24),
        times,
        f"width {declared.width}",
        "" if declared.num_units is None else f"{declared.num_units} units",
        f"{len(layers)} layer{'s' * (len(layers) > 1)}, {shown(layers[0], 24)} first",
    )


def _of_checkpoint(record: Record, random: str | None) -> str:
    if random is not None:
        return f"untrained {random.partition(':')[2]}"
    checkpoint = record.upstream.checkpoint
    return record.upstream.fingerprint[:8] if checkpoint is None else "/".join(Path(checkpoint).parts[-3:])


def of_newest_files(members: Iterable[Counted], record_of: Callable[[Counted], Record]) -> list[Counted]:
    """The members of a cell in the order of their time, of a declared name only those of the newest one's files.

    A mean over seeds must not mix two sets of features that have one declared name.
    """

    def made(member: Counted) -> tuple[str, str]:
        # The id decides between equal times.
        return record_of(member).created, record_of(member).id

    in_order = sorted(members, key=made)
    newest = record_of(in_order[-1]).upstream
    if newest.declared is None:
        return in_order
    return [each for each in in_order if record_of(each).upstream.fingerprint == newest.fingerprint]


def notes_on_files(members: Iterable[tuple[System, Record]]) -> list[str]:
    """Sentences on systems with a declared name: which files they are of, where that is not beyond doubt."""
    of_system: dict[System, list[Record]] = defaultdict(list)
    for system, record in members:
        if system.declared is not None:
            of_system[system].append(record)
    return [note for system, records in of_system.items() for note in _notes_on_files(system, records)]


def _notes_on_files(system: System, records: Sequence[Record]) -> Iterator[str]:
    assert system.declared is not None
    corpora: dict[str, dict[str, Record]] = defaultdict(dict)
    for record in sorted(records, key=lambda record: (record.created, record.id)):
        corpora[record.corpus.fingerprint][record.upstream.fingerprint] = record
    for of_files in corpora.values():
        if len(of_files) == 1:
            continue
        several = sorted(of_files.values(), key=lambda record: (record.created, record.id), reverse=True)
        places = ", ".join(
            f"{shown(each.upstream.checkpoint or each.upstream.name, 80)} ({each.upstream.fingerprint[:8]})"
            for each in several
        )
        yield (
            f"{system.name}: records on {shown(several[0].corpus.name)} are of {len(several)} sets of files that "
            f"are declared as one model, the newest first: {places}. A number is of the newest set that has it, and "
            "those of other tasks or layers may be of another; another `model` in one declaration makes two rows"
        )
    if system.declared.model is None and len(corpora) > 1:
        names = ", ".join(dict.fromkeys(shown(record.corpus.name) for record in records))
        yield (
            f"{system.name}: one row on {names} by the declared name alone; without a `model` in the declarations, "
            "nothing states that the features are of the same weights"
        )
