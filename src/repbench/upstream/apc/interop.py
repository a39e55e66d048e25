"""Reader of APC checkpoints of the original code, of the Mockingjay code and of S3PRL.

The first two are state dicts without configuration: sizes come from the shapes; residuals, dropout and time shift are
those of the released models unless they are given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from repbench.audio.frontends import FRONT_ENDS
from repbench.configs.loader import build, merged
from repbench.errors import IntegrityError, UsageError
from repbench.upstream.apc.config import ApcConfig
from repbench.upstream.checkpoints.foreign import (
    ForeignCheckpoint,
    Shapes,
    group,
    hold_to_shapes,
    model_of,
    named,
    naming_file,
    numbers,
    refuse_layout,
    unwrapped,
    whole,
)
from repbench.upstream.checkpoints.safe_unpickle import check_weights, read_pickle

_BY_WIDTH = {80: "fbank80", 160: "mel160"}
_KNOWN = (
    "the keys of its state dict (`rnns.0.weight_ih_l0`, …, `postnet.layer.weight`), or `config` and `model` (S3PRL)"
)
_GRU_PARTS = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
_VECTOR_QUANTISATION = ("vq_layers.", "codebook_CxE.")
_S3PRL_AUDIO = {
    "feat_type": "fbank",
    "feat_dim": 80,
    "frame_length": 25,
    "frame_shift": 10,
    "cmvn": True,
}
_PRENET_LAYER = re.compile(r"prenet\.layers\.([0-9]+)\.")
_GRU = re.compile(r"rnns\.([0-9]+)\.")


class _Layout(NamedTuple):
    """The names of the parts in a toolkit, and the number of axes of their matrices."""

    grus: str
    postnet: str
    postnet_axes: int
    prenet_axes: int


class _Name(NamedTuple):
    ours: str
    theirs: str
    shape: tuple[int, ...]


def read_foreign(path: Path, settings: Mapping[str, Any]) -> ForeignCheckpoint:
    """Read an APC checkpoint of another toolkit.

    Args:
        path: The file.
        settings: A tree of `ApcConfig` that overrides the settings of the file.

    Raises:
        IntegrityError: The file is damaged, no checkpoint of APC, or its weights do not fit its settings.
        UsageError: repbench has no front end for its features, or the settings are not valid.
    """
    content = read_pickle(path)
    if model_of(content) != "apc":
        raise refuse_layout(content, wanted="apc", known=_KNOWN, file=path)
    with naming_file(path):
        if isinstance(content.get("model"), dict):
            return _s3prl(content, settings, path)
        return _bare(content, settings, path)


def _bare(content: Mapping[str, Any], settings: Mapping[str, Any], path: Path) -> ForeignCheckpoint:
    state, unwrapping = unwrapped(content, file=path)
    weights = check_weights(state, file=path)
    # The original code has a linear prenet, (H, D); that of the Mockingjay code is a convolution, (H, D, 1).
    axes = max((each.ndim for key, each in weights.items() if re.fullmatch(r"prenet\..*\.weight", key)), default=2)
    width = _input_width(weights, path)
    mockingjay_code = axes == 3 or width == 160
    config = merged(
        {
            "features": _features_by_width(width, settings),
            "hidden_size": _hidden_size(weights, path),
            "num_layers": _count(weights, _GRU),
            "prenet_layers": _count(weights, _PRENET_LAYER),
        },
        settings,
    )
    layout = _Layout(grus="rnns", postnet="postnet.layer", postnet_axes=3, prenet_axes=axes)
    return ForeignCheckpoint(
        kind="APC of the Mockingjay code" if mockingjay_code else "original APC",
        config=config,
        weights=_converted(weights, config, layout, path),
        step=None,
        notes=(
            "the file has no configuration: residual, dropout and time_shift are those of the released models unless "
            "they are given",
            *(
                () if mockingjay_code
                else ("the original normalised its features over the corpus, fbank80 does so over each utterance",)
            ),
            *unwrapping,
        ),
    )  # fmt: skip


def _s3prl(content: Mapping[str, Any], settings: Mapping[str, Any], path: Path) -> ForeignCheckpoint:
    state, unwrapping = unwrapped(group(content, "model", file=path), file=path)
    weights = check_weights(state, file=path)
    theirs = numbers(group(content, "config", file=path))
    sizes = group(group(theirs, "model", file=path, of="its `config`"), "paras", file=path, of="its `config.model`")
    quantised = [key for key in weights if key.startswith(_VECTOR_QUANTISATION)]
    if quantised or sizes.get("vq"):
        what = f"The model quantises vectors, which repbench's APC does not: {named(quantised or ['paras.vq'])}"
        raise IntegrityError(what, file=path, do="Give a checkpoint of APC without vector quantisation")
    task = theirs.get("task") if isinstance(theirs.get("task"), dict) else {}
    found = {
        "features": _features_by_audio(theirs, settings),
        "hidden_size": sizes.get("hidden_size"),
        "num_layers": sizes.get("num_layers"),
        "dropout": sizes.get("dropout"),
        "residual": sizes.get("residual"),
        "time_shift": task.get("n_future"),
        # Of S3PRL's code, not of its settings: the first GRU has no residual, the last has dropout.
        "residual_on_first": False,
        "dropout_on_last": True,
    }
    missing = [name for name in ("hidden_size", "num_layers", "residual") if found[name] is None]
    if missing:
        raise IntegrityError(f"`config.model.paras` of the checkpoint lacks {named(missing)}", file=path)
    config = merged({name: value for name, value in found.items() if value is not None}, settings)
    layout = _Layout(grus="rnn_layers", postnet="postnet", postnet_axes=2, prenet_axes=2)
    step = whole(content.get("Step"))
    return ForeignCheckpoint(
        kind="S3PRL's APC",
        config=config,
        weights=_converted(weights, config, layout, path),
        step=None if step is None else step + 1,  # S3PRL saves before it counts the step
        notes=unwrapping,
    )


def _converted(weights: Mapping[str, Tensor], config: dict[str, Any], layout: _Layout, path: Path) -> dict[str, Tensor]:
    """The weights by our names, after a check that they are exactly those of the settings."""
    names = list(_names(build(ApcConfig, config, path), layout))
    expected: Shapes = {name.theirs: name.shape for name in names}
    hold_to_shapes(expected, weights, file=path)
    # A convolution of kernel 1 is a matrix with a third axis: (H, D, 1) -> (H, D).
    return {
        name.ours: weights[name.theirs].flatten(1) if len(name.shape) == 3 else weights[name.theirs] for name in names
    }


def _names(settings: ApcConfig, layout: _Layout) -> Iterator[_Name]:
    width, hidden = FRONT_ENDS[settings.features.input].width, settings.hidden_size
    before = width
    for index in range(settings.prenet_layers):
        theirs = f"prenet.layers.{index}"
        shape = (hidden, before, 1)[: layout.prenet_axes]
        yield _Name(f"stack.prenet.{index}.weight", f"{theirs}.weight", shape)
        yield _Name(f"stack.prenet.{index}.bias", f"{theirs}.bias", (hidden,))
        before = hidden
    for index in range(settings.num_layers):
        # torch stacks the reset, update and new gates of a GRU along the first axis: (3H, D), (3H, H), (3H,), (3H,)
        shapes = ((3 * hidden, before), (3 * hidden, hidden), (3 * hidden,), (3 * hidden,))
        for part, shape in zip(_GRU_PARTS, shapes, strict=True):
            yield _Name(f"stack.grus.{index}.{part}", f"{layout.grus}.{index}.{part}", shape)
        before = hidden
    yield _Name("stack.postnet.weight", f"{layout.postnet}.weight", (width, hidden, 1)[: layout.postnet_axes])
    yield _Name("stack.postnet.bias", f"{layout.postnet}.bias", (width,))


def _count(weights: Mapping[str, Tensor], pattern: re.Pattern[str]) -> int:
    return max((int(found[1]) + 1 for key in weights if (found := pattern.match(key))), default=0)


def _hidden_size(weights: Mapping[str, Tensor], path: Path) -> int:
    for key, weight in weights.items():
        # (3H, H)
        if _GRU.match(key) and key.endswith(".weight_hh_l0") and weight.ndim == 2:
            return int(weight.shape[1])
    raise IntegrityError("The checkpoint holds no matrix `rnns.0.weight_hh_l0`", file=path)


def _input_width(weights: Mapping[str, Tensor], path: Path) -> int:
    # (D, H, 1), (H, D) or (H, D, 1), (3H, D): the side D of the first of these that the file has
    for key, axis in (("postnet.layer.weight", 0), ("prenet.layers.0.weight", 1), ("rnns.0.weight_ih_l0", 1)):
        if key in weights and weights[key].ndim > axis:
            return int(weights[key].shape[axis])
    raise IntegrityError("The checkpoint holds no matrix `postnet.layer.weight`", file=path)


def _features_given(settings: Mapping[str, Any]) -> bool:
    features = settings.get("features")
    return isinstance(features, Mapping) and features.get("input") is not None


def _features_by_width(width: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    if _features_given(settings):
        return {}
    if width not in _BY_WIDTH:
        raise _unknown_features(f"features of {width} dimensions")
    return {"input": _BY_WIDTH[width]}


def _features_by_audio(config: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    if _features_given(settings):
        return {}
    data = config.get("data")
    audio = data.get("audio") if isinstance(data, dict) else None
    found = audio if isinstance(audio, dict) else {}
    others = [
        f"config.data.audio.{key} is {found.get(key)!r}, not {value!r}"
        for key, value in _S3PRL_AUDIO.items()
        if found.get(key) != value
    ]
    if others:
        raise _unknown_features(f"features that are not fbank80 ({'; '.join(others)})")
    return {"input": "fbank80"}


def _unknown_features(what: str) -> UsageError:
    return UsageError(
        f"The checkpoint was trained on {what}, which no front end is known to give",
        key="features.input",
        do=f"Set `features.input` if one of these gives them: {', '.join(FRONT_ENDS)}",
    )
