"""Time of one linear probe of keywords by X-ARES 0.1.3 and by `repbench run`, on the same clips and small encoder.

    python benchmarks/xares_side.py --xares-python PYTHON [--clips 5000]

PYTHON is that of an environment with `xares==0.1.3`. The encoder is `small_encoder.py`, with the same weights on both
sides; the clips are those of `many_clips.py`, in official splits. X-ARES pools the frames, trains ten epochs of a
linear layer with Adam at 1e-3, 32 clips a step, and scores dev after each; `repbench run` takes as many steps of the
same. Both are whole processes, start included: cold computes the features, warm finds those of the cold one and trains
again. torchaudio 2.11 reads no file without torchcodec, so the child process of X-ARES reads with soundfile.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import soundfile
import torch

from many_clips import CLASSES, write_clips
from repbench.benchmark import environment

HERE = Path(__file__).resolve().parent
BATCH, EPOCHS = 32, 10

CHILD = """
import json, os, sys, time
started = time.perf_counter()
root, benchmarks = sys.argv[1:]
sys.path.insert(0, benchmarks)
import soundfile, torch, torchaudio
def load(file, *args, **kwargs):
    values, rate = soundfile.read(file, dtype="float32", always_2d=True)
    return torch.from_numpy(values.T.copy()), rate
torchaudio.load = load
from small_encoder import SmallEncoder, WIDTH, RATE_HZ, HOP
from xares.task import TaskConfig, XaresTask
class Encoder(torch.nn.Module):
    sampling_rate, output_dim, hop_size_in_ms = RATE_HZ, WIDTH, 20
    def __init__(self):
        super().__init__()
        self.encoder = SmallEncoder().eval()
    def forward(self, audio):
        return self.encoder(audio)
classes = json.loads(os.environ["CLASSES"])
config = TaskConfig(
    name="clips", env_root=root, private=True, encoder=Encoder(), task_type="clip", output_dim=len(classes),
    eval_weight=1, label_processor=lambda row: classes.index(row["keyword"]), force_retrain_mlp=True,
    num_encoder_workers=0, do_knn=False,
)
task = XaresTask(config)
task.make_encoded_tar()
encoded = time.perf_counter() - started
(task.ckpt_dir / "mlp_score.txt").unlink(missing_ok=True)
score, _ = task.run_mlp()
print(json.dumps({"accuracy": score, "until_encoded_seconds": encoded}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--xares-python", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=5_000)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "xares.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="xares-side-") as name:
        folder = Path(name)
        sounds = folder / "sounds"
        write_clips(sounds, argparse.Namespace(clips=arguments.clips, seconds=1.0, rate_hz=16_000))
        num_train = in_splits(sounds / "table.csv")
        write_tars(sounds, folder / "xares" / "clips")
        steps = EPOCHS * -(-num_train // BATCH)
        rows: dict[str, Any] = {}
        prepare = ["corpus", "prepare", "csv", "--root", str(sounds), "--out", str(folder / "manifest"), "--json"]
        repbench_of(prepare, folder)
        run = [
            "run", "--plugin", str(HERE / "small_encoder.py"), "--upstream", "small-encoder", "--downstream", "keyword",
            "--head", "linear", "--corpus", str(folder / "manifest"), "--out", str(folder / "runs"), "--json",
            "--set", f"probe.steps={steps}", "--set", f"probe.batch_utterances={BATCH}", "--set",
            f"probe.selection_points={EPOCHS}", "--set", "split.official=always",
        ]  # fmt: skip
        for what in ("cold", "warm"):
            seconds, answer = repbench_of(run, folder)
            (record,) = answer["results"]
            rows[f"repbench {what}"] = {
                "seconds": seconds,
                "extract_seconds": record["cost"]["extract_seconds"],
                "train_seconds": record["cost"]["train_seconds"],
                "accuracy": record["metrics"]["accuracy"]["value"],
            }
            rows[f"xares {what}"] = xares_of(arguments.xares_python, folder)
    ratios = {what: rows[f"xares {what}"]["seconds"] / rows[f"repbench {what}"]["seconds"] for what in ("cold", "warm")}
    result = {
        "machine": environment.describe(torch.device("cpu")),
        "clips": arguments.clips,
        "steps": steps,
        "runs": rows,
        "xares_over_repbench": ratios,
    }
    print(json.dumps(result, indent=2))
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def in_splits(table: Path) -> int:
    """Put each speaker of the table into a split; the number of clips of train."""
    rows = list(csv.DictReader(table.open(encoding="utf-8")))
    for row in rows:
        number = int(row["speaker"][1:]) % 10
        row["split"] = {8: "dev", 9: "test"}.get(number, "train")
    with table.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return sum(row["split"] == "train" for row in rows)


def write_tars(sounds: Path, folder: Path) -> None:
    """The clips as X-ARES reads them: a tar a split, each clip with its label; and its mark that they are there."""
    folder.mkdir(parents=True)
    names = {"train": "train", "dev": "valid", "test": "test"}
    with contextlib.ExitStack() as stack:
        tars = {
            split: stack.enter_context(tarfile.open(folder / f"{name}-00000.tar", "w")) for split, name in names.items()
        }
        read: tuple[str, Any] = ("", None)
        for row in csv.DictReader((sounds / "table.csv").open(encoding="utf-8")):
            if row["path"] != read[0]:
                read = row["path"], soundfile.read(sounds / row["path"], dtype="int16")[0]
            start, end = (round(16_000 * float(row[each])) for each in ("start", "end"))
            wav = io.BytesIO()
            soundfile.write(wav, read[1][start:end], 16_000, format="WAV")
            label = json.dumps({"keyword": row["keyword"]}).encode()
            for suffix, content in (("wav", wav.getvalue()), ("json", label)):
                entry = tarfile.TarInfo(f"{row['id']}.{suffix}")
                entry.size = len(content)
                tars[row["split"]].addfile(entry, io.BytesIO(content))
    (folder / ".audio_tar_ready").touch()


def repbench_of(command: list[str], folder: Path) -> tuple[float, Any]:
    variables = {**os.environ, "REPBENCH_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "2"}
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "repbench", *command], env=variables, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return time.perf_counter() - started, json.loads(done.stdout)


def xares_of(python: Path, folder: Path) -> dict[str, Any]:
    variables = {**os.environ, "CLASSES": json.dumps(CLASSES), "OMP_NUM_THREADS": "2"}
    variables.pop("PYTHONPATH", None)
    started = time.perf_counter()
    command = [str(python), "-c", CHILD, str(folder / "xares"), str(HERE)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    return {"seconds": time.perf_counter() - started, **json.loads(done.stdout.splitlines()[-1])}


if __name__ == "__main__":
    main()
