"""The optimizers follow the trajectories of the originals, and continue bit for bit from what was saved."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from repbench.training.optimizers import (
    BertAdam,
    OptimizerName,
    ScheduledAdamW,
    build_optimizer,
    parameter_groups,
    pretraining_optimizer,
    warmup_linear,
    warmup_linear_from_first,
)
from tests.conftest import GOLDEN

ARCHIVES = sorted((GOLDEN / "optim").glob("*.npz"))
TENSORS = ("w1", "b1", "w2")
NUM_UPDATES = 20
ATOL = 5e-6
KINDS = {"B": "bertadam", "L": "scheduled", "A": "adamw"}
NAMES = get_args(OptimizerName)


@dataclass(frozen=True)
class Case:
    """A golden trajectory and the settings that should lead along it."""

    name: str
    archive: Path
    kind: str
    settings: dict[str, Any]
    weight_decay: float = 0.01


@cache
def arrays_of(archive: Path) -> dict[str, np.ndarray[Any, Any]]:
    with np.load(archive) as opened:
        return {name: opened[name] for name in opened.files}


def read_case(archive: Path, name: str, config: Any) -> Case:
    """The settings in our words; a word of theirs that is not known here fails."""
    letter, theirs = config if isinstance(config, list) else ("B", config)
    ours: dict[str, Any] = {}
    for key, value in theirs.items():
        if key in {"adam", "correct_bias"}:
            assert value, "without both it is Lamb, which is not here"
        else:
            ours[{"t_total": "total_steps"}.get(key, key)] = value
    return Case(name, archive, KINDS[letter], ours | ({"eps": 1e-7} if letter == "A" else {}))


def cases() -> list[Case]:
    return [
        read_case(archive, name.removeprefix("config_"), json.loads(str(text)))
        for archive in ARCHIVES
        for name, text in arrays_of(archive).items()
        if name.startswith("config_") and "lamb" not in name
    ]


CASES = cases()
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def optimizer_of(case: Case, named: Iterable[tuple[str, Tensor]]) -> Optimizer:
    groups = parameter_groups(named, case.weight_decay)
    if case.kind == "bertadam":
        return BertAdam(groups, **case.settings)
    if case.kind == "scheduled":
        return ScheduledAdamW(groups, **case.settings)
    return AdamW(groups, fused=True, **case.settings)


def uncorrect_epsilon(optimizer: Optimizer, eps: float, update: int) -> None:
    """Undo that torch's AdamW, unlike S3PRL's, adds epsilon to the bias-corrected root."""
    for group in optimizer.param_groups:
        group["eps"] = eps / math.sqrt(1 - group["betas"][1] ** (update + 1))


def deviation_of(case: Case, *, same_epsilon: bool = False) -> float:
    """Largest distance from the golden trajectory over all of its points and tensors."""
    arrays = arrays_of(case.archive)
    tensors = {name: nn.Parameter(torch.tensor(arrays[f"init_{name}"])) for name in TENSORS}
    optimizer = optimizer_of(case, tensors.items())

    def distance(point: int) -> float:
        golden = {name: torch.tensor(arrays[f"traj_{case.name}_{name}"][point]) for name in TENSORS}
        return max(float((tensors[name].detach() - golden[name]).abs().max()) for name in TENSORS)

    distances = [distance(0)]
    for update in range(NUM_UPDATES):
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(arrays[f"grad_{name}"][update])
        if case.kind == "adamw" and not same_epsilon:
            uncorrect_epsilon(optimizer, case.settings["eps"], update)
        optimizer.step()
        distances.append(distance(update + 1))
    return max(distances)


def changes_of(case: Case) -> dict[str, Case]:
    """The case with one setting changed, for each setting that matters to it."""
    scheduled = case.settings.get("total_steps", -1) > 0
    changed: dict[str, dict[str, Any]] = {
        "eps": {"eps": 1e-3},
        "beta1": {"betas": (0.91, 0.999)},
        "beta2": {"betas": (0.9, 0.99)},
        "lr": {"lr": case.settings["lr"] * 1.01},
    }
    if scheduled:
        changed |= {"total_steps": {"total_steps": 21}, "warmup": {"warmup": 0.15}}
    if case.kind == "bertadam":
        changed["max_grad_norm"] = {"max_grad_norm": 1.0 if "max_grad_norm" in case.settings else 1.1}
    cases = {name: replace(case, settings=case.settings | change) for name, change in changed.items()}
    return cases | {"weight_decay": replace(case, weight_decay=0.02)}


def test_the_archives_hold_trajectories_and_no_point_is_left_out() -> None:
    assert [archive.stem for archive in ARCHIVES] == ["optim_legacy", "optim_s3prl"]
    for archive in ARCHIVES:
        arrays = arrays_of(archive)
        trajectories = {name for name in arrays if name.startswith("traj_") and "lamb" not in name}
        names = [case.name for case in CASES if case.archive == archive]
        assert len(names) >= 3
        assert trajectories == {f"traj_{name}_{tensor}" for name in names for tensor in TENSORS}
        assert {len(arrays[name]) for name in trajectories} == {NUM_UPDATES + 1}


@each_case
def test_the_golden_trajectory_is_followed(case: Case) -> None:
    assert deviation_of(case) <= ATOL


@each_case
def test_a_changed_setting_leaves_the_trajectory(case: Case) -> None:
    deviations = {name: deviation_of(changed) for name, changed in changes_of(case).items()}
    assert not {name: deviation for name, deviation in deviations.items() if deviation <= ATOL}


def test_torch_adamw_is_s3prl_adamw_but_for_where_epsilon_is_added() -> None:
    (case,) = (case for case in CASES if case.kind == "adamw")
    assert ATOL < deviation_of(case, same_epsilon=True) < 1e-4


@each_case
def test_the_learning_rate_is_that_of_the_next_update(case: Case) -> None:
    golden = arrays_of(case.archive)[f"getlr_after_step_{case.name}"]
    tensors = {name: nn.Parameter(torch.zeros(2, 2)) for name in TENSORS}
    optimizer = optimizer_of(case, tensors.items())
    if not isinstance(optimizer, BertAdam | ScheduledAdamW):
        assert golden.tolist() == [case.settings["lr"]] * NUM_UPDATES
        return
    rates = []
    for _ in range(NUM_UPDATES + 1):
        rates.append(optimizer.learning_rates()[0])
        for tensor in tensors.values():
            tensor.grad = torch.ones(2, 2)
        optimizer.step()
    # BertAdam's counter names its next update, that of "AdamW with schedule" its last one.
    ours = rates[1:] if case.kind == "bertadam" else rates[:-1]
    np.testing.assert_allclose(ours, golden, rtol=1e-12, atol=1e-15)


def test_the_schedule_is_the_original_one() -> None:
    golden = arrays_of(GOLDEN / "optim" / "optim_legacy.npz")["schedule_warmup0.07_t100_mult"]
    assert len(golden) == 121
    ours = [warmup_linear(step, 100, 0.07) for step in range(121)]
    np.testing.assert_allclose(ours, golden, rtol=1e-12, atol=1e-15)


def test_the_shape_of_the_warmup() -> None:
    assert [warmup_linear(step, 10, 0.2) for step in (0, 1, 2, 6, 10, 11, 99)] == [0, 0.5, 1, 0.5, 0, 0, 0]
    for none in (0, -1):
        assert [warmup_linear(step, 4, none) for step in range(6)] == [1, 0.75, 0.5, 0.25, 0, 0]
    for endless in (-1, 0):
        assert {warmup_linear(step, endless, 0.2) for step in (0, 7, 10**9)} == {1.0}


def test_the_shape_of_the_warmup_from_the_first_update_on() -> None:
    assert [warmup_linear_from_first(step, 6, 1 / 3) for step in range(8)] == [0.5, 1, 1, 0.75, 0.5, 0.25, 0, 0]
    for none in (0, -1):
        assert [warmup_linear_from_first(step, 4, none) for step in range(5)] == [1, 0.75, 0.5, 0.25, 0]
    assert [warmup_linear_from_first(step, 2, 0.99) for step in range(3)] == [0.5, 1, 0]
    assert {warmup_linear_from_first(step, -1, 0.2) for step in (0, 7, 10**9)} == {1.0}
    for total in (1, 2, 3, 10, 100):
        for warmup in (0, 0.07, 0.5, 0.99):
            multipliers = [warmup_linear_from_first(step, total, warmup) for step in range(total)]
            peak = multipliers.index(max(multipliers))
            assert multipliers[:peak] == sorted(multipliers[:peak])
            assert multipliers[peak:] == sorted(multipliers[peak:], reverse=True)
            assert min(multipliers) > 0
            assert max(multipliers) == 1


@pytest.mark.parametrize("shape", [warmup_linear, warmup_linear_from_first])
@pytest.mark.parametrize("warmup", [1.0, 500, -0.5, math.nan])
def test_a_warmup_that_is_no_share_is_refused(shape: Callable[[int, int, float], float], warmup: float) -> None:
    with pytest.raises(ValueError, match=r"`warmup` must be in \[0, 1\) or -1, but is"):
        shape(3, 100, warmup)


class Small(nn.Module):
    """A little of everything that has parameters."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 4)
        self.norm = nn.LayerNorm(4)
        self.recurrent = nn.GRU(4, 3)
        self.layer_weights = nn.Parameter(torch.zeros(12))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def set_gradients(self, update: int) -> None:
        """As if a backward pass had left them; large ones, so that clipping matters."""
        generator = torch.Generator().manual_seed(1000 + update)
        for parameter in self.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)


