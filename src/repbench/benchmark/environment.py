"""Devices, the cost of a model, and the description of the machine in a record."""

from __future__ import annotations

import math
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from repbench.errors import EnvironmentFault, UsageError
from repbench.training.threads import threads, threads_for
from repbench.upstream.adapters.corpus_features import FrameReader
from repbench.upstream.contract import Upstream, UpstreamInfo, runs_concurrently

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode


def choose_device(name: str) -> torch.device:
    """The device called `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        UsageError: There is no device of that kind.
        EnvironmentFault: The device is not on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in {"cpu", "cuda"} or (":" in name and not index.isdigit()):
        raise UsageError(f"There is no device `{name}`", key="--device", do="Choose auto, cpu, cuda or cuda:N")
    if kind == "cuda" and not torch.cuda.is_available():
        raise EnvironmentFault(
            "There is no CUDA device on this machine", key="--device", do="Take --device cpu or --device auto"
        )
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        raise EnvironmentFault(
            f"There are {torch.cuda.device_count()} CUDA devices, but the given one is {name}",
            key="--device",
            do="Choose a smaller number",
        )
    return torch.device(name)


def describe(device: torch.device, precision: str = "float32") -> dict[str, Any]:
    """The `environment` of a record; `precision` is that of the upstream's matrix products."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "precision": precision,
        "git": _git_commit(),
    }


def peak_rss_bytes() -> int:
    """The largest resident set of this process so far."""
    # `ru_maxrss` is in bytes on macOS and in KiB on Linux.
    unit = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit


def count_parameters(model: nn.Module) -> int:
    """Number of weights of a model."""
    return sum(parameter.numel() for parameter in model.parameters())


def batch_macs(upstream: Upstream, num_utterances: int, num_frames: int) -> float:
    """Multiply-accumulates of a padded batch, estimated from its products with the weights and those of attention.

    0 for a front end of ours; infinite for an upstream of others without weights, whose work may lie in another
    library.

    Args:
        upstream: The model.
        num_utterances: Utterances of the batch.
        num_frames: Frames of the longest, or `frames_of_work` of its samples.
    """
    num_weights = count_parameters(upstream) if isinstance(upstream, nn.Module) else 0
    if not num_weights:
        return 0.0 if runs_concurrently(upstream) else math.inf
    attention = 2 * num_frames * upstream.info.width * len(upstream.info.layer_names)
    return float(num_utterances * num_frames * (num_weights + attention))


def frames_of_work(info: UpstreamInfo, num_samples: int) -> int:
    """Frames that `batch_macs` counts with for a waveform: of a hop of 10 ms inside a model of one vector."""
    return num_samples // (info.hop_samples or max(1, info.sample_rate_hz // 100))


