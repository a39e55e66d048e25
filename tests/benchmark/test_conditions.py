"""Runs under conditions: one training, a record for each condition, and features of test alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from repbench.audio.disturbances.condition import parse_condition
from repbench.benchmark.features.shards import store_folder
from repbench.benchmark.leaderboard.board import Leaderboard
from repbench.benchmark.leaderboard.settings import write_head
from repbench.benchmark.pipeline.existing_records import identity_of
from repbench.benchmark.protocol import FinetuneSettings, ProbeSettings, Protocol, SplitSettings
from repbench.benchmark.records.record import read_fields, read_predictions, record_of
from repbench.benchmark.records.verify import verify_record
from repbench.benchmark.run import RunRequest, WrittenRecord, run
from repbench.corpora.conditions import DisturbedUtterance, disturbed, original, voices_for
from repbench.corpora.open import open_corpus
from repbench.corpora.read import read_utterance
from repbench.errors import DataError, UsageError
from repbench.testing import Envelope, tone_corpus
from repbench.upstream.contract import HiddenStates

QUICK = Protocol(
    probe=ProbeSettings(steps=20, batch_frames=256, batch_utterances=4, hidden_units=8, selection_points=2)
)
COUNTED = "py:tests.benchmark.test_conditions:counted"
BABBLE = "noise:babble:5"
WHITE = "noise:white:0"
SLOW = "speed:factor=0.8"

forwarded: list[int] = []
"""Utterances of each call of `Counted`."""


class Counted(Envelope):
    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        forwarded.append(len(lengths))
        return super().forward(waveforms, lengths)


def counted(*, checkpoint: str | None = None, seed: int = 0) -> Counted:
    return Counted()


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conditions") / "tones"
    tone_corpus(folder, num_speakers=5, per_session=2)
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPBENCH_CACHE", str(tmp_path / "cache"))
    forwarded.clear()


def go(tones: Path, out: Path, **changes: Any) -> list[WrittenRecord]:
    request = RunRequest(upstream=COUNTED, downstream="phone", corpus=str(tones), out=out, protocol=QUICK)
    return run(replace(request, **changes))


def test_one_training_gives_a_record_for_each_condition(tones: Path, tmp_path: Path) -> None:
    (alone,) = go(tones, tmp_path / "alone")
    forwarded.clear()
    go(tones, tmp_path / "stored")
    beside = sum(forwarded)  # what the cost is measured with
    forwarded.clear()
    clean, white, babble = go(tones, tmp_path / "runs", conditions=(WHITE, BABBLE))
    assert clean.record.condition is None
    assert clean.record.primary.value == alone.record.primary.value
    assert white.record.condition is not None
    assert white.record.condition.name == parse_condition(WHITE).name
    assert white.record.condition.training == "clean"
    assert clean.record.probe_sha256 == white.record.probe_sha256 == babble.record.probe_sha256
    assert white.record.primary.value != clean.record.primary.value
    # the store had the clean features: test alone is computed, once a condition
    assert sum(forwarded) - beside == 2 * clean.record.n_scored
    lines = [
        [(each.id, each.speaker) for each in read_predictions(w.path.parent / "predictions.jsonl")]
        for w in (clean, white, babble)
    ]
    assert lines[0] == lines[1] == lines[2]


def test_a_clean_record_is_what_it_was_before_there_were_conditions(tones: Path, tmp_path: Path) -> None:
    clean, *_ = go(tones, tmp_path / "runs", conditions=(WHITE,))
    fields = read_fields(clean.path)
    assert "condition" not in fields
    assert record_of(fields, clean.path).condition is None


def test_records_under_conditions_hold(tones: Path, tmp_path: Path) -> None:
    for each in go(tones, tmp_path / "runs", conditions=(WHITE, SLOW)):
        assert verify_record(each.path).holds


def test_severity_0_gives_the_predictions_of_clean_sound(tones: Path, tmp_path: Path) -> None:
    clean, none = go(tones, tmp_path / "runs", conditions=("noise:white:s0",))
    assert none.record.condition is not None
    assert none.record.condition.severity == 0
    assert none.record.predictions_sha256 == clean.record.predictions_sha256


def test_a_condition_that_moves_time_moves_the_labels(tones: Path, tmp_path: Path) -> None:
    clean, slow = go(tones, tmp_path / "runs", conditions=(SLOW,))
    frames = [each.record.primary.counts["total"] for each in (clean, slow)]
    assert frames[1] == pytest.approx(frames[0] / 0.8, rel=0.03)


def test_labels_stay_with_the_sound_that_silence_moves(tones: Path, tmp_path: Path) -> None:
    # 0.4 s are whole frames: every frame of the utterance is there again, later, with its label
    protocol = QUICK.model_copy(update={"probe": ProbeSettings(steps=200, batch_frames=256, hidden_units=32)})
    clean, later = go(
        tones,
        tmp_path / "runs",
        upstream="mel_no_cmvn",
        protocol=protocol,
        conditions=("silence:before=0.4,after=0.2",),
    )
    assert later.record.primary.counts["total"] == pytest.approx(clean.record.primary.counts["total"], rel=0.02)
    assert later.record.primary.value == pytest.approx(clean.record.primary.value, abs=0.03)
    assert clean.record.primary.value is not None
    assert clean.record.primary.value > 0.6  # labels that did not move would be met by chance


def test_missing_only_adds_the_conditions_that_are_missing(tones: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    first = go(tones, out, conditions=(WHITE,))
    again = go(tones, out, conditions=(WHITE, BABBLE), missing_only=True)
    assert {each.record.id for each in first} < {each.record.id for each in again}
    assert len(again) == 3
    assert len({identity_of(each.record) for each in again}) == 3
    assert len(list(out.rglob("record.json"))) == 3


def test_matched_training_hears_the_condition(tones: Path, tmp_path: Path) -> None:
    _, clean_trained = go(tones, tmp_path / "runs", conditions=(WHITE,))
    first, second = go(tones, tmp_path / "runs", conditions=(WHITE, BABBLE), matched=True)
    assert first.record.condition is not None
    assert second.record.condition is not None
    assert (first.record.condition.training, second.record.condition.training) == ("matched", "matched")
    assert first.record.probe_sha256 != clean_trained.record.probe_sha256
    assert identity_of(first.record) != identity_of(clean_trained.record)
    with pytest.raises(UsageError, match="no condition"):
        go(tones, tmp_path / "runs", matched=True)


def test_folds_score_every_condition(tones: Path, tmp_path: Path) -> None:
    protocol = QUICK.model_copy(update={"split": SplitSettings(folds=5)})
    clean, white = go(tones, tmp_path / "runs", protocol=protocol, conditions=(WHITE,))
    assert clean.record.folds is not None
    assert white.record.folds is not None
    assert clean.record.n_scored == white.record.n_scored
    assert clean.record.primary.value != white.record.primary.value


@pytest.mark.slow
def test_a_finetuned_network_is_scored_under_conditions(tones: Path, tmp_path: Path) -> None:
    protocol = QUICK.model_copy(update={"finetune": FinetuneSettings(steps=2, batch_seconds=4.0, selection_points=1)})
    request = RunRequest(
        upstream="apc",
        checkpoint="random",
        downstream="phone",
        corpus=str(tones),
        out=tmp_path,
        protocol=protocol,
        finetune=True,
        conditions=(WHITE,),
    )
    clean, white = run(request)
    assert clean.record.probe_sha256 == white.record.probe_sha256
    assert white.record.condition is not None
    assert clean.record.predictions_sha256 != white.record.predictions_sha256


def test_the_probe_of_a_run_scores_conditions_later(tones: Path, tmp_path: Path) -> None:
    others = tmp_path / "others"
    tone_corpus(others, num_speakers=2, per_session=2, salt="other")
    trained, white = go(tones, tmp_path / "runs", conditions=(WHITE,))
    again = run(
        RunRequest(
            upstream=COUNTED,
            downstream="phone",
            corpus=str(others),
            probe=trained.path.parent,
            out=tmp_path / "again",
            conditions=(WHITE,),
        )
    )
    assert [each.record.condition for each in again] == [None, white.record.condition]
    assert again[0].record.primary.value != again[1].record.primary.value


def test_a_task_without_training_is_measured_under_conditions(tones: Path, tmp_path: Path) -> None:
    clean, white = go(tones, tmp_path / "runs", downstream="verification", conditions=(WHITE,))
    trials = [
        [(each.id, each.speaker) for each in read_predictions(w.path.parent / "predictions.jsonl")]
        for w in (clean, white)
    ]
    assert trials[0] == trials[1]
    assert clean.record.predictions_sha256 != white.record.predictions_sha256


def test_a_disturbed_sound_depends_on_nothing_but_itself(tones: Path) -> None:
    first, second, *others = open_corpus(str(tones)).utterances
    condition = parse_condition(BABBLE)
    voices = voices_for(first, others, condition)
    one = disturbed(first, condition, voices)
    assert isinstance(one, DisturbedUtterance)
    assert original(one) is first
    sound = read_utterance(one, 16_000, whole=True)
    assert torch.equal(sound, read_utterance(disturbed(first, condition, voices), 16_000))
    assert not torch.equal(sound, read_utterance(first, 16_000))
    assert all(each.speaker != first.speaker for each in voices)
    # another draw of voices is another sound, under another key
    fewer = disturbed(first, condition, voices[:1])
    assert fewer.samples_sha256 != one.samples_sha256
    assert not torch.equal(sound, read_utterance(fewer, 16_000))
    noise = [
        read_utterance(disturbed(each, parse_condition(WHITE)), 16_000) - read_utterance(each, 16_000)
        for each in (first, second)
    ]
    length = min(map(len, noise))
    alike = np.corrcoef(noise[0][:length].numpy(), noise[1][:length].numpy())[0, 1]
    assert abs(alike) < 0.1


def test_babble_needs_another_speaker(tones: Path) -> None:
    first, *others = open_corpus(str(tones)).utterances
    own = [each for each in others if each.speaker == first.speaker]
    with pytest.raises(DataError, match="another speaker"):
        voices_for(first, own, parse_condition(BABBLE))


def test_features_are_stored_under_the_condition(tones: Path, tmp_path: Path) -> None:
    go(tones, tmp_path / "runs", conditions=(BABBLE,))
    forwarded.clear()
    go(tones, tmp_path / "again", conditions=(BABBLE,))
    again = list(forwarded)
    forwarded.clear()
    go(tones, tmp_path / "clean")
    assert again == forwarded
    assert store_folder().is_relative_to(tmp_path / "cache")


def test_an_unknown_condition_is_refused_before_anything_is_read(tones: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nope"):
        go(tones, tmp_path / "runs", conditions=("nope:3",))


def test_a_leaderboard_takes_the_conditions_that_it_names(tones: Path, tmp_path: Path) -> None:
    clean, white, slow = go(tones, tmp_path / "runs", conditions=(WHITE, SLOW))
    strict = tmp_path / "strict"
    write_head(strict, "Clean", [clean.record])
    Leaderboard(strict).add(clean.path)
    with pytest.raises(UsageError, match="its test sound is under the condition"):
        Leaderboard(strict).add(white.path)
    open_to = tmp_path / "open"
    write_head(open_to, "Noise", [clean.record, white.record, slow.record])
    board = Leaderboard(open_to)
    assert [board.add(each.path).record.id for each in (clean, white)] == [clean.record.id, white.record.id]
    with pytest.raises(UsageError, match="moves time"):
        board.add(slow.path)
    assert all(not isinstance(each, Exception) for _, each in board.submissions())


def test_a_matched_training_is_no_submission(tones: Path, tmp_path: Path) -> None:
    (matched,) = go(tones, tmp_path / "runs", conditions=(WHITE,), matched=True)
    write_head(tmp_path / "board", "Noise", [matched.record])
    with pytest.raises(UsageError, match="trained under the condition"):
        Leaderboard(tmp_path / "board").add(matched.path)
