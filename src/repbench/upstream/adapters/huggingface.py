"""`hf:DIR_OR_REPO`: the speech encoders of transformers, with their own feature extractors and hidden states.

wav2vec 2.0, HuBERT, WavLM and data2vec-audio hear the waveform, Whisper's encoder and w2v-BERT a spectrogram. What is
done to the sound before is done by the model's own feature extractor, as its configuration says. The layers are
transformers' `hidden_states`: what enters the first encoder layer, then what each layer gives.

Utterances go through the model together only where that changes nothing: where its extractor gives an attention mask
and the model heeds it everywhere. Otherwise each goes alone, in the same call.

Fine-tuning has the model's own dropout. No layer is dropped and nothing is masked (SpecAugment): transformers draws the
masks from numpy's global generator, so that a seed would not decide the result.

Whisper hears windows of 30 s and nothing else. A longer utterance is cut into such windows, one after the other
without overlap; each is heard by itself and their frames are put together, so no frame hears over the edge of a window.

transformers is imported inside functions: that takes seconds.

Legend: L layers, B batch, T samples, F frames, D width.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from repbench.errors import IntegrityError, PluginError, UsageError
from repbench.globalstate import preserved_global_state
from repbench.torch_pairs import without_broken_torchaudio
from repbench.upstream.adapters.frame_counts import FrameClock, clock_of_convolutions, joined
from repbench.upstream.adapters.huggingface_files import (
    CONFIG_FILE,
    folder_of,
    lasting,
    missing_package,
    nested_preprocessor,
    read_preprocessor,
    read_settings,
    read_weights,
    said_by_card,
    weights_files,
)
from repbench.upstream.checkpoints.factory import RANDOM, seeded
from repbench.upstream.checkpoints.foreign import named, unwrapped
from repbench.upstream.contract import (
    HiddenStates,
    Provenance,
    UpstreamFactory,
    UpstreamInfo,
    check_lengths,
    fingerprint_of,
)


class _Ears(Protocol):
    """How the models of a family hear: what goes into the network, and when each of its frames is."""

    hop_samples: int
    first_center_samples: int
    min_samples: int
    pads: bool

    def num_frames(self, num_samples: int) -> int:
        """Frames of a waveform of `num_samples`."""
        ...

    def hear(self, network: nn.Module, sounds: Sequence[Tensor]) -> list[Tensor]:
        """The hidden states (L, F, D) of each sound (T,); more than one only if `pads`."""
        ...


class _OfWaveforms:
    """wav2vec 2.0, HuBERT, WavLM and data2vec-audio: convolutions without padding, then a transformer.

    With `feat_extract_norm` "group" a convolution is normalised over the whole time, padding included; data2vec-audio
    has several convolutions of positions, of which all but the first hear what the padding has become.
    """

    def __init__(self, config: Any, extractor: Any) -> None:
        self._clock: FrameClock = clock_of_convolutions(config.conv_kernel, config.conv_stride)
        self.hop_samples = self._clock.hop_samples
        self.first_center_samples = self._clock.first_center_samples
        self.min_samples = self._clock.window_samples
        heeds_mask = config.model_type != "data2vec-audio" and config.feat_extract_norm == "layer"
        self.pads = bool(extractor.return_attention_mask) and heeds_mask
        self._extractor = extractor

    def num_frames(self, num_samples: int) -> int:
        return self._clock.num_frames(num_samples)

    def hear(self, network: nn.Module, sounds: Sequence[Tensor]) -> list[Tensor]:
        states = _hidden_states(network, _extracted(self._extractor, sounds, padding=True))
        counts = [self.num_frames(len(sound)) for sound in sounds]
        _hold_to_count(states.shape[2], max(counts), max(map(len, sounds)))
        return [states[:, row, :count] for row, count in enumerate(counts)]


class _OfFilterBanks:
    """w2v-BERT: Kaldi's filter bank normalised over each utterance, two frames of it to one of the model.

    An odd last frame of the filter bank has no partner and, by the extractor's mask, no frame of the model.
    """

    pads = True

    def __init__(self, config: Any, extractor: Any) -> None:
        window, hop = 400, 160  # fixed in the extractor's code
        self._bank = FrameClock(hop_samples=hop, window_samples=window)
        self._stride = int(extractor.stride)
        self.hop_samples = self._stride * hop
        self.min_samples = window + max(1, self._stride - 1) * hop  # a variance takes two frames
        self.first_center_samples = (window + (self._stride - 1) * hop) // 2
        self._extractor = extractor

    def num_frames(self, num_samples: int) -> int:
        return self._bank.num_frames(num_samples) // self._stride

    def hear(self, network: nn.Module, sounds: Sequence[Tensor]) -> list[Tensor]:
        inputs = _extracted(self._extractor, sounds, padding=True)
        states = _hidden_states(network, inputs)
        counts = [self.num_frames(len(sound)) for sound in sounds]
        for count, given, sound in zip(counts, inputs["attention_mask"].sum(dim=1).tolist(), sounds, strict=True):
            _hold_to_count(given, count, len(sound))
        return [states[:, row, :count] for row, count in enumerate(counts)]


class _OfWindows:
    """Whisper's encoder: log-mel frames of windows filled up to 30 s with silence, two of them to one of the model.

    Frame k is centred at sample k * hop; those whose centre lies inside the utterance are its frames.
    """

    first_center_samples = 0
    min_samples = 1
    pads = False

    def __init__(self, config: Any, extractor: Any) -> None:
        self._stride = 2  # of the encoder's second convolution
        self.hop_samples = self._stride * int(extractor.hop_length)
        self._window_samples = int(extractor.n_samples)
        self._window_frames = int(config.max_source_positions)
        self._extractor = extractor

    def num_frames(self, num_samples: int) -> int:
        return -(-num_samples // self.hop_samples)

    def hear(self, network: nn.Module, sounds: Sequence[Tensor]) -> list[Tensor]:
        (sound,) = sounds
        heard = [self._hear_window(network, window) for window in torch.split(sound, self._window_samples)]
        states = torch.cat(heard, dim=1)
        _hold_to_count(states.shape[1], self.num_frames(len(sound)), len(sound))
        return [states]

    def _hear_window(self, network: nn.Module, window: Tensor) -> Tensor:
        """(T,) -> (L, F, D): those frames of a window that are not of the silence behind a sound.

        By the extractor's mask; the encoder takes none.
        """
        inputs = _extracted(self._extractor, [window], return_attention_mask=True)
        count = -(-int(inputs.pop("attention_mask").sum()) // self._stride)
        states = _hidden_states(network, inputs)
        _hold_to_count(states.shape[2], self._window_frames, self._window_samples)
        return states[:, 0, :count]


class _Family(NamedTuple):
    """The names in transformers of a family's classes, and how it hears."""

    model: str
    extractor: str
    ears: type[_OfWaveforms] | type[_OfFilterBanks] | type[_OfWindows]


