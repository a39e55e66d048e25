"""`repbench sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from repbench.cli.options import Json, Quiet
from repbench.cli.output import print_columns, print_json, print_matrix, reporter_for

if TYPE_CHECKING:
    from repbench.benchmark.sweep.sweep import Swept


def sweep(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.yaml", help="Lists of upstreams, downstreams, corpora, …")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the records are written and looked for.")] = Path(
        "runs"
    ),
    launcher: Annotated[
        str, typer.Option(metavar="local|slurm", help="Processes of this machine, or jobs of a cluster.")
    ] = "local",
    jobs: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Upstream × corpus at a time on this machine; default: 1, or one for each device."
        ),
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(metavar="cuda:0,cuda:1", help="Devices of this machine that the jobs take in turn, one each."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", metavar="N", min=1, help="Threads of all jobs of this machine together.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what is missing and an estimate of the time.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Make the records of a plan that do not exist yet; a failure does not stop the others."""
    from repbench.benchmark.sweep.devices import devices_of
    from repbench.benchmark.sweep.sweep import SweepRequest
    from repbench.benchmark.sweep.sweep import sweep as sweep_plan

    request = SweepRequest(
        plan=plan,
        out=out,
        launcher=launcher,
        jobs=jobs,
        devices=() if devices is None else devices_of(devices),
        dry_run=dry_run,
        threads=threads,
    )
    swept = sweep_plan(request, reporter_for(quiet))
    if as_json:
        print_json(swept.as_dict())
    elif swept.rows:
        _print_rows(swept)
    raise typer.Exit(swept.exit_code)


def _print_rows(swept: Swept) -> None:
    rows = [
        {
            "upstream": row.pair.label,
            "downstream": row.pair.downstream,
            "corpus": row.pair.corpus,
            "mode": row.pair.mode,
            "layer": row.pair.layer,
            "head": row.pair.head or "",
            "records": str(len(row.existing) + len(row.made)),
            "status": row.status,
            "exit": str(row.exit_code) if row.exit_code else "",
            "error": row.error,
        }
        for row in swept.rows
    ]
    print_columns(list(rows[0]), rows)
    paths = [path for row in swept.rows for path in (*row.existing, *row.made)]
    if paths:
        from repbench.benchmark.records.record import read_records

        print_matrix(read_records(paths))
    typer.echo(swept.line())
