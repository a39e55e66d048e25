"""A network that is fine-tuned: an upstream and what reads it; and how it is saved.

Axes: L layers, B batch, T samples, N frames, U utterances, C classes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from repbench.benchmark.loading.upstreams import build_upstream, presets_of
from repbench.benchmark.probing.probe import Probe, ProbeShape, fields_of
from repbench.errors import IntegrityError, plugin_faults
from repbench.registry import Entry
from repbench.upstream.checkpoints.factory import RANDOM
from repbench.upstream.checkpoints.foreign import hold_to_keys
from repbench.upstream.contract import Pretrainable, Provenance, Upstream, provenance_of

FORMAT = "repbench.network/1"

_UPSTREAM, _PROBE = "upstream.", "probe."


class Network(nn.Module):
    """An upstream, and a probe on some of its layers through which gradients reach it.

    Args:
        upstream: With weights.
        probe: Of as many layers.
        layers: Which of the upstream's layers the probe reads, in order.
    """

    def __init__(self, upstream: Upstream, probe: Probe, layers: tuple[int, ...]) -> None:
        super().__init__()
        assert isinstance(upstream, nn.Module)
        self.upstream = upstream
        self.probe = probe
        self.layers = layers

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T) waveforms with (B,) samples to scores (N, C) of their frames in turn, or (B, C); and (B,) frames."""
        states = self.upstream(waveforms, lengths)
        counts: Tensor = states.lengths
        # (L, B, F, D) -> (L, N, D)
        rows = [states.layers[list(self.layers), row, :count] for row, count in enumerate(counts.tolist())]
        return self.scores(torch.cat(rows, dim=1), counts), counts

    def scores(self, frames: Tensor, counts: Tensor) -> Tensor:
        """(L, N, D) frames, (U,) of each utterance, to (N, C), or to (U, C) where utterances are asked."""
        scores: Tensor = self.probe(frames, counts)
        return scores


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedNetwork:
    """A network as it lies in a file.

    Attributes:
        file: Where.
        upstream: The upstream's weights, by name.
        probe: In eval mode.
        facts: What was saved with it: `upstream_fingerprint`, `config`, `provenance` and what the probe heard.
    """

    file: Path
    upstream: Mapping[str, Tensor]
    probe: Probe
    facts: Mapping[str, Any]

    def build(self, entry: Entry, checkpoint: str | None, began_with: str | None, seed: int) -> Upstream:
        """The fine-tuned upstream: of its configuration, or from the checkpoint that it began with.

        Args:
            entry: Of the upstream.
            checkpoint: The one that it began with, if the configuration is not to be used.
            began_with: The same, as the record says it, for an upstream that told no configuration.
            seed: Of the run, for one that began untrained.

        Raises:
            IntegrityError: The checkpoint is another one, or the weights do not fit.
        """
        config = self.facts["config"]
        if checkpoint is None and config is not None:
            sizes = next(iter(presets_of(entry)), None)  # of which every setting is replaced
            upstream = build_upstream(entry, RANDOM if sizes is None else f"{RANDOM}:{sizes}", 0, settings=config)
            said = self.facts["provenance"]
            provenance = Provenance(
                checkpoint=said["checkpoint"], heard=frozenset(said["heard"]), notes=tuple(said["notes"])
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
        assert isinstance(upstream, nn.Module)
        hold_to_keys(upstream, self.upstream, file=self.file)
        upstream.load_state_dict(dict(self.upstream), strict=True)
        return upstream


def facts_of(upstream: Upstream) -> dict[str, Any]:
    """What is needed to build an upstream again."""
    provenance = provenance_of(upstream)
    return {
        "config": dict(upstream.config) if isinstance(upstream, Pretrainable) else None,
        "provenance": {
            "checkpoint": provenance.checkpoint,
            "heard": sorted(provenance.heard),
            "notes": list(provenance.notes),
        },
    }


def encoded_network(upstream: nn.Module, probe: Probe, facts: Mapping[str, Any]) -> bytes:
    """Upstream and probe as safetensors; shape, facts and a digest of the weights stand in the metadata."""
    from safetensors.torch import save

    tensors = {f"{_UPSTREAM}{name}": tensor for name, tensor in upstream.state_dict().items()}
    tensors |= {f"{_PROBE}{name}": tensor for name, tensor in probe.state_dict().items()}
    # Tied weights share memory, which safetensors refuses.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    shape = fields_of(probe.shape)
    metadata = {
        "format": FORMAT,
        "shape": json.dumps(shape),
        "facts": json.dumps(dict(facts)),
        "weights_sha256": digest_of(tensors),
    }
    return save(tensors, metadata=metadata)


def load_network(path: Path) -> SavedNetwork:
    """Read a network that was saved.

    Raises:
        IntegrityError: The file is not a whole network, or its weights are not those that were written.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a mapping
        shape, facts, digest = json.loads(metadata["shape"]), json.loads(metadata["facts"]), metadata["weights_sha256"]
        probe = Probe(ProbeShape(**{**shape, "classes": tuple(shape["classes"])}), torch.Generator().manual_seed(0))
        probe.load_state_dict(_below(_PROBE, tensors), strict=True)
        facts["config"], facts["provenance"]["heard"], facts["upstream_fingerprint"]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        what = f"This is not a whole network: {error}"
        raise IntegrityError(what, file=path, do="Give the folder of a fine-tuned run") from error
    if digest_of(tensors) != digest:
        raise IntegrityError("The weights are not those that were written", file=path, do="Run it again")
    return SavedNetwork(file=path, upstream=_below(_UPSTREAM, tensors), probe=probe.eval(), facts=facts)


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
