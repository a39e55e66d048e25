"""Layer profiles: the number of each layer of a system that was probed layer by layer."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from repbench.benchmark.report.data.columns import Column
from repbench.benchmark.report.data.gather import Cell, Gathered, ReportRow
from repbench.benchmark.report.data.systems import System
from repbench.benchmark.report.render.escaping import shown

_MOST_DIGITS = 4
"""Most digits of a layer number; a longer one is a name."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One system, mode and share of labels.

    Attributes:
        name: Name of the system, with mode and label fraction where they are not frozen and 1.
        system: The system.
        cells: By layer number.
        weighted: The number of the learned mix of all layers; None without such a record.
    """

    name: str
    system: System
    cells: dict[int, Cell]
    weighted: Cell | None

    def layer_name(self, number: int) -> str:
        """The name of a layer in the model."""
        names = self.cells[number].runs[0].record.upstream.layer_names
        return shown(names[number], 20) if number < len(names) else str(number)


@dataclass(frozen=True, slots=True)
class LayerProfiles:
    """The profiles of a column."""

    column: Column
    profiles: tuple[Profile, ...]


def layer_profiles(gathered: Gathered) -> list[LayerProfiles]:
    """The columns in which a system has numbers for two or more layers."""
    found = (LayerProfiles(column, tuple(_profiles(gathered, column))) for column in gathered.columns)
    return [each for each in found if each.profiles]


def _profiles(gathered: Gathered, column: Column) -> list[Profile]:
    families: dict[tuple[str, str, float], list[Cell]] = defaultdict(list)
    for cell in gathered.column_cells(column):
        if cell.value is not None:
            families[cell.row.system.name, cell.row.mode, cell.row.fraction].append(cell)
    profiles: list[Profile] = []
    for cells in families.values():
        numbered = {number: cell for cell in cells if (number := layer_number(cell)) is not None}
        if len(numbered) > 1:
            weighted = next((cell for cell in cells if cell.row.layer == "weighted"), None)
            row = cells[0].row
            profiles.append(Profile(_name(row), row.system, dict(sorted(numbered.items())), weighted))
    return sorted(profiles, key=lambda profile: profile.name)


def _name(row: ReportRow) -> str:
    parts = [row.system.name]
    if row.mode != "frozen":
        parts.append("fine-tuned")
    if row.fraction != 1.0:
        parts.append(f"{row.labels} of the labels")
    return ", ".join(parts)


def layer_number(cell: Cell) -> int | None:
    """The number of the layer that a cell reads; None for a mix, and for `last` and `first`."""
    layer, names = cell.row.layer, cell.runs[0].record.upstream.layer_names
    if layer in names:
        return names.index(layer)
    # `isdigit` holds for digits such as ², which `int` refuses; a long number would be a huge axis.
    return int(layer) if layer.isascii() and layer.isdigit() and len(layer) <= _MOST_DIGITS else None
