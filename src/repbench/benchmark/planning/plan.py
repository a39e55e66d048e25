"""`plan` calls the steps in order: task, corpus, division, spread, differences, other divisions.

It reads the manifest of the corpus and earlier records, no sound, and trains nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repbench.benchmark.data.dataset import Excludes, LabelledSplits, unit_counts
from repbench.benchmark.data.labelled_folds import label_corpus
from repbench.benchmark.loading.tasks import build_task
from repbench.benchmark.protocol import Protocol, SplitSettings
from repbench.benchmark.records.record import record_paths
from repbench.benchmark.scoring.spreads import known_spread
from repbench.benchmark.scoring.statistics import Detectable, Sizes, Spread, clusters_needed, detectable
from repbench.corpora.contract import Corpus, Utterance
from repbench.corpora.open import open_corpus
from repbench.downstream.contract import Downstream, problem_of, splits_read
from repbench.errors import DataError, UsageError
from repbench.progress import Reporter, Silence
from repbench.registry import registry

if TYPE_CHECKING:
    from repbench.benchmark.planning.earlier import EarlierSpread

FEW_CLUSTERS = 10
"""Fewer speakers than these are few: the quantile of Student's t is then a sixth or more above its limit."""

SHARES = (0.2, 0.3, 0.4)
"""Shares of test that are tried in place of `split.test_share`."""

FOLDS = (5, 10)
"""Numbers of folds that are tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """Arguments of `repbench plan`.

    Attributes:
        downstream: Name of the task.
        corpus: A registered name with options, or the folder of a manifest.
        protocol: Of which the split and the options of the task are read.
        num_seeds: Seeds of each system.
        upstream: Name of the model, whose exclusions count; None: no utterance is excluded.
        checkpoint: Its weights, as `repbench run` takes them.
        runs: Folder of earlier records, from which the spread is taken where they tell it.
    """

    downstream: str
    corpus: str = "synthetic"
    protocol: Protocol = field(default_factory=Protocol)
    num_seeds: int = 1
    upstream: str | None = None
    checkpoint: str | None = None
    runs: Path = Path("runs")


@dataclass(frozen=True, slots=True)
class SplitSize:
    """A split: its utterances, speakers (0: unknown) and seconds of sound."""

    name: str
    utterances: int
    speakers: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Outlook:
    """A division of the corpus and what its test set could show.

    Attributes:
        options: Those of `repbench run` that make it; empty for the division that was requested.
        train: Training utterances; with folds the mean over them.
        test: Scored utterances.
        unit: The unit of intervals: speaker or group; None where there is one.
        units: Number of those in test.
        smallest: The smallest detectable differences; None with one unit, and where the spread is not known.
        of_now: The paired difference over that of the requested division; None where one of them has none.
    """

    options: str
    train: int
    test: int
    unit: str | None
    units: int
    smallest: Detectable | None
    of_now: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run could show.

    Attributes:
        downstream: Name of the task.
        metric: The primary metric.
        unit: Of the metric.
        corpus: Name of the corpus.
        policy: The division, in words.
        splits: Sizes of train, dev and test; with folds each utterance counts once in every part that it is in.
        num_classes: Classes of the task; 0 for a task without.
        excluded: Test utterances that cannot be scored.
        now: The requested division.
        trains: Whether the task trains a probe, whose seed matters.
        num_seeds: Seeds of each system.
        spread: The assumed spread; None where nothing is known.
        source: Where the spread comes from, in words.
        others: Other divisions of the corpus, with other test sets.
        impossible: From the options of divisions that the corpus or the task does not allow to the reason.
        half: Options of the first of `others` that shows half of the difference; None where none does.
        units_for_half: How many test speakers (or groups) of as many utterances would show half; None where no number
            does, or nothing is known.
        warnings: About the division and the test set.
    """

    downstream: str
    metric: str
    unit: str
    corpus: str
    policy: str
    splits: tuple[SplitSize, ...]
    num_classes: int
    excluded: int
    now: Outlook
    trains: bool
    num_seeds: int
    spread: Spread | None
    source: str
    others: tuple[Outlook, ...]
    impossible: Mapping[str, str]
    half: str | None
    units_for_half: int | None
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """All of it, as JSON holds it."""
        return asdict(self)


