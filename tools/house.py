"""Measures how hard a tree of the package is to read: structure, ways through it, comments, names.

Usage: python tools/house.py [SRC_DIR] [--python PYTHON] [--no-run] [--json]

Prints a Markdown table; each quantity is defined in the docstring of the function that measures it. SRC_DIR holds the
package `repbench`. The ways of a request, a waveform and a record are followed in a process of PYTHON, an interpreter
in which that very tree is installed, so that trees of other versions can be measured too.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, ClassVar

from architecture import SOURCE, floors_of, import_graph, modules_of, numbers_of

REQUEST = "run --upstream {} --downstream phone --corpus synthetic:tiny --set probe.steps=50 --out runs"
"""The request that is followed; with `fbank` first, so that the corpus is there and no feature is."""

SHAPE = re.compile(r"\((?:[A-Z]\w{0,7}|\d+)(?:[ ]?[-+*/·][ ]?\w+)*,[^()]*\)")
"""A shape in a comment: `(B, F, D)`, `(N,)`."""

QUESTION = re.compile(r"(What|Which|How|Where|Who)\b")

MOST_PARAMETERS = 6


# What stands in the files


def comment_lines(source: Path) -> tuple[int, int, int]:
    """Lines that are a comment and nothing else, lines whose comment names a shape, and all lines.

    Directives (`noqa`, `type:`, `fmt:`) are no comments.
    """
    alone = shapes = total = 0
    for path in modules_of(source).values():
        text = path.read_text(encoding="utf-8")
        total += text.count("\n")
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type != tokenize.COMMENT or re.match(r"#\s*(noqa|type:|fmt:|pragma)", token.string):
                continue
            alone += token.line.lstrip().startswith("#")
            shapes += bool(SHAPE.search(token.string))
    return alone, shapes, total


def classes_of_two_meanings(source: Path) -> dict[str, list[str]]:
    """Names that classes have in more than one module, a leading underscore left aside, with the modules."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, tree in _trees(source):
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found[node.name.lstrip("_")].add(name)
    return {name: sorted(modules) for name, modules in sorted(found.items()) if len(modules) > 1}


def functions_of_many_parameters(source: Path) -> list[str]:
    """Functions and methods of more than six parameters, `self` and `cls` not counted."""
    found = []
    for name, tree in _trees(source):
        owners = {
            id(one): f"{node.name}." for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for one in node.body
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                each = node.args
                parameters = [arg.arg for arg in (*each.posonlyargs, *each.args, *each.kwonlyargs)]
                parameters += [arg.arg for arg in (each.vararg, each.kwarg) if arg is not None]
                count = len([one for one in parameters if one not in {"self", "cls"}])
                if count > MOST_PARAMETERS:
                    found.append(f"{name}.{owners.get(id(node), '')}{node.name} ({count})")
    return sorted(found)


def docstrings_that_open_as_questions(source: Path) -> tuple[int, int]:
    """Module docstrings that begin with What, Which, How, Where or Who, and all module docstrings."""
    docstrings = [text for _, tree in _trees(source) if (text := ast.get_docstring(tree))]
    return sum(bool(QUESTION.match(text)) for text in docstrings), len(docstrings)


def _trees(source: Path) -> Iterator[tuple[str, ast.Module]]:
    for name, path in modules_of(source).items():
        yield name, ast.parse(path.read_text(encoding="utf-8"))


# The ways through them


class Follower:
    """Records calls between functions of the package, by `sys.setprofile`.

    A call is an edge from a function to another of the package that it calls, itself or through code of others;
    calls during imports are left out. Edges count once, however often they are taken.

    Attributes:
        edges: (module, function) of the caller and of the callee.
        sound: Functions that take or return samples or features, by module, up to the tables of train and dev.
        record: Functions that take or return predictions, measurements or a record, by module: of a run until the
            record is written, of a report until its rows are gathered.
    """

    ENDS: ClassVar = {"sound": "tables_on", "record": "gather"}
    """Functions whose call (sound) or return (record) ends a way."""

    ASIDE: ClassVar = {"real_time_factor", "_ten_seconds", "room_for", "allocate_table"}
    """Functions that time noise, or allocate an empty table."""

    def __init__(self, source: Path) -> None:
        self.modules = {str(path): name for name, path in modules_of(source).items()}
        self.edges: set[tuple[str, str, str, str]] = set()
        self.sound: dict[str, set[str]] = defaultdict(set)
        self.record: dict[str, set[str]] = defaultdict(set)
        self.ended: set[str] = {"record"}

    def __call__(self, frame: FrameType, event: str, value: Any) -> None:
        if event not in {"call", "return"}:
            return
        code = frame.f_code
        module = self.modules.get(code.co_filename)
        if module is None or not _is_function(code):
            return
        if event == "call":
            self._edge(frame, module)
            self._called(frame, module)
        else:
            self._returned(code, module, value)

    def _edge(self, frame: FrameType, module: str) -> None:
        caller = frame.f_back
        while caller is not None and caller.f_code.co_filename not in self.modules:
            caller = caller.f_back
        if caller is not None and _is_function(caller.f_code):
            source = self.modules[caller.f_code.co_filename]
            self.edges.add((source, caller.f_code.co_qualname, module, frame.f_code.co_qualname))

    def _called(self, frame: FrameType, module: str) -> None:
        if frame.f_code.co_name == self.ENDS["sound"]:
            self.ended.add("sound")
        if len(self.ended) == 2:
            return
        code = frame.f_code
        several = bool(code.co_flags & inspect.CO_VARARGS)
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + several]
        arguments = [frame.f_locals[name] for name in names if name not in {"self", "cls"}]
        self._seen(module, code, arguments)

    def _returned(self, code: CodeType, module: str, value: Any) -> None:
        if len(self.ended) < 2:
            self._seen(module, code, [value])
        if type(value).__name__ in {"Written", "WrittenRecord"} or code.co_name == self.ENDS["record"]:
            self.ended.add("record")

    def _seen(self, module: str, code: CodeType, values: list[Any]) -> None:
        if code.co_qualname.partition(".")[0] in self.ASIDE:
            return
        if "sound" not in self.ended and any(_holds(each, _is_sound) for each in values):
            taken = len(values) > 1
            if not taken or not any(_holds(each, _is_table) for each in values):
                self.sound[module].add(code.co_qualname)
        if "record" not in self.ended and any(_holds(each, _is_of_record) for each in values):
            self.record[module].add(code.co_qualname)


