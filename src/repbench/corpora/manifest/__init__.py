"""The manifest: utterances with their labels, checked against their sounds, written once and opened again."""

from repbench.corpora.manifest.header import HEADER_FILE, MANIFEST_FILE, SCHEMA, manifest_header
from repbench.corpora.manifest.reader import read
from repbench.corpora.manifest.writer import lines_digest, move, write

__all__ = ["HEADER_FILE", "MANIFEST_FILE", "SCHEMA", "lines_digest", "manifest_header", "move", "read", "write"]
