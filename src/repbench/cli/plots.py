"""`repbench plot …`: pictures of an upstream's states on sound files, and of the scores of its layers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from repbench.cli.commands import Commands
from repbench.cli.options import Checkpoint, Json, Model, Out, Overwrite, PictureFormats, PictureSeed, Resample, Sounds
from repbench.cli.output import help_if_alone, print_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from repbench.benchmark.plots.plotting import PictureKind

plot_app = Commands(
    help="Draw states of an upstream on sound files, and the scores of its layers.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@plot_app.callback()
def _plot_alone(context: typer.Context) -> None:
    help_if_alone(context)


def _draw(kind: PictureKind, audio: Sequence[Path], as_json: bool, **options: Any) -> None:
    """Draw pictures of a kind; options as fields of `PlotRequest`."""
    from repbench.benchmark.plots.plotting import PlotRequest, plot
    from repbench.console import ConsoleReporter

    print_files(plot(PlotRequest(kind=kind, files=tuple(audio), **options), ConsoleReporter()), as_json)


def _add(kind: PictureKind, short_help: str, text: str) -> None:
    """Add the command of a kind without further options."""

    @plot_app.command(kind, short_help=short_help, help=text)
    def _command(
        audio: Sounds,
        upstream: Model,
        out: Out,
        checkpoint: Checkpoint = None,
        format_: PictureFormats = "png",
        seed: PictureSeed = 0,
        resample: Resample = False,
        overwrite: Overwrite = False,
        as_json: Json = False,
    ) -> None:
        options = {"upstream": upstream, "checkpoint": checkpoint, "out": out, "formats": format_, "seed": seed}
        _draw(kind, audio, as_json, resample=resample, overwrite=overwrite, **options)


_add(
    "reconstruction",
    "Spectrograms: predicted, true, filled in.",
    "Draw the spectrogram that a model predicts, the target, and the prediction with hidden input spans.\n\n"
    "Predictions of linear spectrograms, as of Mockingjay LARGE, are written as sounds too.",
)


@plot_app.command("hidden", short_help="Hidden states: first, last, weighted sum.")
def plot_hidden(
    audio: Sounds,
    upstream: Model,
    out: Out,
    checkpoint: Checkpoint = None,
    format_: PictureFormats = "png",
    seed: PictureSeed = 0,
    resample: Resample = False,
    weights: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Run with --layer weighted, whose weights sum the layers.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Draw the hidden states of the first layer, the last, and the weighted sum of all (without RUN, their mean)."""
    options = {"upstream": upstream, "checkpoint": checkpoint, "out": out, "formats": format_, "seed": seed}
    _draw("hidden", audio, as_json, resample=resample, weights=weights, overwrite=overwrite, **options)


_add(
    "attention",
    "Attention maps of every layer and head.",
    "Draw attention maps, a file for each layer and a panel for each head.",
)


@plot_app.command("layers", short_help="Scores layer by layer, from records.")
def plot_layers(
    runs: Annotated[list[Path], typer.Argument(metavar="RUNS", help="Records of `run --layer all`, or their folders.")],
    out: Out,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Draw the score of each layer of a model, an SVG for each column of a report, with 95 % intervals."""
    from repbench.benchmark.report import write_layer_figures
    from repbench.console import ConsoleReporter

    print_files(write_layer_figures(runs, out, overwrite=overwrite, reporter=ConsoleReporter()), as_json)
