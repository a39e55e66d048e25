"""Plugins of libraries, which repbench keeps from being loaded."""

from __future__ import annotations

import os
from typing import Final

NO_FOREIGN_PLUGINS: Final = {
    "PYDANTIC_DISABLE_PLUGINS": "__all__",
    "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",
    "TRITON_BACKENDS_IN_TREE": "1",
}
"""Environment variables that keep pydantic, torch and triton from loading their plugins.

Each reads the entry points of every distribution when it is imported, and one malformed `entry_points.txt` anywhere
ends that import. repbench uses no pydantic plugin and no device but CPU and CUDA, which triton brings with it.
"""


def keep_out() -> None:
    """Set those variables that the environment does not set itself; before pydantic or torch read them, once."""
    for name, value in NO_FOREIGN_PLUGINS.items():
        os.environ.setdefault(name, value)
