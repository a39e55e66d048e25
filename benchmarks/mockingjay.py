"""Speed of Mockingjay BASE here and in S3PRL 0.4.18, in one run: training, extraction, and the first forward.

Both networks have the same sizes (3 layers of 768 on Kaldi's fbank240) and get the same batches: 8 stretches of 400
frames to train on, from features already made; ten utterances of ten seconds from waveforms to extract, one at a time
and five at a time. Rounds alternate and the best of each counts. The share of the machine's matrix-product peak is that
of the multiplications of the network alone: 6 a weight and frame in training, 2 in extraction, attention included.

S3PRL is not a dependency: `pip install --no-deps --target DIR s3prl==0.4.18`, then run with `PYTHONPATH=DIR` and with
what it imports (omegaconf, pandas, librosa, tqdm). It needs `torchaudio.set_audio_backend`, which is gone; an empty
function takes its place.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repbench.training.optimizers import build_optimizer
from repbench.upstream.contract import Batch
from repbench.upstream.mockingjay.config import FeatureSettings, MockingjayConfig
from repbench.upstream.mockingjay.factory import untrained
from repbench.upstream.mockingjay.upstream import Mockingjay

BATCH, FRAMES, WIDTH = 8, 400, 240
SECONDS, UTTERANCES, TOGETHER = 10, 10, (1, 5)
CLIP = 5.0

TRANSFORMER = {
    "input_dim": -1, "hidden_size": 768, "num_hidden_layers": 3, "num_attention_heads": 12, "intermediate_size": 3072,
    "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "initializer_range": 0.02,
    "layer_norm_eps": 1e-12, "share_layer": False, "pre_layer_norm": False,
}  # fmt: skip
TASK = {
    "loss": "L1", "mask_proportion": 0.15, "mask_consecutive_min": 7, "mask_consecutive_max": 7,
    "mask_allow_overlap": True, "mask_bucket_ratio": 1.5, "mask_frequency": 0, "noise_proportion": 0.0,
    "position_encoding_size": 768, "sequence_length": 1500,
}  # fmt: skip
AUDIO = {
    "kaldi": {"feat_type": "fbank", "fbank": {"frame_length": 25.0, "frame_shift": 10.0, "num_mel_bins": 80,
                                              "use_log_fbank": True}},
    "delta": {"order": 2, "win_length": 5},
    "cmvn": {"use_cmvn": True},
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--fp32", action="store_true", help="no bfloat16, which takes hours on some processors")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "mockingjay.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore")
    peak = {"fp32": matmul_peak(torch.float32)}
    if not arguments.fp32:
        peak["bf16"] = matmul_peak(torch.bfloat16)
    print({name: f"{value / 1e9:.0f} GFLOP/s" for name, value in peak.items()})
    first, extractors = first_forwards(tuple(peak))
    print({name: f"first forward {seconds:.2f} s" for name, seconds in first.items()})
    training = best_of({"s3prl": s3prl_training(), **our_training(tuple(peak))}, arguments.rounds)
    extraction = {
        f"extraction by {together}": best_of(extracting(extractors, together), arguments.rounds)
        for together in TOGETHER
    }
    result = summary(peak, first, training, extraction)
    for line in table(result):
        print(line)
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def matmul_peak(dtype: torch.dtype) -> float:
    """The best rate of a large matrix product, in operations a second."""
    left, right = torch.randn(3200, 3072, dtype=dtype), torch.randn(3072, 3072, dtype=dtype)
    work = 2 * 3200 * 3072 * 3072
    return work / min(seconds_of(lambda: left @ right) for _ in range(12))


def seconds_of(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def best_of(works: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The least seconds of each, in rounds that alternate; one round before them is not counted."""
    best = dict.fromkeys(works, float("inf"))
    for number in range(rounds + 1):
        for name, work in works.items():
            seconds = seconds_of(work)
            if number:
                best[name] = min(best[name], seconds)
    return best


# repbench


