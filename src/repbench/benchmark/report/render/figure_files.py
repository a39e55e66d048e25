"""The figures of a report as files: SVG, PNG and PDF, in colours that colour-blind readers can tell apart."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from repbench.benchmark.report.data.assemble import Report
from repbench.benchmark.report.render import figures, robustness, similarity
from repbench.benchmark.report.render.svg import MADE_BY, Figure
from repbench.errors import UsageError
from repbench.files import atomic_write, environment_faults

PictureFormat = Literal["svg", "png", "pdf"]

PICTURE_FORMATS: tuple[PictureFormat, ...] = ("svg", "png", "pdf")

FOLDER = "figures"
"""Folder of the figures, below that of the report."""


def figures_of(report: Report) -> Iterator[Figure]:
    """Every figure of a report, in the order of the page."""
    yield from (figure for figure, _ in robustness.drawings_of(report.robustness) if figure is not None)
    yield from map(figures.efficiency_figure, report.efficiencies)
    yield from map(figures.layers_figure, report.profiles)
    yield from map(figures.cost_figure, report.fronts)
    yield from map(figures.confusion_figure, report.confusions)
    yield from map(figures.det_figure, report.det)
    yield from map(figures.sensitivity_figure, report.sensitivities)
    yield from (figure for figure, _ in similarity.drawings_of(report.similarities))


def write_figures(report: Report, out: Path, formats: Sequence[PictureFormat]) -> list[Path]:
    """Write `OUT/figures/KEY.FORMAT` of every figure; files of an earlier report are replaced.

    Args:
        report: The report.
        out: Folder of the report.
        formats: Of `PICTURE_FORMATS`.

    Raises:
        UsageError: A file that no report made has the name of one to be written; nothing is written.
        EnvironmentFault: The disk is full or the place may not be written to.
    """
    folder = out / FOLDER
    drawn = [(folder / f"{each.key}.{format_}", each, format_) for each in figures_of(report) for format_ in formats]
    for path, *_ in drawn:
        _refuse_of_others(path)
    if drawn:
        with environment_faults(folder):
            folder.mkdir(parents=True, exist_ok=True)
    for path, figure, format_ in drawn:
        content = figure.as_file().encode("utf-8") if format_ == "svg" else figure.as_picture(format_)
        with atomic_write(path) as stream:
            stream.write(content)
    return [path for path, *_ in drawn]


def _refuse_of_others(path: Path) -> None:
    # In the whole file: the metadata of a PDF are at its end.
    if os.path.lexists(path) and not (path.is_file() and MADE_BY.encode("ascii") in path.read_bytes()):
        what = f"`{MADE_BY}` did not make this file, and would replace it"
        raise UsageError(what, file=path, key="--figures", do="Choose another --out, or move the file")
