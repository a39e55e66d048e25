"""`hf:`: transformers' speech encoders say the same through our door as at home, alone and in a batch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from repbench import load_upstream
from repbench.benchmark.run import RunRequest, run
from repbench.errors import EnvironmentFault, IntegrityError, PluginError, RepbenchError, UsageError
from repbench.globalstate import preserved_global_state
from repbench.testing import tone_corpus
from repbench.testing.certify import certify_upstream
from repbench.testing.upstreams import subject as upstream_subject
from repbench.upstream.adapters.frame_counts import FrameClock
from tests.benchmark import small_finetuning
from tests.commands import offline, refuse_network, repbench
from tests.upstream.speech_encoders import KINDS, save_small

transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install 'repbench[dev]'")

LENGTHS = (895, 896, 1039, 1040, 1041, 1200, 1279, 1280, 1359, 1360, 1599, 4007, 7001, 15_999, 16_000, 16_001, 16_320,
           20_013, 20_480, 33_333)  # fmt: skip
"""From the shortest that all families take to two of small Whisper's windows of one second."""


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small model of each kind."""
    folder = tmp_path_factory.mktemp("encoders")
    return {kind: save_small(kind, folder / kind) for kind in KINDS}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_network(monkeypatch)


def sound(num_samples: int, seed: int = 1) -> Tensor:
    return 0.1 * torch.randn(num_samples, generator=torch.Generator().manual_seed(seed))


def alone(upstream: Any, samples: Tensor) -> Tensor:
    """The hidden states (L, F, D) of one sound."""
    with torch.inference_mode():
        layers: Tensor = upstream(samples[None], torch.tensor([len(samples)])).layers
    return layers[:, 0]


def by_auto_classes(kind: str, folder: Path) -> tuple[Any, Any]:
    """The encoder and the feature extractor as a user of transformers loads them."""
    loads = transformers.SpeechT5ForSpeechToText if kind == "speecht5" else transformers.AutoModel
    loads = transformers.ParakeetEncoder if kind == "parakeet_ctc" else loads
    model = loads.from_pretrained(folder, local_files_only=True).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
    return getattr(model, "speecht5", model).encoder if kind in {
        "speecht5",
        "whisper",
        "moonshine",
    } else model, extractor


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")  # transformers' own WavLM
@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_the_hidden_states_of_transformers(saved: dict[str, Path], kind: str) -> None:
    upstream = load_upstream(f"hf:{saved[kind]}")
    samples = sound(16_000)
    encoder, extractor = by_auto_classes(kind, saved[kind])
    inputs = extractor(samples.numpy(), sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        theirs = encoder(**inputs, output_hidden_states=True).hidden_states
    ours = alone(upstream, samples)
    assert upstream.info.layer_names == ("embedding", "layer 1", "layer 2", "layer 3")
    assert ours.shape == (4, upstream.num_frames(16_000), 16)
    torch.testing.assert_close(ours, torch.cat(theirs)[:, : ours.shape[1]], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_counted_exactly(saved: dict[str, Path], kind: str) -> None:
    upstream = load_upstream(f"hf:{saved[kind]}")
    encoder, extractor = by_auto_classes(kind, saved[kind])
    assert len(LENGTHS) == 20
    for length in LENGTHS:
        assert alone(upstream, sound(length)).shape[1] == upstream.num_frames(length), length
        assert upstream.num_frames(length) == by_transformers(kind, encoder, extractor, length), length


def by_transformers(kind: str, encoder: Any, extractor: Any, length: int) -> int:
    """The frames of a sound by transformers' own lengths; a long one is given to Whisper window by window."""
    if kind == "moonshine":
        return int(encoder._get_feat_extract_output_lengths(length))
    windows = torch.split(sound(length), extractor.n_samples) if kind == "whisper" else [sound(length)]
    heard = [
        extractor(each.numpy(), sampling_rate=16_000, return_tensors="pt", return_attention_mask=True)
        for each in windows
    ]
    counts = torch.stack([each["attention_mask"].sum() for each in heard])  # samples, or frames of the spectrogram
    if kind == "parakeet_ctc":
        return int(encoder._get_subsampling_output_length(counts))
    owner = encoder.prenet if kind == "speecht5" else encoder
    found = int(owner._get_feat_extract_output_lengths(counts).sum())
    return found // encoder.config.squeeze_factor if kind.startswith("sew") else found