FAMILIES = {
    "wav2vec2": _Family("Wav2Vec2Model", "Wav2Vec2FeatureExtractor", _OfWaveforms),
    "hubert": _Family("HubertModel", "Wav2Vec2FeatureExtractor", _OfWaveforms),
    "wavlm": _Family("WavLMModel", "Wav2Vec2FeatureExtractor", _OfWaveforms),
    "data2vec-audio": _Family("Data2VecAudioModel", "Wav2Vec2FeatureExtractor", _OfWaveforms),
    "whisper": _Family("WhisperModel", "WhisperFeatureExtractor", _OfWindows),
    "wav2vec2-bert": _Family("Wav2Vec2BertModel", "SeamlessM4TFeatureExtractor", _OfFilterBanks),
}
"""By the `model_type` of a configuration."""


class HuggingFaceUpstream(nn.Module):
    """A speech encoder of transformers as an upstream.

    Args:
        name: What it is called.
        network: The encoder.
        ears: How it hears.
        sample_rate_hz: What its extractor takes.
        settings: All that the numbers depend on beside the weights: configuration and preprocessor.
        said: Citation and licence.
        provenance: Where the weights come from.
    """

    code_version = 1

    def __init__(
        self,
        name: str,
        network: nn.Module,
        ears: _Ears,
        *,
        sample_rate_hz: int,
        settings: dict[str, Any],
        said: tuple[str, str],
        provenance: Provenance,
    ) -> None:
        super().__init__()
        self.network = network
        self.provenance = provenance
        self._ears = ears
        self._settings = settings
        config: Any = network.config
        self.info = UpstreamInfo(
            name=name,
            sample_rate_hz=sample_rate_hz,
            hop_samples=ears.hop_samples,
            first_center_samples=ears.first_center_samples,
            min_samples=ears.min_samples,
            layer_names=("embedding", *(f"layer {number}" for number in range(1, _num_layers(config) + 1))),
            width=config.hidden_size,
            utterance_normalised=False,
            trainable=True,
            citation=said[0],
            licence=said[1],
        )

    def num_frames(self, num_samples: int) -> int:
        """Frames that a waveform of `num_samples` gives, by the model's strides and windows."""
        return self._ears.num_frames(num_samples)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        """(B, T) -> (L, B, F, D)."""
        check_lengths(self.info, lengths)
        sounds = [waveform[:length] for waveform, length in zip(waveforms, lengths.tolist(), strict=True)]
        groups = [sounds] if self._ears.pads else [[sound] for sound in sounds]
        return joined([states for group in groups for states in self._ears.hear(self.network, group)])

    def fingerprint(self) -> str:
        """SHA-256 of weights, configuration, preprocessor and code version; not of where they lie."""
        return fingerprint_of(self, self._settings, self.code_version)


