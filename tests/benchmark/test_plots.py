"""Pictures: the files that the commands leave, and what stands on their axes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from torch import Tensor

from repbench.benchmark.loading.upstreams import load_upstream
from repbench.benchmark.plots.attention import attention_pictures
from repbench.benchmark.plots.canvas import PictureSubject, style
from repbench.benchmark.plots.hidden import hidden_pictures, load_mix
from repbench.benchmark.plots.plotting import PictureKind, PlotRequest, plot
from repbench.benchmark.plots.spectrograms import SpectrogramModel, sounds_of, spectrogram_pictures, spectrograms_of
from repbench.benchmark.probing.probe import Probe, ProbeShape, encoded_probe
from repbench.errors import DataError, IntegrityError, UsageError
from repbench.upstream.checkpoints.native import save_weights
from repbench.upstream.contract import Upstream
from tests.commands import repbench

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SECONDS = 1.23
SMALL: dict[str, Any] = {"hidden_size": 32, "num_heads": 2, "feed_forward_size": 64}
SUBJECT = PictureSubject("model", "step 7", Path("beep.wav"), SECONDS)


def beep(num_samples: int) -> Tensor:
    times = torch.arange(num_samples) / 16_000
    noise = torch.randn(num_samples, generator=torch.Generator().manual_seed(0))
    return 0.05 * torch.sin(2 * math.pi * 700 * times) + 0.01 * noise


def write_beep(path: Path, *, seconds: float = SECONDS, rate_hz: int = 16_000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, beep(round(seconds * rate_hz)).numpy(), rate_hz, subtype="PCM_16")
    return path


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_beep(tmp_path_factory.mktemp("sounds") / "beep.wav")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that predicts linear1025 from three stacked frames, as LARGE does, only smaller."""
    features = {"input": "mel160", "target": "linear1025"}
    model = load_upstream("mockingjay", checkpoint="random", features=features, downsample_rate=3, **SMALL)
    folder = tmp_path_factory.mktemp("large") / "checkpoint"
    fields = {"upstream": "mockingjay", "config": dict(model.config)}
    return save_weights(folder, weights=model.state_dict(), fields=fields, step=7).path


def figures_of(model: SpectrogramModel, samples: Tensor) -> dict[str, Figure]:
    with style():
        spectrograms = spectrograms_of(model, samples, 0)
        return {picture.name: picture.figure for picture in spectrogram_pictures(model, spectrograms, SUBJECT)}


def title_of(figure: Figure) -> str:
    return figure.get_suptitle()


def ticks_of(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("hidden", ["hidden_first", "hidden_last", "hidden_weighted_sum"]),
        ("reconstruction", ["predicted", "true", "filled"]),
        ("attention", ["attention_layer1", "attention_layer2", "attention_layer3"]),
    ],
)
def test_the_same_command_leaves_the_same_files(
    kind: PictureKind, names: list[str], sound: Path, large: Path, tmp_path: Path
) -> None:
    command = ("plot", kind, sound, "--upstream", "mockingjay", "--checkpoint", large, "--format", "png,svg")
    done = repbench(*command, "--out", tmp_path / "one", "--json")
    assert done.code == 0, done.err
    again = PlotRequest(
        kind=kind,
        files=(sound,),
        upstream="mockingjay",
        checkpoint=str(large),
        formats="png,svg",
        out=tmp_path / "two",
    )
    assert [path.name for path in plot(again)] == [Path(file).name for file in done.json["files"]]
    expected = [f"beep_{name}.{format_}" for name in names for format_ in ("png", "svg")]
    expected += ["beep_predicted.wav", "beep_filled.wav"] if kind == "reconstruction" else []
    assert [Path(file).name for file in done.json["files"]] == expected
    for name in expected:
        content = (tmp_path / "one" / name).read_bytes()
        assert content == (tmp_path / "two" / name).read_bytes(), name
        if name.endswith("svg"):
            assert content.startswith(b"<?xml")
            assert b"<metadata" not in content
            assert b"date" not in content
    with Image.open(tmp_path / "one" / f"beep_{names[0]}.png") as image:
        image.load()
        assert image.width >= 700
        assert not image.info.keys() & {"Software", "Creation Time"}
    for name in (each for each in expected if each.endswith("wav")):
        samples, rate_hz = soundfile.read(tmp_path / "one" / name)
        assert (rate_hz, len(samples)) == (16_000, round(SECONDS * 16_000))
        assert 0.0 < float(np.abs(samples).max()) <= 1.0


@pytest.mark.slow
def test_sounds_of_another_rate_are_refused_unless_resampled(tmp_path: Path) -> None:
    narrow = write_beep(tmp_path / "narrow.wav", rate_hz=8_000)
    command = ("plot", "hidden", narrow, "--upstream", "mel", "--out", tmp_path / "out")
    refused = repbench(*command)
    assert (refused.code, refused.out) == (3, "")
    assert "narrow.wav" in refused.err
    assert "--resample" in refused.err
    request = PlotRequest(kind="hidden", files=(narrow,), upstream="mel", resample=True, out=tmp_path / "out")
    assert all(path.is_file() for path in plot(request))


