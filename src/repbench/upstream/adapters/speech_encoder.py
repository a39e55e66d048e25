"""A pre-trained speech encoder of another library as an upstream; the shared part of `hf:` and `torchaudio:`.

Axes: L layers, B batch, T samples, F frames, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from repbench.upstream.adapters.frame_counts import joined
from repbench.upstream.contract import HiddenStates, Provenance, UpstreamInfo, check_lengths, fingerprint_of


class Preprocessor(Protocol):
    """The inputs of a family of encoders from waveforms, and the times of its frames.

    Attributes:
        hop_samples: Distance of two frames' centres.
        first_center_samples: Sample at the centre of frame 0.
        min_samples: Shortest waveform that the encoder takes.
        pads: Whether utterances of different lengths may share a padded batch without a change of their hidden states.
        cuts_long_sounds: Whether it cuts long sounds into windows by a rule of the model.
    """

    hop_samples: int
    first_center_samples: int
    min_samples: int
    pads: bool
    cuts_long_sounds: bool

    def num_frames(self, num_samples: int) -> int:
        """Frames of a waveform of `num_samples`."""
        ...

    def encode(self, network: nn.Module, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """The hidden states (L, F, D) of each waveform (T,); more than one waveform only if `pads`.

        Raises:
            PluginError: The network gives another number of frames than `num_frames`.
        """
        ...


class SpeechEncoder(nn.Module):
    """An upstream of a pre-trained network and its preprocessor.

    Args:
        network: The encoder.
        preprocessor: Prepares waveforms for it.
        info: The declaration.
        settings: Everything except the weights that determines the hidden states, JSON-able; for the fingerprint.
        provenance: The source of the weights.
        layer_modules: The modules of each layer of the network, from the input to the output.
    """

    code_version = 1

    def __init__(
        self,
        network: nn.Module,
        preprocessor: Preprocessor,
        info: UpstreamInfo,
        *,
        settings: Mapping[str, Any],
        provenance: Provenance,
        layer_modules: Sequence[Sequence[nn.Module]],
    ) -> None:
        super().__init__()
        self.layer_modules = layer_modules
        self.network = network
        self.preprocessor = preprocessor
        self.info = info
        self.provenance = provenance
        self._settings = settings
        self.cuts_long_sounds = preprocessor.cuts_long_sounds

    def num_frames(self, num_samples: int) -> int:
        """Frames of a waveform of `num_samples`, by the strides and windows of the encoder."""
        return self.preprocessor.num_frames(num_samples)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        """(B, T) -> (L, B, F, D).

        Raises:
            DataError: A length is outside of the range in `info`.
            PluginError: The network gives another number of frames than `num_frames`.
        """
        check_lengths(self.info, lengths)
        # (B, T) -> B of (T_i,): the caller's padding is cut off, since each family pads by another rule
        cut = [waveform[:length] for waveform, length in zip(waveforms, lengths.tolist(), strict=True)]
        groups = [cut] if self.preprocessor.pads else [[waveform] for waveform in cut]
        # groups of waveforms -> B of (L, F_i, D) -> (L, B, F, D)
        return joined([states for group in groups for states in self.preprocessor.encode(self.network, group)])

    def fingerprint(self) -> str:
        """SHA-256 of weights, settings and code version; independent of where the files are."""
        return fingerprint_of(self, self._settings, self.code_version)
