"""Scores by group of utterances (gender, accent, a band of ages …), and the gap between the best and the worst group.

The value of an attribute belongs to an utterance of a corpus. It is read from the corpus, where that is given, else
from the predictions of any record of that corpus: one run that keeps attributes gives them to the others of its corpus.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from repbench.benchmark.records.predictions_file import PREDICTIONS_FILE
from repbench.benchmark.report.data.columns import Column
from repbench.benchmark.report.data.evidence import Evidence, classes_of, predictions_of
from repbench.benchmark.report.data.gather import Cell, Gathered
from repbench.benchmark.report.data.reading import Run
from repbench.benchmark.report.render.escaping import shown
from repbench.benchmark.scoring.grouping import LEAST_SPEAKERS, UNKNOWN_GROUP, Grouping
from repbench.benchmark.scoring.metrics import Measured, clusters_of, intervals_of, measure_clusters
from repbench.benchmark.scoring.statistics import Interval
from repbench.benchmark.scoring.statistics.gaps import Gap, GroupRuns, gap_of
from repbench.corpora.contract import AttributeValue, Corpus
from repbench.downstream.contract import Prediction, problem_of
from repbench.errors import DataError, plugin_faults

MANY_GROUPS = 12
"""A note advises bands where numbers make more groups than this."""

Values = Mapping[str, AttributeValue]
"""From the id of an utterance to its value of an attribute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRequest:
    """What groups a report has.

    Attributes:
        by: The groupings.
        corpora: By fingerprint, those whose attributes are read instead of those in the predictions.
        least_speakers: Fewest speakers of a group that is shown.
    """

    by: tuple[Grouping, ...] = ()
    corpora: Mapping[str, Corpus] = field(default_factory=dict)
    least_speakers: int = LEAST_SPEAKERS


@dataclass(frozen=True, slots=True)
class GroupScore:
    """The utterances of one group.

    Attributes:
        name: The value of the attribute, or the band.
        num_utterances: Utterances of test.
        num_speakers: Their speakers, or groups where speakers are not known; 0 where neither is.
        is_shown: Whether it has enough speakers to be measured.
        value: Mean over the seeds of the primary metric; None where it is not shown or undefined.
        interval: Of this group alone, over its speakers and seeds.
    """

    name: str
    num_utterances: int
    num_speakers: int
    is_shown: bool
    value: float | None = None
    interval: Interval | None = None


@dataclass(frozen=True, slots=True)
class CellGroups:
    """The groups of one number.

    Attributes:
        cell: The number.
        groups: In the order of the grouping, those that are not shown among them.
        gap: Between the best and the worst group that are shown, `unknown` left out; None with fewer than two.
        mixed: Items such as trials whose utterances are of several groups, by the name of their count; none of them
            counts in any group.
    """

    cell: Cell
    groups: tuple[GroupScore, ...]
    gap: Gap | None
    mixed: Mapping[str, int]

    def group(self, name: str) -> GroupScore | None:
        """A group by its name."""
        return next((each for each in self.groups if each.name == name), None)

    @property
    def worst(self) -> GroupScore | None:
        """The group with the worst value; None without a gap."""
        return None if self.gap is None else self.group(self.gap.worst)


@dataclass(frozen=True, slots=True)
class ColumnGroups:
    """The numbers of a column by one attribute; the column may be one of disturbed sound.

    Attributes:
        column: The column.
        grouping: The attribute and its bands.
        cells: Those whose attributes are known, in the order of rows.
        least_speakers: Fewest speakers of a group that is shown.
    """

    column: Column
    grouping: Grouping
    cells: tuple[CellGroups, ...]
    least_speakers: int

    @property
    def names(self) -> tuple[str, ...]:
        """The groups that are shown in a cell, in order."""
        names = {each.name for cell in self.cells for each in cell.groups if each.is_shown}
        return tuple(sorted(names, key=self.grouping.order))

    @property
    def hidden(self) -> tuple[GroupScore, ...]:
        """The groups that no cell shows, with their largest numbers of utterances and speakers."""
        largest: dict[str, GroupScore] = {}
        for each in (each for cell in self.cells for each in cell.groups if each.name not in self.names):
            largest[each.name] = max(largest.get(each.name, each), each, key=lambda one: one.num_utterances)
        return tuple(largest[name] for name in sorted(largest, key=self.grouping.order))


def column_groups(
    gathered: Gathered, evidence: Evidence, request: GroupRequest
) -> tuple[list[ColumnGroups], list[str]]:
    """The groups of every column and grouping, and notes on what has none.

    Raises:
        DataError: No record is of one of the given corpora.
    """
    if not request.by:
        return [], []
    fingerprints = {run.record.corpus.fingerprint for cell in gathered.cells.values() for run in cell.runs}
    for fingerprint, corpus in request.corpora.items():
        if fingerprint not in fingerprints:
            what = f"No record is of this corpus, {corpus.name} with the fingerprint {fingerprint[:16]}"
            known = ", ".join(sorted(each[:16] for each in fingerprints))
            raise DataError(what, key="--corpus", do=f"Give the corpus of the records, which have {known}")
    found: list[ColumnGroups] = []
    notes: list[str] = []
    for grouping in request.by:
        values, faults = _values(gathered, request, grouping)
        notes += faults
        for column in (*gathered.columns, *gathered.conditions):
            cells: list[CellGroups] = []
            for cell in gathered.column_cells(column):
                of_cell = _cell_groups(cell, evidence, values, grouping, request.least_speakers)
                if isinstance(of_cell, CellGroups):
                    cells.append(of_cell)
                else:
                    notes.append(f"no groups by {grouping.text} of {cell.row.title}, {column.title}: {of_cell}")
            if cells:
                found.append(each := ColumnGroups(column, grouping, tuple(cells), request.least_speakers))
                notes += _advice(each)
    return found, list(dict.fromkeys(notes))


