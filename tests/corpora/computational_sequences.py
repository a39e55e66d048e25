"""Computational sequences as mmsdk itself writes them, for tests of what reads them."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

METADATA = {
    "root name": "Opinion Segment Labels",
    "computational sequence description": "opinions of a test",
    "computational sequence version": "1.0",
    "alignment compatible": "yes",
    "dataset name": "test",
    "dataset version": "1.0",
    "creator": "a test",
    "contact": "none",
    "featureset bib citation": "none",
    "dataset bib citation": "none",
}

Rows = Sequence[tuple[float, float, Sequence[float]]]


PUBLISHED: dict[str, Any] = {"compression": "gzip", "compression_opts": 9}
"""How CMU packs the arrays of the `.csd` files that it distributes."""


def pack(path: Path, **packing: Any) -> Path:
    """Write the arrays of every video again, through the filters that `packing` names as h5py does."""
    import h5py

    with h5py.File(path, "r+") as file:
        (data,) = (file[f"{root}/data"] for root in file)
        for arrays in data.values():
            for name in list(arrays):
                values = arrays[name][...]
                del arrays[name]
                arrays.create_dataset(name, data=values, **packing)
    return path


def write_csd(path: Path, videos: Mapping[str, Rows], **arrays: Any) -> Path:
    """Let mmsdk write `(start_s, end_s, values)` of each video; `arrays` replaces those of the video it names."""
    data: dict[str, Any] = {
        video: {
            "intervals": np.array([[start, end] for start, end, _ in rows], dtype=np.float64),
            "features": np.array([list(values) for _, _, values in rows], dtype=np.float32),
        }
        for video, rows in videos.items()
    }
    for video, changed in arrays.items():
        data[video] = {**data[video], **changed}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message='"is" with', category=SyntaxWarning)
        from mmsdk import mmdatasdk
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        sequence = mmdatasdk.computational_sequence("Opinion Segment Labels")
        sequence.setData(data, "Opinion Segment Labels")
        sequence.setMetadata(dict(METADATA), "Opinion Segment Labels")
        sequence.deploy(str(path))
    return path
