"""Foreign checkpoints are read whole or refused, and nothing in them ever runs."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import pickle
import random
import re
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from repbench.errors import EnvironmentFault, IntegrityError, UsageError
from repbench.upstream.checkpoints.safe_unpickle import (
    MAX_DEPTH,
    MAX_INSTRUCTIONS,
    MAX_MEMBERS,
    check_weights,
    read_pickle,
)

GOLDEN = Path(__file__).parent.parent / "golden"
GOLDENS = sorted(
    path
    for folder in ("mockingjay_legacy", "mockingjay_s3prl", "apc")
    for path in (GOLDEN / folder).glob("*")
    if path.suffix in {".ckpt", ".pt"}
)
ZIP_GOLDEN = GOLDEN / "mockingjay_s3prl" / "s3prl_mj_kaldi.ckpt"
OLDER_GOLDEN = GOLDEN / "mockingjay_legacy" / "mockingjay_dr3_mel.ckpt"
MIB = 1 << 20

both_forms = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older"])


@pytest.fixture(scope="module")
def fresh_zip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As torch writes it: the goldens in zip form went through another tool, and have no zip64 records."""
    path = tmp_path_factory.mktemp("fresh") / "fresh.ckpt"
    return save(path, {"Transformer": torch.nn.Linear(150, 150).state_dict(), "Step": 3}, zipped=True)


@pytest.fixture(params=["golden zip", "fresh zip", "older"])
def sound(request: pytest.FixtureRequest, fresh_zip: Path) -> Path:
    """A sound checkpoint in each form."""
    return {"golden zip": ZIP_GOLDEN, "fresh zip": fresh_zip, "older": OLDER_GOLDEN}[request.param]


@pytest.fixture(params=["golden zip", "fresh zip"])
def sound_zip(request: pytest.FixtureRequest, fresh_zip: Path) -> Path:
    return {"golden zip": ZIP_GOLDEN, "fresh zip": fresh_zip}[request.param]


def refused(path: Path, match: str) -> None:
    """What every refusal owes: exit 4, one line with the file, something to do, and never advice to run the pickle."""
    with pytest.raises(IntegrityError, match=match) as caught:
        read_pickle(path)
    assert caught.value.exit_code == 4
    assert caught.value.file == str(path)
    assert caught.value.do
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)


def save(path: Path, content: object, *, zipped: bool) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def contained(program: bytes, path: Path, *, zipped: bool) -> Path:
    """`program` in the place of the pickle of a checkpoint that is sound otherwise, its CRC included."""
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", program)
            archive.writestr("archive/byteorder", "little")
            archive.writestr("archive/version", "3\n")
        return path
    saved = io.BytesIO()
    torch.save({}, saved, _use_new_zipfile_serialization=False)
    empty_dict, empty_list = pickle.dumps({}, 2), pickle.dumps([], 2)
    assert saved.getvalue().count(empty_dict + empty_list) == 1
    path.write_bytes(saved.getvalue().replace(empty_dict + empty_list, program + empty_list))
    return path


def same(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def leaves(value: object) -> list[object]:
    if type(value) is dict:
        return [leaf for item in value.values() for leaf in leaves(item)]
    if type(value) in (list, tuple):
        assert isinstance(value, (list, tuple))
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


# What is sound is read.


def test_the_goldens_are_there() -> None:
    assert len(GOLDENS) == 7


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.name)
def test_fault_11_every_golden_becomes_plain_values_and_tensors(path: Path) -> None:
    content = read_pickle(path)
    kinds = {type(leaf) for leaf in leaves(content)}
    assert Tensor in kinds
    assert kinds <= {Tensor, int, float, str, bool, type(None)}
    for leaf in leaves(content):
        assert not isinstance(leaf, Tensor) or (leaf.layout == torch.strided and not leaf.requires_grad)


def test_fault_11_the_keys_of_the_goldens_are_those_that_were_written() -> None:
    content = read_pickle(GOLDEN / "mockingjay_legacy" / "mockingjay_dr1_mel.ckpt")
    assert list(content) == ["SpecHead", "Mockingjay", "Optimizer", "Global_step", "Settings"]
    assert content["Settings"]["Config"]["timer"] == {"timings": [], "start_time": 0}
    assert content["Settings"]["Paras"]["config"].endswith(".yaml")
    assert content["Optimizer"]["param_groups"][0]["schedule"]["warmup"] == 0.07
    apc = read_pickle(GOLDEN / "apc" / "apc_original_noprenet.pt")
    assert apc["rnns.0.weight_ih_l0"].shape == (96, 80)


class Timer:
    def __init__(self) -> None:
        self.timings = {"a": 1.5}


Timer.__module__ = "utility.timer"


