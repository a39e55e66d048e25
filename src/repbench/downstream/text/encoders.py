"""The units that words are spelt in: characters, or sub-words of a model that was trained on text.

A word starts with the unit, or the part of a unit, `WORD_START`, as in sentencepiece. The names of the units are enough
to make words of them again (`joined`); to spell words by sub-words takes the model.

Reference:
    Kudo, Subword Regularization, ACL 2018; Kudo and Richardson, SentencePiece, EMNLP 2018.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from repbench.downstream.text.slots import is_marker, unit_of_marker
from repbench.downstream.text.transcript import Transcript
from repbench.errors import DataError, UsageError
from repbench.files import read_checked

WORD_START = "\u2581"
"""The unit, or the first character of one, that starts a word."""

SUBWORDS_FILE = "subwords.model"
"""The file with the model of sub-words in the folder of a record."""


class TextEncoder(Protocol):
    """A spelling of words, fitted on the texts of a training split.

    Attributes:
        units: All units, sorted: the classes of a task.
        files: From the name of each file that it is read from to its content; none where the units are enough.
    """

    @property
    def units(self) -> tuple[str, ...]:
        """All units, sorted."""

    @property
    def files(self) -> Mapping[str, bytes]:
        """The files that it is read from."""

    def encoded(self, labels: Transcript) -> Transcript:
        """The transcript with the spelling of its words.

        Raises:
            DataError: A word has a character that is in no training text.
        """
        ...


def joined(units: Iterable[str]) -> tuple[str, ...]:
    """The words that units spell."""
    return tuple("".join(units).replace(WORD_START, " ").split())


class _WordEncoder(ABC):
    """The base of encoders that spell each word alone.

    A word of a language comes again and again: one tuple is kept for all places.
    """

    units: tuple[str, ...]
    files: Mapping[str, bytes]

    def __init__(self) -> None:
        self._spelt: dict[str, tuple[str, ...]] = {}

    def encoded(self, labels: Transcript) -> Transcript:
        """The transcript with the units of its words."""
        return Transcript(labels.words, tuple(map(self._known_spelling, labels.words)))

    def _known_spelling(self, word: str) -> tuple[str, ...]:
        spelling = self._spelt.get(word)
        if spelling is None:
            spelling = self._spelling(word)
            strange = [unit for unit in spelling if unit not in self._known]
            if strange:
                what = f"The word `{word}` needs `{strange[0]}`, which is in no text that the units were made of"
                raise DataError(what, key="task.units", do="Encode training texts alone")
            self._spelt[word] = spelling
        return spelling

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.units)

    @abstractmethod
    def _spelling(self, word: str) -> tuple[str, ...]: ...


class Characters(_WordEncoder):
    """Words spelt in characters, each with `WORD_START` before it.

    Args:
        texts: The words of each training utterance.
        markers: Whether words such as `<city>` are one unit.
    """

    def __init__(self, texts: Iterable[Sequence[str]], *, markers: bool = False) -> None:
        super().__init__()
        self._markers = markers
        words = {word for text in texts for word in text}
        self.units = tuple(sorted({unit for word in words for unit in self._spelling(word)}))
        self.files = {}

    def _spelling(self, word: str) -> tuple[str, ...]:
        return (unit_of_marker(word),) if self._markers and is_marker(word) else (WORD_START, *word)


class Subwords(_WordEncoder):
    """Words spelt in the sub-words of a model of sentencepiece.

    No piece reaches over a space, so a word has one spelling, whatever is beside it.

    Args:
        model: The content of the model's file.
        markers: Words that are one unit, such as `<city>`.
    """

    def __init__(self, model: bytes, markers: Iterable[str] = ()) -> None:
        super().__init__()
        self._processor = _sentencepiece().SentencePieceProcessor(model_proto=model)
        self._markers = frozenset(markers)
        pieces = (self._processor.id_to_piece(number) for number in range(self._processor.get_piece_size()))
        unknown = self._processor.id_to_piece(self._processor.unk_id())
        self.units = tuple(sorted({*map(unit_of_marker, self._markers), *(each for each in pieces if each != unknown)}))
        self.files = {SUBWORDS_FILE: model}

    def _spelling(self, word: str) -> tuple[str, ...]:
        return (unit_of_marker(word),) if word in self._markers else tuple(self._processor.encode(word, out_type=str))


def train_subwords(texts: Iterable[Sequence[str]], size: int, *, markers: bool = False) -> Subwords:
    """Sub-words of a unigram model, trained on texts.

    The same texts give the same model, in any order and on any number of processors.

    Args:
        texts: The words of each training utterance.
        size: Sub-words at most. A model has fewer where the texts do not hold as many; every character is one of them.
        markers: Whether words such as `<city>` are one unit, on which nothing is trained.

    Raises:
        DataError: There is no word, or `size` is less than the texts have characters.
        UsageError: sentencepiece is not installed.
    """
    library = _sentencepiece()
    lines: list[str] = []
    found: set[str] = set()
    for text in texts:
        found.update(word for word in text if markers and is_marker(word))
        lines.append(" ".join(word for word in text if not (markers and is_marker(word))))
    # Sorted: the estimates are sums of floats, and must not depend on the order of the utterances.
    lines = sorted(line for line in lines if line)
    if not lines:
        raise DataError("There is no word to train sub-words on", key="task.units", do="Take task.units=characters")
    least = len({character for line in lines for character in line if character != " "}) + 2
    if size + 1 < least:
        what = f"The training texts have {least - 2} characters, so that {size} sub-words do not spell them"
        raise DataError(what, key="task.vocabulary_size", do=f"Take at least {least - 1}, or task.units=characters")
    model = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="unigram",
        vocab_size=size + 1,  # with the unknown piece, which is no unit
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_name="identity",  # `task.text` has normalised
        unk_id=0, bos_id=-1, eos_id=-1, pad_id=-1,
        max_sentence_length=2**20,  # bytes; by default longer lines are left out
        num_threads=1,  # threads would add floats in another order
        minloglevel=2,
    )  # fmt: skip
    return Subwords(model.getvalue(), found)


def read_subwords(folder: Path, sha256: str, markers: Iterable[str] = ()) -> Subwords:
    """The sub-words in the folder of a record.

    Args:
        folder: Of the record.
        sha256: Of the file, as the record states it.
        markers: As for `Subwords`.

    Raises:
        IntegrityError: The file is missing, or is not the one that the record was made with.
    """
    return Subwords(read_checked(folder / SUBWORDS_FILE, sha256), markers)


def _sentencepiece() -> Any:
    try:
        import sentencepiece
    except ImportError as error:
        raise UsageError(
            "Sub-words need the package sentencepiece",
            key="task.units",
            do="pip install 'repbench[asr]', or take task.units=characters",
        ) from error
    return sentencepiece
