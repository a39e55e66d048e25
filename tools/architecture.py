"""Draws the parts and rooms of the package and the imports between them, from the code.

Usage: python tools/architecture.py [--check] [--source DIR] [--out FILE]

Needs the standard library alone. Writes docs/pictures/architecture.svg and prints the numbers of each part as a
Markdown table; with `--check` it writes nothing, and exits with 1 if the picture is not that of the code.

A *part* is a module or package directly below `repbench`, a *room* one directly below a part. An arrow leads from a
room to another whose modules it imports, wherever the import stands. The *floor* of a room is the longest way down from
it: 0 for a room that imports no other. Arrows that follow from others (a → c beside a → b → c) are counted, not drawn.
"""

from __future__ import annotations

import argparse
import ast
import functools
import itertools
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from html import escape
from pathlib import Path
from statistics import fmean

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "repbench"
PICTURE = ROOT / "docs" / "pictures" / "architecture.svg"

COLUMNS = ((575, ("", "upstream", "downstream")), (425, ("benchmark", "corpora")))
"""Of the picture: the width of each and its parts from top to bottom; "" is the package, whose rooms are its parts."""

PANELS = tuple(part for _, column in COLUMNS for part in column)

UNDRAWN = {"__init__", "__main__", "moved", "templates"}
"""Parts that are entries or tables of names."""

Graph = dict[str, set[str]]
"""From a node to those that it imports."""


# The code


def modules_of(source: Path) -> dict[str, Path]:
    """The modules below a package's folder by their dotted names, without that of the package: `benchmark.run`."""
    found = {}
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(path: Path, modules: Iterable[str], package: str = "repbench") -> set[str]:
    """The modules of the package that a file imports, wherever in it; "" for the package itself is left out."""
    known = set(modules)
    found = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        # Imports are statements, so nothing is looked for in expressions, which are most of a tree.
        for name in ("body", "orelse", "finalbody", "handlers", "cases"):
            below = getattr(node, name, None)
            if isinstance(below, list):
                waiting += below
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full.removeprefix(f"{package}.") in known else node.module)
    return {name.removeprefix(f"{package}.") for name in found if name.startswith(f"{package}.")}


@functools.cache
def import_graph(source: Path) -> Graph:
    """The modules of a package with those of it that each imports."""
    modules = modules_of(source)
    return {name: imports_of(path, modules, source.name) for name, path in modules.items()}


def rooms_of(imports: Mapping[str, set[str]], part: str) -> Graph:
    """Of the rooms of a part, the others that each imports; of the parts, where `part` is ""."""
    inside = f"{part}." if part else ""
    depth = inside.count(".")
    rooms: Graph = {}
    for name, targets in imports.items():
        if not name.startswith(inside) or not name:
            continue
        room = name.split(".")[depth]
        others = {each.split(".")[depth] for each in targets if each.startswith(inside)}
        rooms[room] = rooms.get(room, set()) | others - {room}
    return rooms


def floors_of(graph: Mapping[str, set[str]]) -> dict[str, int]:
    """The longest way down from each node.

    Raises:
        graphlib.CycleError: Nodes import one another in a circle.
    """
    floors: dict[str, int] = {}
    for node in TopologicalSorter(graph).static_order():
        floors[node] = 1 + max((floors[each] for each in graph.get(node, ())), default=-1)
    return floors


def without_implied(graph: Mapping[str, set[str]]) -> Graph:
    """The arrows that do not follow from two or more others."""
    below: Graph = {}
    for node in TopologicalSorter(graph).static_order():
        below[node] = set().union(*(below[each] | {each} for each in graph.get(node, ())))
    return {
        node: {each for each in graph[node] if not any(each in below[other] for other in graph[node])} for node in graph
    }


@dataclass(frozen=True, slots=True)
class Numbers:
    """Of one part: its rooms, floors, arrows, modules and lines."""

    rooms: int
    floors: int
    arrows: int
    modules: int
    lines: int


def numbers_of(source: Path, part: str) -> Numbers:
    """The numbers of a part; of the package, whose rooms are the parts, where `part` is ""."""
    inside = [path for name, path in modules_of(source).items() if not part or f"{name}.".startswith(f"{part}.")]
    rooms = rooms_of(import_graph(source), part)
    rooms = rooms if part else {name: others - UNDRAWN for name, others in rooms.items() if name not in UNDRAWN}
    return Numbers(
        rooms=len(rooms),
        floors=1 + max(floors_of(rooms).values()),
        arrows=sum(map(len, rooms.values())),
        modules=len(inside),
        lines=sum(path.read_text(encoding="utf-8").count("\n") for path in inside),
    )


# The picture

MARGIN = 18
TITLE = 44
BOX = 34
GAP = 38
APART = 22.0
"""Between boxes of a floor."""
LINE = 8
"""Between the lines of a floor whose boxes do not fit on one."""
LETTER = 8.1
"""Width of a letter of a box's name, in pixels: generous for the fonts of the style sheet."""