def test_plot_alone_shows_what_can_be_drawn() -> None:
    shown = repbench("plot")
    assert shown.code == 0
    for kind in ("reconstruction", "hidden", "attention"):
        assert f"  {kind} " in shown.out


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kind": "attention", "upstream": "mel"}, "has no attention"),
        ({"kind": "attention", "upstream": "apc", "checkpoint": "random:tiny"}, "has no attention"),
        ({"kind": "reconstruction", "upstream": "mel"}, "predicts no spectrogram"),
        ({"formats": "png,jpg"}, "no format `jpg`"),
        ({"formats": ""}, "no format ``"),
        ({"files": (Path("one/a.wav"), Path("two/a.wav"))}, "one/a.wav and two/a.wav"),
        ({"upstream": "mell"}, "mell"),
        ({"weights": Path("nowhere")}, "no probe"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_read(
    changed: dict[str, object], message: str, tmp_path: Path
) -> None:
    request = {"kind": "hidden", "files": (Path("absent.wav"),), "upstream": "mel", "out": tmp_path / "out", **changed}
    with pytest.raises(UsageError, match=message):
        plot(PlotRequest(**request))  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_sound_that_is_too_short_to_hide_a_part_of_is_named(tmp_path: Path) -> None:
    short = write_beep(tmp_path / "short.wav", seconds=0.03)
    request = PlotRequest(
        kind="reconstruction", files=(short,), upstream="mockingjay", checkpoint="random:tiny", out=tmp_path / "out"
    )
    with pytest.raises(DataError, match=r"short\.wav"):
        plot(request)


@pytest.mark.slow
def test_silence_and_strange_names_can_be_drawn(tmp_path: Path) -> None:
    silent = tmp_path / ("$\\frac{1}{2}$ 声音 \u202e" + "x" * 150 + ".wav")
    soundfile.write(silent, np.zeros(16_000), 16_000)
    kinds: tuple[PictureKind, ...] = ("hidden", "reconstruction", "attention")
    for kind in kinds:
        request = PlotRequest(
            kind=kind,
            files=(silent,),
            upstream="mockingjay",
            checkpoint="random:tiny",
            formats="svg",
            out=tmp_path / "out",
        )
        assert len(plot(request)) == 3


def test_the_time_axis_is_as_long_as_the_sound(large: Path) -> None:
    samples = beep(round(SECONDS * 16_000))
    model = load_upstream("mockingjay", checkpoint=str(large))
    figures = list(figures_of(model, samples).values())
    with style():
        states = model(samples[None], torch.tensor([len(samples)])).layers[:, 0].detach()
        figures += [picture.figure for picture in hidden_pictures(model, states, SUBJECT, None)]
        maps = [picture.figure for picture in attention_pictures(model, samples, SUBJECT)]
    for figure in (*figures, *maps):
        assert figure.axes[0].get_xlim() == (0.0, SECONDS)
        assert "step 7 · beep.wav" in title_of(figure)
    for figure in maps:
        assert figure.axes[0].get_ylim() == (0.0, SECONDS)
        left, right, *_ = figure.axes[0].images[0].get_extent()
        # Three stacked frames, 12.5 ms apart: the first starts half a hop before the sound.
        assert left == pytest.approx(-0.00625)
        assert right == pytest.approx(-0.00625 + 0.0375 * model.num_frames(len(samples)))


def test_bands_and_bins_are_labelled_with_their_frequencies(large: Path) -> None:
    samples = beep(round(SECONDS * 16_000))
    for name in ("mel160", "fbank160", "mel80"):
        model = load_upstream("mockingjay", checkpoint="random", features={"input": name}, **SMALL)
        figure = figures_of(model, samples)["true"]
        axes = figure.axes[0]
        _, _, bottom, top = axes.images[0].get_extent()
        assert (bottom, top) == (-0.5, 79.5)
        assert axes.get_ylabel() == "frequency (Hz)"
        hertz = [float(text.replace(",", "")) for text in ticks_of(figure)]
        assert hertz == sorted(hertz)
        assert 0 < hertz[0] < hertz[-1] < 8_000
    figure = figures_of(load_upstream("mockingjay", checkpoint=str(large)), samples)["true"]
    assert ticks_of(figure) == ["0", *(f"{kilo},000" for kilo in range(1, 9))]


def test_hidden_stretches_are_marked(large: Path) -> None:
    model = load_upstream("mockingjay", checkpoint=str(large))
    samples = beep(round(SECONDS * 16_000))
    spectrograms = {each.name: each for each in spectrograms_of(model, samples, 0)}
    filled = spectrograms["filled"]
    hidden = sum(end - start for start, end in filled.hidden)
    assert hidden % 3 == 0
    assert 0 < hidden < 0.5 * len(filled.frames)
    assert not torch.equal(filled.frames, spectrograms["predicted"].frames)
    torch.testing.assert_close(filled.frames, spectrograms_of(model, samples, 0)[2].frames)
    assert spectrograms_of(model, samples, 3)[2].hidden != filled.hidden
    figures = figures_of(model, samples)
    assert len(figures["filled"].axes[0].patches) == len(filled.hidden)
    assert not figures["predicted"].axes[0].patches
    assert f"{hidden / len(filled.frames):.0%} hidden" in title_of(figures["filled"])


def test_apc_is_drawn_at_the_time_of_the_true_frame() -> None:
    model = load_upstream("apc", checkpoint="random", hidden_size=16, time_shift=5)
    samples = beep(round(SECONDS * 16_000))
    predicted, true = spectrograms_of(model, samples, 0)
    assert (predicted.first_frame, len(predicted.frames)) == (5, len(true.frames) - 5)
    torch.testing.assert_close(predicted.frames, model.prediction(true.frames)[0, :-5].detach())
    figures = figures_of(model, samples)
    starts = {name: figure.axes[0].images[0].get_extent()[0] for name, figure in figures.items()}
    assert starts["predicted"] - starts["true"] == pytest.approx(0.05)
    with pytest.raises(DataError, match="5 frames ahead"):
        spectrograms_of(model, beep(400 + 4 * 160), 0)


def test_what_apc_tells_of_a_linear_spectrogram_sounds_from_its_frame_on() -> None:
    model = load_upstream("apc", checkpoint="random", features={"input": "linear201"}, hidden_size=16, time_shift=50)
    samples = beep(round(SECONDS * 16_000))
    ((name, told),) = sounds_of(model, spectrograms_of(model, samples, 0), samples, 0)
    assert (name, len(told)) == ("predicted", len(samples))
    assert float(told[: 50 * 160 - 400].std()) < 0.05 * float(told[50 * 160 :].std())


@pytest.mark.slow
def test_only_linear_targets_become_sound(sound: Path, tmp_path: Path) -> None:
    command = ("plot", "reconstruction", sound, "--upstream", "apc", "--checkpoint", "random:tiny", "--out", tmp_path)
    done = repbench(*command)
    assert done.code == 0, done.err
    assert done.err.count("no sound is made of fbank80") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"beep_predicted.png", "beep_true.png"}


