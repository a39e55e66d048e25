"""`verification` from the command line to verified records and a report with a DET curve."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repbench.benchmark.records.formatting import number
from repbench.benchmark.report.data.assemble import assemble
from repbench.benchmark.report.data.det import normal_deviate
from repbench.benchmark.report.render.figures import _apart, det_figure
from repbench.benchmark.report.render.json import results
from repbench.benchmark.report.render.tables import tables_of
from repbench.benchmark.run import evaluate
from repbench.corpora.open import open_corpus
from repbench.testing import tone_corpus
from tests.commands import repbench


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verification") / "tones"
    tone_corpus(folder, num_speakers=10)
    return folder


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {"REPBENCH_CACHE": str(tmp_path_factory.mktemp("cache"))}


@pytest.mark.slow
def test_cosine_scores_every_utterance_and_its_numbers_follow_from_the_predictions(
    tones: Path, env: dict[str, str], tmp_path: Path
) -> None:
    run = ("run", "--upstream", "mel_no_cmvn", "--downstream", "verification", "--corpus", tones, "--json")
    done = repbench(*run, "--out", tmp_path / "runs", "--controls", env=env)
    assert done.code == 0, done.err
    given, shuffled = done.json["results"]
    assert (given["head"], given["n_scored"]) == ("none", len(open_corpus(str(tones)).utterances))
    assert given["baselines"]["chance"] == 0.5
    assert given["metrics"]["eer"]["value"] < shuffled["metrics"]["eer"]["value"] - 0.2
    assert abs(shuffled["metrics"]["eer"]["value"] - 0.5) < 0.15
    assert given["metrics"]["eer"]["ci_unit"] == "speaker"
    # 10 speakers of 2 sessions with 4 utterances: 10 × 16 pairs of other sessions, 45 × 64 of two speakers.
    assert given["metrics"]["eer"]["counts"] == {"target_trials": 160, "other_trials": 2880}
    assert given["selection"]["chosen"]["other_sessions"] == 1
    verified = repbench("verify", tmp_path / "runs", env=env)
    assert (verified.code, verified.out.count(": holds (4 metrics")) == (0, 2), verified.err
    (path,) = tmp_path.rglob(f"{given['id']}/predictions.jsonl")
    lines = path.read_text(encoding="utf-8").splitlines()
    first = json.loads(lines[0])
    first["trial_scores"][0] += 0.5
    path.write_text("\n".join([json.dumps(first), *lines[1:]]) + "\n", encoding="utf-8")
    assert repbench("verify", path.parent, env=env).code == 4


def test_the_same_trials_are_made_for_every_upstream_and_can_be_read_again(tones: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"corpus": str(tones), "out": tmp_path}
    (mel,) = evaluate("mel", "verification", **options)
    (mfcc,) = evaluate("mfcc", "verification", **options)
    assert mel.downstream.files["trials.txt"] == mfcc.downstream.files["trials.txt"]
    (trials,) = tmp_path.rglob(f"{mel.id}/trials.txt")
    (again,) = evaluate("mel", "verification", protocol={"task": {"trials": str(trials)}}, **options)
    assert again.metrics["eer"].value == mel.metrics["eer"].value


SPLIT = {"test_share": 0.3, "dev_share": 0.3}
"""Of ten speakers three are test and three dev."""


def test_plda_reads_train_and_a_shuffled_control_of_the_mean_shuffles_test(tones: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"corpus": str(tones), "out": tmp_path}
    protocol = {"task": {"score": "plda"}, "split": SPLIT}
    (plda,) = evaluate("mel_no_cmvn", "verification", protocol=protocol, **options)
    assert plda.corpus.n_train > 0
    assert {"eer", "cllr"} <= plda.metrics.keys()
    protocol = {"task": {"centre": True}, "split": SPLIT}
    given, shuffled = evaluate("mel_no_cmvn", "verification", protocol=protocol, controls=True, **options)
    assert given.metrics["eer"].value + 0.15 < shuffled.metrics["eer"].value  # type: ignore[operator]


@pytest.mark.slow
def test_x_vectors_are_trained_selected_on_trials_of_dev_and_scored_by_cosine(tones: Path, tmp_path: Path) -> None:
    probe = {"steps": 10, "learning_rate": 1e-3, "batch_utterances": 8}
    protocol = {"task": {"score": "xvector"}, "probe": probe, "split": SPLIT}
    (record,) = evaluate("mel_no_cmvn", "verification", corpus=str(tones), out=tmp_path, protocol=protocol)
    assert record.head == "am_xvector"
    assert record.downstream.classes is not None
    assert len(record.downstream.classes) == 4
    values = [point["dev_value"] for point in record.selection.grid]
    assert record.selection.dev_value == min(value for value in values if value is not None)
    # Of three test speakers with two sessions of four: 3 × 16 pairs of one speaker, 3 × 64 of two.
    assert record.metrics["eer"].counts == {"target_trials": 48, "other_trials": 192}
    (path,) = tmp_path.rglob("predictions.jsonl")
    lines = path.read_text(encoding="utf-8").splitlines()
    scores = [score for line in lines for score in json.loads(line)["trial_scores"]]
    assert len(set(scores)) > 200
    assert all(-1 <= score <= 1 for score in scores)
    assert repbench("verify", tmp_path).code == 0


@pytest.mark.slow
def test_a_report_has_a_det_curve_of_the_best_layer_of_each_system(tones: Path, tmp_path: Path) -> None:
    runs: dict[str, Any] = {"corpus": str(tones), "out": tmp_path / "runs"}
    for upstream in ("mel", "mel_no_cmvn"):
        evaluate(upstream, "verification", **runs)
    layers = evaluate("apc", "verification", checkpoint="random:tiny", layer="all", **runs)
    assert len(layers) > 1
    evaluate("mel", "speaker", protocol={"probe": {"steps": 10}}, head="mlp1", **runs)
    report = assemble([tmp_path / "runs"])
    (det,) = report.det
    rates = {curve.cell.row.system.upstream: curve.eer for curve in det.curves}
    assert rates.keys() == {"mel", "mel_no_cmvn", "apc"}
    assert (len(det.curves), det.num_systems) == (3, 3)
    assert rates["apc"] == pytest.approx(min(each.metrics["eer"].value for each in layers), abs=1e-12)  # type: ignore[type-var]
    assert [curve.eer for curve in det.curves] == sorted(rates.values())
    for curve in det.curves:
        assert curve.eer == pytest.approx(curve.cell.value, abs=1e-12)
        assert curve.false_alarm[0] == curve.miss[-1] == 0.0
        assert curve.false_alarm[-1] == curve.miss[0] == 1.0
        assert list(curve.false_alarm) == sorted(curve.false_alarm)
        assert list(curve.miss) == sorted(curve.miss, reverse=True)
        assert list(curve.misses) == sorted(curve.misses, reverse=True)
        assert len(curve.miss) <= 201
    figure = det_figure(det)
    assert "mel_no_cmvn" in figure.svg
    assert f"mel_no_cmvn, layer last: equal error rate {number(rates['mel_no_cmvn'])}" in figure.text
    assert [each["eer"] for each in results(report)["det"][0]["curves"]] == [curve.eer for curve in det.curves]
    (shown,) = [each for each in tables_of(report) if each.title.startswith("Detection error trade-off")]
    assert [row[2].text for row in shown.rows] == [number(curve.eer) for curve in det.curves]


def test_labels_of_the_axes_of_a_det_figure_have_room() -> None:
    ticks = _apart([0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9])
    places = normal_deviate(ticks)
    assert ticks[-1] == 0.9
    assert np.diff(places).min() > (places[-1] - normal_deviate([0.002])[0]) / 10
    assert len(ticks) > 6
