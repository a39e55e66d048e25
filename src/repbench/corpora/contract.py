"""The contract of corpora: utterances, their labels, and the paths of their sounds.

A corpus is independent of tasks. A corpus plugin (entry-point group `repbench.corpora`) is one of two things:

* a `CorpusSource`: makes or opens a corpus, given its name (`--corpus synthetic:noisy:small`);
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
"""The label of silence in every phone set that folds its silences into one."""


class Phone(NamedTuple):
    """One phone of an alignment: `label` from `start_s` up to but not including `end_s`.

    Times are seconds from the start of the utterance (not of the file it is cut from).
    """

    start_s: float
    end_s: float
    label: str


class Turn(NamedTuple):
    """One stretch of speech of one speaker of a recording of several: from `start_s` up to but not including `end_s`.

    Times are seconds from the start of the utterance. Turns of different speakers may overlap.
    """

    start_s: float
    end_s: float
    speaker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureDeclaration:
    """The precomputed frames of a corpus, as declared.

    Frame *k* is centred at `first_center_seconds + k * hop_seconds` of its utterance.

    Attributes:
        name: The name of the features in records (`fmllr`).
        hop_seconds: Time between the centres of two frames, in seconds.
        first_center_seconds: Centre of frame 0, in seconds.
        width: Values of a frame.
        format: Format of the files.
    """

    name: str
    hop_seconds: float
    first_center_seconds: float
    width: int
    format: FeatureFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """One stretch of speech and its labels.

    Utterances of a large manifest read their fields when they are asked for: keep the tuple of `phones` if it is needed
    more than once, since each request reads it again.

    Attributes:
        id: Unique in the corpus, NFC-normalised.
        audio: Absolute path of the sound file.
        start: Where the utterance starts in the file, in seconds; None for the whole file.
        end: Where it ends, in seconds; None for the end of the file.
        sample_rate_hz: Rate of the file.
        num_samples: Samples of the utterance (after `start`/`end`) at `sample_rate_hz`.
        speaker: The speaker, if known.
        text: The transcript, if known.
        phones: Its alignment, in order and without overlap; None where there is none. Gaps carry no label.
        attributes: All other labels (`emotion`, `sentiment`, `gender`, `digit`, …).
        group: The chapter, session or video that utterances share.
        split: The official split it belongs to, if the corpus has any.
        samples_sha256: SHA-256 of its decoded samples (float32, little endian).
        features: Absolute path of its precomputed frames, if it has any.
        features_sha256: SHA-256 of the bytes of that file.
        scales: From each attribute that the corpus declares to be a scale to the middle of the scale. The numbers of
            other attributes may be codes of classes.
        channel: Which channel of a sound of several is read, from 1 on, or "mix" for their mean; None: the only one.
        turns: Who speaks when, sorted, those of one speaker apart; None where it is not known. Without any nobody
            speaks.
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
    turns: tuple[Turn, ...] | None = None

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return self.num_samples / self.sample_rate_hz


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """An opened corpus: every utterance, in the order of their ids.

    Attributes:
        name: Name of the corpus.
        licence: Licence of the sound, as its source states it.
        utterances: Sorted by id.
        label_sets: From each kind of label to all its labels, sorted: `{"phones": ("AA", …, "sil")}`.
        resample: Whether its sound may be resampled to an upstream's rate.
        fingerprint: SHA-256 of all that a score depends on: labels, splits and samples, but not paths.
        notes: Facts about the making of the corpus that matter to a reader of a score.
        features: The declaration of its precomputed frames; None where there are none.
        dropped: From each utterance that was left out when the corpus was prepared to the reason.
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
        fault: The fault that the layout found in it, if any; reported together with all other faults.
        where: The file and the row that describe it, for errors about its labels.
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
    turns: tuple[Turn, ...] | None = None
    where: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftFeatures:
    """The declaration of precomputed frames that have not been read yet. Fields as in `FeatureDeclaration`."""

    name: str
    hop_seconds: float
    first_center_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A corpus as a layout describes it; `manifest.write` reads the sound and makes a manifest of it.

    Attributes:
        name: Name of the corpus.
        licence: As its source states it, or "unknown".
        root: The folder that holds every sound file, at any depth.
        utterances: In any order.
        phone_map: From each phone label met in the alignments to the label used (None: not labelled, ignored); the
            map is in `corpus.json`. None where the corpus has no phones.
        phone_set: All phone labels the corpus may use; defaults to the labels the map leads to.
        notes: Facts that matter to a reader of a score.
        features: The declaration of the precomputed frames; required where an utterance has any.
        faults: Faults of what cannot become an utterance: a row without a path, a file of another name.
        left_out: From each utterance that the layout itself leaves out to the reason, for corpora that are known to
            have such; `corpus.json` lists them together with those of `--drop-faulty`.
        follow_links: Whether a symbolic link may lead out of the root.
        scales: From each attribute that is a scale to the middle of the scale; kept in `corpus.json`.
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
    """The options of `repbench corpus prepare` for a layout.

    Attributes:
        alignments: File or folder of phone alignments.
        tier: Of TextGrids, and of what else has tiers, the one of phones; None for the one with a known name.
        relabel: From labels of the alignments to the phones that they mean; None: not labelled.
        keep_labels: Whether the labels of the alignments are neither folded nor checked.
        table: The table of the `csv` layout, the labels of `mosi` and `mosei`; None: the one such file in the root. The
            data folder of `kaldi`, the tables of `huggingface`, the manifests of `lhotse`; None: the root.
        columns: For the layouts `csv` and `huggingface`, from the field's name to the table's column name.
        features: For the `csv` layout, what the frames of its column `features` are.
        variant: One of the layout's own ways to choose and divide its utterances; None: its default.
        pattern: For the `pattern` layout, how its files are named (`{speaker}_{emotion}_{take}.wav`).
        splits: Lists of utterances, or folders of them, that go before the official splits of the layout.
        dev_from_train: Share of the list of train that becomes dev, and the seed by which it is drawn.
        min_utterances: How many utterances a speaker must have to stay.
        exclude: Globs of files and folders under the root to leave out (`layouts.is_excluded`).
        follow_links: Whether symbolic links are followed out of the root.
        gather_faults: Whether a layout collects faults of single utterances in its draft, so that all are reported at
            once; else it raises the first.
        channel: The channel to read of a sound of several, from 1 on, or "mix" for their mean; None: such a sound is
            refused, unless the layout gives the channel of the utterance.
        rttm: File or folder of the turns of all utterances (`repbench.corpora.rttm`).

    `repbench.corpora.manifest.prepare` applies all options from `splits` on, for every layout. A layout that searches
    folders must apply `exclude` and `follow_links` itself.
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
    rttm: Path | None = None


Progress = Advance
"""Called with (done, total) as work goes on."""


@runtime_checkable
class CorpusSource(Protocol):
    """A corpus that is opened by its name."""

    def open(self, options: tuple[str, ...], *, progress: Progress | None = None) -> Corpus:
        """Open the corpus; `options` are the words after its name (`synthetic:noisy:small` → `("noisy", "small")`).

        Raises:
            UsageError: An option is unknown (the message lists those that exist).
        """
        ...


@runtime_checkable
class CorpusLayout(Protocol):
    """A reader of corpora of one form on disk.

    A layout whose files hold phones themselves has the attribute `has_alignments = True`: the options of alignments
    (`relabel`, `keep_labels`) then hold for these too.
    """

    def prepare(self, root: Path, options: PrepareOptions) -> Draft:
        """Describe the corpus under `root`.

        Raises:
            DataError: The folder is not of this layout, or contradicts itself; names the file.
        """
        ...