def ours() -> Mockingjay:
    return untrained(MockingjayConfig(features=FeatureSettings(input="fbank240")), None, 0)


def our_training(types: Sequence[str]) -> dict[str, Callable[[], float]]:
    def build(bf16: bool) -> Callable[[], float]:
        model = ours().train()
        optimizer, _ = build_optimizer(
            "adamw",
            model.named_parameters(),
            learning_rate=2e-4,
            betas=(0.9, 0.999),
            epsilon=None,
            weight_decay=0.01,
            warmup=0.07,
            total_steps=1000,
        )
        batch = Batch(spectrograms(), torch.full((BATCH,), FRAMES))
        generator = torch.Generator().manual_seed(0)

        def step() -> float:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = model.objective.loss(batch, generator)
            optimizer.zero_grad()
            torch.autograd.backward(loss.value)
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            return float(loss.value.detach())

        return step

    return {f"repbench {each}": build(each == "bf16") for each in types}


def our_extraction(model: Mockingjay, bf16: bool) -> Callable[[Sequence[Tensor]], Any]:
    def extract(sounds: Sequence[Tensor]) -> Any:
        lengths = torch.tensor([len(sound) for sound in sounds])
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return model(torch.stack(list(sounds)), lengths).layers

    return extract


# S3PRL


def s3prl_modules() -> tuple[Any, Any, Any, Any]:
    """Its builder, its pre-training network, its task, its optimizers."""
    import torchaudio

    torchaudio.set_audio_backend = lambda *_: None
    spec = importlib.util.find_spec("s3prl")
    if spec is None or spec.origin is None:
        sys.exit("s3prl is not there; see the head of this file")
    sys.path.append(str(Path(spec.origin).parent))  # its pre-training code imports `upstream`, `pretrain`, `utility`
    from pretrain.mockingjay import pretrain_expert  # type: ignore[import-not-found]
    from s3prl import optimizers  # type: ignore[import-not-found]
    from s3prl.pretrain.mockingjay import task  # type: ignore[import-not-found]
    from s3prl.upstream.mockingjay import builder  # type: ignore[import-not-found]

    return builder, pretrain_expert, task, optimizers


