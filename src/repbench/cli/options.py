"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from repbench.cli import completion
from repbench.registry.names import PREFIXED_UPSTREAMS

UPSTREAM_NAMES = f"a name of `repbench list upstreams`, or {PREFIXED_UPSTREAMS}"
"""What an argument that names a model can be, for its help."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object; progress goes to stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and the result alone: no progress, no notes.")]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Refuse what would be refused, print what would be done and what it would take, and do nothing.",
    ),
]
Device = Annotated[str, typer.Option(help="Device: auto, cpu, cuda or cuda:N.", autocompletion=completion.devices)]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads", metavar="N", min=1, help="Threads that compute; default: as many as processors may be used."
    ),
]
Checkpoint = Annotated[str | None, typer.Option(metavar="PATH|random", help="Weights of the upstream.")]
Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin", metavar="FILE.py", help="A file that declares upstreams, downstreams or heads; may be repeated."
    ),
]
Sounds = Annotated[list[Path], typer.Argument(metavar="AUDIO", help="Audio files.")]
Model = Annotated[str, typer.Option("--upstream", metavar="U", help="The model.", autocompletion=completion.upstreams)]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the files.")]
Resample = Annotated[bool, typer.Option("--resample", help="Resample audio of another sampling rate.")]
PictureFormats = Annotated[str, typer.Option("--format", metavar="png,svg", help="One format or both.")]
PictureSeed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Seed of random choices.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing files whose content differs.")]

By = Annotated[
    list[str] | None,
    typer.Option(
        "--by",
        metavar="ATTRIBUTE[:EDGES]",
        help="Scores by group of test utterances: gender, accent, age:16,30 (bands of a number), …; may be repeated.",
    ),
]
LeastSpeakers = Annotated[
    int | None,
    typer.Option("--least-speakers", metavar="K", min=0, help="Fewest speakers of a group that is shown; default: 5."),
]
GroupCorpora = Annotated[
    list[str] | None,
    typer.Option(
        "--corpus",
        metavar="C",
        help="Read the attributes of --by from this corpus of the records, not from predictions; may be repeated.",
    ),
]


def least_speakers_of(given: int | None) -> int:
    """The value of `--least-speakers`, or its default."""
    from repbench.benchmark.scoring.grouping import LEAST_SPEAKERS

    return LEAST_SPEAKERS if given is None else given


def refuse_unknown(upstream: str, downstream: str | None = None) -> None:
    """Refuse a name that no plugin has, before torch is imported: that takes seconds."""
    from repbench.registry import registry

    registry().find("upstream", upstream)
    if downstream is not None:
        registry().find("downstream", downstream)


def take_threads(number: int | None) -> None:
    """Let this process compute on `number` threads; None: on those that suit the machine."""
    from repbench.training.threads import choose_threads

    choose_threads(number)
