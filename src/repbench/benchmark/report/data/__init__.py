"""The contents of a report, computed from records, independent of its form."""
