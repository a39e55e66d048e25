"""Golden arrays, and a register of which of them a test reads, so that none lies there unread.

The npz files are those of the reference, without arrays that say nothing more than others do: features that are in
`golden/frontend` as well, tiled forms of arrays that are there untiled, and what a reference's faults made of them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

GOLDEN = Path(__file__).parents[1] / "golden"

_READ: dict[str, set[str]] = {}

Arrays = dict[str, Tensor]


def reads(file: str, *names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Hand a test these arrays of a file as its first argument, as tensors; it must use every one of them."""
    _READ.setdefault(file, set()).update(names)

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def with_arrays(*args: Any, **keywords: Any) -> None:
            arrays = _Used(load(file, *names))
            test(arrays, *args, **keywords)
            assert arrays.used == set(names), f"{file}: not used: {set(names) - arrays.used}"

        signature = inspect.signature(test)
        with_arrays.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=list(signature.parameters.values())[1:]
        )
        return with_arrays

    return decorate


class _Used(dict[str, Tensor]):
    def __init__(self, arrays: Arrays) -> None:
        super().__init__(arrays)
        self.used: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        self.used.add(name)
        return super().__getitem__(name)


def load(file: str, *names: str) -> Arrays:
    """Arrays of a file, float16 as float32."""
    with np.load(GOLDEN / file) as arrays:
        tensors = {name: torch.from_numpy(np.array(arrays[name])) for name in names}
    return {name: each.float() if each.dtype == torch.float16 else each for name, each in tensors.items()}


def words(file: str, name: str) -> list[str]:
    """A golden array of text, which counts as read."""
    _READ.setdefault(file, set()).add(name)
    with np.load(GOLDEN / file) as arrays:
        return [str(each) for each in np.atleast_1d(arrays[name])]


def unread(folder: str, not_matched: dict[str, dict[str, str]]) -> list[str]:
    """Arrays of a folder that are neither read nor listed with a reason, and listed ones that are not there."""
    files = sorted((GOLDEN / folder).glob("*.npz"))
    assert files, f"{folder} holds no golden arrays"
    faults = []
    for path in files:
        file = f"{folder}/{path.name}"
        with np.load(path) as arrays:
            there = set(arrays.files)
        known = _READ.get(file, set()) | set(not_matched.get(file, {}))
        faults += [f"{file}: {name} is not read" for name in sorted(there - known)]
        faults += [f"{file}: {name} is not there" for name in sorted(known - there)]
    return faults


def waveform(name: str) -> Tensor:
    """One of the two test signals: (T,)."""
    return load("frontend/waves.npz", name)[name].float() / 32768


def deviation(ours: Tensor, golden: Tensor) -> float:
    """The largest absolute difference."""
    assert ours.shape == golden.shape
    return float((ours.double() - golden.double()).abs().max())


def holds(model: nn.Module, measure: Callable[[], float], tolerance: float, *parts: str, step: float = 0.05) -> None:
    """Within the tolerance, and no longer when one element of any one weight of the `parts` is moved by `step`.

    A loss is a mean over thousands of terms, of which some weights touch few: it needs a larger step.
    """
    with torch.no_grad():
        found = measure()
        print(f"deviation {found:.2e}")  # noqa: T201 - shown by `pytest -s`
        assert found <= tolerance
        names = [name for name, _ in model.named_parameters() if name.startswith(parts)]
        assert names
        for name in names:
            with moved(model, name, step):
                assert measure() > tolerance, f"{name} does not matter"


@contextmanager
def moved(model: nn.Module, name: str, step: float) -> Iterator[None]:
    """One element of one weight is larger by `step`."""
    weight = model.get_parameter(name)
    before = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.view(-1)[0] += step
        yield
    finally:
        with torch.no_grad():
            weight.copy_(before)
