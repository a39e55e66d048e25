"""Rules of the problems, on utterances of 60 ms: what a line holds, what is a fault, what is scored and made up."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from repbench.corpora.contract import Phone, Utterance
from repbench.downstream.problems import (
    FRAMES,
    SEQUENCES,
    TEXTS,
    UTTERANCES,
    Problem,
    contract,
    frames,
    sequences,
    texts,
    utterances,
)
from repbench.downstream.problems.contract import (
    MOST,
    LabelledUtterance,
    Prediction,
    Quality,
    TaskContext,
    is_count,
    label_names,
    made_up_class,
    refuse_unknown_fields,
)
from repbench.downstream.problems.frames import FrameClassification, FramePrediction, events_of
from repbench.downstream.problems.scoring_grid import UNLABELLED, Integers
from repbench.downstream.problems.sequences import SequencePrediction, best_path, frames_needed
from repbench.downstream.problems.utterances import UtteranceClassification, UtterancePrediction
from repbench.errors import PluginError

WHO: dict[str, Any] = {"id": "u", "speaker": "s", "group": "g"}
PHONES = (Phone(0.0, 0.02, "AA"), Phone(0.034, 0.06, "IY"))
"""Of the instants 5, 15, …, 55 ms the third is in the gap, and of the frames at 10, 30, 50 ms the second."""


@dataclass(frozen=True)
class Info:
    name: str = "toy"
    primary_metric: str = "accuracy"


@dataclass(frozen=True)
class Toy:
    """A task whose last class is silence."""

    info: Info = Info()

    def collapse(self, path: Sequence[int], classes: Sequence[str]) -> list[int]:
        return [each for each, _ in groupby(path) if each != len(classes) - 1]


@dataclass(frozen=True)
class Times:
    sample_rate_hz: int = 16_000
    hop_samples: int = 320
    first_center_samples: int = 160


CONTEXT = TaskContext(Toy(), ("AA", "IY", "sil"), Times())


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxes(Prediction):
    """A prediction with what the base class gives."""

    marker: ClassVar[str] = "boxes"

    boxes: tuple[tuple[int, ...], ...]


def example(labels: Any, num_samples: int = 960) -> LabelledUtterance:
    utterance = Utterance(
        id="u", audio=Path("/u"), sample_rate_hz=16_000, num_samples=num_samples, samples_sha256="0",
        speaker="s", group="g",
    )  # fmt: skip
    return LabelledUtterance(utterance, labels)


def of_frames(*cells: Any, edits: Any = 0, length: Any = 2) -> FramePrediction:
    return FramePrediction(**WHO, confusion=cells, edits=edits, reference_length=length)


def of_utterance(reference: Any, *scores: Any) -> UtterancePrediction:
    return UtterancePrediction(**WHO, reference=reference, scores=scores)


def of_sequence(reference: tuple[Any, ...], hypothesis: tuple[Any, ...], edits: Any = 0) -> SequencePrediction:
    return SequencePrediction(**WHO, reference=reference, hypothesis=hypothesis, edits=edits)


EACH_KIND = [
    (
        of_frames((0, 0, 5), (1, 2, 7), edits=1),
        {"confusion": [[0, 0, 5], [1, 2, 7]], "edits": 1, "reference_length": 2},
    ),
    (of_utterance(1, 0.5, 2.0), {"reference": 1, "scores": [0.5, 2.0]}),
    (of_sequence((0, 1), (1,), 1), {"reference": [0, 1], "hypothesis": [1], "edits": 1, "reference_length": 2}),
    (Boxes(**WHO, boxes=((1, 2), (), (3,))), {"boxes": [[1, 2], [], [3]]}),
]


# What is declared


def declared(problem: Problem) -> tuple[Any, ...]:
    return (
        problem.name, problem.heads, problem.prediction.marker, problem.needs, problem.pools, problem.batches,
        problem.counts_targets, problem.needs_every_class, problem.task_methods,
    )  # fmt: skip


def test_what_each_problem_declares() -> None:
    assert declared(FRAMES) == (
        "frame-classification", ("linear", "mlp1", "mlp2", "concat9", "conv", "blstm"), "confusion", "frames", False,
        "frames", False, False, ("collapse",),
    )  # fmt: skip
    assert declared(UTTERANCES) == (
        "utterance-classification",
        (
            "linear", "mlp1", "mlp2", "gru", "project_mean", "attentive_mean", "statistics_mean", "conv", "blstm",
            "xvector",
        ),
        "scores", "utterances", True, "utterances", False, True, (),
    )  # fmt: skip
    assert declared(SEQUENCES) == (
        "sequence", ("ctc", "project_ctc", "blstm_ctc"), "hypothesis", "frames with a blank", False,
        "utterances", True, False, (),
    )  # fmt: skip
    assert declared(TEXTS) == (
        "text", ("ctc", "project_ctc", "blstm_ctc"), "word_edits", "frames with a blank", False,
        "utterances", True, False, ("encoder",),
    )  # fmt: skip
    for problem in (FRAMES, UTTERANCES, SEQUENCES, TEXTS):
        assert (problem.min_classes, problem.resampled, problem.outputs(5)) == (2, ("speaker", "group"), 5)
        assert problem.splits == ("speaker-disjoint", "within-speaker")


@pytest.mark.parametrize("module", [contract, frames, sequences, texts, utterances])
def test_torch_is_imported_where_it_computes_alone(module: Any) -> None:
    assert not {"torch", "Tensor"} & vars(module).keys()


@pytest.mark.parametrize(
    ("name", "given", "named"),
    [
        ("needs", "frame", r"`needs` must be frames or .* or utterances with an embedding, but is `frame`"),
        ("batches", "utterance", r"`batches` must be frames or utterances, but is `utterance`"),
        ("splits", ("within-speaker", "none"), r"`splits` must be speaker-disjoint or within-speaker, but is `none`"),
    ],
)
def test_a_choice_that_there_is_not_is_refused_where_a_problem_declares_it(name: str, given: Any, named: str) -> None:
    with pytest.raises(PluginError, match=named):
        type("Odd", (UtteranceClassification,), {name: given})


# Lines of predictions


@pytest.mark.parametrize(("prediction", "fields"), EACH_KIND)
def test_a_prediction_is_a_line_and_comes_back_from_it(prediction: Prediction, fields: Mapping[str, Any]) -> None:
    line = json.loads(json.dumps(prediction.as_line()))
    assert line == {**WHO, **fields}
    assert type(prediction).of_line(line) == prediction


@pytest.mark.parametrize(("prediction", "fields"), EACH_KIND)
def test_a_line_has_each_field_and_no_other(prediction: Prediction, fields: Mapping[str, Any]) -> None:
    line = {**WHO, **fields}
    with pytest.raises(ValueError, match="unknown field `loss`"):
        type(prediction).of_line({**line, "loss": 1.0})
    for name in line:
        with pytest.raises(KeyError, match=name):
            type(prediction).of_line({key: value for key, value in line.items() if key != name})


def test_the_first_unknown_field_by_name_is_told() -> None:
    refuse_unknown_fields({"id": 1}, ("id", "speaker"))
    with pytest.raises(ValueError, match="unknown field `a`"):
        refuse_unknown_fields({"b": 1, "id": 1, "a": 1}, ("id",))


@pytest.mark.parametrize("cell", [[0, 0], [0, 0, 1, 1]])
def test_a_cell_of_a_line_has_three_numbers(cell: list[int]) -> None:
    line = of_frames().as_line() | {"confusion": [[0, 0, 1], cell]}
    with pytest.raises(ValueError, match="a cell of `confusion` is not a reference, an estimate and a count"):
        FramePrediction.of_line(line)


def test_the_length_in_the_line_of_a_sequence_is_that_of_its_reference() -> None:
    with pytest.raises(ValueError, match="`reference_length` is not the length of `reference`"):
        SequencePrediction.of_line(of_sequence((0, 1), ()).as_line() | {"reference_length": 3})


def test_the_truth_is_what_follows_from_the_corpus() -> None:
    whose = {"speaker": "s", "group": "g"}
    assert of_frames((1, 0, 2), (0, 0, 3), (1, 1, 4)).truth() == {
        **whose, "reference_length": 2, "instants": [(0, 3), (1, 6)],
    }  # fmt: skip
    assert of_utterance(1, 0.5, 2.0).truth() == {**whose, "reference": 1}
    assert of_sequence((0, 1), ()).truth() == {**whose, "reference": (0, 1), "reference_length": 2}
    assert Boxes(**WHO, boxes=()).truth() == whose


def test_one_class_is_right_or_wrong_and_of_equal_scores_the_first_counts() -> None:
    assert (of_utterance(1, 0.0, 2.0, 2.0).estimated, of_utterance(2, 0.0, 1.0, 2.0).estimated) == (1, 2)
    assert (of_utterance(1, 0.0, 2.0, 2.0).is_right, of_utterance(2, 0.0, 2.0, 2.0).is_right) == (True, False)
    assert (of_frames((0, 0, 1)).is_right, of_sequence((0,), (0,)).is_right) == (None, None)


def test_single_classes_alone_have_a_confusion_to_draw() -> None:
    assert of_frames((0, 0, 1), (1, 0, 2)).confused() == ((0, 0, 1), (1, 0, 2))
    assert of_utterance(0, 0.5, 2.0).confused() == ((0, 1, 1),)
    assert of_sequence((0,), (0,)).confused() is None


# Faults


@pytest.mark.parametrize(("value", "most", "holds"), [
    (0, 2, True), (2, 2, True), (3, 2, False), (-1, 2, False), (1.0, 2, False), (True, 2, False), (False, 2, False),
    ("1", 2, False), (None, 2, False),
])  # fmt: skip
def test_a_count_is_a_whole_number_from_zero_to_the_most(value: object, most: int, holds: bool) -> None:
    assert is_count(value, most) is holds


def test_the_most_of_a_count_is_the_last_whole_number_that_floats_tell_apart() -> None:
    assert MOST == 9_007_199_254_740_992
    assert is_count(MOST)
    assert not is_count(MOST + 1)


GOOD_FRAMES = of_frames((0, 2, 90), (2, 0, 0), (2, 2, MOST), edits=0, length=0)


@pytest.mark.parametrize(("odd", "fault"), [
    (of_frames((0, 1, 5), (3, 0, 1)), "the confusion of 3 with 0 is not of 3 classes"),
    (of_frames((0, 1, 5), (0, 3, 1)), "the confusion of 0 with 3 is not of 3 classes"),
    (of_frames((0, 1, 5), (-1, 0, 1)), "the confusion of -1 with 0 is not of 3 classes"),
    (of_frames((0, 1, 5), (0, -1, 1)), "the confusion of 0 with -1 is not of 3 classes"),
    (of_frames((0, 1, 5), (True, 0, 1)), "the confusion of True with 0 is not of 3 classes"),
    (of_frames((0, 1, 5), (0, 1.0, 1)), "the confusion of 0 with 1.0 is not of 3 classes"),
    (of_frames((0, 1, 5), (0, 1, -1)), "-1 instants"),
    (of_frames((0, 1, 5), (0, 1, MOST + 1)), f"{MOST + 1} instants"),
    (of_frames((0, 1, 5), (0, 1, True)), "True instants"),
    (of_frames((0, 1, 5), edits=-1), "-1 edits of 2"),
    (of_frames((0, 1, 5), length=-1), "0 edits of -1"),
    (of_frames((0, 1, 5), edits=1.0, length=True), "1.0 edits of True"),
    (of_frames((0, 1, -2), edits=-1), "-2 instants"),
])  # fmt: skip
def test_faults_of_frames_are_told_beside_predictions_that_hold(odd: FramePrediction, fault: str) -> None:
    assert list(FRAMES.faults([GOOD_FRAMES, odd, of_frames()], 3)) == [None, fault, None]
    assert list(FRAMES.faults([odd], 3)) == [fault]


def test_frames_that_hold_have_no_fault() -> None:
    assert list(FRAMES.faults([GOOD_FRAMES, of_frames()], 3)) == [None, None]
    assert list(FRAMES.faults([of_frames()], 3)) == [None]
    assert list(FRAMES.faults([], 3)) == []


def test_frames_that_hold_are_passed_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    def looked_at(prediction: FramePrediction, num_classes: int) -> str:
        return "one by one"

    monkeypatch.setattr(frames, "_fault_of_cells", looked_at)
    assert list(FRAMES.faults([GOOD_FRAMES, of_frames()], 3)) == [None, None]
    assert list(FRAMES.faults([of_frames()], 3)) == [None]
    assert list(FRAMES.faults([GOOD_FRAMES, of_frames((0, 3, 1))], 3)) == ["one by one"] * 2


@pytest.mark.parametrize(("prediction", "fault"), [
    (of_utterance(2, 0.5, 2, -3.5), None),
    (of_utterance(0, 1, 2, 3), None),
    (of_utterance(3, 0.5, 2.0, 0.0), "the reference 3 is none of 3 classes"),
    (of_utterance(-1, 0.5, 2.0, 0.0), "the reference -1 is none of 3 classes"),
    (of_utterance(True, 0.5, 2.0, 0.0), "the reference True is none of 3 classes"),
    (of_utterance(0, 0.5, 2.0), "2 scores for 3 classes"),
    (of_utterance(0, 0.5, 2.0, 0.0, 0.0), "4 scores for 3 classes"),
    (of_utterance(0, 0.5, math.nan, 0.0), "a score is not a finite number"),
    (of_utterance(0, 0.5, 2.0, math.inf), "a score is not a finite number"),
    (of_utterance(0, -math.inf, 2.0, 0.0), "a score is not a finite number"),
    (of_utterance(0, 0.5, MOST, 0.0), "a score is not a finite number"),
    (of_utterance(0, 0.5, True, 0.0), "a score is not a finite number"),
    (of_utterance(0, 0.5, "2", 0.0), "a score is not a finite number"),
])  # fmt: skip
def test_faults_of_utterances(prediction: UtterancePrediction, fault: str | None) -> None:
    assert list(UTTERANCES.faults([prediction, of_utterance(1, 0.0, 0.0, 0.0)], 3)) == [fault, None]


@pytest.mark.parametrize(("prediction", "fault"), [
    (of_sequence((0, 2), (2, 0), 2), None),
    (of_sequence((), (), 0), None),
    (of_sequence((0, 3), (0,), 1), "a class of the sequences is none of 3"),
    (of_sequence((0,), (0, 3), 1), "a class of the sequences is none of 3"),
    (of_sequence((0, -1), (0,), 1), "a class of the sequences is none of 3"),
    (of_sequence((0,), (False,), 0), "a class of the sequences is none of 3"),
    (of_sequence((0, 1), (1,), 2), "2 edits where there are 1"),
    (of_sequence((0, 1), (0, 1), None), "None edits where there are 0"),
])  # fmt: skip
def test_faults_of_sequences(prediction: SequencePrediction, fault: str | None) -> None:
    assert list(SEQUENCES.faults([prediction, of_sequence((1,), (1,))], 3)) == [fault, None]


def test_a_problem_that_knows_no_faults_tells_none() -> None:
    assert list(Problem.faults(SEQUENCES, [of_sequence((9,), ())] * 2, 3)) == [None, None]


# Labels


def test_what_labels_each_problem_takes() -> None:
    given = (PHONES, list(PHONES), ("AA", "IY"), (*PHONES, "AA"), ("AA", 1), "AA", ["AA"], (), 3)
    assert [FRAMES.is_label(each) for each in given] == [True, *[False] * 6, True, False]
    assert [UTTERANCES.is_label(each) for each in given] == [*[False] * 5, True, *[False] * 3]
    assert [SEQUENCES.is_label(each) for each in given] == [False, False, True, *[False] * 4, True, False]


def test_names_and_values_of_labels() -> None:
    assert (label_names("AA"), label_names(("IY", "AA")), label_names(PHONES)) == (
        ("AA",), ("IY", "AA"), ("AA", "IY"),
    )  # fmt: skip
    assert (FRAMES.names(PHONES), FRAMES.values(PHONES)) == (("AA", "IY"), ("AA", "IY"))


def test_other_values_keep_the_form_of_the_labels() -> None:
    values = iter("abcde")
    assert FRAMES.with_values(PHONES, values) == (Phone(0.0, 0.02, "a"), Phone(0.034, 0.06, "b"))
    assert UTTERANCES.with_values("AA", values) == "c"
    assert SEQUENCES.with_values(("AA", "AA"), values) == ("d", "e")


def test_subsets_are_stratified_by_the_one_class_of_an_utterance() -> None:
    assert (UTTERANCES.stratum("AA"), FRAMES.stratum(PHONES), SEQUENCES.stratum(("AA",))) == ("AA", "", "")


def test_scored_classes() -> None:
    index = {"AA": 0, "IY": 1}
    assert FRAMES.scored_classes(example(PHONES), index).tolist() == [0, 0, UNLABELLED, 1, 1, 1]
    assert UTTERANCES.scored_classes(example("IY"), index).tolist() == [1]
    assert SEQUENCES.scored_classes(example(("IY", "xx", "AA")), index).tolist() == [1, UNLABELLED, 0]
    none = SEQUENCES.scored_classes(example(()), index)
    assert (none.tolist(), none.dtype.name) == ([], "int64")


def test_an_utterance_is_scored_if_one_of_its_instants_is() -> None:
    none, one = (Phone(0.006, 0.014, "AA"),), (Phone(0.006, 0.014, "AA"), Phone(0.03, 0.04, "IY"))
    assert [FRAMES.is_scored(example(labels)) for labels in ((), PHONES, none, one)] == [False, True, False, True]
    assert [SEQUENCES.is_scored(example(labels)) for labels in ((), ("AA",))] == [False, True]
    assert UTTERANCES.is_scored(example("AA"))


def test_a_problem_that_scores_other_classes_is_asked_whether_it_scores_any() -> None:
    class Nothing(FrameClassification):
        def scored_classes(self, example: LabelledUtterance, index: Mapping[str, int]) -> Integers:
            return np.array([UNLABELLED])

    assert not Nothing().is_scored(example(PHONES))


# Training


def test_targets_of_frames_are_the_classes_at_their_centres() -> None:
    targets = FRAMES.targets(CONTEXT, example(PHONES), 3)
    assert targets.tolist() == [0, UNLABELLED, 1]
    assert FRAMES.num_targets(targets) == 2


def test_targets_of_utterances_and_sequences_are_their_classes() -> None:
    assert UTTERANCES.targets(CONTEXT, example("sil"), 4).tolist() == [2]
    targets = SEQUENCES.targets(CONTEXT, example(("sil", "AA", "AA")), 4)
    assert (targets.tolist(), SEQUENCES.num_targets(targets)) == ([2, 0, 0], 3)
    assert SEQUENCES.targets(CONTEXT, example(()), 4).dtype.name == "int64"


def test_frames_needed_are_one_a_class_and_a_blank_between_equal_ones() -> None:
    assert [frames_needed(labels) for labels in ((), ("a", "b"), ("a", "a", "b"), ("a", "a", "a"))] == [0, 2, 4, 5]
    assert SEQUENCES.frames_needed(("a", "a", "b")) == 4
    assert (UTTERANCES.frames_needed("a"), FRAMES.frames_needed(PHONES)) == (0, 0)


ODDS = [[0.0, math.log(3)], [0.0, 0.0], [math.log(3), 0.0]]
"""Odds of 1 to 3, 1 to 1 and 3 to 1."""


def test_the_loss_of_classes_is_the_mean_of_each_probe() -> None:
    scores = torch.tensor([ODDS, [[0.0, 0.0]] * 3])
    losses = UTTERANCES.losses(scores, torch.tensor([1, 0, 1]))
    assert losses.tolist() == pytest.approx([math.log(4 / 3 * 2 * 4) / 3, math.log(2)])


def test_the_loss_of_a_step_is_summed_over_labelled_rows() -> None:
    total, terms = FRAMES.total_loss(
        torch.tensor(ODDS), torch.tensor([1, UNLABELLED, 1]), torch.tensor([3]), torch.tensor([2])
    )
    assert [total.item(), terms] == pytest.approx([math.log(4 / 3 * 4), 2])


def test_the_loss_of_a_step_of_sequences_is_summed_over_utterances() -> None:
    # One frame each for one class: the odds of it are 1 to 1 and 3 to 1, the blank has none.
    scores = torch.tensor([[0.0, 0.0, -99.0], [math.log(3), 0.0, -99.0]])
    asked = torch.tensor([0, 1]), torch.tensor([1, 1]), torch.tensor([1, 1])
    total, terms = SEQUENCES.total_loss(scores, *asked)
    assert [total.item(), terms] == pytest.approx([math.log(2 * 4), 2])


# Predictions


def test_frames_are_predicted_at_the_labelled_instants() -> None:
    reference = FRAMES.reference(CONTEXT, example(PHONES), 4)
    assert reference.classes.tolist() == [0, 0, UNLABELLED, 1, 1, 1]
    assert reference.is_labelled.tolist() == [True, True, False, True, True, True]
    assert (reference.nearest.tolist(), reference.events) == ([0, 0, 1, 1, 2, 2], [0, 1])
    assert [each.tolist() for each in FRAMES.counted(reference)] == [[0, 0, 1, 1, 1], [0, 0, 1, 2, 2]]
    scores = torch.tensor([[0.0, 3.0, 1.0], [0.0, 1.0, 2.0], [1.0, 2.0, 0.0], [5.0, 9.0, 8.0]])
    # The frames say IY, sil and IY: the events IY | IY, where AA | IY are right.
    assert FRAMES.predict(example(PHONES), reference, scores) == of_frames((0, 1, 2), (1, 1, 2), (1, 2, 1), edits=1)


def test_the_scores_of_an_utterance_are_kept_as_they_are() -> None:
    reference = UTTERANCES.reference(CONTEXT, example("IY"), 1)
    assert (reference, [each.tolist() for each in UTTERANCES.counted(reference)]) == (1, [[1], [0]])
    predicted = UTTERANCES.predict(example("IY"), reference, torch.tensor([[0.5, -2.0, 0.25]]))
    assert predicted == of_utterance(1, 0.5, -2.0, 0.25)


def test_the_path_of_a_sequence_loses_repeats_and_then_blanks() -> None:
    scores = torch.eye(4)[[3, 0, 0, 3, 0, 2, 2, 3]]
    assert best_path(scores) == (0, 0, 2)
    reference = SEQUENCES.reference(CONTEXT, example(("AA", "sil")), 8)
    assert SEQUENCES.predict(example(("AA", "sil")), reference, scores) == of_sequence((0, 2), (0, 0, 2), 1)


def test_sequences_count_no_rows() -> None:
    with pytest.raises(NotImplementedError):
        SEQUENCES.counted((0,))


def test_the_perfect_prediction() -> None:
    assert FRAMES.perfect(CONTEXT, example(PHONES)) == of_frames((0, 0, 2), (1, 1, 3))
    assert UTTERANCES.perfect(CONTEXT, example("IY")) == of_utterance(1, 0.0, 1.0, 0.0)
    assert SEQUENCES.perfect(CONTEXT, example(("IY", "AA"))) == of_sequence((1, 0), (1, 0))


@pytest.mark.parametrize(("path", "is_labelled", "events"), [
    ([0, 1, 0, 0, 1, 0], [1, 1, 0, 0, 1, 1], [0, 1, 1, 0]),
    ([0, 1, 0, 1, 1, 0], [0, 1, 1, 1, 1, 0], [1, 0, 1]),
    ([0, 2, 0, 1], [1, 1, 1, 1], [0, 0, 1]),
    ([0, 1], [0, 0], []),
    ([], [], []),
])  # fmt: skip
def test_events_are_those_of_each_labelled_stretch(path: list[int], is_labelled: list[int], events: list[int]) -> None:
    assert events_of(CONTEXT, np.array(path, dtype=np.int64), np.array(is_labelled, dtype=bool)) == events


def test_a_fault_in_collapse_is_that_of_the_task() -> None:
    class Divides(Toy):
        def collapse(self, path: Sequence[int], classes: Sequence[str]) -> list[int]:
            return [1 // 0]

    with pytest.raises(PluginError, match=r"The plugin failed: ZeroDivisionError.*key toy"):
        FRAMES.perfect(TaskContext(Divides(), CONTEXT.classes), example(PHONES))


# What the conformance suite makes up


def made_up(problem: Problem, number: int) -> Iterator[Any]:
    qualities: tuple[Quality, ...] = ("right", "wrong", "guess")
    return (problem.made_up(CONTEXT, number, quality, **WHO) for quality in qualities)


def test_a_made_up_class_is_the_reference_the_next_one_or_drawn() -> None:
    assert [made_up_class(each, "right", 3, Random(0)) for each in range(3)] == [0, 1, 2]
    assert [made_up_class(each, "wrong", 3, Random(0)) for each in range(3)] == [1, 2, 0]
    guess = Random(0)
    assert [made_up_class(0, "guess", 3, guess) for _ in range(8)] == [1, 1, 0, 1, 2, 1, 1, 1]


def test_made_up_frames_are_twenty_runs_of_six_and_the_first_has_the_class_of_the_number() -> None:
    right, wrong, guess = made_up(FRAMES, 4)
    assert right == of_frames((0, 0, 48), (1, 1, 48), (2, 2, 24), length=9)
    assert wrong == of_frames((0, 1, 48), (1, 2, 48), (2, 0, 24), edits=2, length=9)
    assert guess == of_frames(
        (0, 0, 12), (0, 1, 14), (0, 2, 22), (1, 0, 15), (1, 1, 17), (1, 2, 16), (2, 0, 6), (2, 1, 6), (2, 2, 12),
        edits=41, length=9,
    )  # fmt: skip
    assert [next(made_up(FRAMES, number)).confusion for number in (0, 1)] == [
        ((0, 0, 36), (1, 1, 54), (2, 2, 30)), ((0, 0, 36), (1, 1, 60), (2, 2, 24)),
    ]  # fmt: skip


def test_made_up_scores_are_highest_for_one_class_by_more_than_any_draw() -> None:
    right, wrong, guess = made_up(UTTERANCES, 4)
    assert [each.reference for each in (right, wrong, guess)] == [1, 1, 1]
    assert [each.estimated for each in (right, wrong, guess)] == [1, 2, 2]
    assert right.scores == pytest.approx((-2.8461866511, -0.3124987756, -2.0692285702))
    assert wrong.scores == pytest.approx((-2.8461866511, -3.3124987756, 0.9307714298))
    assert guess.scores == pytest.approx((-3.7802127698, -3.6669913834, -0.4024703340))
    assert (right.id, right.speaker, right.group) == ("u", "s", "g")


def test_made_up_sequences_have_each_class_once_from_the_number_on() -> None:
    right, wrong, guess = made_up(SEQUENCES, 4)
    assert right == of_sequence((1, 2, 0), (1, 2, 0))
    assert wrong == of_sequence((1, 2, 0), (2, 0, 1), 2)
    assert guess == of_sequence((1, 2, 0), (2, 0, 1), 2)
    assert list(made_up(SEQUENCES, 0))[2] == of_sequence((0, 1, 2), (2, 0, 2), 2)


@pytest.mark.parametrize("problem", [FRAMES, UTTERANCES, SEQUENCES])
def test_what_is_made_up_depends_on_the_number_alone(problem: Problem) -> None:
    assert list(made_up(problem, 5)) == list(made_up(problem, 5))
    assert len({str(each.truth()) for each in made_up(problem, 5)}) == 1
    assert {str(each.truth()) for each in made_up(problem, 5)} != {str(each.truth()) for each in made_up(problem, 6)}


# Baselines


def named(*names: str) -> list[LabelledUtterance]:
    return [example(name) for name in names]


def test_chance_has_equal_odds_and_majority_the_class_of_training() -> None:
    train, test = named("IY", "IY", "AA"), named("AA", "AA", "IY", "sil", "xx")
    assert UTTERANCES.baselines(CONTEXT, train, test) == {"chance": 1 / 3, "majority": 1 / 4}
    # Of equals the first counts, and a class that training lacks is none.
    assert UTTERANCES.baselines(CONTEXT, named("IY", "AA"), test) == {"chance": 1 / 3, "majority": 2 / 4}
    assert UTTERANCES.baselines(CONTEXT, [], test) == {"chance": 1 / 3, "majority": None}
    # Five labelled instants: AA has two of them.
    assert FRAMES.baselines(CONTEXT, [example(PHONES[:1])], [example(PHONES)]) == {"chance": 1 / 3, "majority": 2 / 5}


def test_there_are_baselines_of_an_accuracy_over_classes_alone() -> None:
    none = {"chance": None, "majority": None}
    of_errors = TaskContext(Toy(Info(primary_metric="error_rate")), CONTEXT.classes)
    assert UTTERANCES.baselines(of_errors, named("AA"), named("AA")) == none
    assert UTTERANCES.baselines(TaskContext(Toy(), ()), named("AA"), named("AA")) == none


def test_the_primary_metric_of_a_confusion_is_that_of_the_task_if_it_has_one() -> None:
    class Measures(Toy):
        def primary_of(self, confusion: NDArray[np.int64]) -> float | None:
            return float(confusion[0, 0])

    measure = FRAMES.primary_of(Measures())
    assert measure is not None
    assert measure(np.array([[7, 1], [2, 3]])) == 7.0
    assert (FRAMES.primary_of(Toy()), SEQUENCES.primary_of(Measures())) == (None, None)
