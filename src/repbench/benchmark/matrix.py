"""One table of many records: a row for each system, a column for each task and share of the labels."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from repbench.benchmark.record import Record
from repbench.errors import printable

_CAPTION = "primary metrics, means over seeds; chance and majority stand in their own rows; – was not asked"


def matrix_table(records: Sequence[Record]) -> Table:
    """The primary metric of every system at every task, corpus and share of the labels; means over seeds.

    Records that differ in anything else (a protocol, a head, a layer) belong into a report, which keeps them apart.
    """
    cells: dict[tuple[str, str], list[float]] = defaultdict(list)
    columns: dict[str, Record] = {}
    systems: dict[str, None] = {}
    for record in sorted(records, key=lambda each: (each.corpus.name, each.downstream.name, each.label_fraction)):
        column = f"{record.downstream.name}\n{100 * record.label_fraction:g} %"
        columns.setdefault(column, record)
        systems.setdefault(system_of(record))
        if record.primary.value is not None:
            cells[system_of(record), column].append(record.primary.value)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=_CAPTION, caption_justify="left")
    table.add_column("", overflow="fold")
    for column in columns:
        table.add_column(Text(printable(column.replace("\n", " "))), justify="right", no_wrap=True)
    for name, value in (("chance", "chance"), ("majority", "majority")):
        table.add_row(name, *(_number(getattr(record.baselines, value)) for record in columns.values()))
    for system in sorted(systems):
        values = (cells.get((system, column)) for column in columns)
        table.add_row(Text(printable(system)), *(_number(_mean(value)) for value in values))
    return table


def system_of(record: Record) -> str:
    """What a row is called: the upstream, whether its weights are random, and what was done with it."""
    untrained = (record.upstream.checkpoint or "").partition(":")[0] == "random"
    shuffled = record.protocol.get("labels") == "shuffled"
    tuned = bool(record.protocol.get("probe", {}).get("tune"))
    marks = [
        *["untrained"] * untrained,
        *["fine-tuned"] * (record.mode == "finetune"),
        *["shuffled labels"] * shuffled,
        *["tuned"] * tuned,
    ]
    return ", ".join([record.upstream.name, *marks])


def _mean(values: list[float] | None) -> float | None:
    return None if not values else math.fsum(values) / len(values)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
