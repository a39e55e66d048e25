"""Rules that make the words of a transcript comparable. A rule has a version in its name and is never changed.

Each takes a transcript and gives its words. None of them leaves the character U+2581 in a word, which units use for the
start of a word.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

from repbench.errors import UsageError, did_you_mean

_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u2032`\u00b4", "'"))
_WORD_START = "\u2581"


def upper_letters_v1(text: str) -> tuple[str, ...]:
    """`upper-letters-v1`: letters in upper case, digits and inner apostrophes.

    1. Unicode's form NFKC, upper case, NFKC again; every apostrophe, single quotation mark and prime becomes `'`.
    2. Letters, the marks on them, decimal digits and `'` stay; digits are not spelt out, so `7` and `SEVEN` are two
       words. Invisible format characters are dropped. Everything else, hyphens among it, separates words.
    3. `'` at either end of a word is dropped: `DOGS'` becomes `DOGS`, `DON'T` stays.
    """
    # NFKC would make a space and a mark of an acute accent that stands for an apostrophe, so apostrophes come first.
    composed = unicodedata.normalize("NFKC", text.translate(_APOSTROPHES))
    # Again after `upper`, which can decompose: U+0390 becomes three characters.
    composed = unicodedata.normalize("NFKC", composed.upper()).translate(_APOSTROPHES)
    words = (word.strip("'") for word in "".join(map(_kept, composed)).split())
    return tuple(word for word in words if word)


def _kept(character: str) -> str:
    """The character, nothing for an invisible one, or a space for one that separates words."""
    kind = unicodedata.category(character)
    if kind[0] in "LM" or kind == "Nd" or character == "'":
        return character
    return "" if kind == "Cf" else " "


def no_rule(text: str) -> tuple[str, ...]:
    """`none`: the transcript as it is, split at white space."""
    return tuple(text.replace(_WORD_START, " ").split())


RULES: dict[str, Callable[[str], tuple[str, ...]]] = {"upper-letters-v1": upper_letters_v1, "none": no_rule}
"""From the name of a rule, as `task.text` spells it, to the rule."""


def rule_named(name: str) -> Callable[[str], tuple[str, ...]]:
    """The rule called `name`.

    Raises:
        UsageError: There is none.
    """
    if name not in RULES:
        do = f"{did_you_mean(name, RULES)}Choose one of {', '.join(RULES)}"
        raise UsageError(f"There is no rule `{name}` for texts", key="task.text", do=do)
    return RULES[name]
