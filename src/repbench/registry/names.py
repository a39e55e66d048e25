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

RESERVED_PREFIXES = ("hf", "torchaudio", "py", "features", "units", "onnx", "hear", "xares")
"""Names that no plugin of others may have: `hf:…`, `torchaudio:…`, `py:module:attribute`, `features:…`, `units:…`,
`onnx:…`, `hear:…`, `xares:…`."""

NEVER_DRAWN = ("hear:", "xares:")
"""The prefixes of upstreams that load their weights themselves and have no untrained twin."""

PREFIXED_UPSTREAMS = (
    "hf:REPO, torchaudio:BUNDLE, py:MODULE:NAME, features:DIR, units:RUN_OR_DIR, onnx:FILE, "
    "hear:MODULE, xares:MODULE:CLASS"
)
"""The upstreams that no listing has, for help and errors."""

UNPACKAGED = " (unpackaged)"
"""Suffix of the name of a `--plugin` file, where other plugins have the name of a distribution."""


_SNAPSHOT = re.compile(r"models--(?P<name>.+)/snapshots/[0-9a-f]+")
"""The end of the path of a model in the cache of Hugging Face; `--` in the name stands for a slash."""


def short_name(upstream: str) -> str:
    """The name of an upstream in tables and figures: of a path its last part, of `py:` and `xares:` the attribute.

    Two models may have the same; records keep the whole name.

    Example:
        >>> short_name("hf:/data/models/my-hubert/"), short_name("hf:facebook/hubert-base-ls960")
        ('hf:my-hubert', 'hf:facebook/hubert-base-ls960')
        >>> short_name("py:my_models.encoders:MyEncoder"), short_name("onnx:models/encoder.onnx"), short_name("mel")
        ('py:MyEncoder', 'onnx:encoder.onnx', 'mel')
    """
    prefix, colon, rest = upstream.partition(":")
    if not colon or prefix not in RESERVED_PREFIXES:
        return upstream
    if prefix in ("py", "xares"):
        return f"{prefix}:{rest.rpartition(':')[2] or rest}"
    if prefix == "hear":  # the module, and whether it is a vector; not its weights
        module, _, weights = rest.partition(":")
        return f"hear:{module}{'#scene' if weights.endswith('#scene') else ''}"
    path = rest.rstrip("/").removesuffix("/record.json")
    if snapshot := _SNAPSHOT.search(path):
        return f"{prefix}:{snapshot['name'].replace('--', '/')}"
    # One slash in the middle is that of a repository, which is of `hf:` alone, or of a folder that is short already.
    is_path = path.startswith(("/", ".", "~")) or path.count("/") > 1 or prefix == "onnx"
    return f"{prefix}:{(path.rpartition('/')[2] if is_path else path) or rest}"


def declared_name(upstream: str, name: str, form: str | None = None) -> str:
    """The name in tables and figures of features or units whose folder declares a name.

    Example:
        >>> declared_name("features:/data/of-a-corpus", "my-hubert")
        'features:my-hubert'
        >>> declared_name("units:/data/units?form=centroids", "my-codec", "centroids")
        'units:my-codec?form=centroids'
    """
    # A unit is one-hot unless it is given otherwise, so the usual form has no suffix.
    return f"{upstream.partition(':')[0]}:{name}{'' if form in {None, 'onehot'} else f'?form={form}'}"


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
