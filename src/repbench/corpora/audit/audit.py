"""The audit of a corpus: every sound decoded again, compared with what the manifest says of it, and listened to.

A *problem* is something broken: the corpus is not to be scored. A *warning* is something that a reader of a score
should know; a strict audit takes it for a problem.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from repbench.audio.feature_files import measure_features
from repbench.audio.quality import Quality, quality
from repbench.audio.sound import Channel, Measure, read_sound
from repbench.corpora.contract import Corpus, Progress, Utterance
from repbench.corpora.faults import both, is_leak, same_sound, warnings_of
from repbench.corpora.manifest.feature_column import refuse_unfit
from repbench.errors import DataError, IntegrityError, RepbenchError

SHORTEST_SECONDS = 0.025
"""An utterance shorter than one analysis window is a problem: no upstream can say anything of it."""

CLIPPED_RUN_SAMPLES = 3
"""So many samples at full scale one after the other are clipped; a single one may be a peak."""

LARGEST_ZERO_SHARE = 0.5
LARGEST_OFFSET = 0.02
SMALLEST_ALIGNED_SHARE = 0.5

_SPLIT_PAIRS = (("train", "dev"), ("train", "test"), ("dev", "test"))
_KNOWABLE = ("features", "group", "phones", "speaker", "text")
_MOST_VALUES = 50
_MOST_NAMED = 10
_T = TypeVar("_T", int, str)


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundFigures:
    """How the sounds of a corpus were recorded, over all samples that could be decoded.

    Attributes:
        clipped_share: Share of samples at full scale.
        longest_clip_samples: The longest run of samples at full scale.
        zero_share: Share of samples that are exactly 0.
        largest_offset: The largest absolute mean of an utterance.
        quietest_db: Level of the quietest utterance that is not digital silence, in decibels below full scale; None
            without any.
        loudest_db: Level of the loudest.
    """

    clipped_share: float
    longest_clip_samples: int
    zero_share: float
    largest_offset: float
    quietest_db: float | None
    loudest_db: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What an audit found.

    Attributes:
        name: Name of the corpus.
        licence: Under which its sound may be used.
        fingerprint: Of the corpus.
        num_utterances: Utterances listed.
        seconds: Their total duration.
        num_speakers: Speakers named.
        rates: Utterances by sample rate in hertz.
        shortest_seconds: Duration of the shortest utterance.
        median_seconds: The median duration.
        longest_seconds: Duration of the longest.
        splits: Utterances by official split; "none" where an utterance has none.
        coverage: By what can be known of an utterance (`phones`, `speaker`, `attributes.emotion`, …), how many have it,
            by split and in `all`.
        aligned_share: Share of the duration of the aligned utterances that carries a phone; None without alignments.
        label_counts: By kind of label, how often each occurs: `phones` (intervals), `speakers` (utterances), and every
            attribute with few values (utterances).
        sound: How the sounds were recorded; None if none could be decoded.
        flagged: By what was noticed of their sound or labels (`clipped`, `narrow`, …), the ids of the utterances.
        problems: One line for each thing that is broken; a corpus with any is not to be scored.
        warnings: One line for each thing that a reader of a score should know.
        exit_code: 0 without problems; else that of the gravest: 3 for data, 4 for bytes that are not what they claim.
    """

    name: str
    licence: str
    fingerprint: str
    num_utterances: int
    seconds: float
    num_speakers: int
    rates: Mapping[int, int]
    shortest_seconds: float
    median_seconds: float
    longest_seconds: float
    splits: Mapping[str, int]
    coverage: Mapping[str, Mapping[str, int]]
    aligned_share: float | None
    label_counts: Mapping[str, Mapping[str, int]]
    sound: SoundFigures | None
    flagged: Mapping[str, tuple[str, ...]]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    exit_code: int

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        fields = dataclasses.asdict(self)
        fields["rates"] = {str(rate): count for rate, count in self.rates.items()}
        fields["flagged"] = {kind: list(ids) for kind, ids in self.flagged.items()}
        return {**fields, "problems": list(self.problems), "warnings": list(self.warnings)}


