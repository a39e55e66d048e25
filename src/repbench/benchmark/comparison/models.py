"""The models of a comparison: A, B, their untrained twins, and mel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from repbench.benchmark.comparison.request import REFERENCE, CompareRequest
from repbench.benchmark.features.extraction import layer_indices
from repbench.benchmark.features.shards import store_folder
from repbench.benchmark.features.store import GIB, FeatureStore, origin_for
from repbench.benchmark.loading.upstreams import build_upstream, origin_of, say_side_effects, untrained_like
from repbench.benchmark.pipeline.setup import content_of, in_windows_of, module_of
from repbench.benchmark.similarity.document import ComparedUpstream
from repbench.corpora.contract import Corpus
from repbench.errors import UsageError, plugin_faults
from repbench.progress import Reporter
from repbench.registry import Entry, declared_name, registry, short_name
from repbench.upstream.adapters.corpus_features import FrameReader, declared_model_of
from repbench.upstream.checkpoints.untrained import is_untrained
from repbench.upstream.contract import Upstream, provenance_of

Role = Literal["a", "b", "control", "reference"]


@dataclass(frozen=True, slots=True)
class Model:
    """A model whose layers are read.

    Attributes:
        upstream: On the device, in eval mode.
        entry: Where it comes from.
        layers: Indices of the layers.
        part: Its entry in the file.
        store: Of its features; None where they are not kept.
    """

    upstream: Upstream
    entry: Entry
    layers: tuple[int, ...]
    part: ComparedUpstream
    store: FeatureStore | None


@dataclass(frozen=True, slots=True)
class Models:
    """The models of a comparison.

    Attributes:
        each: A first; each model once.
        second: Number of B, which is 0 where B is A.
        reference: Number of mel where layers are compared with it; it may be A or B.
    """

    each: tuple[Model, ...]
    second: int
    reference: int | None

    @property
    def profiled(self) -> list[int]:
        """Numbers of the models that have profiles: all but a mel that was only loaded for them."""
        return [number for number, model in enumerate(self.each) if model.part.role != "reference"]


@dataclass(frozen=True, slots=True)
class Loader:
    """What every model of a comparison is loaded with.

    Attributes:
        request: The arguments.
        device: Of the models.
        corpus: Opens the corpus; called only for a model whose frames are read from it.
        reporter: Receives notes.
    """

    request: CompareRequest
    device: torch.device
    corpus: Callable[[], Corpus]
    reporter: Reporter

    def models(self) -> Models:
        """A, then B unless it is A, the untrained twins where controls are wanted, and mel where it is compared with.

        Raises:
            UsageError: There is no such model, checkpoint or layer.
            PluginError: A model breaks its contract.
        """
        request = self.request
        models = [self._load(request.first, request.first_checkpoint, "a")]
        if not request.is_of_one:
            models.append(self._load(request.second, request.second_checkpoint, "b"))
        if request.controls:
            models += self._twins(models)
        second, reference = (0 if request.is_of_one else 1), None
        if REFERENCE in request.against:
            mel = self._load(REFERENCE, None, "reference")
            same = [number for number, each in enumerate(models) if each.part.fingerprint == mel.part.fingerprint]
            reference = same[0] if same else len(models)
            models += [] if same else [mel]
        return Models(tuple(_with_titles(models)), second, reference)

    def _twins(self, models: Sequence[Model]) -> list[Model]:
        """The untrained network of each model with trained weights, except those that are there already."""
        trained = [each for each in models if each.upstream.info.trainable and not is_untrained(each.part.checkpoint)]
        if not trained:
            self.reporter.say("note: no model has trained weights, so there is no untrained twin")
        known, twins = {each.part.fingerprint for each in models}, []
        for each in trained:
            twin = self._load(each.part.name, untrained_like(each.entry, each.upstream), "control")
            # B may be the twin of A, and two checkpoints of one configuration share theirs.
            if twin.part.fingerprint not in known:
                known.add(twin.part.fingerprint)
                twins.append(twin)
            elif twin.part.fingerprint == each.part.fingerprint:
                self.reporter.say(f"note: `{each.part.name}` has the same weights where it is to be untrained")
        return twins

    def _load(self, name: str, checkpoint: str | None, role: Role) -> Model:
        entry = registry().find("upstream", name).entry
        say_side_effects(entry, self.reporter.say)
        upstream = build_upstream(entry, checkpoint, self.request.seed, corpus=self.corpus)
        provenance = provenance_of(upstream)
        for note in provenance.log or provenance.notes:
            self.reporter.say(f"note: {note}")
        module_of(upstream).requires_grad_(False).to(self.device)
        with plugin_faults(name):
            fingerprint, content = content_of(upstream, entry)
        layers = ("all",) if role == "reference" else self.request.layers
        indices = layers_of(upstream, layers)
        upstream = in_windows_of(self.request.protocol, upstream)
        declared = declared_model_of(upstream)
        title = short_name(name) if declared is None else declared_name(name, declared.name, declared.form)
        part = ComparedUpstream(
            title=f"{title} (untrained)" if is_untrained(checkpoint) else title,
            name=name,
            # As records have it: the checkpoint that was found where none was named.
            checkpoint=provenance.checkpoint if checkpoint is None else checkpoint,
            fingerprint=fingerprint,
            origin=origin_of(entry),
            layers=tuple(upstream.info.layer_names[index] for index in indices),
            width=upstream.info.width,
            role=role,
        )
        return Model(upstream, entry, indices, part, self._store(upstream, name, content))

    def _store(self, upstream: Upstream, name: str, content: str) -> FeatureStore | None:
        settings = self.request.protocol.extraction
        if isinstance(upstream, FrameReader) or not settings.store_gib:
            return None
        origin = origin_for(upstream, content, settings.dtype, settings.precision)
        quota, say = settings.store_gib * GIB, self.reporter.say
        return FeatureStore(store_folder(), upstream, origin, name=name, quota_bytes=quota, say=say)


def layers_of(upstream: Upstream, names: Sequence[str]) -> tuple[int, ...]:
    """The indices of some layers, ascending; `all` are all of them.

    Raises:
        UsageError: There is no such layer, or it is a mix of several.
    """
    mixed = next((name for name in names if name in {"mean", "weighted"}), None)
    if mixed is not None:
        raise UsageError(f"`{mixed}` is no layer but a mix of all", key="--layers", do="Choose all, or single layers")
    every = range(len(upstream.info.layer_names))
    found = {index for name in names for index in (every if name == "all" else layer_indices(upstream.info, name))}
    return tuple(sorted(found))


def _with_titles(models: Sequence[Model]) -> list[Model]:
    """The models; those that share a title get the beginning of their fingerprint in it."""
    titles = [model.part.title for model in models]

    def titled(model: Model) -> Model:
        part = model.part
        if titles.count(part.title) == 1:
            return model
        title = f"{part.title} [{part.role}, {part.fingerprint[:8]}]"
        return replace(model, part=part.model_copy(update={"title": title}))

    return [titled(model) for model in models]
