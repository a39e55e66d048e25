"""Labelled utterances under a condition: test alone, or with matched training all splits.

Labels are those of the clean utterances, except where a condition moves time: there the task labels the disturbed
utterance, whose phones and turns have moved. Which utterances there are does not depend on the condition, except where
it leaves one too short for the upstream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from repbench.audio.disturbances.condition import Condition
from repbench.benchmark.data.dataset import (
    Excludes,
    HeldOutTest,
    LabelledSplits,
    LabelledUtterances,
    labelled,
    reasons_of,
)
from repbench.corpora.conditions import disturbed, voices_for
from repbench.corpora.contract import Utterance
from repbench.downstream.contract import Downstream, LabelledUtterance


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturber:
    """Puts labelled utterances under a condition.

    Attributes:
        condition: What happens to the sound.
        task: Labels utterances whose times have moved.
        pool: Utterances whose voices babble is made of.
        excludes: The reason why an upstream cannot take an utterance.
    """

    condition: Condition
    task: Downstream
    pool: Sequence[Utterance]
    excludes: Excludes

    @classmethod
    def of(cls, condition: Condition, task: Downstream, splits: LabelledSplits, excludes: Excludes) -> Disturber:
        """With the voices of train, or of test where nothing is trained."""
        examples = splits.usable(splits.train) or splits.test.listed()
        pool = tuple(example.utterance for example in examples) if condition.needs_voices else ()
        return cls(condition=condition, task=task, pool=pool, excludes=excludes)

    def test(self, test: HeldOutTest) -> HeldOutTest:
        """The test split under the condition; one that becomes too short is excluded."""
        if self.condition.is_identity:
            return replace(test)
        examples, lost = self._disturbed(test.listed())
        return HeldOutTest(test.num_listed, test.excluded | lost, examples)

    def splits(self, splits: LabelledSplits) -> LabelledSplits:
        """All splits under the condition."""
        if self.condition.is_identity:
            return splits
        every = {example.id: example for example in (*splits.train, *splits.dev)}
        given, lost = self._disturbed(tuple(every[id_] for id_ in every if id_ not in splits.unusable))
        by_id = every | {example.id: example for example in given}

        def of(part: LabelledUtterances) -> LabelledUtterances:
            if splits.files:  # encoded targets, which hold no times
                return tuple(replace(example, utterance=by_id[example.id].utterance) for example in part)
            return tuple(by_id[example.id] for example in part)

        test = self.test(splits.test)
        return replace(
            splits,
            train=of(splits.train),
            dev=of(splits.dev),
            test=test,
            unusable={**splits.unusable, **lost},
            folds=tuple(
                replace(fold, train=of(fold.train), dev=of(fold.dev), test=fold.test - test.excluded.keys())
                for fold in splits.folds
            ),
        )

    def _disturbed(self, examples: LabelledUtterances) -> tuple[LabelledUtterances, dict[str, str]]:
        """The examples that the upstream can take under the condition, and the reasons of the others."""
        given = tuple(self._example(example) for example in examples)
        lost = reasons_of(given, self.excludes)
        kept: list[LabelledUtterance] = []
        for example in given:
            if example.id in lost:
                continue
            if self.condition.moves_time:
                again, unlabelled, _ = labelled([example.utterance], self.task)
                lost |= unlabelled
                kept += again
            else:
                kept.append(example)
        return tuple(kept), lost

    def _example(self, example: LabelledUtterance) -> LabelledUtterance:
        voices = voices_for(example.utterance, self.pool, self.condition)
        return replace(example, utterance=disturbed(example.utterance, self.condition, voices))
