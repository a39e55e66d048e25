"""`precomputed`: the features column of a corpus as an upstream; and the base of upstreams that read stored frames.

Other upstreams have their own declaration. The declaration of this one is in the corpus, so it is built in two steps:
`precomputed` gives a `Precomputed` without declaration, and `bound_to(corpus)` gives the upstream.

Axes: L layers, F frames, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from repbench.audio.feature_files import read_features
from repbench.corpora.contract import Corpus, FeatureDeclaration, Utterance
from repbench.corpora.manifest.feature_column import refuse_unfit_frames
from repbench.errors import DataError, UsageError
from repbench.upstream.contract import HiddenStates, Upstream, UpstreamInfo, fingerprint_of

_CLOCKS_HZ = (16_000, 1_000_000)
"""Sample rates tried for a hop, in this order: the rate of most upstreams, then microseconds."""


@runtime_checkable
class BoundToCorpus(Protocol):
    """The result of an entry point whose upstream depends on the corpus."""

    def bound_to(self, corpus: Corpus) -> Upstream:
        """The upstream for this corpus.

        Raises:
            DataError: The corpus lacks the features that it needs.
        """
        ...


@runtime_checkable
class FrameReader(Protocol):
    """An upstream that reads the frames of an utterance from a file."""

    info: UpstreamInfo

    def why_excluded(self, utterance: Utterance) -> str | None:
        """The reason why the utterance has no frames; None if it has."""
        ...

    def read_frames(self, utterance: Utterance) -> Tensor:
        """The frames (L, F, D) float32 of an utterance that is not excluded.

        Raises:
            DataError: They are missing, or do not fit the declaration or the sound.
            IntegrityError: They changed since the manifest was made or since they were first read.
        """
        ...

    def note(self) -> str:
        """A sentence about the frames, for the record."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredModel:
    """The model of stored features or units, where their folder declares its name.

    Features of one model on two corpora are other files with another fingerprint; by this they are one system.

    Attributes:
        name: As declared.
        model: What identifies its weights, as declared: a SHA-256, a release; None: not declared.
        hop_seconds: Distance of two frames' centres, in seconds; None for one vector an utterance.
        first_center_seconds: Centre of frame 0, in seconds; None for one vector an utterance.
        width: D.
        num_units: Number of units; None for features.
        form: How a unit is given; None for features.
    """

    name: str
    model: str | None
    hop_seconds: float | None
    first_center_seconds: float | None
    width: int
    num_units: int | None = None
    form: str | None = None

    @classmethod
    def of(
        cls,
        info: UpstreamInfo,
        name: str | None,
        model: str | None,
        *,
        num_units: int | None = None,
        form: str | None = None,
    ) -> DeclaredModel | None:
        """The model that a folder declares; None where it declares no name."""
        if name is None:
            return None
        return cls(
            name=name,
            model=model,
            hop_seconds=None if info.one_vector else info.hop_samples / info.sample_rate_hz,
            first_center_seconds=None if info.one_vector else info.first_center_samples / info.sample_rate_hz,
            width=info.width,
            num_units=num_units,
            form=form,
        )

    def words(self) -> str:
        """Name and model, for notes."""
        return f"`{self.name}`" if self.model is None else f"`{self.name}`, model {self.model}"


def declared_model_of(upstream: object) -> DeclaredModel | None:
    """The model that the folder of an upstream's files declares; None for every other upstream."""
    declared = getattr(upstream, "declared_model", None)
    return declared if isinstance(declared, DeclaredModel) else None


class StoredFrames(nn.Module):
    """The base of upstreams that read frames: `num_frames` and `forward` do not exist for them.

    Args:
        info: The declaration.

    Attributes:
        declared_model: The model that the folder of the files declares by name; None where it declares none.
    """

    code_version = 1
    declared_model: DeclaredModel | None = None

    def __init__(self, info: UpstreamInfo) -> None:
        super().__init__()
        self.info = info

    def num_frames(self, num_samples: int) -> int:
        """Not a function of the number of samples.

        Raises:
            UsageError: Always.
        """
        raise self._no_sound()

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        """Not a function of waveforms (B, T).

        Raises:
            UsageError: Always.
        """
        raise self._no_sound()

    def _no_sound(self) -> UsageError:
        what = f"`{self.info.name}` reads stored frames and computes nothing from sound"
        return UsageError(what, key="--upstream", do="Give it to `repbench run` with the corpus that has the frames")


