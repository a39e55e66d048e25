"""Two modules of one code: spectra of blocks as frames, and their mean over an utterance as its one vector."""

from __future__ import annotations

from pathlib import Path

import pytest

CODE = '''
import torch
from torch import nn

class Blocks(nn.Module):
    """Power at 48 frequencies up to 1920 Hz in blocks of 400 samples: its logarithm and its square root."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(48))

    def forward(self, waveforms, lengths):
        blocks = waveforms[:, : waveforms.shape[1] // 400 * 400].reshape(len(waveforms), -1, 400)
        power = torch.fft.rfft(blocks).abs().square()[..., 1:49] + 1e-6  # (B, F, 48)
        return [power.log() * self.scale, power.sqrt() * self.scale]

class Voice(Blocks):
    """The mean of the frames."""

    def forward(self, waveforms, lengths):
        return [frames.mean(dim=1) for frames in super().forward(waveforms, lengths)]
'''
COMMON = "sample_rate_hz: 16000\nlayer_names: [log, root]\nwidth: 48\n"
FRAMES = f"name: blocks\n{COMMON}hop_samples: 400\nfirst_center_samples: 200\nwindow_samples: 400\n"
VECTOR = f"name: voice\nkind: utterance\n{COMMON}min_samples: 400\n"


def models_in(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> str:
    """The name of a new module in `folder`, on the path, with the declarations of both classes."""
    (folder / f"{name}.py").write_text(CODE)
    (folder / f"{name}_Blocks.info.yaml").write_text(FRAMES)
    (folder / f"{name}_Voice.info.yaml").write_text(VECTOR)
    monkeypatch.syspath_prepend(str(folder))
    return name
