"""Protocols: what ships loads and runs, and who has the last word."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from repbench.benchmark.pipeline.setup import prepare
from repbench.benchmark.protocol import ProbeSettings, Protocol, TaskSettings, _yielding, load_protocol
from repbench.benchmark.run import RunRequest, WrittenRecord, run
from repbench.configs.loader import load_yaml, preset_names
from repbench.corpora.open import open_corpus
from repbench.errors import DataError, UsageError
from repbench.progress import Silence
from repbench.testing import tone_corpus
from tests.commands import repbench

PRESETS = ("default", "hear", "mockingjay2020", "s3prl", "superb", "xares")
QUICK = ("probe.steps=3", "probe.batch_frames=64", "probe.batch_utterances=3", "probe.selection_points=1")
ENVELOPE = "py:repbench.testing.fakes:envelope"

HEADS = {
    ("default", "phone"): ("linear", "last"),
    ("default", "speaker"): ("mlp1", "last"),
    ("default", "phone-ctc"): ("project_ctc", "last"),
    ("mockingjay2020", "phone"): ("mlp2", "last"),
    ("mockingjay2020", "speaker"): ("gru", "last"),
    ("mockingjay2020", "phone-ctc"): ("project_ctc", "last"),
    ("s3prl", "phone"): ("linear", "weighted"),
    ("s3prl", "speaker"): ("linear", "weighted"),
    ("s3prl", "phone-ctc"): ("project_ctc", "weighted"),
    ("superb", "phone"): ("linear", "weighted"),
    ("superb", "speaker"): ("project_mean", "weighted"),
    ("superb", "phone-ctc"): ("project_ctc", "weighted"),
    ("hear", "speaker"): ("mlp1", "last"),
    ("xares", "speaker"): ("linear", "last"),
}


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("protocols") / "tones"
    tone_corpus(folder, num_speakers=5, per_session=2)
    return folder


def go(tones: Path, out: Path, downstream: str, protocol: Protocol, **changes: Any) -> WrittenRecord:
    options = {"upstream": ENVELOPE, "downstream": downstream, "protocol": protocol, **changes}
    (written,) = run(RunRequest(corpus=str(tones), out=out, **options))
    return written


def test_these_presets_ship() -> None:
    assert tuple(preset_names()) == PRESETS
    assert load_protocol("default") == Protocol()


@pytest.mark.parametrize(("preset", "task"), HEADS)
def test_each_preset_asks_each_task_with_its_head_and_layer(
    tones: Path, tmp_path: Path, preset: str, task: str
) -> None:
    record = go(tones, tmp_path, task, load_protocol(preset, assignments=QUICK)).record
    assert (record.head, record.layer) == HEADS[preset, task]
    assert record.protocol["probe"]["steps"] == 3
    assert not {"head", "layer", "tasks"} & record.protocol.keys()
    assert Protocol.model_validate(record.protocol).probe.mix == ("raw" if preset == "mockingjay2020" else "softmax")


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_each_preset_runs_from_the_command_line(tones: Path, tmp_path: Path, preset: str) -> None:
    done = repbench(
        "run", "--upstream", "mel_no_cmvn", "--downstream", "speaker", "--corpus", tones, "--preset", preset, "--out",
        tmp_path, "--json", *(word for setting in QUICK for word in ("--set", setting)),
    )  # fmt: skip
    assert done.code == 0, done.err
    (record,) = done.json["results"]
    assert (record["head"], record["layer"]) == HEADS[preset, "speaker"]


@pytest.mark.parametrize(
    ("preset", "task", "problem", "expected"),
    [
        ("mockingjay2020", "phone", "frame-classification", {"steps": 500_000, "learning_rate": 4e-3, "dropout": 0.2}),
        ("mockingjay2020", "speaker", "utterance-classification", {"clip_norm": 1.0, "standardise": False}),
        ("mockingjay2020", "speaker", "utterance-classification", {"batch_utterances": 64}),
        ("s3prl", "speaker", "utterance-classification", {"steps": 300_000, "learning_rate": 2e-4}),
        ("s3prl", "sentiment", "utterance-classification", {"steps": 20_000, "hidden_units": 256}),
        ("superb", "phone-ctc", "sequence", {"steps": 100_000, "learning_rate": 1e-2, "hidden_units": 256}),
        ("superb", "sentiment", "utterance-classification", {"steps": 30_000, "learning_rate": 1e-4}),
        ("superb", "keyword", "utterance-classification", {"steps": 200_000, "batch_utterances": 32}),
        ("superb", "verification", "embedded-pairs", {"steps": 200_000, "batch_utterances": 50, "clip_norm": 1000.0}),
        ("superb", "intent", "multi-attribute", {"steps": 200_000, "learning_rate": 1e-4, "hidden_units": 256}),
        ("superb", "emotion", "utterance-classification", {"steps": 30_000, "batch_utterances": 32}),
        ("superb", "asr", "text", {"steps": 200_000, "learning_rate": 1e-4, "hidden_units": 1024, "dropout": 0.2}),
        ("superb", "diarization", "frame-multilabel", {"steps": 30_000, "hidden_units": 256, "learning_rate": 1e-4}),
        ("superb", "slots", "text", {"steps": 200_000, "spec_augment": True, "spec_augment_feature_masks": 4}),
        ("hear", "keyword", "utterance-classification", {"hidden_units": 1024, "dropout": 0.1}),
        ("xares", "intent", "multi-attribute", {"learning_rate": 1e-3, "steps": 7_230}),
    ],
)
def test_a_preset_holds_the_published_numbers(preset: str, task: str, problem: str, expected: dict[str, Any]) -> None:
    probe = load_protocol(preset).for_task(task, problem).probe
    assert {name: getattr(probe, name) for name in expected} == expected


EPOCHS = {
    ("xares", "keyword"): (10, 51_088, 32),
    ("xares", "intent"): (10, 23_132, 32),
    ("xares", "emotion"): (10, 5_210, 32),
    ("xares", "gender"): (10, 28_539, 32),
    ("xares", "speaker"): (10, 138_361, 32),
    ("xares", "language"): (10, 16_000, 32),
    ("hear", "keyword"): (500, 84_843, 1024),
    ("hear", "emotion"): (500, 4_465, 1024),
    ("hear", "language"): (500, 583, 1024),
    ("hear", "speaker"): (500, 5_000, 1024),
}
"""Of a preset and a task: the epochs, the training utterances of the published corpus, and those of a batch."""


@pytest.mark.parametrize(("preset", "task"), EPOCHS)
def test_steps_are_the_epochs_of_the_published_corpus(preset: str, task: str) -> None:
    num_epochs, num_utterances, batch = EPOCHS[preset, task]
    probe = load_protocol(preset).for_task(task, "utterance-classification").probe
    assert probe.batch_utterances == batch
    assert probe.steps == num_epochs * math.ceil(num_utterances / batch)


def test_a_preset_gives_a_task_options_of_its_own(tmp_path: Path) -> None:
    superb = load_protocol("superb")
    assert superb.for_task("keyword", "utterance-classification").task == {"words": "twelve", "balanced": True}
    merged = superb.options_for("emotion")["classes"]
    assert {merged.get(name) for name in ("happiness", "excitement")} == {"happiness"}
    assert (len(set(merged.values()) - {None}), merged["*"]) == (4, None)
    assert superb.for_task("speaker", "utterance-classification").task == {}
    config = tmp_path / "c.yaml"
    config.write_text("task: {classes: {calm: calm, '*': null}}\n", encoding="utf-8")
    asked = load_protocol("superb", config, ["task.words=all"])
    assert asked.options_for("emotion") == {"classes": {"calm": "calm", "*": None}, "words": "all"}
    assert asked.options_for("keyword")["words"] == "all"
    assert asked.options_for("keyword")["balanced"] is True


@pytest.mark.parametrize(("preset", "task", "folds"), [("superb", "emotion", "official"), ("hear", "language", 5)])
def test_folds_of_a_preset_are_of_one_task_and_can_be_written_down(preset: str, task: str, folds: object) -> None:
    found = load_protocol(preset).for_task(task, "utterance-classification")
    assert found.split.folds == folds
    assert Protocol.model_validate(found.model_dump(mode="json")) == found
    assert load_protocol(preset).for_task("speaker", "utterance-classification").split.folds is None


def test_an_option_for_every_task_goes_before_that_of_one_as_a_whole(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("task: {classes: {calm: calm}}\n", encoding="utf-8")
    own = {"tasks": {"emotion": {"task": {"classes": {"anger": "anger"}, "words": "twelve", "balanced": True}}}}
    told = _yielding(own, load_yaml(config))
    assert told == {"tasks": {"emotion": {"task": {"words": "twelve", "balanced": True}}}}
    asked = Protocol.model_validate({"task": {"words": "all", "classes": {"calm": "calm"}}, **told})
    assert asked.options_for("emotion") == {"words": "twelve", "balanced": True, "classes": {"calm": "calm"}}
    assert asked.options_for("speaker") == asked.task


def test_options_of_a_task_reach_it_and_the_record(tones: Path, tmp_path: Path) -> None:
    protocol = load_protocol("default", None, [*QUICK, "tasks.sentiment.task.attribute=gone"])
    with pytest.raises(DataError, match="no attribute gone"):
        go(tones, tmp_path, "sentiment", protocol)
    chosen = load_protocol("default", None, [*QUICK, "tasks.sentiment.task.attribute=sentiment"])
    assert go(tones, tmp_path, "sentiment", chosen).record.protocol["task"] == {"attribute": "sentiment"}
    # another task, which has no such option, is not given it
    assert go(tones, tmp_path, "speaker", chosen).record.protocol["task"] == {}


def test_options_of_a_problem_are_refused(tones: Path, tmp_path: Path) -> None:
    protocol = load_protocol("default", None, [*QUICK, "tasks.utterance-classification.task.attribute=x"])
    with pytest.raises(UsageError, match=r"`utterance-classification` is a problem.*to the task by its name"):
        go(tones, tmp_path, "sentiment", protocol)


def test_what_is_said_last_of_all_tasks_goes_before_what_a_preset_says_of_one(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("probe: {steps: 7}\nlayer: first\n", encoding="utf-8")
    asked = load_protocol("superb", config, ["probe.learning_rate=0.5", "tasks.phone-ctc.probe.hidden_units=9"])
    found = asked.for_task("phone-ctc", "sequence")
    assert (found.probe.steps, found.probe.learning_rate, found.probe.hidden_units) == (7, 0.5, 9)
    assert (found.head, found.layer, found.tasks) == ("project_ctc", "first", {})
    assert asked.for_task("sentiment", "utterance-classification").probe.steps == 7
    assert load_protocol("superb", config, ["head=ctc"]).for_task("phone-ctc", "sequence").head == "ctc"


def test_a_task_goes_before_its_problem_and_only_in_what_is_written_down() -> None:
    asked = Protocol(
        probe=ProbeSettings(steps=5, clip_norm=2.0),
        tasks={
            "sequence": TaskSettings(head="ctc", probe=ProbeSettings(steps=6, learning_rate=0.1)),
            "phone-ctc": TaskSettings(layer="mean", probe=ProbeSettings(steps=1000)),
        },
    )
    for protocol in (asked, Protocol.model_validate(asked.model_dump(mode="json"))):
        found = protocol.for_task("phone-ctc", "sequence")
        assert (found.head, found.layer) == ("ctc", "mean")
        assert (found.probe.steps, found.probe.learning_rate, found.probe.clip_norm) == (1000, 0.1, 2.0)
        assert protocol.for_task("phone", "frame-classification").probe.steps == 5


def test_the_command_line_goes_before_the_preset(tones: Path, tmp_path: Path) -> None:
    record = go(tones, tmp_path, "phone", load_protocol("s3prl", assignments=QUICK), head="concat9", layer="1").record
    assert (record.head, record.layer) == ("concat9", "1")


def test_the_protocol_of_a_run_is_that_of_its_record(tones: Path, tmp_path: Path) -> None:
    request = RunRequest(
        upstream=ENVELOPE, downstream="phone-ctc", corpus=str(tones), out=tmp_path,
        protocol=load_protocol("superb", assignments=QUICK),
    )  # fmt: skip
    stage = prepare(request, Silence(), lambda: open_corpus(str(tones)))
    (written,) = run(request)
    assert (stage.request.head, stage.request.layer) == (written.record.head, written.record.layer)
    assert Protocol.model_validate(written.record.protocol) == stage.request.protocol


def test_a_task_that_is_not_there_and_a_key_that_is_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no downstream `fone`.*Did you mean `phone`"):
        go(tmp_path, tmp_path, "phone", load_protocol(assignments=["tasks.fone.head=mlp1"]))
    with pytest.raises(UsageError, match=r"did you mean `tasks.phone.probe.steps`"):
        load_protocol(assignments=["tasks.phone.probe.step=1"])
    with pytest.raises(UsageError, match="no head `gru` for sequence"):
        go(tmp_path, tmp_path, "phone-ctc", Protocol(), head="gru")


def test_a_projection_of_the_mean_of_normalised_frames_is_refused_too(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"`project_mean` reads only the mean over time.*its input would be constant"):
        go(tmp_path, tmp_path, "speaker", load_protocol("superb"), upstream="mel")
