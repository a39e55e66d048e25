"""The notebook of examples/ runs from its first cell to its last, in a kernel, and is kept without outputs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
NOTEBOOK = EXAMPLES / "first_study.ipynb"


def cells(kind: str) -> list[dict[str, Any]]:
    every = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in every if cell["cell_type"] == kind]


def test_it_is_kept_without_outputs() -> None:
    for cell in cells("code"):
        assert (cell["outputs"], cell["execution_count"]) == ([], None), "clear the outputs before the file is saved"
        assert len(cell["source"]) <= 30, "a cell is read at one glance"


def test_its_links_lead_somewhere() -> None:
    found = re.findall(r"\]\(([^)]+)\)", "".join("".join(cell["source"]) for cell in cells("markdown")))
    assert len(found) >= 6
    assert [link for link in found if not (EXAMPLES / link).exists()] == []


@pytest.mark.slow
def test_it_runs_and_shows_what_it_says(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed: pip install 'repbench[dev]'")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: pip install 'repbench[dev]'")
    pytest.importorskip("espeakng_loader", reason="needs the extra `demo`, which brings espeak-ng")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 2
    assert "192 utterances of 12 speakers" in printed
    assert len(re.findall(r"^ +(?:apc +[012]|mel +last) +0\.\d{3} +0\.\d{3} +0\.\d{3} +0\.115$", printed, re.M)) == 4
    found = re.search(r"minus mel: ([+-][\d.]+), 95 % from ([+-][\d.]+) to ([+-][\d.]+)\np = ([\d.]+)", printed)
    assert found is not None
    value, low, high, p_value = map(float, found.groups())
    assert low < value < high
    assert (p_value < 0.05) is not (low <= 0 <= high)
    assert (tmp_path / "first_study" / "report" / "index.html").is_file()
