"""Building of tasks from registry entries, checked against their contract; without torch, as records are read so."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from repbench.downstream.contract import Downstream, DownstreamInfo, problem_of
from repbench.errors import PluginError, UsageError, plugin_faults
from repbench.registry import Entry


def build_task(entry: Entry, options: Mapping[str, Any]) -> Downstream:
    """Build a task with its options.

    Raises:
        UsageError: The task does not take one of the options.
        PluginError: The factory fails, or its result is no downstream.
    """
    factory = called(entry, entry.load())
    unknown = does_not_take(factory, options)
    if unknown is not None:
        takes = ", ".join(f"task.{name}" for name in inspect.signature(factory).parameters) or "no options"
        raise UsageError(f"`{entry.name}` cannot take its options: {unknown}", key="task", do=f"It takes {takes}")
    with plugin_faults(entry.qualified):
        return _held_to_downstream(factory(**options), entry)


def _held_to_downstream(task: object, entry: Entry) -> Downstream:
    if not isinstance(task, Downstream):
        raise PluginError(
            "This is not a downstream: an object with info, labels, classes and measure",
            key=entry.qualified,
            do="See repbench.downstream.contract",
        )
    refuse_info(task.info, DownstreamInfo, entry)
    problem = problem_of(task)
    for method in problem.task_methods:
        if not callable(getattr(task, method, None)):
            what = f"A task of {problem.name} must also have `{method}`"
            raise PluginError(what, key=entry.qualified, do=f"See {type(problem).__module__}")
    return task


def refuse_info(info: object, kind: type[Any], entry: Entry) -> None:
    """Refuse a declaration of another kind than the contract's, with a PluginError."""
    if not isinstance(info, kind):
        what = f"`info` must be of {kind.__name__}, but is of {type(info).__name__}"
        raise PluginError(what, key=entry.qualified, do=f"See {kind.__module__}")


def called(entry: Entry, target: Any) -> Callable[..., object]:
    """The target of an entry point as a callable.

    Raises:
        PluginError: It is none.
    """
    if not callable(target):
        raise PluginError("The entry point does not lead to something that can be called", key=entry.qualified)
    made: Callable[..., object] = target
    return made


def does_not_take(factory: Callable[..., object], options: Mapping[str, Any]) -> str | None:
    """The reason why a factory cannot take these keywords; None if it can, or has no signature, as `dict`."""
    try:
        inspect.signature(factory).bind(**options)
    except TypeError as error:
        return str(error)
    # Callables written in C, such as `dict`, have no signature.
    except ValueError:
        return None
    return None
