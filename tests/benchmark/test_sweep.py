"""The matrix: what a plan asks, one broken pair among others, restarts that do only what is missing."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from repbench.benchmark.pipeline.existing_records import Identity, identity_of
from repbench.benchmark.protocol import load_protocol
from repbench.benchmark.records.record import digest_of, read_record, record_paths
from repbench.benchmark.run import RunRequest, run
from repbench.benchmark.sweep.children import Child, Children
from repbench.benchmark.sweep.devices import VISIBLE, Slots, devices_of
from repbench.benchmark.sweep.forecast import Forecast, forecast
from repbench.benchmark.sweep.jobs import Job, Outcome, RunCall, run_job
from repbench.benchmark.sweep.launchers import _parameters
from repbench.benchmark.sweep.pair_inventory import PairInventory
from repbench.benchmark.sweep.parts import PartCall, parts_of
from repbench.benchmark.sweep.plan import Slurm, jobs_of, load_plan
from repbench.benchmark.sweep.sweep import LOCK_FILE, SweepRequest, left_to_do
from repbench.benchmark.sweep.sweep import sweep as sweep_plan
from repbench.errors import EnvironmentFault, UsageError
from repbench.files import canonical_json
from repbench.locks import exclusive_lock
from repbench.testing import tone_corpus
from tests.benchmark.test_parts import contents
from tests.commands import Finished, repbench

ENVELOPE = "py:repbench.testing.fakes:envelope"

PLUGINS = """
import os, pathlib, signal, sys
from repbench.testing.fakes import Envelope

def boom(*, checkpoint=None, seed=0):
    raise ValueError("this one is broken")

def killed(*, checkpoint=None, seed=0):
    os.kill(os.getpid(), signal.SIGKILL)

def hanging(*, checkpoint=None, seed=0):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pause()

def silent(*, checkpoint=None, seed=0):
    os._exit(0)

class Counting(Envelope):
    def forward(self, waveforms, lengths):
        with open(os.environ["COUNTED"], "a") as file:
            file.write("".join(f"{length}\\n" for length in lengths.tolist()))
        return super().forward(waveforms, lengths)

def counting(*, checkpoint=None, seed=0):
    return Counting().eval()

class Waiting(Envelope):
    def forward(self, waveforms, lengths):
        place = pathlib.Path(os.environ["WAITING"])
        if len(waveforms) > 1 and not place.exists():
            place.write_text(str(os.getpid()))
            signal.pause()
        return super().forward(waveforms, lengths)

def waiting(*, checkpoint=None, seed=0):
    return Waiting(hop_samples=160).eval()
