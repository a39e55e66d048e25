"""The program: `python -m repbench` is `repbench`."""

from __future__ import annotations

import sys
from typing import NoReturn

from repbench.cli import main
from repbench.process_end import ends_at_once


def program() -> NoReturn:
    """Run the command line and end the process."""
    if sys.warnoptions:  # who asks for warnings is told of what was left open, too
        main()
    with ends_at_once():
        main()


if __name__ == "__main__":
    program()
