"""The head `blstm_ctc`: two bidirectional layers that no padding reaches."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from repbench.downstream.heads import build_head
from repbench.downstream.heads.blstm_ctc import BlstmCtc
from repbench.downstream.heads.recurrent import BidirectionalLSTM, turned_places

COUNTS = torch.tensor([4, 7, 1])


def head(seed: int = 1, dropout: float = 0.0) -> BlstmCtc:
    generator = torch.Generator().manual_seed(seed)
    built = build_head(
        "blstm_ctc", width=6, num_classes=3, hidden_units=5, pools=False, generator=generator, dropout=dropout
    )
    assert isinstance(built, BlstmCtc)
    return built


def frames() -> torch.Tensor:
    return torch.randn(int(COUNTS.sum()), 6, generator=torch.Generator().manual_seed(0))


def test_an_utterance_has_the_same_scores_alone_and_beside_longer_ones() -> None:
    together = head()(frames(), COUNTS)
    assert together.shape == (12, 4)  # three classes and the blank
    starts = [0, 4, 11]
    for start, count in zip(starts, COUNTS.tolist(), strict=True):
        part = slice(start, start + count)
        torch.testing.assert_close(head()(frames()[part], torch.tensor([count])), together[part])


def test_a_layer_is_torchs_own_bidirectional_one() -> None:
    layer, known = BidirectionalLSTM(6, 5, torch.Generator().manual_seed(0)), nn.LSTM(6, 5, bidirectional=True)
    weights = dict(layer.forward_lstm.state_dict())
    weights |= {f"{name}_reverse": each for name, each in layer.backward_lstm.state_dict().items()}
    known.load_state_dict(weights)
    inputs = pad_sequence(list(torch.split(frames(), COUNTS.tolist())), batch_first=True)
    states = layer(inputs, turned_places(COUNTS))
    packed, _ = known(pack_padded_sequence(inputs, COUNTS, batch_first=True, enforce_sorted=False))
    expected, _ = pad_packed_sequence(packed, batch_first=True)
    for number, count in enumerate(COUNTS.tolist()):
        torch.testing.assert_close(states[number, :count], expected[number, :count])


def test_reversed_places_leave_padding_where_it_is() -> None:
    assert turned_places(torch.tensor([2, 4])).tolist() == [[1, 0, 2, 3], [3, 2, 1, 0]]


def test_weights_and_masks_come_from_the_seed_alone() -> None:
    torch.manual_seed(0)
    first = head(dropout=0.5).train()
    scores = first(frames(), COUNTS)
    torch.manual_seed(1)
    torch.testing.assert_close(head(dropout=0.5).train()(frames(), COUNTS), scores)
    assert not torch.equal(first(frames(), COUNTS), scores)  # other masks
    torch.testing.assert_close(first.eval()(frames(), COUNTS), head()(frames(), COUNTS))
    for name, parameter in head().named_parameters():
        bound = {"projection": 6, "output": 10}.get(name.partition(".")[0], 5) ** -0.5
        assert float(parameter.detach().abs().max()) <= bound
        if parameter.ndim == 2:
            assert float(parameter.detach().abs().max()) > 0.6 * bound


@pytest.mark.parametrize("superb", [False, True])
def test_its_size_is_that_of_the_documented_setting(superb: bool) -> None:
    width, units = (768, 1024) if superb else (160, 256)
    with torch.device("meta"):
        layers = [nn.LSTM(each, units, bidirectional=True) for each in (units, 2 * units)]
    expected = (width + 1) * units + sum(each.numel() for one in layers for each in one.parameters())
    built = BlstmCtc(width=width, num_outputs=32, hidden_units=units, pools=False, generator=torch.Generator())
    assert sum(each.numel() for each in built.parameters()) == expected + (2 * units + 1) * 32
