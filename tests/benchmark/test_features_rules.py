"""Extraction by examples of a few numbers: layers, bounds, batches, tables, dtypes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from repbench.benchmark.features.extraction import (
    ExtractionOptions,
    batch_samples,
    extract,
    layer_indices,
    length_batches,
    num_frames,
    run_batches,
    run_sounds,
    table_index,
    why_excluded,
)
from repbench.benchmark.features.forward import rounded
from repbench.benchmark.features.table import FeatureTable
from repbench.corpora.contract import Corpus, Utterance
from repbench.errors import DataError, EnvironmentFault, NonFiniteError, PluginError, UsageError
from repbench.testing import Envelope, tone_corpus
from repbench.upstream.contract import HiddenStates

CPU = torch.device("cpu")
INFO = Envelope().info


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return tone_corpus(tmp_path_factory.mktemp("rules") / "tones", num_speakers=1)


def utterance(num_samples: int, sample_rate_hz: int = 16_000) -> Utterance:
    return Utterance(
        id="u", audio=Path("u.wav"), sample_rate_hz=sample_rate_hz, num_samples=num_samples, samples_sha256="0"
    )


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("last", (2,)), ("first", (0,)), ("0", (0,)), ("1", (1,)), ("2", (2,)), ("middle", (1,)), ("top", (2,)),
        ("mean", (0, 1, 2)), ("weighted", (0, 1, 2)),
    ],
)  # fmt: skip
def test_a_layer_is_found_by_its_name_number_or_place(layer: str, expected: tuple[int, ...]) -> None:
    info = dataclasses.replace(INFO, layer_names=("bottom", "middle", "top"))
    assert layer_indices(info, layer) == expected


def test_an_unknown_layer_is_refused_with_the_layers_that_there_are() -> None:
    many = dataclasses.replace(INFO, layer_names=tuple("abcdefgh"))
    with pytest.raises(UsageError, match=r"envelope has no layer `8`.*from 0 to 7, or a, b, c, d, e, f, …") as caught:
        layer_indices(many, "8")
    assert caught.value.key == "--layer"
    seven = dataclasses.replace(INFO, layer_names=tuple("abcdefg"))
    with pytest.raises(UsageError, match=r"or a, b, c, d, e, f, …"):
        layer_indices(seven, "7")
    six = dataclasses.replace(INFO, layer_names=tuple("abcdef"))
    with pytest.raises(UsageError, match=r"or a, b, c, d, e, f\.?$"):
        layer_indices(six, "-1")


def test_an_utterance_is_excluded_outside_the_bounds_of_its_upstream() -> None:
    bounded = why_excluded(dataclasses.replace(INFO, min_samples=400, max_samples=800))
    assert [bounded(utterance(length)) for length in (400, 800)] == [None, None]
    assert bounded(utterance(399)) == "shorter than the 400 samples that envelope needs"
    assert bounded(utterance(801)) == "longer than the 800 samples that envelope takes"
    assert bounded(utterance(400, 8_000)) is None, "800 samples at the rate of the upstream"
    assert bounded(utterance(401, 8_000)) is not None
    assert why_excluded(dataclasses.replace(INFO, max_samples=None))(utterance(10**9)) is None


def test_a_table_knows_the_first_row_and_the_number_of_frames_of_each_utterance() -> None:
    table = FeatureTable(torch.arange(12.0).view(2, 6, 1), (1, 2, 3), ("a", "b", "c"))
    assert table.starts() == {"a": (0, 1), "b": (1, 2), "c": (3, 3)}
    upper = table.of_layers(slice(1, 2))
    assert (upper.frames.flatten().tolist(), upper.counts, upper.ids) == ([6, 7, 8, 9, 10, 11], (1, 2, 3), table.ids)
    moved = table.to(torch.device("meta"))
    assert (moved.frames.is_meta, moved.counts, moved.ids) == (True, table.counts, table.ids)


def test_an_index_puts_the_frames_of_utterances_one_after_the_other(tones: Corpus) -> None:
    index = table_index(Envelope(), tones.utterances[:3])
    counts = [Envelope().num_frames(each.num_samples) for each in tones.utterances[:3]]
    assert index.counts == tuple(counts)
    assert index.lengths == tuple(each.num_samples for each in tones.utterances[:3])
    assert [(each.start, each.stop) for each in index.rows] == [
        (0, counts[0]), (counts[0], sum(counts[:2])), (sum(counts[:2]), sum(counts)),
    ]  # fmt: skip
    assert index.table(torch.empty(1, sum(counts), 4)).ids == tuple(each.id for each in tones.utterances[:3])


@pytest.mark.parametrize(("count", "is_right"), [(0, True), (7, True), (-1, False), (2.5, False)])
def test_a_number_of_frames_is_a_whole_number_from_zero(count: float, is_right: bool) -> None:
    upstream = Envelope()
    upstream.num_frames = lambda num_samples: count  # type: ignore[method-assign, assignment, return-value]
    if is_right:
        assert num_frames(upstream, 400) == count
        return
    with pytest.raises(PluginError) as caught:
        num_frames(upstream, 400, "u7")
    assert (caught.value.key, caught.value.utterance) == ("envelope", "u7")


def test_a_batch_takes_the_seconds_that_it_may_and_no_other_utterance_where_it_is_not_invariant() -> None:
    upstream = Envelope()
    assert batch_samples(upstream, 0.1) == 1_600
    assert batch_samples(upstream, 1e-6) == 1, "rounded up"
    upstream.info = dataclasses.replace(upstream.info, batch_invariant=False)
    assert batch_samples(upstream, 0.1) == 0


@pytest.mark.parametrize(
    ("lengths", "budget", "expected"),
    [
        ([3, 1, 2, 1], 4, [[1, 3], [2], [0]]),
        ([2, 2, 2], 4, [[0, 1], [2]]),
        ([2, 2, 2], 6, [[0, 1, 2]]),
        ([2, 2, 2], 5, [[0, 1], [2]]),
        ([9], 1, [[0]]),
        ([1, 1], 0, [[0], [1]]),
        ([], 4, []),
    ],
)
def test_batches_are_filled_by_length_up_to_the_padded_budget(
    lengths: list[int], budget: int, expected: list[list[int]]
) -> None:
    assert list(length_batches(lengths, budget)) == expected


def test_features_are_rounded_and_what_a_dtype_cannot_hold_is_refused() -> None:
    frames = torch.tensor([[1.0, 70_000.0]])
    assert torch.equal(rounded(frames, "float32", "u"), frames)
    assert torch.equal(rounded(frames / 0, "float32", "u"), frames / 0), "float32 is kept as it is"
    assert rounded(frames, "bfloat16", "u").dtype == torch.bfloat16
    with pytest.raises(NonFiniteError, match=r"A feature of 70000 is too large for float16") as caught:
        rounded(-frames, "float16", "u")
    assert (caught.value.utterance, caught.value.key) == ("u", "extraction.dtype")


def test_the_table_has_the_layers_in_their_order_and_the_frames_of_each_alone(tones: Corpus) -> None:
    done: list[tuple[int, int]] = []
    options = ExtractionOptions(batch_seconds=2.0, device=CPU, dtype="bfloat16")
    table = extract(Envelope(), tones.utterances[:5], [1, 0], options, progress=lambda *each: done.append(each))
    assert (table.frames.dtype, table.ids) == (torch.float32, tuple(each.id for each in tones.utterances[:5]))
    assert done[-1] == (5, 5)
    assert [each[0] for each in done] == sorted({each[0] for each in done})
    assert len(done) > 1
    for each in tones.utterances[:5]:
        alone = extract(Envelope(), [each], [0, 1], dataclasses.replace(options, dtype="float32")).frames
        start, count = table.starts()[each.id]
        torch.testing.assert_close(table.frames[[1, 0], start : start + count], alone, rtol=2**-7, atol=1e-6)
        assert torch.equal(table.frames, table.frames.bfloat16().float())


class Narrow(Envelope):
    """An upstream that has memory for a batch of two."""

    def __init__(self, most: int = 2) -> None:
        super().__init__()
        self.most, self.sizes = most, list[int]()

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        self.sizes.append(len(lengths))
        if len(lengths) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(waveforms, lengths)


def test_a_batch_too_large_for_the_memory_is_halved_until_it_fits(tones: Corpus) -> None:
    upstream = Narrow()
    index = table_index(upstream, tones.utterances[:5])
    options = ExtractionOptions(batch_seconds=60, device=CPU)
    found = list(run_batches(upstream, index, [0], [[4, 0, 1, 2, 3]], options))
    assert [list(batch) for batch, _ in found] == [[4, 0], [1], [2, 3]]
    assert upstream.sizes == [5, 2, 3, 1, 2]
    for batch, features in found:
        assert [each.shape[1] for each in features] == [index.counts[number] for number in batch]
    with pytest.raises(EnvironmentFault, match="does not suffice for this utterance of 1 s") as caught:
        list(run_batches(Narrow(0), index, [0], [[1]], options))
    assert caught.value.utterance == tones.utterances[1].id


class Casting(Envelope):
    """An upstream that remembers the dtype of a product, and whether gradients are recorded."""

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        self.product = (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
        self.records = torch.is_grad_enabled()
        self.given = (waveforms.tolist(), lengths.tolist())
        return super().forward(waveforms, lengths)


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_sounds_are_padded_and_run_in_the_precision_without_gradient(precision: str, dtype: torch.dtype) -> None:
    upstream = Casting()
    sounds = [torch.full((400,), 0.5), torch.full((401,), 0.25)]
    states = run_sounds(upstream, sounds, device=CPU, names=["a", "b"], precision=precision)
    assert (upstream.product, upstream.records) == (dtype, False)
    assert upstream.given == ([[0.5] * 400 + [0.0], [0.25] * 401], [400, 401])
    assert states.lengths.tolist() == [upstream.num_frames(400), upstream.num_frames(401)]


class Listing(Envelope):
    """An upstream that returns one part of its hidden states as a list."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self.part = part

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        states = super().forward(waveforms, lengths)
        return dataclasses.replace(states, **{self.part: getattr(states, self.part).tolist()})


@pytest.mark.parametrize("part", ["layers", "lengths"])
def test_a_part_of_the_hidden_states_that_is_no_tensor_is_named(part: str) -> None:
    with pytest.raises(PluginError, match=rf"`HiddenStates\.{part}` must be a tensor, but is a list"):
        run_sounds(Listing(part), [torch.zeros(400)], device=CPU, names=["u"])


def test_a_sound_that_is_not_the_one_of_the_manifest_is_refused(tones: Corpus) -> None:
    other = dataclasses.replace(tones.utterances[0], samples_sha256="0" * 64)
    options = ExtractionOptions(batch_seconds=2.0, device=CPU)
    with pytest.raises(DataError, match="not the one that the manifest was made of") as caught:
        extract(Envelope(), [tones.utterances[1], other], [0], options)
    assert caught.value.utterance == other.id
