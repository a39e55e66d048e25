"""The promises of an upstream, each a named check: the conformance suite behind `repbench check upstream`.

A comparison of hidden states is relative: the largest difference of a layer over its root mean square on one second of
speech-like sound. Sounds are drawn from seeds; lengths go from `min_samples` to 30 s, or to `max_samples`.

Axes: L layers, B batch, T samples, F frames, D width.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from repbench.benchmark.features.invariance_check import (
    TOLERANCE,
    relative_difference,
    root_mean_square,
    speech_like,
    valid,
)
from repbench.benchmark.loading.certificates import CheckResult
from repbench.benchmark.loading.upstreams import build_upstream
from repbench.globalstate import preserved_global_state
from repbench.registry import Entry
from repbench.testing.conformance import Broken, Held, NotApplicable, NotMeasurable, Suite
from repbench.testing.worker import heard_in_worker
from repbench.upstream.adapters.python_module import DeclaredModule
from repbench.upstream.contract import HiddenStates, Upstream, UpstreamInfo

LONGEST_SECONDS = 30.0

Build = Callable[[str | None], Upstream]
"""From a checkpoint to a new upstream in eval mode on the CPU."""


class UpstreamSubject:
    """An upstream under examination.

    Args:
        build: Makes it, again and again: some checks change weights.
        checkpoint: What `build` is given.
        seed: Of untrained weights, for the process that builds it by its entry.
        entry: How another process finds it; None if only this one can.
        device: Where it is run.
    """

    def __init__(
        self,
        build: Build,
        *,
        checkpoint: str | None = None,
        seed: int = 0,
        entry: Entry | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.build_from = build
        self.checkpoint = checkpoint
        self.seed = seed
        self.entry = entry
        self.device = torch.device("cpu") if device is None else device
        self.results: dict[str, CheckResult] = {}
        self.upstream = self.build()
        self._alone: dict[tuple[int, int], Tensor] = {}
        self._scale: Tensor | None = None

    @property
    def info(self) -> UpstreamInfo:
        """What it declares."""
        return self.upstream.info

    def build(self) -> Upstream:
        """Another one of the same, on the device, frozen."""
        with preserved_global_state():
            upstream = self.build_from(self.checkpoint)
        module_of(upstream).eval().requires_grad_(False).to(self.device)
        return upstream

    def length(self, num_samples: float) -> int:
        """The length nearest to `num_samples` that the upstream takes."""
        longest = self.info.max_samples or math.inf
        return int(min(max(num_samples, self.info.min_samples), longest))

    @property
    def second(self) -> int:
        """One second, or what comes nearest."""
        return self.length(self.info.sample_rate_hz)

    @property
    def longest(self) -> int:
        """30 s, or what comes nearest."""
        return self.length(LONGEST_SECONDS * self.info.sample_rate_hz)

    @property
    def lengths(self) -> tuple[int, ...]:
        """From the shortest to the longest, one sample to either side of a frame among them."""
        rate, hop, shortest = self.info.sample_rate_hz, self.info.hop_samples, self.info.min_samples
        wanted: list[float] = [
            shortest + offset for offset in (0, 1, 2, hop - 1, hop, hop + 1, 3 * hop - 1, 3 * hop, 7 * hop + 5)
        ]
        wanted += [0.025 * rate, 0.1 * rate, 0.5 * rate, rate - 1, rate, rate + 1, rate + hop // 2, 2.5 * rate]
        wanted += [3 * rate, 4 * rate + 1, LONGEST_SECONDS * rate]
        return tuple(sorted({self.length(each) for each in wanted}))

    def sound(self, num_samples: int, seed: int = 0) -> Tensor:
        """(T,) speech-like sound of its length and seed."""
        return speech_like(num_samples, self.info.sample_rate_hz, seed)

    def alone(self, num_samples: int, seed: int = 0) -> Tensor:
        """Hidden states (L, F, D) of `sound(num_samples, seed)` by itself; kept but for the long ones."""
        if (num_samples, seed) in self._alone:
            return self._alone[num_samples, seed]
        states = self.states([self.sound(num_samples, seed)])[0]
        if num_samples <= 5 * self.info.sample_rate_hz:
            self._alone[num_samples, seed] = states
        return states

    def states(self, sounds: Sequence[Tensor]) -> list[Tensor]:
        """(L, F, D) of each sound in one batch, padded with zeros."""
        return valid(self.heard(sounds))

    def heard(self, sounds: Sequence[Tensor], upstream: Upstream | None = None) -> HiddenStates:
        """What the upstream (or another one) says of a batch."""
        lengths = torch.tensor([len(each) for each in sounds])
        return self.heard_padded(nn.utils.rnn.pad_sequence(list(sounds), batch_first=True), lengths, upstream)

    def heard_padded(self, waveforms: Tensor, lengths: Tensor, upstream: Upstream | None = None) -> HiddenStates:
        """As `heard`, of a batch that is padded already."""
        with torch.inference_mode():
            return (upstream or self.upstream)(waveforms.to(self.device), lengths.to(self.device))

    def difference(self, reference: Tensor, other: Tensor) -> float:
        """How far two hidden states (L, F, D) lie apart, relative to each layer's root mean square on one second."""
        if self._scale is None:
            self._scale = root_mean_square(self.alone(self.second))
        return relative_difference(reference, other, self._scale)

    def hold_equal(self, reference: Tensor, other: Tensor, what: str) -> float:
        """Their difference.

        Raises:
            Broken: It is too large; `what` says of which two.
        """
        found = self.difference(reference, other)
        if found > TOLERANCE:
            detail = f"{what} differ by {found:.1e} of the layer's root mean square"
            if reference.shape != other.shape:
                detail = f"{what} have the shapes {tuple(reference.shape)} and {tuple(other.shape)}"
            raise Broken(detail, measured=found, allowed=TOLERANCE)
        return found


