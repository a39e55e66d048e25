"""Hidden states and spectrograms of Mockingjay, held to what the released code and S3PRL computed.

Not held to are the values past an utterance's end, which is zero here, and what a batch mate or a chunk's edge changed;
in those places the right value is asserted.
"""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

from repbench.audio.frames import valid_mask
from repbench.configs.loader import build
from repbench.upstream.checkpoints.foreign import hold_to_keys
from repbench.upstream.mockingjay.config import FeatureSettings, MockingjayConfig
from repbench.upstream.mockingjay.interop import read_foreign
from repbench.upstream.mockingjay.model import stack_frames
from repbench.upstream.mockingjay.upstream import Mockingjay
from tests.upstream.goldens import GOLDEN, Arrays, deviation, holds, reads, unread, waveform

TOLERANCE = 5e-5
FROM_WAVEFORMS = 5e-4
"""The features, logarithms of tiny energies, agree to 2e-3 (measured 9e-4); of that, 2e-4 reaches the hidden states."""

DR1 = "mockingjay_legacy/mockingjay_dr1_mel_io.npz"
DR3 = "mockingjay_legacy/mockingjay_dr3_mel_io.npz"
KALDI = "mockingjay_s3prl/s3prl_mj_kaldi_io.npz"
ONLINE = "mockingjay_s3prl/s3prl_mj_online_io.npz"

NOT_MATCHED: dict[str, dict[str, str]] = {
    DR1: {
        "proc_attn_mask": "lengths are arguments here, not counted from frames whose sum is not zero",
    },
    DR3: {
        "proc_attn_mask": "counts a stacked frame that is partly padding as valid: 13 and 5 instead of 12 and 4",
        "proc_pos_enc": "the table, zeroed by the same mask; its values show in input_representation",
    },
}


@functools.cache
def model_of(name: str) -> Mockingjay:
    path = GOLDEN / name
    foreign = read_foreign(path, {})
    model = Mockingjay(build(MockingjayConfig, foreign.config, path)).eval()
    hold_to_keys(model, foreign.weights, file=path)
    model.load_state_dict(foreign.weights)
    return model


def dr1() -> Mockingjay:
    return model_of("mockingjay_legacy/mockingjay_dr1_mel.ckpt")


def dr3() -> Mockingjay:
    return model_of("mockingjay_legacy/mockingjay_dr3_mel.ckpt")


def kaldi() -> Mockingjay:
    return model_of("mockingjay_s3prl/s3prl_mj_kaldi.ckpt")


def online() -> Mockingjay:
    return model_of("mockingjay_s3prl/s3prl_mj_online.ckpt")


def valid_deviation(ours: Tensor, golden: Tensor, lengths: Tensor) -> float:
    """Over (..., B, F, D), the largest difference within the lengths; ours is zero past them."""
    padding = ~valid_mask(lengths, ours.shape[-2])[..., None]
    assert not bool(ours.masked_select(padding).any()), "zero past each length"
    return deviation(ours, golden[..., : ours.shape[-2], :].masked_fill(padding, 0.0))


def test_no_golden_array_is_left_unread() -> None:
    assert unread("mockingjay_legacy", NOT_MATCHED) + unread("mockingjay_s3prl", NOT_MATCHED) == []


@reads(DR1, "spec", "lengths", "forward_all1_tile1", "forward_all0_tile1", "head_state_tile1", "spec_pred_stacked",
       "input_representation")  # fmt: skip
