"""Small models of transformers' speech encoders, randomly initialised and saved as their authors save theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

WAVEFORM = {
    "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32, "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
ENCODER_DECODER = {
    "encoder_layers": 3, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "vocab_size": 64, "pad_token_id": 0, "bos_token_id": 0,
    "eos_token_id": 0, "decoder_start_token_id": 0,
}  # fmt: skip
WITHOUT_MASK = {"wav2vec2", "wavlm", "sew", "sew-d", "unispeech"}
"""Kinds whose extractor gives no attention mask."""

KINDS = (
    "wav2vec2", "wav2vec2-layer", "wav2vec2-adapters", "hubert", "wavlm", "wavlm-layer", "data2vec-audio",
    "wav2vec2-conformer", "unispeech", "unispeech-layer", "unispeech-sat", "sew", "sew-d", "speecht5", "whisper",
    "moonshine", "wav2vec2-bert", "parakeet_ctc",
)  # fmt: skip


def save_small(kind: str, folder: Path, *, seed: int = 0) -> Path:
    """Save a small model and its feature extractor into `folder`; whisper's window is one second."""
    import transformers

    tf: Any = transformers  # whose configurations take more than their types say
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = _model(kind, tf)
    model.save_pretrained(folder)
    _extractor(kind, tf).save_pretrained(folder)
    return folder


def _model(kind: str, tf: Any) -> Any:
    family, _, variant = kind.partition("-layer")
    norm = {"feat_extract_norm": "layer" if variant or kind != family else "group"}
    match family:
        case "wav2vec2":
            return tf.Wav2Vec2Model(tf.Wav2Vec2Config(**WAVEFORM, **norm, do_stable_layer_norm=kind != family))
        case "wav2vec2-adapters":  # as MMS has them
            sizes = {**WAVEFORM, "feat_extract_norm": "layer", "do_stable_layer_norm": True, "adapter_attn_dim": 4}
            return tf.Wav2Vec2Model(tf.Wav2Vec2Config(**sizes))
        case "hubert":
            return tf.HubertModel(tf.HubertConfig(**WAVEFORM, **norm))
        case "wavlm":
            return tf.WavLMModel(tf.WavLMConfig(**WAVEFORM, **norm))
        case "data2vec-audio":
            sizes = {**WAVEFORM, "num_conv_pos_embeddings": 3}
            return tf.Data2VecAudioModel(tf.Data2VecAudioConfig(**sizes, conv_pos_kernel_size=5))
        case "wav2vec2-conformer":
            return tf.Wav2Vec2ConformerModel(tf.Wav2Vec2ConformerConfig(**WAVEFORM, feat_extract_norm="layer"))
        case "unispeech":
            sizes = {**WAVEFORM, **norm, "num_codevectors_per_group": 8, "codevector_dim": 16}
            return tf.UniSpeechModel(tf.UniSpeechConfig(**sizes))
        case "unispeech-sat":
            sizes = {**WAVEFORM, "feat_extract_norm": "layer", "do_stable_layer_norm": True}
            return tf.UniSpeechSatModel(tf.UniSpeechSatConfig(**sizes, num_codevectors_per_group=8, codevector_dim=16))
        case "sew" | "sew-d":
            convolutions = {"conv_kernel": [10, 3, 3, 3, 3, 2, 2], "conv_stride": [5, 2, 2, 2, 2, 2, 2]}
            config, model = (tf.SEWConfig, tf.SEWModel) if family == "sew" else (tf.SEWDConfig, tf.SEWDModel)
            return model(config(**WAVEFORM, **convolutions))
        case "speecht5":
            prenet = {"conv_dim": [8] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
            return tf.SpeechT5ForSpeechToText(tf.SpeechT5Config(**ENCODER_DECODER, **prenet, hidden_size=16))
        case "whisper":
            sizes = {**ENCODER_DECODER, "d_model": 16, "num_mel_bins": 20, "max_source_positions": 50}
            return tf.WhisperModel(tf.WhisperConfig(**sizes, dropout=0.1))
        case "moonshine":
            sizes = {
                "hidden_size": 16, "intermediate_size": 32, "encoder_num_hidden_layers": 3,
                "decoder_num_hidden_layers": 1, "encoder_num_attention_heads": 2, "decoder_num_attention_heads": 2,
            }  # fmt: skip
            sizes["attention_dropout"] = 0.1
            tokens = {"vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
            return tf.MoonshineModel(tf.MoonshineConfig(**sizes, **tokens))
        case "wav2vec2-bert":
            sizes = {key: value for key, value in WAVEFORM.items() if not key.startswith(("conv", "num_conv"))}
            config = tf.Wav2Vec2BertConfig(**sizes, feature_projection_input_dim=40, output_hidden_size=16)
            return tf.Wav2Vec2BertModel(config)
        case "parakeet_ctc":
            sizes = {key: value for key, value in WAVEFORM.items() if not key.startswith(("conv", "num_conv"))}
            encoder = {**sizes, "num_mel_bins": 16, "subsampling_conv_channels": 8}
            return tf.ParakeetForCTC(tf.ParakeetCTCConfig(encoder_config=encoder, vocab_size=64, pad_token_id=0))
    raise AssertionError(f"there is no small {kind}")


def _extractor(kind: str, tf: Any) -> Any:
    match kind:
        case "whisper":
            return tf.WhisperFeatureExtractor(feature_size=20, chunk_length=1)
        case "wav2vec2-bert":
            return tf.SeamlessM4TFeatureExtractor(feature_size=20, num_mel_bins=20, stride=2)
        case "parakeet_ctc":
            return tf.ParakeetFeatureExtractor(feature_size=16)
        case "speecht5":
            return tf.SpeechT5FeatureExtractor()
        case "hubert" | "moonshine":
            return tf.Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=kind == "moonshine")
    return tf.Wav2Vec2FeatureExtractor(return_attention_mask=kind not in WITHOUT_MASK)
