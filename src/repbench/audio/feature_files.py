"""Reading of precomputed features from `.npy` and `.safetensors`, without unpickling.

The header of a file is compared with its size before anything is allocated, so a header that declares 80 TB does no
harm, and an array of objects, which would need code to load, is refused.

Axes: L layers, F frames, D width.
"""

from __future__ import annotations

import ast
import hashlib
import math
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
import numpy.typing as npt

from repbench.errors import DataError, EnvironmentFault, IntegrityError

FeatureFormat = Literal["npy", "safetensors"]
Frames = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

MOST_BYTES = 2**31
"""Size of the largest file that is read: an hour of 10 ms frames of width 1,024 in float32 takes 1.5 GB."""

_FORMATS: dict[str, FeatureFormat] = {".npy": "npy", ".safetensors": "safetensors"}
_NPY_MAGIC = b"\x93NUMPY"
_NPY_LENGTH_AT = 8  # two bytes of version before it
_NPY_KEYS = ("descr", "fortran_order", "shape")
_NPY_HEAD_BYTES = 16_384  # NumPy itself reads headers of up to 10,000 bytes
_UNREADABLE = "The header of the .npy file cannot be read: {}"
_SHOWN_CHARACTERS = 100
_SAFETENSORS_TYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}
_TENSOR = "features"
_AGAIN = "Write the features of this utterance again"
_AGAIN_UNITS = "Write the units of this utterance again, one a frame"

_Form = Literal["frames", "layers", "vectors"]
"""What is read from a file: the frames of one layer, of all layers, or one vector in all layers."""


@dataclass(frozen=True, slots=True)
class FeatureMeasure:
    """Shape and hash of a file of features.

    Attributes:
        num_frames: F.
        width: D.
        sha256: SHA-256 of the bytes of the file.
    """

    num_frames: int
    width: int
    sha256: str


def format_of(path: Path, *, utterance: str | None = None) -> FeatureFormat:
    """The format of a file of features, by its suffix.

    Raises:
        DataError: The name ends in neither `.npy` nor `.safetensors`.
    """
    if path.suffix not in _FORMATS:
        what = f"Features must lie in a {' or '.join(_FORMATS)} file"
        raise DataError(what, file=path, utterance=utterance, do="Save them as an array (F, D) in one of these")
    return _FORMATS[path.suffix]


def read_features(path: Path, *, utterance: str | None = None, sha256: str | None = None) -> Frames:
    """Read the frames of one utterance.

    Args:
        path: `.npy` with an array, or `.safetensors` with one tensor or one called `features`; float16, float32 or
            float64 of shape (F, D), or (1, F, D) as `repbench extract` writes the one layer of a front end.
        utterance: Id of the utterance, for errors.
        sha256: Required SHA-256 of the bytes of the file; None: not checked.

    Returns:
        (F, D) float32, F and D at least 1, all finite.

    Raises:
        DataError: The file is missing, or its array has another type or shape or holds NaN or infinity.
        IntegrityError: The size of the file differs from its header, it needs code to load, or has another hash.
        EnvironmentFault: The file may not be read.
    """
    frames, found = _read(path, utterance, "frames")
    if sha256 is not None and found != sha256:
        what = f"The features have the SHA-256 {found[:12]}…, but the manifest has {sha256[:12]}…"
        raise IntegrityError(what, file=path, utterance=utterance, do="Put the file back, or prepare the corpus again")
    return frames


def read_layers(path: Path, *, utterance: str | None = None, sha256: str | None = None) -> tuple[Frames, str]:
    """Read all layers of one utterance; arguments and errors as in `read_features`.

    Returns:
        (L, F, D) float32, from an array (L, F, D) as `repbench extract` writes it, or (F, D); and the SHA-256 of the
        bytes of the file.
    """
    frames, found = _read(path, utterance, "layers")
    _refuse_changed(found, sha256, path, utterance)
    return frames, found


def read_vectors(path: Path, *, utterance: str | None = None, sha256: str | None = None) -> tuple[Frames, str]:
    """Read the one vector of an utterance in all layers; arguments and errors as in `read_features`.

    Returns:
        (L, 1, D) float32, from an array (D,), (L, D), or (L, 1, D) as `repbench extract` writes it; and the SHA-256 of
        the bytes of the file.
    """
    vectors, found = _read(path, utterance, "vectors")
    _refuse_changed(found, sha256, path, utterance)
    return vectors, found


def _refuse_changed(found: str, sha256: str | None, path: Path, utterance: str | None) -> None:
    if sha256 is not None and found != sha256:
        what = f"The features have the SHA-256 {found[:12]}…, but had {sha256[:12]}… when they were first read"
        raise IntegrityError(what, file=path, utterance=utterance, do="Write the features, then run again")


def metadata_of(path: Path) -> dict[str, str]:
    """The metadata of a `.safetensors` file that was read already; of a `.npy`, which has none, nothing."""
    if path.suffix != ".safetensors":
        return {}
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as stored:
        return dict(stored.metadata() or {})


def read_integers(path: Path, *, utterance: str | None = None, sha256: str | None = None) -> tuple[Integers, str]:
    """Read the units of one utterance.

    Args:
        path: `.npy` with an array (F,) of integers, or `.txt` with whole numbers between blanks or lines.
        utterance: Id of the utterance, for errors.
        sha256: Required SHA-256 of the bytes of the file; None: not checked.

    Returns:
        (F,) int64, F at least 1, and the SHA-256 of the bytes of the file.

    Raises:
        DataError, IntegrityError, EnvironmentFault: As `read_layers`.
    """
    content = _bytes_of(path, utterance)
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256:
        what = f"The units have the SHA-256 {found[:12]}…, but had {sha256[:12]}… when they were first read"
        raise IntegrityError(what, file=path, utterance=utterance, do="Write the units, then run again")
    integers = _npy_integers(content, path, utterance) if path.suffix == ".npy" else _numbers(content, path, utterance)
    if not len(integers):
        raise DataError("The file holds no unit", file=path, utterance=utterance, do=_AGAIN_UNITS)
    return integers, found


def _npy_integers(content: bytes, path: Path, utterance: str | None) -> Integers:
    shape, _, dtype, start = _npy_header(content[:_NPY_HEAD_BYTES], path, utterance)
    if dtype.kind not in "iu" or len(shape) != 1:
        what = f"Units must be one row of integers (F,), but are {dtype} of the shape {shape!r:.{_SHOWN_CHARACTERS}}"
        raise DataError(what, file=path, utterance=utterance, do=_AGAIN_UNITS)
    return np.frombuffer(content, dtype, offset=start).astype(np.int64)


def _numbers(content: bytes, path: Path, utterance: str | None) -> Integers:
    words = content.split()
    wrong = next((word for word in words if not re.fullmatch(rb"\d{1,18}", word)), None)
    if wrong is not None:
        what = f"Units must be whole numbers from 0 on, but one is {wrong[:20].decode('utf-8', 'replace')!r}"
        raise DataError(what, file=path, utterance=utterance, do=_AGAIN_UNITS)
    return np.array(list(map(int, words)), dtype=np.int64)


def measure_features(path: Path, *, utterance: str | None = None) -> FeatureMeasure:
    """Number, width and hash of the frames of one utterance; errors as in `read_features`."""
    frames, sha256 = _read(path, utterance, "frames")
    return FeatureMeasure(frames.shape[0], frames.shape[1], sha256)


def refuse_other_duration(
    num_frames: int,
    duration_s: float,
    *,
    hop_s: float,
    first_center_s: float,
    path: Path,
    utterance: str | None = None,
) -> None:
    """Refuse frames that do not fit their sound.

    The centre of the last frame must be as far before the end of the sound as the centre of the first is after its
    start, to within one hop: |(F - 1) * hop + 2 * first_center - duration| <= hop. That holds for padded frames (first
    centre 0), for half-hop centres, and for windows that are wholly inside the sound (first centre at half a window);
    frames of another hop soon violate it.

    Raises:
        DataError: They do not fit; names both durations.
    """
    # From the start to the first centre, over F - 1 hops, and as far again after the last centre.
    spanned_s = (num_frames - 1) * hop_s + 2 * first_center_s
    if abs(spanned_s - duration_s) > hop_s * (1 + 1e-6):
        what = (
            f"{num_frames} frames every {hop_s:g} s, the first at {first_center_s:g} s, span {spanned_s:.3f} s, but "
            f"the sound lasts {duration_s:.3f} s"
        )
        do = (
            "Are the hop and the first centre (half a window, if windows lie inside the sound) as declared, in seconds?"
        )
        raise DataError(what, file=path, utterance=utterance, do=do)


def _read(path: Path, utterance: str | None, form: _Form) -> tuple[Frames, str]:
    is_npy = format_of(path, utterance=utterance) == "npy"
    content = _bytes_of(path, utterance)
    array = (_npy if is_npy else _safetensors)(content, path, utterance, form)
    arranged = {"frames": _frames, "layers": _layers, "vectors": _vectors}[form]
    return arranged(array, path, utterance), hashlib.sha256(content).hexdigest()


