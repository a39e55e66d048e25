"""The promises of a downstream, each a named check: the conformance suite behind `repbench check downstream`.

A task labels a corpus, and measures predictions that its problem makes up from its classes: perfect ones, wrong ones,
and ones drawn from a seed.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, cast

from repbench.benchmark.loading.certificates import CheckResult
from repbench.corpora.contract import Corpus, Utterance
from repbench.downstream.contract import (
    Downstream,
    FrameDownstream,
    Measurement,
    Prediction,
    TaskContext,
    problem_of,
    tallied,
)
from repbench.downstream.problems.contract import Quality
from repbench.errors import Unlabelled
from repbench.globalstate import preserved_global_state
from repbench.testing.conformance import Broken, Held, NotApplicable, NotMeasurable, Suite

NUM_UTTERANCES = 24
ROUNDING = 1e-9
"""Within which two values of a metric are the same: the order of a sum may change its last digits."""


IN_TESTS = "override the fixture `subject` (docs/plugins.md, In your own tests)"
"""The way to another corpus in a package's own tests."""


class DownstreamSubject:
    """A task under examination.

    Args:
        task: The task.
        corpus: The corpus that it labels.
        remedy: The way to another corpus, where this one has no label for the task.
    """

    def __init__(self, task: Downstream, corpus: Corpus, *, remedy: str = IN_TESTS) -> None:
        self.task = task
        self.problem = problem_of(task)
        self.corpus = corpus
        self.remedy = remedy
        self.results: dict[str, CheckResult] = {}

    def labels(self) -> list[Any]:
        """The labels of the corpus, without the utterances that it leaves out.

        Raises:
            NotMeasurable: The corpus has no label for it.
        """
        labels, reasons = zip(*map(self.label, self.corpus.utterances), strict=True)
        found = [each for each in labels if each is not None]
        if not found:
            why = next(filter(None, reasons), "`labels` leaves every utterance out")
            raise NotMeasurable(f"the corpus {self.corpus.name} has no label for it: {why}; {self.remedy}")
        return found

    def label(self, utterance: Utterance) -> tuple[Any, str]:
        """The labels of an utterance, or None and the task's reason, if it gives one."""
        try:
            return self.task.labels(utterance), ""
        except Unlabelled as unlabelled:
            return None, unlabelled.what

    def classes(self) -> tuple[str, ...]:
        """Its classes; where the corpus has no label for the task, those that it names without one.

        Raises:
            NotMeasurable: It names none then.
        """
        try:
            labels = self.labels()
        except NotMeasurable:
            with contextlib.suppress(Exception):  # nobody promised to know the classes of no labels
                if classes := self.task.classes(self.corpus.label_sets, ()):
                    return classes
            raise
        return self.task.classes(self.corpus.label_sets, labels)

    def predictions(self, quality: Quality) -> list[Prediction]:
        """Made-up predictions; each class is the reference somewhere, whatever their quality."""
        context = TaskContext(self.task, self.classes())
        self.refuse_without_methods()
        return [
            self.problem.made_up(context, number, quality, **_who(number))
            for number in range(max(NUM_UTTERANCES, 2 * len(context.classes)))
        ]

    def refuse_without_methods(self) -> None:
        """Refuse a task that lacks a method of its problem."""
        for method in self.problem.task_methods:
            if not callable(getattr(self.task, method, None)):
                raise Broken(f"a task of {self.problem.name} must also have `{method}`")

    def measured(self, predictions: Sequence[Prediction]) -> dict[str, Measurement]:
        """Its metrics of these predictions."""
        task, classes = tallied(self.task), self.classes()
        return task.measure_tallies([task.tally(predictions, classes)], classes)


def _who(number: int) -> dict[str, str]:
    return {"id": f"u{number:03d}", "speaker": f"s{number % 4}", "group": f"g{number % 8}"}


DOWNSTREAM_CHECKS: Suite[DownstreamSubject] = Suite()
"""Every check of a downstream, in order."""

_check = DOWNSTREAM_CHECKS.check


