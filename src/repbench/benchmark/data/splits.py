"""The division of a corpus: its official splits where they satisfy the task's policy, else a seeded one.

A division is a function of the corpus, the task's policy and the seed: never of the upstream or of the order on disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from repbench.benchmark.data.seeded_shuffle import grouped, shuffled
from repbench.benchmark.protocol import SplitSettings
from repbench.corpora.contract import Corpus, Utterance
from repbench.corpora.faults import warnings_of
from repbench.downstream.contract import SplitPolicy
from repbench.errors import DataError

OFFICIAL = "official splits"


@dataclass(frozen=True, slots=True)
class Division:
    """The utterances of the three splits.

    Attributes:
        train: Those that are trained on.
        dev: Those that select.
        test: Those that are scored.
        policy: The way of the division, in words.
        warnings: Facts that a reader of the score needs, in words.
    """

    train: list[Utterance]
    dev: list[Utterance]
    test: list[Utterance]
    policy: str
    warnings: tuple[str, ...] = ()


def divide(corpus: Corpus, policy: SplitPolicy, settings: SplitSettings) -> Division:
    """The official splits where they satisfy the policy, else a seeded division of all listed utterances.

    Raises:
        DataError: There are too few utterances to divide, or only some of them have a speaker.
    """
    official, reason = _official(corpus, policy, always=settings.official == "always")
    if official is not None:
        division = official
    elif policy == "speaker-disjoint":
        division = _speaker_disjoint(corpus, settings)
    else:
        division = _within_speaker(corpus, settings)
    if reason is not None:
        division = replace(division, warnings=(f"the official splits are not used: {reason}", *division.warnings))
    # A dev split is cut before the check of sounds, so that a sound in train twice does not end up on both sides.
    if not division.dev:
        division = cut_dev(division, settings)
    division = each_sound_on_one_side(division)
    for name in ("train", "dev", "test"):
        if not getattr(division, name):
            raise DataError(
                f"{corpus.name} has too few utterances ({len(corpus.utterances)}) for a {name} split",
                do="Choose a larger corpus",
            )
    return replace(division, warnings=(*warnings_of(corpus), *division.warnings, *shared(division, policy)))


def each_sound_on_one_side(division: Division) -> Division:
    """The division without train utterances whose sound is also in dev or test, and dev utterances whose is in test.

    A corpus may hold a sound under two ids, as long as no two official splits share it.
    """
    # Test keeps all its utterances, so that the score is over the published list; dev and train give way, in this
    # order.
    scored = {each.samples_sha256 for each in division.test}
    dev = [each for each in division.dev if each.samples_sha256 not in scored]
    held_out = scored | {each.samples_sha256 for each in dev}
    train = [each for each in division.train if each.samples_sha256 not in held_out]
    num_lost = len(division.dev) - len(dev) + len(division.train) - len(train)
    if not num_lost:
        return division
    lost = f"{num_lost} utterances of train or dev are not used, because their sound is also in dev or test"
    return replace(division, train=train, dev=dev, warnings=(*division.warnings, lost))


def _official(corpus: Corpus, policy: SplitPolicy, *, always: bool) -> tuple[Division | None, str | None]:
    """The official division, or the reason why it is not used; neither where the corpus has none."""
    parts = {name: [each for each in corpus.utterances if each.split == name] for name in ("train", "dev", "test")}
    if not any(parts.values()):
        return None, None
    if not parts["train"] or not parts["test"]:
        return None, f"they have no {'train' if not parts['train'] else 'test'} part"
    unassigned = len(corpus.utterances) - sum(len(part) for part in parts.values())
    warnings = (f"{unassigned} utterances belong to no official split and are not used",) if unassigned else ()
    division = Division(parts["train"], parts["dev"], parts["test"], OFFICIAL, warnings)
    if always:
        return division, None
    known = {each.speaker for each in corpus.utterances}
    train = {each.speaker for each in parts["train"]}
    heldout = {each.speaker for each in (*parts["dev"], *parts["test"])}
    if policy == "within-speaker":
        return (division, None) if heldout <= train else (None, "some of their test speakers are not in train")
    if len(known) == 1:
        said = "one speaker" if None not in known else "no speaker labels"
        unchecked = f"the corpus has {said}, so the official splits cannot keep speakers apart"
        return replace(division, warnings=(*warnings, unchecked)), None
    # `-` binds before `&`: utterances without a speaker share none.
    if heldout & train - {None}:
        return None, "some of their test or dev speakers are also in train"
    return division, None


def _speaker_disjoint(corpus: Corpus, settings: SplitSettings) -> Division:
    """By speaker, or by group, or, with one speaker and no group, by utterance."""
    silent = [each for each in corpus.utterances if each.speaker is None]
    speakers = {each.speaker for each in corpus.utterances} - {None}
    if silent and speakers:
        raise DataError(
            f"{len(silent)} of {len(corpus.utterances)} utterances of {corpus.name} have no speaker",
            utterance=silent[0].id,
            do="Give every utterance a speaker, or none",
        )
    if len(speakers) >= 2:
        return _by_unit(corpus, "speaker", settings, ())
    why = "the corpus has one speaker" if speakers else "the corpus has no speaker labels"
    groups = {each.group for each in corpus.utterances}
    if None not in groups and len(groups) >= 2:
        return _by_unit(corpus, "group", settings, (f"divided by group, because {why}: {SHARED_SPEAKERS}",))
    parts = _deal(corpus.utterances, settings, "utterance")
    warning = f"divided by utterance, because {why} and has no groups: {SHARED_SPEAKERS}"
    return Division(*parts, f"seeded by utterance (seed {settings.seed})", (warning,))


SHARED_SPEAKERS = "the test speakers may also be in train"
"""The end of a warning about a division that is not by speaker."""


def _by_unit(corpus: Corpus, unit: str, settings: SplitSettings, warnings: tuple[str, ...]) -> Division:
    order = shuffled({getattr(each, unit) for each in corpus.utterances}, settings.seed, unit)
    num_test = share_of(len(order), settings.test_share)
    # With two units there is none left for dev: `cut_dev` takes it from train by utterance.
    num_dev = share_of(len(order), settings.dev_share) if len(order) >= 3 else 0
    test, dev = set(order[:num_test]), set(order[num_test : num_test + num_dev])
    parts: tuple[list[Utterance], list[Utterance], list[Utterance]] = ([], [], [])
    for utterance in corpus.utterances:
        name = getattr(utterance, unit)
        parts[2 if name in test else 1 if name in dev else 0].append(utterance)
    return Division(*parts, f"seeded by {unit} (seed {settings.seed})", warnings)


def _within_speaker(corpus: Corpus, settings: SplitSettings) -> Division:
    """By session where each speaker has two or more, else by utterance; every speaker is on both sides."""
    by_speaker = grouped(corpus.utterances, lambda each: each.speaker or "")
    sessions = {name: grouped(own, lambda each: each.group or "") for name, own in by_speaker.items()}
    in_sessions = all(len(own) >= 2 and "" not in own for own in sessions.values())
    train: list[Utterance] = []
    dev: list[Utterance] = []
    test: list[Utterance] = []
    for name, own in by_speaker.items():
        if in_sessions:
            parts = _deal_sessions(sessions[name], settings, name)
        else:
            parts = _deal(own, settings, name)
        for part, more in zip((train, dev, test), parts, strict=True):
            part.extend(more)
    unit = "session" if in_sessions else "utterance"
    warning = "divided by utterance, because not every speaker has two sessions: the score also depends on the session"
    return Division(
        train,
        dev,
        test,
        f"seeded by {unit} within each speaker (seed {settings.seed})",
        () if in_sessions else (warning,),
    )


def _deal(
    utterances: Sequence[Utterance], settings: SplitSettings, salt: str
) -> tuple[list[Utterance], list[Utterance], list[Utterance]]:
    """Deal utterances into train, dev and test; with fewer than three, train is served first, then test."""
    order = shuffled([each.id for each in utterances], settings.seed, salt)
    by_id = {each.id: each for each in utterances}
    num_test = share_of(len(order), settings.test_share) if len(order) >= 2 else 0
    num_dev = share_of(len(order), settings.dev_share) if len(order) >= 3 else 0
    parts = (order[num_test + num_dev :], order[num_test : num_test + num_dev], order[:num_test])
    train, dev, test = ([by_id[id_] for id_ in sorted(part)] for part in parts)
    return train, dev, test


def _deal_sessions(
    sessions: Mapping[str, Sequence[Utterance]], settings: SplitSettings, salt: str
) -> tuple[list[Utterance], list[Utterance], list[Utterance]]:
    """Deal one speaker's sessions; with only two, dev is cut from the training session."""
    order = shuffled(sorted(sessions), settings.seed, salt)
    num_test = share_of(len(order), settings.test_share)
    test = [each for name in order[:num_test] for each in sessions[name]]
    if len(order) >= 3:
        num_dev = share_of(len(order), settings.dev_share)
        dev = [each for name in order[num_test : num_test + num_dev] for each in sessions[name]]
        return [each for name in order[num_test + num_dev :] for each in sessions[name]], dev, test
    rest = [each for name in order[num_test:] for each in sessions[name]]
    train, dev = _cut(rest, settings, salt)
    return train, dev, test


