"""What the code of a page needs before it runs: the corpora, checkpoints and modules that are the reader's own."""

from __future__ import annotations

import itertools
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow
import torch
from pyarrow import parquet
from safetensors.torch import save_file

from repbench.corpora.export import export
from repbench.corpora.open import open_corpus
from tests.pages import ROOT, blocks

CORPORA = ("corpora/speech", "corpora/mine", "my_corpus")
"""Names of a corpus of the reader; each is the smallest synthetic one."""


class Stage(NamedTuple):
    """What all pages share.

    Attributes:
        manifest: The folder of the smallest synthetic corpus.
        pretrained: A folder of runs, one a model.
        records: A folder of records.
    """

    manifest: Path
    pretrained: Path
    records: Path

    def prepare(self, folder: Path) -> None:
        """Put corpora, checkpoints and records into the folder of a page, which is empty."""
        for name in CORPORA:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(self.manifest, target_is_directory=True)
        shutil.copytree(self.pretrained, folder / "runs" / "pretrain")
        shutil.copytree(self.records, folder / "runs" / "earlier")


def _encoder_source(name: str, width: int, num_layers: int, *, lengths: bool) -> str:
    arguments = "waveforms, lengths" if lengths else "waveforms"
    return f"""
import torch
from torch import nn

class {name}(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv1d(1, {width}, 400, stride=320)

    def forward(self, {arguments}):
        first = self.convolution(waveforms[:, None]).transpose(1, 2)
        layers = [first.tanh()] * {num_layers}
        return layers if len(layers) > 1 else layers[0]
"""


def _yaml_with(page: Path, key: str) -> str:
    """The first YAML block of a page that has a key."""
    return next(block.text for block in blocks(page) if block.language == "yaml" and key in block.text)


def _a_module(folder: Path, page: Path, name: str, declared: str, width: int, num_layers: int) -> None:
    """`my_models.py` with a class, the declaration that the page shows, and weights of the names that it shows."""
    source = _encoder_source(name, width, num_layers, lengths=True)
    (folder / "my_models.py").write_text(source, encoding="utf-8")
    (folder / f"my_models_{name}.info.yaml").write_text(declared, encoding="utf-8")
    names: dict[str, Any] = {}
    exec(source, names)
    for file in ("encoder.safetensors", "step900.safetensors"):
        save_file(names[name]().state_dict(), folder / file)


def _models(folder: Path, stage: Stage, page: Path) -> None:
    declared = _yaml_with(page, "window_samples")
    _a_module(folder, page, "encoder", declared, 256, 2)
    (folder / "other.yaml").write_text(declared, encoding="utf-8")


def _which_way(folder: Path, stage: Stage, page: Path) -> None:
    _a_module(folder, page, "MyEncoder", _yaml_with(page, "window_samples"), 768, 1)
    released = ROOT / "tests" / "golden" / "mockingjay_legacy" / "mockingjay_dr3_mel.ckpt"
    shutil.copy(released, folder / "mockingjay-500000.ckpt")
    (folder / "my_features").mkdir()
    (folder / "my_features" / "features.yaml").write_text(_yaml_with(page, "rate of the next two"), encoding="utf-8")


def _plugins(folder: Path, stage: Stage, page: Path) -> None:
    shutil.copy(ROOT / "examples" / "repbench-tiny-plugin" / "tiny_plugin.py", folder)
    (head,) = [block.text for block in blocks(page) if "class MeanAndDeviation" in block.text]
    (folder / "my_head.py").write_text(head, encoding="utf-8")


def _leaderboard(folder: Path, stage: Stage, page: Path) -> None:
    shutil.copytree(ROOT / "examples" / "leaderboard", folder / "examples" / "leaderboard")


def _layouts(folder: Path, stage: Stage, page: Path) -> None:
    """Two data sets of Hugging Face: one that `datasets` saved, one with other names of its columns."""
    (folder / "corpora" / "mine").unlink()
    corpus = open_corpus(str(stage.manifest))
    export(corpus, "huggingface", folder / "superb-ks")
    sounds = [each.audio for each in itertools.islice(corpus.utterances, 6)]
    rows = [{"clip": {"bytes": each.read_bytes(), "path": each.name}, "client_id": each.stem[:4]} for each in sounds]
    (folder / "my-set").mkdir()
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "my-set" / "train.parquet")


STAGES: dict[str, Callable[[Path, Stage, Path], None]] = {
    "docs/corpora/layouts.md": _layouts,
    "docs/models.md": _models,
    "docs/which-way.md": _which_way,
    "docs/plugins.md": _plugins,
    "examples/leaderboard/README.md": _leaderboard,
}
"""From a page to what puts its files into its folder."""


def _spectrogram(stage: Stage) -> dict[str, Any]:
    return {"spec": torch.rand(90, 160), "lengths": torch.tensor([90])}


def _pretraining(stage: Stage) -> dict[str, Any]:
    shutil.copytree(next((stage.pretrained / "mockingjay").iterdir()), "FILE or DIR")
    weights = [("weight", torch.nn.Parameter(torch.ones(2)))]
    spectrogram = {"spec": torch.rand(1, 90, 160), "lengths": torch.tensor([90])}
    sound = {"waveforms": torch.rand(1, 16000), "num_samples": torch.tensor([16000])}
    return spectrogram | sound | {"named_parameters": weights}


def _objectives(stage: Stage) -> dict[str, Any]:
    sys.path.insert(0, str(ROOT / "examples" / "repbench-objectives"))
    try:
        import tera  # type: ignore[import-not-found]
    finally:
        sys.path.pop(0)
    return {name: getattr(tera, name) for name in ("TeraConfig", "untrained", "PRESETS")}


def _encoders(stage: Stage) -> dict[str, Any]:
    class Encoder(torch.nn.Module):
        def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
            return waveforms

    def encode(utterance: dict[str, Any]) -> Any:
        return np.random.default_rng(0).standard_normal(((utterance["num_samples"] - 400) // 320 + 1, 4), np.float32)

    return {"Encoder": Encoder, "encode": encode}


PRELUDES: dict[str, Callable[[Stage], dict[str, Any]]] = {
    "README.md": _spectrogram,
    "docs/pretraining.md": _pretraining,
    "docs/objectives.md": _objectives,
    "docs/which-way.md": _encoders,
}
"""From a page to the names that its Python takes for granted."""
