"""From sound files to pictures on disk, for `repbench plot`."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from repbench.audio.griffinlim import LINEAR
from repbench.benchmark.features.export import naming_what_is_too_large, refuse_same_stems, sound_for
from repbench.benchmark.features.extraction import run_sounds
from repbench.benchmark.loading.upstreams import load_upstream
from repbench.benchmark.plots.attention import attention_pictures, require_attention
from repbench.benchmark.plots.canvas import FORMATS, Picture, PictureSubject, save, style
from repbench.benchmark.plots.hidden import hidden_pictures, load_mix
from repbench.benchmark.plots.spectrograms import (
    require_predictor,
    sounds_of,
    spectrogram_pictures,
    spectrograms_of,
    target_of,
)
from repbench.errors import DataError, UsageError, printable
from repbench.files import ensure_writable, write_beside
from repbench.progress import Reporter, Silence
from repbench.registry import registry
from repbench.upstream.checkpoints.factory import RUNS, NetworkFactory, locate
from repbench.upstream.checkpoints.native import Checkpoint, newest_under
from repbench.upstream.checkpoints.untrained import is_untrained
from repbench.upstream.contract import Upstream

PictureKind = Literal["reconstruction", "hidden", "attention"]
Product = Picture | tuple[str, Tensor]
"""A picture, or a name and (T,) samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlotRequest:
    """The arguments of `repbench plot`.

    Attributes:
        kind: Kind of picture.
        files: Sound files with different stems.
        upstream: Name of the model.
        checkpoint: As for `load_upstream`.
        out: Folder to write into.
        formats: png, svg or both, by commas.
        seed: Seed of hidden spans, of the phases of sound, and of untrained weights.
        resample: Whether sounds of another rate are resampled.
        weights: Folder of a run whose layer weights sum the hidden states.
        overwrite: Whether pictures and sounds of other content may be replaced.
    """

    kind: PictureKind
    files: tuple[Path, ...]
    upstream: str
    checkpoint: str | None = None
    out: Path
    formats: str = "png"
    seed: int = 0
    resample: bool = False
    weights: Path | None = None
    overwrite: bool = False


def plot(request: PlotRequest, reporter: Reporter | None = None) -> list[Path]:
    """Draw pictures of sound files; pictures are `OUT/STEM_NAME.png`, sounds `OUT/STEM_NAME.wav`.

    Args:
        request: The arguments.
        reporter: Receives progress.

    Returns:
        The files that were written.

    Raises:
        UsageError: The request is invalid, the upstream cannot be drawn this way, or a file of other content has the
            name of one to be written.
        DataError: A sound cannot be read, is too short, or has another rate and `resample` is false.
    """
    reporter = reporter or Silence()
    formats = _formats(request.formats)
    refuse_same_stems(request.files, f"_….{formats[0]}")
    checkpoint, origin = _origin(request.upstream, request.checkpoint, request.seed)
    upstream: Upstream = load_upstream(request.upstream, checkpoint=checkpoint, seed=request.seed)
    draw = _drawer(request, upstream, reporter)
    ensure_writable(request.out)
    written: list[Path] = []
    with reporter.stage(f"{upstream.info.name}: {request.kind}") as advance, style():
        for done, file in enumerate(request.files, start=1):
            with naming_what_is_too_large(file):
                samples, _ = sound_for(upstream.info, file, resample=request.resample)
                subject = PictureSubject(request.upstream, origin, file, len(samples) / upstream.info.sample_rate_hz)
                products = list(_named(draw(samples, subject), file))
            for product in products:
                written += _write(product, request, file.stem, formats, upstream.info.sample_rate_hz)
            advance(done, len(request.files))
    return written


def _formats(text: str) -> tuple[str, ...]:
    formats = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    unknown = [part for part in formats if part not in FORMATS]
    if unknown:
        what = f"There is no format `{unknown[0]}`"
        raise UsageError(what, key="--format", do=f"Choose {', '.join(FORMATS)} or both, with a comma between them")
    return formats


