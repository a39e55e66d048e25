"""`features:DIR`: hidden states in files of another tool, one `.npy` or `.safetensors` for each utterance.

`DIR/ID.npy` holds the frames (F, D) of the utterance ID, or its layers (L, F, D); with `kind: utterance` its vector
(D,), or that of each layer (L, D). An ID with slashes is a path. `DIR/features.yaml` is a `FolderDeclaration`, or a
`VectorFolderDeclaration` for vectors. Files of `repbench extract` have this form. The corpus lists the
utterances, so the folder becomes an upstream when it is bound to a corpus.

Axes: L layers, F frames, D width.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from repbench.audio.feature_files import metadata_of, read_layers, read_vectors, refuse_other_duration
from repbench.configs.loader import build as build_settings
from repbench.configs.loader import load_yaml
from repbench.corpora.contract import Corpus, Utterance
from repbench.errors import DataError, UsageError
from repbench.registry import declared_name
from repbench.upstream.adapters.corpus_features import DeclaredModel, StoredFrames
from repbench.upstream.adapters.declarations import kind_of
from repbench.upstream.checkpoints.given_path import given_path
from repbench.upstream.contract import Provenance, StateKind, UpstreamInfo, fingerprint_of
from repbench.upstream.training_data import TrainingDataSettings, training_data_of

DECLARATION_FILE = "features.yaml"
_ENDINGS = (".npy", ".safetensors")
_OF_FRAMES = ("hop_samples", "first_center_samples", "utterance_normalised")
"""What only frames have."""


class FolderDeclaration(BaseModel):
    """The declaration of the files; frame k is centred at sample first_center_samples + k * hop_samples."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["frames"] = "frames"
    """`frames`; `utterance` for one vector an utterance, which has another declaration."""
    name: str | None = Field(None, min_length=1)
    """Name of the model, which tables show; folders that share it, `model`, layers, width and times are one system.
    null: the name is that of the folder, and each folder is a system of its own."""
    model: str | None = Field(None, min_length=1)
    """What identifies the weights, such as their SHA-256 or a release; it needs a `name`. null: not declared."""
    sample_rate_hz: int = Field(ge=1)
    """Sample rate of the two times below, in hertz."""
    hop_samples: int = Field(ge=1)
    """Distance of two frames' centres, in samples."""
    first_center_samples: int = Field(ge=0)
    """Centre of frame 0, in samples."""
    layer_names: tuple[str, ...] | None = None
    """One name a layer; null: `layer 0`, `layer 1`, …"""
    utterance_normalised: bool = False
    """Whether each feature of layer 0 has zero mean over the utterance."""
    citation: str = "unknown"
    """The paper of the features."""
    licence: str = "unknown"
    """Licence of the features."""
    trained_on: tuple[TrainingDataSettings, ...] | None = None
    """What the model of the features was trained on before: [] for nothing, null if it is not known."""

    @model_validator(mode="after")
    def _named(self) -> FolderDeclaration:
        refuse_nameless_model(self.name, self.model)
        return self


