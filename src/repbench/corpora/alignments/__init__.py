"""Phone alignments: reading the files that aligners and annotators write, and comparing them with the sound.

The format of a file follows from the ending of its name and, where that is ambiguous, from its first lines:

    ending      first lines                               format
    .TextGrid   (any)                                     Praat's TextGrid, long or short form
    .phn        (any)                                     TIMIT: `first last phone`, in samples of the sound
    .ctm        (any)                                     CTM: `utterance channel start duration phone [score]`
    .mlf        (any)                                     HTK's master label file; start and end in 100 ns
    .json       (any)                                     of the Montreal Forced Aligner: tiers of start, end and label
    .item       (any)                                     ABX: `file onset offset phone previous next speaker`
    .lab        a line `#`                                EMU/ESPS xlabel: after it `end colour label`
    .lab        `whole whole label`                       HTS: start and end in 100 ns
    .lab, .txt  `number number phone`                     start and end in seconds
    .txt        `utterance channel number number phone`   CTM
    .txt        `utterance label label …`                 label lines: one label every 10 ms

All labels of one label line are whole numbers, or none is. Space separates cells; lines that are blank, and in a CTM
those that begin with `;;`, are ignored. A TextGrid, a `.phn`, a `.lab` and a file of start, end and phone hold one
utterance each and are named after its id: by the stem of the file, or by its place under the folder with `/`, `-` or
`_` between the parts. A CTM, a file of label lines, a master label file and an item file hold many utterances and may
have any name.

Files of one utterance are UTF-8 or UTF-16, the others UTF-8. The tier of a TextGrid that holds the phones is known by
its name or named by the user; states of HTS and HTK are joined into phones. `intervals` holds the tolerances between an
alignment and its sound, `repbench.corpora.phone_sets` the folding of labels.

A folder is searched as a whole. It must be of one format; its `.txt` files count only where no other ending of the
table is there, and of them those named after utterances before all others; lists (one word a line) never count.

`unaligned.txt`, anywhere in the folder or in its parent, or next to the file or one folder up, lists utterances that
have no alignment, one id a line; a listed utterance that has an alignment is refused.
"""

from repbench.corpora.alignments.aligning import align, align_read
from repbench.corpora.alignments.intervals import (
    END_GAP_S,
    LENGTH_TOLERANCE_S,
    ROUNDING_S,
    WINDOW_S,
    Alignment,
    validate_alignment,
    validate_phones,
)

__all__ = [
    "END_GAP_S",
    "LENGTH_TOLERANCE_S",
    "ROUNDING_S",
    "WINDOW_S",
    "Alignment",
    "align",
    "align_read",
    "validate_alignment",
    "validate_phones",
]
