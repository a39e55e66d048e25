"""Which names mean one corpus, and what corpora share: sources of recordings, splits, ids of speakers.

The table has the corpora that the layouts read and those that speech models are commonly trained on. What it does not
have is a corpus of its own, of which nothing is known but the name.

Sources: the papers and pages of the corpora; of those that say what is left out or kept apart, at the entry.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

SplitRelation = Literal["same", "other", "unknown"]

ALL = "all"
"""A split that stands for every one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One corpus under all its names.

    Attributes:
        name: As its authors write it.
        aliases: Other names, reduced by `normalised`; the name itself need not be among them.
        sources: Where its recordings come from: corpora that share one may share recordings.
        made_of: Another corpus whose recordings it holds, divided as there.
        groups: From a name of several splits to those splits.
        division: `one`: one official division, so that names of splits can be compared. `none`: no official split, so
            that its name stands for all of it. `several`: divisions or versions in which an utterance may change sides.
        speakers_apart: Whether its official splits share no speaker.
        speaker_ids: Name of the space of its speaker ids, which corpora may share; None: those of the family.
        leaves_out: Of another corpus the splits whose speakers it leaves out.
        has_variants: Whether words after a colon choose its utterances or their sound: under unequal names neither
            splits nor samples can be compared.
        sound_words: Such words that change the sound alone: its speakers and texts are the same without them.
    """

    name: str
    aliases: tuple[str, ...] = ()
    sources: frozenset[str] = frozenset()
    made_of: str | None = None
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    division: Literal["one", "none", "several"] = "several"
    speakers_apart: bool = False
    speaker_ids: str | None = None
    leaves_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    has_variants: bool = False
    sound_words: frozenset[str] = frozenset()


_LIBRIVOX = frozenset({"LibriVox"})
_YOUTUBE = frozenset({"YouTube"})
_960 = ("train-clean-100", "train-clean-360", "train-other-500")

FAMILIES = (
    # "The subsets are disjoint, i.e. the audio of each speaker is assigned to exactly one subset" (its README).
    Family(
        name="LibriSpeech",
        aliases=("librispeechasr", "librispeech960", "librispeech960h", "ls960", "librispeechlong", "librispeechpc"),
        sources=_LIBRIVOX,
        groups={"960h": _960, "train-960": _960, "train-960h": _960, "train-clean-460": _960[:2]},
        division="one",
        speakers_apart=True,
        speaker_ids="LibriVox",
    ),
    # Its scripts take the speakers of LibriSpeech's dev and test as held out: github.com/facebookresearch/libri-light,
    # data_preparation/split_librilight.
    Family(
        name="Libri-Light",
        aliases=("librilight60k", "ll60k"),
        sources=_LIBRIVOX,
        speaker_ids="LibriVox",
        leaves_out={"LibriSpeech": ("dev", "test")},
    ),
    # Zen et al., Interspeech 2019: the subsets are those of LibriSpeech, with its speakers.
    Family(
        name="LibriTTS",
        aliases=("librittsr",),
        sources=_LIBRIVOX,
        made_of="LibriSpeech",
        groups={"train-960": _960},
        division="one",
        speakers_apart=True,
        speaker_ids="LibriVox",
    ),
    # Cosentino et al., arXiv:2005.11262: mixtures of the clean subsets of LibriSpeech, split by split.
    Family(
        name="LibriMix",
        aliases=("libri2mix", "libri3mix"),
        sources=_LIBRIVOX,
        made_of="LibriSpeech",
        division="one",
        speakers_apart=True,
        speaker_ids="LibriVox",
    ),
    Family(
        name="Multilingual LibriSpeech",
        aliases=("mls", "multilinguallibrispeech", "mlseng"),
        sources=_LIBRIVOX,
        speaker_ids="LibriVox",
    ),
    Family(name="LJSpeech", aliases=("ljspeech11",), sources=_LIBRIVOX, division="none"),
    # Speakers of VoxCeleb have one space of ids, id1… of the first and id0… of the second; identification and
    # verification divide it differently.
    Family(name="VoxCeleb", aliases=("voxceleb1", "voxceleb2", "voxceleb12"), sources=_YOUTUBE),
    Family(name="Common Voice", aliases=("mozillacommonvoice",)),
    Family(name="FLEURS", aliases=("googlefleurs",), division="one"),
    Family(name="VoxPopuli", aliases=("voxpopuli10k", "voxpopuli100k")),
    Family(name="VoxLingua107", aliases=("voxlingua",), sources=_YOUTUBE, division="one"),
    Family(name="GigaSpeech", sources=frozenset({"YouTube", "audiobooks", "podcasts"})),
    Family(name="AudioSet", sources=_YOUTUBE, division="one"),
    Family(name="BABEL", aliases=("babelspeech", "iarpababel")),
    Family(name="TED-LIUM", aliases=("tedlium2", "tedlium3")),
    Family(name="VCTK", aliases=("cstrvctk", "vctkcorpus"), division="none"),
    Family(name="AISHELL", aliases=("aishell1", "aishell3")),
    Family(name="Wall Street Journal", aliases=("wsj", "wsj0", "wsj1", "wsj0wsj1")),
    Family(name="Switchboard", aliases=("swbd", "switchboard1")),
    Family(name="TIMIT", aliases=("timitasr",)),
    Family(name="Speech Commands", aliases=("googlespeechcommands", "speechcommandsv1", "speechcommandsv2")),
    Family(name="Fluent Speech Commands", aliases=("fsc",), division="one"),
    Family(name="SNIPS", aliases=("audiosnips", "snipsaudio")),
    Family(name="IEMOCAP", division="none"),
    Family(name="CREMA-D", division="none"),
    Family(name="RAVDESS", division="none"),
    Family(name="EMO-DB", aliases=("emodb", "berlinemodb"), division="none"),
    Family(name="CMU-MOSI", aliases=("mosi",), sources=_YOUTUBE),
    Family(name="CMU-MOSEI", aliases=("mosei",), sources=_YOUTUBE),
    Family(name="FSDD", aliases=("freespokendigitdataset",)),
    Family(name="speechocean762", division="one"),
    Family(name="synthetic", division="one", has_variants=True, sound_words=frozenset({"clean", "noisy", "hard"})),
)

_WITH_ENDING = re.compile(r"(common[-_ ]?voice|librimix|mosi|mosei)[-_ ]\w+[\w.-]*")
"""Names that end in a version or variant: `common_voice_11_0`, `librimix-mix_both`."""


def normalised(name: str) -> str:
    """A name without owner, options, case and punctuation: `openslr/librispeech_asr` is `librispeechasr`."""
    return re.sub(r"[\W_]+", "", name.rpartition("/")[2].partition(":")[0].lower())


def family_of(name: str) -> Family | None:
    """The corpus that a name means; None if the table does not have it."""
    known = _BY_NAME.get(normalised(name))
    ended = _WITH_ENDING.fullmatch(name.rpartition("/")[2].lower())
    return _BY_NAME[normalised(ended[1])] if known is None and ended is not None else known


_BY_NAME = {name: family for family in FAMILIES for name in (normalised(family.name), *family.aliases)}


def speaker_space(name: str) -> str:
    """Name of the space of a corpus's speaker ids: equal ids in one space are one speaker."""
    family = family_of(name)
    if family is None:
        return name
    if family.has_variants:
        return ":".join(word for word in name.split(":") if word not in family.sound_words)
    return family.speaker_ids or family.name


