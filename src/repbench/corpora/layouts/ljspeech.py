"""LJSpeech as it unpacks, `wavs/*.wav` and `metadata.csv`, or with its sounds in another format; one speaker.

Reference: Ito and Johnson, "The LJ Speech Dataset", 2017.
"""

from __future__ import annotations

from pathlib import Path

from repbench.corpora.alignments import align
from repbench.corpora.contract import Draft, DraftUtterance, PrepareOptions
from repbench.corpora.layouts.sound_files import sounds_in, without_ending
from repbench.corpora.layouts.text_notes import text_notes
from repbench.corpora.textfiles import text_lines
from repbench.errors import DataError

SPEAKER = "LJ"


class LJSpeech:
    """The layout `ljspeech`: a folder with `wavs/`.

    The text is the normalised transcription of `metadata.csv`, if present; clips without one are counted.
    Alignments are those of `alignments`, or else the TextGrids of the folder `TextGrid/` in the root. There are
    no official splits.
    """

    def prepare(self, root: Path, options: PrepareOptions) -> Draft:
        """Describe the clips under `root`; errors as `CorpusLayout.prepare`."""
        sounds = sounds_in(root / "wavs")
        if not sounds:
            what = "The folder is not laid out like LJSpeech; looked for wavs/*.wav"
            raise DataError(what, file=root, do="Give the folder that holds `wavs/`")
        texts = _texts(root / "metadata.csv")
        utterances = [
            DraftUtterance(id=audio.stem, audio=audio, speaker=SPEAKER, text=texts.get(audio.stem)) for audio in sounds
        ]
        notes = text_notes(utterances, len(texts))
        draft = Draft(name="ljspeech", licence="public domain", root=root, utterances=utterances, notes=notes)
        own = root / "TextGrid"
        alignments = own if options.alignments is None and own.is_dir() else options.alignments
        return draft if alignments is None else align(draft, alignments, options)


LJSPEECH = LJSpeech()


def _texts(path: Path) -> dict[str, str]:
    """From the id of a clip to its text; empty where there is no metadata.

    Some copies and relatives of the corpus write an id as a file, `LJ001-0001.wav` or `wavs/LJ001-0001.wav`.
    """
    if not path.is_file():
        return {}
    texts: dict[str, str] = {}
    for number, line in text_lines(path):
        cells = line.split("|")
        clip = without_ending(cells[0].strip().replace("\\", "/").rpartition("/")[2])
        if len(cells) not in (2, 3) or clip in texts:
            what = "A line must be `ID|TRANSCRIPTION|NORMALISED`, its id once"
            raise DataError(what, file=f"{path}:{number}", utterance=cells[0], do="Mend the line")
        texts[clip] = cells[-1].strip()
    return texts
