"""What a figure or a table of many records leaves out is said."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from repbench.benchmark.records.record import read_records
from repbench.benchmark.report import write_layer_figures
from repbench.benchmark.report.render.figures import MOST_LINES
from repbench.benchmark.report.render.terminal_table import matrix_table
from repbench.progress import Silence
from tests.benchmark.report_records import write


class Said(Silence):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_fault_what_a_figure_of_layers_leaves_out_is_said(tmp_path: Path) -> None:
    runs, said = tmp_path / "runs", Said()
    for number in range(MOST_LINES + 1):
        for layer in ("0", "1"):
            write(runs, layer=layer, upstream=f"model{number}")
    write(runs, layer="0", upstream="model0", created="2026-01-03T00:00:00+00:00")
    broken = write(runs, layer="2", upstream="model0")
    broken.write_text(broken.read_text().replace('"seed": 0', '"seed": 1'))
    write_layer_figures([runs], tmp_path / "out", reporter=said)
    lines = "\n".join(said.lines)
    assert f"left out: {broken}" in lines
    assert "of 2 records, the newest of each seed counts (1)" in lines
    assert f"has room for {MOST_LINES} lines; left out: model{MOST_LINES}" in lines


def test_fault_the_table_of_many_records_says_what_it_leaves_out(tmp_path: Path) -> None:
    write(tmp_path, skill=0.5)
    write(tmp_path, skill=0.6, created="2026-01-03T00:00:00+00:00")
    shown = io.StringIO()
    Console(width=160, file=shown).print(matrix_table(read_records(tmp_path)))
    assert "1 older records of the same seeds are left out" in " ".join(shown.getvalue().split())
