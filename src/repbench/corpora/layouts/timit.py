"""TIMIT as it unpacks: TRAIN and TEST with DRn/SPEAKER/SENTENCE.WAV (NIST SPHERE or RIFF), .PHN, .TXT and .WRD.

References: Garofolo et al., "TIMIT Acoustic-Phonetic Continuous Speech Corpus" (LDC93S1, 1993); Lee and Hon,
"Speaker-Independent Phone Recognition Using Hidden Markov Models" (IEEE TASSP 37, 1989), for the folding to 39 phones;
Halberstadt, "Heterogeneous Acoustic Measurements and Multiple Classifiers for Speech Recognition" (MIT, 1998), for the
development speakers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from repbench.audio.sound import inspect
from repbench.corpora.alignments import align, validate_alignment
from repbench.corpora.alignments.interval_files import read_phn
from repbench.corpora.contract import SILENCE, Draft, DraftUtterance, Phone, PrepareOptions, Split
from repbench.corpora.faults import FaultCollector
from repbench.corpora.layouts.file_search import files_under, refuse_missing_root
from repbench.corpora.layouts.options import refuse_options
from repbench.corpora.layouts.text_notes import text_notes
from repbench.corpora.textfiles import text_lines
from repbench.errors import DataError

SAMPLE_RATE_HZ = 16_000
"""The rate at which TIMIT was published and its labels count samples, whatever rate a copy of its sound has."""

UNLABELLED_S = 0.1
"""The most sound after the last phone, in seconds: the last silence was not marked exactly."""

UNLABELLED_SHARE = 0.1
"""The same for long sounds, as a share of the sound; with more, the labels are of another sound or rate."""

_MERGED = {
    "aa": ("ao",),
    "ah": ("ax", "ax-h"),
    "er": ("axr",),
    "hh": ("hv",),
    "ih": ("ix",),
    "l": ("el",),
    "m": ("em",),
    "n": ("en", "nx"),
    "ng": ("eng",),
    "sh": ("zh",),
    "uw": ("ux",),
    SILENCE: ("pcl", "tcl", "kcl", "bcl", "dcl", "gcl", "h#", "pau", "epi"),
}
_ALONE = (
    *("ae", "aw", "ay", "b", "ch", "d", "dh", "dx", "eh", "ey", "f", "g", "iy", "jh"),
    *("k", "ow", "oy", "p", "r", "s", "t", "th", "uh", "v", "w", "y", "z"),
)

PHONES_39 = tuple(sorted((*_MERGED, *_ALONE)))
"""The 39 labels of Lee and Hon, silence (`sil`) among them."""

FOLDING: Mapping[str, str | None] = {
    **{phone: phone for phone in PHONES_39 if phone != SILENCE},
    **{label: phone for phone, labels in _MERGED.items() for label in labels},
    "q": None,
}
"""From each of the 61 labels of TIMIT to one of the 39; the glottal stop `q` is not labelled."""

CORE_TEST_SPEAKERS = frozenset(
    (
        *("MDAB0", "MWBT0", "FELC0", "MTAS1", "MWEW0", "FPAS0", "MJMP0", "MLNT0", "FPKT0", "MLLL0", "MTLS0", "FJLM0"),
        *("MBPM0", "MKLT0", "FNLP0", "MCMJ0", "MJDH0", "FMGD0", "MGRT0", "MNJM0", "FDHC0", "MJLN0", "MPAM0", "FMLD0"),
    )
)
"""The 24 speakers of the core test set, two men and a woman of each dialect region."""

DEV_SPEAKERS = frozenset(
    (
        *("FAKS0", "FDAC1", "FJEM0", "MGWT0", "MJAR0", "MMDB1", "MMDM2", "MPDF0", "FCMH0", "FKMS0", "MBDG0", "MBWM0"),
        *("MCSH0", "FADG0", "FDMS0", "FEDW0", "MGJF0", "MGLB0", "MRTK0", "MTAA0", "MTDT0", "MTHC0", "MWJG0", "FNMR0"),
        *("FREW0", "FSEM0", "MBNS0", "MMJR0", "MDLS0", "MDLF0", "MDVC0", "MERS0", "FMAH0", "FDRW0", "MRCS0", "MRJM4"),
        *("FCAL1", "MMWH0", "FJSJ0", "MAJC0", "MJSW0", "MREB0", "FGJD0", "FJMG0", "MROA0", "MTEB0", "MJFC0", "MRJR0"),
        *("FMML0", "MRWS1"),
    )
)
"""The 50 test speakers of the dev split: those of Halberstadt, which Kaldi's recipe uses too."""

