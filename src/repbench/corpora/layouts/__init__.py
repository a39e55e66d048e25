"""Layouts of corpora on disk, one module each, and the functions that every layout may use."""

from repbench.corpora.layouts.file_search import excluded_files, files_under, is_excluded, refuse_missing_root
from repbench.corpora.layouts.options import refuse_options
from repbench.corpora.layouts.text_notes import text_notes

__all__ = ["excluded_files", "files_under", "is_excluded", "refuse_missing_root", "refuse_options", "text_notes"]
