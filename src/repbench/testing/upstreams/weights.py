"""Checks of fingerprints, gradients, dtypes and devices, global state, and of another process."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repbench.benchmark.features.invariance_check import TOLERANCE, valid
from repbench.benchmark.loading.upstreams import build_upstream
from repbench.globalstate import preserved_global_state
from repbench.testing.conformance import Broken, Held, NotApplicable, NotMeasurable
from repbench.testing.upstreams.subject import SHAPED, STEADY, UPSTREAM_CHECKS, UpstreamSubject, module_of
from repbench.testing.worker import heard_in_worker
from repbench.upstream.adapters.python_module import DeclaredModule
from repbench.upstream.contract import Upstream

_check = UPSTREAM_CHECKS.check


@_check("fingerprint-stable")
def _fingerprint_stable(subject: UpstreamSubject) -> Held:
    """The fingerprint is a SHA-256 that neither running nor building again changes."""
    upstream = subject.upstream
    first = upstream.fingerprint()
    if not isinstance(first, str) or re.fullmatch(r"[0-9a-f]{64}", first) is None:
        raise Broken(f"`fingerprint` must be 64 hexadecimal digits, but is {first!r}")
    subject.run([subject.sound(subject.second, seed=3)])
    if upstream.fingerprint() != first:
        raise Broken("the fingerprint is another after running on a sound")
    if subject.build().fingerprint() != first:
        raise Broken("built again from the same checkpoint and seed, it has another fingerprint")
    return Held(first[:16])


@_check("fingerprint-of-weights", after=("fingerprint-stable",))
def _fingerprint_of_weights(subject: UpstreamSubject) -> Held:
    """The fingerprint changes when one weight does."""
    upstream = subject.build()
    tensors = {name: each for name, each in module_of(upstream).state_dict().items() if each.numel()}
    if not tensors:
        raise NotApplicable("it has no weights")
    before, names = upstream.fingerprint(), list(tensors)
    for name in dict.fromkeys((names[0], names[len(names) // 2], names[-1])):
        with torch.no_grad():
            weight = tensors[name].view(-1)[-1]
            # `view(-1)[-1]` is a view: writing to it changes the weight of the network itself.
            kept = weight.clone()
            weight.copy_(~kept if kept.dtype == torch.bool else kept + 1)
            after = upstream.fingerprint()
            weight.copy_(kept)
        if after == before:
            raise Broken(f"a changed weight of `{name}` leaves the fingerprint as it was")
    return Held(f"{len(tensors)} tensors")


@_check("fingerprint-not-of-path", after=("fingerprint-stable",))
def _fingerprint_not_of_path(subject: UpstreamSubject) -> Held:
    """The same checkpoint in another place has the same fingerprint; so has the folder or declaration that is named."""
    with tempfile.TemporaryDirectory(prefix="repbench-check-") as folder:
        moved = _moved(subject, Path(folder, "elsewhere")).fingerprint()
    if moved != subject.upstream.fingerprint():
        raise Broken("the same checkpoint under another path has another fingerprint")
    return Held("loaded from another folder")


def _moved(subject: UpstreamSubject, folder: Path) -> Upstream:
    """The upstream built from copies, in `folder`, of the files that it came from.

    Raises:
        NotApplicable: It came from none.
    """
    named, behind_door = subject.checkpoint, None if subject.entry is None else subject.entry.argument
    if named is not None and Path(named).exists():
        return subject.build_from(str(_copied(Path(named), folder)))
    if subject.entry is not None and behind_door is not None and Path(behind_door).expanduser().exists():
        entry = replace(subject.entry, argument=str(_copied(Path(behind_door).expanduser(), folder)))
        if isinstance(subject.upstream, DeclaredModule):
            _copied(subject.upstream.declaration_file, folder)
        return build_upstream(entry, named, subject.seed)
    if isinstance(subject.upstream, DeclaredModule) and named is None:
        place, weights = subject.upstream.declaration_file, subject.upstream.declared.weights
        copied = _copied(place, folder)
        if weights is not None and not Path(weights).is_absolute():
            _copied(place.parent / weights, (folder / weights).parent)
        return subject.build_from(str(copied))
    raise NotApplicable("it was not loaded from a file")


def _copied(source: Path, folder: Path) -> Path:
    """A copy of a file or folder in another folder."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / source.name
    if source.is_dir():
        shutil.copytree(source, target, copy_function=_link_or_copy)
    else:
        _link_or_copy(source, target)
    return target


def _link_or_copy(source: Any, target: Any) -> None:
    try:
        os.link(Path(source).resolve(), target)  # a cache holds links, which lead nowhere from another folder
    except OSError:  # another file system
        shutil.copyfile(source, target)


@_check("dtype-and-device-round-trip", after=STEADY)
def _round_trip(subject: UpstreamSubject) -> Held:
    """Hidden states are floating point on the device of the sound, and a trip to float64 and back changes nothing."""
    states = subject.run([subject.sound(subject.second)])
    if not states.layers.is_floating_point():
        raise Broken(f"the hidden states are {states.layers.dtype}")
    if states.layers.device.type != subject.device.type:
        raise Broken(f"the sound is on {subject.device.type}, the hidden states are on {states.layers.device.type}")
    travelled = subject.build()
    module = module_of(travelled)
    trips = ["float64"]
    module.to(torch.float64).to(torch.float32)
    if torch.cuda.is_available():
        other = torch.device("cpu" if subject.device.type == "cuda" else "cuda")
        trips.append(other.type)
        module.to(other)
        with torch.inference_mode():
            there = travelled(
                subject.sound(subject.second)[None].to(other), torch.tensor([subject.second], device=other)
            )
        if there.layers.device.type != other.type:
            raise Broken(f"the sound is on {other.type}, the hidden states are on {there.layers.device.type}")
        module.to(subject.device)
    back = valid(subject.run([subject.sound(subject.second)], travelled))[0]
    found = subject.hold_equal(subject.alone(subject.second), back, f"before and after a trip to {' and '.join(trips)}")
    return Held(f"to {' and '.join(trips)} and back", found, TOLERANCE)


