"""The figures of a report: metric over labels, layers, cost and learning rates, confusion matrices and DET curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from repbench.benchmark.records.formatting import number
from repbench.benchmark.report.data.columns import Column
from repbench.benchmark.report.data.confusion import Confusion
from repbench.benchmark.report.data.cost import Front, as_count
from repbench.benchmark.report.data.det import DetCurves, normal_deviate
from repbench.benchmark.report.data.efficiency import Efficiency, as_time
from repbench.benchmark.report.data.gather import Cell
from repbench.benchmark.report.data.layers import LayerProfiles
from repbench.benchmark.report.data.sensitivity import Sensitivity
from repbench.benchmark.report.render.escaping import shown
from repbench.benchmark.report.render.svg import CARD, INK, LINE, MARK, MARKERS, SERIES, Figure, draw
from repbench.benchmark.scoring.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LINES = len(SERIES)
"""Most lines of one figure; the tables have all."""

_WIDTH, _HEIGHT = 4.7, 3.3
_LINE_OF_LEGEND = 0.21


def efficiency_figure(efficiency: Efficiency) -> Figure:
    """Metric over seconds of labelled sound, on a logarithmic axis, with 95 % bands."""
    column, curves = efficiency.column, efficiency.curves[:MOST_LINES]
    words = [
        f"{curve.name}: {number(curve.values[0])} with {as_time(curve.seconds[0])} of labels, "
        f"{number(curve.values[-1])} with {as_time(curve.seconds[-1])}"
        for curve in curves
    ]

    def paint(axes: Axes) -> None:
        for place, curve in enumerate(curves):
            draw_line(axes, place, curve.name, curve.seconds, curve.cells)
        if efficiency.target is not None:
            axes.axhline(efficiency.target, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), label="mel, all labels")
        seconds = sorted({second for curve in curves for second in curve.seconds})
        _log_ticks(axes, seconds, as_time)
        axes.set_xlabel("labelled sound")
        finish(axes, column, len(curves) + (efficiency.target is not None))

    size = size_for(len(curves) + 1)
    title = f"Label efficiency: {column.title}"
    return draw(f"labels-{column.key}", title, "; ".join([*words, left_out(len(efficiency.curves))]), size, paint)


def layers_figure(profiles: LayerProfiles) -> Figure:
    """Metric by layer, with 95 % bands; the learned mix of all layers as a dashed line."""
    column, shown_profiles = profiles.column, profiles.profiles[:MOST_LINES]
    words = [
        f"{profile.name}: " + ", ".join(f"{profile.layer_name(n)} {number(c.value)}" for n, c in profile.cells.items())
        for profile in shown_profiles
    ]

    def paint(axes: Axes) -> None:
        for place, profile in enumerate(shown_profiles):
            draw_line(axes, place, profile.name, list(profile.cells), list(profile.cells.values()))
            if profile.weighted is not None and profile.weighted.value is not None:
                axes.axhline(profile.weighted.value, color=SERIES[place], linewidth=0.9, linestyle=(0, (4, 3)))
        numbers = sorted({layer for profile in shown_profiles for layer in profile.cells})
        # Rounded up: at most 13 ticks fit.
        step = -(-len(numbers) // 13)
        axes.set_xticks(numbers[::step])
        axes.set_xlabel("layer" + (" (dashed: learned mix)" if any(p.weighted for p in shown_profiles) else ""))
        finish(axes, column, len(shown_profiles))

    title = f"Layer by layer: {column.title}"
    text = "; ".join([*words, left_out(len(profiles.profiles))])
    return draw(f"layers-{column.key}", title, text, size_for(len(shown_profiles)), paint)


def cost_figure(front: Front) -> Figure:
    """Metric over multiply-accumulates per second of sound; the Pareto front as steps."""
    column = front.column
    points = _readable(front)
    words = [f"{cell.row.title}: {number(cell.value)} at {as_count(macs)} MACs/s" for macs, cell in points]
    positive = [macs for macs, _ in front.points if macs > 0]
    # A logarithmic axis has no 0: models without products are drawn left of the cheapest other one.
    least = min(positive) / 4

    def place(macs: int) -> float:
        return float(max(macs, least))

    def paint(axes: Axes) -> None:
        steps = [(place(macs), cell.value or 0.0) for macs, cell in front.points if cell.key in front.front]
        right = max(positive) * 4
        axes.step([*(x for x, _ in steps), right], [*(y for _, y in steps), steps[-1][1]], where="post", color=MARK)
        for macs, cell in points:
            on_front = cell.key in front.front
            axes.plot(
                place(macs), cell.value or 0.0, "o", color=MARK if on_front else INK, markersize=6 if on_front else 4.5
            )
        _label_points(axes, [(place(macs), cell) for macs, cell in points])
        axes.set_xscale("log")
        axes.set_xlim(least / 1.6, right)
        ticks = sorted({place(macs) for macs, _ in points})
        _log_ticks(axes, ticks, lambda macs: "0" if macs == least else as_count(macs), pad=False)
        axes.set_xlabel("multiply-accumulates per second of sound")
        finish(axes, column, 0)

    return draw(f"cost-{column.key}-{front.mode}", front.title, "; ".join(words), (_WIDTH, _HEIGHT), paint)


def sensitivity_figure(sensitivity: Sensitivity) -> Figure:
    """Dev value by learning rate; chosen rates are ringed."""
    column, tried = sensitivity.column, sensitivity.tried[:MOST_LINES]
    words = [
        f"{each.cell.row.title}: "
        + ", ".join(f"{number(value)} at {rate:g}" for rate, value in each.dev_values.items())
        for each in tried
    ]

    def paint(axes: Axes) -> None:
        for place, each in enumerate(tried):
            rates, values = list(each.dev_values), list(each.dev_values.values())
            axes.plot(rates, values, color=SERIES[place], marker=MARKERS[place], label=shown(each.cell.row.title, 38))
            chosen = [(rate, value) for rate, value in each.dev_values.items() if rate in each.chosen]
            for rate, value in chosen:
                axes.plot(rate, value, "o", color=SERIES[place], fillstyle="none", markersize=10)
        _log_ticks(axes, sorted({rate for each in tried for rate in each.dev_values}), lambda rate: f"{rate:g}")
        axes.set_xlabel("learning rate (ringed: chosen on dev)")
        finish(axes, column, len(tried), of="dev ")

    title = f"Learning rates: {column.title}"
    text = "; ".join([*words, left_out(len(sensitivity.tried))])
    return draw(f"rates-{column.key}", title, text, size_for(len(tried)), paint)


def confusion_figure(confusion: Confusion) -> Figure:
    """The confusion matrix; the darker a square, the larger its share of the row."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    classes, cell = confusion.classes, confusion.cell
    levels = 10

    def squares(level: int) -> list[tuple[int, int]]:
        return [
            (estimated, reference)
            for reference, row in enumerate(confusion.shares)
            for estimated, share in enumerate(row or ())
            if share >= 0.005 and min(int(share * levels), levels - 1) == level
        ]

    def paint(axes: Axes) -> None:
        for level in range(levels):
            corners = [
                [(x - 0.5, y - 0.5), (x + 0.5, y - 0.5), (x + 0.5, y + 0.5), (x - 0.5, y + 0.5), (x - 0.5, y - 0.5)]
                for x, y in squares(level)
            ]
            if corners:
                # One path for a level: a matrix of 100 classes would otherwise be 10,000 elements of the page.
                path = Path.make_compound_path(*(Path(each, closed=True) for each in corners))
                opacity = (level + 0.7) / levels
                axes.add_patch(PathPatch(path, facecolor=SERIES[0], alpha=opacity, linewidth=0))
        ticks = range(len(classes))
        size = 8 if len(classes) <= 24 else 5.5
        axes.set_xticks(ticks, classes, rotation=90, fontsize=size)
        axes.set_yticks(ticks, classes, fontsize=size)
        axes.set_xlim(-0.5, len(classes) - 0.5)
        # Downwards, as matrices are read.
        axes.set_ylim(len(classes) - 0.5, -0.5)
        axes.tick_params(length=0)
        axes.set_aspect("equal")
        axes.set_xlabel("predicted")
        axes.set_ylabel("reference")
        axes.spines[["top", "right"]].set_visible(True)

    title = f"Confusions: {cell.column.title}, {cell.row.title}"
    words = "; ".join(
        f"{pair.reference} predicted as {pair.estimated} at {pair.share:.0%} of its {confusion.items}"
        for pair in confusion.pairs
    )
    return draw(f"confusion-{cell.column.key}", title, f"Most confused: {words}", (_WIDTH, _WIDTH), paint)