@_check("declaration")
def _declaration(subject: DownstreamSubject) -> Held:
    """The default head exists, and the primary metric is among the metrics."""
    info, problem = subject.task.info, subject.problem
    if info.default_head not in problem.heads:
        raise Broken(f"`default_head` must be one of {', '.join(problem.heads)}, but is {info.default_head!r}")
    if info.split not in problem.splits:
        raise Broken(f"`split` must be {' or '.join(problem.splits)}, but is {info.split!r}")
    for name, metric in info.metrics.items():
        if metric.lower is not None and metric.upper is not None and metric.lower >= metric.upper:
            raise Broken(f"the bounds of {name} are {metric.lower:g} and {metric.upper:g}")
    return Held(f"{problem.name}, {len(info.metrics)} metrics, primary {info.primary_metric}")


@_check("classes-sorted")
def _classes_sorted(subject: DownstreamSubject) -> Held:
    """`classes` are sorted, each once, and the same whatever the order of the labels."""
    labels, sets = subject.labels(), subject.corpus.label_sets
    classes = subject.task.classes(sets, labels)
    if len(classes) < min(subject.problem.min_classes, 1) or not all(isinstance(each, str) for each in classes):
        raise Broken(f"`classes` must be names, but are {classes!r}")
    if list(classes) != sorted(set(classes)):
        raise Broken(f"`classes` must be sorted, each one once, but are {', '.join(classes[:6])}")
    if tuple(subject.task.classes(sets, labels[::-1])) != tuple(classes):
        raise Broken("`classes` are others when the labels come in another order")
    return Held(f"{len(classes)} classes")


