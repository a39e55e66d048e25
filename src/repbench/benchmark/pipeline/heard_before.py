"""Whether an upstream was trained on the utterances that it is scored on, from what it declares of its training.

Three words: `heard`, `not heard`, `unknown`. Test utterances are compared with the training data by the SHA-256 of
their samples where those are known, else by names: corpus, split, speakers. `not heard` needs a declaration of all
training data; nothing is inferred from scores.

A digest is one of exact samples. The same recording that was cut, resampled or coded otherwise has another digest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from repbench.benchmark.records.parts import HeardPart
from repbench.corpora.contract import Corpus, Utterance
from repbench.corpora.families import Family, family_of, is_variant, speaker_space, split_relation
from repbench.upstream.checkpoints.untrained import is_untrained
from repbench.upstream.contract import Provenance
from repbench.upstream.training_data import UNKNOWN_DATA, TrainingData

SUBSET = "subset"
"""Attribute of an utterance with the name of its official split, where that is finer than train, dev and test."""


class _Finding(NamedTuple):
    """What one entry of the training data says of the test utterances; `note` decides nothing."""

    kind: Literal["heard", "apart", "unknown", "note"]
    sentence: str


def heard_before(provenance: Provenance, corpus: Corpus, test: Sequence[Utterance]) -> HeardPart:
    """Compare the training data of an upstream with test utterances.

    Args:
        provenance: Of the upstream.
        corpus: The test corpus.
        test: The scored utterances, undisturbed.
    """
    digests = provenance.digests
    declared = () if is_untrained(provenance.checkpoint) else provenance.trained_on
    if declared is None and digests:  # hashes without names: what else there was is not known
        declared = (TrainingData(name="its checkpoint", samples_sha256=digests), UNKNOWN_DATA)
    if not declared:
        nothing = "it was trained on nothing" if declared == () else "its training data is not declared"
        verdict: Literal["not heard", "unknown"] = "unknown" if declared is None else "not heard"
        names = None if declared is None else ()
        return HeardPart(verdict=verdict, basis=(nothing,), declared=names, n_overlapping=None, n_test=len(test))
    hashed = any(each.samples_sha256 is not None for each in declared)
    overlap = sum(each.samples_sha256 in digests for each in test) if hashed else None
    findings = dict.fromkeys(_findings(declared, corpus, test, overlap))
    kinds = {each.kind for each in findings}
    order = ("heard", "unknown", "apart", "note")
    return HeardPart(
        verdict="heard" if "heard" in kinds else "unknown" if "unknown" in kinds else "not heard",
        basis=tuple(each.sentence for each in sorted(findings, key=lambda each: order.index(each.kind))),
        declared=tuple(dict.fromkeys(each.stated for each in declared)),
        n_overlapping=overlap,
        n_test=len(test),
    )


def _findings(
    declared: Sequence[TrainingData], corpus: Corpus, test: Sequence[Utterance], overlap: int | None
) -> Iterator[_Finding]:
    hashed = [each for each in declared if each.samples_sha256 is not None]
    if hashed:
        names = ", ".join(dict.fromkeys(each.title for each in hashed))
        if overlap:
            yield _Finding("heard", f"{overlap} of {len(test)} test utterances are in {names}, by their samples")
        else:
            yield _Finding("apart", f"none of {len(test)} test utterances is in {names}, by their samples")
    for each in declared:
        if each.is_rest:
            yield _Finding(
                "unknown", "further training data is not declared" + (f": {each.source}" if each.source else "")
            )
            continue
        speakers = _speakers(each, corpus, test)
        if each.samples_sha256 is None:
            # Where no speaker is shared, no utterance is.
            yield speakers if speakers is not None and speakers.kind == "apart" else _by_name(each, corpus, test)
        elif not overlap:
            yield from _beside_digests(each, corpus, speakers)
        if speakers is not None:
            yield speakers


def _speakers(data: TrainingData, corpus: Corpus, test: Sequence[Utterance]) -> _Finding | None:
    """How many test speakers are in the training data; None where they are not known in one space of ids."""
    speakers = {each.speaker for each in test}
    if data.speakers is None or None in speakers or speaker_space(data.name) != speaker_space(corpus.name):
        return None
    shared = len(speakers & data.speakers)
    if not shared:
        return _Finding("apart", f"none of {len(speakers)} test speakers is in {data.title}")
    return _Finding("note", f"{shared} of {len(speakers)} test speakers are in {data.title}")


def _beside_digests(data: TrainingData, corpus: Corpus, speakers: _Finding | None) -> Iterator[_Finding]:
    """What names tell of training data none of whose digests is in the test."""
    if is_variant(data.name, corpus.name):
        # The digests of the same speech under other noise differ.
        if speakers is None or speakers.kind != "apart":
            yield _Finding("unknown", f"the same speech may be in another variant of the corpus: {data.title}")
    elif data.fingerprint == corpus.fingerprint or data.name == corpus.name:
        yield _Finding("note", f"same corpus, other utterances: {data.title}")


def _by_name(data: TrainingData, corpus: Corpus, test: Sequence[Utterance]) -> _Finding:
    """The relation of training data without digests, by corpus and split."""
    own, other = family_of(corpus.name), family_of(data.name)
    if data.name == corpus.name or (own is not None and own == other):
        return _of_same_corpus(data, corpus, test, own)
    if own is None or other is None:
        unknown = corpus.name if own is None else data.name
        return _Finding("unknown", f"whether {corpus.name} and {data.title} share recordings is not known ({unknown})")
    if (apart := _apart_within(data, own, other, test)) is not None:
        return apart
    shared = {own.name, *own.sources, own.made_of} & {other.name, *other.sources, other.made_of} - {None}
    if shared:
        names = ", ".join(sorted(str(each) for each in shared))
        return _Finding("unknown", f"same source, {names}: which recordings {data.title} has is not stated")
    return _Finding("apart", f"{data.title} is another corpus than {own.name}")


def _of_same_corpus(data: TrainingData, corpus: Corpus, test: Sequence[Utterance], family: Family | None) -> _Finding:
    division = "several" if family is None else family.division
    if is_variant(data.name, corpus.name):
        return _Finding("unknown", f"same corpus in another variant: {data.title}")
    if division == "none" and not data.splits:
        return _Finding("heard", f"all of {data.title}, which has no official split, is in its training data")
    if not data.splits:
        return _Finding(
            "unknown", f"same corpus, and which of its splits were in the training is not stated: {data.title}"
        )
    relations = Counter(split_relation(data.splits, _split_of(each), family) for each in test)
    if division != "one" and relations["other"]:
        # A part named test in one version or division of a corpus may be in train of another.
        relations = Counter({"same": relations["same"], "unknown": relations["unknown"] + relations["other"]})
    if relations["same"]:
        return _Finding("heard", f"{relations['same']} of {len(test)} test utterances are of splits in {data.title}")
    if relations["unknown"]:
        return _Finding(
            "unknown", f"same corpus, and its splits cannot be compared with those of the test: {data.title}"
        )
    return _Finding("apart", f"same corpus, other split: {data.title}{_of_speakers(family)}")


def _of_speakers(family: Family | None) -> str:
    return "; its splits share no speaker" if family is not None and family.speakers_apart else ""


def _apart_within(data: TrainingData, own: Family, other: Family, test: Sequence[Utterance]) -> _Finding | None:
    """The finding for corpora of one source that are known to keep these test utterances out; None for others."""
    left_out = other.leaves_out.get(own.name)
    if left_out and all(split_relation(left_out, _split_of(each), own) == "same" for each in test):
        kept = " and ".join(left_out)
        return _Finding("apart", f"same source, other speakers: {other.name} leaves out those of {own.name}'s {kept}")
    is_one_division = own.made_of == other.name or other.made_of == own.name or (own.made_of or 0) == other.made_of
    if is_one_division and data.splits:
        relations = {split_relation(data.splits, _split_of(each), other) for each in test}
        if relations == {"other"}:
            return _Finding("apart", f"same source, other split: {data.title}{_of_speakers(own)}")
    return None


def _split_of(utterance: Utterance) -> str | None:
    """The official split of an utterance, as fine as it is known."""
    subset = utterance.attributes.get(SUBSET)
    return subset if isinstance(subset, str) else utterance.split
