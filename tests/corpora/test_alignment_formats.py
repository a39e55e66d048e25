"""Every format of alignments, written as its programs write it and read through a layout or the one door."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from repbench.corpora import manifest
from repbench.corpora.alignments import align
from repbench.corpora.alignments.interval_files import central_phone
from repbench.corpora.contract import Draft, DraftUtterance, Phone, PrepareOptions
from repbench.corpora.layouts.csv_table import CSV
from repbench.corpora.manifest.prepare import prepare
from repbench.errors import DataError
from tests.corpora.alignment_files import FORMATS, Format, Intervals, ctm, label_line, seconds_lines, xlabel
from tests.corpora.sounds import RATE_HZ, long_textgrid, noise_draft, write_noise

PHONES = [(0.0, 0.12, "sil"), (0.12, 0.2, "DH"), (0.2, 0.31, "AH0"), (0.31, 0.4, "K"), (0.4, 0.5, "sil")]
"""Without a gap; as long as the sounds of `noise_draft`."""

ONE_A_FILE = [name for name, form in FORMATS.items() if form.prefix is None]
MANY_A_FILE = [name for name, form in FORMATS.items() if form.prefix is not None]
UNDECLARED = [name for name in FORMATS if "TextGrid" not in name]
"""Formats that do not say how long the sound is."""

GOLDEN = Path(__file__).parents[1] / "golden" / "downstream" / "legacy_alignment.json"


def phones_of(draft: Draft) -> dict[str, tuple[Phone, ...] | None]:
    return {utterance.id: utterance.phones for utterance in draft.utterances}


def scaled(factor: float) -> list[tuple[float, float, str]]:
    return [(round(start * factor, 4), round(end * factor, 4), label) for start, end, label in PHONES]


@pytest.mark.parametrize("form", FORMATS.values(), ids=list(FORMATS))
def test_the_same_phones_come_of_every_format(tmp_path: Path, form: Format) -> None:
    root = tmp_path / "root"
    for seed, name in enumerate(("a", "b")):
        write_noise(root / f"{name}.wav", seed=seed)
    (root / "table.csv").write_text("path,speaker\na.wav,s\nb.wav,s\n")
    source = form.save(tmp_path / "alignments", {"a": PHONES, "b": [*PHONES[:3], (0.31, 0.5, "ZH")], "other": PHONES})
    draft = prepare(CSV, root, PrepareOptions(alignments=source))
    corpus = manifest.write(draft, tmp_path / "manifest")
    wanted = [(0.0, 0.12, "sil"), (0.12, 0.2, "DH"), (0.2, 0.31, "AH"), (0.31, 0.4, "K"), (0.4, 0.5, "sil")]
    first, second = (utterance.phones for utterance in corpus.utterances)
    assert first is not None
    assert second is not None
    assert [phone.label for phone in first] == [label for *_, label in wanted]
    assert [time for phone in first for time in phone[:2]] == pytest.approx([t for each in wanted for t in each[:2]])
    assert [phone.label for phone in second] == ["sil", "DH", "AH", "ZH"]
    assert len(corpus.label_sets["phones"]) == 40
    assert corpus.notes == ("2 of 9 labels lose their stress: `AH0`",)


def random_intervals(generator: random.Random, form: Format) -> list[tuple[float, float, str]]:
    """Intervals on the format's grid that end with a sound of half a second."""
    grid = round(0.5 / form.unit_s)
    times = sorted(generator.sample(range(1, grid), k=generator.randint(1, 12)))
    labels = generator.choices(["AA1", "sil", "ʃ", "t_h", "h#", "axr"], k=len(times) + 1)
    if not form.holds_repeats:
        labels = [label for label, _ in itertools.groupby(labels)]
    edges = [0, *times[: len(labels) - 1], grid]
    intervals = [
        (start * form.unit_s, end * form.unit_s, label)
        for (start, end), label in zip(itertools.pairwise(edges), labels, strict=True)
    ]
    if form.holds_gaps and len(intervals) > 2:
        del intervals[generator.randrange(len(intervals) - 1)]
    return intervals


