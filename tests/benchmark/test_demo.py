"""The demo prints the commands of its requests; one table shows many records."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path
from typing import Any

from rich.console import Console

from repbench.benchmark import demo
from repbench.benchmark.records.record import read_record, read_records
from repbench.benchmark.report.render.terminal_table import matrix_table
from tests.benchmark.report_records import write

CHECKPOINTS = {"apc": "o/pretrain/apc", "mockingjay": "o/pretrain/mockingjay"}


def test_each_printed_command_is_that_of_its_request() -> None:
    requests = list(demo._requests(CHECKPOINTS, Path("o/records")))
    commands = [shlex.split(demo._command(request)) for request in requests]
    for request, words in zip(requests, commands, strict=True):
        options = dict(zip(words[2::2], words[3::2], strict=False))
        assert words[:2] == ["repbench", "run"]
        assert options["--upstream"] == request.upstream
        assert ("--checkpoint" in words) == (request.checkpoint is not None)
        assert ("--finetune" in words) == request.finetune
        fractions = [float(words[place + 1]) for place, word in enumerate(words) if word == "--label-fraction"]
        assert tuple(fractions or [1.0]) == request.label_fractions
        assert [words[place + 1] for place, word in enumerate(words) if word == "--set"] == list(demo.SETTINGS)
    assert len({tuple(words) for words in commands}) == len(commands)
    assert {request.finetune for request in requests} == {False, True}


def drawn(root: Path) -> tuple[str, dict[str, list[str]]]:
    """The matrix of the records below `root`, and the numbers of each of its rows."""
    shown = io.StringIO()
    Console(width=160, file=shown).print(matrix_table(read_records(root)))
    lines = [re.split(r"\s{2,}", line.strip()) for line in shown.getvalue().splitlines()]
    return shown.getvalue(), {name: numbers for name, *numbers in lines if numbers}


def value(path: Path) -> float:
    """The primary metric of a record."""
    found = read_record(path).primary.value
    assert found is not None
    return found


def test_the_matrix_shows_means_over_seeds_and_leaves_what_nobody_asked_empty(tmp_path: Path) -> None:
    values = [value(write(tmp_path, upstream="mel", seed=seed)) for seed in (0, 1)]
    write(tmp_path, upstream="apc", checkpoint="random:tiny", task="speaker")
    write(tmp_path, upstream="apc", mode="finetune")
    text, rows = drawn(tmp_path)
    assert rows["mel"] == [f"{sum(values) / 2:.3f}", "–"]
    assert {"apc (untrained)", "apc, fine-tuned", "chance", "majority"} <= rows.keys()
    assert "means over 1 to 2 seeds" in " ".join(text.split())
    assert "layer" not in text
    assert "noisy" not in text


def test_the_matrix_averages_nothing_but_seeds(tmp_path: Path) -> None:
    paths = [
        write(tmp_path, upstream="apc", checkpoint="runs/a", skill=0.9, corpus="clean", fingerprint="c" * 64),
        write(tmp_path, upstream="apc", checkpoint="runs/a", skill=0.1, corpus="hard", fingerprint="d" * 64),
        write(tmp_path, upstream="apc", checkpoint="runs/b", skill=0.2, corpus="hard", fingerprint="d" * 64, layer="0"),
        write(tmp_path, upstream="apc", checkpoint="runs/a", skill=0.5, corpus="hard", fingerprint="d" * 64,
              head="mlp1"),
    ]  # fmt: skip
    clean, hard, other, mlp = (f"{value(path):.3f}" for path in paths)
    text, rows = drawn(tmp_path)
    assert rows["apc (runs/a), layer last"] == [clean, hard, mlp]
    assert rows["apc (runs/b), layer 0"] == ["–", other, "–"]
    assert {"clean", "hard", "head = linear", "head = mlp1"} <= set(re.split(r"\s{2,}|\n", text))
    assert "each from one seed" in " ".join(text.split())


def test_the_matrix_keeps_tuned_rates_and_shuffled_labels_apart(tmp_path: Path) -> None:
    protocols: list[dict[str, Any]] = [{}, {"probe": {"tune": True}}, {"labels": "shuffled"}]
    skills = (0.6, 0.7, 0.2)
    paths = [write(tmp_path, skill=skill, protocol=each) for skill, each in zip(skills, protocols, strict=True)]
    text, rows = drawn(tmp_path)
    assert rows["mel"] == [f"{value(path):.3f}" for path in paths]
    assert "labels = shuffled" in text
