"""`repbench list` and `repbench doctor`: installed plugins, and their faults."""

from __future__ import annotations

from typing import Annotated

import typer

from repbench.cli import completion
from repbench.cli.options import Json
from repbench.cli.output import print_columns, print_json, say
from repbench.errors import UsageError


def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND",
            help="upstreams, downstreams, corpora or heads.",
            show_default=False,
            autocompletion=completion.kinds,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the installed plugins with name, kind, version and origin. None is imported."""
    from repbench.registry import PLURALS, registry

    kinds = {plural: singular for singular, plural in PLURALS.items()}
    if kind is not None and kind not in kinds:
        raise UsageError(f"There is no kind `{kind}`", key="list", do=f"Choose one of {', '.join(kinds)}")
    rows = registry().rows(None if kind is None else kinds[kind])
    problems = [problem._asdict() for problem in registry().problems]
    if as_json:
        print_json({"plugins": rows, "problems": problems})
        return
    print_columns(("name", "kind", "version", "origin", "note"), rows)
    for problem in registry().problems:
        say(f"warning: {problem.distribution}: {problem.reason}. {problem.cure}.")


def doctor(
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=1, help="Longest time for importing one plugin.")
    ] = 60.0,
    as_json: Json = False,
) -> None:
    """Import every plugin in a child process and list what is broken, with the cause and the cure."""
    from repbench.doctor import examine

    diagnosis = examine(timeout)
    if as_json:
        print_json(diagnosis.as_dict())
        raise typer.Exit(diagnosis.exit_code)
    rows = [
        {"what": check.name, "status": check.status, "detail": check.detail, "cure": check.cure or ""}
        for check in (*diagnosis.checks, *diagnosis.extras)
    ]
    rows += [
        {
            "what": f"{plugin.kind} {plugin.name}",
            "status": plugin.status,
            "cure": plugin.cure or "",
            "detail": plugin.reason or f"{plugin.distribution} {plugin.version}",
        }
        for plugin in diagnosis.plugins
    ]
    rows += [
        {"what": problem.distribution, "status": status, "detail": problem.reason, "cure": problem.cure}
        for status, problems in (("ignored", diagnosis.problems), ("note", diagnosis.notes))
        for problem in problems
    ]
    print_columns(("what", "status", "detail", "cure"), rows)
    raise typer.Exit(diagnosis.exit_code)
