"""Time of an `asr` probe on Mockingjay BASE, by `repbench run` and by S3PRL 0.4.18, with the same weights.

    PYTHONPATH=DIR python benchmarks/asr.py [--steps 60] [--measured 4] [--units 256]

Both read one file with untrained weights of BASE and train a projection and two BLSTM layers by CTC on characters,
32 utterances a step, for as many steps: SUPERB's ASR, which has 1,024 units. The network, featurizer, model and
dictionary of S3PRL are its own; it joins each two frames before the BLSTM, where `blstm_ctc` reads all of them, and
runs the frozen network again in every step. `repbench run` is the whole command, process start included: cold and warm.
A step of S3PRL takes many seconds, and is as long as the next of equal length: `--measured` of them, of utterances
evenly spread over the lengths, stand for all, and so does one pass over a tenth of dev and test.

S3PRL is not a dependency; see the head of `mockingjay.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from mockingjay import s3prl_modules
from probing import write_checkpoint
from repbench.benchmark import environment
from repbench.benchmark.data.dataset import LabelledSplits, LabelledUtterances, label_splits
from repbench.benchmark.protocol import SplitSettings
from repbench.corpora.open import open_corpus
from repbench.corpora.read import read_utterance
from repbench.downstream.asr import ASR
from repbench.files import cache_dir

BATCH = 32
RATE = 1e-4


def model_of(units: int) -> dict[str, Any]:
    """The settings of S3PRL's model."""
    return {
        "project_dim": units,
        "select": "RNNs",
        "RNNs": {
            "total_rate": 320, "module": "LSTM", "bidirection": True, "dim": [units, units], "dropout": [0.2, 0.2],
            "layer_norm": [False, False], "proj": [False, False], "sample_rate": [1, 1], "sample_style": "concat",
        },
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", default="synthetic:small")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--measured", type=int, default=4)
    parser.add_argument("--units", type=int, default=256, help="of the projection and each direction of a layer")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "asr.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore")
    corpus = open_corpus(arguments.corpus)
    plan = label_splits(corpus, ASR(), SplitSettings(), excludes=lambda each: None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = folder / "states.ckpt"
        write_checkpoint(checkpoint)
        ours = {what: ours_of(folder, checkpoint, arguments) for what in ("cold", "warm")}
        print(json.dumps(ours), flush=True)
        theirs = theirs_of(checkpoint, plan, arguments)
    result = {
        "machine": {**environment.describe(torch.device("cpu")), "s3prl": version("s3prl")},
        "corpus": arguments.corpus,
        "hours_of_train": sum(each.utterance.seconds for each in plan.train) / 3600,
        "steps": arguments.steps,
        "units": arguments.units,
        "repbench": {what: {**row, "ratio": theirs["seconds"] / row["seconds"]} for what, row in ours.items()},
        "s3prl": theirs,
    }
    print(json.dumps(result, indent=2))
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def ours_of(folder: Path, checkpoint: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of the whole command; the first one finds an empty store."""
    cache = folder / "cache"
    if not cache.exists():
        cache.mkdir()
        (cache / "corpora").symlink_to(cache_dir() / "corpora")
    settings = {"probe.steps": arguments.steps, "probe.batch_utterances": BATCH, "probe.learning_rate": RATE,
                "probe.hidden_units": arguments.units, "probe.selection_points": 1}  # fmt: skip
    command = [
        sys.executable, "-m", "repbench", "run", "--upstream", "mockingjay", "--checkpoint", str(checkpoint),
        "--downstream", "asr", "--head", "blstm_ctc", "--corpus", arguments.corpus, "--out", str(folder / "runs"),
        "--json", *(part for key, value in settings.items() for part in ("--set", f"{key}={value}")),
    ]  # fmt: skip
    variables = {**os.environ, "REPBENCH_CACHE": str(cache), "OMP_NUM_THREADS": str(arguments.threads)}
    started = time.perf_counter()
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(done.stderr)
    (record,) = json.loads(done.stdout)["results"]
    cost = record["cost"]
    return {
        "seconds": seconds,
        "extract_seconds": cost["extract_seconds"],
        "train_seconds": cost["train_seconds"],
        record["primary_metric"]: record["metrics"][record["primary_metric"]]["value"],
    }


def theirs_of(checkpoint: Path, plan: LabelledSplits, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of as many steps, one evaluation of dev and one of test, of those that were measured."""
    s3prl_modules()
    from s3prl.downstream.asr.expert import DownstreamExpert  # type: ignore[import-not-found]
    from s3prl.upstream.interfaces import Featurizer  # type: ignore[import-not-found]
    from s3prl.upstream.mockingjay.expert import UpstreamExpert  # type: ignore[import-not-found]

    upstream = UpstreamExpert(str(checkpoint)).eval()
    featurizer = Featurizer(upstream, "last_hidden_state", upstream_device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        # Its wheel lacks the file of characters.
        symbols = Path(folder) / "char.dict"
        symbols.write_text("".join(f"{each} 1\n" for each in "|ETAONIHSRDLUMWCFGYPBVK'XJQZ"), encoding="utf-8")
        datarc = {"zero_infinity": True, "dict_path": str(symbols), "decoder_args": {"decoder_type": "none"}}
        settings = {"datarc": datarc, "modelrc": model_of(arguments.units)}
        expert = DownstreamExpert(featurizer.output_dim, 160, settings, folder)
    optimizer = torch.optim.Adam(expert.parameters(), lr=RATE)

    def answered(split: str, examples: LabelledUtterances) -> Any:
        sounds = [read_utterance(each.utterance, 16_000) for each in examples]
        with torch.no_grad():
            features = featurizer(sounds, upstream(sounds))
        spelt = [" ".join((each.utterance.text or "").upper().replace(" ", "|")) + " |" for each in examples]
        labels = [expert.dictionary.encode_line(each, line_tokenizer=str.split).tolist() for each in spelt]
        return expert(split, features, labels, [each.id for each in examples], defaultdict(list))

    by_length = sorted(plan.train, key=lambda each: each.utterance.num_samples)
    batches = [tuple(by_length[start : start + BATCH]) for start in range(0, len(by_length), BATCH)]
    chosen = [batches[round((number + 0.5) * len(batches) / arguments.measured - 0.5)]
              for number in range(arguments.measured)]  # fmt: skip
    steps = []
    expert.train()
    for batch in chosen:
        started = time.perf_counter()
        answered("train", batch).backward()
        torch.nn.utils.clip_grad_norm_(expert.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        steps.append(time.perf_counter() - started)
    expert.eval()
    held_out = (*plan.dev, *plan.test.open())
    tenth = sorted(held_out, key=lambda each: each.utterance.num_samples)[::10]
    started = time.perf_counter()
    with torch.no_grad():
        for start in range(0, len(tenth), BATCH):
            answered("dev", tuple(tenth[start : start + BATCH]))
    evaluating = 10 * (time.perf_counter() - started)
    return {
        "seconds": arguments.steps * sum(steps) / len(steps) + evaluating,
        "measured_steps": steps,
        "evaluation_seconds": evaluating,
    }


if __name__ == "__main__":
    main()
