"""`repbench convert`: a checkpoint of another toolkit becomes a checkpoint of repbench."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from repbench.errors import UsageError
from repbench.upstream.apc.factory import apc
from repbench.upstream.checkpoints.ctranslate2 import is_ctranslate2
from repbench.upstream.checkpoints.factory import is_part_of_checkpoint
from repbench.upstream.checkpoints.foreign import model_of
from repbench.upstream.checkpoints.native import Checkpoint, save_weights
from repbench.upstream.checkpoints.safe_unpickle import read_pickle
from repbench.upstream.contract import provenance_of
from repbench.upstream.convert_whisper import MODEL_FILE, ConvertedFolder, convert_whisper
from repbench.upstream.mockingjay.factory import mockingjay


def convert(file: Path, out: Path, settings: Mapping[str, Any]) -> Checkpoint | ConvertedFolder:
    """Read a checkpoint of the released Mockingjay code, S3PRL or APC, or a Whisper of CTranslate2, and save it as
    safetensors and JSON.

    Args:
        file: The checkpoint, or the folder of CTranslate2; no code in it runs.
        out: A new or empty folder.
        settings: Settings that the file lacks (`residual=False` for a bare APC).

    Raises:
        UsageError: There is no such file, or a setting is not valid.
        IntegrityError: It is corrupt, needs code to load, or has no known layout.
    """
    if (file / MODEL_FILE).is_file() or (file.is_file() and is_ctranslate2(file)):
        if settings:
            what = f"A Whisper has all its settings in the file; `{next(iter(settings))}` is none of them"
            raise UsageError(what, key="--set", do="Leave it out")
        return convert_whisper(file, out)
    if not file.is_file():
        what = "This is a folder, not a checkpoint of an older code" if file.is_dir() else "There is no such file"
        do = f"Name a file of the released Mockingjay code, S3PRL or APC, or a folder of CTranslate2 with {MODEL_FILE}"
        raise UsageError(what, file=file, do=do)
    if is_part_of_checkpoint(file):
        what = "This is of a checkpoint of repbench already"
        raise UsageError(what, file=file, do=f"Give it as it is: --checkpoint {file.parent}")
    content = read_pickle(file)
    name = model_of(content)
    if name == "apc":
        network: nn.Module = apc(checkpoint=str(file), **settings)
    else:  # for an unknown layout Mockingjay's reader lists the keys in its error
        network = mockingjay(checkpoint=str(file), **settings)
    config: Mapping[str, Any] = network.config  # type: ignore[assignment]
    notes = provenance_of(network).notes
    fields = {
        "upstream": name,
        "config": dict(config),
        "converted_from": file.name,
        "converted_by": f"repbench {version('repbench')}",
        "notes": list(notes),
    }
    return save_weights(out, weights=network.state_dict(), fields=fields, texts={"README.md": _card(fields)})


def _card(fields: Mapping[str, Any]) -> str:
    notes = "".join(f"- {note}\n" for note in fields["notes"])
    return f"""# {fields["upstream"]}, converted from {fields["converted_from"]}

{fields["converted_by"]} made this checkpoint. What the model was trained on is not known; ask for its licence where it
comes from.

{notes}
Use it with `repbench run --upstream {fields["upstream"]} --checkpoint FOLDER --downstream phone`.
"""
