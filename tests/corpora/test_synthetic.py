"""The synthetic corpus: the same for everybody, true in its labels, and never half there."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from repbench.corpora.contract import Corpus, CorpusSource, Phone, Utterance
from repbench.corpora.phone_sets import CMU_PHONES, CMU_VOWELS
from repbench.corpora.synthetic import SYNTHETIC, build, conditions, source, worker_pool
from repbench.corpora.synthetic.arpabet import PHONE_SET, PhoneMark, PhoneSegment, segments
from repbench.corpora.synthetic.conditions import CONDITIONS, SIZES, CorpusSize, SyntheticSpec
from repbench.corpora.synthetic.plan import PlannedUtterance, plan
from repbench.corpora.synthetic.source import SyntheticSource
from repbench.corpora.synthetic.voices import draw_voice
from repbench.errors import EnvironmentFault, UsageError

pytest.importorskip("espeakng_loader", reason="needs the extra `demo`, which brings espeak-ng")

FEW = CorpusSize(name="few", num_speakers={"train": 1, "dev": 1, "test": 1}, num_sessions=2, num_per_session=2)


@pytest.fixture(scope="module")
def tiny() -> Corpus:
    return SYNTHETIC.open(("clean", "tiny"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Corpus]:
    """Twelve utterances under each condition, made by three workers."""
    folders = {name: tmp_path_factory.mktemp(name) for name in CONDITIONS}
    return {
        name: build.build(SyntheticSpec(CONDITIONS[name], FEW), folder, num_workers=3)
        for name, folder in folders.items()
    }


@pytest.fixture
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes `synthetic:clean:few` a corpus of twelve utterances; gives the folder it will have in an empty cache."""
    monkeypatch.setenv("REPBENCH_CACHE", str(tmp_path))
    monkeypatch.setitem(conditions.SIZES, FEW.name, FEW)
    return tmp_path / "corpora" / "synthetic-v1-clean-few"


@pytest.fixture
def cached(few: Path, made: dict[str, Corpus]) -> Path:
    """`few`, which the cache already holds."""
    shutil.copytree(made["clean"].utterances[0].audio.parents[1], few)
    return few


def samples(utterance: Utterance) -> NDArray[np.float64]:
    return np.asarray(soundfile.read(utterance.audio, dtype="float64")[0])


def sound_of(phone: Phone, utterance: Utterance) -> NDArray[np.float64]:
    first, after = (round(time_s * utterance.sample_rate_hz) for time_s in (phone.start_s, phone.end_s))
    return samples(utterance)[first:after]


def rms(parts: Sequence[NDArray[np.float64]]) -> float:
    return float(np.sqrt(np.mean(np.concatenate(parts) ** 2)))


def test_is_a_corpus_source() -> None:
    assert isinstance(SYNTHETIC, CorpusSource)


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "name"),
        [
            ((), "synthetic:noisy:small"),
            (("tiny",), "synthetic:noisy:tiny"),
            (("hard",), "synthetic:hard:small"),
            (("clean", "full"), "synthetic:clean:full"),
            (("full", "clean"), "synthetic:clean:full"),
        ],
    )
    def test_come_in_any_order(self, options: tuple[str, ...], name: str) -> None:
        assert conditions.parse(options).corpus_name == name

    def test_unknown_one_is_named_with_those_that_exist(self) -> None:
        with pytest.raises(
            UsageError, match=r"no option `nosy`, did you mean `noisy`\? .*`hard`.*`tiny`, `small`, `full`"
        ):
            SYNTHETIC.open(("nosy",))

    @pytest.mark.parametrize("options", [("clean", "noisy"), ("tiny", "tiny")])
    def test_two_of_a_kind_are_refused(self, options: tuple[str, ...]) -> None:
        with pytest.raises(UsageError, match="takes one of"):
            SYNTHETIC.open(options)

    def test_version_stands_in_the_folder_name(self) -> None:
        assert conditions.parse(()).folder_name == f"synthetic-v{conditions.CORPUS_VERSION}-noisy-small"


