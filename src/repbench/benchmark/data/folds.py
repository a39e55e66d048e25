"""Folds: divisions of a corpus of which each tests other utterances, so that every listed one is test once.

A division is a function of the corpus, the task's policy and the settings: never of the upstream or of the order on
disk. The unit of the folds (speaker, group, session, an attribute) is not on two sides of any of them, and dev is cut
from each train by the same unit (docs/design/0028-folds.md).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from repbench.benchmark.data.seeded_shuffle import grouped, shuffled
from repbench.benchmark.data.splits import SHARED_SPEAKERS, Division, cut_dev, each_sound_on_one_side, share_of, shared
from repbench.benchmark.protocol import BY_SPEAKER, SplitSettings
from repbench.corpora.contract import Corpus, Utterance
from repbench.corpora.faults import warnings_of
from repbench.downstream.contract import SplitPolicy
from repbench.errors import DataError, UsageError, did_you_mean

OFFICIAL_FOLD = "fold"
"""The attribute that names the official fold in which an utterance is test."""


@dataclass(frozen=True, slots=True)
class Fold:
    """One fold.

    Attributes:
        name: A number from 1 on, or the name that the corpus gives it.
        division: Its train, dev and test.
    """

    name: str
    division: Division


@dataclass(frozen=True, slots=True)
class Folds:
    """All folds of a corpus.

    Attributes:
        folds: Two or more.
        policy: The way of the division, in words.
        warnings: Facts that a reader of the score needs, in words.
    """

    folds: tuple[Fold, ...]
    policy: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Units:
    """What is not divided.

    Attributes:
        name: speaker, group, session, utterance or the name of an attribute.
        of: From the id of each utterance to its unit.
        warnings: Facts that a reader of the score needs.
    """

    name: str
    of: Mapping[str, str]
    warnings: tuple[str, ...] = ()


def folds_of(corpus: Corpus, policy: SplitPolicy, settings: SplitSettings) -> Folds:
    """The folds that the settings name.

    Raises:
        UsageError: The unit of the folds contradicts the task.
        DataError: The corpus has no official folds, or fewer units than folds; or an utterance lacks its unit.
    """
    units = _units(corpus, settings.folds_by)
    if settings.folds == "official":
        parts, warnings = _official(corpus)
        policy_in_words = f"{len(parts)} official folds"
    else:
        assert settings.folds is not None
        parts, warnings = _dealt(corpus, policy, settings, units), ()
        policy_in_words = f"{len(parts)} folds by {units.name} (seed {settings.seed})"
    if any(each.split is not None for each in corpus.utterances):
        warnings = ("the official splits are not used, because the run has folds", *warnings)
    folds, cut_by = [], set[str]()
    for name, test in parts.items():
        rest = [each for other, part in parts.items() if other != name for each in part]
        division, unit = _with_dev(name, rest, test, units, policy, settings)
        cut_by.add(unit)
        folds.append(Fold(name, _checked(each_sound_on_one_side(division), name, corpus, policy)))
    if "utterance" in cut_by and units.name != "utterance" and policy == "speaker-disjoint":
        warnings = (*warnings, f"dev shares a {units.name} with train, because a fold has no second one to cut off")
    return Folds(
        tuple(folds),
        f"{policy_in_words}, dev cut from train by {' or '.join(sorted(cut_by))}",
        (*warnings_of(corpus), *warnings, *units.warnings, *_of_folds(folds, policy)),
    )


def _units(corpus: Corpus, by: str) -> _Units:
    if by == BY_SPEAKER:
        return _speakers(corpus)
    values = {each.id: _value(each, by) for each in corpus.utterances}
    lacking = [id_ for id_, value in values.items() if value is None]
    if lacking:
        known = sorted({name for each in corpus.utterances for name in each.attributes} | {"group", BY_SPEAKER})
        guess = did_you_mean(by, known).strip() if by not in known else "Give every utterance one"
        raise DataError(
            f"{len(lacking)} of {len(values)} utterances of {corpus.name} have no `{by}` to make folds by",
            utterance=lacking[0],
            key="split.folds_by",
            do=guess or f"Choose one of {', '.join(known)}",
        )
    return _Units(by, {id_: str(value) for id_, value in values.items()})


def _value(utterance: Utterance, by: str) -> object:
    """The unit of an utterance; a session is its own attribute or, without one, the group."""
    if by == "group":
        return utterance.group
    return utterance.attributes.get(by, utterance.group if by == "session" else None)


def _speakers(corpus: Corpus) -> _Units:
    """Speakers, or groups, or, with one speaker and no group, utterances."""
    utterances = corpus.utterances
    known = {each.speaker for each in utterances}
    if None in known and len(known) > 1:
        unknown = [each.id for each in utterances if each.speaker is None]
        raise DataError(
            f"{len(unknown)} of {len(utterances)} utterances of {corpus.name} have no speaker",
            utterance=unknown[0],
            do="Give every utterance a speaker, or none, or set split.folds_by",
        )
    if len(known) >= 2:
        return _Units(BY_SPEAKER, {each.id: str(each.speaker) for each in utterances})
    why = "the corpus has no speaker labels" if None in known else "the corpus has one speaker"
    groups = {each.group for each in utterances}
    if None not in groups and len(groups) >= 2:
        warning = f"folds are by group, because {why}: {SHARED_SPEAKERS}"
        return _Units("group", {each.id: str(each.group) for each in utterances}, (warning,))
    warning = f"folds are by utterance, because {why} and has no groups: {SHARED_SPEAKERS}"
    return _Units("utterance", {each.id: each.id for each in utterances}, (warning,))


def _official(corpus: Corpus) -> tuple[dict[str, list[Utterance]], tuple[str, ...]]:
    """The test utterances of each fold that the corpus declares, and a warning about those that are in none."""
    named = [each for each in corpus.utterances if OFFICIAL_FOLD in each.attributes]
    parts = grouped(named, lambda each: str(each.attributes[OFFICIAL_FOLD]))
    if len(parts) < 2:
        raise DataError(
            f"{corpus.name} has no official folds: its attribute `{OFFICIAL_FOLD}` has {len(parts)} values",
            key="split.folds",
            do="Give a number of folds, or prepare the corpus with this attribute",
        )
    num_left = len(corpus.utterances) - len(named)
    warnings = (f"{num_left} utterances belong to no official fold and are not used",) if num_left else ()
    # Fold 10 comes after fold 9.
    in_order = sorted(parts, key=lambda name: (int(name) if name.isdecimal() else float("inf"), name))
    return {name: parts[name] for name in in_order}, warnings


def _dealt(corpus: Corpus, policy: SplitPolicy, settings: SplitSettings, units: _Units) -> dict[str, list[Utterance]]:
    """The test utterances of each fold: units in a seeded order, dealt like cards."""
    assert isinstance(settings.folds, int)
    order = _order(corpus, policy, settings, units)
    if len(order) < settings.folds:
        raise DataError(
            f"{corpus.name} has {len(order)} {units.name}{'s' * (len(order) != 1)}, too few for {settings.folds} folds",
            key="split.folds",
            do=f"Give at most {len(order)}, or another split.folds_by",
        )
    place = {unit: number % settings.folds for number, unit in enumerate(order)}
    parts: dict[str, list[Utterance]] = {str(number + 1): [] for number in range(settings.folds)}
    for utterance in corpus.utterances:
        parts[str(place[units.of[utterance.id]] + 1)].append(utterance)
    return parts


def _order(corpus: Corpus, policy: SplitPolicy, settings: SplitSettings, units: _Units) -> list[str]:
    salt = f"folds by {units.name}"
    if policy == "speaker-disjoint":
        return shuffled(set(units.of.values()), settings.seed, salt)
    if units.name == BY_SPEAKER:
        raise UsageError(
            "The task needs each speaker in train and in test, so its folds cannot be by speaker",
            key="split.folds_by",
            do="Set split.folds_by=group, session or an attribute",
        )
    # Speaker after speaker: the units of one with two or more are dealt to two or more folds.
    by_speaker = grouped(corpus.utterances, lambda each: each.speaker or "")
    several = (shuffled({units.of[each.id] for each in own}, settings.seed, salt) for own in by_speaker.values())
    return list(dict.fromkeys(unit for own in several for unit in own))


def _with_dev(
    name: str,
    rest: Iterable[Utterance],
    test: Iterable[Utterance],
    units: _Units,
    policy: SplitPolicy,
    settings: SplitSettings,
) -> tuple[Division, str]:
    """The division of a fold, and the unit by which its dev is cut from train."""
    train, test = (sorted(part, key=lambda each: each.id) for part in (rest, test))
    order = shuffled({units.of[each.id] for each in train}, settings.seed, f"dev of fold {name}")
    if policy == "within-speaker" or len(order) < 2:
        return cut_dev(Division(train, [], test, ""), settings), "utterance"
    chosen = set(order[: share_of(len(order), settings.dev_share)])
    kept = [each for each in train if units.of[each.id] not in chosen]
    cut = [each for each in train if units.of[each.id] in chosen]
    return Division(kept, cut, test, ""), units.name


def _checked(division: Division, name: str, corpus: Corpus, policy: SplitPolicy) -> Division:
    if policy == "within-speaker":
        unknown = {each.speaker for each in division.test} - {each.speaker for each in division.train}
        if unknown:
            raise DataError(
                f"In fold {name} of {corpus.name}, {len(unknown)} speakers are in test and not in train, such as "
                f"{min(str(each) for each in unknown)}, and the task needs every speaker in both",
                key="split.folds_by",
                do="Choose a unit of which every speaker has two or more",
            )
    for part in ("train", "dev", "test"):
        if not getattr(division, part):
            raise DataError(
                f"{corpus.name} has too few utterances ({len(corpus.utterances)}) for a {part} split in fold {name}",
                key="split.folds",
                do="Take fewer folds or a larger corpus",
            )
    return replace(division, warnings=(*division.warnings, *shared(division, policy)))


def _of_folds(folds: Sequence[Fold], policy: SplitPolicy) -> tuple[str, ...]:
    """The warnings of the folds, each once, with the folds that have it."""
    several: dict[str, list[str]] = defaultdict(list)
    for fold in folds:
        for warning in fold.division.warnings:
            several[warning].append(fold.name)
    return tuple(f"{where(names, len(folds))}: {warning}" for warning, names in several.items())


def where(names: Sequence[str], num_folds: int) -> str:
    """Some folds in words."""
    if len(names) == num_folds:
        return "in every fold"
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"in fold{'s' * (len(names) > 1)} {', '.join(names[:3])}{more}"
