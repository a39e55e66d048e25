"""The page of a leaderboard: made again from its folder, by whatever names."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import unicodedata
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from repbench.benchmark.leaderboard import Leaderboard
from repbench.benchmark.leaderboard.page import build
from repbench.benchmark.protocol import ProbeSettings, Protocol
from repbench.benchmark.records.verify import verify_record
from repbench.benchmark.run import RunRequest, run
from repbench.errors import DataError
from repbench.testing import tone_corpus
from tests.benchmark.forging import copied, edit, put
from tests.commands import repbench

QUICK = Protocol(probe=ProbeSettings(steps=20, hidden_units=16, selection_points=2))

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    '=HYPERLINK("http://evil.example","click")',
    "[click](javascript:alert(1)) | **bold** | `code`",
    r"\input{/etc/passwd} $x$ % \write18{id}",
    "\x1b[2J\x1b]0;owned\x07",
    "\u202egnp.exe",
    "x" * 10_000,
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record of a real run."""
    folder = tmp_path_factory.mktemp("page")
    tone_corpus(folder / "tones")
    request = RunRequest(
        upstream="mel", downstream="speaker", corpus=str(folder / "tones"), out=folder / "runs", protocol=QUICK
    )
    return run(request)[0].path.parent


@pytest.fixture
def board(made: Path, tmp_path: Path) -> Path:
    """A leaderboard with that record."""
    record = json.loads((made / "record.json").read_text(encoding="utf-8"))
    probe = {"steps": 20, "hidden_units": 16, "selection_points": 2}
    question = {"task": "speaker", "corpus": record["corpus"]["fingerprint"], "protocols": [{"probe": probe}]}
    head = {"title": "Tones <b>of</b> =1+1", "rules": "Be *kind*.\n\n<i>Twice</i>.", "questions": [question]}
    (tmp_path / "board").mkdir()
    (tmp_path / "board" / "leaderboard.yaml").write_text(json.dumps(head), encoding="utf-8")
    Leaderboard(tmp_path / "board").add(made)
    return tmp_path / "board"


