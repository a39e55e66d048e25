"""References of a task and corpus: the utterances of the test split, with a digest of the labels of each.

A submission contains its own references. They are compared with a file that was written with the first accepted
submission, or from the corpus itself; its digests name the utterances that were forged.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from repbench.benchmark.data.labelled_folds import label_corpus
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
"""Most ids in an error."""


@dataclass(frozen=True, slots=True)
class References:
    """The test split of a task on a corpus, with digests of its labels.

    Attributes:
        task: Name of the task.
        options: Options of the task.
        corpus: Fingerprint of the corpus.
        split: Split settings of the protocol.
        classes: Names of the classes.
        baselines: Scores of chance and majority.
        utterances: From id to the digest of the labels.
        held_to: Source of the references: "the corpus", or the id of a submission.
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
        # Not over `held_to`: the same references from another source are the same.
        return _digest([list(self.classes), self.utterances])

    @property
    def file_name(self) -> str:
        """Name of its file, which depends on task, options, corpus and split alone."""
        return references_name(self.task, self.options, self.corpus, self.split)

    def encode(self) -> str:
        """The canonical text of the file."""
        head = {
            "baselines": self.baselines, "classes": list(self.classes), "corpus": self.corpus, "digest": self.digest,
            "held_to": self.held_to, "options": self.options, "schema": SCHEMA, "split": self.split, "task": self.task,
        }  # fmt: skip
        lines = [f"{json.dumps(id_)}: {json.dumps(self.utterances[id_])}" for id_ in sorted(self.utterances)]
        fields = [f"{json.dumps(name)}: {json.dumps(value, sort_keys=True)}" for name, value in head.items()]
        fields.append(f'"utterances": {listed(lines, "{}")}')
        return "{\n" + ",\n".join(fields) + "\n}\n"

    def hold(self, submission: Submission, file: Path, allow_excluded: int) -> None:
        """Refuse a submission whose utterances or labels differ from these.

        Raises:
            DataError: Utterances are missing, or not of the test split.
            IntegrityError: Classes, baselines or labels differ.
        """
        found = {each.id: reference_of(each) for each in submission.predictions}
        excluded = submission.record.excluded
        missing = sorted(self.utterances.keys() - found.keys() - excluded.keys())
        if missing:
            what = f"{len(missing)} of {len(self.utterances)} test utterances have no prediction: {_some(missing)}"
            raise DataError(what, file=file, utterance=missing[0], do="Run it again")
        unasked = sorted((found.keys() | excluded.keys()) - self.utterances.keys())
        if unasked:
            what = f"{len(unasked)} utterances are not of the test split: {_some(unasked)}"
            raise DataError(what, file=file, utterance=unasked[0], do="Run it again")
        refuse_excluded(submission, file, allow_excluded)
        if submission.record.downstream.classes != self.classes:
            raise IntegrityError(f"The classes are not those of {self._witness}", file=file, key="downstream.classes")
        # Baselines are over the scored utterances, so those of a submission that excludes some differ rightly.
        if submission.record.corpus.n_train and not excluded:
            self._hold_baselines(submission, file)
        forged = sorted(id_ for id_, reference in found.items() if reference != self.utterances[id_])
        if forged:
            what = (
                f"The references of {len(forged)} utterances are not those of {self._witness}: {_some(forged)} "
                "(class, speaker, group, labelled instants and events count)"
            )
            raise IntegrityError(
                what, file=file, utterance=forged[0], do="Run it again on the corpus of the leaderboard"
            )

    def _hold_baselines(self, submission: Submission, file: Path) -> None:
        """Baselines follow from the labels of train and test; a probe trained on another corpus has none."""
        stated = submission.record.baselines.model_dump()
        for name, value in self.baselines.items():
            if not same(stated[name], value):
                what = f"`baselines.{name}` is {stated[name]}, but that of {self._witness} is {value}"
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
    """The references of a first submission, which must be complete.

    Raises:
        DataError: It left utterances out.
    """
    record = submission.record
    if record.excluded:
        left_out = f"{len(record.excluded)} utterances are left out"
        what = f"The first submission of a task and corpus sets its references, but {left_out}"
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
    """The references of a corpus, with utterances that upstreams cannot process.

    Raises:
        DataError: The corpus cannot be split for the task.
    """
    # `excludes` of no upstream: the references hold the whole test split.
    plan = label_corpus(corpus, task, protocol.split, excludes=lambda _: None)
    test, problem, context = plan.test.open(), problem_of(task), TaskContext(task, plan.classes)
    return References(
        task=name,
        options=protocol.task,
        corpus=corpus.fingerprint,
        split=protocol.split.model_dump(mode="json"),
        classes=plan.classes,
        baselines=baselines(task, plan.classes, plan.train, test),
        utterances={each.id: reference_of(each) for each in problem.perfect_of(context, test)}
        # Utterances without a label: they may be excluded, and no prediction can have the digest "".
        | dict.fromkeys(plan.test.excluded, ""),
        held_to=OF_CORPUS,
    )


def read_references(path: Path) -> References:
    """Read a file of references.

    Raises:
        DataError: There is no such file.
        IntegrityError: The file holds no references, or is not in canonical form.
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
            raise ValueError("it is not in the form that `repbench leaderboard add` writes")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"These are no references: {error}", file=path, do="Take it from the history") from error
    return known


def reference_of(prediction: Prediction) -> str:
    """A digest of all in a prediction that follows from the corpus, and of nothing that the model gave."""
    return _digest(prediction.truth())


def refuse_doubled(predictions: Iterable[Prediction], file: Path) -> None:
    """Raise a DataError for two predictions of an utterance."""
    twice = [id_ for id_, count in Counter(each.id for each in predictions).items() if count > 1]
    if twice:
        raise DataError("An utterance has two predictions", file=file, utterance=twice[0], do="Run it again")


def refuse_excluded(submission: Submission, file: Path, allowed: int) -> None:
    """Raise a DataError for a submission that leaves out more utterances than allowed."""
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
