"""Item files of the ZeroSpeech challenges."""

from __future__ import annotations

from pathlib import Path

import pytest

from repbench.downstream.discrimination.item_files import read_item_file
from repbench.downstream.discrimination.tokens import Token
from repbench.errors import DataError, UsageError

HEAD = "#file onset offset #phone prev-phone next-phone speaker"


def written(path: Path, *lines: str, head: str = HEAD) -> Path:
    path.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    return path


def test_tokens_come_by_file_with_context_and_speaker(tmp_path: Path) -> None:
    item = read_item_file(
        written(tmp_path / "a.item", "u1 0.2925 0.4725 IH L NG 6295", "dir/u2 1 2\tK N AH 84", "u1 1 2 K SIL AH 6295")
    )
    assert item.of("u1") == (
        Token(0.2925, 0.4725, "IH", "L-NG", "6295", is_closed=True),
        Token(1, 2, "K", "SIL-AH", "6295", is_closed=True),
    )
    assert item.of("u2")[0].speaker == "84"
    assert item.of("u3") == ()
    item.check(["u1", "u2", "u3"])
    with pytest.raises(DataError, match=r"Line 3 names `u2`, which is no test utterance \(1 such files\)"):
        item.check(["u1"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("u1 0 1 IH L NG", "Line 2 has 6 fields"),
        ("u1 zero 1 IH L NG 84", "Line 2 has a time that is no number"),
        ("u1 2 1 IH L NG 84", "Line 2 is from 2 to 1"),
        ("u1 0 nan IH L NG 84", "Line 2 is from 0 to nan"),
    ],
)
def test_a_line_that_is_none_is_refused_with_its_number(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_item_file(written(tmp_path / "a.item", line))


def test_another_head_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="The first line of an item file must be `#file onset"):
        read_item_file(written(tmp_path / "a.item", head="file,onset"))
    with pytest.raises(UsageError, match="There is no such item file"):
        read_item_file(tmp_path / "none.item")
