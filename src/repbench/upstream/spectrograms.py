"""Networks on spectrograms: the shared base of Mockingjay and APC, and the check of a caller's spectrogram.

Axes: L layers, B batch, T samples, F frames, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from repbench.audio.frames import SAMPLE_RATE_HZ, FrontEnd, type_name
from repbench.configs.settings import Settings
from repbench.errors import DataError
from repbench.upstream.contract import HiddenStates, Provenance, UpstreamInfo, check_lengths, fingerprint_of

Config = TypeVar("Config", bound=Settings)


class SpectrogramNetwork(nn.Module, Generic[Config]):
    """An upstream that is a front end with a network on its frames.

    A subclass gives `encode`.

    Args:
        name: Name of the upstream.
        settings: Its settings.
        front_end: Computes the frames.
        frames_per_state: Frames of the front end in one frame of the upstream, whose centre is that of the group.
        layer_names: One name a layer.
        width: D of the hidden states.
        citation: The paper.
    """

    code_version = 1

    def __init__(
        self,
        name: str,
        settings: Config,
        front_end: FrontEnd,
        *,
        frames_per_state: int = 1,
        layer_names: tuple[str, ...],
        width: int,
        citation: str,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.front_end = front_end
        self.frames_per_state = frames_per_state
        self.provenance = Provenance()
        hop, first = front_end.hop_samples, front_end.first_center_samples
        self.info = UpstreamInfo(
            name=name,
            sample_rate_hz=SAMPLE_RATE_HZ,
            hop_samples=hop * frames_per_state,
            # Centre of r frames: the mean of their centres, first + hop * (0 + … + r - 1) / r.
            first_center_samples=first + hop * (frames_per_state - 1) // 2,
            min_samples=front_end.min_samples_for(frames_per_state),
            layer_names=layer_names,
            width=width,
            utterance_normalised=False,
            trainable=True,
            citation=citation,
            licence="MIT",
        )

    def encode(self, frames: Tensor, lengths: Tensor) -> HiddenStates:
        """Hidden states of frames (B, F, D) with (B,) lengths; zero past each length."""
        raise NotImplementedError

    @property
    def config(self) -> Mapping[str, Any]:
        """All settings, JSON-able."""
        return self.settings.model_dump(mode="json")

    def num_frames(self, num_samples: int) -> int:
        """Frames of a waveform of `num_samples`."""
        return self.front_end.num_frames(num_samples) // self.frames_per_state

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        """(B, T) waveforms with (B,) lengths -> (L, B, F, D).

        Raises:
            DataError: A length is outside of the range in `info`.
        """
        check_lengths(self.info, lengths)
        return self.encode(*self.front_end(waveforms, lengths))

    def fingerprint(self) -> str:
        """SHA-256 of weights, settings and code version."""
        return fingerprint_of(self, self.config, self.code_version)


def as_batch(
    spec: object, lengths: Tensor | Sequence[int] | None, *, width: int, min_frames: int, name: str
) -> tuple[Tensor, Tensor]:
    """Check a spectrogram and bring it to batch form.

    Args:
        spec: (F, D), or (B, F, D), of any floating-point dtype.
        lengths: (B,) valid frames; None: all. They are never inferred from zeros.
        width: D.
        min_frames: The fewest frames that the model takes.
        name: Name of the model.

    Returns:
        (B, F, D) float32 and (B,) int64 on its device.

    Raises:
        DataError: The shape, the dtype or a length is not valid.
    """
    if not isinstance(spec, Tensor):
        what = f"{name} takes a spectrogram as a torch.Tensor, but was given a {type_name(spec)}"
        raise DataError(what, do="Use torch.as_tensor(spec, dtype=torch.float32)")
    if not spec.is_floating_point():
        raise DataError(f"{name} takes a spectrogram of real numbers, but was given {spec.dtype}")
    if spec.ndim not in (2, 3) or spec.shape[-1] != width:
        shape = tuple(spec.shape)
        raise DataError(f"{name} takes a spectrogram (F, {width}) or (B, F, {width}), but was given {shape}")
    # (F, D) -> (1, F, D); float32 also of float64 and half precision, as the weights are
    frames = (spec[None] if spec.ndim == 2 else spec).float()
    batch, num_frames, _ = frames.shape
    if lengths is None:
        counts = torch.full((batch,), num_frames, dtype=torch.int64, device=frames.device)
    else:
        counts = _as_counts(lengths).to(frames.device)
        if counts.dtype != torch.int64:
            raise DataError(f"`lengths` must be whole numbers (int64), but has {counts.dtype}")
    if counts.shape != (batch,):
        raise DataError(f"`lengths` must be {batch} numbers, but has the shape {tuple(counts.shape)}")
    # torch has no minimum of nothing; (0, 0) makes an empty batch fail the check below with our error.
    shortest, longest = (int(counts.min()), int(counts.max())) if batch else (0, 0)
    if shortest < min_frames or longest > num_frames:
        raise DataError(
            f"{name} takes from {min_frames} to {num_frames} frames of this spectrogram, but `lengths` reaches from "
            f"{shortest} to {longest}"
        )
    return frames, counts


def _as_counts(lengths: Tensor | Sequence[int]) -> Tensor:
    try:
        return torch.as_tensor(lengths)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"`lengths` must be whole numbers (int64), but is {lengths!r:.80}") from error
