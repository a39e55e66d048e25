"""`hf:DIR_OR_REPO`: the speech encoders of transformers, with their own feature extractors and hidden states.

wav2vec 2.0 and its kin (HuBERT, WavLM, SEW, …) and Moonshine's encoder read the waveform; Whisper's encoder, w2v-BERT
and Parakeet's encoder read a spectrogram. The layers are transformers' `hidden_states`: the input of the first encoder
layer, then the output of each layer.

Fine-tuning keeps the model's own dropout. No layer is dropped and nothing is masked (SpecAugment): transformers draws
the masks from numpy's global generator, so a seed would not determine the result.

transformers is imported inside functions, because its import takes seconds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from repbench.errors import IntegrityError, UsageError
from repbench.globalstate import preserved_global_state
from repbench.torch_pairs import without_broken_torchaudio
from repbench.upstream.adapters.huggingface_families import FAMILIES, Family, check_extractor, layer_modules
from repbench.upstream.adapters.huggingface_files import (
    CONFIG_FILE,
    citation_and_licence,
    folder_of,
    lasting,
    missing_package,
    read_preprocessor,
    read_settings,
    read_weights,
    weights_files,
)
from repbench.upstream.adapters.huggingface_training_data import training_data_beside
from repbench.upstream.adapters.huggingface_weights import check_weights_folder, loaded
from repbench.upstream.adapters.speech_encoder import SpeechEncoder
from repbench.upstream.checkpoints.factory import seeded
from repbench.upstream.checkpoints.foreign import unwrapped
from repbench.upstream.checkpoints.given_path import given_path
from repbench.upstream.checkpoints.untrained import RANDOM
from repbench.upstream.contract import Provenance, UpstreamFactory, UpstreamInfo

_ONLY_IN_TRAINING = {
    "layerdrop": 0.0,  # a dropped layer has no hidden states
    "encoder_layerdrop": 0.0,
    "apply_spec_augment": False,  # draws from numpy's global generator; refuses short sounds
    "mask_time_prob": 0.0,  # else needs `masked_spec_embed`, which fine-tuned checkpoints lack
    "mask_feature_prob": 0.0,
}
"""Training options of a configuration, switched off; dropout stays."""


def door(source: str) -> UpstreamFactory:
    """The factory of the model that `hf:SOURCE` names: a folder, or a repository in Hugging Face's cache."""
    return partial(build, source)


def build(source: str, *, checkpoint: str | None = None, seed: int = 0) -> SpeechEncoder:
    """Build a speech encoder of transformers, in eval mode on the CPU, without network access.

    Args:
        source: A folder written by `save_pretrained` of model and feature extractor, or OWNER/NAME in the cache.
        checkpoint: None: the safetensors in the folder. A file, in the folder or elsewhere, or another folder: those
            weights; a pickle is read only if it is named, and its code never runs. `random`: untrained.
        seed: Seed of untrained weights.

    Raises:
        UsageError: There is no such model, its family is not supported, or a file of it is missing.
        IntegrityError: The weights are damaged, or not those of the configuration.
        EnvironmentFault: transformers is not installed.
    """
    folder = folder_of(source)
    other = None if checkpoint is None else given_path(checkpoint, "--checkpoint")
    preprocessor_settings, preprocessor_file = read_preprocessor(folder)
    settings = {"config": lasting(read_settings(folder, CONFIG_FILE)), "preprocessor": lasting(preprocessor_settings)}
    family = _family_of(settings["config"], folder)
    if other is not None:
        check_weights_folder(other, settings["config"], folder)
    untrained = checkpoint == RANDOM
    files = [] if untrained else weights_files(folder, checkpoint)
    notes: tuple[str, ...] = ()
    # Everything that transformers does is inside: its import and its constructors change global state.
    with _transformers() as transformers:
        config, extractor = _configured(transformers, family, folder)
        check_extractor(family, config, extractor, preprocessor_settings, preprocessor_file)
        preprocessor = family.preprocessor(config, extractor)
        model_class = getattr(transformers, family.model)
        if untrained:
            with seeded(seed):
                network = model_class(config)
        else:
            weights, unwrapping = unwrapped(read_weights(files), file=files[0])
            network, left_out = loaded(model_class, config, weights, files[0], decoder=family.decoder)
            notes = (*unwrapping, *left_out)
    # Of a model with encoder and decoder the names of the weights are those of both, so it is cut after loading.
    network = network.get_submodule(family.encoder)
    if hasattr(network, "masked_spec_embed"):
        # UniSpeech-SAT has one though nothing is masked; it is no part of the fingerprint.
        del network.masked_spec_embed
    place = str(folder) if checkpoint is None else checkpoint
    if files and not Path(place).is_dir():
        place = str(files[0])
    citation, licence = citation_and_licence(folder)
    info = UpstreamInfo(
        name=f"hf:{source}",
        sample_rate_hz=extractor.sampling_rate,
        hop_samples=preprocessor.hop_samples,
        first_center_samples=preprocessor.first_center_samples,
        min_samples=preprocessor.min_samples,
        layer_names=("embedding", *(f"layer {number}" for number in range(1, getattr(config, family.num_layers) + 1))),
        width=config.hidden_size,
        utterance_normalised=False,
        trainable=True,
        citation=citation,
        licence=licence,
    )
    provenance = Provenance(
        checkpoint=place, notes=notes, trained_on=() if untrained else training_data_beside(folder, other)
    )
    layers = layer_modules(family, network, config)
    return SpeechEncoder(
        network, preprocessor, info, settings=settings, provenance=provenance, layer_modules=layers
    ).eval()


def _family_of(config: dict[str, Any], folder: Path) -> Family:
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        do = f"Supported are {', '.join(FAMILIES)}; any other model can come as py:module:attribute"
        raise UsageError(f"A model of the type `{kind}` is not supported", key="model_type", file=folder, do=do)
    return FAMILIES[kind]


@contextlib.contextmanager
def _transformers() -> Iterator[Any]:
    """The module transformers, without its progress bars and reports; global state that it changes is restored."""
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


def _configured(transformers: Any, family: Family, folder: Path) -> tuple[Any, Any]:
    """The configuration and the feature extractor in the folder; code in the folder never runs."""
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
