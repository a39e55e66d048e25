"""A leaderboard takes what was answered, and nothing that was only claimed."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from repbench.benchmark.leaderboard import Leaderboard
from repbench.benchmark.leaderboard.settings import read_head
from repbench.benchmark.protocol import ProbeSettings, Protocol
from repbench.benchmark.run import RunRequest, run
from repbench.corpora.manifest import read as read_manifest
from repbench.errors import DataError, IntegrityError, UsageError
from repbench.testing import tone_corpus
from tests.benchmark.forging import copied, edit, edit_predictions, make_consistent, put
from tests.commands import repbench

STEPS = 20
QUICK = Protocol(probe=ProbeSettings(steps=STEPS, batch_frames=256, hidden_units=16, selection_points=2))
ASKED = {"probe": {"steps": STEPS, "batch_frames": 256, "hidden_units": 16, "selection_points": 2}}

Lines = list[dict[str, Any]]


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("leaderboard") / "tones"
    tone_corpus(folder)
    return folder


@pytest.fixture(scope="module")
def made(tones: Path) -> dict[str, Path]:
    """Records of real runs."""

    def made_by(task: str, upstream: str, seed: int) -> Path:
        request = RunRequest(
            upstream=upstream,
            downstream=task,
            corpus=str(tones),
            out=tones.parent / "runs",
            protocol=QUICK,
            seeds=(seed,),
        )
        return run(request)[0].path.parent

    return {
        "phone": made_by("phone", "mel", 0),
        "speaker": made_by("speaker", "mel", 0),
        "other": made_by("speaker", "mel_no_cmvn", 1),
    }


@pytest.fixture
def phone(made: dict[str, Path], tmp_path: Path) -> Path:
    return copied(made["phone"], tmp_path / "phone")


@pytest.fixture
def speaker(made: dict[str, Path], tmp_path: Path) -> Path:
    return copied(made["speaker"], tmp_path / "speaker")


@pytest.fixture
def other(made: dict[str, Path], tmp_path: Path) -> Path:
    return copied(made["other"], tmp_path / "other")


@pytest.fixture
def board(made: dict[str, Path], tmp_path: Path) -> Path:
    """An empty leaderboard for both tasks."""
    folder = tmp_path / "board"
    write_head(folder, fingerprint_of(made["phone"]))
    return folder


def fingerprint_of(folder: Path) -> str:
    return str(json.loads((folder / "record.json").read_text(encoding="utf-8"))["corpus"]["fingerprint"])


def write_head(folder: Path, corpus: str, question: dict[str, Any] | None = None, **more: Any) -> None:
    """A head for both tasks on a corpus (JSON is YAML too); `question` changes what is asked of each."""
    folder.mkdir(exist_ok=True)
    asked = {"corpus": corpus, "protocols": [ASKED], **(question or {})}
    head = {"title": "Tones", "questions": [{"task": task, **asked} for task in ("phone", "speaker")], **more}
    (folder / "leaderboard.yaml").write_text(f"{json.dumps(head)}\n", encoding="utf-8")


def stored(board: Path) -> dict[str, bytes]:
    return {str(path.relative_to(board)): path.read_bytes() for path in sorted(board.rglob("*")) if path.is_file()}


def lose_one(lines: Lines) -> None:
    del lines[0]


def test_fault_init_writes_the_head_that_the_others_read(speaker: Path, phone: Path, tmp_path: Path) -> None:
    board = tmp_path / "my board"
    missing = repbench("leaderboard", "build", board)
    assert (missing.code, f"`repbench leaderboard init '{board}'`" in missing.err) == (2, True)
    assert repbench("leaderboard", "init", board, speaker, phone, "--title", 'Of "two"').code == 0
    head = read_head(board)
    linear = {"probe": {key: value for key, value in ASKED["probe"].items() if key != "hidden_units"}}
    assert head.title == 'Of "two"'
    assert {question.task: question.protocols for question in head.questions} == {
        "speaker": (ASKED,), "phone": (linear,)
    }  # fmt: skip
    assert repbench("leaderboard", "add", speaker, phone, "--to", board).code == 0
    assert repbench("leaderboard", "build", board).code == 0
    again = repbench("leaderboard", "init", board)
    assert (again.code, "There is a leaderboard here already" in again.err) == (2, True)


def test_init_without_a_record_leaves_the_corpus_to_be_filled_in(tmp_path: Path) -> None:
    begun = repbench("leaderboard", "init", tmp_path / "board")
    assert (begun.code, "next: write the fingerprint" in begun.err) == (0, True)
    assert read_head(tmp_path / "board").questions[0].corpus == "0" * 16
    built = repbench("leaderboard", "build", tmp_path / "board")
    assert (built.code, "There is no submission" in built.err) == (3, True)


def test_a_submission_larger_than_the_head_allows_is_refused(phone: Path, board: Path) -> None:
    size_mib = (phone / "predictions.jsonl").stat().st_size / (1 << 20)
    for allowed, refusal in ((size_mib / 2, IntegrityError), (size_mib * 1.001, DataError)):
        write_head(board, fingerprint_of(phone), max_submission_mib=allowed)
        with pytest.raises(refusal, match="MiB"):
            Leaderboard(board).add(phone)
    assert not (board / "submissions").exists()
    write_head(board, fingerprint_of(phone), max_submission_mib=1)
    assert Leaderboard(board).add(phone).is_new


def test_settings_that_a_mode_does_not_read_are_not_held_to_the_head(
    tones: Path, made: dict[str, Path], tmp_path: Path
) -> None:
    write_head(
        tmp_path / "board", fingerprint_of(made["speaker"]), {"protocols": [{**ASKED, "finetune": {"steps": 7}}]}
    )
    assert repbench("leaderboard", "add", made["speaker"], "--to", tmp_path / "board").code == 0


def test_records_come_in_as_one_file_each(board: Path, phone: Path, speaker: Path) -> None:
    done = repbench("leaderboard", "add", phone, speaker / "record.json", "--to", board)
    assert (done.code, done.err) == (0, "")
    ids = [json.loads((folder / "record.json").read_text())["id"] for folder in (phone, speaker)]
    assert done.out.splitlines() == [str(board / "submissions" / f"{id_}.json") for id_ in ids]
    assert sorted(path.name for path in (board / "submissions").iterdir()) == sorted(f"{id_}.json" for id_ in ids)
    assert len(list((board / "references").iterdir())) == 2
    for path, content in stored(board).items():
        assert content.isascii(), path
        assert content.endswith(b"\n"), path


def test_the_same_record_twice_is_one_whatever_the_order_of_its_lines(board: Path, speaker: Path) -> None:
    first = Leaderboard(board).add(speaker)
    before = stored(board)
    edit_predictions(speaker, random.Random(1).shuffle)
    again = Leaderboard(board).add(speaker)
    assert (first.path, first.is_new, again.is_new) == (again.path, True, False)
    assert stored(board) == before


@pytest.mark.parametrize("name", ["phone", "speaker"])
def test_permuted_lines_make_the_same_file(board: Path, made: dict[str, Path], name: str, tmp_path: Path) -> None:
    """Predictions are joined by utterance: a server that joined by line gave other scores to other orders."""
    Leaderboard(board).add(made[name])
    plain = stored(board)
    for path in (*(board / "submissions").iterdir(), *(board / "references").iterdir()):
        path.unlink()
    permuted = copied(made[name], tmp_path / "permuted")
    edit_predictions(permuted, random.Random(1).shuffle)
    Leaderboard(board).add(permuted)
    assert stored(board) == plain


def test_missing_test_utterances_are_refused(board: Path, speaker: Path, other: Path) -> None:
    edit_predictions(speaker, lose_one)
    with pytest.raises(DataError, match="The record scored 24 utterances, but 23 predictions are there"):
        Leaderboard(board).add(speaker)
    Leaderboard(board).add(other)
    with pytest.raises(DataError, match=r"1 of 24 test utterances have no prediction: s\d-\d\d"):
        Leaderboard(board).add(speaker)
    make_consistent(speaker)
    with pytest.raises(DataError, match="1 of 24 test utterances have no prediction"):
        Leaderboard(board).add(speaker)


def test_doubled_test_utterances_are_refused(board: Path, speaker: Path) -> None:
    edit_predictions(speaker, lambda lines: lines.append(lines[0]))
    make_consistent(speaker)
    with pytest.raises(DataError, match="An utterance has two predictions"):
        Leaderboard(board).add(speaker)


def test_utterances_that_nobody_asked_for_are_refused(board: Path, speaker: Path, other: Path) -> None:
    Leaderboard(board).add(other)
    edit_predictions(speaker, lambda lines: lines.append({**lines[0], "id": "mine"}))
    make_consistent(speaker)
    with pytest.raises(DataError, match="1 utterances are not of the test split: mine"):
        Leaderboard(board).add(speaker)


def test_a_test_set_without_its_hard_utterances_is_refused_with_the_reason(
    board: Path, speaker: Path, other: Path
) -> None:
    def leave_one_out(record: dict[str, Any]) -> None:
        record["excluded"] = {gone: "too hard"}
        record["n_listed"] += 1
        record["corpus"]["n_test"] += 1
        record["heard"]["n_test"] -= 1  # as a run states it of the utterances that it scored

    gone = json.loads((speaker / "predictions.jsonl").read_text().splitlines()[0])["id"]
    edit_predictions(speaker, lose_one)
    make_consistent(speaker)
    edit(speaker, leave_one_out, sealed_anew=True)
    with pytest.raises(
        DataError, match="The first submission of a task and corpus sets its references, but 1 utterances"
    ):
        Leaderboard(board).add(speaker)
    Leaderboard(board).add(other)
    with pytest.raises(DataError, match=f"1 test utterances are left out, and 0 may be: {gone}: too hard"):
        Leaderboard(board).add(speaker)
    write_head(board, fingerprint_of(other), allow_excluded=1)
    assert Leaderboard(board).add(speaker).is_new


def test_edited_numbers_are_refused_and_the_field_is_named(board: Path, phone: Path) -> None:
    edit(phone, put("metrics", "accuracy", "value", value=0.999), sealed_anew=True)
    done = repbench("leaderboard", "add", phone, "--to", board, "--json")
    assert done.code == 4
    (result,) = done.json["records"]
    assert result["error"]["key"] == "metrics.accuracy.value"
    assert result["error"]["what"].startswith("`metrics.accuracy.value` is 0.999, but the predictions give 0.")
    assert list(stored(board)) == ["leaderboard.yaml"]


def test_any_field_that_was_edited_is_refused(board: Path, speaker: Path) -> None:
    edit(speaker, put("cost", "parameters", value=1))
    with pytest.raises(IntegrityError, match=r"`cost\.parameters` was changed after it was sealed"):
        Leaderboard(board).add(speaker)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), "0.5", None])
def test_scores_that_are_no_numbers_are_refused(board: Path, speaker: Path, score: Any) -> None:
    edit_predictions(speaker, lambda lines: lines[0].update(scores=[score] * len(lines[0]["scores"])))
    with pytest.raises(IntegrityError, match="a score is not a finite number"):
        Leaderboard(board).add(speaker)


def answer_is_reference(lines: Lines) -> None:
    for line in lines:
        line["reference"] = max(range(len(line["scores"])), key=line["scores"].__getitem__)


def test_forged_references_are_refused(board: Path, speaker: Path, other: Path) -> None:
    """All that was answered is declared right; the numbers follow, the seal is new."""
    Leaderboard(board).add(other)
    edit_predictions(speaker, answer_is_reference)
    make_consistent(speaker)
    with pytest.raises(IntegrityError, match=r"The references of \d+ utterances are not those of the first submission"):
        Leaderboard(board).add(speaker)


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.update(confusion=[[r, r, n] for r, _, n in line["confusion"][:1]]),
        lambda line: line.update(reference_length=line["reference_length"] + 100),
        lambda line: line.update(speaker="someone else"),
        lambda line: line.update(group=None),
    ],
    ids=["instants", "length", "speaker", "group"],
)
def test_forged_frame_references_are_refused_by_the_corpus_itself(
    board: Path, tones: Path, phone: Path, change: Any
) -> None:
    edit_predictions(phone, lambda lines: change(lines[0]))
    make_consistent(phone)
    with pytest.raises(IntegrityError, match="The references of 1 utterances are not those of the corpus"):
        Leaderboard(board).add(phone, read_manifest(tones))


def test_honest_records_are_those_of_the_corpus(board: Path, tones: Path, made: dict[str, Path]) -> None:
    done = repbench("leaderboard", "add", *made.values(), "--to", board, "--corpus", tones)
    assert (done.code, len(done.out.splitlines())) == (0, 3), done.err
    held_to = {json.loads(path.read_text())["held_to"] for path in (board / "references").iterdir()}
    assert held_to == {"the corpus"}


def test_a_record_of_sequences_is_held_to_the_corpus_too(tones: Path, tmp_path: Path) -> None:
    settings = ("--set", "probe.steps=2", "--set", "probe.selection_points=1")
    run_it = ("run", "--upstream", "mel", "--downstream", "phone-ctc", "--corpus", tones, "--out", tmp_path / "runs")
    done = repbench(*run_it, *settings, "--json")
    assert done.code == 0, done.err
    folder = Path(done.json["records"][0]).parent
    question = {"task": "phone-ctc", "protocols": [{"probe": {"steps": 2, "selection_points": 1}}]}
    write_head(tmp_path / "board", fingerprint_of(folder), question)
    assert Leaderboard(tmp_path / "board").add(folder, read_manifest(tones)).is_new
    answered = [json.loads(line)["hypothesis"] for line in (folder / "predictions.jsonl").read_text().splitlines()]
    edit_predictions(
        folder, lambda lines: lines[0].update(reference=answered[0], reference_length=len(answered[0]), edits=0)
    )
    make_consistent(folder)
    with pytest.raises(IntegrityError, match="The references of 1 utterances are not those of the corpus"):
        Leaderboard(tmp_path / "board").add(folder)


def test_references_of_a_first_submission_are_confirmed_by_the_corpus(
    board: Path, tones: Path, speaker: Path, other: Path
) -> None:
    Leaderboard(board).add(other)
    Leaderboard(board).add(speaker, read_manifest(tones))
    (file,) = (board / "references").iterdir()
    assert json.loads(file.read_text())["held_to"] == "the corpus"


def test_a_forged_first_submission_is_found_out_by_the_corpus(
    board: Path, tones: Path, speaker: Path, other: Path
) -> None:
    edit_predictions(speaker, answer_is_reference)
    make_consistent(speaker)
    assert Leaderboard(board).add(speaker).is_new
    with pytest.raises(IntegrityError, match="These references are not those of tones"):
        Leaderboard(board).add(other, read_manifest(tones))


def test_another_corpus_is_refused(board: Path, tmp_path: Path, speaker: Path) -> None:
    tone_corpus(tmp_path / "others", salt="other")
    with pytest.raises(DataError, match="The record is of a corpus with the fingerprint"):
        Leaderboard(board).add(speaker, read_manifest(tmp_path / "others"))


def test_forged_baselines_are_refused(board: Path, speaker: Path, other: Path) -> None:
    Leaderboard(board).add(other)
    edit(speaker, put("baselines", "majority", value=0.01), sealed_anew=True)
    with pytest.raises(IntegrityError, match=r"`baselines\.majority` is 0\.01"):
        Leaderboard(board).add(speaker)


def test_other_predictions_under_a_known_id_are_refused(board: Path, speaker: Path) -> None:
    edit(speaker, put("predictions_sha256", value=None), sealed_anew=True)
    Leaderboard(board).add(speaker)
    before = stored(board)
    edit_predictions(speaker, lambda lines: lines[0].update(scores=[2 * score for score in lines[0]["scores"]]))
    with pytest.raises(IntegrityError, match="but other predictions"):
        Leaderboard(board).add(speaker)
    assert stored(board) == before


@pytest.mark.parametrize(
    ("question", "match"),
    [
        ({"corpus": "0" * 16}, r"its corpus has the fingerprint [0-9a-f]{16}, and not 0{16}"),
        ({"protocols": [{}]}, r"probe\.batch_frames is 256, and not 2048.*--set probe\.steps=1000"),
        ({"heads": ["linear"]}, r"its head is mlp1.*Run it with --head linear"),
        ({"modes": ["finetune"]}, "its mode is frozen"),
        ({"references": "0" * 16}, "the leaderboard requires 0{16}"),
    ],
    ids=["corpus", "protocol", "head", "mode", "references"],
)
def test_what_the_head_does_not_ask_for_is_refused(
    board: Path, speaker: Path, question: dict[str, Any], match: str
) -> None:
    write_head(board, fingerprint_of(speaker), question)
    with pytest.raises((UsageError, IntegrityError), match=match):
        Leaderboard(board).add(speaker)
    assert list(stored(board)) == ["leaderboard.yaml"]


@pytest.mark.parametrize(
    ("head", "match"),
    [
        (None, r"leaderboard\.yaml is missing"),
        (
            "title: T\nquestions: [{task: phone, corpus: 0123456789abcdef, protocls: [{}]}]",
            "did you mean `q.*protocols`",
        ),
        (
            "title: T\nquestions: [{task: phone, corpus: 0123456789abcdef, protocols: [{probe: {step: 1}}]}]",
            "`probe.steps`",
        ),
        ("title: T\nquestions: []", "questions"),
    ],
)
def test_a_head_that_cannot_be_meant_is_refused(tmp_path: Path, head: str | None, match: str) -> None:
    if head is not None:
        (tmp_path / "leaderboard.yaml").write_text(head, encoding="utf-8")
    with pytest.raises(UsageError, match=match):
        Leaderboard(tmp_path)


def test_deep_and_huge_submissions_are_refused_without_a_traceback(board: Path, phone: Path, speaker: Path) -> None:
    (phone / "record.json").write_text("[" * 200_000, encoding="utf-8")
    with (speaker / "predictions.jsonl").open("ab") as stream:
        stream.truncate(1 << 40)
    done = repbench("leaderboard", "add", phone, speaker, "--to", board)
    assert done.code == 4
    deep, huge = done.err.splitlines()
    assert "it is nested too deeply" in deep
    assert "it is larger than 64 MiB" in huge


def test_a_fault_does_not_keep_the_others_out(board: Path, phone: Path, speaker: Path, tmp_path: Path) -> None:
    edit_predictions(phone, lose_one)
    done = repbench("leaderboard", "add", phone, tmp_path / "nowhere", speaker, "--to", board)
    assert (done.code, len(done.err.splitlines()), len(done.out.splitlines())) == (3, 2, 1)


@pytest.mark.slow
def test_two_that_add_at_once_both_come_in(board: Path, made: dict[str, Path]) -> None:
    """Neither the references that both want to write nor a lock keeps one of them out."""
    with ThreadPoolExecutor() as pool:
        both = [made["speaker"], made["other"], made["speaker"]]
        done = list(pool.map(lambda folder: repbench("leaderboard", "add", folder, "--to", board), both))
    assert [each.code for each in done] == [0, 0, 0], [each.err for each in done]
    assert len(list((board / "submissions").iterdir())) == 2
    assert len(list((board / "references").iterdir())) == 1
    assert not list(board.rglob(".tmp-*"))
    assert all(not isinstance(found, Exception) for _, found in Leaderboard(board).submissions())


def test_of_two_first_submissions_at_once_the_second_is_held_to_the_first(
    board: Path, speaker: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The forger has looked for references before the honest one wrote them, and writes after."""
    edit_predictions(speaker, answer_is_reference)
    make_consistent(speaker)
    honest, forger = Leaderboard(board), Leaderboard(board)
    keep = Leaderboard._keep

    def keep_late(self: Leaderboard, *arguments: Any) -> None:
        if self is forger:
            honest.add(other)
        keep(self, *arguments)

    monkeypatch.setattr(Leaderboard, "_keep", keep_late)
    with pytest.raises(IntegrityError, match="are not those of the first submission"):
        forger.add(speaker)
    assert len(list((board / "submissions").iterdir())) == 1


