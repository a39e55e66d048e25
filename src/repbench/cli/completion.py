"""Names for the completion of a shell; nothing heavy is imported, and no plugin.

A shell starts `repbench` at each press of the tab key, so names are looked up in metadata and lists of files alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from importlib import resources

from repbench.registry.names import RESERVED_PREFIXES, Kind

VARIABLE = "_REPBENCH_COMPLETE"
"""The environment variable by which a shell asks for completions."""

_OPTIONS = ("--install-completion", "--show-completion")


def is_wanted() -> bool:
    """Whether this process was started to complete a command line, or to set that up."""
    return VARIABLE in os.environ or any(each.partition("=")[0] in _OPTIONS for each in sys.argv[1:2])


def upstreams(incomplete: str) -> list[str]:
    """Names of models, and the prefixes of those that no listing has."""
    return _beginning((*_names("upstream"), *(f"{each}:" for each in RESERVED_PREFIXES)), incomplete)


def downstreams(incomplete: str) -> list[str]:
    """Names of tasks."""
    return _beginning(_names("downstream"), incomplete)


def heads(incomplete: str) -> list[str]:
    """Names of heads."""
    return _beginning(_names("head"), incomplete)


def corpora(incomplete: str) -> list[str]:
    """Names of corpora and layouts; folders of manifests are completed by the shell."""
    return _beginning(_names("corpus"), incomplete)


def kinds(incomplete: str) -> list[str]:
    """Kinds of plugins, as `repbench list` takes them."""
    from repbench.registry import PLURALS

    return _beginning(PLURALS.values(), incomplete)


def protocols(incomplete: str) -> list[str]:
    """Presets of runs."""
    return _beginning(_presets(), incomplete)


def pretraining_presets(incomplete: str) -> list[str]:
    """Presets of the model that the command line names; of any model before it does."""
    folders = [each.name for each in resources.files("repbench.configs").iterdir() if each.is_dir()]
    words = os.environ.get("COMP_WORDS", os.environ.get("_TYPER_COMPLETE_ARGS", "")).split()
    of_model = [name for name in folders if name in words] or folders
    return _beginning((name for folder in of_model for name in _presets(folder)), incomplete)


def devices(incomplete: str) -> list[str]:
    """Words for devices; how many there are is not looked up."""
    return _beginning(("auto", "cpu", "cuda", "cuda:0"), incomplete)


def layers(incomplete: str) -> list[str]:
    """Words for layers; numbers and names depend on the model."""
    return _beginning(("last", "first", "mean", "weighted", "all"), incomplete)


def _names(kind: Kind) -> list[str]:
    from repbench.registry import registry

    return [entry.name for entry in registry().entries(kind)]


def _presets(folder: str | None = None) -> list[str]:
    """Names of the YAML files of a folder of presets; `preset_names` of the loader would import pydantic."""
    place = resources.files("repbench.configs")
    files = (place if folder is None else place / folder).iterdir()
    return [each.name.removesuffix(".yaml") for each in files if each.name.endswith(".yaml")]


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted({name for name in names if name.startswith(incomplete)})
