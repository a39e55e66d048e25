"""Pairs: whether an enrolment and a test utterance are of one speaker, without training or by trained embeddings.

The prediction of a test utterance holds the trials in which it is the test side, each with the speaker of the other
side, because an interval that leaves a speaker out leaves out the trials with this speaker on either side.

Axes: K trials of a test utterance, R probes, U utterances, E units of an embedding, C training speakers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from repbench.downstream.problems.contract import (
    MOST,
    LabelledUtterance,
    Prediction,
    Problem,
    Quality,
    Task,
    TaskContext,
    speakers_outside,
)
from repbench.downstream.problems.training_free import TrainingFreeProblem, TrainingFreeTask
from repbench.downstream.problems.trial_list import Trials
from repbench.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class PairPrediction(Prediction):
    """The scored trials of one test utterance.

    Attributes:
        enrolments: (K,) names of the enrolments.
        enrolment_speakers: (K,) their speakers.
        targets: (K,) 1 where both sides are of one speaker, else 0.
        trial_scores: (K,) the higher, the more surely they are.
    """

    marker: ClassVar[str] = "trial_scores"

    enrolments: tuple[str, ...]
    enrolment_speakers: tuple[str, ...]
    targets: tuple[int, ...]
    trial_scores: tuple[float, ...]

    def truth(self) -> dict[str, Any]:
        """All but the scores."""
        line = self.as_line()
        return {name: line[name] for name in ("speaker", "group", "enrolments", "enrolment_speakers", "targets")}

    def scored_trials(self) -> tuple[tuple[int, float], ...]:
        """(K,) pairs of target and score."""
        return tuple(zip(self.targets, self.trial_scores, strict=True))


class HasTrials(Protocol):
    """The method that a task of pairs has in addition."""

    def trials(self, examples: Sequence[LabelledUtterance]) -> Trials:
        """The trials among the utterances of test."""
        ...


class TrainsEmbeddings(HasTrials, Protocol):
    """The members that a task of trained embeddings has in addition.

    Attributes:
        scale: s of the loss.
        margin: m of the loss.
    """

    scale: float
    margin: float

    def trials_of_dev(self, examples: Sequence[LabelledUtterance]) -> Trials:
        """The trials among the utterances of dev."""
        ...

    def scored(self, trials: Trials, embeddings: NDArray[np.float64]) -> NDArray[np.float64]:
        """The score of each trial, from (U, E) embeddings."""
        ...


class _Pairs(Problem):
    """Trials of two sides, whose labels are speakers: what both kinds share."""

    prediction = PairPrediction
    labels_are = "the name of a speaker"
    splits = ("speaker-disjoint",)
    min_classes = 0
    # Groups are no unit: the two sides of a target trial are of two groups.
    resampled = ("speaker",)
    crosses_units = True

    def is_label(self, labels: object) -> bool:
        """Whether labels are one name."""
        return isinstance(labels, str) and bool(labels)

    def names(self, labels: Any) -> tuple[str, ...]:
        """None: the speakers of test are no classes that train could know."""
        return ()

    def values(self, labels: Any) -> tuple[Any, ...]:
        """The speaker."""
        return (labels,)

    def with_values(self, labels: Any, values: Iterator[Any]) -> Any:
        """The speaker of another utterance."""
        return next(values)

    def stratum(self, labels: Any) -> str:
        """The speaker."""
        return str(labels)

    def without(self, predictions: Sequence[Prediction], unit: str, name: str) -> list[PairPrediction]:
        """The trials of which neither side is of the speaker."""
        found = []
        for each in cast(Sequence[PairPrediction], predictions):
            if each.speaker == name:
                continue
            kept = [place for place, speaker in enumerate(each.enrolment_speakers) if speaker != name]
            found.append(_with_trials(each, kept))
        return found

    def among(self, predictions: Sequence[Prediction], ids: Collection[str]) -> list[PairPrediction]:
        """The trials of which both sides are among the utterances.

        An enrolment under the id of an utterance is that utterance; one under another name, by several utterances, is
        among them if all utterances of its speaker are.
        """
        every = {each.id for each in predictions}
        outside = speakers_outside(predictions, ids)
        found = []
        for each in cast(Sequence[PairPrediction], predictions):
            if each.id not in ids:
                continue
            sides = zip(each.enrolments, each.enrolment_speakers, strict=True)
            kept = [
                place
                for place, (name, speaker) in enumerate(sides)
                if (name in ids if name in every else speaker not in outside)
            ]
            found.append(_with_trials(each, kept))
        return found

    def perfect(self, context: TaskContext, example: LabelledUtterance) -> PairPrediction:
        """The utterance without trials: those of a split are made by `perfect_of`."""
        utterance = example.utterance
        return PairPrediction(
            id=utterance.id,
            speaker=utterance.speaker,
            group=utterance.group,
            enrolments=(),
            enrolment_speakers=(),
            targets=(),
            trial_scores=(),
        )

    def perfect_of(self, context: TaskContext, test: Sequence[LabelledUtterance]) -> list[PairPrediction]:
        """Score 1 for the targets and 0 for the other trials."""
        trials = cast(HasTrials, context.task).trials(test)
        return predictions_of(trials, test, [float(target) for target in trials.targets])

    def made_up(self, context: TaskContext, number: int, quality: Quality, **who: str) -> PairPrediction:
        """Four trials, with the speakers s0 to s3 enrolled; likelihood ratios of e^50 and e^-50, or drawn."""
        guess = Random(f"guess {number}")
        targets = tuple(int(f"s{other}" == who["speaker"]) for other in range(4))
        scores = tuple(
            guess.uniform(-3, 3) if quality == "guess" else 50.0 if target == (quality == "right") else -50.0
            for target in targets
        )
        return PairPrediction(
            id=who["id"],
            speaker=who["speaker"],
            group=who["group"],
            enrolments=tuple(f"e{other}" for other in range(4)),
            enrolment_speakers=tuple(f"s{other}" for other in range(4)),
            targets=targets,
            trial_scores=scores,
        )

    def faults(self, predictions: Sequence[Prediction], num_classes: int) -> Iterator[str | None]:
        """Faults: unlike numbers of trials and scores, and values of another form."""
        return (_fault_of(cast(PairPrediction, each)) for each in predictions)

    def baselines(
        self, context: TaskContext, train: Sequence[LabelledUtterance], test: Sequence[LabelledUtterance]
    ) -> dict[str, float | None]:
        """The equal error rate of scores that know nothing, 0.5, as chance; no majority."""
        return {"chance": 0.5 if context.task.info.primary_metric == "eer" else None, "majority": None}


class Pairs(_Pairs, TrainingFreeProblem):
    """Trials that are scored without a probe."""

    name = "pairs"
    task_methods = ("trials", "outcome")

    def refuse_splits(
        self,
        task: Task,
        train: Sequence[LabelledUtterance],
        dev: Sequence[LabelledUtterance],
        test: Sequence[LabelledUtterance],
    ) -> None:
        """Refuse speakers of train in test, where a task reads train."""
        if "train" in cast(TrainingFreeTask, task).reads:
            refuse_known_speakers({each.utterance.speaker for each in train}, test, "test")

    def why_not_one_vector(self, task: Task) -> str | None:
        """A task whose `pooling` has deviations over frames."""
        if getattr(task, "pooling", "mean") == "mean":
            return None
        return "with `task.pooling=mean+std` reads deviations over frames"


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded(Prediction):
    """The embedding of one utterance, from which its trials are scored when all of the split are there.

    Attributes:
        embedding: (E,).
    """

    embedding: NDArray[np.float64]


class EmbeddedPairs(_Pairs):
    """Trials that are scored by embeddings, which are trained to tell the speakers of train apart.

    A row of scores is the embedding and its cosines with a direction of each speaker of train. With the cosine c_y of
    the utterance's speaker the loss is the cross-entropy of s (c_y - m) among the s c_j of the others (AM-softmax).

    Reference:
        Wang et al., Additive margin softmax for face verification, IEEE Signal Processing Letters 25, 2018.
    """

    name = "embedded-pairs"
    heads = ("am_xvector",)
    needs = "utterances with an embedding"
    task_methods = ("trials", "trials_of_dev", "scored")

    def refuse_splits(
        self,
        task: Task,
        train: Sequence[LabelledUtterance],
        dev: Sequence[LabelledUtterance],
        test: Sequence[LabelledUtterance],
    ) -> None:
        """Refuse speakers of train in dev or test."""
        known = {each.utterance.speaker for each in train}
        refuse_known_speakers(known, dev, "dev")
        refuse_known_speakers(known, test, "test")

    def targets(self, context: TaskContext, example: LabelledUtterance, num_frames: int) -> NDArray[np.float32]:
        """(4,) the number of the speaker among C, which float32 holds exactly, C, the scale and the margin."""
        task = cast(TrainsEmbeddings, context.task)
        number = context.index[example.labels]
        return np.array([number, len(context.classes), task.scale, task.margin], dtype=np.float32)

    def losses(
        self, scores: Tensor, targets: Tensor, counts: Tensor | None = None, num_targets: Tensor | None = None
    ) -> Tensor:
        """AM-softmax."""
        from torch.nn import functional as F

        num_probes, num_utterances, _ = scores.shape
        # (4 U,) -> (U, 4) -> (U,) speakers; the other three are the same for every utterance
        rows = targets.view(num_utterances, 4)
        speakers, num_speakers, scale, margin = rows[:, 0].long(), int(rows[0, 1]), rows[0, 2], rows[0, 3]
        cosines = scores[..., -num_speakers:]  # (R, U, E + C) -> (R, U, C)
        right = F.one_hot(speakers, num_speakers)  # (U,) -> (U, C)
        logits = scale * (cosines - margin * right)
        # (R, U, C) -> (R U, C); (U,) -> (R U,)
        each = F.cross_entropy(logits.flatten(0, 1), speakers.repeat(num_probes), reduction="none")
        return each.view(num_probes, num_utterances).mean(dim=1)  # (R U,) -> (R, U) -> (R,)

    def reference(self, context: TaskContext, example: LabelledUtterance, num_rows: int) -> int:
        """C: the trials of an utterance follow from the whole split."""
        return len(context.classes)

    def predict(self, example: LabelledUtterance, reference: int, scores: Tensor) -> Embedded:
        """The embedding, of (1, E + C) scores."""
        utterance = example.utterance
        embedding = scores[0, : scores.shape[1] - reference].double().numpy()
        return Embedded(id=utterance.id, speaker=utterance.speaker, group=utterance.group, embedding=embedding)

    def completed(
        self,
        context: TaskContext,
        predictions: Sequence[Prediction],
        examples: Sequence[LabelledUtterance],
        *,
        is_test: bool,
    ) -> list[PairPrediction]:
        """The trials of the split, scored by its embeddings.

        Raises:
            DataError: A speaker of the split is in train; or as `trials`.
        """
        refuse_known_speakers(frozenset(context.classes), examples, "test" if is_test else "dev")
        task = cast(TrainsEmbeddings, context.task)
        trials = task.trials(examples) if is_test else task.trials_of_dev(examples)
        embeddings = np.stack([cast(Embedded, each).embedding for each in predictions])  # (U, E)
        return predictions_of(trials, examples, task.scored(trials, embeddings).tolist())


PAIRS = Pairs()
EMBEDDED_PAIRS = EmbeddedPairs()


def refuse_known_speakers(known: Collection[str | None], examples: Sequence[LabelledUtterance], split: str) -> None:
    """Refuse a split with speakers of train, with a DataError that names one."""
    shared = sorted({str(each.utterance.speaker) for each in examples if each.utterance.speaker in known})
    if shared:
        what = f"{len(shared)} speakers of {split} are also in train, such as {shared[0]}: they are not unknown to it"
        do = "Give the corpus splits by speaker, a dev among them, or none: the seeded ones are by speaker"
        raise DataError(what, key="split", do=do)


def predictions_of(
    trials: Trials, examples: Sequence[LabelledUtterance], scores: Sequence[float]
) -> list[PairPrediction]:
    """The scored trials by test utterance, in the order of `examples`.

    Args:
        trials: N trials.
        examples: The utterances of test, some of which may be the test side of no trial.
        scores: (N,), kept with 7 significant digits.
    """
    rows: list[list[int]] = [[] for _ in examples]
    for number, test in enumerate(trials.test_of.tolist()):
        rows[test].append(number)
    enrolled, enrolments, targets = trials.enrolments, trials.enrolment_of.tolist(), trials.targets.tolist()
    # The speakers of the corpus, also where a control has shuffled the labels: intervals resample people.
    speakers = [str(examples[each.utterances[0]].utterance.speaker) for each in enrolled]
    return [
        PairPrediction(
            id=example.id,
            speaker=example.utterance.speaker,
            group=example.utterance.group,
            enrolments=tuple(enrolled[enrolments[number]].name for number in own),
            enrolment_speakers=tuple(speakers[enrolments[number]] for number in own),
            targets=tuple(int(targets[number]) for number in own),
            trial_scores=tuple(float(f"{scores[number]:.7g}") for number in own),
        )
        for example, own in zip(examples, rows, strict=True)
    ]


def _with_trials(prediction: PairPrediction, kept: Sequence[int]) -> PairPrediction:
    """The prediction with some of its trials, by their places."""
    return dataclasses.replace(
        prediction,
        enrolments=tuple(prediction.enrolments[place] for place in kept),
        enrolment_speakers=tuple(prediction.enrolment_speakers[place] for place in kept),
        targets=tuple(prediction.targets[place] for place in kept),
        trial_scores=tuple(prediction.trial_scores[place] for place in kept),
    )


def _fault_of(prediction: PairPrediction) -> str | None:
    numbers = {
        name: len(getattr(prediction, name)) for name in ("enrolments", "enrolment_speakers", "targets", "trial_scores")
    }
    if len(set(numbers.values())) > 1:
        return f"its trials have unlike numbers of {', '.join(f'{name} ({n})' for name, n in numbers.items())}"
    names: tuple[object, ...] = (*prediction.enrolments, *prediction.enrolment_speakers)
    for name in names:
        if not isinstance(name, str):
            return f"the name {name!r} of an enrolment or its speaker is no text"
    for target in prediction.targets:
        if type(target) is not int or target not in (0, 1):
            return f"the target {target!r} is neither 0 nor 1"
    for score in prediction.trial_scores:
        # `type` keeps JSON's true out.
        if type(score) not in (int, float) or not math.isfinite(score) or abs(score) >= MOST:
            return f"the score {score!r} is no finite number"
    return None
