"""The mel front end as an upstream: the row that every learned representation has to beat."""

from __future__ import annotations

from torch import Tensor, nn

from repbench.audio.frontend import MEL160, mel160
from repbench.errors import UsageError
from repbench.upstream.contract import HiddenStates, UpstreamInfo, check_lengths, fingerprint_of


class Mel(nn.Module):
    """Legacy Mockingjay log-mel bands with slopes, one layer, no weights.

    Args:
        cmvn: Whether each dimension is brought to zero mean and unit deviation over the utterance.
    """

    code_version = 1

    def __init__(self, *, cmvn: bool) -> None:
        super().__init__()
        self.cmvn = cmvn
        name = "mel" if cmvn else "mel_no_cmvn"
        self.info = UpstreamInfo(
            name=name,
            sample_rate_hz=MEL160.sample_rate_hz,
            hop_samples=MEL160.hop_samples,
            first_center_samples=0,
            min_samples=MEL160.min_samples,
            layer_names=(name,),
            width=MEL160.width,
            utterance_normalised=cmvn,
            trainable=False,
            citation="Liu et al., Mockingjay, ICASSP 2020, arXiv:1910.12638",
            licence="MIT",
        )

    def num_frames(self, num_samples: int) -> int:
        """Frames that a waveform of `num_samples` gives."""
        return MEL160.num_frames(num_samples)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        """(B, T) -> one layer (1, B, F, 160)."""
        check_lengths(self.info, lengths)
        frames, num_frames = mel160(waveforms, lengths, cmvn=self.cmvn)
        return HiddenStates(layers=frames[None], lengths=num_frames)

    def fingerprint(self) -> str:
        """SHA-256 of what the features depend on."""
        return fingerprint_of(self, {"features": "mel160", "cmvn": self.cmvn}, self.code_version)


def mel(*, checkpoint: str | None = None, seed: int = 0) -> Mel:
    """mel160 with per-utterance CMVN, as Mockingjay reads it."""
    return _front_end("mel", checkpoint, cmvn=True)


def mel_no_cmvn(*, checkpoint: str | None = None, seed: int = 0) -> Mel:
    """mel160 as it is: the loudness and the channel stay in."""
    return _front_end("mel_no_cmvn", checkpoint, cmvn=False)


def _front_end(name: str, checkpoint: str | None, *, cmvn: bool) -> Mel:
    if checkpoint is not None:
        raise UsageError(f"`{name}` has no weights to load", key="--checkpoint", do="Leave --checkpoint out")
    return Mel(cmvn=cmvn).eval()
