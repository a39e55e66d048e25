"""Which frames are hidden, how, and which are scored: properties of `mask`, whatever is drawn."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from repbench.audio.frames import valid_mask
from repbench.errors import DataError
from repbench.upstream.mockingjay import masking
from repbench.upstream.mockingjay.config import MaskingSettings
from repbench.upstream.mockingjay.masking import KINDS, Masked, mask, masked_distance, scored

REPLACED: dict[str, Any] = {"zeroed": 0.0, "replaced": 1.0}
KEPT: dict[str, Any] = {"zeroed": 0.0, "replaced": 0.0}
WIDTH = 5


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(lengths: Tensor, width: int = WIDTH) -> Tensor:
    """Frames that say where they come from: utterance b, frame t is b * 1000 + t + 1 in all dimensions."""
    num_frames = int(lengths.max())
    numbers = torch.arange(len(lengths))[:, None] * 1000.0 + torch.arange(num_frames) + 1
    return (numbers * valid_mask(lengths, num_frames))[..., None].expand(-1, -1, width).contiguous()


def masked_with(lengths: list[int] | Tensor, *, seed: int = 0, **settings: Any) -> tuple[Tensor, Tensor, Masked]:
    counts = torch.as_tensor(lengths)
    frames = numbered(counts)
    return frames, counts, mask(frames, counts, MaskingSettings(**settings), generator(seed))


def runs_of(spans: Tensor) -> list[tuple[int, int]]:
    """(start, length) of each unbroken run in a (F,) row."""
    runs, start = list[tuple[int, int]](), None
    for time, inside in enumerate([*spans.tolist(), False]):
        if inside and start is None:
            start = time
        elif not inside and start is not None:
            runs.append((start, time - start))
            start = None
    return runs


def test_what_is_given_stays_as_it_is() -> None:
    counts = torch.tensor([100, 60, 2])
    frames = numbered(counts)
    before, lengths_before = frames.clone(), counts.clone()
    mask(frames, counts, MaskingSettings(frequency=0.4, noise=1.0), generator())
    assert torch.equal(frames, before)
    assert torch.equal(counts, lengths_before)


@pytest.mark.parametrize(("proportion", "consecutive"), [(0.15, 7), (0.15, 1), (0.4, 3), (0.01, 7), (1.0, 10)])
def test_the_number_of_spans_is_the_share_of_frames_by_their_length(proportion: float, consecutive: int) -> None:
    counts = torch.randint(12, 300, (200,), generator=generator(1))
    _, _, masked = masked_with(counts, proportion=proportion, consecutive=consecutive)
    wanted = (counts * proportion / consecutive).round().clamp_min(1)
    assert torch.equal(masked.starts.sum(dim=1), torch.minimum(wanted, counts - consecutive + 1).to(torch.int64))


def test_spans_that_may_not_overlap_hide_the_share_that_is_asked_for() -> None:
    _, _, masked = masked_with([700] * 200, proportion=0.15, consecutive=7, overlap=False)
    assert torch.equal(masked.spans.sum(dim=1), torch.full((200,), 15 * 7))
    for row in masked.spans[:20]:
        assert all(length == 7 for _, length in runs_of(row)), "they do not even touch"


def test_spans_that_may_overlap_hide_a_little_less() -> None:
    _, _, masked = masked_with([700] * 200, proportion=0.15, consecutive=7)
    share = float(masked.spans.float().mean())
    assert 0.12 < share < 0.15


def test_a_span_is_consecutive_frames_from_its_start() -> None:
    _, counts, masked = masked_with(torch.randint(2, 200, (100,), generator=generator(2)), consecutive=7)
    for length, spans, starts in zip(counts.tolist(), masked.spans, masked.starts, strict=True):
        expected = torch.zeros_like(spans)
        for start in starts.nonzero().flatten().tolist():
            expected[start : start + min(7, length - 1)] = True
            assert start + min(7, length - 1) <= length
        assert torch.equal(spans, expected)


def test_the_length_of_spans_is_drawn_for_each_utterance() -> None:
    _, _, masked = masked_with([400] * 600, proportion=0.01, consecutive=6, consecutive_min=3, overlap=False)
    lengths = [[length for _, length in runs_of(row)] for row in masked.spans]
    assert all(len(set(each)) == 1 for each in lengths), "within an utterance they are of one length"
    counted = [sum(each[0] == length for each in lengths) for length in range(8)]
    assert counted[:3] == [0, 0, 0]
    assert counted[7] == 0
    assert all(100 < count < 200 for count in counted[3:7]), counted


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("length", range(2, 31))
def test_every_utterance_of_two_frames_or_more_is_masked_but_never_wholly_by_one_span(
    length: int, overlap: bool
) -> None:
    _, _, masked = masked_with([length] * 50, proportion=0.15, consecutive=7, overlap=overlap)
    hidden = masked.spans.sum(dim=1)
    assert int(hidden.min()) >= 1
    assert int(hidden.max()) < length


@pytest.mark.parametrize("length", [2, 3, 7, 8, 9, 50])
def test_the_first_frame_and_the_last_are_hidden_as_easily(length: int) -> None:
    _, _, masked = masked_with([length] * 4000, proportion=0.15, consecutive=7)
    share = masked.spans.float().mean(dim=0)
    assert float(share[0]) > 0.01
    assert float(share[0] - share[-1]) == pytest.approx(0.0, abs=0.05)


def test_an_utterance_of_one_frame_is_refused() -> None:
    with pytest.raises(DataError, match="at least 2 frames to be masked, but one has 1"):
        masked_with([5, 1])


@pytest.mark.parametrize("loss_on", ["spans", "starts"])
@pytest.mark.parametrize("frequency", [0.0, 0.5])
def test_padding_is_never_masked_nor_scored_nor_seen(loss_on: str, frequency: float) -> None:
    counts = torch.tensor([2, 5, 30, 31, 90])
    frames = numbered(counts) + 7.0  # there is something in the padding
    settings = MaskingSettings(proportion=0.5, loss_on=loss_on, frequency=frequency, noise=1.0)  # type: ignore[arg-type]
    padding = ~valid_mask(counts, 90)
    for seed in range(20):
        masked = mask(frames, counts, settings, generator(seed))
        where = scored(masked, counts, settings)
        assert not (masked.spans & padding).any()
        assert not (masked.starts & padding).any()
        assert not where[padding].any()
        assert not masked.frames[padding].any()


def test_what_lies_in_the_padding_changes_nothing() -> None:
    counts = torch.tensor([20, 50])
    frames = numbered(counts)
    dirty = frames.masked_fill(~valid_mask(counts, 50)[..., None], torch.nan)
    settings = MaskingSettings(zeroed=0.0, replaced=1.0)
    for seed in range(10):
        one, other = (mask(each, counts, settings, generator(seed)) for each in (frames, dirty))
        assert torch.equal(one.frames, other.frames)


def test_eight_in_ten_utterances_are_zeroed_one_replaced_one_kept() -> None:
    frames, _, masked = masked_with([30] * 20_000)
    shares = torch.bincount(masked.kinds, minlength=3) / 20_000
    assert KINDS == ("zeroed", "replaced", "kept")
    assert shares.tolist() == pytest.approx([0.8, 0.1, 0.1], abs=0.01)
    hidden = masked.spans[..., None].expand_as(frames)
    zeroed, kept = masked.kinds == 0, masked.kinds == 2
    assert not masked.frames[zeroed][hidden[zeroed]].any()
    assert torch.equal(masked.frames[kept], frames[kept])
    assert torch.equal(masked.frames[~hidden], frames[~hidden]), "nothing else is touched"


def test_replaced_frames_are_whole_stretches_of_the_same_utterance() -> None:
    frames, counts, masked = masked_with([60, 90, 40] * 10, proportion=0.1, consecutive=5, overlap=False, **REPLACED)
    changed = 0
    for row in range(30):
        for start, length in runs_of(masked.spans[row]):
            put = masked.frames[row, start : start + length, 0]
            assert torch.equal(put.diff(), torch.ones(length - 1)), "consecutive there too"
            assert row * 1000 + 1 <= int(put[0]) <= int(put[-1]) <= row * 1000 + int(counts[row])
            changed += int(put[0] != frames[row, start, 0])
    assert changed > 30, "nearly always another stretch"


def test_every_stretch_takes_a_place_as_easily() -> None:
    frames, _, masked = masked_with([10] * 4000, proportion=0.1, consecutive=3, **REPLACED)
    first = masked.frames[masked.starts][:, 0] - frames[:, 0, 0]
    counts = Counter(first.int().tolist())
    assert sorted(counts) == list(range(8)), "from the first frame to the third from the end"
    assert all(count == pytest.approx(500, rel=0.2) for count in counts.values()), counts


def test_a_grid_of_one_and_a_half_spans_begins_anywhere_in_its_first_span() -> None:
    _, _, masked = masked_with([300] * 4000, proportion=0.001, consecutive=4, overlap=False)
    places = Counter((masked.starts.nonzero()[:, 1] % 6).tolist())
    assert sorted(places) == [0, 1, 2, 3, 4]
    assert all(count == pytest.approx(800, rel=0.2) for count in places.values()), places
    _, _, masked = masked_with([300] * 20, proportion=0.6, consecutive=4, overlap=False)
    assert masked.starts.sum(dim=1).tolist() == [45] * 20, "of 49 or 50 places six frames apart"


def test_what_has_a_share_of_nothing_is_never_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "_uniform", lambda shape, generator: torch.zeros(shape))
    for shares, kind in (({"zeroed": 0.1, "replaced": 0.1}, 0), (REPLACED, 1), (KEPT, 2)):
        assert masked_with([9], **shares)[2].kinds.tolist() == [kind]


def test_the_masks_of_a_seed_are_the_same_for_ever() -> None:
    """A pre-training that goes on after an update of the code draws what it would have drawn before it."""
    counts = torch.tensor([30, 20])
    draws = generator(5)
    settings = MaskingSettings(consecutive_min=2, frequency=0.4)
    drawn = [mask(numbered(counts), counts, settings, draws) for _ in range(2)]
    assert [each.starts.nonzero().tolist() for each in drawn] == STARTS
    noisy = mask(numbered(counts), counts, MaskingSettings(noise=1.0, **KEPT), draws).frames - numbered(counts)
    assert noisy[0, 0].tolist() == pytest.approx(NOISE, abs=1e-4)


STARTS = [[[0, 6], [1, 0], [1, 10]], [[0, 25], [0, 27], [1, 15]]]
NOISE = [0.2428, 0.0314, -0.1652, 0.2886, -0.1611]


def test_overlapping_spans_are_each_replaced_by_a_stretch() -> None:
    _, _, masked = masked_with([40] * 50, proportion=0.6, consecutive=6, **REPLACED)
    for row in range(50):
        within = masked.spans[row, 1:] & masked.spans[row, :-1] & ~masked.starts[row, 1:]
        assert (masked.frames[row].diff(dim=0)[within] == 1).all()
        hidden = masked.frames[row][masked.spans[row]]
        assert ((hidden > row * 1000) & (hidden <= row * 1000 + 40)).all()


def test_a_band_is_consecutive_dimensions_in_all_frames() -> None:
    counts = torch.tensor([20] * 2000)
    frames = numbered(counts, 40)
    masked = mask(frames, counts, MaskingSettings(frequency=0.2, **KEPT), generator())
    widths = masked.band.sum(dim=1)
    assert sorted(set(widths.tolist())) == list(range(9)), "none to a fifth of 40"
    assert all(len(runs_of(row)) <= 1 for row in masked.band[:200])
    assert not masked.frames[masked.band[:, None, :].expand_as(frames)].any()
    untouched = ~masked.band[:, None, :].expand_as(frames)
    assert torch.equal(masked.frames[untouched], frames[untouched])
    assert masked.band.any(dim=0).all(), "every dimension can be hidden, the first and the last too"


def test_bands_of_every_width_and_place_are_as_frequent() -> None:
    masked = mask(
        numbered(torch.tensor([2] * 9000), 3), torch.tensor([2] * 9000), MaskingSettings(frequency=0.7), generator()
    )
    bands = Counter(tuple(row) for row in masked.band.int().tolist())
    expected = {
        (0, 0, 0): 3000, (1, 0, 0): 1000, (0, 1, 0): 1000, (0, 0, 1): 1000, (1, 1, 0): 1500, (0, 1, 1): 1500
    }  # fmt: skip
    assert bands.keys() == expected.keys()
    assert all(count == pytest.approx(expected[band], rel=0.12) for band, count in bands.items()), bands


def test_a_share_of_one_dimension_hides_one_or_none() -> None:
    masked = mask(
        numbered(torch.tensor([2] * 900)), torch.tensor([2] * 900), MaskingSettings(frequency=0.2), generator()
    )
    assert int(masked.band.sum()) == pytest.approx(450, rel=0.15)


def test_noise_is_added_to_a_share_of_batches_and_to_valid_frames_alone() -> None:
    counts = torch.tensor([400, 300])
    frames = numbered(counts)
    noisy = 0
    for seed in range(200):
        masked = mask(frames, counts, MaskingSettings(noise=0.25, **KEPT), generator(seed))
        difference = masked.frames - frames
        noisy += bool(difference.any())
        assert not difference[1, 300:].any()
        if difference.any():
            assert float(difference[0].std()) == pytest.approx(0.2, rel=0.1)
    assert 30 < noisy < 70


def test_what_is_scored_is_every_frame_of_a_span_or_its_first() -> None:
    _, counts, masked = masked_with([100, 50])
    assert torch.equal(scored(masked, counts, MaskingSettings(loss_on="spans")), masked.spans)
    assert torch.equal(scored(masked, counts, MaskingSettings(loss_on="starts")), masked.starts)
    assert int(masked.starts.sum()) < int(masked.spans.sum())


def test_with_a_band_its_dimensions_are_scored_in_every_valid_frame() -> None:
    settings = MaskingSettings(frequency=0.5)
    counts = torch.tensor([30, 20])
    masked = mask(numbered(counts, 8), counts, settings, generator(4))
    where = scored(masked, counts, settings)
    assert masked.band.any()
    for row, count in enumerate([30, 20]):
        for time in range(30):
            expected = (masked.spans[row, time] | masked.band[row]) & torch.tensor(time < count)
            assert torch.equal(where[row, time], expected)


def test_a_band_without_spans_is_scored_alone() -> None:
    settings, counts = MaskingSettings(proportion=0.0, frequency=0.5), torch.tensor([4, 3])
    masked = mask(numbered(counts, 8), counts, settings, generator(4))
    assert masked.band.any()
    assert torch.equal(scored(masked, counts, settings), masked.band[:, None] & valid_mask(counts, 4)[..., None])


def test_a_proportion_of_zero_is_plain_reconstruction() -> None:
    frames, counts, masked = masked_with([30, 20], proportion=0.0)
    assert torch.equal(masked.frames, frames)
    assert not masked.spans.any()
    assert torch.equal(scored(masked, counts, MaskingSettings(proportion=0.0)), valid_mask(counts, 30))


def test_the_same_seed_draws_the_same_masks_and_leaves_the_global_generator() -> None:
    before = torch.get_rng_state()
    settings = {"frequency": 0.3, "noise": 0.5, "consecutive_min": 2}
    one, other, third = (masked_with([80, 40], seed=seed, **settings)[2] for seed in (1, 1, 2))
    for part in ("frames", "spans", "starts", "band", "kinds"):
        assert torch.equal(getattr(one, part), getattr(other, part))
    assert not torch.equal(one.spans, third.spans)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_perfect_guess_costs_nothing_and_only_what_is_scored_counts() -> None:
    target = torch.randn(2, 10, 3, generator=generator())
    where = torch.zeros(2, 10, dtype=torch.bool)
    where[0, 3] = where[1, 7] = True
    guess = target + 5.0
    guess[where] = target[where] + torch.tensor([1.0, 2.0, 3.0])
    assert float(masked_distance(target, target, where)) == 0.0
    assert float(masked_distance(guess, target, where)) == pytest.approx(2.0)
    assert float(masked_distance(guess, target, where, "mse")) == pytest.approx(14 / 3)
    one = torch.zeros(2, 10, 3, dtype=torch.bool)
    one[1, 7, 2] = True
    assert float(masked_distance(guess, target, one)) == pytest.approx(3.0), "one number is divided by one"
