"""One line of a manifest: an utterance as JSON, written canonically and read strictly."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import numpy as np

from repbench.audio.sound import Channel
from repbench.corpora.alignments import validate_phones
from repbench.corpora.contract import Phone, Turn, Utterance
from repbench.corpora.safe_paths import RootFolder, is_encodable
from repbench.corpora.textfiles import nfc
from repbench.corpora.turns import joined_turns, turn_fault
from repbench.errors import DataError

_T = TypeVar("_T")

_SHA256 = re.compile(r"[0-9a-f]{64}")
_HUGE = 1e300  # JSON has whole numbers of any length and writes infinity as 1e999
_SPLITS = ("train", "dev", "test")
_REQUIRED = ("id", "audio", "sample_rate_hz", "num_samples", "samples_sha256")
_FEATURE_FIELDS = ("features", "features_sha256")
_FIELDS = frozenset(
    {
        *(*_REQUIRED, "start", "end", "channel", "speaker", "text", "phones", "attributes", "group", "split"),
        *(*_FEATURE_FIELDS, "turns"),
    }
)


class ManifestLine(NamedTuple):
    """An utterance and its line: `…/manifest.jsonl:12`; the paths of its files as they stand there."""

    utterance: Utterance
    where: str
    place: str
    features_place: str | None


def format_line(utterance: Utterance, place: str, features: str | None = None) -> str:
    """The utterance as one line of canonical JSON; fields without a value are left out.

    Args:
        utterance: The utterance.
        place: Path of its sound, relative to the root.
        features: Path of its precomputed frames, relative to the root; None where it has none.
    """
    where = {"audio": place, "start": utterance.start, "end": utterance.end, "features": features}
    where |= {"channel": utterance.channel}
    return _encode_known(_path_free_fields(utterance) | where | {"phones": utterance.phones})


def portable_line(utterance: Utterance) -> str:
    """The fields of the utterance that do not depend on paths, as one line of canonical JSON to be hashed.

    `audio`, `start`, `end`, `channel` and the place of `features` are left out. Times of phones are replaced by
    the SHA-256 of their float64 values: millions of them are hashed each time a corpus is opened, and writing them as
    decimals would take most of the time.
    """
    phones = None
    if utterance.phones is not None:
        # (P, 2) starts and ends; the byte order is fixed, because the hash must be the same on every machine
        times = np.array([phone[:2] for phone in utterance.phones], dtype="<f8")
        labels = [phone.label for phone in utterance.phones]
        phones = {"labels": labels, "times_sha256": hashlib.sha256(times.tobytes()).hexdigest()}
    return _encode_known(_path_free_fields(utterance) | {"phones": phones})


def _path_free_fields(utterance: Utterance) -> dict[str, Any]:
    """All fields but the phones and the paths."""
    return {
        "id": utterance.id,
        "sample_rate_hz": utterance.sample_rate_hz,
        "num_samples": utterance.num_samples,
        "speaker": utterance.speaker,
        "text": utterance.text,
        "attributes": utterance.attributes or None,
        "group": utterance.group,
        "split": utterance.split,
        "samples_sha256": utterance.samples_sha256,
        "features_sha256": utterance.features_sha256,
        # As they are: a recording has tens of turns where an utterance has hundreds of phones.
        "turns": utterance.turns,
    }


def _encode_known(fields: Mapping[str, Any]) -> str:
    return _encode({name: value for name, value in fields.items() if value is not None})


# Canonical: the same fields give the same bytes, which are hashed.
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def parse_line(line: bytes, root: RootFolder, where: str) -> ManifestLine:
    """Read one line.

    Args:
        line: UTF-8 JSON without its newline.
        root: The folder that must hold the sound.
        where: File and line, for errors.

    Raises:
        DataError: The line is not JSON, has an unknown, missing or wrong field, or its sound is outside the root.
    """
    try:
        fields = strict_json(line)
    except ValueError as error:
        raise DataError(f"The line is not valid JSON: {error}", file=where, do="Prepare the corpus again") from error
    if not isinstance(fields, dict):
        raise DataError("The line is not a JSON object", file=where, do="Prepare the corpus again")
    fields_of_line = _LineFields(fields, where)
    return ManifestLine(fields_of_line.utterance(root), where, fields["audio"], fields.get("features"))


def strict_json(content: bytes) -> Any:
    """Decode UTF-8 JSON.

    Raises:
        ValueError: It is not JSON or nested too deeply, a key occurs twice in an object, or a number is NaN or
            infinite.
    """
    try:
        return _DECODER.decode(content.decode("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a key occurs twice in one object")
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse_constant)


class _LineFields:
    """The fields of one line, each taken by its type."""

    def __init__(self, fields: dict[str, Any], where: str) -> None:
        self._fields = fields
        self._where = where
        identifier = fields.get("id")
        self._id = identifier if isinstance(identifier, str) else None

    def utterance(self, root: RootFolder) -> Utterance:
        fields = self._fields
        if not fields.keys() <= _FIELDS:
            name = min(fields.keys() - _FIELDS)
            raise self._fault(f"Unknown field `{name}` (there are {', '.join(sorted(_FIELDS))})", name)
        for name in _REQUIRED:
            if name not in fields:
                raise self._fault(f"`{name}` is missing", name)
        for name, other in (_FEATURE_FIELDS, _FEATURE_FIELDS[::-1]):
            if name in fields and other not in fields:
                raise self._fault(f"`{other}` is missing, but there is `{name}`", other)
        rate, num_samples = self._whole("sample_rate_hz"), self._whole("num_samples")
        utterance = Utterance(
            id=nfc(self._name("id")),
            audio=self._place("audio", root),
            start=self._optional("start", self._time),
            end=self._optional("end", self._time),
            sample_rate_hz=rate,
            num_samples=num_samples,
            speaker=self._optional("speaker", lambda name: nfc(self._name(name))),
            text=self._optional("text", self._text),
            phones=self._phones(num_samples / rate) if "phones" in fields else None,
            attributes=self._attributes(),
            group=self._optional("group", self._name),
            split=self._split(),
            samples_sha256=self._sha256("samples_sha256"),
            features=self._optional("features", lambda name: self._place(name, root)),
            features_sha256=self._optional("features_sha256", self._sha256),
            channel=self._optional("channel", self._channel),
            turns=self._turns(num_samples / rate) if "turns" in fields else None,
        )
        self._refuse_other_length(utterance)
        return utterance

    def _fault(self, what: str, key: str) -> DataError:
        return DataError(what, file=self._where, utterance=self._id, key=key, do="Prepare the corpus again")

    def _optional(self, name: str, take: Callable[[str], _T]) -> _T | None:
        return take(name) if name in self._fields else None

    def _text(self, name: str) -> str:
        value = self._fields[name]
        if type(value) is not str:
            raise self._fault(f"`{name}` must be a string, but is {_shown(value)}", name)
        # a lone surrogate, which JSON can escape and UTF-8 cannot hold
        if not value.isascii() and not is_encodable(value):
            raise self._fault(f"`{name}` is not valid Unicode", name)
        return value

    def _place(self, name: str, root: RootFolder) -> Path:
        return root.join(self._text(name), file=self._where, utterance=self._id)

    def _name(self, name: str) -> str:
        value = self._text(name)
        if not value:
            raise self._fault(f"`{name}` is empty", name)
        return value

    def _whole(self, name: str) -> int:
        value = self._fields[name]
        # `type is`: JSON's true is a bool, which is an int to `isinstance`
        if type(value) is not int or value < 1:
            raise self._fault(f"`{name}` must be a whole number of at least 1, but is {_shown(value)}", name)
        return value

    def _channel(self, name: str) -> Channel:
        if self._fields[name] == "mix":
            return "mix"
        return self._whole(name)

    def _time(self, name: str) -> float:
        value = self._fields[name]
        if not _is_finite_number(value) or value < 0:
            raise self._fault(f"`{name}` must be seconds of at least 0, but is {_shown(value)}", name)
        return float(value)

    def _sha256(self, name: str) -> str:
        value = self._text(name)
        if not _SHA256.fullmatch(value):
            raise self._fault(f"`{name}` must be 64 small hexadecimal digits, but is {_shown(value)}", name)
        return value

    def _split(self) -> Any:
        value = self._fields.get("split", "train")
        if value not in _SPLITS:
            raise self._fault(f"`split` must be train, dev or test, but is {_shown(value)}", "split")
        return self._fields.get("split")

    def _attributes(self) -> Mapping[str, str | int | float]:
        attributes = self._fields.get("attributes", {})
        if not isinstance(attributes, dict):
            raise self._fault(f"`attributes` must be an object, but is {_shown(attributes)}", "attributes")
        for name, value in attributes.items():
            if not is_attribute(name, value):
                what = f"The attribute `{name}` must be a string or a finite number, but is {_shown(value)}"
                raise self._fault(what, "attributes")
        return attributes

    def _phones(self, duration_s: float) -> tuple[Phone, ...]:
        phones = self._fields["phones"]
        if not isinstance(phones, list):
            raise self._fault(f"`phones` must be a list, but is {_shown(phones)}", "phones")
        # the fast path; the slow one below finds and names the fault
        if (checked := _valid_phones(phones, duration_s)) is not None:
            return checked
        for index, phone in enumerate(phones):
            if not _is_phone(phone):
                what = f"Phone {index + 1} must be [start, end, label], but is {_shown(phone)}"
                raise self._fault(what, "phones")
        triples = [Phone(float(start), float(end), label) for start, end, label in phones]
        return validate_phones(triples, duration_s, utterance=self._id, file=self._where)

    def _turns(self, duration_s: float) -> tuple[Turn, ...]:
        turns = self._fields["turns"]
        if not isinstance(turns, list):
            raise self._fault(f"`turns` must be a list, but is {_shown(turns)}", "turns")
        for index, turn in enumerate(turns):
            if not _is_phone(turn):
                what = f"Turn {index + 1} must be [start, end, speaker], but is {_shown(turn)}"
                raise self._fault(what, "turns")
        found = tuple(Turn(float(start), float(end), nfc(speaker)) for start, end, speaker in turns)
        for turn in found:
            if (fault := turn_fault(turn, duration_s)) is not None:
                raise self._fault(fault, "turns")
        if found != joined_turns(found):
            raise self._fault("`turns` are not sorted, or those of a speaker overlap", "turns")
        return found

    def _refuse_other_length(self, utterance: Utterance) -> None:
        """Refuse `start` and `end` that do not span `num_samples`."""
        if utterance.end is None:
            return
        rate = utterance.sample_rate_hz
        # rounded one by one, as `sample_range` does where the sound is read
        spanned = round(utterance.end * rate) - round((utterance.start or 0.0) * rate)
        if spanned != utterance.num_samples:
            what = f"`start` and `end` span {spanned} samples, but `num_samples` is {utterance.num_samples}"
            raise self._fault(what, "num_samples")


def is_attribute(name: Any, value: Any) -> bool:
    """Whether a manifest can hold an attribute: a named string or finite number."""
    if type(name) is not str or not name or not is_encodable(name):
        return False
    return is_encodable(value) if type(value) is str else _is_finite_number(value)


def _valid_phones(phones: list[Any], duration_s: float) -> tuple[Phone, ...] | None:
    """The phones if all are valid, else None. A fast path: millions of phones are read, and faults are rare."""
    checked = []
    previous_end = 0.0
    for phone in phones:
        if type(phone) is not list or len(phone) != 3:
            return None
        start_s, end_s, label = phone
        if not (type(start_s) is float and type(end_s) is float and type(label) is str and label.isascii() and label):
            return None
        # NaN fails this too, and is then refused by the slow path with its line
        if not previous_end <= start_s < end_s <= duration_s:
            return None
        previous_end = end_s
        # one string object for each label instead of one for each phone
        checked.append(Phone(start_s, end_s, sys.intern(label)))
    return tuple(checked)


def _is_phone(phone: Any) -> bool:
    if type(phone) is not list or len(phone) != 3:
        return False
    start, end, label = phone
    is_label = type(label) is str and label != "" and is_encodable(label)
    return is_label and _is_finite_number(start) and _is_finite_number(end)


def _is_finite_number(value: Any) -> bool:
    # `type is`, because True is an int to `isinstance`; NaN and infinity fail the comparison
    return (type(value) is float or type(value) is int) and abs(value) < _HUGE


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 60 else text[:57] + "..."
