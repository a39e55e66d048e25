"""From names to built upstreams and tasks, each checked against its contract."""

from repbench.moved import moved_names

__getattr__ = moved_names(__name__)
