"""Tasks on attributes from a table to verified records: numbers in their unit, several attributes, balanced draws."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import pytest
import torch

from repbench.benchmark.data.dataset import label_splits
from repbench.benchmark.finetuning.network import load_network
from repbench.benchmark.probing.probe import load_probe
from repbench.benchmark.protocol import FinetuneSettings, ProbeSettings, Protocol, SplitSettings
from repbench.benchmark.records.record import read_predictions
from repbench.benchmark.records.verify import verify_record
from repbench.benchmark.report.data.assemble import assemble
from repbench.benchmark.run import RunRequest, WrittenRecord, run
from repbench.corpora import manifest
from repbench.corpora.contract import PrepareOptions
from repbench.corpora.layouts.csv_table import CSV
from repbench.corpora.open import open_corpus
from repbench.downstream.regression import Regression
from repbench.errors import UsageError
from repbench.testing import tone_corpus

AGES = {"positive": 60.0, "negative": 20.0}


def prepared(folder: Path, *, salt: str = "") -> Path:
    """A corpus of tones whose high tone decides an age, a mood and, with the number of the utterance, a place."""
    tones = tone_corpus(folder / "tones", salt=salt)
    rows = []
    for number, each in enumerate(tones.utterances):
        mood = str(each.attributes["sentiment"])
        rows.append(
            {
                "path": each.audio.relative_to(folder),
                "speaker": each.speaker,
                "age": AGES[mood] + number % 3,
                "mood": mood,
                "loud": "yes" if number % 5 else "no",
            }
        )
    with (folder / "table.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    manifest.write(CSV.prepare(folder, PrepareOptions(table=folder / "table.csv")), folder / "corpus")
    return folder / "corpus"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("attributes"))


def go(corpus: Path, out: Path, downstream: str, *, finetune: bool = False, **changes: Any) -> list[WrittenRecord]:
    protocol = Protocol(
        probe=ProbeSettings(steps=120, hidden_units=16, selection_points=4, learning_rate=1e-2),
        finetune=FinetuneSettings(steps=12, batch_seconds=5.0, selection_points=3),
        task=changes.pop("task"),
    )
    upstream = "py:repbench.testing.fakes:envelope" if finetune else "mel_no_cmvn"
    return run(
        RunRequest(
            upstream=upstream,
            downstream=downstream,
            corpus=str(corpus),
            out=out,
            protocol=protocol,
            device="cpu",
            finetune=finetune,
            **changes,
        )
    )


def ages(file: Path) -> list[float]:
    with file.open(encoding="utf-8") as opened:
        return [float(row["age"]) for row in csv.DictReader(opened)]


@pytest.fixture(scope="module")
def regressions(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> list[WrittenRecord]:
    out = tmp_path_factory.mktemp("regressions")
    return go(corpus, out, "regression", task={"attribute": "age"}, controls=True, label_fractions=(0.5, 1.0))


def test_numbers_are_learned_in_their_unit_and_the_controls_are_not(regressions: list[WrittenRecord]) -> None:
    by_setting = {(each.record.label_fraction, each.record.protocol["labels"]): each for each in regressions}
    assert len(by_setting) == 4
    for fraction in (0.5, 1.0):
        given, shuffled = (by_setting[fraction, labels].record for labels in ("given", "shuffled"))
        assert given.baselines.model_dump() == {"chance": None, "majority": 0.0}
        assert given.n_scored + len(given.excluded) == given.n_listed
        values = {name: metric.value for name, metric in given.metrics.items()}
        assert values["ccc"] is not None
        assert values["ccc"] > 0.7
        assert values["ccc"] > (shuffled.metrics["ccc"].value or 0.0) + 0.3
        assert given.metrics["ccc"].ci95 is None or given.metrics["ccc"].ci_unit == "speaker"
        predictions = read_predictions(by_setting[fraction, "given"].path.parent / "predictions.jsonl")
        assert 15 < fmean(each.estimated for each in predictions) < 65  # type: ignore[attr-defined]
    assert all(verify_record(each.path).holds for each in regressions)


def test_a_probe_keeps_the_statistics_of_the_labels_that_it_was_trained_on(
    regressions: list[WrittenRecord], corpus: Path
) -> None:
    found = {}
    for each in regressions:
        probe, _ = load_probe(each.path.parent / "probe.safetensors")
        assert (probe.shape.outputs, probe.shape.standardises_targets) == (1, True)
        found[each.record.label_fraction] = (float(probe.target_mean), float(probe.target_deviation))
    splits = label_splits(
        open_corpus(str(corpus)), Regression(attribute="age"), SplitSettings(), excludes=lambda _: None
    )
    learned = [example.labels for example in splits.train]
    assert found[1.0] == pytest.approx((fmean(learned), pstdev(learned)), rel=1e-6)
    assert found[0.5] != found[1.0], "a fraction knows nothing of the labels beyond it"
    scores = torch.tensor([[-1.0], [0.0], [2.0]])
    mean, deviation = found[each.record.label_fraction]
    assert probe.in_units(scores).flatten().tolist() == pytest.approx([mean - deviation, mean, mean + 2 * deviation])


def test_a_saved_probe_of_numbers_scores_another_corpus_in_their_unit(
    regressions: list[WrittenRecord], tmp_path: Path
) -> None:
    other = prepared(tmp_path / "other", salt="other")
    source = next(each for each in regressions if each.record.protocol["labels"] == "given")
    request = RunRequest(
        upstream="mel_no_cmvn", downstream="regression", corpus=str(other), out=tmp_path, probe=source.path.parent
    )
    (scored,) = run(request)
    assert (scored.record.metrics["rmse"].value or 99.0) < pstdev(ages(other.parent / "table.csv"))
    assert verify_record(scored.path).holds


def test_an_estimate_that_was_changed_is_found(corpus: Path, tmp_path: Path) -> None:
    (written,) = go(corpus, tmp_path, "regression", task={"attribute": "age", "primary_metric": "rmse"})
    assert written.record.baselines.majority == pytest.approx(20.0, abs=1.0)
    assert (written.record.selection.dev_value or 99.0) < 20.0, "dev is scored in the unit of the labels"
    path = written.path.parent / "predictions.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines[0]["estimated"] += 1.0
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    changed = {change.field for change in verify_record(written.path).changes}
    assert {"metrics.rmse.value", "metrics.ccc.value"} <= changed


def test_a_network_that_is_fine_tuned_on_numbers_gives_them_in_their_unit(corpus: Path, tmp_path: Path) -> None:
    (written,) = go(corpus, tmp_path, "regression", task={"attribute": "age"}, finetune=True)
    network = load_network(written.path.parent / "network.safetensors")
    assert float(network.probe.target_mean) == pytest.approx(41.0, abs=2.0)
    estimates = [each.estimated for each in read_predictions(written.path.parent / "predictions.jsonl")]  # type: ignore[attr-defined]
    assert all(-20 < each < 100 for each in estimates)
    assert abs(fmean(estimates) - 41.0) < 25
    assert verify_record(written.path).holds


def test_several_attributes_are_learned_at_once_and_drawn_in_a_report(corpus: Path, tmp_path: Path) -> None:
    (written,) = go(corpus, tmp_path, "intent", task={"attributes": ["mood", "loud"]})
    record = written.record
    assert record.downstream.classes == ("loud=no", "loud=yes", "mood=negative", "mood=positive")
    assert record.baselines.chance == 0.25
    values = {name: metric.value for name, metric in record.metrics.items()}
    assert (values["accuracy_mood"] or 0.0) > 0.9
    assert (values["accuracy"] or 0.0) <= (values["accuracy_loud"] or 0.0)
    assert verify_record(written.path).holds
    (confusion,) = assemble([tmp_path]).confusions
    assert (confusion.classes[:2], confusion.items) == (("loud=no", "loud=yes"), "utterances")


def test_balanced_draws_change_training_alone(corpus: Path, tmp_path: Path) -> None:
    plain, balanced = (
        go(corpus, tmp_path, "attribute", task={"attribute": "loud", "balanced": each})[0] for each in (False, True)
    )
    assert plain.record.probe_sha256 != balanced.record.probe_sha256
    assert (plain.record.n_scored, plain.record.baselines) == (balanced.record.n_scored, balanced.record.baselines)
    with pytest.raises(UsageError, match=r"fine-tuning draws all equally often .*task\.balanced"):
        go(corpus, tmp_path, "attribute", task={"attribute": "loud", "balanced": True}, finetune=True)