_LOOKED_FOR = "TRAIN or TEST with DR1-DR8/SPEAKER/SENTENCE.WAV, such as TRAIN/DR1/FCJF0/SA1.WAV"
_FILE = re.compile(r"(S[AIX][0-9]+)\.(wav|wav\.wav|flac|phn|txt|wrd)", re.IGNORECASE)
_SPEAKER = re.compile(r"[FM][A-Z]{3}[0-9]", re.IGNORECASE)
_DIALECT = re.compile(r"DR[1-8]", re.IGNORECASE)
_SOUNDS = ("wav", "wav.wav", "flac")
_SPLITS = ("TRAIN", "TEST")


@dataclass(frozen=True, slots=True)
class _SentenceFiles:
    """The files of one sentence; `files` maps the ending, in small letters, to the file."""

    part: str
    dialect: str
    speaker: str
    name: str
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.speaker}_{self.name}"

    @property
    def audio(self) -> Path | None:
        """Its sound; the first in the order of `_SOUNDS`, because some copies hold it twice."""
        return next((self.files[kind] for kind in _SOUNDS if kind in self.files), None)


class Timit:
    """The layout `timit`: a folder with TRAIN, TEST or both, in capital or small letters.

    The id is `SPEAKER_SENTENCE` in capitals, the text that of .TXT or, without one, of .WRD, and the phones are those
    of .PHN folded to 39, or those of `--alignments`. Attributes: `gender` (F, M), `dialect` (DR1-DR8) and
    `sentence_type` (SA, SI, SX).

    The sentences SA, which everyone spoke, belong to no split. TRAIN is the train split, the 24 speakers of the core
    test are the test split and Halberstadt's 50 speakers the dev split; other speakers of TEST belong to none. Where no
    speaker of the core test is there, all of TEST is the test split.
    """

    def prepare(self, root: Path, options: PrepareOptions) -> Draft:
        """Describe the sentences under `root`; errors as `CorpusLayout.prepare`."""
        refuse_options("timit", options, reads=("alignments",))
        refuse_missing_root(root)
        collector = FaultCollector(gather=options.gather_faults)
        sentences = _sentences(root, options, collector)
        spoken = [each for each in sentences if each.audio is not None]
        if not spoken:
            what = f"The folder is not laid out like TIMIT; looked for {_LOOKED_FOR}"
            raise DataError(what, file=root, do="Give the folder that holds TRAIN and TEST")
        test_speakers = {each.speaker for each in spoken if each.part == "TEST"}
        own_labels = options.alignments is None
        utterances = []
        for each in spoken:
            with collector.each():
                utterances.append(_utterance(each, test_speakers, own_labels=own_labels))
        is_labelled = any(utterance.phones is not None for utterance in utterances)
        draft = Draft(
            name="timit",
            licence="LDC User Agreement",
            root=root,
            utterances=utterances,
            phone_map=FOLDING if is_labelled else None,
            phone_set=PHONES_39 if is_labelled else None,
            notes=(
                *_notes_on_files(sentences, own_labels=own_labels),
                *text_notes(utterances),
                *_notes_on_splits(utterances, test_speakers),
            ),
            faults=tuple(collector.faults),
        )
        return draft if options.alignments is None else align(draft, options.alignments, options)


TIMIT = Timit()


def _sentences(root: Path, options: PrepareOptions, collector: FaultCollector) -> list[_SentenceFiles]:
    """Every sentence with a file under `root`."""
    found: dict[str, _SentenceFiles] = {}
    for folder in sorted(path for path in root.iterdir() if path.name.upper() in _SPLITS and path.is_dir()):
        for path in files_under(folder, options, root=root):
            with collector.each():
                sentence, kind = _read_place(path, folder)
                if sentence is None:
                    continue
                # the files of a sentence come one by one, sound and labels in any order
                sentence = found.setdefault(sentence.id, sentence)
                if kind in sentence.files:
                    what = f"The sentence has two files .{kind.upper()}, this and {sentence.files[kind]}"
                    raise DataError(what, file=path, utterance=sentence.id, do="Remove one of them")
                sentence.files[kind] = path
    return [found[identifier] for identifier in sorted(found)]


def _read_place(path: Path, folder: Path) -> tuple[_SentenceFiles | None, str]:
    """The sentence of a file, and its kind; no sentence for documentation and files of tools."""
    named = _FILE.fullmatch(path.name)
    folders = path.relative_to(folder).parts[:-1]
    if named and len(folders) == 2 and _DIALECT.fullmatch(folders[0]) and _SPEAKER.fullmatch(folders[1]):
        dialect, speaker = (name.upper() for name in folders)
        return _SentenceFiles(folder.name.upper(), dialect, speaker, named[1].upper()), named[2].lower()
    if path.suffix.lower() in (".wav", ".flac", ".phn"):
        what = f"The file is not where TIMIT puts it; looked for {_LOOKED_FOR}"
        raise DataError(what, file=path, do="Move it to its place or out of the corpus")
    return None, ""