@both_forms
def test_fault_11_a_namespace_and_a_timer_become_dicts(
    tmp_path: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("utility.timer")
    monkeypatch.setattr(module, "Timer", Timer, raising=False)
    monkeypatch.setitem(sys.modules, "utility", ModuleType("utility"))
    monkeypatch.setitem(sys.modules, "utility.timer", module)
    content = {"Paras": argparse.Namespace(lr="4e-4", nested=argparse.Namespace(x=1)), "Config": {"timer": Timer()}}
    found = read_pickle(save(tmp_path / "a.ckpt", content, zipped=zipped))
    assert found == {
        "Paras": {"lr": "4e-4", "nested": {"x": 1}},
        "Config": {"timer": {"timings": {"a": 1.5}}},
    }


@both_forms
def test_what_was_saved_is_what_is_read(tmp_path: Path, zipped: bool) -> None:
    content = {
        "none": None, "flags": [True, False], "pair": (1, -(10**12)), "pi": 3.14, "text": "ü",
        "ordered": OrderedDict(b=torch.arange(3), a=torch.zeros(0)),
        "half": torch.ones(2, 3, dtype=torch.float16).T,
        "optimizer": {0: torch.ones((), dtype=torch.float64)},
    }  # fmt: skip
    found = read_pickle(save(tmp_path / "a.ckpt", content, zipped=zipped))
    assert same(found, {**content, "ordered": {"b": torch.arange(3), "a": torch.zeros(0)}})


@both_forms
def test_a_module_is_read_as_its_bare_state_dict(tmp_path: Path, zipped: bool) -> None:
    state = torch.nn.Linear(3, 2).state_dict(keep_vars=True)
    found = read_pickle(save(tmp_path / "a.pt", state, zipped=zipped))
    assert type(found["weight"]) is Tensor
    assert not found["weight"].requires_grad
    assert same(found, {key: value.detach() for key, value in state.items()})


@both_forms
def test_tied_weights_and_views_of_one_storage_are_read(tmp_path: Path, zipped: bool) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    content = {"whole": whole, "tied": whole, "column": whole[:, 1], "row": whole[2]}
    found = read_pickle(save(tmp_path / "a.pt", content, zipped=zipped))
    assert same(found, content)
    assert found["tied"].data_ptr() == found["whole"].data_ptr()


def test_reading_leaves_the_names_that_torch_trusts_as_they_were() -> None:
    before = set(torch.serialization.get_safe_globals())
    read_pickle(OLDER_GOLDEN)
    assert set(torch.serialization.get_safe_globals()) == before


# Files that are damaged.


def test_a_missing_file_is_a_fault_of_the_command(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such checkpoint \(file .*nothing.ckpt, key --checkpoint\)"):
        read_pickle(tmp_path / "nothing.ckpt")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "is a folder, not a file")


def test_a_file_that_may_not_be_read_is_the_environments_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(EnvironmentFault, match="cannot be read: Permission denied"):
        read_pickle(ZIP_GOLDEN)


CUTS: dict[str, Callable[[int], int]] = {
    "0": lambda size: 0,
    "1": lambda size: 1,
    "4": lambda size: 4,
    "100": lambda size: 100,
    "10 %": lambda size: size // 10,
    "50 %": lambda size: size // 2,
    "99 %": lambda size: size * 99 // 100,
    "-1": lambda size: size - 1,
}


@pytest.mark.parametrize("cut", CUTS)
def test_fault_6_a_cut_file_is_corrupt(tmp_path: Path, sound: Path, cut: str) -> None:
    whole = sound.read_bytes()
    short = tmp_path / "short.ckpt"
    short.write_bytes(whole[: CUTS[cut](len(whole))])
    refused(short, "corrupt: ")


def test_fault_6_bytes_after_the_end_are_refused(tmp_path: Path, sound: Path) -> None:
    long = tmp_path / "long.ckpt"
    long.write_bytes(sound.read_bytes() + b"x")
    refused(long, "corrupt: ")


def largest_member(path: Path) -> tuple[str, int]:
    """The name and the middle of the largest member of a zip."""
    with zipfile.ZipFile(path) as archive:
        info = max(archive.infolist(), key=lambda info: info.file_size)
    with path.open("rb") as stream:
        stream.seek(info.header_offset + 26)
        name_bytes, extra_bytes = struct.unpack("<HH", stream.read(4))
    return info.filename, info.header_offset + 30 + name_bytes + extra_bytes + info.file_size // 2


def test_fault_7_a_flipped_bit_is_named_by_its_member(tmp_path: Path, sound_zip: Path) -> None:
    member, middle = largest_member(sound_zip)
    damaged = bytearray(sound_zip.read_bytes())
    damaged[middle] ^= 1
    path = tmp_path / "flipped.ckpt"
    path.write_bytes(damaged)
    with torch.serialization.safe_globals([argparse.Namespace]):
        torch.load(path, weights_only=True)  # torch sees nothing
    refused(path, f"corrupt: CRC mismatch in {member} ")


def test_fault_7_a_flipped_bit_anywhere_is_refused_or_makes_no_difference(tmp_path: Path, sound_zip: Path) -> None:
    whole, expected = sound_zip.read_bytes(), read_pickle(sound_zip)
    draw = random.Random(7)
    places = [draw.randrange(len(whole)) for _ in range(60)] + [draw.randrange(1, 3000) for _ in range(30)]
    num_refused = 0
    for place in [*places, *(len(whole) - draw.randrange(1, 3000) for _ in range(60))]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << draw.randrange(8)
        path = tmp_path / "flipped.ckpt"
        path.write_bytes(damaged)
        try:
            assert same(read_pickle(path), expected), place
        except IntegrityError:
            num_refused += 1
    assert num_refused > 100


def with_zeros(whole: bytes) -> bytes:
    third = len(whole) // 3
    return whole[:third] + bytes(third) + whole[2 * third :]


def test_fault_7_a_zeroed_third_is_refused(tmp_path: Path, sound_zip: Path) -> None:
    path = tmp_path / "zeroed.ckpt"
    path.write_bytes(with_zeros(sound_zip.read_bytes()))
    refused(path, "corrupt: ")


def test_fault_7_a_zeroed_start_is_refused(tmp_path: Path, sound: Path) -> None:
    path = tmp_path / "zeroed.ckpt"
    path.write_bytes(bytes(4096) + sound.read_bytes()[4096:])
    refused(path, "corrupt: it starts with zeros")


def test_fault_7_a_digest_beside_the_file_is_the_proof(tmp_path: Path, sound: Path) -> None:
    whole = sound.read_bytes()
    path, sidecar = tmp_path / "a.ckpt", tmp_path / "a.ckpt.sha256"
    path.write_bytes(whole)
    sidecar.write_text(f"{hashlib.sha256(whole).hexdigest().upper()}  a.ckpt\n")
    assert same(read_pickle(path), read_pickle(sound))
    path.write_bytes(with_zeros(whole))
    refused(path, r"corrupt: SHA-256 mismatch: a.ckpt.sha256 gives")
    flipped = bytearray(whole)
    flipped[len(whole) - len(whole) // 3] ^= 1
    path.write_bytes(flipped)
    refused(path, r"corrupt: SHA-256 mismatch")


@pytest.mark.parametrize("text", ["", "not a digest", "abc123  a.ckpt"])
def test_fault_7_a_sidecar_without_a_digest_is_refused(tmp_path: Path, text: str) -> None:
    path = save(tmp_path / "a.ckpt", {}, zipped=False)
    (tmp_path / "a.ckpt.sha256").write_text(text)
    refused(path, "a.ckpt.sha256, next to the checkpoint, holds no SHA-256")


@both_forms
def test_damaged_pickles_are_refused_or_read_but_never_crash(tmp_path: Path, zipped: bool) -> None:
    program = pickle.dumps({"a": [1, (2.5, "x")], "b": OrderedDict(c=argparse.Namespace(d=None))}, 2)
    draw = random.Random(9)
    for _ in range(200):
        damaged = bytearray(program)
        for _ in range(draw.randrange(1, 4)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        try:
            read_pickle(contained(bytes(damaged), tmp_path / "a.ckpt", zipped=zipped))
        except IntegrityError as error:
            assert "weights_only" not in str(error)  # noqa: PT017 - most are refused, some are read


OTHER_FILES = {
    "an HTML or XML page": b"\n<!DOCTYPE html>\n<html><title>404</title></html>",
    "a git-LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
    "a WAV file": b"RIFF\x24\x00\x00\x00WAVEfmt ",
    "a JSON file": b'{"model": 1}',
    "a text file": "Zugriff verweigert: für Sie nicht.\n".encode(),
    "a safetensors file": struct.pack("<Q", 17) + b'{"__metadata__":{}}',
    "a pickle that torch.save did not write": pickle.dumps({"weight": [1.0]}),
    "a zip that torch.save did not write": b"",
    "a gzip file": b"\x1f\x8b\x08\x00",
    "a tar file": b"",
    "not a file that torch.save wrote": bytes(range(256)),
}


@pytest.mark.parametrize("name", OTHER_FILES)
def test_fault_8_another_file_is_called_by_its_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(OTHER_FILES[name])
    if "zip that" in name:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("word/document.xml", "<x/>")
    if "tar" in name:
        with tarfile.open(path, "w") as tar:
            tar.addfile(tarfile.TarInfo("storages"))
    refused(path, f"The checkpoint is {name}")


def test_fault_8_torchscript_is_called_by_its_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        for name in ("a/data.pkl", "a/constants.pkl"):
            archive.writestr(name, pickle.dumps({}, 2))
    refused(tmp_path / "a.pt", "TorchScript")


# Files that are malicious.


class Runs:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.parts = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.parts


def programs(command: str, code: str) -> dict[str, tuple[bytes, str]]:
    """Pickles that run `command` in a shell or `code` in Python, and what they need for it."""
    text = b"X" + struct.pack("<I", len(command)) + command.encode()
    python = b"X" + struct.pack("<I", len(code)) + code.encode()
    name = b"cposix\nsystem\n"
    namespace = b"cargparse\nNamespace\n)\x81"
    key = b"X\x0c\x00\x00\x00__setstate__"
    spent = b"q\x000cbuiltins\nlist\nh\x00\x85R."  # a `map` calls when it is listed
    return {
        "protocol 0": (pickle.dumps(Runs(os.system, command), 0), "posix.system"),
        "protocol 2": (pickle.dumps(Runs(os.system, command), 2), "posix.system"),
        "protocol 4": (pickle.dumps({"a": Runs(os.system, command)}, 4), "posix.system"),
        "protocol 5": (pickle.dumps(Runs(os.system, command), 5), "posix.system"),
        "eval": (pickle.dumps(Runs(eval, code), 2), "builtins.eval"),
        "eval as Python 3 names it": (b"\x80\x02cbuiltins\neval\n" + python + b"\x85R.", "builtins.eval"),
        "INST": (b"(" + text + b"iposix\nsystem\n.", "posix.system"),
        "OBJ": (b"\x80\x02(" + name + text + b"o.", "posix.system"),
        "NEWOBJ_EX": (b"\x80\x04cbuiltins\nmap\ncposix\nsystem\n(" + text + b"l\x86}\x92" + spent, "builtins.map"),
        "NEWOBJ": (b"\x80\x02cbuiltins\nmap\ncposix\nsystem\n(" + text + b"l\x86\x81" + spent, "builtins.map"),
        "BUILD calls __setstate__": (
            b"\x80\x02" + namespace + b"}" + key + name + b"sb" + text + b"b.", "posix.system",
        ),
        "BUILD calls append": (
            b"\x80\x02" + namespace + b"}X\x06\x00\x00\x00append" + name + b"sb" + text + b"a.", "posix.system",
        ),
        "called and dropped": (b"\x80\x02" + name + text + b"\x85R0}.", "posix.system"),
        "called for the attributes of an OrderedDict": (
            b"\x80\x02ccollections\nOrderedDict\n)R}X\x09\x00\x00\x00_metadata" + name + text + b"\x85Rsb.",
            "posix.system",
        ),
    }  # fmt: skip


PROGRAMS = sorted(programs("", ""))


@both_forms
@pytest.mark.parametrize("variant", PROGRAMS)
def test_fault_9_a_malicious_pickle_runs_nothing(tmp_path: Path, variant: str, zipped: bool) -> None:
    canary = tmp_path / "CANARY"
    program, needed = programs(f"touch {canary}", f"open({str(canary)!r}, 'w').close()")[variant]
    refused(contained(program, tmp_path / "a.ckpt", zipped=zipped), f"needs code to load: {needed}")
    assert not canary.exists()


@pytest.mark.parametrize("variant", PROGRAMS)
def test_fault_9_the_malicious_pickles_are_malicious(tmp_path: Path, variant: str) -> None:
    canary = tmp_path / "CANARY"
    program, _ = programs(f"touch {canary}", f"open({str(canary)!r}, 'w').close()")[variant]
    pickle.loads(program)
    assert canary.exists()


@both_forms
def test_fault_9_the_place_of_foreign_code_is_named(tmp_path: Path, zipped: bool) -> None:
    canary = tmp_path / "CANARY"
    content = {"Config": {"paths": [1, Runs(os.system, f"touch {canary}")]}, "weight": torch.zeros(3)}
    path = save(tmp_path / "a.ckpt", content, zipped=zipped)
    refused(path, r"`Config\.paths\.1` needs code to load: posix\.system")
    assert not canary.exists()


@both_forms
def test_fault_9_setstate_of_a_trusted_class_cannot_be_planted(tmp_path: Path, zipped: bool) -> None:
    key = b"X\x0c\x00\x00\x00__setstate__"
    program = b"\x80\x02cargparse\nNamespace\n)\x81}" + key + b"ccollections\nOrderedDict\nsb}b."
    refused(contained(program, tmp_path / "a.ckpt", zipped=zipped), "corrupt: its pickle is malformed")


@both_forms
@pytest.mark.parametrize(
    ("name", "match"),
    [(rb"Namesp\x61ce", r"torch cannot read it \(UnpicklingError\)"), (rb"Names\pace", "its pickle is malformed")],
)
def test_fault_9_a_name_with_a_backslash_is_refused(tmp_path: Path, name: bytes, match: str, zipped: bool) -> None:
    program = under_a(b"cargparse\n" + name + b"\n)\x81")
    refused(contained(program, tmp_path / "a.ckpt", zipped=zipped), match)


FOREIGN: dict[str, tuple[object, str]] = {
    "set": ({1}, r"`x\.y` needs code to load: builtins\.set"),
    "Counter": (Counter("a"), r"`x\.y` needs code to load: collections\.Counter"),
    "path": (PurePosixPath("/a"), r"`x\.y` needs code to load: pathlib\.PurePosixPath"),
    "complex": (1j, r"`x\.y` needs code to load: builtins\.complex"),
    "size": (torch.Size([1]), r"`x\.y` needs code to load: torch\.Size"),
    "dtype": (torch.float32, r"`x\.y` needs code to load: torch\.float32"),
    "class": (argparse.Namespace, r"`x\.y` needs code to load: argparse\.Namespace"),
    "function": (torch.nn.functional.relu, r"`x\.y` needs code to load: torch\.nn\.functional\.relu"),
    "sparse": (torch.eye(3).to_sparse(), r"`x\.y` is a sparse tensor"),
    "meta": (torch.zeros(3, device="meta"), r"`x\.y` is a meta tensor"),
}


@both_forms
@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_not_plain_is_refused_with_its_place(tmp_path: Path, name: str, zipped: bool) -> None:
    value, match = FOREIGN[name]
    refused(save(tmp_path / "a.ckpt", {"x": {"y": value}}, zipped=zipped), match)


@both_forms
@pytest.mark.filterwarnings("ignore:.*quantiz.*", "ignore:TypedStorage is deprecated")
def test_a_quantized_tensor_is_refused_with_its_place(tmp_path: Path, zipped: bool) -> None:
    value = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    refused(save(tmp_path / "a.ckpt", {"x": {"y": value}}, zipped=zipped), r"`x\.y` is a quantized tensor")


@both_forms
@pytest.mark.parametrize("content", [[torch.zeros(2)], torch.zeros(2), {0: "a"}, "text"])
def test_the_outermost_value_is_a_dict_of_names(tmp_path: Path, content: object, zipped: bool) -> None:
    refused(save(tmp_path / "a.ckpt", content, zipped=zipped), "outermost value must be a dict")


# Files that are bombs.


def rezipped(path: Path, change: Callable[[zipfile.ZipFile, str, bytes], None]) -> Path:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            change(archive, name, data)
    return path


def one_tensor(
    numel: int, size: int, *, stride: int = 1, zipped: bool, hooks: bytes = b"ccollections\nOrderedDict\n)R"
) -> bytes:
    """The pickle of {"a": a tensor (size,) in a storage of `numel` values}."""
    numbers = [b"\x8a\x08" + struct.pack("<q", number) for number in (numel, size, stride)]
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + numbers[0]
    storage += b"tQ" if zipped else b"NtQ"
    parts = storage + b"K\x00" + numbers[1] + b"\x85" + numbers[2] + b"\x85\x89" + hooks
    return under_a(b"ctorch._utils\n_rebuild_tensor_v2\n(" + parts + b"tR")


def holding(program: bytes, path: Path, data: bytes, *, keys: object = ("0",), zipped: bool) -> Path:
    """A checkpoint of `program` and one storage: the float32 values in `data`."""
    contained(program, path, zipped=zipped)
    if zipped:
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("archive/data/0", data)
    else:
        names = pickle.dumps(list(keys) if isinstance(keys, tuple) else keys, 2)
        start = path.read_bytes().removesuffix(pickle.dumps([], 2))
        path.write_bytes(start + names + struct.pack("<q", len(data) // 4) + data)
    return path


@both_forms
def test_a_tensor_must_fit_its_storage_and_its_storage_the_file(tmp_path: Path, zipped: bool) -> None:
    def read(numel: int, size: int, **options: Any) -> Path:
        program = one_tensor(numel, size, zipped=zipped, **options)
        return holding(program, tmp_path / "a.ckpt", struct.pack("<4f", 1, 2, 3, 4), zipped=zipped)

    assert read_pickle(read(4, 2, stride=3))["a"].tolist() == [1.0, 4.0]
    refused(read(4, 2, stride=4), "`a` reaches to value 4 of a storage that holds 4")
    refused(read(4, 5, stride=0), "`a` declares 5 values, but its storage holds 4")
    refused(read(3, 3), "storage 0 (declares 12 bytes, but its member has 16|should have 3 values)")
    refused(read(5, 3), "storage 0 (declares 20 bytes, but its member has 16|should have 5 values)")
    refused(read(-1, 0), "a storage without a proper name or length")
    refused(read(4, -4, stride=-1), "a tensor with invalid arguments")
    refused(read(4, 4, hooks=b"K\x01"), "a tensor with invalid arguments")


@pytest.mark.parametrize("keys", [(), ("1",), ("0", "0"), ("0", "1"), {"0": 1}], ids=repr)
def test_fault_6_the_list_of_storages_is_that_of_the_tensors(tmp_path: Path, keys: object) -> None:
    program = one_tensor(4, 4, zipped=False)
    path = holding(program, tmp_path / "a.ckpt", bytes(16), keys=keys, zipped=False)
    refused(path, "its list of storages differs from those of its tensors")


@both_forms
def test_one_storage_is_declared_one_way(tmp_path: Path, zipped: bool) -> None:
    first, second = (one_tensor(numel, 1, zipped=zipped) for numel in (4, 3))
    program = first.removesuffix(b".") + second.removeprefix(b"\x80\x02}").replace(b"\x00a", b"\x00b", 1)
    path = holding(program, tmp_path / "a.ckpt", bytes(16), zipped=zipped)
    refused(path, "storage 0 is declared twice")


@both_forms
@pytest.mark.parametrize("protocol", [0, 3, 4])
def test_what_torch_would_only_warn_of_is_refused(tmp_path: Path, protocol: int, zipped: bool) -> None:
    path = contained(pickle.dumps({"a": 1}, protocol), tmp_path / "a.ckpt", zipped=zipped)
    refused(path, "uses the pickle instruction (PROTO|SHORT_BINUNICODE|MEMOIZE|DICT|FRAME)")


def test_values_from_a_big_endian_machine_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.ckpt", {"a": torch.ones(3)}, zipped=False)
    path.write_bytes(re.sub(rb"(little_endianq.)\x88", b"\\1\x89", path.read_bytes()))
    refused(path, "written on a big-endian machine")


def test_fault_8_a_checkpoint_that_is_also_a_tar_is_refused(tmp_path: Path) -> None:
    """torch tries the tar first, so it would read another file than the one that was judged."""
    start = save(tmp_path / "a.ckpt", {}, zipped=False).read_bytes()[:21]  # the magic number and the version
    start += b"\x80\x02}X\x0d\x00\x00\x00little_endian\x88sX\x01\x00\x00\x00xX\x00\x02\x00\x00"
    header = bytearray(start + b"0" * 512)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    path = tmp_path / "tar.ckpt"
    path.write_bytes(bytes(header) + b"s." + pickle.dumps({}, 2) + pickle.dumps([], 2))
    refused(path, "The checkpoint is a tar file")


def huge_storage(path: Path, *, zipped: bool) -> Path:
    program = one_tensor(1 << 36, 1, zipped=zipped)
    return holding(program, path, bytes(4), zipped=zipped)


def calling(name: str) -> bytes:
    return b"\x80\x02c" + name.encode() + b"\n\x8a\x08" + struct.pack("<q", 1 << 36) + b"\x85R."


def laughs(levels: int) -> bytes:
    """A list of ten times a list of ten times a list ..."""
    program = b"](" * levels + b"](" + b"N" * 10 + b"e"
    for level in range(levels):
        index = bytes([level])
        program += b"q" + index + (b"h" + index) * 9 + b"e"
    return program


def under_a(value: bytes) -> bytes:
    """The pickle of {"a": what the instructions `value` make}."""
    return b"\x80\x02}X\x01\x00\x00\x00a" + value + b"s."


PICKLE_BOMBS: dict[str, tuple[bytes, str]] = {
    "bytearray": (calling("builtins\nbytearray"), r"needs code to load: builtins\.bytearray"),
    "tensor of a size": (calling("torch\nFloatTensor"), r"needs code to load: torch\.FloatTensor"),
    "long text": (b"\x80\x02X\xff\xff\xff\xffabc", "corrupt: its pickle is malformed"),
    "lists in lists": (under_a(b"]" * 20_000 + b"a" * 19_999), "nests too deeply"),
    "dicts in dicts": (under_a(b"}K\x01" * 20_000 + b"N" + b"s" * 20_000), "nests too deeply"),
    "tuples in tuples": (under_a(b")" + b"\x85" * 20_000), "nests too deeply"),
    "tuples as a key": (b"\x80\x02})" + b"\x85" * 100_000 + b"Ns.", "a dict key of type tuple"),
    "lists in a name": (b"\x80\x04" + b"]" * 20_000 + b"a" * 19_999 + b"N\x93.", "a name that is not a str"),
    "a list in itself": (under_a(b"]q\x00h\x00a"), "nests too deeply or repeats"),
    "laughs": (under_a(laughs(30)), "repeats without end"),
    "many dicts": (under_a(b"](" + b"}" * MAX_INSTRUCTIONS + b"e"), f"more than {MAX_INSTRUCTIONS} instructions"),
}


@both_forms
def test_fault_10_a_state_dict_may_nest_to_the_limit(tmp_path: Path, zipped: bool) -> None:
    program = under_a(b"]" * MAX_DEPTH + b"a" * (MAX_DEPTH - 1))
    assert "a" in read_pickle(contained(program, tmp_path / "a.ckpt", zipped=zipped))
    program = under_a(b"]" * (MAX_DEPTH + 1) + b"a" * MAX_DEPTH)
    refused(contained(program, tmp_path / "a.ckpt", zipped=zipped), "nests too deeply")


def deflated_bomb(path: Path) -> None:
    save(path, {"a": torch.zeros(8 * MIB)}, zipped=True)
    rezipped(path, lambda archive, name, data: archive.writestr(name, data, compress_type=zipfile.ZIP_DEFLATED))


def two_members(path: Path) -> None:
    def twice(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
        archive.writestr(name, data)
        if name.endswith("data/0"):
            archive.writestr(name.replace("data/0", "DATA/0"), data)

    rezipped(save(path, {"a": torch.zeros(3)}, zipped=True), twice)


def huge_member(path: Path) -> None:
    whole = bytearray(save(path, {"a": torch.zeros(3)}, zipped=True).read_bytes())
    sizes = whole.rindex(b"PK\x01\x02", 0, whole.rindex(b"data/0")) + 20
    whole[sizes : sizes + 8] = struct.pack("<II", 1 << 30, 1 << 30)
    path.write_bytes(whole)


def another_directory(path: Path) -> None:
    """A second directory, found from the end, and the first, which the offset names."""
    save(path, {"a": torch.zeros(3)}, zipped=True)
    other = save(path.with_suffix(".other"), {"a": torch.ones(3)}, zipped=True).read_bytes()
    path.write_bytes(path.read_bytes() + other)


ZIP_BOMBS: dict[str, tuple[Callable[[Path], object], str]] = {
    "deflated": (deflated_bomb, "compressed or encrypted"),
    "two members": (two_members, "two members of the same name"),
    "huge member": (huge_member, r"its members declare 1073\d+ bytes"),
    "another directory": (
        another_directory,
        "the directory of the zip is not at its declared offset|it is not a whole zip",
    ),
    "many members": (
        lambda path: path.write_bytes(b"PK\x03\x04" + b"PK\x01\x02" * (MAX_MEMBERS + 1)),
        f"more than {MAX_MEMBERS} members",
    ),
}

TENSOR_BOMBS: dict[str, tuple[Callable[[], dict[str, Tensor]], str]] = {
    "stride 0": (
        lambda: {"a": torch.zeros(1).expand(10**9)},
        "`a` declares 1000000000 values, but its storage holds 1",
    ),
    "views again and again": (
        lambda: dict.fromkeys(map(str, range(100)), torch.zeros(MIB)),
        "view the same values again and again",
    ),
    "sparse": (
        lambda: {"a": torch.zeros(1).to_sparse()},
        "`a` is a sparse tensor",
    ),
}


def make_bombs(folder: Path) -> dict[str, tuple[Path, str]]:
    """The files of all bombs, and what the refusal of each says."""
    bombs = {}
    for zipped, form in ((True, "zip"), (False, "older")):
        for name, (program, match) in PICKLE_BOMBS.items():
            bombs[f"{name} {form}"] = (contained(program, folder / f"{name} {form}", zipped=zipped), match)
        for name, (content, match) in TENSOR_BOMBS.items():
            bombs[f"{name} {form}"] = (save(folder / f"{name} {form}", content(), zipped=zipped), match)
        match = "its tensors declare 274877906944 bytes"
        bombs[f"huge storage {form}"] = (huge_storage(folder / f"huge storage {form}", zipped=zipped), match)
    for name, (make, match) in ZIP_BOMBS.items():
        make(folder / name)
        bombs[name] = (folder / name, match)
    return bombs


BOMBS = sorted(
    [f"{name} {form}" for name in (*PICKLE_BOMBS, *TENSOR_BOMBS, "huge storage") for form in ("zip", "older")]
    + list(ZIP_BOMBS)
)

CHILD = """
import json, resource, sys
from pathlib import Path
from repbench.errors import RepbenchError
from repbench.upstream.checkpoints.safe_unpickle import read_pickle

def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

warm_up, *paths = map(Path, sys.argv[1:])
read_pickle(warm_up)
mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (mapped + (512 << 20),) * 2)
reports = {}
for path in paths:
    before = peak_bytes()
    try:
        read_pickle(path)
        report = {"exit_code": 0, "message": "read"}
    except RepbenchError as error:
        report = {"exit_code": error.exit_code, "message": str(error)}
    reports[path.name] = report | {"grown": peak_bytes() - before}
print(json.dumps(reports))
"""


def reports_of(paths: list[Path]) -> dict[str, dict[str, Any]]:
    """What a child with little memory says of each file."""
    command = [sys.executable, "-W", "error", "-c", CHILD, str(ZIP_GOLDEN), *map(str, paths)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 0, finished.stderr[-2000:]
    reports: dict[str, dict[str, Any]] = json.loads(finished.stdout)
    return reports


@pytest.fixture(scope="module")
def bombs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, Any], str, int]]:
    """Of each bomb: the child's report, what it should say, and the size of the file."""
    files = make_bombs(tmp_path_factory.mktemp("bombs"))
    reports = reports_of([path for path, _ in files.values()])
    return {name: (reports[path.name], match, path.stat().st_size) for name, (path, match) in files.items()}


@pytest.mark.parametrize("name", BOMBS)
def test_fault_10_a_bomb_is_refused_before_it_allocates(
    bombs: dict[str, tuple[dict[str, Any], str, int]], name: str
) -> None:
    report, match, size = bombs[name]
    assert report["exit_code"] == 4, report
    assert re.search(match, report["message"])
    assert report["grown"] < 2 * size + 64 * MIB


@pytest.mark.slow
def test_fault_10_a_sound_checkpoint_takes_less_than_twice_its_size(tmp_path: Path) -> None:
    content = {"a": torch.zeros(24 * MIB), "b": torch.zeros(1)}
    paths = [save(tmp_path / form, content, zipped=form == "zip") for form in ("zip", "older")]
    for report in reports_of(paths).values():
        assert report["exit_code"] == 0, report
        assert report["grown"] < 2 * 96 * MIB + 32 * MIB


# Weights.


def test_weights_become_contiguous_float32_copies() -> None:
    state = {
        "half": torch.ones(2, 3, dtype=torch.float16).T,
        "bfloat": torch.ones(1, dtype=torch.bfloat16),
        "single": torch.nn.Parameter(torch.ones(2)),
        "double": torch.ones((), dtype=torch.float64),
        "empty": torch.zeros(0),
        "expanded": torch.ones(1).expand(3),
    }
    weights = check_weights(state, file=Path("a.ckpt"))
    assert list(weights) == list(state)
    for name, weight in weights.items():
        assert weight.dtype == torch.float32
        assert weight.is_contiguous()
        assert not weight.requires_grad
        assert torch.equal(weight, state[name].detach().float())
    weights["single"].zero_()
    assert state["single"].tolist() == [1.0, 1.0]


def test_the_weights_of_the_goldens_pass(sound: Path) -> None:
    content = read_pickle(sound)
    encoder = content.get("Mockingjay", content.get("Transformer"))
    assert encoder
    assert same(check_weights(encoder, file=sound), encoder)


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (torch.ones(2, dtype=torch.int64), "`layer.weight` must have a floating-point dtype, but has int64"),
        (torch.ones(2, dtype=torch.complex64), "but has complex64"),
        (torch.ones(2, dtype=torch.bool), "but has bool"),
        (torch.ones(2, dtype=torch.float8_e5m2), "but has float8_e5m2"),
        (torch.eye(2).to_sparse(), "must be a strided tensor"),
        (torch.ones(2, device="meta"), "must be a strided tensor that holds its values"),
        (torch.tensor([0.0, float("nan")]), "`layer.weight` holds NaN, infinity"),
        (torch.tensor([float("-inf")]), "holds NaN, infinity"),
        (torch.tensor([1e300], dtype=torch.float64), "or values beyond the range of float32"),
        ([1.0], "must be a tensor, but is a list"),
        (None, "must be a tensor, but is a NoneType"),
    ],
)
def test_fault_12_what_torch_would_cast_or_accept_in_silence_is_refused(value: object, match: str) -> None:
    with pytest.raises(IntegrityError, match=match) as caught:
        check_weights({"sound": torch.ones(1), "layer.weight": value}, file=Path("a.ckpt"))
    assert (caught.value.file, caught.value.key) == ("a.ckpt", "layer.weight")
