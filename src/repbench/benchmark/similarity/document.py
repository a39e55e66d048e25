"""`similarity.json`: similarities with their intervals, and all that they depend on.

The file is written once, atomically; its `id` is a digest of all its other fields, so that a changed number shows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from repbench.errors import DataError, IntegrityError
from repbench.files import canonical_json, parse_json, read_bounded

SCHEMA: Final = "repbench.similarity/1"
SIMILARITY_FILE = "similarity.json"
MADE_BY = "repbench compare"

SIGNATURE = b'"schema": "repbench.similarity/'
"""Bytes that identify a file of the command."""

MAX_BYTES: Final = 64 << 20
"""The largest file that is read."""


class MeasureInfo(NamedTuple):
    """A measure in tables and figures.

    Attributes:
        title: Short name.
        text: What it is, in a sentence without a full stop.
        of_pairs: Whether it compares two sets of features; else features with labels alone.
        symmetric: Whether the order of the two does not matter.
    """

    title: str
    text: str
    of_pairs: bool = True
    symmetric: bool = True


MEASURES: Mapping[str, MeasureInfo] = {
    "cka": MeasureInfo("CKA", "linear centred kernel alignment"),
    "cca": MeasureInfo("mean CCA", "mean canonical correlation on held-out utterances"),
    "svcca": MeasureInfo(
        "SVCCA", "mean canonical correlation of the principal directions with 99 % of the variance, held out"
    ),
    "pwcca": MeasureInfo(
        "PWCCA",
        "canonical correlations on held-out utterances, weighted by their share of the first side",
        symmetric=False,
    ),
    "mi": MeasureInfo(
        "MI", "mutual information of k-means clusters with labels, over the entropy of the labels", of_pairs=False
    ),
}
"""The values of `--measure`, and `mi`, which every profile with labels has."""

Number = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    """A part of the file: frozen, without unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ComparedUpstream(_Part):
    """A model whose layers are compared.

    Attributes:
        title: Name in tables, unique in the file.
        name: As it was given.
        checkpoint: Its weights, as they were given or found.
        fingerprint: Of its weights and settings.
        origin: Distribution, version and SHA-256 of the file that brought it.
        layers: Names of the compared layers.
        width: Values of a frame.
        role: a and b are the compared ones, `control` their untrained twins, `reference` is mel.
    """

    title: str
    name: str
    checkpoint: str | None
    fingerprint: str
    origin: dict[str, str | None]
    layers: tuple[str, ...] = Field(min_length=1)
    width: Count
    role: Literal["a", "b", "control", "reference"]


class ComparedCorpus(_Part):
    """The corpus: its name, fingerprint, and notes on the way from its sound to frames."""

    name: str
    fingerprint: str
    notes: tuple[str, ...] = ()


class SamplePart(_Part):
    """The sampled instants.

    Attributes:
        n_frames: Number of instants.
        n_utterances: Number of utterances that they were drawn from.
        sha256: Digest of utterances and instants: files with the same one were computed on the same sample.
        interval_unit: speaker or group; None where there is one.
        n_clusters: Number of those.
        n_labelled: From phones and words to the number of labelled frames and utterances.
        n_classes: From phones and words to the number of their classes.
        excluded: From each utterance that an upstream cannot take to the reason.
    """

    n_frames: Count
    n_utterances: Count
    sha256: str
    interval_unit: str | None
    n_clusters: Count
    n_labelled: dict[str, Count]
    n_classes: dict[str, Count]
    excluded: dict[str, str]


class Value(_Part):
    """A similarity with its 95 % interval over speakers (or groups); None where undefined."""

    value: Number | None
    ci95: tuple[Number, Number] | None


class LayerMatrix(_Part):
    """The similarity of every layer of one model with every layer of another, as numbers of `upstreams`."""

    first: Count
    second: Count
    measure: str
    values: tuple[tuple[Value, ...], ...]


class LayerProfile(_Part):
    """The similarity of every layer of a model with labels, or with the one layer of a reference.

    Attributes:
        upstream: Number of the model in `upstreams`.
        against: phones, words or mel.
        measure: Of `MEASURES`.
        labels: given, or shuffled as a control.
        values: Of each layer.
    """

    upstream: Count
    against: Literal["phones", "words", "mel"]
    measure: str
    labels: Literal["given", "shuffled"]
    values: tuple[Value, ...]


