"""Modules with an interface of another benchmark, which state their rate and width but not how many frames they give.

The number of frames of a waveform of T samples is (T + offset) // hop + 1 for every model of windows at a fixed hop,
with whatever padding. The offset is found at loading from the numbers of frames of some lengths, and every later call
is held to it. Each utterance goes through the module alone and without padding, as these interfaces have no lengths.

Axes: B batch, T samples, F frames, D width.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from repbench.errors import OF_OTHERS, PluginError, plugin_faults
from repbench.globalstate import preserved_global_state
from repbench.registry import last_line
from repbench.upstream.adapters.frame_counts import joined
from repbench.upstream.contract import HiddenStates, Provenance, UpstreamInfo, check_lengths, fingerprint_of

SHORT_SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Durations of which the shortest that a module takes is its shortest input, if it does not take less."""

LONGER_SECONDS = (2.51, 5.0)
"""Durations on which the rule for the number of frames is tested before it is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedFrames:
    """The number of frames of a waveform: (T + offset) // hop + 1.

    Attributes:
        hop_samples: Distance of two frames.
        offset_samples: Padding less window.
        min_samples: Shortest waveform.
    """

    hop_samples: int
    offset_samples: int
    min_samples: int

    def num_frames(self, num_samples: int) -> int:
        """Frames of a waveform of `num_samples`."""
        return (num_samples + self.offset_samples) // self.hop_samples + 1


class EmbeddingModule(nn.Module):
    """The base of upstreams of such modules.

    Args:
        model: The network.
        info: The declaration.
        counted: Its numbers of frames; None for one vector an utterance.
        settings: Everything but weights and code that determines the embeddings, JSON-able.
        sources: Python files of its code; their bytes are part of the fingerprint.
        provenance: The source of the weights.
    """

    code_version = 1

    def __init__(
        self,
        model: nn.Module,
        info: UpstreamInfo,
        counted: CountedFrames | None,
        *,
        settings: Mapping[str, Any],
        sources: set[Path],
        provenance: Provenance,
    ) -> None:
        super().__init__()
        self.model = model
        self.info = info
        self.provenance = provenance
        self._counted, self._settings = counted, settings
        self._sources_sha256 = sorted({hashlib.sha256(source.read_bytes()).hexdigest() for source in sources})

    def num_frames(self, num_samples: int) -> int:
        """Frames of a waveform of `num_samples`; 1 for one vector an utterance."""
        return 1 if self._counted is None else self._counted.num_frames(num_samples)

    @abstractmethod
    def embedded(self, waveform: Tensor) -> Tensor:
        """(1, T) -> (F, D) float32 on the device of the waveform."""

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        """(B, T) -> (1, B, F, D).

        Raises:
            DataError: A length is below `info.min_samples`.
            PluginError: The module gives another number of frames, width or times than at loading.
        """
        check_lengths(self.info, lengths)
        states = []
        for row, length in enumerate(lengths.tolist()):
            found = self.embedded(waveforms[row : row + 1, :length])
            expected = (self.num_frames(length), self.info.width)
            if tuple(found.shape) != expected:
                what = f"{length} samples must give (F, D) = {expected}, but gave {tuple(found.shape)}"
                do = "Wrap it as a py: module, whose declaration states the number of frames"
                raise PluginError(what, key=self.info.name, do=do)
            states.append(found[None])  # (F, D) -> (1, F, D)
        return joined(states)

    def fingerprint(self) -> str:
        """SHA-256 of the weights, the settings and the files of the code."""
        config = {**self._settings, "sources_sha256": self._sources_sha256}
        return fingerprint_of(self, config, self.code_version)


def imported(module: str, prefix: str) -> ModuleType:
    """Import the module of a door, and restore the global state that this changes.

    Raises:
        PluginError: It cannot be imported.
    """
    try:
        with preserved_global_state():
            return importlib.import_module(module)
    except OF_OTHERS:
        raise
    except BaseException as error:  # also SystemExit, which would end the process
        do = f"Is it spelt right, its folder on PYTHONPATH, and does `import {module}` work?"
        what = f"The module cannot be imported: {last_line(error)}"
        raise PluginError(what, key=f"{prefix}:{module}", do=do) from error


def network_of(model: object, key: str) -> nn.Module:
    """The model as the network that it is.

    Raises:
        PluginError: It is none of PyTorch.
    """
    if isinstance(model, nn.Module):
        return model.eval()
    what = f"The model must be a torch.nn.Module, but is a {type(model).__module__}.{type(model).__name__}"
    raise PluginError(what, key=key, do="Compute its embeddings elsewhere, and give them as features:DIR")


def whole(value: object, name: str, key: str) -> int:
    """A whole number of at least 1 that a model states.

    Raises:
        PluginError: It states something else, or nothing.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise PluginError(f"`{name}` of the model must be a whole number of at least 1, but is {value!r}", key=key)