def _is_function(code: CodeType) -> bool:
    """Not the body of a module or class."""
    return bool(code.co_flags & inspect.CO_OPTIMIZED)


def _holds(value: Any, wanted: Any, depth: int = 2) -> bool:
    """Whether a value is what is wanted, or a tuple, list, dictionary or dataclass that begins with such values."""
    if wanted(value):
        return True
    if depth == 0:
        return False
    if isinstance(value, list | tuple):
        inner = list(value[:3])
    elif isinstance(value, dict):
        inner = [value[key] for key in [*value][:3]]
    elif hasattr(type(value), "__dataclass_fields__"):
        inner = [getattr(value, name, None) for name in type(value).__dataclass_fields__]
    else:
        return False
    return any(_holds(each, wanted, depth - 1) for each in inner)


def _is_sound(value: Any) -> bool:
    """An array or tensor of floating point with at least 1,000 numbers."""
    if type(value).__name__ == "Tensor":
        return bool(value.is_floating_point() and value.numel() >= 1000)
    return type(value).__name__ == "ndarray" and value.dtype.kind == "f" and value.size >= 1000


def _is_table(value: Any) -> bool:
    return type(value).__name__ == "FeatureTable"


def _is_of_record(value: Any) -> bool:
    return re.search(r"(Prediction|Measurement|Measured|Record)$", type(value).__name__) is not None


def follow(source: Path) -> dict[str, list[Any]]:
    """Follow one request, its waveforms and its record; in the present folder, where it writes `runs`."""
    import repbench.cli

    imported = Path(repbench.cli.__file__).parent.parent
    if imported.resolve() != source.resolve():
        raise SystemExit(f"this interpreter imports {imported}, not {source}")
    _call(REQUEST.format("fbank"))
    run = Follower(imported)
    run.ended = set()
    _call(REQUEST.format("mel"), run)
    report = Follower(imported)
    report.ended = {"sound"}
    _call("report runs --out page", report)
    return {
        "edges": sorted(run.edges),
        "sound": _places(run.sound),
        "record": _places(run.record, report.record),
    }


def _places(*found: dict[str, set[str]]) -> list[str]:
    """Each module with its functions."""
    every = sorted({module for each in found for module in each})
    return [
        f"{module}: {', '.join(sorted(set().union(*(each.get(module, set()) for each in found))))}" for module in every
    ]


