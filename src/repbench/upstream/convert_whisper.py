"""`repbench convert FOLDER`: Whisper in CTranslate2's format becomes a folder of transformers, which `hf:` opens.

What the encoder computes is in `model.bin` alone: the sizes are those of its tensors. The decoder is converted too
where it is there, so that the folder is a whole Whisper; without it the folder holds the encoder, which is all that
`hf:` uses.

Axes: D width, H width inside the feed-forward block, K width of a kernel.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repbench.errors import IntegrityError, UsageError
from repbench.files import atomic_write, environment_faults, write_json, write_text
from repbench.tensor_files import encoded_tensors
from repbench.upstream.checkpoints.ctranslate2 import CTranslate2File, read_ctranslate2

MODEL_FILE = "model.bin"
"""Name that CTranslate2 gives the file of weights."""

_SPECIFICATION = "WhisperSpec"
_HEAD_WIDTH = 64  # of every released Whisper, for files before `num_heads` was written
_PAD_TOKEN = 50_256
_AFFINE = {"gamma": "weight", "beta": "bias"}


@dataclass(frozen=True, slots=True)
class ConvertedFolder:
    """What was written.

    Attributes:
        path: The folder.
        fields: Kind of model, notes and the like, for people and for `--json`.
    """

    path: Path
    fields: dict[str, Any]


def convert_whisper(source: Path, out: Path) -> ConvertedFolder:
    """Write a CTranslate2 Whisper as a folder of transformers: configuration, preprocessor, safetensors, card.

    Args:
        source: The folder of CTranslate2, or its `model.bin`.
        out: A new or empty folder.

    Raises:
        UsageError: There is no `model.bin`, it is of another kind of model, or `out` holds something.
        IntegrityError: The file is damaged, or its tensors are not those of a Whisper.
        EnvironmentFault: A file cannot be read or written.
    """
    file = source / MODEL_FILE if source.is_dir() else source
    if not file.is_file():
        what = f"The folder holds no {MODEL_FILE} of CTranslate2"
        do = "Name a folder that ct2-transformers-converter wrote, or a file of the Mockingjay code, S3PRL or APC"
        raise UsageError(what, file=source, do=do)
    with environment_faults(out):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UsageError("The folder is not empty", file=out, key="--out", do="Name a new or empty folder")
    content = read_ctranslate2(file)
    if content.specification != _SPECIFICATION:
        what = f"This is a model of the kind {content.specification}; of CTranslate2's models, Whisper can be read"
        raise UsageError(what, file=file, do="Give the model in the format that it was made from")
    try:
        weights = dict(_weights(content.tensors))
        config = _config(content.tensors)
    except KeyError as error:
        what = f"The file lacks `{error.args[0]}` of a Whisper"
        raise IntegrityError(what, file=file, do="Convert the model again by ct2-transformers-converter") from error
    except ValueError as error:
        raise IntegrityError(str(error), file=file, do="Fetch the model again; is it a Whisper?") from error
    notes = _notes(content, weights)
    with atomic_write(out / "model.safetensors") as stream:
        stream.write(encoded_tensors(weights, {"format": "pt"}))
    write_json(out / "preprocessor_config.json", _preprocessor(config))
    fields = {
        "upstream": f"hf:{out}",
        "config": config,
        "converted_from": file.name,
        "converted_by": f"repbench {version('repbench')}",
        "notes": notes,
    }
    write_text(out / "README.md", _card(fields))
    write_json(out / "config.json", config)  # last: a folder that was not finished is no model
    return ConvertedFolder(out, fields)


def _weights(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The weights under the names of transformers' WhisperModel; each is contiguous.

    Raises:
        KeyError: A tensor is missing; names it.
        ValueError: A tensor has another shape than its place.
    """
    for part in ("encoder", "decoder"):
        if part == "decoder" and not any(name.startswith("decoder/layer_0/") for name in tensors):
            return
        if part == "encoder":
            for conv in ("conv1", "conv2"):
                yield f"encoder.{conv}.weight", tensors[f"encoder/{conv}/weight"].contiguous()
                yield f"encoder.{conv}.bias", tensors[f"encoder/{conv}/bias"].contiguous()
        else:
            yield "decoder.embed_tokens.weight", tensors["decoder/embeddings/weight"].contiguous()
        yield f"{part}.embed_positions.weight", tensors[f"{part}/position_encodings/encodings"].contiguous()
        yield from _affine(tensors, f"{part}/layer_norm", f"{part}.layer_norm")
        for number in range(_num_layers(tensors, part)):
            source, target = f"{part}/layer_{number}", f"{part}.layers.{number}"
            yield from _self_attention(tensors, f"{source}/self_attention", target)
            if part == "decoder":
                yield from _cross_attention(tensors, f"{source}/attention", target)
            yield from _affine(tensors, f"{source}/ffn/layer_norm", f"{target}.final_layer_norm")
            yield from _linear(tensors, f"{source}/ffn/linear_0", f"{target}.fc1")
            yield from _linear(tensors, f"{source}/ffn/linear_1", f"{target}.fc2")


def _self_attention(tensors: Mapping[str, Tensor], source: str, target: str) -> Iterator[tuple[str, Tensor]]:
    yield from _affine(tensors, f"{source}/layer_norm", f"{target}.self_attn_layer_norm")
    yield from _fused(tensors, f"{source}/linear_0", f"{target}.self_attn", ("q_proj", "k_proj", "v_proj"))
    yield from _linear(tensors, f"{source}/linear_1", f"{target}.self_attn.out_proj")


