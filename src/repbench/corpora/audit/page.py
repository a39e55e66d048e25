"""The audit of a corpus as a page of figures: one file, no script, nothing fetched, read from disk.

Names of speakers and labels are escaped by jinja2 in the page and by matplotlib in the figures; `printable` removes
control characters from both.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from repbench.corpora.audit.check import CheckReport
from repbench.corpora.contract import Corpus
from repbench.errors import UsageError, printable
from repbench.files import parse_json, write_json, write_text
from repbench.matplotlib_style import matplotlib_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FILES = ("check.json", "index.html")
_TEMPLATES = Path(__file__).parent / "templates"
_WIDTH_INCHES = 4.6
_MOST_BARS = 60
_MOST_LINES = 200
_LONGEST_NAME = 40
_INK, _BAR, _LINE = "#010203", "#040506", "#070809"
"""Placeholders of the page's colours, which follow the reader's light or dark scheme."""

_SCHEME = {_INK: "var(--ink)", _BAR: "var(--bar)", _LINE: "var(--line)"}


class AuditFigure(NamedTuple):
    """A figure of the page; `svg` is markup."""

    title: str
    svg: Any


def refuse_other_page(corpus: Corpus, out: Path) -> None:
    """Refuse a folder whose `check.json` or `index.html` is not an audit of this corpus.

    Raises:
        UsageError: They are of another corpus, or of something else.
    """
    names = [name for name in _FILES if (out / name).exists()]
    if not names:
        return
    try:
        audited = parse_json((out / "check.json").read_bytes())["name"]
    except (OSError, ValueError, TypeError, KeyError):
        audited = None
    if audited == corpus.name:
        return
    what = f"The folder holds the audit of another corpus, {audited}"
    if audited is None:
        what = f"The folder has a `{names[-1]}` that is no audit of a corpus"
    raise UsageError(what, file=out, key="--out", do="Choose another folder")


def write_page(corpus: Corpus, report: CheckReport, out: Path) -> Path:
    """Write `check.json` and `index.html` into a folder.

    Args:
        corpus: The audited corpus.
        report: The result of the audit.
        out: The folder; made if it does not exist.

    Returns:
        The page.

    Raises:
        EnvironmentFault: The folder may not be written to.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, finalize=_shown
    )
    splits = ["all", *report.splits] if set(report.splits) != {"none"} else ["all"]
    text = environment.get_template("check.html").render(
        report=report,
        facts=_facts(report),
        findings=(("Problems", report.problems, "bad"), ("Warnings", report.warnings, "warn")),
        figures=[*_figures(corpus, report)],
        coverage=list(report.coverage.items()),
        splits=splits,
        totals={"all": report.num_utterances, **report.splits},
        most_lines=_MOST_LINES,
    )
    write_json(out / "check.json", report.as_dict())
    write_text(out / "index.html", text)
    return out / "index.html"


def _shown(value: Any) -> Any:
    """A value without control characters; markup made here is left as it is."""
    return printable(value) if type(value) is str else value


