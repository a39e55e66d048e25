"""`torchaudio:BUNDLE`: the wav2vec 2.0, HuBERT and WavLM bundles of torchaudio, from a local file.

torchaudio normalises a batch as a whole, and its smaller models normalise a convolution over the padding. So each
utterance goes through the model alone. The layers are those of `extract_features`, the outputs of the transformer
layers; a recognition head is left out.

torchaudio is imported inside functions, and nowhere else in the package: a release that does not fit the installed
torch disables only these models.

Axes: L layers, B batch, T samples, F frames, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repbench.errors import IntegrityError, UsageError
from repbench.torch_pairs import import_torchaudio
from repbench.upstream.adapters.frame_counts import clock_of_convolutions
from repbench.upstream.adapters.huggingface_files import read_weights
from repbench.upstream.adapters.speech_encoder import SpeechEncoder
from repbench.upstream.adapters.torchaudio_training_data import training_data_of_bundle
from repbench.upstream.checkpoints.factory import seeded
from repbench.upstream.checkpoints.given_path import given_path
from repbench.upstream.checkpoints.untrained import RANDOM
from repbench.upstream.contract import Provenance, UpstreamFactory, UpstreamInfo


class BundlePreprocessor:
    """Convolutions without padding on the waveform, normalised over the utterance where the bundle requires it.

    Args:
        bundle: A `Wav2Vec2Bundle` of torchaudio.
    """

    pads = False
    cuts_long_sounds = False

    def __init__(self, bundle: Any) -> None:
        convolutions = bundle._params["extractor_conv_layer_config"]
        self._clock = clock_of_convolutions(
            [kernel for _, kernel, _ in convolutions], [stride for _, _, stride in convolutions]
        )
        self.hop_samples = self._clock.hop_samples
        self.first_center_samples = self._clock.first_center_samples
        self.min_samples = self._clock.window_samples
        self._normalises = bool(bundle._normalize_waveform)

    def num_frames(self, num_samples: int) -> int:
        return self._clock.num_frames(num_samples)

    def encode(self, network: nn.Module, waveforms: Sequence[Tensor]) -> list[Tensor]:
        (waveform,) = waveforms
        # Mean 0 and variance 1 over the whole utterance, (T,), as torchaudio's wrapper does over its batch.
        given = F.layer_norm(waveform, waveform.shape) if self._normalises else waveform
        extractor: Any = network
        layers, _ = extractor.extract_features(given[None])  # (T,) -> (1, T)
        # L times (1, F, D) -> (L, F, D)
        return [torch.cat(layers)]


def door(name: str) -> UpstreamFactory:
    """The factory of the bundle that `torchaudio:NAME` names."""
    return partial(build, name)


def build(name: str, *, checkpoint: str | None = None, seed: int = 0) -> SpeechEncoder:
    """Build a bundle of torchaudio, in eval mode on the CPU, without network access.

    Args:
        name: As in `torchaudio.pipelines`: HUBERT_BASE, WAVLM_LARGE, …
        checkpoint: A file of its weights; `random`: untrained; None: the file in torch.hub's cache.
        seed: Seed of untrained weights.

    Raises:
        EnvironmentFault: torchaudio is not installed, or does not fit the installed torch.
        UsageError: There is no such bundle, or its file is missing; names the file and its place.
        IntegrityError: The file is damaged, needs code to be read, or holds other weights.
    """
    bundle = _bundle(name)
    untrained = checkpoint == RANDOM
    file = None if untrained else _file_of(name, bundle, checkpoint)
    with seeded(seed):
        network = _untrained(bundle)
    if file is not None:
        # `aux` is the output layer of a recognition model.
        weights = {key: value for key, value in read_weights([file]).items() if not key.startswith("aux.")}
        try:
            network.load_state_dict(weights, strict=True)
        except RuntimeError as error:
            what = f"The weights do not fit {name}: {' '.join(str(error).split())[:500]}"
            raise IntegrityError(what, file=file, do="Give the file of this bundle; nothing was loaded") from error
    # A file that is named may hold other weights than the bundle's: what it was trained on is not known.
    known = training_data_of_bundle(name) if checkpoint is None else None
    provenance = Provenance(checkpoint=RANDOM if file is None else str(file), trained_on=() if file is None else known)
    preprocessor = BundlePreprocessor(bundle)
    num_layers = bundle._params["encoder_num_layers"]
    info = UpstreamInfo(
        name=f"torchaudio:{name}",
        sample_rate_hz=int(bundle.sample_rate),
        hop_samples=preprocessor.hop_samples,
        first_center_samples=preprocessor.first_center_samples,
        min_samples=preprocessor.min_samples,
        layer_names=tuple(f"layer {number}" for number in range(1, num_layers + 1)),
        width=bundle._params["encoder_embed_dim"],
        utterance_normalised=False,
        trainable=True,
        citation="unknown",
        licence="unknown",
    )
    encoder: Any = network
    return SpeechEncoder(
        network,
        preprocessor,
        info,
        settings=_settings_of(bundle),
        provenance=provenance,
        layer_modules=[[layer] for layer in encoder.encoder.transformer.layers],
    ).eval()


def _bundle(name: str) -> Any:
    pipelines: Any = import_torchaudio("torchaudio.pipelines")
    bundles = sorted(each for each in dir(pipelines) if isinstance(getattr(pipelines, each), pipelines.Wav2Vec2Bundle))
    if name not in bundles:
        what = f"torchaudio has no speech encoder `{name}`"
        raise UsageError(what, key="--upstream", do=f"There are: {', '.join(bundles)}")
    return getattr(pipelines, name)


def _settings_of(bundle: Any) -> dict[str, Any]:
    """Everything except the weights that determines the hidden states, JSON-able; no head, no training options."""
    built = {key: value for key, value in bundle._params.items() if key != "aux_num_out"}
    return {"type": bundle._model_type, "normalises": bool(bundle._normalize_waveform), "parameters": built}


def _untrained(bundle: Any) -> nn.Module:
    models: Any = import_torchaudio("torchaudio.models")
    build_model = {"Wav2Vec2": models.wav2vec2_model, "WavLM": models.wavlm_model}[bundle._model_type]
    dropped = {"encoder_layer_drop": 0.0}  # a dropped layer would have no output
    network: nn.Module = build_model(**{**bundle._params, "aux_num_out": None, **dropped})
    return network


def _file_of(name: str, bundle: Any, checkpoint: str | None) -> Path:
    """The file of a bundle's weights: the named one, or the one in torch.hub's cache."""
    if checkpoint is not None:
        file = given_path(checkpoint, "--checkpoint")
        if not file.is_file():
            raise UsageError("There is no such file", key="--checkpoint", file=file, do="Check the path")
        return file
    file = Path(torch.hub.get_dir(), "checkpoints", PurePosixPath(bundle._path).name)
    if not file.is_file():
        what = f"The weights of {name}, {file.name}, are not in torch's cache, and nothing is downloaded"
        remote = bundle._path
        url = remote if remote.startswith("https") else f"https://download.pytorch.org/torchaudio/models/{remote}"
        raise UsageError(what, key="--checkpoint", file=file, do=f"Put {url} there, or give it with --checkpoint FILE")
    return file
