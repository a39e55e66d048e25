"""A bidirectional LSTM over utterances of several lengths, of which no padding reaches a frame.

Axes: N frames of all utterances in turn, D width, U utterances, F frames of the longest of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from repbench.downstream.heads.frames import initialise


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


def padded(frames: Tensor, counts: Tensor) -> Tensor:
    """Utterances with zeros at their ends: (N, D) and counts (U,) -> (U, F, D)."""
    return pad_sequence(list(torch.split(frames, counts.tolist())), batch_first=True)


def without_padding(values: Tensor, counts: Tensor) -> Tensor:
    """Utterances in turn: (U, F, D) and counts (U,) -> (N, D)."""
    is_frame = torch.arange(values.shape[1], device=counts.device) < counts[:, None]  # (U, F)
    return values[is_frame]
