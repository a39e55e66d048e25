"""`repbench convert` on Whisper in CTranslate2's format: the folder that it writes is opened by `hf:`."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from repbench import load_upstream
from repbench.errors import IntegrityError
from repbench.upstream.checkpoints.ctranslate2 import read_ctranslate2
from tests.commands import repbench
from tests.upstream.small_ctranslate2 import Storage, model_bin, small_whisper, variables, write_model

SOUNDS = 0.1 * torch.randn(1, 70_000, generator=torch.Generator().manual_seed(1))  # longer than one window of 3 s
LENGTHS = torch.tensor([70_000])


def layers(folder: Path) -> Tensor:
    """(L, F, D)"""
    with torch.inference_mode():
        states: Tensor = load_upstream(f"hf:{folder}")(SOUNDS, LENGTHS).layers
    return states[:, 0]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small Whisper as transformers writes it."""
    import transformers

    folder = tmp_path_factory.mktemp("original")
    small_whisper().save_pretrained(folder)
    extractor: Any = transformers.WhisperFeatureExtractor  # untyped
    extractor(feature_size=20, chunk_length=3).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("storage", "bound"),
    [("float32", 0.0), ("float16", 2e-3), ("bfloat16", 2e-2), ("int8", 3e-2), ("int16", 4e-3)],
)
def test_features_are_those_of_the_original(storage: Storage, bound: float, original: Path, tmp_path: Path) -> None:
    source = write_model(tmp_path / "ct2", model_bin(variables(small_whisper()), storage))
    finished = repbench("convert", source, "--out", tmp_path / "out", "--json")
    assert finished.code == 0, finished.err
    expected, found = layers(original), layers(tmp_path / "out")
    assert expected.shape == found.shape == (3, 219, 16)
    error = float((found - expected).abs().max() / expected.abs().max())
    assert error <= bound
    assert (error == 0) == (storage == "float32")
    notes = " ".join(finished.json["notes"])
    assert ("quantised" in notes) == (storage in ("int8", "int16"))
    assert ("16 bits" in notes) == (storage == "float16")


def test_the_decoder_is_converted_too_and_is_not_needed(original: Path, tmp_path: Path) -> None:
    import transformers

    whole = write_model(tmp_path / "ct2", model_bin(variables(small_whisper())))
    assert repbench("convert", whole / "model.bin", "--out", tmp_path / "whole").code == 0
    again = transformers.WhisperModel.from_pretrained(tmp_path / "whole").state_dict()
    assert all(torch.equal(again[name], values) for name, values in small_whisper().state_dict().items())
    encoder = write_model(tmp_path / "ct2", model_bin(variables(small_whisper(), decoder=False)))
    finished = repbench("convert", encoder, "--out", tmp_path / "encoder")
    assert finished.code == 0
    assert "the file holds no decoder" in finished.err
    assert torch.equal(layers(tmp_path / "encoder"), layers(original))


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    source = write_model(tmp_path / "ct2", model_bin(variables(small_whisper())))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    finished = repbench("convert", source, "--out", tmp_path / "out")
    assert (finished.code, "not empty" in finished.err) == (2, True)
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (lambda content: content[:-40], 4, "ends within"),
        (lambda content: content + b"\0", 4, "1 bytes follow"),
        (
            lambda content: content.replace(b"encoder/conv1/bias", b"encoder/conv9/bias"),
            4,
            "lacks `encoder/conv1/bias`",
        ),
        (lambda content: struct.pack("<I", 3) + content[4:], 4, "version that is not known: 3"),
    ],
)
def test_a_damaged_file_is_refused_by_name(change: object, code: int, message: str, tmp_path: Path) -> None:
    assert callable(change)
    source = write_model(tmp_path / "ct2", change(model_bin(variables(small_whisper()))))
    finished = repbench("convert", source, "--out", tmp_path / "out")
    assert (finished.code, message in finished.err) == (code, True), finished.err
    assert "model.bin" in finished.err
    assert not (tmp_path / "out").exists()


def test_another_kind_of_model_and_settings_are_refused(tmp_path: Path) -> None:
    source = write_model(tmp_path / "a", model_bin(variables(small_whisper()), specification="TransformerSpec"))
    finished = repbench("convert", source, "--out", tmp_path / "out")
    assert (finished.code, "of the kind TransformerSpec" in finished.err) == (2, True)
    source = write_model(tmp_path / "b", model_bin(variables(small_whisper())))
    finished = repbench("convert", source, "--out", tmp_path / "out", "--set", "residual=false")
    assert (finished.code, "`residual` is none of them" in finished.err) == (2, True)


def test_keys_with_a_bias_and_weights_without_a_scale_are_no_whisper(tmp_path: Path) -> None:
    tensors = variables(small_whisper())
    name = "encoder/layer_1/self_attention/linear_0/bias"
    tensors[name] = tensors[name] + 1
    finished = repbench("convert", write_model(tmp_path / "a", model_bin(tensors)), "--out", tmp_path / "out")
    assert (finished.code, "have a bias" in finished.err) == (4, True)
    content = model_bin(variables(small_whisper()), "int8")
    broken = content.replace(b"layer_1/ffn/linear_0/weight_scale", b"layer_1/ffn/linear_0/weight_skale")
    file = write_model(tmp_path / "b", broken) / "model.bin"
    with pytest.raises(IntegrityError, match=r"layer_1/ffn/linear_0/weight` is stored as torch.int8 without its scale"):
        read_ctranslate2(file)
