"""Similarities as heat maps, profiles and tables, from `similarity.json`.

A heat map is drawn in one hue, darker where the similarity is higher, with the value in every cell, so that neither
colour vision nor print matters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from repbench.benchmark.records.formatting import interval, number
from repbench.benchmark.report.data.similarity import FoundSimilarity
from repbench.benchmark.report.render.escaping import shown
from repbench.benchmark.report.render.svg import CARD, INK, MARKERS, SERIES, Figure, draw
from repbench.benchmark.report.render.tables import PlainCell, PlainTable
from repbench.benchmark.scoring.statistics import Interval
from repbench.benchmark.similarity.document import (
    MEASURES,
    LayerMatrix,
    LayerProfile,
    Similarity,
    Value,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.table import Table

MOST_NUMBERS = 26
"""Most layers of a side whose values are written into the cells; more have a scale of colours."""

_WIDTH, _HEIGHT = 4.7, 3.3
_LINE_OF_LEGEND = 0.21
_LEVELS = 20
_DARK = 0.75
"""Opacity from which the number in a cell has the colour of the page."""

_LONGEST = 34


def figures_of(similarity: Similarity, prefix: str = "") -> list[Figure]:
    """A heat map of each matrix and a profile of each measure with each kind of labels; keys begin with the prefix."""
    matrices = [matrix_figure(similarity, each, prefix) for each in similarity.matrices]
    return [*matrices, *(profile_figure(similarity, each, prefix) for each in grouped_profiles(similarity))]


def tables_of(similarity: Similarity) -> list[PlainTable]:
    """The tables of `figures_of`, in the same order."""
    matrices = [matrix_table(similarity, each) for each in similarity.matrices]
    return [*matrices, *(profile_table(similarity, each) for each in grouped_profiles(similarity))]


def drawings_of(found: Sequence[FoundSimilarity]) -> list[tuple[Figure, PlainTable]]:
    """The figures of all comparisons, with their tables."""
    figures = [figure for place, each in enumerate(found) for figure in figures_of(each.similarity, prefix=f"{place}-")]
    return list(zip(figures, tables_in(found), strict=True))


def tables_in(found: Sequence[FoundSimilarity]) -> list[PlainTable]:
    """The tables of all comparisons; each names its file."""
    return [
        replace(table, notes=(*table.notes, f"From {shown(each.place, 400)}."))
        for each in found
        for table in tables_of(each.similarity)
    ]


def grouped_profiles(similarity: Similarity) -> list[list[LayerProfile]]:
    """The profiles of each figure: the same measure against the same, of all models, given labels before shuffled."""
    groups: dict[tuple[str, str], list[LayerProfile]] = {}
    for each in similarity.profiles:
        groups.setdefault((each.against, each.measure), []).append(each)
    return list(groups.values())


# Matrices


def matrix_title(similarity: Similarity, matrix: LayerMatrix) -> str:
    """Measure, both models, and the corpus."""
    first, second = (similarity.upstreams[each].title for each in (matrix.first, matrix.second))
    of = f"layers of {shown(first)}" if matrix.first == matrix.second else f"{shown(first)} and {shown(second)}"
    return f"{MEASURES[matrix.measure].title}: {of}, {shown(similarity.corpus.name)}"


def matrix_figure(similarity: Similarity, matrix: LayerMatrix, prefix: str = "") -> Figure:
    """The similarity of each layer of a model (rows, downwards) with each of another (columns)."""
    first, second = similarity.upstreams[matrix.first], similarity.upstreams[matrix.second]
    return heat_map(
        f"similarity-{prefix}{matrix.measure}",
        matrix_title(similarity, matrix),
        f"{MEASURES[matrix.measure].text}; rows are layers of {shown(first.title)}.",
        [[each.value for each in row] for row in matrix.values],
        (first.layers, second.layers),
        (f"layer of {shown(first.title, _LONGEST)}", f"layer of {shown(second.title, _LONGEST)}"),
    )


def heat_map(
    key: str,
    title: str,
    text: str,
    values: Sequence[Sequence[float | None]],
    names: tuple[Sequence[str], Sequence[str]],
    labels: tuple[str, str],
    longest: int = 14,
) -> Figure:
    """Values from 0 to 1, or above, which are as dark as 1: darker where they are higher, with the number in each cell.

    Args:
        key: Id of the figure.
        title: Its title.
        text: Its description in words; the values follow it.
        values: By row and column; None: undefined.
        names: Of the rows and of the columns.
        labels: Of the axis of rows and of that of columns; empty: none.
        longest: Most characters of the name of a row.
    """
    rows, columns = names
    most = max(len(rows), len(columns))

    def paint(axes: Axes) -> None:
        from matplotlib.patches import PathPatch
        from matplotlib.path import Path

        for level in range(_LEVELS):
            squares = [
                _square(column, row)
                for row, of_row in enumerate(values)
                for column, value in enumerate(of_row)
                if value is not None and _level(value) == level
            ]
            if squares and level:
                # One path for a level: a matrix of 49 layers would otherwise be 2,401 elements of the page.
                path = Path.make_compound_path(*(Path(each, closed=True) for each in squares))
                axes.add_patch(PathPatch(path, facecolor=SERIES[0], alpha=level / (_LEVELS - 1), linewidth=0))
        if most > MOST_NUMBERS:
            _scale(axes)
        else:
            size = 9.0 if most <= 6 else 7.5 if most <= 9 else 5.5 if most <= 16 else 4.0
            for row, of_row in enumerate(values):
                for column, value in enumerate(of_row):
                    is_dark = value is not None and _level(value) / (_LEVELS - 1) > _DARK
                    number_in_cell = "–" if value is None else f"{value:.2f}"
                    number_in_cell = number_in_cell.replace("0.", ".", 1) if most > 9 else number_in_cell
                    colour = CARD if is_dark else INK
                    axes.text(column, row, number_in_cell, ha="center", va="center", fontsize=size, color=colour)
        size = 8.5 if most <= 9 else 7 if most <= 24 else 5
        axes.set_xticks(range(len(columns)), [shown(name, 14) for name in columns], rotation=90, fontsize=size)
        axes.set_yticks(range(len(rows)), [shown(name, longest) for name in rows], fontsize=size)
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.tick_params(length=0)
        axes.set_aspect("equal")
        axes.set_xlabel(labels[1])
        axes.set_ylabel(labels[0])
        axes.spines[["top", "right"]].set_visible(True)

    words = "; ".join(
        f"{shown(name)}: " + ", ".join(number(value) for value in row) for name, row in zip(rows, values, strict=True)
    )
    height = max(1.6, min(_WIDTH, _WIDTH * (len(rows) + 2) / (len(columns) + 2)))
    return draw(key, title, f"{text} {words}", (_WIDTH, height), paint)


def _level(value: float) -> int:
    """The step of colour of a value; values below 0, as of held-out correlations of noise, are as pale as 0."""
    return min(int(max(value, 0.0) * _LEVELS), _LEVELS - 1)


def _scale(axes: Axes) -> None:
    """A legend of the colours, for matrices without numbers."""
    from matplotlib.patches import Patch

    steps = (0.25, 0.5, 0.75, 1.0)
    handles = [Patch(facecolor=SERIES[0], alpha=_level(step) / (_LEVELS - 1), label=f"{step:g}") for step in steps]
    # 0 has no colour: an empty frame.
    handles.insert(0, Patch(facecolor=CARD, edgecolor=INK, linewidth=0.6, label="0"))
    axes.figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), labelcolor=INK)


def _square(x: int, y: int) -> list[tuple[float, float]]:
    return [(x - 0.5, y - 0.5), (x + 0.5, y - 0.5), (x + 0.5, y + 0.5), (x - 0.5, y + 0.5), (x - 0.5, y - 0.5)]


def matrix_table(similarity: Similarity, matrix: LayerMatrix) -> PlainTable:
    """The numbers of a heat map, with intervals."""
    first, second = similarity.upstreams[matrix.first], similarity.upstreams[matrix.second]
    rows = tuple(
        (PlainCell(shown(name)), *(cell_of(value) for value in row))
        for name, row in zip(first.layers, matrix.values, strict=True)
    )
    headings = (f"layer of {shown(first.title)}", *(shown(name) for name in second.layers))
    return PlainTable(matrix_title(similarity, matrix), headings, rows, notes=_notes(similarity, matrix.measure))


# Profiles


def profile_title(similarity: Similarity, profiles: Sequence[LayerProfile]) -> str:
    """Measure, what is compared with, and the corpus."""
    one = profiles[0]
    return f"{MEASURES[one.measure].title} with {one.against}, layer by layer, {shown(similarity.corpus.name)}"


def profile_figure(similarity: Similarity, profiles: Sequence[LayerProfile], prefix: str = "") -> Figure:
    """The similarity of each layer with labels or mel, with 95 % bands; shuffled labels as dashed lines."""
    names = [_line_name(similarity, each) for each in profiles]
    colours = {
        upstream: place % len(SERIES) for place, upstream in enumerate(dict.fromkeys(p.upstream for p in profiles))
    }

    def paint(axes: Axes) -> None:
        for profile, name in zip(profiles, names, strict=True):
            known = [(place, each) for place, each in enumerate(profile.values) if each.value is not None]
            places, values = [place for place, _ in known], [each.value or 0.0 for _, each in known]
            style = colours[profile.upstream]
            bands = [(place, each.ci95) for place, each in known if each.ci95 is not None]
            if len(bands) > 1:
                lows, highs = [low for _, (low, _) in bands], [high for _, (_, high) in bands]
                axes.fill_between(
                    [place for place, _ in bands], lows, highs, color=SERIES[style], alpha=0.11, linewidth=0
                )
            line = "-" if profile.labels == "given" else (0, (4, 3))
            if len(bands) == 1:
                (place, (low, high)) = bands[0]
                axes.vlines(place, low, high, color=SERIES[style], linewidth=1.2)
            axes.plot(places, values, color=SERIES[style], marker=MARKERS[style], linestyle=line, label=name)
        most = max(len(each.values) for each in profiles)
        axes.set_xticks(range(0, most, -(-most // 13)))
        axes.set_xlabel("layer")
        axes.set_ylabel(f"{MEASURES[profiles[0].measure].title} with {profiles[0].against}")
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, 0.0), max(high, 0.0))
        axes.grid(axis="y")
        axes.figure.legend(loc="outside lower left", ncols=1, labelcolor=INK)

    words = "; ".join(
        f"{name}: " + ", ".join(number(each.value) for each in profile.values)
        for profile, name in zip(profiles, names, strict=True)
    )
    size = _WIDTH, _HEIGHT + _LINE_OF_LEGEND * len(profiles)
    key = f"similarity-{prefix}{profiles[0].against}-{profiles[0].measure}"
    text = f"{MEASURES[profiles[0].measure].text}. {words}"
    return draw(key, profile_title(similarity, profiles), text, size, paint)


def _line_name(similarity: Similarity, profile: LayerProfile) -> str:
    shuffled = ", shuffled labels" if profile.labels == "shuffled" else ""
    return f"{shown(similarity.upstreams[profile.upstream].title, _LONGEST)}{shuffled}"


def profile_table(similarity: Similarity, profiles: Sequence[LayerProfile]) -> PlainTable:
    """The numbers of a figure of profiles: a row for each layer of each model."""
    kinds = list(dict.fromkeys(each.labels for each in profiles))
    by_place = {(each.upstream, each.labels): each.values for each in profiles}
    rows = tuple(
        (
            PlainCell(shown(similarity.upstreams[upstream].title)),
            PlainCell(shown(name)),
            *(cell_of(by_place[upstream, kind][layer]) for kind in kinds),
        )
        for upstream in dict.fromkeys(each.upstream for each in profiles)
        for layer, name in enumerate(similarity.upstreams[upstream].layers)
    )
    one = profiles[0]
    title = MEASURES[one.measure].title
    headings = (
        "model",
        "layer",
        *(f"{title} with {one.against}" if k == "given" else "shuffled labels" for k in kinds),
    )
    notes = _notes(similarity, one.measure)
    return PlainTable(profile_title(similarity, profiles), headings, rows, num_names=2, notes=notes)


def cell_of(value: Value) -> PlainCell:
    return PlainCell(number(value.value), "" if value.ci95 is None else interval(Interval(*value.ci95)))


def _notes(similarity: Similarity, measure: str) -> tuple[str, ...]:
    sample, text = similarity.sample, MEASURES[measure].text
    over = f"; in brackets: 95 % interval over {sample.interval_unit}s" if sample.interval_unit is not None else ""
    frames = f"{sample.n_frames:,} frames of {sample.n_utterances:,} utterances"
    return (f"{text[0].upper()}{text[1:]}; {frames}{over}.",)


# On a terminal


def terminal_tables(similarity: Similarity) -> Iterator[tuple[str, Table]]:
    """A title and a table for each matrix, and those of all profiles; intervals are in the file."""
    for matrix in similarity.matrices:
        plain = matrix_table(similarity, matrix)
        yield plain.title, filled(plain.headings, [[cell.text for cell in row] for row in plain.rows], 1)
    groups = grouped_profiles(similarity)
    if not groups:
        return
    columns = [(group, labels) for group in groups for labels in dict.fromkeys(each.labels for each in group)]
    headings = [
        f"{MEASURES[group[0].measure].title} with {group[0].against}" + (", shuffled" if labels == "shuffled" else "")
        for group, labels in columns
    ]
    rows = [
        [
            shown(upstream.title),
            shown(name),
            *(_at(group, place, labels, layer) for group, labels in columns),
        ]
        for place, upstream in enumerate(similarity.upstreams)
        if any(each.upstream == place for each in similarity.profiles)
        for layer, name in enumerate(upstream.layers)
    ]
    kinds = ", ".join(dict.fromkeys(group[0].against for group in groups))
    yield f"Layers with {kinds}: {shown(similarity.corpus.name)}", filled(["model", "layer", *headings], rows, 2)


def _at(group: Sequence[LayerProfile], upstream: int, labels: str, layer: int) -> str:
    found = [each.values[layer] for each in group if (each.upstream, each.labels) == (upstream, labels)]
    return number(found[0].value) if found else ""


def filled(headings: Sequence[str], rows: Sequence[Sequence[str]], num_names: int) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(Text(heading), justify="left" if place < num_names else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(each) for each in row))
    return table
