"""A process with torch and repbench imported that forks for every command: without the seconds that imports take.

Run as a file by `commands.py`, never imported. It answers each line of JSON with two: the id of the process, then how
it ended. A command ends as Python ends, with its exit handlers.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import sys
from typing import Any

from repbench.process_end import ends_at_once

# What most commands import. None starts a thread at its import, or reads a variable that `commands.py` sends.
MODULES = (
    "matplotlib.figure", "numpy", "pydantic", "safetensors.torch", "scipy.sparse", "soundfile", "torch", "typer",
    "yaml",
    "repbench.benchmark.report.render.write", "repbench.benchmark.run", "repbench.cli", "repbench.console",
    "repbench.corpora.synthetic", "repbench.upstream.frontends",
)  # fmt: skip


def serve() -> dict[str, Any] | None:
    """Fork for each request, until there are no more; in a forked process, its request."""
    # Streams of its own, that no library can write to by accident.
    with os.fdopen(os.dup(0), "r") as requests, os.fdopen(os.dup(1), "w", buffering=1) as answers:
        print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})), file=answers)
        for line in requests:
            process = os.fork()
            if not process:
                return dict(json.loads(line))
            print(process, file=answers)
            print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), file=answers)
    return None


def become(request: dict[str, Any]) -> None:
    """Take the folder, environment, import path and streams of a command."""
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[:0] = [request["folder"], *request["path"]]
    for stream, name in ((0, os.devnull), (1, request["out"]), (2, request["err"])):
        file = os.open(name, os.O_RDONLY if stream == 0 else os.O_WRONLY)
        os.dup2(file, stream)
        os.close(file)
    sys.argv = ["repbench", *request["arguments"]]


if __name__ == "__main__":
    del sys.path[0]  # the folder of the tests
    for module in MODULES:
        importlib.import_module(module)
    gc.freeze()  # or every collection in a forked process would copy what it shares with this one
    asked = serve()
    if asked is not None:
        become(asked)
        atexit.register(gc.collect)  # what it left open, it says
        with ends_at_once():
            runpy.run_module("repbench", run_name="__main__", alter_sys=True)
