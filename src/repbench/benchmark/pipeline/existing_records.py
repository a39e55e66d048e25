"""When do two records answer the same question? So that a question that was answered is not asked again.

Two records answer one question when upstream, task, corpus, mode, layer, label fraction, seed, head and protocol are
the same, the upstream and the corpus by content. What computed the answer (device, threads, versions, how much went
through the upstream at once, where features were kept) is no part of the question, and neither are settings that the
run does not read, as those of fine-tuning where the model is frozen. Whatever comes to change what a number means has
to become a field of `Identity`. Layers count as they are asked for: `last` and the number of the last layer are two
questions, because tables keep them apart.
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
from repbench.benchmark.pipeline.write_record import pair_folder
from repbench.benchmark.protocol import Protocol, unread_settings
from repbench.benchmark.records.record import PREDICTIONS_FILE, RECORD_FILE, Origin, Record, digest_of, read_record
from repbench.corpora.contract import Corpus
from repbench.downstream.heads import head_origin
from repbench.errors import DataError, IntegrityError, UsageError
from repbench.files import canonical_json
from repbench.locks import exclusive_lock
from repbench.progress import Reporter
from repbench.registry import identity_of_code, is_packaged

LOCKS_FOLDER = ".running"
"""Below the folder of the records: a lock for each pair that is being asked."""

_CHANGES_NO_ANSWER = frozenset({"extraction.batch_seconds", "extraction.store_gib"})
"""Settings that decide how features are computed and kept, not what they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What is asked.

    Attributes:
        upstream: Its name.
        fingerprint: Of the upstream.
        downstream: Name of the task.
        corpus: Fingerprint of the corpus.
        mode: frozen or finetune.
        layer: As it was asked for.
        label_fraction: Share of the labels.
        seed: Of the probe.
        head: Name of the head.
        head_origin: Distribution and version of a plugin's head, and its file where no package identifies the code.
        trained: Whether the probe was trained on this corpus, or brought from another.
        protocol: The settings that can change an answer, as JSON; controls and tuning are among them.
        resampler: What brought sounds of another rate to that of the upstream; None if nothing had to.
        code: Of upstream and task, SHA-256 of their files where no package answers for them.
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


def identity_of(record: Record) -> Identity:
    """What a record answers."""
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
    )


def identity_to_be(context: RunContext, corpus: Corpus, setting: RunSetting) -> Identity:
    """What the record of a setting will answer."""
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
    )


def answers_in(folder: Path, say: Callable[[str], None]) -> dict[Identity, WrittenRecord]:
    """The whole and unedited records of a pair's folder, by what they answer; of two, the one first in order.

    Args:
        folder: As `pair_folder` gives it; need not exist.
        say: Told of records that do not count, and why.
    """
    found: dict[Identity, WrittenRecord] = {}
    for path in sorted(folder.glob(f"*/{RECORD_FILE}")):
        try:
            record = _whole(path)
        except (DataError, IntegrityError) as error:
            say(f"note: a record does not count as an answer: {error.line()}")
        else:
            found.setdefault(identity_of(record), WrittenRecord(path, record))
    return found


def answered_before(
    context: RunContext, corpus: Corpus, settings: Sequence[RunSetting]
) -> tuple[list[WrittenRecord], list[RunSetting]]:
    """The records that answer some of the settings, and the settings that none answers."""
    request = context.request
    folder = pair_folder(request.out, corpus.name, request.downstream, request.upstream)
    answers = answers_in(folder, context.reporter.say)
    found = {setting: answers.get(identity_to_be(context, corpus, setting)) for setting in settings}
    missing = [setting for setting, written in found.items() if written is None]
    return [written for written in found.values() if written is not None], missing


@contextmanager
def alone_if_missing_only(request: RunRequest, reporter: Reporter) -> Iterator[None]:
    """With `missing_only`, keep two processes from asking the same at once: the second waits and finds the answers.

    Raises:
        UsageError: It makes no sense with `probe`.
    """
    if not request.missing_only:
        yield
        return
    if request.probe is not None:
        raise UsageError("The probe is already trained", key="--missing-only", do="Leave one of the two out")
    names = [request.upstream, request.checkpoint, request.downstream, request.corpus]
    lock = request.out / LOCKS_FOLDER / f"{hashlib.sha256(canonical_json(names)).hexdigest()[:16]}.lock"
    with exclusive_lock(lock, "asks the same", wait=lambda who: reporter.say(f"note: {who}, and is waited for")):
        yield


def _whole(path: Path) -> Record:
    record = read_record(path)
    if digest_of(json.loads(path.read_text(encoding="utf-8"))) != record.id:
        raise IntegrityError("It was changed after it was written", file=path, do="Remove it, or run it again")
    if not (path.parent / PREDICTIONS_FILE).is_file():
        raise IntegrityError(f"Its {PREDICTIONS_FILE} is missing", file=path, do="Remove it, or run it again")
    return record


def _code(origin: Origin | None) -> str | None:
    """As `code_of` gives it of the plugin that a record names."""
    return None if origin is None or is_packaged(origin.distribution) else origin.file_sha256


def _of_protocol(protocol: Mapping[str, Any], mode: str, head: str) -> bytes:
    """The settings that matter; what an older record does not say is at its default."""
    try:
        known = Protocol.model_validate(protocol)
    except ValidationError:
        return canonical_json(_without(protocol, _CHANGES_NO_ANSWER))
    unread = unread_settings(mode, head, tuned=known.probe.tune)
    return canonical_json(_without(known.model_dump(mode="json"), _CHANGES_NO_ANSWER | unread))


def _without(protocol: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """The protocol without some settings of its groups, by dotted key."""
    return {
        group: {key: each for key, each in value.items() if f"{group}.{key}" not in names}
        if isinstance(value, Mapping)
        else value
        for group, value in protocol.items()
    }