@pytest.mark.parametrize("form", FORMATS.values(), ids=list(FORMATS))
def test_any_intervals_survive_every_format_that_can_hold_them(tmp_path: Path, form: Format) -> None:
    generator = random.Random(0)
    draft = noise_draft(tmp_path / "root", [f"u-{number}" for number in range(30)])
    intervals: dict[str, Intervals] = {each.id: random_intervals(generator, form) for each in draft.utterances}
    found = phones_of(align(draft, form.save(tmp_path / "alignments", intervals)))
    for name, wanted in intervals.items():
        phones = found[name]
        assert phones is not None
        assert [phone.label for phone in phones] == [label for *_, label in wanted]
        flat = [time for phone in phones for time in phone[:2]]
        assert flat == pytest.approx([time for each in wanted for time in each[:2]], abs=form.unit_s / 100 + 1e-9)


def test_labels_are_times_and_lead_nothing(tmp_path: Path) -> None:
    """The legacy frames put label k at k·12.5 ms + 25 ms; here the segment is where its times say."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    segments = [tuple(segment) for segment in golden["segments"]]
    audio = write_noise(tmp_path / "root" / "a.wav", seed=0, seconds=1.0)
    draft = Draft(name="x", licence="x", root=tmp_path, utterances=[DraftUtterance(id="a", audio=audio)])
    found = align(draft, FORMATS["start end phone"].save(tmp_path / "alignments", {"a": segments}))
    phones = phones_of(found)["a"]
    assert phones == tuple(Phone(*segment) for segment in segments)
    assert found.phone_map == {"AE1": "AE", "AH0": "AH", "IY0": "IY", "SIL": "sil"} | {
        p: p for p in ("DH", "K", "S", "T")
    }
    legacy = [golden["phone2idx"][label_at(phones, (200 * k + 400) / RATE_HZ)] for k in range(len(golden["labels"]))]
    assert legacy == golden["labels"]


def label_at(phones: tuple[Phone, ...], time_s: float) -> str:
    return next(phone.label for phone in phones if phone.start_s <= time_s < phone.end_s)


def test_phn_counts_samples_at_the_rate_of_the_sound(tmp_path: Path) -> None:
    audio = write_noise(tmp_path / "a.wav", seed=0, rate_hz=8_000)
    draft = Draft(name="x", licence="x", root=tmp_path, utterances=[DraftUtterance(id="a", audio=audio)])
    (tmp_path / "a.phn").write_text("0 1000 h#\n1000 4000 sh\n")
    assert phones_of(align(draft, tmp_path))["a"] == (Phone(0.0, 0.125, "h#"), Phone(0.125, 0.5, "sh"))
    (tmp_path / "a.phn").write_text("0 2000 h#\n2000 8000 sh\n")
    with pytest.raises(DataError, match=r"Interval 2 \(line 2\) ends at 1 s, but the sound lasts 0\.5 s"):
        align(draft, tmp_path)


@pytest.mark.parametrize(
    ("label", "phone"),
    [
        ("x^x-sil+sil=ey@x_x/A:0_0_0/B:x-x-x@x-x&x-x#x-x$x-x!x-x;x-x|x/J:6+5-1", "sil"),
        ("sil^ey-m+ih=d@1_3/A:1_0_1/B:1-1-3@1-3&2-5", "m"),
        ("sil^ey-m+ih=d@1_3/A:1_0_1[4]", "m"),
        ("s-ih+l", "ih"),
        ("ih", "ih"),
        ("ih[2]", "ih"),
        ("t_h", "t_h"),
        ("AH0", "AH0"),
    ],
)
def test_hts_labels_give_their_central_phone(label: str, phone: str) -> None:
    assert central_phone(label) == phone


def test_label_lines_may_be_numbers_and_end_a_window_early(tmp_path: Path) -> None:
    """Kaldi's frames of 25 ms end 15 to 25 ms before the sound, which is then not labelled there."""
    draft = noise_draft(tmp_path / "root", ["a", "b"])
    lines = tmp_path / "converted_aligned_phones.txt"
    lines.write_text(f"a {'7 ' * 20}{'12 ' * 28}\nb {'0 ' * 50}\n")
    aligned = align(draft, lines)
    assert phones_of(aligned) == {"a": (Phone(0.0, 0.2, "7"), Phone(0.2, 0.48, "12")), "b": (Phone(0.0, 0.5, "0"),)}
    assert aligned.phone_set == ("0", "12", "7")
    assert aligned.notes == (
        "1 of 2 alignments leave edges of their sound without a label, "
        "at most 0.0000 s at the start and 0.0200 s at the end (`a` first)",
        "3 of 3 intervals keep labels that are no ARPABET in capitals, 3 of them: `0`, `12`, `7`",
    )


