"""What changes on the way of the data when an upstream reads frames instead of hearing sound.

Axes: L layers, F frames, D width, N frames of all utterances together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from repbench.benchmark.features.extraction import FeatureTable, extract, rounded, why_excluded
from repbench.benchmark.features.store import FeatureStore
from repbench.corpora.contract import Corpus, Progress, Utterance
from repbench.corpora.read import check_rates, resampler_for
from repbench.upstream.adapters.corpus_features import FrameReader
from repbench.upstream.contract import Upstream


def exclusions(upstream: Upstream) -> Callable[[Utterance], str | None]:
    """A function that says why the upstream cannot take an utterance, or None if it can."""
    return upstream.why_excluded if isinstance(upstream, FrameReader) else why_excluded(upstream.info)


def notes_of(corpus: Corpus, upstream: Upstream) -> tuple[str, ...]:
    """What a record says of the way from the sound to the frames.

    Raises:
        DataError: The sound has another rate than the upstream hears and may not be resampled.
    """
    if isinstance(upstream, FrameReader):
        return (upstream.note(),)
    return check_rates(corpus, upstream.info.name, upstream.info.sample_rate_hz)


def resampler_of(corpus: Corpus, upstream: Upstream) -> str | None:
    """What brings sounds of the corpus to the rate of the upstream; None if nothing has to, or no sound is read."""
    return None if isinstance(upstream, FrameReader) else resampler_for(corpus, upstream.info.sample_rate_hz)


def features_of(
    upstream: Upstream,
    utterances: Sequence[Utterance],
    layers: Sequence[int],
    *,
    batch_seconds: float,
    device: torch.device,
    dtype: str = "float32",
    precision: str = "float32",
    store: FeatureStore | None = None,
    progress: Progress | None = None,
) -> FeatureTable:
    """The frames of every utterance, computed or read; arguments and errors as `features.extraction.extract`.

    Frames that lie in the corpus are not stored a second time.

    Args:
        upstream: Says them, or reads them from the corpus.
        utterances: In the order the table is to have.
        layers: Which layers to keep.
        batch_seconds: Seconds of sound, padding included, that go through the upstream at once.
        device: Where the upstream lies.
        dtype: What the features are rounded to.
        precision: Of the upstream's matrix products, float32 or bfloat16.
        store: Of the upstream and dtype, where what it once said is kept; None: it is not.
        progress: Told of the utterances done.

    Raises:
        IntegrityError: Frames that are read are not those that the manifest was made of.
    """
    if store is not None:
        return store.extract(utterances, layers, batch_seconds=batch_seconds, device=device, progress=progress)
    if not isinstance(upstream, FrameReader):
        return extract(
            upstream,
            utterances,
            layers,
            batch_seconds=batch_seconds,
            device=device,
            dtype=dtype,
            precision=precision,
            progress=progress,
        )
    frames = []
    for done, utterance in enumerate(utterances, start=1):
        kept = upstream.read_frames(utterance)[list(layers)]  # (L, F, D)
        frames.append(rounded(kept, dtype, utterance.id).float())
        if progress is not None:
            progress(done, len(utterances))
    counts = tuple(each.shape[1] for each in frames)
    empty = torch.empty(len(layers), 0, upstream.info.width)
    return FeatureTable(torch.cat([empty, *frames], dim=1), counts, tuple(each.id for each in utterances))
