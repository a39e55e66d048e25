"""Tasks on one vector an utterance: those that take it, with the numbers of a mean of frames, and those that refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from repbench import load_upstream
from repbench.audio.sound import read_sound
from repbench.benchmark.comparison.request import CompareRequest
from repbench.benchmark.comparison.run import compare
from repbench.benchmark.protocol import ProbeSettings, Protocol
from repbench.benchmark.records.verify import verify_record
from repbench.benchmark.run import RunRequest, run
from repbench.corpora.open import open_corpus
from repbench.errors import UsageError
from repbench.testing import tone_corpus
from tests.commands import repbench
from tests.upstream.one_vector import models_in

QUICK = ProbeSettings(steps=40, batch_utterances=8, hidden_units=8, selection_points=2)


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vectors") / "tones"
    tone_corpus(folder, num_speakers=8, per_session=5)
    return folder


@pytest.fixture(scope="module")
def patched(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield patch


@pytest.fixture(scope="module")
def models(patched: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> str:
    return models_in(tmp_path_factory.mktemp("models"), patched, "vectors_of_runs")


def records(tones: Path, out: Path, upstream: str, downstream: str, **options: Any) -> Any:
    protocol = options.pop("protocol", Protocol(probe=QUICK))
    request = RunRequest(
        upstream=f"py:{upstream}", downstream=downstream, corpus=str(tones), out=out, protocol=protocol, **options
    )
    return run(request)


def test_verification_scores_a_vector_as_the_mean_of_the_frames(tones: Path, models: str, tmp_path: Path) -> None:
    lines = []
    for name in ("Blocks", "Voice"):
        (written,) = records(tones, tmp_path / name, f"{models}:{name}", "verification", layer="0")
        lines.append(written.record.primary)
    assert lines[0].counts == lines[1].counts
    assert lines[0].value == pytest.approx(lines[1].value, abs=1e-12)
    assert lines[0].value < 0.3  # the hum of a speaker is in the spectrum


def vectors_in_files(tones: Path, models: str, folder: Path) -> Path:
    """The vectors (L, D) of `Voice`, as another program writes them."""
    model, corpus = load_upstream(f"py:{models}:Voice"), open_corpus(str(tones))
    folder.mkdir()
    (folder / "features.yaml").write_text("kind: utterance\nlayer_names: [log, root]\n")
    for each in corpus.utterances:
        assert each.audio is not None
        samples, _ = read_sound(each.audio)
        with torch.no_grad():
            states = model(torch.from_numpy(samples)[None], torch.tensor([len(samples)]))
        path = folder / f"{each.id}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, states.layers[:, 0, 0].numpy())  # (L, 1, 1, D) -> (L, D)
    return folder


@pytest.mark.parametrize("head", ["linear", "mlp1", "gru", "attentive_mean", "conv", "blstm", "knn", "logistic"])
def test_heads_of_utterances_take_one_vector(tones: Path, models: str, tmp_path: Path, head: str) -> None:
    written = records(tones, tmp_path, f"{models}:Voice", "speaker", head=head, seeds=(0,))
    (record,) = [each.record for each in written]
    assert (record.head, record.upstream.layer_names) == (head, ("log", "root"))
    assert verify_record(written[0].path.parent).holds


def test_a_linear_head_learns_speakers_from_vectors(tones: Path, models: str, tmp_path: Path) -> None:
    protocol = Protocol(probe=QUICK.model_copy(update={"steps": 200}))
    (written,) = records(tones, tmp_path, f"{models}:Voice", "speaker", layer="0", protocol=protocol)
    assert written.record.primary.value > 2 * written.record.baselines.chance


@pytest.mark.parametrize(
    "task",
    ["phone", "phone-ctc", "asr", "slots", "abx", "word-discrimination", "query-by-example", "units", "diarization"],
)
def test_tasks_on_frames_refuse_a_vector_by_name(tones: Path, models: str, tmp_path: Path, task: str) -> None:
    what = f"`voice` gives one vector an utterance, and `{task}` needs frames over time"
    with pytest.raises(UsageError, match=what) as caught:
        records(tones, tmp_path, f"{models}:Voice", task)
    assert "Take a task of one answer an utterance, as speaker, keyword or verification" in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("task", "options", "what", "do"),
    [
        ("speaker", {"head": "statistics_mean"}, "the head `statistics_mean` reads deviations", "--head linear"),
        ("speaker", {"head": "xvector"}, "the head `xvector` reads deviations", "--head linear"),
        ("verification", {"task": {"score": "xvector"}}, "the head `am_xvector` reads", "task.score=cosine or plda"),
        ("verification", {"task": {"pooling": "mean+std"}}, r"`verification` with `task.pooling=mean\+std`", "Leave"),
        ("speaker", {"frames_per_utterance": 5}, "this setting is about several", "Leave it out"),
        ("speaker", {"spec_augment": True}, "this setting is about several", "Leave it out"),
    ],
)
def test_what_reads_several_frames_is_refused(
    tones: Path, models: str, tmp_path: Path, task: str, options: dict[str, Any], what: str, do: str
) -> None:
    probe = QUICK.model_copy(update={k: v for k, v in options.items() if k in ProbeSettings.model_fields})
    protocol = Protocol(probe=probe, task=options.get("task", {}))
    given = {"head": options["head"]} if "head" in options else {}
    with pytest.raises(UsageError, match=what) as caught:
        records(tones, tmp_path, f"{models}:Voice", task, protocol=protocol, **given)
    assert do in str(caught.value)


def test_models_are_compared_on_utterances_where_one_gives_vectors(tones: Path, models: str, tmp_path: Path) -> None:
    request = CompareRequest(
        first=f"py:{models}:Voice",
        second=f"py:{models}:Blocks",
        corpus=str(tones),
        measures=("cka",),
        against=("mel",),
        out=tmp_path / "found",
    )
    found = compare(request).similarity
    assert (found.sample.n_frames, found.sample.n_utterances) == (80, 80)
    (matrix,) = found.matrices
    values = [[each.value for each in row] for row in matrix.values]
    # The mean of the frames is the vector.
    assert [values[0][0], values[1][1]] == pytest.approx([1.0, 1.0], abs=1e-6)
    assert values[0][1] is not None
    assert values[0][1] < 0.99
    assert any("so utterances are compared" in warning for warning in found.warnings)
    with pytest.raises(UsageError, match=f"py:{models}:Voice` gives one vector an utterance, and a phone is of a span"):
        compare(CompareRequest(first=f"py:{models}:Voice", second="mel", corpus=str(tones), against=("phones",)))


def test_a_picture_over_time_is_refused(tones: Path, models: str, tmp_path: Path, patched: pytest.MonkeyPatch) -> None:
    from repbench.benchmark.plots.plotting import PlotRequest, plot

    sound = next((tones / "sounds").rglob("*.wav"))
    with pytest.raises(UsageError, match="no frames to draw over time"):
        plot(PlotRequest(kind="hidden", upstream=f"py:{models}:Voice", files=(sound,), out=tmp_path))


def test_vectors_in_files_score_as_the_model_that_gave_them(tones: Path, models: str, tmp_path: Path) -> None:
    folder = vectors_in_files(tones, models, tmp_path / "vectors")
    scores: dict[str, list[Any]] = {}
    for upstream in (f"py:{models}:Voice", f"features:{folder}"):
        for task, head in (("verification", None), ("speaker", "linear"), ("speaker", "knn")):
            written = run(
                RunRequest(
                    upstream=upstream, downstream=task, corpus=str(tones), layer="all", head=head,
                    out=tmp_path / "runs", protocol=Protocol(probe=QUICK),
                )
            )  # fmt: skip
            assert [each.record.upstream.layer_names for each in written] == [("log", "root")] * 2
            assert all(verify_record(each.path.parent).holds for each in written)
            scores.setdefault(upstream, []).append([each.record.primary.value for each in written])
    computed, read = scores.values()
    assert computed == read


def test_vectors_in_files_are_refused_by_tasks_on_frames(tones: Path, models: str, tmp_path: Path) -> None:
    folder = vectors_in_files(tones, models, tmp_path / "vectors")
    request = RunRequest(upstream=f"features:{folder}", downstream="phone", corpus=str(tones), out=tmp_path / "runs")
    with pytest.raises(UsageError, match="`features:vectors` gives one vector an utterance, and `phone` needs frames"):
        run(request)


def test_the_command_line_says_what_would_do(tones: Path, tmp_path: Path, models: str) -> None:
    import sys

    folder = next(Path(each) for each in sys.path if (Path(each) / f"{models}.py").is_file())
    run = ("run", "--upstream", f"py:{models}:Voice", "--corpus", tones, "--out", tmp_path)
    done = repbench(*run, "--downstream", "phone", env={"PYTHONPATH": str(folder)})
    assert done.code == 2
    assert "needs frames over time" in done.err
