"""The audit of a corpus: every sound decoded again and compared with what the manifest says of it."""

from __future__ import annotations

import dataclasses
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from repbench.audio.sound import Measure
from repbench.corpora.contract import Corpus, Progress, Utterance
from repbench.corpora.manifest import measure_all
from repbench.errors import DataError

SHORTEST_SECONDS = 0.025
"""An utterance shorter than one analysis window is a problem: no upstream can say anything of it."""

_MOST_VALUES = 50
_T = TypeVar("_T", int, str)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What an audit found.

    Attributes:
        name: Name of the corpus.
        fingerprint: Of the corpus.
        num_utterances: Utterances listed.
        seconds: Their total duration.
        num_speakers: Speakers named.
        rates: Utterances by sample rate in hertz.
        shortest_seconds: Duration of the shortest utterance.
        median_seconds: The median duration.
        longest_seconds: Duration of the longest.
        splits: Utterances by official split; "none" where an utterance has none.
        label_counts: By kind of label, how often each occurs: `phones` (intervals), `speakers` (utterances), and every
            attribute with few values (utterances).
        problems: One line for each thing that is broken; a corpus with any is not to be scored.
        warnings: One line for each thing that a reader of a score should know.
    """

    name: str
    fingerprint: str
    num_utterances: int
    seconds: float
    num_speakers: int
    rates: Mapping[int, int]
    shortest_seconds: float
    median_seconds: float
    longest_seconds: float
    splits: Mapping[str, int]
    label_counts: Mapping[str, Mapping[str, int]]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        fields = dataclasses.asdict(self)
        fields["rates"] = {str(rate): count for rate, count in self.rates.items()}
        return {**fields, "problems": list(self.problems), "warnings": list(self.warnings)}


def check(corpus: Corpus, *, progress: Progress | None = None) -> CheckReport:
    """Decode every sound of a corpus again and report what it is and what is wrong with it.

    A broken utterance does not stop the audit: each is named in `problems`.

    Args:
        corpus: An opened corpus.
        progress: Called with (utterances read, all utterances).
    """
    utterances = corpus.utterances
    durations = [utterance.seconds for utterance in utterances] or [0.0]
    return CheckReport(
        name=corpus.name,
        fingerprint=corpus.fingerprint,
        num_utterances=len(utterances),
        seconds=sum(durations),
        num_speakers=len({utterance.speaker for utterance in utterances} - {None}),
        rates=_counts(utterance.sample_rate_hz for utterance in utterances),
        shortest_seconds=min(durations),
        median_seconds=statistics.median(durations),
        longest_seconds=max(durations),
        splits=_counts(utterance.split or "none" for utterance in utterances),
        label_counts=_label_counts(utterances),
        problems=tuple(_problems(corpus, progress)),
        warnings=tuple(_warnings(corpus)),
    )


def _problems(corpus: Corpus, progress: Progress | None) -> Iterator[str]:
    if not corpus.utterances:
        yield DataError("The corpus has no utterance", do="Prepare it again").line()
    first_with: dict[str, str] = {}
    for utterance, found in zip(corpus.utterances, measure_all(corpus.utterances, progress), strict=True):
        fault = found if isinstance(found, DataError) else _difference(utterance, found)
        if fault is not None:
            yield fault.line()
        other = first_with.setdefault(utterance.samples_sha256, utterance.id)
        if other != utterance.id:
            what = f"The same sound stands under two ids, `{other}` and `{utterance.id}`"
            yield DataError(what, file=utterance.audio, utterance=utterance.id, do="Remove one of them").line()


def _difference(utterance: Utterance, found: Measure) -> DataError | None:
    """What the sound is and the manifest does not say; None where they agree and the utterance is long enough."""
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
    return None if what is None else DataError(what, file=utterance.audio, utterance=utterance.id, do=do)


def _warnings(corpus: Corpus) -> Iterator[str]:
    speaker_of = [(utterance.speaker, utterance.split) for utterance in corpus.utterances]
    group_of = [(utterance.group, utterance.split) for utterance in corpus.utterances]
    yield from _shared("speakers", speaker_of)
    yield from _shared("groups", group_of)
    num_unaligned = sum(utterance.phones is None for utterance in corpus.utterances)
    if "phones" in corpus.label_sets and num_unaligned:
        yield f"{num_unaligned} of {len(corpus.utterances)} utterances have no alignment"


def _shared(kind: str, pairs: Iterable[tuple[str | None, str | None]]) -> Iterator[str]:
    """A warning for each pair of official splits that have speakers, or groups, in common."""
    members: dict[str, set[str]] = defaultdict(set)
    for member, split in pairs:
        if member is not None and split is not None:
            members[split].add(member)
    for first, second in (("train", "dev"), ("train", "test"), ("dev", "test")):
        shared = members[first] & members[second]
        if shared:
            yield f"{len(shared)} of the {len(members[second])} {kind} of {second} are also in {first}"


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
