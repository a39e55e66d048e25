"""Checkpoints: the format of repbench, and those of other toolkits, which are read without running code."""

from repbench.moved import moved_names

__getattr__ = moved_names(__name__)
