"""Building of upstreams from names, checked against their contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from repbench.benchmark.loading.tasks import called, does_not_take, refuse_info
from repbench.configs.loader import merged
from repbench.configs.requests import argument
from repbench.corpora.contract import Corpus
from repbench.errors import PluginError, UsageError, plugin_faults
from repbench.registry import Entry, is_packaged, registry, side_effects
from repbench.upstream.adapters.corpus_features import BoundToCorpus
from repbench.upstream.adapters.python_module import factory_of
from repbench.upstream.checkpoints.factory import NetworkFactory
from repbench.upstream.checkpoints.untrained import RANDOM
from repbench.upstream.contract import Upstream, UpstreamInfo, check_call, provenance_of
from repbench.upstream.training_data import refuse_training_data


def load_upstream(
    name: str, *, checkpoint: str | Path | None = None, preset: str | None = None, seed: int = 0, **settings: Any
) -> Any:
    """The upstream called `name`: an `nn.Module` in eval mode on the CPU.

    Args:
        name: Of the upstream.
        checkpoint: A path, `random` for an untrained network, or None for the newest of `repbench pretrain`.
        preset: One of the upstream's; its settings override those of the checkpoint.
        seed: Of untrained weights.
        **settings: Of the configuration; they override those of checkpoint and preset.

    Returns:
        An `Upstream`. Those with weights of repbench's own, `mockingjay` and `apc`, also have `hidden_states` and
        `prediction` on spectrograms.

    Raises:
        UsageError: There is no such upstream, preset or setting, an argument is of another type, or the upstream reads
            its frames from a corpus.
        PluginError: The upstream cannot be loaded, or breaks its contract.

    Example:
        >>> model = load_upstream("apc", checkpoint="random", hidden_size=64)
        >>> model.info.width
        64
    """
    name = argument("name", name, str)
    place = None if checkpoint is None else argument("checkpoint", checkpoint, str)
    if not 0 <= argument("seed", seed, int) < 2**63:
        raise UsageError(f"A seed must be from 0 to 2^63 - 1, but is {seed}", key="seed")
    entry = registry().find("upstream", name).entry
    tree: dict[str, Any] = {}
    if preset is not None:
        presets = presets_of(entry)
        if preset not in presets:
            listed = ", ".join(sorted(presets)) or "none"
            raise UsageError(f"`{name}` has no preset `{preset}`", key="preset", do=f"There are: {listed}")
        tree = {key: value for key, value in presets[preset].items() if key != "training"}
    return build_upstream(entry, place, seed, settings=merged(tree, settings))


def presets_of(entry: Entry) -> Mapping[str, Mapping[str, Any]]:
    """The presets of an upstream's factory, from name to settings.

    Raises:
        PluginError: The factory cannot be loaded, or its `presets` are no mapping.
    """
    factory = _factory(entry)
    with plugin_faults(entry.qualified):
        presets = getattr(factory, "presets", {})
    if not isinstance(presets, Mapping):
        what = "`presets` of the factory must be a mapping from name to settings"
        raise PluginError(what, key=entry.qualified, do="See UpstreamFactory in repbench.upstream.contract")
    return presets


def build_upstream(
    entry: Entry,
    checkpoint: str | None,
    seed: int,
    *,
    settings: Mapping[str, Any] | None = None,
    corpus: Callable[[], Corpus] | None = None,
) -> Upstream:
    """Call an upstream's factory, and check the result against the contract.

    Args:
        entry: Of the upstream.
        checkpoint: As in `UpstreamFactory`.
        seed: As in `UpstreamFactory`.
        settings: Of its configuration.
        corpus: Opens the corpus; called only for an upstream that is bound to one. None: there is no corpus.

    Raises:
        UsageError: The factory refuses the checkpoint or a setting.
        PluginError: The factory fails, or its result is no upstream.
    """
    factory, settings = _factory(entry), settings or {}
    # Without the settings first: lacking `checkpoint` or `seed` is a fault of the plugin, a refused setting one of the
    # user.
    unknown = does_not_take(factory, {"checkpoint": checkpoint, "seed": seed})
    if unknown is not None:
        raise PluginError(
            f"The factory of an upstream must take the keywords checkpoint and seed: {unknown}",
            key=entry.qualified,
            do="See UpstreamFactory in repbench.upstream.contract",
        )
    option = next((name for name in ("checkpoint", "seed") if name in settings), None)
    if option is not None:
        raise UsageError(f"`{option}` is an option, and no setting of a model", key=option, do=f"Give it as --{option}")
    unknown = does_not_take(factory, {"checkpoint": checkpoint, "seed": seed, **settings})
    if unknown is not None:
        raise UsageError(f"`{entry.name}` does not take its settings: {unknown}", key=", ".join(settings))
    with plugin_faults(entry.qualified):
        upstream = factory(checkpoint=checkpoint, seed=seed, **settings)
    if isinstance(upstream, BoundToCorpus):
        if corpus is None:
            what = f"`{entry.name}` reads its frames from a corpus, and there is no corpus here"
            raise UsageError(what, key="--upstream", do="Give it to `repbench run` with --corpus")
        upstream = upstream.bound_to(corpus())
    with plugin_faults(entry.qualified):
        return _held_to_upstream(upstream, entry)


def _held_to_upstream(upstream: object, entry: Entry) -> Upstream:
    """The upstream in eval mode, with the check of its inputs."""
    if not isinstance(upstream, Upstream) or not isinstance(upstream, nn.Module):
        raise PluginError(
            "This is not an upstream: an nn.Module with info, num_frames and fingerprint",
            key=entry.qualified,
            do="See repbench.upstream.contract",
        )
    refuse_info(upstream.info, UpstreamInfo, entry)
    refuse_training_data(provenance_of(upstream).trained_on, entry.qualified)
    # A factory may return the same module twice.
    if check_call not in upstream._forward_pre_hooks.values():
        upstream.register_forward_pre_hook(check_call, with_kwargs=True)
    upstream.eval()
    return upstream


def untrained_like(entry: Entry, upstream: Upstream) -> str:
    """The `checkpoint` by which a factory builds the same network untrained."""
    checkpoint = provenance_of(upstream).checkpoint
    if isinstance(_factory(entry), NetworkFactory) and checkpoint is not None:
        return f"{RANDOM}:{checkpoint}"
    return RANDOM


def origin_of(entry: Entry) -> dict[str, str | None]:
    """Origin of a loaded plugin: distribution, version, and SHA-256 of its file."""
    return {"distribution": entry.distribution, "version": entry.version, "file_sha256": entry.file_sha256()}


def code_of(entry: Entry) -> str | None:
    """SHA-256 of the file of a loaded plugin that is in no package; None for a plugin of a package.

    A package raises its `code_version`, which is part of a fingerprint, when its numbers change. A file that is edited
    between two runs has no such number.
    """
    return None if is_packaged(entry.distribution) else entry.file_sha256()


def say_side_effects(entry: Entry, say: Callable[[str], None]) -> None:
    """Import a third party's plugin, and report the global state that the import changed and that was restored."""
    if entry.builtin:
        return
    changed = entry.load_observed().changed
    if changed:
        say(f"note: {side_effects(entry, changed).reason}")


def _factory(entry: Entry) -> Callable[..., object]:
    target = entry.load()
    if entry.distribution == "py" and entry.kind == "upstream":
        return factory_of(target, entry.target)
    return called(entry, target)
