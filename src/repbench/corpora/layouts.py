"""What layouts share: which options they read, and finding files under a folder."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from repbench.corpora.contract import PrepareOptions
from repbench.errors import DataError, UsageError

_FLAG_OF = {
    "alignments": "--alignments",
    "table": "--table",
    "columns": "--column",
    "features": "--features-hop",
    "variant": "--variant",
    "pattern": "--pattern",
}
"""The options that a layout itself reads; `repbench.corpora.preparing` sees to the others."""


_OF_ALIGNMENTS = {"tier": "--tier", "relabel": "--relabel", "keep_labels": "--keep-labels"}
"""Options that say how alignments are read: a layout that reads alignments reads them too."""


def refuse_options(layout: str, options: PrepareOptions, *, reads: Collection[str] = ()) -> None:
    """Refuse every option that a layout does not read.

    Args:
        layout: Name of the layout.
        options: What was given.
        reads: The fields of `PrepareOptions` that the layout reads.

    Raises:
        UsageError: Names the first option that would have no effect.
    """
    flags = _FLAG_OF if "alignments" in reads else _FLAG_OF | _OF_ALIGNMENTS
    for name, flag in flags.items():
        if name not in reads and getattr(options, name) not in (None, {}, False):
            raise UsageError(f"The layout `{layout}` does not read `{flag}`", key=flag, do="Leave it out")


def refuse_missing_root(root: Path) -> None:
    """Refuse a root that is no folder.

    Raises:
        DataError: There is no such folder.
    """
    if not root.is_dir():
        raise DataError("The root folder does not exist", file=root, do="Check --root")


def files_under(folder: Path) -> Iterator[Path]:
    """Every file anywhere under `folder`, sorted; names that begin with a dot are read over, folders of them too."""
    for path in sorted(folder.rglob("*")):
        if not any(part.startswith(".") for part in path.relative_to(folder).parts) and path.is_file():
            yield path