Build = Callable[[nn.Module], tuple[Optimizer, Callable[[int], float] | None]]


def built(name: OptimizerName) -> Build:
    def build(module: nn.Module) -> tuple[Optimizer, Callable[[int], float] | None]:
        return build_optimizer(
            name,
            module.named_parameters(),
            learning_rate=1e-2,
            betas=(0.9, 0.98),
            epsilon=None,
            weight_decay=0.01,
            warmup=0.2,
            total_steps=10,
        )

    return build


BUILDS: dict[str, Build] = {name: built(name) for name in NAMES}
each_build = pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS.keys())


def train(module: Small, optimizer: Optimizer, multiplier: Callable[[int], float] | None, updates: range) -> None:
    for update in updates:
        if isinstance(optimizer, Adam) and multiplier is not None:
            for group in optimizer.param_groups:
                group["lr"] = 1e-2 * multiplier(update)
        module.set_gradients(update)
        optimizer.step()


@each_build
def test_resumed_is_uninterrupted_bit_for_bit(build: Build) -> None:
    whole = Small()
    whole_optimizer, multiplier = build(whole)
    train(whole, whole_optimizer, multiplier, range(9))

    first = Small()
    first_optimizer, _ = build(first)
    train(first, first_optimizer, multiplier, range(4))
    saved = io.BytesIO()
    torch.save({"module": first.state_dict(), "optimizer": first_optimizer.state_dict()}, saved)
    saved.seek(0)
    state = torch.load(saved, weights_only=True)

    second = Small(seed=1)
    second_optimizer, _ = build(second)
    second.load_state_dict(state["module"])
    second_optimizer.load_state_dict(state["optimizer"])
    train(second, second_optimizer, multiplier, range(4, 9))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
        assert not torch.equal(tensor, first.state_dict()[name]), name


