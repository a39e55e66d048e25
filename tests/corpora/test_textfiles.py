"""What a download left in the place of a text or a label file is told by its first bytes."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from repbench.corpora.contract import PrepareOptions
from repbench.corpora.layouts.hdf5 import check_hdf5
from repbench.corpora.open import load_layout
from repbench.corpora.textfiles import read_utf8
from repbench.errors import DataError, IntegrityError

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"
PAGE = b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html><title>404</title>"
ANNEX = b"/annex/objects/SHA256E-s12--00.csv\n"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (POINTER, "a git-LFS pointer, not the file that it points to, where text is expected.*git lfs pull"),
        (ANNEX, "a git-annex pointer.*git annex get"),
        (PAGE, "an HTML or XML page"),
        (b"<HTML lang=en>", "an HTML or XML page"),
        (gzip.compress(b"path,speaker\n", mtime=0), "a gzip file.*Unpack it"),
        (b"RIFF\xff\xff\x00\x00WAVE", "a WAV file.*Give the file that was meant"),
    ],
)
def test_fault_another_file_in_the_place_of_a_table_is_named(content: bytes, what: str, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_bytes(content)
    with pytest.raises(DataError, match=rf"This is {what}"):
        load_layout("csv").prepare(tmp_path, PrepareOptions(table=table))


@pytest.mark.parametrize("text", ["<unk> 0\n", "{}", "[1]\n", "ID3_0001\n", "RIFFS 1\n", "<p:> 2\n", "<heading>\n"])
def test_text_may_begin_with_what_marks_other_files(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text(text)
    assert read_utf8(tmp_path / "x.txt") == text


@pytest.mark.parametrize(("content", "what"), [(POINTER, "a git-LFS pointer"), (PAGE, "an HTML or XML page")])
def test_fault_another_file_in_the_place_of_labels_is_named(content: bytes, what: str, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csd"
    labels.write_bytes(content)
    with pytest.raises(IntegrityError, match=f"This is {what}.*where HDF5 is expected"):
        check_hdf5(labels)
