"""Progress in a log, which is no terminal, and on a terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from repbench.benchmark.protocol import load_protocol
from repbench.benchmark.run import RunRequest, run
from repbench.console import OpenStage
from repbench.progress import Advance, duration_text
from repbench.testing import tone_corpus


def log_of(code: str, timeout: float = 60) -> list[str]:
    """The lines that Python code leaves on a stderr that is a pipe."""
    source = "import time\nfrom repbench.console import ConsoleReporter\n" + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source], capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stderr
    assert not done.stdout
    return done.stderr.splitlines()


def test_a_long_stage_leaves_lines_with_the_time_left_in_a_log() -> None:
    lines = log_of(
        """
        with ConsoleReporter(first_seconds=0.1, every_seconds=0.2).stage("features of train") as advance:
            for done in range(1, 11):
                time.sleep(0.1)
                advance(done, 10)
        """
    )

    *during, end = lines
    assert 3 <= len(during) <= 6, lines
    assert re.fullmatch(r"features of train: \d of 10 after \d s, about \d s left", during[-1]), lines
    assert end.startswith("features of train: 10 in 1.")


def test_a_stage_that_cannot_count_is_not_silent() -> None:
    lines = log_of(
        """
        with ConsoleReporter(first_seconds=0.1, every_seconds=10).stage("corpus big"):
            time.sleep(0.5)
        """
    )

    assert lines == ["corpus big: at work for 0 s"]


def test_a_short_stage_leaves_its_last_line_alone() -> None:
    lines = log_of("with ConsoleReporter().stage('probe') as advance: advance(5, 5)")

    assert len(lines) == 1
    assert lines[0].startswith("probe: 5 in 0.")


def test_of_nested_stages_the_innermost_long_one_is_written() -> None:
    lines = log_of(
        """
        reporter = ConsoleReporter(first_seconds=0.2, every_seconds=0.2)
        with reporter.stage("probe") as advance:
            advance(1, 9)
            with reporter.stage("window 1") as fill:
                fill(1, 2)
                time.sleep(0.7)
                fill(2, 2)
            with reporter.stage("window 2") as fill:
                fill(2, 2)
            advance(9, 9)
        """
    )

    whose = [line.split(":")[0] for line in lines]
    assert whose[0] == "probe" or "window 1" in whose[:1]
    assert whose.count("window 1") >= 2, lines
    assert "window 1: 2 in 0.7 s" in lines, "a nested stage that was long has a last line"
    assert "window 2" not in whose, "a nested stage that was short has none"
    assert whose[-1] == "probe"


def test_a_log_that_nobody_reads_does_not_stop_the_work() -> None:
    code = """
    import os, time
    from repbench.console import ConsoleReporter
    with ConsoleReporter(first_seconds=0.1, every_seconds=0.1).stage("features"):
        time.sleep(0.5)
    print("done")
    """
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=writer, text=True, timeout=60)
    finally:
        os.close(writer)
    assert (done.returncode, done.stdout) == (0, "done\n")


def test_the_time_left_is_that_of_the_work_of_this_process() -> None:
    stage = OpenStage("pre-training", started=100.0)
    assert stage.line(130.0) == "pre-training: at work for 30 s"

    stage.advance(5_000, 10_000, now=110.0)  # resumed at step 4,999
    assert stage.line(130.0) == "pre-training: 5,000 of 10,000 after 30 s"

    stage.advance(6_000, 10_000, now=210.0)
    assert stage.line(210.0) == "pre-training: 6,000 of 10,000 after 1 min 50 s, about 6 min 40 s left"


def test_the_first_unit_of_a_stage_is_timed_from_its_beginning() -> None:
    stage = OpenStage("features", started=0.0)
    stage.advance(1, 4, now=60.0)
    assert stage.line(60.0) == "features: 1 of 4 after 1 min 0 s, about 3 min 0 s left"


def test_what_has_no_total_has_no_time_left() -> None:
    stage = OpenStage("frames", started=0.0)
    stage.advance(4_000, 0, now=60.0)
    assert stage.line(60.0) == "frames: 4,000 after 1 min 0 s"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.6, "1 min 0 s"), (3_600, "1 h 0 min"), (7_260, "2 h 1 min")]
)
def test_durations_are_given_in_two_units(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


# stages of a run


class Kept:
    """A reporter that keeps how far each stage came."""

    def __init__(self) -> None:
        self.reports: dict[str, list[tuple[int, int]]] = {}

    @contextmanager
    def stage(self, title: str) -> Iterator[Advance]:
        reports = self.reports.setdefault(title, [])
        yield lambda done, total: reports.append((done, total))

    def say(self, line: str) -> None:
        pass


@pytest.mark.parametrize("road", ["recompute", "store"])
def test_the_fills_of_windows_are_stages_of_their_own(road: str, tmp_path: Path) -> None:
    tone_corpus(tmp_path / "tones")
    assignments = ["probe.steps=20", "probe.selection_points=1", f"resources.road={road}", "extraction.store_gib=1"]
    kept = Kept()

    run(
        RunRequest(
            upstream="mel",
            downstream="speaker",
            corpus=str(tmp_path / "tones"),
            protocol=load_protocol("default", None, assignments),
            device="cpu",
            out=tmp_path / "runs",
        ),
        kept,
    )

    for title in ("features of train, every frame once", "features of train, window 1", "features of dev, in order"):
        reports = kept.reports[title]
        assert reports[-1][0] == reports[-1][1] > 1, f"{title}: {reports}"
        assert reports == sorted(reports)


# a terminal


def test_a_stage_within_another_one_has_its_bar_beside_it_on_a_terminal() -> None:
    code = """
    import time
    from repbench.console import ConsoleReporter
    reporter = ConsoleReporter()
    with reporter.stage("probe") as advance:
        advance(3, 7)
        with reporter.stage("window 1") as fill:
            fill(1, 5)
            time.sleep(0.4)
        advance(7, 7)
    with reporter.stage("test") as advance:
        advance(2, 2)
    """
    shown = on_terminal([sys.executable, "-W", "error", "-c", textwrap.dedent(code)])

    together = [block for block in shown.split("probe")[1:] if "window 1" in block]
    assert together, shown
    assert "3/7" in together[0]
    assert "1/5" in together[0]
    assert "window 1" not in shown.rpartition("7/7")[2]
    assert "2/2" in shown.rpartition("7/7")[2]


def on_terminal(command: list[str]) -> str:
    """What a command writes to a terminal."""
    parent, child = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(command, stdin=child, stdout=child, stderr=child, env=environment)
    os.close(child)
    shown = b""
    while True:
        try:
            shown += (block := os.read(parent, 65536))
        except OSError:  # a terminal without a writer
            break
        if not block:
            break
    os.close(parent)
    assert process.wait(60) == 0, shown.decode()
    return shown.decode()
