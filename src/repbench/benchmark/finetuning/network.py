"""A network that is fine-tuned, an upstream with a probe on its layers, and its file.

Axes: L layers, B batch, T samples, F frames, N frames of a batch, D width, U utterances, C classes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from repbench.benchmark.finetuning.lora import add_lora, merge_lora
from repbench.benchmark.loading.upstreams import build_upstream, presets_of
from repbench.benchmark.probing.probe import Probe, probe_in, read_tensors, shape_json, whole_file
from repbench.benchmark.protocol import ALL_WEIGHTS, FinetuneSettings
from repbench.errors import IntegrityError, plugin_faults
from repbench.registry import Entry
from repbench.tensor_files import encoded_tensors
from repbench.training.batching import derived_seed
from repbench.upstream.checkpoints.foreign import hold_to_keys, hold_to_shapes
from repbench.upstream.checkpoints.untrained import RANDOM
from repbench.upstream.contract import Pretrainable, Provenance, Upstream, provenance_of, update_with_tensors
from repbench.upstream.training_data import as_json, of_json

FORMAT = "repbench.network/1"

UPSTREAM = "upstream."
"""Prefix of the weights of the upstream in the state dict of a network."""

_PROBE = "probe."


class Network(nn.Module):
    """An upstream, and a probe on some of its layers through which gradients reach it.

    Args:
        upstream: With weights.
        probe: Of as many layers.
        layers: Indices of the upstream's layers that the probe reads, in order.
    """

    def __init__(self, upstream: Upstream, probe: Probe, layers: tuple[int, ...]) -> None:
        super().__init__()
        assert isinstance(upstream, nn.Module)
        self.upstream = upstream
        self.probe = probe
        self.layers = layers

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of waveforms.

        Args:
            waveforms: (B, T).
            lengths: (B,) samples of each.

        Returns:
            Scores (N, C) of the frames of all utterances, one after the other, or (B, C) of utterances; and (B,) frames
            of each.
        """
        states = self.upstream(waveforms, lengths)
        counts: Tensor = states.lengths
        # (L, B, F, D) -> (L, N, D): the frames of each utterance without padding, one utterance after the other
        rows = [states.layers[list(self.layers), row, :count] for row, count in enumerate(counts.tolist())]
        return self.scores(torch.cat(rows, dim=1), counts), counts

    def scores(self, frames: Tensor, counts: Tensor) -> Tensor:
        """Scores (N, C), or (U, C) of utterance tasks, of frames (L, N, D) with counts (U,) of each utterance."""
        scores: Tensor = self.probe(frames, counts)
        return scores


def upstream_of(network: Network) -> Upstream:
    """The network's upstream, as one."""
    upstream: object = network.upstream
    assert isinstance(upstream, Upstream)
    return upstream


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedNetwork:
    """Contents of the file of a network.

    Attributes:
        file: Its path.
        upstream: From name to weights of the upstream; of a partial file those alone that moved.
        probe: In eval mode.
        facts: Saved with the weights: `upstream_fingerprint`, `config`, `provenance`, the sounds and speakers that the
            probe was trained on, and of a partial file `partial`, the settings of the fine-tuning.
    """

    file: Path
    upstream: Mapping[str, Tensor]
    probe: Probe
    facts: Mapping[str, Any]

    @property
    def is_partial(self) -> bool:
        """Whether it holds only weights that moved, so that it needs the checkpoint that the fine-tuning began with."""
        return "partial" in self.facts

    def build(self, entry: Entry, checkpoint: str | None, began_with: str | None, seed: int) -> Upstream:
        """Build the fine-tuned upstream from its configuration, or from the checkpoint that it began with.

        Args:
            entry: Of the upstream.
            checkpoint: The one that the fine-tuning began with, to be used in place of the configuration.
            began_with: The same as the record states it, for an upstream without a configuration.
            seed: Of the run, for an upstream that began untrained.

        Raises:
            IntegrityError: The checkpoint is another one, or the weights do not fit.
        """
        config = self.facts["config"]
        if checkpoint is None and config is not None:
            sizes = next(iter(presets_of(entry)), None)  # any preset: every setting of it is replaced
            upstream = build_upstream(entry, RANDOM if sizes is None else f"{RANDOM}:{sizes}", 0, settings=config)
            saved = self.facts["provenance"]
            heard = frozenset(saved["heard"])
            provenance = Provenance(
                checkpoint=saved["checkpoint"],
                heard=heard,
                notes=tuple(saved["notes"]),
                trained_on=of_json(saved.get("trained_on"), heard),  # networks of earlier releases lack it
            )
            upstream.provenance = provenance  # type: ignore[attr-defined]
        else:
            upstream = build_upstream(entry, checkpoint or began_with, seed)
            with plugin_faults(entry.qualified):
                found = upstream.fingerprint()
            if found != self.facts["upstream_fingerprint"]:
                raise IntegrityError(
                    f"The network was fine-tuned from another `{entry.name}` than this one",
                    file=self.file,
                    do="Give the --checkpoint that it began with, or run it again",
                )
        self._load_into(upstream)
        return upstream

    def _load_into(self, upstream: Upstream) -> None:
        """Replace the weights of the upstream that it began with by those of the file; LoRA is merged."""
        assert isinstance(upstream, nn.Module)
        if self.is_partial:
            settings = FinetuneSettings.model_validate(self.facts["partial"])
            with adapted(upstream, settings, seed=0):  # what is drawn is replaced
                own = upstream.state_dict()
                expected = {name: tuple(own[name].shape) for name in self.upstream if name in own}
                hold_to_shapes(expected, self.upstream, file=self.file)
                upstream.load_state_dict(dict(self.upstream), strict=False)
            return
        # Before `load_state_dict`, whose error lists keys without the file.
        hold_to_keys(upstream, self.upstream, file=self.file)
        upstream.load_state_dict(dict(self.upstream), strict=True)


