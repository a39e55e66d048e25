"""`torchaudio:`: a bundle from a file that is here, alone as in a batch, and never from the network."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from torchaudio import pipelines

from repbench import load_upstream
from repbench.errors import IntegrityError, UsageError
from tests.commands import repbench

SMALL = {
    "extractor_mode": "group_norm", "extractor_conv_bias": False, "encoder_embed_dim": 16,
    "extractor_conv_layer_config": [(8, 10, 5), *[(8, 3, 2)] * 4, *[(8, 2, 2)] * 2], "encoder_projection_dropout": 0.1,
    "encoder_pos_conv_kernel": 16, "encoder_pos_conv_groups": 4, "encoder_num_layers": 3, "encoder_num_heads": 2,
    "encoder_attention_dropout": 0.1, "encoder_ff_interm_features": 32, "encoder_ff_interm_dropout": 0.1,
    "encoder_dropout": 0.1, "encoder_layer_norm_first": False, "encoder_layer_drop": 0.1, "aux_num_out": None,
}  # fmt: skip


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A small bundle `TINY` that torchaudio would normalise, and an empty cache of torch.hub."""

    def refuse(*_: object) -> NoReturn:
        raise AssertionError("something asked for the network")

    made = pipelines.Wav2Vec2Bundle("tiny.pth", SMALL, 16_000, True, "Wav2Vec2")
    monkeypatch.setattr(pipelines, "TINY", made, raising=False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return made


def save_weights(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(load_upstream("torchaudio:TINY", checkpoint="random", seed=3).network.state_dict(), file)
    return file


def test_layers_are_what_the_bundle_says_itself(bundle: Any, tmp_path: Path) -> None:
    save_weights(tmp_path / "hub" / "checkpoints" / "tiny.pth")
    upstream = load_upstream("torchaudio:TINY")
    samples = 0.1 * torch.randn(1, 8_000, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        theirs, _ = bundle.get_model().extract_features(samples)
        ours = upstream(samples, torch.tensor([8_000])).layers
    assert upstream.info.layer_names == ("layer 1", "layer 2", "layer 3")
    torch.testing.assert_close(ours, torch.stack(theirs), atol=1e-5, rtol=0)


def test_a_batch_is_as_each_alone_and_frames_are_exact(bundle: Any) -> None:
    upstream = load_upstream("torchaudio:TINY", checkpoint="random")
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


def test_weights_that_are_not_here_are_named_with_their_place(bundle: Any, tmp_path: Path) -> None:
    place = tmp_path / "hub" / "checkpoints" / "tiny.pth"
    with pytest.raises(UsageError, match=r"TINY, tiny\.pth, .* nothing is downloaded") as caught:
        load_upstream("torchaudio:TINY")
    assert caught.value.file == str(place)
    assert "https://download.pytorch.org/torchaudio/models/tiny.pth" in str(caught.value.do)


def test_a_file_can_be_named_and_must_fit(bundle: Any, tmp_path: Path) -> None:
    file = save_weights(tmp_path / "mine.pth")
    drawn = load_upstream("torchaudio:TINY", checkpoint="random", seed=3)
    assert load_upstream("torchaudio:TINY", checkpoint=file).fingerprint() == drawn.fingerprint()
    torch.save({"encoder.nothing": torch.zeros(3)}, file)
    with pytest.raises(IntegrityError, match="weights do not fit TINY"):
        load_upstream("torchaudio:TINY", checkpoint=file)


def test_on_the_command_line_an_unknown_bundle_is_answered_with_the_list(tmp_path: Path) -> None:
    done = repbench("run", "--upstream", "torchaudio:HUBRT", "--downstream", "phone", "--out", tmp_path)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "HUBERT_BASE" in done.err
