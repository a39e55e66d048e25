"""The pages that the repository shows its readers, taken apart: blocks, links, headings, commands."""

from __future__ import annotations

import functools
import itertools
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import typer
from markdown_it import MarkdownIt
from markdown_it.token import Token

from repbench.cli import app

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SHELLS = {"", "console", "sh", "bash"}


class Block(NamedTuple):
    """A block of code: the page, its line, the language, the text."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        """For a message."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


class Shown(NamedTuple):
    """A command that a page shows; whether it is one to be typed, or speaks of a command in prose or as a synopsis."""

    place: str
    words: list[str]
    whole: bool


def pages() -> list[Path]:
    """Every page there is."""
    return sorted(
        [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "examples").rglob("*.md")],
        key=lambda page: page.relative_to(ROOT).parts,
    )


def blocks(page: Path) -> list[Block]:
    """The blocks of code of a page; an indented one has no language."""
    return [
        Block(page, (token.map or [0])[0] + 1, token.info.strip(), token.content)
        for token in parsed(page)
        if token.type in {"fence", "code_block"}
    ]


def links(page: Path) -> list[str]:
    """Where the links and pictures of a page lead."""
    inline = (child for token in parsed(page) for child in token.children or ())
    found = (child.attrGet("href") or child.attrGet("src") for child in inline)
    return [str(target) for target in found if target is not None]


def anchors(page: Path) -> set[str]:
    """What a link to a heading of the page may end in."""
    tokens = parsed(page)
    slugs = []
    for opening, content in itertools.pairwise(tokens):
        if opening.type == "heading_open":
            text = "".join(child.content for child in content.children or ())
            slugs.append(re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-"))
    seen: Counter[str] = Counter()
    unique = set()
    for slug in slugs:
        unique.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return unique


def commands(page: Path) -> Iterator[Shown]:
    """Every `repbench …` of a page, in blocks and in prose; of alternatives (`a|b`) each."""
    for block in blocks(page):
        if block.language in SHELLS:
            for line in _command_lines(block):
                yield from _meant(block.place, line, whole="…" not in line and "[-" not in line)
    for token in parsed(page):
        for child in token.children or ():
            if child.type == "code_inline" and re.match(r"(\$ )?repbench ", child.content):
                yield from _meant(f"{page.relative_to(ROOT)}:{(token.map or [0])[0] + 1}", child.content, whole=False)


def options_in_prose(page: Path) -> Iterator[str]:
    """Every `--option` that a page speaks of without its command."""
    for token in parsed(page):
        for child in token.children or ():
            if child.type == "code_inline" and child.content.startswith("--"):
                yield from re.findall(r"(?<!\S)--[a-z][a-z-]*", child.content)


def parse(words: list[str]) -> str | None:
    """Hold a command line to the real one without running it; the complaint, None if it can be meant.

    A needed option that is not there is complained of as "Missing …".
    """
    command: Any = _program()
    path, rest = "repbench", list(words)
    while hasattr(command, "commands"):
        if not rest or rest[0] in {"--help", *(option for each in command.params for option in each.opts)}:
            return None
        if rest[0] not in command.commands:
            return f"there is no command `{path} {rest[0]}`"
        command, path = command.commands[rest[0]], f"{path} {rest.pop(0)}"
    if "--help" in rest:
        return None
    try:
        command.make_context(path, rest)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        return str(error.format_message())
    return None


def every_option() -> set[str]:
    """The options of all commands."""

    def below(command: Any) -> Iterator[str]:
        yield from (option for parameter in command.params for option in parameter.opts)
        for child in getattr(command, "commands", {}).values():
            yield from below(child)

    return {"--help", *below(_program())}


@functools.cache
def _program() -> Any:
    return typer.main.get_command(app)


@functools.cache
def parsed(page: Path) -> list[Token]:
    """A page as the parser has it; once for all tests of a process."""
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


def _command_lines(block: Block) -> Iterator[str]:
    """The lines of a block that call repbench, what follows a backslash included."""
    for line in block.text.replace("\\\n", " ").splitlines():
        prompted = line.startswith("$ ")
        if block.language == "console" and not prompted:
            continue
        called = re.match(r"(?:[A-Z_]+=\S+ )*(?:\S*/)?(?:torchrun .*-m )?repbench (?=[a-z-])", line.removeprefix("$ "))
        if called:
            yield line.removeprefix("$ ")[called.end() :]


def _meant(place: str, line: str, *, whole: bool) -> Iterator[Shown]:
    text = line.removeprefix("$ ").removeprefix("repbench ")
    text = text if whole else re.sub(r"[][]|…", " ", text)
    words = shlex.split(text, comments=True)
    if whole:
        yield Shown(place, words, whole)
        return
    choices = [word.split("|") if re.fullmatch(r"[a-z|-]+", word) else [word] for word in words]
    for chosen in itertools.product(*choices):
        yield Shown(place, [_value(before, word) for before, word in zip(("", *chosen), chosen, strict=False)], whole)


def _value(before: str, word: str) -> str:
    """A number for the name of one, behind an option: it passes for a text too."""
    return "1" if before.startswith("--") and re.fullmatch(r"[A-Z|]+", word) else word
