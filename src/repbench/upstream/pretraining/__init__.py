"""Pre-training: settings, inputs, the trainer and its log."""

from repbench.moved import moved_names

__getattr__ = moved_names(__name__)
