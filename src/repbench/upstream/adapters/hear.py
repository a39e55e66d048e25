"""`hear:MODULE`: a module with the common API of the HEAR benchmark, as a submission to it has.

`load_model` gives a model with `sample_rate`, `timestamp_embedding_size` and `scene_embedding_size`;
`get_timestamp_embeddings` gives frames and their times in milliseconds, `get_scene_embeddings` one vector a sound.
`hear:MODULE` has the frames, `hear:MODULE#scene` the vector. Hop and first centre are those of the times that the
module returns; times that are not evenly spaced, or not by whole samples, are refused.

Axes: B batch, T samples, F frames, D width.

Reference:
    Turian et al., HEAR: holistic evaluation of audio representations, 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repbench.errors import PluginError, UsageError
from repbench.upstream.adapters.embedding_module import (
    EmbeddingModule,
    counted_frames,
    imported,
    network_of,
    run_quietly,
    shortest_input,
    tone,
    whole,
)
from repbench.upstream.adapters.python_module import sources_of
from repbench.upstream.checkpoints.factory import seeded
from repbench.upstream.checkpoints.given_path import given_path
from repbench.upstream.checkpoints.untrained import RANDOM
from repbench.upstream.contract import Provenance, UpstreamFactory, UpstreamInfo

SCENE = "#scene"
CITATION = "Turian et al., HEAR: holistic evaluation of audio representations, 2022, for the interface"

TOLERANCE_SAMPLES = 1.0
"""Largest difference of a time that is returned from that of an even hop; float32 milliseconds round to less."""


class HearTimestamps(EmbeddingModule):
    """The frames of a HEAR module; arguments as the base class, with the function that gives them.

    Args:
        embed: `get_timestamp_embeddings`.
    """

    def __init__(self, *given: Any, embed: Callable[..., Any], **named: Any) -> None:
        super().__init__(*given, **named)
        self._embed = embed

    def embedded(self, waveform: Tensor) -> Tensor:
        """(1, T) -> (F, D).

        Raises:
            PluginError: It returns something else, or frames at other times than at loading.
        """
        frames, times = _frames_and_times(self._embed(waveform, self.model), self.info.name)
        info = self.info
        _refuse_other_times(times, info.hop_samples, info.first_center_samples, info.sample_rate_hz, info.name)
        return frames.to(waveform.device)


class HearScene(EmbeddingModule):
    """The vector of a HEAR module; arguments as the base class, with the function that gives it.

    Args:
        embed: `get_scene_embeddings`.
    """

    def __init__(self, *given: Any, embed: Callable[..., Any], **named: Any) -> None:
        super().__init__(*given, **named)
        self._embed = embed

    def embedded(self, waveform: Tensor) -> Tensor:
        """(1, T) -> (1, D)."""
        return _tensor(self._embed(waveform, self.model), 2, self.info.name).to(waveform.device)


def door(argument: str) -> UpstreamFactory:
    """The factory of the module that `hear:MODULE`, `hear:MODULE:WEIGHTS`, either with `#scene`, names."""
    return partial(build, argument)


def build(argument: str, *, checkpoint: str | None = None, seed: int = 0) -> EmbeddingModule:
    """Load a HEAR module, and find the times of its frames.

    Args:
        argument: `MODULE` or `MODULE:WEIGHTS`, with `#scene` after it for one vector an utterance.
        checkpoint: A file of weights, which goes before WEIGHTS.
        seed: Seed of weights that the module draws where it loads none.

    Raises:
        UsageError: There is no such file of weights.
        PluginError: It is no HEAR module, fails, or its frames are not evenly spaced.
    """
    spec, scene = argument.removesuffix(SCENE), argument.endswith(SCENE)
    name, _, file = spec.partition(":")
    key = f"hear:{name}{SCENE if scene else ''}"
    weights = _weights(checkpoint, file)
    module = imported(name, "hear")
    wanted = "get_scene_embeddings" if scene else "get_timestamp_embeddings"
    for function in ("load_model", wanted):
        if not callable(getattr(module, function, None)):
            what = f"It has no function `{function}`, as modules of HEAR have"
            raise PluginError(what, key=key, do="Name the module that has it, such as package.module")
    embed = getattr(module, wanted)
    with seeded(seed):
        model = run_quietly(key, lambda: module.load_model(*([] if weights is None else [str(weights)])))
    network = network_of(model, key)
    rate = whole(getattr(model, "sample_rate", None), "sample_rate", key)
    size = "scene_embedding_size" if scene else "timestamp_embedding_size"
    facts: dict[str, Any] = {
        "name": key,
        "sample_rate_hz": rate,
        "layer_names": ("scene" if scene else "timestamps",),
        "width": whole(getattr(model, size, None), size, key),
        "utterance_normalised": False,
        "trainable": False,
        "citation": CITATION,
        "licence": "unknown",
    }
    given: dict[str, Any] = {
        "settings": {"interface": "hear", "kind": "scene" if scene else "timestamps"},
        "sources": sources_of(network, f"{name}:load_model"),
        "provenance": Provenance(checkpoint=None if weights is None else str(weights)),
        "embed": embed,
    }
    if scene:
        shortest = shortest_input(
            lambda samples: run_quietly(key, lambda: embed(tone(samples, rate), network)) is not None, rate
        )
        info = UpstreamInfo(**facts, kind="utterance", hop_samples=0, first_center_samples=0, min_samples=shortest)
        return HearScene(network, info, None, **given).eval()

    def frames_of(samples: int) -> tuple[Tensor, list[float]]:
        return _frames_and_times(run_quietly(key, lambda: embed(tone(samples, rate), network)), key)

    hop, first = _clock(frames_of(2 * rate)[1], rate, key)
    counted = counted_frames(lambda samples: len(frames_of(samples)[1]), hop, rate, key)
    info = UpstreamInfo(**facts, hop_samples=hop, first_center_samples=first, min_samples=counted.min_samples)
    return HearTimestamps(network, info, counted, **given).eval()


def _weights(checkpoint: str | None, file: str) -> Path | None:
    if checkpoint == RANDOM:
        what = "A module of HEAR loads its weights itself, and cannot be drawn anew"
        raise UsageError(what, key="--checkpoint", do="Leave it out, or give a file of weights")
    option = "--upstream" if checkpoint is None else "--checkpoint"
    named = file if checkpoint is None else checkpoint
    if not named:
        return None
    path = given_path(Path(named).expanduser(), option)
    if not path.exists():
        raise UsageError("There is no such file of weights", key=option, file=path, do="Check the path")
    return path


def _frames_and_times(returned: object, key: str) -> tuple[Tensor, list[float]]:
    """What `get_timestamp_embeddings` returned for one sound: (F, D), and F times in milliseconds.

    Raises:
        PluginError: It is something else.
    """
    if not isinstance(returned, list | tuple) or len(returned) != 2:
        what = f"`get_timestamp_embeddings` must return embeddings and times, but returned a {type(returned).__name__}"
        raise PluginError(what, key=key, do="See the common API of HEAR")
    frames = _tensor(returned[0], 3, key)[0]  # (1, F, D) -> (F, D)
    times: list[float] = _tensor(returned[1], 2, key)[0].double().tolist()  # (1, F) -> F
    if len(times) != len(frames):
        raise PluginError(f"There are {len(frames)} frames, but {len(times)} times", key=key)
    return frames, times


def _tensor(value: object, rank: int, key: str) -> Tensor:
    """A tensor of one sound with so many axes, in float32 at least."""
    if isinstance(value, Tensor) and value.ndim == rank and value.shape[0] == 1:
        return value if value.dtype == torch.float64 else value.float()
    found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
    what = f"For one sound the module must return a tensor of {rank} axes, the first of length 1, but returned {found}"
    raise PluginError(what, key=key, do="See the common API of HEAR")


def _clock(times: list[float], rate_hz: int, key: str) -> tuple[int, int]:
    """Hop and first centre, in samples, of times in milliseconds.

    Raises:
        PluginError: There is one time alone, or they are not evenly spaced by whole samples.
    """
    if len(times) < 2:
        what = f"Two seconds have {len(times)} frame: the distance of two cannot be found"
        raise PluginError(what, key=key, do=f"Take its vector, {key}{SCENE}")
    apart = (times[-1] - times[0]) / (len(times) - 1) * rate_hz / 1000
    hop, first = max(1, round(apart)), round(times[0] * rate_hz / 1000)
    _refuse_other_times(times, hop, first, rate_hz, key)
    return hop, first


def _refuse_other_times(times: list[float], hop: int, first: int, rate_hz: int, key: str) -> None:
    for number, time in enumerate(times):
        found, expected = time * rate_hz / 1000, first + number * hop
        if not abs(found - expected) <= TOLERANCE_SAMPLES:
            what = (
                f"Its frames are not evenly spaced by whole samples: frame {number} is at sample {found:.1f} of "
                f"{rate_hz} Hz, and with a hop of {hop} it would be at {expected}"
            )
            raise PluginError(what, key=key, do=f"Take its vector, {key}{SCENE}, or give its features as features:DIR")
