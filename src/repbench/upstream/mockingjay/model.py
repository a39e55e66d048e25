"""The network of Mockingjay: stacked frames, a Transformer encoder, and a head that reconstructs the spectrogram.

Each utterance is stacked over its own frames and attends to its own frames only, so its hidden states do not depend on
the rest of the batch.

Axes: L layers, B batch, F frames, S stacked frames, r frames in a stack, A attention heads, D width of the input, H
width of the hidden states.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from repbench.audio.frames import valid_mask
from repbench.upstream.dropout import dropout

Activation = Literal["gelu", "relu", "swish"]
LayerNormPlace = Literal["post", "pre"]

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu, "swish": F.silu}


def stack_frames(frames: Tensor, lengths: Tensor, rate: int) -> tuple[Tensor, Tensor]:
    """Concatenate every `rate` consecutive frames; frames left over at the end of an utterance are dropped.

    Args:
        frames: (B, F, D).
        lengths: (B,) valid frames.
        rate: r, frames of a stack.

    Returns:
        (B, S, r * D), zero past the (B,) counts, with S = F // rate.
    """
    # From the lengths, not from the padded F: a stack never mixes valid frames with padding.
    counts = lengths.div(rate, rounding_mode="floor")
    batch, num_frames, width = frames.shape
    num_stacked = num_frames // rate
    # (B, F, D) -> (B, S, r * D)
    stacked = frames[:, : num_stacked * rate].reshape(batch, num_stacked, rate * width)
    return stacked.masked_fill(~valid_mask(counts, num_stacked)[..., None], 0.0), counts


def tile_frames(stacked: Tensor, counts: Tensor, lengths: Tensor, rate: int) -> Tensor:
    """Repeat each stacked frame `rate` times, and the last one to the end of the utterance.

    Args:
        stacked: (..., B, S, H).
        counts: (B,) valid stacked frames, each at least 1.
        lengths: (B,) frames of the input.
        rate: r, frames of a stack.

    Returns:
        (..., B, F, H) with F the largest of `lengths`, zero past each.
    """
    num_frames = int(lengths.max())
    places = torch.arange(num_frames, device=stacked.device)[None] // rate  # (1, F)
    # Frames left over by stacking take the last valid stack: (1, F) and (B, 1) -> (B, F)
    places = torch.minimum(places, (counts - 1)[:, None])
    # (B, F) -> (B, F, 1) -> (..., B, F, H): `gather` needs an index of the shape of its result; `expand` copies nothing
    index = places[..., None].expand(*stacked.shape[:-2], num_frames, stacked.shape[-1])
    return stacked.gather(-2, index).masked_fill(~valid_mask(lengths, num_frames)[..., None], 0.0)


def sinusoids(num_frames: int, width: int) -> Tensor:
    """P[t, 2i] = sin(t / 10000^(2i / H)) and P[t, 2i + 1] = cos of the same angle: (F, H) float32.

    Reference:
        Vaswani et al., Attention Is All You Need, section 3.5, arXiv:1706.03762.
    """
    # float64, rounded once at the end: in float32 the angle of frame 2,000 may already be off by 1e-4.
    rates = 10_000.0 ** (-2.0 * (torch.arange(width) // 2).to(torch.float64) / width)  # (H,)
    angles = torch.arange(num_frames, dtype=torch.float64)[:, None] * rates  # (F, 1) * (H,) -> (F, H)
    angles[:, 1::2] += math.pi / 2  # cos x = sin(x + pi / 2), exact to 1e-16 of the angle
    return angles.sin().to(torch.float32)


class Positions(nn.Module):
    """Sinusoidal positions: the first rows of one table, which grows with the longest utterance so far.

    Args:
        width: H.
        scale: Amplitude.
    """

    table: Tensor

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self._scale = scale
        # Not persistent: the table is a function of H and the scale, so checkpoints and fingerprints do not hold it.
        self.register_buffer("table", torch.empty(0, width), persistent=False)

    def forward(self, num_frames: int, offsets: Tensor | None = None) -> Tensor:
        """The rows (F, H), or (B, F, H) with (B,) offsets, the first row of each utterance."""
        needed = num_frames + (0 if offsets is None else int(offsets.max()))
        table = self.table  # looked up once: another thread may put a shorter one in its place
        if needed > len(table):
            rows = max(1024, 1 << (needed - 1).bit_length())  # the next power of two: few tables for many lengths
            with torch.inference_mode(False):  # the table is kept for later calls in training
                table = (self._scale * sinusoids(rows, table.shape[1])).to(table)
            self.table = table
        if offsets is None:
            return table[:num_frames]
        # (B, 1) + (F,) -> rows (B, F) -> (B, F, H)
        return table[offsets[:, None] + torch.arange(num_frames, device=offsets.device)]


class Attention(nn.Module):
    """Multi-head self-attention: softmax(Q K^T / sqrt(H / A)) V over the valid frames.

    Args:
        width: H.
        num_heads: A.
        dropout: Dropout probability on the attention probabilities.
    """

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        # The rows of Q, K and V one after the other, as `interop` concatenates them: (3H, H).
        self.qkv = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, states: Tensor, valid: Tensor | None) -> Tensor:
        """(B, S, H) -> (B, S, H); `valid` is (B, 1, 1, S) bool, or None if all frames are valid."""
        query, key, value = self._parts(states)
        drops = self.training and self.dropout > 0
        if drops and states.device.type == "cpu":
            # torch has no fused attention with dropout on a CPU; its general form is three times slower in bfloat16.
            probabilities = dropout(_probabilities(query, key, valid), self.dropout, training=True)
            return self._joined(probabilities @ value)
        if query.dtype == torch.bfloat16 and query.device.type == "cpu" and not torch.is_grad_enabled():
            return self._joined(_attended_in_bfloat16(query, key, value, valid))
        dropped = self.dropout if drops else 0.0
        return self._joined(F.scaled_dot_product_attention(query, key, value, attn_mask=valid, dropout_p=dropped))

    def probabilities(self, states: Tensor, valid: Tensor | None) -> Tensor:
        """Attention probabilities (B, A, S, S) of (B, S, H); rows are queries and add up to 1 over the keys."""
        query, key, _ = self._parts(states)
        return _probabilities(query, key, valid)

    def _parts(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch, num_frames, width = states.shape
        # (B, S, 3H) -> (B, S, 3, A, H / A)
        parts = self.qkv(states).view(batch, num_frames, 3, self.num_heads, width // self.num_heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # (B, S, 3, A, H / A) -> 3 times (B, A, S, H / A)
        return query, key, value

    def _joined(self, mixed: Tensor) -> Tensor:
        # (B, A, S, H / A) -> (B, S, A, H / A) -> (B, S, H)
        joined: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return joined


_BLOCK_SCORES = 1 << 20
"""Attention scores of one block, few enough for the cache of a CPU."""


def _attended_in_bfloat16(query: Tensor, key: Tensor, value: Tensor, valid: Tensor | None) -> Tensor:
    """Attention (B, A, S, H / A), a few heads at a time.

    On a CPU torch's fused attention multiplies bfloat16 at the speed of float32. Plain products of a block that fits
    into the cache are 1.5 times as fast.
    """
    batch, num_heads, num_frames, _ = query.shape
    # A head has B * S * S scores; a block takes as many heads as fit, at least one.
    step = max(1, min(num_heads, _BLOCK_SCORES // (batch * num_frames * num_frames)))
    mixed = torch.empty_like(query)
    for first in range(0, num_heads, step):
        heads = slice(first, first + step)
        # (B, a, S, S) @ (B, a, S, H / A) -> (B, a, S, H / A) for the a heads of the block
        mixed[:, heads] = _probabilities(query[:, heads], key[:, heads], valid) @ value[:, heads]
    return mixed


def _probabilities(query: Tensor, key: Tensor, valid: Tensor | None) -> Tensor:
    # (B, A, S, H / A) @ (B, A, H / A, S) -> (B, A, S, S)
    # The query is scaled, not the scores: a head divides S * H / A numbers in place of S * S.
    scores = (query / math.sqrt(query.shape[-1])) @ key.transpose(-1, -2)
    if valid is not None:
        # (B, A, S, S) with (B, 1, 1, S): padding is masked as a key only. Every row keeps a finite key, because
        # counts are at least 1, so no softmax is 0 / 0; rows of padding hold numbers that nobody reads.
        scores.masked_fill_(~valid, -math.inf)
    return scores.softmax(dim=-1)


class EncoderLayer(nn.Module):
    """Attention and a feed-forward block, each with a residual sum.

    Args:
        width: H.
        num_heads: A.
        inner: Width inside the feed-forward block.
        activation: Activation between its two matrices.
        place: Place of the normalisation: after each sum ("post"), or before each block ("pre").
        epsilon: Epsilon of the normalisation.
        hidden_dropout: Dropout probability after each block.
        attention_dropout: Dropout probability on the attention probabilities.
    """

    def __init__(
        self,
        *,
        width: int,
        num_heads: int,
        inner: int,
        activation: Activation,
        place: LayerNormPlace,
        epsilon: float,
        hidden_dropout: float,
        attention_dropout: float,
    ) -> None:
        super().__init__()
        self._place = place
        self._activation = _ACTIVATIONS[activation]
        self._dropout = hidden_dropout
        self.attention = Attention(width, num_heads, attention_dropout)
        self.attention_norm = nn.LayerNorm(width, eps=epsilon)
        self.expand = nn.Linear(width, inner)
        self.contract = nn.Linear(inner, width)
        self.feed_forward_norm = nn.LayerNorm(width, eps=epsilon)

    def forward(self, states: Tensor, valid: Tensor | None) -> Tensor:
        """(B, S, H) -> (B, S, H)."""
        # Pre-LN leaves the residual path unnormalised, hence `Encoder.output_norms`; post-LN is that of BERT.
        if self._place == "pre":
            states = states + self._dropped(self.attention(self.attention_norm(states), valid))
            return states + self._dropped(self._feed_forward(self.feed_forward_norm(states)))
        states = self.attention_norm(states + self._dropped(self.attention(states, valid)))
        normed: Tensor = self.feed_forward_norm(states + self._dropped(self._feed_forward(states)))
        return normed

    def probabilities(self, states: Tensor, valid: Tensor | None) -> Tensor:
        """Attention probabilities (B, A, S, S) of the layer on its input (B, S, H)."""
        return self.attention.probabilities(self.attention_norm(states) if self._place == "pre" else states, valid)

    def _feed_forward(self, states: Tensor) -> Tensor:
        # (B, S, H) -> (B, S, inner) -> (B, S, H)
        contracted: Tensor = self.contract(self._activation(self.expand(states)))
        return contracted

    def _dropped(self, states: Tensor) -> Tensor:
        return dropout(states, self._dropout, self.training)


class Encoder(nn.Module):
    """The Transformer encoder: stacked frames to hidden states.

    Args:
        input_width: r * D, width of a stacked frame.
        width: H.
        num_layers: L, encoder layers.
        num_heads: A.
        inner: Width inside the feed-forward blocks.
        activation: Activation in the feed-forward blocks.
        place: Place of the normalisation.
        epsilon: Epsilon of the normalisation.
        hidden_dropout: Dropout probability after the input and each block.
        attention_dropout: Dropout probability on the attention probabilities.
        position_scale: Amplitude of the positions.

    Attributes:
        recomputes: Whether the backward pass computes the inside of each layer again and the forward pass does not keep
            it. Dropout draws the same numbers again, so losses and gradients keep their bits.
    """

    def __init__(
        self,
        *,
        input_width: int,
        width: int,
        num_layers: int,
        num_heads: int,
        inner: int,
        activation: Activation = "gelu",
        place: LayerNormPlace = "post",
        epsilon: float = 1e-12,
        hidden_dropout: float = 0.1,
        attention_dropout: float = 0.1,
        position_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self._dropout = hidden_dropout
        self.recomputes = False
        self.positions = Positions(width, position_scale)
        self.input_projection = nn.Linear(input_width, width)
        self.input_norm = nn.LayerNorm(width, eps=epsilon)
        self.layers = nn.ModuleList(
            EncoderLayer(
                width=width,
                num_heads=num_heads,
                inner=inner,
                activation=activation,
                place=place,
                epsilon=epsilon,
                hidden_dropout=hidden_dropout,
                attention_dropout=attention_dropout,
            )
            for _ in range(num_layers)
        )
        # One for each of the L + 1 outputs, input included, as S3PRL's `pre_layer_norm` has them.
        num_output_norms = num_layers + 1 if place == "pre" else 0
        self.output_norms = nn.ModuleList(nn.LayerNorm(width, eps=epsilon) for _ in range(num_output_norms))

    def forward(self, stacked: Tensor, counts: Tensor) -> list[Tensor]:
        """The input representation and the output of each layer.

        Args:
            stacked: (B, S, r * D).
            counts: (B,) valid stacked frames, each at least 1.

        Returns:
            L + 1 tensors (B, S, H); values past the counts have no meaning.
        """
        states, valid = self._input(stacked, counts)
        outputs = [states]
        for layer in self.layers:
            outputs.append(self._output(layer, outputs[-1], valid))
        if not self.output_norms:
            return outputs
        return [norm(each) for norm, each in zip(self.output_norms, outputs, strict=True)]

    def last(self, stacked: Tensor, counts: Tensor, offsets: Tensor | None = None) -> Tensor:
        """The output (B, S, H) of the last layer.

        Args:
            stacked: (B, S, r * D).
            counts: (B,) valid stacked frames, each at least 1.
            offsets: (B,) position of each utterance's first frame; None: 0.
        """
        states, valid = self._input(stacked, counts, offsets)
        for layer in self.layers:
            states = self._output(layer, states, valid)
        # The slice is empty with post-LN, which has no output norms.
        for norm in self.output_norms[-1:]:
            states = norm(states)
        return states

    def attentions(self, stacked: Tensor, counts: Tensor) -> Tensor:
        """Attention probabilities (B, L, A, S, S) of each layer, zero in rows and columns past the counts.

        Args:
            stacked: (B, S, r * D).
            counts: (B,) valid stacked frames, each at least 1.
        """
        states, valid = self._input(stacked, counts)
        maps = []
        for layer in self.layers:
            assert isinstance(layer, EncoderLayer)
            # Computed apart from the layer itself, whose fused attention does not give its probabilities.
            maps.append(layer.probabilities(states, valid))
            states = layer(states, valid)
        rows = valid_mask(counts, stacked.shape[1])[:, None, None, :, None]  # (B, 1, 1, S, 1)
        # L times (B, A, S, S) -> (B, L, A, S, S)
        return torch.stack(maps, dim=1).masked_fill(~rows, 0.0)

    def _output(self, layer: nn.Module, states: Tensor, valid: Tensor | None) -> Tensor:
        """(B, S, H) -> (B, S, H)."""
        recomputes = self.recomputes and torch.is_grad_enabled()
        output: Tensor = checkpoint(layer, states, valid, use_reentrant=False) if recomputes else layer(states, valid)
        return output

    def _input(self, stacked: Tensor, counts: Tensor, offsets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        num_frames = stacked.shape[1]
        # (B, S, r * D) -> (B, S, H); positions are (S, H), or (B, S, H) with offsets
        projected = self.input_projection(stacked) + self.positions(num_frames, offsets)
        states = dropout(self.input_norm(projected), self._dropout, self.training)
        # Without padding no mask is needed, and torch's flash attention on CUDA takes none.
        if int(counts.min()) == num_frames:
            return states, None
        return states, valid_mask(counts, num_frames)[:, None, None, :]  # (B, S) -> (B, 1, 1, S)


class ReconstructionHead(nn.Module):
    """Hidden states to the reconstructed spectrogram: Linear, activation, LayerNorm, Linear.

    Args:
        width: H.
        output_width: r * D, width of a stacked frame of the target.
        activation: Activation after the first matrix.
        epsilon: Epsilon of the normalisation.
    """

    def __init__(self, width: int, output_width: int, *, activation: Activation = "gelu", epsilon: float) -> None:
        super().__init__()
        self._activation = _ACTIVATIONS[activation]
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=epsilon)
        self.output = nn.Linear(width, output_width)

    def hidden(self, states: Tensor) -> Tensor:
        """(..., H) -> (..., H), the input of the last matrix."""
        hidden: Tensor = self.norm(self._activation(self.dense(states)))
        return hidden

    def forward(self, states: Tensor) -> Tensor:
        """(..., H) -> (..., output_width)."""
        restored: Tensor = self.output(self.hidden(states))
        return restored


def initialise(module: nn.Module, std: float, generator: torch.Generator) -> None:
    """Draw every matrix from N(0, std^2) and set biases to 0, gains to 1, as BERT does."""
    # In the order of `modules()`, with one generator: another order of the same parts draws other weights.
    for part in module.modules():
        if isinstance(part, nn.Linear):
            with torch.no_grad():
                part.weight.normal_(0.0, std, generator=generator)
                part.bias.zero_()
        elif isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
