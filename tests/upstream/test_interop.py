"""Checkpoints of other toolkits, in every container they come in, and what is said of those that do not fit."""

from __future__ import annotations

import argparse
import copy
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from repbench.configs.loader import build
from repbench.errors import IntegrityError, UsageError
from repbench.upstream.apc import interop as apc_interop
from repbench.upstream.apc.config import ApcConfig
from repbench.upstream.apc.upstream import Apc
from repbench.upstream.checkpoints.foreign import ForeignCheckpoint, hold_to_keys, unwrapped
from repbench.upstream.checkpoints.safe_unpickle import read_pickle
from repbench.upstream.mockingjay import interop as mockingjay_interop
from repbench.upstream.mockingjay.config import MockingjayConfig
from repbench.upstream.mockingjay.model import sinusoids
from repbench.upstream.mockingjay.upstream import Mockingjay
from tests.upstream.goldens import GOLDEN, deviation

Content = dict[str, Any]

LEGACY = "mockingjay_legacy/mockingjay_dr1_mel.ckpt"
STACKED = "mockingjay_legacy/mockingjay_dr3_mel.ckpt"
KALDI = "mockingjay_s3prl/s3prl_mj_kaldi.ckpt"
ONLINE = "mockingjay_s3prl/s3prl_mj_online.ckpt"
APC_ORIGINAL = "apc/apc_original_noprenet.pt"
APC_MOCKINGJAY = "apc/apc_mockingjay_legacy_noprenet.ckpt"
APC_S3PRL = "apc/apc_s3prl_full.ckpt"


def content_of(name: str) -> Content:
    """A golden checkpoint's content, to be edited; without its optimizer, which says nothing of the weights."""
    return {key: value for key, value in read_pickle(GOLDEN / name).items() if key != "Optimizer"}


class Live:
    """Stands for an object of the code that wrote the checkpoint."""

    def __init__(self, **attributes: object) -> None:
        vars(self).update(attributes)


@contextmanager
def modules_of_the_code() -> Iterator[dict[str, type]]:
    """The classes that checkpoints of the released code and of S3PRL name, while one is saved."""
    names = (
        ("utility.timer", "Timer"),
        ("mockingjay.optimization", "WarmupLinearSchedule"),
        ("optimizers", "WarmupLinearSchedule"),
    )
    before = dict(sys.modules)
    classes = {}
    try:
        for module, name in names:
            for depth in range(1, module.count(".") + 2):
                package = ".".join(module.split(".")[:depth])
                sys.modules[package] = types.ModuleType(package)
            cls = type(name, (Live,), {"__module__": module})
            setattr(sys.modules[module], name, cls)
            classes[f"{module}.{name}"] = cls
        yield classes
    finally:
        for name in set(sys.modules) - set(before):
            del sys.modules[name]


