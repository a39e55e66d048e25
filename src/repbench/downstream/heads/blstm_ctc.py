"""The head `blstm_ctc`: a recurrent network between frames and the units of a text.

Axes: N frames of all utterances in turn, D width, U utterances, F frames of the longest of them, O outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from repbench.downstream.heads.contract import Head, HeadInfo
from repbench.downstream.heads.dropout import SeededDropout
from repbench.downstream.heads.frames import initialise

NUM_LAYERS = 2
"""Bidirectional layers, as in SUPERB."""


class BidirectionalLSTM(nn.Module):
    """One layer of LSTM in both directions, on utterances that end in padding.

    Two LSTMs, the second on each utterance reversed: padding comes after all frames in both directions, so that it
    changes none of their states. torch's own way, a packed sequence, takes thirty times as long in the backward pass on
    a CPU.

    Args:
        width: D of the input.
        units: Of each direction.
        generator: Draws the initial weights.
    """

    def __init__(self, width: int, units: int, generator: torch.Generator) -> None:
        super().__init__()
        self.forward_lstm = nn.LSTM(width, units, batch_first=True)
        self.backward_lstm = nn.LSTM(width, units, batch_first=True)
        for direction in (self.forward_lstm, self.backward_lstm):
            initialise(direction, units, generator)  # torch initialises an LSTM by its hidden size

    def forward(self, inputs: Tensor, turned: Tensor) -> Tensor:
        """States of both directions side by side.

        Args:
            inputs: (U, F, D), padding at the end.
            turned: (U, F) places as `turned_places` gives them.

        Returns:
            (U, F, 2 units); those of padding mean nothing.
        """
        onwards, _ = self.forward_lstm(inputs)  # (U, F, D) -> (U, F, units)
        back, _ = self.backward_lstm(_taken(inputs, turned))
        return torch.cat([onwards, _taken(back, turned)], dim=-1)


def turned_places(counts: Tensor) -> Tensor:
    """For each place of an utterance its place when the utterance is reversed: counts (U,) -> (U, F).

    Padding keeps its place. The same places turn it back.
    """
    places = torch.arange(int(counts.max()), device=counts.device)
    # (U, 1) - (F,) -> (U, F)
    return torch.where(places < counts[:, None], counts[:, None] - 1 - places, places)


def _taken(values: Tensor, places: Tensor) -> Tensor:
    """Values (U, F, D) in the order of places (U, F)."""
    return values.gather(1, places[:, :, None].expand_as(values))


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
        # (N, D) -> (N, units) -> U of (frames, units) -> (U, F, units)
        states = pad_sequence(list(torch.split(self.projection(frames), counts.tolist())), batch_first=True)
        for layer in self.layers:
            states = self.drop(layer(states, turned))
        # (F,) < (U, 1) -> (U, F); (U, F, 2 units) -> (N, 2 units): the frames without padding, utterances in turn
        spoken: Tensor = states[torch.arange(states.shape[1], device=states.device) < counts[:, None]]
        return spoken
