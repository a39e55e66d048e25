"""Pre-training: from a request to a run folder of checkpoints.

Everything that can be refused without reading data is refused first. The utterances to learn from are the train split
of a speaker-disjoint division of the corpus: the test speakers of frame tasks are in no pre-training.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch import nn

from repbench.benchmark.data.splits import Division, divide
from repbench.benchmark.features.allocation import free_bytes
from repbench.benchmark.features.extraction import why_excluded
from repbench.benchmark.pipeline.pretrain_folder import describe, hold_to_run, write_run
from repbench.benchmark.pipeline.pretrain_request import PretrainRequest, ResolvedPretraining, resolve
from repbench.benchmark.protocol import SplitSettings
from repbench.configs.requests import request_of
from repbench.corpora.contract import Corpus
from repbench.corpora.open import open_corpus
from repbench.corpora.read import check_rates
from repbench.errors import DataError
from repbench.progress import Reporter, Silence
from repbench.training.distributed import Processes, joined, local_device, locked_run_folder, refuse_if_trained_in
from repbench.upstream.checkpoints.native import Checkpoint, list_checkpoints, newest_intact, remove_leftovers
from repbench.upstream.pretraining.trainer import Trainer, long_enough

__all__ = ["PretrainRequest", "Pretrained", "pretrain", "run_pretraining"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrained:
    """Result of a pre-training.

    Attributes:
        run: The run folder.
        checkpoint: The last checkpoint.
        step: Steps taken.
        dev_loss: Of the last checkpoint.
        signal: The signal that ended the training early; None otherwise.
        leads: Whether this process is the leading one of those that trained together.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPretraining:
    """What a pre-training would do.

    Attributes:
        run: The run folder.
        resumes_at: Step of the checkpoint that it goes on from; None of a new run.
        upstream: Name of the model.
        preset: Name of the preset; None without one.
        parameters: Weights of the model, those of the objective included.
        device: Where it would be computed.
        steps: Steps of the whole training.
        batch_frames: Most frames (or samples, where the objective has no frames) of a batch.
        utterances: Utterances to learn from and held-out ones, by split.
        seconds: Their durations in seconds.
        corpus: Name of the corpus.
        checkpoint_bytes: Size of the weights and the two moments of the optimizer as float32; a run keeps several.
        checkpoints: Most checkpoints that are kept: the last ones and the best.
        free_bytes: Free space on the disk of the folder.
    """

    run: Path
    resumes_at: int | None
    upstream: str
    preset: str | None
    parameters: int
    device: str
    steps: int
    batch_frames: int
    utterances: dict[str, int]
    seconds: dict[str, float]
    corpus: str
    checkpoint_bytes: int
    checkpoints: int
    free_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        return {"dry_run": True, **given, "run": str(self.run)}


def plan_pretraining(request: PretrainRequest, reporter: Reporter | None = None) -> PlannedPretraining:
    """What `run_pretraining` would do; neither the run folder nor a file in it is made or changed.

    Raises:
        As `run_pretraining`.
    """
    reporter = reporter or Silence()
    resolved = resolve(request)
    refuse_if_trained_in(resolved.run)
    corpus, done = _opened(resolved, reporter)
    if done is not None and done.step >= resolved.training.steps:
        reporter.say(f"note: {resolved.run} is complete: {done.step} steps")
    division = _division(corpus, resolved, reporter)
    assert isinstance(resolved.model, nn.Module)
    parameters = sum(each.numel() for each in resolved.model.parameters())
    parts = {"train": division.train, "dev": division.dev}
    return PlannedPretraining(
        run=resolved.run,
        resumes_at=None if done is None else done.step,
        upstream=resolved.entry.name,
        preset=resolved.preset,
        parameters=parameters,
        device=str(resolved.device),
        steps=resolved.training.steps,
        batch_frames=resolved.training.batch_frames,
        utterances={name: len(part) for name, part in parts.items()},
        seconds={name: sum(each.seconds for each in part) for name, part in parts.items()},
        corpus=corpus.name,
        checkpoint_bytes=3 * 4 * parameters,
        checkpoints=resolved.training.keep_last + 1,
        free_bytes=free_bytes(resolved.run),
    )


