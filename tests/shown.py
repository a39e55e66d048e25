"""The code that pages show, in steps: what is run, and what is not run for a reason that the page itself states.

A comment above a block keeps it from being run: `<!-- not run: needs a GPU -->` all of it, `<!-- not run 1,3: ... -->`
its first and third command. `<!-- run elsewhere: tests/FILE.py -->` names the test that runs it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from tests.pages import ROOT, SHELLS, Block, pages, parsed

OUTPUT = {"text"}
"""Languages of blocks that are no code: what a command prints, a file of a corpus, a formula."""
DATA = {"yaml", "toml", "json"}
"""Languages of blocks that a test in tests/test_docs.py reads by the loader of what they are."""
MADE = {"api.md", "commands.md", "settings.md"}
"""Pages that docs/manual.py makes of the code: their blocks are signatures, usage and presets."""

_MARK = re.compile(r"<!-- (?:not run(?: (?P<which>\d+(?:,\d+)*))?: (?P<reason>.+?)|run elsewhere: (?P<test>\S+)) -->")


class Step(NamedTuple):
    """A command line or a block of Python.

    Attributes:
        place: Page and line of its block, for a message.
        page: The page.
        kind: `repbench`: a command of repbench; `program`: one of another program.
        text: The command without the prompt, with its continued lines; or the code.
        reason: Why it is not run; None if it is.
    """

    place: str
    page: Path
    kind: Literal["repbench", "program", "python"]
    text: str
    reason: str | None


class Marked(NamedTuple):
    """A block with the marks above it: from the number of a command, or 0 for all, to the reason."""

    block: Block
    marks: dict[int, str]


def shown_pages() -> list[Path]:
    """The pages that people write."""
    return [page for page in pages() if page.name not in MADE and page.name != "CHANGELOG.md"]


@functools.cache
def marked_blocks(page: Path) -> list[Marked]:
    """The blocks of a page with their marks.

    Raises:
        ValueError: A mark is above no block, or is not written as above.
    """
    found, pending = list[Marked](), dict[int, str]()
    for token in parsed(page):
        place = f"{page.relative_to(ROOT)}:{(token.map or [0])[0] + 1}"
        if token.type == "html_block":
            for line in token.content.splitlines():
                if mark := _MARK.fullmatch(line.strip()):
                    numbers = [int(each) for each in (mark["which"] or "0").split(",")]
                    pending |= dict.fromkeys(numbers, mark["reason"] or f"run by {mark['test']}")
                elif re.search(r"<!--.*\brun\b", line):
                    raise ValueError(f"{place}: `{line}` is no mark; write <!-- not run: REASON -->")
        elif token.type in {"fence", "code_block"}:
            block = Block(page, (token.map or [0])[0] + 1, token.info.strip(), token.content)
            found.append(Marked(block, pending))
            pending = {}
        elif pending:
            raise ValueError(f"{place}: a mark that something is not run is above no block")
    if pending:
        raise ValueError(f"{page}: ends with a mark above no block")
    return found


def steps(page: Path) -> list[Step]:
    """Everything on a page that could be run, in order.

    Raises:
        ValueError: A mark names a command that the block does not have, or a block has an unknown language.
    """
    return [step for marked in marked_blocks(page) for step in _steps_of(marked)]


def _steps_of(marked: Marked) -> Iterator[Step]:
    block, marks = marked
    if block.language in OUTPUT | DATA or block.language.startswith("{"):
        if marks:
            raise ValueError(f"{block.place}: nothing of this block is run in any case")
    elif block.language == "python":
        yield Step(block.place, block.page, "python", block.text, marks.get(0))
    elif block.language in SHELLS:
        lines = command_lines(block)
        if not lines:
            raise ValueError(f"{block.place}: no command is shown; say what it is: {', '.join(sorted(OUTPUT))}")
        if unknown := set(marks) - set(range(len(lines) + 1)):
            raise ValueError(f"{block.place}: there are {len(lines)} commands, but a mark names {sorted(unknown)}")
        before = ""
        for number, line in enumerate(lines, start=1):
            whole = line.replace("repbench run …", before) if line.startswith("repbench run … ") else line
            before = whole.partition(" #")[0].rstrip()
            ours = re.match(r"(PYTHONPATH=\. )?repbench ", whole)
            yield Step(
                block.place, block.page, "repbench" if ours else "program", whole, marks.get(number, marks.get(0))
            )
    else:
        raise ValueError(f"{block.place}: `{block.language}` is no language that a test knows")


def command_lines(block: Block) -> list[str]:
    """The commands of a block of a shell, without prompts, each in one line."""
    lines = block.text.replace("\\\n", " ").splitlines()
    if block.language == "console":
        return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return [line for line in lines if line.strip() and not line.startswith("#") and re.match(r"[\w./]", line)]
