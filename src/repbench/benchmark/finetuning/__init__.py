"""Fine-tuning: a network of an upstream and a head, and its training."""

from repbench.moved import moved_names

__getattr__ = moved_names(__name__)
