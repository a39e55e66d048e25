"""The task `verification`: whether two utterances are of one speaker, whom training does not know."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from repbench.corpora.contract import Utterance
from repbench.downstream.contract import (
    DownstreamInfo,
    LabelledUtterance,
    LabelSets,
    MeasuredByTallies,
    Measurement,
    MetricInfo,
    Prediction,
)
from repbench.downstream.made_trials import make_trials
from repbench.downstream.metrics import verification as metrics
from repbench.downstream.plda import TwoCovariances, Whitening
from repbench.downstream.problems.contract import MOST
from repbench.downstream.problems.pairs import PairPrediction, predictions_of, refuse_known_speakers
from repbench.downstream.problems.training_free import FrozenFeatures, Outcome, SplitFrames
from repbench.downstream.problems.trial_list import Trials
from repbench.downstream.trials import read_trials
from repbench.errors import Unlabelled, UsageError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

Score = Literal["cosine", "plda", "xvector"]
Pooling = Literal["mean", "mean+std"]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MAX_TRIALS = 20_000
"""Trials that are made at most: as many as a list of VoxCeleb has within a factor of two."""

PLDA_DIMENSIONS = 150
"""Dimensions that PLDA keeps at most: a usual number for speaker embeddings."""

SCALE, MARGIN = 30.0, 0.4
"""Of AM-softmax, as SUPERB has them."""

TRIALS_FILE, ENROLMENTS_FILE = "trials.txt", "enrolments.txt"
"""The files of a record with its list of trials, and with its enrolments where these are by several utterances."""

METRICS = {
    "eer": MetricInfo(unit="fraction", higher_is_better=False, interval="logit"),
    "min_dcf_p01": MetricInfo(unit="normalised cost at a target prior of 0.01", higher_is_better=False),
    "min_dcf_p05": MetricInfo(unit="normalised cost at a target prior of 0.05", higher_is_better=False),
    "min_cllr": MetricInfo(unit="bits", higher_is_better=False),
}
"""Of any scores."""

CLLR = MetricInfo(unit="bits", higher_is_better=False, upper=None)
"""Of scores that are logarithms of likelihood ratios."""


@dataclass(frozen=True, slots=True)
class PairTally:
    """The trials whose test utterances are some speakers'.

    Attributes:
        speakers: Those of the test utterances.
        scores: (n,) of the trials.
        targets: (n,) whether both sides are of one speaker.
        enrolled: n speakers of the enrolments.
    """

    speakers: frozenset[str]
    scores: Sequence[float] | Floats
    targets: Sequence[int] | NDArray[np.bool_]
    enrolled: Sequence[str]


class PairTask(MeasuredByTallies):
    """The measures of tasks whose predictions are trials.

    The trials of several tallies are those whose two sides are both of speakers of these tallies: to leave a speaker's
    tally out leaves out every trial with this speaker, as test side or enrolled.
    """

    info: DownstreamInfo

    def tally(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> PairTally:
        """The trials of the predictions."""
        given = [cast(PairPrediction, each) for each in predictions]
        return PairTally(
            speakers=frozenset(str(each.speaker) for each in given),
            scores=[score for each in given for score in each.trial_scores],
            targets=[target for each in given for target in each.targets],
            enrolled=[speaker for each in given for speaker in each.enrolment_speakers],
        )

    def measure_tallies(self, tallies: Sequence[PairTally], classes: Sequence[str]) -> dict[str, Measurement]:
        """The declared metrics of the trials among the speakers of all tallies."""
        return self._measured(_RankedSides.of(tallies).trials)

    def without_each(self, tallies: Sequence[PairTally], classes: Sequence[str]) -> Iterator[dict[str, Measurement]]:
        """`measure_tallies` without each tally in turn; the trials are sorted once."""
        sides = _RankedSides.of(tallies)
        for number in range(len(tallies)):
            yield self._measured(sides.trials.where(sides.without(number)))

    def _measured(self, trials: metrics.RankedTrials) -> dict[str, Measurement]:
        num_targets = int(trials.targets.sum())
        counts = {"target_trials": num_targets, "other_trials": len(trials.targets) - num_targets}
        rates = metrics.error_rates(trials)
        values: dict[str, float | None] = {
            "eer": None if rates is None else metrics.eer(rates),
            "min_dcf_p01": None if rates is None else metrics.min_dcf(rates, 0.01),
            "min_dcf_p05": None if rates is None else metrics.min_dcf(rates, 0.05),
            "min_cllr": metrics.min_cllr(trials),
        }
        if "cllr" in self.info.metrics:
            values["cllr"] = metrics.cllr(trials)
        return {name: Measurement(value=values[name], counts=counts) for name in self.info.metrics}


@dataclass(frozen=True, slots=True)
class _RankedSides:
    """The trials of some tallies by falling score, with the number of the tally and of the enrolled speaker of each.

    Attributes:
        trials: n trials.
        tally_of: (n,).
        enrolled: (n,) numbers of speakers.
        speakers: Of each tally the numbers of its speakers.
        num_tallies: (speakers,) the number of tallies that have a speaker.
    """

    trials: metrics.RankedTrials
    tally_of: Integers
    enrolled: Integers
    speakers: tuple[Integers, ...]
    num_tallies: Integers

    @classmethod
    def of(cls, tallies: Sequence[PairTally]) -> _RankedSides:
        """Sort the trials whose two sides are both of speakers of the tallies."""
        number_of = {name: number for number, name in enumerate(sorted({n for each in tallies for n in each.speakers}))}
        none: list[Any] = [np.empty(0)]
        # The trials of all tallies, one after the other: (n,)
        scores = np.concatenate([*none, *(each.scores for each in tallies)])
        targets = np.concatenate([*none, *(each.targets for each in tallies)]).astype(bool)
        sizes = [len(each.scores) for each in tallies]
        tally_of = np.repeat(np.arange(len(tallies)), sizes)
        enrolled = np.array([number_of.get(name, -1) for each in tallies for name in each.enrolled], dtype=np.int64)
        order = np.argsort(-scores, kind="stable")
        order = order[enrolled[order] >= 0]  # (n,) -> those whose enrolled speaker is among these tallies'
        own = tuple(np.array([number_of[name] for name in sorted(each.speakers)], dtype=np.int64) for each in tallies)
        counts = np.bincount(np.concatenate([np.empty(0, dtype=np.int64), *own]), minlength=len(number_of))
        return cls(metrics.RankedTrials(scores[order], targets[order]), tally_of[order], enrolled[order], own, counts)

    def without(self, number: int) -> NDArray[np.bool_]:
        """(n,) whether each trial is left when a tally is left out."""
        gone = self.speakers[number][self.num_tallies[self.speakers[number]] == 1]
        kept: NDArray[np.bool_] = self.tally_of != number
        for speaker in gone.tolist():
            kept = kept & (self.enrolled != speaker)
        return kept


class Verification(PairTask):
    """Speaker verification: is a test utterance of the enrolled speaker?

    Options:
        score: `cosine` of two vectors, without training; `plda`, log-likelihood ratios of a model of the speakers of
            train (see `repbench.downstream.plda`); `xvector`, the cosine of embeddings that the head `am_xvector`
            learns from the speakers of train, with the checkpoint and the rate that are best on trials of dev.
        pooling: The vector of an utterance: the `mean` of the frames of a layer, or `mean+std`, with their standard
            deviations after it.
        centre: Whether the cosine is of vectors less the mean vector of train. PLDA always is.
        plda_dimensions: Dimensions that PLDA keeps at most.
        scale: s of the AM-softmax loss of `xvector`.
        margin: m of this loss.
        trials: A list of trials (forms: `repbench.downstream.trials`); None: they are made.
        enrolments: A file of enrolments by several utterances, for the names in `trials`.
        max_trials: Trials that are made at most.
        trial_seed: Seed of the draw of these.

    An enrolment by several utterances is the mean of their vectors, for the cosine each of length 1; PLDA counts them.
    The split is by speaker, and a test speaker who is in train is refused; so is one of dev where dev selects.

    Metrics: `eer` (primary), `min_dcf_p01`, `min_dcf_p05`, `min_cllr`, and `cllr` of likelihood ratios; definitions in
    `repbench.downstream.metrics.verification`.
    """

    def __init__(
        self,
        *,
        score: Score = "cosine",
        pooling: Pooling = "mean",
        centre: bool = False,
        plda_dimensions: int = PLDA_DIMENSIONS,
        scale: float = SCALE,
        margin: float = MARGIN,
        trials: str | None = None,
        enrolments: str | None = None,
        max_trials: int = MAX_TRIALS,
        trial_seed: int = 0,
    ) -> None:
        _refuse_other("score", score, get_args(Score))
        _refuse_other("pooling", pooling, get_args(Pooling))
        if not isinstance(centre, bool):
            raise UsageError(f"`task.centre` must be true or false, but is {centre!r}", key="task.centre")
        _refuse_count("plda_dimensions", plda_dimensions, least=1)
        _refuse_count("max_trials", max_trials, least=2)
        _refuse_count("trial_seed", trial_seed, least=0)
        _refuse_amount("scale", scale, usual=SCALE)
        _refuse_amount("margin", margin, usual=MARGIN)
        for name, path in (("trials", trials), ("enrolments", enrolments)):
            if path is not None and not isinstance(path, str):
                raise UsageError(f"`task.{name}` must be the path of a file, but is {path!r}", key=f"task.{name}")
        if enrolments is not None and trials is None:
            what = "Enrolments by several utterances are of a list of trials, and none is given"
            raise UsageError(what, key="task.enrolments", do="Give the list with --set task.trials=FILE")
        if score == "xvector" and (centre or pooling != "mean"):
            what = "`task.pooling` and `task.centre` are of vectors without training, and `xvector` trains its own"
            raise UsageError(what, key="task.score", do="Leave them out")
        self.scale, self.margin = float(scale), float(margin)
        self._score, self.pooling, self._centre = score, pooling, centre
        self._dimensions, self._most, self._trial_seed = plda_dimensions, max_trials, trial_seed
        self._list = None if trials is None else Path(trials)
        self._enrolments = None if enrolments is None else Path(enrolments)
        self._last: tuple[Sequence[LabelledUtterance], Trials] | None = None
        self._last_dev: tuple[Sequence[LabelledUtterance], Trials] | None = None
        self.reads: tuple[Literal["train", "dev"], ...] = ("train",) if score == "plda" or centre else ()
        # The mean of train needs no labels, so that a control shuffles those of test.
        self.reads_labels = score == "plda"
        self.info = DownstreamInfo(
            name="verification",
            problem="embedded-pairs" if score == "xvector" else "pairs",
            split="speaker-disjoint",
            default_head="am_xvector" if score == "xvector" else "none",
            metrics={**METRICS, "cllr": CLLR} if score == "plda" else METRICS,
            primary_metric="eer",
        )

    def labels(self, utterance: Utterance) -> str:
        """The speaker."""
        if utterance.speaker is None:
            raise Unlabelled("no speaker", utterance=utterance.id, do="Give the corpus speakers")
        return utterance.speaker

    def classes(self, label_sets: LabelSets, train: Iterable[Any]) -> tuple[str, ...]:
        """The speakers of train, where a head learns to tell them apart; else none."""
        return tuple(sorted(set(train))) if self._score == "xvector" else ()

    def trials(self, examples: Sequence[LabelledUtterance]) -> Trials:
        """The trials among the utterances of test: those of the list, or made ones.

        Raises:
            DataError: The list has a fault, or no trial can be made.
        """
        # Every layer and seed of a run has the same utterances of test.
        if self._last is None or self._last[0] != examples:
            if self._list is not None:
                found = read_trials(self._list, examples, self._enrolments)
            else:
                found = make_trials(examples, most=self._most, seed=self._trial_seed)
            self._last = examples, found
        return self._last[1]

    def trials_of_dev(self, examples: Sequence[LabelledUtterance]) -> Trials:
        """Made trials among the utterances of dev, by which checkpoints are chosen: a list has those of test."""
        # The dev of a run is scored at every point of the selection.
        if self._last_dev is None or self._last_dev[0] != examples:
            self._last_dev = examples, make_trials(examples, most=self._most, seed=self._trial_seed)
        return self._last_dev[1]

    def scored(self, trials: Trials, embeddings: Floats) -> Floats:
        """(N,) cosines of (U, E) embeddings."""
        unit = _unit_length(embeddings)
        means, _ = _enrolled(unit, trials)
        # (N, E), (N, E) -> (N,)
        cosines: Floats = np.einsum("ne,ne->n", _unit_length(means)[trials.enrolment_of], unit[trials.test_of])
        return cosines

    def outcome(self, features: FrozenFeatures) -> Outcome:
        """The scores of all trials.

        Raises:
            DataError: A speaker of test is in train; or as `trials`, or as the training of PLDA.
        """
        examples = features.test.examples
        if features.train is not None:
            refuse_known_speakers({each.utterance.speaker for each in features.train.examples}, examples, "test")
        trials = self.trials(examples)
        scores = self._scores(features, trials)
        files = {TRIALS_FILE: trials.as_list(examples)}
        if (enrolments := trials.enrolments_as_list(examples)) is not None:
            files[ENROLMENTS_FILE] = enrolments
        return Outcome(
            predictions=predictions_of(trials, examples, scores.tolist()),
            files=files,
            chosen={
                "target_trials": int(trials.targets.sum()),
                "other_trials": int((~trials.targets).sum()),
                **({} if trials.sessions is None else {"other_sessions": int(trials.sessions == "other")}),
            },
        )

    def _scores(self, features: FrozenFeatures, trials: Trials) -> Floats:
        """(N,)."""
        test = self._vectors(features.test)
        train = None if features.train is None else self._vectors(features.train)
        if self._score == "plda":
            assert train is not None
            assert features.train is not None
            speakers = [example.labels for example in features.train.examples]
            # Half as many dimensions as vectors beyond the means of speakers: else none would vary within speakers.
            free = len(speakers) - len(set(speakers))
            whitening = Whitening.fitted(train, max(1, min(self._dimensions, free // 2)))
            model = TwoCovariances.fitted(whitening(train), speakers)
            projected = model.project(whitening(test))
            means, counts = _enrolled(projected, trials)
            return model.ratios(means[trials.enrolment_of], counts[trials.enrolment_of], projected[trials.test_of])
        return self.scored(trials, test if train is None else test - train.mean(axis=0))

    def _vectors(self, split: SplitFrames) -> Floats:
        """(U, D), or (U, 2 D) with standard deviations."""
        return np.stack([pooled(frames, self.pooling) for frames in split.each()])


def _refuse_other(name: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        what = f"`task.{name}` must be {' or '.join(known)}, but is {value!r}"
        raise UsageError(what, key=f"task.{name}", do=did_you_mean(str(value), known).strip() or None)


def _refuse_count(name: str, value: object, *, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        what = f"`task.{name}` must be a whole number from {least} on, but is {value!r}"
        raise UsageError(what, key=f"task.{name}", do="Give a number such as 100")


def _refuse_amount(name: str, value: object, *, usual: float) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < MOST:
        what = f"`task.{name}` must be a number from 0 on, but is {value!r}"
        raise UsageError(what, key=f"task.{name}", do=f"Give a number such as {usual:g}")


def pooled(frames: Tensor, pooling: Pooling) -> Floats:
    """(F, D) -> (D,) the mean over frames; with `mean+std` (2 D,), standard deviations (divisor F) after it."""
    whole = frames.double().numpy()
    mean: Floats = whole.mean(axis=0)
    return mean if pooling == "mean" else np.concatenate([mean, whole.std(axis=0)])


def _enrolled(vectors: Floats, trials: Trials) -> tuple[Floats, Integers]:
    """(M, D) the mean vector of each enrolment, and (M,) the number of its utterances."""
    means = np.stack([vectors[list(each.utterances)].mean(axis=0) for each in trials.enrolments])
    return means, np.array([len(each.utterances) for each in trials.enrolments], dtype=np.int64)


def _unit_length(vectors: Floats) -> Floats:
    """(M, D) vectors of length 1; one of length 0 stays, and its cosine with any other is 0."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Floats = vectors / np.where(lengths > 0, lengths, 1.0)
    return unit


__all__ = ["MAX_TRIALS", "METRICS", "PairTally", "PairTask", "Verification", "pooled"]
