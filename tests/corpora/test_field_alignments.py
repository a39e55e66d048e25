"""Alignments as aligners and annotators leave them, read through the one door and written into a manifest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from repbench.corpora import manifest
from repbench.corpora.alignments import align
from repbench.corpora.contract import Corpus, Draft, DraftUtterance, Phone, PrepareOptions
from repbench.corpora.layouts.pattern import PATTERN
from repbench.corpora.manifest.prepare import prepare
from repbench.downstream.phone_ctc import PhoneCTC
from repbench.errors import DataError, UsageError
from tests.corpora.sounds import long_textgrid, noise_draft, short_textgrid, write_noise, write_text

Interval = tuple[float, float, str]


def draft_of(folder: Path, **seconds: float) -> Draft:
    """A draft of noises of these lengths."""
    utterances = [
        DraftUtterance(id=name, audio=write_noise(folder / "root" / f"{name}.wav", seed=seed, seconds=length))
        for seed, (name, length) in enumerate(seconds.items())
    ]
    return Draft(name="noise", licence="none", root=folder / "root", utterances=utterances)


def textgrid(intervals: Sequence[Interval], *, tier: str = "phones", end_s: float | None = None) -> str:
    """A TextGrid of one tier that runs over its intervals alone, as P2FA and Charsiu write it."""
    start_s, end_s = intervals[0][0], intervals[-1][1] if end_s is None else end_s
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", f"{start_s}", f"{end_s}", "<exists>", "1"]
    lines += ['"IntervalTier"', f'"{tier}"', f"{start_s}", f"{end_s}", f"{len(intervals)}"]
    return "\n".join([*lines, *(f'{start}\n{end}\n"{label}"' for start, end, label in intervals)]) + "\n"


def tiers(**intervals: Sequence[Interval]) -> str:
    """A TextGrid of interval tiers."""
    end_s = max(tier[-1][1] for tier in intervals.values())
    lines = ['"ooTextFile"', '"TextGrid"', "0", f"{end_s}", "<exists>", f"{len(intervals)}"]
    for name, tier in intervals.items():
        lines += ['"IntervalTier"', f'"{name}"', "0", f"{end_s}", f"{len(tier)}"]
        lines += [f'{start} {end} "{label}"' for start, end, label in tier]
    return "\n".join(lines) + "\n"


def aligned(
    folder: Path, text: str, *, name: str = "a.TextGrid", seconds: float = 1.0, options: PrepareOptions | None = None
) -> Draft:
    """One noise and the one alignment of it."""
    write_text(folder / "ali" / name, text.rstrip("\n"))
    return align(draft_of(folder, a=seconds), folder / "ali", options)


def phones_of(draft: Draft) -> tuple[Phone, ...]:
    (utterance,) = draft.utterances
    assert utterance.phones is not None
    return utterance.phones


def written(draft: Draft, folder: Path) -> Corpus:
    return manifest.write(draft, folder / "out")


def equal_lines(form: str, labels: Sequence[str], *, seconds: float = 1.0) -> str:
    """Lines of equal length, one a label."""
    step = seconds / len(labels)
    return "\n".join(form.format(k * step, (k + 1) * step, step, label) for k, label in enumerate(labels))


SECONDS, CTM = "{0:.4f} {1:.4f} {3}", "a 1 {0:.4f} {2:.4f} {3}"


# Edges: one tolerance for all formats.


@pytest.mark.parametrize(
    ("start_s", "end_s"),
    [(0.0125, 0.997), (0.02, 0.99), (0.0, 0.978), (0.0, 0.976), (0.012, 0.975), (0.3, 1.0), (0.0, 0.7), (0.0, 0.51)],
)
def test_a_textgrid_may_start_late_and_end_early(tmp_path: Path, start_s: float, end_s: float) -> None:
    draft = aligned(tmp_path, textgrid([(start_s, 0.4, "sp"), (0.4, end_s, "AH1")]))
    assert phones_of(draft) == (Phone(start_s, 0.4, "sp"), Phone(0.4, end_s, "AH1"))
    assert draft.notes[0] == (
        "1 of 1 alignments leave edges of their sound without a label, "
        f"at most {start_s:.4f} s at the start and {1 - end_s:.4f} s at the end (`a` first)"
    )


def test_more_than_half_of_a_sound_is_no_gap_at_its_end(tmp_path: Path) -> None:
    assert phones_of(aligned(tmp_path, "0 0.1 AH1\n0.1 0.26 T", name="a.txt", seconds=0.5))[-1].end_s == 0.26
    with pytest.raises(DataError, match=r"from 0 to 0\.2 s, but the sound lasts 0\.5 s.*label the rest of it as `sil`"):
        aligned(tmp_path, "0 0.1 AH1\n0.1 0.2 T", name="a.txt", seconds=0.5)


@pytest.mark.parametrize(("name", "form"), [("a.txt", SECONDS), ("x.ctm", CTM)])
def test_other_formats_may_end_as_early(tmp_path: Path, name: str, form: str) -> None:
    draft = aligned(tmp_path, equal_lines(form, ["sil", "AH1", "T"], seconds=0.7), name=name)
    assert phones_of(draft)[-1].end_s == pytest.approx(0.7)
    assert "at most 0.0000 s at the start and 0.3000 s at the end" in draft.notes[0]


def test_an_end_within_a_frame_of_the_sound_is_cut_there_and_counted(tmp_path: Path) -> None:
    draft = aligned(tmp_path, textgrid([(0.0, 0.4, "sil"), (0.4, 1.008, "T")]))
    assert phones_of(draft)[-1] == Phone(0.4, 1.0, "T")
    assert draft.notes[0] == "1 of 1 alignments end past their sound and are cut there, by at most 0.0080 s (`a` first)"


@pytest.mark.parametrize(
    ("factor", "guess"),
    [
        (1000, ""),
        (16_000, ""),
        (1.0125, ""),
        (0.8, " 12.5 ms frames read as 10 ms?"),
        (0.5, " half the rate?"),
        (0.3, ""),
    ],
)
def test_fault_21_other_units_and_rates_stay_refused(tmp_path: Path, factor: float, guess: str) -> None:
    text = textgrid([(0.0, 0.4 * factor, "sil"), (0.4 * factor, factor, "T")])
    with pytest.raises(DataError, match=rf"to {factor:g} s, but the sound lasts 1 s.*utterance a.*seconds\?") as caught:
        aligned(tmp_path, text)
    assert caught.value.do is not None
    assert caught.value.do.startswith(f"Times in seconds?{guess} Check")


def test_fault_21_times_of_a_longer_recording_are_guessed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"from 12\.3 to 13\.3 s.*from the start of a longer recording\?"):
        aligned(tmp_path, textgrid([(12.3, 12.5, "sil"), (12.5, 13.3, "T")]))


@pytest.mark.parametrize("unit", [1_000, 16_000])
def test_fault_21_times_that_are_far_too_small_are_refused_even_with_a_gap(tmp_path: Path, unit: int) -> None:
    text = f"{unit // 10} {unit // 2} t\n{unit // 2} {unit} ah"
    with pytest.raises(
        DataError, match=r"No alignment reaches beyond 1% of its sound .*a\.lab:1, utterance a.*seconds\?"
    ):
        aligned(tmp_path, text, name="a.lab")


def folder_of(folder: Path, **ends: float) -> Path:
    """A seconds file for each utterance, without a gap."""
    for name, end_s in ends.items():
        write_text(folder / "ali" / f"{name}.txt", f"0 0.2 sil\n0.2 {end_s} T")
    return folder / "ali"


def test_fault_21_one_early_end_that_fits_another_rate_by_chance_is_held(tmp_path: Path) -> None:
    draft = align(draft_of(tmp_path, a=1.5, b=1.5, c=1.0), folder_of(tmp_path, a=1.2, b=1.1, c=0.9))
    assert [utterance.phones[-1].end_s for utterance in draft.utterances if utterance.phones] == [1.2, 1.1, 0.9]


def test_fault_21_early_ends_that_mostly_fit_another_rate_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"from 0 to 1\.2 s, but the sound lasts 1\.5 s .*utterance a.*12\.5 ms frames"):
        align(draft_of(tmp_path, a=1.5, b=1.0, c=1.0), folder_of(tmp_path, a=1.2, b=0.79, c=0.9))


# Tiers.

AT = [(0.0, 0.5, "<p:>"), (0.5, 1.0, "{")]


@pytest.mark.parametrize(
    "name", ["MAU", "Phonetic", "segments", "phoneme", "Phonemes", "PhonAlign", "Ann - MAU", "phone", "Ann - phones"]
)
def test_the_one_tier_with_a_known_name_is_taken(tmp_path: Path, name: str) -> None:
    draft = aligned(tmp_path, tiers(**{"ORT": [(0.0, 1.0, "at")], "KAN": [(0.0, 1.0, "{t")], name: AT}))
    assert phones_of(draft) == (Phone(0.0, 0.5, "<p:>"), Phone(0.5, 1.0, "{"))
    said = f"the phones of 1 of 1 alignments are those of the tier `{name}`"
    assert (said in draft.notes) == ("phone" not in name.lower().removesuffix("s").split() or name == "phoneme")


def test_segments_beside_phones_are_no_second_choice(tmp_path: Path) -> None:
    assert phones_of(aligned(tmp_path, tiers(segments=[(0.0, 1.0, "a whole sentence")], phones=AT)))[0].label == "<p:>"


def test_a_tier_of_sentences_is_no_tier_of_phones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"look like words and not like phones: 2 of 2 .*`in a box`.*--tier NAME"):
        aligned(tmp_path, tiers(segments=[(0.0, 0.5, "in a box"), (0.5, 1.0, "so it is")]))


@pytest.mark.parametrize("asked", ["Speaker B - phones", "speaker b - PHONES"])
def test_of_several_speakers_one_tier_is_named(tmp_path: Path, asked: str) -> None:
    text = tiers(**{"Speaker A - phones": [(0.0, 1.0, "T")], "Speaker B - phones": AT})
    with pytest.raises(DataError, match=r"2 tiers of phones \(its interval tiers: `Speaker A - phones`, .*--tier NAME"):
        aligned(tmp_path, text)
    draft = aligned(tmp_path, text, options=PrepareOptions(tier=asked))
    assert phones_of(draft)[1].label == "{"
    assert draft.notes[0] == "the phones of 1 of 1 alignments are those of the tier `Speaker B - phones`"


def test_any_tier_can_be_named_and_one_that_is_not_there_is_refused(tmp_path: Path) -> None:
    text = tiers(words=[(0.0, 1.0, "at")], narrow=AT)
    assert phones_of(aligned(tmp_path, text, options=PrepareOptions(tier="narrow")))[1].label == "{"
    with pytest.raises(DataError, match=r"has no tier `broad` \(its interval tiers: `words`, `narrow`\).*a\.TextGrid"):
        aligned(tmp_path, text, options=PrepareOptions(tier="broad"))


def test_a_tier_of_points_holds_no_phones(tmp_path: Path) -> None:
    text = tiers(words=AT).replace("<exists>\n1\n", '<exists>\n2\n"TextTier"\n"bell"\n0\n1\n1\n0.5\n"x"\n')
    with pytest.raises(DataError, match=r"has tier `bell` of points, which have no duration .*`words`"):
        aligned(tmp_path, text, options=PrepareOptions(tier="bell"))


@pytest.mark.parametrize(("name", "form"), [("a.txt", SECONDS), ("x.ctm", CTM)])
def test_a_tier_of_what_has_none_is_refused(tmp_path: Path, name: str, form: str) -> None:
    with pytest.raises(UsageError, match="`--tier` names a tier of TextGrids, but the alignments are "):
        aligned(tmp_path, equal_lines(form, ["T", "AH1"]), name=name, options=PrepareOptions(tier="MAU"))


@pytest.mark.parametrize("option", ["tier", "relabel", "keep_labels"])
def test_options_of_alignments_without_alignments_are_refused(tmp_path: Path, option: str) -> None:
    write_noise(tmp_path / "a.wav", seed=0)
    value = {"tier": "MAU", "relabel": {"x": "sil"}, "keep_labels": True}[option]
    options = PrepareOptions(pattern="{id}.wav", **{option: value})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=rf"`--{option.replace('_', '-')}` is an option of `--alignments`"):
        prepare(PATTERN, tmp_path, options)


# States.

FULL = "x^sil-{}+b=c@1_2/A:0_0_0/J:13+9-2[{}]"


def state_lines(*phones: str, form: str = "{}[{}]", states: Sequence[int] = (2, 3, 4, 5, 6)) -> str:
    """HTS labels of states of 20 ms."""
    labels = [form.format(phone, state) for phone in phones for state in states]
    return "\n".join(f"{k * 200_000} {(k + 1) * 200_000} {label}" for k, label in enumerate(labels))


@pytest.mark.parametrize("form", ["{}[{}]", FULL, "b-{}+c[{}]"])
@pytest.mark.parametrize("states", [(2, 3, 4, 5, 6), (2, 3, 4), (1, 2), (2,), (2, 4, 6)])
def test_states_are_joined_to_phones(tmp_path: Path, form: str, states: tuple[int, ...]) -> None:
    text = state_lines("ah", "t", "t", "ah", form=form, states=states)
    draft = aligned(tmp_path, text, name="a.lab", seconds=0.08 * len(states))
    assert [phone.label for phone in phones_of(draft)] == ["ah", "t", "t", "ah"]
    assert phones_of(draft)[1] == pytest.approx((0.02 * len(states), 0.04 * len(states), "t"))
    assert draft.notes[0] == f"{4 * len(states)} states of HMMs were joined into 4 phones"


def test_phone_ctc_asks_for_each_phone_once(tmp_path: Path) -> None:
    corpus = written(aligned(tmp_path, state_lines("pau", "ah", "t"), name="a.lab", seconds=0.3), tmp_path)
    assert PhoneCTC().labels(corpus.utterances[0]) == ("ah", "t")
    assert corpus.label_sets["phones"] == ("ah", "sil", "t")


@pytest.mark.parametrize(("name", "text"), [("a.txt", "0 0.1 ah[2]\n0.1 0.3 ah[3]\n0.3 0.5 t[2]\n0.5 1 t[3]")])
def test_states_of_other_formats_are_joined_too(tmp_path: Path, name: str, text: str) -> None:
    assert phones_of(aligned(tmp_path, text, name=name)) == (Phone(0.0, 0.3, "ah"), Phone(0.3, 1.0, "t"))


def test_states_in_context_in_seconds_are_joined_too(tmp_path: Path) -> None:
    text = "\n".join(f"{k / 10} {(k + 1) / 10} {FULL.format('ah' if k < 5 else 't', 2 + k % 5)}" for k in range(10))
    assert phones_of(aligned(tmp_path, text, name="a.lab")) == (Phone(0.0, 0.5, "ah"), Phone(0.5, 1.0, "t"))


@pytest.mark.parametrize("score", ["", " -52.4"])
def test_states_of_htk_are_joined_under_the_name_of_their_model(tmp_path: Path, score: str) -> None:
    rows = [f"s2{score} sil -500.1 <s>", f"s3{score}", f"s2{score} ah -81.0 A", f"s4{score}", f"s2{score} ah -80.0"]
    text = "\n".join(f"{k * 2_000_000} {(k + 1) * 2_000_000} {row}" for k, row in enumerate(rows))
    assert [phone.label for phone in phones_of(aligned(tmp_path, text, name="a.lab"))] == ["sil", "ah", "ah"]
    with pytest.raises(DataError, match=r"states of HTK, but no phone is named: .*a\.lab:1, utterance a.*without -f"):
        aligned(tmp_path, state_lines("s", states=(2, 3), form="{}{}"), name="a.lab")


@pytest.mark.parametrize(
    ("labels", "what"),
    [
        (("ah[2]", "ah[4]", "ah[3]"), r"state \[3\] of `ah` comes after \[4\] .*a\.lab:3, utterance a"),
        (("t[2]", "ah[3]", "ah[3]"), r"state \[3\] of `ah` comes after \[3\] .*a\.lab:3"),
    ],
)
def test_states_that_make_no_phone_are_refused(tmp_path: Path, labels: Sequence[str], what: str) -> None:
    text = "\n".join(f"{k * 1_000_000} {(k + 1) * 1_000_000} {label}" for k, label in enumerate(labels))
    with pytest.raises(DataError, match=rf"{what}.*write the alignment of phones"):
        aligned(tmp_path, text, name="a.lab", seconds=0.3)


def test_time_between_the_states_of_a_phone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"time before the state \[3\] of `ah`.*a\.lab:2"):
        aligned(tmp_path, "0 1000000 ah[2]\n1100000 3000000 ah[3]", name="a.lab", seconds=0.3)


# Labels.

MARKS = [
    "!SIL",
    "{sil}",
    "sp1",
    "+",
    "(pause)",
    "[SIL]",
    "<p:>",
    "silB",
    "silE",
    "H#",
    "h#",
    "SIL_S",
    "pau",
    "PAU",
    "sp",
    "Sil",
    "<eps>",
    "<sil>",
    "#",
    "_",
    "ssil",
]


@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_of_silence_leaves_the_39_phones(tmp_path: Path, mark: str) -> None:
    text = textgrid([(0.0, 0.4, mark), (0.4, 0.6, "AE1"), (0.6, 0.8, "AE0"), (0.8, 1.0, "T")])
    corpus = written(aligned(tmp_path, text), tmp_path)
    assert [phone.label for phone in corpus.utterances[0].phones or ()] == ["sil", "AE", "AE", "T"]
    assert len(corpus.label_sets["phones"]) == 40
    assert corpus.notes == (
        f"1 of 4 intervals are silence and become `sil`: `{mark}`",
        "2 of 4 labels lose their stress: `AE0`, `AE1`",
    )


@pytest.mark.parametrize(
    "mark", ["[NSN]", "{LG}", "<unk>", "[UNK]", "ns", "SPN_S", "+BREATH+", "[door slams]", "<usb>", "*", "-"]
)
def test_a_mark_of_noise_carries_no_label(tmp_path: Path, mark: str) -> None:
    text = textgrid([(0.0, 0.4, mark), (0.4, 0.6, "AE1"), (0.6, 0.8, "AE0"), (0.8, 1.0, "T")])
    corpus = written(aligned(tmp_path, text), tmp_path)
    assert [phone.label for phone in corpus.utterances[0].phones or ()] == ["AE", "AE", "T"]
    assert len(corpus.label_sets["phones"]) == 40
    assert corpus.notes[0] == f"1 of 4 intervals are noise or unknown and carry no label: `{mark}`"


def test_an_unknown_label_among_arpabet_stays_is_named_and_keeps_no_stress(tmp_path: Path) -> None:
    text = textgrid([(0.0, 0.4, "AX"), (0.4, 0.6, "AE1"), (0.6, 0.8, "AE0"), (0.8, 1.0, "T")])
    corpus = written(aligned(tmp_path, text), tmp_path)
    assert corpus.label_sets["phones"] == ("AE", "AX", "T")
    assert corpus.notes == (
        "2 of 4 labels lose their stress: `AE0`, `AE1`",
        "1 of 4 intervals keep labels that are no ARPABET in capitals, 1 of them: `AX`",
    )


@pytest.mark.parametrize(
    ("labels", "phones"),
    [
        (["SIL", "DH_B", "AH0_E", "K_B", "AE1_I", "T_E", "AH0_S", "SIL_S"], ["DH", "AH", "K", "AE", "T", "AH"]),
        (["sil", "dh_B", "ah_E", "oov_S", "k_B", "t_E"], ["dh", "ah", "k", "t"]),
        (["a_B", "b_E", "c"], ["a", "b", "c"]),
    ],
)
def test_word_positions_of_kaldi_come_off(tmp_path: Path, labels: list[str], phones: list[str]) -> None:
    corpus = written(aligned(tmp_path, equal_lines(CTM, labels), name="x.ctm"), tmp_path)
    assert [phone.label for phone in corpus.utterances[0].phones or () if phone.label != "sil"] == phones
    assert any("labels lose their word position: " in note for note in corpus.notes)


def test_digits_of_tones_are_no_stress(tmp_path: Path) -> None:
    labels = ["B", "AO1", "M", "AO3", "L", "AY2", "SH"]
    corpus = written(aligned(tmp_path, equal_lines(CTM, labels), name="x.ctm"), tmp_path)
    assert corpus.label_sets["phones"] == tuple(sorted(labels))


def test_tones_and_diacritics_of_sampa_are_no_word_positions(tmp_path: Path) -> None:
    corpus = written(aligned(tmp_path, equal_lines(CTM, ["a_B", "t_h", "i", "p:", "{"]), name="x.ctm"), tmp_path)
    assert corpus.label_sets["phones"] == ("a_B", "i", "p:", "t_h", "{")


@pytest.mark.parametrize(
    "words",
    [
        ["hello", "world", "this", "is", "it"],
        ["the", "cat", "sat", "on", "a", "mat"],
        ["AND", "HE", "SAID", "<eps>", "SO"],
        ["你好", "世界", "啊"],
    ],
)
def test_words_do_not_become_the_phone_set(tmp_path: Path, words: list[str]) -> None:
    text = equal_lines(CTM, words)
    with pytest.raises(DataError, match=r"look like words and not like phones.*x\.ctm:1, utterance a.*--keep-labels"):
        aligned(tmp_path, text, name="x.ctm")
    corpus = written(aligned(tmp_path, text, name="x.ctm", options=PrepareOptions(keep_labels=True)), tmp_path)
    assert corpus.label_sets["phones"] == tuple(sorted(words))
    assert corpus.notes[0].startswith(f"{len(words)} of {len(words)} intervals keep their label, nothing is folded: ")


def test_more_classes_than_a_phone_set_has_are_refused(tmp_path: Path) -> None:
    labels = [f"{first}{second}" for first in "abcdefghijklmnopqr" for second in "abcdefghijkl"]
    with pytest.raises(
        DataError, match=r"There are 216 labels, more than a phone set has, and half of them are rare \(`aa`, "
    ):
        aligned(tmp_path, equal_lines(CTM, labels, seconds=3.0), name="x.ctm", seconds=3.0)
    assert (
        len(phones_of(aligned(tmp_path, equal_lines(CTM, labels * 3, seconds=9.0), name="x.ctm", seconds=9.0))) == 648
    )


@pytest.mark.parametrize(
    "labels",
    [
        ["h#", "sh", "iy", "hv", "ae", "dcl", "d", "y", "er", "dcl", "axr", "kcl", "pau"],
        ["t͡ʃ", "aɪ", "ŋ", "tʰ", "ɜː", "spn", "dʒ"],
        ["j", "ing1", "g", "uang3", "zh", "ou1", "r", "iii4", "b", "ao4", "[SIL]"],
        ["silB", "k", "o", "N", "n", "i", "ch", "i", "w", "a:", "sp", "ky", "silE"],
        ["7", "12", "1024", "0"],
        ["p:", "6", "aU", "tS", "<p:>", "i:", "@"],
    ],
)
def test_phone_sets_of_other_languages_are_phones(tmp_path: Path, labels: list[str]) -> None:
    corpus = written(aligned(tmp_path, equal_lines(CTM, labels), name="x.ctm"), tmp_path)
    silent = {"h#", "pau", "[SIL]", "silB", "sp", "silE", "<p:>"}
    met = {"sil" if label in silent else label for label in labels if label != "spn"}
    assert corpus.label_sets["phones"] == tuple(sorted(met))


def test_labels_are_renamed_as_asked(tmp_path: Path) -> None:
    text = equal_lines(SECONDS, ["zzz", "AE1", "AX", "T", "hm"])
    options = PrepareOptions(relabel={"zzz": "sil", "AX": "AH0", "hm": None})
    corpus = written(aligned(tmp_path, text, name="a.txt", options=options), tmp_path)
    assert [phone.label for phone in corpus.utterances[0].phones or ()] == ["sil", "AE", "AH", "T"]
    assert len(corpus.label_sets["phones"]) == 40
    assert corpus.notes == (
        "3 of 5 intervals are relabelled as asked: `AX=AH0`, `hm=`, `zzz=sil`",
        "2 of 4 labels lose their stress: `AE1`, `AH0`",
    )
    with pytest.raises(UsageError, match="`--relabel` names the label `breath`, but it occurs nowhere"):
        aligned(tmp_path, text, name="a.txt", options=PrepareOptions(relabel={"breath": "sil"}))


def test_a_rare_stranger_names_the_way_out(tmp_path: Path) -> None:
    text = equal_lines(SECONDS, [*["AE1", "T"] * 15, "brx"])
    with pytest.raises(DataError, match=r"no phones of it: `brx` .*a\.txt:31, utterance a.*--relabel 'brx=sil'"):
        aligned(tmp_path, text, name="a.txt")
    draft = aligned(tmp_path, text, name="a.txt", options=PrepareOptions(relabel={"brx": None}))
    assert draft.phone_set is not None
    assert len(draft.phone_set) == 40


# What stands in the place of an alignment.

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1234\n"
PAGE = b"\n\n<!DOCTYPE html>\n<html lang='en'><head><title>a.TextGrid</title></head></html>\n"


@pytest.mark.parametrize("name", ["a.TextGrid", "a.lab", "a.txt", "a.phn", "x.ctm", "labels.txt"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (LFS, r"is a git-LFS pointer, not the file that it points to, .*`git lfs pull`"),
        (PAGE, r"is an HTML or XML page, where an alignment is expected.*Fetch the file again"),
        (b"/annex/objects/SHA256E-s12--abc.TextGrid\n", r"is a git-annex pointer.*`git annex get`"),
        (b"\x1f\x8b\x08\x00", r"is a gzip file, where .*Unpack it"),
    ],
)
def test_what_is_no_alignment_is_named(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    write_text(tmp_path / "ali" / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"This {what}") as caught:
        align(noise_draft(tmp_path / "root"), tmp_path / "ali")
    assert caught.value.file == str(tmp_path / "ali" / name)


def test_a_binary_textgrid_is_named(tmp_path: Path) -> None:
    write_text(tmp_path / "ali" / "a.TextGrid").write_bytes(b"ooBinaryFile\x08TextGrid\x00\x00")
    with pytest.raises(DataError, match=r"is a binary TextGrid, where .*Save as text file"):
        align(noise_draft(tmp_path / "root"), tmp_path / "ali")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.TextGrid", short_textgrid([(0.0, 0.5, "ʃ")])),
        ("a.TextGrid", long_textgrid([(0.0, 0.5, "ʃ")])),
        ("a.txt", "0 0.5 ʃ\r\n"),
        ("a.lab", "0 5000000 ʃ\n"),
        ("a.phn", "0 8000 ʃ\n"),
    ],
)
def test_utf_16_is_read_with_and_without_its_mark(tmp_path: Path, encoding: str, name: str, text: str) -> None:
    write_text(tmp_path / "ali" / name).write_bytes(text.encode(encoding))
    draft = align(noise_draft(tmp_path / "root", ["a"]), tmp_path / "ali")
    assert phones_of(draft) == (Phone(0.0, 0.5, "ʃ"),)


def test_utf_16_of_many_utterances_and_other_encodings_say_what_to_do(tmp_path: Path) -> None:
    write_text(tmp_path / "x.ctm").write_bytes("a 1 0 0.5 T\n".encode("utf-16-le"))
    with pytest.raises(DataError, match=r"is UTF-16, but .*x\.ctm.*`iconv -f utf-16 -t utf-8 OLD > NEW`"):
        align(noise_draft(tmp_path / "root"), tmp_path / "x.ctm")
    write_text(tmp_path / "a.txt").write_bytes("0 0.5 é\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"not valid UTF-8.*Save it as UTF-8"):
        align(noise_draft(tmp_path / "root"), tmp_path / "a.txt")
    write_text(tmp_path / "a.phn").write_bytes(b"0 8000 T\0\n")
    with pytest.raises(DataError, match=r"is not text: it holds a NUL \(character 8\)"):
        align(noise_draft(tmp_path / "root"), tmp_path / "a.phn")


def test_a_chronological_textgrid_is_read(tmp_path: Path) -> None:
    text = """"Praat chronological TextGrid text file"
