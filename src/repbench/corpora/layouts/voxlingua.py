"""VoxLingua107 as it unpacks, and any other folder of languages' folders: `LANGUAGE/NAME.wav`.

Reference: Valk and Alumäe, "VoxLingua107: a Dataset for Spoken Language Recognition", SLT 2021.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from repbench.corpora.alignments import align
from repbench.corpora.contract import Draft, DraftUtterance, PrepareOptions, Split
from repbench.corpora.faults import FaultCollector
from repbench.corpora.layouts.file_search import files_under, refuse_missing_root
from repbench.corpora.layouts.options import refuse_options
from repbench.corpora.layouts.sound_files import is_sound
from repbench.errors import DataError

VIDEO_END = "__U__"
"""What follows the name of the video in the name of a file."""

_PARTS = ("train", "dev", "test")
_LOOKED_FOR = "LANGUAGE/NAME.wav, in the root or in train/, dev/ and test/"


class LanguageFolders:
    """The layout `voxlingua`: a folder of languages' folders, in the root or in `train/`, `dev/` and `test/`.

    The attribute `language` is the name of the folder. Speakers are not known; the group is the video, where the name
    of a file holds one (`VIDEO__U__S1---0000.000-0004.000.wav`).

    Where there is a folder `dev/` or `test/`, it is a split, and the other languages' folders are train. VoxLingua107
    has only `dev/`: that is the test split, because it is the part on which results are published, and a run cuts its
    dev from train. Without these folders there are no official splits.
    """

    def prepare(self, root: Path, options: PrepareOptions) -> Draft:
        """Describe the sounds under `root`; errors as `CorpusLayout.prepare`."""
        refuse_options("voxlingua", options, reads=("alignments",))
        refuse_missing_root(root)
        collector = FaultCollector(gather=options.gather_faults)
        splits = _splits(root)
        utterances = list(_utterances(root, splits, options, collector))
        if not utterances and not collector.faults:
            what = f"The folder is not laid out like VoxLingua107; looked for {_LOOKED_FOR}"
            raise DataError(what, file=root, do="Give the folder that holds the folders of the languages")
        is_dev_test = splits.get("dev") == "test"
        draft = Draft(
            name="voxlingua",
            licence="CC BY 4.0" if any(VIDEO_END in each.audio.name for each in utterances) else "unknown",
            root=root,
            utterances=utterances,
            notes=("the folder dev/ is the test split; a run cuts its dev from train",) if is_dev_test else (),
            faults=tuple(collector.faults),
        )
        return draft if options.alignments is None else align(draft, options.alignments, options)


VOXLINGUA = LanguageFolders()


def _splits(root: Path) -> dict[str, Split]:
    """From the folders of parts that are there to their splits; empty without a part that is held out."""
    there = [part for part in _PARTS if (root / part).is_dir()]
    if "dev" not in there and "test" not in there:
        return {}
    splits: dict[str, Split] = {"train": "train", "dev": "dev", "test": "test"}
    return splits if "test" in there else {**splits, "dev": "test"}


def _utterances(
    root: Path, splits: Mapping[str, Split], options: PrepareOptions, collector: FaultCollector
) -> Iterator[DraftUtterance]:
    for path in files_under(root, options):
        with collector.each():
            if not is_sound(path):
                continue
            place = path.relative_to(root).with_suffix("").parts
            part = place[0] if place[0] in _PARTS else None
            names = place if part is None else place[1:]
            if len(names) != 2:
                what = f"The sound is not in the folder of a language; looked for {_LOOKED_FOR}"
                raise DataError(what, file=path, do="Move it to its place or out of the corpus")
            language, name = names
            video, end, _ = name.partition(VIDEO_END)
            yield DraftUtterance(
                id="-".join(place),
                audio=path,
                attributes={"language": language},
                group=f"{language}/{video}" if end else None,
                split=splits.get(part or "train"),
            )