def weighted_run(folder: Path, upstream: Upstream, *, mix: str = "weighted", fingerprint: str | None = None) -> Path:
    """A run whose probe sums the layers, 3 to 1 from the last to the first, on statistics of its own."""
    layers, width = len(upstream.info.layer_names), upstream.info.width
    shape = ProbeShape(
        head="linear", pools=False, num_layers=layers, width=width, hidden_units=4, classes=("a", "b"), mix=mix
    )
    probe = Probe(shape, torch.Generator().manual_seed(0))
    probe.set_statistics(torch.full((layers, 1, width), 0.5), torch.full((layers, 1, width), 2.0))
    with torch.no_grad():
        probe.layer_logits.copy_(torch.tensor([0.0] * (layers - 1) + [math.log(3.0)]))
    folder.mkdir(parents=True)
    facts = {"upstream_fingerprint": fingerprint or upstream.fingerprint()}
    (folder / "probe.safetensors").write_bytes(encoded_probe(probe, facts))
    return folder


def test_the_sum_has_the_weights_of_the_run(tmp_path: Path) -> None:
    model = load_upstream("apc", checkpoint="random", hidden_size=16, num_layers=2)
    mix = load_mix(weighted_run(tmp_path / "run", model), model)
    layers = torch.randn(2, 30, 16, generator=torch.Generator().manual_seed(0))
    with style():
        *_, weighted = hidden_pictures(model, layers, SUBJECT, mix)
        *_, mean = hidden_pictures(model, layers, SUBJECT, None)
    assert "0.250\N{NO-BREAK SPACE}gru1, 0.750\N{NO-BREAK SPACE}gru2" in title_of(weighted.figure)
    assert "plain mean of 2 layers" in title_of(mean.figure)
    shown = weighted.figure.axes[0].images[0].get_array()
    expected = ((layers - 0.5) / 2.0 * torch.tensor([0.25, 0.75])[:, None, None]).sum(dim=0)
    np.testing.assert_allclose(np.asarray(shown), expected.T.numpy(), rtol=1e-5, atol=1e-6)


def test_weights_of_another_model_or_of_none_are_refused(tmp_path: Path) -> None:
    model = load_upstream("mel")
    with pytest.raises(IntegrityError, match="another `mel`"):
        load_mix(weighted_run(tmp_path / "other", model, fingerprint="0" * 64), model)
    with pytest.raises(UsageError, match="learned no weights"):
        load_mix(weighted_run(tmp_path / "mean", model, mix="mean"), model)


def test_a_front_end_is_drawn_with_its_frequencies_and_slopes() -> None:
    model = load_upstream("fbank")
    with style():
        first, *_ = hidden_pictures(model, torch.randn(1, 50, 240), SUBJECT, None)
    assert ticks_of(first.figure)[-3:] == ["7,736", "slopes", "slopes\nof slopes"]
    with style():
        first, *_ = hidden_pictures(load_upstream("mfcc"), torch.randn(1, 50, 39), SUBJECT, None)
    assert first.figure.axes[0].get_ylabel() == "dimension"
