"""The index of a manifest: what is opened from it is what the lines hold, and nothing of it is believed unchecked."""

from __future__ import annotations

import copy
import dataclasses
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from repbench.benchmark.data.dataset import label_splits
from repbench.benchmark.data.subsets import subset
from repbench.benchmark.loading.tasks import build_task
from repbench.benchmark.protocol import SplitSettings
from repbench.corpora import manifest
from repbench.corpora.contract import Corpus, Utterance
from repbench.corpora.manifest import index, index_file, indexed
from repbench.downstream.contract import problem_of
from repbench.errors import DataError
from repbench.registry import registry
from tests.commands import repbench

HASH = "{:064x}"
USUAL_BYTES = index.SMALLEST_BYTES
RARE: dict[str, dict[str, Any]] = {
    "plain": {},
    "all": {
        "speaker": "Zoë", "text": "say “ü”", "group": "g", "split": "test", "start": 0.5, "end": 1.0, "channel": 2,
        "attributes": {"valence": -0.5, "take": 3, "emotion": "joy"}, "phones": [[0.0, 0.1, "AH"], [0.1, 0.25, "ɕ"]],
        "features": "f/é.npy", "features_sha256": HASH.format(7), "turns": [[0.0, 0.4, "Zoë"], [0.1, 0.5, "B"]],
    },
    "empty": {"text": "", "phones": [], "turns": [], "attributes": {}, "channel": "mix", "start": 0.0},
    "late": {"phones": [[0, 0.5, "AH"]], "attributes": {"take": 10**200}, "features": "f/l.npy",
             "features_sha256": HASH.format(8)},
}  # fmt: skip
"""By id, the fields of utterances that hold every kind of value, and none of the optional ones."""


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every manifest gets an index, and the cache folder is one of the test."""
    monkeypatch.setattr("repbench.corpora.manifest.index.SMALLEST_BYTES", 0)
    monkeypatch.setenv("REPBENCH_CACHE", str(tmp_path / "cache"))


def without_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    with monkeypatch.context() as context:
        context.setattr("repbench.corpora.manifest.index.SMALLEST_BYTES", 1 << 40)
        return manifest.read(folder)


def written(tmp_path: Path, lines: dict[str, dict[str, Any]], **header: Any) -> Path:
    """A manifest whose lines stand in the order given; its sounds are not there."""
    folder, root = tmp_path / "manifest", tmp_path / "sounds"
    folder.mkdir(exist_ok=True)
    root.mkdir(exist_ok=True)
    rows = [
        {"id": name, "audio": f"{name}.wav", "sample_rate_hz": 8_000, "num_samples": 4_000,
         "samples_sha256": HASH.format(number), **fields}
        for number, (name, fields) in enumerate(lines.items())
    ]  # fmt: skip
    (folder / "manifest.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    hashes = [row["samples_sha256"] for row in sorted(rows, key=lambda row: str(row["id"]))]
    content = {
        "schema": "repbench.corpus/1", "name": "made", "licence": "CC0", "root": str(root), "phone_map": None,
        "resample": "allowed", "notes": [], "tools": {}, "samples_sha256": index_digest(hashes),
        "label_sets": {"phones": ["AH", "ɕ"], "speakers": ["B", "Zoë"]},
        "features": {"name": "f", "hop_seconds": 0.01, "first_center_seconds": 0.0, "width": 3, "format": "npy"},
        **header,
    }  # fmt: skip
    (folder / "corpus.json").write_text(json.dumps(content), "utf-8")
    return folder


def index_digest(hashes: list[Any]) -> str:
    import hashlib

    return hashlib.sha256("\n".join(hashes).encode("ascii")).hexdigest()


def many(count: int, *, prefix: str = "") -> dict[str, dict[str, Any]]:
    """Utterances of eight speakers in sessions, with phones."""
    return {
        f"{prefix}u{number:04}": {
            "speaker": "B" if number % 8 else "Zoë", "group": f"g{number % 3}", "text": f"text {number}",
            "phones": [[0.0, 0.1 + number % 7 / 100, "AH"], [0.3, 0.4, "ɕ"]], "audio": f"d{number % 5}/{number}.wav",
        }
        for number in range(count)
    }  # fmt: skip


@pytest.mark.usefixtures("always")
class TestOpening:
    @pytest.mark.parametrize("order", [list(RARE), sorted(RARE), sorted(RARE, reverse=True)], ids=str)
    def test_a_corpus_is_the_same_with_an_index_made_now_one_of_before_and_none(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: list[str]
    ) -> None:
        folder = written(tmp_path, {name: RARE[name] for name in order}, scales={"take": 1.0})
        plain = without_index(folder, monkeypatch)
        made, kept = manifest.read(folder), manifest.read(folder)
        assert type(plain.utterances[0]) is Utterance
        assert {type(each) for each in (*made.utterances, *kept.utterances)} == {indexed.IndexedUtterance}
        assert made == plain == kept
        assert plain == made
        assert [repr(each) for each in kept.utterances] == [repr(each) for each in plain.utterances]
        assert [each.seconds for each in kept.utterances] == [each.seconds for each in plain.utterances]

    def test_a_corpus_without_any_optional_field_is_the_same(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = written(tmp_path, {"a": {}, "b": {}})
        assert without_index(folder, monkeypatch) == manifest.read(folder) == manifest.read(folder)

    def test_splits_and_subsets_are_the_same(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = written(tmp_path, many(120))
        plain, kept = without_index(folder, monkeypatch), (manifest.read(folder), manifest.read(folder))[1]
        assert kept.fingerprint == plain.fingerprint
        for name in ("speaker", "phone"):
            task = build_task(registry().find("downstream", name).entry, {})
            ways = [label_splits(each, task, SplitSettings(), excludes=lambda _: None) for each in (plain, kept)]
            parts = [[(one.id, one.labels) for one in (*way.train, *way.dev, *way.test.open())] for way in ways]
            assert parts[0] == parts[1]
            assert (ways[0].classes, ways[0].policy, ways[0].warnings) == (
                ways[1].classes, ways[1].policy, ways[1].warnings
            )  # fmt: skip
            some = [subset(way.train, 0.3, problem=problem_of(task), seed=1, salt="s") for way in ways]
            assert [each.id for each in some[0]] == [each.id for each in some[1]]
            assert len(some[0]) < len(ways[0].train)

    def test_the_root_may_move(self, tmp_path: Path) -> None:
        folder = written(tmp_path, many(3))
        manifest.read(folder)
        (tmp_path / "moved").mkdir()
        moved = manifest.read(folder, root=tmp_path / "moved")
        assert moved.utterances[0].audio == tmp_path / "moved" / "d0" / "0.wav"

    def test_small_manifests_get_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("repbench.corpora.manifest.index.SMALLEST_BYTES", USUAL_BYTES)
        folder = written(tmp_path, many(3))
        manifest.read(folder)
        assert sorted(each.name for each in folder.iterdir()) == ["corpus.json", "manifest.jsonl"]

    def test_numbers_beyond_64_bits_are_read_without(self, tmp_path: Path) -> None:
        folder = written(tmp_path, {"a": {"num_samples": 10**30}})
        assert manifest.read(folder).utterances[0].num_samples == 10**30
        assert not (folder / index.INDEX_FILE).exists()


@pytest.mark.usefixtures("always")
class TestUtterance:
    @pytest.fixture
    def utterance(self, tmp_path: Path) -> Utterance:
        folder = written(tmp_path, RARE)
        manifest.read(folder)
        return next(each for each in manifest.read(folder).utterances if each.id == "all")

    def test_it_is_replaced_and_copied_as_a_plain_one(self, utterance: Utterance) -> None:
        assert isinstance(utterance, Utterance)
        changed = dataclasses.replace(utterance, text="other")
        assert type(changed) is Utterance
        assert (changed.text, changed.phones) == ("other", utterance.phones)
        assert utterance != changed
        for again in (copy.copy(utterance), copy.deepcopy(utterance), pickle.loads(pickle.dumps(utterance))):
            assert type(again) is Utterance
            assert again == utterance
        assert dataclasses.asdict(utterance) == dataclasses.asdict(copy.copy(utterance))

    def test_it_is_frozen_and_has_no_other_attributes(self, utterance: Utterance) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError, match="text"):
            utterance.text = "other"  # type: ignore[misc]
        with pytest.raises(AttributeError, match="'Utterance' object has no attribute 'mood'"):
            utterance.mood  # type: ignore[attr-defined]  # noqa: B018
        with pytest.raises(TypeError, match="unhashable type: 'dict'"):  # as a plain one, because of `attributes`
            hash(utterance)

    def test_what_is_done_to_its_attributes_stays_there(self, utterance: Utterance) -> None:
        utterance.attributes["emotion"] = "fear"  # type: ignore[index]
        assert utterance.attributes["emotion"] == "joy"


@pytest.mark.usefixtures("always")
class TestStale:
    def test_other_lines_make_another(self, tmp_path: Path) -> None:
        manifest.read(written(tmp_path, many(4)))
        folder = written(tmp_path, many(4, prefix="v"))
        assert manifest.read(folder).utterances[0].id == "vu0000"
        assert manifest.read(folder).utterances[0].id == "vu0000"

    def test_other_label_sets_are_held_against_the_lines(self, tmp_path: Path) -> None:
        manifest.read(written(tmp_path, many(4)))
        with pytest.raises(DataError, match=r"does not list: ɕ .*utterance u0000"):
            manifest.read(written(tmp_path, many(4), label_sets={"phones": ["AH"], "speakers": ["B", "Zoë"]}))

    def test_one_of_another_version_is_made_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = written(tmp_path, many(4))
        manifest.read(folder)
        before = (folder / index.INDEX_FILE).stat().st_ino
        monkeypatch.setattr(index, "VERSION", index.VERSION + 1)
        said: list[str] = []
        manifest.read(folder, say=said.append)
        assert (folder / index.INDEX_FILE).stat().st_ino != before
        assert not said

    def test_preparing_again_removes_it(self, tmp_path: Path) -> None:
        from tests.corpora.sounds import noise_draft

        manifest.write(noise_draft(tmp_path / "sound"), tmp_path / "out")
        manifest.read(tmp_path / "out")
        assert (tmp_path / "out" / index.INDEX_FILE).exists()
        manifest.write(noise_draft(tmp_path / "sound"), tmp_path / "out")
        assert not (tmp_path / "out" / index.INDEX_FILE).exists()


def damages(content: bytes) -> Iterator[bytes]:
    """Cuts, zeros, and a changed byte in every section, the table and the end."""
    for end in (0, 10, len(content) // 2, len(content) - 1):
        yield content[:end]
    for at in (*range(30, len(content), max(1, len(content) // 60)), len(content) - 41, len(content) - 33):
        yield content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    yield content[: len(content) // 2] + bytes(len(content) - len(content) // 2)
    yield content + b"more"


@pytest.mark.usefixtures("always")
class TestDamage:
    @pytest.mark.slow
    def test_fault_27_a_damaged_index_is_made_again_with_one_note(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = written(tmp_path, many(40) | RARE)
        plain = without_index(folder, monkeypatch)
        manifest.read(folder)
        path = folder / index.INDEX_FILE
        whole = path.read_bytes()
        for content in damages(whole):
            path.write_bytes(content)
            said: list[str] = []
            corpus = manifest.read(folder, say=said.append)
            assert corpus == plain  # reads phones and texts, too
            assert len(said) <= 1
            assert all("damaged" in line for line in said)
            if content.startswith(index_file.MAGIC):
                assert len(said) == 1
                assert manifest.read(folder, say=said.append) == plain
                assert len(said) == 1
            shutil.rmtree(tmp_path / "cache", ignore_errors=True)
            assert not path.exists() or path.read_bytes() in (whole, content)

    def test_damage_that_is_met_later_is_repaired_while_the_corpus_is_open(self, tmp_path: Path) -> None:
        folder = written(tmp_path, many(4))
        manifest.read(folder)
        path = folder / index.INDEX_FILE
        content = bytearray(path.read_bytes())
        content[len(index_file.MAGIC)] ^= 1  # the first byte of the phones
        path.write_bytes(content)
        said: list[str] = []
        corpus = manifest.read(folder, say=said.append)
        assert not said
        assert [phone.label for phone in corpus.utterances[3].phones or ()] == ["AH", "ɕ"]
        assert len(said) == 1
        assert manifest.read(folder).utterances[3].phones == corpus.utterances[3].phones

    def test_lines_that_changed_meanwhile_are_not_mixed_with_it(self, tmp_path: Path) -> None:
        folder = written(tmp_path, many(4))
        manifest.read(folder)
        path = folder / index.INDEX_FILE
        content = bytearray(path.read_bytes())
        content[len(index_file.MAGIC)] ^= 1
        path.write_bytes(content)
        corpus = manifest.read(folder)
        written(tmp_path, many(4, prefix="v"))
        with pytest.raises(DataError, match=r"changed after it had been opened .*manifest\.jsonl"):
            corpus.utterances[0].phones  # noqa: B018

    def test_an_open_corpus_keeps_its_phones_when_another_index_takes_the_name(self, tmp_path: Path) -> None:
        folder = written(tmp_path, many(4))
        corpus = (manifest.read(folder), manifest.read(folder))[1]
        (folder / index.INDEX_FILE).unlink()
        assert len(corpus.utterances[0].phones or ()) == 2

    def test_a_link_of_the_user_to_nothing_is_kept(self, tmp_path: Path) -> None:
        folder = written(tmp_path, many(4))
        (folder / index.INDEX_FILE).symlink_to("not there")
        assert manifest.read(folder) == manifest.read(folder)
        assert (folder / index.INDEX_FILE).is_symlink()

    def test_a_file_of_the_user_is_kept(self, tmp_path: Path) -> None:
        folder = written(tmp_path, many(4))
        (folder / index.INDEX_FILE).write_text("chapter one")
        said: list[str] = []
        corpus = manifest.read(folder, say=said.append)
        assert manifest.read(folder) == corpus
        assert (folder / index.INDEX_FILE).read_text() == "chapter one"
        assert len(list((tmp_path / "cache" / "manifests").iterdir())) == 1
        assert not said

    @pytest.mark.parametrize("header", [{}, {"links": "followed"}], ids=["within", "followed"])
    def test_a_forged_one_leads_nowhere_outside_the_root(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, header: dict[str, Any]
    ) -> None:
        folder = written(tmp_path, {"a": {"audio": "aa/aa"}, "b": {}}, **header)
        monkeypatch.setattr("repbench.corpora.manifest.indexing._TextColumn.append", forged)
        manifest.read(folder)
        monkeypatch.undo()
        monkeypatch.setattr("repbench.corpora.manifest.index.SMALLEST_BYTES", 0)
        with pytest.raises(DataError, match=r"The place `\.\./aa`.*has a part.*manifest\.jsonl:1, utterance a"):
            manifest.read(folder)


def forged(self: Any, text: str) -> None:
    self.content += text.replace("aa/aa", "../aa").encode("utf-8")
    self._bounds.append(len(self.content))


@pytest.mark.usefixtures("always")
class TestRefusals:
    """Each is refused as without an index: before there is one, and by the disk's state after."""

    @pytest.mark.parametrize(
        ("lines", "header", "fault"),
        [
            ({"b": {"speaker": 7}}, {}, r"`speaker` must be a string.*jsonl:5, utterance b"),
            ({"b": {"id": "u0001"}}, {}, r"`u0001` (stands|occurs) 2 times: \S+:2, \S+:5 .*jsonl:2, utterance u0001"),
            ({"b": {"speaker": "C"}}, {}, r"does not list: C .*utterance b"),
            ({"b": {"phones": [[0, 0.1, "XX"]]}}, {}, r"does not list: XX .*utterance b"),
            ({"b": {"samples_sha256": HASH.format(1), "split": "test"}, "c": {"samples_sha256": HASH.format(1),
              "split": "dev"}}, {}, r"The same sound (stands under|has) two ids, `b` \(test\) and `c` \(dev\)"),
            ({"b": {}}, {"samples_sha256": "0" * 64}, r"does not list the sounds of `corpus\.json`"),
            ({"b": {"audio": "../b.wav"}}, {}, r"The place `\.\./b\.wav` has a part.*jsonl:5, utterance b"),
        ],
        ids=["field", "twice", "speaker", "phone", "leak", "sounds", "path"],
    )  # fmt: skip
    def test_faults_of_the_lines_have_the_same_text(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        lines: dict[str, Any],
        header: dict[str, Any],
        fault: str,
    ) -> None:
        folder = written(tmp_path, many(4) | lines, **header)
        with pytest.raises(DataError, match=fault) as found:
            manifest.read(folder)
        with pytest.raises(DataError, match=fault) as expected:
            without_index(folder, monkeypatch)
        assert found.value.line() == expected.value.line()
        assert sorted(each.name for each in folder.iterdir()) == ["corpus.json", "manifest.jsonl"]

    def test_undeclared_features_are_refused(self, tmp_path: Path) -> None:
        folder = written(tmp_path, RARE)
        header = json.loads((folder / "corpus.json").read_text("utf-8"))
        del header["features"]
        manifest.read(folder)
        (folder / "corpus.json").write_text(json.dumps(header), "utf-8")
        with pytest.raises(DataError, match=r"has features.*does not declare.*utterance all"):
            manifest.read(folder)

    def test_an_empty_manifest_and_a_missing_one_are_refused(self, tmp_path: Path) -> None:
        folder = written(tmp_path, {})
        with pytest.raises(DataError, match="lists no utterance"):
            manifest.read(folder)
        (folder / "manifest.jsonl").unlink()
        with pytest.raises(DataError, match=r"it has no `manifest\.jsonl`"):
            manifest.read(folder)

    @pytest.mark.parametrize("what", ["file", "folder", "folder above"])
    def test_fault_42_a_link_that_leads_out_is_found_at_each_opening(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
    ) -> None:
        lines = {f"u{number}": {"audio": f"deep/d{number % 2}/{number}.wav"} for number in (5, 3, 4, 0, 1, 2)}
        folder = written(tmp_path, lines)
        (tmp_path / "sounds" / "deep" / "d1").mkdir(parents=True)
        manifest.read(folder)
        link = {"file": "deep/d1/3.wav", "folder": "deep/d0", "folder above": "deep"}[what]
        (tmp_path / "sounds" / "deep").rename(tmp_path / "sounds" / "old")
        if what != "folder above":
            (tmp_path / "sounds" / link).parent.mkdir(parents=True)
        (tmp_path / "outside").mkdir()
        (tmp_path / "sounds" / link).symlink_to(tmp_path / "outside")
        with pytest.raises(DataError, match=r"leads out of the root.*jsonl:\d, utterance") as found:
            manifest.read(folder)
        with pytest.raises(DataError, match="leads out of the root") as expected:
            without_index(folder, monkeypatch)
        assert found.value.line() == expected.value.line()

    def test_links_within_the_root_are_taken_and_so_are_all_where_the_corpus_says_so(self, tmp_path: Path) -> None:
        folder = written(tmp_path, many(6))
        root = tmp_path / "sounds"
        (root / "real").mkdir()
        (root / "d1").symlink_to(root / "real")
        for _ in range(2):
            assert len(manifest.read(folder).utterances) == 6
        written(tmp_path, many(6), links="followed")
        (root / "d2").symlink_to(tmp_path)
        assert len(manifest.read(folder).utterances) == 6


