"""A changed record is found out, and the field is named."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from repbench.benchmark.loading.tasks import build_task
from repbench.benchmark.protocol import ProbeSettings, Protocol
from repbench.benchmark.records.record import digest_of, read_record
from repbench.benchmark.records.verify import Verification, verify_record
from repbench.benchmark.run import RunRequest, run
from repbench.benchmark.scoring.metrics import measure_clusters
from repbench.downstream.contract import MeasuredByTallies, Measurement, Prediction, UtterancePrediction
from repbench.downstream.speaker import Speaker
from repbench.errors import DataError, IntegrityError
from repbench.registry import registry
from repbench.testing import tone_corpus
from tests.benchmark.forging import copied, edit, edit_predictions, put
from tests.benchmark.report_records import PHONES, answers
from tests.commands import repbench

QUICK = Protocol(probe=ProbeSettings(steps=20, batch_frames=256, hidden_units=16, selection_points=2))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A record of each kind of task."""
    folder = tmp_path_factory.mktemp("verify")
    tone_corpus(folder / "tones")
    return {
        task: run(
            RunRequest(upstream="mel", downstream=task, corpus=str(folder / "tones"), out=folder / task, protocol=QUICK)
        )[0].path.parent
        for task in ("phone", "speaker")
    }


@pytest.fixture
def phone(made: dict[str, Path], tmp_path: Path) -> Path:
    return copied(made["phone"], tmp_path / "phone")


@pytest.fixture
def speaker(made: dict[str, Path], tmp_path: Path) -> Path:
    return copied(made["speaker"], tmp_path / "speaker")


def fields(verdict: Verification) -> list[str]:
    return [change.field for change in verdict.changes]


def test_an_untouched_record_holds(phone: Path, speaker: Path) -> None:
    for folder in (phone, speaker):
        assert verify_record(folder).holds
        assert verify_record(folder / "record.json").changes == ()


def test_predictions_are_read_up_to_what_the_utterances_and_classes_of_the_record_need(
    speaker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("repbench.benchmark.records.record.MAX_PREDICTIONS_BYTES", 1000)
    predictions = speaker / "predictions.jsonl"
    assert predictions.stat().st_size > 1000
    assert verify_record(speaker).holds
    record = read_record(speaker / "record.json")
    assert record.downstream.classes is not None
    most = record.n_scored * (1024 + 32 * len(record.downstream.classes))
    assert record.most_predictions_bytes == most
    with predictions.open("ab") as stream:
        stream.write(b" " * most)
    with pytest.raises(IntegrityError, match="larger than"):
        verify_record(speaker)


@pytest.mark.parametrize("sealed_anew", [False, True])
@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("metrics", "accuracy", "value"), 0.999),
        (("metrics", "accuracy", "ci95"), [0.99, 1.0]),
        (("metrics", "accuracy", "ci_unit"), "utterance"),
        (("metrics", "phone_error_rate", "higher_is_better"), True),
        (("metrics", "phone_error_rate", "unit"), "percent"),
        (("metrics", "accuracy", "counts", "correct"), 1),
        (("primary_metric",), "accuracy_nonsilence"),
    ],
)
def test_a_number_that_does_not_follow_from_the_predictions_is_named(
    phone: Path, path: tuple[str, ...], value: object, sealed_anew: bool
) -> None:
    edit(phone, put(*path, value=value), sealed_anew=sealed_anew)
    (change,) = verify_record(phone).changes
    assert (change.field, change.stored) == (".".join(path), tuple(value) if isinstance(value, list) else value)
    assert change.found != change.stored


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("seed",), 7),
        (("layer",), "3"),
        (("upstream", "name"), "mockingjay"),
        (("upstream", "origin"), {"distribution": "other", "version": "1"}),
        (("corpus", "fingerprint"), "0" * 64),
        (("corpus", "n_test"), 9),
        (("corpus", "warnings"), ["nothing"]),
        (("cost", "parameters"), 1),
        (("baselines", "majority"), 0.0),
        (("label_fraction",), 0.01),
        (("downstream", "version"), "0"),
        (("certificate",), "gold"),
    ],
)
def test_any_other_field_that_was_changed_is_named_by_its_seal(
    phone: Path, path: tuple[str, ...], value: object
) -> None:
    edit(phone, put(*path, value=value))
    assert fields(verify_record(phone)) == [".".join(path)]


