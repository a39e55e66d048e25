"""One upstream, one downstream: from the corpus to the records.

`_run` calls the steps in the order of the data: corpus, splits, features, probes, predictions, metrics, records.
Whatever can be refused without reading data is refused first; the test split is opened once, when nothing is left to
select. Longer than others: the way of a run from its first step to its last is read in one place.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from repbench.benchmark import environment
from repbench.benchmark.data.dataset import (
    LabelledFold,
    LabelledSplits,
    LabelledUtterances,
)
from repbench.benchmark.data.labelled_folds import label_corpus
from repbench.benchmark.data.shuffled_labels import with_shuffled_labels
from repbench.benchmark.data.subsets import few_shots, missing_classes, subset, with_fewer_shots
from repbench.benchmark.features.allocation import tables_on
from repbench.benchmark.features.invariance_check import check_invariance
from repbench.benchmark.features.source import exclusions, notes_of
from repbench.benchmark.features.table import Features
from repbench.benchmark.loading.upstreams import untrained_like
from repbench.benchmark.pipeline.conditioned_run import by_condition, trainings_in
from repbench.benchmark.pipeline.existing_records import alone_if_missing_only, answered_before
from repbench.benchmark.pipeline.finetuned_run import finetuned
from repbench.benchmark.pipeline.folded_run import StatisticsOfFolds, in_batches, probed_in_folds
from repbench.benchmark.pipeline.run_data import (
    RunData,
    notes_on_size,
    open_test,
    refuse_unknown_attributes,
    refuse_unreadable_groups,
)
from repbench.benchmark.pipeline.run_features import extract, road_of, trainings_of
from repbench.benchmark.pipeline.saved_probe_run import score_with_probe
from repbench.benchmark.pipeline.setup import (
    LabelledSubset,
    Labels,
    RunContext,
    RunRequest,
    RunSetting,
    TrainedResult,
    WrittenRecord,
    open_corpus_of,
    prepare,
)
from repbench.benchmark.pipeline.training_free_run import measured_without_training
from repbench.benchmark.pipeline.write_record import score
from repbench.benchmark.probing.batches import trainable
from repbench.benchmark.probing.fitting import fit_probes
from repbench.benchmark.probing.prediction import LabelledFeatures, Predictor
from repbench.benchmark.probing.probe import statistics_of
from repbench.benchmark.probing.training import ProbeJob, ProbeTraining, TrainedProbe, train_probes
from repbench.benchmark.records.record import Record
from repbench.configs.requests import request_of
from repbench.corpora.contract import Corpus
from repbench.downstream.contract import Downstream, problem_of, splits_read
from repbench.downstream.heads import is_fitted
from repbench.errors import NonFiniteError, UsageError
from repbench.progress import Reporter, Silence
from repbench.training.distributed import Processes, expected_processes, joined, local_device
from repbench.upstream.contract import Upstream, provenance_of

__all__ = ["RunRequest", "WrittenRecord", "evaluate", "run"]


def run(request: RunRequest, reporter: Reporter | None = None) -> list[WrittenRecord]:
    """Evaluate an upstream on a task, and write one record for each layer, head, fraction, seed and control.

    Of several processes that `torchrun` started to fine-tune together, the leading one returns the records.

    Raises:
        UsageError: The options contradict each other, the upstream or the task; nothing was read.
        DataError: The corpus lacks what the task needs.
        PluginError: The upstream or the task breaks its contract.
    """
    reporter = reporter or Silence()
    refuse_contradictions(request)
    refuse_unreadable_groups(request.by)
    if not request.finetune or request.probe is not None:
        with alone_if_missing_only(request, reporter):
            return _run(request, reporter, Processes())
    with joined(local_device(environment.choose_device(request.device))) as processes:
        if not processes.leads:
            # Without the lock of --missing-only, which the leading process holds: a second one would wait for it for
            # ever.
            return _run(request, Silence(), processes)
        with alone_if_missing_only(request, reporter):
            return _run(request, reporter, processes)


def refuse_contradictions(request: RunRequest) -> None:
    """Refuse what contradicts itself before anything is loaded.

    Raises:
        UsageError: Both `head` and `heads` are given, or several processes were started to train a probe.
    """
    if request.head is not None and request.heads:
        raise UsageError("Give `head` or `heads`, not both", key="--head")
    if (not request.finetune or request.probe is not None) and expected_processes() > 1:
        raise UsageError(
            f"torchrun started {expected_processes()} processes, but only --finetune trains in several",
            key="--finetune",
            do="Start one process; `repbench sweep --jobs` runs several pairs at once",
        )


def _run(request: RunRequest, reporter: Reporter, processes: Processes) -> list[WrittenRecord]:
    return [written for one in requests_of(request) for written in _run_one(one, reporter, processes)]


def requests_of(request: RunRequest) -> Iterator[RunRequest]:
    """The requests that a request stands for: each of one layer (or all), one head, one upstream.

    Raises:
        UsageError: Options of the request contradict each other.
    """
    if request.layers:
        each = _layer_by_layer(request)
    elif request.heads and request.head is None:
        each = _head_by_head(request)
    elif request.probe is None and request.matched and len(request.conditions) != 1:
        each = _condition_by_condition(request)
    elif request.probe is None and is_untrained(request) and len(request.seeds) > 1:
        # The weights of an untrained network follow from the seed: each seed is another upstream, with its own
        # features.
        each = [replace(request, seeds=(seed,)) for seed in request.seeds]
    else:
        yield request
        return
    for one in each:
        yield from requests_of(one)


def _run_one(request: RunRequest, reporter: Reporter, processes: Processes) -> list[WrittenRecord]:
    """Evaluate one of `requests_of`."""
    if request.probe is not None:
        return score_with_probe(request, reporter)
    # Opened on first use, so that faults of the options are found before a corpus is read or made.
    opened = functools.cache(lambda: open_corpus_of(request, reporter))
    context = prepare(request, reporter, opened)
    request = context.request
    settings = settings_of(request, context.upstream, tuple(context.conditions))
    for note in notes_on_weights(request, context.upstream):
        reporter.say(f"note: {note}")
    corpus = opened()
    refuse_unknown_attributes(corpus, request.by)
    before, settings = answered_before(context, corpus, settings) if request.missing_only else ([], settings)
    if not settings:
        return [*before, *_with_untrained(request, context, reporter, processes)]
    check_invariance(context.upstream, context.upstream_entry, context.fingerprint, context.device)
    rates = notes_of(corpus, context.upstream)
    splits = label_corpus(corpus, context.task, request.protocol.split, excludes=exclusions(context.upstream))
    data = RunData.of(context, corpus, splits, rates)
    splits = data.splits
    for note in notes_on_size(context.task, splits.test, len(request.seeds)):
        reporter.say(f"note: {note}")
    if splits_read(context.task) is not None:
        written = measured_without_training(context, data, settings)
        return [*before, *written, *_with_untrained(request, context, reporter, processes)]
    subsets = subsets_of(corpus, context, splits, settings)
    for warning in (*splits.warnings, *rates, *_warnings_of(subsets.values())):
        reporter.say(f"note: {warning}")

    if request.finetune:
        written = finetuned(context, data, subsets, settings, processes)
    else:
        written = _probed(context, data, subsets, settings)
    return [*before, *written, *_with_untrained(request, context, reporter, processes)]


def _layer_by_layer(request: RunRequest) -> list[RunRequest]:
    """One request for each layer; the first pass over the corpus stores the features of all layers.

    Raises:
        UsageError: Both `layer` and `layers` are given, or a layer is among `all`.
    """
    layers = tuple(dict.fromkeys(request.layers))
    if request.layer is not None:
        raise UsageError("Give `layer` or `layers`, not both", key="--layer")
    among_all = next((layer for layer in layers if layer.isdigit()), None)
    if "all" in layers and among_all is not None:
        raise UsageError(f"`all` reads layer {among_all} too", key="--layer", do="Leave one of the two out")
    # Otherwise each layer would compute the whole upstream again.
    stored = () if len(layers) == 1 or request.finetune else layers
    stored = tuple(dict.fromkeys((*request.store_layers, *stored)))
    return [replace(request, layer=layer, layers=(), store_layers=stored) for layer in layers]


def _head_by_head(request: RunRequest) -> list[RunRequest]:
    """One request for each head; the first pass over the corpus stores the features that the others read.

    Each keeps the names of all, so that `prepare` refuses any of them before the first one is trained.
    """
    return [replace(request, head=head) for head in dict.fromkeys(request.heads)]


def _condition_by_condition(request: RunRequest) -> list[RunRequest]:
    """One request for each condition: with matched training each has its own features of train.

    Raises:
        UsageError: There is none to match.
    """
    if not request.conditions:
        what = "There is no condition that the training could match"
        raise UsageError(what, key="--matched", do="Give --condition or --conditions, or leave --matched out")
    return [replace(request, conditions=(one,)) for one in dict.fromkeys(request.conditions)]


def _probed(
    context: RunContext, data: RunData, subsets: Mapping[RunSetting, LabelledSubset], settings: Sequence[RunSetting]
) -> list[WrittenRecord]:
    """Train a probe for each setting on the frozen upstream, then open the test split, and write the records."""
    splits = data.splits
    if splits.folds:
        return probed_in_folds(context, data, settings, functools.partial(_train, context, splits, subsets))
    parts = splits.usable(splits.train), splits.usable(splits.dev)
    road = road_of(context, *parts, trainings=trainings_of(context, trainings_in(settings)))
    train, dev = tables_on(
        context.device,
        extract(context, "features of train", parts[0], road),
        extract(context, "features of dev", parts[1], road),
    )
    results = _train(context, splits, subsets, (train, dev), trainings_in(settings))
    del train, dev  # frees memory of the device for the upstream

    predictor = Predictor(context.task, splits.classes, context.upstream.info)
    written = []
    for condition, wanted in by_condition(settings, results):
        test = open_test(context, data, condition)
        table = extract(context, test.title, test.examples)
        for some in in_batches(wanted):
            labelled = LabelledFeatures(context.view(table, some[0].setting.layer), test.examples)
            chosen = [each.trained.selection.chosen for each in some]
            predicted = predictor.predict_each([each.trained.probe for each in some], labelled, chosen)
            written += [score(context, data, test, *each) for each in zip(some, predicted, strict=True)]
    return written


def evaluate(
    upstream: str, downstream: str, *, corpus: str | Path = "synthetic", out: str | Path = "runs", **options: Any
) -> list[Record]:
    """Run one upstream on one downstream and return the records, which are also written below `out`.

    Args:
        upstream: Name of the model.
        downstream: Name of the task.
        corpus: A registered name with options, or the folder of a manifest.
        out: Folder of the records.
        **options: Any other field of `repbench.benchmark.run.RunRequest`.

    Raises:
        UsageError: An option is unknown or of another type; and as `run`.

    Example:
        >>> records = evaluate("mel", "phone", corpus="synthetic:tiny")  # doctest: +SKIP
        >>> records[0].primary.value  # doctest: +SKIP
        0.52
    """
    given = {"upstream": upstream, "downstream": downstream, "corpus": corpus, "out": out, **options}
    request = request_of(RunRequest, given)
    return [written.record for written in run(request)]


def is_untrained(request: RunRequest) -> bool:
    """Whether the upstream of a request has random weights."""
    return request.checkpoint is not None and request.checkpoint.partition(":")[0] == "random"


def _with_untrained(
    request: RunRequest, context: RunContext, reporter: Reporter, processes: Processes
) -> list[WrittenRecord]:
    """The records of the same network untrained, where controls are requested and the upstream has weights."""
    control = untrained_control(request, context, reporter)
    return [] if control is None else _run(control, reporter, processes)


def untrained_control(request: RunRequest, context: RunContext, reporter: Reporter) -> RunRequest | None:
    """The request of the untrained control; None where none is wanted, or the upstream has no weights."""
    if not request.controls or is_untrained(request):
        return None
    if not context.upstream.info.trainable:
        reporter.say(f"note: {request.upstream} has no weights, so there is no untrained control")
        return None
    checkpoint = untrained_like(context.upstream_entry, context.upstream)
    return replace(request, checkpoint=checkpoint, controls=False)


def notes_on_weights(request: RunRequest, upstream: Upstream) -> list[str]:
    """What a reader of the score has to know of the weights."""
    provenance = provenance_of(upstream)
    if provenance.log:  # in place of the checkpoint, which they name
        return [*provenance.log, *provenance.notes]
    chosen = request.checkpoint in {None, "random"} and provenance.checkpoint is not None
    return [*([f"the checkpoint is {provenance.checkpoint}"] if chosen else []), *provenance.notes]


def _warnings_of(subsets: Iterable[LabelledSubset]) -> list[str]:
    """The warnings of all subsets, each once."""
    return list(dict.fromkeys(warning for one in subsets for warning in one.warnings))


def settings_of(request: RunRequest, upstream: Upstream, conditions: Sequence[str] = ()) -> list[RunSetting]:
    """The setting of each record of a request, as `RunContext` holds it, with the names of its conditions."""
    assert request.layer is not None
    every = [str(index) for index in range(len(upstream.info.layer_names))]
    layers = every if request.layer == "all" else [request.layer]
    kinds: list[Labels] = ["given", "shuffled"] if request.controls else [request.protocol.labels]
    # A head that is fitted has no learning rate to choose.
    assert request.head is not None
    tunes = (request.tune or request.protocol.probe.tune) and not is_fitted(request.head)
    under: list[str | None] = [*conditions] if request.matched else [None, *conditions]
    return [
        RunSetting(layer=layer, fraction=fraction, seed=seed, labels=labels, tuned=tuned, condition=condition)
        for condition in under
        for layer in layers
        for fraction in request.label_fractions
        for labels in kinds
        for tuned in ((False, True) if tunes else (False,))
        for seed in request.seeds
    ]


def subsets_of(
    corpus: Corpus, context: RunContext, splits: LabelledSplits, settings: Iterable[RunSetting]
) -> dict[RunSetting, LabelledSubset]:
    """Train and dev of each setting and fold: drawn by corpus, task, seed and fraction or number of shots.

    What the upstream cannot take is left out after the draw.
    """
    task, problem = context.task, problem_of(context.task)
    salt = f"{corpus.fingerprint} {task.info.name}"
    subsets: dict[RunSetting, LabelledSubset] = {}
    # Tuned or not, a setting has the same examples: both records come from one training.
    divisions: Sequence[LabelledSplits | LabelledFold] = splits.folds or (splits,)
    untuned = dict.fromkeys(replace(setting.training, tuned=False) for setting in settings)
    shots = context.request.protocol.probe.shots

    def draw(part: LabelledUtterances, setting: RunSetting, salt: str) -> LabelledUtterances:
        if shots is None:
            return subset(part, setting.fraction, problem=problem, seed=setting.seed, salt=salt)
        return few_shots(part, shots, problem=problem, seed=setting.seed, salt=salt)

    for setting, division in itertools.product(untuned, divisions):
        train, dev = (
            splits.usable(draw(part, setting, salt=f"{salt} {name}"))
            for name, part in (("train", division.train), ("dev", division.dev))
        )
        warnings = missing_classes(task, division.classes, train, setting.fraction)
        if shots is not None:
            warnings += with_fewer_shots(train, shots, problem)
        # A small fraction can draw only utterances that the upstream cannot take.
        dev = dev or splits.usable(division.dev)[:1]
        if setting.labels == "shuffled":
            train, dev = (
                with_shuffled_labels(part, problem=problem, seed=setting.seed, salt=f"{salt} {name}")
                for name, part in (("train", train), ("dev", dev))
            )
        # After the shuffle, because the number of frames that an utterance needs depends on its labels.
        train, lost = trainable(train, context.upstream, problem)
        fold = division.name if isinstance(division, LabelledFold) else None
        subsets[replace(setting, fold=fold)] = LabelledSubset(train, dev, (*warnings, *lost))
    return subsets


def _train(
    context: RunContext,
    splits: LabelledSplits,
    subsets: Mapping[RunSetting, LabelledSubset],
    tables: tuple[Features, Features],
    settings: Sequence[RunSetting],
    statistics: StatisticsOfFolds | None = None,
) -> list[TrainedResult]:
    """Train the probes of all settings; the learning rates of one setting in one pass over the features.

    Args:
        context: Of the run.
        splits: Of the corpus.
        subsets: The examples of each setting.
        tables: The features of train and dev.
        settings: With folds one for each fold.
        statistics: Those of the train of each fold, by its name; None: of all of train.
    """
    train, dev = tables
    common = context.request.protocol.probe
    tunes = any(setting.tuned for setting in settings)
    # The default rate is trained with the others, so one pass gives the untuned record too. Ascending, because `max`
    # takes the first of equals.
    rates = tuple(sorted({*common.learning_rates, common.learning_rate})) if tunes else (common.learning_rate,)
    jobs = list(dict.fromkeys(replace(setting, tuned=False) for setting in settings))
    shared = ProbeTraining(
        predictor=Predictor(context.task, splits.classes, context.upstream.info),
        shape=context.probe_shape(splits.classes, settings[0].layer),
        train=train,
        dev=dev,
        statistics=statistics_of(train) if statistics is None else None,
        settings=common,
        learning_rates=rates,
        device=context.device,
    )
    probe_jobs = [
        ProbeJob(
            train=subsets[job].train,
            dev=subsets[job].dev,
            layers=context.places(job.layer),
            seed=job.seed,
            statistics=None if statistics is None else statistics[job.fold],
        )
        for job in jobs
    ]
    grid = common.learning_rates if tunes else ()
    with context.reporter.stage(_title(len(jobs), grid, common.learning_rate)) as advance:
        if is_fitted(context.head):
            return [
                TrainedResult(
                    setting=job,
                    trained=probe,
                    label_seconds=subsets[job].seconds,
                    warnings=(*subsets[job].warnings, *probe.warnings),
                )
                for job, probe in zip(jobs, fit_probes(shared, probe_jobs, advance), strict=True)
            ]
        trained = train_probes(shared, probe_jobs, advance)
    for note in dict.fromkeys(note for probes in trained for note in _diverged(probes)):
        context.reporter.say(f"note: {note}")
    return [
        TrainedResult(
            setting=setting,
            trained=chosen,
            label_seconds=subsets[job].seconds,
            warnings=(*subsets[job].warnings, *(_diverged(probes) if setting.tuned else ())),
        )
        for job, probes in zip(jobs, trained, strict=True)
        for setting, chosen in _chosen(job, probes, common.learning_rate, context.task)
        if setting in settings
    ]


def _diverged(probes: Sequence[TrainedProbe]) -> tuple[str, ...]:
    """A warning for each learning rate at which the probe diverged."""
    points = [probe.selection.chosen for probe in probes if probe.selection.dev_value is None]
    return tuple(
        f"at the learning rate {each['learning_rate']:g} the probe ended in NaN or infinity at step {each['step']}: "
        "that rate was out of the choice"
        for each in points
    )


def _chosen(
    job: RunSetting, probes: Sequence[TrainedProbe], default_rate: float, task: Downstream
) -> list[tuple[RunSetting, TrainedProbe]]:
    """The probe of the default rate, and the one that is best on dev among all (of equals, that of the lower rate).

    Raises:
        NonFiniteError: The probe of the default rate diverged.
    """
    default = [probe for probe in probes if probe.selection.chosen["learning_rate"] == default_rate]
    for probe in default:
        if probe.selection.dev_value is None:
            raise NonFiniteError(
                f"The probe of seed {job.seed} ends in NaN or infinity at step {probe.selection.chosen['step']}",
                key="probe.learning_rate",
                do="Take a smaller learning rate",
            )
    up = task.info.metrics[task.info.primary_metric].higher_is_better
    best = max((probe for probe in probes if probe.selection.dev_value is not None), key=lambda each: _worth(each, up))
    grid = tuple(point for probe in probes for point in probe.selection.grid)
    seconds = math.fsum(probe.seconds for probe in probes)
    # The record of a tuned probe has all points and the time of all rates: the search is part of its cost.
    tuned = replace(best, selection=replace(best.selection, grid=grid), seconds=seconds)
    return [*((job, probe) for probe in default), (replace(job, tuned=True), tuned)]


def _worth(probe: TrainedProbe, higher_is_better: bool) -> float:
    value = probe.selection.dev_value
    assert value is not None
    return value if higher_is_better else -value


def _title(num_jobs: int, grid: Sequence[float], default: float) -> str:
    """The stage of training in words: the number of probes, and their learning rates where these are tuned."""
    if num_jobs == 1 and not grid:
        return "probe"
    probes = _counted(num_jobs, "probe")
    if not grid:
        return f"{probes}, side by side"
    more = "" if default in grid else " and the default"
    return f"{probes} at {_counted(len(grid), 'learning rate')}{more}, side by side"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
