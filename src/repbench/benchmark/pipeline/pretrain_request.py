"""Settings of a pre-training: the request, resolved and checked before any data is read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from repbench.benchmark.environment import choose_device
from repbench.benchmark.loading.upstreams import build_upstream, presets_of
from repbench.configs.loader import apply_overrides, build, load_yaml, merged
from repbench.configs.settings import Settings
from repbench.corpora.open import is_manifest_path
from repbench.errors import UsageError
from repbench.files import refuse_unwritable
from repbench.registry import Entry, registry
from repbench.upstream.checkpoints.factory import RUNS, usual_preset
from repbench.upstream.checkpoints.native import MANIFEST_FILE, open_checkpoint
from repbench.upstream.checkpoints.untrained import RANDOM
from repbench.upstream.contract import Pretrainable, provenance_of
from repbench.upstream.pretraining.settings import TrainingSettings
from repbench.upstream.training_data import TrainingData

_WITH_OBJECTIVE = "Take mockingjay, apc, or a plugin's model that has an objective"


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainRequest:
    """Arguments of `repbench pretrain`.

    Attributes:
        upstream: Name of a model with an objective.
        corpus: A registered name with options, or the folder of a manifest.
        preset: One of the upstream's; None: its usual one.
        config: YAML of the settings that differ from the preset; the group `training` is the trainer's, the others are
            the model's.
        assignments: Single settings, `a.b=v`.
        steps: Updates; None: as the settings say.
        out: The run folder; None: below `runs/pretrain`, by upstream, preset and seed.
        resume: Whether to continue the run that is in the folder; `steps` may be more than it was planned for.
        from_checkpoint: Initial weights, as the `--checkpoint` of `repbench run`; optimizer, schedule and run are
            new. The settings of the model are those of the checkpoint, and the preset gives the training alone.
        device: auto, cpu, cuda, cuda:N.
        seed: Of the untrained weights and of all random draws.
    """

    upstream: str
    corpus: str = "synthetic"
    preset: str | None = None
    config: Path | str | None = None
    assignments: tuple[str, ...] = ()
    steps: int | None = None
    out: Path | str | None = None
    resume: bool = False
    from_checkpoint: Path | str | None = None
    device: str = "auto"
    seed: int = 0


class _Whole(Settings):
    """The settings with their group, so that an error names `training.steps` and not `steps`."""

    training: TrainingSettings = TrainingSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class StartCheckpoint:
    """The checkpoint that a training begins from.

    Attributes:
        checkpoint: Its path.
        fingerprint: Of weights and settings.
        heard: SHA-256 of the samples of each utterance that it was trained on, as far as they are known.
        notes: Caveats for readers of scores.
        history: Earlier trainings of the weights, oldest first, with the start from this checkpoint as the last event.
        trained_on: Data that it was trained on; None if it is not known.
    """

    checkpoint: str
    fingerprint: str
    heard: frozenset[str]
    notes: tuple[str, ...]
    history: tuple[Mapping[str, Any], ...]
    trained_on: tuple[TrainingData, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedPretraining:
    """A request whose settings are resolved."""

    request: PretrainRequest
    entry: Entry
    preset: str | None
    model: Pretrainable
    training: TrainingSettings
    run: Path
    device: torch.device
    start: StartCheckpoint | None = None


def resolve(request: PretrainRequest) -> ResolvedPretraining:
    """Load the settings and build the model, or refuse them, before any data is read.

    Args:
        request: As given.

    Raises:
        UsageError: A setting is unknown, impossible, or does not fit the model.
    """
    if request.seed >= 2**63:
        raise UsageError(f"A seed must be below 2^63, but is {request.seed}", key="--seed")
    entry = registry().find("upstream", request.upstream).entry
    if not is_manifest_path(request.corpus):
        registry().find("corpus", request.corpus)
    device = choose_device(request.device)
    preset, tree = _settings(request, entry, device)
    training = _training(request, tree.pop("training", {}))
    model = _built(request, entry, tree)
    _refuse_too_short(training, model)
    start = None if request.from_checkpoint is None else _start_of(request.from_checkpoint, model)
    ending = "" if start is None else f"-from-{start.fingerprint[:8]}"
    run = Path(request.out or RUNS / entry.name / f"{preset or 'default'}-seed{request.seed}{ending}")
    if run.exists() and not run.is_dir():
        raise UsageError("This is a file, not a folder", key="--out", file=run, do="Name a folder")
    refuse_unwritable(run)
    return ResolvedPretraining(
        request=request,
        entry=entry,
        preset=preset,
        model=model,
        training=training,
        run=run,
        device=device,
        start=start,
    )


def _settings(request: PretrainRequest, entry: Entry, device: torch.device) -> tuple[str | None, dict[str, Any]]:
    """The name of the preset, and its settings changed by those of the request."""
    presets = presets_of(entry)
    usual = usual_preset(device)
    preset = request.preset or (usual if usual in presets else None)
    if preset is not None and not presets:
        _built(request, entry, {})  # without an objective there are no presets either, and that is the better error
        raise UsageError(
            f"`{entry.name}` has no presets", key="--preset", do="Leave --preset out, and give --set KEY=VALUE"
        )
    if preset is not None and preset not in presets:
        listed = ", ".join(sorted(presets))
        raise UsageError(f"`{entry.name}` has no preset `{preset}`", key="--preset", do=f"There are: {listed}")
    tree = dict(presets[preset]) if preset is not None else {}
    if request.from_checkpoint is not None:
        # The model's settings are those of the checkpoint.
        tree = {key: value for key, value in tree.items() if key == "training"}
    if request.config is not None:
        tree = merged(tree, load_yaml(request.config))
    return preset, apply_overrides(tree, request.assignments)


def _training(request: PretrainRequest, tree: Any) -> TrainingSettings:
    training = build(_Whole, {"training": tree}, request.config or "the settings").training
    if request.steps is None:
        return training
    return build(_Whole, {"training": merged(tree, {"steps": request.steps})}, "--steps").training


def _built(request: PretrainRequest, entry: Entry, tree: dict[str, Any]) -> Pretrainable:
    """The model untrained, or with the weights that the training begins from."""
    no_objective = f"`{entry.name}` has no objective, so it cannot be pre-trained"
    checkpoint = RANDOM if request.from_checkpoint is None else os.fspath(request.from_checkpoint)
    if request.from_checkpoint is not None and checkpoint.partition(":")[0] == RANDOM:
        raise UsageError("Untrained weights are what a training begins with anyway", key="--from", do="Leave it out")
    try:
        model = build_upstream(entry, checkpoint, request.seed, settings=tree)
    except UsageError as error:
        if error.key == "--checkpoint" and request.from_checkpoint is not None:
            _built(replace(request, from_checkpoint=None), entry, {})  # without weights there is no objective either
            raise UsageError(error.what, file=error.file, key="--from", do=error.do) from error
        if error.key == "--checkpoint":
            # A model without weights refuses any checkpoint, but nobody gave one here.
            raise UsageError(no_objective, key="UPSTREAM", do=_WITH_OBJECTIVE) from error
        if tree and not presets_of(entry):
            _built(request, entry, {})  # without an objective, the settings are not the fault
        meant = [key for key in tree if key in TrainingSettings.model_fields and f"unknown key `{key}`" in error.what]
        if error.file is None and (request.config is not None or meant):
            do = f"Did you mean `training.{meant[0]}`?" if meant else error.do
            raise UsageError(error.what, file=request.config, key=error.key, do=do) from error
        raise
    if not isinstance(model, Pretrainable):
        raise UsageError(no_objective, key="UPSTREAM", do=_WITH_OBJECTIVE)
    return model


def _start_of(given: Path | str, model: Pretrainable) -> StartCheckpoint:
    """Provenance of the checkpoint whose weights the model has."""
    provenance = provenance_of(model)
    place = provenance.checkpoint or os.fspath(given)
    fields = open_checkpoint(Path(place)).fields if (Path(place) / MANIFEST_FILE).is_file() else {}
    corpus = fields.get("corpus")
    known = f"trained on {corpus['name']}" if corpus else "and what those learned from is not known"
    fingerprint = model.fingerprint()
    event = {
        "event": "from",
        "checkpoint": place,
        "fingerprint": fingerprint,
        "step": fields.get("step") if corpus else None,
        "corpus": corpus,
    }
    return StartCheckpoint(
        checkpoint=place,
        fingerprint=fingerprint,
        heard=provenance.digests,
        trained_on=provenance.trained_on,
        notes=(*provenance.notes, f"its training began with the weights of {place}, {known}"),
        history=(*fields.get("history", ()), event),
    )


def _refuse_too_short(training: TrainingSettings, model: Pretrainable) -> None:
    """Refuse lengths below the shortest stretch that the objective can learn from."""
    needed: int = getattr(model.objective, "min_frames", 1)
    lengths = {"training.min_frames": training.min_frames, "training.crop_frames": training.crop_frames}
    lengths |= {
        f"training.curriculum[{number}].crop_frames": stage.crop_frames
        for number, stage in enumerate(training.curriculum)
    }
    for key, length in lengths.items():
        if length is not None and length < needed:
            raise UsageError(f"`{key}` must be at least {needed} for {model.info.name}, but is {length}", key=key)
