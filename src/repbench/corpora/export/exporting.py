"""The one way to export a corpus: into a new or empty folder, which appears whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from repbench.corpora.contract import Corpus, Progress
from repbench.corpora.export import huggingface, kaldi, lhotse
from repbench.corpora.export.folder import ExportFolder
from repbench.errors import UsageError, did_you_mean
from repbench.files import TEMPORARY_PREFIX, environment_faults

KINDS: dict[str, Callable[[Corpus, ExportFolder, Progress | None], tuple[str, ...]]] = {
    "huggingface": huggingface.write,
    "kaldi": kaldi.write,
    "lhotse": lhotse.write,
}
"""From each format to its writer, which returns notes on what is where and what was left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedCorpus:
    """What an export wrote.

    Attributes:
        folder: The folder.
        kind: The format, a key of `KINDS`.
        num_utterances: Number of utterances.
        notes: What was left out, and where the sounds are.
    """

    folder: Path
    kind: str
    num_utterances: int
    notes: tuple[str, ...]


def export(corpus: Corpus, kind: str, out: Path, *, progress: Progress | None = None) -> ExportedCorpus:
    """Write a corpus in another format.

    Args:
        corpus: The corpus.
        kind: A key of `KINDS`.
        out: The folder, which must be new or empty.
        progress: Called with (utterances written, all utterances).

    Raises:
        UsageError: There is no such format, or the folder holds something.
        DataError: The format cannot hold the corpus, or a sound is not that of the manifest; names the utterance.
        EnvironmentFault: The disk is full, the folder may not be written to, or a library is missing.
    """
    if kind not in KINDS:
        do = f"{did_you_mean(kind, KINDS)}Give one of {', '.join(sorted(KINDS))}"
        raise UsageError(f"There is no format `{kind}` to export to", key="--to", do=do)
    out = Path(os.path.abspath(out))  # noqa: PTH100 - collapses `..` as text, keeps links
    _refuse_full(out)
    with environment_faults(out):
        # next to its place, because renaming is atomic within one file system only
        temporary = out.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
        temporary.mkdir(parents=True)
    try:
        with environment_faults(out):
            notes = KINDS[kind](corpus, ExportFolder(temporary, out), progress)
            _refuse_full(out)
            if out.is_dir():
                out.rmdir()
            temporary.rename(out)
    # an interrupt from the keyboard too
    except BaseException:
        shutil.rmtree(temporary)
        raise
    return ExportedCorpus(folder=out, kind=kind, num_utterances=len(corpus.utterances), notes=notes)


def _refuse_full(out: Path) -> None:
    if not os.path.lexists(out):
        return
    if out.is_symlink() or not out.is_dir() or any(out.iterdir()):
        what = "An export is written into a new or empty folder, but this is none"
        raise UsageError(what, file=out, key="DIR", do="Choose another place, or empty the folder")