def is_variant(name: str, other: str) -> bool:
    """Whether two unequal names mean variants of one corpus, of whose speech nothing can be compared but speakers."""
    family = family_of(name)
    return family is not None and family.has_variants and family == family_of(other) and name != other


_WORDS = {
    "training": "train",
    "development": "dev",
    "validation": "dev",
    "valid": "dev",
    "val": "dev",
    "eval": "test",
    "evaluation": "test",
}
_HEADS = ("train", "dev", "test")


def split_name(name: str) -> str:
    """A split in one spelling: `train.clean.100` is `train-clean-100`, `validation` is `dev`."""
    first, *rest = re.split(r"[\W_]+", name.strip().lower())
    return "-".join((_WORDS.get(first, first), *rest))


def split_relation(declared: Iterable[str], split: str | None, family: Family | None = None) -> SplitRelation:
    """Whether an utterance of a split is in any of the declared splits.

    Args:
        declared: Names of splits; at least one.
        split: The split of the utterance: `test-clean`, or `test` where no more is known. None: not known.
        family: The corpus, for names that stand for several of its splits.

    Returns:
        `same`: it is. `other`: it is not. `unknown`: a name is none of a split, or too wide to tell.
    """
    names = [split_name(each) for each in declared]
    groups = {} if family is None else family.groups
    names = [each for name in names for each in groups.get(name, (name,))]
    if ALL in names:
        return "same"
    if split is None:
        return "unknown"
    relations = {_of_two(name, split_name(split)) for name in names}
    return next(each for each in ("same", "unknown", "other") if each in relations)


def _of_two(declared: str, split: str) -> SplitRelation:
    if split == declared or split.startswith(f"{declared}-"):
        return "same"
    # `test` may or may not be of `test-clean`; words such as `default` are no split.
    heads = {each.partition("-")[0] for each in (declared, split)}
    return "unknown" if declared.startswith(f"{split}-") or not heads <= set(_HEADS) else "other"