@pytest.mark.usefixtures("always")
class TestPlaces:
    def test_a_read_only_folder_takes_the_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = written(tmp_path, many(4))
        refuse_to_write(monkeypatch, folder)
        first, second = manifest.read(folder), manifest.read(folder)
        assert first == second
        assert len(list((tmp_path / "cache" / "manifests").iterdir())) == 1
        assert sorted(each.name for each in folder.iterdir()) == ["corpus.json", "manifest.jsonl"]

    def test_without_any_place_it_is_made_each_time(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = written(tmp_path, many(4))
        plain = without_index(folder, monkeypatch)
        refuse_to_write(monkeypatch, folder)
        (tmp_path / "cache").write_text("no folder")
        assert manifest.read(folder) == plain

    @pytest.mark.slow
    def test_a_kill_at_any_moment_leaves_the_old_index_or_the_new(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = written(tmp_path, many(3_000))
        plain = without_index(folder, monkeypatch)
        program = (
            "import sys; from pathlib import Path; from repbench.corpora import manifest\n"
            "from repbench.corpora.manifest import index\n"
            "index.SMALLEST_BYTES = 0\n"
            "print('ready', flush=True)\n"
            "while True:\n"
            "    manifest.read(Path(sys.argv[1])); (Path(sys.argv[1]) / index.INDEX_FILE).unlink()\n"
        )
        for wait_s in (0.0, 0.05, 0.1, 0.15, 0.2, 0.25):
            child = subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE)
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(wait_s)
            child.send_signal(signal.SIGKILL)
            child.communicate()
            said: list[str] = []
            assert manifest.read(folder, say=said.append).fingerprint == plain.fingerprint
            assert not said
            (folder / index.INDEX_FILE).unlink()
        manifest.read(folder)
        assert list(folder.glob(".tmp-*")) == []

    def test_fault_29_several_processes_open_it_at_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = written(tmp_path, many(500))
        plain = without_index(folder, monkeypatch)
        with multiprocessing.get_context("fork").Pool(4) as pool:
            found = pool.map(opened, [folder] * 8)
        assert {fingerprint for fingerprint, _ in found} == {plain.fingerprint}
        assert {phones for _, phones in found} == {plain.utterances[-1].phones}
        assert [each.name for each in folder.glob(".tmp-*")] == []


def opened(folder: Path) -> tuple[str, Any]:
    corpus = manifest.read(folder)
    return corpus.fingerprint, corpus.utterances[-1].phones


def refuse_to_write(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make `folder` read-only for this process, whoever runs it."""
    import tempfile

    make: Callable[..., tuple[int, str]] = tempfile.mkstemp

    def refuse(*arguments: Any, **options: Any) -> tuple[int, str]:
        if str(options["dir"]) == str(folder):
            raise OSError(30, os.strerror(30))
        return make(*arguments, **options)

    monkeypatch.setattr(tempfile, "mkstemp", refuse)


@pytest.mark.slow
def test_the_command_reads_a_corpus_through_its_index(tmp_path: Path) -> None:
    folder = written(tmp_path, many(5_000))
    manifest.read(folder)
    path = folder / index.INDEX_FILE
    path.write_bytes(path.read_bytes()[:-1])
    for times in (1, 0):
        result = repbench("corpus", "check", folder, "--json")
        assert result.code == 3  # its sounds are not there
        assert result.json["num_utterances"] == 5_000
        assert result.err.count("is damaged") == times