class Precomputed:
    """The features of a corpus that is not known yet."""

    def bound_to(self, corpus: Corpus) -> PrecomputedFrames:
        """The upstream that reads the features of this corpus.

        Raises:
            DataError: The corpus has no features.
        """
        if corpus.features is None:
            raise DataError(
                f"The corpus {corpus.name} has no precomputed features",
                key="features",
                do="Prepare it from a table with a column `features` and --features-hop",
            )
        return PrecomputedFrames(corpus.features)


class PrecomputedFrames(StoredFrames):
    """The features column of a corpus as an upstream of one layer.

    Args:
        declared: The declaration of the corpus.
    """

    def __init__(self, declared: FeatureDeclaration) -> None:
        rate_hz, hop, first_center = _clock(declared)
        info = UpstreamInfo(
            name="precomputed",
            sample_rate_hz=rate_hz,
            hop_samples=hop,
            first_center_samples=first_center,
            min_samples=1,
            layer_names=(declared.name,),
            width=declared.width,
            utterance_normalised=False,
            trainable=False,
            citation="unknown",
            licence="unknown",
        )
        super().__init__(info)
        self.declared = declared

    def why_excluded(self, utterance: Utterance) -> str | None:
        """The reason why the utterance has no frames; None if it has."""
        return "no precomputed features" if utterance.features is None else None

    def read_frames(self, utterance: Utterance) -> Tensor:
        """The frames (1, F, D) of an utterance; errors as in `FrameReader`."""
        assert utterance.features is not None
        frames = read_features(utterance.features, utterance=utterance.id, sha256=utterance.features_sha256)
        refuse_unfit_frames(utterance, frames.shape[0], frames.shape[1], self.declared)
        return torch.from_numpy(frames)[None]  # (F, D) -> (1, F, D)

    def note(self) -> str:
        """A sentence about the frames, for the record."""
        declared = self.declared
        return (
            f"frames are the corpus's precomputed features `{declared.name}`, every {declared.hop_seconds:g} s as "
            f"declared, from {declared.first_center_seconds:g} s"
        )

    def fingerprint(self) -> str:
        """SHA-256 of the declaration; the bytes of the frames are part of the corpus's fingerprint."""
        declared = self.declared
        config = {
            "features": declared.name,
            "width": declared.width,
            "hop_seconds": declared.hop_seconds,
            "first_center_seconds": declared.first_center_seconds,
        }
        return fingerprint_of(self, config, self.code_version)


def precomputed(*, checkpoint: str | None = None, seed: int = 0) -> Precomputed:
    """The features of the corpus of `repbench run`.

    Raises:
        UsageError: A checkpoint is given.
    """
    if checkpoint is not None:
        do = "Leave --checkpoint out; the frames are in the corpus"
        raise UsageError("`precomputed` has no weights to load", key="--checkpoint", do=do)
    return Precomputed()


def _clock(declared: FeatureDeclaration) -> tuple[int, int, int]:
    """A rate in hertz at which hop and first centre are whole numbers of samples, with both in samples.

    Raises:
        DataError: They are not whole microseconds.
    """
    for rate_hz in _CLOCKS_HZ:
        # By `repr`, the shortest decimal that reads back: 1/100 for 0.01; Fraction(0.01) has the denominator 2^59.
        hop = Fraction(repr(declared.hop_seconds)) * rate_hz
        first_center = Fraction(repr(declared.first_center_seconds)) * rate_hz
        if hop.denominator == first_center.denominator == 1:
            return rate_hz, int(hop), int(first_center)
    what = (
        f"The hop ({declared.hop_seconds!r} s) and first centre ({declared.first_center_seconds!r} s) of the features "
        "must be whole microseconds"
    )
    raise DataError(what, key="features", do="Prepare the corpus again with a rounded --features-hop")
