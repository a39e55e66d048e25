"""The examples run as they stand: on an untrained network, on a checkpoint of the released code, on real records."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.commands import repbench

ROOT = Path(__file__).parent.parent
LEADERBOARD = ROOT / "examples" / "leaderboard"
RELEASED = ROOT / "tests" / "golden" / "mockingjay_legacy" / "mockingjay_dr3_mel.ckpt"


def example(name: str, *arguments: str | Path, folder: Path) -> str:
    command = [sys.executable, "-W", "error", ROOT / "examples" / name, *arguments]
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, env=os.environ.copy())
    assert (finished.returncode, finished.stderr) == (0, "")
    return finished.stdout


@pytest.mark.slow
def test_hidden_states_are_extracted_from_a_released_checkpoint(tmp_path: Path) -> None:
    printed = example("extract_hidden_states.py", RELEASED, folder=tmp_path).splitlines()
    assert printed == [
        "every layer: (2, 2, 81, 48)",
        "last layer: (2, 81, 48)",
        "untiled: (2, 2, 27, 48)",
        "restored: (2, 81, 160)",
        "from waveforms: (3, 2, 27, 48)",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", ["random:tiny", RELEASED], ids=["untrained", "released"])
def test_fine_tuning_lowers_the_loss(checkpoint: str | Path, tmp_path: Path) -> None:
    first, last = (
        float(line.rpartition(" ")[2]) for line in example("fine_tune.py", checkpoint, folder=tmp_path).splitlines()
    )
    assert last < first / 2


@pytest.mark.slow
def test_every_submission_of_the_leaderboard_holds(tmp_path: Path) -> None:
    done = repbench("leaderboard", "build", LEADERBOARD, "--out", tmp_path, "--json")
    assert (done.code, done.json["refused"]) == (0, {}), done.err
    assert len(done.json["accepted"]) == 5
    assert "Front ends on twelve synthetic voices" in (tmp_path / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("changed", "passes"),
    [
        (["submissions/0123456789abcdef.json"], True),
        (["submissions/0123456789abcdef.json", "submissions/fedcba9876543210.json"], True),
        (["submissions/0123456789abcdef.json", "leaderboard.yaml"], False),
        (["submissions/9cb065ff58a40b30.json"], False),
        (["submissions/../.github/workflows/mine.yml"], False),
        (["references/phone-2c5196cb14250cdd.json"], False),
    ],
    ids=["one", "two", "head", "edited", "workflow", "references"],
)
def test_the_workflow_takes_pull_requests_that_add_submissions_alone(
    tmp_path: Path, changed: list[str], passes: bool
) -> None:
    def git(*arguments: str) -> str:
        who = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
        return subprocess.check_output(["git", *who, *arguments], cwd=tmp_path, text=True).strip()

    steps = yaml.safe_load((LEADERBOARD / "workflow.yml").read_text(encoding="utf-8"))["jobs"]["build"]["steps"]
    (script,) = (step["run"] for step in steps if step.get("name") == "Only new submissions")
    git("init", "--quiet")
    for path in ("leaderboard.yaml", "submissions/9cb065ff58a40b30.json", "references/phone-2c5196cb14250cdd.json"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes((LEADERBOARD / path).read_bytes())
    git("add", ".")
    git("commit", "--quiet", "--message", "Base")
    base = git("rev-parse", "HEAD")
    for name in changed:
        file = (tmp_path / name).resolve()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine", encoding="utf-8")
    git("add", ".")
    git("commit", "--quiet", "--message", "Pull request")
    done = subprocess.run(
        ["bash", "-e", "-c", script], cwd=tmp_path, env={**os.environ, "BASE": base}, capture_output=True, text=True
    )
    assert (done.returncode == 0) is passes, done.stdout


OBJECTIVES = ROOT / "examples" / "repbench-objectives"


@pytest.mark.slow
def test_the_objectives_keep_their_promises() -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(OBJECTIVES), os.environ.get("PYTHONPATH", "")])),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(OBJECTIVES / "test_objectives.py")]
    finished = subprocess.run(command, cwd=OBJECTIVES, capture_output=True, text=True, timeout=600, env=environment)
    assert finished.returncode == 0, finished.stdout


@pytest.mark.parametrize("name", ["tera.py", "vq_apc.py"])
def test_an_objective_takes_less_than_300_lines(name: str) -> None:
    page = (ROOT / "docs" / "objectives.md").read_text(encoding="utf-8")
    lines = len((OBJECTIVES / name).read_text(encoding="utf-8").splitlines())
    assert lines < 300
    assert f"({'../examples/repbench-objectives/' + name})" in page
    (row,) = (line for line in page.splitlines() if line.startswith("|") and name in line)
    assert row.split("|")[-2].strip() == str(lines)
