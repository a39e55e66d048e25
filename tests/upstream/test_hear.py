"""`hear:MODULE` and `xares:MODULE:CLASS`: modules of other benchmarks, their times, certificates and refusals."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

from repbench import load_upstream
from repbench.benchmark.features.invariance_check import check_invariance
from repbench.benchmark.pipeline.setup import RunRequest
from repbench.benchmark.run import run
from repbench.errors import PluginError, UsageError
from repbench.registry import registry, short_name
from repbench.testing import tone_corpus
from repbench.testing.certify import certify_upstream
from repbench.testing.upstreams import subject as upstream_subject
from tests.upstream.hear_modules import MODULES, XARES, written


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """From code to the name of a fresh module with it."""

    def made(code: str) -> str:
        name = f"embeds_{hashlib.sha256((request.node.name + code).encode()).hexdigest()[:12]}"
        return written(tmp_path, monkeypatch, name, code)

    return made


def weights_in(folder: Path, name: str) -> Path:
    """A file with the weights of the module `recurrent`."""
    torch.manual_seed(5)
    file = folder / "weights.pt"
    torch.save(importlib.import_module(name).Recurrent().state_dict(), file)
    return file


# Rate, hop, first centre, samples of the shortest, width of the frames, and that of the vector.
SHAPES = {
    "centred": (16_000, 800, 0, 800, 8, 8),
    "relative": (22_050, 441, 551, 1102, 5, 10),
    "filled": (32_000, 320, 160, 1, 12, 12),
    "of_batch": (16_000, 320, 200, 400, 6, 6),
    "recurrent": (48_000, 960, 600, 1200, 7, 7),
}

# Padding less window, of (T + offset) // hop + 1 frames.
OFFSETS = {"centred": 0, "relative": -1102, "filled": -1, "of_batch": -400, "recurrent": -1200}


def spec_of(kind: str, module: Any, folder: Path) -> str:
    name = module(MODULES[kind])
    return f"hear:{name}:{weights_in(folder, name)}" if kind == "recurrent" else f"hear:{name}"


@pytest.mark.parametrize("kind", list(MODULES))
def test_rate_hop_centre_count_and_width_are_those_of_the_module(kind: str, module: Any, tmp_path: Path) -> None:
    rate, hop, first, shortest, width, scene_width = SHAPES[kind]
    spec = spec_of(kind, module, tmp_path)
    frames, scene = load_upstream(spec, seed=3), load_upstream(f"{spec}#scene", seed=3)
    info = frames.info
    assert (info.sample_rate_hz, info.hop_samples, info.first_center_samples) == (rate, hop, first)
    assert (info.width, info.layer_names, info.kind, info.trainable) == (width, ("timestamps",), "frames", False)
    assert info.min_samples <= max(shortest, rate // 40)
    assert (scene.info.kind, scene.info.width, scene.info.layer_names) == ("utterance", scene_width, ("scene",))
    called = importlib.import_module(spec.split(":")[1])
    edge = 9 * hop - OFFSETS[kind]  # the first length that gives ten frames
    assert (frames.num_frames(edge - 1), frames.num_frames(edge)) == (9, 10)
    for samples in (info.min_samples, edge - 1, edge, 2 * rate - 1, 2 * rate, 2 * rate + 1, 3 * rate + hop // 2):
        sound = 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(samples))
        given, times = called.get_timestamp_embeddings(sound, frames.model)
        states = frames(sound, torch.tensor([samples]))
        assert states.lengths.tolist() == [frames.num_frames(samples)] == [given.shape[1]]
        assert torch.equal(states.layers[0], given)
        centre = (info.first_center_samples + hop * (given.shape[1] - 1)) / rate * 1000
        assert float(times[0, -1]) == pytest.approx(centre, abs=0.05)
    # Two of other lengths: each as alone, though `of_batch` would mix them.
    sounds, lengths = torch.randn(2, 2 * rate), torch.tensor([2 * rate, rate])
    vectors = scene(sounds, lengths)
    assert tuple(vectors.layers.shape) == (1, 2, 1, scene_width)
    assert torch.equal(vectors.layers[:, 1], scene(sounds[1:, :rate], lengths[1:]).layers[:, 0])


@pytest.mark.parametrize("kind", list(MODULES))
@pytest.mark.parametrize("suffix", ["", "#scene"])
def test_every_module_has_a_certificate(
    kind: str, suffix: str, module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream_subject, "LONGEST_SECONDS", 6.0)
    certificate = certify_upstream(spec_of(kind, module, tmp_path) + suffix, keeps=False)
    assert certificate.passed, [f"{each.id}: {each.detail}" for each in (*certificate.failed, *certificate.untried)]
    found = {each.id: each.status for each in certificate.results}
    assert found["works-in-a-worker"] == found["batch-invariant"] == "passed"
    # An impulse moves every frame of the two that normalise or remember.
    times = "not measurable" if kind in ("of_batch", "recurrent") else "passed"
    assert found["hop-and-first-centre"] == ("not applicable" if suffix else times)


def test_the_fingerprint_follows_weights_code_and_kind(module: Any, tmp_path: Path) -> None:
    name = module(MODULES["centred"])
    first = load_upstream(f"hear:{name}", seed=1)
    assert first.fingerprint() == load_upstream(f"hear:{name}", seed=1).fingerprint()
    others = [load_upstream(f"hear:{name}", seed=2), load_upstream(f"hear:{name}#scene", seed=1)]
    (tmp_path / f"{name}.py").write_text((tmp_path / f"{name}.py").read_text() + "\n# changed\n")
    others.append(load_upstream(f"hear:{name}", seed=1))
    assert len({first.fingerprint(), *(each.fingerprint() for each in others)}) == 4


def changed(module: Any, old: str, new: str, kind: str = "centred") -> str:
    assert old in MODULES[kind]
    return f"hear:{module(MODULES[kind].replace(old, new))}"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("0.0, 50.0)", "0.0, 50.0) ** 1.01", "not evenly spaced by whole samples: frame "),
        ("0.0, 50.0)", "0.0, 50.03)", r"not evenly spaced.*frame \d+ is at sample"),
        ("0.0, 50.0)", "0.0, 50.0)[:, :-1]", "There are 41 frames, but 40 times"),
        ("return frames, times_of(frames, 0.0, 50.0)", "return frames", "must return embeddings and times"),
        ("@ model.scale", "@ model.scale[:, :7]", r"must give \(F, D\) = \(21, 8\), but gave \(21, 7\)"),
        ("return Model(16_000, 8)", "return {'sample_rate': 16_000}", "must be a torch.nn.Module, but is a builtins"),
        ("return Model(16_000, 8)", "return Model(None, 8)", "`sample_rate` of the model must be a whole number"),
        ("def load_model", "def load", "has no function `load_model`"),
        ("def load_model(model_file_path=\"\"):", "def load_model(model_file_path):", "plugin failed: TypeError"),
        ("padded = ", "audio = audio[:, :16_000]; padded = ", "has 1 frame|no rule|gave 21: no"),
    ],
)  # fmt: skip
def test_what_is_no_module_of_hear_is_refused_by_name(module: Any, old: str, new: str, fault: str) -> None:
    spec = changed(module, old, new)
    with pytest.raises(PluginError, match=fault) as caught:
        load_upstream(spec)(torch.randn(1, 16_000), torch.tensor([16_000]))
    assert spec in str(caught.value)


def test_hops_of_half_a_sample_are_refused_and_the_vector_is_offered(module: Any) -> None:
    spec = changed(module, "Model(16_000, 8)", "Model(44_100, 8)")
    code = "energies(padded, 800, 800, 8)"
    assert code in MODULES["centred"]
    spec = (
        f"hear:{module(MODULES['centred'].replace('Model(16_000, 8)', 'Model(44_100, 8)').replace('50.0)', '25.0)'))}"
    )
    with pytest.raises(PluginError, match="not evenly spaced by whole samples") as caught:
        load_upstream(spec)
    assert f"Take its vector, {spec}#scene" in str(caught.value)
    assert load_upstream(f"{spec}#scene").info.sample_rate_hz == 44_100


def test_times_that_change_with_the_sound_are_refused_at_the_call(module: Any) -> None:
    spec = changed(module, "0.0, 50.0)", "float(audio.shape[1] > 90_000), 50.0)")
    upstream = load_upstream(spec)
    upstream(torch.randn(1, 90_000), torch.tensor([90_000]))
    with pytest.raises(PluginError, match=r"frame 0 is at sample 16\.0 of 16000 Hz, and with a hop of 800 .* at 0"):
        upstream(torch.randn(1, 96_000), torch.tensor([96_000]))


def test_modules_and_weights_that_are_not_there_are_refused(module: Any, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="No module named 'no_such_module_of_hear'"):
        load_upstream("hear:no_such_module_of_hear")
    name = module(MODULES["recurrent"])
    with pytest.raises(UsageError, match="no such file of weights"):
        load_upstream(f"hear:{name}:{tmp_path}/none.pt")
    with pytest.raises(UsageError, match="cannot be drawn anew"):
        load_upstream(f"hear:{name}", checkpoint="random")
    named = load_upstream(f"hear:{name}", checkpoint=weights_in(tmp_path, name))
    assert named.fingerprint() == load_upstream(f"hear:{name}:{tmp_path}/weights.pt").fingerprint()


def test_a_module_that_draws_in_eval_mode_is_refused_by_a_run(module: Any) -> None:
    spec = changed(module, "@ model.scale", "@ model.scale + torch.randn(1)")
    upstream = load_upstream(spec)
    with pytest.raises(PluginError, match="promise `deterministic` is broken"):
        check_invariance(upstream, registry().find("upstream", spec).entry, upstream.fingerprint(), torch.device("cpu"))


def test_short_names_leave_the_weights_out() -> None:
    assert short_name("hear:package.model:/data/weights.pt#scene") == "hear:package.model#scene"
    assert short_name("hear:package.model:/data/weights.pt") == "hear:package.model"
    assert short_name("xares:package.model:Encoder") == "xares:Encoder"


@pytest.mark.slow
def test_a_scene_runs_verification_and_frames_run_phones(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPBENCH_CACHE", str(tmp_path / "cache"))
    tone_corpus(tmp_path / "tones", num_speakers=6, per_session=3)
    name = module(MODULES["of_batch"])
    found = {}
    for upstream, downstream in ((f"hear:{name}#scene", "verification"), (f"hear:{name}", "phone")):
        request = RunRequest(
            upstream=upstream, downstream=downstream, corpus=str(tmp_path / "tones"), out=tmp_path / "runs"
        )
        (written_,) = run(request)
        found[downstream] = written_.record
    assert (found["verification"].primary.value or 1.0) < 0.5
    assert (found["phone"].primary.value or 0.0) > (found["phone"].baselines.majority or 1.0)
    with pytest.raises(
        UsageError, match=f"`hear:{name}#scene` gives one vector an utterance, and `phone` needs frames"
    ):
        run(RunRequest(upstream=f"hear:{name}#scene", downstream="phone", corpus=str(tmp_path / "tones")))


# X-ARES


@pytest.mark.parametrize(
    ("name", "rate", "hop", "first"), [("Encoder", 16_000, 640, 320), ("Inside", 24_000, 300, 150)]
)
def test_an_encoder_of_xares_has_times_and_a_certificate(
    name: str, rate: int, hop: int, first: int, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream_subject, "LONGEST_SECONDS", 6.0)
    spec = f"xares:{module(XARES)}:{name}"
    upstream = load_upstream(spec)
    info = upstream.info
    assert (info.sample_rate_hz, info.hop_samples, info.first_center_samples, info.width) == (rate, hop, first, 9)
    sound = torch.randn(1, 2 * rate + 5)
    states = upstream(sound, torch.tensor([2 * rate + 5]))
    assert torch.equal(states.layers[0], upstream.model(sound))
    certificate = certify_upstream(spec, keeps=False)
    assert certificate.passed, [f"{each.id}: {each.detail}" for each in (*certificate.failed, *certificate.untried)]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (
            "self.hop_size_in_ms, self.output_dim = 16_000, 40, 9",
            "self.output_dim = 16_000, 9",
            "`hop_size_in_ms` of the",
        ),
        ("16_000, 40, 9", "16_000, 40.03, 9", "40.03 is 640.48 samples of 16000 Hz"),
        ("16_000, 40, 9", "16_000, 20, 9", "With frames 320 samples apart"),
        ("16_000, 40, 9", "16_000, 40, 0", "`output_dim` of the model must be"),
        ("9) * self.scale", "9).transpose(1, 2)[0]", r"must return \(B, F, D\)"),
    ],
)
def test_what_is_no_encoder_of_xares_is_refused_by_name(module: Any, old: str, new: str, fault: str) -> None:
    assert old in XARES
    spec = f"xares:{module(XARES.replace(old, new, 1))}:Encoder"
    with pytest.raises(PluginError, match=fault):
        load_upstream(spec)
    with pytest.raises(UsageError, match="The class of the encoder is missing"):
        load_upstream("xares:os")
    with pytest.raises(UsageError, match="loads its weights itself"):
        load_upstream(spec, checkpoint="random")
