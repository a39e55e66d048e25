"""The process of its own: what becomes of one that fails, dies or hangs."""

from __future__ import annotations

import multiprocessing
import os
import threading
from typing import NoReturn

import pytest
import torch

from repbench.registry import Entry
from repbench.testing import Envelope, worker
from repbench.testing.conformance import Broken
from repbench.testing.worker import heard_in_worker

SOUND = torch.zeros(16_000)


def dies(*, checkpoint: str | None = None, seed: int = 0) -> NoReturn:
    os._exit(3)


def hangs(*, checkpoint: str | None = None, seed: int = 0) -> NoReturn:
    threading.Event().wait()
    raise AssertionError


def exits(*, checkpoint: str | None = None, seed: int = 0) -> NoReturn:
    raise SystemExit(3)


def refuses(*, checkpoint: str | None = None, seed: int = 0) -> NoReturn:
    raise ValueError("no weights")


def entry(name: str) -> Entry:
    return Entry(name, "upstream", f"{__name__}:{name}", "py", "", builtin=False)


def test_a_worker_hears_what_this_process_hears() -> None:
    upstream = Envelope().eval()
    fingerprint, states = heard_in_worker(
        Entry("envelope", "upstream", "repbench.testing.fakes:envelope", "py", "", builtin=False), None, 0, SOUND
    )

    assert fingerprint == upstream.fingerprint()
    with torch.inference_mode():
        assert torch.equal(states, upstream(SOUND[None], torch.tensor([16_000])).layers[:, 0])


@pytest.mark.parametrize(
    ("name", "reason"),
    [("dies", "ended without a result"), ("exits", "SystemExit: 3"), ("refuses", "ValueError: no weights")],
)
def test_fault_39_a_worker_that_fails_is_told_and_leaves_no_process(name: str, reason: str) -> None:
    with pytest.raises(Broken, match=reason):
        heard_in_worker(entry(name), None, 0, SOUND)

    assert multiprocessing.active_children() == []


def test_fault_39_a_worker_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "TIMEOUT_SECONDS", 0.5)

    with pytest.raises(Broken, match=r"did not end within 0\.5 s"):
        heard_in_worker(entry("hangs"), None, 0, SOUND)

    assert multiprocessing.active_children() == []
