"""Attention maps, a figure for each layer and a panel for each head.

Axes: N layers, A heads, S frames of the upstream.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor

from repbench.audio.frames import FrontEnd
from repbench.benchmark.features.extraction import num_frames
from repbench.benchmark.plots.canvas import Clock, Picture, PictureSubject, new_figure, percentile, set_title
from repbench.errors import PluginError, UsageError, plugin_faults
from repbench.upstream.contract import Upstream

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_COLUMNS = 4


@runtime_checkable
class Attentive(Upstream, Protocol):
    """An upstream with attention, as `repbench.upstream.mockingjay` is."""

    front_end: FrontEnd

    def attentions(self, spec: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(B, F, D) frames of the front end and their counts -> (B, N, A, S, S), rows over keys adding up to 1."""
        ...


def require_attention(upstream: Upstream) -> Attentive:
    """The upstream, which must have attention.

    Raises:
        UsageError: It has none.
    """
    if not isinstance(upstream, Attentive):
        raise UsageError(f"`{upstream.info.name}` has no attention", key="--upstream", do="Take mockingjay")
    return upstream


def attention_pictures(model: Attentive, samples: Tensor, subject: PictureSubject) -> Iterator[Picture]:
    """Draw the attention of each layer on an utterance, (T,) samples, in one figure a layer.

    Raises:
        PluginError: The maps are not what the upstream declares.
    """
    name = model.info.name
    with plugin_faults(name), torch.inference_mode():
        # (T,) -> (1, T) -> (1, F, D)
        frames, counts = model.front_end(samples[None], torch.tensor([len(samples)]))
        maps = model.attentions(frames, counts)[0].float()  # (N, A, S, S)
    size = num_frames(model, len(samples))
    if maps.ndim != 4 or maps.shape[2:] != (size, size) or len(maps) > len(model.info.layer_names):
        raise PluginError(f"Attention of a sound must be (N, A, {size}, {size}), but is {tuple(maps.shape)}", key=name)
    # Layers without attention, such as an input representation, come first.
    for layer, heads in zip(model.info.layer_names[-len(maps) :], maps, strict=True):
        yield Picture(f"attention_{layer}", _drawn(layer, heads, Clock.of(model.info), subject))


def _drawn(layer: str, heads: Tensor, clock: Clock, subject: PictureSubject) -> Figure:
    from matplotlib.ticker import MaxNLocator

    columns = min(_MOST_COLUMNS, len(heads))
    rows = math.ceil(len(heads) / columns)
    side = 4.0 if columns <= 2 else 2.9
    figure = new_figure(max(side * columns + 1.4, 6.5), side * rows + 1.0)
    start, end = clock.edges(0, heads.shape[-1])
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    # One scale for all heads of a layer, without the few frames that attend to one alone and would darken the rest.
    largest = percentile(heads, 0.999)
    for number, panel in enumerate(panels.flat):
        if number >= len(heads):
            panel.set_axis_off()
            continue
        image = panel.imshow(
            heads[number].cpu().numpy(),
            origin="lower",
            extent=(start, end, start, end),
            vmin=0.0,
            vmax=largest,
            cmap="magma",
        )
        panel.set(xlim=(0.0, subject.seconds), ylim=(0.0, subject.seconds))
        panel.xaxis.set_major_locator(MaxNLocator(5))
        panel.yaxis.set_major_locator(MaxNLocator(5))
        panel.set_title(f"head {number + 1}", fontsize=10)
    figure.supxlabel("time of the frame that is attended to (s)", fontsize=10)
    figure.supylabel("time of the frame that attends (s)", fontsize=10)
    label = "attention (each row adds up to 1)"
    figure.colorbar(image, ax=panels, pad=0.01, extend="max", aspect=15 * rows + 10, format="{x:g}", label=label)
    set_title(figure, f"Attention of {layer}", subject)
    return figure
