"""Runs that fine-tune a part of an upstream: what moves, what is kept, how they resume, and what is exported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from repbench import load_upstream
from repbench.benchmark.finetuning.network import load_network
from repbench.benchmark.finetuning.trainer import Finetuner
from repbench.benchmark.pipeline.export_upstream import export_upstream
from repbench.benchmark.pipeline.pretrain import run_pretraining
from repbench.benchmark.records.record import read_record
from repbench.benchmark.run import RunRequest, WrittenRecord, run
from repbench.errors import IntegrityError, UsageError
from repbench.registry import registry
from repbench.testing import tone_corpus
from repbench.upstream.checkpoints.native import list_checkpoints, open_checkpoint, read_weights
from repbench.upstream.contract import provenance_of
from tests.benchmark.small_adapting import DEEP, UNDECLARED
from tests.benchmark.small_finetuning import outcome, request, states
from tests.benchmark.test_finetuning import Stopped, killed_at, stopped_after
from tests.commands import repbench
from tests.upstream import small_training
from tests.upstream.speech_encoders import save_small

RULES: dict[str, dict[str, Any]] = {
    "last:1": {"finetune__trainable": "last:1"},
    "norms": {"finetune__trainable": "norms"},
    "lora:4": {"finetune__trainable": "lora:4", "finetune__lora_alpha": 8.0},
    "staged": {"finetune__freeze_steps": 2, "finetune__unfreeze_every": 3, "finetune__layer_decay": 0.5},
}


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapting") / "tones"
    small_training.small_corpus(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Mockingjay of two layers of 16 units, with dropout, after two steps of pre-training."""
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    asked = small_training.request("mockingjay", tones, folder, steps=2, num_layers=2)
    return str(run_pretraining(asked).checkpoint)


@pytest.fixture(scope="module")
def wav2vec2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers", reason="transformers is not installed: pip install 'repbench[dev]'")
    return save_small("wav2vec2", tmp_path_factory.mktemp("hf") / "w2v2")


