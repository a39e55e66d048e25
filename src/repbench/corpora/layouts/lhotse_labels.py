"""Labels of lhotse's supervisions: text, speaker, attributes, phones and turns. Times are seconds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast, get_args

from repbench.corpora.contract import AttributeValue, DraftUtterance, Phone, Split, Turn
from repbench.corpora.durations import end_of
from repbench.corpora.layouts.json_lines import JsonLine
from repbench.errors import DataError, UsageError

PHONE_ALIGNMENTS = ("phone", "phones")
"""The types of an alignment of phones, in lhotse's recipes and of the Montreal Forced Aligner."""

SPLIT, GROUP, TURNS = "split", "group", "turns"
"""Keys of `custom` that `repbench corpus export` writes for what lhotse has no field for."""

_FIELDS_AS_ATTRIBUTES = ("language", "gender")
_MEND = "Mend the line, or write the manifest again"


class LabelReader:
    """Reads the labels of cuts and supervisions, and counts what it leaves out.

    Args:
        alignment: The type of the alignment that holds the phones; None for those of `PHONE_ALIGNMENTS`.
        is_exported: Whether `repbench corpus export` wrote the manifests: then `custom` holds attributes as they were.
    """

    def __init__(self, alignment: str | None, *, is_exported: bool) -> None:
        self._names = PHONE_ALIGNMENTS if alignment is None else (alignment,)
        self._named = alignment
        self._is_exported = is_exported
        self._other_alignments: Counter[str] = Counter()
        self._other_custom: Counter[str] = Counter()
        self._num_unnamed = 0
        self._num_found = 0

    def of_cut(self, line: JsonLine, name: str, duration_s: float) -> DraftUtterance:
        """The labels of a cut, as an utterance without a sound; times of its supervisions count from its start.

        Raises:
            DataError: A supervision or an alignment is of another form; names file and line.
        """
        supervisions = line.fields.get("supervisions") or []
        if not isinstance(supervisions, list) or not all(isinstance(each, dict) for each in supervisions):
            raise _fault("`supervisions` must be a list of objects", line, name, "supervisions")
        custom = self._custom(line.fields, line, name)
        named = [each for each in supervisions if each.get("id") == name]
        if self._is_exported:
            turns = [each for each in supervisions if each.get("id") != name] if TURNS in custom else None
            supervisions = named
        else:
            turns = supervisions if len(supervisions) > 1 else None
        labels = [self._labels(each, line, name, 0.0) for each in supervisions]
        label = _common(labels, name) if len(labels) != 1 else labels[0]
        return _merged(label, self._known(custom), self._turns(turns, line, name, duration_s), line)

    def of_supervision(self, line: JsonLine, name: str, group: str | None) -> DraftUtterance:
        """The labels of a supervision; its alignments count from the start of the recording. Errors as `of_cut`."""
        start_s = line.fields.get("start")
        found = self._labels(line.fields, line, name, float(start_s) if isinstance(start_s, (int, float)) else 0.0)
        return _merged(found, {} if group is None else {GROUP: group}, None, line)

    def refuse_unused_tier(self) -> None:
        """Refuse a named alignment that no supervision has.

        Raises:
            UsageError: Lists the alignments that there are.
        """
        if self._named is not None and not self._num_found:
            there = ", ".join(sorted(self._other_alignments)) or "none"
            what = f"No supervision has an alignment `{self._named}` (there are: {there})"
            raise UsageError(what, key="--tier", do="Name one of these, or leave it out")

    def notes(self) -> Iterator[str]:
        """Notes on what was left out."""
        for name, count in sorted(self._other_alignments.items()):
            yield f"{count} alignments `{name}` are not read"
        for name, count in sorted(self._other_custom.items()):
            yield f"`custom` of {count} lines holds `{name}`, a list or an object, which is not read"
        if self._num_unnamed:
            yield f"{self._num_unnamed} cuts of several supervisions have no turns: one of their speakers is not known"

    def _labels(self, fields: Mapping[str, Any], line: JsonLine, name: str, origin_s: float) -> DraftUtterance:
        text, speaker = (self._text(fields, key, line, name) for key in ("text", "speaker"))
        attributes = {
            key: value for key in _FIELDS_AS_ATTRIBUTES if (value := self._text(fields, key, line, name)) is not None
        }
        return DraftUtterance(
            id=name,
            audio=Path(),
            text=text,
            speaker=speaker or None,
            phones=self._phones(fields, line, name, origin_s),
            attributes=attributes | self._custom(fields, line, name),
        )

    def _text(self, fields: Mapping[str, Any], key: str, line: JsonLine, name: str) -> str | None:
        value = fields.get(key)
        if value is not None and not isinstance(value, str):
            raise _fault(f"`{key}` must be a text, but is {str(value)[:60]}", line, name, key)
        return value

    def _custom(self, fields: Mapping[str, Any], line: JsonLine, name: str) -> dict[str, AttributeValue]:
        custom = fields.get("custom") or {}
        if not isinstance(custom, dict):
            raise _fault(f"`custom` must be an object, but is {str(custom)[:60]}", line, name, "custom")
        found: dict[str, AttributeValue] = {}
        for key, value in custom.items():
            if isinstance(value, bool):
                found[key] = str(value).lower()
            elif isinstance(value, (str, int, float)):
                if value != "" or self._is_exported:
                    found[key] = value
            elif value is not None:
                self._other_custom[key] += 1
        return found

    def _known(self, custom: Mapping[str, AttributeValue]) -> dict[str, AttributeValue]:
        """What `custom` of a cut adds: of an exported one the split and group alone."""
        return {key: value for key, value in custom.items() if not self._is_exported or key in (SPLIT, GROUP)}

    def _phones(
        self, fields: Mapping[str, Any], line: JsonLine, name: str, origin_s: float
    ) -> tuple[Phone, ...] | None:
        alignments = fields.get("alignment") or {}
        if not isinstance(alignments, dict):
            raise _fault("`alignment` must be an object of lists", line, name, "alignment")
        self._other_alignments.update(key for key in alignments if key not in self._names)
        for key in self._names:
            if key in alignments:
                self._num_found += 1
                return tuple(_items(alignments[key], key, line, name, origin_s))
        return None

    def _turns(
        self, supervisions: Sequence[Mapping[str, Any]] | None, line: JsonLine, name: str, duration_s: float
    ) -> tuple[Turn, ...] | None:
        if supervisions is None:
            return None
        turns = []
        for each in supervisions:
            start_s, speaker = _number(each, "start", line, name), self._text(each, "speaker", line, name)
            end_s = end_of(start_s, _number(each, "duration", line, name))
            if not speaker:
                self._num_unnamed += 1
                return None
            # a cut may begin and end inside of its supervisions
            if not self._is_exported:
                start_s, end_s = max(0.0, start_s), min(end_s, duration_s)
            if start_s < end_s:
                turns.append(Turn(start_s, end_s, speaker))
        return tuple(turns)


