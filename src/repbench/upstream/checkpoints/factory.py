"""The factory of upstreams with weights: it finds the checkpoint and loads it strictly."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from pydantic import BaseModel
from torch import nn

from repbench.configs.loader import build, load_preset, merged, preset_names
from repbench.errors import IntegrityError, PluginError, UsageError
from repbench.upstream.checkpoints.foreign import ForeignCheckpoint, hold_to_keys, unwrapped
from repbench.upstream.checkpoints.given_path import given_path
from repbench.upstream.checkpoints.native import (
    CHECKPOINTS_FOLDER,
    MANIFEST_FILE,
    TRAINING_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    list_checkpoints,
    newest_under,
    open_checkpoint,
    read_weights,
)
from repbench.upstream.checkpoints.untrained import RANDOM, is_untrained
from repbench.upstream.contract import Provenance
from repbench.upstream.training_data import UNKNOWN_DATA, TrainingData, of_json

HEARD_FILE = "heard.txt"
"""File of a checkpoint: SHA-256 of the samples of each training utterance, one a line."""

TRAINED_ON_FILE = "trained-on.json"
"""File of a checkpoint: the corpora of its trainings with their speakers, the last one first."""

RUNS = Path("runs") / "pretrain"
"""Default folder of the runs of `repbench pretrain`; each upstream has a folder in it."""

Config = TypeVar("Config", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Presets(Mapping[str, Mapping[str, Any]]):
    """The presets of an upstream in repbench, read on access; each holds every setting, defaults included."""

    upstream: str
    settings: type[BaseModel]

    def __getitem__(self, name: str) -> Mapping[str, Any]:
        if name not in preset_names(self.upstream):
            raise KeyError(name)
        return merged(self.settings().model_dump(mode="json"), load_preset(name, self.upstream))

    def __iter__(self) -> Iterator[str]:
        return iter(preset_names(self.upstream))

    def __len__(self) -> int:
        return len(preset_names(self.upstream))


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkFactory(Generic[Config]):
    """Builds an upstream from a checkpoint, or untrained.

    Attributes:
        name: Name of the upstream.
        settings: The pydantic model of its configuration.
        untrained: Builds a network from settings, the names of the available weights (None: all) and a seed.
        read_foreign: Reads checkpoints of other toolkits; None: it takes those of repbench alone.
        own_presets: Presets of a plugin, from name to the settings that differ from the defaults; None: those that ship
            with repbench.
    """

    name: str
    settings: type[Config]
    untrained: Callable[[Config, Sequence[str] | None, int], nn.Module]
    read_foreign: Callable[[Path, Mapping[str, Any]], ForeignCheckpoint] | None = None
    own_presets: Mapping[str, Mapping[str, Any]] | None = None

    @property
    def presets(self) -> Mapping[str, Mapping[str, Any]]:
        """Settings by the name of the preset."""
        if self.own_presets is None:
            return Presets(self.name, self.settings)
        defaults = self.settings().model_dump(mode="json")
        return {name: merged(defaults, preset) for name, preset in self.own_presets.items()}

    def __call__(self, *, checkpoint: str | None = None, seed: int = 0, **settings: Any) -> nn.Module:
        """Build the upstream in eval mode on the CPU.

        Args:
            checkpoint: None: the newest one below `runs/pretrain`. A path: a checkpoint or run of repbench, or a file
                of another toolkit. `random`: untrained, with the settings of the newest checkpoint, else of the usual
                preset; `random:PRESET` or `random:PATH`: untrained with those settings.
            seed: Seed of untrained weights.
            settings: Settings that override those of checkpoint or preset.

        Raises:
            UsageError: There is no checkpoint, or a setting is not valid.
            IntegrityError: The checkpoint is corrupt, or not of this network.
        """
        if checkpoint is not None and is_untrained(checkpoint):
            return self._random(checkpoint.partition(":")[2], seed, settings)
        place = self._required_newest() if checkpoint is None else locate(Path(checkpoint))
        if isinstance(place, Checkpoint):
            file, config = place.path, self._config_of(place)
            weights, unwrapping = unwrapped(read_weights(place), file=file)
            notes = tuple(map(str, place.fields.get("notes", ())))
            heard = _heard(place)
            provenance = Provenance(
                checkpoint=str(file),
                heard=heard,
                notes=(*notes, *unwrapping),
                trained_on=training_data_in(place, heard),
            )
        else:
            foreign = self.foreign(place, settings)
            file, config, weights = place, foreign.config, foreign.weights
            provenance = Provenance(checkpoint=str(file), notes=foreign.notes)
        # Building draws initial weights, all replaced below; `seeded` keeps that from moving the caller's random state.
        with seeded(seed):
            network = self.untrained(self._configured(merged(config, settings), file), tuple(weights), seed)
        hold_to_keys(network, weights, file=file)
        network.load_state_dict(dict(weights), strict=True)
        network.provenance = provenance  # type: ignore[assignment]
        return network.eval()

    def foreign(self, file: Path, settings: Mapping[str, Any]) -> ForeignCheckpoint:
        """A checkpoint of another toolkit; a UsageError where the network takes none."""
        if self.read_foreign is None:
            what = f"`{self.name}` reads no checkpoints of other toolkits"
            do = f"Give the folder of `repbench pretrain {self.name}`"
            raise UsageError(what, key="--checkpoint", file=file, do=do)
        return self.read_foreign(file, settings)

    def _random(self, source: str, seed: int, settings: Mapping[str, Any]) -> nn.Module:
        source, config = self._source_of_random(source)
        # Presets also hold the settings of `repbench pretrain`, which are none of the model.
        own = {key: value for key, value in config.items() if key != "training"}
        built = self._configured(merged(own, settings), "the settings")
        with seeded(seed):
            network = self.untrained(built, None, seed)
        network.provenance = Provenance(checkpoint=f"{RANDOM}:{source}", trained_on=())  # type: ignore[assignment]
        return network.eval()

    def _source_of_random(self, source: str) -> tuple[str, Mapping[str, Any]]:
        """The source of the settings of an untrained network, and the settings."""
        if not source:
            newest = self._newest()
            if newest is not None:
                return str(newest.path), self._config_of(newest)
            source = usual_preset()
        if source in self.presets:
            return source, self.presets[source]
        path = given_path(source, "--checkpoint")
        if not path.exists():
            listed = ", ".join(self.presets)
            what = f"`{source}` is neither a preset of {self.name} nor a path"
            raise UsageError(what, key="--checkpoint", do=f"The presets are {listed}")
        place = locate(path)
        return source, self._config_of(place) if isinstance(place, Checkpoint) else self.foreign(place, {}).config

    def _newest(self) -> Checkpoint | None:
        """The newest checkpoint below `runs/pretrain`; an older one never replaces a corrupt one."""
        faults: list[str] = []
        newest = newest_under(RUNS / self.name, faults.append)
        if faults:
            raise IntegrityError(faults[0], file=RUNS / self.name, do="Name a checkpoint with --checkpoint PATH")
        return newest

    def _required_newest(self) -> Checkpoint:
        newest = self._newest()
        if newest is None:
            raise UsageError(
                f"There is no checkpoint of `{self.name}` under {RUNS / self.name}",
                key="--checkpoint",
                do=f"Run `repbench pretrain {self.name}`, give --checkpoint PATH, or --checkpoint random for an "
                "untrained one",
            )
        return open_checkpoint(newest.path)

    def _config_of(self, checkpoint: Checkpoint) -> dict[str, Any]:
        upstream, config = checkpoint.fields.get("upstream"), checkpoint.fields.get("config")
        if upstream != self.name or not isinstance(config, dict):
            what = f"This is a checkpoint of `{upstream}`, not of `{self.name}`"
            raise IntegrityError(what, file=checkpoint.path, do=f"Use --upstream {upstream}")
        return config

    def _configured(self, tree: dict[str, Any], source: Path | str) -> Config:
        return build(self.settings, tree, source)


def _heard(checkpoint: Checkpoint) -> frozenset[str]:
    file = checkpoint.path / HEARD_FILE
    return frozenset(file.read_text(encoding="utf-8").split()) if file.is_file() else frozenset()


def training_data_in(checkpoint: Checkpoint, heard: frozenset[str]) -> tuple[TrainingData, ...] | None:
    """The training data of a checkpoint; None for one that does not state it, as a converted one.

    Checkpoints of earlier releases state the corpus of each training, but no speakers.

    Args:
        checkpoint: The checkpoint.
        heard: Content of its `heard.txt`.

    Raises:
        IntegrityError: What it states is damaged.
    """
    file = checkpoint.path / TRAINED_ON_FILE
    try:
        if file.is_file():
            return of_json(json.loads(file.read_text(encoding="utf-8")), heard)
        corpora = [checkpoint.fields.get("corpus")]
        began = [event for event in checkpoint.fields.get("history", ()) if event["event"] == "from"]
        corpora += [event["corpus"] for event in began]
        if corpora == [None]:
            return None
        return tuple(UNKNOWN_DATA if corpus is None else _of_corpus(corpus, heard) for corpus in corpora)
    except (ValueError, KeyError, TypeError, AttributeError, PluginError) as error:
        what = f"corrupt: the training data is not as `repbench pretrain` states it: {error}"
        raise IntegrityError(what, file=file, do="Train it again, or give another checkpoint") from error


def _of_corpus(corpus: Mapping[str, Any], heard: frozenset[str]) -> TrainingData:
    return TrainingData(
        name=corpus["name"],
        splits=("train",),
        samples_sha256=heard or None,
        fingerprint=corpus["fingerprint"],
        source="the checkpoint",
    )


def locate(path: Path) -> Checkpoint | Path:
    """Resolve a path given as checkpoint: a checkpoint of repbench, verified, or a file of another toolkit.

    A file of a checkpoint resolves to the checkpoint, and a run folder to its newest checkpoint. If that one is
    corrupt, no older one replaces it.

    Raises:
        UsageError: The path is absent, a folder without checkpoints, or weights without a manifest.
        IntegrityError: The checkpoint is corrupt.
        EnvironmentFault: The path cannot be read.
    """
    path = given_path(path, "--checkpoint")
    # Before `is_file`: model.safetensors of a checkpoint is a file too, and its manifest verifies it.
    if is_part_of_checkpoint(path):
        return open_checkpoint(path.parent)
    if path.is_file():
        _refuse_weights_alone(path)
        return path
    if (path / MANIFEST_FILE).is_file():
        return open_checkpoint(path)
    if (path / CHECKPOINTS_FOLDER).is_dir():
        faults: list[str] = []
        checkpoints = list_checkpoints(path, faults.append)
        if faults:
            raise IntegrityError(faults[0], file=path, do="Name an older checkpoint of the run")
        if checkpoints:
            return open_checkpoint(checkpoints[-1].path)
    what = "There is no checkpoint here" if path.exists() else "There is no such file or folder"
    raise UsageError(what, key="--checkpoint", file=path, do="Name a checkpoint, or the folder of a run")


def is_part_of_checkpoint(path: Path) -> bool:
    """Whether a file belongs to a checkpoint of repbench, a folder with a manifest."""
    names = {WEIGHTS_FILE, TRAINING_FILE, MANIFEST_FILE}
    return path.name in names and path.is_file() and (path.parent / MANIFEST_FILE).is_file()


def _refuse_weights_alone(path: Path) -> None:
    if path.suffix == ".safetensors":
        what = f"This file holds weights alone; {MANIFEST_FILE}, which names their model, is not in its folder"
        raise UsageError(what, key="--checkpoint", file=path, do="Give the whole folder of the checkpoint")


def usual_preset(device: torch.device | None = None) -> str:
    """The default preset: `base` on a GPU, `tiny` on a CPU; None: the default device."""
    on_gpu = torch.cuda.is_available() if device is None else device.type == "cuda"
    return "base" if on_gpu else "tiny"


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's CPU generator within the block; its state is restored after it."""
    # No GPU: networks are built on the CPU, and by default `fork_rng` saves the state of every GPU.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