class VectorFolderDeclaration(BaseModel):
    """The declaration of files with one vector an utterance, as an x-vector."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["utterance"]
    """`utterance`."""
    name: str | None = Field(None, min_length=1)
    """Name of the model, which tables show; folders that share it, `model`, layers, width and times are one system.
    null: the name is that of the folder, and each folder is a system of its own."""
    model: str | None = Field(None, min_length=1)
    """What identifies the weights, such as their SHA-256 or a release; it needs a `name`. null: not declared."""
    sample_rate_hz: int = Field(16_000, ge=1)
    """Sample rate of the sounds that the vectors are of, in hertz; no score depends on it."""
    layer_names: tuple[str, ...] | None = None
    """One name a layer; null: `vector`, or with several `layer 0`, `layer 1`, …"""
    citation: str = "unknown"
    """The paper of the features."""
    licence: str = "unknown"
    """Licence of the features."""
    trained_on: tuple[TrainingDataSettings, ...] | None = None
    """What the model of the features was trained on before: [] for nothing, null if it is not known."""

    @model_validator(mode="after")
    def _named(self) -> VectorFolderDeclaration:
        refuse_nameless_model(self.name, self.model)
        return self


def refuse_nameless_model(name: str | None, model: str | None) -> None:
    """Raise a ValueError for a `model` without a `name`, by which no table could show it."""
    if model is not None and name is None:
        raise ValueError("`model` needs a `name`, by which tables show it")


def read_folder_declaration(file: Path) -> FolderDeclaration | VectorFolderDeclaration:
    """Read a `features.yaml`; its `kind` decides which of the two it is.

    Raises:
        UsageError: It is not valid, or gives one vector an utterance times.
    """
    tree: dict[str, Any] = load_yaml(file)
    if kind_of(tree, file) == "frames":
        return build_settings(FolderDeclaration, tree, file)
    key = next((name for name in _OF_FRAMES if name in tree), None)
    if key is not None:
        what = f"`{key}` is of frames, and `kind: utterance` declares one vector an utterance, which has no times"
        raise UsageError(what, key=key, file=file, do="Leave one of the two out")
    return build_settings(VectorFolderDeclaration, tree, file)


class FeatureFolder:
    """A folder of features, not yet bound to a corpus.

    Args:
        folder: The folder.

    Raises:
        UsageError: The declaration is not valid.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.declared = read_folder_declaration(folder / DECLARATION_FILE)

    def bound_to(self, corpus: Corpus) -> FolderFrames:
        """The upstream that reads the features of this corpus's utterances.

        Raises:
            DataError: No utterance has features, one has two files, or a file cannot be read.
        """
        files = files_by_id(self.folder, _ENDINGS)
        found = {each.id: files[each.id] for each in corpus.utterances if each.id in files}
        if not found:
            what = f"No utterance of {corpus.name} has features here"
            example = corpus.utterances[0].id
            raise DataError(what, file=self.folder, do=f"Name the files by utterance, such as {example}.npy")
        return FolderFrames(self.folder, self.declared, found)


class FolderFrames(StoredFrames):
    """The features of a corpus's utterances, read from a folder; a `FrameReader`.

    Args:
        folder: The folder.
        declared: The declaration of its files.
        files: The file of each utterance that has one.
    """

    def __init__(
        self, folder: Path, declared: FolderDeclaration | VectorFolderDeclaration, files: dict[str, Path]
    ) -> None:
        self._read = read_layers if declared.kind == "frames" else read_vectors
        # The first id in sorted order: the shape that all files are compared with must not depend on the disk.
        first = min(files)
        num_layers, _, width = self._read(files[first], utterance=first)[0].shape
        names = declared.layer_names or _usual_names(num_layers, declared.kind)
        if len(names) != num_layers:
            what = f"`layer_names` has {len(names)} names, but {files[first].name} has {num_layers} layers"
            raise DataError(what, file=folder / DECLARATION_FILE, key="layer_names", do="Name each layer once")
        hop, first_center, normalised = 0, 0, False
        if isinstance(declared, FolderDeclaration):
            hop, first_center = declared.hop_samples, declared.first_center_samples
            normalised = declared.utterance_normalised
        info = UpstreamInfo(
            name=declared_name("features", declared.name or folder.name),
            kind=declared.kind,
            sample_rate_hz=declared.sample_rate_hz,
            hop_samples=hop,
            first_center_samples=first_center,
            min_samples=1,
            layer_names=names,
            width=width,
            utterance_normalised=normalised,
            trainable=False,
            citation=declared.citation,
            licence=declared.licence,
        )
        super().__init__(info)
        self.declared_model = DeclaredModel.of(info, declared.name, declared.model)
        trained_on = training_data_of(declared.trained_on, folder / DECLARATION_FILE)
        self.provenance = Provenance(checkpoint=str(folder), trained_on=trained_on)
        self._declared = declared
        self._files = files
        self._sha256 = {id_: self._read(file, utterance=id_)[1] for id_, file in sorted(files.items())}
        if declared.model is not None:
            _refuse_several_models(files)

    def why_excluded(self, utterance: Utterance) -> str | None:
        """The reason why the utterance has no frames; None if it has."""
        return None if utterance.id in self._files else "no features in the folder"

    def read_frames(self, utterance: Utterance) -> Tensor:
        """The frames (L, F, D) of an utterance, F = 1 for one vector; errors as in `FrameReader`."""
        file, info = self._files[utterance.id], self.info
        frames, _ = self._read(file, utterance=utterance.id, sha256=self._sha256[utterance.id])
        expected = (len(info.layer_names), info.width)
        if (frames.shape[0], frames.shape[2]) != expected:
            shape = tuple(frames.shape)
            what = f"The features have the shape (L, F, D) = {shape}, but the first file had (L, D) = {expected}"
            do = "Save the same features for every utterance"
            raise DataError(what, file=file, utterance=utterance.id, do=do)
        if info.one_vector:
            return torch.from_numpy(frames)
        refuse_other_duration(
            frames.shape[1],
            utterance.seconds,
            hop_s=info.hop_samples / info.sample_rate_hz,
            first_center_s=info.first_center_samples / info.sample_rate_hz,
            path=file,
            utterance=utterance.id,
        )
        return torch.from_numpy(frames)

    def note(self) -> str:
        """A sentence about the frames, for the record."""
        place = f"are read from the folder `{self.provenance.checkpoint}`"
        of_model = "" if self.declared_model is None else f"; it declares them as {self.declared_model.words()}"
        if self.info.one_vector:
            return f"vectors, one an utterance, {place}{of_model}"
        hop_s = self.info.hop_samples / self.info.sample_rate_hz
        return f"frames {place}, every {hop_s:g} s as declared{of_model}"

    def fingerprint(self) -> str:
        """SHA-256 of the declaration and of the file of each utterance; independent of the folder's path."""
        # Name and model change no number, so the frames, and what is known of them, are the same under another name.
        unread = {"name", "model", "citation", "licence", "trained_on"}
        declared = self._declared.model_dump(mode="json", exclude=unread)
        if declared["kind"] == "frames":  # which is written nowhere: fingerprints of before the key stay
            del declared["kind"]
        return fingerprint_of(self, {"declared": declared, "files": self._sha256}, self.code_version)


