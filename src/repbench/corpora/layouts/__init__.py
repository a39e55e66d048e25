"""Corpora by their layout on disk: one module for each layout, and what they share in `base`."""

from repbench.moved import moved_names

__getattr__ = moved_names(__name__)
