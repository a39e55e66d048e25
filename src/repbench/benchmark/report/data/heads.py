"""Whether the order of models depends on the head.

Columns that differ in the head alone, and in the settings that only some heads read, show the same models. Two models
are reversed where one is better with one head and worse with another; the reversal is separated where the 95 % interval
of their paired difference leaves out 0 with a head of either side.

Reference:
    Zaiem et al., Speech self-supervised representation benchmarking: are we doing it right?, 2023.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from repbench.benchmark.protocol import HEAD_SETTINGS, NOT_OF_A_MODE
from repbench.benchmark.report.data.columns import Column
from repbench.benchmark.report.data.evidence import Evidence
from repbench.benchmark.report.data.gather import Cell, Gathered, ReportRow
from repbench.benchmark.report.render.escaping import shown
from repbench.benchmark.scoring.statistics import Interval

_OF_THE_HEAD = frozenset({"head", *HEAD_SETTINGS})
"""Facts in which the columns of one comparison may differ."""


@dataclass(frozen=True, slots=True)
class Margin:
    """How much better a model is than another with one head.

    Attributes:
        column: Of the head.
        value: Positive where the first model is better, whatever the direction of the metric.
        interval: 95 %, paired over the same utterances; None where it is undefined.
    """

    column: Column
    value: float
    interval: Interval | None

    @property
    def is_separated(self) -> bool:
        """Whether the interval is known and leaves out 0."""
        return self.interval is not None and not self.interval.low <= 0 <= self.interval.high


@dataclass(frozen=True, slots=True)
class Reversal:
    """Two models whose order depends on the head.

    Attributes:
        first: Better with the first head in which the two differ.
        second: The other.
        margins: Of each head with a number of both.
    """

    first: ReportRow
    second: ReportRow
    margins: tuple[Margin, ...]

    @property
    def names(self) -> tuple[str, str]:
        """The two models, with their layers where these differ."""
        if self.first.layer == self.second.layer:
            return self.first.system.name, self.second.system.name
        return self.first.title, self.second.title

    @property
    def is_separated(self) -> bool:
        """Whether each model is better than the other with some head, both by an interval that leaves out 0."""
        separated = [margin.value > 0 for margin in self.margins if margin.is_separated]
        return True in separated and False in separated


@dataclass(frozen=True, slots=True)
class HeadComparison:
    """The models of a task, corpus, mode and label fraction under two or more heads.

    Attributes:
        title: Task and corpus, and what else its columns have in common against others.
        group: Mode and label fraction.
        heads: From the key of a column to its head, with settings where two columns have one head.
        num_models: Models with numbers of two or more of the heads.
        num_pairs: Pairs of them with numbers of the same two or more heads.
        reversals: The separated ones first, then by the smaller of the two sides' largest margins.
    """

    title: str
    group: tuple[str, float]
    heads: Mapping[str, str]
    num_models: int
    num_pairs: int
    reversals: tuple[Reversal, ...]

    @property
    def sentence(self) -> str:
        """The finding in one sentence, with the first reversal."""
        names = ", ".join(self.heads.values())
        if not self.reversals:
            return f"the order of {self.num_models} models is the same with each head ({names})"
        pair, count = self.reversals[0], len(self.reversals)
        orders = []
        for is_first_better in (True, False):
            of_side = [each for each in pair.margins if each.value and (each.value > 0) == is_first_better]
            better, worse = pair.names if is_first_better else pair.names[::-1]
            heads = " and ".join(f"{self.heads[each.column.key]}{_unless_separated(each)}" for each in of_side)
            orders.append(f"with {heads} {better} > {worse}")
        reversed_ = f"{count} of {self.num_pairs} pairs of models {'is' if count == 1 else 'are'} reversed"
        separated = f"{sum(each.is_separated for each in self.reversals)} of them separated"
        return f"the order of models depends on the head: {', '.join(orders)}; {reversed_}, {separated}"


def _unless_separated(margin: Margin) -> str:
    if margin.is_separated:
        return ""
    return " (not separated)" if margin.interval is not None else " (not tested)"


def head_comparisons(gathered: Gathered, evidence: Evidence) -> list[HeadComparison]:
    """The comparisons of each group of rows in which two or more models have numbers of two or more heads."""
    found = []
    for group in gathered.groups:
        for columns in _families(gathered.columns, group[0]):
            comparison = _compared(gathered, evidence, group, columns)
            if comparison is not None:
                found.append(comparison)
    return found


def _families(columns: Sequence[Column], mode: str) -> Iterator[list[Column]]:
    """The columns that differ in the head alone, as far as a mode reads their settings; two or more heads each."""
    families: dict[tuple[object, ...], list[Column]] = defaultdict(list)
    for column in columns:
        unread = _OF_THE_HEAD | NOT_OF_A_MODE[mode]
        facts = frozenset(item for item in column.facts.items() if item[0] not in unread)
        families[column.task, column.corpus, facts].append(column)
    return (family for family in families.values() if len({column.facts["head"] for column in family}) > 1)


def _compared(
    gathered: Gathered, evidence: Evidence, group: tuple[str, float], columns: Sequence[Column]
) -> HeadComparison | None:
    numbers: dict[ReportRow, dict[str, Cell]] = {}
    for row in gathered.group_rows(group):
        of_row = {column.key: gathered.cell(row, column) for column in columns}
        known = {key: cell for key, cell in of_row.items() if cell is not None and cell.compared}
        if len(known) > 1:
            numbers[row] = known
    reversals, num_pairs = [], 0
    for one, other in itertools.combinations(numbers, 2):
        common = [column for column in columns if column.key in numbers[one] and column.key in numbers[other]]
        # Layers of one system are no models of their own.
        if len(common) < 2 or one.system == other.system:
            continue
        num_pairs += 1
        pairs = [(numbers[one][column.key], numbers[other][column.key]) for column in common]
        reversal = _reversal(evidence, one, other, pairs)
        if reversal is not None:
            reversals.append(reversal)
    if not num_pairs:
        return None
    return HeadComparison(
        title=_title(columns),
        group=group,
        heads={column.key: _head(column, columns) for column in columns},
        num_models=len({row.system for row in numbers}),
        num_pairs=num_pairs,
        reversals=tuple(sorted(reversals, key=lambda each: (not each.is_separated, -_strength(each)))),
    )


def _reversal(
    evidence: Evidence, one: ReportRow, other: ReportRow, cells: Sequence[tuple[Cell, Cell]]
) -> Reversal | None:
    # By the numbers first: intervals are computed only for pairs that these reverse.
    signs = {_sign(a.signed_value - b.signed_value) for a, b in cells}
    if not {1, -1} <= signs:
        return None
    margins = tuple(margin_of(evidence, a, b) for a, b in cells)
    known = [_sign(margin.value) for margin in margins if margin.value]
    if not {1, -1} <= set(known):
        return None
    if known[0] > 0:
        return Reversal(one, other, margins)
    return Reversal(other, one, tuple(map(_turned, margins)))


def margin_of(evidence: Evidence, a: Cell, b: Cell) -> Margin:
    """How much better a number is than another of its column, on the utterances of both."""
    signed = a.column.signed
    difference = evidence.difference(a.runs, b.runs, a.column.metric)
    known = None if difference is None else difference.interval
    # On the utterances of both models, which can be fewer than either number is of.
    value = None if difference is None else difference.value
    return Margin(
        a.column,
        a.signed_value - b.signed_value if value is None else signed(value),
        # Where lower is better, the sign swaps the two ends.
        None if known is None else Interval(*sorted((signed(known.low), signed(known.high)))),
    )


def _turned(margin: Margin) -> Margin:
    """The margin of the second model over the first."""
    interval = margin.interval
    return Margin(margin.column, -margin.value, None if interval is None else Interval(-interval.high, -interval.low))


def _strength(reversal: Reversal) -> float:
    values = [margin.value for margin in reversal.margins]
    return min(max(values), -min(values))


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _title(columns: Sequence[Column]) -> str:
    common = [each for each in columns[0].differs if all(each in column.differs for column in columns)]
    return " · ".join(shown(part) for part in (columns[0].task, columns[0].corpus, *common))


def _head(column: Column, columns: Sequence[Column]) -> str:
    """The head of a column, with its settings where another column has the same head."""
    head = column.facts["head"]
    if Counter(each.facts["head"] for each in columns)[head] == 1:
        return shown(head)
    settings = [f"{name} = {column.facts[name]}" for name in HEAD_SETTINGS if name in column.facts]
    return shown(f"{head} ({', '.join(settings)})")
