"""The main job from end to end: records that say everything, refusals that come first."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import soundfile
import torch

import repbench
from repbench.benchmark.data.splits import divide
from repbench.benchmark.pipeline.existing_records import identity_of
from repbench.benchmark.pipeline.write_record import record_folder
from repbench.benchmark.probing.probe import encoded_probe, load_probe
from repbench.benchmark.protocol import ProbeSettings, Protocol, load_protocol
from repbench.benchmark.records.record import json_schema, read_predictions
from repbench.benchmark.report.data.columns import columns_of
from repbench.benchmark.run import RunRequest, WrittenRecord, run
from repbench.corpora.open import open_corpus
from repbench.downstream.phone import Phone
from repbench.downstream.speaker import Speaker
from repbench.errors import (
    DataError,
    EnvironmentFault,
    IntegrityError,
    NonFiniteError,
    PluginError,
    RepbenchError,
    UsageError,
)
from repbench.testing import Envelope, tone_corpus

QUICK = Protocol(probe=ProbeSettings(steps=40, batch_frames=256, hidden_units=32, selection_points=4))
ENVELOPE = "py:repbench.testing.fakes:envelope"


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "tones"
    tone_corpus(folder)
    return folder


def go(tones: Path, out: Path, **changes: Any) -> list[WrittenRecord]:
    protocol = Protocol() if "probe" in changes else QUICK
    request = RunRequest(upstream="mel", downstream="phone", corpus=str(tones), out=out, protocol=protocol)
    return run(dataclasses.replace(request, **changes))


def test_a_run_leaves_a_complete_record(tones: Path, tmp_path: Path) -> None:
    (written,) = go(tones, tmp_path)
    on_disk = json.loads(written.path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(json_schema()).validate(on_disk)
    record = written.record
    assert record.as_dict() == on_disk
    assert record.n_listed == record.n_scored == record.corpus.n_test == 8
    assert record.test_accesses == 1
    assert record.corpus.split_policy == "seeded by speaker (seed 0)"
    assert set(record.metrics) == {"accuracy", "macro_f1", "accuracy_nonsilence", "phone_error_rate"}
    assert record.baselines.chance == 0.25
    assert len(record.selection.grid) == 4
    assert sorted(path.name for path in written.path.parent.iterdir()) == [
        "predictions.jsonl", "probe.safetensors", "record.json"
    ]  # fmt: skip


def test_the_numbers_can_be_computed_again_from_the_predictions(tones: Path, tmp_path: Path) -> None:
    for task in (Phone(), Speaker()):
        (written,) = go(tones, tmp_path, downstream=task.info.name)
        predictions = read_predictions(written.path.parent / "predictions.jsonl")
        assert len(predictions) == written.record.n_scored
        classes = ("AA", "IY", "UW", "sil") if task.info.name == "phone" else tuple(f"s{i}" for i in range(6))
        for order in (predictions, predictions[::-1]):
            measured = task.measure(order, classes)
            assert {name: each.value for name, each in measured.items()} == {
                name: metric.value for name, metric in written.record.metrics.items()
            }


def test_a_run_can_be_repeated_to_the_last_digit(tones: Path, tmp_path: Path) -> None:
    (first,), (again,) = go(tones, tmp_path / "a"), go(tones, tmp_path / "b")
    assert first.record.metrics == again.record.metrics
    assert first.record.selection == again.record.selection


def test_the_majority_baseline_is_that_of_the_test_split(tones: Path, tmp_path: Path) -> None:
    (written,) = go(tones, tmp_path)
    predictions = read_predictions(written.path.parent / "predictions.jsonl")
    counts = np.zeros(4)
    for each in predictions:
        for reference, _, number in each.confusion:  # type: ignore[attr-defined]
            counts[reference] += number
    division = divide(open_corpus(str(tones)), "speaker-disjoint", QUICK.split)
    seconds = dict.fromkeys(("AA", "IY", "UW", "sil"), 0.0)
    for utterance in division.train:
        for phone in utterance.phones or ():
            seconds[phone.label] += phone.end_s - phone.start_s
    frequent = list(seconds).index(max(seconds, key=seconds.__getitem__))
    assert written.record.baselines.majority == pytest.approx(counts[frequent] / counts.sum())


def test_fault_each_layer_that_is_named_has_its_record(tones: Path, tmp_path: Path) -> None:
    layers = ("1", "last", "weighted", "1")
    written = go(tones, tmp_path, upstream=ENVELOPE, layers=layers, seeds=(0, 1))
    assert [(each.record.layer, each.record.seed) for each in written] == [
        ("1", 0), ("1", 1), ("last", 0), ("last", 1), ("weighted", 0), ("weighted", 1)
    ]  # fmt: skip
    (alone,) = go(tones, tmp_path / "alone", upstream=ENVELOPE, layer="1")
    assert written[0].record.metrics == alone.record.metrics


def test_fault_a_layer_that_is_not_there_or_stands_in_all_is_refused_first(tones: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no layer `9`"):
        go(tones, tmp_path, upstream=ENVELOPE, layers=("last", "9"))
    with pytest.raises(UsageError, match="`all` reads layer 1 too"):
        go(tones, tmp_path, upstream=ENVELOPE, layers=("all", "1"))
    assert not list(tmp_path.rglob("record.json"))


def test_layers_fractions_and_seeds_give_a_record_each(tones: Path, tmp_path: Path) -> None:
    written = go(
        tones,
        tmp_path,
        upstream=ENVELOPE,
        downstream="sentiment",
        layer="all",
        seeds=(0, 1),
        label_fractions=(0.5, 1.0),
    )
    settings = [(each.record.layer, each.record.label_fraction, each.record.seed) for each in written]
    assert settings == [(layer, fraction, seed) for layer in "01" for fraction in (0.5, 1.0) for seed in (0, 1)]
    assert len({each.path for each in written}) == 8
    seconds = {each.record.label_fraction: each.record.label_seconds.train for each in written}
    assert 0.3 * seconds[1.0] < seconds[0.5] < 0.7 * seconds[1.0]


def test_a_saved_probe_scores_another_corpus(tones: Path, tmp_path: Path) -> None:
    (source,) = go(tones, tmp_path / "runs", downstream="sentiment")
    tone_corpus(tmp_path / "other", num_speakers=3, per_session=5, salt="other")
    (scored,) = go(tmp_path / "other", tmp_path / "runs", downstream="sentiment", probe=source.path.parent)
    assert scored.record.n_scored == 30
    assert scored.record.corpus.n_train == 0
    assert source.record.id in scored.record.corpus.split_policy
    assert scored.record.protocol == source.record.protocol
    assert "3 of 3 speakers have the name of one that the probe was trained on" in scored.record.corpus.warnings
    (again,) = go(tmp_path / "other", tmp_path / "runs", downstream="sentiment", probe=source.path)
    assert again.record.metrics == scored.record.metrics
    with pytest.raises(DataError, match="40 of 48 utterances of tones trained or selected this probe"):
        go(tones, tmp_path / "runs", downstream="sentiment", probe=source.path.parent)
    for option, change in (("--layer", {"layer": "first"}), ("--seed", {"seeds": (4,)}), ("--head", {"head": "mlp2"})):
        with pytest.raises(UsageError, match=rf"already trained \(key {option}\)"):
            go(tmp_path / "other", tmp_path, downstream="sentiment", probe=source.path.parent, **change)
    with pytest.raises(UsageError, match="trained for sentiment on mel, not for phone on mel"):
        go(tones, tmp_path, probe=source.path.parent)
    tone_corpus(tmp_path / "five", num_speakers=5)
    (five,) = go(tmp_path / "five", tmp_path / "runs", downstream="speaker")
    with pytest.raises(DataError, match="classes that the probe does not know: s5"):
        go(tones, tmp_path / "runs", downstream="speaker", probe=five.path.parent)


def test_a_probe_of_another_upstream_is_refused(tones: Path, tmp_path: Path) -> None:
    (source,) = go(tones, tmp_path, upstream=ENVELOPE)
    record = json.loads(source.path.read_text(encoding="utf-8"))
    record["upstream"]["name"] = "mel"
    source.path.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(IntegrityError, match="trained on another `mel`"):
        go(tones, tmp_path, probe=source.path.parent)


def test_a_probe_that_does_not_say_what_it_heard_is_refused(tones: Path, tmp_path: Path) -> None:
    (source,) = go(tones, tmp_path)
    file = source.path.parent / "probe.safetensors"
    probe, facts = load_probe(file)
    file.write_bytes(encoded_probe(probe, {name: fact for name, fact in facts.items() if name != "heard"}))
    with pytest.raises(IntegrityError, match=r"lacks heard.*probe\.safetensors"):
        go(tones, tmp_path, probe=source.path.parent)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"upstream": "mell"}, "no upstream `mell`.*Did you mean `mel`"),
        ({"downstream": "fone"}, "no downstream `fone`.*Did you mean `phone`"),
        ({"layer": "3"}, "mel has no layer `3`"),
        ({"head": "gru"}, "no head `gru`"),
        ({"label_fractions": (0.0,)}, r"must be in \(0, 1\]"),
        ({"device": "tpu"}, "no device `tpu`"),
        ({"checkpoint": "x.pt"}, "`mel` has no weights"),
        ({"downstream": "speaker", "head": "linear"}, "reads only the mean over time.*its input would be constant"),
        ({"downstream": "speaker", "head": "linear", "layer": "mel"}, "its input would be constant"),
        ({"downstream": "sentiment", "protocol": Protocol(task={"colour": "red"})}, "It takes task.attribute"),
        ({"downstream": "sentiment", "protocol": Protocol(task={"attribute": 5})}, "`task.attribute` must be a name"),
        ({"downstream": "sentiment", "protocol": Protocol(task={"positive": "joy"})}, "must be a list of words"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_data_is_read(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        go(tmp_path / "there is no corpus here", tmp_path, **changes)


def test_a_pooled_linear_head_is_allowed_where_it_sees_something(tones: Path, tmp_path: Path) -> None:
    (written,) = go(tones, tmp_path, upstream="mel_no_cmvn", downstream="speaker", head="linear")
    assert written.record.head == "linear"


def test_a_fraction_without_a_class_is_refused(tones: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"The fraction 0.05 leaves 1 training utterances"):
        go(tones, tmp_path, downstream="speaker", label_fractions=(0.05,))


def test_an_exclusion_from_test_must_be_allowed_and_stands_in_the_record(tmp_path: Path) -> None:
    corpus = tone_corpus(tmp_path / "tones")
    path = tmp_path / "tones" / "manifest.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    (plain,) = go(tmp_path / "tones", tmp_path / "runs")
    answers = (plain.path.parent / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    scored = json.loads(answers[0])["id"]
    for line in lines:
        if line["id"] == scored:
            del line["phones"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(DataError, match=r"1 of 8 test utterances cannot be scored.*--allow-excluded 1"):
        go(tmp_path / "tones", tmp_path / "runs")
    (written,) = go(tmp_path / "tones", tmp_path / "runs", allow_excluded=1)
    assert written.record.excluded == {scored: "no phone alignment"}
    assert (written.record.n_listed, written.record.n_scored) == (8, 7)
    assert corpus.fingerprint != written.record.corpus.fingerprint


def test_fault_17_another_rate_is_refused_or_resampled_and_recorded(tmp_path: Path) -> None:
    tone_corpus(tmp_path / "c", sample_rate_hz=8000)
    (written,) = go(tmp_path / "c", tmp_path / "runs")
    assert "resampled from 8000 Hz to 16000 Hz by soxr HQ" in written.record.corpus.warnings
    assert written.record.corpus.resampler == "soxr HQ"
    (again,) = go(tmp_path / "c", tmp_path / "runs", missing_only=True)
    assert again.path == written.path
    before = written.record.corpus.model_copy(
        update={"resampler": None, "warnings": ("resampled from 8000 Hz to 16000 Hz",)}
    )
    older = written.record.model_copy(update={"corpus": before})
    assert identity_of(older) != identity_of(written.record), "torchaudio resampled when records did not name it"
    assert columns_of([older])[older.id].facts["resampler"] == "torchaudio"
    header = json.loads((tmp_path / "c" / "corpus.json").read_text(encoding="utf-8"))
    (tmp_path / "c" / "corpus.json").write_text(json.dumps({**header, "resample": "refused"}), encoding="utf-8")
    with pytest.raises(DataError, match=r"mel expects 16000 Hz, but the sound has 8000 Hz.*utterance s0-00"):
        go(tmp_path / "c", tmp_path / "runs")


@pytest.mark.parametrize("change", ["half of it", "its level"])
def test_a_sound_that_changed_after_preparing_is_refused(tmp_path: Path, change: str) -> None:
    tone_corpus(tmp_path / "c", salt=change)  # not yet heard: of a sound in the feature store the file is not read
    sound = tmp_path / "c" / "sounds" / "s0-00.wav"
    samples, rate = soundfile.read(sound)
    soundfile.write(sound, samples[: len(samples) // 2] if change == "half of it" else samples * 0.5, rate)
    with pytest.raises(DataError, match=r"manifest.*s0-00"):
        go(tmp_path / "c", tmp_path / "runs")


def test_a_linear_head_on_another_layer_is_no_constant(tones: Path, tmp_path: Path) -> None:
    normalised = "py:tests.benchmark.test_run:normalised_envelope"
    (written,) = go(tones, tmp_path, upstream=normalised, downstream="speaker", head="linear", layer="1")
    assert written.record.layer == "1"
    for layer in ("0", "first", "all"):
        with pytest.raises(UsageError, match="layer 0 of envelope is normalised"):
            go(tones, tmp_path, upstream=normalised, downstream="speaker", head="linear", layer=layer)


def normalised_envelope(*, checkpoint: str | None = None, seed: int = 0) -> Envelope:
    """An `Envelope` that declares its first layer normalised, with weights drawn from the seed."""
    upstream = Envelope()
    upstream.info = dataclasses.replace(upstream.info, utterance_normalised=True)
    with torch.no_grad():
        upstream.projection.normal_(generator=torch.Generator().manual_seed(seed))
    return upstream


def test_each_seed_of_an_untrained_network_is_another_network(tones: Path, tmp_path: Path) -> None:
    written = go(
        tones, tmp_path, upstream="py:tests.benchmark.test_run:normalised_envelope", checkpoint="random", seeds=(0, 1)
    )
    assert [each.record.seed for each in written] == [0, 1]
    assert len({each.record.upstream.fingerprint for each in written}) == 2


def test_a_factory_of_another_shape_is_the_plugins_fault(tones: Path, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="must take the keywords checkpoint and seed"):
        go(tones, tmp_path, upstream="py:repbench.testing.fakes:Envelope")


def test_a_place_that_cannot_be_written_is_refused_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(EnvironmentFault, match="file"):
        go(tmp_path / "there is no corpus here", tmp_path / "file")


def test_a_corpus_cannot_name_a_place_outside(tones: Path, tmp_path: Path) -> None:
    (written,) = go(tones, tmp_path)
    for name in ("..", "../../x", "a/b", "", "." * 300, "x" * 300):
        corpus = written.record.corpus.model_copy(update={"name": name})
        folder = record_folder(tmp_path, written.record.model_copy(update={"corpus": corpus}))
        assert folder.resolve().is_relative_to(tmp_path.resolve())
        assert len(folder.relative_to(tmp_path).parts) == 4
        assert all(len(part) <= 80 for part in folder.relative_to(tmp_path).parts)


def test_a_relative_root_is_as_good_as_an_absolute_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tone_corpus(Path("tones"))
    (written,) = go(Path("tones"), Path("runs"))
    monkeypatch.chdir("/")
    assert (tmp_path / written.path).is_file()
    assert go(tmp_path / "tones", tmp_path / "elsewhere")[0].record.metrics == written.record.metrics


def test_evaluate_is_the_same_from_python(tones: Path, tmp_path: Path) -> None:
    (record,) = repbench.evaluate("mel", "phone", corpus=str(tones), out=tmp_path, protocol=QUICK)
    assert record.metrics == go(tones, tmp_path)[0].record.metrics
    assert len(repbench.read_records(tmp_path)) == 2


def test_a_protocol_is_a_preset_changed_by_a_file_and_by_settings(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("probe:\n  steps: 7\n  learning_rate: 1e-2\n", encoding="utf-8")
    protocol = load_protocol("default", config, ["probe.steps=9", "task.attribute=mood"])
    assert (protocol.probe.steps, protocol.probe.learning_rate) == (9, 1e-2)
    assert protocol.task == {"attribute": "mood"}
    assert load_protocol() == Protocol()
    with pytest.raises(UsageError, match=r"did you mean `probe.learning_rate`"):
        load_protocol(assignments=["probe.lerning_rate=1"])


def test_several_processes_are_refused_where_nothing_is_fine_tuned(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match=r"torchrun started 2 processes, but only --finetune"):
        go(tones, tmp_path)


def test_a_rate_that_ends_in_nan_is_out_of_the_choice_and_said(tones: Path, tmp_path: Path) -> None:
    rates = ["probe.learning_rates=[0.01, 1e30]", "probe.learning_rate=0.01"]
    protocol = load_protocol(assignments=["probe.steps=10", "probe.batch_frames=64", *rates])
    default, tuned = [each.record for each in go(tones, tmp_path, protocol=protocol, tune=True, head="mlp2")]
    assert not any("out of the choice" in warning for warning in default.corpus.warnings)
    assert any(re.search(r"1e\+30 the probe ended .* at step \d+", warning) for warning in tuned.corpus.warnings)
    assert tuned.selection.chosen["learning_rate"] == 0.01
    hopeless = load_protocol(assignments=["probe.steps=10", "probe.batch_frames=64", "probe.learning_rate=1e30"])
    with pytest.raises(NonFiniteError, match=r"seed 0 ends in NaN or infinity at step \d+"):
        go(tones, tmp_path, protocol=hopeless, tune=True, head="mlp2")


def test_every_refusal_is_a_repbench_error_with_a_code() -> None:
    def family(error: type[RepbenchError]) -> set[type[RepbenchError]]:
        return {error, *(each for child in error.__subclasses__() for each in family(child))}

    assert {error.exit_code for error in family(RepbenchError)} == {1, 2, 3, 4, 5, 6, 7, 8}