def test_the_released_code_without_stacking(arrays: Arrays) -> None:
    model, spec, lengths = dr1(), arrays["spec"], arrays["lengths"]

    def layers() -> float:
        ours = model.hidden_states(spec, lengths).transpose(0, 1)
        return valid_deviation(ours, arrays["forward_all1_tile1"].transpose(0, 1), lengths)

    def last() -> float:
        ours = model.hidden_states(spec, lengths, all_layers=False, tile=False)
        return valid_deviation(ours, arrays["forward_all0_tile1"], lengths)

    def given() -> float:
        ours = model._layers(spec, lengths)[0]
        return valid_deviation(ours, arrays["input_representation"], lengths)

    def head() -> float:
        states = model.require_head().hidden(model.encoder.last(spec, lengths))
        padding = ~valid_mask(lengths, 50)[..., None]
        return valid_deviation(states.masked_fill(padding, 0.0), arrays["head_state_tile1"], lengths)

    def restored() -> float:
        return valid_deviation(model.prediction(spec, lengths), arrays["spec_pred_stacked"], lengths)

    holds(model, layers, TOLERANCE, "encoder.")
    holds(model, last, TOLERANCE, "encoder.")
    holds(model, given, TOLERANCE, "encoder.input")
    holds(model, head, TOLERANCE, "encoder.", "head.dense", "head.norm")
    holds(model, restored, TOLERANCE, "encoder.", "head.")


@reads(DR1, "spec", "forward2d_all1_tile1", "forward2d_all0_tile0")
def test_the_released_code_on_one_spectrogram(arrays: Arrays) -> None:
    model, spec = dr1(), arrays["spec"][1, :37]
    holds(model, lambda: deviation(model.hidden_states(spec), arrays["forward2d_all1_tile1"]), TOLERANCE, "encoder.")
    last = arrays["forward2d_all0_tile0"]
    holds(
        model,
        lambda: deviation(model.hidden_states(spec, all_layers=False, tile=False), last),
        TOLERANCE,
        "encoder.",
    )


@reads(DR3, "spec", "lengths", "forward_all1_tile1", "forward_all1_tile0", "forward_all0_tile1", "forward_all0_tile0",
       "head_state_tile0", "head_state_tile1", "spec_pred_stacked", "input_representation")  # fmt: skip
def test_the_released_code_with_stacks_of_three(arrays: Arrays) -> None:
    """Row 0 has no padding. The others have 37 and 13 frames, and the original's last stack of each is part padding:
    it changes all states by more than 1, so here they are held to the utterance alone (12 and 4 whole stacks)."""
    model, spec, lengths = dr3(), arrays["spec"], arrays["lengths"]
    for all_layers, name in ((True, "forward_all1_tile0"), (False, "forward_all0_tile0")):
        _, counts = stack_frames(spec, lengths, 3)
        assert counts.tolist() == [16, 12, 4]
        _row_and_alone(model, spec, lengths, arrays[name], all_layers=all_layers)
    for all_layers, name in ((True, "forward_all1_tile1"), (False, "forward_all0_tile1")):
        golden = arrays[name][0]

        def tiled(golden: Tensor = golden, all_layers: bool = all_layers) -> float:
            ours = model.hidden_states(spec, lengths, all_layers=all_layers)[0]
            assert ours.shape[-2] == 50, "as many as the input has, not 48"
            assert torch.equal(ours[..., 48:, :], ours[..., 47:48, :].expand_as(ours[..., 48:, :]))
            return deviation(ours[..., :48, :], golden)

        holds(model, tiled, TOLERANCE, "encoder.")

    stacked, counts = stack_frames(spec, lengths, 3)

    def given() -> float:
        return deviation(model._layers(stacked, counts)[0, 0], arrays["input_representation"][0])

    def head() -> float:
        states = model.require_head().hidden(model.encoder.last(stacked, counts))[0]
        assert torch.equal(arrays["head_state_tile1"][0], arrays["head_state_tile0"][0].repeat_interleave(3, dim=0))
        return deviation(states, arrays["head_state_tile0"][0])

    def restored() -> float:
        return deviation(model.prediction(spec, lengths)[0].reshape(16, 480), arrays["spec_pred_stacked"][0])

    holds(model, given, TOLERANCE, "encoder.input")
    holds(model, head, TOLERANCE, "encoder.", "head.dense", "head.norm")
    holds(model, restored, TOLERANCE, "encoder.", "head.")


