"""Words, commands, emotions and languages of the synthetic corpus: balanced, disjoint, and told by the sound alone."""

from __future__ import annotations

import functools
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from repbench.corpora.contract import Corpus, Split
from repbench.corpora.synthetic import build, conditions
from repbench.corpora.synthetic.commands import FRAMES, NONE, SLOTS
from repbench.corpora.synthetic.conditions import CONDITIONS, KINDS, SIZES, CorpusSize, SyntheticSpec
from repbench.corpora.synthetic.content import Prosody
from repbench.corpora.synthetic.emotions import EMOTIONS
from repbench.corpora.synthetic.languages import LANGUAGES, VOCABULARIES
from repbench.corpora.synthetic.plan import CONTENT_SOURCES, PlannedUtterance, plan
from repbench.corpora.synthetic.searches import TERMS
from repbench.corpora.synthetic.sentences import CHARGED, normalised
from repbench.corpora.synthetic.voices import draw_voice
from repbench.corpora.synthetic.words import COMMANDS, OTHERS
from tests.corpora.test_synthetic import samples

pytest.importorskip("espeakng_loader", reason="needs the extra `demo`, which brings espeak-ng")

NEW_KINDS = [kind for kind in KINDS if kind != "sentences"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")
FEW = CorpusSize(name="few", num_speakers={"train": 1, "dev": 1, "test": 1}, num_sessions=2, num_per_session=4)


@functools.cache
def planned(kind: str, size: str = "small") -> list[PlannedUtterance]:
    return plan(SyntheticSpec(CONDITIONS["noisy"], SIZES[size], kind))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Corpus]:
    """Twenty-four utterances of each kind, without noise."""
    return {
        kind: build.build(SyntheticSpec(CONDITIONS["clean"], FEW, kind), tmp_path_factory.mktemp(kind), num_workers=2)
        for kind in NEW_KINDS
    }


def test_every_kind_has_a_source_of_contents() -> None:
    assert set(CONTENT_SOURCES) == set(KINDS)


def test_a_kind_stands_in_the_name_and_the_folder() -> None:
    spec = conditions.parse(("tiny", "words", "hard"))
    assert (spec.corpus_name, spec.folder_name) == ("synthetic:words:hard:tiny", "synthetic-v1-words-hard-tiny")
    # sentences are the kind that was there before
    assert conditions.parse(("sentences",)) == conditions.parse(())
    assert conditions.parse(("sentences",)).folder_name == "synthetic-v1-noisy-small"


@pytest.mark.parametrize("kind", NEW_KINDS)
@pytest.mark.parametrize("size", ["tiny", "small"])
def test_speakers_and_sessions_are_those_of_sentences(kind: str, size: str) -> None:
    def who(utterances: list[PlannedUtterance]) -> list[tuple[str, str, str, str]]:
        return [(each.id, each.speaker, each.session, each.split) for each in utterances]

    assert who(planned(kind, size)) == who(planned("sentences", size))


@pytest.mark.parametrize(
    ("kind", "attribute", "values"),
    [
        ("words", "word", {*COMMANDS, *OTHERS}),
        ("commands", "action", set(SLOTS["action"])),
        ("commands", "object", set(SLOTS["object"])),
        ("commands", "location", set(SLOTS["location"])),
        ("emotions", "emotion", set(EMOTIONS)),
        ("languages", "language", set(LANGUAGES)),
    ],
)
def test_labels_are_nearly_equally_frequent_in_every_split(kind: str, attribute: str, values: set[str]) -> None:
    for split in SPLITS:
        own = [each.content.attributes[attribute] for each in planned(kind) if each.split == split]
        counts = Counter(own)
        assert set(counts) == values
        assert min(counts.values()) > 0.7 * len(own) / len(values)


@pytest.mark.parametrize("kind", ["commands", "emotions", "languages"])
def test_no_text_of_one_split_occurs_in_another(kind: str) -> None:
    texts = [{each.content.text for each in planned(kind) if each.split == split} for split in SPLITS]
    assert all(texts)
    assert len(set().union(*texts)) == sum(len(each) for each in texts)


@pytest.mark.parametrize("kind", NEW_KINDS)
def test_transcripts_are_normalised(kind: str) -> None:
    assert all(each.content.text == normalised(each.content.text) for each in planned(kind))
    assert normalised("How happy, the judge was!") == "how happy the judge was"


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_each_term_is_a_query_and_is_in_some_documents_of_every_split(size: str) -> None:
    for split in SPLITS:
        own = [each.content for each in planned("searches", size) if each.split == split]
        queries = Counter(each.text for each in own if each.attributes["role"] == "query")
        documents = [each.text.split() for each in own if each.attributes["role"] == "document"]
        assert set(queries) <= set(TERMS)
        assert len(queries) >= (0.5 if size == "tiny" else 1) * len(TERMS)
        assert max(queries.values()) - min(queries.values()) <= len(documents) // 10
        assert 2.5 < len(documents) / queries.total() <= 3
        assert all(len(set(TERMS).intersection(each)) == 3 for each in documents)
        assert all(0 < sum(term in each for each in documents) < len(documents) for term in TERMS)


