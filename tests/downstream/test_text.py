"""Texts as targets: their normalisation, the units that spell them, error rates, and slots."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from repbench.corpora.contract import AttributeValue, Corpus, Utterance
from repbench.corpora.open import open_corpus
from repbench.downstream.asr import ASR, SpeltTask
from repbench.downstream.contract import Downstream, LabelledUtterance, TaskContext
from repbench.downstream.metrics import words
from repbench.downstream.metrics.edits import aligned, count_edits, error_rate
from repbench.downstream.problems.sequences import sequence_loss
from repbench.downstream.problems.texts import TEXTS, TextPrediction, prediction_of_texts
from repbench.downstream.slots import Slots
from repbench.downstream.text import (
    RULES,
    SUBWORDS_FILE,
    WORD_START,
    Characters,
    Transcript,
    joined,
    marked_by_columns,
    read_marked,
    read_subwords,
    slots_in,
    train_subwords,
)
from repbench.errors import DataError, IntegrityError, Unlabelled, UsageError
from repbench.files import atomic_write
from repbench.testing.downstreams import DOWNSTREAM_CHECKS, DownstreamSubject

UPPER = RULES["upper-letters-v1"]
TRAIN = [tuple(text.split()) for text in ("ONE TWO", "TWO THREE ONE", "SEVENTEEN ELEVEN", "TEN ONE TEN", "")]


def utterance(text: str | None, **attributes: AttributeValue) -> Utterance:
    return Utterance(
        id="u1", audio=Path("/nowhere/u1.wav"), sample_rate_hz=16000, num_samples=16000, speaker="s", text=text,
        attributes=attributes, samples_sha256="0",
    )  # fmt: skip


# Normalisation


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("He hates   shooting.", "HE HATES SHOOTING"),
        ("don’t ‘quote’ the dogs'", "DON'T QUOTE THE DOGS"),
        ("well-known, e.g. “Zürich”", "WELL KNOWN E G ZÜRICH"),
        ("Zu\u0308rich", "ZÜRICH"),  # a letter and its mark are one letter of NFKC
        ("ｆｕｌｌ ﬁre ½", "FULL FIRE 1 2"),
        ("7 days, 1.5 km", "7 DAYS 1 5 KM"),
        ("soft\u00adhyphen zero\u200bwidth", "SOFTHYPHEN ZEROWIDTH"),
        ("straße ΰ", "STRASSE Ϋ́"),
        ("हिन्दी", "हिन्दी"),
        ("... — !?", ""),
        ("", ""),
        ("▁a▁b", "A B"),
    ],
)
def test_the_rule_for_upper_letters(text: str, found: str) -> None:
    assert " ".join(UPPER(text)) == found
    assert UPPER(found) == UPPER(text)  # a normalised text stays as it is


def test_without_a_rule_words_stay_as_they_are() -> None:
    assert RULES["none"]("  Well-known,\tDON'T ▁x") == ("Well-known,", "DON'T", "x")


# Units


def test_characters_are_those_of_the_training_texts() -> None:
    encoder = Characters([("AB", "A"), ("C'D",)])
    assert encoder.units == tuple(sorted({*"ABCD'", WORD_START}))
    assert encoder.encoded(Transcript(("AB", "A"))).units == (WORD_START, "A", "B", WORD_START, "A")
    with pytest.raises(DataError, match=r"The word `AX` needs `X`"):
        encoder.encoded(Transcript(("AX",)))


@pytest.mark.parametrize("kind", ["characters", "subwords"])
def test_units_spell_the_words_that_they_were_made_of(kind: str) -> None:
    if kind == "subwords":
        pytest.importorskip("sentencepiece", reason="needs the extra `asr`")
    encoder = Characters(TRAIN) if kind == "characters" else train_subwords(TRAIN, 20)
    for text in TRAIN:
        encoded = encoder.encoded(Transcript(text))
        assert joined(encoded.units) == text == encoded.words
        assert set(encoded.units) <= set(encoder.units)


def test_subwords_are_the_same_in_any_order_and_each_word_is_spelt_alone() -> None:
    library = pytest.importorskip("sentencepiece", reason="needs the extra `asr`")
    first, other = train_subwords(TRAIN, 16), train_subwords(TRAIN[::-1], 16)
    assert first.files == other.files
    assert first.units == tuple(sorted(set(first.units)))
    assert len(first.units) <= 16
    whole = library.SentencePieceProcessor(model_proto=first.files[SUBWORDS_FILE])
    for text in TRAIN:
        assert list(first.encoded(Transcript(text)).units) == whole.encode(" ".join(text), out_type=str)


def test_too_few_subwords_and_no_text_are_refused() -> None:
    pytest.importorskip("sentencepiece", reason="needs the extra `asr`")
    with pytest.raises(DataError, match=r"have 10 characters, so that 5 sub-words do not spell them"):
        train_subwords(TRAIN, 5)
    assert set(train_subwords(TRAIN, 11).units) >= set("ONETWHRSVL")
    with pytest.raises(DataError, match="no word to train sub-words on"):
        train_subwords([()], 5)


def test_a_model_that_is_not_whole_is_never_read(tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece", reason="needs the extra `asr`")
    import hashlib

    encoder = train_subwords(TRAIN, 16)
    content = encoder.files[SUBWORDS_FILE]
    sha256 = hashlib.sha256(content).hexdigest()
    with pytest.raises(IntegrityError, match="No such file"):
        read_subwords(tmp_path, sha256)
    with atomic_write(tmp_path / SUBWORDS_FILE) as stream:
        stream.write(content)
    assert read_subwords(tmp_path, sha256).units == encoder.units
    for part in (content[:-1], content[: len(content) // 2], b""):
        (tmp_path / SUBWORDS_FILE).write_bytes(part)
        with pytest.raises(IntegrityError, match="but was written with"):
            read_subwords(tmp_path, sha256)


# Metrics


def random_texts(count: int) -> list[tuple[str, str]]:
    """Pairs of texts of which some are empty, some equal, some in several scripts."""
    drawn = random.Random(0)
    vocabulary = [
        "a",
        "the",
        "Zürich",
        "naïve",
        "Привет",
        "日本語",
        "हिन्दी",
        "e\u0301",
        "👩\u200d🚀",
        "don't",
        "x",
        "yz",
    ]

    def text() -> str:
        return " ".join(drawn.choice(vocabulary) for _ in range(drawn.choice((0, 1, 2, 5, 12))))

    pairs = [(text(), text()) for _ in range(count - 20)]
    return [*pairs, *((each, each) for each, _ in pairs[:20])]


def test_error_rates_are_those_of_jiwer_also_for_empty_and_unicode_references() -> None:
    jiwer = pytest.importorskip("jiwer", reason="needs the extra `dev`")
    pairs = random_texts(200)
    assert sum(not reference for reference, _ in pairs) > 20
    predictions = [prediction_of_texts(*pair, id=f"u{number}", speaker="s") for number, pair in enumerate(pairs)]
    measured = ASR().measure(predictions, ())
    references, hypotheses = [one for one, _ in pairs], [other for _, other in pairs]
    assert measured["word_error_rate"].value == jiwer.wer(references, hypotheses)
    assert measured["character_error_rate"].value == jiwer.cer(references, hypotheses)
    for each, (reference, hypothesis) in zip(predictions, pairs, strict=True):
        found = jiwer.process_words(reference, hypothesis)
        assert each.word_edits == found.substitutions + found.deletions + found.insertions
        letters = jiwer.process_characters(reference, hypothesis)
        assert each.character_edits == letters.substitutions + letters.deletions + letters.insertions


def slow_edits(reference: Sequence[str], estimated: Sequence[str]) -> int:
    """Levenshtein's recursion, row by row."""
    row = list(range(len(estimated) + 1))
    for number, one in enumerate(reference, start=1):
        above, row = row, [number]
        for place, other in enumerate(estimated, start=1):
            row.append(min(above[place] + 1, row[-1] + 1, above[place - 1] + (one != other)))
    return row[-1]


