"""The table that a run prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from repbench.benchmark.records.formatting import UNDEFINED, interval, number
from repbench.benchmark.records.record import Metric, Record
from repbench.benchmark.scoring.statistics import Interval
from repbench.errors import printable
from repbench.upstream.checkpoints.untrained import is_untrained

_CAPTION = "95 %: interval over speakers (or groups), – where fewer than two were scored; ↓ lower is better"


def results_table(records: Sequence[Record]) -> Table:
    """The metrics of each record, the primary one first, with the scores of chance and majority."""
    varying = _what_varies(records)
    upstreams = _upstream_names(records)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=_CAPTION, caption_justify="left")
    for heading in ("upstream", "downstream", "corpus", *varying, "metric"):
        table.add_column(heading, overflow="fold")
    in_folds = any(record.folds for record in records)
    for heading in ("score", "95 %", *(["mean over folds"] if in_folds else []), "chance", "majority", "scored"):
        table.add_column(heading, justify="right", no_wrap=True)
    for record in records:
        for row in _rows(record, upstreams[record.id], varying, in_folds=in_folds):
            table.add_row(*row)
        table.add_section()
    return table


def _upstream_names(records: Sequence[Record]) -> dict[str, str]:
    """The title of each record's upstream, by the record's id; with the fingerprint where two titles agree."""
    wholes: dict[str, set[str]] = {}
    for upstream in (record.upstream for record in records):
        # Of a declared name the folders differ by corpus, and are one system.
        wholes.setdefault(upstream.title, set()).add(upstream.declared_digest or upstream.name)
    return {
        record.id: title if len(wholes[title]) == 1 else f"{title} ({record.upstream.fingerprint[:8]})"
        for record in records
        for title in [record.upstream.title]
    }


def _what_varies(records: Sequence[Record]) -> list[str]:
    """The head, and every other setting that the records differ in."""
    several = [name for name in _settings(records[0]) if len({_settings(record)[name] for record in records}) > 1]
    return sorted({"head", *several}, key=list(_settings(records[0])).index)


def _settings(record: Record) -> dict[str, str]:
    return {
        "mode": record.mode,
        "head": record.head,
        "layer": record.layer,
        "labels": f"{100 * record.label_fraction:g} %",
        "seed": str(record.seed),
        "condition": record.condition_shown,
        "rate": _rate(record),
        "control": _control(record),
    }


def _rate(record: Record) -> str:
    return "tuned" if record.protocol.get("probe", {}).get("tune") else "default"


def _control(record: Record) -> str:
    controls = {
        "untrained": is_untrained(record.upstream.checkpoint),
        "shuffled labels": record.protocol.get("labels") == "shuffled",
    }
    return ", ".join(name for name, holds in controls.items() if holds) or UNDEFINED


def _rows(record: Record, upstream: str, varying: Sequence[str], *, in_folds: bool) -> list[list[Text | str]]:
    settings = _settings(record)
    names = [upstream, record.downstream.name, record.corpus.name, *(settings[name] for name in varying)]
    scored = str(record.n_scored) if not record.excluded else f"{record.n_scored} of {record.n_listed}"
    baselines = [number(record.baselines.chance), number(record.baselines.majority), scored]
    over_folds = record.mean_over_folds or {}
    means = {name: [number(over_folds.get(name))] if in_folds else [] for name in record.metrics}
    others = [name for name in record.metrics if name != record.primary_metric]
    rows: list[list[Text | str]] = [
        [
            *(Text(printable(name)) for name in names),
            Text(_title(record.primary_metric, record.primary)),
            Text(number(record.primary.value), style="bold"),
            _interval(record.primary),
            *means[record.primary_metric],
            *baselines,
        ]
    ]
    for name in others:
        metric = record.metrics[name]
        numbers = [_title(name, metric), number(metric.value), _interval(metric), *means[name]]
        rows.append([*[""] * len(names), *numbers, "", "", ""])
    return rows


def _title(name: str, metric: Metric) -> str:
    return name if metric.higher_is_better else f"{name} ↓"


def _interval(metric: Metric) -> str:
    return UNDEFINED if metric.ci95 is None else interval(Interval(*metric.ci95))
