"""Whether test utterances were heard before: the verdict, its basis, the record, and reports that rank without it."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from repbench.benchmark.pipeline.heard_before import heard_before
from repbench.benchmark.protocol import ProbeSettings, Protocol
from repbench.benchmark.records.parts import HeardPart
from repbench.benchmark.records.record import read_record, sealed_record
from repbench.benchmark.records.verify import verify_record
from repbench.benchmark.report import ReportRequest, assemble, write_report
from repbench.benchmark.report.data.heard import heard_of, together
from repbench.benchmark.run import RunRequest, run
from repbench.corpora.contract import Corpus, Utterance
from repbench.errors import IntegrityError
from repbench.testing import Envelope, tone_corpus
from repbench.upstream.contract import Provenance
from repbench.upstream.training_data import UNKNOWN_DATA, TrainingData
from tests.benchmark.report_records import small_grid, write


def corpus_of(name: str = "librispeech", fingerprint: str = "a" * 64) -> Corpus:
    return Corpus(name=name, licence="CC0", utterances=(), label_sets={}, resample="allowed", fingerprint=fingerprint)


def utterances(count: int = 4, subset: str | None = "test-clean", split: Any = "test") -> list[Utterance]:
    """Utterances of two speakers whose digests are their numbers."""
    attributes = {} if subset is None else {"subset": subset}
    return [
        Utterance(
            id=f"u{number}", audio=Path("u.wav"), sample_rate_hz=16_000, num_samples=16_000,
            speaker=f"{number % 2}", attributes=attributes, split=split, samples_sha256=f"{number:064x}",
        )
        for number in range(count)
    ]  # fmt: skip


def judged(*data: TrainingData, corpus: str = "librispeech", test: Sequence[Utterance] | None = None) -> HeardPart:
    return heard_before(Provenance(trained_on=data), corpus_of(corpus), test or utterances())


def test_what_is_not_declared_is_unknown() -> None:
    found = heard_before(Provenance(), corpus_of(), utterances())
    assert (found.verdict, found.declared, found.n_overlapping, found.n_test) == ("unknown", None, None, 4)


def test_what_was_trained_on_nothing_has_not_heard_anything() -> None:
    found = judged()
    assert (found.verdict, found.declared) == ("not heard", ())
    untrained = Provenance(checkpoint="random:base", trained_on=(TrainingData(name="LibriSpeech", splits=("all",)),))
    assert heard_before(untrained, corpus_of(), utterances()).verdict == "not heard"


def test_utterances_are_found_by_their_samples_whatever_the_corpus_is_called() -> None:
    test = utterances()
    data = TrainingData(name="another name", samples_sha256=frozenset({test[1].samples_sha256, "f" * 64}))
    found = judged(data, test=test)
    assert (found.verdict, found.n_overlapping, found.n_test) == ("heard", 1, 4)
    assert found.basis[0] == "1 of 4 test utterances are in another name, by their samples"


def test_other_utterances_of_the_same_corpus_and_speakers_are_not_heard_and_a_note_says_so() -> None:
    data = TrainingData(
        name="librispeech", splits=("train",), speakers=frozenset({"1", "7"}), samples_sha256=frozenset({"f" * 64})
    )
    found = judged(data)
    assert (found.verdict, found.n_overlapping) == ("not heard", 0)
    assert "same corpus, other utterances: librispeech (train)" in found.basis
    assert "1 of 2 test speakers are in librispeech (train)" in found.basis


def test_digests_without_names_leave_the_rest_unknown_but_what_is_known_is_heard() -> None:
    test = utterances()
    apart = heard_before(Provenance(heard=frozenset({"f" * 64})), corpus_of(), test)
    shared = heard_before(Provenance(heard=frozenset({test[0].samples_sha256})), corpus_of(), test)
    assert (apart.verdict, apart.n_overlapping) == ("unknown", 0)
    assert (shared.verdict, shared.n_overlapping) == ("heard", 1)


@pytest.mark.parametrize(
    ("splits", "verdict", "words"),
    [
        (("train-clean-100",), "not heard", "same corpus, other split"),
        (("train-clean-100", "test-clean"), "heard", "4 of 4 test utterances are of splits in"),
        (("test",), "heard", "4 of 4"),
        ((), "unknown", "its splits were in the training is not stated"),
        (("default",), "unknown", "cannot be compared"),
    ],
)
def test_a_corpus_without_digests_is_compared_by_split(splits: tuple[str, ...], verdict: str, words: str) -> None:
    found = judged(TrainingData(name="openslr/librispeech_asr", splits=splits))
    assert (found.verdict, found.n_overlapping) == (verdict, None)
    assert words in found.basis[0]


def test_splits_of_corpora_that_are_divided_in_several_ways_do_not_tell() -> None:
    test = utterances(subset=None)
    assert judged(TrainingData(name="VoxCeleb1", splits=("dev",)), corpus="voxceleb", test=test).verdict == "unknown"
    assert judged(TrainingData(name="VoxCeleb1", splits=("all",)), corpus="voxceleb", test=test).verdict == "heard"


def test_the_name_of_a_corpus_without_splits_is_all_of_it() -> None:
    assert judged(TrainingData(name="LJSpeech-1.1"), corpus="ljspeech", test=utterances(subset=None)).verdict == "heard"


def test_no_utterance_is_shared_where_no_speaker_is() -> None:
    data = TrainingData(name="VoxCeleb2", splits=("dev",), speakers=frozenset({"7", "8"}))
    found = judged(data, corpus="voxceleb", test=utterances(subset=None))
    assert (found.verdict, found.basis) == ("not heard", ("none of 2 test speakers is in VoxCeleb2 (dev)",))


def test_ids_of_other_corpora_and_unknown_speakers_are_not_compared() -> None:
    data = TrainingData(name="TIMIT", speakers=frozenset({"7"}))
    assert judged(data, corpus="my own").verdict == "unknown"
    nameless = [replace(each, speaker=None) for each in utterances()]
    shared = TrainingData(name="librispeech", speakers=frozenset({"7"}))
    assert judged(shared, test=nameless).verdict == "unknown"


def test_another_corpus_of_the_table_is_apart_and_one_that_it_lacks_is_not_known() -> None:
    assert judged(TrainingData(name="VoxCeleb2")).verdict == "not heard"
    assert judged(TrainingData(name="VoxCeleb2"), corpus="my own").verdict == "unknown"
    assert judged(TrainingData(name="their own")).verdict == "unknown"


def test_corpora_of_one_source_may_share_recordings() -> None:
    found = judged(TrainingData(name="MLS"))
    assert (found.verdict, "same source, LibriVox" in found.basis[0]) == ("unknown", True)


@pytest.mark.parametrize(("subset", "verdict"), [("test-other", "not heard"), ("train-clean-100", "unknown")])
def test_libri_light_leaves_out_the_speakers_of_librispeechs_dev_and_test(subset: str, verdict: str) -> None:
    found = judged(TrainingData(name="Libri-Light", splits=("unlab-60k",)), test=utterances(subset=subset))
    assert found.verdict == verdict
    assert found.basis[0].startswith("same source")


def test_a_corpus_made_of_another_keeps_its_splits_apart() -> None:
    data = TrainingData(name="LibriSpeech", splits=("train-clean-360",))
    assert judged(data, corpus="libritts").verdict == "not heard"
    assert judged(TrainingData(name="LibriSpeech", splits=("test-clean",)), corpus="libritts").verdict == "unknown"


def test_the_same_speech_under_other_noise_is_compared_by_speakers() -> None:
    digests = frozenset({"f" * 64})
    for speakers, verdict in ((frozenset({"7"}), "not heard"), (frozenset({"1"}), "unknown"), (None, "unknown")):
        data = TrainingData(name="synthetic:noisy:tiny", speakers=speakers, samples_sha256=digests)
        assert judged(data, corpus="synthetic:hard:tiny", test=utterances(subset=None)).verdict == verdict


def test_a_rest_that_is_not_declared_keeps_it_unknown_but_does_not_hide_what_was_heard() -> None:
    apart = TrainingData(name="VoxCeleb2")
    heard = TrainingData(name="librispeech", splits=("test-clean",))
    found = judged(apart, UNKNOWN_DATA)
    assert (found.verdict, found.basis[0]) == ("unknown", "further training data is not declared")
    assert judged(heard, UNKNOWN_DATA).verdict == "heard"


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"verdict": "not heard", "n_overlapping": 1}, "1 test utterances overlap"),
        ({"verdict": "unknown", "n_overlapping": 1}, "1 test utterances overlap"),
        ({"verdict": "heard", "n_overlapping": 5}, "must not be above"),
        ({"verdict": "not heard", "declared": None}, "no training data is declared"),
        ({"verdict": "heard", "basis": ()}, "has no basis"),
    ],
)
def test_a_verdict_that_contradicts_itself_is_refused(changes: dict[str, Any], match: str) -> None:
    fields = {"verdict": "not heard", "basis": ("b",), "declared": ("d",), "n_overlapping": None, "n_test": 4}
    HeardPart.model_validate(fields)
    with pytest.raises(ValidationError, match=match):
        HeardPart.model_validate({**fields, **changes})


# records and reports


known: list[TrainingData] = []
"""What `declaring` was trained on."""


def declaring(*, checkpoint: str | None = None, seed: int = 0) -> Envelope:
    upstream = Envelope()
    upstream.trained_on = tuple(known)  # type: ignore[assignment]
    return upstream


def test_a_disturbed_test_is_compared_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPBENCH_CACHE", str(tmp_path / "cache"))
    corpus = tone_corpus(tmp_path / "tones", num_speakers=5, per_session=2)
    digests = frozenset(each.samples_sha256 for each in corpus.utterances)
    known[:] = [TrainingData(name="their own", samples_sha256=digests)]
    request = RunRequest(
        upstream="py:tests.benchmark.test_heard_before:declaring", downstream="phone", corpus=str(tmp_path / "tones"),
        protocol=Protocol(probe=ProbeSettings(steps=2, batch_frames=256, hidden_units=8, selection_points=1)),
        out=tmp_path / "runs", conditions=("noise:white:0",), device="cpu",
    )  # fmt: skip
    records = [written.record for written in run(request)]
    assert [each.condition is None for each in records] == [True, False]
    for record in records:
        assert record.heard is not None
        assert (record.heard.verdict, record.heard.n_overlapping) == ("heard", record.n_scored)
        (warning,) = [each for each in record.corpus.warnings if "in its pre-training" in each]
        assert f"learned from {record.n_scored} of {record.n_scored} test utterances" in warning


NOT_HEARD = {"verdict": "not heard", "basis": ["apart"], "declared": ["d"], "n_overlapping": 0, "n_test": 20}
HEARD = {"verdict": "heard", "basis": ["3 of 20"], "declared": ["d"], "n_overlapping": 3, "n_test": 20}
UNKNOWN = {"verdict": "unknown", "basis": ["silence"], "declared": None, "n_overlapping": None, "n_test": 20}


def test_a_record_without_it_has_no_such_field_and_an_edited_one_is_named(tmp_path: Path) -> None:
    old, new = write(tmp_path), write(tmp_path, heard=HEARD, seed=1)
    assert "heard" not in json.loads(old.read_text())
    assert read_record(new).as_dict() == json.loads(new.read_text())
    fields = json.loads(new.read_text())
    fields["heard"] |= {"verdict": "not heard", "n_overlapping": 0}
    new.write_text(json.dumps(fields))
    assert {"heard.verdict", "heard.n_overlapping"} <= {change.field for change in verify_record(new).changes}
    fields["heard"]["n_overlapping"] = 3
    new.write_text(json.dumps(fields))
    with pytest.raises(IntegrityError, match="3 test utterances overlap"):
        read_record(new)


def test_an_older_record_shows_what_its_warning_says_and_else_unknown(tmp_path: Path) -> None:
    plain = read_record(write(tmp_path))
    assert heard_of(plain).verdict == "unknown"
    fields = plain.as_dict()
    warning = "apc learned from 12 of 20 test utterances in its pre-training"
    fields["corpus"] |= {"warnings": [warning]}
    warned = sealed_record({name: value for name, value in fields.items() if name not in {"id", "seal", "schema"}})
    found = heard_of(warned)
    assert (found.verdict, found.n_overlapping, found.n_test, found.basis) == ("heard", 12, 20, (warning,))


def test_several_numbers_are_as_bad_as_the_worst() -> None:
    parts = [HeardPart.model_validate(each) for each in (NOT_HEARD, UNKNOWN, HEARD)]
    assert together(parts) == parts[2]
    assert together(parts[:2]).verdict == "unknown"
    assert together(parts[:1]).verdict == "not heard"


def _order(folder: Path, out: Path) -> tuple[list[str], dict[str, Any]]:
    report = assemble([folder])
    write_report(ReportRequest(runs=(folder,), out=out, formats=("csv",)))
    rows = [row.title + row.labels + row.mode for row in report.gathered.rows]
    marks = {f"{cell.row.title} {cell.row.labels} {cell.column.title}": report.mark(cell)
             for cell in report.gathered.cells.values()}  # fmt: skip
    return rows, marks


@pytest.mark.slow
def test_nobody_loses_rank_by_declaring(tmp_path: Path) -> None:
    small_grid(tmp_path / "silent")
    expected = _order(tmp_path / "silent", tmp_path / "out")
    for number, verdicts in enumerate([(HEARD, NOT_HEARD, UNKNOWN), (UNKNOWN, HEARD, NOT_HEARD)]):
        of = dict(zip(("mel", "good", "apc"), verdicts, strict=True))
        folder = tmp_path / f"declared{number}"
        for path in sorted((tmp_path / "silent").rglob("record.json")):
            fields = json.loads(path.read_text())
            kept = {name: value for name, value in fields.items() if name not in {"id", "seal", "schema"}}
            record = sealed_record({**kept, "heard": of[fields["upstream"]["name"]]})
            target = folder / record.id
            target.mkdir(parents=True)
            (target / "record.json").write_text(json.dumps(record.as_dict()))
            (target / "predictions.jsonl").write_bytes((path.parent / "predictions.jsonl").read_bytes())
        assert _order(folder, tmp_path / f"out{number}") == expected


def test_every_form_of_the_report_has_the_word_and_its_basis(tmp_path: Path) -> None:
    runs, out = tmp_path / "runs", tmp_path / "out"
    write(runs, upstream="mel", heard=NOT_HEARD)
    write(runs, upstream="good", skill=0.9, heard=HEARD)
    write(runs, upstream="good", skill=0.9, heard=NOT_HEARD, corpus="other", fingerprint="b" * 64)
    write(runs, upstream="old", skill=0.5)
    write_report(ReportRequest(runs=(runs,), out=out, formats=("md", "html", "tex", "csv", "json")))
    with (out / "results.csv").open(newline="") as stream:
        lines = {(line["system"], line["corpus"]): line for line in csv.DictReader(stream)}
    good = lines["good", "synthetic:noisy:tiny"]
    assert [good[name] for name in ("heard_before", "heard_utterances", "heard_of", "trained_on", "heard_basis")] == [
        "heard", "3", "20", "d", "3 of 20",
    ]  # fmt: skip
    assert lines["good", "other"]["heard_before"] == "not heard"
    assert lines["old", "synthetic:noisy:tiny"]["heard_before"] == "unknown"
    found = json.loads((out / "results.json").read_text())
    rows = {row["system"]: row["heard_before"] for row in found["rows"]}
    assert rows == {"mel": "not heard", "good": "heard", "old": "unknown"}
    assert [cell["heard"]["n_overlapping"] for cell in found["cells"] if cell["heard"]["verdict"] == "heard"] == [3]
    for file in ("report.md", "report.tex", "index.html"):
        text = (out / file).read_text()
        assert "Heard before: frozen, all labels" in text
        assert all(words in text for words in ("not heard", "3 of 20", "the record was made before this was kept"))
