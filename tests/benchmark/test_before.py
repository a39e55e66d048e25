"""A feature store and a record that version 0.1.0 wrote are used by this version as if it had written them itself.

`tests/golden/before-0.2` holds what this command left behind, with 0.1.0, on the corpus that `corpus` writes:

    repbench run --upstream mel --downstream speaker --corpus table --set probe.steps=60 --set probe.hidden_units=8
"""

from __future__ import annotations

import json
import shutil
import struct
import wave
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from repbench.benchmark.features import batch_work
from repbench.benchmark.pipeline.write_record import NOT_IN_PROTOCOL
from repbench.benchmark.protocol import Protocol
from repbench.cli import app
from repbench.configs.settings import flat
from tests.conftest import GOLDEN

BEFORE = GOLDEN / "before-0.2"
STORE_FOLDER = "01dc16598a10afc7a307c299c78d9e1c"
"""Name that version 0.1.0 gave to the folder of the shards."""
RECORD_ID = "3fd815693828c10d"
WAS = json.loads((BEFORE / "record.json").read_bytes())
"""The record of before."""
COMMAND = ("--upstream", "mel", "--downstream", "speaker", "--set", "probe.steps=60", "--set", "probe.hidden_units=8")

Json = Callable[..., Any]


def samples(number: int) -> list[int]:
    """A sawtooth whose period tells the speaker, with noise: integers, and so the same bytes on every machine."""
    speaker, session, noise = number % 4, number // 4 % 3, number + 1
    period, made = 40 + 23 * speaker, []
    for time in range(800 + 40 * (number % 7)):
        noise = (1_103_515_245 * noise + 12_345) % 2**31
        made.append(8_000 * (time % period) // period - 4_000 + (noise >> 16) % 1_601 - 800 + 10 * session)
    return made


@pytest.fixture
def repbench(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Json:
    """Runs a command in this process and gives the object that `--json` prints."""
    monkeypatch.setenv("REPBENCH_CACHE", str(tmp_path / "cache"))

    def run(*arguments: str | Path) -> Any:
        capsys.readouterr()
        code = app([*map(str, arguments), "--json"], prog_name="repbench", standalone_mode=False)
        assert not code
        return json.loads(capsys.readouterr().out)

    return run


def corpus(folder: Path, repbench: Json, numbers: Iterable[int] = range(24)) -> Path:
    """A manifest named `table` of utterances of 4 speakers in 3 sessions each, in a folder of another name."""
    sounds = folder / "sounds of another place"
    sounds.mkdir()
    lines = ["id,path,speaker,group"]
    for number in numbers:
        with wave.open(str(sounds / f"{number}.wav"), "wb") as sound:
            sound.setparams((1, 2, 16_000, 0, "NONE", ""))
            values = samples(number)
            sound.writeframes(struct.pack(f"<{len(values)}h", *values))
        lines.append(f"u{number:02},{number}.wav,s{number % 4},s{number % 4}-{number // 4 % 3}")
    (sounds / "table.csv").write_text("\n".join(lines) + "\n")
    repbench("corpus", "prepare", "csv", "--root", sounds, "--out", folder / "manifest")
    return folder / "manifest"


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store of before in place; what would compute a feature raises."""

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("a feature is computed")

    monkeypatch.setattr(batch_work, "call", refuse)
    folder = tmp_path / "cache" / "features" / STORE_FOLDER
    folder.mkdir(parents=True)
    for shard in BEFORE.glob("*.shard"):
        shutil.copy(shard, folder)
    return folder


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """The folder of the record of before, among others."""
    folder = tmp_path / "runs" / "table" / "speaker" / "mel" / RECORD_ID
    folder.mkdir(parents=True)
    for name in ("record.json", "predictions.jsonl", "probe.safetensors"):
        shutil.copy(BEFORE / name, folder)
    return folder


def test_the_store_of_before_is_used_and_gives_the_score_of_before(
    repbench: Json, stored: Path, tmp_path: Path
) -> None:
    (now,) = repbench("run", *COMMAND, "--corpus", corpus(tmp_path, repbench), "--out", tmp_path / "new")["results"]
    assert now["corpus"]["fingerprint"] == WAS["corpus"]["fingerprint"]
    assert now["upstream"]["fingerprint"] == WAS["upstream"]["fingerprint"]
    for field in ("metrics", "selection", "baselines", "label_seconds", "n_scored", "primary_metric"):
        assert now[field] == WAS[field]
    defaults = flat(Protocol().model_dump(mode="json", exclude=NOT_IN_PROTOCOL))
    assert flat(now["protocol"]) == {**defaults, **flat(WAS["protocol"])}, (
        "settings that were added are at their defaults"
    )
    assert {each.name for each in stored.iterdir()} == {each.name for each in BEFORE.glob("*.shard")}
    (held,) = repbench("cache", "list")["upstreams"]
    assert (held["fingerprint"], held["utterances"], held["layers"]) == (WAS["upstream"]["fingerprint"], 24, [0])
    assert repbench("cache", "verify")["damaged"] == []


def test_a_store_without_one_shard_of_before_computes(repbench: Json, stored: Path, tmp_path: Path) -> None:
    next(stored.glob("*.shard")).unlink()
    with pytest.raises(AssertionError, match="a feature is computed"):
        repbench("run", *COMMAND, "--corpus", corpus(tmp_path, repbench), "--out", tmp_path / "new")


def test_the_record_of_before_is_verified_read_and_reported(repbench: Json, record: Path, tmp_path: Path) -> None:
    from repbench import read_records

    (checked,) = repbench("verify", record)["records"]
    assert (checked["id"], checked["changes"]) == (RECORD_ID, [])
    (read,) = read_records(record.parent)
    assert (read.id, read.primary.value, read.upstream.origin.version) == (RECORD_ID, 0.75, "0.1.0")
    repbench("report", tmp_path / "runs", "--out", tmp_path / "report", "--format", "json,md")
    reported = json.loads((tmp_path / "report" / "results.json").read_bytes())
    assert RECORD_ID in json.dumps(reported)


def test_the_probe_of_before_scores(repbench: Json, stored: Path, record: Path, tmp_path: Path) -> None:
    """It scores the test utterances of before, and so they get the score of before."""
    lines = (BEFORE / "predictions.jsonl").read_text().splitlines()
    tested = corpus(tmp_path, repbench, [int(json.loads(line)["id"].removeprefix("u")) for line in lines])
    arguments = ("--upstream", "mel", "--downstream", "speaker", "--corpus", tested, "--probe", record)
    (scored,) = repbench("run", *arguments, "--out", tmp_path / "new")["results"]
    assert scored["metrics"] == WAS["metrics"]


def test_what_a_record_of_before_answers_is_not_run_again(
    repbench: Json, stored: Path, record: Path, tmp_path: Path
) -> None:
    for shard in stored.glob("*.shard"):
        shard.unlink()
    arguments = ("run", *COMMAND, "--corpus", corpus(tmp_path, repbench), "--out", tmp_path / "runs", "--missing-only")
    assert [each["id"] for each in repbench(*arguments)["results"]] == [RECORD_ID]
    with pytest.raises(AssertionError, match="a feature is computed"):  # another seed has no record
        repbench(*arguments, "--seed", "1")
