"""What docs/plugins.md shows works as it stands, and it names every check there is."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from repbench.corpora.contract import Utterance
from repbench.corpora.synthetic import build
from repbench.corpora.synthetic.conditions import CONDITIONS, SIZES, SyntheticSpec
from repbench.corpora.synthetic.plan import plan
from repbench.testing import tone_corpus
from repbench.testing.downstreams import DOWNSTREAM_CHECKS
from repbench.testing.heads import HEAD_CHECKS
from repbench.testing.upstreams import UPSTREAM_CHECKS
from tests.commands import repbench

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "plugins.md"
HEAD = "class MeanAndDeviation"
TINY = ROOT / "examples" / "repbench-tiny-plugin"


def lines_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


def test_the_page_grows_the_example_line_by_line() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    grown = [line for block in blocks if "Suite" not in block and HEAD not in block for line in lines_of(block)]

    assert grown == lines_of((TINY / "tiny_plugin.py").read_text(encoding="utf-8"))


def test_the_example_is_tiny() -> None:
    files = sorted(path.name for path in TINY.iterdir() if path.is_file())
    code = [line for name in files if name != "README.md" for line in lines_of((TINY / name).read_text("utf-8"))]

    assert files == ["README.md", "pyproject.toml", "test_tiny_plugin.py", "tiny_plugin.py"]
    assert len(code) < 80


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), [("upstream", "loudness"), ("downstream", "long-or-short")])
def test_the_example_keeps_its_promises(kind: str, name: str) -> None:
    done = repbench("check", kind, name, "--plugin", TINY / "tiny_plugin.py")

    assert done.code == 0, done.out


def test_the_head_of_the_page_keeps_its_promises(tmp_path: Path) -> None:
    (block,) = [each for each in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S) if HEAD in each]
    (tmp_path / "my_head.py").write_text(block)

    done = repbench("check", "head", "mean_and_deviation", "--plugin", tmp_path / "my_head.py")

    assert done.code == 0, done.out


def test_every_check_is_described_in_order() -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## `repbench check`")[2]
    named = re.findall(r"`([a-z-]+)`", "\n".join(re.findall(r"^\| (`.*?) \|", section, re.M)))

    assert named == [check.id for check in (*UPSTREAM_CHECKS, *DOWNSTREAM_CHECKS, *HEAD_CHECKS)]


def test_every_check_has_a_promise() -> None:
    for check in (*UPSTREAM_CHECKS, *DOWNSTREAM_CHECKS, *HEAD_CHECKS):
        assert len(check.promise) > 20, check.id


def test_the_fields_that_a_task_reads_are_those_of_an_utterance(tmp_path: Path) -> None:
    section = PAGE.read_text("utf-8").partition("### What a task reads")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    told = {name: tuple(row[2:]) for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert told.keys() == {*(each.name for each in fields(Utterance)), "seconds"}
    tone = tone_corpus(tmp_path / "tones", num_speakers=1).utterances[0]
    spec = SyntheticSpec(CONDITIONS["clean"], SIZES["tiny"])
    spoken = build._draft_utterance(plan(spec)[0], tone.phones or (), tmp_path)
    for name, (synthetic, tones) in told.items():
        assert (tones != "–") == bool(getattr(tone, name)), name
        # what a draft lacks is read off the sound
        assert (synthetic != "–") == bool(getattr(spoken, name, name not in {"scales", "features_sha256"})), name
    assert told["attributes"] == tuple(f"`{next(iter(each.attributes))}`" for each in (spoken, tone))


TEXT_TASK = """
from repbench.downstream.speaker import Speaker
from repbench.errors import Unlabelled

class WordCount(Speaker):
    def labels(self, utterance):
        if utterance.text is None:
            raise Unlabelled("it has no text")
        return str(len(utterance.text.split()))
"""


@pytest.mark.slow
def test_the_fixture_of_the_page_gives_a_task_the_labels_that_it_needs(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S)
    (block,) = [each for each in blocks if "TestWordCount" in each]
    (tmp_path / "my_package.py").write_text(TEXT_TASK)
    (tmp_path / "test_it.py").write_text(block)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, "failed" in done.stdout) == (0, False), done.stdout