def module_of(upstream: Upstream) -> nn.Module:
    """The upstream as the module it also is."""
    return cast(nn.Module, upstream)


UPSTREAM_CHECKS: Suite[UpstreamSubject] = Suite()
"""Every check of an upstream, in order."""

_check = UPSTREAM_CHECKS.check


@_check("layers-and-width")
def _layers_and_width(subject: UpstreamSubject) -> Held:
    """Every batch gives (L, B, F, D) hidden states, L and D as declared, and (B,) lengths."""
    info, second = subject.info, subject.second
    for num_samples, size in ((second, 1), (subject.length(2.5 * second), 1), (info.min_samples, 1), (second, 2)):
        if size > 1 and not info.batch_invariant:
            continue
        states = subject.heard([subject.sound(num_samples, seed) for seed in range(size)])
        if not isinstance(states, HiddenStates):
            raise Broken(f"`forward` must return HiddenStates, but returned a {type(states).__name__}")
        layers, lengths = states.layers, states.lengths
        wanted = (len(info.layer_names), size, info.width)
        found = (layers.shape[0], layers.shape[1], layers.shape[3]) if layers.dim() == 4 else tuple(layers.shape)
        if found != wanted:
            shape = f"(L, B, D) = {found}" if layers.dim() == 4 else f"the shape {found}"
            raise Broken(f"(L, B, D) is declared as {wanted}, but {num_samples} samples gave {shape}")
        if tuple(lengths.shape) != (size,) or lengths.is_floating_point():
            raise Broken(f"`lengths` must be (B,) whole numbers, but is {tuple(lengths.shape)} {lengths.dtype}")
    return Held(f"{len(info.layer_names)} layers of width {info.width}")


_SHAPED = ("layers-and-width",)


