"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object; progress goes to stderr.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Checkpoint = Annotated[str | None, typer.Option(metavar="PATH|random", help="Weights of the upstream.")]
Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", metavar="FILE.py", help="A file that declares upstreams or downstreams; may be repeated."),
]
Sounds = Annotated[list[Path], typer.Argument(metavar="AUDIO", help="Sound files.")]
Model = Annotated[str, typer.Option("--upstream", metavar="U", help="The model.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the files go.")]
Resample = Annotated[bool, typer.Option("--resample", help="Resample sounds of another rate.")]
PictureFormats = Annotated[str, typer.Option("--format", metavar="png,svg", help="One or both.")]
PictureSeed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of what is drawn at random.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files of other content.")]
