"""Hidden states of a frozen upstream: extraction, the feature store, and what both cost."""

from repbench.moved import moved_names

__getattr__ = moved_names(__name__)