def plan(request: PlanRequest, reporter: Reporter | None = None) -> Plan:
    """State what a run could show, from the manifest of the corpus alone.

    Raises:
        UsageError: There is no such task, model or setting.
        DataError: The corpus cannot be divided, or lacks the labels.
        PluginError: The task or the model breaks its contract.
    """
    reporter = reporter or Silence()
    if request.num_seeds < 1:
        raise UsageError(f"The number of seeds must be at least 1, but is {request.num_seeds}", key="--seeds")
    task = build_task(
        registry().find("downstream", request.downstream).entry, request.protocol.options_for(request.downstream)
    )
    protocol = request.protocol.for_task(request.downstream, problem_of(task).name)
    with reporter.stage(f"corpus {request.corpus}") as advance:
        corpus = open_corpus(request.corpus, progress=advance, say=reporter.say)
    excludes = _excludes(request, corpus)
    splits = label_corpus(corpus, task, protocol.split, excludes=excludes)
    spread, source = _spread(task, _earlier(request.runs, task, protocol, corpus), request.runs)
    now = outlook(task, splits, "", spread, request.num_seeds)
    candidates, impossible = _others(corpus, task, splits, protocol.split, excludes, reporter)
    others = [outlook(task, each, options, spread, request.num_seeds, now) for options, each in candidates]
    half = next((each.options for each in others if each.of_now is not None and each.of_now <= 0.5), None)
    return Plan(
        downstream=request.downstream,
        metric=task.info.primary_metric,
        unit=task.info.metrics[task.info.primary_metric].unit,
        corpus=corpus.name,
        policy=splits.policy,
        splits=tuple(_sizes(splits)),
        num_classes=len(splits.classes),
        excluded=len(splits.test.excluded),
        now=now,
        trains=splits_read(task) is None,
        num_seeds=request.num_seeds,
        spread=spread,
        source=source,
        others=tuple(others),
        impossible=impossible,
        half=half,
        units_for_half=_units_for_half(now, spread, request.num_seeds),
        warnings=(*splits.warnings, *warnings_of(now)),
    )


def outlook(
    task: Downstream,
    splits: LabelledSplits,
    options: str,
    spread: Spread | None,
    num_seeds: int,
    now: Outlook | None = None,
) -> Outlook:
    """What a division could show, compared with another."""
    scored = splits.test.utterances
    unit, counts = unit_counts(scored, problem_of(task))
    smallest = None
    if spread is not None and unit is not None:
        smallest = detectable(spread, Sizes(counts), num_seeds=num_seeds)
    trains = [splits.usable(each.train) for each in splits.folds] or [splits.usable(splits.train)]
    of_now = None
    if smallest is not None and now is not None and now.smallest is not None:
        of_now = smallest.paired / now.smallest.paired
    return Outlook(
        options=options,
        train=round(sum(map(len, trains)) / len(trains)),
        test=len(scored),
        unit=unit,
        units=len(counts) if unit is not None else 1,
        smallest=smallest,
        of_now=of_now,
    )


def warnings_of(now: Outlook) -> list[str]:
    """Warnings about a small test set."""
    if now.unit is None:
        return [
            f"test has {now.test} utterances of one speaker or group: there is no interval, and systems cannot be "
            "compared over speakers"
        ]
    if now.units < FEW_CLUSTERS:
        return [f"test has {now.units} {now.unit}s, which are few: intervals are wide"]
    return []


def _excludes(request: PlanRequest, corpus: Corpus) -> Excludes:
    """The reason why the model cannot take an utterance; without a model it can take all."""
    if request.upstream is None:
        return lambda utterance: None
    # torch is loaded for a model alone.
    from repbench.benchmark.features.source import exclusions
    from repbench.benchmark.loading.upstreams import build_upstream

    entry = registry().find("upstream", request.upstream).entry
    return exclusions(build_upstream(entry, request.checkpoint, 0, corpus=lambda: corpus))


