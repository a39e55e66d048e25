"""What is given to the Python API is what its documentation promises, or it is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import repbench
from repbench.audio.legacy import MEL160
from repbench.benchmark.loading.upstreams import build_upstream
from repbench.benchmark.pipeline.setup import RunRequest
from repbench.configs.requests import argument, request_of
from repbench.downstream.metrics import classification, edits
from repbench.errors import DataError, UsageError
from repbench.registry import Entry, registry
from repbench.upstream.contract import check_call

WAVEFORM = 0.1 * torch.randn(1, 4_000, generator=torch.Generator().manual_seed(0))
LENGTH = torch.tensor([4_000])
PLUGIN = "py:repbench.testing.fakes:envelope"

# What an upstream is called with.

MODELS = ("mel_no_cmvn", "fbank", "apc", "mockingjay", PLUGIN)


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    untrained = {"apc", "mockingjay"}
    return {name: repbench.load_upstream(name, checkpoint="random:tiny" if name in untrained else None)
            for name in MODELS}  # fmt: skip


WRONG = {
    "int16": (WAVEFORM.mul(32_768).to(torch.int16), LENGTH, r"torch.float32, but was given torch.int16\. Divide by"),
    "integers as float32": (
        WAVEFORM * 32_768,
        LENGTH,
        r"samples in \[-1, 1\], but was given one of [\d.]+\. Divide by",
    ),
    "float64": (WAVEFORM.double(), LENGTH, r"torch.float32, but was given torch.float64\. Use"),
    "float16": (WAVEFORM.half(), LENGTH, "torch.float32, but was given torch.float16"),
    "numpy": (WAVEFORM.numpy(), LENGTH, "`waveforms` as a torch.Tensor .* given a numpy.ndarray"),
    "one sound": (WAVEFORM[0], LENGTH, r"waveforms \(B, T\) .* given \(4000,\) and \(1,\)\. One sound"),
    "channels": (WAVEFORM[None], LENGTH, r"waveforms \(B, T\) .* given \(1, 1, 4000\)"),
    "no sound": (WAVEFORM[:0], LENGTH[:0], r"waveforms \(B, T\) .* given \(0, 4000\)"),
    "list of lengths": (WAVEFORM, [4_000], "`lengths` as a torch.Tensor .* given a list"),
    "shares": (WAVEFORM, torch.ones(1), "`lengths` of torch.int64, but was given torch.float32"),
    "int32 lengths": (WAVEFORM, LENGTH.int(), "`lengths` of torch.int64, but was given torch.int32"),
    "too many lengths": (WAVEFORM, torch.tensor([4_000, 4_000]), r"given \(1, 4000\) and \(2,\)"),
    "one length": (WAVEFORM, torch.tensor(4_000), r"given \(1, 4000\) and \(\)"),
    "beyond the end": (WAVEFORM, LENGTH + 1, "`lengths` reaches to 4001, but the waveforms have 4000"),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("fault", WRONG)
def test_what_is_no_batch_of_waveforms_is_refused_by_every_upstream(
    models: dict[str, Any], name: str, fault: str
) -> None:
    waveforms, lengths, words = WRONG[fault]
    with pytest.raises(DataError, match=words):
        models[name](waveforms, lengths)
    with pytest.raises(DataError, match=words):
        models[name](lengths=lengths, waveforms=waveforms)


def test_a_front_end_alone_refuses_integers_too() -> None:
    with pytest.raises(DataError, match=r"mel160 takes `waveforms` of torch\.float32, but was given torch\.int16"):
        MEL160(WAVEFORM.mul(32_768).to(torch.int16), LENGTH)


@pytest.mark.parametrize("padding", [32_768.0, float("inf"), float("nan")])
def test_what_lies_past_a_length_may_be_anything(models: dict[str, Any], padding: float) -> None:
    padded = torch.cat([WAVEFORM, torch.full((1, 100), padding)], dim=1)
    for name in MODELS:
        with torch.inference_mode():
            assert bool(torch.isfinite(models[name](padded, LENGTH).layers).all()), name


def test_an_upstream_checks_its_calls_once(monkeypatch: pytest.MonkeyPatch) -> None:
    entry: Entry = registry().find("upstream", "mel").entry
    built = build_upstream(entry, None, 0)
    monkeypatch.setattr(Entry, "load", lambda self: lambda *, checkpoint=None, seed=0: built)
    again: Any = build_upstream(entry, None, 0)
    assert list(again._forward_pre_hooks.values()) == [check_call]


# Spectrograms.


@pytest.mark.parametrize("name", ["apc", "mockingjay"])
def test_what_is_no_spectrogram_is_refused(models: dict[str, Any], name: str) -> None:
    model = models[name]
    spec = torch.zeros(20, model.front_end.width)
    asked = [model.hidden_states, model.prediction, *([model.attentions] if name == "mockingjay" else [])]
    for ask in asked:
        with pytest.raises(
            DataError, match=r"as a torch\.Tensor, but was given a numpy\.ndarray\. Use torch\.as_tensor"
        ):
            ask(spec.numpy())
        with pytest.raises(DataError, match=r"of real numbers, but was given torch\.int16"):
            ask(spec.to(torch.int16))
        with pytest.raises(DataError, match=r"`lengths` must be whole numbers \(int64\), but is '20'"):
            ask(spec, "20")
    assert torch.equal(model.hidden_states(spec.double()), model.hidden_states(spec))


# Names, numbers, paths.


def calls() -> dict[str, tuple[Any, str]]:
    model = torch.nn.Linear(1, 1)
    return {
        "a model for its name": (lambda: repbench.evaluate(model, "phone"),  # type: ignore[arg-type]
                                 "`upstream` must be str, but is a Linear"),
        "a misspelt option": (lambda: repbench.evaluate("mel", "phone", layr="last"),
                              r"no option `layr` \(did you mean `layer`\?\)"),
        "one seed": (lambda: repbench.evaluate("mel", "phone", seeds=0),
                     r"`seeds` must be tuple\[int, \.\.\.\], but is 0 \(say seeds=\(0,\)\)"),
        "seeds of words": (lambda: repbench.evaluate("mel", "phone", seeds=["a"]), "`seeds` must be tuple"),
        "a share": (lambda: repbench.evaluate("mel", "phone", label_fractions=0.1), r"say label_fractions=\(0\.1,\)"),
        "a number of a layer": (lambda: repbench.evaluate("mel", "phone", layer=0), "say layer='0'"),
        "a preset's name": (lambda: repbench.evaluate("mel", "phone", protocol="superb"),
                            "`protocol` must be Protocol, but is 'superb'"),
        "two faults": (lambda: repbench.pretrain("apc", stps=3, resume="yes"),
                       r"no option `stps`.*`resume` must be bool, but is 'yes'"),
        "half a step": (lambda: repbench.pretrain("apc", steps=1.5), r"`steps` must be int \| None, but is 1\.5"),
        "no name": (lambda: repbench.load_upstream(None), "`name` must be str, but is None"),  # type: ignore[arg-type]
        "a checkpoint by number": (lambda: repbench.load_upstream("apc", checkpoint=3),  # type: ignore[arg-type]
                                   "`checkpoint` must be str, but is 3"),
        "a seed below 0": (lambda: repbench.load_upstream("mel", seed=-1), "A seed must be from 0"),
        "no place": (lambda: repbench.read_records(None), "`places` must be Path, but is None"),  # type: ignore[arg-type]
        "a record": (lambda: repbench.read_records([{}]),  # type: ignore[list-item]
                     "`places` must be Path, but is a dict"),
    }  # fmt: skip


@pytest.mark.parametrize("fault", calls())
def test_what_is_not_promised_is_refused_by_name(fault: str) -> None:
    call, words = calls()[fault]
    with pytest.raises(UsageError, match=words):
        call()


def test_a_path_is_taken_for_a_text_a_text_for_a_path_and_a_list_for_a_tuple() -> None:
    assert argument("corpus", Path("a/b"), str) == "a/b"
    assert argument("out", "a/b", Path) == Path("a/b")
    assert argument("seeds", [0, 1], tuple[int, ...]) == (0, 1)
    asked = request_of(RunRequest, {"upstream": "mel", "downstream": "phone", "corpus": Path("a/b"), "seeds": [1]})
    assert asked == RunRequest(upstream="mel", downstream="phone", corpus="a/b", seeds=(1,))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("1e-3", 0.1, 10), "`lr` must be a number, but is '1e-3'"),
        ((1e-3, 0.1, 10.5), r"`total_steps` must be a whole number, but is 10\.5"),
        ((1e-3, True, 10), "`warmup` must be a number, but is True"),
    ],
)
def test_settings_of_the_optimizer_are_numbers(settings: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        repbench.pretraining_optimizer(torch.nn.Linear(1, 1).named_parameters(), *settings)
    with pytest.raises(ValueError, match="pairs of name and parameter"):
        repbench.pretraining_optimizer(torch.nn.Linear(1, 1), 1e-3, 0.1, 10)  # type: ignore[arg-type]


# Metrics.

COUNTS = np.array([[3, 1], [0, 2]])


@pytest.mark.parametrize("measure", [classification.accuracy, classification.macro_f1])
@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            COUNTS / COUNTS.sum(),
            "numpy array of whole numbers, but is float64",
        ),  # shares: the diagonal would be cut to 0
        (COUNTS.tolist(), "numpy array of whole numbers, but is a list"),
        (torch.from_numpy(COUNTS), "numpy array of whole numbers, but is a Tensor"),
    ],
)
def test_a_confusion_matrix_holds_counts(measure: Any, given: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        measure(given)


@pytest.mark.parametrize("cell", [(-1, 0, 1), (0, 2, 1), (0, 0, -1)])
def test_a_cell_names_two_classes_that_there_are(cell: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="a confusion matrix of 2 classes"):
        classification.confusion_of([cell], 2)


def test_an_area_is_of_true_and_false_and_of_numbers() -> None:
    with pytest.raises(ValueError, match=r"must be true or false, but one is .*-1"):
        classification.auc([1, -1], [0.5, 0.1])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="one is NaN"):
        classification.auc([True, False], [0.5, float("nan")])
    assert classification.auc(np.array([1, 0]), np.array([0.9, 0.1])) == 1.0  # type: ignore[arg-type]


def test_edits_are_of_sequences_whose_elements_can_be_equal() -> None:
    with pytest.raises(ValueError, match="must be a list, tuple or numpy array, but is a Tensor"):
        edits.count_edits(Tensor([1, 2]), [1, 2])  # type: ignore[arg-type]
    assert edits.count_edits(np.array([1, 2]), [1, 2]) == 0  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="are counts, but are -1 and 3"):
        edits.error_rate(-1, 3)