@pytest.mark.parametrize(
    ("kind", "clock", "given", "counted"),
    [
        ("hubert", {"_clock": FrameClock(hop_samples=320, window_samples=720)}, 49, 48),
        ("wavlm-layer", {"_clock": FrameClock(hop_samples=640, window_samples=400)}, 49, 25),
        ("wav2vec2-bert", {"_bank": FrameClock(hop_samples=160, window_samples=720)}, 49, 48),
        ("whisper", {"hop_samples": 400}, 50, 40),
        ("parakeet_ctc", {"_mel_hop": 320}, 13, 7),
    ],
)
def test_frames_are_never_cut_to_a_count_that_is_too_small(
    saved: dict[str, Path], monkeypatch: pytest.MonkeyPatch, kind: str, clock: dict[str, Any], given: int, counted: int
) -> None:
    upstream = load_upstream(f"hf:{saved[kind]}")
    for name, value in clock.items():
        monkeypatch.setattr(upstream.preprocessor, name, value)
    with pytest.raises(PluginError, match=f"gives {given} frames for 16000 samples, .* calls for {counted}"):
        alone(upstream, sound(16_000))


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_as_each_alone(saved: dict[str, Path], kind: str) -> None:
    upstream = load_upstream(f"hf:{saved[kind]}")
    sounds = [sound(length, seed) for seed, length in enumerate((16_000, 7_001, 4_007, 20_013))]
    lengths = torch.tensor([len(each) for each in sounds])
    padded = torch.nn.utils.rnn.pad_sequence(sounds, batch_first=True, padding_value=0.7)  # what lies there is ignored
    with torch.inference_mode():
        states = upstream(padded, lengths)
    for row, each in enumerate(sounds):
        own, count = alone(upstream, each), upstream.num_frames(len(each))
        assert states.lengths[row] == count
        assert (states.layers[:, row, :count] - own).abs().max() <= 1e-4 * own.abs().max()
        assert not states.layers[:, row, count:].any()


@pytest.mark.parametrize("kind", ["data2vec-audio", "wav2vec2-conformer", "sew", "speecht5", "moonshine"])
def test_some_families_would_hear_their_padding(saved: dict[str, Path], kind: str) -> None:
    upstream = load_upstream(f"hf:{saved[kind]}")
    short, long = sound(7_001), sound(16_000, 2)
    own = alone(upstream, short)
    assert not upstream.preprocessor.pads
    with torch.inference_mode():
        together = upstream.preprocessor.encode(upstream.network, [short, long])[0]
    assert (together - own).abs().max() > 1e-3 * own.abs().max()


def test_the_clock_is_that_of_the_strides(saved: dict[str, Path]) -> None:
    kinds = ("wav2vec2", "whisper", "wav2vec2-bert", "sew", "sew-d", "speecht5", "moonshine", "parakeet_ctc")
    clocks = {kind: load_upstream(f"hf:{saved[kind]}").info for kind in kinds}
    assert {kind: (info.hop_samples, info.first_center_samples, info.min_samples) for kind, info in clocks.items()} == {
        "wav2vec2": (320, 200, 400), "whisper": (320, 0, 1), "wav2vec2-bert": (320, 280, 560), "sew": (640, 360, 720),
        "sew-d": (640, 360, 720), "speecht5": (320, 200, 400), "moonshine": (384, 447, 895),
        "parakeet_ctc": (1280, 0, 320),
    }  # fmt: skip


