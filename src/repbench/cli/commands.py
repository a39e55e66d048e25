"""Parsing of commands: repeated single options are refused, and errors suggest the likely option."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import typer
from typer.core import TyperCommand

from repbench.errors import UsageError


class Command(TyperCommand):
    """A command that refuses two values of an option that takes one; typer would drop the first."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments.

        Raises:
            UsageError: An option that takes one value is given twice, or a setting has no option before it.
        """
        # A parse of a copy, for the order of options alone: the parser of the superclass changes its list.
        _, extra, order = self.make_parser(ctx).parse_args(args=list(args))
        for option, count in Counter(order).items():
            is_flag = getattr(option, "is_flag", False)  # an argument has no such attribute, and occurs once
            is_single = option.param_type_name == "option" and not option.multiple and not is_flag
            if count > 1 and is_single:
                times = "twice" if count == 2 else f"{count} times"
                what = f"This option takes one value, but is given {times}"
                raise UsageError(what, key=option.opts[0], do="Give it once")
        for argument in extra:
            meant = self._meant(argument)
            if meant is not None:
                what = f"`{argument}` is no argument of `{ctx.command_path}`"
                raise UsageError(what, do=f"Did you mean `{meant}`?")
        return super().parse_args(ctx, args)

    def _meant(self, argument: str) -> str | None:
        """The option that `name=value` without an option may be meant for; None if there is none."""
        name, equals, value = argument.partition("=")
        options = {each for option in self.params for each in option.opts}
        wanted = f"--{name.replace('_', '-')}"
        if not equals or not name:
            return None
        if wanted in options:
            return f"{wanted} {shlex.quote(value)}"
        return f"--set {shlex.quote(argument)}" if "--set" in options else None


class Commands(typer.Typer):
    """A group whose commands are of `Command`."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[Any], Any]:
        """Register a command; options as those of typer."""
        return super().command(name, **{"cls": Command, **options})


def refuse_both(assignments: Sequence[str], key: str, option: str, given: bool) -> None:
    """Refuse an option together with a `--set` of the same setting.

    Raises:
        UsageError: Both are given.
    """
    if given and any(each.partition("=")[0].strip() == key for each in assignments):
        raise UsageError(f"`{option}` and `--set {key}` set the same", key=option, do="Give one of the two")
