"""`repbench corpus prepare` with alignments, lists of splits and frequent speakers, and a run on what it made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands import repbench
from tests.corpora.alignment_files import FORMATS, Intervals
from tests.corpora.sounds import long_textgrid, write_noise, write_text

NUM_UTTERANCES = {"19": 4, "26": 4, "84": 4, "367": 1}
PHONES: Intervals = [(0.0, 0.1, "sil"), (0.1, 0.2, "DH"), (0.2, 0.4, "AH0"), (0.4, 0.5, "sil")]
IDS = [f"{speaker}-1-{k:04d}" for speaker, count in NUM_UTTERANCES.items() for k in range(count)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Thirteen utterances of four speakers in one subset, with lists of splits."""
    for seed, name in enumerate(IDS):
        speaker, chapter, _ = name.split("-")
        write_noise(tmp_path / "LibriSpeech" / "train-clean-100" / speaker / chapter / f"{name}.flac", seed=seed)
    (tmp_path / "lists").mkdir()
    for split, speakers in (("train", ("19",)), ("dev", ("26",)), ("test", ("84", "367"))):
        names = [name for name in IDS if name.split("-")[0] in speakers]
        (tmp_path / "lists" / f"{split}_split.txt").write_text("\n".join([*names, f"{split}-1-0000"]) + "\n")
    return tmp_path / "LibriSpeech"


def test_a_prepared_experiment_runs(root: Path, tmp_path: Path) -> None:
    aligned = {name: PHONES for name in IDS if name != "19-1-0003"}
    alignments = FORMATS["start end phone"].save(tmp_path / "alignments", aligned)
    (tmp_path / "unaligned.txt").write_text("19-1-0003\n")
    prepared = repbench(
        *("corpus", "prepare", "librispeech", "--root", root, "--out", tmp_path / "manifest", "--json"),
        *("--alignments", alignments, "--splits", tmp_path / "lists", "--min-utterances", "2"),
    )
    assert prepared.code == 0, prepared.err
    assert prepared.json["utterances"] == 12
    assert prepared.json["notes"] == [
        "13 of 13 utterances have no transcript",
        "1 of 13 utterances have no alignment; 1 of them are listed as unaligned",
        "12 of 48 labels lose their stress: `AH0`",
        "3 of 4 speakers have at least 2 utterances; 12 of 13 utterances are left",
        "splits by dev_split.txt, test_split.txt, train_split.txt: 4 train, 4 dev, 4 test",
        "4 of 16 listed utterances are not there",
    ]
    ran = repbench(
        *("run", "--upstream", "mel", "--downstream", "phone", "--corpus", tmp_path / "manifest"),
        *("--set", "probe.steps=20", "--out", tmp_path / "runs", "--json"),
    )
    assert ran.code == 0, ran.err
    record = ran.json["results"][0]
    assert record["corpus"]["split_policy"] == "official splits"
    assert [record["corpus"][f"n_{split}"] for split in ("train", "dev", "test")] == [3, 4, 4]


@pytest.mark.parametrize(
    ("options", "code", "what"),
    [
        (("--dev-from-train", "0.1"), 2, "must be a share and a seed"),
        (("--dev-from-train", "0.1:1337"), 2, "divides a list of `--splits`"),
        (("--min-utterances", "0"), 2, "--min-utterances"),
        (("--min-utterances", "5"), 3, "None of 4 speakers has 5 utterances; the most is 4"),
        (("--splits", "LISTS", "--dev-from-train", "0.1:1337"), 2, "name a dev split already"),
        (("--splits", "LISTS/none.txt"), 2, "must begin with its split"),
        (("--tier", "MAU"), 2, "`--tier` is an option of `--alignments`, but there are none"),
        (("--relabel", "breath"), 2, "`breath` is not of the form LABEL=PHONE"),
        (("--relabel", "a=b", "--relabel", "a="), 2, "`a=` names a label twice"),
        (("--alignments", "LISTS"), 3, "such as `19-1-0000`|no alignment"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    root: Path, tmp_path: Path, options: tuple[str, ...], code: int, what: str
) -> None:
    given = [option.replace("LISTS", str(tmp_path / "lists")) for option in options]
    ended = repbench("corpus", "prepare", "librispeech", "--root", root, "--out", tmp_path / "manifest", *given)
    assert (ended.code, ended.out, ended.err.count("\n")) == (code, "", 1)
    assert any(part in ended.err for part in what.split("|")), ended.err
    assert not (tmp_path / "manifest").exists()


def test_fault_22_is_named_by_file_line_and_utterance(root: Path, tmp_path: Path) -> None:
    alignments = FORMATS["CTM"].save(tmp_path / "alignments", {"26-1-0002": [(0.0, 0.3, "AA1"), (0.2, 0.5, "K")]})
    ended = repbench(
        *("corpus", "prepare", "librispeech", "--root", root, "--out", tmp_path / "manifest", "--json"),
        *("--alignments", alignments),
    )
    assert ended.code == 3
    assert json.loads(ended.out)["utterance"] == "26-1-0002"
    assert "Interval 2 (line 3) starts before the one in front of it has ended" in ended.err


def test_tier_and_labels_are_chosen_on_the_command_line(root: Path, tmp_path: Path) -> None:
    grid = long_textgrid([(0.0, 0.2, "zz"), (0.2, 0.4, "n="), (0.4, 0.5, "AE1")], tier="narrow")
    write_text(tmp_path / "alignments" / "26-1-0002.TextGrid", grid)
    prepared = repbench(
        *("corpus", "prepare", "librispeech", "--root", root, "--out", tmp_path / "manifest", "--json"),
        *("--alignments", tmp_path / "alignments", "--tier", "narrow", "--relabel", "zz=", "--relabel", "n==N"),
    )
    assert prepared.code == 0, prepared.err
    header = json.loads((tmp_path / "manifest" / "corpus.json").read_text())
    assert header["phone_map"] == {"AE1": "AE", "n=": "N", "zz": None}
    assert "the phones of 1 of 1 alignments are those of the tier `narrow`" in prepared.json["notes"]
    kept = repbench(
        *("corpus", "prepare", "librispeech", "--root", root, "--out", tmp_path / "kept", "--json"),
        *("--alignments", tmp_path / "alignments", "--tier", "narrow", "--keep-labels"),
    )
    assert kept.code == 0, kept.err
    assert json.loads((tmp_path / "kept" / "corpus.json").read_text())["label_sets"]["phones"] == ["AE1", "n=", "zz"]
