"""Reader of Mockingjay checkpoints of the released code and of S3PRL in its three forms.

The settings come from the file; settings of the caller override them. The released code does not store the features
of its training: they are inferred from the width of the weights and the folder of the data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from repbench.audio.frontends import FRONT_ENDS
from repbench.configs.loader import build, merged
from repbench.errors import IntegrityError, UsageError
from repbench.upstream.checkpoints.foreign import (
    ForeignCheckpoint,
    group,
    hold_to_copies,
    hold_to_shapes,
    model_of,
    named,
    naming_file,
    numbers,
    refuse_layout,
    renamed_last,
    unwrapped,
    whole,
    without_twin,
)
from repbench.upstream.checkpoints.safe_unpickle import check_weights, read_pickle
from repbench.upstream.mockingjay.config import MockingjayConfig

_KNOWN = (
    "`Mockingjay`, mostly with `SpecHead`, and `Settings` (the released code), or `Transformer` and `SpecHead` with "
    "`Settings`, `Config` or `Upstream_Config` (S3PRL)"
)
_HEAD = "SpecHead"
_OLD_NAMES = {"gamma": "weight", "beta": "bias"}
_SIZES = {
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "feed_forward_size": "intermediate_size",
}
_OPTIONS = {
    "activation": "hidden_act",
    "layer_norm_epsilon": "layer_norm_eps",
    "hidden_dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "initializer_std": "initializer_range",
    "downsample_rate": "downsample_rate",
}
_MASKING = {
    "proportion": "mask_proportion",
    "consecutive": "mask_consecutive",
    "overlap": "mask_allow_overlap",
    "frequency": "mask_frequency",
    "noise": "noise_proportion",
}
_LOSSES = {"L1": "l1", "MSE": "mse"}
_BUCKET_RATIO = 1.5  # of our grid of spans that do not overlap
_WIDTHS = {52: "mfcc52", 1025: "linear1025"}
_WINDOW = {"frame_length": 25.0, "frame_shift": 10.0}


class _Audio(NamedTuple):
    """Features that S3PRL computes on the fly and that a front end of repbench gives too.

    Attributes:
        options: Options that the checkpoint must have.
        defaults: Kaldi's defaults of these options.
        delta: Order of the slopes.
        normalised: The front end with normalisation.
        plain: The front end without; None if there is none.
    """

    options: dict[str, Any]
    defaults: dict[str, Any]
    delta: int
    normalised: str
    plain: str | None


_KALDI = {
    "fbank": _Audio(
        {**_WINDOW, "num_mel_bins": 80, "use_log_fbank": True},
        {**_WINDOW, "num_mel_bins": 23, "use_log_fbank": True},
        2,
        "fbank240",
        "fbank240_no_cmvn",
    ),
    "mfcc": _Audio({**_WINDOW, "num_ceps": 13}, {**_WINDOW, "num_ceps": 13}, 2, "mfcc39", None),
    "spectrogram": _Audio(_WINDOW, _WINDOW, 0, "spectrogram257", None),
}
_ONLINE = {"win_ms": 25, "hop_ms": 10, "n_freq": 201, "n_mels": 80, "sample_rate": 16000}
_ONLINE_FEATURE = {"log": True, "delta": 0, "cmvn": True}
_ONLINE_NAMES = {"mel": "mel80", "linear": "linear201"}


@dataclass(kw_only=True)
class _Source:
    """The parts of a checkpoint, not yet checked."""

    kind: str
    section: str
    """The outermost key of the encoder's weights."""
    model: dict[str, Any]
    """Sizes and dropouts."""
    task: dict[str, Any]
    """Masking and loss."""
    audio: dict[str, Any] | None
    """Settings of features computed on the fly; None: the features are read from `paths`."""
    paths: dict[str, str] = field(default_factory=dict)
    """Folders of the data: `data_path` and `target_path`."""
    step: int | None
    notes: list[str] = field(default_factory=list)


class _WeightPart(NamedTuple):
    """A matrix or normalisation, by our name and theirs; ours is the concatenation of several of theirs."""

    ours: str
    theirs: tuple[str, ...]
    rows: int
    columns: int | None = None

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        for name in self.theirs:
            yield f"{name}.weight", (self.rows,) if self.columns is None else (self.rows, self.columns)
            yield f"{name}.bias", (self.rows,)


