"""From tokens and the frames of their utterances to the cells of ABX.

Axes: F frames of an utterance, D width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from repbench.downstream.discrimination.alignment import Pooling, alignment_bytes, segments_of
from repbench.downstream.discrimination.cells import Condition, FoundCell, blocks_of, restricted, tables_of
from repbench.downstream.discrimination.tokens import Token
from repbench.downstream.metrics.dtw import tables
from repbench.downstream.metrics.frame_distances import FrameDistance

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class TokenFrames:
    """Cuts the frames of tokens out of those of their utterances.

    Args:
        tokens: All tokens.
        owners: Of each token, the number of its utterance.
        utterances: (F, D) float32 of each utterance in turn, on the CPU; read once.
        sample_rate_hz: Rate in which the other two are counted.
        hop: Samples between the centres of two frames.
        first_center: Sample of the centre of the first frame.

    Attributes:
        tokens: All tokens.
        without_frames: Of each utterance, by its number, the tokens without a frame; known after `of`.
    """

    def __init__(
        self,
        tokens: Sequence[Token],
        owners: Sequence[int],
        utterances: Iterable[Tensor],
        *,
        sample_rate_hz: int,
        hop: int,
        first_center: int,
    ) -> None:
        self.tokens, self._utterances = tokens, utterances
        self._ranges = [
            token.frames(sample_rate_hz=sample_rate_hz, hop=hop, first_center=first_center) for token in tokens
        ]
        self._of_utterance: dict[int, list[int]] = {}
        for number, owner in enumerate(owners):
            self._of_utterance.setdefault(owner, []).append(number)
        self.without_frames = Counter[int]()

    def can_have_frames(self) -> list[int]:
        """The tokens that are long enough for the distance of two frames, or lie on a centre."""
        return [number for number, each in enumerate(self._ranges) if each]

    def of(self, drawn: Collection[int], pooling: Pooling) -> dict[int, Tensor]:
        """From the number of each drawn token that has a frame to its frames, (F, D), or their mean, (1, D)."""
        found: dict[int, Tensor] = {}
        for owner, frames in enumerate(self._utterances):
            for number in self._of_utterance.get(owner, ()):
                own = frames[self._ranges[number].start : self._ranges[number].stop]
                if not len(own):
                    self.without_frames[owner] += 1
                elif number in drawn:
                    # A copy, so that the frames of the whole utterance can go.
                    found[number] = own.mean(dim=0, keepdim=True) if pooling == "mean" else own.clone()
        return found


def cells_of(
    frames: TokenFrames,
    condition: Condition,
    distance: FrameDistance,
    *,
    pooling: Pooling,
    seed: int,
    device: torch.device,
    memory_bytes: int,
) -> list[FoundCell]:
    """The cells of all triples of a condition; none where no triple can be made.

    Args:
        frames: The tokens with their frames.
        condition: Which triples are made.
        distance: Of frames.
        pooling: Whether tokens are aligned, or compared by their means.
        seed: Of the draws.
        device: Where tokens are aligned.
        memory_bytes: The budget of the frames that are drawn and of their alignment.

    Raises:
        EnvironmentFault: The frames of the tokens that are drawn do not fit the memory.
    """
    blocks = blocks_of(frames.tokens, frames.can_have_frames(), condition, seed)
    drawn = {number for block in blocks.values() for of_class in block.values() for number in of_class}
    of_token = frames.of(drawn, pooling)
    wanted = tables_of(restricted(blocks, of_token.keys()), condition, seed)
    if not wanted:
        return []
    segments = segments_of(list(of_token.values()), distance, pooling=pooling, device=device, memory_bytes=memory_bytes)
    places = {number: place for place, number in enumerate(of_token)}
    distances = tables(
        segments,
        (each.request(places) for each in wanted),
        distance.between,
        alignment_bytes(segments, memory_bytes),
    )
    return [cell for table, found in zip(wanted, distances, strict=True) for cell in table.cells(found)]
