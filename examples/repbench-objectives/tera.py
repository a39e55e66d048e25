"""TERA: a Transformer that restores spectrograms which were altered in time, channels and magnitude.

    Liu, Li, Lee: TERA: Self-Supervised Learning of Transformer Encoder Representation for Speech, arXiv:2007.06028

Axes: L layers, B batch, T samples, F frames, D width of the input, H width of the hidden states.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from repbench.audio.frames import valid_mask
from repbench.audio.frontends import front_end
from repbench.configs.settings import NonNegativeInt, PositiveInt, Probability, Settings
from repbench.upstream.checkpoints.factory import NetworkFactory
from repbench.upstream.contract import Batch, HiddenStates, Loss
from repbench.upstream.spectrograms import SpectrogramNetwork

CITATION = "Liu et al., TERA, IEEE/ACM TASLP 2021, arXiv:2007.06028"


class AlterationSettings(Settings):
    """What happens to the input; the defaults are those of the paper."""

    time_proportion: Probability = 0.15
    """Share of the frames that are altered in time."""
    span_frames: PositiveInt = 7
    """Frames of a span that is altered in time."""
    zeroed: Probability = 0.8
    """Share of utterances whose spans become zero."""
    replaced: Probability = 0.1
    """Share of utterances whose spans become those of another time; the spans of the others stay as they are."""
    channels: NonNegativeInt = 16
    """Largest width of the band of channels that becomes zero; the width is drawn from 0 to it."""
    noise_proportion: Probability = 0.15
    """Share of utterances whose magnitudes are altered by noise."""
    noise_deviation: float = 0.2
    """Standard deviation of that noise."""


class TeraConfig(Settings):
    """All settings of a TERA. The defaults are those of the paper's base model."""

    front_end: str = "fbank80"
    """Front end of input and target."""
    hidden_size: PositiveInt = 768
    """Width of the hidden states."""
    num_layers: PositiveInt = 3
    """Number of encoder layers."""
    num_heads: PositiveInt = 12
    """Attention heads; a divisor of the width."""
    feed_forward_size: PositiveInt = 3072
    """Width of the feed-forward layers."""
    dropout: Probability = 0.1
    """Dropout probability within the encoder layers."""
    alteration: AlterationSettings = AlterationSettings()
    """What happens to the input."""


PRESETS = {
    "base": {"training": {"steps": 200_000}},
    "tiny": {  # minutes on two cores
        "hidden_size": 192,
        "num_heads": 4,
        "feed_forward_size": 768,
        "dropout": 0.0,
        "training": {
            "steps": 600,
            "batch_frames": 4800,
            "crop_frames": 150,
            "min_frames": 16,
            "optimizer": {"learning_rate": 0.002, "betas": [0.9, 0.98]},
            "dev_every": 100,
            "save_every": 300,
            "log_every": 20,
        },
    },
}


@dataclass(frozen=True, slots=True)
class Altered:
    """Altered frames.

    Attributes:
        frames: (B, F, D); zero past each length.
        where: (B, F, D) bool, the values that the network has to restore.
    """

    frames: Tensor
    where: Tensor


def alter(frames: Tensor, lengths: Tensor, settings: AlterationSettings, generator: torch.Generator) -> Altered:
    """Alter each utterance in time, channels and magnitude.

    Args:
        frames: (B, F, D).
        lengths: (B,) valid frames.
        settings: How much is altered.
        generator: On the device of the frames; everything is drawn from it.
    """
    batch, num_frames, width = frames.shape
    valid = valid_mask(lengths, num_frames)  # (B, F)

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=frames.device)

    # Starts of spans without repetition: the spans with the smallest of so many random keys as there are frames.
    span = torch.minimum(torch.full_like(lengths, settings.span_frames), lengths - 1)  # (B,): a frame stays
    wanted = (lengths * settings.time_proportion / span).round().clamp_min(1)
    times = torch.arange(num_frames, device=frames.device)
    keys = draw(batch, num_frames).masked_fill(times > (lengths - span)[:, None], 2.0)
    starts = (keys.argsort(dim=1).argsort(dim=1) < wanted[:, None]) & (keys < 1)  # (B, F)
    since = times - times.expand_as(starts).masked_fill(~starts, -num_frames).cummax(dim=1).values
    spans = (since < span[:, None]) & valid  # (B, F)

    kind = draw(batch)
    # A span that is replaced holds the frames of the utterance that lie a drawn distance later, round its end.
    distance = (1 + draw(batch) * (lengths - 1)).floor().long()  # (B,)
    other = (times + distance[:, None]) % lengths[:, None]  # (B, F)
    moved = frames.gather(1, other[..., None].expand_as(frames))  # (B, F) -> (B, F, D)
    replaced = (kind >= settings.zeroed) & (kind < settings.zeroed + settings.replaced)
    altered = torch.where((spans & replaced[:, None])[..., None], moved, frames)
    altered = altered.masked_fill((spans & (kind < settings.zeroed)[:, None])[..., None], 0.0)

    band_width = (draw(batch) * (min(settings.channels, width) + 1)).floor().long()  # (B,)
    lowest = (draw(batch) * (width - band_width + 1)).floor().long()
    channels = torch.arange(width, device=frames.device)
    band = (channels >= lowest[:, None]) & (channels < (lowest + band_width)[:, None])  # (B, D)
    altered = altered.masked_fill(band[:, None], 0.0)

    noisy = draw(batch) < settings.noise_proportion
    noise = torch.randn(frames.shape, generator=generator, device=frames.device)
    altered = altered + noisy[:, None, None] * settings.noise_deviation * noise

    # (B, F, 1), (B, 1, D) and (B, 1, 1) -> (B, F, D)
    where = (spans[..., None] | band[:, None] | noisy[:, None, None]) & valid[..., None]
    return Altered(altered.masked_fill(~valid[..., None], 0.0), where)


