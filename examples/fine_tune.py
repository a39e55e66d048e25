"""Fine-tuning a whole network on labels of your own, through ordinary autograd.

Run it with a checkpoint of `repbench pretrain`, of the released code, or none for an untrained network:

    python examples/fine_tune.py [CHECKPOINT]
"""

from __future__ import annotations

import sys

import torch
from torch import nn
from torch.nn import functional as F

from repbench import load_upstream, pretraining_optimizer

STEPS, CLASSES = 30, 2

checkpoint = sys.argv[1] if len(sys.argv) > 1 else "random:tiny"
upstream = load_upstream("mockingjay", checkpoint=checkpoint).train()
classifier = nn.Linear(upstream.info.width, CLASSES)

# Two kinds of spectrograms in the place of your data: (B, T, 160), their lengths and their classes.
generator = torch.Generator().manual_seed(0)
labels = torch.arange(16) % CLASSES
spec = torch.randn(16, 90, 160, generator=generator) + labels[:, None, None]
lengths = torch.randint(45, 91, (16,), generator=generator)

named = [*upstream.named_parameters(prefix="upstream"), *classifier.named_parameters(prefix="classifier")]
optimizer = pretraining_optimizer(named, lr=1e-3, warmup_proportion=0.07, training_steps=STEPS)

for step in range(STEPS):
    states = upstream.hidden_states(spec, lengths, all_layers=False)  # (B, T, H), zero past each length
    pooled = states.sum(dim=1) / lengths[:, None]  # the mean over valid frames alone
    loss = F.cross_entropy(classifier(pooled), labels)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_([parameter for _, parameter in named], 1.0)
    optimizer.step()
    if step in (0, STEPS - 1):
        print(f"step {step + 1}: loss {loss.item():.3f}")
