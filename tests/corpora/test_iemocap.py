"""The layout `iemocap`, on two small sessions of noise."""

from __future__ import annotations

from pathlib import Path

import pytest

from repbench.corpora.contract import CorpusLayout, DraftUtterance, PrepareOptions
from repbench.corpora.layouts.iemocap import IEMOCAP
from repbench.errors import DataError
from tests.corpora.scored import prepared
from tests.corpora.sounds import write_noise, write_text

HEADER = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]"
DIALOGS = {
    "Session1": (
        "Ses01F_impro01",
        ("F000", "neu", "2.5000, 2.5000, 2.5000"),
        ("M001", "xxx", "3.0000, 2.0000, 4.5000"),
    ),
    "Session2": ("Ses02M_script01_1", ("F000", "hap", "4.0000, 3.5000, 3.0000"), ("M000", "exc", "4.5000, 4.0000, 3")),
}


def label(turn: str, emotion: str, scales: str) -> str:
    return f"[6.2901 - 8.2357]\t{turn}\t{emotion}\t[{scales}]"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "IEMOCAP_full_release"
    for session, (dialog, *turns) in DIALOGS.items():
        lines = [HEADER, ""]
        for number, (end, emotion, scales) in enumerate(turns):
            turn = f"{dialog}_{end}"
            lines += [label(turn, emotion, scales), "C-E2:\tNeutral;\t()", "A-E3:\tval 3; act 2; dom  2;\t()", ""]
            sound = root / session / "sentences" / "wav" / dialog / f"{turn}.wav"
            write_noise(sound, seed=10 * len(dialog) + number, seconds=0.2)
        write_text(root / session / "dialog" / "EmoEvaluation" / f"{dialog}.txt", *lines)
    # files of the single annotators, which hold no means
    write_text(root / "Session1" / "dialog" / "EmoEvaluation" / "Categorical" / "Ses01F_impro01_e2_cat.txt", "x")
    write_text(
        root / "Session1" / "dialog" / "transcriptions" / "Ses01F_impro01.txt",
        "Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.",
        "M: Mmhmm.",
    )
    return root


def prepare(root: Path) -> dict[str, DraftUtterance]:
    return {each.id: each for each in IEMOCAP.prepare(root, PrepareOptions()).utterances}


def test_it_is_a_layout() -> None:
    assert isinstance(IEMOCAP, CorpusLayout)


def test_a_turn_has_emotion_scales_speaker_and_fold(root: Path) -> None:
    found = prepare(root)
    assert list(found) == [
        "Ses01F_impro01_F000", "Ses01F_impro01_M001", "Ses02M_script01_1_F000", "Ses02M_script01_1_M000",
    ]  # fmt: skip
    assert found["Ses01F_impro01_F000"] == DraftUtterance(
        id="Ses01F_impro01_F000",
        audio=root / "Session1" / "sentences" / "wav" / "Ses01F_impro01" / "Ses01F_impro01_F000.wav",
        speaker="Ses01F",
        text="Excuse me.",
        attributes={
            "emotion": "neutral",
            "valence": 2.5,
            "activation": 2.5,
            "dominance": 2.5,
            "gender": "F",
            "style": "improvised",
            "fold": "Session1",
        },
        group="Ses01F_impro01",
    )


def test_the_speaker_is_the_one_of_the_turn_and_not_the_one_with_the_markers(root: Path) -> None:
    found = prepare(root)
    assert {name: (each.speaker, each.attributes["gender"]) for name, each in found.items()} == {
        "Ses01F_impro01_F000": ("Ses01F", "F"),
        "Ses01F_impro01_M001": ("Ses01M", "M"),
        "Ses02M_script01_1_F000": ("Ses02F", "F"),
        "Ses02M_script01_1_M000": ("Ses02M", "M"),
    }


def test_folds_are_sessions_with_speakers_of_their_own(root: Path) -> None:
    by_fold: dict[object, set[str | None]] = {}
    for each in prepare(root).values():
        by_fold.setdefault(each.attributes["fold"], set()).add(each.speaker)
    assert by_fold == {"Session1": {"Ses01F", "Ses01M"}, "Session2": {"Ses02F", "Ses02M"}}


def test_turns_without_agreement_have_no_emotion_and_are_counted(root: Path) -> None:
    draft = IEMOCAP.prepare(root, PrepareOptions())
    assert "emotion" not in prepare(root)["Ses01F_impro01_M001"].attributes
    assert draft.notes[0] == "1 of 4 utterances have no emotion, because the annotators did not agree"
    assert draft.scales == {"valence": 3.0, "activation": 3.0, "dominance": 3.0}


def test_its_manifest_keeps_scales(root: Path, tmp_path: Path) -> None:
    corpus = prepared(IEMOCAP, root, tmp_path / "out")
    assert corpus.utterances[0].scales == {"valence": 3.0, "activation": 3.0, "dominance": 3.0}
    assert len(corpus.utterances) == 4


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (label("Ses01F_impro01_F009", "joy", "1, 1, 1"), r"`joy` is no emotion of IEMOCAP.*impro01\.txt:2"),
        (label("Ses01F_impro01_F009", "neu", "1, 1"), r"must be `\[START - END\] TURN.*impro01\.txt:2"),
        (label("Ses01F_impro01_F009", "neu", "1, 1, 1"), r"sound of the turn is missing.*impro01\.txt:2"),
        (label("Ses01F_impro02_F000", "neu", "1, 1, 1"), r"not of the dialogue Ses01F_impro01.*impro01\.txt:2"),
    ],
)
def test_a_broken_label_is_refused_by_its_line(root: Path, line: str, fault: str) -> None:
    write_text(root / "Session1" / "dialog" / "EmoEvaluation" / "Ses01F_impro01.txt", HEADER, line)
    with pytest.raises(DataError, match=fault):
        prepare(root)
    draft = IEMOCAP.prepare(root, PrepareOptions(gather_faults=True))
    assert (len(draft.faults), len(tuple(draft.utterances))) == (1, 2)


def test_a_turn_labelled_twice_is_refused(root: Path) -> None:
    turn = label("Ses01F_impro01_F000", "neu", "1, 1, 1")
    write_text(root / "Session1" / "dialog" / "EmoEvaluation" / "Ses01F_impro01.txt", turn, turn)
    with pytest.raises(DataError, match=r"labelled twice.*impro01\.txt:2"):
        prepare(root)


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not laid out like IEMOCAP"):
        prepare(tmp_path)
