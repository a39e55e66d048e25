"""The task `verification`: scores, what leaving a speaker out leaves, its predictions, options and refusals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from repbench.benchmark.scoring.metrics import measure_clusters
from repbench.corpora.contract import Utterance
from repbench.downstream.contract import TaskContext
from repbench.downstream.metrics.verification import RankedTrials, eer, error_rates
from repbench.downstream.problems.contract import LabelledUtterance
from repbench.downstream.problems.pairs import PAIRS, PairPrediction
from repbench.downstream.problems.training_free import FrozenFeatures, Outcome
from repbench.downstream.verification import Verification, pooled
from repbench.errors import DataError, Unlabelled, UsageError


class Frames:
    """Frames of utterances, drawn around the speakers' vectors."""

    def __init__(self, prefix: str, num_speakers: int, count: int = 6, seed: int = 0, scatter: float = 0.5) -> None:
        random = np.random.default_rng(seed)
        self.examples, self.frames = [], []
        for s in range(num_speakers):
            centre = random.normal(size=5)
            for u in range(count):
                vector = centre + scatter * random.normal(size=5)
                frames = vector + 0.1 * random.normal(size=(int(random.integers(4, 9)), 5))
                self.frames.append(torch.tensor(frames, dtype=torch.float32))
                self.examples.append(labelled(f"{prefix}{s}-{u}", f"{prefix}{s}"))

    def of(self, number: int) -> Tensor:
        return self.frames[number]

    def each(self) -> Iterator[Tensor]:
        return iter(self.frames)


def labelled(id: str, speaker: str | None, group: str | None = None) -> LabelledUtterance:
    utterance = Utterance(
        id=id,
        audio=Path(f"/c/{id}.wav"),
        sample_rate_hz=16000,
        num_samples=16000,
        speaker=speaker,
        group=group,
        samples_sha256=id,
    )
    return LabelledUtterance(utterance, speaker)


def outcome(task: Verification, test: Frames, train: Frames | None = None) -> Outcome:
    return task.outcome(
        FrozenFeatures(
            context=TaskContext(task, ()),
            train=train,
            dev=None,
            test=test,
            seed=0,
            device=torch.device("cpu"),
            memory_bytes=2**30,
        )
    )


def trials_of(predictions: Sequence[PairPrediction]) -> dict[tuple[str, str], float]:
    return {
        (name, each.id): score
        for each in predictions
        for name, score in zip(each.enrolments, each.trial_scores, strict=True)
    }


def rate(task: Verification, found: Outcome) -> float:
    measured = task.measure(found.predictions, ())["eer"].value
    assert measured is not None
    return measured


@pytest.mark.parametrize("pooling", ["mean", "mean+std"])
@pytest.mark.parametrize("centre", [False, True])
def test_cosines_are_those_of_the_vectors_of_both_sides(pooling: str, centre: bool) -> None:
    test, train = Frames("t", 4), Frames("r", 4, seed=1)
    task = Verification(pooling=pooling, centre=centre)  # type: ignore[arg-type]
    assert task.reads == (("train",) if centre else ())
    found = outcome(task, test, train if centre else None)
    number = {example.id: place for place, example in enumerate(test.examples)}

    def vector(frames: Tensor) -> np.ndarray:
        whole = frames.numpy().astype(np.float64)
        return whole.mean(0) if pooling == "mean" else np.concatenate([whole.mean(0), whole.std(0)])

    mean = np.mean([vector(each) for each in train.frames], axis=0) if centre else 0.0
    scored = trials_of(found.predictions)  # type: ignore[arg-type]
    assert len(scored) == 4 * 15 + 6 * 36
    for (enrolled, tested), score in scored.items():
        a, b = (vector(test.frames[number[each]]) - mean for each in (enrolled, tested))
        assert score == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-6, abs=1e-12)


def test_the_measures_are_those_of_all_trials_and_know_their_numbers() -> None:
    test, task = Frames("t", 6, scatter=1.5), Verification()
    found = outcome(task, test)
    measured = task.measure(found.predictions, ())
    scores = [score for each in found.predictions for score in each.trial_scores]  # type: ignore[attr-defined]
    targets = [target for each in found.predictions for target in each.targets]  # type: ignore[attr-defined]
    rates = error_rates(RankedTrials.of(scores, targets))
    assert rates is not None
    assert measured["eer"].value == pytest.approx(eer(rates), abs=1e-15)
    assert measured["eer"].counts == {"target_trials": 90, "other_trials": 540}
    assert set(measured) == {"eer", "min_dcf_p01", "min_dcf_p05", "min_cllr"} == set(task.info.metrics)
    assert 0.05 < rate(task, found) < 0.45


