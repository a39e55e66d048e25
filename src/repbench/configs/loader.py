"""Strict configuration: invalid keys and values of files and `--set` are refused with place and suggestion.

The YAML understood here is a small part of YAML 1.2: mappings with text keys, lists, and scalars. Plain scalars are
read by the core schema of YAML 1.2, which differs from PyYAML's YAML 1.1: `1e-4` and `4e-4` are numbers;
`yes`, `no`, `on` and `off` are words; `012` is the integer 12, not an octal ten; `1_000` and `12:30` are words. Only
finite numbers are numbers of a configuration, so `.inf` and `.nan` are refused. Aliases, anchors, merge keys, tags, a
second document, a key given twice, nesting deeper than 32 and files over 1 MiB are refused too.
"""

from __future__ import annotations

import copy
import difflib
import json
import math
import os
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, to_json

from repbench.errors import UsageError, did_you_mean

MAX_BYTES = 1 << 20
"""The largest configuration that is read."""

MAX_DEPTH = 32
"""Deepest nesting of mappings and lists."""

_NULLS = {"", "~", "null", "Null", "NULL"}
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_OTHER_BASE = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")

ANY_KEY = "*"
"""Placeholder for the keys of a mapping that may have any key."""

Model = TypeVar("Model", bound=BaseModel)
Models = tuple[type[BaseModel], ...]


def load_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a configuration file.

    Returns:
        The file's mapping; an empty file is an empty mapping.

    Raises:
        UsageError: The file cannot be read or is not strict YAML; names the file and the line.
    """
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        what = f"This configuration cannot be read: {error.strerror}"
        raise UsageError(what, file=path, do="Give the path of a YAML file") from error
    return _tree_of(content, os.fspath(path))


def load_preset(name: str, group: str | None = None) -> dict[str, Any]:
    """Read a preset that ships with repbench.

    Args:
        name: Name of the preset.
        group: Name of an upstream, or None for a protocol.

    Raises:
        UsageError: There is no such preset; lists the existing ones.
    """
    shipped = _preset_files(group)
    if name not in shipped:
        listed = ", ".join(f"`{preset}`" for preset in sorted(shipped))
        owner = "" if group is None else f" of {group}"
        what = f"There is no preset `{name}`{owner}"
        raise UsageError(what, do=f"{did_you_mean(name, shipped)}There are: {listed}")
    return _tree_of(shipped[name].read_bytes(), f"{name}.yaml" if group is None else f"{group}/{name}.yaml")


def preset_names(group: str | None = None) -> list[str]:
    """The presets that ship with repbench, sorted."""
    return sorted(_preset_files(group))


def apply_overrides(tree: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Set single keys, as `--set` does.

    Args:
        tree: A configuration; it is not changed.
        assignments: Each `dotted.key=value`. The value is read like a scalar or an inline list in a file: `1e-4`,
            `true`, `[0.01, 0.1]`. Quotes make a text of anything: `'12'`.

    Returns:
        A copy of `tree` with the keys set.

    Raises:
        UsageError: An assignment has no `=`, an empty key or an impossible value, its key leads through a value, or two
            assignments contradict each other.
    """
    changed = copy.deepcopy(tree)
    known: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        key = key.strip()
        if not equals or not all(key.split(".")):
            raise UsageError(f"`--set {assignment}` is not of the form KEY=VALUE", do="Write --set probe.steps=1000")
        value = _value_of(key, text)
        _refuse_contradiction(known, key, value)
        _set(changed, key, value)
        known[key] = value
    return changed


