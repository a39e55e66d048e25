"""The task `abx`: labels, options, what a run writes, and what verification and intervals read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from repbench.benchmark.scoring.metrics import measure_clusters
from repbench.corpora.contract import Phone, Utterance
from repbench.corpora.open import open_corpus
from repbench.downstream.abx import Abx
from repbench.downstream.contract import FrozenFeatures, LabelledUtterance, TaskContext, problem_of
from repbench.downstream.metrics.abx import Cell
from repbench.downstream.problems.abx import ABX, AbxPrediction
from repbench.errors import DataError, EnvironmentFault, Unlabelled, UsageError
from repbench.testing import tone_corpus
from repbench.testing.downstreams import DOWNSTREAM_CHECKS, DownstreamSubject
from tests.commands import repbench

HEAD = "#file onset offset #phone prev-phone next-phone speaker"


@dataclass
class Frames:
    """Frames of a split in memory."""

    examples: Sequence[LabelledUtterance]
    frames: Sequence[Tensor]

    def of(self, number: int) -> Tensor:
        return self.frames[number]

    def each(self) -> Iterator[Tensor]:
        return iter(self.frames)


class Times:
    """A frame every 10 ms, the first centred at 5 ms."""

    sample_rate_hz, hop_samples, first_center_samples = 16_000, 160, 80


def an_utterance(number: int, speaker: str | None, phones: tuple[Phone, ...] | None) -> Utterance:
    return Utterance(
        id=f"u{number}",
        audio=Path(f"u{number}.wav"),
        sample_rate_hz=16_000,
        num_samples=16_000,
        speaker=speaker,
        phones=phones,
        samples_sha256="0",
    )


def utterances(count: int = 12) -> list[Utterance]:
    """Utterances of three speakers, each with the phones a, b, c, a and one that is too short for a frame."""
    phones = tuple(Phone(number / 10, (number + 1) / 10, label) for number, label in enumerate("abca"))
    short = Phone(0.4001, 0.4049, "b")
    return [an_utterance(number, f"s{number % 3}", (*phones, short)) for number in range(count)]


def features(task: Abx, *, noise: float = 0.5, seed: int = 0, memory_bytes: int = 10**8) -> FrozenFeatures:
    """Frames whose direction is that of their phone, with noise."""
    random = np.random.default_rng(0)
    examples = [LabelledUtterance(each, task.labels(each)) for each in utterances()]
    own = torch.eye(3).repeat_interleave(10, dim=0)  # a, b, c, ten frames each
    frames = [
        torch.cat([own, own[:10], torch.zeros(10, 3)])
        + noise * torch.from_numpy(random.standard_normal((50, 3))).float()
        for _ in examples
    ]
    context = TaskContext(task, (), Times())
    return FrozenFeatures(
        context=context,
        train=None,
        dev=None,
        test=Frames(examples, frames),
        seed=seed,
        device=torch.device("cpu"),
        memory_bytes=memory_bytes,
    )


def rate(task: Abx, **options: Any) -> float:
    outcome = task.outcome(features(task, **options))
    value = task.measure(outcome.predictions, ())["error_rate"].value
    assert value is not None
    return value


@pytest.mark.parametrize("speaker", ["within", "across"])
@pytest.mark.parametrize("pooling", ["dtw", "mean"])
@pytest.mark.parametrize("context", ["none", "triphone"])
def test_frames_that_show_the_phone_have_no_errors_and_noise_has_half(speaker: Any, pooling: Any, context: str) -> None:
    task = Abx(speaker=speaker, pooling=pooling, context=context, distance="euclidean")
    if context == "none":
        assert rate(task, noise=0.01) == 0
        assert 0.35 < rate(task, noise=1000) < 0.65
    else:
        with pytest.raises(DataError, match="No two tokens of one class and one of another share a context"):
            rate(task)


def test_more_noise_has_more_errors_and_means_have_fewer() -> None:
    rates = [rate(Abx(), noise=noise) for noise in (0.2, 1, 3)]
    assert rates == sorted(rates)
    assert rates[0] < rates[2]
    assert rate(Abx(pooling="mean"), noise=1) < rates[1]


def test_tokens_without_a_frame_are_counted_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    task = Abx()
    predictions = task.outcome(features(task)).predictions
    assert [each.left_out for each in predictions if isinstance(each, AbxPrediction)] == [1] * 12
    assert task.measure(predictions, ())["error_rate"].counts["tokens_without_frames"] == 12
    assert "12 of 60 tokens have no frame" in caplog.text


def test_speakers_are_discriminated_within_a_phone() -> None:
    task = Abx(on="speaker")
    predictions = task.outcome(features(task)).predictions
    cells = [cell for each in predictions if isinstance(each, AbxPrediction) for cell in each.cells]
    assert {(cell.a, cell.group) for cell in cells} == {(f"s{one}", phone) for one in range(3) for phone in "abc"}
    assert 0.3 < rate(task) < 0.7  # the frames do not show the speaker
    with pytest.raises(UsageError, match=r"task\.speaker"):
        Abx(on="speaker", speaker="across")


@pytest.mark.parametrize("options", [{}, {"speaker": "across"}, {"on": "speaker"}])
def test_a_speaker_that_is_left_out_takes_the_cells_of_both_sides(options: Any) -> None:
    task = Abx(**options, max_x_across=None, max_size_group=None)
    everything = features(task, noise=1)
    predictions = task.outcome(everything).predictions
    kept = [number for number, each in enumerate(everything.test.examples) if each.utterance.speaker != "s1"]
    fewer = replace(
        everything,
        test=Frames(
            [everything.test.examples[number] for number in kept], [everything.test.of(number) for number in kept]
        ),
    )
    expected = task.measure(task.outcome(fewer).predictions, ())["error_rate"]
    measured = measure_clusters(task, (), predictions)
    assert measured.unit == "speaker"
    assert measured.values.without[1]["error_rate"] == pytest.approx(expected.value, abs=1e-12)
    left = problem_of(task).without(predictions, "speaker", "s1")
    assert task.measure(left, ())["error_rate"].counts["cells"] == expected.counts["cells"]


def test_frames_that_do_not_fit_are_refused() -> None:
    with pytest.raises(EnvironmentFault, match=r"The frames of 48 segments take \d+ bytes, which do not fit 2000"):
        rate(Abx(), memory_bytes=2000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on": "phones"}, "`task.on` must be phone or speaker, but is 'phones'"),
        ({"context": "diphone"}, "Did you mean `triphone`"),
        ({"distance": "cosin"}, "Did you mean `cosine`"),
        ({"pooling": "max"}, "`task.pooling` must be dtw or mean"),
        ({"max_size_group": 1}, "`task.max_size_group` must be a whole number of at least 2"),
        ({"max_x_across": True}, "`task.max_x_across` must be a whole number of at least 1"),
        ({"item": "none.item"}, "There is no such item file"),
    ],
)
def test_options_are_checked(options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace(".", r"\.")):
        Abx(**options)


def test_an_utterance_needs_phones_and_a_speaker() -> None:
    with pytest.raises(Unlabelled, match="no phone alignment"):
        Abx().labels(an_utterance(0, "s0", None))
    with pytest.raises(Unlabelled, match="no speaker"):
        Abx().labels(an_utterance(0, None, (Phone(0, 1, "a"),)))
    assert Abx().labels(an_utterance(0, "s0", (Phone(0, 1, "sil"),))) is None


def test_an_item_file_gives_the_tokens(tmp_path: Path) -> None:
    path = tmp_path / "a.item"
    lines = [
        f"u{number} {start / 10} {(start + 1) / 10} {phone} x y s{number % 3}"
        for number in range(12)
        for start, phone in enumerate("abca")
    ]
    path.write_text("\n".join([HEAD, *lines]), encoding="utf-8")
    task = Abx(item=str(path), context="triphone")
    outcome = task.outcome(features(task, noise=0.01))
    assert task.measure(outcome.predictions, ())["error_rate"].value == 0
    assert outcome.files["item.txt"].endswith(b"  a.item\n")
    assert task.labels(an_utterance(99, "s0", None)) is None

    path.write_text("\n".join([HEAD, *lines, "u77 0 1 a x y s1"]), encoding="utf-8")
    other = Abx(item=str(path))
    with pytest.raises(DataError, match="Line 50 names `u77`, which is no test utterance"):
        rate(other)
    with pytest.raises(DataError, match="The item file gives the speaker `s0` where the corpus has `s9`"):
        other.labels(an_utterance(0, "s9", None))


def test_shuffled_labels_move_phones_or_speakers_and_nothing_else() -> None:
    labels = Abx().labels(utterances()[0])
    assert labels is not None
    assert ABX.values(labels) == ("a", "b", "c", "a", "b")
    moved = ABX.with_values(labels, iter("ccccc"))
    assert ABX.values(moved) == tuple("ccccc")
    assert [replace(each, label="") for each in moved.tokens] == [replace(each, label="") for each in labels.tokens]
    of_speakers = Abx(on="speaker").labels(utterances()[0])
    assert of_speakers is not None
    assert ABX.values(ABX.with_values(of_speakers, iter("vwxyz"))) == tuple("vwxyz")


def test_a_prediction_is_a_line_and_forged_lines_are_found() -> None:
    made = AbxPrediction(
        id="u", speaker="s", group=None, on="phone", cells=(Cell("a", "b", "s", "", 3, 4),), left_out=0
    )
    assert AbxPrediction.of_line(json.loads(json.dumps(made.as_line()))) == made
    assert list(ABX.faults([made], 0)) == [None]
    for forged, fault in (
        (replace(made, cells=(Cell("a", "b", "s", "", 9, 4),)), "9 half errors in 4 triples"),
        (replace(made, cells=(Cell("a", "a", "s", "", 1, 4),)), "has one class"),
        (replace(made, cells=(Cell("a", "b", "s", "", 0.5, 4),)), "is none"),  # type: ignore[arg-type]
        (replace(made, left_out=-1), "`left_out` is -1"),
        (replace(made, on="word"), "`on` is 'word'"),  # type: ignore[arg-type]
    ):
        (found,) = ABX.faults([forged], 0)
        assert found is not None
        assert fault in found


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("abx") / "tones"
    tone_corpus(folder)
    return folder


def test_the_task_passes_the_conformance_suite(tones: Path) -> None:
    subject = DownstreamSubject(Abx(), open_corpus(str(tones)))
    results = {each.id: each for each in DOWNSTREAM_CHECKS.results(subject)}
    assert {id_ for id_, each in results.items() if each.status != "passed"} == {"collapse"}, results


@pytest.mark.slow
def test_a_run_is_verified_from_its_predictions(tones: Path, tmp_path: Path) -> None:
    done = repbench(
        "run", "--upstream", "mfcc", "--downstream", "abx", "--corpus", tones, "--out", tmp_path, "--json",
        "--controls", "--set", "task.speaker=across", env={"REPBENCH_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.code == 0, done.err
    given, shuffled = done.json["results"]
    assert given["metrics"]["error_rate"]["value"] < 0.3 < shuffled["metrics"]["error_rate"]["value"]
    assert given["baselines"]["chance"] == 0.5
    verified = repbench("verify", tmp_path)
    assert (verified.code, verified.out.count(": holds (1 metrics")) == (0, 2), verified.err
