"""Every block of code that a page shows is run, read by its loader, or not run for a reason that the page states.

Commands run in the folder of their page, one after the other; one that two pages show runs once. They run as they are
shown but smaller, without `--corpus` on `synthetic:tiny`, with the few steps of `SMALLER`. The options of all commands,
run or not, are parsed in tests/test_docs.py.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from repbench.cli import app
from repbench.corpora.open import open_corpus
from tests.commands import repbench
from tests.docs_stage import PRELUDES, STAGES, Stage
from tests.pages import ROOT, blocks
from tests.shown import DATA, marked_blocks, shown_pages, steps

TINY = "synthetic:tiny"
SMALLER: dict[str, tuple[str, ...]] = {
    "run": ("--set", "probe.steps=20", "--set", "probe.selection_points=2", "--set", "probe.batch_utterances=4",
            "--set", "probe.batch_frames=512", "--set", "finetune.steps=2", "--set", "finetune.selection_points=1"),
    "pretrain": ("--steps", "2"),
    "compare": ("--frames", "1000", "--clusters", "10"),
    "invariance": ("--frames", "1000"),
    "plan": (),
}  # fmt: skip
"""What is added to a command that takes a corpus, in the place of what it sets itself."""
ONCE = {"run", "pretrain", "compare", "invariance", "plan"}
"""Commands whose effect a page finds in its folder in any case: records and checkpoints of the stage."""
_HAVE_RUN: set[tuple[str, ...]] = set()


def of_page(page: Path) -> str:
    return str(page.relative_to(ROOT))


every_page = pytest.mark.parametrize("page", shown_pages(), ids=of_page)


@every_page
def test_every_block_is_run_or_has_a_reason(page: Path) -> None:
    for step in steps(page):
        runs = step.kind != "program"
        assert runs or step.reason, f"{step.place}: `{step.text}` is not of repbench; say why it is not run"
        assert step.reason is None or len(step.reason) > 5, f"{step.place}: {step.reason!r} is no reason"


def test_most_of_what_is_shown_is_run() -> None:
    every = [step for page in shown_pages() for step in steps(page)]
    count = Counter((step.kind, step.reason is None) for step in every)
    assert count["repbench", True] >= RUN_AT_LEAST["repbench"], count
    assert count["python", True] >= RUN_AT_LEAST["python"], count
    named = {step.reason.removeprefix("run by ") for step in every if step.reason and step.reason.startswith("run by ")}
    for test in named:
        assert (ROOT / test).is_file(), test
    assert sum(len(blocks(page)) for page in shown_pages()) == sum(len(marked_blocks(page)) for page in shown_pages())


RUN_AT_LEAST = {"repbench": 70, "python": 7}
"""Fewer than are run now, so that a page may lose some; a mark over all of a page is noticed."""


def test_tests_over_data_see_every_block_of_it() -> None:
    found = Counter(marked.block.language for page in shown_pages() for marked in marked_blocks(page))
    assert found["yaml"] > 10
    assert found.keys() & DATA == {"yaml", "toml"}, "tests/test_docs.py reads no other"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("<!-- not run: of something -->\n\nA paragraph.\n", "above no block"),
        ("<!-- not run: of something -->\n", "above no block"),
        ("<!-- not run, really -->\n```sh\nls\n```\n", "is no mark"),
        ("<!-- not run 2: too many -->\n```sh\nls\n```\n", r"1 commands, but a mark names \[2\]"),
        ("```cobol\nGOBACK.\n```\n", "no language that a test knows"),
        ("<!-- not run: needless -->\n```text\nout\n```\n", "in any case"),
        ("```console\nno prompt\n```\n", "no command is shown"),
    ],
)
def test_a_wrong_mark_is_named(text: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.shown.ROOT", tmp_path)
    monkeypatch.setattr("tests.pages.ROOT", tmp_path)
    (tmp_path / "page.md").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=complaint):
        steps(tmp_path / "page.md")


def test_marks_and_dots_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.shown.ROOT", tmp_path)
    monkeypatch.setattr("tests.pages.ROOT", tmp_path)
    shown = (
        "<!-- not run 1: installs -->\n```console\n$ pip install it\n$ repbench run --upstream mel \\\n  --seed 1\n"
        "$ repbench run … --tune\n```\n"
    )
    (tmp_path / "page.md").write_text(shown, encoding="utf-8")
    found = [(step.kind, re.sub(" +", " ", step.text), step.reason) for step in steps(tmp_path / "page.md")]
    whole = "repbench run --upstream mel --seed 1"
    assert found == [
        ("program", "pip install it", "installs"), ("repbench", whole, None), ("repbench", f"{whole} --tune", None),
    ]  # fmt: skip


def test_a_smaller_command_sets_nothing_twice() -> None:
    shown = ["run", "--upstream", "apc", "--set", "probe.steps=500", "--set", "probe.dropout=0.1"]
    assert smaller(shown) == [*shown[:3], "--set", "probe.dropout=0.1", "--corpus", TINY, *SMALLER["run"]]
    assert smaller(["run", "--corpus", "synthetic:noisy:small"])[:3] == ["run", "--corpus", TINY]
    assert smaller(["doctor"]) == ["doctor"]
    assert smaller(["pretrain", "apc", "--steps", "900", "--resume"]).count("--steps") == 1


# Run


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """What pages find in their folder: a corpus, checkpoints of two steps, records."""
    pytest.importorskip("espeakng_loader", reason="needs the extra `demo`, which brings espeak-ng")
    folder = tmp_path_factory.mktemp("stage")
    corpus = next(iter(open_corpus(TINY).utterances)).audio
    manifest = next(parent for parent in corpus.parents if (parent / "manifest.jsonl").is_file())
    with contextlib.chdir(folder):
        for name in ("mockingjay", "apc"):
            run_command(f"repbench pretrain {name}")
        run_command("repbench run --upstream mel --downstream phone --out records")
    return Stage(manifest=manifest, pretrained=folder / "runs" / "pretrain", records=folder / "records")


def run_command(line: str) -> None:
    """Run a command of repbench in the current folder; one with plugins, which would stay, in a process of its own.

    Raises:
        AssertionError: It fails; shows what it printed.
    """
    line, at = line.removeprefix("PYTHONPATH=. "), line.startswith("PYTHONPATH=. ")
    words = smaller(shlex.split(line, comments=True)[1:])
    if words[0] in ONCE and tuple(words) in _HAVE_RUN:
        return
    _HAVE_RUN.add(tuple(words))
    if "--plugin" in words:
        done = repbench(*words)
        assert done.code == 0, f"repbench {shlex.join(words)}\n{done.out}\n{done.err}"
        return
    with imports_from(Path.cwd()) if at else contextlib.nullcontext():
        result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, f"repbench {shlex.join(words)}\n{result.output}\n{result.exception!r}"


@contextlib.contextmanager
def imports_from(folder: Path) -> Iterator[None]:
    """`PYTHONPATH` without a new process, which takes seconds to import torch; the modules are forgotten afterwards."""
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name, module in list(sys.modules.items()):
            if Path(getattr(module, "__file__", None) or "").is_relative_to(folder):
                del sys.modules[name]


def smaller(words: list[str]) -> list[str]:
    """A command with the corpus and the few steps of this file."""
    words = [word.replace("synthetic:noisy:small", TINY) for word in words]
    if words[0] not in SMALLER or "--help" in words:
        return words
    added = SMALLER[words[0]]
    replaced = {each.partition("=")[0] for each in added if "=" in each}
    options = {each for each in added if each.startswith("--")} - {"--set"}
    kept = list[str]()
    for before, word in zip(("", *words), words, strict=False):
        # What is given twice is refused.
        if before in options or (before == "--set" and word.partition("=")[0] in replaced):
            kept.pop()
        else:
            kept.append(word)
    corpus = () if "--corpus" in words else ("--corpus", TINY)
    return [*kept, *corpus, *added]


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in shown_pages() if any(step.reason is None for step in steps(page))], ids=of_page
)
def test_what_a_page_shows_runs(page: Path, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = of_page(page)
    shown = [step for step in steps(page) if step.reason is None]
    stage.prepare(tmp_path)
    if name in STAGES:
        STAGES[name](tmp_path, stage, page)
    names: dict[str, Any] = PRELUDES[name](stage) if name in PRELUDES else {}
    for step in shown:
        if step.kind == "python":
            exec(compile(step.text, step.place, "exec"), names)
        else:
            run_command(step.text)
