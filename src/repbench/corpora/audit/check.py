"""The audit of a corpus: every sound is decoded again and compared with the manifest.

A *problem* is something broken: the corpus must not be used for scores. A *warning* is something that a reader of a
score should know; a strict audit counts it as a problem.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from repbench.corpora.audit.problems import UtteranceFindings, overlaps, problems_of, read_all
from repbench.corpora.audit.warning_lines import (
    MOST_VALUES,
    aligned_share,
    flag_warnings,
    flagged_utterances,
    label_warnings,
    shared_warnings,
)
from repbench.corpora.contract import Corpus, Progress, Utterance
from repbench.corpora.faults import warnings_of
from repbench.errors import DataError

_FIELDS = ("features", "group", "phones", "speaker", "text")
_T = TypeVar("_T", int, str)


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundFigures:
    """Recording quality of a corpus, over all samples that could be decoded.

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
    """The result of an audit.

    Attributes:
        name: Name of the corpus.
        licence: Licence of its sound.
        fingerprint: Fingerprint of the corpus.
        num_utterances: Number of utterances.
        seconds: Their total duration.
        num_speakers: Number of known speakers.
        rates: Number of utterances by sample rate in hertz.
        shortest_seconds: Duration of the shortest utterance.
        median_seconds: The median duration.
        longest_seconds: Duration of the longest.
        splits: Number of utterances by official split; "none" for utterances without one.
        coverage: For each field (`phones`, `speaker`, `attributes.emotion`, …) the number of utterances that have it,
            by split and in `all`.
        aligned_share: Share of the duration of the aligned utterances that carries a phone; None without alignments.
        label_counts: For each kind of label the count of each label: `phones` (intervals), `speakers` (utterances), and
            every attribute with few values (utterances).
        sound: Recording quality; None if no sound could be decoded.
        flagged: For each flag of sound or labels (`clipped`, `narrow`, …) the ids of the utterances.
        problems: One line for each problem; a corpus with problems must not be used for scores.
        warnings: One line for each warning.
        exit_code: 0 without problems; else 3 for broken data, or 4 for files whose content is not what it claims.
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
        # keys of JSON objects are strings
        fields = dataclasses.asdict(self)
        fields["rates"] = {str(rate): count for rate, count in self.rates.items()}
        fields["flagged"] = {kind: list(ids) for kind, ids in self.flagged.items()}
        return {**fields, "problems": list(self.problems), "warnings": list(self.warnings)}


def check(corpus: Corpus, *, strict: bool = False, progress: Progress | None = None) -> CheckReport:
    """Decode every sound of a corpus again and report figures, problems and warnings.

    A broken utterance does not stop the audit: each is named in `problems`.

    Args:
        corpus: An opened corpus.
        strict: Whether a warning is a problem.
        progress: Called with (utterances read, all utterances).
    """
    utterances = corpus.utterances
    # minimum and median need a value
    durations = [utterance.seconds for utterance in utterances] or [0.0]
    findings = list(read_all(corpus, progress))
    flagged = flagged_utterances(utterances, findings)
    problems = [*problems_of(corpus, findings), *overlaps(utterances)]
    warnings = [
        *warnings_of(corpus),
        *shared_warnings(utterances),
        *label_warnings(corpus),
        *flag_warnings(flagged, len(utterances)),
    ]
    lines = [problem.line() for problem in problems] + (warnings if strict else [])
    # the gravest fault decides on the exit code
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
        aligned_share=aligned_share([utterance for utterance in utterances if utterance.phones is not None]),
        label_counts=_label_counts(utterances),
        sound=_sound_figures(findings),
        flagged=flagged,
        problems=tuple(lines),
        warnings=() if strict else tuple(warnings),
        exit_code=max(codes, default=0),
    )


def _sound_figures(findings: Sequence[UtteranceFindings]) -> SoundFigures | None:
    sounds = [found.sound for found in findings if not isinstance(found.sound, DataError)]
    num_samples = sum(measure.num_samples for measure, _ in sounds)
    if not sounds:
        return None
    levels = [each.level_db for _, each in sounds if not each.is_silent]
    return SoundFigures(
        # Shares are weighted by samples, as if the corpus were one sound; a mean would favour short utterances.
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
        known = [name for name in _FIELDS if getattr(utterance, name) is not None]
        # the prefix keeps an attribute called `text` apart from the field
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
        if count and (not kind.startswith("attributes.") or len(count) <= MOST_VALUES)
    }


def _counts(values: Iterable[_T]) -> dict[_T, int]:
    return dict(sorted(Counter(values).items()))
