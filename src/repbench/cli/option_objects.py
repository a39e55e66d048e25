"""Commands whose options are the fields of one dataclass."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, TypeVar, get_type_hints

T = TypeVar("T")


def takes(options: type[T]) -> Callable[[Callable[[T], None]], Callable[..., None]]:
    """Let Typer read the arguments and options of a command from a dataclass, of which the command takes one object.

    Args:
        options: A dataclass. Each field is `Annotated` with its `typer.Argument` or `typer.Option`;
            arguments and options keep the order of the fields.

    Returns:
        A decorator for a function of one such object.
    """
    hints = get_type_hints(options, include_extras=True)
    parameters = [
        inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if each.default is MISSING else each.default,
            annotation=hints[each.name],
        )
        for each in fields(options)  # type: ignore[arg-type]  # a dataclass, which typeshed has no bound for
    ]

    def decorated(command: Callable[[T], None]) -> Callable[..., None]:
        @functools.wraps(command)
        def call(**given: Any) -> None:
            command(options(**given))

        # Typer reads both: parameters from the signature, types from the annotations.
        vars(call)["__signature__"] = inspect.Signature(parameters)
        call.__annotations__ = hints
        return call

    return decorated
