"""docs/conditions.md has the severities, kinds and presets of the code."""

from __future__ import annotations

import re
from pathlib import Path

from repbench.audio.disturbances.base import number
from repbench.audio.disturbances.condition import KINDS, PRESETS, parse_condition
from repbench.audio.disturbances.severities import TABLE

PAGE = (Path(__file__).parents[3] / "docs" / "conditions.md").read_text(encoding="utf-8")


def row_of(head: str) -> str:
    """The row of the page's table of severities, from the table of the code."""
    kind, _, variant = head.partition(":")
    ranges = next(each.ranges for each in KINDS if each.kind == kind and variant in ("", each.variant))
    units = {name: f" ({ranges[name].unit})" if ranges[name].unit else "" for name in TABLE[head][0]}
    names = ", ".join(f"`{name}`{unit}" for name, unit in units.items())
    cells = (", ".join(number(value) for value in row.values()) for row in TABLE[head])
    return f"| `{head}` | {names} | {' | '.join(cells)} |"


def test_the_page_has_each_row_of_the_table_of_severities_and_no_other() -> None:
    rows = [row_of(head) for head in TABLE]
    _, _, after = PAGE.partition("| kind | values |")
    table = [line for line in after.partition("\n\n")[0].splitlines() if line.startswith("| `")]
    assert table == rows


def test_the_page_has_a_row_for_each_kind_with_texts_that_are_read() -> None:
    _, _, after = PAGE.partition("| text | what happens |")
    lines = [line for line in after.partition("\n\n")[0].splitlines() if line.startswith("| `")]
    texts = [text for line in lines for text in re.findall(r"`([^`]+)`", line.split("|")[1])]
    conditions = [parse_condition(text) for text in texts]
    assert {type(step) for condition in conditions for step in condition.steps} == set(KINDS)


def test_the_page_has_the_conditions_of_the_preset() -> None:
    _, _, after = PAGE.partition("`--conditions robust` is")
    listed = re.findall(r"`([^`]+)`", after.partition("\n\n")[0])
    assert listed == list(PRESETS["robust"])
