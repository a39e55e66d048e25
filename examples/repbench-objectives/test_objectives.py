import pytest
import torch
from tera import AlterationSettings, Tera, TeraConfig, alter, tera
from vq_apc import VqApc, VqApcConfig, hard, straight_through, vq_apc

from repbench.testing import UpstreamSuite
from repbench.upstream.contract import Batch

LENGTHS = torch.tensor([60, 41, 9])
SMALL_TERA = TeraConfig(hidden_size=16, num_heads=2, feed_forward_size=32, num_layers=1)
SMALL_VQ_APC = VqApcConfig(hidden_size=16, num_layers=2, codes=8, time_shift=2)


class TestTera(UpstreamSuite):
    factory, checkpoint = tera, "random:tiny"


class TestVqApc(UpstreamSuite):
    factory, checkpoint = vq_apc, "random:tiny"


def frames(seed: int = 0) -> torch.Tensor:
    return torch.randn(3, 60, 80, generator=torch.Generator().manual_seed(seed))


def altered(**changes):
    settings = AlterationSettings(**{"channels": 0, "noise_proportion": 0, **changes})
    return alter(frames(), LENGTHS, settings, torch.Generator().manual_seed(1))


def test_time_is_altered_in_spans_of_whole_frames():
    result = altered(zeroed=1)
    spans = result.where.any(dim=-1)
    assert torch.equal(spans, result.where.all(dim=-1))
    assert torch.equal((result.frames == 0).all(dim=-1), spans | (torch.arange(60) >= LENGTHS[:, None]))
    # round(60 * .15 / 7) is 1 span, and a short utterance has at least one
    assert spans.sum(dim=1).tolist() == [7, 7, 7]


def test_a_band_of_channels_is_altered_in_all_frames():
    result = altered(time_proportion=0, span_frames=1, channels=16, zeroed=0, replaced=0)
    for one, where, count in zip(result.frames, result.where, LENGTHS.tolist(), strict=True):
        band = where[:count].all(dim=0)
        assert int(band.sum()) <= 16
        assert (one[:count, band] == 0).all()


def test_what_is_not_altered_is_not_scored():
    result = altered(zeroed=1, channels=16)
    valid = (torch.arange(60) < LENGTHS[:, None])[..., None].expand_as(result.frames)
    assert torch.equal(result.frames[valid & ~result.where], frames()[valid & ~result.where])
    assert not result.where[~valid].any()


def test_noise_has_its_deviation():
    result = altered(zeroed=0, replaced=0, noise_proportion=1, noise_deviation=0.5)
    assert float((result.frames - frames())[0].std()) == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("model", [Tera(SMALL_TERA), VqApc(SMALL_VQ_APC)], ids=["tera", "vq-apc"])
def test_the_loss_falls_on_a_batch_and_reaches_every_weight(model):
    # frames that can be foretold: slow waves
    times = torch.arange(60) / 10
    batch = Batch(torch.sin(times[None, :, None] + torch.arange(80) / 20).expand(3, 60, 80), LENGTHS)
    optimizer = torch.optim.Adam(model.train().parameters(), lr=1e-2)
    losses = []
    for step in range(60):
        optimizer.zero_grad()
        loss = model.objective.loss(batch, torch.Generator().manual_seed(step % 4))
        loss.value.backward()
        if not step:
            assert all(each.grad is not None and each.grad.any() for each in model.parameters())
        optimizer.step()
        losses.append(loss.value.item())
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])


def test_codes_are_one_hot_and_have_a_gradient():
    scores = torch.randn(5, 8, requires_grad=True)
    chosen = straight_through(scores)
    assert torch.equal(chosen, hard(scores))
    (chosen * torch.arange(8.0)).sum().backward()
    assert scores.grad.abs().sum() > 0