def _row_and_alone(model: Mockingjay, spec: Tensor, lengths: Tensor, golden: Tensor, *, all_layers: bool) -> None:
    def untiled() -> float:
        return deviation(model.hidden_states(spec, lengths, all_layers=all_layers, tile=False)[0], golden[0])

    holds(model, untiled, TOLERANCE, "encoder.")
    with torch.no_grad():
        together = model.hidden_states(spec, lengths, all_layers=all_layers, tile=False)
        for row, length in ((1, 37), (2, 13)):
            alone = model.hidden_states(spec[row, :length], all_layers=all_layers, tile=False)[0]
            whole = length // 3
            assert alone.shape[-2] == whole
            torch.testing.assert_close(together[row][..., :whole, :], alone, rtol=1e-4, atol=1e-5)
            assert not together[row][..., whole:, :].any()
            assert deviation(alone, golden[row][..., :whole, :]) > 0.1, "the original mixed padding in"


@reads(DR3, "spec", "forward2d_all1_tile1", "forward2d_all0_tile0")
def test_the_released_code_on_one_spectrogram_with_stacks_of_three(arrays: Arrays) -> None:
    """37 frames are 12 whole stacks; tiled they are 37 here, where the original gave 36."""
    model, spec = dr3(), arrays["spec"][1, :37]

    def tiled() -> float:
        ours = model.hidden_states(spec)
        assert ours.shape[2] == 37
        return deviation(ours[:, :, :36], arrays["forward2d_all1_tile1"])

    def last() -> float:
        return deviation(model.hidden_states(spec, all_layers=False, tile=False), arrays["forward2d_all0_tile0"])

    holds(model, tiled, TOLERANCE, "encoder.")
    holds(model, last, TOLERANCE, "encoder.")


@reads(DR3, "spec", "lengths", "attentions")
def test_attentions(arrays: Arrays) -> None:
    """Row 0, which has no padding in its stacks, is the original's; a row with padding is what it is alone."""
    model = dr3()
    padded, count = 1, int(arrays["lengths"][1])
    assert count < arrays["spec"].shape[1], "the row has padding"
    maps = model.attentions(arrays["spec"], arrays["lengths"])[padded]  # (N, A, S, S)
    alone = model.attentions(arrays["spec"][padded, :count])[0]
    stacks = alone.shape[-1]
    torch.testing.assert_close(maps[..., :stacks, :stacks], alone, atol=1e-5, rtol=0)
    assert maps[..., :stacks].sum() == maps.sum(), "nobody attends to padding"
    assert not maps[..., stacks:, :].any(), "padding attends to nobody"

    def measure() -> float:
        return deviation(model.attentions(arrays["spec"], arrays["lengths"])[0], arrays["attentions"][0])

    # The last layer's maps come before its values and all that follows.
    holds(model, measure, TOLERANCE, "encoder.input", "encoder.layers.0.", "encoder.layers.1.attention.qkv")


@reads(KALDI, "feat_in", "lengths", "feat_in_hidden_states", "feat_in_spechead_pred", "max_input_length")
def test_s3prl_on_kaldi_features(arrays: Arrays) -> None:
    """50 frames are below the 1,500 of a chunk, so S3PRL encodes them whole."""
    model, spec, lengths = kaldi(), arrays["feat_in"], arrays["lengths"]
    assert spec.shape[1] <= int(arrays["max_input_length"])

    def layers() -> float:
        return valid_deviation(model._layers(spec, lengths), arrays["feat_in_hidden_states"], lengths)

    def restored() -> float:
        return valid_deviation(model.prediction(spec, lengths), arrays["feat_in_spechead_pred"], lengths)

    holds(model, layers, TOLERANCE, "encoder.")
    holds(model, restored, TOLERANCE, "encoder.", "head.")


@reads(ONLINE, "feat_in", "lengths", "feat_in_hidden_states_nochunk", "feat_in_spechead_pred",
       "feat_in_spechead_state")  # fmt: skip
