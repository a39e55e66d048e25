"""Sequences: what they cost, what a path says, what cannot be aligned, and phones learnt in order."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from repbench.benchmark.probing.batches import trainable
from repbench.benchmark.protocol import ProbeSettings, Protocol, SplitSettings
from repbench.benchmark.records.record import read_predictions
from repbench.benchmark.run import RunRequest, WrittenRecord, run
from repbench.corpora.contract import Corpus, Phone, Utterance
from repbench.corpora.open import open_corpus
from repbench.downstream.contract import LabelledUtterance, SequencePrediction
from repbench.downstream.metrics.edits import collapse, count_edits
from repbench.downstream.phone_ctc import PhoneCTC
from repbench.downstream.problems.sequences import SEQUENCES, best_path, frames_needed, sequence_loss
from repbench.errors import DataError, NonFiniteError
from repbench.testing import Envelope, tone_corpus

LONG_HOP = "py:tests.benchmark.test_sequences:long_hop"
QUICK = ProbeSettings(steps=10, selection_points=2, hidden_units=16)


def long_hop(*, checkpoint: str | None = None, seed: int = 0) -> Envelope:
    """An upstream with four frames a second: too few for some utterances of tones."""
    return Envelope(hop_samples=4000)


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tones of which no two that follow each other are equal: nothing that is heard parts those."""
    folder = tmp_path_factory.mktemp("sequences") / "tones"
    tone_corpus(folder)
    path = folder / "manifest.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for number, line in enumerate(lines):
        stretches = [list(each) for _, each in itertools.groupby(line["phones"], key=lambda phone: phone[2])]
        line["phones"] = [[each[0][0], each[-1][1], each[0][2]] for each in stretches]
        line["split"] = ("dev", "test", "train", "train")[number % 4]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def go(corpus: Path, out: Path, probe: ProbeSettings = QUICK, **changes: Any) -> list[WrittenRecord]:
    protocol = Protocol(probe=probe, split=SplitSettings(official="always"))
    options = {"upstream": "mel", "protocol": protocol, **changes}
    return run(RunRequest(downstream="phone-ctc", corpus=str(corpus), out=out, **options))


def test_the_loss_is_that_of_all_paths_that_say_the_sequence() -> None:
    scores = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    loss = sequence_loss(scores, torch.tensor([4]), torch.tensor([0, 0]), torch.tensor([2]))
    log_p = torch.log_softmax(scores, dim=-1)
    paths = [path for path in itertools.product(range(3), repeat=4) if collapse(path, {2}) == [0, 0]]
    likelihood = sum(math.exp(sum(float(log_p[t, c]) for t, c in enumerate(path))) for path in paths)
    assert float(loss) == pytest.approx(-math.log(likelihood) / 2, rel=1e-5)


def test_the_loss_of_a_batch_is_the_mean_of_its_utterances() -> None:
    scores = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    first = sequence_loss(scores[:4], torch.tensor([4]), torch.tensor([0]), torch.tensor([1]))
    second = sequence_loss(scores[4:], torch.tensor([5]), torch.tensor([1, 2]), torch.tensor([2]))
    both = sequence_loss(scores, torch.tensor([4, 5]), torch.tensor([0, 1, 2]), torch.tensor([1, 2]))
    torch.testing.assert_close(both, (first + second) / 2)


def test_a_sequence_longer_than_its_frames_costs_infinity_and_not_zero() -> None:
    loss = sequence_loss(torch.zeros(2, 3), torch.tensor([2]), torch.tensor([0, 0]), torch.tensor([2]))
    assert float(loss) == math.inf


def test_the_best_path_joins_repeats_and_drops_blanks() -> None:
    path = torch.tensor([2, 0, 0, 2, 0, 1, 1, 2])
    assert best_path(torch.eye(3)[path]) == (0, 0, 1)
    assert best_path(torch.eye(3)[torch.tensor([2, 2])]) == ()


@pytest.mark.parametrize(("labels", "needed"), [("ab", 2), ("aab", 4), ("aaa", 5), ("a", 1)])
def test_two_equal_labels_need_a_blank_between_them(labels: str, needed: int) -> None:
    assert frames_needed(tuple(labels)) == needed


def utterance(phones: str, seconds: float = 1.0) -> Utterance:
    times = tuple(Phone(number / 10, (number + 1) / 10, label) for number, label in enumerate(phones.split()))
    return Utterance(
        id="u", audio=Path("/u.wav"), sample_rate_hz=16_000, num_samples=int(16_000 * seconds), phones=times,
        samples_sha256="0",
    )  # fmt: skip


