"""Utterances that are read from the index of a manifest, field by field, when a field is asked for.

An `IndexedUtterance` is an `Utterance` in all that can be seen of it: equal to one of the same fields, replaced, copied
and pickled as one. It takes 0.2 kB; the 30 phones of a plain one alone take 5.
"""

from __future__ import annotations

import json
import struct
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from itertools import repeat
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from repbench.corpora.contract import Phone, Turn, Utterance
from repbench.corpora.manifest.index_file import DamagedIndexError, IndexFile

SPLITS = (None, "train", "dev", "test")
"""The split that each number of the column stands for."""

PHONE_BYTES = 20
"""Of a phone: its start and end as float64, its label as a number of 4 bytes."""

CODED_COLUMNS = ("speaker", "group", "attributes")
"""The columns in which values stand many times."""

_Read = TypeVar("_Read")


class Texts:
    """N texts, as their UTF-8 bytes one after the other.

    Args:
        content: All bytes.
        bounds: (N + 1,) where each text begins, and the end of the last.

    Raises:
        DamagedIndexError: The bounds do not fit the bytes.
    """

    def __init__(self, content: bytes, bounds: NDArray[np.int64]) -> None:
        in_order = len(bounds) > 0 and bounds[0] == 0 and bounds[-1] == len(content) and (np.diff(bounds) >= 0).all()
        if not in_order:
            raise DamagedIndexError("texts and bounds do not fit")
        self.content = content
        self._bounds = bounds

    def __getitem__(self, row: int) -> str:
        return self.content[self._bounds.item(row) : self._bounds.item(row + 1)].decode("utf-8")

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def is_empty(self) -> NDArray[np.bool_]:
        """(N,) whether a text is empty."""
        empty: NDArray[np.bool_] = np.diff(self._bounds) == 0
        return empty

    def starting_with(self, byte: int) -> NDArray[np.bool_]:
        """(N,) whether a text begins with a byte."""
        padded = np.frombuffer(self.content + b"\n", dtype="u1")
        starting: NDArray[np.bool_] = (padded[self._bounds[:-1]] == byte) & ~self.is_empty()
        return starting


