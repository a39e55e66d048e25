"""X-vectors with AM-softmax: the head's row, the loss by hand, and trials made of a whole split of embeddings."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from repbench.corpora.contract import Utterance
from repbench.downstream.contract import TaskContext
from repbench.downstream.heads import build_head, head_info
from repbench.downstream.heads.contract import HeadInfo
from repbench.downstream.heads.xvector import XVector
from repbench.downstream.problems import EMBEDDED_PAIRS
from repbench.downstream.problems.contract import LabelledUtterance
from repbench.downstream.problems.pairs import PairPrediction
from repbench.downstream.verification import Verification
from repbench.errors import DataError, PluginError, UsageError

TASK = Verification(score="xvector", max_trials=100)
CONTEXT = TaskContext(TASK, ("r0", "r1", "r2"))


def example(id: str, speaker: str) -> LabelledUtterance:
    utterance = Utterance(
        id=id, audio=Path(f"/c/{id}.wav"), sample_rate_hz=16000, num_samples=16000, speaker=speaker, samples_sha256=id
    )
    return LabelledUtterance(utterance, speaker)


def test_a_row_is_the_x_vector_and_cosines_with_the_directions_of_the_speakers() -> None:
    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(1)

    head = build_head("am_xvector", width=6, num_classes=3, hidden_units=5, pools=True, generator=generator())
    frames, counts = torch.randn(50, 6, generator=generator()), torch.tensor([20, 30])
    row = head(frames, counts)
    assert row.shape == (2, 512 + 3)
    assert head_info("am_xvector").embedding_units == 512
    embedding, cosines = row[:, :512], row[:, 512:]
    assert torch.allclose(cosines, F.cosine_similarity(embedding[:, None], head.output.weight[None], dim=2), atol=1e-6)
    # The layers below are those of `xvector`, with the same draws.
    plain = XVector(width=6, num_outputs=3, generator=generator())
    assert torch.equal(embedding, plain.embedding(frames, counts))


def test_a_head_with_an_embedding_gives_nothing_else() -> None:
    for gives, units in ((("utterances",), 3), (("utterances with an embedding",), 0)):
        with pytest.raises(PluginError, match="`embedding_units` must be above 0"):
            HeadInfo(name="odd", gives=gives, embedding_units=units)  # type: ignore[arg-type]
    with pytest.raises(PluginError, match="nothing else"):
        HeadInfo(name="odd", gives=("utterances", "utterances with an embedding"), embedding_units=4)


def test_the_loss_is_am_softmax_of_the_cosines() -> None:
    cosines = [[[0.9, 0.1, -0.2], [0.3, 0.5, 0.4]], [[0.0, 0.0, 0.0], [1.0, -1.0, 0.0]]]  # (R, U, C)
    scores = torch.cat([torch.full((2, 2, 4), 7.0), torch.tensor(cosines)], dim=2)
    speakers = ["r0", "r2"]
    targets = np.concatenate([EMBEDDED_PAIRS.targets(CONTEXT, example("u", each), 10) for each in speakers])
    found = EMBEDDED_PAIRS.losses(scores, torch.from_numpy(targets))
    expected = []
    for probe in cosines:
        losses = []
        for row, name in zip(probe, speakers, strict=True):
            right = CONTEXT.index[name]
            logits = [30 * (value - 0.4 * (place == right)) for place, value in enumerate(row)]
            losses.append(math.log(sum(math.exp(each - logits[right]) for each in logits)))
        expected.append(sum(losses) / 2)
    assert found.tolist() == pytest.approx(expected, rel=1e-5)
    assert found[0] != found[1]


@pytest.mark.slow
def test_the_head_learns_to_tell_speakers_apart_with_the_margin() -> None:
    generator = torch.Generator().manual_seed(0)
    head = build_head("am_xvector", width=6, num_classes=3, hidden_units=5, pools=True, generator=generator)
    names = ["r0", "r1", "r2"] * 4
    means = torch.randn(3, 6, generator=generator)
    frames = torch.cat([means[CONTEXT.index[n]] + torch.randn(20, 6, generator=generator) for n in names])
    counts = torch.full((12,), 20)
    targets = torch.from_numpy(np.concatenate([EMBEDDED_PAIRS.targets(CONTEXT, example("u", n), 20) for n in names]))
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3)
    losses = []
    for _ in range(40):
        (loss,) = EMBEDDED_PAIRS.losses(head(frames, counts)[None], targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 4


def test_a_split_of_embeddings_becomes_trials_scored_by_cosine() -> None:
    random = np.random.default_rng(0)
    examples = [example(f"t{s}-{u}", f"t{s}") for s in range(3) for u in range(3)]
    rows = torch.tensor(random.normal(size=(9, 4 + 3)), dtype=torch.float32)
    embedded = [
        EMBEDDED_PAIRS.predict(each, EMBEDDED_PAIRS.reference(CONTEXT, each, 1), rows[number : number + 1])
        for number, each in enumerate(examples)
    ]
    found = EMBEDDED_PAIRS.completed(CONTEXT, embedded, examples, is_test=True)
    number = {each.id: place for place, each in enumerate(examples)}
    count = 0
    for each in found:
        assert isinstance(each, PairPrediction)
        for name, score in zip(each.enrolments, each.trial_scores, strict=True):
            a, b = (rows[number[id_], :4].double() for id_ in (name, each.id))
            assert score == pytest.approx(float(F.cosine_similarity(a, b, dim=0)), rel=1e-6, abs=1e-9)
            count += 1
    assert count == 9 * 8 / 2


def test_dev_has_made_trials_also_where_a_list_has_those_of_test(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("1 t0-0 t0-1\n0 t0-0 t1-0\n", encoding="utf-8")
    task = Verification(score="xvector", trials=str(tmp_path / "t"))
    examples = [example(f"t{s}-{u}", f"t{s}") for s in range(3) for u in range(3)]
    context = TaskContext(task, ("r0", "r1"))
    embedded = [
        EMBEDDED_PAIRS.predict(each, 2, torch.randn(1, 6, generator=torch.Generator().manual_seed(n)))
        for n, each in enumerate(examples)
    ]
    counts = [
        sum(len(each.targets) for each in EMBEDDED_PAIRS.completed(context, embedded, examples, is_test=is_test))
        for is_test in (True, False)
    ]
    assert counts == [2, 36]


@pytest.mark.parametrize(("is_test", "split"), [(True, "test"), (False, "dev")])
def test_a_speaker_of_train_is_refused_in_dev_and_test(is_test: bool, split: str) -> None:
    examples = [example("a", "r1"), example("b", "r1"), example("c", "new")]
    embedded = [EMBEDDED_PAIRS.predict(each, 3, torch.ones(1, 7)) for each in examples]
    with pytest.raises(DataError, match=f"1 speakers of {split} are also in train, such as r1"):
        EMBEDDED_PAIRS.completed(CONTEXT, embedded, examples, is_test=is_test)


def test_the_classes_are_the_speakers_of_train_and_options_of_vectors_are_refused() -> None:
    assert TASK.classes({}, ["b", "a", "b"]) == ("a", "b")
    assert Verification().classes({}, ["b", "a"]) == ()
    for options in ({"centre": True}, {"pooling": "mean+std"}):
        with pytest.raises(UsageError, match="`xvector` trains its own"):
            Verification(score="xvector", **options)
    for name, value in (("scale", -1), ("margin", -0.1), ("scale", "30"), ("margin", True)):
        with pytest.raises(UsageError, match=f"`task.{name}` must be a number"):
            Verification(score="xvector", **{name: value})  # type: ignore[arg-type]