def test_s3prl_on_online_features(arrays: Arrays) -> None:
    model, spec, lengths = online(), arrays["feat_in"], arrays["lengths"]
    padding = ~valid_mask(lengths, 50)[..., None]

    def layers() -> float:
        return valid_deviation(model._layers(spec, lengths), arrays["feat_in_hidden_states_nochunk"], lengths)

    def head() -> float:
        states = model.require_head().hidden(model.encoder.last(spec, lengths)).masked_fill(padding, 0.0)
        return valid_deviation(states, arrays["feat_in_spechead_state"], lengths)

    def restored() -> float:
        return valid_deviation(model.prediction(spec, lengths), arrays["feat_in_spechead_pred"], lengths)

    holds(model, layers, TOLERANCE, "encoder.")
    holds(model, head, TOLERANCE, "encoder.", "head.dense", "head.norm")
    holds(model, restored, TOLERANCE, "encoder.", "head.")


@reads(ONLINE, "feat_in", "lengths", "feat_in_hidden_states", "max_input_length")
def test_chunks_of_s3prl_are_utterances_of_their_own(arrays: Arrays) -> None:
    """S3PRL cuts 50 frames into 25 + 25, positions starting anew. What it says of a chunk is what we say of the chunk
    alone; what it says of the last utterance's second chunk, which is all padding, is not held to."""
    model, spec = online(), arrays["feat_in"]
    assert spec.shape[1] > int(arrays["max_input_length"])
    golden = arrays["feat_in_hidden_states"]
    first = arrays["lengths"].clamp_max(25)
    second = (arrays["lengths"] - 25)[:2]

    def measure() -> float:
        one = valid_deviation(model._layers(spec[:, :25], first), golden[:, :, :25], first)
        other = valid_deviation(model._layers(spec[:2, 25:], second), golden[:, :2, 25:], second)
        return max(one, other)

    holds(model, measure, TOLERANCE, "encoder.")
    with torch.no_grad():
        together = model._layers(spec, arrays["lengths"])
    assert deviation(together[:, 0], golden[:, 0]) > 0.1, "here an utterance is encoded as one"


@reads(KALDI, "wav_batch_hidden_states", "wav2_alone_hidden_states")
def test_s3prl_from_waveforms_with_kaldi_features(arrays: Arrays) -> None:
    model = kaldi()
    lengths = torch.tensor([20801, 11377])
    waveforms = torch.zeros(2, 20801)
    waveforms[0], waveforms[1, :11377] = waveform("wav1"), waveform("wav2")
    counts = torch.tensor([128, 69])

    def together() -> float:
        states = model(waveforms, lengths)
        assert torch.equal(states.lengths, counts)
        return valid_deviation(states.layers, arrays["wav_batch_hidden_states"], counts)

    def alone() -> float:
        return deviation(model(waveforms[1:, :11377], lengths[1:]).layers, arrays["wav2_alone_hidden_states"])

    holds(model, together, FROM_WAVEFORMS, "encoder.")
    holds(model, alone, FROM_WAVEFORMS, "encoder.")


@reads(ONLINE, "wav2_alone_hidden_states", "max_input_length")
def test_s3prl_from_a_waveform_with_online_features(arrays: Arrays) -> None:
    """72 frames are two chunks of 36 in S3PRL, and are encoded so here to compare. Its states in a batch are not in the
    goldens: there the longest utterance sets where the chunks are cut, and features are reflected at its end."""
    model, heard = online(), waveform("wav2")[None]
    frames, counts = model.front_end(heard, torch.tensor([11377]))
    assert counts.tolist() == [72]
    assert int(arrays["max_input_length"]) == 40
    chunks = torch.cat([frames[:, :36], frames[:, 36:]])

    def measure() -> float:
        layers = model._layers(chunks, torch.tensor([36, 36]))
        return deviation(layers.flatten(1, 2)[:, None], arrays["wav2_alone_hidden_states"])

    holds(model, measure, FROM_WAVEFORMS, "encoder.")


def size(module: torch.nn.Module | None) -> int:
    assert module is not None
    return sum(each.numel() for each in module.parameters())


