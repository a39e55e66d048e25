"""Which weights a step of a fine-tuning trains, and that the others are frozen: no graph, dropout or statistics."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from repbench import load_upstream
from repbench.benchmark.finetuning.lora import LowRank, add_lora, matrices, merge_lora
from repbench.benchmark.finetuning.network import adapted
from repbench.benchmark.finetuning.trainable import TrainablePlan, refuse_rule
from repbench.benchmark.protocol import FinetuneSettings, load_protocol
from repbench.errors import PluginError, UsageError
from repbench.upstream.contract import layer_modules_of
from tests.benchmark.small_adapting import Deep, Undeclared, bytes_kept

SMALL: dict[str, Any] = {"hidden_size": 16, "num_layers": 3}
MOCKINGJAY: dict[str, Any] = {**SMALL, "num_heads": 2, "feed_forward_size": 32}
RULES = ("all", "last:1", "norms", "lora:2")


def sounds() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return 0.1 * torch.randn(2, 16_000, generator=generator), torch.tensor([16_000, 12_000])


def settings(**changed: Any) -> FinetuneSettings:
    return FinetuneSettings(**{"steps": 20, **changed})


def trained_at(step: int, module: Any, chosen: FinetuneSettings) -> set[str]:
    """Names of the weights with a gradient after a backward pass through all hidden states."""
    plan = TrainablePlan(module, chosen)
    plan.apply(step)
    module.zero_grad(set_to_none=True)
    states = module(*sounds()).layers
    if states.requires_grad:
        states.square().sum().backward()
    return {name for name, each in module.named_parameters() if each.grad is not None}


# rules


def test_each_rule_trains_its_weights_and_no_other() -> None:
    names = [name for name, _ in Deep().named_parameters()]
    norms = [f"layers.{layer}.{kind}.{part}" for layer in range(3) for kind in ("batch_norm", "norm")
             for part in ("weight", "bias")]  # fmt: skip
    linears = ["first.0", *(f"layers.{layer}.linear" for layer in range(3))]
    lora = [f"{name}.parametrizations.weight.0.lora_{part}" for name in linears for part in "ab"]
    expected = {
        "all": set(names),
        "last:1": {name for name in names if name.startswith("layers.2.")},
        "last:2": {name for name in names if name.startswith(("layers.1.", "layers.2."))},
        "norms": set(norms),
        "lora:2": set(lora),
    }
    for rule, wanted in expected.items():
        module, chosen = Deep(), settings(trainable=rule)
        with adapted(module, chosen, seed=0):
            assert trained_at(0, module, chosen) == wanted, rule
            assert TrainablePlan(module, chosen).num_trainable == sum(
                each.numel() for name, each in module.named_parameters() if name in wanted
            )


@pytest.mark.parametrize(
    ("name", "model"), [("mockingjay", MOCKINGJAY), ("mockingjay", {**MOCKINGJAY, "layer_norm": "pre"}), ("apc", SMALL)]
)
def test_the_last_layer_of_our_models_is_the_one_that_computes_the_last_state(name: str, model: dict[str, Any]) -> None:
    upstream = load_upstream(name, checkpoint="random", **model)
    layers = layer_modules_of(upstream)
    assert layers is not None
    assert len(layers) == 3
    before = upstream(*sounds()).layers
    with torch.no_grad():
        for parameter in (each for module in layers[1] for each in module.parameters()):
            parameter.add_(0.1)
    after = upstream(*sounds()).layers
    changed = [not torch.equal(one, other) for one, other in zip(before, after, strict=True)]
    assert changed[-3:] == [False, True, True]
    assert not any(changed[:-3])


def test_a_schedule_opens_the_head_alone_then_a_layer_at_a_time_from_the_top() -> None:
    module, chosen = Deep(), settings(freeze_steps=2, unfreeze_every=3)
    plan = TrainablePlan(module, chosen)
    lowest = [min((name[:8] for name in trained_at(step, module, chosen)), default="-") for step in range(13)]
    assert lowest == ["-"] * 2 + ["layers.2"] * 3 + ["layers.1"] * 3 + ["layers.0"] * 3 + ["first.0."] * 2
    assert plan.complete_at == 11
    reached = TrainablePlan(module, settings(steps=5, freeze_steps=2, unfreeze_every=3)).num_trainable
    assert reached == sum(each.numel() for each in module.layers[2].parameters()), "no step trains the other layers"


def test_the_rate_decays_from_the_top_down() -> None:
    module = Deep()
    groups = TrainablePlan(module, settings(layer_decay=0.5)).parameter_groups
    assert [factor for _, factor in groups] == [1, 0.5, 0.25, 0.125]
    assert groups[0][0] == list(module.layers[2].parameters())
    assert {id(each) for each in groups[3][0]} == {id(each) for each in (*module.first.parameters(), module.projection)}
    ((every, factor),) = TrainablePlan(module, settings()).parameter_groups
    assert (every, factor) == (list(module.parameters()), 1), "as before there were rules, in one group"


# what is frozen is frozen


@pytest.mark.parametrize("rule", ["last:1", "norms", "lora:2"])
def test_frozen_parts_keep_their_statistics_and_drop_nothing(rule: str) -> None:
    module, chosen = Deep(), settings(trainable=rule)
    with adapted(module, chosen, seed=0):
        TrainablePlan(module, chosen).apply(0)
        before = {name: each.clone() for name, each in module.named_buffers()}
        states = [module(*sounds()).layers for _ in range(2)]
        moved = {name for name, each in module.named_buffers() if not torch.equal(each, before[name])}
    statistics = {f"layers.2.batch_norm.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert moved == (statistics if rule == "last:1" else set())
    drops = [not torch.equal(one, other) for one, other in zip(*states, strict=True)]
    # `first` has no normalisation: with `norms` all of its weights are frozen.
    assert drops == {"last:1": [False] * 3 + [True], "norms": [False] + [True] * 3, "lora:2": [True] * 4}[rule]


def test_a_staged_layer_is_frozen_until_its_turn() -> None:
    module = Deep()
    plan = TrainablePlan(module, settings(trainable="norms", freeze_steps=1, unfreeze_every=2))
    plan.apply(0)
    assert not any(each.training for each in module.modules())
    plan.apply(1)
    training = {name for name, each in module.named_modules() if each.training}
    assert training == {"layers.2", "layers.2.norm", "layers.2.dropout"}


def test_no_graph_is_kept_below_the_lowest_trained_weight() -> None:
    kept = {}
    for rule in (*RULES, "last:2"):
        module, chosen = load_upstream("mockingjay", checkpoint="random", **MOCKINGJAY), settings(trainable=rule)
        outputs: list[Tensor] = []
        for layer in module.encoder.layers:
            layer.register_forward_hook(lambda layer, given, output, seen=outputs: seen.append(output))
        with adapted(module, chosen, seed=0):
            TrainablePlan(module, chosen).apply(0)
            with bytes_kept(module) as sizes:
                states = module(*sounds())
            kept[rule] = sum(sizes)
        below = {"last:1": 2, "last:2": 1}.get(rule, 0)
        assert [each.requires_grad for each in outputs] == [False] * below + [True] * (3 - below), rule
        assert states.layers.requires_grad
    assert kept["last:1"] < kept["all"] / 4 < kept["last:2"] < kept["all"] / 2, kept


# LoRA


@pytest.mark.parametrize(("name", "model"), [("mockingjay", MOCKINGJAY), ("apc", SMALL)])
def test_lora_begins_with_the_frozen_network_and_merges_to_the_last_bit(name: str, model: dict[str, Any]) -> None:
    upstream = load_upstream(name, checkpoint="random", **model).requires_grad_(False)
    shapes = {name: each.shape for name, each in upstream.state_dict().items()}
    with torch.inference_mode():
        frozen = upstream(*sounds()).layers
    add_lora(upstream, 4, 8.0, torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(upstream(*sounds()).layers, frozen)
    for each in upstream.modules():
        if isinstance(each, LowRank):
            torch.nn.init.normal_(each.lora_b, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        adapted_states = upstream(*sounds()).layers
    merge_lora(upstream)
    with torch.inference_mode():
        assert torch.equal(upstream(*sounds()).layers, adapted_states)
    assert not torch.equal(adapted_states, frozen)
    assert {name: each.shape for name, each in upstream.state_dict().items()} == shapes


def test_the_update_is_alpha_over_r_times_b_a() -> None:
    layer = nn.Sequential(nn.Linear(6, 5))
    linear: Any = layer[0]
    weight = linear.weight.detach().clone()
    add_lora(layer, 3, 6.0, torch.Generator().manual_seed(0))
    update = linear.parametrizations.weight[0]
    torch.nn.init.normal_(update.lora_b)
    assert update.lora_a.shape == (3, 6)
    torch.testing.assert_close(linear.weight, weight + 2.0 * update.lora_b @ update.lora_a)
    assert float(update.lora_a.detach().abs().max()) <= 6**-0.5
    frames = torch.randn(4, 6)
    beside = nn.functional.linear(frames, weight, linear.bias) + 2.0 * frames @ update.lora_a.T @ update.lora_b.T
    torch.testing.assert_close(layer(frames), beside, atol=1e-6, rtol=0)


def test_a_depends_on_the_seed_alone() -> None:
    def drawn(seed: int) -> Tensor:
        module = Deep(seed=seed + 9)
        with adapted(module, settings(trainable="lora:2"), seed=seed):
            first: Any = module.first[0]
            values: Tensor = first.parametrizations.weight[0].lora_a.detach().clone()
        return values

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))


def test_the_matrices_are_those_of_linear_recurrent_and_attention_layers() -> None:
    tied = nn.Linear(4, 4)
    module = nn.ModuleDict({
        "linear": nn.Linear(4, 5), "gru": nn.GRU(4, 4), "attention": nn.MultiheadAttention(4, 2),
        "conv": nn.Conv1d(4, 4, 3), "normed": parametrizations.weight_norm(nn.Linear(4, 4)),
        "one": tied, "other": nn.Linear(4, 4),
    })  # fmt: skip
    module["other"].weight = tied.weight
    assert [name for name, _, _ in matrices(module)] == [
        "linear.weight", "gru.weight_ih_l0", "gru.weight_hh_l0", "attention.in_proj_weight",
        "attention.out_proj.weight",
    ]  # fmt: skip


# what is refused

_UNDECLARED = "`envelope` does not declare which of its modules are its layers"


@pytest.mark.parametrize(
    ("upstream", "changed", "message"),
    [
        (
            Undeclared,
            {"trainable": "last:1"},
            rf"{_UNDECLARED}.*key finetune\.trainable\)",
        ),
        (
            Undeclared,
            {"unfreeze_every": 2},
            rf"{_UNDECLARED}.*key finetune\.unfreeze_every\)",
        ),
        (
            Undeclared,
            {"layer_decay": 0.9},
            rf"{_UNDECLARED}.*key finetune\.layer_decay\)",
        ),
        (Deep, {"trainable": "last:4"}, r"last:4, but `envelope` has 3 layers.*Take at most last:3"),
        (Deep, {"trainable": "lora:5"}, r"lora:5, but `first\.0\.weight` is a matrix of 4 x 4.*at most 4"),
    ],
)
def test_a_rule_that_the_upstream_has_no_weights_for_is_refused(
    upstream: Any, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        refuse_rule(upstream(), [3], settings(**changed))


def test_layers_above_what_the_head_reads_are_refused() -> None:
    refuse_rule(Deep(), [2], settings(trainable="last:2"))
    with pytest.raises(UsageError, match=r"last:1, but the head reads layer `two`.*Take a later --layer, or last:2"):
        refuse_rule(Deep(), [1, 2], settings(trainable="last:1"))
    with pytest.raises(UsageError, match=r"reads layer `energy`.*or all"):
        refuse_rule(Deep(), [0], settings(trainable="last:3"))


def test_norms_and_lora_need_what_they_train() -> None:
    with pytest.raises(UsageError, match=r"no layer, group or batch normalisation.*finetune\.trainable"):
        refuse_rule(load_upstream("apc", checkpoint="random", **SMALL), [2], settings(trainable="norms"))
    with pytest.raises(UsageError, match=r"no matrix for LoRA.*finetune\.trainable"):
        refuse_rule(load_upstream("py:repbench.testing.fakes:envelope"), [1], settings(trainable="lora:2"))


def test_a_false_declaration_of_layers_is_refused() -> None:
    false: list[Any] = [[], [[]], 3, [[nn.Linear(2, 2)]], [[1]], [[nn.Identity()]] * 9]
    for declared in false:
        module: Any = Undeclared()
        object.__setattr__(module, "layer_modules", declared)
        with pytest.raises(PluginError, match=r"`layer_modules` must have from 1 to 4 layers"):
            layer_modules_of(module)


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["finetune.trainable=last"], r"finetune\.trainable.*must be all, last:K, norms or lora:R"),
        (["finetune.trainable=lora:0"], r"finetune\.trainable.*but is 'lora:0'"),
        (["finetune.lora_alpha=4"], r"`lora_alpha` has no effect with `trainable: all`"),
        (["finetune.freeze_steps=300"], r"`freeze_steps` \(300\) must be below `steps` \(300\)"),
        (["finetune.layer_decay=1.5"], r"finetune\.layer_decay"),
        (["finetune.unfreeze_every=0"], r"finetune\.unfreeze_every"),
    ],
)
def test_settings_are_checked_with_their_key(assignments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_protocol("default", None, assignments)


def test_defaults_are_not_written_down() -> None:
    assert set(FinetuneSettings().model_dump()) == {
        "steps", "batch_seconds", "learning_rate", "head_learning_rate", "warmup", "weight_decay", "clip_norm",
        "selection_points", "patience", "statistics_utterances",
    }  # fmt: skip