STYLE = """
    svg { font-family: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
    .ground { fill: #fbfbf8; }
    .panel { fill: #ffffff; stroke: #d5d8dd; }
    .title { fill: #1d2430; font-size: 16px; font-weight: 600; }
    .numbers { fill: #5b636e; font-size: 13px; font-weight: 400; }
    .room { stroke-width: 1.4; }
    .name { fill: #1d2430; font-size: 14px; text-anchor: middle; }
    .arrow { fill: none; stroke: #7b838f; stroke-width: 1.3; marker-end: url(#tip); }
    .tip { fill: #7b838f; }
    .package { fill: #eceff3; stroke: #7b8794; }
    .benchmark { fill: #e5eef9; stroke: #5b88bd; }
    .corpora { fill: #fbefd9; stroke: #c08a35; }
    .upstream { fill: #e4f2ea; stroke: #4f9a70; }
    .downstream { fill: #f3e6f3; stroke: #9c6a9d; }
    @media (prefers-color-scheme: dark) {
      .ground { fill: #1a1d23; }
      .panel { fill: #20242b; stroke: #3a404a; }
      .title, .name { fill: #f0f2f5; }
      .numbers { fill: #aab1bc; }
      .arrow { stroke: #8d95a1; }
      .tip { fill: #8d95a1; }
      .package { fill: #2b3038; }
      .benchmark { fill: #1f3149; }
      .corpora { fill: #443317; }
      .upstream { fill: #1d3a2a; }
      .downstream { fill: #3b2a3d; }
    }"""


@dataclass(slots=True)
class Box:
    """A node where it is drawn; a way point of a long arrow has no name and no width, and is as high as its floor."""

    name: str
    floor: int
    width: float
    x: float = 0.0
    y: float = 0.0
    height: float = BOX


def lay_out(graph: Mapping[str, set[str]], width: float) -> tuple[dict[str, Box], list[list[str]]]:
    """Place the nodes of a graph: floors from top to bottom, each ordered so that few arrows cross.

    Returns:
        The boxes by node, and each drawn arrow as the nodes that it goes through.
    """
    floors = floors_of(graph)
    boxes = {name: Box(name, floors[name], max(60.0, LETTER * len(name) + 18)) for name in sorted(graph)}
    paths = []
    for name, others in sorted(without_implied(graph).items()):
        for other in sorted(others):
            between = [f"{name}→{other}@{floor}" for floor in range(floors[name] - 1, floors[other], -1)]
            boxes |= {each: Box("", int(each.rpartition("@")[2]), 6.0) for each in between}
            paths.append([name, *between, other])
    rows: list[list[str]] = [[] for _ in range(1 + max(floors.values()))]
    for name, box in boxes.items():
        rows[box.floor].append(name)
    neighbours: dict[str, list[str]] = {name: [] for name in boxes}
    for path in paths:
        for one, other in itertools.pairwise(path):
            neighbours[one].append(other)
            neighbours[other].append(one)
    for row in rows:
        _spread(row, boxes, width, {name: width / 2 + index for index, name in enumerate(row)})
    for turn in range(24):
        order = rows if turn % 2 else rows[::-1]
        for row in order:
            _spread(row, boxes, width, {name: _mean(name, neighbours[name], boxes) for name in row})
    left = min(box.x - box.width / 2 for box in boxes.values())
    right = max(box.x + box.width / 2 for box in boxes.values())
    top = 0.0
    for row in reversed(rows):
        named = [boxes[name] for name in row if boxes[name].name]
        ends: list[float] = []  # of the last box of each line
        line_of: dict[str, int] = {}
        for box in named:
            start = box.x - box.width / 2
            line = next((line for line, end in enumerate(ends) if end <= start), len(ends))
            ends[line : line + 1] = [box.x + box.width / 2]
            line_of[box.name] = line
        lines = max(1, len(ends))
        height = lines * (BOX + LINE) - LINE
        for name in row:
            boxes[name].x += (width - left - right) / 2
            boxes[name].y = top
            boxes[name].height = BOX if boxes[name].name else height
        for box in named:
            box.y += line_of[box.name] * (BOX + LINE)
        top += height + GAP
    return boxes, paths


def _mean(name: str, others: Sequence[str], boxes: Mapping[str, Box]) -> float:
    return fmean(boxes[each].x for each in others) if others else boxes[name].x


def _spread(row: list[str], boxes: Mapping[str, Box], width: float, wish: Mapping[str, float]) -> None:
    """Order a floor by where its boxes wish to stand, and place each as near its wish as the others let it.

    The least squares of the distances from the wishes, in order and apart: pooled neighbours, as in isotonic
    regression.
    """
    row.sort(key=lambda name: (wish[name], name))
    widths = [boxes[name].width for name in row]
    space = min(APART, (width - sum(widths)) / max(1, len(row) - 1))
    offsets = [0.0]
    for one, other in itertools.pairwise(widths):
        offsets.append(offsets[-1] + (one + other) / 2 + space)
    pools: list[list[float]] = []
    for name, offset in zip(row, offsets, strict=True):
        pools.append([wish[name] - offset])
        while len(pools) > 1 and fmean(pools[-2]) >= fmean(pools[-1]):
            last = pools.pop()
            pools[-1] += last
    lowest, highest = widths[0] / 2, width - widths[-1] / 2 - offsets[-1]
    starts = [min(max(fmean(pool), lowest), highest) for pool in pools for _ in pool]
    for name, start, offset in zip(row, starts, offsets, strict=True):
        boxes[name].x = start + offset


