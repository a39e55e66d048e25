"""Broken neighbours: a raising, a hanging and a clashing plugin are installed, and everything else works."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from repbench.testing import tone_corpus
from tests.commands import repbench
from tests.fake_distributions import install

QUICK = ("--set", "probe.steps=10", "--set", "probe.hidden_units=8")

LEAVING = """
import os, signal, sys, time
from repbench.testing import Envelope

class LeavesWhenHeard(Envelope):
    def forward(self, waveforms, lengths):
        sys.exit(0)

class LeavesWhenAsked(Envelope):
    def num_frames(self, num_samples):
        sys.exit(0)

def built(*, checkpoint=None, seed=0):
    sys.exit(0)

def told_to_end(*, checkpoint=None, seed=0):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)

upstreams = {
    "built": built,
    "heard": lambda *, checkpoint=None, seed=0: LeavesWhenHeard().eval(),
    "asked": lambda *, checkpoint=None, seed=0: LeavesWhenAsked().eval(),
    "told-to-end": told_to_end,
}
"""
"""Plugins that end the process when they are used, as if all were well, and one that is told to end."""


@pytest.fixture
def bad_company(tmp_path: Path) -> dict[str, str]:
    """An environment in which one of each is installed."""
    folder = tmp_path / "site"
    modules = {
        "raising": "raise ValueError('no weights')\n",
        "hanging": "import time\nwhile True: time.sleep(60)\n",
        "clashing": "raise RuntimeError('must never be imported')\n",
        "leaving": "import sys; sys.exit(3)\n",
    }
    for name, source in modules.items():
        points = f"[repbench.upstreams]\n{name} = isolation_{name}:m\n"
        if name == "clashing":
            points += "mel = isolation_clashing:m\n[repbench.downstreams]\nspeaker = isolation_clashing:m\n"
        install(folder, name, points, modules={f"isolation_{name}": source})
    install(folder, "rival", "[repbench.upstreams]\nclashing = isolation_clashing:m\n")
    install(folder, "malformed", "[repbench.upstreams]\nnonsense\n")
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)}


@pytest.mark.slow
def test_a_run_passes_in_bad_company(bad_company: dict[str, str], tmp_path: Path) -> None:
    tone_corpus(tmp_path / "tones", num_speakers=3)
    pair = ("--upstream", "mel", "--downstream", "speaker")

    done = repbench(
        "run", *pair, "--corpus", tmp_path / "tones", "--out", tmp_path / "runs", "--json", *QUICK, env=bad_company
    )

    assert done.code == 0, done.err
    (record,) = done.json["results"]
    assert record["upstream"]["origin"]["distribution"] == "repbench"
    assert record["downstream"]["origin"]["distribution"] == "repbench"


def test_bad_company_is_listed_and_named(bad_company: dict[str, str]) -> None:
    listed = repbench("list", "upstreams", "--json", env=bad_company)

    notes = {(row["origin"], row["name"]): row["note"] for row in listed.json["plugins"]}
    assert notes["clashing", "mel"] == "hidden by the built-in; use clashing:mel"
    assert notes["rival", "clashing"] == "name shared with `clashing`; use rival:clashing"
    assert [problem["distribution"] for problem in listed.json["problems"]] == ["malformed"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("raising", ["`raising`", "distribution `raising` 1.0", "ValueError: no weights", "pip uninstall raising"]),
        ("leaving", ["SystemExit: 3", "pip uninstall leaving"]),
        ("clashing", ["`clashing` and `rival`", "clashing:clashing", "rival:clashing"]),
    ],
)
def test_using_bad_company_is_an_error_of_the_plugin(
    bad_company: dict[str, str], tmp_path: Path, spec: str, words: list[str]
) -> None:
    done = repbench("run", "--upstream", spec, "--downstream", "phone", "--out", tmp_path, env=bad_company)

    assert (done.code, done.out, len(done.err.splitlines())) == (5, "", 1)
    for word in words:
        assert word in done.err


@pytest.mark.slow
def test_the_doctor_names_the_one_that_hangs_within_the_time_it_is_given(bad_company: dict[str, str]) -> None:
    done = repbench("doctor", "--json", "--timeout", "25", env=bad_company)

    assert done.code == 5, done.err
    broken = {row["name"]: row for row in done.json["plugins"] if row["distribution"] in {"hanging", "raising"}}
    assert broken["hanging"]["reason"] == "importing it did not end within 25 s"
    assert broken["hanging"]["cure"].endswith("pip uninstall hanging")
    assert broken["raising"]["reason"] == "ValueError: no weights"
    healthy = [row for row in done.json["plugins"] if row["distribution"] == "repbench"]
    assert {row["status"] for row in healthy} == {"ok"}


@pytest.mark.parametrize("name", ["built", "heard", "asked"])
def test_fault_33_a_plugin_that_exits_in_use_is_an_error_of_the_plugin(tmp_path: Path, name: str) -> None:
    (tmp_path / "leaving.py").write_text(LEAVING)
    tone_corpus(tmp_path / "tones", num_speakers=3)

    done = repbench(
        "run", "--upstream", name, "--downstream", "phone", "--plugin", tmp_path / "leaving.py",
        "--corpus", tmp_path / "tones", "--out", tmp_path / "runs", *QUICK,
    )  # fmt: skip

    assert (done.code, done.out) == (5, ""), done.err
    assert done.err.splitlines()[-1].startswith("error: The plugin failed: SystemExit: 0 (leaving.py, line ")


def test_fault_33_a_factory_that_exits_fails_its_check(tmp_path: Path) -> None:
    (tmp_path / "leaving.py").write_text(LEAVING)

    done = repbench("check", "upstream", "built", "--plugin", tmp_path / "leaving.py")

    assert (done.code, done.out) == (5, "")
    assert re.search(r"SystemExit: 0 \(.*leaving.py, line \d+, in `\w+`; key built\)", done.err)


@pytest.mark.parametrize("command", [("run", "--downstream", "phone", "--upstream"), ("check", "upstream")])
def test_a_signal_within_a_plugin_is_no_fault_of_it(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "leaving.py").write_text(LEAVING)

    done = repbench(*command, "told-to-end", "--plugin", tmp_path / "leaving.py")

    assert done.code == 143
    assert "terminated" in done.err


@pytest.mark.slow
def test_a_sweep_passes_in_bad_company_and_those_that_exit_fail_alone(
    bad_company: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "leaving.py").write_text(LEAVING)
    tone_corpus(tmp_path / "tones", num_speakers=3)
    plan = {
        "upstreams": ["mel", "raising", "built", "asked"], "downstreams": ["speaker"], "corpora": ["./tones"],
        "set": ["probe.steps=10", "probe.hidden_units=8"], "plugins": ["leaving.py"],
    }  # fmt: skip
    (tmp_path / "plan.yaml").write_text(json.dumps(plan))

    done = repbench("sweep", tmp_path / "plan.yaml", "--out", tmp_path / "runs", "--json", env=bad_company)

    assert done.code == 5, done.err
    ended = {row["label"]: (row["status"], row["exit_code"], len(row["records"])) for row in done.json["pairs"]}
    failed = ("failed", 5, 0)
    assert ended == {"mel": ("ok", 0, 1), "raising": failed, "built": failed, "asked": failed}
    errors = {row["label"]: row["error"] for row in done.json["failed"]}
    assert "ValueError: no weights" in errors["raising"]
    assert errors["built"].startswith("The plugin failed: SystemExit: 0 (leaving.py, line ")


@pytest.mark.slow
def test_faults_34_to_36_are_lines_of_the_doctor(tmp_path: Path) -> None:
    install(tmp_path, "malformed", "[repbench.upstreams]\nnonsense\n")
    install(
        tmp_path,
        "clashing",
        "[repbench.upstreams]\nmel = isolation_careless:m\n",
        modules={"isolation_careless": "import os\nos.environ['CLASHED'] = '1'\nm = print\n"},
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)

    told = repbench("doctor", env={"PYTHONPATH": path})

    lines = [line.split() for line in told.out.splitlines()]
    assert told.code == 0, told.out
    assert [line[1] for line in lines if line[0] == "malformed"] == ["ignored"]
    assert [line[1] for line in lines if line[0] == "clashing"] == ["note", "note"]
    for words in ("hidden by the built-in", "Name it `clashing:mel`", "put back: environment variable CLASHED"):
        assert words in told.out