@each_build
def test_gradients_are_read_only(build: Build) -> None:
    module = Small()
    optimizer, _ = build(module)
    module.set_gradients(0)
    before = [parameter.grad.clone() for parameter in module.parameters() if parameter.grad is not None]
    optimizer.step()
    after = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    assert len(after) == len(list(module.parameters()))
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize("kind", [BertAdam, ScheduledAdamW])
def test_each_parameter_counts_for_itself(kind: type[BertAdam] | type[ScheduledAdamW]) -> None:
    def run(tensor: nn.Parameter, optimizer: Optimizer, updates: range) -> None:
        for update in updates:
            tensor.grad = torch.full((3, 2), 0.1 * (update + 1))
            optimizer.step()

    early, late, alone = (nn.Parameter(torch.ones(3, 2)) for _ in range(3))
    both = kind([early, late], lr=0.01, total_steps=10, warmup=0.2)
    assert both.learning_rates() == [0.0 if kind is BertAdam else 0.005]
    run(early, both, range(3))
    assert late not in both.state
    assert both.state[early]["step"] == 3
    early.grad = None
    run(late, both, range(3))
    run(alone, kind([alone], lr=0.01, total_steps=10, warmup=0.2), range(3))
    assert torch.equal(late, alone)
    assert torch.equal(early, alone)
    run(late, both, range(3, 5))
    assert (both.state[early]["step"], both.state[late]["step"]) == (3, 5)
    count = 5 if kind is BertAdam else 6
    assert both.learning_rates() == [0.01 * warmup_linear(count, 10, 0.2)]


