"""Front ends as upstreams: the baselines of every learned representation.

Each has one layer and no weights. `mel`, `mel_no_cmvn`, `fbank160`, `mfcc52` and `linear1025` come from the released
Mockingjay code (`repbench.audio.legacy`); `fbank`, `fbank_no_cmvn`, `mfcc`, `spectrogram` and APC's `fbank80` from
Kaldi (`repbench.audio.kaldi`); `mel80` and `linear` from S3PRL's online features (`repbench.audio.online`).

Axes: L layers, B batch, T samples, F frames, D width.
"""

from __future__ import annotations

from torch import Tensor, nn

from repbench.audio import kaldi, legacy, online
from repbench.audio.frames import SAMPLE_RATE_HZ, FrontEnd
from repbench.errors import UsageError
from repbench.upstream.contract import HiddenStates, UpstreamFactory, UpstreamInfo, check_lengths, fingerprint_of

MOCKINGJAY = "Liu et al., Mockingjay, ICASSP 2020, arXiv:1910.12638"
S3PRL = "Yang et al., SUPERB, Interspeech 2021, arXiv:2105.01051"
APC = "Chung et al., An Unsupervised Autoregressive Model for Speech Representation Learning, arXiv:1904.03240"


class FrontEndUpstream(nn.Module):
    """A front end as an upstream of one layer.

    Args:
        name: Name of the upstream.
        front_end: The front end.
        citation: The paper.
    """

    code_version = 1
    runs_concurrently = True
    trained_on = ()

    def __init__(self, name: str, front_end: FrontEnd, citation: str) -> None:
        super().__init__()
        self.front_end = front_end
        self.info = UpstreamInfo(
            name=name,
            sample_rate_hz=SAMPLE_RATE_HZ,
            hop_samples=front_end.hop_samples,
            first_center_samples=front_end.first_center_samples,
            min_samples=front_end.min_samples,
            layer_names=(name,),
            width=front_end.width,
            utterance_normalised=front_end.normalised,
            trainable=False,
            citation=citation,
            licence="MIT",
        )

    def num_frames(self, num_samples: int) -> int:
        """Frames of a waveform of `num_samples`."""
        return self.front_end.num_frames(num_samples)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        """(B, T) -> one layer (1, B, F, D).

        Raises:
            DataError: A waveform is shorter than declared.
        """
        check_lengths(self.info, lengths)
        frames, num_frames = self.front_end(waveforms, lengths)
        return HiddenStates(layers=frames[None], lengths=num_frames)  # (B, F, D) -> (1, B, F, D)

    def fingerprint(self) -> str:
        """SHA-256 of the front end's name and the code version."""
        return fingerprint_of(self, {"front_end": self.front_end.name}, self.code_version)


def _factory(name: str, front_end: FrontEnd, citation: str) -> UpstreamFactory:
    def build(*, checkpoint: str | None = None, seed: int = 0) -> FrontEndUpstream:
        if checkpoint is not None:
            raise UsageError(f"`{name}` has no weights to load", key="--checkpoint", do="Leave --checkpoint out")
        return FrontEndUpstream(name, front_end, citation).eval()

    build.__name__ = name
    build.__doc__ = f"The front end {front_end.name}."
    return build


mel = _factory("mel", legacy.MEL160, MOCKINGJAY)
mel_no_cmvn = _factory("mel_no_cmvn", legacy.MEL160_NO_CMVN, MOCKINGJAY)
fbank160 = _factory("fbank160", legacy.FBANK160, MOCKINGJAY)
mfcc52 = _factory("mfcc52", legacy.MFCC52, MOCKINGJAY)
linear1025 = _factory("linear1025", legacy.LINEAR1025, MOCKINGJAY)
fbank = _factory("fbank", kaldi.FBANK, S3PRL)
fbank_no_cmvn = _factory("fbank_no_cmvn", kaldi.FBANK_NO_CMVN, S3PRL)
mfcc = _factory("mfcc", kaldi.MFCC, S3PRL)
spectrogram = _factory("spectrogram", kaldi.SPECTROGRAM, S3PRL)
fbank80 = _factory("fbank80", kaldi.FBANK80, APC)
mel80 = _factory("mel80", online.MEL80, S3PRL)
linear = _factory("linear", online.LINEAR, S3PRL)
