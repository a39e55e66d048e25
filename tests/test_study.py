"""The study in `examples/study`: its records hold, and the tables of docs/study.md are made of them."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from repbench import read_records
from repbench.benchmark.records.record import Record
from repbench.benchmark.sweep.plan import load_plan
from tests.commands import repbench

ROOT = Path(__file__).parent.parent
STUDY = ROOT / "examples" / "study"
DOCUMENT = ROOT / "docs" / "study.md"


@pytest.fixture(scope="module")
def report() -> ModuleType:
    """`examples/study/report.py`"""
    specification = importlib.util.spec_from_file_location("study_report", STUDY / "report.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(report: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked records."""
    return Path(report.unpack(tmp_path_factory.mktemp("records")))


@pytest.fixture(scope="module")
def records(folder: Path) -> list[Record]:
    return list(read_records([folder]))


def test_records_are_whole_and_hold_no_path_of_a_machine(folder: Path, records: list[Record]) -> None:
    files = Counter(path.name for path in folder.rglob("*") if path.is_file())
    assert files == {"record.json": len(records), "predictions.jsonl": len(records)}
    assert len(records) >= 140
    for record in records:
        names = (record.upstream.name, record.upstream.checkpoint or "", record.corpus.name)
        assert not [each for each in names if each.removeprefix("random:").partition(":")[2].startswith("/")]
        assert not [each for each in names if each.startswith("/")]
    assert (STUDY / "records.tar.xz").stat().st_size < 3_000_000


def test_numbers_follow_from_the_predictions(folder: Path) -> None:
    """One record a task; the slow test below verifies all of them."""
    by_task = {path.parents[2].name: path for path in sorted(folder.rglob("record.json"))}
    assert {"phone", "verification", "keyword", "abx", "units", "speaker"} <= by_task.keys()
    finished = repbench("verify", *by_task.values())
    assert finished.code == 0, finished.err


def test_every_number_of_a_record_is_in_the_tables(report: ModuleType, records: list[Record]) -> None:
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    for record in records:
        metric = record.metrics[record.primary_metric]
        shown = report.number(metric.value, metric.ci95)
        name = report.system(record.upstream.name, untrained=(record.upstream.checkpoint or "").startswith("random"))
        rows = [line for line in lines if line.startswith(f"| {name} | {record.layer} |")]
        assert [line for line in rows if f" {shown} |" in line], (name, record.layer, shown)


def test_differences_stand_beside_the_score_that_they_are_of(report: ModuleType) -> None:
    facts = {"head": "linear"}
    column = {"task": "phone", "corpus": "c", "metric": "accuracy", "higher_is_better": True}
    row = {"upstream": "mel", "untrained": False, "fingerprint": "f" * 64, "cost": {"macs_per_second": 0}}
    results = {
        "rows": [{**row, "key": "r1", "layer": "0"}, {**row, "key": "r2", "layer": "1"}],
        "columns": [
            {**column, "key": "c1", "facts": {**facts, "condition": "clean"}},
            {**column, "key": "c2", "facts": {**facts, "condition": "noise:pink:10"}},
        ],
        "cells": [
            {"key": "r1c1", "row": "r1", "column": "c1", "value": 0.5, "ci95": [0.4, 0.6]},
            {"key": "r2c1", "row": "r2", "column": "c1", "value": 0.7, "ci95": None},
            {"key": "r2c2", "row": "r2", "column": "c2", "value": 0.6, "ci95": None},
        ],
        "robustness": [
            {
                "rows": [
                    {"clean": "r1c1", "conditions": {"noise:pink:10": {"drop": None}}},
                    {"clean": "r2c1", "conditions": {"noise:pink:10": {"drop": {"value": 0.1, "ci95": [0.05, 0.15]}}}},
                ]
            }
        ],
        "controls": [
            {
                "cells": [
                    {"cell": "r1c1", "gained_by_training": {"value": 0.2, "ci95": [0.1, 0.3]}},
                    {"cell": "r2c1", "gained_by_training": None},
                ]
            }
        ],
    }
    assert report.tables(results).endswith(
        "| model | layer | clean | noise:pink:10 | better than its twin by | worse under noise:pink:10 by |\n"
        "|---|---|--:|--:|--:|--:|\n"
        "| mel | 0 | 0.500 [0.400, 0.600] |  | 0.200 [0.100, 0.300] |  |\n"
        "| mel | 1 | 0.700 | 0.600 |  | 0.100 [0.050, 0.150] |"
    )


def test_plans_name_models_and_corpora_that_run_py_makes() -> None:
    made = (STUDY / "run.py").read_text(encoding="utf-8")
    plans = {path: yaml.safe_load(path.read_text(encoding="utf-8")) for path in (STUDY / "plans").glob("*.yaml")}
    for path, plan in plans.items():
        assert load_plan(path).downstreams == tuple(plan["downstreams"])
        assert f'"{path.stem}"' in made
        assert all(f'("{corpus.removeprefix("corpora/")}", ' in made for corpus in plan["corpora"])


@pytest.mark.slow
def test_the_tables_are_those_that_the_report_of_the_records_gives(report: ModuleType, tmp_path: Path) -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    assert report.replaced(document, report.tables(report.report(tmp_path))) == document
