"""The index of a shard is believed only where it can be true."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from repbench.benchmark import shards

ORIGIN = shards.Origin(fingerprint="f", sample_rate_hz=16_000, width=4, dtype="float32")


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
    draft = shards.Draft(sound="s@16000", layer=0, batch="b", data=bytes(64))
    path = shards.write_shard(tmp_path, ORIGIN, "mel", [draft])
    content = path.read_bytes()
    start, end = content.index(b'{"entries"'), len(content) - shards._FOOTER.size
    assert old in content[start:end]
    index = content[start:end].replace(old, new)
    footer = shards._FOOTER.pack(len(index), hashlib.sha256(index).digest(), shards._MAGIC)
    path.write_bytes(content[:start] + index + footer)
    with pytest.raises(shards.DamagedShard, match="its index cannot be understood"):
        shards.read_index(path)