def read_foreign(path: Path, settings: Mapping[str, Any]) -> ForeignCheckpoint:
    """Read a Mockingjay checkpoint of another toolkit.

    Args:
        path: The file.
        settings: A tree of `MockingjayConfig` that overrides the settings of the file.

    Returns:
        The checkpoint; the weights include a head if the file has one.

    Raises:
        IntegrityError: The file is damaged, no checkpoint of Mockingjay, or its weights do not fit its settings.
        UsageError: repbench has no front end for its features, or the settings are not valid.
    """
    content = read_pickle(path)
    source = _source(content, path)
    weights = _weights(content, source, path)
    config = merged(_config(source, weights, settings, path), settings)
    built = build(MockingjayConfig, config, path)
    parts = list(_parts(built, source.section, with_head=any(key.startswith(f"{_HEAD}.") for key in weights)))
    hold_to_shapes(dict(shape for part in parts for shape in part.shapes()), weights, file=path)
    if source.model.get("share_layer"):
        hold_to_copies(weights, f"{source.section}.encoder.layer.{{}}.", file=path)
        source.notes.append("its layers share one set of weights; here each has a copy, which training would part")
    return ForeignCheckpoint(
        kind=source.kind,
        config=config,
        weights={
            # Q, K, V (H, H) each -> (3H, H), the rows that `Attention.qkv` splits again; one part stays as it is
            f"{part.ours}.{name}": torch.cat([weights[f"{each}.{name}"] for each in part.theirs])
            for part in parts
            for name in ("weight", "bias")
        },
        step=source.step,
        notes=tuple(source.notes),
    )


def _source(content: Mapping[str, Any], path: Path) -> _Source:
    """The parts of the file, by its layout."""
    if model_of(content) != "mockingjay":
        raise refuse_layout(content, wanted="mockingjay", known=_KNOWN, file=path)
    section = "Mockingjay" if "Mockingjay" in content else "Transformer"
    if content[section] is None:
        what = f"The checkpoint holds a classifier alone: its `{section}` is None, for it was trained on frozen states"
        raise IntegrityError(what, file=path, do="Give the checkpoint of the pre-trained model that it was trained on")
    if section == "Mockingjay" or "Settings" in content:
        return _with_settings(content, section, path)
    return _of_s3prl(content, path)


def _with_settings(content: Mapping[str, Any], section: str, path: Path) -> _Source:
    """The parts of a file of the released code or of S3PRL of 2020."""
    config = numbers(group(group(content, "Settings", file=path), "Config", file=path, of="its `Settings`"))
    model = group(config, section.lower(), file=path, of="its `Settings.Config`")
    dataloader = config.get("dataloader") if isinstance(config.get("dataloader"), dict) else {}
    source = _Source(
        kind="released Mockingjay code" if section == "Mockingjay" else "S3PRL of 2020",
        section=section,
        model=model,
        task=model,
        audio=config.get("online") if isinstance(config.get("online"), dict) else None,
        paths={key: str(dataloader.get(key) or "").lower() for key in ("data_path", "target_path")},
        step=whole(content.get("Global_step")),
    )
    if "Classifier" in content:
        source.step = None  # the steps of the classifier
        source.notes.append("it was fine-tuned with a classifier, which is left out")
    if section == "Mockingjay":
        source.notes.append("it was trained to restore the first frame of each hidden span only; here all are scored")
    return source


def _of_s3prl(content: Mapping[str, Any], path: Path) -> _Source:
    """The parts of a file of S3PRL since 2021; the upstream's settings are `Config` if it has a `transformer`, else
    `Upstream_Config`.
    """
    of_2021 = isinstance(content.get("Config"), dict) and "transformer" in content["Config"]
    key = "Config" if of_2021 else "Upstream_Config"
    config = numbers(group(content, key, file=path))
    step = whole(content.get("Step"))
    source = _Source(
        kind="S3PRL of 2021" if of_2021 else "S3PRL",
        section="Transformer",
        model=group(config, "transformer", file=path, of=f"its `{key}`"),
        task=config["task"] if isinstance(config.get("task"), dict) else {},
        audio=group(config, "audio", file=path, of=f"its `{key}`"),
        step=None if step is None else step + 1,  # S3PRL saves before it counts the step
    )
    longest = source.task.get("sequence_length")
    if longest:
        source.notes.append(
            f"chunks of {longest} frames in S3PRL are not repeated here: the whole utterance is encoded"
        )
    return source


def _weights(content: Mapping[str, Any], source: _Source, path: Path) -> dict[str, Tensor]:
    """All weights by the names of the file; a weight with two names appears once."""
    state = group(content, source.section, file=path)
    state, notes = unwrapped(state, file=path)
    found = {f"{source.section}.{key}": weight for key, weight in state.items()}
    if content.get(_HEAD) is not None:
        head, notes_of_head = unwrapped(group(content, _HEAD, file=path), file=path)
        found |= {f"{_HEAD}.{key}": weight for key, weight in head.items()}
        notes = notes or notes_of_head
    source.notes.extend(notes)
    weights = renamed_last(check_weights(found, file=path), _OLD_NAMES, file=path)
    if source.model.get("pre_layer_norm"):
        for layer in range(whole(source.model.get("num_hidden_layers")) or 0):
            stem = f"{source.section}.encoder.layer.{layer}"
            for name in ("weight", "bias"):
                for outer, inner in (
                    ("attention.LayerNorm", "attention.output.LayerNorm"),
                    ("LayerNorm", "output.LayerNorm"),
                ):
                    without_twin(weights, f"{stem}.{outer}.{name}", f"{stem}.{inner}.{name}", file=path)
    return weights


