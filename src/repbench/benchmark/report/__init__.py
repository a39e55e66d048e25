"""Reports from records alone, for `repbench report`.

In `data`, `reading` finds the records, `evidence` recomputes their numbers, `columns` decides which share a column,
`gather` lays out the table and `compare` tests its differences; `efficiency`, `layers`, `cost`, `confusion` and
`sensitivity` compute one section each, and `assemble` calls them all. `render` has one module for each form, and
`published` the numbers of others.
"""

from repbench.benchmark.report.data.assemble import PUBLISHED, Heading, PublishedName, Report, assemble
from repbench.benchmark.report.render.figure_files import PICTURE_FORMATS, PictureFormat
from repbench.benchmark.report.render.write import (
    FORMATS,
    Format,
    ReportRequest,
    WrittenReport,
    groups_of_records,
    left_out_lines,
    write_layer_figures,
    write_report,
)

__all__ = [
    "FORMATS",
    "PICTURE_FORMATS",
    "PUBLISHED",
    "Format",
    "Heading",
    "PictureFormat",
    "PublishedName",
    "Report",
    "ReportRequest",
    "WrittenReport",
    "assemble",
    "groups_of_records",
    "left_out_lines",
    "write_layer_figures",
    "write_report",
]
