"""The names of 0.1 keep working: each gives the object of its new name, and a DeprecationWarning with that name."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import repbench
from repbench.moved import MODULES, NAMES

SOURCE = Path(repbench.__file__).parent

IMPORT_ALL = """
import importlib, json, sys, warnings
from repbench.moved import MODULES, NAMES

def told(action):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = action()
    return value, [str(each.message) for each in caught if each.category is DeprecationWarning]

found = {}
for old, new in MODULES.items():
    present = importlib.import_module(f"repbench.{new}")
    before, on_import = told(lambda: importlib.import_module(f"repbench.{old}"))
    names = [name for name, value in vars(present).items() if getattr(value, "__module__", None) == present.__name__]
    wrong, on_use = [], []
    for name in names:
        if name.startswith("__"):
            continue
        value, messages = told(lambda: getattr(before, name))
        on_use += messages
        if value is not getattr(present, name):
            wrong.append(name)
    found[old] = {"told": on_import + on_use, "names": len(names), "wrong": wrong}
renamed = {}
for (new, old_name), name in NAMES.items():
    value = getattr(importlib.import_module(f"repbench.{new}"), name)
    places = [old for old, now in MODULES.items() if now == new]
    for old in places:
        before, messages = told(lambda: getattr(importlib.import_module(f"repbench.{old}"), old_name))
        renamed[f"{old}.{old_name}"] = {"same": before is value, "told": messages, "new": f"{new}.{name}"}
json.dump({"modules": found, "names": renamed}, sys.stdout)
"""
"""Imports every old name in one process, in the order of the table."""


@pytest.fixture(scope="module")
def old_names() -> dict[str, Any]:
    """What importing each old name gave and told."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IMPORT_ALL], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("old", MODULES)
def test_an_old_module_gives_the_objects_of_the_new_one_and_tells_it(old_names: dict[str, Any], old: str) -> None:
    found = old_names["modules"][old]

    assert found["wrong"] == []
    assert found["told"] or not found["names"]
    assert all(f"`repbench.{MODULES[old]}" in message for message in found["told"])


@pytest.mark.parametrize("new", sorted({new for new, _ in NAMES}))
def test_a_name_that_changed_is_found_under_the_old_one(old_names: dict[str, Any], new: str) -> None:
    found = {old: each for old, each in old_names["names"].items() if each["new"].startswith(f"{new}.")}

    assert found or new not in MODULES.values()
    for old, each in found.items():
        assert each["same"], old
        assert any(each["new"] in message for message in each["told"]), old


def test_every_new_name_exists() -> None:
    """Read, not imported: also where no old module leads to the new one."""
    for (module, _), name in NAMES.items():
        path = SOURCE.joinpath(*module.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        defined = {
            getattr(node, "name", None) or getattr(getattr(node, "targets", [None])[0], "id", None)
            for node in tree.body
        }
        defined |= {
            alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
        }
        defined |= {
            node.target.id
            for node in tree.body
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        }
        assert name in defined, f"{module}.{name}"


def test_names_that_never_were_are_not_found() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"repbench\.benchmark\.stagecraft"):
        importlib.import_module("repbench.benchmark.stagecraft")
    with pytest.warns(DeprecationWarning, match=r"repbench\.locks"):
        owning = importlib.import_module("repbench.benchmark.owning")
    with pytest.raises(AttributeError, match=r"'repbench\.benchmark\.owning' has no attribute 'owner'"):
        owning.owner  # noqa: B018
    from repbench.benchmark import scoring

    with pytest.raises(AttributeError, match=r"'repbench\.benchmark\.scoring' has no attribute 'score_of'"):
        scoring.score_of  # noqa: B018


@pytest.mark.parametrize("arguments", [["-c", "import repbench"], ["-m", "repbench", "list"]], ids=["import", "list"])
def test_the_package_itself_uses_no_old_name(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-W", "error", *arguments], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