def of_file(record: Path) -> dict[str, Tensor]:
    """The tensors of the file of a network."""
    with safe_open(record.parent / "network.safetensors", framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping


def features(upstream: Any, seconds: float = 1.0) -> Tensor:
    samples = 0.1 * torch.randn(1, int(16_000 * seconds), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        layers: Tensor = upstream(samples, torch.tensor([samples.shape[1]])).layers
    return layers


def tuned(record: Path, checkpoint: str | None = None) -> Any:
    """The upstream of a fine-tuned run, as a run with --probe builds it."""
    known = read_record(record)
    network = load_network(record.parent / "network.safetensors")
    entry = registry().find("upstream", known.upstream.name).entry
    return network.build(entry, checkpoint, known.upstream.checkpoint, known.seed)


# what moves, and how it resumes


@pytest.mark.parametrize("rule", RULES)
def test_only_the_weights_of_the_rule_move_and_a_killed_run_ends_in_the_same_bits(
    rule: str, tones: Path, checkpoint: str, tmp_path: Path
) -> None:
    (whole,) = run(request("mockingjay", tones, tmp_path / "whole", checkpoint=checkpoint, **RULES[rule]))
    part, after = whole.record.finetuned, tuned(whole.path).state_dict()
    before = read_weights(open_checkpoint(Path(checkpoint)))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    unread = ("head.", "encoder.output_norms.0.", "encoder.output_norms.1.")
    layers, tops = [f"encoder.layers.{number}." for number in (0, 1)], "encoder.layers.1."
    assert part is not None
    assert part.total == sum(each.numel() for each in before.values())
    assert part.rule == RULES[rule].get("finetune__trainable", "all")
    if rule == "last:1":
        assert moved == {name for name in before if name.startswith((tops, "encoder.output_norms.2."))}
        assert part.trainable == part.moved == sum(before[name].numel() for name in moved)
    elif rule == "norms":
        assert moved == {name for name in before if "norm" in name and not name.startswith(unread)}
        assert part.moved == sum(before[name].numel() for name in moved) < part.trainable
    elif rule == "lora:4":
        matrices = {name for name in before if before[name].ndim == 2 and not name.startswith("head.")}
        assert moved == matrices
        assert part.moved == sum(4 * sum(before[name].shape) for name in matrices) < part.trainable
    else:
        assert all(any(name.startswith(layer) for name in moved) for layer in layers)
        assert part.moved == sum(before[name].numel() for name in moved)

    out = tmp_path / "killed"
    asked = killed_at(7, tones, checkpoint, out, **RULES[rule])
    (state,) = states(out)
    names = read_weights(list_checkpoints(state)[-1]).keys()
    kept = {name.removeprefix("upstream.") for name in names if name.startswith("upstream.")}
    if rule != "staged":
        assert kept
        assert not [name for name in kept & (before.keys() - moved) if not name.startswith(unread)]
    (resumed,) = run(asked)
    assert outcome(resumed.path) == outcome(whole.path)
    assert resumed.record.finetuned == part


def test_a_rule_at_its_default_leaves_record_and_unfinished_training_as_they_were(
    tones: Path, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = []
    fit = Finetuner.fit

    def noted(self: Finetuner) -> Any:
        folders.append(self.folder.name)
        return fit(self)

    monkeypatch.setattr(Finetuner, "fit", noted)
    asked = request("mockingjay", tones, tmp_path, checkpoint=checkpoint, finetune__steps=2)
    (plain,) = run(asked)
    changed = asked.protocol.finetune.model_copy(update={"trainable": "last:1"})
    (other,) = run(replace(asked, protocol=asked.protocol.model_copy(update={"finetune": changed})))
    assert "trainable" not in plain.record.protocol["finetune"]
    assert other.record.protocol["finetune"]["trainable"] == "last:1"
    assert len(set(folders)) == 2
    assert plain.record.finetuned is not None
    assert (plain.record.finetuned.rule, other.record.finetuned.rule if other.record.finetuned else "") == (
        "all",
        "last:1",
    )
    again = run(replace(asked, missing_only=True))
    assert [each.path for each in again] == [plain.path]


@pytest.mark.slow
def test_seeds_of_one_run_begin_with_the_same_weights(tones: Path, checkpoint: str, tmp_path: Path) -> None:
    both = request("mockingjay", tones, tmp_path / "both", checkpoint=checkpoint, seeds=(0, 1), finetune__steps=4,
                   finetune__trainable="lora:2")  # fmt: skip
    together = run(both)
    for seed, written in zip((0, 1), together, strict=True):
        (alone,) = run(replace(both, out=tmp_path / str(seed), seeds=(seed,)))
        assert outcome(alone.path) == outcome(written.path)
        assert alone.record.cost.parameters == written.record.cost.parameters == alone.record.finetuned.total  # type: ignore[union-attr]


def test_points_before_the_upstream_trains_do_not_use_up_the_patience(tones: Path, tmp_path: Path) -> None:
    changed = {"finetune__selection_points": 12, "finetune__patience": 1, "finetune__head_learning_rate": 1e-9,
               "finetune__freeze_steps": 6}  # fmt: skip
    (written,) = run(request(DEEP, tones, tmp_path, **changed))
    steps = [point["step"] for point in written.record.selection.grid]
    assert steps[:7] == [1, 2, 3, 4, 5, 6, 7], "dev stays the same while a head that hardly learns is alone"


def test_a_plugin_that_declares_no_layers_is_refused_before_data_is_read(tmp_path: Path) -> None:
    asked = request(UNDECLARED, tmp_path / "there is no corpus here", tmp_path, finetune__trainable="last:1")
    with pytest.raises(UsageError, match=r"does not declare which of its modules are its layers"):
        run(asked)


# the small wav2vec 2.0


@pytest.fixture(scope="module")
def lora(tones: Path, wav2vec2: Path, tmp_path_factory: pytest.TempPathFactory) -> WrittenRecord:
    """20 steps of LoRA."""
    (written,) = run(lora_request(tones, wav2vec2, tmp_path_factory.mktemp("lora")))
    return written


def lora_request(tones: Path, wav2vec2: Path, out: Path) -> RunRequest:
    changed = {"finetune__steps": 20, "finetune__batch_seconds": 2.0, "finetune__trainable": "lora:4",
               "finetune__lora_alpha": 8.0, "finetune__learning_rate": 1e-2}  # fmt: skip
    return request(f"hf:{wav2vec2}", tones, out, **changed)


def test_lora_on_wav2vec2_moves_and_saves_its_weights_alone(lora: WrittenRecord, wav2vec2: Path) -> None:
    part, saved = lora.record.finetuned, of_file(lora.path)
    base = load_upstream(f"hf:{wav2vec2}")
    weights = {name: each for name, each in saved.items() if name.startswith("upstream.")}
    assert part is not None
    assert all(name.endswith(("lora_a", "lora_b")) for name in weights)
    # the 18 matrices of three layers and the projection of the features, of 16 or 32 by 8, 16 or 32
    assert len(weights) == 2 * (3 * 6 + 1)
    sizes = [each.shape for name, each in base.named_parameters() if each.ndim == 2]
    assert part.moved == part.trainable == sum(4 * sum(each) for each in sizes)
    assert part.moved == sum(each.numel() for each in weights.values())
    assert part.total == sum(each.numel() for each in base.parameters()) == lora.record.cost.parameters
    after = tuned(lora.path).state_dict()
    changed = {name for name, each in base.state_dict().items() if not torch.equal(each, after[name])}
    assert changed == {name for name, each in base.state_dict().items() if each.ndim == 2}
    assert not torch.equal(features(base), features(tuned(lora.path)))


def test_lora_on_wav2vec2_resumes_in_the_same_bits(
    lora: WrittenRecord, tones: Path, wav2vec2: Path, tmp_path: Path
) -> None:
    asked = lora_request(tones, wav2vec2, tmp_path)
    with stopped_after(13), pytest.raises(Stopped):
        run(asked)
    (resumed,) = run(asked)
    assert outcome(resumed.path) == outcome(lora.path)


def test_a_frozen_wav2vec2_below_the_trained_layers_builds_no_graph(wav2vec2: Path) -> None:
    from repbench.benchmark.finetuning.trainable import TrainablePlan
    from repbench.benchmark.protocol import FinetuneSettings

    upstream = load_upstream(f"hf:{wav2vec2}")
    outputs: list[bool] = []
    network = upstream.network
    for module in (network.feature_extractor, network.feature_projection, *network.encoder.layers):
        module.register_forward_hook(
            lambda module, given, output: outputs.append(
                (output[0] if isinstance(output, tuple) else output).requires_grad
            )
        )
    samples = (0.1 * torch.randn(1, 8000), torch.tensor([8000]))
    for rule, expected in (("last:1", [False] * 4 + [True]), ("all", [True] * 5)):
        outputs.clear()
        TrainablePlan(upstream, FinetuneSettings(trainable=rule)).apply(0)
        upstream(*samples)
        assert outputs == expected, rule


@pytest.mark.slow
def test_the_exported_wav2vec2_is_that_of_the_run_and_loads_with_transformers(
    lora: WrittenRecord, tones: Path, wav2vec2: Path, tmp_path: Path
) -> None:
    import transformers

    options = export_upstream(lora.path, tmp_path / "tuned").options
    assert options == ("--upstream", f"hf:{tmp_path / 'tuned'}")
    exported = load_upstream(options[1])
    adapted = features(tuned(lora.path))
    torch.testing.assert_close(features(exported), adapted, atol=1e-5, rtol=0)
    assert torch.equal(features(exported), adapted)
    model, info = transformers.AutoModel.from_pretrained(
        tmp_path / "tuned", local_files_only=True, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not any("lora" in name for name in model.state_dict())
    # another run takes it as any folder, and knows what it was trained on
    names = [each.name for each in provenance_of(exported).trained_on or ()]
    assert names == [lora.record.corpus.name, "unknown"]
    (frozen,) = run(replace(request(options[1], tones, tmp_path / "runs"), finetune=False))
    assert frozen.record.upstream.fingerprint == exported.fingerprint() != lora.record.upstream.fingerprint


def test_a_partial_network_scores_another_corpus_with_its_checkpoint(
    lora: WrittenRecord, wav2vec2: Path, tmp_path: Path
) -> None:
    tone_corpus(tmp_path / "other", num_speakers=3, per_session=2, salt="other")
    plain = RunRequest(
        upstream=f"hf:{wav2vec2}", downstream="phone", corpus=str(tmp_path / "other"), out=tmp_path,
        probe=lora.path.parent,
    )  # fmt: skip
    (scored,) = run(plain)
    assert scored.record.finetuned == lora.record.finetuned
    assert of_file(scored.path).keys() == of_file(lora.path).keys()
    (again,) = run(replace(plain, probe=scored.path.parent))
    assert again.record.metrics == scored.record.metrics
    other = save_small("wav2vec2", tmp_path / "another", seed=1)
    with pytest.raises(IntegrityError, match="fine-tuned from another"):
        tuned(lora.path, str(other))


# export


def test_the_exported_mockingjay_is_a_checkpoint_as_any(tones: Path, checkpoint: str, tmp_path: Path) -> None:
    (written,) = run(request("mockingjay", tones, tmp_path, checkpoint=checkpoint, **RULES["lora:4"]))
    done = repbench("export", written.path.parent, "--out", tmp_path / "tuned", "--json")
    assert done.code == 0, done.err
    assert done.json["options"] == ["--upstream", "mockingjay", "--checkpoint", str(tmp_path / "tuned")]
    upstream = load_upstream("mockingjay", checkpoint=str(tmp_path / "tuned"))
    assert torch.equal(features(upstream), features(tuned(written.path)))
    provenance = provenance_of(upstream)
    assert provenance.heard == provenance_of(load_upstream("mockingjay", checkpoint=checkpoint)).heard
    assert [each.source for each in provenance.trained_on or ()] == ["fine-tuned by repbench", "the checkpoint"]
    assert "weights moved by lora:4" in provenance.notes[-1]
    with pytest.raises(UsageError, match=r"not an empty folder.*--out"):
        export_upstream(written.path.parent, tmp_path / "tuned")


@pytest.mark.slow
def test_only_a_fine_tuned_run_is_exported(tones: Path, checkpoint: str, tmp_path: Path) -> None:
    (frozen,) = run(replace(request("mockingjay", tones, tmp_path, checkpoint=checkpoint), finetune=False))
    with pytest.raises(UsageError, match=r"The upstream of this run is frozen.*--finetune"):
        export_upstream(frozen.path, tmp_path / "tuned")
    (plugin,) = run(request(DEEP, tones, tmp_path, finetune__steps=2))
    with pytest.raises(UsageError, match="is a plugin whose checkpoints repbench does not know"):
        export_upstream(plugin.path, tmp_path / "tuned")
    assert not (tmp_path / "tuned").exists()
