"""What is held fixed when upstreams are compared: every setting of a run, with its unit and its default."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from repbench.configs.loader import apply_overrides, build, load_preset, load_yaml, merged
from repbench.configs.settings import NonNegative, NonNegativeInt, Positive, PositiveInt, Settings


class ProbeSettings(Settings):
    """How the probe on frozen features is trained: the same for every upstream, the untrained one included."""

    steps: PositiveInt = 1000
    """Updates, whatever the size of the training split."""
    batch_frames: PositiveInt = 2048
    """Frames of one update of a frame task."""
    batch_utterances: PositiveInt = 16
    """Utterances of one update of an utterance task."""
    learning_rate: Positive = 1e-3
    """Constant step size of AdamW."""
    tune: bool = False
    """Whether the step size is chosen on dev among `learning_rates`, with the same steps for each."""
    learning_rates: tuple[Positive, ...] = Field(default=(1e-4, 3.16e-4, 1e-3, 3.16e-3, 1e-2), min_length=2)
    """The step sizes that are tried, for every upstream alike."""
    weight_decay: NonNegative = 0.0
    """AdamW's decoupled decay."""
    hidden_units: PositiveInt = 256
    """Width of the hidden layers of `mlp1` and `mlp2`."""
    selection_points: PositiveInt = 10
    """How many times, evenly over the steps, the dev split is scored; the best point is kept."""


class FinetuneSettings(Settings):
    """How a whole network is fine-tuned: the same for every upstream, the untrained one included."""

    steps: PositiveInt = 300
    """Updates at most, whatever the size of the training split."""
    batch_seconds: Positive = 20.0
    """Seconds of sound of one update, padding included; a longer utterance stands alone."""
    learning_rate: Positive = 5e-4
    """Of the upstream, at the end of the warm-up."""
    head_learning_rate: Positive = 1e-3
    """Of the head and the mix of the layers, at the end of the warm-up."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the steps in which both rates rise linearly; they fall linearly to 0 in the others."""
    weight_decay: NonNegative = 0.0
    """AdamW's decoupled decay, of upstream and head."""
    clip_norm: Positive = 1.0
    """Largest norm of the gradient."""
    selection_points: PositiveInt = 6
    """How many times, evenly over the steps, the dev split is scored and the state is saved; the best point is kept."""
    patience: PositiveInt = 3
    """Points in a row without a better one after which the training ends."""
    statistics_utterances: PositiveInt = 256
    """Training utterances at most, spread over all, whose initial features standardise what the head reads."""


class SplitSettings(Settings):
    """How a corpus is divided where its official splits do not serve the task."""

    official: Literal["fitting", "always"] = "fitting"
    """Whether official splits are used only where they part speakers as the task asks, or always (CPC's lists)."""
    seed: NonNegativeInt = 0
    """Seed of the division; not the seed of the probe."""
    dev_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """Share of the utterances, speakers or groups that selects."""
    test_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """Share that is scored, once."""


class ExtractionSettings(Settings):
    """How features are computed."""

    batch_seconds: Positive = 120.0
    """Seconds of sound, padding included, that go through the upstream at once."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """What features are rounded to before a probe sees them, whether they are stored or not."""
    store_gib: NonNegative = 20.0
    """Most GiB that the feature store may take on disk; 0 stores nothing."""


class Protocol(Settings):
    """Every setting of a run."""

    probe: ProbeSettings = ProbeSettings()
    """The probe."""
    finetune: FinetuneSettings = FinetuneSettings()
    """The training of a whole network, where that is asked for; its head has the sizes of the probe's."""
    split: SplitSettings = SplitSettings()
    """The division of the corpus."""
    extraction: ExtractionSettings = ExtractionSettings()
    """The features."""
    labels: Literal["given", "shuffled"] = "given"
    """Whether train and dev keep their labels, or have them dealt anew: a control that can learn nothing."""
    task: dict[str, Any] = Field(default_factory=dict)
    """Options of the downstream, by keyword (`task.attribute` of `sentiment`)."""


def load_protocol(preset: str = "default", config: Path | None = None, assignments: Sequence[str] = ()) -> Protocol:
    """The protocol of a preset, changed by a file, changed by single settings.

    Raises:
        UsageError: Names every key that is unknown or has an impossible value.
    """
    tree = load_preset(preset)
    if config is not None:
        tree = merged(tree, load_yaml(config))
    source = config if config is not None else f"the preset `{preset}`" if not assignments else "--set"
    return build(Protocol, apply_overrides(tree, assignments), source)
