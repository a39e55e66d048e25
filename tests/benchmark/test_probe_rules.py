"""What a probe does to frames, and what it is fed, by examples of a few numbers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from repbench.benchmark.features.table import FeatureTable
from repbench.benchmark.probing.batches import ProbeBatch, SeededOrder, batches, labelled_frames, utterances_at_once
from repbench.benchmark.probing.prediction import LabelledFeatures, Predictor
from repbench.benchmark.probing.probe import (
    Moments,
    Probe,
    ProbeShape,
    encoded_probe,
    load_probe,
    moments_of,
    scores_side_by_side,
    statistics_of,
    weights_of,
)
from repbench.benchmark.probing.training import _enough_memory
from repbench.benchmark.protocol import ProbeSettings
from repbench.corpora.contract import Phone as Segment
from repbench.corpora.contract import Utterance
from repbench.downstream.contract import LabelledUtterance
from repbench.downstream.heads import SeededDropout
from repbench.downstream.phone import Phone
from repbench.downstream.phone_ctc import PhoneCTC
from repbench.downstream.problems import FRAMES
from repbench.downstream.speaker import Speaker
from repbench.errors import DataError, EnvironmentFault, IntegrityError
from repbench.testing import Envelope

SHAPE = ProbeShape(
    head="linear", pools=False, num_layers=2, width=3, hidden_units=4, classes=("a", "b"), mix="weighted"
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def probe(seed: int = 0, **changes: object) -> Probe:
    return Probe(dataclasses.replace(SHAPE, **changes), generator(seed))  # type: ignore[arg-type]


def table(frames: Tensor, counts: Sequence[int]) -> FeatureTable:
    return FeatureTable(frames, tuple(counts), tuple(f"u{number}" for number in range(len(counts))))


@pytest.mark.parametrize("num_frames", [1, 5, 2048, 5000])
def test_moments_are_exact_however_far_from_zero_and_however_many(num_frames: int) -> None:
    frames = torch.randn(num_frames, 4, generator=generator()) * torch.tensor([1.0, 0.1, 5.0, 0.0]) + 1000.0
    frames[: num_frames // 3] += 7.0
    mean, deviation = moments_of(frames)
    assert mean.dtype == deviation.dtype == torch.float64
    np.testing.assert_allclose(mean.numpy(), frames.double().numpy().mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(deviation.numpy(), frames.double().numpy().std(axis=0), rtol=1e-9, atol=1e-9)


def test_moments_of_blocks_that_are_merged_are_those_of_all_frames() -> None:
    frames = torch.randn(300, 4, generator=generator()) * torch.tensor([1.0, 0.1, 5.0, 0.0]) + 1000.0
    frames[100:] += 7.0  # blocks with other means, and so with other shifts
    merged = Moments()
    merged.add(frames[:1])
    for part in (frames[1:100], frames[100:101], frames[101:]):
        other = Moments()
        other.add(part)
        merged.merge(other)
    mean, deviation = merged.mean_and_deviation()
    np.testing.assert_allclose(mean.numpy(), frames.double().numpy().mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(deviation.numpy(), frames.double().numpy().std(axis=0), rtol=1e-9, atol=1e-9)


def test_each_layer_has_its_statistics_and_its_floor_of_a_thousandth_of_the_median() -> None:
    frames = torch.randn(2, 400, 3, generator=generator()) * torch.tensor([1.0, 5.0, 1e-6])
    frames[1] = 10 * frames[1] + 3
    mean, std = statistics_of(table(frames, [400]))
    assert (mean.shape, std.shape, mean.dtype, std.dtype) == ((2, 1, 3), (2, 1, 3), torch.float32, torch.float32)
    torch.testing.assert_close(mean[:, 0], frames.mean(dim=1), rtol=1e-4, atol=1e-5)
    deviations = frames.std(dim=1, correction=0)
    torch.testing.assert_close(std[:, 0, :2], deviations[:, :2])
    torch.testing.assert_close(std[:, 0, 2], 1e-3 * deviations[:, 0])
    still = statistics_of(table(torch.full((1, 4, 2), 7.0), [4]))[1]
    assert still.tolist() == [[[1.0, 1.0]]], "where nothing moves nothing is scaled"


def test_frames_are_standardised_before_they_are_mixed() -> None:
    asked = probe()
    asked.set_statistics(torch.full((2, 1, 3), 2.0), torch.full((2, 1, 3), 4.0))
    frames = torch.randn(2, 7, 3, generator=generator(1))
    kept = frames.clone()
    standard = asked.standardised(frames)
    torch.testing.assert_close(standard, (frames - 2) / 4)
    assert torch.equal(frames, kept)
    torch.testing.assert_close(asked(frames), asked.scores((frames - 2) / 4))
    asked.standardise_(frames)
    assert torch.equal(frames, standard)


@pytest.mark.parametrize(
    ("mix", "first", "learnt"),
    [("mean", [0.5, 0.5], False), ("weighted", [0.5, 0.5], True), ("raw", [1 / 12] * 2, True)],
)
def test_layers_are_mixed_from_equal_shares_on(mix: str, first: list[float], learnt: bool) -> None:
    asked = probe(mix=mix)
    assert asked.layer_weights().tolist() == pytest.approx(first)
    assert asked.layer_logits.requires_grad == learnt
    with torch.no_grad():
        asked.layer_logits.copy_(torch.tensor([0.0, np.log(3.0)]))
    weights = [0.0, np.log(3.0)] if mix == "raw" else [0.25, 0.75]
    frames = torch.randn(2, 5, 3, generator=generator())
    torch.testing.assert_close(asked.mixed(frames), weights[0] * frames[0] + weights[1] * frames[1])
    alone = probe(mix=mix, num_layers=1)
    assert torch.equal(alone.mixed(frames[:1]), frames[0]), "one layer is that layer"


def test_a_probe_drops_what_its_shape_says() -> None:
    drops = [part.share for part in probe(head="mlp1", dropout=0.25).modules() if isinstance(part, SeededDropout)]
    assert drops == [0.25]


def test_weights_of_several_mixes_lie_along_the_last_axis() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]])
    assert weights_of(logits, "weighted").sum(dim=1).tolist() == pytest.approx([1.0, 1.0])
    assert weights_of(logits, "raw") is logits


@pytest.mark.parametrize(
    ("head", "mix", "pools"),
    [("linear", "mean", False), ("linear", "weighted", False), ("mlp1", "mean", False), ("linear", "mean", True)],
)
@pytest.mark.parametrize("num_probes", [1, 8, 9])
def test_scores_side_by_side_are_those_of_each(head: str, mix: str, pools: bool, num_probes: int) -> None:
    probes = [probe(seed, head=head, mix=mix, pools=pools).eval() for seed in range(num_probes)]
    if mix == "weighted":
        for number, each in enumerate(probes):
            each.layer_logits.data[0] = number  # each has learned a mix of its own
    frames, counts = torch.randn(2, 9, 3, generator=generator()), torch.tensor([4, 5])
    with torch.no_grad():
        together = scores_side_by_side(probes, frames, counts)
    assert together.shape == (num_probes, 2 if pools else 9, 2)
    for scores, alone in zip(together, probes, strict=True):
        torch.testing.assert_close(scores, alone.scores(frames, counts))
    assert len({round(float(each), 5) for each in together[:, 0, 0]}) == num_probes


def test_a_probe_is_saved_with_what_it_needs_to_be_built_again(tmp_path: Path) -> None:
    trained = probe(head="mlp2", dropout=0.25, mix="raw")
    trained.set_statistics(torch.ones(2, 1, 3), torch.full((2, 1, 3), 3.0))
    (tmp_path / "p").write_bytes(encoded_probe(trained, {"layer": "last", "n": 3}))
    with safe_open(tmp_path / "p", framework="pt") as stored:
        metadata = stored.metadata()
    assert metadata["format"] == "repbench.probe/1"
    assert json.loads(metadata["facts"]) == {"layer": "last", "n": 3}
    assert json.loads(metadata["shape"])["dropout"] == 0.25
    again, facts = load_probe(tmp_path / "p")
    assert (again.shape, facts, again.training) == (trained.shape, {"layer": "last", "n": 3}, False)
    for name, tensor in trained.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_probe_that_is_not_finite_is_refused(tmp_path: Path, value: float) -> None:
    broken = probe()
    with torch.no_grad():
        broken.head.output.bias[1] = value
    (tmp_path / "p").write_bytes(encoded_probe(broken, {}))
    with pytest.raises(IntegrityError, match="The probe's weights hold NaN or infinity"):
        load_probe(tmp_path / "p")


def test_a_probe_of_another_shape_than_it_says_is_refused(tmp_path: Path) -> None:
    trained = probe()
    del trained.head.output.bias
    (tmp_path / "p").write_bytes(encoded_probe(trained, {}))
    with pytest.raises(IntegrityError, match=r"not a whole probe: .*head\.output\.bias"):
        load_probe(tmp_path / "p")


def test_every_index_comes_once_before_any_comes_again() -> None:
    drawn = torch.cat(list(islice(SeededOrder(7, 3, generator(), batches=14), 14))).tolist()
    rounds = [drawn[start : start + 7] for start in range(0, 42, 7)]
    assert all(sorted(each) == list(range(7)) for each in rounds)
    assert len({tuple(each) for each in rounds}) == 6, "in another order each time"
    assert [len(each) for each in islice(SeededOrder(2, 5, generator(), batches=3), 3)] == [2, 2, 2]


def test_the_batches_ahead_are_those_that_follow() -> None:
    order = SeededOrder(10, 3, generator(), batches=5)
    drawn = iter(order)
    next(drawn)

    *ahead, rest = (each.tolist() for each in order.ahead())

    assert ahead == [next(drawn).tolist() for _ in range(2)]
    assert rest == [*range(10)], "the third begins in an order that is not drawn yet"
    next(drawn)
    assert [len(each) for each in order.ahead()] == [3], "five batches in all are drawn"


HOP = 320
"""Of `Envelope`: frames at 0, 20, 40 … ms."""


def utterance(number: int, num_frames: int = 5) -> Utterance:
    return Utterance(
        id=f"u{number}",
        audio=Path("/nowhere"),
        sample_rate_hz=16000,
        num_samples=(num_frames - 1) * HOP + 400,
        samples_sha256=str(number),
    )


def frame_examples(*segments: Segment) -> LabelledFeatures:
    """Two utterances of five frames; the second one is labelled."""
    frames = torch.arange(10.0)[None, :, None].expand(2, 10, 4).contiguous()
    return LabelledFeatures(table(frames, [5, 5]), (LabelledUtterance(utterance(1), segments),))


def test_frames_without_a_label_are_not_learned_from() -> None:
    info = Envelope().info
    predictor = Predictor(Phone(), ("AA", "IY"), info)
    centre = info.first_center_samples / 16000
    step = info.hop_samples / 16000
    segments = (Segment(centre - 0.001, centre + 1.5 * step, "AA"), Segment(centre + 2.5 * step, 9.0, "IY"))
    labelled = frame_examples(*segments)
    rows, classes = labelled_frames(predictor, labelled.table, labelled.examples)
    assert (rows.tolist(), classes.tolist()) == ([5, 6, 8, 9], [0, 0, 1, 1])
    with pytest.raises(DataError, match="No frame of the 1 training utterances is labelled"):
        labelled_frames(predictor, labelled.table, frame_examples(Segment(0.0, 1e-6, "AA")).examples)


@pytest.mark.parametrize("context", [0, 1])
def test_a_batch_of_frames_is_the_rows_drawn_and_with_context_their_windows(context: int) -> None:
    predictor = Predictor(Phone(), ("AA", "IY"), Envelope().info)
    settings = ProbeSettings(batch_frames=5)
    made = batches(predictor, frame_examples(Segment(0.0, 9.0, "IY")), settings, generator(), context=context)
    for batch in islice(made, 3):
        assert (batch.counts, batch.num_classes, batch.classes.tolist()) == (None, None, [1] * 5)
        windows = batch.frames[0, :, 0].view(5, -1).tolist()
        rows = [row[len(row) // 2] for row in windows]
        assert sorted(rows) == [5, 6, 7, 8, 9]
        if context:
            assert windows == [[min(row + 1, 9), row, max(row - 1, 5)] for row in rows]
        assert torch.equal(batch.frames, batch.frames[0, :, :1].expand(2, -1, 4))


def test_a_head_of_whole_utterances_draws_those_with_a_label_and_learns_from_their_labelled_frames() -> None:
    frames = torch.arange(12.0)[None, :, None].expand(2, 12, 4).contiguous()
    hop_s = HOP / 16000
    centre = Envelope().info.first_center_samples / 16000
    labels = (Segment(centre + 1.5 * hop_s, 9.0, "IY"),)  # from the third frame on
    unlabelled = (Segment(0.0, 1e-6, "AA"),)
    examples = tuple(
        LabelledUtterance(utterance(number, 3 + number), unlabelled if number == 1 else labels) for number in range(3)
    )
    predictor = Predictor(Phone(), ("AA", "IY"), Envelope().info)
    labelled = LabelledFeatures(table(frames, [3, 4, 5]), examples)
    made = batches(predictor, labelled, ProbeSettings(batch_frames=4), generator(), context=0, whole=True)
    seen = set()
    for batch in islice(made, 4):
        assert batch.counts is not None
        assert batch.rows is not None
        (count,) = batch.counts.tolist()  # four frames are one utterance of 3 or 5
        seen.add(count)
        first = {3: 0, 5: 7}[count]
        assert batch.frames[0, :, 0].tolist() == list(range(first, first + count))
        assert (batch.rows.tolist(), batch.classes.tolist()) == (list(range(2, count)), [1] * (count - 2))
    assert seen == {3, 5}
    none = batches(
        predictor, LabelledFeatures(labelled.table, examples[1:2]), ProbeSettings(), generator(), context=0, whole=True
    )
    with pytest.raises(DataError, match="No frame of the 1 training utterances is labelled"):
        next(none)


def test_whole_utterances_have_about_the_frames_of_a_batch() -> None:
    assert utterances_at_once([300] * 10, 2048) == 7
    assert utterances_at_once([5000, 7000], 2048) == 1
    assert utterances_at_once([1, 3], 8) == 4


@pytest.mark.parametrize("sequences", [False, True])
def test_a_batch_of_utterances_is_whole_utterances_in_the_order_drawn(sequences: bool) -> None:
    frames = torch.arange(9.0)[None, :, None].expand(1, 9, 4).contiguous()
    examples = tuple(
        LabelledUtterance(utterance(number), ("a",) * (number + 1) if sequences else "ab"[number % 2])
        for number in range(3)
    )
    predictor = Predictor(PhoneCTC() if sequences else Speaker(), ("a", "b"), Envelope().info)
    settings = ProbeSettings(batch_utterances=2)
    labelled = LabelledFeatures(table(frames, [2, 3, 4]), examples)
    for batch in islice(batches(predictor, labelled, settings, generator(), context=0), 4):
        assert batch.counts is not None
        numbers = [count - 2 for count in batch.counts.tolist()]
        expected = [row for number in numbers for row in [[0, 1], [2, 3, 4], [5, 6, 7, 8]][number]]
        assert batch.frames[0, :, 0].tolist() == expected
        if sequences:
            assert batch.num_classes is not None
            assert batch.num_classes.tolist() == [number + 1 for number in numbers]
            assert batch.classes.tolist() == [0] * sum(number + 1 for number in numbers)
        else:
            assert batch.num_classes is None
            assert batch.classes.tolist() == [number % 2 for number in numbers]


def test_a_batch_on_a_device_is_whole() -> None:
    parts = [torch.full((1, 2, 3), 1.0), *(torch.tensor([number]) for number in (2, 3, 4, 5))]
    moved = ProbeBatch(*parts).to(torch.device("cpu"))
    assert [moved.frames, moved.counts, moved.classes, moved.num_classes, moved.rows] == parts
    assert ProbeBatch(parts[0], None, parts[2]).to(torch.device("meta")).frames.is_meta


def test_a_loss_is_a_mean_over_frames_for_each_probe_by_itself() -> None:
    scores = torch.randn(3, 6, 4, generator=generator())
    classes = torch.tensor([0, 1, 2, 3, 0, 1])
    expected = [torch.nn.functional.cross_entropy(each, classes).item() for each in scores]
    assert FRAMES.losses(scores, classes).tolist() == pytest.approx(expected)


def test_too_little_memory_names_what_asks_for_it() -> None:
    settings = ProbeSettings(batch_frames=77, batch_utterances=5)
    message = r"not suffice for probes on 2 layers of 3, 77 frames or 5 utterances at once.*probe\.batch_frames"
    for error in (MemoryError(), torch.OutOfMemoryError("CUDA out of memory")):
        with pytest.raises(EnvironmentFault, match=message), _enough_memory(settings, SHAPE):
            raise error
    with pytest.raises(RuntimeError, match="something else"), _enough_memory(settings, SHAPE):
        raise RuntimeError("something else")
