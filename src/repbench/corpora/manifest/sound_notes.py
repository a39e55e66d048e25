"""Notes on the sounds of a corpus: channels, lossy formats, unknown lengths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from repbench.audio.sound import Measure
from repbench.corpora.contract import Utterance


def notes_on_sounds(utterances: Sequence[Utterance], measures: Sequence[Measure]) -> Iterator[str]:
    """Notes on the decoding of the sounds.

    Args:
        utterances: The utterances of the corpus.
        measures: Measures of their sounds, in the same order.
    """
    yield from notes_on_channels(utterances)
    lossy = Counter(measured.kind for measured in measures if measured.is_lossy)
    if lossy:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(lossy.items()))
        yield (
            f"{lossy.total()} of {len(measures)} sounds are lossy ({kinds}): their samples are those that libsndfile "
            f"{_libsndfile()} decodes, clipped to [-1, 1]"
        )
    num_streams = sum(measured.is_stream for measured in measures)
    if num_streams:
        yield f"{num_streams} of {len(measures)} sounds do not say how long they are: one cut short would look whole"


def notes_on_channels(utterances: Iterable[Utterance]) -> Iterator[str]:
    """Notes on the channels that are read of sounds of several."""
    channels = [utterance.channel for utterance in utterances]
    for channel, count in sorted(Counter(channels).items(), key=str):
        if channel is not None:
            read = "their mean is read" if channel == "mix" else f"channel {channel} is read"
            yield f"{count} of {len(channels)} sounds have several channels: {read}"


def _libsndfile() -> str:
    import soundfile

    version: str = soundfile.__libsndfile_version__
    return version
