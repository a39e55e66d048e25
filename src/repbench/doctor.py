"""The examination behind `repbench doctor`: faults of this installation, and their cures.

Imports that could hang, exit or crash run in child processes. Each child has its own session, which is killed
with all processes in it. The code of the child (`python -m repbench.doctor ANSWER REQUEST`) is at the end of the file.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import util
from pathlib import Path
from typing import Any, Literal

from repbench.errors import EnvironmentFault, PluginError
from repbench.registry import GROUPS, DistributionFault, Entry, Registry, last_line, registry, side_effects
from repbench.torch_pairs import NEWEST, OLDEST, import_torchaudio, minor, torchaudio_cure, version_of

PYTHONS = ((3, 11), (3, 14))
"""The oldest and the newest Python that repbench supports, as in `requires-python`."""

EXTRAS = {
    "demo": ("espeakng_loader",),
    "mosi": ("mmsdk", "h5py"),
    "slurm": ("submitit",),
    "huggingface": ("transformers",),
    "asr": ("sentencepiece",),
    "onnx": ("onnxruntime",),
}
"""The modules that each extra installs. `torchaudio` is not listed, as it is tested by use."""

CHILDREN_AT_A_TIME = 2

Status = Literal["ok", "broken", "missing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginRow:
    """One plugin and whether it can be imported.

    Attributes:
        reason: The last line of the traceback, or the way the process ended; None if there is no fault.
        cure: Remedy; None if there is no fault.
        changed: The global state that its import changed; not a fault, as it is restored.
    """

    name: str
    kind: str
    distribution: str
    version: str
    target: str
    status: Status
    reason: str | None = None
    cure: str | None = None
    changed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRow:
    """One dependency of repbench, or an extra.

    Attributes:
        detail: Versions and devices, or the fault.
        cure: Remedy; None if there is no fault.
    """

    name: str
    status: Status
    detail: str
    cure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The results of the examination.

    Attributes:
        plugins: Every registered plugin.
        checks: `python`, `torch`, `device`, `soundfile`, `resampling`.
        extras: Every extra; a missing or broken one does not count as a fault.
        problems: Faults of distributions that were worked around.
        notes: Clashing names and changed global state, which the authors of plugins should correct.
    """

    plugins: tuple[PluginRow, ...]
    checks: tuple[CheckRow, ...]
    extras: tuple[CheckRow, ...]
    problems: tuple[DistributionFault, ...]
    notes: tuple[DistributionFault, ...] = ()

    @property
    def exit_code(self) -> int:
        """7 if a dependency is broken, else 5 if a plugin is, else 0."""
        if any(check.status == "broken" for check in self.checks):
            return 7
        return 5 if any(plugin.status == "broken" for plugin in self.plugins) else 0

    @property
    def healthy(self) -> bool:
        """Whether nothing is broken; missing extras and faults that were worked around do not count."""
        return self.exit_code == 0

    def as_dict(self) -> dict[str, Any]:
        """Everything, for `--json`."""
        return {
            "healthy": self.healthy,
            "exit_code": self.exit_code,
            "plugins": [asdict(row) for row in self.plugins],
            "checks": [asdict(row) for row in self.checks],
            "extras": [asdict(row) for row in self.extras],
            "problems": [problem._asdict() for problem in self.problems],
            "notes": [note._asdict() for note in self.notes],
        }


def examine(timeout_s: float = 60.0, *, plugins: Registry | None = None) -> Diagnosis:
    """Import every plugin and every dependency of repbench in child processes.

    Args:
        timeout_s: Longest time of one child, in seconds.
        plugins: The registry to examine; by default that of this environment.
    """
    found = registry() if plugins is None else plugins
    entries = [entry for kind in GROUPS for entry in found.entries(kind)]
    builtin = [entry for entry in entries if entry.builtin]
    # Built-ins share one child, which saves the imports; each other plugin has its own, as it may crash.
    groups = [builtin] * bool(builtin) + [[entry] for entry in entries if not entry.builtin]
    tasks: tuple[_Task, ...] = ("torch", "soundfile", "resampling", "torchaudio")
    requests = [*map(_Request, tasks), *map(_request_for, groups)]
    torch, soundfile, resampling, torchaudio, *answers = _ask(requests, timeout_s)
    rows = _rows(zip(groups, answers, strict=True), timeout_s)
    return Diagnosis(
        plugins=tuple(rows[entry] for entry in entries),
        checks=(_python(), *_torch(torch), _soundfile(soundfile), _resampling(resampling)),
        extras=(*(_extra(extra) for extra in EXTRAS), _torchaudio(torchaudio)),
        problems=found.problems,
        notes=(*found.clashes(), *(side_effects(each, rows[each].changed) for each in entries if rows[each].changed)),
    )


