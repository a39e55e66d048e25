"""What a run could show, before it: `repbench plan`, and the line of `repbench run` about a small test set."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from repbench.benchmark.data.dataset import HeldOutTest, unit_counts
from repbench.benchmark.loading.tasks import build_task
from repbench.benchmark.pipeline.run_data import notes_on_size
from repbench.benchmark.planning.earlier import spread_below
from repbench.benchmark.planning.plan import Plan, PlanRequest, plan
from repbench.benchmark.protocol import load_protocol
from repbench.benchmark.run import RunRequest, run
from repbench.benchmark.scoring import spreads
from repbench.benchmark.scoring.spreads import KNOWN, KnownSpread, known_spread
from repbench.benchmark.scoring.statistics import Sizes, Spread, detectable
from repbench.corpora.contract import Turn, Utterance
from repbench.downstream.contract import Downstream, LabelledUtterance, problem_of
from repbench.errors import UsageError
from repbench.progress import Silence
from repbench.registry import registry
from repbench.testing import Envelope, tone_corpus
from tests.benchmark.report_records import write
from tests.commands import repbench

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "spreads.json"


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve speakers with eight utterances each, without official splits."""
    folder = tmp_path_factory.mktemp("corpora") / "tones"
    tone_corpus(folder, num_speakers=12)
    return folder


COARSE = Envelope(hop_samples=17_000)
"""A model that cannot take short utterances."""


def task_of(name: str) -> Downstream:
    return build_task(registry().find("downstream", name).entry, {})


def planned(tones: Path, downstream: str = "phone", *settings: str, **changes: object) -> Plan:
    request = PlanRequest(
        downstream=downstream,
        corpus=str(tones),
        protocol=load_protocol("default", None, list(settings)),
        **{"runs": tones / "no runs", **changes},  # type: ignore[arg-type]
    )
    return plan(request)


def test_a_plan_has_the_splits_of_the_run(tones: Path, tmp_path: Path) -> None:
    found = planned(tones)
    ((_, record),) = [
        (written.path, written.record)
        for written in run(
            RunRequest(
                upstream="mel",
                downstream="phone",
                corpus=str(tones),
                protocol=load_protocol("default", None, ["probe.steps=20"]),
                out=tmp_path,
            )
        )
    ]

    sizes = {each.name: each.utterances for each in found.splits}
    assert sizes == {"train": record.corpus.n_train, "dev": record.corpus.n_dev, "test": record.corpus.n_test}
    assert found.policy == record.corpus.split_policy
    assert found.num_classes == len(record.downstream.classes or ())


def test_other_divisions_are_those_that_the_options_make(tones: Path) -> None:
    found = planned(tones)
    known = {each.options: each for each in found.others}
    assert list(known) == [
        "--set split.test_share=0.2",
        "--set split.test_share=0.3",
        "--set split.test_share=0.4",
        "--folds 5",
    ]
    for options, changed in (("--set split.test_share=0.3", "split.test_share=0.3"), ("--folds 5", "split.folds=5")):
        again, each = planned(tones, "phone", changed).now, known[options]
        assert (again.test, again.units, again.smallest) == (each.test, each.units, each.smallest), options
    # The folds test every speaker; ten of them would test the same utterances.
    assert (known["--folds 5"].test, known["--folds 5"].units) == (96, 12)
    assert found.impossible["--folds official"].startswith("tones has no official folds")


def test_one_test_speaker_is_said_before_the_run(tmp_path: Path) -> None:
    tones = tmp_path / "tones"
    tone_corpus(tones, num_speakers=12, sessions=1, per_session=8)
    found = planned(tones)
    assert (found.now.unit, found.now.units, found.now.smallest) == (None, 1, None)
    assert found.warnings[-1].startswith("test has 8 utterances of one speaker or group: there is no interval")
    finished = repbench("plan", "--downstream", "phone", "--corpus", tones, "--runs", tones / "no runs")
    assert finished.code == 0, finished.err
    assert "is not known: test has one speaker or group." in finished.out
    # The divisions with more speakers are where to go from there.
    (folds,) = (each.smallest for each in found.others if each.options == "--folds 5")
    assert folds is not None
    assert f"`--folds 5` would show {folds.paired:.3f}." in finished.out


