"""`onnx:FILE`: a graph that onnxruntime computes, with a declaration in a YAML file.

The declaration of `encoder.onnx` is `encoder.info.yaml` in the same folder, or `--checkpoint OTHER.yaml`. It has the
form of `repbench.upstream.adapters.declarations`, without `weights`, and may have a group `graph`. What the graph
states is read from it: its inputs, its outputs, their names and width.

onnxruntime is imported inside functions, as it is an extra. It computes on the CPU.

Axes: L layers, B batch, T samples, F frames, D width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from repbench.configs.loader import build as build_settings
from repbench.configs.loader import load_yaml
from repbench.errors import EnvironmentFault, IntegrityError, PluginError, UsageError
from repbench.globalstate import preserved_global_state
from repbench.upstream.adapters.declarations import EXAMPLE, declaration_of
from repbench.upstream.adapters.python_module import DeclaredModule
from repbench.upstream.checkpoints.given_path import given_path
from repbench.upstream.contract import Provenance, UpstreamFactory, fingerprint_of
from repbench.upstream.training_data import training_data_of

_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
_INTEGERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}

_EXTERNAL = b"\n\x08location\x12"
"""The key `location` of a tensor whose values are in another file, as protobuf writes it."""

_UNCOUNTED = "the weights and products of an ONNX graph are not counted: its cost is its time alone"


class GraphSettings(BaseModel):
    """The group `graph` of a declaration: what of the graph is used, where it does not follow from the graph itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: str | None = None
    """The input that takes waveforms (B, T) or (B, 1, T); null: the only one of floats."""
    lengths: str | None = None
    """The input that takes lengths (B,); null: the only one of whole numbers, if there is one."""
    mask: str | None = None
    """The input of whole numbers (B, T) that is 1 at each sample of an utterance and 0 behind it; null: none."""
    outputs: tuple[str, ...] | None = None
    """The outputs that are layers, in order; null: all of floats, (B, F, D), or (B, D) for one vector an utterance."""
    transposed: bool = False
    """Whether the outputs are (B, D, F)."""


@dataclass(frozen=True, slots=True)
class _Wired:
    """What is read from a graph.

    Attributes:
        input: Name of the input of waveforms.
        dtype: Type of the waveforms.
        has_channel: Whether it takes (B, 1, T).
        lengths: Name and type of the input of lengths; None where there is none.
        mask: Name and type of the input of the mask of samples; None where there is none.
        outputs: Names of the layers.
        width: D, where the graph states it.
        transposed: As `GraphSettings`.
    """

    input: str
    dtype: type[Any]
    has_channel: bool
    lengths: tuple[str, type[Any]] | None
    mask: tuple[str, type[Any]] | None
    outputs: tuple[str, ...]
    width: int | None
    transposed: bool


class OnnxSession(nn.Module):
    """A graph as a module of (waveforms, lengths).

    Args:
        session: Of onnxruntime.
        wired: Its inputs and outputs.
        file: Its file, for errors.
    """

    def __init__(self, session: Any, wired: _Wired, file: Path) -> None:
        super().__init__()
        self._session, self._wired, self._file = session, wired, file

    def forward(self, waveforms: Tensor, lengths: Tensor) -> list[Tensor]:
        """(B, T) with (B,) -> L times (B, F, D), or (B, D).

        Raises:
            PluginError: The graph fails.
        """
        wired = self._wired
        given = waveforms.detach().cpu().numpy().astype(wired.dtype, copy=False)
        # (B, T) -> (B, 1, T) for a graph with a channel
        feed: dict[str, Any] = {wired.input: given[:, None] if wired.has_channel else given}
        if wired.lengths is not None:
            name, dtype = wired.lengths
            feed[name] = lengths.cpu().numpy().astype(dtype, copy=False)
        if wired.mask is not None:
            name, dtype = wired.mask
            # (B,) -> (B, T): 1 up to each length
            valid = torch.arange(waveforms.shape[1]) < lengths.cpu()[:, None]
            feed[name] = valid.numpy().astype(dtype)
        try:
            found: Sequence[Any] = self._session.run(list(wired.outputs), feed)
        except Exception as error:  # onnxruntime has a class of its own for each kind of failure
            what = f"onnxruntime cannot compute the graph on waveforms {tuple(feed[wired.input].shape)}: {_line(error)}"
            do = "Was it exported with dynamic axes for batch and time, and does `min_samples` hold?"
            raise PluginError(what, key=self._file.name, do=do) from error
        layers = [torch.from_numpy(np.ascontiguousarray(each)).float().to(waveforms.device) for each in found]
        # (B, D, F) -> (B, F, D)
        return [each.transpose(1, 2) if wired.transposed and each.ndim == 3 else each for each in layers]


