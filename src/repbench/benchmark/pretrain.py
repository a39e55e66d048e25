"""From what `repbench pretrain` is asked to a run folder of checkpoints.

What can be refused without reading data is refused first. The utterances that are learned from are the train split of
a speaker-disjoint division of the corpus: the test speakers of frame tasks are never heard.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from repbench.benchmark.environment import choose_device
from repbench.benchmark.features import why_excluded
from repbench.benchmark.loading import build_upstream, presets_of
from repbench.benchmark.owning import locked
from repbench.benchmark.protocol import SplitSettings
from repbench.benchmark.splits import Division, divide
from repbench.configs.loader import apply_overrides, build, load_yaml, merged
from repbench.configs.settings import Settings
from repbench.corpora.contract import Corpus
from repbench.corpora.opening import is_manifest_path, open_corpus
from repbench.corpora.reading import check_rates
from repbench.errors import DataError, IntegrityError, RunInUseError, UsageError
from repbench.files import ensure_writable, write_json
from repbench.progress import Reporter, Silence
from repbench.registry import Entry, registry
from repbench.upstream.checkpoints import Checkpoint, list_checkpoints, newest_intact, remove_leftovers
from repbench.upstream.contract import Pretrainable
from repbench.upstream.model_card import model_card
from repbench.upstream.networks import HEARD_FILE, RUNS, usual_preset
from repbench.upstream.parallel import Processes, joined, local_device
from repbench.upstream.pretraining import Describe, Trainer, long_enough
from repbench.upstream.training_settings import TrainingSettings

RUN_FILE = "run.json"
RUN_SCHEMA = "repbench.pretraining/1"


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
        resume: Go on with the run that is there.
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
class _Asked:
    """A request whose settings are resolved."""

    request: PretrainRequest
    entry: Entry
    preset: str | None
    model: Pretrainable
    training: TrainingSettings
    run: Path
    device: torch.device


def pretrain(upstream: str, *, corpus: str = "synthetic", **options: Any) -> Pretrained:
    """Pre-train an upstream on the train split of a corpus.

    Args:
        upstream: Name of a model with an objective.
        corpus: A registered name with options, or the folder of a manifest.
        **options: Any other field of `repbench.benchmark.pretrain.PretrainRequest`.

    Example:
        >>> pretrain("apc", corpus="synthetic:tiny", preset="tiny", steps=20).step  # doctest: +SKIP
        20
    """
    return run_pretraining(PretrainRequest(upstream=upstream, corpus=corpus, **options))


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
    with joined(device) as processes, locked(asked.run, processes):
        looking_on = (reporter or Silence()) if processes.leads else Silence()
        return _train(replace(asked, device=device), processes, looking_on)


def _resolve(request: PretrainRequest) -> _Asked:
    """Refuse what cannot be meant, before any data is read."""
    if request.seed >= 2**63:
        raise UsageError(f"A seed must be below 2^63, but is {request.seed}", key="--seed")
    entry = registry().find("upstream", request.upstream).entry
    if not is_manifest_path(request.corpus):
        registry().find("corpus", request.corpus)
    device = choose_device(request.device)
    preset, tree = _settings(request, entry, device)
    training = _training(request, tree.pop("training", {}))
    model = _untrained(request, entry, tree)
    _refuse_too_short(training, model)
    run = Path(request.out or RUNS / entry.name / f"{preset or 'default'}-seed{request.seed}")
    if run.exists() and not run.is_dir():
        raise UsageError("This is a file, not a folder", key="--out", file=run, do="Name a folder")
    ensure_writable(run)
    return _Asked(request=request, entry=entry, preset=preset, model=model, training=training, run=run, device=device)


def _settings(request: PretrainRequest, entry: Entry, device: torch.device) -> tuple[str | None, dict[str, Any]]:
    """The preset that is taken, and its settings with what the request says instead."""
    presets = presets_of(entry)
    usual = usual_preset(device)
    preset = request.preset or (usual if usual in presets else None)
    if preset is not None and preset not in presets:
        listed = ", ".join(sorted(presets)) or "none"
        raise UsageError(f"`{entry.name}` has no preset `{preset}`", key="--preset", do=f"There are: {listed}")
    tree = dict(presets[preset]) if preset is not None else {}
    if request.config is not None:
        tree = merged(tree, load_yaml(request.config))
    return preset, apply_overrides(tree, request.assignments)


def _training(request: PretrainRequest, tree: Any) -> TrainingSettings:
    training = build(_Whole, {"training": tree}, request.config or "the settings").training
    if request.steps is None:
        return training
    return build(_Whole, {"training": merged(tree, {"steps": request.steps})}, "--steps").training


def _untrained(request: PretrainRequest, entry: Entry, tree: dict[str, Any]) -> Pretrainable:
    no_objective = f"`{entry.name}` has no objective, so it cannot be pre-trained"
    try:
        model = build_upstream(entry, "random", request.seed, settings=tree)
    except UsageError as error:
        if error.key == "--checkpoint":
            # It has no weights; the checkpoint that it refuses is not what was asked for here.
            raise UsageError(no_objective, key="UPSTREAM") from error
        meant = [key for key in tree if key in TrainingSettings.model_fields and f"unknown key `{key}`" in error.what]
        if error.file is None and (request.config is not None or meant):
            do = f"Did you mean `training.{meant[0]}`?" if meant else error.do
            raise UsageError(error.what, file=request.config, key=error.key, do=do) from error
        raise
    if not isinstance(model, Pretrainable):
        raise UsageError(no_objective, key="UPSTREAM")
    return model


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


def _train(asked: _Asked, processes: Processes, reporter: Reporter) -> Pretrained:
    request, run = asked.request, asked.run
    _say_what_was_taken(asked, reporter)
    done = _hold_to_run(asked, None)
    with reporter.stage(f"corpus {request.corpus}") as advance:
        corpus = open_corpus(request.corpus, progress=advance)
    _hold_to_run(asked, corpus.fingerprint)
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
        if not (run / RUN_FILE).exists():
            write_json(run / RUN_FILE, _run_fields(asked, corpus.fingerprint))
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


def _say_what_was_taken(asked: _Asked, reporter: Reporter) -> None:
    if asked.request.device == "auto" and asked.device.type == "cpu":
        reporter.say("note: no CUDA device was found, so the CPU computes")
    if asked.preset is not None and asked.request.preset is None:
        why = "there is a GPU" if asked.preset == "base" else "there is no GPU; --preset base is the published size"
        reporter.say(f"note: preset `{asked.preset}` was taken, because {why}")
    reporter.say(f"note: the run is {asked.run}")


def _division(corpus: Corpus, asked: _Asked, reporter: Reporter) -> Division:
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


def _run_fields(asked: _Asked, corpus_fingerprint: str) -> dict[str, Any]:
    return {"schema": RUN_SCHEMA, "started": _now(), **_setting(asked, corpus_fingerprint)}


def _setting(asked: _Asked, corpus_fingerprint: str | None) -> dict[str, Any]:
    """All that the numbers of a run depend on."""
    setting = {
        "upstream": asked.entry.qualified,
        "seed": asked.request.seed,
        "config": asked.model.config,
        "training": asked.training.model_dump(mode="json"),
    }
    if corpus_fingerprint is not None:
        setting["corpus"] = corpus_fingerprint
    return setting


def _hold_to_run(asked: _Asked, corpus_fingerprint: str | None) -> Checkpoint | None:
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
    differences = _differences(before, _setting(asked, corpus_fingerprint))
    if differences:
        raise RunInUseError(
            f"This folder holds a run with other settings: {'; '.join(differences)}",
            file=asked.run,
            do="Give the settings of the run, or name another folder with --out",
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


def _description(asked: _Asked, corpus: Corpus, division: Division) -> Describe:
    fields = {
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
    heard = "".join(f"{digest}\n" for digest in sorted({each.samples_sha256 for each in division.train}))
    return Describe(fields=fields, texts=lambda said: {"README.md": model_card(said), HEARD_FILE: heard})


def _started(run: Path) -> str:
    file = run / RUN_FILE
    return str(_read_run(file).get("started", "")) if file.exists() else _now()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
