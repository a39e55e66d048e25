"""Values of attributes as names of classes, and the rule by which a task merges, keeps or leaves out values.

A value is a name and never a point on a scale: the number 1 is the class `1`. Values are compared without regard to
case and to space around them, and a number is the same value as the number written as a word.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from repbench.corpora.contract import AttributeValue, Utterance
from repbench.errors import DataError, Unlabelled, UsageError

OTHERS = "*"
"""The key of `task.classes` that stands for every value that is not named."""

FIELDS = ("speaker", "group", "text")
"""Fields of an utterance that are read like attributes, where it has no attribute of the name."""

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


def meant(value: AttributeValue) -> str | float:
    """The form in which a value is looked up: a number, also of one that is written as a word, or a word."""
    if isinstance(value, str):
        word = value.strip().casefold()
        return float(word) if _NUMBER.fullmatch(word) else word  # not by `float` alone, which reads "nan" and "inf"
    return float(value)


def class_name(value: AttributeValue) -> str:
    """The value as the name of a class: a word without the space around it, a number in its shortest form."""
    if isinstance(value, str):
        return value.strip()
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def attribute_of(
    utterance: Utterance, names: Sequence[str], *, option: str = "task.attribute"
) -> tuple[str, AttributeValue]:
    """The first of some attributes that an utterance has, and its value; the error names the option.

    Raises:
        Unlabelled: It has none of them.
    """
    for name in names:
        if name in utterance.attributes:
            return name, utterance.attributes[name]
        if name in FIELDS and (field := getattr(utterance, name)) is not None:
            return name, field
    raise Unlabelled(
        f"no attribute {' or '.join(names)}",
        utterance=utterance.id,
        do=f"Name the attribute with --set {option}=NAME",
    )


@dataclass(frozen=True, slots=True)
class ClassRule:
    """From a value to its class.

    Attributes:
        names: From each value, as `meant` gives it, to the name of its class; None: its utterances are left out.
        others: Class of every value that is not named; None: left out; `EACH`: its own name; `REFUSED`: an error.
        option: The option that gave the rule, for errors.
    """

    names: Mapping[str | float, str | None]
    others: str | None
    option: str = "task.classes"

    def class_of(self, value: AttributeValue, attribute: str, utterance: str) -> str | None:
        """The class of a value; None where its utterances are left out.

        Args:
            value: Of an utterance.
            attribute: Its name, for the error.
            utterance: The id, for the error.

        Raises:
            DataError: The rule does not name the value, or the value is empty.
        """
        name = class_name(value)
        if self.others == EACH and not name:
            what = f"The attribute `{attribute}` is empty"
            raise DataError(what, utterance=utterance, do="Remove it where the value is not known")
        known = self.names.get(meant(value), self.others)
        if known == REFUSED:
            setting = f"--set '{self.option}.{name}=CLASS'"
            if "." in name:  # which would be two keys there
                setting = f"`{name}: CLASS` under {self.option} in a file for --config"
            raise DataError(
                f"`{value}` of the attribute `{attribute}` is not in `{self.option}`",
                utterance=utterance,
                do=f"Name its class with {setting}, leave it out with null in place of CLASS, or give all other values "
                f"a class with --set '{self.option}.{OTHERS}=CLASS'",
            )
        return name if known == EACH else known


EACH = "\0each"
REFUSED = "\0refused"
"""Rules for other values, which no name of a class can be."""

EVERY_VALUE = ClassRule({}, others=EACH)
"""Each value is a class."""


def class_rule(given: object, option: str = "task.classes") -> ClassRule:
    """The rule that an option gives.

    Args:
        given: None: each value is a class. A list of values: these are the classes, and utterances of other values are
            left out. A mapping from values to names of classes, or to null for those that are left out: a value that it
            does not name is an error, unless it has the key `*`, which stands for every other value.
        option: Its dotted name.

    Raises:
        UsageError: It is neither, names no class, or gives a value two meanings.
    """
    if given is None:
        return EVERY_VALUE
    if isinstance(given, Mapping):
        named = {key: None if name is None else class_name(name) for key, name in given.items() if _is_rule(key, name)}
        if len(named) < len(given):
            raise _no_rule(given, option)
        others = named.pop(OTHERS, REFUSED)
        rule = ClassRule(_looked_up(list(named.items()), option), others, option)
    elif isinstance(given, Sequence) and not isinstance(given, str) and all(map(_is_value, given)):
        rule = ClassRule(_looked_up([(each, class_name(each)) for each in given], option), None, option)
    else:
        raise _no_rule(given, option)
    if rule.others in {None, REFUSED} and not any(rule.names.values()):
        raise UsageError(f"`{option}` names no class", key=option, do="Name the values to keep")
    return rule


def attributes_to_read(given: object, default: Sequence[str] = ()) -> tuple[str, ...]:
    """The attribute that the option `task.attribute` names, or those that are looked for where it is not given.

    Raises:
        UsageError: It is no name.
    """
    if given is None:
        return tuple(default)
    if not isinstance(given, str) or not given:
        raise UsageError(f"`task.attribute` must be a name, but is {given!r}", key="task.attribute")
    return (given,)


def is_number(value: object) -> bool:
    """Whether it is a finite number, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_value(value: object) -> bool:
    return is_number(value) or (isinstance(value, str) and bool(value.strip()))


def _is_rule(key: object, name: object) -> bool:
    return _is_value(key) and (name is None or _is_value(name))


def _looked_up(named: Sequence[tuple[AttributeValue, str | None]], option: str) -> dict[str | float, str | None]:
    names: dict[str | float, str | None] = {}
    for value, name in named:
        if names.setdefault(meant(value), name) != name:
            what = f"`{value}` is given two meanings"
            raise UsageError(what, key=option, do="Name it once; case and space around it do not count")
    return names


def _no_rule(given: object, option: str) -> UsageError:
    return UsageError(
        f"`{option}` must be a list of values, or a mapping from values to classes, but is {given!r}",
        key=option,
        do=f"Write --set '{option}=[happy, sad]', or --set {option}.excited=happy for each value",
    )
