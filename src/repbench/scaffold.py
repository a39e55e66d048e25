"""A package of a new plugin, written from the files in `templates/`: `repbench new`."""

from __future__ import annotations

import importlib.util
import keyword
import os
import re
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from string import Template
from typing import Literal

from repbench.errors import UsageError
from repbench.files import TEMPORARY_PREFIX, environment_faults
from repbench.registry import BUILTIN_DISTRIBUTION, PLURALS, RESERVED_PREFIXES, normalised, registry

PluginKind = Literal["upstream", "downstream", "head"]

_TEMPLATES = Path(__file__).parent / "templates"

_FACTORIES = {"upstream": "log_band_energies", "downstream": "Attribute", "head": "AttentivePool"}
"""Names of the plugins in the templates' modules. They are not made from NAME, which could hide an imported one."""

_FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "{kind}/README.md",
    "src/{module}.py": "{kind}/module.py",
    "tests/test_{module}.py": "{kind}/test_module.py",
}
"""The template of each file of a package."""


def new_package(kind: PluginKind, name: str, parent: Path) -> list[Path]:
    """Write a package that can be installed and passes `repbench check`.

    Args:
        kind: Kind of the plugin.
        name: Name of the distribution, of its folder and of the plugin.
        parent: Folder in which the package's folder is made.

    Returns:
        The files; all are written or none.

    Raises:
        UsageError: The name is unfit or taken, or the folder exists.
        EnvironmentFault: `parent` cannot be written to.
    """
    refuse_name(kind, name)
    folder = parent / name
    if os.path.lexists(folder):
        raise UsageError("There is something of this name already", file=folder, do="Choose another name or --out DIR")
    words = {
        "name": name,
        "kind": kind,
        "plural": PLURALS[kind],
        "module": module_name(name),
        "factory": _FACTORIES[kind],
        "repbench_version": metadata.version(BUILTIN_DISTRIBUTION),
    }
    texts = {target.format(**words): _filled(source.format(**words), words) for target, source in _FILES.items()}
    _write_folder(folder, texts)
    return [folder / target for target in texts]


def refuse_name(kind: PluginKind, name: str) -> None:
    """Refuse what cannot be the name of a distribution, a module and a plugin at once, or is taken.

    Raises:
        UsageError: The name is unfit or taken.
    """
    fault = _shape_fault(name) or _taken(kind, name)
    if fault is not None:
        raise UsageError(fault, key=name, do="Choose another name")


def module_name(name: str) -> str:
    """The module of a distribution: `my_model` for `My-Model`."""
    return normalised(name).replace("-", "_")


def _shape_fault(name: str) -> str | None:
    if re.fullmatch(r"[A-Za-z](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", name) is None:
        return "A name is made of ASCII letters, digits, `-`, `_` and `.`, from a letter to a letter or digit"
    if module_name(name) in RESERVED_PREFIXES:
        return f"`{name}` is a reserved prefix"
    if keyword.iskeyword(module_name(name)):
        return f"`{module_name(name)}` is a keyword of Python, which no module can have as its name"
    return None


def _taken(kind: PluginKind, name: str) -> str | None:
    """The reason why a name is taken; None if it is free."""
    for entry in registry().entries(kind):
        if normalised(entry.name) == normalised(name):
            whose = f"a built-in {kind}" if entry.builtin else f"another {kind}, of `{entry.distribution}`"
            return f"`{name}` is the name of {whose}"
    if any(True for _ in metadata.distributions(name=name)):
        return f"`{name}` is the name of an installed distribution"
    module = module_name(name)
    if module in sys.stdlib_module_names or _is_importable(module):
        return f"`{module}` is the name of an installed module"
    return None


def _is_importable(module: str) -> bool:
    """Whether there is such a module; a folder without code in the working folder is none."""
    found = importlib.util.find_spec(module)
    return found is not None and found.origin is not None


def _filled(source: str, words: dict[str, str]) -> str:
    return Template((_TEMPLATES / f"{source}.template").read_text(encoding="utf-8")).substitute(words)


def _write_folder(folder: Path, texts: dict[str, str]) -> None:
    """Write files into a new folder, which is renamed into place when it is complete."""
    with environment_faults(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=folder.parent))
        try:
            # A folder inside, because `mkdtemp` makes one that only its owner can read.
            package = unfinished / "package"
            for target, text in texts.items():
                path = package / target
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            package.rename(folder)
        finally:
            shutil.rmtree(unfinished)
