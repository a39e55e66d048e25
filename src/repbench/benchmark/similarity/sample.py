"""The sampled instants of a corpus, which are the same for every upstream, and the labels there.

Instants are those of the scoring grid, (j + ½) · 10 ms: they depend on the utterances alone, and each upstream answers
with its frame whose centre is nearest. Utterances are drawn before instants, so that a large corpus is not extracted
whole; both are drawn by name, so that a larger sample contains a smaller one of the same utterances.

Axes: N sampled instants of all utterances together, U utterances.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from repbench.benchmark.data.seeded_shuffle import shuffled
from repbench.benchmark.data.shuffled_labels import with_shuffled_labels
from repbench.corpora.contract import Utterance
from repbench.downstream.keywords import ATTRIBUTES, SILENCE, UNKNOWN
from repbench.downstream.problems.contract import LabelledUtterance
from repbench.downstream.problems.frames import FRAMES
from repbench.downstream.problems.scoring_grid import UNLABELLED, instants_s, labels_at, num_instants
from repbench.errors import DataError

Integers = NDArray[np.int64]

SPREAD = 10
"""Instants of the drawn utterances for each sampled one, so that neighbours, which are alike, are seldom both drawn."""

NUM_PARTS = 10
"""Parts of a draw of `parts_of`; the first is test, the second dev, the others train."""


@dataclass(frozen=True, slots=True)
class Clusters:
    """The units that intervals leave out: speakers, or groups where speakers are not known.

    Attributes:
        unit: speaker or group; None where there is one cluster.
        numbers: (U,) cluster of each utterance, ascending.
        count: Number of clusters.
    """

    unit: str | None
    numbers: Integers
    count: int


@dataclass(frozen=True)
class Sample:
    """Sampled instants.

    Attributes:
        utterances: The drawn utterances, by cluster and id.
        instants: Of each, the sampled instants, ascending; may be empty.
        clusters: Units of intervals.
    """

    utterances: tuple[Utterance, ...]
    instants: tuple[Integers, ...]
    clusters: Clusters

    @functools.cached_property
    def owners(self) -> Integers:
        """(N,) number of the utterance of each instant."""
        return np.repeat(np.arange(len(self.utterances)), [len(each) for each in self.instants])

    @property
    def sha256(self) -> str:
        """Digest of the utterances and instants: samples with the same one are the same."""
        digest = hashlib.sha256()
        for utterance, instants in zip(self.utterances, self.instants, strict=True):
            named = f"{utterance.id}\0{utterance.samples_sha256}\0".encode("utf-8", "surrogatepass")
            digest.update(named + instants.astype("<i8").tobytes() + b"\0")
        return digest.hexdigest()


def draw_sample(utterances: Sequence[Utterance], most_frames: int, *, seed: int, salt: str) -> Sample:
    """Draw instants of utterances, each instant with the same chance.

    Args:
        utterances: Those that every upstream can take.
        most_frames: How many instants at most; all where there are fewer.
        seed: Of the draw.
        salt: A text on which it also depends (the corpus).

    Raises:
        DataError: There are no instants.
    """
    counts = {each.id: num_instants(each.num_samples, each.sample_rate_hz) for each in utterances}
    by_id = {each.id: each for each in utterances if counts[each.id]}
    if not by_id:
        raise DataError("No utterance is long enough for a frame", do="Take a corpus of longer utterances")
    drawn: list[str] = []
    total = 0
    for id_ in shuffled(by_id, seed, f"{salt} utterances"):
        if total >= most_frames * SPREAD:
            break
        drawn.append(id_)
        total += counts[id_]
    kept: dict[str, list[int]]
    if total <= most_frames:
        kept = {id_: list(range(counts[id_])) for id_ in drawn}
    else:
        kept = {id_: [] for id_ in drawn}
        every = (f"{number} {id_}" for id_ in drawn for number in range(counts[id_]))
        for name in shuffled(every, seed, f"{salt} instants")[:most_frames]:
            number, _, id_ = name.partition(" ")
            kept[id_].append(int(number))
    unit, names = _cluster_names([by_id[id_] for id_ in drawn])
    order = sorted(drawn, key=lambda id_: (names[id_], id_))
    known = sorted({names[id_] for id_ in order})
    numbers = np.array([known.index(names[id_]) for id_ in order], dtype=np.int64)
    return Sample(
        tuple(by_id[id_] for id_ in order),
        tuple(np.array(sorted(kept[id_]), dtype=np.int64) for id_ in order),
        Clusters(unit, numbers, len(known)),
    )


def draw_utterances(utterances: Sequence[Utterance], most: int, *, seed: int, salt: str) -> Sample:
    """Draw utterances with one row each, for models of one vector an utterance: the means of others are compared then.

    Args:
        utterances: Those that every upstream can take.
        most: How many at most; all where there are fewer.
        seed: Of the draw.
        salt: A text on which it also depends (the corpus).
    """
    drawn = shuffled([each.id for each in utterances], seed, f"{salt} utterances")[:most]
    by_id = {each.id: each for each in utterances}
    unit, names = _cluster_names([by_id[id_] for id_ in drawn])
    order = sorted(drawn, key=lambda id_: (names[id_], id_))
    known = sorted(set(names.values()))
    numbers = np.array([known.index(names[id_]) for id_ in order], dtype=np.int64)
    one = np.zeros(1, dtype=np.int64)
    return Sample(tuple(by_id[id_] for id_ in order), (one,) * len(order), Clusters(unit, numbers, len(known)))


def _cluster_names(utterances: Sequence[Utterance]) -> tuple[str | None, dict[str, str]]:
    """The unit with two or more known names, and that of each utterance, by id."""
    for unit in ("speaker", "group"):
        names = {each.id: getattr(each, unit) for each in utterances}
        if None not in names.values() and len(set(names.values())) > 1:
            return unit, names
    return None, {each.id: "" for each in utterances}


def slices_of(numbers: Integers, count: int) -> list[slice]:
    """The rows of each cluster, from the ascending (N,) numbers of the cluster of each row."""
    ends = np.searchsorted(numbers, np.arange(count + 1))
    return [slice(int(start), int(stop)) for start, stop in itertools.pairwise(ends)]


def parts_of(utterances: Sequence[Utterance], *, seed: int, salt: str) -> Integers:
    """(U,) part of each utterance, `NUM_PARTS` parts as equal as can be.

    Whole utterances: neighbouring frames are nearly equal, and a direction that is fitted to one would be measured on
    the other.

    Raises:
        DataError: There are fewer utterances than parts.
    """
    if len(utterances) < NUM_PARTS:
        raise DataError(
            f"CCA divides utterances into {NUM_PARTS} parts, but there are {len(utterances)}",
            do="Take a larger corpus, or --measure cka",
        )
    place = {id_: number for number, id_ in enumerate(shuffled([each.id for each in utterances], seed, salt))}
    return np.array([place[each.id] % NUM_PARTS for each in utterances], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of some vectors, one a vector.

    Attributes:
        classes: Names of the classes, sorted.
        numbers: The class of each vector; `UNLABELLED` where it has none.
    """

    classes: tuple[str, ...]
    numbers: Integers

    @property
    def num_labelled(self) -> int:
        """How many vectors have a label."""
        return int((self.numbers != UNLABELLED).sum())


