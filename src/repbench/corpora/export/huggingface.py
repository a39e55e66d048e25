"""A corpus as a folder that `datasets.load_from_disk` opens: Arrow tables with the sounds in them.

Reference: `save_to_disk` of Hugging Face `datasets`; the files are written with pyarrow alone.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repbench.audio.table_files import INSTALL
from repbench.corpora.contract import AttributeValue, Corpus, Progress, Utterance
from repbench.corpora.export.folder import ExportFolder, sound_file
from repbench.corpora.exported_facts import FACTS_FILE, facts_of
from repbench.corpora.layouts.table_columns import ATTRIBUTES, PHONES, TABLE_FIELDS, TURNS
from repbench.errors import EnvironmentFault

SHARD_BYTES = 1 << 30
"""Size from which on a new table is begun."""

_BATCH_BYTES = 1 << 25
_BATCH_ROWS = 100
_SOUNDS = "audio"
_PART_OF = {"train": "train", "dev": "validation", "test": "test", None: "other"}
"""From each split to the name of its part: the names that `datasets` uses."""

_TEXTS = ("id", "speaker", "text", "group", "split")
_MOST_INT64 = 1 << 63
_DTYPES: dict[type, str] = {int: "int64", float: "float64", str: "string"}


def write(corpus: Corpus, folder: ExportFolder, progress: Progress | None) -> tuple[str, ...]:
    """Write the folder; errors as `repbench.corpora.export.export`."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise EnvironmentFault("Arrow tables are written with pyarrow, which is missing", do=INSTALL) from error
    form = _TableForm.of(corpus)
    parts: dict[str | None, list[Utterance]] = defaultdict(list)
    for utterance in corpus.utterances:
        parts[utterance.split].append(utterance)
    done = 0
    if set(parts) == {None}:
        for done in _write_dataset(folder.now, corpus, form, parts[None], None):
            _report(progress, done, corpus)
    else:
        names = {_PART_OF[split]: utterances for split, utterances in parts.items()}
        for name, utterances in names.items():
            before = done
            for count in _write_dataset(folder.now / name, corpus, form, utterances, name):
                done = before + count
                _report(progress, done, corpus)
        folder.write_text("dataset_dict.json", json.dumps({"splits": list(names)}))
    folder.write_text(FACTS_FILE, facts_of(corpus).decode("utf-8"))
    return tuple(_notes(corpus, form))


def _report(progress: Progress | None, done: int, corpus: Corpus) -> None:
    if progress is not None:
        progress(done, len(corpus.utterances))


