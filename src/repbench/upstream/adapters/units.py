"""`units:RUN_OR_DIR`: discrete speech as an upstream of one layer.

`units:RUN` is a run of the task `units`: the upstream of its record, its layer, and the codebook in its folder.
`units:DIR` is a folder of units that something else computed: see `unit_folder`. Each unit becomes a one-hot vector;
`?form=centroids` after the path gives its centroid.

Axes: L layers, B batch, T samples, F frames, D width of the inner upstream, K units, W width of the form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from repbench.codebook import CODEBOOK_FILE, Codebook, read_codebook
from repbench.corpora.contract import Corpus, Utterance
from repbench.errors import IntegrityError, PluginError, UsageError, plugin_faults
from repbench.files import parse_json
from repbench.registry import registry
from repbench.upstream.adapters.corpus_features import BoundToCorpus, FrameReader, StoredFrames
from repbench.upstream.adapters.frame_counts import joined
from repbench.upstream.adapters.python_module import factory_of
from repbench.upstream.adapters.unit_folder import DECLARATION_FILE, Form, UnitFolder, name_of
from repbench.upstream.checkpoints.given_path import given_path
from repbench.upstream.contract import (
    HiddenStates,
    Provenance,
    Upstream,
    UpstreamInfo,
    check_lengths,
    fingerprint_of,
    provenance_of,
)
from repbench.upstream.training_data import UNKNOWN_DATA, TrainingData

RECORD_FILE = "record.json"
CODE_VERSION = 1

_OPTION = re.compile(r"(?P<name>\w+)=(?P<value>[^?&]+)")


@dataclass(frozen=True, slots=True)
class _Options:
    """The options after the path: `?form=centroids&upstream=NAME`.

    Attributes:
        form: onehot or centroids.
        upstream: Name of the run's upstream, which is needed where the record names a `py:` module.
    """

    form: Form = "onehot"
    upstream: str | None = None


class UnitsUpstream(nn.Module):
    """The units of another upstream's layer.

    Utterances go through the inner upstream one by one: units jump where a frame is between two centroids, so rounding
    that depends on the batch would be visible.

    Args:
        inner: The upstream of the run, in eval mode.
        layers: Its layers whose mean was clustered; one, but for the layer `mean`.
        codebook: Of the run.
        form: How a unit is given.
        name: Of this upstream.
    """

    def __init__(self, inner: Upstream, layers: slice, codebook: Codebook, form: Form, name: str) -> None:
        super().__init__()
        assert isinstance(inner, nn.Module)
        self.inner: Any = inner.requires_grad_(False)
        self.centroids = nn.Parameter(codebook.centroids, requires_grad=False)
        self.provenance: Provenance = provenance_of(inner)
        self._layers, self._form = layers, form
        self.info = _info_of(inner.info, codebook.centroids, form, name)

    def num_frames(self, num_samples: int) -> int:
        """As the inner upstream."""
        count: int = self.inner.num_frames(num_samples)
        return count

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        """(B, T) -> (1, B, F, W); a frame that is NaN or infinite stays NaN.

        Raises:
            DataError: A length is outside of the declared range.
        """
        check_lengths(self.info, lengths)
        states = []
        with torch.no_grad():
            for row, length in enumerate(lengths.tolist()):
                # (B, T) -> (1, T_i): slices keep the axis of the batch
                hidden = self.inner(waveforms[row : row + 1, :length], lengths[row : row + 1])
                frames = hidden.layers[self._layers, 0].mean(dim=0)  # (L, 1, F, D) -> (L, F, D) -> (F, D)
                states.append(_given(frames, self._codebook, self._form)[None])  # (F, W) -> (1, F, W)
        return joined(states)

    @property
    def _codebook(self) -> Codebook:
        return Codebook(self.centroids.detach())

    def fingerprint(self) -> str:
        """SHA-256 of the inner upstream's, the codebook, the layers and the form."""
        layers = list(range(*self._layers.indices(len(self.inner.info.layer_names))))
        config = {"inner": self.inner.fingerprint(), "layers": layers, "form": self._form}
        return fingerprint_of(self, config, CODE_VERSION)