def tone(num_samples: int, rate_hz: int) -> Tensor:
    """(1, T) a quiet tone, for the shapes that a module gives."""
    return 0.1 * torch.sin(2 * torch.pi * 220 * torch.arange(num_samples, dtype=torch.float64) / rate_hz).float()[None]


def counted_frames(count: Callable[[int], int], hop_samples: int, rate_hz: int, key: str) -> CountedFrames:
    """Find the offset of (T + offset) // hop + 1, by halving the interval in which it lies, and the shortest input.

    Args:
        count: Frames that the module gives for a number of samples.
        hop_samples: Distance of two frames.
        rate_hz: Sample rate.
        key: Name of the upstream, for the error.

    Raises:
        PluginError: Its numbers of frames follow no such rule.
    """
    frames = count(rate_hz)
    # frames - 1 <= (rate + offset) / hop < frames
    least, most = (frames - 1) * hop_samples - rate_hz, frames * hop_samples - rate_hz - 1
    while least < most:
        middle = (least + most + 1) // 2
        # One frame more if the offset is at least the middle.
        found = count(frames * hop_samples - middle)
        if found == frames + 1:
            least = middle
        elif found == frames:
            most = middle - 1
        else:
            raise _no_rule(key, hop_samples, frames * hop_samples - middle, found)
    rule = CountedFrames(hop_samples=hop_samples, offset_samples=least, min_samples=max(1, -least))
    for seconds in LONGER_SECONDS:
        samples = round(seconds * rate_hz)
        if (found := count(samples)) != rule.num_frames(samples):
            raise _no_rule(key, hop_samples, samples, found)
    shortest = shortest_input(lambda samples: count(samples) == rule.num_frames(samples), rate_hz, rule.min_samples)
    return CountedFrames(hop_samples=hop_samples, offset_samples=least, min_samples=shortest)


def _no_rule(key: str, hop_samples: int, samples: int, found: int) -> PluginError:
    what = f"With frames {hop_samples} samples apart, {samples} samples gave {found}: no (T + offset) // hop + 1"
    return PluginError(what, key=key, do="Wrap it as a py: module, or compute its features elsewhere (features:)")


def shortest_input(works: Callable[[int], bool], rate_hz: int, least: int = 1) -> int:
    """The shortest of `least` and `SHORT_SECONDS` that a module takes; it must take a second."""
    wanted = sorted({least, *(samples for each in SHORT_SECONDS if (samples := round(each * rate_hz)) > least)})
    for samples in wanted[:-1]:
        # A fault may mean that it is too short; that of the longest is one of the module, and is raised.
        with contextlib.suppress(PluginError):
            if works(samples):
                return samples
    works(wanted[-1])
    return wanted[-1]


def run_quietly(key: str, compute: Callable[[], Any]) -> Any:
    """Call a module without gradient, with its faults named; global state that it changes is restored."""
    with plugin_faults(key), preserved_global_state(), torch.no_grad():
        return compute()
