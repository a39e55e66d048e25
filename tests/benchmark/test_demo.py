"""The demo says commands that ask what it asks; one table shows many records."""

from __future__ import annotations

import io
import shlex
from pathlib import Path

from rich.console import Console

from repbench.benchmark import demo
from repbench.benchmark.matrix import matrix_table, system_of
from repbench.benchmark.record import read_records
from tests.benchmark.report_records import write

CHECKPOINTS = {"apc": "o/pretrain/apc", "mockingjay": "o/pretrain/mockingjay"}


def test_each_command_that_is_said_asks_what_is_done() -> None:
    questions = list(demo._questions(CHECKPOINTS))
    said = [shlex.split(demo._command(question)) for question in questions]
    for question, words in zip(questions, said, strict=True):
        options = dict(zip(words[2::2], words[3::2], strict=False))
        assert words[:2] == ["repbench", "run"]
        assert options["--upstream"] == question.upstream
        assert ("--checkpoint" in words) == (question.checkpoint is not None)
        assert ("--finetune" in words) == question.finetune
        fractions = [float(words[place + 1]) for place, word in enumerate(words) if word == "--label-fraction"]
        assert tuple(fractions or [1.0]) == question.label_fractions
        assert [words[place + 1] for place, word in enumerate(words) if word == "--set"] == list(demo.SETTINGS)
    assert len({tuple(words) for words in said}) == len(said)
    assert {question.finetune for question in questions} == {False, True}


def test_the_matrix_shows_means_over_seeds_and_leaves_what_nobody_asked_empty(tmp_path: Path) -> None:
    for seed in (0, 1):
        write(tmp_path, upstream="mel", seed=seed)
    write(tmp_path, upstream="apc", checkpoint="random:tiny", task="speaker")
    write(tmp_path, upstream="apc", mode="finetune")
    records = read_records(tmp_path)
    mean = sum(each.primary.value or 0 for each in records if system_of(each) == "mel") / 2
    shown = io.StringIO()
    Console(width=120, file=shown).print(matrix_table(records))
    rows = {line.strip().split("  ")[0]: line for line in shown.getvalue().splitlines() if line.strip()}
    assert f"{mean:.3f}" in rows["mel"]
    assert "–" in rows["mel"]
    assert {"apc, untrained", "apc, fine-tuned", "chance", "majority"} <= rows.keys()
