"""The layout `timit`, on small folders in the true format, SPHERE files and all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from repbench.corpora import manifest
from repbench.corpora.contract import CorpusLayout, DraftUtterance, PrepareOptions
from repbench.corpora.layouts.timit import CORE_TEST_SPEAKERS, DEV_SPEAKERS, FOLDING, PHONES_39, TIMIT
from repbench.errors import DataError, UsageError
from tests.corpora.scored import prepared, scored
from tests.corpora.sounds import long_textgrid, write_noise, write_sphere, write_text

PHN = ("0 1600 h#", "1600 3200 sh", "3200 4800 ix", "4800 5600 q", "5600 6400 dcl", "6400 7200 d", "7200 7960 h#")
SENTENCES = ("SA1", "SI648", "SX37")


def write_sentence(folder: Path, name: str, *, seed: int) -> None:
    write_sphere(folder / f"{name}.WAV", seed=seed)
    write_text(folder / f"{name}.PHN", *PHN)
    write_text(folder / f"{name}.TXT", "0 8000 She did.")
    write_text(folder / f"{name}.WRD", "1600 4800 she", "4800 7200 did")


def write_speaker(root: Path, part: str, speaker: str, *, first_seed: int, dialect: str = "DR1") -> None:
    for number, name in enumerate(SENTENCES):
        write_sentence(root / part / dialect / speaker, name, seed=first_seed + number)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three speakers of TRAIN; of TEST one of the core test, one of the 50 and one of neither."""
    root = tmp_path / "TIMIT"
    for number, speaker in enumerate(("FCJF0", "MDPK0", "MRWS0")):
        write_speaker(root, "TRAIN", speaker, first_seed=10 * number)
    for number, speaker in enumerate(("MDAB0", "FAKS0", "MREB9"), start=3):
        write_speaker(root, "TEST", speaker, first_seed=10 * number, dialect="DR2")
    return root


def utterances(root: Path) -> dict[str, DraftUtterance]:
    return {each.id: each for each in TIMIT.prepare(root, PrepareOptions()).utterances}


def test_it_is_a_layout() -> None:
    assert isinstance(TIMIT, CorpusLayout)


def test_the_lists_are_whole() -> None:
    assert (len(FOLDING), len(PHONES_39), len(CORE_TEST_SPEAKERS), len(DEV_SPEAKERS)) == (61, 39, 24, 50)
    assert {label for label in FOLDING.values() if label is not None} == set(PHONES_39)
    assert CORE_TEST_SPEAKERS.isdisjoint(DEV_SPEAKERS)
    assert sum(speaker[0] == "F" for speaker in CORE_TEST_SPEAKERS) == 8


@pytest.mark.parametrize(
    ("label", "phone"),
    [
        ("ao", "aa"),
        ("ax-h", "ah"),
        ("el", "l"),
        ("nx", "n"),
        ("zh", "sh"),
        ("ux", "uw"),
        ("epi", "sil"),
        ("gcl", "sil"),
    ],
)
def test_labels_fold_as_lee_and_hon_say(label: str, phone: str) -> None:
    assert FOLDING[label] == phone


def test_a_sentence_says_who_speaks_what_and_where(root: Path) -> None:
    found = utterances(root)
    assert len(found) == 18
    sentence = found["FCJF0_SX37"]
    assert sentence.audio == root / "TRAIN" / "DR1" / "FCJF0" / "SX37.WAV"
    assert (sentence.speaker, sentence.text, sentence.group, sentence.split) == ("FCJF0", "She did.", None, "train")
    assert sentence.attributes == {"gender": "F", "dialect": "DR1", "sentence_type": "SX"}
    assert sentence.phones is not None
    assert sentence.phones[1] == (0.1, 0.2, "sh")


def test_phones_are_folded_and_the_glottal_stop_is_a_gap(root: Path, tmp_path: Path) -> None:
    corpus = manifest.write(TIMIT.prepare(root, PrepareOptions()), tmp_path / "out")
    assert corpus.label_sets["phones"] == PHONES_39
    phones = corpus.utterances[0].phones
    assert phones is not None
    assert [phone.label for phone in phones] == ["sil", "sh", "ih", "sil", "d", "sil"]
    assert (phones[2].end_s, phones[3].start_s, phones[-1].end_s) == (0.3, 0.35, 0.4975)


def test_the_core_test_tests_fifty_speakers_select_and_sa_belongs_nowhere(root: Path) -> None:
    draft = TIMIT.prepare(root, PrepareOptions())
    splits = {each.id: each.split for each in draft.utterances}
    assert splits["FCJF0_SX37"] == "train"
    assert (splits["MDAB0_SI648"], splits["FAKS0_SI648"], splits["MREB9_SI648"]) == ("test", "dev", None)
    assert {splits[f"{speaker}_SA1"] for speaker in ("FCJF0", "MDAB0", "FAKS0")} == {None}
    assert list(draft.notes) == [
        "6 of 18 utterances are sentences SA and belong to no split",
        "the test split is the core test (1 of its 24 speakers), dev 1 of Halberstadt's 50 speakers",
        "2 utterances of other test speakers belong to no split",
    ]


