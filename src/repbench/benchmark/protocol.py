"""What is held fixed when upstreams are compared: every setting of a run, with its unit and its default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from repbench.configs.loader import apply_overrides, build, load_preset, load_yaml

PositiveInt = Annotated[int, Field(ge=1, strict=True)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProbeSettings(_Settings):
    """How the probe on frozen features is trained: the same for every upstream, the untrained one included."""

    steps: PositiveInt = 1000
    """Updates, whatever the size of the training split."""
    batch_frames: PositiveInt = 2048
    """Frames of one update of a frame task."""
    batch_utterances: PositiveInt = 16
    """Utterances of one update of an utterance task."""
    learning_rate: Positive = 1e-3
    """Constant step size of AdamW."""
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """AdamW's decoupled decay."""
    hidden_units: PositiveInt = 256
    """Width of the hidden layers of `mlp1` and `mlp2`."""
    selection_points: PositiveInt = 10
    """How many times, evenly over the steps, the dev split is scored; the best point is kept."""


class SplitSettings(_Settings):
    """How a corpus is divided where its official splits do not serve the task."""

    official: Literal["fitting", "always"] = "fitting"
    """Whether official splits are used only where they part speakers as the task asks, or always (CPC's lists)."""
    seed: Annotated[int, Field(ge=0, strict=True)] = 0
    """Seed of the division; not the seed of the probe."""
    dev_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """Share of the utterances, speakers or groups that selects."""
    test_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """Share that is scored, once."""


class ExtractionSettings(_Settings):
    """How features are computed."""

    batch_seconds: Positive = 120.0
    """Seconds of sound, padding included, that go through the upstream at once."""


class Protocol(_Settings):
    """Every setting of a run."""

    probe: ProbeSettings = ProbeSettings()
    """The probe."""
    split: SplitSettings = SplitSettings()
    """The division of the corpus."""
    extraction: ExtractionSettings = ExtractionSettings()
    """The features."""
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


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with what `above` says instead, mapping by mapping."""
    both = dict(below)
    for key, value in above.items():
        lower = both.get(key)
        both[key] = merged(lower, value) if isinstance(lower, Mapping) and isinstance(value, Mapping) else value
    return both