def test_the_differences_are_those_of_the_sizes_and_the_first_half_is_named(tones: Path) -> None:
    found = planned(tones, "phone", "split.test_share=0.2")
    spread = KNOWN["phone"].spread
    smallest, all_speakers = detectable(spread, Sizes((8, 8))), detectable(spread, Sizes((8,) * 12))
    assert smallest is not None
    assert all_speakers is not None
    assert (found.spread, found.now.smallest) == (spread, smallest)
    known = {each.options: each for each in found.others}
    assert known["--folds 5"].of_now == pytest.approx(all_speakers.paired / smallest.paired)
    # With fewer speakers than planned a division shows less, and is not named.
    for one in (found, planned(tones, "phone", "split.test_share=0.4")):
        shares = [(each.options, each.of_now or math.inf) for each in one.others]
        assert one.half == next((options for options, of_now in shares if of_now <= 0.5), None)
    assert shares[0][1] > 1
    assert found.units_for_half is not None
    enough, fewer = (
        detectable(spread, Sizes((8,) * count)) for count in (found.units_for_half, found.units_for_half - 1)
    )
    assert enough is not None
    assert fewer is not None
    assert enough.paired <= smallest.paired / 2 < fewer.paired


def test_seeds_count_as_in_a_report(tones: Path) -> None:
    spread = KNOWN["phone"].spread
    for num_seeds in (1, 3):
        found = planned(tones, "phone", "split.folds=4", num_seeds=num_seeds).now.smallest
        assert found == detectable(spread, Sizes((8,) * 12), num_seeds=num_seeds)
    assert planned(tones, "phone", num_seeds=3).num_seeds == 3


def test_within_speakers_folds_are_by_group(tones: Path) -> None:
    found = planned(tones, "speaker")
    options = "--folds 5 --set split.folds_by=group"
    (folds,) = (each for each in found.others if "--folds" in each.options)
    assert (folds.options, folds.test, folds.units) == (options, 96, 12)


def test_what_a_model_cannot_take_is_left_out(tones: Path) -> None:
    found = planned(tones, "phone", "split.folds=4", upstream="py:tests.benchmark.test_planning:COARSE")
    assert found.excluded > 0
    assert found.splits[-1].utterances == 96 - found.excluded


def test_a_plan_loads_no_torch_and_reads_no_sound(tones: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(tones, moved)
    for sound in (moved / "sounds").iterdir():
        sound.write_bytes(b"no sound")
    code = (
        "import sys; from repbench.cli import main\n"
        f"sys.argv = ['repbench', 'plan', '--downstream', 'phone', '--corpus', {str(moved)!r}, '--json',\n"
        f"            '--runs', {str(tmp_path)!r}]\n"
        "try: main()\n"
        "except SystemExit as end: sys.exit(end.code or ('torch' in sys.modules and 9))\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["splits"][-1]["utterances"] == 8


def test_the_printed_plan_names_the_division_that_shows_half(tones: Path) -> None:
    arguments = ("plan", "--downstream", "phone", "--corpus", tones, "--runs", tones / "no runs")
    finished = repbench(*arguments, "--set", "split.test_share=0.2", "--seeds", "3")
    assert finished.code == 0, finished.err
    found = planned(tones, "phone", "split.test_share=0.2", num_seeds=3)
    assert found.now.smallest is not None
    assert f"  {found.now.smallest.paired:.3f}  between two systems on this test set (paired)" in finished.out
    assert f"`{found.half}` would show half of it" in finished.out
    assert "note: test has 2 speakers, which are few" in finished.out
    assert json.loads(repbench(*arguments, "--json").out) == json.loads(json.dumps(planned(tones).as_dict()))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--set", "probe.steps=3"], "`probe.steps` has no effect here"),
        (["--folds", "3", "--set", "split.folds=4"], "`--folds` and `--set split.folds` set the same"),
        (["--set", "split.seeds=3"], "split.seeds"),
    ],
)
def test_settings_without_an_effect_are_refused(tones: Path, arguments: list[str], error: str) -> None:
    finished = repbench("plan", "--downstream", "phone", "--corpus", tones, *arguments)
    assert finished.code == 2
    assert error in finished.err
    with pytest.raises(UsageError, match="must be at least 1, but is 0"):
        planned(tones, num_seeds=0)