class StoredUnits(StoredFrames):
    """The units of frames that are read from files; a `FrameReader`.

    Args:
        inner: Reads the frames.
        layers: As of `UnitsUpstream`.
        codebook: Of the run.
        form: How a unit is given.
        name: Of this upstream.
    """

    def __init__(self, inner: FrameReader, layers: slice, codebook: Codebook, form: Form, name: str) -> None:
        super().__init__(_info_of(inner.info, codebook.centroids, form, name))
        self.centroids = nn.Parameter(codebook.centroids, requires_grad=False)
        self._inner: Any = inner
        self._layers, self._form = layers, form
        self.provenance = provenance_of(inner)

    def why_excluded(self, utterance: Utterance) -> str | None:
        """The reason why the utterance has no frames; None if it has."""
        return str(reason) if (reason := self._inner.why_excluded(utterance)) is not None else None

    def read_frames(self, utterance: Utterance) -> Tensor:
        """(1, F, W) of an utterance; errors as in `FrameReader`."""
        frames = self._inner.read_frames(utterance)[self._layers].mean(dim=0)  # (L, F, D) -> (F, D)
        return _given(frames, Codebook(self.centroids.detach()), self._form)[None]

    def note(self) -> str:
        """A sentence about the frames, for the record."""
        return f"units of frames: {self._inner.note()}"

    def fingerprint(self) -> str:
        """As of `UnitsUpstream`."""
        layers = list(range(*self._layers.indices(len(self._inner.info.layer_names))))
        config = {"inner": self._inner.fingerprint(), "layers": layers, "form": self._form}
        return fingerprint_of(self, config, CODE_VERSION)


def _given(frames: Tensor, codebook: Codebook, form: Form) -> Tensor:
    """(F, D) frames -> (F, W); NaN where a frame is not finite."""
    units, centroids = codebook.units_of(frames), codebook.centroids
    # (F,) -> (F, D), or (F, K)
    vectors = centroids[units] if form == "centroids" else nn.functional.one_hot(units, len(centroids))
    given = vectors.to(frames.dtype)
    return given.masked_fill(~frames.isfinite().all(dim=-1, keepdim=True), torch.nan)


def _info_of(inner: UpstreamInfo, centroids: Tensor, form: Form, name: str) -> UpstreamInfo:
    return replace(
        inner,
        name=name,
        layer_names=("units",),
        width=len(centroids) if form == "onehot" else centroids.shape[1],
        utterance_normalised=False,
        trainable=False,
        batch_invariant=True,
    )


# runs of the task `units`


@dataclass(frozen=True, slots=True)
class _Run:
    """The facts of a record by which its units are assigned.

    Attributes:
        folder: Of the record.
        upstream: Name of its upstream.
        checkpoint: Of its upstream; None: the model's default.
        fingerprint: Of its upstream.
        layer: As `--layer` was given.
        seed: Of untrained weights.
        codebook: The units.
        corpus: Name of the corpus whose train split the codebook was fitted on.
    """

    folder: Path
    upstream: str
    checkpoint: str | None
    fingerprint: str
    layer: str
    seed: int
    codebook: Codebook
    corpus: str

    def provenance(self, inner: object) -> Provenance:
        """The provenance of the inner upstream, with the training data of the codebook."""
        known = provenance_of(inner)
        fitted = TrainingData(name=self.corpus, source="the codebook of the units, fitted on its train split")
        before = (UNKNOWN_DATA,) if known.trained_on is None else known.trained_on
        return replace(known, trained_on=(*before, fitted))


