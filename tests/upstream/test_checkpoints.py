"""A checkpoint survives kills, full disks and rot, or says what it did not survive (FAULTS.md, rows 1, 2, 5-7, 31)."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from torch import Tensor

from repbench.errors import EnvironmentFault, IntegrityError, NonFiniteError, UsageError
from repbench.upstream.checkpoints.native import (
    MANIFEST_FILE,
    TRAINING_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    list_checkpoints,
    newest_intact,
    newest_under,
    open_checkpoint,
    read_training,
    read_weights,
    remove_leftovers,
    save_checkpoint,
    save_weights,
)

REPOSITORY = Path(__file__).parents[2]
SMALL = 1_000
TWO_MEBIBYTES = (2 << 20) // 4


def save(run: Path, step: int, *, value: float | None = None, size: int = SMALL, **options: Any) -> Checkpoint:
    """Save a checkpoint whose every number is `value`, so that a mixture of two would show."""
    number = float(step) if value is None else value
    weights = {"output.bias": torch.full((size // 10,), number), "input.weight": torch.full((size,), number)}
    training = {"moment": torch.full((size,), number), "count": torch.tensor(step)}
    usual: dict[str, Any] = {"fields": {"value": number}, "texts": {"README.md": f"# {number}\n"}}
    return save_checkpoint(run, step, weights=weights, training=training, **usual | options)


def value_of(checkpoint: Checkpoint) -> float:
    """The one number that a checkpoint of `save` holds; asserts that there is one only."""
    numbers = torch.cat([*read_weights(checkpoint).values(), read_training(checkpoint)["moment"]])
    assert numbers.min() == numbers.max() == checkpoint.fields["value"]
    assert (checkpoint.path / "README.md").read_text() == f"# {checkpoint.fields['value']}\n"
    return float(numbers[0])


def steps_of(run: Path) -> list[int]:
    return [checkpoint.step for checkpoint in list_checkpoints(run)]


def temporaries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob(".tmp-*"))


def refuse(warning: str) -> NoReturn:
    raise AssertionError(warning)


def newest(run: Path) -> Checkpoint:
    """The newest checkpoint; asserts that there is one and that nothing was passed over."""
    checkpoint = newest_intact(run, refuse)
    assert checkpoint is not None
    return checkpoint


def rewrite_manifest(checkpoint: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest and its own digest, as who means it would."""
    manifest = json.loads((checkpoint / MANIFEST_FILE).read_text())
    change(manifest)
    del manifest["manifest_sha256"]
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    manifest["manifest_sha256"] = hashlib.sha256(canonical.encode()).hexdigest()
    (checkpoint / MANIFEST_FILE).write_text(json.dumps(manifest))


def rewrite_file(checkpoint: Path, name: str, content: bytes) -> None:
    """Change a file and what the manifest says of it."""
    (checkpoint / name).write_bytes(content)
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    rewrite_manifest(checkpoint, lambda manifest: manifest["files"].update({name: entry}))


# What a checkpoint is


def test_a_checkpoint_gives_back_what_was_saved(tmp_path: Path) -> None:
    weights = {
        "b": torch.randn(3, 4, generator=torch.Generator().manual_seed(1)),
        "a": torch.arange(6).reshape(2, 3).t(),
        "empty": torch.empty(0, 5),
    }
    training = {"step": torch.tensor(7), "state": torch.zeros(4, dtype=torch.uint8), "half": torch.ones(2).half()}
    fields = {"upstream": "mockingjay", "config": {"sizes": (1, 2)}, "path": "caf\udce9", "dev_loss": None}
    saved = save_checkpoint(tmp_path, 40, weights=weights, training=training, fields=fields, texts={"README.md": "ü"})
    assert saved.path == tmp_path / "checkpoints" / "step-00000040"
    opened = open_checkpoint(saved.path)
    assert opened == saved
    assert {name: opened.fields[name] for name in fields} == {**fields, "config": {"sizes": [1, 2]}}
    assert (opened.fields["schema"], opened.fields["step"]) == ("repbench.checkpoint/1", 40)
    assert set(opened.fields["files"]) == {WEIGHTS_FILE, TRAINING_FILE, "README.md"}
    for read, expected in ((read_weights(opened), weights), (read_training(opened), training)):
        assert read.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(read[name], tensor, rtol=0, atol=0)
    assert (saved.path / "README.md").read_text(encoding="utf-8") == "ü"


