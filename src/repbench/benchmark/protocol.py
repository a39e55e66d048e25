"""The protocol that is held fixed when upstreams are compared: every setting of a run, its unit and its default."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypeVar

from pydantic import Field, field_serializer, field_validator, model_validator

from repbench.configs.loader import apply_overrides, build, load_preset, load_yaml, merged
from repbench.configs.settings import NonNegative, NonNegativeInt, Positive, PositiveInt, Settings

BY_SPEAKER = "speaker"
"""The default of `split.folds_by`."""

ALL_WEIGHTS = "all"
"""The default of `finetune.trainable`."""


class ProbeSettings(Settings):
    """Training of the probe on frozen features: the same for every upstream, the untrained one included."""

    steps: PositiveInt = 1000
    """Optimizer steps, whatever the size of the training split."""
    batch_frames: PositiveInt = 2048
    """Frames of one step of a frame task."""
    batch_utterances: PositiveInt = 16
    """Utterances of one step of an utterance or sequence task."""
    frames_per_utterance: PositiveInt | None = Field(default=None, exclude_if=lambda most: most is None)
    """Frames of each utterance that a step of an utterance task draws, one of each of as many equal parts; null: all.
    For heads that take the mean over frames. Scores are always of all frames."""
    shots: PositiveInt | None = Field(default=None, exclude_if=lambda shots: shots is None)
    """Labelled training utterances of each class, drawn by the seed of the probe, and at most as many of dev; null:
    all. For tasks of one answer an utterance."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    """AdamW decays weights apart from the gradient, Adam as part of it; without decay they are the same."""
    learning_rate: Positive = 1e-3
    """Constant learning rate."""
    tune: bool = False
    """Whether the learning rate is chosen on dev among `learning_rates`, with the same steps for each."""
    learning_rates: tuple[Positive, ...] = Field(default=(1e-4, 3.16e-4, 1e-3, 3.16e-3, 1e-2), min_length=2)
    """Learning rates to choose from, the same for every upstream."""
    weight_decay: NonNegative = 0.0
    """Weight decay of the optimizer."""
    clip_norm: Positive | None = None
    """Largest norm of a probe's gradient; null: no clipping."""
    hidden_units: PositiveInt = 256
    """Width of the hidden layers of `mlp1`, `mlp2`, `statistics_mean`, `conv` and `blstm_ctc`, of each direction of
    `blstm`, and of what `project_mean` and `project_ctc` project to; `gru` and `xvector` have their own."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the hidden units of `mlp1`, `mlp2`, `statistics_mean`, `conv`, `blstm` and `blstm_ctc` that is dropped
    in training; `gru` has its own."""
    standardise: bool = True
    """Whether inputs are standardised with the statistics of train."""
    layer_norm: bool = False
    """Whether each frame of each layer is normalised to mean 0 and variance 1 over its dimensions, after it is
    standardised and before the layers are mixed."""
    mix: Literal["softmax", "raw"] = "softmax"
    """Weights of the layer `weighted`: a softmax, which adds up to 1, or unconstrained weights that start at 1/12."""
    selection_points: PositiveInt = 10
    """Points, evenly spread over the steps, at which dev is scored; the best one is kept."""
    neighbours: PositiveInt = 10
    """Nearest training utterances that vote in `knn`."""
    temperature: Positive = 0.07
    """Divides the cosine of a neighbour of `knn` in the exponent of its weight."""
    inverse_penalty: Positive = 1.0
    """C of `logistic`: weight of the sum of the cross-entropies against half of the squared norm of the weights."""
    spec_augment: bool = False
    """Whether spans of time and of dimensions are masked in training (SpecAugment); not for tasks of single frames."""
    spec_augment_time_masks: NonNegativeInt = 2
    """Masks of time in each utterance of a batch."""
    spec_augment_time_seconds: Positive = 0.4
    """Longest mask of time, in seconds; its length is drawn from 0 on."""
    spec_augment_feature_masks: NonNegativeInt = 2
    """Masks of dimensions in each utterance of a batch."""
    spec_augment_feature_share: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Largest mask of dimensions, as a share of them; its size is drawn from 0 on."""


class TrainableRule(NamedTuple):
    """A rule of `finetune.trainable`: its kind (all, last, norms, lora), and K or R where it has one."""

    kind: str
    number: int | None


class FinetuneSettings(Settings):
    """Fine-tuning of a whole network: the same for every upstream, the untrained one included."""

    steps: PositiveInt = 300
    """Optimizer steps at most, whatever the size of the training split."""
    batch_seconds: Positive = 20.0
    """Seconds of sound of one step, padding included; a longer utterance is a batch by itself."""
    learning_rate: Positive = 5e-4
    """Learning rate of the upstream, at the end of the warm-up."""
    head_learning_rate: Positive = 1e-3
    """Learning rate of the head and the mix of the layers, at the end of the warm-up."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the steps in which both rates rise linearly; they fall linearly to 0 in the others."""
    weight_decay: NonNegative = 0.0
    """Decoupled weight decay of AdamW, of upstream and head."""
    clip_norm: Positive = 1.0
    """Largest norm of the gradient."""
    selection_points: PositiveInt = 6
    """Points, evenly spread over the steps, at which dev is scored and a checkpoint is saved; the best one is kept."""
    patience: PositiveInt = 3
    """Points in a row without a better one after which the training ends; those at which weights that are trained later
    are still frozen do not count."""
    statistics_utterances: PositiveInt = 256
    """Training utterances at most, spread over all, whose initial features standardise the input of the head."""
    # All below are left out at their defaults, so that records and unfinished trainings from before stay as they were.
    trainable: str = Field(default=ALL_WEIGHTS, exclude_if=lambda rule: rule == ALL_WEIGHTS)
    """Weights of the upstream that are trained: `all`; `last:K`, its last K layers; `norms`, weights and biases of its
    normalisations; or `lora:R`, an update of rank R for each of its matrices, whose own weights stay."""
    lora_alpha: Positive | None = Field(default=None, exclude_if=lambda alpha: alpha is None)
    """The update of `lora:R` is this over R times the product of its two matrices; null: R, so once the product."""
    freeze_steps: NonNegativeInt = Field(default=0, exclude_if=lambda steps: steps == 0)
    """Steps at the start in which the head alone is trained."""
    unfreeze_every: PositiveInt | None = Field(default=None, exclude_if=lambda steps: steps is None)
    """Steps after which one more layer is trained, from the last one down, after `freeze_steps`; null: all at once."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(default=1.0, exclude_if=lambda decay: decay == 1)
    """Factor on the learning rate for each layer that is above: 1 of the last layer, d of the one before, d^2, …"""

    @property
    def rule(self) -> TrainableRule:
        """`trainable`, parsed."""
        kind, _, number = self.trainable.partition(":")
        return TrainableRule(kind, int(number) if number else None)

    @property
    def needs_layers(self) -> bool:
        """Whether the upstream has to declare its layers."""
        return self.rule.kind == "last" or self.unfreeze_every is not None or self.layer_decay != 1

    @field_validator("trainable")
    @classmethod
    def _known_rule(cls, trainable: str) -> str:
        if not re.fullmatch(r"all|norms|(last|lora):[1-9][0-9]{0,5}", trainable):
            raise ValueError(f"it must be all, last:K, norms or lora:R with a K or R from 1 on, but is {trainable!r}")
        return trainable

    @model_validator(mode="after")
    def _rule_goes_together(self) -> Self:
        if self.lora_alpha is not None and self.rule.kind != "lora":
            raise ValueError(f"`lora_alpha` has no effect with `trainable: {self.trainable}`")
        if self.freeze_steps and self.freeze_steps >= self.steps:
            raise ValueError(
                f"`freeze_steps` ({self.freeze_steps}) must be below `steps` ({self.steps}): the upstream would never "
                "be trained"
            )
        return self


class SplitSettings(Settings):
    """Division of a corpus whose official splits do not serve the task."""

    official: Literal["fitting", "always"] = "fitting"
    """Whether official splits are used only where they separate speakers as the task needs, or always (CPC's lists)."""
    seed: NonNegativeInt = 0
    """Seed of the division; not the seed of the probe."""
    dev_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """Share of the utterances, speakers or groups that selects."""
    test_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """Share that is scored, once."""
    # Both are left out at their defaults, so that records and references without folds stay as they were.
    folds: Annotated[int, Field(ge=2, strict=True)] | Literal["official"] | None = Field(
        default=None, exclude_if=lambda folds: folds is None
    )
    """Number of folds, each of which is test once, or `official` for those of the corpus (attribute `fold`); null: one
    division."""
    folds_by: Annotated[str, Field(min_length=1)] = Field(default=BY_SPEAKER, exclude_if=lambda by: by == BY_SPEAKER)
    """What folds, and dev in them, keep together: speaker, group, session, or the name of an attribute. Without several
    speakers, `speaker` stands for group, or for utterance where there are no groups."""


class ExtractionSettings(Settings):
    """Computation and storage of features."""

    batch_seconds: Positive = 30.0
    """Seconds of sound in one batch of the upstream, padding included."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Type that features are rounded to before a probe reads them, whether they are stored or not."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the upstream's matrix products: bfloat16 is coarser, and faster where the processor supports it."""
    window_seconds: Positive | None = None
    """Longest sound that goes through the upstream at once; a longer one is read in windows of this duration. null:
    windows only for sounds that are longer than the upstream takes, of its longest input."""
    context_seconds: NonNegative = 2.0
    """Sound on each side of the kept frames of a window; frames that depend on sound farther away are approximate."""
    store_gib: NonNegative = 20.0
    """GiB that the feature store takes on disk at most; 0 stores nothing."""


class ResourceSettings(Settings):
    """Memory and disk that a run may use. They change where features are kept, and no number; no record has them."""

    memory_gib: Positive | None = None
    """GiB of memory of the process; null: 80 % of what the machine, or its control group, has free."""
    disk_gib: NonNegative | None = None
    """GiB of new features and temporary files on the disk of the cache; null: half of what is free."""
    road: Literal["auto", "memory", "store", "recompute"] = "auto"
    """Where features are: all in memory; in the feature store, read again for each window of training steps; computed
    again for each window; or the first of the three that memory and disk allow."""


class TaskSettings(Settings):
    """Settings for one task, or for all tasks of a problem, in place of those for all tasks."""

    head: str | None = None
    """Name of the head; null: as for all tasks."""
    layer: str | None = None
    """Layer that the probe reads; null: as for all tasks."""
    probe: ProbeSettings = ProbeSettings()
    """Settings of the probe that differ; the others are as for all tasks."""
    split: SplitSettings = Field(default=SplitSettings(), exclude_if=lambda split: not split.model_fields_set)
    """Settings of the division that differ, such as folds for one task."""
    # left out where it is empty, so that what was written down before stays as it was
    task: dict[str, Any] = Field(default_factory=dict, exclude_if=lambda options: not options)
    """Options of the downstream that differ, by keyword; of a task, not of a problem."""

    @field_serializer("probe", "split")
    def _written_down(self, settings: Settings) -> dict[str, Any]:
        return settings.model_dump(mode="json", exclude_unset=True)


class Protocol(Settings):
    """Every setting of a run.

    `head`, `layer` and `tasks` hold where the command line gives none; a record has the head and the layer in separate
    fields.
    """

    command_options: ClassVar[Mapping[str, str]] = {
        "seed": "--seed",
        "seeds": "--seed",
        "layers": "--layer",
        "label_fraction": "--label-fraction",
        "label_fractions": "--label-fraction",
        "upstream": "--upstream",
        "downstream": "--downstream",
        "checkpoint": "--checkpoint",
        "corpus": "--corpus",
        "device": "--device",
        "controls": "--controls",
        "tune": "--tune",
        "allow_excluded": "--allow-excluded",
        "out": "--out",
    }
    head: str | None = None
    """Name of the head; null: the task's default."""
    layer: str = "last"
    """Layer that the probe reads: last, first, mean, weighted, a number or name, or all."""
    tasks: dict[str, TaskSettings] = Field(default_factory=dict)
    """Settings for a task, or for a problem: `frame-classification`, `utterance-classification`, `multi-attribute`,
    `utterance-regression`, `sequence`, `text`, `frame-multilabel`."""
    probe: ProbeSettings = ProbeSettings()
    """The probe."""
    finetune: FinetuneSettings = FinetuneSettings()
    """Fine-tuning of a whole network, with --finetune; its head has the sizes of the probe's."""
    split: SplitSettings = SplitSettings()
    """The division of the corpus."""
    extraction: ExtractionSettings = ExtractionSettings()
    """The features."""
    resources: ResourceSettings = ResourceSettings()
    """Memory and disk."""
    labels: Literal["given", "shuffled"] = "given"
    """Whether train and dev keep their labels, or have them shuffled: a control from which nothing can be learned."""
    task: dict[str, Any] = Field(default_factory=dict)
    """Options of the downstream, by keyword (`task.attribute` of `sentiment`)."""

    # Not of `SplitSettings`: those of a task in `tasks` are a part of the whole.
    @model_validator(mode="after")
    def _folds_go_together(self) -> Self:
        if self.split.folds is None and self.split.folds_by != BY_SPEAKER:
            raise ValueError("`split.folds_by` has no effect without `split.folds`")
        if self.split.folds is not None and self.split.official == "always":
            raise ValueError("`split.official: always` has no effect with `split.folds`: leave one of the two out")
        return self

    def options_for(self, name: str) -> dict[str, Any]:
        """The options of the downstream `name`: those for it override those for every task, each as a whole."""
        own = self.tasks.get(name)
        return {**self.task, **(own.task if own is not None else {})}

    def for_task(self, name: str, problem: str) -> Protocol:
        """The protocol of one task: settings for the task override those for its problem, which override the others."""
        head, layer, probe, split = self.head, self.layer, self.probe, self.split
        # The later one overrides. `model_fields_set` has only the keys that were given, so defaults of a group override
        # nothing.
        for own in (self.tasks.get(problem), self.tasks.get(name)):
            if own is not None:
                head, layer = own.head or head, own.layer or layer
                probe, split = _changed(probe, own.probe), _changed(split, own.split)
        own_settings = {"head": head, "layer": layer, "probe": probe, "split": split, "task": self.options_for(name)}
        return self.model_copy(update={**own_settings, "tasks": {}})


Group = TypeVar("Group", bound=Settings)


def _changed(settings: Group, own: Group) -> Group:
    """The settings with those that are set in another group of the kind."""
    return settings.model_copy(update={name: getattr(own, name) for name in own.model_fields_set})


NOT_OF_A_MODE = {
    "frozen": frozenset(f"finetune.{name}" for name in FinetuneSettings.model_fields),
    "finetune": frozenset(f"probe.{name}" for name in ProbeSettings.model_fields)
    - {
        "probe.tune",
        "probe.shots",
        "probe.hidden_units",
        "probe.dropout",
        "probe.standardise",
        "probe.layer_norm",
        "probe.mix",
    },
}
"""The settings that a mode does not read: how a network is fine-tuned, and how a probe is trained, whose sizes are also
those of a fine-tuned head."""

_FIT_SETTINGS = {
    "probe.neighbours": {"knn"},
    "probe.temperature": {"knn"},
    "probe.inverse_penalty": {"logistic"},
}
"""From the settings of heads that are fitted to the built-in heads that read them."""

HEAD_SETTINGS = ("probe.hidden_units", "probe.dropout", *_FIT_SETTINGS)
"""The settings that some heads read and others do not."""

_FITTED = {"knn", "nearest", "logistic"}
_NO_HIDDEN_UNITS = {"linear", "concat9", "gru", "ctc", "attentive_mean", "xvector", *_FITTED}
_NO_DROPOUT = {*_NO_HIDDEN_UNITS, "project_mean", "project_ctc"}
_TRAINED_ON_THE_SAME = {"probe.tune", "probe.shots", "probe.standardise", "probe.layer_norm", *_FIT_SETTINGS}
_OF_TRAINING = {f"probe.{name}" for name in ProbeSettings.model_fields} - _TRAINED_ON_THE_SAME
"""The settings of steps, which a head that is fitted does not take."""

_BUILTIN_HEADS = {*_NO_DROPOUT, "mlp1", "mlp2", "statistics_mean", "conv", "blstm", "blstm_ctc"}


def unread_settings(mode: str, head: str, *, tuned: bool) -> frozenset[str]:
    """The settings, by dotted key, that a run does not read.

    Args:
        mode: frozen or finetune.
        head: Its head; one of a plugin may read every setting of heads.
        tuned: Whether the step size was chosen among several.
    """
    return NOT_OF_A_MODE[mode].union(
        ["probe.hidden_units"] * (head in _NO_HIDDEN_UNITS),
        ["probe.dropout"] * (head in _NO_DROPOUT),
        ["probe.learning_rates"] * (not tuned),
        _OF_TRAINING if head in _FITTED else (),
        (name for name, heads in _FIT_SETTINGS.items() if head in _BUILTIN_HEADS - heads),
    )


def load_protocol(preset: str = "default", config: Path | None = None, assignments: Sequence[str] = ()) -> Protocol:
    """The protocol of a preset, changed by a file, changed by single settings.

    A file or a setting for all tasks (`probe.steps`) overrides a preset's setting for one task.

    Raises:
        UsageError: Names every key that is unknown or has an impossible value.
    """
    tree = load_preset(preset)
    if config is not None:
        above = load_yaml(config)
        tree = merged(_yielding(tree, above), above)
    tree = _yielding(tree, apply_overrides({}, assignments))
    source = config if config is not None else f"the preset `{preset}`" if not assignments else "--set"
    return build(Protocol, apply_overrides(tree, assignments), source)


def _yielding(tree: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The tree without settings for single tasks that `above` sets for all tasks."""
    tasks = tree.get("tasks")
    if not isinstance(tasks, Mapping):
        return tree
    return {**tree, "tasks": {name: _without_options(_without(own, above), above) for name, own in tasks.items()}}


def _without_options(own: Any, above: Mapping[str, Any]) -> Any:
    """The settings of a task without the options that `above` sets: an option is a whole, even if it is a mapping."""
    options, set_above = (each.get("task") if isinstance(each, Mapping) else None for each in (own, above))
    if not isinstance(options, Mapping) or not isinstance(set_above, Mapping):
        return own
    return {**own, "task": {name: value for name, value in options.items() if name not in set_above}}


def _without(tree: Any, above: Any) -> Any:
    """The tree without the keys that `above` has a value for."""
    if not isinstance(tree, Mapping) or not isinstance(above, Mapping):
        return tree
    return {
        key: _without(value, above.get(key))
        for key, value in tree.items()
        if key not in above or isinstance(above[key], Mapping)
    }