@pytest.mark.parametrize(("num_labels", "is_held"), [(47, False), (48, True), (50, True), (51, True), (52, False)])
def test_fault_21_label_lines_agree_with_the_sound(tmp_path: Path, num_labels: int, is_held: bool) -> None:
    lines = tmp_path / "labels.txt"
    lines.write_text(f"a {' '.join(['AA'] * num_labels)}\n")
    draft = noise_draft(tmp_path / "root", ["a"])
    if is_held:
        assert phones_of(align(draft, lines)) == {"a": (Phone(0.0, min(num_labels / 100, 0.5), "AA"),)}
        return
    with pytest.raises(
        DataError, match=rf"row of {num_labels} labels of 10 ms \(line 1\) runs from 0 to 0\.{num_labels} s"
    ):
        align(draft, lines)


def test_fault_21_labels_of_another_stride_are_guessed(tmp_path: Path) -> None:
    lines = tmp_path / "labels.txt"
    lines.write_text(f"a {' '.join(['AA'] * 40)}\n")
    with pytest.raises(DataError, match=r"to 0\.4 s, but the sound lasts 0\.5 s.*12\.5 ms frames read as 10 ms\?"):
        align(noise_draft(tmp_path / "root", ["a"]), lines)


@pytest.mark.parametrize("factor", [0.8, 1.25])
@pytest.mark.parametrize("name", [name for name in UNDECLARED if name != "label lines"])
def test_fault_21_scaled_labels_are_refused_in_every_format(tmp_path: Path, name: str, factor: float) -> None:
    form = FORMATS[name]
    draft = noise_draft(tmp_path / "root", ["a"])
    audio = write_noise(tmp_path / "root" / "a.wav", seed=0, seconds=1.0)
    times = [(2 * start, 2 * end, label) for start, end, label in scaled(factor)]
    source = form.save(tmp_path / "alignments", {"a": times})
    with pytest.raises(DataError, match=rf"{factor:g} s, but the sound lasts 1 s.*utterance a"):
        align(replace(draft, utterances=[DraftUtterance(id="a", audio=audio)]), source)


def test_fault_21_scaled_labels_with_gaps_are_noted(tmp_path: Path) -> None:
    source = FORMATS["CTM"].save(tmp_path / "alignments", {"a": scaled(0.8)[1:4]})
    draft = align(noise_draft(tmp_path / "root", ["a"]), source)
    assert draft.notes == (
        "0.3 of 0.5 s of aligned sound lie in gaps and carry no label",
        "no alignment reaches beyond 64% of its sound; was it made for another rate?",
        "1 of 3 labels lose their stress: `AH0`",
    )