def macs_per_second(upstream: Upstream, device: torch.device) -> int:
    """Multiply-accumulates of one second of sound, as torch counts them: matrix products, convolutions and attention.

    Measured on ten seconds of silence (or the longest input the upstream takes); Fourier transforms are not counted. 0
    for frames that are read and not computed.
    """
    if isinstance(upstream, FrameReader):
        return 0
    waveforms, lengths = _ten_seconds(upstream, device)

    def compute(counter: ProductCounter | FlopCounterMode) -> int:
        with torch.inference_mode(), _as_a_batch(upstream, waveforms), _plain_kernels(), counter:
            upstream(waveforms, lengths)
        return counter.get_total_flops()

    try:
        flops = compute(ProductCounter())
    except Exception:  # operations that call functions, such as `torch.cond`; a fault of the model is raised again
        from torch.utils.flop_counter import FlopCounterMode

        flops = compute(FlopCounterMode(display=False))
    # torch counts a multiplication and an addition as two.
    return round(flops // 2 * upstream.info.sample_rate_hz / waveforms.shape[1])


class ProductCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types there
    """Counts the floating-point operations of products while it is entered, by torch's formulas.

    `torch.utils.flop_counter.FlopCounterMode` gives the same number, but imports the compiler at its first operation:
    seconds, for which every first run of a model would wait.
    """

    def __init__(self) -> None:
        from torch.utils.flop_counter import flop_registry

        super().__init__()  # type: ignore[no-untyped-call]
        self._flops = 0
        self._formulas: Mapping[Any, Callable[..., int]] = flop_registry

    def get_total_flops(self) -> int:
        """Operations so far; a multiplication and an addition are two."""
        return self._flops

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # True, as elsewhere, would wrap `__torch_dispatch__` so that it imports the compiler. Nothing is compiled here.
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Compute an operation and count it; one without a formula is counted by its parts, where it has parts."""
        named = dict(kwargs or {})
        formula = self._formulas.get(func.overloadpacket)
        if formula is None:
            with self:
                result = func.decompose(*args, **named)
            if result is not NotImplemented:
                return result
        result = func(*args, **named)
        if formula is not None:
            self._flops += formula(*args, **named, out_val=result)
        return result


def real_time_factor(upstream: Upstream, device: torch.device) -> float | None:
    """Seconds of sound for each second of computing, on the input of `macs_per_second`, in a batch of one.

    The fastest of three forward passes after a warm-up, as the one that other processes disturbed least; the warm-up
    alone where it took more than a second. Little work is done on one thread, as
    `threads_for` says. None for frames that are read and not computed.
    """
    if isinstance(upstream, FrameReader):
        return None
    waveforms, lengths = _ten_seconds(upstream, device)
    with torch.inference_mode(), _as_a_batch(upstream, waveforms):
        # The first pass also allocates memory and, on a GPU, chooses algorithms.
        seconds = _seconds_of(lambda: upstream(waveforms, lengths), device)
        if seconds <= _SLOW_SECONDS:
            seconds = min(_seconds_of(lambda: upstream(waveforms, lengths), device) for _ in range(3))
    # A coarse clock can read the same before and after a front end.
    return waveforms.shape[1] / upstream.info.sample_rate_hz / max(seconds, _CLOCK_SECONDS)


@contextmanager
def _plain_kernels() -> Iterator[None]:
    """Without oneDNN and cuDNN, whose recurrent layers are one operation of which torch counts nothing."""
    # Not `flags`, which sets other switches too.
    backends = torch.backends.mkldnn, torch.backends.cudnn
    before = [backend.set_flags(_enabled=False)[0] for backend in backends]
    try:
        yield
    finally:
        for backend, enabled in zip(backends, before, strict=True):
            backend.set_flags(_enabled=enabled)


_SLOW_SECONDS = 1.0
_CLOCK_SECONDS = 1e-6


def _seconds_of(compute: Callable[[], object], device: torch.device) -> float:
    """Seconds until the device has finished."""
    started = time.perf_counter()
    compute()
    if device.type == "cuda":
        # Kernels run asynchronously: without it the time is that of their launch.
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def _as_a_batch(upstream: Upstream, waveforms: torch.Tensor) -> AbstractContextManager[None]:
    """Computing on one thread where (1, T) waveforms are little work, as beside busy processes a team takes seconds."""
    return threads(threads_for(batch_macs(upstream, 1, frames_of_work(upstream.info, waveforms.shape[1]))))


def _ten_seconds(upstream: Upstream, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Silence (1, T) and its length (1,): ten seconds, or the longest input the upstream takes."""
    info = upstream.info
    length = 10 * info.sample_rate_hz
    length = max(info.min_samples, length if info.max_samples is None else min(length, info.max_samples))
    return torch.zeros(1, length, device=device), torch.tensor([length], device=device)


def cpu_name() -> str:
    """Model name of the processor."""
    described = Path("/proc/cpuinfo")
    if described.exists():
        for line in described.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git_commit() -> str | None:
    """The commit of repbench's own checkout, with `+` if it was changed; None where it was installed from a wheel."""
    here = Path(__file__).resolve().parent
    # An environment inside a checkout of another project would give that project's commit.
    if "site-packages" in here.parts or "dist-packages" in here.parts:
        return None
    try:
        commit = subprocess.run(["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
        dirty = subprocess.run(
            ["git", "-C", here, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if commit.returncode != 0:
        return None
    return commit.stdout.strip() + ("+" if dirty.stdout.strip() else "")