def test_whisper_hears_a_long_sound_window_by_window(saved: dict[str, Path]) -> None:
    upstream = load_upstream(f"hf:{saved['whisper']}")
    samples = sound(40_000)
    parts = [alone(upstream, part) for part in torch.split(samples, 16_000)]
    assert [part.shape[1] for part in parts] == [50, 50, 25]
    assert torch.equal(alone(upstream, samples), torch.cat(parts, dim=1))


def test_the_sound_is_normalised_only_where_the_extractor_says_so(saved: dict[str, Path], tmp_path: Path) -> None:
    raw = shutil.copytree(saved["wav2vec2-layer"], tmp_path / "raw")
    settings = json.loads((raw / "preprocessor_config.json").read_text())
    (raw / "preprocessor_config.json").write_text(json.dumps(settings | {"do_normalize": False}))
    for folder, hears_offset in ((saved["wav2vec2-layer"], False), (raw, True)):
        upstream = load_upstream(f"hf:{folder}")
        plain, offset = alone(upstream, sound(8_000)), alone(upstream, sound(8_000) + 0.5)
        same = bool((plain - offset).abs().max() < 1e-3 * plain.abs().max())
        assert same is not hears_offset, folder


@pytest.mark.parametrize("kind", ["wav2vec2-layer", "whisper"])
def test_gradient_reaches_the_weights_in_training(saved: dict[str, Path], kind: str) -> None:
    upstream = load_upstream(f"hf:{saved[kind]}").train()
    states = upstream(sound(8_000)[None], torch.tensor([8_000]))
    assert len(states.layers) == 4  # no layer is dropped
    states.layers.sum().backward()
    assert any(bool(each.grad.any()) for each in upstream.parameters() if each.grad is not None)


MASKED = [kind for kind in KINDS if kind not in {"whisper", "moonshine", "parakeet_ctc"}]
"""Kinds that were trained with masked frames."""


@pytest.mark.parametrize("kind", MASKED)
def test_a_checkpoint_without_the_embedding_of_masks_has_one_fingerprint(
    saved: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    tuned = shutil.copytree(saved[kind], tmp_path / "tuned")
    weights = load_file(tuned / "model.safetensors")
    del weights["speecht5.encoder.prenet.masked_spec_embed" if kind == "speecht5" else "masked_spec_embed"]
    save_file(weights, tuned / "model.safetensors", metadata={"format": "pt"})
    first, second = load_upstream(f"hf:{tuned}"), load_upstream(f"hf:{tuned}")
    assert first.fingerprint() == second.fingerprint() == load_upstream(f"hf:{saved[kind]}").fingerprint()
    for one, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_in_training_nothing_is_masked_and_all_that_is_drawn_is_drawn_by_torch(
    saved: dict[str, Path], kind: str
) -> None:
    upstream = load_upstream(f"hf:{saved[kind]}").train()
    heard = []
    for numpy_seed in (1, 2):
        with preserved_global_state():
            np.random.seed(numpy_seed)  # SpecAugment would draw from it
            torch.manual_seed(0)
            # The first sound is shorter than SpecAugment's shortest mask.
            heard.append([upstream(sound(n)[None], torch.tensor([n])).layers.detach() for n in (1_600, 8_000)])
    assert all(torch.equal(one, other) for one, other in zip(*heard, strict=True))
    dropped = [upstream(sound(8_000)[None], torch.tensor([8_000])).layers.detach() for _ in range(2)]
    assert not torch.equal(*dropped), "the model's own dropout stays"


def test_the_fingerprint_is_of_the_content_and_not_of_the_place(saved: dict[str, Path], tmp_path: Path) -> None:
    before = load_upstream(f"hf:{saved['wav2vec2']}").fingerprint()
    moved = shutil.copytree(saved["wav2vec2"], tmp_path / "elsewhere")
    assert load_upstream(f"hf:{moved}").fingerprint() == before
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps(config | {"transformers_version": "0"}))
    assert load_upstream(f"hf:{moved}").fingerprint() == before
    settings = json.loads((moved / "preprocessor_config.json").read_text())
    (moved / "preprocessor_config.json").write_text(json.dumps(settings | {"do_normalize": False}))
    assert load_upstream(f"hf:{moved}").fingerprint() != before
    shutil.copy(saved["wav2vec2"] / "preprocessor_config.json", moved)
    weights = load_file(moved / "model.safetensors")
    weights["feature_projection.projection.bias"][0] += 1e-3
    save_file(weights, moved / "model.safetensors")
    assert load_upstream(f"hf:{moved}").fingerprint() != before