def test_the_same_tensors_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    tensors = {name: torch.full((3,), float(index)) for index, name in enumerate("dbca")}
    backwards = dict(reversed(tensors.items()))
    one = save_checkpoint(tmp_path / "one", 1, weights=tensors, training=tensors, fields={})
    two = save_checkpoint(tmp_path / "two", 1, weights=backwards, training=backwards, fields={})
    assert one.fields == two.fields
    assert {path.name: path.read_bytes() for path in one.path.iterdir()} == {
        path.name: path.read_bytes() for path in two.path.iterdir()
    }


def test_tied_weights_are_saved_under_both_names(tmp_path: Path) -> None:
    tied = torch.nn.Parameter(torch.arange(4.0))
    saved = save_weights(tmp_path / "out", weights={"input": tied, "output": tied}, fields={})
    assert {name: tensor.tolist() for name, tensor in read_weights(saved).items()} == {
        "input": [0, 1, 2, 3],
        "output": [0, 1, 2, 3],
    }


def test_files_may_be_read_by_whom_the_umask_allows(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        saved = save(tmp_path / "run", 1)
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in saved.path.iterdir()}
    assert (saved.path.stat().st_mode & 0o777, modes) == (0o750, {0o640})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fields": {"step": 3}}, "`fields` may not hold step"),
        ({"texts": {"model.safetensors": ""}}, "a file named 'model.safetensors'"),
        ({"texts": {"../README.md": ""}}, r"a file named '\.\./README\.md'"),
        ({"keep_last": 0}, "`keep_last` must be at least 1, but is 0"),
    ],
)
def test_what_a_trainer_may_not_say_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        save(tmp_path, 1, **options)
    assert list(tmp_path.iterdir()) == []


def test_weights_alone_cannot_be_trained_on(tmp_path: Path) -> None:
    saved = save_checkpoint(tmp_path, 1, weights={"a": torch.ones(1)}, training=None, fields={})
    with pytest.raises(IntegrityError, match=r"holds weights only.*Name one with a training\.safetensors"):
        read_training(saved)


# Faults 1 and 2: kills and full disks


FLUSHES = (4, 5)
"""In which the first writers are killed, so that a kill in mid-write is sure; the later ones are killed at random."""


def die_in_flush(number: int) -> None:
    """Kill this process when it is about to flush a file or folder for the nth time."""
    real, calls = os.fsync, itertools.count(1)

    def flush(fd: Any) -> None:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        real(fd)

    os.fsync = flush


def write_forever(run: Path, promises: int, *, same_step: bool, flush: int | None) -> NoReturn:
    """Save checkpoint after checkpoint, and tell each one's value once it is promised to be there."""
    if flush is not None:
        die_in_flush(flush)
    last = newest_intact(run, refuse)
    os.write(promises, b"0\n")
    for value in itertools.count(1 if last is None else int(last.fields["value"]) + 1):
        save(run, 40 if same_step else value, value=float(value), size=TWO_MEBIBYTES, keep_last=1)
        os.write(promises, f"{value}\n".encode())
    raise AssertionError("the count ended")


def kill_writers(run: Path, kills: int, *, same_step: bool) -> Iterator[int]:
    """Kill writers of one run, one after the other; gives how many temporary folders each left.

    The writers are forks of this process, because each would need two seconds to import torch.
    """
    delays = random.Random(1)
    for flush in [*FLUSHES, *[None] * (kills - len(FLUSHES))]:
        reader, promises = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                write_forever(run, promises, same_step=same_step, flush=flush)
            finally:
                os._exit(1)
        os.close(promises)
        with open(reader, "rb") as told:  # noqa: PTH123 - a descriptor has no path
            assert told.readline() == b"0\n"
            if flush is None:
                time.sleep(delays.uniform(0, 0.150))
                os.kill(child, signal.SIGKILL)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
            promised = max((int(line) for line in told if line.endswith(b"\n")), default=0)
        left = temporaries(run)
        if promised or list_checkpoints(run):
            assert value_of(newest(run)) >= promised
            remove_leftovers(run)
            assert temporaries(run) == []
            assert not list(run.rglob("*.old-*"))
            assert value_of(newest(run)) >= promised
        yield len(left)


