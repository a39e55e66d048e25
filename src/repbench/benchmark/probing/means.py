"""The mean of each utterance's standardised frames, for heads that read nothing else.

Of such a head the scores of an utterance are those of one frame, the mean. So a step costs a few vectors and not
thousands of frames.

Axes: L layers, U utterances, F frames, D width.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from repbench.benchmark.data.dataset import LabelledUtterances
from repbench.benchmark.features.extraction import FeatureTable
from repbench.benchmark.probing.prediction import LabelledFeatures
from repbench.benchmark.probing.probe import Probe


def reads_means(probe: Probe) -> bool:
    """Whether the scores of a probe depend on the means alone, in training too: dropout leaves it other frames."""
    info = probe.head.info
    return probe.shape.pools and info.linear_on_mean and not info.context_frames and not probe.shape.dropout


class UtteranceMeans:
    """The means of a table, each computed once for all jobs that read it."""

    def __init__(self, table: FeatureTable) -> None:
        self._table = table
        self._places = table.starts()
        self._known: dict[tuple[int | None, int | None, str], Tensor] = {}
        self._lock = threading.Lock()

    def of(self, examples: LabelledUtterances, layers: slice, probe: Probe) -> LabelledFeatures:
        """Utterances with their means as the only frame.

        Args:
            examples: U of them.
            layers: L layers of the table.
            probe: Standardises them; every probe of these layers does so with the same statistics.
        """
        with self._lock:
            found = [self._mean(example.id, layers, probe) for example in examples]
        table = FeatureTable(torch.stack(found, dim=1), (1,) * len(found), tuple(each.id for each in examples))
        return LabelledFeatures(table, examples)

    def _mean(self, id_: str, layers: slice, probe: Probe) -> Tensor:
        """(L, D)."""
        key = (layers.start, layers.stop, id_)
        if key not in self._known:
            start, count = self._places[id_]
            frames = self._table.frames[layers, start : start + count].to(probe.mean.device)
            self._known[key] = probe.standardised(frames).mean(dim=1)  # (L, F, D) -> (L, D)
        return self._known[key]