_DET_TICKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99)


def det_figure(det: DetCurves) -> Figure:
    """Miss rate over false-alarm rate, both as normal deviates; points on the diagonal are the equal error rates."""
    curves = det.curves[:MOST_LINES]
    words = [f"{curve.cell.row.title}: equal error rate {number(curve.eer)}" for curve in curves]
    rates = [curve.eer for curve in curves]
    # As far as a tenth of the best rate, and as far up as the worst one leaves room.
    low = max([tick for tick in _DET_TICKS if tick <= min(rates) / 10], default=_DET_TICKS[0])
    high = min([tick for tick in _DET_TICKS if tick >= min(2 * max(rates), 0.9)], default=_DET_TICKS[-1])
    ends = tuple(normal_deviate([low, high]).tolist())
    ticks = _apart([tick for tick in _DET_TICKS if low <= tick <= high])

    def paint(axes: Axes) -> None:
        axes.plot(ends, ends, color=LINE, linewidth=0.9)
        for place, curve in enumerate(curves):
            name = shown(curve.cell.row.title, 38)
            axes.plot(
                normal_deviate(curve.false_alarm),
                normal_deviate(curve.miss),
                color=SERIES[place],
                label=f"{name}: {number(curve.eer)}",
            )
            (meeting,) = normal_deviate([curve.eer]).tolist()
            axes.plot(meeting, meeting, color=SERIES[place], marker=MARKERS[place], linestyle="none")
        places = normal_deviate(ticks).tolist()
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks(places, [f"{tick:g}" for tick in ticks])
        axes.set_xlim(*ends)
        axes.set_ylim(*ends)
        axes.grid()
        axes.set_aspect("equal")
        axes.set_xlabel("false alarms (share of trials of two speakers)")
        axes.set_ylabel("misses (share of target trials)")
        axes.figure.legend(loc="outside lower left", ncols=1, labelcolor=INK)

    title = f"Detection error trade-off: {det.column.title}"
    text = "; ".join([*words, left_out(det.num_systems)])
    size = (_WIDTH, _WIDTH + _LINE_OF_LEGEND * len(curves))
    return draw(f"det-{det.column.key}", title, text, size, paint)