def test_a_speaker_who_is_left_out_is_left_out_on_both_sides() -> None:
    test, task = Frames("t", 6, scatter=1.5), Verification()
    predictions = outcome(task, test).predictions
    measured = measure_clusters(task, (), predictions)
    assert measured.unit == "speaker"
    for number, without in enumerate(measured.values.without):
        gone = f"t{number}"
        kept = [
            (score, target)
            for each in predictions
            for speaker, score, target in zip(
                each.enrolment_speakers,  # type: ignore[attr-defined]
                each.trial_scores,  # type: ignore[attr-defined]
                each.targets,  # type: ignore[attr-defined]
                strict=True,
            )
            if gone not in (each.speaker, speaker)
        ]
        assert len(kept) == 75 + 360
        rates = error_rates(RankedTrials.of(*zip(*kept, strict=True)))
        assert rates is not None
        assert without["eer"] == pytest.approx(eer(rates), abs=1e-15)
        # The slow way, from the tallies of the others, has the same values of every metric.
        tallies = [task.tally([each for each in predictions if each.speaker == f"t{n}"], ()) for n in range(6)]
        slow = task.measure_tallies([each for n, each in enumerate(tallies) if n != number], ())
        assert without == {name: each.value for name, each in slow.items()}
        # And so has the measure of what the problem leaves.
        left = task.measure(PAIRS.without(predictions, "speaker", gone), ())
        assert without == {name: each.value for name, each in left.items()}


def test_a_speaker_of_two_tallies_stays_enrolled_while_one_of_them_is_there() -> None:
    test, task = Frames("t", 3, scatter=1.5), Verification()
    predictions = outcome(task, test).predictions
    # t0 in two tallies, with t1 in one of them.
    parts = [predictions[:3], predictions[3:12], predictions[12:]]
    tallies = [task.tally(part, ()) for part in parts]
    for number, without in enumerate(task.without_each(tallies, ())):
        slow = task.measure_tallies([each for n, each in enumerate(tallies) if n != number], ())
        assert dict(without) == slow
    assert task.measure_tallies(tallies[1:], ())["eer"].counts["other_trials"] > 36


def test_plda_beats_the_cosine_where_some_dimensions_vary_within_speakers_alone() -> None:
    test, train = Frames("t", 8), Frames("r", 30, seed=1)
    random = np.random.default_rng(2)
    for split in (test, train):
        for frames in split.frames:
            frames[:, :2] += torch.tensor(random.normal(size=2) * 5, dtype=torch.float32)
    cosine, plda = Verification(centre=True), Verification(score="plda")
    assert plda.reads == ("train",)
    assert "cllr" in plda.info.metrics
    scored = outcome(plda, test, train)
    assert rate(plda, scored) < 0.25
    assert rate(cosine, outcome(cosine, test, train)) > 0.35
    measured = plda.measure(scored.predictions, ())
    # Likelihood ratios that mean what they say cost little more than the best map of them.
    assert measured["min_cllr"].value <= measured["cllr"].value < measured["min_cllr"].value + 0.3  # type: ignore[operator]


def test_enrolments_by_several_utterances_are_the_mean_of_their_directions(tmp_path: Path) -> None:
    test = Frames("t", 3)
    (tmp_path / "models").write_text("m0 t0-0 t0-1 t0-2\nm1 t1-0\n", encoding="utf-8")
    (tmp_path / "trials").write_text("m0 t0-5 target\nm0 t1-5 nontarget\nm1 t1-5 target\n", encoding="utf-8")
    task = Verification(trials=str(tmp_path / "trials"), enrolments=str(tmp_path / "models"))
    found = outcome(task, test)
    scored = trials_of(found.predictions)  # type: ignore[arg-type]
    assert found.files["enrolments.txt"].decode() == "m0 t0-0 t0-1 t0-2\nm1 t1-0\n"
    unit = [pooled(frames, "mean") / np.linalg.norm(pooled(frames, "mean")) for frames in test.frames]
    mean = (unit[0] + unit[1] + unit[2]) / 3
    assert scored["m0", "t0-5"] == pytest.approx(mean @ unit[5] / np.linalg.norm(mean), rel=1e-6)
    assert scored["m1", "t1-5"] == pytest.approx(unit[6] @ unit[11], rel=1e-6)
    plda = Verification(score="plda", trials=str(tmp_path / "trials"), enrolments=str(tmp_path / "models"))
    several = trials_of(outcome(plda, test, Frames("r", 10, seed=1)).predictions)  # type: ignore[arg-type]
    assert several["m0", "t0-5"] > several["m0", "t1-5"]


