"""The network of APC: an optional prenet, a stack of unidirectional GRUs with residuals, and a linear postnet.

The output of a GRU at a frame depends on that frame and those before it, so padding after an utterance cannot change
it. Rows stay in the caller's order.

Axes: B batch, F frames, D width of the input, H width of hidden states.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from repbench.upstream.dropout import dropout


class Stack(nn.Module):
    """Prenet, GRUs and postnet.

    A prenet layer and the postnet are position-wise. The postnet of the original code, and both in the Mockingjay
    code, are convolutions of kernel 1.

    Args:
        input_width: D.
        width: H.
        num_layers: Number of GRUs.
        prenet_layers: Number of position-wise layers before the GRUs.
        dropout: Dropout probability after each prenet layer and GRU.
        dropout_on_last: Whether there is dropout after the last GRU.
        residual: Whether the input of each GRU is added to its output where the widths agree.
        residual_on_first: Whether that includes the first GRU.

    Reference:
        Chung et al., arXiv:1904.03240, section 2.
    """

    def __init__(
        self,
        *,
        input_width: int,
        width: int,
        num_layers: int,
        prenet_layers: int = 0,
        dropout: float = 0.0,
        dropout_on_last: bool = False,
        residual: bool = True,
        residual_on_first: bool = True,
    ) -> None:
        super().__init__()
        self._dropout = dropout
        self._dropout_on_last = dropout_on_last
        self._residual = residual
        self._residual_on_first = residual_on_first
        widths = [input_width] + [width] * prenet_layers
        # Linear also for a convolution of kernel 1: the same matrix without its third axis (`interop._converted`).
        self.prenet = nn.ModuleList(nn.Linear(one, other) for one, other in pairwise(widths))
        first = widths[-1]
        self.grus = nn.ModuleList(
            nn.GRU(first if index == 0 else width, width, batch_first=True) for index in range(num_layers)
        )
        self.postnet = nn.Linear(width, input_width)

    def forward(self, frames: Tensor) -> list[Tensor]:
        """(B, F, D) -> the output of each GRU after its residual, each (B, F, H)."""
        states = frames
        for layer in self.prenet:  # (B, F, D) -> (B, F, H)
            states = self._dropped(F.relu(layer(states)))
        outputs = []
        last = len(self.grus) - 1
        for index, gru in enumerate(self.grus):
            output, _ = gru(states)  # (B, F, H or D) -> (B, F, H)
            if index < last or self._dropout_on_last:
                output = self._dropped(output)
            # Dropout before the residual: the sum keeps the undropped input, as in the original code. Without a prenet
            # the first GRU changes the width D to H, and has a residual only if they happen to be equal.
            if self._residual and output.shape == states.shape and (index > 0 or self._residual_on_first):
                output = output + states
            outputs.append(output)
            states = output
        return outputs

    def _dropped(self, states: Tensor) -> Tensor:
        return dropout(states, self._dropout, self.training)
