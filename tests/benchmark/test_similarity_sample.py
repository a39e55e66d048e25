"""The sampled instants of a comparison, their labels, and the features that are read there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from repbench.benchmark.features.extraction import ExtractionOptions
from repbench.benchmark.similarity.frames import read_frames
from repbench.benchmark.similarity.sample import (
    NUM_PARTS,
    Sample,
    draw_sample,
    parts_of,
    phones_at,
    words_of,
)
from repbench.corpora.contract import Corpus, Phone, Utterance
from repbench.downstream.problems.scoring_grid import UNLABELLED
from repbench.errors import DataError
from repbench.testing import Envelope, tone_corpus


def utterance(number: int, seconds: float = 1.0, **fields: Any) -> Utterance:
    given: dict[str, Any] = {"speaker": f"s{number % 3}", "samples_sha256": f"{number:064x}", **fields}
    return Utterance(
        id=f"u{number:02d}",
        audio=Path("/none.wav"),
        sample_rate_hz=16000,
        num_samples=round(16000 * seconds),
        **given,
    )


MANY = [utterance(number) for number in range(30)]


def drawn(sample: Sample) -> set[tuple[str, int]]:
    return {
        (each.id, int(instant))
        for each, instants in zip(sample.utterances, sample.instants, strict=True)
        for instant in instants
    }


# The instants


def test_a_small_corpus_is_sampled_whole() -> None:
    sample = draw_sample(MANY, 5000, seed=0, salt="c")
    assert len(drawn(sample)) == 30 * 100
    assert sample.owners.tolist() == np.repeat(np.arange(30), 100).tolist()


def test_a_sample_has_no_more_instants_and_is_drawn_by_name_alone() -> None:
    sample = draw_sample(MANY, 500, seed=0, salt="c")
    assert len(drawn(sample)) == 500
    assert all((np.diff(each) > 0).all() for each in sample.instants)
    backwards = draw_sample(MANY[::-1], 500, seed=0, salt="c")
    assert backwards.sha256 == sample.sha256
    assert draw_sample(MANY, 500, seed=1, salt="c").sha256 != sample.sha256
    assert draw_sample(MANY, 500, seed=0, salt="d").sha256 != sample.sha256
    assert drawn(draw_sample(MANY, 400, seed=0, salt="c")) < drawn(sample)


def test_a_large_corpus_is_not_read_whole() -> None:
    sample = draw_sample(MANY, 50, seed=0, salt="c")
    assert len(sample.utterances) == 5  # of 100 instants each, ten times as many as are sampled
    assert len(drawn(sample)) == 50


def test_utterances_are_ordered_by_speaker() -> None:
    sample = draw_sample(MANY, 5000, seed=0, salt="c")
    assert sample.clusters.unit == "speaker"
    assert sample.clusters.count == 3
    assert sample.clusters.numbers.tolist() == [0] * 10 + [1] * 10 + [2] * 10
    assert [each.speaker for each in sample.utterances] == ["s0"] * 10 + ["s1"] * 10 + ["s2"] * 10


@pytest.mark.parametrize(
    ("fields", "unit", "count"),
    [({"speaker": None, "group": "g"}, None, 1), ({"speaker": "one"}, None, 1), ({"speaker": None}, None, 1)],
)
def test_without_speakers_there_is_one_cluster(fields: dict[str, Any], unit: str | None, count: int) -> None:
    sample = draw_sample([utterance(number, **fields) for number in range(12)], 5000, seed=0, salt="c")
    assert (sample.clusters.unit, sample.clusters.count) == (unit, count)


def test_groups_stand_for_speakers_that_are_not_known() -> None:
    several = [utterance(number, speaker=None, group=f"g{number % 2}") for number in range(12)]
    assert draw_sample(several, 5000, seed=0, salt="c").clusters.unit == "group"


def test_a_corpus_without_an_instant_is_refused() -> None:
    with pytest.raises(DataError, match="long enough"):
        draw_sample([utterance(0, seconds=0.001)], 100, seed=0, salt="c")


def test_parts_are_of_whole_utterances_and_equal() -> None:
    parts = parts_of(MANY, seed=0, salt="draw 0")
    assert np.bincount(parts).tolist() == [3] * NUM_PARTS
    assert parts.tolist() != parts_of(MANY, seed=0, salt="draw 1").tolist()
    with pytest.raises(DataError, match="10 parts, but there are 9"):
        parts_of(MANY[:9], seed=0, salt="draw 0")


# Labels


def with_phones(number: int) -> Utterance:
    return utterance(number, phones=(Phone(0.0, 0.3, f"p{number % 4}"), Phone(0.5, 1.0, "sil")))


def test_phones_are_those_at_the_instants() -> None:
    sample = draw_sample([with_phones(number) for number in range(12)], 300, seed=0, salt="c")
    labels = phones_at(sample, "toy")
    assert labels.classes == ("p0", "p1", "p2", "p3", "sil")
    for row, owner in enumerate(sample.owners):
        instant = np.concatenate(sample.instants)[row]
        number = int(sample.utterances[owner].id[1:])
        expected = number % 4 if instant < 30 else 4 if instant >= 50 else UNLABELLED
        assert labels.numbers[row] == expected
    assert labels.num_labelled == int((labels.numbers != UNLABELLED).sum()) < 300


def test_shuffled_phones_keep_times_and_frequencies() -> None:
    sample = draw_sample([with_phones(number) for number in range(12)], 5000, seed=0, salt="c")
    given, shuffled = phones_at(sample, "toy"), phones_at(sample, "toy", shuffle=(0, "c"))
    assert ((given.numbers == UNLABELLED) == (shuffled.numbers == UNLABELLED)).all()
    assert (given.numbers != shuffled.numbers).mean() > 0.3
    assert shuffled.classes == given.classes
    assert phones_at(sample, "toy", shuffle=(1, "c")).numbers.tolist() != shuffled.numbers.tolist()


def test_a_corpus_without_phones_is_refused() -> None:
    with pytest.raises(DataError, match="No utterance of toy has timed phones"):
        phones_at(draw_sample(MANY, 100, seed=0, salt="c"), "toy")


def test_words_are_those_of_attributes() -> None:
    words = ["no", "yes", "_silence_", "yes"]
    several = [utterance(number, attributes={"word": word}) for number, word in enumerate(words)]
    labels = words_of(draw_sample([*several, utterance(4)], 1000, seed=0, salt="c"), "toy")
    assert labels.classes == ("no", "yes")
    # By speaker: u00 and u03, u01 and u04, u02.
    assert labels.numbers.tolist() == [0, 1, 1, UNLABELLED, UNLABELLED]
    assert labels.num_labelled == 3


def test_shuffled_words_keep_their_frequencies() -> None:
    several = [utterance(number, attributes={"digit": number % 5}) for number in range(30)]
    sample = draw_sample(several, 5000, seed=0, salt="c")
    given, shuffled = words_of(sample, "toy"), words_of(sample, "toy", shuffle=(0, "c"))
    assert np.bincount(given.numbers).tolist() == np.bincount(shuffled.numbers).tolist() == [6] * 5
    assert given.numbers.tolist() != shuffled.numbers.tolist()


def test_a_corpus_without_words_is_refused() -> None:
    with pytest.raises(DataError, match=r"attribute word, keyword, command or digit.*have no times"):
        words_of(draw_sample(MANY, 100, seed=0, salt="c"), "toy")


# Features


def options() -> ExtractionOptions:
    return ExtractionOptions(batch_seconds=5.0, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return tone_corpus(tmp_path_factory.mktemp("sampled") / "tones", num_speakers=3, sessions=1)


@pytest.mark.parametrize(("hop_samples", "frame_of"), [(320, lambda j: j // 2), (160, lambda j: j)])
@pytest.mark.parametrize("chunk_bytes", [2**28, 1])
def test_frames_are_those_nearest_to_the_instants(
    tones: Corpus,
    hop_samples: int,
    frame_of: Callable[[NDArray[np.int64]], NDArray[np.int64]],
    chunk_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("repbench.benchmark.similarity.frames.CHUNK_BYTES", chunk_bytes)
    upstream = Envelope(hop_samples=hop_samples).eval()
    sample = draw_sample(tones.utterances, 300, seed=0, salt="c")
    advanced: list[tuple[int, int]] = []
    found = read_frames(
        upstream, sample, (0, 1), options(), store=None, progress=lambda done, total: advanced.append((done, total))
    )
    assert advanced[-1] == (len(sample.utterances),) * 2
    for number, each in enumerate(sample.utterances):
        sound = torch.from_numpy(read_sound(each))
        alone = upstream(sound[None], torch.tensor([len(sound)]))
        for layer in (0, 1):
            frames = alone.layers[layer, 0]
            nearest = np.minimum(frame_of(sample.instants[number]), len(frames) - 1)
            rows = found.of_frames(layer)[sample.owners == number]
            np.testing.assert_allclose(rows, frames[nearest].detach(), atol=1e-5)
            mean = frames.mean(dim=0).detach()
            np.testing.assert_allclose(found.of_utterances(layer)[number], mean, atol=1e-5)


def test_only_the_layers_that_are_named_are_read(tones: Corpus) -> None:
    sample = draw_sample(tones.utterances, 100, seed=0, salt="c")
    both = read_frames(Envelope().eval(), sample, (0, 1), options(), store=None)
    second = read_frames(Envelope().eval(), sample, (1,), options(), store=None)
    assert second.frames.shape == (1, 100, 4)
    np.testing.assert_array_equal(second.of_frames(0), both.of_frames(1))


def read_sound(utterance: Utterance) -> NDArray[np.float32]:
    samples, _ = soundfile.read(utterance.audio, dtype="float32")
    return np.asarray(samples, dtype=np.float32)
