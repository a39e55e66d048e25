"""Refusing the options of `repbench corpus prepare` that a layout does not read."""

from __future__ import annotations

from collections.abc import Collection

from repbench.corpora.contract import PrepareOptions
from repbench.errors import UsageError

_FLAG_OF = {
    "alignments": "--alignments",
    "table": "--table",
    "columns": "--column",
    "features": "--features-hop",
    "variant": "--variant",
    "pattern": "--pattern",
}
"""The options that a layout applies itself; `repbench.corpora.manifest.prepare` applies the others."""


_OF_ALIGNMENTS = {"tier": "--tier", "relabel": "--relabel", "keep_labels": "--keep-labels"}
"""The options of alignments: a layout that reads alignments reads them too."""


def refuse_options(layout: str, options: PrepareOptions, *, reads: Collection[str] = ()) -> None:
    """Refuse every option that a layout does not read.

    Args:
        layout: Name of the layout.
        options: The given options.
        reads: The fields of `PrepareOptions` that the layout reads.

    Raises:
        UsageError: Names the first option that would have no effect.
    """
    flags = _FLAG_OF if "alignments" in reads else _FLAG_OF | _OF_ALIGNMENTS
    for name, flag in flags.items():
        if name not in reads and getattr(options, name) not in (None, {}, False):
            raise UsageError(f"The layout `{layout}` does not read `{flag}`", key=flag, do="Leave it out")
