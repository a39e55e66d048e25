"""What lies in the folder of a transformers model: where the folder is, its weights, its settings, its model card.

Nothing here imports transformers, touches the network or runs code that a file holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from repbench.errors import EnvironmentFault, IntegrityError, UsageError
from repbench.upstream.pickles import check_weights, read_pickle

CONFIG_FILE = "config.json"
PREPROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PICKLE_FILE = "pytorch_model.bin"

_REPOSITORY = re.compile(r"[\w-][\w.-]*(?:/[\w-][\w.-]*)?")
_VOLATILE = {"_name_or_path", "architectures", "dtype", "processor_class", "torch_dtype", "transformers_version"}
"""Settings that say who saved a model and where, not what it computes."""

_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*\n", re.DOTALL)
_LICENCE = re.compile(r"^license:[ \t]*([\w.+-]+)[ \t]*$", re.MULTILINE)
_PAPER = re.compile(r"(?:arxiv\.org/(?:abs|pdf)/|arxiv:)(\d{4}\.\d{4,5})", re.IGNORECASE)


def missing_package(error: ImportError) -> EnvironmentFault:
    """What to say where the extra is not installed, or not whole."""
    what = f"`hf:` needs transformers, which cannot be imported: {error}"
    return EnvironmentFault(what, key="hf", do="Install it: pip install 'repbench[huggingface]'")


def folder_of(source: str) -> Path:
    """The folder of a model: `source` itself or, for the name of a repository, what Hugging Face's cache holds of it.

    Raises:
        UsageError: There is neither.
        EnvironmentFault: The cache is asked for and huggingface_hub is not installed.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if _REPOSITORY.fullmatch(source) is None:
        what = f"`{source}` is no such folder, and cannot be the name of a repository"
        raise UsageError(what, key="--upstream", do="Give a folder as save_pretrained writes it, or OWNER/NAME")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise missing_package(error) from error
    try:
        return Path(snapshot_download(source, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, HfHubHTTPError) as error:
        what = (
            f"`{source}` is neither a folder here nor a model in the cache of Hugging Face, and nothing is downloaded"
        )
        raise UsageError(
            what, key="--upstream", do=f"Fetch it where there is a network: hf download {source}"
        ) from error


def read_settings(folder: Path, *names: str) -> dict[str, Any]:
    """The first JSON object of these names in the folder.

    Raises:
        UsageError: There is none of them.
        IntegrityError: It is not a JSON object.
    """
    file = next((folder / name for name in names if (folder / name).is_file()), None)
    if file is None:
        what = f"The folder holds no {' or '.join(names)}"
        do = "Give a model with its feature extractor, as save_pretrained of both writes it"
        raise UsageError(what, key="--upstream", file=folder, do=do)
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"This is not JSON: {error}", file=file, do="Fetch the file again") from error
    if not isinstance(settings, dict):
        raise IntegrityError("This is not a JSON object", file=file, do="Fetch the file again")
    return settings


def lasting(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without those that say who saved them, for a fingerprint."""
    return {key: value for key, value in settings.items() if key not in _VOLATILE}


def weights_files(folder: Path, named: str | None) -> list[Path]:
    """The files that hold the weights of a model.

    Args:
        folder: Of the model.
        named: A file, in the folder or elsewhere; naming a pickle is what allows it. A folder, whose safetensors are
            meant; None: those of the usual names in the folder of the model.

    Raises:
        UsageError: There is no such file, or only a pickle, which nobody named.
        IntegrityError: The index of the weights names files outside of the folder.
    """
    if named is not None and Path(named).is_dir():
        return weights_files(Path(named), None)
    if named is not None:
        found = next((place for place in (folder / named, Path(named)) if place.is_file()), None)
        if found is None or found.suffix not in {".safetensors", ".bin", ".pt", ".pth"}:
            what = f"`{named}` is no file of weights in {folder} or here"
            raise UsageError(what, key="--checkpoint", do="Name a .safetensors or .bin file, say `random`, or nothing")
        return [found]
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if (folder / INDEX_FILE).is_file():
        return _of_index(folder)
    if (folder / PICKLE_FILE).is_file():
        what = f"The weights lie in {PICKLE_FILE} alone, a pickle, which is read only where it is asked for"
        do = f"Convert them to {WEIGHTS_FILE}, or say --checkpoint {PICKLE_FILE} to read it without running its code"
        raise UsageError(what, key="--checkpoint", file=folder, do=do)
    raise UsageError(f"The folder holds no {WEIGHTS_FILE}", key="--upstream", file=folder, do="Fetch it, whole")


def _of_index(folder: Path) -> list[Path]:
    places = read_settings(folder, INDEX_FILE).get("weight_map")
    names = set(places.values()) if isinstance(places, dict) else set()
    if not names or any(not isinstance(name, str) or Path(name).name != name for name in names):
        what = "The index must map every weight to the name of a file beside it"
        raise IntegrityError(what, file=folder / INDEX_FILE, key="weight_map", do="Fetch the file again")
    return [folder / name for name in sorted(names)]


def read_weights(files: list[Path]) -> dict[str, Tensor]:
    """The weights in the files, float32 and finite.

    Raises:
        UsageError: A file is missing.
        IntegrityError: A file is damaged or something else, needs code to be read, or holds what cannot be a weight.
    """
    weights: dict[str, Tensor] = {}
    for file in files:
        weights |= _checked(_read_safetensors(file) if file.suffix == ".safetensors" else read_pickle(file), file)
    return weights


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not file.is_file():
        raise UsageError("This file of weights is missing", key="--upstream", file=file, do="Fetch it, whole")
    try:
        return load_file(file)
    except SafetensorError as error:
        raise IntegrityError(
            f"This is not a whole safetensors file: {error}", file=file, do="Fetch it again"
        ) from error


def _checked(state: Mapping[str, Any], file: Path) -> dict[str, Tensor]:
    counters = {key: value for key, value in state.items() if str(key).endswith("num_batches_tracked")}
    return check_weights({key: state[key] for key in state if key not in counters}, file=file) | counters


def said_by_card(folder: Path) -> tuple[str, str]:
    """Citation and licence by the model card: the first paper on arXiv that it names; each "unknown" if not said."""
    try:
        card = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "unknown", "unknown"
    front = _FRONT_MATTER.match(card)
    licence = _LICENCE.search(front[1]) if front else None
    paper = _PAPER.search(card)
    return f"arXiv:{paper[1]}" if paper else "unknown", licence[1] if licence else "unknown"