def _earlier(folder: Path, task: Downstream, protocol: Protocol, corpus: Corpus) -> EarlierSpread | None:
    if not (folder.is_dir() and record_paths(folder)):
        return None
    # It groups records as a report does, which loads torch: for earlier records alone.
    from repbench.benchmark.planning.earlier import spread_below

    return spread_below(folder, task, protocol.task, corpus.fingerprint)


def _spread(task: Downstream, earlier: EarlierSpread | None, folder: Path) -> tuple[Spread | None, str]:
    """The spread of earlier records, completed by what is known in general, with its source."""
    known = known_spread(task)
    if earlier is not None and (spread := earlier.completed(known and known[0])) is not None:
        systems = f"{earlier.num_systems} system{'s' * (earlier.num_systems != 1)}"
        records = f"{earlier.num_records} record{'s' * (earlier.num_records != 1)} of {systems}"
        source = f"{records} on {', '.join(earlier.corpora)} below {folder}"
        lacking = [
            what for what, value in (("correlation", earlier.correlation), ("seeds", earlier.seed)) if value is None
        ]
        if lacking and known is not None:
            source += f"; {' and '.join(lacking)} {known[1]}"
        return spread, source
    if known is None:
        unit = task.info.metrics[task.info.primary_metric].unit
        name = task.info.name
        return None, f"no record below {folder} tells the spread of `{name}`, and nothing is known of a {unit}"
    return known


def _sizes(splits: LabelledSplits) -> Iterator[SplitSize]:
    for name, part in (("train", splits.usable(splits.train)), ("dev", splits.usable(splits.dev))):
        if part:
            yield _size(name, [example.utterance for example in part])
    yield _size("test", splits.test.utterances)


def _size(name: str, utterances: Sequence[Utterance]) -> SplitSize:
    speakers = {each.speaker for each in utterances} - {None}
    return SplitSize(name, len(utterances), len(speakers), math.fsum(each.seconds for each in utterances))


def _others(
    corpus: Corpus,
    task: Downstream,
    now: LabelledSplits,
    settings: SplitSettings,
    excludes: Excludes,
    reporter: Reporter,
) -> tuple[list[tuple[str, LabelledSplits]], dict[str, str]]:
    """Other divisions, each with a test set of its own, by their options; and the reasons why some are not possible."""
    if splits_read(task) is not None:
        return [], {}
    tried: list[tuple[str, dict[str, Any]]]
    tried = [(f"--set split.test_share={share:g}", {"test_share": share, "folds": None}) for share in SHARES]
    if task.info.split == "within-speaker":
        tried += [
            (f"--folds {folds} --set split.folds_by=group", {"folds": folds, "folds_by": "group"}) for folds in FOLDS
        ]
    else:
        tried += [(f"--folds {folds}", {"folds": folds}) for folds in FOLDS]
    tried.append(("--folds official", {"folds": "official"}))
    found: list[tuple[str, LabelledSplits]] = []
    impossible: dict[str, str] = {}
    seen = [_ids(now)]
    with reporter.stage("divisions") as advance:
        for number, (options, changed) in enumerate(tried, start=1):
            if changed != {name: getattr(settings, name) for name in changed}:
                try:
                    splits = label_corpus(corpus, task, settings.model_copy(update=changed), excludes=excludes)
                except (DataError, UsageError) as error:
                    impossible[options] = error.what
                    continue
                if _ids(splits) not in seen:
                    found.append((options, splits))
                    seen.append(_ids(splits))
            advance(number, len(tried))
    return found, impossible


def _ids(splits: LabelledSplits) -> frozenset[str]:
    return frozenset(each.id for each in splits.test.utterances)


def _units_for_half(now: Outlook, spread: Spread | None, num_seeds: int) -> int | None:
    if spread is None or now.smallest is None:
        return None
    each = max(1, round(now.test / now.units))
    return clusters_needed(spread, now.smallest.paired / 2, utterances=each, num_seeds=num_seeds)
