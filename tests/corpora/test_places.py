"""Places under a root."""

from __future__ import annotations

from pathlib import Path

import pytest

from repbench.corpora.safe_paths import RootFolder
from repbench.errors import DataError


@pytest.mark.parametrize("text", ["a.wav", "deep/er/a.wav", "./a.wav", "a..b/c...wav", "ü \n'\".wav", "c:a.wav"])
def test_a_place_under_the_root_is_given_as_a_path(tmp_path: Path, text: str) -> None:
    assert RootFolder(tmp_path).join(text) == tmp_path / text


@pytest.mark.parametrize("text", ["a.wav", "deep/er/a.wav", "ü \n'\".wav"])
def test_relative_is_the_inverse_of_place(tmp_path: Path, text: str) -> None:
    root = RootFolder(tmp_path)
    assert root.relative(root.join(text)) == text


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("../a.wav", r"part `\.\.`"),
        ("deep/../../a.wav", r"part `\.\.`"),
        ("/etc/passwd", "absolute"),
        ("C:\\a.wav", "absolute"),
        ("file:///etc/passwd", "URL"),
        ("https://example.org/a.wav", "URL"),
        ("", "empty"),
        ("a\0.wav", "NUL"),
        ("\udcff.wav", "UTF-8"),
    ],
)
def test_fault_42_a_place_that_could_lead_out_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(DataError, match=rf"{fault}.*file m\.jsonl:3, utterance u1"):
        RootFolder(tmp_path).join(text, file="m.jsonl:3", utterance="u1")


def test_fault_42_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    inside, outside = tmp_path / "root", tmp_path / "rootless"
    (inside / "deep").mkdir(parents=True)
    outside.mkdir()
    (inside / "file.wav").symlink_to(outside / "a.wav")
    (inside / "deep" / "folder").symlink_to(outside)
    for text in ("file.wav", "deep/folder/a.wav"):
        with pytest.raises(DataError, match="leads out of the root"):
            RootFolder(inside).join(text)
        with pytest.raises(DataError, match="leads out of the root"):
            RootFolder(inside).relative(inside / text)


def test_a_link_within_the_root_is_followed_and_the_root_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "root" / "deep").mkdir(parents=True)
    (tmp_path / "root" / "link").symlink_to("deep")
    (tmp_path / "other-name").symlink_to(tmp_path / "root")
    root = RootFolder(tmp_path / "other-name")
    assert root.join("link/a.wav") == tmp_path / "other-name" / "link" / "a.wav"
    assert root.relative(tmp_path / "root" / "deep" / "a.wav") == "deep/a.wav"


@pytest.mark.parametrize("text", ["../a.wav", "../root-like/a.wav", "/etc/passwd"])
def test_fault_42_a_path_outside_the_root_has_no_place(tmp_path: Path, text: str) -> None:
    (tmp_path / "root").mkdir()
    with pytest.raises(DataError, match="is not under the root"):
        RootFolder(tmp_path / "root").relative(tmp_path / "root" / text)


@pytest.mark.parametrize("text", ["./a.wav", "deep//a.wav", "deep/./a.wav"])
def test_a_path_has_one_text_however_it_was_asked_for_before(tmp_path: Path, text: str) -> None:
    root = RootFolder(tmp_path)
    path = root.join(text)
    assert root.relative(path) == text.replace("./", "").replace("//", "/")
    assert root.absolute(path) == root.join(text) == path


def test_a_link_that_is_set_later_is_seen_though_the_last_place_is_kept(tmp_path: Path) -> None:
    inside, outside = tmp_path / "root", tmp_path / "outside.wav"
    inside.mkdir()
    outside.touch()
    root = RootFolder(inside)
    assert root.relative(inside / "a.wav") == "a.wav"
    assert root.absolute(inside / "deep" / ".." / "a.wav") == inside / "a.wav"
    assert (root.join("b.wav"), root.relative(inside / "b.wav")) == (inside / "b.wav", "b.wav")
    (inside / "a.wav").symlink_to(outside)
    for ask in (lambda: root.join("a.wav"), lambda: root.relative(inside / "a.wav")):
        with pytest.raises(DataError, match="leads out of the root"):
            ask()
