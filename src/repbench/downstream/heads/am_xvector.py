"""`am_xvector`: the x-vector of an utterance, and its cosines with a direction of each training speaker.

Axes: N frames of all utterances in turn, D width, U utterances, C training speakers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repbench.downstream.heads.contract import HeadInfo
from repbench.downstream.heads.frames import initialise
from repbench.downstream.heads.xvector import SEGMENT_UNITS, XVectorEmbedding


class AMXVector(XVectorEmbedding):
    """The network of x-vectors up to the embedding, and a cosine for each class; arguments as `HeadFactory`.

    A row of scores is the embedding (512) and then C cosines, of the embedding with a learned direction of each class,
    for the loss with an additive margin. `hidden_units` and `dropout` are not read.

    Reference:
        Snyder et al., X-vectors: robust DNN embeddings for speaker recognition, 2018; Wang et al., Additive margin
        softmax for face verification, 2018; the task ASV of SUPERB, 2021, for both together.
    """

    info = HeadInfo(
        name="am_xvector",
        gives=("utterances with an embedding",),
        reads_deviation=True,
        embedding_units=SEGMENT_UNITS,
    )

    def __init__(self, *, width: int, num_outputs: int, generator: torch.Generator, **unread: Any) -> None:
        super().__init__(width=width, generator=generator)
        self.output = nn.Linear(SEGMENT_UNITS, num_outputs - SEGMENT_UNITS, bias=False)
        initialise(self.output, SEGMENT_UNITS, generator)

    def forward(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        """(N, D) with `counts` (U,) -> (U, 512 + C)."""
        embedding = self.embedding(frames, counts)
        # (U, 512), (C, 512) -> (U, C)
        cosines = F.linear(F.normalize(embedding, dim=1), F.normalize(self.output.weight, dim=1))
        return torch.cat([embedding, cosines], dim=1)
