"""What a corpus is: utterances, what is true of them, and where their sound lies.

A corpus does not know tasks. A corpus plugin (entry-point group `repbench.corpora`) is one of two things:

* a `CorpusSource`: makes or opens a corpus by name (`--corpus synthetic:noisy:small`);
* a `CorpusLayout`: reads a folder laid out in a known way, from which `repbench corpus prepare` makes a manifest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, runtime_checkable

from repbench.errors import RepbenchError
from repbench.progress import Advance

if TYPE_CHECKING:
    from repbench.audio.sound import Channel

AttributeValue = str | int | float
Resample = Literal["allowed", "refused"]
Split = Literal["train", "dev", "test"]

FeatureFormat = Literal["npy", "safetensors"]

SILENCE = "sil"
"""The label that stands for silence in every phone set that folds its silences into one."""


class Phone(NamedTuple):
    """One phone of an alignment: `label` from `start_s` up to but not including `end_s`.

    Times are seconds from the start of the utterance (not of the file it is cut from).
    """

    start_s: float
    end_s: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureDeclaration:
    """What a corpus says of the precomputed frames that lie beside its sound.

    Frame *k* speaks of the time `first_center_seconds + k * hop_seconds` of its utterance.

    Attributes:
        name: What they are called in records (`fmllr`).
        hop_seconds: Time between two frames' centres, as declared by whoever made them.
        first_center_seconds: The time of which frame 0 speaks.
        width: Values of a frame.
        format: In what kind of file they lie.
    """

    name: str
    hop_seconds: float
    first_center_seconds: float
    width: int
    format: FeatureFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """One stretch of speech and what is true of it.

    Attributes:
        id: Unique in the corpus, NFC-normalised.
        audio: Absolute path of the sound file.
        start: Where the utterance starts in the file, in seconds; None for the whole file.
        end: Where it ends, in seconds; None for the end of the file.
        sample_rate_hz: Rate of the file.
        num_samples: Samples of the utterance (after `start`/`end`) at `sample_rate_hz`.
        speaker: Who speaks, if known.
        text: What is said, if known.
        phones: Its alignment, in order and without overlap; None where there is none. Gaps carry no label.
        attributes: Everything else that is known (`emotion`, `sentiment`, `gender`, `digit`, …).
        group: What ties utterances together beside the speaker: chapter, session, video.
        split: The official split it belongs to, if the corpus has any.
        samples_sha256: SHA-256 of its decoded samples (float32, little endian).
        features: Absolute path of its precomputed frames, if it has any.
        features_sha256: SHA-256 of the bytes of that file.
        scales: From an attribute whose numbers lie on a scale, as the corpus declares, to the middle of the scale. Any
            other number may be the code of a class.
        channel: Which channel of a sound of several is read, from 1 on, or "mix" for their mean; None: the only one.
    """

    id: str
    audio: Path
    sample_rate_hz: int
    num_samples: int
    start: float | None = None
    end: float | None = None
    speaker: str | None = None
    text: str | None = None
    phones: tuple[Phone, ...] | None = None
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    group: str | None = None
    split: Split | None = None
    samples_sha256: str
    features: Path | None = None
    features_sha256: str | None = None
    scales: Mapping[str, float] = field(default_factory=dict)
    channel: Channel | None = None

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return self.num_samples / self.sample_rate_hz


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """An opened corpus: every utterance, in the order of their ids.

    Attributes:
        name: Name of the corpus.
        licence: Under which its sound may be used, as its source says.
        utterances: Sorted by id.
        label_sets: Every label a kind of label can take, sorted: `{"phones": ("AA", …, "sil")}`.
        resample: Whether its sound may be resampled to an upstream's rate.
        fingerprint: SHA-256 of all that a score depends on: labels, splits and samples, not places on disk.
        notes: What a reader of a score should know of how the corpus was made.
        features: What the precomputed frames of its utterances are; None where there are none.
        dropped: From the name of each utterance that was left out when the corpus was prepared to the reason.
    """

    name: str
    licence: str
    utterances: tuple[Utterance, ...]
    label_sets: Mapping[str, tuple[str, ...]]
    resample: Resample
    fingerprint: str
    notes: tuple[str, ...] = ()
    features: FeatureDeclaration | None = None
    dropped: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftUtterance:
    """An utterance as a layout describes it, before its sound has been read. Fields as in `Utterance`.

    Attributes:
        fault: What is wrong with it, where the layout found something; such an utterance is reported with all others.
    """

    id: str
    audio: Path
    start: float | None = None
    end: float | None = None
    speaker: str | None = None
    text: str | None = None
    phones: tuple[Phone, ...] | None = None
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    group: str | None = None
    split: Split | None = None
    features: Path | None = None
    fault: RepbenchError | None = None
    channel: Channel | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftFeatures:
    """What is declared of precomputed frames before they have been read. Fields as in `FeatureDeclaration`."""

    name: str
    hop_seconds: float
    first_center_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What a layout read from a folder; `manifest.write` reads the sound and makes it a manifest.

    Attributes:
        name: Name of the corpus.
        licence: As its source states it, or "unknown".
        root: The folder under which every sound file must lie.
        utterances: In any order.
        phone_map: From each phone label met in the alignments to the label used (None: not labelled, ignored); the
            map stands in `corpus.json`. None where the corpus has no phones.
        phone_set: All phone labels the corpus may use; defaults to the labels the map leads to.
        notes: What a reader of a score should know.
        features: What the precomputed frames are; needed where an utterance has any.
        faults: What was found that cannot become an utterance: a row without a path, a file whose name says nothing.
        left_out: From the name of each utterance that the layout itself leaves out to the reason, where its corpus is
            known to have such; they stand in `corpus.json` beside those of `--drop-faulty`.
        follow_links: Whether a symbolic link may lead out of the root.
        scales: From an attribute whose numbers lie on a scale to the middle of the scale; `corpus.json` keeps it.
    """

    name: str
    licence: str
    root: Path
    utterances: Iterable[DraftUtterance]
    phone_map: Mapping[str, str | None] | None = None
    phone_set: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    features: DraftFeatures | None = None
    faults: tuple[RepbenchError, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    follow_links: bool = False
    scales: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareOptions:
    """What the command line gives a layout beside the root.

    Attributes:
        alignments: File or folder of phone alignments.
        tier: Of TextGrids the tier of phones; None for the one that is known by its name.
        relabel: From labels of the alignments to the phones that they stand for; None: not labelled.
        keep_labels: Whether every label of the alignments is taken as it is, without folding and without a question.
        table: The table of the `csv` layout, the labels of `mosi` and `mosei`; None: the one such file in the root. The
            data folder of the `kaldi` layout; None: the root.
        columns: For the `csv` layout, from the field's name to the table's column name.
        features: For the `csv` layout, what the frames of its column `features` are.
        variant: One of the layout's own ways to choose and divide its utterances; None: its default.
        pattern: For the `pattern` layout, how its files are named (`{speaker}_{emotion}_{take}.wav`).
        splits: Lists of utterances, or folders of them, that go before the official splits of the layout.
        dev_from_train: Share of the list of train that becomes dev, and the seed by which it is drawn.
        min_utterances: How many utterances a speaker must have to stay.
        exclude: Globs of files and folders under the root that are left out (`layouts.is_excluded`).
        follow_links: Whether symbolic links are followed out of the root.
        gather_faults: Whether a layout goes on after a fault of one utterance and hands it on in its draft, so that all
            are reported at once; else it raises the first.
        channel: Which channel is read of a sound of several, from 1 on, or "mix" for their mean; None: such a sound is
            refused, unless the layout says of an utterance which it is.

    All from `splits` on hold for every layout: `repbench.corpora.manifest.prepare` sees to them. A layout that searches
    folders reads `exclude` and `follow_links` too.
    """

    alignments: Path | None = None
    tier: str | None = None
    relabel: Mapping[str, str | None] = field(default_factory=dict)
    keep_labels: bool = False
    table: Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    features: DraftFeatures | None = None
    variant: str | None = None
    pattern: str | None = None
    splits: tuple[Path, ...] = ()
    dev_from_train: tuple[float, int] | None = None
    min_utterances: int | None = None
    exclude: tuple[str, ...] = ()
    follow_links: bool = False
    gather_faults: bool = False
    channel: Channel | None = None


Progress = Advance
"""Called with (done, total) as work goes on."""


@runtime_checkable
class CorpusSource(Protocol):
    """A corpus that can be named on the command line."""

    def open(self, options: tuple[str, ...], *, progress: Progress | None = None) -> Corpus:
        """Open the corpus; `options` are the words after its name (`synthetic:noisy:small` → `("noisy", "small")`).

        Raises:
            UsageError: An option is unknown (the message lists those that exist).
        """
        ...


@runtime_checkable
class CorpusLayout(Protocol):
    """A way in which corpora lie on disk."""

    def prepare(self, root: Path, options: PrepareOptions) -> Draft:
        """Describe what lies under `root`.

        Raises:
            DataError: The folder is not of this layout, or contradicts itself; names the file.
        """
        ...