def check(corpus: Corpus, *, strict: bool = False, progress: Progress | None = None) -> CheckReport:
    """Decode every sound of a corpus again and report what it is and what is wrong with it.

    A broken utterance does not stop the audit: each is named in `problems`.

    Args:
        corpus: An opened corpus.
        strict: Whether a warning is a problem.
        progress: Called with (utterances read, all utterances).
    """
    utterances = corpus.utterances
    durations = [utterance.seconds for utterance in utterances] or [0.0]
    heard = list(_heard(corpus, progress))
    flagged = _flagged(utterances, heard)
    problems = [*_problems(corpus, heard), *_overlaps(utterances)]
    warnings = [
        *warnings_of(corpus),
        *_shared_warnings(utterances),
        *_label_warnings(corpus),
        *_flag_warnings(flagged, len(utterances)),
    ]
    lines = [problem.line() for problem in problems] + (warnings if strict else [])
    codes = [problem.exit_code for problem in problems] + [DataError.exit_code] * (strict and bool(warnings))
    return CheckReport(
        name=corpus.name,
        licence=corpus.licence,
        fingerprint=corpus.fingerprint,
        num_utterances=len(utterances),
        seconds=sum(durations),
        num_speakers=len({utterance.speaker for utterance in utterances} - {None}),
        rates=_counts(utterance.sample_rate_hz for utterance in utterances),
        shortest_seconds=min(durations),
        median_seconds=statistics.median(durations),
        longest_seconds=max(durations),
        splits=_counts(utterance.split or "none" for utterance in utterances),
        coverage=_coverage(utterances),
        aligned_share=_aligned_share([utterance for utterance in utterances if utterance.phones is not None]),
        label_counts=_label_counts(utterances),
        sound=_sound_figures(heard),
        flagged=flagged,
        problems=tuple(lines),
        warnings=() if strict else tuple(warnings),
        exit_code=max(codes, default=0),
    )


class _Findings(NamedTuple):
    """What was found in the files of an utterance: each a fault, or what was measured."""

    sound: tuple[Measure, Quality] | DataError
    features_fault: RepbenchError | None


def _heard(corpus: Corpus, progress: Progress | None) -> Iterator[_Findings]:
    """Read the files of each utterance, in their order and a few at a time."""

    def hear(utterance: Utterance) -> _Findings:
        return _Findings(_sound(utterance), _features_fault(utterance, corpus))

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for done, heard in enumerate(pool.map(hear, corpus.utterances), start=1):
            if progress is not None:
                progress(done, len(corpus.utterances))
            yield heard


def _sound(utterance: Utterance) -> tuple[Measure, Quality] | DataError:
    try:
        samples, rate_hz = read_sound(
            utterance.audio,
            start=utterance.start,
            end=utterance.end,
            utterance=utterance.id,
            channel=utterance.channel,
        )
    except DataError as error:
        return error
    digest = hashlib.sha256(samples.astype("<f4", copy=False).data).hexdigest()
    return Measure(rate_hz, len(samples), digest), quality(samples, rate_hz)


def _features_fault(utterance: Utterance, corpus: Corpus) -> RepbenchError | None:
    """What is wrong with the precomputed frames of an utterance; None if nothing is, or if it has none."""
    if utterance.features is None or corpus.features is None:
        return None
    try:
        measure = measure_features(utterance.features, utterance=utterance.id)
        refuse_unfit(utterance, measure, corpus.features)
    except (DataError, IntegrityError) as error:
        return error
    if measure.sha256 == utterance.features_sha256:
        return None
    what, do = "The features are not those that the manifest was made of", "Prepare the corpus again"
    return IntegrityError(what, file=utterance.features, utterance=utterance.id, do=do)


def _problems(corpus: Corpus, heard: Sequence[_Findings]) -> Iterator[RepbenchError]:
    if not corpus.utterances:
        yield DataError("The corpus has no utterance", do="Prepare it again")
    seen: dict[str, dict[str | None, Utterance]] = defaultdict(dict)
    for utterance, found in zip(corpus.utterances, heard, strict=True):
        fault = found.sound if isinstance(found.sound, DataError) else _difference(utterance, *found.sound)
        if fault is not None:
            yield fault
        if found.features_fault is not None:
            yield found.features_fault
        digests = {utterance.samples_sha256}
        if not isinstance(found.sound, DataError):
            digests.add(found.sound[0].samples_sha256)
        owners = [owner for digest in sorted(digests) for owner in seen[digest].values()]
        for other in {owner.id: owner for owner in owners if is_leak(owner, utterance)}.values():
            yield same_sound(other, utterance, at=utterance)
        for digest in digests:
            seen[digest].setdefault(utterance.split, utterance)


