"""`repbench export`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from repbench.cli.check import take_plugins
from repbench.cli.options import Json, Plugins
from repbench.cli.output import print_json


def export(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder or record.json of a run that was made with --finetune.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="New folder for the upstream.")],
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="The checkpoint that the fine-tuning began with; default: where the record has it."
        ),
    ] = None,
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Write the fine-tuned upstream of a run, LoRA merged, as a checkpoint or as a model of transformers."""
    take_plugins(plugin)
    from repbench.benchmark.pipeline.export_upstream import export_upstream

    written = export_upstream(run, out, checkpoint=checkpoint)
    if as_json:
        print_json({"folder": str(written.folder), "options": list(written.options)})
        return
    typer.echo(f"{written.folder}: use it with `repbench run {shlex.join(written.options)}`")
