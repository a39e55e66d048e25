"""`datasets` and lhotse themselves open what is exported, and what they write is read: where they are installed.

They are not in the locks: `pip install datasets lhotse` next to repbench, and run the slow tests.
"""

from __future__ import annotations

import hashlib
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from repbench.corpora import manifest
from repbench.corpora.contract import Corpus, PrepareOptions
from repbench.corpora.export import export
from repbench.corpora.manifest.prepare import prepare
from repbench.corpora.open import load_layout
from tests.corpora.rich_corpus import rich_corpus

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

FACTS = "repbench-corpus.json"


def library(name: str) -> Any:
    return pytest.importorskip(name, reason=f"{name} is not installed: pip install {name}")


def digest(samples: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(samples, dtype="<f4").data).hexdigest()


def read_back(kind: str, root: Path, table: Path, out: Path) -> Corpus:
    return manifest.write(prepare(load_layout(kind), root, PrepareOptions(table=table)), out)


def test_datasets_opens_an_export_and_what_it_writes_is_the_same_corpus(tmp_path: Path) -> None:
    datasets = library("datasets")
    corpus = rich_corpus(tmp_path)
    out = export(corpus, "huggingface", tmp_path / "out").folder
    opened = datasets.load_from_disk(str(out))
    assert {name: len(part) for name, part in opened.items()} == {"train": 2, "validation": 1, "test": 1, "other": 8}
    by_id = {each.id: each for each in corpus.utterances}
    for part in opened.values():
        # decoding by `datasets` itself needs torchcodec and FFmpeg
        for row in part.cast_column("audio", datasets.Audio(decode=False)):
            samples, _ = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")
            assert digest(samples) == by_id[row["id"]].samples_sha256
            assert (row["speaker"], row["text"]) == (by_id[row["id"]].speaker, by_id[row["id"]].text)
    again, parquet = tmp_path / "saved", tmp_path / "parquet"
    opened.save_to_disk(str(again))
    for name, part in opened.items():
        part.to_parquet(str(parquet / f"{name}.parquet"))
    for folder in (again, parquet):
        shutil.copy(out / FACTS, folder)
        found = read_back("huggingface", folder, folder, tmp_path / f"{folder.name}-manifest")
        assert found.fingerprint == corpus.fingerprint


def test_lhotse_opens_an_export_and_what_it_writes_is_the_same_corpus(tmp_path: Path) -> None:
    lhotse = library("lhotse")
    corpus = rich_corpus(tmp_path)
    out = export(corpus, "lhotse", tmp_path / "out").folder
    cuts = lhotse.CutSet.from_file(out / "cuts.jsonl.gz").to_eager()
    lhotse.validate(cuts, read_data=True)
    lhotse.validate(lhotse.RecordingSet.from_file(out / "recordings.jsonl.gz"))
    lhotse.validate(lhotse.SupervisionSet.from_file(out / "supervisions.jsonl.gz"))
    by_id = {each.id: each for each in corpus.utterances}
    for cut in cuts:
        if cut.id != "lossy":  # its decoder may be another
            assert digest(cut.load_audio()[0]) == by_id[cut.id].samples_sha256, cut.id
    again = tmp_path / "again"
    again.mkdir()
    cuts.to_file(again / "cuts.jsonl.gz")
    shutil.copy(out / FACTS, again)
    assert read_back("lhotse", tmp_path, again, tmp_path / "read").fingerprint == corpus.fingerprint
