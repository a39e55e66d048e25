"""`repbench show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from repbench.cli.options import Json
from repbench.cli.output import print_json


def show(
    record: Annotated[Path, typer.Argument(metavar="RECORD", help="A record.json, or a folder that holds one record.")],
    as_json: Json = False,
) -> None:
    """Show one record: its numbers with intervals and counts, what they were measured on, and what can be done next."""
    from repbench.benchmark.report.render.record_page import find_record, record_text

    found = find_record(record)
    if as_json:
        print_json(found.as_dict())
    else:
        typer.echo(record_text(found))
