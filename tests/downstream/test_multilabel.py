"""Frames with several labels: targets, the loss without an order of speakers, segments, decisions and baselines."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from repbench.corpora.contract import Turn, Utterance
from repbench.corpora.rttm import read_rttm
from repbench.downstream.contract import LabelledUtterance, TaskContext
from repbench.downstream.diarization import Diarization
from repbench.downstream.metrics.diarization import Durations, Segment
from repbench.downstream.problems import MULTILABEL
from repbench.downstream.problems.multilabel import (
    DiarizationPrediction,
    FrameMultilabel,
    SpeakerTurns,
    filtered,
    odd_frames,
    seconds_at_once,
    segments_of,
)
from repbench.errors import DataError, Unlabelled, UsageError

TIMES = SimpleNamespace(sample_rate_hz=1000, hop_samples=100, first_center_samples=50)
"""Frames of 0.1 s, the first centred at 0.05 s."""

TURNS = (Turn(0.0, 0.4, "B"), Turn(0.3, 0.8, "A"))


def utterance(turns: tuple[Turn, ...] | None = TURNS, *, num_samples: int = 1000, id_: str = "u") -> Utterance:
    return Utterance(
        id=id_,
        audio=Path("u.wav"),
        sample_rate_hz=1000,
        num_samples=num_samples,
        speaker="A+B",
        samples_sha256="0" * 64,
        turns=turns,
    )


def labelled(turns: tuple[Turn, ...] = TURNS, *, num_samples: int = 1000, id_: str = "u") -> LabelledUtterance:
    own = utterance(turns, num_samples=num_samples, id_=id_)
    return LabelledUtterance(own, Diarization().labels(own))


def context(task: Diarization | None = None, times: Any = TIMES) -> TaskContext:
    task = task or Diarization()
    return TaskContext(task, task.classes({}, ()), times)


def predicted(scores: Sequence[Sequence[float]], problem: FrameMultilabel = MULTILABEL, **given: Any) -> Any:
    """The prediction of (F, K) scores."""
    example = labelled(**given)
    return problem.predict(example, problem.reference(context(), example, len(scores)), torch.tensor(scores))


class TestTask:
    def test_turns_are_the_labels(self) -> None:
        assert Diarization().labels(utterance()) == SpeakerTurns(TURNS, 1.0)
        assert Diarization().labels(utterance(())) == SpeakerTurns((), 1.0)

    def test_without_turns_it_is_unlabelled(self) -> None:
        with pytest.raises(Unlabelled, match="--rttm"):
            Diarization().labels(utterance(None))

    def test_more_speakers_than_tracks_are_refused_by_name(self) -> None:
        three = (*TURNS, Turn(0.8, 0.9, "C"))
        with pytest.raises(DataError, match=r"3 speakers, but the task 2.*utterance u.*task\.speakers=3"):
            Diarization().labels(utterance(three))
        assert Diarization(speakers=3).labels(utterance(three)).turns == three
        five = tuple(Turn(0.1, 0.2, name) for name in "abcde")
        with pytest.raises(DataError, match="4 are the most"):
            Diarization(speakers=4).labels(utterance(five))

    @pytest.mark.parametrize("speakers", [0, 5, True, 2.0, "2"])
    def test_other_numbers_of_speakers_are_refused(self, speakers: Any) -> None:
        with pytest.raises(UsageError, match="whole number from 1 to 4"):
            Diarization(speakers=speakers)

    def test_metrics_of_a_prediction(self) -> None:
        example = labelled()
        found = replace(
            MULTILABEL.perfect(context(), example), hypothesis=(), durations=Durations(900_000, 300_000, 90_000, 60_000)
        )
        values = {name: each.value for name, each in Diarization().measure([found], ()).items()}
        assert values["diarization_error_rate"] == 450 / 900
        assert values["missed_speech"] == 300 / 900
        assert values["false_alarm"] == 90 / 900
        assert values["confusion"] == 60 / 900
        assert values["jaccard_error_rate"] == 0.0


class TestTargets:
    def test_each_frame_has_the_speakers_at_its_centre_first_speaker_first(self) -> None:
        targets = MULTILABEL.targets(context(), labelled(), 10).reshape(10, 2)
        # B from 0 to .4, A from .3 to .8; centres at .05, .15, …
        assert targets.T.tolist() == [[1] * 4 + [0] * 6, [0] * 3 + [1] * 5 + [0] * 2]
        assert targets.dtype == np.float32

    def test_a_missing_speaker_is_silent(self) -> None:
        assert MULTILABEL.targets(context(), labelled(()), 3).tolist() == [0.0] * 6


def scores_and_targets(counts: list[int], num_tracks: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    total = sum(counts)
    scores = torch.randn(3, total, num_tracks, generator=generator, dtype=torch.float64)
    speaks = (torch.rand(total * num_tracks, generator=generator) < 0.5).double()
    return scores, speaks


def naive_loss(scores: Tensor, targets: Tensor, counts: list[int]) -> Tensor:
    """(R,) with torch's own cross-entropy and a loop over probes, utterances and assignments."""
    num_tracks = scores.shape[-1]
    speaks = targets.view(-1, num_tracks)
    losses = []
    for probe in scores:
        total = torch.zeros((), dtype=scores.dtype)
        first = 0
        for count in counts:
            own, told = probe[first : first + count], speaks[first : first + count]
            total += min(
                F.binary_cross_entropy_with_logits(own, told[:, list(order)], reduction="sum")
                for order in permutations(range(num_tracks))
            )
            first += count
        losses.append(total / (len(probe) * num_tracks))
    return torch.stack(losses)


