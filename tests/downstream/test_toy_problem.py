"""A problem of a plugin, in one file, goes from the command line to a verified record and a report."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from repbench.benchmark.probing.prediction import Predictor
from repbench.benchmark.probing.probe import load_probe
from repbench.downstream.contract import problem_of
from repbench.downstream.problems import FRAMES, add_problem, problem_named
from repbench.errors import PluginError
from repbench.testing import Envelope, tone_corpus
from repbench.testing.downstreams import DOWNSTREAM_CHECKS, DownstreamSubject
from tests.commands import repbench
from tests.downstream.toy_problem import PhoneCount, Regression
from tests.fake_distributions import install

TOY = Path(__file__).with_name("toy_problem.py")

RUN = (
    "run", "--upstream", "mel", "--downstream", "phone-count", "--set", "tasks.regression.head=mlp2",
    "--set", "probe.steps=200", "--set", "probe.learning_rate=0.01", "--set", "probe.hidden_units=8",
)  # fmt: skip


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy") / "tones"
    tone_corpus(folder)
    return folder


@pytest.mark.slow
def test_an_installed_problem_is_run_verified_and_reported(tones: Path, tmp_path: Path) -> None:
    install(
        tmp_path / "site", "toy", "[repbench.downstreams]\nphone-count = toy:PhoneCount\n",
        modules={"toy": TOY.read_text(encoding="utf-8")},
    )  # fmt: skip
    env = {"PYTHONPATH": str(tmp_path / "site"), "REPBENCH_CACHE": str(tmp_path / "cache")}
    runs = tmp_path / "runs"
    done = repbench(*RUN, "--corpus", tones, "--out", runs, "--controls", "--json", env=env)
    assert done.code == 0, done.err

    given, shuffled = done.json["results"]
    assert (given["head"], given["primary_metric"], given["downstream"]["classes"]) == ("mlp2", "mean_error", [])
    metric = given["metrics"]["mean_error"]
    assert (metric["ci_unit"], metric["counts"]) == ("group", {"utterances": given["n_scored"]})
    assert metric["value"] < given["baselines"]["majority"]
    assert metric["value"] < shuffled["metrics"]["mean_error"]["value"]
    (path,) = runs.rglob(f"{given['id']}/predictions.jsonl")
    line = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    assert sorted(line) == ["estimate", "group", "id", "reference", "speaker"]
    assert load_probe(path.with_name("probe.safetensors"))[0].shape.outputs == 1

    verified = repbench("verify", runs, env=env)
    assert (verified.code, verified.out.count(": holds (1 metrics")) == (0, 2), verified.err
    reported = repbench("report", runs, "--out", tmp_path / "report", env=env)
    assert reported.code == 0, reported.err
    assert "phone-count" in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    results = (tmp_path / "report" / "results.json").read_text(encoding="utf-8")
    assert results.count('"unchecked": null') == results.count('"unchecked"') > 0

    board = tmp_path / "board"
    assert repbench("leaderboard", "init", board, path.parent, env=env).code == 0
    added = repbench("leaderboard", "add", path.parent, "--to", board, "--corpus", tones, env=env)
    assert added.code == 0, added.err
    built = repbench("leaderboard", "build", board, env=env)
    assert built.code == 0, built.err

    lines = [json.loads(each) for each in path.read_text(encoding="utf-8").splitlines()]
    lines[0]["estimate"] += 1.0
    path.write_text("".join(f"{json.dumps(each)}\n" for each in lines), encoding="utf-8")
    forged = repbench("verify", path.parent, env=env)
    assert (forged.code, "mean_error" in forged.out) == (4, True)


@pytest.mark.slow
def test_a_problem_in_a_file_is_run_verified_and_checked(tones: Path, tmp_path: Path) -> None:
    plugin = ("--plugin", TOY)
    done = repbench(*RUN, "--corpus", tones, "--out", tmp_path / "runs", "--json", *plugin)
    assert done.code == 0, done.err
    assert repbench("verify", tmp_path / "runs", *plugin).code == 0
    assert repbench("report", tmp_path / "runs", "--out", tmp_path / "report").code == 0
    assert repbench("check", "downstream", "phone-count", "--corpus", tones, *plugin).code == 0


def test_the_toy_keeps_the_promises_of_a_task(tmp_path: Path) -> None:
    subject = DownstreamSubject(PhoneCount(), tone_corpus(tmp_path / "tones", num_speakers=3, per_session=2))
    results = {each.id: each for each in DOWNSTREAM_CHECKS.results(subject)}
    assert {id_ for id_, each in results.items() if each.status != "passed"} == {"collapse"}


def test_the_sum_of_a_fine_tuning_step_is_the_mean_loss_times_the_utterances() -> None:
    problem = problem_of(PhoneCount())
    assert isinstance(problem, Regression)
    scores, targets = torch.tensor([[1.0], [4.0]]), torch.tensor([2.0, 2.0])
    total, terms = problem.total_loss(scores, targets, torch.tensor([5, 7]), torch.tensor([1, 1]))
    assert (total.item(), terms) == (5.0, 2)


def test_a_fault_of_a_problem_is_that_of_its_task(tmp_path: Path) -> None:
    class Divides(Regression):
        def losses(self, scores: Tensor, targets: Tensor, *counts: Tensor | None) -> Tensor:
            return scores / (1 // 0)

    class Halves(PhoneCount):
        info = dataclasses.replace(PhoneCount.info, problem=Divides())

    predictor = Predictor(Halves(), (), Envelope().info)
    with pytest.raises(PluginError, match=r"The plugin failed: ZeroDivisionError.*phone-count"):
        predictor.losses(torch.zeros(1, 2, 1), torch.zeros(2))


def test_a_problem_with_the_name_of_another_is_refused() -> None:
    class Sequence(Regression):
        name = "sequence"

    with pytest.raises(PluginError, match="the name of another one, `sequence`"):
        dataclasses.replace(PhoneCount.info, problem=Sequence())
    with pytest.raises(PluginError, match="The problem `sequence` is there already"):
        add_problem(Sequence())
    with pytest.raises(PluginError, match=r"There is no problem `triples`.*Choose one of frame-classification, "):
        problem_named("triples")
    add_problem(FRAMES)
