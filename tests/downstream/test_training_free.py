"""A task without training, in one file, goes from the command line to verified records and a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from repbench.benchmark.data.dataset import LabelledUtterances
from repbench.benchmark.features.table import FeatureTable
from repbench.benchmark.pipeline.training_free_run import FramesOfSplit
from repbench.corpora.contract import Corpus
from repbench.corpora.open import open_corpus
from repbench.downstream.contract import LabelledUtterance, splits_read
from repbench.errors import PluginError
from repbench.testing import tone_corpus
from repbench.testing.downstreams import DOWNSTREAM_CHECKS, DownstreamSubject
from tests.commands import repbench
from tests.downstream.toy_training_free import NearestSpeaker
from tests.fake_distributions import install

TOY = Path(__file__).with_name("toy_training_free.py")
# Not normalised: the mean of normalised frames is the same for every speaker, up to the rounding of the processor.
RUN = ("run", "--upstream", "mel_no_cmvn", "--downstream", "nearest-speaker", "--json")


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy") / "tones"
    tone_corpus(folder)
    return folder


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("site")
    install(
        folder / "site", "toy", "[repbench.downstreams]\nnearest-speaker = toy_free:NearestSpeaker\n",
        modules={"toy_free": TOY.read_text(encoding="utf-8")},
    )  # fmt: skip
    return {"PYTHONPATH": str(folder / "site"), "REPBENCH_CACHE": str(folder / "cache")}


@pytest.mark.slow
def test_a_task_that_reads_test_alone_scores_every_utterance(tones: Path, env: dict[str, str], tmp_path: Path) -> None:
    done = repbench(*RUN, "--corpus", tones, "--out", tmp_path, "--controls", env=env)
    assert done.code == 0, done.err

    given, shuffled = done.json["results"]
    everything = len(open_corpus(str(tones)).utterances)
    assert (given["head"], given["probe_sha256"], given["corpus"]["n_train"]) == ("none", None, 0)
    assert (given["n_listed"], given["n_scored"]) == (everything, everything)
    assert given["corpus"]["split_policy"] == "every utterance, as nothing is trained"
    assert given["metrics"]["hits"]["value"] > shuffled["metrics"]["hits"]["value"]
    assert set(given["downstream"]["files"]) == {"speakers.txt"}

    verified = repbench("verify", tmp_path, env=env)
    assert (verified.code, verified.out.count(": holds (1 metrics")) == (0, 2), verified.err
    reported = repbench("report", tmp_path, "--out", tmp_path / "report", env=env)
    assert reported.code == 0, reported.err
    (path,) = tmp_path.rglob(f"{given['id']}/speakers.txt")
    path.write_text("other", encoding="utf-8")
    assert repbench("verify", path.parent, env=env).code == 4


@pytest.mark.slow
def test_each_layer_is_measured_from_one_extraction(tones: Path, env: dict[str, str], tmp_path: Path) -> None:
    """And so is each seed; a task that reads train has a share of it as the label fraction."""
    options = ("--layer", "all", "--seed", "0", "--seed", "1", "--set", "task.among=train", "--label-fraction", "0.5")
    run = ("run", "--upstream", "apc", "--checkpoint", "random:tiny", "--downstream", "nearest-speaker", "--json")
    done = repbench(*run, "--corpus", tones, "--out", tmp_path, *options, env=env)
    assert done.code == 0, done.err

    records = done.json["results"]
    layers = len(records[0]["upstream"]["layer_names"])
    assert len(records) == 2 * layers >= 4
    assert len({each["layer"] for each in records}) == layers
    first = records[0]
    assert first["n_listed"] == first["corpus"]["n_test"] < len(open_corpus(str(tones)).utterances)
    assert 0 < first["label_seconds"]["train"] < 0.7 * seconds_of_train(tones, first)


def seconds_of_train(tones: Path, record: dict[str, Any]) -> float:
    utterances = open_corpus(str(tones)).utterances
    return float(sum(each.seconds for each in utterances) * record["corpus"]["n_train"] / len(utterances))


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--finetune",), "--finetune"),
        (("--tune",), "--tune"),
        (("--head", "mlp1"), "--head"),
        (("--layer", "weighted"), "--layer"),
        (("--label-fraction", "0.5"), "--label-fraction"),
        (("--set", "split.folds=3"), "split.folds"),
    ],
)
def test_options_of_training_are_refused(
    tones: Path, env: dict[str, str], tmp_path: Path, options: tuple[str, ...], what: str
) -> None:
    done = repbench(*RUN, "--corpus", tones, "--out", tmp_path, *options, env=env)
    assert done.code == 2
    assert what in done.err


def test_a_record_without_a_probe_scores_no_other_corpus(tones: Path, env: dict[str, str], tmp_path: Path) -> None:
    done = repbench(*RUN, "--corpus", tones, "--out", tmp_path, env=env)
    folder = Path(done.json["records"][0]).parent
    again = repbench(*RUN, "--corpus", tones, "--out", tmp_path, "--probe", folder, env=env)
    assert (again.code, "trains nothing, so the run has no probe" in again.err) == (2, True), again.err


def test_predictions_of_other_utterances_break_the_contract(tones: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "short.py"
    short = TOY.read_text(encoding="utf-8").replace("predictions=predictions,", "predictions=predictions[1:],")
    plugin.write_text(f"{short}\n\ndownstreams = {{'nearest-speaker': NearestSpeaker}}\n", encoding="utf-8")
    done = repbench(
        "run", "--upstream", "mfcc", "--downstream", "nearest-speaker", "--corpus", tones, "--out", tmp_path,
        "--plugin", plugin, env={"REPBENCH_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    assert "one prediction for each test utterance" in done.err
    assert done.code != 0


def test_frames_are_those_of_the_setting(tones: Path) -> None:
    corpus = open_corpus(str(tones))
    examples = examples_of(corpus)[:2]
    counts = (3, 5, 4)
    frames = torch.randn(2, 12, 6, generator=torch.Generator().manual_seed(0))
    table = FeatureTable(frames, counts, ("other", examples[0].id, examples[1].id))
    mean = FramesOfSplit(examples, table)
    torch.testing.assert_close(mean.of(1), frames[:, 8:12].mean(dim=0))
    last = FramesOfSplit(examples[::-1], table.of_layers(slice(1, 2)))
    assert [len(each) for each in last.each()] == [4, 5]
    torch.testing.assert_close(list(last.each())[1], frames[1, 3:8])


def examples_of(corpus: Corpus) -> LabelledUtterances:
    return tuple(LabelledUtterance(each, each.speaker) for each in corpus.utterances)


def test_the_task_names_the_splits_that_it_reads() -> None:
    task = NearestSpeaker(among="train")
    assert splits_read(task) == ("train",)
    task.reads = ("test",)  # type: ignore[assignment]
    with pytest.raises(PluginError, match="`reads` must name the splits train and dev"):
        splits_read(task)


def test_the_task_passes_the_conformance_suite(tones: Path) -> None:
    results = {
        each.id: each
        for each in DOWNSTREAM_CHECKS.results(DownstreamSubject(NearestSpeaker(), open_corpus(str(tones))))
    }
    assert {id_ for id_, each in results.items() if each.status != "passed"} == {"collapse"}, results
