"""Codebooks: centroids by which frames become units, their fit by k-means, and their file.

The task `units` fits one to the frames of train, and the upstream `units:` assigns by it; both assign alike.

Axes: N frames, D width, K units.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from repbench.errors import DataError, EnvironmentFault, IntegrityError
from repbench.files import read_checked
from repbench.tensor_files import encoded_tensors

if TYPE_CHECKING:
    from torch import Tensor

CODEBOOK_FILE = "codebook.model"
"""Name of its file in the folder of a record."""

FORMAT = "repbench.codebook/1"

_BLOCK = 10_000
"""Frames of a block that is assigned at once."""

_START = 20_000
_MOST_PASSES = 50
_LEAST_GAIN = 1e-4
"""Of k-means: about as many frames as the start is drawn from at most, passes over all frames, and the share of the
inertia by which a pass has to improve it."""

_SLACK = 16_384
"""Drawn frames beyond those wanted that are kept before the surplus is dropped."""


@dataclass(frozen=True, slots=True, eq=False)
class Codebook:
    """Centroids of units.

    Attributes:
        centroids: (K, D) float32, on the CPU.
    """

    centroids: Tensor

    def units_of(self, frames: Tensor) -> Tensor:
        """The unit of each frame: the centroid at the smallest Euclidean distance, the first of equal ones.

        Args:
            frames: (N, D) float32, on any device.

        Returns:
            (N,) int64 on the same device.
        """
        import torch

        # Both minus the mean of the centroids: the differences of distances lose fewer digits.
        middle = self.centroids.mean(dim=0)
        centroids = (self.centroids - middle).to(frames.device)
        middle, halves = middle.to(frames.device), centroids.square().sum(dim=1) / 2
        # |x - c|² / 2 = |x|² / 2 + |c|² / 2 - x c, whose first term is the same for all c: (N, D) @ (D, K) -> (N, K)
        parts = [(halves - (part - middle) @ centroids.t()).argmin(dim=1) for part in torch.split(frames, _BLOCK)]
        return torch.cat(parts)

    def encoded(self) -> bytes:
        """Its file: safetensors, the same bytes for the same centroids."""
        return encoded_tensors({"centroids": self.centroids.contiguous()}, {"format": FORMAT})


def draw_frames(utterances: Iterable[Tensor], most: int, seed: int, memory_bytes: int) -> Tensor:
    """At most `most` frames (N, D) float32, drawn without replacement from those of all utterances, in their order.

    Utterances are read once, and no more than the drawn frames are kept.

    Args:
        utterances: (F, D) float32 of each, on the CPU.
        most: Frames to draw.
        seed: Of the draw, which follows from it and from the number of frames of each utterance.
        memory_bytes: That the drawn frames may take, with as much again while they are chosen.

    Raises:
        DataError: There are no frames.
        EnvironmentFault: The memory does not suffice.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    kept: list[Tensor] = []
    places: list[Tensor] = []
    count = 0
    for frames in utterances:
        # Each frame gets a number, and those with the smallest ones are drawn: no count of all is needed.
        places.append(torch.rand(len(frames), generator=generator, dtype=torch.float64))
        kept.append(frames)
        count += len(frames)
        if 2 * count * frames[:1].nbytes > memory_bytes:
            what = f"The memory does not suffice for {count} frames of width {frames.shape[1]}"
            raise EnvironmentFault(what, key="task.train_frames", do="Lower task.train_frames")
        if count > most + _SLACK:
            kept, places = _smallest(kept, places, most)
            count = len(places[0])
    if not count:
        raise DataError("There is no frame to fit units to", do="Choose a corpus with training utterances")
    return _smallest(kept, places, most)[0][0]


def _smallest(kept: list[Tensor], places: list[Tensor], most: int) -> tuple[list[Tensor], list[Tensor]]:
    import torch

    numbers = torch.cat(places)
    rows = numbers.argsort()[:most].sort().values  # in the order of the corpus
    return [torch.cat(kept)[rows]], [numbers[rows]]


def fit_codebook(frames: Tensor, num_units: int, seed: int) -> Codebook:
    """K-means of frames by Lloyd's algorithm, from a k-means++ start.

    It ends where no frame changes its unit, where the inertia falls by less than `_LEAST_GAIN` of itself, or after
    `_MOST_PASSES`. A unit that loses all frames begins again at the frame that is farthest from its centroid.

    Args:
        frames: (N, D) float32, on the CPU.
        num_units: K.
        seed: Of the start.

    Raises:
        DataError: There are fewer different frames than units.

    Reference:
        Arthur and Vassilvitskii, k-means++: the advantages of careful seeding, 2007.
    """
    import torch
    from sklearn.cluster import kmeans_plusplus

    if len(frames) < num_units:
        raise _too_few(len(frames), num_units)
    start, _ = kmeans_plusplus(frames[:: max(1, len(frames) // _START)].numpy(), num_units, random_state=seed)
    centroids, before, inertia = torch.from_numpy(start).float(), torch.empty(0), float("inf")
    for _ in range(_MOST_PASSES):
        units = Codebook(centroids).units_of(frames)
        distances = (frames - centroids[units]).square().sum(dim=1)  # (N, D) -> (N,)
        now = distances.double().sum().item()
        if torch.equal(units, before) or inertia - now < _LEAST_GAIN * now:
            break
        before, inertia = units, now
        centroids = _means(frames, units, distances, num_units)
    different = len(torch.unique(centroids, dim=0))
    if different < num_units:
        raise _too_few(different, num_units)
    return Codebook(centroids)


def _means(frames: Tensor, units: Tensor, distances: Tensor, num_units: int) -> Tensor:
    """(K, D) means of the frames (N, D) of each unit, with (N,) squared distances to the centroids so far."""
    import torch

    counts = torch.bincount(units, minlength=num_units)
    # float64: a unit of silence can have most of the frames
    sums = torch.zeros(num_units, frames.shape[1], dtype=torch.float64)
    for rows, block in zip(torch.split(units, _BLOCK), torch.split(frames, _BLOCK), strict=True):
        sums.index_add_(0, rows, block.double())  # (N, D) -> (K, D)
    means = (sums / counts[:, None].clamp_min(1)).float()
    empty = (counts == 0).nonzero()[:, 0]
    means[empty] = frames[distances.argsort(descending=True, stable=True)[: len(empty)]]
    return means


def _too_few(count: int, num_units: int) -> DataError:
    what = f"{num_units} units need as many different frames of train, but there are {count}"
    return DataError(what, key="task.clusters", do="Lower task.clusters, or take more of the corpus")


def read_codebook(path: Path, sha256: str) -> Codebook:
    """The codebook of a file whose bytes have a known SHA-256.

    Raises:
        IntegrityError: It is missing, has other bytes, or is no codebook.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    content = read_checked(path, sha256)
    try:
        length = int.from_bytes(content[:8], "little")
        named = json.loads(content[8 : 8 + length]).get("__metadata__", {}).get("format")
        centroids = load(content)["centroids"]
    except (SafetensorError, KeyError, ValueError, AttributeError) as error:
        raise _no_codebook(f"This is no codebook: {error}", path) from error
    if named != FORMAT or centroids.ndim != 2 or not centroids.is_floating_point() or not centroids.numel():
        raise _no_codebook(f"This is no codebook of the format {FORMAT}", path)
    if not bool(centroids.isfinite().all()):
        raise _no_codebook("The codebook holds NaN or infinity", path)
    return Codebook(centroids.float())


def _no_codebook(what: str, path: Path) -> IntegrityError:
    return IntegrityError(what, file=path, do="Run the task `units` again")