def test_alignments_have_the_fewest_edits_and_lose_no_word() -> None:
    for reference, hypothesis in random_texts(100):
        pair = reference.split(), hypothesis.split()
        pairs = aligned(*pair)
        assert sum(one != other for one, other in pairs) == count_edits(*pair) == slow_edits(*pair)
        assert [one for one, _ in pairs if one is not None] == pair[0]
        assert [other for _, other in pairs if other is not None] == pair[1]


def test_insertions_into_an_utterance_without_words_count() -> None:
    silent = prediction_of_texts("", "UH HUH", id="a")
    right = prediction_of_texts("ONE TWO THREE FOUR", "ONE TWO THREE FOUR", id="b")
    measured = ASR().measure([silent, right], ())["word_error_rate"]
    assert (measured.value, measured.counts) == (0.5, {"edits": 2, "reference_words": 4})
    assert ASR().measure([silent], ())["word_error_rate"].value is None
    assert error_rate(0, 0) is None


SLOT_PAIRS = [
    # reference, hypothesis, F1 of names, edits and characters of values
    ("TO <city> NEW YORK </city>", "TO <city> NEW YORK </city>", 1.0, (0, 8)),
    ("TO <city> NEW YORK </city>", "TO <city> NEW FORK </city> <day> X </day>", 2 / 3, (1, 8)),
    ("TO <city> NEW YORK </city>", "TO NEW YORK", 0.0, (8, 8)),
    ("HELLO", "HELLO", 1.0, (0, 0)),
    ("HELLO", "<day> X </day>", 0.0, (0, 0)),
    ("<a> ONE </a> <a> TWO </a>", "<a> TWO </a>", 1.0, (3, 6)),  # ONE and TWO differ in three letters
    ("<a> ONE </a>", "<a> ONE", 0.0, (3, 3)),  # never closed: no slot
    ("<a> ONE </a>", "<b> X <a> ONE </a>", 1.0, (0, 3)),
    ("<a> ONE </a>", "<a> </a>", 1.0, (3, 3)),
    ("<a> ONE </a>", "</a> <a> ONE </b> </a>", 0.0, (3, 3)),
]