def saved(content: object, path: Path, *, zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def mockingjay(path: Path, settings: Content | None = None) -> tuple[ForeignCheckpoint, Mockingjay]:
    """As the factory does it."""
    foreign = mockingjay_interop.read_foreign(path, settings or {})
    with_head = any(key.startswith("head.") for key in foreign.weights)
    model = Mockingjay(build(MockingjayConfig, foreign.config, path), with_head=with_head).eval()
    hold_to_keys(model, foreign.weights, file=path)
    model.load_state_dict(foreign.weights)
    return foreign, model


def apc(path: Path, settings: Content | None = None) -> tuple[ForeignCheckpoint, Apc]:
    foreign = apc_interop.read_foreign(path, settings or {})
    model = Apc(build(ApcConfig, foreign.config, path)).eval()
    hold_to_keys(model, foreign.weights, file=path)
    model.load_state_dict(foreign.weights)
    return foreign, model


def same_weights(one: ForeignCheckpoint, other: ForeignCheckpoint) -> bool:
    return one.weights.keys() == other.weights.keys() and all(
        torch.equal(weight, other.weights[name]) for name, weight in one.weights.items()
    )


# 11: checkpoints with live objects in them.


@pytest.mark.parametrize("zipped", [True, False])
def test_fault_11_released_checkpoint_with_live_objects(tmp_path: Path, zipped: bool) -> None:
    content = content_of(LEGACY)
    with modules_of_the_code() as classes:
        settings = content["Settings"]
        settings["Config"]["timer"] = classes["utility.timer.Timer"](timings=[("mean", 0.5)], start_time=1.0)
        settings["Paras"] = argparse.Namespace(**settings["Paras"])
        schedule = classes["mockingjay.optimization.WarmupLinearSchedule"](warmup=0.07, t_total=4)
        content["Optimizer"] = {"state": {}, "param_groups": [{"schedule": schedule, "params": [140234]}]}
        path = saved(content, tmp_path / "mockingjay-4.ckpt", zipped=zipped)
    foreign, _ = mockingjay(path)
    assert (foreign.kind, foreign.step) == ("released Mockingjay code", 4)
    assert same_weights(foreign, mockingjay(GOLDEN / LEGACY)[0])


@pytest.mark.parametrize("zipped", [True, False])
def test_fault_11_s3prl_checkpoint_with_live_objects(tmp_path: Path, zipped: bool) -> None:
    content = content_of(ONLINE)
    with modules_of_the_code() as classes:
        content["Args"] = argparse.Namespace(**content["Args"])
        schedule = classes["optimizers.WarmupLinearSchedule"](warmup=0.07, t_total=4)
        content["Optimizer"] = {"state": {}, "param_groups": [{"schedule": schedule, "params": [0]}]}
        path = saved(content, tmp_path / "states-3.ckpt", zipped=zipped)
    foreign, _ = mockingjay(path)
    assert (foreign.kind, foreign.step) == ("S3PRL", 3)
    assert same_weights(foreign, mockingjay(GOLDEN / ONLINE)[0])


@pytest.mark.parametrize("zipped", [True, False])
def test_fault_11_s3prl_apc_with_a_namespace(tmp_path: Path, zipped: bool) -> None:
    content = content_of(APC_S3PRL)
    content["Args"] = argparse.Namespace(**content["Args"])
    foreign, _ = apc(saved(content, tmp_path / "states-3.ckpt", zipped=zipped))
    assert (foreign.kind, foreign.step) == ("S3PRL's APC", 3)
    assert same_weights(foreign, apc(GOLDEN / APC_S3PRL)[0])


def test_fault_11_any_other_object_is_refused(tmp_path: Path) -> None:
    content = content_of(LEGACY)
    content["Settings"]["Config"]["timer"] = Path("elsewhere")
    with pytest.raises(IntegrityError, match=r"needs code to load"):
        mockingjay(saved(content, tmp_path / "odd.ckpt"))


# Names that a wrapper of torch made.

WRAPPERS = ("module.", "_orig_mod.", "module._orig_mod.", "_fsdp_wrapped_module.")


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", [APC_ORIGINAL, APC_S3PRL])
def test_what_a_wrapper_put_before_every_name_of_apc_is_taken_off(tmp_path: Path, name: str, wrapper: str) -> None:
    content = content_of(name)
    inner = content["model"] if isinstance(content.get("model"), dict) else content
    wrapped = {f"{wrapper}{key}": weight for key, weight in inner.items()}
    path = saved({**content, "model": wrapped} if inner is not content else wrapped, tmp_path / "wrapped.ckpt")
    foreign, _ = apc(path)
    assert same_weights(foreign, apc(GOLDEN / name)[0])
    assert any(f"`{wrapper}`, which a wrapper of torch adds, was taken off" in note for note in foreign.notes)


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", [LEGACY, KALDI])
def test_what_a_wrapper_put_before_every_name_of_mockingjay_is_taken_off(
    tmp_path: Path, name: str, wrapper: str
) -> None:
    content = content_of(name)
    sections = [section for section in ("Mockingjay", "Transformer", "SpecHead") if section in content]
    for section in sections:
        content[section] = {f"{wrapper}{key}": weight for key, weight in content[section].items()}
    foreign, _ = mockingjay(saved(content, tmp_path / "wrapped.ckpt"))
    assert same_weights(foreign, mockingjay(GOLDEN / name)[0])
    assert sum(f"`{wrapper}`" in note for note in foreign.notes) == 1


def test_a_counter_of_averaged_weights_and_parts_that_were_wrapped() -> None:
    averaged = {"n_averaged": torch.tensor(3), "module.a.b": torch.ones(1), "module.a._orig_mod.c": torch.ones(1)}
    weights, notes = unwrapped(averaged, file=Path("average.pt"))
    assert list(weights) == ["a.b", "a.c"]
    assert notes == ("`module._orig_mod.`, which a wrapper of torch adds, was taken off the names of the weights in "
                     "average.pt",)  # fmt: skip


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["module.a", "module.b"], ["module.a", "module.b"]),  # the model's own part is called `module`
        (["module.a", "b"], ["a", "b"]),  # not all of them
        (["a", "b"], ["a", "b"]),
    ],
)
def test_names_that_are_the_models_own_stay(names: list[str], expected: list[str]) -> None:
    weights, notes = unwrapped(dict.fromkeys(names, torch.ones(1)), file=Path("own.pt"), expected=expected)
    assert (list(weights), notes) == (names, ())


