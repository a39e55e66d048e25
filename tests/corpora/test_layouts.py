"""Layouts by their names, and through the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from repbench.corpora import manifest
from repbench.corpora.contract import CorpusLayout, PrepareOptions
from repbench.corpora.layouts.file_search import files_under
from repbench.corpora.layouts.options import refuse_options
from repbench.corpora.open import load_layout
from repbench.errors import UsageError
from tests.commands import repbench
from tests.corpora.sounds import write_noise, write_text


@pytest.mark.parametrize("name", ["timit", "voxceleb", "kaldi", "pattern", "ravdess", "emodb"])
def test_every_layout_comes_through_its_entry_point(name: str) -> None:
    assert isinstance(load_layout(name), CorpusLayout)


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        (PrepareOptions(table=Path("t")), "--table"),
        (PrepareOptions(columns={"path": "x"}), "--column"),
        (PrepareOptions(variant="v"), "--variant"),
        (PrepareOptions(pattern="{id}.wav"), "--pattern"),
    ],
)
def test_an_option_that_would_have_no_effect_is_refused(options: PrepareOptions, flag: str) -> None:
    with pytest.raises(UsageError, match=f"`any` does not read `{flag}`.*key {flag}"):
        refuse_options("any", options, reads=("alignments",))
    refuse_options("any", PrepareOptions(alignments=Path("a"), min_utterances=2), reads=("alignments",))


def test_hidden_files_and_folders_are_read_over(tmp_path: Path) -> None:
    for name in ("b/a.wav", "a.wav", ".a.wav", ".hidden/a.wav", "b/._a.wav"):
        write_text(tmp_path / name, "x")
    assert [path.relative_to(tmp_path).as_posix() for path in files_under(tmp_path)] == ["a.wav", "b/a.wav"]


def test_the_command_takes_a_pattern(tmp_path: Path) -> None:
    for seed, name in enumerate(("s1_joy", "s2_fear")):
        write_noise(tmp_path / "root" / f"{name}.wav", seed=seed)
    command = ("corpus", "prepare", "pattern", "--root", tmp_path / "root", "--out", tmp_path / "out", "--json")
    finished = repbench(*command, "--pattern", "{speaker}_{emotion}.wav")
    assert (finished.code, finished.json["utterances"]) == (0, 2)
    found = manifest.read(tmp_path / "out").utterances
    assert [(each.speaker, each.attributes["emotion"]) for each in found] == [("s1", "joy"), ("s2", "fear")]
    refused = repbench(*command)
    assert (refused.code, refused.json["key"]) == (2, "--pattern")


def test_the_command_takes_a_data_folder_of_kaldi_beside_the_root(tmp_path: Path) -> None:
    sound = write_noise(tmp_path / "sounds" / "a.wav", seed=0)
    write_text(tmp_path / "data" / "wav.scp", f"a {sound}")
    write_text(tmp_path / "data" / "utt2spk", "a s1")
    command = ("corpus", "prepare", "kaldi", "--out", tmp_path / "out", "--root")
    refused = repbench(*command, tmp_path / "data")
    assert refused.code == 3
    assert f"--root {tmp_path}/sounds --table {tmp_path}/data" in refused.err
    assert repbench(*command, tmp_path / "sounds", "--table", tmp_path / "data").code == 0
    assert repbench("corpus", "check", tmp_path / "out").code == 0