class TestLoss:
    @pytest.mark.parametrize("num_tracks", [1, 2, 3])
    def test_it_is_the_cross_entropy_of_the_best_assignment(self, num_tracks: int) -> None:
        counts = [5, 1, 9]
        scores, targets = scores_and_targets(counts, num_tracks)
        found = MULTILABEL.losses(scores, targets, torch.tensor(counts), torch.tensor(counts) * num_tracks)
        assert torch.allclose(found, naive_loss(scores, targets, counts), atol=1e-12)

    def test_the_order_of_speakers_is_chosen_for_each_utterance(self) -> None:
        scores, targets = scores_and_targets([4, 6], 2)
        counts = torch.tensor([4, 6])
        turned = targets.view(-1, 2).clone()
        turned[:4] = turned[:4].flip(1)
        before = MULTILABEL.losses(scores, targets, counts)
        assert torch.equal(MULTILABEL.losses(scores, turned.flatten(), counts), before)
        # within an utterance the order is one: another in its second half is no better
        turned[2:4] = turned[2:4].flip(1)
        assert not torch.allclose(MULTILABEL.losses(scores, turned.flatten(), counts), before)

    def test_gradients_and_large_scores_are_finite(self) -> None:
        scores, targets = scores_and_targets([4, 6], 2)
        large = (scores * 1e4).requires_grad_()
        MULTILABEL.losses(large, targets, torch.tensor([4, 6])).sum().backward()  # type: ignore[no-untyped-call]
        assert large.grad is not None
        assert bool(torch.isfinite(large.grad).all())

    def test_the_sum_of_fine_tuning_is_the_mean_times_utterances(self) -> None:
        scores, targets = scores_and_targets([4, 6], 2)
        counts = torch.tensor([4, 6])
        total, terms = MULTILABEL.total_loss(scores[0], targets, counts, counts * 2)
        assert terms == 2
        assert torch.allclose(total, 2 * naive_loss(scores[:1], targets, [4, 6])[0])


