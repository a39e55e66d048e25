"""Records that are already there, so that `--missing-only` computes none of them again.

Two records have one identity when upstream, task, corpus, mode, layer, label fraction, seed, head and protocol are the
same, the upstream and the corpus by content. The machine (device, threads, versions, batch size of the upstream, place
of the features) is no part of the identity, and neither are settings that the run does not read, as those of
fine-tuning where the model is frozen. Whatever else comes to change the meaning of a number has to become a field of
`Identity`. Layers count by the name they were given by: `last` and the number of the last layer are two identities,
because tables keep them apart.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from repbench.benchmark.features.source import resampler_of
from repbench.benchmark.loading.upstreams import code_of
from repbench.benchmark.pipeline.setup import RunContext, RunRequest, RunSetting, WrittenRecord
from repbench.benchmark.pipeline.write_record import condition_part, declared_part, pair_folder
from repbench.benchmark.protocol import Protocol, ResourceSettings, unread_settings
from repbench.benchmark.records.parts import ConditionPart, DeclaredModelPart, Origin
from repbench.benchmark.records.predictions_file import PREDICTIONS_FILE
from repbench.benchmark.records.record import RECORD_FILE, Record, digest_of, read_record
from repbench.corpora.contract import Corpus
from repbench.downstream.heads import head_origin
from repbench.errors import DataError, IntegrityError, UsageError
from repbench.files import canonical_json
from repbench.locks import exclusive_lock
from repbench.progress import Reporter
from repbench.registry import identity_of_code, is_packaged

LOCKS_FOLDER = ".running"
"""Folder, below that of the records, with a lock for each pair that is running."""

_CHANGES_NO_NUMBER = frozenset(
    [
        "extraction.batch_seconds",
        "extraction.store_gib",
        *(f"resources.{name}" for name in ResourceSettings.model_fields),
    ]
)
"""Settings of the computation and storage of features that do not change their values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """All that the numbers of a record depend on.

    Attributes:
        upstream: Name of the upstream.
        fingerprint: Of the upstream.
        downstream: Name of the task.
        corpus: Fingerprint of the corpus.
        mode: frozen or finetune.
        layer: As given.
        label_fraction: Share of the labels.
        seed: Of the probe.
        head: Name of the head.
        head_origin: Distribution and version of a plugin's head, and its file where no package identifies the code.
        trained: Whether the probe was trained on this corpus, not on another.
        protocol: The settings that can change a number, as JSON; controls and tuning are among them.
        resampler: Name of the resampler of sounds at another rate than the upstream's; None if there were none.
        code: SHA-256 of the files of upstream and task, where they are in no package.
        condition: Name and digest of the condition of the test sound, and whether the training matched it; None of
            clean sound.
        declared: The model that the folder of the features or units declares, as JSON. It changes no number, but the
            row that a report shows the record in; None without a name.
    """

    upstream: str
    fingerprint: str
    downstream: str
    corpus: str
    mode: str
    layer: str
    label_fraction: float
    seed: int
    head: str
    head_origin: str | None
    trained: bool
    protocol: bytes
    resampler: str | None
    code: tuple[str | None, str | None]
    condition: tuple[str, str, str] | None
    declared: bytes | None


def identity_of(record: Record) -> Identity:
    """The identity of a record."""
    return Identity(
        upstream=record.upstream.name,
        fingerprint=record.upstream.fingerprint,
        downstream=record.downstream.name,
        corpus=record.corpus.fingerprint,
        mode=record.mode,
        layer=record.layer,
        label_fraction=record.label_fraction,
        seed=record.seed,
        head=record.head,
        head_origin=None if record.head_origin is None else record.head_origin.identity,
        trained=record.corpus.n_train > 0,
        protocol=_of_protocol(record.protocol, record.mode, record.head),
        resampler=record.corpus.resampled_by,
        code=(_code(record.upstream.origin), _code(record.downstream.origin)),
        condition=None if record.condition is None else _of_condition(record.condition),
        declared=_of_declared(record.upstream.declared),
    )


def identity_to_be(context: RunContext, corpus: Corpus, setting: RunSetting) -> Identity:
    """The identity that the record of a setting will have."""
    mode = "finetune" if context.request.finetune else "frozen"
    protocol = setting.protocol(context.request.protocol).model_dump(mode="json")
    origin = head_origin(context.head)
    return Identity(
        upstream=context.request.upstream,
        fingerprint=context.fingerprint,
        downstream=context.request.downstream,
        corpus=corpus.fingerprint,
        mode=mode,
        layer=setting.layer,
        label_fraction=setting.fraction,
        seed=setting.seed,
        head=context.head,
        head_origin=None if origin is None else identity_of_code(**origin),
        trained=True,
        protocol=_of_protocol(protocol, mode, context.head),
        resampler=resampler_of(corpus, context.upstream),
        code=(code_of(context.upstream_entry), code_of(context.task_entry)),
        condition=_condition_to_be(context, setting),
        declared=_of_declared(declared_part(context.upstream)),
    )