def test_the_phones_are_asked_in_order_without_silences() -> None:
    task = PhoneCTC()
    assert task.labels(utterance("sil AA AA sil IY sp")) == ("AA", "AA", "IY")
    assert task.labels(utterance("sil sil")) is None
    assert task.classes({"phones": ("sil", "IY", "AA")}, []) == ("AA", "IY")


def test_what_does_not_fit_is_counted_and_where_nothing_fits_it_is_refused() -> None:
    fits, long = (LabelledUtterance(utterance(phones), tuple(phones.split())) for phones in ("AA IY", "AA " * 7))
    kept, warnings = trainable((fits, long), long_hop(), SEQUENCES)
    assert kept == (fits,)
    assert warnings == ("1 of 2 training utterances have fewer frames than labels: not trained on",)
    assert trainable((fits,), long_hop(), SEQUENCES) == ((fits,), ())
    assert trainable((), long_hop(), SEQUENCES) == ((), ())
    none = LabelledUtterance(utterance("AA"), ())  # needs no frame, and the others need some
    assert trainable((none, fits, long), long_hop(), SEQUENCES)[0] == (none, fits)
    with pytest.raises(DataError, match="None of 1 training utterances has as many frames"):
        trainable((long,), long_hop(), SEQUENCES)


def test_mel_learns_the_tones_in_order_and_the_predictions_give_the_record_again(tones: Path, tmp_path: Path) -> None:
    learning = ProbeSettings(steps=200, learning_rate=1e-2)
    (written,) = go(tones, tmp_path, learning, head="project_ctc")
    record = written.record
    assert record.primary.value is not None
    assert record.primary.value < 0.2
    assert record.primary.unit == "edits per phone"
    assert (record.baselines.chance, record.baselines.majority) == (None, None)
    predictions = read_predictions(written.path.parent / "predictions.jsonl")
    assert len(predictions) == record.n_scored == 12
    for each in predictions:
        assert isinstance(each, SequencePrediction)
        assert each.edits == count_edits(each.reference, each.hypothesis)
    for order in (predictions, predictions[::-1]):
        measured = PhoneCTC().measure(order, ("AA", "IY", "UW"))["phone_error_rate"]
        assert (measured.value, measured.counts) == (record.primary.value, record.primary.counts)


def test_fractions_seeds_layers_rates_and_controls_give_a_record_each(tones: Path, tmp_path: Path) -> None:
    written = go(
        tones, tmp_path, upstream="py:repbench.testing.fakes:envelope", layer="weighted", label_fractions=(0.5, 1.0),
        seeds=(0, 1), tune=True,
    )  # fmt: skip
    settings = [
        (each.record.label_fraction, each.record.seed, each.record.protocol["probe"]["tune"]) for each in written
    ]
    assert settings == list(itertools.product((0.5, 1.0), (0, 1), (False, True)))
    assert len(written[1].record.selection.grid) == 10
    best = min(point["dev_value"] for point in written[1].record.selection.grid)
    assert written[1].record.selection.dev_value == best
    (given, shuffled) = go(tones, tmp_path, controls=True)
    assert shuffled.record.protocol["labels"] == "shuffled"
    assert given.record.label_seconds == shuffled.record.label_seconds


def test_a_run_says_how_many_utterances_do_not_fit_and_trains_on_the_others(tones: Path, tmp_path: Path) -> None:
    corpus: Corpus = open_corpus(str(tones))
    task, upstream = PhoneCTC(), long_hop()
    train = [each for each in corpus.utterances if each.split == "train"]
    lost = [each for each in train if upstream.num_frames(each.num_samples) < len(task.labels(each) or ())]
    assert 0 < len(lost) < len(train)
    (written,) = go(tones, tmp_path, upstream=LONG_HOP)
    warning = f"{len(lost)} of {len(train)} training utterances have fewer frames than labels: not trained on"
    assert warning in written.record.corpus.warnings
    assert written.record.n_scored == 12


def test_a_saved_probe_gives_the_same_sequences(tones: Path, tmp_path: Path) -> None:
    (source,) = go(tones, tmp_path)
    tone_corpus(tmp_path / "other", num_speakers=2, per_session=2, salt="other")
    asked = RunRequest(
        upstream="mel", downstream="phone-ctc", corpus=str(tmp_path / "other"), out=tmp_path, probe=source.path.parent
    )
    (one,), (other,) = run(asked), run(asked)
    assert one.record.metrics == other.record.metrics
    assert one.record.n_scored == 8


def test_an_exploding_sequence_probe_stops_with_its_step(tones: Path, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"loss is (nan|inf) at step \d+"):
        go(tones, tmp_path, QUICK.model_copy(update={"learning_rate": 1e38}))