def test_without_a_core_speaker_all_of_test_is_the_test_split(root: Path) -> None:
    shutil.rmtree(root / "TEST" / "DR2" / "MDAB0")
    draft = TIMIT.prepare(root, PrepareOptions())
    splits = {each.id: each.split for each in draft.utterances}
    assert {splits["FAKS0_SI648"], splits["MREB9_SX37"]} == {"test"}
    assert draft.notes[1] == (
        "no speaker of the core test is there: the test split is all of TEST, and there is no dev split"
    )


def test_one_part_alone_is_read(root: Path) -> None:
    shutil.rmtree(root / "TEST")
    draft = TIMIT.prepare(root, PrepareOptions())
    assert len(list(draft.utterances)) == 9
    assert draft.notes == ("3 of 9 utterances are sentences SA and belong to no split",)


def test_case_does_not_matter(root: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    for path in sorted(root.rglob("*.*")):
        place = small / path.relative_to(root).as_posix().lower()
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    fingerprints = {
        manifest.write(TIMIT.prepare(folder, PrepareOptions()), tmp_path / f"out-{folder.name}").fingerprint
        for folder in (root, small)
    }
    assert len(fingerprints) == 1


def test_riff_and_double_endings_are_read_and_a_second_copy_is_not(root: Path) -> None:
    folder = root / "TRAIN" / "DR1" / "FCJF0"
    (folder / "SA1.WAV").rename(folder / "SA1.WAV.wav")
    write_noise(folder / "SX37.WAV.wav", seed=99)
    draft = TIMIT.prepare(root, PrepareOptions())
    found = {each.id: each.audio.name for each in draft.utterances}
    assert (found["FCJF0_SA1"], found["FCJF0_SX37"]) == ("SA1.WAV.wav", "SX37.WAV")
    assert draft.notes[0] == "1 of 18 sounds lie here twice, as .WAV and .WAV.wav; the first is read"


def test_labels_count_samples_at_16_khz_whatever_the_rate_of_the_copy(root: Path) -> None:
    (root / "TRAIN" / "DR1" / "FCJF0" / "SX37.WAV").unlink()
    write_noise(root / "TRAIN" / "DR1" / "FCJF0" / "SX37.wav", seed=99, rate_hz=8_000)
    phones = utterances(root)["FCJF0_SX37"].phones
    assert phones is not None
    assert phones[1] == (0.1, 0.2, "sh")


def test_the_words_are_the_text_where_there_is_no_txt(root: Path) -> None:
    (root / "TRAIN" / "DR1" / "FCJF0" / "SX37.TXT").unlink()
    (root / "TRAIN" / "DR1" / "FCJF0" / "SI648.TXT").unlink()
    (root / "TRAIN" / "DR1" / "FCJF0" / "SI648.WRD").unlink()
    found = utterances(root)
    assert (found["FCJF0_SX37"].text, found["FCJF0_SI648"].text) == ("she did", None)


def test_what_is_missing_is_counted(root: Path) -> None:
    (root / "TRAIN" / "DR1" / "FCJF0" / "SX37.PHN").unlink()
    (root / "TRAIN" / "DR1" / "FCJF0" / "SI648.WAV").unlink()
    for kind in ("TXT", "WRD"):
        (root / "TRAIN" / "DR1" / "FCJF0" / f"SX37.{kind}").unlink()
    draft = TIMIT.prepare(root, PrepareOptions())
    assert draft.notes[:3] == (
        "1 of 18 sentences have labels or text, but no sound file",
        "1 of 17 utterances have no alignment",
        "1 of 17 utterances have no transcript",
    )


def test_other_alignments_go_before_phn(root: Path, tmp_path: Path) -> None:
    write_text(tmp_path / "grids" / "FCJF0_SX37.TextGrid", long_textgrid([(0.0, 0.2, "sil"), (0.2, 0.5, "AA1")]))
    draft = TIMIT.prepare(root, PrepareOptions(alignments=tmp_path / "grids"))
    assert draft.phone_set is not None
    assert "AA" in draft.phone_set
    aligned = [each.id for each in draft.utterances if each.phones is not None]
    assert aligned == ["FCJF0_SX37"]


def test_the_order_of_the_folders_does_not_matter(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = manifest.write(TIMIT.prepare(root, PrepareOptions()), tmp_path / "a").fingerprint
    rglob = Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda self, pattern: reversed(list(rglob(self, pattern))))
    assert manifest.write(TIMIT.prepare(root, PrepareOptions()), tmp_path / "b").fingerprint == first


def test_it_is_prepared_checked_and_scored_on_phones(root: Path, tmp_path: Path) -> None:
    corpus = prepared(TIMIT, root, tmp_path / "manifest")
    assert (len(corpus.utterances), corpus.licence) == (18, "LDC User Agreement")
    record = scored(tmp_path / "manifest", "phone")
    assert record.corpus.split_policy == "official splits"
    assert (record.corpus.n_train, record.corpus.n_dev, record.corpus.n_test) == (6, 2, 2)
    assert "8 utterances belong to no official split and are not used" in record.corpus.warnings
    assert record.n_scored == record.n_listed > 0
    assert scored(tmp_path / "manifest", "speaker").n_scored > 0


@pytest.mark.parametrize("name", ["TRAIN/DR9/FCJF0/SA2.WAV", "TRAIN/DR1/SX37.WAV", "TEST/DR1/FCJF0/a.wav"])
def test_a_sound_at_another_place_is_refused(root: Path, name: str) -> None:
    write_sphere(root / name, seed=99)
    with pytest.raises(DataError, match=rf"not where TIMIT puts it.*{name}"):
        TIMIT.prepare(root, PrepareOptions())


@pytest.mark.parametrize("name", ["TRAIN/DR1/FCJF0/readme.doc", "TRAIN/DR1/FCJF0/._SA1.WAV", "DOC/x.wav"])
def test_what_else_lies_there_is_read_over(root: Path, name: str) -> None:
    write_text(root / name, "x")
    assert len(utterances(root)) == 18


def test_another_folder_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not laid out like TIMIT; looked for TRAIN or TEST with DR1-DR8/SPEAKER"):
        TIMIT.prepare(tmp_path, PrepareOptions())
    with pytest.raises(DataError, match="root folder does not exist"):
        TIMIT.prepare(tmp_path / "gone", PrepareOptions())


def test_options_of_other_layouts_are_refused(root: Path) -> None:
    with pytest.raises(UsageError, match="`timit` does not read `--table`"):
        TIMIT.prepare(root, PrepareOptions(table=root))


def test_fault_24_a_sentence_that_stands_twice_is_refused(root: Path) -> None:
    write_sentence(root / "TEST" / "DR1" / "FCJF0", "SX37", seed=99)
    what = r"two files \.PHN, this and .*TEST/DR1/FCJF0/SX37\.PHN .*TRAIN/DR1/FCJF0/SX37\.PHN, utterance FCJF0_SX37"
    with pytest.raises(DataError, match=what):
        TIMIT.prepare(root, PrepareOptions())


def test_fault_15_a_truncated_sphere_file_is_refused_with_its_id(root: Path, tmp_path: Path) -> None:
    path = root / "TRAIN" / "DR1" / "FCJF0" / "SX37.WAV"
    path.write_bytes(path.read_bytes()[:-2_000])
    with pytest.raises(
        DataError, match=r"holds 7000 samples, but its header declares 8000.*SX37\.WAV, utterance FCJF0_SX37"
    ):
        manifest.write(TIMIT.prepare(root, PrepareOptions()), tmp_path / "out")


@pytest.mark.parametrize("factor", [0.8, 0.5, 1.25])
def test_fault_21_labels_of_another_rate_are_refused(root: Path, factor: float) -> None:
    scaled = [
        f"{int(int(a) * factor)} {int(int(b) * factor)} {label}" for a, b, label in (line.split() for line in PHN)
    ]
    write_text(root / "TRAIN" / "DR1" / "FCJF0" / "SX37.PHN", *scaled)
    with pytest.raises(DataError, match=r"but the sound lasts 0\.5 s.*SX37\.PHN, utterance FCJF0_SX37"):
        TIMIT.prepare(root, PrepareOptions())


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("0 8000", "SX37.*:1"),
        ("0 x h#", "SX37.*:1"),
        ("4000 2000 h#", r"Interval 1 \(line 1\) ends where or before it starts"),
    ],
)
def test_fault_22_broken_labels_are_refused_by_their_line(root: Path, line: str, fault: str) -> None:
    write_text(root / "TRAIN" / "DR1" / "FCJF0" / "SX37.PHN", line)
    with pytest.raises(DataError, match=fault):
        TIMIT.prepare(root, PrepareOptions())


def test_a_broken_text_is_refused_by_its_line(root: Path) -> None:
    write_text(root / "TRAIN" / "DR1" / "FCJF0" / "SX37.TXT", "She did.")
    with pytest.raises(DataError, match=r"two numbers of samples and text, but is `She did\.`.*SX37\.TXT:1"):
        TIMIT.prepare(root, PrepareOptions())


def test_fault_23_an_unknown_phone_is_refused_by_its_name(root: Path, tmp_path: Path) -> None:
    write_text(root / "TRAIN" / "DR1" / "FCJF0" / "SX37.PHN", "0 4000 h#", "4000 8000 zz")
    with pytest.raises(DataError, match=r"phones that the phone map does not know: `zz`.*utterance FCJF0_SX37"):
        manifest.write(TIMIT.prepare(root, PrepareOptions()), tmp_path / "out")