def run_pretraining(request: PretrainRequest, reporter: Reporter | None = None) -> Pretrained:
    """Pre-train as requested; every checkpoint and log is in the run folder.

    Raises:
        UsageError: The request contradicts itself or the model; nothing was read.
        RunInUseError: The run folder holds another run, or another process writes into it.
        DataError: The corpus has nothing to learn from.
        NonFiniteError: The loss or its gradient became NaN or infinite.
    """
    resolved = resolve(request)
    device = local_device(resolved.device)
    with joined(device) as processes, locked_run_folder(resolved.run, processes):
        leading = reporter if processes.leads else None
        return _train(replace(resolved, device=device), processes, leading or Silence())


def _train(resolved: ResolvedPretraining, processes: Processes, reporter: Reporter) -> Pretrained:
    request, run = resolved.request, resolved.run
    corpus, done = _opened(resolved, reporter)
    if done is not None and done.step >= resolved.training.steps:
        done = newest_intact(run, lambda line: None)  # the trainer warns of damaged checkpoints
    if done is not None and done.step >= resolved.training.steps:
        reporter.say(f"note: {run} is complete: {done.step} steps")
        loss = done.fields.get("dev_loss")
        return Pretrained(run=run, checkpoint=done.path, step=done.step, dev_loss=loss, leads=processes.leads)
    division = _division(corpus, resolved, reporter)
    processes.wait()  # all processes have read the folder as it was
    if processes.leads:
        remove_leftovers(run)
        write_run(resolved, corpus)
    assert isinstance(resolved.model, nn.Module)
    resolved.model.to(resolved.device)
    trainer = Trainer(
        model=resolved.model,
        settings=resolved.training,
        seed=request.seed,
        train=division.train,
        dev=division.dev,
        run=run,
        describe=describe(resolved, corpus, division),
        history=() if resolved.start is None else resolved.start.history,
        device=resolved.device,
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


def _opened(resolved: ResolvedPretraining, reporter: Reporter) -> tuple[Corpus, Checkpoint | None]:
    """The corpus, and the last checkpoint of the run to resume; refuses a folder of another run."""
    _say_choices(resolved, reporter)
    # Twice: before the corpus is opened, which may take minutes, and then with its fingerprint.
    done = hold_to_run(resolved, None)
    with reporter.stage(f"corpus {resolved.request.corpus}") as advance:
        corpus = open_corpus(resolved.request.corpus, progress=advance, say=reporter.say)
    hold_to_run(resolved, corpus)
    return corpus, done


def _say_choices(resolved: ResolvedPretraining, reporter: Reporter) -> None:
    if resolved.request.device == "auto" and resolved.device.type == "cpu":
        reporter.say("note: no CUDA device was found, so the CPU computes")
    if resolved.preset is not None and resolved.request.preset is None:
        why = "there is a GPU" if resolved.preset == "base" else "there is no GPU; --preset base is the published size"
        reporter.say(f"note: preset `{resolved.preset}` was taken, because {why}")
    if resolved.start is not None:
        reporter.say(
            f"note: the weights and the model's settings are those of {resolved.start.checkpoint}; optimizer and "
            "schedule are new"
        )
    reporter.say(f"note: the run is {resolved.run}")


def _division(corpus: Corpus, resolved: ResolvedPretraining, reporter: Reporter) -> Division:
    """Train and dev of a speaker-disjoint division, without utterances that the upstream cannot take or are short."""
    model = resolved.model
    for note in check_rates(corpus, model.info.name, model.info.sample_rate_hz):
        reporter.say(f"note: {note}")
    division = divide(corpus, "speaker-disjoint", SplitSettings())
    reason, shortest = why_excluded(model.info), resolved.training.min_frames
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