def _apart(ticks: Sequence[float]) -> list[float]:
    """The rates, from the highest down, that are a tenth of the axis apart, so that there is room for their labels."""
    places = normal_deviate(ticks).tolist()
    kept: list[tuple[float, float]] = []
    for place, tick in sorted(zip(places, ticks, strict=True), reverse=True):
        if not kept or kept[-1][0] - place > (places[-1] - places[0]) / 10:
            kept.append((place, tick))
    return [tick for _, tick in reversed(kept)]


def draw_line(
    axes: Axes,
    place: int,
    name: str,
    xs: Sequence[float],
    cells: Sequence[Cell],
    bands: Sequence[Interval | None] | None = None,
) -> None:
    """Draw the numbers of cells over `xs` in the colour of a place, with a band.

    Args:
        axes: Axes to draw on.
        place: Of the system in the legend.
        name: In the legend.
        xs: One for each cell.
        cells: The numbers.
        bands: Intervals around them; None: those of the cells.
    """
    values = [cell.value or 0.0 for cell in cells]
    several = [cell.interval for cell in cells] if bands is None else bands
    known = [(x, band) for x, band in zip(xs, several, strict=True) if band is not None]
    if len(known) > 1:
        lows, highs = [each.low for _, each in known], [each.high for _, each in known]
        axes.fill_between([x for x, _ in known], lows, highs, color=SERIES[place], alpha=0.11, linewidth=0)
    axes.plot(xs, values, color=SERIES[place], marker=MARKERS[place], label=shown(name, 38))


