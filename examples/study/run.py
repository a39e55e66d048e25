"""Make all records of the study from local weights and sound: `python run.py --weights DIR --data DIR --out DIR`.

The corpora are prepared, the weights are brought into the forms that `hf:`, `onnx:` and `py:` read, and `repbench
sweep` runs each plan in `plans/`. What is there already is kept, so the command goes on after a stop.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
PLANS = ("phones", "trials", "digits", "learners", "speakers", "units", "abx", "sequences", "keywords", "orders")
"""In the order of running."""


def repbench(*arguments: object, out: Path) -> int:
    """A command of repbench in the folder of the study, where all its paths are short and relative."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "repbench", *map(str, arguments)]
    return subprocess.run(command, cwd=out, env=environment, check=False).returncode


def corpora(data: Path, out: Path) -> None:
    """Manifests; the subsets are those of docs/study.md."""
    orders = out / "orders.csv"
    with (data / "orders/orders.csv").open() as source, orders.open("w") as target:
        rows = csv.writer(target)
        header, *lines = csv.reader(source)
        # Its speakers are not named: each clip is a group of its own, which intervals resample.
        rows.writerows([[*header, "group"], *([*line, line[0]] for line in lines)])
    speech = data / "speechocean762"
    for name, *arguments in (
        ("ljspeech35", "pattern", "--root", data / "LJSpeech35/wavs", "--pattern", "{speaker:2}{group}.wav",
         "--alignments", data / "LJSpeech35/TextGrid"),
        ("test-other", "librispeech", "--root", data / "LibriSpeech/test-other"),
        ("fsdd", "fsdd", "--root", data / "fsdd", "--exclude", "*_[1-46-9].wav"),
        ("wakewords", "pattern", "--root", data / "wakewords", "--pattern", "{word}/{group}.flac",
         "--exclude", "*[02468].flac", "--exclude", "*[02468]-.flac"),
        ("orders", "csv", "--root", data / "orders", "--table", orders),
        ("speechocean762", "kaldi", "--root", speech, "--table", speech / "test", "--exclude", "SPEAKER*[02468]"),
    ):  # fmt: skip
        if not (out / "corpora" / name / "corpus.json").is_file():
            failed = repbench("corpus", "prepare", *arguments, "--name", name, "--out", f"corpora/{name}", out=out)
            if failed:
                raise SystemExit(failed)


def models(weights: Path, out: Path) -> None:
    """Whisper from CTranslate2, the others as they are, with short names."""
    folder = out / "models"
    folder.mkdir(exist_ok=True)
    for name in ("whisper-tiny.en", "whisper-base"):
        if not (folder / name).exists() and repbench("convert", weights / name, "--out", f"models/{name}", out=out):
            raise SystemExit(f"{weights / name} is no CTranslate2 folder of Whisper")
    shutil.copyfile(weights / "moonshine-tiny/encoder_model.ort", folder / "moonshine-tiny.ort")
    shutil.copyfile(HERE / "moonshine_tiny.info.yaml", folder / "moonshine-tiny.info.yaml")
    shutil.copyfile(weights / "campplus/campplus_cn_en_common.pt", folder / "campplus.pt")
    # Resemblyzer's file also holds the weights of its loss.
    ge2e = torch.load(weights / "ge2e/pretrained.pt", map_location="cpu", weights_only=True)["model_state"]
    save_file({name: ge2e[name] for name in ge2e if name.startswith(("lstm", "linear"))}, folder / "ge2e.safetensors")
    for name in ("apc", "mockingjay"):
        if not (folder / name).exists():
            shutil.copytree(weights / name, folder / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="the folders that README.md lists")
    parser.add_argument("--data", type=Path, required=True, help="the corpora that README.md lists")
    parser.add_argument("--out", type=Path, required=True, help="folder of the study: models, corpora, plans, runs")
    parser.add_argument("--plan", action="append", choices=PLANS, help="only this plan; may be repeated")
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    models(options.weights.resolve(), out)
    corpora(options.data.resolve(), out)
    codes = []
    for name in options.plan or PLANS:
        shutil.copyfile(HERE / "plans" / f"{name}.yaml", out / f"{name}.yaml")
        codes.append(repbench("sweep", f"{name}.yaml", "--out", f"runs/{name}", out=out))
    raise SystemExit(max(codes))


if __name__ == "__main__":
    main()
