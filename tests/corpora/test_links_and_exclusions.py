"""What is left out of a corpus by `--exclude`, and corpora made of links."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from repbench.corpora import manifest
from repbench.corpora.contract import CorpusLayout, Draft, DraftUtterance, PrepareOptions
from repbench.corpora.layouts.csv_table import CSV
from repbench.corpora.layouts.file_search import files_under, is_excluded
from repbench.corpora.layouts.librispeech import LIBRISPEECH
from repbench.corpora.layouts.ljspeech import LJSPEECH
from repbench.corpora.layouts.pattern import PATTERN
from repbench.corpora.layouts.voxceleb import VOXCELEB
from repbench.corpora.manifest.prepare import prepare
from repbench.errors import DataError, EnvironmentFault
from tests.commands import repbench
from tests.corpora.sounds import write_noise, write_text

BY_WORD = PrepareOptions(pattern="{word}/{speaker}_{take}.wav")
LINKED = PrepareOptions(pattern="{word}/{speaker}_{take}.wav", follow_links=True)


def commands(root: Path) -> Path:
    """Two words and a folder of noise whose names say nothing."""
    for seed, name in enumerate(
        ("cat/a_0", "dog/b_0", "_background_noise_/doing_the_dishes", "_background_noise_/tap")
    ):
        write_noise(root / f"{name}.wav", seed=seed)
    write_text(root / "_background_noise_" / "README.md", "noise")
    return root


def ids(draft: Draft) -> list[str]:
    return sorted(utterance.id for utterance in draft.utterances)


def excluding(*globs: str) -> PrepareOptions:
    return PrepareOptions(pattern=BY_WORD.pattern, exclude=globs)


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = commands(tmp_path / "root")
    listed = Path.iterdir

    def forbid(self: Path) -> Iterator[Path]:
        if self.name == "dog":
            raise PermissionError(13, "Permission denied")
        return listed(self)

    monkeypatch.setattr(Path, "iterdir", forbid)
    with pytest.raises(EnvironmentFault, match=r"may not be read .*root/dog.*--exclude 'dog'"):
        list(files_under(root))
    assert len(list(files_under(root, excluding("dog")))) == 4


class TestExclude:
    @pytest.mark.parametrize(
        ("place", "glob", "expected"),
        [
            ("_background_noise_/a.wav", "_background_noise_", True),
            ("x/_background_noise_/a.wav", "_background_noise_/", True),
            ("x/a.wav", "*.wav", True),
            ("x/a.wav", "x/*", True),
            ("y/x/a.wav", "x/*", False),
            ("y/x/a.wav", "**/x/*", True),
            ("x/a.wav", "**/x/*", True),
            ("x/deep/a.wav", "x/deep", True),
            ("x/a.wav", "./x", True),
            ("x/a.wav", "a", False),
            ("x/A.wav", "a.wav", False),
            ("x/a1.wav", "a[0-9].wav", True),
        ],
    )
    def test_a_glob_speaks_of_names_or_of_places(self, place: str, glob: str, expected: bool) -> None:
        assert is_excluded(place, [glob]) is expected

    def test_a_folder_of_noise_is_left_out_and_counted(self, tmp_path: Path) -> None:
        root = commands(tmp_path / "root")
        command = ("corpus", "prepare", "pattern", "--root", root, "--out", tmp_path / "out", "--json")
        done = repbench(*command, "--pattern", "{word}/{speaker}_{take}.wav", "--exclude", "_background_noise_")
        assert (done.code, done.json["utterances"]) == (0, 2)
        assert done.json["notes"] == ["3 files are left out by --exclude _background_noise_"]

    def test_every_layout_is_read_without_what_is_excluded(self, tmp_path: Path) -> None:
        root = commands(tmp_path / "root")
        (tmp_path / "t.csv").write_text("path\ncat/a_0.wav\n_background_noise_/tap.wav\n")
        options = PrepareOptions(table=tmp_path / "t.csv", exclude=("_background_noise_",))
        assert ids(prepare(CSV, root, options)) == ["a_0"]
        assert ids(prepare(VOXCELEB, root, PrepareOptions(exclude=("_*", "b_*")))) == ["cat-a_0"]
        for seed, name in enumerate(("LJ001-0001", "LJ001-0002")):
            write_noise(tmp_path / "lj" / "wavs" / f"{name}.wav", seed=seed)
        assert ids(prepare(LJSPEECH, tmp_path / "lj", PrepareOptions(exclude=("*-0002.wav",)))) == ["LJ001-0001"]

    def test_a_glob_that_names_nothing_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"`--exclude \*\.flac` names no file under the root.*key --exclude"):
            prepare(PATTERN, commands(tmp_path / "root"), excluding("_background_noise_", "*.flac"))


def snapshot(cache: Path) -> Path:
    """A snapshot as Hugging Face's cache holds it: every file a link to a blob that has no ending."""
    root = cache / "snapshots" / "0123abcd"
    for seed, name in enumerate(("cat/a_0.wav", "dog/b_0.wav")):
        blob = write_noise(cache / "made" / f"{seed}.wav", seed=seed).rename(cache / f"blob{seed}")
        (root / name).parent.mkdir(parents=True)
        (root / name).symlink_to(os.path.relpath(blob, (root / name).parent))
    return root