class Elements(HTMLParser):
    """Every element of a page with its attributes' names, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements[f"{tag} {' '.join(sorted(name for name, _ in attributes))}"] += 1

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_page_is_made_again_from_the_folder(board: Path) -> None:
    done = repbench("leaderboard", "build", board, "--json")
    assert (done.code, done.err.count("error")) == (0, 0)
    first = digests(board / "page")
    assert set(done.json["files"]) == {
        str(board / "page" / name) for name in ("index.html", "report.md", "report.tex", "results.csv", "results.json")
    }
    build(Leaderboard(board), board / "elsewhere")
    assert digests(board / "elsewhere") == first


def test_title_and_rules_are_on_the_page_and_nothing_but_text(board: Path) -> None:
    build(Leaderboard(board), board / "page")
    page = Elements((board / "page" / "index.html").read_text(encoding="utf-8"))
    assert {"Tones <b>of</b> =1+1", "Be *kind*.", "<i>Twice</i>."} <= set(page.texts)
    written = (board / "page" / "report.md").read_text(encoding="utf-8")
    assert written.startswith("# Tones &lt;b&gt;of&lt;/b&gt; =1+1\n\nBe \\*kind\\*.\n")
    assert r"\textless{}b\textgreater{}" in (board / "page" / "report.tex").read_text(encoding="utf-8")


def test_what_stands_beside_the_page_can_be_verified(board: Path) -> None:
    build(Leaderboard(board), board / "page")
    (folder,) = (board / "page" / "records").iterdir()
    assert verify_record(folder).holds
    (cell,) = json.loads((board / "page" / "results.json").read_text(encoding="utf-8"))["cells"]
    assert [run["path"] for run in cell["records"]] == [f"records/{folder.name}/record.json"]


def test_a_submission_that_was_taken_back_leaves_the_page(board: Path, made: Path, tmp_path: Path) -> None:
    other = copied(made, tmp_path / "other")
    edit(other, put("seed", value=7), sealed_anew=True)
    added = Leaderboard(board).add(other)
    build(Leaderboard(board), board / "page")
    assert len(list((board / "page" / "records").iterdir())) == 2
    mine = board / "page" / "records" / "notes"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine", encoding="utf-8")
    added.path.unlink()
    build(Leaderboard(board), board / "page")
    assert len(list((board / "page" / "records").iterdir())) == 2, "the folder of notes is nobody's but the reader's"
    assert not (board / "page" / "records" / added.record.id).exists()


def test_what_does_not_hold_is_left_out_and_said(board: Path) -> None:
    (good,) = (board / "submissions").iterdir()
    bad = good.with_name("0123456789abcdef.json")
    bad.write_text(good.read_text(encoding="ascii").replace('"seed": 0', '"seed": 1'), encoding="ascii")
    done = repbench("leaderboard", "build", board)
    assert done.code == 4
    assert f"error: This file is not named after its record, {good.stem} (file {bad})" in done.err
    page = (board / "page" / "index.html").read_text(encoding="utf-8")
    assert "Records left out" in page
    assert "submissions/0123456789abcdef.json" in page
    assert len(list((board / "page" / "records").iterdir())) == 1


def test_a_leaderboard_without_submissions_says_so(board: Path) -> None:
    for path in (board / "submissions").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="There is no submission"):
        build(Leaderboard(board), board / "page")


@pytest.mark.slow
def test_hostile_names_are_inert_everywhere(board: Path, made: Path, tmp_path: Path) -> None:
    """FAULTS 46: in HTML, embedded JSON, CSV, Markdown, LaTeX, and on the terminal."""
    places = []
    for number, name in enumerate(["plain"] * len(HOSTILE) + HOSTILE):
        folder = copied(made, tmp_path / f"named{number}")
        for field in ("name", "checkpoint", "fingerprint"):
            edit(folder, put("upstream", field, value=name), sealed_anew=True)
        edit(folder, put("seed", value=number), sealed_anew=True)
        edit(folder, put("corpus", "warnings", value=[name]), sealed_anew=True)
        edit(folder, put("environment", "cpu", value=name), sealed_anew=True)
        edit(folder, put("layer", value=f"{number % len(HOSTILE)} {name}"), sealed_anew=True)
        places.append(folder)
    tame = places[: len(HOSTILE)]
    added = repbench("leaderboard", "add", *tame, "--to", board)
    assert added.code == 0, added.err
    build(Leaderboard(board), board / "page")
    kinds = set(Elements((board / "page" / "index.html").read_text(encoding="utf-8")).elements)
    for line in added.out.splitlines():
        Path(line).unlink()

    added = repbench("leaderboard", "add", *places[len(HOSTILE) :], "--to", board)
    assert added.code == 0, added.err
    built = repbench("leaderboard", "build", board)
    assert built.code == 0, built.err
    for text in (added.out, added.err, built.out, built.err):
        assert not [c for c in text if unicodedata.category(c) in {"Cc", "Cf"} and c != "\n"]
    for path in (board / "submissions").iterdir():
        assert not set(path.read_bytes()) - set(range(0x20, 0x7F)) - {0x0A}, "what a reviewer sees is plain ASCII"

    page = (board / "page" / "index.html").read_text(encoding="utf-8")
    ours = {"wbr ", "details ", "summary "}  # a break in a name with colons, and costs of several tasks as a range
    assert set(Elements(page).elements) <= kinds | ours, "no element and no attribute came in by a name"
    assert len(re.findall(r"<script", page)) == 1
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "x" * 5000 not in page
    with (board / "page" / "results.csv").open(encoding="utf-8", newline="") as stream:
        cells = [cell for row in csv.reader(stream) for cell in row]
    assert any("HYPERLINK" in cell for cell in cells)
    assert not [cell for cell in cells if cell.startswith(("=", "+", "@", "\t", "\r"))]
    written = (board / "page" / "report.md").read_text(encoding="utf-8")
    outside_of_code = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", written)
    assert not re.search(r"<[a-z/]|(?<!\\)\[click|\x1b|\u202e", outside_of_code)
    tex = (board / "page" / "report.tex").read_text(encoding="utf-8")
    assert not re.search(r"\\input\{|\\write18", tex.partition(r"\begin{document}")[2])
