"""The error family: what went wrong, where, what to do, and the exit code that says it to a script.

Every error the user can meet is a `RepbenchError`. Its message is one line that names the file, utterance or key at
fault and what to do about it; the same parts are fields, so that `--json` can print them. Anything else that escapes
is a bug of repbench, exits with 1 and shows its traceback.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar


def printable(text: object) -> str:
    """Foreign text made safe for one line of a terminal: control, bidi and surrogate characters are escaped."""
    return "".join(
        character.encode("unicode_escape", "backslashreplace").decode("ascii")
        if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
        else character
        for character in str(text)
    )


def quoted(value: object) -> str:
    """A path or value for a command that is printed, as a shell reads it back."""
    return shlex.quote(str(value))


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."


class RepbenchError(Exception):
    """A fault with a place and a remedy.

    Args:
        what: What is wrong, as a sentence without its place: "`hop_samples` must be at least 1, but is 0".
        file: The file at fault.
        utterance: The id of the utterance at fault.
        key: The configuration key, column or name at fault.
        do: What the reader can do about it, as a sentence.
        faults: The faults that this one sums up, if it sums up several.
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
        faults: Sequence[RepbenchError] = (),
    ) -> None:
        self.what = what.rstrip(".")
        self.file = None if file is None else os.fspath(file)
        self.utterance = utterance
        self.key = key
        self.do = do
        self.faults = tuple(faults)
        super().__init__(self.line())

    def line(self) -> str:
        """The whole error as one line."""
        places = [
            f"{label} {printable(place)}"
            for label, place in (("file", self.file), ("utterance", self.utterance), ("key", self.key))
            if place is not None
        ]
        where = f" ({', '.join(places)})" if places else ""
        remedy = f" {_sentence(printable(self.do))}" if self.do else ""
        return f"{_sentence(f'{printable(self.what)}{where}')}{remedy}"

    def fields(self) -> dict[str, Any]:
        """The parts of the error, for `--json`; `faults` stands only where it sums up several."""
        return {
            "error": type(self).__name__,
            "exit_code": self.exit_code,
            "what": printable(self.what),
            "file": None if self.file is None else printable(self.file),
            "utterance": None if self.utterance is None else printable(self.utterance),
            "key": None if self.key is None else printable(self.key),
            "do": None if self.do is None else printable(self.do),
            **({"faults": [fault.fields() for fault in self.faults]} if self.faults else {}),
        }


class UsageError(RepbenchError):
    """A command or configuration that cannot be meant; found before any data is read."""

    exit_code = 2


class DataError(RepbenchError):
    """Sound, labels or a corpus that are missing, broken or contradict each other."""

    exit_code = 3


class Unlabelled(DataError):  # noqa: N818 - read as "this utterance is unlabelled"
    """An utterance lacks the label that a task asks for; in a test split it is an exclusion, never a silence."""


class IntegrityError(RepbenchError):
    """A checkpoint, cache entry, record or run folder whose bytes are not what they claim."""

    exit_code = 4


class PluginError(RepbenchError):
    """A plugin that cannot be loaded or breaks its contract."""

    exit_code = 5


class NonFiniteError(RepbenchError):
    """A loss, gradient, feature or score that is NaN or infinite."""

    exit_code = 6


class EnvironmentFault(RepbenchError):  # noqa: N818 - `EnvironmentError` is Python's own name for OSError
    """Disk, memory, permission, a device or an optional package that is not there."""

    exit_code = 7


class RunInUseError(RepbenchError):
    """A run folder that another process holds, or that belongs to another configuration."""

    exit_code = 8


class Terminated(SystemExit):
    """The end that a signal asked for, on its way up the stack: whoever catches what a plugin does, lets it pass."""


OF_OTHERS = (KeyboardInterrupt, Terminated, GeneratorExit)
"""What passes through a plugin's code without being its doing. Any other `SystemExit` is: it would end our process."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is full; torch raises a plain RuntimeError for that of a CPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return type(error) is RuntimeError and "DefaultCPUAllocator: can't allocate memory" in str(error)


@contextlib.contextmanager
def plugin_faults(name: str, *, utterance: str | None = None) -> Iterator[None]:
    """Turn whatever a plugin's code raises into a `PluginError` that names it.

    That includes `sys.exit`, which would end our process as if all were done. Our own errors pass as they are, and so
    do a lack of memory and the end that a signal asks for: they are not the plugin's fault.
    """
    try:
        yield
    except (RepbenchError, MemoryError, *OF_OTHERS):
        raise
    except BaseException as error:
        if is_out_of_memory(error):
            raise
        what = f"The plugin failed: {type(error).__name__}: {error}"
        raise PluginError(what, key=name, utterance=utterance, do="Tell its authors, or correct it") from error