def _cross_attention(tensors: Mapping[str, Tensor], source: str, target: str) -> Iterator[tuple[str, Tensor]]:
    yield from _affine(tensors, f"{source}/layer_norm", f"{target}.encoder_attn_layer_norm")
    yield from _fused(tensors, f"{source}/linear_0", f"{target}.encoder_attn", ("q_proj",))
    yield from _fused(tensors, f"{source}/linear_1", f"{target}.encoder_attn", ("k_proj", "v_proj"))
    yield from _linear(tensors, f"{source}/linear_2", f"{target}.encoder_attn.out_proj")


def _affine(tensors: Mapping[str, Tensor], source: str, target: str) -> Iterator[tuple[str, Tensor]]:
    for there, here in _AFFINE.items():
        yield f"{target}.{here}", tensors[f"{source}/{there}"].contiguous()


def _linear(tensors: Mapping[str, Tensor], source: str, target: str) -> Iterator[tuple[str, Tensor]]:
    yield f"{target}.weight", tensors[f"{source}/weight"].contiguous()
    yield f"{target}.bias", tensors[f"{source}/bias"].contiguous()


def _fused(
    tensors: Mapping[str, Tensor], source: str, target: str, parts: tuple[str, ...]
) -> Iterator[tuple[str, Tensor]]:
    """The projections that CTranslate2 stacks into one: (N * D, D) -> N times (D, D).

    Whisper's keys have no bias; the stack holds zeros in its place.
    """
    weight, bias = tensors[f"{source}/weight"], tensors[f"{source}/bias"]
    width = weight.shape[1]
    if weight.shape[0] != len(parts) * width or tuple(bias.shape) != (len(parts) * width,):
        raise ValueError(f"`{source}` has the shape {tuple(weight.shape)}, not that of {len(parts)} projections")
    # (N * D, D) -> N times (D, D), (N * D,) -> N times (D,)
    for part, matrix, vector in zip(parts, torch.split(weight, width), torch.split(bias, width), strict=True):
        yield f"{target}.{part}.weight", matrix.contiguous()
        if part != "k_proj":
            yield f"{target}.{part}.bias", vector.contiguous()
        elif bool(vector.any()):
            raise ValueError(f"The keys of `{source}` have a bias, which a Whisper has not")


def _num_layers(tensors: Mapping[str, Tensor], part: str) -> int:
    numbers = {int(found[1]) for name in tensors if (found := re.match(rf"{part}/layer_(\d+)/", name))}
    return len(numbers)  # a gap shows as a missing tensor


def _config(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The `config.json` of transformers, from the shapes of the tensors."""
    width, num_mel_bins, _ = tensors["encoder/conv1/weight"].shape  # (D, mel bands, K)
    config: dict[str, Any] = {
        "model_type": "whisper",
        "architectures": ["WhisperModel"],
        "activation_function": "gelu",
        "d_model": width,
        "num_mel_bins": num_mel_bins,
        "max_source_positions": len(tensors["encoder/position_encodings/encodings"]),
        "scale_embedding": False,
    }
    for part in ("encoder", "decoder"):
        if f"{part}/layer_0/ffn/linear_0/weight" not in tensors:
            # A decoder of no layer; the default of transformers has layers of another width.
            config |= {"decoder_layers": 0, "decoder_attention_heads": config["encoder_attention_heads"]}
            continue
        heads = tensors.get(f"{part}/num_heads", torch.tensor(width // _HEAD_WIDTH))
        config[f"{part}_layers"] = _num_layers(tensors, part)
        config[f"{part}_attention_heads"] = int(heads)
        config[f"{part}_ffn_dim"] = len(tensors[f"{part}/layer_0/ffn/linear_0/weight"])  # (H, D)
    if "decoder/embeddings/weight" in tensors:
        config["vocab_size"] = len(tensors["decoder/embeddings/weight"])
        # Of released models 50256; it only has to be in the vocabulary, whose embedding of it is read as it is.
        config["pad_token_id"] = min(_PAD_TOKEN, config["vocab_size"] - 1)
        config["max_target_positions"] = len(tensors["decoder/position_encodings/encodings"])
    return config


def _preprocessor(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of Whisper's feature extractor; all models differ in the number of bands alone."""
    rate, hop = 16000, 160
    seconds = 2 * hop * int(config["max_source_positions"]) // rate
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": config["num_mel_bins"],
        "sampling_rate": rate,
        "hop_length": hop,
        "n_fft": 400,
        "chunk_length": seconds,
        "padding_value": 0.0,
        "return_attention_mask": False,
    }


def _notes(content: CTranslate2File, weights: Mapping[str, Tensor]) -> list[str]:
    notes = []
    if content.quantised:
        notes.append(
            f"{content.quantised} weights were stored as whole numbers: the features are those of the quantised model"
        )
    elif any(values.dtype is torch.float16 for values in weights.values()):
        notes.append("the weights are of 16 bits, as in the file")
    if not any(name.startswith("decoder.") for name in weights):
        notes.append("the file holds no decoder: the folder is the encoder, which is all that `hf:` reads")
    return notes


def _card(fields: Mapping[str, Any]) -> str:
    notes = "".join(f"- {note}\n" for note in fields["notes"])
    return f"""# Whisper, converted from CTranslate2's {fields["converted_from"]}

{fields["converted_by"]} made this folder. It has no tokenizer: take that of the original. Ask for the licence and the
training data where the model comes from.

{notes}
Use it with `repbench run --upstream hf:FOLDER --downstream phone --layer all`.
"""
