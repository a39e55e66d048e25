"""The records of a run by the condition of the test sound: each training is scored under every one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from repbench.benchmark.pipeline.setup import RunSetting, TrainedResult

Scored = TypeVar("Scored")


def trainings_in(settings: Sequence[RunSetting]) -> list[RunSetting]:
    """The setting of each training, once, in the order of the settings."""
    return list(dict.fromkeys(setting.training for setting in settings))


def conditions_in(settings: Sequence[RunSetting]) -> list[str | None]:
    """The conditions of the settings, once, in their order."""
    return list(dict.fromkeys(setting.condition for setting in settings))


def by_condition(
    settings: Sequence[RunSetting], results: Sequence[TrainedResult]
) -> Iterator[tuple[str | None, list[TrainedResult]]]:
    """Each condition with the results that are scored under it, in the order of the results.

    Args:
        settings: Of the records.
        results: Of the trainings; each setting of a result is one of a training.
    """
    wanted = set(settings)
    for condition in conditions_in(settings):
        under = [replace(each, setting=replace(each.setting, condition=condition)) for each in results]
        yield condition, [each for each in under if each.setting in wanted]
