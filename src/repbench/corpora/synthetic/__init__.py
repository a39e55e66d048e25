"""The corpus that needs no download: sentences, words and commands spoken by espeak-ng, with exact phone times.

`synthetic[:KIND][:clean|noisy|hard][:tiny|small|full]`, in any order, of the kinds in `conditions.KINDS`;
`sentences:noisy:small` by default. It is made once into the cache, by worker processes, and is the same for every
number of workers. espeak-ng comes with the extra `demo`.
"""

from __future__ import annotations

from repbench.corpora.synthetic.source import SYNTHETIC

__all__ = ["SYNTHETIC"]