FAULTS: dict[str, tuple[Intervals, str]] = {
    "overlap": ([(0.0, 0.3, "AA"), (0.28, 0.5, "K")], "Interval 2 .*starts before the one in front of it has ended"),
    "reversed": ([(0.0, 0.3, "AA"), (0.5, 0.3, "K")], "Interval 2 .*ends where or before it starts"),
    "empty": ([(0.0, 0.3, "AA"), (0.3, 0.3, "K")], "Interval 2 .*ends where or before it starts"),
    "beyond": ([(0.0, 0.3, "AA"), (0.3, 0.6, "K")], r"Interval 2 .*ends at 0\.6 s, but the sound lasts 0\.5 s"),
    "negative": ([(-0.1, 0.3, "AA"), (0.3, 0.5, "K")], "Interval 1 .*starts before the sound"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["start end phone", "TIMIT", "HTS", "CTM", "CTM in a .txt"])
def test_fault_22_a_contradiction_is_refused_by_its_line(tmp_path: Path, name: str, fault: str) -> None:
    intervals, what = FAULTS[fault]
    source = FORMATS[name].save(tmp_path / "alignments", {"a": intervals})
    line = 2 if "Interval 2" in what else 1
    line += FORMATS[name].prefix == ";; made by hand\n"
    file = FORMATS[name].name.format("a")
    with pytest.raises(DataError, match=rf"\(line {line}\).*{file}, utterance a") as caught:
        align(noise_draft(tmp_path / "root", ["a"]), source)
    assert caught.match(what)


def test_fault_22_an_xlabel_that_goes_back_is_refused_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.lab").write_text("signal a\nnfields 1\n#\n 0.30 121 AA\n 0.20 121 K\n 0.50 121 T\n")
    with pytest.raises(DataError, match=r"Interval 2 \(line 5\) ends where or before it starts.*a\.lab, utterance a"):
        align(noise_draft(tmp_path / "root", ["a"]), tmp_path)


def test_fault_22_gaps_carry_no_label_and_are_counted(tmp_path: Path) -> None:
    source = FORMATS["start end phone"].save(tmp_path / "alignments", {"a": [(0.1, 0.2, "AH"), (0.35, 0.5, "T")]})
    draft = align(noise_draft(tmp_path / "root", ["a"]), source)
    assert phones_of(draft) == {"a": (Phone(0.1, 0.2, "AH"), Phone(0.35, 0.5, "T"))}
    assert draft.notes == ("0.2 of 0.5 s of aligned sound lie in gaps and carry no label",)


def test_rounding_of_a_ctm_to_milliseconds_is_no_overlap(tmp_path: Path) -> None:
    (tmp_path / "a.ctm").write_text("a 1 0.000 0.013 K\na 1 0.012 0.488 AA\n")
    assert phones_of(align(noise_draft(tmp_path / "root", ["a"]), tmp_path / "a.ctm")) == {
        "a": (Phone(0.0, 0.013, "K"), Phone(0.013, 0.5, "AA"))
    }
    (tmp_path / "a.ctm").write_text("a 1 0.000 0.02 K\na 1 0.01 0.49 AA\n")
    with pytest.raises(DataError, match="starts before the one in front of it has ended"):
        align(noise_draft(tmp_path / "root", ["a"]), tmp_path / "a.ctm")


@pytest.mark.parametrize("name", FORMATS)
def test_fault_23_an_unknown_phone_among_arpabet_is_listed(tmp_path: Path, name: str) -> None:
    draft = noise_draft(tmp_path / "root", [f"u{number}" for number in range(10)])
    wanted: dict[str, Intervals] = {each.id: PHONES for each in draft.utterances}
    wanted["u7"] = [*PHONES[:2], (0.2, 0.31, "AHH"), *PHONES[3:]]
    source = FORMATS[name].save(tmp_path / "alignments", wanted)
    file = FORMATS[name].name.format("u7")
    with pytest.raises(DataError, match=rf"no phones of it: `AHH` .*{file}:\d+, utterance u7"):
        align(draft, source)


@pytest.mark.parametrize("where", ["alignments/deep/unaligned.txt", "alignments/unaligned.txt", "unaligned.txt"])
def test_unaligned_utterances_are_counted_and_may_not_be_there(tmp_path: Path, where: str) -> None:
    draft = noise_draft(tmp_path / "root")
    source = FORMATS["start end phone"].save(tmp_path / "alignments", {"a": PHONES})
    (tmp_path / where).parent.mkdir(exist_ok=True)
    (tmp_path / where).write_text("b\nnot of this corpus\n")
    aligned = align(draft, source)
    assert phones_of(aligned)["b"] is None
    assert aligned.notes[0] == "2 of 3 utterances have no alignment; 1 of them are listed as unaligned"
    (tmp_path / where).write_text("b\na\n")
    with pytest.raises(DataError, match=r"listed as unaligned, but has an alignment.*unaligned\.txt:2, utterance a"):
        align(draft, source)


@pytest.mark.parametrize("where", ["alignments/unaligned.txt", "unaligned.txt"])
def test_unaligned_utterances_are_listed_beside_or_above_a_file(tmp_path: Path, where: str) -> None:
    source = FORMATS["CTM"].save(tmp_path / "alignments", {"a": PHONES})
    (tmp_path / where).write_text("a\n")
    with pytest.raises(DataError, match=r"listed as unaligned, but has an alignment.*unaligned\.txt:1, utterance a"):
        align(noise_draft(tmp_path / "root"), source)


def test_utterances_without_an_alignment_keep_none_and_are_counted(tmp_path: Path) -> None:
    aligned = align(noise_draft(tmp_path / "root"), FORMATS["xlabel"].save(tmp_path / "alignments", {"a": PHONES}))
    assert [phones is None for phones in phones_of(aligned).values()] == [False, True, True]
    assert aligned.notes[0] == "2 of 3 utterances have no alignment"


def test_files_may_be_named_one_by_one(tmp_path: Path) -> None:
    draft = noise_draft(tmp_path / "root")
    grid, book = tmp_path / "first", tmp_path / "second.ctm"
    grid = grid.with_suffix(".TextGrid")
    grid.write_text(long_textgrid(PHONES))
    book.write_text(ctm("b", PHONES))
    found = phones_of(align(draft, {"a": grid, "b": book, "of another corpus": grid}))
    assert [name for name, phones in found.items() if phones] == ["a", "b"]
    with pytest.raises(DataError, match=r"CTM\) does not hold the utterance it is named for.*second\.ctm, utterance c"):
        align(draft, {"c": book})


@pytest.mark.parametrize("name", ["a.txt", "deep/er/a.txt"])
def test_files_are_found_anywhere_by_their_stem(tmp_path: Path, name: str) -> None:
    (tmp_path / "ali" / name).parent.mkdir(parents=True)
    (tmp_path / "ali" / name).write_text(seconds_lines("a", PHONES))
    assert phones_of(align(noise_draft(tmp_path / "root"), tmp_path / "ali"))["a"] is not None


@pytest.mark.parametrize("joint", ["-", "_", "/"])
def test_files_are_found_by_their_place_where_stems_repeat(tmp_path: Path, joint: str) -> None:
    ids = [joint.join(("dr1", speaker, "sa1")) for speaker in ("fcjf0", "mdab0")]
    audio = [write_noise(tmp_path / "root" / f"{k}.wav", seed=k) for k in range(2)]
    utterances = [DraftUtterance(id=name, audio=path) for name, path in zip(ids, audio, strict=True)]
    for speaker, label in (("fcjf0", "sh"), ("mdab0", "iy")):
        path = tmp_path / "ali" / "dr1" / speaker / "sa1.phn"
        path.parent.mkdir(parents=True)
        path.write_text(f"0 8000 {label}\n")
    found = phones_of(align(Draft(name="x", licence="x", root=tmp_path, utterances=utterances), tmp_path / "ali"))
    assert found == {ids[0]: (Phone(0.0, 0.5, "sh"),), ids[1]: (Phone(0.0, 0.5, "iy"),)}


def test_two_files_of_one_utterance_are_refused(tmp_path: Path) -> None:
    (tmp_path / "ali" / "deep").mkdir(parents=True)
    for folder in (tmp_path / "ali", tmp_path / "ali" / "deep"):
        (folder / "a.txt").write_text(seconds_lines("a", PHONES))
    with pytest.raises(DataError, match="Two alignments are named `a`"):
        align(noise_draft(tmp_path / "root"), tmp_path / "ali")


def test_an_utterance_in_two_ctms_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ali").mkdir()
    for name in ("1.ctm", "2.ctm"):
        (tmp_path / "ali" / name).write_text(ctm("a", PHONES))
    with pytest.raises(DataError, match=r"is in two files: .*1\.ctm and .*2\.ctm.*utterance a"):
        align(noise_draft(tmp_path / "root"), tmp_path / "ali")


def test_a_folder_of_ctms_is_one_alignment(tmp_path: Path) -> None:
    (tmp_path / "ali").mkdir()
    for name in ("a", "b"):
        (tmp_path / "ali" / f"{name}.ctm").write_text(ctm(name, PHONES))
    found = phones_of(align(noise_draft(tmp_path / "root"), tmp_path / "ali"))
    assert [name for name, phones in found.items() if phones] == ["a", "b"]


def test_the_lists_beside_label_lines_are_read_over(tmp_path: Path) -> None:
    (tmp_path / "cpc").mkdir()
    (tmp_path / "cpc" / "converted_aligned_phones.txt").write_text(label_line("a", PHONES))
    (tmp_path / "cpc" / "train_split.txt").write_text("a\nb\n")
    assert phones_of(align(noise_draft(tmp_path / "root"), tmp_path / "cpc"))["a"] is not None


def test_text_beside_textgrids_is_read_over(tmp_path: Path) -> None:
    source = FORMATS["long TextGrid"].save(tmp_path / "alignments", {"a": PHONES})
    (source / "a.txt").write_text("WHAT IS SAID\n")
    assert phones_of(align(noise_draft(tmp_path / "root"), source))["a"] is not None


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ({"a.lab": xlabel("a", PHONES), "b.TextGrid": "x"}, r"mixed: 1 \.lab \(such as a\.lab\), 1 \.textgrid"),
        ({"a.lab": xlabel("a", PHONES), "b.lab": "0 5000000 sil\n"}, "mixed: a.lab is xlabel, b.lab is HTS labels"),
        (
            {"a.txt": seconds_lines("a", PHONES), "b.txt": ctm("b", PHONES)},
            "mixed: a.txt is `start end phone`, b.txt is",
        ),
        ({"1.txt": ctm("a", PHONES), "2.txt": label_line("b", PHONES)}, "mixed: 1.txt is CTM, 2.txt is label lines"),
        ({"a.txt": ctm("a", PHONES)}, r"named after an utterance, but holds many \(CTM\)"),
        ({"a.txt": "1 2 3\n"}, r"could be `start end phone` or label lines: `1 2 3`"),
        ({"x.txt": "u 1 0 1 12\n"}, r"could be CTM or label lines: `u 1 0 1 12`.*Name a CTM \.ctm"),
        ({"x.txt": "u 0.5 AA\n"}, r"no alignment; looked for .*, but it begins with `u 0\.5 AA`"),
        ({"a.txt": "\n"}, "no alignment; looked for .*, but it is empty"),
        ({"a.lab": "0.0 x sil\n"}, r"looked for xlabel .*, but it begins with `0\.0 x sil`"),
        ({"a.phn": "\n"}, "holds no phone.*list the utterance in `unaligned.txt`"),
        ({"a.phn": "0 8000\n"}, r"must be `first last phone`, but is `0 8000`.*a\.phn:1"),
        ({"a.phn": "0 0.5 sil\n"}, r"whole number of samples or of 100 ns, but is `0\.5`.*a\.phn:1"),
        ({"a.phn": f"0 {'9' * 5000} sil\n"}, r"whole number of samples or of 100 ns, but is `9{60}`"),
        ({"a.txt": "0 0.5 sil\n" * 60 + "0.5 end sil\n"}, r"must be a number of seconds, but is `end`.*a\.txt:61"),
        ({"a.lab": "#\n0.5\n"}, r"must be `end colour label`, but is `0\.5`.*a\.lab:2"),
        ({"x.ctm": "a 1 0.0 sil\n"}, r"must be `utterance channel start duration phone`.*x\.ctm:1, utterance a"),
        ({"x.ctm": "a 1 0 0.2 sil\na 2 0.2 0.3 sil\n"}, "is on 2 channels: 1, 2"),
        ({"x.ctm": ";; nothing\n"}, "holds no utterance"),
        ({"x.txt": label_line("a", PHONES) * 2}, "occurs twice, in lines 1 and 2.*utterance a|twice"),
        (
            {"b.wav": ""},
            r"holds no alignment; looked for .* \.ctm, \.item, \.json, \.lab, \.mlf, \.phn, \.textgrid, \.txt",
        ),
    ],
)
def test_what_cannot_be_told_or_read_is_refused(tmp_path: Path, files: dict[str, str], what: str) -> None:
    (tmp_path / "ali").mkdir()
    for name, text in files.items():
        (tmp_path / "ali" / name).write_text(text)
    with pytest.raises(DataError, match=what):
        align(noise_draft(tmp_path / "root"), tmp_path / "ali")


