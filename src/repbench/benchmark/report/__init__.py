"""Tables, curves and a page from records alone: what `repbench report` does.

`reading` finds the records, `evidence` computes their numbers again, `questions` says which share a column, `gather`
lays out the table, `compare` what is told apart in it; `efficiency`, `layers`, `cost`, `confusion` and `sensitivity`
each work out one section; `assemble` puts all together, and each `render_…` gives it one form.
"""

from repbench.benchmark.report.data.assemble import PUBLISHED, Heading, PublishedName, Report, assemble
from repbench.benchmark.report.render.write import (
    FORMATS,
    Format,
    ReportRequest,
    WrittenReport,
    write_layer_figures,
    write_report,
)

__all__ = [
    "FORMATS",
    "PUBLISHED",
    "Format",
    "Heading",
    "PublishedName",
    "Report",
    "ReportRequest",
    "WrittenReport",
    "assemble",
    "write_layer_figures",
    "write_report",
]
