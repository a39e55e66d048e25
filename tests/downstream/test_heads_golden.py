"""Heads and layer mixes give what the released Mockingjay code and S3PRL computed, but for their faults.

Of `s3prl_downstream.npz`, frames stretched to the number of labels (labels stand at frame centres here) and attentive
pooling with its mask added to the logits are not wanted, so not compared.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from repbench.benchmark.probing.probe import Probe, ProbeShape
from repbench.downstream.heads import ContextHead, RecurrentHead, mean_of_each
from tests.conftest import GOLDEN

Arrays = dict[str, Tensor]


def arrays(name: str) -> Arrays:
    with np.load(GOLDEN / "downstream" / name) as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored.files}


@pytest.fixture(scope="module")
def legacy() -> Arrays:
    return arrays("legacy_classifiers.npz")


@pytest.fixture(scope="module")
def s3prl() -> Arrays:
    return arrays("s3prl_downstream.npz")


MODES = {
    "last": (slice(2, 3), "mean"),
    "first": (slice(0, 1), "mean"),
    "average": (slice(0, 3), "mean"),
    "weighted_sum": (slice(0, 3), "raw"),
    "weighted_sum_norm": (slice(0, 3), "weighted"),
}
"""What the modes of the released code read of (B, L, F, D), and how they mix it."""


def flat(padded: Tensor, lengths: Tensor) -> Tensor:
    """(B, F, …) -> (N, …), without padding."""
    return torch.cat([each[:length] for each, length in zip(padded, lengths.tolist(), strict=True)])


def layers_of(legacy: Arrays, mode: str) -> Tensor:
    """(L, N, D), what a mode reads."""
    layers = legacy["features"].unbind(dim=1)[MODES[mode][0]]
    return torch.stack([flat(layer, legacy["lengths"]) for layer in layers])


def probe_of(legacy: Arrays, mode: str, head: str, classes: int, hidden_units: int = 4) -> Probe:
    frames = layers_of(legacy, mode)
    shape = ProbeShape(
        head=head, pools=head == "gru", num_layers=len(frames), width=16, hidden_units=hidden_units,
        classes=tuple("abcdefg"[:classes]), mix=MODES[mode][1],
    )  # fmt: skip
    return Probe(shape, torch.Generator().manual_seed(0)).eval()


@pytest.mark.parametrize("mode", MODES)
def test_the_phone_classifier_of_the_released_code_is_an_mlp2(legacy: Arrays, mode: str) -> None:
    probe = probe_of(legacy, mode, "mlp2", classes=7, hidden_units=12)
    names = {"dense1": "hidden.0", "dense2": "hidden.1", "out": "output"}
    probe.head.load_state_dict({
        f"{ours}.{kind}": legacy[f"linear_param_{theirs}.{kind}"]
        for theirs, ours in names.items() for kind in ("weight", "bias")
    })  # fmt: skip
    with torch.no_grad():
        if MODES[mode][1] != "mean":
            probe.layer_logits.copy_(legacy["linear_param_weight"][:3])
        scores = probe(layers_of(legacy, mode), legacy["lengths"])
    wanted = flat(legacy[f"linear_{mode}_logprob"], legacy["lengths"])
    labels = flat(legacy["frame_labels"], legacy["lengths"])
    torch.testing.assert_close(torch.log_softmax(scores, dim=-1), wanted, rtol=0, atol=1e-5)
    assert float(F.cross_entropy(scores, labels)) == pytest.approx(float(legacy[f"linear_{mode}_loss"]), abs=1e-5)
    correct = int((scores.argmax(dim=-1) == labels).sum())
    assert [correct, len(labels)] == legacy[f"linear_{mode}_correct_valid"].tolist()


@pytest.mark.parametrize(
    ("mode", "prefix", "before", "classes"),
    [("last", "rnn", (8,), 2), ("weighted_sum_norm", "rnn", (8,), 2), ("last", "rnnreg", (), 1)],
)
def test_the_utterance_classifier_of_the_released_code_is_a_gru(
    legacy: Arrays, mode: str, prefix: str, before: tuple[int, ...], classes: int
) -> None:
    head = RecurrentHead(
        width=16, num_outputs=classes, before=before, units=6, after=(5,), generator=torch.Generator()
    ).eval()
    start = f"{prefix}_param_"
    named = {key.removeprefix(start): value for key, value in legacy.items() if key.startswith(start)}
    weight = named.pop("weight")
    head.load_state_dict({key.replace("out.", "output."): value for key, value in named.items()}, strict=True)
    probe = probe_of(legacy, mode, "gru", classes)
    lengths = legacy["lengths"].clone()
    with torch.no_grad():
        if MODES[mode][1] != "mean":
            probe.layer_logits.copy_(weight[:3])
        scores = head(probe.mixed(layers_of(legacy, mode)), lengths)
    if prefix == "rnnreg":
        torch.testing.assert_close(scores[:, 0], legacy["rnn_regression_output"], rtol=0, atol=1e-5)
        return
    torch.testing.assert_close(torch.log_softmax(scores, dim=-1), legacy[f"rnn_{mode}_logprob"], rtol=0, atol=1e-5)
    loss = float(F.cross_entropy(scores, legacy["utt_labels"]))
    assert loss == pytest.approx(float(legacy[f"rnn_{mode}_loss"]), abs=1e-5)
    assert lengths.tolist() == legacy["lengths"].tolist()
    assert legacy["rnn_valid_lengths_after_call"].tolist() != lengths.tolist(), "fault 15: it changed the caller's"


def test_a_softmax_of_raw_features_is_the_weighted_sum_of_s3prl(s3prl: Arrays) -> None:
    hidden = s3prl["hidden_states"]  # (L, B, F, D)
    shape = ProbeShape(
        head="linear", pools=False, num_layers=4, width=6, hidden_units=1, classes=("a", "b"), mix="weighted"
    )
    probe = Probe(shape, torch.Generator().manual_seed(0))
    with torch.no_grad():
        probe.layer_logits.copy_(s3prl["weights"])
        mixed = probe.mixed(hidden.flatten(1, 2)).view(hidden.shape[1:])
    lengths = s3prl["out_lens"]
    torch.testing.assert_close(flat(mixed, lengths), flat(s3prl["weighted_sum_norm0"], lengths), rtol=0, atol=1e-6)


def test_nine_frames_stand_in_the_order_of_s3prl(s3prl: Arrays) -> None:
    frames = s3prl["frames"]  # (B, F, D)
    head = ContextHead(width=3, num_outputs=27, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        head.output.weight.copy_(torch.eye(27))
        head.output.bias.zero_()
        seen = head(frames.flatten(0, 1), torch.tensor([frames.shape[1]] * len(frames)))
    torch.testing.assert_close(seen.view(s3prl["concat9"].shape), s3prl["concat9"], rtol=0, atol=0)


def test_the_mean_over_valid_frames_is_that_of_s3prl(s3prl: Arrays) -> None:
    lengths = s3prl["pool_lens"]
    means = mean_of_each(flat(s3prl["frames"], lengths), lengths)
    torch.testing.assert_close(means, s3prl["mean_pool"], rtol=0, atol=1e-6)
