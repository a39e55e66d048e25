"""Losses and gradients of masked acoustic modelling, held to what the released code and S3PRL computed.

Both ways of scoring are held to: the first frame of each span, as the released code does, and every frame of it.
"""

from __future__ import annotations

import ast
import json

import torch
from torch import Tensor

from repbench.audio.frames import valid_mask
from repbench.upstream.mockingjay.config import MaskingSettings
from repbench.upstream.mockingjay.masking import Masked, mask, masked_distance, scored
from repbench.upstream.mockingjay.model import sinusoids, stack_frames
from repbench.upstream.mockingjay.upstream import Mockingjay
from tests.upstream.goldens import Arrays, deviation, holds, load, reads, unread, words
from tests.upstream.test_mockingjay_golden import dr1, dr3, online

LOSS = 1e-5
IN_LOSS = ("encoder.input_projection.bias", "encoder.layers.1.feed_forward_norm.weight", "head.dense.bias",
           "head.norm.bias", "head.output.")  # fmt: skip

DR1 = "mam/legacy_mam_dr1_mel.npz"
DR3 = "mam/legacy_mam_dr3_mel.npz"
OVERLAP = "mam/s3prl_mam_overlap.npz"
GRID = "mam/s3prl_mam_nonoverlap.npz"

KINDS = {file: words(file, "kind") for file in (DR1, DR3, OVERLAP, GRID)}
CONFIGS = {file: words(file, "config")[0] for file in (DR1, DR3, OVERLAP, GRID)}

_SEED = "draws of another generator; the masks that were drawn are in the file"
NOT_MATCHED: dict[str, dict[str, str]] = {
    DR1: {"seed_torch13": _SEED, "source_after_call_is_mutated": "a fault; here the source is left as it is"},
    DR3: {"seed_torch13": _SEED, "source_after_call_is_mutated": "a fault; here the source is left as it is"},
    OVERLAP: {"seed": _SEED},
    GRID: {"seed": _SEED},
}


def test_no_golden_array_is_left_unread() -> None:
    assert unread("mam", NOT_MATCHED) == []


def loss_of(model: Mockingjay, masked: Tensor, counts: Tensor, target: Tensor, where: Tensor) -> Tensor:
    restored = model.require_head()(model.encoder.last(masked, counts))
    return masked_distance(restored, target, where)


def loss_holds(model: Mockingjay, masked: Tensor, counts: Tensor, target: Tensor, where: Tensor, value: Tensor) -> None:
    golden = float(value)
    holds(
        model,
        lambda: abs(float(loss_of(model, masked, counts, target, where)) - golden),
        LOSS,
        *IN_LOSS,
        step=0.5,
    )


def gradients_hold(model: Mockingjay, loss: Tensor, arrays: Arrays) -> None:
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    squares = [each.grad.square().sum() for each in model.parameters() if each.grad is not None]
    norm = float(torch.stack(squares).sum().sqrt())
    assert abs(norm - float(arrays["grad_norm_total"])) <= LOSS
    bias = model.require_head().output.bias.grad
    assert bias is not None
    assert deviation(bias, arrays["grad_SpecHead_output_bias"]) <= LOSS
    if "grad_spec_transform_bias" in arrays:
        bias = model.encoder.input_projection.bias.grad
        assert bias is not None
        assert deviation(bias, arrays["grad_spec_transform_bias"]) <= LOSS
    model.zero_grad()


def zeroed_spans_are_zero(source: Tensor, masked: Tensor, spans: Tensor, kinds: list[str]) -> None:
    """By kind, what a span became; all else is the source."""
    assert deviation(masked[~spans], source[~spans]) == 0.0
    for row, kind in enumerate(kinds):
        inside, was = masked[row][spans[row]], source[row][spans[row]]
        if kind == "zero":
            assert not inside.any()
        elif kind == "keep":
            assert torch.equal(inside, was)
        else:
            assert not torch.equal(inside, was)


def spans_from(starts: Tensor, consecutive: int) -> Tensor:
    spans = starts.clone()
    for step in range(1, consecutive):
        spans[:, step:] |= starts[:, :-step]
    return spans


LEGACY = ("spec_source", "spec_masked", "mask_label", "span_mask_full", "attn_mask", "lengths", "loss",
          "loss_span_full_derived", "grad_norm_total", "grad_SpecHead_output_bias",
          "grad_spec_transform_bias")  # fmt: skip