def test_half_of_the_words_are_no_command() -> None:
    counts = Counter(each.content.attributes["word"] in COMMANDS for each in planned("words"))
    assert abs(counts[True] - counts[False]) < 0.05 * sum(counts.values())


class TestCommands:
    def test_slots_are_marked_in_the_text(self) -> None:
        for each in planned("commands"):
            attributes, words = each.content.attributes, each.content.attributes["slots"].split()
            assert " ".join(word for word in words if "<" not in word) == each.content.text
            assert {word[1:-1] for word in words if word.startswith("<") and "/" not in word} == {
                slot for slot in SLOTS if attributes[slot] != NONE
            }

    def test_a_marked_value_is_one_of_its_words(self) -> None:
        for each in planned("commands")[:200]:
            for slot, meanings in SLOTS.items():
                marked = each.content.attributes["slots"]
                if each.content.attributes[slot] == NONE:
                    assert f"<{slot}>" not in marked
                else:
                    value = marked.split(f"<{slot}> ")[1].split(f" </{slot}>")[0]
                    words = [form.removeprefix("in the ") for form in meanings[each.content.attributes[slot]]]
                    assert value in words

    def test_frames_belong_to_one_split(self) -> None:
        assert len({frame for frames in FRAMES.values() for frame in frames}) == sum(map(len, FRAMES.values()))


class TestEmotions:
    def test_the_words_tell_nothing_of_the_emotion(self) -> None:
        """The sentiment of the words, the only label that a sentence carries, is the same under every emotion."""
        charged = {word for kinds in CHARGED["positive"].values() for word in kinds}
        texts: dict[str, list[str]] = {name: [] for name in EMOTIONS}
        for each in planned("emotions"):
            texts[each.content.attributes["emotion"]].append(each.content.text)
        shares = [np.mean([bool(charged & set(text.split())) for text in own]) for own in texts.values()]
        # 420 texts of each emotion: the standard deviation of a share is 0.024
        assert all(abs(share - 0.5) < 0.1 for share in shares)

    def test_a_speaker_expresses_all_emotions_alike_strongly(self) -> None:
        own = {each.content.attributes["emotion"]: each.content.prosody for each in planned("emotions")[:8]}
        strengths = [(own[name].rate - 1) / (EMOTIONS[name].rate - 1) for name in ("happiness", "sadness", "anger")]
        assert 0.5 <= min(strengths) <= max(strengths) <= 1.2
        assert max(strengths) - min(strengths) < 1e-9
        assert own["neutral"] == Prosody(pitch_range=50)

    def test_they_differ_in_length_and_level(self, made: dict[str, Corpus]) -> None:
        level_db: dict[str, list[float]] = {name: [] for name in EMOTIONS}
        rate: dict[str, list[float]] = {name: [] for name in EMOTIONS}
        for each in made["emotions"].utterances:
            emotion = str(each.attributes["emotion"])
            level_db[emotion].append(10 * np.log10(np.mean(samples(each) ** 2)))
            spoken = [phone for phone in each.phones or () if phone.label != "sil"]
            rate[emotion].append(len(spoken) / sum(phone.end_s - phone.start_s for phone in spoken))
        assert np.mean(level_db["anger"]) > np.mean(level_db["neutral"]) + 1 > np.mean(level_db["sadness"]) + 2
        assert np.mean(rate["anger"]) > 1.15 * np.mean(rate["sadness"])


