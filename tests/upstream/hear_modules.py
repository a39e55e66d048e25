"""Five modules with the API of HEAR, of other rates, hops, widths and edges, and two encoders of X-ARES; as source.

Each `get_timestamp_embeddings` gives log energies of the waveform's windows in D bands, in another way.
"""

from __future__ import annotations

from pathlib import Path

import pytest

_HEAD = '''
import torch
from torch import nn
from torch.nn import functional as F

def energies(audio, window, hop, width):
    """(B, T) -> (B, F, D): log power of windows wholly inside the sound, in D bands."""
    windows = audio.unfold(1, window, hop)
    power = torch.fft.rfft(windows).abs().square()[..., 1 : 1 + 4 * width]
    return (power.reshape(*power.shape[:2], width, 4).mean(-1) + 1e-5).log()

class Model(nn.Module):
    def __init__(self, rate, width, scene=None):
        super().__init__()
        self.sample_rate, self.timestamp_embedding_size = rate, width
        self.scene_embedding_size = scene or width
        self.scale = nn.Parameter(torch.randn(width, width) / width**0.5)

def times_of(frames, first_ms, hop_ms, dtype=torch.float32):
    times = first_ms + hop_ms * torch.arange(frames.shape[1], dtype=torch.float64)
    return times.to(dtype).expand(len(frames), -1)
'''

MODULES = {
    # a frame every 50 ms from the start on, reflected at both ends; weights drawn at loading
    "centred": """
def load_model(model_file_path=""):
    return Model(16_000, 8)

def get_timestamp_embeddings(audio, model):
    padded = F.pad(audio[:, None], (400, 400), mode="reflect")[:, 0]
    frames = energies(padded, 800, 800, 8) @ model.scale
    return frames, times_of(frames, 0.0, 50.0)

def get_scene_embeddings(audio, model):
    return get_timestamp_embeddings(audio, model)[0].mean(1)
""",
    # windows of 50 ms inside the sound, every 20 ms, at 22,050 Hz; the mean over time is taken off
    "relative": """
def load_model(model_file_path=""):
    return Model(22_050, 5, scene=10)

def get_timestamp_embeddings(audio, model):
    frames = energies(audio, 1102, 441, 5) @ model.scale
    return frames - 0.5 * frames.mean(1, keepdim=True), times_of(frames, 551 / 22.05, 20.0)

def get_scene_embeddings(audio, model):
    frames = energies(audio, 1102, 441, 5) @ model.scale
    return torch.cat([frames.mean(1), frames.var(1, correction=0)], dim=1)
""",
    # blocks of 10 ms at 32,000 Hz, the last filled with zeros; a convolution over five frames
    "filled": """
class Convolved(Model):
    def __init__(self):
        super().__init__(32_000, 12)
        self.mix = nn.Conv1d(12, 12, 5, padding=2)

def load_model(model_file_path=""):
    return Convolved()

def get_timestamp_embeddings(audio, model):
    audio = F.pad(audio, (0, -audio.shape[1] % 320))
    frames = model.mix(energies(audio, 320, 320, 12).transpose(1, 2)).transpose(1, 2)
    return frames, times_of(frames, 5.0, 10.0)

def get_scene_embeddings(audio, model):
    return get_timestamp_embeddings(audio, model)[0].amax(1)
""",
    # what it gives depends on the other sounds of the batch
    "of_batch": """
def load_model(model_file_path=""):
    return Model(16_000, 6)

def get_timestamp_embeddings(audio, model):
    frames = energies(audio / audio.square().mean().sqrt().clamp_min(1e-4), 400, 320, 6) @ model.scale
    return frames, times_of(frames, 12.5, 20.0)

def get_scene_embeddings(audio, model):
    return get_timestamp_embeddings(audio, model)[0].mean(1)
""",
    # recurrent, 48,000 Hz, times in float64, weights from a file
    "recurrent": """
class Recurrent(Model):
    def __init__(self):
        super().__init__(48_000, 7)
        self.gru = nn.GRU(7, 7, batch_first=True)

def load_model(model_file_path):
    model = Recurrent()
    model.load_state_dict(torch.load(model_file_path, weights_only=True))
    return model

def get_timestamp_embeddings(audio, model):
    energy = energies(audio, 1200, 960, 7)
    return energy + model.gru(energy)[0], times_of(energy, 12.5, 20.0, torch.float64)

def get_scene_embeddings(audio, model):
    return get_timestamp_embeddings(audio, model)[0][:, -1]
""",
}

XARES = '''
class Encoder(nn.Module):
    """40 ms blocks, the last filled with zeros."""

    def __init__(self):
        super().__init__()
        self.sampling_rate, self.hop_size_in_ms, self.output_dim = 16_000, 40, 9
        self.scale = nn.Parameter(torch.randn(9))

    def forward(self, audio):
        if audio.ndim == 1:
            audio = audio[None]
        with torch.inference_mode():
            return energies(F.pad(audio, (0, -audio.shape[1] % 640)), 640, 640, 9) * self.scale

class Inside(Encoder):
    """25 ms windows inside the sound, every 12.5 ms, at 24,000 Hz."""

    def __init__(self):
        super().__init__()
        self.sampling_rate, self.hop_size_in_ms = 24_000, 12.5

    def forward(self, audio):
        return energies(audio, 600, 300, 9) * self.scale
'''


def written(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str) -> str:
    """The name of a new module in `folder`, on the path."""
    (folder / f"{name}.py").write_text(_HEAD + code)
    monkeypatch.syspath_prepend(str(folder))
    return name
