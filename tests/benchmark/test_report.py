"""A report from records alone: what shares a column, what is told apart, and the same numbers in every form."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from repbench.benchmark.records.record import read_predictions, read_record, sealed_record
from repbench.benchmark.records.verify import verify_record
from repbench.benchmark.report import Report, ReportRequest, assemble, write_report
from repbench.benchmark.report.data import checking
from repbench.benchmark.report.data.columns import columns_of
from repbench.benchmark.report.data.gather import ReportRow
from repbench.benchmark.report.render import tables
from repbench.benchmark.report.render.commands import as_yaml, command_of, commands_of
from repbench.benchmark.report.render.cost_columns import COST_COLUMNS, CostColumn
from repbench.benchmark.report.render.escaping import spreadsheet
from repbench.benchmark.report.render.tables import TableColumn, table
from repbench.benchmark.scoring.statistics import mcnemar_exact
from repbench.configs.loader import apply_overrides
from repbench.downstream.contract import UtterancePrediction
from repbench.errors import DataError, IntegrityError, UsageError
from repbench.files import write_json
from tests.benchmark.report_records import PHONES, small_grid, write
from tests.commands import repbench


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The records of a small grid."""
    root = tmp_path_factory.mktemp("runs")
    small_grid(root)
    return root


@pytest.fixture(scope="module")
def report(runs: Path) -> Report:
    """What is worked out of them."""
    return assemble([runs])


