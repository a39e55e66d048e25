"""Installed distributions made of a few files, for tests of the plugin door."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from textwrap import dedent

from repbench.registry import Registry


def install(
    folder: Path,
    name: str,
    entry_points: str | bytes = "",
    *,
    version: str = "1.0",
    modules: Mapping[str, str] | None = None,
    fields: str | None = None,
) -> None:
    """Lay a distribution into `folder` as an installer would: metadata, entry points, and modules of Python source."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    described = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" if fields is None else fields
    (info / "METADATA").write_text(described)
    content = dedent(entry_points).encode() if isinstance(entry_points, str) else entry_points
    (info / "entry_points.txt").write_bytes(content)
    for module, source in (modules or {}).items():
        (folder / f"{module}.py").write_text(dedent(source))


def registry_of(*folders: Path) -> Registry:
    """The registry of what lies in `folders`."""
    return Registry(metadata.distributions(path=[str(folder) for folder in folders]))
