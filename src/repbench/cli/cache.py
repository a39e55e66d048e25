"""`repbench cache …`: list, remove and verify stored features."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from repbench.cli.commands import Commands
from repbench.cli.options import Json
from repbench.cli.output import help_if_alone, print_columns, print_json, say

cache_app = Commands(
    help="List, remove and verify stored features.", invoke_without_command=True, rich_markup_mode=None
)


@cache_app.callback()
def _cache(context: typer.Context) -> None:
    help_if_alone(context)


@cache_app.command("list", short_help="List stored features by upstream.")
def cache_list(as_json: Json = False) -> None:
    """List the stored features: fingerprint and name of the upstream, layers, dtype, precision, utterances,
    bytes."""
    from dataclasses import asdict

    from repbench.benchmark.features.maintenance import stored_features
    from repbench.benchmark.features.shards import store_folder

    found = [asdict(each) for each in stored_features(store_folder())]
    if as_json:
        print_json({"folder": str(store_folder()), "bytes": sum(row["bytes"] for row in found), "upstreams": found})
        return
    columns = ("fingerprint", "names", "layers", "dtype", "precision", "utterances", "bytes")
    print_columns(columns, [{name: _listed(row[name]) for name in columns} for row in found])


@cache_app.command("clear", short_help="Remove stored features.")
def cache_clear(
    upstream: Annotated[
        str | None, typer.Option(metavar="FP", help="Only the upstream whose fingerprint begins with FP.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be removed, and remove nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Remove all stored features and measured costs of upstreams, or the features of one upstream."""
    from repbench.benchmark.features.cost import clear_costs
    from repbench.benchmark.features.maintenance import clear
    from repbench.benchmark.features.shards import store_folder

    files, num_bytes = clear(store_folder(), upstream, dry_run=dry_run)
    if upstream is None and not dry_run:
        clear_costs()
    if as_json:
        print_json({"folder": str(store_folder()), "files": files, "bytes": num_bytes, "dry_run": dry_run})
        return
    done = "would be removed" if dry_run else "removed"
    typer.echo(f"{store_folder()}: {files} files {done}, {num_bytes} bytes")


@cache_app.command("verify", short_help="Compare stored features with their checksums.")
def cache_verify(as_json: Json = False) -> None:
    """Compare all stored features with their checksums, and name those that are damaged."""
    from dataclasses import asdict

    from repbench.benchmark.features.maintenance import verify
    from repbench.benchmark.features.shards import store_folder
    from repbench.console import ConsoleReporter
    from repbench.errors import IntegrityError

    folder = store_folder()
    with ConsoleReporter().stage("shards") as advance:
        count, damaged = verify(folder, progress=advance)
    code = IntegrityError.exit_code if damaged else 0
    if as_json:
        print_json({"folder": str(folder), "entries": count, "damaged": [asdict(each) for each in damaged]})
        raise typer.Exit(code)
    for each in damaged:
        say(f"damaged: {each.line()}")
    typer.echo(f"{folder}: {count} entries, {len(damaged)} damaged")
    if damaged:
        do = "They are computed again when they are needed; `repbench cache clear` removes all"
        raise IntegrityError(f"{len(damaged)} stored features are damaged", file=damaged[0].file, do=do)


def _listed(value: Any) -> str:
    return " ".join(str(each) for each in value) if isinstance(value, tuple) else str(value)
