"""No test holds work to a number of seconds, which a busy machine exceeds: speed is for benchmarks/."""

from __future__ import annotations

import ast
from pathlib import Path

CLOCKS = {"monotonic", "perf_counter", "process_time", "time"}
ALLOWED = {"test_cli.py::test_the_start_is_quick"}
"""The start of the program, with a wide margin."""


def is_duration(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Sub)
        and any(isinstance(part, ast.Attribute) and part.attr in CLOCKS for part in ast.walk(node))
    )


def holds_to_seconds(function: ast.FunctionDef) -> bool:
    """Whether an assertion reads a duration: a difference from a clock, a name given one, or a list they went to."""
    named = set[str]()
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if is_duration(value):
                named.add(name)
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="append"), args=[value]) if is_duration(
                value
            ):
                named.add(name)
    return any(
        is_duration(part) or (isinstance(part, ast.Name) and part.id in named)
        for node in ast.walk(function)
        if isinstance(node, ast.Assert)
        for part in ast.walk(node.test)
    )


def test_no_test_holds_work_to_a_number_of_seconds() -> None:
    folder = Path(__file__).parent
    found = {
        f"{path.relative_to(folder)}::{node.name}"
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef) and holds_to_seconds(node)
    }
    assert found == ALLOWED