@dataclass(frozen=True, slots=True)
class _TableForm:
    """The columns of the tables.

    Attributes:
        attributes: From each attribute with a column of its own to the type of its values.
        others: The attributes that are kept as JSON, because no column holds them as they are.
        has_phones: Whether an utterance has phones.
        has_turns: Whether an utterance has turns.
    """

    attributes: Mapping[str, type]
    others: tuple[str, ...]
    has_phones: bool
    has_turns: bool

    @classmethod
    def of(cls, corpus: Corpus) -> _TableForm:
        kinds: dict[str, set[type]] = defaultdict(set)
        unfit: set[str] = set()
        reserved = {*TABLE_FIELDS, _SOUNDS, PHONES, TURNS, ATTRIBUTES}
        for utterance in corpus.utterances:
            for name, value in utterance.attributes.items():
                kinds[name].add(type(value))
                if name.casefold() in reserved or _is_unfit(value):
                    unfit.add(name)
        fit = {name: found for name, found in kinds.items() if len(found) == 1 and name not in unfit}
        return cls(
            attributes={name: next(iter(found)) for name, found in sorted(fit.items())},
            others=tuple(sorted(set(kinds) - set(fit))),
            has_phones=any(each.phones is not None for each in corpus.utterances),
            has_turns=any(each.turns is not None for each in corpus.utterances),
        )

    def schema(self) -> Any:
        """The schema, with the features as `datasets` declares them."""
        import pyarrow as pa

        texts = [(name, pa.string()) for name in _TEXTS]
        sounds = [(_SOUNDS, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
        types = {int: pa.int64(), float: pa.float64(), str: pa.string()}
        attributes = [(name, types[kind]) for name, kind in self.attributes.items()]
        intervals = [
            (column, pa.list_(pa.struct([("start", pa.float64()), ("end", pa.float64()), (label, pa.string())])))
            for column, label in self._intervals()
        ]
        others = [(ATTRIBUTES, pa.string())] if self.others else []
        schema = pa.schema([texts[0], *sounds, *texts[1:], *attributes, *intervals, *others])
        return schema.with_metadata({"huggingface": json.dumps({"info": {"features": self.features()}})})

    def features(self) -> dict[str, Any]:
        """The features, as `datasets` writes them."""
        features: dict[str, Any] = {name: _value("string") for name in _TEXTS}
        features[_SOUNDS] = {"_type": "Audio"}
        features |= {name: _value(_DTYPES[kind]) for name, kind in self.attributes.items()}
        for column, label in self._intervals():
            features[column] = [{"start": _value("float64"), "end": _value("float64"), label: _value("string")}]
        return features | ({ATTRIBUTES: _value("string")} if self.others else {})

    def row(self, utterance: Utterance) -> dict[str, Any]:
        """The cells of an utterance."""
        content, ending = sound_file(utterance)
        others = {name: utterance.attributes[name] for name in self.others if name in utterance.attributes}
        return {
            **{name: getattr(utterance, name) for name in _TEXTS},
            _SOUNDS: {"bytes": content, "path": f"{utterance.id.replace('/', '_')}{ending}"},
            **{name: utterance.attributes.get(name) for name in self.attributes},
            PHONES: _cells(utterance.phones, "label"),
            TURNS: _cells(utterance.turns, "speaker"),
            ATTRIBUTES: json.dumps(others, ensure_ascii=False, allow_nan=False) if others else None,
        }

    def _intervals(self) -> Iterator[tuple[str, str]]:
        if self.has_phones:
            yield PHONES, "label"
        if self.has_turns:
            yield TURNS, "speaker"


def _is_unfit(value: AttributeValue) -> bool:
    """Whether a column would not give a value back: an empty text is an unknown one there."""
    return value == "" or (isinstance(value, int) and not -_MOST_INT64 <= value < _MOST_INT64)


def _value(dtype: str) -> dict[str, str]:
    return {"dtype": dtype, "_type": "Value"}


def _cells(intervals: Sequence[tuple[float, float, str]] | None, label: str) -> list[dict[str, Any]] | None:
    if intervals is None:
        return None
    return [{"start": start_s, "end": end_s, label: text} for start_s, end_s, text in intervals]


def _write_dataset(
    folder: Path, corpus: Corpus, form: _TableForm, utterances: Sequence[Utterance], split: str | None
) -> Iterator[int]:
    """Write one dataset; yields how many of its utterances are written."""
    folder.mkdir(exist_ok=True)
    shards: list[Path] = []
    rows = 0
    left = iter(utterances)
    while rows < len(utterances):
        shards.append(folder / f"shard-{len(shards):05d}.arrow")
        for num_rows in _write_shard(shards[-1], form, left):
            rows += num_rows
            yield rows
    names = [f"data-{number:05d}-of-{len(shards):05d}.arrow" for number in range(len(shards))]
    for path, name in zip(shards, names, strict=True):
        path.rename(folder / name)
    _write_json(folder / "dataset_info.json", {
        "citation": "", "description": "", "features": form.features(), "homepage": "", "license": corpus.licence,
    })  # fmt: skip
    _write_json(folder / "state.json", {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": corpus.fingerprint[:16],
        "_format_columns": None, "_format_kwargs": {}, "_format_type": None, "_output_all_columns": False,
        "_split": split,
    })  # fmt: skip


def _write_shard(path: Path, form: _TableForm, utterances: Iterator[Utterance]) -> Iterator[int]:
    """Write one table up to its size; yields the rows of each batch."""
    import pyarrow as pa

    schema = form.schema()
    with path.open("wb") as stream, pa.ipc.new_stream(stream, schema) as writer:
        while stream.tell() < SHARD_BYTES and (rows := _next_rows(form, utterances)):
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))
            yield len(rows)


def _next_rows(form: _TableForm, utterances: Iterator[Utterance]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    size = 0
    while len(rows) < _BATCH_ROWS and size < _BATCH_BYTES and (utterance := next(utterances, None)) is not None:
        rows.append(form.row(utterance))
        size += len(rows[-1][_SOUNDS]["bytes"])
    return rows


def _write_json(path: Path, fields: Mapping[str, Any]) -> None:
    path.write_bytes(json.dumps(fields, ensure_ascii=False, indent=2).encode("utf-8"))


def _notes(corpus: Corpus, form: _TableForm) -> Iterator[str]:
    yield f"the sounds of {len(corpus.utterances)} utterances are in the tables"
    if form.others:
        yield f"attributes that no column holds as they are stand as JSON in `{ATTRIBUTES}`: {', '.join(form.others)}"
    if corpus.features is not None:
        yield f"left out: the precomputed features `{corpus.features.name}`"