def test_two_weights_never_get_one_name() -> None:
    with pytest.raises(IntegrityError, match=r"Two weights have the same name without the prefix `_orig_mod\.`"):
        unwrapped({"a._orig_mod.b": torch.ones(1), "a.b": torch.ones(1)}, file=Path("twice.pt"))


# 12: weights that are not those of the model.


Edit = Callable[[Content], object]

MISFITS: dict[str, tuple[str, Edit, str]] = {
    "missing in the encoder": (
        LEGACY,
        lambda content: content["Mockingjay"].pop("encoder.layer.1.output.dense.bias"),
        r"1 missing: Mockingjay\.encoder\.layer\.1\.output\.dense\.bias",
    ),
    "missing in the head": (
        ONLINE,
        lambda content: content["SpecHead"].pop("output.bias"),
        r"1 missing: SpecHead\.output\.bias",
    ),
    "unexpected": (
        ONLINE,
        lambda content: content["Transformer"].update({"pooler.weight": torch.zeros(2)}),
        r"1 unexpected: Transformer\.pooler\.weight",
    ),
    "a layer too many": (
        LEGACY,
        lambda content: content["Settings"]["Config"]["mockingjay"].update(num_hidden_layers=1),
        r"16 unexpected: Mockingjay\.encoder\.layer\.1\.attention\.self\.query\.weight.* and 6 more",
    ),
    "a layer too few": (
        LEGACY,
        lambda content: content["Settings"]["Config"]["mockingjay"].update(num_hidden_layers=3),
        r"16 missing: Mockingjay\.encoder\.layer\.2\.attention\.self\.query\.weight.* and 6 more",
    ),
    "another shape": (
        LEGACY,
        lambda content: content["Settings"]["Config"]["mockingjay"].update(intermediate_size=64),
        r"6 of another shape: Mockingjay\.encoder\.layer\.0\.intermediate\.dense\.weight is 96x48, not 64x48",
    ),
    "aliases without pre-normalisation": (
        ONLINE,
        lambda content: content["Transformer"].update({"encoder.LayerNorm.0.weight": torch.ones(48)}),
        r"1 unexpected: Transformer\.encoder\.LayerNorm\.0\.weight",
    ),
    "not finite": (
        LEGACY,
        lambda content: content["Mockingjay"]["encoder.layer.0.output.dense.bias"].fill_(float("nan")),
        r"Mockingjay\.encoder\.layer\.0\.output\.dense\.bias` holds NaN",
    ),
    "whole numbers": (
        LEGACY,
        lambda content: content["SpecHead"].update({"dense.bias": torch.zeros(48, dtype=torch.int64)}),
        r"SpecHead\.dense\.bias` must have a floating-point dtype, but has int64",
    ),
}


@pytest.mark.parametrize("fault", MISFITS)
def test_fault_12_mockingjay_weights_that_do_not_fit(tmp_path: Path, fault: str) -> None:
    name, edit, told = MISFITS[fault]
    content = content_of(name)
    edit(content)
    path = saved(content, tmp_path / "odd.ckpt")
    with pytest.raises(IntegrityError, match=told) as refusal:
        mockingjay(path)
    assert refusal.value.exit_code == 4
    assert refusal.value.file == str(path)


def test_fault_12_every_fault_is_told_at_once(tmp_path: Path) -> None:
    content = content_of(LEGACY)
    encoder = content["Mockingjay"]
    del encoder["encoder.layer.0.output.dense.bias"]
    encoder["encoder.layer.0.output.LayerNorm.weight"] = torch.ones(47)
    encoder["extra"] = torch.ones(1)
    with pytest.raises(
        IntegrityError, match=r"1 missing: .*; 1 unexpected: Mockingjay\.extra; 1 of another shape: .* is 47, not 48"
    ):
        mockingjay(saved(content, tmp_path / "odd.ckpt"))


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda content: content.pop("rnns.1.bias_hh_l0"), r"1 missing: rnns\.1\.bias_hh_l0"),
        (lambda content: content.update(extra=torch.zeros(1)), r"1 unexpected: extra"),
        (lambda content: content.update({"rnns.2.bias_hh_l0": torch.zeros(9)}), r"rnns\.2\.bias_hh_l0 is 9, not 96"),
        (lambda content: [content.pop(key) for key in list(content) if ".1." in key], r"4 missing: rnns\.1\."),
        (lambda content: content.pop("postnet.layer.weight"), r"1 missing: postnet\.layer\.weight"),
    ],
)  # fmt: skip
def test_fault_12_apc_weights_that_do_not_fit(tmp_path: Path, edit: Edit, told: str) -> None:
    content = content_of(APC_ORIGINAL)
    edit(content)
    with pytest.raises(IntegrityError, match=told):
        apc(saved(content, tmp_path / "odd.pt"))


