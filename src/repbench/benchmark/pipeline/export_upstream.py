"""`repbench export`: the upstream of a fine-tuned run, in the form in which its kind of upstream is given to a run.

| upstream | what is written | how it is used |
|---|---|---|
| `mockingjay`, `apc`, a plugin's `NetworkFactory` | a checkpoint | `--checkpoint DIR` |
| `hf:` | a folder of transformers: settings, feature extractor, weights | `--upstream hf:DIR` |
| `torchaudio:`, `py:` | a file of weights | `--checkpoint DIR/model.safetensors` |

LoRA is merged: the weights have the names and shapes that they had before, and the hidden states are those of the run.
The head is not part of it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from repbench.benchmark.finetuning.network import load_network
from repbench.benchmark.pipeline.setup import module_of
from repbench.benchmark.records.record import NETWORK_FILE, RECORD_FILE, Record, read_record
from repbench.errors import UsageError
from repbench.files import atomic_write, ensure_writable, environment_faults, write_text
from repbench.registry import Entry, registry
from repbench.tensor_files import encoded_tensors
from repbench.upstream.adapters.huggingface_files import (
    CONFIG_FILE,
    PREPROCESSOR_FILES,
    WEIGHTS_FILE,
    folder_of,
    read_weights,
    weights_files,
)
from repbench.upstream.adapters.huggingface_training_data import DECLARATION_FILE
from repbench.upstream.adapters.python_module import DeclaredModule
from repbench.upstream.adapters.speech_encoder import SpeechEncoder
from repbench.upstream.checkpoints.factory import HEARD_FILE, TRAINED_ON_FILE, NetworkFactory
from repbench.upstream.checkpoints.native import save_weights
from repbench.upstream.checkpoints.untrained import is_untrained
from repbench.upstream.contract import Pretrainable, Upstream, provenance_of
from repbench.upstream.training_data import UNKNOWN_DATA, TrainingData, as_json

_HF = "hf:"
_MASK = "masked_spec_embed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedUpstream:
    """A fine-tuned upstream on disk.

    Attributes:
        folder: Of its files.
        options: Options of `repbench run` that take it.
    """

    folder: Path
    options: tuple[str, ...]


def export_upstream(run: Path, out: Path, *, checkpoint: str | None = None) -> ExportedUpstream:
    """Write the upstream of a fine-tuned run.

    Args:
        run: Folder of the run, or its record.json.
        out: A new or empty folder.
        checkpoint: The one that the fine-tuning began with, where it is not at its place any more.

    Raises:
        UsageError: The run is of a frozen upstream, its upstream has no form that could be written, or the folder is
            not empty.
        IntegrityError: A file of the run is damaged, or the checkpoint is another one.
    """
    folder = run.parent if run.name == RECORD_FILE else run
    record = read_record(folder / RECORD_FILE)
    if record.mode != "finetune":
        what = f"The upstream of this run is frozen, so it is {record.upstream.checkpoint or record.upstream.name}"
        raise UsageError(what, file=folder, key="RUN", do="Give a run that was made with --finetune")
    _refuse_other_files(out)
    network = load_network(folder / NETWORK_FILE)
    entry = registry().find("upstream", record.upstream.name).entry
    upstream = network.build(entry, checkpoint, record.upstream.checkpoint, record.seed)
    if isinstance(upstream, Pretrainable) and isinstance(entry.load(), NetworkFactory):
        return _checkpoint(upstream, record, entry, out)
    if isinstance(upstream, SpeechEncoder) and record.upstream.name.startswith(_HF):
        ensure_writable(out)
        return _huggingface(upstream, record, out, checkpoint or record.upstream.checkpoint)
    inner = upstream.network if isinstance(upstream, SpeechEncoder) else None
    inner = upstream.module if isinstance(upstream, DeclaredModule) else inner
    if inner is None:
        raise UsageError(
            f"`{record.upstream.name}` is a plugin whose checkpoints repbench does not know",
            key="RUN",
            do="Take them by `load_network` and `build` of repbench.benchmark.finetuning.network",
        )
    ensure_writable(out)
    _write_weights(out, inner.state_dict(), record)
    options = ("--upstream", record.upstream.name, "--checkpoint", str(out / WEIGHTS_FILE))
    return ExportedUpstream(folder=out, options=options)


def _refuse_other_files(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError("The output is there and not an empty folder", key="--out", file=out, do="Name a new folder")


def _checkpoint(upstream: Pretrainable, record: Record, entry: Entry, out: Path) -> ExportedUpstream:
    known = provenance_of(upstream)
    fields = {
        "upstream": entry.name,
        "config": dict(upstream.config),
        "finetuned_by": f"repbench {version('repbench')}",
        "record": record.id,
        "notes": [*known.notes, _note(record)],
    }
    heard = "".join(f"{digest}\n" for digest in sorted(known.digests))
    trained_on = f"{json.dumps(as_json(_trained_on(upstream, record)), indent=1)}\n"
    options = ("--upstream", entry.name, "--checkpoint", str(out))
    texts = {"README.md": _card(record, options), HEARD_FILE: heard, TRAINED_ON_FILE: trained_on}
    save_weights(out, weights=module_of(upstream).state_dict(), fields=fields, texts=texts)
    return ExportedUpstream(folder=out, options=options)


def _huggingface(upstream: SpeechEncoder, record: Record, out: Path, checkpoint: str | None) -> ExportedUpstream:
    source = folder_of(record.upstream.name.removeprefix(_HF))
    # As they are: the configuration in memory has options of training switched off.
    with environment_faults(out):
        for name in (CONFIG_FILE, *PREPROCESSOR_FILES):
            if (source / name).is_file():
                shutil.copyfile(source / name, out / name)
    config: Any = upstream.network.config
    # Of Whisper the upstream is the encoder alone; its file has the names of the whole model.
    prefix = "encoder." if config.model_type == "whisper" else ""
    weights = {f"{prefix}{name}": each for name, each in upstream.network.state_dict().items()}
    if not is_untrained(checkpoint):
        # Read by no hidden state, so that the upstream does not have it; transformers misses it in a file without it.
        began_with = read_weights(weights_files(source, checkpoint))
        for name in began_with:
            if name.rpartition(".")[2] == _MASK:
                weights[_MASK] = began_with[name]
    _write_declaration(out, _trained_on(upstream, record))
    options = ("--upstream", f"{_HF}{out}")
    licence = (
        "" if record.upstream.licence in {None, "unknown"} else f"---\nlicense: {record.upstream.licence}\n---\n\n"
    )
    write_text(out / "README.md", licence + _card(record, options))
    _write_weights(out, weights, record)
    return ExportedUpstream(folder=out, options=options)


def _write_weights(out: Path, weights: Mapping[str, Tensor], record: Record) -> None:
    # Tied weights share memory, which safetensors refuses.
    tensors = {name: each.detach().cpu().contiguous().clone() for name, each in weights.items()}
    # transformers reads a file only if it states that the tensors are of torch.
    content = encoded_tensors(tensors, {"format": "pt", "finetuned_by": "repbench", "record": record.id})
    with atomic_write(out / WEIGHTS_FILE) as stream:
        stream.write(content)


def _trained_on(upstream: Upstream, record: Record) -> tuple[TrainingData, ...]:
    """What the exported weights were trained on: the corpus of the run, and what the model was trained on before."""
    own = TrainingData(
        name=record.corpus.name,
        splits=("train", "dev"),
        fingerprint=record.corpus.fingerprint,
        source="fine-tuned by repbench",
    )
    before = provenance_of(upstream).trained_on
    return (own, *((UNKNOWN_DATA,) if before is None else before))


def _write_declaration(out: Path, data: Sequence[TrainingData]) -> None:
    """`trained_on.yaml` with the files that it names; YAML reads JSON."""
    entries = []
    for number, each in enumerate(data):
        entry: dict[str, Any] = {"name": each.name, "splits": list(each.splits)}
        for key, lines in (("speakers", each.speakers), ("samples_sha256", each.samples_sha256)):
            if lines is not None:
                entry[key] = f"{key}-{number}.txt"
                write_text(out / entry[key], _lines(lines))
        entries.append({**entry, "source": each.source})
    write_text(out / DECLARATION_FILE, f"{json.dumps({'trained_on': entries}, indent=1)}\n")


def _lines(values: Iterable[str]) -> str:
    return "".join(f"{each}\n" for each in sorted(values))


def _note(record: Record) -> str:
    """The fine-tuning in a sentence."""
    part = record.finetuned
    weights = "" if part is None else f", {part.moved:,} of {part.total:,} weights moved by {part.rule}"
    before = record.upstream.checkpoint or record.upstream.name
    return f"fine-tuned on {record.downstream.name} of {record.corpus.name} from {before}{weights}"


def _card(record: Record, options: Sequence[str]) -> str:
    licence = record.upstream.licence or "unknown"
    return f"""# {record.upstream.name}, {_note(record)}

repbench {version("repbench")} made this from the run {record.id}. The head is not part of it.

- Published in: {record.upstream.citation or "unknown"}
- Licence of the model that it began with: {licence}. Licence of the corpus: {record.corpus.licence or "unknown"}

Use it with `repbench run {" ".join(options)} --downstream phone`.
"""
