"""Time of a phone probe on Mockingjay BASE, by `repbench run` and by S3PRL 0.4.18, with the same weights.

Both read one file, a checkpoint in S3PRL's form with untrained weights of BASE (3 layers of 768 on Kaldi's fbank240),
and train a linear classifier of frames on its last layer: the same corpus and division, AdamW at the same rate, as many
steps as some epochs of batches of 32 utterances make, dev scored after each epoch. S3PRL's network, featurizer and
downstream expert are its own; the loop around them is written after its Runner, which runs the frozen network again in
every step and every evaluation. `repbench run` is the whole command, process start included: cold (nothing stored),
cold in bfloat16, and warm. It runs before S3PRL and again after it, and its seconds are the mean of both: a machine
whose pace changes within minutes favours neither.

An epoch of S3PRL takes minutes and is as long as the next: `--measured` of them are run as it runs them, and its time
is that of the measured steps and evaluations, times the number there would be. The features of its frozen network are
kept meanwhile, so that the classifier can then be trained through the epochs that are left and the accuracies be those
of the same number of steps. Its recipes score test and dev each time (`eval_dataloaders`); the result has the seconds
with dev alone and with both.

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
from torch import Tensor

from mockingjay import AUDIO, TASK, TRANSFORMER, s3prl_modules
from repbench.benchmark import environment
from repbench.benchmark.data.dataset import LabelledSplits, LabelledUtterances, label_splits
from repbench.benchmark.loading.upstreams import load_upstream
from repbench.benchmark.probing.prediction import Predictor
from repbench.benchmark.protocol import SplitSettings
from repbench.corpora.open import open_corpus
from repbench.corpora.read import read_utterance
from repbench.downstream.phone import Phone
from repbench.files import cache_dir

BATCH, RATE = 32, 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", default="synthetic:small")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--measured", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "probing.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "states.ckpt"
        write_checkpoint(checkpoint)
        corpus = open_corpus(arguments.corpus)
        plan = label_splits(corpus, Phone(), SplitSettings(), excludes=lambda each: None)
        steps = arguments.epochs * -(-len(plan.train) // BATCH)
        frames = round(100 * sum(each.utterance.seconds for each in plan.train) / len(plan.train) * BATCH)
        asked = {"steps": steps, "frames": frames}
        before = all_of_ours(Path(folder) / "before", checkpoint, arguments, **asked)
        as_it_comes = ours_of(
            "float32 warm", Path(folder) / "before", checkpoint, arguments, standardise=False, **asked
        )
        theirs = theirs_of(checkpoint, plan, arguments)
        after = all_of_ours(Path(folder) / "after", checkpoint, arguments, **asked)
    ours = {
        name: {**row, "seconds": (row["seconds"] + after[name]["seconds"]) / 2,
               "seconds_before_and_after": [row["seconds"], after[name]["seconds"]]}
        for name, row in before.items()
    }  # fmt: skip
    result = {
        "machine": {**environment.describe(torch.device("cpu")), "s3prl": version("s3prl")},
        "corpus": arguments.corpus,
        "seconds_of_sound": sum(utterance.seconds for utterance in corpus.utterances),
        "steps": steps,
        "epochs": arguments.epochs,
        "repbench": {
            name: {
                **row,
                "ratio": theirs["seconds"] / row["seconds"],
                "ratio_with_test_each_time": theirs["seconds_with_test_each_time"] / row["seconds"],
            }
            for name, row in ours.items()
        },
        "not_standardised": as_it_comes,
        "s3prl": theirs,
    }
    for name, row in result["repbench"].items():
        ratios = f"{row['ratio']:6.1f} x {row['ratio_with_test_each_time']:6.1f} x"
        print(f"repbench {name:<14} {row['seconds']:8.1f} s  {ratios}  accuracy {row['accuracy']:.4f} {row['ci95']}")
    print(f"not standardised, as S3PRL: accuracy {as_it_comes['accuracy']:.4f} {as_it_comes['ci95']}")
    seconds = f"{theirs['seconds']:.1f} s, {theirs['seconds_with_test_each_time']:.1f} s with test each time"
    print(f"S3PRL {seconds}; accuracy {theirs['accuracy']:.4f} after {arguments.epochs} epochs")
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def write_checkpoint(file: Path) -> None:
    """BASE with the weights of S3PRL's own initialisation, in the form of its checkpoints."""
    builder = s3prl_modules()[0]
    import yaml

    settings = {"transformer": TRANSFORMER, "task": TASK, "audio": AUDIO}
    config = file.with_suffix(".yaml")
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    options = {
        "load_pretrain": "False", "no_grad": "True", "dropout": "default", "spec_aug": "False",
        "spec_aug_prev": "True", "output_hidden_states": "True", "permute_input": "False", "select_layer": -1,
        "ckpt_file": "",
    }  # fmt: skip
    torch.manual_seed(0)
    model = builder.PretrainedTransformer(options, inp_dim=-1, config=str(config))
    torch.save({"Transformer": model.model.state_dict(), "Config": settings}, file)


def all_of_ours(
    folder: Path, checkpoint: Path, arguments: argparse.Namespace, *, steps: int, frames: int
) -> dict[str, dict[str, Any]]:
    """Cold and warm, in float32 and bfloat16."""
    folder.mkdir()
    names = ("float32 cold", "float32 warm", "bfloat16 cold", "bfloat16 warm")
    return {name: ours_of(name, folder, checkpoint, arguments, steps=steps, frames=frames) for name in names}


