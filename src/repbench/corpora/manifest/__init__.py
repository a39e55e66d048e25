"""The manifest: utterances with their labels, checked against their sounds, written once and opened again."""

from repbench.moved import moved_names

__getattr__ = moved_names(__name__)
