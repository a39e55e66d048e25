"""`repbench invariance`: how far conditions of the sound move the states of a model, without labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from repbench.cli.check import take_plugins
from repbench.cli.comparing import extraction_alone, names_in
from repbench.cli.option_objects import takes
from repbench.cli.options import UPSTREAM_NAMES, Checkpoint, Device, Json, Plugins, Threads, take_threads
from repbench.cli.output import print_json
from repbench.cli.running import preset_of_conditions

if TYPE_CHECKING:
    from repbench.benchmark.comparison.invariance import InvarianceRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class InvarianceArguments:
    """The options of `repbench invariance`."""

    upstream: Annotated[str, typer.Argument(metavar="U", help=f"The model: {UPSTREAM_NAMES}.")]
    checkpoint: Checkpoint = None
    condition: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND:…:SEVERITY",
            help="A condition of the sound: noise:babble:10, reverb:3, …; may be repeated. See docs/conditions.md.",
        ),
    ] = None
    conditions: Annotated[str | None, typer.Option(metavar="PRESET", help="A set of conditions: robust.")] = None
    corpus: Annotated[
        str, typer.Option(metavar="C", help="Name of a corpus with options, or folder of a manifest.")
    ] = "synthetic"
    layers: Annotated[
        str, typer.Option(metavar="L,…", help="Layers of the model: all, or first, last, numbers, names.")
    ] = "all"
    frames: Annotated[
        int,
        typer.Option(
            metavar="N", min=100, help="Most sampled frames; ten times as many are computed under each condition."
        ),
    ] = 4000
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the sample and of untrained weights.")] = 0
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="extraction.B=V", help="How features are computed; repeatable.")
    ] = None
    device: Device = "auto"
    threads: Threads = None
    plugin: Plugins = None
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder for invariance.json and a figure; default: one below runs/invariance."
        ),
    ] = None
    as_json: Json = False

    def request(self) -> InvarianceRequest:
        """The request.

        Raises:
            UsageError: A condition cannot be read, or a setting is not of `extraction`.
        """
        from repbench.benchmark.comparison.invariance import InvarianceRequest

        request = InvarianceRequest(
            upstream=self.upstream,
            conditions=(*(self.condition or ()), *preset_of_conditions(self.conditions)),
            checkpoint=self.checkpoint,
            corpus=self.corpus,
            layers=names_in(self.layers),
            most_frames=self.frames,
            protocol=extraction_alone(self.set_ or []),
            seed=self.seed,
            device=self.device,
            out=self.out,
        )
        request.parsed()
        return request


@takes(InvarianceArguments)
def invariance(arguments: InvarianceArguments) -> None:
    """Measure how far conditions of the sound move the states of each layer, relative to the distance of utterances.

    Needs no labels and trains nothing. 0: a condition changes nothing, 1: as far as another utterance. Writes
    invariance.json with 95 % intervals over speakers, and a heat map. A report of a folder above has them too.
    """
    take_threads(arguments.threads)
    take_plugins(arguments.plugin)
    request = arguments.request()
    from repbench.benchmark.comparison.invariance import invariance as measure
    from repbench.benchmark.report.render.invariance import terminal_tables
    from repbench.console import ConsoleReporter, print_table

    result = measure(request, ConsoleReporter())
    if arguments.as_json:
        print_json({"files": [str(path) for path in result.files], "invariance": result.invariance.as_dict()})
        return
    for title, table in terminal_tables(result.invariance):
        typer.echo(title)
        print_table(table)
    for path in result.files:
        typer.echo(path)
