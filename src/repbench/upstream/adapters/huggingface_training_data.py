"""What a transformers model was trained on: `trained_on.yaml` in its folder, else the data sets of its model card.

A model card names data sets (`datasets:` of its front matter), seldom all of them: that of a fine-tuned model often
names those of the last training alone. So a card can show that a corpus was in the training data, not that it was not:
it is read with a rest that is not known. `trained_on.yaml` is a whole declaration.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from repbench.configs.loader import build, load_yaml
from repbench.upstream.adapters.huggingface_files import model_card_parts
from repbench.upstream.training_data import UNKNOWN_DATA, TrainingData, TrainingDataSettings, training_data_of

DECLARATION_FILE = "trained_on.yaml"


class TrainingDeclaration(BaseModel):
    """The content of `trained_on.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trained_on: tuple[TrainingDataSettings, ...]
    """All that the weights were trained on before: [] for nothing."""


def training_data_beside(folder: Path, weights: Path | None) -> tuple[TrainingData, ...] | None:
    """The training data that a model's folder states; None where it states none.

    Args:
        folder: Of the model.
        weights: `--checkpoint`; weights from elsewhere are not those that the folder describes.

    Raises:
        UsageError: `trained_on.yaml` is not valid.
        DataError: A file that it names cannot be read.
    """
    if weights is not None and not _is_within(folder, weights):
        folder = weights if weights.is_dir() else weights.parent
    declaration = folder / DECLARATION_FILE
    if declaration.is_file():
        declared = build(TrainingDeclaration, load_yaml(declaration), declaration)
        return training_data_of(declared.trained_on, declaration)
    names = datasets_of(model_card_parts(folder)[0])
    if not names:
        return None
    rest = replace(UNKNOWN_DATA, source="a model card need not name all")
    return (*(TrainingData(name=name, source="model card") for name in names), rest)


def datasets_of(front: str) -> list[str]:
    """The names under `datasets:` in the front matter of a model card: a list of lines, one in brackets, or one name.

    Cards are read leniently, line by line: they are other people's, and few are strict YAML.
    """
    found = re.search(r"^datasets:[ \t]*(.*)\n?((?:[ \t]*-[ \t]+.*(?:\n|$))*)", front, re.MULTILINE)
    if found is None:
        return []
    inline = [each for each in found[1].strip().strip("[]").split(",") if each.strip()]
    listed = [line.strip().removeprefix("-") for line in found[2].splitlines()]
    names: dict[str, Any] = {each.split(" #")[0].strip().strip("\"'"): None for each in (*inline, *listed)}
    return [name for name in names if name]


def _is_within(folder: Path, path: Path) -> bool:
    return (folder / path).exists() and (folder / path).resolve().is_relative_to(folder.resolve())
