"""What docs/plugins.md shows works as it stands, and it names every check there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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
    grown = [line for block in blocks if "UpstreamSuite" not in block and HEAD not in block for line in lines_of(block)]

    assert grown == lines_of((TINY / "tiny_plugin.py").read_text(encoding="utf-8"))


def test_the_example_is_tiny() -> None:
    files = sorted(path.name for path in TINY.iterdir() if path.is_file())
    code = [line for name in files if name != "README.md" for line in lines_of((TINY / name).read_text("utf-8"))]

    assert files == ["README.md", "pyproject.toml", "test_tiny_plugin.py", "tiny_plugin.py"]
    assert len(code) < 80


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
    named = re.findall(r"`([a-z-]+)`", "\n".join(re.findall(r"^\| (`.*?) \|", PAGE.read_text(encoding="utf-8"), re.M)))

    assert named == [check.id for check in (*UPSTREAM_CHECKS, *DOWNSTREAM_CHECKS, *HEAD_CHECKS)]


def test_every_check_has_a_promise() -> None:
    for check in (*UPSTREAM_CHECKS, *DOWNSTREAM_CHECKS, *HEAD_CHECKS):
        assert len(check.promise) > 20, check.id
