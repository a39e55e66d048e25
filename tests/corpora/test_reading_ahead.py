"""Reading by threads: in order, and a bounded number of results ahead."""

from __future__ import annotations

import threading

import pytest

from repbench.corpora.manifest.reading_ahead import read_each


def test_results_stand_in_order_and_progress_counts_them() -> None:
    seen: list[tuple[int, int]] = []
    assert list(read_each(lambda n: n * n, range(1_000), lambda *at: seen.append(at))) == [n * n for n in range(1_000)]
    assert seen == [(done, 1_000) for done in range(1, 1_001)]
    assert list(read_each(str, [])) == []


def test_few_are_read_before_they_are_asked_for() -> None:
    read: list[int] = []
    before = threading.active_count()
    results = read_each(read.append, range(100_000))
    next(results)
    results.close()
    assert 1 <= len(read) <= 16 * 8 + 1
    assert threading.active_count() == before


def test_an_error_reaches_the_caller() -> None:
    results = read_each(lambda n: 1 // (3 - n), range(10))
    assert [next(results) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError, match="zero"):
        next(results)
