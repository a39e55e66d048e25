"""Probes on another device are what they are on the CPU, wherever the features lie."""

from __future__ import annotations

import pytest
import torch

from repbench.benchmark.data.dataset import LabelledUtterances
from repbench.benchmark.features.allocation import tables_on
from repbench.benchmark.features.table import FeatureTable
from repbench.benchmark.finetuning.prediction import cost_of
from repbench.benchmark.probing.prediction import LabelledFeatures
from repbench.benchmark.probing.probe import statistics_of
from repbench.benchmark.probing.training import ProbeJob, ProbeTraining, TrainedProbe, train_probes
from repbench.corpora.contract import Corpus
from repbench.downstream.contract import Downstream
from repbench.downstream.heads import builtin, products
from repbench.downstream.phone import Phone
from repbench.downstream.problems import SEQUENCES
from repbench.downstream.speaker import Speaker
from repbench.testing import tone_corpus
from tests.benchmark.test_side_by_side import CASES, Given
from tests.other_device import other_device

RATES = (1e-3, 3e-2)
ON_GPU = [case for case in CASES if case[1] not in {"gru", "blstm"} and "dropout" not in str(case[3])]
"""Dropout, of `gru` too, draws from the device's own generator, which only a real device has; packing for a
recurrent layer takes lengths on the CPU, which a real device allows."""


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return tone_corpus(tmp_path_factory.mktemp("devices") / "corpus", num_speakers=5, per_session=2)


def taught(given: Given, device: torch.device, *, tables_move: bool) -> list[TrainedProbe]:
    train, dev = given.train, given.dev
    if tables_move:
        train, dev = train.to(device), dev.to(device)
    shared = ProbeTraining(
        predictor=given.predictor,
        shape=given.shape,
        train=train,
        dev=dev,
        statistics=statistics_of(train),
        settings=given.settings,
        learning_rates=RATES,
        device=device,
    )
    (row,) = train_probes(shared, [ProbeJob(train=given.plan.train, dev=given.plan.dev)])
    return row


@pytest.fixture
def whole_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU multiplies whole matrices, as other devices do: in parts of rows it rounds otherwise."""
    for module in (builtin, products):
        monkeypatch.setattr(module, "fits", lambda rows: False)


@pytest.mark.usefixtures("whole_products")
@pytest.mark.parametrize("tables_move", [True, False], ids=["tables fit", "tables do not fit"])
@pytest.mark.parametrize(
    ("task", "head", "mix", "changes"),
    [(Phone(), "linear", "mean", {}), (Speaker(), "mlp1", "weighted", {}), *ON_GPU],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_probes_elsewhere_are_those_of_the_cpu(
    tones: Corpus, task: Downstream, head: str, mix: str, changes: dict[str, object], tables_move: bool
) -> None:
    given = Given(tones, task, head, mix, changes)
    here = taught(given, torch.device("cpu"), tables_move=False)
    answers = [given.predictor.predict(each.probe, LabelledFeatures(given.dev, given.plan.dev)) for each in here]
    with other_device() as device:
        there = taught(given, device, tables_move=tables_move)
        assert all(each.probe.mean.device == device for each in there)
        table = given.dev.to(device) if tables_move else given.dev
        found = [given.predictor.predict(each.probe, LabelledFeatures(table, given.plan.dev)) for each in there]
        weights = [{name: one.cpu() for name, one in each.probe.state_dict().items()} for each in there]
    assert [each.selection for each in there] == [each.selection for each in here]
    assert found == answers
    for mine, yours in zip(here, weights, strict=True):
        assert all(torch.equal(mine.probe.state_dict()[name], yours[name]) for name in yours)


def test_the_stand_in_refuses_company_from_the_cpu() -> None:
    with other_device() as device:
        there = torch.ones(3).to(device)
        with pytest.raises(RuntimeError, match="same device"):
            there + torch.ones(3)
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        assert (there + 1).cpu().tolist() == [2, 2, 2]


@pytest.mark.parametrize(("task", "head", "mix", "changes"), CASES[4:7], ids=[case[1] for case in CASES[4:7]])
def test_what_fine_tuning_costs_is_counted_where_the_scores_lie(
    tones: Corpus, task: Downstream, head: str, mix: str, changes: dict[str, object]
) -> None:
    given = Given(tones, task, head, mix, changes)
    examples: LabelledUtterances = given.plan.train[:3]
    counts = [given.train.starts()[each.id][1] for each in examples]
    rows = len(examples) if given.predictor.pools else sum(counts)
    scores = torch.randn(rows, len(given.plan.classes) + (given.predictor.problem is SEQUENCES))
    here = cost_of(given.predictor, scores, examples, counts)
    with other_device() as device:
        cost, answers = cost_of(given.predictor, scores.to(device), examples, counts)
        assert (cost.device, cost.item(), answers) == (device, here[0].item(), here[1])


def test_tables_move_only_to_a_gpu_that_has_room(tones: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    given = Given(tones, Phone(), "linear", "mean", {})
    tables = given.train, given.dev
    assert tables_on(torch.device("cpu"), *tables) == tables
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * 2**30, 2**40))
    assert tables_on(torch.device("cuda"), *tables) == tables
    moved: list[torch.device] = []
    monkeypatch.setattr(FeatureTable, "to", lambda self, device: moved.append(device))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 * 2**30, 2**40))
    tables_on(torch.device("cuda"), *tables)
    assert moved == [torch.device("cuda")] * 2
