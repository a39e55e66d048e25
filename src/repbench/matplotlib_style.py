"""One way to draw with matplotlib: without pyplot, under settings that end with the drawing.

The page of a report, the page of an audit and the pictures of `repbench plot` add their own sizes and colours.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

_SHARED: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "repbench",
    "text.parse_math": False,  # a foreign name may hold dollar signs
    "font.family": "sans-serif",
}
_OPEN_AXES: dict[Any, Any] = {"axes.spines.top": False, "axes.spines.right": False, "grid.linewidth": 0.6}


@contextmanager
def matplotlib_style(settings: Mapping[Any, Any], *, ink: str, line: str, open_axes: bool = True) -> Iterator[None]:
    """Inside, matplotlib draws in the style of repbench, whatever the user's settings; after, all is as before.

    Args:
        settings: Parameters of matplotlib beyond the shared ones, or in place of them.
        ink: Colour of text and ticks.
        line: Colour of axes and grid.
        open_axes: Whether the spines at the top and on the right are left out.
    """
    import matplotlib

    inks = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color")
    lines = ("axes.edgecolor", "grid.color")
    colours = {**dict.fromkeys(inks, ink), **dict.fromkeys(lines, line)}
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph ")  # a foreign name may have letters that the font lacks
        # A user's matplotlibrc would otherwise change the bytes of a figure.
        matplotlib.rcdefaults()
        for name, value in {**_SHARED, **(_OPEN_AXES if open_axes else {}), **colours, **settings}.items():
            matplotlib.rcParams[name] = value
        yield
