"""Several processes train as one does, and one of them speaks for all."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from repbench.benchmark.pipeline.pretrain import PretrainRequest, run_pretraining
from repbench.errors import UsageError
from repbench.training.distributed import Processes, expected_processes, joined, local_device
from repbench.training.gradient_sums import GradientSum
from repbench.upstream.checkpoints.native import list_checkpoints, open_checkpoint, read_training, read_weights
from tests.upstream.small_training import arguments, metrics_of, request, small_corpus

STEPS = 10


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parallel") / "tones"
    small_corpus(folder)
    return folder


def asked_of(tones: Path, run: Path, accumulate: int, **changed: Any) -> PretrainRequest:
    return request("mockingjay", tones, run, steps=STEPS, training__accumulate=accumulate, **changed)


def in_two_processes(asked: PretrainRequest) -> subprocess.CompletedProcess[str]:
    """`torchrun --nproc-per-node 2 -m repbench pretrain …` on this machine alone, without any look-up of names."""
    return started_twice("-m", "repbench", *arguments(asked), "--json")


def started_twice(*command: str) -> subprocess.CompletedProcess[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--nproc-per-node", "2",
                "--master-addr", "127.0.0.1", "--master-port", str(port)]  # fmt: skip
    return subprocess.run(
        [*launcher, *command],
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},
    )


@pytest.mark.slow
@pytest.mark.parametrize("upstream", ["mockingjay", "apc"])
def test_two_processes_follow_one_that_accumulates_two_batches(upstream: str, tones: Path, tmp_path: Path) -> None:
    run, alone = tmp_path / "two", tmp_path / "one"
    finished = in_two_processes(request(upstream, tones, run, steps=STEPS, training__dev_every=5))
    assert finished.returncode == 0, finished.stderr
    run_pretraining(request(upstream, tones, alone, steps=STEPS, training__accumulate=2, training__dev_every=5))

    one, two = (list_checkpoints(folder)[-1] for folder in (alone, run))
    expected, found = read_weights(open_checkpoint(one.path)), read_weights(open_checkpoint(two.path))
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        assert float((found[name] - weight).abs().max()) < 1e-5, name
    assert read_training(one).keys() == read_training(two).keys()
    for here, there in zip(metrics_of(alone), metrics_of(run), strict=True):
        assert there == pytest.approx(here, rel=1e-4)

    # Only the leader speaks, writes and saves.
    assert json.loads(finished.stdout)["step"] == STEPS
    assert len(re.findall(r"^step 10 of 10: loss", finished.stderr, re.MULTILINE)) == 1
    assert len(re.findall(r"^note: the run is", finished.stderr, re.MULTILINE)) == 1
    assert len(list((run / "tensorboard").iterdir())) == 1
    assert [checkpoint.step for checkpoint in list_checkpoints(run)] == [STEPS]


@pytest.mark.slow
def test_two_processes_go_on_where_they_were(tones: Path, tmp_path: Path) -> None:
    settings = {"training__save_every": 4, "training__keep_last": 9}
    run = tmp_path / "run"
    whole = asked_of(tones, run, 1, **settings)
    assert in_two_processes(whole).returncode == 0
    before = read_weights(list_checkpoints(run)[-1])
    lines = metrics_of(run)
    for checkpoint in list_checkpoints(run)[1:]:
        for file in checkpoint.path.iterdir():
            file.unlink()
        checkpoint.path.rmdir()
    again = in_two_processes(replace(whole, resume=True))
    assert again.returncode == 0, again.stderr
    after = read_weights(list_checkpoints(run)[-1])
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert metrics_of(run) == lines


@pytest.mark.slow
def test_a_refusal_of_the_leader_ends_all(tones: Path, tmp_path: Path) -> None:
    run_pretraining(asked_of(tones, tmp_path, 1))
    finished = in_two_processes(asked_of(tones, tmp_path, 1))
    assert finished.returncode != 0
    assert "This folder holds a run at step 10 of 10" in finished.stderr


# The scripts print a line in one write, so that the lines of two processes do not mix.
SUMS = """
import torch
from torch import nn

