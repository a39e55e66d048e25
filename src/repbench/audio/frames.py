"""Shared parts of all front ends: windows of a batch, their power spectra, slopes and normalisation over time.

Conventions: waveforms are (B, T) float32 in [-1, 1] with `lengths` (B,) samples; samples past a length have no effect.
Frames come back as (B, F, D) with (B,) frame counts and are zero past each count. Each utterance is reflected at its
*own* end and normalised over its *own* frames, so its features are the same alone and in any batch.

Axes: B batch, T samples, F frames, N windows, W window, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from repbench.errors import DataError

SAMPLE_RATE_HZ = 16_000
"""Rate of all front ends."""

Compute = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(B, T) waveforms and (B,) lengths to (B, F, D) frames and (B,) counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontEnd:
    """A pure function from waveforms to frames, and its properties.

    Attributes:
        name: Name of the front end, for errors.
        width: D.
        window_samples: Samples of the window of a frame.
        hop_samples: Samples from one frame to the next.
        centred: Whether frame k is centred on sample k * hop, its window reflected at the ends; else it starts there
            and only whole windows are frames.
        normalised: Whether each dimension has zero mean over the utterance.
        compute: The function, without checks of its input.
    """

    name: str
    width: int
    window_samples: int
    hop_samples: int
    centred: bool
    normalised: bool
    compute: Compute

    @property
    def min_samples(self) -> int:
        """The shortest waveform: one whose ends can be reflected by half a window, or one whole window."""
        return self.window_samples // 2 + 1 if self.centred else self.window_samples

    def min_samples_for(self, num_frames: int) -> int:
        """The shortest waveform that gives `num_frames` frames, at least 1."""
        before_first = 0 if self.centred else self.window_samples
        return max(self.min_samples, before_first + (num_frames - 1) * self.hop_samples)

    @property
    def first_center_samples(self) -> int:
        """The sample at the centre of frame 0."""
        return 0 if self.centred else self.window_samples // 2

    def num_frames(self, num_samples: int) -> int:
        """Number of frames of a waveform of `num_samples`, at least `min_samples`."""
        return 1 + (num_samples if self.centred else num_samples - self.window_samples) // self.hop_samples

    def __call__(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T) waveforms with (B,) lengths to (B, F, D) frames with (B,) counts.

        Raises:
            DataError: `check_waveforms` refuses them, or one is shorter than `min_samples`.
        """
        check_waveforms(waveforms, lengths, name=self.name)
        shortest = int(lengths.min())
        if shortest < self.min_samples:
            raise DataError(f"{self.name} needs at least {self.min_samples} samples, but a waveform has {shortest}")
        return self.compute(waveforms, lengths)


LOUDEST = 16.0
"""Absolute value that no sound in [-1, 1] reaches, not even resampled, but samples that are integers do."""


_CONVERSION = {
    "waveforms": "Use torch.as_tensor(samples, dtype=torch.float32), in [-1, 1]",
    "lengths": "Use torch.tensor([number of samples of each waveform])",
}
_SCALING = "Divide by the largest integer of that type: samples / 32768 for 16 bits, as float32"


def check_waveforms(waveforms: object, lengths: object, *, name: str) -> None:
    """Refuse input that is no batch of waveforms, but that a front end or network would turn into plausible numbers.

    Args:
        waveforms: (B, T) float32 in [-1, 1].
        lengths: (B,) int64, from 1 to T.
        name: Name of the front end or upstream, for errors.

    Raises:
        DataError: One is no tensor, or has another type or shape; a length is below 1 or beyond the waveforms; or the
            samples are as large as integers.
    """
    for argument, value, dtype, axes in (
        ("waveforms", waveforms, torch.float32, "(B, T)"),
        ("lengths", lengths, torch.int64, "(B,)"),
    ):
        if not isinstance(value, Tensor):
            what = f"{name} takes `{argument}` as a torch.Tensor {axes}, but was given a {type_name(value)}"
            raise DataError(what, do=_CONVERSION[argument])
        if value.dtype != dtype:
            what = f"{name} takes `{argument}` of {dtype}, but was given {value.dtype}"
            integers = argument == "waveforms" and not value.is_floating_point()
            raise DataError(what, do=_SCALING if integers else _CONVERSION[argument])
    assert isinstance(waveforms, Tensor)
    assert isinstance(lengths, Tensor)
    batch = len(waveforms) if waveforms.ndim == 2 else 0
    if batch == 0 or lengths.shape != (batch,):
        shapes = f"{tuple(waveforms.shape)} and {tuple(lengths.shape)}"
        do = "One sound of T samples is a batch of one: waveform[None], torch.tensor([len(waveform)])"
        raise DataError(f"{name} takes waveforms (B, T) and lengths (B,), but was given {shapes}", do=do)
    shortest, longest = (int(each) for each in lengths.aminmax())
    if shortest < 1:
        raise DataError(f"`lengths` must be from 1 to T, but {name} was given {shortest}")
    if longest > waveforms.shape[1]:
        raise DataError(f"`lengths` reaches to {longest}, but the waveforms have {waveforms.shape[1]} samples")
    _refuse_integers(waveforms.detach(), lengths, name)


