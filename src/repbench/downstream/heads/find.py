"""From the name of a head to a network: the table of installed heads, and the checks before one is built."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from repbench.downstream.heads.contract import FittedHead, Head, HeadFactory, HeadInfo
from repbench.downstream.problems import PROBLEMS, Problem
from repbench.errors import IntegrityError, PluginError, UsageError, did_you_mean, plugin_faults
from repbench.registry import Entry, identity_of_code, is_packaged, registry, side_effects

HEADS: dict[str, tuple[str, ...]] = {name: problem.heads for name, problem in PROBLEMS.items() if problem.trained}
"""The built-in heads of each built-in problem that are trained by steps, by its name, the simplest first."""

NO_HEAD = "none"
"""In place of the name of a head where a task trains none."""


def head_entry(name: str) -> Entry:
    """The entry of a head.

    Raises:
        UsageError: There is no such head.
        PluginError: Two distributions have one of this name.
    """
    entry, options = registry().find("head", name)
    if options:
        what = f"The head `{entry.name}` takes no options, but has `{':'.join(options)}`"
        raise UsageError(what, key="--head", do="Write the name alone")
    return entry


def head_factory(name: str) -> HeadFactory:
    """The factory of a head; imports its plugin.

    Raises:
        UsageError: There is no such head.
        PluginError: It cannot be loaded, or declares nothing.
    """
    return _loaded(head_entry(name)).factory


def head_info(name: str) -> HeadInfo:
    """The declaration of a head; errors as `head_factory`."""
    return head_factory(name).info


def is_fitted(name: str) -> bool:
    """Whether a head is fitted without steps; False where there is none. Errors as `head_factory`."""
    return name != NO_HEAD and head_info(name).fitted


def heads_for(problem: Problem) -> tuple[str, ...]:
    """Names of the installed heads that fit a problem: the built-in ones, then those of plugins that can be loaded."""
    found = [*problem.heads, *problem.fitted_heads]
    if not problem.trained:
        return tuple(found)
    for entry in registry().entries("head"):
        if entry.builtin:
            continue
        try:
            fits = _fits(_loaded(entry).factory.info, problem)
        except PluginError:  # `repbench doctor` reports it
            continue
        if fits:
            found.append(entry.name if registry().find("head", entry.name).entry == entry else entry.qualified)
    return tuple(found)


def refuse_head(name: str, problem: Problem, *, say: Callable[[str], None] | None = None) -> None:
    """Refuse a head that does not fit a problem.

    Args:
        name: Of the head.
        problem: Of the task.
        say: Receives a line on the global state that importing the head changed.

    Raises:
        UsageError: Names those that fit.
        PluginError: It cannot be loaded.
    """
    if not problem.trained:
        if name != NO_HEAD:
            what = f"A task of {problem.name} trains nothing, so it has no head `{name}`"
            raise UsageError(what, key="--head", do="Leave --head out")
        return
    try:
        entry = head_entry(name)
    except UsageError as error:
        raise _no_head(name, problem) from error
    loaded = _loaded(entry)
    if loaded.changed and say is not None:
        say(f"note: {side_effects(entry, loaded.changed).reason}")
    if not _fits(loaded.factory.info, problem):
        raise _no_head(name, problem)


def _fits(info: HeadInfo, problem: Problem) -> bool:
    return problem.needs in info.gives and (not info.fitted or bool(problem.fitted_heads))


def build_head(
    name: str,
    *,
    width: int,
    num_classes: int,
    hidden_units: int,
    pools: bool,
    generator: torch.Generator,
    dropout: float = 0.0,
) -> Head:
    """The head called `name`.

    Args:
        name: Of an installed head.
        width: D of the frames.
        num_classes: C. A head that gives a blank has one output more, and one that gives an embedding its units.
        hidden_units: Units of hidden layers and projections; `gru` has its own.
        pools: Whether it gives one row of scores an utterance rather than one a frame.
        generator: Draws the initial weights.
        dropout: Share of each hidden layer of `mlp1` and `mlp2` that is dropped in training; `gru` has its own.

    Raises:
        UsageError: There is no such head.
        PluginError: It cannot be loaded or built.
    """
    entry = head_entry(name)
    factory = _loaded(entry).factory
    # The blank of CTC is the last output, after the classes.
    num_outputs = num_classes + ("frames with a blank" in factory.info.gives) + factory.info.embedding_units
    with plugin_faults(entry.qualified):
        head: object = factory(
            width=width,
            num_outputs=num_outputs,
            hidden_units=hidden_units,
            pools=pools,
            dropout=dropout,
            generator=generator,
        )
    if not isinstance(head, Head):
        what = f"The factory of a head must return a Head, but returns {type(head).__name__}"
        raise PluginError(what, key=entry.qualified, do="See repbench.downstream.heads.contract")
    if factory.info.fitted and not isinstance(head, FittedHead):
        what = f"A head that is declared as `fitted` must be a FittedHead, but is a {type(head).__name__}"
        raise PluginError(what, key=entry.qualified, do="See FittedHead in repbench.downstream.heads.contract")
    if not entry.builtin:
        head.register_forward_hook(functools.partial(_refuse_scores, entry.qualified, num_outputs, pools))
    return head


def head_faults(name: str) -> AbstractContextManager[None]:
    """A context that turns errors of the code of a plugin's head into a PluginError; no effect for a built-in."""
    entry = head_entry(name)
    return nullcontext() if entry.builtin else plugin_faults(entry.qualified)


