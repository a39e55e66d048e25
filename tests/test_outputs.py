"""Nothing that a user has is written over without a word."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from repbench.benchmark.features.export import ExportOptions, extract_files
from repbench.benchmark.loading.upstreams import load_upstream
from repbench.benchmark.plots.plotting import PlotRequest, plot
from repbench.benchmark.report import ReportRequest, write_layer_figures, write_report
from repbench.errors import UsageError
from repbench.progress import Silence
from tests.benchmark.report_records import write


class Said(Silence):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    file = tmp_path / "beep.wav"
    soundfile.write(file, 0.1 * np.sin(np.arange(4000) / 9), 16_000)
    return file


@pytest.mark.slow
def test_fault_pictures_of_two_models_do_not_share_a_name(sound: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = plot(PlotRequest(kind="hidden", files=(sound,), upstream="mel", out=out))
    drawn = [path.read_bytes() for path in first]
    with pytest.raises(
        UsageError, match=r"other content here, which would be lost .*beep_hidden_first.png.*--overwrite"
    ):
        plot(PlotRequest(kind="hidden", files=(sound,), upstream="fbank", out=out))
    assert [path.read_bytes() for path in first] == drawn
    assert plot(PlotRequest(kind="hidden", files=(sound,), upstream="mel", out=out)) == first
    plot(PlotRequest(kind="hidden", files=(sound,), upstream="fbank", out=out, overwrite=True))
    assert first[0].read_bytes() != drawn[0]


def extract(upstream: str, sound: Path, out: Path, *, overwrite: bool = False) -> bytes:
    model = load_upstream(upstream)
    options = ExportOptions(resample=False, device=torch.device("cpu"), overwrite=overwrite)
    (path,) = extract_files(model, [sound], out, options)
    return path.read_bytes()


def test_fault_hidden_states_of_another_model_or_sound_stay(sound: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    extract("mel", sound, out)
    extract("mel", sound, out)
    with pytest.raises(UsageError, match=r"another `hop_samples` than fbank has .*features\.yaml"):
        extract("fbank", sound, out)
    (out / "features.yaml").unlink()
    with pytest.raises(UsageError, match=r"beep\.safetensors"):
        extract("fbank", sound, out)
    soundfile.write(sound, np.zeros(4000), 16_000)
    with pytest.raises(UsageError, match="which would be lost"):
        extract("mel", sound, out)
    (out / "beep.safetensors").write_bytes(b"mine")
    with pytest.raises(UsageError, match="which would be lost"):
        extract("mel", sound, out)
    extract("mel", sound, out, overwrite=True)


@pytest.mark.parametrize("name", ["report.md", "index.html", "report.tex", "results.csv", "results.json"])
def test_fault_a_report_replaces_no_file_of_somebody_else(name: str, tmp_path: Path) -> None:
    write(tmp_path / "runs")
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("# mine\n<html>")
    with pytest.raises(UsageError, match=f"`repbench report` did not make this file.*{name}"):
        write_report(ReportRequest(runs=(tmp_path / "runs",), out=out))
    assert [path.name for path in out.iterdir()] == [name]


def test_fault_an_earlier_report_is_replaced_with_a_word(tmp_path: Path) -> None:
    write(tmp_path / "runs")
    said, out = Said(), tmp_path / "out"
    request = ReportRequest(runs=(tmp_path / "runs",), out=out, published=("superb",))
    write_report(request, said)
    write_report(request, said)
    assert not [line for line in said.lines if "replaced" in line]
    write(tmp_path / "runs", upstream="fbank")
    write_report(request, said)
    assert said.lines[-1] == f"note: 5 files of an earlier report in {out} were replaced"


def names_of(files: Sequence[Path]) -> list[str]:
    return [file.name for file in files]


def test_fault_a_figure_of_layers_is_named_by_its_question(tmp_path: Path) -> None:
    runs, out = tmp_path / "runs", tmp_path / "out"
    for layer in ("0", "1"):
        write(runs, layer=layer)
    assert names_of(write_layer_figures([runs], out)) == ["layers-phone-synthetic-noisy-tiny.svg"]
    for layer in ("0", "1"):
        write(runs, layer=layer, protocol={"probe": {"steps": 200}})
    both = write_layer_figures([runs], tmp_path / "both")
    assert sorted(names_of(both)) == [
        f"layers-phone-synthetic-noisy-tiny-probe.steps-{steps}.svg" for steps in (100, 200)
    ]
    write(runs / "more", layer="2")
    with pytest.raises(UsageError, match="which would be lost"):
        write_layer_figures([runs], tmp_path / "both")