def test_weights_by_the_names_of_an_older_version_are_the_same(saved: dict[str, Path], tmp_path: Path) -> None:
    moved = shutil.copytree(saved["wav2vec2"], tmp_path / "older")
    weights = load_file(moved / "model.safetensors")
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    for new, old in names.items():
        weights = {f"{key.replace(new, old)}": value for key, value in weights.items()}
    weights = {f"wav2vec2.{key}": value for key, value in weights.items()} | {"lm_head.bias": torch.zeros(4)}
    save_file(weights, moved / "model.safetensors")
    before = load_upstream(f"hf:{saved['wav2vec2']}").fingerprint()
    assert load_upstream(f"hf:{moved}").fingerprint() == before


def test_a_pickle_is_read_only_where_it_is_named(saved: dict[str, Path], tmp_path: Path) -> None:
    moved = shutil.copytree(saved["hubert"], tmp_path / "pickled")
    torch.save(load_file(moved / "model.safetensors"), moved / "pytorch_model.bin")
    (moved / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"a pickle, .* give --checkpoint pytorch_model.bin"):
        load_upstream(f"hf:{moved}")
    named = load_upstream(f"hf:{moved}", checkpoint="pytorch_model.bin")
    assert named.fingerprint() == load_upstream(f"hf:{saved['hubert']}").fingerprint()


class _Harmful:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.canary,))


def test_a_pickle_that_needs_code_is_refused_even_if_named(saved: dict[str, Path], tmp_path: Path) -> None:
    moved = shutil.copytree(saved["hubert"], tmp_path / "harmful")
    torch.save({"a": _Harmful(tmp_path / "canary")}, moved / "pytorch_model.bin")
    with pytest.raises(IntegrityError, match="needs code"):
        load_upstream(f"hf:{moved}", checkpoint="pytorch_model.bin")
    assert not (tmp_path / "canary").exists()


def test_untrained_weights_are_drawn_from_the_seed_alone(saved: dict[str, Path]) -> None:
    name, before = f"hf:{saved['wavlm']}", torch.get_rng_state()
    drawn = [load_upstream(name, checkpoint="random", seed=seed).fingerprint() for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert torch.equal(torch.get_rng_state(), before)


def test_a_checkpoint_that_lacks_a_weight_is_refused(saved: dict[str, Path], tmp_path: Path) -> None:
    moved = shutil.copytree(saved["wav2vec2"], tmp_path / "cut")
    weights = load_file(moved / "model.safetensors")
    save_file({key: weights[key] for key in weights if "layers.1.attention.k_proj" not in key},
              moved / "model.safetensors")  # fmt: skip
    with pytest.raises(IntegrityError, match=r"2 missing: encoder\.layers\.1\.attention\.k_proj\.bias"):
        load_upstream(f"hf:{moved}")


Weights = dict[str, Tensor]


def changed(
    source: Path,
    folder: Path,
    *,
    weights: Callable[[Weights], Weights] | None = None,
    config: dict[str, Any] | None = None,
    preprocessor: dict[str, Any] | None = None,
) -> Path:
    """A copy of a model with other weights or settings."""
    shutil.copytree(source, folder)
    for name, settings in (("config.json", config), ("preprocessor_config.json", preprocessor)):
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | (settings or {})))
    if weights is not None:
        own = load_file(folder / "model.safetensors")
        save_file({key: value.clone() for key, value in weights(own).items()}, folder / "model.safetensors")
    return folder


def with_adapters(weights: Weights) -> Weights:
    return weights | {f"encoder.layers.{layer}.adapter_layer.norm.weight": torch.ones(16) for layer in range(3)}


