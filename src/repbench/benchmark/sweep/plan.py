"""The plan of a sweep, a YAML file of lists, and the pairs and jobs that follow from it.

Paths in a plan are relative to the folder of the plan, so that a plan can be moved together with the files it names.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from repbench.audio.disturbances.condition import PRESETS, parse_condition
from repbench.benchmark.protocol import load_protocol
from repbench.benchmark.sweep.jobs import Job, RunCall
from repbench.configs.loader import build, load_yaml
from repbench.configs.settings import NonNegativeInt, Positive, PositiveInt, Settings
from repbench.corpora.manifest import HEADER_FILE
from repbench.errors import RepbenchError, UsageError
from repbench.registry import Kind, registry
from repbench.upstream.checkpoints.untrained import RANDOM, is_untrained

READ_ALL = ("all", "weighted", "mean")
"""Values of `layers` that read every layer: they run first, and the others read the features that they stored."""


def _known(kind: Kind) -> Callable[[str], str]:
    def find(name: str) -> str:
        if kind == "corpus" and "/" in name:
            return name
        return _checked(lambda: registry().find(kind, name), name)

    return find


def _once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    twice = [value for index, value in enumerate(values) if value in values[:index]]
    if twice:
        raise ValueError(f"`{twice[0]}` is given twice")
    return values


def _preset(name: str) -> str:
    return _checked(lambda: load_protocol(name), name)


def _assignment(text: str) -> str:
    return _checked(lambda: load_protocol(assignments=[text]), text)


def _condition(text: str) -> str:
    return text if text in PRESETS else _checked(lambda: parse_condition(text), text)


def _checked(check: Callable[[], object], value: str) -> str:
    """The value, if the check passes; its error as one that pydantic collects."""
    try:
        check()
    except RepbenchError as error:
        raise ValueError(error.line().rstrip(".")) from error
    return value


Upstream = Annotated[str, AfterValidator(_known("upstream"))]
Fraction = Annotated[float, Field(gt=0, le=1)]
Once = AfterValidator(_once)
AtLeastOne = Field(min_length=1)


class PlannedUpstream(Settings):
    """An upstream with a checkpoint or a label."""

    name: Upstream
    """As `repbench list upstreams` shows it."""
    checkpoint: str | None = None
    """A path, `random`, or null for the newest checkpoint of the upstream."""
    label: str | None = None
    """Its name in the output of the sweep and in `exclude`; default: name and checkpoint."""


class Exclusion(Settings):
    """Pairs that are left out: those that match every field given."""

    upstream: str | None = None
    """Name or label."""
    downstream: str | None = None
    """Name."""
    corpus: str | None = None
    """As in `corpora`."""
    mode: str | None = None
    """frozen or finetune."""
    layer: str | int | None = None
    """As in `layers`."""
    head: str | None = None
    """As in `heads`."""

    def covers(self, pair: RunCall) -> bool:
        """Whether the pair matches."""
        return (
            self.upstream in {None, pair.label, pair.upstream}
            and self.downstream in {None, pair.downstream}
            and self.corpus in {None, pair.corpus}
            and self.mode in {None, pair.mode}
            and (self.layer is None or str(self.layer) == pair.layer)
            and self.head in {None, pair.head}
        )


class FinetunePart(Settings):
    """Lists of the mode `finetune` in place of those of the plan; a list that is not given is that of the plan."""

    downstreams: (
        Annotated[tuple[Annotated[str, AfterValidator(_known("downstream"))], ...], AtLeastOne, Once] | None
    ) = None
    """Names of tasks."""
    layers: Annotated[tuple[str | NonNegativeInt, ...], AtLeastOne, Once] | None = None
    """As `layers`; not `all`, because each layer would need its own fine-tuning."""
    label_fractions: Annotated[tuple[Fraction, ...], AtLeastOne, Once] | None = None
    """As `label_fractions`."""
    seeds: Annotated[tuple[NonNegativeInt, ...], AtLeastOne, Once] | None = None
    """As `seeds`."""


class Slurm(Settings):
    """Resources of each job under `--launcher slurm`; the cluster chooses those that are not given."""

    executor: Literal["slurm", "local", "debug"] = "slurm"
    """Executor of submitit; `local` and `debug` run the same code without a cluster."""
    partition: str | None = None
    """Partition that jobs are submitted to."""
    timeout_min: PositiveInt = 240
    """Time limit of a job, in minutes; the next sweep makes the records that are still missing."""
    cpus_per_task: PositiveInt | None = None
    """Cores per job."""
    mem_gb: Positive | None = None
    """Memory per job, in GB."""
    gres: str | None = None
    """Generic resources per job, as in `gpu:1`."""
    account: str | None = None
    """Account that the jobs are charged to."""
    setup: tuple[str, ...] = ()
    """Shell commands that run before each job."""


class SweepPlan(Settings):
    """The lists whose combinations are run."""

    upstreams: Annotated[tuple[Upstream | PlannedUpstream, ...], AtLeastOne, Once]
    """Names, or mappings of name, checkpoint and label."""
    downstreams: Annotated[tuple[Annotated[str, AfterValidator(_known("downstream"))], ...], AtLeastOne, Once]
    """Names of tasks."""
    corpora: Annotated[tuple[Annotated[str, AfterValidator(_known("corpus"))], ...], AtLeastOne, Once] = ("synthetic",)
    """Registered names with options, or folders of manifests."""
    modes: Annotated[tuple[Literal["frozen", "finetune"], ...], AtLeastOne, Once] = ("frozen",)
    """Whether the upstream stays frozen or is fine-tuned."""
    layers: Annotated[tuple[str | NonNegativeInt, ...], AtLeastOne, Once] = ("last",)
    """As `--layer`: last, first, mean, weighted, all, a number or a name."""
    label_fractions: Annotated[tuple[Fraction, ...], AtLeastOne, Once] = (1.0,)
    """Shares of the training labels."""
    seeds: Annotated[tuple[NonNegativeInt, ...], AtLeastOne, Once] = (0,)
    """Seeds of the probe."""
    head: str | None = None
    """Name of the head; default: the task's."""
    heads: Annotated[tuple[str, ...], AtLeastOne, Once] | None = None
    """Several heads in place of `head`, each with every layer; they read the features that the first one stored."""
    preset: Annotated[str, AfterValidator(_preset)] = "default"
    """Protocol that ships with repbench."""
    assignments: tuple[Annotated[str, AfterValidator(_assignment)], ...] = Field(default=(), alias="set")
    """Single settings of the protocol, as `--set`."""
    tune: bool = False
    """Whether learning rates are chosen on dev, as `--tune`; fine-tuning takes its rates from the protocol."""
    controls: bool = False
    """Whether controls run too, as `--controls`."""
    conditions: Annotated[tuple[Annotated[str, AfterValidator(_condition)], ...], Once] = ()
    """Conditions of the test sound, as `--condition`, and names of sets of them, as `--conditions`."""
    matched: bool = False
    """Whether each condition is trained under too, as `--matched`."""
    by: Annotated[tuple[str, ...], Once] = ()
    """Attributes of test utterances that predictions keep for scores by group, as `--by`, with or without edges."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N."""
    allow_excluded: NonNegativeInt = 0
    """Most test utterances that may be left out of a score."""
    finetune: FinetunePart = FinetunePart()
    """Lists of the mode `finetune`."""
    exclude: tuple[Exclusion, ...] = ()
    """Pairs that are left out."""
    plugins: Annotated[tuple[str, ...], Once] = ()
    """Files that are plugins without packaging, as `--plugin`."""
    shards: PositiveInt = 1
    """Parts in which the features of an upstream and corpus are extracted before its pairs run, each by a process or a
    task of an array; 1: the first pair extracts them."""
    look_timeout_min: Positive = 10
    """Time limit of a job's inventory, in minutes; after that the forecast leaves the job out, and it runs last."""
    pair_timeout_min: Positive | None = 1440
    """Time limit of a pair, in minutes, after which it is ended and counts as failed; null: no limit."""
    slurm: Slurm = Slurm()
    """Resources of the jobs on a cluster."""

    @model_validator(mode="after")
    def _labels_part(self) -> SweepPlan:
        _once(tuple(label for _, _, label in self.named_upstreams()))
        return self

    @model_validator(mode="after")
    def _one_way_of_heads(self) -> SweepPlan:
        if self.head is not None and self.heads is not None:
            raise ValueError("give `head` or `heads`, not both")
        return self

    @model_validator(mode="after")
    def _modes_fit(self) -> SweepPlan:
        if "finetune" not in self.modes and self.finetune.model_fields_set:
            raise ValueError("`finetune` holds lists of a mode that is not among `modes`")
        if "finetune" in self.modes and "all" in self.of_mode("finetune").layers:
            raise ValueError("each of `all` layers would need its own fine-tuning: give `finetune.layers`")
        return self

    def of_mode(self, mode: str) -> SweepPlan:
        """The plan with the lists of one mode."""
        if mode != "finetune":
            return self
        own = {name: getattr(self.finetune, name) for name in self.finetune.model_fields_set}
        return self.model_copy(update={"tune": False, **{name: each for name, each in own.items() if each is not None}})

    def named_upstreams(self) -> list[tuple[str, str | None, str]]:
        """Name, checkpoint and label of each upstream."""
        named = [PlannedUpstream(name=each) if isinstance(each, str) else each for each in self.upstreams]
        return [(each.name, each.checkpoint, each.label or _label(each)) for each in named]


