"""`repbench compare`: the similarity of the layers of two models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from repbench.cli.check import take_plugins
from repbench.cli.option_objects import takes
from repbench.cli.options import UPSTREAM_NAMES, Device, Json, Plugins, Threads, take_threads
from repbench.cli.output import print_json
from repbench.errors import UsageError

if TYPE_CHECKING:
    from repbench.benchmark.comparison.request import CompareRequest
    from repbench.benchmark.protocol import Protocol

_EXTRACTION = "extraction."


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareArguments:
    """The options of `repbench compare`."""

    first: Annotated[str, typer.Argument(metavar="A", help=f"A model: {UPSTREAM_NAMES}.")]
    second: Annotated[str, typer.Argument(metavar="B", help="Another model, or A again: its layers with each other.")]
    checkpoint_a: Annotated[str | None, typer.Option(metavar="PATH|random", help="Weights of A.")] = None
    checkpoint_b: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|random", help="Weights of B; for A again, `random` compares with its untrained twin."
        ),
    ] = None
    corpus: Annotated[
        str, typer.Option(metavar="C", help="Name of a corpus with options, or folder of a manifest.")
    ] = "synthetic"
    layers: Annotated[
        str, typer.Option(metavar="L,…", help="Layers of each model: all, or first, last, numbers, names.")
    ] = "all"
    measure: Annotated[
        str, typer.Option(metavar="cka,cca,svcca,pwcca", help="Measures; all but cka are slow for wide models.")
    ] = "cka,pwcca"
    against: Annotated[
        str | None,
        typer.Option(
            metavar="mel,phones,words",
            help="Also compare each layer with these: with labels by the measures (one-hot) and by mutual information.",
        ),
    ] = None
    controls: Annotated[
        bool, typer.Option("--controls", help="Also compare with shuffled labels, and the untrained twins of A and B.")
    ] = False
    frames: Annotated[
        int, typer.Option(metavar="N", min=100, help="Most sampled frames, the same instants for every model.")
    ] = 20000
    clusters: Annotated[
        int, typer.Option(metavar="K", min=2, help="Clusters of k-means, for mutual information with phones.")
    ] = 100
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, help="Seed of the sample, its parts, clusters and untrained weights.")
    ] = 0
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="extraction.B=V", help="How features are computed; repeatable.")
    ] = None
    device: Device = "auto"
    threads: Threads = None
    plugin: Plugins = None
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for similarity.json and figures; default: one below runs/similarity."),
    ] = None
    as_json: Json = False

    def request(self) -> CompareRequest:
        """The request.

        Raises:
            UsageError: A name is unknown, or a setting is not of `extraction`.
        """
        from repbench.benchmark.comparison.request import CompareRequest

        return CompareRequest(
            first=self.first,
            second=self.second,
            first_checkpoint=self.checkpoint_a,
            second_checkpoint=self.checkpoint_b,
            corpus=self.corpus,
            layers=names_in(self.layers),
            measures=names_in(self.measure),
            against=names_in(self.against or ""),
            most_frames=self.frames,
            num_clusters=self.clusters,
            controls=self.controls,
            protocol=extraction_alone(self.set_ or []),
            seed=self.seed,
            device=self.device,
            out=self.out,
        )


@takes(CompareArguments)
def compare(arguments: CompareArguments) -> None:
    """Compare the layers of two models: each layer of A with each of B, and with mel, phones and words.

    Writes similarity.json with 95 % intervals over speakers, a heat map of each measure, and profiles of layers. A
    report of a folder above has them too.
    """
    take_threads(arguments.threads)
    take_plugins(arguments.plugin)
    request = arguments.request()
    request.refuse_unknown()
    from repbench.benchmark.comparison.run import compare as compare_models
    from repbench.benchmark.report.render.similarity import terminal_tables
    from repbench.console import ConsoleReporter, print_table

    result = compare_models(request, ConsoleReporter())
    if arguments.as_json:
        print_json({"files": [str(path) for path in result.files], "similarity": result.similarity.as_dict()})
        return
    for title, table in terminal_tables(result.similarity):
        typer.echo(title)
        print_table(table)
    for path in result.files:
        typer.echo(path)


def extraction_alone(assignments: Sequence[str]) -> Protocol:
    """The default protocol with settings of `extraction`.

    Raises:
        UsageError: A setting is unknown, or of something else.
    """
    from repbench.benchmark.protocol import load_protocol

    foreign = next((each for each in assignments if not each.strip().startswith(_EXTRACTION)), None)
    if foreign is not None:
        name = foreign.partition("=")[0]
        raise UsageError(f"`{name}` has no effect here", key="--set", do=f"Set keys that begin with {_EXTRACTION}")
    return load_protocol("default", None, assignments)


def names_in(text: str) -> tuple[str, ...]:
    """The names in a text with commas, each once."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
