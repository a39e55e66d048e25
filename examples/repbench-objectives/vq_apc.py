"""VQ-APC: APC whose last states pass through a codebook before they predict.

    Chung, Tang, Glass: Vector-Quantized Autoregressive Predictive Coding, arXiv:2005.08392

A code is drawn for each frame by Gumbel-softmax in training, and is the likeliest one afterwards.

Axes: L layers, B batch, T samples, F frames, D width of the input, H width of the hidden states, V codes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from repbench.audio.frames import valid_mask
from repbench.audio.frontends import front_end
from repbench.configs.settings import Positive, PositiveInt, Settings
from repbench.upstream.apc.objective import shifted_distance
from repbench.upstream.checkpoints.factory import NetworkFactory
from repbench.upstream.contract import Batch, HiddenStates, Loss
from repbench.upstream.spectrograms import SpectrogramNetwork

CITATION = "Chung et al., Vector-Quantized Autoregressive Predictive Coding, Interspeech 2020, arXiv:2005.08392"


class VqApcConfig(Settings):
    """All settings of a VQ-APC. The defaults are those of the paper."""

    front_end: str = "fbank80"
    """Front end of input and target."""
    hidden_size: PositiveInt = 512
    """Width of the hidden states."""
    num_layers: PositiveInt = 3
    """Number of GRUs; the codebook follows the last one."""
    codes: PositiveInt = 512
    """Number of codes."""
    temperature: Positive = 1.0
    """Of the Gumbel-softmax."""
    time_shift: PositiveInt = 5
    """Frames from an input to its target."""


PRESETS = {
    "base": {"training": {"steps": 100_000}},
    "tiny": {  # minutes on two cores
        "hidden_size": 256,
        "codes": 128,
        "time_shift": 3,
        "training": {
            "steps": 400,
            "batch_frames": 4800,
            "crop_frames": 150,
            "min_frames": 8,
            "optimizer": {"learning_rate": 0.002, "betas": [0.9, 0.98]},
            "dev_every": 100,
            "save_every": 200,
            "log_every": 10,
        },
    },
}


class QuantisedPrediction:
    """The objective of a `VqApc`: the L1 distance to the frame n ahead, predicted from codes.

    Args:
        model: The model to train.
    """

    def __init__(self, model: VqApc) -> None:
        self._model = model

    @property
    def min_frames(self) -> int:
        """One frame, and the frame that is predicted from it."""
        return self._model.settings.time_shift + 1

    def frames(self, waveforms: Tensor, lengths: Tensor) -> Batch:
        """(B, T) waveforms with (B,) lengths -> the frames (B, F, D) of the front end."""
        return Batch(*self._model.front_end(waveforms, lengths))

    def num_frames(self, num_samples: int) -> int:
        """Frames of the front end."""
        return self._model.front_end.num_frames(num_samples)

    def loss(self, batch: Batch, generator: torch.Generator) -> Loss:
        """Distance of (B, F, D) to the frames n ahead; codes are drawn from `generator` while the model trains."""
        valid = valid_mask(batch.lengths, batch.values.shape[1])  # (B, F)
        frames = batch.values.masked_fill(~valid[..., None], 0.0)
        scores = self._model.scores(self._model.states(frames)[-1])  # (B, F, V)
        chosen = self._chosen(scores, generator) if self._model.training else hard(scores)
        predicted = self._model.predict(chosen @ self._model.codebook)
        loss = shifted_distance(predicted, frames, batch.lengths, self._model.settings.time_shift)
        used = hard(scores)[valid].any(dim=0).sum()  # (frames, V) -> (V,) -> ()
        return Loss(value=loss.value, weight=loss.weight, logs={"codes_used": float(used)})

    def figures(self, batch: Batch) -> Mapping[str, Tensor]:
        """The target, the prediction (F - n, D) and the codes (F, V) of the first utterance."""
        shift, count = self._model.settings.time_shift, int(batch.lengths[0])
        codes = hard(self._model.scores(self._model.states(batch.values[:1, :count])[-1]))
        predicted = self._model.predict(codes @ self._model.codebook)[0, : max(count - shift, 0)]
        return {"true": batch.values[0, shift:count], "predicted": predicted, "codes": codes[0]}

    def _chosen(self, scores: Tensor, generator: torch.Generator) -> Tensor:
        """One code a frame (B, F, V), one-hot forward; backward the softmax of the same draw."""
        uniform = torch.rand(scores.shape, generator=generator, device=scores.device)
        # -log(-log u), kept from log 0 at both ends
        gumbel = -(-uniform.clamp(1e-6, 1 - 1e-6).log()).log()
        return straight_through((scores.float() + gumbel) / self._model.settings.temperature)


def hard(scores: Tensor) -> Tensor:
    """One-hot vectors of the largest of each V: (…, V) -> (…, V)."""
    return nn.functional.one_hot(scores.argmax(dim=-1), scores.shape[-1]).to(scores.dtype)


def straight_through(scores: Tensor) -> Tensor:
    """As `hard`, with the gradient of the softmax: (…, V) -> (…, V)."""
    soft = scores.softmax(dim=-1)
    return hard(scores) + (soft - soft.detach())  # the bracket is 0 to the last bit


class VqApc(SpectrogramNetwork[VqApcConfig]):
    """Front end, GRUs and a codebook; the layers are the outputs of the GRUs, and the codes of the last as vectors.

    Args:
        settings: All settings.
    """

    runs_concurrently = True

    def __init__(self, settings: VqApcConfig) -> None:
        super().__init__(
            "vq-apc",
            settings,
            front_end(settings.front_end),
            layer_names=(*(f"gru{number}" for number in range(1, settings.num_layers + 1)), "codes"),
            width=settings.hidden_size,
            citation=CITATION,
        )
        width = settings.hidden_size
        widths = [self.front_end.width, *[width] * (settings.num_layers - 1)]
        self.grus = nn.ModuleList(nn.GRU(each, width, batch_first=True) for each in widths)
        self.scores = nn.Linear(width, settings.codes)
        self.codebook = nn.Parameter(torch.randn(settings.codes, width) / width**0.5)  # (V, H)
        self.predict = nn.Linear(width, self.front_end.width)

    @property
    def objective(self) -> QuantisedPrediction:
        """Prediction of the frame n steps ahead, from codes."""
        return QuantisedPrediction(self)

    def states(self, frames: Tensor) -> list[Tensor]:
        """(B, F, D) -> the output of each GRU, from the second on with its input added: each (B, F, H)."""
        every: list[Tensor] = []
        for gru in self.grus:
            output, _ = gru(every[-1] if every else frames)
            every.append(output + every[-1] if every else output)
        return every

    def encode(self, frames: Tensor, lengths: Tensor) -> HiddenStates:
        """(B, F, D) -> the output of each GRU and the vector of each frame's code: (L, B, F, H)."""
        padding = ~valid_mask(lengths, frames.shape[1])[..., None]  # (B, F, 1)
        every = self.states(frames)
        every.append(straight_through(self.scores(every[-1])) @ self.codebook)
        return HiddenStates(torch.stack(every).masked_fill(padding, 0.0), lengths)


def untrained(settings: VqApcConfig, names: Sequence[str] | None = None, seed: int = 0) -> VqApc:
    """A VQ-APC with initial weights from the generator that `NetworkFactory` seeds."""
    return VqApc(settings)


vq_apc = NetworkFactory(name="vq-apc", settings=VqApcConfig, untrained=untrained, own_presets=PRESETS)
"""The entry point."""

upstreams = {"vq-apc": vq_apc}
"""For `--plugin vq_apc.py`."""
