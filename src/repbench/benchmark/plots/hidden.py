"""Hidden states as pictures: the first layer, the last, and a weighted sum of all.

Axes: L layers, F frames, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from repbench.audio.frequencies import dimensions_of
from repbench.audio.frontends import FRONT_ENDS
from repbench.benchmark.plots.canvas import (
    Clock,
    Picture,
    PictureSubject,
    draw_frames,
    new_figure,
    set_title,
    spectrum_ticks,
)
from repbench.benchmark.probing.probe import Probe, load_probe
from repbench.benchmark.records.record import PROBE_FILE, RECORD_FILE, fold_probe_file
from repbench.errors import IntegrityError, UsageError
from repbench.upstream.contract import Upstream
from repbench.upstream.frontends import FrontEndUpstream

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINEAR_BELOW = 1e-3
"""Absolute value at which the colour scale changes from linear to logarithmic."""


def load_mix(run: Path, upstream: Upstream) -> Probe:
    """The probe of a run that mixes the layers of `upstream`.

    Args:
        run: Folder of a frozen run with `--layer weighted`, or its record.
        upstream: The model whose layers it mixes.

    Raises:
        UsageError: There is no such run, or it does not mix layers.
        IntegrityError: Its probe is broken, or was trained on another model.
    """
    folder = run.parent if run.name in {RECORD_FILE, PROBE_FILE} else run
    if not (folder / PROBE_FILE).is_file():
        what = "There is no probe here"
        if (folder / fold_probe_file(1)).is_file():
            what = "The run has a probe for each of its folds, each with other weights"
        do = "Name the folder of a run with --layer weighted and without folds"
        raise UsageError(what, key="--weights", file=run, do=do)
    probe, facts = load_probe(folder / PROBE_FILE)
    if probe.shape.mix != "weighted":
        what = "The probe of this run learned no weights for the layers"
        raise UsageError(what, key="--weights", file=run, do="Name a run with --layer weighted")
    if facts.get("upstream_fingerprint") != upstream.fingerprint():
        raise IntegrityError(
            f"The weights were learned on another `{upstream.info.name}` than this one",
            file=folder / PROBE_FILE,
            do="Give the --checkpoint that they were learned on",
        )
    return probe


def hidden_pictures(
    upstream: Upstream, layers: Tensor, subject: PictureSubject, mix: Probe | None
) -> Iterator[Picture]:
    """Draw the first layer, the last, and the weighted sum.

    Args:
        upstream: The upstream of the states.
        layers: (L, F, D).
        subject: Subject in the title.
        mix: Probe whose weights sum the layers, each standardised by the statistics of its training; None: the plain
            mean.
    """
    names = upstream.info.layer_names
    if mix is None:
        summed, how = layers.mean(dim=0), f"plain mean of {len(names)} layers"
    else:
        with torch.inference_mode():
            # (L, F, D) -> (F, D)
            summed, weights = mix.mixed(mix.standardised(layers)), mix.layer_weights()
        shares = ", ".join(
            f"{weight:.3f}\N{NO-BREAK SPACE}{name}" for name, weight in zip(names, weights.tolist(), strict=True)
        )
        how = f"weighted sum of the standardised layers: {shares}"
    for name, frames, what in (
        ("hidden_first", layers[0], f"first layer, {names[0]}"),
        ("hidden_last", layers[-1], f"last layer, {names[-1]}"),
        ("hidden_weighted_sum", summed, how),
    ):
        yield Picture(name, _drawn(upstream, frames, f"Hidden states: {what}", subject))


def _drawn(upstream: Upstream, frames: Tensor, what: str, subject: PictureSubject) -> Figure:
    from matplotlib.colors import SymLogNorm

    figure = new_figure(10.0, 4.5)
    axes = figure.add_subplot()
    # Symmetric, so that 0 is white; at least a decade above the linear part, else a layer of zeros has an empty scale.
    largest = max(float(frames.abs().max()), 10 * LINEAR_BELOW)
    norm = SymLogNorm(LINEAR_BELOW, vmin=-largest, vmax=largest)
    image = draw_frames(axes, frames, Clock.of(upstream.info), subject.seconds, norm=norm, cmap="RdBu_r")
    _label_dimensions(axes, upstream)
    label = f"value (logarithmic beyond ±{LINEAR_BELOW:g})"
    figure.colorbar(image, ax=axes, pad=0.01, format="{x:g}", label=label)
    set_title(figure, what, subject)
    return figure


def _label_dimensions(axes: Axes, upstream: Upstream) -> None:
    """Dimensions by number; those of a front end by frequency, with its slopes above."""
    name = next((name for name, each in FRONT_ENDS.items() if each is getattr(upstream, "front_end", None)), None)
    dimensions = None if name is None else dimensions_of(name)
    if not isinstance(upstream, FrontEndUpstream) or dimensions is None or dimensions.centres_hz is None:
        axes.set_ylabel("dimension")
        return
    spectrum_ticks(axes, dimensions.centres_hz)
    axes.set_ylabel("frequency (Hz)")
    blocks = upstream.info.width // dimensions.static
    places, labels = list(axes.get_yticks()), [label.get_text() for label in axes.get_yticklabels()]
    for block in range(1, blocks):
        axes.axhline(block * dimensions.static - 0.5, color="black", linewidth=1.0)
        places.append((block + 0.5) * dimensions.static)
        labels.append("slopes" if block == 1 else "slopes\nof slopes")
    axes.set_yticks(places, labels)
