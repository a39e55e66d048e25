"""The conformance suite behind `repbench check upstream`: each promise of an upstream is a named check.

A comparison of hidden states is relative: the largest difference of a layer over its root mean square on one second of
speech-like sound. Sounds are drawn from seeds; lengths go from `min_samples` to 30 s, or to `max_samples`.
"""

# The checks are added to the suite, in this order, when these modules are imported.
from repbench.testing.upstreams import hidden_states, weights
from repbench.testing.upstreams.subject import UPSTREAM_CHECKS, UpstreamSubject

__all__ = ["UPSTREAM_CHECKS", "UpstreamSubject", "hidden_states", "weights"]