@pytest.mark.parametrize(
    ("kind", "config", "weights", "named"),
    [
        ("wav2vec2", {"num_hidden_layers": 2}, None, r"16 unexpected in the encoder: encoder\.layers\.2\.attention"),
        ("whisper", {"encoder_layers": 1}, None, r"30 unexpected in the encoder: encoder\.layers\.1\.fc1\.bias"),
        ("wav2vec2-layer", {"adapter_attn_dim": None}, with_adapters,
         r"3 unexpected in the encoder: encoder\.layers\.0\.adapter_layer\.norm\.weight"),
        ("wavlm", {}, lambda own: own | {"adapter.layers.0.conv.weight": torch.ones(2)}, r"adapter\.layers\.0\.conv"),
        ("hubert", {}, lambda own: own | {"feature_extractor.conv_layers.1.conv.bias": torch.ones(8)},
         r"1 unexpected in the encoder: feature_extractor\.conv_layers\.1\.conv\.bias"),
        ("wav2vec2", {}, lambda own: {f"wav2vec2.{key}": each for key, each in with_adapters(own).items()},
         r"3 unexpected in the encoder: wav2vec2\.encoder\.layers\.0\.adapter_layer"),
        ("hubert", {}, lambda own: own | {"postnet.weight": torch.ones(2)}, r"postnet\.weight"),
    ],
    ids=["layers", "whisper", "mms", "adapter", "conv_bias", "with a head", "unknown"],
)  # fmt: skip
def test_weights_of_the_encoder_that_the_configuration_does_not_know_are_refused(
    saved: dict[str, Path],
    tmp_path: Path,
    kind: str,
    config: dict[str, Any],
    weights: Callable[[Weights], Weights] | None,
    named: str,
) -> None:
    folder = changed(saved[kind], tmp_path / "m", config=config, weights=weights)
    with pytest.raises(IntegrityError, match=f"do not fit config.json: .*{named}.*Correct config.json"):
        load_upstream(f"hf:{folder}")


@pytest.mark.parametrize(
    ("kind", "prefix", "heads", "said"),
    [
        ("wav2vec2", "", ("lm_head.weight", "lm_head.bias", "quantizer.codevectors", "project_q.weight"),
         "lm_head (2), project_q (1), quantizer (1)"),
        ("wav2vec2", "wav2vec2.", ("feature_extractor.weight", "tdnn.0.kernel.weight", "objective.weight"),
         "feature_extractor (1), objective (1), tdnn (1)"),
        ("hubert", "hubert.", ("my_own.weight",), "my_own (1)"),
        ("wavlm", "", ("projector.weight", "classifier.weight", "layer_weights"),
         "classifier (1), layer_weights (1), projector (1)"),
        ("whisper", "model.", ("proj_out.weight",), "proj_out (1)"),
    ],
)  # fmt: skip
def test_heads_are_left_out_and_named_once(
    saved: dict[str, Path], tmp_path: Path, kind: str, prefix: str, heads: tuple[str, ...], said: str
) -> None:
    def with_heads(own: Weights) -> Weights:
        return {f"{prefix}{key}": each for key, each in own.items()} | {key: torch.ones(2) for key in heads}

    plain = load_upstream(f"hf:{saved[kind]}")
    upstream = load_upstream(f"hf:{changed(saved[kind], tmp_path / 'm', weights=with_heads)}")
    assert upstream.fingerprint() == plain.fingerprint()
    assert plain.provenance.notes == ()
    assert upstream.provenance.notes == (f"model.safetensors holds weights of a head, which are left out: {said}",)


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod."])
def test_what_a_wrapper_put_before_every_name_is_taken_off_and_said(
    saved: dict[str, Path], tmp_path: Path, wrapper: str
) -> None:
    def wrapped(own: Weights) -> Weights:
        return {f"{wrapper}hubert.{key}": each for key, each in own.items()} | {f"{wrapper}lm_head.bias": torch.ones(2)}

    upstream = load_upstream(f"hf:{changed(saved['hubert'], tmp_path / 'm', weights=wrapped)}")
    assert upstream.fingerprint() == load_upstream(f"hf:{saved['hubert']}").fingerprint()
    assert [note.split(",")[0] for note in upstream.provenance.notes] == [
        f"`{wrapper}`", "model.safetensors holds weights of a head"
    ]  # fmt: skip