@_check("num-frames", after=_SHAPED)
def _num_frames(subject: UpstreamSubject) -> Held:
    """`num_frames` is exact for every length."""
    for num_samples in subject.lengths:
        states = subject.heard([subject.sound(num_samples)])
        promised, given = subject.upstream.num_frames(num_samples), int(states.lengths[0])
        if type(promised) is not int or promised < 1:
            raise Broken(f"`num_frames({num_samples})` must be a whole number of at least 1, but is {promised!r}")
        if not promised == given == states.layers.shape[2]:
            raise Broken(
                f"`num_frames({num_samples})` is {promised}, but `forward` says {given} and gives "
                f"{states.layers.shape[2]}",
                measured=abs(promised - given) or abs(promised - states.layers.shape[2]),
                allowed=0,
            )
    return Held(f"exact for {len(subject.lengths)} lengths from {subject.lengths[0]} to {subject.lengths[-1]} samples")


@_check("finite", after=_SHAPED)
def _finite(subject: UpstreamSubject) -> Held:
    """Speech gives no NaN and no infinity at any length."""
    for num_samples in subject.lengths:
        states = subject.alone(num_samples)
        if not bool(states.isfinite().all()):
            count = int((~states.isfinite()).sum())
            raise Broken(f"{count} of {states.numel()} values for {num_samples} samples are NaN or infinite")
    return Held(f"at {len(subject.lengths)} lengths")


@_check("deterministic", after=_SHAPED)
def _deterministic(subject: UpstreamSubject) -> Held:
    """In eval mode the same sound gives the same hidden states, whatever was heard in between."""
    first = subject.alone(subject.second)
    subject.states([subject.sound(subject.length(2.5 * subject.second), seed=1)])
    again = subject.states([subject.sound(subject.second)])[0]
    found = subject.hold_equal(first, again, "two hearings of one sound")
    return Held("two hearings of one sound, another between them", found, TOLERANCE)


_STEADY = (*_SHAPED, "deterministic")


def _refuse_unpromised(subject: UpstreamSubject) -> None:
    if not subject.info.batch_invariant:
        raise NotApplicable("it declares `batch_invariant=False`, so each utterance is run alone")


@_check("batch-invariant", after=_STEADY)
def _batch_invariant(subject: UpstreamSubject) -> Held:
    """An utterance is the same alone and among others of its length."""
    _refuse_unpromised(subject)
    worst = 0.0
    for num_samples in sorted({subject.info.min_samples, subject.second, subject.length(3 * subject.second)}):
        together = subject.states([subject.sound(num_samples, seed) for seed in range(3)])
        for seed, states in enumerate(together):
            what = f"row {seed} of a batch of 3 and the same {num_samples} samples alone"
            worst = max(worst, subject.hold_equal(subject.alone(num_samples, seed), states, what))
    return Held("batches of 3 of one length against each alone", worst, TOLERANCE)


@_check("padding-invariant", after=_STEADY)
def _padding_invariant(subject: UpstreamSubject) -> Held:
    """What lies past an utterance's length is ignored, be it zeros, noise, or the room of a longer neighbour."""
    _refuse_unpromised(subject)
    worst = 0.0
    for num_samples in sorted({subject.info.min_samples, subject.second}):
        sound = subject.sound(num_samples)
        for kind, behind in (("zeros", torch.zeros(num_samples)), ("noise", subject.sound(num_samples, seed=9))):
            padded = torch.cat([sound, behind])[None, : subject.info.max_samples]
            states = valid(subject.heard_padded(padded, torch.tensor([num_samples])))[0]
            what = f"{num_samples} samples with and without {kind} behind them"
            worst = max(worst, subject.hold_equal(subject.alone(num_samples), states, what))
    if UPSTREAM_CHECKS.result("batch-invariant", subject).status == "passed":
        mixed = sorted({subject.longest, subject.second + 1, subject.info.min_samples}, reverse=True)
        mixed = [subject.length(each) for each in mixed]
        together = subject.states([subject.sound(each) for each in mixed])
        for num_samples, states in zip(mixed, together, strict=True):
            what = f"{num_samples} samples beside {mixed[0]} and alone"
            worst = max(worst, subject.hold_equal(subject.alone(num_samples), states, what))
    return Held(f"padded with zeros, with noise, and beside {subject.longest} samples", worst, TOLERANCE)


