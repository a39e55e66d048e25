"""Opening the corpus that `--corpus` names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from repbench.corpora import manifest
from repbench.corpora.contract import Corpus, CorpusLayout, CorpusSource, Progress
from repbench.errors import DataError, PluginError, UsageError, plugin_faults
from repbench.registry import Entry, FoundEntry, registry


def open_corpus(
    spec: str, *, root: Path | None = None, progress: Progress | None = None, say: Callable[[str], None] | None = None
) -> Corpus:
    """Open a registered corpus (`synthetic:clean:tiny`) or the folder of a manifest.

    Args:
        spec: A name with its options, or a path. What holds a `/`, or is a folder with a manifest, is a path.
        root: The folder of the sounds of a manifest, if they were moved; None for the root it was made with.
        progress: Called with (done, total) while a corpus is made.
        say: Receives a note if the index of a manifest was damaged.

    Raises:
        UsageError: No corpus has that name, it is a layout that must be prepared first, or a root is given
            although it is no manifest.
        DataError: The folder holds no manifest.
        PluginError: A third party's corpus cannot be loaded or opened.
    """
    if is_manifest_path(spec):
        return manifest.read(Path(spec), root=root, say=say or (lambda line: None))
    if root is not None:
        what = f"`{spec}` is no folder of a manifest, so it has no root"
        raise UsageError(what, key="--root", do="Leave --root out")
    found = registry().find("corpus", spec)
    source = found.entry.load()
    if isinstance(source, CorpusSource):
        return _opened(source, found, progress)
    if isinstance(source, CorpusLayout):
        raise UsageError(
            f"`{spec}` is a layout, not a corpus",
            key="--corpus",
            do=f"Run `repbench corpus prepare {spec} --root DIR --out MANIFEST` and give --corpus MANIFEST",
        )
    raise PluginError(
        f"The corpus `{spec}` has neither `open` nor `prepare`",
        key=found.entry.target,
        do="See repbench.corpora.contract",
    )


def _opened(source: CorpusSource, found: FoundEntry, progress: Progress | None) -> Corpus:
    if found.entry.builtin:
        return source.open(found.options, progress=progress)
    with plugin_faults(found.entry.qualified):
        corpus: object = source.open(found.options, progress=progress)
    if not isinstance(corpus, Corpus):
        what = f"`open` must return a Corpus, but returned a {type(corpus).__name__}"
        raise PluginError(what, key=found.entry.qualified, do="See repbench.corpora.contract")
    return corpus


def entry_of_corpus(spec: str) -> Entry | None:
    """The registry entry of the corpus that `--corpus` names; None for the folder of a manifest.

    Raises:
        UsageError: No corpus has that name.
        DataError: The folder holds no manifest.
    """
    return None if is_manifest_path(spec) else registry().find("corpus", spec).entry


def is_manifest_path(spec: str) -> bool:
    """Whether `--corpus` names a folder on disk.

    Raises:
        DataError: It is a folder without a manifest.
    """
    path = Path(spec)
    if (path / manifest.HEADER_FILE).is_file():
        return True
    # A plain word without a manifest is the name of a corpus, even if a folder is called so.
    if "/" in spec or spec in {".", ".."}:
        raise DataError(
            "There is no manifest here",
            file=path,
            do="Make one with `repbench corpus prepare KIND --root DIR --out DIR`",
        )
    return False


def load_layout(kind: str) -> CorpusLayout:
    """The layout called `kind`, for `repbench corpus prepare`.

    Raises:
        UsageError: There is none of that name, or it needs no preparing.
    """
    layout = registry().load("corpus", kind)
    if not isinstance(layout, CorpusLayout):
        raise UsageError(f"`{kind}` needs no preparing", key="KIND", do=f"Give --corpus {kind} to `repbench run`")
    return layout