def sharded(source: Path, folder: Path, *, misplaced: bool = False) -> Path:
    """A copy of a model whose weights lie in two pickles and an index, as older versions of transformers wrote them."""
    shutil.copytree(source, folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, keys = [f"pytorch_model-0000{number}-of-00002.bin" for number in (1, 2)], sorted(weights)
    for start, name in enumerate(names):
        torch.save({key: weights[key] for key in keys[start::2]}, folder / name)
    places = {key: names[place % 2] for place, key in enumerate(keys)}
    if misplaced:
        places[keys[0]] = names[1]
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


def test_sharded_pickles_are_read_where_their_index_is_named(saved: dict[str, Path], tmp_path: Path) -> None:
    folder = sharded(saved["hubert"], tmp_path / "m")
    with pytest.raises(UsageError, match=r"an index of pickles, .*give --checkpoint pytorch_model\.bin\.index\.json"):
        load_upstream(f"hf:{folder}")
    index = folder / "pytorch_model.bin.index.json"
    for named in (index.name, str(index)):
        upstream = load_upstream(f"hf:{folder}", checkpoint=named)
        assert upstream.fingerprint() == load_upstream(f"hf:{saved['hubert']}").fingerprint()
        assert upstream.provenance.checkpoint == str(index)
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(UsageError, match=r"1 of 2 files of weights are missing: pytorch_model-00002-of-00002\.bin"):
        load_upstream(f"hf:{folder}", checkpoint=index.name)


def test_an_index_that_contradicts_its_files_is_refused(saved: dict[str, Path], tmp_path: Path) -> None:
    folder = sharded(saved["hubert"], tmp_path / "m", misplaced=True)
    with pytest.raises(IntegrityError, match=r"The index and pytorch_model-00001-of-00002\.bin contradict each other"):
        load_upstream(f"hf:{folder}", checkpoint="pytorch_model.bin.index.json")


@pytest.mark.parametrize(
    ("kind", "preprocessor", "words"),
    [
        ("whisper", {"feature_size": 24},
         r"`num_mel_bins` of config\.json calls for 20, but `feature_size` of preprocessor_config\.json gives 24"),
        ("whisper", {"chunk_length": 30},
         r"`max_source_positions` of config\.json calls for 16000 samples, .* gives 480000 samples"),
        ("wav2vec2-bert", {"num_mel_bins": 24, "feature_size": 24},
         r"`feature_projection_input_dim` of config\.json calls for 40, .* gives 48"),
        ("hubert", {"feature_extractor_type": "WhisperFeatureExtractor"},
         r"`model_type` of config\.json calls for Wav2Vec2FeatureExtractor, .* gives WhisperFeatureExtractor"),
    ],
)  # fmt: skip
def test_two_files_of_a_model_that_contradict_each_other_are_named(
    saved: dict[str, Path], tmp_path: Path, kind: str, preprocessor: dict[str, Any], words: str
) -> None:
    folder = changed(saved[kind], tmp_path / "m", preprocessor=preprocessor)
    with pytest.raises(IntegrityError, match=f"Two files of the model contradict each other: {words}"):
        load_upstream(f"hf:{folder}")


def test_weights_are_not_taken_under_a_configuration_that_computes_something_else(
    saved: dict[str, Path], tmp_path: Path
) -> None:
    same = changed(saved["hubert"], tmp_path / "same", config={"vocab_size": 99, "attention_dropout": 0.3})
    assert load_upstream(f"hf:{saved['hubert']}", checkpoint=same).provenance.checkpoint == str(same)
    other = changed(saved["hubert"], tmp_path / "other", config={"num_attention_heads": 4})  # of the same shapes
    words = (
        r"contradicts that of .*hubert/config\.json: `num_attention_heads` is 2 there and 4 here .*other/config\.json"
    )
    with pytest.raises(IntegrityError, match=words):
        load_upstream(f"hf:{saved['hubert']}", checkpoint=other)


def test_two_preprocessors_that_contradict_each_other_are_named(saved: dict[str, Path], tmp_path: Path) -> None:
    folder = changed(saved["hubert"], tmp_path / "m")
    own = json.loads((folder / "preprocessor_config.json").read_text())
    for normalises in (own["do_normalize"], not own["do_normalize"]):
        processor = {"feature_extractor": own | {"do_normalize": normalises}}
        (folder / "processor_config.json").write_text(json.dumps(processor))
        if normalises is own["do_normalize"]:
            assert load_upstream(f"hf:{folder}").fingerprint() == load_upstream(f"hf:{saved['hubert']}").fingerprint()
    with pytest.raises(IntegrityError, match=r"contradict each other: `do_normalize` is False and True"):
        load_upstream(f"hf:{folder}")


@pytest.mark.parametrize(
    ("file", "content", "error", "words"),
    [
        ("model.safetensors", b"<html>not found</html>", IntegrityError, "not a whole safetensors file"),
        ("model.safetensors", None, UsageError, "holds no model.safetensors"),
        ("preprocessor_config.json", None, UsageError, "holds no preprocessor_config.json"),
        ("config.json", None, UsageError, "holds no config.json"),
        ("config.json", b"{", IntegrityError, "This is not JSON"),
        ("config.json", b'{"model_type": "bert"}', UsageError, "type `bert` is not supported"),
    ],
)
def test_a_broken_folder_is_named(
    saved: dict[str, Path], tmp_path: Path, file: str, content: bytes | None, error: type[RepbenchError], words: str
) -> None:
    moved = shutil.copytree(saved["wav2vec2"], tmp_path / "broken")
    (moved / file).unlink() if content is None else (moved / file).write_bytes(content)
    with pytest.raises(error, match=words):
        load_upstream(f"hf:{moved}")


def test_the_model_card_says_paper_and_licence(saved: dict[str, Path], tmp_path: Path) -> None:
    bare = load_upstream(f"hf:{saved['wav2vec2']}").info
    assert (bare.citation, bare.licence) == ("unknown", "unknown")
    moved = shutil.copytree(saved["wav2vec2"], tmp_path / "carded")
    (moved / "README.md").write_text("---\nlicense: apache-2.0\n---\n[Paper](https://arxiv.org/abs/2006.11477)\n")
    info = load_upstream(f"hf:{moved}").info
    assert (info.citation, info.licence) == ("arXiv:2006.11477", "apache-2.0")


def test_a_repository_comes_from_the_cache_and_never_from_the_network(
    saved: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match=r"nothing is downloaded.*hf download someone/small"):
        load_upstream("hf:someone/small")
    repository = tmp_path / "models--someone--small"
    shutil.copytree(saved["wav2vec2"], repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    found = load_upstream("hf:someone/small")
    assert found.fingerprint() == load_upstream(f"hf:{saved['wav2vec2']}").fingerprint()
    assert found.provenance.checkpoint.endswith("0" * 40)


def test_without_the_extra_the_error_says_how_to_install_it(
    saved: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(EnvironmentFault, match=r"pip install 'repbench\[huggingface\]'"):
        load_upstream(f"hf:{saved['wav2vec2']}")


@pytest.mark.slow
def test_the_whole_way_on_the_command_line(saved: dict[str, Path], tmp_path: Path) -> None:
    tones, alone_here = tone_corpus(tmp_path / "c", num_speakers=3), offline(tmp_path / "offline")
    name = f"hf:{saved['wavlm-layer']}"
    ran = repbench(
        "run", "--upstream", name, "--downstream", "phone", "--corpus", tmp_path / "c", "--out", tmp_path / "runs",
        "--set", "probe.steps=20", "--set", "probe.selection_points=2", "--json", env=alone_here,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    (record,) = ran.json["results"]
    assert (record["upstream"]["name"], record["upstream"]["origin"]["distribution"]) == (name, "repbench")
    assert record["n_scored"] == record["n_listed"]
    assert record["cost"]["macs_per_second"] > 0
    audio = tones.utterances[0].audio
    extracted = repbench("extract", "--upstream", name, "--out", tmp_path / "x", audio, env=alone_here)
    assert extracted.code == 0, extracted.err
    states = load_file(tmp_path / "x" / f"{audio.stem}.safetensors")["hidden_states"]
    assert states.shape[0] == 4


def test_a_seed_decides_a_fine_tuning_and_its_network_scores_again(saved: dict[str, Path], tmp_path: Path) -> None:
    tuned = shutil.copytree(saved["wav2vec2"], tmp_path / "tuned")
    weights = load_file(tuned / "model.safetensors")
    del weights["masked_spec_embed"]  # as a checkpoint that was fine-tuned with a head
    save_file(weights, tuned / "model.safetensors", metadata={"format": "pt"})
    for name in ("c", "d"):
        tone_corpus(tmp_path / name, num_speakers=3, sessions=1, per_session=1, salt=name)
    asked = small_finetuning.request(
        f"hf:{tuned}", tmp_path / "c", tmp_path / "runs", device="cpu", finetune__steps=2, finetune__selection_points=1
    )
    outcomes = []
    for numpy_seed in (1, 2):
        with preserved_global_state():
            np.random.seed(numpy_seed)
            (written,) = run(replace(asked, out=tmp_path / f"runs{numpy_seed}"))
        outcomes.append(small_finetuning.outcome(written.path))
    assert outcomes[0] == outcomes[1]
    (again,) = run(
        RunRequest(
            upstream=asked.upstream, downstream="phone", corpus=str(tmp_path / "d"), device="cpu",
            probe=written.path.parent, out=tmp_path / "again",
        )
    )  # fmt: skip
    assert again.record.n_scored == 3
    assert again.record.upstream.fingerprint == written.record.upstream.fingerprint


SHOWN = ("wav2vec2-layer", "hubert", "wavlm", "whisper")
"""One of each family, batched and alone."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHOWN)
def test_each_family_has_a_certificate(saved: dict[str, Path], monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(upstream_subject, "LONGEST_SECONDS", 3.0)
    certificate = certify_upstream(f"hf:{saved[kind]}")
    found = {each.id: (each.status, each.detail) for each in certificate.results}
    assert certificate.passed, [*certificate.failed, *certificate.untried]
    assert [id_ for id_, (status, _) in found.items() if status == "not applicable"] == []
    assert {id_ for id_, (status, _) in found.items() if status == "not measurable"} <= {"hop-and-first-centre"}
    assert found["fingerprint-not-of-path"] == ("passed", "loaded from another folder")


def test_what_is_offline_reaches_nothing(tmp_path: Path) -> None:
    code = "import socket; socket.socket().connect(('127.0.0.1', 9))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **offline(tmp_path / "o")}
    )
    assert done.returncode == 1
    assert "something asked for the network" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHOWN)
def test_each_family_is_run_on_speech_without_a_network(saved: dict[str, Path], tmp_path: Path, kind: str) -> None:
    pytest.importorskip("espeakng_loader", reason="needs the extra `demo`, which brings espeak-ng")
    ran = repbench(
        "run", "--upstream", f"hf:{saved[kind]}", "--downstream", "phone", "--corpus", "synthetic:tiny",
        "--out", tmp_path / "runs", "--set", "probe.steps=20", "--set", "probe.selection_points=2", "--json",
        env=offline(tmp_path / "offline"),
    )  # fmt: skip
    assert ran.code == 0, ran.err
    (record,) = ran.json["results"]
    assert record["upstream"]["layer_names"] == ["embedding", "layer 1", "layer 2", "layer 3"]
    assert record["n_scored"] == record["n_listed"] > 0
    assert 0 < record["metrics"]["accuracy"]["value"] <= 1
