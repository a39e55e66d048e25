"""Features and units whose folder declares a name: one model on two corpora is one row, and two models are two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from repbench.benchmark.records.record import read_record, sealed_record
from repbench.benchmark.records.table import results_table
from repbench.benchmark.records.verify import verify_record
from repbench.benchmark.report import ReportRequest, write_report
from repbench.benchmark.report.render.record_page import find_record, record_text
from repbench.benchmark.report.render.terminal_table import matrix_table
from tests.benchmark.report_records import write

NOISY, CLEAN = "synthetic:noisy:tiny", "synthetic:tiny"
OF_NOISY: dict[str, Any] = {"corpus": NOISY, "fingerprint": "1" * 64, "weights": "a" * 64}
OF_CLEAN: dict[str, Any] = {"corpus": CLEAN, "fingerprint": "2" * 64, "weights": "b" * 64}


def declared(**changed: Any) -> dict[str, Any]:
    usual = {"name": "my-hubert", "model": "5" * 64, "hop_seconds": 0.02, "first_center_seconds": 0.0125, "width": 768}
    return {**usual, **changed}


def features(root: Path, place: str, **options: Any) -> Path:
    folder = f"/data/of-somebody/{place}"
    return write(root, upstream=f"features:{folder}", checkpoint=folder, **options)


def report_of(root: Path) -> Any:
    write_report(ReportRequest(runs=(root,), out=root / "report", formats=("json", "md", "html")))
    return json.loads((root / "report" / "results.json").read_text("utf-8"))


def systems(found: Any) -> list[str]:
    return sorted(row["system"] for row in found["rows"])


def notes(found: Any, word: str) -> list[str]:
    return [note for note in found["notes"] if word in note]


def test_one_model_on_two_corpora_is_one_row(tmp_path: Path) -> None:
    features(tmp_path, "noisy", **OF_NOISY, declared=declared())
    features(tmp_path, "clean", **OF_CLEAN, declared=declared(), skill=0.8)
    found = report_of(tmp_path)
    (row,) = found["rows"]
    assert (row["system"], row["upstream"], row["covered"]) == ("features:my-hubert", "features:my-hubert", 2)
    assert (row["checkpoint"], row["fingerprint"]) == ("/data/of-somebody/clean; /data/of-somebody/noisy", None)
    assert row["untrained"] is False
    assert row["declared"] == declared()
    assert not notes(found, "my-hubert")
    assert "features:my-hubert" in (tmp_path / "report" / "report.md").read_text("utf-8")
    assert "model 5555" in (tmp_path / "report" / "index.html").read_text("utf-8")


def test_without_names_each_folder_is_a_row(tmp_path: Path) -> None:
    features(tmp_path, "noisy", **OF_NOISY)
    features(tmp_path, "clean", **OF_CLEAN)
    found = report_of(tmp_path)
    assert systems(found) == ["features:clean", "features:noisy"]
    assert all("declared" not in row for row in found["rows"])


def test_a_name_without_a_model_is_one_row_with_a_note(tmp_path: Path) -> None:
    features(tmp_path, "noisy", **OF_NOISY, declared=declared(model=None))
    features(tmp_path, "clean", **OF_CLEAN, declared=declared(model=None))
    found = report_of(tmp_path)
    assert systems(found) == ["features:my-hubert"]
    (note,) = notes(found, "my-hubert")
    assert "by the declared name alone; without a `model` in the declarations" in note


@pytest.mark.parametrize(
    ("changed", "layers", "names"),
    [
        ({"model": "6" * 64}, None, ["features:my-hubert (55555555)", "features:my-hubert (66666666)"]),
        ({"model": None}, None, ["features:my-hubert (55555555)", "features:my-hubert (no model)"]),
        ({"width": 512}, None, ["features:my-hubert (width 512)", "features:my-hubert (width 768)"]),
        (
            {"hop_seconds": 0.01},
            None,
            ["features:my-hubert (every 10 ms from 12.5 ms)", "features:my-hubert (every 20 ms from 12.5 ms)"],
        ),
        ({}, ("l0",), ["features:my-hubert (1 layer, l0 first)", "features:my-hubert (3 layers, l0 first)"]),
        (
            {"hop_seconds": None, "first_center_seconds": None},
            None,
            ["features:my-hubert (every 20 ms from 12.5 ms)", "features:my-hubert (one vector an utterance)"],
        ),
    ],
)
def test_other_models_and_other_declarations_of_one_name_are_told_apart(
    tmp_path: Path, changed: dict[str, Any], layers: tuple[str, ...] | None, names: list[str]
) -> None:
    features(tmp_path, "noisy", **OF_NOISY, declared=declared())
    other: dict[str, Any] = {} if layers is None else {"layer_names": layers}
    features(tmp_path, "clean", **OF_CLEAN, declared=declared(**changed), **other)
    assert systems(report_of(tmp_path)) == names


def test_declarations_that_words_cannot_tell_apart_are_still_two_rows(tmp_path: Path) -> None:
    features(tmp_path, "noisy", **OF_NOISY, declared=declared(), layer_names=("one", "two", "three"))
    features(tmp_path, "clean", **OF_CLEAN, declared=declared(), layer_names=("one", "2", "three"))
    found = systems(report_of(tmp_path))
    assert len(set(found)) == 2
    assert all(name.startswith("features:my-hubert (55555555, ") for name in found), found


def test_a_declared_name_and_a_folder_of_that_name_are_two_rows(tmp_path: Path) -> None:
    features(tmp_path, "my-hubert", **OF_NOISY)
    features(tmp_path, "clean", **OF_CLEAN, declared=declared())
    assert systems(report_of(tmp_path)) == ["features:my-hubert (55555555)", "features:my-hubert (aaaaaaaa)"]


def test_of_two_sets_of_files_the_newest_counts_and_none_are_averaged(tmp_path: Path) -> None:
    """Seed 0 of old files and seed 1 of new ones are no mean over seeds."""
    old, new = {**OF_NOISY, "weights": "a" * 64}, {**OF_NOISY, "weights": "c" * 64}
    features(tmp_path, "first", **old, declared=declared(), seed=0, skill=0.3)
    features(tmp_path, "second", **new, declared=declared(), seed=1, skill=0.9, created="2026-02-02T00:00:00+00:00")
    found = report_of(tmp_path)
    (cell,) = found["cells"]
    assert [each["seed"] for each in cell["records"]] == [1]
    assert cell["value"] > 0.8
    (note,) = notes(found, "my-hubert")
    assert "features:my-hubert: records on synthetic:noisy:tiny are of 2 sets of files" in note
    assert "/data/of-somebody/second (cccccccc), /data/of-somebody/first (aaaaaaaa)" in note
    assert "another `model`" in note
    records = [read_record(path) for path in sorted(tmp_path.rglob("record.json"))]
    printed = printed_of(matrix_table(records))
    assert "of 2 sets of files" in " ".join(printed.split())
    assert "0.890" in printed


def test_files_that_differ_between_tasks_of_a_corpus_are_noted(tmp_path: Path) -> None:
    features(tmp_path, "first", **OF_NOISY, declared=declared())
    features(tmp_path, "second", **{**OF_NOISY, "weights": "c" * 64}, declared=declared(), task="sentiment")
    found = report_of(tmp_path)
    assert systems(found) == ["features:my-hubert"]
    assert len(notes(found, "those of other tasks or layers may be of another")) == 1


def test_units_have_their_form_in_the_name(tmp_path: Path) -> None:
    for number, form in enumerate(("onehot", "centroids")):
        for options in (OF_NOISY, OF_CLEAN):
            of_units = declared(name="codec", width=(32, 8)[number], num_units=32, form=form)
            suffix = "" if form == "onehot" else "?form=centroids"
            weights = f"{options['weights'][:60]}{number}000"
            write(tmp_path, upstream=f"units:/u/{options['corpus']}{suffix}", **{**options, "weights": weights},
                  declared=of_units, layer_names=("units",))  # fmt: skip
    assert systems(report_of(tmp_path)) == ["units:codec", "units:codec?form=centroids"]


def printed_of(table: Any) -> str:
    console = Console(width=300, record=True)
    console.print(table)
    return console.export_text()


def test_what_a_run_prints_has_the_declared_name(tmp_path: Path) -> None:
    paths = [features(tmp_path, "noisy", **OF_NOISY, declared=declared()),
             features(tmp_path, "clean", **OF_CLEAN, declared=declared())]  # fmt: skip
    printed = printed_of(results_table([read_record(path) for path in paths]))
    assert printed.count("features:my-hubert ") == 2
    assert "(aaaaaaaa)" not in printed
    paths.append(features(tmp_path, "other", **OF_CLEAN, declared=declared(width=5)))
    printed = printed_of(results_table([read_record(path) for path in paths]))
    assert "features:my-hubert (aaaaaaaa)" in printed


def test_a_record_keeps_the_field_and_shows_it(tmp_path: Path) -> None:
    path = features(tmp_path, "noisy", **OF_NOISY, declared=declared())
    record = read_record(path)
    assert record.upstream.declared is not None
    assert record.upstream.name == "features:/data/of-somebody/noisy"
    text = record_text(find_record(path.parent))
    assert f"my-hubert, model {'5' * 64}, every 0.02 s from 0.0125 s, width 768" in text


def test_a_declaration_that_was_changed_later_is_named(tmp_path: Path) -> None:
    path = features(tmp_path, "noisy", **OF_NOISY, declared=declared())
    assert verify_record(path.parent).holds
    fields = json.loads(path.read_text("utf-8"))
    fields["upstream"]["declared"]["model"] = "6" * 64
    path.write_text(json.dumps(fields))
    verdict = verify_record(path.parent)
    assert not verdict.holds
    assert any("upstream.declared" in str(change) for change in verdict.changes), verdict.changes


def test_records_without_the_field_are_those_of_before(tmp_path: Path) -> None:
    path = write(tmp_path)
    fields = json.loads(path.read_text("utf-8"))
    assert "declared" not in fields["upstream"]
    assert "upstream.declared" not in fields["seal"]
    del fields["id"], fields["seal"], fields["schema"]
    assert sealed_record(fields).id == path.parent.name
