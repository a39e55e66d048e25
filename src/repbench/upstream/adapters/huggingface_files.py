"""The files of a transformers model: its folder, weights, settings and model card.

Nothing here imports transformers, uses the network or runs code of a file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from repbench.errors import EnvironmentFault, IntegrityError, UsageError
from repbench.upstream.checkpoints.foreign import AVERAGING_COUNTER, named
from repbench.upstream.checkpoints.given_path import given_path
from repbench.upstream.checkpoints.safe_unpickle import check_weights, read_pickle

CONFIG_FILE = "config.json"
PREPROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PICKLE_FILE = "pytorch_model.bin"
PICKLE_INDEX_FILE = "pytorch_model.bin.index.json"
INDEX_ENDING = ".index.json"
"""The end of the name of an index, which maps weights to files."""

_WEIGHTS_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", INDEX_ENDING)

_REPOSITORY = re.compile(r"[\w-][\w.-]*(?:/[\w-][\w.-]*)?")
_COUNTERS = ("num_batches_tracked", AVERAGING_COUNTER)
"""Entries of a state dict that are counters of batches, not weights."""

_VOLATILE = {"_name_or_path", "architectures", "dtype", "processor_class", "torch_dtype", "transformers_version"}
"""Settings about the origin of a model, without effect on its hidden states."""

_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*\n", re.DOTALL)
_LICENCE = re.compile(r"^license:[ \t]*([\w.+-]+)[ \t]*$", re.MULTILINE)
_PAPER = re.compile(r"(?:arxiv\.org/(?:abs|pdf)/|arxiv:)(\d{4}\.\d{4,5})", re.IGNORECASE)


def missing_package(error: ImportError) -> EnvironmentFault:
    """The error for a missing or incomplete extra `huggingface`."""
    what = f"`hf:` needs transformers, which cannot be imported: {error}"
    return EnvironmentFault(what, key="hf", do="Install it: pip install 'repbench[huggingface]'")


def folder_of(source: str) -> Path:
    """The folder of a model: `source` itself or, for the name of a repository, its folder in Hugging Face's cache.

    Raises:
        UsageError: There is neither.
        EnvironmentFault: `source` is not a folder and huggingface_hub is not installed.
    """
    folder = given_path(Path(source).expanduser(), "--upstream")
    if folder.is_dir():
        return folder
    if _REPOSITORY.fullmatch(source) is None:
        what = f"`{source}` is not a folder here, and cannot be the name of a repository"
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


def read_preprocessor(folder: Path) -> tuple[dict[str, Any], Path]:
    """The settings of the feature extractor, and their file.

    transformers 5 writes them into `processor_config.json` under `feature_extractor`, and reads them there first.

    Raises:
        UsageError: The folder has no such file.
        IntegrityError: It is not a JSON object, or two files differ in a setting.
    """
    settings = read_settings(folder, *PREPROCESSOR_FILES)
    files = [folder / name for name in PREPROCESSOR_FILES if (folder / name).is_file()]
    if len(files) == 2:
        alone, nested = nested_preprocessor(settings), nested_preprocessor(read_settings(folder, PREPROCESSOR_FILES[1]))
        others = [key for key in alone if key in nested and key not in _VOLATILE and alone[key] != nested[key]]
        if others:
            faults = "; ".join(f"`{key}` is {alone[key]!r} and {nested[key]!r}" for key in others)
            what = f"{files[0].name} and {files[1].name} contradict each other: {faults}"
            raise IntegrityError(what, file=folder, do="Fetch both again, from one revision of the model")
    return settings, files[0]


def nested_preprocessor(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of the feature extractor among those of a processor, or `settings` themselves."""
    nested = settings.get("feature_extractor", settings.get("audio_processor"))
    return nested if isinstance(nested, Mapping) else settings


