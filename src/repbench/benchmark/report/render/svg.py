"""Figures as SVG for a strict content security policy: real text, classes for colours, no style, script or address.

Matplotlib writes `style="…"` attributes, which the policy forbids, so every property becomes a separate attribute.
Drawing uses placeholder colours, which become classes, so that figures follow the light or dark scheme of the page; a
separate file gets the light colours.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from xml.etree import ElementTree as Xml

from repbench.errors import printable
from repbench.matplotlib_style import matplotlib_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import FigureCanvasBase
    from matplotlib.figure import Figure as Canvas

INK, LINE, MARK, CARD = "#010203", "#040506", "#070809", "#0a0b0c"
"""Placeholders for the colours of text, lines, best numbers and background."""

SERIES = tuple(f"#0{number}1{number}2{number}" for number in range(8))
"""Placeholders for the colours of systems, in order."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "d")
"""Markers of systems, so that lines differ without colours too."""

_CLASSES = {INK: "ink", LINE: "line", MARK: "mark", CARD: "card"} | {
    colour: f"s{number}" for number, colour in enumerate(SERIES)
}
OKABE_ITO = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#f0e442")
"""Colours of systems in files, which all readers can tell apart: Okabe and Ito, Color universal design, 2008.

Yellow, which is pale on white, is last; the page has darker colours, of a contrast of 5 and more in both its schemes.
"""

_IN_FILES = {"ink": "#1c2430", "line": "#d5dbe3", "mark": "#009e73", "card": "#ffffff"} | {
    f"s{number}": colour for number, colour in enumerate(OKABE_ITO)
}
MADE_BY = "repbench report"
"""Metadata of every file of a figure, by which it may be replaced."""