@pytest.mark.parametrize(("reference", "hypothesis", "f1", "edits"), SLOT_PAIRS)
def test_slots_are_measured_by_name_and_by_value(
    reference: str, hypothesis: str, f1: float, edits: tuple[int, int]
) -> None:
    pair = [list(slots_in(text.split())) for text in (reference, hypothesis)]
    assert float(words.slot_type_f1(*pair)) == pytest.approx(f1)
    assert words.slot_value_edits(*pair) == edits


def test_the_mean_of_f1_is_over_utterances_and_the_errors_of_values_are_pooled() -> None:
    predictions = [prediction_of_texts(one, other, id=str(n)) for n, (one, other, *_) in enumerate(SLOT_PAIRS)]
    measured = Slots().measure(predictions, ())
    assert measured["slot_type_f1"].value == pytest.approx(sum(f1 for *_, f1, _ in SLOT_PAIRS) / len(SLOT_PAIRS))
    edits, length = (sum(pair[place] for *_, pair in SLOT_PAIRS) for place in (0, 1))
    assert measured["slot_value_character_error_rate"].value == edits / length


# Slots as labels


def test_marked_words_are_read_and_keep_their_markers() -> None:
    found = read_marked("Fly to <to_city> New-York </to_city>, please", UPPER)
    assert found == ("FLY", "TO", "<to_city>", "NEW", "YORK", "</to_city>", "PLEASE")
    assert list(slots_in(found)) == [("to_city", "NEW YORK")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<a> x", "`<a>` is not closed"),
        ("x </a>", "`</a>` closes no slot"),
        ("<a> x </b>", "`</b>` closes `<a>`"),
        ("<a> x <b> y </b>", "`<b>` opens a slot inside of `<a>`"),
        ("<a> ... </a>", "the slot `<a>` holds no word"),
    ],
)
def test_faulty_markers_are_refused_with_the_utterance(text: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as raised:
        Slots().labels(utterance(None, slots=text))
    assert raised.value.utterance == "u1"


def test_a_column_a_slot_is_marked_in_the_text() -> None:
    task = Slots(columns=["size", "drink", "sugar"])
    spoken = utterance("A large iced tea, please", size="large", drink="Iced Tea", sugar="none")
    assert " ".join(task.labels(spoken).words) == "A <size> LARGE </size> <drink> ICED TEA </drink> PLEASE"
    with pytest.raises(DataError, match=r"the text does not hold `SMALL` of the column `size`"):
        task.labels(utterance("a large tea", size="small"))
    with pytest.raises(Unlabelled, match="no attribute size or drink or sugar"):
        task.labels(utterance("a large tea"))
    with pytest.raises(Unlabelled, match="no text"):
        task.labels(utterance(None, size="large"))
    assert marked_by_columns(("A", "A"), {"x": ("A",), "y": ("A",)}) == ("<x>", "A", "</x>", "<y>", "A", "</y>")
    with pytest.raises(ValueError, match="overlaps another slot"):
        marked_by_columns(("A",), {"x": ("A",), "y": ("A",)})


def test_a_marker_is_one_unit_and_a_word_of_its_own() -> None:
    encoder = Characters([("GO", "<to>", "IT", "</to>")], markers=True)
    assert {" <to> ", " </to> "} <= set(encoder.units)
    assert joined([WORD_START, "G", " <to> ", "I", " </to> "]) == ("G", "<to>", "I", "</to>")
    # A text of `asr` has no markers: what looks like one is spelt in letters.
    assert "<" in Characters([("<to>",)]).units


# The tasks


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (ASR, {"units": "phones"}, "`units` must be characters or subwords"),
        (ASR, {"vocabulary_size": 200}, "`vocabulary_size` is of sub-words"),
        (ASR, {"units": "subwords", "vocabulary_size": 1}, "must be a whole number from 2 on, but is 1"),
        (ASR, {"units": "subwords", "vocabulary_size": True}, "must be a whole number from 2 on"),
        (ASR, {"text": "upper-letters"}, "There is no rule `upper-letters`.*upper-letters-v1"),
        (Slots, {"columns": "size"}, "`columns` must be a list of names"),
        (Slots, {"attribute": 3}, "`attribute` must be a name"),
    ],
)
def test_an_option_that_cannot_be_is_refused(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        kind(**options)


def test_a_missing_text_is_said_and_an_empty_one_is_a_label() -> None:
    with pytest.raises(Unlabelled, match="no text"):
        ASR().labels(utterance(None))
    assert ASR().labels(utterance("...")) == Transcript(())
    with pytest.raises(Unlabelled, match="no attribute slots"):
        Slots().labels(utterance("x"))


def with_texts(corpus: Corpus) -> Corpus:
    """The corpus with slots marked in its texts."""
    spoken = [each for each in corpus.utterances if each.text]
    marked = [
        replace(each, attributes={**each.attributes, "slots": f"<first> {each.text} </first> and <last> so </last>"})
        for each in spoken
    ]
    return replace(corpus, utterances=tuple(marked))


@pytest.mark.slow
@pytest.mark.parametrize(
    "task", [ASR(), ASR(text="none"), Slots(), ASR(units="subwords", vocabulary_size=60), Slots(units="subwords")]
)
def test_the_conformance_suite_passes(task: SpeltTask, monkeypatch: pytest.MonkeyPatch) -> None:
    if task._units == "subwords":
        pytest.importorskip("sentencepiece", reason="needs the extra `asr`")
    pytest.importorskip("espeakng_loader", reason="needs the extra `demo`, which brings espeak-ng")
    assert isinstance(task, Downstream)
    corpus = with_texts(open_corpus("synthetic:tiny"))
    results = DOWNSTREAM_CHECKS.results(DownstreamSubject(task, corpus))
    assert [each.id for each in results if each.status == "failed"] == []
    assert "passed" in {each.status for each in results if each.id == "perfect-scores-perfect"}


# The problem


def labelled(text: str, spelt: bool = True) -> LabelledUtterance:
    transcript = Transcript(tuple(text.split()))
    return LabelledUtterance(utterance(text), Characters([("ONE", "TWO")]).encoded(transcript) if spelt else transcript)


def test_scores_become_words_and_predictions_their_own_lines() -> None:
    context = TaskContext(ASR(), Characters([("ONE", "TWO")]).units)
    example = labelled("ONE TWO")
    path = [context.index[unit] for unit in (WORD_START, *"ONE", WORD_START, *"TO")]
    scores = torch.eye(len(context.classes) + 1)[torch.tensor(path)]
    found = TEXTS.predict(example, TEXTS.reference(context, example, len(path)), scores)
    assert (found.reference, found.hypothesis, found.word_edits, found.character_edits) == ("ONE TWO", "ONE TO", 1, 1)
    assert TextPrediction.of_line(found.as_line()) == found
    assert list(TEXTS.faults([found], 9)) == [None]
    for change in ({"word_edits": 0}, {"character_edits": 2}, {"hypothesis": "ONE  TO"}, {"word_edits": True}):
        assert next(TEXTS.faults([replace(found, **change)], 9)) is not None


def test_targets_are_units_and_an_utterance_without_words_trains_blanks() -> None:
    context = TaskContext(ASR(), Characters([("ONE", "TWO")]).units)
    assert [context.classes[each] for each in TEXTS.targets(context, labelled("TWO"), 9)] == [WORD_START, *"TWO"]
    assert len(TEXTS.targets(context, labelled(""), 9)) == 0
    assert TEXTS.frames_needed(labelled("TOO").labels) == 5  # a blank between two equal letters
    scores = torch.zeros(3, 2, requires_grad=True)
    loss = sequence_loss(scores, torch.tensor([3]), torch.zeros(0, dtype=torch.int64), torch.tensor([0]))
    torch.autograd.backward(loss)
    assert loss.item() == pytest.approx(3 * torch.tensor(2.0).log().item())
    assert scores.grad is not None
    assert bool((scores.grad[:, 1] < 0).all())  # towards the blank


def test_shuffled_labels_move_words_with_their_spelling() -> None:
    labels = labelled("ONE TWO").labels
    turned = TEXTS.with_values(labels, iter(TEXTS.values(labels)[::-1]))
    assert turned.words == ("TWO", "ONE")
    assert joined(turned.units) == turned.words
    bare = labelled("ONE TWO", spelt=False).labels
    assert TEXTS.with_values(bare, iter(TEXTS.values(bare)[::-1])) == Transcript(("TWO", "ONE"))


def test_unknown_letters_and_silent_utterances_are_counted() -> None:
    classes = Characters([("ONE", "TWO")]).units
    assert TEXTS.warnings(classes, [Transcript(("ONE",))]) == ()
    unknown, empty = TEXTS.warnings(classes, [Transcript(("ONE", "ÉX")), Transcript(()), Transcript(("X",))])
    assert unknown.startswith("2 of 3 test words hold characters that no training text has (X, É)")
    assert empty.startswith("1 of 3 test utterances have no words")
