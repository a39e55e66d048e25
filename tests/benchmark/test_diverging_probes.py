"""Probes that diverge: where their training ends, what is kept of them, and that the others go on."""

from __future__ import annotations

import pytest

from repbench.corpora.contract import Corpus
from repbench.downstream.phone import Phone
from repbench.errors import NonFiniteError
from repbench.testing import tone_corpus
from tests.benchmark.test_training import Class


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
