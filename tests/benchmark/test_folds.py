"""Folds: each utterance is test once, nothing is on two sides, and each probe is that of a run of its own."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from repbench.benchmark.data.dataset import LabelledFold, LabelledSplits
from repbench.benchmark.data.folds import Folds, folds_of
from repbench.benchmark.data.labelled_folds import label_corpus
from repbench.benchmark.features.extraction import ExtractionOptions, extract
from repbench.benchmark.features.parts import ExtractionPart
from repbench.benchmark.features.table import Features, FeatureTable
from repbench.benchmark.features.windows import FrameSource, Room, WindowedFeatures
from repbench.benchmark.pipeline.existing_records import identity_of
from repbench.benchmark.pipeline.extract_part import PartRequest, extract_part
from repbench.benchmark.probing.prediction import Predictor
from repbench.benchmark.probing.probe import ProbeShape, load_probe, statistics_of, statistics_of_parts
from repbench.benchmark.probing.training import ProbeJob, ProbeTraining, TrainedProbe, train_probes
from repbench.benchmark.protocol import ProbeSettings, Protocol, SplitSettings, load_protocol
from repbench.benchmark.records.record import read_predictions, read_record
from repbench.benchmark.records.verify import verify_record
from repbench.benchmark.report import ReportRequest, assemble, write_report
from repbench.benchmark.report.render.commands import command_of
from repbench.benchmark.run import RunRequest, WrittenRecord, run
from repbench.corpora.contract import Corpus, Utterance
from repbench.corpora.open import open_corpus
from repbench.downstream.contract import Downstream, SplitPolicy
from repbench.downstream.phone import Phone
from repbench.downstream.phone_ctc import PhoneCTC
from repbench.downstream.sentiment import Sentiment
from repbench.downstream.speaker import Speaker
from repbench.errors import DataError, Unlabelled, UsageError
from repbench.progress import Silence
from repbench.testing import Envelope, tone_corpus
from repbench.testing.fold_simulation import FoldWorld, fold_trial
from tests.commands import repbench

DISJOINT: SplitPolicy = "speaker-disjoint"
SETTINGS = ProbeSettings(steps=30, batch_frames=128, batch_utterances=4, hidden_units=8, selection_points=3)


def utterance(number: int, speaker: str | None, group: str | None = None, **attributes: str | int) -> Utterance:
    return Utterance(
        id=f"u{number:03d}", audio=Path("/nowhere.wav"), sample_rate_hz=16000, num_samples=16000, speaker=speaker,
        group=group, attributes=attributes, samples_sha256=f"sound {number}",
    )  # fmt: skip


def corpus(utterances: list[Utterance]) -> Corpus:
    return Corpus(
        name="paper", licence="CC0", utterances=tuple(utterances), label_sets={}, resample="allowed", fingerprint="f"
    )


def folds(utterances: list[Utterance], policy: SplitPolicy = DISJOINT, **settings: object) -> Folds:
    return folds_of(corpus(utterances), policy, SplitSettings.model_validate({"folds": 3, **settings}))


def random_corpus(seed: int) -> list[Utterance]:
    """Speakers with one to nine utterances each in one to three sessions, and an attribute with six values."""
    draw = random.Random(seed)
    speakers = [f"s{number}" for number in range(draw.randint(6, 14)) for _ in range(draw.randint(1, 9))]
    return [
        utterance(number, speaker, f"{speaker}-{draw.randrange(3)}", room=f"r{number % 6}")
        for number, speaker in enumerate(speakers)
    ]


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("by", ["speaker", "group", "session", "room"])
def test_each_utterance_is_test_once_and_no_unit_is_on_two_sides(seed: int, by: str) -> None:
    utterances = random_corpus(seed)
    count = random.Random(-seed).randint(2, 6)
    several = folds(utterances, folds=count, folds_by=by, seed=seed)
    # A train that kept dev would lose it again to the rule of equal sounds, with this warning.
    assert not any("are not used" in warning for warning in several.warnings)
    tested = Counter(each.id for fold in several.folds for each in fold.division.test)
    assert tested == dict.fromkeys((each.id for each in utterances), 1)
    assert [fold.name for fold in several.folds] == [str(number + 1) for number in range(count)]
    for fold in several.folds:
        parts = [fold.division.train, fold.division.dev, fold.division.test]
        assert sorted(each.id for part in parts for each in part) == sorted(each.id for each in utterances)
        units = [{_unit(each, by) for each in part} for part in parts]
        assert not units[2] & (units[0] | units[1])
        if "dev cut from train by utterance" not in several.policy and "or utterance" not in several.policy:
            assert not units[0] & units[1]
    sizes = [len({_unit(each, by) for each in fold.division.test}) for fold in several.folds]
    assert max(sizes) - min(sizes) <= 1


def _unit(each: Utterance, by: str) -> object:
    return {"speaker": each.speaker, "group": each.group, "session": each.group, "room": each.attributes["room"]}[by]


def test_folds_do_not_depend_on_the_order_of_the_corpus() -> None:
    utterances = random_corpus(1)
    assert folds(utterances) == folds(utterances[::-1])
    assert folds(utterances) != folds(utterances, seed=1)


def ids(part: list[Utterance]) -> str:
    return " ".join(each.id.removeprefix("u") for each in part)


FOR_EVER = [("002 003", "004 005 008 009"), ("008 009", "002 003 006 007"), ("002 003", "000 001")]
"""Dev and test of each fold: a score of today is one of the same utterances in ten years."""


def test_the_same_corpus_has_the_same_folds_for_ever() -> None:
    several = folds([utterance(number, f"s{number // 2}") for number in range(10)])
    assert [(ids(fold.division.dev), ids(fold.division.test)) for fold in several.folds] == FOR_EVER
    assert several.policy == "3 folds by speaker (seed 0), dev cut from train by speaker"
    assert several.warnings == ()


def test_official_folds_are_those_of_the_attribute_in_the_order_of_their_numbers() -> None:
    utterances = [utterance(number, f"s{number}", fold=number % 11) for number in range(33)]
    several = folds([*utterances, utterance(33, "s33")], folds="official")
    assert [fold.name for fold in several.folds] == [str(number) for number in range(11)]
    assert ids(several.folds[10].division.test) == "010 021 032"
    assert several.policy == "11 official folds, dev cut from train by speaker"
    assert several.warnings == ("1 utterances belong to no official fold and are not used",)
    assert not any(each.id == "u033" for fold in several.folds for each in fold.division.train)


def test_dev_of_official_folds_can_be_another_fold() -> None:
    utterances = [utterance(number, f"s{number}", fold=f"f{number % 5}") for number in range(25)]
    several = folds(utterances, folds="official", folds_by="fold")
    for fold in several.folds:
        (dev,) = {each.attributes["fold"] for each in fold.division.dev}
        assert dev not in {each.attributes["fold"] for each in (*fold.division.train, *fold.division.test)}


def test_official_folds_that_share_speakers_are_used_with_a_warning() -> None:
    several = folds([utterance(number, f"s{number % 4}", fold=number // 6) for number in range(12)], folds="official")
    assert several.warnings == ("in every fold: 4 of 4 test speakers are also in train or dev",)


def test_a_session_is_its_attribute_before_the_group() -> None:
    with_both = [utterance(number, f"s{number}", f"g{number}", session=number % 3) for number in range(12)]
    several = folds(with_both, folds_by="session")
    for fold in several.folds:
        assert len({each.attributes["session"] for each in fold.division.test}) == 1


@pytest.mark.parametrize(
    ("speaker", "group", "unit", "warning"),
    [
        ("a", "g{}", "group", "folds are by group, because the corpus has one speaker"),
        (None, "g{}", "group", "folds are by group, because the corpus has no speaker labels"),
        (None, None, "utterance", "folds are by utterance, because the corpus has no speaker labels and has no groups"),
    ],
)
def test_without_several_speakers_folds_are_by_group_or_utterance(
    speaker: str | None, group: str | None, unit: str, warning: str
) -> None:
    several = folds([utterance(n, speaker, group and group.format(n // 3)) for n in range(12)])
    assert several.policy == f"3 folds by {unit} (seed 0), dev cut from train by {unit}"
    assert several.warnings[0] == f"{warning}: the test speakers may also be in train"


def test_dev_is_cut_by_utterance_where_train_has_one_speaker_with_a_warning() -> None:
    several = folds([utterance(number, f"s{number % 2}") for number in range(12)], folds=2)
    assert several.policy == "2 folds by speaker (seed 0), dev cut from train by utterance"
    assert several.warnings == ("dev shares a speaker with train, because a fold has no second one to cut off",)
    for fold in several.folds:
        assert len(fold.division.dev) == 1


def test_every_speaker_of_a_task_within_speakers_is_in_each_train() -> None:
    several = folds(random_sessions := [
        utterance(number, f"s{number // 9}", f"s{number // 9}-{number % 3}") for number in range(45)
    ], "within-speaker", folds_by="group")  # fmt: skip
    assert several.policy == "3 folds by group (seed 0), dev cut from train by utterance"
    tested = Counter(each.id for fold in several.folds for each in fold.division.test)
    assert tested == dict.fromkeys((each.id for each in random_sessions), 1)
    for fold in several.folds:
        assert {each.speaker for each in fold.division.train} == {f"s{number}" for number in range(5)}
        assert not {each.group for each in fold.division.test} & {
            each.group for part in (fold.division.train, fold.division.dev) for each in part
        }


def test_a_sound_of_two_ids_does_not_train_the_fold_that_tests_it() -> None:
    utterances = [utterance(number, f"s{number}") for number in range(6)]
    utterances[5] = replace(utterances[5], samples_sha256=utterances[0].samples_sha256)
    several = folds(utterances)
    for fold in several.folds:
        tested = {each.samples_sha256 for each in fold.division.test}
        assert not tested & {each.samples_sha256 for each in (*fold.division.train, *fold.division.dev)}
    assert any("because their sound is also in dev or test" in warning for warning in several.warnings)


@pytest.mark.parametrize(
    ("utterances", "policy", "settings", "kind", "message"),
    [
        (6, DISJOINT, {"folds": 7}, DataError, r"has 6 speakers, too few for 7 folds.*Give at most 6"),
        (6, DISJOINT, {"folds": "official"}, DataError, "its attribute `fold` has 0 values"),
        (6, DISJOINT, {"folds_by": "romo"}, DataError, r"6 of 6 utterances of paper have no `romo`.*mean `room`"),
        (6, DISJOINT, {"folds_by": "group"}, DataError, r"have no `group`.*Give every utterance one"),
        (6, "within-speaker", {}, UsageError, "its folds cannot be by speaker"),
        (6, "within-speaker", {"folds_by": "room"}, DataError, r"In fold 1 of paper, 2 speakers are in test and not"),
        (2, DISJOINT, {"folds": 2}, DataError, "for a dev split in fold 1"),
    ],
)
def test_folds_that_cannot_be_made_are_refused_with_what_would_do(
    utterances: int, policy: SplitPolicy, settings: dict[str, object], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        folds([utterance(number, f"s{number}", room=number) for number in range(utterances)], policy, **settings)


def test_an_utterance_without_speaker_among_others_is_refused() -> None:
    with pytest.raises(DataError, match="1 of 7 utterances of paper have no speaker"):
        folds([*[utterance(number, f"s{number}") for number in range(6)], utterance(6, None)])


# labels


class Feelings(Sentiment):
    """A class for each value of the attribute."""

    def labels(self, utterance: Utterance) -> str:
        if "sentiment" not in utterance.attributes:
            raise Unlabelled("no attribute sentiment", utterance=utterance.id)
        return str(utterance.attributes["sentiment"])

    def classes(self, label_sets: object, train: Iterable[Any]) -> tuple[str, ...]:
        return tuple(sorted(set(train)))


def feelings(words: str, **settings: object) -> LabelledSplits:
    """Folds of words such as `+ - ? +`: the sentiment of one speaker each, ? for none."""
    names = {"+": {"sentiment": "positive"}, "-": {"sentiment": "negative"}, "0": {"sentiment": "neutral"}, "?": {}}
    utterances = [utterance(number, f"s{number}", **names[word]) for number, word in enumerate(words.split())]
    return label_corpus(
        corpus(utterances), Feelings(), SplitSettings.model_validate({"folds": 3, **settings}),
        excludes=lambda each: "too short" if each.id == "u001" else None,
    )  # fmt: skip


def test_what_cannot_be_scored_is_listed_and_in_no_fold() -> None:
    splits = feelings("+ - ? + - + - + - + - -")
    assert splits.test.num_listed == 12
    assert splits.test.excluded.keys() == {"u001", "u002"}
    scored = {example.id for example in splits.test.open()}
    assert Counter(id_ for fold in splits.folds for id_ in fold.test) == dict.fromkeys(scored, 1)
    assert len(scored) == 10
    assert {example.id for example in splits.every()} == scored
    for fold in splits.folds:
        assert not {example.id for example in (*fold.train, *fold.dev)} & fold.test


def test_the_classes_are_those_of_all_trains_and_a_class_that_one_lacks_is_a_warning() -> None:
    splits = feelings("+ - + + - + - + - + - 0")
    assert splits.classes == ("negative", "neutral", "positive")
    (lacks,) = [fold for fold in splits.folds if "u011" in fold.test]
    assert lacks.classes == ("negative", "positive")
    warnings = [each for each in splits.warnings if "neutral" in each]
    assert len(warnings) == 1
    assert "train has no utterance of the class neutral" in warnings[0]
    assert lacks.name in warnings[0]


def test_a_fold_whose_train_has_one_class_is_refused() -> None:
    with pytest.raises(DataError, match=r"The train split of fold \d of paper holds only the class positive"):
        feelings("- + + + + + + + + + + +")


# probes


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folds") / "tones"
    tone_corpus(folder, num_speakers=6, per_session=2)
    return folder


def table_of(utterances: list[Utterance]) -> FeatureTable:
    return extract(Envelope(), utterances, [0, 1], ExtractionOptions(batch_seconds=30.0, device=torch.device("cpu")))


def of_trains(table: Features, splits: LabelledSplits) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return statistics_of_parts(table, [[example.id for example in fold.train] for fold in splits.folds])


class InFolds:
    """A task, the features of its whole corpus, and a way to train the probes of its folds on them."""

    def __init__(self, tones: Path, task: Downstream, head: str, mix: str, *, layer_norm: bool = False) -> None:
        by = "group" if task.info.split == "within-speaker" else "speaker"
        settings = SplitSettings(folds=2 if by == "group" else 3, folds_by=by)
        self.splits = label_corpus(open_corpus(str(tones)), task, settings, excludes=lambda each: None)
        self.table = table_of([example.utterance for example in self.splits.every()])
        self.predictor = Predictor(task, self.splits.classes, Envelope().info)
        self.shape = ProbeShape(
            head=head, pools=self.predictor.pools, num_layers=2, width=4, hidden_units=8,
            classes=self.splits.classes, mix=mix, layer_norm=layer_norm,
        )  # fmt: skip

    def jobs(self, table: Features) -> list[ProbeJob]:
        return [
            ProbeJob(train=fold.train, dev=fold.dev, seed=1, statistics=own)
            for fold, own in zip(self.splits.folds, of_trains(table, self.splits), strict=True)
        ]

    def trained(self, table: Features) -> list[list[TrainedProbe]]:
        return train_probes(self._shared(table, table, None), self.jobs(table))

    def alone(self, fold: LabelledFold) -> list[TrainedProbe]:
        """As a run of its own trains it, which knows the train and dev of this fold and nothing else."""
        train, dev = (table_of([example.utterance for example in part]) for part in (fold.train, fold.dev))
        shared = self._shared(train, dev, statistics_of(train))
        return train_probes(shared, [ProbeJob(train=fold.train, dev=fold.dev, seed=1)])[0]

    def _shared(self, train: Features, dev: Features, statistics: Any) -> ProbeTraining:
        return ProbeTraining(
            predictor=self.predictor, shape=self.shape, train=train, dev=dev, statistics=statistics,
            settings=SETTINGS, learning_rates=(1e-3, 1e-2),
        )  # fmt: skip


CASES: list[tuple[Downstream, str, str]] = [
    (Phone(), "linear", "mean"),
    (Phone(), "concat9", "weighted"),
    (Sentiment(), "linear", "weighted"),
    (Sentiment(), "mlp1", "mean"),
    (Speaker(), "gru", "mean"),
    (PhoneCTC(), "ctc", "mean"),
]


@pytest.mark.parametrize(("task", "head", "mix"), CASES, ids=[f"{case[0].info.name}-{case[1]}" for case in CASES])
def test_the_probe_of_each_fold_is_that_of_a_run_of_its_own(tones: Path, task: Downstream, head: str, mix: str) -> None:
    room = InFolds(tones, task, head, mix)
    for fold, together in zip(room.splits.folds, room.trained(room.table), strict=True):
        for one, other in zip(together, room.alone(fold), strict=True):
            assert one.selection.chosen == other.selection.chosen
            for name, tensor in other.probe.state_dict().items():
                torch.testing.assert_close(one.probe.state_dict()[name], tensor, rtol=0.0, atol=1e-5)


def test_frames_are_normalised_in_the_training_of_folds_too(tones: Path) -> None:
    """`linear` reads the means of frames: those of normalised frames do not follow from the means of the frames."""
    room = InFolds(tones, Sentiment(), "linear", "weighted", layer_norm=True)
    for fold, together in zip(room.splits.folds, room.trained(room.table), strict=True):
        for one, other in zip(together, room.alone(fold), strict=True):
            for name, tensor in other.probe.state_dict().items():
                torch.testing.assert_close(one.probe.state_dict()[name], tensor, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("head", ["linear", "mlp1"])
def test_nothing_of_the_test_fold_changes_a_probe_by_a_bit(tones: Path, head: str) -> None:
    room = InFolds(tones, Sentiment(), head, "mean")
    before = room.trained(room.table)
    for number, fold in enumerate(room.splits.folds):
        planted = room.table.frames.clone()
        for id_, (start, count) in room.table.starts().items():
            if id_ in fold.test:
                planted[:, start : start + count] = 1e30
        table = FeatureTable(planted, room.table.counts, room.table.ids)
        (after,) = train_probes(room._shared(table, table, None), [room.jobs(table)[number]])
        for one, other in zip(before[number], after, strict=True):
            assert one.selection == other.selection
            for name, tensor in other.probe.state_dict().items():
                assert torch.equal(one.probe.state_dict()[name], tensor)
        mean, std = of_trains(table, room.splits)[number]
        assert torch.equal(mean, of_trains(room.table, room.splits)[number][0])
        assert torch.equal(std, of_trains(room.table, room.splits)[number][1])


def test_statistics_of_parts_are_those_of_a_table_of_each_part(tones: Path) -> None:
    room = InFolds(tones, Phone(), "linear", "mean")
    for fold, (mean, std) in zip(room.splits.folds, of_trains(room.table, room.splits), strict=True):
        own_mean, own_std = statistics_of(table_of([example.utterance for example in fold.train]))
        torch.testing.assert_close(mean, own_mean, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(std, own_std, rtol=1e-6, atol=1e-7)


def test_statistics_take_one_pass_over_features_that_are_computed_again(tones: Path) -> None:
    room = InFolds(tones, Phone(), "linear", "mean")
    computed: list[int] = []
    starts = list(room.table.starts().values())

    class Source(FrameSource):
        def frames(self, numbers: Sequence[int]) -> torch.Tensor:
            computed.extend(numbers)
            spans = map(starts.__getitem__, numbers)
            return torch.cat([room.table.frames[:, first : first + count] for first, count in spans], dim=1)

    source = Source(room.table.counts, (2, 4), chunk_bytes=16_000)
    windows = WindowedFeatures(source, room.table.ids, Room(window_bytes=32_000, chunk_bytes=16_000))
    for one, other in zip(of_trains(windows, room.splits), of_trains(room.table, room.splits), strict=True):
        torch.testing.assert_close(one, other)
    assert sorted(computed) == list(range(len(starts)))


# records


QUICK = ProbeSettings(steps=40, batch_frames=256, hidden_units=16, selection_points=4)


def go(tones: Path, out: Path, *settings: str, folds: str = "3", **changes: Any) -> list[WrittenRecord]:
    protocol = load_protocol(assignments=(f"split.folds={folds}", *settings)).model_copy(update={"probe": QUICK})
    request = RunRequest(upstream="mel", downstream="sentiment", corpus=str(tones), out=out, protocol=protocol)
    return run(replace(request, **changes))


def test_one_record_has_every_fold_and_the_interval_of_all_speakers(tones: Path, tmp_path: Path) -> None:
    (written,) = go(tones, tmp_path)
    record = written.record
    assert record.folds is not None
    assert record.mean_over_folds is not None
    assert record.n_listed == record.n_scored == record.corpus.n_test == 24
    assert record.corpus.split_policy == "3 folds by speaker (seed 0), dev cut from train by speaker"
    assert record.primary.ci_unit == "speaker"
    assert [(fold.n_train, fold.n_dev, fold.n_scored) for fold in record.folds] == [(12, 4, 8)] * 3
    predictions = read_predictions(written.path.parent / "predictions.jsonl")
    assert Counter(each.fold for each in predictions) == {"1": 8, "2": 8, "3": 8}
    for fold in record.folds:
        own = [each for each in predictions if each.fold == fold.name]
        assert fold.metrics["accuracy"].value == sum(bool(each.is_right) for each in own) / len(own)
    right = sum(bool(each.is_right) for each in predictions)
    assert record.primary.value == right / 24
    values = [fold.metrics["accuracy"].value for fold in record.folds]
    assert record.mean_over_folds["accuracy"] == pytest.approx(sum(map(float, values)) / 3)  # type: ignore[arg-type]
    assert record.selection.dev_value == pytest.approx(sum(float(f.selection.dev_value or 0) for f in record.folds) / 3)
    assert read_record(written.path) == record
    assert verify_record(written.path, weights=True).holds


def test_each_fold_has_the_probe_that_scored_it(tones: Path, tmp_path: Path) -> None:
    (written,) = go(tones, tmp_path)
    files = sorted(path.name for path in written.path.parent.glob("*.safetensors"))
    assert files == ["probe.fold-1.safetensors", "probe.fold-2.safetensors", "probe.fold-3.safetensors"]
    tested = {name: {each.speaker for each in read_predictions(written.path.parent / "predictions.jsonl")
                     if each.fold == name} for name in "123"}  # fmt: skip
    for number, file in enumerate(files, start=1):
        _, facts = load_probe(written.path.parent / file)
        assert len(facts["heard"]) == 16
        assert not tested[str(number)] & set(facts["speakers"])


CHANGES: Mapping[str, tuple[str, str]] = {
    "a number of a fold": ("folds", "folds.2.metrics.accuracy.value"),
    "the mean over folds": ("mean", "mean_over_folds.accuracy"),
    "the utterances of a fold": ("n_train", "folds"),
    "the fold of an utterance": ("line", "folds.1.n_scored"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_verify_finds_what_was_changed_in_the_folds(tones: Path, tmp_path: Path, change: str) -> None:
    (written,) = go(tones, tmp_path)
    fields = json.loads(written.path.read_text(encoding="utf-8"))
    kind, expected = CHANGES[change]
    lines = written.path.with_name("predictions.jsonl")
    if kind == "folds":
        fields["folds"][1]["metrics"]["accuracy"]["value"] = 0.123
    elif kind == "mean":
        fields["mean_over_folds"]["accuracy"] = 0.123
    elif kind == "n_train":
        fields["folds"][0]["n_train"] += 1
    else:
        lines.write_text(lines.read_text(encoding="utf-8").replace('"fold":"1"', '"fold":"2"', 1), encoding="utf-8")
    written.path.write_text(json.dumps(fields), encoding="utf-8")
    verdict = verify_record(written.path)
    assert expected in [each.field for each in verdict.changes]


@pytest.mark.slow
def test_layers_fractions_seeds_rates_and_controls_have_a_record_each(tones: Path, tmp_path: Path) -> None:
    written = go(
        tones, tmp_path, upstream="py:repbench.testing.fakes:envelope", downstream="phone", layers=("0", "weighted"),
        seeds=(0, 1), label_fractions=(0.5, 1.0), tune=True, controls=True,
    )  # fmt: skip
    # two layers, two fractions, two seeds; labels given, shuffled, or of the untrained upstream; tuned or not
    assert len({each.path for each in written}) == 2 * 2 * 2 * 3 * 2
    for each in written:
        assert each.record.folds is not None
        assert verify_record(each.path).holds
        rates = {fold.selection.chosen["learning_rate"] for fold in each.record.folds}
        assert each.record.selection.chosen.get("learning_rate") in ({None} if len(rates) > 1 else rates)
    seconds = {each.record.label_fraction: each.record.label_seconds.train for each in written}
    assert seconds[0.5] == pytest.approx(seconds[1.0] / 2, rel=0.1)


@pytest.mark.slow
def test_settings_that_have_a_record_are_skipped_and_folds_are_part_of_their_identity(
    tones: Path, tmp_path: Path
) -> None:
    (first,) = go(tones, tmp_path)
    (again,) = go(tones, tmp_path, missing_only=True)
    assert again.path == first.path
    (other,) = go(tones, tmp_path, folds="2", missing_only=True)
    (by_group,) = go(tones, tmp_path, "split.folds_by=group", missing_only=True)
    (once,) = go(tones, tmp_path, folds="null", missing_only=True)
    assert len({identity_of(each.record) for each in (first, other, by_group, once)}) == 4
    assert once.record.folds is None


def test_a_record_without_folds_has_none_of_the_new_fields(tones: Path, tmp_path: Path) -> None:
    (written,) = go(tones, tmp_path, folds="null")
    fields = json.loads(written.path.read_text(encoding="utf-8"))
    assert not {"folds", "mean_over_folds"} & fields.keys()
    assert fields["protocol"]["split"] == {"official": "fitting", "seed": 0, "dev_share": 0.1, "test_share": 0.1}
    assert '"fold"' not in written.path.with_name("predictions.jsonl").read_text(encoding="utf-8")


@pytest.mark.parametrize("road", ["store", "recompute"])
@pytest.mark.parametrize("task", ["phone", "sentiment"])
def test_folds_have_the_same_numbers_on_each_road(
    tones: Path, tmp_path: Path, road: str, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPBENCH_CACHE", str(tmp_path / "cache"))
    (memory,) = go(tones, tmp_path / "memory", "resources.road=memory", downstream=task)
    (other,) = go(tones, tmp_path / road, f"resources.road={road}", downstream=task)
    assert memory.record.metrics == other.record.metrics
    assert memory.record.selection == other.record.selection
    assert memory.record.predictions_sha256 == other.record.predictions_sha256


def test_fine_tuning_in_folds_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Each fold would need its own fine-tuning"):
        go(tmp_path / "no corpus", tmp_path, finetune=True, upstream="py:repbench.testing.fakes:envelope")


def test_the_probes_of_folds_score_no_other_corpus(tones: Path, tmp_path: Path) -> None:
    (written,) = go(tones, tmp_path)
    request = RunRequest(upstream="mel", downstream="sentiment", corpus=str(tones), out=tmp_path)
    with pytest.raises(UsageError, match="has a probe for each of 3 folds"):
        run(replace(request, probe=written.path.parent))


def test_one_task_of_a_preset_can_have_folds() -> None:
    protocol = Protocol.model_validate({"tasks": {"sentiment": {"split": {"folds": "official", "folds_by": "fold"}}}})
    assert protocol.for_task("sentiment", "utterance-classification").split.folds == "official"
    assert protocol.for_task("phone", "frame-classification").split == SplitSettings()
    assert Protocol.model_validate(protocol.model_dump(mode="json")) == protocol


def test_a_part_stores_what_the_folds_of_a_run_read(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (single,) = go(tones, tmp_path / "single", "extraction.store_gib=0")
    monkeypatch.setenv("REPBENCH_CACHE", str(tmp_path / "cache"))
    request = PartRequest(
        upstream="mel", downstreams=("sentiment",), corpus=str(tones), part=ExtractionPart.of("1/1"),
        protocol=load_protocol(assignments=("split.folds=3",)),
    )  # fmt: skip
    assert extract_part(request, Silence()).num_computed == 24
    (stored,) = go(tones, tmp_path / "stored")
    assert stored.record.predictions_sha256 == single.record.predictions_sha256
    assert extract_part(request, Silence()).num_computed == 0


# reports and the command line


@pytest.mark.slow
def test_the_report_shows_each_fold_and_their_mean_as_published(tones: Path, tmp_path: Path) -> None:
    written = go(tones, tmp_path / "runs", seeds=(0, 1))
    go(tones, tmp_path / "runs", folds="null")
    tuned = [each.record for each in go(tones, tmp_path / "tuned", tune=True) if each.record.protocol["probe"]["tune"]]
    report = assemble([tmp_path / "runs"])
    (scores,) = report.folds
    assert scores.names == ("1", "2", "3")
    (one,) = scores.cells
    records = [each.record for each in written]
    means = [(record.mean_over_folds or {})["accuracy"] for record in records]
    assert one.mean == pytest.approx(sum(map(float, means)) / 2)  # type: ignore[arg-type]
    assert one.cell.value == pytest.approx(sum(float(record.primary.value or 0) for record in records) / 2)
    assert len(report.gathered.columns) == 2, "folds and a single division are not compared"
    assert not report.gathered.failed
    ((tried,),) = (each.tried for each in assemble([tmp_path / "tuned"]).sensitivities)
    rates = {fold.selection.chosen["learning_rate"] for record in tuned for fold in record.folds or ()}
    assert tried.chosen == rates
    written_report = write_report(ReportRequest(runs=(tmp_path / "runs",), out=tmp_path / "out"))
    for path in written_report.files:
        if path.suffix in {".md", ".tex", ".html", ".json"}:
            text = path.read_text(encoding="utf-8")
            assert ("mean_over_folds" if path.suffix == ".json" else "mean over folds") in text, path.name


def test_the_command_that_reproduces_a_record_names_its_folds(tones: Path, tmp_path: Path) -> None:
    (written,) = go(tones, tmp_path, "split.folds_by=group")
    assert "--set split.folds=3 --set split.folds_by=group" in command_of(written.record)


def test_the_command_line_takes_folds_and_prints_their_mean(tones: Path, tmp_path: Path) -> None:
    pair: list[str | Path] = [
        "run",
        "--upstream",
        "mel",
        "--downstream",
        "sentiment",
        "--corpus",
        tones,
        "--out",
        tmp_path,
    ]
    done = repbench(*pair, "--folds", "3", "--set", "probe.steps=20")
    assert done.code == 0, done.err
    assert "mean over" in done.out
    twice = repbench(*pair, "--folds", "3", "--set", "split.folds=2")
    assert twice.code == 2
    assert "`--folds` and `--set split.folds` set the same" in twice.err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("split.folds_by=session",), "`split.folds_by` has no effect without `split.folds`"),
        (("split.folds=3", "split.official=always"), "`split.official: always` has no effect with `split.folds`"),
        (("split.folds=1",), "greater than or equal to 2"),
    ],
)
def test_settings_of_folds_that_contradict_each_other_are_refused(settings: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_protocol(assignments=settings)


# the interval


@pytest.mark.slow
def test_the_interval_of_pooled_folds_covers_what_its_probes_score_on_other_speakers() -> None:
    """`benchmarks/fold_coverage.py` has more corpora of more worlds; of 80 the share has a standard error of 2.4 %."""
    trials = [fold_trial(FoldWorld(num_speakers=10, num_folds=5), seed) for seed in range(80)]
    held = sum(each.interval[0] <= each.of_probes <= each.interval[1] for each in trials)
    assert held / len(trials) >= 0.88


def test_a_simulated_corpus_follows_from_its_seed() -> None:
    world = FoldWorld(num_speakers=6, num_folds=3, utterances=8)
    assert fold_trial(world, 1) == fold_trial(world, 1) != fold_trial(world, 2)
