"""Escaping of untrusted names for Markdown, LaTeX and spreadsheets.

HTML is escaped by jinja2 and JSON by `json`; both receive `shown` text.
"""

from __future__ import annotations

import re

from repbench.errors import printable

LONGEST = 60
"""Most characters of a name in tables and figures; JSON has all of it."""

LONGEST_TITLE = 200
"""Most characters of a title."""

LONGEST_TEXT = 4000
"""Most characters of a paragraph."""

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()!|~$@#])")
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "[": "{[}", "]": "{]}", "*": "{*}", "|": r"\textbar{}",
    '"': r"\textquotedbl{}", "'": r"\textquotesingle{}", "`": r"\textasciigrave{}",
    "–": "--", "…": r"\ldots{}", "·": r"\textperiodcentered{}", "×": r"\texttimes{}", "≈": r"$\approx$", "→": "$\\to$",
    "≤": r"$\leq$", "≥": r"$\geq$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "\N{NO-BREAK SPACE}": "~",
}  # fmt: skip
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")


_AFTER_SEMICOLON = re.compile(rf"(;[\s\"']*)(?=[{re.escape(''.join(_FORMULA_STARTS))}])")


def shown(text: object, longest: int = LONGEST) -> str:
    """A name on one line: control and bidi characters escaped, the middle of a long one left out."""
    line = printable(text)
    if len(line) <= longest:
        return line
    head = longest * 2 // 3
    return f"{line[:head]}…{line[-(longest - head - 1) :]}"


def markdown(text: str) -> str:
    """Text for a cell or a line of Markdown, without markup; addresses do not become links."""
    escaped = _MARKDOWN.sub(r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))
    # GitHub makes links of `www.` and `://` even in escaped text.
    return re.sub(r"(?i)(www)\.|(:)(?=//)", lambda found: f"{found[1] or ''}\\{'.' if found[1] else ':'}", escaped)


def latex(text: str) -> str:
    """Text for LaTeX with T1 fonts; a letter that they lack becomes its code point."""
    return "".join(_latex_character(character) for character in text)


def _latex_character(character: str) -> str:
    if character in _LATEX:
        return _LATEX[character]
    if character.isascii() or "\u00c0" <= character <= "\u00ff":
        return character
    return rf"\texttt{{U+{ord(character):04X}}}"


def spreadsheet(text: str) -> str:
    """Text for a CSV cell that no spreadsheet evaluates as a formula.

    Where semicolons separate cells, as in many countries, a spreadsheet splits this text too, despite quotes around it,
    so text after a semicolon is escaped like the beginning of a cell.
    """
    inert = _AFTER_SEMICOLON.sub(r"\1'", text)
    return f"'{inert}" if inert.startswith(_FORMULA_STARTS) else inert
