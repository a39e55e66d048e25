"""Speakers that are active in each frame: which of K tracks speak, without names, so that tracks may be permuted.

A track is a score of the head. The loss of an utterance is binary cross-entropy with that assignment of its speakers to
tracks for which it is least. A prediction holds segments in whole microseconds; those of the reference are the turns
themselves, not the frames', and each frame of the upstream stands for the time that is nearest to its centre.

Axes: R probes, N frames of all utterances in turn, F frames of one, U utterances, K tracks.

Reference:
    Fujita et al., End-to-End Neural Speaker Diarization with Permutation-Free Objectives, Interspeech 2019.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, cast

import numpy as np
from numpy.typing import NDArray

from repbench.corpora.contract import Turn
from repbench.corpora.rttm import format_rttm
from repbench.downstream.metrics.diarization import (
    MICROSECONDS,
    Durations,
    Overlap,
    Segment,
    cut,
    diarization_durations,
    jaccard_overlaps,
    joined,
    microseconds,
)
from repbench.downstream.problems.contract import (
    LabelledUtterance,
    Prediction,
    Problem,
    Quality,
    TaskContext,
    is_count,
)
from repbench.downstream.problems.scoring_grid import Integers

if TYPE_CHECKING:
    from torch import Tensor

CHUNK_FRAMES = 2000
"""Frames of a training example at most, as in SUPERB."""

THRESHOLDS = (0.5, 0.3, 0.4, 0.6, 0.7)
MEDIAN_SECONDS = (0.0, 0.11)
"""From which the decision is chosen on dev: SUPERB's ten, whose filter of 11 frames is here a time, so that it is the
same for every upstream. The first of each is used until then."""

RTTM_FILE = "test.rttm"

SPEAKERS_JOINED_BY = "+"
"""Of the speaker of a mixture, `1089+121`: each takes part in other mixtures too, and intervals leave out each of them
with all of its mixtures."""


class SpeakerTurns(NamedTuple):
    """The labels of an utterance: its turns, and its duration in seconds."""

    turns: tuple[Turn, ...]
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DiarizationPrediction(Prediction):
    """The turns that are found in one utterance, and their errors.

    Attributes:
        reference: Start and end in microseconds and number of the speaker of each turn; the first who speaks is 0.
        hypothesis: The same of what is found, with the number of the track.
        durations: `Durations` of the two, in microseconds.
        overlaps: `Overlap` of each reference speaker, in microseconds.
    """

    marker: ClassVar[str] = "durations"

    reference: tuple[Segment, ...]
    hypothesis: tuple[Segment, ...]
    durations: Durations
    overlaps: tuple[Overlap, ...]

    @classmethod
    def of_line(cls, line: Mapping[str, Any]) -> Self:
        """As the base class."""
        # `super()` without arguments fails in a class that `slots=True` makes anew.
        found = super(DiarizationPrediction, cls).of_line(line)
        return cls(
            id=found.id,
            speaker=found.speaker,
            group=found.group,
            reference=found.reference,
            hypothesis=found.hypothesis,
            durations=Durations(*found.durations),
            overlaps=tuple(Overlap(*each) for each in found.overlaps),
        )


@dataclass(frozen=True, slots=True)
class MultilabelReference:
    """The part of a prediction that does not depend on scores.

    Attributes:
        segments: The turns.
        bounds: (F + 1,) microseconds at which the time of each frame begins, and that of the last ends.
        hop_seconds: Time between two frames.
    """

    segments: tuple[Segment, ...]
    bounds: Integers
    hop_seconds: float


class FrameMultilabel(Problem):
    """Which speakers are active in each frame.

    Args:
        threshold: Probability above which a track speaks.
        median_seconds: Length of a median filter over the frames of a track; shorter than two frames it has no effect.
    """

    name = "frame-multilabel"
    heads = ("linear", "mlp1", "mlp2", "concat9", "conv", "blstm")
    prediction = DiarizationPrediction
    labels_are = "SpeakerTurns"
    needs = "frames"
    counts_targets = True
    crosses_units = True
    min_classes = 0
    chunk_frames = CHUNK_FRAMES
    decisions = tuple(
        {"threshold": threshold, "median_seconds": seconds} for seconds in MEDIAN_SECONDS for threshold in THRESHOLDS
    )

    def __init__(self, threshold: float = THRESHOLDS[0], median_seconds: float = MEDIAN_SECONDS[0]) -> None:
        self.threshold = threshold
        self.median_seconds = median_seconds

    def decided(self, chosen: Mapping[str, float]) -> FrameMultilabel:
        """The problem with the threshold and the filter of a decision."""
        return FrameMultilabel(chosen["threshold"], chosen["median_seconds"]) if "threshold" in chosen else self

    def is_label(self, labels: object) -> bool:
        """Whether labels are `SpeakerTurns`."""
        return isinstance(labels, SpeakerTurns) and all(isinstance(each, Turn) for each in labels.turns)

    def names(self, labels: Any) -> tuple[str, ...]:
        """None: speakers have no class, and the names of tracks mean nothing."""
        return ()

    def values(self, labels: Any) -> tuple[Any, ...]:
        """All turns as one value, in shares of the duration: the control with shuffled labels permutes these."""
        duration_s = labels.duration_s
        return (tuple((turn.start_s / duration_s, turn.end_s / duration_s, turn.speaker) for turn in labels.turns),)

    def with_values(self, labels: Any, values: Iterator[Any]) -> Any:
        """The turns of another utterance, stretched to the duration of this one."""
        duration_s = labels.duration_s
        turns = (Turn(start * duration_s, min(end, 1.0) * duration_s, speaker) for start, end, speaker in next(values))
        return SpeakerTurns(tuple(turns), duration_s)

    def is_scored(self, example: LabelledUtterance) -> bool:
        """Always: what is found where nobody speaks is an error."""
        return True

    def targets(self, context: TaskContext, example: LabelledUtterance, num_frames: int) -> NDArray[np.float32]:
        """(F K,) whether each speaker speaks at the centre of each frame: K numbers a frame, frame after frame."""
        times = context.times
        assert times is not None
        # Frame k is centred on first + k hop: (F,) samples -> (F,) seconds
        centres_s = (times.first_center_samples + times.hop_samples * np.arange(num_frames)) / times.sample_rate_hz
        speaks = np.zeros((num_frames, len(context.classes)), dtype=np.float32)
        numbers = speaker_numbers(example.labels.turns)
        for turn in example.labels.turns:
            speaks[(turn.start_s <= centres_s) & (centres_s < turn.end_s), numbers[turn.speaker]] = 1.0
        return speaks.ravel()  # (F, K) -> (F K,)

    def losses(
        self, scores: Tensor, targets: Tensor, counts: Tensor | None = None, num_targets: Tensor | None = None
    ) -> Tensor:
        """Binary cross-entropy a frame and track, with the least of all assignments for each utterance."""
        import torch
        from torch.nn import functional as F

        assert counts is not None
        num_tracks = scores.shape[-1]
        speaks = targets.view(-1, 1, num_tracks)  # (N K,) -> (N, 1, K speakers)
        tracks = scores[..., None]  # (R, N, K) -> (R, N, K tracks, 1)
        # log(1 + exp(x)) - x y is the cross-entropy of a score x: (R, N, K, 1) and (N, 1, K) -> (R, N, K, K)
        costs = F.softplus(tracks) - tracks * speaks
        # (R, N, K, K) -> U of (R, F, K, K) -> (R, U, K, K): sums of parts, which are the same on every run of a GPU
        of_utterances = torch.stack([part.sum(dim=1) for part in torch.split(costs, counts.tolist(), dim=1)], dim=1)
        places = range(num_tracks)
        # K! assignments, each K of (R, U) -> (K!, R, U)
        assigned = torch.stack(
            [
                torch.stack(
                    [of_utterances[..., track, speaker] for track, speaker in zip(places, order, strict=True)]
                ).sum(dim=0)
                for order in permutations(places)
            ]
        )
        # (K!, R, U) -> (R, U) -> (R,): each frame weighs the same
        return assigned.amin(dim=0).sum(dim=1) / (scores.shape[1] * num_tracks)

    def reference(self, context: TaskContext, example: LabelledUtterance, num_rows: int) -> MultilabelReference:
        """The turns, and the time of each of `num_rows` frames: up to halfway between two centres.

        The first frame begins with the utterance and the last one ends with it.
        """
        times = context.times
        assert times is not None
        end = microseconds(example.labels.duration_s)
        halfway = times.first_center_samples + times.hop_samples * (np.arange(1, num_rows) - 0.5)
        inner = np.rint(halfway * (MICROSECONDS / times.sample_rate_hz)).astype(np.int64)
        bounds = np.concatenate([[0], np.minimum(inner, end), [end]])  # (F + 1,)
        return MultilabelReference(reference_segments(example), bounds, times.hop_samples / times.sample_rate_hz)

    def predict(
        self, example: LabelledUtterance, reference: MultilabelReference, scores: Tensor
    ) -> DiarizationPrediction:
        """The tracks whose probability is above the threshold, filtered, as segments."""
        # A probability above p is a score above log(p / (1 - p)).
        speaks = scores.numpy() > math.log(self.threshold / (1 - self.threshold))  # (F, K)
        width = odd_frames(self.median_seconds / reference.hop_seconds)
        segments = segments_of(filtered(speaks, width), reference.bounds)
        return _prediction(example, reference.segments, segments)

    def perfect(self, context: TaskContext, example: LabelledUtterance) -> DiarizationPrediction:
        """The turns."""
        segments = reference_segments(example)
        return _prediction(example, segments, segments)

    def made_up(self, context: TaskContext, number: int, quality: Quality, **who: str) -> DiarizationPrediction:
        """Turns of two speakers or, with one track, of one.

        Right ones have the tracks in another order. Wrong ones give the last half of every turn to one track, which
        also speaks at the end, where nobody does. Drawn ones have other bounds and tracks.
        """
        drawn, guess = Random(number), Random(f"guess {number}")
        num_speakers = min(2, len(context.classes))
        turns: list[Segment] = []
        start = 0
        for place in range(6):
            length = drawn.randrange(MICROSECONDS, 3 * MICROSECONDS)
            turns.append((start, start + length, place % num_speakers))
            # The next speaker may begin before the end, and nobody speaks into a turn of their own.
            start += length - (drawn.randrange(MICROSECONDS // 2) if num_speakers > 1 else -1)
        reference = tuple(joined(turns))
        end = max(each[1] for each in reference)
        found: Iterable[Segment]
        if quality == "right":
            found = ((first, last, num_speakers - 1 - speaker) for first, last, speaker in reference)
        elif quality == "wrong":
            found = [((first + last) // 2, last, 0) for first, last, _ in reference]
            found = [*found, (end + 1, end + MICROSECONDS, 0)]
        else:
            found = (
                (max(first + guess.randrange(-400_000, 400_000), 0), last, guess.randrange(num_speakers))
                for first, last, _ in reference
            )
        return _prediction_of(reference, tuple(joined(found)), **who)

    def units_of(self, prediction: Prediction, unit: str) -> tuple[str, ...]:
        """The speakers of a mixture, where the corpus names them `A+B`; a group as it is."""
        name: str = getattr(prediction, unit)
        return tuple(name.split(SPEAKERS_JOINED_BY)) if unit == "speaker" else (name,)

    def faults(self, predictions: Sequence[Prediction], num_classes: int) -> Iterator[str | None]:
        """Faults: segments that are none, and errors that are not those of the segments."""
        return (_fault_of(cast(DiarizationPrediction, each), num_classes) for each in predictions)

    def files(self, predictions: Sequence[Prediction]) -> Mapping[str, bytes]:
        """What was found, as RTTM."""
        found = (
            (
                each.id,
                [Turn(start / MICROSECONDS, end / MICROSECONDS, f"track{track + 1}") for start, end, track in own],
            )
            for each in predictions
            for own in [cast(DiarizationPrediction, each).hypothesis]
        )
        return {RTTM_FILE: format_rttm(found).encode("utf-8")}

    def baselines(
        self, context: TaskContext, train: Sequence[LabelledUtterance], test: Sequence[LabelledUtterance]
    ) -> dict[str, float | None]:
        """As `majority` the number of speakers that is most frequent in training, all the time; no chance."""
        measure = getattr(context.task, "measure", None)
        if not train or measure is None:
            return {"chance": None, "majority": None}
        seconds = Counter[int]()
        for example in train:
            seconds.update(seconds_at_once(example.labels))
        # The largest time, of equals the fewest speakers.
        usual = min(seconds, key=lambda number: (-seconds[number], number))
        constant = []
        for example in test:
            end = microseconds(example.labels.duration_s)
            whole = tuple((0, end, track) for track in range(min(usual, len(context.classes))))
            constant.append(_prediction(example, reference_segments(example), whole))
        return {"chance": None, "majority": measure(constant, context.classes)[context.task.info.primary_metric].value}


MULTILABEL = FrameMultilabel()


def speaker_numbers(turns: Iterable[Turn]) -> dict[str, int]:
    """From each speaker to a number, in the order in which they first speak."""
    first: dict[str, int] = {}
    for turn in sorted(turns):
        first.setdefault(turn.speaker, len(first))
    return first


def reference_segments(example: LabelledUtterance) -> tuple[Segment, ...]:
    """The turns of an utterance in microseconds, those that are shorter than one left out."""
    labels: SpeakerTurns = example.labels
    numbers = speaker_numbers(labels.turns)
    segments = [(microseconds(turn.start_s), microseconds(turn.end_s), numbers[turn.speaker]) for turn in labels.turns]
    return tuple(joined(cut(segments, 0, microseconds(labels.duration_s))))


def seconds_at_once(labels: SpeakerTurns) -> dict[int, float]:
    """From a number of speakers to the seconds in which so many speak at once."""
    steps = Counter({0.0: 0, labels.duration_s: 0})
    for turn in labels.turns:
        steps[turn.start_s] += 1
        steps[turn.end_s] -= 1
    found: dict[int, float] = {}
    speaking = 0
    for start, end in pairwise(sorted(steps)):
        speaking += steps[start]
        found[speaking] = found.get(speaking, 0.0) + end - start
    return found


def odd_frames(frames: float) -> int:
    """The odd number that is nearest to a number of frames, 1 at least."""
    return max(1, 2 * round((frames - 1) / 2) + 1)


def filtered(speaks: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """The median of each `width` (odd) frames around each of (F, K); beyond the ends nobody speaks."""
    if width == 1:
        return speaks
    # (F, K) -> (F + width, K): the sum of a window is the difference of two running sums
    padded = np.pad(speaks.astype(np.int64), ((width // 2 + 1, width // 2), (0, 0)))
    sums = padded.cumsum(axis=0)
    return cast("NDArray[np.bool_]", 2 * (sums[width:] - sums[:-width]) > width)  # (F, K)


def segments_of(speaks: NDArray[np.bool_], bounds: Integers) -> tuple[Segment, ...]:
    """The runs of frames (F, K) in which a track speaks, by the bounds (F + 1,) of the frames."""
    # (F, K) -> (F + 2, K) -> (F + 1, K): 1 where a run begins, -1 where one has ended
    changes = np.diff(np.pad(speaks.astype(np.int8), ((1, 1), (0, 0))), axis=0)
    found = []
    for track in range(speaks.shape[1]):
        starts, ends = (bounds[np.flatnonzero(changes[:, track] == sign)].tolist() for sign in (1, -1))
        # A frame whose centre is past the end of the utterance has no time.
        found += [(start, end, track) for start, end in zip(starts, ends, strict=True) if start < end]
    return tuple(sorted(found))


def _prediction(
    example: LabelledUtterance, reference: tuple[Segment, ...], hypothesis: tuple[Segment, ...]
) -> DiarizationPrediction:
    utterance = example.utterance
    return _prediction_of(reference, hypothesis, id=utterance.id, speaker=utterance.speaker, group=utterance.group)


def _prediction_of(
    reference: tuple[Segment, ...], hypothesis: tuple[Segment, ...], **who: Any
) -> DiarizationPrediction:
    return DiarizationPrediction(
        reference=reference,
        hypothesis=hypothesis,
        durations=diarization_durations(reference, hypothesis),
        overlaps=jaccard_overlaps(reference, hypothesis),
        **who,
    )


def _fault_of(prediction: DiarizationPrediction, num_tracks: int) -> str | None:
    for name in ("reference", "hypothesis"):
        segments = getattr(prediction, name)
        for segment in segments:
            if len(segment) != 3 or not all(map(is_count, segment)) or not segment[0] < segment[1]:
                return f"{segment!r} of `{name}` is no start, end and speaker"
            if segment[2] >= num_tracks:
                return f"`{name}` has the speaker {segment[2]}, but there are {num_tracks} tracks"
        if list(segments) != joined(segments):
            return f"`{name}` is not sorted, or turns of a speaker overlap"
    if prediction.durations != diarization_durations(prediction.reference, prediction.hypothesis):
        return f"`durations` are {tuple(prediction.durations)}, which are not those of the segments"
    if prediction.overlaps != jaccard_overlaps(prediction.reference, prediction.hypothesis):
        return "`overlaps` are not those of the segments"
    return None