class TestLinks:
    def test_links_out_of_the_root_are_refused_as_such_and_followed_when_asked(self, tmp_path: Path) -> None:
        root = snapshot(tmp_path / "cache")
        command = ("corpus", "prepare", "pattern", "--pattern", "{word}/{speaker}_{take}.wav", "--root", root, "--out")
        refused = repbench(*command, tmp_path / "out")
        assert refused.code == 3
        assert refused.err.count("leads out of the root") == 3
        assert "by a link, to" in refused.err
        assert "--follow-links" in refused.err
        assert repbench(*command, tmp_path / "out", "--follow-links").code == 0
        assert repbench("corpus", "check", tmp_path / "out").code == 0
        assert [each.audio for each in manifest.read(tmp_path / "out").utterances] == [
            root / "cat" / "a_0.wav",
            root / "dog" / "b_0.wav",
        ]

    def test_a_manifest_that_does_not_say_so_follows_none(self, tmp_path: Path) -> None:
        root = snapshot(tmp_path / "cache")
        manifest.write(prepare(PATTERN, root, LINKED), tmp_path / "out")
        header = tmp_path / "out" / "corpus.json"
        header.write_text(header.read_text().replace('  "links": "followed"', '  "links": "yes"'))
        with pytest.raises(DataError, match="`links` must be `followed`, or left out"):
            manifest.read(tmp_path / "out")
        header.write_text(header.read_text().replace(',\n  "links": "yes"', ""))
        with pytest.raises(DataError, match="leads out of the root"):
            manifest.read(tmp_path / "out")

    @pytest.mark.parametrize("options", [BY_WORD, LINKED])
    def test_a_link_to_nothing_is_a_fault_and_not_passed_over(self, tmp_path: Path, options: PrepareOptions) -> None:
        root = commands(tmp_path / "root")
        (root / "cat" / "c_1.wav").symlink_to("../.git/annex/objects/SHA256E-s3--abc.wav")
        (root / "cat" / "d_1.wav").symlink_to("d_1.wav")
        draft = prepare(PATTERN, root, PrepareOptions(pattern=options.pattern, follow_links=options.follow_links,
                                                      exclude=("_background_noise_",)))  # fmt: skip
        corpus = manifest.write(draft, tmp_path / "out", drop_faulty=2)
        assert corpus.dropped["cat-c_1"].startswith(
            "The sound is a link to `../.git/annex/objects/SHA256E-s3--abc.wav`"
        )
        assert "d_1.wav`, which is not there" in corpus.dropped["cat-d_1"]

    def test_a_linked_folder_is_refused_by_its_name_and_followed_when_asked(self, tmp_path: Path) -> None:
        elsewhere = write_noise(tmp_path / "disk" / "cat" / "a_0.wav", seed=0).parent
        (tmp_path / "root").mkdir()
        (tmp_path / "root" / "cat").symlink_to(elsewhere)
        write_noise(tmp_path / "root" / "dog" / "b_0.wav", seed=1)
        with pytest.raises(DataError, match=r"folder is a link that leads out .*disk/cat .*root/cat.*--follow-links"):
            prepare(PATTERN, tmp_path / "root", BY_WORD)
        assert ids(prepare(PATTERN, tmp_path / "root", excluding("cat"))) == ["dog-b_0"]
        assert ids(prepare(PATTERN, tmp_path / "root", LINKED)) == ["cat-a_0", "dog-b_0"]
        (tmp_path / "root" / "same").symlink_to(tmp_path / "root" / "dog")
        assert ids(prepare(PATTERN, tmp_path / "root", LINKED)) == ["cat-a_0", "dog-b_0"]

    def test_a_circle_of_folders_is_refused(self, tmp_path: Path) -> None:
        root = commands(tmp_path / "root")
        (root / "cat" / "up").symlink_to("..")
        assert len(list(files_under(root))) == 5
        with pytest.raises(DataError, match=r"leads back to one of its parents.*cat/up"):
            list(files_under(root, LINKED))
        (root / "cat" / "up").unlink()
        (tmp_path / "other").mkdir()
        (root / "other").symlink_to(tmp_path / "other")
        (tmp_path / "other" / "back").symlink_to(root)
        with pytest.raises(DataError, match=r"leads back to one of its parents.*other/back"):
            list(files_under(root, LINKED))
        (root / "other").unlink()
        (root / "above").symlink_to(tmp_path)
        with pytest.raises(DataError, match=r"leads back to one of its parents.*above/root\)"):
            list(files_under(root, LINKED))

    def test_linked_subsets_and_speakers_of_librispeech(self, tmp_path: Path) -> None:
        for seed, subset in enumerate(("train-clean-360", "test-clean")):
            write_noise(tmp_path / "full" / subset / f"{seed}" / "2" / f"{seed}-2-0000.flac", seed=seed)
        root = tmp_path / "LibriSpeech"
        (root / "test-clean").mkdir(parents=True)
        (root / "train-clean-360").symlink_to(tmp_path / "full" / "train-clean-360")
        (root / "test-clean" / "1").symlink_to(tmp_path / "full" / "test-clean" / "1")
        with pytest.raises(DataError, match="leads out of the root"):
            manifest.write(prepare(LIBRISPEECH, root, PrepareOptions()), tmp_path / "out")
        corpus = manifest.write(prepare(LIBRISPEECH, root, PrepareOptions(follow_links=True)), tmp_path / "out")
        assert [utterance.id for utterance in corpus.utterances] == ["0-2-0000", "1-2-0000"]

    def test_a_table_follows_links_too(self, tmp_path: Path) -> None:
        (tmp_path / "root").mkdir()
        (tmp_path / "root" / "a.wav").symlink_to(write_noise(tmp_path / "blob.wav", seed=0))
        (tmp_path / "root" / "t.csv").write_text("path\na.wav\n")
        with pytest.raises(DataError, match=r"by a link, to .*blob\.wav.*t\.csv:2"):
            CSV.prepare(tmp_path / "root", PrepareOptions())
        draft = prepare(CSV, tmp_path / "root", PrepareOptions(follow_links=True))
        assert len(manifest.write(draft, tmp_path / "out").utterances) == 1


def test_a_layout_that_knows_no_option_is_filtered_all_the_same(tmp_path: Path) -> None:
    class Foreign:
        def prepare(self, root: Path, options: PrepareOptions) -> Draft:
            utterances = [DraftUtterance(id=path.stem, audio=path) for path in sorted(root.rglob("*.wav"))]
            return Draft(name="x", licence="", root=root, utterances=utterances)

    layout: CorpusLayout = Foreign()
    assert ids(prepare(layout, commands(tmp_path / "root"), excluding("_background_noise_"))) == ["a_0", "b_0"]
