"""The head `blstm_ctc`: a recurrent network between frames and the units of a text.

Axes: N frames of all utterances in turn, D width, U utterances, F frames of the longest of them, O outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from repbench.downstream.heads.contract import Head, HeadInfo
from repbench.downstream.heads.dropout import SeededDropout
from repbench.downstream.heads.frames import initialise
from repbench.downstream.heads.recurrent import BidirectionalLSTM, padded, turned_places, without_padding

NUM_LAYERS = 2
"""Bidirectional layers, as in SUPERB."""


class BlstmCtc(Head):
    """`blstm_ctc`: a projection, two bidirectional LSTM layers, a linear layer; arguments as `HeadFactory`.

    Projection and LSTM have `hidden_units` units, the LSTM in each direction; dropout follows each of its layers.
    SUPERB's is `probe.hidden_units=1024`, `probe.dropout=0.2`.

    Reference:
        Yang et al., SUPERB: Speech processing Universal PERformance Benchmark, 2021.
    """

    info = HeadInfo(name="blstm_ctc", gives=("frames with a blank",), whole_utterances=True)

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
        self.projection = nn.Linear(width, hidden_units)
        initialise(self.projection, width, generator)
        inputs = [hidden_units] + [2 * hidden_units] * (NUM_LAYERS - 1)
        self.layers = nn.ModuleList(BidirectionalLSTM(each, hidden_units, generator) for each in inputs)
        self.output = nn.Linear(2 * hidden_units, num_outputs)
        initialise(self.output, 2 * hidden_units, generator)
        self.drop = SeededDropout(dropout, generator)

    def before_output(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        """(N, D) with `counts` (U,) -> (N, 2 units)."""
        assert counts is not None
        turned = turned_places(counts)
        states = padded(self.projection(frames), counts)  # (N, D) -> (U, F, units)
        for layer in self.layers:
            states = self.drop(layer(states, turned))
        return without_padding(states, counts)  # (U, F, 2 units) -> (N, 2 units)
