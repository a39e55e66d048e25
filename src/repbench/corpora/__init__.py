"""Corpora: utterances with their labels, layouts on disk, manifests, alignments and audits."""