def _facts(report: CheckReport) -> list[tuple[str, str]]:
    facts = [
        ("utterances", f"{report.num_utterances:,}"),
        ("speech", _duration(report.seconds)),
        ("speakers", f"{report.num_speakers:,}"),
        ("shortest", f"{report.shortest_seconds:.2f} s"),
        ("median", f"{report.median_seconds:.2f} s"),
        ("longest", f"{report.longest_seconds:.2f} s"),
    ]
    if report.aligned_share is not None:
        facts.append(("aligned, of the aligned utterances", f"{report.aligned_share:.1%}"))
    sound = report.sound
    if sound is not None:
        facts += [
            ("samples at full scale", f"{sound.clipped_share:.3%}"),
            ("longest run at full scale", f"{sound.longest_clip_samples:,} samples"),
            ("exact zeros", f"{sound.zero_share:.2%}"),
            ("largest DC offset", f"{sound.largest_offset:.4f}"),
        ]
        if sound.quietest_db is not None and sound.loudest_db is not None:
            facts.append(("levels", f"{sound.quietest_db:.0f} to {sound.loudest_db:.0f} dB"))
    return facts


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def _figures(corpus: Corpus, report: CheckReport) -> Iterator[AuditFigure]:
    durations = [utterance.seconds for utterance in corpus.utterances]
    if durations:
        yield _histogram("Durations", durations, "seconds", "utterances")
    spoken: dict[str, float] = {}
    for utterance in corpus.utterances:
        if utterance.speaker is not None:
            spoken[utterance.speaker] = spoken.get(utterance.speaker, 0.0) + utterance.seconds
    counted = report.label_counts.get("speakers", {})
    if len(spoken) > _MOST_BARS:
        yield _histogram("Seconds by speaker", list(spoken.values()), "seconds", "speakers")
        yield _histogram("Utterances by speaker", list(counted.values()), "utterances", "speakers")
    elif spoken:
        yield _bars("Seconds by speaker", spoken, "seconds")
        yield _bars("Utterances by speaker", counted, "utterances")
    for kind, counts in report.label_counts.items():
        if kind == "phones":
            yield _bars("Phones", counts, "intervals")
        elif kind != "speakers" and len(counts) > 1:
            yield _bars(kind.removeprefix("attributes."), counts, "utterances")
    if set(report.splits) != {"none"}:
        yield _bars("Official splits", report.splits, "utterances", by_count=False)
    yield _bars("Sample rates", {f"{rate:,} Hz": n for rate, n in report.rates.items()}, "utterances", by_count=False)


def _histogram(title: str, values: Sequence[float], of: str, what: str) -> AuditFigure:
    from matplotlib.ticker import MaxNLocator

    def draw(axes: Axes) -> None:
        axes.hist(values, bins=min(40, max(5, round(len(values) ** 0.5 * 2))), color=_BAR, linewidth=0)
        axes.set_xlabel(of)
        axes.set_ylabel(what)
        axes.set_xlim(left=0)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(axis="y")

    return _figure(title, 2.6, draw)


def _bars(title: str, counts: Mapping[str, float], what: str, *, by_count: bool = True) -> AuditFigure:
    """Horizontal bars, the longest first; the rest is summed up in one."""
    pairs = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])) if by_count else list(counts.items())
    shown, rest = pairs[:_MOST_BARS], pairs[_MOST_BARS:]
    if rest:
        shown.append((f"{len(rest)} others", sum(count for _, count in rest)))
    from matplotlib.ticker import MaxNLocator

    def draw(axes: Axes) -> None:
        places = range(len(shown))
        axes.barh(places, [count for _, count in shown], color=_BAR, linewidth=0, height=0.75)
        axes.set_yticks(places, [_short(name) for name, _ in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlabel(what)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)

    return _figure(title, 0.75 + 0.2 * len(shown), draw)


def _short(name: str) -> str:
    text = printable(name)
    return text if len(text) <= _LONGEST_NAME else text[: _LONGEST_NAME - 1] + "…"


def _figure(title: str, height_inches: float, draw: Any) -> AuditFigure:
    """A figure as inline SVG: real text, the page's colours, no date and no address."""
    from markupsafe import Markup, escape
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    with matplotlib_style({"font.size": 9.5}, ink=_INK, line=_LINE):
        figure = Canvas(figsize=(_WIDTH_INCHES, height_inches), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.set_axisbelow(True)
        draw(axes)
        stream = io.StringIO()
        # None leaves an entry out: the same corpus gives the same bytes
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(stream, format="svg", transparent=True, metadata=metadata)
    drawn = stream.getvalue()
    # without the XML declaration, which HTML does not allow inside a page
    drawn = drawn[drawn.index("<svg") :]
    for stand_in, colour in _SCHEME.items():
        drawn = drawn.replace(stand_in, colour)
    drawn = re.sub(r' id="[A-Za-z]+[0-9A-Za-z]*_[0-9]+"', "", drawn)  # the same in every figure of the page
    # without its size in points, so that the page's stylesheet sizes it
    drawn = re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"|<svg ', r"<svg \1", drawn, count=1)
    label = escape(f"{printable(title)}: figure")
    return AuditFigure(title, Markup(drawn.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)))
