"""Adding records to a leaderboard, and checking its submissions.

A submission is checked when it is added and again when the page is made, because a file can reach the folder in other
ways. There are no locks: files appear whole or not at all, and of two processes that write the same file the second is
checked against what the first wrote.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from repbench.benchmark.leaderboard.references import (
    OF_CORPUS,
    References,
    read_references,
    references_name,
    references_of_corpus,
    references_of_submission,
    refuse_doubled,
)
from repbench.benchmark.leaderboard.settings import (
    AcceptedTask,
    LeaderboardSettings,
    accepted_task,
    protocol_of,
    read_head,
)
from repbench.benchmark.leaderboard.submission import Submission, encode, read_submission, submission_of
from repbench.benchmark.protocol import Protocol
from repbench.benchmark.records.predictions_file import PREDICTIONS_FILE
from repbench.benchmark.records.record import RECORD_FILE, Record, read_fields, record_of
from repbench.benchmark.records.verify import predictions_beside, refuse_impossible, refuse_nameless, task_of, verify
from repbench.corpora.contract import Corpus
from repbench.downstream.contract import Prediction, problem_of
from repbench.errors import DataError, IntegrityError, RepbenchError
from repbench.files import create, remove_abandoned, write_text

SUBMISSIONS_FOLDER: Final = "submissions"
REFERENCES_FOLDER: Final = "references"


@dataclass(frozen=True, slots=True)
class Admitted:
    """A record of a leaderboard.

    Attributes:
        path: Its file.
        record: The record.
        is_new: Whether it was added now.
    """

    path: Path
    record: Record
    is_new: bool


class Leaderboard:
    """A folder with settings, submissions and references.

    Args:
        folder: Folder of the leaderboard.

    Raises:
        UsageError: The folder has no settings, or invalid ones.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.head: LeaderboardSettings = read_head(folder)

    def add(self, place: Path, corpus: Corpus | None = None) -> Admitted:
        """Check a record, recompute its numbers from its predictions, and add it.

        Args:
            place: `record.json` or its folder, which holds the predictions too.
            corpus: Source of the references; None: the existing references, or, for the first submission to a task,
                its own.

        Raises:
            UsageError: The leaderboard does not accept such a record, or its task is not installed.
            DataError: Its predictions are not exactly of the test split.
            IntegrityError: A number does not follow from the predictions, a field or a reference was changed, or
                another submission has the same id.
            EnvironmentFault: The folder may not be written to.
        """
        path = place / RECORD_FILE if place.is_dir() else place
        fields = read_fields(path)
        record = record_of(fields, path)
        accepted, protocol = self._accepted(record, path)
        beside = path.with_name(PREDICTIONS_FILE)
        predictions = predictions_beside(path, self.head.most_bytes, problem_of(task_of(record, path)))
        submission = _possible(fields, record, predictions, path, beside)
        # Utterances and labels before numbers: with other utterances every number differs, and the cause would not be
        # named.
        known = self._references(record, protocol)
        if corpus is not None:
            known = self._of_corpus(corpus, record, protocol, known, path)
        if known is not None:
            known.hold(submission, path, self.head.allow_excluded)
        _verify(submission, path, beside)
        expected = known or references_of_submission(submission, protocol, path)
        _refuse_other_digest(expected, accepted, path)
        text = self._bounded(submission, path)
        # References first: a submission whose references are missing would be refused by the page.
        self._keep(expected, submission, path)
        return self._put(submission, text, path)

    def submissions(self) -> Iterator[tuple[Path, Submission | RepbenchError]]:
        """Every file of the submissions, in order of names: the checked submission, or the error of its check."""
        for path in sorted((self.folder / SUBMISSIONS_FOLDER).glob("*")):
            # Unfinished files begin with a dot, as does what editors and file managers leave.
            if path.name.startswith("."):
                continue
            try:
                yield path, self._checked(path)
            except RepbenchError as error:
                yield path, error

    def _checked(self, path: Path) -> Submission:
        submission = read_submission(path, self.head.most_bytes)
        record = submission.record
        _possible(submission.fields, record, submission.predictions, path, path)
        if path.name != f"{record.id}.json":
            do = "Add the record again with `repbench leaderboard add`"
            raise IntegrityError(f"This file is not named after its record, {record.id}", file=path, do=do)
        accepted, protocol = self._accepted(record, path)
        known = self._references(record, protocol)
        if known is None:
            do = "Add one of its records with `repbench leaderboard add`"
            raise DataError("There are no references for its task and corpus", file=path, do=do)
        _refuse_other_digest(known, accepted, path)
        known.hold(submission, path, self.head.allow_excluded)
        _verify(submission, path, path)
        return submission

    def _accepted(self, record: Record, path: Path) -> tuple[AcceptedTask, Protocol]:
        protocol = protocol_of(record, path)
        return accepted_task(self.head, record, protocol, path), protocol

    def _references(self, record: Record, protocol: Protocol) -> References | None:
        """The references of the record's task and corpus; None before the first submission."""
        name = references_name(
            record.downstream.name, protocol.task, record.corpus.fingerprint, protocol.split.model_dump(mode="json")
        )
        path = self.folder / REFERENCES_FOLDER / name
        return read_references(path) if path.exists() or path.is_symlink() else None

    def _of_corpus(
        self, corpus: Corpus, record: Record, protocol: Protocol, known: References | None, path: Path
    ) -> References:
        """The references of the corpus, which must equal existing ones."""
        if corpus.fingerprint != record.corpus.fingerprint:
            what = f"The record is of a corpus with the fingerprint {record.corpus.fingerprint[:16]}"
            raise DataError(f"{what}, and {corpus.name} has {corpus.fingerprint[:16]}", file=path, key="--corpus")
        true = references_of_corpus(corpus, task_of(record, path), record.downstream.name, protocol)
        if known is not None and known.digest != true.digest:
            file = self.folder / REFERENCES_FOLDER / known.file_name
            do = "Remove it and the submissions that were held to it, and add them again with --corpus"
            raise IntegrityError(f"These references are not those of {corpus.name}", file=file, do=do)
        return true

    def _bounded(self, submission: Submission, path: Path) -> str:
        text = encode(submission)
        if len(text) > self.head.most_bytes:
            what = f"The submission has {len(text)} bytes, more than {self.head.max_submission_mib:g} MiB"
            raise DataError(what, file=path, do="Raise `max_submission_mib` in the head")
        return text

    def _keep(self, expected: References, submission: Submission, path: Path) -> None:
        """Write the references; if another submission wrote them first, check this one against those."""
        file = self.folder / REFERENCES_FOLDER / expected.file_name
        # Another process may have written them since `_references` looked; `create` lets one of the two succeed.
        if create(file, expected.encode()):
            return
        first = read_references(file)
        first.hold(submission, path, self.head.allow_excluded)
        # The same references (`hold` passed) from the corpus itself are the better source to name.
        if expected.held_to == OF_CORPUS != first.held_to:
            write_text(file, expected.encode())

    def _put(self, submission: Submission, text: str, path: Path) -> Admitted:
        file = self.folder / SUBMISSIONS_FOLDER / f"{submission.record.id}.json"
        for folder in (file.parent, self.folder / REFERENCES_FOLDER):
            remove_abandoned(folder)
        is_new = create(file, text)
        if not is_new and read_submission(file, self.head.most_bytes) != submission:
            what = f"The leaderboard has a submission with the id {submission.record.id}, but other predictions"
            raise IntegrityError(what, file=path, do=f"Compare it with {file}")
        return Admitted(file, submission.record, is_new)