class TestLanguages:
    def test_the_vocabularies_are_parallel(self) -> None:
        sizes = {tuple(map(len, vocabulary)) for vocabulary in VOCABULARIES.values()}
        assert len(sizes) == 1

    def test_every_speaker_speaks_every_language(self) -> None:
        by_speaker: dict[str, Counter[str]] = {}
        for each in planned("languages"):
            by_speaker.setdefault(each.speaker, Counter())[each.content.attributes["language"]] += 1
        assert all(max(counts.values()) - min(counts.values()) <= 1 for counts in by_speaker.values())

    def test_the_voice_is_the_same_in_every_language(self) -> None:
        def without_language(language: str) -> list[str]:
            passed = ("name", "language", "phonemes", "dictrules", "tunes")
            lines = draw_voice("s003", 1.0, language).definition.splitlines()
            return [line for line in lines if not line.startswith(passed)]

        assert without_language("en") == without_language("de") == without_language("es")

    def test_they_have_no_phones(self, made: dict[str, Corpus]) -> None:
        assert all(each.phones is None for each in made["languages"].utterances)
        assert "phones" not in made["languages"].label_sets

    def test_each_is_pronounced_in_its_own_way(self, made: dict[str, Corpus]) -> None:
        """Sentences of one form last differently long, if espeak-ng takes other rules for each language."""
        seconds = {
            language: np.mean(
                [each.seconds for each in made["languages"].utterances if each.attributes["language"] == language]
            )
            for language in LANGUAGES
        }
        assert len({round(float(each), 2) for each in seconds.values()}) == len(LANGUAGES)


@pytest.mark.parametrize("kind", [kind for kind in NEW_KINDS if kind not in ("languages", "mixtures")])
def test_phones_cover_every_utterance(made: dict[str, Corpus], kind: str) -> None:
    for each in made[kind].utterances:
        phones = each.phones or ()
        assert (phones[0].start_s, phones[-1].end_s) == (0.0, each.seconds)
        assert sum(phone.label != "sil" for phone in phones) >= 2


class TestMixtures:
    def test_two_voices_take_turns(self) -> None:
        for each in planned("mixtures"):
            voices = [turn.voice for turn in each.content.turns]
            assert 2 <= len(voices) <= 4
            assert set(voices[::2]) != set(voices[1::2])
            assert len(set(voices)) == 2
            assert each.speaker in voices

    def test_half_of_the_turns_overlap_those_before(self) -> None:
        gaps = [turn.gap_seconds for each in planned("mixtures") for turn in each.content.turns[1:]]
        assert abs(np.mean(np.array(gaps) < 0) - 0.5) < 0.03

    def test_no_voice_of_dev_and_test_is_in_the_mixtures_of_two_speakers(self) -> None:
        partners: dict[str, set[str]] = {}
        for each in planned("mixtures"):
            others = {turn.voice for turn in each.content.turns} - {each.speaker}
            partners.setdefault(each.speaker, set()).update(others)
        splits = {each.speaker: each.split for each in planned("mixtures")}
        for speaker, others in partners.items():
            if splits[speaker] != "train":
                assert others == {f"p{speaker[1:]}"}
        in_train = {voice for speaker, others in partners.items() if splits[speaker] == "train" for voice in others}
        assert len(in_train) == 2 * 14
        assert not in_train & {speaker for speaker in partners if splits[speaker] != "train"}

    def test_turns_lie_where_the_voices_sound(self, made: dict[str, Corpus]) -> None:
        for each in made["mixtures"].utterances:
            assert each.turns is not None
            assert each.speaker == "+".join(sorted({turn.speaker for turn in each.turns}))
            assert (each.text, each.phones) == (None, None)
            sound = samples(each).astype(float)
            speaks = np.zeros(len(sound), dtype=bool)
            for turn in each.turns:
                speaks[round(turn.start_s * 16_000) : round(turn.end_s * 16_000)] = True
            # espeak-ng is silent before the first phone and after the last, but for a breath
            assert np.square(sound[~speaks]).sum() < 0.02 * np.square(sound).sum()
            for turn in each.turns:
                own = sound[round(turn.start_s * 16_000) : round(turn.end_s * 16_000)]
                assert np.square(own[:1600]).mean() > 1e-3 * np.square(own).mean()

    def test_nobody_speaks_into_a_turn_of_their_own(self, made: dict[str, Corpus]) -> None:
        overlaps = 0.0
        for each in made["mixtures"].utterances:
            turns = sorted(each.turns or ())
            for voice in {turn.speaker for turn in turns}:
                own = [turn for turn in turns if turn.speaker == voice]
                assert all(after.start_s >= before.end_s + 0.09 for before, after in pairwise(own))
            overlaps += sum(max(before.end_s - after.start_s, 0) for before, after in pairwise(turns))
        assert overlaps > 1.0


@pytest.mark.parametrize("kind", NEW_KINDS)
def test_notes_say_where_the_label_lies(made: dict[str, Corpus], kind: str) -> None:
    assert "sentiment" not in made[kind].notes[1]
    assert len({corpus.notes[1] for corpus in made.values()}) == len(NEW_KINDS)


def test_a_corpus_is_the_same_whatever_the_workers(made: dict[str, Corpus], tmp_path: Path) -> None:
    again = build.build(SyntheticSpec(CONDITIONS["clean"], FEW, "emotions"), tmp_path, num_workers=1)
    assert again.fingerprint == made["emotions"].fingerprint