@_check("gradient-when-training", after=STEADY)
def _gradient_when_training(subject: UpstreamSubject) -> Held:
    """Where it declares `trainable=True`, finite gradient reaches every weight that its hidden states depend on.

    Weights without gradient that change nothing, as those of a head of pre-training, are counted and named.
    """
    if not subject.info.trainable:
        raise NotApplicable("it declares `trainable=False`")
    upstream = subject.build()
    module = module_of(upstream).train()
    weights = {name: each for name, each in module.named_parameters() if each.is_floating_point()}
    if not weights:
        raise Broken("it declares `trainable=True`, but has no parameters")
    for weight in weights.values():
        weight.requires_grad_(True)
    waveforms = subject.sound(subject.second)[None].to(subject.device)
    layers = upstream(waveforms, torch.tensor([subject.second], device=subject.device)).layers
    if not layers.requires_grad:
        raise Broken("no gradient leads from the hidden states to the weights")
    generator = torch.Generator().manual_seed(0)
    # A random direction, because the gradient of a plain mean vanishes after layer normalisation, whose outputs have a
    # mean of 0.
    direction = torch.randn(layers.shape, generator=generator).to(layers)
    torch.autograd.backward((layers * direction).mean())
    gradients = {name: each.grad for name, each in weights.items() if each.grad is not None}
    for name, gradient in gradients.items():
        if not bool(gradient.isfinite().all()):
            raise Broken(f"the gradient of `{name}` is NaN or infinite")
    if not any(bool((gradient != 0).any()) for gradient in gradients.values()):
        raise Broken("the gradient of every weight is zero")
    unreached = [name for name in weights if name not in gradients]
    module.eval().requires_grad_(False)
    for name in _that_matter(subject, upstream, {name: weights[name] for name in unreached}):
        raise Broken(f"the hidden states depend on `{name}`, but no gradient reaches it")
    idle = f"; nothing depends on {', '.join(unreached[:3])}{' …' if len(unreached) > 3 else ''}" if unreached else ""
    return Held(f"{len(gradients)} of {len(weights)} tensors are reached{idle}")


def _that_matter(subject: UpstreamSubject, upstream: Upstream, weights: Mapping[str, Tensor]) -> Iterator[str]:
    """The weights that the hidden states of a sound depend on; each stays changed."""

    def states() -> Tensor:
        return valid(subject.run([subject.sound(subject.second)], upstream))[0]

    before = states()
    for name, weight in weights.items():
        with torch.no_grad():
            # Both, because a scale alone leaves zeros as they are.
            weight.mul_(1.5).add_(0.1)
        after = states()
        if subject.difference(before, after) > TOLERANCE:
            yield name
        before = after


@_check("frozen-leaves-no-gradient", after=SHAPED)
def _frozen_leaves_no_gradient(subject: UpstreamSubject) -> Held:
    """Where its weights are frozen, hidden states carry no gradient."""
    upstream = subject.build()
    waveforms = subject.sound(subject.second)[None].to(subject.device)
    with torch.enable_grad():
        layers = upstream(waveforms, torch.tensor([subject.second], device=subject.device)).layers
    if layers.requires_grad:
        raise Broken("the hidden states require gradient though no parameter does")
    thawed = [name for name, each in module_of(upstream).named_parameters() if each.requires_grad]
    if thawed:
        raise Broken(f"running on a sound thawed `{thawed[0]}`")
    return Held("with gradient mode on")


@_check("global-state")
def _global_state(subject: UpstreamSubject) -> Held:
    """Building and running leave the state of the process unchanged: random numbers, dtype, threads, and more."""
    for action, act in (
        ("building it", lambda: subject.build_from(subject.checkpoint)),
        ("running on a sound", lambda: subject.run([subject.sound(subject.second)])),
        ("its fingerprint", subject.upstream.fingerprint),
    ):
        with preserved_global_state() as changed:
            act()
        if changed:
            raise Broken(f"{action} changes {', '.join(changed)}")
    return Held("untouched")


@_check("works-in-a-worker", after=(*STEADY, "fingerprint-stable"))
def _works_in_a_worker(subject: UpstreamSubject) -> Held:
    """Built by its name in a separate process, it has the same fingerprint and hidden states."""
    if subject.entry is None:
        raise NotMeasurable("its factory has no name by which another process could find it")
    sound = subject.sound(subject.second)
    fingerprint, states = heard_in_worker(subject.entry, subject.checkpoint, subject.seed, sound)
    if fingerprint != subject.upstream.fingerprint():
        raise Broken("in a separate process it has another fingerprint")
    with torch.inference_mode():  # on the CPU, as there
        here = valid(subject.build_from(subject.checkpoint)(sound[None], torch.tensor([len(sound)])))[0]
    found = subject.hold_equal(here, states, "here and in a separate process")
    return Held("in a separate process", found, TOLERANCE)
