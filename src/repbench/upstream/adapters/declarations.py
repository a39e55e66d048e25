"""Declarations of models that declare nothing themselves: a YAML file, read into one of two forms.

`kind: frames`, the default, has the times of frames; `kind: utterance` is of one vector an utterance.

Axes: T samples, D width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from repbench.configs.loader import build as build_settings
from repbench.configs.loader import load_yaml
from repbench.errors import UsageError, did_you_mean
from repbench.upstream.contract import StateKind, UpstreamInfo
from repbench.upstream.training_data import TrainingDataSettings


class Declaration(BaseModel):
    """The declaration of a module; a waveform of T samples gives
    (T + padding_samples - window_samples) // hop_samples + 1 frames.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["frames"] = "frames"
    """`frames`; `utterance` for one vector an utterance, which has another declaration."""
    name: str
    """Name of the model."""
    sample_rate_hz: int = Field(16_000, ge=1)
    """Sample rate of the waveforms it takes, in hertz."""
    hop_samples: int = Field(ge=1)
    """Distance of two frames' centres, in samples."""
    first_center_samples: int = Field(ge=0)
    """Centre of frame 0, in samples."""
    window_samples: int = Field(ge=1)
    """Samples that a frame depends on, before padding: 400 for wav2vec 2.0's convolutions, the hop for whole blocks."""
    padding_samples: int = Field(0, ge=0)
    """Samples that the model adds at both ends in total: the window, for a centred spectrogram."""
    min_samples: int | None = Field(None, ge=1)
    """Shortest waveform it takes, in samples; null: the shortest that gives one frame."""
    max_samples: int | None = Field(None, ge=1)
    """Longest waveform it takes, in samples; null: any."""
    layer_names: tuple[str, ...]
    """One name a layer."""
    width: int = Field(ge=1)
    """D, of all layers."""
    utterance_normalised: bool = False
    """Whether each feature of layer 0 has zero mean over the utterance."""
    batch_invariant: bool = False
    """Whether padded batches give the same as each utterance alone; false: each one runs alone, without padding."""
    layer_modules: tuple[tuple[Annotated[str, Field(min_length=1)], ...], ...] | None = Field(None, min_length=1)
    """Names of the submodules of each layer, from the input to the output: [[layers.0], [layers.1, norm]]; the last one
    computes the last of `layer_names`. null: not declared, and fine-tuning cannot train some layers alone."""
    weights: str | None = None
    """A .safetensors file of the module's state dict, relative to the declaration; null: the module's own weights."""
    code_version: int = Field(1, ge=1)
    """Increase it when the same weights give other numbers."""
    citation: str = "unknown"
    """The paper of the model."""
    licence: str = "unknown"
    """Licence of the weights or the code."""
    trained_on: tuple[TrainingDataSettings, ...] | None = None
    """What the weights were trained on before: [] for nothing, null if it is not known."""

    def num_frames(self, num_samples: int) -> int:
        """Frames of a waveform of `num_samples`."""
        return (num_samples + self.padding_samples - self.window_samples) // self.hop_samples + 1

    def info(self, *, trainable: bool) -> UpstreamInfo:
        """As the contract has it."""
        # (T + padding - window) // hop + 1 >= 1  <=>  T >= window - padding
        gives_one = max(1, self.window_samples - self.padding_samples)
        return UpstreamInfo(
            name=self.name,
            sample_rate_hz=self.sample_rate_hz,
            hop_samples=self.hop_samples,
            first_center_samples=self.first_center_samples,
            min_samples=max(gives_one, self.min_samples or 1),
            max_samples=self.max_samples,
            layer_names=self.layer_names,
            width=self.width,
            utterance_normalised=self.utterance_normalised,
            trainable=trainable,
            citation=self.citation,
            licence=self.licence,
        )


class VectorDeclaration(BaseModel):
    """The declaration of a module that gives one vector an utterance, as an x-vector."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["utterance"]
    """`utterance`."""
    name: str
    """Name of the model."""
    sample_rate_hz: int = Field(16_000, ge=1)
    """Sample rate of the waveforms it takes, in hertz."""
    min_samples: int = Field(ge=1)
    """Shortest waveform it takes, in samples."""
    max_samples: int | None = Field(None, ge=1)
    """Longest waveform it takes, in samples; null: any. Longer utterances are excluded."""
    layer_names: tuple[str, ...] = ("vector",)
    """One name a layer."""
    width: int = Field(ge=1)
    """D, of all layers."""
    batch_invariant: bool = False
    """Whether padded batches give the same as each utterance alone; false: each one runs alone, without padding."""
    layer_modules: tuple[tuple[Annotated[str, Field(min_length=1)], ...], ...] | None = Field(None, min_length=1)
    """Names of the submodules of each layer, from the input to the output: [[layers.0], [layers.1, norm]]; the last one
    computes the last of `layer_names`. null: not declared, and fine-tuning cannot train some layers alone."""
    weights: str | None = None
    """A .safetensors file of the module's state dict, relative to the declaration; null: the module's own weights."""
    code_version: int = Field(1, ge=1)
    """Increase it when the same weights give other numbers."""
    citation: str = "unknown"
    """The paper of the model."""
    licence: str = "unknown"
    """Licence of the weights or the code."""
    trained_on: tuple[TrainingDataSettings, ...] | None = None
    """What the weights were trained on before: [] for nothing, null if it is not known."""

    def info(self, *, trainable: bool) -> UpstreamInfo:
        """As the contract has it."""
        return UpstreamInfo(
            name=self.name,
            kind=self.kind,
            sample_rate_hz=self.sample_rate_hz,
            hop_samples=0,
            first_center_samples=0,
            min_samples=self.min_samples,
            max_samples=self.max_samples,
            layer_names=self.layer_names,
            width=self.width,
            utterance_normalised=False,
            trainable=trainable,
            citation=self.citation,
            licence=self.licence,
        )


EXAMPLE = """\
sample_rate_hz: 16000
hop_samples: 320           # distance of two frames' centres
first_center_samples: 200  # centre of frame 0
window_samples: 400        # T samples give (T + padding_samples - window_samples) // hop_samples + 1 frames
layer_names: [last]
width: 768                 # of a frame
"""
"""What a declaration needs beside its name, with the numbers of wav2vec 2.0 BASE."""


def read_declaration(file: Path) -> Declaration | VectorDeclaration:
    """Read the declaration of a module; its `kind` decides which of the two it is.

    Raises:
        UsageError: It is not valid.
    """
    return declaration_of(load_yaml(file), file)


def declaration_of(tree: dict[str, Any], file: Path) -> Declaration | VectorDeclaration:
    """As `read_declaration`, of settings that are read already."""
    if kind_of(tree, file) == "utterance":
        return build_settings(VectorDeclaration, tree, file)
    return build_settings(Declaration, tree, file)


def kind_of(tree: dict[str, Any], file: Path) -> StateKind:
    """The `kind` of a declaration that is read already: frames where it has none.

    Raises:
        UsageError: It is neither of the two.
    """
    kind = tree.get("kind", "frames")
    if kind in get_args(StateKind):
        return "utterance" if kind == "utterance" else "frames"
    what = f"`kind` must be {' or '.join(get_args(StateKind))}, but is {kind!r}"
    raise UsageError(what, key="kind", file=file, do=did_you_mean(str(kind), get_args(StateKind)).strip() or None)