def test_a_metric_that_is_missing_or_made_up_is_named(phone: Path) -> None:
    edit(phone, lambda record: record["metrics"].update(glory=record["metrics"].pop("macro_f1")), sealed_anew=True)
    assert fields(verify_record(phone)) == ["metrics.macro_f1", "metrics.glory"]


def test_a_record_without_a_seal_is_held_to_its_id(speaker: Path) -> None:
    edit(speaker, put("seal", value=None))
    edit(speaker, lambda record: record.update(id=digest_of(record)))
    assert verify_record(speaker).holds
    edit(speaker, put("seed", value=7))
    assert fields(verify_record(speaker)) == ["id"]


def test_permuted_predictions_have_the_same_score(phone: Path, speaker: Path) -> None:
    for folder in (phone, speaker):
        edit_predictions(folder, random.Random(1).shuffle)
        assert verify_record(folder).holds


def test_missing_predictions_are_missed(speaker: Path) -> None:
    def lose_one(lines: list[dict[str, Any]]) -> None:
        del lines[0]

    edit_predictions(speaker, lose_one)
    assert "n_scored" in fields(verify_record(speaker))


def test_a_changed_answer_is_found_out(speaker: Path) -> None:
    def turn(lines: list[dict[str, Any]]) -> None:
        lines[0]["scores"] = lines[0]["scores"][::-1]
        lines[1]["reference"] = 1 - min(lines[1]["reference"], 1)

    edit_predictions(speaker, turn)
    assert any(field.startswith("metrics.") for field in fields(verify_record(speaker)))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"reference": -1}, "the reference -1 is none of 6 classes"),
        ({"reference": True}, "the reference True is none of"),
        ({"scores": [0.5]}, "1 scores for 6 classes"),
        ({"scores": [float("nan")] * 6}, "a score is not a finite number"),
        ({"scores": [10**400] * 6}, "a score is not a finite number"),
        ({"speaker": ["a"]}, "speaker and group must be names"),
        ({"id": {}}, "No run writes this id"),
        ({"id": "half \ud800"}, "No run writes this id"),
        ({"group": "half \ud800"}, "speaker and group must be names"),
    ],
)
def test_predictions_that_no_run_writes_are_refused(speaker: Path, change: dict[str, Any], match: str) -> None:
    edit_predictions(speaker, lambda lines: lines[2].update(change))
    with pytest.raises(IntegrityError, match=match):
        verify_record(speaker)


def test_answers_of_another_kind_are_refused(phone: Path, speaker: Path) -> None:
    (speaker / "predictions.jsonl").write_bytes((phone / "predictions.jsonl").read_bytes())
    with pytest.raises(IntegrityError, match="it is no prediction of utterance-classification"):
        verify_record(speaker)


def test_predictions_that_are_no_text_are_refused(speaker: Path) -> None:
    (speaker / "predictions.jsonl").write_bytes(b'{"id": "\xff"}\n')
    with pytest.raises(IntegrityError, match=r"These are no predictions.*predictions\.jsonl"):
        verify_record(speaker)


def test_deep_json_is_refused_and_no_recursion_error(speaker: Path) -> None:
    (speaker / "predictions.jsonl").write_text("[" * 200_000, encoding="utf-8")
    with pytest.raises(IntegrityError, match="Line 1 is not a prediction: it is nested too deeply"):
        verify_record(speaker)
    for depth in (50, 10_000):
        nested = '{"a":' * depth + "1" + "}" * depth
        (speaker / "record.json").write_text(nested, encoding="utf-8")
        with pytest.raises(IntegrityError, match="it is nested too deeply"):
            verify_record(speaker)


def test_huge_json_is_refused_before_it_is_read(speaker: Path) -> None:
    with (speaker / "record.json").open("ab") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(IntegrityError, match="it is larger than 16 MiB"):
        verify_record(speaker)


