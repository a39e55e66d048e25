"""The contents of a report: everything that its tables and figures show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from repbench.benchmark.records.formatting import number
from repbench.benchmark.report import published as tables
from repbench.benchmark.report.data.checking import read_and_check
from repbench.benchmark.report.data.citations import Citation, citations
from repbench.benchmark.report.data.columns import Column
from repbench.benchmark.report.data.compare import GroupAggregates, Verdicts, compare, overall
from repbench.benchmark.report.data.confusion import Confusion, confusions
from repbench.benchmark.report.data.controls import Controls, controls
from repbench.benchmark.report.data.cost import Front, RowCost, fronts, row_cost
from repbench.benchmark.report.data.det import DetCurves, det_curves
from repbench.benchmark.report.data.efficiency import Efficiency, efficiencies
from repbench.benchmark.report.data.evidence import Evidence
from repbench.benchmark.report.data.fold_scores import FoldScores, fold_scores
from repbench.benchmark.report.data.gather import Cell, Gathered, ReportRow, gather
from repbench.benchmark.report.data.groups import CellGroups, ColumnGroups, GroupRequest, column_groups
from repbench.benchmark.report.data.heads import HeadComparison, head_comparisons
from repbench.benchmark.report.data.invariance import FoundInvariance, found_invariances
from repbench.benchmark.report.data.layers import LayerProfiles, layer_profiles
from repbench.benchmark.report.data.reading import load
from repbench.benchmark.report.data.robustness import Robustness, robustness
from repbench.benchmark.report.data.seed_shares import SeedShares, seed_shares
from repbench.benchmark.report.data.sensitivity import Sensitivity, sensitivities
from repbench.benchmark.report.data.similarity import FoundSimilarity, found_similarities
from repbench.benchmark.report.data.transcripts import WorstUtterances, worst_utterances
from repbench.benchmark.report.published import Published
from repbench.benchmark.report.render.escaping import shown
from repbench.benchmark.similarity.document import SIMILARITY_FILE
from repbench.benchmark.similarity.invariance_document import INVARIANCE_FILE
from repbench.errors import IntegrityError
from repbench.progress import Advance
from repbench.registry import NEVER_DRAWN

PublishedName = Literal["mockingjay2020", "superb"]

PUBLISHED = {
    "mockingjay2020": (tables.mockingjay_table2, tables.mockingjay_figure3),
    "superb": (tables.superb,),
}
"""The values of `--with-published`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """The heading of a report.

    Attributes:
        title: Title of the report.
        text: Paragraphs of plain text, one a line; empty for none.
        refused: From a file that was refused before the report, as shown, to the reason.
        root: Folder that files are shown relative to; None: files are shown as given.
    """

    title: str = "repbench report"
    text: str = ""
    refused: Mapping[Path, str] = field(default_factory=dict)
    root: Path | None = None

    @property
    def paragraphs(self) -> list[str]:
        """The paragraphs of the text."""
        return [line for line in self.text.splitlines() if line.strip()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The contents of a report.

    Attributes:
        gathered: The table.
        verdicts: The comparisons of its cells.
        overall: From mode and label fraction to the aggregates over all tasks; empty with one task.
        folds: The score of each fold, by column.
        controls: Shuffled labels and untrained networks, by column.
        costs: From the key of a row to its costs.
        efficiencies: Label-efficiency curves, by column.
        profiles: Layer profiles, by column.
        confusions: Confusion matrices of frame tasks, by column.
        det: Curves of detection error trade-off of tasks of trials, by column.
        worst: The worst utterances of tasks that predict words, by column.
        fronts: Metric over cost, by column.
        sensitivities: Learning rates, by column.
        heads: Models under several heads.
        robustness: Scores under conditions of the test sound, by column.
        published: Published tables.
        notes: Sentences for the reader.
        heading: Title and text above the report.
        similarities: Comparisons of layers, by `repbench compare`.
        groups: Scores by group of utterances, by grouping and column.
        notes_on_groups: Sentences on numbers without groups; they are among the notes.
        seed_shares: How much of the intervals comes of seeds, by column.
        invariances: Distances of disturbed states from clean ones, by `repbench invariance`.
    """

    gathered: Gathered
    verdicts: Verdicts
    overall: Mapping[tuple[str, float], GroupAggregates]
    folds: Sequence[FoldScores]
    controls: Sequence[Controls]
    costs: Mapping[str, RowCost]
    efficiencies: Sequence[Efficiency]
    profiles: Sequence[LayerProfiles]
    confusions: Sequence[Confusion]
    det: Sequence[DetCurves]
    worst: Sequence[WorstUtterances]
    fronts: Sequence[Front]
    sensitivities: Sequence[Sensitivity]
    heads: Sequence[HeadComparison]
    robustness: Sequence[Robustness]
    published: Sequence[Published]
    notes: Sequence[str]
    heading: Heading
    similarities: Sequence[FoundSimilarity] = ()
    groups: Sequence[ColumnGroups] = ()
    notes_on_groups: Sequence[str] = ()
    seed_shares: Sequence[SeedShares] = ()
    invariances: Sequence[FoundInvariance] = ()

    @property
    def citations(self) -> list[Citation]:
        """What to cite for its numbers."""
        return citations(self.gathered)

    @property
    def num_records(self) -> int:
        """Number of records in the table."""
        return sum(len(cell.runs) for cell in self.gathered.cells.values())

    @property
    def seeds(self) -> int:
        """The most frequent number of seeds; of equally frequent ones the largest."""
        return self.gathered.usual_seeds

    def flags(self, cell: Cell) -> list[str]:
        """The remarks on a number, with its number of seeds where that is not the usual one."""
        several = len(cell.runs)
        return [*cell.flags, *([f"{several} seed{'s' * (several > 1)}"] if several != self.seeds else [])]

    def groups_of(self, cell: Cell) -> list[tuple[ColumnGroups, CellGroups]]:
        """The groups of a number, one for each grouping in which it has any."""
        return [(each, one) for each in self.groups for one in each.cells if one.cell.key == cell.key]

    def worst_groups(self, cell: Cell) -> list[str]:
        """The worst group of each grouping with its value, in words: "worst gender m 0.31"."""
        found = []
        for each, one in self.groups_of(cell):
            if (worst := one.worst) is not None:
                name = worst.name if each.grouping.edges else f"{each.grouping.attribute} {worst.name}"
                found.append(f"worst {shown(name)} {number(worst.value)}")
        return found

    def mark(self, cell: Cell) -> Literal["best", "tied", "untested", ""]:
        """The mark of a cell in its column and group."""
        if cell.key in self.verdicts.best:
            return "best"
        if cell.key in self.verdicts.untested:
            return "untested"
        return "tied" if cell.key in self.verdicts.tied else ""

    def verdict_lines(self) -> list[BestOfColumn]:
        """The best number of each column at its largest label fraction, over all modes."""
        return [self._verdict(column) for column in self.gathered.columns]

    def _verdict(self, column: Column) -> BestOfColumn:
        in_column = self.gathered.column_cells(column)
        compared = [cell for cell in in_column if cell.compared]
        marked = [cell for cell in compared if self.mark(cell) == "best"] or compared or in_column
        # The largest fraction first: a score with all labels is the headline, even if another is higher.
        best = max(marked, key=lambda cell: (cell.row.fraction, cell.signed_value))
        rivals = [cell for cell in compared if cell.row.group == best.row.group and cell is not best]
        unchecked = sum(cell.unchecked is not None for cell in in_column if cell.row.group == best.row.group)
        marks = [self.mark(cell) for cell in rivals]
        comparison = _comparison(len(rivals), marks.count("tied"), marks.count("untested"))
        if rivals:
            comparison += f" ({self._tests(rivals)})"
        weak = best.against_baselines
        comparison = "; ".join([*weak, comparison])
        if unchecked and not compared:
            comparison += "; no number could be verified"
        elif unchecked:
            comparison += f"; {unchecked} unchecked number{'s' * (unchecked > 1)} left out"
        resolution = self.verdicts.resolution.get(best.comparison_key)
        return BestOfColumn(best, len(rivals), comparison, resolution, is_weak=bool(weak))

    def _tests(self, rivals: Iterable[Cell]) -> str:
        tests = dict.fromkeys(self.verdicts.tests[each.key] for each in rivals if each.key in self.verdicts.tests)
        return "; ".join(tests) or "no test: only one speaker or group, or no difference"


@dataclass(frozen=True, slots=True)
class BestOfColumn:
    """The best number of a column, in words.

    Attributes:
        cell: The best number.
        others: Number of rows that it was compared with.
        comparison: Whether it is better than chance, than the most frequent class, and significantly better than they
            are, in words.
        resolution: The smallest detectable difference.
        is_weak: Whether it is no better than chance or than the most frequent class.
    """

    cell: Cell
    others: int
    comparison: str
    resolution: float | None
    is_weak: bool = False

    @property
    def who(self) -> str:
        """System and layer, and the mode if it is fine-tuning."""
        return f"{self.cell.row.title}{', fine-tuned' if self.cell.row.mode == 'finetune' else ''}"

    @property
    def sentence(self) -> str:
        """All of it in one sentence."""
        cell = self.cell
        labels = "" if cell.row.fraction == 1.0 else f" with {cell.row.labels} of the labels"
        detectable = "" if self.resolution is None else f"; {self.detectable}"
        return f"{cell.column.title}{labels}: {self.who} has {number(cell.value)}, {self.comparison}{detectable}"

    @property
    def detectable(self) -> str:
        """The smallest difference between two typical rows that the test set can show."""
        return f"smallest detectable difference about {number(self.resolution)}"


def _comparison(others: int, tied: int, untested: int) -> str:
    """Of how many other rows the best one is significantly better, and against how many it was not tested."""
    if not others:
        return "no other row to compare with"
    if untested == others:
        return f"not tested against the {others} other rows" if others > 1 else "not tested against the other row"
    if untested:
        return f"{_comparison(others - untested, tied, 0)}, and not tested against {untested} more"
    if not tied:
        return "significantly better than every other row" if others > 1 else "significantly better than the other row"
    if tied == others:
        return (
            f"not significantly better than any of the {others} other rows"
            if others > 1
            else "not significantly better than the other row"
        )
    return f"not significantly better than {tied} of the {others} other rows"


def assemble(
    places: Iterable[Path],
    published: Sequence[PublishedName] = (),
    heading: Heading | None = None,
    *,
    processes: int = 1,
    progress: Advance = lambda done, total: None,
    groups: GroupRequest | None = None,
) -> Report:
    """Read and verify the records and compute the contents of a report.

    Args:
        places: Records, similarity files, and folders that hold some at any depth.
        published: Published tables to include.
        heading: Title and text above the report.
        processes: Number of processes that verify many records; see `checking`.
        progress: Called with the records that are verified and all records.
        groups: By which attributes it has groups; None: by none.

    Raises:
        DataError: A place does not exist, or there is no record.
        IntegrityError: No record passes verification.
    """
    heading = heading or Heading()
    several = list(places)
    similarities, not_similarities = found_similarities(several, heading.root)
    invariances, not_invariances = found_invariances(several, heading.root)
    # A file of these that is named itself is no record; alone it makes no report, and `load` says so.
    of_records = [place for place in several if place.name not in {SIMILARITY_FILE, INVARIANCE_FILE}]
    read = partial(read_and_check, processes=processes, progress=progress)
    loaded = load(of_records or several, heading.root, read)
    evidence = Evidence()
    gathered = gather(loaded, evidence)
    unreadable = {**heading.refused, **gathered.unreadable, **not_similarities, **not_invariances}
    gathered = replace(gathered, unreadable=unreadable)
    if not gathered.cells:
        _refuse(gathered)
    verdicts = compare(gathered, evidence)
    matrices, without = confusions(gathered, verdicts)
    heads = head_comparisons(gathered, evidence)
    grouped, ungrouped = column_groups(gathered, evidence, groups or GroupRequest())
    return Report(
        gathered=gathered,
        verdicts=verdicts,
        overall={group: each for group in gathered.groups if (each := overall(gathered, group)) is not None},
        folds=fold_scores(gathered),
        controls=controls(gathered, evidence),
        costs={row.key: row_cost(gathered, row) for row in gathered.rows},
        efficiencies=efficiencies(gathered),
        profiles=layer_profiles(gathered),
        confusions=matrices,
        det=det_curves(gathered, evidence),
        worst=worst_utterances(gathered, verdicts),
        fronts=fronts(gathered),
        sensitivities=sensitivities(gathered),
        heads=heads,
        robustness=robustness(gathered, evidence),
        published=[make() for name in published for make in PUBLISHED[name]],
        notes=[
            *gathered.notes,
            *without,
            *ungrouped,
            *_same_orders(heads),
            *_missing(gathered),
            *_few_seeds(gathered),
            *_unchecked(gathered),
        ],
        heading=heading,
        similarities=similarities,
        groups=grouped,
        notes_on_groups=ungrouped,
        seed_shares=seed_shares(gathered, evidence),
        invariances=invariances,
    )


def _refuse(gathered: Gathered) -> None:
    path, reason = next(iter([*((run.path, str(run.fault)) for run in gathered.failed), *gathered.unreadable.items()]))
    raise IntegrityError(f"No record passes verification; of this one: {reason}", file=path, do="Run it again")


def _missing(gathered: Gathered) -> list[str]:
    """Notes on missing rows of mel and of untrained networks."""
    notes: list[str] = []
    for column in gathered.columns:
        cells = gathered.column_cells(column)
        if not any(cell.row.system.is_baseline for cell in cells):
            notes.append(f"{column.title}: no row of mel to compare with")
        networks = {
            cell.row.system.upstream: cell.row.system.title
            for cell in cells
            if cell.runs[0].record.cost.parameters > 0 and not cell.row.system.upstream.startswith(NEVER_DRAWN)
        }
        controlled = {cell.row.system.upstream for cell in cells if cell.row.system.untrained}
        if networks.keys() - controlled:
            names = ", ".join(sorted(shown(networks[name]) for name in networks.keys() - controlled))
            notes.append(f"{column.title}: no untrained row (--checkpoint random) of {names}")
    return notes


def _same_orders(heads: Sequence[HeadComparison]) -> list[str]:
    """Notes on models whose order is the same with each head; the others have a table."""
    return [f"{each.title}: {each.sentence}" for each in heads if not each.reversals]


def _few_seeds(gathered: Gathered) -> Iterator[str]:
    """Notes on single or unequal numbers of seeds."""
    cells = [cell for column in gathered.columns for cell in gathered.column_cells(column)]
    if cells and all(len(cell.runs) == 1 for cell in cells):
        yield (
            "every number is from one seed: nothing is known about other seeds, and intervals and comparisons do not "
            "include the variance between seeds"
        )
        return
    for column in gathered.columns:
        counts = Counter(len(cell.runs) for cell in gathered.column_cells(column))
        if len(counts) < 2:
            continue
        numbers = "; ".join(f"{count} with {seeds} seed{'s' * (seeds > 1)}" for seeds, count in sorted(counts.items()))
        alone = (
            ": without the variance between seeds, a number from one seed looks significantly different too easily"
            if 1 in counts
            else ""
        )
        yield f"{column.title}: unequal numbers of seeds ({numbers}){alone}"


def _unchecked(gathered: Gathered) -> list[str]:
    reasons: dict[str, list[ReportRow]] = {}
    for cell in gathered.cells.values():
        for run in cell.runs:
            if run.unchecked is not None:
                reasons.setdefault(run.unchecked, []).append(cell.row)
    return [
        f"{len(rows)} record{'s' * (len(rows) > 1)} could not be recomputed ({rows[0].title} among them): {reason}"
        for reason, rows in reasons.items()
    ]