def lasting(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without those about their origin, for a fingerprint."""
    return {key: value for key, value in settings.items() if key not in _VOLATILE}


def weights_files(folder: Path, wanted: str | None) -> list[Path]:
    """The files of the weights of a model, or their index.

    Args:
        folder: The folder of the model.
        wanted: A file, in the folder or elsewhere; a pickle is read only if it is named. Another folder: its
            safetensors. None: the files of the usual names in the folder of the model.

    Raises:
        UsageError: There is no such file, or only a pickle, and it is not named.
    """
    if wanted is not None and Path(wanted).is_dir():
        return weights_files(Path(wanted), None)
    if wanted is not None:
        found = next((place for place in (folder / wanted, Path(wanted)) if place.is_file()), None)
        if found is None or not found.name.endswith(_WEIGHTS_ENDINGS):
            what = f"`{wanted}` is not a file of weights in {folder} or here"
            do = "Give a .safetensors or .bin file, the .index.json of several, `random`, or nothing"
            raise UsageError(what, key="--checkpoint", do=do)
        return [found]
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if (folder / INDEX_FILE).is_file():
        return [folder / INDEX_FILE]
    for name, kind in ((PICKLE_FILE, "a pickle"), (PICKLE_INDEX_FILE, "an index of pickles")):
        if (folder / name).is_file():
            what = f"The weights are only in {name}, {kind}, which is read only if it is named"
            do = f"Convert them to {WEIGHTS_FILE}, or give --checkpoint {name} to read it without running its code"
            raise UsageError(what, key="--checkpoint", file=folder, do=do)
    raise UsageError(f"The folder holds no {WEIGHTS_FILE}", key="--upstream", file=folder, do="Fetch it, whole")


def read_weights(files: list[Path]) -> dict[str, Tensor]:
    """The weights in the files, float32 and finite; an index is replaced by the files that it names.

    Raises:
        UsageError: A file is missing.
        IntegrityError: A file is damaged or of another kind, needs code to be read, or holds a value that is not a
            weight; or an index and its files contradict each other.
    """
    weights: dict[str, Tensor] = {}
    for file in files:
        weights |= _read_listed(file) if file.name.endswith(INDEX_ENDING) else _read_file(file)
    return weights


def _read_file(file: Path) -> dict[str, Tensor]:
    return _checked(_read_safetensors(file) if file.suffix == ".safetensors" else read_pickle(file), file)


def _read_listed(index: Path) -> dict[str, Tensor]:
    """The weights of the files of an index; each file must hold exactly the weights that the index lists for it."""
    places = _places(index)
    names = sorted(set(places.values()))
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        what = f"{len(missing)} of {len(names)} files of weights are missing: {named(missing)}"
        raise UsageError(what, key="--checkpoint", file=index, do="Fetch all of them into this folder")
    weights: dict[str, Tensor] = {}
    for name in names:
        held = _read_file(index.parent / name)
        listed = {key for key, place in places.items() if place == name}
        if listed != held.keys():
            one, other = named(sorted(listed - held.keys())) or "none", named(sorted(held.keys() - listed)) or "none"
            what = f"The index and {name} contradict each other: only the index has {one}; only {name} has {other}"
            raise IntegrityError(what, file=index, do="Fetch the index and all its files again, from one revision")
        weights |= held
    return weights


def _places(index: Path) -> dict[str, str]:
    """The file of each weight, by the name of the weight; files are in the folder of the index."""
    found = read_settings(index.parent, index.name).get("weight_map")
    places = found if isinstance(found, dict) else {}
    if not places or any(not isinstance(name, str) or Path(name).name != name for name in places.values()):
        what = "The index must map every weight to the name of a file in its folder"
        raise IntegrityError(what, file=index, key="weight_map", do="Fetch the file again")
    return places


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
    # Counters are integers, which `check_weights` refuses.
    counters = {key: value for key, value in state.items() if str(key).endswith(_COUNTERS)}
    return check_weights({key: state[key] for key in state if key not in counters}, file=file) | counters


def model_card_parts(folder: Path) -> tuple[str, str]:
    """The front matter of the model card of a folder, and the whole card; empty where they are missing."""
    try:
        card = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", ""
    front = _FRONT_MATTER.match(card)
    return front[1] if front else "", card


def citation_and_licence(folder: Path) -> tuple[str, str]:
    """Citation (the first arXiv paper) and licence in the model card; each "unknown" if it is missing."""
    front, card = model_card_parts(folder)
    licence, paper = _LICENCE.search(front), _PAPER.search(card)
    return f"arXiv:{paper[1]}" if paper else "unknown", licence[1] if licence else "unknown"