def test_one_file_says_which_utterance_it_is_of(tmp_path: Path) -> None:
    draft = noise_draft(tmp_path / "root")
    for name in ("a", "x"):
        (tmp_path / f"{name}.txt").write_text(seconds_lines(name, PHONES))
    assert phones_of(align(draft, tmp_path / "a.txt"))["a"] is not None
    with pytest.raises(DataError, match=r"one alignment \(`start end phone`\) and is named after no utterance"):
        align(draft, tmp_path / "x.txt")
    with pytest.raises(
        DataError, match=r"must end in \.TextGrid, \.phn, \.ctm, \.mlf, \.json, \.item, \.lab, \.txt.*a\.wav"
    ):
        align(draft, tmp_path / "root" / "a.wav")
    with pytest.raises(DataError, match=r"does not exist.*gone"):
        align(draft, tmp_path / "gone")


@pytest.mark.parametrize("name", MANY_A_FILE)
def test_alignments_of_another_corpus_are_refused(tmp_path: Path, name: str) -> None:
    source = FORMATS[name].save(tmp_path / "alignments", {"x": PHONES})
    with pytest.raises(DataError, match="None of the 3 utterances has an alignment, such as `a`"):
        align(noise_draft(tmp_path / "root"), source)


@pytest.mark.parametrize("name", ONE_A_FILE)
def test_files_of_another_corpus_are_refused(tmp_path: Path, name: str) -> None:
    source = FORMATS[name].save(tmp_path / "alignments", {"x": PHONES})
    with pytest.raises(DataError, match=r"None of the 3 utterances has an alignment, such as `a`"):
        align(noise_draft(tmp_path / "root"), source)


