"""Type checks of the arguments of the Python API.

The command line parses text, but a caller in Python may pass any object. Wrong types are refused, each under its name,
before work begins. A path is accepted for a text, a text for a path, a list for a tuple and a dictionary for a group of
settings; nothing else is converted.
"""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from repbench.errors import UsageError

Request = TypeVar("Request")


def request_of(kind: type[Request], options: Mapping[str, object]) -> Request:
    """Make a request of keyword arguments.

    Args:
        kind: A dataclass whose annotations are the types of its fields.
        options: From names to arguments.

    Raises:
        UsageError: An option is unknown or has a value of another type; names all of them.
    """
    hints = {field.name: get_type_hints(kind)[field.name] for field in fields(kind)}  # type: ignore[arg-type]
    faults = [_unknown(name, hints) for name in options if name not in hints]
    values: dict[str, Any] = {}
    for name, value in options.items():
        try:
            values[name] = argument(name, value, hints[name]) if name in hints else value
        except UsageError as error:
            faults.append(f"{error.what} ({error.do})" if error.do else error.what)
    if faults:
        raise UsageError("; ".join(faults), do=f"See the fields of {kind.__module__}.{kind.__name__}")
    return kind(**values)


def argument(name: str, value: object, hint: Any) -> Any:
    """A value of the type of its annotation.

    Args:
        name: Name of the argument.
        value: The value.
        hint: The annotation: `str | None`, `tuple[int, ...]`, …

    Raises:
        UsageError: The value is of another type.
    """
    try:
        return _adapter(hint).validate_python(_converted(value, hint), strict=True)
    except ValidationError as error:
        raise UsageError(
            f"`{name}` must be {_words(hint)}, but is {_shown(value)}", do=_remedy(name, value, hint)
        ) from error


@functools.cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # a model of pydantic has its own configuration
        return TypeAdapter(hint)


def _converted(value: object, hint: Any) -> object:
    choices = get_args(hint) or (hint,)
    if isinstance(value, os.PathLike) and str in choices and Path not in choices:
        return os.fspath(value)
    if isinstance(value, str) and Path in choices and str not in choices:
        return Path(value)
    return tuple(value) if isinstance(value, list) and get_origin(hint) is tuple else value


def _remedy(name: str, value: object, hint: Any) -> str | None:
    if get_origin(hint) is tuple and isinstance(value, (int, float, str)):
        return f"say {name}=({value!r},)"
    if str in (get_args(hint) or (hint,)) and isinstance(value, int) and not isinstance(value, bool):
        return f"say {name}={str(value)!r}"
    return None


def _unknown(name: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"there is no option `{name}`" + (f" (did you mean `{close[0]}`?)" if close else "")


def _words(hint: Any) -> str:
    plain = hint.__name__ if isinstance(hint, type) and get_origin(hint) is None else str(hint)
    return plain.replace("pathlib._local.", "").replace("pathlib.", "").replace("typing.", "")


def _shown(value: object) -> str:
    simple = isinstance(value, (str, int, float, tuple)) or value is None
    return repr(value)[:80] if simple else f"a {type(value).__name__}"
