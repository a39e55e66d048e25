"""The corpus of a run: its splits, and the test split once training is over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from repbench.benchmark.data.dataset import HeldOutTest, LabelledFold, LabelledSplits, LabelledUtterances
from repbench.benchmark.pipeline.setup import RunContext
from repbench.benchmark.scoring.baselines import baselines
from repbench.corpora.contract import Corpus
from repbench.errors import DataError

HEARD_DIGITS = 16
"""Hexadecimal digits of the SHA-256 of each sound that a probe was trained and selected on, in its file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunData:
    """The corpus of a run, divided and labelled.

    Attributes:
        corpus: Of all splits.
        splits: Of the corpus, for the task.
        notes: Warnings about the way from the sound to the frames, such as resampling.
    """

    corpus: Corpus
    splits: LabelledSplits
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedTest:
    """The test split after training, and what its scores are compared with.

    Attributes:
        examples: Of the test split.
        baselines: Value of each baseline; None where it is undefined.
        trained_on: Sounds and speakers of train and dev, as they are saved with the probe; those of each fold by its
            name, and by None those of a corpus that is divided once.
    """

    examples: LabelledUtterances
    baselines: Mapping[str, float | None]
    trained_on: Mapping[str | None, Mapping[str, Any]]


def open_test(context: RunContext, data: RunData) -> OpenedTest:
    """Open the test split, which is counted in the record, and compute its baselines."""
    splits = data.splits
    examples = splits.test.open()
    known = baselines(context.task, splits.classes, splits.train, examples)
    divisions: dict[str | None, LabelledSplits | LabelledFold] = {fold.name: fold for fold in splits.folds}
    trained_on = {name: sounds_and_speakers(division) for name, division in (divisions or {None: splits}).items()}
    return OpenedTest(examples=examples, baselines=known, trained_on=trained_on)


def sounds_and_speakers(splits: LabelledSplits | LabelledFold) -> dict[str, list[str]]:
    """The sounds and speakers of train and dev, whatever the label fraction, as a probe's file states them."""
    utterances = [example.utterance for example in (*splits.train, *splits.dev)]
    return {
        "heard": sorted(utterance.samples_sha256[:HEARD_DIGITS] for utterance in utterances),
        "speakers": sorted({utterance.speaker for utterance in utterances if utterance.speaker is not None}),
    }


def refuse_exclusions(test: HeldOutTest, allowed: int) -> None:
    """Refuse a test split of which more utterances than `allowed` cannot be scored.

    Raises:
        DataError: Names one of them, and the reason.
    """
    if len(test.excluded) > allowed:
        id_, reason = min(test.excluded.items())
        raise DataError(
            f"{len(test.excluded)} of {test.num_listed} test utterances cannot be scored, such as {id_}: {reason}",
            utterance=id_,
            do=f"Repair the corpus, or give --allow-excluded {len(test.excluded)}",
        )
