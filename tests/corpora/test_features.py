"""Precomputed frames as a column of a corpus."""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from repbench.audio.feature_files import measure_features, read_features, refuse_other_duration
from repbench.corpora import manifest
from repbench.corpora.audit.check import check
from repbench.corpora.contract import Corpus, DraftFeatures, PrepareOptions
from repbench.corpora.layouts.csv_table import CSV
from repbench.errors import DataError, IntegrityError, RepbenchError, UsageError
from tests.commands import repbench
from tests.corpora.sounds import write_noise

HOP_SECONDS = 0.01
FRAMES = np.random.default_rng(0).standard_normal((51, 4))


def table_of(root: Path, names: str = "ab", ending: str = "npy") -> Path:
    """Half-second sounds with padded frames every 10 ms, and the table that names both."""
    for seed, name in enumerate(names):
        write_noise(root / f"{name}.wav", seed=seed)
        if ending == "npy":
            np.save(root / f"{name}.npy", (FRAMES + seed).astype(np.float32))
        else:
            save_file({"features": (FRAMES + seed).astype(np.float32)}, root / f"{name}.safetensors")
    rows = "".join(f"{name}.wav,{name}.{ending},s{name}\n" for name in names)
    (root / "table.csv").write_text("path,features,speaker\n" + rows)
    return root


def prepared(root: Path, hop_seconds: float = HOP_SECONDS, first_center_seconds: float = 0.0) -> Corpus:
    declared = DraftFeatures(name="fmllr", hop_seconds=hop_seconds, first_center_seconds=first_center_seconds)
    return manifest.write(CSV.prepare(root, PrepareOptions(features=declared)), root)


@pytest.mark.parametrize("ending", ["npy", "safetensors"])
def test_what_is_declared_and_measured_is_written_and_read(tmp_path: Path, ending: str) -> None:
    corpus = prepared(table_of(tmp_path, ending=ending))
    assert manifest.read(tmp_path) == corpus
    assert corpus.features is not None
    assert (corpus.features.name, corpus.features.width, corpus.features.format) == ("fmllr", 4, ending)
    assert (corpus.features.hop_seconds, corpus.features.first_center_seconds) == (0.01, 0.0)
    a = corpus.utterances[0]
    assert a.features == tmp_path / f"a.{ending}"
    assert a.features_sha256 == hashlib.sha256(a.features.read_bytes()).hexdigest()
    assert check(corpus).problems == ()
    assert check(corpus).coverage["features"] == {"all": 2, "none": 2}


def test_frames_and_declaration_are_part_of_the_fingerprint_and_places_are_not(tmp_path: Path) -> None:
    first = prepared(table_of(tmp_path / "one"))
    assert prepared(table_of(tmp_path / "two")).fingerprint == first.fingerprint
    changed = table_of(tmp_path / "three")
    np.save(changed / "a.npy", (FRAMES * 2).astype(np.float32))
    assert prepared(changed).fingerprint != first.fingerprint
    assert prepared(table_of(tmp_path / "four"), first_center_seconds=0.002).fingerprint != first.fingerprint


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_float_of_an_npy_is_read_as_float32(tmp_path: Path, dtype: str, order: Any) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.array(FRAMES, dtype=dtype, order=order))
    frames = read_features(path)
    assert (frames.dtype.name, frames.shape, frames.flags.c_contiguous) == ("float32", (51, 4), True)
    assert frames.flags.writeable
    np.testing.assert_array_equal(frames, FRAMES.astype(dtype).astype(np.float32))