@pytest.mark.slow
@pytest.mark.parametrize("write", [1, 2], ids=["references", "submission"])
def test_a_killed_add_leaves_nothing_half(board: Path, speaker: Path, write: int) -> None:
    """Killed before the bytes of its first or second file have their name; what is there is whole; again adds it."""
    program = f"""
        import os, signal, sys
        from pathlib import Path
        from repbench.benchmark.leaderboard import Leaderboard
        link, calls = os.link, []
        def killing(*arguments, **options):
            calls.append(arguments)
            if len(calls) == {write}:
                os.kill(os.getpid(), signal.SIGKILL)
            link(*arguments, **options)
        os.link = killing
        Leaderboard(Path(sys.argv[1])).add(Path(sys.argv[2]))
    """
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), board, speaker], env=os.environ.copy(), timeout=120
    )
    assert killed.returncode == -signal.SIGKILL
    assert len(list(board.rglob(".tmp-*"))) == 1
    assert not list((board / "submissions").glob("[!.]*"))
    assert Leaderboard(board).add(speaker).is_new
    assert not list(board.rglob(".tmp-*"))
    ((_, found),) = Leaderboard(board).submissions()
    assert not isinstance(found, Exception)


def into_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("forge", "match"),
    [
        (
            lambda path: path.write_bytes(path.read_bytes().replace(b"0.", b"1.", 1)),
            "not in the form|was changed|not finite|the predictions give",
        ),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n")), "it is not in the form"),
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), "This is not a submission"),
        (lambda path: path.write_bytes(b"[" * 200_000), "it is nested too deeply"),
        (lambda path: path.write_bytes(b'{"schema": "repbench.submission/1", "record": {}}'), "not a record"),
        (lambda path: path.rename(path.with_name("0123456789abcdef.json")), "is not named after its record"),
        (lambda path: (path.unlink(), path.symlink_to("/etc/passwd")), "This is no plain file"),
        (into_a_pipe, "This is no plain file"),
        (lambda path: (path.unlink(), path.mkdir()), "This is no plain file"),
        (lambda path: os.truncate(path, 1 << 40), "This is larger than 64 MiB"),
    ],
    ids=["edited", "crlf", "cut", "deep", "empty", "renamed", "link", "pipe", "folder", "huge"],
)
def test_a_file_that_came_in_by_other_ways_is_checked_too(board: Path, speaker: Path, forge: Any, match: str) -> None:
    path = Leaderboard(board).add(speaker).path
    forge(path)
    ((_, found),) = Leaderboard(board).submissions()
    assert isinstance(found, IntegrityError)
    assert re.search(match, found.line())