def head_origin(name: str) -> dict[str, Any] | None:
    """The distribution, version and file hash of a plugin's head; None for a built-in and where there is none."""
    if name == NO_HEAD:
        return None
    entry = head_entry(name)
    if entry.builtin:
        return None
    _loaded(entry)  # the hash is known once it is loaded
    return {"distribution": entry.distribution, "version": entry.version, "file_sha256": entry.file_sha256()}


def refuse_other_head(name: str, origin: Mapping[str, Any] | None, *, file: Path) -> None:
    """Refuse to load saved weights of a head into another head of the same name.

    Args:
        name: Of the head.
        origin: As `head_origin` gave it when the weights were saved.
        file: The file of weights.

    Raises:
        PluginError: The head is not installed; names the distribution that brought it.
        IntegrityError: The installed head comes from elsewhere.
    """
    if origin is None:
        return
    saved = identity_of_code(**origin)
    try:
        present = head_origin(name)
    except UsageError as error:
        what = f"The weights are of the head `{name}` of {saved}, which is not installed"
        do = f"Install {origin['distribution']}" if is_packaged(origin["distribution"]) else "Give its file by --plugin"
        raise PluginError(what, file=file, key=name, do=do) from error
    found = "repbench" if present is None else identity_of_code(**present)
    if found != saved:
        what = f"The weights are of the head `{name}` of {saved}, but the installed one is of {found}"
        raise IntegrityError(what, file=file, key=name, do="Install that version, or run it again")


class _Loaded(NamedTuple):
    """A factory of heads, and the global state that its import changed and that was restored."""

    factory: HeadFactory
    changed: tuple[str, ...]


@functools.cache
def _loaded(entry: Entry) -> _Loaded:
    loaded = entry.load_observed()
    factory: Any = loaded.value
    with plugin_faults(entry.qualified):
        info: object = getattr(factory, "info", None)
    if not callable(factory) or not isinstance(info, HeadInfo):
        what = "This is not a head: a factory with `info`, a HeadInfo"
        raise PluginError(what, key=entry.qualified, do="See repbench.downstream.heads.contract")
    return _Loaded(factory, loaded.changed)


def _refuse_scores(name: str, num_outputs: int, pools: bool, head: nn.Module, given: Any, scores: Any) -> None:
    """A forward hook that holds the scores of a plugin's head to their shape."""
    frames, counts = (*given, None)[:2]
    rows = len(counts) if pools else int(counts.sum()) if counts is not None else None
    # (U, O) if it pools; else (N, O), also from windows: (N (2 context + 1), D) without counts
    wanted = (rows if rows is not None else len(frames), num_outputs)
    context = getattr(head, "context_frames", 0)
    if counts is None and context:
        wanted = (len(frames) // (2 * context + 1), num_outputs)
    if not isinstance(scores, Tensor) or tuple(scores.shape) != wanted:
        found = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        what = f"The scores of the head must be of shape {wanted}, but are {found}"
        raise PluginError(what, key=name, do="See Head.forward in repbench.downstream.heads.contract")


def _no_head(name: str, problem: Problem) -> UsageError:
    fitting = heads_for(problem)
    do = f"{did_you_mean(name, fitting)}Choose one of {', '.join(fitting)}"
    return UsageError(f"There is no head `{name}` for {problem.name}", key="--head", do=do)
