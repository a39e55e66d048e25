"""`blstm`: a bidirectional LSTM over the frames of an utterance, then a linear layer.

Axes: N frames of all utterances in turn, D width, U utterances, F frames of the longest, O outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence

from repbench.downstream.heads.contract import Head, HeadInfo
from repbench.downstream.heads.dropout import SeededDropout
from repbench.downstream.heads.frames import initialise, mean_of_each


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
        self.lstm = nn.LSTM(width, hidden_units, batch_first=True, bidirectional=True)
        self.output = nn.Linear(2 * hidden_units, num_outputs)
        self.pools = pools
        # torch initialises an LSTM by its number of units, not by its inputs.
        initialise(self.lstm, hidden_units, generator)
        initialise(self.output, self.output.in_features, generator)
        self.drop = SeededDropout(dropout, generator)

    def before_output(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        """(N, D) with `counts` (U,) -> (N, 2 units), or (U, 2 units) if it pools."""
        assert counts is not None
        # Packed, so that the backward direction begins at the last frame of each utterance, not in the padding.
        packed = pack_sequence(list(torch.split(frames, counts.tolist())), enforce_sorted=False)
        padded, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)  # (U, F, 2 units)
        is_frame = torch.arange(padded.shape[1], device=counts.device) < counts[:, None]  # (U, F)
        states: Tensor = self.drop(padded[is_frame])  # (U, F, 2 units) -> (N, 2 units), utterances in turn
        return mean_of_each(states, counts) if self.pools else states