def _bytes_of(path: Path, utterance: str | None) -> bytes:
    try:
        with path.open("rb") as stream:
            # of the open file, not of what the path leads to by now
            size = os.fstat(stream.fileno()).st_size
            if size > MOST_BYTES:
                what = f"The file of features has {size} bytes, but at most {MOST_BYTES} are read"
                raise IntegrityError(what, file=path, utterance=utterance, do="Save one utterance a file")
            if path.suffix == ".npy":
                _refuse_other_size(stream.read(_NPY_HEAD_BYTES), size, path, utterance)
                # The head is read twice, but nothing is allocated for an array that its file cannot hold.
                stream.seek(0)
            return stream.read()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        do = "Put it back, or prepare the corpus again"
        raise DataError("The file of features is missing", file=path, utterance=utterance, do=do) from error
    except PermissionError as error:
        raise EnvironmentFault("The file of features may not be read", file=path, utterance=utterance) from error


def _corrupt(what: str, path: Path, utterance: str | None) -> NoReturn:
    raise IntegrityError(what, file=path, utterance=utterance, do=_AGAIN)


def _refuse_other_size(head: bytes, size: int, path: Path, utterance: str | None) -> None:
    """Compare the size of the array by the header of a `.npy` with the size of the file, before the file is read."""
    shape, _, dtype, start = _npy_header(head, path, utterance)
    declared = math.prod(shape) * dtype.itemsize
    if declared != size - start:
        _corrupt(
            f"The file holds {size - start} bytes of features, but its header declares {declared}", path, utterance
        )


def _npy_header(head: bytes, path: Path, utterance: str | None) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether the order is Fortran's, dtype, and the offset of the array.

    NumPy's own reader is not used: it passes a header that Python cannot parse to Python's tokenizer, which raises
    other errors for one that does not end, and it warns about the headers that Python 2 wrote.
    """
    if not head.startswith(_NPY_MAGIC):
        _corrupt("This is not an .npy file", path, utterance)
    fields, start = _npy_fields(head, path, utterance)
    described, fortran_order, shape = (fields[key] for key in _NPY_KEYS)
    # in the `repr`, because a structured type is a list of fields of which one may hold objects
    if re.search(r"""['"][<>|=]?O\d*['"]""", repr(described)):
        _corrupt("The .npy file holds Python objects, which need code to load", path, utterance)
    if not isinstance(described, str) or not re.fullmatch(r"[<>|=]?[A-Za-z]\d{0,9}", described):
        _refuse_type(repr(described)[:_SHOWN_CHARACTERS], path, utterance)
    # `type is`, here and below, because True is an int to `isinstance`
    if type(fortran_order) is not bool:
        _corrupt(_UNREADABLE.format(f"`fortran_order` is {fortran_order!r:.50}"), path, utterance)
    if type(shape) is not tuple or not all(type(length) is int and 0 <= length < 2**64 for length in shape):
        _corrupt(f"The header of the .npy file declares the shape {shape!r:.{_SHOWN_CHARACTERS}}", path, utterance)
    try:
        dtype = np.dtype(described)
    except (TypeError, ValueError):
        _corrupt(_UNREADABLE.format(f"`{described}` is no type"), path, utterance)
    return shape, fortran_order, dtype, start


def _npy_fields(head: bytes, path: Path, utterance: str | None) -> tuple[dict[str, Any], int]:
    """The fields of a header by key, and the offset of its end (NumPy Enhancement Proposal 1, versions 1 to 3)."""
    length_of = {1: struct.Struct("<H"), 2: struct.Struct("<I"), 3: struct.Struct("<I")}.get(head[6] if head[6:] else 0)
    if length_of is None or len(head) < _NPY_LENGTH_AT + length_of.size:
        _corrupt(_UNREADABLE.format("its version is unknown"), path, utterance)
    start = _NPY_LENGTH_AT + length_of.size
    end = start + length_of.unpack_from(head, _NPY_LENGTH_AT)[0]
    if end > len(head):
        _corrupt(_UNREADABLE.format(f"it should end at byte {end}"), path, utterance)
    text = re.sub(r"(?<=\d)L\b", "", head[start:end].decode("latin-1"))  # long integers, as Python 2 wrote them
    if "\\" in text:  # Python warns of some escapes; no plain type has one
        _corrupt(_UNREADABLE.format("it has a backslash"), path, utterance)
    try:
        fields = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        _corrupt(_UNREADABLE.format("it is no literal of Python"), path, utterance)
    if not isinstance(fields, dict) or set(fields) != set(_NPY_KEYS):
        _corrupt(_UNREADABLE.format(f"it must give {', '.join(_NPY_KEYS)}"), path, utterance)
    return fields, end