@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_fault_1_a_kill_in_mid_write_leaves_the_newest_complete_checkpoint(tmp_path: Path, kills: int) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.upstream.test_checkpoints import kill_writers; "
        "run, kills = Path(sys.argv[1]), int(sys.argv[2]); "
        "print(*kill_writers(run / 'next', kills, same_step=False)); "
        "print(*kill_writers(run / 'same', kills, same_step=True))"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{REPOSITORY}"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path), str(kills)],
        capture_output=True, text=True, timeout=300, cwd=REPOSITORY, env=environment,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    left = [int(number) for number in done.stdout.split()]
    assert len(left) == 2 * kills
    assert left[:2] == left[kills : kills + 2] == [1, 2], "no kill met a writer at work"


def test_fault_1_what_a_kill_left_is_removed_at_the_next_start(tmp_path: Path) -> None:
    saved = save(tmp_path, 40)
    shutil.copytree(saved.path, saved.path.with_name(".tmp-0badcafe-step-00000080"))
    (tmp_path / ".tmp-record.json").write_text("{")
    (saved.path.parent / ".tmp-link").symlink_to(saved.path)
    (tmp_path / "notes.txt").write_text("mine")
    assert newest(tmp_path) == saved
    remove_leftovers(tmp_path)
    assert temporaries(tmp_path) == []
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert newest(tmp_path) == saved
    remove_leftovers(tmp_path / "of a run that never was")


def test_fault_1_a_kill_between_the_two_renames_of_a_replacement_loses_nothing(tmp_path: Path) -> None:
    saved = save(tmp_path, 40)
    aside = saved.path.rename(saved.path.with_name("step-00000040.old-0badcafe"))
    assert newest(tmp_path).path == aside
    remove_leftovers(tmp_path)
    assert newest(tmp_path) == saved
    shutil.copytree(saved.path, aside)
    rewrite_manifest(saved.path, lambda manifest: manifest.update(new=True))
    assert newest(tmp_path).path == saved.path
    remove_leftovers(tmp_path)
    assert [path.name for path in saved.path.parent.iterdir()] == ["step-00000040"]


def fail_calls(patch: pytest.MonkeyPatch, name: str, nth: int, *, lasting: bool) -> None:
    """Let the nth call of a function of `os` find the disk full, and all later ones if it is lasting.

    Files are opened for reading, and to be removed, on a full disk too.
    """
    real = getattr(os, name)
    calls = itertools.count(1)

    def fail(*arguments: Any, **options: Any) -> Any:
        call = 0 if name == "open" and not arguments[1] & os.O_CREAT else next(calls)
        if call == nth or (lasting and call > nth):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments, **options)

    patch.setattr(os, name, fail)


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize("step", [1, 2], ids=["same_step", "next_step"])
@pytest.mark.parametrize("call", ["mkdir", "open", "write", "fsync", "rename"])
def test_fault_2_whatever_call_meets_a_full_disk_the_run_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, step: int, lasting: bool
) -> None:
    for nth in itertools.count(1):
        run = tmp_path / str(nth)
        save(run, 1, value=10.0)
        with monkeypatch.context() as patch:
            fail_calls(patch, call, nth, lasting=lasting)
            try:
                save(run, step, value=20.0, keep_last=1)
            except EnvironmentFault as error:
                fault = error
            else:
                break
        assert (fault.exit_code, fault.what) == (7, "No space left")
        assert str(run) in str(fault.file)
        assert temporaries(run) == []
        assert value_of(newest(run)) in {10.0, 20.0}
        save(run, step, value=30.0, keep_last=1)
        assert value_of(newest(run)) == 30.0
    assert nth > 1, f"`os.{call}` is never called"
    assert value_of(newest(run)) == 20.0


@pytest.mark.parametrize("limit", [0, 1, 100, SMALL * 4, SMALL * 4 + 500])
def test_fault_2_a_full_disk_leaves_the_previous_checkpoint(tmp_path: Path, limit: int) -> None:
    save(tmp_path, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(EnvironmentFault, match=r"No space left \(file .*step-00000002\)") as caught:
            save(tmp_path, 2, keep_last=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.exit_code == 7
    assert (temporaries(tmp_path), value_of(newest(tmp_path))) == ([], 1.0)


def test_fault_2_a_run_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(EnvironmentFault, match="Cannot write here: File exists"):
        save(tmp_path / "run", 1)


def test_an_interrupt_in_mid_write_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)

    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 2)
    assert (temporaries(tmp_path), steps_of(tmp_path)) == ([], [1])


