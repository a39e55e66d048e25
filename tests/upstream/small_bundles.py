"""Small bundles of torchaudio: one for each way in which its models are built, with weights drawn from a seed."""

from __future__ import annotations

from typing import Any
from unittest import mock

from torchaudio import pipelines

from repbench.upstream.adapters.speech_encoder import SpeechEncoder
from repbench.upstream.adapters.torchaudio_bundles import build

WAV2VEC2: dict[str, Any] = {
    "extractor_mode": "group_norm", "extractor_conv_bias": False, "encoder_embed_dim": 16,
    "extractor_conv_layer_config": [(8, 10, 5), *[(8, 3, 2)] * 4, *[(8, 2, 2)] * 2], "encoder_projection_dropout": 0.1,
    "encoder_pos_conv_kernel": 16, "encoder_pos_conv_groups": 4, "encoder_num_layers": 3, "encoder_num_heads": 2,
    "encoder_attention_dropout": 0.1, "encoder_ff_interm_features": 32, "encoder_ff_interm_dropout": 0.1,
    "encoder_dropout": 0.1, "encoder_layer_norm_first": False, "encoder_layer_drop": 0.1, "aux_num_out": None,
}  # fmt: skip
LARGE = {"extractor_mode": "layer_norm", "extractor_conv_bias": True, "encoder_layer_norm_first": True}
WAVLM = {"encoder_num_buckets": 32, "encoder_max_distance": 80}

BUNDLES = {
    "TINY": pipelines.Wav2Vec2Bundle("tiny.pth", WAV2VEC2, 16_000, True, "Wav2Vec2"),
    "TINY_LARGE": pipelines.Wav2Vec2Bundle("tiny_large.pth", WAV2VEC2 | LARGE, 16_000, False, "Wav2Vec2"),
    "TINY_WAVLM": pipelines.Wav2Vec2Bundle("tiny_wavlm.pth", WAV2VEC2 | WAVLM, 16_000, False, "WavLM"),
    "TINY_WAVLM_LARGE": pipelines.Wav2Vec2Bundle(
        "tiny_wavlm_large.pth", WAV2VEC2 | LARGE | WAVLM, 16_000, True, "WavLM"
    ),
}
"""As torchaudio declares BASE and LARGE models; `TINY` and `TINY_WAVLM_LARGE` hear normalised sound."""


def _factory(name: str) -> Any:
    def built(*, checkpoint: str | None = None, seed: int = 0) -> SpeechEncoder:
        with mock.patch.object(pipelines, name, BUNDLES[name], create=True):
            return build(name, checkpoint=checkpoint or "random", seed=seed)

    return built


TINY, TINY_LARGE, TINY_WAVLM, TINY_WAVLM_LARGE = (_factory(name) for name in BUNDLES)
"""Factories that a process of its own finds by name too, where torchaudio has no such bundle."""
