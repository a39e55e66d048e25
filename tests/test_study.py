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
    assert len(records) >= 80
    for record in records:
        names = (record.upstream.name, record.upstream.checkpoint or "", record.corpus.name)
        assert not [each for each in names if each.removeprefix("random:").partition(":")[2].startswith("/")]
        assert not [each for each in names if each.startswith("/")]
    assert (STUDY / "records.tar.xz").stat().st_size < 3_000_000


def test_numbers_follow_from_the_predictions(folder: Path) -> None:
    """One record a task; the slow test below verifies all of them."""
    by_task = {path.parents[2].name: path for path in sorted(folder.rglob("record.json"))}
    assert {"phone", "verification"} <= by_task.keys()
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


def test_plans_name_models_and_corpora_that_run_py_makes() -> None:
    made = (STUDY / "run.py").read_text(encoding="utf-8")
    plans = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in (STUDY / "plans").glob("*.yaml")}
    for name, plan in plans.items():
        assert f'"{name}"' in made
        assert all(f'("{corpus.removeprefix("corpora/")}", ' in made for corpus in plan["corpora"])


@pytest.mark.slow
def test_the_tables_are_those_that_the_report_of_the_records_gives(report: ModuleType, tmp_path: Path) -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    assert report.replaced(document, report.tables(report.report(tmp_path))) == document
