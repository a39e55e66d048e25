"""Small fakes, for us and for plugin authors."""

from repbench.testing.fakes import Envelope, tone_corpus

__all__ = ["Envelope", "tone_corpus"]
