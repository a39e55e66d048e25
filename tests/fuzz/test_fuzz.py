"""The fuzzing finds what is planted, and a small run of it finds nothing in the readers."""

from __future__ import annotations

import os
import random
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from repbench.errors import DataError
from tests.fuzz.__main__ import main
from tests.fuzz.campaign import run
from tests.fuzz.mutations import mutated
from tests.fuzz.targets import TARGETS, Seed, Target

CONTENT = b"one line\nof two\n"


def _refused() -> None:
    raise DataError("This is not it")


def _planted(
    name: str, at_another_content: Callable[[], object], refuse_passed: Callable[[bytes], None] | None = None
) -> Target:
    """A reader of `CONTENT` that does something else at any other content."""

    def seeds(folder: Path) -> list[Seed]:
        path = folder / "seed"
        path.write_bytes(CONTENT)

        def read() -> object:
            return None if path.read_bytes() == CONTENT else at_another_content()

        return [Seed(path=path, read=read, content=CONTENT, refuse_passed=refuse_passed)]

    return Target(name=name, seeds=seeds)


def _refuse_all(_: bytes) -> None:
    raise AssertionError("an altered record passed")


PLANTED = {
    target.name: target
    for target in (
        _planted("good", _refused),
        _planted("traceback", lambda: os.environ[CONTENT.decode()]),
        _planted("warning", lambda: warnings.warn("odd", stacklevel=1)),
        _planted("exit", lambda: sys.exit(0)),
        _planted("allocates", lambda: bytearray(1 << 33)),
        _planted("hangs", lambda: time.sleep(60)),
        _planted("dies", os.abort),
        _planted("passes", lambda: None, refuse_passed=_refuse_all),
    )
}


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("traceback", "KeyError: 'one line\\nof two\\n'"),
        ("warning", "UserWarning: odd"),
        ("exit", "SystemExit: 0"),
        ("allocates", "MemoryError: "),
        ("hangs", "hang: nothing within 0.5 s"),
        ("dies", "the worker died (-6)"),
        ("passes", "an altered record passed"),
    ],
)
def test_what_is_planted_is_found(name: str, what: str) -> None:
    tally = run("tests.fuzz.test_fuzz:PLANTED", name, num_inputs=1, timeout_s=0.5, memory_mib=64)
    assert [(fault.number, fault.what) for fault in tally.faults] == [(0, what)]


def test_a_worker_that_dies_is_started_again_behind_the_input() -> None:
    tally = run("tests.fuzz.test_fuzz:PLANTED", "dies", num_inputs=2)
    assert [fault.number for fault in tally.faults] == [0, 1]
    assert tally.num_inputs == 2


def test_a_refusal_is_no_fault() -> None:
    tally = run("tests.fuzz.test_fuzz:PLANTED", "good", num_inputs=20)
    assert (tally.num_inputs, dict(tally.outcomes), tally.faults) == (20, {"exit 3": 20}, [])


def test_the_same_seed_gives_the_same_inputs() -> None:
    def inputs(seed: int) -> list[bytes]:
        return [mutated(CONTENT, random.Random(f"{seed} {number}"), [CONTENT]) for number in range(50)]

    assert inputs(0) == inputs(0) != inputs(1)
    assert len(set(inputs(0))) > 40


def test_values_of_json_are_changed_too() -> None:
    line = b'{"a": 1, "b": [2, {"c": "d"}]}'
    made = {mutated(line, random.Random(number), [line], is_json=True) for number in range(200)}
    assert b'{"a": 2, "b": [2, {"c": "d"}]}' in made


def test_an_unknown_reader_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["sounds"])
    assert "unknown: sounds; there are sound, textgrid" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_no_mutated_input_is_a_fault(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if name == "csd":
        pytest.importorskip("mmsdk", reason="needs the extra `mosi`")
    code = main([name, "--inputs", "60"])
    assert code == 0, capsys.readouterr().out
