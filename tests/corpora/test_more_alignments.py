"""Faults and particulars of master label files, item files, the JSON of MFA, and files of ELAN."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from repbench.corpora.alignments import align
from repbench.corpora.contract import Draft, PrepareOptions
from repbench.errors import DataError, UsageError
from tests.corpora.sounds import noise_draft, write_text


@pytest.fixture
def draft(tmp_path: Path) -> Draft:
    return noise_draft(tmp_path / "sounds", ["a", "b"])


def labels(draft: Draft) -> dict[str, list[tuple[float, float, str]]]:
    return {each.id: [tuple(phone) for phone in each.phones or ()] for each in draft.utterances}  # type: ignore[misc]


HALF = 5_000_000


def test_a_master_label_file_may_hold_states(draft: Draft, tmp_path: Path) -> None:
    lines = ["#!MLF!#", '"*/a.lab"', "0 1000000 s2 -1.5 AA", "1000000 2000000 s3 -1.5", "2000000 5000000 s2 -2 B", "."]
    lines += ['"/home/x/b.rec"', f"0 {HALF} x-AA+y", "."]
    found = labels(align(draft, write_text(tmp_path / "all.mlf", *lines)))
    assert found == {"a": [(0.0, 0.2, "AA"), (0.2, 0.5, "B")], "b": [(0.0, 0.5, "AA")]}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['"*/a.lab"', f"0 {HALF} AA", "."], r"begins with `#!MLF!#`, but this begins with"),
        (["#!MLF!#", '"*/a.lab"', f"0 {HALF} AA"], r"The labels of `a` have no end: a line `.` .*all.mlf:3"),
        (["#!MLF!#", '"*/a.lab"', f"0 {HALF} AA", '"*/b.lab"', "."], r"The labels of `a` have no end.*all.mlf:4"),
        (["#!MLF!#", '"*/a.lab"', "0 1 AA", ".", '"x/a.rec"', "."], r"of one file, each once, but is .*all.mlf:5"),
        (["#!MLF!#", '"*/*.lab"', "0 1 AA", "."], r"of one file, each once, but is .*all.mlf:2"),
        (["#!MLF!#"], "The file holds no utterance"),
        (
            ["#!MLF!#", '"*/a.lab"', f"0 {HALF} AA", "0.5 1.0 B", "."],
            r"must be a whole number.*0.5.*all.mlf:4, utterance a",
        ),
        (["#!MLF!#", '"*/a.lab"', "AA", "."], r"A line must be `start end label`, but is `AA` .*all.mlf:3"),
    ],
)
def test_a_broken_master_label_file_names_its_line(
    draft: Draft, tmp_path: Path, lines: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        align(draft, write_text(tmp_path / "all.mlf", *lines))


def test_items_are_phones_in_order_of_time(draft: Draft, tmp_path: Path) -> None:
    head = "#file onset offset #phone prev-phone next-phone speaker"
    lines = ["b 0.1 0.2 AA x y s", "a 0.3 0.4 B x y s", "a 0.1 0.2 AA x y s"]
    found = labels(align(draft, write_text(tmp_path / "x.item", head, *lines)))
    assert found == {"a": [(0.1, 0.2, "AA"), (0.3, 0.4, "B")], "b": [(0.1, 0.2, "AA")]}
    with pytest.raises(DataError, match=r"begins with `#file onset.*but this begins with `b`"):
        align(draft, write_text(tmp_path / "x.item", *lines))
    with pytest.raises(DataError, match=r"`file onset offset phone previous next speaker`.*x.item:3, utterance a"):
        align(draft, write_text(tmp_path / "x.item", head, lines[0], "a 0.3 0.4 B"))


def mfa(path: Path, tiers: object, end: object = 0.5) -> Path:
    return write_text(path, json.dumps({"start": 0, "end": end, "tiers": tiers}))


def test_the_json_of_mfa_has_tiers(draft: Draft, tmp_path: Path) -> None:
    folder = tmp_path / "mfa"
    entries = {"entries": [[0.0, 0.2, "AA1"], [0.2, 0.5, "sil"]]}
    mfa(folder / "a.json", {"Ann - words": {"entries": []}, "Ann - phones": entries})
    mfa(folder / "b.json", {"words": {"entries": []}, "MAU": entries})
    write_text(folder / "about.json", "{}")
    found = labels(align(draft, folder))
    assert found["a"] == found["b"] == [(0.0, 0.2, "AA1"), (0.2, 0.5, "sil")]
    with pytest.raises(DataError, match=r"no tiers `phon` \(its tiers are: Ann - words, Ann - phones\)"):
        align(draft, folder, PrepareOptions(tier="phon"))
    # beside alignments of another format JSON counts only where it is named after an utterance
    write_text(folder / "a.json", "{}").rename(folder / "other.json")
    (folder / "b.json").unlink()
    write_text(folder / "a.lab", "0 0.2 AA1", "0.2 0.5 sil")
    assert labels(align(draft, folder))["a"] == [(0.0, 0.2, "AA1"), (0.2, 0.5, "sil")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"not valid JSON.*a.json"),
        ("[]", "it needs `end` and `tiers`"),
        ('{"end": 1, "tiers": {"phones": {}}}', "The tier `phones` has no list `entries`"),
        (
            '{"end": 0.5, "tiers": {"phones": {"entries": [[0, 0.2, "AA"], [0.2, "0.5", "B"]]}}}',
            "Entry 2 must be start",
        ),
        ('{"end": 0.5, "tiers": {"phones": {"entries": []}, "phone": {}}}', "2 tiers of phones"),
        (
            '{"end": 5.0, "tiers": {"phones": {"entries": [[0, 0.5, "AA"]]}}}',
            r"runs from 0 to 5 s, but the sound lasts 0.5",
        ),
    ],
)
def test_broken_json_of_mfa_is_refused(draft: Draft, tmp_path: Path, content: str, message: str) -> None:
    path = write_text(tmp_path / "mfa" / "a.json", content)
    with pytest.raises(DataError, match=message):
        align(draft, path)


def test_files_of_elan_are_exported_first(draft: Draft, tmp_path: Path) -> None:
    path = write_text(tmp_path / "elan" / "a.eaf", "<ANNOTATION_DOCUMENT/>")
    for source in (path, path.parent):
        with pytest.raises(DataError, match="Export the tiers in ELAN, with File > Export As > Praat TextGrid"):
            align(draft, source)


def test_a_tier_is_refused_where_there_are_none(draft: Draft, tmp_path: Path) -> None:
    path = write_text(tmp_path / "all.mlf", "#!MLF!#", '"*/a.lab"', f"0 {HALF} AA", ".")
    with pytest.raises(UsageError, match="`--tier` names a tier of TextGrids, but the alignments are HTK's master"):
        align(draft, path, PrepareOptions(tier="phones"))
