"""The arguments of `repbench compare`, and what of them is refused before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repbench.benchmark.protocol import Protocol
from repbench.benchmark.similarity.document import MEASURES
from repbench.errors import UsageError, did_you_mean

PAIR_MEASURES = tuple(name for name, info in MEASURES.items() if info.of_pairs)
"""The values of `--measure`."""

REFERENCE = "mel"
AGAINST = (REFERENCE, "phones", "words")
"""The values of `--against`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareRequest:
    """The arguments of `repbench compare`.

    Attributes:
        first: Name of model A.
        second: Name of model B, which may be A.
        first_checkpoint: Weights of A, as `repbench run` takes them.
        second_checkpoint: Weights of B.
        corpus: A registered name with options, or the folder of a manifest.
        layers: Of each model: all, or first, last, a number or a name.
        measures: Of `PAIR_MEASURES`.
        against: Of `AGAINST`.
        most_frames: Most sampled instants.
        num_clusters: Clusters of k-means, for mutual information with phones.
        controls: Whether shuffled labels and untrained twins are added to the profiles.
        protocol: Of which `extraction` is read.
        seed: Of the sample, parts, clusters, shuffled labels and untrained weights.
        device: auto, cpu, cuda, cuda:N.
        out: Folder to write into; None: one below `runs/similarity`.
    """

    first: str
    second: str
    first_checkpoint: str | None = None
    second_checkpoint: str | None = None
    corpus: str = "synthetic"
    layers: tuple[str, ...] = ("all",)
    measures: tuple[str, ...] = ("cka", "pwcca")
    against: tuple[str, ...] = ()
    most_frames: int = 20000
    num_clusters: int = 100
    controls: bool = False
    protocol: Protocol = field(default_factory=Protocol)
    seed: int = 0
    device: str = "auto"
    out: Path | None = None

    @property
    def is_of_one(self) -> bool:
        """Whether A and B are the same model."""
        return (self.second, self.second_checkpoint) == (self.first, self.first_checkpoint)

    @property
    def needs_parts(self) -> bool:
        """Whether a measure is fitted, and needs train, dev and test."""
        return any(measure != "cka" for measure in self.measures)

    def refuse_unknown(self) -> None:
        """Refuse names that do not exist, and options without an effect.

        Raises:
            UsageError: There is one.
        """
        for given, known, key in (
            (self.measures, PAIR_MEASURES, "--measure"),
            (self.against, AGAINST, "--against"),
        ):
            for name in given:
                if name not in known:
                    do = f"{did_you_mean(name, known)}Choose of {', '.join(known)}"
                    raise UsageError(f"There is no `{name}`", key=key, do=do)
        if not self.measures:
            raise UsageError("There is no measure", key="--measure", do=f"Choose of {', '.join(PAIR_MEASURES)}")
        if self.controls and not self.against:
            raise UsageError(
                "Controls are of the profiles of layers, and there are none",
                key="--controls",
                do="Give --against phones, words or mel; or make B the twin of A by --checkpoint-b random",
            )

    def settings(self) -> dict[str, Any]:
        """The settings that a number depends on, or that state how it was computed."""
        extraction = self.protocol.extraction.model_dump(mode="json")
        return {
            "layers": list(self.layers),
            "measures": list(self.measures),
            "against": list(self.against),
            "frames": self.most_frames,
            "clusters": self.num_clusters,
            "controls": self.controls,
            "seed": self.seed,
            "extraction": {
                name: extraction[name] for name in ("dtype", "precision", "window_seconds", "context_seconds")
            },
        }
