"""Figures of a report as files, and their colours."""

from __future__ import annotations

import io
import re
from itertools import combinations
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from repbench.benchmark.report import ReportRequest, WrittenReport, write_report
from repbench.benchmark.report.render.figure_files import figures_of
from repbench.benchmark.report.render.svg import _CLASSES, OKABE_ITO, SERIES
from repbench.errors import UsageError
from tests.benchmark.report_records import small_grid


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figures")
    small_grid(folder)
    return folder


@pytest.fixture(scope="module")
def written(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> WrittenReport:
    out = tmp_path_factory.mktemp("report")
    return write_report(ReportRequest(runs=(runs,), out=out, formats=("html",), figures=("svg", "png", "pdf")))


def pixels_of(png: bytes) -> set[str]:
    """The opaque colours of a picture, as text."""
    image = (matplotlib.image.imread(io.BytesIO(png))[..., :3] * 255).round().astype(np.int32)
    return {f"#{colour:06x}" for colour in np.unique(image @ [1 << 16, 1 << 8, 1])}


@pytest.mark.slow
def test_every_figure_is_there_in_every_format(written: WrittenReport) -> None:
    files = {path.name for path in written.files if path.parent.name == "figures"}
    keys = [figure.key for figure in figures_of(written.report)]
    assert keys
    assert files == {f"{key}.{format_}" for key in keys for format_ in ("svg", "png", "pdf")}
    magic = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}
    for path in written.files:
        assert path.read_bytes().startswith(magic.get(path.suffix, b"")), path


@pytest.mark.slow
def test_every_figure_of_the_page_is_a_file(written: WrittenReport) -> None:
    (page,) = (path for path in written.files if path.suffix == ".html")
    shown = re.findall(r'aria-labelledby="(\S+)-title \1-text"', page.read_text(encoding="utf-8"))
    assert shown
    assert set(shown) <= {figure.key for figure in figures_of(written.report)}


@pytest.mark.slow
def test_pictures_have_the_colours_of_okabe_and_ito_and_no_placeholder(written: WrittenReport) -> None:
    used: set[str] = set()
    pictures = {path.stem: path for path in written.files if path.suffix == ".png"}
    for figure in figures_of(written.report):
        pixels = pixels_of(pictures[figure.key].read_bytes())
        assert not pixels & _CLASSES.keys(), f"{figure.key} has placeholder colours"
        used |= pixels
        drawn = [
            number for number, colour in enumerate(SERIES) if f"-s{number}" in figure.svg and "labels" in figure.key
        ]
        for number in drawn:
            assert OKABE_ITO[number] in pixels, f"{figure.key} lacks the colour of its system {number}"
            assert f'"{OKABE_ITO[number]}"' in figure.as_file()
    assert used >= set(OKABE_ITO[:2])


@pytest.mark.slow
def test_equal_figures_have_equal_bytes(written: WrittenReport) -> None:
    figure = next(figures_of(written.report))
    for format_ in ("png", "pdf"):
        assert figure.as_picture(format_) == figure.as_picture(format_)


@pytest.mark.slow
def test_files_of_a_report_are_replaced_and_others_are_not(runs: Path, tmp_path: Path) -> None:
    request = ReportRequest(runs=(runs,), out=tmp_path, formats=("md",), figures=("pdf", "png", "svg"))
    files = [path for path in write_report(request).files if path.parent.name == "figures"]
    write_report(request)
    files[0].write_bytes(b"a photograph")
    with pytest.raises(UsageError, match="did not make this file"):
        write_report(request)
    assert files[0].read_bytes() == b"a photograph"


def test_the_colours_are_the_published_ones() -> None:
    published = [(0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0)]
    published.append((204, 121, 167))
    assert {f"#{r:02x}{g:02x}{b:02x}" for r, g, b in published} == set(OKABE_ITO)
    assert len(OKABE_ITO) == len(SERIES)


_SEEN = {
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
}
"""From linear RGB to that which looks the same to these eyes: Machado et al., IEEE TVCG 15, 2009, severity 1."""


def linear(colour: str) -> np.ndarray:
    values = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* under D65 of linear sRGB."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = (np.array(to_xyz) @ rgb.clip(0, 1)) / [0.9505, 1.0, 1.089]
    fx, fy, fz = (np.cbrt(each) if each > 0.008856 else 7.787 * each + 16 / 116 for each in (x, y, z))
    return np.array([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])


@pytest.mark.parametrize("eyes", ["deuteranopia", "protanopia"])
def test_no_two_colours_look_alike_to_colour_blind_readers(eyes: str) -> None:
    seen = {colour: lab(np.array(_SEEN[eyes]) @ linear(colour)) for colour in OKABE_ITO}
    for one, other in combinations(OKABE_ITO, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 10, f"{one} and {other}"
