"""Upstreams of one vector an utterance: their declaration, what is refused of it, and their certificate."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from repbench import load_upstream
from repbench.benchmark.features.export import ExportOptions, extract_files
from repbench.benchmark.features.extraction import run_sounds
from repbench.benchmark.loading.certificates import declared_as_json
from repbench.errors import PluginError, UsageError
from repbench.files import canonical_json
from repbench.testing import Envelope, tone_corpus
from repbench.testing.certify import certify_upstream
from repbench.upstream.contract import HiddenStates, UpstreamInfo, fingerprint_of
from repbench.upstream.windowed import windows_for
from tests.upstream.one_vector import CODE, VECTOR, models_in


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    name = f"vectors_{hashlib.sha256(request.node.name.encode()).hexdigest()[:12]}"
    return models_in(tmp_path, monkeypatch, name)


def test_a_declared_module_gives_one_frame_whatever_the_length(models: str) -> None:
    voice = load_upstream(f"py:{models}:Voice")
    waveforms, lengths = torch.randn(2, 48_000), torch.tensor([48_000, 16_000])
    states = voice(waveforms, lengths)
    assert (voice.info.kind, voice.info.one_vector, voice.info.hop_samples) == ("utterance", True, 0)
    assert [voice.num_frames(samples) for samples in (400, 16_000, 480_000)] == [1, 1, 1]
    assert tuple(states.layers.shape) == (2, 2, 1, 48)
    assert states.lengths.tolist() == [1, 1]
    frames = load_upstream(f"py:{models}:Blocks")(waveforms[1:, :16_000], lengths[1:]).layers  # (L, 1, F, D)
    torch.testing.assert_close(states.layers[:, 1, 0], frames[:, 0].mean(dim=1))


def returning(models: str, folder: Path, expression: str, declared: str = "") -> Any:
    """An upstream of the module whose `forward` returns an expression of its frames `(B, F, D)`."""
    code = CODE.replace("[frames.mean(dim=1) for frames in super().forward(waveforms, lengths)]", expression)
    (folder / f"{models}.py").write_text(code)
    (folder / f"{models}_Voice.info.yaml").write_text(VECTOR + declared)
    return load_upstream(f"py:{models}:Voice")


@pytest.mark.parametrize(
    "expression",
    [
        "torch.stack([each.mean(1) for each in super().forward(waveforms, lengths)])",
        "tuple(each.mean(1) for each in super().forward(waveforms, lengths))",
    ],
)
def test_several_layers_come_as_a_tensor_or_a_list(models: str, tmp_path: Path, expression: str) -> None:
    states = returning(models, tmp_path, expression)(torch.randn(1, 48_000), torch.tensor([16_000]))
    assert tuple(states.layers.shape) == (2, 1, 1, 48)


@pytest.mark.parametrize(
    ("expression", "shown"),
    [
        ("super().forward(waveforms, lengths)", r"list of \(1, 40, 48\), \(1, 40, 48\)"),
        ("super().forward(waveforms, lengths)[0].mean(1)", r"\(1, 48\)"),
        ("[each.mean(1)[:, :47] for each in super().forward(waveforms, lengths)]", r"list of \(1, 47\), \(1, 47\)"),
    ],
    ids=["frames", "one layer", "width"],
)
def test_what_is_not_one_vector_is_refused_with_both_shapes(
    models: str, tmp_path: Path, expression: str, shown: str
) -> None:
    model = returning(models, tmp_path, expression)
    with pytest.raises(PluginError, match=rf"one vector an utterance, \(L, B, D\) = \(2, 1, 48\), .*returned {shown}"):
        model(torch.randn(1, 48_000), torch.tensor([16_000]))


def test_times_are_refused_in_the_declaration_of_a_vector(models: str, tmp_path: Path) -> None:
    (tmp_path / f"{models}_Voice.info.yaml").write_text(VECTOR + "hop_samples: 160\n")
    with pytest.raises(UsageError, match="hop_samples"):
        load_upstream(f"py:{models}:Voice")
    (tmp_path / f"{models}_Voice.info.yaml").write_text(VECTOR.replace("kind: utterance", "kind: utterances"))
    with pytest.raises(UsageError, match="Did you mean `utterance`"):
        load_upstream(f"py:{models}:Voice")


def info(**changes: Any) -> UpstreamInfo:
    return dataclasses.replace(Envelope().info, **changes)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, "`hop_samples` must be 0 for one vector an utterance, which has no times, but is 320; `first_center"),
        (
            {"hop_samples": 0, "first_center_samples": 0, "utterance_normalised": True},
            "`utterance_normalised` must be False for one vector",
        ),
    ],
)
def test_a_vector_has_neither_times_nor_a_mean_over_them(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(PluginError, match=fault):
        info(kind="utterance", **changes)
    assert info(kind="utterance", hop_samples=0, first_center_samples=0).one_vector
    with pytest.raises(PluginError, match="`hop_samples` must be at least 1, but is 0"):
        info(hop_samples=0)
    with pytest.raises(PluginError, match="`kind` must be frames or utterance, but is 'frame'"):
        info(kind="frame")


def test_what_was_written_of_models_of_frames_before_the_field_stays(tmp_path: Path) -> None:
    """Certificates, fingerprints of declared modules and exported files know no `kind` of frames."""
    before = {key: value for key, value in dataclasses.asdict(info()).items() if key != "kind"}
    assert declared_as_json(info()) == json.loads(canonical_json(before))
    tone_corpus(tmp_path / "tones", num_speakers=1, sessions=1, per_session=1)
    (sound,) = (tmp_path / "tones" / "sounds").rglob("*.wav")
    options = ExportOptions(device=torch.device("cpu"), resample=False)
    (file,) = extract_files(Envelope().eval(), [sound], tmp_path / "out", options)
    with safe_open(file, "pt") as opened:
        assert json.loads(opened.metadata()["info"]) == json.loads(canonical_json(before))
    vector = info(kind="utterance", hop_samples=0, first_center_samples=0)
    assert (declared_as_json(vector)["kind"], vector.as_dict()["kind"]) == ("utterance", "utterance")


def test_the_fingerprint_of_a_declared_module_is_that_of_before_the_newer_fields(models: str) -> None:
    blocks = load_upstream(f"py:{models}:Blocks")
    newer = {"trained_on", "kind", "layer_modules"}
    dumped = blocks.declared.model_dump(mode="json", exclude={"weights", "citation", "licence", *newer})
    assert blocks.fingerprint() == fingerprint_of(blocks, {**dumped, "sources_sha256": blocks._sources_sha256}, 1)


def test_a_module_of_one_vector_has_a_certificate(models: str) -> None:
    certificate = certify_upstream(f"py:{models}:Voice", keeps=False)
    found = {each.id: each for each in certificate.results}
    assert certificate.passed, [each.detail for each in certificate.failed]
    for name in ("hop-and-first-centre", "utterance-normalised"):
        assert (found[name].status, found[name].detail) == (
            "not applicable",
            "it gives one vector an utterance, which has no times",
        )
    assert certificate.info["kind"] == "utterance"


class TwoFrames(Envelope):
    """Declares one vector, and gives two frames from 16,001 samples on."""

    def __init__(self) -> None:
        super().__init__()
        self.info = dataclasses.replace(self.info, kind="utterance", hop_samples=0, first_center_samples=0)

    def num_frames(self, num_samples: int) -> int:
        return 1 + (num_samples > 16_000)

    def forward(self, waveforms: torch.Tensor, lengths: torch.Tensor) -> HiddenStates:
        counts = torch.tensor([self.num_frames(each) for each in lengths.tolist()])
        energy = waveforms.square().sum(dim=1)  # (B,)
        layers = energy[None, :, None, None].expand(2, len(counts), int(counts.max()), 4)
        return HiddenStates(layers * (torch.arange(int(counts.max())) < counts[:, None])[..., None], counts)


def two_frames(*, checkpoint: str | None = None, seed: int = 0) -> TwoFrames:
    return TwoFrames()


def test_a_model_that_declares_one_vector_and_gives_two_has_none() -> None:
    certificate = certify_upstream("py:tests.upstream.test_one_vector:two_frames", keeps=False)
    broken = {each.id: each.detail for each in certificate.failed}
    assert broken["num-frames"] == "`kind` is `utterance`, but `num_frames(16001)` is 2"


def test_a_run_refuses_two_frames_of_a_model_that_declares_one_vector() -> None:
    model = TwoFrames().eval()
    with pytest.raises(PluginError, match="`num_frames` must be 1, but is 2 for 16001 samples"):
        run_sounds(model, [torch.zeros(16_001)], device=torch.device("cpu"), names=["u1"])


def test_windows_are_refused_and_longer_sounds_left_out(models: str, tmp_path: Path) -> None:
    (tmp_path / f"{models}_Voice.info.yaml").write_text(VECTOR + "max_samples: 160000\n")
    voice = load_upstream(f"py:{models}:Voice")
    assert windows_for(voice, None, 1.0) is None
    with pytest.raises(UsageError, match="gives one vector an utterance, and windows would each give one"):
        windows_for(voice, 5.0, 1.0)