def _difference(utterance: Utterance, found: Measure, heard: Quality) -> DataError | None:
    """What the sound is and the manifest does not say; None where they agree and there is something to hear."""
    what, do = None, "Prepare the corpus again"
    if found.sample_rate_hz != utterance.sample_rate_hz:
        what = f"The sound has {found.sample_rate_hz} Hz, but the manifest says {utterance.sample_rate_hz}"
    elif found.num_samples != utterance.num_samples:
        what = f"The sound has {found.num_samples} samples, but the manifest says {utterance.num_samples}"
    elif found.samples_sha256 != utterance.samples_sha256:
        what = "The samples are not those that the manifest was made of"
    elif utterance.seconds < SHORTEST_SECONDS:
        what = f"The utterance lasts {utterance.seconds:g} s, which is less than a window of {SHORTEST_SECONDS:g} s"
        do = "Take it out of the corpus"
    elif heard.is_silent:
        what, do = "Every sample is 0: there is nothing to hear", "Take it out of the corpus"
    return None if what is None else DataError(what, file=utterance.audio, utterance=utterance.id, do=do)


def _overlaps(utterances: Iterable[Utterance]) -> Iterator[DataError]:
    """A problem for each utterance that shares samples with an earlier one cut from the same file.

    The same stretch under two ids is an equal sound, which is a warning within a split.
    """
    cut: dict[tuple[Path, Channel | None], list[tuple[int, int, Utterance]]] = defaultdict(list)
    for utterance in utterances:
        first = round((utterance.start or 0.0) * utterance.sample_rate_hz)
        cut[utterance.audio, utterance.channel].append((first, first + utterance.num_samples, utterance))
    for stretches in cut.values():
        stretches.sort(key=lambda stretch: (stretch[0], stretch[1], stretch[2].id))
        reach, owner, whole = stretches[0][1], stretches[0][2], stretches[0][:2]
        for first, last, utterance in stretches[1:]:
            is_the_same = (first, last) == whole and not is_leak(owner, utterance)
            if first < reach and not is_the_same:
                shared = (min(reach, last) - first) / utterance.sample_rate_hz
                what = f"The utterances {both(owner, utterance)} overlap by {shared:.3f} s of one file"
                do = "Correct `start` and `end`, or remove one of them"
                yield DataError(what, file=utterance.audio, utterance=utterance.id, do=do)
            if last > reach:
                reach, owner, whole = last, utterance, (first, last)


def _shared_warnings(utterances: Sequence[Utterance]) -> Iterator[str]:
    yield from _shared("speakers", utterances, lambda each: each.speaker)
    yield from _shared("groups", utterances, lambda each: each.group)
    yield from _shared("texts", utterances, lambda each: " ".join((each.text or "").casefold().split()) or None)


def _shared(kind: str, utterances: Iterable[Utterance], of: Callable[[Utterance], str | None]) -> Iterator[str]:
    """A warning for each pair of official splits that have speakers, groups or texts in common."""
    members: dict[str, set[str]] = defaultdict(set)
    for utterance in utterances:
        if utterance.split is not None and (member := of(utterance)) is not None:
            members[utterance.split].add(member)
    for first, second in _SPLIT_PAIRS:
        shared = members[first] & members[second]
        if shared:
            yield f"{len(shared)} of the {len(members[second])} {kind} of {second} are also in {first}"


def _label_warnings(corpus: Corpus) -> Iterator[str]:
    num_unaligned = sum(utterance.phones is None for utterance in corpus.utterances)
    if "phones" in corpus.label_sets and num_unaligned:
        yield f"{num_unaligned} of {len(corpus.utterances)} utterances have no alignment"
    num_without = sum(utterance.features is None for utterance in corpus.utterances)
    if corpus.features is not None and num_without:
        yield f"{num_without} of {len(corpus.utterances)} utterances have no features"
    yield from _phones_that_never_occur(corpus)
    yield from _values_only_in_test(corpus.utterances)


def _phones_that_never_occur(corpus: Corpus) -> Iterator[str]:
    met: dict[str, set[str]] = defaultdict(set)
    for utterance in corpus.utterances:
        if utterance.phones is not None:
            for part in ("", utterance.split or ""):
                met[part].update(phone.label for phone in utterance.phones)
    known = set(corpus.label_sets.get("phones", ()))
    nowhere = sorted(known - met[""]) if met else []
    if nowhere:
        yield f"{len(nowhere)} of the {len(known)} phones never occur: {_named(nowhere)}"
    for split in ("train", "test"):
        missing = sorted(met[""] - met[split]) if split in met else []
        if missing:
            yield f"{len(missing)} phones never occur in {split}: {_named(missing)}"


def _values_only_in_test(utterances: Iterable[Utterance]) -> Iterator[str]:
    """A warning for each named attribute of which the test split asks what train does not teach."""
    values: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for utterance in utterances:
        for name, value in utterance.attributes.items():
            if utterance.split is not None and isinstance(value, str):
                values[name][utterance.split].add(value)
    for name, by_split in sorted(values.items()):
        names_the_split = not by_split["test"] & by_split["train"]  # a subset's name, say, teaches nothing
        only = [] if names_the_split else sorted(by_split["test"] - by_split["train"])
        if only and len(by_split["test"] | by_split["train"]) <= _MOST_VALUES:
            yield f"{len(only)} values of `{name}` in test never occur in train: {_named(only)}"