@_check("order-invariant", after=_STEADY)
def _order_invariant(subject: UpstreamSubject) -> Held:
    """The order of a batch does not matter: each row speaks of its own utterance."""
    _refuse_unpromised(subject)
    lengths = sorted({subject.length(3 * subject.second), subject.second, subject.info.min_samples}, reverse=True)
    sounds = [subject.sound(each) for each in lengths]
    forth, back = subject.states(sounds), subject.states(sounds[::-1])[::-1]
    worst = 0.0
    for num_samples, one, other in zip(lengths, forth, back, strict=True):
        what = f"the states of {num_samples} samples, first and last in a batch,"
        worst = max(worst, subject.hold_equal(one, other, what))
    return Held(f"a batch of {len(lengths)} lengths and its reverse", worst, TOLERANCE)


@_check("zero-past-length", after=_SHAPED)
def _zero_past_length(subject: UpstreamSubject) -> Held:
    """Hidden states are zero past each utterance's frames."""
    _refuse_unpromised(subject)
    states = subject.heard([subject.sound(subject.length(3 * subject.second)), subject.sound(subject.info.min_samples)])
    behind = states.layers[:, 1, int(states.lengths[1]) :]
    largest = float(behind.abs().max()) if behind.numel() else 0.0
    if largest != 0:
        raise Broken("what lies past the frames of the shorter utterance is not zero", measured=largest, allowed=0)
    return Held("the shorter of two utterances", 0.0, 0.0)


