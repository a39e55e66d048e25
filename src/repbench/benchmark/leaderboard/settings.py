"""Settings of a leaderboard, written by hand in YAML: its title, rules and accepted tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field

from repbench.audio.disturbances.condition import PRESETS, parse_condition
from repbench.benchmark.protocol import Protocol
from repbench.benchmark.records.record import Record
from repbench.benchmark.report.data.columns import has_effect
from repbench.benchmark.report.render.commands import as_yaml
from repbench.configs.loader import build, load_yaml, merged
from repbench.configs.settings import NonNegativeInt, Settings, flat
from repbench.errors import UsageError, quoted
from repbench.files import canonical_json, create

HEAD_FILE: Final = "leaderboard.yaml"


def _condition(text: str) -> str:
    if text not in PRESETS:
        try:
            parse_condition(text)
        except UsageError as error:
            raise ValueError(error.line().rstrip(".")) from error
    return text


class AcceptedTask(Settings):
    """A task and corpus that the leaderboard accepts records of."""

    task: str
    """Name of the downstream."""
    corpus: Annotated[str, Field(min_length=16)]
    """Fingerprint of the corpus, or at least its first 16 digits."""
    references: str | None = None
    """Digest of the references of the test split; null: those of the first submission, or of `--corpus`."""
    protocols: tuple[dict[str, Any], ...] = ({},)
    """Accepted protocols, as differences from the default protocol; `{}` is the default itself."""
    heads: tuple[str, ...] | None = None
    """Accepted heads; null: any."""
    modes: tuple[Literal["frozen", "finetune"], ...] = ("frozen", "finetune")
    """Accepted modes."""
    conditions: tuple[Annotated[str, AfterValidator(_condition)], ...] = ()
    """Accepted conditions of the test sound, as `--condition`, and names of sets, as `--conditions`; clean sound is
    always accepted."""

    @property
    def names_of_conditions(self) -> tuple[str, ...]:
        """The accepted conditions by their canonical names."""
        every = (one for each in self.conditions for one in PRESETS.get(each, (each,)))
        return tuple(dict.fromkeys(parse_condition(each).name for each in every))


class LeaderboardSettings(Settings):
    """Title, rules and accepted tasks of a leaderboard."""

    title: Annotated[str, Field(min_length=1, max_length=200)]
    """Title of the page."""
    rules: Annotated[str, Field(max_length=4000)] = ""
    """Text on the page: plain text, one paragraph per line."""
    questions: Annotated[tuple[AcceptedTask, ...], Field(min_length=1)]
    """Accepted tasks and corpora; other records are refused."""
    allow_excluded: NonNegativeInt = 0
    """Most test utterances that a submission may leave out."""
    max_submission_mib: Annotated[float, Field(gt=0, le=1024, allow_inf_nan=False)] = 64.0
    """Largest file of a submission, in MiB."""

    @property
    def most_bytes(self) -> int:
        """Largest file of a submission, in bytes."""
        return int(self.max_submission_mib * (1 << 20))


def read_head(folder: Path) -> LeaderboardSettings:
    """Read the settings of a leaderboard.

    Raises:
        UsageError: There are none, or they are invalid; names every key.
    """
    path = folder / HEAD_FILE
    if not path.is_file():
        do = f"Make one with `repbench leaderboard init {quoted(folder)}`"
        raise UsageError(f"There is no leaderboard here: {HEAD_FILE} is missing", file=folder, do=do)
    head = build(LeaderboardSettings, load_yaml(path), path)
    for question in head.questions:
        # Built to be checked alone: an unknown setting is an error when the page is made, not when a record comes.
        for protocol in question.protocols:
            build(Protocol, protocol, path)
    return head


_NEW_HEAD = """\
# Title, rules and accepted records of this leaderboard; other records are refused. See docs/leaderboard.md.
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
    conditions: [{conditions}]   # of the test sound, beside clean sound
"""
_NO_CORPUS = "0" * 16


def write_head(folder: Path, title: str, records: Sequence[Record] = ()) -> Path:
    """Write the settings of a new leaderboard that accepts some records.

    Args:
        folder: Folder of the leaderboard, created if necessary.
        title: Title of the page.
        records: Their tasks and corpora with their protocols, heads and modes are accepted. Without any there is one
            task, whose corpus is left to fill in.

    Raises:
        UsageError: There are settings already, or a record has settings that this version does not know.
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
    # With {} as the accepted protocol, the differences are those to the default.
    protocols = [_tree(_differences(build(Protocol, record.protocol, "a record"), {}, record)) for record in records]
    once = list({canonical_json(protocol): protocol for protocol in protocols}.values())
    heads, modes = ({getattr(record, name) for record in records} for name in ("head", "mode"))
    conditions = {each.condition.name for each in records if each.condition is not None}
    return _question_text(task, corpus, once, sorted(heads), sorted(modes), sorted(conditions))


