"""Where weights come from, and what holds of the networks beyond the goldens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from repbench import load_upstream, pretraining_optimizer
from repbench.audio.frames import valid_mask
from repbench.benchmark.pipeline.pretrain import run_pretraining
from repbench.errors import DataError, IntegrityError, UsageError
from repbench.upstream.checkpoints.native import MANIFEST_FILE, save_weights
from repbench.upstream.contract import Batch, provenance_of
from repbench.upstream.convert import convert
from repbench.upstream.mockingjay.config import MaskingSettings
from repbench.upstream.mockingjay.masking import mask
from repbench.upstream.mockingjay.model import Attention, Positions, sinusoids
from tests.upstream.small_training import request, small_corpus

SMALL: dict[str, Any] = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "feed_forward_size": 32}


@pytest.mark.parametrize(
    ("features", "rate", "hop", "first"),
    [("mel160", 1, 200, 0), ("mel160", 2, 400, 100), ("mel160", 3, 600, 200), ("fbank80", 3, 480, 360)],
)
def test_a_stacked_frame_speaks_of_the_middle_of_its_frames(features: str, rate: int, hop: int, first: int) -> None:
    settings = {**SMALL, "features": {"input": features}, "downsample_rate": rate}
    info = load_upstream("mockingjay", checkpoint="random", **settings).info
    assert (info.hop_samples, info.first_center_samples) == (hop, first)


@pytest.mark.parametrize("rate", [1, 2, 3])
@pytest.mark.parametrize("features", ["mel160", "fbank80"])
def test_num_frames_is_exact(features: str, rate: int) -> None:
    model = load_upstream(
        "mockingjay", checkpoint="random", **SMALL, features={"input": features}, downsample_rate=rate
    )
    for samples in (model.info.min_samples, *range(5000, 5700, 53)):
        with torch.inference_mode():
            states = model(torch.zeros(1, samples), torch.tensor([samples]))
        assert states.layers.shape[2] == int(states.lengths[0]) == model.num_frames(samples)


def test_positions_start_where_they_are_said_to() -> None:
    model = load_upstream("mockingjay", checkpoint="random", **SMALL)
    assert torch.equal(model.encoder.positions(5), sinusoids(5, 16))
    assert torch.equal(model.encoder.positions(5, torch.tensor([0, 7]))[1], sinusoids(12, 16)[7:])


class Raced(Positions):
    """A table that another thread replaces by a shorter one as soon as it has grown."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value[:1024] if name == "table" else value)


def test_positions_are_there_whatever_another_thread_puts_in_their_place() -> None:
    assert torch.equal(Raced(16, 1.0)(3000), sinusoids(3000, 16))
    assert torch.equal(Raced(16, 1.0)(10, torch.tensor([0, 2990]))[1], sinusoids(3000, 16)[2990:])


def test_positions_have_the_amplitude_position_scale() -> None:
    model = load_upstream("mockingjay", checkpoint="random", **SMALL, position_scale=0.5)
    assert torch.equal(model.encoder.positions(5), 0.5 * sinusoids(5, 16))


def test_random_positions_change_the_loss_with_the_generator_alone() -> None:
    model = load_upstream("mockingjay", checkpoint="random", **SMALL, position_offset=500)
    plain = load_upstream("mockingjay", checkpoint="random", **SMALL)
    batch = Batch(torch.randn(3, 40, 160, generator=torch.Generator().manual_seed(1)), torch.tensor([40, 40, 30]))

    def loss(network: Any) -> float:
        return float(network.objective.loss(batch, torch.Generator().manual_seed(2)).value.detach())

    assert loss(model) == loss(model)
    assert loss(model) != loss(plain)


def test_stretches_that_replace_others_come_from_many_places() -> None:
    times = torch.arange(200.0)[None, :, None].expand(64, 200, 1)
    settings = MaskingSettings(zeroed=0.0, replaced=1.0, consecutive=3, proportion=0.15)
    masked = mask(times, torch.full((64,), 200), settings, torch.Generator().manual_seed(0))
    sources = masked.frames[masked.starts]
    assert len(set(sources.flatten().tolist())) > 100


def test_the_table_of_positions_may_be_changed_after_inference() -> None:
    model = load_upstream("mockingjay", checkpoint="random", **SMALL)
    with torch.inference_mode():
        model.hidden_states(torch.zeros(30, 160))
    for buffer in model.buffers():
        buffer.add_(0)


@pytest.mark.parametrize("name", ["mockingjay", "apc"])
def test_what_lies_past_a_length_does_not_reach_a_gradient(name: str) -> None:
    model = load_upstream(name, checkpoint="random:tiny").train()
    spec = torch.randn(2, 40, model.front_end.width)
    spec[1, 30:] = torch.nan
    model.hidden_states(spec, [40, 30]).sum().backward()
    assert all(each.grad is None or bool(torch.isfinite(each.grad).all()) for each in model.parameters())


def test_lengths_are_whole_numbers_within_the_spectrogram() -> None:
    model = load_upstream("apc", checkpoint="random:tiny")
    spec = torch.zeros(2, 20, 80)
    for lengths in ([20.5, 10.0], [21, 3], [0, 5], [5]):
        with pytest.raises(DataError, match="lengths"):
            model.hidden_states(spec, lengths)
    with pytest.raises(DataError, match="`lengths` reaches to 17000, but the waveforms have 16000"):
        model(torch.zeros(1, 16_000), torch.tensor([17_000]))