def _call(line: str, follower: Follower | None = None) -> None:
    """Give the command line to the program, quietly."""
    from typer.testing import CliRunner

    from repbench.cli import app

    if follower is not None:
        threading.setprofile(follower)
        sys.setprofile(follower)
    try:
        result = CliRunner().invoke(app, line.split())
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    if result.exit_code:
        raise SystemExit(f"repbench {line}: exit {result.exit_code}\n{result.output}\n{result.exception!r}")


def followed(source: Path, python: str) -> dict[str, list[Any]]:
    """The result of `follow`, in a process of its own with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "REPBENCH_CACHE": f"{folder}/cache", "COLUMNS": "200"}
        command = [python, str(Path(__file__).resolve()), str(source.parent.resolve()), "--follow"]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        answer: dict[str, list[Any]] = json.loads(done.stdout.splitlines()[-1])
        return answer


def climbs(source: Path, edges: list[list[str]]) -> list[list[str]]:
    """The edges of a request whose callee's module is on a higher floor than the caller's: calls back up."""
    floors = floors_of(_without_circles(import_graph(source)))
    return [edge for edge in edges if floors[edge[2]] > floors[edge[0]]]


def _without_circles(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The graph without the arrows that close a circle (a module that imports back), found in the order of names."""
    kept: dict[str, set[str]] = {name: set() for name in graph}
    for name in sorted(graph):
        for other in sorted(graph[name]):
            if other in kept and name not in _below(kept, other):
                kept[name].add(other)
    return kept


def _below(graph: dict[str, set[str]], name: str) -> set[str]:
    """The node and all that it leads to."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += graph[node]
    return found


# The table


def measurements(source: Path, python: str | None) -> dict[str, Any]:
    """All quantities by name, each a number or a number with what it counts."""
    numbers = numbers_of(source, "benchmark")
    alone, shapes, lines = comment_lines(source)
    questions, docstrings = docstrings_that_open_as_questions(source)
    found: dict[str, Any] = {
        "rooms of benchmark/": numbers.rooms,
        "floors of benchmark/": numbers.floors,
        "arrows of benchmark/": numbers.arrows,
    }
    if python is not None:
        ways = followed(source, python)
        upward = climbs(source, ways["edges"])
        found |= {
            "modules that one request enters": len(entered := {edge[2] for edge in ways["edges"]}),
            "of them in benchmark/": sum(name.startswith("benchmark.") for name in entered),
            "climbs of one request": [f"{a}.{b} → {c}.{d}" for a, b, c, d in upward],
            "of them from one room to another": sum(
                edge[0].split(".")[:2] != edge[2].split(".")[:2] for edge in upward
            ),
            "files crossed by one waveform": ways["sound"],
            "files crossed by one record": ways["record"],
        }
    return found | {
        "classes with two meanings": [
            f"{name} ({', '.join(places)})" for name, places in classes_of_two_meanings(source).items()
        ],
        "comment lines": f"{alone} ({100 * alone / lines:.2f} %)",
        "lines with a shape comment": shapes,
        "functions over six parameters": functions_of_many_parameters(source),
        "module docstrings that open with What, Which, How, Where, Who": f"{questions} of {docstrings}",
        "modules": len(modules_of(source)),
        "lines": lines,
    }


def markdown(found: dict[str, Any]) -> str:
    """The quantities as a table, and below it what the counted ones count."""
    rows = ["| | |", "|---|--:|"]
    rows += [f"| {name} | {len(each) if isinstance(each, list) else each} |" for name, each in found.items()]
    lists = [
        f"\n{name}:\n" + "\n".join(f"* {one}" for one in each) for name, each in found.items() if isinstance(each, list)
    ]
    return "\n".join([*rows, *lists])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("src", type=Path, nargs="?", default=SOURCE.parent, help="the folder that holds `repbench`")
    parser.add_argument("--python", default=sys.executable, help="an interpreter in which the tree is installed")
    parser.add_argument("--no-run", action="store_true", help="leave out what takes a run")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--follow", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    source = args.src / "repbench"
    if args.follow:
        print(json.dumps(follow(source)))
        return 0
    found = measurements(source, None if args.no_run else args.python)
    print(json.dumps(found, indent=1) if args.json else markdown(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
