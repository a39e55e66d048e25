"""Kinds, conditions and sizes of synthetic corpora, and the generator of their random numbers."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from repbench.corpora.contract import Split
from repbench.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

CORPUS_VERSION = 1
"""Part of the cache folder's name; raised whenever the same spec would give other sound or other labels."""

CORPUS_SEED = 20190705
"""Of everything that is drawn; fixed, so that `synthetic` means the same corpus everywhere."""

SAMPLE_RATE_HZ = 16_000
"""Of the sound that is written."""

SENTENCES = "sentences"
"""The kind that no name says: sentences with a sentiment in their words."""

KINDS = (SENTENCES, "words", "commands", "emotions", "languages", "searches", "mixtures")
"""What is spoken, and so the labels: see `repbench.corpora.synthetic.plan`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingCondition:
    """A recording condition.

    Attributes:
        name: Name on the command line.
        voice_spread: Spread of the voices of the speakers; 1 is a mixed group, less makes them more alike.
        snr_db: Range of the signal-to-noise ratio, in dB; None for no noise.
        channel_db: Standard deviation of a session's channel response and level, in dB.
        reverberation_seconds: Range of the time in which a room's echo falls by 60 dB; None for no room.
    """

    name: str
    voice_spread: float
    snr_db: tuple[float, float] | None = None
    channel_db: float = 0.0
    reverberation_seconds: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusSize:
    """The size of a corpus.

    Attributes:
        name: Name on the command line.
        num_speakers: Speakers of each split; none belongs to two.
        num_sessions: Recording sessions of each speaker.
        num_per_session: Utterances of each session; even, so that both sentiments are equally frequent.
    """

    name: str
    num_speakers: Mapping[Split, int]
    num_sessions: int
    num_per_session: int

    @property
    def num_utterances(self) -> int:
        """Utterances of the whole corpus."""
        return sum(self.num_speakers.values()) * self.num_sessions * self.num_per_session


CONDITIONS = {
    condition.name: condition
    for condition in (
        RecordingCondition(name="clean", voice_spread=1.0),
        RecordingCondition(name="noisy", voice_spread=0.7, snr_db=(6.0, 20.0), channel_db=3.0),
        RecordingCondition(
            name="hard", voice_spread=0.35, snr_db=(0.0, 10.0), channel_db=5.0, reverberation_seconds=(0.15, 0.45)
        ),
    )
}

SIZES = {
    size.name: size
    for size in (
        CorpusSize(name="tiny", num_speakers={"train": 6, "dev": 3, "test": 3}, num_sessions=4, num_per_session=4),
        CorpusSize(name="small", num_speakers={"train": 14, "dev": 4, "test": 6}, num_sessions=7, num_per_session=10),
        CorpusSize(name="full", num_speakers={"train": 70, "dev": 10, "test": 20}, num_sessions=6, num_per_session=30),
    )
}


@dataclass(frozen=True, slots=True)
class SyntheticSpec:
    """The condition, the size and the kind of a synthetic corpus."""

    condition: RecordingCondition
    size: CorpusSize
    kind: str = SENTENCES

    @property
    def folder_name(self) -> str:
        """Name of its folder in the cache."""
        return "-".join((f"synthetic-v{CORPUS_VERSION}", *self._words))

    @property
    def corpus_name(self) -> str:
        """Name of the corpus."""
        return ":".join(("synthetic", *self._words))

    @property
    def _words(self) -> tuple[str, ...]:
        # sentences came first, and keep their names and folders
        kind = () if self.kind == SENTENCES else (self.kind,)
        return (*kind, self.condition.name, self.size.name)


def parse(options: tuple[str, ...]) -> SyntheticSpec:
    """Read `("tiny", "clean", "words")`, in any order; the defaults are `sentences`, `noisy` and `small`.

    Raises:
        UsageError: An option is unknown, or two contradict each other; the message lists those that exist.
    """
    for option in options:
        if option not in CONDITIONS and option not in SIZES and option not in KINDS:
            raise _unknown(option)
    conditions = [option for option in options if option in CONDITIONS]
    sizes = [option for option in options if option in SIZES]
    kinds = [option for option in options if option in KINDS]
    for given in (kinds, conditions, sizes):
        if len(given) > 1:
            raise UsageError(f"Corpus `synthetic` takes one of {_listed(given)}, not both", do=_usage())
    return SyntheticSpec(
        CONDITIONS[conditions[0] if conditions else "noisy"],
        SIZES[sizes[0] if sizes else "small"],
        kinds[0] if kinds else SENTENCES,
    )


def generator_for(*key: str) -> np.random.Generator:
    """The random numbers that belong to `key`: the same in every process and in every order."""
    import numpy as np

    # A hash of the key, not a shared stream: what is drawn for one utterance does not depend on the others, so that
    # any number of workers gives the same corpus. PCG64 is named, because NumPy may change its default generator.
    digest = hashlib.sha256("/".join((str(CORPUS_SEED), *key)).encode("utf-8")).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


def _unknown(option: str) -> UsageError:
    near = difflib.get_close_matches(option, [*KINDS, *CONDITIONS, *SIZES], n=1)
    meant = f", did you mean `{near[0]}`?" if near else ""
    return UsageError(f"Corpus `synthetic` has no option `{option}`{meant}", key=option, do=_usage())


def _usage() -> str:
    return (
        f"Give at most one of {_listed(KINDS)}, one of {_listed(CONDITIONS)} and one of {_listed(SIZES)}, as in "
        "`synthetic:noisy:small` or `synthetic:words:tiny`"
    )


def _listed(names: Mapping[str, object] | Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
