"""`blstm`: a bidirectional LSTM over the frames of an utterance, then a linear layer.

Axes: N frames of all utterances in turn, D width, U utterances, F frames of the longest, O outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from repbench.downstream.heads.contract import Head, HeadInfo
from repbench.downstream.heads.dropout import SeededDropout
from repbench.downstream.heads.frames import initialise, mean_of_each
from repbench.downstream.heads.recurrent import BidirectionalLSTM, padded, turned_places, without_padding


class Blstm(Head):
    """One bidirectional LSTM with `hidden_units` in each direction, the mean over frames if it pools, a linear layer.

    Arguments are those of `HeadFactory`; `dropout` drops outputs of the LSTM.

    Reference:
        Graves and Schmidhuber, Framewise phoneme classification with bidirectional LSTM, 2005.
    """

    info = HeadInfo(name="blstm", gives=("frames", "utterances"), whole_utterances=True)

    def __init__(
        self,
        *,
        width: int,
        num_outputs: int,
        hidden_units: int,
        pools: bool,
        generator: torch.Generator,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.lstm = BidirectionalLSTM(width, hidden_units, generator)
        self.output = nn.Linear(2 * hidden_units, num_outputs)
        self.pools = pools
        initialise(self.output, self.output.in_features, generator)
        self.drop = SeededDropout(dropout, generator)

    def before_output(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        """(N, D) with `counts` (U,) -> (N, 2 units), or (U, 2 units) if it pools."""
        assert counts is not None
        states = self.lstm(padded(frames, counts), turned_places(counts))  # (U, F, D) -> (U, F, 2 units)
        states = self.drop(without_padding(states, counts))  # (N, 2 units)
        return mean_of_each(states, counts) if self.pools else states