def _refuse_several_models(files: Mapping[str, Path]) -> None:
    """Refuse files that `repbench extract` wrote of different models, in a folder that declares one model.

    Raises:
        DataError: Names two of them.
    """
    first: tuple[str, Path] | None = None
    for id_, file in sorted(files.items()):
        found = metadata_of(file).get("fingerprint")
        if found is None:
            continue
        first = first or (found, file)
        if found != first[0]:
            what = (
                "The folder declares one model, but `repbench extract` wrote this file with a model of the "
                f"fingerprint {found[:12]}…, and {first[1].name} with one of {first[0][:12]}…"
            )
            raise DataError(what, file=file, utterance=id_, do="Extract all files with one model, into a new folder")


def _usual_names(num_layers: int, kind: StateKind) -> tuple[str, ...]:
    if kind == "utterance" and num_layers == 1:
        return ("vector",)
    return tuple(f"layer {number}" for number in range(num_layers))


def door(folder: str) -> partial[FeatureFolder]:
    """The factory of the folder that `features:DIR` names."""
    return partial(build, folder)


def build(folder: str, *, checkpoint: str | None = None, seed: int = 0) -> FeatureFolder:
    """The features in a folder.

    Raises:
        UsageError: There is no such folder or declaration, the declaration is not valid, or a checkpoint is given.
    """
    place = given_path(Path(folder).expanduser(), "--upstream")
    # A record has the folder as its checkpoint, and scoring with its probe gives it back.
    if checkpoint is not None and Path(checkpoint).expanduser() != place:
        do = "Leave --checkpoint out; the frames are in the folder"
        raise UsageError("A folder of features has no weights to load", key="--checkpoint", do=do)
    if not place.is_dir():
        raise UsageError("There is no such folder of features", key="--upstream", file=place, do="Check the path")
    if not (place / DECLARATION_FILE).is_file():
        what = f"The folder holds no {DECLARATION_FILE}, which gives the time of each frame"
        do = "Write it, with sample_rate_hz, hop_samples and first_center_samples, or with kind: utterance"
        raise UsageError(what, key="--upstream", file=place, do=do)
    return FeatureFolder(place)


def files_by_id(folder: Path, endings: Collection[str]) -> dict[str, Path]:
    """From utterance id to its file: the path in the folder without its ending, as an id is normalised.

    Args:
        folder: The folder.
        endings: Suffixes of the files that belong to utterances.

    Raises:
        DataError: Two files belong to one utterance.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix not in endings or not path.is_file():
            continue
        # A file system or an archive may hold a name decomposed (e and an accent); ids are composed.
        id_ = unicodedata.normalize("NFC", path.relative_to(folder).as_posix().removesuffix(path.suffix))
        if id_ in files:
            what = f"The utterance has two files, {files[id_].name} and {path.name}"
            raise DataError(what, file=folder, utterance=id_, do="Remove one of them")
        files[id_] = path
    return files