"""


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep") / "tones"
    tone_corpus(folder)
    return folder


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A cache of the test's own, and upstreams that misbehave."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "odd_upstreams.py").write_text(PLUGINS, encoding="utf-8")
    return {
        "REPBENCH_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "plugins"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        "COUNTED": str(tmp_path / "counted"),
        "WAITING": str(tmp_path / "waiting"),
    }


def write_plan(folder: Path, tones: Path, **changes: Any) -> Path:
    """A plan as JSON, which is YAML."""
    tree = {"upstreams": [ENVELOPE], "downstreams": ["phone"], "corpora": [str(tones)], "set": ["probe.steps=10"]}
    plan = folder / "plan.yaml"
    plan.write_text(json.dumps(tree | changes), encoding="utf-8")
    return plan


def bytes_below(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def records_below(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in record_paths(folder / "runs")}


def answers(folder: Path) -> dict[Identity, tuple[bytes, bytes]]:
    """The metrics and predictions of every record, which must be whole, by what it answers, which must be one thing."""
    found: dict[Identity, tuple[bytes, bytes]] = {}
    for path in record_paths(folder):
        record = read_record(path)
        assert digest_of(record.as_dict()) == record.id
        assert identity_of(record) not in found, f"{path} answers what another record answers"
        metrics = canonical_json(record.as_dict()["metrics"])
        found[identity_of(record)] = (metrics, (path.parent / "predictions.jsonl").read_bytes())
    return found


# the plan


def test_a_name_that_no_file_system_takes_is_the_name_of_a_corpus(tones: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"`corpora\[0\]`: There is no corpus `x{300}`"):
        load_plan(write_plan(tmp_path, tones, corpora=["x" * 300]))


def test_every_fault_of_a_plan_is_told_at_once(tones: Path, tmp_path: Path) -> None:
    plan = write_plan(
        tmp_path,
        tones,
        upstreams=["mell", {"name": "apc", "chekpoint": "x"}],
        downstreams=["phone", "phone"],
        seeds=[-1],
        label_fractions=[0.5, 2.0],
        layer=["last"],
        preset="defualt",
        set=["probe.stepps=3"],
        slurm={"partitoin": "gpu"},
    )
    with pytest.raises(UsageError) as refused:
        load_plan(plan)
    told = refused.value.line()
    for fault in (
        "`upstreams[0]`: There is no upstream `mell`",
        "unknown key `upstreams[1].chekpoint`, did you mean `upstreams[1].checkpoint`?",
        "`downstreams`: `phone` is given twice",
        "`seeds[0]`",
        "`label_fractions[1]`",
        "unknown key `layer`, did you mean `layers`?",
        "Did you mean `default`?",
        "probe.stepps",
        "unknown key `slurm.partitoin`, did you mean `slurm.partition`?",
        str(plan),
    ):
        assert fault in told
    assert "Input should be" not in told, "a name is no mapping, but that is not what is wrong with it"
    assert repbench("sweep", plan).code == 2


def test_the_plan_of_the_manual_can_be_asked(tmp_path: Path) -> None:
    manual = Path(__file__).parents[2] / "docs" / "sweep.md"
    plan = tmp_path / "plan.yaml"
    plan.write_text(manual.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    jobs = jobs_of(load_plan(plan), Path("runs"), plan)
    assert len(jobs) == 8
    assert sum(len(job.pairs) for job in jobs) == 4 * 2 * 3 * 2 - 2 * 3 - 4 * 2 + 1


def test_paths_of_a_plan_are_relative_to_the_plan(tones: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upstreams = ["mel", {"name": "apc", "checkpoint": "runs/a"}, {"name": "apc", "checkpoint": "random:tiny"}]
    plan = write_plan(tones.parent, tones, upstreams=upstreams, corpora=["tones", "synthetic:tiny"])
    for here in (tones.parent, tones, Path("/")):
        monkeypatch.chdir(here)
        jobs = jobs_of(load_plan(plan), Path("runs"), plan)
        assert len(jobs) == 6
        pair = jobs[2].pairs[0]
        assert Path(str(pair.checkpoint)).absolute() == tones.parent / "runs" / "a"
        assert "/" in pair.corpus
        assert Path(os.path.abspath(pair.corpus)) == tones  # noqa: PTH100
        assert jobs[3].pairs[0].corpus == "synthetic:tiny"
        assert jobs[4].pairs[0].checkpoint == "random:tiny"


def test_exclusions_leave_out_pairs_and_must_leave_out_some(tones: Path, tmp_path: Path) -> None:
    lists = {"upstreams": ["mel", {"name": ENVELOPE, "label": "loud"}], "downstreams": ["phone", "speaker"]}
    plan = write_plan(tmp_path, tones, **lists, layers=["last", 0, "mean"], exclude=[
        {"upstream": "loud", "downstream": "speaker"}, {"upstream": "mel", "layer": 0}, {"layer": "mean"}
    ])  # fmt: skip
    jobs = jobs_of(load_plan(plan), Path("runs"), plan)
    asked = [(pair.label, pair.downstream, pair.layer) for job in jobs for pair in job.pairs]
    assert asked == [
        ("mel", "phone", "last"), ("mel", "speaker", "last"), ("loud", "phone", "last"), ("loud", "phone", "0")
    ]  # fmt: skip
    plan = write_plan(tmp_path, tones, **lists, exclude=[{"upstream": "lod"}])
    with pytest.raises(UsageError, match=r"`exclude\[0\]` leaves nothing out"):
        jobs_of(load_plan(plan), Path("runs"), plan)


def test_a_pair_becomes_the_command_that_asks_it(tones: Path, tmp_path: Path) -> None:
    lists = {"upstreams": [{"name": "apc", "checkpoint": "random"}], "label_fractions": [0.001, 1]}
    plan = write_plan(tmp_path, tones, **lists, seeds=[3, 4], head="mlp1", tune=True, by=["gender", "age:16"])
    ((pair,),) = [job.pairs for job in jobs_of(load_plan(plan), Path("runs"), plan)]
    command = pair.command()
    assert {
        "--upstream=apc", "--checkpoint=random", "--tune", "--head=mlp1", "--seed=3", "--seed=4",
        "--label-fraction=0.001", "--label-fraction=1.0", "--set=probe.steps=10", "--out=runs", "--missing-only",
        "--by=gender", "--by=age:16",
    } <= set(command)  # fmt: skip
    assert not {"--controls", "--finetune"} & set(command)
    assert Job.of_json(Job((pair,)).as_json()) == Job((pair,))


def test_fine_tuning_is_asked_of_what_its_part_says_and_never_tuned(tones: Path, tmp_path: Path) -> None:
    lists = {"upstreams": [{"name": "apc", "checkpoint": "random"}], "downstreams": ["phone", "speaker"]}
    lists |= {"modes": ["frozen", "finetune"], "label_fractions": [0.1, 0.3, 1], "seeds": [0, 1], "tune": True}
    part = {"downstreams": ["phone"], "label_fractions": [1], "seeds": [2]}
    plan = write_plan(tmp_path, tones, **lists, layers=["all"], finetune={**part, "layers": ["last"]})
    (job,) = jobs_of(load_plan(plan), Path("runs"), plan)
    asked = [
        (each.downstream, each.mode, each.layer, each.label_fractions, each.seeds, each.tune) for each in job.pairs
    ]
    assert asked == [
        ("phone", "frozen", "all", (0.1, 0.3, 1.0), (0, 1), True),
        ("speaker", "frozen", "all", (0.1, 0.3, 1.0), (0, 1), True),
        ("phone", "finetune", "last", (1.0,), (2,), False),
    ]
    whole = write_plan(tmp_path, tones, **lists, layers=["all"], finetune=part)
    with pytest.raises(UsageError, match=r"give `finetune\.layers`"):
        load_plan(whole)
    alone = write_plan(tmp_path, tones, finetune=part)
    with pytest.raises(UsageError, match="not among `modes`"):
        load_plan(alone)


# devices and parts


def test_jobs_take_devices_in_turn_and_their_processes_see_one_alone() -> None:
    environment = {VISIBLE: "4, GPU-7", "HOME": "/x"}
    slots = Slots(("cuda:0", "cuda:1", "cpu"), 4, environment)
    taken = []
    for _ in range(4):
        with slots.taken() as slot:
            taken.append((slot.name, slot.device, slot.environment[VISIBLE], slot.environment["HOME"]))
    assert taken == [
        ("cuda:0", "cuda", "4", "/x"), ("cuda:1", "cuda", "GPU-7", "/x"), ("cpu", "cpu", "", "/x"),
        ("cuda:0", "cuda", "4", "/x"),
    ]  # fmt: skip
    with Slots(("cuda:3",), 1, {}).taken() as slot:
        assert slot.environment == {VISIBLE: "3"}
    with Slots((), 1, environment).taken() as slot:
        assert (slot.device, slot.environment) == (None, environment)


def test_a_device_that_is_in_use_is_not_taken_while_another_is_free() -> None:
    slots = Slots(("cpu", "cuda:0"), 2, {})
    with slots.taken() as first:
        for _ in range(3):
            with slots.taken() as second:
                assert (first.name, second.name) == ("cpu", "cuda:0")


@pytest.mark.parametrize("text", ["gpu", "cuda", "auto", "cpu,", "", "cuda:x", "cpu:0"])
def test_what_names_no_device_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"no device|names none"):
        devices_of(text)


def test_a_device_that_is_not_there_or_is_given_twice_is_refused(tones: Path, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(EnvironmentFault, match="no CUDA device"):
            devices_of("cuda:0")
    plan = write_plan(tmp_path, tones, device="cpu")
    with pytest.raises(UsageError, match="Leave `device` out of the plan"):
        sweep_plan(SweepRequest(plan=plan, out=tmp_path / "runs", devices=("cpu",)))
    plan = write_plan(tmp_path, tones)
    with pytest.raises(UsageError, match="A cluster gives each job its devices"):
        sweep_plan(SweepRequest(plan=plan, out=tmp_path / "runs", devices=("cpu",), launcher="slurm"))


def test_the_parts_of_a_job_are_extracted_for_all_its_frozen_pairs(tones: Path, tmp_path: Path) -> None:
    lists = {"upstreams": [{"name": "apc", "checkpoint": "random"}], "downstreams": ["phone", "speaker"]}
    lists |= {"layers": ["last", "all"], "modes": ["frozen", "finetune"], "finetune": {"layers": ["last"]}}
    plan = write_plan(tmp_path, tones, **lists, seeds=[3, 4], plugins=[])
    (job,) = jobs_of(load_plan(plan), Path("runs"), plan)
    first, second = parts_of(job, 2)
    assert second.command() == [
        "--upstream=apc", "--checkpoint=random", f"--corpus={job.pairs[0].corpus}", "--preset=default",
        "--device=auto", "--shard=2/2", "--downstream=phone", "--downstream=speaker", "--layer=all", "--layer=last",
        "--seed=3", "--seed=4", "--set=probe.steps=10", "--json",
    ]  # fmt: skip
    assert PartCall.of_json(first.as_json()) == first
    assert parts_of(job, 1) == []
    assert parts_of(Job(tuple(pair for pair in job.pairs if pair.mode == "finetune")), 4) == []


@pytest.mark.slow
def test_jobs_on_two_devices_share_one_extraction_and_make_the_records_of_a_plain_sweep(
    tones: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    for name in ("plain", "shared"):
        (tmp_path / name).mkdir()
    write_plan(tmp_path / "plain", tones, upstreams=["mel"], downstreams=["phone", "speaker"])
    write_plan(tmp_path / "shared", tones, upstreams=["mel"], downstreams=["phone", "speaker"], shards=2)
    caches = {name: environment | {"REPBENCH_CACHE": str(tmp_path / name / "cache")} for name in ("plain", "shared")}
    assert sweep(tmp_path / "plain", caches["plain"]).code == 0
    shared = sweep(tmp_path / "shared", caches["shared"], "--devices", "cpu,cpu")

    assert shared.code == 0, shared.err
    for number in (1, 2):
        assert f"features, part {number}/2: on cpu" in shared.err
    assert answers(tmp_path / "shared" / "runs") == answers(tmp_path / "plain" / "runs")
    entries = [contents(tmp_path / name / "cache") for name in ("plain", "shared")]
    assert entries[0] == entries[1] != {}


# only what is missing


def request_of(tones: Path, out: Path, **changes: Any) -> RunRequest:
    assignments = ["probe.steps=10", *changes.pop("assignments", [])]
    fields = {"upstream": ENVELOPE, "downstream": "phone", "corpus": str(tones), "out": out, "missing_only": True}
    return RunRequest(**{**fields, "protocol": load_protocol(assignments=assignments), **changes})


@pytest.mark.slow
def test_what_a_record_answers_is_not_asked_again(tones: Path, tmp_path: Path) -> None:
    (first,) = run(request_of(tones, tmp_path))
    before = bytes_below(tmp_path)
    (again,) = run(request_of(tones, tmp_path, assignments=["extraction.batch_seconds=7", "extraction.store_gib=1"]))
    assert again == first
    (unread,) = run(request_of(tones, tmp_path, assignments=["finetune.steps=7", "probe.learning_rates=[0.1, 0.2]"]))
    assert unread == first, "settings that the run does not read are no part of the question"
    assert bytes_below(tmp_path) == before
    both = run(request_of(tones, tmp_path, seeds=(0, 1)))
    assert both[0] == first
    assert len(record_paths(tmp_path)) == 2
    for changes in (
        {"layer": "0"},
        {"label_fractions": (0.5,)},
        {"head": "mlp1"},
        {"downstream": "speaker"},
        {"upstream": "mel"},
        {"assignments": ["probe.learning_rate=0.01"]},
        {"assignments": ["extraction.dtype=float16"]},
    ):
        assert run(request_of(tones, tmp_path, **changes))[0].record.id != first.record.id
    assert len(answers(tmp_path)) == 9


def test_a_record_that_was_edited_or_lost_its_predictions_answers_nothing(tones: Path, tmp_path: Path) -> None:
    (first,) = run(request_of(tones, tmp_path))
    tree = json.loads(first.path.read_text(encoding="utf-8"))
    tree["metrics"]["accuracy"]["value"] = 0.999
    first.path.write_text(json.dumps(tree), encoding="utf-8")
    (second,) = run(request_of(tones, tmp_path))
    assert second.path != first.path
    (second.path.parent / "predictions.jsonl").unlink()
    (third,) = run(request_of(tones, tmp_path))
    assert third.path not in {first.path, second.path}


def test_a_score_by_a_brought_probe_does_not_stand_for_a_trained_one(tones: Path, tmp_path: Path) -> None:
    others = tmp_path / "others"
    tone_corpus(others, num_speakers=4, salt="other")
    (trained,) = run(request_of(tones, tmp_path / "a", missing_only=False))
    plain = RunRequest(upstream=ENVELOPE, downstream="phone", corpus=str(others), out=tmp_path / "b")
    (brought,) = run(
        RunRequest(upstream=ENVELOPE, downstream="phone", corpus=str(others), out=plain.out, probe=trained.path.parent)
    )
    assert run(request_of(others, plain.out)) != [brought]
    with pytest.raises(UsageError, match="already trained"):
        run(request_of(others, plain.out, probe=trained.path.parent))


# the sweep


def sweep(folder: Path, environment: Mapping[str, str], *options: str | Path) -> Finished:
    return repbench("sweep", folder / "plan.yaml", "--out", folder / "runs", *options, "--json", env=environment)


@pytest.mark.slow
def test_fault_50_one_broken_pair_leaves_the_others_running_and_the_next_sweep_does_only_what_is_missing(
    tones: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    upstreams = [{"name": "py:odd_upstreams:boom", "label": "broken"}, "mel", ENVELOPE]
    write_plan(tmp_path, tones, upstreams=upstreams, downstreams=["phone", "speaker"])
    first = sweep(tmp_path, environment, "--jobs", "2")
    assert first.code == first.json["exit_code"] == 5, first.err
    states = {(row["label"], row["downstream"]): (row["status"], row["exit_code"]) for row in first.json["pairs"]}
    for downstream in ("phone", "speaker"):
        assert states["mel", downstream] == states[ENVELOPE, downstream] == ("ok", 0)
        assert states["broken", downstream] == ("failed", 5)
    (failed, *_) = first.json["failed"]
    assert "this one is broken (odd_upstreams.py, line 6, in `boom`; key py:odd_upstreams:boom)" in failed["error"]
    assert len(answers(tmp_path / "runs")) == len(first.json["made"]) == 4
    before = records_below(tmp_path)
    record_paths(tmp_path / "runs")[0].unlink()

    again = sweep(tmp_path, environment)
    assert again.code == 5
    assert again.json["forecast"]["records_asked"] == 4
    assert again.json["forecast"]["records_existing"] == 3
    assert len(again.json["made"]) == 1
    assert len(answers(tmp_path / "runs")) == 4
    after = records_below(tmp_path)
    assert len(before.items() & after.items()) == 3

    table = repbench("sweep", tmp_path / "plan.yaml", "--out", tmp_path / "runs", env=environment)
    assert table.code == 5
    assert table.out.splitlines()[-1] == "0 ok, 4 already there, 2 failed"
    assert records_below(tmp_path) == after


@pytest.mark.slow
def test_the_forecast_says_what_is_missing_and_does_nothing(
    tones: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    write_plan(tmp_path, tones, downstreams=["phone", "speaker"], seeds=[0, 1])
    forecast = sweep(tmp_path, environment, "--dry-run")
    assert forecast.code == 0
    assert forecast.json["forecast"]["records_asked"] == 4
    assert forecast.json["forecast"]["records_existing"] == 0
    seconds = sum(each.seconds for each in tone_corpus(tmp_path / "same").utterances)
    assert forecast.json["forecast"]["extract_hours"] == pytest.approx(seconds / 3600)
    assert forecast.json["forecast"]["about_seconds"] == 0
    assert "time not known" in forecast.err
    assert record_paths(tmp_path / "runs") == []


def test_the_forecast_takes_its_times_from_the_records_that_exist(tones: Path, tmp_path: Path) -> None:
    plan = write_plan(tmp_path, tones, seeds=[0, 1, 2], layers=[0])
    (job,) = jobs_of(load_plan(plan), tmp_path / "runs", plan)
    whole = RunCall.of({**asdict(job.pairs[0]), "mode": "finetune"})
    known = PairInventory(
        num_records=3, records=("a",), missing_sound_seconds=600, real_time_factor=60, train_seconds=(4.0,)
    )
    expected = Forecast(pairs={job.pairs[0]: known, whole: PairInventory(num_records=1)})
    assert expected.work_seconds == 600 / 60 + 2 * 4
    assert expected.unknown == ("fine-tuning",)
    assert expected.lines(2)[1] == "0.17 h of sound go through an upstream; about 9 s with 2 jobs at a time"
    nothing = Forecast(pairs={job.pairs[0]: replace(known, real_time_factor=None, train_seconds=())})
    assert nothing.work_seconds == 0
    assert [each.partition(",")[0] for each in nothing.unknown] == [
        f"extracting features with {ENVELOPE}", "training the probes"
    ]  # fmt: skip


@pytest.mark.slow
def test_an_upstream_is_run_once_over_a_corpus(tones: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    upstream = "py:odd_upstreams:counting"
    lists = {"downstreams": ["phone", "speaker"], "layers": ["first", "last"], "seeds": [0, 1]}
    write_plan(tmp_path, tones, upstreams=[upstream], **lists)
    assert sweep(tmp_path, environment).code == 0
    assert len(answers(tmp_path / "runs")) == 8
    heard = Path(environment["COUNTED"]).read_text(encoding="utf-8").split()
    made_up = {"160000", "16000", "6400"}  # silence, on which the cost is counted, and the sounds of the trial
    lengths = sorted(int(each) for each in heard if each not in made_up)
    assert lengths == sorted(each.num_samples for each in tone_corpus(tmp_path / "same").utterances)


def test_a_second_sweep_into_the_folder_is_refused_at_once(tones: Path, tmp_path: Path) -> None:
    write_plan(tmp_path, tones)
    with exclusive_lock(tmp_path / "runs" / LOCK_FILE, "sweeps here"):
        second = sweep(tmp_path, {})
    assert second.code == 8
    assert f"process {os.getpid()} on " in second.err


def started(folder: Path, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """A sweep in a process group of its own."""
    command = [sys.executable, "-W", "error", "-m", "repbench", "sweep", "plan.yaml", "--out", "runs", "--json"]
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_sweep_that_is_told_to_end_ends_its_children_and_the_next_goes_on(
    tones: Path, tmp_path: Path, environment: dict[str, str], number: int, code: int
) -> None:
    write_plan(tmp_path, tones, upstreams=[ENVELOPE, "py:odd_upstreams:waiting"])
    swept = started(tmp_path, environment)
    waiting = Path(environment["WAITING"])
    while not (waiting.exists() and waiting.read_text(encoding="utf-8")):
        assert swept.poll() is None
        time.sleep(0.05)
    swept.send_signal(number)
    swept.send_signal(number)
    told = swept.communicate(timeout=60)[1]
    assert swept.returncode == code
    assert "the same command does the rest" in told
    with pytest.raises(ProcessLookupError):
        os.killpg(swept.pid, 0)
    assert len(answers(tmp_path / "runs")) == 1
    again = started(tmp_path, environment)
    printed, told = again.communicate(timeout=120)
    assert again.returncode == 0, told
    assert len(json.loads(printed)["made"]) == 1
    assert len(answers(tmp_path / "runs")) == 2


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["debug", "local"])
def test_submitit_takes_the_same_road_as_slurm(
    tones: Path, tmp_path: Path, environment: dict[str, str], executor: str
) -> None:
    pytest.importorskip("submitit")
    upstreams = [ENVELOPE, {"name": "py:odd_upstreams:boom", "label": "broken"}]
    write_plan(tmp_path, tones, upstreams=upstreams, shards=2, slurm={"executor": executor, "timeout_min": 5})
    swept = repbench(
        "sweep", tmp_path / "plan.yaml", "--out", tmp_path / "runs", "--launcher", "slurm", "--json", env=environment
    )
    assert swept.code == 5, swept.err
    assert [row["status"] for row in swept.json["pairs"]] == ["ok", "failed"]
    assert "this one is broken" in swept.json["failed"][0]["error"]
    assert "features in 2 parts, submitted as " in swept.err
    assert len(answers(tmp_path / "runs")) == 1


@pytest.mark.slow
def test_fault_where_nothing_is_missing_no_launcher_has_to_be_there(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    request = SweepRequest(plan=write_plan(tmp_path, tones), out=tmp_path / "runs", launcher="slurm")
    with pytest.raises(EnvironmentFault, match="submitit is not installed"):
        sweep_plan(request)
    run(request_of(tones, tmp_path / "runs"))
    swept = sweep_plan(request)
    assert [(row.status, row.exit_code) for row in swept.rows] == [("already there", 0)]


def test_settings_of_slurm_get_the_names_of_submitit_and_what_is_not_set_is_left_to_the_cluster() -> None:
    settings = Slurm(account="speech", cpus_per_task=4, mem_gb=7.5, partition="gpu", setup=("module load python",))
    assert _parameters(settings) == {
        "name": "repbench", "timeout_min": 240, "slurm_account": "speech", "cpus_per_task": 4, "mem_gb": 7.5,
        "slurm_partition": "gpu", "slurm_setup": ["module load python"],
    }  # fmt: skip
    assert _parameters(Slurm()) == {"name": "repbench", "timeout_min": 240}
    with pytest.raises(ValidationError, match="cpus_per_task"):
        Slurm(cpus_per_task=0)


@pytest.mark.slow
def test_slurm_without_a_cluster_is_refused(tones: Path, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    write_plan(tmp_path, tones)
    refused = repbench("sweep", tmp_path / "plan.yaml", "--out", tmp_path / "runs", "--launcher", "slurm", env={
        "PATH": "/nonexistent"
    })  # fmt: skip
    assert refused.code == 7
    assert "There is no `sbatch`" in refused.err
    assert repbench("sweep", tmp_path / "plan.yaml", "--launcher", "slrum").code == 2


def outcome_of(upstream: str, tones: Path, tmp_path: Path, environment: Mapping[str, str], **changes: Any) -> Outcome:
    plan = write_plan(tmp_path, tones, upstreams=[upstream], **changes)
    (job,) = jobs_of(load_plan(plan), tmp_path / "runs", plan)
    with Children() as children:
        (outcome,) = run_job(job, children, lambda line: None, {**os.environ, **environment})
    return outcome


@pytest.mark.slow
def test_a_pair_that_is_killed_or_talks_between_fails_with_a_reason(
    tones: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    killed = outcome_of("py:odd_upstreams:killed", tones, tmp_path, environment)
    assert killed.exit_code == 7
    assert "ended by SIGKILL, perhaps for lack of memory" in killed.error
    noisy = tmp_path / "plugins" / "sitecustomize.py"
    noisy.write_text("import atexit\natexit.register(print, 'noise')\n", encoding="utf-8")
    talking = outcome_of(ENVELOPE, tones, tmp_path, environment)
    assert talking.exit_code == 5
    assert "Something printed" in talking.error


@pytest.mark.slow
def test_fault_39_a_pair_that_takes_too_long_is_ended_and_fails(
    tones: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    hung = outcome_of("py:odd_upstreams:hanging", tones, tmp_path, environment, pair_timeout_min=0.05)

    assert hung.exit_code == 7
    assert hung.error.startswith("It did not end within 0.05 min, and was ended (key pair_timeout_min)")


@pytest.mark.slow
def test_fault_39_a_look_that_takes_too_long_leaves_its_job_for_the_end(
    tones: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    upstreams = ["py:odd_upstreams:hanging", "py:odd_upstreams:silent"]
    plan = write_plan(tmp_path, tones, upstreams=upstreams)
    jobs = jobs_of(load_plan(plan), tmp_path / "runs", plan)
    with Children() as children:
        hanging, silent = (
            forecast([job], Slots((), 1, {**os.environ, **environment}), children, limit_seconds=limit)
            for job, limit in zip(jobs, (2.0, 60.0), strict=True)
        )

    (hung,), (unread,) = hanging.pairs.values(), silent.pairs.values()
    assert (hung.num_records, hung.timed_out) == (None, True)
    assert (unread.num_records, unread.timed_out) == (None, False)
    assert hanging.lines(1)[-1].endswith("last: the inventory did not end within 2 s (look_timeout_min)")
    assert unread.error == "the inventory ended without a result"
    assert left_to_do(jobs, replace(hanging, pairs={**hanging.pairs, **silent.pairs})) == [jobs[1], jobs[0]]


@pytest.mark.slow
def test_one_process_makes_the_inventories_of_all_jobs_and_is_replaced_where_a_model_ends_it(
    tones: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    upstreams = ["mel", "py:odd_upstreams:killed", ENVELOPE, "py:odd_upstreams:silent", "mel_no_cmvn", "fbank"]
    plan = write_plan(tmp_path, tones, upstreams=upstreams)
    jobs = jobs_of(load_plan(plan), tmp_path / "runs", plan)
    started: list[str] = []

    class Counting(Children):
        @contextlib.contextmanager
        def started(self, module: str, arguments: Sequence[str], **options: Any) -> Iterator[Child]:
            started.append(module)
            with super().started(module, arguments, **options) as child:
                yield child

    with Counting() as children:
        made = forecast(jobs, Slots((), 1, {**os.environ, **environment}), children, limit_seconds=100.0)
    known = [each.num_records is not None for each in made.pairs.values()]
    errors = [each.error for each in made.pairs.values()]

    assert [pair.upstream for pair in made.pairs] == upstreams
    assert known == [True, False, True, False, True, True]
    assert errors == ["", "the inventory ended with -9", "", "the inventory ended without a result", "", ""]
    assert len(started) == 3, "the first, and one after each that a model ended"


@pytest.mark.slow
def test_twenty_kills_and_restarts_end_in_the_records_of_one_clean_sweep(
    tones: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    lists = {"upstreams": ["mel", ENVELOPE], "downstreams": ["phone", "speaker", "sentiment"], "seeds": [0, 1]}
    for name in ("clean", "killed"):
        (tmp_path / name).mkdir()
        write_plan(tmp_path / name, tones, **lists, set=["probe.steps=100"])
    caches = {name: environment | {"REPBENCH_CACHE": str(tmp_path / name / "cache")} for name in ("clean", "killed")}
    clean = started(tmp_path / "clean", caches["clean"])
    told = clean.communicate(timeout=900)[1]
    assert clean.returncode == 0, told

    chance, unfinished = random.Random(0), 0
    for _ in range(20):
        swept = started(tmp_path / "killed", caches["killed"])
        assert swept.stderr is not None
        for _ in range(chance.randint(1, 16)):
            swept.stderr.readline()  # each says that some work is done; "" at the end
        time.sleep(chance.uniform(0, 0.5))
        unfinished += swept.poll() is None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(swept.pid, signal.SIGKILL)
        swept.communicate(timeout=60)
    assert unfinished >= 5
    last = started(tmp_path / "killed", caches["killed"])
    told = last.communicate(timeout=900)[1]
    assert last.returncode == 0, told
    assert len(answers(tmp_path / "clean" / "runs")) == 12
    assert answers(tmp_path / "killed" / "runs") == answers(tmp_path / "clean" / "runs")
