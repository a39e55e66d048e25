"""The commands as their users meet them."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile
from safetensors import safe_open

from repbench.testing import tone_corpus
from tests.commands import repbench

QUICK = ("--set", "probe.steps=20", "--set", "probe.hidden_units=16")


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "tones"
    tone_corpus(folder)
    return folder


@pytest.mark.parametrize("command", ["--help", "list"])
def test_the_start_is_quick(command: str) -> None:
    seconds = []
    for _ in range(5):
        started = time.monotonic()
        assert repbench(command, fresh=True).code == 0
        seconds.append(time.monotonic() - started)
    assert statistics.median(seconds) < 1.5, "aimed at 0.3 s; the margin is for a busy machine"


@pytest.mark.slow
def test_a_run_imports_no_library_that_it_does_not_need(tmp_path: Path) -> None:
    """Each takes a second or more; torch imports its compiler and sympy where a run does not keep it from that."""
    arguments = ["run", "--upstream", "mel", "--downstream", "phone", "--corpus", "synthetic:tiny", *QUICK]
    command = [sys.executable, "-X", "importtime", "-m", "repbench", *arguments, "--out", str(tmp_path / "runs")]
    # An empty cache: the costs of the front end are measured too.
    environment = {**os.environ, "REPBENCH_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "torch" in imported
    slow = {"scipy.optimize", "scipy.stats", "sklearn", "pandas", "matplotlib", "sympy", "torch._dynamo", "torchaudio"}
    assert not slow & imported


@pytest.mark.slow
def test_what_reads_records_imports_no_torch(tmp_path: Path) -> None:
    """Nor does a sweep, whose children do: torch takes most of the start of a command."""
    plan, runs = tmp_path / "plan.yaml", tmp_path / "runs"
    plan.write_text(
        'upstreams: [mel]\ndownstreams: [phone]\ncorpora: ["synthetic:tiny"]\nset: [probe.steps=20]\n', encoding="utf-8"
    )
    reports = tmp_path / "report"
    for words in (["sweep", plan, "--out", runs], ["report", runs, "--out", reports], ["show", runs], ["verify", runs]):
        command = [sys.executable, "-X", "importtime", "-m", "repbench", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert "repbench.cli" in imported
        assert "torch" not in imported, words[0]


@pytest.mark.parametrize(
    "words",
    [
        "run --upstream mell --downstream phone",
        "run --upstream mel --downstream phonee",
        "run --upstream mel --downstream phone --set stepps=1",
        "pretrain appc",
        "extract sound.wav --upstream mell --out states",
    ],
)
def test_what_is_misspelt_is_refused_before_torch_is_imported(words: str) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "repbench", *words.split()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "did you mean" in done.stderr.lower()
    assert "repbench.cli" in done.stderr
    assert not [line for line in done.stderr.splitlines() if line.endswith("| torch")]


def test_help_names_every_command_there_is() -> None:
    shown = repbench("--help").out
    commands = "list doctor corpus run sweep pretrain extract demo cache check report verify leaderboard"
    for command in commands.split():
        assert f"  {command} " in shown


@pytest.mark.slow
@pytest.mark.parametrize("command", [(), ("corpus",), ("-h",)])
def test_a_command_alone_shows_its_help(command: tuple[str, ...]) -> None:
    shown = repbench(*command)
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith("Usage: repbench")
    assert len(shown.out.splitlines()) > 5


def test_a_full_standard_output_is_said() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "repbench", "list"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, "No space left" in done.stderr) == (7, True)


def test_version() -> None:
    assert repbench("--version").out.startswith("repbench 0.")


def test_list_names_the_built_ins() -> None:
    rows = repbench("list", "--json").json["plugins"]
    names = {(row["kind"], row["name"]) for row in rows if row["origin"] == "repbench"}
    assert {("upstream", "mel"), ("downstream", "phone"), ("corpus", "synthetic")} <= names
    assert "sentiment" in repbench("list", "downstreams").out
    assert "mel" not in repbench("list", "corpora").out


def test_a_run_prints_its_table_and_leaves_its_record(tones: Path, tmp_path: Path) -> None:
    done = repbench("run", "--upstream", "mel", "--downstream", "speaker", "--corpus", tones, "--out", tmp_path, *QUICK)
    assert done.code == 0, done.err
    for word in ("accuracy", "macro_f1", "chance", "majority", "0.167", "record.json"):
        assert word in done.out
    path = Path(done.out.splitlines()[-1])
    assert json.loads(path.read_text(encoding="utf-8"))["schema"] == "repbench.record/1"


def test_json_is_one_object_on_stdout_and_progress_goes_to_stderr(tones: Path, tmp_path: Path) -> None:
    done = repbench(
        "run", "--upstream", "mel", "--downstream", "sentiment", "--corpus", tones, "--out", tmp_path, "--json",
        "--seed", "0", "--seed", "3", *QUICK,
    )  # fmt: skip
    assert [record["seed"] for record in done.json["results"]] == [0, 3]
    assert all(Path(path).is_file() for path in done.json["records"])
    assert "features of train" in done.err


@pytest.mark.parametrize(
    "arguments", [("verify",), ("corpus", "check"), ("run", "--upstream", "mel", "--downstream", "phone", "--corpus")]
)
def test_a_name_that_no_file_system_takes_is_one_line(arguments: tuple[str, ...]) -> None:
    done = repbench(*arguments, "x" * 300)
    # From Python 3.14 on, a path that no file system takes is a path at which nothing is.
    code, words = (2, "…` is too long for the file system: 3")
    if sys.version_info >= (3, 14):
        code, words = (3, "xxx") if arguments == ("verify",) else (2, "There is no corpus `xxx")
    assert (done.code, done.err.count("\n"), words in done.err) == (code, 1, True)


RUN, PRETRAIN = ("run", "--upstream", "mel", "--downstream", "phone"), ("pretrain", "apc")


@pytest.mark.parametrize("command", [RUN, PRETRAIN])
def test_what_is_refused_leaves_no_folder(command: tuple[str, ...], tmp_path: Path) -> None:
    done = repbench(*command, "--corpus", "nosuch", "--out", tmp_path / "new" / "runs")
    assert (done.code, "There is no corpus `nosuch`" in done.err) == (2, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "place", "code", "words"),
    [
        (RUN, "x" * 300, 7, "File name too long"),
        (RUN, "file", 7, "Not a directory"),
        (RUN, "file/below", 7, "Not a directory"),
        (PRETRAIN, "file", 2, "This is a file, not a folder"),
        (PRETRAIN, "file/below", 7, "Not a directory"),
    ],
)
def test_a_place_that_takes_no_results_is_refused_before_the_work(
    command: tuple[str, ...], place: str, code: int, words: str, tones: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    done = repbench(*command, "--corpus", tones, "--out", tmp_path / place)
    assert (done.code, done.err.count("\n"), words in done.err) == (code, 1, True), done.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("run", "--upstream", "mell", "--downstream", "phone"), 2, ["mell", "Did you mean `mel`"]),
        (("run", "--upstream", "mel"), 2, ["Missing option '--downstream'"]),
        (("run", "--upstream", "mel", "--downstream", "phone", "--seed", "x"), 2, ["--seed"]),
        (("run", "--upstream", "mel", "--downstream", "speaker", "--head", "linear"), 2, ["constant", "mel_no_cmvn"]),
        (("run", "--upstream", "mel", "--downstream", "phone", "--set", "probe.step=1"), 2, ["probe.steps"]),
        (("run", "--upstream", "mel", "--downstream", "phone", "--corpus", "csv"), 2, ["corpus prepare csv"]),
        (("run", "--upstream", "mel", "--downstream", "phone", "--corpus", "./none"), 3, ["no manifest", "none"]),
        (("run", "--upstream", "hf:./none", "--downstream", "phone"), 2, ["./none", "is not a folder here"]),
        (("list", "models"), 2, ["upstreams, downstreams, corpora"]),
        (("corpus", "prepare", "fsdd", "--root", "/nowhere", "--out", "x"), 3, ["/nowhere"]),
        (("corpus", "prepare", "synthetic", "--root", ".", "--out", "x"), 2, ["needs no preparing"]),
        (("extract", "none.wav", "--upstream", "mel", "--out", "x"), 3, ["none.wav"]),
        (("nonsense",), 2, ["nonsense"]),
    ],
)
def test_an_error_is_one_line_with_its_code(arguments: tuple[str, ...], code: int, words: list[str]) -> None:
    done = repbench(*arguments)
    assert done.code == code, done.err
    assert done.out == ""
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith("error: ")
    for word in words:
        assert word in done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "--upstream", "mel", "--upstream", "apc", "--downstream", "phone"), ["twice", "key --upstream"]),
        (("plot", "layers", "runs", "--out", "a", "--out=b"), ["twice", "key --out"]),
        (("cache", "clear", "--upstream", "a", "--upstream", "b", "--upstream", "c"), ["3 times"]),
        (("corpus", "prepare", "csv", "--root=.", "--out=x", "--column=path=a", "--column=path=b"), ["`a` and `b`"]),
        (("pretrain", "apc", "--steps=9", "--set", "training.steps=8"), ["`--steps` and `--set training.steps`"]),
        (("run", "--upstream=mel", "--downstream=phone", "--layer=0", "--set", "layer=last"), ["Give one of the two"]),
    ],
)
def test_fault_of_two_values_none_is_dropped(arguments: tuple[str, ...], words: list[str]) -> None:
    refused = repbench(*arguments)
    assert refused.code == 2
    for word in words:
        assert word in refused.err


def test_fault_a_setting_without_its_option_is_answered_with_what_was_meant() -> None:
    pair = ("run", "--upstream", "mel", "--downstream", "phone")
    assert "Did you mean `--seed 1`?\n" in repbench(*pair, "seed=1").err
    assert "Did you mean `--label-fraction 0.1`?\n" in repbench(*pair, "label_fraction=0.1").err
    assert "Did you mean `--set probe.steps=10`?\n" in repbench(*pair, "probe.steps=10").err


@pytest.mark.parametrize(
    ("command", "setting", "meant"),
    [
        ("run --upstream mel --downstream phone", "seed=1", "the option `--seed`?"),
        ("run --upstream mel --downstream phone", "label_fraction=0.1", "the option `--label-fraction`?"),
        ("run --upstream mel --downstream phone", "stepps=1", "`probe.steps`?"),
        ("pretrain apc --preset tiny --out {}", "seed=1", "Give it as --seed."),
        ("pretrain apc --preset tiny --out {}", "steps=1", "Did you mean `training.steps`?"),
    ],
)
def test_fault_a_setting_that_is_an_option_leads_to_it(command: str, setting: str, meant: str, tmp_path: Path) -> None:
    refused = repbench(*command.format(tmp_path / "p").split(), "--set", setting)
    assert refused.code == 2
    assert refused.err.endswith(f"{meant}\n")


def test_with_json_an_error_has_its_fields_on_stdout() -> None:
    done = repbench("run", "--upstream", "mell", "--downstream", "phone", "--json")
    assert done.code == 2
    assert done.json["error"] == "UsageError"
    assert done.json["exit_code"] == 2
    assert "mel" in done.json["do"]


@pytest.mark.slow
def test_fault_48_a_device_that_is_not_there_is_refused_before_data_is_read(tmp_path: Path) -> None:
    done = repbench(
        "run", "--upstream", "mel", "--downstream", "phone", "--device", "cuda", "--corpus", tmp_path,
        env={"CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert (done.code, "There is no CUDA device" in done.err) == (7, True)


@pytest.mark.slow
def test_a_full_disk_exits_with_7_and_leaves_no_record(tones: Path, tmp_path: Path) -> None:
    limited = (
        "import resource, sys, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); "
        "sys.argv = ['repbench', *sys.argv[1:]]; runpy.run_module('repbench', run_name='__main__')"
    )
    arguments = ["run", "--upstream", "mel", "--downstream", "phone", "--corpus", str(tones), "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", limited, *arguments, *QUICK], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 7, done.stderr
    assert "No space left" in done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_extract_writes_hidden_states_with_their_info(tones: Path, tmp_path: Path) -> None:
    sound = tones / "sounds" / "s0-00.wav"
    samples, rate = soundfile.read(sound)
    done = repbench("extract", sound, "--upstream", "mel", "--out", tmp_path / "x", "--json")
    (path,) = done.json["files"]
    with safe_open(path, framework="np") as stored:
        states = stored.get_tensor("hidden_states")
        info = json.loads(stored.metadata()["info"])
    assert states.shape == (1, 1 + len(samples) // 200, 160)
    assert (info["name"], info["hop_samples"], info["sample_rate_hz"]) == ("mel", 200, rate)


@pytest.mark.slow
def test_extract_resamples_only_when_told_and_refuses_two_files_of_one_name(tones: Path, tmp_path: Path) -> None:
    samples, _ = soundfile.read(tones / "sounds" / "s0-00.wav")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        soundfile.write(tmp_path / folder / "x.wav", samples, 22050)
    refused = repbench("extract", tmp_path / "a" / "x.wav", "--upstream", "mel", "--out", tmp_path)
    assert (refused.code, "expects 16000 Hz, but the sound has 22050 Hz" in refused.err) == (3, True)
    told = repbench("extract", tmp_path / "a" / "x.wav", "--upstream", "mel", "--out", tmp_path, "--resample")
    assert (told.code, told.out.strip()) == (0, str(tmp_path / "x.safetensors"))
    twice = repbench(
        "extract", tmp_path / "a" / "x.wav", tmp_path / "b" / "x.wav", "--upstream", "mel", "--out", tmp_path
    )
    assert (twice.code, "Two files" in twice.err) == (2, True)


def test_corpus_prepare_and_check(tones: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    rows = [f"s{speaker}-{number:02d}.wav,s{speaker}" for speaker in range(6) for number in range(8)]
    table.write_text("file,who\n" + "\n".join(rows) + "\n", encoding="utf-8")
    done = repbench(
        "corpus", "prepare", "csv", "--root", tones / "sounds", "--table", table, "--column", "path=file",
        "--column", "speaker=who", "--out", tmp_path / "m", "--json",
    )  # fmt: skip
    assert (done.code, done.json["utterances"]) == (0, 48)
    checked = repbench("corpus", "check", tmp_path / "m")
    assert (checked.code, "no problems found" in checked.out) == (0, True)


def test_corpus_check_names_a_sound_that_changed(tmp_path: Path) -> None:
    tone_corpus(tmp_path / "c", num_speakers=1)
    sound = tmp_path / "c" / "sounds" / "s0-03.wav"
    samples, rate = soundfile.read(sound)
    soundfile.write(sound, samples * 0.5, rate)
    done = repbench("corpus", "check", tmp_path / "c")
    assert done.code == 3
    assert "s0-03" in done.err


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_fault_3_a_signal_ends_a_run_with_its_code_and_no_half_record(
    tones: Path, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    command = [sys.executable, "-m", "repbench", "run", "--upstream", "mel", "--downstream", "phone",
               "--corpus", str(tones), "--out", str(tmp_path), "--set", "probe.steps=1000000"]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ})
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("features of dev"):
            break
    process.send_signal(sent)
    assert process.wait(timeout=60) == code
    process.stderr.close()
    assert not list(tmp_path.rglob("record.json"))
