"""Records under conditions in a report: a section of their own, with drops that are paired."""

from __future__ import annotations

import csv
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from repbench.audio.disturbances.condition import parse_condition
from repbench.benchmark.report.data.assemble import Report, assemble
from repbench.benchmark.report.data.evidence import Evidence
from repbench.benchmark.report.data.gather import gather
from repbench.benchmark.report.data.reading import load
from repbench.benchmark.report.data.robustness import Robustness, RobustRow, robustness
from repbench.benchmark.report.render import robustness as rendered
from repbench.benchmark.report.render.write import ReportRequest, write_report
from repbench.benchmark.scoring.statistics import (
    Interval,
    LeftOut,
    combined,
    crossed_intervals_of,
    mean_and_error_of,
    paired_differences_of,
)
from tests.benchmark.report_records import write

CONDITIONS = {
    "noise:white:10": 0.2,
    "noise:white:s1": 0.05,
    "noise:white:s3": 0.15,
    "noise:white:s5": 0.3,
    "gain:s3": 0.0,
    "clip:0.1": 0.1,
}
"""From conditions to how much the skill of every system falls."""


def part(text: str, training: str = "clean") -> dict[str, Any]:
    condition = parse_condition(text)
    return {
        "name": condition.name, "kind": condition.kind, "severity": condition.severity,
        "parameters": dict(condition.parameters), "training": training, "digest": "0" * 16,
    }  # fmt: skip


def score(root: Path, upstream: str, skill: float, conditions: dict[str, float], **options: Any) -> None:
    for seed in (0, 1, 2):
        write(root, upstream=upstream, skill=skill, seed=seed, **options)
        for text, loss in conditions.items():
            write(root, upstream=upstream, skill=skill - loss, seed=seed, condition=part(text), **options)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("robust")
    score(root, "mel", 0.6, CONDITIONS)
    # better on clean sound, worse in loud noise
    score(root, "good", 0.8, {**CONDITIONS, "noise:white:s5": 0.65})
    # has one condition that the others have, and one alone
    score(root, "fbank", 0.7, {"gain:s3": 0.2, "tempo:s1": 0.1})
    return root


@pytest.fixture(scope="module")
def report(runs: Path) -> Report:
    return assemble([runs])


def table_of(report: Report) -> Robustness:
    (table,) = report.robustness
    return table


def row_of(report: Report, system: str) -> RobustRow:
    return next(row for row in table_of(report).rows if row.row.system.name == system)


def test_conditions_are_no_columns_of_the_scores_and_change_none(report: Report, tmp_path: Path) -> None:
    (column,) = report.gathered.columns
    assert column.differs == ()
    assert column.is_clean
    assert {each.differs for each in report.gathered.conditions} == {
        (f"condition = {parse_condition(text).name}",) for text in (*CONDITIONS, "tempo:s1")
    }
    for system, skill in (("mel", 0.6), ("good", 0.8), ("fbank", 0.7)):
        for seed in (0, 1, 2):
            write(tmp_path, upstream=system, skill=skill, seed=seed)
    alone = assemble([tmp_path])
    assert alone.robustness == []
    (other,) = alone.gathered.columns
    assert other.key == column.key
    assert [(cell.row.title, cell.value, cell.interval) for cell in alone.gathered.column_cells(other)] == [
        (cell.row.title, cell.value, cell.interval) for cell in report.gathered.column_cells(column)
    ]
    assert alone.verdict_lines()[0].sentence == report.verdict_lines()[0].sentence


def test_conditions_without_clean_sound_stay_columns(tmp_path: Path) -> None:
    write(tmp_path, condition=part("gain:s3"))
    report = assemble([tmp_path])
    assert [column.differs for column in report.gathered.columns] == [("condition = gain:s3",)]
    assert report.robustness == []