def test_the_list_of_trials_is_kept_and_gives_the_same_scores(tmp_path: Path) -> None:
    test, made = Frames("t", 4), Verification(max_trials=40)
    first = outcome(made, test)
    assert set(first.files) == {"trials.txt"}
    assert dict(first.chosen) == {"target_trials": 20, "other_trials": 20, "other_sessions": 0}
    (tmp_path / "trials.txt").write_bytes(first.files["trials.txt"])
    again = outcome(Verification(trials=str(tmp_path / "trials.txt")), test)
    assert again.predictions == first.predictions
    assert "other_sessions" not in again.chosen


def test_every_utterance_of_test_has_a_line_also_without_trials(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("1 t0-0 t0-1\n0 t0-0 t1-0\n", encoding="utf-8")
    test = Frames("t", 3)
    predictions = outcome(Verification(trials=str(tmp_path / "t")), test).predictions
    assert [each.id for each in predictions] == [example.id for example in test.examples]
    assert sum(len(each.targets) for each in predictions) == 2  # type: ignore[attr-defined, misc]
    for each in predictions:
        assert PairPrediction.of_line(each.as_line()) == each


def test_a_test_speaker_of_train_is_refused() -> None:
    with pytest.raises(DataError, match="2 speakers of test are also in train, such as t0"):
        outcome(Verification(score="plda"), Frames("t", 4), Frames("t", 2))


def test_shuffled_labels_move_targets_and_keep_the_speakers_that_intervals_resample() -> None:
    test, task = Frames("t", 5, scatter=0.2), Verification()
    honest = outcome(task, test)
    labels = np.random.default_rng(0).permutation([example.labels for example in test.examples]).tolist()
    test.examples = [replace(each, labels=label) for each, label in zip(test.examples, labels, strict=True)]
    shuffled = outcome(task, test)
    assert rate(task, honest) < 0.1
    assert rate(task, shuffled) > 0.35
    assert [each.speaker for each in shuffled.predictions] == [each.speaker for each in honest.predictions]
    by_id = {example.id: example.utterance.speaker for example in test.examples}
    for each in shuffled.predictions:
        assert [by_id[name] for name in each.enrolments] == list(each.enrolment_speakers)  # type: ignore[attr-defined]


def test_perfect_predictions_have_the_truth_of_real_ones() -> None:
    test, task = Frames("t", 4), Verification()
    found = outcome(task, test).predictions
    perfect = PAIRS.perfect_of(TaskContext(task, ()), test.examples)
    assert [each.truth() for each in perfect] == [each.truth() for each in found]
    assert "trial_scores" not in found[0].truth()
    assert task.measure(perfect, ())["eer"].value == 0.0


def test_an_utterance_without_a_speaker_is_unlabelled() -> None:
    with pytest.raises(Unlabelled, match="no speaker"):
        Verification().labels(labelled("a", None).utterance)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"score": "cosin"}, "`task.score` must be cosine or plda or xvector, but is 'cosin'"),
        ({"pooling": "max"}, "`task.pooling` must be mean or mean.std"),
        ({"centre": 1}, "`task.centre` must be true or false"),
        ({"max_trials": 1}, "`task.max_trials` must be a whole number from 2 on"),
        ({"max_trials": 10.0}, "`task.max_trials` must be a whole number from 2 on"),
        ({"trial_seed": -1}, "`task.trial_seed` must be a whole number from 0 on"),
        ({"plda_dimensions": 0}, "`task.plda_dimensions` must be a whole number from 1 on"),
        ({"trials": 3}, "`task.trials` must be the path of a file"),
        ({"enrolments": "e"}, "none is given"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, object], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        Verification(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"targets": (1,)}, "unlike numbers"),
        ({"targets": (1, True)}, "neither 0 nor 1"),
        ({"targets": (1, 2)}, "neither 0 nor 1"),
        ({"trial_scores": (0.5, float("nan"))}, "no finite number"),
        ({"trial_scores": (0.5, True)}, "no finite number"),
        ({"enrolments": ("a", 3)}, "is no text"),
        ({"enrolment_speakers": ("a", None)}, "is no text"),
    ],
)
def test_lines_that_no_run_writes_are_faults(change: dict[str, object], match: str) -> None:
    good = PairPrediction(
        id="u",
        speaker="s",
        group=None,
        enrolments=("a", "b"),
        enrolment_speakers=("s", "t"),
        targets=(1, 0),
        trial_scores=(0.5, -1),
    )
    assert list(PAIRS.faults([good], 0)) == [None]
    (fault,) = PAIRS.faults([replace(good, **change)], 0)  # type: ignore[arg-type]
    assert fault is not None
    assert match in fault
