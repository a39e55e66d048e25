"""Texts through a whole run: what trains an encoder, what a record keeps of it, and what is scored."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from repbench.benchmark.protocol import FinetuneSettings, ProbeSettings, Protocol, SplitSettings
from repbench.benchmark.records.record import read_predictions, read_record
from repbench.benchmark.records.verify import verify_record
from repbench.benchmark.report.data.transcripts import alignment_in_words
from repbench.benchmark.report.render.write import ReportRequest, write_report
from repbench.benchmark.run import RunRequest, WrittenRecord, run
from repbench.downstream.problems.texts import TextPrediction
from repbench.downstream.text import SUBWORDS_FILE, read_subwords, slots_in
from repbench.errors import DataError, IntegrityError
from repbench.testing import tone_corpus
from tests.benchmark.small_finetuning import ENVELOPE

QUICK = ProbeSettings(steps=10, selection_points=2, hidden_units=16)
WORDS = {"AA": "one", "IY": "two,", "UW": "Three"}
PLANTED = "zyzzyva"
"""A word of one test utterance, of which no other has any letter but one."""


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tones with a word for each; a test utterance has a word of its own, one has none, and so has one of train."""
    folder = tmp_path_factory.mktemp("asr") / "tones"
    tone_corpus(folder)
    path = folder / "manifest.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for number, line in enumerate(lines):
        line["text"] = " ".join(WORDS[phone[2]] for phone in line["phones"] if phone[2] in WORDS)
        line["attributes"]["slots"] = f"<first> {line['text'].replace(' ', ' </first> ', 1)}"
        line["split"] = ("dev", "test", "train", "train")[number % 4]
        if number in {2, 5}:
            line["text"] = "..."
        if number == 1:
            line["text"] += f" {PLANTED}"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def go(
    corpus: Path, out: Path, probe: ProbeSettings = QUICK, *, task: dict[str, Any] | None = None, **changes: Any
) -> list[WrittenRecord]:
    protocol = Protocol(probe=probe, split=SplitSettings(official="always"), task=task or {})
    options = {"upstream": "mel", "downstream": "asr", "head": "ctc", **changes}
    return run(RunRequest(corpus=str(corpus), out=out, protocol=protocol, **options))


def test_slots_run_as_texts_and_their_predictions_give_the_record_again(spoken: Path, tmp_path: Path) -> None:
    (written,) = go(spoken, tmp_path, downstream="slots")
    record = written.record
    assert {" <first> ", " </first> "} <= set(record.downstream.classes or ())
    assert record.primary_metric == "slot_type_f1"
    assert record.primary.counts == {"utterances": 12}
    values = record.metrics["slot_value_character_error_rate"].counts["reference_characters"]
    assert values == sum(
        len(dict(slots_in(each.reference.split()))["first"])
        for each in read_predictions(written.path.parent / "predictions.jsonl")
        if isinstance(each, TextPrediction)
    )
    assert verify_record(written.path).holds


def test_the_report_aligns_the_worst_utterances(spoken: Path, tmp_path: Path) -> None:
    (written,) = go(spoken, tmp_path / "runs")
    found = write_report(ReportRequest(runs=(tmp_path / "runs",), out=tmp_path / "report"))
    (worst,) = found.report.worst
    edits = [each.num_edits for each in worst.utterances]
    assert edits == sorted(edits, reverse=True)
    counts = written.record.primary.counts
    assert sum(edits) == counts["edits"]  # fewer are wrong than are shown
    assert worst.num_scored == written.record.n_scored
    planted = next(each for each in worst.utterances if each.id == "s0-01")
    assert [one for one, _ in planted.words if one is not None][-1] == PLANTED.upper()
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert 'id="worst"' in page
    assert PLANTED.upper() in page
    for name in ("report.md", "report.tex", "results.json"):
        assert PLANTED.upper() in (tmp_path / "report" / name).read_text(encoding="utf-8")