def _parts(settings: MockingjayConfig, section: str, *, with_head: bool) -> Iterator[_WeightPart]:
    """Every part of the model with these settings."""
    width, inner, rate = settings.hidden_size, settings.feed_forward_size, settings.downsample_rate
    first, stem = f"{section}.input_representations", f"{section}.encoder"
    yield _WeightPart(
        "encoder.input_projection",
        (f"{first}.spec_transform",),
        width,
        FRONT_ENDS[settings.features.input].width * rate,
    )
    yield _WeightPart("encoder.input_norm", (f"{first}.LayerNorm",), width)
    for index in range(settings.num_layers):
        ours, theirs = f"encoder.layers.{index}", f"{stem}.layer.{index}"
        qkv = tuple(f"{theirs}.attention.self.{name}" for name in ("query", "key", "value"))
        yield _WeightPart(f"{ours}.attention.qkv", qkv, width, width)
        yield _WeightPart(f"{ours}.attention.output", (f"{theirs}.attention.output.dense",), width, width)
        yield _WeightPart(f"{ours}.attention_norm", (f"{theirs}.attention.output.LayerNorm",), width)
        yield _WeightPart(f"{ours}.expand", (f"{theirs}.intermediate.dense",), inner, width)
        yield _WeightPart(f"{ours}.contract", (f"{theirs}.output.dense",), width, inner)
        yield _WeightPart(f"{ours}.feed_forward_norm", (f"{theirs}.output.LayerNorm",), width)
    if settings.layer_norm == "pre":
        for index in range(settings.num_layers + 1):
            yield _WeightPart(f"encoder.output_norms.{index}", (f"{stem}.LayerNorm.{index}",), width)
    if with_head:
        yield _WeightPart("head.dense", (f"{_HEAD}.dense",), width, width)
        yield _WeightPart("head.norm", (f"{_HEAD}.LayerNorm",), width)
        yield _WeightPart(
            "head.output", (f"{_HEAD}.output",), FRONT_ENDS[settings.features.restored].width * rate, width
        )


