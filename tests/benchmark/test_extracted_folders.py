"""Folders of `repbench extract` as `features:`, without a file that the user writes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from repbench import load_upstream
from repbench.benchmark.features.export import ExportOptions, extract_files
from repbench.benchmark.pipeline.setup import WrittenRecord
from repbench.benchmark.protocol import ProbeSettings, Protocol
from repbench.benchmark.records.record import read_record
from repbench.benchmark.records.verify import verify_record
from repbench.benchmark.report import ReportRequest, write_report
from repbench.benchmark.run import RunRequest, run
from repbench.corpora.contract import Corpus
from repbench.errors import DataError, UsageError
from repbench.testing import tone_corpus
from repbench.upstream.adapters.corpus_features import declared_model_of
from repbench.upstream.adapters.feature_folder import FolderFrames, build
from repbench.upstream.contract import Provenance, provenance_of
from repbench.upstream.training_data import UNKNOWN_DATA, TrainingData
from repbench.upstream.windowed import in_windows
from tests.commands import repbench
from tests.upstream.one_vector import models_in

CPU = torch.device("cpu")
ENVELOPE = "py:repbench.testing.fakes:envelope"


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return tone_corpus(tmp_path / "c", num_speakers=2)


def extracted(upstream: Any, corpus: Corpus, folder: Path, **options: Any) -> Path:
    files = [each.audio for each in corpus.utterances]
    extract_files(upstream, files, folder, ExportOptions(device=CPU, resample=False, **options))
    return folder


def bound(folder: Path, corpus: Corpus) -> FolderFrames:
    return build(str(folder)).bound_to(corpus)


def test_the_folder_says_which_upstream_it_is_of(corpus: Corpus, tmp_path: Path) -> None:
    mel = load_upstream("mel")
    reader = bound(extracted(mel, corpus, tmp_path / "f", name="mel"), corpus)
    declared = declared_model_of(reader)
    assert declared is not None
    assert (declared.name, declared.model) == ("mel", mel.fingerprint())
    assert (declared.hop_seconds, declared.first_center_seconds, declared.width) == (0.0125, 0.0, 160)
    info = reader.info
    assert (info.name, info.layer_names, info.utterance_normalised) == ("features:mel", ("mel",), True)
    assert (info.citation, info.licence) == (mel.info.citation, mel.info.licence)
    assert f"it declares them as `mel`, model {mel.fingerprint()}" in reader.note()
    assert provenance_of(reader).trained_on == ()


@pytest.mark.slow
def test_untrained_weights_and_windows_are_other_models(corpus: Corpus, tmp_path: Path) -> None:
    apc = load_upstream("apc", checkpoint="random")
    windowed = in_windows(apc, 2.0, 0.2)
    found = []
    for number, (upstream, checkpoint) in enumerate(((apc, "random"), (windowed, "random"), (windowed, None))):
        folder = extracted(upstream, corpus, tmp_path / str(number), name="apc", checkpoint=checkpoint)
        found.append(declared_model_of(bound(folder, corpus)))
    assert [each.name for each in found if each is not None] == ["apc (untrained)"] * 3
    models = [each.model for each in found if each is not None]
    assert models[0] == apc.fingerprint()
    assert re.fullmatch(rf"{apc.fingerprint()}, windows 32000\+\d+", models[1] or ""), models
    assert models[1] == models[2]


def test_a_declaration_that_is_there_stays_if_it_fits(corpus: Corpus, tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    mine = "# mine\nsample_rate_hz: 1000\nhop_samples: 20\nfirst_center_samples: 10\n"
    (folder / "features.yaml").write_text(mine)
    envelope = load_upstream(ENVELOPE)
    for overwrite in (False, True):
        extracted(envelope, corpus, folder, overwrite=overwrite)
        assert (folder / "features.yaml").read_text() == mine
    assert declared_model_of(bound(folder, corpus)) is None


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        (("hop_samples: 320", "hop_samples: 321"), "hop_samples"),
        (('["energy", "projected"]', '["energy", "other"]'), "layer_names"),
        (('model: "', 'model: "0'), "model"),
    ],
)
def test_a_folder_that_is_declared_as_another_model_is_refused(
    corpus: Corpus, tmp_path: Path, changed: tuple[str, str], key: str
) -> None:
    envelope, folder = load_upstream(ENVELOPE), tmp_path / "f"
    extracted(envelope, corpus, folder)
    file = folder / "features.yaml"
    whole = file.read_text()
    file.write_text(whole.replace(*changed))
    assert file.read_text() != whole
    with pytest.raises(UsageError, match=f"declared with another `{key}` than .*features.yaml"):
        extracted(envelope, corpus, folder)
    extracted(envelope, corpus, folder, overwrite=True)
    assert file.read_text() == whole


def test_files_of_two_models_in_one_folder_are_refused(corpus: Corpus, tmp_path: Path) -> None:
    folder = extracted(load_upstream("apc", checkpoint="random"), corpus, tmp_path / "f")
    other = load_upstream("apc", checkpoint="random", seed=1)
    first = corpus.utterances[0]
    extract_files(other, [first.audio], tmp_path / "other", ExportOptions(device=CPU, resample=False))
    (tmp_path / "other" / f"{first.id}.safetensors").replace(folder / f"{first.id}.safetensors")
    with pytest.raises(DataError, match=r"declares one model, but .*s0-00\.safetensors with one of .*utterance s0-01"):
        bound(folder, corpus)
    lines = (folder / "features.yaml").read_text().splitlines(keepends=True)
    (folder / "features.yaml").write_text("".join(line for line in lines if not line.startswith("model")))
    assert bound(folder, corpus).declared_model is not None


@pytest.mark.parametrize(
    "provenance",
    [
        Provenance(),
        Provenance(trained_on=()),
        Provenance(
            trained_on=(
                TrainingData(name="LibriSpeech", splits=("train-clean-100",), source="a paper"),
                TrainingData(name="mine", speakers=frozenset(["b", "a"]), source="me"),
            )
        ),
        Provenance(
            heard=frozenset(["1" * 64]),
            trained_on=(TrainingData(name="tones", samples_sha256=frozenset(["1" * 64]), source="x"), UNKNOWN_DATA),
        ),
    ],
)
def test_training_data_goes_with_the_features(corpus: Corpus, tmp_path: Path, provenance: Provenance) -> None:
    mel = load_upstream("mel")
    mel.trained_on, mel.provenance = None, provenance
    found = provenance_of(bound(extracted(mel, corpus, tmp_path / "f"), corpus)).trained_on
    told = None if found is None else [(each.name, each.splits, each.speakers, each.samples_sha256) for each in found]
    expected = provenance.trained_on
    assert told == (
        None
        if expected is None
        else [(each.name, each.splits, each.speakers, each.samples_sha256) for each in expected]
    )


def test_sounds_that_are_known_without_a_name_stay_known(corpus: Corpus, tmp_path: Path) -> None:
    mel = load_upstream("mel")
    mel.trained_on, mel.provenance = None, Provenance(heard=frozenset(["2" * 64]))
    found = provenance_of(bound(extracted(mel, corpus, tmp_path / "f"), corpus))
    assert found.digests == {"2" * 64}
    assert [each.name for each in found.trained_on or ()] == ["its checkpoint", "unknown"]


def test_one_vector_an_utterance_goes_there_and_back(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"py:{models_in(tmp_path, monkeypatch, 'vectors_to_files')}:Voice"
    folder = extracted(load_upstream(name), corpus, tmp_path / "f", name=name)
    assert 'kind: "utterance"' in (folder / "features.yaml").read_text()
    reader = bound(folder, corpus)
    assert (reader.info.name, reader.info.kind) == ("features:py:Voice", "utterance")
    assert (reader.info.layer_names, reader.info.width) == (("log", "root"), 48)
    assert reader.read_frames(corpus.utterances[0]).shape == (2, 1, 48)


QUICK = Protocol(probe=ProbeSettings(steps=20, batch_frames=256, selection_points=2))


def run_of(upstream: str, corpus: Path, out: Path, *, missing_only: bool = False) -> WrittenRecord:
    request = RunRequest(
        upstream=upstream, downstream="phone", corpus=str(corpus), out=out, protocol=QUICK, missing_only=missing_only
    )
    (written,) = run(request)
    return written


def systems_in(results: Path) -> list[str]:
    return sorted(row["system"] for row in json.loads(results.read_text("utf-8"))["rows"])


@pytest.mark.slow
def test_one_model_on_two_corpora_is_one_row_on_the_command_line(tmp_path: Path) -> None:
    runs, folders = tmp_path / "runs", {}
    for salt in ("one", "two"):
        corpus, folder = tmp_path / f"corpus-{salt}", tmp_path / f"of-{salt}"
        sounds = [str(each.audio) for each in tone_corpus(corpus, num_speakers=4, salt=salt).utterances]
        folders[folder] = corpus
        done = repbench("extract", *sounds, "--upstream", "mel", "--out", folder, "--quiet", "--json")
        assert done.code == 0, done.err
        assert len(done.json["files"]) == len(sounds)
        ran = repbench(
            "run", "--upstream", f"features:{folder}", "--downstream", "phone", "--corpus", corpus, "--out", runs,
            "--set", "probe.steps=20", "--set", "probe.batch_frames=256", "--set", "probe.selection_points=2",
            "--json", "--quiet",
        )  # fmt: skip
        assert ran.code == 0, ran.err
        (path,) = ran.json["records"]
        record, direct = read_record(Path(path)), run_of("mel", corpus, tmp_path / "direct").record
        assert record.primary == direct.primary
        assert record.upstream.declared is not None
        assert record.upstream.declared.model == direct.upstream.fingerprint
        assert record.heard == direct.heard
        assert verify_record(Path(path).parent).holds
    made = repbench("report", runs, "--out", tmp_path / "report", "--format", "json", "--quiet")
    assert made.code == 0, made.err
    assert systems_in(tmp_path / "report" / "results.json") == ["features:mel"]

    folder, corpus = next(iter(folders.items()))
    assert run_of(f"features:{folder}", corpus, runs, missing_only=True).record.upstream.declared is not None
    assert len(list(runs.rglob("record.json"))) == 2
    for folder, corpus in folders.items():
        file = folder / "features.yaml"
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(line for line in lines if not line.startswith(("name:", "model:"))))
        # Without its name a folder is another system, so the record with the name does not count as there.
        assert run_of(f"features:{folder}", corpus, runs, missing_only=True).record.upstream.declared is None
    assert len(list(runs.rglob("record.json"))) == 4
    write_report(ReportRequest(runs=(runs,), out=tmp_path / "all", formats=("json",)))
    assert systems_in(tmp_path / "all" / "results.json") == ["features:mel", "features:of-one", "features:of-two"]
