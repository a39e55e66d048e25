"""What benchmarks/mutants makes of a text."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

FOLDER = Path(__file__).parents[1] / "benchmarks" / "mutants"


@pytest.fixture(scope="module")
def mutating() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutating", FOLDER / "mutating.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["mutating"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("line", "mutants"),
    [
        ("x = a < b", ["x = a <= b", "x = a >= b"]),
        ("x = a + b", ["x = a - b"]),
        ("x = a is not b", ["x = a is b"]),
        ("x = a and b", ["x = b", "x = a", "x = a or b"]),
        ("x = not a", ["x = a"]),
        ("x = 0.5", ["x = 1.0"]),
        ("x = -1", ["x = -2"]),
        ("x = 'dtype'", ["x = 'Xdtype'"]),
        ("x = {'a': b, 'c': d}", ["x = {'Xa': b, 'c': d}", "x = { 'c': d}", "x = {'a': b, 'Xc': d}", "x = {'a': b, }"]),
        ("x = [a for a in b if a]", ["x = [a for a in b if True]"]),
        ("x = round(a)", ["x = int(a)"]),
        ("x = a[b:c]", ["x = a[:c]", "x = a[b:]"]),
        ("x = f(a, rate=b)", ["x = f(a, )"]),
        ("x = a.clamp_min(b)", ["x = a"]),
        ("clip(a)", ["pass"]),
        ("self.x = a", ["pass"]),
        ("x += a", ["pass", "x -= a"]),
        ("raise ValueError('no')", ["pass"]),
        ("for x in ('a', b): pass", ["for x in ('Xa', b): pass", "for x in ( b): pass", "for x in ('a', ): pass"]),
    ],
)
def test_small_faults_are_made(mutating: ModuleType, line: str, mutants: list[str]) -> None:
    found = mutating.mutants_of(f"def f():\n    {line}\n")
    assert sorted(each.new for each in found) == sorted(mutants)
    assert {(each.where, each.old) for each in found} == {("f", line)}
    for each in found:
        assert each.source == f"def f():\n    {each.new}\n"


@pytest.mark.parametrize(
    "text",
    [
        '"""One + 1."""\n',
        "from a import b\n",
        "x: tuple[int, Literal['a']]\n",
        "Name = Literal['a', 'b']\n",
        "__all__ = ['a', 'b']\n",
        "@dataclass(frozen=True)\nclass A:\n    pass\n",
        "assert a < b\n",
        "x = f'{a + 1} of them'\n",
        "x = 'some of them'\n",
        "x = zip(a, b, strict=True)\n",
        "x = cast('Tensor', a)\n",
        "def f() -> UsageError:\n    return UsageError('no', key=a + b)\n",
    ],
)
def test_what_no_test_should_hold_is_left_alone(mutating: ModuleType, text: str) -> None:
    assert mutating.mutants_of(text) == []


def test_a_mutant_is_named_after_the_outermost_function(mutating: ModuleType) -> None:
    text = (
        "X = 1\nclass A:\n    Y = 1\n    def f(self, z=1):\n        def g():\n            return 1\n        return g\n"
    )
    assert [each.where for each in mutating.mutants_of(text)] == ["", "", "", "A.f"]


def test_every_module_and_its_tests_are_there() -> None:
    modules = yaml.safe_load((FOLDER / "modules.yaml").read_text(encoding="utf-8"))
    root = FOLDER.parents[1]
    assert modules
    for module, tests in modules.items():
        assert (root / "src" / "repbench" / f"{module}.py").is_file(), module
        assert tests
        assert all((root / test).is_file() for test in tests), module


def test_every_judgement_has_its_reason() -> None:
    judged = yaml.safe_load((FOLDER / "equivalent.yaml").read_text(encoding="utf-8")) or {}
    modules = yaml.safe_load((FOLDER / "modules.yaml").read_text(encoding="utf-8"))
    assert judged.keys() <= modules.keys()
    for each in (each for entries in judged.values() for each in entries):
        assert each.keys() == {"where", "line", "becomes", "reason"}
        assert len(each["reason"].split()) > 2
