"""`repbench verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from repbench.cli.check import take_plugins
from repbench.cli.options import Json, Plugins
from repbench.cli.output import print_json, say
from repbench.errors import DataError, IntegrityError, RepbenchError, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from repbench.benchmark.records.verify import Verification


def verify(
    records: Annotated[
        list[Path], typer.Argument(metavar="RECORD", help="Files record.json, or folders that hold some at any depth.")
    ],
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Recompute every metric and interval from the predictions, and name each field that was changed.

    A record that cannot be verified does not stop the others. Exit code 4 if anything was changed.
    """
    take_plugins(plugin)
    codes = {0}
    results = []
    for path, found in _verdicts(records):
        if isinstance(found, RepbenchError):
            codes.add(found.exit_code)
            say(f"error: {found.line()}")
            results.append({"path": printable(path), "holds": False, "changes": [], "error": found.fields()})
            continue
        if not found.holds:
            codes.add(IntegrityError.exit_code)
        results.append(_as_dict(found))
        if not as_json:
            _print(found)
    changed = any(result["changes"] for result in results)
    if as_json:
        print_json({"holds": codes == {0}, "records": results})
    raise typer.Exit(IntegrityError.exit_code if changed else max(codes))


def _verdicts(places: Iterable[Path]) -> Iterator[tuple[Path, Verification | RepbenchError]]:
    """The verification of each record at or below the places, in order; or its error."""
    from repbench.benchmark.records.record import record_paths
    from repbench.benchmark.records.verify import verify_record

    for place in places:
        paths = record_paths(place)
        if not paths:
            yield place, DataError("There is no record here", file=place, do="Give a run's folder or its record.json")
        for path in paths:
            try:
                yield path, verify_record(path, weights=True)
            except RepbenchError as error:
                yield path, error


def _print(verdict: Verification) -> None:
    place = printable(verdict.path)
    if verdict.holds:
        typer.echo(f"{place}: holds ({len(verdict.record.metrics)} metrics of {len(verdict.predictions)} predictions)")
    for change in verdict.changes:
        typer.echo(f"{place}: {printable(change.sentence)}")


def _as_dict(verdict: Verification) -> dict[str, Any]:
    changes = [
        {"field": change.field, "stored": change.stored, "found": change.found, "sentence": change.sentence}
        for change in verdict.changes
    ]
    return {
        "path": printable(verdict.path),
        "id": verdict.record.id,
        "holds": verdict.holds,
        "changes": changes,
        "error": None,
    }