def _config(source: _Source, weights: Mapping[str, Tensor], settings: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The settings of the file as a tree of `MockingjayConfig`."""
    missing = [theirs for theirs in _SIZES.values() if source.model.get(theirs) is None]
    if missing:
        raise IntegrityError(f"The settings of the checkpoint lack {named(missing)}", file=path)
    if source.model.get("prune_headids"):
        what = f"Attention heads were pruned ({source.model['prune_headids']}), which repbench's Mockingjay cannot be"
        raise IntegrityError(what, file=path, key="prune_headids", do="Give a checkpoint with all its heads")
    config: dict[str, Any] = {
        ours: source.model[theirs]
        for ours, theirs in (_SIZES | _OPTIONS).items()
        if source.model.get(theirs) is not None
    }
    config["layer_norm"] = "pre" if source.model.get("pre_layer_norm") else "post"
    with naming_file(path):
        config["features"] = _features(source, weights, merged(config, settings), settings, path)
    config["masking"] = _masking(source, config["features"])
    loss = source.task.get("loss")
    if loss in _LOSSES:
        config["loss"] = _LOSSES[loss]
    return config


def _masking(source: _Source, features: Mapping[str, Any]) -> dict[str, Any]:
    task = source.task
    masking = {ours: task[theirs] for ours, theirs in _MASKING.items() if task.get(theirs) is not None}
    shortest, longest = task.get("mask_consecutive_min"), task.get("mask_consecutive_max")
    if longest is not None:
        masking["consecutive"] = longest
        masking["consecutive_min"] = None if shortest == longest else shortest
    if masking.get("overlap") is False and task.get("mask_bucket_ratio", _BUCKET_RATIO) != _BUCKET_RATIO:
        source.notes.append(f"spans that do not overlap are drawn with a bucket ratio of {_BUCKET_RATIO} here")
    if masking.get("frequency") and features.get("target"):
        source.notes.append("bands are not hidden here where the target is not the input: masking.frequency is 0")
        masking["frequency"] = 0.0
    return masking


# The features of its training.


def _features(
    source: _Source,
    weights: Mapping[str, Tensor],
    config: Mapping[str, Any],
    settings: Mapping[str, Any],
    path: Path,
) -> dict[str, Any]:
    """Input, target and level, unless the caller sets them."""
    above = settings.get("features")
    given = above if isinstance(above, Mapping) else {}
    if source.audio is not None:
        return _features_by_audio(source.audio, given)
    rate = whole(config.get("downsample_rate")) or 1
    found = given.get("input") or _input_by_width(
        _frame_width(weights, f"{source.section}.input_representations.spec_transform.weight", 1, rate, path),
        source.paths["data_path"],
    )
    features = {"input": found}
    output = f"{_HEAD}.output.weight"
    if "target" not in given and output in weights and found in FRONT_ENDS:
        width = _frame_width(weights, output, 0, rate, path)
        if width != FRONT_ENDS[found].width:
            features["target"] = _named_by_width(width, source.paths["target_path"], "features.target")
    return features


def _frame_width(weights: Mapping[str, Tensor], key: str, axis: int, rate: int, path: Path) -> int:
    """The width D of a frame, from a side of `rate` * D of a matrix; `axis` is the side."""
    if key not in weights or weights[key].ndim != 2:
        raise IntegrityError(f"The checkpoint holds no matrix `{key}`", file=path, key=key)
    width = weights[key].shape[axis]
    if width % rate:
        what = f"`{key}` has a side of {width}, which is not a multiple of the downsample rate, {rate}"
        raise IntegrityError(what, file=path, key=key)
    return width // rate


def _input_by_width(width: int, data_path: str) -> str:
    if width == 40:
        raise UsageError(
            "The checkpoint was trained on features of 40 dimensions (fMLLR, which Kaldi makes with its own speaker "
            "models), and repbench has no such front end",
            key="features.input",
            do="Use a checkpoint that was trained on mel or linear features",
        )
    return _named_by_width(width, data_path, "features.input")


def _named_by_width(width: int, folder: str, key: str) -> str:
    """The front end of that width; the folder decides between the two of width 160."""
    if width == 160:
        return "fbank160" if "fbank" in folder else "mel160"
    if width not in _WIDTHS:
        raise _unknown_features([f"{width} dimensions a frame"], key)
    return _WIDTHS[width]


def _features_by_audio(audio: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Input, target and level of features that S3PRL computes on the fly."""
    if "kaldi" in audio:
        return {} if given.get("input") else {"input": _by_kaldi(audio)}
    level = audio.get("target_level")
    features: dict[str, Any] = {} if level is None else {"level_db": level}
    if given.get("input"):
        return features
    others = _others({**_ONLINE, **audio}, _ONLINE, "audio")
    names = {}
    for side in ("input", "target"):
        wanted = audio.get(side)
        if isinstance(wanted, Mapping):
            names[side] = _ONLINE_NAMES.get(str(wanted.get("feat_type")))
            found = {"delta": 0, "log": False, "cmvn": False, **wanted}
            others += _others(found, _ONLINE_FEATURE, f"audio.{side}")
            if names[side] is None:
                others.append(f"audio.{side}.feat_type is {wanted.get('feat_type')!r}")
    if "input" not in names:
        others.append(f"audio has neither kaldi nor input, but {named(audio)}")
    if others:
        raise _unknown_features(others, "features.input")
    features["input"] = names["input"]
    if names.get("target", names["input"]) != names["input"]:
        features["target"] = names["target"]
    return features


def _by_kaldi(audio: Mapping[str, Any]) -> str:
    kaldi = audio["kaldi"] if isinstance(audio["kaldi"], Mapping) else {}
    kind = str(kaldi.get("feat_type"))
    known = _KALDI.get(kind)
    if known is None:
        raise _unknown_features([f"audio.kaldi.feat_type is {kind!r}"], "features.input")
    options = {**known.defaults, **_mapping(kaldi.get(kind))}
    others = _others(options, {key: known.options.get(key) for key in options}, f"audio.kaldi.{kind}")
    slopes = {"order": 0, "win_length": 5, **_mapping(audio.get("delta"))}
    window = slopes["win_length"] if known.delta == 0 else 5  # without slopes it has no effect
    others += _others(slopes, {"order": known.delta, "win_length": window}, "audio.delta")
    normalised = bool(_mapping(audio.get("cmvn")).get("use_cmvn"))
    name = known.normalised if normalised else known.plain
    if name is None:
        others.append("audio.cmvn.use_cmvn is False")
    if others or name is None:
        raise _unknown_features(others, "features.input")
    return name


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _others(found: Mapping[str, Any], wanted: Mapping[str, Any], at: str) -> list[str]:
    """The differences of `found` from `wanted`, in words."""
    return [f"{at}.{key} is {found.get(key)!r}" for key, value in wanted.items() if found.get(key) != value]


def _unknown_features(others: list[str], key: str) -> UsageError:
    return UsageError(
        f"The checkpoint was trained on features that no front end is known to give: {'; '.join(others)}",
        key=key,
        do=f"Set `{key}` if one of these gives them: {', '.join(FRONT_ENDS)}",
    )