def _of_declared(declared: DeclaredModelPart | None) -> bytes | None:
    return None if declared is None else canonical_json(declared.model_dump(mode="json"))


def _of_condition(condition: ConditionPart) -> tuple[str, str, str]:
    return condition.name, condition.digest, condition.training


def _condition_to_be(context: RunContext, setting: RunSetting) -> tuple[str, str, str] | None:
    if setting.condition is None:
        return None
    part = condition_part(context.conditions[setting.condition], matched=context.request.matched)
    return _of_condition(ConditionPart.model_validate(part))


def answers_in(folder: Path, say: Callable[[str], None]) -> dict[Identity, WrittenRecord]:
    """From identity to the whole and unedited records of a pair's folder; of two, the first in order of paths.

    Args:
        folder: As `pair_folder` returns it; need not exist.
        say: Called with a note for each damaged record.
    """
    found: dict[Identity, WrittenRecord] = {}
    for path in sorted(folder.glob(f"*/{RECORD_FILE}")):
        try:
            record = _whole(path)
        except (DataError, IntegrityError) as error:
            say(f"note: a record does not count: {error.line()}")
        else:
            found.setdefault(identity_of(record), WrittenRecord(path, record))
    return found


def answered_before(
    context: RunContext, corpus: Corpus, settings: Sequence[RunSetting]
) -> tuple[list[WrittenRecord], list[RunSetting]]:
    """The records of some of the settings, and the settings that have none."""
    request = context.request
    folder = pair_folder(request.out, corpus.name, request.downstream, request.upstream)
    answers = answers_in(folder, context.reporter.say)
    found = {setting: answers.get(identity_to_be(context, corpus, setting)) for setting in settings}
    missing = [setting for setting, written in found.items() if written is None]
    return [written for written in found.values() if written is not None], missing


@contextmanager
def alone_if_missing_only(request: RunRequest, reporter: Reporter) -> Iterator[None]:
    """With `missing_only`, keep two processes from the same pair: the second waits, and finds the records.

    Raises:
        UsageError: `probe` is given too.
    """
    if not request.missing_only:
        yield
        return
    refuse_trained_probe(request)
    names = [request.upstream, request.checkpoint, request.downstream, request.corpus]
    lock = request.out / LOCKS_FOLDER / f"{hashlib.sha256(canonical_json(names)).hexdigest()[:16]}.lock"
    with exclusive_lock(lock, "runs the same pair", wait=lambda who: reporter.say(f"note: {who}; waiting for it")):
        yield


def refuse_trained_probe(request: RunRequest) -> None:
    """Refuse to look for the missing records of a probe that is trained already.

    Raises:
        UsageError: `probe` is given.
    """
    if request.probe is not None:
        raise UsageError("The probe is already trained", key="--missing-only", do="Leave one of the two out")


def _whole(path: Path) -> Record:
    record = read_record(path)
    # Of the file's own fields: the parsed record has defaults that an older file lacks.
    if digest_of(json.loads(path.read_text(encoding="utf-8"))) != record.id:
        raise IntegrityError("It was changed after it was written", file=path, do="Remove it, or run it again")
    if not (path.parent / PREDICTIONS_FILE).is_file():
        raise IntegrityError(f"Its {PREDICTIONS_FILE} is missing", file=path, do="Remove it, or run it again")
    return record


def _code(origin: Origin | None) -> str | None:
    """As `code_of` returns it, for the plugin that a record names."""
    return None if origin is None or is_packaged(origin.distribution) else origin.file_sha256


def _of_protocol(protocol: Mapping[str, Any], mode: str, head: str) -> bytes:
    """The settings that change numbers; those that an older record lacks are at their defaults."""
    try:
        known = Protocol.model_validate(protocol)
    except ValidationError:
        # A protocol of another version, with settings unknown here: compared as it is.
        return canonical_json(_without(protocol, _CHANGES_NO_NUMBER))
    unread = unread_settings(mode, head, tuned=known.probe.tune)
    return canonical_json(_without(known.model_dump(mode="json"), _CHANGES_NO_NUMBER | unread))


def _without(protocol: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """The protocol without some settings of its groups, by dotted key."""
    return {
        group: {key: each for key, each in value.items() if f"{group}.{key}" not in names}
        if isinstance(value, Mapping)
        else value
        for group, value in protocol.items()
    }
