"""CAM++ (Wang et al. 2023, https://arxiv.org/abs/2303.00332) in the form of 3D-Speaker's `campplus_cn_en_common.pt`.

A small 2-D convolutional front end, then time-delay layers whose outputs are concatenated, each gated by a mask from
the mean of its context; mean and deviation over time; a linear layer of 192. Modules are named as the weights are.

Axes: B batch, T samples, F frames, C channels, D width.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repbench.audio.kaldi import log_mel

BANDS, GROWTH, BOTTLENECK, SEGMENT_FRAMES = 80, 32, 128, 100
BLOCKS = ((12, 1), (24, 2), (16, 2))
"""Layers of each block, and the dilation of their convolutions over three frames."""


class CAMPPlus(nn.Module):
    """(B, T) with (B,) -> (B, 192); utterances run one at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.head = FrontEnd()
        channels = 128
        parts: dict[str, nn.Module] = {"tdnn": TimeDelay(32 * BANDS // 8, channels)}
        for number, (num_layers, dilation) in enumerate(BLOCKS, 1):
            parts[f"block{number}"] = DenseBlock(channels, num_layers, dilation)
            channels += num_layers * GROWTH
            parts[f"transit{number}"] = Transit(channels)
            channels //= 2
        parts["out_nonlinear"] = norm_relu(channels)
        parts["dense"] = Dense(2 * channels)
        self.xvector = nn.Sequential(OrderedDict(parts))

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        bands, _ = log_mel(waveforms, lengths)  # (B, T) -> (B, F, 80)
        bands = bands - bands.mean(dim=1, keepdim=True)
        return self.xvector(self.head(bands.transpose(1, 2)))


def norm_relu(channels: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(batchnorm=nn.BatchNorm1d(channels), relu=nn.ReLU()))


class Residual(nn.Module):
    """Two convolutions with a shortcut; the stride halves the bands, not the time."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(32, 32, 3, stride=(stride, 1), padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        halved = (nn.Conv2d(32, 32, 1, stride=(stride, 1), bias=False), nn.BatchNorm2d(32)) if stride > 1 else ()
        self.shortcut = nn.Sequential(*halved)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.shortcut(x))


class FrontEnd(nn.Module):
    """(B, 80, F) -> (B, 320, F): 32 channels of 10 bands."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.layer1 = nn.Sequential(Residual(2), Residual(1))
        self.layer2 = nn.Sequential(Residual(2), Residual(1))
        self.conv2, self.bn2 = nn.Conv2d(32, 32, 3, stride=(2, 1), padding=1, bias=False), nn.BatchNorm2d(32)

    def forward(self, bands: Tensor) -> Tensor:
        x = self.layer2(self.layer1(F.relu(self.bn1(self.conv1(bands[:, None])))))
        return F.relu(self.bn2(self.conv2(x))).flatten(1, 2)  # (B, C, bands, F) -> (B, C * bands, F)


class TimeDelay(nn.Module):
    """Every second frame, of five: (B, C, F) -> (B, 128, F / 2)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(channels, width, 5, stride=2, padding=2, bias=False)
        self.nonlinear = norm_relu(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.nonlinear(self.linear(x))


class ContextMask(nn.Module):
    """A convolution, gated by the mean over all frames plus the mean over the segment of 100 frames."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.linear_local = nn.Conv1d(BOTTLENECK, GROWTH, 3, padding=dilation, dilation=dilation, bias=False)
        self.linear1 = nn.Conv1d(BOTTLENECK, BOTTLENECK // 2, 1)
        self.linear2 = nn.Conv1d(BOTTLENECK // 2, GROWTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        means = F.avg_pool1d(x, SEGMENT_FRAMES, SEGMENT_FRAMES, ceil_mode=True)
        of_segment = means.repeat_interleave(SEGMENT_FRAMES, dim=-1)[..., : x.shape[-1]]
        context = x.mean(dim=-1, keepdim=True) + of_segment
        return self.linear_local(x) * self.linear2(F.relu(self.linear1(context))).sigmoid()


class DenseLayer(nn.Module):
    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.nonlinear1, self.linear1 = norm_relu(channels), nn.Conv1d(channels, BOTTLENECK, 1, bias=False)
        self.nonlinear2, self.cam_layer = norm_relu(BOTTLENECK), ContextMask(dilation)

    def forward(self, x: Tensor) -> Tensor:
        return self.cam_layer(self.nonlinear2(self.linear1(self.nonlinear1(x))))


class DenseBlock(nn.Sequential):
    """Each layer reads the outputs of all before it: (B, C, F) -> (B, C + layers * 32, F)."""

    def __init__(self, channels: int, num_layers: int, dilation: int) -> None:
        layers = {f"tdnnd{n + 1}": DenseLayer(channels + n * GROWTH, dilation) for n in range(num_layers)}
        super().__init__(OrderedDict(layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = torch.cat([x, layer(x)], dim=1)
        return x


class Transit(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.nonlinear, self.linear = norm_relu(channels), nn.Conv1d(channels, channels // 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.nonlinear(x))


class Dense(nn.Module):
    """Mean and deviation over time, a linear layer, normalised: (B, C, F) -> (B, 192)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(channels, 192, 1, bias=False)
        self.nonlinear = nn.Sequential(OrderedDict(batchnorm=nn.BatchNorm1d(192, affine=False)))

    def forward(self, x: Tensor) -> Tensor:
        statistics = torch.cat([x.mean(dim=-1), x.std(dim=-1)], dim=-1)  # (B, 2 * C)
        return self.nonlinear(self.linear(statistics[..., None])[..., 0])