_FLAGS: Mapping[str, tuple[str, Callable[[Quality], bool]]] = {
    "clipped": (
        f"are clipped ({CLIPPED_RUN_SAMPLES} or more samples at full scale in a row)",
        lambda heard: heard.longest_clip_samples >= CLIPPED_RUN_SAMPLES,
    ),
    "zeros": (
        f"are digital silence (exact zeros) for more than {LARGEST_ZERO_SHARE:.0%}",
        lambda heard: heard.zero_share > LARGEST_ZERO_SHARE and not heard.is_silent,
    ),
    "offset": (f"have a DC offset above {LARGEST_OFFSET:g}", lambda heard: abs(heard.offset) > LARGEST_OFFSET),
    "narrow": ("look like 8 kHz sound stored at a higher rate", lambda heard: heard.is_narrow),
}
_BARELY_ALIGNED = f"carry phones for less than {SMALLEST_ALIGNED_SHARE:.0%} of their duration"


def _flagged(utterances: Sequence[Utterance], heard: Sequence[_Findings]) -> dict[str, tuple[str, ...]]:
    flagged = {
        kind: tuple(
            utterance.id
            for utterance, found in zip(utterances, heard, strict=True)
            if not isinstance(found.sound, DataError) and is_flagged(found.sound[1])
        )
        for kind, (_, is_flagged) in _FLAGS.items()
    }
    flagged["barely_aligned"] = tuple(
        utterance.id
        for utterance in utterances
        if utterance.phones is not None and (_aligned_share([utterance]) or 0.0) < SMALLEST_ALIGNED_SHARE
    )
    return {kind: ids for kind, ids in flagged.items() if ids}


def _flag_warnings(flagged: Mapping[str, tuple[str, ...]], num_utterances: int) -> Iterator[str]:
    for kind, ids in flagged.items():
        what = _BARELY_ALIGNED if kind == "barely_aligned" else _FLAGS[kind][0]
        yield f"{len(ids)} of {num_utterances} utterances {what}, such as `{ids[0]}`"


def _aligned_share(utterances: Sequence[Utterance]) -> float | None:
    seconds = sum(utterance.seconds for utterance in utterances)
    if not seconds:
        return None
    aligned = sum(phone.end_s - phone.start_s for utterance in utterances for phone in utterance.phones or ())
    return min(1.0, aligned / seconds)


def _sound_figures(heard: Sequence[_Findings]) -> SoundFigures | None:
    sounds = [found.sound for found in heard if not isinstance(found.sound, DataError)]
    num_samples = sum(measure.num_samples for measure, _ in sounds)
    if not sounds:
        return None
    levels = [each.level_db for _, each in sounds if not each.is_silent]
    return SoundFigures(
        clipped_share=sum(each.clipped_share * measure.num_samples for measure, each in sounds) / num_samples,
        longest_clip_samples=max(each.longest_clip_samples for _, each in sounds),
        zero_share=sum(each.zero_share * measure.num_samples for measure, each in sounds) / num_samples,
        largest_offset=max(abs(each.offset) for _, each in sounds),
        quietest_db=min(levels, default=None),
        loudest_db=max(levels, default=None),
    )


def _coverage(utterances: Iterable[Utterance]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for utterance in utterances:
        known = [name for name in _KNOWABLE if getattr(utterance, name) is not None]
        for name in (*known, *(f"attributes.{name}" for name in utterance.attributes)):
            counts[name].update({"all": 1, utterance.split or "none": 1})
    return {name: dict(sorted(count.items())) for name, count in sorted(counts.items())}


def _label_counts(utterances: Iterable[Utterance]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for utterance in utterances:
        counts["phones"].update(phone.label for phone in utterance.phones or ())
        if utterance.speaker is not None:
            counts["speakers"][utterance.speaker] += 1
        for name, value in utterance.attributes.items():
            counts[f"attributes.{name}"][str(value)] += 1
    return {
        kind: dict(sorted(count.items()))
        for kind, count in sorted(counts.items())
        if count and (not kind.startswith("attributes.") or len(count) <= _MOST_VALUES)
    }


def _counts(values: Iterable[_T]) -> dict[_T, int]:
    return dict(sorted(Counter(values).items()))


def _named(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _MOST_NAMED} more" if len(labels) > _MOST_NAMED else ""
    return ", ".join(f"`{label}`" for label in labels[:_MOST_NAMED]) + more