class UnitsOfStoredFrames:
    """Units of a run on frames that are read from a corpus or a folder, not yet bound to a corpus."""

    def __init__(self, inner: BoundToCorpus, run: _Run, form: Form) -> None:
        self._inner, self._run, self._form = inner, run, form

    def bound_to(self, corpus: Corpus) -> StoredUnits:
        """The upstream that reads the frames of this corpus; errors as of the inner one."""
        inner: Any = self._inner.bound_to(corpus)
        layers = _layers_of(inner.info, self._run.layer, self._run.folder)
        _refuse_other_width(inner.info, self._run)
        units = StoredUnits(inner, layers, self._run.codebook, self._form, name_of(self._run.folder))
        units.provenance = self._run.provenance(inner)
        return units


def door(argument: str) -> partial[UnitsUpstream | UnitsOfStoredFrames | UnitFolder]:
    """The factory of the units that `units:ARGUMENT` names."""
    return partial(build, argument)


def build(
    argument: str, *, checkpoint: str | None = None, seed: int = 0
) -> UnitsUpstream | UnitsOfStoredFrames | UnitFolder:
    """The units of a run or in a folder.

    Args:
        argument: Path of a run's folder or of its `record.json`, or of a folder with `units.yaml`; then options.
        checkpoint: Of the run's upstream, where it lies in another place now; None: as the record has it.
        seed: Not read: the record has that of untrained weights.

    Raises:
        UsageError: There is no such folder, an option is unknown, or the upstream of the record is not installed.
        IntegrityError: The record or the codebook is damaged, or the upstream is not the one of the run.
    """
    path, options = _parted(argument)
    place = given_path(Path(path).expanduser(), "--upstream")
    folder = place.parent if place.name == RECORD_FILE else place
    if not folder.is_dir():
        raise UsageError("There is no such run or folder of units", key="--upstream", file=place, do="Check the path")
    if (folder / RECORD_FILE).is_file():
        return _of_run(_read_run(folder), options, checkpoint)
    if not (folder / DECLARATION_FILE).is_file():
        what = f"The folder holds neither a {RECORD_FILE} of a run nor a {DECLARATION_FILE}"
        do = "Give the folder of a record of the task `units`, or write units.yaml with the times of the units"
        raise UsageError(what, key="--upstream", file=folder, do=do)
    if checkpoint is not None:
        what = "A folder of units has no weights to load"
        raise UsageError(what, key="--checkpoint", do="Leave --checkpoint out; the units are in the folder")
    return UnitFolder(folder, options.form)


def _parted(argument: str) -> tuple[str, _Options]:
    """The path and the options of `PATH?name=value&name=value`; a question mark may be part of the path itself."""
    path, mark, text = argument.rpartition("?")
    given = [_OPTION.fullmatch(each) for each in text.split("&")]
    named = [each for each in given if each is not None]
    if not mark or len(named) < len(given):
        return argument, _Options()
    chosen = {each["name"]: each["value"] for each in named}
    unknown = sorted(chosen.keys() - {"form", "upstream"})
    if unknown:
        raise UsageError(f"`units:` takes no option `{unknown[0]}`", key="--upstream", do="Choose form or upstream")
    if chosen.get("form", "onehot") not in get_args(Form):
        what = f"`form` must be {' or '.join(get_args(Form))}, but is `{chosen['form']}`"
        raise UsageError(what, key="--upstream", do="Write units:RUN?form=centroids, or leave it out")
    return path, _Options(**chosen)  # type: ignore[arg-type]


def _read_run(folder: Path) -> _Run:
    file = folder / RECORD_FILE
    try:
        fields: Any = parse_json(file.read_bytes())
        upstream, files = fields["upstream"], fields["downstream"]["files"]
        if CODEBOOK_FILE not in files:
            what = f"The run of the task `{fields['downstream']['name']}` has no codebook"
            raise UsageError(what, file=file, key="--upstream", do="Give a run of the task `units`")
        texts = [upstream["name"], upstream["fingerprint"], fields["layer"], files[CODEBOOK_FILE]]
        texts.append(fields["corpus"]["name"])
        checkpoint, seed = upstream["checkpoint"], fields["seed"]
        if not all(isinstance(each, str) for each in texts) or not isinstance(seed, int):
            raise TypeError("a name is no text")
        if checkpoint is not None and not isinstance(checkpoint, str):
            raise TypeError("`checkpoint` is no text")
    except OSError as error:
        raise IntegrityError(f"The record cannot be read: {error.strerror}", file=file, do="Run it again") from error
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"This is not a whole record: {error}", file=file, do="Run it again") from error
    codebook = read_codebook(folder / CODEBOOK_FILE, texts[3])
    return _Run(folder, texts[0], checkpoint, texts[1], texts[2], seed, codebook, texts[4])


