"""Options of training that a task without training refuses, before any data is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from repbench.downstream.contract import Downstream, splits_read
from repbench.errors import UsageError

if TYPE_CHECKING:
    from repbench.benchmark.pipeline.setup import RunRequest


def refuse_training(request: RunRequest, task: Downstream) -> None:
    """Refuse options of training for a task that trains nothing.

    Raises:
        UsageError: Names the option.
    """
    what = f"`{request.downstream}` trains nothing"
    if request.finetune:
        raise UsageError(what, key="--finetune", do="Leave --finetune out")
    if request.tune or request.protocol.probe.tune:
        raise UsageError(f"{what}, so there is no learning rate to choose", key="--tune", do="Leave --tune out")
    if request.layer == "weighted":
        raise UsageError(
            f"{what}, so no weights of layers are learned", key="--layer", do="Choose last, first, mean, all or a layer"
        )
    if request.protocol.split.folds is not None:
        raise UsageError(what, key="split.folds", do="Leave it out")
    if "train" not in (splits_read(task) or ()) and any(fraction != 1 for fraction in request.label_fractions):
        raise UsageError(
            f"{what} and reads no training labels, of which a fraction could be taken",
            key="--label-fraction",
            do="Leave --label-fraction out",
        )
