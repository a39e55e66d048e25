"""Training in several processes, as `torchrun` starts them; one process alone is the simplest case."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor

from repbench.errors import UsageError
from repbench.locks import exclusive_lock, refuse_if_locked

LOCK_FILE = "run.lock"
_TRAINS = "trains here"

PATIENCE = timedelta(hours=6)
"""Time that processes wait for the leading one, which scores dev and test alone; a corpus may be long."""


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes that train together, as one of them sees them.

    Attributes:
        rank: Number of this process, from 0.
        count: Number of processes.
    """

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process reports, writes and saves."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Sum over all processes, in place."""
        if self.count > 1:
            torch.distributed.all_reduce(values)
        return values

    def wait(self) -> None:
        """Wait until all processes have called this."""
        if self.count > 1:
            torch.distributed.barrier()


def expected_processes() -> int:
    """Number of processes that `torchrun` started; 1 without it.

    Raises:
        UsageError: RANK and WORLD_SIZE contradict each other, or only RANK is set.
    """
    count, rank = _whole("WORLD_SIZE"), _whole("RANK")
    if count is None and rank:
        what = f"RANK is {rank}, so this is one of several processes, but WORLD_SIZE is not set"
        raise UsageError(what, key="WORLD_SIZE", do=_START)
    if count is not None and (count < 1 or (rank is not None and not 0 <= rank < count)):
        what = f"RANK must be from 0 to WORLD_SIZE - 1, but RANK is {rank} and WORLD_SIZE is {count}"
        raise UsageError(what, key="RANK", do=_START)
    return 1 if count is None else count


_START = "Start the processes with torchrun, which sets all of these, or unset RANK and WORLD_SIZE to train in one"


def _whole(name: str) -> int | None:
    """A whole number in the environment; None where it is not set."""
    text = os.environ.get(name)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise UsageError(f"{name} must be a whole number, but is {text!r}", key=name, do=_START) from error


def _refuse_incomplete(count: int, device: torch.device) -> None:
    """Refuse several processes without the address of the leading one, or without a number for each GPU.

    Raises:
        UsageError: Names the variables that are not set.
    """
    needed = ["RANK", "MASTER_ADDR", "MASTER_PORT"]
    if device.type == "cuda" and torch.cuda.device_count() > 1:
        needed.append("LOCAL_RANK")
    missing = [name for name in needed if not os.environ.get(name)]
    if missing:
        listed = " and ".join([", ".join(missing[:-1]), missing[-1]] if len(missing) > 1 else missing)
        verb = "is" if len(missing) == 1 else "are"
        what = f"WORLD_SIZE is {count}, so several processes are to train together, but {listed} {verb} not set"
        raise UsageError(what, key=missing[0], do=_START)
    _whole("MASTER_PORT")


def local_device(device: torch.device) -> torch.device:
    """The device of this process: of several on one machine, each takes another GPU."""
    # Only a plain "cuda": a device with a number ("cuda:1") is the choice of the user.
    if device == torch.device("cuda") and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return device


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Join the process group that `torchrun` started, and leave it at the end.

    Raises:
        UsageError: The address of the group is not in the environment.
    """
    count = expected_processes()
    if count == 1:
        yield Processes()
        return
    _refuse_incomplete(count, device)
    # The functions of this module take the group at the time of the import as their default, and building an optimizer
    # imports it. Imported before the group exists, they do not keep it alive: its threads would outlive the
    # interpreter, which sometimes aborts the process.
    importlib.import_module("torch.distributed.nn.functional")
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.distributed.init_process_group("nccl", device_id=device, timeout=PATIENCE)
    else:
        torch.distributed.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield Processes(torch.distributed.get_rank(), torch.distributed.get_world_size())
    finally:
        torch.distributed.destroy_process_group()


@contextmanager
def locked_run_folder(run: Path, processes: Processes) -> Iterator[None]:
    """Keep other trainings out of a folder while the block runs.

    Args:
        run: The folder; made if missing.
        processes: The processes that train together; the leading one holds the lock.

    Raises:
        RunInUseError: Another process trains there.
    """
    if not processes.leads:
        yield
        return
    with exclusive_lock(run / LOCK_FILE, _TRAINS):
        yield


def refuse_if_trained_in(run: Path) -> None:
    """Refuse a folder in which another process trains; writes nothing.

    Raises:
        RunInUseError: Another process trains there.
    """
    refuse_if_locked(run / LOCK_FILE, _TRAINS)
