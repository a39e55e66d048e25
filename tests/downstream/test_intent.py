"""Several attributes at once: their classes, the summed loss, predictions of each, and what is all right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from repbench.corpora.contract import AttributeValue, Utterance
from repbench.downstream.contract import LabelledUtterance, TaskContext
from repbench.downstream.intent import Intent
from repbench.downstream.problems import ATTRIBUTES as PROBLEM
from repbench.downstream.problems.attributes import AttributesPrediction, class_blocks
from repbench.errors import DataError, Unlabelled, UsageError
from repbench.testing import DownstreamSubject, tone_corpus
from repbench.testing.downstreams import DOWNSTREAM_CHECKS
from tests.downstream.test_attribute_tasks import labelled, with_attributes
from tests.downstream.test_tasks import utterance

SLOTS: dict[str, AttributeValue] = {"action": "bring", "object": "juice", "location": "none"}

CLASSES = ("a=1", "a=2", "a=3", "b=x", "b=y")


def spoken(attributes: Mapping[str, AttributeValue]) -> Utterance:
    return replace(utterance(), attributes=attributes)


def examples(*labels: tuple[str, ...]) -> tuple[LabelledUtterance, ...]:
    return tuple(replace(each, labels=given) for each, given in zip(labelled(*"u" * len(labels)), labels, strict=True))


def context(attributes: tuple[str, ...] = ("a", "b"), classes: tuple[str, ...] = CLASSES) -> TaskContext:
    return TaskContext(Intent(attributes=attributes), classes)


def test_labels_are_sorted_names_of_attribute_and_class() -> None:
    assert Intent().labels(spoken(SLOTS)) == ("action=bring", "location=none", "object=juice")
    with pytest.raises(Unlabelled, match=r"no attribute object .*--set task\.attributes=NAME"):
        Intent().labels(utterance(action="bring", location="none"))


def test_values_are_merged_and_left_out_as_in_tasks_of_one_attribute() -> None:
    task = Intent(classes={"object": {"juice": "drink", "tea": "drink", "none": None}})
    assert task.labels(spoken(SLOTS)) == ("action=bring", "location=none", "object=drink")
    assert task.labels(spoken(SLOTS | {"object": "none"})) is None
    with pytest.raises(DataError, match=r"`lamp` of the attribute `object` is not in `task\.classes\.object`"):
        task.labels(spoken(SLOTS | {"object": "lamp"}))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"attributes": "action"}, r"`task\.attributes` must be a list of names of attributes, but is 'action'"),
        ({"attributes": []}, "must be a list of names"),
        ({"attributes": ["a=b"]}, "must be a list of names"),
        ({"attributes": ["a", "a"]}, "names an attribute twice"),
        ({"classes": ["a"]}, "must be a mapping from attributes to rules"),
        ({"classes": {"objet": ["a"]}}, "a rule for `objet`, .* Did you mean `object`"),
        ({"classes": {"object": "a"}}, r"`task\.classes\.object` must be a list of values"),
    ],
)
def test_options_that_cannot_be_meant(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        Intent(**options)


def test_the_classes_of_an_attribute_follow_each_other_whatever_the_names() -> None:
    attributes = ("a", "a-b", "a.b", "ab", "B")
    task = Intent(attributes=attributes)
    train = [task.labels(spoken(dict.fromkeys(attributes, value))) for value in ("x", "~", "-")]
    classes = task.classes({}, train)
    blocks = class_blocks(classes)
    assert sorted(block.attribute for block in blocks) == sorted(attributes)
    for labels in train:
        assert labels is not None
        assert PROBLEM.is_label(labels)
        assert [label.partition("=")[0] for label in labels] == [block.attribute for block in blocks]


def test_fault_an_attribute_of_one_value_is_named() -> None:
    train = [("a=1", "b=x"), ("a=2", "b=x")]
    with pytest.raises(DataError, match=r"All training utterances have b=x .*Leave b out of task\.attributes"):
        Intent(attributes=["a", "b"]).classes({}, train)


@pytest.mark.parametrize("labels", [(), ("a",), ("b=x", "a=1"), ("a=1", "a=2"), "a=1", ("a=1", 2)])
def test_what_is_no_label(labels: object) -> None:
    assert not PROBLEM.is_label(labels)


def test_the_loss_is_the_sum_of_cross_entropies_within_each_attribute() -> None:
    given = examples(("a=1", "b=y"), ("a=3", "b=x"), ("a=2", "b=x"))
    scores = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))  # (R, U, C)
    targets = torch.from_numpy(np.concatenate([PROBLEM.targets(context(), each, 9) for each in given]))
    for probe, loss in enumerate(PROBLEM.losses(scores, targets)):
        expected = F.cross_entropy(scores[probe, :, :3], torch.tensor([0, 2, 1]))
        expected += F.cross_entropy(scores[probe, :, 3:], torch.tensor([1, 0, 0]))
        assert float(loss) == pytest.approx(float(expected), abs=1e-6)


def test_the_estimate_of_each_attribute_is_its_own_best_class() -> None:
    (example,) = examples(("a=1", "b=y"))
    reference = PROBLEM.reference(context(), example, 1)
    found = PROBLEM.predict(example, reference, torch.tensor([[0.0, 2.0, 2.0, -9.0, -8.0]]))
    assert (found.reference, found.estimated_classes, found.is_right) == ((0, 4), (1, 4), False)
    assert found.confused() == ((0, 1, 1), (4, 4, 1))
    assert AttributesPrediction.of_line(found.as_line()) == found


def answer(reference: tuple[int, ...], estimated: tuple[int, ...]) -> AttributesPrediction:
    return AttributesPrediction(id="u", speaker="s", group=None, reference=reference, estimated_classes=estimated)


def test_all_right_is_less_than_each_and_tallies_add_up() -> None:
    predictions = [answer((0, 3), (0, 3)), answer((1, 4), (1, 3)), answer((2, 4), (0, 4)), answer((0, 4), (0, 4))]
    task = Intent(attributes=("a", "b"))
    measured = task.measure(predictions, CLASSES)
    assert {name: each.value for name, each in measured.items()} == {
        "accuracy": 0.5, "accuracy_a": 0.75, "accuracy_b": 0.75,
    }  # fmt: skip
    assert measured["accuracy_a"].counts == {"correct": 3, "total": 4}
    parts = [task.tally(predictions[:1], CLASSES), task.tally(predictions[1:], CLASSES)]
    assert task.measure_tallies(parts, CLASSES) == measured
    assert {each.value for each in task.measure([], CLASSES).values()} == {None}


def test_the_metric_of_an_attribute_is_its_own_whatever_their_order() -> None:
    task = Intent(attributes=("b", "a"))
    measured = task.measure([answer((0, 3), (0, 4))], CLASSES)
    assert list(task.info.metrics) == ["accuracy", "accuracy_b", "accuracy_a"]
    assert (measured["accuracy_a"].value, measured["accuracy_b"].value) == (1.0, 0.0)


def test_every_promise_holds(tmp_path_factory: pytest.TempPathFactory) -> None:
    corpus = tone_corpus(tmp_path_factory.mktemp("slots") / "tones", num_speakers=3, per_session=2)
    subject = DownstreamSubject(Intent(), with_attributes(corpus, "action", "object", "location"))
    results = DOWNSTREAM_CHECKS.results(subject)
    assert {each.id: each.detail for each in results if each.status not in ("passed", "not applicable")} == {}


def test_baselines_are_of_whole_combinations() -> None:
    train = examples(("a=1", "b=y"), ("a=1", "b=y"), ("a=2", "b=x"), ("a=2", "b=x"), ("a=3", "b=y"))
    test = examples(("a=1", "b=y"), ("a=1", "b=x"), ("a=2", "b=x"))
    found = PROBLEM.baselines(context(), train, test)
    assert found == {"chance": pytest.approx(1 / 6), "majority": pytest.approx(1 / 3)}, "the first of equals"


def test_shuffled_combinations_stay_whole() -> None:
    one, two = ("a=1", "b=y"), ("a=2", "b=x")
    dealt = iter([*PROBLEM.values(two), *PROBLEM.values(one)])
    assert [PROBLEM.with_values(each, dealt) for each in (one, two)] == [two, one]
    assert PROBLEM.stratum(one) != PROBLEM.stratum(two)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (answer((0, 3), (0, 5)), "the estimate 5 is none of 5 classes"),
        (answer((0, -1), (0, 3)), "the reference -1 is none of 5 classes"),
        (answer((0, 3), (0,)), "the estimate has 1 attributes, not 2"),
        (answer((0, 3), (0, "3")), "the estimate '3' is none of 5 classes"),  # type: ignore[arg-type]
    ],
)
def test_faults_of_predictions_that_no_run_writes(wrong: AttributesPrediction, reason: str) -> None:
    assert list(PROBLEM.faults([answer((0, 3), (1, 4)), wrong], 5)) == [None, reason]