class Columns:
    """The fields of all N utterances of a manifest, sorted by id.

    Args:
        file: The index.
        prefix: The root folder of the sounds, with a `/` at the end.
        again: Makes the index again, should a section turn out to be damaged that is read later.

    Attributes:
        scales: Of every utterance (`Utterance.scales`).
        file: The index.
        ids: (N,)
        places: (N,) paths of the sounds, relative to the root.
        features: (N,) paths of the features, empty where there are none; None if no utterance has any.
        hashes: N × 32 bytes, SHA-256 of the samples.

    Raises:
        DamagedIndexError: A section is damaged, or the sections do not fit together.
    """

    def __init__(self, file: IndexFile, prefix: str, again: Callable[[], IndexFile] | None = None) -> None:
        self.scales: Mapping[str, float] = {}
        self.file = file
        self._prefix = prefix
        self._again = again
        self._lock = threading.Lock()
        self.ids = _texts(file, "id")
        count = len(self.ids)
        self.places = _rows(_texts(file, "audio"), count)
        self.features = _rows(_texts(file, "features"), count) if "features.bytes" in file else None
        self.rates, self.num_samples = _numbers(file, "sample_rate_hz", count), _numbers(file, "num_samples", count)
        if self.rates is None or self.num_samples is None:
            raise DamagedIndexError("it has no lengths")
        self.hashes = _rows(file.array("samples_sha256", "u1").tobytes(), 32 * count)
        of_features = file.array("features_sha256", "u1").tobytes() if self.features is not None else b""
        self._features_hashes = _rows(of_features, 32 * count) if of_features else b""
        self._starts, self._ends = _numbers(file, "start", count), _numbers(file, "end", count)
        self._channels = _numbers(file, "channel", count)
        self._splits = _codes(_numbers(file, "split", count), len(SPLITS))
        self._lines = _numbers(file, "line", count)
        self._names = {name: _Names(file, name, count) for name in CODED_COLUMNS}
        self._attributes = [json.loads(text) for text in self._names["attributes"].names]
        self._phones_at, self._num_phones = _numbers(file, "phones.at", count), _numbers(file, "phones.count", count)
        self._refuse_phones_outside()
        self._labels = [sys.intern(label) for label in _texts_of(file, "phones.labels")]
        self._texts: tuple[Texts, NDArray[Any]] | None = None
        self._turns = _rows(_texts(file, "turns"), count) if "turns.bytes" in file else None
        self._phones_offset: int | None = None
        self._last_phones: tuple[int, tuple[Phone, ...]] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def utterances(self) -> tuple[Utterance, ...]:
        """All N."""
        return self.utterances_at(range(len(self)))

    def utterances_at(self, rows: Iterable[int]) -> tuple[Utterance, ...]:
        """Those of some rows."""
        return tuple(IndexedUtterance.of(self, row) for row in rows)

    def line(self, row: int) -> int:
        """The line of the manifest, from 1 on."""
        return row + 1 if self._lines is None else self._lines.item(row)

    @property
    def phone_labels(self) -> tuple[str, ...]:
        """Every label that a phone has."""
        return tuple(self._labels)

    @property
    def speakers(self) -> tuple[str, ...]:
        """Every speaker."""
        return tuple(self._names["speaker"].names)

    # fields of `Utterance`

    def sample_rate_hz(self, row: int) -> int:
        """The field of that name, as are those below."""
        rate: int = self.rates.item(row)
        return rate

    def audio(self, row: int) -> Path:
        return Path(self._prefix + self.places[row])

    def start(self, row: int) -> float | None:
        return _known(self._starts, row)

    def end(self, row: int) -> float | None:
        return _known(self._ends, row)

    def text(self, row: int) -> str | None:
        if self._texts is None:
            self._texts = self._read(_all_texts)
        texts, is_known = self._texts
        return texts[row] if len(is_known) and is_known.item(row) else None

    def phones(self, row: int) -> tuple[Phone, ...] | None:
        if self._num_phones is None or self._num_phones.item(row) < 0:
            return None
        last = self._last_phones  # labels, classes and targets of an utterance are asked for one after the other
        if last is None or last[0] != row:
            self._last_phones = last = (row, self._read_phones(row))
        return last[1]

    def attributes(self, row: int) -> dict[str, Any]:
        code = self._names["attributes"].codes
        return {} if code is None or code.item(row) < 0 else dict(self._attributes[code.item(row)])

    def split(self, row: int) -> str | None:
        return None if self._splits is None else SPLITS[self._splits.item(row)]

    def speaker(self, row: int) -> str | None:
        return self._names["speaker"][row]

    def group(self, row: int) -> str | None:
        return self._names["group"][row]

    def samples_sha256(self, row: int) -> str:
        return self.hashes[32 * row : 32 * row + 32].hex()

    def features_path(self, row: int) -> Path | None:
        place = self.feature_place(row)
        return None if place is None else Path(self._prefix + place)

    def feature_place(self, row: int) -> str | None:
        """The place of the features, relative to the root."""
        return None if self.features is None else self.features[row] or None

    def features_sha256(self, row: int) -> str | None:
        return None if self.feature_place(row) is None else self._features_hashes[32 * row : 32 * row + 32].hex()

    def channel(self, row: int) -> Any:
        code = 0 if self._channels is None else self._channels.item(row)
        return "mix" if code < 0 else code or None

    def turns(self, row: int) -> tuple[Turn, ...] | None:
        text = "" if self._turns is None else self._turns[row]
        return tuple(Turn(*turn) for turn in json.loads(text)) if text else None

    def _refuse_phones_outside(self) -> None:
        """Refuse phones that are not within their section."""
        if (self._phones_at is None) != (self._num_phones is None):
            raise DamagedIndexError("phones without a place")
        if self._num_phones is not None and len(self):
            ends = self._phones_at + PHONE_BYTES * np.maximum(self._num_phones.astype("<i8"), 0)
            if self._phones_at.min() < 0 or ends.max() > self.file.section("phones", "u1").num_bytes:
                raise DamagedIndexError("phones stand outside of their section")

    def _read_phones(self, row: int) -> tuple[Phone, ...]:
        if self._phones_offset is None:
            self._phones_offset = self._read(lambda file: file.check("phones").offset)
        count, offset = self._num_phones.item(row), self._phones_offset + self._phones_at.item(row)
        numbers = struct.unpack(f"<{count}d{count}d{count}I", self.file.read(offset, PHONE_BYTES * count))
        if count and max(numbers[2 * count :]) >= len(self._labels):
            raise DamagedIndexError("a phone has no label")
        labels = map(self._labels.__getitem__, numbers[2 * count :])
        triples = zip(numbers[:count], numbers[count : 2 * count], labels, strict=True)
        # as `map(Phone, …)`, without a call of Python code for each
        return tuple(map(tuple.__new__, repeat(Phone), triples))

    def _read(self, what: Callable[[IndexFile], _Read]) -> _Read:
        """Read a section that was not read at opening; if it is damaged, the index is made again."""
        with self._lock:
            try:
                return what(self.file)
            except DamagedIndexError:
                if self._again is None:
                    raise
                self.file = self._again()
            return what(self.file)


