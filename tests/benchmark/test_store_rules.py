"""The feature store in small examples: quota, disk, batches, damage."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from pathlib import Path

import pytest
import torch

from repbench.benchmark.features import allocation, shard_writer, store
from repbench.benchmark.features.extraction import ExtractionOptions, table_index
from repbench.benchmark.features.shards import ShardOrigin, UnwrittenLayer, read_index, write_shard
from repbench.benchmark.features.store import FeatureStore, bytes_below, discard, origin_for
from repbench.corpora.contract import Corpus, Utterance
from repbench.testing import tone_corpus
from tests.benchmark.test_store import Listening, Said, computed, flip, same, shards, stored


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> tuple[Utterance, ...]:
    corpus: Corpus = tone_corpus(tmp_path_factory.mktemp("rules") / "tones", num_speakers=1)
    return corpus.utterances[:4]


def num_bytes(utterances: tuple[Utterance, ...], layers: int, item: int) -> int:
    return sum(table_index(Listening(), utterances).counts) * 4 * layers * item


@pytest.mark.parametrize(("dtype", "item"), [("float32", 4), ("float16", 2)])
def test_what_fits_the_quota_to_the_byte_is_stored_and_one_byte_more_is_not(
    dtype: str, item: int, four: tuple[Utterance, ...], tmp_path: Path
) -> None:
    exact = num_bytes(four, 2, item) / store.GIB
    stored(tmp_path / "fits", four, dtype=dtype, gib=exact)
    assert shards(tmp_path / "fits")
    said = Said()
    table, _ = stored(tmp_path / "not", four, dtype=dtype, gib=exact - 1 / store.GIB, say=said.say)
    assert not shards(tmp_path / "not")
    assert same(table, computed(four, dtype=dtype))
    (line,) = said.lines
    assert "MiB of features and 0.0 MiB already stored would exceed the quota of" in line


def test_only_what_is_missing_counts_beside_what_is_there(four: tuple[Utterance, ...], tmp_path: Path) -> None:
    stored(tmp_path, four, [1])
    room_left = (bytes_below(tmp_path) + num_bytes(four, 1, 4)) / store.GIB
    said = Said()
    stored(tmp_path, four, [0, 1], gib=room_left - 1 / store.GIB, say=said.say)
    assert len(said.lines) == 1
    stored(tmp_path, four, [0, 1], gib=room_left)
    assert stored(tmp_path, four, [0, 1], gib=0.0)[1] == 0, "what is stored is read whatever the quota is"


def test_a_gibibyte_of_the_disk_is_left_to_others(
    four: tuple[Utterance, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert allocation.SPARE_BYTES == 2**30
    exact = num_bytes(four, 2, 4) + allocation.SPARE_BYTES
    for free in (exact - 1, exact):
        monkeypatch.setattr(store, "free_bytes", lambda folder, free=free: free)
        said = Said()
        stored(tmp_path, four, say=said.say)
        assert bool(shards(tmp_path)) == (not said.lines) == (free == exact)


def test_sizes_are_in_gib_from_a_tenth_on() -> None:
    assert [store._size(size * store.GIB) for size in (0.1, 0.0999, 2.0)] == ["0.10 GiB", "102.3 MiB", "2.00 GiB"]


@pytest.mark.parametrize(("num_bytes", "seconds", "many"), [(2**25, 1e9, False), (1, 1e9, True), (2**25, 0.0, True)])
def test_a_shard_is_closed_when_it_is_large_or_old_enough(
    num_bytes: int,
    seconds: float,
    many: bool,
    four: tuple[Utterance, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert (shard_writer.SHARD_BYTES, shard_writer.SHARD_SECONDS) == (32 * 2**20, 20.0)
    monkeypatch.setattr(shard_writer, "SHARD_BYTES", num_bytes)
    monkeypatch.setattr(shard_writer, "SHARD_SECONDS", seconds)
    stored(tmp_path, four, batch_seconds=0.1)
    assert len(shards(tmp_path)) == (len(four) if many else 1)
    names = [entry.batch for path in shards(tmp_path) for entry in read_index(path).entries]
    assert len(set(names)) == len(four), "each went through the upstream alone"


def test_lacking_is_what_lacks_any_of_the_layers(four: tuple[Utterance, ...], tmp_path: Path) -> None:
    stored(tmp_path, four[:3], [0])
    stored(tmp_path, four[1:], [1])
    upstream = Listening()
    origin = origin_for(upstream, upstream.fingerprint(), "float32")
    features = FeatureStore(tmp_path, upstream, origin, name="x", quota_bytes=1e9, say=print)
    assert features.lacking(four, [0]) == [four[3]]
    assert features.lacking(four, [0, 1]) == [four[0], four[3]]
    assert features.lacking(four, []) == []
    assert not features.is_closed


def test_a_damaged_entry_is_read_from_the_next_shard_that_has_it(four: tuple[Utterance, ...], tmp_path: Path) -> None:
    stored(tmp_path, four)
    (first,) = shards(tmp_path)
    index = read_index(first)
    drafts = [
        UnwrittenLayer(
            sound=each.sound, layer=each.layer, batch="other", data=first.read_bytes()[each.offset :][: each.num_bytes]
        )
        for each in index.entries
    ]
    second = write_shard(first.parent, index.origin, "twin", drafts)
    asked_first = min(first, second)
    flip(asked_first, read_index(asked_first).entries[0].offset)
    said = Said()
    table, heard = stored(tmp_path, four, say=said.say)
    assert heard == 0
    assert same(table, computed(four))
    assert said.lines == [
        f"note: 1 stored features are damaged ({asked_first}: its checksum does not hold) and are computed again"
    ]
    assert stored(tmp_path, four)[1] == 0, "the damaged entry is replaced, and not read a second time"


def test_a_shard_that_is_gone_when_it_is_read_is_computed_without_a_word(
    four: tuple[Utterance, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(tmp_path, four)

    def gone(path: Path) -> None:
        raise FileNotFoundError(path)

    monkeypatch.setattr(store, "open_shard", gone)
    table, heard = stored(tmp_path, four)
    assert heard == 4
    assert same(table, computed(four))
    assert not any(read_index(path).replaces for path in shards(tmp_path))


def test_an_entry_of_another_size_is_none(four: tuple[Utterance, ...], tmp_path: Path) -> None:
    upstream = Listening()
    origin = ShardOrigin(
        fingerprint=upstream.fingerprint(), sample_rate_hz=16_000, width=4, dtype="float32", precision="float32"
    )
    sound = f"{four[0].samples_sha256}@{four[0].sample_rate_hz}"
    draft = UnwrittenLayer(sound=sound, layer=0, batch="b", data=b"\0" * 16)
    write_shard(tmp_path / origin.folder_name(), origin, "short", [draft])
    table, heard = stored(tmp_path, four[:1], [0], upstream=upstream)
    assert heard == 1
    assert same(table, computed(four[:1], [0]))


def test_what_is_no_shard_is_put_out_of_the_way_and_a_folder_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file.shard").write_text("x")
    (tmp_path / "folder.shard").mkdir()
    (tmp_path / "link.shard").symlink_to(tmp_path)
    for name in ("file", "folder", "link", "not there"):
        discard(tmp_path / f"{name}.shard")
    (left,) = tmp_path.iterdir()
    assert left.name.startswith("folder.shard-")
    assert left.name.endswith(".damaged")


def test_progress_is_told_of_what_is_read_and_then_of_each_batch(four: tuple[Utterance, ...], tmp_path: Path) -> None:
    stored(tmp_path, four[:1])
    told: list[tuple[int, int]] = []
    stored(tmp_path, four, batch_seconds=0.1, progress=lambda *done: told.append(done))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    stored(tmp_path / "empty", four, batch_seconds=0.1, progress=lambda *done: told.append(done))
    assert told[4:] == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_half_precision_is_what_is_read_back(four: tuple[Utterance, ...], tmp_path: Path) -> None:
    for _ in range(2):
        table, _ = stored(tmp_path, four, dtype="float16")
        assert table.frames.dtype == torch.float32
        assert torch.equal(table.frames, table.frames.half().float())


@pytest.mark.parametrize(("dtype", "precision"), [("float32", "float32"), ("float16", "bfloat16")])
def test_features_of_another_dtype_or_precision_are_not_taken_for_those_of_the_store(
    dtype: str, precision: str, four: tuple[Utterance, ...], tmp_path: Path
) -> None:
    upstream = Listening()
    origin = origin_for(upstream, upstream.fingerprint(), "float16")
    features = FeatureStore(tmp_path, upstream, origin, name="x", quota_bytes=1e9, say=print)
    options = ExtractionOptions(batch_seconds=1.0, device=torch.device("cpu"), dtype="float16")
    with pytest.raises(ValueError, match="the store has the origin"):
        features.extract(four, [0], dataclasses.replace(options, dtype=dtype, precision=precision))
    assert upstream.num_heard == 0
    features.extract(four, [0], options)
    assert upstream.num_heard == 4


def test_a_batch_is_named_after_the_sounds_in_it(four: tuple[Utterance, ...], tmp_path: Path) -> None:
    """A name of before has to be the name of now: it decides what is computed together with what is missing."""
    stored(tmp_path, four, [0], batch_seconds=60)
    in_order = sorted(four, key=lambda each: (each.num_samples, four.index(each)))
    sounds = " ".join(f"{each.samples_sha256}@16000" for each in in_order)
    names = {entry.batch for path in shards(tmp_path) for entry in read_index(path).entries}
    assert names == {hashlib.sha256(sounds.encode()).hexdigest()[:16]}


@pytest.mark.parametrize(("more", "sizes"), [(0, [2, 2]), (1, [3, 1])])
def test_a_shard_is_written_when_its_entries_reach_the_size(
    more: int, sizes: list[int], four: tuple[Utterance, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_order = sorted(four, key=lambda each: (each.num_samples, four.index(each)))
    monkeypatch.setattr(shard_writer, "SHARD_BYTES", num_bytes(tuple(in_order[:2]), 1, 4) + more)
    stored(tmp_path, four, [0], batch_seconds=0.1)
    found = [sorted(four.index(each) for each in four if _holds(path, each)) for path in shards(tmp_path)]
    expected = [in_order[: sizes[0]], in_order[sizes[0] :]]
    assert sorted(found) == sorted(sorted(four.index(each) for each in part) for part in expected)


def _holds(path: Path, utterance: Utterance) -> bool:
    return any(entry.sound.startswith(utterance.samples_sha256) for entry in read_index(path).entries)


def test_the_age_of_a_shard_counts_from_the_shard_before(
    four: tuple[Utterance, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock moves by 6 s each time it is read: by 6 s from one batch to the next, and 6 s for a shard."""
    clock = itertools.count(1000.0, 6.0)
    monkeypatch.setattr("repbench.benchmark.features.shard_writer.time.monotonic", lambda: next(clock))
    monkeypatch.setattr(shard_writer, "SHARD_SECONDS", 12.0)
    stored(tmp_path, four, [0], batch_seconds=0.1)
    assert sorted(len(read_index(path).entries) for path in shards(tmp_path)) == [2, 2]


