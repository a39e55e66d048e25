"""Making the index of a manifest: each line is parsed and checked as without an index, and then kept as columns.

The memory that this takes does not depend on the phones, which go to the file at once, in the order of the lines.
"""

from __future__ import annotations

import hashlib
import json
import struct
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from repbench.corpora.contract import Phone, Utterance
from repbench.corpora.manifest.fingerprint import portable_bytes
from repbench.corpora.manifest.index_file import IndexWriter
from repbench.corpora.manifest.indexed import CODED_COLUMNS, PHONE_BYTES, SPLITS
from repbench.corpora.manifest.lines import ManifestLine

_NUMBERS = {"sample_rate_hz": "q", "num_samples": "q", "start": "d", "end": "d", "channel": "i", "split": "b"}
_TYPES = {"q": "<i8", "d": "<f8", "i": "<i4", "b": "i1"}
_NONE = float("nan")


class IndexBuilder:
    """Takes the lines of a manifest one by one and writes their columns.

    Args:
        writer: Of a new file.
        fingerprint: The digest of a fingerprint before the first utterance.

    Attributes:
        ids: In the order of the lines.
        numbers: Of the lines, from 1 on.
    """

    def __init__(self, writer: IndexWriter, fingerprint: Any) -> None:
        self.ids: list[str] = []
        self.numbers = array("q")
        self._writer = writer
        self._fingerprint = fingerprint
        self._is_sorted = True
        self._texts = {name: _TextColumn() for name in ("audio", "text", "features", "turns")}
        self._numbers = {name: array(kind) for name, kind in _NUMBERS.items()}
        self._codes = {name: _CodeColumn() for name in CODED_COLUMNS}
        self._hashes = {"samples_sha256": bytearray(), "features_sha256": bytearray()}
        self._text_known = bytearray()
        self._phones_at, self._num_phones, self._num_phone_bytes = array("q"), array("i"), 0
        self._labels: dict[str, int] = {}

    def add(self, number: int, line: ManifestLine) -> None:
        """Take the line of a number.

        Raises:
            OverflowError: A number does not fit into 64 bits.
        """
        utterance = line.utterance
        if self.ids and utterance.id <= self.ids[-1]:
            self._is_sorted = False
        if self._is_sorted:
            self._fingerprint.update(portable_bytes(utterance))
        self.ids.append(utterance.id)
        self.numbers.append(number)
        self._texts["audio"].append(line.place)
        self._texts["features"].append(line.features_place or "")
        self._texts["text"].append(utterance.text or "")
        # "" where they are not known, which no JSON is
        self._texts["turns"].append("" if utterance.turns is None else json.dumps(utterance.turns))
        self._text_known.append(utterance.text is not None)
        numbers: dict[str, Any] = {
            "sample_rate_hz": utterance.sample_rate_hz,
            "num_samples": utterance.num_samples,
            "start": _NONE if utterance.start is None else utterance.start,
            "end": _NONE if utterance.end is None else utterance.end,
            "channel": -1 if utterance.channel == "mix" else utterance.channel or 0,
            "split": SPLITS.index(utterance.split),
        }
        for name, value in numbers.items():
            self._numbers[name].append(value)
        attributes = json.dumps(utterance.attributes) if utterance.attributes else None
        for name, text in (("speaker", utterance.speaker), ("group", utterance.group), ("attributes", attributes)):
            self._codes[name].append(text)
        self._hashes["samples_sha256"] += bytes.fromhex(utterance.samples_sha256)
        self._hashes["features_sha256"] += bytes.fromhex(utterance.features_sha256 or "00" * 32)
        self._add_phones(utterance)

    def write(self) -> str | None:
        """Write all columns, sorted by id; those that no utterance has are left out.

        Returns:
            The fingerprint; None if the lines are not in the order of their ids, so that it has yet to be computed.
        """
        order = np.arange(len(self.ids)) if self._is_sorted else np.array(sorted_rows(self.ids), dtype=np.int64)
        self._writer.close_section("phones", "u1")
        self._write_texts("id", _TextColumn(self.ids), order)
        self._write_texts("audio", self._texts["audio"], order)
        for name in ("text", "features", "turns"):
            if self._texts[name].content or (name == "text" and any(self._text_known)):
                self._write_texts(name, self._texts[name], order)
        if any(self._text_known):
            self._writer.add("text.known", np.frombuffer(self._text_known, dtype="u1")[order], "u1")
        for name, values in self._numbers.items():
            column = np.frombuffer(values, dtype=_TYPES[values.typecode])[order]
            empty = np.isnan(column) if values.typecode == "d" else column == 0
            if not empty.all():
                self._writer.add(name, column, _TYPES[values.typecode])
        for name, codes in self._codes.items():
            if codes.names:
                self._writer.add(name, np.frombuffer(codes.codes, dtype="<i4")[order], "<i4")
                self._write_texts(f"{name}.names", _TextColumn(codes.names), np.arange(len(codes.names)))
        for name, hashes in self._hashes.items():
            if name != "features_sha256" or self._texts["features"].content:
                self._writer.add(name, np.frombuffer(hashes, dtype="u1").reshape(-1, 32)[order].tobytes(), "u1")
        if max(self._num_phones) >= 0:
            self._writer.add("phones.at", np.frombuffer(self._phones_at, dtype="<i8")[order], "<i8")
            self._writer.add("phones.count", np.frombuffer(self._num_phones, dtype="<i4")[order], "<i4")
            self._write_texts("phones.labels", _TextColumn(self._labels), np.arange(len(self._labels)))
        numbers = np.frombuffer(self.numbers, dtype="<i8")[order]
        if (numbers != np.arange(1, len(order) + 1)).any():
            self._writer.add("line", numbers, "<i8")
        return self._fingerprint.hexdigest() if self._is_sorted else None

    def _add_phones(self, utterance: Utterance) -> None:
        phones = utterance.phones
        self._phones_at.append(self._num_phone_bytes)
        self._num_phones.append(-1 if phones is None else len(phones))
        if phones:
            content = _phone_bytes(phones, self._labels)
            self._num_phone_bytes += len(content)
            self._writer.append(content)

    def _write_texts(self, name: str, column: _TextColumn, order: NDArray[np.int64]) -> None:
        content, bounds = column.sorted_as(order)
        self._writer.add(f"{name}.bytes", content, "u1")
        self._writer.add(f"{name}.bounds", bounds, "<i8")


