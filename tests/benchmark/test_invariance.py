"""Invariance without labels: held to vectors of known distance, and from the command line to a report."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from repbench.audio.disturbances.condition import parse_condition
from repbench.benchmark.comparison.invariance import InvarianceRequest, invariance
from repbench.benchmark.features.extraction import ExtractionOptions, extract
from repbench.benchmark.report import ReportRequest, assemble, write_report
from repbench.benchmark.report.render.invariance import MEAN, summary_of, tables_in
from repbench.benchmark.scoring.statistics import crossed_intervals_of
from repbench.benchmark.similarity.frames import nearest_to
from repbench.benchmark.similarity.invariance import VALUE, CleanStates, deviations
from repbench.benchmark.similarity.invariance_document import Invariance, read_invariance
from repbench.corpora.conditions import disturbed
from repbench.corpora.contract import Corpus
from repbench.downstream.problems.scoring_grid import instants_s, nearest_frames
from repbench.errors import DataError, IntegrityError, UsageError
from repbench.testing import Envelope, tone_corpus
from repbench.upstream.contract import UpstreamInfo
from tests.benchmark.report_records import write
from tests.commands import repbench

States = NDArray[np.float32]

NUM_UTTERANCES, FRAMES, WIDTH, SPEAKERS = 40, 50, 6, 8
OWNERS = np.repeat(np.arange(NUM_UTTERANCES), FRAMES)
CLUSTERS = np.repeat(np.arange(SPEAKERS), NUM_UTTERANCES // SPEAKERS)


def states(seed: int) -> States:
    """Unrelated states of mean 0, with another deviation in each dimension."""
    drawn = np.random.default_rng(seed).standard_normal((len(OWNERS), WIDTH))
    found: States = (drawn * np.array([0.1, 1.0, 3.0, 10.0, 0.5, 2.0])).astype(np.float32)
    return found


def clean(values: States, owners: NDArray[np.int64] = OWNERS) -> CleanStates:
    return CleanStates(values, owners, CLUSTERS, deviations(values))


def value(values: States, disturbed_values: States) -> float:
    found = clean(values).distance_to(disturbed_values).whole[VALUE]
    assert found is not None
    return found


# Vectors


def test_the_same_states_are_invariant_exactly() -> None:
    found = clean(states(0)).distance_to(states(0))
    assert found.whole[VALUE] == 0.0
    assert [each[VALUE] for each in found.without] == [0.0] * SPEAKERS


def test_unrelated_states_are_as_far_as_another_utterance() -> None:
    assert value(states(0), states(1)) == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.8, 0.95])
def test_a_known_mixture_has_its_analytic_value(kept: float) -> None:
    mixed = kept * states(0) + math.sqrt(1 - kept**2) * states(1)
    assert value(states(0), mixed.astype(np.float32)) == pytest.approx(1 - kept, abs=0.03)


def test_it_is_the_mean_over_all_pairs_of_different_utterances() -> None:
    small, owners = states(3)[:9], np.array([0, 0, 1, 1, 1, 2, 3, 3, 3])
    clusters, other = np.array([0, 0, 1, 1]), states(4)[:9]
    deviation = deviations(small)
    found = CleanStates(small, owners, clusters, deviation).distance_to(other)

    def ratio(kept: NDArray[np.bool_]) -> float:
        x, y, own = small[kept] / deviation, other[kept] / deviation, owners[kept]
        apart = [float(((x[t] - x[u]) ** 2).sum()) for t in range(len(x)) for u in range(len(x)) if own[t] != own[u]]
        return float(((x - y) ** 2).sum(axis=1).mean() / np.mean(apart))

    assert found.whole[VALUE] == pytest.approx(ratio(owners >= 0), rel=1e-9)
    assert [each[VALUE] for each in found.without] == pytest.approx([ratio(owners > 1), ratio(owners < 2)], rel=1e-9)


def test_to_scale_and_shift_a_dimension_changes_nothing() -> None:
    scale, shift = np.array([7.0, 0.01, 1.0, 3.0, 100.0, 0.5]), np.array([5.0, -1.0, 0.0, 20.0, -300.0, 1.0])
    x, y = states(0), (0.8 * states(0) + 0.6 * states(1)).astype(np.float32)
    moved = [(each * scale + shift).astype(np.float32) for each in (x, y)]
    assert value(*moved) == pytest.approx(value(x, y), rel=1e-4)


def test_a_rotation_changes_it_unless_the_deviations_are_alike() -> None:
    turn = np.linalg.qr(np.random.default_rng(7).standard_normal((WIDTH, WIDTH)))[0]
    # Only the dimension of the largest deviation is disturbed.
    x = states(0)
    y = x.copy()
    y[:, 3] = states(1)[:, 3]
    alike = [(each / deviations(x)).astype(np.float32) for each in (x, y)]

    assert value(*[(each @ turn).astype(np.float32) for each in alike]) == pytest.approx(value(*alike), rel=0.05)
    assert value(x, y) == pytest.approx(1 / WIDTH, abs=0.01)
    assert value(*[(each @ turn).astype(np.float32) for each in (x, y)]) > 2 * value(x, y)


def test_a_constant_dimension_is_not_blown_up() -> None:
    x = np.hstack([states(0), np.full((len(OWNERS), 1), 2.0, dtype=np.float32)])
    y = x + np.float32(1e-6)
    assert value(x, y) < 1e-6


def test_states_that_do_not_differ_between_utterances_have_no_value() -> None:
    x = np.zeros((len(OWNERS), WIDTH), dtype=np.float32)
    assert clean(x).distance_to(states(1)).whole[VALUE] is None
    one = CleanStates(states(0)[:5], np.zeros(5, dtype=np.int64), np.array([0]), deviations(states(0)))
    found = one.distance_to(states(1)[:5])
    assert (found.whole[VALUE], found.without) == (None, ())


def test_the_interval_covers_other_speakers() -> None:
    generator, held = np.random.default_rng(11), 0
    for trial in range(200):
        x = states(100 + trial)
        # Each speaker keeps another share of the state: 1 - a with a from 0.6 to 1.
        kept = np.repeat(generator.uniform(0.6, 1.0, SPEAKERS), len(OWNERS) // SPEAKERS)[:, None]
        y = (kept * x + np.sqrt(1 - kept**2) * states(1000 + trial)).astype(np.float32)
        interval = crossed_intervals_of([clean(x).distance_to(y)])[VALUE]
        assert interval is not None
        held += interval.low <= 0.2 <= interval.high
    assert held / 200 >= 0.9


@pytest.mark.parametrize(("hop", "first"), [(160, 0), (160, 80), (320, 200), (200, 12)])
def test_frames_at_times_on_the_grid_are_those_of_the_grid(hop: int, first: int) -> None:
    info = UpstreamInfo(
        name="any", sample_rate_hz=16_000, hop_samples=hop, first_center_samples=first, min_samples=400,
        layer_names=("only",), width=1, utterance_normalised=False, trainable=False, citation="none", licence="MIT",
    )  # fmt: skip
    expected = nearest_frames(3000, 2000, sample_rate_hz=16_000, hop=hop, first_center=first)
    assert nearest_to(instants_s(3000), 2000, info).tolist() == expected.tolist()


def test_a_model_of_one_vector_has_it_at_all_times() -> None:
    vector = UpstreamInfo(
        name="vector", kind="utterance", sample_rate_hz=16_000, hop_samples=0, first_center_samples=0, min_samples=1,
        layer_names=("vector",), width=2, utterance_normalised=False, trainable=False, citation="", licence="",
    )  # fmt: skip
    assert nearest_to(instants_s(5), 1, vector).tolist() == [0] * 5


# Models


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return tone_corpus(tmp_path_factory.mktemp("corpora") / "tones", num_speakers=4)


@pytest.fixture(scope="module")
def folder(tones: Corpus) -> Path:
    return tones.utterances[0].audio.parents[1]


ENVELOPE = Envelope()
NAME = "py:tests.benchmark.test_invariance:ENVELOPE"


def measured(folder: Path, out: Path, *conditions: str, most_frames: int = 500) -> Invariance:
    request = InvarianceRequest(
        upstream=NAME, conditions=conditions, corpus=str(folder), out=out, most_frames=most_frames
    )
    return invariance(request).invariance


def test_severity_0_is_0_and_noise_grows_with_its_severity(folder: Path, tmp_path: Path) -> None:
    found = measured(folder, tmp_path, "noise:white:s0", "noise:white:s1", "noise:white:s3", "noise:white:s5")
    by_severity = [[each.value for each in row.frames] for row in found.conditions]

    assert found.upstream.layers == ("energy", "projected")
    assert by_severity[0] == [0.0, 0.0]
    assert [each.value for each in found.conditions[0].utterances] == [0.0, 0.0]
    for layer in range(2):
        values = [row[layer] or 0.0 for row in by_severity]
        assert values == sorted(values)
        assert 0 < values[1] < values[3] < 1
        assert found.mean[layer].value == pytest.approx(sum(values) / 4)
    assert all(each.ci95 is not None and each.ci95[0] <= (each.value or 0.0) <= each.ci95[1] for each in found.mean)
    assert (found.sample.interval_unit, found.sample.n_clusters) == ("speaker", 4)


def test_a_condition_that_moves_time_is_compared_at_the_moved_instants(
    tones: Corpus, folder: Path, tmp_path: Path
) -> None:
    found = measured(folder, tmp_path, "speed:factor=1.5", most_frames=100_000)
    condition = parse_condition("speed:factor=1.5")
    info, clean_rows, moved_rows, unmoved_rows = ENVELOPE.info, [], [], []
    owners: list[int] = []
    options = ExtractionOptions(batch_seconds=30.0, device=torch.device("cpu"))
    utterances = sorted(tones.utterances, key=lambda each: (each.speaker, each.id))
    for number, utterance in enumerate(utterances):
        times = instants_s(utterance.num_samples * 100 // utterance.sample_rate_hz)
        a, b = (
            extract(ENVELOPE, [each], [0], options).frames[0].numpy()
            for each in (utterance, disturbed(utterance, condition))
        )
        clean_rows.append(a[nearest_to(times, len(a), info)])
        moved_rows.append(b[nearest_to(times / 1.5, len(b), info)])
        unmoved_rows.append(b[nearest_to(times, len(b), info)])
        owners += [number] * len(times)
    x, moved, unmoved = (np.concatenate(rows) for rows in (clean_rows, moved_rows, unmoved_rows))
    speakers = sorted({each.speaker or "" for each in utterances})
    clusters = np.array([speakers.index(each.speaker or "") for each in utterances])
    reference = CleanStates(x, np.array(owners), clusters, deviations(x))

    ours = found.conditions[0].frames[0].value
    assert ours == pytest.approx(reference.distance_to(moved).whole[VALUE], rel=0.02)
    assert (reference.distance_to(unmoved).whole[VALUE] or 0.0) > 2 * (ours or 1.0)


def test_it_is_the_same_every_time_and_a_changed_file_is_found(folder: Path, tmp_path: Path) -> None:
    conditions = ("noise:babble:10", "gain:s3")
    first, second = (measured(folder, tmp_path / name, *conditions) for name in ("a", "b"))
    assert (first.conditions, first.mean) == (second.conditions, second.mean)
    path = tmp_path / "a" / "invariance.json"
    assert read_invariance(path) == first
    assert (tmp_path / "a" / "layers.svg").is_file()
    fields = json.loads(path.read_text("utf-8"))
    fields["conditions"][0]["frames"][0]["value"] = 0.0
    path.write_text(json.dumps(fields))
    with pytest.raises(IntegrityError, match="was changed"):
        read_invariance(path)
    fields["mean"] = fields["mean"][:1]
    path.write_text(json.dumps(fields))
    with pytest.raises(DataError, match="not one value for each layer"):
        read_invariance(path)


def test_a_command_without_a_condition_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no condition"):
        measured(folder, tmp_path)
    finished = repbench("invariance", "mel", "--corpus", folder, "--conditions", "tough")
    assert (finished.code, "There is no set of conditions `tough`" in finished.err) == (2, True)
    finished = repbench("invariance", "mel", "--corpus", folder, "--condition", "gain:s3", "--set", "split.seed=1")
    assert (finished.code, "`split.seed` has no effect here" in finished.err) == (2, True)


@pytest.mark.slow
def test_a_report_has_a_line_for_each_model_and_the_table_of_each(folder: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for upstream in ("mel", "good"):
        write(runs, upstream=upstream)
    for name in ("mel", "mel_no_cmvn"):
        arguments = ("--corpus", folder, "--condition", "gain:s3", "--condition", "noise:white:5", "--frames", "400")
        finished = repbench("invariance", name, *arguments, "--out", runs / name)
        assert finished.code == 0, finished.err
        assert MEAN in finished.out
    write_report(ReportRequest(runs=(runs,), out=tmp_path / "out"))
    report = assemble([runs])

    values = {each.invariance.upstream.name: each.invariance for each in report.invariances}
    of_gain = {name: each.conditions[0].frames[0].value or 0.0 for name, each in values.items()}
    # A gain is a shift of log mel, which the normalisation over the utterance takes away.
    assert of_gain["mel"] < 0.05 < 0.1 < of_gain["mel_no_cmvn"]
    assert values["mel"].conditions[0].utterances[0].value is None
    (summary,) = summary_of(report.invariances)
    assert [row[0].text for row in summary.rows] == ["mel", "mel_no_cmvn"]
    assert summary.rows[0][5].text == f"{values['mel'].mean[0].value:.3f}"
    assert len(list(tables_in(report.invariances))) == 3
    text = {each.name: each.read_text("utf-8") for each in (tmp_path / "out").iterdir()}
    assert "## Invariance without labels: tones" in text["report.md"]
    assert text["index.html"].count('aria-labelledby="invariance-') == 2
    assert {each["upstream"]["name"] for each in json.loads(text["results.json"])["invariances"]} == set(values)
    # A file that was changed is left out and named.
    path = runs / "mel" / "invariance.json"
    path.write_text(path.read_text("utf-8").replace('"n_clusters": 4', '"n_clusters": 5'))
    again = assemble([runs])
    assert [each.invariance.upstream.name for each in again.invariances] == ["mel_no_cmvn"]
    assert "was changed" in again.gathered.unreadable[path]