def _utterance(sentence: _SentenceFiles, test_speakers: set[str], *, own_labels: bool) -> DraftUtterance:
    audio = sentence.audio
    assert audio is not None
    return DraftUtterance(
        id=sentence.id,
        audio=audio,
        speaker=sentence.speaker,
        text=_text(sentence),
        phones=_phones(sentence, audio) if own_labels else None,
        attributes={
            "gender": sentence.speaker[0],
            "dialect": sentence.dialect,
            "sentence_type": sentence.name[:2],
        },
        split=_split(sentence, test_speakers),
    )


def _split(sentence: _SentenceFiles, test_speakers: set[str]) -> Split | None:
    if sentence.name.startswith("SA"):
        return None
    if sentence.part == "TRAIN":
        return "train"
    # a part of TEST without any core speaker is somebody's own selection: all of it is test
    if sentence.speaker in CORE_TEST_SPEAKERS or CORE_TEST_SPEAKERS.isdisjoint(test_speakers):
        return "test"
    return "dev" if sentence.speaker in DEV_SPEAKERS else None


def _phones(sentence: _SentenceFiles, audio: Path) -> tuple[Phone, ...] | None:
    """The phones of .PHN, unfolded; None where there is none."""
    path = sentence.files.get("phn")
    if path is None:
        return None
    alignment = read_phn(path, sentence.id, SAMPLE_RATE_HZ)
    duration_s = inspect(audio, utterance=sentence.id, any_channels=True).seconds
    alignment = replace(
        alignment,
        # copies differ in the case of names and labels
        phones=[Phone(start_s, end_s, label.lower()) for start_s, end_s, label in alignment.phones],
        short_s=max(UNLABELLED_S, UNLABELLED_SHARE * duration_s),
    )
    return validate_alignment(alignment, duration_s, utterance=sentence.id)


def _text(sentence: _SentenceFiles) -> str | None:
    """The sentence of .TXT (`0 SAMPLES TEXT`), or the words of .WRD (`FIRST LAST WORD`, one a line)."""
    for kind in ("txt", "wrd"):
        if kind in sentence.files:
            return " ".join(_words(sentence.files[kind], sentence.id))
    return None


def _words(path: Path, utterance: str) -> Iterator[str]:
    for number, line in text_lines(path):
        cells = line.split(None, 2)
        if len(cells) != 3 or not (cells[0].isdecimal() and cells[1].isdecimal()):
            what = f"A line must be two numbers of samples and text, but is `{line[:60]}`"
            raise DataError(what, file=f"{path}:{number}", utterance=utterance, do="Mend the line")
        yield cells[2].strip()


def _notes_on_files(sentences: Sequence[_SentenceFiles], *, own_labels: bool) -> Iterator[str]:
    spoken = [each for each in sentences if each.audio is not None]
    num_twice = sum(len(each.files.keys() & set(_SOUNDS)) > 1 for each in spoken)
    num_unaligned = sum("phn" not in each.files for each in spoken)
    if len(spoken) < len(sentences):
        yield f"{len(sentences) - len(spoken)} of {len(sentences)} sentences have labels or text, but no sound file"
    if num_twice:
        yield f"{num_twice} of {len(spoken)} sounds lie here twice, as .WAV and .WAV.wav; the first is read"
    if own_labels and num_unaligned:
        yield f"{num_unaligned} of {len(spoken)} utterances have no alignment"


def _notes_on_splits(utterances: Sequence[DraftUtterance], test_speakers: set[str]) -> Iterator[str]:
    num_of = Counter((utterance.attributes["sentence_type"] == "SA", utterance.split) for utterance in utterances)
    if num_of[True, None]:
        yield f"{num_of[True, None]} of {len(utterances)} utterances are sentences SA and belong to no split"
    if not test_speakers:
        return
    num_core, num_dev = len(test_speakers & CORE_TEST_SPEAKERS), len(test_speakers & DEV_SPEAKERS)
    if not num_core:
        yield "no speaker of the core test is there: the test split is all of TEST, and there is no dev split"
        return
    yield f"the test split is the core test ({num_core} of its 24 speakers), dev {num_dev} of Halberstadt's 50 speakers"
    if num_of[False, None]:
        yield f"{num_of[False, None]} utterances of other test speakers belong to no split"
