"""Turns of several speakers: RTTM files, their comparison with the sound, and the layout of LibriMix."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from repbench.corpora import manifest
from repbench.corpora.contract import Draft, PrepareOptions, Turn
from repbench.corpora.layouts.librimix import LIBRIMIX
from repbench.corpora.manifest.prepare import prepare
from repbench.corpora.rttm import format_rttm, read_rttm, with_turns
from repbench.corpora.turns import ROUNDING_S, checked_turns, joined_turns
from repbench.errors import DataError, RepbenchError, UsageError
from tests.commands import repbench
from tests.corpora.sounds import RATE_HZ, noise_draft, write_noise, write_text

TURNS = (Turn(0.0, 0.3, "Zoë"), Turn(0.1, 0.5, "B"))
LINES = """\
;; made by hand
SPKR-INFO a 1 <NA> <NA> <NA> unknown B <NA>
SPEAKER a 1 0.00 0.30 <NA> <NA> Zoë <NA> <NA>
SPEAKER a 1 0.10 0.40 <NA> <NA> B <NA>

SPEAKER b 1 0.25 0.10 <NA> <NA> B <NA> <NA>
"""


def with_own(draft: Draft, turns: tuple[Turn, ...]) -> Draft:
    """The draft whose first utterance has turns."""
    first, *others = draft.utterances
    return replace(draft, utterances=[replace(first, turns=turns), *others])


class TestRttm:
    def test_lines_of_speakers_are_read_and_others_passed_over(self, tmp_path: Path) -> None:
        known = read_rttm(write_text(tmp_path / "all.rttm", LINES))
        assert known == {"a": [Turn(0.0, 0.3, "Zoë"), Turn(0.1, 0.5, "B")], "b": [Turn(0.25, 0.35, "B")]}

    def test_a_folder_is_read_as_a_whole(self, tmp_path: Path) -> None:
        for name in ("a", "deep/b"):
            line = f"SPEAKER {Path(name).name} 1 0 1 <NA> <NA> x <NA> <NA>\n"
            write_text(tmp_path / f"{name}.rttm", line)
        write_text(tmp_path / "notes.txt", "SPEAKER c 1 0 1 <NA> <NA> x <NA> <NA>\n")
        assert set(read_rttm(tmp_path)) == {"a", "b"}

    def test_what_is_written_is_read_again(self, tmp_path: Path) -> None:
        turns = [Turn(0.000001, 12.345678, "one two"), Turn(3.0, 4.5, "B")]
        path = write_text(tmp_path / "out.rttm", format_rttm([("an id", turns)]))
        ((name, found),) = read_rttm(path).items()
        assert name == "an_id"
        assert [turn.speaker for turn in found] == ["one_two", "B"]
        assert np.allclose([turn[:2] for turn in found], [turn[:2] for turn in turns], atol=1e-9, rtol=0)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("SPEAKER a 1 0 1 <NA> <NA>\n", r"8 columns or more, but has 7.*out\.rttm:1"),
            ("SPEAKER a 1 0 x <NA> <NA> b <NA> <NA>\n", r"Start and duration.*`x`.*out\.rttm:1"),
            ("SPEAKER a 1 0 0 <NA> <NA> b <NA> <NA>\n", "above 0"),
            ("SPEAKER a 1 -1 2 <NA> <NA> b <NA> <NA>\n", "at least 0"),
            ("SPEAKER a 1 0 inf <NA> <NA> b <NA> <NA>\n", "must be seconds"),
            ("nothing\n", "No line begins with `SPEAKER`"),
        ],
    )
    def test_other_lines_are_refused_with_their_place(self, tmp_path: Path, content: str, message: str) -> None:
        with pytest.raises(DataError, match=message):
            read_rttm(write_text(tmp_path / "out.rttm", content))

    def test_a_folder_without_any_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"no `\*\.rttm`"):
            read_rttm(tmp_path)


class TestWithTurns:
    def test_by_the_id_or_the_stem_of_the_file(self, tmp_path: Path) -> None:
        draft = noise_draft(tmp_path, ("a", "b"))
        renamed = replace(draft, utterances=[replace(each, id=f"x-{each.id}") for each in draft.utterances])
        path = write_text(tmp_path / "all.rttm", LINES)
        for given in (draft, renamed):
            found = {each.id[-1]: each.turns for each in with_turns(given, path).utterances}
            assert found == {"a": (Turn(0.0, 0.3, "Zoë"), Turn(0.1, 0.5, "B")), "b": (Turn(0.25, 0.35, "B"),)}

    def test_the_turns_of_a_part_of_a_file_are_cut_to_it(self, tmp_path: Path) -> None:
        draft = noise_draft(tmp_path, ("a",))
        part = replace(draft, utterances=[replace(each, start=0.2, end=0.4) for each in draft.utterances])
        (utterance,) = with_turns(part, write_text(tmp_path / "all.rttm", LINES)).utterances
        assert [turn.speaker for turn in utterance.turns or ()] == ["Zoë", "B"]
        assert np.allclose([turn[:2] for turn in utterance.turns or ()], [(0.0, 0.1), (0.0, 0.2)])

    def test_a_recording_without_a_line_is_a_fault_and_further_ones_are_counted(self, tmp_path: Path) -> None:
        path = write_text(tmp_path / "all.rttm", LINES)
        draft = with_turns(noise_draft(tmp_path, ("a", "c")), path)
        assert draft.notes == ("1 of 2 recordings of --rttm are not in the corpus",)
        with pytest.raises(DataError, match="No line of --rttm names the recording"):
            manifest.write(draft, tmp_path / "manifest")

    def test_files_of_another_corpus_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="they name a, b"):
            with_turns(noise_draft(tmp_path, ("c",)), write_text(tmp_path / "all.rttm", LINES))

    def test_the_command_takes_them_for_any_layout(self, tmp_path: Path) -> None:
        for seed, name in enumerate("ab"):
            write_noise(tmp_path / "sounds" / f"{name}.wav", seed=seed)
        rttm = write_text(tmp_path / "all.rttm", LINES)
        done = repbench(
            *("corpus", "prepare", "pattern", "--root", tmp_path / "sounds", "--pattern", "{id}.wav"),
            *("--out", tmp_path / "manifest", "--rttm", rttm, "--json"),
        )
        assert done.code == 0, done.err
        first = manifest.read(tmp_path / "manifest").utterances[0]
        assert first.turns == (Turn(0.0, 0.3, "Zoë"), Turn(0.1, 0.5, "B"))


class TestCheckedTurns:
    def test_those_of_one_speaker_that_touch_or_overlap_are_joined(self) -> None:
        given = [Turn(2.0, 3.0, "a"), Turn(0.0, 1.0, "a"), Turn(0.5, 2.0, "a"), Turn(0.2, 0.4, "b")]
        assert joined_turns(given) == (Turn(0.0, 3.0, "a"), Turn(0.2, 0.4, "b"))
        # a turn within another does not end it
        assert joined_turns([Turn(0.0, 3.0, "a"), Turn(1.0, 2.0, "a")]) == (Turn(0.0, 3.0, "a"),)

    def test_the_rounding_of_an_end_is_cut(self) -> None:
        assert checked_turns([Turn(0.0, 1.0 + ROUNDING_S, "a")], 1.0) == (Turn(0.0, 1.0, "a"),)
        assert checked_turns([Turn(1.0, 1.01, "a")], 1.0) == ()

    @pytest.mark.parametrize(
        ("turn", "message"),
        [
            (Turn(0.0, 1.1, "a"), "from 0 to 1.1 s, but the sound ends at 1 s"),
            (Turn(0.5, 0.5, "a"), "must end after it starts"),
            (Turn(-0.1, 0.5, "a"), "at 0 or later"),
            (Turn(0.0, float("nan"), "a"), "must end after it starts"),
            (Turn(0.0, 0.5, ""), "no name of a speaker"),
        ],
    )
    def test_what_contradicts_the_sound_is_refused(self, turn: Turn, message: str) -> None:
        with pytest.raises(DataError, match=message):
            checked_turns([turn], 1.0, utterance="u")


class TestManifest:
    @pytest.mark.parametrize("smallest", [0, 1 << 40], ids=["indexed", "plain"])
    def test_turns_are_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, smallest: int) -> None:
        monkeypatch.setattr("repbench.corpora.manifest.index.SMALLEST_BYTES", smallest)
        monkeypatch.setenv("REPBENCH_CACHE", str(tmp_path / "cache"))
        draft = noise_draft(tmp_path)
        first, second, third = draft.utterances
        given = replace(draft, utterances=[replace(first, turns=TURNS), replace(second, turns=()), third])
        written = manifest.write(given, tmp_path / "manifest")
        read = manifest.read(tmp_path / "manifest")
        assert [each.turns for each in read.utterances] == [TURNS, (), None]
        assert read.fingerprint == written.fingerprint
        assert read.utterances == written.utterances

    def test_they_are_part_of_the_fingerprint(self, tmp_path: Path) -> None:
        draft = noise_draft(tmp_path)
        made = [
            manifest.write(given, tmp_path / f"manifest{number}").fingerprint
            for number, given in enumerate(
                (draft, with_own(draft, TURNS), with_own(draft, TURNS[:1]), with_own(draft, ()))
            )
        ]
        assert len(set(made)) == len(made)

    @pytest.mark.parametrize(
        ("turns", "message"),
        [
            ('"x"', "`turns` must be a list"),
            ("[[0.0,0.1]]", r"Turn 1 must be \[start, end, speaker\]"),
            ('[[0.0,0.6,"a"]]', "the sound ends at 0.5 s"),
            ('[[0.2,0.3,"a"],[0.0,0.1,"a"]]', "not sorted"),
            ('[[0.0,0.2,"a"],[0.1,0.3,"a"]]', "those of a speaker overlap"),
        ],
    )
    def test_a_line_is_read_strictly(self, tmp_path: Path, turns: str, message: str) -> None:
        manifest.write(with_own(noise_draft(tmp_path), TURNS[:1]), tmp_path / "manifest")
        path = tmp_path / "manifest" / "manifest.jsonl"
        content = path.read_text("utf-8")
        assert '"turns":[[0.0,0.3,"Zoë"]]' in content
        path.write_text(content.replace('[[0.0,0.3,"Zoë"]]', turns), "utf-8")
        with pytest.raises(DataError, match=message):
            manifest.read(tmp_path / "manifest")

    def test_turns_past_the_sound_name_the_utterance(self, tmp_path: Path) -> None:
        with pytest.raises(RepbenchError, match=r"the sound ends at 0\.5 s"):
            manifest.write(with_own(noise_draft(tmp_path), (Turn(0.0, 1.0, "a"),)), tmp_path / "manifest")


def mixture(root: Path, part: str, name: str, lengths: tuple[float, ...] = (0.5, 0.3), seconds: float = 0.6) -> None:
    """A mixture of LibriMix with its sources, each filled up with zeros."""
    rng = np.random.default_rng(len(name))
    sources = np.zeros((len(lengths), round(seconds * RATE_HZ)))
    for source, length in zip(sources, lengths, strict=True):
        source[: round(length * RATE_HZ)] = rng.uniform(0.01, 0.3, round(length * RATE_HZ))
    for folder, samples in (
        ("mix_clean", sources.sum(axis=0)),
        *((f"s{k}", each) for k, each in enumerate(sources, 1)),
    ):
        (root / part / folder).mkdir(parents=True, exist_ok=True)
        soundfile.write(root / part / folder / f"{name}.wav", samples, RATE_HZ, subtype="PCM_16")


@pytest.fixture
def librimix(tmp_path: Path) -> Path:
    root = tmp_path / "max"
    mixture(root, "train-100", "19-198-0001_26-495-0002")
    mixture(root, "dev", "84-1-0001_367-1-0002", (0.6, 0.2))
    mixture(root, "test", "61-1-0001_121-1-0002")
    return root


class TestLibriMix:
    def test_sources_give_the_turns(self, librimix: Path, tmp_path: Path) -> None:
        corpus = manifest.write(prepare(LIBRIMIX, librimix, PrepareOptions()), tmp_path / "manifest")
        found = {each.split: (each.id, each.speaker, each.turns) for each in corpus.utterances}
        assert found == {
            "train": ("19-198-0001_26-495-0002", "19+26", (Turn(0.0, 0.3, "26"), Turn(0.0, 0.5, "19"))),
            "dev": ("84-1-0001_367-1-0002", "367+84", (Turn(0.0, 0.2, "367"), Turn(0.0, 0.6, "84"))),
            "test": ("61-1-0001_121-1-0002", "121+61", (Turn(0.0, 0.3, "121"), Turn(0.0, 0.5, "61"))),
        }
        assert corpus.notes == ("The turn of a speaker is its whole utterance, pauses included.",)

    def test_an_rttm_goes_before_the_sources(self, librimix: Path, tmp_path: Path) -> None:
        names = [path.stem for path in sorted(librimix.glob("*/mix_clean/*.wav"))]
        path = write_text(tmp_path / "all.rttm", format_rttm((name, [Turn(0.1, 0.2, "x")]) for name in names))
        for source in librimix.glob("*/s1/*.wav"):
            source.unlink()
        draft = prepare(LIBRIMIX, librimix, PrepareOptions(rttm=path))
        assert [each.turns for each in draft.utterances] == [(Turn(0.1, 0.2, "x"),)] * 3

    def test_a_missing_source_is_named(self, librimix: Path) -> None:
        (librimix / "dev" / "s2" / "84-1-0001_367-1-0002.wav").unlink()
        draft = prepare(LIBRIMIX, librimix, PrepareOptions())
        assert [fault.what for fault in draft.faults] == ["The source s2/84-1-0001_367-1-0002.wav is missing"]

    @pytest.mark.parametrize("name", ["mixture1", "19-1-0001_19-1-0002", "19-1_26-1"])
    def test_other_names_are_faults(self, librimix: Path, name: str) -> None:
        write_noise(librimix / "test" / "mix_clean" / f"{name}.wav", seed=1)
        (fault,) = prepare(LIBRIMIX, librimix, PrepareOptions()).faults
        assert "not named after utterances of different speakers" in fault.what

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            (PrepareOptions(variant="mix_both"), DataError, "train-100/mix_both/"),
            (PrepareOptions(variant="mixed"), UsageError, "no variant `mixed`"),
            (PrepareOptions(alignments=Path("x")), UsageError, "does not read `--alignments`"),
        ],
    )
    def test_what_is_not_there_is_refused(
        self, librimix: Path, options: PrepareOptions, error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            prepare(LIBRIMIX, librimix, options)

    def test_the_root_of_another_mode_is_refused(self, librimix: Path) -> None:
        with pytest.raises(DataError, match="No mixture was found"):
            prepare(LIBRIMIX, librimix.parent, PrepareOptions())