def test_an_alignment_is_a_line_in_which_edits_stand_out() -> None:
    pairs = [("HE", "HE"), ("HATES", "ATE"), (None, "THE"), ("SHOOTING", None)]
    assert alignment_in_words(pairs) == "HE [HATES → ATE] [→ THE] [SHOOTING →]"


SUBWORDS = {"units": "subwords", "vocabulary_size": 12}


def test_mel_learns_the_words(spoken: Path, tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece", reason="needs the extra `asr`")
    learning = ProbeSettings(steps=200, learning_rate=1e-2)
    (written,) = go(spoken, tmp_path, learning, head="project_ctc", task=SUBWORDS)
    assert {"\u2581ONE", "\u2581TWO", "\u2581THREE"} <= set(written.record.downstream.classes or ())
    assert written.record.primary.value is not None
    assert written.record.primary.value < 0.5  # the planted word and the utterance without words are errors


def test_the_predictions_give_the_record_again_and_unknown_letters_are_errors(spoken: Path, tmp_path: Path) -> None:
    (written,) = go(spoken, tmp_path, head="blstm_ctc")
    record = written.record
    assert (record.baselines.chance, record.baselines.majority) == (None, None)
    assert record.downstream.classes == tuple(sorted({*"ONETWHR", "\u2581"}))
    assert record.downstream.files == {}
    assert record.n_scored + len(record.excluded) == record.n_listed == 12
    assert verify_record(written.path).holds
    predictions = read_predictions(written.path.parent / "predictions.jsonl")
    planted = next(each for each in predictions if each.id == "s0-01")
    assert isinstance(planted, TextPrediction)
    assert planted.reference.endswith(PLANTED.upper())
    assert PLANTED.upper() not in planted.hypothesis
    unknown, empty = (w for w in record.corpus.warnings if "characters that no" in w or "no words" in w)
    assert unknown.startswith("1 of ")
    assert "(A, V, Y, Z)" in unknown
    assert empty.startswith("1 of 12 test utterances have no words")


def test_a_changed_prediction_is_found(spoken: Path, tmp_path: Path) -> None:
    (written,) = go(spoken, tmp_path)
    path = written.path.parent / "predictions.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    line = next(each for each in lines if each["reference"])
    line.update(hypothesis=line["reference"], word_edits=0, character_edits=0)
    path.write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")
    changes = {each.field for each in verify_record(written.path).changes}
    assert {"metrics.word_error_rate.value", "predictions_sha256"} <= changes
    line["word_edits"] = 1
    path.write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")
    with pytest.raises(IntegrityError, match="`word_edits` is 1 where there are 0"):
        verify_record(written.path)


def test_fractions_seeds_and_controls_give_a_record_each(spoken: Path, tmp_path: Path) -> None:
    written = go(spoken, tmp_path, controls=True, label_fractions=(0.5, 1.0))
    assert [(each.record.label_fraction, each.record.protocol["labels"]) for each in written] == [
        (0.5, "given"), (0.5, "shuffled"), (1.0, "given"), (1.0, "shuffled"),
    ]  # fmt: skip
    # The units are those of all training texts, whatever the share of the labels.
    assert len({each.record.downstream.classes for each in written}) == 1


def test_finetuning_reads_the_same_targets(spoken: Path, tmp_path: Path) -> None:
    protocol = Protocol(
        finetune=FinetuneSettings(steps=2, selection_points=1), split=SplitSettings(official="always"),
        probe=QUICK,
    )  # fmt: skip
    request = RunRequest(
        upstream=ENVELOPE, downstream="asr", corpus=str(spoken), out=tmp_path,
        protocol=protocol, head="ctc", finetune=True,
    )  # fmt: skip
    (written,) = run(request)
    assert verify_record(written.path, weights=True).holds


def test_subwords_are_trained_on_train_alone_and_kept_with_the_record(spoken: Path, tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece", reason="needs the extra `asr`")
    (written,) = go(spoken, tmp_path, task=SUBWORDS)
    record, folder = written.record, written.path.parent
    content = (folder / SUBWORDS_FILE).read_bytes()
    assert record.downstream.files == {SUBWORDS_FILE: hashlib.sha256(content).hexdigest()}
    assert record.downstream.classes == read_subwords(folder, record.downstream.files[SUBWORDS_FILE]).units
    # A test transcript never enters the training: neither the planted word nor one of its letters is in the model.
    model = content.decode("utf-8", "replace")
    assert "THREE" in model or "\u2581T" in model
    assert not [letter for letter in "AVYZ" if any(letter in unit for unit in record.downstream.classes)]
    assert PLANTED.upper() not in model
    # The model does not change with test, and so not with the planted word.
    other = tmp_path / "other"
    _copied_without(spoken, other, PLANTED)
    (again,) = go(other, tmp_path / "again", task=SUBWORDS)
    assert again.record.downstream.files == record.downstream.files
    assert verify_record(written.path, weights=True).holds


def _copied_without(corpus: Path, to: Path, word: str) -> None:
    shutil.copytree(corpus, to)
    path = to / "manifest.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace(f" {word}", ""), encoding="utf-8")


def test_a_saved_probe_hands_its_model_on_and_a_half_written_one_is_never_read(spoken: Path, tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece", reason="needs the extra `asr`")
    (source,) = go(spoken, tmp_path, task=SUBWORDS)
    tone_corpus(tmp_path / "other", num_speakers=2, per_session=2, salt="other")
    path = tmp_path / "other" / "manifest.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    path.write_text("".join(json.dumps({**line, "text": "one two"}) + "\n" for line in lines), encoding="utf-8")
    asked = RunRequest(
        upstream="mel", downstream="asr", corpus=str(tmp_path / "other"), out=tmp_path, probe=source.path.parent
    )
    (scored,) = run(asked)
    assert scored.record.downstream.files == source.record.downstream.files
    assert verify_record(scored.path, weights=True).holds
    model = source.path.parent / SUBWORDS_FILE
    model.write_bytes(model.read_bytes()[:-7])
    (change,) = verify_record(source.path, weights=True).changes
    assert change.field == f"downstream.files.{SUBWORDS_FILE}"
    with pytest.raises(IntegrityError, match="but was written with"):
        run(asked)
    model.unlink()
    with pytest.raises(IntegrityError, match="cannot be read"):
        run(asked)


KILLED = """
import sys, time
from pathlib import Path
from repbench.downstream.text import SUBWORDS_FILE
from repbench.files import atomic_write

folder = Path(sys.argv[1])
with atomic_write(folder / SUBWORDS_FILE) as stream:
    stream.write(b"half of a model")
    stream.flush()
    print("half", flush=True)
    time.sleep(60)
"""


def test_a_killed_run_leaves_no_model_under_its_name(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, env=os.environ, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
    left = list(tmp_path.iterdir())
    assert len(left) == 1
    assert left[0].read_bytes() == b"half of a model"
    assert left[0].name != SUBWORDS_FILE
    with pytest.raises(IntegrityError, match="cannot be read"):
        read_subwords(tmp_path, "0" * 64)


def test_a_record_names_no_file_outside_of_its_folder(spoken: Path, tmp_path: Path) -> None:
    (written,) = go(spoken, tmp_path)
    fields = json.loads(written.path.read_text(encoding="utf-8"))
    for name in ("../../secret.model", "/etc/x.model", "record.json", "probe.safetensors"):
        fields["downstream"]["files"] = {name: "0" * 64}
        written.path.write_text(json.dumps(fields), encoding="utf-8")
        with pytest.raises(IntegrityError, match=r"downstream\.files"):
            read_record(written.path)


def test_a_train_split_without_words_is_refused(spoken: Path, tmp_path: Path) -> None:
    _copied_without(spoken, tmp_path / "silent", PLANTED)
    path = tmp_path / "silent" / "manifest.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    path.write_text("".join(json.dumps({**line, "text": "?"}) + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(DataError, match="The training split has no word"):
        go(tmp_path / "silent", tmp_path / "out")