@reads(DR1, *LEGACY)
def test_the_released_code(arrays: Arrays) -> None:
    _legacy(dr1(), DR1, arrays)


@reads(DR3, *LEGACY)
def test_the_released_code_with_stacks_of_three(arrays: Arrays) -> None:
    """The last utterance's 70 frames count as 24 stacks there, the last of them partly padding.

    The loss is held to with that count given; `stack_frames` counts the 23 whole ones.
    """
    _, counts = stack_frames(arrays["spec_source"], arrays["lengths"], 3)
    assert counts.tolist() == [30, 30, 23]
    assert arrays["attn_mask"].sum(dim=1).tolist() == [30, 30, 24]
    _legacy(dr3(), DR3, arrays)


def _legacy(model: Mockingjay, file: str, arrays: Arrays) -> None:
    config = ast.literal_eval(CONFIGS[file])
    rate = model.settings.downsample_rate
    assert (config["downsample_rate"], config["mask_consecutive"]) == (rate, model.settings.masking.consecutive)
    source, masked = arrays["spec_source"], arrays["spec_masked"]
    target = source.reshape(len(source), -1, source.shape[2] * rate)
    starts, spans = arrays["mask_label"].bool(), arrays["span_mask_full"].bool()
    counts = arrays["attn_mask"].sum(dim=1).to(torch.int64)
    if rate == 1:
        assert torch.equal(counts, arrays["lengths"])
    assert torch.equal(spans, spans_from(starts, config["mask_consecutive"]))
    zeroed_spans_are_zero(target, masked, spans, KINDS[file])

    found = Masked(masked, spans, starts, torch.zeros(len(source), target.shape[2], dtype=torch.bool), counts)
    for loss_on, name in (("starts", "loss"), ("spans", "loss_span_full_derived")):
        settings = model.settings.masking.model_copy(update={"loss_on": loss_on})
        loss_holds(model, masked, counts, target, scored(found, counts, settings), arrays[name])
    gradients_hold(model, loss_of(model, masked, counts, target, starts), arrays)


S3PRL = ("spec_masked", "attn_mask", "lengths", "mask_label_time", "loss", "grad_norm_total",
         "grad_SpecHead_output_bias")  # fmt: skip


@reads(OVERLAP, *S3PRL, "spec_source", "spec_target", "pos_enc")
def test_s3prl_with_spans_that_overlap(arrays: Arrays) -> None:
    assert json.loads(CONFIGS[OVERLAP])["mask_allow_overlap"] is True
    assert deviation(sinusoids(5, 48), arrays["pos_enc"]) < 1e-6
    _s3prl(OVERLAP, arrays, arrays["spec_source"], arrays["spec_target"])


@reads(GRID, *S3PRL)
def test_s3prl_with_spans_on_a_grid(arrays: Arrays) -> None:
    assert json.loads(CONFIGS[GRID])["mask_allow_overlap"] is False
    shared = load(OVERLAP, "spec_source", "spec_target")
    spans = arrays["mask_label_time"].bool()
    assert not bool(spans.sum(dim=1).remainder(7).any()), "whole spans of seven, none shared"
    _s3prl(GRID, arrays, shared["spec_source"], shared["spec_target"])


def _s3prl(file: str, arrays: Arrays, source: Tensor, target: Tensor) -> None:
    model, lengths = online(), arrays["lengths"]
    config, settings = json.loads(CONFIGS[file]), model.settings.masking
    assert (config["mask_proportion"], config["mask_consecutive_max"]) == (settings.proportion, settings.consecutive)
    masked, spans = arrays["spec_masked"], arrays["mask_label_time"].bool()
    assert torch.equal(arrays["attn_mask"].bool(), valid_mask(lengths, 120))
    zeroed_spans_are_zero(source, masked, spans, KINDS[file])
    loss_holds(model, masked, lengths, target, spans, arrays["loss"])
    gradients_hold(model, loss_of(model, masked, lengths, target, spans), arrays)


def test_the_source_is_left_as_it_is() -> None:
    """The released code masked the caller's tensor."""
    arrays = load(DR1, "spec_source", "lengths", "source_after_call_is_mutated")
    assert bool(arrays["source_after_call_is_mutated"])
    before = arrays["spec_source"].clone()
    mask(arrays["spec_source"], arrays["lengths"], MaskingSettings(), torch.Generator().manual_seed(0))
    assert torch.equal(arrays["spec_source"], before)
