"""`--plugin FILE.py`: a trial without packaging, and what a file may not do."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from safetensors import safe_open

from repbench.errors import PluginError, UsageError
from repbench.globalstate import preserved_global_state
from repbench.testing import tone_corpus
from tests.commands import repbench
from tests.fake_distributions import install, registry_of

MINE = """
from repbench.downstream.speaker import Speaker
from repbench.testing import Envelope

class Mine(Envelope):
    pass

def mine(*, checkpoint=None, seed=0):
    return Mine()

upstreams = {"mine": mine}
downstreams = {"who": Speaker}
"""

SCALED = """
from repbench.testing import Envelope
from repbench.upstream.contract import HiddenStates

class Mine(Envelope):
    def forward(self, waveforms, lengths):
        with open({heard!r}, "a") as file:
            file.write("{gain} " * (len(waveforms) > 1))  # not the one that costs are counted on
        states = super().forward(waveforms, lengths)
        return HiddenStates(states.layers * {gain}, states.lengths)

upstreams = {{"mine": lambda *, checkpoint=None, seed=0: Mine().eval()}}
"""

QUICK = ("--set", "probe.steps=10", "--set", "probe.hidden_units=8")


@pytest.mark.slow
def test_a_file_is_run_and_marked_so_in_the_record(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(MINE)
    tone_corpus(tmp_path / "tones", num_speakers=3)

    done = repbench(
        "run", "--upstream", "mine", "--downstream", "who", "--plugin", plugin, "--corpus", tmp_path / "tones",
        "--out", tmp_path / "runs", "--json", *QUICK,
    )  # fmt: skip

    assert done.code == 0, done.err
    sha256 = hashlib.sha256(plugin.read_bytes()).hexdigest()
    origin = {"distribution": "mine.py (unpackaged)", "version": sha256[:12], "file_sha256": sha256}
    (record,) = done.json["results"]
    assert (record["upstream"]["name"], record["upstream"]["origin"]) == ("mine", origin)
    assert (record["downstream"]["name"], record["downstream"]["origin"]) == ("who", origin)
    assert repbench("run", "--upstream", "mine", "--downstream", "who").code == 2


@pytest.mark.slow
def test_fault_28_an_edited_file_is_asked_anew_and_computes_its_features_anew(tmp_path: Path) -> None:
    """Its weights and what it declares stay the same, so its fingerprint does."""
    tone_corpus(tmp_path / "tones", num_speakers=3)
    records = []
    for gain in (1, 2, 2):
        (tmp_path / "mine.py").write_text(SCALED.format(gain=gain, heard=str(tmp_path / "heard")))
        done = repbench(
            "run", "--upstream", "mine", "--downstream", "phone", "--plugin", tmp_path / "mine.py", "--missing-only",
            "--corpus", tmp_path / "tones", "--out", tmp_path / "runs", "--json", *QUICK,
            env={"REPBENCH_CACHE": str(tmp_path / "cache")},
        )  # fmt: skip
        assert done.code == 0, done.err
        records += done.json["results"]

    first, second, third = records
    assert first["upstream"]["fingerprint"] == second["upstream"]["fingerprint"]
    assert (first["id"] != second["id"], second["id"] == third["id"]) == (True, True)
    heard = (tmp_path / "heard").read_text().split()
    assert heard.count("1") == heard.count("2") > 0


@pytest.mark.slow
def test_extract_and_verify_take_a_file_too(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(MINE)
    corpus = tone_corpus(tmp_path / "tones", num_speakers=3)
    run = ("run", "--upstream", "mine", "--downstream", "who", "--plugin", plugin, "--corpus", tmp_path / "tones")
    assert repbench(*run, "--out", tmp_path / "runs", *QUICK).code == 0

    audio = corpus.utterances[0].audio
    extracted = repbench("extract", audio, "--upstream", "mine", "--plugin", plugin, "--out", tmp_path / "x")
    verified = repbench("verify", tmp_path / "runs", "--plugin", plugin)

    assert extracted.code == 0, extracted.err
    with safe_open(tmp_path / "x" / f"{audio.stem}.safetensors", "pt") as tensors:
        origin = json.loads(tensors.metadata()["origin"])
    assert origin["distribution"] == "mine.py (unpackaged)"
    assert origin["file_sha256"] == hashlib.sha256(plugin.read_bytes()).hexdigest()
    assert (verified.code, ": holds (" in verified.out) == (0, True), verified.err
    assert repbench("verify", tmp_path / "runs").code == 2


def test_what_a_file_changed_in_the_process_is_said_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(f"import torch; torch.set_default_device('meta')\n{MINE}")

    done = repbench("run", "--upstream", "mine", "--downstream", "who", "--plugin", tmp_path / "mine.py", "--layer=9")

    assert done.code == 2
    assert done.err.splitlines()[0].startswith("note: importing the upstream `mine` changed global state")
    assert done.err.splitlines()[0].endswith("put back: default device")


@pytest.mark.slow
def test_a_file_is_checked_in_a_worker_too(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)

    done = repbench("check", "upstream", "mine", "--plugin", tmp_path / "mine.py", "--json")

    assert done.code == 0, done.out
    statuses = {each["id"]: each["status"] for each in done.json["certificate"]["results"]}
    assert statuses["works-in-a-worker"] == "passed"


def test_a_name_of_the_file_goes_before_a_third_partys_and_never_before_a_builtins(tmp_path: Path) -> None:
    install(tmp_path / "env", "repbench", "[repbench.upstreams]\nmel = ours:Mel\n")
    install(tmp_path / "env", "theirs", "[repbench.upstreams]\nwav = theirs:Wav\n")
    found = registry_of(tmp_path / "env")
    (tmp_path / "one.py").write_text("upstreams = {'wav': print}\n")
    (tmp_path / "two.py").write_text("upstreams = {'mel': print, 'new': print}\n")

    found.add_file(tmp_path / "one.py")

    assert found.find("upstream", "wav").entry.distribution == "one.py (unpackaged)"
    assert found.load("upstream", "wav") is print
    with pytest.raises(UsageError, match=r"`mel` is the name of a built-in upstream \(file .*two\.py, key mel\)"):
        found.add_file(tmp_path / "two.py")
    assert [entry.name for entry in found.entries("upstream")] == ["mel", "wav"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise ValueError('no weights')", "cannot be executed: ValueError: no weights"),
        ("def broken(:", "cannot be executed: SyntaxError"),
        ("import sys; sys.exit(3)", "cannot be executed: SystemExit: 3"),
        ("import surely_not_installed", "No module named 'surely_not_installed'"),
        ("x = 1", "declares no `upstreams`, `downstreams` or `heads`"),
        ("upstreams = [print]", "`upstreams` must map names to factories"),
        ("upstreams = {'a': 1}", "`upstreams` must map names to factories"),
        ("downstreams = {'a b': print}", "neither a colon nor a space"),
        ("upstreams = {'hf': print}", "`hf` is a reserved prefix"),
        ("upstreams = {1: print}", "`upstreams` must map names to factories"),
    ],
)
def test_fault_33_a_file_that_is_no_plugin_is_named(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "bad.py").write_text(source)

    with pytest.raises(PluginError, match=message) as caught:
        registry_of().add_file(tmp_path / "bad.py")
    assert "bad.py" in caught.value.line()


def test_a_file_that_is_not_there_is_a_mistake_of_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such file.*none\.py"):
        registry_of().add_file(tmp_path / "none.py")


def test_fault_36_what_a_file_does_to_the_process_is_undone(tmp_path: Path) -> None:
    (tmp_path / "careless.py").write_text("import os; os.chdir('/'); os.environ['X'] = '1'\nupstreams = {'a': print}\n")

    found = registry_of()
    with preserved_global_state() as left_over:
        found.add_file(tmp_path / "careless.py")

    assert left_over == []
    assert "X" not in os.environ
    (problem,) = found.problems
    assert problem.distribution == "careless.py (unpackaged)"
    assert problem.reason.endswith("put back: working directory, environment variable X")


def test_two_files_may_not_share_a_name_and_one_file_may_be_given_twice(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text(f"upstreams = {{'a': print}}  # {name}\n")
    found = registry_of()

    found.add_file(tmp_path / "one.py")
    found.add_file(tmp_path / "one.py")

    with pytest.raises(UsageError, match=r"`a` is the name of another in .*one\.py \(file .*two\.py"):
        found.add_file(tmp_path / "two.py")
    assert len(found.entries("upstream")) == 1
