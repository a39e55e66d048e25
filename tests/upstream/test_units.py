"""`units:RUN` and `units:DIR`: discrete speech as an upstream."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from repbench import load_upstream
from repbench.audio.feature_files import read_integers
from repbench.benchmark.protocol import ProbeSettings, Protocol
from repbench.benchmark.records.verify import verify_record
from repbench.benchmark.run import RunRequest, run
from repbench.codebook import CODEBOOK_FILE, read_codebook
from repbench.corpora.contract import Corpus
from repbench.corpora.open import open_corpus
from repbench.errors import DataError, IntegrityError, UsageError
from repbench.registry import registry
from repbench.testing import tone_corpus
from repbench.testing.upstreams import UPSTREAM_CHECKS, UpstreamSubject
from repbench.upstream.adapters import units as adapter
from repbench.upstream.adapters.corpus_features import declared_model_of
from repbench.upstream.adapters.unit_folder import UnitFolder

QUICK = ProbeSettings(steps=20, batch_frames=256, selection_points=2)
ENVELOPE = "py:repbench.testing.fakes:envelope"


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("units") / "tones"
    tone_corpus(folder, num_speakers=4, per_session=2)
    return folder


def fitted(tones: Path, out: Path, upstream: str = "mel", clusters: int = 8, **changes: Any) -> Path:
    """The folder of a run of the task `units`."""
    protocol = Protocol(task={"clusters": clusters})
    request = RunRequest(
        upstream=upstream, downstream="units", corpus=str(tones), out=out, protocol=protocol, **changes
    )
    (written,) = run(request)
    return written.path.parent


@pytest.fixture(scope="module")
def of_mel(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted(tones, tmp_path_factory.mktemp("runs"))


def sound(num_samples: int = 16_000) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(1, num_samples, generator=generator) - 0.5, torch.tensor([num_samples])


def test_a_run_becomes_an_upstream_of_one_hot_units(of_mel: Path) -> None:
    upstream, mel = load_upstream(f"units:{of_mel}"), load_upstream("mel")
    assert (upstream.info.width, upstream.info.layer_names, upstream.info.trainable) == (8, ("units",), False)
    assert upstream.num_frames(5000) == mel.num_frames(5000)
    states, frames = upstream(*sound()).layers[0, 0], mel(*sound()).layers[0, 0]
    assert states.sum(dim=1).tolist() == [1.0] * len(frames)
    record = json.loads((of_mel / "record.json").read_text())
    codebook = read_codebook(of_mel / CODEBOOK_FILE, record["downstream"]["files"][CODEBOOK_FILE])
    assert torch.equal(states.argmax(dim=1), codebook.units_of(frames))


def test_its_centroids_are_another_form(of_mel: Path) -> None:
    onehot, centroids = load_upstream(f"units:{of_mel}"), load_upstream(f"units:{of_mel}?form=centroids")
    assert centroids.info.width == 160
    given = centroids(*sound()).layers[0, 0]
    units = onehot(*sound()).layers[0, 0].argmax(dim=1)
    assert torch.equal(given, centroids.centroids[units])
    assert onehot.fingerprint() != centroids.fingerprint()


@pytest.mark.parametrize("check", [check.id for check in UPSTREAM_CHECKS])
def test_the_conformance_suite_holds(of_mel: Path, check: str, subjects: dict[str, UpstreamSubject]) -> None:
    name = f"units:{of_mel}"
    if name not in subjects:
        entry = registry().find("upstream", name).entry
        subjects[name] = UpstreamSubject(lambda checkpoint: load_upstream(name, checkpoint=checkpoint), entry=entry)
    result = UPSTREAM_CHECKS.result(check, subjects[name])
    assert result.status != "failed", result


@pytest.fixture(scope="module")
def subjects() -> dict[str, UpstreamSubject]:
    return {}


def test_a_probe_on_units_reads_them_and_scores_another_corpus(of_mel: Path, tones: Path, tmp_path: Path) -> None:
    name = f"units:{of_mel}"
    request = RunRequest(
        upstream=name, downstream="phone", corpus=str(tones), out=tmp_path, protocol=Protocol(probe=QUICK)
    )
    (written,) = run(request)
    assert written.record.primary.value is not None
    assert written.record.primary.value > 0.25
    assert written.record.upstream.fingerprint == load_upstream(name).fingerprint()
    assert verify_record(written.path).holds
    other = tmp_path / "other"
    tone_corpus(other, num_speakers=4, per_session=2, salt="other")
    (scored,) = run(
        RunRequest(upstream=name, downstream="phone", corpus=str(other), out=tmp_path, probe=written.path.parent)
    )
    assert scored.record.probe_sha256 == written.record.probe_sha256


@pytest.mark.parametrize("layer", ["0", "last", "mean"])
def test_the_layer_is_that_of_the_record(tones: Path, tmp_path: Path, layer: str) -> None:
    run_folder = fitted(tones, tmp_path, ENVELOPE, layer=layer)
    with pytest.raises(UsageError, match="no module is imported because a record names it"):
        load_upstream(f"units:{run_folder}")
    upstream = load_upstream(f"units:{run_folder}?upstream={ENVELOPE}&form=centroids")
    envelope = load_upstream(ENVELOPE)
    layers = envelope(*sound()).layers[:, 0]
    frames = {"0": layers[0], "last": layers[-1], "mean": layers.mean(dim=0)}[layer]
    nearest = torch.cdist(frames.double(), upstream.centroids.double()).argmin(dim=1)
    assert torch.equal(upstream(*sound()).layers[0, 0], upstream.centroids[nearest])


@pytest.mark.slow
def test_an_untrained_upstream_is_built_from_the_seed_of_the_record(tones: Path, tmp_path: Path) -> None:
    run_folder = fitted(tones, tmp_path, "apc", checkpoint="random", seeds=(3,))
    upstream = load_upstream(f"units:{run_folder}", seed=9)
    record = json.loads((run_folder / "record.json").read_text())
    assert upstream.inner.fingerprint() == record["upstream"]["fingerprint"]


@pytest.mark.slow
def test_another_upstream_than_that_of_the_record_is_refused(tones: Path, tmp_path: Path) -> None:
    run_folder = fitted(tones, tmp_path, "apc", checkpoint="random")
    file = run_folder / "record.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "seed": 1}))
    with pytest.raises(IntegrityError, match="fitted to another `apc`"):
        load_upstream(f"units:{run_folder}")


def test_a_damaged_run_is_refused(of_mel: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(of_mel, tmp_path / "run")
    record = json.loads((copy / "record.json").read_text())
    for changed, message in (
        ({"layer": "7"}, "the layer `7`, which"),
        ({"layer": None}, "not a whole record"),
        ({"downstream": {**record["downstream"], "files": {}}}, "has no codebook"),
    ):
        (copy / "record.json").write_text(json.dumps({**record, **changed}))
        with pytest.raises((IntegrityError, UsageError), match=message):
            load_upstream(f"units:{copy}")
    (copy / "record.json").write_text("{")
    with pytest.raises(IntegrityError, match="not a whole record"):
        load_upstream(f"units:{copy}")
    (copy / "record.json").write_text(json.dumps(record))
    (copy / CODEBOOK_FILE).write_bytes(b"x")
    with pytest.raises(IntegrityError, match="SHA-256"):
        load_upstream(f"units:{copy}")


def test_a_nan_of_the_inner_upstream_is_shown(of_mel: Path) -> None:
    upstream = load_upstream(f"units:{of_mel}")
    frames = torch.zeros(3, 160)
    frames[1, 5] = torch.nan
    given = adapter._given(frames, upstream._codebook, "onehot")
    assert given.isfinite().all(dim=1).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("nowhere", "There is no such run"),
        ("{run}?form=vectors", "`form` must be onehot or centroids"),
        ("{run}?shape=onehot", "takes no option `shape`"),
        ("{run}?upstream=apc", "The units are of `mel`, not of `apc`"),
        ("{run}/..", "holds neither a record.json of a run nor a units.yaml"),
    ],
)
def test_names_that_lead_nowhere_are_refused(of_mel: Path, argument: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_upstream(f"units:{argument.format(run=of_mel)}")


def test_the_task_and_the_prefix_have_one_name() -> None:
    assert registry().find("downstream", "units").entry.target == "repbench.downstream.units:Units"
    assert registry().find("upstream", "units:x").entry.target == "repbench.upstream.adapters.units:door"
    with pytest.raises(UsageError, match="Nothing follows"):
        registry().find("upstream", "units:")
    with pytest.raises(UsageError, match="leads to upstreams"):
        registry().find("downstream", "units:x")


# folders of units

DECLARED = "sample_rate_hz: 16000\nhop_samples: 320\nfirst_center_samples: 160\nnum_units: 5\n"


@pytest.fixture
def corpus(tones: Path) -> Corpus:
    return open_corpus(str(tones))


@pytest.fixture
def folder(corpus: Corpus, tmp_path: Path) -> Path:
    folder = tmp_path / "codec"
    for number, each in enumerate(corpus.utterances):
        units = np.arange(each.num_samples // 320) % 5
        file = folder / f"{each.id}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        if number % 2:
            np.save(file, units.astype(np.int16))
        else:
            file.with_suffix(".txt").write_text(" ".join(map(str, units)))
    (folder / "units.yaml").write_text(DECLARED)
    return folder


def bound(folder: Path, corpus: Corpus, options: str = "") -> Any:
    made = adapter.build(f"{folder}{options}")
    assert isinstance(made, UnitFolder)
    return made.bound_to(corpus)


def test_a_folder_of_integers_becomes_an_upstream(folder: Path, corpus: Corpus) -> None:
    reader = bound(folder, corpus)
    for each in corpus.utterances[:2]:
        frames = reader.read_frames(each)
        assert frames.shape == (1, each.num_samples // 320, 5)
        assert frames[0].argmax(dim=1).tolist() == [number % 5 for number in range(frames.shape[1])]
    assert "every 0.02 s as declared" in reader.note()


def test_a_folder_may_declare_the_vectors_of_its_units(folder: Path, corpus: Corpus) -> None:
    with pytest.raises(UsageError, match="declares no centroids"):
        bound(folder, corpus, "?form=centroids")
    vectors = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    np.save(folder / "vectors.npy", vectors)
    (folder / "units.yaml").write_text(f"{DECLARED}centroids: vectors.npy\n")
    reader = bound(folder, corpus, "?form=centroids")
    given = reader.read_frames(corpus.utterances[0])[0]
    assert given[:5].tolist() == vectors.tolist()
    assert reader.fingerprint() != bound(folder, corpus).fingerprint()
    np.save(folder / "vectors.npy", vectors[:4])
    with pytest.raises(DataError, match="holds 4 centroids of 5 units"):
        bound(folder, corpus, "?form=centroids")


def test_a_folder_may_declare_its_name(folder: Path, corpus: Corpus) -> None:
    np.save(folder / "vectors.npy", np.ones((5, 3), dtype=np.float32))
    (folder / "units.yaml").write_text(f"{DECLARED}centroids: vectors.npy\n")
    before = bound(folder, corpus)
    assert declared_model_of(before) is None
    (folder / "units.yaml").write_text(f"name: codec-a\nmodel: v1\n{DECLARED}centroids: vectors.npy\n")
    named = bound(folder, corpus)
    assert (named.info.name, named.fingerprint()) == ("units:codec-a", before.fingerprint())
    assert "it declares them as `codec-a`, model v1" in named.note()
    declared = declared_model_of(named)
    assert declared is not None
    assert (declared.name, declared.model, declared.width, declared.num_units) == ("codec-a", "v1", 5, 5)
    centroids = declared_model_of(bound(folder, corpus, "?form=centroids"))
    assert centroids is not None
    assert (centroids.width, centroids.form) == (3, "centroids")
    (folder / "units.yaml").write_text(f"model: v1\n{DECLARED}")
    with pytest.raises(UsageError, match="`model` needs a `name`"):
        bound(folder, corpus)


def test_old_folders_of_units_keep_their_fingerprint(tmp_path: Path) -> None:
    """The value is that of the release before `name` and `model`."""
    corpus = tone_corpus(tmp_path / "c", num_speakers=3)
    folder = tmp_path / "u"
    folder.mkdir()
    (folder / "units.yaml").write_text(DECLARED.replace("5", "3"))
    for each in corpus.utterances:
        np.save(folder / f"{each.id}.npy", np.ones(each.num_samples // 320, dtype=np.int64))
    expected = "03d5e07381a0b36475c11e2fac995cdf68e040d44ae3fbbe293f0441eb33c200"
    assert bound(folder, corpus).fingerprint() == expected


def test_a_probe_reads_a_folder_of_units(folder: Path, corpus: Corpus, tones: Path, tmp_path: Path) -> None:
    (written,) = run(
        RunRequest(
            upstream=f"units:{folder}", downstream="phone", corpus=str(tones), out=tmp_path / "runs",
            protocol=Protocol(probe=QUICK),
        )
    )  # fmt: skip
    assert verify_record(written.path).holds
    units = fitted(tones, tmp_path / "units", f"units:{folder}?form=onehot", clusters=4)
    again = adapter.build(str(units))
    assert isinstance(again, adapter.UnitsOfStoredFrames)
    reader = again.bound_to(corpus)
    assert reader.info.width == 4
    assert set(reader.read_frames(corpus.utterances[0])[0].sum(dim=1).tolist()) == {1.0}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0 1 5", "The unit 5 is none of 0 to 4"),
        ("0 one 2", "whole numbers from 0 on, but one is 'one'"),
        ("0 -1 2", "whole numbers from 0 on, but one is '-1'"),
        ("", "holds no unit"),
        ("0 1 2", "span"),
    ],
)
def test_a_file_that_holds_no_units_is_refused(folder: Path, corpus: Corpus, content: str, message: str) -> None:
    first = corpus.utterances[0]
    (folder / f"{first.id}.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        bound(folder, corpus).read_frames(first)


def test_arrays_of_units_are_read_without_code(tmp_path: Path) -> None:
    file = tmp_path / "u.npy"
    for array, message in (
        (np.zeros((2, 2), dtype=np.int32), "one row of integers"),
        (np.zeros(3, dtype=np.float32), "one row of integers"),
    ):
        np.save(file, array)
        with pytest.raises(DataError, match=message):
            read_integers(file)
    np.save(file, np.array([1, 2, None], dtype=object), allow_pickle=True)
    with pytest.raises(IntegrityError, match="need code to load"):
        read_integers(file)
    np.save(file, np.array([3, 1, 2], dtype=np.uint8))
    units, sha256 = read_integers(file)
    assert units.tolist() == [3, 1, 2]
    with pytest.raises(IntegrityError, match="when they were first read"):
        read_integers(file, sha256=sha256[::-1])


def test_the_fingerprint_is_of_the_units_and_not_of_the_place(folder: Path, corpus: Corpus) -> None:
    before = bound(folder, corpus).fingerprint()
    moved = folder.rename(folder.with_name("moved"))
    assert bound(moved, corpus).fingerprint() == before
    first = corpus.utterances[0]
    units = (moved / f"{first.id}.txt").read_text()
    (moved / f"{first.id}.txt").write_text(f"1{units[1:]}")
    assert bound(moved, corpus).fingerprint() != before


def test_utterances_without_a_file_are_excluded(folder: Path, corpus: Corpus) -> None:
    first = corpus.utterances[0]
    (folder / f"{first.id}.txt").unlink()
    reader = bound(folder, corpus)
    assert reader.why_excluded(first) == "no units in the folder"
    assert reader.why_excluded(corpus.utterances[1]) is None
    for each in (*folder.rglob("*.txt"), *folder.rglob("*.npy")):
        each.unlink()
    with pytest.raises(DataError, match="has units here"):
        bound(folder, corpus)


def test_the_folder_has_no_weights(folder: Path) -> None:
    with pytest.raises(UsageError, match="no weights to load"):
        adapter.build(str(folder), checkpoint="random")
    (folder / "units.yaml").write_text("sample_rate_hz: 16000\n")
    with pytest.raises(UsageError, match="num_units"):
        adapter.build(str(folder))