class TestPlan:
    @pytest.mark.parametrize("size", SIZES.values(), ids=lambda size: size.name)
    def test_splits_share_neither_speaker_nor_sentence(self, size: CorpusSize) -> None:
        planned = plan(SyntheticSpec(CONDITIONS["clean"], size))
        assert len(planned) == size.num_utterances == len({utterance.id for utterance in planned})
        kinds: dict[str, Callable[[PlannedUtterance], str]] = {
            "speaker": lambda each: each.speaker,
            "text": lambda each: each.content.text,
            "session": lambda each: each.session,
        }
        for kind, value in kinds.items():
            parts = [
                {value(utterance) for utterance in planned if utterance.split == split}
                for split in ("train", "dev", "test")
            ]
            assert all(parts)
            assert sum(len(part) for part in parts) == len(set().union(*parts)), kind

    @pytest.mark.parametrize("size", SIZES.values(), ids=lambda size: size.name)
    def test_sentiment_is_balanced_for_every_speaker(self, size: CorpusSize) -> None:
        planned = plan(SyntheticSpec(CONDITIONS["clean"], size))
        counts = Counter((item.speaker, item.content.attributes["sentiment"]) for item in planned)
        assert set(counts.values()) == {size.num_sessions * size.num_per_session // 2}
        assert len(counts) == 2 * sum(size.num_speakers.values())

    def test_speakers_have_sessions_enough_for_a_split_within_them(self) -> None:
        assert all(size.num_sessions >= 3 and size.num_sessions * size.num_per_session >= 12 for size in SIZES.values())

    def test_words_of_one_sentiment_only(self) -> None:
        planned = plan(SyntheticSpec(CONDITIONS["clean"], SIZES["small"]))
        words = {
            sentiment: {
                word.strip(".,!")
                for item in planned
                if item.content.attributes["sentiment"] == sentiment
                for word in item.content.text.lower().split()
            }
            for sentiment in ("positive", "negative")
        }
        assert {"lovely", "enjoyed", "joy"} <= words["positive"] - words["negative"]
        assert {"horrible", "hated", "shame"} <= words["negative"] - words["positive"]
        assert {"teacher", "garden", "river"} <= words["negative"] & words["positive"]

    def test_closer_voices_differ_less(self) -> None:
        def pitch(speaker: int, spread: float) -> float:
            definition = draw_voice(f"s{speaker:03d}", spread).definition
            return float(definition.split("pitch ")[1].split()[0])

        wide, close = (np.std([pitch(speaker, spread) for speaker in range(50)]) for spread in (1.0, 0.35))
        assert 2.0 < close < wide / 2


class TestSegments:
    """Samples at 1 kHz: one is a millisecond, and a closure is at most 60 of them."""

    def test_zeros_before_a_stop_are_its_closure(self) -> None:
        sound = np.ones(300, np.int16)
        sound[150:190] = 0
        found = segments(
            [PhoneMark(0, "s"), PhoneMark(50, "'a"), PhoneMark(190, "p"), PhoneMark(220, "V")], sound, 1000
        )
        assert found == [
            PhoneSegment(0, 50, "S"),
            PhoneSegment(50, 150, "AE"),
            PhoneSegment(150, 220, "P"),
            PhoneSegment(220, 300, "AH"),
        ]

    def test_zeros_before_another_phone_stay_where_they_are(self) -> None:
        sound = np.ones(300, np.int16)
        sound[150:190] = 0
        assert segments([PhoneMark(0, "a"), PhoneMark(190, "D")], sound, 1000)[0] == PhoneSegment(0, 190, "AE")

    def test_a_pause_before_a_stop_stays_a_pause(self) -> None:
        sound = np.ones(400, np.int16)
        sound[100:300] = 0
        found = segments(
            [PhoneMark(0, "a"), PhoneMark(100, "_:"), PhoneMark(300, "_"), PhoneMark(300, "t")], sound, 1000
        )
        assert found == [PhoneSegment(0, 100, "AE"), PhoneSegment(100, 240, "sil"), PhoneSegment(240, 400, "T")]

    def test_what_comes_before_the_first_mark_is_silence(self) -> None:
        assert segments([PhoneMark(12, "D")], np.ones(50, np.int16), 1000) == [
            PhoneSegment(0, 12, "sil"),
            PhoneSegment(12, 50, "DH"),
        ]

    def test_unknown_phone_is_named(self) -> None:
        with pytest.raises(EnvironmentFault, match=r"the phone `'y:`, which has no place in ARPABET.*espeakng-loader"):
            segments([PhoneMark(0, "'y:")], np.ones(50, np.int16), 1000)

    def test_the_phones_are_those_of_other_corpora(self) -> None:
        assert set(PHONE_SET) == {*CMU_PHONES, "sil"}
        assert len(PHONE_SET) == 40


class TestCorpus:
    def test_all_that_it_says(self, tiny: Corpus) -> None:
        first = tiny.utterances[0]
        assert (first.id, first.speaker, first.group, first.split) == ("s000-a-000", "s000", "s000-a", "train")
        assert (first.sample_rate_hz, first.attributes) == (16_000, {"sentiment": "negative"})
        assert len(tiny.utterances) == SIZES["tiny"].num_utterances
        assert tiny.label_sets["phones"] == PHONE_SET
        assert "espeak-ng" in tiny.licence
        assert "espeak-ng 1." in tiny.notes[0]

    def test_phones_cover_every_utterance_without_gap(self, tiny: Corpus) -> None:
        for utterance in tiny.utterances:
            phones = utterance.phones or ()
            assert phones[0].start_s == 0.0
            assert phones[-1].end_s == utterance.seconds
            assert all(first.end_s == second.start_s for first, second in itertools.pairwise(phones))
            assert all(phone.start_s < phone.end_s for phone in phones)

    def test_every_phone_occurs_in_train_and_test(self, tiny: Corpus) -> None:
        for split in ("train", "test"):
            chosen = [utterance for utterance in tiny.utterances if utterance.split == split]
            assert {phone.label for utterance in chosen for phone in utterance.phones or ()} == set(PHONE_SET)

    def test_labels_tell_silence_from_vowels(self, tiny: Corpus) -> None:
        for utterance in tiny.utterances[::8]:
            by_label = {
                is_silence: [
                    sound_of(phone, utterance)
                    for phone in utterance.phones or ()
                    if (phone.label == "sil" if is_silence else phone.label in CMU_VOWELS)
                ]
                for is_silence in (True, False)
            }
            assert rms(by_label[True]) < 0.02 * rms(by_label[False]), utterance.id

    def test_closures_belong_to_the_stop(self, tiny: Corpus) -> None:
        """The first 15 ms of a voiceless stop are silent; the vowel before it sounds to its end."""
        stops = []
        for utterance in tiny.utterances[::4]:
            level = rms([samples(utterance)])
            for before, phone in itertools.pairwise(utterance.phones or ()):
                if phone.label in {"P", "K"} and before.label in CMU_VOWELS:
                    stops.append(phone)
                    assert rms([sound_of(phone, utterance)[:240]]) < 0.05 * level, (utterance.id, phone)
                    assert rms([sound_of(before, utterance)[-160:]]) > 0.05 * level, (utterance.id, before)
        assert len(stops) > 20

    @pytest.mark.parametrize("condition", ["noisy", "hard"])
    def test_noise_fills_the_silences_but_never_clips(self, made: dict[str, Corpus], condition: str) -> None:
        for utterance in made[condition].utterances:
            silences = [sound_of(phone, utterance) for phone in utterance.phones or () if phone.label == "sil"]
            assert rms(silences) > 0.02 * rms([samples(utterance)])
            assert np.abs(samples(utterance)).max() < 0.96

    def test_conditions_differ_in_sound_alone(self, made: dict[str, Corpus]) -> None:
        for first, second in zip(made["clean"].utterances, made["noisy"].utterances, strict=True):
            assert (first.id, first.text, first.attributes) == (second.id, second.text, second.attributes)
            assert first.samples_sha256 != second.samples_sha256


def test_same_corpus_whatever_the_workers_and_their_order(
    made: dict[str, Corpus], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def again(name: str, num_workers: int) -> Corpus:
        (tmp_path / name).mkdir()
        return build.build(SyntheticSpec(CONDITIONS["hard"], FEW), tmp_path / name, num_workers=num_workers)

    alone = again("alone", 1)
    monkeypatch.setattr(build, "plan", lambda asked: plan(asked)[::-1])
    reversed_order = again("reversed", 2)
    assert len({utterance.samples_sha256 for utterance in alone.utterances}) == FEW.num_utterances
    assert alone.fingerprint == reversed_order.fingerprint == made["hard"].fingerprint


class TestCache:
    def test_holds_what_was_made_and_says_how_far_it_is(self, few: Path, made: dict[str, Corpus]) -> None:
        steps: list[tuple[int, int]] = []
        corpus = SYNTHETIC.open(("clean", "few"), progress=lambda done, total: steps.append((done, total)))
        assert corpus.fingerprint == made["clean"].fingerprint
        assert steps[-1] == (FEW.num_utterances, FEW.num_utterances)
        assert [done for done, _ in steps] == sorted(done for done, _ in steps)
        assert {path.name for path in few.parent.iterdir()} <= {few.name, f".{few.name}.lock"}
        assert {path.name for path in few.iterdir()} == {"corpus.json", "manifest.jsonl", "sound"}

    def test_is_used_without_espeak(
        self, cached: Path, made: dict[str, Corpus], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "espeakng_loader", None)
        corpus = SYNTHETIC.open(("few", "clean"))
        assert corpus.fingerprint == made["clean"].fingerprint
        assert corpus.utterances[0].audio == cached / "sound" / "s000-a-000.wav"

    @pytest.mark.parametrize("place", ["manifest.jsonl", "corpus.json", "sound/s000-a-000.wav"])
    @pytest.mark.parametrize("damage", ["cut short", "missing"])
    def test_damage_is_seen(self, cached: Path, place: str, damage: str, caplog: pytest.LogCaptureFixture) -> None:
        ruin(cached / place, damage)
        caplog.set_level("INFO")
        assert source._read(cached) is None
        assert "The cached corpus cannot be read: " in caplog.text
        assert Path(place).name in caplog.text

    def test_damaged_one_is_made_again(
        self, cached: Path, made: dict[str, Corpus], caplog: pytest.LogCaptureFixture
    ) -> None:
        ruin(cached / "sound/s000-a-000.wav", "cut short")
        assert SYNTHETIC.open(("clean", "few")).fingerprint == made["clean"].fingerprint
        assert caplog.text.count("damaged and will be made again") == 1
        assert source._read(cached) is not None
        assert not list(cached.parent.glob(".tmp-*"))

    def test_leftovers_of_the_dead_are_removed_and_those_of_the_living_kept(self, few: Path) -> None:
        here = socket.gethostname()
        owners = {"dead": f"{dead_process()}@{here}", "living": f"{os.getpid()}@{here}", "elsewhere": "1@another-host"}
        folders = {who: few.parent / f".tmp-{few.name}-{owner}-0123abcd" for who, owner in owners.items()}
        for folder in folders.values():
            (folder / "sound").mkdir(parents=True)
        source._remove_leftovers(few)
        assert {who for who, folder in folders.items() if folder.exists()} == {"living", "elsewhere"}

    def test_kill_while_it_is_made_leaves_nothing_that_is_used(self, few: Path) -> None:
        process = subprocess.Popen([sys.executable, "-c", opening_script()], env=os.environ | {"SIZE": "large"})
        wait_until(lambda: list(few.parent.glob(".tmp-*/sound/*.wav")))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not few.exists()
        (unfinished,) = few.parent.glob(".tmp-*")
        wait_until_still(unfinished / "sound")
        assert len(SYNTHETIC.open(("clean", "few")).utterances) == FEW.num_utterances
        assert not unfinished.exists()

    @pytest.mark.parametrize("locks", ["working", "broken"])
    def test_two_processes_get_the_same_whole_corpus(self, few: Path, made: dict[str, Corpus], locks: str) -> None:
        environment = os.environ | {"LOCKS": locks}
        crowd = [
            subprocess.Popen([sys.executable, "-c", opening_script()], env=environment, stdout=subprocess.PIPE)
            for _ in range(2)
        ]
        answers = [process.communicate(timeout=60)[0].decode().split() for process in crowd]
        assert [process.returncode for process in crowd] == [0, 0]
        assert answers[0][0] == answers[1][0] == made["clean"].fingerprint
        assert sum(int(answer[1]) for answer in answers) == (1 if locks == "working" else 2)
        assert not list(few.parent.glob(".tmp-*"))

    def test_the_loser_of_a_race_uses_what_the_winner_made(
        self, few: Path, made: dict[str, Corpus], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def build_but_lose(asked: SyntheticSpec, out: Path, **options: int) -> Corpus:
            for folder in (out, few):
                shutil.copytree(made[asked.condition.name].utterances[0].audio.parents[1], folder, dirs_exist_ok=True)
            (few / "winner").touch()
            return made[asked.condition.name]

        monkeypatch.setattr(source, "_build_lock", lambda _: contextlib.nullcontext())
        monkeypatch.setattr(build, "build", build_but_lose)
        corpus = SYNTHETIC.open(("clean", "few"))
        assert (few / "winner").exists()
        assert corpus.utterances[0].audio.is_relative_to(few)
        assert not list(few.parent.glob(".tmp-*"))


class TestFaults:
    def test_missing_extra_says_what_to_install(self, few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "espeakng_loader", None)
        with pytest.raises(
            EnvironmentFault, match=r"espeak-ng, which is not installed.*pip install 'repbench\[demo\]'"
        ):
            SYNTHETIC.open(("clean", "few"))
        assert not list(few.parent.glob(".tmp-*"))

    @pytest.mark.parametrize(
        ("death", "message"),
        [
            ("print('it', 'hurts', file=sys.stderr); sys.exit(3)", r"ended with exit code 3: it hurts\."),
            ("os.kill(os.getpid(), 9)", r"was ended by signal 9: nothing on its stderr\."),
            ("sys.exit(0)", r"ended after 0 of 2 utterances: nothing on its stderr\."),
            ("time.sleep(60)", r"has given no result for 0\.5 s"),
        ],
    )
    def test_dead_worker_is_named_with_its_last_words(self, tmp_path: Path, death: str, message: str) -> None:
        command = (sys.executable, "-c", f"import os, sys, time; {death}")
        jobs = [{"id": "a"}, {"id": "b"}]
        with pytest.raises(EnvironmentFault, match=r"Speech worker 1 of 1 \(process \d+\) " + message) as caught:
            worker_pool.run(jobs, tmp_path, worker_pool.WorkerCommand((), command, 0.5), num_workers=1)
        with pytest.raises(ProcessLookupError):
            os.kill(int(str(caught.value).split("process ")[1].split(")")[0]), 0)

    def test_one_dead_worker_ends_the_others(self, tmp_path: Path) -> None:
        script = (
            "import os, sys, time; from pathlib import Path; number = Path(sys.argv[1]).stem[-1]; "
            f"Path({str(tmp_path)!r}, number + '.pid').write_text(str(os.getpid())); "
            "time.sleep(60 if number == '1' else 0.5); sys.exit('gone')"
        )
        with pytest.raises(EnvironmentFault, match=r"Speech worker 2 of 2 .*: gone"):
            worker_pool.run(
                [{}, {}], tmp_path, worker_pool.WorkerCommand((), (sys.executable, "-c", script)), num_workers=2
            )
        for number in (1, 2):
            with pytest.raises(ProcessLookupError):
                os.kill(int((tmp_path / f"{number}.pid").read_text()), 0)

    def test_voice_that_is_not_there_is_refused(self, few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """espeak-ng alone would go on with the voice before."""
        monkeypatch.setattr(build, "speakers", lambda size: {})
        with pytest.raises(EnvironmentFault, match=r"could not choose the voice `s00[0-2]`"):
            SyntheticSource(num_workers=1).open(("clean", "few"))
        assert not few.exists()
        assert not list(few.parent.glob(".tmp-*"))


def opening_script() -> str:
    """Opens `synthetic:clean:few` in a process of its own; prints its fingerprint and how often it was made."""
    return f"""
import contextlib, os
from repbench.corpora.synthetic import SYNTHETIC, build, conditions, source
per_session = 200 if os.environ.get("SIZE") == "large" else {FEW.num_per_session}
conditions.SIZES["few"] = conditions.CorpusSize(
    name="few", num_speakers={dict(FEW.num_speakers)}, num_sessions={FEW.num_sessions}, num_per_session=per_session
)
if os.environ.get("LOCKS") == "broken":
    source._build_lock = lambda folder: contextlib.nullcontext()
calls, really_build = [], build.build
build.build = lambda *given, **named: calls.append(1) or really_build(*given, **named)
print(SYNTHETIC.open(("clean", "few")).fingerprint, len(calls))
"""


def ruin(path: Path, damage: str) -> None:
    content = path.read_bytes()
    path.unlink()
    if damage == "cut short":
        path.write_bytes(content[:-100])


def dead_process() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def wait_until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_until_still(folder: Path) -> None:
    """Wait until nobody has added a file for half a second."""
    num_files = -1
    while num_files != (num_files := len(list(folder.iterdir()))):
        time.sleep(0.5)
