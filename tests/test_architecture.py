"""The arrows of the design point one way, and the front door is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import repbench

SOURCE = Path(repbench.__file__).parent

LAYERS = {
    "errors": 0, "progress": 0,
    "files": 1, "globalstate": 1, "other_files": 1,
    "registry": 2, "configs": 2,
    "audio": 3, "corpora": 3, "scaffold": 3,
    "upstream": 4, "downstream": 4,
    "benchmark": 5, "doctor": 5,
    "testing": 6, "console": 6, "cli": 7, "__main__": 8, "__init__": 9,
}  # fmt: skip
"""Each part may import what stands lower, and itself; `corpora` reads sound through `audio`."""

ALLOWED_SIDEWAYS = {("corpora", "audio"), ("files", "errors")}


def part_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_parts(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {
        f"repbench.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "repbench"
        for alias in node.names
    }
    return {name.split(".")[1] for name in names if name.startswith("repbench.")}


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_one_way(path: Path) -> None:
    own = part_of(path)
    for other in imported_parts(path) - {own}:
        assert LAYERS[other] < LAYERS[own] or (own, other) in ALLOWED_SIDEWAYS, f"{own} must not import {other}"


@pytest.mark.parametrize("module", ["repbench", "repbench.cli", "repbench.registry"])
def test_the_front_door_loads_nothing_heavy(module: str) -> None:
    code = (
        f"import sys, {module}; "
        "heavy = {'torch', 'torchaudio', 'numpy', 'sklearn', 'scipy', 'soundfile', 'pydantic'} & set(sys.modules); "
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (finished.returncode, finished.stderr) == (0, "")


def test_the_public_names_are_there() -> None:
    assert repbench.__all__ == ["evaluate", "load_upstream", "pretrain", "pretraining_optimizer", "read_records"]
    assert callable(repbench.evaluate)
    assert repbench.load_upstream("mel").info.name == "mel"
    with pytest.raises(AttributeError, match="no attribute 'pretain'"):
        repbench.pretain  # noqa: B018


def test_nothing_in_the_package_can_run_a_pickle() -> None:
    forbidden = ("weights_only=" + "False", "pickle.load", "allow_pickle=" + "True", "import dill", "joblib.load")
    for path in SOURCE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not [word for word in forbidden if word in text], path
