"""Subsets of the labelled training utterances, and the classes that they lack."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from repbench.benchmark.data.dataset import LabelledUtterances
from repbench.benchmark.data.seeded_shuffle import digest, grouped, shuffled, uniform
from repbench.downstream.contract import Downstream, LabelledUtterance, problem_of
from repbench.downstream.problems import Problem
from repbench.errors import DataError, UsageError


def subset(
    examples: LabelledUtterances, fraction: float, *, problem: Problem, seed: int, salt: str
) -> LabelledUtterances:
    """A nested, stratified subset: a smaller fraction is part of every larger one of the same seed.

    Within each stratum (class and speaker; speaker alone where classes vary within an utterance) the utterances are
    shuffled and spread evenly over [0, 1); the subset is the first of these. At least one utterance is kept.

    Args:
        examples: The whole split.
        fraction: Share of the utterances to keep, in (0, 1].
        problem: Gives the class of an utterance.
        seed: Of the shuffle.
        salt: A text on which the shuffle also depends (corpus and task).
    """
    count = max(1, round(fraction * len(examples)))
    if count == len(examples):
        return examples
    place: dict[str, tuple[float, str]] = {}
    strata = grouped(examples, lambda each: f"{_stratum(each, problem)}\0{each.utterance.speaker}")
    for name, members in strata.items():
        order = shuffled([example.id for example in members], seed, f"{salt} {name}")
        offset = uniform(f"{seed} {salt} {name} offset")
        for rank, id_ in enumerate(order):
            # A place does not depend on the fraction, which makes subsets nested. Without the offset the first of every
            # stratum would be at 0, and a small subset would hold one of each stratum, rare or frequent. The digest
            # breaks ties.
            place[id_] = ((rank + offset) / len(order), digest(f"{seed} {salt} {id_}"))
    kept = set(sorted(place, key=place.__getitem__)[:count])
    return tuple(example for example in examples if example.id in kept)


def few_shots(
    examples: LabelledUtterances, shots: int, *, problem: Problem, seed: int, salt: str
) -> LabelledUtterances:
    """At most `shots` utterances of each class; fewer shots of the same seed are part of more, whatever the upstream.

    Within each class the utterances are shuffled, and the first are taken; a class with fewer keeps all.

    Args:
        examples: The whole split.
        shots: Utterances of each class, at least 1.
        problem: Gives the class of an utterance.
        seed: Of the shuffle.
        salt: A text on which the shuffle also depends (corpus and task).
    """
    kept: set[str] = set()
    for name, members in grouped(examples, lambda each: _stratum(each, problem)).items():
        kept.update(shuffled([example.id for example in members], seed, f"{salt} shots {name}")[:shots])
    return tuple(example for example in examples if example.id in kept)


def with_fewer_shots(train: LabelledUtterances, shots: int, problem: Problem) -> tuple[str, ...]:
    """A warning that names the classes with fewer training utterances than were to be drawn; none where all have."""
    counts = {name: len(each) for name, each in grouped(train, lambda each: _stratum(each, problem)).items()}
    fewer = [f"{name.replace(chr(0), ' ')} ({count})" for name, count in counts.items() if count < shots]
    if not fewer:
        return ()
    return (f"{len(fewer)} of {len(counts)} classes have fewer than {shots} training utterances: {_some(fewer)}",)


def refuse_shots(shots: int | None, fractions: Iterable[float], problem: Problem) -> None:
    """Refuse a number of utterances of each class for a problem whose utterances have none, and with a fraction.

    Raises:
        UsageError: Names the setting.
    """
    if shots is None:
        return
    if type(problem).stratum is Problem.stratum:
        what = f"The utterances of {problem.name} tasks have no class each, of which some could be drawn"
        raise UsageError(what, key="probe.shots", do="Take --label-fraction")
    if any(fraction != 1.0 for fraction in fractions):
        what = "Both choose among the labelled utterances"
        raise UsageError(what, key="probe.shots", do="Leave probe.shots or --label-fraction out")


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:5])}{' …' if len(names) > 5 else ''}"


def missing_classes(
    task: Downstream, classes: Sequence[str], train: LabelledUtterances, fraction: float
) -> tuple[str, ...]:
    """A warning that names the classes that a subset lost; none where it has them all.

    Raises:
        UsageError: The problem needs every class.
        DataError: Nothing is left to train on.
    """
    if not train:
        raise DataError(
            f"The fraction {fraction:g} leaves no training utterance that the upstream can take",
            key="--label-fraction",
            do="Take a larger fraction",
        )
    problem = problem_of(task)
    if fraction == 1.0 and not problem.needs_every_class:
        return ()
    missing = without_classes_of(train, set(classes), problem)
    if not missing:
        return ()
    what = (
        f"The fraction {fraction:g} leaves {len(train)} training utterances, none of the "
        f"class{'es' if len(missing) > 1 else ''} {_some(missing)}"
    )
    if problem.needs_every_class:
        raise UsageError(what, key="--label-fraction", do="Take a larger fraction")
    return (what,)


def without_classes_of(examples: Iterable[LabelledUtterance], classes: set[str], problem: Problem) -> list[str]:
    """The classes that no label has, sorted; no more examples are read than that takes."""
    missing = set(classes)
    for example in examples:
        if not missing:
            break
        missing.difference_update(problem.names(example.labels))
    return sorted(missing)


def _stratum(example: LabelledUtterance, problem: Problem) -> str:
    """The class of an utterance; its labels are not read where classes vary within an utterance."""
    return "" if type(problem).stratum is Problem.stratum else problem.stratum(example.labels)
