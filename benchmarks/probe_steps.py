"""Milliseconds of a training step of probes, by this code and by an earlier one, and the cost of many beside one.

Features and labels are random numbers of the sizes of real runs, so that nothing is read and nothing extracted:

* `speaker`: 100 utterances of 8 s of `mel` (160 wide), 16 a step, `mlp1` of 256 units;
* `speaker linear`: the same, one matrix on the mean;
* `phone`: 200,000 frames of 768, 2,048 a step, one matrix to 41 classes, at one learning rate and at five.

The earlier code is the folder of another checkout (`git worktree add FOLDER REVISION`). Both are run in processes of
their own, in turns, `--rounds` times, and the fastest round counts: a busy machine lengthens a round, and none is
shorter than the work. Time of the CPU stands beside that of the clock: with `--threads 1` it is the better measure of
a busy machine. The largest difference of the weights of both is part of the result.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

STEPS = 40
"""Steps of a measured training; what comes before the first is measured with two steps and taken off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A task of random numbers.

    Attributes:
        task: Name of the task.
        head: Name of the head.
        num_utterances: Of training.
        num_frames: Of an utterance.
        width: D.
        num_classes: C.
        rates: Learning rates side by side.
        jobs: Probes of other seeds, one after the other or side by side.
        frames_per_utterance: Frames of each utterance that a step draws; None: all.
    """

    task: str
    head: str
    num_utterances: int
    num_frames: int
    width: int
    num_classes: int
    rates: tuple[float, ...] = (1e-3,)
    jobs: int = 1
    frames_per_utterance: int | None = None


SPEAKER = {"task": "speaker", "num_utterances": 80, "num_frames": 800, "width": 160, "num_classes": 10}
PHONE = {"task": "phone", "head": "linear", "num_utterances": 200, "num_frames": 1000, "width": 768, "num_classes": 41}
RATES = (1e-4, 3.16e-4, 1e-3, 3.16e-3, 1e-2)

CASES = {
    "speaker": Case(**SPEAKER, head="mlp1"),  # type: ignore[arg-type]
    "speaker, 4 seeds": Case(**SPEAKER, head="mlp1", jobs=4),  # type: ignore[arg-type]
    "speaker, 100 frames of each": Case(**SPEAKER, head="mlp1", frames_per_utterance=100),  # type: ignore[arg-type]
    "speaker linear": Case(**SPEAKER, head="linear"),  # type: ignore[arg-type]
    "phone": Case(**PHONE),  # type: ignore[arg-type]
    "phone, 5 rates": Case(**PHONE, rates=RATES),  # type: ignore[arg-type]
    "phone, 5 rates, 4 seeds": Case(**PHONE, rates=RATES, jobs=4),  # type: ignore[arg-type]
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, help="a checkout of an earlier revision")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "probe_steps.json")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(CASES[arguments.case], arguments.threads, arguments.out)))
        return
    here = Path(__file__).parents[1]
    codes = {"now": here, **({"before": arguments.before} if arguments.before else {})}
    rows = {name: compared(name, codes, arguments) for name in arguments.only}
    from repbench.benchmark import environment

    result = {
        "machine": environment.describe(torch.device("cpu")),
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "cases": rows,
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def compared(name: str, codes: dict[str, Path], arguments: argparse.Namespace) -> dict[str, Any]:
    """The fastest round of each code, and the difference of their weights."""
    fastest: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        if CASES[name].frames_per_utterance:
            codes = {"now": codes["now"]}
        for _ in range(arguments.rounds):
            for code, checkout in codes.items():
                found = in_process(name, checkout, Path(folder) / code, arguments.threads)
                best = fastest.setdefault(code, found)
                fastest[code] = {key: min(value, best[key]) for key, value in found.items()}
        row: dict[str, Any] = {**fastest}
        if "before" in codes:
            one, other = (torch.load(Path(folder) / code, weights_only=True) for code in ("now", "before"))
            row["largest_difference"] = max(float((one[key] - other[key]).abs().max()) for key in one)
            row["faster"] = row["before"]["ms_a_step"] / row["now"]["ms_a_step"]
            row["faster_by_cpu"] = row["before"]["cpu_ms_a_step"] / row["now"]["cpu_ms_a_step"]
    for code, each in fastest.items():
        shown = f"{each['ms_a_step']:7.2f} ms a step, {each['cpu_ms_a_step']:7.2f} of CPU"
        print(f"{name:<24} {code:<7} {shown}  weights differ by {row.get('largest_difference', 0.0):.1e}", flush=True)
    return row


def in_process(name: str, checkout: Path, weights: Path, threads: int) -> dict[str, float]:
    """A case in a process of its own, with the code of a checkout."""
    variables = {**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, __file__, "--case", name, "--threads", str(threads), "--out", str(weights)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure(case: Case, threads: int, weights: Path) -> dict[str, float]:
    """Milliseconds of the clock and of the CPU of one step of one job; writes the weights at its end."""
    torch.set_num_threads(threads)
    train = trainer_of(case)
    train(2)
    seconds, cpu = [], []
    for steps in (2, STEPS + 2, 2, STEPS + 2):
        began, began_cpu = time.perf_counter(), time.process_time()
        probes = train(steps)
        seconds.append(time.perf_counter() - began)
        cpu.append(time.process_time() - began_cpu)
    states = {
        f"{job}.{rate}.{name}": tensor
        for job, row in enumerate(probes)
        for rate, each in enumerate(row)
        for name, tensor in each.probe.state_dict().items()
    }
    torch.save(states, weights)
    num_steps = STEPS * case.jobs
    return {
        "ms_a_step": 1e3 * (min(seconds[1::2]) - min(seconds[::2])) / num_steps,
        "cpu_ms_a_step": 1e3 * (min(cpu[1::2]) - min(cpu[::2])) / num_steps,
    }


def trainer_of(case: Case) -> Any:
    """A function that trains the probes of a case for so many steps."""
    try:
        from repbench.benchmark.features.table import FeatureTable
    except ModuleNotFoundError:  # a checkout of before November 29, 2026
        from repbench.benchmark.features.extraction import FeatureTable  # type: ignore[attr-defined]
    from repbench.benchmark.probing.prediction import Predictor
    from repbench.benchmark.probing.probe import ProbeShape, statistics_of
    from repbench.benchmark.probing.training import ProbeJob, ProbeTraining, train_probes
    from repbench.benchmark.protocol import ProbeSettings
    from repbench.corpora.contract import Phone, Utterance
    from repbench.downstream.contract import LabelledUtterance
    from repbench.downstream.phone import Phone as PhoneTask
    from repbench.downstream.speaker import Speaker
    from repbench.upstream.frontends import mel

    generator = torch.Generator().manual_seed(0)
    classes = tuple(f"c{number:02}" for number in range(case.num_classes))
    centres = 0.3 * torch.randn(case.num_classes, case.width, generator=generator)

    def part(count: int, name: str) -> tuple[FeatureTable, tuple[LabelledUtterance, ...]]:
        examples, frames = [], []
        for number in range(count):
            seconds = case.num_frames / 100
            spoken = torch.randint(case.num_classes, (case.num_frames // 10,), generator=generator)
            if case.task == "speaker":
                spoken[:] = number % case.num_classes
            phones = tuple(
                Phone(0.1 * place, 0.1 * (place + 1), classes[each]) for place, each in enumerate(spoken.tolist())
            )
            utterance = Utterance(
                id=f"{name}{number:04}", audio=Path("/none.wav"), sample_rate_hz=16_000,
                num_samples=round(seconds * 16_000), samples_sha256="0" * 64, phones=phones,
            )  # fmt: skip
            labels = phones if case.task == "phone" else classes[number % case.num_classes]
            examples.append(LabelledUtterance(utterance, labels))
            noise = torch.randn(case.num_frames, case.width, generator=generator)
            frames.append(noise + centres[spoken.repeat_interleave(10)])
        counts = (case.num_frames,) * count
        table = FeatureTable(torch.cat(frames)[None], counts, tuple(example.id for example in examples))
        return table, tuple(examples)

    train, examples = part(case.num_utterances, "t")
    dev, dev_examples = part(10, "d")
    task = PhoneTask() if case.task == "phone" else Speaker()
    predictor = Predictor(task, classes, mel().info)
    shape = ProbeShape(
        head=case.head, pools=predictor.pools, num_layers=1, width=case.width, hidden_units=256, classes=classes,
        mix="mean",
    )  # fmt: skip
    statistics = statistics_of(train)
    jobs = [ProbeJob(train=examples, dev=dev_examples, seed=seed) for seed in range(case.jobs)]

    def trained(steps: int) -> Any:
        some: dict[str, Any] = {"frames_per_utterance": case.frames_per_utterance} if case.frames_per_utterance else {}
        settings = ProbeSettings(steps=steps, selection_points=1, **some)
        shared = ProbeTraining(
            predictor=predictor, shape=shape, train=train, dev=dev, statistics=statistics, settings=settings,
            learning_rates=case.rates,
        )  # fmt: skip
        return train_probes(shared, jobs)

    return trained


if __name__ == "__main__":
    main()
