"""LibriMix as its scripts write it: `{train-100,train-360,dev,test}/{mix_clean,mix_both,s1,s2,…}/ID.wav`.

Reference: Cosentino et al., "LibriMix: An Open-Source Dataset for Generalizable Speech Separation" (arXiv:2005.11262).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from repbench.audio.sound import read_sound
from repbench.corpora.contract import Draft, DraftUtterance, PrepareOptions, Split, Turn
from repbench.corpora.faults import FaultCollector
from repbench.corpora.layouts.file_search import is_excluded, is_there, refuse_missing_root
from repbench.corpora.layouts.options import refuse_options
from repbench.corpora.layouts.sound_files import sounds_in
from repbench.errors import DataError, UsageError

PARTS: Mapping[str, Split] = {"train-100": "train", "train-360": "train", "dev": "dev", "test": "test"}

_NAME = "SPEAKER-CHAPTER-NUMBER_SPEAKER-CHAPTER-NUMBER"
_NEXT = "_"
_WITHIN = "-"


class LibriMix:
    """The layout `librimix`: the folder that holds `train-100/`, `dev/`, `test/` (`Libri2Mix/wav16k/max`).

    An utterance is a mixture of utterances of LibriSpeech, and its id names them. The turn of each speaker is what its
    source (`s1/ID.wav`, …) holds between the zeros that fill it up to the length of the mixture; pauses are part of it.
    With `--rttm` the turns come from there, and sources are not read. The speaker is all of them, `1089+121`.

    Attributes:
        variants: The mixtures that are read; the first is the default.
    """

    variants = ("mix_clean", "mix_both", "mix_single")

    def prepare(self, root: Path, options: PrepareOptions) -> Draft:
        """Describe the mixtures of all parts; errors as `CorpusLayout.prepare`."""
        refuse_options("librimix", options, reads=("variant",))
        refuse_missing_root(root)
        kind = options.variant or self.variants[0]
        if kind not in self.variants:
            what = f"The layout `librimix` has no variant `{kind}`"
            raise UsageError(what, key="--variant", do=f"Choose from {', '.join(self.variants)}")
        collector = FaultCollector(gather=options.gather_faults)
        utterances = []
        for part, split in PARTS.items():
            for audio in sounds_in(root / part / kind):
                if is_excluded(audio.relative_to(root).as_posix(), options.exclude):
                    continue
                with collector.each():
                    utterances.append(_utterance(audio, split, reads_sources=options.rttm is None))
        if not utterances and not collector.faults:
            what = f"No mixture was found; looked for train-100/{kind}/{_NAME}.wav, dev/… and test/…"
            raise DataError(what, file=root, do="Give the folder of one rate and mode, such as Libri2Mix/wav16k/max")
        return Draft(
            name=f"librimix-{kind}",
            licence="CC BY 4.0",
            root=root,
            utterances=utterances,
            notes=("The turn of a speaker is its whole utterance, pauses included.",) if options.rttm is None else (),
            faults=tuple(collector.faults),
        )


LIBRIMIX = LibriMix()


def _utterance(audio: Path, split: Split, *, reads_sources: bool) -> DraftUtterance:
    speakers = [name.split(_WITHIN)[0] for name in audio.stem.split(_NEXT)]
    if any(name.count(_WITHIN) != 2 for name in audio.stem.split(_NEXT)) or len(set(speakers)) < len(speakers):
        what = f"The mixture is not named after utterances of different speakers, {_NAME}"
        raise DataError(what, file=audio, utterance=audio.stem, do="Move it out of the folder")
    return DraftUtterance(
        id=audio.stem,
        audio=audio,
        speaker="+".join(sorted(speakers)),
        split=split,
        turns=tuple(_turns(audio, speakers)) if reads_sources else None,
    )


def _turns(audio: Path, speakers: list[str]) -> Iterator[Turn]:
    for number, speaker in enumerate(speakers, start=1):
        source = audio.parent.parent / f"s{number}" / audio.name
        if not is_there(source):
            do = "Make the sources too, or give the turns with --rttm"
            raise DataError(f"The source s{number}/{audio.name} is missing", file=source, utterance=audio.stem, do=do)
        samples, rate_hz = read_sound(source, utterance=audio.stem)
        sounding = np.flatnonzero(samples)  # (T,) -> (samples that are not zero,)
        if len(sounding):
            yield Turn(int(sounding[0]) / rate_hz, (int(sounding[-1]) + 1) / rate_hz, speaker)