@_check("hop-and-first-centre", after=_STEADY)
def _hop_and_first_centre(subject: UpstreamSubject) -> Held:
    """A moved impulse moves layer 0 as `hop_samples` and `first_center_samples` say.

    Eight places of the impulse, spread evenly over a hop, and eight that lie 20 hops later. A front end answers around
    its declared centre to a quarter of a hop; weights may lean to one side, by less than a hop.
    """
    info = subject.info
    hop, first, rate = info.hop_samples, info.first_center_samples, info.sample_rate_hz
    num_hops = 20
    margin = max(info.min_samples, round(0.25 * rate), 4 * hop)
    length = 2 * margin + (num_hops + 1) * hop
    if subject.length(length) != length:
        raise NotMeasurable(f"an impulse needs {length} samples to move in, and it takes {info.max_samples}")
    quiet = 0.05 * subject.sound(length)
    silent = subject.states([quiet])[0][0]  # (F, D)
    middles = []
    for start in (margin, margin + num_hops * hop):
        places = [start + (2 * step + 1) * hop // 16 for step in range(8)]
        frames = [_middle_of_response(subject, quiet, silent, place) for place in places]
        middles.append((sum(places) / 8, sum(frames) / 8))
    (place, frame), (later_place, later_frame) = middles
    if later_frame - frame < 1:
        raise NotMeasurable("a moved impulse moves nothing in layer 0")
    found_hop = (later_place - place) / (later_frame - frame)
    if abs(found_hop - hop) > 0.02 * hop:
        detail = f"`hop_samples` is {hop}, but an impulse moves as if it were {found_hop:.1f}"
        raise Broken(detail, measured=abs(found_hop - hop), allowed=0.02 * hop)
    found_first = (place + later_place) / 2 - hop * (frame + later_frame) / 2
    allowed = (1.0 if list(module_of(subject.upstream).parameters()) else 0.25) * hop
    if abs(found_first - first) > allowed:
        detail = f"`first_center_samples` is {first}, but an impulse is seen as if it were {found_first:.0f}"
        raise Broken(detail, measured=abs(found_first - first), allowed=allowed)
    return Held(f"hop {found_hop:.1f} samples, first centre {found_first:.0f}", abs(found_first - first), allowed)


def _middle_of_response(subject: UpstreamSubject, quiet: Tensor, silent: Tensor, place: int) -> float:
    """The frame around which an impulse at `place` changes layer 0.

    Raises:
        NotMeasurable: The change is not confined to 0.15 s.
    """
    struck = quiet.clone()
    struck[place] += 0.9
    change = (subject.states([struck])[0][0] - silent).norm(dim=-1)  # (F,)
    response = (change - 2 * change.median()).clamp_min(0)
    if not bool(response.isfinite().all()) or float(response.max()) == 0:
        raise NotMeasurable("an impulse changes all frames of layer 0 alike")
    frames = torch.arange(len(response), dtype=response.dtype)
    peak = int(response.argmax())
    reach = max(3.0, 0.075 * subject.info.sample_rate_hz / subject.info.hop_samples)
    near = (frames - peak).abs() <= reach
    if float(response[near].sum()) < 0.9 * float(response.sum()):
        raise NotMeasurable("the model spreads an impulse over more than 0.15 s of layer 0")
    response = response * near
    return float((response * frames).sum() / response.sum())


@_check("utterance-normalised", after=_STEADY)
def _utterance_normalised(subject: UpstreamSubject) -> Held:
    """`utterance_normalised` says whether every feature of layer 0 has zero mean over the utterance."""
    layer = subject.alone(subject.length(3 * subject.second))[0]
    mean = float(layer.mean(dim=0).abs().max() / layer.square().mean().sqrt().clamp_min(1e-30))
    if subject.info.utterance_normalised and mean > 1e-3:
        raise Broken("it is declared, but a feature has a mean", measured=mean, allowed=1e-3)
    if not subject.info.utterance_normalised and mean <= 1e-3:
        raise Broken("it is not declared, but no feature of layer 0 has a mean", measured=mean)
    return Held("declared" if subject.info.utterance_normalised else "not declared", mean)


def _withstands(subject: UpstreamSubject, wave: Callable[[Tensor], Tensor]) -> Held:
    for num_samples in sorted({subject.info.min_samples, subject.second, subject.length(3 * subject.second)}):
        states = subject.heard([wave(torch.arange(num_samples))])
        if not bool(valid(states)[0].isfinite().all()):
            raise Broken(f"{num_samples} samples give NaN or infinity")
    return Held("finite hidden states")


@_check("silence", after=(*_SHAPED, "finite"))
def _silence(subject: UpstreamSubject) -> Held:
    """Exact zeros are heard without NaN or infinity."""
    return _withstands(subject, lambda times: torch.zeros(len(times)))


@_check("square-wave", after=(*_SHAPED, "finite"))
def _square_wave(subject: UpstreamSubject) -> Held:
    """A square wave at full scale is heard without NaN or infinity."""
    half_period = max(1, subject.info.sample_rate_hz // 200)
    return _withstands(subject, lambda times: 1.0 - 2.0 * (times // half_period % 2).float())


@_check("dc", after=(*_SHAPED, "finite"))
def _dc(subject: UpstreamSubject) -> Held:
    """A constant is heard without NaN or infinity."""
    return _withstands(subject, lambda times: torch.full((len(times),), 0.5))


@_check("nan-refused-or-contained", after=(*_STEADY, "finite"))
def _nan_refused_or_contained(subject: UpstreamSubject) -> Held:
    """A sound with a NaN is refused, or its hidden states show it, and nothing else ever does.

    repbench itself refuses such a sound when it reads it; this is about what a fault in one utterance does to the rest.
    """
    num_samples = subject.second
    damaged = subject.sound(num_samples, seed=5).clone()
    damaged[num_samples // 2] = math.nan
    try:
        shown = not bool(subject.states([damaged])[0].isfinite().all())
        how = "contained"
    except Exception as refusal:
        shown, how = True, f"refused with {type(refusal).__name__}"
    if not shown:
        raise Broken("a NaN in the sound does not show in the hidden states")
    reference = subject.alone(num_samples)
    if how == "contained" and _passed(subject, "batch-invariant"):
        beside = subject.states([subject.sound(num_samples), damaged])[0]
        subject.hold_equal(reference, beside, "an utterance beside one with a NaN and alone")
    after = subject.states([subject.sound(num_samples)])[0]
    subject.hold_equal(reference, after, "an utterance before and after one with a NaN")
    return Held(how)


def _passed(subject: UpstreamSubject, id_: str) -> bool:
    return UPSTREAM_CHECKS.result(id_, subject).status == "passed"


@_check("fingerprint-stable")
def _fingerprint_stable(subject: UpstreamSubject) -> Held:
    """The fingerprint is a SHA-256 that neither hearing nor building again changes."""
    upstream = subject.upstream
    first = upstream.fingerprint()
    if not isinstance(first, str) or re.fullmatch(r"[0-9a-f]{64}", first) is None:
        raise Broken(f"`fingerprint` must be 64 hexadecimal digits, but is {first!r}")
    subject.heard([subject.sound(subject.second, seed=3)])
    if upstream.fingerprint() != first:
        raise Broken("the fingerprint is another after hearing a sound")
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


@_check("dtype-and-device-round-trip", after=_STEADY)
def _round_trip(subject: UpstreamSubject) -> Held:
    """Hidden states are floating point on the device of the sound, and a trip to float64 and back changes nothing."""
    states = subject.heard([subject.sound(subject.second)])
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
    back = valid(subject.heard([subject.sound(subject.second)], travelled))[0]
    found = subject.hold_equal(subject.alone(subject.second), back, f"before and after a trip to {' and '.join(trips)}")
    return Held(f"to {' and '.join(trips)} and back", found, TOLERANCE)


@_check("gradient-when-training", after=_STEADY)
def _gradient_when_training(subject: UpstreamSubject) -> Held:
    """Where it says that it can be trained, finite gradient reaches every weight that its hidden states depend on.

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
    """The weights whose change changes what the upstream says of a sound; each is left changed."""

    def heard() -> Tensor:
        return valid(subject.heard([subject.sound(subject.second)], upstream))[0]

    before = heard()
    for name, weight in weights.items():
        with torch.no_grad():
            weight.mul_(1.5).add_(0.1)
        after = heard()
        if subject.difference(before, after) > TOLERANCE:
            yield name
        before = after


@_check("frozen-leaves-no-gradient", after=_SHAPED)
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
        raise Broken(f"hearing a sound thawed `{thawed[0]}`")
    return Held("with gradient mode on")


@_check("global-state")
def _global_state(subject: UpstreamSubject) -> Held:
    """Building and hearing leave the state of the process alone: random numbers, dtype, threads, folder, and more."""
    for deed, act in (
        ("building it", lambda: subject.build_from(subject.checkpoint)),
        ("hearing a sound", lambda: subject.heard([subject.sound(subject.second)])),
        ("its fingerprint", subject.upstream.fingerprint),
    ):
        with preserved_global_state() as changed:
            act()
        if changed:
            raise Broken(f"{deed} changes {', '.join(changed)}")
    return Held("untouched")


@_check("works-in-a-worker", after=(*_STEADY, "fingerprint-stable"))
def _works_in_a_worker(subject: UpstreamSubject) -> Held:
    """Built by name in a process of its own, it has the same fingerprint and says the same."""
    if subject.entry is None:
        raise NotMeasurable("its factory has no name by which another process could find it")
    sound = subject.sound(subject.second)
    fingerprint, states = heard_in_worker(subject.entry, subject.checkpoint, subject.seed, sound)
    if fingerprint != subject.upstream.fingerprint():
        raise Broken("in a process of its own it has another fingerprint")
    with torch.inference_mode():  # on the CPU, as there
        here = valid(subject.build_from(subject.checkpoint)(sound[None], torch.tensor([len(sound)])))[0]
    found = subject.hold_equal(here, states, "here and in a process of its own")
    return Held("in a process of its own", found, TOLERANCE)
