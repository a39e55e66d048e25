"""The corpus of a run: its splits, and the test split once training is over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from repbench.audio.disturbances.condition import Condition
from repbench.benchmark.data.conditions import Disturber
from repbench.benchmark.data.dataset import (
    HeldOutTest,
    LabelledFold,
    LabelledSplits,
    LabelledUtterances,
    seconds_of,
    unit_counts,
)
from repbench.benchmark.features.source import exclusions
from repbench.benchmark.pipeline.setup import RunContext
from repbench.benchmark.scoring.baselines import baselines
from repbench.benchmark.scoring.grouping import groupings_of
from repbench.benchmark.scoring.spreads import own_spread
from repbench.benchmark.scoring.statistics import Sizes, detectable
from repbench.corpora.conditions import original
from repbench.corpora.contract import Corpus
from repbench.downstream.contract import Downstream, problem_of
from repbench.errors import DataError, did_you_mean

HEARD_DIGITS = 16
"""Hexadecimal digits of the SHA-256 of each sound that a probe was trained and selected on, in its file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunData:
    """The corpus of a run, divided and labelled.

    Attributes:
        corpus: Of all splits.
        splits: Of the corpus, for the task; with matched training all under its condition.
        notes: Warnings about the way from the sound to the frames, such as resampling.
        tests: From the name of each condition that is scored to the test split under it; None stands for the sound as
            it is in the corpus.
    """

    corpus: Corpus
    splits: LabelledSplits
    notes: tuple[str, ...]
    tests: Mapping[str | None, HeldOutTest]

    @classmethod
    def of(cls, context: RunContext, corpus: Corpus, splits: LabelledSplits, notes: tuple[str, ...]) -> RunData:
        """With the test splits of all conditions of the run.

        Raises:
            DataError: More test utterances than the request allows cannot be scored.
        """
        request, excludes = context.request, exclusions(context.upstream)
        tests: dict[str | None, HeldOutTest] = {}
        if request.matched:
            (condition,) = context.conditions.values()
            splits = Disturber.of(condition, context.task, splits, excludes).splits(splits)
            tests[condition.name] = splits.test
        else:
            tests[None] = splits.test
            for name, condition in context.conditions.items():
                tests[name] = Disturber.of(condition, context.task, splits, excludes).test(splits.test)
        # Before training, which can take hours.
        for test in tests.values():
            refuse_exclusions(test, request.allow_excluded)
        if context.conditions:
            context.reporter.say(f"note: {_forecast(context, splits, tests)}")
        return cls(corpus=corpus, splits=splits, notes=notes, tests=tests)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedTest:
    """The test split after training, and what its scores are compared with.

    Attributes:
        examples: Of the test split.
        baselines: Value of each baseline; None where it is undefined.
        trained_on: Sounds and speakers of train and dev, as they are saved with the probe; those of each fold by its
            name, and by None those of a corpus that is divided once.
        split: The test split that the examples are of.
        condition: Of the sound; None as it is in the corpus.
    """

    examples: LabelledUtterances
    baselines: Mapping[str, float | None]
    trained_on: Mapping[str | None, Mapping[str, Any]]
    split: HeldOutTest
    condition: Condition | None = None

    @property
    def title(self) -> str:
        """Of the stage in which its features are computed."""
        return "features of test" if self.condition is None else f"features of test, {self.condition.name}"


def _forecast(context: RunContext, splits: LabelledSplits, tests: Mapping[str | None, HeldOutTest]) -> str:
    """What the conditions add, in words."""
    extra = [test.listed() for name, test in tests.items() if name is not None]
    if context.request.matched:
        extra += [splits.usable(splits.train), splits.usable(splits.dev)]
        what = "train, dev and test are extracted under the condition"
    else:
        times = f"{len(extra)} times more, once under each condition" if len(extra) > 1 else "once more"
        what = f"test is extracted {times}"
    seconds = sum(map(seconds_of, extra))
    speed = context.cost.real_time_factor
    about = "" if speed is None else f", about {max(1, round(seconds / speed))} s"
    return f"{what}: {seconds / 60:.1f} minutes of sound{about}, less what is stored"


def open_test(context: RunContext, data: RunData, condition: str | None = None) -> OpenedTest:
    """Open the test split under a condition, which is counted in the record, and compute its baselines."""
    splits, test = data.splits, data.tests[condition]
    examples = test.open()
    known = baselines(context.task, splits.classes, splits.train, examples)
    divisions: dict[str | None, LabelledSplits | LabelledFold] = {fold.name: fold for fold in splits.folds}
    trained_on = {name: sounds_and_speakers(division) for name, division in (divisions or {None: splits}).items()}
    return OpenedTest(
        examples=examples,
        baselines=known,
        trained_on=trained_on,
        split=test,
        condition=None if condition is None else context.conditions[condition],
    )


SMALL = 0.1
"""Test is small where two systems must differ by more than this, in the unit of the metric, to be told apart."""


def notes_on_size(task: Downstream, test: HeldOutTest, num_seeds: int) -> Iterator[str]:
    """A note on a small test set, before anything is trained: `repbench plan` states more. None on any other.

    The difference is that which `scoring.spreads` has for the task itself: one that is guessed from other tasks is not
    worth a line of every run.
    """
    scored = test.utterances
    unit, counts = unit_counts(scored, problem_of(task))
    if unit is None:
        yield f"test has {len(scored)} utterances of one speaker or group, so there is no interval (repbench plan)"
        return
    known = own_spread(task)
    smallest = None if known is None else detectable(known.spread, Sizes(counts), num_seeds=num_seeds)
    if smallest is not None and smallest.paired > SMALL:
        yield (
            f"test has {len(scored)} utterances of {len(counts)} {unit}s: two systems must differ by about "
            f"{smallest.paired:.2f} in {task.info.primary_metric} to be told apart (repbench plan)"
        )


def sounds_and_speakers(splits: LabelledSplits | LabelledFold) -> dict[str, list[str]]:
    """The sounds and speakers of train and dev, whatever the label fraction, as a probe's file states them."""
    utterances = [original(example.utterance) for example in (*splits.train, *splits.dev)]
    return {
        "heard": sorted(utterance.samples_sha256[:HEARD_DIGITS] for utterance in utterances),
        "speakers": sorted({utterance.speaker for utterance in utterances if utterance.speaker is not None}),
    }


def refuse_unreadable_groups(by: Sequence[str]) -> None:
    """Refuse groups that cannot be read, before anything is computed; errors as `Grouping.parse`."""
    groupings_of(tuple(by))


def refuse_unknown_attributes(corpus: Corpus, by: Sequence[str]) -> None:
    """Refuse groups by an attribute that no utterance of the corpus has.

    Raises:
        DataError: Names the attribute, and those that there are.
    """
    missing = dict.fromkeys(each.attribute for each in groupings_of(tuple(by)))
    known: set[str] = set()
    for utterance in corpus.utterances:
        # Most corpora have an attribute in their first utterance: the others are not read.
        if all(name in known for name in missing):
            return
        known.update(utterance.attributes)
    for name in missing:
        if name not in known:
            what = f"No utterance of {corpus.name} has the attribute `{name}`"
            do = f"Choose of {', '.join(sorted(known))}" if known else "Prepare the corpus with attributes"
            raise DataError(what, key="--by", do=f"{did_you_mean(name, known).strip()} {do}".strip())


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