def test_fault_12_settings_that_contradict_the_file(tmp_path: Path) -> None:
    with pytest.raises(
        IntegrityError, match=r"Mockingjay\.input_representations\.spec_transform\.weight is 48x160, not 64x160"
    ):
        mockingjay(GOLDEN / LEGACY, {"hidden_size": 64})
    with pytest.raises(IntegrityError, match=r"4 missing: rnns\.3\."):
        apc(GOLDEN / APC_ORIGINAL, {"num_layers": 4})


def test_fault_12_a_module_holds_to_its_keys(tmp_path: Path) -> None:
    module = torch.nn.Linear(2, 3)
    weights = {"weight": torch.zeros(3, 4), "gain": torch.zeros(1)}
    with pytest.raises(
        IntegrityError, match=r"1 missing: bias; 1 unexpected: gain; 1 of another shape: weight is 3x4, not 3x2"
    ):
        hold_to_keys(module, weights, file=tmp_path / "weights")


# Containers of Mockingjay.


def test_an_encoder_alone_has_no_head(tmp_path: Path) -> None:
    content = content_of(LEGACY)
    del content["SpecHead"], content["Global_step"]
    foreign, model = mockingjay(saved(content, tmp_path / "encoder.ckpt"))
    assert foreign.step is None
    assert model.head is None
    assert not any(key.startswith("head.") for key in foreign.weights)


@pytest.mark.parametrize("section", ["Mockingjay", "SpecHead"])
def test_gamma_and_beta_are_weight_and_bias(tmp_path: Path, section: str) -> None:
    content = content_of(LEGACY)
    content[section] = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): weight
        for key, weight in content[section].items()
    }
    path = saved(content, tmp_path / "old.ckpt")
    assert same_weights(mockingjay(path)[0], mockingjay(GOLDEN / LEGACY)[0])
    content[section]["LayerNorm.weight"] = content[section]["LayerNorm.gamma"] = torch.ones(48)
    with pytest.raises(IntegrityError, match=r"LayerNorm\.weight` is there under its old name too"):
        mockingjay(saved(content, path))


def of_2020(**online: Any) -> Content:
    """As S3PRL of 2020 wrote it: sizes, masking and numbers as texts in one section."""
    content = content_of(LEGACY if not online else ONLINE)
    if online:
        config = content.pop("Upstream_Config")
        model = config["transformer"] | config["task"] | {"input_dim": 80, "downsample_rate": 1}
        parts: Content = {"transformer": model, "dataloader": {}, "online": online}
        del content["Config"], content["Step"], content["Args"]
    else:
        legacy = content["Settings"]["Config"]
        model = legacy["mockingjay"] | {"input_dim": 160, "prune_headids": "None", "share_layer": False}
        del model["mask_consecutive"]
        model |= {"mask_consecutive_min": 3, "mask_consecutive_max": 7, "mask_allow_overlap": True}
        model |= {"layer_norm_eps": "1e-5", "initializer_range": "2e-2", "pre_layer_norm": False}
        parts = {"transformer": model, "dataloader": legacy["dataloader"]}
        content["Transformer"] = content.pop("Mockingjay")
    content["Settings"] = {"Config": parts, "Paras": argparse.Namespace(seed=1337)}
    content["Global_step"] = 500000
    return content


def test_s3prl_of_2020(tmp_path: Path) -> None:
    foreign, model = mockingjay(saved(of_2020(), tmp_path / "states.ckpt"))
    assert (foreign.kind, foreign.step) == ("S3PRL of 2020", 500000)
    assert same_weights(foreign, mockingjay(GOLDEN / LEGACY)[0])
    settings = model.settings
    assert (settings.layer_norm_epsilon, settings.initializer_std) == (1e-5, 0.02)
    assert (settings.masking.consecutive_min, settings.masking.consecutive) == (3, 7)


def test_a_number_of_absurd_length_is_a_fault_of_the_setting(tmp_path: Path) -> None:
    content = of_2020()
    content["Settings"]["Config"]["transformer"]["hidden_size"] = "9" * 5_000  # `int` refuses more than 4300 digits
    with pytest.raises(UsageError, match=r"hidden_size.*states\.ckpt") as caught:
        mockingjay(saved(content, tmp_path / "states.ckpt"))
    assert len(caught.value.line()) < 500


