"""Loss, scores and predictions of a network that is fine-tuned.

Axes: N frames of a batch, F frames of an utterance, U utterances, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from repbench.benchmark.data.dataset import LabelledUtterances
from repbench.benchmark.features.extraction import (
    ExtractionOptions,
    batch_samples,
    length_batches,
    run_batches,
    table_index,
)
from repbench.benchmark.features.table import FeatureTable
from repbench.benchmark.finetuning.network import Network, upstream_of
from repbench.benchmark.probing.prediction import Predictor
from repbench.benchmark.protocol import ExtractionSettings
from repbench.downstream.contract import LabelledUtterance, Prediction
from repbench.errors import NonFiniteError
from repbench.progress import Advance


def cost_of(
    predictor: Predictor, scores: Tensor, examples: Sequence[LabelledUtterance], counts: Sequence[int]
) -> tuple[Tensor, int]:
    """The loss of a batch as a sum, and its number of terms.

    Args:
        predictor: Gives the targets.
        scores: (N, C) of all frames of the batch, (N, C + 1) with a blank, or (U, C) where the head pools.
        examples: U of them.
        counts: Frames of each.
    """
    return predictor.total_loss(scores, examples, counts)


def scores_of(
    network: Network,
    examples: LabelledUtterances,
    extraction: ExtractionSettings,
    *,
    device: torch.device,
    progress: Advance = lambda done, total: None,
) -> FeatureTable:
    """Scores of a network, as a table: (1, N, C) of all frames, or (1, U, C).

    Args:
        network: On `device`; in eval mode after.
        examples: In the order of the table.
        extraction: Batch size of the upstream, and rounding of its features.
        device: Where it is computed.
        progress: Called with (utterances done, all utterances).

    Raises:
        EnvironmentFault: The memory does not suffice for a single utterance.
    """
    network.eval()
    upstream = upstream_of(network)
    index = table_index(upstream, [example.utterance for example in examples])
    batches = length_batches(index.lengths, batch_samples(upstream, extraction.batch_seconds))
    scores: dict[int, Tensor] = {}
    options = ExtractionOptions(batch_seconds=extraction.batch_seconds, device=device, dtype=extraction.dtype)
    # Utterances of similar length share a batch; scores are put back by number into the order of the examples.
    results = run_batches(upstream, index, network.layers, batches, options)
    with torch.inference_mode():
        for batch, features in results:
            for number, frames in zip(batch, features, strict=True):  # frames: (L, F, D)
                counts = torch.tensor([index.counts[number]], device=device)
                given = network.scores(frames.float().to(device), counts)
                scores[number] = network.probe.in_units(given).cpu()
            progress(len(scores), len(examples))
    rows = [scores[number] for number in range(len(examples))]  # (F, C) or (1, C) each
    counts_of_rows = tuple(len(each) for each in rows)
    # U of (F, C) -> (1, N, C): a table with one layer, the scores.
    return FeatureTable(torch.cat(rows)[None], counts_of_rows, tuple(example.id for example in examples))


def predictions_of(
    network: Network,
    predictor: Predictor,
    examples: LabelledUtterances,
    extraction: ExtractionSettings,
    *,
    device: torch.device,
    progress: Advance = lambda done, total: None,
) -> list[Prediction]:
    """The network's prediction of every example; arguments as `scores_of`.

    Raises:
        NonFiniteError: A score is NaN or infinite; names the utterance.
    """
    table = scores_of(network, examples, extraction, device=device, progress=progress)
    places = table.starts()
    predictions = []
    for example in examples:
        start, count = places[example.id]
        # (1, N, C) -> (F, C) of one utterance, or (1, C) where the head pools
        scores = table.frames[0, start : start + count]
        if not bool(torch.isfinite(scores).all()):
            raise NonFiniteError("The network's scores hold NaN or infinity", utterance=example.id)
        predictions.append(predictor.prediction(example, scores))
    return predictor.completed(predictions, examples)
