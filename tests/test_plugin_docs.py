"""What docs/plugins.md shows works as it stands, and it names every check there is."""

from __future__ import annotations

import re
from pathlib import Path

from repbench.testing.downstreams import DOWNSTREAM_CHECKS
from repbench.testing.upstreams import UPSTREAM_CHECKS
from tests.commands import repbench

PAGE = Path(__file__).parent.parent / "docs" / "plugins.md"


def test_the_example_keeps_its_promises(tmp_path: Path) -> None:
    (source,) = [
        block
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
        if "class Loud" in block
    ]
    (tmp_path / "loudness.py").write_text(source)

    done = repbench("check", "upstream", "loudness", "--plugin", tmp_path / "loudness.py")

    assert done.code == 0, done.out


def test_every_check_is_described_in_order() -> None:
    named = re.findall(r"`([a-z-]+)`", "\n".join(re.findall(r"^\| (`.*?) \|", PAGE.read_text(encoding="utf-8"), re.M)))

    assert named == [check.id for check in (*UPSTREAM_CHECKS, *DOWNSTREAM_CHECKS)]


def test_every_check_has_a_promise() -> None:
    for check in (*UPSTREAM_CHECKS, *DOWNSTREAM_CHECKS):
        assert len(check.promise) > 20, check.id
