"""Published numbers of other papers, unchanged, each table with its source and date.

They were measured with other data, heads and budgets, so a report shows them in a separate section and never ranks
them with its rows.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

TEXT_COLUMNS = frozenset({"params", "corpus"})
"""Columns that describe a model; all others but `model` are numbers."""


@dataclass(frozen=True, slots=True)
class Published:
    """A published table.

    Attributes:
        title: Title of the table.
        source: Paper and table.
        date: Year and month of that source.
        notes: Caveats of a comparison.
        values: Model -> column -> number; a cell that was not published is absent.
        about: Model -> column -> text.
    """

    title: str
    source: str
    date: str
    notes: tuple[str, ...]
    values: Mapping[str, Mapping[str, float]]
    about: Mapping[str, Mapping[str, str]]


def superb() -> Published:
    """Eleven metrics of eighteen models on SUPERB, and their mean "overall"."""
    values, about = _read("superb_wavlm_preprint_table3.csv")
    return Published(
        title="SUPERB, frozen upstreams with a weighted sum of layers",
        source="Chen et al., WavLM, arXiv 2110.13900, table 3 of the preprint",
        date="2021-10",
        notes=(
            "rows of WavLM are those of the preprint; later versions and the public leaderboard differ",
            "the unit of FBANK's speaker accuracy (8.5E-4) is not clear: a proportion or percent",
            "word error rate without a language model; speaker verification and diarisation chosen without a dev set",
            "no seeds and no intervals were published",
        ),
        values=values,
        about=about,
    )


def mockingjay_table2() -> Published:
    """Speaker and sentiment accuracy of Mockingjay, APC and mel, in percent."""
    values, about = _read("mockingjay_table2.csv")
    return Published(
        title="Mockingjay, speaker and sentiment accuracy in percent",
        source="Liu et al., Mockingjay, arXiv 1910.12638 (ICASSP 2020), table 2",
        date="2019-10",
        notes=(
            "the released code chooses its best checkpoint on the test split",
            "about 809 test utterances in the speaker task: differences of a point or two are noise",
        ),
        values=values,
        about=about,
    )


def mockingjay_figure3() -> Published:
    """Phone accuracy of Mockingjay, APC and mel in percent, by hours of labelled sound."""
    values, about = _read("mockingjay_fig3.csv")
    return Published(
        title="Mockingjay, phone accuracy in percent by hours of labelled train-clean-360",
        source="Liu et al., Mockingjay, arXiv 1910.12638 (ICASSP 2020), figure 3",
        date="2019-10",
        notes=(
            "read from the figure; every difference that the text names agrees",
            "what the paper calls a linear head is one of two hidden layers in its code",
            "the released code chooses its best checkpoint on the test split",
        ),
        values=values,
        about=about,
    )


def _read(name: str) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, str]]]:
    text = resources.files(__name__).joinpath(name).read_text(encoding="utf-8")
    values: dict[str, dict[str, float]] = {}
    about: dict[str, dict[str, str]] = {}
    for row in csv.DictReader(text.splitlines()):
        model = row.pop("model")
        about[model] = {column: cell for column, cell in row.items() if column in TEXT_COLUMNS}
        values[model] = {column: float(cell) for column, cell in row.items() if cell and column not in TEXT_COLUMNS}
    return values, about
