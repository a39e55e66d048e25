"""`repbench plan`: what a run could show, before it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from repbench.cli.check import take_plugins
from repbench.cli.commands import refuse_both
from repbench.cli.option_objects import takes
from repbench.cli.options import UPSTREAM_NAMES, Checkpoint, Json, Plugins
from repbench.cli.output import print_columns, print_json
from repbench.errors import UsageError

if TYPE_CHECKING:
    from repbench.benchmark.planning.plan import Outlook, Plan, PlanRequest

_READ = ("split.", "task.", "tasks.")
"""Settings that a plan depends on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanArguments:
    """The options of `repbench plan`."""

    downstream: Annotated[str, typer.Option(metavar="D", help="The task; see `repbench list downstreams`.")]
    corpus: Annotated[
        str, typer.Option(metavar="C", help="Name of a corpus with options, or folder of a manifest.")
    ] = "synthetic"
    folds: Annotated[
        str | None,
        typer.Option(
            metavar="K|official", help="Number of folds, each test once, or those of the corpus: split.folds."
        ),
    ] = None
    preset: Annotated[
        str, typer.Option(metavar="P", help="The protocol: default, mockingjay2020, s3prl or superb.")
    ] = "default"
    config: Annotated[
        Path | None, typer.Option(metavar="F", help="YAML file of settings that differ from the preset.")
    ] = None
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="split.B=V", help="A setting of the division or of the task; may be repeated."),
    ] = None
    seeds: Annotated[int, typer.Option(metavar="K", min=1, help="Number of seeds of each system.")] = 1
    upstream: Annotated[
        str | None,
        typer.Option(
            metavar="U", help=f"A model, of which utterances that it cannot take are left out: {UPSTREAM_NAMES}."
        ),
    ] = None
    checkpoint: Checkpoint = None
    runs: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of earlier records, which tell how much values vary.")
    ] = Path("runs")
    plugin: Plugins = None
    as_json: Json = False

    def request(self) -> PlanRequest:
        """The request, with its protocol loaded.

        Raises:
            UsageError: A setting is unknown, impossible, without an effect, or given twice.
        """
        from repbench.benchmark.planning.plan import PlanRequest
        from repbench.benchmark.protocol import load_protocol

        assignments = self.set_ or []
        refuse_both(assignments, "split.folds", "--folds", self.folds is not None)
        foreign = next((each for each in assignments if not each.strip().startswith(_READ)), None)
        if foreign is not None:
            name = foreign.partition("=")[0]
            raise UsageError(
                f"`{name}` has no effect here", key="--set", do=f"Set keys that begin with {', '.join(_READ)}"
            )
        if self.folds is not None:
            assignments = [*assignments, f"split.folds={self.folds}"]
        return PlanRequest(
            downstream=self.downstream,
            corpus=self.corpus,
            protocol=load_protocol(self.preset, self.config, assignments),
            num_seeds=self.seeds,
            upstream=self.upstream,
            checkpoint=self.checkpoint,
            runs=self.runs,
        )


@takes(PlanArguments)
def plan(arguments: PlanArguments) -> None:
    """State what difference a test set could show, before anything is trained: from speakers and utterances.

    Reads the manifest of the corpus and earlier records, no sound. Names the divisions of the corpus that would show
    half of that difference.
    """
    take_plugins(arguments.plugin)
    request = arguments.request()
    from repbench.benchmark.planning.plan import plan as plan_run
    from repbench.console import ConsoleReporter

    planned = plan_run(request, ConsoleReporter())
    if arguments.as_json:
        print_json(planned.as_dict())
        return
    typer.echo(f"{planned.downstream} on {planned.corpus}: {planned.policy}")
    _print_splits(planned)
    typer.echo("")
    for line in _differences(planned):
        typer.echo(line)
    if any(each.smallest is not None for each in planned.others):
        typer.echo("\nOther divisions of this corpus:")
        _print_divisions(planned)
    for line in _on_half(planned):
        typer.echo(line)
    for warning in planned.warnings:
        typer.echo(f"note: {warning}")


def _print_splits(planned: Plan) -> None:
    rows = [
        {
            "split": each.name,
            "utterances": f"{each.utterances:,}",
            "speakers": f"{each.speakers:,}" if each.speakers else "not known",
            "hours": f"{each.seconds / 3600:.2f}",
        }
        for each in planned.splits
    ]
    print_columns(list(rows[0]), rows)
    if planned.num_classes:
        typer.echo(f"{planned.num_classes} classes")
    if planned.excluded:
        typer.echo(f"{planned.excluded} test utterances cannot be scored")


def _differences(planned: Plan) -> Iterator[str]:
    """The smallest differences, and what they rest on."""
    now, spread = planned.now, planned.spread
    if now.smallest is None:
        reason = "test has one speaker or group" if now.unit is None else planned.source
        yield f"The smallest difference that test could show is not known: {reason}."
        return
    seeds = f"{planned.num_seeds} seed{'s' * (planned.num_seeds > 1)}"
    yield (
        f"Smallest true difference in {planned.metric} that test shows with 80 % power, two-sided at 5 %, over "
        f"{now.units} {now.unit}s and {seeds}:"
    )
    yield f"  {now.smallest.paired:.3f}  between two systems on this test set (paired)"
    yield f"  {now.smallest.unpaired:.3f}  between two systems on different test sets of this size (unpaired)"
    assert spread is not None
    yield (
        f"Assumed: deviation {spread.cluster:.3f} between {now.unit}s, {spread.utterance:.3f} between utterances of "
        f"one, correlation {spread.correlation:.2f} of two systems"
        + (
            ""
            if spread.seed is None or planned.num_seeds == 1
            else f", deviation {spread.seed:.3f} between seeds, {100 * spread.interaction:.0f} % of one run its seed's"
        )
        + f" ({planned.source})."
    )
    if planned.num_seeds == 1 and planned.trains:
        yield "With one seed the difference is between two trained probes; it does not hold for other seeds."


def _print_divisions(planned: Plan) -> None:
    rows = [_division("as planned", planned.now), *(_division(each.options, each) for each in planned.others)]
    print_columns(list(rows[0]), rows)


def _division(title: str, each: Outlook) -> dict[str, str]:
    return {
        "division": title,
        "train": f"{each.train:,}",
        "test": f"{each.test:,}",
        "speakers or groups": str(each.units),
        "smallest difference": "not known" if each.smallest is None else f"{each.smallest.paired:.3f}",
        "of planned": "" if each.of_now is None else f"{100 * each.of_now:.0f} %",
    }


def _on_half(planned: Plan) -> Iterator[str]:
    """Which division would show half of the difference, or how many speakers would."""
    now = planned.now
    if now.smallest is None:
        known = [(each.smallest.paired, each.options) for each in planned.others if each.smallest is not None]
        if known:
            smallest, options = min(known)
            yield f"`{options}` would show {smallest:.3f}."
        return
    half = f"half of it ({now.smallest.paired / 2:.3f})"
    each = max(1, round(now.test / now.units))
    needed = (
        f"no number of {now.unit}s would, as seeds vary more"
        if planned.units_for_half is None
        else f"it would take {planned.units_for_half} test {now.unit}s of {each} utterance{'s' * (each > 1)}"
    )
    if planned.half is not None:
        yield f"`{planned.half}` would show {half}."
    else:
        yield f"No division of this corpus shows {half}: {needed}."
