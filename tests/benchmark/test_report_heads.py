"""The report states where the order of models depends on the head, and whether intervals separate it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from repbench.benchmark.report import Report, ReportRequest, assemble, write_report
from repbench.benchmark.report.data.evidence import Evidence
from repbench.benchmark.report.data.heads import margin_of
from tests.benchmark.report_records import write

Skills = dict[str, dict[str, float]]


def report_of(root: Path, skills: Skills, **others: object) -> Report:
    """Records of each head and upstream with a skill, of three seeds."""
    for head, of_head in skills.items():
        for upstream, skill in of_head.items():
            for seed in range(3):
                write(root, upstream=upstream, skill=skill, head=head, seed=seed, **others)  # type: ignore[arg-type]
    return assemble([root])


def test_a_reversal_that_both_intervals_separate_is_said_to_be_separated(tmp_path: Path) -> None:
    report = report_of(tmp_path, {"linear": {"mel": 0.9, "apc": 0.5}, "mlp1": {"mel": 0.5, "apc": 0.9}})
    (found,) = report.heads
    (pair,) = found.reversals
    assert (found.num_models, found.num_pairs, pair.is_separated) == (2, 1, True)
    assert (pair.first.system.name, pair.second.system.name) == ("mel", "apc")
    assert found.sentence == (
        "the order of models depends on the head: with linear mel > apc, with mlp1 apc > mel; "
        "1 of 1 pairs of models is reversed, 1 of them separated"
    )
    linear, mlp = pair.margins
    value = {(cell.column.facts["head"], cell.row.system.name): cell.value for cell in report.gathered.cells.values()}
    for margin, head in ((linear, "linear"), (mlp, "mlp1")):
        mel, apc = value[head, "mel"], value[head, "apc"]
        assert mel is not None
        assert apc is not None
        assert margin.value == pytest.approx(mel - apc)
        assert margin.interval is not None
        assert margin.interval.low < margin.value < margin.interval.high


def test_a_reversal_within_the_intervals_is_not_separated(tmp_path: Path) -> None:
    report = report_of(tmp_path, {"linear": {"mel": 0.9, "apc": 0.5}, "mlp1": {"mel": 0.700, "apc": 0.701}})
    for skill in (0.701, 0.702, 0.703, 0.705, 0.71):  # until chance draws apc above mel
        if report.heads[0].reversals:
            break
        report = report_of(
            tmp_path / str(skill), {"linear": {"mel": 0.9, "apc": 0.5}, "mlp1": {"mel": 0.700, "apc": skill}}
        )
    (found,) = report.heads
    (pair,) = found.reversals
    assert not pair.is_separated
    assert "with mlp1 (not separated) apc > mel" in found.sentence
    assert "0 of them separated" in found.sentence


def test_one_order_with_each_head_is_a_note_and_no_table(tmp_path: Path) -> None:
    report = report_of(tmp_path, {"linear": {"mel": 0.9, "apc": 0.5}, "mlp1": {"mel": 0.95, "apc": 0.6}})
    (found,) = report.heads
    assert not found.reversals
    note = "phone · synthetic:noisy:tiny: the order of 2 models is the same with each head (linear, mlp1)"
    assert note in report.notes


def test_one_speaker_leaves_a_reversal_untested(tmp_path: Path) -> None:
    skills = {"linear": {"mel": 0.9, "apc": 0.5}, "mlp1": {"mel": 0.5, "apc": 0.9}}
    (found,) = report_of(tmp_path, skills, speakers=1).heads
    assert "with linear (not tested) mel > apc" in found.sentence


def test_other_settings_and_one_model_and_other_layers_of_a_model_are_not_compared(tmp_path: Path) -> None:
    other = {"probe": {"steps": 200}}
    for upstream, skill in (("mel", 0.9), ("apc", 0.5)):
        write(tmp_path, upstream=upstream, skill=skill, head="linear")
        write(tmp_path, upstream=upstream, skill=1.4 - skill, head="mlp1", protocol=other)
    assert not assemble([tmp_path]).heads, "another number of steps"
    for layer, skill in (("0", 0.9), ("1", 0.5)):
        write(tmp_path / "one", upstream="mel", skill=skill, head="linear", layer=layer)
        write(tmp_path / "one", upstream="mel", skill=1.4 - skill, head="mlp1", layer=layer)
    assert not assemble([tmp_path / "one"]).heads, "layers of one model"


def test_sizes_that_one_head_alone_reads_do_not_part_it_from_the_others(tmp_path: Path) -> None:
    for upstream, skill in (("mel", 0.9), ("apc", 0.5)):
        write(tmp_path, upstream=upstream, skill=skill, head="linear")
        for units in (64, 128):
            protocol = {"probe": {"steps": 100, "hidden_units": units}}
            write(tmp_path, upstream=upstream, skill=1.4 - skill, head="mlp1", protocol=protocol)
    (found,) = assemble([tmp_path]).heads
    assert sorted(found.heads.values()) == [
        "linear",
        "mlp1 (probe.hidden_units = 128, probe.dropout = 0)",
        "mlp1 (probe.hidden_units = 64, probe.dropout = 0)",
    ]


def test_where_lower_is_better_the_margin_is_turned(tmp_path: Path) -> None:
    report = report_of(tmp_path, {"linear": {"mel": 0.9, "apc": 0.5}})
    evidence = Evidence()
    mel, apc = (
        replace(cell, runs=tuple(evidence.checked(run) for run in cell.runs))
        for name in ("mel", "apc")
        for cell in report.gathered.cells.values()
        if cell.row.system.name == name
    )
    plain = margin_of(evidence, mel, apc)
    errors = replace(mel.column, higher_is_better=False)
    turned = margin_of(evidence, replace(mel, column=errors), replace(apc, column=errors))
    assert turned.value == -plain.value < 0
    assert plain.interval is not None
    assert turned.interval is not None
    assert (turned.interval.low, turned.interval.high) == (-plain.interval.high, -plain.interval.low)


def test_page_markdown_and_json_have_it(tmp_path: Path) -> None:
    report_of(tmp_path / "runs", {"linear": {"mel": 0.9, "apc": 0.5}, "mlp1": {"mel": 0.5, "apc": 0.9}})
    files = write_report(ReportRequest(runs=(tmp_path / "runs",), out=tmp_path / "report")).files
    text = {path.suffix: path.read_text(encoding="utf-8") for path in files if path.suffix in {".md", ".html", ".json"}}
    assert "the order of models depends on the head: with linear mel" in text[".md"]
    assert "Order of models by head: phone" in text[".md"]
    assert '<h2 id="heads">' in text[".html"]
    assert "with linear mel &gt; apc, with mlp1 apc &gt; mel" in text[".html"]
    (found,) = json.loads(text[".json"])["heads"]
    assert (found["models"], found["pairs"], found["reversals"][0]["separated"]) == (2, 1, True)
    assert [margin["value"] > 0 for margin in found["reversals"][0]["margins"]] == [True, False]
