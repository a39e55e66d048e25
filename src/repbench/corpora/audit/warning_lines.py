"""Warnings about a corpus: labels that splits share or lack, and sounds that were recorded badly."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from repbench.audio.quality import Quality
from repbench.corpora.audit.problems import UtteranceFindings
from repbench.corpora.contract import Corpus, Utterance
from repbench.errors import DataError

CLIPPED_RUN_SAMPLES = 3
"""So many samples at full scale one after the other are clipped; a single one may be a peak."""

LARGEST_ZERO_SHARE = 0.5
LARGEST_OFFSET = 0.02
SMALLEST_ALIGNED_SHARE = 0.5

MOST_VALUES = 50
"""An attribute with more values than this is not counted as a label."""

_SPLIT_PAIRS = (("train", "dev"), ("train", "test"), ("dev", "test"))
_MOST_NAMED = 10


def shared_warnings(utterances: Sequence[Utterance]) -> Iterator[str]:
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


def label_warnings(corpus: Corpus) -> Iterator[str]:
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
            # "" collects all utterances, those without a split too
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
    """A warning for each attribute with values in test that never occur in train."""
    values: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for utterance in utterances:
        for name, value in utterance.attributes.items():
            if utterance.split is not None and isinstance(value, str):
                values[name][utterance.split].add(value)
    for name, by_split in sorted(values.items()):
        # an attribute that shares no value names the split itself, such as the subset of LibriSpeech
        names_the_split = not by_split["test"] & by_split["train"]
        only = [] if names_the_split else sorted(by_split["test"] - by_split["train"])
        if only and len(by_split["test"] | by_split["train"]) <= MOST_VALUES:
            yield f"{len(only)} values of `{name}` in test never occur in train: {_named(only)}"


_FLAGS: Mapping[str, tuple[str, Callable[[Quality], bool]]] = {
    "clipped": (
        f"are clipped ({CLIPPED_RUN_SAMPLES} or more samples at full scale in a row)",
        lambda sound: sound.longest_clip_samples >= CLIPPED_RUN_SAMPLES,
    ),
    "zeros": (
        f"are digital silence (exact zeros) for more than {LARGEST_ZERO_SHARE:.0%}",
        lambda sound: sound.zero_share > LARGEST_ZERO_SHARE and not sound.is_silent,
    ),
    "offset": (f"have a DC offset above {LARGEST_OFFSET:g}", lambda sound: abs(sound.offset) > LARGEST_OFFSET),
    "narrow": ("look like 8 kHz sound stored at a higher rate", lambda sound: sound.is_narrow),
}
_BARELY_ALIGNED = f"carry phones for less than {SMALLEST_ALIGNED_SHARE:.0%} of their duration"


def flagged_utterances(
    utterances: Sequence[Utterance], findings: Sequence[UtteranceFindings]
) -> dict[str, tuple[str, ...]]:
    flagged = {
        kind: tuple(
            utterance.id
            for utterance, found in zip(utterances, findings, strict=True)
            if not isinstance(found.sound, DataError) and is_flagged(found.sound[1])
        )
        for kind, (_, is_flagged) in _FLAGS.items()
    }
    flagged["barely_aligned"] = tuple(
        utterance.id
        for utterance in utterances
        if utterance.phones is not None and (aligned_share([utterance]) or 0.0) < SMALLEST_ALIGNED_SHARE
    )
    return {kind: ids for kind, ids in flagged.items() if ids}


def flag_warnings(flagged: Mapping[str, tuple[str, ...]], num_utterances: int) -> Iterator[str]:
    for kind, ids in flagged.items():
        what = _BARELY_ALIGNED if kind == "barely_aligned" else _FLAGS[kind][0]
        yield f"{len(ids)} of {num_utterances} utterances {what}, such as `{ids[0]}`"


def aligned_share(utterances: Sequence[Utterance]) -> float | None:
    seconds = sum(utterance.seconds for utterance in utterances)
    if not seconds:
        return None
    aligned = sum(phone.end_s - phone.start_s for utterance in utterances for phone in utterance.phones or ())
    # a sum of many floats may exceed the duration by a rounding error
    return min(1.0, aligned / seconds)


def _named(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _MOST_NAMED} more" if len(labels) > _MOST_NAMED else ""
    return ", ".join(f"`{label}`" for label in labels[:_MOST_NAMED]) + more
