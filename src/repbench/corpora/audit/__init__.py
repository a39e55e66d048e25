"""Audits of corpora: every sound is decoded and compared with the manifest; a page shows the figures."""
