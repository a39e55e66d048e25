"""Short names of upstreams: what a table shows of a path or a module, and what tells two apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from repbench.benchmark.records.record import read_record
from repbench.benchmark.records.table import results_table
from repbench.benchmark.report import ReportRequest, write_report
from repbench.registry import short_name
from tests.benchmark.report_records import write

PATH = "hf:/data/somebody/models/of-a-long-experiment/my-hubert"


@pytest.mark.parametrize(
    ("whole", "short"),
    [
        ("mel", "mel"),
        ("some-dist:model", "some-dist:model"),
        (PATH, "hf:my-hubert"),
        ("hf:./my-hubert/", "hf:my-hubert"),
        ("hf:~/my-hubert", "hf:my-hubert"),
        ("hf:facebook/hubert-base-ls960", "hf:facebook/hubert-base-ls960"),
        ("hf:/c/hub/models--facebook--hubert-base-ls960/snapshots/dba3bb02", "hf:facebook/hubert-base-ls960"),
        ("py:my_models.encoders:MyEncoder", "py:MyEncoder"),
        ("features:../out/mfa/", "features:mfa"),
        ("units:runs/corpus/units/hubert/0a1b?form=centroids", "units:0a1b?form=centroids"),
        ("units:runs/corpus/units/hubert/0a1b/record.json", "units:0a1b"),
        ("torchaudio:HUBERT_BASE", "torchaudio:HUBERT_BASE"),
        ("hf:/", "hf:/"),
    ],
)
def test_the_short_name_is_the_folder_or_the_class(whole: str, short: str) -> None:
    assert short_name(whole) == short


def test_a_report_shows_short_names_and_keeps_the_whole(tmp_path: Path) -> None:
    write(tmp_path / "runs", upstream=PATH, checkpoint=PATH[3:])
    write(tmp_path / "runs", upstream="py:my_models.encoders:MyEncoder", weights="b" * 64, skill=0.7)
    write_report(ReportRequest(runs=(tmp_path / "runs",), out=tmp_path / "out", formats=("md", "json", "html")))
    table = [line for line in (tmp_path / "out" / "report.md").read_text("utf-8").splitlines() if line.startswith("| ")]
    assert any(line.startswith("| hf:my-hubert |") for line in table), table
    assert any(line.startswith("| py:MyEncoder |") for line in table), table
    assert not [line for line in table if "of-a-long-experiment" in line.partition("|")[2].partition("|")[0]]
    rows = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))["rows"]
    assert {row["system"]: row["upstream"] for row in rows} == {
        "hf:my-hubert": PATH,
        "py:MyEncoder": "py:my_models.encoders:MyEncoder",
    }


def test_models_whose_short_names_agree_are_told_apart_by_the_fingerprint(tmp_path: Path) -> None:
    other = "hf:/elsewhere/of/mine/my-hubert"
    paths = [
        write(tmp_path / "runs", upstream=PATH, checkpoint=PATH[3:], weights="a" * 64),
        write(tmp_path / "runs", upstream=other, checkpoint=other[3:], weights="b" * 64, skill=0.7),
        write(tmp_path / "runs", upstream=other, checkpoint="random", weights="c" * 64, skill=0.4),
    ]
    write_report(ReportRequest(runs=(tmp_path / "runs",), out=tmp_path / "out", formats=("json",)))
    rows = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))["rows"]
    assert {row["system"] for row in rows} == {
        "hf:my-hubert (aaaaaaaa)",
        "hf:my-hubert (bbbbbbbb)",
        "hf:my-hubert (untrained)",
    }
    console = Console(width=200, record=True)
    console.print(results_table([read_record(path) for path in paths]))
    printed = console.export_text()
    assert "hf:my-hubert (aaaaaaaa)" in printed
    assert "hf:my-hubert (bbbbbbbb)" in printed
    assert "elsewhere" not in printed


def test_two_checkpoints_of_one_model_are_told_apart_by_the_checkpoint(tmp_path: Path) -> None:
    for number, step in enumerate(("step100", "step900")):
        write(tmp_path / "runs", upstream=PATH, checkpoint=f"a/b/{step}.safetensors", weights=f"{number}" * 64)
    write_report(ReportRequest(runs=(tmp_path / "runs",), out=tmp_path / "out", formats=("json",)))
    rows = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))["rows"]
    assert {row["system"] for row in rows} == {
        f"hf:my-hubert (a/b/{each}.safetensors)" for each in ("step100", "step900")
    }


def test_models_that_load_their_weights_themselves_are_not_asked_for_an_untrained_row(tmp_path: Path) -> None:
    cost = {"parameters": 1, "macs_per_second": 1, "extract_seconds": 0.1, "real_time_factor": 500.0,
            "peak_rss_bytes": 1000, "device": "cpu", "train_seconds": 1.0}  # fmt: skip
    for upstream in ("hear:package.model", "py:my_models:MyEncoder"):
        write(tmp_path / "runs", upstream=upstream, cost=cost)
    write_report(ReportRequest(runs=(tmp_path / "runs",), out=tmp_path / "out", formats=("md",)))
    (line,) = [
        each
        for each in (tmp_path / "out" / "report.md").read_text("utf-8").splitlines()
        if "no untrained row" in each and each.startswith("*")
    ]
    assert "py:MyEncoder" in line
    assert "hear:" not in line