from repbench.errors import PluginError
from repbench.training import gradient_sums
from repbench.training.distributed import joined
from repbench.training.gradient_sums import GradientSum

gradient_sums.BUCKET_BYTES = 8  # two numbers: a bucket for each parameter
names = ("a", "b", "c", "nowhere", "frozen")
weights = {name: nn.Parameter(torch.ones(2), requires_grad=name != "frozen") for name in names}
a, b, c = (weights[name] for name in "abc")

with joined(torch.device("cpu")) as processes:
    # First microbatch, not listened to; then each process reaches other parameters, in another order.
    (a * 10).sum().backward()
    with GradientSum(weights.items(), processes) as gradients:
        gradients.listen()
        loss = (a * (1 if processes.leads else 2)).sum() + ((c * 3).sum() if processes.leads else (b * 4).sum())
        loss.backward()
        during = len(gradients._begun)
        gradients.begin_rest()
        gradients.take()
    found = {name: None if each.grad is None else each.grad.tolist() for name, each in weights.items()}
    print(f"found {found}\\n", end="", flush=True)

    # Every parameter is reached, and so the sums of the last ones begin before the first one has its gradient.
    begun = []
    chain = nn.Sequential(*(nn.Linear(2, 2) for _ in range(3)))
    with GradientSum(chain.named_parameters(), processes) as gradients:
        gradients.listen()
        chain[0].weight.register_hook(lambda _: begun.append(len(gradients._begun)))
        chain(torch.ones(1, 2)).sum().backward()
        gradients.begin_rest()
        gradients.take()
    print(f"begun {begun}\\n", end="", flush=True)

    with GradientSum([("twice", a)], processes) as gradients:
        gradients.listen()
        a.sum().backward()
        try:
            a.sum().backward()
        except PluginError as error:
            print(f"refused {error}\\n", end="", flush=True)
        gradients.begin_rest()
        gradients.take()
"""


@pytest.mark.slow
def test_gradients_of_two_processes_are_summed_bucket_after_bucket(tmp_path: Path) -> None:
    script = tmp_path / "sums.py"
    script.write_text(SUMS, encoding="utf-8")
    finished = started_twice(str(script))
    assert finished.returncode == 0, finished.stderr
    lines = finished.stdout.splitlines()
    # A gradient of one process alone reaches the other, whose optimizer would leave the weight as it was.
    sums = "{'a': [23.0, 23.0], 'b': [4.0, 4.0], 'c': [3.0, 3.0], 'nowhere': None, 'frozen': None}"
    assert lines.count(f"found {sums}") == 2
    (begun,) = {line for line in lines if line.startswith("begun")}
    assert int(begun.rstrip("]").split("[")[-1]) >= 4, begun
    assert sum(line.startswith("refused The gradient of twice came in two parts") for line in lines) == 2


SILENT = """
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import torch
from torch import nn

from repbench.training.distributed import joined
from repbench.training.loop import Microbatch, SummedLoss, TrainingLoop


class Loop(TrainingLoop):
    unit, less_memory, more_terms, rate_key = "frames", "", "", ""
    module = nn.Linear(2, 1)
    plugin = "silent"

    def microbatches(self) -> Iterator[Microbatch]:
        for step in range(3):
            # In the second step this process has nothing to score.
            silent = step == 1 and not self.processes.leads
            loss = None if silent else self.module(torch.full((1, 2), 1.0 + step)).sum()
            each = SummedLoss(total=loss, terms=0 if silent else 1, evidence=torch.ones(1, 1))
            yield Microbatch(ids=["u"], lengths=[1.0], dropout_seed=step, loss=lambda each=each: each)

    def set_learning_rate(self) -> float:
        return 0.1

    def after_step(self, result) -> None:
        pass

    def is_save_point(self) -> bool:
        return False

    def save(self) -> None:
        pass


