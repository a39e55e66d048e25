"""Small models of transformers' speech encoders, randomly initialised and saved as their authors save theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

WAVEFORM = {
    "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32, "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
KINDS = ("wav2vec2", "wav2vec2-layer", "hubert", "wavlm", "wavlm-layer", "data2vec-audio", "whisper", "wav2vec2-bert")


def save_small(kind: str, folder: Path, *, seed: int = 0) -> Path:
    """Save a small model and its feature extractor into `folder`; whisper's window is one second."""
    import transformers

    tf: Any = transformers  # whose configurations take more than their types say
    extractor = tf.Wav2Vec2FeatureExtractor(return_attention_mask=kind not in {"wav2vec2", "wavlm"})
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if kind in {"wav2vec2", "wav2vec2-layer"}:
            norm, stable = ("layer", True) if kind == "wav2vec2-layer" else ("group", False)
            config = tf.Wav2Vec2Config(**WAVEFORM, feat_extract_norm=norm, do_stable_layer_norm=stable)
            model = tf.Wav2Vec2Model(config)
        elif kind == "hubert":
            model = tf.HubertModel(tf.HubertConfig(**WAVEFORM, feat_extract_norm="group"))
            extractor = tf.Wav2Vec2FeatureExtractor(do_normalize=False)
        elif kind in {"wavlm", "wavlm-layer"}:
            norm = "layer" if kind == "wavlm-layer" else "group"
            model = tf.WavLMModel(tf.WavLMConfig(**WAVEFORM, feat_extract_norm=norm))
        elif kind == "data2vec-audio":
            sizes = {**WAVEFORM, "num_conv_pos_embeddings": 3}
            model = tf.Data2VecAudioModel(tf.Data2VecAudioConfig(**sizes, conv_pos_kernel_size=5))
        elif kind == "whisper":
            config = tf.WhisperConfig(
                d_model=16, encoder_layers=3, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
                encoder_ffn_dim=32, decoder_ffn_dim=32, num_mel_bins=20, max_source_positions=50, vocab_size=64,
                pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=0, dropout=0.1,
            )  # fmt: skip
            model, extractor = tf.WhisperModel(config), tf.WhisperFeatureExtractor(feature_size=20, chunk_length=1)
        else:
            sizes = {key: value for key, value in WAVEFORM.items() if not key.startswith(("conv", "num_conv"))}
            config = tf.Wav2Vec2BertConfig(**sizes, feature_projection_input_dim=40, output_hidden_size=16)
            model = tf.Wav2Vec2BertModel(config)
            extractor = tf.SeamlessM4TFeatureExtractor(feature_size=20, num_mel_bins=20, stride=2)
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder
