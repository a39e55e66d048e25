"""What a plugin may get wrong in its code or its declaration, and that it is told as its fault and not as ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from repbench.benchmark.data.dataset import label_splits
from repbench.benchmark.features.extraction import ExtractionOptions, extract, num_frames, run_sounds
from repbench.benchmark.loading.tasks import build_task
from repbench.benchmark.loading.upstreams import build_upstream
from repbench.benchmark.pipeline.setup import RunRequest, prepare
from repbench.benchmark.protocol import SplitSettings
from repbench.corpora.contract import Corpus, Utterance
from repbench.corpora.open import open_corpus
from repbench.downstream.speaker import Speaker
from repbench.errors import OF_OTHERS, PluginError, Terminated, plugin_faults
from repbench.progress import Silence
from repbench.registry import registry
from repbench.registry.files import executed
from repbench.testing import Envelope, tone_corpus
from repbench.upstream.contract import HiddenStates, Upstream

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return tone_corpus(tmp_path_factory.mktemp("faults") / "tones", num_speakers=2)


# what passes through


@pytest.mark.parametrize("error", [SystemExit(0), ValueError("x"), StopIteration(), BaseException("y")])
def test_fault_33_whatever_a_plugin_raises_is_its_fault(error: BaseException) -> None:
    with pytest.raises(PluginError, match=f"The plugin failed: {type(error).__name__}"), plugin_faults("theirs"):
        raise error


BAD_TASK = """
import torch
from repbench.downstream.speaker import Speaker

class BadTask(Speaker):
    def labels(self, utterance):
        return self.of(utterance)

    def of(self, utterance):
        return {}

