"""The state of a training in the checkpoints of its folder: weights and optimizer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from repbench.progress import Reporter
from repbench.upstream.checkpoints.foreign import hold_to_shapes
from repbench.upstream.checkpoints.native import (
    Checkpoint,
    list_checkpoints,
    newest_intact,
    read_training,
    read_weights,
)

_OPTIMIZER = "optimizer."


def restore(
    folder: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    reporter: Reporter,
    *,
    what: str,
    unsaved: Collection[str] = (),
) -> tuple[Checkpoint, dict[str, Tensor]] | None:
    """Load the newest intact checkpoint of a folder into a module and its optimizer.

    Args:
        folder: Of the training.
        module: Gets the weights.
        optimizer: Gets the state of moments and counters.
        reporter: Receives a warning for each damaged checkpoint.
        what: Name of the checkpoints in the warning: "checkpoint of the run".
        unsaved: Names of weights that the checkpoints do not hold: those of the module stay.

    Returns:
        The checkpoint, and its training tensors that are not the optimizer's; None if no checkpoint is intact.

    Raises:
        IntegrityError: The weights do not fit the module.
        EnvironmentFault: A file may not be read.
    """
    checkpoint = newest_intact(folder, lambda line: reporter.say(f"warning: {line}"))
    if checkpoint is None:
        if list_checkpoints(folder):
            reporter.say(f"warning: no {what} is intact: it starts again")
        return None
    weights = read_weights(checkpoint)
    expected = {name: tuple(each.shape) for name, each in module.state_dict().items() if name not in unsaved}
    hold_to_shapes(expected, weights, file=checkpoint.path)
    module.load_state_dict(weights, strict=not unsaved)  # the names are checked above
    tensors = read_training(checkpoint)
    own = {name: tensor for name, tensor in tensors.items() if name.startswith(_OPTIMIZER)}
    _load_optimizer(optimizer, own)
    return checkpoint, {name: tensor for name, tensor in tensors.items() if name not in own}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimizer as tensors named `optimizer.PARAMETER.NAME`; whole numbers become int64 scalars."""
    state = optimizer.state_dict()["state"]
    return {
        f"{_OPTIMIZER}{parameter}.{name}": value if isinstance(value, Tensor) else torch.tensor(value)
        for parameter, values in state.items()
        for name, value in values.items()
    }


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load the tensors of `optimizer_tensors`; rates and the other settings of the groups stay."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        _, parameter, name = key.split(".", 2)
        # The counters of our own optimizers are integers, those of torch's are float tensors.
        whole = value.dtype == torch.int64 and value.ndim == 0
        state.setdefault(int(parameter), {})[name] = int(value) if whole else value
    # The groups of the present optimizer: a resumed run may have other settings, and moments alone are restored.
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