class TestSegments:
    def test_frames_stand_for_the_time_around_their_centres(self) -> None:
        reference = MULTILABEL.reference(context(), labelled(), 10)
        assert reference.bounds.tolist() == [k * 100_000 for k in range(11)]
        assert reference.segments == ((0, 400_000, 0), (300_000, 800_000, 1))
        # centres at 0.2, 0.3, 0.4 s: the first frame begins with the utterance, the last ends with it
        late = context(times=SimpleNamespace(sample_rate_hz=1000, hop_samples=100, first_center_samples=200))
        assert MULTILABEL.reference(late, labelled(), 3).bounds.tolist() == [0, 250_000, 350_000, 1_000_000]

    def test_runs_become_segments(self) -> None:
        speaks = np.array([[1, 0], [1, 1], [0, 1], [1, 0]], dtype=bool)
        bounds = np.array([0, 10, 20, 30, 40])
        assert segments_of(speaks, bounds) == ((0, 20, 0), (10, 30, 1), (30, 40, 0))
        assert segments_of(np.zeros((4, 2), dtype=bool), bounds) == ()
        # a frame past the end of the utterance has no time
        assert segments_of(speaks, np.array([0, 10, 20, 20, 20])) == ((0, 20, 0), (10, 20, 1))

    def test_perfect_scores_in_another_order_have_no_error(self) -> None:
        speaks = MULTILABEL.targets(context(), labelled(), 10).reshape(10, 2)
        found = predicted(((speaks[:, ::-1] - 0.5) * 8).tolist())
        assert found.durations == Durations(900_000, 0, 0, 0)
        assert found.hypothesis == ((0, 400_000, 1), (300_000, 800_000, 0))

    def test_a_single_frame_and_silence(self) -> None:
        assert predicted([[3.0, -3.0]]).hypothesis == ((0, 1_000_000, 0),)
        silent = predicted([[-3.0, -3.0]] * 4, turns=())
        assert silent.durations == Durations(0, 0, 0, 0)
        assert silent.overlaps == ()


class TestDecisions:
    def test_a_threshold_is_a_probability(self) -> None:
        scores = [[math.log(p / (1 - p)), -9.0] for p in (0.35, 0.45, 0.55, 0.65)]
        for threshold, first in ((0.3, 0), (0.4, 250_000), (0.5, 500_000), (0.6, 750_000)):
            problem = MULTILABEL.decided({"threshold": threshold, "median_seconds": 0.0, "step": 3})
            times = context(times=SimpleNamespace(sample_rate_hz=1000, hop_samples=250, first_center_samples=125))
            example = labelled()
            found = problem.predict(example, problem.reference(times, example, 4), torch.tensor(scores))
            assert isinstance(found, DiarizationPrediction)
            assert found.hypothesis == ((first, 1_000_000, 0),)

    def test_the_median_of_a_window_of_time(self) -> None:
        spike = [[-2.0, 2.0]] * 3 + [[2.0, -2.0]] + [[-2.0, 2.0]] * 6
        assert predicted(spike).hypothesis == ((0, 300_000, 1), (300_000, 400_000, 0), (400_000, 1_000_000, 1))
        smooth = MULTILABEL.decided({"threshold": 0.5, "median_seconds": 0.31})
        assert predicted(spike, smooth).hypothesis == ((0, 1_000_000, 1),)

    @pytest.mark.parametrize("width", [1, 3, 5, 11])
    def test_it_is_the_median_of_scipy(self, width: int) -> None:
        from scipy.signal import medfilt

        speaks = np.random.default_rng(width).random((40, 2)) < 0.5
        expected = np.stack([medfilt(track.astype(float), width) > 0.5 for track in speaks.T], axis=1)
        assert np.array_equal(filtered(speaks, width), expected)

    def test_odd_widths(self) -> None:
        assert [odd_frames(each) for each in (0.0, 0.5, 1.0, 1.9, 2.1, 3.0, 5.5, 11.0)] == [1, 1, 1, 1, 3, 3, 5, 11]

    def test_the_first_decision_is_that_of_the_problem_itself(self) -> None:
        assert len(MULTILABEL.decisions) == 10
        first = MULTILABEL.decisions[0]
        assert (MULTILABEL.threshold, MULTILABEL.median_seconds) == (first["threshold"], first["median_seconds"])
        assert MULTILABEL.decided({"step": 3}) is MULTILABEL


