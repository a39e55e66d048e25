"""A small Whisper of transformers, and the `model.bin` that CTranslate2 would write of it."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

WIDTH = 16
_CODES = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4, "bfloat16": 5}
Storage = Literal["float32", "float16", "bfloat16", "int8", "int16"]


def small_whisper() -> Any:
    """An untrained WhisperModel of two encoder layers and one decoder layer, whose windows have 3 s."""
    import transformers

    torch.manual_seed(3)
    config = transformers.WhisperConfig(
        d_model=WIDTH, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=24, decoder_layers=1,
        decoder_attention_heads=2, decoder_ffn_dim=20, num_mel_bins=20, max_source_positions=150,
        max_target_positions=8, vocab_size=32, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1, suppress_tokens=[], begin_suppress_tokens=[],
    )  # fmt: skip
    model: Any = transformers.WhisperModel(config)
    model.eval()
    with torch.no_grad():
        for values in model.parameters():
            values.add_(0.1 * torch.randn(values.shape))  # biases and gains begin as 0 and 1
    return model


def variables(model: Any, *, decoder: bool = True) -> dict[str, NDArray[Any]]:
    """The tensors of a WhisperModel under the names of CTranslate2."""
    state = {name: values.detach().numpy() for name, values in model.state_dict().items()}
    found: dict[str, NDArray[Any]] = {}

    def affine(there: str, here: str) -> None:
        found[f"{there}/gamma"], found[f"{there}/beta"] = state[f"{here}.weight"], state[f"{here}.bias"]

    def linear(there: str, *here: str) -> None:
        found[f"{there}/weight"] = np.concatenate([state[f"{each}.weight"] for each in here])
        zeros = np.zeros(WIDTH, np.float32)
        found[f"{there}/bias"] = np.concatenate([state.get(f"{each}.bias", zeros) for each in here])

    for conv in ("conv1", "conv2"):
        for part in ("weight", "bias"):
            found[f"encoder/{conv}/{part}"] = state[f"encoder.{conv}.{part}"]
    for part in ("encoder", "decoder") if decoder else ("encoder",):
        settings = getattr(model.config, f"{part}_layers"), getattr(model.config, f"{part}_attention_heads")
        found[f"{part}/num_heads"] = np.array(settings[1], np.int16)
        found[f"{part}/position_encodings/encodings"] = state[f"{part}.embed_positions.weight"]
        affine(f"{part}/layer_norm", f"{part}.layer_norm")
        for number in range(settings[0]):
            there, here = f"{part}/layer_{number}", f"{part}.layers.{number}"
            affine(f"{there}/self_attention/layer_norm", f"{here}.self_attn_layer_norm")
            linear(f"{there}/self_attention/linear_0", *(f"{here}.self_attn.{each}_proj" for each in "qkv"))
            linear(f"{there}/self_attention/linear_1", f"{here}.self_attn.out_proj")
            if part == "decoder":
                affine(f"{there}/attention/layer_norm", f"{here}.encoder_attn_layer_norm")
                linear(f"{there}/attention/linear_0", f"{here}.encoder_attn.q_proj")
                linear(f"{there}/attention/linear_1", *(f"{here}.encoder_attn.{each}_proj" for each in "kv"))
                linear(f"{there}/attention/linear_2", f"{here}.encoder_attn.out_proj")
            affine(f"{there}/ffn/layer_norm", f"{here}.final_layer_norm")
            linear(f"{there}/ffn/linear_0", f"{here}.fc1")
            linear(f"{there}/ffn/linear_1", f"{here}.fc2")
    if decoder:
        found["decoder/embeddings/weight"] = state["decoder.embed_tokens.weight"]
    return found


def model_bin(
    tensors: dict[str, NDArray[Any]], storage: Storage = "float32", *, specification: str = "WhisperSpec"
) -> bytes:
    """The bytes of a `model.bin`; linear layers are stored as `storage`, quantised by rows or as a whole."""
    entries: list[tuple[str, str, NDArray[Any]]] = []
    for name, values in tensors.items():
        if not np.issubdtype(values.dtype, np.floating):
            entries.append((name, str(values.dtype), values))
        elif storage in ("int8", "int16") and name.endswith("weight") and "conv" not in name:
            axes = tuple(range(1, values.ndim)) if storage == "int8" else None
            limit = 127 if storage == "int8" else 1023
            scale = np.asarray(limit / np.abs(values).max(axis=axes), np.float32)
            rows = scale[:, None] if scale.ndim else scale
            entries += [(name, storage, np.rint(values * rows).astype(storage)), (f"{name}_scale", "float32", scale)]
        elif storage == "bfloat16":
            bits = torch.from_numpy(values).bfloat16().view(torch.int16).numpy()
            entries.append((name, storage, bits))
        else:
            of = "float16" if storage == "float16" else "float32"
            entries.append((name, of, values.astype(of)))
    text = b"".join(
        _text(name) + struct.pack(f"<B{values.ndim}I", values.ndim, *values.shape)
        + struct.pack("<BI", _CODES[kind], values.nbytes) + values.tobytes()
        for name, kind, values in entries
    )  # fmt: skip
    aliases = (
        [("decoder/projection/weight", "decoder/embeddings/weight")] if "decoder/embeddings/weight" in tensors else []
    )
    return b"".join(
        (
            struct.pack("<I", 6), _text(specification), struct.pack("<II", 3, len(entries)), text,
            struct.pack("<I", len(aliases)), *(_text(each) for alias in aliases for each in alias),
        )
    )  # fmt: skip


def _text(value: str) -> bytes:
    data = value.encode() + b"\0"
    return struct.pack("<H", len(data)) + data


def write_model(folder: Path, content: bytes) -> Path:
    """A folder with a `model.bin`."""
    folder.mkdir(exist_ok=True)
    (folder / "model.bin").write_bytes(content)
    return folder