def panel(part: str, graph: Mapping[str, set[str]], numbers: Numbers, width: float) -> tuple[list[str], float]:
    """The shapes of one part, from the point (0, 0), and their height."""
    boxes, paths = lay_out(graph, width - 2 * MARGIN)
    height = TITLE + max(box.y for box in boxes.values()) + BOX + MARGIN
    rooms = "parts" if not part else "rooms"
    count = f"{numbers.rooms} {rooms}, {numbers.floors} floors, {numbers.arrows} arrows"
    shapes = [
        f'<rect class="panel" width="{width:.0f}" height="{height:.0f}" rx="9"/>',
        f'<text class="title" x="{MARGIN}" y="28">{f"repbench.{part}" if part else "repbench"}'
        f'<tspan class="numbers" dx="12">{count}</tspan></text>',
    ]
    for path in paths:
        shapes.append(f'<path class="arrow" d="{_curve([boxes[name] for name in path])}"/>')
    for name, box in sorted(boxes.items()):
        if box.name:
            kind = part or (name if name in PANELS else "package")
            x, y = MARGIN + box.x, TITLE + box.y
            imported = ", ".join(sorted(graph[name])) or "nothing"
            shapes += [
                f"<g><title>{escape(name)} imports {escape(imported)}</title>"
                f'<rect class="room {kind}" x="{x - box.width / 2:.1f}" y="{y:.1f}" width="{box.width:.1f}" '
                f'height="{BOX}" rx="6"/><text class="name" x="{x:.1f}" y="{y + 22:.1f}">{escape(name)}</text></g>'
            ]
    return shapes, height


def _curve(boxes: Sequence[Box]) -> str:
    """From the bottom of the first box, through the way points, to the top of the last."""
    parts = [f"M{MARGIN + boxes[0].x:.1f} {TITLE + boxes[0].y + boxes[0].height:.1f}"]
    for one, other in itertools.pairwise(boxes):
        x, y = MARGIN + one.x, TITLE + one.y + one.height
        to_x, to_y = MARGIN + other.x, TITLE + other.y - 2
        half = (to_y - y) / 2
        parts.append(f"C{x:.1f} {y + half:.1f} {to_x:.1f} {to_y - half:.1f} {to_x:.1f} {to_y:.1f}")
        if not other.name:
            parts.append(f"V{to_y + other.height + 2:.1f}")
    return "".join(parts)


def picture(source: Path) -> str:
    """The SVG of a package."""
    imports = import_graph(source)
    parts = {name: others - UNDRAWN for name, others in rooms_of(imports, "").items() if name not in UNDRAWN}
    shapes: list[str] = []
    x, bottom = MARGIN, 0.0
    for width, column in COLUMNS:
        y = float(MARGIN)
        for part in column:
            graph = rooms_of(imports, part) if part else parts
            drawn, height = panel(part, graph, numbers_of(source, part), width)
            shapes += [f'<g transform="translate({x} {y:.0f})">', *drawn, "</g>"]
            y += height + MARGIN
        x, bottom = x + width + MARGIN, max(bottom, y)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {x} {bottom:.0f}" role="img" '
            'aria-labelledby="title words">',
            '<title id="title">Parts and rooms of repbench</title>',
            '<desc id="words">Boxes are packages and modules, the highest floor at the top; an arrow '
            "leads from a box to one that it imports. Arrows that follow from others are left out.</desc>",
            f"<style>{STYLE}\n</style>",
            '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            'orient="auto"><path class="tip" d="M0 0 10 5 0 10z"/></marker></defs>',
            f'<rect class="ground" width="{x}" height="{bottom:.0f}" rx="10"/>',
            *shapes,
            "</svg>",
            "",
        ]
    )


def table(source: Path) -> str:
    """The numbers of each drawn part as Markdown."""
    rows = ["| part | rooms | floors | arrows | modules | lines |", "|---|--:|--:|--:|--:|--:|"]
    for part in PANELS:
        numbers = numbers_of(source, part)
        cells = (numbers.rooms, numbers.floors, numbers.arrows, numbers.modules, f"{numbers.lines:,}")
        rows.append(f"| {f'`{part}/`' if part else 'the package'} | {' | '.join(map(str, cells))} |")
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the picture is an old one")
    parser.add_argument("--source", type=Path, default=SOURCE, help="folder of the package")
    parser.add_argument("--out", type=Path, default=PICTURE, help="the SVG")
    args = parser.parse_args()
    drawn = picture(args.source)
    if args.check:
        same = args.out.is_file() and args.out.read_text(encoding="utf-8") == drawn
        if not same:
            print(f"{args.out} is not the picture of the code: run `python tools/architecture.py`", file=sys.stderr)
        return 0 if same else 1
    args.out.write_text(drawn, encoding="utf-8")
    print(table(args.source))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
