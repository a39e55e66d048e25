"""From what `repbench pretrain` is asked to a run folder of checkpoints.

What can be refused without reading data is refused first. The utterances that are learned from are the train split of
a speaker-disjoint division of the corpus: the test speakers of frame tasks are never heard.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from repbench.benchmark.data.splits import Division, divide
from repbench.benchmark.environment import choose_device
from repbench.benchmark.features.extraction import why_excluded
from repbench.benchmark.loading.upstreams import build_upstream, presets_of
from repbench.benchmark.protocol import SplitSettings
from repbench.configs.loader import apply_overrides, build, load_yaml, merged
from repbench.configs.requests import request_of
from repbench.configs.settings import Settings
from repbench.corpora.contract import Corpus
from repbench.corpora.open import is_manifest_path, open_corpus
from repbench.corpora.read import check_rates, resampler_for
from repbench.errors import DataError, IntegrityError, RunInUseError, UsageError
from repbench.files import ensure_writable, write_json
from repbench.progress import Reporter, Silence
from repbench.registry import Entry, registry
from repbench.training.distributed import Processes, joined, local_device, locked_run_folder
from repbench.upstream.checkpoints.factory import HEARD_FILE, RANDOM, RUNS, usual_preset
from repbench.upstream.checkpoints.model_card import model_card
from repbench.upstream.checkpoints.native import (
    MANIFEST_FILE,
    Checkpoint,
    list_checkpoints,
    newest_intact,
    open_checkpoint,
    remove_leftovers,
)
from repbench.upstream.contract import Pretrainable, provenance_of
from repbench.upstream.pretraining.settings import TrainingSettings
from repbench.upstream.pretraining.trainer import Describe, Trainer, long_enough

RUN_FILE = "run.json"
RUN_SCHEMA = "repbench.pretraining/1"

_WITH_OBJECTIVE = "Take mockingjay, apc, or a plugin's model that has an objective"


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainRequest:
    """What `repbench pretrain` is asked for.

    Attributes:
        upstream: Name of a model with an objective.
        corpus: A registered name with options, or the folder of a manifest.
        preset: One of the upstream's; None: its usual one.
        config: YAML of what differs from the preset; the group `training` is the trainer's, the others the model's.
        assignments: Single settings, `a.b=v`.
        steps: Updates; None: as the settings say.
        out: The run folder; None: below `runs/pretrain`, by upstream, preset and seed.
        resume: Go on with the run that is there; `steps` may be more than it was planned for.
        from_checkpoint: The weights to begin with, as `repbench run --checkpoint` takes them; optimizer, schedule and
            run are new. The settings of the model are those of the checkpoint, and the preset gives the training alone.
        device: auto, cpu, cuda, cuda:N.
        seed: Of the untrained weights and of everything that is drawn.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrained:
    """How it ended.

    Attributes:
        run: The run folder.
        checkpoint: The last checkpoint.
        step: Steps taken.
        dev_loss: Of the last checkpoint.
        signal: The signal that ended it early, if one did.
        leads: Whether this process speaks for those that trained together.
    """

    run: Path
    checkpoint: Path
    step: int
    dev_loss: float | None
    signal: int | None = None
    leads: bool = True

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "run": str(self.run),
            "checkpoint": str(self.checkpoint),
            "step": self.step,
            "dev_loss": self.dev_loss,
            "signal": self.signal,
        }


class _Whole(Settings):
    """So that a fault of the training is told by its whole key."""

    training: TrainingSettings = TrainingSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """The checkpoint that a training begins from.

    Attributes:
        checkpoint: Its path.
        fingerprint: Of weights and settings.
        heard: SHA-256 of the samples of each utterance that it learned from, as far as they are known.
        notes: What a reader of scores should know of it.
        history: What its weights went through, oldest first, and that they were taken here.
    """

    checkpoint: str
    fingerprint: str
    heard: frozenset[str]
    notes: tuple[str, ...]
    history: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _ResolvedRequest:
    """A request whose settings are resolved."""

    request: PretrainRequest
    entry: Entry
    preset: str | None
    model: Pretrainable
    training: TrainingSettings
    run: Path
    device: torch.device
    start: _Start | None = None


