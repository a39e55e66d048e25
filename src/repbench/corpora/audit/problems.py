"""Problems of a corpus: files that are broken or differ from the manifest, leaks between splits, overlaps."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from repbench.audio.feature_files import measure_features
from repbench.audio.quality import Quality, quality
from repbench.audio.sound import Channel, Measure, read_sound
from repbench.corpora.contract import Corpus, Progress, Utterance
from repbench.corpora.faults import both, is_leak, same_sound
from repbench.corpora.manifest.feature_column import refuse_unfit
from repbench.corpora.manifest.reading_ahead import read_each
from repbench.errors import DataError, IntegrityError, RepbenchError

SHORTEST_SECONDS = 0.025
"""An utterance shorter than one analysis window, in seconds, is a problem: no upstream can represent it."""


class UtteranceFindings(NamedTuple):
    """Findings in the files of an utterance: measures of the sound or its fault, and the fault of the features."""

    sound: tuple[Measure, Quality] | DataError
    features_fault: RepbenchError | None


def read_all(corpus: Corpus, progress: Progress | None) -> Iterator[UtteranceFindings]:
    """Read the files of each utterance in order, a few at a time."""

    def read_files(utterance: Utterance) -> UtteranceFindings:
        return UtteranceFindings(_sound(utterance), _features_fault(utterance, corpus))

    yield from read_each(read_files, corpus.utterances, progress)


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
    # as `repbench.audio.sound.measure`, without decoding the sound twice
    digest = hashlib.sha256(samples.astype("<f4", copy=False).data).hexdigest()
    return Measure(rate_hz, len(samples), digest), quality(samples, rate_hz)


def _features_fault(utterance: Utterance, corpus: Corpus) -> RepbenchError | None:
    """The fault of the precomputed frames of an utterance; None without one, or without frames."""
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


def problems_of(corpus: Corpus, findings: Sequence[UtteranceFindings]) -> Iterator[RepbenchError]:
    if not corpus.utterances:
        yield DataError("The corpus has no utterance", do="Prepare it again")
    seen: dict[str, dict[str | None, Utterance]] = defaultdict(dict)
    for utterance, found in zip(corpus.utterances, findings, strict=True):
        fault = found.sound if isinstance(found.sound, DataError) else _difference(utterance, *found.sound)
        if fault is not None:
            yield fault
        if found.features_fault is not None:
            yield found.features_fault
        # both the hash of the manifest and that of the sound, so that a replaced file is compared too
        digests = {utterance.samples_sha256}
        if not isinstance(found.sound, DataError):
            digests.add(found.sound[0].samples_sha256)
        owners = [owner for digest in sorted(digests) for owner in seen[digest].values()]
        for other in {owner.id: owner for owner in owners if is_leak(owner, utterance)}.values():
            yield same_sound(other, utterance, at=utterance)
        for digest in digests:
            seen[digest].setdefault(utterance.split, utterance)


def _difference(utterance: Utterance, found: Measure, sound: Quality) -> DataError | None:
    """The fault of a sound that differs from the manifest, is too short or is all zeros; None without one."""
    what, do = None, "Prepare the corpus again"
    if found.sample_rate_hz != utterance.sample_rate_hz:
        what = f"The sound has {found.sample_rate_hz} Hz, but the manifest has {utterance.sample_rate_hz}"
    elif found.num_samples != utterance.num_samples:
        what = f"The sound has {found.num_samples} samples, but the manifest has {utterance.num_samples}"
    elif found.samples_sha256 != utterance.samples_sha256:
        what = "The samples are not those that the manifest was made of"
    elif utterance.seconds < SHORTEST_SECONDS:
        what = f"The utterance lasts {utterance.seconds:g} s, which is less than a window of {SHORTEST_SECONDS:g} s"
        do = "Take it out of the corpus"
    elif sound.is_silent:
        what, do = "Every sample is 0", "Take it out of the corpus"
    return None if what is None else DataError(what, file=utterance.audio, utterance=utterance.id, do=do)


def overlaps(utterances: Iterable[Utterance]) -> Iterator[DataError]:
    """A problem for each utterance that shares samples with an earlier one cut from the same file.

    The same stretch under two ids is an equal sound, which is a warning within a split.
    """
    cut: dict[tuple[Path, Channel | None], list[tuple[int, int, Utterance]]] = defaultdict(list)
    for utterance in utterances:
        first = round((utterance.start or 0.0) * utterance.sample_rate_hz)
        cut[utterance.audio, utterance.channel].append((first, first + utterance.num_samples, utterance))
    for stretches in cut.values():
        # a sweep from the left: `reach` is the furthest end so far, `owner` the utterance that ends there
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
