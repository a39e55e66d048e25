"""Codebooks: the draw of frames, k-means, the nearest centroid, and the file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

from repbench.codebook import Codebook, draw_frames, fit_codebook, read_codebook
from repbench.errors import DataError, EnvironmentFault, IntegrityError
from repbench.tensor_files import encoded_tensors

ENOUGH = 2**30


def clusters(count: int = 60, num_units: int = 4, width: int = 3) -> tuple[Tensor, Tensor]:
    """(N, D) frames around far centres, and (N,) the number of the centre."""
    generator = torch.Generator().manual_seed(0)
    centres = 50 * torch.randn(num_units, width, generator=generator)
    labels = torch.arange(count) % num_units
    return centres[labels] + torch.randn(count, width, generator=generator), labels


def test_k_means_finds_far_clusters_and_their_means() -> None:
    frames, labels = clusters()
    codebook = fit_codebook(frames, 4, seed=1)
    units = codebook.units_of(frames)
    assert len({(unit, label) for unit, label in zip(units.tolist(), labels.tolist(), strict=True)}) == 4
    for unit in range(4):
        assert torch.allclose(codebook.centroids[unit], frames[units == unit].mean(dim=0), atol=1e-5)


def test_the_inertia_is_that_of_a_local_optimum() -> None:
    """Every frame is at its nearest centroid, and every centroid is the mean of its frames, but for the last pass."""
    frames = torch.randn(500, 6, generator=torch.Generator().manual_seed(0))
    codebook = fit_codebook(frames, 12, seed=0)
    units = codebook.units_of(frames)
    assert torch.equal(units, torch.cdist(frames.double(), codebook.centroids.double()).argmin(dim=1))
    means = torch.stack([frames[units == unit].mean(dim=0) for unit in range(12)])
    assert float((codebook.centroids - means).norm() / means.norm()) < 0.05


def test_the_codebook_follows_from_the_seed() -> None:
    frames = torch.randn(300, 5, generator=torch.Generator().manual_seed(0))
    one, again, other = (fit_codebook(frames, 8, seed=seed).encoded() for seed in (0, 0, 1))
    assert one == again != other


def test_a_unit_without_frames_begins_again_at_the_farthest() -> None:
    from repbench.codebook import _means

    frames = torch.tensor([[0.0], [1.0], [10.0]])
    means = _means(frames, torch.tensor([0, 0, 0]), torch.tensor([9.0, 4.0, 49.0]), 2)
    assert means[:, 0].tolist() == pytest.approx([11 / 3, 10.0])


def test_more_units_than_different_frames_are_refused() -> None:
    for frames in (torch.zeros(3, 2), torch.tensor([[0.0], [1.0]]).repeat(20, 1)):
        with pytest.raises(DataError, match="5 units need as many different frames of train"):
            fit_codebook(frames, 5, seed=0)


def test_the_nearest_centroid_of_frames_far_from_zero() -> None:
    """Distances of 1e-2 at values of 1e3 are told apart in float32."""
    generator = torch.Generator().manual_seed(0)
    centroids = 1000 + torch.randn(5, 8, generator=generator)
    frames = 1000 + torch.randn(200, 8, generator=generator)
    expected = torch.cdist(frames.double(), centroids.double()).argmin(dim=1)
    assert torch.equal(Codebook(centroids).units_of(frames), expected)


def test_of_equally_near_centroids_the_first_is_taken() -> None:
    assert Codebook(torch.tensor([[1.0], [-1.0], [1.0]])).units_of(torch.tensor([[0.0], [2.0]])).tolist() == [0, 0]


def test_a_draw_holds_every_frame_once_and_in_order() -> None:
    frames = torch.arange(100, dtype=torch.float32)[:, None]
    utterances = torch.split(frames, [7, 50, 1, 42])
    assert torch.equal(draw_frames(utterances, 1000, seed=0, memory_bytes=ENOUGH), frames)
    drawn = draw_frames(utterances, 30, seed=0, memory_bytes=ENOUGH)[:, 0].tolist()
    assert len(set(drawn)) == 30
    assert drawn == sorted(drawn)
    assert drawn != draw_frames(utterances, 30, seed=1, memory_bytes=ENOUGH)[:, 0].tolist()


def test_a_draw_drops_the_surplus_on_the_way_without_another_result(monkeypatch: pytest.MonkeyPatch) -> None:
    utterances = torch.split(torch.randn(200, 2, generator=torch.Generator().manual_seed(0)), 10)
    whole = draw_frames(utterances, 40, seed=3, memory_bytes=ENOUGH)
    monkeypatch.setattr("repbench.codebook._SLACK", 5)
    assert torch.equal(draw_frames(utterances, 40, seed=3, memory_bytes=ENOUGH), whole)
    # 46 frames of 8 bytes, twice, and an utterance of 10 more
    assert torch.equal(draw_frames(utterances, 40, seed=3, memory_bytes=2 * 8 * 56), whole)


def test_a_draw_that_does_not_fit_is_refused() -> None:
    with pytest.raises(EnvironmentFault, match="does not suffice for 10 frames of width 4") as caught:
        draw_frames([torch.zeros(10, 4)], 10, seed=0, memory_bytes=300)
    assert caught.value.key == "task.train_frames"
    with pytest.raises(DataError, match="no frame"):
        draw_frames([], 10, seed=0, memory_bytes=300)


def written(folder: Path, content: bytes) -> tuple[Path, str]:
    file = folder / "codebook.model"
    file.write_bytes(content)
    return file, hashlib.sha256(content).hexdigest()


def test_a_file_holds_the_centroids(tmp_path: Path) -> None:
    codebook = fit_codebook(clusters()[0], 4, seed=0)
    again = read_codebook(*written(tmp_path, codebook.encoded()))
    assert torch.equal(again.centroids, codebook.centroids)


def test_a_damaged_codebook_is_refused(tmp_path: Path) -> None:
    codebook = fit_codebook(clusters()[0], 4, seed=0)
    file, _ = written(tmp_path, codebook.encoded())
    with pytest.raises(IntegrityError, match="SHA-256"):
        read_codebook(file, "0" * 64)
    contents = (
        codebook.encoded()[:40],
        b"not a file of tensors",
        encoded_tensors({"centroids": torch.zeros(2, 2)}, {"format": "other"}),
        encoded_tensors({"centres": torch.zeros(2, 2)}, {"format": "repbench.codebook/1"}),
        encoded_tensors({"centroids": torch.zeros(4)}, {"format": "repbench.codebook/1"}),
        encoded_tensors({"centroids": torch.full((2, 2), torch.nan)}, {"format": "repbench.codebook/1"}),
    )
    for content in contents:
        with pytest.raises(IntegrityError, match="codebook"):
            read_codebook(*written(tmp_path, content))