def test_a_shard_that_cannot_be_opened_does_not_hide_the_others(four: tuple[Utterance, ...], tmp_path: Path) -> None:
    stored(tmp_path, four)
    (shard,) = shards(tmp_path)
    shard.with_name("0.shard").symlink_to("nowhere")
    assert stored(tmp_path, four)[1] == 0


def test_the_bytes_of_a_store_are_those_of_its_shards(four: tuple[Utterance, ...], tmp_path: Path) -> None:
    assert bytes_below(tmp_path) == 0
    stored(tmp_path, four[:2])
    stored(tmp_path, four[2:])
    (first, second) = shards(tmp_path)
    (first.parent / "other").write_text("not a shard")
    assert bytes_below(tmp_path) == first.stat().st_size + second.stat().st_size


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_origin_has_everything_that_entries_have_in_common(precision: str) -> None:
    assert origin_for(Listening(), "f", "float16", precision) == ShardOrigin(
        fingerprint="f", sample_rate_hz=16_000, width=4, dtype="float16", precision=precision
    )


def test_a_closed_store_says_so_once(four: tuple[Utterance, ...], tmp_path: Path) -> None:
    upstream, said = Listening(), Said()
    origin = origin_for(upstream, upstream.fingerprint(), "float32")
    features = FeatureStore(tmp_path, upstream, origin, name="x", quota_bytes=0, say=said.say)
    options = ExtractionOptions(batch_seconds=1.0, device=torch.device("cpu"))
    for _ in range(2):
        features.extract(four, [0], options)
    assert (len(said.lines), features.is_closed, upstream.num_heard) == (1, True, 8)


def test_of_several_damaged_shards_the_first_is_named(four: tuple[Utterance, ...], tmp_path: Path) -> None:
    stored(tmp_path, four[:2], [0])
    stored(tmp_path, four[2:], [0])
    for shard in shards(tmp_path):
        flip(shard, read_index(shard).entries[0].offset)
    said = Said()
    stored(tmp_path, four, [0], say=said.say)
    (line,) = said.lines
    first = next(path for path in shards(tmp_path) if _holds(path, four[0]))
    assert line.startswith(f"note: 2 stored features are damaged ({first}: ")