class OnnxUpstream(DeclaredModule):
    """A declared graph as an upstream.

    Args:
        module: The graph.
        declared: Its declaration.
        declaration_file: The file of the declaration.
        sha256: Of the bytes of the graph.
        graph: The group `graph`.
    """

    def __init__(self, module: OnnxSession, declared: Any, declaration_file: Path, sha256: str, graph: Any) -> None:
        trained_on = training_data_of(declared.trained_on, declaration_file)
        provenance = Provenance(checkpoint=str(declaration_file), notes=(_UNCOUNTED,), trained_on=trained_on)
        super().__init__(module, declared, declaration_file, (), provenance)
        settings = graph.model_dump(mode="json")
        if graph.mask is None:
            del settings["mask"]  # fingerprints from before the field stay
        self._graph = {"sha256": sha256, **settings}

    def fingerprint(self) -> str:
        """SHA-256 of the bytes of the graph, the declaration and its `code_version`."""
        config = {**self.declared_settings(), "graph": self._graph}
        return fingerprint_of(self, config, self.declared.code_version)


def door(file: str) -> UpstreamFactory:
    """The factory of the graph that `onnx:FILE` names."""
    return partial(build, file)


def build(file: str, *, checkpoint: str | None = None, seed: int = 0) -> OnnxUpstream:
    """Build the upstream of a graph.

    Args:
        file: An `.onnx` file that holds its weights.
        checkpoint: A YAML file: the declaration; None: the one beside the graph.
        seed: Not read: the weights are in the file.

    Raises:
        UsageError: A file is missing, the declaration is not valid, or does not fit the graph.
        IntegrityError: onnxruntime cannot read the graph, or its weights are in another file.
        EnvironmentFault: onnxruntime is not installed.
    """
    place = given_path(Path(file).expanduser(), "--upstream")
    if not place.is_file():
        raise UsageError("There is no such ONNX file", key="--upstream", file=place, do="Check the path")
    declaration_file = _declaration_file(place, checkpoint)
    tree = load_yaml(declaration_file)
    graph = build_settings(GraphSettings, _group(tree, declaration_file), declaration_file)
    if "weights" in tree:
        what = "The weights of an ONNX file are in it"
        raise UsageError(what, key="weights", file=declaration_file, do="Leave `weights` out")
    content = place.read_bytes()
    session = _session(content, place)
    wired = _wired(session, graph, one_vector=tree.get("kind") == "utterance", file=place)
    read: dict[str, Any] = {"layer_names": list(wired.outputs)}
    if wired.width is not None:
        read["width"] = wired.width
    declared = declaration_of({**read, **tree}, declaration_file)
    if wired.width not in (None, declared.width):
        what = f"`width` is {declared.width}, but the outputs of the graph have {wired.width}"
        raise UsageError(what, key="width", file=declaration_file, do="Leave it out, or set graph.transposed")
    if len(declared.layer_names) != len(wired.outputs):
        what = f"`layer_names` has {len(declared.layer_names)} names for the outputs {', '.join(wired.outputs)}"
        raise UsageError(what, key="layer_names", file=declaration_file, do="Name each output, or set graph.outputs")
    module = OnnxSession(session, wired, place)
    sha256 = hashlib.sha256(content).hexdigest()
    return OnnxUpstream(module, declared, declaration_file, sha256, graph).eval()


def _declaration_file(place: Path, checkpoint: str | None) -> Path:
    file = place.with_suffix(".info.yaml") if checkpoint is None else given_path(checkpoint, "--checkpoint")
    if file.suffix not in {".yaml", ".yml"}:
        what = "An ONNX file has its weights; --checkpoint names its declaration"
        raise UsageError(what, key="--checkpoint", do="Give a .yaml file, or leave it out")
    if not file.is_file():
        what = "The ONNX file has no declaration, which gives the times of its frames"
        do = (
            "Write it there, with the numbers of the model; or give one with --checkpoint FILE.yaml; see docs/models.md"
        )
        example = "\n".join(line for line in EXAMPLE.splitlines() if not line.startswith(("layer_names", "width")))
        raise UsageError(what, file=file, do=do, block=f"name: {place.stem}\n{example}\n")
    return file


def _group(tree: dict[str, Any], file: Path) -> dict[str, Any]:
    group = tree.pop("graph", {})
    if not isinstance(group, dict):
        what = f"`graph` must be a group of settings, but is {group!r}"
        raise UsageError(what, key="graph", file=file, do="Write it as `graph: {outputs: [NAME]}`")
    return group