_DOTS_PER_INCH = 200
_FONT = "system-ui, sans-serif"
_STYLE: dict[Any, Any] = {
    "font.size": 10.5,
    "axes.formatter.use_mathtext": False,
    "xtick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure.

    Attributes:
        key: Its id in a page, and the name of its file.
        title: Title of the figure.
        text: Description for screen readers.
        svg: Markup for the page.
        size_inches: Width and height.
        paint: Draws on axes, in placeholder colours.
    """

    key: str
    title: str
    text: str
    svg: str
    size_inches: tuple[float, float]
    paint: Callable[[Axes], None] = field(repr=False, compare=False)

    def as_picture(self, format_: Literal["png", "pdf"]) -> bytes:
        """The figure as PNG (200 dots an inch) or PDF, on white."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        ink, line, card = (_IN_FILES[name] for name in ("ink", "line", "card"))
        style = {**_STYLE, "xtick.labelcolor": ink, "pdf.fonttype": 42}
        with matplotlib_style(style, ink=ink, line=line):
            canvas = _painted(self.size_inches, self.paint, FigureCanvasAgg)
            _recolour(canvas, {placeholder: _IN_FILES[name] for placeholder, name in _CLASSES.items()})
            # Without a date, so that equal figures have equal bytes.
            of_pdf = {"Creator": MADE_BY, "Title": printable(self.title), "CreationDate": None}
            metadata = of_pdf if format_ == "pdf" else {"Software": MADE_BY, "Title": printable(self.title)}
            stream = io.BytesIO()
            canvas.savefig(stream, format=format_, dpi=_DOTS_PER_INCH, facecolor=card, metadata=metadata)
        return stream.getvalue()

    def as_file(self) -> str:
        """The figure as a separate SVG file, in the colours of files."""
        root = Xml.fromstring(self.svg)
        root.set("xmlns", "http://www.w3.org/2000/svg")
        root.set("font-family", _FONT)
        for element in root.iter():
            for name in (element.attrib.pop("class", "")).split():
                property_, _, colour = name.partition("-")
                element.set({"f": "fill", "s": "stroke"}[property_], _IN_FILES[colour])
        return f'<?xml version="1.0" encoding="utf-8"?>\n<!-- {MADE_BY} -->\n{Xml.tostring(root, encoding="unicode")}\n'


def draw(key: str, title: str, text: str, size_inches: tuple[float, float], paint: Callable[[Axes], None]) -> Figure:
    """Draw one figure on new axes.

    Args:
        key: As in `Figure`.
        title: As there.
        text: As there.
        size_inches: Width and height; the text has the size of the page's where it is shown 72 pixels an inch wide.
        paint: Draws on the axes.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    with matplotlib_style({**_STYLE, "svg.hashsalt": key}, ink=INK, line=LINE):
        canvas = _painted(size_inches, paint, FigureCanvasSVG)
        stream = io.StringIO()
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        canvas.savefig(stream, format="svg", transparent=True, metadata=metadata)
    svg = _for_page(stream.getvalue(), key, printable(title), printable(text))
    return Figure(key, title, text, svg, size_inches, paint)


def _painted(
    size_inches: tuple[float, float], paint: Callable[[Axes], None], backend: type[FigureCanvasBase]
) -> Canvas:
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=size_inches, layout="constrained")
    backend(canvas)
    axes = canvas.add_subplot()
    axes.set_axisbelow(True)
    paint(axes)
    return canvas


def _recolour(canvas: Canvas, colours: Mapping[str, str]) -> None:
    """Replace placeholder colours of everything that is drawn."""
    import numpy as np
    from matplotlib.colors import to_hex

    artists = canvas.findobj()
    boxes = (artist.get_bbox_patch() for artist in artists if hasattr(artist, "get_bbox_patch"))
    for artist in (*artists, *(box for box in boxes if box is not None)):
        for name in ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor"):
            if not hasattr(artist, f"get_{name}") or not hasattr(artist, f"set_{name}"):
                continue
            value = getattr(artist, f"get_{name}")()
            if isinstance(value, np.ndarray) and value.ndim == 2:  # of a collection: (N, 4), a colour for each element
                value = value[0] if len(value) else "none"
            placed = None if isinstance(value, str) and value == "none" else colours.get(to_hex(value))
            if placed is not None:
                getattr(artist, f"set_{name}")(placed)


def _for_page(drawn: str, key: str, title: str, text: str) -> str:
    # Without the declaration and the doctype, which HTML does not have.
    root = Xml.fromstring(drawn[drawn.index("<svg") :])
    for parent in root.iter():
        for child in list(parent):
            if child.tag.rpartition("}")[2] in {"metadata", "style"}:
                parent.remove(child)
    for element in root.iter():
        # ElementTree would write namespaces as prefixes (`ns0:svg`), which HTML does not resolve.
        element.tag = element.tag.rpartition("}")[2]
        for name in list(element.attrib):
            if "}" in name:
                element.set(name.rpartition("}")[2], element.attrib.pop(name))
        _without_style(element, key)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {"role": "img", "aria-labelledby": f"{key}-title {key}-text", "stroke-linejoin": "round"}
    for place, (tag, content) in enumerate((("title", title), ("desc", text))):
        described = Xml.Element(tag, {"id": f"{key}-{'title' if tag == 'title' else 'text'}"})
        described.text = content
        root.insert(place, described)
    return Xml.tostring(root, encoding="unicode")


def _without_style(element: Xml.Element, key: str) -> None:
    """Turn properties into attributes, placeholder colours into classes, and make ids unique to the figure."""
    classes: list[str] = []
    for declaration in element.attrib.pop("style", "").split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if not name or name == "font-family":
            continue
        if name in {"fill", "stroke"} and value in _CLASSES:
            classes.append(f"{name[0]}-{_CLASSES[value]}")
        else:
            element.set(name, value)
    if classes:
        element.set("class", " ".join(classes))
    if "id" in element.attrib:
        # Only these are referred to; ids are unique in a page, so each gets the figure's key.
        if element.tag in {"clipPath", "path"}:
            element.set("id", f"{key}-{element.attrib['id']}")
        else:
            del element.attrib["id"]
    if element.attrib.get("href", "").startswith("#"):
        element.set("href", f"#{key}-{element.attrib['href'][1:]}")
    if "clip-path" in element.attrib:
        element.set("clip-path", element.attrib["clip-path"].replace("url(#", f"url(#{key}-"))
