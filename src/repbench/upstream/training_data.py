"""What an upstream was trained on before, as it declares it: corpora by name, with splits, speakers and utterances.

An upstream declares it as its attribute `trained_on`, or in its `provenance`: None where it is not known, an empty
tuple where its weights were trained on nothing. The data that trains a probe, or the whole network in fine-tuning, is
not meant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from repbench.errors import DataError, PluginError

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """One corpus that an upstream was trained on, or the part of it that it was trained on.

    Attributes:
        name: Name of the corpus, in any common spelling: `LibriSpeech`, `librispeech_asr`, `synthetic:noisy:small`;
            `unknown` for further data that is not known.
        splits: Its splits, in the words of the corpus: `train-clean-100`; `all` for every one. Empty: not stated.
        speakers: Ids of all its speakers, as the corpus writes them; None: not stated.
        samples_sha256: SHA-256 of the samples of every utterance (`Utterance.samples_sha256`); None: not stated.
        fingerprint: Fingerprint of the corpus, if it was one of repbench.
        source: Where this is stated: a paper, a model card, an address.

    Example:
        >>> TrainingData(name="LibriSpeech", splits=("train-clean-100", "train-clean-360")).title
        'LibriSpeech (train-clean-100, train-clean-360)'
    """

    name: str
    splits: tuple[str, ...] = ()
    speakers: frozenset[str] | None = None
    samples_sha256: frozenset[str] | None = None
    fingerprint: str | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        faults = []
        if not isinstance(self.name, str) or not self.name.strip():
            faults.append(f"`name` must be the name of a corpus, but is {self.name!r}")
        if not _is_of_texts(self.splits, tuple):
            faults.append(f"`splits` must be a tuple of names, but is {self.splits!r}")
        if self.speakers is not None and not _is_of_texts(self.speakers, frozenset):
            faults.append(f"`speakers` must be a frozenset of ids, but is a {type(self.speakers).__name__}")
        digests = self.samples_sha256
        if digests is not None and not _is_of_texts(digests, frozenset):
            faults.append(f"`samples_sha256` must be a frozenset of digests, but is a {type(digests).__name__}")
        elif digests is not None and (odd := [each for each in digests if not _SHA256.fullmatch(each)]):
            faults.append(f"`samples_sha256` must hold 64 hexadecimal digits each, but holds {min(odd)[:80]!r}")
        if faults:
            what = f"Training data is not declared as it must be: {'; '.join(faults)}"
            raise PluginError(what, key="trained_on", do="See TrainingData in repbench.upstream.training_data")

    @property
    def is_rest(self) -> bool:
        """Whether it stands for further data that is not known."""
        return self.name == "unknown"

    @property
    def title(self) -> str:
        """Name and splits, on one line."""
        return f"{self.name} ({', '.join(self.splits)})" if self.splits else self.name

    @property
    def stated(self) -> str:
        """As `title`, with where it is stated."""
        return f"{self.title} [{self.source}]" if self.source else self.title


def in_words(data: Iterable[TrainingData] | None) -> str:
    """All training data on one line."""
    return "not declared" if data is None else "; ".join(each.stated for each in data) or "nothing"


def _is_of_texts(value: object, kind: type[Collection[Any]]) -> bool:
    return isinstance(value, kind) and all(isinstance(each, str) for each in value)


UNKNOWN_DATA = TrainingData(name="unknown")
"""Stands for further data that is not known: what is declared beside it is not all."""


def refuse_training_data(declared: object, owner: str) -> None:
    """Refuse a `trained_on` that is neither None nor a tuple of `TrainingData`.

    Raises:
        PluginError: It is something else.
    """
    if declared is None:
        return
    if not isinstance(declared, tuple) or not all(isinstance(each, TrainingData) for each in declared):
        what = f"`trained_on` must be None or a tuple of TrainingData, but is {declared!r:.200}"
        do = "Declare trained_on = (TrainingData(name=…),), () if it was trained on nothing, None if it is not known"
        raise PluginError(what, key=owner, do=do)


class TrainingDataSettings(BaseModel):
    """One entry of `trained_on` in a declaration file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    """Name of the corpus; `unknown` for further data that is not known."""
    splits: tuple[str, ...] = ()
    """Its splits, in the words of the corpus; `all` for every one. Empty: not stated."""
    speakers: str | None = None
    """A text file with the id of each speaker, one a line, relative to the declaration; null: not stated."""
    samples_sha256: str | None = None
    """A text file with the SHA-256 of the samples of each utterance, one a line, as `heard.txt`; null: not stated."""
    source: str | None = None
    """Where this is stated."""


def training_data_of(
    declared: Iterable[TrainingDataSettings] | None, declaration: Path
) -> tuple[TrainingData, ...] | None:
    """The entries of a declaration file; None where it has none.

    Args:
        declared: Its key `trained_on`.
        declaration: The file, whose folder the paths in it are relative to.

    Raises:
        DataError: A file that it names cannot be read, or does not hold what it should.
    """
    if declared is None:
        return None
    return tuple(
        TrainingData(
            name=each.name,
            splits=each.splits,
            speakers=_lines_of(each.speakers, declaration, "speakers"),
            samples_sha256=_lines_of(each.samples_sha256, declaration, "samples_sha256", _SHA256.fullmatch),
            source=each.source or declaration.name,
        )
        for each in declared
    )


def _lines_of(
    name: str | None, declaration: Path, key: str, fits: Callable[[str], object] = bool
) -> frozenset[str] | None:
    """The lines of a text file, without empty ones."""
    if name is None:
        return None
    file = declaration.parent / name
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        what = f"The file of `{key}` cannot be read: {reason}"
        raise DataError(what, file=file, key=f"trained_on.{key}", do=f"Correct the path in {declaration}") from error
    for number, line in enumerate(lines, start=1):
        if line and not fits(line):
            what = f"A line must hold 64 hexadecimal digits, but is {line[:80]!r}"
            do = "Write the SHA-256 of the samples of an utterance on each line"
            raise DataError(what, file=f"{file}:{number}", key=f"trained_on.{key}", do=do)
    return frozenset(filter(None, lines))


def as_json(data: Iterable[TrainingData] | None) -> list[dict[str, Any]] | None:
    """JSON values of training data without its digests, which are kept apart; None for None."""
    if data is None:
        return None
    return [
        {
            "name": each.name,
            "splits": list(each.splits),
            "speakers": None if each.speakers is None else sorted(each.speakers),
            "hashed": each.samples_sha256 is not None,
            "fingerprint": each.fingerprint,
            "source": each.source,
        }
        for each in data
    ]


def of_json(entries: Iterable[Mapping[str, Any]] | None, digests: frozenset[str]) -> tuple[TrainingData, ...] | None:
    """The reverse of `as_json`.

    Args:
        entries: As `as_json` returns them.
        digests: SHA-256 of every utterance of the entries that were hashed, together.

    Raises:
        KeyError, TypeError: They are something else.
    """
    if entries is None:
        return None
    return tuple(
        TrainingData(
            name=each["name"],
            splits=tuple(each["splits"]),
            speakers=None if each["speakers"] is None else frozenset(each["speakers"]),
            samples_sha256=digests if each["hashed"] else None,
            fingerprint=each["fingerprint"],
            source=each["source"],
        )
        for each in entries
    )
