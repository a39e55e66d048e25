"""Feeds one reader with mutated inputs, in a process that may die of them.

`python -m tests.fuzz.worker MODULE:NAME READER SEED FIRST END FOLDER MEMORY_MIB` prints a line of JSON before each
input and one after it, so that the parent knows which input was being read when this process ends, or does not.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import random
import resource
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

from repbench.errors import RepbenchError
from tests.fuzz.mutations import mutated
from tests.fuzz.targets import Seed, Target


def input_of(target: Target, seeds: list[Seed], seed: int, number: int) -> tuple[Seed, bytes]:
    """The input of that number, and the seed that it was made of."""
    draw = random.Random(f"{seed} {target.name} {number}")
    origin = seeds[number % len(seeds)]
    others = [each.content for each in seeds]
    return origin, mutated(origin.content, draw, others, is_json=origin.is_json)


def main(arguments: list[str]) -> None:
    """Read the inputs from `FIRST` up to but not including `END`."""
    place, name, seed, first, end, folder, memory_mib = arguments
    module, _, attribute = place.partition(":")
    target: Target = getattr(importlib.import_module(module), attribute)[name]
    warnings.simplefilter("error")
    faulthandler.enable()
    seeds = target.seeds(Path(folder))
    for each in seeds:
        each.read_unchanged(target.refusals)
    _limit_memory(int(memory_mib))
    for number in range(int(first), int(end)):
        origin, content = input_of(target, seeds, int(seed), number)
        origin.path.write_bytes(content)
        _say(input=number)
        try:
            _say(outcome=_outcome(target, origin, content))
        except AssertionError as error:
            _say(fault=str(error), number=number, place=_place_of(error))
        except BaseException as error:
            _say(fault=f"{type(error).__name__}: {str(error)[:200]}", number=number, place=_place_of(error))
        origin.path.write_bytes(origin.content)
    _say(done=True)


def _outcome(target: Target, origin: Seed, content: bytes) -> str:
    try:
        origin.read()
    except target.refusals as error:
        return f"exit {error.exit_code}" if isinstance(error, RepbenchError) else type(error).__name__
    if origin.refuse_passed is not None:
        origin.refuse_passed(content)
    return "read"


def _limit_memory(memory_mib: int) -> None:
    """Let this process take so much more address space than it has now; what asks for more raises MemoryError."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + (memory_mib << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _place_of(error: BaseException) -> str:
    """The innermost line of our own code."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "repbench/" in frame.filename] or frames
    return f"{ours[-1].filename.rpartition('repbench/')[2]}:{ours[-1].lineno} {ours[-1].name}"


def _say(**fields: Any) -> None:
    stdout = sys.__stdout__  # what a reader prints elsewhere is not ours
    assert stdout is not None
    stdout.write(json.dumps(fields) + "\n")
    stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
