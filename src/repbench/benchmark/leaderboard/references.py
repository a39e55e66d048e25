"""What every submission to a question has to have answered: the utterances of its test split and what is true of them.

A submission brings its own references. They are held to a file that was written with the first accepted submission, or
from the corpus itself; the file has a digest for each utterance, so that the one that was forged can be named.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from repbench.benchmark.data.dataset import label_splits
from repbench.benchmark.leaderboard.submission import Submission, listed, read_plain
from repbench.benchmark.protocol import Protocol
from repbench.benchmark.records.verify import same
from repbench.benchmark.scoring.baselines import baselines
from repbench.corpora.contract import Corpus
from repbench.downstream.contract import Downstream, Prediction, TaskContext, problem_of
from repbench.errors import DataError, IntegrityError
from repbench.files import canonical_json, parse_json

SCHEMA: Final = "repbench.references/1"

_MOST_BYTES: Final = 256 << 20

_NAMED = 5
"""Ids that an error names."""


@dataclass(frozen=True, slots=True)
class References:
    """The test split of a task on a corpus, and what is true of it.

    Attributes:
        task: Name of the downstream.
        options: Of the task.
        corpus: Fingerprint.
        split: How a corpus without fitting splits of its own is divided.
        classes: What can be answered.
        baselines: What knowing nothing scores.
        utterances: From id to the digest of what is true of it.
        held_to: Where this was learned: "the corpus", or the id of a submission.
    """

    task: str
    options: dict[str, Any]
    corpus: str
    split: dict[str, Any]
    classes: tuple[str, ...]
    baselines: dict[str, float | None]
    utterances: dict[str, str]
    held_to: str

    @property
    def digest(self) -> str:
        """16 digits of a SHA-256 over classes, ids and references."""
        return _digest([list(self.classes), self.utterances])

    @property
    def file_name(self) -> str:
        """A function of the question alone, so that two submissions to it meet in one file."""
        return references_name(self.task, self.options, self.corpus, self.split)

    def encode(self) -> str:
        """The one spelling of the file."""
        head = {
            "baselines": self.baselines, "classes": list(self.classes), "corpus": self.corpus, "digest": self.digest,
            "held_to": self.held_to, "options": self.options, "schema": SCHEMA, "split": self.split, "task": self.task,
        }  # fmt: skip
        lines = [f"{json.dumps(id_)}: {json.dumps(self.utterances[id_])}" for id_ in sorted(self.utterances)]
        fields = [f"{json.dumps(name)}: {json.dumps(value, sort_keys=True)}" for name, value in head.items()]
        fields.append(f'"utterances": {listed(lines, "{}")}')
        return "{\n" + ",\n".join(fields) + "\n}\n"

    def hold(self, submission: Submission, file: Path, allow_excluded: int) -> None:
        """Refuse a submission that has not answered this, all of this, and nothing else.

        Raises:
            DataError: Utterances are missing, too many, or answered twice.
            IntegrityError: Classes, baselines or what is true of an utterance are not those expected.
        """
        found = {each.id: reference_of(each) for each in submission.predictions}
        excluded = submission.record.excluded
        missing = sorted(self.utterances.keys() - found.keys() - excluded.keys())
        if missing:
            what = f"{len(missing)} of {len(self.utterances)} test utterances are not answered: {_some(missing)}"
            raise DataError(what, file=file, utterance=missing[0], do="Run it again")
        unasked = sorted((found.keys() | excluded.keys()) - self.utterances.keys())
        if unasked:
            what = f"{len(unasked)} utterances are not of the test split: {_some(unasked)}"
            raise DataError(what, file=file, utterance=unasked[0], do="Run it again")
        refuse_excluded(submission, file, allow_excluded)
        if submission.record.downstream.classes != self.classes:
            raise IntegrityError(f"The classes are not those of {self._witness}", file=file, key="downstream.classes")
        if submission.record.corpus.n_train and not excluded:
            self._hold_baselines(submission, file)
        forged = sorted(id_ for id_, reference in found.items() if reference != self.utterances[id_])
        if forged:
            what = (
                f"The references of {len(forged)} utterances are not those of {self._witness}: {_some(forged)} "
                "(class, speaker, group, labelled instants and events count)"
            )
            raise IntegrityError(what, file=file, utterance=forged[0], do="Run it again on the corpus of the question")

    def _hold_baselines(self, submission: Submission, file: Path) -> None:
        """They follow from the labels of train and test; a probe trained elsewhere has none of its own."""
        stated = submission.record.baselines.model_dump()
        for name, value in self.baselines.items():
            if not same(stated[name], value):
                what = f"`baselines.{name}` says {stated[name]}, and {self._witness} {value}"
                raise IntegrityError(what, file=file, key=f"baselines.{name}", do="Submit what the run wrote")

    @property
    def _witness(self) -> str:
        return self.held_to if self.held_to == OF_CORPUS else f"the first submission, {self.held_to}"


OF_CORPUS = "the corpus"


def references_name(task: str, options: dict[str, Any], corpus: str, split: dict[str, Any]) -> str:
    """Name of the file of references."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "-" for c in task)[:40]
    return f"{plain}-{_digest([task, options, corpus, split])}.json"