# Earlier records


def records(root: Path, skills: Mapping[str, float], seeds: int = 1, **changes: object) -> None:
    for upstream, skill in skills.items():
        for seed in range(seeds):
            write(root, upstream=upstream, skill=skill, seed=seed, task="sentiment", count=60, **changes)  # type: ignore[arg-type]


def test_earlier_records_of_the_task_tell_the_spread(tmp_path: Path) -> None:
    records(tmp_path, {"mel": 0.6, "good": 0.9}, seeds=3)
    write(tmp_path, upstream="mel", task="phone")
    found = spread_below(tmp_path, task_of("sentiment"), {}, None)

    assert found is not None
    assert (found.num_records, found.num_systems, found.corpora) == (6, 2, ("synthetic:noisy:tiny",))
    # Right or wrong: the deviation of an utterance is near that of a proportion, and no speaker is better.
    assert found.utterance == pytest.approx(math.sqrt(found.value * (1 - found.value)), abs=0.1)
    assert found.cluster < 0.15
    assert found.correlation is not None
    assert found.correlation < 0.4
    assert found.seed is not None
    assert 0.01 < found.seed < 0.12


def test_records_of_the_corpus_come_first_and_other_tasks_and_labels_do_not_count(tmp_path: Path) -> None:
    records(tmp_path, {"mel": 0.6, "good": 0.9})
    records(tmp_path, {"mel": 0.5}, corpus="other", fingerprint="b" * 64)
    records(tmp_path, {"fbank": 0.5}, protocol={"labels": "shuffled"})
    records(tmp_path, {"apc": 0.5}, fraction=0.1)
    condition = {"name": "gain:s3", "kind": "gain", "severity": 3, "parameters": {"db": -20}, "digest": "0" * 16}
    records(tmp_path, {"good": 0.7}, condition={**condition, "training": "clean"})
    own, every = (spread_below(tmp_path, task_of("sentiment"), {}, each) for each in ("b" * 64, "c" * 64))

    assert own is not None
    assert every is not None
    assert (own.num_records, own.corpora, own.correlation, own.seed) == (1, ("other",), None, None)
    assert every.num_records == 3
    assert spread_below(tmp_path, task_of("phone"), {}, None) is None
    assert spread_below(tmp_path, task_of("sentiment"), {"neutral": "keep"}, None) is None


def test_a_changed_record_tells_nothing(tmp_path: Path) -> None:
    records(tmp_path, {"mel": 0.6})
    (path,) = tmp_path.rglob("predictions.jsonl")
    path.write_text(path.read_text().replace("1.0", "3.0"))
    assert spread_below(tmp_path, task_of("sentiment"), {}, None) is None


def test_what_one_system_does_not_tell_is_taken_from_the_table(tones: Path, tmp_path: Path) -> None:
    records(tmp_path, {"mel": 0.6})
    found = planned(tones, "sentiment", "split.folds=4", runs=tmp_path)
    own = spread_below(tmp_path, task_of("sentiment"), {}, None)

    assert own is not None
    known = KNOWN["sentiment"].spread
    assert found.spread == Spread(own.cluster, own.utterance, known.correlation, known.seed, known.interaction)
    assert found.source.startswith(
        f"1 record of 1 system on synthetic:noisy:tiny below {tmp_path}; correlation and seeds "
    )


# What is known in general


