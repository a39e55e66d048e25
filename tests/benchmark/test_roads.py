"""The road of features: chosen from a forecast within a budget, and of no effect on any number."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from repbench.benchmark.data.dataset import label_splits
from repbench.benchmark.features.budget import GIB, Budget, available_memory_bytes, budget_of, resident_bytes
from repbench.benchmark.features.extraction import ExtractionOptions, extract
from repbench.benchmark.features.roads import (
    INDEX_BYTES,
    WORKING_BYTES,
    Need,
    Road,
    Wanted,
    choose_road,
    forecast,
)
from repbench.benchmark.features.table import Features, FeatureTable
from repbench.benchmark.features.windows import FrameSource, Room, WindowedFeatures
from repbench.benchmark.probing.prediction import LabelledFeatures, Predictor
from repbench.benchmark.probing.probe import ProbeShape, statistics_of
from repbench.benchmark.probing.training import ProbeJob, ProbeTraining, TrainedProbe, train_probes
from repbench.benchmark.protocol import ProbeSettings, ResourceSettings, SplitSettings, load_protocol
from repbench.benchmark.run import RunRequest, run
from repbench.downstream.contract import Downstream, problem_of
from repbench.downstream.phone import Phone
from repbench.downstream.phone_ctc import PhoneCTC
from repbench.downstream.speaker import Speaker
from repbench.errors import EnvironmentFault
from repbench.testing import Envelope, tone_corpus

NEED = Need(
    num_frames=18_000_000, num_layers=13, width=768, dtype=torch.float16, missing_frames=18_000_000,
    drawn_frames=2_048_000, batch_frames=2_048,
)  # fmt: skip
"""A weighted probe on LibriSpeech-100."""


def budget(memory_gib: float, disk_gib: float) -> Budget:
    return Budget(memory_bytes=int(memory_gib * GIB), disk_bytes=int(disk_gib * GIB), used_bytes=GIB // 2)


def road_of(need: Need, memory_gib: float, disk_gib: float, wanted: Wanted = "auto") -> Road:
    return choose_road(
        need, budget(memory_gib, disk_gib), store_room_bytes=1e6 * GIB, folder=Path("/tmp"), wanted=wanted
    )


def test_features_are_in_memory_where_they_fit() -> None:
    assert road_of(NEED, 720, 0).name == "memory"
    assert road_of(NEED, 660, 400).name == "store"


def test_without_disk_for_the_store_they_are_computed_again() -> None:
    road = choose_road(NEED, budget(4, 10), store_room_bytes=20 * GIB, folder=Path("/tmp"))

    assert (road.name, road.passes) == ("recompute", 4)
    assert road.room is not None
    assert road.room.folder == Path("/tmp"), "10 GiB on disk hold more steps than what is left of 4 GiB"
    assert road.room.window_bytes == 10 * GIB
    assert forecast(NEED, budget(4, 10), road) == (
        "features (18,000,000 frames of 13 x 768) would take 669 GiB of memory or 335 GiB of disk; "
        "4.0 GiB and 10 GiB may be used: they are computed again 4 times (resources.road recompute)"
    )


def test_stored_features_need_no_disk() -> None:
    stored = dataclasses.replace(NEED, missing_frames=0)

    road = choose_road(stored, budget(4, 0), store_room_bytes=0, folder=Path("/tmp"))

    assert road.name == "store"
    assert road.room is not None
    assert road.room.folder is None


def test_what_fits_no_budget_is_refused_with_what_would_do() -> None:
    with pytest.raises(
        EnvironmentFault, match=r"does not fit 1.0 GiB of memory.*resources.memory_gib.*Give [12]"
    ) as caught:
        road_of(NEED, 1, 0)
    road_of(NEED, float(str(caught.value).split("Give ")[1].split(",")[0]), 0)


@pytest.mark.parametrize(("wanted", "message"), [("memory", "does not fit"), ("store", "335 GiB more in the store")])
def test_a_road_that_is_wanted_is_not_replaced(wanted: Wanted, message: str) -> None:
    with pytest.raises(EnvironmentFault, match=message):
        road_of(NEED, 8, 20, wanted)


def test_the_index_of_the_frames_counts() -> None:
    need = dataclasses.replace(NEED, num_layers=1, width=1, batch_frames=1)
    least = need.table_bytes + need.num_frames * INDEX_BYTES + WORKING_BYTES + GIB // 2

    assert road_of(need, (least + 100) / GIB, 0).name == "memory"
    assert road_of(need, (least - 100) / GIB, 0).name != "memory"


# the budget


def fake_root(tmp_path: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/meminfo": "MemTotal: 99999999 kB\nMemAvailable: 8388608 kB\n", **files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="ascii")
    return tmp_path


@pytest.mark.parametrize(
    ("files", "left_gib"),
    [
        ({}, 8),
        ({"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/memory.max": "max\n"}, 8),
        ({
            "proc/self/cgroup": "0::/slurm/job\n", "sys/fs/cgroup/slurm/memory.max": f"{3 * GIB}\n",
            "sys/fs/cgroup/slurm/memory.current": f"{GIB}\n", "sys/fs/cgroup/slurm/job/memory.max": "max\n",
        }, 2),
        ({
            "proc/self/cgroup": "5:cpu:/x\n9:memory:/docker/abc\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{4 * GIB}\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "0\n",
        }, 4),
    ],
)  # fmt: skip
def test_memory_is_that_of_the_machine_or_of_its_control_group(
    files: dict[str, str], left_gib: int, tmp_path: Path
) -> None:
    assert available_memory_bytes(fake_root(tmp_path, files)) == left_gib * GIB


def test_settings_come_before_the_machine(tmp_path: Path) -> None:
    given = budget_of(ResourceSettings(memory_gib=3, disk_gib=0), tmp_path)
    by_machine = budget_of(ResourceSettings(), tmp_path)

    assert (given.memory_bytes, given.disk_bytes) == (3 * GIB, 0)
    assert by_machine.memory_bytes > resident_bytes()
    assert by_machine.disk_bytes > 0


# one number


SETTINGS = ProbeSettings(steps=40, batch_frames=100, batch_utterances=4, hidden_units=16, selection_points=3)
ROWS = 2 * 4 * 4
"""Bytes of a frame of `Envelope`, two layers of four numbers."""


def computed(part: Sequence[object]) -> FeatureTable:
    options = ExtractionOptions(batch_seconds=30.0, device=torch.device("cpu"))
    return extract(Envelope(), [each.utterance for each in part], [0, 1], options)  # type: ignore[attr-defined]


def in_windows(part: Sequence[object], window_rows: int) -> WindowedFeatures:
    whole = computed(part)
    room = Room(window_bytes=window_rows * ROWS, chunk_bytes=500 * ROWS)

    class Source(FrameSource):
        def frames(self, numbers: Sequence[int]) -> Tensor:
            return computed([part[number] for number in numbers]).frames

    return WindowedFeatures(Source(whole.counts, (2, 4), room.chunk_bytes), whole.ids, room)


@pytest.mark.parametrize(
    ("task", "head", "window_rows", "mix"),
    [
        (Phone(), "linear", 1000, "weighted"),
        (Phone(), "concat9", 2000, "weighted"),
        (Speaker(), "mlp1", 1000, "weighted"),
        (Speaker(), "gru", 1000, "mean"),
        (PhoneCTC(), "ctc", 1000, "mean"),
        (Phone(), "blstm", 1000, "weighted"),
        (Phone(), "conv", 1000, "mean"),
        (Speaker(), "statistics_mean", 1000, "mean"),
        (Speaker(), "attentive_mean", 1000, "mean"),
    ],
)
def test_a_probe_trained_in_windows_is_the_same(
    task: Downstream, head: str, window_rows: int, mix: str, tmp_path: Path
) -> None:
    corpus = tone_corpus(tmp_path / "corpus")
    plan = label_splits(corpus, task, SplitSettings(), excludes=lambda each: None)
    predictor = Predictor(task, plan.classes, Envelope().info)
    problem = problem_of(task)
    shape = ProbeShape(
        head=head, pools=problem.pools, num_layers=2, width=4, hidden_units=16, classes=plan.classes, mix=mix,
        outputs=None,
    )  # fmt: skip

    def trained(train: Features, dev: Features) -> list[TrainedProbe]:
        shared = ProbeTraining(
            predictor=predictor, shape=shape, train=train, dev=dev, statistics=statistics_of(train),
            settings=SETTINGS, learning_rates=(1e-3, 1e-2),
        )  # fmt: skip
        return train_probes(shared, [ProbeJob(train=plan.train, dev=plan.dev, seed=1)])[0]

    windows = in_windows(plan.train, window_rows)
    wholly = trained(computed(plan.train), computed(plan.dev))
    by_window = trained(windows, in_windows(plan.dev, window_rows))

    for one, other in zip(wholly, by_window, strict=True):
        assert one.selection == other.selection
        for name, tensor in one.probe.state_dict().items():
            torch.testing.assert_close(tensor, other.probe.state_dict()[name], rtol=1e-5, atol=1e-5)
    test = plan.test.open()
    assert predictor.predict(wholly[0].probe, LabelledFeatures(computed(test), test)) == predictor.predict(
        wholly[0].probe, LabelledFeatures(in_windows(test, window_rows), test)
    )


def test_the_train_features_are_filled_more_than_once(tmp_path: Path) -> None:
    """Else the test above shows nothing."""
    corpus = tone_corpus(tmp_path / "corpus")
    plan = label_splits(corpus, Phone(), SplitSettings(), excludes=lambda each: None)
    windows = in_windows(plan.train, 1000)

    for _ in range(4):
        windows.gather(torch.arange(int(sum(windows.counts)))[torch.randperm(sum(windows.counts))[:900]])

    assert windows.num_fills == 4


@pytest.mark.parametrize("road", ["store", "recompute"])
def test_a_run_gives_the_same_record_on_each_road(road: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPBENCH_CACHE", str(tmp_path / "cache"))
    tone_corpus(tmp_path / "corpus")

    def record(name: str, settings: tuple[str, ...]) -> dict[str, object]:
        request = RunRequest(
            upstream="mel", downstream="phone", corpus=str(tmp_path / "corpus"), out=tmp_path / name,
            protocol=load_protocol(assignments=("probe.steps=50", *settings)),
        )  # fmt: skip
        (written,) = run(request)
        return json.loads(written.path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]

    memory = record("memory", ("resources.road=memory",))
    other = record(road, (f"resources.road={road}",))

    for part in ("metrics", "selection", "protocol", "corpus", "predictions_sha256"):
        assert memory[part] == other[part]
    assert "resources" not in memory["protocol"]  # type: ignore[operator]