def _origin(name: str, checkpoint: str | None, seed: int) -> tuple[str | None, str]:
    """The checkpoint to load, and its description in titles."""
    factory = registry().find("upstream", name).entry.load()
    if checkpoint is not None and is_untrained(checkpoint):
        source = checkpoint.partition(":")[2]
        return checkpoint, f"untrained{f' ({printable(Path(source).name)})' if source else ''}, seed {seed}"
    if not isinstance(factory, NetworkFactory):
        return checkpoint, "" if checkpoint is None else printable(Path(checkpoint).name)
    if checkpoint is None:
        newest = newest_under(RUNS / factory.name)
        return (None, "") if newest is None else (str(newest.path), f"step {newest.step:,}")
    place = locate(Path(checkpoint))
    if isinstance(place, Checkpoint):
        return str(place.path), f"step {place.step:,}"
    step = factory.foreign(place, {}).step
    return checkpoint, printable(place.name) + ("" if step is None else f", step {step:,}")


Drawer = Callable[[Tensor, PictureSubject], Iterator[Product]]


def _drawer(request: PlotRequest, upstream: Upstream, reporter: Reporter) -> Drawer:
    """The function that draws one sound; refuses an unsuitable upstream before any sound is read."""
    if request.kind == "attention":
        attentive = require_attention(upstream)
        return lambda samples, subject: attention_pictures(attentive, samples, subject)
    if upstream.info.one_vector:
        what = f"`{upstream.info.name}` gives one vector an utterance: there are no frames to draw over time"
        raise UsageError(what, key="--upstream", do="Take an upstream of frames")
    if request.kind == "hidden":
        mix = None if request.weights is None else load_mix(request.weights, upstream)

        def hidden(samples: Tensor, subject: PictureSubject) -> Iterator[Product]:
            states = run_sounds(upstream, [samples], device=torch.device("cpu"), names=[str(subject.file)])
            return hidden_pictures(upstream, states.layers[:, 0].float(), subject, mix)

        return hidden
    model = require_predictor(upstream)
    if target_of(model) not in LINEAR:
        reporter.say(f"note: no sound is made of {target_of(model)}; only {' and '.join(LINEAR)} can be inverted")

    def reconstruction(samples: Tensor, subject: PictureSubject) -> Iterator[Product]:
        spectrograms = spectrograms_of(model, samples, request.seed)
        yield from spectrogram_pictures(model, spectrograms, subject)
        yield from sounds_of(model, spectrograms, samples, request.seed)

    return reconstruction


def _named(products: Iterator[Product], file: Path) -> Iterator[Product]:
    """The products; an error of the data names the file."""
    try:
        yield from products
    except DataError as error:
        raise type(error)(error.what, file=error.file or file, do=error.do) from error


def _write(product: Product, request: PlotRequest, stem: str, formats: tuple[str, ...], rate_hz: int) -> list[Path]:
    if isinstance(product, Picture):
        paths = [request.out / f"{stem}_{product.name}.{format_}" for format_ in formats]
        for path in paths:
            save(product.figure, path, overwrite=request.overwrite)
        return paths
    name, samples = product
    path = request.out / f"{stem}_{name}.wav"
    write_beside(path, _as_wav(samples, rate_hz), overwrite=request.overwrite)
    return [path]


def _as_wav(samples: Tensor, rate_hz: int) -> bytes:
    """A WAV file of 16-bit samples; a sound above full scale is scaled down to it."""
    import soundfile

    # Only down: a quiet sound stays as quiet as the model made it.
    fitting = samples / samples.abs().max().clamp_min(1.0)
    stream = io.BytesIO()
    soundfile.write(stream, fitting.numpy(), rate_hz, format="WAV", subtype="PCM_16")
    return stream.getvalue()
