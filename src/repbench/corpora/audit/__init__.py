"""The audit of a corpus: every sound decoded and compared with the manifest, and a page of figures."""
