"""What an inventory knows of a pair, and how it is read from another process.

Apart from the inventory itself, whose imports take seconds that the sweep can do without.
"""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PairInventory:
    """The state of a pair before the sweep.

    Attributes:
        num_records: Records that the pair has when it is complete; None where the upstream could not be loaded.
        records: Paths of the existing records.
        missing_sound_seconds: Seconds of sound that the feature store lacks for the missing records.
        real_time_factor: Of the newest record of the pair; None where no record has it.
        train_seconds: Training times of the records with the same head and probe settings.
        error: Why the inventory failed; "" if it did not.
        timed_out: Whether it failed because it took too long.
    """

    num_records: int | None = None
    records: tuple[str, ...] = ()
    missing_sound_seconds: float = 0.0
    real_time_factor: float | None = None
    train_seconds: tuple[float, ...] = ()
    error: str = ""
    timed_out: bool = False

    @property
    def num_missing(self) -> int:
        """Records that are missing; 0 where that is not known."""
        return 0 if self.num_records is None else self.num_records - len(self.records)

    @property
    def complete(self) -> bool:
        """Whether every record exists."""
        return self.num_records is not None and self.num_missing <= 0


def inventories_of_json(text: str) -> list[PairInventory]:
    """The inventories of a line that `inventory` printed, in the order of the job's pairs."""
    lists = ("records", "train_seconds")
    return [PairInventory(**{**each, **{name: tuple(each[name]) for name in lists}}) for each in json.loads(text)]
