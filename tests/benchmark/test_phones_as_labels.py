"""Labels that are the phones of their utterance are not kept a second time."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from repbench.benchmark.data.dataset import PhonesAsLabels, label_splits
from repbench.benchmark.loading.tasks import build_task
from repbench.benchmark.protocol import SplitSettings
from repbench.corpora.contract import Corpus, Phone, Utterance
from repbench.downstream.contract import LabelledUtterance
from repbench.registry import registry

PHONES = (Phone(0.0, 0.2, "a"), Phone(0.2, 0.5, "b"))


def corpus() -> Corpus:
    utterances = tuple(
        Utterance(
            id=f"{number:02}", audio=Path("/u"), sample_rate_hz=8_000, num_samples=4_000, speaker=f"s{number % 5}",
            phones=PHONES, samples_sha256=f"{number:064x}",
        )
        for number in range(20)
    )  # fmt: skip
    return Corpus(
        name="made", licence="", utterances=utterances, label_sets={"phones": ("a", "b")}, resample="allowed",
        fingerprint="f" * 64,
    )  # fmt: skip


@pytest.mark.parametrize(("task", "kept"), [("phone", False), ("phone-ctc", True), ("speaker", True)])
def test_only_phones_are_read_again(task: str, kept: bool) -> None:
    built = build_task(registry().find("downstream", task).entry, {})
    splits = label_splits(corpus(), built, SplitSettings(), excludes=lambda _: None)
    assert {type(each) for each in splits.train} == {LabelledUtterance if kept else PhonesAsLabels}


def test_it_is_as_a_labelled_utterance() -> None:
    utterance = corpus().utterances[0]
    example, plain = PhonesAsLabels.of(utterance), LabelledUtterance(utterance, PHONES)
    assert (example.id, example.labels) == ("00", PHONES)
    assert example == plain
    assert plain == example
    assert repr(example) == repr(plain)
    assert pickle.loads(pickle.dumps(example)) == plain
    shuffled = replace(example, labels=PHONES[:1])
    assert type(shuffled) is LabelledUtterance
    assert shuffled.labels == PHONES[:1]
    assert example != shuffled
    with pytest.raises(AttributeError, match="'LabelledUtterance' object has no attribute 'mood'"):
        example.mood  # noqa: B018
