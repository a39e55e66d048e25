"""The Free Spoken Digit Dataset: `recordings/{digit}_{speaker}_{take}.wav`, or the same in another sound format.

Reference: Jackson et al., "Free Spoken Digit Dataset", https://doi.org/10.5281/zenodo.1342401. Its README makes takes
0-4 the test set.
"""

from __future__ import annotations

import re
from pathlib import Path

from repbench.corpora.alignments import align
from repbench.corpora.contract import Draft, DraftUtterance, PrepareOptions
from repbench.corpora.faults import FaultCollector
from repbench.corpora.layouts.sound_files import sounds_in
from repbench.errors import DataError

_RECORDING = re.compile(r"([0-9])_([^_]+)_([0-9]+)")
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_NUM_TEST_TAKES = 5


class FreeSpokenDigits:
    """The layout `fsdd`: a folder with `recordings/`.

    Takes 0-4 are the official test split, the others train; every speaker is in both. The attributes are `digit` and
    `take`, the text is the digit's word.
    """

    def prepare(self, root: Path, options: PrepareOptions) -> Draft:
        """Describe the recordings under `root`; errors as `CorpusLayout.prepare`."""
        sounds = sounds_in(root / "recordings")
        if not sounds:
            what = "The folder is not laid out like fsdd; looked for recordings/DIGIT_SPEAKER_TAKE.wav"
            raise DataError(what, file=root, do="Give the folder that holds `recordings/`")
        collector = FaultCollector(gather=options.gather_faults)
        utterances = []
        for audio in sounds:
            with collector.each():
                utterances.append(_utterance(audio))
        draft = Draft(
            name="fsdd", licence="CC BY-SA 4.0", root=root, utterances=utterances, faults=tuple(collector.faults)
        )
        return draft if options.alignments is None else align(draft, options.alignments, options)


FSDD = FreeSpokenDigits()


def _utterance(audio: Path) -> DraftUtterance:
    named = _RECORDING.fullmatch(audio.stem)
    if named is None:
        what = "The sound is not named like fsdd's; looked for DIGIT_SPEAKER_TAKE.wav"
        raise DataError(what, file=audio, do="Rename it or move it out of the corpus")
    digit, take = int(named[1]), int(named[3])
    return DraftUtterance(
        id=audio.stem,
        audio=audio,
        speaker=named[2],
        text=_WORDS[digit],
        attributes={"digit": digit, "take": take},
        split="test" if take < _NUM_TEST_TAKES else "train",
    )
