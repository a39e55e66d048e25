"""Invariance to conditions as a heat map of conditions and layers, and as tables, from `invariance.json`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from repbench.benchmark.report.data.invariance import FoundInvariance
from repbench.benchmark.report.render.escaping import shown
from repbench.benchmark.report.render.similarity import cell_of, filled, heat_map
from repbench.benchmark.report.render.svg import Figure
from repbench.benchmark.report.render.tables import PlainCell, PlainTable, TableColumn, table
from repbench.benchmark.similarity.invariance_document import ConditionInvariance, Invariance

if TYPE_CHECKING:
    from rich.table import Table

FIGURE_PREFIX = "invariance-"

MEAN = "mean of these conditions"

_LONGEST = 24
_MEANING = (
    "Mean square distance of a disturbed state from the clean one at the same instant, over that between states of "
    "different utterances, each dimension over its deviation: 0 is invariant, 1 as far as another utterance"
)


def title_of(invariance: Invariance) -> str:
    """The model and the corpus."""
    return f"Invariance of {shown(invariance.upstream.title)}, {shown(invariance.corpus.name)}"


def figure_of(invariance: Invariance, prefix: str = "") -> Figure:
    """The value of each condition (rows) at each layer (columns), and the mean of the conditions."""
    conditions = invariance.conditions
    values = [[each.value for each in row.frames] for row in conditions] + [[each.value for each in invariance.mean]]
    return heat_map(
        f"{FIGURE_PREFIX}{prefix}layers",
        title_of(invariance),
        f"{_MEANING}.",
        values,
        ([*(each.name for each in conditions), "mean"], invariance.upstream.layers),
        ("", f"layer of {shown(invariance.upstream.title, _LONGEST)}"),
        longest=_LONGEST,
    )


def table_of(invariance: Invariance) -> PlainTable:
    """The numbers of the figure with intervals, and those of means of utterances."""
    layers = invariance.upstream.layers
    columns: list[TableColumn[tuple[str, ConditionInvariance | None]]] = [
        TableColumn("condition", lambda each: shown(each[0], 60), is_name=True)
    ]
    columns += [TableColumn(shown(name), partial(_of_layer, invariance, layer=k)) for k, name in enumerate(layers)]
    rows: list[tuple[str, ConditionInvariance | None]] = [(each.name, each) for each in invariance.conditions]
    return table(title_of(invariance), columns, [*rows, (MEAN, None)], (_note(invariance),))


def _of_layer(invariance: Invariance, row: tuple[str, ConditionInvariance | None], layer: int) -> PlainCell:
    condition = row[1]
    return cell_of(invariance.mean[layer] if condition is None else condition.frames[layer])


def table_of_utterances(invariance: Invariance) -> PlainTable:
    """The same of the means over all frames of an utterance."""
    columns: list[TableColumn[ConditionInvariance]] = [
        TableColumn("condition", lambda each: shown(each.name, 60), is_name=True)
    ]
    columns += [
        TableColumn(shown(name), partial(_of_means, layer=layer))
        for layer, name in enumerate(invariance.upstream.layers)
    ]
    note = "Of means over utterances; – where these do not differ, as after normalisation over the utterance."
    return table(f"{title_of(invariance)}: means of utterances", columns, invariance.conditions, (note,))


def _of_means(condition: ConditionInvariance, layer: int) -> PlainCell:
    return cell_of(condition.utterances[layer])


def _note(invariance: Invariance) -> str:
    sample = invariance.sample
    over = f"; in brackets: 95 % interval over {sample.interval_unit}s" if sample.interval_unit is not None else ""
    return f"{_MEANING}; {sample.n_frames:,} frames of {sample.n_utterances:,} utterances{over}."


def summary_of(found: Sequence[FoundInvariance]) -> Iterator[PlainTable]:
    """A line for each model: the mean over its conditions at its first, its lowest and its last layer.

    A table for each corpus, sample and set of conditions, since only these numbers compare.
    """
    groups: dict[tuple[str, str, tuple[str, ...]], list[Invariance]] = {}
    for each in found:
        one = each.invariance
        digests = tuple(condition.digest for condition in one.conditions)
        groups.setdefault((one.corpus.fingerprint, one.sample.sha256, digests), []).append(one)
    columns: tuple[TableColumn[Invariance], ...] = (
        TableColumn("model", lambda one: shown(one.upstream.title), is_name=True),
        TableColumn("weights", lambda one: shown(one.upstream.checkpoint or "none", 40), is_name=True),
        TableColumn("first layer", lambda one: cell_of(one.mean[0])),
        TableColumn("lowest", lambda one: cell_of(one.mean[_lowest(one)])),
        TableColumn("at layer", lambda one: shown(one.upstream.layers[_lowest(one)], 20)),
        TableColumn("last layer", lambda one: cell_of(one.mean[-1])),
    )
    for several in groups.values():
        count = len(several[0].conditions)
        note = f"Mean over {count} condition{'s' * (count > 1)}. {_note(several[0])}"
        yield table(f"Invariance without labels: {shown(several[0].corpus.name)}", columns, several, (note,))


def _lowest(invariance: Invariance) -> int:
    values = [each.value for each in invariance.mean]
    return min(range(len(values)), key=lambda layer: (values[layer] is None, values[layer] or 0.0))


def drawings_of(found: Sequence[FoundInvariance]) -> list[tuple[Figure, PlainTable]]:
    """The figure of each measurement with its table."""
    return [(figure_of(each.invariance, f"{place}-"), _placed(each)) for place, each in enumerate(found)]


def tables_in(found: Sequence[FoundInvariance]) -> Iterator[PlainTable]:
    """The summaries, then the table of each measurement, which names its file."""
    yield from summary_of(found)
    yield from map(_placed, found)


def _placed(each: FoundInvariance) -> PlainTable:
    plain = table_of(each.invariance)
    return replace(plain, notes=(*plain.notes, f"From {shown(each.place, 400)}."))


def terminal_tables(invariance: Invariance) -> Iterator[tuple[str, Table]]:
    """A title and a table of the states, and of the means of utterances; intervals are in the file."""
    for plain in (table_of(invariance), table_of_utterances(invariance)):
        yield plain.title, filled(plain.headings, [[cell.text for cell in row] for row in plain.rows], 1)