def facts_of(upstream: Upstream) -> dict[str, Any]:
    """Configuration and provenance of an upstream, from which `SavedNetwork.build` builds it again."""
    provenance = provenance_of(upstream)
    return {
        "config": dict(upstream.config) if isinstance(upstream, Pretrainable) else None,
        "provenance": {
            "checkpoint": provenance.checkpoint,
            "heard": sorted(provenance.digests),
            "notes": list(provenance.notes),
            "trained_on": as_json(provenance.trained_on),
        },
    }


@contextmanager
def adapted(upstream: nn.Module, settings: FinetuneSettings, seed: int) -> Iterator[None]:
    """Inside, an upstream has the LoRA of its rule, if it is one; after, the updates are merged into its weights.

    Args:
        upstream: Without LoRA.
        settings: Of the fine-tuning.
        seed: Of the run.
    """
    rule = settings.rule
    if rule.kind != "lora" or rule.number is None:
        yield
        return
    generator = torch.Generator().manual_seed(derived_seed(seed, "lora"))
    add_lora(upstream, rule.number, settings.lora_alpha or rule.number, generator)
    try:
        yield
    finally:
        merge_lora(upstream)


def saves_what_moved(upstream: Upstream, settings: FinetuneSettings) -> bool:
    """Whether the file of a network holds only weights that moved.

    An upstream without a configuration of its own is built from its checkpoint again in any case, and is large.
    """
    return settings.trainable != ALL_WEIGHTS and not isinstance(upstream, Pretrainable)


def encoded_network(upstream: Mapping[str, Tensor], probe: Probe, facts: Mapping[str, Any]) -> bytes:
    """Upstream and probe as safetensors; shape, facts and a digest of the weights are in the metadata.

    Args:
        upstream: From name to weights of the upstream, all or those that moved.
        probe: The probe.
        facts: As `SavedNetwork.facts`.
    """
    # one flat name space: the names of a state_dict of `Network`
    tensors = {f"{UPSTREAM}{name}": tensor for name, tensor in upstream.items()}
    tensors |= {f"{_PROBE}{name}": tensor for name, tensor in probe.state_dict().items()}
    # Tied weights share memory, which safetensors refuses.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    metadata = {
        "format": FORMAT,
        "shape": shape_json(probe),
        "facts": json.dumps(dict(facts)),
        "weights_sha256": _weights_digest(tensors),
    }
    return encoded_tensors(tensors, metadata)


def load_network(path: Path) -> SavedNetwork:
    """Read a network that was saved.

    Raises:
        IntegrityError: The file is not a whole network, or its weights are not those that were written.
    """
    with whole_file(path, "network", do="Give the folder of a fine-tuned run"):
        tensors, metadata = read_tensors(path)
        probe, facts = probe_in(_below(_PROBE, tensors), metadata, file=path)
        digest = metadata["weights_sha256"]
        facts["config"], facts["provenance"]["heard"], facts["upstream_fingerprint"]  # a KeyError if one is missing
    if _weights_digest(tensors) != digest:
        raise IntegrityError("The weights are not those that were written", file=path, do="Run it again")
    return SavedNetwork(file=path, upstream=_below(UPSTREAM, tensors), probe=probe, facts=facts)


def _weights_digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    update_with_tensors(digest, tensors)
    return digest.hexdigest()


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