def test_one_setting_changes_one_setting_of_an_untrained_network() -> None:
    plain = load_upstream("mockingjay", checkpoint="random:tiny")
    changed = load_upstream("mockingjay", checkpoint="random:tiny", hidden_dropout=0.3)
    assert {**plain.config, "hidden_dropout": 0.3} == changed.config
    assert provenance_of(changed).checkpoint == "random:tiny"


def test_what_random_may_be_followed_by_is_listed() -> None:
    with pytest.raises(UsageError, match=r"`huge` is neither a preset of mockingjay nor a path.*base, large, tiny"):
        load_upstream("mockingjay", checkpoint="random:huge")


def test_fault_6_a_corrupt_newest_checkpoint_is_not_replaced_by_an_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_corpus(tmp_path / "tones")
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "pretrain" / "apc" / "one"
    done = run_pretraining(request("apc", tmp_path / "tones", run, steps=4, training__save_every=2))
    assert load_upstream("apc", checkpoint=run).provenance.checkpoint == str(done.checkpoint)
    (done.checkpoint / MANIFEST_FILE).write_text("x", encoding="utf-8")
    with pytest.raises(IntegrityError, match="corrupt"):
        load_upstream("apc")


PATHS = ("fused", "dropout", "bfloat16", "maps")
"""Of attention on a CPU; all but the first compute the probabilities themselves."""


@pytest.mark.parametrize("path", PATHS)
def test_no_path_of_attention_lets_padding_reach_a_valid_frame(path: str) -> None:
    attention = Attention(16, 2, 0.3 if path == "dropout" else 0.0).train(path == "dropout")
    dtype = torch.bfloat16 if path == "bfloat16" else torch.float32
    attention.to(dtype)
    counts = torch.tensor([6, 4])
    valid = valid_mask(counts, 6)[:, None, None, :]
    states = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(0)).to(dtype)

    def heard(padding: float) -> Tensor:
        """What a valid frame of each utterance becomes, with this in the place of padding."""
        given = states.clone()
        given[1, 4:] = padding
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the same is dropped
            mixed = attention.probabilities(given, valid) if path == "maps" else attention(given, valid)
        return mixed[1, :, :4] if path == "maps" else mixed[1, :4]  # (A, S, S) or (S, H)

    assert torch.equal(heard(0.0), heard(3.0))
    if path == "maps":
        assert not heard(3.0)[..., 4:].any()


@pytest.mark.parametrize("std", [0.02, 0.1])
def test_weights_are_drawn_as_wide_as_the_settings_say(std: float) -> None:
    model = load_upstream("mockingjay", checkpoint="random:tiny", initializer_std=std)
    for name, part in model.named_modules():
        if isinstance(part, torch.nn.Linear):
            assert float(part.weight.detach().std()) == pytest.approx(std, rel=0.05), name
            assert not part.bias.any(), name
        elif isinstance(part, torch.nn.LayerNorm):
            assert bool((part.weight == 1).all()), name
            assert not part.bias.any(), name


def small_checkpoint(folder: Path, prefix: str = "") -> Path:
    """A checkpoint of a small APC, as `repbench convert` writes one."""
    model = load_upstream("apc", checkpoint="random:tiny", hidden_size=8)
    weights = {f"{prefix}{name}": value for name, value in model.state_dict().items()}
    return save_weights(folder, weights=weights, fields={"upstream": "apc", "config": model.config}).path


@pytest.mark.parametrize("file", ["model.safetensors", "checkpoint.json"])
def test_a_file_of_a_checkpoint_stands_for_the_folder(tmp_path: Path, file: str) -> None:
    folder = small_checkpoint(tmp_path / "step-00000040")
    model = load_upstream("apc", checkpoint=folder / file)
    assert model.provenance.checkpoint == str(folder)
    assert model.fingerprint() == load_upstream("apc", checkpoint=folder).fingerprint()


def test_weights_without_their_manifest_are_refused_by_what_is_missing(tmp_path: Path) -> None:
    folder = small_checkpoint(tmp_path / "step-00000040")
    alone = (folder / "model.safetensors").rename(tmp_path / "model.safetensors")
    with pytest.raises(UsageError, match=r"checkpoint\.json, which names their model, is not in its folder"):
        load_upstream("apc", checkpoint=alone)


def test_a_checkpoint_of_a_wrapped_network_is_taken_and_that_is_said(tmp_path: Path) -> None:
    plain = load_upstream("apc", checkpoint=small_checkpoint(tmp_path / "plain"))
    wrapped = load_upstream("apc", checkpoint=small_checkpoint(tmp_path / "wrapped", "module."))
    assert wrapped.fingerprint() == plain.fingerprint()
    assert [note.split(",")[0] for note in wrapped.provenance.notes] == ["`module.`"]


def test_a_checkpoint_of_repbench_needs_no_conversion(tmp_path: Path) -> None:
    folder = small_checkpoint(tmp_path / "own")
    with pytest.raises(UsageError, match=r"of a checkpoint of repbench already .*--checkpoint .*own"):
        convert(folder / "model.safetensors", tmp_path / "out", {})


def test_parameters_without_names_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="pairs of name and parameter"):
        pretraining_optimizer(torch.nn.Linear(2, 2).parameters(), 1e-3, 0.1, 10)  # type: ignore[arg-type]