downstreams = {{"bad": BadTask}}
"""


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("utterance.speakr", "AttributeError: 'Utterance' object has no attribute 'speakr'"),
        # raised by what it called
        ("torch.nn.Linear(2, 3)(torch.zeros(5))", "RuntimeError: .*"),
    ],
)
def test_a_fault_of_a_plugin_has_its_file_line_and_function(
    tones: Corpus, tmp_path: Path, line: str, fault: str
) -> None:
    (tmp_path / "bad_task.py").write_text(BAD_TASK.format(line), encoding="utf-8")
    task = executed(str(tmp_path / "bad_task.py")).module.downstreams["bad"]()
    where = r" \(.*bad_task\.py, line 10, in `of`; utterance s\S+, key speaker\)"
    with pytest.raises(PluginError, match=f"The plugin failed: {fault}{where}") as refused:
        label_splits(tones, task, SplitSettings(), excludes=lambda each: None)
    assert refused.value.fields()["code"] == refused.value.code


@pytest.mark.parametrize("kind", [*OF_OTHERS, MemoryError])
def test_what_is_not_its_doing_passes_through_a_plugin(kind: type[BaseException]) -> None:
    with pytest.raises(kind), plugin_faults("theirs"):
        raise kind


def test_the_end_that_a_signal_asks_for_is_an_exit() -> None:
    assert issubclass(Terminated, SystemExit)


# upstreams, named by `py:` as factories of this module


class Raises(Envelope):
    def num_frames(self, num_samples: int) -> int:
        raise ValueError("how many?")


class Halves(Envelope):
    def num_frames(self, num_samples: int) -> int:
        return cast(int, num_samples / 320)


class OwesFrames(Envelope):
    def num_frames(self, num_samples: int) -> int:
        return -1


class ListsLengths(Envelope):
    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        states = super().forward(waveforms, lengths)
        return HiddenStates(states.layers, cast(Tensor, states.lengths.tolist()))


class Nameless(Envelope):
    def fingerprint(self) -> str:
        return cast(str, None)


class SaysItInADict(Envelope):
    def __init__(self) -> None:
        super().__init__()
        self.info = dataclasses.asdict(self.info)  # type: ignore[assignment]


class HidesItsInfo(torch.nn.Module):
    @property
    def info(self) -> None:
        raise ValueError("not today")

    def num_frames(self, num_samples: int) -> int:
        return num_samples

    def fingerprint(self) -> str:
        return "0" * 64


def says_it_in_a_dict(*, checkpoint: str | None = None, seed: int = 0) -> Any:
    return SaysItInADict()


def hides_its_info(*, checkpoint: str | None = None, seed: int = 0) -> Any:
    return HidesItsInfo()


def nameless(*, checkpoint: str | None = None, seed: int = 0) -> Any:
    return Nameless()


def upstream_called(name: str) -> Upstream:
    return build_upstream(registry().find("upstream", name).entry, None, 0)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (f"{__name__}:says_it_in_a_dict", "`info` must be of UpstreamInfo, but is of dict"),
        (f"{__name__}:hides_its_info", "The plugin failed: ValueError: not today"),
        ("builtins:dict", "This is not an upstream"),
    ],
)
def test_fault_37_what_is_no_upstream_is_told_at_the_door(target: str, message: str) -> None:
    with pytest.raises(PluginError, match=rf"{message}.*key py:{target}\)"):
        upstream_called(f"py:{target}")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Raises, "The plugin failed: ValueError: how many?"),
        (Halves, "'float' object cannot be interpreted as an integer"),
        (OwesFrames, "`num_frames` must be at least 0, but is -1 for"),
    ],
)
def test_fault_37_a_wrong_number_of_frames_names_the_utterance(
    kind: Callable[[], Envelope], message: str, tones: Corpus
) -> None:
    first = tones.utterances[0].id
    with pytest.raises(PluginError, match=message) as caught:
        extract(kind().eval(), tones.utterances, [0], ExtractionOptions(batch_seconds=10, device=CPU))
    assert (caught.value.key, caught.value.utterance) == ("envelope", first)


def test_fault_37_lengths_that_are_no_tensor_are_told() -> None:
    with pytest.raises(PluginError, match=r"`HiddenStates\.lengths` must be a tensor, but is a list"):
        run_sounds(ListsLengths().eval(), [torch.zeros(3200)], device=CPU, names=["a"])


def test_a_number_of_frames_may_be_of_any_whole_kind() -> None:
    class Counts(Envelope):
        def num_frames(self, num_samples: int) -> int:
            return cast(int, torch.tensor(num_samples // 320))

    count = num_frames(Counts(), 3200)
    assert (count, type(count)) == (10, int)


def test_a_fingerprint_that_is_no_text_is_told(tones: Corpus, tmp_path: Path) -> None:
    request = RunRequest(upstream=f"py:{__name__}:nameless", downstream="speaker", device="cpu", out=tmp_path)
    with pytest.raises(PluginError, match="`fingerprint` must give a text, but gives None"):
        prepare(request, Silence(), lambda: tones)


# tasks


class InADict(Speaker):
    info = dataclasses.asdict(Speaker.info)  # type: ignore[assignment]


class NoClasses(Speaker):
    def classes(self, *_: object) -> tuple[str, ...]:
        raise LookupError("which?")


class Numbers(Speaker):
    def classes(self, *_: object) -> tuple[str, ...]:
        return cast(tuple[str, ...], (1, 2))


class NumbersAsLabels(Speaker):
    def labels(self, utterance: Utterance) -> str:
        return cast(str, 7)


def test_fault_37_a_task_that_declares_itself_otherwise_is_told_at_the_door() -> None:
    entry = registry().find("downstream", f"py:{__name__}:InADict").entry
    with pytest.raises(PluginError, match="`info` must be of DownstreamInfo, but is of dict"):
        build_task(entry, {})


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (NoClasses(), r"LookupError: which\? \(.*`classes`; key speaker\)"),
        (Numbers(), r"`classes` must give names, but gives 1 \(key speaker\)"),
        (
            NumbersAsLabels(),
            r"`labels` must give a class name \(utterance \S+, key speaker",
        ),
    ],
)
def test_fault_38_a_task_that_answers_otherwise_is_told(task: Speaker, message: str, tones: Corpus) -> None:
    with pytest.raises(PluginError, match=message):
        label_splits(tones, task, SplitSettings(), excludes=lambda _: None)


# corpora


class Closed:
    def open(self, options: tuple[str, ...], *, progress: object = None) -> Corpus:
        raise ValueError("on Sundays")


class Empty:
    def open(self, options: tuple[str, ...], *, progress: object = None) -> Corpus:
        return cast(Corpus, list(options))


closed, empty = Closed(), Empty()


@pytest.mark.parametrize(
    ("name", "message"),
    [("closed", "The plugin failed: ValueError: on Sundays"), ("empty", "must return a Corpus, but returned a list")],
)
def test_a_corpus_that_cannot_be_opened_is_told(name: str, message: str) -> None:
    with pytest.raises(PluginError, match=rf"{message}.*key py:{__name__}:{name}\)"):
        open_corpus(f"py:{__name__}:{name}")