# Fault 5: numbers that are none


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_fault_5_the_last_checkpoint_is_finite(tmp_path: Path, number: float) -> None:
    save(tmp_path, 1)
    weights = {"good": torch.ones(3), "bad": torch.tensor([0.0, number])}
    with pytest.raises(
        NonFiniteError, match=r"The weights are not finite.*key bad.*last checkpoint of a run is finite"
    ):
        save_checkpoint(tmp_path, 2, weights=weights, training=None, fields={})
    assert newest(tmp_path).step == 1
    with pytest.raises(NonFiniteError, match=r"cannot hold NaN or infinity.*key dev_loss"):
        save(tmp_path, 2, fields={"dev_loss": number})
    assert (temporaries(tmp_path), newest(tmp_path).step) == ([], 1)


# Faults 6 and 7: rot


def cut(length: Callable[[int], int]) -> Callable[[Path], None]:
    return lambda checkpoint: os.truncate(checkpoint / WEIGHTS_FILE, length((checkpoint / WEIGHTS_FILE).stat().st_size))


def damage(name: str, change: Callable[[bytearray], None]) -> Callable[[Path], None]:
    def apply(checkpoint: Path) -> None:
        content = bytearray((checkpoint / name).read_bytes())
        change(content)
        (checkpoint / name).write_bytes(content)

    return apply


