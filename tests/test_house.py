"""The measurements of a tree, on one of two modules."""

from __future__ import annotations

from pathlib import Path

import pytest

import house

FRAMES = '''"""What frames are."""
# Kept in float64.
class _Row:
    def stack(self, one, two, three, four, five, six): ...
    def shift(self, one, two, three, four, five, six, seven): ...
total = 1  # (B, F, D) -> (B, D)
other = 2  # noqa: E501
'''
TABLES = '''"""Tables of frames."""
from toy.frames import total
class Row: ...
'''


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A package of two modules."""
    source = tmp_path / "toy"
    source.mkdir()
    (source / "frames.py").write_text(FRAMES, encoding="utf-8")
    (source / "tables.py").write_text(TABLES, encoding="utf-8")
    return source


def test_comments_and_shapes_are_counted_without_directives(tree: Path) -> None:
    assert house.comment_lines(tree) == (1, 1, 10)


def test_a_class_name_of_two_modules_has_two_meanings(tree: Path) -> None:
    assert house.classes_of_two_meanings(tree) == {"Row": ["frames", "tables"]}


def test_self_is_no_parameter(tree: Path) -> None:
    assert house.functions_of_many_parameters(tree) == ["frames._Row.shift (7)"]


def test_docstrings_that_open_as_questions(tree: Path) -> None:
    assert house.docstrings_that_open_as_questions(tree) == (1, 2)


def test_a_call_to_a_module_above_is_a_climb(tree: Path) -> None:
    down, up = ["tables", "make", "frames", "shift"], ["frames", "shift", "tables", "told"]
    assert house.climbs(tree, [down, up]) == [up]
