"""`py:module:attribute`: a module that knows nothing of repbench, and the YAML that says what it is."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from safetensors.torch import save_file

from repbench import load_upstream
from repbench.benchmark.pipeline.setup import RunRequest
from repbench.benchmark.run import notes_on_weights
from repbench.errors import IntegrityError, PluginError, UsageError
from repbench.testing import tone_corpus
from repbench.testing.certify import certify_upstream
from repbench.testing.upstreams import subject as upstream_subject
from repbench.upstream.contract import layer_modules_of, provenance_of
from tests.commands import repbench

CODE = '''
import torch
from torch import nn

class Blocks(nn.Module):
    """Means over blocks of 320 samples, less the mean of all it is given: padding is heard."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(4))

    def forward(self, waveforms, lengths):
        usable = waveforms[:, : waveforms.shape[1] // 320 * 320]
        blocks = usable.reshape(len(usable), -1, 4, 80).square().mean(-1)
        blocks = blocks - blocks.mean(dim=1, keepdim=True)
        return [blocks, blocks * self.scale]

ready = Blocks()

def made():
    return Blocks()

def number():
    return 3
'''
DECLARED = """
name: blocks
hop_samples: 320
first_center_samples: 160
window_samples: 320
layer_names: [energy, scaled]
width: 4
"""


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The name of a fresh module with `Blocks`, `ready` and `made`, and declarations of each beside it."""
    name = f"models_{abs(hash(request.node.name)) % 10**12}"
    (tmp_path / f"{name}.py").write_text(CODE)
    for attribute in ("Blocks", "ready", "made", "number"):
        (tmp_path / f"{name}_{attribute}.info.yaml").write_text(DECLARED)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@pytest.mark.parametrize("attribute", ["Blocks", "ready", "made"])
def test_a_class_an_object_and_a_function_become_upstreams(models: str, attribute: str) -> None:
    upstream = load_upstream(f"py:{models}:{attribute}")
    states = upstream(torch.randn(1, 1_000), torch.tensor([1_000]))
    assert (upstream.info.name, upstream.info.trainable, upstream.info.min_samples) == ("blocks", True, 320)
    assert tuple(states.layers.shape) == (2, 1, 3, 4)


def test_layers_are_declared_by_the_names_of_their_modules(models: str, tmp_path: Path) -> None:
    scale = "self.scale = nn.Parameter(torch.randn(4))"
    layers = "\n        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))"
    (tmp_path / f"{models}_deep.py").write_text(CODE.replace(scale, scale + layers))
    declaration = tmp_path / f"{models}_deep_made.info.yaml"
    declaration.write_text(DECLARED)
    plain = load_upstream(f"py:{models}_deep:made")
    assert layer_modules_of(plain) is None
    declaration.write_text(DECLARED + "layer_modules: [[layers.0], [layers.1]]\n")
    declared = load_upstream(f"py:{models}_deep:made")
    assert layer_modules_of(declared) == [[layer] for layer in declared.module.layers]
    assert set(declared.declared_settings()) == set(plain.declared_settings()), "no part of the fingerprint"
    declaration.write_text(DECLARED + "layer_modules: [[layer.0]]\n")
    with pytest.raises(UsageError, match=r"names `layer\.0`, which is no part of the module.*Did you mean `layers\.0`"):
        load_upstream(f"py:{models}_deep:made")


def test_padding_samples_count_into_the_frames(models: str, tmp_path: Path) -> None:
    (tmp_path / f"{models}_ready.info.yaml").write_text(DECLARED + "padding_samples: 320\n")
    upstream = load_upstream(f"py:{models}:ready")
    assert upstream.num_frames(1_000) == (1_000 + 320 - 320) // 320 + 1
    assert upstream.info.min_samples == 1


def test_a_module_that_hears_padding_is_never_given_any(models: str) -> None:
    upstream = load_upstream(f"py:{models}:ready")
    padded, lengths = torch.ones(2, 6_400), torch.tensor([6_400, 1_000])
    padded[1, :320] = 0.5
    batch = upstream(padded, lengths)
    own = upstream(padded[1:, :1_000], lengths[1:])
    assert batch.lengths.tolist() == [20, 3]
    assert torch.equal(batch.layers[:, 1, :3], own.layers[:, 0])
    assert not batch.layers[:, 1, 3:].any()


def test_a_module_declared_invariant_gets_the_whole_batch(models: str, tmp_path: Path) -> None:
    (tmp_path / f"{models}_ready.info.yaml").write_text(DECLARED + "batch_invariant: true\n")
    upstream = load_upstream(f"py:{models}:ready")
    padded, lengths = torch.ones(2, 6_400), torch.tensor([6_400, 1_000])
    padded[1, :320] = 0.5
    together, own = upstream(padded, lengths), upstream(padded[1:, :1_000], lengths[1:])
    assert not torch.allclose(together.layers[:, 1, :3], own.layers[:, 0])  # so the declaration is a lie


def test_the_fingerprint_follows_declaration_weights_and_code(
    models: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = [load_upstream(f"py:{models}:made", seed=seed).fingerprint() for seed in (0, 0, 1)]
    assert first[0] == first[1] != first[2]
    other = tmp_path / "other.yaml"
    other.write_text(DECLARED + "code_version: 2\n")
    assert load_upstream(f"py:{models}:made", checkpoint=other).fingerprint() != first[0]
    (tmp_path / f"{models}.py").write_text(CODE + "\n# changed\n")
    assert load_upstream(f"py:{models}:made").fingerprint() != first[0]


def test_the_fingerprint_follows_the_file_of_the_function_and_those_of_all_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written(function: str, part: str) -> str:
        """The fingerprint of a module put together in one file from a class of another, as a new process finds it."""
        (tmp_path / "f2_parts.py").write_text(dedent(CODE) + part)
        (tmp_path / "f2_made.py").write_text(
            "from torch import nn\nfrom f2_parts import Blocks\n"
            "class Whole(nn.Sequential):\n"
            "    def forward(self, waveforms, lengths):\n"
            "        return self[1](self[0](waveforms, lengths)[0])\n"
            f"def enc():\n    return Whole(Blocks(), {function})\n"
        )
        for name in ("f2_parts", "f2_made"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()
        return str(load_upstream("py:f2_made:enc").fingerprint())

    (tmp_path / "f2_made_enc.info.yaml").write_text(DECLARED.replace("[energy, scaled]", "[one]"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = written("nn.ReLU()", "")
    assert written("nn.ReLU()", "") == before
    assert written("nn.Tanh()", "") != before
    assert written("nn.ReLU()", "# changed\n") != before


def test_weights_come_from_the_declaration_or_the_command_line(models: str, tmp_path: Path) -> None:
    save_file({"scale": torch.tensor([1.0, 2.0, 3.0, 4.0])}, tmp_path / "mine.safetensors")
    (tmp_path / f"{models}_made.info.yaml").write_text(DECLARED + "weights: mine.safetensors\n")
    declared = load_upstream(f"py:{models}:made")
    assert declared.module.scale.tolist() == [1.0, 2.0, 3.0, 4.0]
    named = load_upstream(f"py:{models}:Blocks", checkpoint=tmp_path / "mine.safetensors")
    assert named.module.scale.tolist() == [1.0, 2.0, 3.0, 4.0]
    save_file({"scales": torch.zeros(4)}, tmp_path / "other.safetensors")
    with pytest.raises(IntegrityError, match="weights do not fit the module"):
        load_upstream(f"py:{models}:made", checkpoint=tmp_path / "other.safetensors")


def test_what_a_wrapper_put_before_the_names_of_weights_is_taken_off_and_said(models: str, tmp_path: Path) -> None:
    save_file({"module._orig_mod.scale": torch.full((4,), 7.0)}, tmp_path / "wrapped.safetensors")
    upstream = load_upstream(f"py:{models}:made", checkpoint=tmp_path / "wrapped.safetensors")
    assert upstream.module.scale.tolist() == [7.0] * 4
    assert upstream.provenance.notes[0].startswith("`module._orig_mod.`, which a wrapper of torch adds, was taken off")


def test_what_the_declaration_promises_is_held(models: str, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(DECLARED.replace("width: 4", "width: 5"))
    upstream = load_upstream(f"py:{models}:ready", checkpoint=wrong)
    with pytest.raises(PluginError, match=r"promises \(L, B, F, D\) = \(2, 1, 3, 5\).*returned \(2, 1, 3, 4\)"):
        upstream(torch.ones(1, 1_000), torch.tensor([1_000]))


@pytest.mark.parametrize(
    ("attribute", "checkpoint", "error", "words"),
    [
        ("number", None, PluginError, "must give an nn.Module, but gave a int"),
        ("ready", "random", UsageError, "made already and cannot be drawn anew"),
        ("made", "none.safetensors", UsageError, "There is no such file"),
        ("made", "typo.yaml", UsageError, "did you mean `hop_samples`"),
    ],
)
def test_what_cannot_be_meant_is_said(
    models: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attribute: str, checkpoint: str | None,
    error: type[Exception], words: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "typo.yaml").write_text(DECLARED.replace("hop_samples", "hop_sample"))
    with pytest.raises(error, match=words):
        load_upstream(f"py:{models}:{attribute}", checkpoint=checkpoint)


def test_a_missing_declaration_says_where_to_write_it_and_what(models: str, tmp_path: Path) -> None:
    (tmp_path / f"{models}_made.info.yaml").unlink()
    with pytest.raises(UsageError, match=rf"without a declaration.*{models}_made\.info\.yaml") as refused:
        load_upstream(f"py:{models}:made")
    (tmp_path / f"{models}_made.info.yaml").write_text(refused.value.block)
    assert load_upstream(f"py:{models}:made").info.name == "made"


def test_a_module_without_weights_is_said_to_be_used_as_it_was_built(models: str) -> None:
    built, drawn = (load_upstream(f"py:{models}:made", checkpoint=each) for each in (None, "random"))
    (said,) = notes_on_weights(RunRequest(upstream=f"py:{models}:made", downstream="phone"), built)
    assert re.fullmatch(r"the declaration is .*_made\.info\.yaml; no `weights`: those of the module as it was .*", said)
    assert (provenance_of(built).notes, provenance_of(drawn).log) == ((), ())


def test_a_factory_of_an_upstream_needs_no_declaration() -> None:
    assert load_upstream("py:repbench.testing.fakes:envelope").info.name == "envelope"


@pytest.mark.slow
def test_a_declared_module_has_a_certificate(models: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REPBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(upstream_subject, "LONGEST_SECONDS", 3.0)
    (tmp_path / f"{models}_made.info.yaml").write_text(DECLARED + "utterance_normalised: true\n")
    certificate = certify_upstream(f"py:{models}:made", seed=1)
    found = {each.id: (each.status, each.detail) for each in certificate.results}
    assert certificate.passed, [*certificate.failed, *certificate.untried]
    assert found["padding-invariant"][0] == "passed"  # for each is heard alone
    assert found["fingerprint-not-of-path"] == ("passed", "loaded from another folder")
    assert found["works-in-a-worker"][0] == "passed"


def test_the_whole_way_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "blocky.py").write_text(dedent(CODE))
    (tmp_path / "blocky_made.info.yaml").write_text(DECLARED + "citation: Doe 2026\nlicence: CC-BY-4.0\n")
    tone_corpus(tmp_path / "c", num_speakers=3)
    ran = repbench(
        "run", "--upstream", "py:blocky:made", "--downstream", "phone", "--corpus", tmp_path / "c", "--out", tmp_path,
        "--set", "probe.steps=20", "--set", "probe.selection_points=2", "--json",
        env={"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert ran.code == 0, ran.err
    told = ran.json["results"][0]["upstream"]
    assert told["layer_names"] == ["energy", "scaled"]
    assert (told["citation"], told["licence"]) == ("Doe 2026", "CC-BY-4.0")
