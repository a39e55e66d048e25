"""`repbench extract`: hidden states of audio files, or features of a corpus for the store, in parts."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from repbench.cli import completion
from repbench.cli.check import take_plugins
from repbench.cli.option_objects import takes
from repbench.cli.options import (
    Checkpoint,
    Device,
    Json,
    Model,
    Overwrite,
    Plugins,
    Quiet,
    Resample,
    Threads,
    refuse_unknown,
    take_threads,
)
from repbench.cli.output import print_files, print_json, reporter_for
from repbench.errors import UsageError

if TYPE_CHECKING:
    from repbench.benchmark.pipeline.extract_part import PartRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractArguments:
    """The options of `repbench extract`."""

    audio: Annotated[list[Path] | None, typer.Argument(metavar="AUDIO", help="Audio files.")] = None
    upstream: Model
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Folder for the files.")] = None
    checkpoint: Checkpoint = None
    resample: Resample = False
    overwrite: Overwrite = False
    window_seconds: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            min=0.001,
            help="Longest sound that goes through the model at once; a longer one is read in windows of this duration.",
        ),
    ] = None
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="In place of audio files: store the features that runs on a corpus read, the I-th of N parts; a "
            "`repbench run` with the same options then computes none. The following options go with it.",
        ),
    ] = None
    corpus: Annotated[
        str | None,
        typer.Option(
            metavar="C",
            help="Name of a corpus with options, or folder of a manifest; default: synthetic.",
            autocompletion=completion.corpora,
        ),
    ] = None
    downstream: Annotated[
        list[str] | None,
        typer.Option(
            metavar="D",
            help="A task of the runs; may be repeated, in their order.",
            autocompletion=completion.downstreams,
        ),
    ] = None
    layer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="last|first|mean|weighted|K|all",
            help="Layers that the runs read; default: the preset's. May be repeated.",
        ),
    ] = None
    seed: Annotated[
        list[int] | None,
        typer.Option(metavar="N", min=0, help="Seed of an untrained upstream; may be repeated."),
    ] = None
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="P",
            help="The protocol of the runs: default, mockingjay2020, s3prl or superb.",
            autocompletion=completion.protocols,
        ),
    ] = None
    config: Annotated[
        Path | None, typer.Option(metavar="F", help="YAML file of settings that differ from the preset.")
    ] = None
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=V", help="One setting; may be repeated.")] = (
        None
    )
    device: Device = "auto"
    threads: Threads = None
    plugin: Plugins = None
    quiet: Quiet = False
    as_json: Json = False

    def given(self, *names: str) -> list[str]:
        """The options among these that are given, as they are written on the command line."""
        defaults = {each.name: each.default for each in fields(self)}
        return [
            "AUDIO" if name == "audio" else f"--{name.rstrip('_').replace('_', '-')}"
            for name in names
            if getattr(self, name) != defaults[name]
        ]

    def request(self) -> PartRequest:
        """The request of a part, with its protocol loaded.

        Raises:
            UsageError: A setting is unknown or impossible, or `--shard` names no part.
        """
        from repbench.benchmark.features.parts import ExtractionPart
        from repbench.benchmark.pipeline.extract_part import PartRequest
        from repbench.benchmark.protocol import load_protocol

        assert self.shard is not None
        return PartRequest(
            upstream=self.upstream,
            downstreams=tuple(self.downstream or ()),
            part=ExtractionPart.of(self.shard),
            checkpoint=self.checkpoint,
            corpus=self.corpus or "synthetic",
            layers=tuple(self.layer or ()),
            seeds=tuple(self.seed or (0,)),
            protocol=load_protocol(self.preset or "default", self.config, self.set_ or []),
            device=self.device,
        )


@takes(ExtractArguments)
def extract(arguments: ExtractArguments) -> None:
    """Write the hidden states (L, F, D) of each audio file to STEM.safetensors, or store features of a corpus.

    The folder also gets a `features.yaml`, so that `--upstream features:DIR` reads it.
    """
    take_plugins(arguments.plugin)
    refuse_unknown(upstream=arguments.upstream)
    take_threads(arguments.threads)
    if arguments.shard is None:
        _extract_files(arguments)
    else:
        _extract_part(arguments)


def _extract_part(arguments: ExtractArguments) -> None:
    of_files = arguments.given("audio", "out", "resample", "overwrite", "window_seconds")
    if of_files:
        do = "Leave it out: the features go to the feature store (REPBENCH_CACHE), and settings are given by --set"
        raise UsageError("This goes with audio files, not with --shard", key=of_files[0], do=do)
    from repbench.benchmark.pipeline.extract_part import extract_part

    stored = extract_part(arguments.request(), reporter_for(arguments.quiet))
    if arguments.as_json:
        print_json(stored.as_dict())
    else:
        typer.echo(stored.line())


def _extract_files(arguments: ExtractArguments) -> None:
    of_parts = arguments.given("corpus", "downstream", "layer", "seed", "preset", "config", "set_")
    if of_parts:
        do = "Give --shard 1/1 to store the features of a corpus in one part"
        raise UsageError("This goes with --shard, not with audio files", key=of_parts[0], do=do)
    if not arguments.audio:
        raise UsageError("Missing argument 'AUDIO'", do="Give audio files, or --shard and a corpus")
    if arguments.out is None:
        raise UsageError("Missing option '--out'", key="--out", do="Name a folder for the files")
    from repbench.benchmark.environment import choose_device
    from repbench.benchmark.features.export import ExportOptions, extract_files
    from repbench.benchmark.loading.upstreams import load_upstream, origin_of
    from repbench.benchmark.protocol import ExtractionSettings
    from repbench.registry import registry
    from repbench.upstream.contract import provenance_of
    from repbench.upstream.windowed import in_windows

    chosen = choose_device(arguments.device)
    model = load_upstream(arguments.upstream, checkpoint=arguments.checkpoint)
    model.to(chosen)
    reporter = reporter_for(arguments.quiet)
    for note in provenance_of(model).notes:
        reporter.say(f"note: {note}")
    origin = origin_of(registry().find("upstream", arguments.upstream).entry)
    options = ExportOptions(
        device=chosen,
        resample=arguments.resample,
        origin=origin,
        overwrite=arguments.overwrite,
        name=arguments.upstream,
        checkpoint=arguments.checkpoint,
    )
    model = in_windows(model, arguments.window_seconds, ExtractionSettings().context_seconds)
    written = extract_files(model, arguments.audio, arguments.out, options, reporter=reporter)
    print_files(written, arguments.as_json)
