"""Diarization through a whole run: what is chosen on dev, what a record keeps, and what is scored again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from repbench.benchmark.features.table import FeatureTable
from repbench.benchmark.probing.batches import batches
from repbench.benchmark.probing.prediction import LabelledFeatures, Predictor
from repbench.benchmark.protocol import FinetuneSettings, ProbeSettings, Protocol, SplitSettings
from repbench.benchmark.records.record import read_predictions
from repbench.benchmark.records.verify import verify_record
from repbench.benchmark.run import RunRequest, WrittenRecord, run
from repbench.benchmark.scoring.metrics import measure_clusters, metrics_part, units_apart
from repbench.corpora import manifest
from repbench.corpora.contract import Draft, DraftUtterance, Split, Turn
from repbench.corpora.rttm import read_rttm
from repbench.downstream.contract import LabelledUtterance
from repbench.downstream.diarization import Diarization
from repbench.downstream.metrics.diarization import Durations
from repbench.downstream.problems import MULTILABEL
from repbench.downstream.problems.multilabel import DiarizationPrediction, FrameMultilabel
from repbench.testing.downstreams import DOWNSTREAM_CHECKS, DownstreamSubject
from tests.benchmark.small_finetuning import ENVELOPE

RATE_HZ = 16_000
QUICK = ProbeSettings(steps=40, selection_points=2, hidden_units=8, learning_rate=1e-2, batch_utterances=4)
SPLITS: tuple[Split, ...] = ("train", "train", "dev", "test")


def two_voices(id_: str, pitches_hz: tuple[float, float]) -> tuple[np.ndarray, tuple[Turn, ...]]:
    """Two hums of different pitch that take turns, the second a little before the first has ended."""
    random = np.random.default_rng(int.from_bytes(id_.encode(), "big") % 2**32)
    samples = 0.001 * random.standard_normal(2 * RATE_HZ)
    turns = []
    start = float(random.uniform(0.0, 0.8))
    for place in range(2, 6):
        voice, end = place % 2, min(start + float(random.uniform(0.1, 0.6)), 2.0)
        if end < start + 0.1:
            break
        first, last = round(start * RATE_HZ), round(end * RATE_HZ)
        samples[first:last] += 0.2 * np.sin(2 * np.pi * pitches_hz[voice] * np.arange(last - first) / RATE_HZ)
        turns.append(Turn(first / RATE_HZ, last / RATE_HZ, f"voice{voice}"))
        start = end - 0.1 if place % 2 == 0 else end + float(random.uniform(0.05, 0.5))
    return samples, tuple(turns)


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty-two mixtures of eight speakers, two of whom are in each."""
    folder = tmp_path_factory.mktemp("diarization") / "voices"
    (folder / "sounds").mkdir(parents=True)
    drafts = []
    for number in range(32):
        id_ = f"m{number:02d}"
        samples, turns = two_voices(id_, (300.0, 2400.0) if number % 2 else (2400.0, 300.0))
        soundfile.write(folder / "sounds" / f"{id_}.wav", samples, RATE_HZ, subtype="PCM_16")
        split = SPLITS[number % 4]
        pair = ("ab", "ac", "bc", "de")[number // 8]
        drafts.append(
            DraftUtterance(
                id=id_,
                audio=folder / "sounds" / f"{id_}.wav",
                speaker="+".join(f"{split}-{each}" for each in pair),
                split=split,
                turns=turns,
            )
        )
    manifest.write(Draft(name="voices", licence="none", root=folder, utterances=drafts), folder)
    return folder


def go(corpus: Path, out: Path, probe: ProbeSettings = QUICK, **changes: Any) -> list[WrittenRecord]:
    protocol = changes.pop("protocol", Protocol(probe=probe, split=SplitSettings(official="always")))
    options = {"upstream": "mel_no_cmvn", "downstream": "diarization", **changes}
    return run(RunRequest(corpus=str(corpus), out=out, protocol=protocol, **options))


@pytest.fixture(scope="module")
def written(voices: Path, tmp_path_factory: pytest.TempPathFactory) -> WrittenRecord:
    (only,) = go(voices, tmp_path_factory.mktemp("runs"))
    return only


def test_it_learns_who_speaks_when(written: WrittenRecord) -> None:
    record = written.record
    assert (record.head, record.primary_metric, record.n_scored) == ("blstm", "diarization_error_rate", 8)
    assert record.primary.value is not None
    assert record.primary.value < 0.25
    majority = record.baselines.majority
    assert majority is not None
    assert majority > 0.5
    assert record.baselines.chance is None


def test_the_decision_is_the_best_of_dev(written: WrittenRecord) -> None:
    selection = written.record.selection
    decided = [point for point in selection.grid if "threshold" in point]
    assert [{name: point[name] for name in ("threshold", "median_seconds")} for point in decided] == [
        *MULTILABEL.decisions
    ]
    assert {point["step"] for point in decided} == {selection.chosen["step"]}
    best = min(decided, key=lambda point: point["dev_value"])
    assert selection.chosen == {name: value for name, value in best.items() if name != "dev_value"}
    assert selection.dev_value == best["dev_value"]
    # the point at which the weights were chosen is that with the first decision
    before = [point for point in selection.grid if "threshold" not in point]
    assert min(point["dev_value"] for point in before) == decided[0]["dev_value"]


def test_the_record_follows_from_its_predictions_and_has_the_turns_as_rttm(written: WrittenRecord) -> None:
    verify_record(written.path)
    folder = written.path.parent
    predictions = read_predictions(folder / "predictions.jsonl")
    turns = read_rttm(folder / "test.rttm")
    for each in predictions:
        assert isinstance(each, DiarizationPrediction)
        found = [(turn.start_s, turn.end_s, int(turn.speaker.removeprefix("track")) - 1) for turn in turns[each.id]]
        expected = [(start / 1e6, end / 1e6, track) for start, end, track in each.hypothesis]
        assert np.allclose(found, expected, atol=1e-9, rtol=0)


def test_another_corpus_is_scored_with_the_decision_of_the_probe(
    written: WrittenRecord, voices: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    corpus = manifest.read(voices)
    shifted = []
    for each in corpus.utterances:
        samples, rate_hz = soundfile.read(each.audio)
        (other / "sounds").mkdir(parents=True, exist_ok=True)
        soundfile.write(other / "sounds" / f"{each.id}.wav", samples * 0.9, rate_hz, subtype="PCM_16")
        shifted.append(
            DraftUtterance(
                id=each.id, audio=other / "sounds" / f"{each.id}.wav", speaker=each.speaker, turns=each.turns
            )
        )
    manifest.write(Draft(name="other", licence="none", root=other, utterances=shifted), other)
    request = RunRequest(
        upstream="mel_no_cmvn", downstream="diarization", corpus=str(other), out=tmp_path / "runs", probe=written.path
    )
    (again,) = run(request)
    assert again.record.n_scored == 32
    assert again.record.selection.chosen == written.record.selection.chosen
    verify_record(again.path)
    # the file of turns is that of the other corpus
    assert len(read_rttm(again.path.parent / "test.rttm")) == 32


def test_controls_cannot_tell_speakers(voices: Path, tmp_path: Path) -> None:
    records = [each.record for each in go(voices, tmp_path, replace_steps(20), controls=True)]
    shuffled = [record for record in records if record.upstream.name == "mel_no_cmvn" and record is not records[0]]
    assert len(records) == 2
    assert shuffled[0].primary.value is not None
    assert records[0].primary.value is not None
    assert shuffled[0].primary.value > records[0].primary.value + 0.1


def replace_steps(steps: int) -> ProbeSettings:
    return QUICK.model_copy(update={"steps": steps})


def test_a_network_is_fine_tuned_and_its_decision_is_chosen(voices: Path, tmp_path: Path) -> None:
    protocol = Protocol(
        probe=QUICK,
        split=SplitSettings(official="always"),
        finetune=FinetuneSettings(steps=6, batch_seconds=8.0, selection_points=2),
    )
    (only,) = go(voices, tmp_path, upstream=ENVELOPE, protocol=protocol, finetune=True)
    chosen = only.record.selection.chosen
    assert {"step", "threshold", "median_seconds"} == set(chosen)
    assert len(only.record.selection.grid) == 12
    verify_record(only.path)


def test_folds_choose_a_decision_each(voices: Path, tmp_path: Path) -> None:
    protocol = Protocol(probe=replace_steps(4), split=SplitSettings(folds=2, folds_by="speaker"))
    (only,) = go(voices, tmp_path, protocol=protocol)
    folds = only.record.folds
    assert folds is not None
    assert all("threshold" in fold.selection.chosen for fold in folds)
    # the mean on dev over the folds, for each decision that all of them scored at the same step
    together = [point for point in only.record.selection.grid if "threshold" in point]
    assert len({(point["threshold"], point["median_seconds"], point["step"]) for point in together}) == len(together)
    verify_record(only.path)


@pytest.mark.parametrize("road", ["frozen", "folds", "finetune", "probe"])
def test_test_is_predicted_with_the_decision(
    voices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, road: str
) -> None:
    """The only decision is another one than that of the problem itself."""
    monkeypatch.setattr(FrameMultilabel, "decisions", ({"threshold": 0.45, "median_seconds": 0.0},))
    last: dict[str, float] = {}
    predict = FrameMultilabel.predict

    def spied(self: FrameMultilabel, example: LabelledUtterance, reference: Any, scores: torch.Tensor) -> Any:
        last[example.id] = self.threshold
        return predict(self, example, reference, scores)

    monkeypatch.setattr(FrameMultilabel, "predict", spied)
    split = SplitSettings(folds=2, folds_by="speaker") if road == "folds" else SplitSettings(official="always")
    protocol = Protocol(
        probe=replace_steps(2), split=split, finetune=FinetuneSettings(steps=2, batch_seconds=8.0, selection_points=1)
    )
    upstream = ENVELOPE if road == "finetune" else "mel_no_cmvn"
    (only,) = go(voices, tmp_path, upstream=upstream, protocol=protocol, finetune=road == "finetune")
    if road == "probe":
        last.clear()
        request = RunRequest(
            upstream=upstream, downstream="diarization", corpus=str(voices), out=tmp_path / "again", probe=only.path
        )
        run(request)
    tested = [each.id for each in read_predictions(only.path.parent / "predictions.jsonl")]
    assert len(tested) == (32 if road == "folds" else 8)
    assert {last[id_] for id_ in tested} == {0.45}


class TestChunks:
    def drawn(self, count: int, chunk: int | None, monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[int], int]]:
        """Frames of each utterance and number of targets of a few batches, of utterances of `count` and 3 frames."""
        monkeypatch.setattr(type(MULTILABEL), "chunk_frames", chunk)
        task = Diarization()
        turns = (Turn(0.0, 0.02, "a"),)
        examples = tuple(
            LabelledUtterance(_bare(id_, frames * 160, turns), task.labels(_bare(id_, frames * 160, turns)))
            for id_, frames in (("u0", count), ("u1", 3))
        )
        frames = torch.arange(count + 3.0).view(1, -1, 1)
        table = FeatureTable(frames, (count, 3), ("u0", "u1"))
        predictor = Predictor(task, task.classes({}, ()), _Times())  # type: ignore[arg-type]
        settings = ProbeSettings(batch_utterances=1, steps=6)
        generator = torch.Generator().manual_seed(0)
        drawn = batches(predictor, LabelledFeatures(table, examples), settings, generator, context=0)
        found = []
        for _, batch in zip(range(6), drawn, strict=False):
            assert batch.counts is not None
            assert batch.num_classes is not None
            assert batch.num_classes.tolist() == [2 * int(each) for each in batch.counts]
            # the targets of a frame go with it: only the first two frames of an utterance have a speaker
            first = batch.frames[0, :, 0] % count
            speaks = batch.classes.view(-1, 2)[:, 0]
            assert torch.equal(speaks == 1, first < 2)
            found.append((batch.counts.tolist(), len(batch.classes)))
        return found

    def test_long_utterances_are_cut_with_their_targets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = self.drawn(10, 4, monkeypatch)
        assert sorted(counts for counts, _ in found[:4]) == [[2], [3], [4], [4]]

    def test_short_ones_are_whole(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert sorted(counts for counts, _ in self.drawn(10, 2000, monkeypatch)[:2]) == [[3], [10]]


class _Times:
    sample_rate_hz, hop_samples, first_center_samples = RATE_HZ, 160, 80


def _bare(id_: str, num_samples: int, turns: tuple[Turn, ...]) -> Any:
    from repbench.corpora.contract import Utterance

    return Utterance(
        id=id_,
        audio=Path("x.wav"),
        sample_rate_hz=RATE_HZ,
        num_samples=num_samples,
        samples_sha256="0" * 64,
        turns=turns,
    )


def prediction(id_: str, speaker: str | None, error: int) -> DiarizationPrediction:
    made = MULTILABEL.made_up(_context(), 0, "right", id=id_, speaker="", group="")
    assert isinstance(made, DiarizationPrediction)
    return replace(made, speaker=speaker, group=None, durations=Durations(10, error, 0, 0))


def _context() -> Any:
    from repbench.downstream.contract import TaskContext

    return TaskContext(Diarization(), ("speaker 1", "speaker 2"))


class TestIntervals:
    def test_each_speaker_is_left_out_with_all_its_mixtures(self) -> None:
        predictions = [prediction("1", "a+b", 1), prediction("2", "a+c", 2), prediction("3", "b+c", 6)]
        measured = measure_clusters(Diarization(), (), predictions)
        assert measured.unit == "speaker"
        assert measured.ids == (("1", "2"), ("1", "3"), ("2", "3"))
        assert [each["diarization_error_rate"] for each in measured.values.without] == [0.6, 0.2, 0.1]
        (low, high) = metrics_part(Diarization(), (), predictions)["diarization_error_rate"]["ci95"]
        # (m - 1) / m of the sum of squares about the mean 0.3, Student's t of two degrees of freedom
        half = 4.302652729911275 * np.sqrt(2 / 3 * (0.3**2 + 0.1**2 + 0.2**2))
        assert low == pytest.approx(max(0.3 - half, 0.0))
        assert high == pytest.approx(0.3 + half)

    def test_speakers_of_the_same_mixtures_are_one_unit(self) -> None:
        predictions = [prediction("1", "a+b", 1), prediction("2", "a+b", 2), prediction("3", "c+d", 6)]
        assert units_apart(MULTILABEL, predictions, "speaker") == {"a": ("1", "2"), "c": ("3",)}
        measured = measure_clusters(Diarization(), (), predictions)
        assert [each["diarization_error_rate"] for each in measured.values.without] == [0.6, 0.15]

    @pytest.mark.parametrize("speakers", [("a+b", "a+b"), (None, None), ("a+b", None)])
    def test_without_two_units_there_is_no_interval(self, speakers: tuple[str | None, str | None]) -> None:
        predictions = [prediction("1", speakers[0], 1), prediction("2", speakers[1], 2)]
        assert metrics_part(Diarization(), (), predictions)["diarization_error_rate"]["ci95"] is None


def test_it_keeps_every_promise(voices: Path) -> None:
    results = DOWNSTREAM_CHECKS.results(DownstreamSubject(Diarization(), manifest.read(voices)))
    assert {each.id for each in results if each.status != "passed"} == {"collapse"}