class IndexedUtterance(Utterance):
    """An utterance in an index. To call the class as `Utterance` is called gives a plain one."""

    __slots__ = ("_columns", "_row")

    def __new__(cls, **given: Any) -> Utterance:  # type: ignore[misc]  # `dataclasses.replace` calls the class
        return Utterance(**given)

    @classmethod
    def of(cls, columns: Columns, row: int) -> IndexedUtterance:
        """The utterance of a row."""
        made: IndexedUtterance = object.__new__(cls)
        _set_columns(made, columns)
        _set_row(made, row)
        return made

    def __getattr__(self, name: str) -> Any:
        """A field that has no value yet: Python asks for it here."""
        if name in _KEPT:
            value = _KEPT[name](self._columns, self._row)
            object.__setattr__(self, name, value)
            return value
        if name in _READ:
            return _READ[name](self._columns, self._row)
        raise AttributeError(f"'Utterance' object has no attribute '{name}'", name=name, obj=self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Utterance):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in _FIELDS)

    def __hash__(self) -> int:
        return hash(self._plain())

    def __repr__(self) -> str:
        return repr(self._plain())

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, ({name: getattr(self, name) for name in _FIELDS},)

    def _plain(self) -> Utterance:
        return _made({name: getattr(self, name) for name in _FIELDS})


def _made(given: dict[str, Any]) -> Utterance:
    return Utterance(**given)


_FIELDS = tuple(each.name for each in fields(Utterance))
_set_columns = IndexedUtterance._columns.__set__  # type: ignore[attr-defined]  # descriptors of the slots
_set_row = IndexedUtterance._row.__set__  # type: ignore[attr-defined]

_KEPT: dict[str, Callable[[Columns, int], Any]] = {
    "id": lambda columns, row: columns.ids[row],
    "speaker": Columns.speaker,
    "group": Columns.group,
    "split": Columns.split,
}
"""Fields that are kept once read, since divisions ask for them again and again."""

_READ: dict[str, Callable[[Columns, int], Any]] = {
    "audio": Columns.audio,
    "sample_rate_hz": Columns.sample_rate_hz,
    "num_samples": lambda columns, row: columns.num_samples.item(row),
    "start": Columns.start,
    "end": Columns.end,
    "text": Columns.text,
    "phones": Columns.phones,
    "attributes": Columns.attributes,
    "samples_sha256": Columns.samples_sha256,
    "features": Columns.features_path,
    "features_sha256": Columns.features_sha256,
    "scales": lambda columns, row: columns.scales,
    "channel": Columns.channel,
    "turns": Columns.turns,
}


class _Names:
    """A column in which a value stands many times: a number for each row, and the value of each number."""

    def __init__(self, file: IndexFile, name: str, count: int) -> None:
        self.names = [sys.intern(each) for each in _texts_of(file, f"{name}.names")]
        self.codes = _codes(_numbers(file, name, count), len(self.names))

    def __getitem__(self, row: int) -> str | None:
        code = -1 if self.codes is None else self.codes.item(row)
        return self.names[code] if code >= 0 else None


_DTYPES = {"start": "<f8", "end": "<f8", "channel": "<i4", "split": "i1", "phones.count": "<i4"}
"""Of the columns of numbers; those of names are `<i4`, all others `<i8`."""

_Rows = TypeVar("_Rows", Texts, bytes, NDArray[Any])


def _numbers(file: IndexFile, name: str, count: int) -> Any:
    """The column (N,); None where it is left out, because no utterance has the field."""
    if name not in file:
        return None
    return _rows(file.array(name, _DTYPES.get(name, "<i4" if name in CODED_COLUMNS else "<i8")), count)


def _rows(column: _Rows, count: int) -> _Rows:
    if len(column) != count:
        raise DamagedIndexError(f"a column has {len(column)} rows, not {count}")
    return column


def _codes(values: Any, count: int) -> Any:
    if values is not None and len(values) and not -1 <= values.min() <= values.max() < count:
        raise DamagedIndexError("a number stands for no name")
    return values


def _texts(file: IndexFile, name: str) -> Texts:
    return Texts(file.array(f"{name}.bytes", "u1").tobytes(), file.array(f"{name}.bounds", "<i8"))


def _texts_of(file: IndexFile, name: str) -> list[str]:
    if f"{name}.bytes" not in file:
        return []
    texts = _texts(file, name)
    return [texts[number] for number in range(len(texts))]


def _all_texts(file: IndexFile) -> tuple[Texts, NDArray[Any]]:
    if "text.bytes" not in file:
        return Texts(b"", np.zeros(1, dtype="<i8")), np.zeros(0, dtype="u1")
    texts = _texts(file, "text")
    return texts, _rows(file.array("text.known", "u1"), len(texts))


def _known(values: Any, row: int) -> float | None:
    """A time; NaN stands for none."""
    value = None if values is None else values.item(row)
    return None if value is None or value != value else value