def s3prl_training() -> Callable[[], float]:
    builder, expert, task, optimizers = s3prl_modules()
    config = builder.TransformerConfig(TRANSFORMER)
    config.loss = "L1"
    model = expert.TransformerForMaskedAcousticModel(config, WIDTH, None).train()
    optimizer = optimizers.get_optimizer(
        [model], 1000, {"name": "AdamW_with_schedule", "lr": 2e-4, "warmup_proportion": 0.07}
    )
    table = task.fast_position_encoding(FRAMES, TRANSFORMER["hidden_size"])
    stretches = list(spectrograms())

    def step() -> float:
        # Its data loader makes masks of each batch in the training loop's process when num_workers is 0.
        made = task.generate_masked_acoustic_model_data((torch.stack(stretches),), TASK)
        masked, positions, label, attention, target = made[0], table, made[2], made[3], made[4]
        loss, _ = model(masked, positions.expand(len(masked), *positions.shape), label, attention, target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def s3prl_extraction(builder: Any, folder: Path) -> Callable[[Sequence[Tensor]], Any]:
    import yaml

    file = folder / "mockingjay.yaml"
    file.write_text(yaml.safe_dump({"transformer": TRANSFORMER, "task": TASK, "audio": AUDIO}), encoding="utf-8")
    options = {
        "load_pretrain": "False", "no_grad": "True", "dropout": "default", "spec_aug": "False",
        "spec_aug_prev": "True", "output_hidden_states": "True", "permute_input": "False", "select_layer": -1,
        "ckpt_file": "",
    }  # fmt: skip
    model = builder.PretrainedTransformer(options, inp_dim=-1, config=str(file)).eval()

    def extract(sounds: Sequence[Tensor]) -> Any:
        with torch.inference_mode():
            return model(list(sounds))

    return extract


# both


def first_forwards(
    types: Sequence[str],
) -> tuple[dict[str, float], dict[str, Callable[[Sequence[Tensor]], Any]]]:
    """Seconds of the first forward of each, and what extracts some utterances."""
    import tempfile

    builder = s3prl_modules()[0]
    sounds = waveforms()
    model = ours().eval()
    with tempfile.TemporaryDirectory() as folder:
        extractors = {
            "s3prl": s3prl_extraction(builder, Path(folder)),
            **{f"repbench {each}": our_extraction(model, each == "bf16") for each in types},
        }
    first = {name: seconds_of(partial(extract, sounds[:1])) for name, extract in extractors.items()}

    return first, extractors


def extracting(extractors: dict[str, Callable[[Sequence[Tensor]], Any]], together: int) -> dict[str, Callable[[], Any]]:
    """What extracts all utterances once, some at a time."""
    sounds = waveforms()

    def all_of(extract: Callable[[Sequence[Tensor]], Any]) -> Callable[[], Any]:
        return lambda: [extract(sounds[start : start + together]) for start in range(0, UTTERANCES, together)]

    return {name: all_of(extract) for name, extract in extractors.items()}


def spectrograms() -> Tensor:
    return torch.randn(BATCH, FRAMES, WIDTH, generator=torch.Generator().manual_seed(0))


def waveforms() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [0.1 * torch.randn(SECONDS * 16_000, generator=generator) for _ in range(UTTERANCES)]


def operations(frames: int, length: int, *, training: bool) -> float:
    """Multiplications and additions of the encoder over `frames` frames in stretches of `length`."""
    width, inner, layers = 768, 3072, 3
    a_frame = layers * (4 * width * width + 2 * width * inner + 2 * length * width) + WIDTH * width
    return (6.0 if training else 2.0) * a_frame * frames


def summary(
    peak: dict[str, float], first: dict[str, float], training: dict[str, float], extraction: dict[str, dict[str, float]]
) -> dict[str, Any]:
    frames, sound_frames = BATCH * FRAMES, SECONDS * 100

    def rows(seconds: dict[str, float], work: float) -> dict[str, Any]:
        return {
            name: {
                "seconds": value,
                "ratio": seconds["s3prl"] / value,
                "share_of_peak": work / value / peak["bf16" if "bf16" in name else "fp32"],
            }
            for name, value in seconds.items()
        }

    train = rows(training, operations(frames, FRAMES, training=True))
    for name, row in train.items():
        row["frames_per_second"] = frames / training[name]
    extract = {}
    for way, seconds in extraction.items():
        extract[way] = rows(seconds, operations(sound_frames * UTTERANCES, sound_frames, training=False))
        for name, row in extract[way].items():
            row["times_real_time"] = SECONDS * UTTERANCES / seconds[name]
    return {
        "machine": {
            "cpu": cpu_name(),
            "threads": torch.get_num_threads(),
            "platform": platform.platform(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "s3prl": version("s3prl"),
        },
        "matmul_peak_gflops": {name: value / 1e9 for name, value in peak.items()},
        "first_forward_seconds": first,
        "training": train,
        **extract,
    }


def table(result: dict[str, Any]) -> list[str]:
    lines = []
    ways = [f"extraction by {together}" for together in TOGETHER]
    for part, rate in (("training", "frames_per_second"), *((way, "times_real_time") for way in ways)):
        for name, row in result[part].items():
            lines.append(
                f"{part:<15} {name:<14} {row[rate]:8.1f} {rate.replace('_', ' ')}  {row['ratio']:5.2f} x S3PRL  "
                f"{100 * row['share_of_peak']:3.0f} % of the matmul peak"
            )
    return lines


def cpu_name() -> str:
    described = Path("/proc/cpuinfo")
    lines = described.read_text(encoding="utf-8").splitlines() if described.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), os.uname().machine)


if __name__ == "__main__":
    main()