def test_a_drop_is_the_score_on_clean_sound_minus_that_under_the_condition(report: Report) -> None:
    row = row_of(report, "good")
    assert row.clean is not None
    for each in row.disturbed.values():
        assert each.drop is not None
        assert each.drop.value == pytest.approx((row.clean.value or 0) - (each.cell.value or 0))
    assert row.mean_drop is not None
    assert row.mean_drop.value == pytest.approx(
        statistics.mean(each.drop.value for each in row.disturbed.values() if each.drop is not None)
    )
    assert row.worst is not None
    assert row.worst.condition.name == "noise:white:s5"


def test_where_lower_is_better_a_drop_is_still_a_loss(runs: Path, report: Report) -> None:
    evidence = Evidence()
    gathered = gather(load([runs]), evidence)
    turned = {each.key: replace(each, higher_is_better=False) for each in gathered.every_column}
    gathered = replace(
        gathered,
        columns=tuple(turned[each.key] for each in gathered.columns),
        conditions=tuple(turned[each.key] for each in gathered.conditions),
        cells={key: replace(cell, column=turned[cell.column.key]) for key, cell in gathered.cells.items()},
    )
    (table,) = robustness(gathered, evidence)
    for row in table.rows:
        for name, each in row.disturbed.items():
            other = row_of(report, row.row.system.name).disturbed[name].drop
            assert each.drop is not None
            assert other is not None
            assert each.drop.value == -other.value
            # a condition that changes no prediction has no interval
            assert (other.interval is None) == (name == "gain:s3" and row.row.system.name != "fbank")
            if other.interval is not None:
                assert each.drop.interval == Interval(-other.interval.high, -other.interval.low)
    # an area is a score, whose direction is that of the metric
    areas = {curve.row.key: curve.area for curve in table.curves["noise:white"]}
    assert areas == {curve.row.key: curve.area for curve in table_of(report).curves["noise:white"]}


def test_seeds_and_speakers_are_paired_in_a_drop() -> None:
    # the seeds differ by far more than what the condition does to each of them
    clean = [
        LeftOut({"a": 0.5 + seed / 10}, tuple({"a": 0.5 + seed / 10 + c / 100} for c in range(4))) for seed in range(3)
    ]
    under = [
        LeftOut({"a": 0.4 + seed / 10}, tuple({"a": 0.4 + seed / 10 + c / 90} for c in range(4))) for seed in range(3)
    ]
    drop = mean_and_error_of(combined([clean, under], [1.0, -1.0]))["a"]
    apart = paired_differences_of(clean, under)["a"]
    assert drop.value == pytest.approx(0.1)
    assert apart.value == pytest.approx(0.1)
    assert drop.interval is not None
    assert apart.interval is not None
    assert drop.interval.high - drop.interval.low < 0.1 * (apart.interval.high - apart.interval.low)


def test_the_sum_of_one_method_is_the_method() -> None:
    runs = [LeftOut({"a": 0.5 + seed / 50}, tuple({"a": 0.5 + (seed - c) / 60} for c in range(4))) for seed in range(3)]
    assert combined([runs], [1.0]) == runs
    assert mean_and_error_of(runs)["a"].interval == crossed_intervals_of(runs)["a"]


def test_methods_of_other_seeds_cannot_be_summed() -> None:
    one = LeftOut({"a": 0.5}, ({"a": 0.4}, {"a": 0.6}))
    with pytest.raises(ValueError, match="same seeds"):
        combined([[one, one], [one]], [1.0, -1.0])
    with pytest.raises(ValueError, match="one weight each"):
        combined([[one], [one]], [1.0])
    with pytest.raises(ValueError, match="same clusters"):
        combined([[one], [LeftOut({"a": 0.5}, ())]], [1.0, -1.0])
    assert combined([[one], [LeftOut({"a": None}, ({"a": 0.4}, {"a": 0.6}))]], [1.0, -1.0])[0].whole == {"a": None}


