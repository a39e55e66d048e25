"""Runs with heads that are fitted, and few shots: records, folds, controls, probes on another corpus, refusals."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from repbench import load_upstream
from repbench.benchmark.data.subsets import few_shots, with_fewer_shots
from repbench.benchmark.pipeline.existing_records import identity_of
from repbench.benchmark.probing.probe import load_probe
from repbench.benchmark.protocol import ProbeSettings, Protocol, SplitSettings, load_protocol
from repbench.benchmark.records.record import Record, fold_probe_file
from repbench.benchmark.records.verify import verify_record
from repbench.benchmark.report.data.columns import columns_of, has_effect
from repbench.benchmark.run import RunRequest, WrittenRecord, run
from repbench.corpora.contract import Utterance
from repbench.corpora.open import open_corpus
from repbench.corpora.read import read_utterance
from repbench.downstream.contract import LabelledUtterance
from repbench.downstream.heads.fitted import Knn
from repbench.downstream.problems import FRAMES, UTTERANCES
from repbench.errors import UsageError
from repbench.progress import Silence
from repbench.testing import tone_corpus

QUICK = ProbeSettings(steps=20, batch_frames=256, batch_utterances=4, hidden_units=8, selection_points=2)
FITTED = ("knn", "nearest", "logistic")


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fitted") / "tones"
    tone_corpus(folder, num_speakers=5, per_session=3)
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPBENCH_CACHE", str(tmp_path / "cache"))


class Noted(Silence):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def go(tones: Path, out: Path, probe: dict[str, Any] | None = None, **changes: Any) -> list[WrittenRecord]:
    protocol = Protocol(probe=QUICK.model_copy(update=probe or {}), split=changes.pop("split", SplitSettings()))
    request = RunRequest(
        upstream="mel_no_cmvn", downstream="speaker", corpus=str(tones), out=out, protocol=protocol, layer="0"
    )
    return run(replace(request, **changes), changes.pop("reporter", None))


def known(record: Record) -> float:
    assert record.primary.value is not None
    return record.primary.value


def test_trained_and_fitted_heads_in_one_run(tones: Path, tmp_path: Path) -> None:
    written = go(tones, tmp_path, heads=("linear", *FITTED))
    assert [each.record.head for each in written] == ["linear", *FITTED]
    for each in written[1:]:
        record = each.record
        assert known(record) > 0.6, "a voice of tones is known by its mean; chance is 0.2"
        assert record.selection.chosen == {}
        assert record.selection.grid == ({"dev_value": record.selection.dev_value},)
        assert record.probe_sha256 is not None
        assert verify_record(each.path, weights=True).holds
    assert len({each.record.probe_sha256 for each in written}) == 4


def test_knn_reads_its_settings_and_keeps_the_training_utterances(tones: Path, tmp_path: Path) -> None:
    (written,) = go(tones, tmp_path, {"neighbours": 3, "temperature": 0.2}, head="knn")
    probe, _ = load_probe(written.path.with_name("probe.safetensors"))
    assert isinstance(probe.head, Knn)
    assert (int(probe.head.neighbours), float(probe.head.temperature)) == (3, 0.2)
    assert len(probe.head.bank) == written.record.corpus.n_train


def test_the_same_run_writes_the_same_probe(tones: Path, tmp_path: Path) -> None:
    one, other = (go(tones, tmp_path / name, heads=FITTED) for name in ("one", "other"))
    assert [each.record.probe_sha256 for each in one] == [each.record.probe_sha256 for each in other]


def test_shuffled_labels_are_fitted_too(tones: Path, tmp_path: Path) -> None:
    given, shuffled = go(tones, tmp_path, head="nearest", controls=True)
    assert shuffled.record.protocol["labels"] == "shuffled"
    assert known(given.record) > known(shuffled.record) + 0.2


@pytest.mark.parametrize("layer_norm", [False, True])
def test_each_fold_is_fitted_to_its_own_train(tones: Path, tmp_path: Path, layer_norm: bool) -> None:
    split = SplitSettings(folds=3, folds_by="session")
    written = go(tones, tmp_path, {"layer_norm": layer_norm}, heads=("knn", "logistic"), split=split)
    for each in written:
        record = each.record
        assert record.folds is not None
        assert [fold.selection.chosen for fold in record.folds] == [{}] * len(record.folds)
        values = [fold.selection.dev_value for fold in record.folds]
        assert record.selection.dev_value == pytest.approx(sum(v for v in values if v is not None) / len(values))
        assert known(record) > 0.6
        assert verify_record(each.path, weights=True).holds
    probe, _ = load_probe(written[0].path.with_name(fold_probe_file(1)))
    upstream = load_upstream("mel_no_cmvn")
    means = []
    for utterance in open_corpus(str(tones)).utterances:
        samples = read_utterance(utterance, 16_000)[None]
        frames = upstream(samples, torch.tensor([samples.shape[1]])).layers[:, 0]  # (1, F, D)
        means.append(probe.standardised(frames).mean(dim=1)[0])
    assert isinstance(probe.head, Knn)
    # Each vector that votes is the mean of an utterance's frames, as the probe of this fold standardises them.
    cosines = probe.head.cosines(torch.stack(means)).amax(dim=0)
    assert cosines.tolist() == pytest.approx([1.0] * len(probe.head.bank), abs=1e-5)


def test_a_fitted_probe_scores_another_corpus(tones: Path, tmp_path: Path) -> None:
    (source,) = go(tones, tmp_path, head="knn")
    other = tmp_path / "other"
    tone_corpus(other, num_speakers=5, per_session=3, salt="other")
    request = RunRequest(
        upstream="mel_no_cmvn", downstream="speaker", corpus=str(other), out=tmp_path / "scored", probe=source.path
    )
    (scored,) = run(request)
    assert scored.record.head == "knn"
    assert scored.record.probe_sha256 == source.record.probe_sha256
    assert known(scored.record) > 0.6


def test_tuning_adds_no_record_of_a_fitted_head_and_says_so(tones: Path, tmp_path: Path) -> None:
    noted = Noted()
    request = RunRequest(
        upstream="mel_no_cmvn", downstream="speaker", corpus=str(tones), out=tmp_path, tune=True,
        heads=("linear", "knn"), protocol=Protocol(probe=QUICK),
    )  # fmt: skip
    written = run(request, noted)
    assert [(each.record.head, each.record.protocol["probe"]["tune"]) for each in written] == [
        ("linear", False), ("linear", True), ("knn", False)
    ]  # fmt: skip
    assert "note: the head `knn` has no learning rate, so --tune adds no record of it" in noted.lines


@pytest.mark.parametrize(
    ("changes", "probe", "message"),
    [
        ({"layer": "weighted"}, {}, "The weights of `weighted` are learnt by steps"),
        ({"finetune": True}, {}, "gives no gradient"),
        ({"downstream": "phone"}, {}, "There is no head `knn` for frame-classification"),
        ({"upstream": "mel"}, {}, "its input would be constant"),
        ({}, {"frames_per_utterance": 3}, "is fitted to the mean of all frames"),
    ],
)
def test_what_cannot_be_fitted_is_refused(
    tones: Path, tmp_path: Path, changes: dict[str, Any], probe: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        go(tones, tmp_path, probe, head="knn", **changes)


def test_settings_of_steps_are_no_part_of_the_identity_of_a_fitted_record(tones: Path, tmp_path: Path) -> None:
    (one,) = go(tones, tmp_path / "one", head="knn")
    (steps,) = go(tones, tmp_path / "steps", {"steps": 30, "hidden_units": 9, "inverse_penalty": 7.0}, head="knn")
    (votes,) = go(tones, tmp_path / "votes", {"neighbours": 4}, head="knn")
    assert identity_of(one.record) == identity_of(steps.record) != identity_of(votes.record)
    (trained,) = go(tones, tmp_path / "trained", head="linear")
    (same,) = go(tones, tmp_path / "same", {"neighbours": 4}, head="linear")
    assert identity_of(trained.record) == identity_of(same.record)
    assert not has_effect("probe.neighbours", trained.record)
    assert has_effect("probe.neighbours", one.record)
    columns = columns_of([one.record, votes.record, trained.record, same.record])
    assert columns[trained.record.id] is columns[same.record.id]
    assert len({id(column) for column in columns.values()}) == 3


def test_records_with_the_same_labels_have_the_same_shots(tones: Path, tmp_path: Path) -> None:
    """Whatever the head, the upstream and the layer: the seconds of label are those of the same utterances."""
    written = [
        *go(tones, tmp_path, {"shots": 1}, heads=("linear", "knn"), seeds=(0, 1)),
        *go(tones, tmp_path, {"shots": 1}, head="knn", seeds=(0, 1), upstream="fbank_no_cmvn"),
    ]
    seconds = [each.record.label_seconds for each in written]
    assert seconds[0] == seconds[2] == seconds[4]
    assert seconds[1] == seconds[3] == seconds[5]
    assert seconds[0] != seconds[1], "another seed draws others"
    for each in written:
        assert each.record.protocol["probe"]["shots"] == 1
        assert each.record.label_fraction == 1.0
        assert verify_record(each.path).holds


def test_a_class_with_fewer_utterances_than_shots_has_a_warning(tones: Path, tmp_path: Path) -> None:
    (written,) = go(tones, tmp_path, {"shots": 1000}, head="knn")
    (whole,) = go(tones, tmp_path / "whole", head="knn")
    assert any(
        "5 of 5 classes have fewer than 1000 training utterances" in each for each in written.record.corpus.warnings
    )
    assert written.record.metrics == whole.record.metrics


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_fractions": (0.5,)}, "Both choose among the labelled utterances"),
        ({"downstream": "phone", "head": "linear"}, "have no class each"),
    ],
)
def test_shots_that_cannot_be_drawn_are_refused(
    tones: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        go(tones, tmp_path, {"shots": 2}, **{"head": "knn", **changes})


def examples(**counts: int) -> tuple[LabelledUtterance, ...]:
    return tuple(
        LabelledUtterance(
            Utterance(
                id=f"{name}{number}", audio=Path("x.wav"), num_samples=16_000, sample_rate_hz=16_000,
                samples_sha256="0" * 64, speaker="s",
            ),
            name,
        )
        for name, count in counts.items()
        for number in range(count)
    )  # fmt: skip


def test_shots_are_nested_and_drawn_by_the_seed() -> None:
    every = examples(a=30, b=50, c=4)
    draws = {
        shots: {each.id for each in few_shots(every, shots, problem=UTTERANCES, seed=0, salt="x")}
        for shots in (1, 5, 20)
    }
    assert draws[1] < draws[5] < draws[20]
    assert Counter(id_[0] for id_ in draws[5]) == {"a": 5, "b": 5, "c": 4}
    again = few_shots(every[::-1], 5, problem=UTTERANCES, seed=0, salt="x")
    assert {each.id for each in again} == draws[5], "the order of the corpus plays no part"
    for changed in ({"seed": 1, "salt": "x"}, {"seed": 0, "salt": "y"}):
        other = {each.id for each in few_shots(every, 5, problem=UTTERANCES, **changed)}  # type: ignore[arg-type]
        assert other != draws[5]


def test_the_warning_names_the_classes_with_fewer() -> None:
    every = examples(a=3, b=5, c=1)
    assert with_fewer_shots(every, 1, UTTERANCES) == ()
    assert with_fewer_shots(every, 4, UTTERANCES) == (
        "2 of 3 classes have fewer than 4 training utterances: a (3), c (1)",
    )


def test_a_preset_takes_a_fitted_head_and_shots() -> None:
    protocol = load_protocol("xares", None, ["head=knn", "probe.shots=8", "probe.standardise=false"])
    settings = protocol.for_task("speaker", UTTERANCES.name)
    assert (settings.head, settings.probe.shots, settings.probe.standardise) == ("knn", 8, False)
    assert "shots" not in load_protocol("xares").model_dump(mode="json")["probe"]
    assert FRAMES.fitted_heads == ()