class TestControlAndBaseline:
    def test_shuffled_turns_are_stretched_to_the_utterance(self) -> None:
        labels = [labelled(num_samples=1000).labels, SpeakerTurns((Turn(1.0, 2.0, "C"),), 2.0)]
        values = [value for each in labels for value in MULTILABEL.values(each)]
        first, second = (
            MULTILABEL.with_values(each, iter([value])) for each, value in zip(labels, values[::-1], strict=True)
        )
        assert first == SpeakerTurns((Turn(0.5, 1.0, "C"),), 1.0)
        assert second == SpeakerTurns((Turn(0.0, 0.8, "B"), Turn(0.6, 1.6, "A")), 2.0)
        assert MULTILABEL.is_label(first)

    def test_the_usual_number_of_speakers_all_the_time(self) -> None:
        # .3 s of one speaker, .1 of two, .4 of one, .2 of none
        assert seconds_at_once(labelled().labels) == pytest.approx({0: 0.2, 1: 0.7, 2: 0.1})
        found = MULTILABEL.baselines(context(), [labelled()], [labelled()])
        # one track all the time: paired with A, .5 s are right, .3 s confusion, .1 s missed, .2 s false alarm
        assert found == {"chance": None, "majority": pytest.approx(0.6 / 0.9)}
        assert MULTILABEL.baselines(context(), [labelled(())], [labelled()])["majority"] == 1.0
        assert MULTILABEL.baselines(context(), [], [labelled()]) == {"chance": None, "majority": None}


class TestLines:
    def test_a_prediction_is_read_from_its_line(self) -> None:
        found = MULTILABEL.made_up(context(), 3, "guess", id="u", speaker="s", group="g")
        line = json.loads(json.dumps(found.as_line()))
        again = DiarizationPrediction.of_line(line)
        assert again == found
        assert isinstance(again.durations, Durations)
        assert list(MULTILABEL.faults([again], 2)) == [None]
        assert set(found.truth()) == {"speaker", "group", "reference"}

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"hypothesis": ((0, 5, 2),)}, "speaker 2, but there are 2 tracks"),
            ({"hypothesis": ((5, 5, 0),)}, "no start, end and speaker"),
            ({"hypothesis": ((-1, 5, 0),)}, "no start, end and speaker"),
            ({"hypothesis": ((0, 5),)}, "no start, end and speaker"),
            ({"reference": ((0, 9, 0), (5, 12, 0))}, "`reference` is not sorted"),
            ({"durations": Durations(1, 1, 0, 0)}, "not those of the segments"),
            ({"overlaps": ()}, "`overlaps` are not those"),
        ],
    )
    def test_what_no_run_writes_is_a_fault(self, changes: dict[str, Any], message: str) -> None:
        found = MULTILABEL.made_up(context(), 3, "right", id="u", speaker="s", group="g")
        (fault,) = MULTILABEL.faults([replace(found, **changes)], 2)
        assert fault is not None
        assert message in fault

    def test_the_file_of_turns(self, tmp_path: Path) -> None:
        segments: tuple[Segment, ...] = ((0, 1_500_000, 1), (1_000_001, 2_000_000, 0))
        found = replace(MULTILABEL.perfect(context(), labelled()), hypothesis=segments)
        ((name, content),) = MULTILABEL.files([found]).items()
        (tmp_path / name).write_bytes(content)
        assert name == "test.rttm"
        turns = read_rttm(tmp_path / name)["u"]
        assert [(round(turn.start_s, 6), round(turn.end_s, 6), turn.speaker) for turn in turns] == [
            (0.0, 1.5, "track2"),
            (1.000001, 2.0, "track1"),
        ]
