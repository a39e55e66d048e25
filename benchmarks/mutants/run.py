"""Small faults in the numerics that no test notices: `make mutants`; docs/design/0014-mutants.md.

    python benchmarks/mutants/run.py [MODULE…] [--again] [--sample N] [--seed S] [--out FILE]

Each module of `modules.yaml` is mutated in a copy of the repository, and its nearest tests are run against each mutant.
The table goes into benchmarks/results/mutants.json, module by module; survivors are printed with what was changed.
`equivalent.yaml` has the mutants that were judged to do what the original does, each with a reason.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from mutating import Mutant, mutants_of
from trying import KILLED, SURVIVED, TIMEOUT, Outcome, Trials, in_fork, pytest_arguments, try_from_disk

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
COPIED = ("src", "tests", "docs", "examples", "pyproject.toml", "README.md", "CHANGELOG.md", "Makefile")
LIBRARIES = (
    "numpy", "torch", "scipy.stats", "scipy.special", "scipy.signal", "sklearn.metrics", "soundfile", "soxr",
    "pydantic", "safetensors.torch", "rapidfuzz", "typer", "rich.table", "platformdirs", "filelock",
    "torch.nn.utils.rnn", "torch._dynamo", "sklearn.linear_model", "jinja2", "jsonschema",
    "matplotlib.figure", "h5py",
)  # fmt: skip
"""What is imported once for all."""
EQUIVALENT = "equivalent"


@dataclass(frozen=True, slots=True)
class Result:
    """A mutant and what became of it."""

    mutant: Mutant
    outcome: Outcome


def main() -> None:
    """Try the modules that are asked for, and print the table of all that were tried."""
    arguments = _arguments()
    modules: dict[str, list[str]] = yaml.safe_load((HERE / "modules.yaml").read_text(encoding="utf-8"))
    unknown = set(arguments.modules) - modules.keys()
    if unknown:
        sys.exit(f"no such module: {', '.join(sorted(unknown))}; there are {', '.join(modules)}")
    equivalent = _judged(HERE / "equivalent.yaml")
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    for library in LIBRARIES:
        __import__(library)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = _copy(Path(folder))
        for module in arguments.modules or modules:
            judged, before = equivalent.get(module, {}), _kept(arguments.out)["modules"].get(module)
            if arguments.again and before is None:
                continue
            results, row = _try_module(copy, module, modules[module], arguments, before if arguments.again else None)
            row |= _counted(results, judged)
            _say(module, results, judged, row)
            _keep(arguments.out, module, _added(before, row) if arguments.again and before else row)
    print(_table(_kept(arguments.out)["modules"]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="as in modules.yaml; all, if none is named")
    parser.add_argument("--again", action="store_true", help="try only what survived, as the file says")
    parser.add_argument("--sample", type=int, help="most mutants of a module that are tried")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results" / "mutants.json")
    arguments = parser.parse_args()
    arguments.out = arguments.out.resolve()
    return arguments


def _copy(folder: Path) -> Path:
    """A copy of the repository, compiled, that comes before any other when repbench is imported."""
    for name in COPIED:
        place = REPOSITORY / name
        if place.is_dir():
            shutil.copytree(place, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(place, folder / name)
    for name in ("src", "tests"):
        compileall.compile_dir(folder / name, quiet=2, workers=1)
    sys.dont_write_bytecode = True
    paths = [str(folder / "src"), str(folder), str(folder / "docs")]
    sys.path[:0] = paths
    os.environ |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": os.pathsep.join(paths)}
    os.environ.pop("REPBENCH_CACHE", None)  # each fork has its own
    os.chdir(folder)
    return folder


def _try_module(
    copy: Path, module: str, tests: Sequence[str], arguments: argparse.Namespace, before: dict[str, Any] | None
) -> tuple[list[Result], dict[str, Any]]:
    """The mutants of a module, or of what survived before, and what became of them."""
    started = time.monotonic()
    path = copy / "src" / "repbench" / f"{module}.py"
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
        compiled.unlink()  # of the same size and second it would be taken for a mutant's
    original = path.read_text(encoding="utf-8")
    source_sha256 = hashlib.sha256(original.encode("utf-8")).hexdigest()
    mutants = mutants_of(original)
    tried = mutants
    if before is not None:
        if before["source_sha256"] != source_sha256:
            sys.exit(f"{module} has changed since its mutants were tried; try all of them")
        survived = {(each["where"], each["line"], each["becomes"]) for each in before["survivors"]}
        tried = [mutant for mutant in mutants if _key(mutant) in survived]
    elif arguments.sample is not None and len(mutants) > arguments.sample:
        chosen = random.Random(f"{arguments.seed} {module}").sample(range(len(mutants)), arguments.sample)
        tried = [mutants[place] for place in sorted(chosen)]
    outcomes, usual_seconds = _try_in_place(copy, path, tests, tried)
    for place, mutant in enumerate(tried):
        if place not in outcomes:
            with _on_disk(path, mutant.source):
                outcomes[place] = try_from_disk(tests, copy / "scratch", usual_seconds)
            _progress(module, len(outcomes), len(tried))
    facts = {
        "tests": list(tests),
        "source_sha256": source_sha256,
        "mutants": len(mutants),
        "tried": len(tried),
        "seconds": round(time.monotonic() - started),
    }
    return [Result(mutant, outcomes[place]) for place, mutant in enumerate(tried)], facts


def _try_in_place(
    copy: Path, path: Path, tests: Sequence[str], mutants: Sequence[Mutant]
) -> tuple[dict[int, Outcome], float]:
    """Outcomes by place, of mutants of functions that run in tests alone; and how long the tests usually take."""
    import pytest

    original = path.read_text(encoding="utf-8")

    def work(trials: Trials, tell: Callable[[object], None]) -> None:
        if trials.baseline.failed:
            raise RuntimeError(f"tests fail without a mutant: {trials.baseline.failed}")
        outcomes: dict[int, tuple[str, str]] = {}
        functions = trials.functions()
        for place, mutant in enumerate(mutants):
            if mutant.where and mutant.where not in trials.baseline.at_import:
                with _on_disk(path, mutant.source):  # for processes that a test starts
                    outcome = trials.try_in_place(functions, original, mutant.source, mutant.where)
                if outcome is not None:
                    outcomes[place] = (outcome.verdict, outcome.by)
                os.write(told, f"{len(outcomes)} ".encode("ascii"))
        tell([outcomes, sum(trials.baseline.seconds.values())])

    def session(tell: Callable[[object], None]) -> None:
        trials = Trials(path, lambda each: work(each, tell))
        with trials.watched():
            code = pytest.main(pytest_arguments(tests, copy / "scratch"), plugins=[trials])
        if trials.error is not None:
            raise trials.error
        if code:
            raise RuntimeError(f"pytest ended with {code} while it collected the tests")

    told = os.open(copy / "told", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        answer = in_fork(session, seconds=24 * 3600.0)
    finally:
        os.close(told)
        path.write_text(original, encoding="utf-8")
    if not answer:
        sys.exit(f"{path.name} could not be tried with {', '.join(tests)}")
    ((outcomes, seconds),) = answer
    return {int(place): Outcome(*each) for place, each in outcomes.items()}, seconds


@contextlib.contextmanager
def _on_disk(path: Path, source: str) -> Iterator[None]:
    original = path.read_text(encoding="utf-8")
    path.write_text(source, encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(original, encoding="utf-8")


Judged = dict[tuple[str, str, str], str]
"""Function, line and what it becomes -> why that changes nothing."""


def _judged(path: Path) -> dict[str, Judged]:
    """By module; matched by content, so that a line may move."""
    listed: dict[str, list[dict[str, str]]] = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return {
        module: {(each["where"], each["line"], each["becomes"]): each["reason"] for each in entries}
        for module, entries in listed.items()
    }


def _key(mutant: Mutant) -> tuple[str, str, str]:
    return mutant.where, mutant.old, mutant.new


def _counted(results: Sequence[Result], judged: Judged) -> dict[str, Any]:
    verdicts = [
        EQUIVALENT if each.outcome.verdict != KILLED and _key(each.mutant) in judged else each.outcome.verdict
        for each in results
    ]
    return {
        **{name: verdicts.count(name) for name in (KILLED, TIMEOUT, SURVIVED, EQUIVALENT)},
        "survivors": [
            {"where": each.mutant.where, "line": each.mutant.old, "becomes": each.mutant.new}
            for each, verdict in zip(results, verdicts, strict=True)
            if verdict == SURVIVED
        ],
    }


def _say(module: str, results: Sequence[Result], judged: Judged, row: dict[str, Any]) -> None:
    for each in row["survivors"]:
        print(f"{module}: {each['where'] or 'the module'}\n  - {each['line']}\n  + {each['becomes']}")
    for each in results:
        if each.outcome.verdict == TIMEOUT and _key(each.mutant) not in judged:
            print(f"{module}: {each.mutant.where} does not end\n  - {each.mutant.old}\n  + {each.mutant.new}")
        if each.outcome.verdict == KILLED and _key(each.mutant) in judged:
            print(f"{module}: judged equivalent, but {each.outcome.by} fails: {each.mutant.new}")
    if row["tried"] == row["mutants"]:  # in a sample some are missing
        for where, line, becomes in judged.keys() - {_key(each.mutant) for each in results}:
            print(f"{module}: judged equivalent, but there is no such mutant: {where}: {line} -> {becomes}")
    print(f"{module}: {row['killed']} of {row['tried']} killed in {row['seconds']} s", flush=True)


def _progress(module: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{module}: {done} of {total}", end="\n" if done == total else "", file=sys.stderr, flush=True)


def _kept(path: Path) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"modules": {}}
    return kept


def _keep(path: Path, module: str, row: dict[str, Any]) -> None:
    import torch

    kept = _kept(path)
    kept["made_with"] = {"python": sys.version.split()[0], "torch": torch.__version__}
    kept["modules"][module] = row
    path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _added(before: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """What is known of a module when its survivors were tried again.

    Two mutants may read alike, and one of them may have been killed before: what is killed is what else is left.
    """
    sums = {name: before[name] + row[name] for name in (TIMEOUT, EQUIVALENT, "seconds")}
    sums[KILLED] = before[KILLED] + before[SURVIVED] - row[TIMEOUT] - row[EQUIVALENT] - row[SURVIVED]
    return before | sums | {name: row[name] for name in ("tests", SURVIVED, "survivors")}


def _table(modules: dict[str, dict[str, Any]]) -> str:
    lines = ["| module | mutants | tried | killed | no end | survived | equivalent | noticed |", "|---|" + "--:|" * 7]
    total = dict.fromkeys(("mutants", "tried", KILLED, TIMEOUT, SURVIVED, EQUIVALENT), 0)
    for module, row in modules.items():
        lines.append(_line(module, row))
        total = {name: count + row[name] for name, count in total.items()}
    return "\n".join([*lines, _line("all", total)])


def _line(name: str, row: dict[str, Any]) -> str:
    asked = row["tried"] - row[EQUIVALENT]
    share = f"{100 * (row[KILLED] + row[TIMEOUT]) / asked:.1f} %" if asked else ""
    cells = [row[each] for each in ("mutants", "tried", KILLED, TIMEOUT, SURVIVED, EQUIVALENT)]
    return f"| {name} | {' | '.join(map(str, cells))} | {share} |"


if __name__ == "__main__":
    main()
