"""`torchaudio:`: a bundle from a file that is here, alone as in a batch, and never from the network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchaudio import pipelines

from repbench import load_upstream
from repbench.benchmark.protocol import ProbeSettings, Protocol
from repbench.benchmark.run import RunRequest, run
from repbench.errors import IntegrityError, UsageError
from repbench.testing import tone_corpus
from repbench.testing.certify import certify_upstream
from repbench.testing.upstreams import subject as upstream_subject
from tests.commands import refuse_network, repbench
from tests.upstream.small_bundles import BUNDLES


@pytest.fixture(autouse=True)
def _bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small bundles that torchaudio knows, an empty cache of torch.hub, and no network."""
    for name, bundle in BUNDLES.items():
        monkeypatch.setattr(pipelines, name, bundle, raising=False)
    refuse_network(monkeypatch)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))


def save_weights(file: Path, name: str = "TINY") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(load_upstream(f"torchaudio:{name}", checkpoint="random", seed=3).network.state_dict(), file)
    return file


@pytest.mark.parametrize("name", BUNDLES)
def test_layers_are_what_the_bundle_says_itself(tmp_path: Path, name: str) -> None:
    save_weights(tmp_path / "hub" / "checkpoints" / f"{name.lower()}.pth", name)
    upstream = load_upstream(f"torchaudio:{name}")
    samples = 0.1 * torch.randn(1, 8_000, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        theirs, _ = BUNDLES[name].get_model().extract_features(samples)
        ours = upstream(samples, torch.tensor([8_000])).layers
    assert upstream.info.layer_names == ("layer 1", "layer 2", "layer 3")
    torch.testing.assert_close(ours, torch.stack(theirs), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", BUNDLES)
def test_a_batch_is_as_each_alone_and_frames_are_exact(name: str) -> None:
    upstream = load_upstream(f"torchaudio:{name}", checkpoint="random")
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([16_000, 400, 719, 720, 7_001])
    padded = torch.randn(5, 16_000, generator=generator)
    with torch.inference_mode():
        states = upstream(padded, lengths)
        for row, length in enumerate(lengths.tolist()):
            own = upstream(padded[row : row + 1, :length], lengths[row : row + 1]).layers[:, 0]
            assert own.shape[1] == states.lengths[row] == upstream.num_frames(length)
            assert (states.layers[:, row, : own.shape[1]] - own).abs().max() <= 1e-4 * own.abs().max()
            assert not states.layers[:, row, own.shape[1] :].any()


def test_weights_that_are_not_here_are_named_with_their_place(tmp_path: Path) -> None:
    place = tmp_path / "hub" / "checkpoints" / "tiny.pth"
    with pytest.raises(UsageError, match=r"TINY, tiny\.pth, .* nothing is downloaded") as caught:
        load_upstream("torchaudio:TINY")
    assert caught.value.file == str(place)
    assert "https://download.pytorch.org/torchaudio/models/tiny.pth" in str(caught.value.do)


def test_a_file_can_be_named_and_must_fit(tmp_path: Path) -> None:
    file = save_weights(tmp_path / "mine.pth")
    drawn = load_upstream("torchaudio:TINY", checkpoint="random", seed=3)
    assert load_upstream("torchaudio:TINY", checkpoint=file).fingerprint() == drawn.fingerprint()
    torch.save({"encoder.nothing": torch.zeros(3)}, file)
    with pytest.raises(IntegrityError, match="weights do not fit TINY"):
        load_upstream("torchaudio:TINY", checkpoint=file)


@pytest.mark.slow
def test_on_the_command_line_an_unknown_bundle_is_answered_with_the_list(tmp_path: Path) -> None:
    done = repbench("run", "--upstream", "torchaudio:HUBRT", "--downstream", "phone", "--out", tmp_path)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "HUBERT_BASE" in done.err


def test_a_bundle_is_run(tmp_path: Path) -> None:
    tone_corpus(tmp_path / "c", num_speakers=3, per_session=1)
    file = save_weights(tmp_path / "mine.pth", "TINY_WAVLM")
    (written,) = run(
        RunRequest(
            upstream="torchaudio:TINY_WAVLM", downstream="phone", checkpoint=str(file), corpus=str(tmp_path / "c"),
            device="cpu", out=tmp_path / "runs",
            protocol=Protocol(probe=ProbeSettings(steps=10, batch_frames=64, selection_points=1)),
        )
    )  # fmt: skip
    record = written.record
    assert (record.upstream.name, record.upstream.checkpoint) == ("torchaudio:TINY_WAVLM", str(file))
    assert record.upstream.layer_names == ("layer 1", "layer 2", "layer 3")
    assert record.n_scored == record.n_listed > 0


@pytest.mark.parametrize("name", BUNDLES)
def test_each_kind_of_bundle_has_a_certificate(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(upstream_subject, "LONGEST_SECONDS", 3.0)
    certificate = certify_upstream(f"py:tests.upstream.small_bundles:{name}")
    assert certificate.passed, [*certificate.failed, *certificate.untried]