def _rows(answered: Iterable[tuple[list[Entry], _Answer]], timeout_s: float) -> dict[Entry, PluginRow]:
    """The row of each entry; the plugins of a group whose child failed are imported again one by one."""
    rows: dict[Entry, PluginRow] = {}
    for group, answer in answered:
        if answer.failure is not None and len(group) > 1:
            alone = [[entry] for entry in group]
            rows |= _rows(zip(alone, _ask(map(_request_for, alone), timeout_s), strict=True), timeout_s)
        else:
            replies = answer.value or [{"reason": answer.failure}] * len(group)
            rows |= {entry: _plugin_row(entry, reply) for entry, reply in zip(group, replies, strict=True)}
    return rows


def _plugin_row(entry: Entry, reply: dict[str, Any]) -> PluginRow:
    reason = reply.get("reason")
    return PluginRow(
        name=entry.name,
        kind=entry.kind,
        distribution=entry.distribution,
        version=entry.version,
        target=entry.target,
        status="ok" if reason is None else "broken",
        reason=reason,
        cure=None if reason is None else reply.get("cure") or _remedy(entry),
        changed=tuple(reply.get("changed", ())),
    )


def _remedy(entry: Entry) -> str:
    """The remedy for a plugin that ends or hangs the process."""
    if entry.builtin:
        return f"Reinstall repbench: pip install --force-reinstall {entry.distribution}"
    return f"Update it, tell its authors, or remove it: pip uninstall {entry.distribution}"


def _python() -> CheckRow:
    version = sys.version.split()[0]
    oldest, newest = (".".join(map(str, bound)) for bound in PYTHONS)
    if PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        return CheckRow(name="python", status="ok", detail=version)
    cure = f"Install repbench under Python {oldest} to {newest}"
    return CheckRow(name="python", status="broken", detail=f"{version} is not supported", cure=cure)


def _torch(answer: _Answer) -> tuple[CheckRow, CheckRow]:
    """The rows `torch` and `device`."""
    reply = answer.value or {"reason": answer.failure}
    if "reason" in reply:
        cure = f"pip install --force-reinstall 'torch=={NEWEST}.*'"
        unknown = CheckRow(name="device", status="missing", detail="unknown, as torch is broken", cure=cure)
        return CheckRow(name="torch", status="broken", detail=reply["reason"], cure=cure), unknown
    version = reply["torch"]
    torch = CheckRow(name="torch", status="ok", detail=f"torch {version}")
    if tuple(map(int, minor(version).split("."))) < tuple(map(int, OLDEST.split("."))):
        detail = f"torch {version} is older than {OLDEST}, the oldest that is supported"
        torch = CheckRow(name="torch", status="broken", detail=detail, cure=f"pip install 'torch=={NEWEST}.*'")
    return torch, CheckRow(name="device", status="ok", detail=reply["device"])


def _soundfile(answer: _Answer) -> CheckRow:
    reply = answer.value or {"reason": answer.failure}
    if "reason" not in reply:
        return CheckRow(name="soundfile", status="ok", detail=reply["detail"])
    cure = "pip install --force-reinstall soundfile, or install libsndfile with the system's packages"
    return CheckRow(name="soundfile", status="broken", detail=reply["reason"], cure=cure)


