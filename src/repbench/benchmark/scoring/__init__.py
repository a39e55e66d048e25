"""From predictions to numbers: metrics, baselines, intervals and tests."""

from repbench.moved import moved_names

__getattr__ = moved_names(__name__)
