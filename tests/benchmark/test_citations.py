"""What a report tells its readers to cite."""

from __future__ import annotations

import json
import re
import webbrowser
from pathlib import Path

import pytest
import yaml

from repbench.benchmark.records.record import Record, read_record, sealed_record
from repbench.benchmark.report import ReportRequest, WrittenReport, write_report
from repbench.benchmark.report.data import citations as known
from repbench.cli import app
from repbench.errors import EnvironmentFault, UsageError
from repbench.registry import registry
from tests.benchmark.report_records import small_grid


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("citations")
    small_grid(folder)
    return folder


@pytest.fixture(scope="module")
def written(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> WrittenReport:
    return write_report(ReportRequest(runs=(runs,), out=tmp_path_factory.mktemp("report")))


def test_repbench_models_and_corpora_are_named_once(runs: Path, written: WrittenReport) -> None:
    records = [read_record(path) for path in runs.rglob("record.json")]
    found = [(each.kind, each.name) for each in written.report.citations]

    assert len(found) == len(set(found))
    assert {name for kind, name in found if kind == "model"} == {each.upstream.name for each in records}
    assert {name for kind, name in found if kind == "corpus"} == {each.corpus.name for each in records}
    assert found[0][0] == "software"


@pytest.mark.parametrize("file", ["report.md", "index.html", "report.tex", "results.json"])
def test_every_form_has_them(file: str, written: WrittenReport) -> None:
    (path,) = (path for path in written.files if path.name == file)
    text = path.read_text(encoding="utf-8")
    assert "To cite" in text or '"citations"' in text
    for each in written.report.citations:
        assert each.name.replace("_", "\\_") in text or each.name in text


@pytest.mark.slow
def test_the_command_prints_them(runs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    app(["report", str(runs), "--out", str(tmp_path), "--format", "md", "-q"], standalone_mode=False)
    lines = capfd.readouterr().out.splitlines()
    block = lines[lines.index("CITATION") + 1 :]
    assert block[0].startswith("  repbench ")
    assert "(licence: MIT)" in block[0]

    app(["report", str(runs), "--out", str(tmp_path), "--format", "md", "--json", "-q"], standalone_mode=False)
    printed = json.loads(capfd.readouterr().out)
    assert printed["citations"] == [line.strip() for line in block if line.startswith("  ")]


def test_a_known_corpus_has_its_publication_and_what_it_declares(tmp_path: Path, runs: Path) -> None:
    source = min(runs.rglob("record.json"))
    (tmp_path / "x").mkdir()
    for file in source.parent.iterdir():
        (tmp_path / "x" / file.name).write_bytes(file.read_bytes())
    fields = json.loads(source.read_text(encoding="utf-8"))
    record = resealed(fields | {"corpus": fields["corpus"] | {"name": "ljspeech", "licence": "public domain"}})
    (tmp_path / "x" / "record.json").write_text(json.dumps(record.as_dict()), encoding="utf-8")

    report = write_report(ReportRequest(runs=(tmp_path,), out=tmp_path / "report")).report

    (corpus,) = (each for each in report.citations if each.kind == "corpus")
    assert corpus.line == "ljspeech: Ito and Johnson, The LJ Speech dataset, 2017 (licence: public domain)"


def resealed(fields: dict[str, object]) -> Record:
    return sealed_record({name: value for name, value in fields.items() if name not in {"schema", "id", "seal"}})


def test_what_declares_itself_unknown_is_not_cited_as_such() -> None:
    assert known._known("unknown") is known._known("Unknown") is known._known(None) is None
    assert known._known("MIT") == "MIT"
    assert known.Citation("corpus", "calls", None, None).line == "calls: no publication is known"


def test_the_tables_name_what_there_is() -> None:
    layouts = {entry.name for entry in registry().entries("corpus")}
    assert known.CORPORA.keys() <= layouts | {"mosei"}
    assert known.TASKS.keys() <= {entry.name for entry in registry().entries("downstream")}
    for publication in (*known.CORPORA.values(), *known.TASKS.values()):
        assert re.search(r"\b(19|20)\d\d\b", publication), publication


def test_repbench_is_cited_as_its_citation_file_says() -> None:
    file = yaml.safe_load((Path(__file__).parents[2] / "CITATION.cff").read_text(encoding="utf-8"))
    assert (file["title"], file["license"]) == (known.TITLE, known.LICENCE)
    assert [each["name"] for each in file["authors"]] == [known.AUTHORS]


# the browser


@pytest.mark.slow
def test_open_shows_the_page(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []

    def show(url: str) -> bool:
        seen.append(url)
        return True

    monkeypatch.setattr(webbrowser, "open", show)
    app(["report", str(runs), "--out", str(tmp_path), "--open", "-q"], standalone_mode=False)
    assert seen == [(tmp_path / "index.html").resolve().as_uri()]

    monkeypatch.setattr(webbrowser, "open", lambda url: False)
    with pytest.raises(EnvironmentFault, match="No browser"):
        app(["report", str(runs), "--out", str(tmp_path), "--open", "-q"], standalone_mode=False)
    with pytest.raises(UsageError, match="no page to open"):
        app(["report", str(runs), "--out", str(tmp_path), "--open", "--format", "md"], standalone_mode=False)
