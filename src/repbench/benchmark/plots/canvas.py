"""Drawing of pictures, and saving them to reproducible files.

Axes: F frames, D dimensions.
"""

from __future__ import annotations

import io
import textwrap
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from repbench.audio.frames import FrontEnd
from repbench.errors import printable
from repbench.files import write_beside
from repbench.matplotlib_style import matplotlib_style
from repbench.upstream.contract import UpstreamInfo

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

FORMATS = ("png", "svg")
DOTS_PER_INCH = 120
MARK = "#1b7f4d"
"""Colour of marks."""

_INK, _PALE, _EMPTY = "#1a1a1a", "#555555", "#e6e6e6"
_LONGEST_NAME = 60
_CHARACTERS_PER_INCH = 13
_STYLE = {"font.size": 10.0, "axes.facecolor": _EMPTY, "svg.fonttype": "path"}


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure and the name of its file.

    Attributes:
        name: Name of its file, after the stem of the sound.
        figure: The figure.
    """

    name: str
    figure: Figure


@dataclass(frozen=True, slots=True)
class Clock:
    """The times of frames; each is drawn half a hop to both sides of its centre."""

    sample_rate_hz: int
    hop_samples: int
    first_center_samples: int

    @classmethod
    def of(cls, info: UpstreamInfo) -> Clock:
        """The clock of an upstream's frames."""
        return cls(info.sample_rate_hz, info.hop_samples, info.first_center_samples)

    @classmethod
    def of_front_end(cls, front_end: FrontEnd, sample_rate_hz: int) -> Clock:
        """The clock of a front end's frames."""
        return cls(sample_rate_hz, front_end.hop_samples, front_end.first_center_samples)

    def edges(self, first: int, last: int) -> tuple[float, float]:
        """Start of frame `first` and end of the frame before `last`, in seconds."""
        # A frame is drawn as wide as a hop, so that frames touch; its window is wider.
        start = self.first_center_samples - self.hop_samples / 2
        left, right = (start + self.hop_samples * frame for frame in (first, last))
        return left / self.sample_rate_hz, right / self.sample_rate_hz


@dataclass(frozen=True, slots=True)
class PictureSubject:
    """The subject of a picture.

    Attributes:
        upstream: Name of the upstream.
        origin: Source of its weights; empty if it has none.
        file: The sound file.
        seconds: Duration of the sound.
    """

    upstream: str
    origin: str
    file: Path
    seconds: float

    def __str__(self) -> str:
        name = printable(self.file.name)
        if len(name) > _LONGEST_NAME:
            name = f"{name[: _LONGEST_NAME // 2]}…{name[-_LONGEST_NAME // 2 + 1 :]}"
        return " · ".join(part for part in (printable(self.upstream), self.origin, name) if part)


def style() -> AbstractContextManager[None]:
    """A block in which figures are drawn in the style of repbench."""
    return matplotlib_style(_STYLE, ink=_INK, line=_PALE, open_axes=False)


def new_figure(width_inches: float, height_inches: float) -> Figure:
    """An empty figure, independent of pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def set_title(figure: Figure, what: str, subject: PictureSubject) -> None:
    """Set the title, with the subject below it, at the left of the figure."""
    width = int(figure.get_figwidth() * _CHARACTERS_PER_INCH)
    lines = [line for text in (what, str(subject)) for line in textwrap.wrap(text, width)]
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=11)


def draw_frames(
    axes: Axes, frames: Tensor, clock: Clock, seconds: float, *, first_frame: int = 0, **options: Any
) -> AxesImage:
    """Draw (F, D) frames, time to the right and dimensions upwards; the time axis is as long as the sound.

    Args:
        axes: To draw on.
        frames: (F, D).
        clock: Times of the frames.
        seconds: Duration of the sound.
        first_frame: Index of the first of `frames`; the time before it stays empty.
        options: For `Axes.imshow`.
    """
    left, right = clock.edges(first_frame, first_frame + len(frames))
    extent = (left, right, -0.5, frames.shape[1] - 0.5)
    # (F, D) -> (D, F): rows are dimensions, the first at the bottom
    image = axes.imshow(frames.T.cpu().numpy(), origin="lower", aspect="auto", extent=extent, **options)
    axes.set_xlim(0.0, seconds)
    axes.set_ylim(-0.5, frames.shape[1] - 0.5)
    axes.set_xlabel("time (s)")
    return image


def spectrum_ticks(axes: Axes, centres_hz: Tensor) -> None:
    """Label the dimensions nearest to round frequencies with the frequencies of their centres, (D,) in Hz."""
    spread = float(centres_hz[-1] - centres_hz[0])
    # Linear centres are equally spaced: first step times their number is the whole range.
    is_linear = abs(float(centres_hz[1] - centres_hz[0]) * (len(centres_hz) - 1) - spread) < 1e-6 * spread
    wanted = range(0, 8001, 1000) if is_linear else (100, 500, 1000, 2000, 4000, 7700)
    places = [int((centres_hz - hz).abs().argmin()) for hz in wanted]
    axes.set_yticks(places, [f"{float(centres_hz[place]):,.0f}" for place in places])


def save(figure: Figure, path: Path, *, overwrite: bool = False) -> None:
    """Write a figure in the format of its file name; without dates, so that equal figures have equal bytes.

    Raises:
        UsageError: The file exists with other content, and `overwrite` is false.
    """
    format_ = path.suffix.removeprefix(".")
    # matplotlib writes date and version by default; None leaves a field out.
    nothing = ("Date", "Creator", "Format", "Type") if format_ == "svg" else ("Software",)
    stream = io.BytesIO()
    figure.savefig(stream, format=format_, dpi=DOTS_PER_INCH, metadata=dict.fromkeys(nothing))
    write_beside(path, stream.getvalue(), overwrite=overwrite)


def percentile(values: Tensor, share: float) -> float:
    """The quantile of all values, of any shape, at a share."""
    import numpy as np

    return float(np.quantile(values.cpu().numpy(), share))  # torch.quantile takes no more than 2 ** 24 values
