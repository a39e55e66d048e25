"""The front ends, as upstreams, keep the contract's promises."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from repbench.benchmark.loading.upstreams import load_upstream
from repbench.errors import DataError, PluginError, UsageError
from repbench.upstream.contract import Upstream, UpstreamInfo
from repbench.upstream.frontends import FrontEndUpstream, mel

NAMES = ("mel", "mel_no_cmvn", "fbank160", "mfcc52", "linear1025", "fbank", "fbank_no_cmvn", "mfcc", "spectrogram",
         "fbank80", "mel80", "linear")  # fmt: skip


@pytest.fixture(params=NAMES)
def upstream(request: pytest.FixtureRequest) -> FrontEndUpstream:
    built = load_upstream(request.param)
    assert isinstance(built, FrontEndUpstream)
    return built


def test_it_is_an_upstream(upstream: FrontEndUpstream) -> None:
    assert isinstance(upstream, Upstream)
    assert upstream.info.layer_names == (upstream.info.name,)
    assert not list(upstream.parameters())


def test_the_order_in_a_batch_does_not_matter(upstream: FrontEndUpstream) -> None:
    waveforms, lengths = torch.randn(3, 9000) * 0.1, torch.tensor([9000, 4000, 500])
    states = upstream(waveforms, lengths)
    order = torch.tensor([2, 0, 1])
    turned = upstream(waveforms[order], lengths[order])
    torch.testing.assert_close(turned.layers, states.layers[:, order], rtol=1e-5, atol=1e-5)
    assert torch.equal(turned.lengths, states.lengths[order])
    assert states.lengths.tolist() == [upstream.num_frames(length) for length in lengths.tolist()]


def test_global_state_is_left_alone(upstream: FrontEndUpstream) -> None:
    before = (torch.get_rng_state(), random.getstate(), torch.get_num_threads(), torch.get_default_dtype())
    numpy_before = np.random.get_state()[1].copy()  # type: ignore[index]
    upstream(torch.zeros(1, 1000), torch.tensor([1000]))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), torch.get_num_threads(), torch.get_default_dtype()) == before[1:]
    assert np.array_equal(numpy_before, np.random.get_state()[1])  # type: ignore[index]


def test_each_front_end_has_a_fingerprint_of_its_own_that_does_not_change() -> None:
    assert mel().fingerprint() == mel(seed=3).fingerprint()
    assert len({load_upstream(name).fingerprint() for name in NAMES}) == len(NAMES)


def test_weights_for_a_front_end_are_refused() -> None:
    with pytest.raises(UsageError, match="`mel` has no weights to load"):
        mel(checkpoint="random")


def test_a_short_waveform_is_named() -> None:
    with pytest.raises(DataError, match="at least 401 samples"):
        mel()(torch.zeros(1, 300), torch.tensor([300]))


def test_a_declaration_of_the_wrong_kind_is_refused() -> None:
    with pytest.raises(PluginError, match=r'`layer_names` must be a tuple of names, as \("top",\), but is a text'):
        replace(mel().info, layer_names="top")  # type: ignore[arg-type]
    with pytest.raises(PluginError, match="`trainable` must be True or False, but is 'no'"):
        replace(mel().info, trainable="no")  # type: ignore[arg-type]


def test_an_impossible_declaration_is_refused_with_every_fault() -> None:
    with pytest.raises(PluginError, match=r"`hop_samples` must be at least 1, but is 0; `layer_names` must name"):
        UpstreamInfo(
            name="broken",
            sample_rate_hz=16000,
            hop_samples=0,
            first_center_samples=0,
            min_samples=1,
            layer_names=(),
            width=3,
            utterance_normalised=False,
            trainable=False,
            citation="",
            licence="",
        )
