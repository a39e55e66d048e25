"""The families of speech encoders that `hf:` supports: their feature extractors, frame counts and hidden states.

The feature extractor of the model prepares the sound by its configuration. A family with `pads` encodes padded
batches; the others encode each utterance alone.

Axes: L layers, B batch, T samples, F frames, D width.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from repbench.errors import IntegrityError, PluginError
from repbench.upstream.adapters.frame_counts import FrameClock, clock_of_convolutions
from repbench.upstream.adapters.huggingface_files import CONFIG_FILE, nested_preprocessor

HEEDS_MASK = frozenset({"wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat"})
"""Families of waveforms whose attention mask keeps padding from every hidden state.

data2vec-audio has several convolutions of positions; all but the first depend on the padding. The convolutions in the
layers of wav2vec2-conformer read it, and so do the average of SEW over two frames and SpeechT5's convolutions.
"""


class WaveformPreprocessor:
    """wav2vec 2.0 and its kin: convolutions without padding, then a transformer.

    With `feat_extract_norm` "group" a convolution is normalised over the whole time, padding included.

    Args:
        config: The configuration of the model.
        extractor: Its feature extractor.
    """

    cuts_long_sounds = False

    def __init__(self, config: Any, extractor: Any) -> None:
        self._clock: FrameClock = clock_of_convolutions(*self._convolutions(config))
        self.hop_samples = self._clock.hop_samples
        self.first_center_samples = self._clock.first_center_samples
        self.min_samples = self._clock.window_samples
        heeds_mask = config.model_type in HEEDS_MASK and config.feat_extract_norm == "layer"
        self.pads = bool(extractor.return_attention_mask) and heeds_mask
        self._extractor = extractor

    def _convolutions(self, config: Any) -> tuple[Sequence[int], Sequence[int]]:
        """Kernels and strides from the waveform to the frames of the hidden states."""
        return config.conv_kernel, config.conv_stride

    def num_frames(self, num_samples: int) -> int:
        return self._clock.num_frames(num_samples)

    def encode(self, network: nn.Module, waveforms: Sequence[Tensor]) -> list[Tensor]:
        states = _hidden_states(network, _extracted(self._extractor, waveforms, padding=True))
        counts = [self.num_frames(len(waveform)) for waveform in waveforms]
        _check_count(states.shape[2], max(counts), max(map(len, waveforms)))
        # (L, B, F, D) -> B times (L, F, D)
        return [states[:, row, :count] for row, count in enumerate(counts)]


class SqueezedPreprocessor(WaveformPreprocessor):
    """SEW and SEW-D: the layers read means of `squeeze_factor` (2) frames of the convolutions.

    The model repeats the last hidden state at the rate of the convolutions; its hidden states are at the lower one.
    """

    def _convolutions(self, config: Any) -> tuple[Sequence[int], Sequence[int]]:
        kernels, strides = super()._convolutions(config)
        return [*kernels, config.squeeze_factor], [*strides, config.squeeze_factor]


class MoonshinePreprocessor(WaveformPreprocessor):
    """Moonshine's encoder: three convolutions, the first normalised over the whole time, padding included."""

    def _convolutions(self, config: Any) -> tuple[Sequence[int], Sequence[int]]:
        return (127, 7, 3), (64, 3, 2)  # constants in the model's code


class FilterBankPreprocessor:
    """w2v-BERT: Kaldi's filter bank, normalised over each utterance.

    A frame of the model stacks `stride` (2) frames of the filter bank. The extractor masks an odd last frame; it
    gives no frame of the model.

    Args:
        config: The configuration of the model.
        extractor: Its feature extractor.
    """

    pads = True
    cuts_long_sounds = False

    def __init__(self, config: Any, extractor: Any) -> None:
        window, hop = 400, 160  # constants in the extractor's code
        self._bank = FrameClock(hop_samples=hop, window_samples=window)
        self._stride = int(extractor.stride)
        self.hop_samples = self._stride * hop
        self.min_samples = window + max(1, self._stride - 1) * hop  # a variance needs two frames
        # The middle of the `stride` windows that a frame of the model covers.
        self.first_center_samples = (window + (self._stride - 1) * hop) // 2
        self._extractor = extractor

    def num_frames(self, num_samples: int) -> int:
        return self._bank.num_frames(num_samples) // self._stride

    def encode(self, network: nn.Module, waveforms: Sequence[Tensor]) -> list[Tensor]:
        inputs = _extracted(self._extractor, waveforms, padding=True)
        states = _hidden_states(network, inputs)
        counts = [self.num_frames(len(waveform)) for waveform in waveforms]
        # Checked by the extractor's mask: the hidden states have as many frames as the longest row, in every row.
        valid = inputs["attention_mask"].sum(dim=1).tolist()  # (B, F) -> (B,)
        for count, given, waveform in zip(counts, valid, waveforms, strict=True):
            _check_count(given, count, len(waveform))
        # (L, B, F, D) -> B times (L, F, D)
        return [states[:, row, :count] for row, count in enumerate(counts)]