def load_plan(path: Path) -> SweepPlan:
    """Read a plan; its paths become relative to the current folder.

    Raises:
        UsageError: Every fault at once, each with its dotted key.
        PluginError: A file of `plugins` is not a plugin.
    """
    tree = _rooted(load_yaml(path), path.parent)
    # Before the plan is built: validation looks up names that these files declare.
    for file in _files(tree):
        registry().add_file(Path(file))
    return build(SweepPlan, tree, path)


def _files(tree: dict[str, Any]) -> list[str]:
    """The files of `plugins`, whose names the rest of the plan may use."""
    plugins = tree.get("plugins")
    return [each for each in plugins if isinstance(each, str)] if isinstance(plugins, list) else []


def jobs_of(plan: SweepPlan, out: Path, source: Path) -> list[Job]:
    """The jobs of a plan, one for each upstream and corpus with a pair that is not excluded, in the order of the plan.

    Raises:
        UsageError: The exclusions match every pair, or one of them matches none.
    """
    pairs = _pairs(plan, out)
    idle = [index for index, each in enumerate(plan.exclude) if not any(each.covers(pair) for pair in pairs)]
    if idle:
        faults = "; ".join(f"`exclude[{index}]` leaves nothing out" for index in idle)
        raise UsageError(faults, file=source, do="Correct its names, or remove it")
    left = [pair for pair in pairs if not any(each.covers(pair) for each in plan.exclude)]
    if not left:
        raise UsageError("`exclude` leaves out every pair", file=source)
    places = list(dict.fromkeys((pair.label, pair.corpus) for pair in left))
    return [Job(tuple(pair for pair in left if (pair.label, pair.corpus) == place)) for place in places]


