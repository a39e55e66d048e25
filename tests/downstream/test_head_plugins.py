"""A head of a plugin: from one file to a verified record, and every way in which its weights must not be misread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from repbench.benchmark.pipeline.existing_records import identity_of
from repbench.benchmark.probing.probe import Probe, ProbeShape, encoded_probe, load_probe
from repbench.benchmark.records.record import Record, read_record
from repbench.benchmark.report.data.columns import columns_of
from repbench.downstream.heads import HeadInfo, build_head, heads_for, refuse_head
from repbench.downstream.problems import FRAMES, SEQUENCES, UTTERANCES
from repbench.errors import IntegrityError, PluginError, UsageError
from repbench.registry import Registry, registry
from repbench.testing import tone_corpus
from tests.benchmark import report_records
from tests.commands import repbench
from tests.fake_distributions import install

LOUDEST = """
import torch
from repbench.downstream.heads import Head, HeadInfo, initialise

class Loudest(Head):
    info = HeadInfo(name="loudest", gives=("utterances",))

    def __init__(self, *, width, num_outputs, hidden_units, pools, dropout, generator):
        super().__init__()
        self.output = torch.nn.Linear(width, num_outputs)
        initialise(self.output, width, generator)

    def before_output(self, frames, counts=None):
        return torch.stack([each.amax(dim=0) for each in frames.split(counts.tolist())])

