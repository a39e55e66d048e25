"""Sounds in the cells of Parquet and Arrow tables, read as the same sounds in files are."""

from __future__ import annotations

import multiprocessing
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from repbench.audio import table_files
from repbench.audio.sound import inspect, measure, read_sound
from repbench.audio.table_files import cell_path, open_table, place_of_cell
from repbench.errors import DataError, EnvironmentFault

FORMS = {
    "pcm16.wav": ("WAV", "PCM_16"), "float.wav": ("WAV", "FLOAT"), "a.flac": ("FLAC", "PCM_16"),
    "a.mp3": ("MP3", "MPEG_LAYER_III"), "a.ogg": ("OGG", "VORBIS"), "a.opus": ("OGG", "OPUS"),
    "a.aiff": ("AIFF", "PCM_16"), "a.au": ("AU", "PCM_16"),
}  # fmt: skip
KINDS = ("parquet", "stream", "file")
AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def save(path: Path, columns: dict[str, Any], kind: str, *, rows: int = 3) -> Path:
    """A table in batches or row groups of `rows`."""
    table = pa.table(columns)
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=rows)
        return path
    new = pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file
    with path.open("wb") as stream, new(stream, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return path


def sounds(folder: Path) -> list[Path]:
    folder.mkdir()
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 4_000)
    for name, (form, subtype) in FORMS.items():
        soundfile.write(folder / name, noise, 16_000, format=form, subtype=subtype)
    # tags in front of the sound, where libsndfile would have to start
    tagged = folder / "tagged.flac"
    tagged.write_bytes(b"ID3\x04\x00\x00\x00\x00\x00\x0a" + bytes(10) + (folder / "a.flac").read_bytes())
    return sorted(folder.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_is_read_as_the_file_is(tmp_path: Path, kind: str) -> None:
    files = sounds(tmp_path / "sounds")
    cells = pa.array([{"bytes": file.read_bytes(), "path": file.name} for file in files], AUDIO)
    table = save(tmp_path / "t.table", {"audio": cells, "plain": [file.read_bytes() for file in files]}, kind)
    for row, file in enumerate(files):
        for column in ("audio", "plain"):
            path = cell_path(table, column, row)
            assert measure(path) == measure(file), file.name
            assert inspect(path) == inspect(file)
            part, rate = read_sound(path, start=0.05, end=0.1)
            expected, _ = read_sound(file, start=0.05, end=0.1)
            assert rate == 16_000
            np.testing.assert_array_equal(part, expected)


def noise_table(folder: Path, kind: str, num: int = 7) -> Path:
    files = []
    for seed in range(num):
        files.append(folder / f"{seed}.wav")
        soundfile.write(files[-1], np.random.default_rng(seed).uniform(-0.5, 0.5, 1_000 + seed), 16_000)
    cells = pa.array([{"bytes": file.read_bytes(), "path": None} for file in files], AUDIO)
    return save(folder / f"t.{kind}", {"audio": cells}, kind)


def _length(path: Path) -> int:
    return measure(path).num_samples


@pytest.mark.parametrize("kind", ["parquet", "stream"])
@pytest.mark.parametrize("start", ["fork", "forkserver"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_worker_processes_read_cells(tmp_path: Path, kind: str, start: str) -> None:
    """Also those that fork while a table is open here."""
    table = noise_table(tmp_path, kind)
    paths = [cell_path(table, "audio", row) for row in (6, 0, 3, 5, 1)]
    assert measure(paths[0]).num_samples == 1_006
    held, forked = threading.Event(), threading.Event()

    def hold() -> None:
        with table_files._opened.lock:
            held.set()
            forked.wait(60)

    # another thread, as one that prepares a corpus: a fork would copy its lock and not the thread
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    try:
        with multiprocessing.get_context(start).Pool(2) as pool:
            assert pool.map_async(_length, paths).get(timeout=60) == [1_006, 1_000, 1_003, 1_005, 1_001]
    finally:
        forked.set()
        thread.join()


@pytest.mark.parametrize("kind", KINDS)
def test_a_place_that_is_no_cell_names_table_and_row(tmp_path: Path, kind: str) -> None:
    table = save(
        tmp_path / "t.table",
        {"audio": pa.array([{"bytes": b"", "path": "a"}, None, {"bytes": None, "path": "b"}], AUDIO), "n": [1, 2, 3]},
        kind,
    )
    for row in range(3):
        with pytest.raises(DataError, match=rf"The cell of `audio` holds no sound.*t.table: row {row}"):
            measure(cell_path(table, "audio", row))
    with pytest.raises(DataError, match=r"has 3 rows, but row 3 is read.*t.table: row 3"):
        measure(cell_path(table, "audio", 3))
    with pytest.raises(DataError, match=r"no column `sound` \(it has audio, n\)"):
        measure(cell_path(table, "sound", 0))
    with pytest.raises(DataError, match="a part of its path is a file"):
        measure(table / "audio" / "first")


def test_a_broken_sound_names_its_cell(tmp_path: Path) -> None:
    table = save(tmp_path / "t.parquet", {"audio": pa.array([{"bytes": b"RIFFxx", "path": "a"}], AUDIO)}, "parquet")
    with pytest.raises(DataError, match=r"ends inside its header.*t.parquet/audio/0"):
        measure(cell_path(table, "audio", 0))
    table = save(tmp_path / "u.parquet", {"audio": pa.array([{"bytes": b"ajkg....", "path": "a"}], AUDIO)}, "parquet")
    with pytest.raises(
        DataError, match=r"a Shorten file.*u.parquet/audio/0.*Write the sound of this row as WAV or FLAC"
    ):
        measure(cell_path(table, "audio", 0))


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_that_is_cut_short_is_refused(tmp_path: Path, kind: str) -> None:
    table = noise_table(tmp_path, kind)
    content = table.read_bytes()
    for size in (len(content) - 8, len(content) // 2, 9):
        table.write_bytes(content[:size])
        with pytest.raises(DataError, match=r"The table is broken|cut short"):
            open_table(table)
    table.write_bytes(b"neither")
    with pytest.raises(DataError, match="neither a Parquet nor an Arrow table"):
        open_table(table)
    table.unlink()
    with pytest.raises(DataError, match="The table is missing"):
        open_table(table)


def test_a_stream_that_ends_between_batches_is_refused(tmp_path: Path) -> None:
    """Arrow itself reads what is left as a whole table."""
    table = noise_table(tmp_path, "stream")
    content = table.read_bytes()
    assert content.endswith(b"\xff\xff\xff\xff\0\0\0\0")
    table.write_bytes(content[:-8])
    assert pa.ipc.open_stream(table.read_bytes()).read_all().num_rows == 7
    with pytest.raises(DataError, match="it has no mark of its end"):
        open_table(table)


def test_a_table_that_changes_is_read_anew(tmp_path: Path) -> None:
    table = noise_table(tmp_path, "parquet", num=2)
    path = cell_path(table, "audio", 1)
    assert measure(path).num_samples == 1_001
    other = tmp_path / "other"
    other.mkdir()
    noise_table(other, "parquet", num=5).replace(table)
    assert measure(cell_path(table, "audio", 4)).num_samples == 1_004


def test_row_groups_stay_in_memory_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = noise_table(tmp_path, "parquet")
    num_read = 0
    original = table_files._ParquetTable._read

    def counted(self: Any, number: int, column: str) -> Any:
        nonlocal num_read
        num_read += 1
        return original(self, number, column)

    monkeypatch.setattr(table_files._ParquetTable, "_read", counted)
    for row in range(7):
        measure(cell_path(table, "audio", row))
    assert num_read == 3  # row groups
    monkeypatch.setattr(table_files, "CACHE_BYTES", 1)
    table_files._forget()
    for row in (0, 3, 4, 0):
        measure(cell_path(table, "audio", row))
    assert num_read == 3 + 3  # one at a time


def test_a_row_group_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = noise_table(tmp_path, "parquet")
    monkeypatch.setattr(table_files, "MAX_UNPACKED_BYTES", 4_000)
    with pytest.raises(DataError, match=r"`audio` of row group 0 unpacks to \d+ bytes, but at most 4000 are read"):
        measure(cell_path(table, "audio", 0))


def test_equal_cells_are_one_in_memory(tmp_path: Path) -> None:
    """A few kilobytes must not unpack to gigabytes."""
    one = bytes(1 << 18)
    cells = pa.array([{"bytes": one, "path": "same"}] * 100, AUDIO)
    path = tmp_path / "bomb.parquet"
    pq.write_table(pa.table({"audio": cells, "text": [one.decode()] * 100}), path, compression="zstd")
    assert path.stat().st_size < 100_000
    table = open_table(path)
    group = table._group(0, "audio")  # type: ignore[attr-defined]
    assert group.nbytes < 4 << 20
    values = table.values("text")
    assert len(values) == 100
    assert len({id(value) for value in values}) == 1


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = noise_table(tmp_path, "parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(EnvironmentFault, match=r"pip install 'repbench\[arrow\]'"):
        measure(cell_path(table, "audio", 0))


def test_only_a_number_below_a_file_is_a_cell(tmp_path: Path) -> None:
    table = tmp_path / "t.parquet"
    table.write_bytes(b"")
    assert place_of_cell(table / "a/b" / "12") == (table, "a/b", 12)
    assert place_of_cell(table / "12") is None
    assert place_of_cell(table / "a" / "-1") is None
    assert place_of_cell(tmp_path / "none.parquet" / "a" / "1") is None
    assert place_of_cell(table) is None