def test_s3prl_of_2020_with_features_computed_on_the_fly(tmp_path: Path) -> None:
    side = {"channel": 0, "log": True, "delta": 0, "cmvn": True}
    online = {
        "sample_rate": 16000, "target_level": -25, "win_ms": 25, "hop_ms": 10, "n_freq": 201, "n_mels": 80,
        "n_mfcc": 13, "input": side | {"feat_type": "mel"}, "target": side | {"feat_type": "linear", "channel": 1},
    }  # fmt: skip
    foreign, model = mockingjay(saved(of_2020(**online), tmp_path / "states.ckpt"))
    assert foreign.kind == "S3PRL of 2020"
    features = model.settings.features
    assert (features.input, features.target, features.level_db) == ("mel80", "linear201", -25)
    assert same_weights(foreign, mockingjay(GOLDEN / ONLINE)[0])


def test_s3prl_of_2021_and_of_problems(tmp_path: Path) -> None:
    content = content_of(KALDI)
    content["Runner"], content["Config"] = content["Config"], content.pop("Upstream_Config")
    foreign, _ = mockingjay(saved(content, tmp_path / "2021.ckpt"))
    assert (foreign.kind, foreign.step) == ("S3PRL of 2021", 3)
    assert same_weights(foreign, mockingjay(GOLDEN / KALDI)[0])

    content = content_of(KALDI)
    problem = {"Config": {}} | {key: content[key] for key in ("SpecHead", "Transformer", "Upstream_Config")}
    foreign, _ = mockingjay(saved(problem, tmp_path / "all_states.ckpt"))
    assert (foreign.kind, foreign.step) == ("S3PRL", None)
    assert any("chunks of 1500 frames in S3PRL are not repeated" in note for note in foreign.notes)


def test_a_fine_tuned_encoder_leaves_its_classifier_out(tmp_path: Path) -> None:
    content = content_of(LEGACY)
    del content["SpecHead"]
    content["Classifier"] = {"out.weight": torch.zeros(2, 2)}
    foreign, model = mockingjay(saved(content, tmp_path / "best_val.ckpt"))
    assert model.head is None
    assert any("left out" in note for note in foreign.notes)
    content["Mockingjay"] = None
    with pytest.raises(IntegrityError, match=r"classifier alone: its `Mockingjay` is None.*pre-trained model"):
        mockingjay(saved(content, tmp_path / "frozen.ckpt"))


def pre_normalised() -> Content:
    """As S3PRL writes it: layer normalisations under two names each, and one for every output."""
    content = content_of(KALDI)
    content["Upstream_Config"]["transformer"]["pre_layer_norm"] = True
    encoder, generator = content["Transformer"], torch.Generator().manual_seed(0)
    for key in list(encoder):
        if key.startswith("encoder.layer."):
            alias = key.replace("attention.output.LayerNorm", "attention.LayerNorm")
            if alias == key:
                alias = key.replace("output.LayerNorm", "LayerNorm")
            encoder.setdefault(alias, encoder[key].clone())
    for index in range(3):
        encoder[f"encoder.LayerNorm.{index}.weight"] = 0.5 + torch.rand(48, generator=generator)
        encoder[f"encoder.LayerNorm.{index}.bias"] = 0.2 * torch.randn(48, generator=generator)
    return content


def slow_pre_normalised(weights: dict[str, Tensor], spec: Tensor) -> list[Tensor]:
    """REFERENCE b.1 and b.2 word for word, for one utterance (T, D) and 4 heads: input and each layer's output."""

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ weights[f"{name}.weight"].double().T + weights[f"{name}.bias"].double()

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, (48,), weights[f"{name}.weight"].double(), weights[f"{name}.bias"].double(), 1e-12)

    x = linear("input_representations.spec_transform", spec.double()) + sinusoids(len(spec), 48)
    x = norm("input_representations.LayerNorm", x)
    outputs = [norm("encoder.LayerNorm.0", x)]
    for index in range(2):
        layer = f"encoder.layer.{index}"
        y = norm(f"{layer}.attention.LayerNorm", x)
        query, key, value = (
            linear(f"{layer}.attention.self.{name}", y).view(-1, 4, 12).transpose(0, 1)
            for name in ("query", "key", "value")
        )
        mixed = (query @ key.transpose(1, 2) / 12**0.5).softmax(-1) @ value
        x = x + linear(f"{layer}.attention.output.dense", mixed.transpose(0, 1).flatten(1))
        y = linear(f"{layer}.intermediate.dense", norm(f"{layer}.LayerNorm", x))
        x = x + linear(f"{layer}.output.dense", F.gelu(y))
        outputs.append(norm(f"encoder.LayerNorm.{index + 1}", x))
    return outputs