def test_means_are_over_what_most_rows_have_and_no_row_has_less(report: Report) -> None:
    table = table_of(report)
    assert {each.name for each in table.averaged} == {parse_condition(text).name for text in CONDITIONS}
    odd = row_of(report, "fbank")
    assert (odd.mean_drop, odd.worst) == (None, None)
    assert table.rows[-1] is odd
    values = [row.mean_drop.value for row in table.rows if row.mean_drop is not None]
    assert values == sorted(values)


def test_conditions_are_in_the_order_of_their_severity(report: Report) -> None:
    names = [each.name for each in table_of(report).conditions]
    # values after severities
    noises = ["noise:white:s1", "noise:white:s3", "noise:white:s5", "noise:white:10"]
    assert names == ["clip:share=0.1", "gain:s3", *noises, "tempo:s1"]


def test_a_curve_starts_at_clean_sound_and_its_area_is_its_mean_height(report: Report) -> None:
    (kind,) = table_of(report).curves
    assert kind == "noise:white"
    for curve in table_of(report).curves[kind]:
        assert curve.severities == (0, 1, 3, 5)
        clean, first, third, fifth = (cell.value or 0.0 for cell in curve.cells)
        height = ((clean + first) / 2 + (first + third) + (third + fifth)) / 5
        assert curve.area.value == pytest.approx(height)
        assert curve.area.interval is not None
        assert curve.area.interval.low < height < curve.area.interval.high
        first_band, *bands = curve.bands
        assert first_band == Interval(clean, clean)
        for drop, cell, band in zip(curve.drops[1:], curve.cells[1:], bands, strict=True):
            assert drop is not None
            assert drop.interval is not None
            assert band is not None
            # the band of a score is what clean sound loses
            assert max(clean - drop.interval.high, 0.0) == pytest.approx(band.low)
            assert min(clean - drop.interval.low, 1.0) == pytest.approx(band.high)
            assert band.low < (cell.value or 0.0) < band.high
    # gain has one severity, clipping none
    assert [curve.row.system.name for curve in table_of(report).curves[kind]] == ["mel", "good"]


def test_a_band_holds_no_score_that_there_cannot_be(tmp_path: Path) -> None:
    for seed in (0, 1):
        write(tmp_path, seed=seed, skill=0.9, count=5)
        for severity, skill in ((1, 0.85), (5, 0.02)):
            write(tmp_path, seed=seed, skill=skill, count=5, condition=part(f"noise:white:s{severity}"))
    (curve,) = assemble([tmp_path]).robustness[0].curves["noise:white"]
    drop, band = curve.drops[-1], curve.bands[-1]
    assert drop is not None
    assert drop.interval is not None
    assert (curve.cells[0].value or 0.0) - drop.interval.high < 0.0
    assert band is not None
    assert band.low == 0.0


def test_ranks_and_the_pair_that_crosses(report: Report) -> None:
    ranks = {
        row.row.system.name: (
            row.rank,
            row.disturbed["noise:white:s5"].rank if "noise:white:s5" in row.disturbed else None,
        )
        for row in table_of(report).rows
    }
    assert ranks == {"good": (1, 2), "fbank": (2, None), "mel": (3, 1)}
    crossing = next(each for each in table_of(report).crossings if each.condition.name == "noise:white:s5")
    assert (crossing.first.system.name, crossing.second.system.name) == ("good", "mel")
    assert crossing.clean.value > 0 > crossing.disturbed.value
    assert crossing.is_separated
    # of two systems with six conditions in common, and of each with one
    assert table_of(report).num_pairs == 6 + 1 + 1


def test_seeds_that_a_condition_lacks_leave_a_drop_without_interval(tmp_path: Path) -> None:
    for seed in (0, 1):
        write(tmp_path, seed=seed)
    write(tmp_path, seed=0, skill=0.5, condition=part("gain:s3"))
    (table,) = assemble([tmp_path]).robustness
    (each,) = table.rows[0].disturbed.values()
    assert each.drop is not None
    assert each.drop.interval is None


