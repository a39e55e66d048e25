"""Chance and majority: the scores without any representation."""

from __future__ import annotations

from collections.abc import Sequence

from repbench.benchmark.data.dataset import LabelledUtterances
from repbench.downstream.contract import Downstream, TaskContext, problem_of
from repbench.errors import plugin_faults


def baselines(
    task: Downstream, classes: Sequence[str], train: LabelledUtterances, test: LabelledUtterances
) -> dict[str, float | None]:
    """Chance and majority in the primary metric, each None where the task's problem has none."""
    with plugin_faults(task.info.name):
        return problem_of(task).baselines(TaskContext(task, tuple(classes)), train, test)
