"""Reports of runs that fine-tuned a part of an upstream."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from repbench.benchmark.report import ReportRequest, write_report
from repbench.benchmark.report.data.assemble import assemble
from repbench.benchmark.report.render.cost_columns import COST_COLUMNS
from repbench.benchmark.report.render.record_page import find_record, record_text
from tests.benchmark.report_records import write


def tuned(root: Path, rule: str, moved: int, **changed: Any) -> Path:
    finetune: dict[str, Any] = {"steps": 100} | ({} if rule == "all" else {"trainable": rule})
    part = {"rule": rule, "total": 2_000_000, "trainable": moved, "moved": moved}
    return write(root, mode="finetune", protocol={"finetune": finetune}, finetuned=part, **changed)


def test_a_report_shows_the_rule_and_the_weights_that_moved(tmp_path: Path) -> None:
    tuned(tmp_path / "runs", "all", 2_000_000)
    tuned(tmp_path / "runs", "lora:8", 65_536)
    write(tmp_path / "runs", upstream="other")
    report = assemble([tmp_path / "runs"])
    titles = [column.title for column in report.gathered.all_columns]
    assert any("finetune.trainable = all" in title for title in titles)
    assert any("finetune.trainable = lora:8" in title for title in titles)
    column = next(each for each in COST_COLUMNS if each.name == "weights_moved")
    texts = {row.mode: column.text(report, row) for row in report.gathered.rows}
    assert texts["frozen"] == ""
    assert sorted(texts["finetune"].replace("\N{NO-BREAK SPACE}", " ").split("; ")) == ["2 M (all)", "65.5 k (lora:8)"]

    write_report(ReportRequest(runs=(tmp_path / "runs",), out=tmp_path / "out"))
    lines = csv.DictReader((tmp_path / "out" / "results.csv").read_text("utf-8").splitlines())
    assert {line["weights_moved"] for line in lines} == {"", "2000000", "65536"}
    rows = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))["rows"]
    assert sorted(part["rule"] for row in rows for part in row["cost"]["finetuned"]) == ["all", "lora:8"]


def test_show_states_how_many_weights_moved(tmp_path: Path) -> None:
    text = record_text(find_record(tuned(tmp_path, "last:1", 1_234)))
    assert "1,234 (last:1), of 2,000,000" in text
    assert "weights moved" not in record_text(find_record(write(tmp_path / "frozen")))
