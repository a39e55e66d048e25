"""From a name to a built upstream or task, held to the shape of its contract."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from repbench.downstream.contract import Downstream
from repbench.errors import PluginError, RepbenchError, UsageError
from repbench.registry import Entry, registry
from repbench.upstream.contract import Upstream


def load_upstream(name: str, *, checkpoint: str | None = None, seed: int = 0) -> Upstream:
    """The upstream called `name`, in eval mode on the CPU.

    Raises:
        UsageError: There is no such upstream.
        PluginError: It cannot be loaded, or is not an upstream.
    """
    return build_upstream(registry().find("upstream", name).entry, checkpoint, seed)


def build_upstream(entry: Entry, checkpoint: str | None, seed: int) -> Upstream:
    upstream = _built(entry, checkpoint=checkpoint, seed=seed)
    if not isinstance(upstream, Upstream) or not isinstance(upstream, nn.Module):
        raise PluginError(
            "This is not an upstream: an nn.Module with info, num_frames and fingerprint",
            key=entry.qualified,
            do="See repbench.upstream.contract",
        )
    return upstream


def build_task(entry: Entry, options: Mapping[str, Any]) -> Downstream:
    task = _built(entry, **options)
    if not isinstance(task, Downstream):
        raise PluginError(
            "This is not a downstream: an object with info, labels, classes and measure",
            key=entry.qualified,
            do="See repbench.downstream.contract",
        )
    return task


def _built(entry: Entry, **options: Any) -> object:
    """Call what the entry point names.

    Raises:
        UsageError: It does not take one of the options.
        PluginError: It is not callable or fails.
    """
    target = entry.load()
    if not callable(target):
        raise PluginError("The entry point does not lead to something that can be called", key=entry.qualified)
    try:
        inspect.signature(target).bind(**options)
    except TypeError as error:
        raise UsageError(
            f"`{entry.name}` does not take these options: {error}",
            key="task",
            do="See `repbench.downstream` for what the task takes",
        ) from error
    try:
        return target(**options)
    except RepbenchError:
        raise
    except Exception as error:
        raise PluginError(
            f"It cannot be built: {type(error).__name__}: {error}", key=entry.qualified, do="Tell its authors"
        ) from error