0 1   ! Time domain.
3   ! Number of tiers.
"IntervalTier" "words" 0 1
"TextTier" "bell" 0 1
"IntervalTier" "phones" 0 1

1 0 1
"at"

3 0 0.4
"AE1"

2 0.3
"ding"
3 0.4 1
"T"
"""
    assert phones_of(aligned(tmp_path, text)) == (Phone(0.0, 0.4, "AE1"), Phone(0.4, 1.0, "T"))
    with pytest.raises(DataError, match=r"There is no tier 4 among 3 \(line 16\)"):
        aligned(tmp_path, text.replace("3 0.4 1", "4 0.4 1"))
    with pytest.raises(DataError, match=r"ends where a string is expected"):
        aligned(tmp_path, text.rpartition('"T"')[0])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.TextGrid", long_textgrid([(0.0, 0.25, "T"), (0.25, 0.5, "sp")]).replace(".", ",")),
        ("a.TextGrid", short_textgrid([(0.0, 0.25, "T"), (0.25, 0.5, "sp")]).replace(".", ",")),
        ("a.txt", "0,00 0,25 T\n0,25 0,50 sp\n"),
        ("a.lab", "0,00 0,25 T\n0,25 0,50 sp\n"),
        ("a.lab", "#\n0,25 121 T\n0,5 121 sp\n"),
        ("x.ctm", "a 1 0,00 0,25 T\na 1 0,25 0,25 sp\n"),
        ("x.txt", "a 1 0,00 0,25 T\na 1 0,25 0,25 sp\n"),
    ],
)
def test_decimal_commas_are_named(tmp_path: Path, name: str, text: str) -> None:
    write_text(tmp_path / "ali" / name, text)
    with pytest.raises(DataError, match=r"0,.*Write decimal points: `sed -E ") as caught:
        align(noise_draft(tmp_path / "root"), tmp_path / "ali")
    assert caught.value.file is not None
    assert caught.value.file.startswith(str(tmp_path / "ali" / name))
