"""SpecAugment on features: spans of time and of dimensions are masked in training, anew in each batch.

A mask is the mean of the training split, 0 after standardisation. All layers, and all probes on the same batch, have
the same masks. There is no warping of time.

Axes: L layers, N frames of all utterances in turn, D width, U utterances.

Reference:
    Park et al., SpecAugment: A Simple Data Augmentation Method for Automatic Speech Recognition, Interspeech 2019.
"""

from __future__ import annotations

import torch
from torch import Tensor

from repbench.benchmark.protocol import ProbeSettings
from repbench.downstream.problems import Problem
from repbench.downstream.problems.contract import FrameTimes
from repbench.errors import UsageError

_SEED_OFFSET = 0x5BEC
"""Added to the seed of a job: its masks are drawn apart from its weights, which are those without masks."""


class SpecAugment:
    """Masks of one job.

    Args:
        settings: Number and size of the masks.
        times: Of the upstream's frames.
        seed: Of the job.
    """

    def __init__(self, settings: ProbeSettings, times: FrameTimes, seed: int) -> None:
        self._settings = settings
        # seconds * samples a second / samples a frame
        self._longest = round(settings.spec_augment_time_seconds * times.sample_rate_hz / times.hop_samples)
        self._masks = torch.Generator().manual_seed(seed + _SEED_OFFSET)

    def mask_(self, frames: Tensor, counts: Tensor) -> Tensor:
        """Set masked values to 0, in place.

        Args:
            frames: (L, N, D), standardised.
            counts: (U,) frames of each utterance.

        Returns:
            The same tensor.
        """
        settings, width = self._settings, frames.shape[-1]
        widest = round(settings.spec_augment_feature_share * width)
        start = 0
        for count in counts.tolist():
            for _ in range(settings.spec_augment_time_masks):
                first, last = self._span(count, self._longest)
                frames[:, start + first : start + last] = 0
            for _ in range(settings.spec_augment_feature_masks):
                first, last = self._span(width, widest)
                frames[:, start : start + count, first:last] = 0
            start += count
        return frames

    def _span(self, size: int, longest: int) -> tuple[int, int]:
        """A span of 0 to `longest` of `size` places, anywhere in them."""
        # Both numbers are drawn for every mask, of whatever length: the draws after it do not depend on the utterance.
        length, place = torch.rand(2, generator=self._masks, dtype=torch.float64).tolist()
        taken = min(int(length * (longest + 1)), size)
        first = int(place * (size - taken + 1))
        return first, first + taken


def refuse_spec_augment(settings: ProbeSettings, problem: Problem) -> None:
    """Refuse masks for a problem that is trained on single frames, which have no spans of time.

    Raises:
        UsageError: Names the setting.
    """
    if settings.spec_augment and problem.batches == "frames":
        raise UsageError(
            f"SpecAugment masks spans of whole utterances, but {problem.name} is trained on single frames",
            key="probe.spec_augment",
            do="Leave it out, or set it for single tasks, as tasks.asr.probe.spec_augment=true",
        )
