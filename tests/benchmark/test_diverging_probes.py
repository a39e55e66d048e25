"""Probes that diverge: where their training ends, what is kept of them, and that the others go on."""

from __future__ import annotations

import dataclasses

import pytest

from repbench.benchmark.features.extraction import FeatureTable
from repbench.corpora.contract import Corpus
from repbench.downstream.phone import Phone
from repbench.errors import NonFiniteError
from repbench.testing import tone_corpus
from tests.benchmark.test_training import SETTINGS, Class


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Class:
    corpus: Corpus = tone_corpus(tmp_path_factory.mktemp("diverging") / "corpus")
    return Class.on(corpus, Phone())


def test_a_diverged_rate_does_not_end_the_selection_of_those_after_it(room: Class) -> None:
    ((diverged, calm),) = room.teach([room.job()], rates=(1e38, 1e-3))
    assert (diverged.selection.dev_value, diverged.selection.grid) == (None, ())
    assert [point["step"] for point in calm.selection.grid] == [20, 40, 60]


def test_a_loss_that_is_not_finite_ends_the_training_at_its_step(room: Class) -> None:
    """Before dev is scored for the first time, at step 20."""
    with pytest.raises(NonFiniteError, match=r"The probe's loss is (nan|inf) at step [2-9] "):
        room.teach([room.job()], rates=(1e38, 1e38))


def test_a_rate_whose_loss_was_not_finite_is_not_selected_although_its_dev_scores_are_finite(room: Class) -> None:
    """One frame of train overflows once the weights have grown; the frames of dev do not."""
    frames = room.train.frames.clone()
    frames[:, 100] = 1e37
    broken = dataclasses.replace(room, train=FeatureTable(frames, room.train.counts, room.train.ids))
    settings = SETTINGS.model_copy(update={"standardise": False})
    ((calm, diverged),) = broken.teach([room.job()], rates=(1e-6, 1e3), settings=settings)
    assert calm.selection.dev_value is not None
    assert len(calm.selection.grid) == 3
    assert diverged.selection.dev_value is None
    assert int(diverged.selection.chosen["step"]) < 20
    assert diverged.selection.grid == ()
