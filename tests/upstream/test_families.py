"""The table of transformers' families in docs/models.md is that of a run, and the run can be repeated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import families
from repbench import load_upstream
from repbench.errors import IntegrityError
from repbench.testing.upstreams import UPSTREAM_CHECKS
from repbench.testing.upstreams import subject as upstream_subject
from repbench.upstream.adapters.huggingface_families import FAMILIES
from repbench.upstream.contract import layer_modules_of
from tests.upstream.speech_encoders import KINDS, save_small

transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install 'repbench[dev]'")

RESULT: dict[str, Any] = json.loads(families.RESULT.read_text(encoding="utf-8"))
OF_A_PROCESS = "works-in-a-worker"


def test_the_table_is_that_of_its_result() -> None:
    text = families.PAGE.read_text(encoding="utf-8")
    assert families.with_table(text) == text, "run `python tools/families.py --render`"
    assert [row["kind"] for row in RESULT["rows"]] == list(KINDS) == list(families.TITLES)
    shown = {FAMILIES[row["model_type"]] for row in RESULT["rows"]}
    assert shown == set(FAMILIES.values()), "a family without a small model"
    for row in RESULT["rows"]:
        assert row["checks"].keys() == {check.id for check in UPSTREAM_CHECKS}


def test_a_check_that_failed_and_a_family_that_is_lacking_are_named() -> None:
    row = RESULT["rows"][0]
    failed = {
        **row,
        "checks": {**row["checks"], "padding-invariant": "failed"},
        "details": {"padding-invariant": "they differ"},
    }
    text = families.table({**RESULT, "rows": [failed, {"kind": "sew", "lacking": "transformers 4.0: no `SEWConfig`"}]})
    first, second = text.splitlines()[2:4]
    assert "| **no** | 20 passed, 1 failed, 1 not measurable; `padding-invariant`: they differ |" in first
    assert "transformers 4.0: no `SEWConfig`" in second
    assert first.count("|") == second.count("|")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_result_is_found_again(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_subject, "LONGEST_SECONDS", 3.0)
    (row,) = [row for row in RESULT["rows"] if row["kind"] == kind]
    found = families.certified(kind, tmp_path / kind, in_a_worker=False)
    expected = {**row["checks"], OF_A_PROCESS: found["checks"][OF_A_PROCESS]}
    assert found["checks"] == expected, found["details"]
    assert {**found, "checks": 0, "details": 0} == {**row, "checks": 0, "details": 0}


@pytest.mark.parametrize("kind", KINDS)
def test_the_modules_of_a_layer_are_those_that_its_hidden_state_begins_to_depend_on(kind: str, tmp_path: Path) -> None:
    upstream = load_upstream(f"hf:{save_small(kind, tmp_path / kind)}")
    layers = layer_modules_of(upstream)
    assert layers is not None
    assert len(layers) == len(upstream.info.layer_names) - 1
    sound = torch.randn((1, 8000), generator=torch.Generator().manual_seed(1)), torch.tensor([8000])
    named = {module: name for name, module in upstream.named_modules()}
    with torch.no_grad():
        before = upstream(*sound).layers
        for number, layer in enumerate(layers, start=1):
            for module in layer:
                kept = {name: each.clone() for name, each in module.state_dict().items()}
                for parameter in module.parameters():
                    parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
                changed = [
                    not torch.equal(one, other) for one, other in zip(before, upstream(*sound).layers, strict=True)
                ]
                module.load_state_dict(kept)
                # transformers 5 gives the last hidden state before a normalisation after all layers, 4 after it.
                if "norm" not in named[module] or any(changed):
                    assert changed == [each >= number for each in range(len(changed))], (number, named[module])
        # All else is below the first layer, or, as tables of relative positions, in every layer.
        declared = {parameter for layer in layers for module in layer for parameter in module.parameters()}
        for parameter in set(upstream.parameters()) - declared:
            value = parameter.clone()
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
            after = upstream(*sound).layers
            parameter.copy_(value)
            changed = [not torch.equal(one, other) for one, other in zip(before, after, strict=True)]
            assert changed[1] or not any(changed), changed


@pytest.mark.parametrize("kind", ["speecht5", "whisper", "moonshine"])
def test_the_decoder_may_be_missing_but_not_the_encoder(kind: str, tmp_path: Path) -> None:
    whole = load_upstream(f"hf:{save_small(kind, tmp_path / kind)}")
    file = tmp_path / kind / "model.safetensors"
    weights = load_file(file)
    encoder = {name: each for name, each in weights.items() if "decoder." not in name and "postnet" not in name}
    assert len(encoder) < len(weights)
    save_file(encoder, file, metadata={"format": "pt"})
    assert load_upstream(f"hf:{tmp_path / kind}").fingerprint() == whole.fingerprint()
    del encoder[sorted(encoder)[0]]
    save_file(encoder, file, metadata={"format": "pt"})
    with pytest.raises(IntegrityError, match="1 missing"):
        load_upstream(f"hf:{tmp_path / kind}")


def test_parakeet_is_the_same_encoder_under_each_head(tmp_path: Path) -> None:
    under_ctc = load_upstream(f"hf:{save_small('parakeet_ctc', tmp_path / 'ctc')}")
    encoder = transformers.ParakeetEncoder.from_pretrained(tmp_path / "ctc", local_files_only=True)
    sizes = {"vocab_size": 64, "pad_token_id": 0, "blank_token_id": 63, "decoder_hidden_size": 16}
    model = transformers.ParakeetForTDT(
        transformers.ParakeetTDTConfig(encoder_config=encoder.config.to_dict(), num_decoder_layers=1, **sizes)
    )
    model.encoder.load_state_dict(encoder.state_dict())
    for name, saved in {"tdt": model, "encoder": encoder}.items():
        saved.save_pretrained(tmp_path / name)
        (tmp_path / name / "preprocessor_config.json").write_bytes(
            (tmp_path / "ctc" / "preprocessor_config.json").read_bytes()
        )
        alone = load_upstream(f"hf:{tmp_path / name}")
        assert alone.info.layer_names == under_ctc.info.layer_names
        for one, other in zip(alone.state_dict().values(), under_ctc.state_dict().values(), strict=True):
            assert one.equal(other), name
