"""Spectrograms: predicted by a model, the target, and predicted with spans of the input hidden.

Axes: T samples, F frames, S stacked frames, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from repbench.audio.frames import FrontEnd
from repbench.audio.frequencies import dimensions_of
from repbench.audio.frontends import FRONT_ENDS
from repbench.audio.griffinlim import LINEAR, sound_of
from repbench.benchmark.plots.canvas import (
    MARK,
    Clock,
    Picture,
    PictureSubject,
    draw_frames,
    new_figure,
    percentile,
    set_title,
    spectrum_ticks,
)
from repbench.errors import DataError, UsageError
from repbench.upstream.apc.upstream import Apc
from repbench.upstream.contract import Upstream
from repbench.upstream.mockingjay.masking import mask
from repbench.upstream.mockingjay.model import stack_frames
from repbench.upstream.mockingjay.upstream import Mockingjay

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SpectrogramModel = Mockingjay | Apc


@dataclass(frozen=True, slots=True, kw_only=True)
class Spectrogram:
    """A spectrogram of one utterance.

    Attributes:
        name: predicted, true or filled; part of the file name.
        what: Description in the title.
        frames: (F, D).
        first_frame: Index in the utterance of its first frame.
        hidden: Hidden spans, as (first frame, frame after the last).
    """

    name: str
    what: str
    frames: Tensor
    first_frame: int = 0
    hidden: tuple[tuple[int, int], ...] = ()


def require_predictor(upstream: Upstream) -> SpectrogramModel:
    """The upstream, which must predict spectrograms.

    Raises:
        UsageError: It does not.
    """
    if not isinstance(upstream, SpectrogramModel):
        what = f"`{upstream.info.name}` predicts no spectrogram"
        raise UsageError(what, key="--upstream", do="Take mockingjay or apc")
    if isinstance(upstream, Mockingjay):
        upstream.require_head()
    return upstream


def target_of(model: SpectrogramModel) -> str:
    """Name of the front end that the model predicts."""
    return model.settings.features.restored if isinstance(model, Mockingjay) else model.settings.features.input


def spectrograms_of(model: SpectrogramModel, samples: Tensor, seed: int) -> list[Spectrogram]:
    """The spectrograms that a model predicts of an utterance, (T,) samples, and the target.

    Mockingjay predicts from the clean input, and from an input with hidden spans of the number and length of its
    pre-training, drawn from `seed`. All spans are set to zero here, because frames that pre-training leaves or replaces
    are not visibly filled in; no band is hidden and no noise added. Frame t of APC is its prediction at t - n.

    Raises:
        DataError: The utterance has too few frames.
    """
    with torch.no_grad():
        return _restored(model, samples, seed) if isinstance(model, Mockingjay) else _shifted(model, samples)


def _restored(model: Mockingjay, samples: Tensor, seed: int) -> list[Spectrogram]:
    waveforms, lengths = samples[None], torch.tensor([len(samples)])
    rate = model.settings.downsample_rate
    given, counts = model.front_end(waveforms, lengths)
    true = given if model.target_front_end is None else model.target_front_end(waveforms, lengths)[0]
    stacked, stacks = stack_frames(given, counts, rate)
    if int(stacks[0]) < 2:
        raise DataError("To hide a part of it, a sound needs at least 2 stacked frames, but it has 1")
    settings = model.settings.masking.model_copy(
        update={"zeroed": 1.0, "replaced": 0.0, "frequency": 0.0, "noise": 0.0}
    )
    masked = mask(stacked, stacks, settings, torch.Generator().manual_seed(seed))
    # (1, S, rate * D) -> (1, F, D), the stacks apart again
    filled = model.prediction(masked.frames.reshape(1, -1, model.front_end.width))
    # (S,) -> (F,): a hidden stack hides `rate` frames
    spans = masked.spans[0].repeat_interleave(rate)
    share = float(masked.spans.float().mean())
    return [
        Spectrogram(name="predicted", what="predicted, from the whole sound", frames=model.prediction(given)[0]),
        Spectrogram(name="true", what="true", frames=true[0]),
        Spectrogram(
            name="filled",
            what=f"filled in, with {share:.0%} hidden (below the green bars)"
            if share
            else "filled in (nothing is hidden)",
            frames=filled[0],
            hidden=_stretches(spans.tolist()),
        ),
    ]


def _shifted(model: Apc, samples: Tensor) -> list[Spectrogram]:
    shift = model.settings.time_shift
    frames, counts = model.front_end(samples[None], torch.tensor([len(samples)]))
    count = int(counts[0])
    if count <= shift:
        raise DataError(f"APC predicts {shift} frames ahead, but the sound has {count}")
    # (1, F, D) -> (F - n, D): the last n predictions are of frames after the end
    predicted = model.prediction(frames)[0, : count - shift]
    what = f"predicted, each frame from those up to {shift} before it"
    return [
        Spectrogram(name="predicted", what=what, frames=predicted, first_frame=shift),
        Spectrogram(name="true", what="true", frames=frames[0]),
    ]


def _stretches(hidden: Sequence[bool]) -> tuple[tuple[int, int], ...]:
    """Runs of True, as (first, after the last)."""
    runs = (list(run) for is_hidden, run in groupby(range(len(hidden)), key=lambda frame: hidden[frame]) if is_hidden)
    return tuple((run[0], run[-1] + 1) for run in runs)


def spectrogram_pictures(
    model: SpectrogramModel, spectrograms: Sequence[Spectrogram], subject: PictureSubject
) -> Iterator[Picture]:
    """Draw spectrograms in the colour scale of the true one; slopes are left out.

    Args:
        model: The model of the spectrograms.
        spectrograms: Spectrograms of one utterance.
        subject: Subject in the title.
    """
    target = target_of(model)
    static = dimensions_of(target).static
    # (F, D) -> (F, static): slopes have another range
    true = next(each for each in spectrograms if each.name == "true").frames[:, :static]
    limits = percentile(true, 0.005), percentile(true, 0.995)
    front_end = FRONT_ENDS[target]
    for each in spectrograms:
        yield Picture(each.name, _drawn(each, target, front_end, limits, model.info.sample_rate_hz, subject))


def _drawn(
    spectrogram: Spectrogram,
    target: str,
    front_end: FrontEnd,
    limits: tuple[float, float],
    sample_rate_hz: int,
    subject: PictureSubject,
) -> Figure:
    dimensions, clock = dimensions_of(target), Clock.of_front_end(front_end, sample_rate_hz)
    figure = new_figure(10.0, 4.5)
    axes = figure.add_subplot()
    image = draw_frames(
        axes,
        spectrogram.frames[:, : dimensions.static],
        clock,
        subject.seconds,
        first_frame=spectrogram.first_frame,
        vmin=limits[0],
        vmax=limits[1],
        cmap="magma",
    )
    if dimensions.centres_hz is None:
        axes.set_ylabel(dimensions.quantity)
    else:
        spectrum_ticks(axes, dimensions.centres_hz)
        axes.set_ylabel("frequency (Hz)")
    for stretch in spectrogram.hidden:
        start, end = clock.edges(*stretch)
        shown = max(start, 0.0), min(end, subject.seconds)
        axes.axvspan(*shown, 1.01, 1.04, color=MARK, linewidth=0, clip_on=False)  # in a strip above the picture
    scale = "\n(deviations from its mean over time)" if front_end.normalised else ""
    figure.colorbar(image, ax=axes, pad=0.01, extend="both", label=f"{dimensions.quantity}{scale}")
    slopes = "" if front_end.width == dimensions.static else ", without slopes"
    set_title(figure, f"Spectrogram ({target}{slopes}): {spectrogram.what}", subject)
    return figure


def sounds_of(
    model: SpectrogramModel, spectrograms: Sequence[Spectrogram], samples: Tensor, seed: int
) -> Iterator[tuple[str, Tensor]]:
    """Names and sounds of the predicted and filled-in spectrograms; none if the target is not linear.

    The mean and deviation of the target over the utterance, (T,) `samples`, which normalisation removed, are restored
    first: see `sound_of`.
    """
    target = target_of(model)
    level_db = model.settings.features.level_db if isinstance(model, Mockingjay) else None
    for each in spectrograms:
        if target in LINEAR and each.name != "true":
            yield (
                each.name,
                sound_of(each.frames, target, samples, first_frame=each.first_frame, level_db=level_db, seed=seed),
            )