def test_an_npy_header_of_python_2_is_read_without_a_warning(tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(npy_header("(51L, 4L)", "<f8") + FRAMES.tobytes())
    np.testing.assert_array_equal(read_features(tmp_path / "x.npy"), FRAMES.astype(np.float32))


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_npy_is_read_in_any_order_of_its_keys(tmp_path: Path, version: tuple[int, int]) -> None:
    header = b'{"shape": (51, 4), "fortran_order": False, "descr": "<f8"}'
    length = struct.pack("<H" if version == (1, 0) else "<I", len(header))
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY" + bytes(version) + length + header + FRAMES.tobytes())
    np.testing.assert_array_equal(read_features(tmp_path / "x.npy"), FRAMES.astype(np.float32))


@pytest.mark.parametrize("shape", ["(0, 1180591620717411303424)", "(0, 4)", f"({'1,' * 100})", "(0,)"])
def test_a_shape_that_numpy_cannot_hold_is_refused(tmp_path: Path, shape: str) -> None:
    num_values = 0 if "0" in shape else 1
    (tmp_path / "x.npy").write_bytes(npy_header(shape) + b"\0" * 4 * num_values)
    with pytest.raises(RepbenchError, match=r"the shape .*\(.*x\.npy"):
        read_features(tmp_path / "x.npy")


def test_an_empty_tensor_that_claims_long_axes_is_refused(tmp_path: Path) -> None:
    header = b'{"features": {"dtype": "F32", "shape": [0, 4611686018427387904], "data_offsets": [0, 0]}}'
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(DataError, match=r"must have the shape .* but have \(0, 4611686018427387904\)"):
        read_features(tmp_path / "x.safetensors")


def test_one_tensor_or_the_one_called_features_is_read(tmp_path: Path) -> None:
    frames = FRAMES.astype(np.float32)
    path = tmp_path / "x.safetensors"
    save_file({"hidden_states": frames[None]}, path)
    np.testing.assert_array_equal(read_features(path), frames)
    save_file({"other": np.zeros(3, dtype=np.float32), "features": frames}, path)
    np.testing.assert_array_equal(read_features(path), frames)
    save_file({"one": frames, "two": frames}, path)
    with pytest.raises(DataError, match="one tensor, or one called `features`, but holds 2"):
        read_features(path)


def npy_header(shape: str, descr: str = "<f4") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (118 - len(text) - 1) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


class Bomb:
    """An object whose unpickling would leave a file behind."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.canary),)


BROKEN: dict[str, tuple[bytes, str]] = {
    "80 TB": (
        npy_header("(20000000000, 1000)") + b"\0" * 64,
        "holds 64 bytes of features, but its header declares 80000000",
    ),
    "overflow": (npy_header(f"({2**62}, 4)"), "holds 0 bytes of features"),
    "negative": (npy_header("(-1, -4)") + b"\0" * 16, "declares the shape"),
    "truncated": (npy_header("(51, 4)") + b"\0" * 800, "holds 800 bytes of features, but its header declares 816"),
    "more than said": (npy_header("(51, 4)") + b"\0" * 820, "holds 820 bytes of features"),
    "cut header": (npy_header("(51, 4)")[:40], "header of the .npy file cannot be read"),
    "does not end": (npy_header("(51L, 4"), "cannot be read: it is no literal of Python"),
    "text that does not end": (npy_header("'''(51L, 4)"), "cannot be read: it is no literal of Python"),
    "deep": (npy_header("(" * 5000), "cannot be read: it is no literal of Python"),
    "beyond its file": (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}", "cannot be read: it should end at byte 4294967307"),
    "unknown version": (b"\x93NUMPY\x09\x00\x02\x00{}", "cannot be read: its version is unknown"),
    "no keys": (b"\x93NUMPY\x01\x00\x02\x00{}", "must give descr, fortran_order, shape"),
    "backslash": (npy_header("(51, '\\d')"), "cannot be read: it has a backslash"),
    "longer than an address": (npy_header(f"({'9' * 4000}, {'9' * 4000})"), "declares the shape"),
    "expression": (npy_header("__import__('os').getcwd()"), "header of the .npy file cannot be read"),
    "empty": (b"", "not an .npy file"),
    "html": (b"<!DOCTYPE html>", "not an .npy file"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_fault_45_an_npy_that_lies_is_refused(tmp_path: Path, fault: str) -> None:
    content, message = BROKEN[fault]
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(IntegrityError, match=message):
        read_features(tmp_path / "x.npy", utterance="u")


def test_fault_45_an_array_of_objects_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    objects = np.array([[Bomb(tmp_path / "canary")]], dtype=object)
    np.save(tmp_path / "x.npy", objects, allow_pickle=True)
    with pytest.raises(IntegrityError, match="Python objects, which need code to load"):
        read_features(tmp_path / "x.npy")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("cut", [0, 4, 8, 60, -1])
def test_fault_45_a_truncated_safetensors_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"features": FRAMES.astype(np.float32)}, path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(IntegrityError, match="cannot be read"):
        read_features(path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 4), dtype=np.int32), "must be float16, float32 or float64, but are int32"),
        (np.zeros(4), r"must have the shape \(F, D\).*but have \(4,\)"),
        (np.zeros((0, 4)), "must have the shape"),
        (np.zeros((2, 3, 4)), "must have the shape"),
        (np.array([[1.0, np.nan]]), "1 of 2 feature values are NaN"),
        (np.array([[1.0, np.inf]]), "1 of 2 feature values are NaN, infinite"),
        (np.array([[1.0, 1e300]]), "too large for float32"),
    ],
)
def test_an_array_that_is_no_frames_is_refused(tmp_path: Path, array: Any, message: str) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match=f"{message}.*utterance u"):
        measure_features(tmp_path / "x.npy", utterance="u")


def test_a_missing_or_foreign_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="file of features is missing"):
        read_features(tmp_path / "x.npy")
    with pytest.raises(DataError, match=r"must lie in a \.npy or \.safetensors file"):
        read_features(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("num_samples", "num_frames", "hop", "first_center"),
    [(n, n // 160 + 1, 160, 0) for n in (400, 16_000, 16_001, 47_999)]
    + [(n, (n - 400) // 160 + 1, 160, 200) for n in (400, 16_000, 16_001, 47_999)]
    + [(n, (n + 80) // 160, 160, 80) for n in (400, 16_000, 16_001, 47_999)]
    + [(n, (n - 400) // 320 + 1, 320, 200) for n in (400, 16_000, 16_001, 47_999)],
)
def test_the_frames_of_known_front_ends_fit_their_sound(
    num_samples: int, num_frames: int, hop: int, first_center: int
) -> None:
    for wrong in (-2, 2):
        with pytest.raises(
            DataError, match=rf"{num_frames + wrong} frames .* sound lasts {num_samples / 16_000:.3f} s"
        ):
            refuse_other_duration(
                num_frames + wrong, num_samples / 16_000, hop_s=hop / 16_000, first_center_s=first_center / 16_000,
                path=Path("x"),
            )  # fmt: skip
    refuse_other_duration(
        num_frames, num_samples / 16_000, hop_s=hop / 16_000, first_center_s=first_center / 16_000, path=Path("x")
    )


@pytest.mark.parametrize("hop_seconds", [0.0125, 0.02, 0.005])
def test_fault_21_frames_of_another_hop_are_refused_with_both_lengths(tmp_path: Path, hop_seconds: float) -> None:
    with pytest.raises(DataError, match=r"51 frames every .* the sound lasts 0\.500 s.*a\.npy, utterance a"):
        prepared(table_of(tmp_path), hop_seconds)


@pytest.mark.parametrize(("hop_seconds", "named"), [(0.0, "above 0"), (10.1, "in seconds"), (float("nan"), "above 0")])
def test_a_hop_that_cannot_be_seconds_is_refused(tmp_path: Path, hop_seconds: float, named: str) -> None:
    with pytest.raises(DataError, match=named):
        prepared(table_of(tmp_path), hop_seconds)


def test_features_of_two_widths_or_formats_are_refused(tmp_path: Path) -> None:
    np.save(table_of(tmp_path) / "b.npy", np.zeros((51, 5)))
    with pytest.raises(DataError, match=r"width 5, but the corpus's have 4.*utterance b"):
        prepared(tmp_path)
    save_file({"x": FRAMES}, tmp_path / "b.safetensors")
    (tmp_path / "table.csv").write_text("path,features\na.wav,a.npy\nb.wav,b.safetensors\n")
    with pytest.raises(DataError, match=r"two formats, npy and safetensors.*utterance b"):
        prepared(tmp_path)


def test_a_column_needs_a_hop_and_a_hop_a_column(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="column `features`, but their hop is not declared"):
        CSV.prepare(table_of(tmp_path), PrepareOptions())
    (tmp_path / "table.csv").write_text("path\na.wav\n")
    with pytest.raises(UsageError, match="no column `features`"):
        prepared(tmp_path)


@pytest.mark.parametrize("place", ["../x.npy", "/etc/x.npy", "http://x/x.npy"])
def test_fault_42_features_stay_under_the_root(tmp_path: Path, place: str) -> None:
    (table_of(tmp_path) / "table.csv").write_text(f"path,features\na.wav,{place}\n")
    with pytest.raises(DataError, match="The place"):
        prepared(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"hop_seconds": 0.01', '"hop_seconds": 0', "`hop_seconds` must be above 0"),
        ('"hop_seconds": 0.01', '"hop_seconds": "x"', "`hop_seconds` has the wrong type"),
        ('"width": 4', '"width": true', "`width` has the wrong type"),
        ('"width": 4', '"wide": 4', "unknown key `wide`"),
        ('"format": "npy"', '"format": "pickle"', "`format` must be npy or safetensors"),
    ],
)
def test_a_broken_declaration_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    prepared(table_of(tmp_path))
    path = tmp_path / "corpus.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(DataError, match=message):
        manifest.read(tmp_path)


def test_from_the_command_line_to_a_named_fault(tmp_path: Path) -> None:
    root = table_of(tmp_path)
    options = ("--root", root, "--out", root, "--features-name", "fmllr")
    refused = repbench("corpus", "prepare", "csv", *options)
    assert (refused.code, "--features-hop" in refused.err) == (2, True)
    assert repbench("corpus", "prepare", "csv", *options, "--features-hop", "0.01").code == 0
    assert repbench("corpus", "check", root).code == 0
    np.save(root / "a.npy", (FRAMES * 2).astype(np.float32))
    finished = repbench("corpus", "check", root)
    assert finished.code == 4
    assert "The features are not those that the manifest was made of" in finished.err
    (root / "a.npy").unlink()
    finished = repbench("corpus", "check", root)
    assert (finished.code, "file of features is missing" in finished.err) == (3, True)


def test_other_bytes_than_the_manifest_says_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", FRAMES)
    with pytest.raises(RepbenchError, match="but the manifest has 0000") as caught:
        read_features(tmp_path / "x.npy", sha256="0" * 64)
    assert caught.value.exit_code == 4