def test_a_task_that_only_the_record_names_is_not_imported(speaker: Path, tmp_path: Path) -> None:
    (tmp_path / "canary_of_a_record.py").write_text("raise SystemExit('the canary sang')", encoding="utf-8")
    edit(speaker, put("downstream", "name", value="py:canary_of_a_record:Task"), sealed_anew=True)
    env = {"PYTHONPATH": str(tmp_path)}
    done = repbench("verify", speaker, env=env)
    assert (done.code, done.out, "the canary sang" in done.err) == (2, "", False)
    assert "nothing is imported because a record names it" in done.err


def test_each_change_is_a_sentence(phone: Path) -> None:
    edit(phone, put("metrics", "accuracy", "value", value=0.999))
    edit(phone, put("seed", value=7))
    number, seal = (change.sentence for change in verify_record(phone).changes)
    assert re.fullmatch(r"`metrics.accuracy.value` is 0.999, but the predictions give 0\.\d{1,6}", number)
    assert seal == "`seed` was changed after it was sealed"


def test_the_command_goes_on_after_a_fault_and_names_every_change(phone: Path, speaker: Path, tmp_path: Path) -> None:
    edit(phone, put("metrics", "accuracy", "value", value=0.999))
    edit(phone, put("layer", value="\x1b[2J\u202e"))
    done = repbench("verify", tmp_path / "nowhere", phone, speaker)
    assert done.code == 4
    assert done.err.splitlines() == [
        f"error: There is no record here (file {tmp_path / 'nowhere'}). Give a run's folder or its record.json."
    ]
    first, second, third = done.out.splitlines()
    assert first.startswith(f"{phone / 'record.json'}: `metrics.accuracy.value` is 0.999, but the predictions give 0.")
    assert second == f"{phone / 'record.json'}: `layer` was changed after it was sealed"
    assert third == f"{speaker / 'record.json'}: holds (2 metrics of 24 predictions)"


