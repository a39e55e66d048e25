"""`--quiet`: the result on stdout, errors on stderr, and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from repbench.cli import app
from repbench.testing import tone_corpus
from tests.commands import Finished

FAST = ("--set", "probe.steps=20", "--set", "probe.hidden_units=8")
RUN = ("run", "--upstream", "mel", "--downstream", "speaker", *FAST)


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quiet") / "tones"
    tone_corpus(folder)
    return folder


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REPBENCH_CACHE", str(tmp_path / "cache"))


def called(capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> Finished:
    """A command in this process, which has imported what it needs."""
    capfd.readouterr()
    code = app([str(each) for each in arguments], prog_name="repbench", standalone_mode=False) or 0
    printed = capfd.readouterr()
    return Finished(code, printed.out, printed.err)


def pair_as_csv(tones: Path, folder: Path) -> tuple[str | Path, ...]:
    """The arguments of `corpus prepare` for some sounds of a corpus."""
    sounds = sorted(tones.rglob("*.wav"))[:4]
    table = folder / "table.csv"
    lines = [
        "id,path,speaker",
        *(f"u{number},{each.relative_to(tones)},s{number}" for number, each in enumerate(sounds)),
    ]
    table.write_text("\n".join(lines), encoding="utf-8")
    return ("corpus", "prepare", "csv", "--root", tones, "--table", table, "--out", folder / "prepared")


def test_without_it_a_run_reports_its_stages_and_notes(
    tones: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    done = called(capfd, *RUN, "--corpus", tones, "--out", tmp_path)
    assert "features of train: " in done.err


def test_a_run_prints_its_table_alone(tones: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    done = called(capfd, *RUN, "--corpus", tones, "--out", tmp_path, "--quiet")
    assert done.err == ""
    assert "accuracy" in done.out
    assert str(tmp_path) in done.out


def test_a_report_prints_its_files_and_the_records_that_fail(
    tones: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    called(capfd, *RUN, "--corpus", tones, "--out", tmp_path / "runs", "-q")
    (record,) = (tmp_path / "runs").rglob("record.json")
    forged = tmp_path / "runs" / "forged"
    shutil.copytree(record.parent, forged)
    fields = json.loads((forged / "record.json").read_text(encoding="utf-8"))
    fields["created"] = "2020-01-01T00:00:00+00:00"
    (forged / "record.json").write_text(json.dumps(fields), encoding="utf-8")

    done = called(capfd, "report", tmp_path / "runs", "--out", tmp_path / "report", "--quiet", "--format", "md")

    (line,) = done.err.splitlines()
    assert line.startswith("left out: ")
    assert "forged" in line
    assert done.out.splitlines()[-1].endswith("report.md")


def test_preparing_a_corpus_prints_what_was_made(
    tones: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    prepare = pair_as_csv(tones, tmp_path)
    assert "reading" in called(capfd, *prepare).err
    done = called(capfd, *prepare, "--overwrite", "--quiet")
    assert done.err == ""
    assert "4 utterances" in done.out


def test_extraction_prints_the_files(tones: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sound = sorted(tones.rglob("*.wav"))[0]
    extract = ("extract", sound, "--upstream", "mel", "--resample")
    assert "hidden states: 1" in called(capfd, *extract, "--out", tmp_path / "a").err
    done = called(capfd, *extract, "--out", tmp_path / "b", "--quiet")
    assert done.err == ""
    assert done.out == f"{tmp_path / 'b' / sound.stem}.safetensors\n"
    stored = called(
        capfd, "extract", "--shard", "1/1", "--upstream", "mel", "--downstream", "speaker", "--corpus", tones, "-q"
    )
    assert (stored.err, "features" in stored.out or "utterances" in stored.out) == ("", True)


def test_pretraining_prints_its_checkpoint(tones: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    done = called(
        capfd, "pretrain", "apc", "--preset", "tiny", "--corpus", tones, "--steps", "2", "--out", tmp_path / "apc",
        "--set", "training.min_frames=10", "--quiet",
    )  # fmt: skip
    assert done.err == ""
    assert ": step 2" in done.out


@pytest.mark.slow
def test_a_sweep_prints_its_rows_and_the_error_of_a_pair(
    tones: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        f"upstreams: [mel, {{name: mockingjay, checkpoint: {tmp_path / 'nowhere'}}}]\n"
        f"downstreams: [speaker]\ncorpora: [{tones}]\nset: [probe.steps=20]\n",
        encoding="utf-8",
    )
    done = called(capfd, "sweep", plan, "--out", tmp_path / "runs", "--quiet")
    assert (done.code, done.err) == (2, "")
    rows = {line.split()[0]: line for line in done.out.splitlines() if " speaker " in line}
    assert rows["mel"].split()[-1] == "ok"
    assert "nowhere" in done.out
