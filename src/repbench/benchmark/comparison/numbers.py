"""The numbers of a comparison: a matrix for each measure, and profiles of layers with labels and with mel.

Axes: N sampled instants, U utterances, D width.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from repbench.benchmark.comparison.models import Models
from repbench.benchmark.comparison.request import REFERENCE, CompareRequest
from repbench.benchmark.similarity.cca import one_hot
from repbench.benchmark.similarity.document import LayerMatrix, LayerProfile, Value
from repbench.benchmark.similarity.frames import LayerFrames
from repbench.benchmark.similarity.measures import Rows, SideFrames, information, matrix, similarity
from repbench.benchmark.similarity.mutual_information import clusters_of_frames
from repbench.benchmark.similarity.sample import Labels, Sample, parts_of, phones_at, words_of
from repbench.downstream.problems.scoring_grid import UNLABELLED
from repbench.progress import Advance

Against = Literal["phones", "words"]
Control = Literal["given", "shuffled"]

NUM_DRAWS = 3
"""Draws of the parts that CCA is fitted, selected and measured on."""

_FINDERS = {"phones": phones_at, "words": words_of}


@dataclass(frozen=True)
class LabelsOfSample:
    """The labels that layers are compared with, by phones and words, then given and shuffled."""

    kinds: Mapping[Against, Mapping[Control, Labels]]

    @classmethod
    def of(cls, request: CompareRequest, sample: Sample, corpus: str, salt: str) -> LabelsOfSample:
        """Those of a request.

        Raises:
            DataError: The corpus has none of a kind.
        """
        shuffles: dict[Control, tuple[int, str] | None] = {"given": None}
        if request.controls:
            shuffles["shuffled"] = (request.seed, salt)
        kinds = [cast(Against, kind) for kind in request.against if kind in _FINDERS]
        return cls(
            {
                kind: {name: _FINDERS[kind](sample, corpus, shuffle=shuffle) for name, shuffle in shuffles.items()}
                for kind in kinds
            }
        )


class Numbers:
    """Computes all numbers of a comparison.

    Args:
        request: The arguments.
        models: Those of `Loader.models`.
        frames: The features of each.
        sample: The instants of the features.
        labels: Of the sample.
        salt: A text on which the draws of parts depend (the corpus).
        advance: Called with (numbers done, all numbers).
    """

    def __init__(
        self,
        request: CompareRequest,
        models: Models,
        frames: Sequence[LayerFrames],
        *,
        sample: Sample,
        labels: LabelsOfSample,
        salt: str,
        advance: Advance,
    ) -> None:
        self._request = request
        self._models = models
        self._frames = frames
        self._sample = sample
        self._labels = labels
        self._salt = salt
        self._advance = advance
        self._done = 0

    def matrices(self) -> Iterator[LayerMatrix]:
        """A with B, by each measure."""
        second = self._models.second
        for measure in self._request.measures:
            # One object where B is A, so that half of a symmetric matrix is computed.
            values = matrix(measure, self._sides[0], self._sides[second], self._step)
            yield LayerMatrix(first=0, second=second, measure=measure, values=values)

    def profiles(self) -> Iterator[LayerProfile]:
        """Every model with mel, except mel itself, and with phones and words."""
        for against in self._request.against:
            for number in self._models.profiled:
                if against != REFERENCE:
                    yield from self._with_labels(number, cast(Against, against))
                elif number != self._models.reference:
                    yield from self._with_mel(number)

    def count(self) -> int:
        """How many numbers there are, for progress; mirrored ones count too."""
        models, measures = self._models, len(self._request.measures)
        layers = [len(model.layers) for model in models.each]
        pairs = layers[0] * layers[models.second] * measures
        with_labels = sum(len(each) for each in self._labels.kinds.values()) * (measures + 1)
        with_mel = measures * sum(layers[n] for n in models.profiled if models.reference not in {None, n})
        return pairs + with_labels * sum(layers[number] for number in models.profiled) + with_mel

    def _step(self) -> None:
        self._done += 1
        self._advance(self._done, self.count())

    def _with_mel(self, number: int) -> Iterator[LayerProfile]:
        assert self._models.reference is not None
        (mel,) = self._sides[self._models.reference]
        for measure in self._request.measures:
            values = [self._counted(similarity(measure, x, mel)) for x in self._sides[number]]
            yield LayerProfile(upstream=number, against="mel", measure=measure, labels="given", values=tuple(values))

    def _with_labels(self, number: int, against: Against) -> Iterator[LayerProfile]:
        kinds = self._labels.kinds[against]
        is_labelled = kinds["given"].numbers != UNLABELLED
        rows = (self._rows if against == "phones" else self._rows_of_utterances).where(is_labelled)
        found: dict[tuple[str, Control], list[Value]] = {}
        for layer in range(len(self._models.each[number].layers)):
            frames = self._frames[number]
            values = frames.of_frames(layer) if against == "phones" else frames.of_utterances(layer)
            side = SideFrames(values[is_labelled], rows)
            # As many clusters as words: there are few utterances of each.
            num_clusters = self._request.num_clusters if against == "phones" else len(kinds["given"].classes)
            clusters = clusters_of_frames(side.values, num_clusters, self._request.seed)
            for control, labels in kinds.items():
                classes, numbers = len(labels.classes), labels.numbers[is_labelled]
                target = SideFrames(one_hot(numbers, classes), rows)
                for measure in self._request.measures:
                    value = self._counted(similarity(measure, side, target))
                    found.setdefault((measure, control), []).append(value)
                value = self._counted(information(clusters, numbers, classes, rows))
                found.setdefault(("mi", control), []).append(value)
        for (measure, control), several in found.items():
            yield LayerProfile(upstream=number, against=against, measure=measure, labels=control, values=tuple(several))

    def _counted(self, value: Value) -> Value:
        self._step()
        return value

    @functools.cached_property
    def _draws(self) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
        """Of each draw, (U,) the part of each utterance."""
        if not self._request.needs_parts:
            return []
        seed, utterances = self._request.seed, self._sample.utterances
        return [parts_of(utterances, seed=seed, salt=f"{self._salt} draw {draw}") for draw in range(NUM_DRAWS)]

    @functools.cached_property
    def _rows(self) -> Rows:
        """Of the sampled instants."""
        owners = self._sample.owners
        return Rows.of(self._sample.clusters.numbers[owners], [parts[owners] for parts in self._draws])

    @functools.cached_property
    def _rows_of_utterances(self) -> Rows:
        return Rows.of(self._sample.clusters.numbers, self._draws)

    @functools.cached_property
    def _sides(self) -> list[list[SideFrames]]:
        """The layers of each model."""
        return [
            [SideFrames(frames.of_frames(layer), self._rows) for layer in range(len(model.layers))]
            for model, frames in zip(self._models.each, self._frames, strict=True)
        ]