def _of_run(run: _Run, options: _Options, checkpoint: str | None) -> UnitsUpstream | UnitsOfStoredFrames:
    inner = _inner_of(run, options, checkpoint)
    if isinstance(inner, BoundToCorpus):
        return UnitsOfStoredFrames(inner, run, options.form)
    if not isinstance(inner, Upstream) or not isinstance(inner, nn.Module):
        what = "This is not an upstream: an nn.Module with info, num_frames and fingerprint"
        raise PluginError(what, key=run.upstream, do="See repbench.upstream.contract")
    inner.eval()
    with plugin_faults(run.upstream):
        found = inner.fingerprint()
    if found != run.fingerprint:
        what = f"The units were fitted to another `{run.upstream}` than this one"
        do = "Give the --checkpoint that they were fitted to, or run the task `units` again"
        raise IntegrityError(what, file=run.folder / RECORD_FILE, do=do)
    layers = _layers_of(inner.info, run.layer, run.folder)
    _refuse_other_width(inner.info, run)
    units = UnitsUpstream(inner, layers, run.codebook, options.form, name_of(run.folder))
    units.provenance = run.provenance(inner)
    return units


def _inner_of(run: _Run, options: _Options, checkpoint: str | None) -> object:
    """What the factory of the run's upstream gives.

    A record may come from a stranger: a `py:` module that it names is imported only if the user names it too.
    """
    file = run.folder / RECORD_FILE
    if options.upstream is not None and options.upstream != run.upstream:
        what = f"The units are of `{run.upstream}`, not of `{options.upstream}`"
        raise UsageError(what, file=file, key="--upstream", do="Leave `upstream` out, or give another run")
    if run.upstream.partition(":")[0] == "py" and options.upstream is None:
        what = f"The units are of `{run.upstream}`, and no module is imported because a record names it"
        raise UsageError(
            what, file=file, key="--upstream", do=f"Write units:{run.folder}?upstream={run.upstream} if you trust it"
        )
    entry = registry().find("upstream", run.upstream).entry
    target: Any = entry.load()
    factory = factory_of(target, entry.target) if entry.distribution == "py" else target
    with plugin_faults(entry.qualified):
        return factory(checkpoint=checkpoint or run.checkpoint, seed=run.seed)


def _layers_of(info: UpstreamInfo, layer: str, folder: Path) -> slice:
    """The layers whose mean a `--layer` reads, as a slice."""
    names: Mapping[str, int] = {name: index for index, name in enumerate(info.layer_names)}
    last = len(info.layer_names) - 1
    if layer == "mean":
        return slice(0, last + 1)
    numbers = {**names, **{str(index): index for index in range(last + 1)}, "first": 0, "last": last}
    if layer not in numbers:
        what = f"The units are of the layer `{layer}`, which {info.name} does not have"
        raise IntegrityError(what, file=folder / RECORD_FILE, key="layer", do="Run the task `units` again")
    return slice(numbers[layer], numbers[layer] + 1)


def _refuse_other_width(info: UpstreamInfo, run: _Run) -> None:
    width = run.codebook.centroids.shape[1]
    if width != info.width:
        what = f"The codebook has centroids of width {width}, but {info.name} has frames of width {info.width}"
        raise IntegrityError(what, file=run.folder / CODEBOOK_FILE, do="Run the task `units` again")
