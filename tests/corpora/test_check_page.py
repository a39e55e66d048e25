"""The page of an audit: figures with real text, and names that are nothing but text."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from repbench.corpora import manifest
from repbench.corpora.audit.check import check
from repbench.corpora.audit.page import refuse_other_page, write_page
from repbench.corpora.contract import Draft, DraftUtterance
from repbench.errors import UsageError
from tests.commands import repbench
from tests.corpora.sounds import noise_draft, write_noise

HOSTILE = [
    "<script>alert(1)</script>",
    "</svg><img src=x onerror=alert(1)>",
    '" onload="alert(1)',
    "--><b>",
    "{{ 7 * 7 }}",
    "$\\frac{1}{2}$",
    "\x1b[31mred\u202egnp",
    "x" * 10_000,
]


class Elements(HTMLParser):
    """Every element and attribute of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in {"href", "src", "xlink:href"}]

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(folder: Path, names: list[str]) -> Elements:
    """The page of a corpus whose speakers, labels and texts are called `names`."""
    utterances = [
        DraftUtterance(
            id=f"u{seed} {name[:20]}",
            audio=write_noise(folder / f"{seed}.wav", seed=seed),
            speaker=name,
            attributes={name: name, "mood": name},
        )
        for seed, name in enumerate(names)
    ]
    draft = Draft(name=names[0], licence=names[0], root=folder, utterances=utterances)
    corpus = manifest.write(draft, folder)
    path = write_page(corpus, check(corpus), folder / "page")
    return Elements(path.read_text("utf-8"))


def test_fault_46_names_are_inert(tmp_path: Path) -> None:
    plain = page_of(tmp_path / "plain", [f"name{number}" for number in range(len(HOSTILE))])
    hostile = page_of(tmp_path / "hostile", HOSTILE)
    assert hostile.tags == plain.tags
    assert hostile.attributes == plain.attributes
    assert not hostile.tags & {"script", "img", "iframe", "object", "link", "b"}
    assert not [name for name in hostile.attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in hostile.text
    assert "{{ 7 * 7 }}" in hostile.text
    assert "$\\frac{1}{2}$" in hostile.text
    assert "\x1b" not in hostile.text
    assert "\u202e" not in hostile.text
    assert all(link.startswith("#") for link in hostile.links)


def test_the_page_stands_alone_and_is_the_same_each_time(tmp_path: Path) -> None:
    corpus = manifest.write(noise_draft(tmp_path / "sound"), tmp_path / "m")
    finished = repbench("corpus", "check", tmp_path / "m", "--out", tmp_path / "page", "--json")
    assert finished.code == 0
    page = (tmp_path / "page" / "index.html").read_text("utf-8")
    assert json.loads((tmp_path / "page" / "check.json").read_text("utf-8")) == finished.json
    found = Elements(page)
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page
    assert "speaker-a" in found.text
    assert {"svg", "text"} <= found.tags
    for absent in ("<dc:date>", "matplotlib.org", "<metadata>", "#010203", "#040506"):
        assert absent not in page
    again = write_page(corpus, check(corpus), tmp_path / "again")
    assert again.read_text("utf-8") == page


def test_an_audit_of_another_corpus_is_not_replaced(tmp_path: Path) -> None:
    for name in ("one", "two"):
        manifest.write(replace(noise_draft(tmp_path / name), name=name), tmp_path / f"m-{name}")
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index.html").write_text("<p>")
    (tmp_path / "page" / "check.json").write_text('{"name": "one"}')
    refuse_other_page(manifest.read(tmp_path / "m-one"), tmp_path / "page")
    refuse_other_page(manifest.read(tmp_path / "m-one"), tmp_path / "new")
    refused = repbench("corpus", "check", "--out", tmp_path / "page", tmp_path / "m-two")
    assert (refused.code, "holds the audit of another corpus, one" in refused.err) == (2, True)
    assert (tmp_path / "page" / "index.html").read_text() == "<p>"
    (tmp_path / "page" / "check.json").unlink()
    with pytest.raises(UsageError, match=r"has a `index\.html` that is no audit"):
        refuse_other_page(manifest.read(tmp_path / "m-one"), tmp_path / "page")


@pytest.mark.parametrize("num_speakers", [3, 61])
def test_many_speakers_become_a_histogram(tmp_path: Path, num_speakers: int) -> None:
    names = [f"n{number:02d}" for number in range(num_speakers)]
    corpus = manifest.write(noise_draft(tmp_path / "sound", names=names), tmp_path / "m")
    page = Elements(write_page(corpus, check(corpus), tmp_path / "page").read_text("utf-8"))
    assert ("speaker-n00" in page.text) == (num_speakers == 3)


def test_figures_are_drawn_only_when_a_page_is_asked_for() -> None:
    import subprocess
    import sys

    code = (
        "import sys, repbench.corpora.audit.check, repbench.corpora.audit.page; "
        "sys.exit(', '.join({'matplotlib', 'jinja2'} & set(sys.modules)) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
