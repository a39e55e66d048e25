"""Long sounds in windows: an upstream around another, which gets no more than a window at once.

A window is a piece of the sound that begins on the grid of frames. Of its frames those are kept that have the context
on both sides, so every frame of the sound occurs once, at its time; at the ends of the sound there is no context to
keep. Successive windows overlap by twice the context. The last window ends with the sound and is as long as the others.

Where a frame depends on no sample farther away than the context, and nothing is normalised over the utterance, the
frames are those of the whole sound. For attention and recurrence they are an approximation: a frame is computed from
its window alone, and positions are counted from the start of the window.

A sound that is not longer than a window goes through the upstream as it is.

Axes: L layers, B batch, T samples, F frames, D width.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from repbench.errors import PluginError, UsageError
from repbench.upstream.contract import HiddenStates, Provenance, Upstream, provenance_of
from repbench.upstream.spectrograms import SpectrogramNetwork

SETTING = "extraction.window_seconds"


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """The size of windows.

    Attributes:
        num_samples: Samples of a window, contexts included, at the rate of the upstream.
        context_frames: Frames of context on each side.
        seconds: Duration of a window.
        context_seconds: Duration of a context.
    """

    num_samples: int
    context_frames: int
    seconds: float
    context_seconds: float

    def line(self) -> str:
        """In words."""
        return (
            f"windows of {self.seconds:g} s with {self.context_seconds:g} s of context on each side "
            f"(an overlap of {2 * self.context_seconds:g} s)"
        )

    def key(self) -> str:
        """In the key of stored features."""
        return f"windows {self.num_samples}+{self.context_frames}"


@dataclass(frozen=True, slots=True)
class _Piece:
    """A window of a sequence of samples, or of frames of a front end.

    Attributes:
        start: First item.
        stop: After the last item.
        skipped: Frames at its start that belong to an earlier window.
        kept: Frames after these that are kept.
    """

    start: int
    stop: int
    skipped: int
    kept: int


class WindowedUpstream(nn.Module):
    """An upstream that takes sounds of any length: those longer than a window in windows.

    A network on spectrograms gets windows of the spectrogram of the whole sound, so that normalisation over the
    utterance stays that of the whole.

    Args:
        inner: The upstream, in eval mode.
        windows: The size of windows, as `windows_for` makes it.
    """

    def __init__(self, inner: Upstream, windows: Windows) -> None:
        super().__init__()
        assert isinstance(inner, nn.Module)
        self.inner: Any = inner
        self.windows = windows
        self.info = replace(inner.info, max_samples=None)
        self.provenance: Provenance = provenance_of(inner)

    def num_frames(self, num_samples: int) -> int:
        """As the inner upstream."""
        count: int = self.inner.num_frames(num_samples)
        return count

    def fingerprint(self) -> str:
        """That of the inner upstream, whose weights these are; the size of windows is in the key of each long sound."""
        fingerprint: str = self.inner.fingerprint()
        return fingerprint

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        """(B, T) waveforms with (B,) lengths of any size -> (L, B, F, D).

        Raises:
            PluginError: The frames of the inner upstream do not move with the sound.
        """
        fitting = lengths <= self.windows.num_samples
        if bool(fitting.all()):
            whole: HiddenStates = self.inner(waveforms, lengths)
            return whole
        rows: dict[int, Tensor] = {}  # (L, F, D) each
        if bool(fitting.any()):
            longest = int(lengths[fitting].max())
            states = self.inner(waveforms[fitting, :longest], lengths[fitting])
            for position, row in enumerate(fitting.nonzero()[:, 0].tolist()):
                rows[row] = states.layers[:, position, : int(states.lengths[position])]
        for row in (~fitting).nonzero()[:, 0].tolist():
            rows[row] = self._long(waveforms[row, : int(lengths[row])])
        counts = [rows[row].shape[1] for row in range(len(rows))]
        some = rows[0]
        layers = some.new_zeros(some.shape[0], len(rows), max(counts), some.shape[2])  # (L, B, F, D)
        for row, count in enumerate(counts):
            layers[:, row, :count] = rows[row]
        return HiddenStates(layers, torch.tensor(counts, dtype=torch.int64, device=lengths.device))

    def _long(self, waveform: Tensor) -> Tensor:
        """The frames (L, F, D) of a sound (T,) that is longer than a window."""
        items, encode, hop, num_frames, longest = self._items(waveform)
        kept = []
        for piece in _pieces(items.shape[1], longest, hop, self.windows.context_frames, num_frames):
            part = items[:, piece.start : piece.stop]
            states = encode(part, torch.tensor([part.shape[1]], device=items.device))
            kept.append(states.layers[:, 0, piece.skipped : piece.skipped + piece.kept])
        # (L, F_i, D) of each window -> (L, F, D) of the sound
        return torch.cat(kept, dim=1)

    def _items(self, waveform: Tensor) -> tuple[Tensor, Callable[..., HiddenStates], int, Callable[[int], int], int]:
        """What windows are cut from, with one utterance: samples (1, T), or frames of the front end (1, F, D).

        Returns:
            The items, the function from a window of them to hidden states, the items between two frames, the number of
            frames that so many items give, and the items of a window.
        """
        if not isinstance(self.inner, SpectrogramNetwork):
            return waveform[None], self.inner, self.info.hop_samples, self.inner.num_frames, self.windows.num_samples
        whole, per_state = torch.tensor([len(waveform)], device=waveform.device), self.inner.frames_per_state
        frames, _ = self.inner.front_end(waveform[None], whole)
        longest = self.inner.front_end.num_frames(self.windows.num_samples)
        return frames, self.inner.encode, per_state, lambda count: count // per_state, longest


def _pieces(
    num_items: int, longest: int, hop: int, context_frames: int, num_frames: Callable[[int], int]
) -> Iterator[_Piece]:
    """The windows of a sequence that is longer than one.

    Args:
        num_items: Samples of the sound, or frames of its spectrogram.
        longest: Items of a window.
        hop: Items between two frames.
        context_frames: Frames of context on each side.
        num_frames: The number of frames that so many items give.

    Raises:
        PluginError: A shift of the sound by whole frames changes their number otherwise.
    """
    total, in_window, first = num_frames(num_items), num_frames(longest), 0
    last_start = -(-(num_items - longest) // hop)  # of the first window on the grid that reaches the end
    while first < total:
        start = min(max(0, first - context_frames), last_start)
        is_last = start == last_start
        stop = num_items if is_last else start * hop + longest
        end = total if is_last else start + in_window - context_frames
        count = num_frames(stop - start * hop)
        if count < end - start or (is_last and count != total - start):
            what = (
                f"A sound of {num_items} items has {total} frames, but the window from frame {start} on has {count}: "
                "frames do not move with the sound"
            )
            raise PluginError(what, key=SETTING, do="Leave it null, and cut long utterances with start/end")
        yield _Piece(start=start * hop, stop=stop, skipped=first - start, kept=end - first)
        first = end


def windows_for(upstream: Upstream, window_seconds: float | None, context_seconds: float) -> Windows | None:
    """The windows in which an upstream reads long sounds; None where it reads sounds of any length as they are.

    Args:
        upstream: The upstream.
        window_seconds: Duration of a window; None: the upstream's longest input, if it has one.
        context_seconds: Duration of the context on each side.

    Raises:
        UsageError: The upstream gives one vector an utterance or normalises over it, takes no such window, or the
            context fills it.
    """
    info = upstream.info
    if cuts_by_itself(upstream) or (window_seconds is None and info.max_samples is None):
        return None
    if info.one_vector:
        if window_seconds is None:
            return None  # longer utterances are excluded
        what = f"{info.name} gives one vector an utterance, and windows would each give one"
        raise UsageError(what, key=SETTING, do="Leave it null for this upstream")
    if info.utterance_normalised:
        if window_seconds is None:
            return None  # as before: longer utterances are excluded
        what = f"{info.name} normalises over the whole utterance, and windows would each be normalised by themselves"
        raise UsageError(what, key=SETTING, do="Leave it null for this upstream")
    num_samples = info.max_samples
    if window_seconds is not None:
        num_samples = min(round(window_seconds * info.sample_rate_hz), num_samples or sys.maxsize)
    assert num_samples is not None
    context_frames = math.ceil(context_seconds * info.sample_rate_hz / info.hop_samples)
    smallest = info.min_samples + (2 * context_frames + 1) * info.hop_samples
    if num_samples < smallest:
        if window_seconds is None:
            return None
        what = (
            f"With {context_seconds:g} s of context on each side, a window of {info.name} must be at least "
            f"{smallest / info.sample_rate_hz:.3f} s, but is {num_samples / info.sample_rate_hz:g} s"
        )
        raise UsageError(what, key=SETTING, do="Take a longer window, or a smaller extraction.context_seconds")
    return Windows(
        num_samples=num_samples,
        context_frames=context_frames,
        seconds=num_samples / info.sample_rate_hz,
        context_seconds=context_frames * info.hop_samples / info.sample_rate_hz,
    )


def in_windows(upstream: Upstream, window_seconds: float | None, context_seconds: float) -> Upstream:
    """The upstream, in windows where `windows_for` has some for it; arguments and errors as there."""
    windows = windows_for(upstream, window_seconds, context_seconds)
    return upstream if windows is None else WindowedUpstream(upstream, windows).eval()


def cuts_by_itself(upstream: object) -> bool:
    """Whether an upstream cuts long sounds by a rule of its own, as Whisper does: its attribute `cuts_long_sounds`."""
    return bool(getattr(upstream, "cuts_long_sounds", False))


def unwindowed(upstream: Upstream) -> Upstream:
    """The upstream inside of windows; the upstream itself where there are none."""
    inner: Upstream = upstream.inner if isinstance(upstream, WindowedUpstream) else upstream
    return inner


def windows_of(upstream: object, num_samples: int) -> Windows | None:
    """The windows in which an upstream reads a sound of `num_samples` at its rate; None: it reads it as a whole."""
    if isinstance(upstream, WindowedUpstream) and num_samples > upstream.windows.num_samples:
        return upstream.windows
    return None
