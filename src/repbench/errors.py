"""The errors of repbench, with their exit codes.

Every error that a user can cause is a `RepbenchError`. Its message is one line with the fault, the file, utterance or
key, and the remedy, and below it lines to paste where there are any; `--json` prints the same parts as fields. Any
other exception is a bug of repbench: it exits with 1 and a traceback.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import shlex
import sys
import traceback
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar


def printable(text: object) -> str:
    """Text of others, safe for one line of a terminal: control, bidi and surrogate characters are escaped."""
    return "".join(
        character.encode("unicode_escape", "backslashreplace").decode("ascii")
        # Control, format (bidi overrides, zero width), surrogate, and line and paragraph separators.
        if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
        else character
        for character in str(text)
    )


def quoted(value: object) -> str:
    """A path or value quoted for a shell command that is printed."""
    return shlex.quote(str(value))


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """ "Did you mean `x`? " for the nearest of the known names; "" where none is near. Case does not count."""
    by_case = {each.lower(): each for each in known}
    near = difflib.get_close_matches(str(name).lower(), by_case, n=1)
    return f"Did you mean `{by_case[near[0]]}`? " if near else ""


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."


class RepbenchError(Exception):
    """A fault with a place and a remedy.

    Args:
        what: The fault, as a sentence without its place: "`hop_samples` must be at least 1, but is 0".
        file: The file at fault.
        utterance: The id of the utterance at fault.
        key: The configuration key, column or name at fault.
        do: The remedy, as a sentence.
        code: The place in code, as `place_in_code` words it.
        block: Lines to paste, which are printed below the line as they are.
        faults: The single faults, where the error reports several.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        what: str,
        *,
        file: str | os.PathLike[str] | None = None,
        utterance: str | None = None,
        key: str | None = None,
        do: str | None = None,
        code: str | None = None,
        block: str = "",
        faults: Sequence[RepbenchError] = (),
    ) -> None:
        self.what = what.rstrip(".")
        self.file = None if file is None else os.fspath(file)
        self.utterance = utterance
        self.key = key
        self.do = do
        self.code = code
        self.block = block
        self.faults = tuple(faults)
        super().__init__(self.text())

    def line(self) -> str:
        """The whole error as one line."""
        places = [
            f"{label} {printable(place)}"
            for label, place in (("file", self.file), ("utterance", self.utterance), ("key", self.key))
            if place is not None
        ]
        several = "; ".join([*([printable(self.code)] if self.code else []), *([", ".join(places)] if places else [])])
        where = f" ({several})" if several else ""
        remedy = f" {_sentence(printable(self.do))}" if self.do else ""
        return f"{_sentence(f'{printable(self.what)}{where}')}{remedy}"

    def text(self) -> str:
        """The line, and below it the lines to paste, if there are any."""
        lines = [f"    {printable(line)}".rstrip() for line in self.block.splitlines()]
        return "\n".join([self.line(), "", *lines]) if lines else self.line()

    def fields(self) -> dict[str, Any]:
        """The parts of the error, for `--json`; with `code`, `block` and `faults` only where it has them."""
        return {
            "error": type(self).__name__,
            "exit_code": self.exit_code,
            "what": printable(self.what),
            "file": None if self.file is None else printable(self.file),
            "utterance": None if self.utterance is None else printable(self.utterance),
            "key": None if self.key is None else printable(self.key),
            "do": None if self.do is None else printable(self.do),
            **({"code": printable(self.code)} if self.code else {}),
            **({"block": "\n".join(map(printable, self.block.splitlines()))} if self.block else {}),
            **({"faults": [fault.fields() for fault in self.faults]} if self.faults else {}),
        }


class UsageError(RepbenchError):
    """An invalid command or configuration; raised before data is read."""

    exit_code = 2


class DataError(RepbenchError):
    """Audio, labels or a corpus that are missing, broken or contradictory."""

    exit_code = 3


class Unlabelled(DataError):  # noqa: N818 - read as "this utterance is unlabelled"
    """An utterance lacks the label that a task needs. In a test split it is excluded, and the record lists it."""


class IntegrityError(RepbenchError):
    """A checkpoint, cache entry, record or run folder whose content is damaged or was changed."""

    exit_code = 4


class PluginError(RepbenchError):
    """A plugin that cannot be loaded or breaks its contract."""

    exit_code = 5


class NonFiniteError(RepbenchError):
    """A loss, gradient, feature or score that is NaN or infinite."""

    exit_code = 6


class EnvironmentFault(RepbenchError):  # noqa: N818 - `EnvironmentError` is Python's own name for OSError
    """Missing disk space, memory, permission, device or optional package."""

    exit_code = 7


class RunInUseError(RepbenchError):
    """A run folder that another process has locked, or that belongs to another configuration."""

    exit_code = 8


class Terminated(SystemExit):
    """Raised by the handler of a signal to end the process; handlers of plugin faults do not catch it."""


OF_OTHERS = (KeyboardInterrupt, Terminated, GeneratorExit)
"""Exceptions that a plugin's code passes on. Any other `SystemExit` is a fault of the plugin."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory is full; torch raises a plain RuntimeError for the CPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return type(error) is RuntimeError and "DefaultCPUAllocator: can't allocate memory" in str(error)


@contextlib.contextmanager
def plugin_faults(name: str, *, utterance: str | None = None) -> Iterator[None]:
    """Turn whatever a plugin's code raises into a `PluginError` that names it.

    That includes `sys.exit`, which would end the process with success. Errors of repbench, a lack of memory and the
    end by a signal pass unchanged: they are not faults of the plugin.
    """
    try:
        yield
    except (RepbenchError, MemoryError, *OF_OTHERS):
        raise
    except BaseException as error:
        if is_out_of_memory(error):
            raise
        what = f"The plugin failed: {type(error).__name__}: {error}"
        do = "Tell its authors, or correct it"
        raise PluginError(what, key=name, utterance=utterance, do=do, code=place_in_code(error)) from error


_PASSED_THROUGH = {__name__.partition(".")[0], "torch", "numpy", *sys.stdlib_module_names}
"""Packages between the caller of a plugin and its own code."""


def place_in_code(error: BaseException) -> str | None:
    """File, line and function of a plugin that raised: "my_task.py, line 5, in `labels`"; None where it ran no code.

    That is the last frame of the package or file that was entered first: it may have called others, which raised.
    """
    frames = [
        (str(frame.f_globals.get("__name__")), frame.f_code, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    packages = [module.partition(".")[0] for module, _, _ in frames]
    entered = next((package for package in packages if package not in _PASSED_THROUGH), None)
    if entered is None:
        return None
    module, code, line = [frame for frame, package in zip(frames, packages, strict=True) if package == entered][-1]
    file = Path(code.co_filename)
    # from the folder of its package on: package/part/module.py
    depth = module.count(".") + (2 if file.name == "__init__.py" else 1)
    return f"{'/'.join(file.parts[-depth:])}, line {line}, in `{code.co_name}`"