def _items(items: Any, key: str, line: JsonLine, name: str, origin_s: float) -> Iterator[Phone]:
    """The phones of an alignment: lists of symbol, start, duration and perhaps a score, or objects of these."""
    for number, item in enumerate(items if isinstance(items, list) else [items], start=1):
        cells = [item.get(part) for part in ("symbol", "start", "duration")] if isinstance(item, dict) else item
        symbol, start, duration = cells[:3] if isinstance(cells, list) and len(cells) in (3, 4) else (None, None, None)
        if not isinstance(symbol, str) or not (_is_time(start) and _is_time(duration)):
            what = f"Item {number} of the alignment `{key}` must be symbol, start and duration, but is {str(item)[:60]}"
            raise _fault(what, line, name, "alignment")
        start_s = float(cast(float, start)) - origin_s
        yield Phone(start_s, end_of(start_s, float(cast(float, duration))), symbol)


def _is_time(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _common(labels: Sequence[DraftUtterance], name: str) -> DraftUtterance:
    """The labels that all supervisions of a cut share; phones of several are those of none."""
    texts, speakers = ({getattr(each, key) for each in labels} for key in ("text", "speaker"))
    shared = [key for key in (labels[0].attributes if labels else ()) if _agree(labels, key)]
    return DraftUtterance(
        id=name,
        audio=Path(),
        text=texts.pop() if len(texts) == 1 else None,
        speaker=speakers.pop() if len(speakers) == 1 else None,
        attributes={key: labels[0].attributes[key] for key in shared},
    )


def _agree(labels: Sequence[DraftUtterance], key: str) -> bool:
    return all(each.attributes.get(key) == labels[0].attributes[key] for each in labels)


def _merged(
    label: DraftUtterance, more: Mapping[str, AttributeValue], turns: tuple[Turn, ...] | None, line: JsonLine
) -> DraftUtterance:
    """The labels with what the cut adds; `split` and `group` in its `custom` are the fields of these names."""
    others = dict(more)
    split = others.pop(SPLIT) if others.get(SPLIT) in get_args(Split) else None
    group = others.pop(GROUP) if isinstance(others.get(GROUP), str) and others[GROUP] else None
    return DraftUtterance(
        id=label.id,
        audio=label.audio,
        text=label.text,
        speaker=label.speaker,
        phones=label.phones,
        turns=turns,
        attributes=others | dict(label.attributes),
        split=cast("Split | None", split),
        group=cast("str | None", group),
        where=line.where,
    )


def _number(fields: Mapping[str, Any], key: str, line: JsonLine, name: str) -> float:
    value = fields.get(key)
    if not _is_time(value):
        raise _fault(f"`{key}` of a supervision must be seconds, but is {value!r}", line, name, key)
    return float(cast(float, value))


def _fault(what: str, line: JsonLine, utterance: str, key: str) -> DataError:
    return DataError(what, file=line.where, utterance=utterance, key=key, do=_MEND)
