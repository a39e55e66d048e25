"""The log of a pre-training: `metrics.jsonl` and TensorBoard."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor

from repbench.errors import UsageError
from repbench.files import environment_faults, write_text
from repbench.progress import duration_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


class TrainingLog:
    """Numbers of each logged step, as a line of `metrics.jsonl` and for TensorBoard, which also gets pictures.

    `metrics.jsonl` holds nothing that depends on the clock, so that a resumed run writes the bytes of an uninterrupted
    one; speed goes to TensorBoard alone.

    Args:
        run: The run folder.
        step: Steps already taken; lines of later steps, from before an interruption, are cut off.

    Raises:
        UsageError: There is a `metrics.jsonl` that no training wrote.
    """

    def __init__(self, run: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._path = run / METRICS_FILE
        self._board = run / TENSORBOARD_FOLDER
        with environment_faults(self._path):
            # Refuse before the file is rewritten: lines of later steps go, whole lines up to `step` stay.
            _refuse_other_log(self._path)
            write_text(self._path, "".join(f"{line}\n" for line in lines_until(self._path, step)))
            self._stream = self._path.open("a", encoding="utf-8")
        self._excepthook = threading.excepthook
        threading.excepthook = self._left_to_the_next_flush
        with environment_faults(self._board):
            self._writer: Any = SummaryWriter(str(self._board), purge_step=step + 1 if step else None)

    def numbers(self, step: int, values: Mapping[str, float], *, timed: Mapping[str, float] | None = None) -> None:
        """Write numbers of a step; `timed` ones, which depend on the clock, go to TensorBoard alone."""
        with environment_faults(self._path):
            line = {"step": step, **{name: value if math.isfinite(value) else None for name, value in values.items()}}
            self._stream.write(json.dumps(line, allow_nan=False) + "\n")
        with environment_faults(self._board):
            for name, value in {**values, **(timed or {})}.items():
                self._writer.add_scalar(name, value, step)

    def figures(self, step: int, pictures: Mapping[str, Tensor]) -> None:
        """Draw spectrograms (F, D) below each other, on one colour scale; those without a frame are left out."""
        shown = {name: picture for name, picture in pictures.items() if picture.numel()}
        if not shown:
            return
        with environment_faults(self._board):
            self._writer.add_image("spectrograms", _picture(shown), step, dataformats="HWC")

    def flush(self) -> None:
        """Write all numbers so far to the disk."""
        with environment_faults(self._path):
            self._stream.flush()
        with environment_faults(self._board):
            self._writer.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with environment_faults(self._path):
                self._stream.close()
            with environment_faults(self._board):
                self._writer.close()
        finally:
            threading.excepthook = self._excepthook

    def _left_to_the_next_flush(self, given: threading.ExceptHookArgs) -> None:
        """Ignore errors of TensorBoard's writing thread: `flush` raises them again."""
        if not isinstance(given.exc_value, OSError):
            self._excepthook(given)


class Pace:
    """Speed of a training since this process began.

    Args:
        step: Steps already taken.
    """

    def __init__(self, step: int) -> None:
        self._first = step
        self._frames = 0.0
        self._started = time.monotonic()

    def add(self, frames: float) -> None:
        """Count the frames of a step that has just ended."""
        self._frames += frames
        self._seconds = time.monotonic() - self._started

    @property
    def per_second(self) -> float:
        """Frames a second."""
        return self._frames / max(self._seconds, 1e-9)

    def left(self, step: int, steps: int) -> str:
        """Time until `steps`, as hours and minutes or minutes and seconds."""
        return duration_text((steps - step) * self._seconds / max(step - self._first, 1))


def lines_until(path: Path, step: int) -> list[str]:
    """The lines of a metrics file up to a step, or up to the first line that is not whole."""
    if not path.exists():
        return []
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        written = _step_of(line)
        if written is None or written > step:
            break
        kept.append(line)
    return kept


def _refuse_other_log(path: Path) -> None:
    """Refuse a file that no training wrote: cutting off its lines would empty it."""
    if not path.exists():
        return
    with path.open("rb") as stream:
        start = stream.read(len(_FIRST))
    if not _FIRST.startswith(start):  # of a training that was killed, less than that may be there
        what = "No training wrote this file, and a training here would replace it"
        raise UsageError(what, file=path, key="--out", do="Name another folder with --out")


_FIRST = b'{"step": '
"""Beginning of every line of the log."""


def _step_of(line: str) -> int | None:
    """The step of a line; None if the line is not whole."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return step if isinstance(step, int) else None


def _picture(pictures: Mapping[str, Tensor]) -> NDArray[np.uint8]:
    """Spectrograms (F, D) as one picture (H, W, 3): frequency upwards, time to the right, white lines between them."""
    import numpy as np
    from matplotlib import colormaps

    # (F, D) -> (D, F), the highest frequency first
    panels = [picture.detach().float().cpu().numpy().T[::-1] for picture in pictures.values()]
    low = min(float(panel.min()) for panel in panels)
    high = max(float(panel.max()) for panel in panels)
    width = max(panel.shape[1] for panel in panels)
    rows = []
    for panel in panels:
        # (D, F) in [0, 1] -> (D, F, 4) -> (D, F, 3) without alpha, padded with white to the widest panel
        coloured = colormaps["viridis"]((panel - low) / max(high - low, 1e-6))[..., :3]
        blank = np.ones((len(panel), width - panel.shape[1], 3))
        rows += [np.concatenate([coloured, blank], axis=1), np.ones((2, width, 3))]
    # Without the line below the last panel: (D, W, 3) and (2, W, 3) in turn -> (H, W, 3)
    image: NDArray[np.uint8] = (np.concatenate(rows[:-1]) * 255).astype(np.uint8)
    return image