def _resampling(answer: _Answer) -> CheckRow:
    reply = answer.value or {"reason": answer.failure}
    if "reason" not in reply:
        return CheckRow(name="resampling", status="ok", detail=reply["detail"])
    cure = "pip install --force-reinstall soxr"
    return CheckRow(name="resampling", status="broken", detail=reply["reason"], cure=cure)


def _torchaudio(answer: _Answer) -> CheckRow:
    """The row of the extra `torchaudio`, which is tested by use with the installed torch."""
    reply = answer.value or {"reason": answer.failure}
    if "reason" not in reply:
        return CheckRow(name="torchaudio", status="ok", detail=reply["detail"])
    status: Status = "missing" if version_of("torchaudio") is None else "broken"
    cure = torchaudio_cure(version_of("torch") or "unknown")
    return CheckRow(name="torchaudio", status=status, detail=reply["reason"], cure=cure)


def _extra(extra: str) -> CheckRow:
    absent = [module for module in EXTRAS[extra] if util.find_spec(module) is None]
    if not absent:
        return CheckRow(name=extra, status="ok", detail=", ".join(EXTRAS[extra]))
    detail = f"not installed: {', '.join(absent)}"
    return CheckRow(name=extra, status="missing", detail=detail, cure=f"pip install 'repbench[{extra}]'")


_Task = Literal["torch", "soundfile", "resampling", "torchaudio", "plugins"]


@dataclass(frozen=True, slots=True)
class _Request:
    """Work for a child: import the entries if `task` is "plugins", else use the named dependency."""

    task: _Task
    entries: tuple[Entry, ...] = ()


def _request_for(group: Sequence[Entry]) -> _Request:
    return _Request("plugins", tuple(group))


@dataclass(frozen=True, slots=True)
class _Answer:
    """The value that a child wrote, or the way it ended without one."""

    value: Any = None
    failure: str | None = None


