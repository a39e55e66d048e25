"""`python -m tests.fuzz [READER …]`: fuzz the readers, print a table, and end with 1 if there was any fault."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz.campaign import Fault, Tally, run
from tests.fuzz.targets import TARGETS
from tests.fuzz.worker import input_of

HERE = "tests.fuzz.targets:TARGETS"


def main(arguments: list[str] | None = None) -> int:
    """Fuzz all readers, or those that are named."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("readers", nargs="*", help=f"which: {', '.join(TARGETS)} (default: all)")
    parser.add_argument("--inputs", type=int, default=1000, help="for a reader of weight 1 (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations (default: 0)")
    parser.add_argument("--timeout", type=float, default=20, help="seconds after which an input hangs (default: 20)")
    parser.add_argument("--memory", type=int, default=2048, help="MiB that a reader may take (default: 2048)")
    parser.add_argument("--show", type=int, metavar="NUMBER", help="write the input of that number to standard output")
    options = parser.parse_args(arguments)
    names = options.readers or list(TARGETS)
    if unknown := sorted(set(names) - set(TARGETS)):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    if options.show is not None:
        with TemporaryDirectory() as folder:
            target = TARGETS[names[0]]
            origin, content = input_of(target, target.seeds(Path(folder)), options.seed, options.show)
        sys.stderr.write(f"{origin.name}\n")
        sys.stdout.buffer.write(content)
        return 0
    faulty = 0
    for name in names:
        started = time.monotonic()
        num_inputs = max(1, round(options.inputs * TARGETS[name].weight))
        tally = run(
            HERE, name, num_inputs=num_inputs, seed=options.seed, timeout_s=options.timeout, memory_mib=options.memory
        )
        print(_row(name, tally, time.monotonic() - started), flush=True)  # noqa: T201
        for fault, count in _kinds(tally.faults):
            print(f"    {count} × {fault.what}, at {fault.place}, first input {fault.number}", flush=True)  # noqa: T201
        faulty += len(tally.faults)
    return 1 if faulty else 0


def _row(name: str, tally: Tally, seconds: float) -> str:
    ends = ", ".join(f"{count} {outcome}" for outcome, count in sorted(tally.outcomes.items()))
    return (
        f"{name:14} {tally.num_inputs:6} inputs in {seconds:4.0f} s: {ends or 'none ended'}; {len(tally.faults)} faults"
    )


def _kinds(faults: list[Fault]) -> list[tuple[Fault, int]]:
    """The first fault of each kind and how many are like it: those of one type of error at one place."""
    kinds: dict[tuple[str, str], list[Fault]] = {}
    for fault in faults:
        kinds.setdefault((fault.what.partition(":")[0], fault.place), []).append(fault)
    return [(members[0], len(members)) for members in kinds.values()]


if __name__ == "__main__":
    sys.exit(main())
