"""The task `word-discrimination`: pairs, draws, what a run writes, and what verification and intervals read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from repbench.benchmark.scoring.metrics import measure_clusters
from repbench.corpora.contract import Utterance
from repbench.corpora.open import open_corpus
from repbench.downstream.contract import FrozenFeatures, LabelledUtterance, TaskContext
from repbench.downstream.problems.word_discrimination import WORD_DISCRIMINATION, WordDistances
from repbench.downstream.word_discrimination import WordDiscrimination
from repbench.errors import DataError, Unlabelled, UsageError
from repbench.testing import tone_corpus
from repbench.testing.downstreams import DOWNSTREAM_CHECKS, DownstreamSubject
from tests.commands import repbench
from tests.downstream.test_abx_task import Frames, Times

WORDS = ("yes", "no", "stop", "go")


def a_word(number: int, **attributes: str) -> Utterance:
    return Utterance(
        id=f"u{number:02d}",
        audio=Path("a.wav"),
        sample_rate_hz=16_000,
        num_samples=8_000,
        speaker=f"s{number // 4 % 3}",
        attributes={"word": WORDS[number % 4], **attributes},
        samples_sha256="0",
    )


def features(count: int = 24, *, noise: float = 1.0, seed: int = 0) -> FrozenFeatures:
    """Utterances of 5 to 12 frames; each word has two directions, one after the other."""
    random = np.random.default_rng(0)
    task = WordDiscrimination()
    examples = [LabelledUtterance(each, task.labels(each)) for each in map(a_word, range(count))]
    sounds = torch.from_numpy(random.standard_normal((4, 2, 6))).float()
    frames = []
    for number in range(count):
        lengths = torch.from_numpy(random.integers(2, 7, 2))
        own = sounds[number % 4].repeat_interleave(lengths, dim=0)
        frames.append(own + noise * torch.from_numpy(random.standard_normal(own.shape)).float())
    return FrozenFeatures(
        context=TaskContext(task, (), Times()),
        train=None,
        dev=None,
        test=Frames(examples, frames),
        seed=seed,
        device=torch.device("cpu"),
        memory_bytes=10**8,
    )


def test_precision_is_that_of_all_pairs_of_words_and_of_speakers() -> None:
    task = WordDiscrimination()
    given = features()
    measured = task.measure(task.outcome(given).predictions, ())
    vectors = [each.mean(dim=0).numpy() for each in given.test.each()]
    scores, same, across = [], [], []
    for later, one in enumerate(vectors):
        for earlier, other in enumerate(vectors[:later]):
            scores.append(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
            same.append(later % 4 == earlier % 4)
            across.append(not same[-1] or later // 4 % 3 != earlier // 4 % 3)
    expected = average_precision_score(same, scores)
    assert measured["mean_average_precision"].value == pytest.approx(expected, abs=1e-6)
    kept = np.array(across)
    expected = average_precision_score(np.array(same)[kept], np.array(scores)[kept])
    assert measured["mean_cross_speaker_precision"].value == pytest.approx(expected, abs=1e-6)
    assert measured["average_precision"].counts == {"pairs": 276, "same_word": 60}
    assert measured["cross_speaker_precision"].counts == {"pairs": 264, "same_word": 48}


def test_words_without_noise_are_told_apart_and_noise_is_chance() -> None:
    task = WordDiscrimination()
    values = [
        task.measure(task.outcome(features(noise=noise)).predictions, ())["average_precision"].value
        for noise in (0.01, 100.0)
    ]
    chance = WORD_DISCRIMINATION.baselines(TaskContext(task, ()), (), features().test.examples)["chance"]
    assert values[0] == 1
    assert values[1] == pytest.approx(chance, abs=0.15)
    assert chance == pytest.approx(60 / 276)


def test_at_most_so_many_are_drawn_and_each_seed_draws_its_own() -> None:
    task = WordDiscrimination(max_words=10)

    def drawn(seed: int) -> list[str]:
        predictions = cast(list[WordDistances], task.outcome(features(seed=seed)).predictions)
        assert len(predictions) == 24
        return [each.id for each in predictions if each.place is not None]

    assert len(drawn(0)) == 10
    assert drawn(0) == drawn(0) != drawn(1)


def test_a_speaker_that_is_left_out_takes_its_pairs() -> None:
    task, given = WordDiscrimination(), features()
    kept = [number for number, each in enumerate(given.test.examples) if each.utterance.speaker != "s1"]
    fewer = replace(
        given, test=Frames([given.test.examples[each] for each in kept], [given.test.of(each) for each in kept])
    )
    expected = task.measure(task.outcome(fewer).predictions, ())
    without = measure_clusters(task, (), task.outcome(given).predictions).values.without[1]
    for name, measurement in expected.items():
        assert without[name] == pytest.approx(measurement.value, abs=1e-9)


def test_words_that_all_differ_are_refused() -> None:
    given = features(4)
    with pytest.raises(DataError, match="No word occurs twice among the 4 utterances that are compared"):
        WordDiscrimination().outcome(given)


def test_labels_and_options() -> None:
    assert WordDiscrimination(attribute="digit").labels(a_word(0, digit="7")) == "7"
    with pytest.raises(Unlabelled, match="no attribute digit"):
        WordDiscrimination(attribute="digit").labels(a_word(0))
    with pytest.raises(UsageError, match=r"`task\.max_words` must be a whole number of at least 2"):
        WordDiscrimination(max_words=1)
    with pytest.raises(UsageError, match=r"`task\.distance` must be angular or"):
        WordDiscrimination(distance="cosine_exp")


def test_forged_lines_are_found() -> None:
    made = WordDistances(
        id="u", speaker="s", group=None, reference="yes", place=1, aligned_distances=(0.5,), mean_distances=(0.25,)
    )
    assert WordDistances.of_line(json.loads(json.dumps(made.as_line()))) == made
    assert list(WORD_DISCRIMINATION.faults([made], 0)) == [None]
    changes: list[tuple[dict[str, Any], str]] = [
        ({"place": 2}, "1 distances where there are 2 words before"),
        ({"mean_distances": (-1.0,)}, "a distance is no number from 0 on"),
        ({"aligned_distances": (float("nan"),)}, "a distance is no number from 0 on"),
        ({"reference": 3}, "the word is 3"),
        ({"place": -1}, "the place is -1"),
    ]
    for change, fault in changes:
        assert list(WORD_DISCRIMINATION.faults([replace(made, **change)], 0)) == [fault]
    assert list(WORD_DISCRIMINATION.faults([made, made], 0)) == ["the place 1 occurs 2 times"] * 2


def test_a_run_is_verified_from_its_predictions(tmp_path: Path) -> None:
    """The tone corpus has no words: its speakers stand for them."""
    corpus = tone_corpus(tmp_path / "tones", per_session=2)
    subject = DownstreamSubject(WordDiscrimination(attribute="sentiment"), open_corpus(str(tmp_path / "tones")))
    results = {each.id: each for each in DOWNSTREAM_CHECKS.results(subject)}
    assert {id_ for id_, each in results.items() if each.status != "passed"} == {"collapse"}, results
    done = repbench(
        "run", "--upstream", "mel_no_cmvn", "--downstream", "word-discrimination", "--corpus", tmp_path / "tones",
        "--json", "--out", tmp_path / "out", "--set", "task.attribute=speaker",
        env={"REPBENCH_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.code == 0, done.err
    (record,) = done.json["results"]
    assert record["n_scored"] == len(corpus.utterances)
    assert record["metrics"]["average_precision"]["value"] > 2 * record["baselines"]["chance"]
    assert record["metrics"]["cross_speaker_precision"]["value"] is None  # no speaker is another one
    verified = repbench("verify", tmp_path / "out")
    assert (verified.code, verified.out.count(": holds (4 metrics")) == (0, 1), verified.err