def test_utterances_that_a_condition_leaves_out_are_left_out_on_both_sides(tmp_path: Path) -> None:
    for seed in (0, 1):
        write(tmp_path, seed=seed)
        # the same predictions, but for three utterances
        write(tmp_path, seed=seed, without=3, condition=part("speed:s5"))
    (table,) = assemble([tmp_path]).robustness
    (each,) = table.rows[0].disturbed.values()
    assert table.rows[0].clean is not None
    assert each.cell.value != table.rows[0].clean.value
    assert each.drop is not None
    assert each.drop.value == 0


def test_matched_training_has_a_table_of_its_own(tmp_path: Path) -> None:
    for seed in (0, 1):
        write(tmp_path, seed=seed)
        write(tmp_path, seed=seed, skill=0.4, condition=part("gain:s3"))
        write(tmp_path, seed=seed, skill=0.5, condition=part("gain:s3", "matched"))
        write(tmp_path, seed=seed, skill=0.45, condition=part("clip:s3", "matched"))
    clean, matched = assemble([tmp_path]).robustness
    assert (clean.matched, matched.matched) == (False, True)
    assert "trained under each condition" in matched.title
    assert clean.key != matched.key
    drops = {name: each.drop for name, each in matched.rows[0].disturbed.items()}
    assert set(drops) == {"gain:s3", "clip:s3"}
    assert all(drop is not None and drop.interval is not None for drop in drops.values())
    # seeds of two trainings are not paired, so that their mean has no interval
    assert matched.rows[0].mean_drop is not None
    assert matched.rows[0].mean_drop.interval is None


def test_every_form_has_the_numbers(runs: Path, report: Report, tmp_path: Path) -> None:
    written = write_report(ReportRequest(runs=(runs,), out=tmp_path))
    texts = {path.suffix: path.read_text(encoding="utf-8") for path in written.files}
    row = row_of(report, "good")
    assert row.mean_drop is not None
    assert row.mean_drop.interval is not None
    mean = f"{row.mean_drop.value:+.3f}"
    for suffix in (".md", ".html", ".tex"):
        assert mean in texts[suffix], suffix
        assert "Changes of order" in texts[suffix]
    assert texts[".html"].count("<svg") > 2
    (table,) = json.loads(texts[".json"])["robustness"]
    (of_row,) = (each for each in table["rows"] if each["row"] == row.row.key)
    assert of_row["mean_drop"]["value"] == row.mean_drop.value
    assert of_row["mean_drop"]["ci95"] == [row.mean_drop.interval.low, row.mean_drop.interval.high]
    assert of_row["worst"] == "noise:white:s5"
    cells = {cell["key"]: cell for cell in json.loads(texts[".json"])["cells"]}
    lines = [*csv.DictReader(texts[".csv"].splitlines())]
    drops = [line for line in lines if line["system"] == "good" and line["condition"] == "noise:white:s5"]
    assert len(drops) == 1
    of_condition = of_row["conditions"]["noise:white:s5"]
    assert float(drops[0]["drop"]) == of_condition["drop"]["value"]
    assert float(drops[0]["value"]) == cells[of_condition["cell"]]["value"]
    assert [float(drops[0][f"drop_ci95_{end}"]) for end in ("low", "high")] == of_condition["drop"]["ci95"]
    assert {line["condition"] for line in lines} == {
        "clean", "tempo:s1", *(parse_condition(text).name for text in CONDITIONS),
    }  # fmt: skip
    # the list of records on the page stays as long as the table of scores
    assert texts[".html"].count('<details id="n-') == 3


def test_a_drop_that_is_rounded_to_0_has_no_sign_of_its_own() -> None:
    assert [rendered.signed(value) for value in (-0.0004, 0.0, 0.0006, -0.0006)] == [
        "+0.000",
        "+0.000",
        "+0.001",
        "-0.001",
    ]
