"""The head of a leaderboard: its title, its rules, and what it takes. Written by people, in YAML."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from repbench.benchmark.protocol import Protocol
from repbench.benchmark.records.record import Record
from repbench.benchmark.report.data.columns import has_effect
from repbench.benchmark.report.render.commands import as_yaml
from repbench.configs.loader import build, load_yaml, merged
from repbench.configs.settings import NonNegativeInt, Settings, flat
from repbench.errors import UsageError, quoted
from repbench.files import canonical_json, create

HEAD_FILE: Final = "leaderboard.yaml"


class AcceptedTask(Settings):
    """A question that the leaderboard takes answers to."""

    task: str
    """Name of the downstream."""
    corpus: Annotated[str, Field(min_length=16)]
    """The corpus's fingerprint, or 16 digits and more of its beginning."""
    references: str | None = None
    """Digest of ids and references of the test split; null: those of the first submission, or of `--corpus`."""
    protocols: tuple[dict[str, Any], ...] = ({},)
    """What may differ from the default protocol: `{}` is the default itself."""
    heads: tuple[str, ...] | None = None
    """Heads that are taken; null: any."""
    modes: tuple[Literal["frozen", "finetune"], ...] = ("frozen", "finetune")
    """Modes that are taken."""


class LeaderboardSettings(Settings):
    """What a leaderboard is called, and what it takes."""

    title: Annotated[str, Field(min_length=1, max_length=200)]
    """Shown at the top of the page."""
    rules: Annotated[str, Field(max_length=4000)] = ""
    """Shown on the page; plain text, a paragraph a line."""
    questions: Annotated[tuple[AcceptedTask, ...], Field(min_length=1)]
    """What is taken; everything else is refused."""
    allow_excluded: NonNegativeInt = 0
    """Most test utterances that a submission may leave out."""
    max_submission_mib: Annotated[float, Field(gt=0, le=1024, allow_inf_nan=False)] = 64.0
    """Largest file of a submission, in MiB."""

    @property
    def most_bytes(self) -> int:
        """The largest file of a submission, in bytes."""
        return int(self.max_submission_mib * (1 << 20))


def read_head(folder: Path) -> LeaderboardSettings:
    """Read the head of a leaderboard.

    Raises:
        UsageError: There is none, or it says what it cannot mean; names every key.
    """
    path = folder / HEAD_FILE
    if not path.is_file():
        do = f"Make one with `repbench leaderboard init {quoted(folder)}`"
        raise UsageError(f"There is no leaderboard here: {HEAD_FILE} is missing", file=folder, do=do)
    head = build(LeaderboardSettings, load_yaml(path), path)
    for question in head.questions:
        for protocol in question.protocols:
            build(Protocol, protocol, path)
    return head


_NEW_HEAD = """\
# What this leaderboard is called and what it takes. Everything else is refused. See docs/leaderboard.md.
title: {title}
rules: |
  Every number on this page was computed again from the submitted predictions.

questions:
{questions}
allow_excluded: 0        # most test utterances that a submission may leave out
max_submission_mib: 64   # largest file of a submission
"""
_NEW_QUESTION = """\
  - task: {task}
    corpus: {corpus}   # its fingerprint: `corpus.fingerprint` of a record
    protocols: [{protocols}]   # what may differ from the default protocol
    heads: [{heads}]
    modes: [{modes}]
"""
_NO_CORPUS = "0" * 16


def write_head(folder: Path, title: str, records: Sequence[Record] = ()) -> Path:
    """Write the head of a new leaderboard that takes what some records answer.

    Args:
        folder: Of the leaderboard, made if need be.
        title: Shown at the top of the page.
        records: Of each task and corpus, their protocols, heads and modes are taken. Without any there is one question,
            whose corpus is left to fill in.

    Raises:
        UsageError: There is a head already, or a record has settings that are not known here.
    """
    questions: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        questions.setdefault((record.downstream.name, record.corpus.fingerprint), []).append(record)
    listed = [_new_question(*question, several) for question, several in questions.items()]
    text = _NEW_HEAD.format(
        title=_plain(title),
        questions="".join(listed) or _question_text("phone", _NO_CORPUS, [{}], ["linear"], ["frozen", "finetune"]),
    )
    path = folder / HEAD_FILE
    if not create(path, text):
        raise UsageError("There is a leaderboard here already", file=path, do="Edit it, or choose another folder")
    read_head(folder)
    return path