@pytest.fixture(scope="module")
def written(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on them, in every form."""
    out = tmp_path_factory.mktemp("report")
    write_report(ReportRequest(runs=(runs,), out=out, published=("mockingjay2020", "superb")))
    return out


def test_seeds_of_one_setting_are_one_row_with_one_interval(report: Report) -> None:
    cells = {(cell.row.title, cell.row.fraction, cell.column.task): cell for cell in report.gathered.cells.values()}
    cell = cells["mel, layer last", 1.0, "phone"]
    values = [run.record.primary.value or 0.0 for run in cell.runs]
    assert cell.seeds == (0, 1)
    assert cell.value == pytest.approx(sum(values) / 2)
    assert cell.interval is not None
    assert cell.interval.low < min(values)
    assert cell.interval.high > max(values)
    assert cells["apc (untrained), layer last", 1.0, "phone"].row.system.untrained


def test_the_best_is_told_from_what_is_clearly_worse_and_not_from_its_like(report: Report) -> None:
    marks = {
        cell.row.title: report.mark(cell)
        for cell in report.gathered.cells.values()
        if cell.column.task == "phone" and cell.row.fraction == 1.0
    }
    assert marks["good, layer last"] == "best"
    assert marks["mel, layer last"] == ""
    assert marks["apc (untrained), layer last"] == ""
    few = {
        cell.row.title: report.mark(cell)
        for cell in report.gathered.cells.values()
        if cell.column.task == "phone" and cell.row.fraction == 0.1
    }
    assert few["good, layer last"] == "best"


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({"fingerprint": "b" * 64}, "corpus = bbbb"),
        ({"policy": "seeded by speaker (seed 1)"}, "split = seeded by speaker (seed 1)"),
        ({"protocol": {"probe": {"steps": 7}}}, "probe.steps = 7"),
        ({"head": "mlp2"}, "head = mlp2"),
    ],
)
def test_rows_of_another_corpus_protocol_or_split_never_share_a_column(
    tmp_path: Path, changes: dict[str, object], label: str
) -> None:
    write(tmp_path, upstream="mel")
    write(tmp_path, upstream="fbank", **changes)  # type: ignore[arg-type]
    report = assemble([tmp_path])
    assert len(report.gathered.columns) == 2
    assert any(label in difference for column in report.gathered.columns for difference in column.differs)
    assert len(report.gathered.cells) == 2
    assert not report.verdicts.best


def test_settings_that_cannot_change_a_number_do_not_part_columns(tmp_path: Path) -> None:
    write(tmp_path, protocol={"probe": {"steps": 5}, "extraction": {"batch_seconds": 1.0, "store_gib": 0.0}})
    write(tmp_path, upstream="fbank", protocol={"probe": {"steps": 5, "hidden_units": 3}})
    assert len(assemble([tmp_path]).gathered.columns) == 1


def test_fault_settings_that_a_mode_does_not_read_part_no_rows(tmp_path: Path) -> None:
    write(tmp_path, upstream="mel", protocol={"finetune": {"steps": 60}})
    write(tmp_path, upstream="fbank", protocol={"finetune": {"steps": 300}, "probe": {"learning_rates": [0.1, 0.2]}})
    report = assemble([tmp_path])
    assert len(report.gathered.columns) == 1
    assert report.verdicts.best
    write(tmp_path, upstream="good", mode="finetune", protocol={"probe": {"steps": 7}, "finetune": {"steps": 60}})
    write(tmp_path, upstream="other", mode="finetune", protocol={"probe": {"steps": 9}, "finetune": {"steps": 60}})
    assert len(assemble([tmp_path]).gathered.columns) == 1


def test_settings_that_a_mode_reads_part_its_rows_and_those_alone(tmp_path: Path) -> None:
    for steps in (100, 200):
        write(tmp_path, upstream="mel", protocol={"probe": {"steps": steps}, "finetune": {"steps": 60}})
    write(tmp_path, upstream="good", mode="finetune", protocol={"probe": {"steps": 200}, "finetune": {"steps": 60}})
    write(tmp_path, upstream="good", mode="finetune", protocol={"probe": {"steps": 5}, "finetune": {"steps": 30}})
    gathered = assemble([tmp_path]).gathered
    held = {
        column.differs: {(cell.row.mode, cell.row.system.upstream) for cell in gathered.column_cells(column)}
        for column in gathered.columns
    }
    assert held == {
        ("probe.steps = 100", "finetune.steps = –"): {("frozen", "mel")},
        ("probe.steps = 200", "finetune.steps = 60"): {("frozen", "mel"), ("finetune", "good")},
        ("probe.steps = –", "finetune.steps = 30"): {("finetune", "good")},
    }


def test_frozen_and_fine_tuned_and_shares_of_labels_are_not_ranked_together(tmp_path: Path) -> None:
    write(tmp_path, upstream="mel")
    write(tmp_path, upstream="good", mode="finetune", skill=0.95)
    write(tmp_path, upstream="fbank", fraction=0.1)
    report = assemble([tmp_path])
    assert len(report.gathered.groups) == 3
    assert not report.verdicts.best


def test_a_number_that_is_not_above_chance_or_majority_is_said_to_be_so(tmp_path: Path) -> None:
    write(tmp_path / "a", skill=0.1)
    (verdict,) = assemble([tmp_path / "a"]).verdict_lines()
    assert re.match(r"not above chance \(0\.250\); worse than majority \(0\.300\); no other row", verdict.comparison)
    assert verdict.is_weak
    write(tmp_path / "b", task="sentiment", skill=1.0, baselines={"chance": 0.5, "majority": 1.0})
    write_report(ReportRequest(runs=(tmp_path / "b",), out=tmp_path / "out", formats=("html",)))
    assert "= majority (1.000); no other row" in (page := (tmp_path / "out" / "index.html").read_text("utf-8"))
    assert '<span class="num weak">1.000</span>' in page
    write(tmp_path / "c", skill=0.9)
    (verdict,) = assemble([tmp_path / "c"]).verdict_lines()
    assert (verdict.is_weak, verdict.comparison) == (False, "no other row to compare with")


def test_a_column_in_which_majority_is_perfect_is_in_no_aggregate(tmp_path: Path) -> None:
    for upstream, skill in (("mel", 0.5), ("good", 0.8)):
        for task, majority in (("phone", 0.3), ("sentiment", 0.5), ("speaker", 1.0)):
            write(tmp_path, upstream=upstream, skill=skill, task=task, baselines={"chance": 0.25, "majority": majority})
    report = assemble([tmp_path])
    ((group, together),) = report.overall.items()
    assert [column.task for column in together.columns] == ["phone", "sentiment"]
    (overall,) = tables.overall(together, group)
    assert any(note.startswith("Left out, because always predicting the most frequent") for note in overall.notes)


def test_rows_with_other_columns_are_in_another_table_of_aggregates(tmp_path: Path) -> None:
    for upstream, skill, tasks in (("a", 0.3, ("phone", "sentiment")), ("b", 0.9, ("phone",)), ("c", 0.4, ("phone",))):
        for task in tasks:
            write(tmp_path, upstream=upstream, skill=skill, task=task)
    report = assemble([tmp_path])
    ((group, together),) = report.overall.items()
    found = list(tables.overall(together, group))
    assert [each.title for each in found] == [
        f"All tasks together, columns {letter}: frozen, all labels" for letter in "AB"
    ]
    assert [[row[0].text for row in each.rows] for each in found] == [["a"], ["b", "c"]]
    assert "Only rows of one table" in found[-1].notes[-1]


def test_an_option_that_a_record_does_not_have_is_the_default(tmp_path: Path) -> None:
    write(tmp_path, protocol={"task": {}})
    write(tmp_path, protocol={"task": {"few": 3}})
    columns = assemble([tmp_path]).gathered.columns
    assert {column.differs for column in columns} == {("task.few = 3",), ("task.few = default",)}


def test_a_missing_cell_is_empty_and_never_zero(report: Report, written: Path) -> None:
    (group,) = report.overall
    several = {each.row.title: each for each in report.overall[group].rows}
    assert (several["mel, layer last"].mean.scored, several["apc (untrained), layer last"].mean.scored) == (2, 1)
    assert several["apc (untrained), layer last"].mean.value != 0
    lines = (written / "report.md").read_text("utf-8").splitlines()
    row = next(line for line in lines if line.startswith("| apc (untrained)".replace("(", "\\(").replace(")", "\\)")))
    assert "|  |" in row
    assert not re.search(r"\| 0\.000 ", row)


def test_no_aggregate_stands_alone_and_none_over_one_task(tmp_path: Path, written: Path) -> None:
    text = (written / "report.md").read_text("utf-8")
    assert "| system | layer | mean | Borda | covered |" in text
    write(tmp_path)
    write(tmp_path, upstream="fbank")
    assert not assemble([tmp_path]).overall


def test_pandas_reads_the_numbers_that_json_has(written: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    results = json.loads((written / "results.json").read_text("utf-8"))
    rows = {row["key"]: row for row in results["rows"]}
    smallest = {(e["mode"], e["label_fraction"], e["column"]): e["value"] for e in results["smallest_differences"]}
    frame = pandas.read_csv(written / "results.csv").set_index("cell")
    assert frame.loc[frame.index.notna()].index.tolist() == [cell["key"] for cell in results["cells"]]
    for cell in results["cells"]:
        line, row = frame.loc[cell["key"]], rows[cell["row"]]
        assert (line["value"], line["ci95_low"], line["ci95_high"]) == (cell["value"], *cell["ci95"])
        assert (line["system"], line["label_fraction"]) == (row["system"], row["label_fraction"])
        assert line["real_time_factor"] == row["cost"]["real_time_factors"][0]["value"] == 500.0
        assert line["measured_on"] == row["cost"]["real_time_factors"][0]["measured_on"] == "cpu, c, 2 threads"
        key = (row["mode"], row["label_fraction"], cell["column"])
        assert line["smallest_difference"] == smallest[key]


def test_tables_of_markdown_and_latex_have_each_number_at_its_row_and_column(written: Path) -> None:
    results = json.loads((written / "results.json").read_text("utf-8"))
    rows = {row["key"]: row for row in results["rows"]}
    columns = {column["key"]: f"{column['task']} · {column['corpus']}" for column in results["columns"]}
    expected = {
        (row["label_fraction"], row["system"], row["layer"], columns[cell["column"]]): (
            f"{cell['value']:.3f}", *(f"{end:.3f}" for end in cell["ci95"]), cell["best"], cell["tied_with_best"]
        )
        for cell in results["cells"]
        for row in [rows[cell["row"]]]
    }  # fmt: skip
    assert _markdown_cells((written / "report.md").read_text("utf-8")) == expected
    assert _latex_cells((written / "report.tex").read_text("utf-8")) == expected


Numbers = dict[tuple[float, str, str, str], tuple[str, str, str, bool, bool]]


def _cells_of(fraction: float, headings: list[str], rows: list[list[str]]) -> Numbers:
    """Numbers in plain text, `**` around the best and `≈` behind one that is tied with it."""
    found: Numbers = {}
    for row in rows:
        for heading, text in zip(headings, row, strict=True):
            number = re.fullmatch(r"(\*\*)?(\d\.\d{3})(?: \(1 seed\))?(?:\*\*)?( ≈)? \[(-?[\d.]+)–(-?[\d.]+)\]", text)
            if number is not None:
                where = (fraction, row[0], row[1], heading.partition(":  ")[0].rpartition(": ")[0])
                found[where] = (number[2], number[4], number[5], number[1] is not None, number[3] is not None)
    return found


def _fraction(title: str) -> float:
    share = re.search(r"(\d+) % of the labels", title)
    return 1.0 if share is None else int(share[1]) / 100


def _markdown_cells(text: str) -> Numbers:
    found: Numbers = {}
    for section in text.split("\n## ")[1:]:
        if section.startswith("Scores"):
            plain = re.sub(r"\\(.)", r"\1", section)
            lines = [line[2:-2].split(" | ") for line in plain.splitlines() if line.startswith("|")]
            found |= _cells_of(_fraction(plain.splitlines()[0]), lines[0], lines[2:])
    return found


_OF_LATEX = {
    r"\textperiodcentered{}": "·", r"\_": "_", r"\%": "%", r"$\uparrow$": "↑", "--": "–", r"\tied": " ≈",
}  # fmt: skip


def _latex_cells(text: str) -> Numbers:
    found: Numbers = {}
    for section in text.split(r"\subsection*{")[1:]:
        if section.startswith("Scores"):
            plain = re.sub(r"\\interval\{([^}]*)\}", r" [\1]", re.sub(r"\\textbf\{([^}]*)\}", r"**\1**", section))
            for latex, character in _OF_LATEX.items():
                plain = plain.replace(latex, character)
            lines = [line.removesuffix(r" \\").split(" & ") for line in plain.splitlines() if " & " in line]
            found |= _cells_of(_fraction(plain.splitlines()[0]), lines[0], lines[1:])
    return found


def test_every_column_of_costs_stands_in_every_table(written: Path) -> None:
    tables = {name: (written / name).read_text("utf-8") for name in ("report.md", "report.tex", "index.html")}
    header = (written / "results.csv").read_text("utf-8").splitlines()[0].split(",")
    for column in COST_COLUMNS:
        assert column.name in header
        assert all(column.heading in text for text in tables.values())


def test_a_new_column_of_costs_is_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    width = CostColumn(
        name="layers", heading="depth", text=lambda report, row: "three", of_row=lambda cost: 3,
        of_cell=lambda cost, cell, machine: 3, legend="the number of layers", in_json="depth", of_json=lambda cost: 3,
    )  # fmt: skip
    for module in ("tables", "json", "html"):
        monkeypatch.setattr(f"repbench.benchmark.report.render.{module}.COST_COLUMNS", (*COST_COLUMNS, width))
    write(tmp_path / "runs")
    write_report(ReportRequest(runs=(tmp_path / "runs",), out=tmp_path / "out"))
    text = {path.name: path.read_text("utf-8") for path in (tmp_path / "out").iterdir()}
    assert all("depth" in text[name] and "three" in text[name] for name in ("report.md", "report.tex", "index.html"))
    assert "“depth”: the number of layers." in text["index.html"]
    assert '<td class="keep" data-value="3">three</td>' in text["index.html"]
    assert json.loads(text["results.json"])["rows"][0]["cost"]["depth"] == 3


def test_a_new_column_of_scores_pads_the_rows_of_chance_and_majority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    report = assemble([tmp_path])
    one_more = TableColumn[ReportRow]("task version", lambda row: "1")
    monkeypatch.setattr(tables, "table", lambda title, columns, *rest: table(title, [*columns, one_more], *rest))
    (group,) = report.gathered.groups
    assert {len(row) for row in tables.scores(report, group).rows} == {len(tables.scores(report, group).headings)}


def test_best_is_bold_and_ties_are_marked_in_markdown_and_latex(written: Path) -> None:
    results = json.loads((written / "results.json").read_text("utf-8"))
    best = {f"{cell['value']:.3f}" for cell in results["cells"] if cell["best"]}
    assert best
    for value in best:
        assert f"**{value}**" in (written / "report.md").read_text("utf-8")
        assert rf"\textbf{{{value}}}" in (written / "report.tex").read_text("utf-8")


def test_published_rows_are_set_apart_with_source_and_date(written: Path) -> None:
    results = json.loads((written / "results.json").read_text("utf-8"))
    assert {table["date"] for table in results["published"]} == {"2019-10", "2021-10"}
    assert not any("HuBERT" in row["system"] for row in results["rows"])
    text = (written / "report.md").read_text("utf-8")
    assert text.index("## Published elsewhere") < text.index("HuBERT Large")
    assert "arXiv 1910.12638" in text
    assert "HuBERT" not in (written / "results.csv").read_text("utf-8")
    assert "arXiv 2110.13900" in (written / "published.csv").read_text("utf-8")


def test_nothing_is_published_unasked(runs: Path, tmp_path: Path) -> None:
    write_report(ReportRequest(runs=(runs,), out=tmp_path, formats=("md", "csv")))
    assert "HuBERT" not in (tmp_path / "report.md").read_text("utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.md", "results.csv"]


@pytest.mark.slow
def test_published_numbers_of_an_earlier_report_do_not_stay(runs: Path, tmp_path: Path) -> None:
    write_report(ReportRequest(runs=(runs,), out=tmp_path, formats=("csv",), published=("superb",)))
    assert (tmp_path / "published.csv").is_file()
    finished = repbench("report", runs, "--out", tmp_path, "--format", "csv")
    assert "published.csv of an earlier report was removed" in finished.err
    assert not (tmp_path / "published.csv").exists()
    (tmp_path / "published.csv").write_text("my own\n", encoding="utf-8")
    write_report(ReportRequest(runs=(runs,), out=tmp_path, formats=("csv",)))
    assert (tmp_path / "published.csv").read_text("utf-8") == "my own\n"


def test_labels_to_reach_mel_and_areas(report: Report) -> None:
    (efficiency, *_) = [each for each in report.efficiencies if each.column.task == "phone"]
    curves = {curve.name: curve for curve in efficiency.curves}
    assert efficiency.target == curves["mel"].values[-1]
    assert curves["good"].to_reach == 20.0
    assert curves["mel"].to_reach == pytest.approx(200.0)
    assert efficiency.curves[0].name == "good"
    assert efficiency.same_range


def test_layers_and_learning_rates_and_confusions_come_from_the_records(report: Report) -> None:
    (profiles,) = report.profiles
    assert [(profile.name, list(profile.cells)) for profile in profiles.profiles] == [("good", [0, 1, 2])]
    tried = {each.column.task: each.tried for each in report.sensitivities}
    assert list(tried["phone"][0].dev_values) == [0.001, 0.01, 0.1]
    assert tried["phone"][0].chosen == {0.001}
    (confusion,) = [each for each in report.confusions if each.cell.column.task == "phone"]
    assert confusion.items == "instants"
    assert {each.items for each in report.confusions if each is not confusion} == {"utterances"}
    assert confusion.cell.row.system.name == "good"
    assert confusion.classes == ("AA", "IY", "S", "sil")
    assert (confusion.pairs[0].reference, confusion.pairs[0].estimated) in {
        ("AA", "IY"), ("IY", "S"), ("S", "sil"), ("sil", "AA")
    }  # fmt: skip
    assert all(sum(row) == pytest.approx(1.0) for row in confusion.shares if row is not None)


def test_the_front_holds_what_nothing_cheaper_beats(report: Report) -> None:
    (front, *_) = [each for each in report.fronts if each.column.task == "phone"]
    names = [cell.row.title for _, cell in front.points if cell.key in front.front]
    assert names[0] == "mel, layer last"
    assert names[-1] == "good, layer last"


@pytest.mark.slow
def test_a_changed_record_is_left_out_and_said(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs, tmp_path / "runs")
    paths = sorted((tmp_path / "runs").rglob("record.json"))
    fields = json.loads(paths[0].read_text("utf-8"))
    fields["metrics"]["accuracy"]["value"] = 0.999
    write_json(paths[0], fields)
    forged = json.loads(paths[1].read_text("utf-8"))
    forged["metrics"]["accuracy"]["value"] = 0.998
    write_json(paths[1], sealed_record(forged).as_dict())
    paths[2].write_text("{}", encoding="utf-8")
    finished = repbench("report", tmp_path / "runs", "--out", tmp_path / "out", "--json")
    assert finished.code == 0
    failed = finished.json["failed"]
    assert "it was changed" in failed[str(paths[0])]
    assert "metrics.accuracy.value" in failed[str(paths[1])]
    assert "not a record" in failed[str(paths[2])]
    assert finished.json["records"] == len(paths) - 3
    assert finished.err.count("left out: ") == 3
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert "Records left out" in page
    assert "0.999" not in re.sub(r"<li class=\"bad\">.*?</li>", "", page)


def test_a_record_without_predictions_is_shown_and_said_to_be_unchecked(tmp_path: Path) -> None:
    path = write(tmp_path)
    (path.parent / "predictions.jsonl").unlink()
    report = assemble([tmp_path])
    (cell,) = report.gathered.cells.values()
    stated = cell.runs[0].record.primary.ci95
    assert cell.interval is not None
    assert (cell.interval.low, cell.interval.high) == stated
    assert any("could not be recomputed" in note and "predictions.jsonl" in note for note in report.notes)


def test_no_code_is_imported_because_a_record_names_it(tmp_path: Path) -> None:
    fields = json.loads(write(tmp_path / "a").read_text("utf-8"))
    canary = tmp_path / "canary"
    fields["downstream"] = {"name": "py:os:system", "version": "1", "classes": ["a", "b", "c", "d"]}
    fields["protocol"] = {"task": {"command": f"touch {canary}"}}
    path = tmp_path / "a" / "x" / "record.json"
    write_json(path, sealed_record(fields).as_dict())
    shutil.copy(next((tmp_path / "a").rglob("predictions.jsonl")), path.parent)
    assemble([tmp_path])
    assert not canary.exists()
    with pytest.raises(UsageError, match="nothing is imported because a record names it"):
        verify_record(path)


def test_only_broken_records_are_refused(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text("{}", encoding="utf-8")
    with pytest.raises(IntegrityError, match="No record passes verification"):
        assemble([tmp_path])
    with pytest.raises(DataError, match="There is no record here"):
        assemble([tmp_path / "nowhere"])


def test_exclusions_show_and_the_comparison_is_over_what_both_answered(tmp_path: Path) -> None:
    write(tmp_path / "runs", upstream="mel")
    write(tmp_path / "runs", upstream="good", skill=0.9, without=1)
    report = assemble([tmp_path / "runs"])
    assert len(report.gathered.columns) == 1
    assert len(report.verdicts.p_values) == 1
    write_report(ReportRequest(runs=(tmp_path / "runs",), out=tmp_path, formats=("md", "html")))
    assert "(without 1)" in (tmp_path / "report.md").read_text("utf-8").replace("\\", "")
    assert "without 1" in (tmp_path / "index.html").read_text("utf-8")
    assert "--allow-excluded 1" in (tmp_path / "report.md").read_text("utf-8")


def test_odd_grids_and_layers_stop_no_report(tmp_path: Path) -> None:
    grid = [{"learning_rate": rate, "step": 1, "dev_value": 0.5} for rate in (0.0, 0.1, 1.0)]
    selection = {"grid": grid, "chosen": {"learning_rate": 7.0}, "dev_value": None}
    write(tmp_path / "runs", selection=selection, layer="9" * 5000)
    write(tmp_path / "runs", upstream="apc", layer="9" * 4)
    written = write_report(ReportRequest(runs=(tmp_path / "runs",), out=tmp_path, published=("superb",)))
    (sensitivity,) = written.report.sensitivities
    assert list(sensitivity.tried[0].dev_values) == [0.1, 1.0]
    assert not written.report.profiles


def test_the_newest_record_of_a_seed_counts(tmp_path: Path) -> None:
    write(tmp_path, skill=0.3, created="2026-01-01T00:00:00+00:00")
    write(tmp_path, skill=0.9, created="2026-02-01T00:00:00+00:00")
    report = assemble([tmp_path])
    (cell,) = report.gathered.cells.values()
    assert cell.value is not None
    assert cell.value > 0.8
    assert any("the newest of each seed counts" in note for note in report.notes)


def test_the_command_makes_the_record_again(tmp_path: Path) -> None:
    path = write(
        tmp_path, upstream="apc", checkpoint="random:tiny", layer="1", fraction=0.1, seed=3,
        protocol={"probe": {"steps": 100, "learning_rate": 0.01}, "task": {"attribute": "mood of it"}},
    )  # fmt: skip
    assert command_of(read_record(path)) == (
        "repbench run --upstream apc --downstream phone --checkpoint random:tiny --corpus synthetic:noisy:tiny "
        "--layer 1 --label-fraction 0.1 --seed 3 --head linear --set probe.steps=100 --set probe.learning_rate=0.01 "
        "--set 'task.attribute='\"'\"'mood of it'\"'\"''"
    )


@pytest.mark.parametrize(
    "value",
    ["it's", "", "null", "a\nb", 'a "b" ü', None, True, 1e-5, [None, "x", "it's", [1.0, False]], [{"a b": None}], []],
)
def test_a_setting_of_a_command_is_read_back_as_it_was(value: object) -> None:
    assert apply_overrides({}, [f"task.x={as_yaml(value)}"]) == {"task": {"x": value}}


def test_the_command_names_the_files_of_plugins(tmp_path: Path) -> None:
    record = read_record(write(tmp_path, distribution="my task.py (unpackaged)"))
    assert "--plugin 'my task.py'" in command_of(record)


def test_seeds_of_one_setting_are_made_again_by_one_command(tmp_path: Path) -> None:
    records = [read_record(write(tmp_path, seed=seed)) for seed in (0, 2)]
    (command,) = commands_of(records)
    assert "--seed 0 --seed 2" in command
    assert len(commands_of([*records, read_record(write(tmp_path, layer="1"))])) == 2


def test_probes_trained_on_one_question_share_a_column_elsewhere(tmp_path: Path) -> None:
    for upstream in ("mel", "fbank"):
        source = read_record(write(tmp_path, upstream=upstream))
        policy = f"official test split, scored by the probe of {source.id}"
        write(tmp_path, upstream=upstream, corpus="other", fingerprint="c" * 64, policy=policy)
    records = [read_record(path) for path in sorted(tmp_path.rglob("record.json"))]
    assert len({column.key for column in columns_of(records).values()}) == 2


@pytest.mark.slow
def test_plot_layers_draws_what_was_asked_layer_by_layer(runs: Path, tmp_path: Path) -> None:
    finished = repbench("plot", "layers", runs, "--out", tmp_path / "plots", "--json")
    (file,) = finished.json["files"]
    drawing = Path(file).read_text("utf-8")
    assert "<text" in drawing
    assert "Layer by layer: phone" in drawing
    write(tmp_path / "alone")
    finished = repbench("plot", "layers", tmp_path / "alone", "--out", tmp_path / "plots")
    assert finished.code == 3
    assert "No system has numbers for two layers" in finished.err


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_the_latex_compiles(written: Path, tmp_path: Path) -> None:
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", f"-output-directory={tmp_path}", "report.tex"]
    finished = subprocess.run(command, cwd=written, capture_output=True, timeout=120)
    assert finished.returncode == 0, finished.stdout[-2000:]
    assert (tmp_path / "report.pdf").stat().st_size > 1000


def test_the_command_refuses_what_it_cannot_write(runs: Path, tmp_path: Path) -> None:
    for option, value in (("--format", "pdf"), ("--with-published", "glue")):
        finished = repbench("report", runs, "--out", tmp_path, option, value)
        assert finished.code == 2
        assert f"There is no `{value}`" in finished.err
    assert repbench("report", tmp_path / "nowhere", "--out", tmp_path).code == 3


def marks_of(report: Report) -> dict[str, str]:
    """What each row of the first column is."""
    return {
        cell.row.system.name: report.mark(cell) for cell in report.gathered.column_cells(report.gathered.columns[0])
    }


def forms(root: Path) -> dict[str, str]:
    """Every form of a report on `root / "runs"`."""
    written = write_report(ReportRequest(runs=(root / "runs",), out=root / "out"))
    return {path.name: path.read_text("utf-8") for path in written.files}


def test_what_cannot_be_checked_is_neither_best_nor_compared_and_says_so_everywhere(tmp_path: Path) -> None:
    for upstream, skill in (("best", 0.99), ("good", 0.9), ("mel", 0.3)):
        path = write(tmp_path / "runs", upstream=upstream, skill=skill)
        if upstream == "best":
            (path.parent / "predictions.jsonl").unlink()
    for upstream in ("best", "good", "mel"):
        write(tmp_path / "runs", upstream=upstream, task="sentiment", head="mlp1")
    report = assemble([tmp_path / "runs"])
    assert marks_of(report) == {"best": "", "good": "best", "mel": ""}
    assert [row.system.name for row in report.gathered.rows] == ["good", "mel", "best"]
    phone = next(each for each in report.verdict_lines() if each.cell.column.task == "phone")
    assert phone.cell.row.system.name == "good"
    assert "1 unchecked number left out" in phone.sentence
    (together,) = report.overall.values()
    assert {each.row.system.name: each.mean.scored for each in together.rows} == {"best": 1, "good": 2, "mel": 2}
    shown = forms(tmp_path)
    row = re.search(r"\| best \|.*", shown["report.md"])
    assert row is not None
    assert r"\(unchecked\)" in row[0]
    assert "**0.98" not in row[0]
    assert "(unchecked)" in shown["report.tex"]
    assert '<span class="bad"> unchecked</span>' in shown["index.html"]
    lines = {(line["system"], line["task"]): line for line in csv.DictReader(shown["results.csv"].splitlines())}
    assert "predictions.jsonl" in lines["best", "phone"]["unchecked"]
    assert lines["good", "phone"]["unchecked"] == ""
    unchecked = [cell for cell in json.loads(shown["results.json"])["cells"] if cell["unchecked"]]
    assert [cell["best"] or cell["tied_with_best"] for cell in unchecked] == [False]


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({"version": "2.0"}, "task version = 2.0"),
        ({"distribution": "other-tasks"}, "task origin = other-tasks"),
        ({"classes": ("AA", "IY", "S", "pause")}, "classes = 4 ("),
    ],
)
def test_another_release_package_or_set_of_classes_is_another_question(
    tmp_path: Path, changes: dict[str, Any], label: str
) -> None:
    write(tmp_path, upstream="mel")
    write(tmp_path, upstream="fbank", **changes)
    columns = assemble([tmp_path]).gathered.columns
    assert len(columns) == 2
    assert any(label in difference for column in columns for difference in column.differs)


def test_a_patch_release_of_the_built_in_tasks_asks_the_same(tmp_path: Path) -> None:
    write(tmp_path, upstream="mel", version="0.1.0")
    write(tmp_path, upstream="fbank", version="0.1.1")
    write(
        tmp_path, upstream="mfcc", version="0.1.1", downstream={"name": "phone", "version": "0.1.2", "classes": PHONES}
    )
    assert len(assemble([tmp_path]).gathered.columns) == 1


def test_a_release_that_left_the_built_in_tasks_as_they_were_shares_their_columns(tmp_path: Path) -> None:
    write(tmp_path, upstream="mel", version="0.1.0")
    write(tmp_path, upstream="fbank", version="0.2.0")
    assert len(assemble([tmp_path]).gathered.columns) == 1


def test_a_task_counts_once_however_it_was_tuned_and_shuffled_labels_never(tmp_path: Path) -> None:
    def ask(upstream: str, skill: float, **options: Any) -> None:
        write(tmp_path, upstream=upstream, skill=skill, **options)

    for upstream, skill in (("mel", 0.4), ("good", 0.9)):
        ask(upstream, skill)
        ask(upstream, skill, protocol={"probe": {"steps": 100, "tune": True}})
        ask(upstream, 0.3, protocol={"probe": {"steps": 100}, "labels": "shuffled"})
        ask(upstream, skill, task="sentiment", head="mlp1")
    report = assemble([tmp_path])
    (together,) = report.overall.values()
    assert [(column.task, column.tuned) for column in together.columns] == [("phone", True), ("sentiment", False)]
    assert {each.borda.tasks for each in together.rows} == {2}
    assert not any(column.shuffled for column in report.gathered.columns)
    assert {report.gathered.covered(row) for row in report.gathered.rows} == {3}
    assert len(report.verdicts.p_values) == 3
    ask("fbank", 0.5)
    (together,) = assemble([tmp_path]).overall.values()
    assert not any(column.tuned for column in together.columns)


def test_selectivity_and_what_training_gained_stand_in_every_form(tmp_path: Path) -> None:
    def ask(skill: float, **options: Any) -> float:
        return read_record(write(tmp_path / "runs", upstream="apc", skill=skill, **options)).primary.value or 0.0

    shuffled = {"probe": {"steps": 100}, "labels": "shuffled"}
    score = ask(0.9, checkpoint="runs/apc")
    control = ask(0.3, checkpoint="runs/apc", protocol=shuffled)
    untrained = ask(0.5, checkpoint="random:runs/apc")
    ask(0.6, checkpoint="random:runs/other")
    (controls,) = assemble([tmp_path / "runs"]).controls
    (controlled,) = controls.controlled
    assert controlled.selectivity is not None
    assert controlled.training is not None
    assert controlled.selectivity.value == pytest.approx(score - control)
    assert controlled.training.value == pytest.approx(score - untrained)
    assert controlled.selectivity.interval is not None
    shown = forms(tmp_path)
    for name in ("report.md", "report.tex", "index.html"):
        assert "Controls: phone" in shown[name], name
        assert f"{score - control:.3f}" in shown[name], name
        assert f"{score - untrained:.3f}" in shown[name], name
    (line,) = [each for each in csv.DictReader(shown["results.csv"].splitlines()) if each["selectivity"]]
    assert float(line["selectivity"]) == controlled.selectivity.value
    assert {each["kind"] for each in csv.DictReader(shown["results.csv"].splitlines())} >= {"shuffled labels"}
    ((cell,),) = (each["cells"] for each in json.loads(shown["results.json"])["controls"])
    assert cell["gained_by_training"]["value"] == controlled.training.value


def test_citation_and_licence_of_a_model_stand_in_every_form(tmp_path: Path) -> None:
    write(tmp_path / "runs", upstream="mel", skill=0.6)  # made before they were kept
    for seed, licence in enumerate(("CC-BY-NC-4.0", "MIT")):
        told: dict[str, Any] = {"citation": "Doe 2026, arXiv:2601.00001", "licence": licence}
        write(tmp_path / "runs", upstream="py:mine:encoder", skill=0.8, seed=seed, **told)
    shown = forms(tmp_path)
    for name, text in shown.items():
        plain = text.replace("\\", "").replace("{-}", "-")
        assert "arXiv:2601.00001" in plain, name
        assert "CC-BY-NC-4.0; MIT" in plain, name
    models = shown["report.md"].partition("## Models")[2].partition("## To cite")[0]
    assert "| mel | " not in models, "nothing is made up of what was not said"
    rows = json.loads(shown["results.json"])["rows"]
    assert {row["citation"] for row in rows} == {None, "Doe 2026, arXiv:2601.00001"}


def test_no_table_of_models_without_anything_to_say(tmp_path: Path) -> None:
    write(tmp_path / "runs", upstream="mel", skill=0.6)
    assert "## Models" not in forms(tmp_path)["report.md"]


def test_shuffled_labels_alone_stop_no_report(tmp_path: Path) -> None:
    write(tmp_path / "runs", protocol={"labels": "shuffled"})
    shown = forms(tmp_path)
    assert "labels = shuffled" in shown["report.md"]
    assert len(json.loads(shown["results.json"])["cells"]) == 1


def test_every_form_says_how_many_seeds_a_number_has(tmp_path: Path) -> None:
    for upstream, seeds in (("mel", 2), ("fbank", 2), ("good", 1)):
        for seed in range(seeds):
            write(tmp_path / "runs", upstream=upstream, seed=seed)
    report = assemble([tmp_path / "runs"])
    assert any("1 with 1 seed; 2 with 2 seeds" in note and "too easily" in note for note in report.notes)
    shown = forms(tmp_path)
    for name in ("report.md", "report.tex", "index.html"):
        text = shown[name].replace("\\", "")
        assert len(re.findall(r"[( ]1 seed[)<]", text)) == 1, name
        assert "mean over 2 seeds unless marked otherwise" in text, name
        assert "over speakers and seeds" in text, name
    assert {(c["num_seeds"]) for c in json.loads(shown["results.json"])["cells"]} == {1, 2}
    lines = [line for line in csv.DictReader(shown["results.csv"].splitlines()) if line["cell"]]
    assert sorted(line["num_seeds"] for line in lines) == ["1", "2", "2"]


def test_with_one_seed_nothing_is_said_to_be_over_seeds(tmp_path: Path) -> None:
    write(tmp_path / "runs")
    write(tmp_path / "runs", upstream="good", skill=0.9)
    shown = forms(tmp_path)
    for name in ("report.md", "report.tex", "index.html"):
        assert "and seeds" not in shown[name], name
        assert "Each number is from one seed." in shown[name], name
    assert "every number is from one seed" in shown["report.md"]


@pytest.mark.parametrize(("speakers", "test"), [(5, "paired t over speakers"), (1, "exact McNemar over utterances")])
def test_utterances_are_tested_where_there_are_no_speakers_to_vary(tmp_path: Path, speakers: int, test: str) -> None:
    for upstream, skill in (("good", 0.95), ("mel", 0.5)):
        write(tmp_path, upstream=upstream, skill=skill, task="sentiment", count=60, speakers=speakers)
    report = assemble([tmp_path])
    assert marks_of(report) == {"good": "best", "mel": ""}
    assert set(report.verdicts.tests.values()) == {test}
    assert f"({test})" in report.verdict_lines()[0].sentence


def test_mcnemar_counts_the_utterances_that_one_alone_has_right_and_takes_the_least_sure_seed(tmp_path: Path) -> None:
    paths = {
        (upstream, seed): write(tmp_path, upstream=upstream, skill=skill, seed=seed, task="sentiment", speakers=1)
        for upstream, skill, seeds in (("good", 0.95, (0, 1)), ("mel", 0.5, (0,)))
        for seed in seeds
    }
    right = {
        key: [each.estimated == each.reference for each in read_predictions(path.with_name("predictions.jsonl"))
              if isinstance(each, UtterancePrediction)]
        for key, path in paths.items()
    }  # fmt: skip
    expected = []
    for seed in (0, 1):
        pairs = list(zip(right["good", seed], right["mel", 0], strict=True))
        expected.append(mcnemar_exact(pairs.count((True, False)), pairs.count((False, True))))
    assert list(assemble([tmp_path]).verdicts.p_values.values()) == [pytest.approx(max(expected))]


def test_instants_of_one_speaker_are_never_tested(tmp_path: Path) -> None:
    write(tmp_path, upstream="mel", skill=0.3, speakers=1)
    write(tmp_path, upstream="good", skill=0.99, speakers=1)
    report = assemble([tmp_path])
    assert not report.verdicts.p_values
    assert marks_of(report)["mel"] == "untested"
    assert not report.verdicts.tied
    assert "not tested against the other row (no test" in report.verdict_lines()[0].sentence


def test_fault_what_could_not_be_compared_has_another_sign_than_what_does_not_differ(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    write(runs, upstream="mel", skill=0.3, speakers=1)
    write(runs, upstream="good", skill=0.99, speakers=1)
    found = forms(tmp_path)
    assert re.search(r"^\| mel .* 0\.\d+ \? ", found["report.md"], re.MULTILINE)
    assert "?: not tested against it" in found["report.md"]
    assert r"\untested" in found["report.tex"].partition(r"\begin{document}")[2]
    assert "not tested against the best" in found["index.html"]
    assert "untested" in found["results.csv"]
    assert '"not_compared_with_best": true' in found["results.json"]
    assert '"tied_with_best": true' not in found["results.json"]
    assert "≈ " not in found["report.md"].partition("## Scores")[2].partition("The best number of each column")[0]


def test_systems_that_agree_everywhere_do_not_differ(tmp_path: Path) -> None:
    write(tmp_path, upstream="mel", skill=0.8)
    write(tmp_path, upstream="twin", skill=0.8)
    report = assemble([tmp_path])
    assert not report.verdicts.p_values
    assert sorted(marks_of(report).values()) == ["best", "tied"]


def test_holm_is_over_all_that_the_page_shows(tmp_path: Path) -> None:
    write(tmp_path, skill=0.68)
    write(tmp_path, upstream="good", skill=0.75)
    alone = assemble([tmp_path])
    (p_value,) = alone.verdicts.p_values.values()
    assert p_value < 0.05
    assert marks_of(alone)["mel"] == ""
    for number in range(1, 1 + int(0.05 / p_value)):
        fraction = number / 1000
        write(tmp_path, fraction=fraction, skill=0.6, seed=number)
        write(tmp_path, upstream="good", fraction=fraction, skill=0.605, seed=number)
    report = assemble([tmp_path])
    assert report.verdicts.p_values
    (cell,) = [
        each for each in report.gathered.cells.values() if each.row.title.startswith("mel") and each.row.fraction == 1
    ]
    assert report.mark(cell) == "tied"


def test_rows_that_answered_other_tasks_are_not_said_to_be_comparable(tmp_path: Path) -> None:
    write(tmp_path / "runs", upstream="a")
    write(tmp_path / "runs", upstream="b", task="sentiment", head="mlp1")
    write(tmp_path / "runs", upstream="c")
    text = forms(tmp_path)["report.md"].replace("\\", "")
    tables_of_sets = re.findall(r"columns (\w): frozen, all labels\n(.*?)(?=\n#|\Z)", text, re.DOTALL)
    rows = {name: letter for letter, part in tables_of_sets for name in re.findall(r"\| (\w) \| last \|", part)}
    assert rows["a"] == rows["c"] != rows["b"]
    assert "Only rows of one table" in text


def test_the_mean_says_where_guessing_has_no_number(tmp_path: Path) -> None:
    for upstream in ("mel", "good"):
        write(tmp_path / "runs", upstream=upstream)
        write(
            tmp_path / "runs",
            upstream=upstream,
            task="sentiment",
            head="mlp1",
            baselines={"chance": None, "majority": None},
        )
    text = forms(tmp_path)["report.md"]
    assert "a perfect system 1; in sentiment" in text
    assert "the worst row shown is 0 and the best 1" in text


def test_a_record_that_cannot_be_read_stops_no_report(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "folder" / "record.json").mkdir(parents=True)
    report = assemble([tmp_path])
    assert list(report.gathered.unreadable) == [tmp_path / "folder" / "record.json"]
    assert len(report.gathered.cells) == 1


def test_many_records_are_checked_by_several_processes_with_the_same_verdicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [write(tmp_path, upstream=name, seed=seed) for name in ("mel", "fbank") for seed in (0, 1)]
    lines = paths[1].with_name("predictions.jsonl").read_text("utf-8").splitlines()
    paths[1].with_name("predictions.jsonl").write_text("\n".join(lines[1:]) + "\n", encoding="utf-8")
    paths[2].write_text("{}", encoding="utf-8")
    monkeypatch.setattr(checking, "FEW", 1)
    alone, divided = (list(checking.read_and_check(paths, processes=processes)) for processes in (1, 2))
    assert alone == divided
    assert [isinstance(run, str) or run.fault is not None for run in divided] == [False, True, True, False]
    found = [[getattr(run, "found", None) for run in runs] for runs in (alone, divided)]
    assert found[0] == found[1]
    assert found[1][0] is not None


def test_seconds_are_given_with_where_they_were_measured_and_not_pooled_over_tasks_or_devices(tmp_path: Path) -> None:
    write(tmp_path / "runs")
    write(tmp_path / "runs", task="sentiment", head="mlp1", seed=0)
    write(tmp_path / "runs", seed=1, device="cuda:0")
    report = assemble([tmp_path / "runs"])
    (cost,) = report.costs.values()
    assert cost.machines == ("cpu, c, 2 threads", "cuda:0, c, 2 threads")
    assert len(cost.train_seconds) == 3
    assert (cost.real_time_factor, cost.one_training) == (None, None)
    texts = {each.name: each.text(report, report.gathered.rows[0]) for each in COST_COLUMNS}
    assert texts["real_time_factor"] == "500× [1]; 500× [2]"
    assert texts["train_seconds"] == "0.2 s [1] phone; 0.2 s [2] phone; 0.2 s [1] sentiment"
    assert texts["measured_on"] == "[1] cpu, c, 2 threads; [2] cuda:0, c, 2 threads"


def test_frozen_and_fine_tuned_have_fronts_of_their_own(tmp_path: Path) -> None:
    for mode, skill in (("frozen", 0.6), ("finetune", 0.8)):
        write(tmp_path, upstream="small", mode=mode, skill=skill, macs=1_000_000)
        write(tmp_path, upstream="large", mode=mode, skill=skill + 0.1, macs=5_000_000)
    fronts = assemble([tmp_path]).fronts
    assert [(front.mode, len(front.points), len(front.front)) for front in fronts] == [
        ("frozen", 2, 2), ("finetune", 2, 2)
    ]  # fmt: skip


def test_latex_has_verdicts_notes_failures_and_ids(tmp_path: Path) -> None:
    good, bad = write(tmp_path / "runs", upstream="good", macs=1000), write(tmp_path / "runs", upstream="bad")
    bad.with_name("predictions.jsonl").write_text("{}\n", encoding="utf-8")
    write_report(ReportRequest(runs=(tmp_path / "runs",), out=tmp_path / "out", formats=("tex",)))
    text = (tmp_path / "out" / "report.tex").read_text("utf-8")
    for expected in ("In short", "Notes", "Records left out", "no untrained row", "Records", good.parent.name):
        assert expected in text, expected
    assert bad.parent.name in text.split("Records left out")[1]


def test_a_command_is_shown_whole_or_not_at_all(tmp_path: Path) -> None:
    write(tmp_path / "runs", upstream="long", checkpoint="c" * 1500)
    write(tmp_path / "runs", upstream="longer", checkpoint="c" * 2500)
    write_report(ReportRequest(runs=(tmp_path / "runs",), out=tmp_path / "out"))
    for name in ("index.html", "report.md", "results.csv"):
        text = (tmp_path / "out" / name).read_text("utf-8")
        assert "c" * 1500 + " --corpus" in text, name
        assert "c" * 1501 not in text, name
        assert "results.json" in text, name
    for line in re.findall(r"repbench run --upstream long.*", (tmp_path / "out" / "report.md").read_text("utf-8")):
        assert "…" not in line


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=A1", "'=A1"),
        ("x;=HYPERLINK(A1);y", "x;'=HYPERLINK(A1);y"),
        ('x; "=A1', "x; \"'=A1"),
        ("a; b", "a; b"),
        ("repbench run --seed 0; repbench run --seed 1", "repbench run --seed 0; repbench run --seed 1"),
    ],
)
def test_no_part_of_a_spreadsheet_cell_is_a_formula_even_where_semicolons_part_cells(text: str, cell: str) -> None:
    assert spreadsheet(text) == cell


def test_the_headline_is_the_best_of_all_modes_and_names_fine_tuning(tmp_path: Path) -> None:
    for upstream, skill in (("apc", 0.9), ("mel", 0.4)):
        write(tmp_path, upstream=upstream, skill=skill)
    write(tmp_path, upstream="apc", skill=0.7, mode="finetune")
    (verdict,) = assemble([tmp_path]).verdict_lines()
    assert (verdict.cell.row.mode, verdict.who) == ("frozen", "apc, layer last")
    write(tmp_path, upstream="mel", skill=0.99, mode="finetune")
    (verdict,) = assemble([tmp_path]).verdict_lines()
    assert verdict.who == "mel, layer last, fine-tuned"
