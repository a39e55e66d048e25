"""Check of a plugin's upstream before a run: two synthetic sounds, in one batch and each alone, give the same features.

Features that depend on padding or on the other utterances of the batch are a fault that no score shows. `repbench check
upstream` tests every promise of the contract, with the functions of this file. repbench's own upstreams and adapters
are tested by its test suite; an upstream with a certificate has passed `repbench check upstream`.

Axes: L layers, F frames, D width, T samples, B batch.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from repbench.benchmark.features.extraction import run_sounds
from repbench.benchmark.loading.certificates import certificate_id
from repbench.errors import PluginError
from repbench.registry import Entry
from repbench.upstream.adapters.corpus_features import FrameReader
from repbench.upstream.adapters.embedding_module import EmbeddingModule
from repbench.upstream.contract import HiddenStates, Upstream
from repbench.upstream.windowed import unwindowed

TOLERANCE = 1e-4
"""Largest relative difference of two hidden states that count as the same, on a CPU."""

ROUGH_TOLERANCE = 1e-2
"""`TOLERANCE` on an accelerator, where convolutions may round to ten bits."""

SECONDS = (1.0, 0.4)
"""Durations of the two sounds, within the bounds of the upstream; the second is padded in their batch."""


def check_invariance(upstream: Upstream, entry: Entry, fingerprint: str, device: torch.device) -> None:
    """Check that a plugin's upstream without a certificate gives the same features in a batch, alone, and twice.

    Args:
        upstream: Model in eval mode, on `device`.
        entry: Registry entry of the upstream.
        fingerprint: Fingerprint of the upstream.
        device: Device of the upstream.

    Raises:
        PluginError: The features differ; names the promise that is broken.
    """
    upstream = unwindowed(upstream)
    # Behind a door of repbench may be code of others.
    if isinstance(upstream, FrameReader) or (entry.builtin and not isinstance(upstream, EmbeddingModule)):
        return
    if certificate_id("upstream", fingerprint, upstream.info, entry.file_sha256()) is not None:
        return
    allowed = TOLERANCE if device.type == "cpu" else ROUGH_TOLERANCE
    for promise, what, found in _differences(upstream, device):
        if found > allowed:
            raise PluginError(
                f"The promise `{promise}` is broken: the hidden states of {what} differ by {found:.1e} of their root "
                f"mean square, and {allowed:g} is allowed",
                key=upstream.info.name,
                do=_DO[promise],
            )


def _differences(upstream: Upstream, device: torch.device) -> Iterator[tuple[str, str, float]]:
    """For each promise its name, the compared inputs in words, and the relative difference of the features."""
    info = upstream.info
    wanted = (max(each * info.sample_rate_hz, info.min_samples) for each in SECONDS)
    lengths = [int(min(each, info.max_samples or math.inf)) for each in wanted]
    names = [f"a synthetic voice of {length} samples" for length in lengths]

    def features(*which: int) -> list[Tensor]:
        """The (L, F, D) of some of the sounds, in one batch."""
        sounds = [speech_like(lengths[each], info.sample_rate_hz, seed=each) for each in which]
        return valid(run_sounds(upstream, sounds, device=device, names=[names[each] for each in which]))

    (long,), (again,) = features(0), features(0)
    scale = root_mean_square(long)
    yield "deterministic", f"{names[0]} twice", relative_difference(long, again, scale)
    if info.batch_invariant:
        (short,), (batched, padded) = features(1), features(0, 1)
        what = f"{names[0]}, in a batch with a shorter one and alone,"
        yield "batch-invariant", what, relative_difference(long, batched, scale)
        what = f"{names[1]}, padded in a batch with a longer one and alone,"
        yield "padding-invariant", what, relative_difference(short, padded, scale)


_INVARIANT = "Mask what is padded, or declare `batch_invariant=False`, and each utterance is run alone"
_DO = {
    "deterministic": "Draw nothing in eval mode; `repbench check upstream` names every promise that is broken",
    "batch-invariant": _INVARIANT,
    "padding-invariant": _INVARIANT,
}


@functools.lru_cache(maxsize=32)
def speech_like(num_samples: int, rate_hz: int, seed: int) -> Tensor:
    """A synthetic voice: gliding harmonics, syllables at 4 Hz and noise.

    Returns:
        (T,) float32 in [-1, 1], cached: not to be written to.
    """
    generator = torch.Generator().manual_seed(seed)
    times = torch.arange(num_samples, dtype=torch.float64) / rate_hz
    pitch, phase, glide = (float(each) for each in torch.rand(3, generator=generator, dtype=torch.float64))
    angle = 2 * math.pi * ((90 + 120 * pitch) * times + 10 * glide * torch.sin(2 * math.pi * 0.7 * times))
    voice = torch.stack([torch.sin(number * angle) / number for number in range(1, 12)]).sum(dim=0)
    syllables = 0.55 + 0.45 * torch.sin(2 * math.pi * (4 * times + phase))
    breath = torch.randn(num_samples, generator=generator, dtype=torch.float64)
    return (0.2 * syllables * voice + 0.02 * breath).clamp(-1, 1).float()


def valid(states: HiddenStates) -> list[Tensor]:
    """The (L, F, D) of each utterance without its padding, float32 on the CPU."""
    layers = states.layers.float().cpu()
    return [layers[:, row, :count] for row, count in enumerate(states.lengths.tolist())]


def root_mean_square(states: Tensor) -> Tensor:
    """Root mean square of the finite values of each layer: (L, F, D) -> (L,)."""
    finite = states.isfinite()
    counts = finite.sum(dim=(1, 2)).clamp_min(1)
    return (states.masked_fill(~finite, 0.0).double().square().sum(dim=(1, 2)) / counts).sqrt()  # (L,)


def relative_difference(reference: Tensor, other: Tensor, scale: Tensor) -> float:
    """Largest difference of two (L, F, D), relative to the (L,) scale of the layers.

    Infinite if the shapes differ, or a value is finite in one of them only.
    """
    if reference.shape != other.shape:
        return math.inf
    same = (reference == other) | (reference.isnan() & other.isnan())
    gap = (reference.double() - other.double()).abs().masked_fill(same, 0.0).nan_to_num(nan=math.inf)
    if not gap.numel():
        return 0.0
    largest = gap.amax(dim=(1, 2))  # (L,)
    return float(torch.where(largest > 0, largest / scale, 0.0).max())
