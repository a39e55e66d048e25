"""Pre-trainings that take a second, and upstreams to try the trainer with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repbench.benchmark.pipeline.pretrain import PretrainRequest
from repbench.corpora.contract import Corpus, Utterance
from repbench.testing import tone_corpus
from repbench.testing.fakes import Envelope
from repbench.upstream.contract import Batch, Loss
from repbench.upstream.pretraining.settings import TrainingSettings
from repbench.upstream.pretraining.trainer import Describe, Trainer

BATCHES_PER_EPOCH = 4
"""Of the requests below: 8 utterances of train, two in a batch."""

_TRAINING = {
    "batch_frames": 90,
    "crop_frames": 40,
    "curriculum": "[]",
    "dev_every": 1000,
    "save_every": 1000,
    "log_every": 1,
}
_MODEL: dict[str, dict[str, Any]] = {
    "apc": {"hidden_size": 16, "num_layers": 2, "dropout": 0.1},
    "mockingjay": {
        "hidden_size": 16,
        "num_layers": 1,
        "num_heads": 2,
        "feed_forward_size": 32,
        "downsample_rate": 1,
        "hidden_dropout": 0.1,
        "attention_dropout": 0.1,
        "masking.consecutive": 3,
    },
}


def small_corpus(folder: Path) -> Corpus:
    """16 utterances of a second and a half by 4 speakers: 8 are train, 4 dev, 4 test."""
    return tone_corpus(folder, num_speakers=4, sessions=1, per_session=4)


def settings_of(upstream: str, **changed: Any) -> tuple[str, ...]:
    """`--set` of a small model and training; `training__steps` stands for `training.steps`."""
    settings = {**_MODEL[upstream], **{f"training.{name}": value for name, value in _TRAINING.items()}}
    settings |= {name.replace("__", "."): value for name, value in changed.items()}
    return tuple(f"{name}={str(value).lower() if value is None else value}".replace("none", "null")
                 for name, value in settings.items())  # fmt: skip


def request(
    upstream: str, corpus: Path, out: Path, *, steps: int = 8, resume: bool = False, seed: int = 0, **changed: Any
) -> PretrainRequest:
    """What `repbench pretrain UPSTREAM --preset tiny` is asked for, made small."""
    return PretrainRequest(
        upstream=upstream,
        corpus=str(corpus),
        preset="tiny",
        assignments=settings_of(upstream, **changed),
        steps=steps,
        out=out,
        resume=resume,
        device="cpu",
        seed=seed,
    )


def arguments(asked: PretrainRequest) -> list[str]:
    """The same on the command line."""
    sets = [part for assignment in asked.assignments for part in ("--set", assignment)]
    return ["pretrain", asked.upstream, "--corpus", asked.corpus, "--preset", "tiny", "--steps", str(asked.steps),
            "--out", str(asked.out), "--device", "cpu", *sets, *(["--resume"] if asked.resume else [])]  # fmt: skip


def metrics_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


class Listener(Envelope):
    """An upstream with a weight `w` for each of 4 energies; its objective is the mean of w · energies.

    So the gradient is the mean of the energies that were heard, and whatever was heard is kept in `batches`.
    """

    def __init__(self, loss: Callable[[Listener, Batch], Loss] | None = None) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(4))
        self.batches: list[Batch] = []
        self.loss_of = loss or Listener.mean_energy
        self.config: Mapping[str, Any] = {}

    @property
    def objective(self) -> Any:
        return EnergyObjective(self)

    def mean_energy(self, batch: Batch) -> Loss:
        valid = torch.arange(batch.values.shape[1]) < batch.lengths[:, None]
        return Loss(value=(batch.values[valid] @ self.w).mean(), weight=float(valid.sum()), logs={"pi": 3.14})


class EnergyObjective:
    """On frames: the energies, which depend on no weight."""

    def __init__(self, model: Listener) -> None:
        self._model = model

    def frames(self, waveforms: Tensor, lengths: Tensor) -> Batch:
        hidden = self._model(waveforms, lengths)
        return Batch(hidden.layers[0].detach(), hidden.lengths)

    def num_frames(self, num_samples: int) -> int:
        return self._model.num_frames(num_samples)

    def loss(self, batch: Batch, generator: torch.Generator) -> Loss:
        if self._model.training:
            self._model.batches.append(batch)
        return self._model.loss_of(self._model, batch)

    def figures(self, batch: Batch) -> Mapping[str, Tensor]:
        return {"energy": batch.values[0, : int(batch.lengths[0])]}


class WaveformListener(Envelope):
    """An upstream that learns from waveforms: its projection is to become the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.config: Mapping[str, Any] = {}

    @property
    def objective(self) -> Any:
        return WaveformObjective(self)


class WaveformObjective:
    """No `frames`: the model hears samples."""

    def __init__(self, model: WaveformListener) -> None:
        self._model = model

    def loss(self, batch: Batch, generator: torch.Generator) -> Loss:
        assert batch.values.ndim == 2
        hidden = self._model(batch.values, batch.lengths)
        return Loss(value=(hidden.layers[1] - hidden.layers[0]).square().mean(), weight=float(hidden.lengths.sum()))

    def figures(self, batch: Batch) -> Mapping[str, Tensor]:
        return {}


def waveform_listener(*, checkpoint: str | None = None, seed: int = 0) -> WaveformListener:
    """Reachable as `py:tests.upstream.small_training:waveform_listener`."""
    return WaveformListener()


def trainer(model: Any, utterances: Sequence[Utterance], run: Path, **settings: Any) -> Trainer:
    """Trains a model on all but the last three utterances, which are held out."""
    usual: dict[str, Any] = {"steps": 4, "batch_frames": 120, "crop_frames": 40, "log_every": 1}
    return Trainer(
        model=model,
        settings=TrainingSettings(**usual | settings),
        seed=0,
        train=utterances[:-3],
        dev=utterances[-3:],
        run=run,
        describe=Describe(fields={"upstream": model.info.name}),
        device=torch.device("cpu"),
    )