@each_build
def test_how_many_are_updated_at_once_does_not_matter(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    together, apart = Small(), Small()
    train(together, *build(together), range(5))
    monkeypatch.setattr("repbench.training.optimizers.BATCH_ELEMENTS", 1)
    train(apart, *build(apart), range(5))
    assert all(torch.equal(one, other) for one, other in zip(together.parameters(), apart.parameters(), strict=True))


def test_bertadam_spends_its_first_update_on_the_moments() -> None:
    module = Small()
    optimizer = pretraining_optimizer(module.named_parameters(), 4e-4, 0.07, 100)
    before = [parameter.clone() for parameter in module.parameters()]
    train(module, optimizer, None, range(1))
    assert all(torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True))
    assert all(optimizer.state[parameter]["exp_avg"].abs().sum() > 0 for parameter in module.parameters())
    train(module, optimizer, None, range(1, 2))
    assert not any(torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True))


def test_a_closure_computes_the_loss_and_its_gradients() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = BertAdam([weight], lr=0.01)

    def closure() -> float:
        loss = weight.square().sum()
        torch.autograd.backward(loss)
        return float(loss.detach())

    assert optimizer.step(closure) == 4
    assert bool((weight < 1).all())


def test_what_has_one_dimension_is_not_decayed() -> None:
    module = Small()
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    decayed, spared = parameter_groups(module.named_parameters(), 0.03)
    assert [names[id(parameter)] for parameter in decayed["params"]] == [
        "linear.weight",
        "recurrent.weight_ih_l0",
        "recurrent.weight_hh_l0",
    ]
    assert [names[id(parameter)] for parameter in spared["params"]] == [
        "layer_weights",
        "linear.bias",
        "norm.weight",
        "norm.bias",
        "recurrent.bias_ih_l0",
        "recurrent.bias_hh_l0",
    ]
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.03, 0.0)


def test_no_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one parameter"):
        parameter_groups([])


@pytest.mark.parametrize("name", NAMES)
def test_the_built_optimizer_has_what_was_asked(name: OptimizerName) -> None:
    kinds = {"adamw": AdamW, "bertadam": BertAdam, "adamw-with-schedule": ScheduledAdamW, "adam": Adam}
    optimizer, _ = built(name)(Small())
    assert type(optimizer) is kinds[name]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.0]
    for group in optimizer.param_groups:
        assert (group["lr"], group["betas"]) == (1e-2, (0.9, 0.98))
        assert group["eps"] == (1e-6 if name == "bertadam" else 1e-8)
        assert group.get("fused", True)


@pytest.mark.parametrize("name", NAMES)
def test_the_multiplier_is_that_of_the_next_update(name: OptimizerName) -> None:
    module = Small()
    optimizer, multiplier = built(name)(module)
    assert multiplier is not None
    if isinstance(optimizer, BertAdam | ScheduledAdamW):
        for step in range(12):
            assert optimizer.learning_rates() == pytest.approx([1e-2 * multiplier(step)] * 2)
            train(module, optimizer, None, range(step, step + 1))
    else:
        assert [multiplier(step) for step in range(12)] == [
            warmup_linear_from_first(step, 10, 0.2) for step in range(12)
        ]


@pytest.mark.parametrize("name", NAMES)
def test_without_a_number_of_updates_the_rate_is_constant(name: OptimizerName) -> None:
    for total in (0, -1):
        _, multiplier = build_optimizer(
            name,
            Small().named_parameters(),
            learning_rate=1e-3,
            betas=(0.9, 0.999),
            epsilon=1e-5,
            weight_decay=0.0,
            warmup=0.1,
            total_steps=total,
        )
        assert [multiplier(step) for step in (0, 5, 10**6)] == [1, 1, 1]


def test_faulty_settings_are_all_named() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    for kind in (BertAdam, ScheduledAdamW):
        with pytest.raises(
            ValueError, match=r"`lr` must be at least 0, but is -1; .*but is 1\.5; `eps` must be above 0"
        ):
            kind([weight], lr=-1, betas=(0.9, 1.5), eps=0)
    with pytest.raises(ValueError, match=r"`warmup` must be in \[0, 1\) or -1, but is 500"):
        pretraining_optimizer([("weight", weight)], 1e-3, 500, 1000)
    with pytest.raises(ValueError, match="must be one of adamw, bertadam, adamw-with-schedule, adam, but is 'sgd'"):
        built("sgd")(Small())  # type: ignore[arg-type]
    sparse = nn.Embedding(4, 2, sparse=True)
    torch.autograd.backward(sparse(torch.tensor([1])).sum())
    with pytest.raises(RuntimeError, match="BertAdam takes dense gradients"):
        BertAdam(sparse.parameters(), lr=0.01).step()
