"""Parts of one extraction, which several processes compute and store beside each other.

The batches of an extraction follow from the corpus and the protocol alone, and each belongs to one part. So every
process finds its own without asking another, stored features have the bits that a single run gives them, and two
processes on the same part store the same twice.

Axes: L layers, F frames, D width.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from repbench.benchmark.features.extraction import (
    ExtractionOptions,
    batch_samples,
    run_batches,
    table_index,
)
from repbench.benchmark.features.shard_writer import ShardWriter
from repbench.benchmark.features.shards import current_entries
from repbench.benchmark.features.store import FeatureStore
from repbench.corpora.contract import Progress, Utterance
from repbench.corpora.read import samples_at
from repbench.errors import EnvironmentFault, UsageError

Batch = tuple[Utterance, ...]
"""The utterances that go through the upstream together."""


@dataclass(frozen=True, slots=True)
class ExtractionPart:
    """One of several parts of an extraction.

    Attributes:
        number: From 1 on.
        count: Number of all parts.
    """

    number: int
    count: int

    @classmethod
    def of(cls, text: str) -> ExtractionPart:
        """The part that a text such as `2/4` names.

        Raises:
            UsageError: It names none.
        """
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text, re.ASCII)
        part = cls(*map(int, found.groups())) if found else cls(0, 0)
        if not 1 <= part.number <= part.count:
            what = f"A part is a number from 1 to the number of parts, a slash and that number, but this is `{text}`"
            raise UsageError(what, key="--shard", do="Give 1/4, 2/4, 3/4 and 4/4 to four processes")
        return part

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def batches_of(part: ExtractionPart, batches: Sequence[Batch], rate_hz: int) -> list[Batch]:
    """The batches of a part, in their order; the parts have nearly the same seconds of sound, padding included.

    Each batch, the longest first, goes to the part that has the fewest seconds so far.

    Args:
        part: The part.
        batches: Those of all parts.
        rate_hz: Sample rate of the upstream, in hertz.
    """
    sizes = [len(batch) * max(samples_at(each, rate_hz) for each in batch) for batch in batches]
    loads = [(0, number) for number in range(1, part.count + 1)]
    own = []
    for index in sorted(range(len(batches)), key=lambda index: (-sizes[index], index)):
        load, number = heapq.heappop(loads)
        heapq.heappush(loads, (load + sizes[index], number))
        if number == part.number:
            own.append(index)
    return [batches[index] for index in sorted(own)]


class PartedStore(FeatureStore):
    """A feature store that several processes fill, each with the batches of its part."""

    def batches(self, extractions: Sequence[Sequence[Utterance]], batch_seconds: float) -> list[Batch]:
        """The batches that an empty store would have computed after one extraction and the next.

        Args:
            extractions: The utterances of each extraction, in the order in which a run makes them.
            batch_seconds: Seconds of sound in one batch, padding included.
        """
        return list(self._planned(extractions, batch_samples(self._upstream, batch_seconds)))

    def _planned(self, extractions: Sequence[Sequence[Utterance]], max_samples: int) -> Iterator[Batch]:
        planned: dict[str, str] = {}  # from a sound to the name of the batch that stores it
        for utterances in extractions:
            index = table_index(self._upstream, utterances)
            sounds = [self._sound(each) for each in utterances]
            missing = {number for number, sound in enumerate(sounds) if sound not in planned}
            stored = {number: {planned[sound]} for number, sound in enumerate(sounds) if number not in missing}
            for numbers in self._batches_lacking(index, missing, stored, max_samples):
                name = self._batch_name(index, numbers)
                planned |= {sounds[number]: name for number in numbers if number in missing}
                yield tuple(utterances[number] for number in numbers)

    def fill(
        self,
        batches: Sequence[Batch],
        layers: Sequence[int],
        options: ExtractionOptions,
        *,
        progress: Progress | None = None,
    ) -> int:
        """Compute and store what is lacking of some batches; no more than a batch and a shard is in memory.

        A batch is computed whole where nothing of it is stored, or only what the same batch computed.

        Args:
            batches: The batches.
            layers: Indices of the layers to store.
            options: How the features are computed.
            progress: Called with (utterances done, all utterances).

        Returns:
            The number of utterances of which a layer was lacking.

        Raises:
            EnvironmentFault: The store takes no more; also as `features.extraction.extract`.
        """
        index = table_index(self._upstream, [utterance for batch in batches for utterance in batch])
        stored = current_entries(self._shards())
        missing: dict[int, list[int]] = {}
        to_compute: list[Sequence[int]] = []
        first = 0
        for batch in batches:
            numbers: Sequence[int] = range(first, first + len(batch))
            first += len(batch)
            keys = {
                (number, layer): (self._sound(index.utterances[number]), layer)
                for number in numbers
                for layer in layers
            }
            lacking = {number: [layer for layer in layers if keys[number, layer] not in stored] for number in numbers}
            lacking = {number: some for number, some in lacking.items() if some}
            names = {stored[key][0][1].batch for key in keys.values() if key in stored}
            if lacking:
                to_compute.append(numbers if names <= {self._batch_name(index, numbers)} else list(lacking))
            missing |= lacking
        self._check_space(index, missing)
        self._refuse_if_closed()
        done = first - len(missing)
        writer = ShardWriter(self, ())
        try:
            for numbers, features in run_batches(self._upstream, index, layers, to_compute, options):
                name = self._batch_name(index, numbers)
                for number, computed in zip(numbers, features, strict=True):  # computed: (L, F, D)
                    for layer in missing.get(number, ()):
                        writer.add(self._sound(index.utterances[number]), layer, name, computed[layers.index(layer)])
                writer.write_if_due()
                self._refuse_if_closed()
                done += sum(number in missing for number in numbers)
                if progress is not None:
                    progress(done, first)
        finally:
            writer.write()
        self._refuse_if_closed()
        return len(missing)

    def _refuse_if_closed(self) -> None:
        if self.is_closed:
            raise EnvironmentFault(
                "The feature store takes no more, and what is computed for it would be lost",
                file=self._root,
                do="Make room with `repbench cache clear`, or raise extraction.store_gib",
            )