def test_normalisation_before_each_block(tmp_path: Path) -> None:
    """There is no golden of this form, so it is held to the equations."""
    content = pre_normalised()
    _, model = mockingjay(saved(content, tmp_path / "states.ckpt"))
    spec = torch.randn(30, 240, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours = model._layers(spec[None], torch.tensor([30]))[:, 0]
    slow = torch.stack(slow_pre_normalised(content["Transformer"], spec))
    assert deviation(ours, slow) < 5e-5
    with torch.no_grad():
        last = model.hidden_states(spec, all_layers=False)[0]
    assert deviation(last, slow[-1]) < 5e-5


def test_aliases_must_agree(tmp_path: Path) -> None:
    content = pre_normalised()
    content["Transformer"]["encoder.layer.1.LayerNorm.bias"][0] += 1.0
    with pytest.raises(
        IntegrityError, match=r"layer\.1\.LayerNorm\.bias` and .*layer\.1\.output\.LayerNorm\.bias` .* differ"
    ):
        mockingjay(saved(content, tmp_path / "states.ckpt"))


def test_shared_layers_must_be_alike(tmp_path: Path) -> None:
    content = content_of(KALDI)
    content["Upstream_Config"]["transformer"]["share_layer"] = True
    with pytest.raises(
        IntegrityError, match=r"shared by their settings, but `Transformer\.encoder\.layer\.1\..* differs"
    ):
        mockingjay(saved(content, tmp_path / "parted.ckpt"))
    for key in list(content["Transformer"]):
        if key.startswith("encoder.layer.0."):
            content["Transformer"][key.replace("layer.0", "layer.1")] = content["Transformer"][key]
    foreign, _ = mockingjay(saved(content, tmp_path / "shared.ckpt"))
    assert any("share one set of weights" in note for note in foreign.notes)


def test_pruned_heads_are_refused(tmp_path: Path) -> None:
    content = of_2020()
    content["Settings"]["Config"]["transformer"]["prune_headids"] = "0,1"
    with pytest.raises(IntegrityError, match=r"heads were pruned"):
        mockingjay(saved(content, tmp_path / "pruned.ckpt"))


# Features.


def resized(content: Content, given: int, restored: int) -> Content:
    """The released checkpoint for features of another width."""
    content["Mockingjay"]["input_representations.spec_transform.weight"] = torch.zeros(48, given)
    content["SpecHead"]["output.weight"] = torch.zeros(restored, 48)
    content["SpecHead"]["output.bias"] = torch.zeros(restored)
    return content


@pytest.mark.parametrize(
    ("given", "restored", "data_path", "found"),
    [
        (160, 160, "data/libri_mel160_subword5000", ("mel160", None)),
        (160, 160, "data/libri_fbank160_subword5000", ("fbank160", None)),
        (52, 52, "data/libri_mfcc160_subword5000", ("mfcc52", None)),
        (1025, 1025, "data/libri_linear1025_subword5000", ("linear1025", None)),
        (160, 1025, "data/libri_mel160_subword5000", ("mel160", "linear1025")),
    ],
)
def test_the_features_of_the_released_code(
    tmp_path: Path, given: int, restored: int, data_path: str, found: tuple[str, str | None]
) -> None:
    content = resized(content_of(LEGACY), given, restored)
    content["Settings"]["Config"]["dataloader"]["data_path"] = data_path
    _, model = mockingjay(saved(content, tmp_path / "mockingjay.ckpt"))
    assert (model.settings.features.input, model.settings.features.target) == found


def test_widths_are_of_stacked_frames(tmp_path: Path) -> None:
    content = resized(content_of(STACKED), 480, 3075)
    _, model = mockingjay(saved(content, tmp_path / "mockingjay.ckpt"))
    assert (model.settings.features.input, model.settings.features.target) == ("mel160", "linear1025")
    content = resized(content_of(STACKED), 481, 480)
    with pytest.raises(IntegrityError, match=r"side of 481, which is not a multiple of the downsample rate, 3"):
        mockingjay(saved(content, tmp_path / "odd.ckpt"))


def test_features_that_repbench_does_not_have(tmp_path: Path) -> None:
    path = saved(resized(content_of(LEGACY), 40, 40), tmp_path / "fmllr.ckpt")
    with pytest.raises(UsageError, match=r"fMLLR.*no such front end \(file .*, key features\.input\)"):
        mockingjay(path)
    path = saved(resized(content_of(LEGACY), 77, 77), tmp_path / "odd.ckpt")
    with pytest.raises(UsageError, match=r"77 dimensions a frame \(file .*, key features\.input\)"):
        mockingjay(path)
    path = saved(resized(content_of(LEGACY), 160, 77), tmp_path / "target.ckpt")
    with pytest.raises(UsageError, match=r"77 dimensions a frame \(file .*, key features\.target\)"):
        mockingjay(path)


def test_the_callers_features_count(tmp_path: Path) -> None:
    path = saved(resized(content_of(LEGACY), 80, 80), tmp_path / "mel80.ckpt")
    _, model = mockingjay(path, {"features": {"input": "mel80"}, "hidden_dropout": 0.3})
    assert (model.settings.features.input, model.settings.hidden_dropout) == ("mel80", 0.3)
    content = content_of(KALDI)
    content["Upstream_Config"]["audio"]["kaldi"]["fbank"]["frame_length"] = 32.0
    path = saved(content, tmp_path / "wide.ckpt")
    assert mockingjay(path, {"features": {"input": "fbank240"}})[1].settings.features.input == "fbank240"


KALDI_FEATURES: list[tuple[Content, int, str]] = [
    ({"kaldi": {"feat_type": "fbank", "fbank": {"num_mel_bins": 80}}, "delta": {"order": 2}}, 240, "fbank240_no_cmvn"),
    (
        {"kaldi": {"feat_type": "mfcc", "mfcc": {"num_ceps": 13}}, "delta": {"order": 2}, "cmvn": {"use_cmvn": True}},
        39,
        "mfcc39",
    ),
    ({"kaldi": {"feat_type": "spectrogram"}, "cmvn": {"use_cmvn": True}}, 257, "spectrogram257"),
]


@pytest.mark.parametrize(("audio", "width", "name"), KALDI_FEATURES)
def test_kaldi_features(tmp_path: Path, audio: Content, width: int, name: str) -> None:
    content = content_of(KALDI)
    content["Upstream_Config"]["audio"] = audio
    content["Transformer"]["input_representations.spec_transform.weight"] = torch.zeros(48, width)
    content["SpecHead"]["output.weight"] = torch.zeros(width, 48)
    content["SpecHead"]["output.bias"] = torch.zeros(width)
    _, model = mockingjay(saved(content, tmp_path / "states.ckpt"))
    assert model.settings.features.input == name


@pytest.mark.parametrize(
    ("name", "at", "value", "told"),
    [
        (KALDI, ("kaldi", "fbank", "num_mel_bins"), 40, r"audio\.kaldi\.fbank\.num_mel_bins is 40"),
        (KALDI, ("kaldi", "fbank", "dither"), 1.0, r"audio\.kaldi\.fbank\.dither is 1\.0"),
        (KALDI, ("kaldi", "feat_type"), "plp", r"audio\.kaldi\.feat_type is 'plp'"),
        (KALDI, ("delta", "order"), 1, r"audio\.delta\.order is 1"),
        (ONLINE, ("hop_ms",), 20, r"audio\.hop_ms is 20"),
        (ONLINE, ("input", "feat_type"), "mfcc", r"audio\.input\.feat_type is 'mfcc'"),
        (ONLINE, ("input", "log"), False, r"audio\.input\.log is False"),
        (ONLINE, ("target", "delta"), 2, r"audio\.target\.delta is 2"),
    ],
)
def test_features_computed_otherwise_are_named(
    tmp_path: Path, name: str, at: tuple[str, ...], value: object, told: str
) -> None:
    content = content_of(name)
    place = content["Upstream_Config"]["audio"]
    for key in at[:-1]:
        place = place[key]
    place[at[-1]] = value
    with pytest.raises(UsageError, match=rf"{told}.*\(file .*, key features\.input\).*Set `features\.input`"):
        mockingjay(saved(content, tmp_path / "odd.ckpt"))


def test_masking_and_sizes_are_taken_over() -> None:
    settings = mockingjay(GOLDEN / ONLINE)[1].settings
    assert (settings.masking.proportion, settings.masking.consecutive, settings.masking.overlap) == (0.15, 7, True)
    assert (settings.num_heads, settings.feed_forward_size, settings.activation, settings.loss) == (4, 96, "gelu", "l1")
    assert mockingjay(GOLDEN / STACKED)[1].settings.downsample_rate == 3


# Containers of APC.


def test_prenets_of_both_kinds(tmp_path: Path) -> None:
    """A convolution of kernel 1 in the Mockingjay code, a matrix in the original."""
    for name, convolution, kind, width in (
        (APC_ORIGINAL, False, "original APC", 80),
        (APC_MOCKINGJAY, True, "APC of the Mockingjay code", 160),
    ):
        content = content_of(name)
        shape = (32, width, 1) if convolution else (32, width)
        content["prenet.layers.0.weight"], content["prenet.layers.0.bias"] = torch.randn(shape), torch.zeros(32)
        content["rnns.0.weight_ih_l0"] = torch.randn(96, 32)
        foreign, model = apc(saved(content, tmp_path / "prenet.pt"))
        assert (foreign.kind, model.settings.prenet_layers) == (kind, 1)
        assert model.stack.prenet[0].weight.shape == (32, width)


def test_what_a_bare_state_dict_does_not_say_can_be_set() -> None:
    foreign, model = apc(GOLDEN / APC_ORIGINAL)
    assert (foreign.kind, model.settings.residual, model.settings.time_shift) == ("original APC", True, 3)
    _, model = apc(GOLDEN / APC_ORIGINAL, {"residual": False, "time_shift": 5})
    assert (model.settings.residual, model.settings.time_shift) == (False, 5)
    assert any("no configuration" in note for note in foreign.notes)


def test_what_s3prl_says_of_its_apc() -> None:
    _, model = apc(GOLDEN / APC_S3PRL)
    settings = model.settings
    assert (settings.residual_on_first, settings.dropout_on_last, settings.time_shift) == (False, True, 5)
    assert (settings.dropout, settings.features.input) == (0.1, "fbank80")


def test_vector_quantisation_is_refused_by_name(tmp_path: Path) -> None:
    content = content_of(APC_S3PRL)
    content["model"]["vq_layers.0.vq_logits.weight"] = torch.zeros(2, 2)
    with pytest.raises(IntegrityError, match=r"quantises vectors.*vq_layers\.0\.vq_logits\.weight"):
        apc(saved(content, tmp_path / "vq.ckpt"))


def test_apc_features_that_repbench_does_not_have(tmp_path: Path) -> None:
    content = content_of(APC_S3PRL)
    content["config"]["data"]["audio"]["cmvn"] = False
    path = saved(content, tmp_path / "plain.ckpt")
    with pytest.raises(
        UsageError, match=r"config\.data\.audio\.cmvn is False, not True.*\(file .*, key features\.input\)"
    ):
        apc(path)
    assert apc(path, {"features": {"input": "fbank80"}})[1].settings.features.input == "fbank80"
    content = content_of(APC_ORIGINAL)
    content["postnet.layer.weight"] = torch.zeros(40, 32, 1)
    with pytest.raises(UsageError, match=r"features of 40 dimensions"):
        apc(saved(content, tmp_path / "40.pt"))


# Files that are something else.


def test_the_other_model_is_named() -> None:
    with pytest.raises(IntegrityError, match=r"is of the upstream `apc`, not `mockingjay`"):
        mockingjay_interop.read_foreign(GOLDEN / APC_ORIGINAL, {})
    with pytest.raises(IntegrityError, match=r"is of the upstream `apc`, not `mockingjay`"):
        mockingjay_interop.read_foreign(GOLDEN / APC_S3PRL, {})
    for name in (LEGACY, ONLINE):
        with pytest.raises(IntegrityError, match=r"is of the upstream `mockingjay`, not `apc`"):
            apc_interop.read_foreign(GOLDEN / name, {})


def test_an_unknown_layout_is_described(tmp_path: Path) -> None:
    path = saved({"epoch": 3, "state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(IntegrityError, match=r"its keys are epoch, state_dict .*`Mockingjay`.*`Transformer`"):
        mockingjay_interop.read_foreign(path, {})
    with pytest.raises(IntegrityError, match=r"its keys are epoch, state_dict .*rnns\.0\.weight_ih_l0"):
        apc_interop.read_foreign(path, {})


@pytest.mark.parametrize(
    ("name", "edit", "told"),
    [
        (LEGACY, lambda content: content.pop("Settings"), r"`Settings` must be a mapping"),
        (LEGACY, lambda content: content["Settings"]["Config"].pop("mockingjay"), r"`mockingjay` must be a mapping"),
        (ONLINE, lambda content: content.pop("Upstream_Config"), r"`Upstream_Config` must be a mapping"),
        (ONLINE, lambda content: content["Upstream_Config"].pop("audio"), r"`audio` must be a mapping"),
        (
            ONLINE,
            lambda content: content["Upstream_Config"]["transformer"].pop("hidden_size"),
            r"settings of the checkpoint lack hidden_size",
        ),
        (
            LEGACY,
            lambda content: content["Mockingjay"].pop("input_representations.spec_transform.weight"),
            r"holds no matrix `Mockingjay\.input_representations\.spec_transform\.weight`",
        ),
    ],
)
def test_missing_parts_are_named(tmp_path: Path, name: str, edit: Edit, told: str) -> None:
    content = copy.deepcopy(content_of(name))
    edit(content)
    with pytest.raises(IntegrityError, match=told):
        mockingjay(saved(content, tmp_path / "odd.ckpt"))
