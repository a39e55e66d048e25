import torch
from torch import nn

from repbench.downstream.contract import DownstreamInfo
from repbench.downstream.utterances import METRICS, measure_classes
from repbench.upstream.contract import HiddenStates, UpstreamInfo, check_lengths, fingerprint_of

HOP = 160


class Loudness(nn.Module):
    info = UpstreamInfo(
        name="loudness",
        sample_rate_hz=16_000,
        hop_samples=HOP,
        first_center_samples=HOP // 2,
        min_samples=HOP,
        layer_names=("loudness",),
        width=1,
        utterance_normalised=False,
        trainable=True,
        citation="none",
        licence="MIT",
    )

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def num_frames(self, num_samples):
        return num_samples // HOP

    def forward(self, waveforms, lengths):
        check_lengths(self.info, lengths)
        counts = lengths // HOP
        blocks = waveforms[:, : int(counts.max()) * HOP].unflatten(1, (-1, HOP))  # (B, F, HOP)
        frames = self.gain * torch.log(blocks.square().mean(dim=-1, keepdim=True) + 1e-6)  # (B, F, 1)
        valid = torch.arange(frames.shape[1], device=frames.device) < counts[:, None]
        return HiddenStates(frames.masked_fill(~valid[..., None], 0.0)[None], counts)

    def fingerprint(self):
        return fingerprint_of(self, {}, code_version=1)


def loudness(*, checkpoint=None, seed=0):
    return Loudness().eval()


class LongOrShort:
    info = DownstreamInfo(
        name="long-or-short",
        problem="utterance-classification",
        split="speaker-disjoint",
        default_head="mlp1",
        metrics=METRICS,
        primary_metric="accuracy",
    )

    def __init__(self, *, seconds=1.2):
        self.seconds = seconds

    def labels(self, utterance):
        return "long" if utterance.seconds > self.seconds else "short"

    def classes(self, label_sets, train):
        return ("long", "short")

    def measure(self, predictions, classes):
        return measure_classes(predictions, len(classes))


upstreams = {"loudness": loudness}
downstreams = {"long-or-short": LongOrShort}
