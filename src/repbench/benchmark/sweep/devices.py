"""The devices of this machine, which the jobs of a sweep take in turn."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from repbench.errors import UsageError

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""Environment variable with the CUDA devices that a process sees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A place for one job at a time.

    Attributes:
        name: The device, as given; "" where jobs take that of the plan.
        device: The `--device` of child processes; None: that of the plan.
        environment: The environment of child processes, which see this device alone.
    """

    name: str
    device: str | None
    environment: Mapping[str, str]


class Slots:
    """Places for jobs; a job takes the one that has been free for the longest time.

    Args:
        devices: Devices, `cpu` or `cuda:N`, as `devices_of` reads them; empty: jobs take the device of the plan.
        count: Number of places; they are distributed over the devices in turn.
        environment: The environment of child processes, apart from the devices that they see.
    """

    def __init__(self, devices: Sequence[str], count: int, environment: Mapping[str, str]) -> None:
        self.count = count
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for number in range(count):
            self._free.put(_slot(devices[number % len(devices)] if devices else "", environment))

    @contextmanager
    def taken(self) -> Iterator[Slot]:
        """A place that nobody else has until the end of the block; waits for one."""
        slot = self._free.get()
        try:
            yield slot
        finally:
            self._free.put(slot)


def _slot(name: str, environment: Mapping[str, str]) -> Slot:
    if not name:
        return Slot(name=name, device=None, environment=environment)
    if name == "cpu":
        return Slot(name=name, device="cpu", environment={**environment, VISIBLE: ""})
    number = name.partition(":")[2]
    shown = [each.strip() for each in environment.get(VISIBLE, "").split(",") if each.strip()]
    return Slot(name=name, device="cuda", environment={**environment, VISIBLE: shown[int(number)] if shown else number})


def devices_of(text: str) -> tuple[str, ...]:
    """The devices in a list such as `cuda:0,cuda:1`; one that is given twice takes two jobs.

    Raises:
        UsageError: A name is neither `cpu` nor `cuda:N`.
        EnvironmentFault: This machine has no such device.
    """
    from repbench.benchmark.environment import choose_device  # imports torch, which a sweep else leaves to its children

    names = tuple(each.strip() for each in text.split(","))
    for name in names:
        if name != "cpu" and not name.startswith("cuda:"):
            what = f"Each job takes one device, and `{name}` names none"
            raise UsageError(what, key="--devices", do="Give a list such as cuda:0,cuda:1 or cpu,cpu")
        choose_device(name)
    return names
