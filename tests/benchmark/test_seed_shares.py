"""The part of an interval that comes of seeds: known variances are found again, and every form of a report has them."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from repbench.benchmark.report import ReportRequest, assemble, write_report
from repbench.benchmark.report.data.seed_shares import uncertainty
from repbench.benchmark.report.render import tables
from repbench.benchmark.scoring.metrics import seed_share_of
from repbench.benchmark.scoring.statistics import LeftOut, SeedShare, crossed_intervals_of, in_log_odds, seed_share
from repbench.downstream.contract import MetricInfo
from repbench.testing.simulation import crossed_values, mean_without_each
from tests.benchmark.report_records import write


def width(runs: list[LeftOut]) -> float:
    interval = crossed_intervals_of(runs)["value"]
    assert interval is not None
    return interval.high - interval.low


def parts(values: list[list[float]]) -> SeedShare:
    found = seed_share(mean_without_each(np.array(values)), "value")
    assert found is not None
    return found


@pytest.mark.parametrize(("speaker", "seed", "meeting"), [(1.0, 0.3, 0.3), (0.5, 0.5, 0.3), (0.6, 0.1, 0.6)])
def test_known_variances_are_found_again(speaker: float, seed: float, meeting: float) -> None:
    generator = np.random.default_rng(1)
    drawn = [
        crossed_values(speaker=speaker, seed=seed, meeting=meeting, num_seeds=3, num_speakers=12, generator=generator)
        for _ in range(1500)
    ]
    found = [parts(values.tolist()) for values in drawn]

    of_meeting = meeting**2 / (3 * 12)
    assert np.mean([each.clusters for each in found]) == pytest.approx(speaker**2 / 12, rel=0.06)
    assert np.mean([each.seeds for each in found]) == pytest.approx(seed**2 / 3 + 2 * of_meeting, rel=0.08)
    assert np.mean([each.interaction for each in found]) == pytest.approx(of_meeting, rel=0.06)


def test_the_parts_add_up_to_the_interval() -> None:
    values = crossed_values(
        speaker=1.0, seed=0.5, meeting=0.5, num_seeds=4, num_speakers=7, generator=np.random.default_rng(2)
    )
    found = parts(values.tolist())

    assert 2 * found.half_width(4) == pytest.approx(width(mean_without_each(values)), rel=1e-12)
    assert found.relative(4) == 1.0


def test_seeds_alone_and_speakers_alone_have_all_of_it() -> None:
    seeds_alone = parts([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0], [4.0, 4.0, 4.0]])
    speakers_alone = parts([[1.0, 2.0, 4.0], [1.0, 2.0, 4.0]])

    assert seeds_alone.share == pytest.approx(1.0, abs=1e-12)
    assert seeds_alone.relative(None) == 0.0
    assert seeds_alone.seed_deviation == pytest.approx(math.sqrt(7 / 3))
    assert (speakers_alone.share, speakers_alone.seed_deviation) == (0.0, 0.0)
    assert speakers_alone.relative(3) == speakers_alone.relative(None) == 1.0


def test_one_more_seed_makes_the_interval_as_short_as_forecast() -> None:
    generator = np.random.default_rng(3)
    now, more, forecast = [], [], []
    for _ in range(600):
        values = crossed_values(speaker=0.5, seed=0.5, meeting=0.3, num_seeds=4, num_speakers=10, generator=generator)
        now.append(width(mean_without_each(values[:3])))
        more.append(width(mean_without_each(values)))
        forecast.append(2 * parts(values[:3].tolist()).half_width(4))

    assert np.mean(forecast) == pytest.approx(np.mean(more), rel=0.05)
    assert np.mean(more) < 0.85 * np.mean(now)


def test_interaction_falls_with_seeds_and_is_no_deviation_of_seeds() -> None:
    # Speakers and seeds have nearly the same means: what varies is their meeting, of which speakers seem to have less.
    found = parts([[1.0, -1.0, 0.3], [-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])

    assert (found.clusters, found.share) == (0.0, 1.0)
    assert found.seed_deviation == pytest.approx(0.1 / math.sqrt(3))


@pytest.mark.parametrize(
    "runs",
    [
        mean_without_each(np.array([[1.0, 2.0, 4.0]])),
        [LeftOut({"value": 1.0}, ()), LeftOut({"value": 2.0}, ())],
        [LeftOut({"value": None}, ({"value": 1.0}, {"value": 2.0}))] * 2,
        [LeftOut({"value": 1.0}, ({"value": None}, {"value": 2.0}))] * 2,
        mean_without_each(np.array([[0.1, 0.1, 0.1], [0.1, 0.1, 0.1 + 1e-15]])),
        [],
    ],
    ids=["one seed", "one speaker", "undefined", "undefined without one", "nothing varies", "no run"],
)
def test_where_there_is_no_interval_over_seeds_there_are_no_parts(runs: list[LeftOut]) -> None:
    assert seed_share(runs, "value") is None


def test_an_interval_in_log_odds_is_divided_in_log_odds() -> None:
    runs = mean_without_each(np.array([[0.01, 0.02, 0.09], [0.03, 0.02, 0.05]]))
    rate = MetricInfo(unit="fraction", higher_is_better=False, interval="logit")
    proportion = MetricInfo(unit="fraction", higher_is_better=False)

    assert seed_share_of(runs, "value", rate) == seed_share([in_log_odds(run) for run in runs], "value")
    assert seed_share_of(runs, "value", proportion) == seed_share(runs, "value")
    assert seed_share_of(runs, "value", rate) != seed_share(runs, "value")


def test_the_deviation_of_three_seeds_is_known_to_a_factor() -> None:
    # χ² with 2 degrees of freedom is exponential: its quantiles are -2 log(1 - p).
    low, high = uncertainty(3)
    assert low == pytest.approx(math.sqrt(2 / (-2 * math.log(0.025))))
    assert high == pytest.approx(math.sqrt(2 / (-2 * math.log(0.975))))


def test_every_form_of_a_report_has_them(tmp_path: Path) -> None:
    for upstream, seeds in (("mel", (0, 1, 2)), ("good", (0,))):
        for seed in seeds:
            write(tmp_path / "runs", upstream=upstream, skill=0.6 + 0.1 * seed, seed=seed)
    write_report(ReportRequest(runs=(tmp_path / "runs",), out=tmp_path / "out"))
    report = assemble([tmp_path / "runs"])

    ((column,),) = ([each.cells for each in report.seed_shares],)
    mel, good = sorted(column, key=lambda one: -one.num_seeds)
    assert mel.parts is not None
    assert (good.parts, good.deviation) == (None, None)
    values = [run.record.primary.value for run in mel.cell.runs]
    assert mel.deviation == pytest.approx(float(np.std([each or 0.0 for each in values], ddof=1)), rel=1e-12)
    percent = f"{100 * mel.parts.share:.0f} %"
    (table,) = (each for each in tables.tables_of(report) if each.title.startswith("Speakers and seeds"))
    rows = {row[0].text: [cell.text for cell in row] for row in table.rows}
    assert rows["mel"][3:] == [
        "3",
        f"{mel.deviation:.3f}",
        percent,
        f"{100 * mel.parts.relative(4):.0f} %",
        f"{100 * mel.parts.relative(None):.0f} %",
    ]
    assert rows["good"][3:] == ["1", *["not known"] * 4]
    assert "From one seed nothing is known about other seeds." in table.notes
    text = {each.name: each.read_text("utf-8") for each in (tmp_path / "out").iterdir()}
    for name in ("report.md", "index.html"):
        assert "Speakers and seeds" in text[name], name
        assert percent in text[name].replace("\u00a0", " "), name
    lines = {line["system"]: line for line in csv.DictReader(text["results.csv"].splitlines())}
    assert float(lines["mel"]["ci_share_of_seeds"]) == mel.parts.share
    assert float(lines["mel"]["ci_width_with_one_more_seed"]) == mel.parts.relative(4)
    assert float(lines["mel"]["ci_width_with_any_seeds"]) == mel.parts.relative(None)
    assert lines["good"]["ci_share_of_seeds"] == ""
    (of_column,) = json.loads(text["results.json"])["seeds"]
    shares = {each["num_seeds"]: each["share_of_seeds"] for each in of_column["cells"]}
    assert shares == {3: mel.parts.share, 1: None}


def test_a_report_of_single_seeds_says_that_nothing_is_known_of_others(tmp_path: Path) -> None:
    for upstream in ("mel", "good"):
        write(tmp_path / "runs", upstream=upstream, skill=0.6)
    report = assemble([tmp_path / "runs"])

    assert report.seed_shares == []
    assert any("nothing is known about other seeds" in note for note in report.notes)