def test_the_exit_code_is_that_of_the_worst_fault(phone: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert repbench("verify", phone).code == 0
    assert repbench("verify", tmp_path / "empty", phone).code == 3
    (phone / "record.json").write_text("{", encoding="utf-8")
    assert repbench("verify", tmp_path / "empty", phone).code == 4


def test_the_command_prints_json(phone: Path, tmp_path: Path) -> None:
    edit(phone, put("metrics", "accuracy", "ci95", value=[0.99, 1.0]))
    done = repbench("verify", tmp_path, tmp_path / "nowhere", "--json")
    assert (done.code, done.json["holds"]) == (4, False)
    changed, missing = done.json["records"]
    assert (changed["path"], changed["holds"]) == (str(phone / "record.json"), False)
    (change,) = changed["changes"]
    assert (change["field"], change["stored"]) == ("metrics.accuracy.ci95", [0.99, 1.0])
    assert missing["error"]["exit_code"] == 3


def test_frames_that_no_run_writes_are_refused(phone: Path) -> None:
    edit_predictions(phone, lambda lines: lines[0].update(confusion=[[0, -1, 5]]))
    with pytest.raises(IntegrityError, match="the confusion of 0 with -1 is not of 4 classes"):
        verify_record(phone)
    edit_predictions(phone, lambda lines: lines[0].update(confusion=[[0, 1, -5]]))
    with pytest.raises(IntegrityError, match="-5 instants"):
        verify_record(phone)


def test_an_utterance_answered_twice_is_refused(speaker: Path) -> None:
    edit_predictions(speaker, lambda lines: lines.append(lines[0]))
    with pytest.raises(IntegrityError, match="has two predictions"):
        verify_record(speaker)


def test_nan_in_a_record_is_refused(speaker: Path) -> None:
    edit(speaker, put("protocol", "probe", value=float("nan")))
    with pytest.raises(IntegrityError, match=r"NaN or infinity.*record\.json"):
        verify_record(speaker)


def test_predictions_that_are_not_there_are_asked_for(speaker: Path) -> None:
    (speaker / "predictions.jsonl").unlink()
    with pytest.raises(DataError, match="The folder of the record has no predictions"):
        verify_record(speaker)


def test_an_older_record_takes_its_classes_from_the_probe(made: dict[str, Path], speaker: Path) -> None:
    def age(record: dict[str, Any]) -> None:
        del record["downstream"]["classes"], record["seal"]
        record["id"] = digest_of(record)

    edit(speaker, age)
    with pytest.raises(IntegrityError, match="Neither the record nor a probe in its folder names the classes"):
        verify_record(speaker)
    (speaker / "probe.safetensors").write_bytes((made["speaker"] / "probe.safetensors").read_bytes())
    assert verify_record(speaker).holds


@pytest.mark.parametrize("name", ["phone", "speaker", "sentiment"])
def test_a_task_that_tallies_measures_the_same_as_over_all_predictions(name: str) -> None:
    task = build_task(registry().find("downstream", name).entry, {})
    assert isinstance(task, MeasuredByTallies)
    classes = PHONES if name == "phone" else ("negative", "positive")
    several = [answers(name if name == "phone" else "sentiment", 0.6, seed) for seed in range(3)]
    tallies = [task.tally(predictions, classes) for predictions in several]
    assert task.measure_tallies(tallies, classes) == task.measure([each for one in several for each in one], classes)
    assert task.measure_tallies([], classes) == task.measure([], classes)


@pytest.mark.parametrize("score", [True, float("nan"), 2**60, 10**400, "1", None])
def test_a_score_that_no_run_writes_is_named(speaker: Path, score: object) -> None:
    edit_predictions(speaker, lambda lines: lines[3]["scores"].__setitem__(0, score))
    with pytest.raises(IntegrityError, match="not a finite number"):
        verify_record(speaker)


@pytest.mark.parametrize("cell", [[0, 0, True], [0, 0, 1.0], [0, -1, 1], [99, 0, 1], [0, 0, 10**30], [0, 0, "1"]])
def test_a_cell_that_no_run_writes_is_named(phone: Path, cell: list[object]) -> None:
    edit_predictions(phone, lambda lines: lines[2]["confusion"].append(cell))
    with pytest.raises(IntegrityError, match="No run writes this prediction"):
        verify_record(phone)


def test_class_scores_that_no_metric_shows_are_found_out(speaker: Path) -> None:
    def louder(lines: list[dict[str, Any]]) -> None:
        lines[0]["scores"] = [2 * score + 1 for score in lines[0]["scores"]]

    edit_predictions(speaker, louder)
    verdict = verify_record(speaker)
    assert fields(verdict) == ["predictions_sha256"]
    assert verdict.changes[0].sentence.startswith("`predictions_sha256` is ")
    result = repbench("verify", speaker)
    assert result.code == 4
    assert "predictions_sha256" in result.out


def test_predictions_have_the_digest_of_their_file(phone: Path) -> None:
    content = (phone / "predictions.jsonl").read_bytes()
    assert read_record(phone / "record.json").predictions_sha256 == hashlib.sha256(content).hexdigest()


def test_another_probe_beside_a_record_is_found_out(made: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(made["speaker"], tmp_path / "with-probe")
    probe = folder / "probe.safetensors"
    assert verify_record(folder, weights=True).holds
    probe.write_bytes((made["speaker"] / "probe.safetensors").read_bytes())
    assert verify_record(folder, weights=True).holds
    probe.write_bytes((made["phone"] / "probe.safetensors").read_bytes())
    assert fields(verify_record(folder, weights=True)) == ["probe_sha256"]
    assert repbench("verify", folder).code == 4


def test_a_record_from_before_digests_were_kept_still_holds(speaker: Path) -> None:
    def as_it_was(record: dict[str, Any]) -> None:
        for name in ("predictions_sha256", "probe_sha256"):
            del record[name]
        del record["cost"]["real_time_factor"]

    edit(speaker, as_it_was, sealed_anew=True)
    assert verify_record(speaker, weights=True).holds


class OtherSpeaker(Speaker):
    """A task that measures otherwise than the one whose tallies it inherits."""

    def measure(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> dict[str, Measurement]:
        return {name: Measurement(value=0.25) for name in super().measure(predictions, classes)}


def test_a_task_with_a_measure_of_its_own_is_measured_by_it_and_not_by_inherited_tallies() -> None:
    given = [
        UtterancePrediction(id=f"u{n}", speaker=f"s{n % 2}", group=None, reference=0, scores=(1.0, 0.0))
        for n in range(4)
    ]
    assert measure_clusters(Speaker(), ("a", "b"), given).whole["accuracy"].value == 1.0
    assert measure_clusters(OtherSpeaker(), ("a", "b"), given).whole["accuracy"].value == 0.25
