"""`repbench show`: one record for a reader."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from repbench.benchmark.protocol import load_protocol
from repbench.benchmark.records.record import Record
from repbench.benchmark.report.render.record_page import FoundRecord, find_record, record_text
from repbench.benchmark.run import RunRequest, WrittenRecord, run
from repbench.cli import app
from repbench.errors import DataError
from repbench.testing import tone_corpus


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[WrittenRecord]:
    folder = tmp_path_factory.mktemp("show")
    tone_corpus(folder / "tones")
    request = RunRequest(
        upstream="mel",
        downstream="speaker",
        corpus=str(folder / "tones"),
        protocol=load_protocol(assignments=["probe.steps=20", "probe.hidden_units=8"]),
        device="cpu",
        conditions=("noise:white:10",),
        out=folder / "runs",
    )
    return run(request)


def shown(record: Record, **changes: object) -> list[str]:
    path = Path("runs/x/record.json")
    return record_text(FoundRecord(path, record.model_copy(update=changes), True, True)).splitlines()


def test_the_numbers_are_there_with_intervals_and_counts(written: list[WrittenRecord]) -> None:
    record = written[0].record
    lines = shown(record)

    assert lines[0] == f"mel on speaker, corpus {record.corpus.name}"
    (accuracy,) = [line for line in lines if line.startswith("accuracy ")]
    assert f"{record.primary.value:.3f}" in accuracy
    assert record.primary.ci95 is not None
    assert f"{record.primary.ci95[0]:.3f}–{record.primary.ci95[1]:.3f}" in accuracy
    assert f"total {record.primary.counts['total']}" in accuracy
    rows = {line.split("  ")[0].strip(): line for line in lines}
    assert f"chance {record.baselines.chance:.3f}" in rows["baselines"]
    assert f"train {record.corpus.n_train}, dev {record.corpus.n_dev}, test {record.corpus.n_test}" in rows["division"]
    assert rows["published in"].endswith(str(record.upstream.citation))
    assert "probe" not in rows, "a clean record has no condition"
    assert "condition" not in rows
    assert record.heard is not None
    assert rows["heard before"].endswith(f"{record.heard.verdict}: {'; '.join(record.heard.basis)}")
    for warning in record.corpus.warnings:
        assert f"  {warning}" in lines


def test_a_condition_is_named(written: list[WrittenRecord]) -> None:
    conditioned = written[1].record
    assert conditioned.condition is not None
    (line,) = [line for line in shown(conditioned) if line.startswith("condition")]
    assert line.endswith(f"{conditioned.condition.name} on test; trained on clean sound")
    assert f"--condition {conditioned.condition.name}" in "\n".join(shown(conditioned))


def test_utterances_left_out_are_named_with_their_reason(written: list[WrittenRecord]) -> None:
    excluded = {f"u{number:02d}": "too short" for number in range(12)}
    lines = shown(written[0].record, excluded=excluded)
    assert "left out of test: 12" in lines
    assert "  u00: too short" in lines
    assert "  … and 2 more, in record.json" in lines


def test_what_can_be_done_next_can_be_done(
    written: list[WrittenRecord], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    steps = find_record(written[0].path.parent).next_steps
    verify, report = (shlex.split(command)[1:] for what, command in steps.items() if "again" not in what)
    assert app(verify, standalone_mode=False) == 0
    assert "holds" in capfd.readouterr().out
    app([*report[:-1], str(tmp_path / "report")], standalone_mode=False)
    assert (tmp_path / "report" / "index.html").is_file()


def test_a_record_that_was_changed_says_so(
    written: list[WrittenRecord], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fields = written[0].record.as_dict()
    assert "changed after" not in record_text(find_record(written[0].path))
    (tmp_path / "record.json").write_text(json.dumps(fields | {"created": "2020-01-01"}), encoding="utf-8")

    app(["show", str(tmp_path)], standalone_mode=False)
    text = capfd.readouterr().out
    assert "record.json was changed after it was written" in text
    assert "repbench verify" not in text, "there are no predictions beside it"

    app(["show", str(tmp_path), "--json"], standalone_mode=False)
    printed = json.loads(capfd.readouterr().out)
    assert (printed["id_holds"], printed["record"]["id"]) == (False, fields["id"])


def test_one_of_several_is_to_be_named(written: list[WrittenRecord], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"There are 2 records here.*{written[0].record.id}"):
        find_record(written[0].path.parent.parent)
    with pytest.raises(DataError, match="no record here"):
        find_record(tmp_path)