@dataclass(slots=True)
class _Child:
    """A running child, the number of its request, and the folder of its output."""

    number: int
    folder: Path
    process: subprocess.Popen[bytes]
    started: float = field(default_factory=time.monotonic)

    def answer(self, timeout_s: float) -> _Answer | None:
        """The answer, or a failure once the time is up; None while the child works."""
        status = self.process.poll()
        if status is None:
            late = time.monotonic() - self.started > timeout_s
            return _Answer(failure=f"importing it did not end within {timeout_s:g} s") if late else None
        with contextlib.suppress(FileNotFoundError):
            return _Answer(value=json.loads((self.folder / "answer").read_text(encoding="utf-8")))
        return _Answer(failure=f"importing it {_ending(status)}{self._last_words()}")

    def _last_words(self) -> str:
        words = (self.folder / "stderr").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f": {words[-1][:200]}" if words else ""

    def end(self) -> None:
        """Kill the child and all processes of its session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _ending(status: int) -> str:
    if status < 0:
        return f"killed the process with {signal.Signals(-status).name}"
    return f"ended the process with status {status}"


def _ask(requests: Iterable[_Request], timeout_s: float) -> list[_Answer]:
    """Run each request in a separate child, a few at a time; the results are in the order of the requests."""
    waiting = list(enumerate(requests))
    answers: dict[int, _Answer] = {}
    running: list[_Child] = []
    with tempfile.TemporaryDirectory(prefix="repbench-doctor-") as folder:
        try:
            while waiting or running:
                while waiting and len(running) < CHILDREN_AT_A_TIME:
                    number, request = waiting.pop(0)
                    running.append(_start(number, request, Path(folder, str(number))))
                running = _collect(running, answers, timeout_s)
                time.sleep(0.01)
        finally:
            for child in running:
                child.end()
    return [answers[number] for number in sorted(answers)]


def _collect(running: list[_Child], answers: dict[int, _Answer], timeout_s: float) -> list[_Child]:
    """Store the results of the children that are done, and return the other children."""
    unfinished = []
    for child in running:
        answer = child.answer(timeout_s)
        if answer is None:
            unfinished.append(child)
        else:
            child.end()
            answers[child.number] = answer
    return unfinished


def _start(number: int, request: _Request, folder: Path) -> _Child:
    folder.mkdir()
    # -P keeps the working folder off the path: a file there named like a module would be imported in its place.
    command = [sys.executable, "-P", "-m", "repbench.doctor", str(folder / "answer"), json.dumps(asdict(request))]
    with (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            # A new session, so that `killpg` ends what the child started as well.
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
    return _Child(number, folder, process)


def _reply_on_torch() -> dict[str, Any]:
    import torch

    cuda = torch.cuda.is_available()
    device = f"cuda: {torch.cuda.get_device_name()} (CUDA {torch.version.cuda})" if cuda else "cpu: no CUDA device"
    return {"torch": str(torch.__version__), "device": device}


def _reply_on_soundfile() -> dict[str, Any]:
    import io

    import soundfile

    sound = io.BytesIO()
    soundfile.write(sound, [0.0, 0.5, -0.5, 0.0], 16000, format="FLAC")
    sound.seek(0)
    samples, _ = soundfile.read(sound)
    if len(samples) != 4:
        return {"reason": f"4 samples were written as FLAC, but {len(samples)} were read back"}
    return {"detail": f"soundfile {soundfile.__version__}, libsndfile {soundfile.__libsndfile_version__}"}


def _reply_on_resampling() -> dict[str, Any]:
    import numpy as np
    import soxr

    found = len(soxr.resample(np.zeros(441, dtype="float32"), 44_100, 16_000))
    if found != 160:
        return {"reason": f"441 samples at 44,100 Hz became {found} at 16,000 Hz"}
    return {"detail": f"soxr {soxr.__version__}"}


def _reply_on_torchaudio() -> dict[str, Any]:
    try:
        torchaudio: Any = import_torchaudio()
        functional: Any = import_torchaudio("torchaudio.functional")
        import_torchaudio("torchaudio.pipelines")
    except EnvironmentFault as fault:
        return {"reason": fault.what}
    import torch

    found = len(functional.resample(torch.zeros(800), 8_000, 16_000))
    if found != 1600:
        return {"reason": f"800 samples at 8,000 Hz became {found} at 16,000 Hz"}
    return {"detail": f"torchaudio {torchaudio.__version__} with torch {torch.__version__}"}


def _reply_on_plugin(entry: Entry) -> dict[str, Any]:
    try:
        loaded = entry.load_observed()
    except PluginError as error:
        return {"reason": last_line(error.__cause__ or error), "cure": error.do}
    return {"changed": loaded.changed, "reason": _unfit(entry, loaded.value)}


def _unfit(entry: Entry, value: object) -> str | None:
    """The reason why the target of an entry point is no plugin of its kind; None if it may be one."""
    what = f"`{entry.target}` is of {type(value).__name__}"
    if entry.kind == "head" and callable(value) and type(getattr(value, "info", None)).__name__ != "HeadInfo":
        return f"`{entry.target}` has no `info` of HeadInfo, so it is no factory of heads"
    if entry.kind != "corpus":
        return None if callable(value) else f"{what}, which is no factory: it cannot be called"
    fits = any(callable(getattr(value, name, None)) for name in ("open", "prepare"))
    return None if fits else f"{what}, which has neither `open` nor `prepare`"


def _reply(task: str, entries: list[dict[str, Any]]) -> Any:
    if task == "plugins":
        return [_reply_on_plugin(Entry(**entry)) for entry in entries]
    replies: dict[str, Callable[[], dict[str, Any]]] = {
        "torch": _reply_on_torch,
        "soundfile": _reply_on_soundfile,
        "resampling": _reply_on_resampling,
        "torchaudio": _reply_on_torchaudio,
    }
    try:
        return replies[task]()
    except Exception as error:
        return {"reason": last_line(error)}


def _child(answer: str, request: str) -> None:
    """Run the request, write the answer and exit at once, without waiting for threads that a plugin started."""
    unfinished = Path(answer + ".unfinished")
    unfinished.write_text(json.dumps(_reply(**json.loads(request))), encoding="utf-8")
    unfinished.replace(answer)
    os._exit(0)


if __name__ == "__main__":
    _child(*sys.argv[1:])