def test_the_table_is_what_was_measured() -> None:
    measured = json.loads(RESULTS.read_text("utf-8"))["tasks"]
    assert KNOWN.keys() == measured.keys()
    for name, known in KNOWN.items():
        one = measured[name]
        task = task_of(name)
        assert (known.metric, known.unit) == (one["metric"], one["unit"])
        assert (known.metric, known.unit) == (task.info.primary_metric, task.info.metrics[known.metric].unit)
        assert known.corpus == " and ".join(one["corpora"])
        for ours, theirs in (
            (known.value, one["value"]),
            (known.spread.cluster, one["cluster"]),
            (known.spread.utterance, one["utterance"]),
            (known.spread.correlation, one["correlation"]),
            (known.spread.seed, one["seed"]),
            (known.spread.interaction, one["interaction"] or 0.0),
        ):
            assert ours == (None if theirs is None else pytest.approx(theirs, abs=5e-4)), name


def test_an_unknown_task_takes_the_widest_of_its_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow, wide = Spread(0.1, 0.5, 0.5), Spread(0.3, 0.2, 0.5)
    unit = task_of("accent").info.metrics["accuracy"].unit
    table = {
        name: KnownSpread("accuracy", each, 0.5, "somewhere", spread)
        for name, each, spread in (("a", unit, narrow), ("b", unit, wide), ("c", "edits", Spread(9.0, 9.0, 0.1)))
    }
    monkeypatch.setattr(spreads, "KNOWN", table)

    assert known_spread(task_of("accent")) == (wide, "of `b`, which has the same unit, measured on somewhere")
    assert known_spread(task_of("abx")) is None


# The line before training


class Lines(Silence):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)


def test_a_run_says_that_test_is_small_before_it_trains(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = KNOWN["phone"]
    for deviation, is_small in ((0.5, True), (0.001, False)):
        spread = Spread(deviation, deviation, 0.5)
        table = {"phone": KnownSpread(known.metric, known.unit, 0.5, "somewhere", spread)}
        monkeypatch.setattr(spreads, "KNOWN", table)
        lines = Lines()
        run(
            RunRequest(
                upstream="mel",
                downstream="phone",
                corpus=str(tones),
                protocol=load_protocol("default", None, ["probe.steps=5", "split.test_share=0.2"]),
                out=tmp_path,
            ),
            lines,
        )
        found = [line for line in lines.said if "to be told apart" in line]
        assert bool(found) == is_small
        if is_small:
            smallest = detectable(spread, Sizes((8, 8)))
            assert smallest is not None
            assert found == [
                "note: test has 16 utterances of 2 speakers: two systems must differ by about "
                f"{smallest.paired:.2f} in accuracy to be told apart (repbench plan)"
            ]


def test_a_run_says_that_one_speaker_gives_no_interval() -> None:
    examples = tuple(LabelledUtterance(each, ()) for each in _utterances(["s1", "s1"]))
    test = HeldOutTest(2, {}, examples)
    assert list(notes_on_size(task_of("phone"), test, 1)) == [
        "test has 2 utterances of one speaker or group, so there is no interval (repbench plan)"
    ]
    assert test.accesses == 0


def _utterances(speakers: list[str | None], **changes: object) -> list[Utterance]:
    return [
        Utterance(
            id=f"u{number}",
            audio=Path("/nowhere.wav"),
            sample_rate_hz=16000,
            num_samples=16000,
            speaker=speaker,
            samples_sha256=f"{number}",
            **changes,  # type: ignore[arg-type]
        )
        for number, speaker in enumerate(speakers)
    ]


def test_units_are_those_that_intervals_leave_out() -> None:
    phone, diarization = problem_of(task_of("phone")), problem_of(task_of("diarization"))
    assert unit_counts(_utterances(["a", "b", "a"]), phone) == ("speaker", (1, 2))
    assert unit_counts(_utterances(["a", None]), phone) == (None, (2,))
    groups = [*_utterances(["a", "a"], group="x"), *_utterances(["a"], group="y")]
    assert unit_counts(groups, phone) == ("group", (1, 2))
    turns = tuple(Turn(0.0, 1.0, name) for name in ("p", "q"))
    # p and q are only in mixtures with each other: to leave out one is to leave out both.
    alone = _utterances([None, None], turns=(Turn(0.0, 1.0, "r"),))[1:]
    mixtures = [*_utterances([None], turns=turns), *alone]
    assert unit_counts(mixtures, diarization) == ("speaker", (1, 1))
