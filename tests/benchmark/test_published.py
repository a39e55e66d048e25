"""Published tables, recomputed: the aggregators and areas give what others printed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from scipy import stats

from repbench.benchmark.report.published import Published, mockingjay_figure3, mockingjay_table2, superb
from repbench.benchmark.scoring.statistics import (
    Aggregate,
    borda,
    label_efficiency_area,
    normalised_means,
)

SUPERB_ERRORS = {"ASV_eer", "SD_der", "PR_per", "ASR_wer", "SF_cer"}
SUPERB_METRICS = {"SID_acc", "KS_acc", "QbE_mtwv", "IC_acc", "SF_f1", "ER_acc"} | SUPERB_ERRORS
RISES = {name: name not in SUPERB_ERRORS for name in sorted(SUPERB_METRICS)}

AREAS = {
    "BASE-FT2": 75.50, "APC": 59.86, "LARGE-WS": 63.94, "LARGE": 58.30, "BASE": 57.11, "Mel": 45.57, "BASE-FT500": None
}  # fmt: skip
"""Areas over log10 hours of figure 3, computed apart from this code; BASE-FT500 has one budget."""


def eleven() -> dict[str, dict[str, float]]:
    """The SUPERB table without its summary."""
    return {model: {name: row[name] for name in RISES} for model, row in superb().values.items()}


def order(aggregates: dict[str, Aggregate]) -> list[str]:
    return sorted(aggregates, key=lambda model: -(aggregates[model].value or 0.0))


def overall(row: dict[str, float]) -> float:
    """Mean of the eleven metrics in percent: errors as 100 minus the error, the term-weighted value times 100."""
    scores = {name: 100 - value if name in SUPERB_ERRORS else value for name, value in row.items()}
    return sum((scores | {"QbE_mtwv": 100 * row["QbE_mtwv"]}).values()) / len(scores)


def test_every_overall_of_the_superb_table_follows_from_its_row() -> None:
    printed = {model: row["overall"] for model, row in superb().values.items()}
    assert len(printed) == 18
    assert {model: round(overall(row), 1) for model, row in eleven().items()} == printed


def test_borda_and_mean_rank_order_superb_alike_and_otherwise_than_the_mean() -> None:
    points = borda(eleven(), RISES)
    ranks = sum(
        stats.rankdata([-row[name] if rises else row[name] for row in eleven().values()])
        for name, rises in RISES.items()
    )
    mean_ranks = dict(zip(eleven(), (ranks / 11).tolist(), strict=True))
    assert {model: each.value for model, each in points.items()} == pytest.approx(
        {model: 11 * (18 - rank) for model, rank in mean_ranks.items()}
    )
    by_mean = sorted(eleven(), key=lambda model: -superb().values[model]["overall"])
    assert (by_mean.index("HuBERT Large"), by_mean.index("WavLM Base")) == (2, 3)
    assert (order(points).index("HuBERT Large"), order(points).index("WavLM Base")) == (3, 2)
    assert by_mean.index("Mockingjay") < by_mean.index("FBANK")
    assert (points["Mockingjay"].value, points["FBANK"].value) == (12.0, 19.0)


def test_with_slot_filling_as_one_task_fbank_has_sixteen_points_and_mockingjay_twelve() -> None:
    table = {
        model: {
            **{name: value for name, value in row.items() if not name.startswith("SF_")},
            "SF": (row["SF_f1"] + 100 - row["SF_cer"]) / 2,
        }
        for model, row in eleven().items()
    }
    rises = {**{name: rise for name, rise in RISES.items() if not name.startswith("SF_")}, "SF": True}
    points = borda(table, rises)
    assert (points["Mockingjay"].value, points["FBANK"].value) == (12.0, 16.0)


def test_hubert_large_is_sixth_by_scores_between_fbank_and_the_best() -> None:
    scores = normalised_means(eleven(), RISES, zeros=eleven()["FBANK"])
    assert scores["FBANK"].value == 0.0
    assert (order(scores).index("HuBERT Large"), order(scores).index("WavLM Base")) == (5, 2)


def test_a_missing_cell_is_never_a_zero() -> None:
    table = eleven()
    full = {"mean": normalised_means(table, RISES), "borda": borda(table, RISES)}
    del table["WavLM Large"]["QbE_mtwv"]
    holes: dict[str, dict[str, float | None]] = {model: {**row} for model, row in table.items()}
    holes["WavLM Large"]["ER_acc"] = None
    for name, several in (("mean", normalised_means(holes, RISES)), ("borda", borda(holes, RISES))):
        assert order(several)[0] == "WavLM Large"
        assert (several["WavLM Large"].scored, several["WavLM Large"].tasks) == (9, 11)
        assert several["WavLM Large"].coverage == pytest.approx(9 / 11)
        assert several["FBANK"].coverage == 1.0
        assert (several["WavLM Large"].value or 0) >= (full[name]["WavLM Large"].value or 0)


def test_a_system_without_tasks_has_no_number() -> None:
    table: dict[str, dict[str, float | None]] = {"a": {"t": 1.0, "u": 3.0}, "b": {"t": 2.0}, "c": {"t": None}}
    rises = {"t": True, "u": True}
    assert borda(table, rises) == {"a": Aggregate(0.0, 2, 2), "b": Aggregate(4.0, 1, 2), "c": Aggregate(None, 0, 2)}
    assert normalised_means(table, rises) == {
        "a": Aggregate(0.0, 2, 2), "b": Aggregate(1.0, 1, 2), "c": Aggregate(None, 0, 2)
    }  # fmt: skip
    assert borda(table, rises)["b"].coverage == 0.5


def test_ties_share_their_points_and_errors_count_downwards() -> None:
    table = {"a": {"error": 0.1}, "b": {"error": 0.2}, "c": {"error": 0.2}, "d": {"error": 0.4}}
    assert [each.value for each in borda(table, {"error": False}).values()] == [3.0, 1.5, 1.5, 0.0]
    means = [each.value for each in normalised_means(table, {"error": False}).values()]
    assert means == pytest.approx([1.0, 2 / 3, 2 / 3, 0.0])


def test_a_task_that_one_system_has_does_not_end_the_comparison_of_the_others() -> None:
    table = {"a": {"alone": 1.0, "t": 1.0}, "b": {"t": 2.0}}
    assert {name: each.value for name, each in borda(table, {"alone": True, "t": True}).items()} == {"a": 0.0, "b": 2.0}


def test_scores_lie_between_the_values_that_are_given_for_zero_and_one() -> None:
    table: dict[str, dict[str, float | None]] = {"a": {"t": 3.0, "nobody": None}, "b": {"t": 6.0}}
    rises = {"t": True, "nobody": True}
    means = normalised_means(table, rises, zeros={"t": 2.0}, ones={"t": 10.0})
    assert [each.value for each in means.values()] == [0.125, 0.5]
    assert [each.scored for each in means.values()] == [1, 1]


def test_a_task_that_tells_nothing_apart_is_in_no_mean() -> None:
    table = {"a": {"t": 0.5, "u": 0.2}, "b": {"t": 0.5, "u": 0.4}}
    means = normalised_means(table, {"t": True, "u": True})
    assert (means["a"].value, means["b"].value) == (0.0, 1.0)


def test_a_task_without_a_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="no direction is given for u"):
        borda({"a": {"t": 1.0, "u": 1.0}}, {"t": True})


def test_the_areas_of_mockingjays_label_efficiency_come_out() -> None:
    for model, row in mockingjay_figure3().values.items():
        area = label_efficiency_area([3600 * float(hours) for hours in row], list(row.values()))
        assert (None if area is None else round(area, 2)) == AREAS[model]


@pytest.mark.parametrize("table", [superb, mockingjay_table2, mockingjay_figure3])
def test_a_published_number_has_its_source_and_date(table: Callable[[], Published]) -> None:
    published = table()
    assert "arXiv" in published.source
    assert published.date.startswith("20")
    assert published.notes
    assert published.values.keys() == published.about.keys()
    assert all(row for row in published.values.values())


def test_what_was_not_published_is_absent() -> None:
    assert mockingjay_figure3().values["BASE-FT500"] == {"360": 88.2}
    assert superb().about["Mockingjay"] == {"params": "85.12M", "corpus": "LS 360 hr"}
    assert mockingjay_table2().values["BASE"] == {"speaker_acc": 94.54, "sentiment_acc": 67.38}
