from tiny_plugin import LongOrShort, loudness

from repbench.testing import DownstreamSuite, UpstreamSuite


class TestLoudness(UpstreamSuite):
    factory = loudness


class TestLongOrShort(DownstreamSuite):
    factory = LongOrShort