class _TextColumn:
    """Texts that come one after the other."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self.content = bytearray()
        self._bounds = array("q", [0])
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        self.content += text.encode("utf-8")
        self._bounds.append(len(self.content))

    def sorted_as(self, order: NDArray[np.int64]) -> tuple[bytes, NDArray[np.int64]]:
        """The bytes and bounds of the texts in another order."""
        bounds = np.frombuffer(self._bounds, dtype="<i8")
        if (order == np.arange(len(order))).all():
            return bytes(self.content), bounds
        content = b"".join([self.content[bounds[row] : bounds[row + 1]] for row in order])
        return content, np.concatenate([[0], np.cumsum(np.diff(bounds)[order])])


class _CodeColumn:
    """Values that stand many times: a number for each row, -1 for none."""

    def __init__(self) -> None:
        self.codes = array("i")
        self.names: dict[str, int] = {}

    def append(self, value: str | None) -> None:
        self.codes.append(-1 if value is None else self.names.setdefault(value, len(self.names)))


def sorted_rows(ids: Sequence[str]) -> list[int]:
    """The numbers of the ids in their order."""
    return sorted(range(len(ids)), key=ids.__getitem__)


def _phone_bytes(phones: tuple[Phone, ...], labels: dict[str, int]) -> bytes:
    """All starts, all ends and all labels of an alignment; new labels are added to `labels`."""
    count = len(phones)
    starts, ends, names = zip(*phones, strict=True)
    codes = [labels.setdefault(name, len(labels)) for name in names]
    content = struct.pack(f"<{count}d{count}d{count}I", *starts, *ends, *codes)
    assert len(content) == PHONE_BYTES * count
    return content


def repeated_hashes(hashes: bytes) -> NDArray[np.int64]:
    """The rows (M,) of the SHA-256 hashes (N × 32 bytes) whose first eight bytes stand in another row too."""
    heads = np.frombuffer(hashes, dtype="<u8").reshape(-1, 4)[:, 0]
    _, places, counts = np.unique(heads, return_inverse=True, return_counts=True)
    rows: NDArray[np.int64] = np.flatnonzero(counts[places] > 1)
    return rows


def hashes_digest(hashes: bytes) -> str:
    """SHA-256 of the SHA-256 hashes (N × 32 bytes) as `fingerprint.samples_digest` computes it."""
    digest = hashlib.sha256()
    step = 32 << 15
    for start in range(0, len(hashes), step):
        digest.update((b"\n" if start else b"") + hashes[start : start + step].hex("\n", 32).encode("ascii"))
    return digest.hexdigest()