def _question_text(
    task: str,
    corpus: str,
    protocols: Sequence[Any],
    heads: Sequence[str],
    modes: Sequence[str],
    conditions: Sequence[str] = (),
) -> str:
    lists = {"protocols": protocols, "heads": heads, "modes": modes, "conditions": conditions}
    shown = {name: ", ".join(map(_plain, each)) for name, each in lists.items()}
    return _NEW_QUESTION.format(task=_plain(task), corpus=_plain(corpus), **shown)


def _plain(value: Any) -> str:
    """A value as YAML in one line, by way of JSON."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _tree(differences: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
    """The differing settings of a protocol as a tree, from their dotted names."""
    tree: dict[str, Any] = {}
    for name, (value, _) in differences.items():
        *groups, last = name.split(".")
        below = tree
        for group in groups:
            below = below.setdefault(group, {})
        below[last] = value
    return tree


def protocol_of(record: Record, file: Path) -> Protocol:
    """The protocol of a record.

    Raises:
        UsageError: It has settings that this version does not know.
    """
    return build(Protocol, record.protocol, file)


def accepted_task(head: LeaderboardSettings, record: Record, protocol: Protocol, file: Path) -> AcceptedTask:
    """The accepted task that a record belongs to.

    Raises:
        UsageError: There is none; names the differences to the closest one.
    """
    reasons = [_refusal(each, record, protocol) for each in head.questions]
    for each, reason in zip(head.questions, reasons, strict=True):
        if reason is None:
            return each
    # The later the failed check, the closer the task: its message is the one that helps.
    key, what, do = max((reason for reason in reasons if reason is not None), key=lambda each: _ORDER.index(each[0]))
    raise UsageError(f"This leaderboard does not accept the record: {what}", file=file, key=key, do=do)


_ORDER = ("downstream.name", "corpus.fingerprint", "mode", "head", "condition", "protocol")
"""Order of the checks: the task whose check fails last is the closest."""


def _refusal(accepted: AcceptedTask, record: Record, protocol: Protocol) -> tuple[str, str, str] | None:
    """Key, fault and remedy of the first check that fails; None if the record is accepted."""
    if record.downstream.name != accepted.task:
        return "downstream.name", f"its task is {record.downstream.name}", f"Run {accepted.task}"
    if not record.corpus.fingerprint.startswith(accepted.corpus):
        what = f"its corpus has the fingerprint {record.corpus.fingerprint[:16]}, and not {accepted.corpus[:16]}"
        return "corpus.fingerprint", what, "Run it on the corpus that the leaderboard names"
    if record.mode not in accepted.modes:
        return "mode", f"its mode is {record.mode}", f"Take {' or '.join(accepted.modes)}"
    if accepted.heads is not None and record.head not in accepted.heads:
        return "head", f"its head is {record.head}", f"Run it with --head {' or '.join(accepted.heads)}"
    if (refused := _refused_condition(accepted, record)) is not None:
        return refused
    differences = [_differences(protocol, changes, record) for changes in accepted.protocols]
    if all(differences):
        fewest = min(differences, key=len)
        what = "; ".join(f"{name} is {found}, and not {wanted}" for name, (found, wanted) in fewest.items())
        options = " ".join(f"--set {quoted(f'{name}={as_yaml(wanted)}')}" for name, (_, wanted) in fewest.items())
        return "protocol", what, f"Run it with {options}"
    return None


def _refused_condition(accepted: AcceptedTask, record: Record) -> tuple[str, str, str] | None:
    """As `_refusal`, of the condition of the test sound."""
    if record.condition is None:
        return None
    name, names = record.condition.name, accepted.names_of_conditions
    if name not in names:
        what = f"its test sound is under the condition {name}"
        return "condition", what, f"Submit the record of {' or '.join(names)}" if names else "Submit the clean record"
    if record.condition.training != "clean":
        what = "its probe was trained under the condition too"
        return "condition", what, "Submit the record of a probe that was trained on clean sound"
    if parse_condition(name).moves_time:
        what = f"{name} moves time, and so the labels that it is held to"
        return "condition", what, "Submit records of conditions that leave times as they are"
    return None


def _differences(protocol: Protocol, changes: Mapping[str, Any], record: Record) -> dict[str, tuple[Any, Any]]:
    """The settings in which a protocol differs from an accepted one, each with both values."""
    found = flat(protocol.model_dump(mode="json"))
    wanted = flat(merged(Protocol().model_dump(mode="json"), changes))
    names = sorted(name for name in found.keys() | wanted.keys() if has_effect(name, record))
    return {name: (found.get(name), wanted.get(name)) for name in names if found.get(name) != wanted.get(name)}
