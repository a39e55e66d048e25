"""`onnx:FILE`: graphs give what the same networks give in torch; what a graph states is read, the rest is declared."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from repbench import load_upstream
from repbench.benchmark.pipeline.setup import RunRequest
from repbench.benchmark.run import run
from repbench.errors import IntegrityError, PluginError, UsageError
from repbench.testing import tone_corpus
from repbench.testing.certify import certify_upstream
from repbench.testing.upstreams import subject as upstream_subject
from repbench.upstream.contract import provenance_of
from tests.commands import refuse_network
from tests.conftest import GOLDEN
from tests.upstream.small_onnx import Encoder, Speaker, weights

pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")

TIMES = "hop_samples: 640\nfirst_center_samples: 520\nwindow_samples: 1040\n"
DECLARED = {
    "encoder": f"name: small\n{TIMES}",
    "masked": f"name: masked\n{TIMES}batch_invariant: true\ngraph: {{transposed: true}}\n",
    "sample_mask": f"name: masked\n{TIMES}batch_invariant: true\ngraph: {{mask: attention_mask}}\n",
    "speaker": "name: speaker\nkind: utterance\nmin_samples: 1040\n",
}


@pytest.fixture
def graphs(tmp_path: Path) -> Path:
    """A folder with the four graphs and their declarations."""
    for name, text in DECLARED.items():
        shutil.copy(GOLDEN / "onnx" / f"{name}.onnx", tmp_path)
        (tmp_path / f"{name}.info.yaml").write_text(text)
    return tmp_path


def declared(graphs: Path, name: str, text: str) -> Any:
    (graphs / f"{name}.info.yaml").write_text(text)
    return load_upstream(f"onnx:{graphs / name}.onnx")


def sounds() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return 0.3 * torch.randn(2, 32_000, generator=generator), torch.tensor([32_000, 20_001])


def test_the_graph_and_the_module_of_torch_give_the_same_frames(graphs: Path) -> None:
    model, (waveforms, lengths) = load_upstream(f"onnx:{graphs}/encoder.onnx"), sounds()
    states = model(waveforms, lengths)
    assert (model.info.layer_names, model.info.width, model.info.min_samples) == (("frames", "squares"), 12, 1040)
    assert states.lengths.tolist() == [model.num_frames(32_000), model.num_frames(20_001)] == [49, 30]
    for row, length in enumerate(lengths.tolist()):
        with torch.no_grad():
            given = torch.stack(Encoder()(waveforms[row : row + 1, :length], lengths))  # (L, 1, F, D)
        torch.testing.assert_close(states.layers[:, row, : given.shape[2]], given[:, 0], atol=1e-4, rtol=0)
        assert float(given.abs().max()) > 0.1


def test_a_graph_with_a_mask_of_samples_reads_nothing_behind_them(graphs: Path) -> None:
    plain, (waveforms, lengths) = load_upstream(f"onnx:{graphs}/encoder.onnx"), sounds()
    noise = torch.where(torch.arange(waveforms.shape[1]) < lengths[:, None], waveforms, torch.ones(()))
    states = load_upstream(f"onnx:{graphs}/sample_mask.onnx")(noise, lengths)
    torch.testing.assert_close(states.layers, plain(waveforms, lengths).layers[:1], rtol=1e-4, atol=1e-5)
    # Without the declaration the only input of whole numbers would be taken for lengths, which have another shape.
    with pytest.raises(PluginError, match="onnxruntime cannot compute"):
        declared(graphs, "sample_mask", f"name: masked\n{TIMES}batch_invariant: true\n")(noise, lengths)


def test_a_graph_with_lengths_and_channels_first_gives_the_same_too(graphs: Path) -> None:
    model, (waveforms, lengths) = load_upstream(f"onnx:{graphs}/masked.onnx"), sounds()
    plain = load_upstream(f"onnx:{graphs}/encoder.onnx")(waveforms, lengths)
    states = model(waveforms, lengths)
    assert (model.info.layer_names, states.lengths.tolist()) == (("channels",), [49, 30])
    torch.testing.assert_close(states.layers, plain.layers[:1], atol=1e-4, rtol=0)


def test_a_graph_of_one_vector_gives_that_of_the_module(graphs: Path) -> None:
    model, (waveforms, lengths) = load_upstream(f"onnx:{graphs}/speaker.onnx"), sounds()
    states = model(waveforms, lengths)
    assert (model.info.kind, model.info.layer_names, model.info.width) == ("utterance", ("vector",), 6)
    assert tuple(states.layers.shape) == (1, 2, 1, 6)
    with torch.no_grad():
        given = Speaker()(waveforms[1:, :20_001], lengths[1:])  # (1, D)
    torch.testing.assert_close(states.layers[0, 1], given, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", list(DECLARED))
def test_every_graph_has_a_certificate(graphs: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_subject, "LONGEST_SECONDS", 6.0)
    certificate = certify_upstream(f"onnx:{graphs}/{name}.onnx", keeps=False)
    assert certificate.passed, [f"{each.id}: {each.detail}" for each in (*certificate.failed, *certificate.untried)]
    found = {each.id: each.status for each in certificate.results}
    assert found["fingerprint-not-of-path"] == found["works-in-a-worker"] == "passed"
    assert found["batch-invariant"] == found["padding-invariant"] == "passed"
    assert found["hop-and-first-centre"] == ("not applicable" if name == "speaker" else "passed")


def test_the_fingerprint_follows_the_graph_and_the_declaration(graphs: Path) -> None:
    first = load_upstream(f"onnx:{graphs}/encoder.onnx").fingerprint()
    assert declared(graphs, "encoder", DECLARED["encoder"] + "code_version: 2\n").fingerprint() != first
    one_layer = declared(graphs, "encoder", DECLARED["encoder"] + "graph: {outputs: [squares]}\n")
    assert (one_layer.info.layer_names, one_layer.fingerprint() != first) == (("squares",), True)
    swapped = DECLARED["encoder"] + "layer_names: [a, b]\ngraph: {outputs: [squares, frames]}\n"
    kept = DECLARED["encoder"] + "layer_names: [a, b]\ngraph: {outputs: [frames, squares]}\n"
    assert declared(graphs, "encoder", swapped).fingerprint() != declared(graphs, "encoder", kept).fingerprint()
    content = (graphs / "encoder.onnx").read_bytes()
    weight = content.index(weights()["first.weight"].tobytes())
    (graphs / "encoder.onnx").write_bytes(content[:weight] + bytes([content[weight] ^ 1]) + content[weight + 1 :])
    assert declared(graphs, "encoder", DECLARED["encoder"]).fingerprint() != first


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("encoder", f"name: x\n{TIMES}width: 11\n", "`width` is 11, but the outputs of the graph have 12"),
        ("encoder", f"name: x\n{TIMES}layer_names: [a]\n", "1 names for the outputs frames, squares"),
        ("encoder", f"name: x\n{TIMES}graph: {{outputs: [frame]}}\n", "`frame` is no such one; .*`frames` tensor"),
        ("encoder", f"name: x\n{TIMES}graph: {{lengths: waveforms}}\n", "`waveforms` is no such one; which of its"),
        ("encoder", f"name: x\n{TIMES}graph: {{otuputs: [frames]}}\n", "did you mean `outputs`"),
        ("encoder", f"name: x\n{TIMES}graph: frames\n", "`graph` must be a group of settings"),
        ("encoder", f"name: x\n{TIMES}weights: a.safetensors\n", "weights of an ONNX file are in it"),
        ("encoder", "name: x\nkind: utterance\nmin_samples: 400\n", r"No output of the graph has the form \(B, D\)"),
        ("encoder", "name: x\nhop_samples: 640\n", "window_samples"),
    ],
)
def test_a_declaration_that_does_not_fit_the_graph_is_refused(graphs: Path, name: str, text: str, fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        declared(graphs, name, text)


def test_wrong_times_are_told_with_both_shapes(graphs: Path) -> None:
    model = declared(graphs, "encoder", "name: x\nhop_samples: 320\nfirst_center_samples: 520\nwindow_samples: 1040\n")
    with pytest.raises(PluginError, match=r"promises \(L, B, F, D\) = \(2, 1, 47, 12\).*returned \(2, 1, 24, 12\)"):
        model(torch.zeros(1, 16_000), torch.tensor([16_000]))


def test_a_sound_that_the_graph_cannot_take_names_the_file(graphs: Path) -> None:
    text = DECLARED["encoder"].replace("window_samples: 1040", "window_samples: 100")
    with pytest.raises(PluginError, match=r"cannot compute the graph on waveforms \(1, 200\): .*encoder\.onnx"):
        declared(graphs, "encoder", text)(torch.zeros(1, 200), torch.tensor([200]))


def test_files_that_are_no_graph_or_not_there_are_refused(graphs: Path) -> None:
    with pytest.raises(UsageError, match="There is no such ONNX file"):
        load_upstream(f"onnx:{graphs}/missing.onnx")
    (graphs / "encoder.onnx").write_bytes(b"\x08\x07 no graph")
    with pytest.raises(IntegrityError, match="onnxruntime cannot read this graph"):
        load_upstream(f"onnx:{graphs}/encoder.onnx")
    (graphs / "encoder.info.yaml").unlink()
    with pytest.raises(UsageError, match="has no declaration") as caught:
        load_upstream(f"onnx:{graphs}/encoder.onnx")
    assert "hop_samples: 320" in str(caught.value.block)
    with pytest.raises(UsageError, match="An ONNX file has its weights"):
        load_upstream(f"onnx:{graphs}/speaker.onnx", checkpoint="random")


def test_weights_in_another_file_are_refused(graphs: Path) -> None:
    # external_data of a tensor: an entry of key `location` and the name of the file
    entry = b"\n\x08location\x12\x0cweights.data"
    content = (graphs / "encoder.onnx").read_bytes()
    (graphs / "encoder.onnx").write_bytes(content + entry)
    with pytest.raises(IntegrityError, match="weights of this graph are in another file"):
        load_upstream(f"onnx:{graphs}/encoder.onnx")


def test_nothing_reaches_a_network(graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_network(monkeypatch)
    with socket.socket() as asked, pytest.raises(AssertionError, match="asked for the network"):
        asked.connect(("127.0.0.1", 9))
    model, (waveforms, lengths) = load_upstream(f"onnx:{graphs}/encoder.onnx"), sounds()
    assert bool(model(waveforms, lengths).layers.isfinite().all())


@pytest.mark.slow
def test_a_run_has_the_graph_in_its_record_and_its_probe_scores_again(
    graphs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPBENCH_CACHE", str(tmp_path / "cache"))
    tone_corpus(tmp_path / "tones", num_speakers=4, per_session=3)
    tone_corpus(tmp_path / "others", num_speakers=4, per_session=3, salt="others")
    name = f"onnx:{graphs}/encoder.onnx"
    request = RunRequest(upstream=name, downstream="phone", corpus=str(tmp_path / "tones"), out=tmp_path / "runs")
    (written,) = run(request)
    part = written.record.upstream
    assert (part.name, part.layer_names) == (name, ("frames", "squares"))
    assert part.fingerprint == load_upstream(name).fingerprint()
    assert any("products of an ONNX graph are not counted" in each for each in written.record.corpus.warnings)
    assert provenance_of(load_upstream(name)).checkpoint == part.checkpoint
    again = RunRequest(
        upstream=name,
        downstream="phone",
        corpus=str(tmp_path / "others"),
        probe=written.path.parent,
        out=tmp_path / "b",
    )
    assert run(again)[0].record.n_scored == 24
