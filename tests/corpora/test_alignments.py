"""TextGrids, and intervals held against their sound."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from repbench.corpora.alignments import validate_phones
from repbench.corpora.alignments.textgrid import phone_tier, read_phones, read_textgrid
from repbench.corpora.contract import Phone
from repbench.errors import DataError
from tests.corpora.sounds import long_textgrid, short_textgrid

INTERVALS = [(0.0, 0.1, ""), (0.1, 0.25, "AH0"), (0.25, 0.3, 'a "quoted" label'), (0.3, 0.5, "sp")]
POINTS = '"TextTier"\n"clicks"\n0\n0.5\n1\n0.2\n"x"\n'


def random_intervals(generator: random.Random) -> list[tuple[float, float, str]]:
    """Intervals without a gap, of random number, times and labels."""
    labels = ["", "AH0", "sp", '"', '""', "! no comment", "<exists>", "7", "ʃ", "two words", "intervals [3]:"]
    times = [0.0, *sorted(generator.uniform(0.001, 9.0) for _ in range(generator.randint(1, 30)))]
    return [(start, end, generator.choice(labels)) for start, end in itertools.pairwise(times)]


def save(folder: Path, text: str, *, encoding: str = "utf-8", name: str = "a.TextGrid") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("seed", range(20))
def test_long_and_short_form_say_the_same(tmp_path: Path, seed: int) -> None:
    intervals = random_intervals(random.Random(seed))
    forms = [read_textgrid(save(tmp_path, form(intervals))) for form in (long_textgrid, short_textgrid)]
    for grid in forms:
        assert [tier.name for tier in grid.tiers] == ["words", "phones"]
        assert [interval[:3] for interval in grid.tiers[1].intervals] == intervals
        assert (grid.start_s, grid.end_s) == (0.0, intervals[-1][1])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom", "utf-16-be-bom"])
def test_every_encoding_praat_writes_is_read(tmp_path: Path, encoding: str) -> None:
    text = short_textgrid([(0.0, 0.5, "ʃ")])
    if encoding.endswith("-bom"):
        encoding, text = encoding.removesuffix("-bom"), "\ufeff" + text
    assert read_textgrid(save(tmp_path, text, encoding=encoding)).tiers[1].intervals[0].text == "ʃ"


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_lines_are_counted_whatever_ends_them(tmp_path: Path, newline: str) -> None:
    grid = read_textgrid(save(tmp_path, long_textgrid(INTERVALS).replace("\n", newline)))
    text_lines = [index for index, line in enumerate(long_textgrid(INTERVALS).split("\n"), 1) if "text =" in line]
    assert [interval.line for tier in grid.tiers for interval in tier.intervals] == text_lines


def test_tiers_of_points_are_read_over(tmp_path: Path) -> None:
    text = short_textgrid(INTERVALS).replace(
        "<exists>\n2\n", '<exists>\n3\n"TextTier"\n"clicks"\n0\n0.5\n1\n0.2\n"x"\n'
    )
    assert [tier.name for tier in read_textgrid(save(tmp_path, text)).tiers] == ["words", "phones"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "ends where a string is expected"),
        ("hello", "ends where a string is expected"),
        ('File type = "ooTextFile"\nObject class = "Sound"\n', r"not a TextGrid \(line 2\)"),
        (short_textgrid(INTERVALS)[:-6], r"ends where a string|there is `\"`"),
        (short_textgrid(INTERVALS).replace('"phones"\n0\n0.5\n4', '"phones"\n0\n0.5\n5'), "ends where a number"),
        (short_textgrid(INTERVALS).replace('"phones"\n0\n0.5\n4', '"phones"\n0\n0.5\n3'), "goes on after its last"),
        (short_textgrid(INTERVALS).replace('"phones"\n0\n0.5\n4', '"phones"\n0\n0.5\n3.5'), "must be whole"),
        (short_textgrid(INTERVALS).replace("0.25", "nan"), r"not a finite number \(line 25\)"),
        (short_textgrid(INTERVALS).replace("0.25", "-inf"), r"not a finite number \(line 25\)"),
        (short_textgrid(INTERVALS).replace("0.25", "1e999"), r"not a finite number \(line 25\)"),
        (short_textgrid(INTERVALS).replace('"IntervalTier"', '"PitchTier"'), "class of a tier is `PitchTier`"),
    ],
)
def test_a_broken_textgrid_is_refused_by_its_line(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(DataError, match=rf"({fault}).*a\.TextGrid.*utterance u1"):
        read_textgrid(save(tmp_path, text), utterance="u1")


def test_a_textgrid_that_is_missing_or_not_utf_8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"TextGrid is missing.*gone\.TextGrid"):
        read_textgrid(tmp_path / "gone.TextGrid")
    with pytest.raises(DataError, match=r"not valid UTF-8 \(byte \d+\).*Save it as UTF-8"):
        read_textgrid(save(tmp_path, short_textgrid([(0.0, 0.5, "é")]), encoding="latin-1"))


@pytest.mark.parametrize("name", ["phones", "Phone", "PHONES", "Linda Johnson - phones"])
def test_the_phone_tier_is_found_by_its_name(tmp_path: Path, name: str) -> None:
    grid = read_textgrid(save(tmp_path, long_textgrid(INTERVALS, tier=name)))
    assert phone_tier(grid).name == name


@pytest.mark.parametrize("name", ["telephones", "phones 2", "MAUS", "words - phones - x"])
def test_no_phone_tier_is_an_error_that_lists_the_tiers(tmp_path: Path, name: str) -> None:
    grid = read_textgrid(save(tmp_path, long_textgrid(INTERVALS, tier=name)))
    with pytest.raises(DataError, match=f"no tier of phones.*`words`, `{name}`.*--tier NAME"):
        phone_tier(grid)


def test_two_phone_tiers_are_an_error(tmp_path: Path) -> None:
    text = long_textgrid(INTERVALS, tier="B - phones").replace('"words"', '"A - phones"')
    with pytest.raises(DataError, match=r"2 tiers of phones .*`A - phones`, `B - phones`.*--tier NAME"):
        phone_tier(read_textgrid(save(tmp_path, text)))


@pytest.mark.parametrize("scale", [0.8, 1.25, 1000.0])
def test_fault_21_scaled_labels_are_refused_with_both_lengths(tmp_path: Path, scale: float) -> None:
    scaled = [(start * scale, end * scale, label) for start, end, label in INTERVALS]
    path = save(tmp_path, long_textgrid(scaled))
    with pytest.raises(DataError, match=rf"to {0.5 * scale:g} s, but the sound lasts 0\.5 s.*u1.*Times in seconds\?"):
        read_phones(path, 0.5, utterance="u1")


def test_fault_21_a_difference_of_one_frame_is_tolerated_and_clipped(tmp_path: Path) -> None:
    path = save(tmp_path, long_textgrid(INTERVALS))
    assert read_phones(path, 0.5)[-1] == Phone(0.3, 0.5, "sp")
    assert read_phones(path, 0.49)[-1] == Phone(0.3, 0.49, "sp")
    assert read_phones(path, 0.51)[-1] == Phone(0.3, 0.5, "sp")
    with pytest.raises(DataError, match="but the sound lasts"):
        read_phones(path, 0.4899)


def test_fault_21_a_tier_shorter_than_its_textgrid_is_refused(tmp_path: Path) -> None:
    text = short_textgrid(INTERVALS).replace('"phones"\n0\n0.5', '"phones"\n0\n0.4')
    with pytest.raises(DataError, match=r"phone tier runs from 0 to 0\.4 s"):
        read_phones(save(tmp_path, text), 0.5)


def test_fault_22_gaps_are_kept(tmp_path: Path) -> None:
    phones = [Phone(0.1, 0.2, "AH"), Phone(0.4, 0.5, "T")]
    assert validate_phones(phones, 1.0) == tuple(phones)
    path = save(tmp_path, long_textgrid([(0.1, 0.2, "AH"), (0.4, 0.5, "T")], end_s=1.0))
    assert read_phones(path, 1.0) == tuple(phones)


@pytest.mark.parametrize(
    ("phones", "fault"),
    [
        ([(0.0, 0.2, "A"), (0.1, 0.3, "B")], "Interval 2 starts before the one in front of it has ended"),
        ([(0.3, 0.4, "A"), (0.1, 0.2, "B")], "Interval 2 starts before the one in front of it has ended"),
        ([(-0.1, 0.2, "A")], "Interval 1 starts before the sound"),
        ([(0.2, 0.1, "A")], "Interval 1 ends where or before it starts"),
        ([(0.2, 0.2, "A")], "Interval 1 ends where or before it starts"),
        ([(0.0, 1.02, "A")], r"Interval 1 ends at 1\.02 s, but the sound lasts 1 s"),
        ([(0.0, 0.5, "A"), (0.5, 50.0, "B")], r"Interval 2 ends at 50 s, but the sound lasts 1 s"),
        ([(float("nan"), 0.5, "A")], "Interval 1 has a time that is not a number"),
        ([(0.0, float("inf"), "A")], "Interval 1 has a time that is not a number"),
    ],
)
def test_fault_22_a_contradicting_alignment_is_refused(phones: list[tuple[float, float, str]], fault: str) -> None:
    with pytest.raises(DataError, match=f"{fault}.*utterance u1.*Times in seconds"):
        validate_phones([Phone(*phone) for phone in phones], 1.0, utterance="u1")


def test_fault_22_the_line_of_the_interval_is_named(tmp_path: Path) -> None:
    text = short_textgrid(INTERVALS).replace("0.25\n0.3\n", "0.2\n0.3\n")
    with pytest.raises(DataError, match=r"Interval 3 \(line 29\) starts before.*a\.TextGrid, utterance u1"):
        read_phones(save(tmp_path, text), 0.5, utterance="u1")


def test_fault_22_rounding_is_no_overlap() -> None:
    phones = [Phone(0.0, 0.8500000000000001, "A"), Phone(0.85, 1.0, "B")]
    checked = validate_phones(phones, 1.0)
    assert checked == (phones[0], Phone(0.8500000000000001, 1.0, "B"))


@pytest.mark.parametrize("seed", range(50))
def test_fault_22_random_intervals_are_refused_or_ordered_within_the_sound(seed: int) -> None:
    generator = random.Random(seed)
    times = [round(generator.uniform(-0.05, 1.05), 2) for _ in range(2 * generator.randint(1, 4))]
    if seed % 2:
        times = sorted(min(max(time, 0.0), 1.0) for time in times)
    phones = [Phone(start, end, "A") for start, end in zip(times[::2], times[1::2], strict=True)]
    is_sound = all(0.0 <= start < end <= 1.01 for start, end, _ in phones) and times == sorted(times)
    if not is_sound:
        with pytest.raises(DataError, match=r"Interval \d"):
            validate_phones(phones, 1.0)
        return
    checked = validate_phones(phones, 1.0)
    edges = [time for phone in checked for time in phone[:2]]
    assert edges == sorted(edges)
    assert edges[-1] <= 1.0
    labelled_s = sum(phone.end_s - phone.start_s for phone in checked)
    gaps_s = sum(after - before for before, after in zip([0.0, *edges[1::2]], [*edges[::2], 1.0], strict=True))
    assert labelled_s + gaps_s == pytest.approx(1.0)


def test_an_interval_that_lies_within_the_bound_past_the_sound_vanishes() -> None:
    assert validate_phones([Phone(0.0, 1.0, "A"), Phone(1.0, 1.005, "B")], 1.0) == (Phone(0.0, 1.0, "A"),)