def _advice(each: ColumnGroups) -> Iterator[str]:
    names = {one.name for cell in each.cells for one in cell.groups}
    if not each.grouping.edges and len(names) > MANY_GROUPS and all(_is_number(name) for name in names):
        yield f"{each.grouping.text} has {len(names)} values: cut it into bands, as --by {each.grouping.text}:16,30"


def _is_number(name: str) -> bool:
    if name == UNKNOWN_GROUP:
        return True
    try:
        float(name)
    except ValueError:
        return False
    return True


def _values(gathered: Gathered, request: GroupRequest, grouping: Grouping) -> tuple[dict[str, Values], list[str]]:
    """From the fingerprint of each corpus to the values of its utterances; and notes on corpora without any."""
    name = grouping.attribute
    found: dict[str, dict[str, AttributeValue]] = {
        fingerprint: {each.id: each.attributes[name] for each in corpus.utterances if name in each.attributes}
        for fingerprint, corpus in request.corpora.items()
    }
    notes: dict[str, str] = {}
    runs = {run.path: run for cell in gathered.cells.values() for run in cell.runs}
    for run in runs.values():
        fingerprint = run.record.corpus.fingerprint
        if fingerprint in request.corpora or fingerprint in notes or not _keeps_attributes(run):
            continue
        values = found.setdefault(fingerprint, {})
        predictions = predictions_of(run)
        for each in () if isinstance(predictions, str) else predictions:
            value = dict(each.attributes).get(name)
            if value is not None and values.setdefault(each.id, value) != value:
                notes[fingerprint] = (
                    f"no groups by {grouping.text} on {shown(run.record.corpus.name)}: its records disagree on the "
                    f"{shown(name)} of {shown(each.id)}; give the corpus with --corpus"
                )
                break
    return {each: values for each, values in found.items() if values and each not in notes}, list(notes.values())


def _keeps_attributes(run: Run) -> bool:
    """Whether the predictions of a run hold attributes, without parsing them."""
    path = run.path.with_name(PREDICTIONS_FILE)
    return run.unchecked is None and path.is_file() and b'"attributes":' in path.read_bytes()


def _cell_groups(
    cell: Cell, evidence: Evidence, values: Mapping[str, Values], grouping: Grouping, least_speakers: int
) -> CellGroups | str:
    """The groups of a number, or the reason that there are none."""
    if cell.unchecked is not None:
        return cell.unchecked
    of_corpus = values.get(cell.runs[0].record.corpus.fingerprint)
    if of_corpus is None:
        return f"no utterance has a known {shown(grouping.attribute)}; give the corpus with --corpus"
    runs: list[list[Prediction]] = []
    classes: tuple[str, ...] = ()
    for run in cell.runs:
        predictions, of_run = predictions_of(run), classes_of(run)
        if isinstance(predictions, str) or isinstance(of_run, str):
            return predictions if isinstance(predictions, str) else str(of_run)
        runs.append(predictions)
        classes = of_run
    members: dict[str, set[str]] = {}
    for each in runs[0]:
        members.setdefault(grouping.group_of(of_corpus.get(each.id)), set()).add(each.id)
    every = {each.id for each in runs[0]}
    if any({each.id for each in predictions} != every for predictions in runs):
        return "its seeds scored different utterances"
    if set(members) == {UNKNOWN_GROUP}:
        return f"no utterance has a known {shown(grouping.attribute)}"
    task = evidence.task(cell.runs[0].record)
    problem, metric = problem_of(task), cell.column.metric
    scores, groups = [], {}
    counts: Counter[str] = Counter()
    for name in sorted(members, key=grouping.order):
        with plugin_faults(task.info.name):
            among = [list(problem.among(predictions, members[name])) for predictions in runs]
        unit, clusters = clusters_of(among[0], problem.resampled)
        num_speakers = _num_speakers(among[0], unit, len(clusters))
        is_shown = num_speakers >= least_speakers
        score = GroupScore(name, len(among[0]), num_speakers, is_shown)
        if is_shown or problem.crosses_units:
            measured = [measure_clusters(task, classes, each) for each in among]
            counts.update(measured[0].whole[metric].counts)
        if is_shown:
            score = _scored(score, measured, metric, intervals_of([one.values for one in measured], task.info.metrics))
            if name != UNKNOWN_GROUP:
                groups[name] = GroupRuns(tuple(one.values for one in measured), measured[0].names)
        scores.append(score)
    whole = cell.runs[0].record.metrics[metric].counts
    mixed = {key: whole[key] - counts[key] for key in whole if problem.crosses_units and whole[key] > counts[key]}
    gap = gap_of(
        groups,
        metric,
        higher_is_better=cell.column.higher_is_better,
        in_log_odds=task.info.metrics[metric].interval == "logit",
    )
    return CellGroups(cell, tuple(scores), gap, mixed)


def _num_speakers(predictions: Sequence[Prediction], unit: str | None, num_clusters: int) -> int:
    """The units that intervals leave out; one where a speaker is known, none where no unit is."""
    if unit is not None:
        return num_clusters
    return int(bool(predictions) and all(each.speaker is not None or each.group is not None for each in predictions))


def _scored(
    score: GroupScore, measured: Sequence[Measured], metric: str, intervals: Mapping[str, Interval | None]
) -> GroupScore:
    values = [value for one in measured if (value := one.values.whole[metric]) is not None]
    value = math.fsum(values) / len(values) if len(values) == len(measured) else None
    interval = None if value is None else intervals[metric]
    return GroupScore(score.name, score.num_utterances, score.num_speakers, True, value, interval)
