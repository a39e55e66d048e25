"""The forecast of a sweep: the records that are missing, and a time estimated from those that exist."""

from __future__ import annotations

import os
import statistics
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from repbench.benchmark.sweep.children import Children, threads_over
from repbench.benchmark.sweep.devices import Slots
from repbench.benchmark.sweep.inventory_process import InventoryProcess
from repbench.benchmark.sweep.jobs import Job, RunCall
from repbench.benchmark.sweep.pair_inventory import PairInventory
from repbench.processors import usable_cpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The inventories of all pairs, and what follows from them.

    Attributes:
        pairs: The inventory of each pair.
    """

    pairs: Mapping[RunCall, PairInventory]

    @property
    def num_records(self) -> int:
        """Records of the whole sweep; pairs without an inventory are left out."""
        return sum(each.num_records or 0 for each in self.pairs.values())

    @property
    def num_existing(self) -> int:
        """Records that exist."""
        return sum(len(each.records) for each in self.pairs.values())

    @property
    def extract_seconds(self) -> float:
        """Seconds of sound that have to go through an upstream."""
        return sum(each.missing_sound_seconds for each in self.pairs.values())

    @property
    def work_seconds(self) -> float:
        """Estimated time of extraction and probe training, one after the other, as far as earlier records give it."""
        extraction = sum(
            each.missing_sound_seconds / speed
            for pair, each in self.pairs.items()
            if (speed := self._speeds.get(_model(pair))) is not None
        )
        return extraction + (self._num_probes * statistics.fmean(self._train_seconds) if self._train_seconds else 0.0)

    @property
    def unknown(self) -> tuple[str, ...]:
        """The parts of the sweep that the estimate leaves out, in words."""
        return tuple(self._unknown())

    def _unknown(self) -> Iterator[str]:
        yield from (f"{pair.name}: {each.error}" for pair, each in self.pairs.items() if each.num_records is None)
        missing = [pair for pair, each in self.pairs.items() if each.num_missing > 0]
        slow = [pair for pair in missing if self.pairs[pair].missing_sound_seconds and _model(pair) not in self._speeds]
        if slow:
            labels = ", ".join(dict.fromkeys(pair.label for pair in slow))
            yield f"extracting features with {labels}, because no record gives its speed yet"
        if self._num_probes and not self._train_seconds:
            yield "training the probes, because no record gives a training time yet"
        if any(pair.mode == "finetune" for pair in missing):
            yield "fine-tuning"
        if any(pair.controls for pair in missing):
            yield "the controls"

    @property
    def _speeds(self) -> dict[tuple[str, str | None], float]:
        """The real-time factor of each upstream that has a record with one."""
        return {_model(pair): each.real_time_factor for pair, each in self.pairs.items() if each.real_time_factor}

    @property
    def _train_seconds(self) -> list[float]:
        return [seconds for each in self.pairs.values() for seconds in each.train_seconds]

    @property
    def _num_probes(self) -> int:
        return sum(each.num_missing for pair, each in self.pairs.items() if pair.mode == "frozen")

    def lines(self, jobs: int) -> list[str]:
        """The forecast in words, for so many jobs at a time."""
        missing = self.num_records - self.num_existing
        lines = [f"{self.num_records} records in the plan, {self.num_existing} exist, {missing} are missing"]
        if missing:
            at_a_time = f"with {jobs} job{'s' if jobs > 1 else ''} at a time"
            known = f"about {duration(self.work_seconds / jobs)} {at_a_time}" if self.work_seconds else "time not known"
            lines.append(f"{self.extract_seconds / 3600:.2f} h of sound go through an upstream; {known}")
        return [*lines, *(f"not in the forecast: {each}" for each in self.unknown)]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "records_asked": self.num_records,
            "records_existing": self.num_existing,
            "extract_hours": self.extract_seconds / 3600,
            "about_seconds": self.work_seconds,
            "unknown": list(self.unknown),
        }


def _model(pair: RunCall) -> tuple[str, str | None]:
    return pair.upstream, pair.checkpoint


def forecast(jobs: Sequence[Job], slots: Slots, children: Children, *, limit_seconds: float) -> Forecast:
    """Make the inventory of every job, several at once, in processes beside this one.

    Args:
        jobs: The jobs of the sweep.
        slots: Places for the processes, on the devices of the jobs: an inventory measures what a model costs there.
        children: The processes that end with the sweep.
        limit_seconds: Longest time of an inventory; nothing is known of a job whose inventory takes longer.
    """
    found: dict[int, list[PairInventory]] = {}
    ahead = iter(range(len(jobs)))
    lock = threading.Lock()

    def look(_: int) -> None:
        with slots.taken() as slot, InventoryProcess(children, slot.environment) as process:
            while True:
                with lock:
                    number = next(ahead, None)
                if number is None:
                    return
                job = jobs[number].on(slot.device)
                found[number] = process.inventories(job, limit_seconds, duration(limit_seconds))

    count = min(slots.count, len(jobs))
    with threads_over(children, max(1, count)) as threads:
        list(threads.map(look, range(count)))
    pairs = (zip(job.pairs, found[number], strict=True) for number, job in enumerate(jobs))
    return Forecast(pairs=dict(pair for several in pairs for pair in several))


def environment_for(at_once: int, threads: int | None = None) -> dict[str, str]:
    """The environment of child processes of which `at_once` share the processors of this machine.

    Args:
        at_once: Number of them.
        threads: Threads of all together; None: OMP_NUM_THREADS, or as many as processors may be used.
    """
    environment = dict(os.environ)
    if at_once > 1 or threads is not None:
        given = environment.get("OMP_NUM_THREADS", "")
        shared = threads or (int(given) if given.isdigit() else usable_cpus())
        environment["OMP_NUM_THREADS"] = str(max(1, shared // at_once))
    return environment


def duration(seconds: float) -> str:
    """A duration, rounded to the precision of a forecast."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