def phones_at(sample: Sample, corpus: str, *, shuffle: tuple[int, str] | None = None) -> Labels:
    """The phone at each sampled instant.

    Args:
        sample: The instants.
        corpus: Name of the corpus, for the error.
        shuffle: Seed and salt of a permutation of the labels of all segments, which keep their times; None: as given.

    Raises:
        DataError: No sampled instant has a phone.
    """
    every = [LabelledUtterance(each, tuple(each.phones or ())) for each in sample.utterances]
    if shuffle is not None:
        seed, salt = shuffle
        every = list(with_shuffled_labels(tuple(every), problem=FRAMES, seed=seed, salt=salt))
    classes = tuple(sorted({phone.label for example in every for phone in example.labels}))
    index = {label: number for number, label in enumerate(classes)}
    found = [
        labels_at(instants_s(int(instants.max(initial=-1)) + 1), example.labels, index)[instants]
        for example, instants in zip(every, sample.instants, strict=True)
    ]
    labels = Labels(classes, np.concatenate(found))
    if not labels.num_labelled:
        raise DataError(
            f"No utterance of {corpus} has timed phones",
            key="--against",
            do="Leave phones out, or prepare the corpus with --alignments",
        )
    return labels


def words_of(sample: Sample, corpus: str, *, shuffle: tuple[int, str] | None = None) -> Labels:
    """The word of each utterance of the sample: of its attribute `word`, or another that the task `keyword` reads.

    Args:
        sample: The utterances.
        corpus: Name of the corpus, for the error.
        shuffle: Seed and salt of a permutation of the words of all labelled utterances; None: as given.

    Raises:
        DataError: No utterance has such an attribute.
    """
    named = {each.id: word for each in sample.utterances if (word := _word_of(each)) is not None}
    if not named:
        raise DataError(
            f"No utterance of {corpus} has an attribute {', '.join(ATTRIBUTES[:-1])} or {ATTRIBUTES[-1]}, and words "
            "within utterances have no times",
            key="--against",
            do="Leave words out, or take a corpus of single words, such as synthetic:words",
        )
    if shuffle is not None:
        seed, salt = shuffle
        given = list(named.values())
        order = {id_: number for number, id_ in enumerate(named)}
        dealt = shuffled(named, seed, f"{salt} labels")
        named = {id_: given[order[other]] for id_, other in zip(named, dealt, strict=True)}
    classes = tuple(sorted(set(named.values())))
    index = {word: number for number, word in enumerate(classes)}
    numbers = [index[named[each.id]] if each.id in named else UNLABELLED for each in sample.utterances]
    return Labels(classes, np.array(numbers, dtype=np.int64))


def _word_of(utterance: Utterance) -> str | None:
    value = next((utterance.attributes[name] for name in ATTRIBUTES if name in utterance.attributes), None)
    return None if value is None or value in {UNKNOWN, SILENCE} else str(value)
