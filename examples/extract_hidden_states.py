"""Hidden states of a spectrogram, as the released Mockingjay code offered them.

Run it with a checkpoint of `repbench pretrain`, of the released code, or none for an untrained network:

    python examples/extract_hidden_states.py [CHECKPOINT]
"""

from __future__ import annotations

import sys

import torch

from repbench import load_upstream
from repbench.audio.legacy import MEL160

checkpoint = sys.argv[1] if len(sys.argv) > 1 else "random:tiny"
model = load_upstream("mockingjay", checkpoint=checkpoint)

# One second of noise in the place of your sound: (B, T) samples at 16 kHz, each with its length.
waveforms = 0.1 * torch.randn(2, 16_000, generator=torch.Generator().manual_seed(0))
samples = torch.tensor([16_000, 12_000])

# Your own spectrograms can take the place of these: (T, 160) or (B, T, 160), with the frames that are valid.
spec, lengths = MEL160(waveforms, samples)

with torch.inference_mode():
    every_layer = model.hidden_states(spec, lengths)  # (B, layers, T, H), a vector for each frame
    last_layer = model.hidden_states(spec, lengths, all_layers=False)  # (B, T, H)
    untiled = model.hidden_states(spec, lengths, tile=False)  # (B, layers, T // downsample rate, H)
    restored = model.prediction(spec, lengths)  # the spectrogram that the head restores
    states = model(waveforms, samples)  # the same from waveforms, as `repbench run` uses it: states.layers (L, B, F, H)

for name, tensor in {
    "every layer": every_layer,
    "last layer": last_layer,
    "untiled": untiled,
    "restored": restored,
    "from waveforms": states.layers,
}.items():
    print(f"{name}: {tuple(tensor.shape)}")