class SubsampledPreprocessor:
    """Parakeet's encoder (FastConformer): a log-mel spectrogram, then strided convolutions.

    Mel frame j is centred at sample j * `hop_length`. Each convolution has a stride of 2 and a padding that puts its
    output k on input 2k, so frame k of the model is centred on mel frame k * `subsampling_factor` (8).

    Args:
        config: The configuration of the encoder.
        extractor: Its feature extractor.
    """

    first_center_samples = 0
    pads = True
    cuts_long_sounds = False

    def __init__(self, config: Any, extractor: Any) -> None:
        self._mel_hop = int(extractor.hop_length)
        self._stride = int(config.subsampling_factor)
        self.hop_samples = self._stride * self._mel_hop
        self.min_samples = 2 * self._mel_hop  # a variance needs two frames
        self._extractor = extractor

    def num_frames(self, num_samples: int) -> int:
        # Rounding up at each convolution equals rounding up once.
        return -(-(num_samples // self._mel_hop) // self._stride)

    def encode(self, network: nn.Module, waveforms: Sequence[Tensor]) -> list[Tensor]:
        inputs = _extracted(self._extractor, waveforms)
        states = _hidden_states(network, inputs)
        counts = [self.num_frames(len(waveform)) for waveform in waveforms]
        # As for w2v-BERT, the mask counts: the spectrogram has one frame more than the longest row.
        valid = (-(-inputs["attention_mask"].sum(dim=1) // self._stride)).tolist()  # (B, mel frames) -> (B,)
        for count, given, waveform in zip(counts, valid, waveforms, strict=True):
            _check_count(given, count, len(waveform))
        _check_count(states.shape[2], -(-inputs["attention_mask"].shape[1] // self._stride), max(map(len, waveforms)))
        # (L, B, F, D) -> B times (L, F, D)
        return [states[:, row, :count] for row, count in enumerate(counts)]


class WindowPreprocessor:
    """Whisper's encoder: windows padded with silence to 30 s; a frame of the model covers two log-mel frames.

    Frame k is centred at sample k * hop; the frames whose centre is inside the utterance are kept. A longer utterance
    is split into windows without overlap. Each is encoded alone, so no frame depends on samples of another window.

    Args:
        config: The configuration of the model.
        extractor: Its feature extractor.
    """

    first_center_samples = 0
    min_samples = 1
    pads = False
    cuts_long_sounds = True

    def __init__(self, config: Any, extractor: Any) -> None:
        self._stride = 2  # of the encoder's second convolution
        self.hop_samples = self._stride * int(extractor.hop_length)
        self._window_samples = int(extractor.n_samples)
        self._window_frames = int(config.max_source_positions)
        self._extractor = extractor

    def num_frames(self, num_samples: int) -> int:
        # Centres k * hop < T: the ceiling of T / hop.
        return -(-num_samples // self.hop_samples)

    def encode(self, network: nn.Module, waveforms: Sequence[Tensor]) -> list[Tensor]:
        (waveform,) = waveforms
        # (T,) -> (T_i,) each; only the last may be shorter
        windows = torch.split(waveform, self._window_samples)
        # (L, F_i, D) of each window -> (L, F, D) of the utterance
        states = torch.cat([self._encode_window(network, window) for window in windows], dim=1)
        _check_count(states.shape[1], self.num_frames(len(waveform)), len(waveform))
        return [states]

    def _encode_window(self, network: nn.Module, window: Tensor) -> Tensor:
        """(T,) -> (L, F, D): the frames of a window without those of the silence that pads it.

        The extractor's mask gives their number; the encoder takes no mask.
        """
        inputs = _extracted(self._extractor, [window], return_attention_mask=True)
        # (1, log-mel frames) -> the number that is not padding -> half of it, rounded up
        count = -(-int(inputs.pop("attention_mask").sum()) // self._stride)
        states = _hidden_states(network, inputs)
        _check_count(states.shape[2], self._window_frames, self._window_samples)
        return states[:, 0, :count]  # (L, 1, F, D) -> (L, F, D)


class Family(NamedTuple):
    """A kind of model that `hf:` supports.

    Attributes:
        model: Class of the model in transformers.
        extractor: Class of its feature extractor in transformers.
        preprocessor: Our class that counts frames and calls both.
        encoder: Path of the encoder in the model; "" if the model is the encoder.
        decoder: First parts of the names of weights that are not the encoder's; they may be missing.
        num_layers: The setting that holds the number of layers.
        layers: Path of the layers in the encoder.
        last_norm: Path of a normalisation after all layers; "" if there is none. Where a setting `do_stable_layer_norm`
            is false, the normalisation of this name is before the layers. transformers 4 applies it to the last hidden
            state, 5 to its output alone.
    """

    model: str
    extractor: str
    preprocessor: (
        type[WaveformPreprocessor]
        | type[FilterBankPreprocessor]
        | type[SubsampledPreprocessor]
        | type[WindowPreprocessor]
    )
    encoder: str = ""
    decoder: tuple[str, ...] = ()
    num_layers: str = "num_hidden_layers"
    layers: str = "encoder.layers"
    last_norm: str = ""


_WAVEFORMS = "Wav2Vec2FeatureExtractor"
_AFTER = "encoder.layer_norm"
_PARAKEET = Family("ParakeetEncoder", "ParakeetFeatureExtractor", SubsampledPreprocessor, layers="layers")

FAMILIES = {
    "wav2vec2": Family("Wav2Vec2Model", _WAVEFORMS, WaveformPreprocessor, last_norm=_AFTER),
    "hubert": Family("HubertModel", _WAVEFORMS, WaveformPreprocessor, last_norm=_AFTER),
    "wavlm": Family("WavLMModel", _WAVEFORMS, WaveformPreprocessor, last_norm=_AFTER),
    "data2vec-audio": Family("Data2VecAudioModel", _WAVEFORMS, WaveformPreprocessor),
    "wav2vec2-conformer": Family("Wav2Vec2ConformerModel", _WAVEFORMS, WaveformPreprocessor, last_norm=_AFTER),
    "unispeech": Family("UniSpeechModel", _WAVEFORMS, WaveformPreprocessor, last_norm=_AFTER),
    "unispeech-sat": Family("UniSpeechSatModel", _WAVEFORMS, WaveformPreprocessor, last_norm=_AFTER),
    "sew": Family("SEWModel", _WAVEFORMS, SqueezedPreprocessor),
    "sew-d": Family("SEWDModel", _WAVEFORMS, SqueezedPreprocessor, layers="encoder.encoder.layer"),
    "speecht5": Family(
        "SpeechT5ForSpeechToText",
        "SpeechT5FeatureExtractor",
        WaveformPreprocessor,
        encoder="speecht5.encoder",
        decoder=("speecht5.decoder.", "text_decoder_postnet."),
        num_layers="encoder_layers",
        layers="wrapped_encoder.layers",
    ),
    "whisper": Family(
        "WhisperModel",
        "WhisperFeatureExtractor",
        WindowPreprocessor,
        encoder="encoder",
        decoder=("decoder.",),
        num_layers="encoder_layers",
        layers="layers",
        last_norm="layer_norm",
    ),
    "moonshine": Family(
        "MoonshineModel",
        _WAVEFORMS,
        MoonshinePreprocessor,
        encoder="encoder",
        decoder=("decoder.",),
        num_layers="encoder_num_hidden_layers",
        layers="layers",
        last_norm="layer_norm",
    ),
    "wav2vec2-bert": Family("Wav2Vec2BertModel", "SeamlessM4TFeatureExtractor", FilterBankPreprocessor),
    "parakeet_encoder": _PARAKEET,
    "parakeet_ctc": _PARAKEET,
    "parakeet_rnnt": _PARAKEET,
    "parakeet_tdt": _PARAKEET,
}
"""By the `model_type` of a configuration."""


def layer_modules(family: Family, network: nn.Module, config: Any) -> list[list[nn.Module]]:
    """The modules of each encoder layer; a normalisation after all layers belongs to the last."""
    layers = [[layer] for layer in network.get_submodule(family.layers).children()]
    if family.last_norm and getattr(config, "do_stable_layer_norm", True):
        layers[-1].append(network.get_submodule(family.last_norm))
    return layers


def _extracted(extractor: Any, waveforms: Sequence[Tensor], **options: Any) -> dict[str, Tensor]:
    """The inputs of the network that the extractor makes of waveforms (T,), on their device."""
    samples = [waveform.detach().cpu().numpy() for waveform in waveforms]
    made = extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="pt", **options)
    return {name: values.to(waveforms[0].device) for name, values in made.items()}


def _hidden_states(network: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """All hidden states of a call of the network: (L, B, F, D)."""
    with warnings.catch_warnings():
        # WavLM gives torch a boolean mask with a float one; torch converts it to the same numbers.
        warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask and attn_mask", UserWarning)
        # L times (B, F, D) -> (L, B, F, D)
        return torch.stack(network(**inputs, output_hidden_states=True).hidden_states)


def _check_count(given: int, expected: int, num_samples: int) -> None:
    """Refuse a model that gives another number of frames than its family; cutting them would hide the difference.

    Raises:
        PluginError: `given` is not `expected`.
    """
    if given != expected:
        what = f"The model gives {given} frames for {num_samples} samples, but its configuration calls for {expected}"
        do = "It differs from its family; give it as py:module:attribute with a declaration"
        raise PluginError(what, key="hf", do=do)


def check_extractor(family: Family, config: Any, extractor: Any, settings: dict[str, Any], file: Path) -> None:
    """Refuse a feature extractor whose output does not fit the input of the model.

    Args:
        family: The family of the model.
        config: Its configuration.
        extractor: Its feature extractor.
        settings: The JSON of the extractor.
        file: The file that holds `settings`.

    Raises:
        IntegrityError: The two files contradict each other; names both, and the settings.
    """
    declared = nested_preprocessor(settings).get("feature_extractor_type", family.extractor)
    pairs: list[tuple[str, object, str, object]] = [
        ("model_type", family.extractor, "feature_extractor_type", declared)
    ]
    if family.preprocessor is WindowPreprocessor:
        window = 2 * extractor.hop_length * config.max_source_positions
        pairs += [
            ("num_mel_bins", config.num_mel_bins, "feature_size", extractor.feature_size),
            ("max_source_positions", f"{window} samples", "chunk_length", f"{extractor.n_samples} samples"),
        ]
    elif family.preprocessor is FilterBankPreprocessor:
        stacked = extractor.num_mel_bins * extractor.stride
        pairs.append(("feature_projection_input_dim", config.feature_projection_input_dim, "num_mel_bins", stacked))
    elif family.preprocessor is SubsampledPreprocessor:
        pairs.append(("num_mel_bins", config.num_mel_bins, "feature_size", extractor.feature_size))
    elif family.preprocessor is MoonshinePreprocessor:
        pairs.append(("channels", 1, "feature_size", extractor.feature_size))
    else:
        pairs.append(("conv_dim", 1, "feature_size", extractor.feature_size))
    faults = [
        f"`{one}` of {CONFIG_FILE} calls for {needed}, but `{other}` of {file.name} gives {given}"
        for one, needed, other, given in pairs
        if needed != given
    ]
    if faults:
        what = f"Two files of the model contradict each other: {'; '.join(faults)}"
        do = f"Fetch {CONFIG_FILE} and {file.name} again, both from the model whose weights these are"
        raise IntegrityError(what, file=file.parent, do=do)