class AlteredReconstruction:
    """The objective of a `Tera`: the L1 distance of the restored values to what they were.

    Args:
        model: The model to train.
    """

    min_frames = 2

    def __init__(self, model: Tera) -> None:
        self._model = model

    def frames(self, waveforms: Tensor, lengths: Tensor) -> Batch:
        """(B, T) waveforms with (B,) lengths -> the frames (B, F, D) of the front end."""
        return Batch(*self._model.front_end(waveforms, lengths))

    def num_frames(self, num_samples: int) -> int:
        """Frames of the front end."""
        return self._model.front_end.num_frames(num_samples)

    def loss(self, batch: Batch, generator: torch.Generator) -> Loss:
        """Mean distance over the altered values of (B, F, D)."""
        altered = alter(batch.values, batch.lengths, self._model.settings.alteration, generator)
        restored = self._model.restored(altered.frames, batch.lengths).float()
        distance = (restored - batch.values).abs()[altered.where]  # (B, F, D) -> (altered values,)
        return Loss(value=distance.sum() / max(len(distance), 1), weight=float(len(distance)))

    def figures(self, batch: Batch) -> Mapping[str, Tensor]:
        """The first utterance altered, restored and as it is, each (F, D)."""
        count = int(batch.lengths[0])
        frames, lengths = batch.values[:1, :count], batch.lengths[:1]
        generator = torch.Generator(frames.device).manual_seed(0)
        altered = alter(frames, lengths, self._model.settings.alteration, generator)
        restored = self._model.restored(altered.frames, lengths)
        return {"altered": altered.frames[0], "restored": restored[0].float(), "true": frames[0]}


class Tera(SpectrogramNetwork[TeraConfig]):
    """Front end, Transformer encoder and a head that restores frames; the layers are the input and each encoder layer.

    Args:
        settings: All settings.
    """

    runs_concurrently = True

    def __init__(self, settings: TeraConfig) -> None:
        super().__init__(
            "tera",
            settings,
            front_end(settings.front_end),
            layer_names=("input", *(f"layer{number}" for number in range(1, settings.num_layers + 1))),
            width=settings.hidden_size,
            citation=CITATION,
        )
        width = settings.hidden_size
        self.project = nn.Linear(self.front_end.width, width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width,
                settings.num_heads,
                settings.feed_forward_size,
                settings.dropout,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(settings.num_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width), nn.Linear(width, self.front_end.width)
        )

    @property
    def objective(self) -> AlteredReconstruction:
        """Reconstruction of altered frames."""
        return AlteredReconstruction(self)

    def encode(self, frames: Tensor, lengths: Tensor) -> HiddenStates:
        """(B, F, D) -> the input representation and each encoder layer: (L, B, F, H)."""
        padding = ~valid_mask(lengths, frames.shape[1])
        layers = torch.stack(self._states(frames, padding))  # L times (B, F, H) -> (L, B, F, H)
        return HiddenStates(layers.masked_fill(padding[..., None], 0.0), lengths)

    def restored(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """(B, F, D) altered frames -> (B, F, D) as the head restores them."""
        last = self._states(frames, ~valid_mask(lengths, frames.shape[1]))[-1]
        restored: Tensor = self.head(self.norm(last))
        return restored

    def _states(self, frames: Tensor, padding: Tensor) -> list[Tensor]:
        """(B, F, D) with (B, F) true at padding -> L times (B, F, H)."""
        states = self.project(frames) + positions(frames.shape[1], self.settings.hidden_size, frames.device)
        every = [states]
        for layer in self.layers:
            states = layer(states, src_key_padding_mask=padding)
            every.append(states)
        return every


def positions(num_frames: int, width: int, device: torch.device) -> Tensor:
    """Sines and cosines of the time at frequencies from 1 to 1/10000 radians a frame: (F, H)."""
    times = torch.arange(num_frames, device=device, dtype=torch.float32)[:, None]  # (F, 1)
    rates = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10_000.0) / width))  # (H / 2,)
    angles = times * rates  # (F, H / 2)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width]


def untrained(settings: TeraConfig, names: Sequence[str] | None = None, seed: int = 0) -> Tera:
    """A TERA with torch's initial weights, drawn from the generator that `NetworkFactory` seeds."""
    return Tera(settings)


tera = NetworkFactory(name="tera", settings=TeraConfig, untrained=untrained, own_presets=PRESETS)
"""The entry point."""

upstreams = {"tera": tera}
"""For `--plugin tera.py`."""