def test_what_was_heard_before_comes_in_with_a_record_and_must_be_of_its_test(
    board: Path, speaker: Path, phone: Path
) -> None:
    found = json.loads(Leaderboard(board).add(phone).path.read_text())["record"]["heard"]
    assert (found["verdict"], found["declared"], found["n_test"]) == ("not heard", [], 8)
    for change, match in (
        (put("heard", "n_test", value=1), r"compares 1 utterances with the training data, but scored"),
        (put("heard", "n_overlapping", value=1), r"1 test utterances overlap, but the verdict is `not heard`"),
    ):
        forged = copied(speaker, speaker.with_name(f"forged {match[:1]}"))
        edit(forged, change, sealed_anew=True)
        with pytest.raises(IntegrityError, match=match):
            Leaderboard(board).add(forged)


def test_edited_references_are_noticed(board: Path, speaker: Path) -> None:
    Leaderboard(board).add(speaker)
    (file,) = (board / "references").iterdir()
    text = file.read_text(encoding="ascii")
    fields = json.loads(text)
    id_, digest = next(iter(fields["utterances"].items()))
    file.write_text(text.replace(digest, "0" * 16, 1), encoding="ascii")
    ((_, found),) = Leaderboard(board).submissions()
    assert isinstance(found, IntegrityError)
    assert "These are no references" in found.line()
    assert id_ in fields["utterances"]