class ComparisonCost(_Part):
    """Seconds of features and of measures, and the largest resident set of the process."""

    extract_seconds: Number
    measure_seconds: Number
    peak_rss_bytes: Count


class SealedFile(_Part):
    """A file that a command writes once; its id is a digest of the rest."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    id: str = ""
    created: str

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON holds them."""
        return self.model_dump(mode="json", by_alias=True)

    def content(self) -> bytes:
        """The bytes of the file."""
        return (json.dumps(self.as_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")


Sealed = TypeVar("Sealed", bound=SealedFile)


class Similarity(SealedFile):
    """The content of `similarity.json`."""

    schema_: Literal["repbench.similarity/1"] = Field(default=SCHEMA, alias="schema")
    upstreams: tuple[ComparedUpstream, ...] = Field(min_length=1)
    corpus: ComparedCorpus
    sample: SamplePart
    settings: dict[str, Any]
    matrices: tuple[LayerMatrix, ...]
    profiles: tuple[LayerProfile, ...]
    warnings: tuple[str, ...]
    cost: ComparisonCost
    environment: dict[str, Any]

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        """Values are as many as the layers that they are of."""
        layers = [len(each.layers) for each in self.upstreams]
        for matrix in self.matrices:
            if max(matrix.first, matrix.second) >= len(layers) or matrix.measure not in MEASURES:
                raise ValueError("a matrix is of an upstream or measure that does not exist")
            rows = {len(row) for row in matrix.values}
            if len(matrix.values) != layers[matrix.first] or rows != {layers[matrix.second]}:
                raise ValueError("a matrix has not one value for each pair of layers")
        for profile in self.profiles:
            if profile.upstream >= len(layers) or profile.measure not in MEASURES:
                raise ValueError("a profile is of an upstream or measure that does not exist")
            if len(profile.values) != layers[profile.upstream]:
                raise ValueError("a profile has not one value for each layer")
        return self


def sealed(file: Sealed) -> Sealed:
    """The same with its id."""
    return file.model_copy(update={"id": digest_of(file.as_dict())})


def digest_of(fields: Mapping[str, Any]) -> str:
    """The id that fields call for: 16 hexadecimal digits of a SHA-256 over all of them but the id."""
    return hashlib.sha256(canonical_json({**fields, "id": ""})).hexdigest()[:16]


def read_similarity(path: Path) -> Similarity:
    """Read a `similarity.json`, checked against its id; errors as `read_sealed`."""
    return read_sealed(path, Similarity, MADE_BY)


def read_sealed(path: Path, kind: type[Sealed], made_by: str) -> Sealed:
    """Read a file of a command, checked against its id.

    Raises:
        DataError: It cannot be read, or is no such file.
        IntegrityError: It was changed after it was written.
    """
    try:
        fields = parse_json(read_bounded(path, MAX_BYTES))
        file = kind.model_validate(fields)
    except OSError as error:
        raise DataError(f"The file cannot be read: {error.strerror}", file=path) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        what = f"This is no file of `{made_by}`: {first['msg']}"
        raise DataError(what, file=path, key=place or None, do="Make it again") from error
    except ValueError as error:
        raise DataError(f"This is no file of `{made_by}`: {error}", file=path, do="Make it again") from error
    expected = digest_of(file.as_dict())
    if expected != file.id:
        what = f"The file was changed: its content calls for the id {expected}, but it has {file.id[:40]}"
        raise IntegrityError(what, file=path, do="Make it again")
    return file


def similarity_paths(places: Iterable[Path]) -> list[Path]:
    """The similarity files at or below some places, each once, in the order of their paths."""
    return paths_of(places, SIMILARITY_FILE)


def paths_of(places: Iterable[Path], name: str) -> list[Path]:
    """The files of a name at or below some places, each once, in the order of their paths."""
    found: dict[Path, None] = {}
    for place in places:
        if place.is_dir():
            found |= dict.fromkeys(sorted(place.rglob(name)))
        elif place.name == name:
            found[place] = None
    return list(found)