@pytest.mark.parametrize(
    ("settings", "encoder", "head"),
    [
        pytest.param(MockingjayConfig(), 21_388_800, 715_168, id="BASE"),
        pytest.param(
            MockingjayConfig(num_layers=12, downsample_rate=3, features=FeatureSettings(target="linear1025")),
            85_425_408,
            2_956_803,
            id="LARGE",
        ),
        pytest.param(
            MockingjayConfig(features=FeatureSettings(input="fbank240")), 21_450_240, 776_688, id="S3PRL base"
        ),
        pytest.param(
            MockingjayConfig(num_layers=12, features=FeatureSettings(input="mel80", target="linear201")),
            85_118_208,
            746_697,
            id="S3PRL large",
        ),
    ],
)
def test_published_sizes(settings: MockingjayConfig, encoder: int, head: int) -> None:
    with torch.device("meta"):
        model = Mockingjay(settings)
    assert (size(model.encoder), size(model.head)) == (encoder, head)
    assert size(model.encoder.layers[0]) == 7_087_872


def small(rate: int, seed: int = 0) -> Mockingjay:
    torch.manual_seed(seed)
    settings = MockingjayConfig(hidden_size=16, num_layers=2, num_heads=2, feed_forward_size=32, downsample_rate=rate)
    return Mockingjay(settings).eval()


def alike(together: Tensor, alone: Tensor) -> None:
    scale = alone.abs().max()
    assert deviation(together, alone) <= 1e-4 * float(scale)


@pytest.mark.parametrize("rate", [1, 3])
def test_alone_equals_batched(rate: int) -> None:
    """From the shortest utterance to 30 s, one of them silent in its middle, padding full of noise."""
    model = small(rate)
    lengths = [2400, rate, 7, 801, 40]
    spec = torch.randn(5, 2400, 160, generator=torch.Generator().manual_seed(1))
    spec[3, 200:600] = 0.0
    spec[4, 10:15] = 0.0
    with torch.no_grad():
        for tile in (True, False):
            together = model.hidden_states(spec, lengths, tile=tile)
            for row, length in enumerate(lengths):
                alone = model.hidden_states(spec[row, :length], tile=tile)[0]
                alike(together[row, :, : alone.shape[1]], alone)
                assert not together[row, :, alone.shape[1] :].any()


@pytest.mark.parametrize("rate", [1, 3])
def test_alone_equals_batched_through_waveforms(rate: int) -> None:
    model = small(rate)
    lengths = torch.tensor([16000, model.info.min_samples, 5001])
    waveforms = 0.1 * torch.randn(3, 16000, generator=torch.Generator().manual_seed(1))
    waveforms[0, 5000:9000] = 0.0
    with torch.no_grad():
        together = model(waveforms, lengths)
        for row, length in enumerate(lengths.tolist()):
            alone = model(waveforms[row : row + 1, :length], lengths[row : row + 1])
            count = model.num_frames(length)
            assert int(together.lengths[row]) == count == alone.layers.shape[2]
            alike(together.layers[:, row, :count], alone.layers[:, 0])


def test_silence_in_the_middle_does_not_hide_the_end() -> None:
    """The original counts frames that are not zero and takes that for the length, so five zero frames hid the last
    five real ones."""
    model = small(1)
    spec = torch.randn(1, 40, 160, generator=torch.Generator().manual_seed(1))
    spec[:, 10:15] = 0.0
    changed = spec.clone()
    changed[:, 39] += 1.0
    with torch.no_grad():
        assert deviation(model.hidden_states(spec)[:, :, :35], model.hidden_states(changed)[:, :, :35]) > 1e-4


def test_the_helpers_are_not_vacuous() -> None:
    """`holds` sees a weight without effect and a deviation; `unread` sees arrays that no test of goldens reads."""
    assert unread("frontend", {})
    model = dr1()
    with pytest.raises(AssertionError, match=r"does not matter"):
        holds(model, lambda: 0.0, TOLERANCE, "head.")
    with pytest.raises(AssertionError):
        holds(model, lambda: 1.0, TOLERANCE, "head.")