def _new_question(task: str, corpus: str, records: Sequence[Record]) -> str:
    protocols = [_tree(_differences(build(Protocol, record.protocol, "a record"), {}, record)) for record in records]
    once = list({canonical_json(protocol): protocol for protocol in protocols}.values())
    heads, modes = ({getattr(record, name) for record in records} for name in ("head", "mode"))
    return _question_text(task, corpus, once, sorted(heads), sorted(modes))


def _question_text(task: str, corpus: str, protocols: Sequence[Any], heads: Sequence[str], modes: Sequence[str]) -> str:
    protocols, heads, modes = (", ".join(map(_plain, each)) for each in (protocols, heads, modes))
    return _NEW_QUESTION.format(task=_plain(task), corpus=_plain(corpus), protocols=protocols, heads=heads, modes=modes)


def _plain(value: Any) -> str:
    """A value as YAML in one line, which JSON is."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _tree(differences: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
    """The settings by group, from dotted names to what is said."""
    tree: dict[str, Any] = {}
    for name, (said, _) in differences.items():
        *groups, last = name.split(".")
        below = tree
        for group in groups:
            below = below.setdefault(group, {})
        below[last] = said
    return tree


def protocol_of(record: Record, file: Path) -> Protocol:
    """The record's protocol, as this version of repbench knows it.

    Raises:
        UsageError: It has settings that are not known here.
    """
    return build(Protocol, record.protocol, file)


def question_of(head: LeaderboardSettings, record: Record, protocol: Protocol, file: Path) -> AcceptedTask:
    """The question of the head that a record answers.

    Raises:
        UsageError: There is none; says what comes nearest and in what the record differs.
    """
    reasons = [_refusal(question, record, protocol) for question in head.questions]
    for question, reason in zip(head.questions, reasons, strict=True):
        if reason is None:
            return question
    key, what, do = max((reason for reason in reasons if reason is not None), key=lambda each: _ORDER.index(each[0]))
    raise UsageError(f"This leaderboard does not take the record: {what}", file=file, key=key, do=do)


_ORDER = ("downstream.name", "corpus.fingerprint", "mode", "head", "protocol")
"""What is looked at first: the reason that comes last is that of the nearest question."""


def _refusal(question: AcceptedTask, record: Record, protocol: Protocol) -> tuple[str, str, str] | None:
    """The key that does not fit, what is wrong with it, and what to do; None where all fits."""
    if record.downstream.name != question.task:
        return "downstream.name", f"its task is {record.downstream.name}", f"Answer {question.task}"
    if not record.corpus.fingerprint.startswith(question.corpus):
        what = f"its corpus has the fingerprint {record.corpus.fingerprint[:16]}, and not {question.corpus[:16]}"
        return "corpus.fingerprint", what, "Run it on the corpus that the leaderboard names"
    if record.mode not in question.modes:
        return "mode", f"its mode is {record.mode}", f"Take {' or '.join(question.modes)}"
    if question.heads is not None and record.head not in question.heads:
        return "head", f"its head is {record.head}", f"Run it with --head {' or '.join(question.heads)}"
    differences = [_differences(protocol, asked, record) for asked in question.protocols]
    if all(differences):
        fewest = min(differences, key=len)
        what = "; ".join(f"{name} is {said}, and not {asked}" for name, (said, asked) in fewest.items())
        wanted = " ".join(f"--set {quoted(f'{name}={as_yaml(asked)}')}" for name, (_, asked) in fewest.items())
        return "protocol", what, f"Run it with {wanted}"
    return None


def _differences(protocol: Protocol, asked: Mapping[str, Any], record: Record) -> dict[str, tuple[Any, Any]]:
    """The settings in which a protocol differs from the default changed by what is asked: as it is, as asked."""
    said = flat(protocol.model_dump(mode="json"))
    wanted = flat(merged(Protocol().model_dump(mode="json"), asked))
    names = sorted(name for name in said.keys() | wanted.keys() if has_effect(name, record))
    return {name: (said.get(name), wanted.get(name)) for name in names if said.get(name) != wanted.get(name)}