def ours_of(
    name: str,
    folder: Path,
    checkpoint: Path,
    arguments: argparse.Namespace,
    *,
    steps: int,
    frames: int,
    standardise: bool = True,
) -> dict[str, Any]:
    """Seconds and accuracy of `repbench run` as a command; a cold one has a cache of its own with the corpus alone."""
    precision, store = name.split()
    cache = folder / precision
    if store == "cold":
        cache.mkdir()
        (cache / "corpora").symlink_to(cache_dir() / "corpora")
    options = {"probe.steps": steps, "probe.batch_frames": frames, "probe.learning_rate": RATE,
               "probe.selection_points": arguments.epochs, "extraction.precision": precision,
               "probe.standardise": str(standardise).lower()}  # fmt: skip
    command = [
        sys.executable, "-m", "repbench", "run", "--upstream", "mockingjay", "--checkpoint", str(checkpoint),
        "--downstream", "phone", "--corpus", arguments.corpus, "--out", str(folder / "runs"), "--json",
        *(part for key, value in options.items() for part in ("--set", f"{key}={value}")),
    ]  # fmt: skip
    variables = {**os.environ, "REPBENCH_CACHE": str(cache), "OMP_NUM_THREADS": str(arguments.threads)}
    started = time.perf_counter()
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(done.stderr)
    (record,) = json.loads(done.stdout)["results"]
    return {
        "seconds": seconds,
        "extract_seconds": record["cost"]["extract_seconds"],
        "train_seconds": record["cost"]["train_seconds"],
        "accuracy": record["metrics"]["accuracy"]["value"],
        "ci95": record["metrics"]["accuracy"]["ci95"],
        "dev_value": record["selection"]["dev_value"],
    }


def theirs_of(checkpoint: Path, plan: LabelledSplits, arguments: argparse.Namespace) -> dict[str, Any]:
    """What S3PRL does with the same questions."""
    s3prl_modules()
    from s3prl.downstream.phone_linear.expert import DownstreamExpert  # type: ignore[import-not-found]
    from s3prl.downstream.phone_linear.model import Model  # type: ignore[import-not-found]
    from s3prl.upstream.interfaces import Featurizer  # type: ignore[import-not-found]
    from s3prl.upstream.mockingjay.expert import UpstreamExpert  # type: ignore[import-not-found]

    started = time.perf_counter()
    upstream = UpstreamExpert(str(checkpoint)).eval()
    featurizer = Featurizer(upstream, "last_hidden_state", upstream_device="cpu")
    expert = DownstreamExpert.__new__(DownstreamExpert)
    torch.nn.Module.__init__(expert)
    expert.model = Model(input_dim=featurizer.output_dim, output_class_num=len(plan.classes))
    expert.objective = torch.nn.CrossEntropyLoss()
    setting_up = time.perf_counter() - started

    predictor = Predictor(Phone(), plan.classes, load_upstream("mockingjay", checkpoint=checkpoint).info)
    optimizer = torch.optim.AdamW(expert.parameters(), lr=RATE)
    test_questions = plan.test.open()

    kept: dict[str, Tensor] = {}

    def features_of(examples: LabelledUtterances, *, again: bool = True) -> tuple[list[Tensor], list[Tensor]]:
        if again:
            sounds = [read_utterance(each.utterance, 16_000) for each in examples]
            with torch.no_grad():
                features = featurizer(sounds, upstream(sounds))
            kept.update({each.id: one for each, one in zip(examples, features, strict=True)})
        features = [kept[each.id] for each in examples]
        labels = [predictor.targets(each, len(one)) for each, one in zip(examples, features, strict=True)]
        return features, [torch.where(label < 0, -100, label) for label in labels]

    def evaluate(examples: LabelledUtterances) -> float:
        records: dict[str, list[float]] = defaultdict(list)
        expert.eval()
        with torch.no_grad():
            for start in range(0, len(examples), BATCH):
                features, labels = features_of(examples[start : start + BATCH])
                expert("dev", features, labels, records=records)
        return float(torch.FloatTensor(records["acc"]).mean())

    order = torch.Generator().manual_seed(0)
    by_length = sorted(plan.train, key=lambda each: each.utterance.num_samples)  # it buckets by length
    batches = [tuple(by_length[start : start + BATCH]) for start in range(0, len(by_length), BATCH)]

    def train_epoch(*, again: bool) -> None:
        expert.train()
        records: dict[str, list[float]] = defaultdict(list)
        for number in torch.randperm(len(batches), generator=order).tolist():
            features, labels = features_of(batches[number], again=again)
            loss = expert("train", features, labels, records=records)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(expert.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    epochs, evaluations = [], []
    for _ in range(arguments.measured):
        started = time.perf_counter()
        train_epoch(again=True)
        epochs.append(time.perf_counter() - started)
        started = time.perf_counter()
        evaluate(plan.dev)
        evaluations.append(time.perf_counter() - started)
    for _ in range(arguments.epochs - arguments.measured):
        train_epoch(again=False)
    started = time.perf_counter()
    accuracy = evaluate(test_questions)
    testing = time.perf_counter() - started
    whole = setting_up + arguments.epochs * (sum(epochs) + sum(evaluations)) / arguments.measured + testing
    return {
        "seconds": whole,
        "seconds_with_test_each_time": whole + (arguments.epochs - 1) * testing,
        "measured_epochs": arguments.measured,
        "epoch_seconds": epochs,
        "evaluation_seconds": evaluations,
        "test_seconds": testing,
        "setting_up_seconds": setting_up,
        "accuracy": accuracy,
    }


if __name__ == "__main__":
    main()