def door(source: str) -> UpstreamFactory:
    """The factory of the model that `hf:SOURCE` names: a folder, or a repository in Hugging Face's cache."""
    return partial(build, source)


def build(source: str, *, checkpoint: str | None = None, seed: int = 0) -> HuggingFaceUpstream:
    """Build a speech encoder of transformers, in eval mode on the CPU, without the network.

    Args:
        source: A folder as `save_pretrained` of model and feature extractor write it, or OWNER/NAME in the cache.
        checkpoint: None: the safetensors in the folder. A file, in the folder or elsewhere, or another folder: those
            weights; a pickle is read only where it is named so, and without running what is in it. `random`: untrained.
        seed: Of untrained weights.

    Raises:
        UsageError: There is no such model, its family is not supported, or a file of it is missing.
        IntegrityError: The weights are damaged, or not those of the configuration.
        EnvironmentFault: transformers is not installed.
    """
    folder = folder_of(source)
    preprocessor, preprocessor_file = read_preprocessor(folder)
    settings = {"config": lasting(read_settings(folder, CONFIG_FILE)), "preprocessor": lasting(preprocessor)}
    family = _family_of(settings["config"], folder)
    if checkpoint is not None:
        _hold_to_own_configuration(Path(checkpoint), settings["config"], folder)
    untrained = checkpoint == RANDOM
    files = [] if untrained else weights_files(folder, checkpoint)
    notes: tuple[str, ...] = ()
    with _transformers() as transformers:
        config, extractor = _configured(transformers, family, folder)
        _hold_to_each_other(family, config, extractor, preprocessor, preprocessor_file)
        ears = family.ears(config, extractor)
        model_class = getattr(transformers, family.model)
        if untrained:
            with seeded(seed):
                network = model_class(config)
        else:
            weights, unwrapping = unwrapped(read_weights(files), file=files[0])
            network, left_out = _loaded(model_class, config, weights, files[0])
            notes = (*unwrapping, *left_out)
    if family.model == "WhisperModel":
        network = network.encoder
    place = str(folder) if checkpoint is None else checkpoint
    if files and not Path(place).is_dir():
        place = str(files[0])
    upstream = HuggingFaceUpstream(
        f"hf:{source}",
        network,
        ears,
        sample_rate_hz=extractor.sampling_rate,
        settings=settings,
        said=said_by_card(folder),
        provenance=Provenance(checkpoint=place, notes=notes),
    )
    return upstream.eval()


def _family_of(config: dict[str, Any], folder: Path) -> _Family:
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        do = f"Supported are {', '.join(FAMILIES)}; any other model can come as py:module:attribute"
        raise UsageError(f"A model of the type `{kind}` is not supported", key="model_type", file=folder, do=do)
    return FAMILIES[kind]