def pretrain(upstream: str, *, corpus: str | Path = "synthetic", **options: Any) -> Pretrained:
    """Pre-train an upstream on the train split of a corpus.

    Args:
        upstream: Name of a model with an objective.
        corpus: A registered name with options, or the folder of a manifest.
        **options: Any other field of `repbench.benchmark.pipeline.pretrain.PretrainRequest`.

    Raises:
        UsageError: An option is unknown or of another type; and as `run_pretraining`.

    Example:
        >>> pretrain("apc", corpus="synthetic:tiny", preset="tiny", steps=20).step  # doctest: +SKIP
        20
    """
    return run_pretraining(request_of(PretrainRequest, {"upstream": upstream, "corpus": corpus, **options}))


def run_pretraining(request: PretrainRequest, reporter: Reporter | None = None) -> Pretrained:
    """Do what is asked; every checkpoint and log lies in the run folder.

    Raises:
        UsageError: It cannot be meant; nothing was read.
        RunInUseError: The run folder holds another run, or another process writes into it.
        DataError: The corpus has nothing to learn from.
        NonFiniteError: The loss or its gradient became NaN or infinite.
    """
    asked = _resolve(request)
    device = local_device(asked.device)
    with joined(device) as processes, locked_run_folder(asked.run, processes):
        looking_on = (reporter or Silence()) if processes.leads else Silence()
        return _train(replace(asked, device=device), processes, looking_on)


