"""The kinds of tasks, one object and one file each, and the table by which a task names its own."""

from __future__ import annotations

from repbench.downstream.problems.abx import ABX
from repbench.downstream.problems.attributes import ATTRIBUTES
from repbench.downstream.problems.contract import Problem
from repbench.downstream.problems.frames import FRAMES
from repbench.downstream.problems.multilabel import MULTILABEL
from repbench.downstream.problems.pairs import EMBEDDED_PAIRS, PAIRS
from repbench.downstream.problems.query_by_example import QUERY_BY_EXAMPLE
from repbench.downstream.problems.regression import REGRESSION
from repbench.downstream.problems.sequences import SEQUENCES
from repbench.downstream.problems.texts import TEXTS
from repbench.downstream.problems.units import UNITS
from repbench.downstream.problems.utterances import UTTERANCES
from repbench.downstream.problems.word_discrimination import WORD_DISCRIMINATION
from repbench.errors import PluginError

__all__ = [
    "ABX",
    "ATTRIBUTES",
    "EMBEDDED_PAIRS",
    "FRAMES",
    "MULTILABEL",
    "PAIRS",
    "PROBLEMS",
    "QUERY_BY_EXAMPLE",
    "REGRESSION",
    "SEQUENCES",
    "TEXTS",
    "UNITS",
    "UTTERANCES",
    "WORD_DISCRIMINATION",
    "Problem",
    "add_problem",
    "problem_named",
]

PROBLEMS: dict[str, Problem] = {
    problem.name: problem
    for problem in (
        FRAMES,
        UTTERANCES,
        TEXTS,
        MULTILABEL,
        SEQUENCES,
        REGRESSION,
        ATTRIBUTES,
        PAIRS,
        EMBEDDED_PAIRS,
        ABX,
        WORD_DISCRIMINATION,
        QUERY_BY_EXAMPLE,
        UNITS,
    )
}
"""From the name of a problem to its object: the built-in ones, and those that plugins add. Texts and frames of several
labels are before sequences: a line of predictions is read by the first whose marker it has."""


def add_problem(problem: Problem) -> None:
    """Add a plugin's problem to the table; the same object again changes nothing.

    Raises:
        PluginError: Another problem has its name.
    """
    known = PROBLEMS.setdefault(problem.name, problem)
    if known is not problem:
        what = f"The problem `{problem.name}` is there already, from {type(known).__module__}"
        raise PluginError(what, key=type(problem).__module__, do="Give the problem another name")


def problem_named(name: str) -> Problem:
    """The problem called `name`.

    Raises:
        PluginError: There is none.
    """
    if name not in PROBLEMS:
        raise PluginError(f"There is no problem `{name}`", key="problem", do=f"Choose one of {', '.join(PROBLEMS)}")
    return PROBLEMS[name]