def flip_middle_bit(content: bytearray) -> None:
    content[len(content) // 2] ^= 1


def zero_middle_third(content: bytearray) -> None:
    third = len(content) // 3
    content[third : 2 * third] = bytes(third)


def folder_for_file(checkpoint: Path) -> None:
    (checkpoint / WEIGHTS_FILE).unlink()
    (checkpoint / WEIGHTS_FILE).mkdir()


def manifest_is(text: str) -> Callable[[Path], None]:
    def apply(checkpoint: Path) -> None:
        (checkpoint / MANIFEST_FILE).write_text(text)

    return apply


def manifest_says(**fields: Any) -> Callable[[Path], None]:
    return lambda checkpoint: rewrite_manifest(checkpoint, lambda manifest: manifest.update(fields))


def files_name(name: str, entry: Any) -> Callable[[Path], None]:
    return lambda checkpoint: rewrite_manifest(checkpoint, lambda manifest: manifest["files"].update({name: entry}))


ROT: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut_to_0": (cut(lambda size: 0), r"holds 0 bytes, but the manifest gives \d+ .*model\.safetensors"),
    "cut_to_4": (cut(lambda size: 4), "holds 4 bytes"),
    "cut_to_100": (cut(lambda size: 100), "holds 100 bytes"),
    "cut_to_10_percent": (cut(lambda size: size // 10), "bytes, but the manifest gives"),
    "cut_to_half": (cut(lambda size: size // 2), "bytes, but the manifest gives"),
    "cut_by_1": (cut(lambda size: size - 1), "bytes, but the manifest gives"),
    "longer_by_1": (cut(lambda size: size + 1), "bytes, but the manifest gives"),
    "bit_of_weights": (damage(WEIGHTS_FILE, flip_middle_bit), r"SHA-256 .*model\.safetensors"),
    "block_of_weights": (damage(WEIGHTS_FILE, zero_middle_third), r"SHA-256 .*model\.safetensors"),
    "bit_of_training": (damage(TRAINING_FILE, flip_middle_bit), r"SHA-256 .*training\.safetensors"),
    "bit_of_text": (damage("README.md", flip_middle_bit), r"SHA-256 .*README\.md"),
    "no_weights": (lambda path: (path / WEIGHTS_FILE).unlink(), r"the file is missing .*model\.safetensors"),
    "no_training": (lambda path: (path / TRAINING_FILE).unlink(), r"the file is missing .*training\.safetensors"),
    "weights_are_a_folder": (folder_for_file, r"the file is missing .*model\.safetensors"),
    "no_manifest": (lambda path: (path / MANIFEST_FILE).unlink(), r"the file is missing .*checkpoint\.json"),
    "empty_manifest": (manifest_is(""), r"not readable as JSON: .*checkpoint\.json"),
    "half_manifest": (manifest_is('{"schema": "repben'), "not readable as JSON: Unterminated string"),
    "deep_manifest": (manifest_is("[" * 100_000), "not readable as JSON: (maximum recursion depth|Stack overflow)"),
    "manifest_not_an_object": (manifest_is("[1]"), "it must hold a JSON object"),
    "zeros_in_manifest": (damage(MANIFEST_FILE, zero_middle_third), "not readable as JSON"),
    "digit_of_manifest": (
        damage(MANIFEST_FILE, lambda content: content.__setitem__(content.index(b'"step": 2') + 8, ord("3"))),
        "it was changed after it was written",
    ),
    "other_schema": (manifest_says(schema="other/9"), "`schema` must be 'repbench.checkpoint/1', but is 'other/9'"),
    "step_below_0": (manifest_says(step=-1), "`step` must be a whole number of at least 0, but is -1"),
    "step_true": (manifest_says(step=True), "`step` must be a whole number of at least 0, but is True"),
    "no_files": (manifest_says(files={}), r"`files` must name model\.safetensors"),
    "file_above": (files_name("../step-00000001/x", {}), "may name only files of this folder, but names '../step-"),
    "file_elsewhere": (files_name("/etc/passwd", {}), "may name only files of this folder, but names '/etc/passwd'"),
    "file_above_on_windows": (files_name("..\\x", {}), "may name only files of this folder"),
    "file_is_the_folder_above": (files_name("..", {}), "may name only files of this folder"),
    "file_without_a_size": (files_name(WEIGHTS_FILE, {"sha256": "0"}), "must give `sha256` and `bytes`"),
    "file_without_a_digest": (files_name(WEIGHTS_FILE, {"bytes": 1}), "must give `sha256` and `bytes`"),
}


@pytest.mark.parametrize("rot", ROT)
def test_faults_6_and_7_a_corrupt_checkpoint_is_named_and_a_run_falls_back(tmp_path: Path, rot: str) -> None:
    spoil, reason = ROT[rot]
    good, bad = save(tmp_path, 1), save(tmp_path, 2)
    spoil(bad.path)
    with pytest.raises(IntegrityError, match=f"^corrupt: .*{reason}") as caught:
        open_checkpoint(bad.path)
    assert (caught.value.exit_code, str(bad.path) in str(caught.value.file)) == (4, True)
    warnings: list[str] = []
    assert newest_intact(tmp_path, warnings.append) == good
    assert len(warnings) == 1
    assert warnings[0].startswith(caught.value.line())
    assert warnings[0].endswith(("The checkpoint of step 2 is skipped.", "It is left out."))


def test_faults_6_and_7_the_bytes_that_are_parsed_are_the_bytes_that_were_verified(tmp_path: Path) -> None:
    opened = open_checkpoint(save(tmp_path, 1).path)
    damage(WEIGHTS_FILE, flip_middle_bit)(opened.path)
    with pytest.raises(IntegrityError, match=r"corrupt: the SHA-256 .*model\.safetensors"):
        read_weights(opened)
    os.truncate(opened.path / TRAINING_FILE, 3)
    with pytest.raises(IntegrityError, match=r"corrupt: the file holds 3 bytes.*training\.safetensors"):
        read_training(opened)


def test_faults_6_and_7_a_digest_does_not_make_a_file_a_good_one(tmp_path: Path) -> None:
    path = save(tmp_path, 1).path
    infinite = save(tmp_path / "other", 1).path / WEIGHTS_FILE
    content = infinite.read_bytes()
    rewrite_file(path, WEIGHTS_FILE, content[:-4] + b"\x00\x00\x80\x7f")
    with pytest.raises(IntegrityError, match=r"corrupt: the tensor `\w+\.\w+` is not finite"):
        read_weights(open_checkpoint(path))
    rewrite_file(path, WEIGHTS_FILE, b"<!DOCTYPE html><title>Not found</title>")
    with pytest.raises(IntegrityError, match=r"corrupt: not a safetensors file: .*model\.safetensors"):
        read_weights(open_checkpoint(path))


def test_fault_6_no_checkpoint_is_none_and_all_corrupt_is_said(tmp_path: Path) -> None:
    assert newest_intact(tmp_path, refuse) is None
    for step in (1, 2):
        cut(lambda size: 0)(save(tmp_path, step).path)
    warnings: list[str] = []
    assert newest_intact(tmp_path, warnings.append) is None
    assert ["step-00000002" in warning for warning in warnings] == [True, False]


def test_a_named_folder_that_is_not_there_is_a_mistake_of_the_command(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"There is no such checkpoint folder.*Name a folder with a checkpoint\.json"):
        open_checkpoint(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("number", "expected"), [(errno.EACCES, EnvironmentFault), (errno.EIO, IntegrityError)], ids=["denied", "failing"]
)
def test_what_may_not_be_read_is_not_called_corrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[Exception]
) -> None:
    saved = save(tmp_path, 1)

    def fail(path: Path) -> bytes:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(expected, match=os.strerror(number)):
        open_checkpoint(saved.path)


# Fault 31: which is the newest


def test_fault_31_neither_clocks_nor_names_make_a_checkpoint_the_newest(tmp_path: Path) -> None:
    for step in (100_000_000, 20, 9):
        save(tmp_path, step)
    in_ten_years = time.time() + 10 * 365 * 86_400
    for path in (tmp_path / "checkpoints" / "step-00000009").iterdir():
        os.utime(path, (in_ten_years, in_ten_years))
    os.utime(tmp_path / "checkpoints" / "step-00000009", (in_ten_years, in_ten_years))
    (tmp_path / "checkpoints" / "step-00000020").rename(tmp_path / "checkpoints" / "step-99999999")
    shutil.copytree(tmp_path / "checkpoints" / "step-100000000", tmp_path / "checkpoints" / "my copy")
    assert steps_of(tmp_path) == [9, 20, 100_000_000]
    assert newest(tmp_path).step == 100_000_000


def test_fault_31_the_newest_of_several_runs_began_last(tmp_path: Path) -> None:
    assert newest_under(tmp_path / "nothing") is None
    for place, started, steps in (
        ("first", "2026-03-29T01:30:00+00:00", (80, 90)),
        ("deep/er/second", "2026-03-29T03:00:00+02:00", (500,)),
        ("deep/third", "2026-03-29T01:45:00", (10, 20)),
        ("broken", "yesterday", (900,)),
        ("silent", None, (900,)),
        ("too/deep/for/this", "2030-01-01T00:00:00+00:00", (1,)),
    ):
        for step in steps:
            save(tmp_path / place, step, fields={"started": started} if started else {})
    found = newest_under(tmp_path)
    assert found is not None
    assert (found.path.relative_to(tmp_path).parts[:2], found.step) == (("deep", "third"), 20)
    (found.path / MANIFEST_FILE).write_text("")
    warnings: list[str] = []
    found = newest_under(tmp_path, warnings.append)
    assert found is not None
    assert (found.step, len(warnings)) == (10, 1)
    own = newest_under(tmp_path / "first")
    assert own is not None
    assert own.step == 90


# What stays


def test_the_last_and_the_best_are_kept(tmp_path: Path) -> None:
    losses = {1: 3.0, 2: 1.0, 3: 1.0, 4: None, 5: 2, 6: True, 7: "0", 8: 4.0}
    for step, loss in losses.items():
        save(tmp_path, step, fields={"dev_loss": loss})
    assert steps_of(tmp_path) == [2, 6, 7, 8]
    save(tmp_path, 9, fields={"dev_loss": 0.5}, keep_last=1)
    assert steps_of(tmp_path) == [9]
    save(tmp_path, 10, fields={}, keep_last=1)
    assert steps_of(tmp_path) == [9, 10]
    assert temporaries(tmp_path) == []


def test_keep_last_1_never_deletes_what_was_just_written(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        saved = save(tmp_path, step, keep_last=1)
        assert (steps_of(tmp_path), newest(tmp_path)) == ([step], saved)


def test_a_run_that_fell_back_keeps_what_it_writes_and_replaces_what_was_corrupt(tmp_path: Path) -> None:
    for step in (40, 80, 120):
        save(tmp_path, step, keep_last=3)
    for step in (80, 120):
        damage(WEIGHTS_FILE, flip_middle_bit)(tmp_path / "checkpoints" / f"step-{step:08d}")
    warnings: list[str] = []
    back = newest_intact(tmp_path, warnings.append)
    assert back is not None
    assert (back.step, len(warnings)) == (40, 2)
    save(tmp_path, 60, value=60.0, keep_last=1)
    assert steps_of(tmp_path) == [60, 80, 120]
    for step in (80, 120):
        save(tmp_path, step, keep_last=1)
        assert open_checkpoint(tmp_path / "checkpoints" / f"step-{step:08d}").step == step
    assert (steps_of(tmp_path), value_of(newest(tmp_path))) == ([120], 120.0)


def test_the_same_bytes_again_leave_the_old_checkpoint_where_it_is(tmp_path: Path) -> None:
    first = save(tmp_path, 1)
    inode = first.path.stat().st_ino
    assert save(tmp_path, 1) == first
    assert first.path.stat().st_ino == inode
    damage(WEIGHTS_FILE, flip_middle_bit)(first.path)
    assert open_checkpoint(save(tmp_path, 1).path) == first
    save(tmp_path, 1, value=5.0)
    assert [path.name for path in first.path.parent.iterdir()] == ["step-00000001"]
    assert value_of(newest(tmp_path)) == 5.0


def test_fault_1_a_kill_in_mid_deletion_leaves_no_half_of_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)

    def die_halfway(folder: Path, **options: Any) -> NoReturn:
        (folder / WEIGHTS_FILE).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", die_halfway)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 2, keep_last=1)
    assert (steps_of(tmp_path), len(temporaries(tmp_path))) == ([2], 1)
    remove_leftovers(tmp_path)
    assert (temporaries(tmp_path), value_of(newest(tmp_path))) == ([], 2.0)


def test_a_checkpoint_that_is_a_link_is_replaced_and_its_target_left_alone(tmp_path: Path) -> None:
    saved = save(tmp_path, 1)
    target = saved.path.rename(tmp_path / "elsewhere")
    saved.path.symlink_to(target)
    save(tmp_path, 1, value=5.0)
    assert (saved.path.is_symlink(), open_checkpoint(target).fields) == (False, saved.fields)
    assert value_of(newest(tmp_path)) == 5.0


# A checkpoint that is in no run


def ones(number: float = 1.0) -> dict[str, Tensor]:
    return {"a": torch.full((3,), number)}


def test_converted_weights_stand_alone_and_may_be_converted_again(tmp_path: Path) -> None:
    folder = tmp_path / "out" / "converted"
    saved = save_weights(folder, weights=ones(), fields={"upstream": "mockingjay"}, texts={"README.md": "x"}, step=7)
    assert (saved.path, open_checkpoint(folder).step) == (folder, 7)
    (tmp_path / "out" / ".tmp-0badcafe-converted").mkdir()
    (tmp_path / "out" / ".tmp-0badcafe-other").mkdir()
    save_weights(folder, weights=ones(2.0), fields={})
    assert read_weights(open_checkpoint(folder))["a"].tolist() == [2, 2, 2]
    assert sorted(path.name for path in folder.parent.iterdir()) == [".tmp-0badcafe-other", "converted"]


@pytest.mark.parametrize("nth", [1, 2])
def test_converted_weights_that_cannot_be_replaced_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    folder = save_weights(tmp_path / "out", weights=ones(), fields={}).path
    fail_calls(monkeypatch, "rename", nth, lasting=False)
    with pytest.raises(EnvironmentFault, match="No space left"):
        save_weights(folder, weights=ones(2.0), fields={})
    assert read_weights(open_checkpoint(folder))["a"].tolist() == [1, 1, 1]
    assert list(tmp_path.iterdir()) == [folder]


def test_converted_weights_may_fill_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to("out")
    save_weights(tmp_path / "link", weights=ones(), fields={})
    assert read_weights(open_checkpoint(tmp_path / "out"))["a"].tolist() == [1, 1, 1]


def test_converted_weights_replace_nothing_that_is_no_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "thesis.tex").write_text("ten years")
    with pytest.raises(
        UsageError, match=r"not empty and 'thesis\.tex' in it does not belong to a checkpoint .*Name a new folder"
    ):
        save_weights(folder, weights=ones(), fields={})
    saved = save_weights(tmp_path / "other", weights=ones(), fields={})
    (saved.path / "thesis.tex").write_text("ten years")
    with pytest.raises(UsageError, match=r"'thesis\.tex' in it does not belong to a checkpoint"):
        save_weights(saved.path, weights=ones(), fields={})
    with pytest.raises(UsageError, match="The output is not a folder"):
        save_weights(folder / "thesis.tex", weights=ones(), fields={})
    with pytest.raises(UsageError, match="A mount point cannot be replaced"):
        save_weights(Path("/"), weights=ones(), fields={})
    assert (folder / "thesis.tex").read_text() == (saved.path / "thesis.tex").read_text() == "ten years"