def finish(axes: Axes, column: Column, num_names: int, of: str = "") -> None:
    """Draw chance, grid, the name of the metric and, where there are names, a legend."""
    if column.chance is not None:
        low, _ = axes.get_ylim()
        if low < column.chance * 1.5:
            axes.axhline(column.chance, color=LINE, linewidth=1.2)
    axes.grid(axis="y")
    axes.set_ylabel(f"{of}{shown(column.metric, 24)} {column.direction}")
    if num_names:
        axes.figure.legend(loc="outside lower left", ncols=1, labelcolor=INK)


def size_for(num_names: int) -> tuple[float, float]:
    """Width and height in inches of a figure with a legend of some names."""
    return _WIDTH, _HEIGHT + _LINE_OF_LEGEND * num_names


def _log_ticks(axes: Axes, places: Sequence[float], label: object, *, pad: bool = True) -> None:
    """A logarithmic axis with plain numbers at the measured points, as far as there is room."""
    from math import log
    from typing import cast

    from matplotlib.ticker import NullLocator

    axes.set_xscale("log")
    breadth = log(places[-1] / places[0]) or 1.0
    kept: list[float] = []
    for each in places:
        if not kept or log(each / kept[-1]) > 0.11 * breadth:
            kept.append(each)
    name = cast("Mapping[float, str]", {each: label(each) for each in kept})  # type: ignore[operator]
    axes.set_xticks(kept, [name[each] for each in kept])
    axes.xaxis.set_minor_locator(NullLocator())
    if pad:
        axes.margins(x=0.06)


def _readable(front: Front) -> list[tuple[int, Cell]]:
    """The points of the front, and the best others as far as there is room for their names."""
    on_front = [point for point in front.points if point[1].key in front.front]
    others = [point for point in front.points if point[1].key not in front.front]
    others.sort(key=lambda point: -point[1].signed_value)
    return sorted([*on_front, *others[: max(0, 14 - len(on_front))]], key=lambda point: point[0])


def _label_points(axes: Axes, points: Sequence[tuple[float, Cell]]) -> None:
    """Write names next to points, moved up where they would overlap."""
    # The geometric mean is the middle of a logarithmic axis.
    middle = (points[0][0] * points[-1][0]) ** 0.5
    values = [cell.value or 0.0 for _, cell in points]
    gap = 0.062 * ((max(values) - min(values)) or 1.0)
    last: dict[bool, float] = {}
    for x, cell in sorted(points, key=lambda point: point[1].value or 0.0):
        right = x > middle
        value = cell.value or 0.0
        height = max(value, last.get(right, value - gap) + gap)
        last[right] = height
        axes.annotate(
            shown(cell.row.title.removesuffix(", layer last"), 30),
            (x, height),
            xytext=(-7, -6) if right else (7, 6),
            textcoords="offset points",
            ha="right" if right else "left",
            va="center",
            fontsize=9,
            bbox={"facecolor": CARD, "edgecolor": "none", "pad": 0.6, "alpha": 0.85},
        )


def left_out(count: int) -> str:
    """In words how many lines a figure has no room for."""
    return f"{count - MOST_LINES} more in the table" if count > MOST_LINES else "nothing left out"


__all__ = [
    "CARD",
    "confusion_figure",
    "cost_figure",
    "det_figure",
    "efficiency_figure",
    "layers_figure",
    "sensitivity_figure",
]