@pytest.mark.parametrize("name", ["CTM", "label lines"])
def test_names_are_one_in_every_unicode_form(tmp_path: Path, name: str) -> None:
    composed, decomposed = "\u00fc", "u\u0308"
    audio = write_noise(tmp_path / "root" / "a.wav", seed=0)
    draft = Draft(name="x", licence="x", root=tmp_path, utterances=[DraftUtterance(id=composed, audio=audio)])
    source = FORMATS[name].save(tmp_path / "alignments", {decomposed: PHONES})
    source.write_bytes(b"\xef\xbb\xbf" + source.read_bytes())
    assert phones_of(align(draft, source))[composed] is not None


def test_blocks_of_a_ctm_may_be_apart_and_out_of_order(tmp_path: Path) -> None:
    lines = [ctm("b", PHONES[:2]), ctm("a", PHONES), ";; between\n\n", ctm("b", PHONES[2:])]
    (tmp_path / "x.ctm").write_text("".join(lines))
    found = phones_of(align(noise_draft(tmp_path / "root"), tmp_path / "x.ctm"))
    assert found["a"] == found["b"]
    assert [phone.label for phone in found["b"] or ()] == [label for *_, label in PHONES]


def test_what_is_not_utf_8_is_refused_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "x.ctm").write_bytes(b"a 1 0 0.2 sil\na 1 0.2 0.3 \xe9\n")
    with pytest.raises(DataError, match=r"not valid UTF-8.*x\.ctm:\d"):
        align(noise_draft(tmp_path / "root"), tmp_path / "x.ctm")
