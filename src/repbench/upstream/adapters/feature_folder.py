"""`features:DIR`: hidden states in files of another tool, one `.npy` or `.safetensors` for each utterance.

`DIR/ID.npy` holds the frames (F, D) of the utterance ID, or its layers (L, F, D); an ID with slashes is a path.
`DIR/features.yaml` is a `FolderDeclaration`. Files of `repbench extract` have this form. The corpus lists the
utterances, so the folder becomes an upstream when it is bound to a corpus.

Axes: L layers, F frames, D width.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from functools import partial
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from repbench.audio.feature_files import read_layers, refuse_other_duration
from repbench.configs.loader import build as build_settings
from repbench.configs.loader import load_yaml
from repbench.corpora.contract import Corpus, Utterance
from repbench.errors import DataError, UsageError
from repbench.upstream.adapters.corpus_features import StoredFrames
from repbench.upstream.checkpoints.given_path import given_path
from repbench.upstream.contract import Provenance, UpstreamInfo, fingerprint_of
from repbench.upstream.training_data import TrainingDataSettings, training_data_of

DECLARATION_FILE = "features.yaml"
_ENDINGS = (".npy", ".safetensors")


class FolderDeclaration(BaseModel):
    """The declaration of the files; frame k is centred at sample first_center_samples + k * hop_samples."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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


class FeatureFolder:
    """A folder of features, not yet bound to a corpus.

    Args:
        folder: The folder.

    Raises:
        UsageError: The declaration is not valid.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.declared = build_settings(
            FolderDeclaration, load_yaml(folder / DECLARATION_FILE), folder / DECLARATION_FILE
        )

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

    def __init__(self, folder: Path, declared: FolderDeclaration, files: dict[str, Path]) -> None:
        # The first id in sorted order: the shape that all files are compared with must not depend on the disk.
        first = min(files)
        num_layers, _, width = read_layers(files[first], utterance=first)[0].shape
        names = declared.layer_names or tuple(f"layer {number}" for number in range(num_layers))
        if len(names) != num_layers:
            what = f"`layer_names` has {len(names)} names, but {files[first].name} has {num_layers} layers"
            raise DataError(what, file=folder / DECLARATION_FILE, key="layer_names", do="Name each layer once")
        info = UpstreamInfo(
            name=f"features:{folder.name}",
            sample_rate_hz=declared.sample_rate_hz,
            hop_samples=declared.hop_samples,
            first_center_samples=declared.first_center_samples,
            min_samples=1,
            layer_names=names,
            width=width,
            utterance_normalised=declared.utterance_normalised,
            trainable=False,
            citation=declared.citation,
            licence=declared.licence,
        )
        super().__init__(info)
        trained_on = training_data_of(declared.trained_on, folder / DECLARATION_FILE)
        self.provenance = Provenance(checkpoint=str(folder), trained_on=trained_on)
        self._declared = declared
        self._files = files
        self._sha256 = {id_: read_layers(file, utterance=id_)[1] for id_, file in sorted(files.items())}

    def why_excluded(self, utterance: Utterance) -> str | None:
        """The reason why the utterance has no frames; None if it has."""
        return None if utterance.id in self._files else "no features in the folder"

    def read_frames(self, utterance: Utterance) -> Tensor:
        """The frames (L, F, D) of an utterance; errors as in `FrameReader`."""
        file, info = self._files[utterance.id], self.info
        frames, _ = read_layers(file, utterance=utterance.id, sha256=self._sha256[utterance.id])
        expected = (len(info.layer_names), info.width)
        if (frames.shape[0], frames.shape[2]) != expected:
            shape = tuple(frames.shape)
            what = f"The features have the shape (L, F, D) = {shape}, but the first file had (L, D) = {expected}"
            do = "Save the same features for every utterance"
            raise DataError(what, file=file, utterance=utterance.id, do=do)
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
        hop_s = self.info.hop_samples / self.info.sample_rate_hz
        return f"frames are read from the folder `{self.provenance.checkpoint}`, every {hop_s:g} s as declared"

    def fingerprint(self) -> str:
        """SHA-256 of the declaration and of the file of each utterance; independent of the folder's path."""
        declared = self._declared.model_dump(mode="json", exclude={"citation", "licence", "trained_on"})
        return fingerprint_of(self, {"declared": declared, "files": self._sha256}, self.code_version)


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
        do = "Write it, with sample_rate_hz, hop_samples and first_center_samples"
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
