"""`units:DIR`: units that something else computed, such as a codec, in a file of integers for each utterance.

`DIR/ID.npy` or `DIR/ID.txt` holds the units of the utterance ID, one a frame; an ID with slashes is a path.
`DIR/units.yaml` is a `UnitsDeclaration`. The corpus lists the utterances, so the folder becomes an upstream when it is
bound to a corpus.

Axes: F frames, K units, D width of the vectors of the units, W width of the form.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from repbench.audio.feature_files import read_features, read_integers, refuse_other_duration
from repbench.configs.loader import build as build_settings
from repbench.configs.loader import load_yaml
from repbench.corpora.contract import Corpus, Utterance
from repbench.errors import DataError, UsageError
from repbench.registry import declared_name
from repbench.upstream.adapters.corpus_features import DeclaredModel, StoredFrames
from repbench.upstream.adapters.feature_folder import files_by_id, refuse_nameless_model
from repbench.upstream.contract import UpstreamInfo, fingerprint_of
from repbench.upstream.training_data import TrainingDataSettings, training_data_of

DECLARATION_FILE = "units.yaml"

Form = Literal["onehot", "centroids"]
"""How a unit is given: a one-hot vector (K,), or its centroid (D,)."""

_ENDINGS = (".npy", ".txt")


def name_of(folder: Path) -> str:
    """The name of the upstream of a folder that declares none."""
    return f"units:{folder.name}"


class UnitsDeclaration(BaseModel):
    """The declaration of a folder of units; unit k is centred at sample first_center_samples + k * hop_samples."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str | None = Field(None, min_length=1)
    """Name of what gave the units, which tables show; folders that share it, `model`, times and number of units are one
    system. null: the name is that of the folder, and each folder is a system of its own."""
    model: str | None = Field(None, min_length=1)
    """What identifies the weights that gave them, such as their SHA-256 or a release; it needs a `name`. null: not
    declared."""
    sample_rate_hz: int = Field(ge=1)
    """Sample rate of the two times below, in hertz."""
    hop_samples: int = Field(ge=1)
    """Distance of two units' centres, in samples; units that are written once for a run of frames have no such."""
    first_center_samples: int = Field(ge=0)
    """Centre of unit 0, in samples."""
    num_units: int = Field(ge=1)
    """K: units are whole numbers from 0 to K - 1."""
    centroids: str | None = None
    """A .npy or .safetensors file with a vector for each unit (K, D), relative to the folder; null: there are none."""
    citation: str = "unknown"
    """The paper of the units."""
    licence: str = "unknown"
    """Licence of the units."""
    trained_on: tuple[TrainingDataSettings, ...] | None = None
    """What gave the units was trained on before: [] for nothing, null if it is not known."""

    @model_validator(mode="after")
    def _named(self) -> UnitsDeclaration:
        refuse_nameless_model(self.name, self.model)
        return self


class UnitFolder:
    """A folder of units, not yet bound to a corpus.

    Args:
        folder: The folder.
        form: How a unit is given.

    Raises:
        UsageError: The declaration is not valid, or has no centroids where they are to be given.
        DataError: The file of the centroids cannot be read, or holds another number of them.
    """

    def __init__(self, folder: Path, form: Form) -> None:
        file = folder / DECLARATION_FILE
        self.folder, self._form = folder, form
        self.declared = build_settings(UnitsDeclaration, load_yaml(file), file)
        self._vectors = torch.eye(self.declared.num_units)
        if form == "centroids":
            if self.declared.centroids is None:
                what = "The folder declares no centroids, so its units can only be one-hot"
                raise UsageError(what, file=file, key="centroids", do="Name a file with them, or leave form out")
            vectors = folder / self.declared.centroids
            self._vectors = torch.from_numpy(read_features(vectors))
            if len(self._vectors) != self.declared.num_units:
                what = f"The file holds {len(self._vectors)} centroids of {self.declared.num_units} units"
                raise DataError(what, file=vectors, key="num_units", do="Correct one of them")

    def bound_to(self, corpus: Corpus) -> UnitFolderFrames:
        """The upstream that reads the units of this corpus's utterances.

        Raises:
            DataError: No utterance has units, one has two files, or a file cannot be read.
        """
        files = files_by_id(self.folder, _ENDINGS)
        found = {each.id: files[each.id] for each in corpus.utterances if each.id in files}
        if not found:
            what = f"No utterance of {corpus.name} has units here"
            example = corpus.utterances[0].id
            raise DataError(what, file=self.folder, do=f"Name the files by utterance, such as {example}.npy")
        return UnitFolderFrames(self.folder, self.declared, self._vectors, found, self._form)