@contextlib.contextmanager
def _transformers() -> Iterator[Any]:
    """transformers, without its progress bars and reports, and with the global state put back that it changes."""
    with preserved_global_state(), without_broken_torchaudio():
        try:
            import transformers
            from transformers.utils import logging as reports
        except ImportError as error:
            raise missing_package(error) from error
        logging: Any = reports  # untyped
        verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            yield transformers
        finally:
            logging.set_verbosity(verbosity)
            if bars:
                logging.enable_progress_bar()


def _configured(transformers: Any, family: _Family, folder: Path) -> tuple[Any, Any]:
    """The configuration and the feature extractor in the folder; no code that lies there is run."""
    model_class, extractor_class = getattr(transformers, family.model), getattr(transformers, family.extractor)
    try:
        config = model_class.config_class.from_pretrained(folder, local_files_only=True)
        extractor = extractor_class.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        what = f"transformers does not understand this model: {error}"
        raise IntegrityError(what, file=folder, do="Fetch the model again, or update transformers") from error
    for name, value in _ONLY_IN_TRAINING.items():
        if hasattr(config, name):
            setattr(config, name, value)
    return config, extractor


def _hold_to_each_other(
    family: _Family, config: Any, extractor: Any, preprocessor: dict[str, Any], preprocessor_file: Path
) -> None:
    """Refuse a feature extractor that is not that of the model, whose input has another shape or another meaning.

    Raises:
        IntegrityError: The two files contradict each other; names both, and the settings.
    """
    told = nested_preprocessor(preprocessor).get("feature_extractor_type", family.extractor)
    pairs: list[tuple[str, object, str, object]] = [("model_type", family.extractor, "feature_extractor_type", told)]
    if family.ears is _OfWindows:
        window = 2 * extractor.hop_length * config.max_source_positions
        pairs += [
            ("num_mel_bins", config.num_mel_bins, "feature_size", extractor.feature_size),
            ("max_source_positions", f"{window} samples", "chunk_length", f"{extractor.n_samples} samples"),
        ]
    elif family.ears is _OfFilterBanks:
        stacked = extractor.num_mel_bins * extractor.stride
        pairs.append(("feature_projection_input_dim", config.feature_projection_input_dim, "num_mel_bins", stacked))
    else:
        pairs.append(("conv_dim", 1, "feature_size", extractor.feature_size))
    faults = [
        f"`{one}` of {CONFIG_FILE} calls for {needed}, but `{other}` of {preprocessor_file.name} gives {given}"
        for one, needed, other, given in pairs
        if needed != given
    ]
    if faults:
        what = f"Two files of the model contradict each other: {'; '.join(faults)}"
        do = f"Fetch {CONFIG_FILE} and {preprocessor_file.name} again, both from the model whose weights these are"
        raise IntegrityError(what, file=preprocessor_file.parent, do=do)


def _hold_to_own_configuration(weights: Path, config: dict[str, Any], folder: Path) -> None:
    """Refuse a folder of weights whose own configuration computes something else, be the shapes the same.

    Raises:
        IntegrityError: The two configurations contradict each other; names both.
    """
    if not (weights / CONFIG_FILE).is_file():
        return
    own = read_settings(weights, CONFIG_FILE)
    faults = [
        f"`{key}` is {config[key]!r} there and {own[key]!r} here"
        for key in _COMPUTES
        if key in config and key in own and config[key] != own[key]
    ]
    if faults:
        what = f"The configuration contradicts that of {folder / CONFIG_FILE}: {'; '.join(faults)}"
        do = f"Take the weights with their own configuration: --upstream hf:{weights}"
        raise IntegrityError(what, file=weights / CONFIG_FILE, do=do)


_COMPUTES = (
    "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
    "layer_norm_eps", "do_stable_layer_norm", "feat_extract_norm", "feat_extract_activation", "conv_dim", "conv_stride",
    "conv_kernel", "conv_bias", "num_conv_pos_embeddings", "num_conv_pos_embedding_groups", "conv_pos_kernel_size",
    "adapter_attn_dim", "num_buckets", "max_bucket_distance", "position_embeddings_type", "conv_depthwise_kernel_size",
    "d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim", "activation_function", "num_mel_bins",
    "max_source_positions", "scale_embedding",
)  # fmt: skip
"""Settings on which the hidden states of an encoder depend, some of them without any weight of another shape."""

