"""Checks of hidden states: shapes, frame counts, batches, padding, the clock of frames, and unusual sounds.

Axes: L layers, B batch, T samples, F frames, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from repbench.benchmark.features.invariance_check import TOLERANCE, valid
from repbench.testing.conformance import Broken, Held, NotApplicable, NotMeasurable
from repbench.testing.upstreams.subject import SHAPED, STEADY, UPSTREAM_CHECKS, UpstreamSubject, module_of
from repbench.upstream.contract import HiddenStates

_check = UPSTREAM_CHECKS.check


@_check("layers-and-width")
def _layers_and_width(subject: UpstreamSubject) -> Held:
    """Every batch gives (L, B, F, D) hidden states, L and D as declared, and (B,) lengths."""
    info, second = subject.info, subject.second
    for num_samples, size in ((second, 1), (subject.length(2.5 * second), 1), (info.min_samples, 1), (second, 2)):
        if size > 1 and not info.batch_invariant:
            continue
        states = subject.run([subject.sound(num_samples, seed) for seed in range(size)])
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


@_check("num-frames", after=SHAPED)
def _num_frames(subject: UpstreamSubject) -> Held:
    """`num_frames` is exact for every length; 1 for one vector an utterance."""
    for num_samples in subject.lengths:
        states = subject.run([subject.sound(num_samples)])
        promised, given = subject.upstream.num_frames(num_samples), int(states.lengths[0])
        if type(promised) is not int or promised < 1:
            raise Broken(f"`num_frames({num_samples})` must be a whole number of at least 1, but is {promised!r}")
        if subject.info.one_vector and promised != 1:
            detail = f"`kind` is `utterance`, but `num_frames({num_samples})` is {promised}"
            raise Broken(detail, measured=promised, allowed=1)
        if not promised == given == states.layers.shape[2]:
            raise Broken(
                f"`num_frames({num_samples})` is {promised}, but `forward` returns `lengths` of {given} and "
                f"{states.layers.shape[2]}",
                measured=abs(promised - given) or abs(promised - states.layers.shape[2]),
                allowed=0,
            )
    return Held(f"exact for {len(subject.lengths)} lengths from {subject.lengths[0]} to {subject.lengths[-1]} samples")


@_check("finite", after=SHAPED)
def _finite(subject: UpstreamSubject) -> Held:
    """Speech gives no NaN and no infinity at any length."""
    for num_samples in subject.lengths:
        states = subject.alone(num_samples)
        if not bool(states.isfinite().all()):
            count = int((~states.isfinite()).sum())
            raise Broken(f"{count} of {states.numel()} values for {num_samples} samples are NaN or infinite")
    return Held(f"at {len(subject.lengths)} lengths")


@_check("deterministic", after=SHAPED)
def _deterministic(subject: UpstreamSubject) -> Held:
    """In eval mode the same sound gives the same hidden states, whatever was run in between."""
    first = subject.alone(subject.second)
    subject.states([subject.sound(subject.length(2.5 * subject.second), seed=1)])
    again = subject.states([subject.sound(subject.second)])[0]
    found = subject.hold_equal(first, again, "two runs on one sound")
    return Held("two runs on one sound, another between them", found, TOLERANCE)


def _refuse_unpromised(subject: UpstreamSubject) -> None:
    if not subject.info.batch_invariant:
        raise NotApplicable("it declares `batch_invariant=False`, so each utterance is run alone")


def _refuse_one_vector(subject: UpstreamSubject) -> None:
    if subject.info.one_vector:
        raise NotApplicable("it gives one vector an utterance, which has no times")


@_check("batch-invariant", after=STEADY)
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


@_check("padding-invariant", after=STEADY)
def _padding_invariant(subject: UpstreamSubject) -> Held:
    """Samples past an utterance's length are ignored: zeros, noise, or the padding to a longer neighbour."""
    _refuse_unpromised(subject)
    worst = 0.0
    for num_samples in sorted({subject.info.min_samples, subject.second}):
        sound = subject.sound(num_samples)
        for kind, behind in (("zeros", torch.zeros(num_samples)), ("noise", subject.sound(num_samples, seed=9))):
            # (T,) and (T,) -> (1, 2 T)
            padded = torch.cat([sound, behind])[None, : subject.info.max_samples]
            states = valid(subject.run_padded(padded, torch.tensor([num_samples])))[0]
            what = f"{num_samples} samples with and without {kind} behind them"
            worst = max(worst, subject.hold_equal(subject.alone(num_samples), states, what))
    if UPSTREAM_CHECKS.result("batch-invariant", subject).status == "passed":
        mixed = sorted({subject.longest, subject.second + 1, subject.info.min_samples}, reverse=True)
        mixed = [subject.length(each) for each in mixed]
        together = subject.states([subject.sound(each) for each in mixed])
        for num_samples, states in zip(mixed, together, strict=True):
            what = f"{num_samples} samples in a batch with {mixed[0]} and alone"
            worst = max(worst, subject.hold_equal(subject.alone(num_samples), states, what))
    return Held(f"padded with zeros, with noise, and in a batch with {subject.longest} samples", worst, TOLERANCE)


