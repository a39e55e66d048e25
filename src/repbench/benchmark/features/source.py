"""The features of utterances, from one of three sources: the feature store, the upstream, or frames in the corpus.

Axes: L layers, F frames, D width, N frames of all utterances together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from repbench.benchmark.features.extraction import ExtractionOptions, extract, why_excluded
from repbench.benchmark.features.forward import rounded
from repbench.benchmark.features.store import FeatureStore
from repbench.benchmark.features.table import FeatureTable
from repbench.corpora.contract import Corpus, Progress, Utterance
from repbench.corpora.read import check_rates, resampler_for, samples_at
from repbench.upstream.adapters.corpus_features import FrameReader
from repbench.upstream.contract import Upstream
from repbench.upstream.windowed import windows_of


def exclusions(upstream: Upstream) -> Callable[[Utterance], str | None]:
    """A function from an utterance to the reason why the upstream cannot take it, or None if it can."""
    return upstream.why_excluded if isinstance(upstream, FrameReader) else why_excluded(upstream.info)


def notes_of(corpus: Corpus, upstream: Upstream) -> tuple[str, ...]:
    """Notes for a record on how the sound became frames: resampled, in windows, or read as frames from the corpus.

    Raises:
        DataError: The sound has another rate than the upstream and may not be resampled.
    """
    if isinstance(upstream, FrameReader):
        return (upstream.note(),)
    rates = check_rates(corpus, upstream.info.name, upstream.info.sample_rate_hz)
    return (*rates, *_note_on_windows(corpus, upstream))


def _note_on_windows(corpus: Corpus, upstream: Upstream) -> tuple[str, ...]:
    """A note on the utterances that are read in windows."""
    rate_hz = upstream.info.sample_rate_hz
    windows = [some for each in corpus.utterances if (some := windows_of(upstream, samples_at(each, rate_hz)))]
    if not windows:
        return ()
    read = f"{len(windows)} of {len(corpus.utterances)} utterances are longer and are read in {windows[0].line()}"
    return (f"{upstream.info.name} gets at most {windows[0].seconds:g} s at once: {read}; each frame sees its window",)


def resampler_of(corpus: Corpus, upstream: Upstream) -> str | None:
    """Name of the resampler from the corpus's rate to the upstream's; None if they agree or no sound is read."""
    return None if isinstance(upstream, FrameReader) else resampler_for(corpus, upstream.info.sample_rate_hz)


def features_of(
    upstream: Upstream,
    utterances: Sequence[Utterance],
    layers: Sequence[int],
    options: ExtractionOptions,
    *,
    store: FeatureStore | None = None,
    progress: Progress | None = None,
    pageable: bool = True,
) -> FeatureTable:
    """The features of every utterance, computed or read; errors as `features.extraction.extract`.

    Frames in the corpus are not stored a second time.

    Args:
        upstream: Computes the features, or reads them from the corpus.
        utterances: Utterances, in the order of the table.
        layers: Indices of the layers to keep.
        options: How the features are computed.
        store: Feature store of the upstream, with the dtype and precision of the options; None: nothing is stored.
        progress: Called with (utterances done, all utterances).
        pageable: Whether a large table is in a file, whose pages the system may write back; a table that is dropped
            soon is better in memory.

    Raises:
        IntegrityError: Frames in the corpus are not those that the manifest was made of.
    """
    if store is not None:
        return store.extract(utterances, layers, options, progress=progress, pageable=pageable)
    if not isinstance(upstream, FrameReader):
        return extract(upstream, utterances, layers, options, progress=progress)
    frames = []
    for done, utterance in enumerate(utterances, start=1):
        kept = upstream.read_frames(utterance)[list(layers)]  # all layers (L', F, D) -> (L, F, D)
        frames.append(rounded(kept, options.dtype, utterance.id).float())
        if progress is not None:
            progress(done, len(utterances))
    counts = tuple(each.shape[1] for each in frames)
    empty = torch.empty(len(layers), 0, upstream.info.width)
    return FeatureTable(torch.cat([empty, *frames], dim=1), counts, tuple(each.id for each in utterances))
