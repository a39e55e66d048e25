"""The bytes of a shard: written entries are read back, and damaged ones are detected."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from repbench.benchmark.features.shards import (
    DAMAGED_SUFFIX,
    SUFFIX,
    DamagedShard,
    ShardOrigin,
    StoredLayer,
    UnwrittenLayer,
    current_entries,
    open_shard,
    read_index,
    shard_files,
    store_folder,
    write_shard,
)

ORIGIN = ShardOrigin(fingerprint="f" * 64, sample_rate_hz=16_000, width=2, dtype="float16", precision="bfloat16")
DRAFTS = [
    UnwrittenLayer(sound="a@16000", layer=0, batch="b", data=bytes(range(100))),
    UnwrittenLayer(sound="a@16000", layer=1, batch="b", data=b""),
    UnwrittenLayer(sound="c@16000", layer=0, batch="d", data=b"\1" * 64),
]


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return write_shard(tmp_path, ORIGIN, "paper", DRAFTS, [("older", "a@16000", 0)])


def content(path: Path, entry: StoredLayer) -> bytes:
    place = bytearray(entry.num_bytes)
    with open_shard(path) as reader:
        reader.read_into(entry, memoryview(place))
    return bytes(place)


def everything(path: Path) -> list[bytes]:
    return [content(path, entry) for entry in read_index(path).entries]


def test_what_is_written_is_read(shard: Path) -> None:
    index = read_index(shard)
    assert (index.path, index.origin, index.upstream) == (shard, ORIGIN, "paper")
    assert index.replaces == frozenset({("older", "a@16000", 0)})
    assert [(each.sound, each.layer, each.batch, each.num_bytes) for each in index.entries] == [
        ("a@16000", 0, "b", 100), ("a@16000", 1, "b", 0), ("c@16000", 0, "d", 64)
    ]  # fmt: skip
    assert everything(shard) == [draft.data for draft in DRAFTS]


def test_the_layout_is_the_one_that_stores_of_before_have(shard: Path) -> None:
    data = shard.read_bytes()
    assert [entry.offset for entry in read_index(shard).entries] == [64, 192, 192]
    assert data[:16] == data[-16:] == b"repbench.shard/1"
    assert data[16:64] == bytes(48)
    length, digest = struct.unpack("<Q32s", data[-56:-16])
    assert length == len(data) - 56 - 256
    assert digest == hashlib.sha256(data[256:-56]).digest()
    assert json.loads(data[256:-56])["origin"]["dtype"] == "float16"
    assert (SUFFIX, DAMAGED_SUFFIX) == (".shard", ".damaged")
    assert shard.name == f"{digest.hex()[:32]}.shard"


@pytest.mark.parametrize(
    "change",
    [{"fingerprint": "e" * 64}, {"sample_rate_hz": 8_000}, {"width": 8}, {"dtype": "bfloat16"},
     {"precision": "float32"}],
    ids=lambda each: min(each),
)  # fmt: skip
def test_fault_28_each_field_of_an_origin_has_a_folder_of_its_own(change: dict[str, Any]) -> None:
    assert dataclasses.replace(ORIGIN, **change).folder_name() != ORIGIN.folder_name()


def test_a_store_of_before_is_found_again() -> None:
    """The folder was named so before `precision` was a part of the key."""
    facts = (
        f'{{"dtype":"float16","fingerprint":"{"f" * 64}","format":"repbench.shard/1","sample_rate_hz":16000,"width":2}}'
    )
    assert (
        dataclasses.replace(ORIGIN, precision="float32").folder_name()
        == hashlib.sha256(facts.encode()).hexdigest()[:32]
    )


def test_equal_shards_have_equal_names_and_unlike_ones_do_not(shard: Path, tmp_path: Path) -> None:
    replaces = [("older", "a@16000", 0)]
    assert write_shard(tmp_path / "again", ORIGIN, "paper", DRAFTS, replaces).name == shard.name
    both = [*replaces, ("older", "a@16000", 1)]
    again = [write_shard(tmp_path / "again", ORIGIN, "paper", DRAFTS, each).name for each in (both, both[::-1])]
    assert again[0] == again[1]
    assert write_shard(tmp_path / "again", ORIGIN, "paper", DRAFTS[:2], replaces).name != shard.name
    assert write_shard(tmp_path / "again", ORIGIN, "paper", DRAFTS).name != shard.name


def test_every_bit_that_means_something_is_checked(shard: Path) -> None:
    data = shard.read_bytes()
    unnoticed = []
    with shard.open("r+b", buffering=0) as stream:
        for place, byte in enumerate(data):
            os.pwrite(stream.fileno(), bytes([byte ^ 1]), place)
            with contextlib.suppress(DamagedShard):
                everything(shard)
                unnoticed.append(place)
            os.pwrite(stream.fileno(), bytes([byte]), place)
    assert unnoticed == [*range(16, 64), *range(164, 192)], "what fills up to multiples of 64 alone"


def test_a_shard_cut_off_anywhere_is_none(shard: Path) -> None:
    for size in range(shard.stat().st_size - 1, -1, -7):
        os.truncate(shard, size)
        with pytest.raises(DamagedShard, match=r"cut off|no shard|damaged"):
            read_index(shard)


def test_an_entry_beyond_the_end_is_cut_off(shard: Path) -> None:
    entry = read_index(shard).entries[0]
    with pytest.raises(DamagedShard, match="it is cut off"):
        content(shard, dataclasses.replace(entry, offset=shard.stat().st_size - 10))
    with pytest.raises(DamagedShard, match="its checksum does not hold"):
        content(shard, dataclasses.replace(entry, offset=entry.offset + 1))


def foreign(folder: Path, change: Callable[[dict[str, Any]], object], length: int | None = None) -> Path:
    """A shard whose index somebody else wrote, checksum included."""
    facts = {"origin": dataclasses.asdict(ORIGIN), "upstream": "u", "entries": [], "replaces": []}
    change(facts)
    index = json.dumps(facts).encode()
    magic = b"repbench.shard/1"
    footer = struct.pack("<Q32s16s", len(index) if length is None else length, hashlib.sha256(index).digest(), magic)
    (folder / "foreign.shard").write_bytes(magic + index + footer)
    return folder / "foreign.shard"


@pytest.mark.parametrize(
    "change",
    [
        lambda facts: facts.pop("upstream"),
        lambda facts: facts.pop("replaces"),
        lambda facts: facts["origin"].pop("width"),
        lambda facts: facts["origin"].update(height=3),
        lambda facts: facts["entries"].append(["a@16000", 0, "b", 64, 0]),
        lambda facts: facts["replaces"].append(["older", 0]),
    ],
)
def test_an_index_of_another_kind_is_not_understood(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(DamagedShard, match="its index cannot be understood"):
        read_index(foreign(tmp_path, change))


def test_an_index_from_before_there_was_a_precision_is_understood(tmp_path: Path) -> None:
    shard = read_index(foreign(tmp_path, lambda facts: facts["origin"].pop("precision")))
    assert shard.origin == dataclasses.replace(ORIGIN, precision="float32")
    assert shard.entries == ()


def test_an_index_is_as_long_as_the_file_allows_at_most(tmp_path: Path) -> None:
    whole = foreign(tmp_path, lambda facts: None).stat().st_size - 56 - 16
    for length, message in ((2**62, "its end is damaged"), (whole + 1, "its end is damaged"), (whole - 1, "its index")):
        with pytest.raises(DamagedShard, match=message):
            read_index(foreign(tmp_path, lambda facts: None, length))


def test_a_folder_is_no_shard(tmp_path: Path) -> None:
    (tmp_path / "x.shard").mkdir()
    with pytest.raises(DamagedShard, match="it is not a file"):
        read_index(tmp_path / "x.shard")
    with pytest.raises(DamagedShard, match="it is not a file"), open_shard(tmp_path / "x.shard"):
        pass


def test_a_disk_that_reads_little_at_once_gives_the_same(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, places, offset: real(file, [places[0][:7]], offset))
    assert everything(shard) == [draft.data for draft in DRAFTS]


def test_no_descriptor_is_left_open(shard: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        everything(shard)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_unfinished_files_are_no_shards(shard: Path, tmp_path: Path) -> None:
    (tmp_path / ".tmp-1@host-abcdefgh-x.shard").write_bytes(b"unfinished")
    (tmp_path / "0.shard").write_bytes(b"whole, for its name")
    (tmp_path / "x.shard.damaged").write_bytes(b"set aside")
    assert shard_files(tmp_path) == [tmp_path / "0.shard", shard]


def test_what_a_later_shard_replaces_does_not_stand(shard: Path, tmp_path: Path) -> None:
    later = write_shard(tmp_path, ORIGIN, "paper", DRAFTS[:1], [(shard.stem, "a@16000", 0)])
    places = current_entries([read_index(shard), read_index(later)])
    assert {key: [found.path for found, _ in each] for key, each in places.items()} == {
        ("a@16000", 0): [later], ("a@16000", 1): [shard], ("c@16000", 0): [shard]
    }  # fmt: skip
    assert current_entries([]) == {}


def test_the_store_is_a_folder_of_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPBENCH_CACHE", "/somewhere")
    assert store_folder() == Path("/somewhere/features")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"b",64,', b'"b",8.5,'),
        (b'"b",64,', b'"b",-8,'),
        (b'"b",64,', b'"b",true,'),
        (b'"b",64,64', b'"b",64,99999'),
        (b'"b",64,64', b'"b",64,9223372036854775808'),
        (b'"b",64,', b'"b",' + b"[" * 5000 + b","),
    ],
    ids=["fraction", "negative", "truth", "beyond its file", "beyond any file", "deep"],
)
def test_an_index_that_cannot_be_true_is_damaged(tmp_path: Path, old: bytes, new: bytes) -> None:
    path = write_shard(tmp_path, ORIGIN, "mel", [UnwrittenLayer(sound="s@16000", layer=0, batch="b", data=bytes(64))])
    data = path.read_bytes()
    start, end = data.index(b'{"entries"'), len(data) - 56
    assert old in data[start:end]
    index = data[start:end].replace(old, new)
    footer = struct.pack("<Q32s16s", len(index), hashlib.sha256(index).digest(), b"repbench.shard/1")
    path.write_bytes(data[:start] + index + footer)
    with pytest.raises(DamagedShard, match="its index cannot be understood"):
        read_index(path)
