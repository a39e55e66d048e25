"""What tests share: where the real speech is, and a cache of their own."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it runs in the background with SIGINT ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def speech_data() -> Path:
    """The folder of real speech named by REPBENCH_TEST_DATA; skips, with the reason, where there is none."""
    place = os.environ.get("REPBENCH_TEST_DATA")
    if not place:
        pytest.skip("REPBENCH_TEST_DATA does not name a folder of real speech")
    folder = Path(place)
    assert folder.is_dir(), f"REPBENCH_TEST_DATA names {folder}, which is not a folder"
    return folder


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests neither read nor fill the user's cache."""
    os.environ.setdefault("REPBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
