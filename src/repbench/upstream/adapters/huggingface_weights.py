"""Weights of a speech encoder of transformers: each one must have a place in it, or belong to a known head."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from repbench.errors import IntegrityError
from repbench.upstream.adapters.huggingface_files import CONFIG_FILE, read_settings
from repbench.upstream.checkpoints.foreign import named

_HEAD = re.compile(
    r"\w*head\w*|\w*classif\w*|quantizer|project_\w+|projector|proj_out|final_proj|layer_weights|tdnn|objective"
    r"|label_embs_concat|ctc\w*|logits?\w*|pooler|score|qa_outputs"
)
"""First parts of the names of weights that a task head adds to an encoder."""

_OPTIONAL_PARTS = {"adapter", "intermediate_ffn", "masked_spec_embed"}
"""Parts that an encoder has only if its configuration enables them."""

_COMPUTES = (
    "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
    "layer_norm_eps", "do_stable_layer_norm", "feat_extract_norm", "feat_extract_activation", "conv_dim", "conv_stride",
    "conv_kernel", "conv_bias", "num_conv_pos_embeddings", "num_conv_pos_embedding_groups", "conv_pos_kernel_size",
    "adapter_attn_dim", "num_buckets", "max_bucket_distance", "position_embeddings_type", "conv_depthwise_kernel_size",
    "d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim", "activation_function", "num_mel_bins",
    "max_source_positions", "scale_embedding", "squeeze_factor", "rotary_embedding_base", "feature_layer_norm_eps",
    "position_buckets", "max_relative_positions", "share_att_key", "pos_att_type", "relative_attention", "norm_rel_ebd",
    "encoder_num_hidden_layers", "encoder_num_attention_heads", "encoder_num_key_value_heads", "encoder_hidden_act",
    "rope_parameters", "subsampling_factor", "scale_input", "encoder_max_relative_position",
)  # fmt: skip
"""Settings that determine the hidden states of an encoder; some change no shape of a weight."""


def loaded(
    model_class: Any, config: Any, weights: dict[str, Tensor], file: Path, *, decoder: tuple[str, ...] = ()
) -> tuple[nn.Module, tuple[str, ...]]:
    """Build a model with these weights; transformers maps the names of its older versions.

    Args:
        model_class: Class of the model in transformers.
        config: Its configuration.
        weights: From names to tensors of any shape.
        file: Their source, for error messages.
        decoder: First parts of the names of weights that are not the encoder's; they may be missing.

    Returns:
        The model, and a note on the weights that were left out, if any.

    Raises:
        IntegrityError: A weight of the encoder is missing, or one is left over.
    """
    try:
        network, found = model_class.from_pretrained(
            None, config=config, state_dict=weights, output_loading_info=True, dtype=torch.float32
        )
    except RuntimeError as error:
        what = f"The weights do not fit the configuration: {error}"
        raise IntegrityError(what, file=file, do="Give the weights of this model; nothing was loaded") from error
    # Only the encoder is used, so weights of a decoder may be missing; and nothing is masked.
    unused = (*decoder, "masked_spec_embed")
    missing = [key for key in sorted(found["missing_keys"]) if not key.startswith(unused)]
    if missing:
        what = f"The weights do not fit the configuration: {len(missing)} missing: {named(missing)}"
        raise IntegrityError(what, file=file, do="Give the weights of this model; nothing was loaded")
    prefix, parts = f"{model_class.base_model_prefix}.", {name for name, _ in network.named_children()}
    unknown, heads = _sorted_out(found["unexpected_keys"], weights, prefix, parts)
    if unknown:
        what = f"The weights do not fit {CONFIG_FILE}: {len(unknown)} unexpected in the encoder: {named(unknown)}"
        do = (
            f"Correct {CONFIG_FILE} to the model that was trained (number of layers, adapter_attn_dim, add_adapter, "
            "conv_bias and the like), or give the weights of this model; nothing was loaded"
        )
        raise IntegrityError(what, file=file, do=do)
    return network, (f"{file.name} holds weights of a head, which are left out: {heads}",) if heads else ()


def _sorted_out(
    unexpected: Iterable[str], weights: Iterable[str], prefix: str, parts: set[str]
) -> tuple[list[str], str]:
    """Part the weights that the encoder did not take into its own and those of heads.

    Args:
        unexpected: Names in the file for which transformers found no place.
        weights: All names in the file.
        prefix: Prefix of the encoder's names in a file that includes a head, such as `wav2vec2.`
        parts: First parts of the encoder's own names.

    Returns:
        The names that belong to the encoder, and the heads with their numbers of weights in words.
    """
    with_head = any(key.startswith(prefix) for key in weights)
    unknown, heads = list[str](), Counter[str]()
    for key in sorted(unexpected):
        inner = key.removeprefix(prefix)
        root, _, rest = inner.partition(".")
        of_encoder = root in parts | _OPTIONAL_PARTS and not (with_head and rest in {"weight", "bias"})
        # Without effect on hidden states: a decoder, and what stands for masked frames.
        if inner.startswith("decoder.") or inner.endswith("masked_spec_embed"):
            continue
        outside = inner == key and not of_encoder
        if outside and (with_head or _HEAD.fullmatch(root)):
            heads[root] += 1
        else:
            unknown.append(key)
    return unknown, ", ".join(f"{root} ({count})" for root, count in heads.items())


def check_weights_folder(weights: Path, config: dict[str, Any], folder: Path) -> None:
    """Refuse a folder of weights whose own configuration computes other hidden states with the same shapes.

    Args:
        weights: The folder that `--checkpoint` names; if it has no configuration, nothing is checked.
        config: The configuration in use.
        folder: The folder of `config`.

    Raises:
        IntegrityError: The two configurations contradict each other; names both.
    """
    if not (weights / CONFIG_FILE).is_file():
        return
    # Parakeet's configurations hold that of the encoder.
    own, config = (each | (each.get("encoder_config") or {}) for each in (read_settings(weights, CONFIG_FILE), config))
    faults = [
        f"`{key}` is {config[key]!r} there and {own[key]!r} here"
        for key in _COMPUTES
        if key in config and key in own and config[key] != own[key]
    ]
    if faults:
        what = f"The configuration contradicts that of {folder / CONFIG_FILE}: {'; '.join(faults)}"
        do = f"Take the weights with their own configuration: --upstream hf:{weights}"
        raise IntegrityError(what, file=weights / CONFIG_FILE, do=do)
