"""`repbench new …`: a plugin package from a template."""

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

new_app = Commands(help="A plugin package from a template.", invoke_without_command=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Of the distribution and of the plugin.")]
Parent = Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the folder NAME is made.")]


@new_app.callback()
def _new(context: typer.Context) -> None:
    help_if_alone(context)


@new_app.command("upstream", short_help="A model: log band energies, to begin with.")
def new_upstream(name: Name, out: Parent = Path(), as_json: Json = False) -> None:
    """Write the package of an upstream: installable, tested, and yours to change."""
    _write("upstream", name, out, as_json)


@new_app.command("downstream", short_help="A task: an attribute of the utterance, to begin with.")
def new_downstream(name: Name, out: Parent = Path(), as_json: Json = False) -> None:
    """Write the package of a downstream: installable, tested, and yours to change."""
    _write("downstream", name, out, as_json)


def _write(kind: PluginKind, name: str, out: Path, as_json: bool) -> None:
    from repbench.scaffold import new_package

    print_files(new_package(kind, name, out), as_json)
    folder = shlex.quote(os.fspath(out / name))
    say(f"next: pip install --editable {folder}, then repbench check {kind} {name}")
