"""Kinds of plugins, the names that they may have, and the form of a report on one.

Imports no other module of the registry.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from typing import Literal, NamedTuple

Kind = Literal["upstream", "downstream", "corpus", "head"]

PLURALS: Mapping[Kind, str] = {
    "upstream": "upstreams",
    "downstream": "downstreams",
    "corpus": "corpora",
    "head": "heads",
}
"""The plural of each kind, in the order of every listing."""

GROUPS: Mapping[Kind, str] = {kind: f"repbench.{plural}" for kind, plural in PLURALS.items()}
"""The entry-point group of each kind."""

BUILTIN_DISTRIBUTION = "repbench"
"""The distribution whose plugins keep their bare names."""

RESERVED_PREFIXES = ("hf", "torchaudio", "py", "features", "units")
"""Names that no plugin of others may have: `hf:…`, `torchaudio:…`, `py:module:attribute`, `features:…`, `units:…`."""

PREFIXED_UPSTREAMS = "hf:REPO, torchaudio:BUNDLE, py:MODULE:NAME, features:DIR, units:RUN_OR_DIR"
"""The upstreams that no listing has, for help and errors."""

UNPACKAGED = " (unpackaged)"
"""Suffix of the name of a `--plugin` file, where other plugins have the name of a distribution."""


class DistributionFault(NamedTuple):
    """A fault of an installed distribution that was worked around."""

    distribution: str
    reason: str
    cure: str


def is_packaged(distribution: str) -> bool:
    """Whether it is a distribution, whose version and `code_version` identify the code of its plugins.

    Files of `--plugin` and targets of `py:` are not: they are edited from one run to the next.
    """
    return distribution != "py" and not distribution.endswith(UNPACKAGED)


def identity_of_code(distribution: str, version: str, file_sha256: str | None) -> str:
    """Distribution and version, and the start of the file's hash where no package identifies the code.

    Plugins of one name compute the same if these are equal.
    """
    released = f"{distribution} {version}".rstrip()
    return released if is_packaged(distribution) or file_sha256 is None else f"{released}, file {file_sha256[:12]}"


def normalised(distribution: str) -> str:
    """The name of a distribution as PEP 503 compares it: `My.Speech_Models` is `my-speech-models`."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def last_line(error: BaseException) -> str:
    """The last line of the error's traceback: its type and message."""
    return traceback.format_exception_only(error)[-1].strip()


def unfit_name(name: str) -> str | None:
    """The reason why a plugin cannot have a name; None if it can."""
    if name in RESERVED_PREFIXES:
        return f"`{name}` is a reserved prefix"
    if not name or re.search(r"[:\s]", name):
        return "a name may hold neither a colon nor a space"
    return None
