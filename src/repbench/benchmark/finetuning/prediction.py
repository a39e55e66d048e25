"""Loss, scores and predictions of a network that is fine-tuned.

Axes: N frames of a batch, F frames of an utterance, U utterances, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from repbench.benchmark.data.dataset import LabelledUtterance, LabelledUtterances
from repbench.benchmark.data.scoring_grid import UNLABELLED
from repbench.benchmark.features.extraction import FeatureTable, batch_samples, length_batches, outline, run_batches
from repbench.benchmark.finetuning.network import Network, upstream_of
from repbench.benchmark.probing.prediction import Predictor
from repbench.benchmark.probing.sequences import sequence_loss
from repbench.benchmark.protocol import ExtractionSettings
from repbench.downstream.contract import Prediction
from repbench.errors import NonFiniteError


def cost_of(
    predictor: Predictor, scores: Tensor, examples: Sequence[LabelledUtterance], counts: Sequence[int]
) -> tuple[Tensor, int]:
    """Loss of a batch, summed over its labels, and the number of these labels (or sequences).

    Args:
        predictor: Of the task.
        scores: (N, C) of all frames of the batch, (N, C + 1) of sequence tasks, (U, C) of utterance tasks.
        examples: U of them.
        counts: Frames of each example.
    """
    if predictor.asks_sequences:
        classes = [predictor.classes_in(example) for example in examples]
        sizes = torch.tensor([len(each) for each in classes])
        lengths = torch.tensor(list(counts))
        mean = sequence_loss(scores, *(each.to(scores.device) for each in (lengths, torch.cat(classes), sizes)))
        return mean * len(examples), len(examples)
    pairs = zip(examples, counts, strict=True)
    answers = torch.cat([targets_of(predictor, example, count) for example, count in pairs]).to(scores.device)
    cost = F.cross_entropy(scores, answers, ignore_index=UNLABELLED, reduction="sum")
    return cost, int((answers != UNLABELLED).sum())


def targets_of(predictor: Predictor, example: LabelledUtterance, num_frames: int) -> Tensor:
    """Targets of an example: (F,) classes of its frames, (1,) the class of the utterance, or (S,) of its sequence."""
    if predictor.asks_frames:
        return predictor.frame_classes(example, num_frames)
    return predictor.classes_in(example)


def scores_of(
    network: Network, examples: LabelledUtterances, extraction: ExtractionSettings, *, device: torch.device
) -> FeatureTable:
    """Scores of a network, as a table: (1, N, C) of all frames, or (1, U, C).

    Args:
        network: On `device`; in eval mode after.
        examples: In the order of the table.
        extraction: Batch size of the upstream, and rounding of its features.
        device: Where it is computed.

    Raises:
        EnvironmentFault: The memory does not suffice for a single utterance.
    """
    network.eval()
    upstream = upstream_of(network)
    splits = outline(upstream, [example.utterance for example in examples])
    batches = length_batches(splits.lengths, batch_samples(upstream, extraction.batch_seconds))
    scores: dict[int, Tensor] = {}
    results = run_batches(upstream, splits, network.layers, batches, device=device, dtype=extraction.dtype)
    with torch.inference_mode():
        for batch, features in results:
            for index, frames in zip(batch, features, strict=True):  # frames: (L, F, D)
                counts = torch.tensor([splits.counts[index]], device=device)
                scores[index] = network.scores(frames.float().to(device), counts).cpu()
    rows = [scores[index] for index in range(len(examples))]  # (F, C) or (1, C) each
    counts_of_rows = tuple(len(each) for each in rows)
    return FeatureTable(torch.cat(rows)[None], counts_of_rows, tuple(example.id for example in examples))


def predictions_of(
    network: Network,
    predictor: Predictor,
    examples: LabelledUtterances,
    extraction: ExtractionSettings,
    *,
    device: torch.device,
) -> list[Prediction]:
    """The network's prediction of every example; arguments as `scores_of`.

    Raises:
        NonFiniteError: A score is NaN or infinite; names the utterance.
    """
    table = scores_of(network, examples, extraction, device=device)
    places = table.starts()
    predictions = []
    for example in examples:
        start, count = places[example.id]
        scores = table.frames[0, start : start + count]
        if not bool(torch.isfinite(scores).all()):
            raise NonFiniteError("The network's scores hold NaN or infinity", utterance=example.id)
        predictions.append(predictor.answer(example, scores))
    return predictions
