"""The mean of each utterance's standardised frames, for heads that read nothing else.

Of such a head the scores of an utterance are those of one frame, the mean. So a step costs a few vectors and not
thousands of frames.

Axes: L layers, U utterances, F frames, D width.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from torch import Tensor

from repbench.benchmark.data.dataset import LabelledUtterances
from repbench.benchmark.features.table import Features, FeatureTable
from repbench.benchmark.probing.prediction import LabelledFeatures
from repbench.benchmark.probing.probe import Probe


def reads_means(probe: Probe) -> bool:
    """Whether the scores of a probe depend on the means alone, in training too: dropout leaves it other frames."""
    info = probe.head.info
    return probe.shape.pools and info.linear_on_mean and not info.context_frames and not probe.shape.dropout


class UtteranceMeans:
    """The means of a table, each computed once for all jobs that read it.

    Args:
        table: The features.
        standardised: Whether means are kept of standardised frames, which serves jobs that all have the same
            statistics; else those of the frames are kept, in float64, and standardised for each job.
    """

    def __init__(self, table: Features, *, standardised: bool = True) -> None:
        self._standardised = standardised
        self._table = table
        self._places = table.starts()
        self._known: dict[tuple[int | None, int | None, str], Tensor] = {}
        self._lock = threading.Lock()

    def of(self, examples: LabelledUtterances, layers: slice, probe: Probe) -> LabelledFeatures:
        """Utterances with their means as the only frame.

        Args:
            examples: U of them.
            layers: L layers of the table.
            probe: Standardises them.
        """
        with self._lock:
            self._compute([example.id for example in examples], layers, probe)
            found = [self._known[layers.start, layers.stop, example.id] for example in examples]
        if not self._standardised:
            # The mean of standardised frames is the standardised mean; float64, as `(mean - m) / s` loses digits.
            mean, std = probe.mean.double().squeeze(1), probe.std.double().squeeze(1)  # (L, 1, D) -> (L, D)
            found = [((each - mean) / std).float() for each in found]
        table = FeatureTable(torch.stack(found, dim=1), (1,) * len(found), tuple(each.id for each in examples))
        return LabelledFeatures(table, examples)

    def _compute(self, ids: Sequence[str], layers: slice, probe: Probe) -> None:
        """Add the means (L, D) of utterances that are not known."""
        missing = [id_ for id_ in ids if (layers.start, layers.stop, id_) not in self._known]
        spans = self._table.of_layers(layers).spans([self._places[id_]] for id_ in missing)
        for id_, frames in zip(missing, spans, strict=True):
            frames = frames.to(probe.mean.device)
            # (L, F, D) -> (L, D)
            mean = probe.standardised(frames).mean(dim=1) if self._standardised else frames.mean(1, dtype=torch.float64)
            self._known[layers.start, layers.stop, id_] = mean
