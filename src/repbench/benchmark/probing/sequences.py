"""Connectionist temporal classification: what a sequence costs, what a path of frames says, what cannot be aligned.

The blank is the class after the last. A path gives every frame a class or the blank; the sequence it says is what is
left when repeats are joined and blanks dropped.

Axes: N frames, U utterances, C classes.

Reference:
    Graves et al., Connectionist Temporal Classification, ICML 2006.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from repbench.benchmark.data.dataset import LabelledUtterance, LabelledUtterances
from repbench.benchmark.features.extraction import num_frames
from repbench.corpora.read import samples_at
from repbench.downstream.contract import label_names
from repbench.downstream.metrics.edits import collapse
from repbench.errors import DataError
from repbench.upstream.contract import Upstream


def sequence_loss(scores: Tensor, counts: Tensor, classes: Tensor, num_classes: Tensor) -> Tensor:
    """The mean over utterances of their negative log-likelihood a class.

    Args:
        scores: (N, C + 1), the frames of all utterances in turn.
        counts: (U,) frames of each.
        classes: (S,) the classes of all sequences in turn.
        num_classes: (U,) of each; at least one. All lie on one device.

    Returns:
        A scalar; infinite where a sequence needs more frames than there are.
    """
    log_p = torch.log_softmax(scores, dim=-1)
    padded = pad_sequence(list(torch.split(log_p, counts.tolist())))  # (longest, U, C + 1)
    losses = F.ctc_loss(padded, classes, counts, num_classes, blank=scores.shape[-1] - 1, reduction="none")
    return (losses / num_classes).mean()


def best_path(scores: Tensor) -> tuple[int, ...]:
    """What the likeliest path says: the classes of (N, C + 1) scores, repeats joined and blanks dropped."""
    return tuple(collapse(scores.argmax(dim=-1).tolist(), {scores.shape[-1] - 1}))


def frames_needed(labels: Sequence[str]) -> int:
    """The least frames that can say a sequence: one a class, and a blank between two equal ones."""
    return len(labels) + sum(one == other for one, other in pairwise(labels))


def trainable(examples: LabelledUtterances, upstream: Upstream) -> tuple[LabelledUtterances, tuple[str, ...]]:
    """The questions whose sequences fit into the upstream's frames, and a warning that counts the others.

    Raises:
        DataError: None of them fits.
    """
    kept = tuple(example for example in examples if _fits(example, upstream))
    num_lost = len(examples) - len(kept)
    if not kept and examples:
        raise DataError(
            f"None of {len(examples)} training utterances has as many frames as its labels need",
            utterance=examples[0].id,
            do="Take an upstream with a shorter hop",
        )
    if not num_lost:
        return kept, ()
    return kept, (f"{num_lost} of {len(examples)} training utterances have fewer frames than labels: not trained on",)


def _fits(example: LabelledUtterance, upstream: Upstream) -> bool:
    num_samples = samples_at(example.utterance, upstream.info.sample_rate_hz)
    return frames_needed(label_names(example.labels)) <= num_frames(upstream, num_samples, example.id)
