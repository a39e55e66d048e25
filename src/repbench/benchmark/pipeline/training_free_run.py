"""A task without training: features of the splits that it reads, its predictions at each layer, and the records.

Axes: L layers, F frames of an utterance, D width.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from repbench.benchmark.data.dataset import LabelledUtterances, seconds_of
from repbench.benchmark.data.shuffled_labels import with_shuffled_labels
from repbench.benchmark.data.subsets import subset
from repbench.benchmark.features.budget import budget_of
from repbench.benchmark.features.shards import store_folder
from repbench.benchmark.features.table import Features, Span
from repbench.benchmark.pipeline.conditioned_run import conditions_in
from repbench.benchmark.pipeline.run_data import OpenedTest, RunData, open_test
from repbench.benchmark.pipeline.run_features import extract
from repbench.benchmark.pipeline.setup import RunContext, RunSetting, WrittenRecord
from repbench.benchmark.pipeline.write_record import MeasuredPart, score_outcome
from repbench.downstream.contract import (
    Downstream,
    FrozenFeatures,
    LabelledUtterance,
    Outcome,
    ReadSplit,
    TaskContext,
    problem_of,
    splits_read,
)
from repbench.downstream.problems.contract import ENCODER_FILES
from repbench.errors import PluginError, plugin_faults

MEMORY_SHARE = 4
"""One part in so many of the free memory may go into the tables of a task."""


@dataclass(frozen=True)
class FramesOfSplit:
    """The frames of some utterances at the layers of a setting; the mean over them where they are several.

    Attributes:
        examples: Utterances with labels, each with features.
        features: Of these utterances and perhaps others.
    """

    examples: LabelledUtterances
    features: Features

    def of(self, number: int) -> Tensor:
        """(F, D) float32 on the CPU, the frames of `examples[number]`; not to be written to."""
        span = self._starts[self.examples[number].id]
        return _one_layer(next(self.features.spans([[span]])))

    def each(self) -> Iterator[Tensor]:
        """As `of`, of all utterances in turn."""
        for frames in self.features.spans([self._starts[example.id]] for example in self.examples):
            yield _one_layer(frames)

    @functools.cached_property
    def _starts(self) -> dict[str, Span]:
        return self.features.starts()


def _one_layer(frames: Tensor) -> Tensor:
    """(L, F, D) -> (F, D)."""
    one = frames[0] if len(frames) == 1 else frames.mean(dim=0)
    return one.cpu()


def measured_without_training(
    context: RunContext, data: RunData, settings: Sequence[RunSetting]
) -> list[WrittenRecord]:
    """Measure each setting, and write the records; features are extracted once for all of them."""
    splits, reads = data.splits, splits_read(context.task) or ()
    for warning in (*splits.warnings, *data.notes):
        context.reporter.say(f"note: {warning}")
    parts = {name: splits.usable(getattr(splits, name)) for name in reads}
    tables: dict[ReadSplit, Features] = {
        name: extract(context, f"features of {name}", part) for name, part in parts.items()
    }
    written: list[WrittenRecord] = []
    for condition in conditions_in(settings):
        test = open_test(context, data, condition)
        tested = extract(context, test.title, test.examples)
        under = [setting for setting in settings if setting.condition == condition]
        written += _measured(context, data, under, test, tables, tested)
    return written


def _measured(
    context: RunContext,
    data: RunData,
    settings: Sequence[RunSetting],
    test: OpenedTest,
    tables: Mapping[ReadSplit, Features],
    tested: Features,
) -> list[WrittenRecord]:
    """Measure each setting on one test split, and write the records.

    Args:
        context: What all settings share.
        data: The corpus and its splits.
        settings: Under the condition of the test split.
        test: The test split.
        tables: The features of the splits that the task reads beside it.
        tested: The features of the test split.
    """
    splits, reads = data.splits, tuple(tables)
    parts = {name: splits.usable(getattr(splits, name)) for name in reads}
    written = []
    with context.reporter.stage(context.request.downstream) as advance:
        for number, setting in enumerate(settings):
            advance(number, len(settings))
            read = {name: _drawn(context, data, setting, name, part) for name, part in parts.items()}
            shuffles_test = setting.labels == "shuffled" and not getattr(context.task, "reads_labels", bool(reads))
            features = {
                name: FramesOfSplit(part, context.view(tables[name], setting.layer)) for name, part in read.items()
            }
            frozen = FrozenFeatures(
                context=TaskContext(context.task, splits.classes, context.upstream.info),
                train=features.get("train"),
                dev=features.get("dev"),
                test=FramesOfSplit(
                    _shuffled(context, data, setting, "test", test.examples) if shuffles_test else test.examples,
                    context.view(tested, setting.layer),
                ),
                seed=setting.seed,
                device=context.device,
                memory_bytes=_free_bytes(context),
            )
            started = time.monotonic()
            outcome = _outcome(context.task, frozen, test)
            measured = MeasuredPart(time.monotonic() - started, _label_seconds(read), ())
            written.append(score_outcome(context, data, test, setting, outcome, measured))
        advance(len(settings), len(settings))
    return written


def _drawn(
    context: RunContext, data: RunData, setting: RunSetting, name: ReadSplit, part: LabelledUtterances
) -> LabelledUtterances:
    """The share of a split that a setting reads, with shuffled labels where these are the control."""
    kept = subset(
        part, setting.fraction, problem=problem_of(context.task), seed=setting.seed, salt=_salt(context, data, name)
    )
    return _shuffled(context, data, setting, name, kept) if setting.labels == "shuffled" else kept


def _shuffled(
    context: RunContext, data: RunData, setting: RunSetting, name: str, part: LabelledUtterances
) -> LabelledUtterances:
    salt = _salt(context, data, name)
    return with_shuffled_labels(part, problem=problem_of(context.task), seed=setting.seed, salt=salt)


def _salt(context: RunContext, data: RunData, name: str) -> str:
    return f"{data.corpus.fingerprint} {context.task.info.name} {name}"


def _label_seconds(read: Mapping[ReadSplit, Sequence[LabelledUtterance]]) -> dict[str, float]:
    return {name: seconds_of(read.get(name, ())) for name in ("train", "dev")}


def _free_bytes(context: RunContext) -> int:
    budget = budget_of(context.request.protocol.resources, store_folder())
    return max(0, budget.free_memory_bytes) // MEMORY_SHARE


def _outcome(task: Downstream, frozen: FrozenFeatures, test: OpenedTest) -> Outcome:
    """What the task found, held to its contract.

    Raises:
        PluginError: The predictions are not those of the test utterances, or a file has a name that it may not have.
    """
    with plugin_faults(task.info.name):
        outcome: object = task.outcome(frozen)  # type: ignore[attr-defined]  # `build_task` has refused one without
    if not isinstance(outcome, Outcome):
        raise PluginError(f"`outcome` must give an Outcome, but gives {type(outcome).__name__}", key=task.info.name)
    predicted, listed = [each.id for each in outcome.predictions], [example.id for example in test.examples]
    if predicted != listed:
        odd = next((id_ for id_ in [*listed, *predicted] if (id_ in predicted) != (id_ in listed)), listed[0])
        what = f"`outcome` must give one prediction for each test utterance, in their order; {odd} is not in its place"
        raise PluginError(what, key=task.info.name, utterance=odd)
    strange = next((name for name in outcome.files if re.match(ENCODER_FILES, name) is None), None)
    if strange is not None:
        what = f"The files of a task are named NAME.model, NAME.txt or NAME.rttm, but one is `{strange}`"
        raise PluginError(what, key=task.info.name, do="Use letters, digits, - and _")
    return outcome