def _npy(content: bytes, path: Path, utterance: str | None, form: _Form) -> npt.NDArray[Any]:
    shape, fortran_order, dtype, start = _npy_header(content[:_NPY_HEAD_BYTES], path, utterance)
    _refuse_other_type(dtype, path, utterance)
    _refuse_other_shape(shape, path, utterance, form)
    values = np.frombuffer(content, dtype, offset=start)
    # (values,) -> the shape of the array; a view of the bytes of the file
    return values.reshape(shape, order="F" if fortran_order else "C")


def _safetensors(content: bytes, path: Path, utterance: str | None, form: _Form) -> npt.NDArray[Any]:
    import safetensors

    deserialize: Any = safetensors.deserialize  # untyped
    try:
        tensors = dict(deserialize(content))
    except safetensors.SafetensorError as error:
        _corrupt(f"The .safetensors file cannot be read: {error}", path, utterance)
    name = _TENSOR if _TENSOR in tensors else next(iter(tensors), "")
    if len(tensors) != 1 and name != _TENSOR:
        what = f"The file must hold one tensor, or one called `{_TENSOR}`, but holds {len(tensors)}"
        raise DataError(what, file=path, utterance=utterance, do=_AGAIN)
    tensor = tensors[name]
    kind: str = tensor["dtype"]
    if kind not in _SAFETENSORS_TYPES:
        _refuse_type(kind, path, utterance)
    _refuse_other_shape(tuple(tensor["shape"]), path, utterance, form)
    # safetensors is little-endian and in C order
    return np.frombuffer(tensor["data"], _SAFETENSORS_TYPES[kind]).reshape(tensor["shape"])


def _refuse_other_type(dtype: np.dtype[Any], path: Path, utterance: str | None) -> None:
    if dtype.kind != "f" or dtype.itemsize not in (2, 4, 8):
        _refuse_type(str(dtype), path, utterance)


def _refuse_other_shape(shape: tuple[int, ...], path: Path, utterance: str | None, form: _Form) -> None:
    """Refuse a shape that NumPy cannot allocate: an empty array may have any number of axes of any length."""
    if len(shape) in ((1, 2, 3) if form == "vectors" else (2, 3)) and 0 not in shape:
        return
    shown = repr(shape)[:_SHOWN_CHARACTERS]
    if form == "vectors":
        what = f"The vector of an utterance must have the shape (D,) or (L, D), but has {shown}"
        raise DataError(what, file=path, utterance=utterance, do="Write the vector of this utterance again")
    what = f"Features must have the shape (F, D) or (L, F, D), one row a frame, but have {shown}"
    is_vector = form == "layers" and len(shape) == 1
    do = "Declare `kind: utterance` in features.yaml, if this is one vector an utterance" if is_vector else _AGAIN
    raise DataError(what, file=path, utterance=utterance, do=do)


def _refuse_type(kind: str, path: Path, utterance: str | None) -> NoReturn:
    what = f"Features must be float16, float32 or float64, but are {kind}"
    raise DataError(what, file=path, utterance=utterance, do=_AGAIN)


def _frames(array: npt.NDArray[Any], path: Path, utterance: str | None) -> Frames:
    # (1, F, D) -> (F, D)
    shape = array.shape[1:] if array.ndim == 3 and array.shape[0] == 1 else array.shape
    if len(shape) != 2:
        what = f"Features must have the shape (F, D), one row a frame, but have {array.shape}"
        raise DataError(what, file=path, utterance=utterance, do="Save one layer of one utterance")
    return _finite(array.reshape(shape), path, utterance)


def _layers(array: npt.NDArray[Any], path: Path, utterance: str | None) -> Frames:
    # (F, D) -> (1, F, D)
    return _finite(array[None] if array.ndim == 2 else array, path, utterance)


def _vectors(array: npt.NDArray[Any], path: Path, utterance: str | None) -> Frames:
    if array.ndim == 3 and array.shape[1] != 1:
        what = f"`kind: utterance` declares one vector an utterance, but the file has {array.shape[1]} frames"
        do = "Declare the times of the frames in features.yaml, without `kind: utterance`"
        raise DataError(what, file=path, utterance=utterance, key="kind", do=do)
    # (D,) or (L, D) or (L, 1, D) -> (L, 1, D)
    return _finite(array.reshape(1 if array.ndim == 1 else len(array), 1, array.shape[-1]), path, utterance)


def _finite(array: npt.NDArray[Any], path: Path, utterance: str | None) -> Frames:
    # A float64 beyond float32 becomes infinite without a warning, and is refused below.
    with np.errstate(over="ignore"):
        frames = np.array(array, dtype=np.float32, order="C")  # a copy: what was read is read-only
    num_broken = int(np.count_nonzero(~np.isfinite(frames)))
    if num_broken:
        what = f"{num_broken} of {frames.size} feature values are NaN, infinite or too large for float32"
        raise DataError(what, file=path, utterance=utterance, do=_AGAIN)
    return frames