class UnitFolderFrames(StoredFrames):
    """The units of a corpus's utterances, read from a folder; a `FrameReader`.

    Args:
        folder: The folder.
        declared: The declaration of its files.
        vectors: (K, W) the vector of each unit.
        files: The file of each utterance that has one.
        form: How a unit is given.
    """

    def __init__(
        self, folder: Path, declared: UnitsDeclaration, vectors: Tensor, files: Mapping[str, Path], form: Form
    ) -> None:
        info = UpstreamInfo(
            name=name_of(folder) if declared.name is None else declared_name("units", declared.name),
            sample_rate_hz=declared.sample_rate_hz,
            hop_samples=declared.hop_samples,
            first_center_samples=declared.first_center_samples,
            min_samples=1,
            layer_names=("units",),
            width=vectors.shape[1],
            utterance_normalised=False,
            trainable=False,
            citation=declared.citation,
            licence=declared.licence,
        )
        super().__init__(info)
        self.declared_model = DeclaredModel.of(
            info, declared.name, declared.model, num_units=declared.num_units, form=form
        )
        self.trained_on = training_data_of(declared.trained_on, folder / DECLARATION_FILE)
        self.vectors = nn.Parameter(vectors, requires_grad=False)
        self._folder, self._declared, self._files, self._form = folder, declared, dict(files), form
        self._sha256 = {id_: read_integers(file, utterance=id_)[1] for id_, file in sorted(files.items())}

    def why_excluded(self, utterance: Utterance) -> str | None:
        """The reason why the utterance has no units; None if it has."""
        return None if utterance.id in self._files else "no units in the folder"

    def read_frames(self, utterance: Utterance) -> Tensor:
        """(1, F, W) of an utterance; errors as in `FrameReader`."""
        file, info = self._files[utterance.id], self.info
        integers, _ = read_integers(file, utterance=utterance.id, sha256=self._sha256[utterance.id])
        units = torch.from_numpy(integers)
        if int(units.min()) < 0 or int(units.max()) >= self._declared.num_units:
            wrong = int(units[(units < 0) | (units >= self._declared.num_units)][0])
            what = f"The unit {wrong} is none of 0 to {self._declared.num_units - 1}"
            raise DataError(what, file=file, utterance=utterance.id, key="num_units", do="Correct one of the two")
        refuse_other_duration(
            len(units),
            utterance.seconds,
            hop_s=info.hop_samples / info.sample_rate_hz,
            first_center_s=info.first_center_samples / info.sample_rate_hz,
            path=file,
            utterance=utterance.id,
        )
        return self.vectors.detach()[units][None]  # (F,) -> (F, W) -> (1, F, W)

    def note(self) -> str:
        """A sentence about the units, for the record."""
        hop_s = self.info.hop_samples / self.info.sample_rate_hz
        of_model = "" if self.declared_model is None else f"; it declares them as {self.declared_model.words()}"
        return f"units are read from the folder `{self._folder}`, every {hop_s:g} s as declared{of_model}"

    def fingerprint(self) -> str:
        """SHA-256 of the declaration, the vectors and the file of each utterance; independent of the folder's path."""
        unread = {"name", "model", "citation", "licence", "centroids", "trained_on"}
        declared = self._declared.model_dump(mode="json", exclude=unread)
        config = {"declared": declared, "files": self._sha256, "form": self._form}
        return fingerprint_of(self, config, self.code_version)
