"""Exports, and the way back: the same fingerprint, and no file of others lost."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import numpy as np
import pytest

from repbench.audio.table_files import open_table
from repbench.corpora import manifest
from repbench.corpora.contract import Corpus, Draft, DraftUtterance, PrepareOptions
from repbench.corpora.durations import duration_to, end_of
from repbench.corpora.export import export
from repbench.corpora.export.folder import encoded, sound_file
from repbench.corpora.layouts.huggingface import HUGGINGFACE
from repbench.corpora.layouts.kaldi import KALDI
from repbench.corpora.layouts.lhotse import LHOTSE
from repbench.corpora.manifest.prepare import prepare
from repbench.corpora.open import load_layout, open_corpus
from repbench.errors import DataError, UsageError
from tests.commands import repbench
from tests.corpora.rich_corpus import rich_corpus
from tests.corpora.sounds import noise_draft, write_noise

KINDS = ("lhotse", "huggingface")


def again(corpus: Corpus, kind: str, folder: Path) -> Corpus:
    """The corpus, exported and prepared again."""
    out = export(corpus, kind, folder / kind).folder
    # of lhotse the sounds stay where they are
    root = folder if kind == "lhotse" else out
    draft = prepare(load_layout(kind), root, PrepareOptions(table=out))
    return manifest.write(draft, folder / f"{kind}-again")


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_comes_back(tmp_path: Path, kind: str) -> None:
    corpus = rich_corpus(tmp_path)
    found = again(corpus, kind, tmp_path)
    assert found.fingerprint == corpus.fingerprint
    for one, other in zip(corpus.utterances, found.utterances, strict=True):
        assert (one.phones, one.turns, dict(one.attributes)) == (other.phones, other.turns, dict(other.attributes))
        assert {name: type(value) for name, value in one.attributes.items()} == {
            name: type(value) for name, value in other.attributes.items()
        }
        assert (one.scales, one.samples_sha256) == (other.scales, other.samples_sha256)
    assert (found.name, found.licence, found.label_sets) == (corpus.name, corpus.licence, corpus.label_sets)
    assert found.dropped == corpus.dropped
    assert set(corpus.notes) <= set(found.notes)
    assert len(set(found.notes)) == len(found.notes)


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_of_an_export_comes_back(tmp_path: Path, kind: str) -> None:
    """Sounds in cells are written again: to lhotse as files, to `datasets` as cells."""
    corpus = again(rich_corpus(tmp_path / "first"), "huggingface", tmp_path / "first")
    assert again(corpus, kind, tmp_path).fingerprint == corpus.fingerprint


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["synthetic:tiny", "synthetic:mixtures:tiny"])
def test_synthetic_speech_comes_back(tmp_path: Path, spec: str) -> None:
    corpus = open_corpus(spec)
    for kind in KINDS:
        out = export(corpus, kind, tmp_path / kind).folder
        root = Path("/") if kind == "lhotse" else out
        draft = prepare(load_layout(kind), root, PrepareOptions(table=out))
        assert manifest.write(draft, tmp_path / f"{kind}-again").fingerprint == corpus.fingerprint


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ljspeech", "librispeech"])
def test_real_speech_comes_back(speech_data: Path, tmp_path: Path, name: str) -> None:
    root = speech_data / {"ljspeech": "LJSpeech35", "librispeech": "LibriSpeech"}[name]
    options = PrepareOptions(alignments=root / "TextGrid" if name == "ljspeech" else None)
    corpus = manifest.write(load_layout(name).prepare(root, options), tmp_path / "manifest")
    for kind in KINDS:
        out = export(corpus, kind, tmp_path / kind).folder
        draft = prepare(load_layout(kind), Path("/") if kind == "lhotse" else out, PrepareOptions(table=out))
        assert manifest.write(draft, tmp_path / f"{kind}-again").fingerprint == corpus.fingerprint


def test_a_corpus_without_splits_is_one_dataset(tmp_path: Path) -> None:
    corpus = manifest.write(noise_draft(tmp_path / "sounds"), tmp_path / "manifest")
    export(corpus, "huggingface", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "data-00000-of-00001.arrow", "dataset_info.json", "repbench-corpus.json", "state.json",
    ]  # fmt: skip
    assert manifest.write(HUGGINGFACE.prepare(tmp_path / "out", PrepareOptions()), tmp_path / "m") == manifest.read(
        tmp_path / "m"
    )


def test_large_tables_are_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repbench.corpora.export.huggingface.SHARD_BYTES", 20_000)
    monkeypatch.setattr("repbench.corpora.export.huggingface._BATCH_ROWS", 1)
    corpus = manifest.write(noise_draft(tmp_path / "sounds", "abcde"), tmp_path / "manifest")
    export(corpus, "huggingface", tmp_path / "out")
    tables = sorted((tmp_path / "out").glob("*.arrow"))
    assert [path.name for path in tables] == [f"data-0000{k}-of-00003.arrow" for k in range(3)]
    assert [open_table(path).num_rows for path in tables] == [2, 2, 1]
    found = manifest.write(HUGGINGFACE.prepare(tmp_path / "out", PrepareOptions()), tmp_path / "m")
    assert found.fingerprint == corpus.fingerprint


def test_kaldi_holds_what_it_can_and_names_the_rest(tmp_path: Path) -> None:
    corpus = rich_corpus(tmp_path)
    written = export(corpus, "kaldi", tmp_path / "data")
    left_out = [note for note in written.notes if note.startswith("left out")]
    assert left_out == [
        "left out: 1 groups (sessions, chapters)",
        "left out: 2 speakers that are not known: the utterance is its own speaker",
        "left out: 1 texts whose line breaks and runs of blanks became single blanks",
        "left out: 1 values of the attribute `none`, which are empty or of several lines",
        "left out: name, licence and notes of the corpus",
    ]
    data = tmp_path / "data"
    options = PrepareOptions(
        table=data, alignments=data / "phones.ctm", keep_labels=True, splits=(data / "splits",)
    )  # fmt: skip
    draft = prepare(KALDI, tmp_path, options)
    found = {each.id: each for each in manifest.write(draft, tmp_path / "again").utterances}
    for utterance in corpus.utterances:
        same = found[utterance.id]
        assert (same.samples_sha256, same.split) == (utterance.samples_sha256, utterance.split)
        assert same.speaker == (utterance.speaker or utterance.id)
        for one, other in zip(utterance.phones or (), same.phones or (), strict=True):
            assert one.label == other.label
            np.testing.assert_allclose(one[:2], other[:2], atol=2e-6)
    assert found["a"].attributes["gender"] == "F"
    assert found["a"].text == "Grüße, “you” there"
    assert (tmp_path / "data" / "rttm").read_text().count("SPEAKER") == 6
    spoken = (tmp_path / "data" / "spk2utt").read_text(encoding="utf-8").splitlines()
    assert "s1 a b" in spoken
    assert spoken == sorted(spoken, key=lambda line: line.encode())


@pytest.mark.parametrize("field", ["id", "speaker"])
def test_a_blank_in_a_name_is_refused_for_kaldi(tmp_path: Path, field: str) -> None:
    sound = write_noise(tmp_path / "sounds" / "a.wav", seed=0)
    draft = DraftUtterance(
        id="a b" if field == "id" else "a", audio=sound, speaker="s 1" if field == "speaker" else "s"
    )
    corpus = manifest.write(
        Draft(name="x", licence="none", root=tmp_path / "sounds", utterances=[draft]), tmp_path / "manifest"
    )
    with pytest.raises(DataError, match=rf"divided at blanks, but the {field} `\w \w` holds one"):
        export(corpus, "kaldi", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_only_a_new_or_empty_folder_is_written(tmp_path: Path) -> None:
    corpus = manifest.write(noise_draft(tmp_path / "sounds"), tmp_path / "manifest")
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="into a new or empty folder, but this is none"):
        export(corpus, "lhotse", full)
    assert [path.name for path in full.iterdir()] == ["mine.txt"]
    empty = tmp_path / "empty"
    empty.mkdir()
    export(corpus, "lhotse", empty)
    assert (empty / "cuts.jsonl.gz").is_file()
    with pytest.raises(UsageError, match=r"no format `lhotze` to export to.*Did you mean `lhotse`"):
        export(corpus, "lhotze", tmp_path / "other")


@pytest.mark.parametrize("kind", ["huggingface", "lhotse"])
def test_a_sound_that_has_changed_is_refused_and_nothing_is_left(tmp_path: Path, kind: str) -> None:
    corpus = rich_corpus(tmp_path)
    write_noise(tmp_path / "sounds" / "wav" / "a.wav", seed=99)
    stereo = tmp_path / "sounds" / "wav" / "stereo.wav"
    stereo.write_bytes(stereo.read_bytes()[:-400] + bytes(400))
    with pytest.raises(DataError, match="not the one that the manifest was made of"):
        export(corpus, kind, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest", "sounds"]


def test_the_same_corpus_is_the_same_bytes(tmp_path: Path) -> None:
    corpus = rich_corpus(tmp_path)
    for name in ("one", "two"):
        export(corpus, "lhotse", tmp_path / name)
    one, two = ((tmp_path / name / "recordings.jsonl.gz").read_bytes() for name in ("one", "two"))
    lines = [json.loads(line) for line in gzip.decompress(one).splitlines()]
    assert len(lines) == 11
    # the one sound that is written again lies in the folder itself
    assert gzip.decompress(one).replace(b"/one/", b"/two/") == gzip.decompress(two)


@pytest.mark.parametrize(("bits", "ending"), [(16, ".flac"), (24, ".flac"), (32, ".wav")])
def test_samples_are_written_without_loss(bits: int, ending: str) -> None:
    values = np.random.default_rng(0).uniform(-1, 1, 2_000)
    samples = values.astype(np.float32) if bits == 32 else (np.round(values * 2 ** (bits - 1)) / 2 ** (bits - 1))
    content, found = encoded(samples.astype(np.float32), 22_050)
    assert found == ending
    assert len(content) < samples.size * 4 + 200


def test_full_scale_is_no_whole_number_of_any_depth() -> None:
    """1.0 is one step above the largest integer: it needs floats."""
    samples = np.array([0.5, 1.0, -1.0], np.float32)
    assert encoded(samples, 16_000)[1] == ".wav"
    assert encoded(samples[[0, 2]], 16_000)[1] == ".flac"


def test_a_whole_file_is_copied_byte_for_byte(tmp_path: Path) -> None:
    corpus = rich_corpus(tmp_path)
    by_id = {each.id: each for each in corpus.utterances}
    assert sound_file(by_id["24"]) == (by_id["24"].audio.read_bytes(), ".wav")
    assert sound_file(by_id["part"])[1] == ".flac"
    assert sound_file(by_id["lossy"])[1] == ".wav"


def test_durations_give_ends_back_exactly() -> None:
    """Also those that no plain sum gives."""
    drawn = random.Random(0)
    num_plain = 0
    for _ in range(20_000):
        start, end = sorted((drawn.randrange(480_000) / 16_000, drawn.uniform(0, 30)))
        duration = duration_to(start, end)
        assert end_of(start, duration) == end
        num_plain += start + duration == end
    assert 0 < num_plain < 20_000


def test_the_command_exports_and_prepare_reads_it_back(tmp_path: Path) -> None:
    corpus = manifest.write(noise_draft(tmp_path / "sounds"), tmp_path / "manifest")
    ran = repbench("corpus", "export", tmp_path / "manifest", tmp_path / "out", "--to", "huggingface", "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["format"], ran.json["utterances"]) == ("huggingface", 3)
    assert ran.json["fingerprint"] == corpus.fingerprint
    read = manifest.write(HUGGINGFACE.prepare(tmp_path / "out", PrepareOptions()), tmp_path / "m")
    assert read.fingerprint == corpus.fingerprint
    refused = repbench("corpus", "export", tmp_path / "manifest", tmp_path / "out", "--to", "lhotse")
    assert refused.code == 2
    assert "new or empty folder" in refused.err


def test_lhotse_without_facts_is_read_as_of_anybody(tmp_path: Path) -> None:
    """Without the file of facts phones are folded, and splits and groups come from `custom`."""
    corpus = rich_corpus(tmp_path)
    out = export(corpus, "lhotse", tmp_path / "out").folder
    (out / "repbench-corpus.json").unlink()
    found = {each.id: each for each in LHOTSE.prepare(tmp_path, PrepareOptions(table=out, keep_labels=True)).utterances}
    assert (found["a"].split, found["a"].group, found["c/1"].split) == ("train", "g 1", "dev")
    assert found["a"].attributes == {"gender": "F", "age": 30, "score": 1.5, "mixed": 1}