@_check("labels-inside-the-set", after=("classes-sorted",))
def _labels_inside_the_set(subject: DownstreamSubject) -> Held:
    """Every label fits the problem and is one of the classes."""
    labels, classes = subject.labels(), set(subject.classes())
    for label in labels:
        if not subject.problem.is_label(label):
            raise Broken(f"a label of a {subject.problem.name} task cannot be {_short(label)}")
    named = chain.from_iterable(subject.problem.names(label) for label in labels)
    outside = sorted(set(named) - classes)
    if outside:
        raise Broken(f"not among the classes: {', '.join(map(str, outside[:6]))}", measured=len(outside), allowed=0)
    return Held(f"the labels of {len(labels)} utterances of {subject.corpus.name}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


@_check("unlabelled-said", after=())
def _unlabelled_said(subject: DownstreamSubject) -> Held:
    """It raises `Unlabelled` for an utterance without any label, or leaves it out; it never makes up a label."""
    given = subject.labels()
    bare = [
        replace(each, speaker=None, text=None, phones=None, turns=None, attributes={}, group=None, split=None)
        for each in subject.corpus.utterances
    ]
    found = [subject.label(each)[0] for each in bare]
    if any(label is not None for label in found) and found != given:
        invented = next(label for label in found if label is not None)
        raise Broken(f"it labels an utterance of which nothing is known: {_short(invented)}")
    if found == given:
        raise NotApplicable("its labels need nothing but the sound")
    return Held("raised, or left out")


@_check("metrics-as-declared", after=("classes-sorted",))
def _metrics_as_declared(subject: DownstreamSubject) -> Held:
    """`measure` returns exactly the declared metrics, each a `Measurement`."""
    measured = subject.measured(subject.predictions("guess"))
    declared = set(subject.task.info.metrics)
    if set(measured) != declared:
        missing, extra = sorted(declared - set(measured)), sorted(set(measured) - declared)
        faults = [f"{word} {', '.join(names)}" for word, names in (("without", missing), ("with", extra)) if names]
        raise Broken(f"`measure` returns its metrics {' and '.join(faults)}")
    for name, each in measured.items():
        if not isinstance(each, Measurement):
            raise Broken(f"{name} must be a Measurement, but is a {type(each).__name__}")
    return Held(", ".join(sorted(declared)))


_MEASURES = ("metrics-as-declared",)


@_check("inside-the-bounds", after=_MEASURES)
def _inside_the_bounds(subject: DownstreamSubject) -> Held:
    """No metric leaves its declared bounds, for guesses and for predictions that are all wrong."""
    for quality in ("guess", "wrong"):
        for name, measured in subject.measured(subject.predictions(quality)).items():
            info, value = subject.task.info.metrics[name], measured.value
            low, high = info.lower, info.upper
            if value is None:
                continue
            outside = (
                not math.isfinite(value) or (low is not None and value < low) or (high is not None and value > high)
            )
            if outside:
                raise Broken(f"{name} is {value:g}, outside of [{_bound(low, '-∞')}, {_bound(high, '∞')}]")
    return Held(f"{len(subject.task.info.metrics)} metrics of guesses and of wrong predictions")


def _bound(value: float | None, none: str) -> str:
    return none if value is None else f"{value:g}"


@_check("perfect-scores-perfect", after=_MEASURES)
def _perfect_scores_perfect(subject: DownstreamSubject) -> Held:
    """A perfect prediction has the best value of every metric, and wrong ones are worse."""
    perfect = subject.measured(subject.predictions("right"))
    wrong = subject.measured(subject.predictions("wrong"))
    num_classes = len(subject.classes())
    for name, info in subject.task.info.metrics.items():
        if info.num_classes not in (None, num_classes):
            continue
        value, other = perfect[name].value, wrong[name].value
        best = info.upper if info.higher_is_better else info.lower
        if value is None:
            raise Broken(f"{name} of a perfect prediction is undefined")
        if best is not None and abs(value - best) > ROUNDING:
            detail = f"{name} of a perfect prediction is {value:g}, not {best:g}"
            raise Broken(detail, measured=abs(value - best), allowed=ROUNDING)
        if other is not None and not (value > other if info.higher_is_better else value < other):
            raise Broken(f"{name} of a perfect prediction ({value:g}) is not better than of a wrong one ({other:g})")
    return Held(", ".join(f"{name} {each.value:g}" for name, each in perfect.items() if each.value is not None))


@_check("order-does-not-matter", after=_MEASURES)
def _order_does_not_matter(subject: DownstreamSubject) -> Held:
    """The same predictions in another order, or measured again, have the same values."""
    predictions = subject.predictions("guess")
    shuffled = predictions.copy()
    random.Random(0).shuffle(shuffled)
    first = subject.measured(predictions)
    worst = 0.0
    for what, again in (("in another order", shuffled), ("reversed", predictions[::-1]), ("again", predictions)):
        for name, each in subject.measured(again).items():
            gap = _gap(first[name].value, each.value)
            worst = max(worst, gap)
            if gap > ROUNDING:
                values = f"{first[name].value}, and {what} {each.value}"
                raise Broken(f"{name} of the same predictions is {values}", measured=gap, allowed=ROUNDING)
    return Held(f"{len(predictions)} predictions in three orders", worst, ROUNDING)


def _gap(one: float | None, other: float | None) -> float:
    if one is None or other is None:
        return 0.0 if one is other else math.inf
    return abs(one - other)


@_check("empty-is-undefined", after=_MEASURES)
def _empty_is_undefined(subject: DownstreamSubject) -> Held:
    """Of no predictions every metric is undefined (None), never 0 and never an error."""
    for name, each in subject.measured([]).items():
        if each.value is not None:
            raise Broken(f"{name} of no predictions is {each.value:g}, but must be None")
    return Held("None")


@_check("collapse", after=("classes-sorted",))
def _collapse(subject: DownstreamSubject) -> Held:
    """`collapse` makes events of a path: how long a class lasts does not matter, and nothing gives nothing."""
    if "collapse" not in subject.problem.task_methods:
        raise NotApplicable("only a frame task has paths")
    subject.refuse_without_methods()
    task = cast(FrameDownstream, subject.task)
    classes = subject.classes()
    drawn = random.Random(0)
    path = [drawn.randrange(len(classes)) for _ in range(60)]
    events = list(task.collapse(path, classes))
    if not all(type(each) is int for each in events):
        raise Broken("the events must be numbers of classes")
    if set(events) - set(path):
        raise Broken("it makes events of classes that the path does not hold")
    if list(task.collapse([each for each in path for _ in range(3)], classes)) != events:
        raise Broken("a path whose every step lasts three times as long has other events")
    if list(task.collapse([], classes)) != []:
        raise Broken("an empty path has events")
    return Held(f"{len(events)} events of {len(path)} steps")


@_check("global-state", after=_MEASURES)
def _global_state(subject: DownstreamSubject) -> Held:
    """Labelling and measuring leave the state of the process alone."""
    predictions = subject.predictions("guess")
    deeds: Iterable[tuple[str, Callable[[], object]]] = (
        ("labelling", subject.labels),
        ("measuring", lambda: subject.measured(predictions)),
    )
    for deed, act in deeds:
        with preserved_global_state() as changed:
            act()
        if changed:
            raise Broken(f"{deed} changes {', '.join(changed)}")
    return Held("untouched")