def _possible(
    fields: dict[str, Any], record: Record, predictions: Sequence[Prediction], path: Path, beside: Path
) -> Submission:
    """A submission with content that a run can write, whether or not it is true.

    Raises:
        DataError: It has two predictions of an utterance.
        IntegrityError: Its content is not that of a run, or it does not name its classes.
        UsageError: Its task is not installed.
    """
    if record.downstream.classes is None:
        do = "Run it again with this version"
        raise IntegrityError("The record does not name its classes", file=path, key="downstream.classes", do=do)
    refuse_nameless(predictions, beside)
    refuse_doubled(predictions, beside)
    refuse_impossible(predictions, record.downstream.classes, task_of(record, path), beside)
    return submission_of(fields, record, predictions)


def _verify(submission: Submission, path: Path, beside: Path) -> None:
    """Refuse a record whose numbers do not follow from its predictions, or that was changed.

    Raises:
        DataError: The record is unchanged, but predictions are missing.
        IntegrityError: It was changed.
    """
    heard, num_scored = submission.record.heard, submission.record.n_scored
    if heard is not None and heard.n_test != num_scored:
        what = f"The record compares {heard.n_test} utterances with the training data, but scored {num_scored}"
        raise IntegrityError(what, file=path, key="heard.n_test", do="Submit what the run wrote")
    verdict = verify(submission.fields, submission.record, submission.predictions, path=path, beside=beside)
    if verdict.holds:
        return
    num_found = len(submission.predictions)
    if verdict.is_whole and num_found != num_scored:
        what = f"The record scored {num_scored} utterances, but {num_found} predictions are there"
        raise DataError(what, file=beside, do="Submit the predictions that the run wrote")
    first, *others = verdict.changes
    also = f", and {len(others)} more fields were changed" if others else ""
    raise IntegrityError(f"{first.sentence}{also}", file=path, key=first.field, do="Submit what the run wrote")


def _refuse_other_digest(references: References, accepted: AcceptedTask, path: Path) -> None:
    if accepted.references not in {None, references.digest}:
        what = f"The references have the digest {references.digest}, but the leaderboard requires {accepted.references}"
        raise IntegrityError(what, file=path, do="Run it again on the corpus of the leaderboard")
