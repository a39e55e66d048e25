"""Broken neighbours: a raising, a hanging and a clashing plugin are installed, and everything else works."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from repbench.testing import tone_corpus
from tests.commands import repbench
from tests.fake_distributions import install

QUICK = ("--set", "probe.steps=10", "--set", "probe.hidden_units=8")


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