def _resolve(request: PretrainRequest) -> _ResolvedRequest:
    """Refuse what cannot be meant, before any data is read."""
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
    ensure_writable(run)
    return _ResolvedRequest(
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
    """The preset that is taken, and its settings with what the request says instead."""
    presets = presets_of(entry)
    usual = usual_preset(device)
    preset = request.preset or (usual if usual in presets else None)
    if preset is not None and not presets:
        _built(request, entry, {})  # what has no objective has no presets either, and that is the fault then
        raise UsageError(
            f"`{entry.name}` has no presets", key="--preset", do="Leave --preset out, and say --set KEY=VALUE"
        )
    if preset is not None and preset not in presets:
        listed = ", ".join(sorted(presets))
        raise UsageError(f"`{entry.name}` has no preset `{preset}`", key="--preset", do=f"There are: {listed}")
    tree = dict(presets[preset]) if preset is not None else {}
    if request.from_checkpoint is not None:
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
            _built(replace(request, from_checkpoint=None), entry, {})  # what has no weights has no objective
            raise UsageError(error.what, file=error.file, key="--from", do=error.do) from error
        if error.key == "--checkpoint":
            # It has no weights; the checkpoint that it refuses is not what was asked for here.
            raise UsageError(no_objective, key="UPSTREAM", do=_WITH_OBJECTIVE) from error
        if tree and not presets_of(entry):
            _built(request, entry, {})  # of what has no objective, the settings are not the fault
        meant = [key for key in tree if key in TrainingSettings.model_fields and f"unknown key `{key}`" in error.what]
        if error.file is None and (request.config is not None or meant):
            do = f"Did you mean `training.{meant[0]}`?" if meant else error.do
            raise UsageError(error.what, file=request.config, key=error.key, do=do) from error
        raise
    if not isinstance(model, Pretrainable):
        raise UsageError(no_objective, key="UPSTREAM", do=_WITH_OBJECTIVE)
    return model


def _start_of(given: Path | str, model: Pretrainable) -> _Start:
    """What is known of the checkpoint whose weights the model has."""
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
    return _Start(
        checkpoint=place,
        fingerprint=fingerprint,
        heard=provenance.heard,
        notes=(*provenance.notes, f"its training began with the weights of {place}, {known}"),
        history=(*fields.get("history", ()), event),
    )


def _refuse_too_short(training: TrainingSettings, model: Pretrainable) -> None:
    """Refuse stretches from which the objective cannot learn."""
    needed: int = getattr(model.objective, "min_frames", 1)
    lengths = {"training.min_frames": training.min_frames, "training.crop_frames": training.crop_frames}
    lengths |= {
        f"training.curriculum[{number}].crop_frames": stage.crop_frames
        for number, stage in enumerate(training.curriculum)
    }
    for key, length in lengths.items():
        if length is not None and length < needed:
            raise UsageError(f"`{key}` must be at least {needed} for {model.info.name}, but is {length}", key=key)


def _train(asked: _ResolvedRequest, processes: Processes, reporter: Reporter) -> Pretrained:
    request, run = asked.request, asked.run
    _say_what_was_taken(asked, reporter)
    done = _hold_to_run(asked, None)
    with reporter.stage(f"corpus {request.corpus}") as advance:
        corpus = open_corpus(request.corpus, progress=advance)
    _hold_to_run(asked, corpus)
    if done is not None and done.step >= asked.training.steps:
        done = newest_intact(run, lambda line: None)  # the trainer warns, if it has to fall back
    if done is not None and done.step >= asked.training.steps:
        reporter.say(f"note: {run} is complete: {done.step} steps")
        loss = done.fields.get("dev_loss")
        return Pretrained(run=run, checkpoint=done.path, step=done.step, dev_loss=loss, leads=processes.leads)
    for note in check_rates(corpus, asked.model.info.name, asked.model.info.sample_rate_hz):
        reporter.say(f"note: {note}")
    division = _division(corpus, asked, reporter)
    processes.wait()  # all have looked at the folder as it was
    if processes.leads:
        remove_leftovers(run)
        _write_run(asked, corpus)
    assert isinstance(asked.model, nn.Module)
    asked.model.to(asked.device)
    trainer = Trainer(
        model=asked.model,
        settings=asked.training,
        seed=request.seed,
        train=division.train,
        dev=division.dev,
        run=run,
        describe=_description(asked, corpus, division),
        history=() if asked.start is None else asked.start.history,
        device=asked.device,
        processes=processes,
        reporter=reporter,
    )
    processes.wait()
    trained = trainer.fit()
    processes.wait()  # the last checkpoint is there
    newest = trained.checkpoint or list_checkpoints(run)[-1]
    return Pretrained(
        run=run,
        checkpoint=newest.path,
        step=trained.step,
        dev_loss=trained.dev_loss,
        signal=trained.signal,
        leads=processes.leads,
    )


def _say_what_was_taken(asked: _ResolvedRequest, reporter: Reporter) -> None:
    if asked.request.device == "auto" and asked.device.type == "cpu":
        reporter.say("note: no CUDA device was found, so the CPU computes")
    if asked.preset is not None and asked.request.preset is None:
        why = "there is a GPU" if asked.preset == "base" else "there is no GPU; --preset base is the published size"
        reporter.say(f"note: preset `{asked.preset}` was taken, because {why}")
    if asked.start is not None:
        reporter.say(
            f"note: the weights and the model's settings are those of {asked.start.checkpoint}; optimizer and schedule "
            "are new"
        )
    reporter.say(f"note: the run is {asked.run}")


def _division(corpus: Corpus, asked: _ResolvedRequest, reporter: Reporter) -> Division:
    """Train and dev of a speaker-disjoint division, without what the upstream cannot take or is too short."""
    model = asked.model
    division = divide(corpus, "speaker-disjoint", SplitSettings())
    reason, shortest = why_excluded(model.info), asked.training.min_frames
    for warning in division.warnings:
        reporter.say(f"note: {warning}")
    rate = model.info.sample_rate_hz
    taken = ([each for each in part if reason(each) is None] for part in (division.train, division.dev))
    train, dev = (long_enough(part, shortest, model.objective, rate) for part in taken)
    left_out = len(division.train) + len(division.dev) - len(train) - len(dev)
    if left_out:
        reporter.say(
            f"note: {left_out} of {len(division.train) + len(division.dev)} utterances are left out: shorter than "
            f"training.min_frames ({shortest}), or of a length that {model.info.name} does not take"
        )
    if not train:
        raise DataError(f"No utterance of train has {shortest} frames", do="Choose a larger corpus")
    if not dev:
        reporter.say("note: no held-out utterance is left, so there is no dev loss")
    return replace(division, train=train, dev=dev)


# the run folder


def _write_run(asked: _ResolvedRequest, corpus: Corpus) -> None:
    """Write what the numbers of the run depend on; of one that goes on with more steps, these steps."""
    file = asked.run / RUN_FILE
    if not file.exists():
        write_json(file, _run_fields(asked, corpus))
        return
    before, steps = _read_run(file), asked.training.steps
    if before["training"].get("steps") != steps:
        write_json(file, before | {"training": before["training"] | {"steps": steps}})


def _run_fields(asked: _ResolvedRequest, corpus: Corpus) -> dict[str, Any]:
    began = {} if asked.start is None else {"from_checkpoint": asked.start.checkpoint}
    return {"schema": RUN_SCHEMA, "started": _now(), **began, **_setting(asked, corpus)}


def _setting(asked: _ResolvedRequest, corpus: Corpus | None) -> dict[str, Any]:
    """All that the numbers of a run depend on."""
    setting = {
        "upstream": asked.entry.qualified,
        "seed": asked.request.seed,
        "config": asked.model.config,
        "training": asked.training.model_dump(mode="json"),
    }
    if corpus is not None:
        setting["corpus"] = corpus.fingerprint
        if resampler := resampler_for(corpus, asked.model.info.sample_rate_hz):
            setting["resampler"] = resampler
    if asked.start is not None:
        setting["from_fingerprint"] = asked.start.fingerprint
    return setting


def _hold_to_run(asked: _ResolvedRequest, corpus: Corpus | None) -> Checkpoint | None:
    """The last checkpoint of the run that is to go on; None if there is no run yet.

    Raises:
        RunInUseError: There is a run, and it is not to go on, or has other settings.
    """
    file = asked.run / RUN_FILE
    checkpoints = list_checkpoints(asked.run)
    if not file.exists():
        if checkpoints:
            what = "This folder holds checkpoints but no run"
            raise RunInUseError(what, file=asked.run, do=f"Name another with --out: {RUN_FILE} is missing")
        return None
    before = _read_run(file)
    steps = checkpoints[-1].step if checkpoints else 0
    if not asked.request.resume:
        raise RunInUseError(
            f"This folder holds a run at step {steps} of {before.get('training', {}).get('steps', '?')}",
            file=asked.run,
            do="Say --resume to go on with it, or name another folder with --out",
        )
    if asked.start is None and "from_checkpoint" in before:
        what = f"This folder holds a run that began with the weights of {before['from_checkpoint']}"
        raise RunInUseError(what, file=asked.run, do="Say --from with this checkpoint too")
    setting = _setting(asked, corpus)
    planned = before["training"].get("steps")
    if isinstance(planned, int) and asked.training.steps > planned:
        before = before | {"training": before["training"] | {"steps": asked.training.steps}}
    differences = _differences(before, setting)
    if differences:
        raise RunInUseError(
            f"This folder holds a run with other settings: {'; '.join(differences)}",
            file=asked.run,
            do="Give the settings of the run (only its steps may become more), or name another folder with --out",
        )
    return checkpoints[-1] if checkpoints else None


def _read_run(file: Path) -> dict[str, Any]:
    """The settings of a run.

    Raises:
        IntegrityError: The file is not what was written.
    """
    try:
        run = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        reason = type(error).__name__ if isinstance(error, RecursionError) else str(error)
        raise IntegrityError(f"corrupt: {reason}", file=file, do="Name another folder with --out") from error
    groups = ("config", "training")
    if (
        not isinstance(run, dict)
        or run.get("schema") != RUN_SCHEMA
        or not {"started", "upstream", "seed", "corpus"} <= run.keys()
        or not all(isinstance(run.get(group), dict) for group in groups)
    ):
        raise IntegrityError("corrupt: this does not describe a run", file=file, do="Name another folder with --out")
    return run


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`key: old -> new` for each setting that changed."""
    old, new = _flat(before), _flat(now)
    keys = [key for key in sorted(old.keys() | new.keys()) if key.partition(".")[0] in now]
    return [_difference(key, old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)]


def _difference(key: str, old: Any, new: Any) -> str:
    if key == "corpus":
        return f"another corpus: its fingerprint was {str(old)[:16]} and is {str(new)[:16]}"
    return f"{key}: {json.dumps(old)} -> {json.dumps(new)}"


def _flat(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{above}.{key}" if above else key
        flat |= _flat(value, path) if isinstance(value, Mapping) else {path: json.loads(json.dumps(value))}
    return flat


# what checkpoints say


def _description(asked: _ResolvedRequest, corpus: Corpus, division: Division) -> Describe:
    fields: dict[str, Any] = {
        "started": _started(asked.run),
        "upstream": asked.entry.name,
        "preset": asked.preset,
        "config": dict(asked.model.config),
        "training": asked.training.model_dump(mode="json"),
        "seed": asked.request.seed,
        "corpus": {
            "name": corpus.name,
            "fingerprint": corpus.fingerprint,
            "licence": corpus.licence,
            "split_policy": division.policy,
            "n_train": len(division.train),
            "train_seconds": sum(each.seconds for each in division.train),
        },
        "origin": {"distribution": asked.entry.distribution, "version": asked.entry.version},
        "licence": asked.model.info.licence,
        "citation": asked.model.info.citation,
    }
    digests = {each.samples_sha256 for each in division.train}
    if asked.start is not None:
        fields["notes"] = list(asked.start.notes)
        digests |= asked.start.heard
    heard = "".join(f"{digest}\n" for digest in sorted(digests))
    return Describe(fields=fields, texts=lambda said: {"README.md": model_card(said), HEARD_FILE: heard})


def _started(run: Path) -> str:
    file = run / RUN_FILE
    return str(_read_run(file).get("started", "")) if file.exists() else _now()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
