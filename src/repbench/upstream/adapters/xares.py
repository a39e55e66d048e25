"""`xares:MODULE:CLASS`: an encoder with the interface of X-ARES.

The class is an `nn.Module` that takes no arguments, with `sampling_rate`, `hop_size_in_ms` and `output_dim`; its
`forward` takes (B, T) and returns (B, F, D). The interface has no times: frame k is taken to be of the k-th hop, so its
centre is half a hop after its start.

Axes: B batch, T samples, F frames, D width.

Reference:
    Zhang et al., X-ARES: a comprehensive framework for assessing audio encoder performance, 2025.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from repbench.errors import PluginError, UsageError
from repbench.upstream.adapters.embedding_module import (
    EmbeddingModule,
    counted_frames,
    imported,
    network_of,
    run_quietly,
    tone,
    whole,
)
from repbench.upstream.adapters.python_module import sources_of
from repbench.upstream.checkpoints.factory import seeded
from repbench.upstream.contract import Provenance, UpstreamFactory, UpstreamInfo

CITATION = "Zhang et al., X-ARES, 2025, for the interface"


class XaresEncoder(EmbeddingModule):
    """The frames of an encoder."""

    def embedded(self, waveform: Tensor) -> Tensor:
        """(1, T) -> (F, D)."""
        return _frames(self.model(waveform), self.info.name).to(waveform.device)


def door(argument: str) -> UpstreamFactory:
    """The factory of the encoder that `xares:MODULE:CLASS` names."""
    return partial(build, argument)


def build(argument: str, *, checkpoint: str | None = None, seed: int = 0) -> XaresEncoder:
    """Build an encoder of X-ARES, and find its number of frames.

    Args:
        argument: `MODULE:CLASS`.
        checkpoint: None, as the class loads its weights.
        seed: Seed of weights that it draws where it loads none.

    Raises:
        UsageError: No class or a checkpoint is given.
        PluginError: It is no encoder of X-ARES, or fails.
    """
    name, _, attribute = argument.partition(":")
    key = f"xares:{name}:{attribute}"
    if not attribute:
        raise UsageError("The class of the encoder is missing", key="--upstream", do="Write xares:MODULE:CLASS")
    if checkpoint is not None:
        what = "An encoder of X-ARES loads its weights itself"
        raise UsageError(what, key="--checkpoint", do="Leave it out, or declare the encoder as a py: module")
    made = getattr(imported(name, "xares"), attribute, None)
    if not callable(made):
        raise PluginError(f"The module has no class `{attribute}`", key=key, do="Name the class of its encoder")
    with seeded(seed):
        model: Any = network_of(run_quietly(key, made), key)
    rate = whole(getattr(model, "sampling_rate", None), "sampling_rate", key)
    hop = _hop(getattr(model, "hop_size_in_ms", None), rate, key)

    def count(samples: int) -> int:
        return len(run_quietly(key, lambda: _frames(model(tone(samples, rate)), key)))

    counted = counted_frames(count, hop, rate, key)
    info = UpstreamInfo(
        name=key,
        sample_rate_hz=rate,
        hop_samples=hop,
        first_center_samples=hop // 2,
        min_samples=counted.min_samples,
        layer_names=("output",),
        width=whole(getattr(model, "output_dim", None), "output_dim", key),
        utterance_normalised=False,
        trainable=False,
        citation=CITATION,
        licence="unknown",
    )
    sources: set[Path] = sources_of(model, argument)
    settings = {"interface": "xares"}
    return XaresEncoder(model, info, counted, settings=settings, sources=sources, provenance=Provenance()).eval()


def _frames(returned: object, key: str) -> Tensor:
    """(1, F, D) -> (F, D)."""
    if isinstance(returned, Tensor) and returned.ndim == 3 and returned.shape[0] == 1:
        return returned[0].float()
    found = tuple(returned.shape) if isinstance(returned, Tensor) else type(returned).__name__
    what = f"`forward` must return (B, F, D), (1, F, D) for one sound, but returned {found}"
    raise PluginError(what, key=key, do="See the encoders of X-ARES, or declare it as a py: module")


def _hop(milliseconds: object, rate_hz: int, key: str) -> int:
    if not isinstance(milliseconds, int | float) or isinstance(milliseconds, bool) or not milliseconds > 0:
        what = f"`hop_size_in_ms` of the model must be above 0, but is {milliseconds!r}"
        raise PluginError(what, key=key)
    samples = milliseconds * rate_hz / 1000
    if abs(samples - round(samples)) > 1e-6 or round(samples) < 1:
        what = (
            f"`hop_size_in_ms` of {milliseconds:g} is {samples:g} samples of {rate_hz} Hz, and must be a whole number"
        )
        raise PluginError(what, key=key, do="Declare it as a py: module")
    return round(samples)
