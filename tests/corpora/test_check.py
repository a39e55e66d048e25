"""The audit of a corpus."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from repbench.corpora import manifest
from repbench.corpora.audit.check import check
from repbench.corpora.contract import Corpus, Draft, DraftUtterance, Phone
from tests.corpora.sounds import RATE_HZ, noise_draft, write_noise


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    draft = noise_draft(tmp_path / "sound", names=("a", "b", "c", "d", "e"))
    return manifest.write(draft, tmp_path / "manifest")


def sound(corpus: Corpus, utterance: str) -> Path:
    return next(item.audio for item in corpus.utterances if item.id == utterance)


def test_a_sound_corpus_has_figures_and_no_problem(tmp_path: Path) -> None:
    def utterance(name: str, seed: int, seconds: float, split: str, speaker: str) -> DraftUtterance:
        audio = write_noise(tmp_path / f"{name}.wav", seed=seed, seconds=seconds)
        known = DraftUtterance(id=name, audio=audio, speaker=speaker, attributes={"mood": split, "take": seed})
        return replace(known, split=split)  # type: ignore[arg-type]

    a = replace(utterance("a", 0, 0.5, "train", "s1"), phones=(Phone(0.0, 0.1, "AA"), Phone(0.2, 0.3, "AA")))
    draft = Draft(
        name="noise",
        licence="none",
        root=tmp_path,
        utterances=[a, utterance("b", 1, 1.0, "train", "s2"), utterance("c", 2, 3.0, "test", "s3")],
    )
    report = check(manifest.write(draft, tmp_path / "out"))
    assert (report.num_utterances, report.num_speakers, report.seconds) == (3, 3, 4.5)
    assert (report.shortest_seconds, report.median_seconds, report.longest_seconds) == (0.5, 1.0, 3.0)
    assert (report.rates, report.splits) == ({RATE_HZ: 3}, {"test": 1, "train": 2})
    assert report.label_counts == {
        "attributes.mood": {"test": 1, "train": 2},
        "attributes.take": {"0": 1, "1": 1, "2": 1},
        "phones": {"AA": 2},
        "speakers": {"s1": 1, "s2": 1, "s3": 1},
    }
    assert report.problems == ()
    assert report.coverage == {
        "attributes.mood": {"all": 3, "test": 1, "train": 2},
        "attributes.take": {"all": 3, "test": 1, "train": 2},
        "phones": {"all": 1, "train": 1},
        "speaker": {"all": 3, "test": 1, "train": 2},
    }
    assert report.aligned_share == pytest.approx(0.4)
    assert report.sound is not None
    assert (report.sound.clipped_share, report.sound.longest_clip_samples) == (0.0, 0)
    assert report.warnings == (
        "2 of 3 utterances have no alignment",
        "1 of 3 utterances carry phones for less than 50% of their duration, such as `a`",
    )
    assert (report.exit_code, report.flagged) == (0, {"barely_aligned": ("a",)})
    strict = check(manifest.read(tmp_path / "out"), strict=True)
    assert (strict.problems, strict.warnings, strict.exit_code) == (report.warnings, (), 3)


def test_the_report_is_plain_json(corpus: Corpus) -> None:
    report = check(corpus).as_dict()
    assert json.loads(json.dumps(report)) == report
    assert (report["name"], report["rates"], report["fingerprint"]) == ("noise", {"16000": 5}, corpus.fingerprint)


def test_every_broken_utterance_is_named(corpus: Corpus) -> None:
    sound(corpus, "a").unlink()
    sound(corpus, "b").write_bytes(sound(corpus, "b").read_bytes()[:-500])
    write_noise(sound(corpus, "c"), seed=99)
    write_noise(sound(corpus, "d"), seed=99, seconds=0.6)
    write_noise(sound(corpus, "e"), seed=99, rate_hz=8_000)
    problems = check(corpus).problems
    assert len(problems) == 5
    for problem, utterance, fault in zip(
        problems,
        "abcde",
        [
            "missing",
            "file holds 7750 samples, but its header declares 8000",
            "samples are not those",
            "has 9600 samples, but the manifest has 8000",
            "has 8000 Hz, but the manifest has 16000",
        ],
        strict=True,
    ):
        assert fault in problem
        assert f"utterance {utterance})" in problem


def test_fault_16_an_utterance_shorter_than_a_window_is_a_problem(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(1), RATE_HZ)
    write_noise(tmp_path / "b.wav", seed=0, seconds=0.024)
    write_noise(tmp_path / "c.wav", seed=1, seconds=0.025)
    utterances = [DraftUtterance(id=name, audio=tmp_path / f"{name}.wav") for name in "abc"]
    corpus = manifest.write(Draft(name="short", licence="", root=tmp_path, utterances=utterances), tmp_path / "out")
    first, second = check(corpus).problems
    assert "less than a window of 0.025 s" in first
    assert "utterance a)" in first
    assert "utterance b)" in second


def test_fault_24_the_same_sound_in_two_splits_is_a_problem_and_in_one_a_warning(corpus: Corpus) -> None:
    a, b, *_ = corpus.utterances
    train, test, again = replace(a, split="train"), replace(a, id="z", split="test"), replace(a, id="y", split="test")
    across = check(replace(corpus, utterances=(train, b, test)))
    assert [problem for problem in across.problems if "two ids, `a` (train) and `z` (test)" in problem]
    within = check(replace(corpus, utterances=(b, again, test)))
    assert within.problems == ()
    assert "1 of 3 utterances have the sound of another one, such as `y` (test) and `z` (test)" in within.warnings


def test_the_same_stretch_under_two_ids_is_an_equal_sound_and_no_overlap(tmp_path: Path) -> None:
    sound = write_noise(tmp_path / "r.wav", seed=0, seconds=1.0)
    cut = [
        DraftUtterance(id=name, audio=sound, start=start, end=end)
        for name, start, end in (("a", 0.0, 0.5), ("b", 0.0, 0.5), ("c", 0.5, 1.0), ("d", 0.5, 0.9), ("e", 0.5, 0.9))
    ]
    draft = Draft(name="x", licence="", root=tmp_path, utterances=cut)
    report = check(manifest.write(draft, tmp_path / "out"))
    assert len(report.problems) == 1
    assert "`d` and `c` overlap by 0.400 s" in report.problems[0]
    assert report.warnings[0].startswith("2 of 5 utterances have the sound of another one, such as `a` and `b`")


def test_what_was_dropped_when_the_corpus_was_prepared_is_a_warning(corpus: Corpus) -> None:
    report = check(replace(corpus, dropped={"gone": "it is empty"}))
    num_listed = len(corpus.utterances) + 1
    said = f"1 of {num_listed} utterances were left out when the corpus was prepared, such as gone: it is empty"
    assert report.warnings[0] == said


def test_fault_25_shared_speakers_and_groups_are_warnings(tmp_path: Path) -> None:
    draft = noise_draft(tmp_path / "sound", names=("a", "b", "c", "d"))
    a, b, c, d = draft.utterances
    utterances = [
        replace(a, split="train", speaker="s1", group="g1"),
        replace(b, split="dev", speaker="s2", group="g1"),
        replace(c, split="test", speaker="s1", group="g2"),
        replace(d, split="test", speaker="s3", group=None),
    ]
    report = check(manifest.write(replace(draft, utterances=utterances), tmp_path / "out"))
    assert report.problems == ()
    assert report.warnings == (
        "1 of the 2 speakers of test are also in train",
        "1 of the 1 groups of dev are also in train",
    )


def test_progress_counts_every_utterance(corpus: Corpus) -> None:
    seen: list[tuple[int, int]] = []
    check(corpus, progress=lambda done, of: seen.append((done, of)))
    assert seen == [(done, 5) for done in range(1, 6)]


def test_a_corpus_without_utterances_is_a_problem(corpus: Corpus) -> None:
    report = check(replace(corpus, utterances=()))
    assert report.num_utterances == 0
    assert "no utterance" in report.problems[0]
