"""Checkpoints: our own format, and those of other toolkits read without running code."""

from repbench.moved import moved_names

__getattr__ = moved_names(__name__)