_ONLY_IN_TRAINING = {
    "layerdrop": 0.0,  # a layer that is dropped has no hidden states
    "encoder_layerdrop": 0.0,
    "apply_spec_augment": False,  # its masks are drawn from numpy's global generator, and longer than short sounds
    "mask_time_prob": 0.0,  # without masks there is no `masked_spec_embed`, which fine-tuned checkpoints lack
    "mask_feature_prob": 0.0,
}
"""What a configuration asks for in training alone, switched off; dropout stays."""


def _loaded(model_class: Any, config: Any, weights: dict[str, Tensor], file: Path) -> tuple[nn.Module, tuple[str, ...]]:
    """The model with these weights, and a note on those left out; transformers knows the names of older versions."""
    try:
        network, found = model_class.from_pretrained(
            None, config=config, state_dict=weights, output_loading_info=True, dtype=torch.float32
        )
    except RuntimeError as error:
        what = f"The weights do not fit the configuration: {error}"
        raise IntegrityError(what, file=file, do="Give the weights of this model; nothing was loaded") from error
    missing = [key for key in sorted(found["missing_keys"]) if not key.startswith("decoder.")]
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


_HEAD = re.compile(
    r"\w*head\w*|\w*classif\w*|quantizer|project_\w+|projector|proj_out|final_proj|layer_weights|tdnn|objective"
    r"|label_embs_concat|ctc\w*|logits?\w*|pooler|score|qa_outputs"
)
"""First parts of the names of weights that a task adds to an encoder."""

_NEVER_READ = ("masked_spec_embed", "decoder.")
"""Weights that hidden states do not depend on: of masks, which are switched off, and of Whisper's decoder."""

_OPTIONAL_PARTS = {"adapter", "intermediate_ffn", "masked_spec_embed"}
"""Parts that an encoder has only where its configuration says so."""


def _sorted_out(
    unexpected: Iterable[str], weights: Iterable[str], prefix: str, parts: set[str]
) -> tuple[list[str], str]:
    """Of the weights that the encoder did not take, those that belong to it, and the heads among the others, counted.

    Args:
        unexpected: What transformers found no place for, by the names in the file.
        weights: All names in the file.
        prefix: What stands before the names of the encoder where a head was saved with it: `wav2vec2.`
        parts: The first parts of the encoder's own names.
    """
    with_head = any(key.startswith(prefix) for key in weights)
    unknown, heads = list[str](), Counter[str]()
    for key in sorted(unexpected):
        inner = key.removeprefix(prefix)
        root, _, rest = inner.partition(".")
        of_encoder = root in parts | _OPTIONAL_PARTS and not (with_head and rest in {"weight", "bias"})
        if inner.startswith(_NEVER_READ):
            continue
        outside = inner == key and not of_encoder
        if outside and (with_head or _HEAD.fullmatch(root)):
            heads[root] += 1
        else:
            unknown.append(key)
    return unknown, ", ".join(f"{root} ({count})" for root, count in heads.items())


def _num_layers(config: Any) -> int:
    return int(config.encoder_layers if config.model_type == "whisper" else config.num_hidden_layers)


def _extracted(extractor: Any, sounds: Sequence[Tensor], **options: Any) -> dict[str, Tensor]:
    """What the extractor makes of sounds (T,), on their device."""
    samples = [sound.detach().cpu().numpy() for sound in sounds]
    made = extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="pt", **options)
    return {name: values.to(sounds[0].device) for name, values in made.items()}


def _hidden_states(network: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """transformers' hidden states (L, B, F, D)."""
    with warnings.catch_warnings():
        # WavLM hands torch a boolean mask beside a float one, which torch turns into the same numbers.
        warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask and attn_mask", UserWarning)
        return torch.stack(network(**inputs, output_hidden_states=True).hidden_states)


def _hold_to_count(given: int, expected: int, num_samples: int) -> None:
    """Refuse a model whose own frames are not those that are counted; cutting them to the count would hide it.

    Raises:
        PluginError: They are not.
    """
    if given != expected:
        what = f"The model gives {given} frames for {num_samples} samples, but its configuration calls for {expected}"
        do = "It is built in another way than its family; give it as py:module:attribute with a declaration"
        raise PluginError(what, key="hf", do=do)
