"""The arrows of the design point one way, and the front door is light."""

from __future__ import annotations

import ast
import itertools
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import architecture
import repbench

SOURCE = Path(repbench.__file__).parent

LAYERS = {
    "errors": 0, "progress": 0, "moved": 0,
    "files": 1, "tensor_files": 1, "globalstate": 1, "other_files": 1, "foreign_plugins": 1, "processors": 1,
    "process_end": 1,
    "registry": 2, "configs": 2, "torch_pairs": 2, "codebook": 2, "locks": 2, "matplotlib_style": 2,
    "training": 3, "audio": 3, "corpora": 4, "scaffold": 3,
    "upstream": 5, "downstream": 5,
    "benchmark": 6, "doctor": 6,
    "testing": 7, "console": 7, "cli": 8, "__main__": 9, "__init__": 10,
}  # fmt: skip
"""Each part may import what stands lower, and itself."""

ALLOWED = {("files", "errors")}
"""Arrows between parts of one layer, and those of packages to the table of their old names."""

ROOMS = {
    "benchmark": {
        "demo": {"pipeline", "protocol", "report", "run"},
        "sweep": {"environment", "pipeline", "protocol", "records", "run"},
        "dry_run": {"data", "features", "pipeline", "run"},
        "run": {"data", "environment", "features", "loading", "pipeline", "probing", "records"},
        "leaderboard": {"data", "protocol", "records", "report", "scoring"},
        "comparison": {
            "environment", "features", "loading", "pipeline", "protocol", "report", "scoring", "similarity",
        },
        "planning": {"data", "features", "loading", "protocol", "records", "report", "scoring"},
        "pipeline": {
            "data", "environment", "features", "finetuning", "loading", "probing", "protocol", "records", "scoring",
        },
        "plots": {"features", "loading", "probing", "records"},
        "report": {"protocol", "records", "scoring", "similarity"},
        "similarity": {"data", "features", "scoring"},
        "records": {"loading", "probing", "scoring"},
        "finetuning": {"data", "features", "loading", "probing", "protocol"},
        "probing": {"data", "features", "protocol"},
        "scoring": {"data"},
        "features": {"environment", "loading", "protocol"},
        "data": {"protocol"},
        "loading": set(), "environment": set(), "protocol": set(),
    },
    "upstream": {
        "convert": {"apc", "checkpoints", "contract", "convert_whisper", "mockingjay"},
        "convert_whisper": {"checkpoints"},
        "pretraining": {"checkpoints", "contract"},
        "mockingjay": {"checkpoints", "contract", "dropout", "spectrograms"},
        "apc": {"checkpoints", "contract", "dropout", "spectrograms"},
        "adapters": {"checkpoints", "contract", "training_data"},
        "checkpoints": {"contract", "training_data"},
        "frontends": {"contract"},
        "spectrograms": {"contract"},
        "windowed": {"contract", "spectrograms"},
        "contract": {"training_data"}, "dropout": set(), "training_data": set(),
    },
    "corpora": {
        "synthetic": {"contract", "manifest"},
        "audit": {"contract", "faults", "manifest"},
        "open": {"contract", "manifest"},
        "read": {"conditions", "contract", "manifest"}, "conditions": {"contract"},
        "manifest": {"alignments", "contract", "faults", "layouts", "rttm", "safe_paths", "textfiles", "turns"},
        "export": {"contract", "durations", "exported_facts", "layouts", "rttm"},
        "layouts": {
            *("alignments", "contract", "durations", "exported_facts", "faults", "safe_paths", "textfiles"),
        },
        "exported_facts": {"contract"}, "durations": set(),
        "turns": {"alignments", "contract", "safe_paths", "textfiles"}, "rttm": {"contract", "textfiles"},
        "alignments": {"contract", "phone_sets", "textfiles"},
        "faults": {"contract"}, "phone_sets": {"contract"}, "families": set(),
        "contract": set(), "safe_paths": set(), "textfiles": set(),
    },
}  # fmt: skip
"""Of the rooms of a part, which others each imports; drawn in docs/architecture.md."""

LONGEST = 450
"""Lines of a module, unless it says at its head why it is longer."""


MODULES = architecture.modules_of(SOURCE)
IMPORTS = architecture.import_graph(SOURCE)


@pytest.mark.parametrize("name", [name for name in MODULES if name])
def test_imports_point_one_way(name: str) -> None:
    own = name.split(".")[0]
    for other in {each.split(".")[0] for each in IMPORTS[name]} - {own}:
        assert LAYERS[other] < LAYERS[own] or (own, other) in ALLOWED, f"{own} must not import {other}"


@pytest.mark.parametrize("part", ROOMS)
def test_the_rooms_of_a_part_import_as_they_are_drawn(part: str) -> None:
    assert architecture.rooms_of(IMPORTS, part) == ROOMS[part]


@pytest.mark.parametrize("part", ROOMS)
def test_the_rooms_of_a_part_are_without_a_circle(part: str) -> None:
    order = TopologicalSorter(ROOMS[part])
    assert len([*order.static_order()]) == len(ROOMS[part])


def test_the_picture_is_that_of_the_code() -> None:
    drawn = architecture.PICTURE.read_text(encoding="utf-8")
    assert drawn == architecture.picture(SOURCE), "run `python tools/architecture.py`"


@pytest.mark.parametrize("part", architecture.PANELS)
def test_no_box_of_the_picture_covers_another(part: str) -> None:
    width = next(width for width, column in architecture.COLUMNS if part in column)
    boxes, _ = architecture.lay_out(architecture.rooms_of(IMPORTS, part), width - 2 * architecture.MARGIN)
    shown = [box for box in boxes.values() if box.name]
    covered = [
        (one.name, other.name)
        for one, other in itertools.combinations(shown, 2)
        if abs(one.x - other.x) < (one.width + other.width) / 2 - 0.1 and abs(one.y - other.y) < architecture.BOX
    ]
    assert covered == []


def test_arrows_that_follow_from_others_are_left_out_of_the_picture() -> None:
    graph = {"run": {"probing", "data"}, "probing": {"data"}, "data": set()}

    assert architecture.without_implied(graph) == {"run": {"probing"}, "probing": {"data"}, "data": set()}
    assert architecture.floors_of(graph) == {"run": 2, "probing": 1, "data": 0}


@pytest.mark.parametrize("name", MODULES)
def test_a_long_module_says_why(name: str) -> None:
    text = MODULES[name].read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(text)) or ""
    assert text.count("\n") <= LONGEST or "Longer than others" in docstring, f"{name}: {text.count(chr(10))} lines"


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