def type_name(value: object) -> str:
    """Name of the type of a value as code writes it: `numpy.ndarray`, `list`."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _refuse_integers(waveforms: Tensor, lengths: Tensor, name: str) -> None:
    """Refuse samples as large as integers; samples past a length may have any value."""
    if float(waveforms.abs().amax()) < LOUDEST:
        return
    valid = waveforms.masked_fill(~valid_mask(lengths.to(waveforms.device), waveforms.shape[1]), 0.0)
    peak = float(valid.nan_to_num(0.0, posinf=0.0, neginf=0.0).abs().amax())
    if peak >= LOUDEST:
        what = f"{name} takes samples in [-1, 1], but was given one of {peak:g}"
        raise DataError(what, do=_SCALING)


Transform = Callable[[Tensor, Tensor], object]
"""Function that writes the features of (N, W) windows into an (N, D) tensor of zeros."""

_CPU_BLOCK_FRAMES = 128
"""Windows transformed at once on a CPU: their spectra stay in the cache between the steps of a transform."""


def centred_windows(
    waveforms: Tensor, lengths: Tensor, *, window: int, hop: int, width: int, transform: Callable[[int], Transform]
) -> tuple[Tensor, Tensor]:
    """Transform windows centred on every `hop` samples, each utterance reflected at its own ends.

    Args:
        waveforms: (B, T).
        lengths: (B,).
        window: W.
        hop: Samples from one window to the next.
        width: D.
        transform: Function from the largest N of a call to the transform.

    Returns:
        (B, F, D) float32, without meaning past the (B,) counts.
    """
    # Frame k is centred on sample k * hop, the last at or before the sample past the end: 1 + floor(T / hop).
    counts = 1 + lengths.div(hop, rounding_mode="floor")
    reflected = reflect_ends(waveforms, lengths, window // 2)  # (B, T + W)
    return _transformed(reflected, counts, window, hop, width, transform), counts


def whole_windows(
    waveforms: Tensor, lengths: Tensor, *, window: int, hop: int, width: int, transform: Callable[[int], Transform]
) -> tuple[Tensor, Tensor]:
    """Transform windows that start at every `hop` samples and end within the utterance.

    Arguments and result are those of `centred_windows`: (B, T) waveforms to (B, F, D) frames and (B,) counts.
    """
    counts = 1 + (lengths - window).div(hop, rounding_mode="floor")
    return _transformed(waveforms, counts, window, hop, width, transform), counts


def _transformed(
    samples: Tensor, counts: Tensor, window: int, hop: int, width: int, transform: Callable[[int], Transform]
) -> Tensor:
    """Transform all windows of (B, T) samples: (B, F, D)."""
    num_frames = 1 + (samples.shape[1] - window) // hop
    frames = torch.zeros(len(samples), num_frames, width, device=samples.device)
    if samples.device.type != "cpu":
        # Windows overlap in memory, so flattening them copies; flattening `frames` is a view, through which the
        # transform fills them.
        windows = samples.unfold(-1, window, hop)  # (B, T) -> (B, F, W)
        transform(len(samples) * num_frames)(windows.flatten(0, 1), frames.flatten(0, 1))  # (B * F, W) -> (B * F, D)
        return frames
    # On a CPU only valid frames are computed; the rest stay zero.
    apply = transform(_CPU_BLOCK_FRAMES)
    for row, count in enumerate(counts.tolist()):
        windows = samples[row].unfold(0, window, hop)  # (T,) -> (F, W)
        for start in range(0, count, _CPU_BLOCK_FRAMES):
            block = slice(start, min(start + _CPU_BLOCK_FRAMES, count))
            apply(windows[block], frames[row, block])
    return frames


class Spectrum:
    """Power spectra of windows, at most `block` at a time, in buffers that are allocated once.

    The transform runs in float64: in float32 the strongest bin's rounding shows in the weakest (1e-5 in a log-mel band
    of a chirp). Only the power is kept, so a short window is zero-padded on one side: leading zeros would change the
    phase alone. (Fresh buffers for each block would cost a fifth of the time in page faults.)

    Args:
        window: (W,) float64 window function.
        fft_samples: Length of the transform.
        block: Most windows in one call.
    """

    def __init__(self, window: Tensor, fft_samples: int, block: int) -> None:
        device, num_bins = window.device, fft_samples // 2 + 1
        self._window = window
        self._frames = torch.zeros(block, fft_samples, dtype=torch.float64, device=device)
        self._squares = torch.empty(block, num_bins, 2, device=device)
        self._power = torch.empty(block, num_bins, device=device)

    def power(self, windows: Tensor) -> Tensor:
        """(N, W) -> (N, bins) float32, in a buffer that the next call overwrites."""
        frames, squares = self._frames[: len(windows)], self._squares[: len(windows)]
        # (N, W) * (W,) -> the first W of (N, fft_samples); float32 windows are promoted
        torch.mul(windows, self._window, out=frames[:, : len(self._window)])  # zero past W
        # The squares are rounded to float32 once, after the transform in float64.
        squares.copy_(torch.view_as_real(torch.fft.rfft(frames))).square_()  # (N, bins, 2): real, imaginary
        # (N, bins, 2) -> (N, bins)
        return torch.add(squares[..., 0], squares[..., 1], out=self._power[: len(windows)])


def reflect_ends(waveforms: Tensor, lengths: Tensor, margin: int) -> Tensor:
    """Reflect each waveform at its own two ends: (B, T) -> (B, T + 2 * margin), zero past the reflections."""
    batch, num_samples = waveforms.shape
    if batch == 1 and int(lengths[0]) == num_samples:
        # (B, T) -> (B, margin) twice; the end samples are not repeated, as in numpy's `pad(mode="reflect")`
        before, after = waveforms[:, 1 : margin + 1].flip(1), waveforms[:, -margin - 1 : -1].flip(1)
        return torch.cat([before, waveforms, after], dim=1)
    # (B, T) -> (B, margin + T + margin): sample t of a waveform is at margin + t
    padded = torch.nn.functional.pad(waveforms * valid_mask(lengths, num_samples), (margin, margin))
    for row, length in zip(padded, lengths.tolist(), strict=True):
        # Samples 1 to margin, backwards, before sample 0; those before the last, backwards, after it. A waveform of
        # `min_samples`, margin + 1, has just enough.
        row[:margin] = row[margin + 1 : 2 * margin + 1].flip(0)
        end = margin + length
        row[end : end + margin] = row[end - 1 - margin : end - 1].flip(0)
    return padded


def savgol_slopes(frames: Tensor, num_frames: Tensor, window: int) -> Tensor:
    """Slope over time of the straight line fitted to each `window` frames (Savitzky-Golay, first order).

    The first and last `window // 2` frames take the slope of the first and last whole window; an utterance shorter
    than the window takes the slope of the line through all its frames (0 for a single frame).

    Args:
        frames: (B, F, D).
        num_frames: (B,) valid frames.
        window: Odd number of frames.

    Returns:
        (B, F, D), without meaning past the valid frames.
    """
    half = window // 2
    slopes = torch.zeros_like(frames)
    if frames.shape[1] >= window:
        whole = frames.shape[1] - window + 1
        # (B, F, D) -> (B, whole, D), a view: adding to it fills `slopes`
        central = slopes[:, half : half + whole]  # the frames with a whole window around them
        # Least squares: sum_k k (x[t + k] - x[t - k]) / (2 sum_k k^2), and 2 sum_k k^2 = half (half + 1) window / 3.
        for step in range(1, half + 1):
            # (B, F, D) -> (B, whole, D), `step` frames after and before each central frame
            ahead, behind = frames[:, half + step :][:, :whole], frames[:, half - step :][:, :whole]
            central.add_(ahead - behind, alpha=step / (half * (half + 1) * window / 3))
    for row, values, count in zip(slopes, frames, num_frames.tolist(), strict=True):
        if count < window:
            row[:count] = _line_slope(values[:count])
        else:
            # `mode="interp"` of scipy's `savgol_filter`, as in `librosa.feature.delta`: a line has one slope, so the
            # fit to the first window gives every frame before its centre the slope of the centre.
            row[:half] = row[half]
            row[count - half : count] = row[count - half - 1]
    return slopes


def _line_slope(values: Tensor) -> Tensor:
    """Slope of the least-squares line through values: (F, D) -> (D,)."""
    times = torch.arange(len(values), dtype=values.dtype, device=values.device)
    times -= times.mean()
    # Slope = sum t x / sum t² for centred t; the mean of x drops out, since the t sum to 0. (F,) @ (F, D) -> (D,)
    return (times @ values) / times.square().sum().clamp_min(0.5)  # 0.5 is the sum for two frames


def regression_slopes(frames: Tensor, num_frames: Tensor, *, reach: int = 2) -> Tensor:
    """Slopes Σ k (x[t+k] - x[t-k]) / (2 Σ k²) for k up to `reach`, the first and last frame repeated beyond the ends.

    Args:
        frames: (B, F, D).
        num_frames: (B,) valid frames.
        reach: Frames on each side.

    Returns:
        (B, F, D), without meaning past the valid frames.
    """
    # `torchaudio.functional.compute_deltas`, with the repetition at each utterance's own end rather than the batch's.
    last = (num_frames - 1)[:, None]  # (B, 1)
    times = torch.arange(frames.shape[1], device=frames.device)[None]  # (1, F)
    slopes = torch.zeros_like(frames)
    for step in range(1, reach + 1):
        ahead = torch.minimum(times + step, last)[..., None].expand_as(frames)  # (B, F) -> (B, F, D)
        # frames past a count are clamped to its last, so the indices are valid for padding too
        behind = torch.minimum((times - step).clamp_min(0), last)[..., None].expand_as(frames)
        # x[t + k] - x[t - k]: (B, F, D) gathered over frames by (B, F, D) indices
        slopes += step * (frames.gather(1, ahead) - frames.gather(1, behind))
    return slopes / (2 * sum(step * step for step in range(1, reach + 1)))


def normalise_utterances(frames: Tensor, num_frames: Tensor, *, epsilon: float, correction: int = 0) -> Tensor:
    """CMVN: zero mean and unit deviation of each dimension over each utterance's own frames.

    Statistics are taken in float64: in float32 the deviation of nearly constant bands, as in resampled 8 kHz sound,
    is off by enough to move values by 0.1. A constant dimension becomes zero, and so does a single frame.

    Args:
        frames: (B, F, D).
        num_frames: (B,) valid frames.
        epsilon: Term added to the deviation.
        correction: Subtracted from the number of frames in the variance (1: unbiased).

    Returns:
        (B, F, D), zero past the valid frames.
    """
    mask = valid_mask(num_frames, frames.shape[1])[..., None]  # (B, F, 1)
    counts = num_frames[:, None, None].to(torch.float64)  # (B, 1, 1)
    # (B, F, D) * (B, F, 1): zeros past a count add nothing to the sum. Centring makes them -mean: masked again.
    exact = frames.to(torch.float64) * mask
    centred = (exact - exact.sum(dim=1, keepdim=True) / counts) * mask
    # (B, F, D) -> (B, 1, D); at least 1 in the divisor, for a single frame with a correction of 1
    deviation = (centred.square().sum(dim=1, keepdim=True) / (counts - correction).clamp_min(1.0)).sqrt()
    # Centring leaves rounding noise of about 1e-16 of a constant band; dividing by it would make it a signal.
    constant = deviation <= 1e-12 * exact.abs().amax(dim=1, keepdim=True)
    return (centred / (deviation + epsilon)).masked_fill(constant, 0.0).to(frames.dtype)


def zero_past(frames: Tensor, num_frames: Tensor) -> Tensor:
    """Set everything past each count of (B, F, D) frames to zero, in place; the same frames."""
    for row, count in zip(frames, num_frames.tolist(), strict=True):
        row[count:] = 0.0
    return frames


def valid_mask(lengths: Tensor, size: int) -> Tensor:
    """(B,) lengths -> (B, size) bool, true before each length."""
    # (1, size) < (B, 1) -> (B, size)
    return torch.arange(size, device=lengths.device)[None, :] < lengths[:, None]


def scale_to_level(waveforms: Tensor, lengths: Tensor, level_db: float) -> Tensor:
    """Scale each (B, T) waveform to a root mean square of `level_db` decibels relative to full scale."""
    mask = valid_mask(lengths, waveforms.shape[1])  # (B, T)
    exact = waveforms.to(torch.float64) * mask
    rms = (exact.square().sum(dim=1, keepdim=True) / lengths[:, None]).sqrt()  # (B, 1)
    # the term keeps digital silence silent instead of 0 / 0
    return (exact * (10 ** (level_db / 20) / (rms + 1e-10))).to(waveforms.dtype)
