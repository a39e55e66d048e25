"""Scores by group: from attributes in predictions or a corpus to the report, its files and a leaderboard."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from repbench.benchmark.records.predictions_file import prediction_line
from repbench.benchmark.records.record import prediction_of, read_predictions
from repbench.benchmark.records.verify import verify_record
from repbench.benchmark.report import Report, ReportRequest, assemble, write_report
from repbench.benchmark.report.data.groups import CellGroups, GroupRequest
from repbench.benchmark.report.render.latex import results as latex
from repbench.benchmark.report.render.tables import groups as tables_of
from repbench.benchmark.run import evaluate
from repbench.benchmark.scoring.grouping import Grouping
from repbench.corpora.contract import AttributeValue
from repbench.corpora.open import open_corpus
from repbench.downstream.discrimination.cells import On
from repbench.downstream.metrics.abx import Cell
from repbench.downstream.problems.abx import ABX, AbxPrediction
from repbench.downstream.problems.pairs import PAIRS, PairPrediction
from repbench.errors import DataError, UsageError
from repbench.testing import tone_corpus
from tests.benchmark.report_records import answers, write
from tests.benchmark.test_report_robustness import part
from tests.commands import repbench

Attributes = dict[str, dict[str, AttributeValue]]


def by_speaker(count: int, speakers: int) -> Attributes:
    """Of the predictions of `report_records`: half of the speakers are f, the others m; ages are 10, 11, …."""
    found: Attributes = {}
    for number in range(count):
        speaker = number % speakers
        found[f"u{number}"] = {"gender": "f" if speaker < speakers // 2 else "m", "age": 10 + speaker}
    return found


COUNT, SPEAKERS = 60, 12
KNOWN = by_speaker(COUNT, SPEAKERS)


def record(root: Path, attributes: Attributes | None = KNOWN, **others: Any) -> Path:
    options = {"task": "sentiment", "count": COUNT, "speakers": SPEAKERS, "skill": 0.7, **others}
    return write(root, attributes=attributes, **options)


def report_by(root: Path, *by: str, least_speakers: int = 5) -> Report:
    request = GroupRequest(by=tuple(map(Grouping.parse, by)), least_speakers=least_speakers)
    return assemble([root], groups=request)


def only(report: Report) -> CellGroups:
    (each,) = report.groups
    (one,) = each.cells
    return one


@pytest.mark.parametrize(
    ("text", "bands"),
    [
        ("age:16", ("age < 16", "age ≥ 16")),
        ("age:16,30", ("age < 16", "16 ≤ age < 30", "age ≥ 30")),
        (" gender ", ()),
    ],
)
def test_a_grouping_names_its_bands(text: str, bands: tuple[str, ...]) -> None:
    grouping = Grouping.parse(text)
    assert grouping.bands == bands
    assert Grouping.parse(grouping.text) == grouping


def test_bands_hold_their_lower_edge_and_numbers_that_are_text() -> None:
    grouping = Grouping.parse("age:16,30")
    given: list[AttributeValue | None] = [15.99, 16, "29", 30, "old", "nan", None]
    assert [grouping.group_of(value) for value in given] == [
        "age < 16", "16 ≤ age < 30", "16 ≤ age < 30", "age ≥ 30", "unknown", "unknown", "unknown",
    ]  # fmt: skip
    assert [Grouping.parse("age").group_of(value) for value in (7, 7.0, "7", None)] == ["7", "7", "7", "unknown"]


@pytest.mark.parametrize("text", ["", ":16", "age:", "age:30,16", "age:16,16", "age:x", "age:inf"])
def test_a_grouping_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"names no attribute|must be ascending numbers"):
        Grouping.parse(text)


def test_each_group_has_the_score_of_its_utterances_alone(tmp_path: Path) -> None:
    record(tmp_path)
    one = only(report_by(tmp_path, "gender"))
    predictions = answers("sentiment", 0.7, 0, COUNT, SPEAKERS)
    for group in one.groups:
        own = [each.is_right for each in predictions if KNOWN[each.id]["gender"] == group.name]
        assert group.value == pytest.approx(sum(map(bool, own)) / len(own))
        assert (group.num_utterances, group.num_speakers, group.is_shown) == (30, 6, True)
        assert group.interval is not None
        assert group.value is not None
        assert group.interval.low < group.value < group.interval.high
    assert one.gap is not None
    values = {group.name: group.value for group in one.groups}
    assert one.gap.value == pytest.approx(abs((values["f"] or 0) - (values["m"] or 0)))
    assert values[one.gap.worst] == min(value for value in values.values() if value is not None)
    assert not one.mixed


def test_seeds_are_averaged_as_in_the_report(tmp_path: Path) -> None:
    for seed in range(3):
        record(tmp_path, seed=seed)
    one = only(report_by(tmp_path, "gender"))
    of_seeds = []
    for seed in range(3):
        record(tmp_path / str(seed), seed=seed)
        of_seeds.append(only(report_by(tmp_path / str(seed), "gender")))
    for place, group in enumerate(one.groups):
        alone = [each.groups[place].value for each in of_seeds]
        assert group.value == pytest.approx(sum(value for value in alone if value is not None) / 3)


def test_small_groups_are_counted_and_not_shown_and_the_unknown_are_in_no_gap(tmp_path: Path) -> None:
    attributes: Attributes = {}
    for number in range(COUNT):
        speaker = number % SPEAKERS
        if speaker < 5:
            attributes[f"u{number}"] = {"accent": "north"}
        elif speaker < 7:
            attributes[f"u{number}"] = {"accent": "south"}
    record(tmp_path, attributes)
    report = report_by(tmp_path, "accent")
    one, (each,) = only(report), report.groups
    assert [(group.name, group.num_speakers, group.is_shown) for group in one.groups] == [
        ("north", 5, True), ("south", 2, False), ("unknown", 5, True),
    ]  # fmt: skip
    assert one.gap is None
    assert one.groups[1].value is None
    assert one.groups[2].value is not None
    assert (each.names, [group.name for group in each.hidden]) == (("north", "unknown"), ["south"])
    (plain,) = tables_of([each])
    notes = " ".join(plain.notes)
    assert "with fewer than 5 speakers: south (2 speakers, 10 utterances)" in notes
    assert "“unknown”, the utterances without the attribute, is in no gap" in notes
    two = only(report_by(tmp_path, "accent", least_speakers=2))
    assert two.gap is not None
    assert {two.gap.best, two.gap.worst} == {"north", "south"}


def test_numbers_are_cut_into_bands_or_their_many_values_noted(tmp_path: Path) -> None:
    record(tmp_path)
    one = only(report_by(tmp_path, "age:16"))
    assert [group.name for group in one.groups] == ["age < 16", "age ≥ 16"]
    many: Attributes = {f"u{number}": {"age": number % 20} for number in range(COUNT)}
    record(tmp_path / "many", many)
    report = report_by(tmp_path / "many", "age")
    assert any("age has 20 values: cut it into bands" in note for note in report.notes)


def test_one_record_gives_its_attributes_to_the_others_of_its_corpus(tmp_path: Path) -> None:
    record(tmp_path)
    record(tmp_path, None, upstream="apc", skill=0.6)
    record(tmp_path, None, upstream="other", corpus="elsewhere", fingerprint="b" * 64)
    report = report_by(tmp_path, "gender")
    (each,) = report.groups
    assert {one.cell.row.system.name for one in each.cells} == {"mel", "apc"}
    (note,) = report.notes_on_groups
    assert note.startswith("no groups by gender of other, layer last, sentiment · elsewhere: no utterance has a known")


def test_groups_under_a_condition_have_a_table_of_their_own(tmp_path: Path) -> None:
    record(tmp_path)
    record(tmp_path, skill=0.5, condition=part("noise:white:10"))
    titles = [plain.title for plain in tables_of(report_by(tmp_path, "gender").groups)]
    clean = "Groups by gender: sentiment · synthetic:noisy:tiny"
    assert titles == [clean, f"{clean} · condition = noise:white:10"]


def test_records_that_disagree_have_no_groups(tmp_path: Path) -> None:
    record(tmp_path)
    swapped = {id_: {**values, "gender": {"f": "m", "m": "f"}[str(values["gender"])]} for id_, values in KNOWN.items()}
    record(tmp_path, swapped, upstream="apc")
    report = report_by(tmp_path, "gender")
    assert not report.groups
    assert "its records disagree on the gender of u0" in report.notes_on_groups[0]


def test_tables_and_files_have_the_groups_and_without_any_there_are_none(tmp_path: Path) -> None:
    record(tmp_path / "runs")
    record(tmp_path / "runs", upstream="apc", skill=0.6)
    out = tmp_path / "out"
    write_report(ReportRequest(runs=(tmp_path / "runs",), out=out, by=("gender", "age:13"), least_speakers=3))
    page, text = (out / "index.html").read_text(encoding="utf-8"), (out / "report.md").read_text(encoding="utf-8")
    assert '<h2 id="groups">Groups</h2>' in page
    assert "Groups by gender: sentiment" in page
    assert "worst gender" in page
    assert "## Groups by age: sentiment" in text
    assert text.count("is its mean for equal groups") == 1  # explained once for both tables
    assert "age ≥ 13" in text
    (of_json, ages) = json.loads((out / "results.json").read_text(encoding="utf-8"))["groups"]
    assert (of_json["by"], ages["by"], of_json["least_speakers"]) == ("gender", "age:13", 3)
    assert {group["name"] for cell in of_json["cells"] for group in cell["groups"]} == {"f", "m"}
    assert of_json["cells"][0]["gap"]["ci95"][0] < of_json["cells"][0]["gap"]["value"]
    with (out / "groups.csv").open(encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert len(lines) == 8  # two systems, two attributes, two groups
    (worst,) = (
        line for line in lines if line["is_worst"] == "True" and line["by"] == "gender" and line["system"] == "mel"
    )
    first = next(cell for cell in of_json["cells"] if cell["system"].startswith("mel"))
    assert first["gap"]["worst"] == worst["group"]
    assert float(worst["value"]) == next(each["value"] for each in first["groups"] if each["name"] == worst["group"])
    assert r"age $\geq$ 13" in (out / "report.tex").read_text(encoding="utf-8")
    write_report(ReportRequest(runs=(tmp_path / "runs",), out=out))
    assert not (out / "groups.csv").exists()
    assert "groups" not in json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert "worst gender" not in (out / "report.md").read_text(encoding="utf-8")


def test_names_of_groups_are_text(tmp_path: Path) -> None:
    hostile = "<script>x</script>"
    record(tmp_path / "runs", {id_: {"g": hostile if each["gender"] == "f" else "=1+1"} for id_, each in KNOWN.items()})
    out = tmp_path / "out"
    write_report(ReportRequest(runs=(tmp_path / "runs",), out=out, by=("g",)))
    assert "<script>x" not in (out / "index.html").read_text(encoding="utf-8")
    assert ",'=1+1," in (out / "groups.csv").read_text(encoding="utf-8")


def test_attributes_are_in_the_digest_and_lines_without_any_stay_as_they_were(tmp_path: Path) -> None:
    path = record(tmp_path)
    assert verify_record(path).holds
    beside = path.with_name("predictions.jsonl")
    text = beside.read_text(encoding="utf-8")
    beside.write_text(text.replace('"gender":"f"', '"gender":"m"', 1), encoding="utf-8")
    assert [change.field for change in verify_record(path).changes] == ["predictions_sha256"]
    without = record(tmp_path / "without", None)
    assert '"attributes"' not in without.with_name("predictions.jsonl").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "given", [{}, [], "f", {"a": True}, {"a": None}, {"a": [1]}, {"a": float("inf")}, {"a": "\ud800"}]
)
def test_attributes_that_no_run_writes_are_refused(given: object) -> None:
    line = prediction_line(answers("sentiment", 0.7, 0)[0])
    with pytest.raises(ValueError, match="attribute"):
        prediction_of({**line, "attributes": given})


def trials(id_: str, speaker: str, *others: tuple[str, str]) -> PairPrediction:
    return PairPrediction(
        id=id_,
        speaker=speaker,
        group=None,
        enrolments=tuple(name for name, _ in others),
        enrolment_speakers=tuple(name for _, name in others),
        targets=tuple(int(name == speaker) for _, name in others),
        trial_scores=tuple(0.1 * place for place in range(len(others))),
    )


def test_a_trial_is_of_a_group_if_both_sides_are() -> None:
    predictions = [
        trials("a1", "a", ("a2", "a"), ("b1", "b"), ("A", "a"), ("B", "b")),
        trials("a2", "a", ("b1", "b")),
        trials("b1", "b", ("a1", "a"), ("B", "b")),
    ]
    # a1 and a2 are all that a has, so that the model A of several utterances is of them too
    of_a = PAIRS.among(predictions, {"a1", "a2"})
    assert [(each.id, each.enrolments) for each in of_a] == [("a1", ("a2", "A")), ("a2", ())]
    assert of_a[0].trial_scores == (0.0, 0.2)
    of_part = PAIRS.among(predictions, {"a1", "b1"})
    assert [(each.id, each.enrolments) for each in of_part] == [("a1", ("b1", "B")), ("b1", ("a1", "B"))]


def cells(id_: str, speaker: str, *several: Cell, on: On = "phone") -> AbxPrediction:
    return AbxPrediction(id=id_, speaker=speaker, group=None, on=on, cells=several, left_out=0)


def test_a_cell_is_of_a_group_if_all_its_speakers_are() -> None:
    predictions = [
        cells("a1", "a", Cell("p", "q", "a", "", 1, 4), Cell("p", "q", "b", "", 1, 4), Cell("p", "q", "c", "", 1, 4)),
        cells("b1", "b", Cell("p", "q", "a", "", 1, 4)),
        cells("c1", "c", Cell("p", "q", "a", "", 1, 4)),
        cells("b2", "b"),
    ]
    found = ABX.among(predictions, {"a1", "c1"})
    kept = {each.id: [cell.group for cell in each.cells] for each in found if isinstance(each, AbxPrediction)}
    assert kept == {"a1": ["a", "c"], "c1": ["a"]}
    # b has an utterance outside: its tokens cannot be told apart, so that it is in no group
    assert [each.id for each in ABX.among(predictions, {"a1", "b1"})] == ["a1"]


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("groups") / "tones"
    tone_corpus(folder, num_speakers=6)
    return folder


QUICK = {"probe": {"steps": 20, "hidden_units": 16, "selection_points": 2}}


@pytest.mark.slow
def test_a_run_keeps_the_attribute_prints_the_groups_and_verifies(tones: Path, tmp_path: Path) -> None:
    env = {"REPBENCH_CACHE": str(tmp_path / "cache")}
    run = ("run", "--upstream", "mel_no_cmvn", "--downstream", "speaker", "--corpus", tones, "--out", tmp_path / "runs")
    settings = [part for name, value in QUICK["probe"].items() for part in ("--set", f"probe.{name}={value}")]
    done = repbench(*run, *settings, "--by", "sentiment", "--least-speakers", "2", env=env)
    assert done.code == 0, done.err
    assert "Groups by sentiment: speaker" in done.out
    assert "negative (6 speakers, " in done.out
    (path,) = (tmp_path / "runs").rglob("predictions.jsonl")
    kept = {each.id: dict(each.attributes) for each in read_predictions(path)}
    assert kept == {
        each.id: {"sentiment": each.attributes["sentiment"]}
        for each in open_corpus(str(tones)).utterances
        if each.id in kept
    }
    assert repbench("verify", tmp_path / "runs", env=env).code == 0
    plain = evaluate("mel_no_cmvn", "speaker", corpus=str(tones), out=tmp_path / "plain", protocol=QUICK)
    of_group = json.loads(path.with_name("record.json").read_text(encoding="utf-8"))
    assert of_group["metrics"]["accuracy"]["value"] == plain[0].primary.value
    as_json = repbench(*run, *settings, "--by", "sentiment", "--least-speakers", "2", "--json", env=env)
    (groups,) = as_json.json["groups"]
    # The records without attributes are joined with the corpus, to the same numbers.
    report = ("report", tmp_path / "plain", "--out", tmp_path / "page", "--by", "sentiment", "--least-speakers", "2")
    assert repbench(*report, "--corpus", tones, env=env).code == 0
    (joined,) = json.loads((tmp_path / "page" / "results.json").read_text(encoding="utf-8"))["groups"]
    assert [cell["groups"] for cell in joined["cells"]] == [cell["groups"] for cell in groups["cells"]]
    assert [cell["gap"] for cell in joined["cells"]] == [cell["gap"] for cell in groups["cells"]]


def test_trials_between_groups_are_counted_and_in_none(tones: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"corpus": str(tones), "out": tmp_path}
    (whole,) = evaluate("mel_no_cmvn", "verification", by=("sentiment",), **options)
    one = only(report_by(tmp_path, "sentiment"))
    assert [(group.name, group.num_speakers) for group in one.groups] == [("negative", 6), ("positive", 6)]
    (path,) = tmp_path.rglob("predictions.jsonl")
    predictions = [each for each in read_predictions(path) if isinstance(each, PairPrediction)]
    of_id = {each.id: dict(each.attributes)["sentiment"] for each in predictions}
    sides = [
        (target, of_id[each.id] == of_id[name])
        for each in predictions
        for name, target in zip(each.enrolments, each.targets, strict=True)
    ]
    assert one.mixed == {
        "target_trials": sides.count((1, False)),
        "other_trials": sides.count((0, False)),
    }
    assert sum(whole.primary.counts.values()) == len(sides)
    assert one.gap is not None
    assert one.gap.interval is not None


@pytest.mark.parametrize(
    ("by", "error", "message"),
    [
        (("sentimant",), DataError, "No utterance of tones has the attribute `sentimant`"),
        (("age:30,16",), UsageError, "must be ascending numbers"),
    ],
)
def test_groups_that_a_corpus_cannot_have_are_refused_before_training(
    tones: Path, tmp_path: Path, by: Sequence[str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as refused:
        evaluate("mel", "speaker", corpus=str(tones), out=tmp_path, by=tuple(by))
    assert not list(tmp_path.rglob("record.json"))
    if error is DataError:
        assert "sentiment" in str(getattr(refused.value, "do", ""))


def test_a_corpus_that_no_record_is_of_is_refused(tones: Path, tmp_path: Path) -> None:
    record(tmp_path / "runs", None)
    request = ReportRequest(runs=(tmp_path / "runs",), out=tmp_path / "out", by=("sentiment",), corpora=(str(tones),))
    with pytest.raises(DataError, match="No record is of this corpus, tones"):
        write_report(request)
    with pytest.raises(UsageError, match="attributes of groups"):
        write_report(ReportRequest(runs=(tmp_path / "runs",), out=tmp_path / "out", corpora=(str(tones),)))


@pytest.mark.slow
def test_the_page_of_a_leaderboard_has_groups(tones: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"corpus": str(tones), "out": tmp_path / "runs", "protocol": QUICK}
    evaluate("mel_no_cmvn", "speaker", by=("sentiment",), **options)
    board = tmp_path / "board"
    assert repbench("leaderboard", "init", board, tmp_path / "runs").code == 0
    (path,) = (tmp_path / "runs").rglob("record.json")
    assert repbench("leaderboard", "add", path, "--to", board).code == 0
    built = repbench("leaderboard", "build", board, "--by", "sentiment", "--least-speakers", "2")
    assert built.code == 0, built.err
    assert "Groups by sentiment: speaker" in (board / "page" / "index.html").read_text(encoding="utf-8")
    again = repbench("leaderboard", "build", board)
    assert again.code == 0, again.err
    assert "Groups by" not in (board / "page" / "index.html").read_text(encoding="utf-8")


def test_latex_of_a_report_with_bands_has_no_bare_signs(tmp_path: Path) -> None:
    record(tmp_path)
    text = latex(report_by(tmp_path, "age:16"))
    assert "≥" not in text
    assert r"\textless{} 16" in text