with joined(torch.device("cpu")) as processes:
    nn.init.ones_(Loop.module.weight)
    nn.init.zeros_(Loop.module.bias)
    loop = Loop(settings=SimpleNamespace(steps=3, clip_norm=100.0), seed=0, device=torch.device("cpu"),
                processes=processes)
    loop.optimizer = torch.optim.SGD(Loop.module.parameters(), 0.1)
    loop.take_steps("silent", [])
    print(f"weights {[round(each, 6) for each in Loop.module.weight.flatten().tolist()]}\\n", end="", flush=True)
"""


@pytest.mark.slow
def test_a_process_with_nothing_to_score_follows_the_others(tmp_path: Path) -> None:
    script = tmp_path / "silent.py"
    script.write_text(SILENT, encoding="utf-8")
    finished = started_twice(str(script))
    assert finished.returncode == 0, finished.stderr
    # The gradient is the mean input: 1, 2 and 3.
    assert finished.stdout.splitlines() == ["weights [0.4, 0.4]"] * 2


LEAVES = """
from pathlib import Path

import torch

from repbench.training.distributed import joined
from repbench.training.gradient_sums import GradientSum


def threads() -> set[str]:
    return {(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()}


weight = torch.nn.Parameter(torch.ones(2))
with joined(torch.device("cpu")) as processes:
    with GradientSum([("weight", weight)], processes) as gradients:
        gradients.listen()
        weight.sum().backward()
        gradients.begin_rest()
        gradients.take()
    torch.optim.AdamW([weight]).step()
    during = threads()
ran = any("gloo" in name for name in during)
print(f"gradient {weight.grad.tolist()} a thread of gloo ran {ran}\\n", end="")
print(f"threads of gloo {sum('gloo' in name for name in threads())}\\n", end="")
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the threads of a process are read from /proc")
def test_no_thread_of_the_group_outlives_it(tmp_path: Path) -> None:
    """One that frees a tensor while the interpreter ends aborts the process, and with it the others."""
    script = tmp_path / "leaves.py"
    script.write_text(LEAVES, encoding="utf-8")
    finished = started_twice(str(script))
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("gradient [2.0, 2.0] a thread of gloo ran True\n") == 2
    assert finished.stdout.count("threads of gloo 0\n") == 2


def test_one_process_leads_and_adds_nothing() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([1.0, 2.0])
    with joined(torch.device("cpu")) as processes:
        assert processes == Processes(rank=0, count=1)
        assert processes.leads
        processes.wait()
        with GradientSum([("weight", weight)], processes) as gradients:
            gradients.listen()
            gradients.begin_rest()
            gradients.take()
        assert processes.sum(torch.tensor([3.0])).tolist() == [3.0]
    assert weight.grad.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (
            {"WORLD_SIZE": "2", "RANK": "0"},
            "WORLD_SIZE is 2, .* but MASTER_ADDR and MASTER_PORT are not set .*torchrun",
        ),
        ({"WORLD_SIZE": "2"}, "but RANK, MASTER_ADDR and MASTER_PORT are not set"),
        ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1"}, "but MASTER_PORT is not set"),
        ({"RANK": "1"}, "RANK is 1, so this is one of several processes, but WORLD_SIZE is not set"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE must be a whole number, but is 'two'"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK is 2 and WORLD_SIZE is 2"),
        (
            {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "b"},
            "MASTER_PORT must be a whole number",
        ),
    ],
)
def test_an_environment_of_several_processes_that_is_not_whole_is_refused_by_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], words: str, tones: Path, tmp_path: Path
) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=words):
        run_pretraining(request("apc", tones, tmp_path / "run"))
    assert not list((tmp_path / "run").glob("*")), "nothing was begun"


def test_one_process_that_is_told_so_trains_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    with joined(torch.device("cpu")) as processes:
        assert processes == Processes(rank=0, count=1)


def test_each_of_several_processes_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert expected_processes() == 4
    assert local_device(torch.device("cuda")) == torch.device("cuda:3")
    assert local_device(torch.device("cuda:1")) == torch.device("cuda:1"), "what is asked for by number stays"
    assert local_device(torch.device("cpu")) == torch.device("cpu")
