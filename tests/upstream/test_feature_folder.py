"""`features:DIR`: whoever can write a file can be benchmarked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from repbench import load_upstream
from repbench.benchmark.features.export import ExportOptions, extract_files
from repbench.benchmark.features.extraction import ExtractionOptions
from repbench.benchmark.features.source import features_of
from repbench.corpora.contract import Corpus
from repbench.errors import DataError, IntegrityError, UsageError
from repbench.testing import tone_corpus
from repbench.upstream.adapters.corpus_features import DeclaredModel, FrameReader
from repbench.upstream.adapters.feature_folder import FolderFrames, build
from tests.commands import repbench

CPU = torch.device("cpu")
OLD_FINGERPRINT = "e7de2838d718600ea71d8871ccf204340a766c11c720cfa7ab457d13c188e2dd"
DECLARED = "sample_rate_hz: 16000\nhop_samples: 320\nfirst_center_samples: 160\n"


def folder_of_envelopes(corpus: Corpus, folder: Path) -> Path:
    """What `repbench extract` writes of the two layers of `Envelope`, and its declaration."""
    upstream = load_upstream("py:repbench.testing.fakes:envelope")
    options = ExportOptions(resample=False, device=CPU)
    extract_files(upstream, [each.audio for each in corpus.utterances], folder, options)
    (folder / "features.yaml").write_text(DECLARED + "layer_names: [energy, projected]\n")
    return folder


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return tone_corpus(tmp_path / "c", num_speakers=3)


@pytest.fixture
def folder(corpus: Corpus, tmp_path: Path) -> Path:
    return folder_of_envelopes(corpus, tmp_path / "f")


def bound(folder: Path, corpus: Corpus) -> FolderFrames:
    return build(str(folder)).bound_to(corpus)


def test_frames_from_files_are_those_that_were_written(folder: Path, corpus: Corpus) -> None:
    options = ExtractionOptions(batch_seconds=1e-3, device=CPU)
    upstream = load_upstream("py:repbench.testing.fakes:envelope")
    heard = features_of(upstream, corpus.utterances, [0, 1], options)
    reader = bound(folder, corpus)
    assert isinstance(reader, FrameReader)
    read = features_of(reader, corpus.utterances, [0, 1], options)
    assert (read.counts, read.ids) == (heard.counts, heard.ids)
    assert torch.equal(read.frames, heard.frames)


def test_an_array_of_frames_is_one_layer(corpus: Corpus, tmp_path: Path) -> None:
    folder = tmp_path / "npy"
    folder.mkdir()
    (folder / "features.yaml").write_text(DECLARED)
    for each in corpus.utterances[:3]:
        np.save(folder / f"{each.id}.npy", np.ones((each.num_samples // 320, 5), dtype=np.float16))
    reader = bound(folder, corpus)
    assert (reader.info.layer_names, reader.info.width) == (("layer 0",), 5)
    assert reader.read_frames(corpus.utterances[0]).dtype == torch.float32
    assert reader.why_excluded(corpus.utterances[0]) is None
    assert reader.why_excluded(corpus.utterances[3]) == "no features in the folder"


@pytest.mark.parametrize(
    ("shape", "names"),
    [((6,), ("vector",)), ((1, 6), ("vector",)), ((3, 6), ("layer 0", "layer 1", "layer 2")), ((1, 1, 6), ("vector",))],
)
def test_one_vector_an_utterance_is_one_frame(
    corpus: Corpus, tmp_path: Path, shape: tuple[int, ...], names: tuple[str, ...]
) -> None:
    folder = tmp_path / "vectors"
    folder.mkdir()
    (folder / "features.yaml").write_text("kind: utterance\n")
    values = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    for each in corpus.utterances:
        np.save(folder / f"{each.id}.npy", values)
    reader = bound(folder, corpus)
    info = reader.info
    assert (info.kind, info.layer_names, info.width) == ("utterance", names, 6)
    assert (info.hop_samples, info.first_center_samples) == (0, 0)
    frames = reader.read_frames(corpus.utterances[0])
    assert frames.shape == (len(names), 1, 6)
    assert frames.flatten().tolist() == values.flatten().tolist()
    assert "vectors, one an utterance, are read from the folder" in reader.note()


def test_the_same_files_as_frames_and_as_vectors_are_two_upstreams(corpus: Corpus, tmp_path: Path) -> None:
    fingerprints: set[str] = set()
    for declared in (DECLARED, "kind: utterance\n"):
        folder = tmp_path / f"folder {len(fingerprints)}"
        folder.mkdir()
        (folder / "features.yaml").write_text(declared)
        for each in corpus.utterances:
            np.save(folder / f"{each.id}.npy", np.ones((2, 6)))
        fingerprints.add(bound(folder, corpus).fingerprint())
    assert len(fingerprints) == 2


@pytest.mark.parametrize("key", ["hop_samples", "first_center_samples", "utterance_normalised"])
def test_one_vector_an_utterance_has_no_times(corpus: Corpus, folder: Path, key: str) -> None:
    value = "true" if key == "utterance_normalised" else "1"
    (folder / "features.yaml").write_text(f"kind: utterance\n{key}: {value}\n")
    with pytest.raises(UsageError, match=f"`{key}` is of frames, and `kind: utterance` declares one vector") as caught:
        bound(folder, corpus)
    assert "features.yaml" in str(caught.value)


def test_frames_and_vectors_are_not_taken_for_each_other(corpus: Corpus, folder: Path) -> None:
    first = corpus.utterances[0]
    (folder / "features.yaml").write_text("kind: utterance\n")
    with pytest.raises(DataError, match=r"one vector an utterance, but the file has \d+ frames.*utterance s0-00"):
        bound(folder, corpus)
    (folder / f"{first.id}.safetensors").unlink()
    np.save(folder / f"{first.id}.npy", np.zeros((1, 1, 1, 3)))
    with pytest.raises(DataError, match=r"vector of an utterance must have the shape \(D,\) or \(L, D\), but has"):
        bound(folder, corpus)
    (folder / "features.yaml").write_text(DECLARED)
    np.save(folder / f"{first.id}.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"must have the shape \(F, D\) or .*Declare `kind: utterance`"):
        bound(folder, corpus)
    (folder / "features.yaml").write_text("kind: vector\n")
    with pytest.raises(UsageError, match="`kind` must be frames or utterance, but is 'vector'"):
        bound(folder, corpus)


def test_a_declared_name_is_that_of_the_upstream_and_changes_no_fingerprint(folder: Path, corpus: Corpus) -> None:
    before = bound(folder, corpus)
    assert (before.info.name, before.declared_model) == ("features:f", None)
    (folder / "features.yaml").write_text(
        f"name: my-model\nmodel: release 2\n{DECLARED}layer_names: [energy, projected]\n"
    )
    named = bound(folder, corpus)
    assert (named.info.name, named.fingerprint()) == ("features:my-model", before.fingerprint())
    assert named.declared_model == DeclaredModel(
        name="my-model", model="release 2", hop_seconds=0.02, first_center_seconds=0.01, width=4
    )
    assert "every 0.02 s as declared; it declares them as `my-model`, model release 2" in named.note()
    assert before.note().endswith("every 0.02 s as declared")


def test_a_model_without_a_name_is_refused(folder: Path, corpus: Corpus) -> None:
    for declared in (f"model: release 2\n{DECLARED}", "model: release 2\nkind: utterance\n"):
        (folder / "features.yaml").write_text(declared)
        with pytest.raises(UsageError, match="`model` needs a `name`"):
            bound(folder, corpus)


def test_old_folders_keep_their_fingerprint(corpus: Corpus, tmp_path: Path) -> None:
    """The value is that of the release before `kind`, `name` and `model`."""
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "features.yaml").write_text(DECLARED)
    for each in corpus.utterances:
        np.save(folder / f"{each.id}.npy", np.ones((each.num_samples // 320, 5), dtype=np.float32))
    assert bound(folder, corpus).fingerprint() == OLD_FINGERPRINT


def test_the_fingerprint_is_of_the_bytes_and_not_of_the_place(folder: Path, corpus: Corpus) -> None:
    before = bound(folder, corpus).fingerprint()
    moved = folder.rename(folder.with_name("moved"))
    assert bound(moved, corpus).fingerprint() == before
    first = corpus.utterances[0]
    (moved / f"{first.id}.safetensors").unlink()
    np.save(moved / f"{first.id}.npy", np.zeros((2, first.num_samples // 320, 4), dtype=np.float32))
    assert bound(moved, corpus).fingerprint() != before


def test_frames_that_change_during_a_run_are_refused(folder: Path, corpus: Corpus) -> None:
    first, second = corpus.utterances[:2]
    reader = bound(folder, corpus)
    (folder / f"{first.id}.safetensors").write_bytes((folder / f"{second.id}.safetensors").read_bytes())
    with pytest.raises(IntegrityError, match=r"when they were first read.*utterance s0-00"):
        reader.read_frames(first)


def test_frames_of_another_hop_are_refused(folder: Path, corpus: Corpus) -> None:
    (folder / "features.yaml").write_text(DECLARED.replace("320", "256"))
    with pytest.raises(DataError, match="but the sound lasts"):
        bound(folder, corpus).read_frames(corpus.utterances[0])


def test_two_files_of_one_utterance_are_refused(folder: Path, corpus: Corpus) -> None:
    np.save(folder / f"{corpus.utterances[0].id}.npy", np.zeros((2, 3), dtype=np.float32))
    with pytest.raises(DataError, match=r"two files, s0-00\.npy and s0-00\.safetensors"):
        bound(folder, corpus)


def test_names_and_layers_must_agree(folder: Path, corpus: Corpus) -> None:
    (folder / "features.yaml").write_text(DECLARED + "layer_names: [one]\n")
    with pytest.raises(DataError, match=r"`layer_names` has 1 names, but .* has 2 layers"):
        bound(folder, corpus)


def test_a_folder_that_cannot_be_meant_is_refused_before_the_corpus(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        load_upstream("features:none")
    with pytest.raises(UsageError, match="no weights to load"):
        load_upstream(f"features:{folder}", checkpoint="random")
    with pytest.raises(UsageError, match=r"holds no features\.yaml"):
        load_upstream(f"features:{tmp_path}")
    with pytest.raises(UsageError, match="there is no corpus here"):
        load_upstream(f"features:{folder}")


def test_a_folder_of_another_corpus_names_the_file_it_lacks(folder: Path, tmp_path: Path) -> None:
    for file in folder.glob("*.safetensors"):
        file.rename(file.with_name(f"other-{file.name}"))
    with pytest.raises(DataError, match=r"No utterance of tones has features here.*such as s0-00\.npy"):
        bound(folder, tone_corpus(tmp_path / "again", num_speakers=1))


def test_the_whole_way_on_the_command_line(folder: Path, tmp_path: Path) -> None:
    with (folder / "features.yaml").open("a") as declared:
        declared.write("\ncitation: Doe 2026\nlicence: CC-BY-4.0\n")
    ran = repbench(
        "run", "--upstream", f"features:{folder}", "--downstream", "phone", "--corpus", tmp_path / "c", "--out",
        tmp_path / "runs", "--layer", "all", "--set", "probe.steps=20", "--set", "probe.selection_points=2", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert [record["upstream"]["layer_names"] for record in ran.json["results"]] == [["energy", "projected"]] * 2
    assert {(each["upstream"]["citation"], each["upstream"]["licence"]) for each in ran.json["results"]} == {
        ("Doe 2026", "CC-BY-4.0")
    }
    assert any("read from the folder" in note for note in ran.json["results"][0]["corpus"]["warnings"])
    # The checkpoint of the record is the folder, which `--probe` gives back: only the corpus is refused, as it trained.
    again = repbench(
        "run", "--upstream", f"features:{folder}", "--downstream", "phone", "--corpus", tmp_path / "c",
        "--probe", Path(ran.json["records"][0]).parent, "--out", tmp_path / "runs",
    )  # fmt: skip
    assert (again.code, "trained or selected this probe" in again.err) == (3, True), again.err