def _pairs(plan: SweepPlan, out: Path) -> list[RunCall]:
    places = itertools.product(plan.named_upstreams(), plan.corpora, plan.modes)
    return [
        pair for upstream, corpus, mode in places for pair in _pairs_at(plan.of_mode(mode), out, upstream, corpus, mode)
    ]


def _pairs_at(
    plan: SweepPlan, out: Path, named: tuple[str, str | None, str], corpus: str, mode: str
) -> Iterator[RunCall]:
    """The pairs of one upstream, corpus and mode; `plan` holds the lists of the mode."""
    upstream, checkpoint, label = named
    layers = sorted(map(str, plan.layers), key=lambda layer: layer not in READ_ALL)
    heads = plan.heads or (plan.head,)
    for downstream, layer, head in itertools.product(plan.downstreams, layers, heads):
        yield RunCall(
            upstream=upstream,
            checkpoint=checkpoint,
            label=label,
            downstream=downstream,
            corpus=corpus,
            mode=mode,
            layer=layer,
            label_fractions=plan.label_fractions,
            seeds=plan.seeds,
            head=head,
            preset=plan.preset,
            assignments=plan.assignments,
            tune=plan.tune,
            controls=plan.controls,
            conditions=tuple(one for each in plan.conditions for one in PRESETS.get(each, (each,))),
            matched=plan.matched,
            by=plan.by,
            device=plan.device,
            allow_excluded=plan.allow_excluded,
            out=str(out),
            plugins=plan.plugins,
            timeout_min=plan.pair_timeout_min,
        )


def _label(upstream: PlannedUpstream) -> str:
    return upstream.name if upstream.checkpoint is None else f"{upstream.name} {upstream.checkpoint}"


def _rooted(tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The tree with the paths of corpora, checkpoints, plugins and exclusions relative to the current folder."""
    changed = dict(tree)
    if isinstance(plugins := tree.get("plugins"), list):
        changed["plugins"] = [_from_here(folder / each) if isinstance(each, str) else each for each in plugins]
    if isinstance(corpora := tree.get("corpora"), list):
        changed["corpora"] = [_corpus(each, folder) for each in corpora]
    if isinstance(upstreams := tree.get("upstreams"), list):
        changed["upstreams"] = [_with(each, "checkpoint", _checkpoint, folder) for each in upstreams]
    if isinstance(exclude := tree.get("exclude"), list):
        changed["exclude"] = [_with(each, "corpus", _corpus, folder) for each in exclude]
    return changed


def _with(item: Any, key: str, change: Callable[[Any, Path], Any], folder: Path) -> Any:
    return {**item, key: change(item[key], folder)} if isinstance(item, dict) and key in item else item


def _corpus(spec: Any, folder: Path) -> Any:
    if not isinstance(spec, str):
        return spec
    # `Path.is_file` raises at names that no file system takes.
    on_disk = "/" in spec or spec in {".", ".."} or os.path.isfile(folder / spec / HEADER_FILE)  # noqa: PTH113
    return _from_here(folder / spec) if on_disk else spec


def _checkpoint(given: Any, folder: Path) -> Any:
    if not isinstance(given, str):
        return given
    if not is_untrained(given):
        return _from_here(folder / given)
    source = given.partition(":")[2]
    # `Path.exists` raises at names that no file system takes.
    return f"{RANDOM}:{_from_here(folder / source)}" if source and os.path.exists(folder / source) else given  # noqa: PTH110


def _from_here(path: Path) -> str:
    """A path with a `/` in it, relative to the current folder if it is inside."""
    whole = Path(os.path.abspath(path))  # noqa: PTH100 - `resolve` would follow links
    below = whole.relative_to(Path.cwd()) if whole.is_relative_to(Path.cwd()) else whole
    return str(below) if len(below.parts) > 1 else f"./{below}"
