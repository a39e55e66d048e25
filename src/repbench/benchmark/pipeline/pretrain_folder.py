"""Run folder of a pre-training: its settings in `run.json`, and what its checkpoints state about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from repbench.benchmark.data.splits import Division
from repbench.benchmark.pipeline.pretrain_request import ResolvedPretraining
from repbench.configs.settings import flat
from repbench.corpora.contract import Corpus
from repbench.corpora.read import resampler_for
from repbench.errors import IntegrityError, RunInUseError
from repbench.files import write_json
from repbench.upstream.checkpoints.factory import HEARD_FILE, TRAINED_ON_FILE
from repbench.upstream.checkpoints.model_card import model_card
from repbench.upstream.checkpoints.native import Checkpoint, list_checkpoints
from repbench.upstream.pretraining.trainer import Describe
from repbench.upstream.training_data import UNKNOWN_DATA, TrainingData, as_json

RUN_FILE = "run.json"
RUN_SCHEMA = "repbench.pretraining/1"


def write_run(resolved: ResolvedPretraining, corpus: Corpus) -> None:
    """Write the settings of a new run; of a resumed run with more steps than planned, write the number of steps."""
    file = resolved.run / RUN_FILE
    if not file.exists():
        write_json(file, _run_fields(resolved, corpus))
        return
    before, steps = _read_run(file), resolved.training.steps
    if before["training"].get("steps") != steps:
        write_json(file, before | {"training": before["training"] | {"steps": steps}})


def _run_fields(resolved: ResolvedPretraining, corpus: Corpus) -> dict[str, Any]:
    began = {} if resolved.start is None else {"from_checkpoint": resolved.start.checkpoint}
    return {"schema": RUN_SCHEMA, "started": _now(), **began, **_setting(resolved, corpus)}


def _setting(resolved: ResolvedPretraining, corpus: Corpus | None) -> dict[str, Any]:
    """All settings that change the numbers of a run."""
    setting = {
        "upstream": resolved.entry.qualified,
        "seed": resolved.request.seed,
        "config": resolved.model.config,
        "training": resolved.training.model_dump(mode="json"),
    }
    if corpus is not None:
        setting["corpus"] = corpus.fingerprint
        if resampler := resampler_for(corpus, resolved.model.info.sample_rate_hz):
            setting["resampler"] = resampler
    if resolved.start is not None:
        setting["from_fingerprint"] = resolved.start.fingerprint
    return setting


def hold_to_run(resolved: ResolvedPretraining, corpus: Corpus | None) -> Checkpoint | None:
    """The last checkpoint of the run to resume; None if there is no run yet.

    Args:
        resolved: The requested settings.
        corpus: None before it is opened: its fingerprint is compared once it is.

    Raises:
        RunInUseError: There is a run, and it is not to be resumed, or has other settings.
    """
    file = resolved.run / RUN_FILE
    checkpoints = list_checkpoints(resolved.run)
    if not file.exists():
        if checkpoints:
            what = "This folder holds checkpoints but no run"
            raise RunInUseError(what, file=resolved.run, do=f"Name another with --out: {RUN_FILE} is missing")
        return None
    before = _read_run(file)
    steps = checkpoints[-1].step if checkpoints else 0
    if not resolved.request.resume:
        raise RunInUseError(
            f"This folder holds a run at step {steps} of {before.get('training', {}).get('steps', '?')}",
            file=resolved.run,
            do="Say --resume to go on with it, or name another folder with --out",
        )
    if resolved.start is None and "from_checkpoint" in before:
        what = f"This folder holds a run that began with the weights of {before['from_checkpoint']}"
        raise RunInUseError(what, file=resolved.run, do="Say --from with this checkpoint too")
    setting = _setting(resolved, corpus)
    planned = before["training"].get("steps")
    if isinstance(planned, int) and resolved.training.steps > planned:
        before = before | {"training": before["training"] | {"steps": resolved.training.steps}}
    differences = _differences(before, setting)
    if differences:
        raise RunInUseError(
            f"This folder holds a run with other settings: {'; '.join(differences)}",
            file=resolved.run,
            do="Give the settings of the run (only its steps may become more), or name another folder with --out",
        )
    return checkpoints[-1] if checkpoints else None


def _read_run(file: Path) -> dict[str, Any]:
    """The settings of a run.

    Raises:
        IntegrityError: The file is damaged.
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


_CHANGES_NO_WEIGHT = {"training.recompute_activations"}
"""Settings that a run may change when it is resumed."""


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`key: old -> new` for each setting that changed."""
    # Through JSON, because tuples come back from the file as lists.
    old, new = (flat(json.loads(json.dumps(tree))) for tree in (before, now))
    keys = [key for key in sorted((old.keys() | new.keys()) - _CHANGES_NO_WEIGHT) if key.partition(".")[0] in now]
    return [_difference(key, old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)]


def _difference(key: str, old: Any, new: Any) -> str:
    if key == "corpus":
        return f"another corpus: its fingerprint was {str(old)[:16]} and is {str(new)[:16]}"
    return f"{key}: {json.dumps(old)} -> {json.dumps(new)}"


# contents of a checkpoint


def describe(resolved: ResolvedPretraining, corpus: Corpus, division: Division) -> Describe:
    fields: dict[str, Any] = {
        "started": _started(resolved.run),
        "upstream": resolved.entry.name,
        "preset": resolved.preset,
        "config": dict(resolved.model.config),
        "training": resolved.training.model_dump(mode="json"),
        "seed": resolved.request.seed,
        "corpus": {
            "name": corpus.name,
            "fingerprint": corpus.fingerprint,
            "licence": corpus.licence,
            "split_policy": division.policy,
            "n_train": len(division.train),
            "train_seconds": sum(each.seconds for each in division.train),
        },
        "origin": {"distribution": resolved.entry.distribution, "version": resolved.entry.version},
        "licence": resolved.model.info.licence,
        "citation": resolved.model.info.citation,
    }
    digests = {each.samples_sha256 for each in division.train}
    speakers = {each.speaker for each in division.train}
    own = TrainingData(
        name=corpus.name,
        splits=("train",),
        # Without the speaker of one utterance nobody can say who is not among them.
        speakers=None if None in speakers else frozenset(each for each in speakers if each is not None),
        samples_sha256=frozenset(digests),
        fingerprint=corpus.fingerprint,
        source="the checkpoint",
    )
    before: tuple[TrainingData, ...] = ()
    if resolved.start is not None:
        fields["notes"] = list(resolved.start.notes)
        digests |= resolved.start.heard
        before = (UNKNOWN_DATA,) if resolved.start.trained_on is None else resolved.start.trained_on
    heard = "".join(f"{digest}\n" for digest in sorted(digests))
    trained_on = f"{json.dumps(as_json((own, *before)), indent=1)}\n"
    return Describe(
        fields=fields,
        texts=lambda known: {"README.md": model_card(known), HEARD_FILE: heard, TRAINED_ON_FILE: trained_on},
    )


def _started(run: Path) -> str:
    file = run / RUN_FILE
    return str(_read_run(file).get("started", "")) if file.exists() else _now()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