def build(model: type[Model], tree: dict[str, Any], source: str | os.PathLike[str]) -> Model:
    """Validate a tree into a model, without unknown keys and without conversions.

    An integer is taken for a float, a list for a tuple and a text for a path or a member of an enumeration; nothing
    else is converted, so `"3"` is not a number and `1` is not true.

    Args:
        model: A pydantic model that forbids extra keys, in itself and in its parts.
        tree: The settings of the file and the overrides.
        source: Their source, for errors: a path, or words such as "the preset `base`".

    Raises:
        UsageError: Names every fault, each with its dotted key.
    """
    try:
        # By way of JSON, whose strict mode takes lists for tuples and texts for paths, which that of Python objects
        # refuses.
        return model.model_validate_json(to_json(tree, inf_nan_mode="constants"), strict=True)
    except ValidationError as error:
        faults = _faults(model, tree, error.errors(include_url=False))
    what = "; ".join(faults)
    if isinstance(source, os.PathLike):
        raise UsageError(what, file=source)
    raise UsageError(f"In {source}: {what}")


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below`, overridden by `above`, mapping by mapping."""
    both = dict(below)
    for key, value in above.items():
        lower = both.get(key)
        both[key] = merged(lower, value) if isinstance(lower, Mapping) and isinstance(value, Mapping) else value
    return both


class _YamlFault(Exception):  # noqa: N818 - becomes a `UsageError` once the file is known
    """Something in a YAML text that is refused, and its line, counted from 1."""

    def __init__(self, what: str, line: int) -> None:
        super().__init__(what)
        self.what = what
        self.line = line


def _preset_files(group: str | None) -> dict[str, Any]:
    folder = resources.files("repbench.configs")
    if group is not None:
        folder = folder / group
    return {file.name.removesuffix(".yaml"): file for file in folder.iterdir() if file.name.endswith(".yaml")}


def _tree_of(content: bytes, file: str) -> dict[str, Any]:
    if len(content) > MAX_BYTES:
        line = content.count(b"\n") + 1
        raise UsageError(f"Line {line} is beyond the 1 MiB that a configuration may hold", file=file)
    try:
        tree = _parse(content.decode("utf-8-sig"))
        if tree is None:
            return {}
        if not isinstance(tree, dict):
            raise _YamlFault("a configuration is a mapping of keys to values", 1)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"Line {line} is not UTF-8", file=file, do="Save the file as UTF-8") from error
    except _YamlFault as fault:
        raise UsageError(f"Line {fault.line}: {fault.what}", file=file) from fault
    return tree


def _parse(text: str) -> Any:
    """The one document in `text`, None if there is none.

    Raises:
        _YamlFault: It is not strict YAML.
    """
    try:
        return _Reader(text).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise _YamlFault(f"not YAML: {problem}", mark.line + 1 if mark else 1) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _YamlFault(f"the character U+{ord(text[error.position]):04X} is not allowed in YAML", line) from error


class _Reader:
    """Builds the tree from PyYAML's events, so that nothing is composed, resolved or constructed by it."""

    def __init__(self, text: str) -> None:
        self._events = yaml.parse(text, Loader=yaml.SafeLoader)

    def document(self) -> Any:
        tree, documents = None, 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    _refuse("a second document starts here; a configuration is one", event)
                tree = self._node(next(self._events), 0)
        return tree

    def _node(self, event: Any, depth: int) -> Any:
        if isinstance(event, yaml.AliasEvent):
            _refuse(f"the alias `*{event.anchor}` is not allowed; write the value out", event)
        if event.anchor is not None:
            _refuse(f"the anchor `&{event.anchor}` is not allowed; write the value out where it is needed", event)
        if event.tag is not None:
            _refuse(f"the tag `{event.tag}` is not allowed", event)
        if isinstance(event, yaml.ScalarEvent):
            return _plain(event) if event.implicit[0] else event.value
        if depth == MAX_DEPTH:
            _refuse(f"nested deeper than {MAX_DEPTH}", event)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._list(depth + 1)
        return self._mapping(depth + 1)

    def _list(self, depth: int) -> list[Any]:
        items = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, depth))
        return items

    def _mapping(self, depth: int) -> dict[str, Any]:
        items: dict[str, Any] = {}
        lines: dict[str, int] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event, depth)
            if key in items:
                _refuse(f"the key `{key}` is given twice, first on line {lines[key]}", event)
            lines[key] = _line(event)
            items[key] = self._node(next(self._events), depth)
        return items

    def _key(self, event: Any, depth: int) -> str:
        if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and event.value == "<<":
            _refuse("the merge key `<<` is not allowed; write the keys out", event)
        key = self._node(event, depth)
        if not isinstance(key, str):
            _refuse(f"a key must be text, but is {_shown(key)}; put it in quotes", event)
        return key


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _refuse(what: str, event: Any) -> NoReturn:
    raise _YamlFault(what, _line(event))


def _plain(event: Any) -> bool | int | float | str | None:
    """A scalar without quotes, by the core schema of YAML 1.2."""
    text: str = event.value
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _OTHER_BASE.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text) or _NOT_FINITE.fullmatch(text):
        return _number(text, event)
    return text


def _number(text: str, event: Any) -> int | float:
    if _NOT_FINITE.fullmatch(text) or math.isinf(float(text)):
        _refuse(f"`{text[:40]}` is not a finite number", event)
    # `int` of 012 is 12, as in YAML 1.2.
    return int(text) if _INTEGER.fullmatch(text) else float(text)


def _value_of(key: str, text: str) -> Any:
    """The value of a `--set`: a scalar or an inline list."""
    try:
        value = _parse(text)
    except _YamlFault as fault:
        raise UsageError(f"`{text}` is no value: {fault.what}", key=key, do="Put a text in quotes") from fault
    is_inline_list = isinstance(value, list) and text.lstrip().startswith("[")
    if isinstance(value, dict | list) and not is_inline_list:
        raise UsageError(f"`{text}` is neither a scalar nor an inline list", key=key, do="Set one key at a time")
    return value


def _refuse_contradiction(known: Mapping[str, Any], key: str, value: Any) -> None:
    """Refuse a setting that would take the place of an earlier one of the same command."""
    if key in known and _shown(known[key]) != _shown(value):
        what = f"`{key}` is set twice, to {_shown(known[key])} and to {_shown(value)}"
        raise UsageError(what, key=key, do="Set it once")
    below = next((each for each in known if each.startswith(f"{key}.")), None)
    if below is not None:
        raise UsageError(f"`{key}` is set as a whole, and `{below}` in it", key=key, do="Leave one of the two out")


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    *groups, last = key.split(".")
    for depth, group in enumerate(groups, start=1):
        below = tree.setdefault(group, {})
        if not isinstance(below, dict):
            path = ".".join(groups[:depth])
            what = f"`{path}` is a value, {_shown(below)}, and has no keys"
            raise UsageError(what, key=key, do=f"Set `{path}` itself")
        tree = below
    tree[last] = value


def _shown(value: Any) -> str:
    """A value as it would be written in JSON, cut to a readable length."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}…"


class _Place(NamedTuple):
    """The keys and list positions of a fault, and the value there, if the tree has one."""

    path: tuple[str | int, ...]
    value: Any

    @property
    def dotted(self) -> str:
        return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path).lstrip(".")

    @property
    def name(self) -> str:
        return f"`{self.dotted}`" if self.path else "the configuration"

    @property
    def keys(self) -> tuple[str, ...]:
        """The path without list positions."""
        return tuple(part for part in self.path if isinstance(part, str))


def _faults(model: type[BaseModel], tree: Any, errors: list[ErrorDetails]) -> list[str]:
    """One sentence for each place in the tree that has a fault, in the order of the model."""
    places: dict[str, tuple[_Place, list[ErrorDetails]]] = {}
    for error in errors:
        place = _place(tree, error)
        places.setdefault(place.dotted, (place, []))[1].append(error)
    return [_told(model, place, found) for place, found in places.values()]


_NO_LIST = {"list_type", "tuple_type"}
"""Types of errors of a value that is no list where one is needed."""


def _told(model: type[BaseModel], place: _Place, errors: list[ErrorDetails]) -> str:
    """All that is wrong with one value; a union complains once for each of its branches."""
    wanted = [error["msg"] for error in errors if error["msg"].startswith("Input should be ")]
    if len(wanted) < len(errors):
        # A branch that takes another type says nothing of a value that fails in a branch that takes its type.
        telling = [error for error in errors if not error["type"].endswith("_type")]
        return " and ".join(dict.fromkeys(_sentence(model, place, error) for error in telling or errors))
    if all(error["type"] in _NO_LIST for error in errors) and isinstance(place.value, str | int | float):
        items = ", ".join(item.strip() for item in str(place.value).split(","))
        return f"{place.name} must be a list, as in `--set '{place.dotted}=[{items}]'`, but is {_shown(place.value)}"
    choices = " or ".join(dict.fromkeys(message.removeprefix("Input should be ") for message in wanted))
    return f"{place.name} must be {choices.replace('an object', 'a mapping')}, but is {_shown(place.value)}"


def _place(tree: Any, error: ErrorDetails) -> _Place:
    """The error's location without the names pydantic gives the branches of a union, which are not in the tree."""
    path: list[str | int] = []
    value = tree
    for part in error["loc"]:
        if isinstance(value, dict) and part in value:
            value = value[str(part)]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        elif error["type"] != "missing" or part != error["loc"][-1]:
            continue
        path.append(part)
    return _Place(tuple(path), value)


def _sentence(model: type[BaseModel], place: _Place, error: ErrorDetails) -> str:
    if error["type"] == "extra_forbidden":
        option = getattr(model, "command_options", {}).get(place.dotted)
        if option is not None:
            return f"unknown key {place.name}, did you mean the option `{option}`?"
        close = _closest(place, list(_key_paths(model)))
        return f"unknown key {place.name}{f', did you mean `{close}`?' if close else ''}"
    if error["type"] == "missing":
        return f"{place.name} is missing"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return f"{place.name}: {message}"


def _closest(place: _Place, known: list[tuple[str, ...]]) -> str | None:
    """The known key most like the unknown one: by its last name, with a small advantage for its neighbours."""
    *parent, name = place.keys

    def likeness(candidate: tuple[str, ...]) -> float:
        near = 0.1 if _is_group(candidate[:-1], parent) else 0.0
        nameless = 0.05 if ANY_KEY in candidate and not near else 0.0
        return difflib.SequenceMatcher(a=name, b=candidate[-1]).ratio() + near - nameless

    best = max(known, key=likeness, default=None)
    if best is None or likeness(best) < 0.6:
        return None
    if _is_group(best[:-1], parent):
        return _Place((*place.path[:-1], best[-1]), None).dotted
    return ".".join(best)


def _is_group(names: Sequence[str], parent: Sequence[str]) -> bool:
    """Whether known names lead to the group of an unknown key."""
    return len(names) == len(parent) and all(name in {ANY_KEY, key} for name, key in zip(names, parent, strict=True))


def _key_paths(model: type[BaseModel], above: tuple[str, ...] = (), outer: Models = ()) -> Iterator[tuple[str, ...]]:
    """Every key that the model and its parts know, as a path of names, with `ANY_KEY` for the keys of a mapping.

    A model within itself is not entered twice.
    """
    for name, field in model.model_fields.items():
        path = (*above, field.alias or name)
        yield path
        path = (*path, ANY_KEY) if typing.get_origin(field.annotation) is dict else path
        for part in _models_in(field.annotation):
            if part not in (*outer, model):
                yield from _key_paths(part, path, (*outer, model))


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in an annotation, inside unions and containers too."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)
