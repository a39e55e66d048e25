"""`repbench new …`: the package of a new plugin."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from repbench.cli.commands import Commands
from repbench.cli.options import Json
from repbench.cli.output import help_if_alone, print_files, say

if TYPE_CHECKING:
    from repbench.scaffold import PluginKind

new_app = Commands(
    help="Write the package of a new plugin from a template.", invoke_without_command=True, rich_markup_mode=None
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the distribution and of the plugin.")]
Parent = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder in which NAME is made.")]


@new_app.callback()
def _new(context: typer.Context) -> None:
    help_if_alone(context)


@new_app.command("upstream", short_help="A model; the template computes log band energies.")
def new_upstream(name: Name, out: Parent = Path(), as_json: Json = False) -> None:
    """Write the package of an upstream: it can be installed, has tests, and passes `repbench check`."""
    _write("upstream", name, out, as_json)


@new_app.command("downstream", short_help="A task; the template classifies an attribute of the corpus.")
def new_downstream(name: Name, out: Parent = Path(), as_json: Json = False) -> None:
    """Write the package of a downstream: it can be installed, has tests, and passes `repbench check`."""
    _write("downstream", name, out, as_json)


@new_app.command("head", short_help="A head; the template is attention over frames.")
def new_head(name: Name, out: Parent = Path(), as_json: Json = False) -> None:
    """Write the package of a head: it can be installed, has tests, and passes `repbench check`."""
    _write("head", name, out, as_json)


def _write(kind: PluginKind, name: str, out: Path, as_json: bool) -> None:
    from repbench.scaffold import new_package

    print_files(new_package(kind, name, out), as_json)
    folder = shlex.quote(os.fspath(out / name))
    say(f"next: pip install --editable {folder}, then repbench check {kind} {name}")