def _session(content: bytes, place: Path) -> Any:
    """A session of onnxruntime on the CPU, without telemetry and its own messages."""
    if _EXTERNAL in content:
        what = "The weights of this graph are in another file, which would not be part of its fingerprint"
        raise IntegrityError(what, file=place, do="Save it as one file (onnx.save with save_as_external_data=False)")
    try:
        with preserved_global_state():
            import onnxruntime
    except ImportError as error:
        what = f"`onnx:` needs onnxruntime, which cannot be imported: {error}"
        raise EnvironmentFault(what, key="onnx", do="Install it: pip install 'repbench[onnx]'") from error
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.use_deterministic_compute = True
    # Threads that wait in a loop would slow down those of torch.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    try:
        with preserved_global_state():
            return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a class of its own for each kind of failure
        what = f"onnxruntime cannot read this graph: {_line(error)}"
        raise IntegrityError(what, file=place, do="Export it again, or update onnxruntime") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _wired(session: Any, graph: GraphSettings, *, one_vector: bool, file: Path) -> _Wired:
    """The inputs and outputs that are used.

    Raises:
        UsageError: They do not follow from the graph, or are of another form.
    """
    inputs = {each.name: each for each in session.get_inputs()}
    sound = _chosen(graph.input, inputs, _FLOATS, "input", "waveforms", file)
    mask = None if graph.mask is None else _chosen(graph.mask, inputs, _INTEGERS, "mask", "the mask", file)
    integers = [name for name, each in inputs.items() if each.type in _INTEGERS and name not in (sound, mask)]
    lengths = graph.lengths if graph.lengths is not None else next(iter(integers), None)
    if lengths is not None:
        lengths = _chosen(lengths, inputs, _INTEGERS, "lengths", "lengths", file)
    if others := sorted(inputs.keys() - {sound, lengths, mask}):
        what = f"The graph also needs the input `{others[0]}`, which is neither waveforms, lengths nor a mask"
        raise UsageError(what, key="graph", file=file, do="Export it without, or call it in a module (py:)")
    shape = inputs[sound].shape
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[1] not in (1, "1")):
        what = f"The input `{sound}` must take waveforms (B, T) or (B, 1, T), but takes {_shown(shape)}"
        raise UsageError(what, key="graph.input", file=file, do="Put the spectrogram into the graph, or use py:")
    if isinstance(shape[-1], int):
        what = f"The graph was exported for waveforms of {shape[-1]} samples alone"
        raise UsageError(what, key="graph.input", file=file, do="Export it with a dynamic axis for time")
    outputs = {each.name: each for each in session.get_outputs()}
    rank = 2 if one_vector else 3
    if graph.outputs is None:
        names = tuple(name for name, each in outputs.items() if each.type in _FLOATS and len(each.shape or ()) == rank)
    else:
        names = tuple(_chosen(name, outputs, _FLOATS, "outputs", "layers", file) for name in graph.outputs)
    if not names:
        form = "(B, D)" if one_vector else "(B, F, D)"
        shown = ", ".join(f"`{name}` {_shown(each.shape)}" for name, each in outputs.items())
        what = f"No output of the graph has the form {form}; there are {shown}"
        raise UsageError(what, key="graph.outputs", file=file, do="Name those that are layers, or correct `kind`")
    axis = -2 if graph.transposed and not one_vector else -1
    widths = {each[axis] for name in names if len(each := list(outputs[name].shape or ())) == rank}
    stated = widths.pop() if len(widths) == 1 else None
    return _Wired(
        input=sound,
        dtype=_FLOATS[inputs[sound].type],
        has_channel=len(shape) == 3,
        lengths=None if lengths is None else (lengths, _INTEGERS[inputs[lengths].type]),
        mask=None if mask is None else (mask, _INTEGERS[inputs[mask].type]),
        outputs=names,
        width=stated if isinstance(stated, int) else None,
        transposed=graph.transposed,
    )


def _chosen(
    name: str | None, there: Mapping[str, Any], types: Mapping[str, Any], key: str, what_for: str, file: Path
) -> str:
    """The input or output that is named, or the only one of a type."""
    fitting = [each for each, node in there.items() if node.type in types]
    if name is None and len(fitting) == 1:
        return fitting[0]
    if name in fitting:
        return str(name)
    listed = ", ".join(f"`{each}` {node.type} {_shown(node.shape)}" for each, node in there.items())
    named = "It does not follow from the graph which" if name is None else f"`{name}` is no such one; which"
    what = f"{named} of its tensors is for {what_for}: there are {listed}"
    raise UsageError(what, key=f"graph.{key}", file=file, do=f"Set graph.{key} in the declaration")


def _shown(shape: Sequence[Any] | None) -> str:
    return "(" + ", ".join(str(each) for each in shape or ()) + ")"
