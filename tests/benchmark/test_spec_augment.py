"""SpecAugment: which values are masked, and that nothing else of a run changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from repbench.benchmark.probing.spec_augment import SpecAugment, refuse_spec_augment
from repbench.benchmark.protocol import ProbeSettings, Protocol
from repbench.benchmark.records.record import Record
from repbench.benchmark.run import evaluate
from repbench.downstream.problems import FRAMES, SEQUENCES, TEXTS, UTTERANCES
from repbench.errors import UsageError
from repbench.testing import tone_corpus


class Times:
    """A hundred frames a second."""

    sample_rate_hz, hop_samples, first_center_samples = 16_000, 160, 0


COUNTS = torch.tensor([40, 1, 60])


def masked(seed: int = 0, batches: int = 1, **settings: Any) -> Tensor:
    augment = SpecAugment(ProbeSettings(spec_augment=True, **settings), Times(), seed)
    for _ in range(batches):
        frames = augment.mask_(torch.ones(2, 101, 20), COUNTS)
    return frames


def test_spans_of_time_and_of_dimensions_are_masked_in_each_utterance() -> None:
    longest, widest = 0, 0
    for seed in range(200):
        frames = masked(seed, spec_augment_time_masks=1, spec_augment_feature_masks=0)
        assert torch.equal(frames[0], frames[1])  # all layers alike
        for part in torch.split(frames[0], COUNTS.tolist()):
            rows = (part == 0).all(dim=1)
            assert torch.equal(rows, (part == 0).any(dim=1))
            places = rows.nonzero().flatten()
            assert len(places) == 0 or int(places[-1] - places[0]) == len(places) - 1  # one span
            longest = max(longest, len(places))
        wide = masked(seed, spec_augment_time_masks=0, spec_augment_feature_masks=1)
        columns = (wide[0, :40] == 0).all(dim=0)
        assert torch.equal(columns, (wide[0, :40] == 0).any(dim=0))
        widest = max(widest, int(columns.sum()))
    assert longest == 40  # 0.4 s of a hundred frames a second
    assert widest == 2  # a tenth of 20


def test_masks_follow_from_the_seed_and_are_others_in_each_batch() -> None:
    torch.manual_seed(0)
    first = masked()
    torch.manual_seed(1)
    assert torch.equal(masked(), first)
    assert not torch.equal(masked(seed=1), first)
    assert not torch.equal(masked(batches=2), first)
    assert torch.equal(masked(spec_augment_time_masks=0, spec_augment_feature_masks=0), torch.ones(2, 101, 20))


def test_single_frames_have_no_spans_and_the_setting_is_refused() -> None:
    for problem in (SEQUENCES, TEXTS, UTTERANCES):
        refuse_spec_augment(ProbeSettings(spec_augment=True), problem)
    refuse_spec_augment(ProbeSettings(), FRAMES)
    with pytest.raises(UsageError, match=r"frame-classification is trained on single frames.*tasks\.asr\.probe"):
        refuse_spec_augment(ProbeSettings(spec_augment=True), FRAMES)


def run(corpus: Path, out: Path, **probe: Any) -> Record:
    protocol = Protocol(probe=ProbeSettings(steps=20, selection_points=1, hidden_units=8, **probe))
    return evaluate("mel_no_cmvn", "speaker", corpus=corpus, out=out, protocol=protocol, head="linear")[0]


def test_training_has_masks_and_scoring_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masked_counts: list[int] = []
    mask = SpecAugment.mask_

    def watched(self: SpecAugment, frames: Tensor, counts: Tensor) -> Tensor:
        masked_counts.append(int(counts.min()))
        return mask(self, frames, counts)

    monkeypatch.setattr(SpecAugment, "mask_", watched)
    tone_corpus(tmp_path / "tones")
    plain = run(tmp_path / "tones", tmp_path / "a")
    nothing = {"spec_augment_time_masks": 0, "spec_augment_feature_masks": 0}
    empty = run(tmp_path / "tones", tmp_path / "b", spec_augment=True, **nothing)
    # Frames are masked, one batch a step, and not the means that the head could do with, and no batch of dev or test.
    assert len(masked_counts) == 20
    assert min(masked_counts) > 1
    # Masks of nothing change no number: neither weights nor batches are drawn from their generator.
    assert [point["dev_value"] for point in empty.selection.grid] == [
        pytest.approx(point["dev_value"]) for point in plain.selection.grid
    ]
    augmented = run(tmp_path / "tones", tmp_path / "c", spec_augment=True, spec_augment_feature_share=1.0)
    assert augmented.probe_sha256 not in {plain.probe_sha256, empty.probe_sha256}
    assert (
        augmented.probe_sha256
        == run(tmp_path / "tones", tmp_path / "d", spec_augment=True, spec_augment_feature_share=1.0).probe_sha256
    )
