"""The guard before HDF5, on files that a test made and on those files attacked."""

from __future__ import annotations

import os
import shutil
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repbench.corpora.contract import PrepareOptions
from repbench.corpora.layouts import hdf5
from repbench.corpora.layouts.csd import read_csd
from repbench.corpora.layouts.hdf5 import check_hdf5
from repbench.corpora.layouts.mosi import MOSI
from repbench.errors import DataError, EnvironmentFault, IntegrityError
from tests.commands import repbench
from tests.corpora.computational_sequences import pack, write_csd
from tests.corpora.sounds import write_noise

h5py = pytest.importorskip("h5py", reason="needs the extra `mosi`")
pytest.importorskip("mmsdk", reason="needs the extra `mosi`")

NOISE = np.random.default_rng(0).standard_normal((256, 1)).astype("f4")
CANARY = b"CANARY-7f3a91"
VIDEO = "Opinion Segment Labels/data/video"


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """A root whose labels and sound are sound."""
    root = tmp_path / "root"
    write_noise(root / "wav" / "video.wav", seed=0, seconds=3.0)
    write_csd(root / "labels.csd", {"video": [(0.0, 1.5, [1.0]), (1.5, 3.0, [-1.0])]})
    return root


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file beside the root that nothing may read: HDF5 with the canary as its values, and in its raw bytes."""
    path = tmp_path / "secret.h5"
    with h5py.File(path, "w") as file:
        file["features"] = np.frombuffer(CANARY.ljust(16, b"\0"), dtype=np.float32).reshape(4, 1)
        file["intervals"] = np.arange(8.0).reshape(4, 2)
        file["group/features"] = file["features"][...]
        file["group/intervals"] = file["intervals"][...]
    assert CANARY in path.read_bytes()
    return path


def external_link(file: Any, secret: Path) -> None:
    del file[f"{VIDEO}/features"]
    file[f"{VIDEO}/features"] = h5py.ExternalLink(os.fspath(secret), "/features")


def intermediate_external_link(file: Any, secret: Path) -> None:
    del file[VIDEO]
    file[VIDEO] = h5py.ExternalLink(os.fspath(secret), "/group")


def soft_link(file: Any, secret: Path) -> None:
    file[f"{VIDEO}/other"] = h5py.SoftLink("/Opinion Segment Labels/metadata")


def external_storage(file: Any, secret: Path) -> None:
    del file[f"{VIDEO}/features"]
    place = (os.fspath(secret), secret.read_bytes().index(CANARY), h5py.h5f.UNLIMITED)
    file.create_dataset(f"{VIDEO}/features", shape=(2, 1), dtype="f4", external=[place])


def virtual_dataset(file: Any, secret: Path) -> None:
    del file[f"{VIDEO}/features"]
    layout = h5py.VirtualLayout(shape=(4, 1), dtype="f4")
    layout[...] = h5py.VirtualSource(os.fspath(secret), "features", shape=(4, 1))
    file.create_virtual_dataset(f"{VIDEO}/features", layout)


def unallocated_bomb(file: Any, secret: Path) -> None:
    del file[f"{VIDEO}/features"]
    file.create_dataset(f"{VIDEO}/features", shape=(1 << 40, 1), chunks=(1024, 1), dtype="f4")


def contiguous_bomb(file: Any, secret: Path) -> None:
    file.create_dataset(f"{VIDEO}/bomb", shape=(1 << 40, 1), dtype="f4")


def chunk_bomb(file: Any, secret: Path) -> None:
    file.create_dataset(f"{VIDEO}/bomb", shape=(1,), maxshape=(None,), chunks=(1 << 28,), dtype="f4")


def packed_zeros(file: Any, secret: Path) -> None:
    file.create_dataset(f"{VIDEO}/bomb", data=np.zeros((1 << 20, 1), dtype="f4"), compression="gzip")


def packed_and_unallocated(file: Any, secret: Path) -> None:
    file.create_dataset(f"{VIDEO}/bomb", shape=(1 << 40, 1), chunks=(1024, 1), dtype="f4", compression="gzip")


def packed_in_one_huge_chunk(file: Any, secret: Path) -> None:
    file.create_dataset(f"{VIDEO}/bomb", shape=(1,), maxshape=(None,), chunks=(1 << 28,), dtype="f4", compression=1)


def chunk_that_unpacks_to_more(file: Any, secret: Path) -> None:
    """The shape is honest, but libhdf5 would unpack all of the stream: 64 MiB here, 1,000 times the file at most."""
    bomb = file.create_dataset(f"{VIDEO}/bomb", shape=(256, 1), chunks=(256, 1), dtype="f4", compression="gzip")
    bomb.id.write_direct_chunk((0, 0), zlib.compress(bytes(1 << 26)))


def chunk_that_unpacks_to_less(file: Any, secret: Path) -> None:
    bomb = file.create_dataset(f"{VIDEO}/bomb", shape=(256, 1), chunks=(256, 1), dtype="f4", compression="gzip")
    bomb.id.write_direct_chunk((0, 0), zlib.compress(bytes(1023)))


def chunk_that_does_not_end(file: Any, secret: Path) -> None:
    bomb = file.create_dataset(f"{VIDEO}/bomb", shape=(256, 1), chunks=(256, 1), dtype="f4", compression="gzip")
    bomb.id.write_direct_chunk((0, 0), zlib.compress(NOISE.tobytes())[:-2])


def chunk_of_another_checksum(file: Any, secret: Path) -> None:
    bomb = file.create_dataset(f"{VIDEO}/bomb", shape=(256, 1), chunks=(256, 1), dtype="f4", fletcher32=True)
    bomb.id.write_direct_chunk((0, 0), NOISE.tobytes() + b"\0\0\0\0")


def lzf(file: Any, secret: Path) -> None:
    file.create_dataset(f"{VIDEO}/other", data=NOISE, compression="lzf")


def scale_and_offset(file: Any, secret: Path) -> None:
    file.create_dataset(f"{VIDEO}/other", data=NOISE, scaleoffset=2)


def gzip_twice(file: Any, secret: Path) -> None:
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk((256,))
    creation.set_deflate(9)
    creation.set_deflate(9)
    space = h5py.h5s.create_simple((256,))
    h5py.h5d.create(file[VIDEO].id, b"other", h5py.h5t.IEEE_F32LE, space, creation)


def cycle(file: Any, secret: Path) -> None:
    file[f"{VIDEO}/loop"] = file["/"]


def two_names(file: Any, secret: Path) -> None:
    file[f"{VIDEO}/again"] = file[f"{VIDEO}/features"]


def object_reference(file: Any, secret: Path) -> None:
    file.create_dataset(f"{VIDEO}/other", data=file[VIDEO].ref, dtype=h5py.ref_dtype)


def variable_length(file: Any, secret: Path) -> None:
    file.create_dataset(f"{VIDEO}/other", shape=(1,), dtype=h5py.vlen_dtype(np.float32))


def compound(file: Any, secret: Path) -> None:
    file.create_dataset(f"{VIDEO}/other", shape=(1,), dtype=[("a", "f4"), ("b", "f4")])


def reference_attribute(file: Any, secret: Path) -> None:
    file[VIDEO].attrs.create("other", file["/"].ref, dtype=h5py.ref_dtype)


def named_datatype(file: Any, secret: Path) -> None:
    file[f"{VIDEO}/other"] = np.dtype("f4")


def too_deep(file: Any, secret: Path) -> None:
    file.create_group("/".join(["d"] * 20))


ATTACKS: list[tuple[Callable[[Any, Path], None], str, str]] = [
    (external_link, f"/{VIDEO}/features", "is an external link"),
    (intermediate_external_link, f"/{VIDEO}", "is an external link"),
    (soft_link, f"/{VIDEO}/other", "is a soft link"),
    (external_storage, f"/{VIDEO}/features", "is stored externally"),
    (virtual_dataset, f"/{VIDEO}/features", "is a virtual dataset"),
    (unallocated_bomb, f"/{VIDEO}/features", r"declares to 4398046511\d+ bytes, but it has"),
    (contiguous_bomb, f"/{VIDEO}/bomb", "brings what the file declares to"),
    (chunk_bomb, f"/{VIDEO}/bomb", "brings what the file declares to"),
    (packed_zeros, f"/{VIDEO}/bomb", "declares 4194304 bytes, but stores .*at most 100 times as many are unpacked"),
    (packed_and_unallocated, f"/{VIDEO}/bomb", "declares 4398046511104 bytes, but stores 0"),
    (packed_in_one_huge_chunk, f"/{VIDEO}/bomb", "declares 1073741824 bytes, but stores 0"),
    (chunk_that_unpacks_to_more, f"/{VIDEO}/bomb", "a chunk does not unpack to the size that is declared"),
    (chunk_that_unpacks_to_less, f"/{VIDEO}/bomb", "a chunk does not unpack to the size that is declared"),
    (chunk_that_does_not_end, f"/{VIDEO}/bomb", "a chunk does not unpack to the size that is declared"),
    (chunk_of_another_checksum, f"/{VIDEO}/bomb", "libhdf5 cannot read"),
    (lzf, f"/{VIDEO}/other", "is packed by the filter `lzf`, number 32000"),
    (scale_and_offset, f"/{VIDEO}/other", "is packed by the filter `scaleoffset`, number 6"),
    (gzip_twice, f"/{VIDEO}/other", "passes the filter gzip twice"),
    (cycle, f"/{VIDEO}/loop", "two names, or holds itself"),
    (two_names, f"/{VIDEO}/features", "two names"),
    (object_reference, f"/{VIDEO}/other", "of a type other than"),
    (variable_length, f"/{VIDEO}/other", "of a type other than"),
    (compound, f"/{VIDEO}/other", "of a type other than"),
    (reference_attribute, f"/{VIDEO}", "of a type other than"),
    (named_datatype, f"/{VIDEO}/other", "neither a group nor a dataset"),
    (too_deep, "/d/d/d", "nested more than 16 groups deep"),
]


def attacked(clean: Path, secret: Path, attack: Callable[[Any, Path], None]) -> Path:
    with h5py.File(clean / "labels.csd", "r+") as file:
        attack(file, secret)
    return clean / "labels.csd"


def test_what_mmsdk_wrote_passes(clean: Path) -> None:
    check_hdf5(clean / "labels.csd")


@pytest.mark.parametrize(
    "packing",
    [
        {"compression": "gzip", "compression_opts": 9},
        {"compression": "gzip", "shuffle": True},
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        {"fletcher32": True},
        {"shuffle": True},
        {"compression": "gzip", "maxshape": (None, None)},
    ],
    ids=str,
)
def test_labels_packed_by_the_filters_of_hdf5_are_read_as_they_were(clean: Path, packing: dict[str, Any]) -> None:
    plain = read_csd(clean / "labels.csd")
    pack(clean / "labels.csd", **packing)
    check_hdf5(clean / "labels.csd")
    assert read_csd(clean / "labels.csd") == plain


def test_many_packed_arrays_unpack_to_a_budget_together(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = clean / "labels.csd"
    with h5py.File(path, "r+") as file:
        for number in range(20):
            file.create_dataset(f"zeros/{number}", data=np.zeros(16_000, dtype="f4"), compression="gzip")
    check_hdf5(path)
    monkeypatch.setattr(hdf5, "MAX_UNPACKED_BYTES", 1 << 20)
    with pytest.raises(IntegrityError, match=r"`/zeros/\d+` is packed: .* at most 1048576 are unpacked"):
        check_hdf5(path)


def test_too_many_packed_chunks_are_refused(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(clean / "labels.csd", "r+") as file:
        file.create_dataset("numbers", data=np.arange(40), chunks=(1,), compression="gzip")
    monkeypatch.setattr(hdf5, "MAX_CHUNKS", 39)
    with pytest.raises(IntegrityError, match="`/numbers` brings the file to more than 39 packed chunks"):
        check_hdf5(clean / "labels.csd")


@pytest.mark.parametrize(("attack", "place", "match"), ATTACKS, ids=lambda each: getattr(each, "__name__", None))
def test_an_attack_is_named_with_its_object(
    clean: Path, secret: Path, attack: Callable[[Any, Path], None], place: str, match: str
) -> None:
    path = attacked(clean, secret, attack)
    with pytest.raises(IntegrityError, match=match) as caught:
        check_hdf5(path)
    assert caught.value.exit_code == 4
    assert caught.value.file == str(path)
    assert place in caught.value.what


@pytest.mark.parametrize("attack", [external_link, intermediate_external_link, external_storage, virtual_dataset])
def test_without_the_guard_the_canary_would_be_read(
    clean: Path, secret: Path, attack: Callable[[Any, Path], None]
) -> None:
    """The attacks are real: h5py alone follows them."""
    path = attacked(clean, secret, attack)
    with h5py.File(path, "r") as file:
        values = file[f"{VIDEO}/features"][...].tobytes()
    assert CANARY[:8] in values


@pytest.mark.parametrize("attack", [external_link, external_storage])
def test_the_command_line_refuses_without_a_canary(
    clean: Path, secret: Path, attack: Callable[[Any, Path], None], tmp_path: Path
) -> None:
    attacked(clean, secret, attack)
    ran = repbench("corpus", "prepare", "mosi", "--root", clean, "--out", tmp_path / "out", "--json")
    assert ran.code == 4
    assert "labels.csd" in ran.out + ran.err
    for text in (ran.out, ran.err):
        assert CANARY.decode() not in text
        assert "secret" not in text
    assert not (tmp_path / "out").exists()


def test_the_layout_refuses_before_mmsdk_opens_the_file(
    clean: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmsdk import mmdatasdk

    def opened(*arguments: object) -> None:
        raise AssertionError("mmsdk opened the file")

    attacked(clean, secret, external_link)
    monkeypatch.setattr(mmdatasdk, "computational_sequence", opened)
    with pytest.raises(IntegrityError, match="external link"):
        MOSI.prepare(clean, PrepareOptions())


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(clean: Path, share: float) -> None:
    path = clean / "labels.csd"
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(IntegrityError, match="broken"):
        check_hdf5(path)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "is empty"),
        (b"<html>404</html>", "an HTML or XML page, where HDF5 is expected"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a git-LFS pointer"),
        (b"plain words", "is not HDF5"),
        (b"\x89HDF\n\x1a\n", "is not HDF5"),
        (b"\x89HDF\r\n\x1a\n", "is broken"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, data: bytes, match: str) -> None:
    path = tmp_path / "labels.csd"
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=match):
        check_hdf5(path)


def test_a_file_behind_a_user_block_is_refused(clean: Path, tmp_path: Path) -> None:
    path = tmp_path / "polyglot.csd"
    path.write_bytes(b"#!".ljust(512, b"\0") + (clean / "labels.csd").read_bytes())
    with h5py.File(path, "r") as file:
        assert list(file) == ["Opinion Segment Labels"]
    with pytest.raises(IntegrityError, match="is not HDF5"):
        check_hdf5(path)


def test_a_missing_file_is_a_fault_of_the_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing"):
        check_hdf5(tmp_path / "labels.csd")


def test_a_sparse_giant_is_refused(clean: Path) -> None:
    path = clean / "labels.csd"
    os.truncate(path, hdf5.MAX_FILE_BYTES + 1)
    with pytest.raises(IntegrityError, match="at most 1073741824 are read"):
        check_hdf5(path)


def test_too_many_links_are_refused(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "MAX_LINKS", 5)
    with pytest.raises(IntegrityError, match="more than 5 links"):
        check_hdf5(clean / "labels.csd")


def test_strings_that_share_one_long_string_are_refused(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = clean / "labels.csd"
    with h5py.File(path, "r+") as file:
        file.create_dataset("words", data=["x" * 1000] * 100, dtype=h5py.string_dtype())
    check_hdf5(path)
    monkeypatch.setattr(hdf5, "MAX_FILE_BYTES", 50 * path.stat().st_size)
    with pytest.raises(IntegrityError, match="`/words` holds 100 strings of unbounded length"):
        check_hdf5(path)


@pytest.mark.parametrize("size", [0xFFFFFFFFFFFFFFF0, 1 << 40], ids=hex)
def test_a_heap_of_strings_that_contradicts_itself_is_refused(clean: Path, size: int) -> None:
    """libhdf5 2.0.0 never returns from the first of these."""
    path = clean / "labels.csd"
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL")
    data[heap + 24 : heap + 32] = size.to_bytes(8, "little")
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=f"heap of strings at byte {heap} contradicts itself"):
        check_hdf5(path)


@pytest.mark.parametrize("packing", [{}, {"compression": "gzip", "shuffle": True, "fletcher32": True}], ids=str)
def test_flipped_bytes_are_refused_or_harmless(clean: Path, tmp_path: Path, packing: dict[str, Any]) -> None:
    """Whatever byte is flipped, the guard either passes the file or says what is wrong with it."""
    pack(clean / "labels.csd", **packing)
    whole = (clean / "labels.csd").read_bytes()
    path = tmp_path / "flipped.csd"
    refused = 0
    for place in np.random.default_rng(0).choice(len(whole), 150, replace=False):
        flipped = bytearray(whole)
        flipped[place] ^= 0xFF
        path.write_bytes(flipped)
        try:
            check_hdf5(path)
        except IntegrityError:
            refused += 1
    assert 0 < refused < 150


def test_without_h5py_the_extra_is_named(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(EnvironmentFault, match=r"pip install 'repbench\[mosi\]'") as caught:
        check_hdf5(clean / "labels.csd")
    assert caught.value.exit_code == 7


def test_a_copy_by_another_name_passes(clean: Path, tmp_path: Path) -> None:
    copy = shutil.copy(clean / "labels.csd", tmp_path / "ünïcode labels.csd")
    check_hdf5(Path(copy))
