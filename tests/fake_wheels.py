"""Wheels made of a few lines, for tests of what an installer does; they are never put on a registry."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path


def wheel(folder: Path, name: str, version: str, modules: Mapping[str, str], requires: tuple[str, ...] = ()) -> Path:
    """A pure wheel below `folder`.

    Args:
        folder: Where it is written; made if need be.
        name: Of the distribution.
        version: Of it.
        modules: The source of each file, by its path in the wheel.
        requires: As in `Requires-Dist`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    described = "".join(f"Requires-Dist: {each}\n" for each in requires)
    files = {
        **modules,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{described}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{each},,\n" for each in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for each, source in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(each, source)
    return path