def references_of_submission(submission: Submission, protocol: Protocol, file: Path) -> References:
    """The references as a first submission has them, which must be complete.

    Raises:
        DataError: It left utterances out.
    """
    record = submission.record
    if record.excluded:
        left_out = f"{len(record.excluded)} utterances are left out"
        what = f"The first submission to a question sets its references, but {left_out}"
        raise DataError(what, file=file, utterance=min(record.excluded), do="Give --corpus, or a complete one first")
    assert record.downstream.classes is not None
    return References(
        task=record.downstream.name,
        options=protocol.task,
        corpus=record.corpus.fingerprint,
        split=protocol.split.model_dump(mode="json"),
        classes=record.downstream.classes,
        baselines=record.baselines.model_dump(),
        utterances={each.id: reference_of(each) for each in submission.predictions},
        held_to=record.id,
    )


def references_of_corpus(corpus: Corpus, task: Downstream, name: str, protocol: Protocol) -> References:
    """The references as the corpus has them, what no upstream could take included.

    Raises:
        DataError: The corpus cannot be divided for the task.
    """
    plan = label_splits(corpus, task, protocol.split, excludes=lambda _: None)
    test, problem, context = plan.test.open(), problem_of(task), TaskContext(task, plan.classes)
    return References(
        task=name,
        options=protocol.task,
        corpus=corpus.fingerprint,
        split=protocol.split.model_dump(mode="json"),
        classes=plan.classes,
        baselines=baselines(task, plan.classes, plan.train, test),
        utterances={example.id: reference_of(problem.perfect(context, example)) for example in test}
        | dict.fromkeys(plan.test.excluded, ""),
        held_to=OF_CORPUS,
    )


def read_references(path: Path) -> References:
    """Read the references of a question.

    Raises:
        DataError: There is none.
        IntegrityError: The file holds none, or is not spelt as it should be.
    """
    content = read_plain(path, _MOST_BYTES)
    try:
        fields = parse_json(content)
        known = References(
            task=fields["task"],
            options=fields["options"],
            corpus=fields["corpus"],
            split=fields["split"],
            classes=tuple(fields["classes"]),
            baselines=fields["baselines"],
            utterances=fields["utterances"],
            held_to=fields["held_to"],
        )
        if known.encode().encode("ascii") != content or known.file_name != path.name:
            raise ValueError("it is not spelt as `repbench leaderboard add` spells it")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"These are no references: {error}", file=path, do="Take it from the history") from error
    return known


def reference_of(prediction: Prediction) -> str:
    """A digest of all in a prediction that follows from the corpus, and of nothing that the model gave."""
    return _digest(prediction.truth())


def refuse_doubled(predictions: Iterable[Prediction], file: Path) -> None:
    """Refuse predictions that answer an utterance twice, with a DataError."""
    twice = [id_ for id_, count in Counter(each.id for each in predictions).items() if count > 1]
    if twice:
        raise DataError("An utterance is answered twice", file=file, utterance=twice[0], do="Run it again")


def refuse_excluded(submission: Submission, file: Path, allowed: int) -> None:
    """Refuse a submission that leaves out more than is allowed, with a DataError."""
    excluded = submission.record.excluded
    if len(excluded) > allowed:
        id_, reason = min(excluded.items())
        what = f"{len(excluded)} test utterances are left out, and {allowed} may be: {id_}: {reason}"
        raise DataError(what, file=file, utterance=id_, do="See `allow_excluded` of the leaderboard")


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()[:16]


def _some(ids: Iterable[str]) -> str:
    several = list(ids)
    return f"{', '.join(several[:_NAMED])}{' …' if len(several) > _NAMED else ''}"