def cut_dev(division: Division, settings: SplitSettings) -> Division:
    """A missing dev is cut from train, evenly over the speakers."""
    train: list[Utterance] = []
    dev: list[Utterance] = []
    for name, own in grouped(division.train, lambda each: each.speaker or "").items():
        kept, cut = _cut(own, settings, name)
        train.extend(kept)
        dev.extend(cut)
    return replace(division, train=train, dev=dev, policy=f"{division.policy}, dev cut from train by utterance")


def _cut(
    utterances: Sequence[Utterance], settings: SplitSettings, salt: str
) -> tuple[list[Utterance], list[Utterance]]:
    order = shuffled([each.id for each in utterances], settings.seed, f"dev {salt}")
    chosen = set(order[: share_of(len(order), settings.dev_share) if len(order) >= 2 else 0])
    return [each for each in utterances if each.id not in chosen], [each for each in utterances if each.id in chosen]


def shared(division: Division, policy: SplitPolicy) -> tuple[str, ...]:
    """Speakers or groups that test shares with train or dev against the policy, in words."""
    warnings = []
    for unit in ("speaker", "group") if policy == "speaker-disjoint" else ("group",):
        scored = {getattr(each, unit) for each in division.test} - {None}
        known = {getattr(each, unit) for each in (*division.train, *division.dev)}
        common = scored & known
        if common and len(scored | known) > 1:
            warnings.append(f"{len(common)} of {len(scored)} test {unit}s are also in train or dev")
    return tuple(warnings)


def share_of(count: int, share: float) -> int:
    """A share of a number of units, at least one."""
    # At least one, else a small corpus would have an empty test or dev.
    return max(1, round(share * count))