@_check("order-invariant", after=STEADY)
def _order_invariant(subject: UpstreamSubject) -> Held:
    """The order of a batch does not matter: each row belongs to its own utterance."""
    _refuse_unpromised(subject)
    lengths = sorted({subject.length(3 * subject.second), subject.second, subject.info.min_samples}, reverse=True)
    sounds = [subject.sound(each) for each in lengths]
    forth, back = subject.states(sounds), subject.states(sounds[::-1])[::-1]
    worst = 0.0
    for num_samples, one, other in zip(lengths, forth, back, strict=True):
        what = f"the states of {num_samples} samples, first and last in a batch,"
        worst = max(worst, subject.hold_equal(one, other, what))
    return Held(f"a batch of {len(lengths)} lengths and its reverse", worst, TOLERANCE)


@_check("zero-past-length", after=SHAPED)
def _zero_past_length(subject: UpstreamSubject) -> Held:
    """Hidden states are zero past each utterance's frames."""
    _refuse_unpromised(subject)
    states = subject.run([subject.sound(subject.length(3 * subject.second)), subject.sound(subject.info.min_samples)])
    # (L, B, F, D) -> (L, F - count, D) of the shorter utterance
    behind = states.layers[:, 1, int(states.lengths[1]) :]
    largest = float(behind.abs().max()) if behind.numel() else 0.0
    if largest != 0:
        raise Broken("values past the frames of the shorter utterance are not zero", measured=largest, allowed=0)
    return Held("the shorter of two utterances", 0.0, 0.0)


@_check("hop-and-first-centre", after=STEADY)
def _hop_and_first_centre(subject: UpstreamSubject) -> Held:
    """A moved impulse moves layer 0 as `hop_samples` and `first_center_samples` declare.

    Eight places of the impulse, spread evenly over a hop, and eight that are 20 hops later. A front end responds around
    its declared centre to a quarter of a hop; weights may lean to one side, by less than a hop.
    """
    _refuse_one_vector(subject)
    info = subject.info
    hop, first, rate = info.hop_samples, info.first_center_samples, info.sample_rate_hz
    num_hops = 20
    margin = max(info.min_samples, round(0.25 * rate), 4 * hop)
    length = 2 * margin + (num_hops + 1) * hop
    if subject.length(length) != length:
        raise NotMeasurable(f"an impulse needs {length} samples to move in, and it takes {info.max_samples}")
    # On quiet speech, because in silence a normalisation would amplify rounding.
    quiet = 0.05 * subject.sound(length)
    silent = subject.states([quiet])[0][0]  # (F, D)
    middles = []
    for start in (margin, margin + num_hops * hop):
        # The mean over a whole hop does not depend on where in its frame an impulse is.
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
    # place = first + hop * frame, solved for `first` at the mean of the two groups with the declared hop
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
    # Normalisation over time moves every frame a little; twice the median removes that.
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
    # Centroid, in frames
    return float((response * frames).sum() / response.sum())


@_check("utterance-normalised", after=STEADY)
def _utterance_normalised(subject: UpstreamSubject) -> Held:
    """`utterance_normalised` declares whether every feature of layer 0 has zero mean over the utterance."""
    _refuse_one_vector(subject)
    layer = subject.alone(subject.length(3 * subject.second))[0]
    # (F, D) -> (D,): the mean of each feature, relative to the layer's root mean square
    mean = float(layer.mean(dim=0).abs().max() / layer.square().mean().sqrt().clamp_min(1e-30))
    if subject.info.utterance_normalised and mean > 1e-3:
        raise Broken("it is declared, but a feature has a mean", measured=mean, allowed=1e-3)
    if not subject.info.utterance_normalised and mean <= 1e-3:
        raise Broken("it is not declared, but no feature of layer 0 has a mean", measured=mean)
    return Held("declared" if subject.info.utterance_normalised else "not declared", mean)


def _withstands(subject: UpstreamSubject, wave: Callable[[Tensor], Tensor]) -> Held:
    for num_samples in sorted({subject.info.min_samples, subject.second, subject.length(3 * subject.second)}):
        states = subject.run([wave(torch.arange(num_samples))])
        if not bool(valid(states)[0].isfinite().all()):
            raise Broken(f"{num_samples} samples give NaN or infinity")
    return Held("finite hidden states")


@_check("silence", after=(*SHAPED, "finite"))
def _silence(subject: UpstreamSubject) -> Held:
    """Exact zeros give no NaN and no infinity."""
    return _withstands(subject, lambda times: torch.zeros(len(times)))


@_check("square-wave", after=(*SHAPED, "finite"))
def _square_wave(subject: UpstreamSubject) -> Held:
    """A square wave at full scale gives no NaN and no infinity."""
    half_period = max(1, subject.info.sample_rate_hz // 200)
    return _withstands(subject, lambda times: 1.0 - 2.0 * (times // half_period % 2).float())


@_check("dc", after=(*SHAPED, "finite"))
def _dc(subject: UpstreamSubject) -> Held:
    """A constant gives no NaN and no infinity."""
    return _withstands(subject, lambda times: torch.full((len(times),), 0.5))


@_check("nan-refused-or-contained", after=(*STEADY, "finite"))
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
        together = subject.states([subject.sound(num_samples), damaged])[0]
        subject.hold_equal(reference, together, "an utterance together with one with a NaN and alone")
    after = subject.states([subject.sound(num_samples)])[0]
    subject.hold_equal(reference, after, "an utterance before and after one with a NaN")
    return Held(how)


def _passed(subject: UpstreamSubject, id_: str) -> bool:
    return UPSTREAM_CHECKS.result(id_, subject).status == "passed"
