"""Standard streams that are closed, that nobody reads, or that lack characters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from repbench.testing import tone_corpus
from tests.commands import Finished

COMMAND = f"{sys.executable} -W error -m repbench"
RUN = (
    "run",
    "--upstream",
    "mel",
    "--downstream",
    "speaker",
    "--set",
    "probe.steps=20",
    "--set",
    "probe.hidden_units=8",
)
C_LOCALE = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": ""}


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streams") / "tönes"
    tone_corpus(folder)
    return folder


def unread(*arguments: str | Path, errors_too: bool = False) -> Finished:
    """How a command ends whose output nobody reads from the start on."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-W", "error", "-m", "repbench", *map(str, arguments)]
    try:
        done = subprocess.run(command, stdout=writer, stderr=writer if errors_too else subprocess.PIPE, text=True)
    finally:
        os.close(writer)
    return Finished(done.returncode, "", done.stderr or "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    ["list", "list --json", "--help", "--version", "run --help", "doctor", "cache list", "corpus check nowhere --json"],
)
def test_fault_a_reader_that_is_gone_ends_a_command_in_silence(command: str) -> None:
    done = unread(*command.split())
    blamed = [line for line in done.err.splitlines() if not line.startswith("corpus")]
    assert (done.code, blamed) == (141, [])


@pytest.mark.slow
def test_fault_the_table_of_a_run_that_nobody_reads_leaves_the_record(tones: Path, tmp_path: Path) -> None:
    done = unread(*RUN, "--corpus", tones, "--out", tmp_path)
    assert done.code == 141
    assert "Traceback" not in done.err
    assert "error" not in done.err
    assert len(list(tmp_path.rglob("record.json"))) == 1


def test_fault_progress_that_nobody_reads_is_no_fault_of_a_plugin(tones: Path) -> None:
    assert unread("corpus", "check", tones, errors_too=True).code == 141


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", ["list", "list --json", "--version"])
def test_fault_a_closed_stream_is_one_to_nowhere(closed: str, command: str) -> None:
    done = subprocess.run(f"{COMMAND} {command} {closed}", shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_fault_with_stdout_closed_an_error_still_has_its_line_and_code() -> None:
    done = subprocess.run(f"{COMMAND} list nothing --json >&-", shell=True, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: There is no kind `nothing`")


@pytest.mark.slow
def test_fault_the_table_of_a_run_is_written_in_what_the_terminal_can_show(tones: Path, tmp_path: Path) -> None:
    chosen = {"PYTHONIOENCODING": "ascii"}
    done = in_bytes(*RUN, "--corpus", str(tones), "--out", str(tmp_path / "ű"), environment=chosen)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    assert b"v lower is better" in done.stdout
    assert rb"\u0171/tones" in done.stdout


PRINTS = """
from rich.table import Table
from repbench.cli.output import say
from repbench.cli.streams import fit_streams
from repbench.console import ConsoleReporter, print_table

fit_streams()
table = Table("0.07–0.60 ↓")
table.add_row("ű \\udcff")
print_table(table)
ConsoleReporter().say("95 % … ≈")
say("ű")
"""


@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "cp1252"}, {"PYTHONIOENCODING": "latin-1"}, {"PYTHONIOENCODING": "cp437"}, C_LOCALE],
    ids=["cp1252", "latin-1", "cp437", "C"],
)
def test_fault_what_an_encoding_lacks_is_replaced(environment: Mapping[str, str], tmp_path: Path) -> None:
    (tmp_path / "prints.py").write_text(PRINTS, encoding="utf-8")
    command = [sys.executable, "-W", "error", str(tmp_path / "prints.py")]
    done = subprocess.run(command, capture_output=True, env={**os.environ, **environment})
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    encoding = environment["PYTHONIOENCODING"] or "ascii"
    assert "0.60 v" in done.stdout.decode(encoding)
    assert r"\xff" in done.stdout.decode(encoding)
    assert r"\u0171" in done.stderr.decode(encoding)


def test_fault_help_keeps_to_the_encoding_too() -> None:
    done = in_bytes("corpus", "prepare", "--help", environment={"PYTHONIOENCODING": "ascii"})
    assert "librispeech, huggingface, lhotse, kaldi, csv, ...:" in " ".join(done.stdout.decode("ascii").split())


def test_fault_json_loses_nothing_in_ascii(tones: Path) -> None:
    done = in_bytes(
        "corpus", "move", str(tones), "--root", str(tones), "--json", environment={"PYTHONIOENCODING": "ascii"}
    )
    assert json.loads(done.stdout.decode("ascii"))["corpus"] == str(tones)


def test_what_the_user_chose_for_such_characters_stays(tones: Path) -> None:
    chosen = {"PYTHONIOENCODING": "ascii:xmlcharrefreplace"}
    done = in_bytes("corpus", "move", str(tones), "--root", str(tones), environment=chosen)
    assert b"t&#246;nes" in done.stdout


def in_bytes(*arguments: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-W", "error", "-m", "repbench", *arguments]
    return subprocess.run(command, capture_output=True, env={**os.environ, **environment})