heads = {"loudest": Loudest}
"""

QUICK = ("--set", "probe.steps=10", "--json")


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(LOUDEST)
    return tmp_path / "mine.py"


@pytest.mark.slow
def test_a_head_of_one_file_runs_to_a_verified_record(plugin: Path, tmp_path: Path) -> None:
    tone_corpus(tmp_path / "tones", num_speakers=3)
    run = ("run", "--upstream", "mel_no_cmvn", "--downstream", "speaker", "--corpus", tmp_path / "tones", *QUICK)
    mine = (*run, "--out", tmp_path / "runs", "--plugin", plugin, "--head", "loudest")

    done, again = repbench(*mine), repbench(*mine, "--missing-only")
    builtin = repbench(*run, "--out", tmp_path / "builtin", "--head", "linear")

    assert (done.code, again.code, builtin.code) == (0, 0, 0), done.err + builtin.err
    (record,) = done.json["results"]
    assert record["head"] == "loudest"
    assert record["head_origin"]["distribution"] == "mine.py (unpackaged)"
    assert record["id"] == again.json["results"][0]["id"]
    assert "head_origin" not in builtin.json["results"][0]
    verified = repbench("verify", tmp_path / "runs", "--plugin", plugin)
    assert (verified.code, ": holds (" in verified.out) == (0, True), verified.err

    plugin.write_text(LOUDEST.replace("amax", "amin"))
    edited = repbench(*mine, "--missing-only")
    assert edited.json["results"][0]["id"] != record["id"], "an edited file is another head"

    (run_folder,) = {Path(path).parent for path in done.json["records"]}
    probe = ("run", "--upstream", "mel_no_cmvn", "--downstream", "speaker", "--probe", run_folder, "--corpus")
    other = repbench(*probe, tmp_path / "tones", "--plugin", plugin)
    absent = repbench(*probe, tmp_path / "tones")
    assert (other.code, absent.code) == (4, 5)
    assert "but the installed one is of mine.py (unpackaged)" in other.err
    assert "the head `loudest` of mine.py (unpackaged)" in absent.err
    assert "Give its file by --plugin." in absent.err


def test_a_head_that_does_not_fit_is_refused_before_data_is_read(plugin: Path) -> None:
    done = repbench(
        "run", "--upstream", "mel", "--downstream", "phone", "--plugin", plugin, "--head", "loudest",
        "--corpus", "nowhere",
    )  # fmt: skip
    assert done.code == 2
    assert "no head `loudest` for frame-classification (key --head). Choose one of linear, mlp1, mlp2, concat9" in (
        done.err
    )


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """The registry with a distribution `loud` 1.0 that has the head `loudest`, and one that is broken."""
    modules = {"loud_head": LOUDEST.replace("heads = ", "unused = ")}
    install(
        tmp_path, "loud", "[repbench.heads]\nloudest = loud_head:Loudest\nlinear = loud_head:Loudest\n", modules=modules
    )
    install(tmp_path, "broken", "[repbench.heads]\nbroken = no_such_module:Head\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry.cache_clear()
    yield registry()
    monkeypatch.undo()
    registry.cache_clear()


def test_installed_heads_are_offered_where_they_fit(installed: Registry) -> None:
    assert heads_for(UTTERANCES)[-2:] == ("loud:linear", "loudest")
    assert "loudest" not in heads_for(FRAMES)
    with pytest.raises(PluginError, match=r"head `broken`.*No module named"):
        refuse_head("broken", SEQUENCES)
    with pytest.raises(UsageError, match="takes no options, but has `large`"):
        build_head(
            "loudest:large", width=2, num_classes=2, hidden_units=1, pools=True, generator=torch.Generator()
        )  # fmt: skip


def test_a_saved_probe_names_the_distribution_of_its_head(installed: Registry, tmp_path: Path) -> None:
    shape = ProbeShape(
        head="loudest", pools=True, num_layers=1, width=3, hidden_units=1, classes=("a", "b"), mix="mean"
    )
    probe = Probe(shape, torch.Generator().manual_seed(0))
    facts = {"head_origin": {"distribution": "loud", "version": "1.0", "file_sha256": "0" * 64}}
    (tmp_path / "probe").write_bytes(encoded_probe(probe, facts))
    (tmp_path / "older").write_bytes(encoded_probe(probe, {"head_origin": {**facts["head_origin"], "version": "0.9"}}))

    loaded, _ = load_probe(tmp_path / "probe")
    assert torch.equal(loaded.head.output.weight, probe.head.output.weight)
    with pytest.raises(IntegrityError, match=r"`loudest` of loud 0\.9, but the installed one is of loud 1\.0"):
        load_probe(tmp_path / "older")
    installed._entries["head"] = tuple(each for each in installed.entries("head") if each.builtin)
    with pytest.raises(PluginError, match=r"`loudest` of loud 1\.0, which is not installed.*Install loud"):
        load_probe(tmp_path / "probe")


def test_scores_of_another_shape_are_refused(tmp_path: Path, plugin: Path) -> None:
    tone_corpus(tmp_path / "tones", num_speakers=3)
    plugin.write_text(f"{LOUDEST}\nLoudest.forward = lambda self, frames, counts=None: self.output(frames[:1])")
    done = repbench(
        "run", "--upstream", "mel_no_cmvn", "--downstream", "speaker", "--plugin", plugin, "--head", "loudest",
        "--corpus", tmp_path / "tones", "--out", tmp_path / "runs", *QUICK,
    )  # fmt: skip
    assert done.code == 5
    assert "The scores of the head must be of shape (" in done.err


def test_heads_of_two_versions_answer_two_questions(tmp_path: Path) -> None:
    record = read_record(report_records.write(tmp_path, head="loudest"))
    origin = {"distribution": "loud", "file_sha256": "0" * 64}
    one, other = (
        Record.model_validate({**record.as_dict(), "head_origin": {**origin, "version": version}, "id": version})
        for version in ("1.0", "2.0")
    )
    assert len({identity_of(each) for each in (record, one, other)}) == 3
    columns = columns_of([record, one, other])
    assert [columns[each.id].facts["head"] for each in (record, one, other)] == [
        "loudest", "loudest of loud 1.0", "loudest of loud 2.0",
    ]  # fmt: skip
    assert len({column.key for column in columns.values()}) == 3


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"gives": ("rows",)}, '`gives` must name one or more of "frames", "utterances", "frames with a blank"'),
        ({"gives": ()}, "`gives` must name one or more"),
        ({"gives": ("frames", "frames with a blank")}, "A head with a blank gives nothing else"),
        ({"gives": ("frames",), "context_frames": -1}, "`context_frames` must be at least 0, but is -1"),
        ({"gives": ("frames",), "contract": 2}, "`contract` must be 1, but is 2"),
    ],
)
def test_an_impossible_declaration_is_refused(declared: dict[str, object], message: str) -> None:
    with pytest.raises(PluginError, match=message):
        HeadInfo(name="mine", **declared)  # type: ignore[arg-type]


def test_a_number_called_heads_in_a_file_is_no_declaration(tmp_path: Path) -> None:
    source = "heads = 12\nupstreams = {'mine': lambda *, checkpoint=None, seed=0: None}\n"
    (tmp_path / "older.py").write_text(source)
    assert [entry.name for entry in Registry([]).add_file(tmp_path / "older.py")] == ["mine"]


def test_check_head_tries_every_promise(plugin: Path) -> None:
    done = repbench("check", "head", "loudest", "--plugin", plugin, "--json")
    assert done.code == 0, done.out
    assert (done.json["passed"], len(done.json["results"])) == (True, 16)


def test_check_head_ends_with_5_and_names_what_is_broken(plugin: Path) -> None:
    plugin.write_text(LOUDEST.replace("each.amax(dim=0)", "frames.amax(dim=0)"))
    done = repbench("check", "head", "loudest", "--plugin", plugin)
    assert done.code == 5
    assert "The head `loudest` breaks 1 of 16 promises: alone-and-in-a-batch" in done.err


@pytest.mark.slow
def test_list_and_doctor_show_heads(tmp_path: Path) -> None:
    install(tmp_path, "broken", "[repbench.heads]\nbroken = no_such_module:Head\nbare = math:sin\n")
    env = {"PYTHONPATH": str(tmp_path)}
    listed = repbench("list", "heads", "--json", env=env)
    assert {row["name"] for row in listed.json["plugins"]} >= {"linear", "project_ctc", "broken", "bare"}
    rows = {row["name"]: row for row in repbench("doctor", "--json", env=env).json["plugins"] if row["kind"] == "head"}
    assert rows["linear"]["status"] == "ok"
    assert "No module named" in rows["broken"]["reason"]
    assert "has no `info` of HeadInfo" in rows["bare"]["reason"]
